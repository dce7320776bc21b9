//! Which new clients of the hub are announced, and when.
//!
//! A supervisor, or a monitor of root, finds out if a service lives by a connection whose sending
//! it ends at once: a probe, of which nothing is announced. So a client that can be a probe is
//! announced when it sends a byte, when it closes its connection, or after `PROBE_TIME`.
//!
//! ```text
//! joined ──▶ Pending ── a byte, a close, PROBE_TIME ──▶ Announced
//!               └────── only the sending has ended ───▶ Probe
//! ```

use crate::limits::CLIENTS_MAX;
use crate::util::time::{Duration, Instant};

/// Time in which a probe ends its sending. It does so with its next system call.
const PROBE_TIME: Duration = Duration::from_ms(100);

/// The announcement of one client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum JoinState {
    /// The client was announced, or there is none.
    Announced,
    /// The client can be a probe.
    Pending,
    /// The client is a probe.
    Probe,
}

/// See the module's documentation.
pub struct Joins {
    states: [JoinState; CLIENTS_MAX],
    /// When the clients that are pending are no probes.
    due: Option<Instant>,
}

impl Joins {
    /// There are no clients.
    pub const NONE: Self = Self { states: [JoinState::Announced; CLIENTS_MAX], due: None };

    /// Records a new client. Returns true if it is to be announced at once, because its user's
    /// connections are no probes.
    pub fn joined(&mut self, slot: usize, can_probe: bool, now: Instant) -> bool {
        let state = if can_probe { JoinState::Pending } else { JoinState::Announced };
        self.states.get_mut(slot).into_iter().for_each(|entry| *entry = state);
        if can_probe {
            self.due = Some(now + PROBE_TIME);
        }
        !can_probe
    }

    /// Records that a client is no probe. Returns true if it is to be announced.
    pub fn is_client(&mut self, slot: usize) -> bool {
        let pending = self.states.get_mut(slot).filter(|state| **state == JoinState::Pending);
        pending.map(|state| *state = JoinState::Announced).is_some()
    }

    /// Records that a client has ended its sending without a byte, and is still connected.
    pub fn sending_ended(&mut self, slot: usize) {
        let pending = self.states.get_mut(slot).filter(|state| **state == JoinState::Pending);
        pending.into_iter().for_each(|state| *state = JoinState::Probe);
    }

    /// Returns true if the client at `slot` is a probe.
    #[must_use]
    pub fn is_probe(&self, slot: usize) -> bool {
        self.states.get(slot) == Some(&JoinState::Probe)
    }

    /// Returns a client that is to be announced at `now`, because it is no probe.
    pub fn next_due(&mut self, now: Instant) -> Option<usize> {
        if !self.due.is_some_and(|due| due.is_due(now)) {
            return None;
        }
        let slot = self.states.iter().position(|state| *state == JoinState::Pending);
        match slot {
            Some(slot) => self.is_client(slot).then_some(slot),
            None => {
                self.due = None;
                None
            }
        }
    }

    /// Returns when a client may have to be announced.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    #[test]
    fn a_client_is_announced_once_and_a_probe_never() {
        let mut joins = Joins::NONE;
        assert!(joins.joined(0, false, at(0)), "no probe comes from this user");
        assert_eq!((joins.is_client(0), joins.next_deadline()), (false, None));
        assert!(!joins.joined(1, true, at(1000)));
        assert_eq!((joins.is_client(1), joins.is_client(1), joins.is_probe(1)), (true, false, false));
        assert!(!joins.joined(2, true, at(1000)));
        joins.sending_ended(2);
        assert_eq!((joins.is_probe(2), joins.is_client(2)), (true, false));
        assert_eq!((joins.next_due(at(9000)), joins.next_deadline()), (None, None));
        joins.sending_ended(1);
        assert!(!joins.is_probe(1), "it was announced");
        assert!(joins.joined(2, false, at(9000)) && !joins.is_probe(2), "another client");
        assert!(!joins.is_client(CLIENTS_MAX) && !joins.is_probe(CLIENTS_MAX));
    }

    #[test]
    fn a_client_that_says_nothing_is_announced_after_a_while() {
        let mut joins = Joins::NONE;
        for (slot, ms) in [(3, 1000), (5, 1050)] {
            assert!(!joins.joined(slot, true, at(ms)));
        }
        let due = joins.next_deadline().unwrap();
        assert_eq!((due, joins.next_due(at(1149))), (at(1150), None));
        assert_eq!([joins.next_due(due), joins.next_due(due), joins.next_due(due)], [Some(3), Some(5), None]);
        assert_eq!(joins.next_deadline(), None);
    }
}
