//! The PID file and its lock (fcntl(2), POSIX record locks).
//!
//! The lock is the only authority. The kernel drops it when *any* descriptor of the file in
//! the holding process is closed, so a service keeps exactly one. Children do not inherit it.
//! `F_GETLK` names its holder, which is how every other process learns the PID to signal. The
//! number in the file is for people.
//!
//! The lock is a write lock, which needs the right to write to the file. Every process can get
//! a read lock, because every process may read the number. So a read lock means nothing, is
//! never asked for, and keeps no service from starting.

use super::{Errno, Failure, Op, OwnedFd, WithOp, file, process};
use crate::util::path::Path;
use crate::util::text::Writer;
use core::ffi::CStr;
use rustix::fs::{FlockOperation, OFlags, fcntl_lock};
use rustix::process::{Flock, FlockType, Pid, fcntl_getlk};
use ufmt::uwrite;

/// The lock, held by this process until the descriptor is dropped.
pub struct PidFile {
    fd: OwnedFd,
}

/// Why [`PidFile::acquire`] failed.
pub enum AcquireError {
    /// Another process holds the lock. Its PID is there if the kernel can name it.
    Running(Option<Pid>),
    /// A system call failed.
    Failed(Failure),
}

impl From<Failure> for AcquireError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Maximum number of times that the path is replaced by another process before the start fails.
const RACES_MAX: u32 = 16;

impl PidFile {
    /// Opens the file without truncating it, locks it, checks that the path
    /// still names it, and only then writes this process's PID.
    ///
    /// # Errors
    /// [`AcquireError`]; in every case what was in the file is still there. EMLINK: it has a
    /// second name, and can be the file of another user (see [`file::is_untrusted_dir`]). EBUSY: others
    /// read-lock it, and the filesystem cannot put another one in its place.
    pub fn acquire(path: &Path, pid_line: &[u8]) -> Result<Self, AcquireError> {
        for _ in 0..RACES_MAX {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let fd = file::open(path.as_c_str(), flags, 0o644)?;
            let meta = file::meta(&fd)?;
            if !meta.regular {
                return Err(Failure { op: Op::Openat, errno: Errno::INVAL }.into());
            }
            if meta.links > 1 && file::is_untrusted_dir(path) {
                return Err(Failure { op: Op::Openat, errno: Errno::MLINK }.into());
            }
            match fcntl_lock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::AGAIN | Errno::ACCESS) => {
                    if let Some(pid) = writer_of(&fd)? {
                        return Err(AcquireError::Running(pid));
                    }
                    match replace(path, pid_line, &fd, meta.identity)? {
                        Some(pid_file) => return Ok(pid_file),
                        None => continue,
                    }
                }
                Err(errno) => return Err(Failure { op: Op::Fcntl, errno }.into()),
            }
            if file::meta_at(path.as_c_str(), false).is_ok_and(|named| named.identity == meta.identity) {
                file::truncate(&fd, 0)?;
                file::write_at(&fd, pid_line, 0)?;
                let _ = file::set_mode(&fd, 0o644);
                return Ok(Self { fd });
            }
        }
        Err(Failure { op: Op::Fcntl, errno: Errno::BUSY }.into())
    }

    /// Ends cleanly: removes the file under the lock, or empties it if the rights to remove it
    /// were dropped. A missing or empty file means *stopped*; a filled and unlocked file means
    /// *died*.
    pub fn release(&self, path: &CStr) {
        let ours = file::meta(&self.fd).ok().map(|meta| meta.identity);
        let named = file::meta_at(path, false).ok().map(|meta| meta.identity);
        if ours != named || file::unlink(path).is_err() {
            let _ = file::truncate(&self.fd, 0);
        }
    }
}

