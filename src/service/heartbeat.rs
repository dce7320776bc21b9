//! The health file. It is written after a finished turn of the loop and at no other time. It
//! is rewritten in place, because a rename would write metadata to flash and wake the watchers
//! of the folder. A reader recognises a torn read by the two sequence numbers.

use super::identity::look;
use crate::limits::{HEARTBEAT_MIN, OPTION_WORD_MAX_BYTES};
use crate::proto::health::{
    BOOT_ID_BYTES, HealthRecord, ParseError, RECORD_BYTES, Verdict, push_option_word,
};
use crate::service::boot::boot_id;
use crate::service::config_source::ConfigSource;
use crate::service::lifecycle::{StartReporter, describe_at};
use crate::sys::{Errno, Failure, Op, OwnedFd, clock, file, process};
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};

/// Maximum number of times that a torn heartbeat is read again.
pub const TORN_READS_MAX: u32 = 20;

/// The heartbeat of a service, and the health file that it is written to.
pub struct Heartbeat {
    path: Path,
    /// The options that the file keeps for `restart`.
    options: &'static ConfigSource,
    fd: Option<OwnedFd>,
    identity: (u64, u64),
    boot: [u8; BOOT_ID_BYTES],
    pid: u32,
    seq: u64,
    last_at: Instant,
    failure: Option<Failure>,
    /// True if no health file is written.
    disabled: bool,
}

impl Heartbeat {
    /// Returns a heartbeat that will be written to `path`, with the `options` in force. Nothing
    /// is written yet.
    #[must_use]
    pub fn new(path: Path, options: &'static ConfigSource) -> Self {
        let pid = u32::try_from(process::pid().as_raw_pid()).unwrap_or(0);
        Self {
            path,
            options,
            fd: None,
            identity: (0, 0),
            boot: boot_id(),
            pid,
            seq: 0,
            last_at: Instant::BOOT,
            failure: None,
            disabled: false,
        }
    }

    /// Stops writing the health file.
    pub fn disable(&mut self) {
        self.disabled = true;
    }

