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
//! | [`StopMode::LeaveRunning`] | KILL to each program | - | KILL to each program | probe each | its decision |
//!
//! `LeaveRunning` stops the programs, which end with the supervisor in any case, and leaves the
//! services. A program is stopped when those that need it have ended, or at once at a second stop.
//!
//! The phases of an instance are in [`instance`].

pub mod decision;
pub mod instance;
pub mod order;
pub mod probe;

use crate::limits::SUPERVISED_MAX;
use crate::util::time::{Duration, Instant, earliest};
use core::ops::Range;
use decision::{Action, Decision, Event, ExitReason, NOTHING, ProgramRules, Report, Rules};
use heapless::Vec;
use instance::Instance;

/// Time after a deadline of the supervisor from which on the end of a process may have come well before
/// it is seen.
const END_SEEN_LATE: Duration = Duration::from_ms(1000);

/// Whether the supervisor stops, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopMode {
    /// The supervisor does not stop.
    No,
    /// TERM was sent to each process.
    Gracefully,
    /// KILL was sent to each process.
    Killing,
    /// The services continue without the supervisor. The stop signal was sent to each program.
    LeaveRunning,
}

/// See the module's documentation.
pub struct Supervision {
    instances: Vec<Instance, SUPERVISED_MAX>,
    rules: Rules,
    stop_mode: StopMode,
    /// The instances that the last stop has not reached, as bits of their indexes.
    to_stop: u64,
    /// The supervisor was asked a second time to stop.
    hurried: bool,
    /// When the instances are probed next; `None` if there is no health to probe.
    probe_at: Option<Instant>,
    /// When the last round began.
    round_at: Instant,
    /// When the next round was due at its end.
    due_at: Option<Instant>,
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
            to_stop: 0,
            hurried: false,
            probe_at: has_health_files.then_some(now),
            round_at: now,
            due_at: Some(now),
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

    /// Adds a program, which is started at `now` if those that it needs are ready. Its index is the
    /// number of instances that there were.
    pub fn add_program(&mut self, now: Instant, rules: ProgramRules) {
        let _ = self.instances.push(Instance::of_program(now, rules));
    }

    /// Puts the rules of a program's file into force.
    pub fn set_program(&mut self, index: usize, rules: ProgramRules) {
        self.instances.get_mut(index).into_iter().for_each(|instance| instance.set_program(rules));
    }

    /// Sets the instances that a program needs, as bits of their indexes.
    pub fn set_needs(&mut self, index: usize, needs: u64) {
        self.instances.get_mut(index).into_iter().for_each(|instance| instance.needs = needs);
    }

    /// Removes an instance without a change of its process. Those after it get smaller indexes.
    pub fn remove(&mut self, index: usize) {
        if index < self.instances.len() {
            self.instances.remove(index);
            let below = (1u64 << index).wrapping_sub(1);
            let without = |bits: u64| bits & below | bits >> 1 & !below;
            self.to_stop = without(self.to_stop);
            self.instances.iter_mut().for_each(|instance| instance.needs = without(instance.needs));
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
        let is_first = before == StopMode::No;
        if leave_running && !is_first {
            return false;
        }
        self.stop_mode = match (before, leave_running) {
            (_, true) | (StopMode::LeaveRunning, _) => StopMode::LeaveRunning,
            (StopMode::No, false) => StopMode::Gracefully,
            (_, false) => StopMode::Killing,
        };
        self.hurried = !is_first;
        self.instances.iter_mut().for_each(Instance::forbid_start);
        let leaves = self.stop_mode == StopMode::LeaveRunning;
        let stops = self.instances.iter().map(|instance| instance.is_program() || !leaves);
        self.to_stop = bits(stops);
        is_first
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
            StopMode::LeaveRunning => {
                self.instances.iter().filter(|instance| instance.is_program()).all(Instance::is_over)
            }
        }
    }

    // ----- time ---------------------------------------------------------------

    /// Returns when [`Supervision::poll`] or [`Supervision::is_ready`] is due.
    #[must_use]
    #[unsafe(link_section = ".text.idle")]
    pub fn next_deadline(&self) -> Option<Instant> {
        let instances = self.instances.iter().map(Instance::next_deadline);
        let probe_at = self.probe_at.filter(|_| self.has_timed());
        instances.chain([probe_at, self.ready_deadline]).fold(None, earliest)
    }

