//! Files: opened without following symbolic links where it matters, read and
//! written whole, made durable.

use super::{AsFd, Errno, Failure, Op, OwnedFd, WithOp};
use crate::util::lines::find_newline;
use crate::util::path::Path;
use core::ffi::CStr;
pub use rustix::fs::OFlags;
use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags, ResolveFlags, Stat};

/// Maximum number of retries of openat2(2) after EAGAIN.
const AGAIN_MAX: u32 = 8;

/// The attributes of a file (stat(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta {
    /// Size in bytes.
    pub size: u64,
    /// Device and inode: two names of one file agree in both.
    pub identity: (u64, u64),
    /// Whether it is a regular file.
    pub regular: bool,
    /// Whether it is a directory.
    pub directory: bool,
    /// Whether it is a socket.
    pub socket: bool,
    /// Whether it is a symbolic link.
    pub link: bool,
    /// Whether it is a device.
    pub device: bool,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, as `0o7777` masks them.
    pub mode: u32,
    /// Number of names.
    pub links: u32,
    /// When it was last written, by the wall clock: seconds and nanoseconds.
    pub written: (i64, u64),
}

impl From<Stat> for Meta {
    #[expect(clippy::useless_conversion, reason = "field widths differ by architecture")]
    fn from(stat: Stat) -> Self {
        let kind = FileType::from_raw_mode(stat.st_mode);
        Self {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            identity: (u64::from(stat.st_dev), u64::from(stat.st_ino)),
            regular: kind == FileType::RegularFile,
            directory: kind == FileType::Directory,
            socket: kind == FileType::Socket,
            link: kind == FileType::Symlink,
            device: matches!(kind, FileType::CharacterDevice | FileType::BlockDevice),
            uid: stat.st_uid,
            gid: stat.st_gid,
            mode: stat.st_mode & 0o7777,
            links: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            written: (i64::from(stat.st_mtime), u64::from(stat.st_mtime_nsec)),
        }
    }
}

/// Opens `path`, close-on-exec and never as a controlling terminal (openat(2)). A file that
/// it creates gets the permission bits `mode`.
///
/// # Errors
/// As the call says.
pub fn open(path: &CStr, flags: OFlags, mode: u32) -> Result<OwnedFd, Failure> {
    open_at(CWD, path, flags, mode)
}

/// Opens `name` in the open directory `dir`, otherwise as [`open`] (openat(2)).
///
/// # Errors
/// As the call says.
pub fn open_at(dir: impl AsFd, name: &CStr, flags: OFlags, mode: u32) -> Result<OwnedFd, Failure> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
    loop {
        match rustix::fs::openat(&dir, name, flags, Mode::from_raw_mode(mode)) {
            Err(Errno::INTR) => {}
            result => return result.op(Op::Openat),
        }
    }
}

/// Returns true if the disk of `folder` takes no new file, because it is full or read-only
/// (openat(2), `O_TMPFILE`). The file has no name. Returns false if that is unknown.
#[must_use]
pub fn has_no_room(folder: &Path) -> bool {
    let file = open(folder.as_c_str(), OFlags::WRONLY | OFlags::TMPFILE, 0o600);
    file.and_then(|file| write_some(&file, b"\0")).is_err_and(|failure| failure.is_of_disk())
}

/// Opens a regular file for reading, never through a symbolic link and never
/// blocking on a FIFO.
///
/// # Errors
/// As openat(2) says; ELOOP for a symbolic link; EISDIR or EINVAL for what is
/// not a regular file.
pub fn open_regular(path: &CStr) -> Result<(OwnedFd, Meta), Failure> {
    let fd = open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, 0)?;
    let meta = meta(&fd)?;
    regular(meta).map(|()| (fd, meta))
}

