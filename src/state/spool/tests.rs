//! Histories with crashes: the real spool on a disk that dies and forgets.

use super::*;
use crate::limits::{CLAIM_QUIET, RESULTS_KEPT, SCRATCH_BYTES, WINDOW_JOBS, WORKERS_MAX};
use crate::proto::attributes::HandlerKind;
use crate::state::disk::fake::{DEAD, FAILED, FakeDisk};
use crate::state::jobs::{ClientNeeds, JobRules, JobsCore, TurnAction};
use crate::state::spool::SPACE_MARGIN_BYTES;
use crate::state::spool::compact::COMPACT_AT_ONCE_BYTES;
use crate::state::window::{AttemptEnd, AttemptOutcome, JobState, Slot};
use std::collections::{BTreeMap, BTreeSet};

const fn at(ms: u64) -> Instant {
    Instant::from_ms(ms)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_ms(ms)
}

/// The rules of these tests. The kind of the handler is unknown, so that a record has no
/// attributes, and its size is that of its header and its text.
const RULES: SpoolRules = SpoolRules {
    retries: 2,
    retry_delay: ms(10),
    queue_max: 10_000,
    dead_max: 1000,
    handler: HandlerKind::Unknown,
    sync: true,
};

/// The rules of a service whose workers are all busy.
const JOB_RULES: JobRules = JobRules {
    spool: RULES,
    workers: 0,
    job_timeout: Duration::ZERO,
    stop_timeout: ms(1000),
    queue_interval: ms(1000),
    takes_all: true,
    logs_jobs: false,
    stale_after: ms(15_000),
};

/// The service without processes: it performs the actions of the core on a disk for tests.
#[derive(Clone)]
struct TestService {
    core: Box<JobsCore>,
    now: Instant,
    scratch: Vec<u8>,
}

type Vec<T> = std::vec::Vec<T>;

/// Performs an action, and answers it.
type Perform<'a> = &'a mut dyn FnMut(&mut TestService, &mut FakeDisk, TurnAction);

impl TestService {
    fn start(disk: &mut FakeDisk, now: Instant) -> Result<(Self, Recovery), RecoverError> {
        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut core = Box::new(JobsCore::EMPTY);
        let recovery = core.recover(disk, &mut scratch, JOB_RULES, now)?;
        core.spool.adopt_claims(disk, now);
        if disk.is_dead() {
            return Err(RecoverError::Disk(DEAD));
        }
        Ok((Self { core, now, scratch }, recovery))
    }

    /// Performs one turn of a service with `workers` workers.
    fn turn(&mut self, disk: &mut FakeDisk, workers: usize, perform: Perform<'_>) {
        self.core.set_rules(JobRules { workers, ..JOB_RULES });
        self.core.begin_turn(self.now);
        while let Some(action) = self.core.next_action(disk, &mut self.scratch, self.now, &mut |_| {}) {
            if action == TurnAction::FlushLog {
                self.core.log_flushed(true);
            }
            perform(self, disk, action);
        }
        self.core.set_rules(JOB_RULES);
    }

    /// Performs the ingest alone, not as a part of a turn.
    fn ingest(&mut self, disk: &mut FakeDisk) -> DiskResult<u32> {
        let result = self.core.spool.ingest(disk, &mut self.scratch, &RULES, self.now, &mut |_| {});
        if disk.is_dead() { Err(DEAD) } else { result }
    }

    fn commit(&mut self, disk: &mut FakeDisk) -> DiskResult {
        self.core.spool.commit(disk, &RULES, self.now)?;
        self.core.spool.remove_closed(disk, self.now);
        if disk.is_dead() { Err(DEAD) } else { Ok(()) }
    }

    fn refill(&mut self, disk: &mut FakeDisk) -> DiskResult {
        self.core.spool.refill(disk, &mut self.scratch, &RULES, self.now)
    }

    fn look(&mut self) {
        self.core.spool.claims.look_at_queue();
        self.core.spool.claims.look_at_claims();
    }

