//! The table of claims, and what the service asks of it to know when to wake.

use super::*;
use crate::limits::CLAIM_EVERY;
use crate::state::spool::claims::Claim;

fn claims(numbers: &[(u64, u64)]) -> Claims {
    let mut claims = Claims::EMPTY;
    claims.reset();
    for (seq, offset) in numbers {
        claims.list.push(Claim::new(*seq, *offset)).unwrap();
    }
    claims
}

#[test]
fn claims_are_sorted_by_their_number() {
    for order in [[3, 1, 2], [3, 2, 1], [1, 2, 3], [2, 3, 1], [2, 1, 3], [1, 3, 2]] {
        let mut claims = claims(&order.map(|seq| (seq, 0)));
        claims.sort();
        let sorted: Vec<u64> = claims.list.iter().map(|claim| claim.seq).collect();
        assert_eq!(sorted, [1, 2, 3], "{order:?}");
    }
}

#[test]
fn each_claim_has_its_own_offset_and_an_unknown_one_none() {
    let claims = claims(&[(1, 10), (2, 20)]);
    assert_eq!([1, 2, 3].map(|seq| claims.offset_of(seq)), [10, 20, 0]);
    assert_eq!((claims.len(), claims.is_empty(), claims.next_seq()), (2, false, 1));
}

/// Returns when the ingest is due, with room in the queue and with a full queue.
fn due(service: &TestService) -> (Option<Instant>, Option<Instant>) {
    let claims = &service.core.spool.claims;
    (claims.next_deadline(service.now, false), claims.next_deadline(service.now, true))
}

#[test]
fn the_service_wakes_for_what_can_be_claimed_read_or_closed_and_nothing_else() {
    let (mut disk, mut service) = service();
    service.now = at(1000);
    assert_eq!(due(&service), (Some(at(1000)), Some(at(1000))), "the queue file is looked at first of all");
    service.ingest(&mut disk).unwrap();
    assert_eq!(due(&service), (None, None), "there is none");
    let file = disk.append_to_queue("one\n");
    service.core.spool.claims.look_at_queue();
    assert!(!service.core.spool.claims.wants_reading());
    assert_eq!(service.ingest(&mut disk), Ok(1));
    service.commit(&mut disk).unwrap();
    assert!(!service.core.spool.claims.wants_reading());
    let next = at(1000) + CLAIM_EVERY;
    assert_eq!(due(&service), (Some(next), Some(next)), "it may be there again");
    service.now = next;
    service.ingest(&mut disk).unwrap();
    let quiet = at(1000) + CLAIM_QUIET;
    assert_eq!(due(&service), (Some(quiet), None), "a full queue closes no claim");
    disk.append_to(file, "two\n");
    service.core.spool.claims.look_at_claims();
    assert!(service.core.spool.claims.wants_reading());
    assert_eq!(due(&service), (None, None), "what is to be read at once is not due");
    assert_eq!(service.ingest(&mut disk), Ok(1));
    service.now = next + CLAIM_QUIET;
    service.ingest(&mut disk).unwrap();
    assert!(service.core.spool.claims.wants_commit());
    assert_eq!(due(&service), (None, None), "it is closed with the next commit");
    service.commit(&mut disk).unwrap();
    assert_eq!((due(&service), disk.claims()), ((None, None), 0));
}

#[test]
fn an_old_queue_file_is_left_when_it_was_claimed_once_more() {
    let (mut disk, mut service) = service();
    service.ingest(&mut disk).unwrap();
    service.now = at(0) + CLAIM_QUIET;
    disk.append_to_queue("last");
    service.core.spool.claims.leave_queue();
    assert!(!service.core.spool.claims.leaves_queue_now());
    service.ingest(&mut disk).unwrap();
    assert!(!service.core.spool.claims.leaves_queue_now(), "its claim is open");
    // A line that comes into it now is not taken.
    disk.append_to_queue("late\n");
    service.core.spool.claims.look_at_queue();
    service.now += CLAIM_EVERY;
    service.ingest(&mut disk).unwrap();
    assert_eq!((service.core.spool.waiting(), disk.claims()), (1, 1));
    service.commit(&mut disk).unwrap();
    assert!(service.core.spool.claims.leaves_queue_now());
    assert!(!service.core.spool.claims.leaves_queue_now(), "once");
    assert_eq!(service.run_to_the_end(&mut disk), ["last", "late"]);
}

#[test]
fn a_claim_that_is_quiet_does_not_hold_up_those_behind_it() {
    let (mut disk, mut service) = service();
    for line in ["one\n", "two\n"] {
        disk.append_to_queue(line);
        service.core.spool.claims.look_at_queue();
        assert_eq!(service.ingest(&mut disk), Ok(1));
        service.commit(&mut disk).unwrap();
        service.now += CLAIM_EVERY;
    }
    assert_eq!(disk.claims(), 2);
}

#[test]
fn a_full_queue_closes_no_claim() {
    let rules = SpoolRules { queue_max: 1, ..RULES };
    for (text, jobs) in [("a\n\nb", &["a", "b"][..]), ("a\n", &["a"])] {
        let (mut disk, mut service) = service();
        disk.append_to_queue(text);
        for now in [at(0), at(0) + CLAIM_QUIET, at(0) + CLAIM_QUIET * 2] {
            service.core.spool.ingest(&mut disk, &mut service.scratch, &rules, now, &mut |_| {}).unwrap();
            assert!(!service.core.spool.claims.wants_commit());
            service.commit(&mut disk).unwrap();
            assert_eq!((service.core.spool.waiting(), disk.claims()), (1, 1));
        }
        assert_eq!(service.run_to_the_end(&mut disk), jobs);
    }
}

#[test]
fn a_service_that_takes_no_new_jobs_leaves_the_queue_file_alone_and_reads_its_claims() {
    let (mut disk, mut service) = service();
    let file = disk.append_to_queue("one\n");
    assert_eq!(service.ingest(&mut disk), Ok(1));
    service.core.spool.claims.pause();
    disk.append_to(file, "two\n");
    disk.append_to_queue("late\n");
    service.now += CLAIM_EVERY;
    service.core.spool.claims.look_at_queue();
    service.core.spool.claims.look_at_claims();
    assert_eq!(service.ingest(&mut disk), Ok(1));
    assert_eq!((service.core.spool.claims.len(), disk.claims()), (1, 1));
    assert_eq!(service.run_to_the_end(&mut disk), ["one", "two"]);
}