/// Opens the regular file at `path` for reading, with no symbolic link anywhere in the
/// path where the kernel can promise that (openat2(2), Linux 5.6), else with none at its
/// end. Nothing but a regular file is ever touched.
///
/// # Errors
/// As openat2(2) says; ELOOP for a symbolic link; EISDIR or EINVAL for what is not a
/// regular file.
pub fn open_without_links(path: &CStr) -> Result<OwnedFd, Failure> {
    // The check precedes the open, because opening a device can have an effect.
    regular(meta_at(path, false)?)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let mut attempts = 0;
    let fd = loop {
        match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
            Err(Errno::NOSYS) => break open(path, flags, 0)?,
            Err(Errno::INTR) => {}
            // The kernel could not be sure while names changed.
            Err(Errno::AGAIN) if attempts < AGAIN_MAX => attempts += 1,
            result => break result.op(Op::Openat2)?,
        }
    };
    regular(meta(&fd)?)?;
    // The caller expects a read to wait where it has to (/proc/kmsg).
    rustix::fs::fcntl_setfl(&fd, OFlags::empty()).op(Op::Fcntl)?;
    Ok(fd)
}

/// Returns true if the kernel can promise that no symbolic link is in a path (openat2(2)).
#[must_use]
pub fn can_refuse_links() -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, c"/", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).is_ok()
}

/// Returns true if another user may have given any file of this filesystem a second name in
/// the folder of `path`, so that a write to `path` changes that file. A folder of root is as
/// good as one of this process's user. A folder that all users may write to is untrusted.
#[must_use]
pub fn is_untrusted_dir(path: &Path) -> bool {
    let folder = meta_at(path.parent().as_c_str(), true);
    let trusted = |uid| uid == 0 || uid == super::identity::effective_uid();
    folder.is_ok_and(|meta| !trusted(meta.uid) || meta.mode & 0o002 != 0)
}

/// Fails unless the open file is a regular file (fstat(2)).
///
/// # Errors
/// EISDIR or EINVAL for another kind of file.
pub fn check_regular(fd: &OwnedFd) -> Result<(), Failure> {
    regular(meta(fd)?)
}

/// Fails unless `meta` is that of a regular file.
fn regular(meta: Meta) -> Result<(), Failure> {
    let errno = match meta {
        Meta { regular: true, .. } => return Ok(()),
        Meta { directory: true, .. } => Errno::ISDIR,
        Meta { link: true, .. } => Errno::LOOP,
        _ => Errno::INVAL,
    };
    Err(Failure { op: Op::Openat, errno })
}

/// Checks that this process may write to `path` (access(2)), and that `path` is a directory
/// if and only if `directory` is true.
///
/// # Errors
/// ENOTDIR or EISDIR if `path` is the other kind; as stat(2) and access(2) say.
pub fn writable(path: &CStr, directory: bool) -> Result<(), Failure> {
    match (meta_at(path, true)?.directory, directory) {
        (true, false) => return Err(Failure { op: Op::Openat, errno: Errno::ISDIR }),
        (false, true) => return Err(Failure { op: Op::Openat, errno: Errno::NOTDIR }),
        _ => {}
    }
    let access = rustix::fs::Access::WRITE_OK;
    rustix::fs::accessat(CWD, path, access, AtFlags::empty()).op(Op::Access)
}

/// Opens a directory, never through a symbolic link at the end of the path (openat(2)). A
/// directory that was just made in another user's folder may be a link by now.
///
/// # Errors
/// As openat(2) says; ENOTDIR for a symbolic link.
pub fn open_dir(path: &CStr) -> Result<OwnedFd, Failure> {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, 0)
}

/// Opens a directory, also through a symbolic link at the end of the path (openat(2)). The
/// caller lists or syncs it.
///
/// # Errors
/// As openat(2) says.
pub fn open_linked_dir(path: &CStr) -> Result<OwnedFd, Failure> {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY, 0)
}

/// Returns the attributes of the open file `fd` (fstat(2)).
///
/// # Errors
/// As the call says.
pub fn meta(fd: impl AsFd) -> Result<Meta, Failure> {
    rustix::fs::fstat(fd).op(Op::Fstat).map(Meta::from)
}

/// Returns the attributes of the file that `path` names (stat(2)), or those of a symbolic
/// link itself if `follow` is false (lstat(2)).
///
/// # Errors
/// As the call says.
#[allow(unsafe_code, reason = "names a section")]
#[unsafe(link_section = ".text.idle")]
pub fn meta_at(path: &CStr, follow: bool) -> Result<Meta, Failure> {
    let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
    rustix::fs::statat(CWD, path, flags).op(Op::Fstatat).map(Meta::from)
}

