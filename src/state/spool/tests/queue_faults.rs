//! The queue file and its claims when they fail, and writers that keep them open.

use super::*;
use crate::limits::{CLAIM_EVERY, CLAIM_GROWN_BYTES, CLAIMS_MAX};
use crate::state::disk::DiskError;
use crate::state::jobs::TurnNotice;

/// EBUSY, EACCES.
const BUSY: DiskError = DiskError(16);
const ACCESS: DiskError = DiskError(13);

/// Runs a turn without workers, and returns what it logs of the queue.
fn turn(service: &mut TestService, disk: &mut FakeDisk) -> Vec<QueueNotice> {
    let mut notices = Vec::new();
    service.look();
    service.turn(disk, 0, &mut |_, _, action| {
        if let TurnAction::Notice(TurnNotice::Queue(notice)) = action {
            notices.push(notice);
        }
    });
    notices
}

#[test]
fn a_queue_file_that_cannot_be_claimed_is_no_failure_of_the_spool() {
    let (mut disk, mut service) = service();
    disk.append_to_queue("line\n");
    disk.rename_fails = Some(BUSY);
    assert_eq!(turn(&mut service, &mut disk), [QueueNotice::FileFails]);
    assert!(service.core.spool.claims.file_fails());
    assert_eq!(service.core.disk_health.error(), None);
    service.core.add_job(&mut disk, b"of a client", service.now).unwrap();
    // The wait doubles; the log has one line for one error.
    let mut tries = 0;
    for _ in 0..60 {
        service.now += ms(500);
        let before = disk.operations;
        assert!(turn(&mut service, &mut disk).is_empty());
        tries += u32::from(disk.operations > before);
    }
    assert!((2..12).contains(&tries), "{tries} attempts in 30 s");
    disk.rename_fails = Some(ACCESS);
    service.core.spool.claims.retry_now();
    assert_eq!(turn(&mut service, &mut disk), [QueueNotice::FileFails], "another error is named");
    disk.rename_fails = None;
    service.now += CLAIM_EVERY;
    service.core.spool.claims.retry_now();
    assert_eq!(turn(&mut service, &mut disk), [QueueNotice::FileWorks]);
    assert_eq!(service.run_to_the_end(&mut disk), ["of a client", "line"]);
}

#[test]
fn a_claim_that_cannot_be_opened_read_or_removed_is_tried_until_it_can_be() {
    let (mut disk, mut service) = service();
    disk.append_to_queue("one\n");
    assert_eq!(turn(&mut service, &mut disk), []);
    disk.append_to_queue("");
    for _ in 0..2 {
        // Removed, read and opened, each in its turn.
        disk.claims_fail = Some(ACCESS);
        service.now += CLAIM_QUIET;
        assert_eq!(turn(&mut service, &mut disk), [QueueNotice::ClaimFails]);
        assert!(service.core.spool.claims.claims_fail());
        assert_eq!((service.core.disk_health.error(), disk.claims()), (None, 1));
        let due = service.core.next_deadline(service.now, false).unwrap();
        assert!(!due.is_due(service.now), "it is not tried all the time");
        disk.claims_fail = None;
        disk.append_to(disk.claim_inode(1), "more\n");
        service.core.spool.claims.retry_now();
        assert_eq!(turn(&mut service, &mut disk), [QueueNotice::ClaimsWork]);
    }
    disk.claims_fail = Some(ACCESS);
    let (mut again, _) = TestService::start(&mut disk, service.now).unwrap();
    assert_eq!(turn(&mut again, &mut disk), [QueueNotice::ClaimFails]);
    disk.claims_fail = None;
    again.now += ms(10_000);
    assert_eq!(turn(&mut again, &mut disk), [QueueNotice::ClaimsWork]);
    assert_eq!(again.run_to_the_end(&mut disk), ["one", "more", "more"]);
}

#[test]
fn nothing_of_a_claim_is_read_before_its_name_was_made_again_after_a_failed_sync() {
    let (mut disk, mut service) = service();
    disk.append_durably("line\n");
    disk.sync_fails = true;
    assert_eq!(turn(&mut service, &mut disk), [QueueNotice::FileFails]);
    assert_eq!((service.core.spool.waiting(), disk.claims()), (0, 1));
    disk.sync_fails = false;
    service.now += ms(10_000);
    assert_eq!(turn(&mut service, &mut disk), [QueueNotice::FileWorks]);
    assert_eq!(service.core.spool.waiting(), 1);
    // The claim has another name, with which the first sync has something to write.
    assert_eq!(service.core.spool.claims.next_seq(), 3);
    service.commit(&mut disk).unwrap();
    for mut cut in disk.power_cuts() {
        let (mut again, _) = TestService::start(&mut cut, service.now).unwrap();
        assert_eq!(again.run_to_the_end(&mut cut), ["line"]);
    }
}

