//! The process groups that outlive the leader of their job, and those that an earlier run of
//! the service left: when each gets a signal, and which jobs wait for them.
//!
//! ```text
//! kept at the end of a job ─▶ Waiting ──2 s──▶ TERM ─▶ Terminating ──2 s──▶ KILL ─▶ Killed
//! found in the note ────────────────────────────────────────────────────────▶ KILL ─▶ Killed
//! ```
//!
//! The service looks before each signal if the group is still there, because its number may
//! belong to another group by then. A stop, a cancel and `job_timeout` skip the first wait. A
//! group that is there two seconds after KILL is stuck.

use super::timers::SignalKind;
use crate::limits::{GROUPS_KEPT_MAX, GROUPS_NOTED_MAX, KILL_PATIENCE, LEFTOVER_WAIT};
use crate::proto::leftovers::NotedGroup;
use crate::util::time::{Duration, Instant, earliest};
use heapless::Vec;

/// The shortest and the longest time between two looks at a group that got KILL.
const LOOK_MIN: Duration = Duration::from_ms(20);
const LOOK_MAX: Duration = Duration::from_ms(1000);
/// Time that a group of an earlier run has to end after KILL before later jobs are started
/// without the job of that group, so that the order of the jobs stays.
const SETTLE_TIME: Duration = Duration::from_ms(500);

/// The last signal to a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(Hash))]
enum LeftoverPhase {
    /// Nothing; a daemon on its way to a session of its own needs the time.
    Waiting,
    /// TERM, or nothing if KILL is due at once.
    Terminating,
    /// KILL, at this time.
    Killed(Instant),
}

#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Hash))]
struct Leftover {
    group: NotedGroup,
    /// An earlier run of the service has left the group.
    inherited: bool,
    phase: LeftoverPhase,
    /// When the next signal or look is due.
    due: Instant,
    stuck: bool,
}

/// A look at a group that is due, and the signal that the group gets if it is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupCheck {
    /// The group.
    pub group: NotedGroup,
    /// An earlier run of the service has left the group.
    pub inherited: bool,
    /// The signal.
    pub signal: Option<SignalKind>,
}

/// A change that the service logs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LeftoverNotice {
    /// The group cannot be ended, and its job waits.
    Stuck,
    /// A group that could not be ended is gone.
    Freed,
}

/// See the module's documentation.
#[cfg_attr(test, derive(Clone, Hash))]
pub struct Leftovers {
    groups: Vec<Leftover, GROUPS_NOTED_MAX>,
}

impl Leftovers {
    /// No group.
    pub const NONE: Self = Self { groups: Vec::new() };

    /// Returns the groups, for the note.
    pub fn groups(&self) -> impl Iterator<Item = &NotedGroup> {
        self.groups.iter().map(|leftover| &leftover.group)
    }

    /// Returns the groups, each with whether an earlier run of the service has left it.
    #[must_use]
    pub fn copy(&self) -> Vec<(NotedGroup, bool), GROUPS_NOTED_MAX> {
        self.groups.iter().map(|leftover| (leftover.group, leftover.inherited)).collect()
    }

