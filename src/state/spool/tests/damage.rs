//! A journal with damage: met at a start, or while the service runs.

use super::*;

#[test]
fn any_flipped_bit_costs_at_most_one_record() {
    let (mut disk, mut service) = service();
    for number in 0..8 {
        disk.append_to_queue(&format!("job number {number}\n"));
    }
    service.ingest(&mut disk).unwrap();
    service.commit(&mut disk).unwrap();
    service.now += CLAIM_QUIET;
    service.ingest(&mut disk).unwrap();
    service.commit(&mut disk).unwrap();
    assert_eq!(disk.claims(), 0);
    for bit in 17 * 8..disk.journal_mut().len() * 8 {
        let mut damaged = disk.clone();
        damaged.journal_mut()[bit / 8] ^= 1 << (bit % 8);
        let (mut again, recovery) = TestService::start(&mut damaged, Instant::BOOT).unwrap();
        let ran = again.run_to_the_end(&mut damaged);
        assert!(ran.len() >= 7, "bit {bit}: {ran:?}");
        assert!(recovery.damaged_bytes + recovery.torn_bytes > 0, "bit {bit} was not noticed");
        assert!(!damaged.quarantined.is_empty() || recovery.torn_bytes > 0, "bit {bit}");
        let (_, recovery) = TestService::start(&mut damaged, Instant::BOOT).unwrap();
        assert_eq!(recovery, Recovery::default(), "bit {bit}: the damage is gone");
    }
}

#[test]
fn every_truncation_keeps_what_came_before() {
    let (mut disk, mut service) = service();
    for number in 0..6 {
        service.core.spool.add(&mut disk, Instant::BOOT, format!("job {number}").as_bytes()).unwrap();
    }
    service.commit(&mut disk).unwrap();
    for length in 0..disk.journal_mut().len() {
        let mut cut = disk.clone();
        cut.journal_mut().truncate(length);
        let (mut again, _) = TestService::start(&mut cut, Instant::BOOT).unwrap();
        let ran = again.run_to_the_end(&mut cut);
        assert_eq!(ran.len(), length.saturating_sub(17) / 25, "length {length}");
    }
}

#[test]
fn a_journal_that_lost_its_header_keeps_what_stands_first() {
    for kind in [RecordKind::Add, RecordKind::Dead] {
        let body: &[u8] = if kind == RecordKind::Dead { b"\x01\x00one" } else { b"one" };
        let mut bytes = heapless::Vec::<u8, 64>::new();
        Record { body, ..Record::new(kind, 1, 1) }.emit(&mut bytes).unwrap();
        let mut disk = FakeDisk::new(1);
        disk.journal_mut().extend_from_slice(&bytes);
        let (mut service, found) = TestService::start(&mut disk, Instant::BOOT).unwrap();
        assert_eq!((found.damaged_bytes, disk.quarantined.len()), (0, 0), "{kind:?}");
        assert!(disk.journal_mut().starts_with(b"zigsvc-journal 2\n"));
        match service.live_records(&mut disk, true).unwrap().as_slice() {
            [] => assert_eq!(service.run_to_the_end(&mut disk), ["one"], "{kind:?}"),
            dead => assert!(kind == RecordKind::Dead && dead.len() == 1 && dead[0].1 == "one", "{dead:?}"),
        }
        assert_eq!(service.core.spool.dead(), u32::from(kind == RecordKind::Dead));
    }
}

#[test]
fn zeros_at_the_end_are_a_torn_write_and_zeros_before_something_are_damage() {
    let (mut disk, mut service) = service();
    service.core.spool.add(&mut disk, Instant::BOOT, b"job").unwrap();
    service.commit(&mut disk).unwrap();
    let whole = disk.journal_mut().len();
    for (zeros, more) in [(1, 0), (100, 0), (20_000, 0), (100, 1), (20_000, 1)] {
        let mut disk = disk.clone();
        disk.journal_mut().extend(std::iter::repeat_n(0, zeros).chain(std::iter::repeat_n(b'x', more)));
        let (mut again, found) = TestService::start(&mut disk, Instant::BOOT).unwrap();
        let lost = (zeros + more) as u64;
        let torn = more == 0;
        assert_eq!(found.torn_bytes, if torn { lost } else { 0 }, "{zeros} {more}");
        assert_eq!(
            (found.damaged_bytes, disk.quarantined.len() as u64),
            if torn { (0, 0) } else { (lost, lost) }
        );
        assert!(!torn || disk.journal_mut().len() == whole);
        assert_eq!(again.run_to_the_end(&mut disk), ["job"]);
    }
}

