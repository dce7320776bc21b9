//! Histories with crashes: the real spool on a disk that dies and forgets.

use super::*;
use crate::limits::{
    CLAIM_QUIET, COMPACT_AT_ONCE_BYTES, SCRATCH_BYTES, SPACE_MARGIN_BYTES, WINDOW_JOBS, WORKERS_MAX,
};
use crate::state::disk::fake::{DEAD, FAILED, FakeDisk};
use crate::state::window::{AttemptEnd, AttemptOutcome, JobState, Slot};
use std::collections::{BTreeMap, BTreeSet};

const fn at(ms: u64) -> Instant {
    Instant::from_ms(ms)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_ms(ms)
}

const RULES: SpoolRules = SpoolRules { retries: 2, retry_delay: ms(10), queue_max: 10_000, sync: true };

/// A service around the spool: what `service::jobs` does, without processes.
#[derive(Clone)]
struct TestService {
    spool: Box<Spool>,
    now: Instant,
    scratch: Vec<u8>,
    /// Dequeued jobs whose start is not settled.
    dequeued: Vec<Slot>,
    running: Vec<Slot>,
}

type Vec<T> = std::vec::Vec<T>;

impl TestService {
    fn start(disk: &mut FakeDisk, now: Instant) -> Result<(Self, Recovery), RecoverError> {
        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut spool = Box::new(Spool::EMPTY);
        let recovery = spool.recover(disk, &mut scratch, &RULES, now)?;
        spool.adopt_claims(disk, now)?;
        Ok((Self { spool, now, scratch, dequeued: Vec::new(), running: Vec::new() }, recovery))
    }

    fn ingest(&mut self, disk: &mut FakeDisk) -> Result<u32, DiskError> {
        self.spool.ingest(disk, &mut self.scratch, &RULES, self.now, &mut |_| {})
    }

    fn commit(&mut self, disk: &mut FakeDisk) -> Result<(), DiskError> {
        self.spool.commit(disk, &RULES, self.now)?;
        self.spool.remove_closed(disk)
    }

    fn refill(&mut self, disk: &mut FakeDisk) -> Result<(), DiskError> {
        self.spool.refill(disk, &mut self.scratch, &RULES, self.now)
    }

    /// Starts up to `workers` jobs; returns their texts.
    fn start_jobs(&mut self, disk: &mut FakeDisk, workers: usize) -> Result<Vec<String>, DiskError> {
        self.refill(disk)?;
        while self.running.len() + self.dequeued.len() < workers {
            let Some(slot) = self.spool.dequeue(self.now) else { break };
            self.dequeued.push(slot);
        }
        self.spool.write_transitions(disk, self.now)?;
        if self.dequeued.iter().any(|slot| slot.attempt > 1) {
            self.spool.commit(disk, &RULES, self.now)?;
        }
        let mut started = Vec::new();
        for slot in std::mem::take(&mut self.dequeued) {
            let slot = *self.spool.window().get(slot.id).unwrap();
            started.push(self.text(disk, &slot)?);
            self.running.push(slot);
        }
        Ok(started)
    }

    fn text(&self, disk: &mut FakeDisk, slot: &Slot) -> Result<String, DiskError> {
        let mut buffer = [0; RECORD_MAX_BYTES];
        let text = self.spool.text(disk, slot.location(), &mut buffer)?;
        Ok(String::from_utf8(text.to_vec()).unwrap())
    }

    /// The jobs beyond the window and their texts, the dead or the waiting.
    fn live_records(
        &mut self,
        disk: &mut FakeDisk,
        dead: bool,
    ) -> Result<Vec<(RecordLocation, String)>, DiskError> {
        let mut scan = self.spool.scan(dead);
        let mut locations = Vec::new();
        let mut visit =
            |location: RecordLocation| locations.extend((location.dead == dead).then_some(location));
        while !self.spool.scan_step(disk, &mut self.scratch, &mut scan, &mut visit)? {}
        let mut buffer = [0; RECORD_MAX_BYTES];
        let text = |location: &RecordLocation, disk: &mut FakeDisk, buffer: &mut _| {
            Ok(String::from_utf8(self.spool.text(disk, *location, buffer)?.to_vec()).unwrap())
        };
        locations.iter().map(|location| Ok((*location, text(location, disk, &mut buffer)?))).collect()
    }

