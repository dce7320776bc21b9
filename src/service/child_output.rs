//! The output of a program that a service started, line by line into the log.

use crate::limits::{OUTPUT_LINE_BYTES, OUTPUT_TURN_BYTES};
use crate::service::log::Log;
use crate::sys::{Errno, Failure, OwnedFd, file};
use crate::util::lines::find_newline;
use crate::util::text::Writer;
use heapless::Vec;

/// The read end of a program's output, and the line that has not ended.
pub struct ChildOutput {
    /// The read end. `None` after the program closed the other end.
    pub pipe: Option<OwnedFd>,
    line: Vec<u8, OUTPUT_LINE_BYTES>,
    /// The rest of a line that was cut is being skipped.
    skipping: bool,
}

/// Writes the name of the program before each line.
pub type Prefix<'a> = &'a dyn Fn(&mut Writer<'_>);

impl ChildOutput {
    /// Returns the output of a program that has just started.
    #[must_use]
    pub fn new(pipe: Option<OwnedFd>) -> Self {
        Self { pipe, line: Vec::new(), skipping: false }
    }

    /// Reads the output, up to one turn's share, and logs its whole lines. Returns true if there
    /// may be more.
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

    /// Logs the line that is held.
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

    /// Reads the rest of the output of a program that has ended, and closes the pipe, even if another
    /// process holds it. A last line without a newline is logged, too.
    pub fn finish(&mut self, log: &mut Log, scratch: &mut [u8], prefix: Prefix<'_>) {
        // A pipe holds 64 KiB by default. More can come only from a child of the program.
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