/// Puts a file of our own, filled and locked, in the place of `known`, which others hold by
/// read locks. `None`: another instance was faster, so it is to be looked at again.
#[inline(never)]
fn replace(
    path: &Path,
    pid_line: &[u8],
    known: &OwnedFd,
    identity: (u64, u64),
) -> Result<Option<PidFile>, Failure> {
    let mut suffix = [0; 20];
    let mut out = Writer::new(&mut suffix);
    let _ = uwrite!(out, ".new-{}", process::pid().as_raw_pid());
    let too_long = Failure { op: Op::Openat, errno: Errno::NAMETOOLONG };
    let temporary = path.with_suffix(out.as_bytes()).ok_or(too_long)?;
    let (temporary, path) = (temporary.as_c_str(), path.as_c_str());
    let _ = file::unlink(temporary);
    // No other user may read the file before it is locked.
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let fd = file::open(temporary, flags, 0o600)?;
    let exchanged = fcntl_lock(&fd, FlockOperation::NonBlockingLockExclusive)
        .op(Op::Fcntl)
        .and_then(|()| file::write_at(&fd, pid_line, 0))
        .and_then(|()| file::set_mode(&fd, 0o644))
        .and_then(|()| file::exchange(temporary, path));
    if let Err(failure) = exchanged {
        let _ = file::unlink(temporary);
        return match failure.errno {
            Errno::NOENT => Ok(None),
            Errno::NOSYS | Errno::INVAL => Err(Failure { op: Op::Fcntl, errno: Errno::BUSY }),
            _ => Err(failure),
        };
    }
    // The old file has our temporary name now. An instance that locked it before the exchange
    // runs, and gets it back. An instance that locks it later sees that the path names another
    // file.
    let is_known = file::meta_at(temporary, false).is_ok_and(|meta| meta.identity == identity);
    let is_ours = is_known && matches!(writer_of(known), Ok(None));
    if !is_ours {
        let _ = file::exchange(temporary, path);
    }
    let _ = file::unlink(temporary);
    Ok(is_ours.then_some(PidFile { fd }))
}

/// The state of a service, from its PID file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holder {
    /// The lock is held. `None` stands for a process that this PID namespace cannot name.
    Running(Option<Pid>),
    /// The lock is free, but the file still holds a PID: the service died.
    Died,
    /// The lock is free, and the file is missing or empty: the service was stopped.
    Stopped,
}

/// Returns the holder of the lock of the PID file at `path`. Changes nothing.
///
/// # Errors
/// The file exists and cannot be opened or asked.
pub fn holder(path: &CStr) -> Result<Holder, Failure> {
    let fd = match file::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, 0) {
        Ok(fd) => fd,
        Err(Failure { errno: Errno::NOENT | Errno::NOTDIR, .. }) => return Ok(Holder::Stopped),
        Err(failure) => return Err(failure),
    };
    if let Some(pid) = writer_of(&fd)? {
        return Ok(Holder::Running(pid));
    }
    let meta = file::meta(&fd)?;
    Ok(if meta.size == 0 { Holder::Stopped } else { Holder::Died })
}

/// Empties the PID file at `path` while process `pid` holds its lock: what ends it
/// now is a stop.
///
/// # Errors
/// As openat(2) and ftruncate(2) say.
pub fn mark_stopped(path: &CStr, pid: Pid) -> Result<(), Failure> {
    let fd = file::open(path, OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, 0)?;
    if holder_of(&fd) == Some(pid) { file::truncate(&fd, 0) } else { Ok(()) }
}

/// Returns the PID that holds the lock of the open file, if the kernel can name it.
fn holder_of(fd: &OwnedFd) -> Option<Pid> {
    writer_of(fd).ok()??
}

/// Returns the holder of the write lock of the open file, if it is held; the inner value is its
/// PID, if the kernel can name it. Asks for a read lock, because only a write lock conflicts
/// with it.
fn writer_of(fd: &OwnedFd) -> Result<Option<Option<Pid>>, Failure> {
    let lock = fcntl_getlk(fd, &Flock::from(FlockType::ReadLock)).op(Op::Fcntl)?;
    Ok(lock.map(|lock| nameable(lock.pid)))
}

/// Filters the answer of the kernel. It gives -1 for a lock of an open file description, and
/// other negative numbers for locks of other machines. To kill(2) those numbers mean all
/// processes.
fn nameable(pid: Option<Pid>) -> Option<Pid> {
    pid.filter(|pid| pid.as_raw_pid() > 0)
}