#[test]
fn nothing_is_claimed_before_the_claims_of_an_earlier_process_are_known() {
    let (mut disk, mut first) = service();
    disk.append_to_queue("one\n");
    assert_eq!(turn(&mut first, &mut disk), []);
    disk.append_to_queue("two\n");
    disk.list_fails = true;
    let (mut service, _) = TestService::start(&mut disk, first.now + CLAIM_EVERY).unwrap();
    assert_eq!(turn(&mut service, &mut disk), [QueueNotice::FileFails]);
    assert_eq!(disk.claims(), 1);
    disk.list_fails = false;
    service.now += ms(10_000);
    assert_eq!(turn(&mut service, &mut disk), [QueueNotice::FileWorks]);
    assert_eq!(service.run_to_the_end(&mut disk), ["one", "two"]);
}

#[test]
fn a_claim_is_kept_while_its_writer_has_it_open_and_named_when_it_has_grown() {
    let (mut disk, mut service) = service();
    let file = disk.append_to_queue("one\n");
    disk.writers.insert(file);
    assert_eq!(turn(&mut service, &mut disk), []);
    service.now += CLAIM_QUIET;
    assert_eq!(turn(&mut service, &mut disk), []);
    assert_eq!(service.core.spool.claims.next_deadline(service.now, false), None, "only heartbeats try it");
    let bytes = vec![b'\n'; usize::try_from(CLAIM_GROWN_BYTES).unwrap() + 1];
    disk.append_bytes(file, &bytes);
    let notices: Vec<_> = (0..20).flat_map(|_| turn(&mut service, &mut disk)).collect();
    assert_eq!(notices, [QueueNotice::ClaimHeld(1)]);
    disk.append_to(file, "two");
    disk.writers.clear();
    service.now += CLAIM_QUIET;
    service.core.spool.claims.on_heartbeat();
    turn(&mut service, &mut disk);
    service.core.spool.claims.on_heartbeat();
    turn(&mut service, &mut disk);
    assert!(!service.core.spool.claims.claims_fail());
    assert_eq!(service.run_to_the_end(&mut disk), ["one", "two"]);
}

#[test]
fn without_leases_the_time_alone_decides() {
    let (mut disk, mut service) = service();
    disk.has_leases = false;
    let file = disk.append_to_queue("one\n");
    disk.writers.insert(file);
    turn(&mut service, &mut disk);
    service.now += CLAIM_QUIET;
    turn(&mut service, &mut disk);
    assert_eq!(disk.claims(), 0);
}

#[test]
fn a_suspend_is_no_time_in_which_a_claim_is_quiet() {
    let (mut disk, mut service) = service();
    service.now = at(5000);
    disk.has_leases = false;
    let file = disk.append_to_queue("one\n");
    disk.writers.insert(file);
    turn(&mut service, &mut disk);
    service.now += CLAIM_QUIET * 50;
    turn(&mut service, &mut disk);
    assert_eq!(disk.claims(), 1, "its writer had no time either");
    let due = service.now + CLAIM_QUIET;
    assert_eq!(service.core.spool.claims.next_deadline(service.now, false), Some(due));
    service.now = due;
    turn(&mut service, &mut disk);
    assert_eq!(disk.claims(), 0);
}

#[test]
fn writers_that_hold_every_claim_are_named_when_the_queue_file_waits() {
    let (mut disk, mut service) = service();
    for number in 0..=CLAIMS_MAX {
        let file = disk.append_to_queue(&format!("{number}\n"));
        disk.writers.insert(file);
        turn(&mut service, &mut disk);
        service.now += CLAIM_EVERY;
    }
    assert!(!service.core.spool.claims.claims_fail(), "the claims may be quiet soon");
    service.now += CLAIM_QUIET;
    let notices: Vec<_> = (0..3).flat_map(|_| turn(&mut service, &mut disk)).collect();
    assert_eq!(notices, [QueueNotice::ClaimHeld(1)]);
    disk.writers.clear();
    assert_eq!(service.run_to_the_end(&mut disk).len(), CLAIMS_MAX + 1);
    assert!(!service.core.spool.claims.claims_fail());
}

#[test]
fn claims_for_which_the_table_has_no_room_are_read_when_it_has() {
    let (mut disk, _) = service();
    for seq in 1..=CLAIMS_MAX + 5 {
        disk.plant_claim(u64::try_from(seq).unwrap(), &format!("{seq}\n"));
    }
    let (mut service, _) = TestService::start(&mut disk, at(0)).unwrap();
    assert_eq!(service.run_to_the_end(&mut disk).len(), CLAIMS_MAX + 5);
}

#[test]
fn a_byte_order_mark_is_skipped_also_in_a_line_without_newline() {
    for text in ["\u{feff}one\n", "\u{feff}one"] {
        let (mut disk, mut service) = service();
        disk.append_to_queue(text);
        assert_eq!(service.run_to_the_end(&mut disk), ["one"]);
    }
}