    /// Performs a turn that starts jobs until `workers` run, and returns their texts.
    fn start_jobs(&mut self, disk: &mut FakeDisk, workers: usize) -> DiskResult<Vec<String>> {
        let mut started = Vec::new();
        let mut lost = Ok(());
        self.turn(disk, workers, &mut |service, disk, action| {
            let TurnAction::StartHandler(slot) = action else { return };
            match service.text(disk, &slot) {
                Ok(text) => started.push(text),
                Err(error) => lost = Err(error),
            }
            service.core.handler_started(slot.id, service.now);
        });
        lost?;
        self.core.disk_health.error().map_or(Ok(started), Err)
    }

    /// Returns the jobs whose handlers run.
    fn running(&self) -> Vec<Slot> {
        let slots = self.core.timers.running().iter();
        slots.map(|job| *self.core.spool.window().get(job.id).unwrap()).collect()
    }

    /// Ends the handlers that run.
    fn end_all(&mut self, outcome: AttemptOutcome, rules: SpoolRules) {
        self.core.set_rules(JobRules { spool: rules, ..JOB_RULES });
        for slot in self.running() {
            self.core.handler_ended(slot.id, outcome, self.now);
        }
        self.core.set_rules(JOB_RULES);
    }

    fn text(&self, disk: &mut FakeDisk, slot: &Slot) -> DiskResult<String> {
        let mut buffer = [0; RECORD_MAX_BYTES];
        let text = self.core.spool.text(disk, slot.location(), &mut buffer)?;
        Ok(String::from_utf8(text.to_vec()).unwrap())
    }

    /// Returns the jobs beyond the window and their texts, the dead or the waiting.
    fn live_records(&mut self, disk: &mut FakeDisk, dead: bool) -> DiskResult<Vec<(RecordLocation, String)>> {
        let mut scan = self.core.spool.scan(dead);
        let mut locations = Vec::new();
        let mut visit = |location: RecordLocation| {
            locations.extend((location.dead == dead).then_some(location));
            true
        };
        while !self.core.spool.scan_step(disk, &mut self.scratch, &mut scan, &mut visit)? {}
        let mut buffer = [0; RECORD_MAX_BYTES];
        let text = |location: &RecordLocation, disk: &mut FakeDisk, buffer: &mut _| {
            Ok(String::from_utf8(self.core.spool.text(disk, *location, buffer)?.to_vec()).unwrap())
        };
        locations.iter().map(|location| Ok((*location, text(location, disk, &mut buffer)?))).collect()
    }

    /// Returns the texts of the ended jobs that `list done` shows, and how each ended.
    fn ends(&mut self, disk: &mut FakeDisk) -> DiskResult<Vec<(String, EndKind)>> {
        let (mut scan, mut found) = (self.core.spool.scan_ends(), Vec::new());
        let mut visit = |location: RecordLocation, end: JobEnd| found.push((location, end.kind));
        while !self.core.spool.ends_step(disk, &mut self.scratch, &mut scan, &mut visit)? {}
        let mut buffer = [0; RECORD_MAX_BYTES];
        let text = |location: RecordLocation, disk: &mut FakeDisk, buffer: &mut _| {
            let (_, text) = self.core.spool.end_at(disk, location, buffer)?;
            Ok(String::from_utf8(text.to_vec()).unwrap())
        };
        found.iter().map(|(location, kind)| Ok((text(*location, disk, &mut buffer)?, *kind))).collect()
    }

    /// Retries or forgets all dead jobs, and returns how many.
    fn all_dead(&mut self, disk: &mut FakeDisk, purpose: Purpose) -> DiskResult<u32> {
        self.core.start_rewrite(disk, purpose, self.now)?;
        while self.core.spool.is_compacting() {
            self.core.spool.compact_step(disk, self.now)?;
        }
        self.commit(disk)?;
        Ok(self.core.spool.affected_count())
    }

