//! Points in time and spans of time, in milliseconds. They are two types, so that the compiler
//! refuses one in the place of the other, and a plain number in the place of both.
//!
//! ```
//! use zigsvc::util::time::{Duration, Instant};
//! let (began, now) = (Instant::from_ms(1000), Instant::from_ms(1500));
//! assert_eq!(now.since(began), Duration::from_ms(500));
//! assert!((began + Duration::from_ms(500)).is_due(now));
//! ```
//!
//! ```compile_fail
//! use zigsvc::util::time::{Duration, Instant};
//! let swapped = Duration::from_ms(500) + Instant::from_ms(1000);
//! ```
//!
//! All arithmetic stops at zero and at the largest number. The layers that perform, `service`
//! and `cli`, do not compare two times themselves. They use [`Instant::is_due`], [`earliest`]
//! and the other decisions here.

use core::fmt::{self, Debug, Formatter};
use core::ops::{Add, AddAssign, Div, Mul};

/// A point in time, in milliseconds since the start of the system (CLOCK_BOOTTIME).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

/// A span of time in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(u64);

impl Instant {
    /// The start of the system, when the clock began to count. It is always due.
    pub const BOOT: Self = Self(0);

    /// Returns the point that is `ms` milliseconds after the start of the system.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Returns the milliseconds from the start of the system to this point.
    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// Returns true if this point has come at `now`.
    #[must_use]
    pub const fn is_due(self, now: Self) -> bool {
        self.0 <= now.0
    }

    /// Returns true if this point comes before `other`, and is not the same.
    #[must_use]
    pub const fn is_before(self, other: Self) -> bool {
        self.0 < other.0
    }

    /// Returns the span from `earlier` to this point; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration(self.0.saturating_sub(earlier.0))
    }

    /// Returns the span from this point to `later`; zero if `later` is earlier.
    #[must_use]
    pub const fn until(self, later: Self) -> Duration {
        later.since(self)
    }

    /// Returns the point that is `span` before this one.
    #[must_use]
    pub const fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(span.0))
    }

    /// Returns the earlier one of two points.
    #[must_use]
    pub const fn or_earlier(self, other: Self) -> Self {
        if other.is_before(self) { other } else { self }
    }

    /// Returns the later one of two points.
    #[must_use]
    pub const fn or_later(self, other: Self) -> Self {
        if self.is_before(other) { other } else { self }
    }
}

impl Duration {
    /// The empty span.
    pub const ZERO: Self = Self(0);

    /// Returns a span of `ms` milliseconds.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Returns a span of `secs` seconds.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Returns the milliseconds of the span.
    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// Returns the whole seconds of the span.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// Returns the seconds of the span, a started one included.
    #[must_use]
    pub const fn as_secs_up(self) -> u64 {
        self.0.div_ceil(1000)
    }

    /// Returns true if the span is empty.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Returns true if the span is longer than `limit`.
    #[must_use]
    pub const fn exceeds(self, limit: Self) -> bool {
        self.0 > limit.0
    }

    /// Returns the span, or `limit` if that is shorter.
    #[must_use]
    pub const fn at_most(self, limit: Self) -> Self {
        if self.exceeds(limit) { limit } else { self }
    }

    /// Returns the span, or `limit` if that is longer.
    #[must_use]
    pub const fn at_least(self, limit: Self) -> Self {
        if limit.exceeds(self) { limit } else { self }
    }
}

impl Debug for Instant {
    /// Writes the milliseconds, and nothing else.
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(&self.0, out)
    }
}

impl Debug for Duration {
    /// Writes the milliseconds, and nothing else.
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(&self.0, out)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}

impl Add for Duration {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Mul<u64> for Duration {
    type Output = Self;

    fn mul(self, factor: u64) -> Self {
        Self(self.0.saturating_mul(factor))
    }
}

impl Div<u64> for Duration {
    type Output = Self;

