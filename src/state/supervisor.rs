//! When a supervised service is started, told to end, killed, and left alone.
//!
//! One [`Instance`] per service. It is told what was seen, and answers with what is to
//! be done; it touches nothing.
//!
//! ```text
//!             probe: held by P      3 failed probes            kill_at
//! Backoff ◀───────────────▶ Running ───────────────▶ Stopping ───────▶ Killing
//!   │ ▲  start                │ gone                   │ gone            │ gone
//!   ▼ └──────── died ◀────────┴────────────────────────┴─────────────────┘
//! Starting ── ready ─▶ Running          Killing ── too long ─▶ Unkillable ─ gone ─▶
//!
//! Running, Backoff ── its PID file is missing or empty: stopped on purpose ─▶ Stopped
//! Stopped ── somebody started it ─▶ Running; and it died unseen ─▶ Backoff
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
pub enum ProbeError {
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
pub enum Probe {
    /// This process holds the lock; its heartbeat is fresh, or what is wrong.
    Held(u32, Result<(), ProbeError>),
    /// Nobody holds the lock; the PID file is still filled.
    Died,
    /// Nobody holds the lock; the PID file is empty or missing.
    Free,
}

/// How a child of ours ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitReason {
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
    Backoff(Instant),
    /// Our child of this PID was started at this time.
    Starting(u32, Instant),
    /// This process runs; since when we know it.
    Running(u32, Instant),
    /// It was told to end; KILL follows at this time.
    Stopping(u32, Instant),
    /// It was killed at this time, and is not gone.
    Killing(u32, Instant),
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
    /// Start it; answered by [`Instance::on_started`] or [`Instance::on_not_started`].
    Start,
    /// Send TERM to the holder of the lock, if it is this process.
    Terminate(u32),
    /// Send KILL to the holder of the lock, if it is this process.
    Kill(u32),
}

/// What is to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// It runs already, as this process.
    Adopted(u32),
    /// It is ready, as this process.
    Ready(u32),
    /// The first bad look of a row.
    CheckFailed(ProbeError),
    /// The last one that was allowed: it is told to end.
    Restarting(ProbeError),
    /// It is well again.
    Recovered,
    /// It did not end in time, and is killed.
    Killing,
    /// It does not end, though it was killed.
    Unkillable,
    /// It ended so, and is started again after this span.
    Died(ExitReason, Duration),
    /// The same, but it had been told to end.
    Replaced(ExitReason, Duration),
    /// Somebody stopped it.
    Stopped,
}

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Instance {
    phase: Phase,
    /// Bad looks in a row.
    failed_probes: u32,
    /// Lives in a row that were short.
    quick_exits: u32,
    /// Since when it is not well.
    unwell_since: Option<Instant>,
    /// It died and left its PID file filled: one that is empty by now was emptied by
    /// a stop.
    pid_file_left_filled: bool,
    /// Somebody else started it.
    adopted: bool,
    /// It is not to be started again.
    shutting_down: bool,
}

/// An answer.
pub type Decision = (Action, Option<Event>);

/// Nothing to do, nothing to tell.
const NOTHING: Decision = (Action::None, None);

impl Instance {
    /// One that is started, or adopted, with the first look.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Backoff(now),
            failed_probes: 0,
            quick_exits: 0,
            unwell_since: Some(now),
            pid_file_left_filled: false,
            adopted: false,
            shutting_down: false,
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
    pub fn is_unrecoverable(&self, now: Instant, patience: Duration) -> bool {
        let unkillable = matches!(self.phase, Phase::Unkillable(_));
        let unwell =
            !self.is_stable(now) && self.unwell_since.is_some_and(|since| now.since(since) > patience);
        unkillable || unwell
    }

    /// Whether it runs well, and has done so for long enough that its next end is
    /// not one of a row.
    fn is_stable(&self, now: Instant) -> bool {
        self.failed_probes == 0
            && matches!(self.phase, Phase::Running(_, since) if now.since(since) >= RESTART_QUICK)
    }

    /// Forgets earlier troubles if they are over. One that keeps dying is not well
    /// as soon as it is ready.
    fn update_recovery(&mut self, now: Instant) {
        if self.is_stable(now) {
            self.quick_exits = 0;
        }
        if self.quick_exits == 0 && self.failed_probes == 0 {
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
            | Phase::Stopping(pid, _)
            | Phase::Killing(pid, _)
            | Phase::Unkillable(pid) => Some(pid),
            Phase::Backoff(_) | Phase::Stopped => None,
        }
    }

