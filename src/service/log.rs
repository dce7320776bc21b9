//! The log: whole lines to a file that never outgrows its limit, to stderr in
//! the foreground, and to syslog.
//!
//! Lines are gathered in a buffer and written once per turn of the loop. The
//! disk may fail: then lines are counted, and the count is the first line when
//! it works again. Nothing here ever ends the service.

use crate::limits::{LOG_BUFFER_BYTES, LOG_LINE_BYTES, ROTATE_RETRY_MS, SYSLOG_MAX_BYTES};
use crate::proto::config::Config;
use crate::proto::log::{Level, Stamp, emit_syslog, push_for_journal};
use crate::proto::path::Path;
use crate::proto::text::Writer;
use crate::service::lifecycle::Audience;
use crate::state::rotation::{Action, Rotation};
use crate::sys::identity::{self, Identity};
use crate::sys::syslog::Syslog;
use crate::sys::{BorrowedFd, Errno, Failure, OwnedFd, clock, fds, file, poll, process};
use heapless::Vec;
use ufmt::uwrite;

/// See the module's documentation.
pub struct Log {
    file: Option<LogFile>,
    stderr: bool,
    /// stderr wants priorities, and no dates.
    journal: bool,
    syslog: Option<Syslog>,
    level: Level,
    stamp: Stamp,
    /// Whole lines that are not yet written.
    buffer: &'static mut Vec<u8, LOG_BUFFER_BYTES>,
    /// Whether every line since the last [`Log::flush`] was taken by a sink.
    taken: bool,
    /// Lines that no longer can be written, and are not yet reported.
    lost: u64,
    counts: Counts,
}

/// What `status` tells about the log.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    /// Rotations since start.
    pub rotations: u64,
    /// Lines lost since start.
    pub lost: u64,
}

/// The file and what is known of it.
struct LogFile {
    path: Path,
    fd: Option<OwnedFd>,
    identity: (u64, u64),
    size: u64,
    /// Only regular files are rotated.
    regular: bool,
    max: u64,
    keep: u32,
    /// After a failed rotation: not before this, and why.
    rotate_after: u64,
    rotate_failure: Option<Failure>,
    /// The last error, to be reported once.
    failure: Option<Failure>,
}

impl Log {
    /// A log as the configuration says; nothing is opened yet. In the
    /// foreground it goes to stderr, as `audience` wants it, and to the file only
    /// if that was named.
    #[must_use]
    pub fn new(
        config: &Config,
        path: &Path,
        audience: &Audience,
        buffer: &'static mut Vec<u8, LOG_BUFFER_BYTES>,
    ) -> Self {
        let foreground = audience.is_foreground();
        let mut log = Self {
            file: None,
            stderr: foreground,
            journal: audience.is_journal(),
            syslog: None,
            level: Level::Info,
            stamp: Stamp::Iso,
            buffer,
            taken: true,
            lost: 0,
            counts: Counts::default(),
        };
        log.configure(config, path, foreground);
        log
    }

    /// Takes over a configuration, at start and at a reload.
    pub fn configure(&mut self, config: &Config, path: &Path, foreground: bool) {
        self.flush();
        self.level = Level::from_index(config.log_level);
        self.stamp = Stamp::from_index(config.log_time);
        if config.syslog != self.syslog.is_some() {
            self.syslog = config.syslog.then(Syslog::default);
        }
        if foreground && !config.log_file_named {
            self.file = None;
            return;
        }
        let (max, keep) = (config.log_max, config.log_keep);
        match &mut self.file {
            Some(file) if file.path == *path => (file.max, file.keep) = (max, keep),
            _ => {
                self.file = Some(LogFile {
                    path: path.clone(),
                    fd: None,
                    identity: (0, 0),
                    size: 0,
                    regular: false,
                    max,
                    keep,
                    rotate_after: 0,
                    rotate_failure: None,
                    failure: None,
                });
            }
        }
    }

