//! The process that holds a service's lock: signals it, and waits for its end.

use super::lifecycle::describe_at;
use crate::limits::STOP_POLL;
use crate::sys::lock::{Holder, holder};
use crate::sys::process::{self, Pid, Signal};
use crate::sys::{Failure, OwnedFd, clock, poll};
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::Duration;

/// The process that holds the lock, pinned by a pidfd if the kernel has pidfds.
pub struct LockHolder {
    /// The PID of the process.
    pub pid: Pid,
    /// The pidfd, readable when the process has ended; `None` before Linux 5.3.
    pub pidfd: Option<OwnedFd>,
}

/// The reason why the holder of a lock is unknown.
#[derive(Clone, Copy, Debug)]
pub enum LookupFailed {
    /// A system call failed.
    SystemCall(Failure),
    /// The holder is in another PID namespace.
    OtherPidNamespace,
}

impl LookupFailed {
    /// Returns true if the cause is a missing right.
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
    /// Finds the holder. The lock is probed before and after the pidfd is opened, so that the
    /// pidfd certainly belongs to the holder.
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

    /// Sends a signal to this process, and to no other one.
    ///
    /// # Errors
    /// ESRCH if the process has ended; EPERM.
    pub fn send(&self, signal: Signal) -> Result<(), Failure> {
        match &self.pidfd {
            Some(pidfd) => process::pidfd_signal(pidfd, signal),
            None => process::kill(self.pid, signal),
        }
    }

    /// Waits until this process no longer holds the lock, and has ended if there is a pidfd,
    /// because the lock is released a little earlier. Returns true if that comes within
    /// `wait`.
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
