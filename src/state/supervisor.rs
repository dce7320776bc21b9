//! Decides what the supervisor does with its instances.
//!
//! [`Supervision`] performs nothing. The service reports each event with
//! [`Supervision::on_report`] or [`Supervision::on_stop`], and pulls the decisions that time
//! makes due with [`Supervision::poll`], until that returns `None`. It performs each
//! [`Decision`] before it asks for the next one.
//!
//! | state \ event | first stop | stop, leave running | second stop | probes are due | deadline of an instance |
//! | --- | --- | --- | --- | --- | --- |
//! | [`StopMode::No`] | `Gracefully`: TERM to each | `LeaveRunning` | - | probe each | its decision |
//! | [`StopMode::Gracefully`] | - | - | `Killing`: KILL to each | probe each | its decision |
//! | [`StopMode::Killing`] | - | - | KILL to each | probe each | its decision |
//! | [`StopMode::LeaveRunning`] | the supervisor has ended | | | | |
//!
//! The phases of an instance are in [`instance`].

pub mod decision;
pub mod instance;
pub mod order;
pub mod probe;

use crate::limits::SUPERVISED_MAX;
use crate::util::time::{Instant, earliest};
use core::ops::Range;
use decision::{Action, Decision, Event, ExitReason, NOTHING, Report, Rules};
use heapless::Vec;
use instance::Instance;

/// Whether the supervisor stops, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopMode {
    /// The supervisor does not stop.
    No,
    /// TERM was sent to each process.
    Gracefully,
    /// KILL was sent to each process.
    Killing,
    /// The processes continue without the supervisor.
    LeaveRunning,
}

/// See the module's documentation.
pub struct Supervision {
    instances: Vec<Instance, SUPERVISED_MAX>,
    rules: Rules,
    stop_mode: StopMode,
    /// The instances that the last stop has not reached.
    to_stop: Range<usize>,
    /// When the instances are probed next; `None` if there is no health to probe.
    probe_at: Option<Instant>,
    /// The instances whose deadlines the current round has not reached; `None` between two
    /// rounds.
    to_check: Option<Range<usize>>,
    /// The instances that the current round of probes has not reached.
    to_probe: Range<usize>,
    /// When the supervisor reports ready at the latest; `None` after the report.
    ready_deadline: Option<Instant>,
    /// Restarts of processes that have ended.
    restarts: u64,
}

impl Supervision {
    /// Creates the state of a supervisor that starts at `now`, without instances. It
    /// probes them if they have health files.
    #[must_use]
    pub fn new(now: Instant, rules: Rules, has_health_files: bool) -> Self {
        Self {
            instances: Vec::new(),
            rules,
            stop_mode: StopMode::No,
            to_stop: 0..0,
            probe_at: has_health_files.then_some(now),
            to_check: None,
            to_probe: 0..0,
            ready_deadline: Some(now + rules.stale_after),
            restarts: 0,
        }
    }

    // ----- instances ----------------------------------------------------------

    /// Adds an instance, which is started or adopted at `now`. Its index is the number of
    /// instances that there were.
    pub fn add(&mut self, now: Instant) {
        let _ = self.instances.push(Instance::new(now));
    }

    /// Removes an instance without a change of its process. The last instance gets its
    /// index.
    pub fn remove(&mut self, index: usize) {
        if index < self.instances.len() {
            self.instances.swap_remove(index);
        }
    }

    /// Returns the instances in the order of their indexes.
    #[must_use]
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// Returns the PID of the known process of an instance.
    #[must_use]
    pub fn pid(&self, index: usize) -> Option<u32> {
        self.instances.get(index)?.pid()
    }

    /// Returns the first instance that only a reset of the board can help.
    #[must_use]
    pub fn unrecoverable(&self, now: Instant) -> Option<usize> {
        let patience = self.rules.watchdog_patience;
        self.instances.iter().position(|instance| instance.is_unrecoverable(now, patience))
    }

    /// Returns true if the heartbeat of an instance cannot be judged.
    #[must_use]
    pub fn has_unjudged(&self) -> bool {
        self.instances.iter().any(Instance::is_unjudged)
    }

    // ----- the supervisor -----------------------------------------------------

    /// Puts new rules into force at `now`. A shorter interval holds for the next probe.
    pub fn set_rules(&mut self, now: Instant, rules: Rules) {
        self.probe_at = self.probe_at.map(|at| at.or_earlier(now + rules.check_interval));
        self.rules = rules;
    }

