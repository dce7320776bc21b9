//! Reading directories without memory of their size (getdents64(2)).

use super::{AsFd, Errno, Failure, Op, OwnedFd};
use core::mem::MaybeUninit;
use rustix::fs::{RawDir, SeekFrom};

/// Calls `visit` with the name of each entry but `.` and `..`, in no order.
///
/// # Errors
/// As the call says; some entries were not visited.
pub fn each(dir: &OwnedFd, visit: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut entries = RawDir::new(dir.as_fd(), &mut buffer);
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) => {
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    visit(name);
                }
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Failure { op: Op::Getdents64, errno }),
        }
    }
    Ok(())
}

/// Makes the next [`each`] begin at the first entry again.
pub fn rewind(dir: &OwnedFd) {
    let _ = rustix::fs::seek(dir, SeekFrom::Start(0));
}
