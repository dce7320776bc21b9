//! Scans on a disk for tests, in virtual time.

use super::*;
use crate::limits::{SCRATCH_BYTES, WINDOW_JOBS};
use crate::proto::attributes::HandlerKind;
use crate::state::disk::fake::{FAILED, FakeDisk};
use crate::state::jobs::disk_health::SPOOL_RETRY;
use crate::state::jobs::{JobRules, TurnAction};
use crate::state::spool::SpoolRules;
use crate::state::spool::TOMBSTONES_MAX;
use crate::state::window::AttemptOutcome;

const fn ms(ms: u64) -> Duration {
    Duration::from_ms(ms)
}

const fn rules(workers: usize) -> JobRules {
    JobRules {
        spool: SpoolRules {
            retries: 0,
            retry_delay: ms(10),
            queue_max: 10_000,
            dead_max: 10_000,
            handler: HandlerKind::Shell,
            sync: true,
        },
        workers,
        job_timeout: Duration::ZERO,
        stop_timeout: ms(1000),
        queue_interval: ms(1000),
        takes_all: true,
        logs_jobs: false,
        stale_after: ms(15_000),
    }
}

const ALL: Filter =
    Filter { waiting: true, scheduled: true, running: true, dead: true, done: false, after: 0 };

/// The core of the service with its clients and scans, and no process.
struct ScanService {
    core: Box<JobsCore>,
    disk: FakeDisk,
    replies: Replies,
    scans: Scans,
    scratch: std::vec::Vec<u8>,
    now: Instant,
}

impl ScanService {
    /// Returns a service with this many waiting jobs. The first ones are in the window.
    fn new(jobs: usize) -> Self {
        let mut service = Self {
            core: Box::new(JobsCore::EMPTY),
            disk: FakeDisk::new(1),
            replies: Replies::EMPTY,
            scans: Scans::new(Box::leak(Box::new(ListMemory::EMPTY))),
            scratch: vec![0; SCRATCH_BYTES],
            now: Instant::from_ms(1000),
        };
        service.core.recover(&mut service.disk, &mut service.scratch, rules(0), service.now).unwrap();
        for job in 1..=jobs {
            service.core.add_job(&mut service.disk, format!("job {job}").as_bytes(), service.now).unwrap();
        }
        service.turn(0);
        service
    }

    /// Runs one turn, which starts handlers for this many jobs at most.
    fn turn(&mut self, workers: usize) {
        self.core.set_rules(rules(workers));
        self.core.begin_turn(self.now);
        let Self { core, disk, scratch, now, .. } = self;
        while let Some(action) = core.next_action(disk, scratch, *now, &mut |_| {}) {
            match action {
                TurnAction::FlushLog => core.log_flushed(true),
                TurnAction::StartHandler(slot) => core.handler_started(slot.id, *now),
                _ => {}
            }
        }
    }

    /// Runs this many jobs, which fail.
    fn kill(&mut self, jobs: usize) {
        for _ in 0..jobs {
            self.turn(1);
            let id = self.core.timers.running()[0].id;
            self.core.handler_ended(id, AttemptOutcome::Code(7), self.now).unwrap();
        }
        self.turn(0);
    }

    fn poll(&mut self) -> Option<ScanAction> {
        let Self { core, disk, replies, scans, scratch, now, .. } = self;
        scans.poll(replies, core, disk, scratch, *now)
    }

    fn ask(&mut self, slot: usize, request: ScanRequest) {
        self.replies.set_state(slot, ClientState::ScanPending(request));
    }

    /// Returns the result of a request of the client at slot 3, or `None` if the client waits
    /// for the end of a job.
    fn result(&mut self, request: ScanRequest) -> Option<ScanOutcome> {
        self.ask(3, request);
        for _ in 0..1000 {
            match self.poll() {
                Some(ScanAction::Finish(slot, outcome)) => {
                    assert_eq!(slot, 3);
                    self.replies.defer(slot, PendingReply::None);
                    return Some(outcome);
                }
                Some(action) => panic!("{action:?}"),
                None if self.scans.task.is_none() && self.replies.next_scan(0, None).is_none() => {
                    return None;
                }
                None if self.core.spool.is_compacting() => self.turn(0),
                None => {}
            }
        }
        panic!("the scan has no end");
    }