/// Returns the attributes of the file `name` in the open directory `dir`, or those of a
/// symbolic link itself (fstatat(2)).
///
/// # Errors
/// As the call says.
pub fn meta_in(dir: impl AsFd, name: &CStr) -> Result<Meta, Failure> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).op(Op::Fstatat).map(Meta::from)
}

/// Returns true if this process may execute `path` (access(2)).
#[must_use]
pub fn executable(path: &CStr) -> bool {
    rustix::fs::accessat(CWD, path, rustix::fs::Access::EXEC_OK, AtFlags::empty()).is_ok()
}

/// Returns true if the filesystem that holds `path` is mounted so that nothing on it can be
/// executed (statvfs(3), `ST_NOEXEC`).
#[must_use]
pub fn forbids_programs(path: &CStr) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|stat| stat.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC))
}

/// Creates a directory with exactly `mode`, whatever the umask (mkdir(2)). A directory that
/// exists is no error, and keeps its mode. The mode is not set by name afterwards, because
/// the name may lead elsewhere a moment later.
///
/// # Errors
/// As the call says; ENOTDIR if something else has that name.
pub fn ensure_dir(path: &CStr, mode: u32) -> Result<(), Failure> {
    let before = rustix::process::umask(Mode::empty());
    let made = rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(mode));
    super::process::umask(before.as_raw_mode());
    match made {
        Ok(()) => Ok(()),
        Err(errno) => match meta_at(path, true) {
            Ok(Meta { directory: true, .. }) => Ok(()),
            Ok(_) => Err(Failure { op: Op::Mkdirat, errno: Errno::NOTDIR }),
            Err(_) => Err(Failure { op: Op::Mkdirat, errno }),
        },
    }
}

/// Sets the permission bits of an open file to `mode` (fchmod(2)).
///
/// # Errors
/// As the call says.
pub fn set_mode(fd: &OwnedFd, mode: u32) -> Result<(), Failure> {
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode)).op(Op::Fchmod)
}

/// Reads once and returns the bytes read; 0 is the end (read(2)). An interrupted call is
/// tried again.
///
/// # Errors
/// As the call says; EAGAIN on a non-blocking descriptor without data.
pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize, Failure> {
    loop {
        match rustix::io::read(fd.as_fd(), &mut *buffer) {
            Err(Errno::INTR) => {}
            result => return result.op(Op::Read),
        }
    }
}

/// Reads from `offset` until `buffer` is full or the file ends (pread(2)). Returns the bytes
/// read.
///
/// # Errors
/// As the call says.
pub fn read_at(fd: &OwnedFd, buffer: &mut [u8], offset: u64) -> Result<usize, Failure> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(fd, rest, offset.wrapping_add(done as u64)) {
            Ok(0) => break,
            Ok(count) => done = done.wrapping_add(count),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure { op: Op::Pread, errno }),
        }
    }
    Ok(done)
}

/// Reads once at `offset` (pread(2)): a file in /proc that is shorter than `buffer` comes whole.
///
/// # Errors
/// As pread(2) says.
pub fn read_part_at(fd: &OwnedFd, buffer: &mut [u8], offset: u64) -> Result<usize, Failure> {
    rustix::io::retry_on_intr(|| rustix::io::pread(fd, &mut *buffer, offset)).op(Op::Pread)
}

/// Reads the file at `path` from its start until `buffer` is full or it ends.
///
/// # Errors
/// As openat(2) and read(2) say.
pub fn read_path(path: &CStr, buffer: &mut [u8]) -> Result<usize, Failure> {
    read_whole(&open(path, OFlags::RDONLY | OFlags::NONBLOCK, 0)?, buffer)
}

/// Reads from the descriptor until `buffer` is full or the file ends.
///
/// # Errors
/// As read(2) says.
pub fn read_whole(fd: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Failure> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match read(fd, rest)? {
            0 => break,
            count => done = done.wrapping_add(count),
        }
    }
    Ok(done)
}

