//! The log of a service: whole lines, written to a file that is rotated at its limit, to
//! stderr in the foreground, and to syslog.
//!
//! Lines are collected in a buffer and written once in each turn of the loop. If the disk
//! fails, the lost lines are counted, and their number is the first line after the failure. No
//! error of the log ends the service.

use crate::limits::{LOG_BUFFER_BYTES, LOG_LINE_BYTES};
use crate::proto::config::Config;
use crate::proto::log::{Level, TimestampFormat, push_for_journal};
use crate::service::lifecycle::{Process, describe_at};
use crate::service::logfile::LogFile;
use crate::service::syslog::send_line;
use crate::service::trust::{Judge, may_be_of_user};
use crate::state::trust::Subject;
use crate::sys::identity::Identity;
use crate::sys::syslog::Syslog;
use crate::sys::{AsFd, BorrowedFd, Failure, Op, OwnedFd, clock, fds, file, poll};
use crate::util::path::Path;
use crate::util::text::Writer;
use heapless::Vec;
use ufmt::uwrite;

/// The log of a service, with its outputs and its buffer.
pub struct Log {
    file: Option<LogFile>,
    stderr: bool,
    /// A terminal on stderr, opened again so that a write does not wait for it. The inherited
    /// descriptor stays as it is, because other processes share it.
    terminal: Option<OwnedFd>,
    /// True if stderr did not take the last lines, because its reader does not read.
    stderr_full: bool,
    /// True if stderr is a journal, which gets priorities instead of timestamps.
    journal: bool,
    syslog: Option<Syslog>,
    level: Level,
    stamp: TimestampFormat,
    /// Whole lines that are not written yet.
    buffer: &'static mut Vec<u8, LOG_BUFFER_BYTES>,
    /// True if the file or stderr took each line since the last [`Log::flush`].
    taken: bool,
    /// The path was looked at in this turn, whether it names the open file.
    followed: bool,
    /// Lines that were lost and are not reported yet.
    lost: u64,
    counts: LogCounts,
    /// The log is opened when privileges have been dropped.
    deferred: bool,
}

/// The numbers of the log that `status` shows.
#[derive(Clone, Copy, Default, Debug)]
pub struct LogCounts {
    /// Rotations since the start.
    pub rotations: u64,
    /// Rotations that replaced the oldest file that is kept.
    pub replaced: u64,
    /// Lines lost since the start.
    pub lost: u64,
}

impl Log {
    /// Opens the log that the configuration describes. In the foreground it writes to stderr,
    /// in the format that the reporter chose, and to the file only if that was named. The file
    /// is opened before privileges are dropped, and is given to `owner` if it is new. If it
    /// cannot be opened, the reporter warns the caller of the start, and each flush tries
    /// again.
    #[must_use]
    pub fn open(
        process: &Process,
        path: &Path,
        owner: Option<&Identity>,
        buffer: &'static mut Vec<u8, LOG_BUFFER_BYTES>,
    ) -> Self {
        let Process { config, reporter, .. } = process;
        let foreground = reporter.is_foreground();
        let mut log = Self {
            file: None,
            stderr: foreground,
            terminal: if foreground { open_terminal() } else { None },
            stderr_full: false,
            journal: reporter.is_journal(),
            syslog: None,
            level: Level::Info,
            stamp: TimestampFormat::Iso,
            buffer,
            taken: true,
            followed: false,
            lost: 0,
            counts: LogCounts::default(),
            deferred: false,
        };
        log.configure(config, path, foreground);
        log.deferred = owner.is_some() && may_be_of_user(config, path, Subject::Log);
        let opened = match (&mut log.file, owner) {
            (None, _) => Ok(()),
            (Some(_), Some(_)) if log.deferred => Ok(()),
            (Some(file), Some(owner)) => file.open_for(owner),
            (Some(file), None) => file.open(),
        };
        warn_unopened(process, path, opened);
        log
    }

    /// Opens a log whose way belongs to `user`, after privileges were dropped.
    pub fn open_deferred(&mut self, process: &Process) {
        if let Some(file) = self.file.as_mut().filter(|_| self.deferred) {
            let opened = file.open();
            warn_unopened(process, file.path(), opened);
        }
        self.deferred = false;
    }

    /// Applies a configuration, at the start and at a reload.
    pub fn configure(&mut self, config: &Config, path: &Path, foreground: bool) {
        self.flush();
        self.level = config.log_level;
        self.stamp = config.log_time;
        if config.syslog != self.syslog.is_some() {
            self.syslog = config.syslog.then(Syslog::default);
        }
        if foreground && !config.log_file_named {
            self.file = None;
            return;
        }
        let (max, keep) = (config.log_max, config.log_keep);
        if !self.file.as_mut().is_some_and(|file| file.configure(path, max, keep)) {
            self.file = Some(LogFile::new(path, max, keep));
        }
        if let Some(file) = &mut self.file {
            file.set_rule(Judge::new(config).log_rule(path));
        }
    }

