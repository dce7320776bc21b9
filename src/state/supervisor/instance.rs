//! One supervised process: when it is started, terminated, killed, or left alone.
//!
//! An [`Instance`] performs nothing. Each event returns a [`Decision`]: an action to
//! perform, and an event to log. The state of the lock of the PID file decides whether a
//! process runs; the number in the PID file does not.
//!
//! | phase \ event | probe: P holds the lock | probe: died | probe: stopped on purpose | process gone | deadline | stop | second stop |
//! | --- | --- | --- | --- | --- | --- | --- | --- |
//! | `Backoff(at)` | `Running`, adopt P | - | `Stopped` | - | check the lock, start: `Starting` | `Stopped` | - |
//! | `Starting` | `Stopping` after `failures` probes, if late | the same | the same | `Backoff`, `Stopped`, or `Running` if another process holds the lock | - | `Stopping` | `Killing` |
//! | `Running` | `Stopping` after `failures` bad probes; `Running`, adopt P if another | `Backoff` | `Stopped` | `Backoff`, `Stopped`, or `Running` as above | - | `Stopping` | `Killing` |
//! | `Stopping(at)` | `Running`, adopt P if another | `Backoff` | `Stopped` | `Backoff`, `Stopped` | `Killing` | - | `Killing` |
//! | `Killing(since)` | `Running`, adopt P if another | `Backoff` | `Stopped` | `Backoff`, `Stopped` | `Unkillable` | - | - |
//! | `Unkillable` | `Running`, adopt P if another | `Backoff` | `Stopped` | `Backoff`, `Stopped` | - | - | - |
//! | `Stopped` | `Running`, adopt P | `Backoff` | - | - | - | - | - |
//!
//! `Starting` becomes `Running` when the process reports ready. After a stop of the
//! supervisor, `Stopped` replaces `Backoff` and `Running` as the next phase.

use super::decision::{Action, Decision, Event, ExitReason, NOTHING, Report, Rules};
use super::probe::{FileVersion, Probe, ProbeError, ProgramHealth};
use crate::limits::{RESTART_QUICK, START_PATIENCE};
use crate::state::backoff::RestartBackoff;
use crate::util::time::{Duration, Instant};

/// Time after `stop_timeout` until a supervisor that stops kills its services. This is less
/// than `STOP_GRACE`, after which `stop` would kill the supervisor.
pub(crate) const LEAVE_GRACE: Duration = Duration::from_ms(2000);
/// Time after KILL from which a service that still exists counts as impossible to kill.
const UNKILLABLE: Duration = Duration::from_ms(5000);

/// The phase of an instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// No process runs; one is started at this time.
    Backoff(Instant),
    /// The child of this PID was started, and has not reported ready.
    Starting(u32),
    /// The process of this PID runs.
    Running(u32),
    /// TERM was sent; KILL follows at this time.
    Stopping(u32, Instant),
    /// KILL was sent at this time, and the process has not ended.
    Killing(u32, Instant),
    /// KILL was sent long ago, and the process has not ended.
    Unkillable(u32),
    /// A user stopped the process on purpose, or the supervisor stops.
    Stopped,
}

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Instance {
    phase: Phase,
    /// When the process was started or adopted.
    started_at: Instant,
    /// Bad probes in a row.
    failed_probes: u32,
    backoff: RestartBackoff,
    /// Since when the instance is unwell.
    unwell_since: Option<Instant>,
    /// Another process than the supervisor started the process.
    adopted: bool,
    /// The process was ready, adopted or dead at least once.
    settled: bool,
    /// The supervisor stops, so nothing is started.
    shutting_down: bool,
    program_health: ProgramHealth,
}

