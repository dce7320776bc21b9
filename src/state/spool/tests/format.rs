//! The formats of the journal: reading an old one and changing to the new one, the records that
//! are only carried, and journals with numbers near their limits.

use super::*;
use crate::limits::GIVEN_BACK_SOON;
use crate::proto::attributes::{Attribute, handler_of, replace};
use crate::proto::journal::{RecordFlags, header_of_version};

const SHELL: SpoolRules = SpoolRules { handler: HandlerKind::Shell, ..RULES };

/// Returns a disk whose journal of `version` holds these records.
pub(super) fn written(version: u8, records: &[Record<'_>]) -> FakeDisk {
    let mut disk = FakeDisk::new(1);
    disk.journal_mut().extend_from_slice(header_of_version(version));
    for record in records {
        let mut bytes = heapless::Vec::<u8, RECORD_MAX_BYTES>::new();
        record.emit(&mut bytes).unwrap();
        disk.journal_mut().extend_from_slice(&bytes);
    }
    disk
}

fn start_with(disk: &mut FakeDisk, spool: SpoolRules) -> TestService {
    let (mut service, _) = TestService::start(disk, at(0)).unwrap();
    service.core.set_rules(JobRules { spool, ..JOB_RULES });
    service
}

fn add(id: u64, text: &str) -> Record<'_> {
    Record { body: text.as_bytes(), ..Record::new(RecordKind::Add, id, 0) }
}

/// Returns the records of the journal.
fn records(disk: &mut FakeDisk) -> Vec<(RecordKind, u64, Vec<u8>)> {
    let (bytes, mut at, mut found) = (disk.journal_mut().clone(), 17, Vec::new());
    while let ParseResult::Record(record, size) = parse_record(&bytes[at..]) {
        found.push((record.kind, record.id, record.attributes.to_vec()));
        at += size;
    }
    assert_eq!(at, bytes.len());
    found
}

#[test]
fn a_journal_of_format_1_stays_one_until_it_needs_a_new_record() {
    let mut disk = written(1, &[add(1, "old"), add(2, "older")]);
    let mut service = start_with(&mut disk, SHELL);
    assert_eq!(service.start_jobs(&mut disk, 1).unwrap(), ["old"]);
    service.end_all(AttemptOutcome::Success, SHELL);
    service.core.spool.write_transitions(&mut disk, at(0)).unwrap();
    service.core.spool.compact_now(&mut disk, at(0)).unwrap();
    assert!(disk.journal_mut().starts_with(header_of_version(1)), "no record needs another one");
    service.core.set_rules(JobRules { spool: SHELL, ..JOB_RULES });
    add_batch(&mut service, &mut disk, &["new".to_owned()]).unwrap();
    assert!(disk.journal_mut().starts_with(header_of_version(2)));
    let kinds: Vec<_> = records(&mut disk).iter().map(|(_, id, block)| (*id, handler_of(block))).collect();
    assert_eq!(kinds, [(3, HandlerKind::Unknown), (2, HandlerKind::Unknown), (3, HandlerKind::Shell)]);
    disk.power_cut();
    let mut again = start_with(&mut disk, SHELL);
    assert_eq!(again.run_to_the_end(&mut disk), ["older", "new"]);
}

#[test]
fn lines_of_the_queue_file_change_the_format_too() {
    let mut disk = written(1, &[add(1, "old")]);
    let mut service = start_with(&mut disk, SHELL);
    disk.append_durably("line\n");
    service.ingest(&mut disk).unwrap();
    service.commit(&mut disk).unwrap();
    assert!(disk.journal_mut().starts_with(header_of_version(2)));
    let (_, id, block) = records(&mut disk).pop().unwrap();
    assert_eq!((id, handler_of(&block)), (2, HandlerKind::Shell));
    let mut again = start_with(&mut disk, SHELL);
    assert_eq!(again.run_to_the_end(&mut disk), ["old", "line"]);
}

