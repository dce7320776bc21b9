//! The process that holds a service's lock: signals it, and waits for its end.

use super::second_lock::{self, SecondHolder};
use crate::limits::STOP_POLL;
use crate::proto::config::Config;
use crate::proto::service::Service;
use crate::sys::lock::{Holder, holder};
use crate::sys::process::{self, Pid, Signal};
use crate::sys::{Failure, OwnedFd, clock, poll};
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::Duration;
use ufmt::uwrite;

/// The process that holds the lock, pinned by a pidfd if the kernel has pidfds.
pub struct LockHolder {
    /// The PID of the process.
    pub pid: Pid,
    /// The pidfd, readable when the process has ended; `None` before Linux 5.3.
    pub pidfd: Option<OwnedFd>,
}

/// The locks of a service, as another process sees them.
#[derive(Clone, Copy)]
pub struct ServiceLocks<'a> {
    /// The service.
    pub service: Service,
    /// Its configuration.
    pub config: &'a Config,
    /// Its PID file.
    pub pid_path: &'a Path,
}

/// The state of a service, as its locks show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LockState {
    /// The service holds the lock of the PID file. `None` stands for a process that cannot be
    /// named.
    Running(Option<Pid>),
    /// The service holds its second lock only, because its PID file is lost.
    PidFileLost(Option<Pid>),
    /// The service died.
    Died,
    /// The service was stopped.
    Stopped,
}

impl From<Holder> for LockState {
    fn from(holder: Holder) -> Self {
        match holder {
            Holder::Running(pid) => Self::Running(pid),
            Holder::Died => Self::Died,
            Holder::Stopped => Self::Stopped,
        }
    }
}

impl ServiceLocks<'_> {
    /// Returns the state of the service. The second lock counts while the lock of the PID file
    /// is free.
    ///
    /// # Errors
    /// [`LookupFailed::SystemCall`] if the PID file cannot be opened, [`LookupFailed::Stranger`]
    /// if a process of another user holds the second lock.
    pub fn state(&self) -> Result<LockState, LookupFailed> {
        let first = holder(self.pid_path.as_c_str());
        if let Ok(Holder::Running(pid)) = first {
            return Ok(LockState::Running(pid));
        }
        match second_lock::find_holder(self.service, self.config, self.pid_path) {
            SecondHolder::Service(pid) => Ok(LockState::PidFileLost(pid)),
            SecondHolder::Stranger(pid, uid) => Err(LookupFailed::Stranger(pid, uid)),
            SecondHolder::Free => first.map(LockState::from).map_err(LookupFailed::SystemCall),
        }
    }

    /// Returns the state of the service as [`ServiceLocks::state`] does. A process of another user
    /// that holds the second lock does not count, because every user can bind its name.
    ///
    /// # Errors
    /// [`LookupFailed::SystemCall`] if the PID file cannot be opened.
    pub fn state_without_strangers(&self) -> Result<LockState, LookupFailed> {
        match self.state() {
            Err(LookupFailed::Stranger(..)) => {
                let first = holder(self.pid_path.as_c_str()).map_err(LookupFailed::SystemCall)?;
                Ok(LockState::from(first))
            }
            state => state,
        }
    }

    /// Returns true if process `pid` holds one of the locks, as far as that is known.
    fn is_held_by(&self, pid: Pid) -> bool {
        match self.state() {
            Ok(LockState::Running(holder) | LockState::PidFileLost(holder)) => {
                holder.is_none_or(|holder| holder == pid)
            }
            // The queue of the second lock is full, because this process has asked often.
            Err(LookupFailed::Stranger(0, _)) => true,
            Ok(LockState::Died | LockState::Stopped) | Err(_) => false,
        }
    }
}

/// The reason why the holder of a lock is unknown.
#[derive(Clone, Copy, Debug)]
pub enum LookupFailed {
    /// A system call failed.
    SystemCall(Failure),
    /// The holder is in another PID namespace.
    OtherPidNamespace,
    /// A process of another user, with this PID and this user, holds the second lock.
    Stranger(u32, u32),
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
            Self::SystemCall(failure) => {
                out.push_escaped(path.as_bytes());
                out.push_str(": ");
                failure.describe(out);
            }
            Self::OtherPidNamespace => {
                out.push_escaped(path.as_bytes());
                out.push_str(": it is locked from another PID namespace; signal it from there");
            }
            Self::Stranger(pid, uid) => {
                out.push_escaped(path.as_bytes());
                out.push_str(": its second lock is held by ");
                let _ = match pid {
                    0 => uwrite!(out, "a process that does not answer"),
                    _ => uwrite!(out, "pid {}, uid {}", pid, uid),
                };
            }
        }
    }
}

impl LockHolder {
    /// Finds the holder. The locks are probed before and after the pidfd is opened, so that the
    /// pidfd certainly belongs to the holder.
    ///
    /// # Errors
    /// As [`ServiceLocks::state`], and [`LookupFailed::OtherPidNamespace`] if the kernel does not
    /// give the PID.
    pub fn find(locks: &ServiceLocks<'_>) -> Result<Option<Self>, LookupFailed> {
        loop {
            let pid = match locks.state()? {
                LockState::Running(Some(pid)) | LockState::PidFileLost(Some(pid)) => pid,
                LockState::Running(None) | LockState::PidFileLost(None) => {
                    return Err(LookupFailed::OtherPidNamespace);
                }
                LockState::Died | LockState::Stopped => return Ok(None),
            };
            let pidfd = process::pidfd_open(pid).ok();
            if matches!(
                locks.state()?,
                LockState::Running(Some(same)) | LockState::PidFileLost(Some(same)) if same == pid
            ) {
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

    /// Waits until this process no longer holds a lock, and has ended if there is a pidfd,
    /// because the lock is released a little earlier. Returns true if that comes within
    /// `wait`.
    #[must_use]
    pub fn is_gone_within(&self, locks: &ServiceLocks<'_>, wait: Duration) -> bool {
        let deadline = clock::now() + wait;
        loop {
            let ended = |pidfd| poll::readable_within(pidfd, Duration::ZERO);
            if !locks.is_held_by(self.pid) && self.pidfd.as_ref().is_none_or(ended) {
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