    /// Returns the rows of a page, as a client reads them.
    fn list(&mut self, filter: Filter) -> std::vec::Vec<String> {
        self.ask(3, ScanRequest::List(filter));
        let rows = loop {
            match self.poll() {
                Some(ScanAction::BeginPage(3, rows)) => break rows,
                Some(action) => panic!("{action:?}"),
                None => {}
            }
        };
        let mut text = String::new();
        while let PageStep::Rows(next) = self.scans.next_rows(&self.replies, &self.core, false, self.now) {
            let mut bytes = [0; 4096];
            let mut out = Writer::new(&mut bytes);
            self.scans.push_rows(next, &self.core, &mut self.disk, self.now, &mut out);
            assert!(!out.is_cut() && !out.is_empty());
            self.scans.rows_sent(out.as_bytes());
            text.push_str(std::str::from_utf8(out.as_bytes()).unwrap());
        }
        self.replies.clear(3);
        assert!(!self.scans.is_paging());
        let lines: std::vec::Vec<String> = text.lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), rows);
        lines
    }
}

// ----- others -----------------------------------------------------------

#[test]
fn jobs_of_other_handlers_are_counted_in_steps_of_one_turn() {
    let mut service = ScanService::new(5000);
    service.kill(2);
    service.turn(1);
    // The dead do not count, and the one that runs does.
    for reload in [false, true] {
        assert_eq!(service.result(ScanRequest::Others(reload)), Some(ScanOutcome::Others(4998, reload)));
    }
    service.ask(3, ScanRequest::Others(false));
    let steps = (0..100).take_while(|_| service.poll().is_none()).count();
    let bytes = service.core.spool.journal_end();
    assert!(steps as u64 >= bytes / SCAN_STEP_BYTES - 1 && bytes > 2 * SCAN_STEP_BYTES, "{steps}, {bytes}");
    service.replies.clear(3);
    // A journal that is written again meanwhile has the scan begin again.
    service.ask(3, ScanRequest::Others(true));
    assert_eq!(service.poll(), None);
    service.core.compact(&mut service.disk, service.now);
    while service.core.spool.is_compacting() {
        service.turn(0);
    }
    assert_eq!(service.result(ScanRequest::Others(true)), Some(ScanOutcome::Others(4998, true)));
    let mut bytes = [0; 64];
    let mut out = Writer::new(&mut bytes);
    ScanOutcome::Others(7, true).push(&mut out);
    assert_eq!(out.as_bytes(), b"ok count=7 reload=1\n");
}

// ----- list -------------------------------------------------------------

#[test]
fn a_page_has_the_jobs_of_the_window_and_of_the_journal_in_the_order_of_ids() {
    let mut service = ScanService::new(WINDOW_JOBS + 20);
    service.kill(2);
    service.turn(1);
    let lines = service.list(ALL);
    assert_eq!(lines.len(), WINDOW_JOBS + 20);
    assert_eq!(lines[..4], ["1 dead 1 job 1", "2 dead 1 job 2", "3 running 1 job 3", "4 waiting 0 job 4"]);
    assert_eq!(lines[WINDOW_JOBS + 19], format!("{0} waiting 0 job {0}", WINDOW_JOBS + 20));
    let ids = |service: &mut ScanService, filter| -> std::vec::Vec<u64> {
        let lines = service.list(filter);
        lines.iter().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
    };
    let none =
        Filter { waiting: false, scheduled: false, running: false, dead: false, done: false, after: 0 };
    assert_eq!(ids(&mut service, Filter { dead: true, ..none }), [1, 2]);
    assert_eq!(ids(&mut service, Filter { running: true, ..none }), [3]);
    assert_eq!(ids(&mut service, Filter { dead: true, after: 1, ..none }), [2]);
    let last = WINDOW_JOBS as u64 + 20;
    assert_eq!(ids(&mut service, Filter { waiting: true, after: last - 2, ..none }), [last - 1, last]);
    assert!(ids(&mut service, Filter { waiting: true, after: last, ..none }).is_empty());
}

