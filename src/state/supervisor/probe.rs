//! The result of a probe of one instance: whether its process runs, and whether it is
//! healthy.

use crate::proto::health::Verdict;
use crate::util::time::{Duration, Instant};

/// The reason why a process that runs is not healthy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProbeError {
    /// The heartbeat is this old.
    Stale(Duration),
    /// The heartbeat is of an earlier boot.
    OtherBoot,
    /// The heartbeat is of another process.
    OtherPid,
    /// The heartbeat is dated later than now.
    Future,
    /// The health file is not a heartbeat.
    Unreadable,
    /// There is no health file.
    Missing,
    /// The process was started, and has not reported ready in time.
    NotReady,
}

/// The result of a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    /// This process holds the lock of the PID file; its health.
    Held(u32, Result<(), ProbeError>),
    /// No process holds the lock, and no user stopped the service: it died, or was never started.
    Died,
    /// No process holds the lock, and the mark of a stop on purpose is there.
    Free,
}

/// Identifies a version of a file: inode, size, time of the last write.
pub type FileVersion = ((u64, u64), u64, (i64, u64));

/// Judges the health file of a program. Any change of the file is a sign of life,
/// whatever the wall clock says.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProgramHealth {
    /// The version that was found last, and when it appeared.
    seen: Option<(FileVersion, Instant)>,
}

/// Returns the health of a service whose heartbeat has this verdict.
///
/// # Errors
/// The heartbeat is not fresh.
pub const fn judge_heartbeat(verdict: Verdict) -> Result<(), ProbeError> {
    match verdict {
        Verdict::Fresh(_) => Ok(()),
        Verdict::Stale(age) => Err(ProbeError::Stale(age)),
        Verdict::OtherBoot => Err(ProbeError::OtherBoot),
        Verdict::OtherPid => Err(ProbeError::OtherPid),
        Verdict::Future => Err(ProbeError::Future),
    }
}

impl ProgramHealth {
    /// Judges the version that was `found` at `now`, or the reason why none was found,
    /// for a process that was started at `started_at`.
    ///
    /// # Errors
    /// The file was not written for longer than `stale_after`. A new process has this
    /// long for its first write.
    pub fn judge(
        &mut self,
        now: Instant,
        found: Result<FileVersion, ProbeError>,
        started_at: Instant,
        stale_after: Duration,
    ) -> Result<(), ProbeError> {
        let version = match found {
            Ok(version) => version,
            Err(_) if now.since(started_at) <= stale_after => return Ok(()),
            Err(error) => return Err(error),
        };
        let since = match self.seen {
            Some((before, since)) if before == version => since,
            Some(_) => now,
            // An earlier process may have left this version.
            None => started_at,
        };
        self.seen = Some((version, since));
        let age = now.since(since);
        if age > stale_after { Err(ProbeError::Stale(age)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    const STALE_AFTER: Duration = Duration::from_ms(100);
    const STARTED: Instant = at(1000);

    fn version(number: u64) -> Result<FileVersion, ProbeError> {
        Ok(((1, 2), 3, (4, number)))
    }

    fn stale(age: u64) -> Result<(), ProbeError> {
        Err(ProbeError::Stale(Duration::from_ms(age)))
    }

    #[test]
    fn any_change_of_the_file_is_a_sign_of_life() {
        let mut health = ProgramHealth::default();
        let mut judge = |now, found| health.judge(at(now), found, STARTED, STALE_AFTER);
        assert_eq!(judge(1100, version(1)), Ok(()));
        assert_eq!(judge(1101, version(1)), stale(101), "an earlier process left it");
        assert_eq!(judge(1150, version(2)), Ok(()));
        assert_eq!(judge(1250, version(2)), Ok(()));
        assert_eq!(judge(1251, version(2)), stale(101));
        assert_eq!(judge(1252, version(1)), Ok(()), "an older time is a change, too");
        for changed in [((9, 2), 3, (4, 1)), ((9, 2), 9, (4, 1)), ((9, 2), 9, (9, 1))] {
            assert_eq!(judge(9000, Ok(changed)), Ok(()), "{changed:?}");
        }
        assert_eq!(judge(10, version(7)), Ok(()), "a clock that went back");
        assert_eq!(judge(5, version(7)), Ok(()));
    }

    #[test]
    fn a_new_process_has_time_for_its_first_write() {
        for error in [ProbeError::Missing, ProbeError::Unreadable] {
            let mut health = ProgramHealth::default();
            assert_eq!(health.judge(at(1100), Err(error), STARTED, STALE_AFTER), Ok(()));
            assert_eq!(health.judge(at(1101), Err(error), STARTED, STALE_AFTER), Err(error));
        }
    }

    #[test]
    fn each_verdict_but_fresh_is_an_error() {
        let ms = Duration::from_ms;
        assert_eq!(judge_heartbeat(Verdict::Fresh(ms(5))), Ok(()));
        assert_eq!(judge_heartbeat(Verdict::Stale(ms(5))), Err(ProbeError::Stale(ms(5))));
        assert_eq!(judge_heartbeat(Verdict::OtherBoot), Err(ProbeError::OtherBoot));
        assert_eq!(judge_heartbeat(Verdict::OtherPid), Err(ProbeError::OtherPid));
        assert_eq!(judge_heartbeat(Verdict::Future), Err(ProbeError::Future));
    }
}