    /// All dead jobs at once.
    fn all_dead(&mut self, disk: &mut FakeDisk, purpose: Purpose) -> Result<u32, DiskError> {
        while self.spool.is_compacting() {
            self.spool.compact_step(disk, self.now)?;
        }
        self.spool.compact_for(purpose, disk, self.now)?;
        while self.spool.is_compacting() {
            self.spool.compact_step(disk, self.now)?;
        }
        self.commit(disk)?;
        Ok(self.spool.affected_count())
    }

    /// Everything to its end, without crashes; returns the texts in order.
    fn run_to_the_end(&mut self, disk: &mut FakeDisk) -> Vec<String> {
        let mut ran = Vec::new();
        for _ in 0..200_000 {
            self.now += CLAIM_QUIET;
            self.spool.claims.look_at_queue();
            self.spool.claims.look_at_claims();
            self.ingest(disk).unwrap();
            self.commit(disk).unwrap();
            self.spool.defer_blocker(disk, self.now).unwrap();
            ran.extend(self.start_jobs(disk, 4).unwrap());
            if self.running.is_empty() && disk.claims() == 0 && self.spool.waiting() == 0 {
                self.commit(disk).unwrap();
                return ran;
            }
            for slot in std::mem::take(&mut self.running) {
                self.spool.ended(slot.id, AttemptOutcome::Success, &RULES);
            }
            self.spool.write_transitions(disk, self.now).unwrap();
        }
        panic!("it never ended: {} waiting, {} claims", self.spool.waiting(), disk.claims());
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
    assert_eq!((service.spool.waiting(), service.spool.dead(), disk.claims()), (0, 0, 0));
}

#[test]
fn lines_that_are_not_jobs_are_rejected_and_the_others_run() {
    let (mut disk, mut service) = service();
    let long = "x".repeat(20_000);
    disk.append_to_queue(&format!("a\n{long}\nb\nc\0d\n{}\nlast", "y".repeat(1001)));
    let mut reported = Vec::new();
    let mut report = |notice: IngestNotice<'_>| match notice {
        IngestNotice::Rejected(_, why) => reported.push(why.to_owned()),
        IngestNotice::RejectedLost(_) | IngestNotice::Unusable(_) => panic!(),
    };
    for _ in 0..9 {
        service.spool.ingest(&mut disk, &mut service.scratch, &RULES, at(0), &mut report).unwrap();
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
        service.spool.claims.look_at_claims();
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
    assert!(service.spool.claims.wants_commit());
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
    service.spool.add(&mut disk, at(0), b"job").unwrap();
    service.commit(&mut disk).unwrap();
    let (again, _) = TestService::start(&mut disk, at(0)).unwrap();
    assert_eq!(again.spool.io_stats().bytes, 0);
}

#[test]
fn a_delay_begins_anew_with_the_service() {
    let (mut disk, mut service) = service();
    let id = service.spool.add(&mut disk, at(0), b"job").unwrap();
    service.commit(&mut disk).unwrap();
    assert_eq!(service.start_jobs(&mut disk, 1).unwrap(), ["job"]);
    assert_eq!(service.spool.ended(id, AttemptOutcome::Code(1), &RULES), Some(AttemptEnd::Fail(ms(10))));
    service.spool.write_transitions(&mut disk, at(0)).unwrap();
    service.commit(&mut disk).unwrap();
    let (again, _) = TestService::start(&mut disk, at(500)).unwrap();
    assert_eq!(again.spool.window().next_deadline(), Some(at(500) + RULES.retry_delay));
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
    service.spool.compact_now(&mut disk, at(0)).unwrap();
    let beyond = service.live_records(&mut disk, false).unwrap();
    assert_eq!(beyond.len(), WINDOW_JOBS);
    assert!(beyond.iter().all(|(location, _)| location.attempt == 0));
}

#[test]
fn a_full_queue_leaves_the_rest_in_the_claim() {
    let (mut disk, mut service) = service();
    let rules = SpoolRules { queue_max: 3, ..RULES };
    disk.append_to_queue("a\nb\nc\nd\ne\n");
    let added = service.spool.ingest(&mut disk, &mut service.scratch, &rules, at(0), &mut |_| {}).unwrap();
    assert_eq!((added, service.spool.room(&rules), disk.claims()), (3, 0, 1));
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
        let slot = service.running.pop().unwrap();
        assert_eq!(slot.attempt, attempt);
        let end = service.spool.ended(slot.id, AttemptOutcome::Code(7), &RULES).unwrap();
        assert_eq!(end, delay.map_or(AttemptEnd::Dead(AttemptOutcome::Code(7)), AttemptEnd::Fail));
        service.spool.write_transitions(&mut disk, service.now).unwrap();
        assert_eq!(service.spool.window().next_deadline(), delay.map(|delay| service.now + delay));
        service.now += delay.unwrap_or_default();
    }
    assert_eq!((service.spool.waiting(), service.spool.dead()), (0, 1));
    let (mut again, _) = TestService::start(&mut disk, at(0)).unwrap();
    assert_eq!((again.spool.waiting(), again.spool.dead()), (0, 1));
    assert!(again.run_to_the_end(&mut disk).is_empty());
    again.spool.compact_now(&mut disk, at(0)).unwrap();
    let (again, _) = TestService::start(&mut disk, at(0)).unwrap();
    assert_eq!((again.spool.waiting(), again.spool.dead()), (0, 1));
}

