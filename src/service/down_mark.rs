//! The mark of a stop on purpose: a file beside the PID file that holds the id of this boot.
//!
//! A supervisor starts a service again that has ended, unless this mark is there. So a stop by
//! another process, a crash and a lost PID file are deaths, and only a stop of this program is
//! one on purpose. A mark of another boot counts as absent, because the boot starts everything.

use super::boot::boot_id;
use crate::proto::health::{BOOT_ID_BYTES, UNKNOWN_BOOT};
use crate::sys::lock::{AcquireError, PidFile};
use crate::sys::{Errno, Failure, Op, file};
use crate::util::path::Path;

/// Returns the path of the mark of the service whose PID file is at `pid_path`: its ending is
/// `.down` instead of `.pid`. A program without a PID file has no mark.
fn mark_path(pid_path: &Path) -> Option<Path> {
    let path = Some(pid_path.as_bytes()).filter(|path| !path.is_empty())?;
    Path::concat(&[path.strip_suffix(b".pid").unwrap_or(path), b".down"])
}

/// Returns true if the service was stopped on purpose in the boot `boot`.
#[must_use]
pub fn is_set(pid_path: &Path, boot: &[u8; BOOT_ID_BYTES]) -> bool {
    let mut content = [0; BOOT_ID_BYTES];
    let count = mark_path(pid_path).map(|path| file::read_path(path.as_c_str(), &mut content));
    count == Some(Ok(BOOT_ID_BYTES)) && [boot, &UNKNOWN_BOOT].contains(&&content)
}

/// A mark that this process has made, locked while it stops the service. The lock shows other
/// processes that the service is being signalled.
pub struct DownMark(PidFile);

impl DownMark {
    /// Makes the mark. Returns `None` if another process holds it, which stops the service at
    /// this moment.
    ///
    /// # Errors
    /// The mark cannot be written.
    pub fn make(pid_path: &Path) -> Result<Option<Self>, Failure> {
        let too_long = Failure { op: Op::Openat, errno: Errno::NAMETOOLONG };
        let mut line = [b'\n'; BOOT_ID_BYTES + 1];
        line[..BOOT_ID_BYTES].copy_from_slice(&boot_id());
        match PidFile::acquire(&mark_path(pid_path).ok_or(too_long)?, &line) {
            Ok(mark) => match mark.unwritten() {
                None => Ok(Some(Self(mark))),
                Some(failure) => {
                    Self(mark).withdraw(pid_path);
                    Err(failure)
                }
            },
            Err(AcquireError::Running(_)) => Ok(None),
            Err(AcquireError::Failed(failure)) => Err(failure),
        }
    }

    /// Removes the mark, because the service is not stopped after all.
    pub fn withdraw(&self, pid_path: &Path) {
        if let Some(path) = mark_path(pid_path) {
            self.0.release(path.as_c_str());
        }
    }
}

/// Removes the mark, because the service is started.
pub fn clear(pid_path: &Path) {
    if let Some(path) = mark_path(pid_path) {
        let _ = file::unlink(path.as_c_str());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_beside_the_pid_file_and_nowhere_without_one() {
        let mark = |path: &[u8]| mark_path(&Path::new(path).unwrap()).map(|mark| mark.as_bytes().to_vec());
        assert_eq!(mark(b"/run/zigsvc-hub.pid").as_deref(), Some(&b"/run/zigsvc-hub.down"[..]));
        assert_eq!(mark(b"/run/pid").as_deref(), Some(&b"/run/pid.down"[..]));
        assert!(mark_path(&Path::empty()).is_none());
    }
}
