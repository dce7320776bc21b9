//! Waits that double, up to a limit.

use crate::util::time::Duration;

/// The wait after `failures` failures in a row (at least one): `first`,
/// doubled for each further one, at most `max` but never less than
/// `first`.
#[must_use]
pub fn delay(first: Duration, failures: u32, max: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(63);
    let doubled = first * 1u64.wrapping_shl(doublings);
    doubled.min(max.max(first))
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
}
