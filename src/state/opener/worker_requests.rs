//! The requests that the worker of the opener has sent to the main process, and the
//! moments at which it shows that it is alive.
//!
//! | a client's request \ event | sent to main | answer for this client | answer for another client | client closed |
//! | --- | --- | --- | --- | --- |
//! | none | waiting | dropped | dropped | none |
//! | waiting | - | delivered, then the client is closed | dropped | none, and a later answer is dropped |

use crate::limits::CLIENTS_MAX;
use crate::proto::opener::RequestId;
use crate::util::time::{Duration, Instant};

/// See the module's documentation.
pub struct WorkerRequests {
    /// The serial of the client at each slot whose request is with the main process.
    waiting: [Option<u32>; CLIENTS_MAX],
    /// The longest time between two signs of life.
    interval: Duration,
    /// When the next sign of life is due.
    alive_at: Instant,
}

impl WorkerRequests {
    /// Creates the state without requests. The first sign of life is due at once.
    #[must_use]
    pub const fn new(interval: Duration) -> Self {
        Self { waiting: [None; CLIENTS_MAX], interval, alive_at: Instant::BOOT }
    }

    /// Returns true if the client at `slot` waits for its answer.
    #[must_use]
    pub fn is_waiting(&self, slot: usize) -> bool {
        self.waiting.get(slot).is_some_and(Option::is_some)
    }

    /// Returns true if no client waits for an answer.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.waiting == [None; CLIENTS_MAX]
    }

    /// Returns true if a new client can get a slot: a free one, or that of a client that has
    /// not asked yet.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.waiting.contains(&None)
    }

    /// Returns the slot of the client that waits for this answer; `None` if it has left.
    #[must_use]
    pub fn slot_of(&self, request_id: RequestId) -> Option<usize> {
        let slot = usize::from(request_id.slot);
        (*self.waiting.get(slot)? == Some(request_id.serial)).then_some(slot)
    }

    /// Records that a request was sent at `now`, which is a sign of life, too.
    pub fn on_sent(&mut self, request_id: RequestId, now: Instant) {
        let slot = self.waiting.get_mut(usize::from(request_id.slot));
        slot.into_iter().for_each(|slot| *slot = Some(request_id.serial));
        self.alive_at = now + self.interval;
    }

    /// Records that the client at `slot` has left or was answered.
    pub fn on_closed(&mut self, slot: usize) {
        self.waiting.get_mut(slot).into_iter().for_each(|slot| *slot = None);
    }

    /// Sets a new interval. The next sign of life is due at once.
    pub fn set_interval(&mut self, interval: Duration) {
        (self.interval, self.alive_at) = (interval, Instant::BOOT);
    }

    /// Returns when the next sign of life is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        Some(self.alive_at)
    }

    /// Returns true if a sign of life is due at `now`, and schedules the next one.
    pub fn poll(&mut self, now: Instant) -> bool {
        let due = self.alive_at.is_due(now);
        if due {
            self.alive_at = now + self.interval;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    fn id(slot: u8, serial: u32) -> RequestId {
        RequestId { slot, serial }
    }

    #[test]
    fn an_answer_reaches_the_client_that_waits_for_it_and_no_later_one() {
        let mut requests = WorkerRequests::new(Duration::from_ms(1000));
        requests.on_sent(id(3, 7), at(1));
        assert!(requests.is_waiting(3) && !requests.is_waiting(2) && !requests.is_idle());
        assert_eq!(requests.slot_of(id(3, 7)), Some(3));
        for other in [id(3, 8), id(2, 7), id(200, 7)] {
            assert_eq!(requests.slot_of(other), None, "{other:?}");
        }
        requests.on_closed(3);
        assert!(requests.is_idle());
        assert_eq!(requests.slot_of(id(3, 7)), None);
        // The next client at this slot waits for another answer.
        requests.on_sent(id(3, 9), at(2));
        assert_eq!((requests.slot_of(id(3, 7)), requests.slot_of(id(3, 9))), (None, Some(3)));
        requests.on_sent(id(200, 1), at(2));
        requests.on_closed(200);
    }

    #[test]
    fn there_is_room_while_one_client_has_not_asked() {
        let mut requests = WorkerRequests::new(Duration::from_ms(1000));
        for slot in 0..CLIENTS_MAX {
            assert!(requests.has_room());
            requests.on_sent(id(u8::try_from(slot).unwrap(), 1), at(1));
        }
        assert!(!requests.has_room());
        requests.on_closed(5);
        assert!(requests.has_room());
    }

    #[test]
    fn a_sign_of_life_is_due_at_once_and_then_an_interval_after_the_last_message() {
        let mut requests = WorkerRequests::new(Duration::from_ms(1000));
        assert_eq!((requests.poll(at(50)), requests.poll(at(50))), (true, false));
        assert_eq!(requests.next_deadline(), Some(at(1050)));
        requests.on_sent(id(0, 1), at(500));
        assert_eq!((requests.poll(at(1499)), requests.poll(at(1500))), (false, true));
        requests.set_interval(Duration::from_ms(100));
        assert_eq!((requests.poll(at(1501)), requests.next_deadline()), (true, Some(at(1601))));
    }
}
