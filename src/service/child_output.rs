//! Copies the output of a program that this process started to the log, line by line.

use crate::limits::OUTPUT_LINE_BYTES;
use crate::service::log::Log;
use crate::sys::{Errno, Failure, OwnedFd, file};
use crate::util::lines::find_newline;
use crate::util::text::Writer;
use heapless::Vec;

/// Bytes that one turn reads from one handler.
pub const OUTPUT_TURN_BYTES: usize = 4096;

/// The read end of a program's output, and the line that has not ended yet.
pub struct ChildOutput {
    /// The read end. `None` after the program has closed the other end.
    pub pipe: Option<OwnedFd>,
    line: Vec<u8, OUTPUT_LINE_BYTES>,
    /// True inside a line that was already logged with its end cut off.
    skipping: bool,
}

/// Writes the name of the program before each line.
pub type Prefix<'a> = &'a dyn Fn(&mut Writer<'_>);

impl ChildOutput {
    /// Returns the output of a program that was just started.
    #[must_use]
    pub fn new(pipe: Option<OwnedFd>) -> Self {
        Self { pipe, line: Vec::new(), skipping: false }
    }

    /// Reads up to [`OUTPUT_TURN_BYTES`] and logs the lines. Returns true if there may be more
    /// to read.
    pub fn read(&mut self, log: &mut Log, scratch: &mut [u8], prefix: Prefix<'_>) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        let buffer = scratch.get_mut(..OUTPUT_TURN_BYTES).unwrap_or(&mut []);
        match file::read(pipe, buffer) {
            Ok(count @ 1..) => {
                self.take(buffer.get(..count).unwrap_or(&[]), log, prefix);
                count == OUTPUT_TURN_BYTES
            }
            Err(Failure { errno: Errno::AGAIN, .. }) => false,
            Ok(_) | Err(_) => {
                self.pipe = None;
                false
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8], log: &mut Log, prefix: Prefix<'_>) {
        while !bytes.is_empty() {
            let end = find_newline(bytes);
            let (part, rest) = bytes.split_at_checked(end.unwrap_or(bytes.len())).unwrap_or_default();
            bytes = rest.get(1..).unwrap_or(&[]);
            if !self.skipping {
                let fits = part.len().min(OUTPUT_LINE_BYTES.saturating_sub(self.line.len()));
                let _ = self.line.extend_from_slice(part.get(..fits).unwrap_or(&[]));
                if fits < part.len() {
                    self.log_line(log, prefix, true);
                    self.skipping = true;
                }
            }
            if end.is_some() {
                if !self.skipping {
                    self.log_line(log, prefix, false);
                }
                self.skipping = false;
            }
        }
    }

    /// Logs the line that was collected.
    fn log_line(&mut self, log: &mut Log, prefix: Prefix<'_>, cut: bool) {
        let line = &self.line;
        log.info(&|out| {
            prefix(out);
            out.push_escaped(line);
            if cut {
                out.push_str("…");
            }
        });
        self.line.clear();
    }

    /// Logs the rest of the output after the program has ended, and closes the pipe, even if
    /// another process still holds its other end. A last line without newline is logged, too.
    pub fn finish(&mut self, log: &mut Log, scratch: &mut [u8], prefix: Prefix<'_>) {
        // A pipe holds 64 KiB by default (pipe(7)). More can only come from a process that
        // outlives the program.
        let mut turns = 65_536 / OUTPUT_TURN_BYTES;
        while turns > 0 && self.read(log, scratch, prefix) {
            turns = turns.saturating_sub(1);
        }
        if !self.line.is_empty() && !self.skipping {
            self.log_line(log, prefix, false);
        }
        (self.pipe, self.skipping) = (None, false);
    }
}
