//! Decides when a full queue is a degraded state: it has refused new jobs for longer than
//! `stale_after`, and no job has ended in that time.

use super::actions::TurnNotice;
use crate::util::time::{Duration, Instant};

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Hash))]
pub struct QueueRoom {
    /// Since when new jobs are refused and no job has ended.
    refused_since: Option<Instant>,
    /// Jobs that had ended when the queue was last looked at.
    ended: u64,
    /// Whether the state was reported.
    is_stuck: bool,
}

impl QueueRoom {
    /// There is room.
    pub(super) const FREE: Self = Self { refused_since: None, ended: 0, is_stuck: false };

    /// Returns true if new jobs have been refused for too long.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    /// Takes that a new job found no room.
    pub(super) fn refused(&mut self, now: Instant) {
        self.refused_since.get_or_insert(now);
    }

    /// Looks at the queue at the end of a turn. `room` is how many jobs are accepted, `ended`
    /// how many have ended since the start. The end of a job is progress.
    pub(super) fn update(
        &mut self,
        room: u32,
        ended: u64,
        stale_after: Duration,
        now: Instant,
    ) -> Option<TurnNotice> {
        if room > 0 {
            self.refused_since = None;
        }
        if ended != self.ended {
            self.ended = ended;
            self.refused_since = self.refused_since.map(|_| now);
        }
        let stuck = self.refused_since.is_some_and(|since| (since + stale_after).is_due(now));
        let changed = stuck != self.is_stuck;
        self.is_stuck = stuck;
        changed.then_some(if stuck { TurnNotice::QueueFull } else { TurnNotice::QueueMoves })
    }

    /// Returns when [`QueueRoom::update`] has to look again, if nothing else happens.
    pub(super) fn next_deadline(&self, stale_after: Duration) -> Option<Instant> {
        self.refused_since.filter(|_| !self.is_stuck).map(|since| since + stale_after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: Duration = Duration::from_ms(100);

    fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    #[test]
    fn a_queue_that_refuses_for_too_long_is_stuck_until_it_moves() {
        let mut queue = QueueRoom::FREE;
        assert_eq!(queue.update(0, 0, STALE, at(0)), None);
        assert_eq!(queue.next_deadline(STALE), None, "it is full, and has refused nothing");
        queue.refused(at(10));
        queue.refused(at(50));
        assert_eq!(queue.update(0, 0, STALE, at(109)), None);
        assert_eq!(queue.next_deadline(STALE), Some(at(110)));
        assert_eq!(queue.update(0, 0, STALE, at(110)), Some(TurnNotice::QueueFull));
        assert_eq!((queue.update(0, 0, STALE, at(999)), queue.next_deadline(STALE)), (None, None));
        assert_eq!(queue.update(0, 1, STALE, at(1000)), Some(TurnNotice::QueueMoves));
        assert_eq!(queue.update(0, 1, STALE, at(1100)), Some(TurnNotice::QueueFull), "no other job ended");
        assert_eq!(queue.update(1, 1, STALE, at(1101)), Some(TurnNotice::QueueMoves));
        assert_eq!((queue.is_stuck(), queue.next_deadline(STALE)), (false, None));
    }

    #[test]
    fn jobs_that_end_are_progress() {
        let mut queue = QueueRoom::FREE;
        queue.refused(at(0));
        for ended in 0..10 {
            assert_eq!(queue.update(0, ended, STALE, at(ended * 90)), None);
        }
    }
}
