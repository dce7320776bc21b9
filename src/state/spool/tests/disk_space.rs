//! Room on the disk: for new jobs, and what is kept for the ends of those that are there.

use super::*;

/// Returns a service with a small journal, in which a hundred jobs have ended and one waits.
fn mostly_over() -> (FakeDisk, TestService) {
    let (mut disk, mut service) = service();
    let texts: Vec<String> = (0..100).map(|number| format!("{number} {}", "x".repeat(200))).collect();
    add_batch(&mut service, &mut disk, &texts).unwrap();
    service.run_to_the_end(&mut disk);
    add_batch(&mut service, &mut disk, &["last".to_owned()]).unwrap();
    (disk, service)
}

#[test]
fn new_jobs_do_not_take_the_room_that_old_ones_need() {
    let (mut disk, mut service) = service();
    disk.append_to_queue("old\n");
    service.ingest(&mut disk).unwrap();
    disk.append_to_queue("new\n");
    service.now += ms(1000);
    service.core.spool.claims.look_at_queue();
    // As on a disk that can reserve nothing.
    disk.preallocate_limit = 0;
    disk.free = RESERVE_BYTES;
    service.core.spool.space.reserved_until = 0;
    assert_eq!(service.ingest(&mut disk), Err(NO_SPACE));
    assert_eq!(add_batch(&mut service, &mut disk, &[]), Err(NO_SPACE));
    assert_eq!(service.start_jobs(&mut disk, 1).unwrap(), ["old"]);
    disk.free = u64::MAX;
    service.end_all(AttemptOutcome::Success, RULES);
    service.core.spool.write_transitions(&mut disk, service.now).unwrap();
    assert_eq!(service.run_to_the_end(&mut disk), ["new"]);
}

#[test]
fn the_disk_keeps_room_for_the_ends_of_the_jobs_that_are_there() {
    let (mut disk, mut service) = service();
    let end = service.core.spool.journal.end;
    add_batch(&mut service, &mut disk, &["first".to_owned()]).unwrap();
    assert_eq!(
        disk.last_preallocate.take(),
        Some((SpoolFile::Journal, end, end + RESERVE_BYTES + PREALLOCATE_BYTES))
    );
    add_batch(&mut service, &mut disk, &["second".to_owned()]).unwrap();
    assert_eq!(disk.last_preallocate.take(), None, "not with each group");
    // The reserved space is not for new jobs.
    disk.free = BATCH_BYTES - 1;
    assert_eq!(add_batch(&mut service, &mut disk, &[]), Err(NO_SPACE));
    let (room, free, reserve) = service.core.spool.update_low_space(&mut disk);
    assert_eq!((room, free, reserve), (false, BATCH_BYTES - 1, RESERVE_BYTES + 2 * RESERVE_PER_JOB_BYTES));
    disk.free = BATCH_BYTES;
    add_batch(&mut service, &mut disk, &[]).unwrap();
    assert!(!service.core.spool.update_low_space(&mut disk).0, "once there was none it must be more");
    disk.free = BATCH_BYTES + SPACE_MARGIN_BYTES;
    assert!(service.core.spool.update_low_space(&mut disk).0);
    // A failed write is cut off, and what was kept with it; so it is asked for again.
    disk.last_preallocate = None;
    disk.fail_at = Some(disk.operations + 1);
    service.core.spool.dequeue(at(0), &|_| false).or_else(|| {
        service.refill(&mut disk).unwrap();
        service.core.spool.dequeue(at(0), &|_| false)
    });
    service.core.spool.write_transitions(&mut disk, at(0)).unwrap_err();
    let end = service.core.spool.journal.end;
    assert_eq!(
        disk.last_preallocate,
        Some((SpoolFile::Journal, end, end + service.core.spool.reserve_bytes()))
    );
    // A start and a recovery keep it, too.
    disk.fail_at = None;
    disk.last_preallocate = None;
    disk.restart();
    let (again, _) = TestService::start(&mut disk, at(0)).unwrap();
    assert_eq!(
        disk.last_preallocate,
        Some((SpoolFile::Journal, end, end + again.core.spool.reserve_bytes()))
    );
}