#[test]
fn a_long_list_is_read_page_by_page() {
    let mut service = ScanService::new(2 * LIST_PAGE + 7);
    let mut after = 0;
    for rows in [LIST_PAGE, LIST_PAGE, 7, 0] {
        let lines = service.list(Filter { after, ..ALL });
        assert_eq!(lines.len(), rows);
        for line in lines {
            after += 1;
            assert_eq!(line, format!("{after} waiting 0 job {after}"));
        }
    }
}

/// Reads all pages of a list, and returns its ids.
fn whole_list(service: &mut ScanService, filter: Filter) -> std::vec::Vec<u64> {
    let (mut ids, mut after) = (std::vec::Vec::new(), 0);
    loop {
        let lines = service.list(Filter { after, ..filter });
        ids.extend(lines.iter().map(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap()));
        if lines.len() < LIST_PAGE {
            return ids;
        }
        after = *ids.last().unwrap();
    }
}

#[test]
fn a_list_of_all_jobs_reads_the_journal_a_few_times_and_not_once_a_page() {
    for jobs in [2_000, 8_000] {
        let mut service = ScanService::new(jobs);
        service.kill(300);
        let size = service.core.spool.journal_end();
        let before = service.disk.bytes_read;
        assert_eq!(whole_list(&mut service, ALL), (1..=jobs as u64).collect::<std::vec::Vec<_>>());
        let read = service.disk.bytes_read - before;
        // One pass for the index; of each page its jobs, those before them, and their texts.
        assert!(read < 8 * size, "{read} bytes of a journal of {size}");
        // The index stays, also for a client that connects for each page.
        let before = service.disk.bytes_read;
        assert!(service.list(Filter { after: jobs as u64, ..ALL }).is_empty());
        assert!(service.disk.bytes_read - before < size / 4);
    }
}

#[test]
fn two_lists_at_a_time_are_linear_too() {
    let mut service = ScanService::new(6_000);
    let size = service.core.spool.journal_end();
    let before = service.disk.bytes_read;
    let mut after = [0, 0];
    for page in 0..120 {
        // One is far ahead of the other.
        let client = usize::from(page % 2 == 1 && page > 60);
        service.ask(3 + client, ScanRequest::List(Filter { after: after[client], ..ALL }));
        while service.poll() != Some(ScanAction::BeginPage(3 + client, LIST_PAGE)) {
            assert!(after[client] < 6_000);
        }
        after[client] += LIST_PAGE as u64;
        let slot = 3 + client;
        service.replies.clear(slot);
        service.scans.drop_client(slot);
        if after[0] == 6_000 {
            break;
        }
    }
    assert!(service.disk.bytes_read - before < 8 * size);
}

