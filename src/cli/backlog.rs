//! The lines that `queue -` has read and not yet seen acknowledged, in one
//! buffer of fixed size. Pure: no system call.
//!
//! ```text
//! [ kept | (gap) | in-flight | waiting | free ]
//! ```
//!
//! *Waiting* lines were not sent; *in-flight* ones were, and their answers come in
//! order; *kept* ones were refused for now. Each line is its number (4 bytes),
//! its length (2 bytes), its text. [`Backlog::rewind`] makes all of them wait
//! again, in order; it is for when nothing flies any more, or nothing that
//! flies will be answered.

/// Bytes before the text of a line.
const HEAD_BYTES: usize = 6;

/// See the module's documentation.
pub(super) struct Backlog<'m> {
    buffer: &'m mut [u8],
    /// Where the kept lines end.
    kept_end: usize,
    /// Where the in-flight lines begin.
    in_flight: usize,
    /// Where the waiting lines begin.
    waiting: usize,
    /// Where they end.
    end: usize,
    /// All lines that are held.
    count: u32,
}

impl<'m> Backlog<'m> {
    /// No lines.
    pub(super) fn new(buffer: &'m mut [u8]) -> Self {
        Self { buffer, kept_end: 0, in_flight: 0, waiting: 0, end: 0, count: 0 }
    }

