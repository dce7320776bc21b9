//! When a supervised service is started, told to end, killed, and left alone.
//!
//! One [`Ward`] per service. It is told what was seen, and answers with what is to
//! be done; it touches nothing.
//!
//! ```text
//!             look: held by P            3 bad looks            kill_at
//! Waiting ◀───────────────▶ Running ───────────────▶ Ending ─────────▶ Killed
//!   │ ▲  start                │ gone                   │ gone            │ gone
//!   ▼ └──────── died ◀────────┴────────────────────────┴─────────────────┘
//! Starting ── ready ─▶ Running          Killed ── too long ─▶ Unkillable ─ gone ─▶
//!
//! Running, Waiting ── its PID file is missing or empty: stopped on purpose ─▶ Stopped
//! Stopped ── somebody started it ─▶ Running; and it died unseen ─▶ Waiting
//! ```
//!
//! What nobody may do is taken from the lock of the PID file, never from what is
//! written in it; the caller asks it for each look.

use crate::limits::{
    LEAVE_GRACE, RESTART_DELAY, RESTART_DELAY_MAX, RESTART_QUICK, START_PATIENCE, UNKILLABLE,
};
use crate::state::backoff::delay;
use crate::util::time::{Duration, Instant};

/// What is wrong with a service that runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// Its heartbeat is this old.
    Stale(Duration),
    /// The heartbeat is of an earlier boot.
    OtherBoot,
    /// The heartbeat is of another process.
    OtherPid,
    /// The heartbeat is dated later than now.
    Future,
    /// The health file is not a heartbeat.
    Unreadable,
    /// There is no health file.
    Missing,
    /// It was started, and is not ready.
    NotReady,
}

/// What a look at a service found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// This process holds the lock; its heartbeat is fresh, or what is wrong.
    Held(u32, Result<(), Trouble>),
    /// Nobody holds the lock; the PID file is still filled.
    Died,
    /// Nobody holds the lock; the PID file is empty or missing.
    Free,
}

/// How a child of ours ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// With this status.
    Code(u8),
    /// By this signal.
    Signal(u8),
    /// Nobody knows: it was not our child.
    Unknown,
    /// It did not even begin.
    NotStarted,
}

/// The rules that the configuration sets.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Bad looks in a row until the service is told to end.
    pub failures: u32,
    /// From TERM to KILL.
    pub stop_timeout: Duration,
    /// How old a heartbeat may be; a start may take [`START_PATIENCE`] times as long.
    pub stale_after: Duration,
}

/// Where a service stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// It is to be started at this time.
    Waiting(Instant),
    /// Our child of this PID was started at this time.
    Starting(u32, Instant),
    /// This process runs; since when we know it.
    Running(u32, Instant),
    /// It was told to end; KILL follows at this time.
    Ending(u32, Instant),
    /// It was killed at this time, and is not gone.
    Killed(u32, Instant),
    /// It was killed long ago, and is not gone.
    Unkillable(u32),
    /// Somebody stopped it on purpose.
    Stopped,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Nothing.
    None,
    /// Start it; answered by [`Ward::on_started`] or [`Ward::on_not_started`].
    Start,
    /// Send TERM to the holder of the lock, if it is this process.
    Terminate(u32),
    /// Send KILL to the holder of the lock, if it is this process.
    Kill(u32),
}

/// What is to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report {
    /// It runs already, as this process.
    Adopted(u32),
    /// It is ready, as this process.
    Ready(u32),
    /// The first bad look of a row.
    Unwell(Trouble),
    /// The last one that was allowed: it is told to end.
    GivenUp(Trouble),
    /// It is well again.
    Recovered,
    /// It did not end in time, and is killed.
    Killing,
    /// It does not end, though it was killed.
    Unkillable,
    /// It ended so, and is started again after this span.
    Died(Ended, Duration),
    /// The same, but it had been told to end.
    Replaced(Ended, Duration),
    /// Somebody stopped it.
    Stopped,
}

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Ward {
    phase: Phase,
    /// Bad looks in a row.
    bad_looks: u32,
    /// Lives in a row that were short.
    short_lives: u32,
    /// Since when it is not well.
    unwell_since: Option<Instant>,
    /// It died and left its PID file filled: one that is empty by now was emptied by
    /// a stop.
    left_filled: bool,
    /// Somebody else started it.
    adopted: bool,
    /// It is not to be started again.
    leaving: bool,
}