#[test]
fn a_list_is_right_whatever_the_order_of_the_journal_is_and_whatever_happens_meanwhile() {
    let mut random = FakeDisk::new(7);
    for round in 0..12 {
        let mut service = ScanService::new(700);
        service.core.set_rules(rules(0));
        // Dead jobs are retried in any order, which makes many short runs.
        service.kill(260);
        for _ in 0..50 {
            let id = 1 + random.random(260);
            let _ = service.result(ScanRequest::Retry(Target::Job(id)));
        }
        let (mut after, mut seen) = (0, std::vec::Vec::new());
        loop {
            let lines = service.list(Filter { after, ..ALL });
            let ids: std::vec::Vec<u64> =
                lines.iter().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
            assert!(ids.is_sorted_by(|a, b| a < b) && ids.first().is_none_or(|first| *first > after));
            seen.extend(&ids);
            if lines.len() < LIST_PAGE {
                break;
            }
            after = *ids.last().unwrap();
            match random.random(4) {
                0 => service.kill(3),
                1 => drop(service.result(ScanRequest::Retry(Target::Job(1 + random.random(260))))),
                2 => service.core.spool.compact_now(&mut service.disk, service.now).unwrap(),
                _ => {
                    let text = b"another";
                    service.core.add_job(&mut service.disk, text, service.now).unwrap();
                    service.turn(0);
                }
            }
        }
        // No job has ended, so each one that was there is listed, once.
        assert!((1..=700).all(|id| seen.contains(&id)), "round {round}");
        assert!(seen.is_sorted_by(|a, b| a < b));
    }
}

#[test]
fn a_page_whose_journal_was_written_again_ends_with_its_connection() {
    let mut service = ScanService::new(3);
    service.ask(3, ScanRequest::List(ALL));
    assert_eq!(service.poll(), Some(ScanAction::BeginPage(3, 3)));
    // As a commit does after a failed sync.
    service.core.spool.compact_now(&mut service.disk, service.now).unwrap();
    let step = service.scans.next_rows(&service.replies, &service.core, false, service.now);
    assert_eq!(step, PageStep::Close);
}

#[test]
fn a_page_waits_for_its_client_and_less_if_others_wait_for_the_journal() {
    let mut service = ScanService::new(3);
    service.ask(3, ScanRequest::List(ALL));
    assert_eq!(service.poll(), Some(ScanAction::BeginPage(3, 3)));
    assert!(service.scans.is_paging());
    assert_eq!(service.poll(), Some(ScanAction::SendPage(3)));
    let since = service.now;
    let step = |service: &mut ScanService, is_stuck, now| {
        service.scans.next_rows(&service.replies, &service.core, is_stuck, now)
    };
    let due = |service: &ScanService| service.scans.next_deadline(&service.replies, &service.core, since);
    assert_eq!(step(&mut service, false, since), PageStep::Rows(0));
    service.scans.rows_sent(b"1\n2\n");
    assert_eq!(step(&mut service, true, since + ms(CLIENT_IDLE.as_ms() - 1)), PageStep::Wait);
    assert_eq!(due(&service), Some(since + CLIENT_IDLE));
    assert_eq!(step(&mut service, true, since + CLIENT_IDLE), PageStep::Close);
    service.ask(5, ScanRequest::Wait(1));
    assert_eq!(due(&service), Some(since + PAGE_PATIENCE));
    assert_eq!(step(&mut service, false, since + ms(PAGE_PATIENCE.as_ms() - 1)), PageStep::Rows(2));
    assert_eq!(step(&mut service, false, since + PAGE_PATIENCE), PageStep::Close);
    service.replies.clear(5);
    assert_eq!(step(&mut service, true, since + PAGE_PATIENCE), PageStep::Wait);
    service.core.start_rewrite(&mut service.disk, Purpose::Forget, since).unwrap();
    assert_eq!(step(&mut service, true, since + PAGE_PATIENCE), PageStep::Close);
    service.scans.rows_sent(b"3\n");
    assert_eq!(step(&mut service, true, since + PAGE_PATIENCE), PageStep::Done, "all rows are sent");
    assert!(!service.scans.is_paging());
}