    /// Runs everything to its end, without crashes, and returns the texts in order.
    fn run_to_the_end(&mut self, disk: &mut FakeDisk) -> Vec<String> {
        let mut ran = Vec::new();
        disk.writers.clear();
        for _ in 0..200_000 {
            self.now += CLAIM_QUIET;
            self.look();
            self.core.spool.claims.on_heartbeat();
            ran.extend(self.start_jobs(disk, 4).unwrap());
            if self.running().is_empty() && disk.claims() == 0 && self.core.spool.waiting() == 0 {
                self.commit(disk).unwrap();
                return ran;
            }
            self.end_all(AttemptOutcome::Success, RULES);
        }
        panic!("it never ended: {} waiting, {} claims", self.core.spool.waiting(), disk.claims());
    }
}

fn service() -> (FakeDisk, TestService) {
    let mut disk = FakeDisk::new(1);
    let (service, recovery) = TestService::start(&mut disk, at(0)).unwrap();
    assert_eq!(recovery, Recovery::default());
    (disk, service)
}

#[test]
fn jobs_run_in_the_order_of_the_queue_file() {
    let (mut disk, mut service) = service();
    for number in 0..500 {
        disk.append_to_queue(&format!(" job {number}\r\n\n"));
    }
    let expected: Vec<String> = (0..500).map(|number| format!("job {number}")).collect();
    assert_eq!(service.run_to_the_end(&mut disk), expected);
    assert_eq!((service.core.spool.waiting(), service.core.spool.dead(), disk.claims()), (0, 0, 0));
}

#[test]
fn lines_that_are_not_jobs_are_rejected_and_the_others_run() {
    let (mut disk, mut service) = service();
    let long = "x".repeat(20_000);
    disk.append_to_queue(&format!("a\n{long}\nb\nc\0d\n{}\nlast", "y".repeat(1001)));
    let mut reported = Vec::new();
    let mut report = |notice: IngestNotice<'_>| match notice {
        IngestNotice::Rejected(_, why) => reported.push(why.to_owned()),
        IngestNotice::RejectedLost(_) => panic!(),
    };
    for _ in 0..9 {
        service.core.spool.ingest(&mut disk, &mut service.scratch, &RULES, at(0), &mut report).unwrap();
    }
    assert_eq!(reported.len(), 3, "each once: {reported:?}");
    assert_eq!(service.run_to_the_end(&mut disk), ["a", "b", "last"]);
    assert_eq!(disk.rejected.len(), 20_000 + 1 + 4 + 1002);
}

#[test]
fn a_writer_that_keeps_the_claim_open_is_read_on() {
    let (mut disk, mut service) = service();
    let file = disk.append_to_queue("one\n");
    service.ingest(&mut disk).unwrap();
    service.commit(&mut disk).unwrap();
    for line in ["two\n", "thr", "ee\n"] {
        service.now += ms(CLAIM_QUIET.as_ms() - 1);
        disk.append_to(file, line);
        service.core.spool.claims.look_at_claims();
        service.ingest(&mut disk).unwrap();
        service.commit(&mut disk).unwrap();
    }
    assert_eq!(disk.claims(), 1);
    assert_eq!(service.run_to_the_end(&mut disk), ["one", "two", "three"]);
}

#[test]
fn what_is_written_while_a_claim_is_being_closed_is_not_lost() {
    let (mut disk, mut service) = service();
    let file = disk.append_to_queue("one\n");
    service.ingest(&mut disk).unwrap();
    service.commit(&mut disk).unwrap();
    service.now += CLAIM_QUIET;
    service.ingest(&mut disk).unwrap();
    assert!(service.core.spool.claims.wants_commit());
    disk.append_to(file, "two\n");
    service.commit(&mut disk).unwrap();
    assert_eq!(service.run_to_the_end(&mut disk), ["one", "two"]);
}

