//! How often what strangers cause is logged: who may nothing must not be able to fill the
//! log. All of it is counted elsewhere.

use crate::limits::QUOTA_MS;

/// See the module's documentation.
#[derive(Default)]
pub struct Quota {
    since: u64,
    used: u32,
}

impl Quota {
    /// Whether one more may be logged at `now`, of `most` within [`QUOTA_MS`].
    pub fn take(&mut self, now: u64, most: u32) -> bool {
        if self.is_over(now) {
            (self.since, self.used) = (now, 0);
        }
        self.used = self.used.saturating_add(1);
        self.used <= most
    }

    /// How many were not logged, once their time is over; then they are forgotten.
    pub fn missed(&mut self, now: u64, most: u32) -> u32 {
        let missed = self.used.saturating_sub(most);
        if missed == 0 || !self.is_over(now) {
            return 0;
        }
        (self.since, self.used) = (now, 0);
        missed
    }

    fn is_over(&self, now: u64) -> bool {
        now >= self.since.saturating_add(QUOTA_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_within_its_time_and_then_as_many_again() {
        let mut quota = Quota::default();
        let taken = |quota: &mut Quota, now| (0..100).filter(|_| quota.take(now, 10)).count();
        assert_eq!(taken(&mut quota, 1_000_000), 10);
        assert_eq!(taken(&mut quota, 1_000_000 + QUOTA_MS - 1), 0);
        assert_eq!(taken(&mut quota, 1_000_000 + QUOTA_MS), 10);
    }
    #[test]
    fn what_was_not_logged_is_told_once_and_when_its_time_is_over() {
        let mut quota = Quota::default();
        assert_eq!(quota.missed(1_000_000, 2), 0);
        assert_eq!((0..5).filter(|_| quota.take(1_000_000, 2)).count(), 2);
        assert_eq!(quota.missed(1_000_000 + QUOTA_MS - 1, 2), 0);
        assert_eq!(quota.missed(1_000_000 + QUOTA_MS, 2), 3);
        assert_eq!(quota.missed(1_000_000 + 2 * QUOTA_MS, 2), 0);
    }
}