impl Instance {
    /// Creates an instance that is started or adopted at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Backoff(now),
            started_at: now,
            failed_probes: 0,
            backoff: RestartBackoff::default(),
            unwell_since: Some(now),
            adopted: false,
            settled: false,
            shutting_down: false,
            program_health: ProgramHealth::default(),
        }
    }

    /// Returns the phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns the time since the process was started or adopted.
    #[must_use]
    pub fn lived(&self, now: Instant) -> Duration {
        now.since(self.started_at)
    }

    /// Returns the PID of the known process; `None` if no process is known.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match self.phase {
            Phase::Starting(pid)
            | Phase::Running(pid)
            | Phase::Stopping(pid, _)
            | Phase::Killing(pid, _)
            | Phase::Unkillable(pid) => Some(pid),
            Phase::Backoff(_) | Phase::Stopped => None,
        }
    }

    /// Returns true if the supervisor can stop without waiting for this instance.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.pid().is_none() || matches!(self.phase, Phase::Unkillable(_))
    }

    /// Returns true if the process was ready, adopted or dead once, or is stopped.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled || self.phase == Phase::Stopped
    }

    /// Returns true if a reset of the board is the only help left: the instance was
    /// unwell for longer than `patience`, or its process cannot be killed.
    #[must_use]
    pub fn is_unrecoverable(&self, now: Instant, patience: Duration) -> bool {
        let unkillable = matches!(self.phase, Phase::Unkillable(_));
        let unwell =
            !self.is_stable(now) && self.unwell_since.is_some_and(|since| now.since(since) > patience);
        unkillable || unwell
    }

    /// Returns true if the process is healthy, and has run for so long that its next exit
    /// is not a quick one.
    #[unsafe(link_section = ".text.idle")]
    fn is_stable(&self, now: Instant) -> bool {
        self.failed_probes == 0
            && matches!(self.phase, Phase::Running(_))
            && now.since(self.started_at) >= RESTART_QUICK
    }

    /// Returns true if the supervisor has sent TERM or KILL to the process.
    fn we_are_stopping_it(&self) -> bool {
        matches!(self.phase, Phase::Stopping(..) | Phase::Killing(..) | Phase::Unkillable(_))
    }

    /// Forgets earlier failures if the instance has recovered. A process that exits
    /// quickly each time does not recover by being ready in between.
    fn update_recovery(&mut self, now: Instant) {
        if self.is_stable(now) {
            self.backoff.reset();
        }
        if self.backoff.is_reset() && self.failed_probes == 0 {
            self.unwell_since = None;
        }
    }

    /// Returns when [`Instance::on_deadline`] is due; `None` if only an event can change
    /// the phase.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Backoff(at) | Phase::Stopping(_, at) => Some(at),
            Phase::Killing(_, at) => Some(at + UNKILLABLE),
            Phase::Starting(_) | Phase::Running(_) | Phase::Unkillable(_) | Phase::Stopped => None,
        }
    }

    /// Decides what the passing of time changes.
    pub fn on_deadline(&mut self, now: Instant) -> Decision {
        if !self.next_deadline().is_some_and(|at| at.is_due(now)) {
            return NOTHING;
        }
        match self.phase {
            Phase::Backoff(_) => (Action::CheckLock, None),
            Phase::Stopping(pid, _) => self.kill(now, pid),
            Phase::Killing(pid, _) => {
                self.phase = Phase::Unkillable(pid);
                (Action::None, Some(Event::Unkillable))
            }
            Phase::Starting(_) | Phase::Running(_) | Phase::Unkillable(_) | Phase::Stopped => NOTHING,
        }
    }

    /// Takes an event, and decides what follows.
    pub fn on_report(&mut self, now: Instant, report: Report, rules: &Rules) -> Decision {
        match report {
            Report::Probe(probe) => probe.map_or(NOTHING, |probe| self.on_probe(now, probe, rules)),
            Report::ProgramFile(found) => self.on_program_file(now, found, rules),
            Report::Lock(probe) => self.on_lock(now, probe, rules),
            Report::Started(pid) => self.on_started(now, pid),
            Report::NotStarted => self.died(now, Duration::ZERO, ExitReason::NotStarted),
            Report::Ready => self.on_ready(),
            // Without a probe nothing is known but that this process held the lock.
            Report::Gone(pid, reason, probe) => {
                self.on_gone(now, pid, reason, probe.unwrap_or(Probe::Held(pid, Ok(()))))
            }
            Report::Stop => self.on_shutdown(now, rules),
            Report::SecondStop => self.on_second_stop(now),
        }
    }

    fn kill(&mut self, now: Instant, pid: u32) -> Decision {
        self.phase = Phase::Killing(pid, now);
        (Action::Kill(pid), Some(Event::Killing))
    }

    /// Starts the process, unless the probe of the lock shows that it runs or that a user
    /// stopped it. Without a probe the process is started.
    fn on_lock(&mut self, now: Instant, probe: Option<Probe>, rules: &Rules) -> Decision {
        let decision = probe.map_or(NOTHING, |probe| self.on_probe(now, probe, rules));
        if matches!(self.phase, Phase::Backoff(_)) { (Action::Start, None) } else { decision }
    }

    fn on_started(&mut self, now: Instant, pid: u32) -> Decision {
        (self.phase, self.started_at) = (Phase::Starting(pid), now);
        (self.failed_probes, self.adopted) = (0, false);
        self.program_health = ProgramHealth::default();
        NOTHING
    }

    fn on_ready(&mut self) -> Decision {
        let Phase::Starting(pid) = self.phase else { return NOTHING };
        (self.phase, self.settled) = (Phase::Running(pid), true);
        self.failed_probes = 0;
        self.update_recovery(self.started_at);
        (Action::None, Some(Event::Ready(pid)))
    }

    /// Records that the supervisor stops, so that nothing is started any more.
    pub(super) fn forbid_start(&mut self) {
        self.shutting_down = true;
    }

    /// Stops the process because the supervisor stops. The process has a little longer
    /// than `stop_timeout`, because it may itself wait that long for its children.
    fn on_shutdown(&mut self, now: Instant, rules: &Rules) -> Decision {
        self.forbid_start();
        match self.phase {
            Phase::Starting(pid) | Phase::Running(pid) => {
                self.phase = Phase::Stopping(pid, now + rules.stop_timeout + LEAVE_GRACE);
                (Action::Terminate(pid), None)
            }
            Phase::Stopping(..) | Phase::Killing(..) | Phase::Unkillable(_) => NOTHING,
            Phase::Backoff(_) | Phase::Stopped => {
                self.phase = Phase::Stopped;
                NOTHING
            }
        }
    }

    /// Kills the process because the supervisor was asked a second time to stop.
    fn on_second_stop(&mut self, now: Instant) -> Decision {
        match self.phase {
            Phase::Starting(pid) | Phase::Running(pid) | Phase::Stopping(pid, _) => self.kill(now, pid),
            Phase::Killing(..) | Phase::Unkillable(_) | Phase::Backoff(_) | Phase::Stopped => NOTHING,
        }
    }

    fn on_gone(&mut self, now: Instant, pid: u32, reason: ExitReason, probe: Probe) -> Decision {
        if self.pid() != Some(pid) {
            return NOTHING;
        }
        if self.shutting_down {
            self.phase = Phase::Stopped;
            return NOTHING;
        }
        match probe {
            Probe::Held(other, _) if other != pid => self.adopt(now, other),
            Probe::Free => self.stopped(now),
            _ => {
                // A process that the supervisor stopped did not exit quickly.
                let since = if self.we_are_stopping_it() { Instant::BOOT } else { self.started_at };
                self.died(now, now.since(since), reason)
            }
        }
    }

    /// Records that a user stopped the process on purpose.
    fn stopped(&mut self, now: Instant) -> Decision {
        (self.phase, self.unwell_since, self.settled) = (Phase::Stopped, None, true);
        // Nothing else is known of the next process if it ends between two probes.
        self.started_at = now;
        (Action::None, Some(Event::Stopped))
    }

    fn on_program_file(
        &mut self,
        now: Instant,
        found: Result<FileVersion, ProbeError>,
        rules: &Rules,
    ) -> Decision {
        let Some(pid) = self.pid() else { return NOTHING };
        let health = self.program_health.judge(now, found, self.started_at, rules.stale_after);
        self.on_probe(now, Probe::Held(pid, health), rules)
    }

    fn on_probe(&mut self, now: Instant, probe: Probe, rules: &Rules) -> Decision {
        match (self.phase, probe) {
            (Phase::Backoff(_) | Phase::Stopped, _) if self.shutting_down => NOTHING,
            (Phase::Backoff(_) | Phase::Stopped, Probe::Held(pid, _)) => self.adopt(now, pid),
            // A user started the process, and it died between two probes.
            (Phase::Stopped, Probe::Died) => self.died(now, Duration::ZERO, ExitReason::Unknown),
            // A user stopped the process while it was dead.
            (Phase::Backoff(_), Probe::Free) => self.stopped(now),
            (Phase::Backoff(_), Probe::Died) | (Phase::Stopped, Probe::Free) => NOTHING,
            (Phase::Starting(pid), _) => {
                let late = now.since(self.started_at) > rules.stale_after * START_PATIENCE;
                if late { self.on_bad_probe(now, pid, ProbeError::NotReady, rules) } else { NOTHING }
            }
            (Phase::Running(pid), Probe::Held(holder, health)) if holder == pid => match health {
                Ok(()) => self.on_good_probe(now),
                // A process that was just adopted may not have written a heartbeat yet.
                Err(ProbeError::Missing | ProbeError::OtherPid | ProbeError::OtherBoot)
                    if self.adopted && now.since(self.started_at) <= rules.stale_after =>
                {
                    NOTHING
                }
                Err(error) => self.on_bad_probe(now, pid, error, rules),
            },
            (
                Phase::Running(pid)
                | Phase::Stopping(pid, _)
                | Phase::Killing(pid, _)
                | Phase::Unkillable(pid),
                _,
            ) => match probe {
                Probe::Held(holder, _) if holder == pid => NOTHING,
                _ => self.on_gone(now, pid, ExitReason::Unknown, probe),
            },
        }
    }

    fn on_good_probe(&mut self, now: Instant) -> Decision {
        let was_unwell = core::mem::take(&mut self.failed_probes) > 0;
        self.update_recovery(now);
        (Action::None, was_unwell.then_some(Event::Recovered))
    }

    fn on_bad_probe(&mut self, now: Instant, pid: u32, error: ProbeError, rules: &Rules) -> Decision {
        // The process was healthy until its last heartbeat.
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
        (self.phase, self.started_at) = (Phase::Running(pid), now);
        (self.failed_probes, self.adopted, self.settled) = (0, true, true);
        self.update_recovery(now);
        (Action::None, Some(Event::Adopted(pid)))
    }

    /// Records that the process has ended after `lived`, and schedules its restart.
    fn died(&mut self, now: Instant, lived: Duration, reason: ExitReason) -> Decision {
        let is_ours = self.we_are_stopping_it();
        self.update_recovery(now);
        self.unwell_since.get_or_insert(now);
        (self.failed_probes, self.settled) = (0, true);
        let wait = self.backoff.on_exit(lived);
        self.phase = Phase::Backoff(now + wait);
        let event = if is_ours { Event::Replaced(reason, wait) } else { Event::Died(reason, wait) };
        (Action::None, Some(event))
    }
}

#[cfg(test)]
mod tests;