/// An answer.
pub type Answer = (Action, Option<Report>);

/// Nothing to do, nothing to tell.
const NOTHING: Answer = (Action::None, None);

impl Ward {
    /// One that is started, or adopted, with the first look.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Waiting(now),
            bad_looks: 0,
            short_lives: 0,
            unwell_since: Some(now),
            left_filled: false,
            adopted: false,
            leaving: false,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether a board that cannot heal this should be reset: it was hung or dead
    /// for longer than `patience`, or cannot be killed.
    #[must_use]
    pub fn is_hopeless(&self, now: Instant, patience: Duration) -> bool {
        let unkillable = matches!(self.phase, Phase::Unkillable(_));
        let unwell =
            !self.has_settled(now) && self.unwell_since.is_some_and(|since| now.since(since) > patience);
        unkillable || unwell
    }

    /// Whether it runs well, and has done so for long enough that its next end is
    /// not one of a row.
    fn has_settled(&self, now: Instant) -> bool {
        self.bad_looks == 0
            && matches!(self.phase, Phase::Running(_, since) if now.since(since) >= RESTART_QUICK)
    }

    /// Forgets earlier troubles if they are over. One that keeps dying is not well
    /// as soon as it is ready.
    fn note_recovery(&mut self, now: Instant) {
        if self.has_settled(now) {
            self.short_lives = 0;
        }
        if self.short_lives == 0 && self.bad_looks == 0 {
            self.unwell_since = None;
        }
    }