    /// Opens the file before privileges are dropped; it belongs to `owner`
    /// from then on.
    ///
    /// # Errors
    /// It cannot be opened now; it is tried again with each line.
    pub fn open(&mut self, owner: Option<&Identity>) -> Result<(), Failure> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let Some(owner) = owner else { return file.open() };
        // As root, a file that others may have planted: only one that we
        // create is given away, and one with a second name is not written.
        match file.open_with(file::OFlags::EXCL) {
            Ok(_) => file.fd.as_ref().map_or(Ok(()), |fd| identity::give(fd, owner)),
            Err(Failure { errno: Errno::EXIST, .. }) => {
                let links = file.open_with(file::OFlags::empty())?;
                if links > 1 {
                    file.fd = None;
                    let failure = Failure { op: "openat", errno: Errno::MLINK };
                    file.failure = Some(failure);
                    return Err(failure);
                }
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Why the file cannot be written or rotated at the moment, if so.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.file.as_ref().and_then(|file| file.failure.or(file.rotate_failure))
    }

    /// What `status` tells.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// One line. `text` writes it: constants as they are, everything that
    /// comes from outside with [`Writer::push_escaped`].
    pub fn line(&mut self, level: Level, text: &dyn Fn(&mut Writer<'_>)) {
        if level >= self.level {
            self.emit(level, text);
        }
    }

    /// A line at [`Level::Info`] that no level leaves out: it is a job.
    pub fn job(&mut self, text: &dyn Fn(&mut Writer<'_>)) {
        self.emit(Level::Info, text);
    }

    /// A line at [`Level::Info`].
    pub fn info(&mut self, text: &dyn Fn(&mut Writer<'_>)) {
        self.line(Level::Info, text);
    }

    /// A line at [`Level::Warn`].
    pub fn warn(&mut self, text: &dyn Fn(&mut Writer<'_>)) {
        self.line(Level::Warn, text);
    }

    /// A line at [`Level::Error`].
    pub fn error(&mut self, text: &dyn Fn(&mut Writer<'_>)) {
        self.line(Level::Error, text);
    }

    fn emit(&mut self, level: Level, text: &dyn Fn(&mut Writer<'_>)) {
        let mut bytes = [0; LOG_LINE_BYTES];
        let (content, end) = bytes.split_at_mut(LOG_LINE_BYTES - 1);
        let mut out = Writer::new(content);
        self.stamp.emit(clock::wall(), &mut out);
        out.push_str(level.tag());
        let start = out.len();
        text(&mut out);
        out.mark_cut();
        let length = out.len();
        self.send_syslog(level, out.as_bytes().get(start..).unwrap_or(&[]));
        if let Some(last) = end.first_mut() {
            *last = b'\n';
        }
        if let Some(newline) = bytes.get_mut(length) {
            *newline = b'\n';
        }
        self.append(bytes.get(..=length).unwrap_or(&[]));
    }

    fn send_syslog(&mut self, level: Level, text: &[u8]) {
        let Some(syslog) = &mut self.syslog else { return };
        let mut buffer = [0; SYSLOG_MAX_BYTES];
        let pid = u32::try_from(process::pid().as_raw_pid()).unwrap_or(0);
        let datagram = emit_syslog(&mut buffer, level, pid, text);
        // (lines lost on this way are not counted: syslogd is a guest)
        syslog.send(datagram.as_bytes(), clock::now());
    }

    /// Takes a whole line, rotating before it if it would pass the limit.
    fn append(&mut self, line: &[u8]) {
        if self.buffer.len().saturating_add(line.len()) > LOG_BUFFER_BYTES {
            self.write_out();
        }
        let pending = self.buffer.len() as u64;
        if self.file.as_ref().is_some_and(|file| file.is_full(pending, line.len() as u64)) {
            self.write_out();
            self.rotate_now();
        }
        let _ = self.buffer.extend_from_slice(line);
    }

    /// Writes what was gathered. False: not every line since the last flush
    /// was taken by the file or by stderr.
    pub fn flush(&mut self) -> bool {
        self.write_out();
        core::mem::replace(&mut self.taken, true)
    }

    fn write_out(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let to_stderr = self.stderr && self.write_stderr();
        let mut unwritten = if to_stderr { 0 } else { count_lines(self.buffer) };
        if let Some(file) = &mut self.file {
            let report = self.lost;
            file.ensure_open();
            if report > 0 && file.report_lost(report, self.stamp) {
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
            self.taken = false;
            self.lost = self.lost.saturating_add(unwritten);
            self.counts.lost = self.counts.lost.saturating_add(unwritten);
        }
        self.buffer.clear();
    }

    /// Writes the buffer to stderr, after saying what is missing there, if that
    /// can be done without waiting for its reader.
    fn write_stderr(&mut self) -> bool {
        let fd = fds::borrow(2);
        if !poll::writable(fd) {
            return false;
        }
        if self.lost > 0 && self.file.is_none() {
            let mut bytes = [0; LOST_LINE_BYTES];
            let line = lost_line(&mut bytes, self.lost, self.stamp);
            if !self.put_on_stderr(line.as_bytes()) || !poll::writable(fd) {
                return false;
            }
            self.lost = 0;
        }
        self.put_on_stderr(self.buffer)
    }

    fn put_on_stderr(&self, lines: &[u8]) -> bool {
        let fd = fds::borrow(2);
        let written = match self.journal {
            false => file::write_all(fd, lines),
            true => write_for_journal(fd, lines, self.stamp),
        };
        written.is_ok()
    }

    /// SIGUSR1: opens the file anew if it was moved away, else rotates it.
    pub fn rotate(&mut self) {
        self.write_out();
        let Some(file) = &mut self.file else { return };
        file.rotate_after = 0;
        self.rotate_now();
    }

    fn rotate_now(&mut self) {
        let Some(file) = &mut self.file else { return };
        // A device or a FIFO is not renamed.
        if file.is_moved() || !file.regular {
            let _ = file.open();
            return;
        }
        match file.rotate() {
            Ok(()) => {
                file.rotate_failure = None;
                self.counts.rotations = self.counts.rotations.saturating_add(1);
            }
            Err(failure) => {
                file.rotate_failure = Some(failure);
                file.rotate_after = clock::now().saturating_add(ROTATE_RETRY_MS);
            }
        }
    }
}

impl LogFile {
    /// Opens the path for appending, creating it with mode 0640 (umask 027).
    fn open(&mut self) -> Result<(), Failure> {
        self.open_with(file::OFlags::empty()).map(drop)
    }

    /// As [`LogFile::open`], with more flags; returns how many names it has.
    fn open_with(&mut self, more: file::OFlags) -> Result<u32, Failure> {
        let flags = more
            | file::OFlags::WRONLY
            | file::OFlags::APPEND
            | file::OFlags::CREATE
            | file::OFlags::NOFOLLOW
            | file::OFlags::NONBLOCK;
        let result = file::open(self.path.as_c_str(), flags, 0o640).and_then(|fd| Ok((file::meta(&fd)?, fd)));
        match result {
            Ok((meta, fd)) => {
                self.identity = meta.identity;
                self.size = meta.size;
                self.regular = meta.regular;
                self.fd = Some(fd);
                self.failure = None;
                Ok(meta.links)
            }
            Err(failure) => {
                // Without descriptors the old file is better than none; in
                // all other cases it is not where anybody looks.
                if !matches!(failure.errno, Errno::MFILE | Errno::NFILE) {
                    self.fd = None;
                }
                self.failure = Some(failure);
                Err(failure)
            }
        }
    }

    /// Whether the path no longer names the open file.
    fn is_moved(&self) -> bool {
        let named = file::meta_at(self.path.as_c_str(), false).map(|meta| meta.identity);
        self.fd.is_none() || named != Ok(self.identity)
    }

    /// Makes the descriptor the one that the path names.
    fn ensure_open(&mut self) {
        if self.is_moved() {
            let _ = self.open();
        }
    }

    /// Whether `more` bytes behind `pending` ones would pass the limit.
    fn is_full(&self, pending: u64, more: u64) -> bool {
        let held = self.size.saturating_add(pending);
        self.regular
            && self.max > 0
            && held > 0
            && held.saturating_add(more) > self.max
            && (self.rotate_after == 0 || clock::now() >= self.rotate_after)
    }

    /// Writes whole lines; returns how many bytes of them were kept. A line
    /// that a full disk cut in half is taken back.
    fn write(&mut self, lines: &[u8]) -> usize {
        let Some(fd) = &self.fd else { return 0 };
        let mut done = 0;
        while let Some(rest) = lines.get(done..).filter(|rest| !rest.is_empty()) {
            match file::write_some(fd, rest) {
                Ok(count) => done = done.saturating_add(count),
                Err(failure) => {
                    self.failure = Some(failure);
                    let whole = lines.get(..done).map_or(0, whole_lines);
                    self.size = self.size.saturating_add(whole as u64);
                    if whole < done && self.regular {
                        let _ = file::truncate(fd, self.size);
                    }
                    return whole;
                }
            }
        }
        self.failure = None;
        self.size = self.size.saturating_add(done as u64);
        done
    }

    /// Says how many lines are missing here.
    fn report_lost(&mut self, lost: u64, stamp: Stamp) -> bool {
        let mut bytes = [0; LOST_LINE_BYTES];
        let line = lost_line(&mut bytes, lost, stamp);
        self.write(line.as_bytes()) == line.len()
    }

    /// Goes through all steps of a rotation.
    fn rotate(&mut self) -> Result<(), Failure> {
        let mut rotation = Rotation::new(self.keep);
        loop {
            match rotation.next_action() {
                Action::Look(number) => {
                    let path = self.numbered(number)?;
                    rotation.found(file::meta_at(path.as_c_str(), false).is_ok());
                }
                Action::Rename(number) => {
                    let (from, to) = (self.numbered(number)?, self.numbered(number.saturating_add(1))?);
                    file::rename(from.as_c_str(), to.as_c_str())?;
                    rotation.renamed();
                }
                Action::Reopen => return self.open(),
            }
        }
    }

    /// `log.N`; the log itself for 0.
    fn numbered(&self, number: u32) -> Result<Path, Failure> {
        if number == 0 {
            return Ok(self.path.clone());
        }
        let mut suffix = [0; 12];
        let mut out = Writer::new(&mut suffix);
        let _ = uwrite!(out, ".{}", number);
        self.path.with_suffix(out.as_bytes()).ok_or(Failure { op: "renameat", errno: Errno::NAMETOOLONG })
    }
}

/// Bytes that [`lost_line`] needs.
const LOST_LINE_BYTES: usize = 96;

/// `N log lines lost`.
fn lost_line(buffer: &mut [u8; LOST_LINE_BYTES], lost: u64, stamp: Stamp) -> Writer<'_> {
    let mut out = Writer::new(buffer);
    stamp.emit(clock::wall(), &mut out);
    let _ = uwrite!(out, "{}{} log lines lost\n", Level::Warn.tag(), lost);
    out
}

/// Writes whole lines to a journal, at once. Apart from its caller, because of
/// the memory.
#[inline(never)]
fn write_for_journal(fd: BorrowedFd<'_>, lines: &[u8], stamp: Stamp) -> Result<(), Failure> {
    let mut bytes = [0; LOG_BUFFER_BYTES];
    let mut out = Writer::new(&mut bytes);
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        push_for_journal(line, stamp, &mut out);
    }
    file::write_all(fd, out.as_bytes())
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}

/// Length of the whole lines at the beginning of `bytes`.
fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last.saturating_add(1))
}
