//! Decides how long to wait before a retry or a restart.

use crate::limits::{RESTART_DELAY, RESTART_DELAY_MAX, RESTART_QUICK};
use crate::util::time::Duration;

/// Returns the wait after `failures` failures in a row: `first` after one failure,
/// doubled for each further one, up to `max` but never less than `first`.
#[must_use]
#[inline(never)]
pub fn delay(first: Duration, failures: u32, max: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(63);
    let doubled = first * 1u64.wrapping_shl(doublings);
    doubled.min(max.max(first))
}

/// Decides how long a process waits for its restart. The first restart is immediate.
/// A process that exits again within [`RESTART_QUICK`] of its start waits, longer each
/// time.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestartBackoff {
    /// Exits in a row, each but the first within [`RESTART_QUICK`] of the start.
    exits: u32,
}

impl RestartBackoff {
    /// Records an exit of a process that lived for `lived`, and returns the wait until
    /// its restart.
    pub fn on_exit(&mut self, lived: Duration) -> Duration {
        if lived >= RESTART_QUICK {
            self.reset();
        }
        let wait = match self.exits {
            0 => Duration::ZERO,
            exits => delay(RESTART_DELAY, exits, RESTART_DELAY_MAX),
        };
        self.exits = self.exits.saturating_add(1);
        wait
    }

    /// Forgets all exits.
    pub fn reset(&mut self) {
        self.exits = 0;
    }

    /// Returns true if the next restart is immediate.
    #[must_use]
    pub const fn is_reset(&self) -> bool {
        self.exits == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay_ms(first_ms: u64, failures: u32, max_ms: u64) -> u64 {
        delay(Duration::from_ms(first_ms), failures, Duration::from_ms(max_ms)).as_ms()
    }

    #[test]
    fn it_doubles_up_to_the_limit() {
        let delays: Vec<u64> = (1..=6).map(|failures| delay_ms(1000, failures, 10_000)).collect();
        assert_eq!(delays, [1000, 2000, 4000, 8000, 10_000, 10_000]);
    }

    #[test]
    fn extremes_do_not_overflow() {
        assert_eq!(delay_ms(u64::MAX, u32::MAX, 5), u64::MAX);
        assert_eq!(delay_ms(0, 100, 5), 0);
        assert_eq!(delay_ms(1, 0, 5), 1);
        assert_eq!(delay_ms(600_000, 1, 300_000), 600_000);
    }

    #[test]
    fn the_first_restart_is_immediate_and_each_quick_one_waits_longer() {
        let mut backoff = RestartBackoff::default();
        let waits: Vec<u64> = (0..9).map(|_| backoff.on_exit(Duration::from_ms(100)).as_secs()).collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        let almost = Duration::from_ms(RESTART_QUICK.as_ms() - 1);
        assert_eq!(backoff.on_exit(almost).as_secs(), 60);
        assert_eq!(backoff.on_exit(RESTART_QUICK), Duration::ZERO);
        assert_eq!((backoff.is_reset(), backoff.on_exit(Duration::ZERO)), (false, RESTART_DELAY));
        backoff.reset();
        assert_eq!((backoff.is_reset(), backoff.on_exit(Duration::ZERO)), (true, Duration::ZERO));
    }
}