/// Calls `visit` with each line of the text file at `path`, without its newline. Lines that
/// are longer than the buffer are skipped. A file that cannot be read has no lines.
pub fn for_each_line(path: &CStr, visit: &mut dyn FnMut(&[u8])) {
    let Ok(fd) = open(path, OFlags::RDONLY, 0) else { return };
    let mut buffer = [0u8; 1024];
    let mut held = 0;
    let mut skipping = false;
    while let Some(free) = buffer.get_mut(held..) {
        if free.is_empty() {
            skipping = true;
            held = 0;
            continue;
        }
        let Ok(count @ 1..) = read(&fd, free) else { break };
        let filled = held.saturating_add(count);
        let mut start = 0;
        while let Some(line) = buffer.get(start..filled).and_then(|rest| {
            let end = find_newline(rest)?;
            rest.get(..end)
        }) {
            if !skipping {
                visit(line);
            }
            skipping = false;
            start = start.saturating_add(line.len()).saturating_add(1);
        }
        buffer.copy_within(start..filled, 0);
        held = filled.saturating_sub(start);
    }
    if !skipping {
        visit(buffer.get(..held).unwrap_or(&[]));
    }
}

/// Writes once and returns the bytes taken, at least one (write(2)). An interrupted call is
/// tried again.
///
/// # Errors
/// As the call says.
pub fn write_some(fd: impl AsFd, bytes: &[u8]) -> Result<usize, Failure> {
    loop {
        match rustix::io::write(fd.as_fd(), bytes) {
            Ok(0) => return Err(Failure { op: Op::Write, errno: Errno::IO }),
            Err(Errno::INTR) => {}
            result => return result.op(Op::Write),
        }
    }
}

/// Writes until all of `bytes` is taken (write(2)).
///
/// # Errors
/// As the call says; the bytes taken before stay.
pub fn write_all(fd: impl AsFd, mut bytes: &[u8]) -> Result<(), Failure> {
    let fd = fd.as_fd();
    while !bytes.is_empty() {
        let count = write_some(fd, bytes)?;
        bytes = bytes.get(count..).unwrap_or(&[]);
    }
    Ok(())
}

/// Writes at `offset` until all of `bytes` is taken (pwrite(2)).
///
/// # Errors
/// As the call says; the bytes taken before stay.
#[expect(unsafe_code, reason = "names a section")]
#[unsafe(link_section = ".text.idle")]
pub fn write_at(fd: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> Result<(), Failure> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd, bytes, offset) {
            Ok(0) => return Err(Failure { op: Op::Pwrite, errno: Errno::IO }),
            Ok(count) => {
                bytes = bytes.get(count..).unwrap_or(&[]);
                offset = offset.wrapping_add(count as u64);
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure { op: Op::Pwrite, errno }),
        }
    }
    Ok(())
}

/// Sets the size of an open file to `length` bytes (ftruncate(2)).
///
/// # Errors
/// As the call says.
pub fn truncate(fd: &OwnedFd, length: u64) -> Result<(), Failure> {
    rustix::fs::ftruncate(fd, length).op(Op::Ftruncate)
}

/// Makes the data of a file durable, and the size that is needed to read it back
/// (fdatasync(2)).
///
/// # Errors
/// As the call says. After EIO the kernel may have dropped the data.
pub fn sync_data(fd: &OwnedFd) -> Result<(), Failure> {
    loop {
        match rustix::fs::fdatasync(fd) {
            Err(Errno::INTR) => {}
            result => return result.op(Op::Fdatasync),
        }
    }
}

/// Makes the names in a directory durable (fsync(2)). EINVAL is no error, because a
/// filesystem that cannot do it has nothing to make durable.
///
/// # Errors
/// As the call says.
pub fn sync_dir(dir: &OwnedFd) -> Result<(), Failure> {
    loop {
        match rustix::fs::fsync(dir) {
            Err(Errno::INTR) => {}
            Err(Errno::INVAL) => return Ok(()),
            result => return result.op(Op::Fsync),
        }
    }
}