#[test]
fn where_the_new_format_finds_no_room_the_old_one_goes_on() {
    let mut disk = written(1, &[add(1, "old")]);
    let mut service = start_with(&mut disk, SHELL);
    disk.no_inodes = true;
    add_batch(&mut service, &mut disk, &["new".to_owned()]).unwrap();
    assert!(disk.journal_mut().starts_with(header_of_version(1)));
    assert!(records(&mut disk).iter().all(|(_, _, block)| block.is_empty()));
    assert!(service.core.spool.wants_compaction(), "it is tried again");
    disk.no_inodes = false;
    service.core.spool.compact_now(&mut disk, at(0)).unwrap();
    assert!(disk.journal_mut().starts_with(header_of_version(2)) && !service.core.spool.wants_compaction());
    assert_eq!(service.run_to_the_end(&mut disk), ["old", "new"]);
}

#[test]
fn a_header_that_names_an_older_format_than_its_records_is_put_right() {
    let block = HandlerKind::Shell.attributes();
    let mut disk = written(1, &[Record { attributes: &block, ..add(1, "new") }]);
    let service = start_with(&mut disk, SHELL);
    let mut service = service;
    assert!(service.core.spool.wants_compaction());
    service.core.spool.compact_now(&mut disk, at(0)).unwrap();
    assert!(disk.journal_mut().starts_with(header_of_version(2)));
    assert_eq!(service.run_to_the_end(&mut disk), ["new"]);
}

#[test]
fn attributes_go_with_their_job_through_every_copy() {
    let unknown = [&[99, 40][..], &[42; 40]].concat();
    let block = replace(&unknown, Attribute::Handler, &[2]);
    let (first, second) = (add(1, "first"), add(40, "last"));
    let mut jobs = vec![Record { attributes: &block, ..first }];
    let texts: Vec<String> = (2..40).map(|id| format!("job {id}")).collect();
    jobs.extend((2..40).zip(&texts).map(|(id, text)| add(id, text)));
    jobs.push(Record { attributes: &block, ..second });
    let mut disk = written(2, &jobs);
    let mut service = start_with(&mut disk, RULES);
    let of = |disk: &mut FakeDisk, id: u64| {
        let found: Vec<_> = records(disk).into_iter().filter(|record| record.1 == id).collect();
        found.into_iter().rfind(|record| matches!(record.0, RecordKind::Add | RecordKind::Dead))
    };
    // The first in the window, the last in the backlog.
    service.refill(&mut disk).unwrap();
    assert_eq!(service.core.spool.window().get(1).unwrap().handler, HandlerKind::Shell);
    for id in [1, 40] {
        service.core.spool.compact_now(&mut disk, at(0)).unwrap();
        assert_eq!(of(&mut disk, id), Some((RecordKind::Add, id, block.to_vec())));
    }
    // Its death, its retry, one by one and with all others, and compactions between.
    let none = SpoolRules { retries: 0, ..RULES };
    for purpose in [None, Some(Purpose::Retry)] {
        service.core.set_rules(JobRules { spool: none, workers: 1, ..JOB_RULES });
        while service.live_records(&mut disk, true).unwrap().iter().all(|(location, _)| location.id != 1) {
            service.start_jobs(&mut disk, 1).unwrap();
            let one = service.running()[0].id == 1;
            let outcome = if one { AttemptOutcome::Code(1) } else { AttemptOutcome::Success };
            service.end_all(outcome, none);
            service.core.spool.write_transitions(&mut disk, at(0)).unwrap();
        }
        assert_eq!(of(&mut disk, 1), Some((RecordKind::Dead, 1, block.to_vec())));
        service.core.spool.compact_now(&mut disk, at(0)).unwrap();
        assert_eq!(of(&mut disk, 1), Some((RecordKind::Dead, 1, block.to_vec())));
        match purpose {
            Some(purpose) => drop(service.all_dead(&mut disk, purpose).unwrap()),
            None => {
                let (location, _) = service.live_records(&mut disk, true).unwrap()[0].clone();
                service.core.spool.retry(&mut disk, at(0), location).unwrap();
                service.commit(&mut disk).unwrap();
            }
        }
        assert_eq!(of(&mut disk, 1), Some((RecordKind::Add, 1, block.to_vec())));
    }
}

