//! The PID file and its lock (fcntl(2), POSIX record locks).
//!
//! The lock is the only authority. The kernel releases it when *any* descriptor of the file
//! in the holding process is closed, so a daemon keeps exactly one. Children do not inherit
//! it. `F_GETLK` names its holder, so that another process learns which one to signal. The
//! number in the file is for people.
//!
//! It is a write lock, which only a process that may write to the file gets. Every process
//! may get a read lock, because every process may read the number. A read lock therefore
//! proves nothing, is never requested, and keeps no service from starting.

use super::{BorrowedFd, Errno, Failure, Op, OwnedFd, WithOp, file, process};
use crate::limits::PATH_MAX_BYTES;
use crate::util::path::Path;
use crate::util::text::Writer;
use core::ffi::CStr;
use rustix::fs::{CWD, FlockOperation, OFlags, fcntl_lock};
use rustix::process::{Flock, FlockType, Pid, fcntl_getlk};
use ufmt::uwrite;

/// The lock, held by this process until the descriptor is dropped.
pub struct PidFile {
    fd: OwnedFd,
    /// The device and inode of the file.
    identity: (u64, u64),
    /// The reason why the content is missing, if the disk was full.
    unwritten: Option<Failure>,
}

/// Why [`PidFile::acquire`] failed.
pub enum AcquireError {
    /// Another process holds the lock; its PID where the kernel names it.
    Running(Option<Pid>),
    /// A system call failed.
    Failed(Failure),
}

impl From<Failure> for AcquireError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Maximum number of attempts while other processes replace the file at the path.
const RACES_MAX: u32 = 16;

impl PidFile {
    /// Opens the file without truncating it, locks it, checks that the path
    /// still names it, and only then writes this process's PID.
    ///
    /// # Errors
    /// [`AcquireError`]; in every case the content of the file is still there. EMLINK: the file
    /// has a second name, and may belong to any user (see [`file::is_untrusted_dir`]). EBUSY:
    /// other processes read-lock it, and the filesystem cannot put another file in its place.
    pub fn acquire(path: &Path, pid_line: &[u8]) -> Result<Self, AcquireError> {
        Self::acquire_in(CWD, path, path, pid_line)
    }

    /// Acquires the file `name` of `folder`, to which `path` led a moment ago, as
    /// [`PidFile::acquire`] does.
    ///
    /// # Errors
    /// As for [`PidFile::acquire`].
    pub fn acquire_in(
        folder: BorrowedFd<'_>,
        name: &Path,
        path: &Path,
        pid_line: &[u8],
    ) -> Result<Self, AcquireError> {
        for _ in 0..RACES_MAX {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let fd = file::open_at(folder, name.as_c_str(), flags, 0o644)?;
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
                    let (temporary, new) = create_locked(path, pid_line)?;
                    if replace(&temporary, path, &fd, meta.identity)? {
                        return Ok(new);
                    }
                    continue;
                }
                Err(errno) => return Err(Failure { op: Op::Fcntl, errno }.into()),
            }
            if file::meta_in(folder, name.as_c_str()).is_ok_and(|named| named.identity == meta.identity) {
                let mut pid_file = Self { fd, identity: meta.identity, unwritten: None };
                pid_file.fill(pid_line)?;
                let _ = file::set_mode(&pid_file.fd, 0o644);
                return Ok(pid_file);
            }
        }
        Err(Failure { op: Op::Fcntl, errno: Errno::BUSY }.into())
    }

    /// Returns the device and inode of the file.
    #[must_use]
    #[allow(unsafe_code, reason = "names a section")]
    #[unsafe(link_section = ".text.idle")]
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Returns the reason why the content is missing, if the disk was full.
    #[must_use]
    pub fn unwritten(&self) -> Option<Failure> {
        self.unwritten
    }

    /// Writes this process's PID. A full disk is no error, because the lock is held in any case.
    ///
    /// # Errors
    /// As ftruncate(2) and pwrite(2) say, except that there is no space: a filesystem that copies
    /// what is written again needs some even to empty a file.
    pub fn fill(&mut self, pid_line: &[u8]) -> Result<(), Failure> {
        let emptied = file::truncate(&self.fd, 0);
        self.unwritten = emptied.and_then(|()| file::write_at(&self.fd, pid_line, 0)).err();
        match self.unwritten {
            Some(failure) if !failure.is_of_full_disk() => Err(failure),
            _ => Ok(()),
        }
    }

    /// Makes the file again after `path` was found not to name it. A new file is created under
    /// another name, locked and filled, and then gets the name `path`. An unlocked regular file
    /// of that name is replaced. Any other file is left alone. The lock is held without a gap.
    ///
    /// # Errors
    /// EEXIST: something that is not a regular file is there. EBUSY: another process has locked
    /// the file that is there. As the calls say.
    #[cold]
    #[inline(never)]
    pub fn make_again(&mut self, path: &Path, pid_line: &[u8]) -> Result<(), Failure> {
        match put_back(path, pid_line) {
            Ok(new) => {
                // The previous descriptor is closed here, after the new file is in its place.
                *self = new;
                Ok(())
            }
            Err(failure) => {
                // The path may have named the previous file again for a moment. Its lock was lost
                // then, when the descriptor that looked at it was closed.
                let _ = fcntl_lock(&self.fd, FlockOperation::NonBlockingLockExclusive);
                Err(failure)
            }
        }
    }

    /// Removes the file while its lock is held, or empties it where the rights to remove it
    /// were dropped (unlink(2), ftruncate(2)). A missing or empty file means *stopped*; a
    /// filled and unlocked one means *died*.
    pub fn release(&self, path: &CStr) {
        let ours = file::meta(&self.fd).ok().map(|meta| meta.identity);
        let named = file::meta_at(path, false).ok().map(|meta| meta.identity);
        if ours != named || file::unlink(path).is_err() {
            let _ = file::truncate(&self.fd, 0);
        }
    }
}

