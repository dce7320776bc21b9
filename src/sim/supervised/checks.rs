//! The promises of a supervisor, whatever happens. This file knows the truth about each process, and
//! nothing of the machine but its decisions.

use super::board::SupervisedBoard;
use super::kernel::Process;
use super::supervisor::Supervisor;
use crate::limits::{ANSWER_PATIENCE, RESTART_QUICK, START_PATIENCE};
use crate::proto::config::RestartMode;
use crate::state::supervisor::decision::{Event as Told, ExitReason};
use crate::state::supervisor::instance::Phase;
use crate::util::time::Duration;

/// Milliseconds that a decision may be late: a heartbeat, a turn, and the coarseness of the checks.
const SLACK: u64 = 8000;
/// Milliseconds until the last restart: the longest backoff.
const RESTARTS: u64 = 60_000 + SLACK;

impl SupervisedBoard {
    /// Returns true if a unit is to run.
    pub(super) fn should_run(&self, unit: usize) -> bool {
        let unit = &self.units[unit];
        unit.is_listed && !unit.is_down && !unit.is_finished
    }

    /// Returns the milliseconds in which a hang of a unit is found, and its process gets TERM. `None`: no
    /// check can find it.
    fn found_in(&self, unit: usize) -> Option<u64> {
        let stale = match self.units[unit].program {
            Some(program) if !program.has_health_file => return None,
            Some(program) => program.stale_after,
            None => self.rules.stale_after,
        };
        let checks = self.rules.check_interval * u64::from(self.rules.failures + 1);
        // One that was adopted has as long for its first heartbeat.
        Some(stale.as_ms() * 2 + checks.as_ms() + 3 * ANSWER_PATIENCE.as_ms() + SLACK)
    }

    // ----- decisions --------------------------------------------------------

    /// Checks a decision that a supervisor logs.
    pub(super) fn check_event(&mut self, sup: &Supervisor, unit: usize, event: Told) {
        let process = self.kernel.main_of(unit).map(|(_, process)| process.clone());
        match event {
            Told::Restarting(_) => {
                let hangs = |process: &Process| {
                    let age = self.line.now().as_ms().saturating_sub(process.started);
                    let late = (self.rules.stale_after * START_PATIENCE).as_ms();
                    // A program has to write its file, wherever that is.
                    let is_unseen = self.units[unit].program.is_some()
                        && !self.kernel.health.contains_key(&unit)
                        && !self.kernel.makes_none;
                    process.hung_since.is_some()
                        || !process.is_ready && age > late
                        || process.ends
                        || is_unseen
                };
                assert!(
                    process.as_ref().is_none_or(hangs),
                    "unit {unit} is healthy, and is ended: {event:?}, {process:?}"
                );
            }
            Told::Ended(reason) => {
                let restart = self.units[unit].program.map(|program| program.restart);
                let is_last = match restart {
                    None | Some(RestartMode::Always) => false,
                    Some(RestartMode::Failure) => reason == ExitReason::Code(0),
                    Some(RestartMode::Never) => true,
                };
                assert!(is_last, "unit {unit} ended by {reason:?}, and is not started again");
                self.units[unit].is_finished = true;
                // A process that such a program leaves is no part of it any more.
                let left = self.kernel.all.values_mut().filter(|process| process.unit == Some(unit));
                left.filter(|process| process.is_left).for_each(|process| process.unit = None);
            }
            Told::Stopped => {
                let is_leaving = sup.managed.iter().any(|managed| managed.unit == unit && managed.is_leaving);
                assert!(self.units[unit].is_down || is_leaving, "unit {unit} was not stopped on purpose");
            }
            _ => {}
        }
    }

    /// Checks a start: nothing of the unit lives, no user has stopped it, and those before it are ready.
    pub(super) fn check_start(&mut self, sup: &Supervisor, index: usize) {
        let managed = &sup.managed[index];
        let unit = managed.unit;
        let own = &self.units[unit];
        assert!(own.is_listed, "unit {unit} is started, and is not supervised");
        assert!(!own.is_down, "unit {unit} is started, and a user has stopped it");
        assert!(!sup.supervision.is_stopping(), "unit {unit} is started, and the supervisor stops");
        let lives = self.kernel.lives_of(unit);
        let lives = lives.iter().filter(|pid| own.program.is_some() || self.kernel.all[*pid].has_lock);
        let lives: Vec<&Process> = lives.map(|pid| &self.kernel.all[pid]).collect();
        assert!(
            lives.is_empty() || self.has_no_descriptors && own.program.is_none(),
            "unit {unit} is started, and runs already: {lives:?}"
        );
        for before in own.after.clone() {
            let Some(instance) = sup.instance(before) else { continue };
            let is_ready = self.kernel.main_of(before).is_some_and(|(_, process)| process.is_ready);
            let is_out = !self.should_run(before) || matches!(instance.phase(), Phase::Stopped);
            // It may have ended a moment ago.
            let is_known_ready = matches!(instance.phase(), Phase::Running(_) | Phase::Foreign);
            assert!(
                is_ready || is_out || is_known_ready,
                "unit {unit} is started before unit {before} is ready"
            );
        }
        self.units[unit].is_finished = false;
    }