#[test]
fn lines_that_come_unseen_before_a_claim_is_closed_are_lines_like_others() {
    let (mut disk, mut service) = service();
    let file = disk.append_to_queue("one\n");
    service.ingest(&mut disk).unwrap();
    service.commit(&mut disk).unwrap();
    disk.append_to(file, "two\nthree\nfour");
    service.now = at(0) + CLAIM_QUIET;
    service.ingest(&mut disk).unwrap();
    service.commit(&mut disk).unwrap();
    assert_eq!(service.run_to_the_end(&mut disk), ["one", "two", "three", "four"]);
}

#[test]
fn a_start_that_finds_no_damage_writes_nothing() {
    let (mut disk, mut service) = service();
    service.core.spool.add(&mut disk, at(0), b"job").unwrap();
    service.commit(&mut disk).unwrap();
    let (again, _) = TestService::start(&mut disk, at(0)).unwrap();
    assert_eq!(again.core.spool.io_stats().bytes, 0);
}

#[test]
fn a_delay_begins_anew_with_the_service() {
    let (mut disk, mut service) = service();
    let id = service.core.spool.add(&mut disk, at(0), b"job").unwrap();
    service.commit(&mut disk).unwrap();
    assert_eq!(service.start_jobs(&mut disk, 1).unwrap(), ["job"]);
    assert_eq!(service.core.spool.ended(id, AttemptOutcome::Code(1), &RULES), Some(AttemptEnd::Fail(ms(10))));
    service.core.spool.write_transitions(&mut disk, at(0)).unwrap();
    service.commit(&mut disk).unwrap();
    let (again, _) = TestService::start(&mut disk, at(500)).unwrap();
    assert_eq!(again.core.spool.window().next_deadline(&|_| false), Some(at(500) + RULES.retry_delay));
}

#[test]
fn a_job_of_a_claim_that_never_ran_has_no_attempts_after_a_compaction() {
    let (mut disk, mut service) = service();
    for number in 0..2 * WINDOW_JOBS {
        disk.append_to_queue(&format!("{number}\n"));
    }
    service.ingest(&mut disk).unwrap();
    service.commit(&mut disk).unwrap();
    service.refill(&mut disk).unwrap();
    service.core.spool.compact_now(&mut disk, at(0)).unwrap();
    let beyond = service.live_records(&mut disk, false).unwrap();
    assert_eq!(beyond.len(), WINDOW_JOBS);
    assert!(beyond.iter().all(|(location, _)| location.attempt == 0));
}

#[test]
fn a_full_queue_leaves_the_rest_in_the_claim() {
    let (mut disk, mut service) = service();
    let rules = SpoolRules { queue_max: 3, ..RULES };
    disk.append_to_queue("a\nb\nc\nd\ne\n");
    let added =
        service.core.spool.ingest(&mut disk, &mut service.scratch, &rules, at(0), &mut |_| {}).unwrap();
    assert_eq!((added, service.core.spool.room(&rules), disk.claims()), (3, 0, 1));
    assert_eq!(service.run_to_the_end(&mut disk), ["a", "b", "c", "d", "e"]);
}

#[test]
fn a_failing_job_is_retried_with_growing_delays_and_then_kept_dead() {
    let (mut disk, mut service) = service();
    disk.append_to_queue("bad\n");
    service.ingest(&mut disk).unwrap();
    service.commit(&mut disk).unwrap();
    for (attempt, delay) in [(1, Some(ms(10))), (2, Some(ms(20))), (3, None)] {
        assert_eq!(service.start_jobs(&mut disk, 1).unwrap(), ["bad"]);
        let slot = service.running()[0];
        assert_eq!(slot.attempt, attempt);
        let report = service.core.handler_ended(slot.id, AttemptOutcome::Code(7), service.now).unwrap();
        assert_eq!(report.end, delay.map_or(AttemptEnd::Dead(AttemptOutcome::Code(7)), AttemptEnd::Fail));
        service.core.spool.write_transitions(&mut disk, service.now).unwrap();
        assert_eq!(
            service.core.spool.window().next_deadline(&|_| false),
            delay.map(|delay| service.now + delay)
        );
        service.now += delay.unwrap_or_default();
    }
    assert_eq!((service.core.spool.waiting(), service.core.spool.dead()), (0, 1));
    let (mut again, _) = TestService::start(&mut disk, at(0)).unwrap();
    assert_eq!((again.core.spool.waiting(), again.core.spool.dead()), (0, 1));
    assert!(again.run_to_the_end(&mut disk).is_empty());
    again.core.spool.compact_now(&mut disk, at(0)).unwrap();
    let (again, _) = TestService::start(&mut disk, at(0)).unwrap();
    assert_eq!((again.core.spool.waiting(), again.core.spool.dead()), (0, 1));
}