    fn div(self, divisor: u64) -> Self {
        Self(self.0.checked_div(divisor).unwrap_or(0))
    }
}

/// Returns the earlier one of two points that may be missing; `None` if both are.
#[must_use]
#[inline(never)]
pub const fn earliest(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.or_earlier(other)),
        (Some(only), None) | (None, Some(only)) => Some(only),
        (None, None) => None,
    }
}

/// Returns the item whose point in time is the earliest, and the first one of several
/// that have the same.
pub fn earliest_by<T>(items: impl Iterator<Item = T>, point: impl Fn(&T) -> Instant) -> Option<T> {
    items.min_by_key(point)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_ms(ms)
    }

    #[test]
    fn a_point_is_due_from_its_moment_on() {
        assert!(!at(5).is_due(at(4)));
        assert!(at(5).is_due(at(5)));
        assert!(at(5).is_due(at(6)));
        assert!(Instant::BOOT.is_due(Instant::default()));
        assert!(at(4).is_before(at(5)));
        assert!(!at(5).is_before(at(5)));
        assert!(!at(6).is_before(at(5)));
    }

    #[test]
    fn a_span_ends_at_zero_and_at_the_largest_number() {
        assert_eq!(at(7).since(at(5)), ms(2));
        assert_eq!(at(5).since(at(7)), Duration::ZERO);
        assert_eq!(at(5).until(at(7)), ms(2));
        assert_eq!(at(7).until(at(5)), Duration::ZERO);
        assert_eq!(at(7).minus(ms(2)), at(5));
        assert_eq!(at(1).minus(ms(2)), Instant::BOOT);
        assert_eq!(at(5) + ms(2), at(7));
        assert_eq!(at(u64::MAX) + ms(1), at(u64::MAX));
        assert_eq!(ms(u64::MAX) + ms(1), ms(u64::MAX));
        assert_eq!((ms(3) * 2, ms(u64::MAX) * 2), (ms(6), ms(u64::MAX)));
        assert_eq!((ms(7) / 2, ms(7) / 0), (ms(3), ms(0)));
        let mut moved = at(1);
        moved += ms(2);
        assert_eq!(moved, at(3));
    }

    #[test]
    fn seconds_are_whole_ones() {
        assert_eq!((ms(1999).as_secs(), Duration::from_secs(2)), (1, ms(2000)));
        assert_eq!((ms(1001).as_secs_up(), ms(1000).as_secs_up(), ms(0).as_secs_up()), (2, 1, 0));
        assert_eq!(Duration::from_secs(u64::MAX), ms(u64::MAX));
        assert_eq!((ms(1999).as_ms(), at(7).as_ms()), (1999, 7));
        assert_eq!(format!("{:?} {:?}", at(7), ms(1999)), "7 1999");
    }

    #[test]
    fn the_one_that_comes_first_and_the_shorter_one_are_found() {
        assert_eq!((at(1).or_earlier(at(2)), at(2).or_earlier(at(1))), (at(1), at(1)));
        assert_eq!((at(1).or_later(at(2)), at(2).or_later(at(1))), (at(2), at(2)));
        assert_eq!((ms(1).at_most(ms(2)), ms(3).at_most(ms(2))), (ms(1), ms(2)));
        assert_eq!((ms(1).at_least(ms(2)), ms(3).at_least(ms(2))), (ms(2), ms(3)));
        assert_eq!((ms(2).exceeds(ms(1)), ms(2).exceeds(ms(2))), (true, false));
        assert_eq!((ms(0).is_zero(), ms(1).is_zero()), (true, false));
        let all = [None, Some(at(7)), Some(at(5)), None];
        assert_eq!(all.into_iter().fold(None, earliest), Some(at(5)));
        assert_eq!((earliest(all[1], all[0]), earliest(all[0], all[2])), (Some(at(7)), Some(at(5))));
        assert_eq!(earliest(None, None), None);
        let items = [('a', 2), ('b', 1), ('c', 1)];
        let first = earliest_by(items.iter(), |(_, when)| at(*when));
        assert_eq!(first, Some(&('b', 1)));
        assert_eq!(earliest_by([0; 0].iter(), |when| at(**when)), None);
    }
}