    /// Returns true if there is no group.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Returns true if one more group would push out the oldest.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let own = self.groups.iter().filter(|leftover| !leftover.inherited).count();
        self.groups.is_full() || own >= GROUPS_KEPT_MAX
    }

    /// Returns true if no group is there whose end the service waits for when it stops.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.groups.iter().all(|leftover| leftover.stuck)
    }

    /// Returns true if a group cannot be ended.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.groups.iter().any(|leftover| leftover.stuck)
    }

    /// Returns true if job `id` waits for the end of a group.
    #[must_use]
    pub fn hold(&self, id: u64) -> bool {
        self.groups.iter().any(|leftover| leftover.group.job == id)
    }

    /// Returns true if a group of an earlier run got KILL just now, so that its job can be
    /// started in a moment.
    #[must_use]
    pub fn are_settling(&self, now: Instant) -> bool {
        self.groups.iter().any(|leftover| match leftover.phase {
            LeftoverPhase::Waiting => false,
            LeftoverPhase::Terminating => leftover.inherited,
            LeftoverPhase::Killed(at) => leftover.inherited && !now.since(at).exceeds(SETTLE_TIME),
        })
    }

    /// Keeps a group whose leader was reaped. If it is to end now, it gets TERM at once. Returns
    /// the oldest group if there are too many: it is kept no longer, and gets KILL.
    pub fn keep(&mut self, group: NotedGroup, at_once: bool, now: Instant) -> Option<NotedGroup> {
        let due = if at_once { now } else { now + LEFTOVER_WAIT };
        let oldest = self.groups.iter().find(|leftover| self.is_full() && !leftover.inherited);
        let oldest = oldest.map(|leftover| leftover.group);
        if let Some(oldest) = oldest {
            self.remove(oldest.number);
        }
        let leftover = Leftover { group, inherited: false, phase: LeftoverPhase::Waiting, due, stuck: false };
        match self.groups.push(leftover) {
            Ok(()) => oldest,
            Err(leftover) => Some(leftover.group),
        }
    }

    /// Takes a group that an earlier run of the service has left. It gets KILL at once.
    pub fn inherit(&mut self, group: NotedGroup, now: Instant) {
        let phase = LeftoverPhase::Terminating;
        let _ = self.groups.push(Leftover { group, inherited: true, phase, due: now, stuck: false });
    }

    /// Removes a group because a new process has its number, or because it is gone. Returns true
    /// if it was stuck.
    pub fn remove(&mut self, number: u32) -> bool {
        let Some(index) = self.groups.iter().position(|leftover| leftover.group.number == number) else {
            return false;
        };
        self.groups.remove(index).stuck
    }

    /// Ends the groups of job `id` now, because it was cancelled. Those that cannot be ended are
    /// waited for no longer.
    pub fn on_cancel(&mut self, id: u64, now: Instant) {
        self.groups.retain(|leftover| leftover.group.job != id || !leftover.stuck);
        self.groups.iter_mut().filter(|leftover| leftover.group.job == id).for_each(|it| it.skip_wait(now));
    }

    /// Ends all groups now, because the service stops, or with KILL if `at_once` is true.
    pub fn on_stop(&mut self, at_once: bool, now: Instant) {
        for leftover in &mut self.groups {
            leftover.skip_wait(now);
            if at_once && !matches!(leftover.phase, LeftoverPhase::Killed(_)) {
                (leftover.phase, leftover.due) = (LeftoverPhase::Terminating, now);
            }
        }
    }

    /// Returns when the next look is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.groups.iter().map(|leftover| Some(leftover.due)).fold(None, earliest)
    }

    /// Returns the next look that is due. [`Leftovers::on_checked`] takes its result.
    pub fn next_check(&mut self, now: Instant) -> Option<GroupCheck> {
        let leftover = self.groups.iter_mut().find(|leftover| leftover.due.is_due(now))?;
        let (phase, wait, signal) = match leftover.phase {
            LeftoverPhase::Waiting => {
                (LeftoverPhase::Terminating, LEFTOVER_WAIT, Some(SignalKind::Terminate))
            }
            LeftoverPhase::Terminating => (LeftoverPhase::Killed(now), LOOK_MIN, Some(SignalKind::Kill)),
            LeftoverPhase::Killed(at) => {
                (LeftoverPhase::Killed(at), now.since(at).at_least(LOOK_MIN).at_most(LOOK_MAX), None)
            }
        };
        (leftover.phase, leftover.due) = (phase, now + wait);
        Some(GroupCheck { group: leftover.group, inherited: leftover.inherited, signal })
    }

    /// Takes the result of a look: whether the group is there.
    pub fn on_checked(&mut self, number: u32, is_there: bool, now: Instant) -> Option<LeftoverNotice> {
        if !is_there {
            return self.remove(number).then_some(LeftoverNotice::Freed);
        }
        let leftover = self.groups.iter_mut().find(|leftover| leftover.group.number == number)?;
        let LeftoverPhase::Killed(at) = leftover.phase else { return None };
        let stuck = now.since(at).exceeds(KILL_PATIENCE);
        (stuck && !core::mem::replace(&mut leftover.stuck, stuck)).then_some(LeftoverNotice::Stuck)
    }
}

impl Leftover {
    /// Makes TERM due if the group has got nothing yet.
    fn skip_wait(&mut self, now: Instant) {
        if self.phase == LeftoverPhase::Waiting {
            self.due = now;
        }
    }
}

#[cfg(test)]
mod tests;