/// Returns the bytes that an unprivileged process may still use of the filesystem that
/// holds `fd` (fstatfs(2)), or `None` for one without a size.
#[must_use]
pub fn free_bytes(fd: &OwnedFd) -> Option<u64> {
    let stat = rustix::fs::fstatvfs(fd).ok()?;
    (stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Allocates blocks for `length` bytes of a file from `from` on, also beyond its size,
/// which stays as it is (fallocate(2)). Returns false where the filesystem or the kernel
/// cannot.
///
/// # Errors
/// ENOSPC, EDQUOT, EFBIG, EIO. EFBIG also where a write(2) would pass the limit of a file's size
/// (getrlimit(2), `RLIMIT_FSIZE`), which fallocate(2) does not look at beyond the size.
pub fn allocate(fd: &OwnedFd, from: u64, length: u64) -> Result<bool, Failure> {
    use rustix::fs::FallocateFlags;
    use rustix::process::{Resource, getrlimit};
    if getrlimit(Resource::Fsize).current.is_some_and(|limit| from.saturating_add(length) > limit) {
        return Err(Failure { op: Op::Fallocate, errno: Errno::FBIG });
    }
    let result =
        rustix::io::retry_on_intr(|| rustix::fs::fallocate(fd, FallocateFlags::KEEP_SIZE, from, length));
    match result {
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::PERM) => Ok(false),
        result => result.op(Op::Fallocate).map(|()| true),
    }
}

/// Returns the type of the filesystem that holds an open file, a number of magic.h
/// (fstatfs(2)).
///
/// # Errors
/// As the call says.
pub fn filesystem_kind(fd: &OwnedFd) -> Result<u64, Failure> {
    Ok(rustix::fs::fstatfs(fd).op(Op::Statfs)?.f_type as u64)
}

/// The type of btrfs in statfs(2).
const BTRFS: u64 = 0x9123_683E;

/// Has an empty file written in place, where the filesystem would copy each block that is
/// written, even one that is allocated. A failure has no effect, because the file can be used
/// without.
pub fn write_in_place(fd: &OwnedFd) {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let copies = filesystem_kind(fd).is_ok_and(|kind| kind & 0xFFFF_FFFF == BTRFS);
    if copies && let Ok(flags) = ioctl_getflags(fd) {
        let _ = ioctl_setflags(fd, flags | IFlags::NOCOW);
    }
}

/// The attributes of a filesystem (statfs(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Filesystem {
    /// Its type, a number of magic.h.
    pub kind: u64,
    /// Whether it takes no writes.
    pub read_only: bool,
    /// Bytes that an unprivileged process may still use; `None` for one without a
    /// size.
    pub free: Option<u64>,
}

/// Returns the attributes of the filesystem that holds the file at `path` (statfs(2)).
///
/// # Errors
/// As the call says.
pub fn filesystem(path: &CStr) -> Result<Filesystem, Failure> {
    let kind = rustix::fs::statfs(path).op(Op::Statfs)?.f_type;
    let stat = rustix::fs::statvfs(path).op(Op::Statfs)?;
    Ok(Filesystem {
        kind: kind as u64,
        read_only: stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        free: (stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize)),
    })
}

/// Renames `from` to `to`, and replaces a file of that name (rename(2)). The change is
/// durable only after [`sync_dir`].
///
/// # Errors
/// As the call says.
pub fn rename(from: &CStr, to: &CStr) -> Result<(), Failure> {
    rustix::fs::renameat(CWD, from, CWD, to).op(Op::Renameat)
}

/// Renames `from` to `to`, which must not exist (renameat2(2), `RENAME_NOREPLACE`; where the
/// kernel or the filesystem cannot, link(2) and unlink(2)).
///
/// # Errors
/// EEXIST if `to` exists; as the calls say.
pub fn rename_new(from: &CStr, to: &CStr) -> Result<(), Failure> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::NOSYS | Errno::INVAL) => {
            rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty()).op(Op::Linkat)?;
            unlink(from)
        }
        result => result.op(Op::Renameat2),
    }
}

/// Exchanges the names of two files in one step (renameat2(2), `RENAME_EXCHANGE`).
///
/// # Errors
/// ENOSYS or EINVAL where the kernel or the filesystem cannot; as the call says.
pub fn exchange(one: &CStr, other: &CStr) -> Result<(), Failure> {
    rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).op(Op::Renameat2)
}

/// Removes the name `path` of a file (unlink(2)).
///
/// # Errors
/// As the call says.
pub fn unlink(path: &CStr) -> Result<(), Failure> {
    rustix::fs::unlinkat(CWD, path, AtFlags::empty()).op(Op::Unlinkat)
}