#[test]
fn a_job_that_was_stopped_with_the_service_loses_no_attempt() {
    let (mut disk, mut service) = service();
    disk.append_to_queue("long\n");
    service.ingest(&mut disk).unwrap();
    service.commit(&mut disk).unwrap();
    service.start_jobs(&mut disk, 1).unwrap();
    service.core.spool.requeue(1);
    service.core.spool.write_transitions(&mut disk, at(0)).unwrap();
    let (mut again, recovery) = TestService::start(&mut disk, at(0)).unwrap();
    assert_eq!(recovery.interrupted, 0);
    again.start_jobs(&mut disk, 1).unwrap();
    assert_eq!(again.running()[0].attempt, 1);
}

#[test]
fn a_job_that_was_interrupted_runs_again_and_its_attempt_counts() {
    let (mut disk, mut service) = service();
    disk.append_to_queue("long\n");
    service.ingest(&mut disk).unwrap();
    service.commit(&mut disk).unwrap();
    let mut waits = Vec::new();
    for attempt in 1..9 {
        assert_eq!(service.start_jobs(&mut disk, 1).unwrap(), ["long"]);
        assert_eq!(service.running()[0].attempt, attempt);
        let now = service.now;
        let recovery;
        (service, recovery) = TestService::start(&mut disk, now).unwrap();
        assert_eq!(recovery.interrupted, 1);
        // It is repeated at once the first time. Then it waits, because it may be the cause.
        let due = service.core.spool.window().next_deadline(&|_| false).unwrap_or(now);
        waits.push(due.since(now).as_ms());
        service.now = due;
    }
    assert_eq!(waits, [0, 10, 20, 40, 80, 160, 320, 640]);
}

/// Checks that no end is left out while the disk has space, wherever the preallocated space ends.
#[test]
fn every_end_is_recorded_on_a_disk_with_space() {
    let (mut disk, mut service) = service();
    let mut ended = Vec::new();
    for number in 0..2000 {
        service.core.add_job(&mut disk, format!("job {number}").as_bytes(), at(0)).unwrap();
        service.commit(&mut disk).unwrap();
        ended.extend(service.start_jobs(&mut disk, 1).unwrap());
        service.end_all(AttemptOutcome::Success, RULES);
        service.core.spool.write_transitions(&mut disk, at(0)).unwrap();
        let listed: Vec<String> =
            service.ends(&mut disk).unwrap().into_iter().map(|(text, _)| text).collect();
        assert!(listed.len() >= ended.len().min(RESULTS_KEPT) && ended.ends_with(&listed), "job {number}");
    }
    assert!(ended.len() > 1990 && service.core.spool.generation() > 0, "{} ended", ended.len());
}

