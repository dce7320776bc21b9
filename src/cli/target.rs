//! The process that holds a service's lock: whom to signal, and whether it is
//! gone.

use super::fail;
use crate::limits::STOP_POLL_MS;
use crate::proto::path::Path;
use crate::service::lifecycle::{describe_at, exit};
use crate::sys::lock::{Holder, holder};
use crate::sys::process::{self, Pid, Signal};
use crate::sys::{Failure, OwnedFd, clock, poll};

/// The process that holds the lock, pinned by a pidfd where there is one.
pub(super) struct Target {
    /// Its PID.
    pub(super) pid: Pid,
    pidfd: Option<OwnedFd>,
}

impl Target {
    /// Finds it: the lock, then the pidfd, then the lock again, so that the
    /// pidfd is known to be the holder's. Tells why if that is not possible.
    pub(super) fn find(path: &Path) -> Result<Option<Self>, u8> {
        let ask = || {
            holder(path.as_c_str()).map_err(|failure| {
                let code = if failure.is_denied() { exit::DENIED } else { exit::FAILED };
                fail(code, &|out| describe_at(path, failure, out))
            })
        };
        loop {
            let pid = match ask()? {
                Holder::Running(Some(pid)) => pid,
                Holder::Running(None) => {
                    return Err(fail(exit::FAILED, &|out| {
                        out.push_escaped(path.as_bytes());
                        out.push_str(": it is locked from another PID namespace; signal it from there");
                    }));
                }
                Holder::Died | Holder::Stopped => return Ok(None),
            };
            let pidfd = process::pidfd_open(pid).ok();
            if ask()? == Holder::Running(Some(pid)) {
                return Ok(Some(Self { pid, pidfd }));
            }
        }
    }

    /// Sends it a signal, and nobody else.
    pub(super) fn send(&self, signal: Signal) -> Result<(), Failure> {
        match &self.pidfd {
            Some(pidfd) => process::pidfd_signal(pidfd, signal),
            None => process::kill(self.pid, signal),
        }
    }

    /// Waits until this process no longer holds the lock, and, where there is
    /// a pidfd, until it has ended: the lock goes a little earlier.
    pub(super) fn is_gone_within(&self, path: &Path, wait_ms: u64) -> bool {
        let deadline = clock::now().saturating_add(wait_ms);
        loop {
            let held = matches!(holder(path.as_c_str()), Ok(Holder::Running(Some(pid))) if pid == self.pid);
            let ended = |pidfd| poll::readable_within(pidfd, 0);
            if !held && self.pidfd.as_ref().is_none_or(ended) {
                return true;
            }
            let left = deadline.saturating_sub(clock::now());
            if left == 0 {
                return false;
            }
            match &self.pidfd {
                Some(pidfd) => drop(poll::readable_within(pidfd, left)),
                None => poll::sleep(STOP_POLL_MS.min(left)),
            }
        }
    }
}
