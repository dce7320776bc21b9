//! The log of one program of the supervisor: what the program prints, line by line, each with its
//! time. It has no lines of the supervisor.

use super::log::{count_lines, is_full, report_lost};
use super::logfile::LogFile;
use crate::limits::{LOG_BUFFER_BYTES, LOG_LINE_BYTES};
use crate::proto::log::TimestampFormat;
use crate::state::trust::TrustRule;
use crate::sys::clock;
use crate::util::path::Path;
use crate::util::text::Writer;
use heapless::Vec;

/// See the module's documentation.
pub struct ProgramLog {
    file: LogFile,
    stamp: TimestampFormat,
    /// Lines that were lost and are not reported yet.
    lost: u64,
}

impl ProgramLog {
    /// Returns the log at `path`, which the first line opens. It is full at `max` bytes, and `keep`
    /// old files are kept.
    #[must_use]
    pub fn new(path: &Path, max: u64, keep: u32, stamp: TimestampFormat) -> Self {
        Self { file: LogFile::new(path, max, keep), stamp, lost: 0 }
    }

    /// Sets new limits. Returns true if this is the log at `path`. The log of another path is not
    /// changed.
    pub fn configure(&mut self, path: &Path, max: u64, keep: u32, stamp: TimestampFormat) -> bool {
        self.stamp = stamp;
        self.file.configure(path, max, keep)
    }

    /// Sets the rule that the file must satisfy whenever it is opened.
    pub fn set_rule(&mut self, rule: Option<TrustRule>) {
        self.file.set_rule(rule);
    }

    /// Returns true if the file cannot be written or rotated, so that lines are lost.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.file.failure().is_some() || self.file.rotate_failure().is_some()
    }

    /// Opens the file again if it was moved away, and rotates it otherwise.
    pub fn rotate(&mut self) {
        self.file.rotate();
    }

    /// Appends a line to `buffer`, and writes the buffer if it is full. A line that continues the
    /// one before begins with `+ `.
    pub fn line(&mut self, line: &[u8], continued: bool, buffer: &mut Vec<u8, LOG_BUFFER_BYTES>) {
        let mut bytes = [0; LOG_LINE_BYTES];
        let mut out = Writer::new(&mut bytes);
        self.stamp.emit(clock::wall(), &mut out);
        out.push_str(if continued { "+ " } else { "" });
        out.push_escaped(line);
        out.end_line();
        let (line, pending) = (out.as_bytes(), buffer.len() as u64);
        let rotates = is_full(&self.file, pending, line.len() as u64);
        if rotates || buffer.len().saturating_add(line.len()) > LOG_BUFFER_BYTES {
            self.flush(buffer);
        }
        if rotates {
            self.file.rotate();
        }
        let _ = buffer.extend_from_slice(line);
    }

    /// Writes the lines in `buffer`, and empties it.
    pub fn flush(&mut self, buffer: &mut Vec<u8, LOG_BUFFER_BYTES>) {
        if buffer.is_empty() {
            return;
        }
        self.file.follow();
        if self.lost > 0 && report_lost(&mut self.file, self.lost, self.stamp) {
            self.lost = 0;
        }
        let kept = self.file.write(buffer);
        self.lost = self.lost.saturating_add(count_lines(buffer.get(kept..).unwrap_or(&[])));
        buffer.clear();
    }
}