/// Checks that neither the end of a job nor its cancellation is refused where only the record that
/// keeps its text has no room.
#[test]
fn an_end_without_room_for_its_text_counts_all_the_same() {
    let (mut disk, mut service) = service();
    for number in 0..3 {
        service.core.add_job(&mut disk, format!("{number}{}", "x".repeat(900)).as_bytes(), at(0)).unwrap();
    }
    service.commit(&mut disk).unwrap();
    service.start_jobs(&mut disk, 1).unwrap();
    service.end_all(AttemptOutcome::Success, RULES);
    disk.file_limit = Some(service.core.spool.journal.end + 300);
    service.core.spool.write_transitions(&mut disk, at(0)).unwrap();
    service.core.spool.space.low_space = false;
    assert_eq!(service.core.cancel(&mut disk, 2, at(0)), Ok(Some(Cancelled::Waiting)));
    service.commit(&mut disk).unwrap();
    assert_eq!(service.ends(&mut disk).unwrap(), []);
    assert_eq!(service.core.spool.result_counts(), (0, 0));
    let (service, _) = TestService::start(&mut disk, at(0)).unwrap();
    let left: Vec<u64> = service.core.spool.window().slots().iter().map(|slot| slot.id).collect();
    assert_eq!(left, [3]);
}

/// Checks that a job that kills the service waits longer each time, whether the journal is written again while
/// it runs, while it waits, or at both times.
#[test]
fn a_new_journal_knows_how_often_a_job_was_cut_off() {
    for (compacts_running, compacts_waiting) in [(true, false), (false, true), (true, true)] {
        let (mut disk, mut service) = service();
        disk.append_to_queue("long\n");
        service.ingest(&mut disk).unwrap();
        service.commit(&mut disk).unwrap();
        let mut waits = Vec::new();
        for attempt in 1..7 {
            let now = service.now;
            if compacts_waiting {
                service.core.spool.compact_now(&mut disk, now).unwrap();
            }
            assert_eq!(service.start_jobs(&mut disk, 1).unwrap(), ["long"]);
            assert_eq!(service.running()[0].attempt, attempt);
            if compacts_running {
                service.core.spool.compact_now(&mut disk, now).unwrap();
            }
            let recovery;
            (service, recovery) = TestService::start(&mut disk, now).unwrap();
            assert_eq!(recovery.interrupted, 1);
            let due = service.core.spool.window().next_deadline(&|_| false).unwrap_or(now);
            waits.push(due.since(now).as_ms());
            service.now = due;
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160]);
        service.start_jobs(&mut disk, 1).unwrap();
        service.end_all(AttemptOutcome::Code(1), SpoolRules { retries: 99, ..RULES });
        service.core.spool.write_transitions(&mut disk, service.now).unwrap();
        assert_eq!(service.core.spool.window().slots()[0].cut_off, 0, "an attempt ended by itself");
    }
}

#[test]
fn an_attempt_that_failed_by_itself_does_not_count_as_cut_off() {
    let (mut disk, mut service) = service();
    disk.append_to_queue("long\n");
    service.ingest(&mut disk).unwrap();
    service.commit(&mut disk).unwrap();
    service.start_jobs(&mut disk, 1).unwrap();
    service.end_all(AttemptOutcome::Code(1), RULES);
    service.core.spool.write_transitions(&mut disk, at(0)).unwrap();
    service.now = service.core.spool.window().next_deadline(&|_| false).unwrap();
    service.start_jobs(&mut disk, 1).unwrap();
    assert_eq!(service.running()[0].attempt, 2);
    let now = service.now;
    let (service, recovery) = TestService::start(&mut disk, now).unwrap();
    assert_eq!((recovery.interrupted, service.core.spool.window().next_deadline(&|_| false)), (1, None));
}