    /// Returns true if no health file is written.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.disabled
    }

    /// Returns the time at which the next heartbeat is due. It is not earlier than the time
    /// from which [`Heartbeat::is_due`] returns true, because the loop would spin
    /// otherwise.
    #[must_use]
    pub fn next_deadline(&self, interval: Duration) -> Option<Instant> {
        (!self.disabled).then(|| self.last_at + interval.at_least(HEARTBEAT_MIN))
    }

    /// Returns the id of this boot.
    #[must_use]
    pub fn boot(&self) -> &[u8; BOOT_ID_BYTES] {
        &self.boot
    }

    /// Returns the path of the health file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the reason why the file cannot be written, if the last attempt failed.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Returns true if a heartbeat is due at the end of a turn of the loop at `now`. Without a health
    /// file it is always due, because no later turn is certain.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.disabled || self.seq == 0 || (self.last_at + HEARTBEAT_MIN).is_due(now)
    }

    /// Looks if the path still leads to the open health file. If not, the next heartbeat creates
    /// it again.
    #[unsafe(link_section = ".text.idle")]
    pub fn check(&mut self) {
        if self.fd.is_some() && look(&self.path, self.identity, false).is_lost() {
            self.fd = None;
        }
    }

    /// Returns the time since the last heartbeat.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        now.since(self.last_at)
    }

    /// Writes the first heartbeat, at the start. If that fails, the reporter warns the caller
    /// of the start.
    pub fn begin(&mut self, now: Instant, reporter: &StartReporter) {
        self.beat(now);
        if let Some(failure) = self.failure {
            reporter.warn(&|out| {
                out.push_str("the health file cannot be written: ");
                describe_at(&self.path, failure, out);
            });
        }
    }

    /// Writes the next heartbeat. A service without a health file only counts it.
    #[unsafe(link_section = ".text.idle")]
    pub fn beat(&mut self, now: Instant) {
        self.last_at = now;
        self.seq = self.seq.saturating_add(1);
        if self.disabled {
            return;
        }
        let Self { seq, pid, boot, .. } = *self;
        let record = HealthRecord { wall: clock::wall(), seq, pid, boottime_ms: now.as_ms(), boot };
        self.failure = self.write(&record.emit()).err();
    }

    fn write(&mut self, bytes: &[u8; RECORD_BYTES]) -> Result<(), Failure> {
        match &self.fd {
            Some(fd) => file::write_at(fd, bytes, 0),
            None => self.create(bytes),
        }
    }

    /// Creates a new file. It is written under another name first, so that no reader finds it
    /// empty.
    fn create(&mut self, bytes: &[u8; RECORD_BYTES]) -> Result<(), Failure> {
        self.fd = None;
        let too_long = Failure { op: Op::Openat, errno: Errno::NAMETOOLONG };
        let temporary = self.path.with_suffix(b".new").ok_or(too_long)?;
        let _ = file::unlink(temporary.as_c_str());
        let flags = file::OFlags::WRONLY | file::OFlags::CREATE | file::OFlags::EXCL | file::OFlags::NOFOLLOW;
        let fd = file::open(temporary.as_c_str(), flags, 0o644)?;
        file::set_mode(&fd, 0o644)?;
        file::write_at(&fd, bytes, 0)?;
        self.write_options(&fd)?;
        if let Err(failure) = file::rename(temporary.as_c_str(), self.path.as_c_str()) {
            let _ = file::unlink(temporary.as_c_str());
            return Err(failure);
        }
        self.identity = file::meta(&fd)?.identity;
        self.fd = Some(fd);
        Ok(())
    }

    /// Writes the options in force after the heartbeat.
    #[inline(never)]
    fn write_options(&self, fd: &OwnedFd) -> Result<(), Failure> {
        let (mut offset, mut result) = (RECORD_BYTES as u64, Ok(()));
        self.options.each_option_word(&mut |word| {
            let mut line = [0; 2 * OPTION_WORD_MAX_BYTES];
            let mut out = Writer::new(&mut line);
            push_option_word(word, &mut out);
            if out.is_cut() {
                // A reader takes this for options that it does not know.
                out.truncate(0);
                out.push_str("?\n");
            }
            result = result.and_then(|()| file::write_at(fd, out.as_bytes(), offset));
            offset = offset.saturating_add(out.len() as u64);
        });
        if offset == RECORD_BYTES as u64 {
            // An empty line says that there are none.
            result = file::write_at(fd, b"\n", offset);
        }
        result
    }

    /// Changes to another health file after a reload, and removes the old one. Does nothing if
    /// `path` has not changed.
    pub fn move_to(&mut self, path: &Path) {
        if *path != self.path {
            self.remove();
            self.path.set(path);
        }
    }

    /// Removes the health file, which a clean stop does not leave.
    pub fn remove(&mut self) {
        if self.fd.take().is_some() {
            let _ = file::unlink(self.path.as_c_str());
        }
    }
}

/// The health of a process according to its health file.
pub enum Health {
    /// There is no health file.
    Missing,
    /// The file is not a heartbeat, or cannot be read.
    Unreadable,
    /// This process lacks descriptors or memory to read the file. That is no evidence about
    /// the other process.
    Unknown,
    /// The judgement of the heartbeat, and the heartbeat.
    Judged(Verdict, HealthRecord),
}

/// Reads the health file at `path`, and judges it for the process `pid`. `boot` is the id of
/// this boot, and `now` the time since it. A heartbeat older than `stale_after` is stale. A
/// torn file is read up to [`TORN_READS_MAX`] times.
#[must_use]
pub fn probe(
    path: &Path,
    pid: u32,
    boot: &[u8; BOOT_ID_BYTES],
    now: Instant,
    stale_after: Duration,
) -> Health {
    for _ in 0..TORN_READS_MAX {
        let mut bytes = [0; RECORD_BYTES];
        match file::read_path(path.as_c_str(), &mut bytes) {
            Ok(count) => match HealthRecord::parse(bytes.get(..count).unwrap_or(&[])) {
                Ok(record) => {
                    // The heartbeat may have been written after `now`.
                    let now = now.or_later(clock::now());
                    return Health::Judged(record.judge(pid, boot, now, stale_after), record);
                }
                Err(ParseError::Garbage) => return Health::Unreadable,
                Err(ParseError::Torn) => {}
            },
            Err(Failure { errno: Errno::INTR, .. }) => {}
            Err(Failure { errno: Errno::NOENT | Errno::NOTDIR, .. }) => return Health::Missing,
            Err(Failure { errno: Errno::MFILE | Errno::NFILE | Errno::NOMEM, .. }) => return Health::Unknown,
            Err(_) => return Health::Unreadable,
        }
    }
    Health::Unreadable
}
