//! The decisions of a turn, in virtual time. The guarantees of its order after a crash are
//! in `state/spool/tests`.

use super::*;
use crate::limits::{COMMIT_DELAY, RESULTS_KEPT, SCRATCH_BYTES};
use crate::proto::attributes::HandlerKind;
use crate::state::disk::fake::{FAILED, FakeDisk};
use crate::state::disk::{Disk, MOVED, NO_SPACE, Obstacle, SpoolFile};
use crate::state::jobs::disk_health::{COMPACT_RETRY, SPOOL_RETRY};
use crate::state::jobs::history::EVENTS_TURN;
use crate::state::jobs::home::HOME_RETRY;
use crate::state::jobs::timers::START_RETRY;
use crate::util::text::Writer;

type Vec<T> = std::vec::Vec<T>;

const fn ms(ms: u64) -> Duration {
    Duration::from_ms(ms)
}

const RULES: JobRules = JobRules {
    spool: SpoolRules {
        retries: 1,
        retry_delay: ms(10),
        queue_max: 100,
        dead_max: 3,
        handler: HandlerKind::Shell,
        sync: true,
    },
    workers: 2,
    job_timeout: Duration::ZERO,
    stop_timeout: ms(500),
    queue_interval: ms(3000),
    takes_all: true,
    logs_jobs: false,
    stale_after: ms(15_000),
};

/// The answer of the service to an action.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RequestOutcome {
    Works,
    /// The job names no program.
    Refused,
    /// The system has no process for it, or the log takes no line.
    Failed,
}

struct JobsRun {
    core: Box<JobsCore>,
    disk: FakeDisk,
    now: Instant,
    answer: RequestOutcome,
    /// The requests of a client in the next turn.
    asks: Vec<&'static str>,
    /// Ids of new jobs whose reply said that they are durable.
    replies: Vec<u64>,
    added: Vec<u64>,
    notices: Vec<TurnNotice>,
    /// The results that were known when clients were notified.
    notified: Vec<(u64, JobResult)>,
    needs: ClientNeeds,
}

impl JobsRun {
    fn new(rules: JobRules) -> Self {
        let mut disk = FakeDisk::new(1);
        let mut core = Box::new(JobsCore::EMPTY);
        let now = Instant::from_ms(10_000);
        core.recover(&mut disk, &mut vec![0; SCRATCH_BYTES], rules, now).unwrap();
        Self {
            core,
            disk,
            now,
            answer: RequestOutcome::Works,
            asks: Vec::new(),
            replies: Vec::new(),
            added: Vec::new(),
            notices: Vec::new(),
            notified: Vec::new(),
            needs: ClientNeeds::default(),
        }
    }