    /// How many lines are held.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Whether an answer is to come.
    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight < self.waiting
    }

    /// Whether a line is to be sent again.
    pub(super) fn has_kept(&self) -> bool {
        self.kept_end > 0
    }

    /// Whether a line of `bytes` fits.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let used = self.kept_end.saturating_add(self.end.saturating_sub(self.in_flight));
        used.saturating_add(bytes).saturating_add(HEAD_BYTES) <= self.buffer.len()
    }

    /// Adds a waiting line; one that does not fit, or is longer than a job can
    /// be, is not added.
    pub(super) fn push(&mut self, number: u32, text: &[u8]) {
        let Ok(length) = u16::try_from(text.len()) else { return };
        if !self.has_room(text.len()) {
            return;
        }
        if self.buffer.len().saturating_sub(self.end) < text.len().saturating_add(HEAD_BYTES) {
            self.close_gap();
        }
        for part in [&number.to_le_bytes()[..], &length.to_le_bytes(), text] {
            let end = self.end.saturating_add(part.len());
            if let Some(to) = self.buffer.get_mut(self.end..end) {
                to.copy_from_slice(part);
            }
            self.end = end;
        }
        self.count = self.count.saturating_add(1);
    }

    /// The first waiting line.
    pub(super) fn next(&self) -> Option<&[u8]> {
        if self.waiting >= self.end {
            return None;
        }
        let text = self.waiting.saturating_add(HEAD_BYTES);
        self.buffer.get(text..self.after(self.waiting))
    }

    /// The first waiting line was sent.
    pub(super) fn sent(&mut self) {
        self.waiting = self.after(self.waiting).min(self.end);
    }

    /// The number of the first in-flight line, which is done with.
    pub(super) fn acknowledge(&mut self) -> u32 {
        let number = self.head(self.in_flight).0;
        self.in_flight = self.after(self.in_flight).min(self.waiting);
        self.count = self.count.saturating_sub(1);
        number
    }

    /// The first in-flight line was refused for now.
    pub(super) fn keep(&mut self) {
        let after = self.after(self.in_flight).min(self.waiting);
        self.buffer.copy_within(self.in_flight..after, self.kept_end);
        self.kept_end = self.kept_end.saturating_add(after.saturating_sub(self.in_flight));
        self.in_flight = after;
    }

    /// All lines wait again, in their order.
    pub(super) fn rewind(&mut self) {
        self.close_gap();
        (self.kept_end, self.in_flight, self.waiting) = (0, 0, 0);
    }

    fn close_gap(&mut self) {
        let gap = self.in_flight.saturating_sub(self.kept_end);
        self.buffer.copy_within(self.in_flight..self.end, self.kept_end);
        self.in_flight = self.in_flight.saturating_sub(gap);
        self.waiting = self.waiting.saturating_sub(gap);
        self.end = self.end.saturating_sub(gap);
    }

    /// Number and length of the line at `at`.
    fn head(&self, at: usize) -> (u32, u16) {
        match self.buffer.get(at..) {
            Some(&[a, b, c, d, low, high, ..]) => {
                (u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes([low, high]))
            }
            _ => (0, 0),
        }
    }

    /// Where the line at `at` ends.
    fn after(&self, at: usize) -> usize {
        at.saturating_add(HEAD_BYTES).saturating_add(usize::from(self.head(at).1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends what waits and gives its text.
    fn send(lines: &mut Backlog<'_>) -> Option<String> {
        let text = lines.next().map(|text| String::from_utf8(text.to_vec()).unwrap());
        if text.is_some() {
            lines.sent();
        }
        text
    }

    fn send_all(lines: &mut Backlog<'_>) -> Vec<String> {
        core::iter::from_fn(|| send(lines)).collect()
    }

    #[test]
    fn lines_are_sent_and_settled_in_order() {
        let mut buffer = [0; 100];
        let mut lines = Backlog::new(&mut buffer);
        lines.push(1, b"one");
        lines.push(3, b"three");
        assert!(!lines.is_in_flight());
        assert_eq!(send_all(&mut lines), ["one", "three"]);
        assert!(lines.is_in_flight());
        assert_eq!((lines.acknowledge(), lines.acknowledge(), lines.count()), (1, 3, 0));
        assert!(!lines.is_in_flight());
    }

    /// Four lines, of which three fly.
    fn three_of_four_fly(buffer: &mut [u8]) -> Backlog<'_> {
        let mut lines = Backlog::new(buffer);
        for (number, text) in [(1, "a"), (2, "bb"), (3, "ccc"), (4, "dddd")] {
            lines.push(number, text.as_bytes());
        }
        for _ in 0..3 {
            send(&mut lines);
        }
        lines
    }

    #[test]
    fn refused_lines_are_sent_again_before_those_that_came_later() {
        let mut buffer = [0; 100];
        let mut lines = three_of_four_fly(&mut buffer);
        lines.keep();
        assert_eq!(lines.acknowledge(), 2);
        lines.keep();
        lines.push(5, b"e");
        assert!(lines.has_kept() && !lines.is_in_flight());
        lines.rewind();
        assert_eq!(lines.count(), 4);
        assert_eq!(send_all(&mut lines), ["a", "ccc", "dddd", "e"]);
        assert_eq!(
            [lines.acknowledge(), lines.acknowledge(), lines.acknowledge(), lines.acknowledge()],
            [1, 3, 4, 5]
        );
    }

    #[test]
    fn a_lost_connection_makes_flying_lines_wait_behind_the_kept_ones() {
        let mut buffer = [0; 100];
        let mut lines = three_of_four_fly(&mut buffer);
        lines.acknowledge();
        lines.keep();
        lines.rewind();
        assert_eq!(send_all(&mut lines), ["bb", "ccc", "dddd"]);
    }

    #[test]
    fn what_does_not_fit_is_not_added_and_room_comes_back() {
        let mut buffer = [0; 20];
        let mut lines = Backlog::new(&mut buffer);
        lines.push(1, b"aaaa");
        assert!(lines.has_room(4) && !lines.has_room(5));
        lines.push(2, b"bbbbb");
        lines.push(3, b"bbbb");
        assert_eq!(lines.count(), 2);
        send(&mut lines);
        lines.acknowledge();
        lines.push(4, b"cccc");
        assert_eq!(send_all(&mut lines), ["bbbb", "cccc"]);
    }

    #[test]
    fn random_steps_lose_nothing_and_keep_order() {
        let mut seed = 1u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        let mut buffer = [0; 256];
        let mut lines = Backlog::new(&mut buffer);
        // (what a list of lists would do)
        let (mut kept, mut in_flight, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..200_000u32 {
            match random(6) {
                0 | 1 => {
                    let text = vec![b'x'; 1 + random(30) as usize];
                    if lines.has_room(text.len()) {
                        lines.push(number, &text);
                        waiting.push((number, text.len()));
                    }
                }
                2 if !waiting.is_empty() => {
                    assert_eq!(lines.next().map(<[u8]>::len), Some(waiting[0].1));
                    lines.sent();
                    in_flight.push(waiting.remove(0));
                }
                3 if !in_flight.is_empty() => assert_eq!(lines.acknowledge(), in_flight.remove(0).0),
                4 if !in_flight.is_empty() => {
                    lines.keep();
                    kept.push(in_flight.remove(0));
                }
                5 if random(4) == 0 => {
                    lines.rewind();
                    kept.append(&mut in_flight);
                    kept.append(&mut waiting);
                    waiting.append(&mut kept);
                }
                _ => {}
            }
            assert_eq!(lines.count() as usize, kept.len() + in_flight.len() + waiting.len());
            assert_eq!((lines.has_kept(), lines.is_in_flight()), (!kept.is_empty(), !in_flight.is_empty()));
        }
    }
}