/// Creates a file beside `path`, filled and locked. Returns its name too.
fn create_locked(path: &Path, pid_line: &[u8]) -> Result<(Path, PidFile), Failure> {
    let mut suffix = [0; 20];
    let mut out = Writer::new(&mut suffix);
    let _ = uwrite!(out, ".new-{}", process::pid().as_raw_pid());
    let too_long = Failure { op: Op::Openat, errno: Errno::NAMETOOLONG };
    let temporary = path.with_suffix(out.as_bytes()).ok_or(too_long)?;
    let _ = file::unlink(temporary.as_c_str());
    // No other user may read the file before it is locked.
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let fd = file::open(temporary.as_c_str(), flags, 0o600)?;
    let locked = fcntl_lock(&fd, FlockOperation::NonBlockingLockExclusive).op(Op::Fcntl);
    let filled = locked.and_then(|()| file::meta(&fd)).and_then(|meta| {
        let mut pid_file = PidFile { fd, identity: meta.identity, unwritten: None };
        pid_file.fill(pid_line)?;
        file::set_mode(&pid_file.fd, 0o644)?;
        Ok(pid_file)
    });
    match filled {
        Ok(pid_file) => Ok((temporary, pid_file)),
        Err(failure) => {
            let _ = file::unlink(temporary.as_c_str());
            Err(failure)
        }
    }
}

/// Puts a new file, filled and locked, at `path`, if no file or an unlocked one is there.
fn put_back(path: &Path, pid_line: &[u8]) -> Result<PidFile, Failure> {
    let (temporary, pid_file) = create_locked(path, pid_line)?;
    let failure = match file::rename_new(temporary.as_c_str(), path.as_c_str()) {
        Ok(()) => return Ok(pid_file),
        Err(failure) => failure,
    };
    let replaced = match failure.errno {
        Errno::EXIST => replace_unlocked(&temporary, path, failure),
        _ => Err(failure),
    };
    if replaced.is_err() {
        let _ = file::unlink(temporary.as_c_str());
    }
    replaced.map(|()| pid_file)
}

/// Puts `temporary` in the place of the file at `path`, if that is an unlocked regular file.
/// `exists` is the failure of any other kind of file.
fn replace_unlocked(temporary: &Path, path: &Path, exists: Failure) -> Result<(), Failure> {
    let known = file::open(path.as_c_str(), OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, 0)?;
    let meta = file::meta(&known)?;
    if !meta.regular {
        return Err(exists);
    }
    let is_locked = writer_of(&known)?.is_some();
    if is_locked || !replace(temporary, path, &known, meta.identity)? {
        return Err(Failure { op: Op::Fcntl, errno: Errno::BUSY });
    }
    Ok(())
}

