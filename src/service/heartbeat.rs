//! The health file. It is written after a finished turn of the loop, and only then. It is
//! written in place, because a rename each time would wear the flash and wake watchers. A
//! reader recognises a torn read by the two sequence numbers.

use crate::limits::{HEARTBEAT_MIN, TORN_READS_MAX};
use crate::proto::health::{BOOT_ID_BYTES, HealthRecord, ParseError, RECORD_BYTES, UNKNOWN_BOOT, Verdict};
use crate::service::lifecycle::{StartReporter, describe_at};
use crate::sys::{Errno, Failure, Op, OwnedFd, clock, file, process};
use crate::util::path::Path;
use crate::util::time::{Duration, Instant};

/// The file that holds the id of this boot (random(4)).
const BOOT_ID: &core::ffi::CStr = c"/proc/sys/kernel/random/boot_id";

/// See the module's documentation.
pub struct Heartbeat {
    path: Path,
    fd: Option<OwnedFd>,
    identity: (u64, u64),
    boot: [u8; BOOT_ID_BYTES],
    pid: u32,
    seq: u64,
    last_at: Instant,
    failure: Option<Failure>,
    /// No health file is written.
    disabled: bool,
}

impl Heartbeat {
    /// Returns a heartbeat that will write to `path`.
    #[must_use]
    pub fn new(path: Path) -> Self {
        let pid = u32::try_from(process::pid().as_raw_pid()).unwrap_or(0);
        Self {
            path,
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

    /// Writes no health file from now on.
    pub fn disable(&mut self) {
        self.disabled = true;
    }

    /// Returns true if no health file is written.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.disabled
    }

    /// Returns the time of the next beat. It is never before [`Heartbeat::turn_finished`] would
    /// write it, because the loop would spin.
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

    /// Returns the reason why the file cannot be written at the moment, if it cannot.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Writes a beat for a turn that was finished at `now`, unless the last beat is recent.
    /// Returns true if it was due.
    pub fn turn_finished(&mut self, now: Instant) -> bool {
        let due = !self.disabled && (self.seq == 0 || (self.last_at + HEARTBEAT_MIN).is_due(now));
        if due {
            self.beat(now);
        }
        due
    }

    /// Returns the number of beats.
    #[must_use]
    pub fn beats(&self) -> u64 {
        self.seq
    }

    /// Returns the time since the last beat.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        now.since(self.last_at)
    }

    /// Writes the first beat, and warns the process that started the service if it fails.
    pub fn begin(&mut self, now: Instant, reporter: &StartReporter) {
        self.beat(now);
        if let Some(failure) = self.failure {
            reporter.warn(&|out| {
                out.push_str("the health file cannot be written: ");
                describe_at(&self.path, failure, out);
            });
        }
    }

    /// Writes the next record.
    pub fn beat(&mut self, now: Instant) {
        if self.disabled {
            return;
        }
        self.last_at = now;
        self.seq = self.seq.saturating_add(1);
        let Self { seq, pid, boot, .. } = *self;
        let record = HealthRecord { wall: clock::wall(), seq, pid, boottime_ms: now.as_ms(), boot };
        self.failure = self.write(&record.emit()).err();
    }

    fn write(&mut self, bytes: &[u8; RECORD_BYTES]) -> Result<(), Failure> {
        let named = file::meta_at(self.path.as_c_str(), false).map(|meta| meta.identity);
        if let Some(fd) = self.fd.as_ref().filter(|_| named == Ok(self.identity)) {
            return file::write_at(fd, bytes, 0);
        }
        self.create(bytes)
    }

    /// Makes a new file. It is written under another name first, so that no reader sees it empty.
    fn create(&mut self, bytes: &[u8; RECORD_BYTES]) -> Result<(), Failure> {
        self.fd = None;
        let too_long = Failure { op: Op::Openat, errno: Errno::NAMETOOLONG };
        let temporary = self.path.with_suffix(b".new").ok_or(too_long)?;
        let _ = file::unlink(temporary.as_c_str());
        let flags = file::OFlags::WRONLY | file::OFlags::CREATE | file::OFlags::EXCL | file::OFlags::NOFOLLOW;
        let fd = file::open(temporary.as_c_str(), flags, 0o644)?;
        file::set_mode(&fd, 0o644)?;
        file::write_at(&fd, bytes, 0)?;
        if let Err(failure) = file::rename(temporary.as_c_str(), self.path.as_c_str()) {
            let _ = file::unlink(temporary.as_c_str());
            return Err(failure);
        }
        self.identity = file::meta(&fd)?.identity;
        self.fd = Some(fd);
        Ok(())
    }

    /// Writes to `path` from now on, which a reload named.
    pub fn move_to(&mut self, path: &Path) {
        if *path != self.path {
            self.remove();
            self.path.set(path);
        }
    }

    /// Removes the file, for a clean stop.
    pub fn remove(&mut self) {
        if self.fd.take().is_some() {
            let _ = file::unlink(self.path.as_c_str());
        }
    }
}

/// Returns the id of this boot, or [`UNKNOWN_BOOT`] without /proc.
#[must_use]
pub fn boot_id() -> [u8; BOOT_ID_BYTES] {
    let mut id = [0; BOOT_ID_BYTES];
    match file::read_path(BOOT_ID, &mut id) {
        Ok(BOOT_ID_BYTES) => id,
        _ => UNKNOWN_BOOT,
    }
}

/// The health of a process, by its health file.
pub enum Health {
    /// The file does not exist.
    Missing,
    /// The file holds no heartbeat, or cannot be read.
    Unreadable,
    /// This process lacks the descriptors or the memory to read the file.
    Unknown,
    /// The verdict about the heartbeat, and the heartbeat.
    Judged(Verdict, HealthRecord),
}

/// Reads the health file at `path`, and judges it at `now` of the boot `boot` for
/// the process `pid`.
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
                    // The heartbeat can be newer than `now`.
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
