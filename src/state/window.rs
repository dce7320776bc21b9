//! The jobs in memory: the oldest that have not ended, in the journal's order.
//!
//! ```text
//!            start          started          ended well
//! Waiting ─────────▶ Starting ─────▶ Running ──────────▶ Ended(Done) ──▶ gone
//!    ▲  ▲                              │ failed ───────▶ Ended(Fail) ──▶ Delayed
//!    │  └──── orderly stop ◀───────────┤ for good ─────▶ Ended(Dead) ──▶ gone
//!    └──────────────── due ── Delayed ◀┘
//! ```
//!
//! A cancelled job leaves at once. If it runs, it stays as `Cancelled`, which is already in
//! the journal, until its handler has ended.
//!
//! An `Ended` or `Starting` slot has a pending record, and changes its state when that is
//! written. So a full disk delays jobs, and loses none.

use crate::limits::WINDOW_JOBS;
use crate::proto::attributes::HandlerKind;
use crate::util::time::{Duration, Instant};
use heapless::Vec;

/// How a job's attempt ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(Hash))]
pub enum AttemptOutcome {
    /// Exit status 0.
    Success,
    /// Another exit status.
    Code(u8),
    /// Killed by a signal.
    Signal(u8),
    /// The handler could not be started.
    NotStarted,
    /// The handler exceeded `job_timeout`.
    TimedOut,
}

impl AttemptOutcome {
    /// Returns two bytes for the journal.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 2] {
        match self {
            Self::Success => [0, 0],
            Self::Code(code) => [0, code],
            Self::Signal(signal) => [1, signal],
            Self::NotStarted => [2, 0],
            Self::TimedOut => [3, 0],
        }
    }

    /// Parses the bytes of [`AttemptOutcome::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; 2]) -> Self {
        match bytes {
            [0, 0] => Self::Success,
            [0, code] => Self::Code(code),
            [1, signal] => Self::Signal(signal),
            [3, _] => Self::TimedOut,
            _ => Self::NotStarted,
        }
    }

    /// Returns the status that a shell would show: 128+N for a signal.
    #[must_use]
    pub fn exit_status(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Code(code) => code,
            Self::Signal(signal) => signal.saturating_add(128),
            Self::NotStarted => 127,
            Self::TimedOut => 143,
        }
    }
}

/// The pending record of an attempt that ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(Hash))]
pub enum AttemptEnd {
    /// The job has ended.
    Done(AttemptOutcome),
    /// There will be another attempt, after this wait.
    Fail(Duration),
    /// There will be none.
    Dead(AttemptOutcome),
    /// The job was stopped with the service; the attempt does not count.
    Requeued,
    /// The job was stopped with the service. The attempt counts, because too many stops in a row
    /// came soon after its start.
    RequeuedCounted,
    /// The job was cancelled before. That is in the journal, so no record is pending.
    Cancelled,
}

/// Where a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(Hash))]
pub enum JobState {
    /// The job can be started.
    Waiting,
    /// The job can be started from this time on.
    Delayed(Instant),
    /// The job was dequeued; its start is not yet in the journal.
    Starting,
    /// The handler of the job runs.
    Running,
    /// The attempt ended; that is not yet in the journal.
    Ended(AttemptEnd),
    /// The job has ended in the journal, but its handler still runs.
    Cancelled,
}

/// A job in memory: everything but its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(Hash))]
pub struct Slot {
    /// Its id.
    pub id: u64,
    /// Where its live record is in the journal.
    pub offset: u64,
    /// Size of the live record.
    pub size: u16,
    /// Attempts that were started.
    pub attempt: u16,
    /// The handler for which it was queued.
    pub handler: HandlerKind,
    /// How often in a row it was given back soon after its start.
    pub given_back: u8,
    /// How many of its attempts in a row were cut off by a death of the service.
    pub cut_off: u8,
    /// Where it stands.
    pub state: JobState,
}

/// The slots, oldest first.
#[derive(Default)]
#[cfg_attr(test, derive(Clone, Hash))]
pub struct Window {
    slots: Vec<Slot, WINDOW_JOBS>,
}

impl Window {
    /// Returns an empty window.
    #[must_use]
    pub const fn new() -> Self {
        Self { slots: Vec::new() }
    }

    /// Forgets all slots.
    pub fn clear(&mut self) {
        self.slots.clear();
    }

    /// Returns all slots, oldest first.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Returns all slots, to be changed.
    pub fn slots_mut(&mut self) -> &mut [Slot] {
        &mut self.slots
    }

    /// Appends a job. Returns true if there was room.
    pub fn push(&mut self, slot: Slot) -> bool {
        self.slots.push(slot).is_ok()
    }