#[test]
fn without_room_for_new_jobs_a_smaller_journal_is_worth_its_while_and_is_made_at_once() {
    let (mut disk, mut service) = mostly_over();
    assert!(!service.core.spool.wants_compaction(), "it is small");
    disk.free = 0;
    assert_eq!(add_batch(&mut service, &mut disk, &[]), Err(NO_SPACE));
    assert!(service.core.spool.wants_compaction());
    // It has to find room for all that is to be kept.
    disk.preallocate_limit = 1000;
    let before = service.core.spool.journal.end;
    assert_eq!(service.core.spool.compact_step(&mut disk, at(0)), Err(NO_SPACE));
    assert_eq!((service.core.spool.is_compacting(), service.core.spool.journal.end), (false, before));
    service.core.spool.compact_for(Purpose::Forget, &mut disk, at(0)).unwrap();
    assert!(service.core.spool.journal.end < 200, "without the dead it takes less");
    assert!(!service.core.spool.is_compacting() && !service.core.spool.wants_compaction());
    assert_eq!(service.run_to_the_end(&mut disk), ["last"]);
}

#[test]
fn a_journal_that_is_made_smaller_at_once_keeps_what_waits() {
    let (mut disk, mut service) = mostly_over();
    disk.free = 0;
    assert_eq!(add_batch(&mut service, &mut disk, &[]), Err(NO_SPACE));
    service.core.spool.compact_step(&mut disk, at(0)).unwrap();
    assert!(!service.core.spool.is_compacting() && service.core.spool.journal.end < 200);
    assert!(!service.core.spool.wants_compaction());
    let end = service.core.spool.journal.end;
    assert_eq!(
        disk.last_preallocate,
        Some((SpoolFile::Journal, end, end + service.core.spool.reserve_bytes()))
    );
    assert_eq!(service.run_to_the_end(&mut disk), ["last"]);
}

#[test]
fn what_is_kept_ahead_does_not_take_the_room_of_new_jobs() {
    let (mut disk, mut service) = service();
    let end = service.core.spool.journal.end;
    // A disk so small that it cannot keep more than it must and have room for new jobs, too.
    disk.free = RESERVE_BYTES + PREALLOCATE_BYTES + BATCH_BYTES;
    add_batch(&mut service, &mut disk, &["first".to_owned()]).unwrap();
    assert_eq!(disk.last_preallocate.take(), Some((SpoolFile::Journal, end, end + RESERVE_BYTES)));
    disk.free = PREALLOCATE_BYTES + BATCH_BYTES;
    add_batch(&mut service, &mut disk, &["second".to_owned()]).unwrap();
    let until = service.core.spool.journal.end + service.core.spool.reserve_bytes() + PREALLOCATE_BYTES;
    // Space that is reserved is not asked for again: the kernel would walk over it.
    let reserved_until = service.core.spool.space.reserved_until;
    disk.free = until - reserved_until + BATCH_BYTES + SPACE_MARGIN_BYTES;
    add_batch(&mut service, &mut disk, &[]).unwrap();
    assert_eq!(disk.last_preallocate, Some((SpoolFile::Journal, reserved_until, until)));
}

#[test]
fn the_room_of_dead_jobs_that_are_forgotten_is_given_back() {
    let (mut disk, mut service) = service();
    let rules = SpoolRules { retries: 0, ..RULES };
    let texts: Vec<String> = (0..100).map(|number| format!("{number} {}", "x".repeat(900))).collect();
    add_batch(&mut service, &mut disk, &texts).unwrap();
    while service.core.spool.waiting() > 0 {
        service.start_jobs(&mut disk, 4).unwrap();
        service.end_all(AttemptOutcome::Code(1), rules);
        service.core.spool.write_transitions(&mut disk, at(0)).unwrap();
    }
    add_batch(&mut service, &mut disk, &["last".to_owned()]).unwrap();
    disk.free = 0;
    assert_eq!(add_batch(&mut service, &mut disk, &[]), Err(NO_SPACE));
    service.core.spool.compact_for(Purpose::Forget, &mut disk, at(0)).unwrap();
    assert_eq!((service.core.spool.is_compacting(), service.core.spool.affected_count()), (false, 100));
    assert_eq!(
        disk.preallocated(SpoolFile::Journal),
        service.core.spool.journal.end + service.core.spool.reserve_bytes()
    );
}