    /// When it needs attention before the next look.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Backoff(at) | Phase::Stopping(_, at) => Some(at),
            Phase::Killing(_, at) => Some(at + UNKILLABLE),
            Phase::Starting(..) | Phase::Running(..) | Phase::Unkillable(_) | Phase::Stopped => None,
        }
    }

    /// What is due at `now`.
    pub fn on_deadline(&mut self, now: Instant) -> Decision {
        match self.phase {
            Phase::Backoff(at) if at.is_due(now) => (Action::Start, None),
            Phase::Stopping(pid, at) if at.is_due(now) => {
                self.phase = Phase::Killing(pid, now);
                (Action::Kill(pid), Some(Event::Killing))
            }
            Phase::Killing(pid, at) if (at + UNKILLABLE).is_due(now) => {
                self.phase = Phase::Unkillable(pid);
                (Action::None, Some(Event::Unkillable))
            }
            _ => NOTHING,
        }
    }

    /// It was started as our child.
    pub fn on_started(&mut self, now: Instant, pid: u32) {
        self.phase = Phase::Starting(pid, now);
        (self.failed_probes, self.adopted) = (0, false);
    }

    /// It could not even be started.
    pub fn on_not_started(&mut self, now: Instant) -> Decision {
        self.died(now, now, ExitReason::NotStarted)
    }

    /// Our child says that it is ready.
    pub fn on_ready(&mut self) -> Decision {
        let Phase::Starting(pid, since) = self.phase else { return NOTHING };
        self.phase = Phase::Running(pid, since);
        self.failed_probes = 0;
        self.update_recovery(since);
        (Action::None, Some(Event::Ready(pid)))
    }

    /// The supervisor stops, and it with it. It gets a little longer than
    /// `stop_timeout`, because it may itself have to wait that long.
    pub fn on_shutdown(&mut self, now: Instant, rules: &Rules) -> Decision {
        self.shutting_down = true;
        match self.phase {
            Phase::Starting(pid, _) | Phase::Running(pid, _) => {
                let patience = rules.stop_timeout + LEAVE_GRACE;
                self.phase = Phase::Stopping(pid, now + patience);
                (Action::Terminate(pid), None)
            }
            Phase::Stopping(..) | Phase::Killing(..) | Phase::Unkillable(_) => NOTHING,
            Phase::Backoff(_) | Phase::Stopped => {
                self.phase = Phase::Stopped;
                NOTHING
            }
        }
    }

    /// The supervisor is told a second time to stop: no more patience.
    pub fn on_second_stop(&mut self, now: Instant) -> Decision {
        match self.phase {
            Phase::Starting(pid, _) | Phase::Running(pid, _) | Phase::Stopping(pid, _) => {
                self.phase = Phase::Killing(pid, now);
                (Action::Kill(pid), Some(Event::Killing))
            }
            _ => NOTHING,
        }
    }

    /// The process `pid` is gone; `probe` is what its PID file says since.
    pub fn on_gone(&mut self, now: Instant, pid: u32, reason: ExitReason, probe: Probe) -> Decision {
        if self.pid() != Some(pid) {
            return NOTHING;
        }
        let since = match self.phase {
            Phase::Starting(_, since) | Phase::Running(_, since) => since,
            // It had its time: its end is ours.
            _ => Instant::BOOT,
        };
        if self.shutting_down {
            self.phase = Phase::Stopped;
            return NOTHING;
        }
        match probe {
            Probe::Held(other, _) if other != pid => self.adopt(now, other),
            Probe::Free if !self.we_are_stopping_it() && is_deliberate(self.phase, reason) => self.stopped(),
            _ => {
                self.pid_file_left_filled = probe == Probe::Died;
                self.died(now, since, reason)
            }
        }
    }

    /// Somebody stopped it on purpose.
    fn stopped(&mut self) -> Decision {
        (self.phase, self.unwell_since, self.pid_file_left_filled) = (Phase::Stopped, None, false);
        (Action::None, Some(Event::Stopped))
    }

    /// Whether its end is our own doing.
    fn we_are_stopping_it(&self) -> bool {
        matches!(self.phase, Phase::Stopping(..) | Phase::Killing(..) | Phase::Unkillable(_))
    }

    /// A look at it, each `check_interval`.
    pub fn on_probe(&mut self, now: Instant, probe: Probe, rules: &Rules) -> Decision {
        match (self.phase, probe) {
            (Phase::Backoff(_) | Phase::Stopped, Probe::Held(..)) if self.shutting_down => NOTHING,
            (Phase::Backoff(_) | Phase::Stopped, Probe::Held(pid, _)) => self.adopt(now, pid),
            // Somebody started it, and it died before it was looked at.
            (Phase::Stopped, Probe::Died) if !self.shutting_down => {
                self.pid_file_left_filled = true;
                self.died(now, now, ExitReason::Unknown)
            }
            // Somebody who does not want it back told `stop`, which found it dead.
            (Phase::Backoff(_), Probe::Free) if self.pid_file_left_filled => self.stopped(),
            (Phase::Backoff(_) | Phase::Stopped, Probe::Died | Probe::Free) => NOTHING,
            (Phase::Starting(pid, since), _) => {
                let patience = rules.stale_after * START_PATIENCE;
                let late = now.since(since) > patience;
                if late { self.on_bad_probe(now, pid, ProbeError::NotReady, rules) } else { NOTHING }
            }
            (Phase::Running(pid, since), Probe::Held(holder, health)) if holder == pid => match health {
                Ok(()) => self.on_good_probe(now),
                // One that somebody else just started has no heartbeat of its own yet.
                Err(ProbeError::Missing | ProbeError::OtherPid | ProbeError::OtherBoot)
                    if self.adopted && now.since(since) <= rules.stale_after =>
                {
                    NOTHING
                }
                Err(error) => self.on_bad_probe(now, pid, error, rules),
            },
            // It is another process, or gone and we were not told.
            (
                Phase::Running(..) | Phase::Stopping(..) | Phase::Killing(..) | Phase::Unkillable(_),
                Probe::Held(holder, _),
            ) => {
                if self.pid() == Some(holder) {
                    NOTHING
                } else if self.shutting_down {
                    // What was ours is gone.
                    self.phase = Phase::Stopped;
                    NOTHING
                } else {
                    self.adopt(now, holder)
                }
            }
            (
                Phase::Running(pid, _)
                | Phase::Stopping(pid, _)
                | Phase::Killing(pid, _)
                | Phase::Unkillable(pid),
                Probe::Died | Probe::Free,
            ) => self.on_gone(now, pid, ExitReason::Unknown, probe),
        }
    }

    fn on_good_probe(&mut self, now: Instant) -> Decision {
        let was_unwell = core::mem::take(&mut self.failed_probes) > 0;
        self.update_recovery(now);
        (Action::None, was_unwell.then_some(Event::Recovered))
    }

    fn on_bad_probe(&mut self, now: Instant, pid: u32, error: ProbeError, rules: &Rules) -> Decision {
        // Until its last heartbeat it was well; without one nobody saw that it was.
        if let ProbeError::Stale(age) = error {
            self.update_recovery(now.minus(age));
        }
        self.unwell_since.get_or_insert(now);
        self.failed_probes = self.failed_probes.saturating_add(1);
        if self.failed_probes < rules.failures {
            return (Action::None, (self.failed_probes == 1).then_some(Event::CheckFailed(error)));
        }
        self.phase = Phase::Stopping(pid, now + rules.stop_timeout);
        (Action::Terminate(pid), Some(Event::Restarting(error)))
    }

    fn adopt(&mut self, now: Instant, pid: u32) -> Decision {
        self.phase = Phase::Running(pid, now);
        (self.failed_probes, self.adopted) = (0, true);
        self.update_recovery(now);
        (Action::None, Some(Event::Adopted(pid)))
    }

    /// It lives no more: when it is started again.
    fn died(&mut self, now: Instant, since: Instant, reason: ExitReason) -> Decision {
        let is_ours = self.we_are_stopping_it();
        self.update_recovery(now);
        self.unwell_since.get_or_insert(now);
        self.failed_probes = 0;
        if now.since(since) >= RESTART_QUICK {
            self.quick_exits = 0;
        }
        let delay = match self.quick_exits {
            0 => Duration::ZERO,
            lives => delay(RESTART_DELAY, lives, RESTART_DELAY_MAX),
        };
        self.quick_exits = self.quick_exits.saturating_add(1);
        self.phase = Phase::Backoff(now + delay);
        let event = if is_ours { Event::Replaced(reason, delay) } else { Event::Died(reason, delay) };
        (Action::None, Some(event))
    }
}

/// Whether an end that left no PID file, or an empty one, was a stop. A start that
/// fails leaves none either, but says so; and of the signals only KILL is one
/// that `zigsvc stop` sends to the end.
fn is_deliberate(phase: Phase, reason: ExitReason) -> bool {
    match reason {
        ExitReason::Code(code) => code == 0 || !matches!(phase, Phase::Starting(..)),
        ExitReason::Signal(signal) => signal == KILL && !matches!(phase, Phase::Starting(..)),
        ExitReason::Unknown | ExitReason::NotStarted => true,
    }
}

/// SIGKILL (signal(7)).
const KILL: u8 = 9;

#[cfg(test)]
mod tests;