    /// Returns true if there is no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.slots.is_full()
    }

    /// Returns the job with this id.
    pub fn get_mut(&mut self, id: u64) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.id == id)
    }

    /// Returns the job with this id.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.id == id)
    }

    /// Takes a job out.
    pub fn remove(&mut self, id: u64) -> Option<Slot> {
        let index = self.slots.iter().position(|slot| slot.id == id)?;
        Some(self.slots.remove(index))
    }

    /// Keeps only the slots that `keep` wants.
    pub fn retain(&mut self, keep: impl FnMut(&Slot) -> bool) {
        self.slots.retain(keep);
    }

    /// Returns the oldest job that can be started now and is not `held`.
    #[must_use]
    pub fn startable(&self, now: Instant, held: &dyn Fn(u64) -> bool) -> Option<u64> {
        self.slots.iter().find(|slot| slot.is_startable(now) && !held(slot.id)).map(|slot| slot.id)
    }

    /// Returns when the next delayed job that is not `held` is due.
    #[must_use]
    pub fn next_deadline(&self, held: &dyn Fn(u64) -> bool) -> Option<Instant> {
        let due = |slot: &Slot| match slot.state {
            JobState::Delayed(due) if !held(slot.id) => Some(due),
            _ => None,
        };
        self.slots.iter().filter_map(due).min()
    }

    /// Returns the job with the longest delay, if the window is full and no job in it can be
    /// started or runs. That job keeps others out.
    #[must_use]
    pub fn blocker(&self, now: Instant) -> Option<u64> {
        let delayed = |slot: &Slot| matches!(slot.state, JobState::Delayed(due) if !due.is_due(now));
        if !self.is_full() || !self.slots.iter().all(delayed) {
            return None;
        }
        let due = |slot: &&Slot| if let JobState::Delayed(due) = slot.state { due } else { Instant::BOOT };
        self.slots.iter().max_by_key(due).map(|slot| slot.id)
    }

    /// Returns how many slots are in a state that `wanted` names.
    #[must_use]
    pub fn count(&self, wanted: impl Fn(&JobState) -> bool) -> u32 {
        let count = self.slots.iter().filter(|slot| wanted(&slot.state)).count();
        u32::try_from(count).unwrap_or(0)
    }

    /// Returns true if some slot has a pending record.
    #[must_use]
    pub fn has_pending_records(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot.state, JobState::Starting | JobState::Ended(_)))
    }
}

impl Slot {
    fn is_startable(&self, now: Instant) -> bool {
        match self.state {
            JobState::Waiting => true,
            JobState::Delayed(due) => due.is_due(now),
            JobState::Starting | JobState::Running | JobState::Ended(_) | JobState::Cancelled => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    fn slot(id: u64, state: JobState) -> Slot {
        let (handler, given_back) = (HandlerKind::Unknown, 0);
        Slot { id, offset: id * 100, size: 50, attempt: 0, handler, given_back, cut_off: 0, state }
    }

    #[test]
    fn the_oldest_startable_job_is_first() {
        let mut window = Window::new();
        for (id, state) in [
            (1, JobState::Running),
            (2, JobState::Delayed(at(50))),
            (3, JobState::Starting),
            (4, JobState::Ended(AttemptEnd::Requeued)),
            (5, JobState::Waiting),
        ] {
            assert!(window.push(slot(id, state)));
        }
        assert_eq!(window.startable(at(49), &|_| false), Some(5));
        assert_eq!(window.startable(at(50), &|_| false), Some(2));
        assert_eq!(window.startable(at(50), &|id| id == 2), Some(5), "what is held is passed over");
        assert_eq!(window.next_deadline(&|_| false), Some(at(50)));
        assert_eq!(window.next_deadline(&|id| id == 2), None);
        assert!(window.has_pending_records());
    }

    #[test]
    fn a_window_full_of_delayed_jobs_names_the_one_to_move_out_of_the_way() {
        let mut window = Window::new();
        for id in 0..WINDOW_JOBS as u64 {
            assert_eq!(window.blocker(at(0)), None);
            assert!(window.push(slot(id, JobState::Delayed(at(100 + id)))));
        }
        assert!(!window.push(slot(99, JobState::Waiting)));
        assert_eq!(window.blocker(at(0)), Some(WINDOW_JOBS as u64 - 1));
        assert_eq!(window.blocker(at(100)), None, "one of them is due");
        window.get_mut(3).unwrap().state = JobState::Running;
        assert_eq!(window.blocker(at(0)), None, "a running job will make room");
    }

    #[test]
    fn outcomes_survive_the_journal() {
        for outcome in [
            AttemptOutcome::Success,
            AttemptOutcome::Code(1),
            AttemptOutcome::Code(255),
            AttemptOutcome::Signal(9),
            AttemptOutcome::NotStarted,
            AttemptOutcome::TimedOut,
        ] {
            assert_eq!(AttemptOutcome::from_bytes(outcome.to_bytes()), outcome);
        }
        assert_eq!(AttemptOutcome::Signal(9).exit_status(), 137);
    }
}
