//! Whether a managed process is there, and well.

use super::Supervisor;
use super::managed_process::{ManagedKind, ManagedProcess};
use crate::proto::health::Verdict;
use crate::service::config_source::{ServiceFile, path_of};
use crate::service::heartbeat::{self, Health};
use crate::state::supervisor::{Probe, ProbeError};
use crate::sys::lock::{Holder, holder};
use crate::sys::{Errno, Failure, file};
use crate::util::path::Path;
use crate::util::time::Instant;

impl Supervisor {
    /// Whether there are health files to look at: those of services, and that of
    /// a program if it has one.
    pub(super) fn probes_health(&self) -> bool {
        !self.launch.is_program() || self.launch.health.is_some()
    }

    /// The PID file of a managed process; empty for a program.
    pub(super) fn pid_path(&self, index: usize) -> Path {
        match self.managed.get(index).map(|managed| managed.kind) {
            Some(ManagedKind::Service(service)) => {
                path_of(service, ServiceFile::Pid, self.base.process.config).unwrap_or_default()
            }
            Some(ManagedKind::Program) | None => Path::empty(),
        }
    }

    /// Looks at a managed process; `None` if that is not possible at the moment.
    pub(super) fn probe(&mut self, index: usize, now: Instant) -> Option<Probe> {
        let managed = self.managed.get(index)?;
        match (managed.kind, managed.state.pid()) {
            (ManagedKind::Program, None) => None,
            (ManagedKind::Program, Some(pid)) => Some(Probe::Held(pid, self.probe_program(index, now))),
            // Its end would have been told: the lock need not be asked, which
            // knows nothing any more if somebody removed the PID file.
            (ManagedKind::Service(_), Some(pid)) if managed.is_known_alive() => {
                Some(Probe::Held(pid, self.probe_heartbeat(index, pid, now)?))
            }
            (ManagedKind::Service(_), _) => self.probe_lock(index, now),
        }
    }

    /// What the lock of the PID file says; `None` for a program, which has none,
    /// and if the lock cannot be asked at the moment.
    pub(super) fn probe_lock(&self, index: usize, now: Instant) -> Option<Probe> {
        let path = self.pid_path(index);
        if path.is_empty() {
            return None;
        }
        Some(match holder(path.as_c_str()).ok()? {
            Holder::Died => Probe::Died,
            Holder::Stopped => Probe::Free,
            Holder::Running(pid) => {
                // (0: in another PID namespace; never signalled)
                let pid = pid.map_or(0, super::managed_process::raw_pid);
                Probe::Held(pid, self.probe_heartbeat(index, pid, now).unwrap_or(Ok(())))
            }
        })
    }

    /// The health file of a service; `None` if it proves nothing at the moment. On a
    /// disk that does not take our own heartbeat nobody else's can be fresh: to end
    /// services for that would end what is well, and perhaps cannot start again.
    fn probe_heartbeat(&self, index: usize, pid: u32, now: Instant) -> Option<Result<(), ProbeError>> {
        let config = &self.base.process.config;
        let Some(ManagedProcess { kind: ManagedKind::Service(service), .. }) = self.managed.get(index) else {
            return None;
        };
        if self.base.heartbeat.failure().is_some_and(|failure| failure.is_of_disk()) {
            return None;
        }
        let path = path_of(*service, ServiceFile::Health, config).unwrap_or_default();
        Some(match heartbeat::probe(&path, pid, self.base.heartbeat.boot(), now, config.stale_after) {
            Health::Judged(Verdict::Fresh(_), _) => Ok(()),
            Health::Judged(Verdict::Stale(age), _) => Err(ProbeError::Stale(age)),
            Health::Judged(Verdict::OtherBoot, _) => Err(ProbeError::OtherBoot),
            Health::Judged(Verdict::OtherPid, _) => Err(ProbeError::OtherPid),
            Health::Judged(Verdict::Future, _) => Err(ProbeError::Future),
            Health::Unreadable => Err(ProbeError::Unreadable),
            Health::Missing => Err(ProbeError::Missing),
            Health::Unknown => return None,
        })
    }

    /// The health file of a program: any change of it is a sign of life, whatever
    /// the wall clock says. A new process has `stale_after` for its first one.
    fn probe_program(&mut self, index: usize, now: Instant) -> Result<(), ProbeError> {
        let stale_after = self.base.process.config.stale_after;
        let Some(path) = &self.launch.health else { return Ok(()) };
        let Some(managed) = self.managed.get_mut(index) else { return Ok(()) };
        let fresh_start = !now.since(managed.started_at).exceeds(stale_after);
        let meta = match file::meta_at(path.as_c_str(), true) {
            Ok(meta) if meta.regular => meta,
            _ if fresh_start => return Ok(()),
            Err(Failure { errno: Errno::NOENT | Errno::NOTDIR, .. }) => return Err(ProbeError::Missing),
            Ok(_) | Err(_) => return Err(ProbeError::Unreadable),
        };
        let found = (meta.identity, meta.size, meta.written);
        let (_, since) = match managed.seen {
            Some((before, since)) if before == found => (before, since),
            Some(_) => *managed.seen.insert((found, now)),
            // What an earlier process left is none of this one.
            None => *managed.seen.insert((found, managed.started_at)),
        };
        let age = now.since(since);
        if age.exceeds(stale_after) { Err(ProbeError::Stale(age)) } else { Ok(()) }
    }
}
