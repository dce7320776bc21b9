//! The process that holds the lock of a service: it can be found, signalled, and waited for.

use super::lifecycle::describe_at;
use crate::limits::STOP_POLL;
use crate::sys::lock::{Holder, holder};
use crate::sys::process::{self, Pid, Signal};
use crate::sys::{Failure, OwnedFd, clock, poll};
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::Duration;

/// The process that holds a lock. A pidfd ensures that signals reach no other process, if the
/// kernel has pidfds.
pub struct LockHolder {
    /// The PID of the process.
    pub pid: Pid,
    /// A pidfd, which is readable when the process has ended. `None` before Linux 5.3.
    pub pidfd: Option<OwnedFd>,
}

/// The reason why the holder of a lock cannot be found.
#[derive(Clone, Copy, Debug)]
pub enum LookupFailed {
    /// A system call failed.
    SystemCall(Failure),
    /// The holder is in another PID namespace.
    OtherPidNamespace,
}

impl LookupFailed {
    /// Returns true if a missing permission is the reason.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::SystemCall(failure) if failure.is_denied())
    }

    /// Writes the reason, for the PID file at `path`.
    pub fn describe(&self, path: &Path, out: &mut Writer<'_>) {
        match self {
            Self::SystemCall(failure) => describe_at(path, *failure, out),
            Self::OtherPidNamespace => {
                out.push_escaped(path.as_bytes());
                out.push_str(": it is locked from another PID namespace; signal it from there");
            }
        }
    }
}

impl LockHolder {
    /// Finds the process that holds the lock of the PID file at `path`. Returns `None` if no
    /// process does. The lock is read again after the pidfd was opened, so that the pidfd is
    /// known to be that of the holder.
    ///
    /// # Errors
    /// [`LookupFailed::SystemCall`] if a call failed, [`LookupFailed::OtherPidNamespace`] if
    /// the kernel does not give the PID.
    pub fn find(path: &Path) -> Result<Option<Self>, LookupFailed> {
        let ask = || holder(path.as_c_str()).map_err(LookupFailed::SystemCall);
        loop {
            let pid = match ask()? {
                Holder::Running(Some(pid)) => pid,
                Holder::Running(None) => return Err(LookupFailed::OtherPidNamespace),
                Holder::Died | Holder::Stopped => return Ok(None),
            };
            let pidfd = process::pidfd_open(pid).ok();
            if ask()? == Holder::Running(Some(pid)) {
                return Ok(Some(Self { pid, pidfd }));
            }
        }
    }

    /// Sends a signal to the process. With a pidfd it cannot reach another process.
    ///
    /// # Errors
    /// ESRCH if the process has ended, EPERM if it belongs to another user.
    pub fn send(&self, signal: Signal) -> Result<(), Failure> {
        match &self.pidfd {
            Some(pidfd) => process::pidfd_signal(pidfd, signal),
            None => process::kill(self.pid, signal),
        }
    }

    /// Waits up to `wait` until the process has released the lock and, if there is a pidfd,
    /// has ended. The lock is released slightly before the end. Returns true if that has
    /// happened in time.
    #[must_use]
    pub fn is_gone_within(&self, path: &Path, wait: Duration) -> bool {
        let deadline = clock::now() + wait;
        loop {
            let held = matches!(holder(path.as_c_str()), Ok(Holder::Running(Some(pid))) if pid == self.pid);
            let ended = |pidfd| poll::readable_within(pidfd, Duration::ZERO);
            if !held && self.pidfd.as_ref().is_none_or(ended) {
                return true;
            }
            let left = clock::now().until(deadline);
            if left.is_zero() {
                return false;
            }
            match &self.pidfd {
                Some(pidfd) => drop(poll::readable_within(pidfd, left)),
                None => poll::sleep(left.at_most(STOP_POLL)),
            }
        }
    }
}
