//! The time of a simulated board: what happens when, from the streams of the seed, the counts, and
//! the steps for the report.

use super::random::Random;
use super::scenario::{Kind, Scenario};
use crate::util::time::Instant;
use std::collections::{BTreeMap, VecDeque};

/// Steps that are kept for the report of a run that fails.
pub(super) const TRACE_LINES: usize = 60;
/// Milliseconds that a board has run when its first program starts.
const BOOT_MS: u64 = 2000;

/// See the module's documentation.
pub(super) struct Timeline<E> {
    pub(super) scenario: Scenario,
    /// Milliseconds since the begin of the run.
    pub(super) time: u64,
    /// When the board was started.
    pub(super) booted_at: u64,
    pub(super) boot: u32,
    events: BTreeMap<(u64, u64), E>,
    serial: u64,
    streams: Vec<Random>,
    /// Everything is well, and nothing more happens.
    pub(super) settling: bool,
    trace: Option<VecDeque<String>>,
    /// Steps that are kept.
    pub(super) trace_lines: usize,
    /// Stands for all steps of a run that is traced.
    pub(super) digest: u64,
    pub(super) fired: BTreeMap<Kind, u64>,
}

impl<E> Timeline<E> {
    pub(super) fn new(scenario: &Scenario, traced: bool) -> Self {
        let streams = Kind::ALL.iter().map(|kind| Random::new(scenario.seed, 1000 + *kind as u64)).collect();
        Self {
            scenario: scenario.clone(),
            time: 0,
            booted_at: 0,
            boot: 0,
            events: BTreeMap::new(),
            serial: 0,
            streams,
            settling: false,
            trace: traced.then(VecDeque::new),
            trace_lines: TRACE_LINES,
            digest: 0,
            fired: BTreeMap::new(),
        }
    }

    /// Returns CLOCK_BOOTTIME.
    pub(super) fn now(&self) -> Instant {
        Instant::from_ms(self.time - self.booted_at + BOOT_MS)
    }

    /// Returns when the board's clock shows `due`.
    pub(super) fn time_of(&self, due: Instant) -> u64 {
        self.booted_at + due.as_ms().saturating_sub(BOOT_MS)
    }

    /// Has something happen after `ms`.
    pub(super) fn after(&mut self, ms: u64, event: E) {
        self.serial += 1;
        self.events.insert((self.time + ms, self.serial), event);
    }

    /// Returns when the next event happens.
    pub(super) fn next_at(&self) -> u64 {
        self.events.first_key_value().map_or(u64::MAX, |((at, _), _)| *at)
    }

    pub(super) fn pop(&mut self) -> Option<E> {
        self.events.pop_first().map(|(_, event)| event)
    }

    /// Keeps the events that `keeps` returns true for.
    pub(super) fn retain(&mut self, keeps: impl Fn(&E) -> bool) {
        self.events.retain(|_, event| keeps(event));
    }

    /// Lets `ms` pass in which nothing runs.
    pub(super) fn sleep(&mut self, ms: u64) {
        let events = core::mem::take(&mut self.events);
        self.events = events.into_iter().map(|((at, serial), event)| ((at + ms, serial), event)).collect();
        self.time += ms;
    }

    /// Returns the stream of a kind of event.
    pub(super) fn stream(&mut self, kind: Kind) -> &mut Random {
        &mut self.streams[kind as usize]
    }

    /// Returns the time until the next event of a kind that has a time of its own.
    pub(super) fn wait_for(&mut self, kind: Kind) -> Option<u64> {
        let mean = kind.mean_secs() * 1000;
        let has = mean > 0 && self.scenario.has(kind) && !self.settling;
        has.then(|| self.streams[kind as usize].wait(mean))
    }

    /// Returns true if what happens is not left out by the scenario, and not yet calm.
    pub(super) fn is_open(&self, kind: Kind) -> bool {
        self.scenario.has(kind) && !self.settling && self.time >= self.scenario.calm * 1000
    }

    /// Returns true if an event without a time of its own happens now, once in `times`.
    pub(super) fn happens(&mut self, kind: Kind, times: u64) -> bool {
        let happens = self.streams[kind as usize].one_in(times) && self.is_open(kind);
        if happens {
            self.count(kind);
        }
        happens
    }

    pub(super) fn count(&mut self, kind: Kind) {
        *self.fired.entry(kind).or_default() += 1;
    }

    pub(super) fn trace(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let line = line();
            self.digest = line
                .bytes()
                .fold(self.digest, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
            if trace.len() == self.trace_lines {
                trace.pop_front();
            }
            let (secs, ms) = (self.time / 1000, self.time % 1000);
            trace.push_back(format!("{secs:>9}.{ms:03} boot {} {line}", self.boot));
        }
    }

    pub(super) fn steps(&self) -> Vec<String> {
        self.trace.iter().flatten().cloned().collect()
    }
}
