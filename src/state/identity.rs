//! The identity of files: whether a path still leads to the file that a service has open.
//!
//! A file that is open is of use only while its path names it. Other programs remove PID
//! files, clean /tmp, and mount over folders. With each heartbeat a service checks some of
//! its paths, in turn, so that it has checked all of them within `stale_after`.

use crate::proto::service::Service;
use crate::util::text::Writer;
use crate::util::time::Duration;
use linux_raw_sys::errno;
use ufmt::uwrite;

/// A path that a service checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchedPath {
    /// The health file.
    Health,
    /// The socket.
    Socket,
    /// The PID file.
    PidFile,
    /// The lock of the spool, which is the second lock of `jobs`.
    SecondLock,
    /// The journal in the folder of the spool.
    Journal,
    /// The folder of the queue file.
    QueueFolder,
}

/// All paths. `jobs` has all of them, and each other service the first three.
const ALL: &[WatchedPath] = &[
    WatchedPath::Health,
    WatchedPath::Socket,
    WatchedPath::PidFile,
    WatchedPath::SecondLock,
    WatchedPath::Journal,
    WatchedPath::QueueFolder,
];

/// Number of paths that a service other than `jobs` checks.
const COMMON: usize = 3;

/// The turn of the paths of one service.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PathRotation {
    next: usize,
}

impl PathRotation {
    /// Returns the path whose turn it is, and gives the turn to the one after it.
    #[allow(unsafe_code, reason = "names a section")]
    #[unsafe(link_section = ".text.idle")]
    pub fn advance(&mut self, service: Service) -> WatchedPath {
        let path = ALL.get(self.next).copied().unwrap_or(WatchedPath::Health);
        let next = self.next.saturating_add(1);
        self.next = if next < path_count(service) { next } else { 0 };
        path
    }
}

/// Returns the number of paths that `service` checks.
const fn path_count(service: Service) -> usize {
    match service {
        Service::Jobs => ALL.len(),
        _ => COMMON,
    }
}

/// Returns the number of paths that `service` checks with each heartbeat. Two are enough
/// unless few heartbeats fit into `stale_after`. The opener checks one, because it reads a
/// message of its worker with each heartbeat. A service without heartbeats checks all, because
/// it wakes rarely; `beat_every` is `None` then.
#[must_use]
#[allow(unsafe_code, reason = "names a section")]
#[unsafe(link_section = ".text.idle")]
pub fn checks_per_beat(service: Service, beat_every: Option<Duration>, stale_after: Duration) -> usize {
    let Some(beat_every) = beat_every else { return path_count(service) };
    let least = if service == Service::Opener { 1 } else { 2 };
    let mut checks = least;
    let round = |checks: usize| beat_every * path_count(service).div_ceil(checks) as u64;
    while checks < path_count(service) && round(checks).exceeds(stale_after) {
        checks = checks.saturating_add(1);
    }
    checks
}

/// Writes the address of the socket that is the second lock of `service`: an abstract name made
/// from the service, the user that started it, and a hash of the path of its PID file.
pub fn push_lock_address(service: Service, uid: u32, pid_path: &[u8], out: &mut Writer<'_>) {
    let _ = uwrite!(out, "@zigsvc-lock/{}/{}/", service.name(), uid);
    out.push_u64(hash(pid_path));
}

/// Returns the FNV-1a hash of `bytes` (RFC 9923).
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The relation of a path to an open file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathState {
    /// The path names the open file.
    Named,
    /// The path names no file.
    Missing,
    /// The path names another file.
    Replaced,
    /// The path cannot be looked at. This is no evidence about the open file.
    Unknown,
}

impl PathState {
    /// Judges the device and inode that stat(2) found, or its errno. `open` is the identity of
    /// the open file.
    #[must_use]
    pub fn judge(found: Result<(u64, u64), i32>, open: (u64, u64)) -> Self {
        match found {
            Ok(found) if found == open => Self::Named,
            Ok(_) => Self::Replaced,
            Err(number) if [errno::ENOENT, errno::ENOTDIR].map(|none| none as i32).contains(&number) => {
                Self::Missing
            }
            Err(_) => Self::Unknown,
        }
    }