/// Puts `temporary`, which is filled and locked, in the place of `known`, which other processes
/// hold at most by read locks. Returns false if another instance was faster.
#[inline(never)]
fn replace(temporary: &Path, path: &Path, known: &OwnedFd, identity: (u64, u64)) -> Result<bool, Failure> {
    let (temporary, path) = (temporary.as_c_str(), path.as_c_str());
    if let Err(failure) = file::exchange(temporary, path) {
        let _ = file::unlink(temporary);
        return match failure.errno {
            Errno::NOENT => Ok(false),
            Errno::NOSYS | Errno::INVAL => Err(Failure { op: Op::Fcntl, errno: Errno::BUSY }),
            _ => Err(failure),
        };
    }
    // The previous file has the temporary name now. A process that locked it before it moved
    // runs, and gets it back. A process that locks it later sees that the path names another
    // file.
    let is_known = file::meta_at(temporary, false).is_ok_and(|meta| meta.identity == identity);
    let is_ours = is_known && matches!(writer_of(known), Ok(None));
    if !is_ours {
        let _ = file::exchange(temporary, path);
    }
    let _ = file::unlink(temporary);
    Ok(is_ours)
}

/// Takes a write lock on an open file, which ends with the descriptor (fcntl(2), `F_SETLK`). A
/// filesystem without locks is no error.
///
/// # Errors
/// EAGAIN: another process holds a lock.
pub fn lock_open_file(fd: &OwnedFd) -> Result<(), Failure> {
    match fcntl_lock(fd, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::AGAIN | Errno::ACCESS) => Err(Failure { op: Op::Fcntl, errno: Errno::AGAIN }),
        _ => Ok(()),
    }
}

/// The state of a service, as its PID file shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holder {
    /// The lock is held. `None` stands for a process that this PID namespace cannot name.
    Running(Option<Pid>),
    /// The lock is free, but the file still names a process: the service died.
    Died,
    /// The lock is free, and the file is missing, empty or no regular file: the service was stopped.
    Stopped,
}

/// Returns the state that the PID file at `path` and its lock show (fcntl(2), `F_GETLK`).
/// Changes nothing.
///
/// # Errors
/// The file exists, but cannot be opened, or its lock cannot be queried.
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
    Ok(if meta.regular && meta.size > 0 { Holder::Died } else { Holder::Stopped })
}

/// Empties the PID file at `path` while process `pid` holds its lock, so that the end of
/// the process counts as a stop.
///
/// # Errors
/// As openat(2) and ftruncate(2) say.
pub fn mark_stopped(path: &CStr, pid: Pid) -> Result<(), Failure> {
    let fd = file::open(path, OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, 0)?;
    if holder_of(&fd) == Some(pid) { file::truncate(&fd, 0) } else { Ok(()) }
}

/// Returns true if the file at `path` has no content, or exactly `content`.
#[must_use]
pub fn is_filled_with(path: &CStr, content: &[u8]) -> bool {
    let mut buffer = [0; PATH_MAX_BYTES + 1];
    match file::read_path(path, &mut buffer) {
        Ok(count) => count == 0 || buffer.get(..count) == Some(content),
        Err(_) => false,
    }
}

/// Returns the PID that holds the lock of the open file, if the kernel names it.
fn holder_of(fd: &OwnedFd) -> Option<Pid> {
    writer_of(fd).ok()??
}

/// Returns the process that holds the lock of the open file (fcntl(2), `F_GETLK`). `None`:
/// the lock is free; `Some(None)`: this PID namespace cannot name the process. Queries a
/// read lock, because only a write lock conflicts with it.
fn writer_of(fd: &OwnedFd) -> Result<Option<Option<Pid>>, Failure> {
    let lock = fcntl_getlk(fd, &Flock::from(FlockType::ReadLock)).op(Op::Fcntl)?;
    Ok(lock.map(|lock| nameable(lock.pid)))
}

/// Returns `pid` if it is positive. The kernel answers -1 for a lock of an open file
/// description, and other negative numbers for locks of other machines; to kill(2) a
/// negative number means many processes.
fn nameable(pid: Option<Pid>) -> Option<Pid> {
    pid.filter(|pid| pid.as_raw_pid() > 0)
}