#[test]
fn jobs_that_wait_for_their_delay_make_way_for_the_others() {
    let (mut disk, mut service) = service();
    let count = WINDOW_JOBS * 3;
    for number in 0..count {
        disk.append_to_queue(&format!("{number}\n"));
    }
    service.ingest(&mut disk).unwrap();
    service.commit(&mut disk).unwrap();
    let mut first_attempts = Vec::new();
    while first_attempts.len() < count {
        service.core.spool.defer_blocker(&mut disk, at(0)).unwrap();
        let started = service.start_jobs(&mut disk, 8).unwrap();
        assert!(!started.is_empty(), "{} of {count} had a first attempt", first_attempts.len());
        first_attempts.extend(started);
        service.end_all(AttemptOutcome::Code(1), SpoolRules { retry_delay: ms(1000), ..RULES });
        service.core.spool.write_transitions(&mut disk, at(0)).unwrap();
    }
    let unique: BTreeSet<_> = first_attempts.iter().collect();
    assert_eq!(unique.len(), count);
    let (mut again, _) = TestService::start(&mut disk, at(0)).unwrap();
    assert_eq!(again.core.spool.waiting() as usize, count);
    assert_eq!(again.run_to_the_end(&mut disk).len(), count);
}

#[test]
fn a_backlog_survives_compaction_in_order() {
    let (mut disk, mut service) = service();
    for number in 0..300 {
        disk.append_to_queue(&format!("{number}\n"));
    }
    service.ingest(&mut disk).unwrap();
    service.commit(&mut disk).unwrap();
    service.start_jobs(&mut disk, 3).unwrap();
    service.core.spool.compact_step(&mut disk, at(0)).unwrap();
    assert!(service.core.spool.is_compacting());
    // Life goes on between two steps.
    service.core.handler_ended(1, AttemptOutcome::Success, at(0)).unwrap();
    service.core.spool.write_transitions(&mut disk, at(0)).unwrap();
    service.core.spool.add(&mut disk, at(0), b"late").unwrap();
    service.commit(&mut disk).unwrap();
    while service.core.spool.is_compacting() {
        service.core.spool.compact_step(&mut disk, at(0)).unwrap();
    }
    service.end_all(AttemptOutcome::Success, RULES);
    let mut expected: Vec<String> = (3..300).map(|number| number.to_string()).collect();
    expected.push("late".to_owned());
    let mut copy = disk.clone();
    assert_eq!(service.run_to_the_end(&mut disk), expected);
    // A crash right after it finds the same jobs, and the two that ran.
    copy.restart();
    let (mut again, _) = TestService::start(&mut copy, at(0)).unwrap();
    let rerun = again.run_to_the_end(&mut copy);
    assert_eq!(rerun[..2], ["1", "2"]);
    assert_eq!(rerun[2..], expected);
}

#[test]
fn a_compacted_journal_is_small_and_ids_go_on() {
    let (mut disk, mut service) = service();
    // The last ends stay, with their texts.
    let most = 200 + RESULTS_KEPT * 100;
    for round in 0..40 {
        for number in 0..100 {
            disk.append_to_queue(&format!("{round} {number} {}\n", "x".repeat(50)));
        }
        service.run_to_the_end(&mut disk);
        assert_eq!(service.core.spool.journal.end, disk.journal_mut().len() as u64);
        if service.core.spool.wants_compaction() {
            service.core.spool.compact_now(&mut disk, at(0)).unwrap();
            assert!(disk.journal_mut().len() < most);
        }
    }
    assert!(service.core.spool.generation() > 0);
    service.core.spool.compact_now(&mut disk, at(0)).unwrap();
    assert!(disk.journal_mut().len() < most);
    let id = service.core.spool.add(&mut disk, at(0), b"next").unwrap();
    assert_eq!(id, 4001);
}

#[test]
fn another_version_is_refused_and_left_alone() {
    let mut disk = FakeDisk::new(1);
    disk.journal_mut().extend_from_slice(b"zigsvc-journal 3\nwhatever");
    let before = disk.operations;
    assert_eq!(TestService::start(&mut disk, at(0)).err(), Some(RecoverError::OtherVersion));
    assert_eq!(disk.operations, before);
}