#[test]
fn damage_in_the_last_group_voids_it_and_is_not_taken_for_a_torn_write() {
    let (mut disk, mut service) = service();
    disk.append_durably("one\ntwo\n");
    service.ingest(&mut disk).unwrap();
    service.commit(&mut disk).unwrap();
    *disk.journal_mut().last_mut().unwrap() ^= 1;
    let (mut again, found) = TestService::start(&mut disk, Instant::BOOT).unwrap();
    assert_eq!((found.reread_batches, found.torn_bytes), (1, 0));
    assert_eq!(again.run_to_the_end(&mut disk), ["one", "two"]);
}

#[test]
fn damage_beyond_the_window_costs_a_compaction_no_job_but_its_own() {
    let (mut disk, mut service) = service();
    // Less than a record is read after the damaged one.
    let text = |number: usize| format!("{number:03}{}", "x".repeat(900));
    let count = WINDOW_JOBS + 4;
    for number in 0..count {
        service.core.spool.add(&mut disk, Instant::BOOT, text(number).as_bytes()).unwrap();
    }
    service.commit(&mut disk).unwrap();
    service.refill(&mut disk).unwrap();
    let damaged = WINDOW_JOBS + 1;
    let journal = disk.journal_mut();
    let at = journal.windows(4).position(|bytes| bytes == format!("{damaged:03}x").as_bytes()).unwrap();
    journal[at] ^= 1;
    service.core.spool.compact_now(&mut disk, Instant::BOOT).unwrap();
    let bytes = disk.quarantined.len() as u64;
    assert!(bytes > 900, "{bytes} are kept");
    assert_eq!(service.core.spool.take_damage(), Some(Damage { bytes, jobs: 1 }));
    let expected: Vec<String> = (0..count).filter(|number| *number != damaged).map(text).collect();
    assert_eq!(service.run_to_the_end(&mut disk), expected);
    assert_eq!(service.core.spool.take_damage(), None);
}

#[test]
fn damage_that_is_met_on_the_way_into_the_window_asks_for_a_compaction_which_counts_it() {
    let (mut disk, mut service) = service();
    for number in 0..4 {
        service.core.spool.add(&mut disk, Instant::BOOT, format!("job {number}").as_bytes()).unwrap();
    }
    service.commit(&mut disk).unwrap();
    for damaged in [&b"job 1"[..], b"job 3"] {
        let journal = disk.journal_mut();
        let at = journal.windows(5).position(|bytes| bytes == damaged).unwrap();
        journal[at] ^= 1;
    }
    assert!(!service.core.spool.wants_compaction());
    service.refill(&mut disk).unwrap();
    assert_eq!(service.core.spool.window().slots().iter().map(|slot| slot.id).collect::<Vec<_>>(), [1, 3]);
    assert!(service.core.spool.wants_compaction() && service.core.spool.waiting() == 4);
    // One that fails sets the bytes aside, and does not count twice.
    let end = (1..).find(|steps| {
        disk.fail_at = Some(disk.operations + steps);
        service.core.spool.compact_now(&mut disk, Instant::BOOT).is_ok()
    });
    assert!(end > Some(4), "{end:?}");
    disk.fail_at = None;
    assert_eq!(disk.quarantined.len(), 2 * 25);
    assert_eq!(service.core.spool.take_damage(), Some(Damage { bytes: 50, jobs: 2 }));
    // The last failure was that of the folder's sync: the next commit writes the journal again.
    assert!(service.core.spool.wants_compaction());
    service.commit(&mut disk).unwrap();
    assert_eq!((service.core.spool.waiting(), service.core.spool.wants_compaction()), (2, false));
    assert_eq!(service.run_to_the_end(&mut disk), ["job 0", "job 2"]);
}