/// Renames `from` to `to` in the open directory `dir`, and replaces a file of that name
/// (renameat(2)).
///
/// # Errors
/// As the call says.
pub fn rename_in(dir: &OwnedFd, from: &CStr, to: &CStr) -> Result<(), Failure> {
    rustix::fs::renameat(dir, from, dir, to).op(Op::Renameat)
}

/// Renames `from` to `to` in the open directory `dir`, and replaces nothing (renameat2(2),
/// `RENAME_NOREPLACE`). Where the kernel or the filesystem cannot, the name is looked at
/// first.
///
/// # Errors
/// EEXIST if there is a file of that name; as the call says.
pub fn rename_new_in(dir: &OwnedFd, from: &CStr, to: &CStr) -> Result<(), Failure> {
    match rustix::fs::renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE) {
        Err(Errno::NOSYS | Errno::INVAL) => match meta_in(dir, to) {
            Err(Failure { errno: Errno::NOENT, .. }) => rename_in(dir, from, to),
            Ok(_) => Err(Failure { op: Op::Renameat2, errno: Errno::EXIST }),
            Err(failure) => Err(failure),
        },
        result => result.op(Op::Renameat2),
    }
}

/// Removes the name `name` from the open directory `dir` (unlinkat(2)).
///
/// # Errors
/// As the call says.
pub fn unlink_in(dir: &OwnedFd, name: &CStr) -> Result<(), Failure> {
    rustix::fs::unlinkat(dir, name, AtFlags::empty()).op(Op::Unlinkat)
}

/// Renames `from` in one open directory to `to` in another one, and replaces a file of that
/// name (renameat(2)).
///
/// # Errors
/// EXDEV if they are on different filesystems; as the call says.
pub fn rename_between(dir: &OwnedFd, from: &CStr, other: &OwnedFd, to: &CStr) -> Result<(), Failure> {
    rustix::fs::renameat(dir, from, other, to).op(Op::Renameat)
}

/// Exchanges a file in one open directory with one in another, in one step (renameat2(2),
/// `RENAME_EXCHANGE`).
///
/// # Errors
/// ENOSYS or EINVAL where the kernel or the filesystem cannot; as [`rename_between`].
pub fn exchange_between(dir: &OwnedFd, one: &CStr, other: &OwnedFd, two: &CStr) -> Result<(), Failure> {
    rustix::fs::renameat_with(dir, one, other, two, RenameFlags::EXCHANGE).op(Op::Renameat2)
}

/// Removes the empty directory at `path` (rmdir(2)).
///
/// # Errors
/// As the call says.
pub fn remove_dir(path: &CStr) -> Result<(), Failure> {
    rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR).op(Op::Unlinkat)
}

/// Writes the target of the symbolic link at `path` into `buffer`, and returns its length in
/// bytes (readlink(2)). A target that fills the buffer may have been cut.
///
/// # Errors
/// EINVAL if `path` is not a symbolic link; as the call says.
pub fn read_link(path: &CStr, buffer: &mut [u8]) -> Result<usize, Failure> {
    rustix::fs::readlinkat_raw(CWD, path, buffer).op(Op::Readlinkat)
}

/// Writes the working directory's absolute path into `buffer`, and returns it without its
/// terminator (getcwd(2)). Returns `None` if it is not reachable or longer than the buffer.
#[must_use]
pub fn current_dir(buffer: &mut [u8]) -> Option<&[u8]> {
    let length = super::arch::getcwd(buffer)?;
    buffer.get(..length).filter(|path| path.first() == Some(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_too_long_are_skipped_whole() {
        let path = std::env::temp_dir().join(format!("zigsvc-lines-{}", std::process::id()));
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // The end of a long line could look like an account.
        for long in [1024, 1025, 2047, 2048, 5000] {
            let text = format!("a:x:1\n{}root:x:0\nb:x:2\nc:x:3", "x".repeat(long));
            std::fs::write(&path, text).unwrap();
            let mut lines = Vec::<String>::new();
            for_each_line(&name, &mut |line| lines.push(String::from_utf8(line.to_vec()).unwrap()));
            assert_eq!(lines, ["a:x:1", "b:x:2", "c:x:3"], "{long}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