#[test]
fn how_often_a_job_was_given_back_is_read_and_kept() {
    let requeued = Record { body: &[2], ..Record::new(RecordKind::Requeued, 1, 0) };
    let start = Record::new(RecordKind::Start, 1, 1);
    let mut disk = written(2, &[add(1, "job"), start, requeued]);
    let mut service = start_with(&mut disk, RULES);
    for _ in 0..2 {
        assert_eq!(service.core.spool.window().get(1).unwrap().given_back, 2);
        service.core.spool.compact_now(&mut disk, at(0)).unwrap();
        disk.restart();
        service = start_with(&mut disk, RULES);
        service.refill(&mut disk).unwrap();
    }
    // It is written again when the job is given back once more, and a failure ends the row.
    service.start_jobs(&mut disk, 1).unwrap();
    service.core.spool.requeue(1);
    service.core.spool.write_transitions(&mut disk, at(0)).unwrap();
    let (again, _) = TestService::start(&mut disk, at(0)).unwrap();
    assert_eq!(again.core.spool.window().get(1).unwrap().given_back, 2);
    let mut disk = written(2, &[add(1, "job"), start, requeued, start, Record::new(RecordKind::Fail, 1, 1)]);
    assert_eq!(start_with(&mut disk, RULES).core.spool.window().get(1).unwrap().given_back, 0);
}

/// Stops a service `after` the start of its only job, and returns the next service.
fn stop_and_start(mut service: TestService, disk: &mut FakeDisk, after: Duration) -> TestService {
    service.refill(disk).unwrap();
    service.start_jobs(disk, 1).unwrap();
    service.now += after;
    service.core.stop(service.now);
    service.core.handler_ended(1, AttemptOutcome::Signal(15), service.now);
    service.core.finish(disk, service.now).unwrap();
    disk.restart();
    start_with(disk, RULES)
}

#[test]
fn a_job_that_three_stops_gave_back_soon_after_its_start_loses_an_attempt_with_each_further_one() {
    let mut disk = written(2, &[add(1, "job")]);
    let mut service = start_with(&mut disk, RULES);
    let soon = GIVEN_BACK_SOON;
    let later = soon + ms(1);
    // The row, and the attempts that count. A stop that comes later ends the row.
    let steps = [(soon, 1, 0), (soon, 2, 0), (later, 0, 0), (soon, 1, 0), (ms(0), 2, 0), (soon, 3, 0)];
    let further = [(soon, 4, 1), (later, 0, 1), (soon, 1, 1), (soon, 2, 1), (soon, 3, 1), (soon, 4, 2)];
    for (after, row, attempts) in steps.into_iter().chain(further) {
        service = stop_and_start(service, &mut disk, after);
        let slot = service.core.spool.window().get(1).unwrap();
        assert_eq!((slot.given_back, slot.attempt, slot.state), (row, attempts, JobState::Waiting));
    }
    // A kill is no stop: the row continues after it.
    service.start_jobs(&mut disk, 1).unwrap();
    disk.restart();
    service = start_with(&mut disk, RULES);
    assert_eq!(service.core.spool.window().get(1).unwrap().given_back, 4);
    // The last attempt ends as one that failed.
    service.now += ms(100_000);
    let mut service = stop_and_start(service, &mut disk, soon);
    assert_eq!((service.core.spool.waiting(), service.core.spool.dead()), (0, 1));
    let (location, _) = service.live_records(&mut disk, true).unwrap()[0].clone();
    service.core.spool.retry(&mut disk, at(0), location).unwrap();
    service.commit(&mut disk).unwrap();
    service.refill(&mut disk).unwrap();
    assert_eq!(service.core.spool.window().get(1).unwrap().given_back, 0, "a retry begins again");
}