#[test]
fn what_is_kept_is_not_given_away_for_a_new_journal_that_cannot_fit() {
    let (mut disk, mut service) = service();
    let texts: Vec<String> = (0..200).map(|number| format!("{number} {}", "x".repeat(900))).collect();
    add_batch(&mut service, &mut disk, &texts).unwrap();
    service.core.spool.space.reserved_until =
        service.core.spool.journal.end + service.core.spool.reserve_bytes();
    disk.free = 0;
    assert_eq!(add_batch(&mut service, &mut disk, &[]), Err(NO_SPACE));
    let (reserved_until, preallocated) =
        (service.core.spool.space.reserved_until, disk.preallocated(SpoolFile::Journal));
    disk.last_preallocate = None;
    assert_eq!(service.core.spool.compact_step(&mut disk, at(0)), Err(NO_SPACE));
    assert_eq!(
        (
            service.core.spool.space.reserved_until,
            disk.preallocated(SpoolFile::Journal),
            disk.last_preallocate
        ),
        (reserved_until, preallocated, None)
    );
    assert!(!service.core.spool.is_compacting());
    // With others' room, it fits.
    disk.free = service.core.spool.totals.live_bytes;
    service.core.spool.compact_step(&mut disk, at(0)).unwrap();
    assert!(!service.core.spool.is_compacting());
}

#[test]
fn without_room_a_long_queue_is_not_copied_for_a_few_ends_nor_at_once() {
    let (mut disk, mut service) = service();
    let texts: Vec<String> = (0..1000).map(|number| format!("{number} {}", "x".repeat(900))).collect();
    add_batch(&mut service, &mut disk, &texts).unwrap();
    for _ in 0..2 {
        service.start_jobs(&mut disk, WORKERS_MAX).unwrap();
        service.end_all(AttemptOutcome::Success, RULES);
    }
    service.core.spool.write_transitions(&mut disk, at(0)).unwrap();
    service.core.spool.space.low_space = true;
    assert!(service.core.spool.journal.end - service.core.spool.totals.live_bytes > COMPACT_LOW_SPACE_BYTES);
    assert!(!service.core.spool.wants_compaction(), "it would copy a hundred times as much");
    assert!(service.core.spool.totals.live_bytes < COMPACT_AT_ONCE_BYTES);
    service.core.spool.compact_step(&mut disk, at(0)).unwrap();
    assert!(!service.core.spool.is_compacting());
    // More than can be copied without holding up everything else.
    add_batch(&mut service, &mut disk, &texts).unwrap();
    service.core.spool.space.low_space = true;
    service.core.spool.compact_step(&mut disk, at(0)).unwrap();
    assert!(service.core.spool.is_compacting());
    service.core.spool.compact_now(&mut disk, at(0)).unwrap();
    // It must be one step where everything waits for it, or little is copied.
    (service.core.spool.space.low_space, service.core.spool.journal.sync_failed) = (true, true);
    service.core.spool.compact_step(&mut disk, at(0)).unwrap();
    assert!(!service.core.spool.is_compacting());
    service.core.spool.space.low_space = true;
    service.core.spool.compact_for(Purpose::Forget, &mut disk, at(0)).unwrap();
    assert!(!service.core.spool.is_compacting());
}

#[test]
fn each_full_buffer_of_a_group_asks_for_room_of_its_own() {
    let (mut disk, mut service) = service();
    add_batch(&mut service, &mut disk, &["old".to_owned()]).unwrap();
    let before = (service.core.spool.journal.end, service.core.spool.waiting());
    disk.free = BATCH_BYTES;
    disk.preallocate_limit = service.core.spool.space.reserved_until;
    let texts: Vec<String> = (0..100).map(|number| format!("{number} {}", "x".repeat(900))).collect();
    assert_eq!(add_batch(&mut service, &mut disk, &texts), Err(NO_SPACE));
    assert_eq!((service.core.spool.journal.end, service.core.spool.waiting()), before);
    add_batch(&mut service, &mut disk, &texts[..8]).unwrap();
    disk.preallocate_limit = u64::MAX;
    assert_eq!(service.run_to_the_end(&mut disk).len(), 9);
}

#[test]
fn a_last_line_without_newline_needs_room_too() {
    let (mut disk, mut service) = service();
    disk.append_to_queue("last");
    assert_eq!(service.ingest(&mut disk), Ok(0));
    service.now += CLAIM_QUIET;
    disk.free = 0;
    assert_eq!(service.ingest(&mut disk), Err(NO_SPACE));
    assert_eq!((service.core.spool.waiting(), disk.claims()), (0, 1));
    disk.free = u64::MAX;
    assert_eq!(service.run_to_the_end(&mut disk), ["last"]);
}

// ----- filesystems that are full in another way -------------------------------------