#[test]
fn a_dead_job_that_is_damaged_is_one_less() {
    for purpose in [Purpose::Shrink, Purpose::Retry, Purpose::Forget] {
        let (mut disk, mut service) = service();
        for text in [&b"first"[..], b"second"] {
            service.core.spool.add(&mut disk, Instant::BOOT, text).unwrap();
        }
        service.commit(&mut disk).unwrap();
        service.refill(&mut disk).unwrap();
        service.start_jobs(&mut disk, 2).unwrap();
        service.end_all(AttemptOutcome::Code(1), SpoolRules { retries: 0, ..RULES });
        service.core.spool.write_transitions(&mut disk, Instant::BOOT).unwrap();
        assert_eq!((service.core.spool.waiting(), service.core.spool.dead()), (0, 2));
        let journal = disk.journal_mut();
        // After the outcome, in the record of the dead job.
        let at = journal.windows(7).rposition(|bytes| bytes == b"\0\x01first").unwrap() + 2;
        journal[at] ^= 1;
        service.core.spool.compact_for(purpose, &mut disk, Instant::BOOT).unwrap();
        while service.core.spool.is_compacting() {
            service.core.spool.compact_step(&mut disk, Instant::BOOT).unwrap();
        }
        let left = match purpose {
            Purpose::Shrink => (0, 1),
            Purpose::Retry => (1, 0),
            Purpose::Forget => (0, 0),
        };
        assert_eq!((service.core.spool.waiting(), service.core.spool.dead()), left, "{purpose:?}");
        let damage = service.core.spool.take_damage().unwrap();
        assert_eq!((damage.bytes, damage.jobs), (disk.quarantined.len() as u64, 1));
    }
}

#[test]
fn what_stands_for_a_damaged_text_is_shown_but_never_run() {
    let (mut disk, mut service) = service();
    service.core.spool.add(&mut disk, Instant::BOOT, b"rm -r x").unwrap();
    service.commit(&mut disk).unwrap();
    service.refill(&mut disk).unwrap();
    let journal = disk.journal_mut();
    let at = journal.windows(7).position(|bytes| bytes == b"rm -r x").unwrap();
    journal[at] ^= 1;
    service.core.spool.compact_now(&mut disk, Instant::BOOT).unwrap();
    let location = service.core.spool.window().slots()[0].location();
    let mut buffer = [0; RECORD_MAX_BYTES];
    assert_eq!(service.core.spool.text(&mut disk, location, &mut buffer), Ok(PLACEHOLDER_TEXT));
    assert_eq!(service.core.spool.runnable_text(&mut disk, location, &mut buffer), Err(DAMAGED));
}

#[test]
fn a_text_that_is_damaged_while_the_service_runs_holds_up_nothing() {
    let (mut disk, mut service) = service();
    for text in ["first", "second", "third"] {
        service.core.spool.add(&mut disk, Instant::BOOT, text.as_bytes()).unwrap();
    }
    service.commit(&mut disk).unwrap();
    service.refill(&mut disk).unwrap();
    let second = disk.journal_mut().windows(6).position(|window| window == b"second").unwrap();
    disk.journal_mut()[second] ^= 1;
    let rules = SpoolRules { retries: 0, ..RULES };
    while let Some(slot) = service.core.spool.dequeue(Instant::BOOT, &|_| false) {
        let readable = service.text(&mut disk, &slot).is_ok();
        assert_eq!(readable, slot.id != 2);
        let outcome = if readable { AttemptOutcome::Success } else { AttemptOutcome::NotStarted };
        service.core.spool.ended(slot.id, outcome, &rules);
    }
    service.core.spool.write_transitions(&mut disk, Instant::BOOT).unwrap();
    assert_eq!((service.core.spool.waiting(), service.core.spool.dead()), (0, 1));
    service.core.spool.compact_now(&mut disk, Instant::BOOT).unwrap();
    let (again, _) = TestService::start(&mut disk, Instant::BOOT).unwrap();
    assert_eq!((again.core.spool.waiting(), again.core.spool.dead()), (0, 1));
}

#[test]
fn a_group_that_is_lost_takes_the_groups_behind_it_along_and_no_line_is_lost() {
    let (mut disk, mut service) = service();
    let lines: Vec<String> = (0..400).map(|number| format!("line {number} {}", "x".repeat(60))).collect();
    disk.append_durably(&format!("{}\n", lines.join("\n")));
    service.ingest(&mut disk).unwrap();
    service.core.spool.claims.look_at_claims();
    assert_eq!(service.core.spool.waiting(), 400);
    // The power goes before the commit, and with it one sector of the first
    // batch, while the others reached the disk.
    disk.journal_mut()[200..264].fill(0);
    let (mut again, recovery) = TestService::start(&mut disk, Instant::BOOT).unwrap();
    assert!(recovery.reread_batches > 1);
    assert_eq!(again.run_to_the_end(&mut disk), lines);
}

