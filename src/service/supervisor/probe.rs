//! Probes a managed process: the lock of its PID file, and its health file.

use super::Supervisor;
use super::launch::ManagedKind;
use super::managed_process::raw_pid;
use crate::limits::SUPERVISED_MAX;
use crate::proto::service::Service;
use crate::service::config_source::{ServiceFile, path_of};
use crate::service::down_mark;
use crate::service::heartbeat::{self, Health};
use crate::service::lock_holder::{LockHolder, LockState, LookupFailed, ServiceLocks};
use crate::state::supervisor::decision::{Decision, NOTHING, Report};
use crate::state::supervisor::probe::{Beat, FileVersion, Probe, ProbeError, SocketAnswer, beat_of};
use crate::sys::{Errno, Failure, file, socket};
use crate::util::path::Path;
use crate::util::time::Instant;

impl Supervisor {
    fn service(&self, index: usize) -> Option<Service> {
        match self.managed.get(index)?.kind {
            ManagedKind::Service(service) => Some(service),
            ManagedKind::Program | ManagedKind::Listed(_) => None,
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
    pub(super) fn path_of(&self, index: usize, file: ServiceFile) -> Path {
        let path = |service| path_of(service, file, self.base.process.config);
        self.service(index).and_then(path).unwrap_or_default()
    }

    /// Returns the PID file of a managed service; an empty path for a program.
    pub(super) fn pid_path(&self, index: usize) -> Path {
        self.path_of(index, ServiceFile::Pid)
    }

    /// Returns the path beside which the mark of a stop on purpose is. A program has no PID file, but
    /// this path.
    pub(super) fn mark_path(&self, index: usize) -> Path {
        let Some(ManagedKind::Listed(name)) = self.managed.get(index).map(|managed| managed.kind) else {
            return self.pid_path(index);
        };
        let name = Path::or_empty(&[b"zigsvc-", name.as_bytes(), b".pid"]);
        self.base.process.config.pid_file.parent().join(name.as_bytes()).unwrap_or_default()
    }

    /// Returns true if a user has stopped the process on purpose.
    pub(super) fn is_down(&self, index: usize) -> bool {
        self.managed.get(index).is_some_and(|managed| managed.is_down || managed.program.is_leaving)
            || down_mark::is_set(&self.mark_path(index), self.base.heartbeat.boot())
    }

    /// Probes a managed process, and returns the decision that follows.
    pub(super) fn probe(&mut self, index: usize, now: Instant) -> Decision {
        if self.service(index).is_none() {
            let found = self.find_program_file(index);
            return self.supervision.on_report(index, now, Report::ProgramFile(found));
        }
        let is_known_alive = self.managed.get(index).is_some_and(|managed| managed.is_known_alive());
        let probe = match self.supervision.pid(index).filter(|_| is_known_alive) {
            // The lock is not probed, because it shows nothing if the PID file was removed.
            Some(pid) => self.probe_heartbeat(index, pid, now).map(|beat| Probe::Held(pid, beat)),
            None => self.probe_lock(index, now),
        };
        self.supervision.on_report(index, now, Report::Probe(probe))
    }

    /// Probes the lock of the PID file; `None` for a program, which has no lock, and if
    /// the lock cannot be probed at the moment.
    pub(super) fn probe_lock(&self, index: usize, now: Instant) -> Option<Probe> {
        let path = self.pid_path(index);
        if path.is_empty() {
            return self.is_down(index).then_some(Probe::Free);
        }
        let locks = self.locks(index, &path)?;
        Some(match locks.state_without_strangers().ok()? {
            LockState::Died | LockState::Stopped => Probe::unheld(self.is_down(index)),
            LockState::Running(None) | LockState::PidFileLost(None) => Probe::Foreign,
            LockState::Running(Some(pid)) | LockState::PidFileLost(Some(pid)) => {
                let pid = raw_pid(pid);
                Probe::Held(pid, self.probe_heartbeat(index, pid, now).unwrap_or(Err(ProbeError::Unreadable)))
            }
        })
    }

    /// Probes the health file of a service; `None` if the supervisor itself lacks the means.
    fn probe_heartbeat(&self, index: usize, pid: u32, now: Instant) -> Option<Result<Beat, ProbeError>> {
        let path = self.path_of(index, ServiceFile::Health);
        let stale_after = self.base.process.config.stale_after;
        match heartbeat::probe(&path, pid, self.base.heartbeat.boot(), now, stale_after) {
            Health::Judged(verdict, record) => Some(beat_of(verdict, &record)),
            Health::Unreadable => Some(Err(ProbeError::Unreadable)),
            Health::Missing => Some(Err(ProbeError::Missing)),
            Health::Unknown => None,
        }
    }

    // ----- asking ----------------------------------------------------------------

    /// Asks the socket of a service if it lives, and returns the decision that follows. The
    /// answer comes later, or never.
    #[inline(never)]
    pub(super) fn ask(&mut self, index: usize, now: Instant) -> Decision {
        let path = self.path_of(index, ServiceFile::Socket);
        let number = now.as_ms().saturating_mul(SUPERVISED_MAX as u64).saturating_add(index as u64);
        let answer = match socket::probe(&path, number) {
            Ok(connection) => {
                if let Some(managed) = self.managed.get_mut(index) {
                    managed.asking = Some(connection);
                }
                return NOTHING;
            }
            Err(Failure { errno: Errno::MFILE | Errno::NFILE | Errno::NOMEM, .. }) => SocketAnswer::Unknown,
            Err(_) => SocketAnswer::Unreachable,
        };
        self.supervision.on_report(index, now, Report::Answer(answer))
    }

    /// Finds out if a process that seems to hang could write its health file, then asks `jobs`.
    #[inline(never)]
    pub(super) fn confirm(&mut self, index: usize, now: Instant) -> Decision {
        let service = self.service(index);
        let is_written = match service {
            Some(_) => {
                self.base.heartbeat.beat(now);
                self.base.heartbeat.failure().is_none()
            }
            None => !self.health_file(index).is_some_and(|path| file::has_no_room(&path.parent())),
        };
        match SocketAnswer::without_asking(is_written, service == Some(Service::Jobs)) {
            Some(answer) => self.supervision.on_report(index, now, Report::Answer(answer)),
            None => self.ask(index, now),
        }
    }

    /// Takes the answer of a service: any byte, or the end of the connection.
    pub(super) fn on_answer(&mut self, index: usize, now: Instant) {
        let Some(_) = self.managed.get_mut(index).and_then(|managed| managed.asking.take()) else { return };
        let decision = self.supervision.on_report(index, now, Report::Answer(SocketAnswer::Answered));
        self.perform(index, decision, now);
    }

    /// Returns the health file of a program, if it has one.
    pub(super) fn health_file(&self, index: usize) -> Option<&Path> {
        let own = self.managed.get(index).map(|managed| &managed.program.health_file);
        own.filter(|path| !path.is_empty()).or(self.launch.health.as_ref())
    }

    /// Finds the version of the health file of a program.
    fn find_program_file(&self, index: usize) -> Result<FileVersion, ProbeError> {
        let path = self.health_file(index).ok_or(ProbeError::Missing)?;
        match file::meta_at(path.as_c_str(), true) {
            Ok(meta) if meta.regular => Ok((meta.identity, meta.size, meta.written)),
            Err(Failure { errno: Errno::NOENT | Errno::NOTDIR, .. }) => Err(ProbeError::Missing),
            Ok(_) | Err(_) => Err(ProbeError::Unreadable),
        }
    }
}