#[test]
fn a_page_is_not_begun_during_a_compaction_unless_that_cannot_continue() {
    let mut service = ScanService::new(3);
    service.core.start_rewrite(&mut service.disk, Purpose::Forget, service.now).unwrap();
    service.ask(3, ScanRequest::List(ALL));
    assert_eq!(service.poll(), None);
    let deadline = service.scans.next_deadline(&service.replies, &service.core, service.now);
    assert_eq!(deadline, None, "the compaction has its own");
    service.core.disk_health.fail(FAILED, service.now);
    assert_eq!(service.poll(), Some(ScanAction::BeginPage(3, 3)));
    service.scans.drop_client(3);
    service.replies.clear(3);
    let mut service = ScanService::new(3);
    service.core.start_rewrite(&mut service.disk, Purpose::Forget, service.now).unwrap();
    service.ask(3, ScanRequest::List(ALL));
    service.core.stop(service.now);
    assert_eq!(service.poll(), Some(ScanAction::BeginPage(3, 3)));
}

// ----- single jobs ------------------------------------------------------

#[test]
fn wait_finds_the_end_of_a_job_or_has_the_client_wait_for_it() {
    let mut service = ScanService::new(2 * WINDOW_JOBS);
    service.kill(1);
    let dead = Some(ScanOutcome::Ended(1, JobResult::Dead(AttemptOutcome::Code(7))));
    assert_eq!(service.result(ScanRequest::Wait(1)), dead, "of the journal");
    let beyond = 2 * WINDOW_JOBS as u64;
    assert_eq!(service.result(ScanRequest::Wait(beyond)), None);
    assert_eq!(service.replies.state(3), ClientState::AwaitingJob(beyond));
    let unknown = Some(ScanOutcome::NoJob("no such job, or it ended long ago"));
    assert_eq!(service.result(ScanRequest::Wait(beyond + 1)), unknown);
    service.turn(1);
    service.core.handler_ended(2, AttemptOutcome::Success, service.now).unwrap();
    service.turn(0);
    assert_eq!(service.result(ScanRequest::Wait(2)), Some(ScanOutcome::Ended(2, JobResult::Done)));
}

#[test]
fn cancel_finds_a_job_wherever_it_is() {
    let mut service = ScanService::new(2 * WINDOW_JOBS);
    let beyond = 2 * WINDOW_JOBS as u64;
    assert_eq!(
        service.result(ScanRequest::Cancel(beyond)),
        Some(ScanOutcome::Cancelled(beyond, false)),
        "beyond the window"
    );
    let gone = Some(ScanOutcome::NoJob("no such job waits or runs"));
    assert_eq!(service.result(ScanRequest::Cancel(beyond)), gone);
    assert_eq!(service.core.history.result_of(beyond), Some(JobResult::Cancelled));
    service.turn(1);
    assert_eq!(service.result(ScanRequest::Cancel(1)), Some(ScanOutcome::Cancelled(1, true)), "it runs");
    assert_eq!(service.result(ScanRequest::Cancel(1)), gone);
    assert_eq!(service.result(ScanRequest::Cancel(2)), Some(ScanOutcome::Cancelled(2, false)));
    assert_eq!(service.core.spool.waiting() as usize, 2 * WINDOW_JOBS - 3);
}

#[test]
fn only_a_dead_job_is_retried_or_forgotten() {
    let mut service = ScanService::new(WINDOW_JOBS + 10);
    service.kill(2);
    let none = Some(ScanOutcome::NoJob("no such dead job"));
    let beyond = Target::Job(WINDOW_JOBS as u64 + 10);
    for request in [ScanRequest::Retry(beyond), ScanRequest::Forget(beyond)] {
        assert_eq!(service.result(request), none);
    }
    assert_eq!(service.result(ScanRequest::Retry(Target::Job(1))), Some(ScanOutcome::Retried(1)));
    assert_eq!(service.core.history.result_of(1), None);
    assert_eq!(service.result(ScanRequest::Retry(Target::Job(1))), none);
    assert_eq!(service.result(ScanRequest::Forget(Target::Job(2))), Some(ScanOutcome::Forgotten(2)));
    assert_eq!((service.core.spool.dead(), service.core.spool.waiting() as usize), (0, WINDOW_JOBS + 9));
}

