//! The input of `queue -`: divides the bytes of stdin into numbered lines.

use crate::util::lines::{Line, TOO_LONG, classify, find_newline};

/// The bytes that were read and do not belong to a line that was taken.
pub(super) struct Input<'m> {
    /// The bytes are `buffer[start..end]`.
    buffer: &'m mut [u8],
    start: usize,
    end: usize,
    /// Set while the rest of a line that is too long is dropped.
    skipping: bool,
    /// Set when stdin has ended: the rest is a line even without a newline.
    pub(super) ended: bool,
    /// The number of lines that were found; an empty line counts.
    number: u32,
}

impl<'m> Input<'m> {
    /// Creates an input without bytes. A line that fills `buffer` must be longer than a
    /// job can be.
    pub(super) fn new(buffer: &'m mut [u8]) -> Self {
        Self { buffer, start: 0, end: 0, skipping: false, ended: false, number: 0 }
    }

    /// Returns the memory for the next read.
    pub(super) fn space(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end = self.end.saturating_sub(self.start);
        self.start = 0;
        self.buffer.get_mut(self.end..).unwrap_or(&mut [])
    }

    /// Adds `count` bytes that were read into [`Input::space`].
    pub(super) fn add(&mut self, count: usize) {
        self.end = self.end.saturating_add(count).min(self.buffer.len());
    }

    /// Returns the number of the next line, and the line. The rest of a line that is too
    /// long is an empty line. Returns `None` if more bytes must be read first.
    pub(super) fn next(&mut self) -> Option<(u32, Line<'_>)> {
        let rest = self.buffer.get(self.start..self.end).unwrap_or(&[]);
        let newline = find_newline(rest);
        let fills_buffer = rest.len() == self.buffer.len();
        if newline.is_none() && (rest.is_empty() || !(self.ended || fills_buffer)) {
            return None;
        }
        let line = self.start..self.start.saturating_add(newline.unwrap_or(rest.len()));
        self.start = line.end.saturating_add(usize::from(newline.is_some()));
        if self.skipping {
            self.skipping = newline.is_none();
            return Some((self.number, Line::Empty));
        }
        self.number = self.number.saturating_add(1);
        self.skipping = newline.is_none() && !self.ended;
        let line = if self.skipping {
            Line::Rejected(TOO_LONG)
        } else {
            classify(self.buffer.get(line).unwrap_or(&[]))
        };
        Some((self.number, line))
    }

    /// Returns the number of lines, without empty ones, that were read and not taken. The
    /// part of a line that was read counts as a line.
    pub(super) fn lines_left(&self) -> usize {
        let rest = self.buffer.get(self.start..self.end).unwrap_or(&[]);
        rest.split(|byte| *byte == b'\n').filter(|line| classify(line) != Line::Empty).count()
    }
}