#[test]
fn the_numbers_are_right_after_the_dead_home_of_a_retried_job_was_damaged() {
    let (mut disk, mut service) = service();
    let texts = ["first".to_owned(), "second".to_owned()];
    add_batch(&mut service, &mut disk, &texts).unwrap();
    service.start_jobs(&mut disk, 2).unwrap();
    service.end_all(AttemptOutcome::Code(1), SpoolRules { retries: 0, ..RULES });
    service.core.spool.write_transitions(&mut disk, Instant::BOOT).unwrap();
    let (location, _) = service.live_records(&mut disk, true).unwrap()[0].clone();
    service.core.spool.retry(&mut disk, Instant::BOOT, location).unwrap();
    service.commit(&mut disk).unwrap();
    assert_eq!((service.core.spool.waiting(), service.core.spool.dead()), (1, 1));
    let at = usize::try_from(location.offset).unwrap() + 4;
    disk.journal_mut()[at] ^= 1;
    disk.restart();
    let (mut again, found) = TestService::start(&mut disk, Instant::BOOT).unwrap();
    assert!(found.damaged_bytes > 0, "{found:?}");
    assert_eq!(again.live_records(&mut disk, true).unwrap().len(), 1);
    assert_eq!((again.core.spool.waiting(), again.core.spool.dead()), (1, 1), "and no job is there twice");
    assert_eq!(again.run_to_the_end(&mut disk), ["first"]);
}

/// Returns a service with `count` jobs of 100 bytes each, committed; none is in the window.
fn backlog(count: usize) -> (FakeDisk, TestService, Vec<String>) {
    let (mut disk, mut service) = service();
    let texts: Vec<String> = (0..count).map(|number| format!("{number:03}{}", "x".repeat(77))).collect();
    for text in &texts {
        service.core.spool.add(&mut disk, Instant::BOOT, text.as_bytes()).unwrap();
    }
    service.commit(&mut disk).unwrap();
    (disk, service, texts)
}

#[test]
fn a_page_of_zeros_is_set_aside_in_few_pieces() {
    let (mut disk, mut service, texts) = backlog(200);
    disk.journal_mut()[17 + 5000..17 + 5000 + 4096].fill(0);
    let before = disk.operations;
    service.core.spool.compact_now(&mut disk, Instant::BOOT).unwrap();
    assert!(disk.operations - before < 20, "{} operations", disk.operations - before);
    assert_eq!(service.core.spool.take_damage(), Some(Damage { bytes: 4100, jobs: 41 }));
    let left: Vec<String> = texts[..50].iter().chain(&texts[91..]).cloned().collect();
    assert_eq!(service.run_to_the_end(&mut disk), left);
}

#[test]
fn a_journal_that_somebody_made_shorter_holds_up_nobody() {
    for length in [0, 17, 17 + 10 * 100, 17 + 10 * 100 + 50] {
        let (mut disk, mut service, texts) = backlog(80);
        disk.journal_mut().truncate(length);
        let left = length.saturating_sub(17) / 100;
        assert_eq!(service.live_records(&mut disk, false).unwrap().len(), left, "{length}");
        service.core.spool.compact_now(&mut disk, Instant::BOOT).unwrap();
        assert_eq!(
            (service.core.spool.waiting() as usize, disk.quarantined.len()),
            (left, length.saturating_sub(17) % 100)
        );
        assert_eq!(service.core.spool.take_damage().map(|damage| damage.jobs as usize), Some(80 - left));
        assert_eq!(service.run_to_the_end(&mut disk), texts[..left]);
    }
}

#[test]
fn a_damaged_length_near_the_end_costs_the_jobs_behind_it_nothing() {
    let (mut disk, mut service, texts) = backlog(6);
    disk.journal_mut()[17 + 2 * 100 + 3] = 3;
    assert!(matches!(parse_record(&disk.journal_mut()[17 + 2 * 100..]), ParseResult::Truncated(_)));
    let left: Vec<String> = texts[..2].iter().chain(&texts[3..]).cloned().collect();
    service.refill(&mut disk).unwrap();
    service.core.spool.compact_now(&mut disk, Instant::BOOT).unwrap();
    assert_eq!(service.core.spool.take_damage(), Some(Damage { bytes: 100, jobs: 1 }));
    assert_eq!(service.run_to_the_end(&mut disk), left);
}

