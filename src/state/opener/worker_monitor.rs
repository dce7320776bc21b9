//! Decides when the main process of the opener starts and kills its worker.
//!
//! | phase \ event | message | silent for `patience` | exit | deadline | start failed | stop |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | `Backoff(at)` | - | - | - | start: `Running` | `Backoff`, later | - |
//! | `Running` | `Running`, heard now | kill: `Backoff` | `Backoff` | - | - | `Stopping` |
//! | `Stopping(at)` | - | - | gone | kill | - | - |
//!
//! A worker that has shown that it lives is replaced at once after its end, but at most each
//! `WORKER_EVERY`. One that never did is started more slowly each time.
//!
//! After a suspend of the system the worker was silent, too, and gets its time again.

use crate::state::backoff::RestartBackoff;
use crate::util::time::{Duration, Instant};

/// Time after which a worker of the opener that was asked to end is killed.
const WORKER_GRACE: Duration = Duration::from_ms(500);
/// Time beyond the worker's deadline from which the whole system must have been suspended.
/// The worker then gets its time again.
const WORKER_OVERSLEPT: Duration = Duration::from_ms(1000);

/// Minimum time from the start of a worker to that of the next one. Without it, a worker that is
/// killed again and again would keep the processor busy.
const WORKER_EVERY: Duration = Duration::from_ms(100);

/// The action that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WorkerAction {
    /// Start a worker; [`WorkerMonitor::on_started`] or [`WorkerMonitor::on_exit`] takes the
    /// result.
    Start,
    /// Kill the worker.
    Kill,
}

#[derive(Clone, Copy, Debug)]
enum WorkerPhase {
    /// No worker runs; one is started at this time.
    Backoff(Instant),
    /// A worker runs: when it was started, and when its last message came.
    Running(Instant, Instant),
    /// The worker was asked to exit, and is killed at this time.
    Stopping(Instant),
}

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct WorkerMonitor {
    phase: WorkerPhase,
    backoff: RestartBackoff,
    /// The worker has shown that it lives.
    shown: bool,
}

impl Default for WorkerMonitor {
    fn default() -> Self {
        Self { phase: WorkerPhase::Backoff(Instant::BOOT), backoff: RestartBackoff::default(), shown: false }
    }
}

impl WorkerMonitor {
    /// Returns when [`WorkerMonitor::poll`] is due.
    #[must_use]
    #[unsafe(link_section = ".text.idle")]
    pub fn next_deadline(&self, patience: Duration) -> Option<Instant> {
        Some(match self.phase {
            WorkerPhase::Backoff(at) | WorkerPhase::Stopping(at) => at,
            WorkerPhase::Running(_, heard_at) => heard_at + patience,
        })
    }

    /// Returns the action that is due at `now`. A worker may be silent for `patience`.
    #[unsafe(link_section = ".text.idle")]
    pub fn poll(&mut self, now: Instant, patience: Duration) -> Option<WorkerAction> {
        let due = self.next_deadline(patience).filter(|due| due.is_due(now))?;
        match &mut self.phase {
            WorkerPhase::Backoff(_) => Some(WorkerAction::Start),
            WorkerPhase::Running(_, heard_at) if (due + WORKER_OVERSLEPT).is_due(now) => {
                *heard_at = now;
                None
            }
            WorkerPhase::Running(..) | WorkerPhase::Stopping(_) => Some(WorkerAction::Kill),
        }
    }

    /// Records that a worker was started.
    pub fn on_started(&mut self, now: Instant) {
        self.phase = WorkerPhase::Running(now, now);
        self.shown = false;
    }

    /// Records that the worker showed that it is alive.
    pub fn on_message(&mut self, now: Instant) {
        if let WorkerPhase::Running(_, heard_at) = &mut self.phase {
            *heard_at = now;
            self.shown = true;
        }
    }

    /// Records that the worker has exited or is killed, or could not be started. Returns
    /// the wait until the next start.
    pub fn on_exit(&mut self, now: Instant) -> Duration {
        let started_at = match self.phase {
            WorkerPhase::Running(started_at, _) => started_at,
            WorkerPhase::Backoff(_) | WorkerPhase::Stopping(_) => now,
        };
        let wait = if self.shown {
            self.backoff.reset();
            now.until(started_at + WORKER_EVERY)
        } else {
            self.backoff.on_exit(now.since(started_at))
        };
        self.shown = false;
        self.phase = WorkerPhase::Backoff(now + wait);
        wait
    }