    /// Returns the next decision that is due at `now`, and the instance that it is about.
    /// `None` ends a round, in which each deadline is checked once. A start that fails is
    /// tried again in the next round, because the supervisor reports ready in between.
    pub fn poll(&mut self, now: Instant) -> Option<(usize, Decision)> {
        if self.to_check.is_none() {
            self.begin_round(now);
        }
        while let Some(index) = self.next_to_stop() {
            self.to_stop &= !(1 << index);
            let report = if self.hurried { Report::SecondStop } else { Report::Stop };
            let decision = self.on_report(index, now, report);
            if decision != NOTHING {
                return Some((index, decision));
            }
        }
        self.update_blocked(now);
        let to_check = self.to_check.get_or_insert(0..self.instances.len());
        for index in to_check.by_ref() {
            let decision = self.instances.get_mut(index).map_or(NOTHING, |instance| {
                let rules = instance.rules(&self.rules);
                instance.on_deadline(now, &rules)
            });
            if decision != NOTHING {
                return Some((index, decision));
            }
        }
        if self.probe_at.is_some_and(|at| at.is_due(now)) && self.has_timed() {
            self.start_probes(now);
        }
        let is_probed = |index: &usize| self.instances.get(*index).is_none_or(Instance::is_probed);
        let probed = self.to_probe.find(is_probed);
        if probed.is_none() {
            self.to_check = None;
            self.due_at = self.next_deadline().map(|at| at.or_later(now));
        }
        probed.map(|index| (index, (Action::Probe, None)))
    }

    /// Returns true if the time of the next probe counts: an instance has a health file or a lock to
    /// probe, or nothing else would show that the board was suspended while a program was late.
    #[unsafe(link_section = ".text.idle")]
    fn has_timed(&self) -> bool {
        // A supervisor without instances keeps its time, because the first can come at any time.
        self.instances.is_empty() || self.instances.iter().any(Instance::is_timed)
    }

    /// Returns the next instance that a stop reaches: none that needs it runs.
    fn next_to_stop(&self) -> Option<usize> {
        let is_needed = |index: usize| {
            let needs = |instance: &Instance| instance.needs >> index & 1 != 0 && !instance.is_over();
            self.instances.iter().any(needs)
        };
        let left = (0..self.instances.len()).filter(|index| self.to_stop >> index & 1 != 0);
        left.filter(|index| self.hurried || !is_needed(*index)).min()
    }

    /// Finds out which programs wait for others.
    #[unsafe(link_section = ".text.idle")]
    fn update_blocked(&mut self, now: Instant) {
        let ready = bits(self.instances.iter().map(Instance::blocks_none));
        self.instances
            .iter_mut()
            .for_each(|instance| instance.set_blocked(now, instance.needs & !ready != 0));
    }

    /// Returns when the supervisor was awake before what happened by `now`: `now`, but if its deadline
    /// has passed for longer than `patience`, the board was suspended, or the supervisor blocked, since
    /// the last round.
    #[inline(never)]
    #[unsafe(link_section = ".text.idle")]
    fn last_awake(&self, now: Instant, patience: Duration) -> Instant {
        let is_late = |at: Option<Instant>| at.is_some_and(|at| now.since(at) > patience);
        // An event can make a start due that was blocked, or end the only wait.
        if is_late(self.due_at) && is_late(self.next_deadline()) { self.round_at } else { now }
    }

    /// Returns true if an end with success that is seen at `now` is that of a program that may run in the
    /// background from then on, because it ended soon.
    #[must_use]
    pub fn may_be_in_background(&self, index: usize, now: Instant) -> bool {
        let seen_at = self.last_awake(now, END_SEEN_LATE);
        self.instances.get(index).is_some_and(|instance| instance.may_be_in_background(seen_at))
    }

    /// Begins a round at `now`. After a suspend each heartbeat is old, so each process gets the time for
    /// a new one, and the span is left out of each time that a process has. No process could recover,
    /// or end, in it.
    fn begin_round(&mut self, now: Instant) {
        let span = now.since(self.last_awake(now, self.rules.stale_after));
        if span > Duration::ZERO {
            self.instances.iter_mut().for_each(|instance| instance.sleep(span));
            self.probe_at = self.probe_at.map(|_| now + self.rules.stale_after);
        }
        self.round_at = now;
    }

    /// Starts a round of probes, and schedules the next one.
    fn start_probes(&mut self, now: Instant) {
        self.probe_at = Some(now + self.rules.check_interval);
        self.to_probe = 0..self.instances.len();
    }

    /// Takes that the supervisor cannot write its own health file at `now`, so that a heartbeat that is
    /// stale proves nothing.
    pub fn on_unwritten(&mut self, now: Instant) {
        for instance in &mut self.instances {
            let rules = instance.rules(&self.rules);
            instance.on_unwritten(now, &rules);
        }
    }

    // ----- events -------------------------------------------------------------

    /// Reports to an instance what happened at `now`, and counts the restart that follows.
    pub fn on_report(&mut self, index: usize, now: Instant, report: Report) -> Decision {
        let Some(instance) = self.instances.get_mut(index) else { return NOTHING };
        let rules = instance.rules(&self.rules);
        let decision = instance.on_report(now, report, &rules);
        if let (_, Some(Event::Died(reason, _) | Event::Replaced(reason, _))) = decision
            && reason != ExitReason::NotStarted
        {
            self.restarts = self.restarts.saturating_add(1);
        }
        // Another one may be started now, and its deadline counts.
        self.update_blocked(now);
        decision
    }
}

/// Returns the bits of the indexes at which there is true.
fn bits(flags: impl Iterator<Item = bool>) -> u64 {
    flags.enumerate().fold(0, |bits, (index, flag)| bits | u64::from(flag) << index)
}

#[cfg(test)]
mod tests;