#[test]
fn a_job_that_was_stopped_with_the_service_loses_no_attempt() {
    let (mut disk, mut service) = service();
    disk.append_to_queue("long\n");
    service.ingest(&mut disk).unwrap();
    service.commit(&mut disk).unwrap();
    service.start_jobs(&mut disk, 1).unwrap();
    service.spool.requeue(1);
    service.spool.write_transitions(&mut disk, at(0)).unwrap();
    let (mut again, recovery) = TestService::start(&mut disk, at(0)).unwrap();
    assert_eq!(recovery.interrupted, 0);
    again.start_jobs(&mut disk, 1).unwrap();
    assert_eq!(again.running[0].attempt, 1);
}

#[test]
fn a_job_that_was_interrupted_runs_again_and_its_attempt_counts() {
    let (mut disk, mut service) = service();
    disk.append_to_queue("long\n");
    service.ingest(&mut disk).unwrap();
    service.commit(&mut disk).unwrap();
    for attempt in 1..20 {
        assert_eq!(service.start_jobs(&mut disk, 1).unwrap(), ["long"]);
        assert_eq!(service.running[0].attempt, attempt);
        let recovery;
        (service, recovery) = TestService::start(&mut disk, at(0)).unwrap();
        assert_eq!(recovery.interrupted, 1);
    }
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
        service.spool.defer_blocker(&mut disk, at(0)).unwrap();
        let started = service.start_jobs(&mut disk, 8).unwrap();
        assert!(!started.is_empty(), "{} of {count} had a first attempt", first_attempts.len());
        first_attempts.extend(started);
        for slot in std::mem::take(&mut service.running) {
            service.spool.ended(
                slot.id,
                AttemptOutcome::Code(1),
                &SpoolRules { retry_delay: ms(1000), ..RULES },
            );
        }
        service.spool.write_transitions(&mut disk, at(0)).unwrap();
    }
    let unique: BTreeSet<_> = first_attempts.iter().collect();
    assert_eq!(unique.len(), count);
    let (mut again, _) = TestService::start(&mut disk, at(0)).unwrap();
    assert_eq!(again.spool.waiting() as usize, count);
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
    service.spool.compact_step(&mut disk, at(0)).unwrap();
    assert!(service.spool.is_compacting());
    // Life goes on between two steps.
    let slot = service.running.remove(0);
    service.spool.ended(slot.id, AttemptOutcome::Success, &RULES);
    service.spool.write_transitions(&mut disk, at(0)).unwrap();
    service.spool.add(&mut disk, at(0), b"late").unwrap();
    service.commit(&mut disk).unwrap();
    while service.spool.is_compacting() {
        service.spool.compact_step(&mut disk, at(0)).unwrap();
    }
    for slot in std::mem::take(&mut service.running) {
        service.spool.ended(slot.id, AttemptOutcome::Success, &RULES);
    }
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
    let mut compactions = 0;
    for round in 0..40 {
        for number in 0..100 {
            disk.append_to_queue(&format!("{round} {number} {}\n", "x".repeat(50)));
        }
        service.run_to_the_end(&mut disk);
        assert_eq!(service.spool.end, disk.journal_mut().len() as u64);
        if service.spool.wants_compaction() {
            service.spool.compact_now(&mut disk, at(0)).unwrap();
            assert!(disk.journal_mut().len() < 200);
            compactions += 1;
        }
    }
    assert!(compactions > 0);
    let id = service.spool.add(&mut disk, at(0), b"next").unwrap();
    assert_eq!(id, 4001);
}