/// Returns a service with a journal in which 40 jobs have ended, and which claims nothing.
fn all_over() -> (FakeDisk, TestService) {
    let (mut disk, mut service) = service();
    let texts: Vec<String> = (0..40).map(|number| format!("{number} {}", "x".repeat(900))).collect();
    add_batch(&mut service, &mut disk, &texts).unwrap();
    assert_eq!(service.run_to_the_end(&mut disk), texts);
    (disk, service)
}

/// Checks that the journal is small, and that it stands for no job and for the same next id.
fn is_reset(disk: &mut FakeDisk, service: &mut TestService, next: u64) {
    assert!(disk.journal_mut().len() < 200, "{} bytes", disk.journal_mut().len());
    let (again, found) = TestService::start(&mut disk.clone(), at(0)).unwrap();
    assert_eq!((found, again.core.spool.waiting()), (Recovery::default(), 0));
    assert_eq!(again.core.spool.totals.next_id, next);
    assert_eq!(service.core.spool.totals.next_id, next);
}

#[test]
fn a_journal_of_ended_jobs_is_emptied_in_place_where_no_file_can_be_made() {
    let (mut disk, mut service) = all_over();
    disk.no_inodes = true;
    service.core.spool.compact_step(&mut disk, at(0)).unwrap();
    is_reset(&mut disk, &mut service, 41);
    disk.free = 0;
    assert_eq!(add_batch(&mut service, &mut disk, &["full".to_owned()]), Err(NO_SPACE));
    disk.free = u64::MAX;
    add_batch(&mut service, &mut disk, &["new".to_owned()]).unwrap();
    assert_eq!(service.run_to_the_end(&mut disk), ["new"]);
}

#[test]
fn a_journal_that_holds_a_job_is_not_emptied() {
    for dead in [false, true] {
        let (mut disk, mut service) = all_over();
        add_batch(&mut service, &mut disk, &["kept".to_owned()]).unwrap();
        if dead {
            service.start_jobs(&mut disk, 1).unwrap();
            service.end_all(AttemptOutcome::Code(1), SpoolRules { retries: 0, ..RULES });
            service.core.spool.write_transitions(&mut disk, at(0)).unwrap();
        }
        disk.no_inodes = true;
        let before = disk.journal_mut().clone();
        assert_eq!(service.core.spool.compact_step(&mut disk, at(0)), Err(NO_SPACE));
        assert_eq!(*disk.journal_mut(), before);
        disk.no_inodes = false;
        assert_eq!(service.core.spool.dead(), u32::from(dead));
        assert_eq!(service.run_to_the_end(&mut disk).len(), usize::from(!dead));
    }
}

#[test]
fn an_emptied_journal_is_right_after_a_crash_at_any_step() {
    for lines in [false, true] {
        let (mut disk, mut service) = all_over();
        if lines {
            disk.append_durably("a line\n");
            assert_eq!(service.run_to_the_end(&mut disk), ["a line"]);
        }
        let next = service.core.spool.totals.next_id;
        disk.no_inodes = true;
        let before = disk.operations;
        service.core.spool.clone().compact_step(&mut disk.clone(), at(0)).unwrap();
        for step in 1..12 {
            let (mut disk, mut spool) = (disk.clone(), service.core.spool.clone());
            disk.die_at = Some(before + step);
            let _ = spool.compact_step(&mut disk, at(0));
            let mut found = disk.power_cuts();
            disk.restart();
            found.push(disk);
            for mut disk in found {
                disk.no_inodes = false;
                let (mut again, _) = TestService::start(&mut disk, at(0)).unwrap();
                assert_eq!(again.run_to_the_end(&mut disk), [""; 0], "step {step}");
                assert_eq!(again.core.spool.totals.next_id, next, "step {step}");
            }
        }
    }
}

#[test]
fn a_limit_of_the_size_of_a_file_refuses_jobs_and_a_new_journal_ends_that() {
    let (mut disk, mut service) = mostly_over();
    let size = disk.journal_mut().len() as u64;
    disk.file_limit = Some(size + RESERVE_BYTES);
    service.core.spool.space.reserved_until = 0;
    let texts = vec!["y".repeat(900); 40];
    assert_eq!(add_batch(&mut service, &mut disk, &texts).unwrap_err(), NO_SPACE);
    assert!(service.core.spool.wants_compaction(), "although the disk has room");
    service.core.spool.compact_step(&mut disk, at(0)).unwrap();
    assert!(service.core.spool.update_low_space(&mut disk).0);
    add_batch(&mut service, &mut disk, &["new".to_owned()]).unwrap();
    assert_eq!(service.run_to_the_end(&mut disk), ["last", "new"]);
}

