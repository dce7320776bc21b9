//! The process that holds a service's lock: whom to signal, and whether it is
//! gone.

use super::lifecycle::describe_at;
use crate::limits::STOP_POLL;
use crate::sys::lock::{Holder, holder};
use crate::sys::process::{self, Pid, Signal};
use crate::sys::{Failure, OwnedFd, clock, poll};
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::Duration;

/// The process that holds the lock, pinned by a pidfd where there is one.
pub struct LockHolder {
    /// Its PID.
    pub pid: Pid,
    /// Readable when it has ended; none before Linux 5.3.
    pub pidfd: Option<OwnedFd>,
}

/// Why the holder of a lock cannot be known.
#[derive(Clone, Copy, Debug)]
pub enum LookupFailed {
    /// A system call failed.
    SystemCall(Failure),
    /// It is in another PID namespace.
    OtherPidNamespace,
}

impl LookupFailed {
    /// Whether the cause is a missing right.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::SystemCall(failure) if failure.is_denied())
    }

    /// Why, for the PID file at `path`.
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
    /// Finds it: the lock, then the pidfd, then the lock again, so that the
    /// pidfd is known to be the holder's.
    ///
    /// # Errors
    /// [`LookupFailed`]
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

    /// Sends it a signal, and nobody else.
    ///
    /// # Errors
    /// ESRCH when it is gone; EPERM.
    pub fn send(&self, signal: Signal) -> Result<(), Failure> {
        match &self.pidfd {
            Some(pidfd) => process::pidfd_signal(pidfd, signal),
            None => process::kill(self.pid, signal),
        }
    }

    /// Waits until this process no longer holds the lock, and, where there is
    /// a pidfd, until it has ended: the lock goes a little earlier.
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
