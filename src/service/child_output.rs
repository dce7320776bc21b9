//! Copies the output of a program that this process started to the log, line by line.
//!
//! A line feed, a carriage return, or both in this order are one end of a line. A line that is
//! too long for one line of the log is continued in the next one.

use crate::limits::{LOG_LINE_BYTES, OUTPUT_LINE_BYTES};
use crate::sys::{Errno, Failure, OwnedFd, file};
use crate::util::text::escaped_bytes;
use heapless::Vec;

/// Bytes that one turn reads from one handler.
pub const OUTPUT_TURN_BYTES: usize = 4096;

/// Maximum number of bytes that a part of a line takes in the log with its escapes. The rest
/// of a log line is for the time, the level and the name of the program.
const PART_BYTES: usize = LOG_LINE_BYTES - 512;

/// The read end of a program's output, and the line that has not ended yet.
pub struct ChildOutput {
    /// The read end. `None` after the program has closed the other end.
    pub pipe: Option<OwnedFd>,
    line: Vec<u8, OUTPUT_LINE_BYTES>,
    /// Bytes that `line` takes in the log.
    width: usize,
    /// True if `line` continues a line of which a part was already logged.
    continued: bool,
    /// True if the last byte was a carriage return.
    returned: bool,
}

/// Takes each line of a program, or a part of one. The first flag is true for a part that continues
/// the line before, the second if the line ends there.
pub type OutputSink<'a> = &'a mut dyn FnMut(&[u8], bool, bool);

impl ChildOutput {
    /// Returns the output of a program that was just started.
    #[must_use]
    pub fn new(pipe: Option<OwnedFd>) -> Self {
        Self { pipe, line: Vec::new(), width: 0, continued: false, returned: false }
    }

    /// Reads up to [`OUTPUT_TURN_BYTES`] and logs the lines. Returns true if there may be more
    /// to read.
    pub fn read(&mut self, scratch: &mut [u8], sink: OutputSink<'_>) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        let buffer = scratch.get_mut(..OUTPUT_TURN_BYTES).unwrap_or(&mut []);
        match file::read(pipe, buffer) {
            Ok(count @ 1..) => {
                self.take(buffer.get(..count).unwrap_or(&[]), sink);
                count == OUTPUT_TURN_BYTES
            }
            Err(Failure { errno: Errno::AGAIN, .. }) => false,
            Ok(_) | Err(_) => {
                self.pipe = None;
                false
            }
        }
    }

    fn take(&mut self, bytes: &[u8], sink: OutputSink<'_>) {
        for byte in bytes {
            let after_return = core::mem::replace(&mut self.returned, *byte == b'\r');
            match *byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => {
                    self.log_line(sink, true);
                    self.continued = false;
                }
                byte => self.push(byte, sink),
            }
        }
    }

    /// Appends a byte to the line, and logs the part before it if there is no more room.
    fn push(&mut self, byte: u8, sink: OutputSink<'_>) {
        let width = escaped_bytes(byte);
        if self.line.is_full() || self.width.saturating_add(width) > PART_BYTES {
            // A character of UTF-8 stays whole.
            let starts = |byte: &u8| byte & 0xC0 != 0x80;
            let tail = match self.line.iter().rev().take(4).position(starts) {
                Some(before) if !starts(&byte) => before.saturating_add(1),
                _ => 0,
            };
            let mut rest: Vec<u8, 4> = Vec::new();
            let cut = self.line.len().saturating_sub(tail);
            let _ = rest.extend_from_slice(self.line.get(cut..).unwrap_or(&[]));
            self.line.truncate(cut);
            self.log_line(sink, false);
            self.continued = true;
            let _ = self.line.extend_from_slice(&rest);
            self.width = rest.len();
        }
        let _ = self.line.push(byte);
        self.width = self.width.saturating_add(width);
    }

    /// Logs the line that was collected. `ends` is true if the program has ended it.
    fn log_line(&mut self, sink: OutputSink<'_>, ends: bool) {
        sink(&self.line, self.continued, ends);
        self.line.clear();
        self.width = 0;
    }

    /// Logs the rest of the output after the program has ended, and closes the pipe, even if
    /// another process still holds its other end. A last line without newline is logged, too.
    pub fn finish(&mut self, scratch: &mut [u8], sink: OutputSink<'_>) {
        // A pipe holds 64 KiB by default (pipe(7)). More can only come from a process that
        // outlives the program.
        let mut turns = 65_536 / OUTPUT_TURN_BYTES;
        while turns > 0 && self.read(scratch, sink) {
            turns = turns.saturating_sub(1);
        }
        if !self.line.is_empty() {
            self.log_line(sink, false);
        }
        *self = Self::new(None);
    }
}
