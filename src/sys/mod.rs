//! The only layer that makes system calls. Every function names its call and
//! its promise; every descriptor is close-on-exec from birth; every failure
//! says which call failed and with which errno.
//!
//! `unsafe` lives here and in the binary's `rt`, nowhere else.

pub mod arch;
pub mod args;
pub mod clock;
pub mod datagram;
pub mod dir;
pub mod fd_passing;
pub mod fds;
pub mod file;
pub mod identity;
pub mod inotify;
pub mod lock;
pub mod memory;
pub mod once;
pub mod oom;
pub mod poll;
pub mod process;
mod runtime;
pub mod sandbox;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod syslog;
pub mod watchdog;

use crate::util::text::Writer;
pub use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
pub use rustix::io::Errno;
use ufmt::uwrite;

/// A system call that failed: which one, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The call's name as in section 2 of the manual, e.g. `openat`.
    pub op: &'static str,
    /// What it said.
    pub errno: Errno,
}

impl Failure {
    /// Writes `openat: ENOENT (no such file or directory)`.
    pub fn describe(&self, out: &mut Writer<'_>) {
        let _ = uwrite!(out, "{}: ", self.op);
        describe_errno(self.errno, out);
    }

    /// Whether the cause is a missing right (exit code 4 of the LSB).
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self.errno, Errno::ACCESS | Errno::PERM)
    }

    /// Whether the disk is full, read-only or broken.
    #[must_use]
    pub fn is_of_disk(&self) -> bool {
        matches!(self.errno, Errno::NOSPC | Errno::DQUOT | Errno::ROFS | Errno::IO)
    }
}

/// Attaches the call's name to an errno.
pub trait WithOp<T> {
    /// Turns the errno into a [`Failure`] of `op`.
    ///
    /// # Errors
    /// The same failure, named.
    fn op(self, op: &'static str) -> Result<T, Failure>;
}

impl<T> WithOp<T> for rustix::io::Result<T> {
    fn op(self, op: &'static str) -> Result<T, Failure> {
        self.map_err(|errno| Failure { op, errno })
    }
}

/// Names and meanings of the errors that a user of this program can meet
/// (errno(3)); others are written as numbers.
const ERRNOS: &[(Errno, &str)] = &[
    (Errno::PERM, "EPERM (not permitted)"),
    (Errno::NOENT, "ENOENT (no such file or directory)"),
    (Errno::SRCH, "ESRCH (no such process)"),
    (Errno::IO, "EIO (input/output error)"),
    (Errno::NXIO, "ENXIO (no such device, or nobody reads)"),
    (Errno::TOOBIG, "E2BIG (argument list too long)"),
    (Errno::NOEXEC, "ENOEXEC (not an executable format)"),
    (Errno::AGAIN, "EAGAIN (try again)"),
    (Errno::NOMEM, "ENOMEM (out of memory)"),
    (Errno::ACCESS, "EACCES (permission denied)"),
    (Errno::BUSY, "EBUSY (in use)"),
    (Errno::EXIST, "EEXIST (already exists)"),
    (Errno::NODEV, "ENODEV (no such device)"),
    (Errno::NOTDIR, "ENOTDIR (not a directory)"),
    (Errno::ISDIR, "EISDIR (is a directory)"),
    (Errno::INVAL, "EINVAL (invalid argument)"),
    (Errno::NFILE, "ENFILE (too many open files in the system)"),
    (Errno::MFILE, "EMFILE (too many open files)"),
    (Errno::TXTBSY, "ETXTBSY (a program that runs, or is being written)"),
    (Errno::FBIG, "EFBIG (file too large)"),
    (Errno::NOSPC, "ENOSPC (no space left on device)"),
    (Errno::ROFS, "EROFS (read-only file system)"),
    (Errno::MLINK, "EMLINK (has a second name, a hard link)"),
    (Errno::PIPE, "EPIPE (nobody reads)"),
    (Errno::NAMETOOLONG, "ENAMETOOLONG (name too long)"),
    (Errno::NOSYS, "ENOSYS (not in this kernel)"),
    (Errno::LOOP, "ELOOP (is a symbolic link)"),
    (Errno::ADDRINUSE, "EADDRINUSE (somebody else listens there)"),
    (Errno::CONNRESET, "ECONNRESET (the other end closed it)"),
    (Errno::NOBUFS, "ENOBUFS (no memory for it in the kernel)"),
    (Errno::TOOMANYREFS, "ETOOMANYREFS (too many descriptors on their way)"),
    (Errno::CONNREFUSED, "ECONNREFUSED (nobody listens)"),
    (Errno::DQUOT, "EDQUOT (quota exceeded)"),
    (Errno::ILSEQ, "EILSEQ (damaged data)"),
    (Errno::STALE, "ESTALE (stale file handle)"),
];

/// Writes the name of `errno` alone, or its number.
pub fn push_errno_name(errno: Errno, out: &mut Writer<'_>) {
    let before = out.len();
    describe_errno(errno, out);
    let meaning = out.as_bytes().get(before..).unwrap_or(&[]).iter().position(|byte| *byte == b'(');
    if let Some(at) = meaning {
        out.truncate(before.saturating_add(at.saturating_sub(1)));
    }
}

/// Writes the name and meaning of `errno`, or its number.
pub fn describe_errno(errno: Errno, out: &mut Writer<'_>) {
    match ERRNOS.iter().find(|(known, _)| *known == errno) {
        Some((_, text)) => out.push_str(text),
        None => {
            let _ = uwrite!(out, "error {}", errno.raw_os_error());
        }
    }
}
