//! The decisions about clients, in virtual time.

use super::*;
use crate::util::time::Duration;
use heapless::Vec;

const IDLE: u64 = CLIENT_IDLE.as_ms();

fn at(ms: u64) -> Instant {
    Instant::from_ms(ms)
}

fn never_busy(_: usize) -> bool {
    false
}

/// A user who is not root.
const UID: u32 = 1000;

/// Returns the client that goes for a new one of root, of the service, or of another user.
fn evicted(
    clients: &Clients,
    access: Access,
    now: Instant,
    is_busy: &dyn Fn(usize) -> bool,
) -> Option<usize> {
    match clients.admission(access, 0, now, is_busy) {
        Admission::Evict(slot) => Some(slot),
        Admission::Free | Admission::Full => None,
    }
}

/// Fills all slots with clients that came one millisecond after the other, from 1 on.
fn full(access: Access) -> Clients {
    let mut clients = Clients::EMPTY;
    for slot in 0..CLIENTS_MAX {
        assert_eq!(clients.add(access, UID + slot as u32, at(slot as u64 + 1)), Some(slot));
    }
    clients
}

fn ask(clients: &mut Clients, slot: usize, ms: u64) {
    clients.get_mut(slot).unwrap().received(10, at(ms));
}

#[test]
fn a_slot_stays_the_same_and_is_used_again() {
    let mut clients = Clients::EMPTY;
    assert_eq!((clients.count(), clients.get(0).is_some()), (0, false));
    for slot in 0..3 {
        assert_eq!(clients.add(Access::Guest, UID, at(5)), Some(slot));
    }
    clients.get_mut(1).unwrap().more = true;
    clients.remove(1);
    assert_eq!((clients.count(), clients.get(1).is_some(), clients.get(2).is_some()), (2, false, true));
    assert_eq!(clients.add(Access::Owner, UID, at(6)), Some(1));
    let client = clients.get(1).unwrap();
    assert_eq!((client.serial, client.access, client.more), (4, Access::Owner, false));
    assert!(clients.get(CLIENTS_MAX).is_none());
    let mut clients = full(Access::Guest);
    assert_eq!(clients.add(Access::Owner, UID, at(50)), None);
    assert_eq!(clients.count(), CLIENTS_MAX);
}

#[test]
fn each_turn_serves_all_slots_and_begins_with_another_one() {
    let mut clients = full(Access::Guest);
    let mut firsts = Vec::<usize, CLIENTS_MAX>::new();
    for _ in 0..CLIENTS_MAX {
        let round: Vec<usize, CLIENTS_MAX> = clients.next_round().collect();
        firsts.push(round[0]).unwrap();
        let mut sorted = round;
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..CLIENTS_MAX));
    }
    firsts.sort_unstable();
    assert!(firsts.iter().copied().eq(0..CLIENTS_MAX));
}

// ----- eviction ---------------------------------------------------------

#[test]
fn nobody_has_to_go_while_there_is_a_slot() {
    let mut clients = full(Access::Guest);
    clients.remove(3);
    assert_eq!(evicted(&clients, Access::Owner, at(IDLE * 2), &never_busy), None);
    assert_eq!(clients.longest_connected(&never_busy), None);
}

#[test]
fn the_oldest_that_has_asked_for_nothing_goes_first() {
    let mut clients = full(Access::Guest);
    assert_eq!(evicted(&clients, Access::Guest, at(100), &never_busy), Some(0));
    ask(&mut clients, 0, 20);
    assert_eq!(evicted(&clients, Access::Guest, at(100), &never_busy), Some(1));
    assert_eq!(evicted(&clients, Access::Guest, at(100), &|slot| slot < 5), Some(5));
    assert_eq!(evicted(&clients, Access::Guest, at(100), &|_| true), None);
    assert_eq!(evicted(&clients, Access::Denied, at(100), &never_busy), None, "of lower rights");
}

#[test]
fn a_client_that_asked_keeps_its_slot_until_it_is_idle_for_long() {
    let mut clients = full(Access::Guest);
    for slot in 0..CLIENTS_MAX {
        ask(&mut clients, slot, 100 + slot as u64);
    }
    let goes = |clients: &Clients, ms| evicted(clients, Access::Guest, at(ms), &never_busy);
    assert_eq!(goes(&clients, 100 + IDLE - 1), None);
    assert_eq!(goes(&clients, 100 + IDLE), Some(0));
    clients.get_mut(0).unwrap().sent(at(100 + IDLE));
    assert_eq!(goes(&clients, 100 + IDLE), None, "it was sent something a moment ago");
    assert_eq!(goes(&clients, 101 + IDLE), Some(1));
    clients.get_mut(1).unwrap().more = true;
    assert_eq!(goes(&clients, 101 + IDLE), None, "its requests wait");
    assert_eq!(goes(&clients, 102 + IDLE), Some(2));
    clients.get_mut(2).unwrap().queued(5, at(102));
    assert_eq!(goes(&clients, 102 + IDLE), None, "its answers wait");
}

