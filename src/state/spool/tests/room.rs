//! Room on the disk: for new jobs, and what is kept for the ends of those that are there.

use super::*;

/// A small journal in which a hundred jobs are over and one waits.
fn mostly_over() -> (FakeDisk, Service) {
    let (mut disk, mut service) = service();
    let texts: Vec<String> = (0..100).map(|number| format!("{number} {}", "x".repeat(200))).collect();
    add_group(&mut service, &mut disk, &texts).unwrap();
    service.run_to_the_end(&mut disk);
    add_group(&mut service, &mut disk, &["last".to_owned()]).unwrap();
    (disk, service)
}

#[test]
fn new_jobs_do_not_take_the_room_that_old_ones_need() {
    let (mut disk, mut service) = service();
    disk.append_to_queue("old\n");
    service.intake(&mut disk).unwrap();
    disk.append_to_queue("new\n");
    service.now += ms(1000);
    service.spool.claims.look_at_queue();
    // (as on a disk that can keep nothing)
    disk.keeps_at_most = 0;
    disk.free = RESERVE_BYTES;
    service.spool.kept = 0;
    assert_eq!(service.intake(&mut disk), Err(NO_ROOM));
    assert_eq!(add_group(&mut service, &mut disk, &[]), Err(NO_ROOM));
    assert_eq!(service.start_jobs(&mut disk, 1).unwrap(), ["old"]);
    disk.free = u64::MAX;
    service.spool.ended(1, Outcome::Success, &RULES);
    service.spool.settle(&mut disk, service.now).unwrap();
    service.running.clear();
    assert_eq!(service.run_to_the_end(&mut disk), ["new"]);
}

#[test]
fn the_disk_keeps_room_for_the_ends_of_the_jobs_that_are_there() {
    let (mut disk, mut service) = service();
    let end = service.spool.end;
    add_group(&mut service, &mut disk, &["first".to_owned()]).unwrap();
    assert_eq!(disk.asked.take(), Some((File::Journal, end, end + RESERVE_BYTES + KEEP_AHEAD_BYTES)));
    add_group(&mut service, &mut disk, &["second".to_owned()]).unwrap();
    assert_eq!(disk.asked.take(), None, "not with each group");
    // What is kept is not for new jobs.
    disk.free = GROUP_BYTES - 1;
    assert_eq!(add_group(&mut service, &mut disk, &[]), Err(NO_ROOM));
    let (room, free, reserve) = service.spool.room_on_disk(&mut disk);
    assert_eq!((room, free, reserve), (false, GROUP_BYTES - 1, RESERVE_BYTES + 2 * RESERVE_PER_JOB_BYTES));
    disk.free = GROUP_BYTES;
    add_group(&mut service, &mut disk, &[]).unwrap();
    assert!(!service.spool.room_on_disk(&mut disk).0, "once there was none it must be more");
    disk.free = GROUP_BYTES + ROOM_MARGIN_BYTES;
    assert!(service.spool.room_on_disk(&mut disk).0);
    // A failed write is cut off, and what was kept with it; so it is asked for again.
    disk.asked = None;
    disk.fail_at = Some(disk.operations + 1);
    service.spool.choose(at(0)).or_else(|| {
        service.refill(&mut disk).unwrap();
        service.spool.choose(at(0))
    });
    service.spool.settle(&mut disk, at(0)).unwrap_err();
    let end = service.spool.end;
    assert_eq!(disk.asked, Some((File::Journal, end, end + service.spool.reserve())));
    // A start and a recovery keep it, too.
    disk.fail_at = None;
    disk.asked = None;
    disk.restart();
    let (again, _) = Service::start(&mut disk, at(0)).unwrap();
    assert_eq!(disk.asked, Some((File::Journal, end, end + again.spool.reserve())));
}