    /// Returns true if the path certainly does not lead to the open file.
    #[must_use]
    pub const fn is_lost(self) -> bool {
        matches!(self, Self::Missing | Self::Replaced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICES: [Service; 5] =
        [Service::Jobs, Service::Hub, Service::Opener, Service::Collector, Service::Supervisor];

    #[test]
    fn every_path_has_its_turn_and_only_jobs_has_a_spool() {
        for service in SERVICES {
            let mut rotation = PathRotation::default();
            let round: Vec<_> = (0..path_count(service)).map(|_| rotation.advance(service)).collect();
            assert_eq!(round, ALL[..path_count(service)]);
            assert_eq!(rotation, PathRotation::default(), "the next round begins");
            assert_eq!(round.contains(&WatchedPath::Journal), service == Service::Jobs);
        }
    }

    #[test]
    fn all_paths_are_checked_within_stale_after() {
        for service in SERVICES {
            for every in [250, 500, 1000, 3000, 5000, 60_000].map(Duration::from_ms) {
                for stale in [250, 1000, 1500, 15_000, 3_600_000].map(Duration::from_ms) {
                    let checks = checks_per_beat(service, Some(every), stale);
                    let beats = path_count(service).div_ceil(checks) as u64;
                    assert!(checks == path_count(service) || !(every * beats).exceeds(stale));
                    assert!(checks >= if service == Service::Opener { 1 } else { 2 });
                }
            }
        }
        let checks = |service, secs, stale| {
            checks_per_beat(service, Some(Duration::from_secs(secs)), Duration::from_secs(stale))
        };
        let default = |service| checks(service, 3, 15);
        assert_eq!(SERVICES.map(default), [2, 2, 1, 2, 2], "the idle beat stays at four calls");
        assert_eq!(checks(Service::Jobs, 5, 9), 6, "one heartbeat checks all if a second is too late");
        let without = checks_per_beat(Service::Supervisor, None, Duration::from_secs(15));
        assert_eq!(without, 3, "a service without heartbeats checks all when it wakes");
    }

    #[test]
    fn a_lock_has_an_address_of_its_service_user_and_pid_file() {
        let address = |service, uid, path: &str| {
            let mut buffer = [0; 107];
            let mut out = Writer::new(&mut buffer);
            push_lock_address(service, uid, path.as_bytes(), &mut out);
            String::from_utf8(out.as_bytes().to_vec()).unwrap()
        };
        assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);
        assert_eq!(address(Service::Hub, 0, "foobar"), "@zigsvc-lock/hub/0/9625390261332436968");
        let all = [
            address(Service::Hub, 0, "/run/zigsvc-hub.pid"),
            address(Service::Hub, 1, "/run/zigsvc-hub.pid"),
            address(Service::Hub, 0, "/d/zigsvc-hub.pid"),
            address(Service::Supervisor, u32::MAX, "/run/zigsvc-hub.pid"),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(one.len() < 80 && !all[..index].contains(one), "{one}");
        }
    }

    #[test]
    fn only_a_missing_file_or_another_inode_is_evidence() {
        let open = (7, 42);
        assert_eq!(PathState::judge(Ok(open), open), PathState::Named);
        for other in [(7, 43), (8, 42)] {
            assert_eq!(PathState::judge(Ok(other), open), PathState::Replaced);
        }
        for number in [errno::ENOENT, errno::ENOTDIR] {
            assert_eq!(PathState::judge(Err(number as i32), open), PathState::Missing);
        }
        for number in [errno::EACCES, errno::EIO, errno::ELOOP, errno::ESTALE, errno::ENOMEM] {
            assert_eq!(PathState::judge(Err(number as i32), open), PathState::Unknown);
        }
        assert!(!PathState::Named.is_lost() && !PathState::Unknown.is_lost());
        assert!(PathState::Missing.is_lost() && PathState::Replaced.is_lost());
    }
}
