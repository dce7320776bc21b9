//! Probes a managed process: the lock of its PID file, and its health file.

use super::Supervisor;
use super::launch::ManagedKind;
use super::managed_process::raw_pid;
use crate::proto::service::Service;
use crate::service::config_source::{ServiceFile, path_of};
use crate::service::down_mark;
use crate::service::heartbeat::{self, Health};
use crate::service::lock_holder::{LockHolder, LockState, LookupFailed, ServiceLocks};
use crate::state::supervisor::decision::{Decision, Report};
use crate::state::supervisor::probe::{FileVersion, Probe, ProbeError, judge_heartbeat};
use crate::sys::{Errno, Failure, file};
use crate::util::path::Path;
use crate::util::time::Instant;

impl Supervisor {
    fn service(&self, index: usize) -> Option<Service> {
        match self.managed.get(index)?.kind {
            ManagedKind::Service(service) => Some(service),
            ManagedKind::Program => None,
        }
    }

    /// Returns the locks of a managed service, whose PID file is at `pid_path`; `None` for a
    /// program.
    fn locks<'a>(&'a self, index: usize, pid_path: &'a Path) -> Option<ServiceLocks<'a>> {
        let service = self.service(index)?;
        Some(ServiceLocks { service, config: self.base.process.config, pid_path })
    }

    /// Finds the process that holds the lock of a managed service; none for a program.
    pub(super) fn find_holder(&self, index: usize) -> Result<Option<LockHolder>, LookupFailed> {
        let path = self.pid_path(index);
        self.locks(index, &path).map_or(Ok(None), |locks| LockHolder::find(&locks))
    }

    /// Returns a file of a managed service; an empty path for a program.
    fn path_of(&self, index: usize, file: ServiceFile) -> Path {
        let path = |service| path_of(service, file, self.base.process.config);
        self.service(index).and_then(path).unwrap_or_default()
    }

    /// Returns the PID file of a managed service; an empty path for a program.
    pub(super) fn pid_path(&self, index: usize) -> Path {
        self.path_of(index, ServiceFile::Pid)
    }

    /// Probes a managed process, and returns the decision that follows.
    pub(super) fn probe(&mut self, index: usize, now: Instant) -> Decision {
        if self.launch.is_program() {
            return self.supervision.on_report(index, now, Report::ProgramFile(self.find_program_file()));
        }
        let is_known_alive = self.managed.get(index).is_some_and(|managed| managed.is_known_alive());
        let probe = match self.supervision.pid(index).filter(|_| is_known_alive) {
            // The lock is not probed, because it shows nothing if the PID file was removed.
            Some(pid) => self.probe_heartbeat(index, pid, now).map(|health| Probe::Held(pid, health)),
            None => self.probe_lock(index, now),
        };
        self.supervision.on_report(index, now, Report::Probe(probe))
    }

    /// Probes the lock of the PID file; `None` for a program, which has no lock, and if
    /// the lock cannot be probed at the moment.
    pub(super) fn probe_lock(&self, index: usize, now: Instant) -> Option<Probe> {
        let path = self.pid_path(index);
        if path.is_empty() {
            return None;
        }
        let locks = self.locks(index, &path)?;
        Some(match locks.state_without_strangers().ok()? {
            LockState::Died | LockState::Stopped if down_mark::is_set(&path, self.base.heartbeat.boot()) => {
                Probe::Free
            }
            LockState::Died | LockState::Stopped => Probe::Died,
            LockState::Running(pid) | LockState::PidFileLost(pid) => {
                // PID 0 stands for a process of another PID namespace. It is never signalled.
                let pid = pid.map_or(0, raw_pid);
                Probe::Held(pid, self.probe_heartbeat(index, pid, now).unwrap_or(Ok(())))
            }
        })
    }

    /// Probes the health file of a service; `None` if it proves nothing at the moment. If
    /// the disk does not take the supervisor's own heartbeat, no service's heartbeat can
    /// be fresh, and a service that is stopped for that perhaps cannot start again.
    fn probe_heartbeat(&self, index: usize, pid: u32, now: Instant) -> Option<Result<(), ProbeError>> {
        if self.base.heartbeat.failure().is_some_and(|failure| failure.is_of_disk()) {
            return None;
        }
        let path = self.path_of(index, ServiceFile::Health);
        let stale_after = self.base.process.config.stale_after;
        match heartbeat::probe(&path, pid, self.base.heartbeat.boot(), now, stale_after) {
            Health::Judged(verdict, _) => Some(judge_heartbeat(verdict)),
            Health::Unreadable => Some(Err(ProbeError::Unreadable)),
            Health::Missing => Some(Err(ProbeError::Missing)),
            Health::Unknown => None,
        }
    }

    /// Finds the version of the health file of a program.
    fn find_program_file(&self) -> Result<FileVersion, ProbeError> {
        let path = self.launch.health.as_ref().ok_or(ProbeError::Missing)?;
        match file::meta_at(path.as_c_str(), true) {
            Ok(meta) if meta.regular => Ok((meta.identity, meta.size, meta.written)),
            Err(Failure { errno: Errno::NOENT | Errno::NOTDIR, .. }) => Err(ProbeError::Missing),
            Ok(_) | Err(_) => Err(ProbeError::Unreadable),
        }
    }
}
