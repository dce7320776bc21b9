//! Limits the log lines that unauthorized clients and strangers cause, so that they cannot
//! fill the log. The events are all counted, also those that are not logged.

use crate::util::time::{Duration, Instant};

/// Time in which the number of log lines that clients can cause is limited.
pub const QUOTA: Duration = Duration::from_ms(60_000);

/// The number of lines logged within the current [`QUOTA`].
#[derive(Default)]
pub struct RateLimit {
    since: Instant,
    used: u32,
}

impl RateLimit {
    /// Records an event at `now`. Returns true if it may be logged: at most `most` events are
    /// within [`QUOTA`].
    pub fn take(&mut self, now: Instant, most: u32) -> bool {
        if (self.since + QUOTA).is_due(now) {
            (self.since, self.used) = (now, 0);
        }
        self.used = self.used.saturating_add(1);
        self.used <= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_within_its_time_and_then_as_many_again() {
        let mut rate_limit = RateLimit::default();
        let taken = |rate_limit: &mut RateLimit, now| {
            (0..100).filter(|_| rate_limit.take(Instant::from_ms(now), 10)).count()
        };
        let span = QUOTA.as_ms();
        assert_eq!(taken(&mut rate_limit, 1_000_000), 10);
        assert_eq!(taken(&mut rate_limit, 1_000_000 + span - 1), 0);
        assert_eq!(taken(&mut rate_limit, 1_000_000 + span), 10);
    }
}
