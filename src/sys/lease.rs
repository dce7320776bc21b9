//! Read leases (fcntl(2), `F_SETLEASE`): learning whether any process has a file open for
//! writing.
//!
//! The kernel grants a read lease only if no process has the file open for writing. A process
//! that opens it for writing later waits until the lease is given back, and the holder gets
//! SIGIO, for which [`super::signal`] has a handler. So a lease is held for moments only.

use super::{Errno, OwnedFd, arch};
use linux_raw_sys::general::{F_GETLEASE, F_RDLCK, F_SETLEASE, F_UNLCK};
use rustix::fd::AsRawFd;

/// Takes a read lease on a file that is open for reading only.
///
/// # Errors
/// EAGAIN: a process has the file open for writing. EACCES: the file belongs to another user.
/// EINVAL: the filesystem has no leases.
pub fn take(fd: &OwnedFd) -> Result<(), Errno> {
    set(fd, F_RDLCK)
}

/// Returns true if the lease is held, and no process waits for its end.
#[must_use]
pub fn is_held(fd: &OwnedFd) -> bool {
    arch::fcntl(fd.as_raw_fd(), F_GETLEASE, 0) == Ok(F_RDLCK as usize)
}

/// Gives the lease back.
pub fn release(fd: &OwnedFd) {
    let _ = set(fd, F_UNLCK);
}

fn set(fd: &OwnedFd, kind: u32) -> Result<(), Errno> {
    let result = arch::fcntl(fd.as_raw_fd(), F_SETLEASE, kind);
    result.map(drop).map_err(Errno::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file;

    #[test]
    fn a_lease_is_granted_only_while_no_process_can_write() {
        let path = std::env::temp_dir().join(format!("zigsvc-lease-{}", std::process::id()));
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        let writer = std::fs::File::create(&path).unwrap();
        let reader = file::open(&name, file::OFlags::RDONLY, 0).unwrap();
        assert_eq!(take(&reader), Err(Errno::AGAIN));
        drop(writer);
        match take(&reader) {
            // The filesystem of the temporary folder may have no leases.
            Err(Errno::INVAL) => {}
            result => {
                assert_eq!(result, Ok(()));
                assert!(is_held(&reader));
                release(&reader);
                assert!(!is_held(&reader));
            }
        }
        std::fs::remove_file(&path).unwrap();
    }
}