    /// Checks that the watchdog is withheld for a reason.
    pub(super) fn check_withheld(&mut self, sup: &Supervisor, unit: usize) {
        let patience = self.rules.watchdog_patience.as_ms();
        let since = self.units[unit].steady_at.max(sup.since);
        let patience = patience.saturating_sub(self.naps_since(since));
        let unkillable = self.kernel.all.values().any(|process| {
            process.unit == Some(unit) && process.ended.is_none() && process.unkillable_until > 0
        });
        // Without a pidfd the end of a process shows with the next probe, and not before.
        let is_unseen = self.has_no_descriptors || self.kernel.lives_of(unit).is_empty();
        let unkillable = unkillable || !self.has_pidfds && is_unseen;
        // Its socket has no place, and its heartbeat proves nothing.
        let main = self.kernel.main_of(unit);
        let is_mute = main.is_some_and(|(_, process)| process.is_crowded && process.clock_ahead > 0);
        assert!(
            self.line.time.saturating_sub(since) + SLACK > patience || unkillable || is_mute,
            "the watchdog is withheld because of unit {unit}, which was well {} ms ago",
            self.line.time - since
        );
    }

    /// Returns the milliseconds since `since` in which the supervisor did not make turns, and that it
    /// leaves out or not.
    fn naps_since(&self, since: u64) -> u64 {
        self.naps.iter().filter(|(at, slept)| at + slept >= since).map(|(_, slept)| slept).sum()
    }

    /// Checks that a watchdog that is kicked watches nothing that is beyond help.
    pub(super) fn check_kick(&self, sup: &Supervisor) {
        if sup.supervision.is_stopping() {
            return;
        }
        let patience = self.rules.watchdog_patience.as_ms();
        for managed in &sup.managed {
            let unit = &self.units[managed.unit];
            let waits = unit.after.iter().any(|before| !self.is_well(*before));
            let waits = waits || sup.instance(managed.unit).is_some_and(|instance| instance.is_blocked());
            let fails = unit.fails_since.filter(|_| !waits && !managed.is_leaving);
            let fails = fails.map_or(0, |since| {
                let since = since.max(sup.since).max(self.settled_at(managed.unit));
                (self.line.time - since).saturating_sub(self.naps_since(since))
            });
            assert!(
                fails <= patience + RESTARTS,
                "the watchdog is fed, and unit {} cannot be started for {fails} ms",
                managed.unit
            );
            let Some(found) = self.found_in(managed.unit) else { continue };
            if !self.should_run(managed.unit) || unit.after.iter().any(|before| !self.is_well(*before)) {
                continue;
            }
            let hung_since = self.kernel.main_of(managed.unit).and_then(|(_, process)| process.hung_since);
            let since = unit.stable_at.max(sup.since).max(self.calm_at).max(hung_since.unwrap_or(0));
            let limit = patience + found + RESTARTS + self.naps_since(since);
            let is_foreign = self.kernel.main_of(managed.unit).is_some_and(|(_, process)| {
                process.is_foreign || process.is_crowded || process.may_not_write || process.is_alive()
            });
            assert!(
                self.line.time.saturating_sub(since) <= limit || is_foreign || self.is_well(managed.unit),
                "the watchdog is fed, and unit {} is not well for {} ms",
                managed.unit,
                self.line.time - since
            );
        }
    }

    /// Checks that the watchdog resets a board for a reason.
    pub(super) fn check_reset(&self) {
        let Some(sup) = &self.supervisor else { return };
        // It looks at them each second.
        let held = self.line.now().minus(Duration::from_ms(1000));
        let is_withheld = sup.supervision.unrecoverable(held).is_some();
        let is_blocked =
            self.blocked_until + 61_000 > self.line.time && self.calm_at + 61_000 > self.line.time;
        assert!(
            is_withheld || is_blocked || self.device_fails || self.line.time < self.calm_at + 90_000,
            "the watchdog resets a board that is well"
        );
    }

    // ----- time -------------------------------------------------------------