#[test]
fn without_room_for_new_jobs_a_smaller_journal_is_worth_its_while_and_is_made_at_once() {
    let (mut disk, mut service) = mostly_over();
    assert!(!service.spool.wants_compaction(), "it is small");
    disk.free = 0;
    assert_eq!(add_group(&mut service, &mut disk, &[]), Err(NO_ROOM));
    assert!(service.spool.wants_compaction());
    // It has to find room for all that is to be kept.
    disk.keeps_at_most = 1000;
    let before = service.spool.end;
    assert_eq!(service.spool.compact_step(&mut disk, at(0)), Err(DiskError(28)));
    assert_eq!((service.spool.is_compacting(), service.spool.end), (false, before));
    service.spool.compact_for(Purpose::Forget, &mut disk, at(0)).unwrap();
    assert!(service.spool.end < 200, "without the dead it takes less");
    assert!(!service.spool.is_compacting() && !service.spool.wants_compaction());
    assert_eq!(service.run_to_the_end(&mut disk), ["last"]);
}

#[test]
fn a_journal_that_is_made_smaller_at_once_keeps_what_waits() {
    let (mut disk, mut service) = mostly_over();
    disk.free = 0;
    assert_eq!(add_group(&mut service, &mut disk, &[]), Err(NO_ROOM));
    service.spool.compact_step(&mut disk, at(0)).unwrap();
    assert!(!service.spool.is_compacting() && service.spool.end < 200);
    assert!(!service.spool.wants_compaction());
    let end = service.spool.end;
    assert_eq!(disk.asked, Some((File::Journal, end, end + service.spool.reserve())));
    assert_eq!(service.run_to_the_end(&mut disk), ["last"]);
}

#[test]
fn what_is_kept_ahead_does_not_take_the_room_of_new_jobs() {
    let (mut disk, mut service) = service();
    let end = service.spool.end;
    // A disk so small that it cannot keep more than it must and have room for new jobs, too.
    disk.free = RESERVE_BYTES + KEEP_AHEAD_BYTES + GROUP_BYTES;
    add_group(&mut service, &mut disk, &["first".to_owned()]).unwrap();
    assert_eq!(disk.asked.take(), Some((File::Journal, end, end + RESERVE_BYTES)));
    disk.free = KEEP_AHEAD_BYTES + GROUP_BYTES;
    add_group(&mut service, &mut disk, &["second".to_owned()]).unwrap();
    let until = service.spool.end + service.spool.reserve() + KEEP_AHEAD_BYTES;
    // What is kept is not asked for again: the kernel would walk over it.
    let kept = service.spool.kept;
    disk.free = until - kept + GROUP_BYTES + ROOM_MARGIN_BYTES;
    add_group(&mut service, &mut disk, &[]).unwrap();
    assert_eq!(disk.asked, Some((File::Journal, kept, until)));
}

#[test]
fn the_room_of_dead_jobs_that_are_forgotten_is_given_back() {
    let (mut disk, mut service) = service();
    let rules = Rules { retries: 0, ..RULES };
    let texts: Vec<String> = (0..100).map(|number| format!("{number} {}", "x".repeat(900))).collect();
    add_group(&mut service, &mut disk, &texts).unwrap();
    while service.spool.waiting() > 0 {
        service.start_jobs(&mut disk, 4).unwrap();
        for slot in std::mem::take(&mut service.running) {
            service.spool.ended(slot.id, Outcome::Code(1), &rules);
        }
        service.spool.settle(&mut disk, at(0)).unwrap();
    }
    add_group(&mut service, &mut disk, &["last".to_owned()]).unwrap();
    disk.free = 0;
    assert_eq!(add_group(&mut service, &mut disk, &[]), Err(NO_ROOM));
    service.spool.compact_for(Purpose::Forget, &mut disk, at(0)).unwrap();
    assert_eq!((service.spool.is_compacting(), service.spool.raised()), (false, 100));
    assert_eq!(disk.held(File::Journal), service.spool.end + service.spool.reserve());
}