#[test]
fn records_that_only_later_versions_write_are_carried() {
    let clock = [9; CLOCK_BODY_BYTES];
    let old_clock = [8; CLOCK_BODY_BYTES];
    let results: Vec<Vec<u8>> =
        (0..100u8).map(|id| [&[0; 12][..], format!("{id}").as_bytes()].concat()).collect();
    let mut jobs = vec![Record::new(RecordKind::Hold, 0, 1), add(1000, "waits")];
    jobs.push(Record { body: &old_clock, ..Record::new(RecordKind::Clock, 0, 0) });
    jobs.extend(
        results.iter().zip(1..).map(|(body, id)| Record { body, ..Record::new(RecordKind::Result, id, 1) }),
    );
    jobs.push(Record { body: &clock, ..Record::new(RecordKind::Clock, 0, 0) });
    let mut disk = written(2, &jobs);
    let mut service = start_with(&mut disk, RULES);
    assert!(service.core.spool.is_held());
    for _ in 0..2 {
        service.core.spool.compact_now(&mut disk, at(0)).unwrap();
        assert!(!service.core.spool.wants_compaction());
        let kept: Vec<u64> = records(&mut disk)
            .iter()
            .filter(|(kind, ..)| *kind == RecordKind::Result)
            .map(|(_, id, _)| *id)
            .collect();
        assert_eq!(kept, (37..=100).collect::<Vec<u64>>());
        assert_eq!(service.core.spool.journal.clock, Some(clock));
        disk.restart();
        service = start_with(&mut disk, RULES);
        assert!(service.core.spool.is_held() && service.core.spool.journal.clock == Some(clock));
    }
    disk.journal_mut().extend(emitted(&Record::new(RecordKind::Hold, 0, 0)));
    let mut service = start_with(&mut disk, RULES);
    assert!(!service.core.spool.is_held());
    assert_eq!(service.run_to_the_end(&mut disk), ["waits"]);
}

fn emitted(record: &Record<'_>) -> Vec<u8> {
    let mut bytes = heapless::Vec::<u8, RECORD_MAX_BYTES>::new();
    record.emit(&mut bytes).unwrap();
    bytes.to_vec()
}

// ----- numbers near their limits ------------------------------------------------

#[test]
fn a_job_with_the_highest_attempt_fails_and_is_retried_for_ever_and_is_never_lost() {
    let dead = Record { body: b"\0\x03job", ..Record::new(RecordKind::Dead, 1, u16::MAX) };
    let mut disk = written(1, &[dead]);
    let mut service = start_with(&mut disk, SpoolRules { retries: 0, ..RULES });
    for round in 0..6 {
        let found = service.live_records(&mut disk, true).unwrap();
        assert_eq!((found.len(), service.core.spool.dead()), (1, 1), "round {round}");
        service.core.spool.retry(&mut disk, at(0), found[0].0).unwrap();
        service.commit(&mut disk).unwrap();
        assert_eq!((service.core.spool.dead(), service.core.spool.waiting()), (0, 1));
        match round % 3 {
            1 => service.core.spool.compact_now(&mut disk, at(0)).unwrap(),
            2 => {
                disk.restart();
                service = start_with(&mut disk, RULES);
            }
            _ => {}
        }
        assert_eq!(service.start_jobs(&mut disk, 1).unwrap(), ["job"], "round {round}");
        assert_eq!(service.running()[0].attempt, u16::MAX);
        service.end_all(AttemptOutcome::Code(3), SpoolRules { retries: 0, ..RULES });
        service.core.spool.write_transitions(&mut disk, at(0)).unwrap();
    }
    let mut again = start_with(&mut disk, RULES);
    assert_eq!(again.live_records(&mut disk, true).unwrap().len(), 1);
}

#[test]
fn a_journal_with_more_deletions_than_are_kept_starts_and_counts_the_jobs_that_are_there_again() {
    let size = u16::try_from(add(1, "job").size()).unwrap().to_le_bytes();
    let delete = |id| Record { body: &size, ..Record::new(RecordKind::Tombstone, id, 0) };
    let all = 32 + 3 * TOMBSTONES_MAX as u64;
    let mut list: Vec<Record<'_>> = (1..=all).map(|id| add(id, "job")).collect();
    list.extend((33..=all).map(delete));
    let mut disk = written(2, &list);
    let (mut service, recovery) = TestService::start(&mut disk, at(0)).unwrap();
    let undone = 2 * TOMBSTONES_MAX as u32;
    assert_eq!(recovery.undone_deletions, undone);
    assert_eq!(service.core.spool.waiting(), 32 + undone);
    service.core.set_rules(JobRules { spool: SHELL, ..JOB_RULES });
    assert_eq!(service.run_to_the_end(&mut disk).len(), 32 + undone as usize);
    assert_eq!(service.core.spool.waiting(), 0);
    // The same for the dead.
    let dead = |id| Record { body: b"\x01\x00job", ..Record::new(RecordKind::Dead, id, 1) };
    let size = u16::try_from(dead(1).size()).unwrap().to_le_bytes();
    let delete =
        |id| Record { body: &size, flags: RecordFlags::DEAD, ..Record::new(RecordKind::Tombstone, id, 1) };
    let list: Vec<Record<'_>> = (1..=100).map(dead).chain((1..=100).map(delete)).collect();
    let mut disk = written(2, &list);
    let (mut service, recovery) = TestService::start(&mut disk, at(0)).unwrap();
    assert_eq!((recovery.undone_deletions, service.core.spool.dead()), (36, 36));
    service.core.spool.compact_now(&mut disk, at(0)).unwrap();
    assert_eq!(service.core.spool.dead(), 36);
    let (_, recovery) = TestService::start(&mut disk, at(0)).unwrap();
    assert_eq!(recovery.undone_deletions, 0, "they are left out of the new journal");
}

