//! The result of a probe of one instance: whether its process runs, and whether it is
//! healthy.

use crate::proto::health::{HealthRecord, Verdict};
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
    /// The process has no heartbeat, and its socket does not answer.
    Silent,
}

/// A heartbeat of the process itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beat {
    /// The number of the heartbeat.
    pub seq: u64,
    /// When it was written, by the clock of the process. In another time namespace this is
    /// another clock.
    pub written: Instant,
}

/// The answer of the socket of a process that gave no sign of life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SocketAnswer {
    /// The process has sent a byte, or has closed the connection.
    Answered,
    /// The process has not answered in time.
    Silent,
    /// There is no connection: no socket, or its queue of connections is full.
    Unreachable,
    /// The supervisor cannot ask, or cannot write its own health file.
    Unknown,
}

impl SocketAnswer {
    /// Returns the answer of a process that seems to hang, unless its socket is to be asked. Without
    /// its own health file the supervisor proves nothing, and a process without a control socket
    /// cannot be asked.
    #[must_use]
    pub fn without_asking(is_own_file_written: bool, has_socket: bool) -> Option<Self> {
        match (is_own_file_written, has_socket) {
            (false, _) => Some(Self::Unknown),
            (true, false) => Some(Self::Unreachable),
            (true, true) => None,
        }
    }
}

/// The result of a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    /// This process holds the lock of the PID file; its last heartbeat, or why there is none.
    Held(u32, Result<Beat, ProbeError>),
    /// A process of another PID namespace, which has no number here, holds the lock.
    Foreign,
    /// No process holds the lock, and no user stopped the service: it died, or was never started.
    Died,
    /// No process holds the lock, and the mark of a stop on purpose is there.
    Free,
}

impl Probe {
    /// Returns the result where no process holds the lock. `is_marked` is true if the mark of a stop on
    /// purpose is there.
    #[must_use]
    pub fn unheld(is_marked: bool) -> Self {
        if is_marked { Self::Free } else { Self::Died }
    }
}

/// Identifies a version of a file: inode, size, time of the last write.
pub type FileVersion = ((u64, u64), u64, (i64, u64));

/// Finds out if a sign of life changes. Any change counts, whatever a clock says.
#[derive(Clone, Copy, Debug)]
pub struct LifeSign<T> {
    /// The sign that was found last, and when it appeared.
    seen: Option<(T, Instant)>,
}

/// Returns the heartbeat with this verdict.
///
/// # Errors
/// The heartbeat is not one of this process.
pub const fn beat_of(verdict: Verdict, record: &HealthRecord) -> Result<Beat, ProbeError> {
    match verdict {
        // Another time namespace has another clock, so the age alone proves nothing.
        Verdict::Fresh(_) | Verdict::Stale(_) => {
            Ok(Beat { seq: record.seq, written: Instant::from_ms(record.boottime_ms) })
        }
        Verdict::OtherBoot => Err(ProbeError::OtherBoot),
        Verdict::OtherPid => Err(ProbeError::OtherPid),
        Verdict::Future => Err(ProbeError::Future),
    }
}

impl<T: Copy + PartialEq> LifeSign<T> {
    /// The state before the first sign.
    pub const NONE: Self = Self { seen: None };

    /// Leaves `span` out of the age of the sign.
    pub fn sleep(&mut self, span: Duration) {
        self.seen = self.seen.map(|(sign, since)| (sign, since + span));
    }

    /// Judges the sign that was found at `now`. The first one counts from `first`.
    ///
    /// # Errors
    /// The sign has not changed for longer than `stale_after`.
    pub fn judge(
        &mut self,
        now: Instant,
        found: T,
        first: Instant,
        stale_after: Duration,
    ) -> Result<(), ProbeError> {
        let since = match self.seen {
            Some((before, since)) if before == found => since,
            Some(_) => now,
            None => first,
        };
        self.seen = Some((found, since));
        let age = now.since(since);
        if age > stale_after { Err(ProbeError::Stale(age)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::health::UNKNOWN_BOOT;

    const fn at(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    const STALE_AFTER: Duration = Duration::from_ms(100);
    const STARTED: Instant = at(1000);

    fn version(number: u64) -> FileVersion {
        ((1, 2), 3, (4, number))
    }

    fn stale(age: u64) -> Result<(), ProbeError> {
        Err(ProbeError::Stale(Duration::from_ms(age)))
    }

    #[test]
    fn any_change_of_the_file_is_a_sign_of_life() {
        let mut health = LifeSign::NONE;
        let mut judge = |now, found| health.judge(at(now), found, STARTED, STALE_AFTER);
        assert_eq!(judge(1100, version(1)), Ok(()));
        assert_eq!(judge(1101, version(1)), stale(101), "an earlier process left it");
        assert_eq!(judge(1150, version(2)), Ok(()));
        assert_eq!(judge(1250, version(2)), Ok(()));
        assert_eq!(judge(1251, version(2)), stale(101));
        assert_eq!(judge(1252, version(1)), Ok(()), "an older time is a change, too");
        for changed in [((9, 2), 3, (4, 1)), ((9, 2), 9, (4, 1)), ((9, 2), 9, (9, 1))] {
            assert_eq!(judge(9000, changed), Ok(()), "{changed:?}");
        }
        assert_eq!(judge(10, version(7)), Ok(()), "a clock that went back");
        assert_eq!(judge(5, version(7)), Ok(()));
    }

    #[test]
    fn a_heartbeat_of_the_process_counts_by_its_number_and_any_other_is_an_error() {
        let ms = Duration::from_ms;
        let record = HealthRecord { wall: 0, seq: 9, pid: 7, boottime_ms: 50, boot: UNKNOWN_BOOT };
        let beat = Ok(Beat { seq: 9, written: at(50) });
        assert_eq!(beat_of(Verdict::Fresh(ms(5)), &record), beat);
        assert_eq!(beat_of(Verdict::Stale(ms(5)), &record), beat);
        for (verdict, error) in [
            (Verdict::OtherBoot, ProbeError::OtherBoot),
            (Verdict::OtherPid, ProbeError::OtherPid),
            (Verdict::Future, ProbeError::Future),
        ] {
            assert_eq!(beat_of(verdict, &record), Err(error));
        }
    }
}