#[test]
fn the_window_is_filled_when_jobs_are_beyond_it_and_workers_could_become_idle() {
    let (mut disk, mut service) = service();
    assert!(!service.core.spool.wants_refill());
    for number in 0..2 * WINDOW_JOBS {
        service.core.spool.add(&mut disk, at(0), format!("{number}").as_bytes()).unwrap();
    }
    service.commit(&mut disk).unwrap();
    assert!(service.core.spool.wants_refill());
    service.refill(&mut disk).unwrap();
    assert!(!service.core.spool.wants_refill(), "it is full");
    let enough = WINDOW_JOBS - WORKERS_MAX;
    for id in 1..=enough as u64 {
        service.core.spool.window.remove(id);
    }
    assert!(!service.core.spool.wants_refill(), "there is one for each worker");
    service.core.spool.window.remove(WINDOW_JOBS as u64);
    assert!(service.core.spool.wants_refill());
    service.core.spool.window.clear();
    service.refill(&mut disk).unwrap();
    assert_eq!(service.core.spool.journal.cursor, service.core.spool.journal.end);
    service.core.spool.window.clear();
    assert!(!service.core.spool.wants_refill(), "there is no other job");
}

#[test]
fn a_failed_write_is_undone_and_tried_again() {
    for fail_at in 1..60 {
        let (mut disk, mut service) = service();
        disk.append_to_queue("a\nb\nc\n");
        disk.fail_at = Some(disk.operations + fail_at);
        for _ in 0..20 {
            service.now += CLAIM_QUIET;
            service.look();
            let turn = service.start_jobs(&mut disk, 1);
            service.end_all(AttemptOutcome::Success, RULES);
            assert!(turn.is_ok() || turn == Err(FAILED), "{turn:?}");
        }
        assert_eq!(service.core.spool.waiting(), 0, "operation {fail_at}");
        disk.fail_at = None;
        let (again, recovery) = TestService::start(&mut disk, at(0)).unwrap();
        assert_eq!((again.core.spool.waiting(), recovery.damaged_bytes), (0, 0), "operation {fail_at}");
    }
}

/// Adds jobs as the control socket does; false if they were refused.
fn add_batch(service: &mut TestService, disk: &mut FakeDisk, texts: &[String]) -> DiskResult {
    let savepoint = service.core.spool.begin_batch(disk, service.now)?;
    let added = texts.iter().try_for_each(|text| {
        service.core.spool.add(disk, service.now, text.as_bytes())?;
        Ok(())
    });
    let committed = added.and_then(|()| service.core.spool.commit(disk, &RULES, service.now));
    if committed.is_err() {
        service.core.spool.roll_back(disk, savepoint);
    }
    committed
}

#[test]
fn a_group_that_cannot_be_committed_is_taken_back_whole() {
    let texts: Vec<String> = (0..40).map(|number| format!("{number} {}", "x".repeat(500))).collect();
    for fail_at in 1..8 {
        let (mut disk, mut service) = service();
        add_batch(&mut service, &mut disk, &["before".to_owned()]).unwrap();
        disk.fail_at = Some(disk.operations + fail_at);
        let refused = add_batch(&mut service, &mut disk, &texts).is_err();
        disk.fail_at = None;
        assert_eq!(service.core.spool.waiting(), if refused { 1 } else { 41 });
        add_batch(&mut service, &mut disk, &["behind".to_owned()]).unwrap();
        let mut expected = vec!["before".to_owned()];
        expected.extend(texts.iter().filter(|_| !refused).cloned());
        expected.push("behind".to_owned());
        let mut copy = disk.clone();
        assert_eq!(service.run_to_the_end(&mut disk), expected, "operation {fail_at}");
        copy.power_cut();
        let (mut again, recovery) = TestService::start(&mut copy, at(0)).unwrap();
        assert_eq!((recovery.damaged_bytes, recovery.torn_bytes), (0, 0));
        assert_eq!(again.run_to_the_end(&mut copy), expected, "operation {fail_at}, after a power cut");
    }
}

mod claim_table;
mod damage;
mod damage_histories;
mod dead_max;
mod disk_space;
mod editing;
mod format;
mod histories;
mod model;
mod queue_faults;
mod schedule;
