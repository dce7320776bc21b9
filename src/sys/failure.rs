//! A failed system call: its name, its errno, and the text of both for a message.

use super::Errno;
use crate::util::string_table::{StringTable, named_enum, string_table};
use crate::util::text::Writer;
use ufmt::uwrite;

named_enum! {
    /// A system call, named as in section 2 of the manual.
    #[expect(missing_docs, reason = "the name says it")]
    pub enum Op {
        Accept4 = "accept4",
        Access = "access",
        Bind = "bind",
        Chdir = "chdir",
        Chroot = "chroot",
        Clone = "clone",
        Connect = "connect",
        Dup2 = "dup2",
        Execve = "execve",
        Fallocate = "fallocate",
        Fchmod = "fchmod",
        Fchown = "fchown",
        Fchownat = "fchownat",
        Fcntl = "fcntl",
        Fdatasync = "fdatasync",
        Fork = "fork",
        Fstat = "fstat",
        Fstatat = "fstatat",
        Fsync = "fsync",
        Ftruncate = "ftruncate",
        Getdents64 = "getdents64",
        Getsockopt = "getsockopt",
        Ioctl = "ioctl",
        InotifyAddWatch = "inotify_add_watch",
        InotifyInit1 = "inotify_init1",
        Kill = "kill",
        Linkat = "linkat",
        Listen = "listen",
        Mkdirat = "mkdirat",
        Open = "open",
        Openat = "openat",
        Openat2 = "openat2",
        PidfdOpen = "pidfd_open",
        PidfdSendSignal = "pidfd_send_signal",
        Pipe2 = "pipe2",
        Prctl = "prctl",
        Pread = "pread",
        Pwrite = "pwrite",
        Read = "read",
        Readlinkat = "readlinkat",
        Recvfrom = "recvfrom",
        Recvmsg = "recvmsg",
        Renameat = "renameat",
        Renameat2 = "renameat2",
        RtSigaction = "rt_sigaction",
        Sendmsg = "sendmsg",
        Sendto = "sendto",
        Setgroups = "setgroups",
        Setresgid = "setresgid",
        Setresuid = "setresuid",
        Setrlimit = "setrlimit",
        Setsid = "setsid",
        Socket = "socket",
        Socketpair = "socketpair",
        Statfs = "statfs",
        Unlinkat = "unlinkat",
        Write = "write",
    }
}

/// A system call that failed, and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The call.
    pub op: Op,
    /// The reason that the kernel gave.
    pub errno: Errno,
}

impl Failure {
    /// Writes `openat: ENOENT (no such file or directory)`.
    pub fn describe(&self, out: &mut Writer<'_>) {
        out.push_str(self.op.name());
        out.push_str(": ");
        describe_errno(self.errno, out);
    }

    /// Returns true if the cause is a missing right (exit code 4 of the LSB).
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self.errno, Errno::ACCESS | Errno::PERM)
    }

    /// Returns true if the disk or the quota of the user is full.
    #[must_use]
    pub fn is_of_full_disk(&self) -> bool {
        matches!(self.errno, Errno::NOSPC | Errno::DQUOT)
    }

    /// Returns true if the disk is full, read-only or broken.
    #[must_use]
    pub fn is_of_disk(&self) -> bool {
        matches!(self.errno, Errno::NOSPC | Errno::DQUOT | Errno::ROFS | Errno::IO)
    }
}

/// Attaches the name of the call to an errno.
pub trait WithOp<T> {
    /// Turns the errno into a [`Failure`] of `op`.
    ///
    /// # Errors
    /// The same failure, named.
    fn op(self, op: Op) -> Result<T, Failure>;
}

impl<T> WithOp<T> for rustix::io::Result<T> {
    fn op(self, op: Op) -> Result<T, Failure> {
        self.map_err(|errno| Failure { op, errno })
    }
}

/// Declares the errors that have a name, and their texts in the same order.
macro_rules! errnos {
    ($($errno:ident = $text:literal),+ $(,)?) => {
        const ERRNOS: &[Errno] = &[$(Errno::$errno),+];
        static ERRNO_TEXTS: StringTable = string_table![$($text),+];
    };
}

// Names and meanings of the errors that a user of this program can meet (errno(3)); others
// are written as numbers.
errnos! {
    PERM = "EPERM (not permitted)",
    NOENT = "ENOENT (no such file or directory)",
    SRCH = "ESRCH (no such process)",
    IO = "EIO (input/output error)",
    NXIO = "ENXIO (no such device, or nobody reads)",
    TOOBIG = "E2BIG (argument list too long)",
    NOEXEC = "ENOEXEC (not an executable format)",
    AGAIN = "EAGAIN (try again)",
    NOMEM = "ENOMEM (out of memory)",
    ACCESS = "EACCES (permission denied)",
    BUSY = "EBUSY (in use)",
    EXIST = "EEXIST (already exists)",
    NODEV = "ENODEV (no such device)",
    NOTDIR = "ENOTDIR (not a directory)",
    ISDIR = "EISDIR (is a directory)",
    INVAL = "EINVAL (invalid argument)",
    NFILE = "ENFILE (too many open files in the system)",
    MFILE = "EMFILE (too many open files)",
    NOTTY = "ENOTTY (not for this kind of file)",
    OPNOTSUPP = "EOPNOTSUPP (not supported)",
    TXTBSY = "ETXTBSY (a program that runs, or is being written)",
    FBIG = "EFBIG (file too large)",
    NOSPC = "ENOSPC (no space left on device)",
    ROFS = "EROFS (read-only file system)",
    MLINK = "EMLINK (has a second name, a hard link)",
    PIPE = "EPIPE (nobody reads)",
    NAMETOOLONG = "ENAMETOOLONG (name too long)",
    NOSYS = "ENOSYS (not in this kernel)",
    LOOP = "ELOOP (is a symbolic link)",
    ADDRINUSE = "EADDRINUSE (somebody else listens there)",
    CONNRESET = "ECONNRESET (the other end closed it)",
    NOBUFS = "ENOBUFS (no memory for it in the kernel)",
    TOOMANYREFS = "ETOOMANYREFS (too many descriptors on their way)",
    CONNREFUSED = "ECONNREFUSED (nobody listens)",
    DQUOT = "EDQUOT (quota exceeded)",
    ILSEQ = "EILSEQ (damaged data)",
    STALE = "ESTALE (stale file handle)",
    XDEV = "EXDEV (on another filesystem)",
}

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
    match ERRNOS.iter().position(|known| *known == errno) {
        Some(index) => out.push_str(ERRNO_TEXTS.get(index)),
        None => {
            let _ = uwrite!(out, "error {}", errno.raw_os_error());
        }
    }
}