    /// Returns the reason why the file cannot be written or rotated at the moment, if there is
    /// one.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.file.as_ref().and_then(|file| file.failure().or(file.rotate_failure()))
    }

    /// Returns true if the file cannot be written or rotated, or stderr takes no lines.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.stderr_full || self.failure().is_some()
    }

    /// Returns true if stderr takes no lines, and the file does.
    #[must_use]
    pub fn is_only_stderr_full(&self) -> bool {
        self.stderr_full && self.file.is_some()
    }

    /// Returns the numbers that `status` shows.
    #[must_use]
    pub fn counts(&self) -> LogCounts {
        let replaced = self.file.as_ref().map_or(0, LogFile::replaced);
        LogCounts { replaced, ..self.counts }
    }

    /// Logs a line if its level is high enough. `text` writes it. It must write all external
    /// bytes with [`Writer::push_escaped`].
    pub fn line(&mut self, level: Level, text: &dyn Fn(&mut Writer<'_>)) {
        if level >= self.level {
            self.emit(level, text);
        }
    }

    /// Logs a job at [`Level::Info`]. The line is logged at any `log_level`, because it is the
    /// result of the job.
    pub fn job(&mut self, text: &dyn Fn(&mut Writer<'_>)) {
        self.emit(Level::Info, text);
    }

    /// Logs a line at [`Level::Info`].
    pub fn info(&mut self, text: &dyn Fn(&mut Writer<'_>)) {
        self.line(Level::Info, text);
    }

    /// Logs a line at [`Level::Warn`].
    pub fn warn(&mut self, text: &dyn Fn(&mut Writer<'_>)) {
        self.line(Level::Warn, text);
    }

    /// Logs a line at [`Level::Error`].
    pub fn error(&mut self, text: &dyn Fn(&mut Writer<'_>)) {
        self.line(Level::Error, text);
    }

    /// Writes the collected lines, and lends the empty buffer to another log.
    pub fn lend_buffer(&mut self) -> &mut Vec<u8, LOG_BUFFER_BYTES> {
        self.write_out();
        self.buffer
    }

    fn emit(&mut self, level: Level, text: &dyn Fn(&mut Writer<'_>)) {
        let mut bytes = [0; LOG_LINE_BYTES];
        let mut out = Writer::new(&mut bytes);
        self.stamp.emit(clock::wall(), &mut out);
        out.push_str(level.tag());
        let start = out.len();
        text(&mut out);
        if let Some(syslog) = &mut self.syslog {
            send_line(syslog, level, out.as_bytes().get(start..).unwrap_or(&[]));
        }
        out.end_line();
        self.append(out.as_bytes());
    }

    /// Appends a whole line to the buffer. Rotates the file before if the line would exceed
    /// its limit.
    fn append(&mut self, line: &[u8]) {
        if self.buffer.len().saturating_add(line.len()) > LOG_BUFFER_BYTES {
            self.write_out();
        }
        let pending = self.buffer.len() as u64;
        if self.file.as_ref().is_some_and(|file| is_full(file, pending, line.len() as u64)) {
            self.write_out();
            self.rotate_now();
        }
        let _ = self.buffer.extend_from_slice(line);
    }

    /// Writes the collected lines. Returns true if the file took each line since the last flush.
    /// Lines that only stderr could take are lost if it does not, because its reader may never
    /// read again.
    #[unsafe(link_section = ".text.idle")]
    pub fn flush(&mut self) -> bool {
        if self.stderr_full && self.buffer.is_empty() {
            self.try_stderr();
        }
        self.write_out();
        core::mem::replace(&mut self.taken, true)
    }

    /// Writes the collected lines at the end of a turn. The first lines of the next turn look again
    /// whether the path names the open file.
    #[unsafe(link_section = ".text.idle")]
    pub fn end_turn(&mut self) {
        self.flush();
        self.followed = false;
    }

    #[unsafe(link_section = ".text.idle")]
    fn write_out(&mut self) {
        if self.buffer.is_empty() {
            // On a full disk the short report could be written though the next line cannot.
            if self.lost > 0 && self.failure().is_some_and(|failure| failure.op == Op::Openat) {
                self.try_file();
            }
            return;
        }
        let to_stderr = self.stderr && self.write_stderr();
        self.stderr_full = self.stderr && !to_stderr;
        let mut unwritten = if to_stderr { 0 } else { count_lines(self.buffer) };
        if let Some(file) = &mut self.file {
            let report = self.lost;
            if !core::mem::replace(&mut self.followed, true) {
                file.follow();
            }
            if report > 0 && report_lost(file, report, self.stamp) {
                self.lost = 0;
            }
            let kept = file.write(self.buffer);
            if kept == self.buffer.len() {
                unwritten = 0;
            } else if !to_stderr {
                unwritten = count_lines(self.buffer.get(kept..).unwrap_or(&[]));
            }
        }
        if unwritten > 0 {
            self.taken = self.file.is_none();
            self.lost = self.lost.saturating_add(unwritten);
            self.counts.lost = self.counts.lost.saturating_add(unwritten);
        }
        self.buffer.clear();
    }

    /// Looks if the file takes lines again, by the line that reports the lost ones.
    #[inline(never)]
    fn try_file(&mut self) {
        let Some(file) = &mut self.file else { return };
        file.follow();
        if report_lost(file, self.lost, self.stamp) {
            self.lost = 0;
        }
    }

    /// Looks if stderr takes lines again.
    #[inline(never)]
    fn try_stderr(&mut self) {
        self.stderr_full = !self.write_stderr();
    }

    /// Writes the buffer to stderr, after the number of lost lines if there is no file.
    /// Returns true if that was possible without waiting for the reader of stderr.
    fn write_stderr(&mut self) -> bool {
        let fd = self.stderr_fd();
        if !poll::writable(fd) {
            return false;
        }
        if self.lost > 0 && self.file.is_none() {
            let mut bytes = [0; LOST_LINE_BYTES];
            let line = lost_line(&mut bytes, self.lost, self.stamp);
            if !self.put_on_stderr(line.as_bytes()) {
                return false;
            }
            self.lost = 0;
            if !poll::writable(self.stderr_fd()) {
                return false;
            }
        }
        self.put_on_stderr(self.buffer)
    }

    fn stderr_fd(&self) -> BorrowedFd<'_> {
        self.terminal.as_ref().map_or(fds::borrow(2), AsFd::as_fd)
    }

    /// Writes lines to stderr. Returns true if that succeeded. A pipe that is writable has room for
    /// PIPE_BUF bytes, so this does not wait.
    fn put_on_stderr(&self, lines: &[u8]) -> bool {
        let fd = self.stderr_fd();
        let written = match self.journal {
            false => file::write_all(fd, lines),
            true => write_for_journal(fd, lines, self.stamp),
        };
        written.is_ok()
    }

    /// Opens the file again if it was moved away, and rotates it otherwise. SIGUSR1 asks for
    /// this.
    pub fn rotate(&mut self) {
        self.write_out();
        self.rotate_now();
    }

    fn rotate_now(&mut self) {
        if self.file.as_mut().is_some_and(LogFile::rotate) {
            self.counts.rotations = self.counts.rotations.saturating_add(1);
        }
    }
}

/// Warns the caller of the start if the log could not be opened.
fn warn_unopened(process: &Process, path: &Path, opened: Result<(), Failure>) {
    if let Err(failure) = opened {
        process.reporter.warn(&|out| {
            out.push_str("the log cannot be written: ");
            describe_at(path, failure, out);
        });
    }
}

/// Opens the terminal on stderr again, if it is one, so that a write to it does not wait.
fn open_terminal() -> Option<OwnedFd> {
    let flags = file::OFlags::WRONLY | file::OFlags::NONBLOCK;
    fds::is_terminal(2).then(|| file::open(c"/proc/self/fd/2", flags, 0).ok()).flatten()
}

/// A write to stderr is at most PIPE_BUF bytes long (pipe(7)).
const _: () = assert!(LOG_BUFFER_BYTES <= 4096);

/// Returns true if `more` bytes after the `pending` ones would exceed the limit of the file.
pub(super) fn is_full(file: &LogFile, pending: u64, more: u64) -> bool {
    let held = file.size().saturating_add(pending);
    let limit = file.limit();
    limit > 0 && held > 0 && held.saturating_add(more) > limit
}

/// Writes the number of lost lines to the file. Returns true if that succeeded.
pub(super) fn report_lost(file: &mut LogFile, lost: u64, stamp: TimestampFormat) -> bool {
    let mut bytes = [0; LOST_LINE_BYTES];
    let line = lost_line(&mut bytes, lost, stamp);
    file.write(line.as_bytes()) == line.len()
}

/// Bytes of the line that [`lost_line`] writes.
const LOST_LINE_BYTES: usize = 96;

/// Writes the line `N log lines lost` with its timestamp.
fn lost_line(buffer: &mut [u8; LOST_LINE_BYTES], lost: u64, stamp: TimestampFormat) -> Writer<'_> {
    let mut out = Writer::new(buffer);
    stamp.emit(clock::wall(), &mut out);
    let _ = uwrite!(out, "{}{} log lines lost\n", Level::Warn.tag(), lost);
    out
}

/// Writes whole lines to a journal, with one write. It is not inlined, because its buffer
/// would be part of the caller's stack frame.
#[inline(never)]
fn write_for_journal(fd: BorrowedFd<'_>, lines: &[u8], stamp: TimestampFormat) -> Result<(), Failure> {
    let mut bytes = [0; LOG_BUFFER_BYTES];
    let mut out = Writer::new(&mut bytes);
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        push_for_journal(line, stamp, &mut out);
    }
    file::write_all(fd, out.as_bytes())
}

pub(super) fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}