    /// Returns the number of restarts.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Returns true if the supervisor has not reported ready.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        self.ready_deadline.is_some()
    }

    /// Returns true if the supervisor is to report ready at `now`: each process runs or
    /// has failed once, or the start takes longer than a heartbeat may be old.
    #[must_use]
    pub fn is_ready(&self, now: Instant) -> bool {
        self.ready_deadline
            .is_some_and(|by| by.is_due(now) || self.instances.iter().all(Instance::is_settled))
    }

    /// Records that the supervisor reports ready, and returns true if it had not before.
    pub fn on_announced(&mut self) -> bool {
        self.ready_deadline.take().is_some()
    }

    /// Records a request to stop the supervisor, and returns true if it is the first one.
    /// With `leave_running` the processes continue.
    pub fn on_stop(&mut self, leave_running: bool) -> bool {
        let before = self.stop_mode;
        self.stop_mode = match (before, leave_running) {
            (StopMode::No, true) => StopMode::LeaveRunning,
            (_, true) => before,
            (StopMode::No, false) => StopMode::Gracefully,
            (_, false) => StopMode::Killing,
        };
        if !leave_running {
            self.instances.iter_mut().for_each(Instance::forbid_start);
            self.to_stop = 0..self.instances.len();
        }
        before == StopMode::No
    }

    /// Returns true if the supervisor stops.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stop_mode != StopMode::No
    }

    /// Returns true if the supervisor has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self.stop_mode {
            StopMode::No => false,
            StopMode::Gracefully | StopMode::Killing => self.instances.iter().all(Instance::is_over),
            StopMode::LeaveRunning => true,
        }
    }

    // ----- time ---------------------------------------------------------------

    /// Returns when [`Supervision::poll`] or [`Supervision::is_ready`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let instances = self.instances.iter().map(Instance::next_deadline);
        instances.chain([self.probe_at, self.ready_deadline]).fold(None, earliest)
    }

    /// Returns the next decision that is due at `now`, and the instance that it is about.
    /// `None` ends a round, in which each deadline is checked once. A start that fails is
    /// tried again in the next round, because the supervisor reports ready in between.
    pub fn poll(&mut self, now: Instant) -> Option<(usize, Decision)> {
        while let Some(index) = self.to_stop.next() {
            let is_second = self.stop_mode == StopMode::Killing;
            let decision =
                self.on_report(index, now, if is_second { Report::SecondStop } else { Report::Stop });
            if decision != NOTHING {
                return Some((index, decision));
            }
        }
        let to_check = self.to_check.get_or_insert(0..self.instances.len());
        for index in to_check.by_ref() {
            let decision = self
                .instances
                .get_mut(index)
                .map_or(NOTHING, |instance| instance.on_deadline(now, &self.rules));
            if decision != NOTHING {
                return Some((index, decision));
            }
        }
        if self.probe_at.is_some_and(|at| at.is_due(now)) {
            self.start_probes(now);
        }
        let probed = self.to_probe.next();
        if probed.is_none() {
            self.to_check = None;
        }
        probed.map(|index| (index, (Action::Probe, None)))
    }

    /// Starts a round of probes, and schedules the next one. After a suspend each
    /// heartbeat is old, so each process gets the time for a new one.
    fn start_probes(&mut self, now: Instant) {
        let Rules { check_interval, stale_after, .. } = self.rules;
        let slept = self.probe_at.is_some_and(|at| now.since(at) > stale_after);
        self.probe_at = Some(now + if slept { stale_after } else { check_interval });
        self.to_probe = if slept { 0..0 } else { 0..self.instances.len() };
    }

    // ----- events -------------------------------------------------------------

    /// Reports to an instance what happened at `now`, and counts the restart that follows.
    pub fn on_report(&mut self, index: usize, now: Instant, report: Report) -> Decision {
        let Some(instance) = self.instances.get_mut(index) else { return NOTHING };
        let decision = instance.on_report(now, report, &self.rules);
        if let (_, Some(Event::Died(reason, _) | Event::Replaced(reason, _))) = decision
            && reason != ExitReason::NotStarted
        {
            self.restarts = self.restarts.saturating_add(1);
        }
        decision
    }
}

#[cfg(test)]
mod tests;