#[test]
fn a_job_that_is_cancelled_and_then_damaged_before_a_compaction_meets_it_counts_once() {
    let (mut disk, mut service, _) = backlog(4);
    service.core.spool.compact_for(Purpose::Shrink, &mut disk, Instant::BOOT).unwrap();
    let (location, _) = service.live_records(&mut disk, false).unwrap()[2].clone();
    service.core.spool.discard_record(&mut disk, Instant::BOOT, location).unwrap();
    disk.journal_mut()[usize::try_from(location.offset).unwrap()] ^= 1;
    service.core.spool.compact_step(&mut disk, Instant::BOOT).unwrap();
    assert_eq!((service.core.spool.is_compacting(), service.core.spool.waiting()), (false, 3));
    assert_eq!(service.core.spool.take_damage(), Some(Damage { bytes: 100, jobs: 0 }));
    assert_eq!(service.run_to_the_end(&mut disk).len(), 3);
}

#[test]
fn a_dead_job_that_is_damaged_after_a_compaction_has_met_it_once_is_counted_out() {
    let (mut disk, mut service, texts) = backlog(2);
    service.start_jobs(&mut disk, 2).unwrap();
    service.end_all(AttemptOutcome::Code(1), SpoolRules { retries: 0, ..RULES });
    service.core.spool.write_transitions(&mut disk, Instant::BOOT).unwrap();
    let (location, _) = service.live_records(&mut disk, true).unwrap()[0].clone();
    service.core.spool.compact_for(Purpose::Retry, &mut disk, Instant::BOOT).unwrap();
    service.core.spool.compact_step(&mut disk, Instant::BOOT).unwrap();
    assert!(service.core.spool.is_compacting(), "they were met once");
    disk.journal_mut()[usize::try_from(location.offset).unwrap()] ^= 1;
    service.core.spool.compact_step(&mut disk, Instant::BOOT).unwrap();
    assert_eq!((service.core.spool.is_compacting(), service.core.spool.affected_count()), (false, 1));
    assert_eq!((service.core.spool.waiting(), service.core.spool.dead()), (1, 0));
    assert_eq!(service.core.spool.take_damage().map(|damage| damage.jobs), Some(1));
    assert_eq!(service.run_to_the_end(&mut disk), texts[1..]);
}

#[test]
fn a_text_that_was_misread_once_is_there_again_if_the_compaction_was_given_up() {
    let (mut disk, mut service, texts) = backlog(1);
    service.refill(&mut disk).unwrap();
    disk.journal_mut()[17 + 50] ^= 1;
    disk.fail_at = Some(disk.operations + 4);
    service.core.spool.compact_now(&mut disk, Instant::BOOT).unwrap_err();
    disk.fail_at = None;
    disk.journal_mut()[17 + 50] ^= 1;
    assert_eq!(service.run_to_the_end(&mut disk), texts);
}

/// Covers a defect that the simulator found: the journal that a start writes again because of damage was
/// trusted though the sync of its name had failed, so that a power cut undid all that came after it.
#[test]
fn a_journal_that_a_start_wrote_again_is_replaced_if_its_name_is_in_doubt() {
    let (mut disk, mut service) = service();
    for text in ["one", "two", "three"] {
        service.core.spool.add(&mut disk, Instant::BOOT, text.as_bytes()).unwrap();
    }
    service.commit(&mut disk).unwrap();
    disk.journal_mut()[20] ^= 1;
    disk.fail_folder_sync = true;
    let (mut service, found) = TestService::start(&mut disk, Instant::BOOT).unwrap();
    assert!(found.damaged_bytes > 0 && !disk.fail_folder_sync);
    service.core.spool.add(&mut disk, Instant::BOOT, b"acknowledged").unwrap();
    service.commit(&mut disk).unwrap();
    disk.power_cut();
    disk.restart();
    let (mut service, _) = TestService::start(&mut disk, Instant::BOOT).unwrap();
    assert!(service.run_to_the_end(&mut disk).contains(&"acknowledged".to_owned()));
}