    /// Returns true if a unit runs, is ready, and makes turns.
    pub(super) fn is_well(&self, unit: usize) -> bool {
        self.kernel.main_of(unit).is_some_and(|(_, process)| process.is_ready && process.is_alive())
    }

    /// Checks what has to happen within a time.
    pub(super) fn check_all(&mut self) {
        let time = self.line.time;
        if self.has_no_descriptors {
            self.blind_at = time;
        }
        let blind_at = self.blind_at;
        // Its file counts from `stale_after` on, and the supervisor sees that with a probe.
        let steady = (self.rules.stale_after + self.rules.check_interval * 2).as_ms();
        for unit in 0..self.units.len() {
            let (is_well, should_run) = (self.is_well(unit), self.should_run(unit));
            let lives = !self.kernel.lives_of(unit).is_empty();
            let own = &mut self.units[unit];
            own.well_since = is_well.then(|| own.well_since.unwrap_or(time));
            let is_stable = own.well_since.is_some_and(|since| time - since >= RESTART_QUICK.as_ms());
            if is_stable || !should_run {
                own.stable_at = time;
            }
            let seen = own.well_since.map(|since| since.max(blind_at));
            if seen.is_some_and(|since| time - since >= steady) || !should_run && !lives {
                own.steady_at = time;
            }
            if lives || own.is_missing || !should_run {
                own.up_at = time;
            }
            let fails = own.is_missing && !lives && should_run;
            own.fails_since = fails.then(|| own.fails_since.unwrap_or(time));
        }
        let Some(sup) = &self.supervisor else { return };
        if sup.supervision.is_stopping() || self.has_no_descriptors || self.kernel.writes_none {
            return;
        }
        for managed in &sup.managed {
            let unit = managed.unit;
            let own = &self.units[unit];
            let waits =
                own.after.iter().any(|before| sup.instance(*before).is_some() && !self.is_well(*before));
            let dead = time - own.up_at.max(self.calm_at).max(self.settled_at(unit)).min(time);
            assert!(
                dead <= RESTARTS || waits || managed.is_leaving,
                "unit {unit} has no process for {dead} ms: {:?}",
                sup.instance(unit).map(|instance| instance.phase())
            );
            let Some((pid, process)) = self.kernel.main_of(unit) else { continue };
            let (Some(found), Some(since)) = (self.found_in(unit), process.hung_since) else { continue };
            let hangs = time - since.max(self.calm_at).min(time);
            let is_full = own.program.is_some() && self.kernel.makes_none;
            let is_judged = !is_full
                && !process.is_foreign
                && !process.is_crowded
                && process.is_ready
                && process.clock_ahead == 0;
            let is_ending = process.unkillable_until > 0 || process.ends || self.units[unit].is_down;
            let stops =
                self.units[unit].program.map_or(self.rules.stop_timeout, |program| program.stop_timeout);
            assert!(
                hangs <= found + stops.as_ms() + self.naps_since(since.max(self.calm_at))
                    || !is_judged
                    || is_ending
                    || !own.is_listed,
                "unit {unit} (pid {pid}) hangs for {hangs} ms, and is not ended: {:?}",
                sup.instance(unit)
            );
        }
    }

    /// Returns when those that a unit needs were well.
    fn settled_at(&self, unit: usize) -> u64 {
        let since = |before: &usize| self.units[*before].well_since.unwrap_or(0);
        self.units[unit].after.iter().map(since).max().unwrap_or(0)
    }

    /// Checks the end of a run, in which everything was made well.
    pub(super) fn check_end(&mut self) {
        let Some(sup) = &self.supervisor else { panic!("no supervisor runs") };
        for unit in 0..self.units.len() {
            let instance = sup.instance(unit);
            let is_foreign = self.kernel.main_of(unit).is_some_and(|(_, process)| process.is_foreign);
            if self.should_run(unit) {
                let phase = instance.map(|instance| instance.phase());
                assert!(self.is_well(unit), "unit {unit} does not run: {phase:?}");
                assert!(
                    matches!(phase, Some(Phase::Running(_))) || is_foreign,
                    "unit {unit} runs, and the supervisor does not know: {phase:?}"
                );
                assert!(instance.is_some_and(|instance| !instance.is_failing()), "unit {unit} is not fresh");
            } else if self.units[unit].is_listed || self.units[unit].program.is_some() {
                let lives = self.kernel.lives_of(unit);
                assert!(lives.is_empty(), "unit {unit} is not to run, and does: {lives:?}");
            }
        }
        let well = sup.supervision.unrecoverable(self.line.now());
        assert!(well.is_none(), "beyond help at the end: {well:?}");
    }
}
