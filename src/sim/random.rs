//! The numbers from which everything follows. Each kind of event has a stream of its own, so that
//! an event that is left out changes no other one.

/// A stream of numbers that look random, from a seed (SplitMix64).
#[derive(Clone)]
pub(super) struct Random(u64);

impl Random {
    /// Returns the stream number `stream` of `seed`.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93));
        random.next();
        random
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number from 0 up to `below`, which is not among them.
    pub(super) fn below(&mut self, below: u64) -> u64 {
        (self.next() >> 16) % below.max(1)
    }

    /// Returns a number from `low` up to `high`, both among them.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Returns true if an event happens that happens once in `times`.
    pub(super) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Returns a wait in milliseconds whose mean is about `mean`: many short ones, and few long ones.
    pub(super) fn wait(&mut self, mean: u64) -> u64 {
        // The number of leading zeros halves with each step, as a wait does.
        let halvings = u64::from(self.next().leading_zeros()).min(6);
        self.between(1, mean) + halvings * mean / 2
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(usize::try_from(self.below(from.len() as u64)).unwrap_or(0))
    }
}