#[test]
fn another_version_is_refused_and_left_alone() {
    let mut disk = FakeDisk::new(1);
    disk.journal_mut().extend_from_slice(b"zigsvc-journal 2\nwhatever");
    let before = disk.operations;
    assert_eq!(TestService::start(&mut disk, at(0)).err(), Some(RecoverError::OtherVersion));
    assert_eq!(disk.operations, before);
}

#[test]
fn the_window_is_filled_when_jobs_are_beyond_it_and_workers_could_become_idle() {
    let (mut disk, mut service) = service();
    assert!(!service.spool.wants_refill());
    for number in 0..2 * WINDOW_JOBS {
        service.spool.add(&mut disk, at(0), format!("{number}").as_bytes()).unwrap();
    }
    service.commit(&mut disk).unwrap();
    assert!(service.spool.wants_refill());
    service.refill(&mut disk).unwrap();
    assert!(!service.spool.wants_refill(), "it is full");
    let enough = WINDOW_JOBS - WORKERS_MAX;
    for id in 1..=enough as u64 {
        service.spool.window.remove(id);
    }
    assert!(!service.spool.wants_refill(), "there is one for each worker");
    service.spool.window.remove(WINDOW_JOBS as u64);
    assert!(service.spool.wants_refill());
    service.spool.window.clear();
    service.refill(&mut disk).unwrap();
    assert_eq!(service.spool.cursor, service.spool.end);
    service.spool.window.clear();
    assert!(!service.spool.wants_refill(), "there is no other job");
}

#[test]
fn a_failed_write_is_undone_and_tried_again() {
    for fail_at in 1..60 {
        let (mut disk, mut service) = service();
        disk.append_to_queue("a\nb\nc\n");
        disk.fail_at = Some(disk.operations + fail_at);
        for _ in 0..20 {
            service.now += CLAIM_QUIET;
            service.spool.claims.look_at_queue();
            service.spool.claims.look_at_claims();
            let step = service.ingest(&mut disk).and_then(|_| service.commit(&mut disk));
            let step = step.and_then(|()| service.start_jobs(&mut disk, 1).map(drop));
            for slot in std::mem::take(&mut service.running) {
                service.spool.ended(slot.id, AttemptOutcome::Success, &RULES);
            }
            let written = service.spool.write_transitions(&mut disk, service.now);
            assert!(step.is_ok() || step == Err(FAILED));
            assert!(written.is_ok() || written == Err(FAILED));
        }
        assert_eq!(service.spool.waiting(), 0, "operation {fail_at}");
        disk.fail_at = None;
        let (again, recovery) = TestService::start(&mut disk, at(0)).unwrap();
        assert_eq!((again.spool.waiting(), recovery.damaged_bytes), (0, 0), "operation {fail_at}");
    }
}

/// Adds jobs as the control socket does; false if they were refused.
fn add_batch(service: &mut TestService, disk: &mut FakeDisk, texts: &[String]) -> Result<(), DiskError> {
    let savepoint = service.spool.begin_batch(disk, service.now)?;
    let added = texts.iter().try_for_each(|text| {
        service.spool.add(disk, service.now, text.as_bytes())?;
        Ok(())
    });
    let committed = added.and_then(|()| service.spool.commit(disk, &RULES, service.now));
    if committed.is_err() {
        service.spool.roll_back(disk, savepoint);
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
        assert_eq!(service.spool.waiting(), if refused { 1 } else { 41 });
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
mod disk_space;
mod editing;
mod histories;
mod model;