#[test]
fn an_owner_takes_the_slot_of_any_other_user_but_of_no_owner() {
    let mut clients = full(Access::Guest);
    for slot in 0..CLIENTS_MAX {
        ask(&mut clients, slot, 100 + slot as u64);
    }
    assert_eq!(evicted(&clients, Access::Owner, at(200), &|_| true), Some(0));
    clients.get_mut(0).unwrap().access = Access::Owner;
    assert_eq!(evicted(&clients, Access::Owner, at(200), &|_| true), Some(1));
    for slot in 0..CLIENTS_MAX {
        clients.get_mut(slot).unwrap().access = Access::Owner;
    }
    assert_eq!(evicted(&clients, Access::Owner, at(200), &never_busy), None);
    assert_eq!(evicted(&clients, Access::Owner, at(100 + IDLE), &never_busy), Some(0));
    assert_eq!(evicted(&clients, Access::Guest, at(100 + IDLE), &never_busy), None);
}

#[test]
fn clients_of_this_turn_can_ask_but_a_flood_does_not_keep_an_owner_out() {
    let mut clients = Clients::EMPTY;
    for _ in 0..CLIENTS_MAX {
        clients.add(Access::Guest, UID, at(7)).unwrap();
    }
    assert_eq!(evicted(&clients, Access::Guest, at(7), &never_busy), None);
    assert_eq!(evicted(&clients, Access::Guest, at(8), &never_busy), Some(0));
    assert_eq!(evicted(&clients, Access::Owner, at(7), &never_busy), Some(0));
    ask(&mut clients, 9, 7);
    assert_eq!(evicted(&clients, Access::Owner, at(7), &never_busy), Some(9), "it had its chance");
}

#[test]
fn of_the_unauthorized_the_oldest_goes_and_in_a_flood_any() {
    let mut clients = Clients::EMPTY;
    let goes = |clients: &Clients, ms| evicted(clients, Access::Denied, at(ms), &never_busy);
    for count in 0..UNAUTHORIZED_MAX + ACCEPT_TURN {
        assert_eq!(goes(&clients, 10), None, "clients of this turn can ask");
        assert_eq!(goes(&clients, 11), (count >= UNAUTHORIZED_MAX).then_some(0));
        clients.add(Access::Denied, UID, at(10)).unwrap();
    }
    assert_eq!(goes(&clients, 10), Some(0), "a flood of one millisecond");
    let for_others = evicted(&clients, Access::Guest, at(11), &never_busy);
    assert_eq!(for_others, None, "there is room for others");
}

#[test]
fn where_no_client_is_ranked_the_one_that_is_not_busy_and_came_first_goes() {
    let mut clients = full(Access::Guest);
    assert_eq!(clients.longest_connected(&never_busy), Some(0));
    ask(&mut clients, 0, 100);
    assert_eq!(clients.longest_connected(&never_busy), Some(0), "half a request does not help it");
    assert_eq!(clients.longest_connected(&|slot| slot < 2), Some(2));
    assert_eq!(clients.longest_connected(&|_| true), None);
    clients.remove(0);
    assert_eq!(clients.add(Access::Guest, UID, at(100)), Some(0));
    assert_eq!(clients.longest_connected(&never_busy), Some(1));
    // The serials begin again at 0 after 2^32 clients.
    clients.serial = u32::MAX;
    clients.remove(5);
    clients.add(Access::Guest, UID, at(100)).unwrap();
    for (slot, serial) in [(0, u32::MAX - 1), (1, u32::MAX)] {
        clients.get_mut(slot).unwrap().serial = serial;
    }
    assert_eq!(clients.get(5).unwrap().serial, 0);
    assert_eq!(clients.longest_connected(&|slot| !matches!(slot, 0 | 1 | 5)), Some(0));
}

// ----- input and output -------------------------------------------------

#[test]
fn nothing_is_received_while_requests_are_kept_or_after_the_end() {
    let mut clients = Clients::EMPTY;
    clients.add(Access::Guest, UID, at(1)).unwrap();
    let client = clients.get_mut(0).unwrap();
    assert!(client.can_receive() && !client.has_work());
    client.kept(30, true, true, at(2));
    assert!(!client.can_receive() && client.has_work());
    client.kept(CLIENT_INPUT_BYTES, false, true, at(2));
    assert!(!client.can_receive() && !client.has_work(), "there is no room");
    client.kept(0, false, true, at(2));
    client.received(0, at(3));
    assert!(!client.can_receive() && client.has_work() && client.is_finished());
    client.queued(1, at(3));
    assert!(!client.is_finished(), "it has not taken its answer");
    client.flushed(1, at(3));
    client.kept(5, true, true, at(3));
    assert!(!client.is_finished(), "it has asked for more");
}