    /// Returns a service in which these jobs were queued; those that have a worker run.
    fn with_jobs(rules: JobRules, texts: &[&'static str]) -> Self {
        let mut run = Self::new(rules);
        run.asks = texts.to_vec();
        run.turn();
        run
    }

    /// Performs one turn and returns its actions.
    fn turn(&mut self) -> String {
        let (mut scratch, mut actions) = (vec![0; SCRATCH_BYTES], Vec::new());
        self.core.begin_turn(self.now);
        while let Some(action) = self.core.next_action(&mut self.disk, &mut scratch, self.now, &mut |_| {}) {
            actions.push(match action {
                TurnAction::FlushLog => {
                    self.core.log_flushed(self.answer != RequestOutcome::Failed);
                    "flush".to_owned()
                }
                TurnAction::LogDropped(location) => format!("drop {}", location.id),
                TurnAction::NotifyWaiters => {
                    let history = &self.core.history;
                    let results = (0..9).filter_map(|id| Some((id, history.result_of(id)?)));
                    self.notified.extend(results);
                    continue;
                }
                TurnAction::ServeClients => {
                    for ask in self.asks.drain(..) {
                        match ask {
                            "stop" => drop(self.core.stop(self.now)),
                            "retry dead" => self.core.history.forget_dead(),
                            "refused" => self.core.request_refused(NO_SPACE),
                            text => self.added.extend(self.core.add_job(
                                &mut self.disk,
                                text.as_bytes(),
                                self.now,
                            )),
                        }
                    }
                    self.core.clients_served(self.needs);
                    "serve".to_owned()
                }
                TurnAction::Reply { jobs, edits } => {
                    let added = self.added.drain(..);
                    self.replies.extend(added.filter(|_| jobs.is_ok()));
                    format!("reply {} {}", jobs.is_ok(), edits.is_ok())
                }
                TurnAction::LogJob(slot) => {
                    if self.answer == RequestOutcome::Refused {
                        self.core.handler_refused(slot.id);
                    }
                    format!("log {}", slot.id)
                }
                TurnAction::StartHandler(slot) => {
                    match self.answer {
                        RequestOutcome::Works => self.core.handler_started(slot.id, self.now),
                        RequestOutcome::Refused => drop(self.core.handler_refused(slot.id)),
                        RequestOutcome::Failed => self.core.handler_failed(slot.id, self.now),
                    }
                    format!("start {}.{}", slot.id, slot.attempt)
                }
                TurnAction::Signal(HandlerSignal { id, kind }) => format!("{kind:?} {id}"),
                TurnAction::SwitchQueueFile => "switch".to_owned(),
                TurnAction::Notice(notice) => {
                    self.notices.push(notice);
                    continue;
                }
            });
        }
        actions.join(", ")
    }

    /// Lets time pass up to the next deadline and returns how long. Performs a refill first.
    fn sleep(&mut self) -> u64 {
        if self.core.spool.wants_refill() {
            self.turn();
        }
        let due = self.core.next_deadline(self.now, false).expect("nothing is due").or_later(self.now);
        let slept = due.since(self.now).as_ms();
        self.now = due;
        slept
    }

    fn end(&mut self, id: u64, outcome: AttemptOutcome) -> Option<AttemptEnd> {
        self.core.handler_ended(id, outcome, self.now).map(|report| report.end)
    }

    fn attempts(&self) -> Vec<u16> {
        self.core.spool.window().slots().iter().map(|slot| slot.attempt).collect()
    }

    fn counts(&self) -> (u64, u64) {
        (self.core.counts().jobs, self.core.counts().failed)
    }
}

const BAD: AttemptOutcome = AttemptOutcome::Code(7);

#[test]
fn a_full_queue_that_does_not_move_is_a_state_until_it_does() {
    let spool = SpoolRules { queue_max: 1, ..RULES.spool };
    let mut run = JobsRun::new(JobRules { spool, workers: 1, ..RULES });
    run.asks.push("one");
    run.turn();
    assert_eq!((run.core.room(), run.core.room_or_refusal(run.now)), (0, 0));
    run.turn();
    run.notices.clear();
    let due = run.now + RULES.stale_after;
    assert!(run.core.next_deadline(run.now, false).is_some_and(|at| at.is_due(due)));
    run.now = due;
    run.turn();
    assert!(run.core.queue_room.is_stuck());
    assert_eq!(run.notices, [TurnNotice::QueueFull]);
    let id = run.core.timers.running()[0].id;
    run.core.handler_ended(id, AttemptOutcome::Success, run.now);
    run.turn();
    assert!(!run.core.queue_room.is_stuck());
    assert_eq!(run.notices, [TurnNotice::QueueFull, TurnNotice::QueueMoves]);
}

#[test]
fn a_job_is_durable_before_its_reply_and_recorded_before_it_starts() {
    let mut run = JobsRun::new(RULES);
    run.asks = vec!["one", "two", "three"];
    assert_eq!(run.turn(), "serve, reply true true, flush, start 1.1, start 2.1");
    assert_eq!(run.replies, [1, 2, 3]);
    assert_eq!(run.turn(), "serve", "all workers are busy");
    let before = run.disk.operations;
    run.end(1, AttemptOutcome::Success);
    assert_eq!(run.turn(), "flush, serve, start 3.1");
    assert_eq!(run.disk.operations - before, 1, "the end of one and the start of the next are one write");
    assert_eq!(run.counts(), (1, 0));
    assert_eq!(run.sleep(), COMMIT_DELAY.as_ms());
    assert_eq!(run.turn(), "serve, reply true true");
    assert_eq!(run.core.next_deadline(run.now, false), None);
}

#[test]
fn a_second_attempt_is_committed_before_it_starts() {
    let mut run = JobsRun::with_jobs(RULES, &["one"]);
    assert_eq!(run.end(1, BAD), Some(AttemptEnd::Fail(ms(10))));
    assert_eq!(run.turn(), "flush, serve");
    assert_eq!(run.sleep(), 10);
    let syncs = run.core.spool.io_stats().syncs;
    assert_eq!(run.turn(), "serve, flush, start 1.2");
    assert_eq!(run.core.spool.io_stats().syncs, syncs + 1);
    assert_eq!(run.end(1, BAD), Some(AttemptEnd::Dead(BAD)));
    run.turn();
    assert_eq!((run.counts(), run.core.spool.dead()), ((1, 2), 1));
    assert_eq!(run.core.history.result_of(1), Some(JobResult::Dead(BAD)));
}

#[test]
fn a_commit_that_fails_keeps_a_second_attempt_from_starting_until_the_disk_works() {
    let mut run = JobsRun::with_jobs(RULES, &["one"]);
    run.end(1, BAD);
    run.turn();
    run.sleep();
    run.disk.fail_at = Some(run.disk.operations + 2);
    assert_eq!(run.turn(), "serve, flush");
    assert_eq!(run.notices, [TurnNotice::DiskFailed(FAILED)]);
    run.now += SPOOL_RETRY;
    assert_eq!(run.core.next_deadline(run.now, false), Some(run.now), "known jobs cannot continue either");
    assert_eq!(run.turn(), "serve, reply true true, start 1.2");
    assert_eq!(run.notices[1..], [TurnNotice::DiskWorks]);
}

#[test]
fn a_handler_that_is_refused_costs_an_attempt_and_one_that_cannot_be_started_none() {
    let mut run = JobsRun::new(RULES);
    run.answer = RequestOutcome::Refused;
    run.asks = vec!["one"];
    assert_eq!(run.turn(), "serve, reply true true, flush, start 1.1, flush");
    assert_eq!((run.attempts(), run.counts()), (vec![1], (0, 1)));
    run.sleep();
    run.answer = RequestOutcome::Failed;
    assert_eq!(run.turn(), "serve, flush, start 1.2, flush");
    assert_eq!((run.attempts(), run.counts()), (vec![1], (0, 1)));
    assert_eq!(run.turn(), "serve", "not at once");
    run.answer = RequestOutcome::Works;
    run.sleep();
    assert_eq!(run.turn(), "serve, reply true true, flush, start 1.2", "{START_RETRY:?}");
}

#[test]
fn a_job_for_the_log_is_done_when_its_line_is_written() {
    let mut run = JobsRun::new(JobRules { logs_jobs: true, workers: 0, ..RULES });
    run.core.history.watched = true;
    run.answer = RequestOutcome::Failed;
    run.asks = vec!["one", "two"];
    assert_eq!(run.turn(), "serve, reply true true, log 1, log 2, flush");
    assert_eq!((run.attempts(), run.counts()), (vec![0, 0], (0, 0)), "the log cannot be written");
    assert_eq!(run.turn(), "serve");
    run.now += START_RETRY;
    run.answer = RequestOutcome::Works;
    assert_eq!(run.turn(), "serve, reply true true, log 1, log 2, flush");
    assert_eq!((run.attempts(), run.counts()), (vec![], (2, 0)));
    let mut text = [0; 2000];
    let mut out = Writer::new(&mut text);
    run.core.history.take_events(&mut out, &mut |_, _| {});
    let states = ["started", "done", "started", "done"].map(|state| format!("state={state}"));
    let text = String::from_utf8(out.as_bytes().to_vec()).unwrap();
    assert!(text.lines().zip(&states).all(|(line, state)| line.contains(state)), "{text}");
    assert_eq!(text.lines().count(), 4);
}

#[test]
fn a_job_for_the_log_whose_text_is_lost_fails() {
    let mut run = JobsRun::new(JobRules { logs_jobs: true, ..RULES });
    run.answer = RequestOutcome::Refused;
    run.asks = vec!["one"];
    assert_eq!(run.turn(), "serve, reply true true, log 1");
    assert_eq!((run.attempts(), run.counts()), (vec![1], (0, 1)));
}

#[test]
fn a_handler_that_runs_too_long_gets_term_and_then_kill() {
    let mut run = JobsRun::with_jobs(JobRules { job_timeout: ms(300), ..RULES }, &["one"]);
    assert_eq!(run.core.next_signal(run.now), None);
    assert_eq!(run.sleep(), 300);
    let signal = |kind| Some(HandlerSignal { id: 1, kind });
    assert_eq!(run.core.next_signal(run.now), signal(SignalKind::Timeout));
    assert_eq!((run.core.next_signal(run.now), run.sleep()), (None, 500));
    assert_eq!(run.core.next_signal(run.now), signal(SignalKind::Kill));
    assert_eq!(run.core.next_signal(run.now), None);
    let report = run.core.handler_ended(1, AttemptOutcome::Signal(9), run.now).unwrap();
    assert_eq!((report.outcome, report.took), (AttemptOutcome::TimedOut, ms(800)));
    assert_eq!((report.attempt, report.attempts), (1, 2));
}

#[test]
fn a_stop_asks_handlers_to_end_and_a_second_one_ends_them() {
    let mut run = JobsRun::with_jobs(JobRules { job_timeout: ms(300), ..RULES }, &["one", "two", "three"]);
    assert!(run.core.stop(run.now) && !run.core.is_stopped());
    assert_eq!(run.turn(), "Terminate 1, Terminate 2, serve");
    assert_eq!(run.core.next_deadline(run.now, false), Some(run.now + RULES.stop_timeout));
    assert!(!run.core.stop(run.now));
    assert_eq!(run.core.next_deadline(run.now, false), Some(Instant::BOOT));
    assert_eq!(run.turn(), "Kill 1, Kill 2, serve");
    assert_eq!(run.end(1, AttemptOutcome::Signal(15)), None, "it runs again");
    assert_eq!(run.end(2, AttemptOutcome::Success), Some(AttemptEnd::Done(AttemptOutcome::Success)));
    assert!(run.core.is_stopped());
    run.core.finish(&mut run.disk, run.now).unwrap();
    assert_eq!((run.attempts(), run.core.spool.waiting()), (vec![0, 0], 2));
}

#[test]
fn clients_learn_of_an_end_before_a_request_has_it_forgotten() {
    let rules = JobRules { spool: SpoolRules { retries: 0, ..RULES.spool }, ..RULES };
    let mut run = JobsRun::with_jobs(rules, &["a", "b"]);
    run.end(1, AttemptOutcome::Code(3));
    run.asks = vec!["retry dead"];
    run.turn();
    assert_eq!(run.notified, [(1, JobResult::Dead(AttemptOutcome::Code(3)))]);
    run.turn();
    assert_eq!(run.notified.len(), 1);
    run.core.set_rules(JobRules { logs_jobs: true, ..rules });
    run.asks = vec!["c"];
    run.turn();
    assert_eq!(run.notified.get(1..), Some([(3, JobResult::Done)].as_slice()), "at the end of its turn");
}

#[test]
fn an_attempt_that_timed_out_or_was_cancelled_before_a_stop_counts() {
    let mut run = JobsRun::with_jobs(JobRules { job_timeout: ms(300), ..RULES }, &["one", "two"]);
    assert_eq!(run.core.cancel(&mut run.disk, 2, run.now), Ok(Some(Cancelled::Running)));
    assert_eq!(run.turn(), "Terminate 2, serve");
    run.now += ms(300);
    assert_eq!(run.turn(), "Timeout 1, serve");
    run.core.stop(run.now);
    assert_eq!(run.end(1, AttemptOutcome::Signal(15)), Some(AttemptEnd::Fail(ms(10))));
    assert_eq!(run.end(2, AttemptOutcome::Signal(15)), Some(AttemptEnd::Cancelled));
    assert_eq!(run.core.history.result_of(2), Some(JobResult::Cancelled));
    assert_eq!(run.counts(), (1, 1));
}

#[test]
fn a_job_that_a_stop_finds_without_a_handler_loses_no_attempt() {
    let mut run = JobsRun::with_jobs(RULES, &["one"]);
    run.end(1, BAD);
    run.turn();
    run.sleep();
    run.disk.fail_at = Some(run.disk.operations + 2);
    run.turn();
    assert_eq!(run.attempts(), [2], "its start is recorded, and no handler was started");
    run.asks = vec!["stop"];
    assert_eq!(run.turn(), "serve");
    run.core.finish(&mut run.disk, run.now).unwrap();
    assert_eq!(run.attempts(), [1]);
}

#[test]
fn new_jobs_that_cannot_be_committed_are_taken_back_and_the_rest_is_committed() {
    let mut run = JobsRun::new(RULES);
    run.asks = vec!["one", "two"];
    run.disk.fail_at = Some(run.disk.operations + 2);
    assert_eq!(run.turn(), "serve, reply false true");
    assert_eq!((run.replies.len(), run.core.spool.waiting()), (0, 0));
    assert!(!run.core.has_batch());
}

#[test]
fn after_an_error_the_disk_is_left_alone_for_a_while() {
    let mut run = JobsRun::new(RULES);
    run.core.disk_health.fail(FAILED, run.now);
    let before = run.disk.operations;
    run.asks = vec!["one"];
    assert_eq!(run.turn(), "serve");
    assert_eq!((run.disk.operations, run.replies.len()), (before, 0));
    assert_eq!(run.core.disk_health.resting_error(run.now), Some(FAILED));
    assert_eq!(run.sleep(), SPOOL_RETRY.as_ms());
    run.asks = vec!["one"];
    assert_eq!(run.turn(), "serve, reply true true, flush, start 1.1");
    assert_eq!(run.notices, [TurnNotice::DiskWorks]);
}

#[test]
fn a_full_disk_refuses_new_jobs_and_lets_known_ones_end() {
    let mut run = JobsRun::with_jobs(RULES, &["one", "two", "three"]);
    (run.disk.free, run.disk.preallocate_limit) = (0, 0);
    run.asks = vec!["four"];
    assert_eq!(run.turn(), "serve, reply false true");
    assert!(matches!(run.notices[..], [TurnNotice::NoSpace { error: NO_SPACE, .. }]), "{:?}", run.notices);
    assert!(run.core.disk_health.is_full() && !run.core.disk_health.is_failing());
    run.end(1, AttemptOutcome::Success);
    run.asks = vec!["five"];
    assert_eq!(run.turn(), "flush, serve, start 3.1", "new jobs are not even tried");
    run.now += SPOOL_RETRY;
    run.turn();
    assert_eq!(run.notices.len(), 1, "it is told once");
    run.disk.free = u64::MAX;
    run.now += SPOOL_RETRY;
    run.turn();
    assert_eq!(run.notices[1..], [TurnNotice::SpaceWorks]);
    assert!(run.core.disk_health.is_good());
}

#[test]
fn a_request_that_is_refused_for_want_of_space_is_a_full_disk_until_there_is_room() {
    let mut run = JobsRun::with_jobs(RULES, &["one", "two", "three"]);
    (run.disk.free, run.disk.preallocate_limit) = (0, 0);
    run.asks = vec!["refused"];
    run.turn();
    assert!(matches!(run.notices[..], [TurnNotice::NoSpace { error: NO_SPACE, .. }]), "{:?}", run.notices);
    assert!(run.core.disk_health.is_full() && !run.core.disk_health.is_failing());
    assert!(run.core.degraded().has(DegradedState::SpoolFull));
    run.disk.free = u64::MAX;
    // A client that asks again and again does not keep the state.
    for _ in 0..4 {
        run.now += SPOOL_RETRY / 4;
        run.asks = vec!["refused"];
        run.turn();
    }
    assert_eq!(run.notices[1..], [TurnNotice::SpaceWorks]);
    assert!(run.core.disk_health.is_good());
    // Any other error is the client's to report.
    run.core.begin_turn(run.now);
    run.core.request_refused(MOVED);
    assert!(run.core.turn.new_jobs.is_ok());
}

#[test]
fn a_start_that_cannot_reserve_room_for_the_waiting_jobs_is_a_full_disk_at_once() {
    // A full quota, and a full disk that reserves nothing.
    for (free, limit) in [(u64::MAX, 1), (0, 0)] {
        let mut run = JobsRun::with_jobs(RULES, &["one", "two", "three"]);
        (run.disk.free, run.disk.preallocate_limit) = (free, limit);
        *run.core = JobsCore::EMPTY;
        run.core.recover(&mut run.disk, &mut vec![0; SCRATCH_BYTES], RULES, run.now).unwrap();
        assert!(run.core.disk_health.is_full());
        run.turn();
        assert!(run.core.disk_health.is_full());
        (run.disk.free, run.disk.preallocate_limit) = (u64::MAX, u64::MAX);
        run.now += SPOOL_RETRY;
        run.turn();
        assert!(run.core.disk_health.is_good());
    }
}

#[test]
fn a_compaction_that_fails_is_tried_again_later_each_time() {
    let mut run = JobsRun::new(RULES);
    for wait in [COMPACT_RETRY, COMPACT_RETRY * 2] {
        run.disk.fail_at = Some(run.disk.operations + 1);
        assert_eq!(run.core.compact(&mut run.disk, run.now), Some(TurnNotice::CompactionFailed(FAILED)));
        assert!(!run.core.disk_health.may_compact(run.now));
        assert!(!run.core.disk_health.may_compact((run.now + wait).minus(ms(1))));
        run.now += wait;
        assert!(run.core.disk_health.may_compact(run.now));
    }
    assert_eq!(run.core.disk_health.compact_error(), FAILED);
    run.disk.fail_at = None;
    assert_eq!(run.core.compact(&mut run.disk, run.now), None);
    run.needs.paging = true;
    run.turn();
    assert!(run.core.spool.is_compacting(), "a page of the journal is being sent");
    assert_eq!(run.core.next_deadline(run.now, true), None);
    run.needs.paging = false;
    assert_eq!(run.sleep(), 0);
    while run.core.spool.is_compacting() {
        run.turn();
    }
}

#[test]
fn the_queue_file_is_looked_at_where_nothing_watches_it() {
    let mut run = JobsRun::new(RULES);
    run.turn();
    run.core.check_queue(true, run.now);
    assert_eq!(run.core.next_deadline(run.now, false), None);
    run.core.check_queue(false, run.now);
    run.turn();
    assert_eq!(run.sleep(), RULES.queue_interval.as_ms());
    run.disk.append_to_queue("one\n");
    assert_eq!(run.turn(), "serve", "it was not looked at");
    run.core.check_queue(false, run.now);
    assert_eq!(run.turn(), "serve, reply true true, flush, start 1.1");
}

#[test]
fn a_drain_is_complete_when_no_job_is_left_and_no_line_can_be_read() {
    let mut run = JobsRun::with_jobs(RULES, &["one"]);
    assert!(!run.core.is_drained(), "a job runs");
    run.end(1, AttemptOutcome::Success);
    run.turn();
    assert!(run.core.is_drained());
    run.disk.append_to_queue("two\n");
    run.core.check_queue(false, run.now);
    run.core.set_rules(JobRules { workers: 0, ..RULES });
    run.turn();
    assert!(!run.core.is_drained(), "a job waits");
}

#[test]
fn a_new_queue_file_is_turned_to_once() {
    let mut run = JobsRun::new(RULES);
    run.turn();
    run.core.spool.claims.leave_queue();
    assert_eq!(run.turn(), "serve, switch");
    assert_eq!(run.turn(), "serve");
}

#[test]
fn only_so_many_results_are_kept_and_events_only_for_those_who_watch() {
    let mut history = History::EMPTY;
    for id in 1..=RESULTS_KEPT as u64 + 1 {
        history.record(id, JobEvent::Ended(JobResult::Done), Duration::ZERO, None);
    }
    assert!(history.take_new_results() && !history.take_new_results());
    assert_eq!((history.result_of(1), history.result_of(2)), (None, Some(JobResult::Done)));
    history.forget(2);
    assert_eq!((history.result_of(2), history.result_of(0)), (None, None));
    history.record(2, JobEvent::Ended(JobResult::Dead(BAD)), ms(5), None);
    history.forget_dead();
    assert_eq!((history.result_of(2), history.result_of(3)), (None, Some(JobResult::Done)));
    history.watched = true;
    for _ in 0..EVENTS_TURN + 1 {
        history.record(9, JobEvent::Failed(BAD), ms(5), None);
    }
    let mut text = [0; 8192];
    let mut out = Writer::new(&mut text);
    history.take_events(&mut out, &mut |_, _| {});
    let text = String::from_utf8(out.as_bytes().to_vec()).unwrap();
    let first = RESULTS_KEPT + 3;
    assert_eq!(text.lines().count(), EVENTS_TURN);
    assert_eq!(text.lines().next(), Some(format!("event {first} job=9 state=failed exit=7 ms=5").as_str()));
}

// ----- a spool that was moved ----------------------------------------------

#[test]
fn a_job_is_not_acknowledged_for_a_journal_to_which_its_path_does_not_lead() {
    let mut run = JobsRun::with_jobs(RULES, &["known"]);
    run.replies.clear();
    run.disk.move_spool_away();
    run.asks.push("new");
    assert!(run.turn().contains("reply false false"));
    assert_eq!((&run.replies[..], run.core.spool.waiting()), (&[][..], 1));
    assert_eq!(run.notices, [TurnNotice::SpoolMoved]);
    assert_eq!(run.core.add_job(&mut run.disk, b"next", run.now), Err(MOVED));
    assert_eq!(run.core.cancel(&mut run.disk, 1, run.now), Err(MOVED));
    assert_eq!(run.core.disk_health.error(), None, "the disk has not failed");
    // The spool is made again in the next turns, without any time that passes.
    let mut turns = 0;
    while !run.core.home.is_here() {
        assert_eq!(run.core.next_deadline(run.now, false), Some(run.now));
        run.turn();
        turns += 1;
    }
    assert!(turns < 9 && run.disk.is_journal_named());
    run.asks.push("later");
    assert!(run.turn().contains("reply true true"));
    assert_eq!(run.replies, [3]);
    assert_eq!(run.notices[1..], [TurnNotice::SpoolBack { made_again: true }]);
}

#[test]
fn a_path_that_is_taken_is_looked_at_again_and_logged_once() {
    let mut run = JobsRun::with_jobs(JobRules { workers: 0, ..RULES }, &["known"]);
    run.disk.put_another_spool();
    run.core.journal_looked_at(PathState::Replaced, run.now);
    for _ in 0..5 {
        run.turn();
        assert!(!run.core.home.is_here());
        run.turn();
        assert_eq!(run.core.next_deadline(run.now, false), Some(run.now + HOME_RETRY));
        run.now += HOME_RETRY;
    }
    run.disk.put_spool_back();
    run.turn();
    assert!(run.core.home.is_here());
    run.turn();
    let expected = [
        TurnNotice::SpoolMoved,
        TurnNotice::SpoolTaken(Obstacle::Journal),
        TurnNotice::SpoolBack { made_again: false },
    ];
    assert_eq!(run.notices, expected);
}

#[test]
fn an_error_that_is_no_evidence_changes_nothing() {
    let mut run = JobsRun::with_jobs(RULES, &["known"]);
    run.core.journal_looked_at(PathState::Unknown, run.now);
    assert!(run.core.home.is_here());
    run.core.journal_looked_at(PathState::Named, run.now);
    assert!(run.core.home.is_here());
}

#[test]
fn a_path_that_comes_back_in_the_middle_of_a_move_ends_the_move() {
    let mut run = JobsRun::with_jobs(RULES, &["known"]);
    run.disk.move_spool_away();
    run.core.journal_looked_at(PathState::Missing, run.now);
    run.turn();
    run.turn();
    assert!(run.core.spool.is_compacting());
    run.disk.put_spool_back();
    run.core.journal_looked_at(PathState::Named, run.now);
    run.turn();
    assert!(run.core.home.is_here() && !run.core.spool.is_compacting());
    assert_eq!(run.notices.last(), Some(&TurnNotice::SpoolBack { made_again: false }));
}

#[test]
fn the_end_of_the_service_makes_the_spool_again_or_leaves_the_jobs_in_the_open_journal() {
    for taken in [false, true] {
        let mut run = JobsRun::with_jobs(RULES, &["known"]);
        match taken {
            true => run.disk.put_another_spool(),
            false => run.disk.move_spool_away(),
        }
        let finished = run.core.finish(&mut run.disk, run.now);
        assert_eq!(finished, if taken { Err(MOVED) } else { Ok(()) });
        assert_eq!(run.disk.is_journal_named(), !taken);
    }
}

// ----- handlers, and what they leave ----------------------------------------

/// Returns a group that job `job` has left.
fn group(number: u32, job: u64) -> NotedGroup {
    NotedGroup { number, session: 1, job, from: Instant::BOOT, upto: Instant::BOOT, token: [b'0'; 32] }
}

#[test]
fn a_handler_that_cannot_be_started_is_tried_less_and_less_often_until_it_works_or_is_another() {
    let mut run = JobsRun::new(RULES);
    run.answer = RequestOutcome::Failed;
    run.asks = vec!["one", "two"];
    run.turn();
    assert!(run.core.is_handler_failing());
    let mut waits = Vec::new();
    for _ in 0..6 {
        waits.push(run.core.timers.start_retry_at.since(run.now).as_ms());
        run.now = run.core.timers.start_retry_at;
        // Two jobs that fail in one turn count as one failure.
        let seen = run.turn();
        assert!(seen.contains("start 1.1, start 2.1"), "{seen}");
    }
    assert_eq!(waits, [1000, 2000, 4000, 8000, 16_000, 16_000]);
    assert_eq!(run.attempts(), [0, 0]);
    run.core.handler_changed();
    assert!(!run.core.is_handler_failing());
    run.turn();
    assert!(run.core.is_handler_failing());
    assert_eq!(run.core.timers.start_retry_at.since(run.now), START_RETRY);
    run.answer = RequestOutcome::Works;
    run.now += START_RETRY;
    run.turn();
    assert!(!run.core.is_handler_failing());
    assert_eq!(run.attempts(), [1, 1]);
}

#[test]
fn a_state_of_the_handler_lasts_while_jobs_wait() {
    let mut run = JobsRun::new(RULES);
    run.answer = RequestOutcome::Failed;
    run.asks = vec!["one"];
    run.turn();
    assert!(run.core.is_handler_failing());
    assert_eq!(run.core.cancel(&mut run.disk, 1, run.now), Ok(Some(Cancelled::Waiting)));
    assert!(!run.core.is_handler_failing());
}

#[test]
fn a_job_that_names_nothing_is_dead_at_once() {
    let mut run = JobsRun::with_jobs(RULES, &["one"]);
    run.end(1, AttemptOutcome::Code(1));
    run.sleep();
    run.turn();
    let report = run.core.job_rejected(1, AttemptOutcome::Code(126)).unwrap();
    assert_eq!(report.end, AttemptEnd::Dead(AttemptOutcome::Code(126)));
    assert_eq!((report.attempt, report.attempts), (2, 2));
    assert_eq!(run.core.rules.spool.retries, RULES.spool.retries, "the rules stay");
}

#[test]
fn the_next_attempt_of_a_job_waits_for_its_group_and_no_other_job_does() {
    let mut run = JobsRun::with_jobs(RULES, &["one", "two", "three"]);
    assert_eq!(run.core.group_left(group(10, 1), run.now), None);
    run.end(1, AttemptOutcome::Code(1));
    run.turn();
    run.end(2, AttemptOutcome::Success);
    run.end(3, AttemptOutcome::Success);
    run.turn();
    // The delay of the job passes, its group is there.
    run.now += RULES.spool.retry_delay;
    assert_eq!(run.turn(), "serve");
    let due = run.core.next_deadline(run.now, false).unwrap();
    assert!(!due.is_due(run.now), "the loop would spin");
    assert_eq!(run.core.leftovers.on_checked(10, false, run.now), None);
    assert_eq!(run.core.next_deadline(run.now, false), Some(run.now));
    assert!(run.turn().ends_with("start 1.2"));
}

#[test]
fn a_service_ends_after_what_its_jobs_left_or_when_that_cannot_be_ended() {
    for ends in [true, false] {
        let mut run = JobsRun::with_jobs(RULES, &["one"]);
        run.core.group_left(group(10, 1), run.now);
        run.end(1, AttemptOutcome::Success);
        run.core.stop(run.now);
        assert!(!run.core.is_stopped());
        let mut signals = Vec::new();
        while !run.core.is_stopped() {
            run.now = run.core.leftovers.next_deadline().unwrap().or_later(run.now);
            while let Some(check) = run.core.leftovers.next_check(run.now) {
                signals.extend(check.signal);
                let is_there = !(ends && signals.len() == 2);
                run.core.leftovers.on_checked(10, is_there, run.now);
            }
        }
        assert_eq!(signals, [SignalKind::Terminate, SignalKind::Kill]);
        assert_eq!(run.core.has_stuck_job(), !ends);
    }
}

/// Lets time pass until the handlers were asked for `last`, and returns what each got.
fn signals_until(run: &mut JobsRun, last: SignalKind) -> Vec<SignalKind> {
    let mut seen = Vec::new();
    while seen.last() != Some(&last) {
        match run.core.next_signal(run.now) {
            Some(signal) => seen.push(signal.kind),
            None => run.now = run.core.timers.next_deadline().expect("it gets no more"),
        }
    }
    seen
}

#[test]
fn a_handler_that_does_not_end_by_kill_is_named_and_given_up_if_its_job_is_cancelled() {
    use SignalKind::{Abandon, Kill, Stuck, Terminate, Timeout};
    let rules = JobRules { workers: 1, job_timeout: ms(300), ..RULES };
    let mut run = JobsRun::with_jobs(rules, &["one", "two", "three"]);
    assert_eq!(signals_until(&mut run, Stuck), [Timeout, Kill, Stuck]);
    assert!(run.core.has_stuck_job());
    assert_eq!(run.core.next_signal(run.now), None, "once");
    assert_eq!(run.core.cancel(&mut run.disk, 1, run.now), Ok(Some(Cancelled::Running)));
    assert_eq!(signals_until(&mut run, Abandon), [Abandon]);
    assert_eq!(run.end(1, AttemptOutcome::Signal(9)), Some(AttemptEnd::Cancelled));
    assert!(!run.core.has_stuck_job());
    // The worker is free. A job that was cancelled before is given up as soon as it is stuck.
    assert!(run.turn().contains("start 2.1"));
    assert_eq!(run.core.cancel(&mut run.disk, 2, run.now), Ok(Some(Cancelled::Running)));
    assert_eq!(signals_until(&mut run, Abandon), [Terminate, Kill, Abandon]);
    assert_eq!(run.end(2, AttemptOutcome::Signal(9)), Some(AttemptEnd::Cancelled));
    // A service that stops does not wait for such a handler.
    assert!(run.turn().contains("start 3.1"));
    run.core.stop(run.now);
    assert_eq!(signals_until(&mut run, Stuck), [Terminate, Kill, Stuck]);
    assert!(run.core.is_stopped() && run.core.has_stuck_job());
}

#[test]
fn a_job_that_stops_the_service_is_the_last_and_counts_as_done() {
    let rules = JobRules { workers: 1, ..RULES };
    for outcome in [AttemptOutcome::Code(3), AttemptOutcome::Success, AttemptOutcome::Signal(15)] {
        let mut run = JobsRun::with_jobs(rules, &["one", "two"]);
        assert!(!run.core.stop_after(2, run.now), "it does not run");
        assert!(run.core.stop_after(1, run.now) && !run.core.is_stop_due(run.now));
        assert_eq!(run.end(1, outcome), Some(AttemptEnd::Done(AttemptOutcome::Success)));
        assert!(run.core.is_stop_due(run.now) && !run.turn().contains("start"), "no other job is started");
        run.core.stop(run.now);
        assert!(!run.core.is_stop_due(run.now) && !run.core.stop_after(1, run.now));
    }
    // One that does not end has its time, and its end by the stop is a success too.
    let mut run = JobsRun::with_jobs(rules, &["one", "two"]);
    run.core.stop_after(1, run.now);
    let by = run.core.next_deadline(run.now, false).unwrap();
    assert!(by <= run.now + LAST_JOB_WAIT);
    run.now += LAST_JOB_WAIT;
    assert!(run.core.is_stop_due(run.now));
    run.core.stop(run.now);
    assert_eq!(run.end(1, AttemptOutcome::Signal(15)), Some(AttemptEnd::Done(AttemptOutcome::Success)));
    assert!(run.core.is_stopped());
}

#[test]
fn a_folder_whose_syncs_fail_is_a_failing_disk_and_the_journal_is_not_written_without_a_pause() {
    let mut run = JobsRun::with_jobs(RULES, &["one"]);
    run.disk.folder_syncs_fail = true;
    let (written, begin) = (run.core.spool.io_stats().bytes, run.now);
    assert_eq!(run.core.compact(&mut run.disk, run.now), None);
    for _ in 0..3 {
        run.sleep();
        run.turn();
    }
    let mut turns = 0;
    while run.now.since(begin) < SPOOL_RETRY * 10 {
        assert!(run.core.disk_health.is_failing(), "no state says why");
        run.sleep();
        run.turn();
        turns += 1;
        assert!(turns < 40, "the service spins");
    }
    let (written, size) =
        (run.core.spool.io_stats().bytes - written, run.disk.size(SpoolFile::Journal).unwrap());
    assert!(written < 20 * size, "{written} bytes, and the journal has {size}");
    run.disk.folder_syncs_fail = false;
    while run.core.disk_health.is_failing() {
        run.sleep();
        run.turn();
    }
    assert_eq!(run.core.next_deadline(run.now, false), None);
}

/// Covers a defect that the simulator found: while a folder's syncs failed, each turn that a client
/// caused wrote the journal again, before an attempt that has to be durable.
#[test]
fn turns_that_clients_cause_do_not_try_what_a_failing_disk_blocks() {
    let mut run = JobsRun::with_jobs(RULES, &["one"]);
    assert!(matches!(run.end(1, AttemptOutcome::Code(1)), Some(AttemptEnd::Fail(..))));
    run.disk.folder_syncs_fail = true;
    assert_eq!(run.core.compact(&mut run.disk, run.now), None);
    while !run.core.disk_health.jobs_blocked {
        run.sleep();
        run.turn();
    }
    let written = run.core.spool.io_stats().bytes;
    for _ in 0..100 {
        assert!(!run.turn().contains("start"));
    }
    assert_eq!(run.core.spool.io_stats().bytes, written);
    run.disk.folder_syncs_fail = false;
    while !run.turn().contains("start") {
        run.sleep();
    }
}