#[test]
fn a_scan_begins_again_in_a_new_journal() {
    let mut service = ScanService::new(3000);
    service.ask(3, ScanRequest::Wait(3000));
    assert_eq!(service.poll(), None);
    assert!(service.scans.task.is_some(), "one step is not enough");
    service.core.spool.compact_now(&mut service.disk, service.now).unwrap();
    assert_eq!(service.poll(), None);
    assert!(service.scans.task.is_none());
    assert_eq!(service.result(ScanRequest::Wait(3000)), None);
    assert_eq!(service.replies.state(3), ClientState::AwaitingJob(3000));
}

// ----- all dead jobs ----------------------------------------------------

#[test]
fn all_dead_jobs_are_changed_by_a_new_journal() {
    for (request, outcome, waiting) in [
        (ScanRequest::Retry(Target::Dead), ScanOutcome::AllRetried(3), 10),
        (ScanRequest::Forget(Target::Dead), ScanOutcome::AllForgotten(3), 7),
    ] {
        let mut service = ScanService::new(10);
        service.kill(3);
        assert!(service.core.history.result_of(1).is_some());
        assert_eq!(service.result(request), Some(outcome));
        assert_eq!((service.core.spool.dead(), service.core.spool.waiting()), (0, waiting));
        assert_eq!(service.core.history.result_of(1), None);
    }
}

#[test]
fn a_new_journal_is_finished_for_a_client_that_has_left() {
    let mut service = ScanService::new(10);
    service.kill(3);
    service.ask(3, ScanRequest::Retry(Target::Dead));
    assert_eq!(service.poll(), None);
    assert!(service.core.spool.is_compacting());
    service.replies.clear(3);
    service.scans.drop_client(3);
    service.ask(4, ScanRequest::Retry(Target::Dead));
    let mut action = None;
    while action.is_none() {
        service.turn(0);
        action = service.poll();
    }
    assert_eq!(action, Some(ScanAction::Finish(NO_CLIENT, ScanOutcome::AllRetried(3))));
    while service.core.spool.is_compacting() {
        service.turn(0);
    }
    assert_eq!(service.poll(), None, "the next client's new journal was begun");
    assert!(service.core.spool.is_compacting());
}

#[test]
fn a_new_journal_that_fails_is_refused() {
    let mut service = ScanService::new(10);
    service.kill(3);
    service.ask(3, ScanRequest::Forget(Target::Dead));
    assert_eq!(service.poll(), None);
    service.disk.fail_at = Some(service.disk.operations + 1);
    for _ in 0..10 {
        service.turn(0);
    }
    assert_eq!(service.poll(), Some(ScanAction::Finish(3, ScanOutcome::Refused(FAILED))));
    assert_eq!(service.core.spool.dead(), 3);
}

// ----- whose turn it is, and when it cannot begin -----------------------

#[test]
fn one_scan_runs_at_a_time_and_every_client_has_its_turn() {
    let mut service = ScanService::new(3000);
    let request = ScanRequest::Wait(9999);
    for slot in [2, 5, 9] {
        service.ask(slot, request);
    }
    let mut order = std::vec::Vec::new();
    while order.len() < 6 {
        if let Some(ScanAction::Finish(slot, _)) = service.poll() {
            order.push(slot);
            service.ask(slot, request);
        }
        assert_eq!(
            service.scans.next_deadline(&service.replies, &service.core, service.now),
            Some(service.now)
        );
    }
    assert_eq!(order, [2, 5, 9, 2, 5, 9]);
    assert_eq!(service.poll(), None);
    service.replies.clear(2);
    service.scans.drop_client(5);
    assert!(service.scans.task.is_some(), "it belongs to another client");
    service.scans.drop_client(2);
    assert!(service.scans.task.is_none());
    service.replies.clear(5);
    service.replies.clear(9);
    assert_eq!(service.poll(), None);
    assert_eq!(service.scans.next_deadline(&service.replies, &service.core, service.now), None);
}