#[test]
fn a_tombstone_in_the_tail_of_a_compaction_hides_what_came_before_it_and_nothing_else() {
    let dead = Record { body: b"\0\x03job", ..Record::new(RecordKind::Dead, 1, u16::MAX) };
    let mut disk = written(2, &[dead, add(2, "other")]);
    let none = SpoolRules { retries: 0, ..RULES };
    let mut service = start_with(&mut disk, none);
    service.core.spool.compact_step(&mut disk, at(0)).unwrap();
    assert!(service.core.spool.is_compacting());
    let found = service.live_records(&mut disk, true).unwrap();
    service.core.spool.retry(&mut disk, at(0), found[0].0).unwrap();
    service.commit(&mut disk).unwrap();
    service.core.spool.compact_now(&mut disk, at(0)).unwrap();
    for restarts in [false, true] {
        if restarts {
            disk.restart();
            service = start_with(&mut disk, none);
        }
        assert_eq!((service.core.spool.dead(), service.core.spool.waiting()), (0, 2));
        assert!(service.live_records(&mut disk, true).unwrap().is_empty());
    }
    let mut ran = service.start_jobs(&mut disk, 2).unwrap();
    ran.sort();
    assert_eq!(ran, ["job", "other"]);
    service.end_all(AttemptOutcome::Code(1), none);
    service.core.spool.write_transitions(&mut disk, at(0)).unwrap();
    assert_eq!(service.live_records(&mut disk, true).unwrap().len(), 2);
}

#[test]
fn the_highest_id_is_kept_and_no_job_is_accepted_after_it() {
    for id in [u64::MAX, u64::MAX - 1, u64::MAX - 2] {
        let dead = Record { body: b"\0\x01dead", ..Record::new(RecordKind::Dead, id - 1, 1) };
        let mut disk = written(1, &[dead, add(id, "last")]);
        let mut service = start_with(&mut disk, SHELL);
        let room = u64::from(service.core.spool.room(&SHELL));
        assert_eq!(room, u64::MAX - id.saturating_add(1), "{id}");
        disk.append_durably("one\ntwo\nthree\n");
        service.look();
        assert_eq!(u64::from(service.ingest(&mut disk).unwrap()), room);
        assert_eq!((service.core.spool.room(&SHELL), disk.claims()), (0, 1), "the other lines wait");
        service.core.spool.compact_now(&mut disk, at(0)).unwrap();
        disk.restart();
        let again = start_with(&mut disk, SHELL);
        assert_eq!((again.core.spool.dead(), u64::from(again.core.spool.waiting())), (1, 1 + room));
        assert_eq!(again.core.spool.room(&SHELL), 0);
    }
}

#[test]
fn a_base_with_a_claim_number_near_the_limit_loses_no_line() {
    for next in [u64::MAX / 2 - 1, u64::MAX / 2, u64::MAX - 1, u64::MAX] {
        let body = next.to_le_bytes();
        let base = Record { body: &body, ..Record::new(RecordKind::Base, 5, 0) };
        let mut disk = written(2, &[base, add(7, "old")]);
        let mut service = start_with(&mut disk, RULES);
        disk.append_durably("line\n");
        assert!(service.ingest(&mut disk).is_ok(), "{next}");
        let _ = service.commit(&mut disk);
        disk.restart();
        let mut again = start_with(&mut disk, RULES);
        assert_eq!(again.run_to_the_end(&mut disk), ["old", "line"], "{next}");
    }
}
