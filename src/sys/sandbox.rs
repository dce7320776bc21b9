//! The rights that a process gives up if it parses strangers' bytes: the file system, new
//! processes, files, core dumps, and inspection by others (chroot(2), setrlimit(2),
//! prctl(2)).

use super::{Failure, Op, WithOp, file, process};
use core::ffi::CStr;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

/// Makes an empty folder the root (chroot(2)). The folder is made at `path` and removed
/// again, so that nothing remains there, and nothing can be made in it.
///
/// # Errors
/// EPERM without the right; as mkdir(2) and rmdir(2) say. The root is unchanged then, and
/// the working folder is still a good one.
pub fn empty_root(path: &CStr) -> Result<(), Failure> {
    file::ensure_dir(path, 0o700)?;
    let inside = process::chdir(path);
    let removed = file::remove_dir(path);
    let changed = inside.and(removed).and_then(|()| rustix::process::chroot(c".").op(Op::Chroot));
    if changed.is_err() {
        let _ = process::chdir(c"/");
    }
    changed
}

/// Forbids this process further processes, bytes in any file, core dumps, and inspection of
/// its memory by other processes (setrlimit(2), prctl(2)). A limit that the kernel refuses
/// to set stays as it was.
pub fn limit() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    for resource in [Resource::Nproc, Resource::Fsize, Resource::Core] {
        let _ = rustix::process::setrlimit(resource, none);
    }
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
}