#[test]
fn what_changes_the_journal_is_refused_while_the_service_stops_or_the_disk_rests() {
    let mut service = ScanService::new(5);
    service.kill(1);
    let edits =
        [ScanRequest::Cancel(5), ScanRequest::Retry(Target::Job(1)), ScanRequest::Forget(Target::Dead)];
    service.core.disk_health.fail(FAILED, service.now);
    for request in edits {
        assert_eq!(service.result(request), Some(ScanOutcome::Refused(FAILED)));
    }
    assert!(matches!(service.result(ScanRequest::Wait(1)), Some(ScanOutcome::Ended(1, _))));
    service.now += SPOOL_RETRY;
    assert_eq!(service.result(ScanRequest::Cancel(5)), Some(ScanOutcome::Cancelled(5, false)));
    service.core.stop(service.now);
    for request in edits {
        assert_eq!(service.result(request), Some(ScanOutcome::Stopping));
    }
    assert!(matches!(service.result(ScanRequest::Wait(1)), Some(ScanOutcome::Ended(1, _))));
}

#[test]
fn without_room_to_remember_one_more_an_edit_waits_for_a_compaction_or_is_refused() {
    let jobs = WINDOW_JOBS + TOMBSTONES_MAX + 10;
    let mut service = ScanService::new(jobs);
    for id in (0..TOMBSTONES_MAX).map(|offset| (jobs - offset) as u64) {
        assert_eq!(service.result(ScanRequest::Cancel(id)), Some(ScanOutcome::Cancelled(id, false)));
    }
    assert!(service.core.spool.tombstones_full());
    let next = ScanRequest::Cancel((jobs - TOMBSTONES_MAX) as u64);
    service.ask(3, next);
    assert_eq!(service.poll(), None, "it waits");
    assert_eq!(service.replies.state(3), ClientState::ScanPending(next));
    let failed = service.core.disk_health.on_compaction(Err(FAILED), service.now);
    assert!(failed.is_some());
    assert_eq!(service.poll(), Some(ScanAction::Finish(3, ScanOutcome::Refused(FAILED))));
    service.core.spool.compact_now(&mut service.disk, service.now).unwrap();
    assert!(matches!(service.result(next), Some(ScanOutcome::Cancelled(..))));
}

// ----- answers ----------------------------------------------------------

#[test]
fn each_result_has_its_answer_now_or_after_the_commit_and_each_change_its_line_of_the_log() {
    let text = |push: &dyn Fn(&mut Writer<'_>)| {
        let mut bytes = [0; 128];
        let mut out = Writer::new(&mut bytes);
        push(&mut out);
        String::from_utf8(out.as_bytes().to_vec()).unwrap()
    };
    for (outcome, answer, pending, line) in [
        (ScanOutcome::Refused(FAILED), "err no-space disk full\n", PendingReply::None, ""),
        (ScanOutcome::Stopping, "err stopping the service stops\n", PendingReply::None, ""),
        (ScanOutcome::NoJob("no"), "err no-job no\n", PendingReply::None, ""),
        (ScanOutcome::Ended(4, JobResult::Done), "ok id=4 state=done exit=0\n", PendingReply::None, ""),
        (ScanOutcome::Cancelled(4, true), "", PendingReply::Cancelled(4, true), "job 4: cancelled"),
        (ScanOutcome::Retried(4), "", PendingReply::Job(4), "job 4: retried"),
        (ScanOutcome::Forgotten(4), "", PendingReply::Job(4), "job 4: forgotten"),
        (ScanOutcome::AllRetried(2), "", PendingReply::Count(2), "2 dead jobs retried"),
        (ScanOutcome::AllForgotten(2), "", PendingReply::Count(2), "2 dead jobs forgotten"),
    ] {
        assert_eq!(text(&|out| outcome.push(out)), answer);
        assert_eq!(text(&|out| outcome.describe(out)), line);
        assert_eq!(outcome.pending(), pending);
    }
}
