//! The lines of `queue -` that were read and are not acknowledged, in one buffer of
//! fixed size.
//!
//! ```text
//! [ kept | (gap) | in-flight | waiting | free ]
//! ```
//!
//! A waiting line was not sent. An in-flight line was sent, and its answer has not come;
//! answers come in the order of the lines. A kept line was refused for now. Each line is
//! its number (4 bytes), its length (2 bytes), its text. [`Backlog::rewind`] makes all
//! lines wait again, in their order; it is called when no line is in flight, or when the
//! in-flight lines will get no answer.

/// The bytes before the text of a line.
const HEAD_BYTES: usize = 6;

/// The lines, in the order of the picture above.
pub(super) struct Backlog<'m> {
    buffer: &'m mut [u8],
    /// The end of the kept lines.
    kept_end: usize,
    /// The begin of the in-flight lines.
    in_flight: usize,
    /// The begin of the waiting lines.
    waiting: usize,
    /// The end of the waiting lines.
    end: usize,
    /// The number of all lines.
    count: u32,
}

impl<'m> Backlog<'m> {
    /// Creates a backlog without lines.
    pub(super) fn new(buffer: &'m mut [u8]) -> Self {
        Self { buffer, kept_end: 0, in_flight: 0, waiting: 0, end: 0, count: 0 }
    }

    /// Returns the number of lines.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Returns true if a line is in flight.
    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight < self.waiting
    }

    /// Returns true if a line was refused for now.
    pub(super) fn has_kept(&self) -> bool {
        self.kept_end > 0
    }

    /// Returns true if a line of `bytes` fits.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let used = self.kept_end.saturating_add(self.end.saturating_sub(self.in_flight));
        used.saturating_add(bytes).saturating_add(HEAD_BYTES) <= self.buffer.len()
    }

    /// Adds a waiting line. Drops a line that does not fit; see [`Backlog::has_room`].
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

    /// Returns the first waiting line.
    pub(super) fn next(&self) -> Option<&[u8]> {
        if self.waiting >= self.end {
            return None;
        }
        let text = self.waiting.saturating_add(HEAD_BYTES);
        self.buffer.get(text..self.after(self.waiting))
    }

    /// Records that the first waiting line was sent.
    pub(super) fn sent(&mut self) {
        self.waiting = self.after(self.waiting).min(self.end);
    }

    /// Removes the first in-flight line, and returns its number.
    pub(super) fn acknowledge(&mut self) -> u32 {
        let number = self.head(self.in_flight).0;
        self.in_flight = self.after(self.in_flight).min(self.waiting);
        self.count = self.count.saturating_sub(1);
        number
    }

    /// Records that the first in-flight line was refused for now.
    pub(super) fn keep(&mut self) {
        let after = self.after(self.in_flight).min(self.waiting);
        self.buffer.copy_within(self.in_flight..after, self.kept_end);
        self.kept_end = self.kept_end.saturating_add(after.saturating_sub(self.in_flight));
        self.in_flight = after;
    }

    /// Makes all lines wait again, in their order.
    pub(super) fn rewind(&mut self) {
        self.close_gap();
        (self.kept_end, self.in_flight, self.waiting) = (0, 0, 0);
    }

    /// Moves the lines after the gap, so that the gap is empty.
    fn close_gap(&mut self) {
        let gap = self.in_flight.saturating_sub(self.kept_end);
        self.buffer.copy_within(self.in_flight..self.end, self.kept_end);
        self.in_flight = self.in_flight.saturating_sub(gap);
        self.waiting = self.waiting.saturating_sub(gap);
        self.end = self.end.saturating_sub(gap);
    }

    /// Returns number and length of the line at `at`.
    fn head(&self, at: usize) -> (u32, u16) {
        match self.buffer.get(at..) {
            Some(&[a, b, c, d, low, high, ..]) => {
                (u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes([low, high]))
            }
            _ => (0, 0),
        }
    }

    /// Returns the end of the line at `at`.
    fn after(&self, at: usize) -> usize {
        at.saturating_add(HEAD_BYTES).saturating_add(usize::from(self.head(at).1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends the first waiting line and returns its text.
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
    fn lines_are_sent_and_acknowledged_in_order() {
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

    /// Returns four lines, of which three are in flight.
    fn three_of_four_in_flight(buffer: &mut [u8]) -> Backlog<'_> {
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
        let mut lines = three_of_four_in_flight(&mut buffer);
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
    fn a_lost_connection_makes_in_flight_lines_wait_after_the_kept_ones() {
        let mut buffer = [0; 100];
        let mut lines = three_of_four_in_flight(&mut buffer);
        lines.acknowledge();
        lines.keep();
        lines.rewind();
        assert_eq!(send_all(&mut lines), ["bb", "ccc", "dddd"]);
    }

    #[test]
    fn a_line_that_does_not_fit_is_dropped_and_room_comes_back() {
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
        // Three lists are the model.
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