#[test]
fn what_is_kept_is_not_given_away_for_a_new_journal_that_cannot_fit() {
    let (mut disk, mut service) = service();
    let texts: Vec<String> = (0..200).map(|number| format!("{number} {}", "x".repeat(900))).collect();
    add_group(&mut service, &mut disk, &texts).unwrap();
    service.spool.kept = service.spool.end + service.spool.reserve();
    disk.free = 0;
    assert_eq!(add_group(&mut service, &mut disk, &[]), Err(NO_ROOM));
    let (kept, held) = (service.spool.kept, disk.held(File::Journal));
    disk.asked = None;
    assert_eq!(service.spool.compact_step(&mut disk, at(0)), Err(NO_ROOM));
    assert_eq!((service.spool.kept, disk.held(File::Journal), disk.asked), (kept, held, None));
    assert!(!service.spool.is_compacting());
    // With others' room, it fits.
    disk.free = service.spool.live_bytes;
    service.spool.compact_step(&mut disk, at(0)).unwrap();
    assert!(!service.spool.is_compacting());
}

#[test]
fn without_room_a_long_queue_is_not_copied_for_a_few_ends_nor_at_once() {
    let (mut disk, mut service) = service();
    let texts: Vec<String> = (0..1000).map(|number| format!("{number} {}", "x".repeat(900))).collect();
    add_group(&mut service, &mut disk, &texts).unwrap();
    service.start_jobs(&mut disk, 10).unwrap();
    for slot in std::mem::take(&mut service.running) {
        service.spool.ended(slot.id, Outcome::Success, &RULES);
    }
    service.spool.settle(&mut disk, at(0)).unwrap();
    service.spool.short = true;
    assert!(service.spool.end - service.spool.live_bytes > COMPACT_SHORT_BYTES);
    assert!(!service.spool.wants_compaction(), "it would copy a hundred times as much");
    assert!(service.spool.live_bytes < COMPACT_AT_ONCE_BYTES);
    service.spool.compact_step(&mut disk, at(0)).unwrap();
    assert!(!service.spool.is_compacting());
    // More than can be copied without holding up everything else.
    add_group(&mut service, &mut disk, &texts).unwrap();
    service.spool.short = true;
    service.spool.compact_step(&mut disk, at(0)).unwrap();
    assert!(service.spool.is_compacting());
    service.spool.compact_now(&mut disk, at(0)).unwrap();
    // It must be one step where everything waits for it, or little is copied.
    (service.spool.short, service.spool.suspect) = (true, true);
    service.spool.compact_step(&mut disk, at(0)).unwrap();
    assert!(!service.spool.is_compacting());
    service.spool.short = true;
    service.spool.compact_for(Purpose::Forget, &mut disk, at(0)).unwrap();
    assert!(!service.spool.is_compacting());
}

#[test]
fn each_full_buffer_of_a_group_asks_for_room_of_its_own() {
    let (mut disk, mut service) = service();
    add_group(&mut service, &mut disk, &["old".to_owned()]).unwrap();
    let before = (service.spool.end, service.spool.waiting());
    disk.free = GROUP_BYTES;
    disk.keeps_at_most = service.spool.kept;
    let texts: Vec<String> = (0..100).map(|number| format!("{number} {}", "x".repeat(900))).collect();
    assert_eq!(add_group(&mut service, &mut disk, &texts), Err(NO_ROOM));
    assert_eq!((service.spool.end, service.spool.waiting()), before);
    add_group(&mut service, &mut disk, &texts[..8]).unwrap();
    disk.keeps_at_most = u64::MAX;
    assert_eq!(service.run_to_the_end(&mut disk).len(), 9);
}

#[test]
fn a_last_line_without_newline_needs_room_too() {
    let (mut disk, mut service) = service();
    disk.append_to_queue("last");
    assert_eq!(service.intake(&mut disk), Ok(0));
    service.now += CLAIM_QUIET;
    disk.free = 0;
    assert_eq!(service.intake(&mut disk), Err(NO_ROOM));
    assert_eq!((service.spool.waiting(), disk.claims()), (0, 1));
    disk.free = u64::MAX;
    assert_eq!(service.run_to_the_end(&mut disk), ["last"]);
}