    /// Records that the worker was asked to exit.
    pub fn on_stop(&mut self, now: Instant) {
        self.phase = WorkerPhase::Stopping(now + WORKER_GRACE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::RESTART_QUICK;

    const fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_ms(ms)
    }

    const PATIENCE: Duration = ms(15_000);

    fn started(now: Instant) -> WorkerMonitor {
        let mut monitor = WorkerMonitor::default();
        assert_eq!(monitor.poll(now, PATIENCE), Some(WorkerAction::Start));
        monitor.on_started(now);
        monitor
    }

    #[test]
    fn a_worker_that_exits_before_it_shows_that_it_lives_is_replaced_at_once_and_then_more_slowly() {
        let mut monitor = started(at(1000));
        let mut now = at(1000);
        let mut waits = Vec::new();
        for _ in 0..8 {
            now += ms(10);
            let wait = monitor.on_exit(now);
            waits.push(wait.as_secs());
            assert_eq!(monitor.next_deadline(PATIENCE), Some(now + wait));
            if !wait.is_zero() {
                assert_eq!(monitor.poll(now + ms(wait.as_ms() - 1), PATIENCE), None);
            }
            now += wait;
            assert_eq!(monitor.poll(now, PATIENCE), Some(WorkerAction::Start));
            monitor.on_started(now);
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60]);
        assert_eq!(monitor.on_exit(now + RESTART_QUICK), ms(0), "a long life ends the row");
    }

    #[test]
    fn a_worker_that_has_shown_that_it_lives_is_replaced_at_once_whenever_it_ends() {
        let mut monitor = started(at(1000));
        let mut now = at(1000);
        for lived in [5, 50, 99, 100, 5000, 1] {
            monitor.on_message(now + ms(1));
            now += ms(lived);
            let wait = monitor.on_exit(now);
            assert_eq!(wait, ms(100_u64.saturating_sub(lived)), "{lived}");
            now += wait;
            assert_eq!(monitor.poll(now, PATIENCE), Some(WorkerAction::Start));
            monitor.on_started(now);
        }
        assert_eq!(monitor.on_exit(now), ms(0), "the first of a new row");
        assert_eq!(monitor.poll(now, PATIENCE), Some(WorkerAction::Start));
        monitor.on_started(now);
        assert_eq!(monitor.on_exit(now), ms(1000), "it never showed that it lives");
    }

    #[test]
    fn a_start_that_fails_is_tried_again_later() {
        let mut monitor = WorkerMonitor::default();
        assert_eq!(monitor.on_exit(at(5)), ms(0));
        assert_eq!(monitor.poll(at(5), PATIENCE), Some(WorkerAction::Start));
        assert_eq!(monitor.on_exit(at(5)), ms(1000));
        assert_eq!(monitor.poll(at(1004), PATIENCE), None);
        assert_eq!(monitor.poll(at(1005), PATIENCE), Some(WorkerAction::Start));
        assert_eq!(monitor.on_exit(at(60_000)), ms(2000), "the time without a worker is no life");
    }

    #[test]
    fn a_silent_worker_is_killed_after_the_patience() {
        let mut monitor = started(at(1000));
        assert_eq!(monitor.next_deadline(PATIENCE), Some(at(16_000)));
        monitor.on_message(at(4000));
        assert_eq!(monitor.poll(at(18_999), PATIENCE), None);
        assert_eq!(monitor.poll(at(19_000), PATIENCE), Some(WorkerAction::Kill));
        assert_eq!(monitor.poll(at(19_999), PATIENCE), Some(WorkerAction::Kill));
        // A reload can change the patience.
        assert_eq!(monitor.poll(at(19_000), ms(20_000)), None);
        assert_eq!(monitor.on_exit(at(19_000)), ms(0));
    }

    #[test]
    fn after_a_suspend_the_worker_gets_its_time_again() {
        let mut monitor = started(at(1000));
        assert_eq!(monitor.poll(at(17_000), PATIENCE), None);
        assert_eq!(monitor.next_deadline(PATIENCE), Some(at(32_000)));
        assert_eq!(monitor.poll(at(32_000), PATIENCE), Some(WorkerAction::Kill));
    }

    #[test]
    fn a_worker_that_does_not_exit_is_killed_after_the_grace() {
        let mut monitor = started(at(1000));
        monitor.on_stop(at(2000));
        monitor.on_message(at(2100));
        assert_eq!(monitor.next_deadline(PATIENCE), Some(at(2000) + WORKER_GRACE));
        assert_eq!(monitor.poll(at(2499), PATIENCE), None);
        assert_eq!(monitor.poll(at(2500), PATIENCE), Some(WorkerAction::Kill));
    }
}
