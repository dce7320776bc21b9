//! Whether a ward is there, and well.

use super::Supervisor;
use super::ward::{Kind, Supervised};
use crate::proto::health::Verdict;
use crate::proto::path::Path;
use crate::service::heartbeat::{self, Health};
use crate::service::settings::{File, path_of};
use crate::state::supervisor::{Look, Trouble};
use crate::sys::lock::{Holder, holder};
use crate::sys::{Errno, Failure, file};
use crate::util::time::Instant;

impl Supervisor {
    /// Whether there are health files to look at: those of services, and that of
    /// a program if it has one.
    pub(super) fn looks_at_health(&self) -> bool {
        !self.origin.is_program() || self.origin.health.is_some()
    }

    /// The PID file of a ward; empty for a program.
    pub(super) fn pid_path(&self, index: usize) -> Path {
        match self.wards.get(index).map(|ward| ward.kind) {
            Some(Kind::Service(service)) => {
                path_of(service, File::Pid, self.process.config).unwrap_or_default()
            }
            Some(Kind::Program) | None => Path::empty(),
        }
    }

    /// Looks at a ward; `None` if that is not possible at the moment.
    pub(super) fn look(&mut self, index: usize, now: Instant) -> Option<Look> {
        let ward = self.wards.get(index)?;
        match (ward.kind, ward.state.pid()) {
            (Kind::Program, None) => None,
            (Kind::Program, Some(pid)) => Some(Look::Held(pid, self.look_at_program(index, now))),
            // Its end would have been told: the lock need not be asked, which
            // knows nothing any more if somebody removed the PID file.
            (Kind::Service(_), Some(pid)) if ward.is_vouched_for() => {
                Some(Look::Held(pid, self.look_at_heartbeat(index, pid, now)?))
            }
            (Kind::Service(_), _) => self.look_at_lock(index, now),
        }
    }

    /// What the lock of the PID file says; `None` for a program, which has none,
    /// and if the lock cannot be asked at the moment.
    pub(super) fn look_at_lock(&self, index: usize, now: Instant) -> Option<Look> {
        let path = self.pid_path(index);
        if path.is_empty() {
            return None;
        }
        Some(match holder(path.as_c_str()).ok()? {
            Holder::Died => Look::Died,
            Holder::Stopped => Look::Free,
            Holder::Running(pid) => {
                // (0: in another PID namespace; never signalled)
                let pid = pid.map_or(0, super::ward::number);
                Look::Held(pid, self.look_at_heartbeat(index, pid, now).unwrap_or(Ok(())))
            }
        })
    }

    /// The health file of a service; `None` if it proves nothing at the moment. On a
    /// disk that does not take our own heartbeat nobody else's can be fresh: to end
    /// services for that would end what is well, and perhaps cannot start again.
    fn look_at_heartbeat(&self, index: usize, pid: u32, now: Instant) -> Option<Result<(), Trouble>> {
        let config = &self.process.config;
        let Some(Supervised { kind: Kind::Service(service), .. }) = self.wards.get(index) else {
            return None;
        };
        if self.heartbeat.failure().is_some_and(|failure| failure.is_of_disk()) {
            return None;
        }
        let path = path_of(*service, File::Health, config).unwrap_or_default();
        Some(match heartbeat::look(&path, pid, self.heartbeat.boot(), now, config.stale_after) {
            Health::Judged(Verdict::Fresh(_), _) => Ok(()),
            Health::Judged(Verdict::Stale(age), _) => Err(Trouble::Stale(age)),
            Health::Judged(Verdict::OtherBoot, _) => Err(Trouble::OtherBoot),
            Health::Judged(Verdict::OtherPid, _) => Err(Trouble::OtherPid),
            Health::Judged(Verdict::Future, _) => Err(Trouble::Future),
            Health::Unreadable => Err(Trouble::Unreadable),
            Health::Missing => Err(Trouble::Missing),
            Health::Unknown => return None,
        })
    }

    /// The health file of a program: any change of it is a sign of life, whatever
    /// the wall clock says. A new process has `stale_after` for its first one.
    fn look_at_program(&mut self, index: usize, now: Instant) -> Result<(), Trouble> {
        let stale_after = self.process.config.stale_after;
        let Some(path) = &self.origin.health else { return Ok(()) };
        let Some(ward) = self.wards.get_mut(index) else { return Ok(()) };
        let fresh_start = !now.since(ward.born_at).exceeds(stale_after);
        let meta = match file::meta_at(path.as_c_str(), true) {
            Ok(meta) if meta.regular => meta,
            _ if fresh_start => return Ok(()),
            Err(Failure { errno: Errno::NOENT | Errno::NOTDIR, .. }) => return Err(Trouble::Missing),
            Ok(_) | Err(_) => return Err(Trouble::Unreadable),
        };
        let found = (meta.identity, meta.size, meta.written);
        let (_, since) = match ward.seen {
            Some((before, since)) if before == found => (before, since),
            Some(_) => *ward.seen.insert((found, now)),
            // What an earlier process left is none of this one.
            None => *ward.seen.insert((found, ward.born_at)),
        };
        let age = now.since(since);
        if age.exceeds(stale_after) { Err(Trouble::Stale(age)) } else { Ok(()) }
    }
}