#[test]
fn starts_and_ends_for_which_a_file_is_too_long_find_room_in_a_new_one() {
    let (mut disk, mut service) = mostly_over();
    service.refill(&mut disk).unwrap();
    // A start under a limit that the journal has passed.
    disk.file_limit = Some(disk.journal_mut().len() as u64 - 1000);
    for _ in 0..3 {
        assert!(service.start_jobs(&mut disk, 1).is_err() || !service.running().is_empty());
        service.now += COMPACT_PATIENCE;
    }
    assert!(disk.journal_mut().len() < 1000, "{}", disk.journal_mut().len());
    assert_eq!(service.running()[0].attempt, 1);
    service.end_all(AttemptOutcome::Success, RULES);
    assert!(service.run_to_the_end(&mut disk).is_empty());
    assert_eq!(service.core.spool.waiting(), 0);
}

/// More than the time between two attempts of a compaction.
const COMPACT_PATIENCE: Duration = ms(60_000);

#[test]
fn a_disk_that_copies_on_write_and_is_full_loses_nothing() {
    let (mut disk, mut service) = service();
    let texts: Vec<String> = (0..60).map(|number| number.to_string()).collect();
    add_batch(&mut service, &mut disk, &texts).unwrap();
    disk.copies_on_write = true;
    disk.free = 0;
    for _ in 0..20 {
        let _ = service.start_jobs(&mut disk, 4);
        service.end_all(AttemptOutcome::Success, RULES);
        service.now += COMPACT_PATIENCE;
    }
    assert_eq!(add_batch(&mut service, &mut disk, &["new".to_owned()]), Err(NO_SPACE));
    let (mut killed, found) = TestService::start(&mut disk.clone(), at(0)).unwrap();
    assert_eq!((found.damaged_bytes, killed.core.spool.waiting()), (0, 60));
    disk.free = u64::MAX;
    assert_eq!(service.run_to_the_end(&mut disk), texts);
    let mut copy = disk.clone();
    copy.restart();
    killed = TestService::start(&mut copy, at(0)).unwrap().0;
    assert_eq!(killed.core.spool.waiting(), 0);
}

#[test]
fn a_start_on_a_full_disk_needs_no_room() {
    // No journal, one with a torn end, one with damage.
    for (tail, jobs) in [(&b""[..], 1), (&[2, 0, 9][..], 1), (&[7; 3000][..], 1)] {
        let (mut disk, mut service) = service();
        add_batch(&mut service, &mut disk, &["waits".to_owned()]).unwrap();
        disk.journal_mut().extend_from_slice(tail);
        let before = disk.journal_mut().clone();
        (disk.copies_on_write, disk.no_inodes, disk.free) = (true, true, 0);
        disk.restart();
        let (mut again, found) = TestService::start(&mut disk, at(0)).unwrap();
        assert_eq!(
            (again.core.spool.waiting(), found.damaged_bytes),
            (jobs, if tail.len() > 3 { 3000 } else { 0 })
        );
        assert!(disk.journal_mut().starts_with(&before[..before.len() - tail.len()]));
        assert!(disk.quarantined.is_empty());
        assert_eq!(add_batch(&mut again, &mut disk, &["new".to_owned()]), Err(NO_SPACE));
        (disk.copies_on_write, disk.no_inodes, disk.free) = (false, false, u64::MAX);
        add_batch(&mut again, &mut disk, &["new".to_owned()]).unwrap();
        assert_eq!(again.run_to_the_end(&mut disk), ["waits", "new"]);
        assert_eq!(disk.quarantined.len(), if tail.len() > 3 { 3000 } else { 0 }, "the damage is kept");
    }
    let mut disk = FakeDisk::new(1);
    (disk.copies_on_write, disk.no_inodes, disk.free) = (true, true, 0);
    let (mut service, _) = TestService::start(&mut disk, at(0)).unwrap();
    assert!(service.core.disk_health.is_full());
    assert_eq!(add_batch(&mut service, &mut disk, &["new".to_owned()]), Err(NO_SPACE));
    (disk.copies_on_write, disk.no_inodes, disk.free) = (false, false, u64::MAX);
    service.turn(&mut disk, 0, &mut |_, _, _| {});
    add_batch(&mut service, &mut disk, &["new".to_owned()]).unwrap();
    assert_eq!(service.run_to_the_end(&mut disk), ["new"]);
}
