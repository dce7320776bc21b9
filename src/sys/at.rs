//! Files named relative to the descriptor of a folder (openat(2)), for a walk along a path that
//! no rename of its folders can lead elsewhere.

use super::file::{Meta, OFlags};
use super::{Errno, Failure, Op, OwnedFd, WithOp};
use core::ffi::CStr;
use rustix::fs::{AtFlags, CWD, Mode};

/// Returns a descriptor of `/` that can only be walked from (openat(2), `O_PATH`).
///
/// # Errors
/// As the call says.
pub fn root() -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, c"/", flags, Mode::empty()).op(Op::Openat)
}

/// Opens the file `name` in `folder`, close-on-exec, never as a controlling terminal and never
/// through a symbolic link. A file that it creates gets the permission bits `mode`.
///
/// # Errors
/// As openat(2) says; ELOOP for a symbolic link without `O_PATH`.
pub fn open(folder: &OwnedFd, name: &CStr, flags: OFlags, mode: u32) -> Result<OwnedFd, Failure> {
    open_linked(folder, name, flags | OFlags::NOFOLLOW, mode)
}

/// Opens the file `name` in `folder`, also through a symbolic link.
///
/// # Errors
/// As openat(2) says.
pub fn open_linked(folder: &OwnedFd, name: &CStr, flags: OFlags, mode: u32) -> Result<OwnedFd, Failure> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY;
    loop {
        match rustix::fs::openat(folder, name, flags, Mode::from_raw_mode(mode)) {
            Err(Errno::INTR) => {}
            result => return result.op(Op::Openat),
        }
    }
}

/// Returns the attributes of the file `name` in `folder`, or those of a symbolic link itself
/// (fstatat(2)). With an empty name, those of `folder`, which can be any file.
///
/// # Errors
/// As the call says.
pub fn meta(folder: &OwnedFd, name: &CStr) -> Result<Meta, Failure> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    rustix::fs::statat(folder, name, flags).op(Op::Fstatat).map(Meta::from)
}

/// Writes the target of the symbolic link that `link` is a descriptor of into `buffer`, and
/// returns its length in bytes (readlinkat(2)).
///
/// # Errors
/// As the call says.
pub fn read_link(link: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Failure> {
    rustix::fs::readlinkat_raw(link, c"", buffer).op(Op::Readlinkat)
}

/// Returns true if the file lies in a process file system, whose links can lead to files that
/// have no name (fstatfs(2)).
#[must_use]
pub fn is_in_proc(file: &OwnedFd) -> bool {
    let kind = rustix::fs::fstatfs(file).map(|stat| stat.f_type as u64);
    kind == Ok(u64::from(linux_raw_sys::general::PROC_SUPER_MAGIC))
}

/// Creates the directory `name` in `folder` with exactly `mode`, whatever the umask
/// (mkdirat(2)).
///
/// # Errors
/// As the call says; EEXIST if something has that name.
pub fn make_dir(folder: &OwnedFd, name: &CStr, mode: u32) -> Result<(), Failure> {
    let before = rustix::process::umask(Mode::empty());
    let made = rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(mode)).op(Op::Mkdirat);
    super::process::umask(before.as_raw_mode());
    made
}