    /// Whether nothing of it is left that is known.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.pid().is_none()
    }

    /// Whether there is nothing to wait for any more before the supervisor goes.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_gone() || matches!(self.phase, Phase::Unkillable(_))
    }

    /// The process that is known.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match self.phase {
            Phase::Starting(pid, _)
            | Phase::Running(pid, _)
            | Phase::Ending(pid, _)
            | Phase::Killed(pid, _)
            | Phase::Unkillable(pid) => Some(pid),
            Phase::Waiting(_) | Phase::Stopped => None,
        }
    }

    /// When it needs attention before the next look.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting(at) | Phase::Ending(_, at) => Some(at),
            Phase::Killed(_, at) => Some(at + UNKILLABLE),
            Phase::Starting(..) | Phase::Running(..) | Phase::Unkillable(_) | Phase::Stopped => None,
        }
    }

    /// What is due at `now`.
    pub fn on_deadline(&mut self, now: Instant) -> Answer {
        match self.phase {
            Phase::Waiting(at) if at.is_due(now) => (Action::Start, None),
            Phase::Ending(pid, at) if at.is_due(now) => {
                self.phase = Phase::Killed(pid, now);
                (Action::Kill(pid), Some(Report::Killing))
            }
            Phase::Killed(pid, at) if (at + UNKILLABLE).is_due(now) => {
                self.phase = Phase::Unkillable(pid);
                (Action::None, Some(Report::Unkillable))
            }
            _ => NOTHING,
        }
    }

    /// It was started as our child.
    pub fn on_started(&mut self, now: Instant, pid: u32) {
        self.phase = Phase::Starting(pid, now);
        (self.bad_looks, self.adopted) = (0, false);
    }

    /// It could not even be started.
    pub fn on_not_started(&mut self, now: Instant) -> Answer {
        self.died(now, now, Ended::NotStarted)
    }

    /// Our child says that it is ready.
    pub fn on_ready(&mut self) -> Answer {
        let Phase::Starting(pid, since) = self.phase else { return NOTHING };
        self.phase = Phase::Running(pid, since);
        self.bad_looks = 0;
        self.note_recovery(since);
        (Action::None, Some(Report::Ready(pid)))
    }

    /// The supervisor stops, and it with it. It gets a little longer than
    /// `stop_timeout`, because it may itself have to wait that long.
    pub fn on_leave(&mut self, now: Instant, rules: &Rules) -> Answer {
        self.leaving = true;
        match self.phase {
            Phase::Starting(pid, _) | Phase::Running(pid, _) => {
                let patience = rules.stop_timeout + LEAVE_GRACE;
                self.phase = Phase::Ending(pid, now + patience);
                (Action::Terminate(pid), None)
            }
            Phase::Ending(..) | Phase::Killed(..) | Phase::Unkillable(_) => NOTHING,
            Phase::Waiting(_) | Phase::Stopped => {
                self.phase = Phase::Stopped;
                NOTHING
            }
        }
    }

    /// The supervisor is told a second time to stop: no more patience.
    pub fn on_hurry(&mut self, now: Instant) -> Answer {
        match self.phase {
            Phase::Starting(pid, _) | Phase::Running(pid, _) | Phase::Ending(pid, _) => {
                self.phase = Phase::Killed(pid, now);
                (Action::Kill(pid), Some(Report::Killing))
            }
            _ => NOTHING,
        }
    }

    /// The process `pid` is gone; `look` is what its PID file says since.
    pub fn on_gone(&mut self, now: Instant, pid: u32, ended: Ended, look: Look) -> Answer {
        if self.pid() != Some(pid) {
            return NOTHING;
        }
        let since = match self.phase {
            Phase::Starting(_, since) | Phase::Running(_, since) => since,
            // It had its time: its end is ours.
            _ => Instant::BOOT,
        };
        if self.leaving {
            self.phase = Phase::Stopped;
            return NOTHING;
        }
        match look {
            Look::Held(other, _) if other != pid => self.adopt(now, other),
            Look::Free if !self.is_ours_to_end() && is_deliberate(self.phase, ended) => self.stopped(),
            _ => {
                self.left_filled = look == Look::Died;
                self.died(now, since, ended)
            }
        }
    }

    /// Somebody stopped it on purpose.
    fn stopped(&mut self) -> Answer {
        (self.phase, self.unwell_since, self.left_filled) = (Phase::Stopped, None, false);
        (Action::None, Some(Report::Stopped))
    }

    /// Whether its end is our own doing.
    fn is_ours_to_end(&self) -> bool {
        matches!(self.phase, Phase::Ending(..) | Phase::Killed(..) | Phase::Unkillable(_))
    }

    /// A look at it, each `check_interval`.
    pub fn on_look(&mut self, now: Instant, look: Look, rules: &Rules) -> Answer {
        match (self.phase, look) {
            (Phase::Waiting(_) | Phase::Stopped, Look::Held(..)) if self.leaving => NOTHING,
            (Phase::Waiting(_) | Phase::Stopped, Look::Held(pid, _)) => self.adopt(now, pid),
            // Somebody started it, and it died before it was looked at.
            (Phase::Stopped, Look::Died) if !self.leaving => {
                self.left_filled = true;
                self.died(now, now, Ended::Unknown)
            }
            // Somebody who does not want it back told `stop`, which found it dead.
            (Phase::Waiting(_), Look::Free) if self.left_filled => self.stopped(),
            (Phase::Waiting(_) | Phase::Stopped, Look::Died | Look::Free) => NOTHING,
            (Phase::Starting(pid, since), _) => {
                let patience = rules.stale_after * START_PATIENCE;
                let late = now.since(since) > patience;
                if late { self.bad_look(now, pid, Trouble::NotReady, rules) } else { NOTHING }
            }
            (Phase::Running(pid, since), Look::Held(holder, health)) if holder == pid => match health {
                Ok(()) => self.good_look(now),
                // One that somebody else just started has no heartbeat of its own yet.
                Err(Trouble::Missing | Trouble::OtherPid | Trouble::OtherBoot)
                    if self.adopted && now.since(since) <= rules.stale_after =>
                {
                    NOTHING
                }
                Err(trouble) => self.bad_look(now, pid, trouble, rules),
            },
            // It is another process, or gone and we were not told.
            (
                Phase::Running(..) | Phase::Ending(..) | Phase::Killed(..) | Phase::Unkillable(_),
                Look::Held(holder, _),
            ) => {
                if self.pid() == Some(holder) {
                    NOTHING
                } else if self.leaving {
                    // What was ours is gone.
                    self.phase = Phase::Stopped;
                    NOTHING
                } else {
                    self.adopt(now, holder)
                }
            }
            (
                Phase::Running(pid, _)
                | Phase::Ending(pid, _)
                | Phase::Killed(pid, _)
                | Phase::Unkillable(pid),
                Look::Died | Look::Free,
            ) => self.on_gone(now, pid, Ended::Unknown, look),
        }
    }

    fn good_look(&mut self, now: Instant) -> Answer {
        let was_unwell = core::mem::take(&mut self.bad_looks) > 0;
        self.note_recovery(now);
        (Action::None, was_unwell.then_some(Report::Recovered))
    }

    fn bad_look(&mut self, now: Instant, pid: u32, trouble: Trouble, rules: &Rules) -> Answer {
        // Until its last heartbeat it was well; without one nobody saw that it was.
        if let Trouble::Stale(age) = trouble {
            self.note_recovery(now.minus(age));
        }
        self.unwell_since.get_or_insert(now);
        self.bad_looks = self.bad_looks.saturating_add(1);
        if self.bad_looks < rules.failures {
            return (Action::None, (self.bad_looks == 1).then_some(Report::Unwell(trouble)));
        }
        self.phase = Phase::Ending(pid, now + rules.stop_timeout);
        (Action::Terminate(pid), Some(Report::GivenUp(trouble)))
    }

    fn adopt(&mut self, now: Instant, pid: u32) -> Answer {
        self.phase = Phase::Running(pid, now);
        (self.bad_looks, self.adopted) = (0, true);
        self.note_recovery(now);
        (Action::None, Some(Report::Adopted(pid)))
    }

    /// It lives no more: when it is started again.
    fn died(&mut self, now: Instant, since: Instant, ended: Ended) -> Answer {
        let is_ours = self.is_ours_to_end();
        self.note_recovery(now);
        self.unwell_since.get_or_insert(now);
        self.bad_looks = 0;
        if now.since(since) >= RESTART_QUICK {
            self.short_lives = 0;
        }
        let delay = match self.short_lives {
            0 => Duration::ZERO,
            lives => delay(RESTART_DELAY, lives, RESTART_DELAY_MAX),
        };
        self.short_lives = self.short_lives.saturating_add(1);
        self.phase = Phase::Waiting(now + delay);
        let report = if is_ours { Report::Replaced(ended, delay) } else { Report::Died(ended, delay) };
        (Action::None, Some(report))
    }
}

/// Whether an end that left no PID file, or an empty one, was a stop. A start that
/// fails leaves none either, but says so; and of the signals only KILL is one
/// that `zigsvc stop` sends to the end.
fn is_deliberate(phase: Phase, ended: Ended) -> bool {
    match ended {
        Ended::Code(code) => code == 0 || !matches!(phase, Phase::Starting(..)),
        Ended::Signal(signal) => signal == KILL && !matches!(phase, Phase::Starting(..)),
        Ended::Unknown | Ended::NotStarted => true,
    }
}

/// SIGKILL (signal(7)).
const KILL: u8 = 9;

#[cfg(test)]
mod tests;