#[test]
fn an_incomplete_request_expires_unless_it_is_finished_in_time() {
    let mut clients = Clients::EMPTY;
    clients.add(Access::Guest, UID, at(0)).unwrap();
    assert_eq!(clients.next_deadline(), None, "an idle client may stay");
    clients.get_mut(0).unwrap().kept(5, false, false, at(10));
    assert_eq!(clients.next_deadline(), Some(at(10 + IDLE)));
    clients.get_mut(0).unwrap().kept(6, false, false, at(20));
    assert_eq!(clients.next_deadline(), Some(at(10 + IDLE)), "one byte more is no progress");
    assert_eq!(clients.expired(at(9 + IDLE)), None);
    assert_eq!(clients.expired(at(10 + IDLE)), Some(0));
    clients.get_mut(0).unwrap().kept(5, false, true, at(30));
    assert_eq!(clients.next_deadline(), Some(at(30 + IDLE)), "another request was begun");
    clients.get_mut(0).unwrap().kept(5, true, true, at(40));
    assert_eq!(clients.next_deadline(), None, "whole requests wait for the service");
    clients.get_mut(0).unwrap().skipping = true;
    clients.get_mut(0).unwrap().kept(0, false, false, at(50));
    assert_eq!(clients.next_deadline(), Some(at(50 + IDLE)), "the end of a long one is missing");
}

#[test]
fn a_client_that_takes_no_answers_expires_unless_it_takes_some() {
    let mut clients = Clients::EMPTY;
    clients.add(Access::Guest, UID, at(0)).unwrap();
    clients.get_mut(0).unwrap().queued(0, at(1));
    assert_eq!(clients.next_deadline(), None);
    clients.get_mut(0).unwrap().queued(100, at(5));
    clients.get_mut(0).unwrap().queued(100, at(6));
    assert_eq!(clients.next_deadline(), Some(at(5) + CLIENT_IDLE));
    assert_eq!(clients.get(0).map(ClientSlot::output), Some(200));
    clients.get_mut(0).unwrap().flushed(0, at(7));
    assert_eq!(clients.next_deadline(), Some(at(5) + CLIENT_IDLE), "nothing was taken");
    assert_eq!((clients.expired(at(4 + IDLE)), clients.expired(at(5 + IDLE))), (None, Some(0)));
    clients.get_mut(0).unwrap().flushed(150, at(8));
    assert_eq!(clients.next_deadline(), Some(at(8) + CLIENT_IDLE));
    clients.get_mut(0).unwrap().flushed(50, at(9));
    assert_eq!((clients.next_deadline(), clients.get(0).unwrap().is_stuck()), (None, false), "all was taken");
    clients.get_mut(0).unwrap().queued(7, at(10));
    clients.get_mut(0).unwrap().forget_output();
    assert_eq!((clients.next_deadline(), clients.get(0).unwrap().is_stuck()), (None, false));
}

#[test]
fn the_earliest_deadline_counts_and_all_that_are_due_expire() {
    let mut clients = full(Access::Guest);
    clients.get_mut(3).unwrap().kept(1, false, false, at(50));
    clients.get_mut(5).unwrap().queued(1, at(40));
    clients.get_mut(5).unwrap().kept(1, false, false, at(60));
    assert_eq!(clients.next_deadline(), Some(at(40) + CLIENT_IDLE));
    assert_eq!(clients.expired(at(40) + CLIENT_IDLE), Some(5));
    assert_eq!(clients.expired(at(50) + CLIENT_IDLE), Some(3));
    clients.remove(3);
    assert_eq!(clients.expired(at(50) + CLIENT_IDLE), Some(5));
    assert_eq!(clients.expired(at(40).minus(Duration::from_ms(1)) + CLIENT_IDLE), None);
}

#[test]
fn only_whole_lines_are_kept() {
    let mut client = ClientSlot::FREE;
    assert_eq!(client.fitting(b"one\ntwo\n"), 8);
    assert_eq!(client.fitting(b"one\ntwo"), 4);
    assert_eq!(client.fitting(b""), 0);
    client.queued(CLIENT_OUTPUT_BYTES - 7, at(0));
    assert_eq!(client.fitting(b"one\ntwo\n"), 4, "the second one does not fit");
    assert_eq!(client.fitting(b"1234567\n"), 0);
    assert_eq!(client.fitting(b"123456\n"), 7);
}
