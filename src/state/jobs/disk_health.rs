//! Decides which work a failing or full disk stops, and when the disk is tried again. Known
//! jobs continue where they can, because only their ends free space.

use super::actions::TurnNotice;
use crate::state::backoff::delay;
use crate::state::disk::{Disk, DiskError, DiskResult, NO_SPACE};
use crate::state::spool::Spool;
use crate::util::time::{Duration, Instant};

/// Time until the next attempt after an error of the spool's disk.
pub(crate) const SPOOL_RETRY: Duration = Duration::from_ms(1000);
/// Time until the next attempt after a compaction failed. The time doubles with each failure.
pub(crate) const COMPACT_RETRY: Duration = Duration::from_ms(10_000);
/// Maximum time until the next attempt after several compactions failed.
const COMPACT_RETRY_MAX: Duration = Duration::from_ms(600_000);

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Hash))]
pub struct DiskHealth {
    /// Why the disk failed, and when it is tried again.
    pub(super) failure: Option<(Instant, DiskError)>,
    /// Whether known jobs cannot continue either while the disk fails.
    pub(super) jobs_blocked: bool,
    /// The disk has no room for new jobs; when the free space is looked at again.
    pub(super) space_retry_at: Option<Instant>,
    /// Compactions that failed since the last one that succeeded.
    compact_failures: u32,
    /// When the next compaction may begin after one that failed.
    pub(super) compact_after: Instant,
    /// Why the last compaction failed.
    compact_error: DiskError,
}

impl DiskHealth {
    /// Nothing has failed.
    pub(super) const GOOD: Self = Self {
        failure: None,
        jobs_blocked: false,
        space_retry_at: None,
        compact_failures: 0,
        compact_after: Instant::BOOT,
        compact_error: DiskError(0),
    };

    /// Returns true if the disk works and has room for new jobs.
    #[must_use]
    pub fn is_good(&self) -> bool {
        !self.is_failing() && !self.is_full()
    }

    /// Returns true if the disk failed when it was last used.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failure.is_some()
    }

    /// Returns why the disk failed when it was last used, if it did.
    #[must_use]
    pub fn error(&self) -> Option<DiskError> {
        self.failure.map(|(_, error)| error)
    }

    /// Returns true if the disk has no room for new jobs.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.space_retry_at.is_some()
    }

    /// Notes that the disk failed, and leaves it alone for a while.
    pub fn fail(&mut self, error: DiskError, now: Instant) {
        self.failure = Some((now + SPOOL_RETRY, error));
    }

    /// Returns why the disk is left alone at `now`, if it is.
    #[must_use]
    pub fn resting_error(&self, now: Instant) -> Option<DiskError> {
        self.failure.filter(|(retry_at, _)| !retry_at.is_due(now)).map(|(_, error)| error)
    }

    /// Checks whether new jobs are accepted.
    ///
    /// # Errors
    /// The disk has no room, or failed a moment ago.
    pub(super) fn accepts_jobs(&self, now: Instant) -> DiskResult {
        match self.resting_error(now) {
            Some(error) => Err(error),
            None if self.is_full() => Err(NO_SPACE),
            None => Ok(()),
        }
    }

    /// Returns why the last compaction failed.
    #[must_use]
    pub fn compact_error(&self) -> DiskError {
        self.compact_error
    }

    /// Returns true if a compaction may begin.
    #[must_use]
    pub fn may_compact(&self, now: Instant) -> bool {
        self.compact_after.is_due(now)
    }

    /// Takes the result of a step of a compaction. One that fails costs a write of
    /// everything that is live, so the next one waits longer each time.
    pub(super) fn on_compaction(&mut self, result: DiskResult, now: Instant) -> Option<TurnNotice> {
        let Err(error) = result else {
            self.compact_failures = 0;
            return None;
        };
        self.compact_failures = self.compact_failures.saturating_add(1);
        self.compact_after = now + delay(COMPACT_RETRY, self.compact_failures, COMPACT_RETRY_MAX);
        self.compact_error = error;
        Some(TurnNotice::CompactionFailed(error))
    }

    /// Takes the results of new jobs in a turn, and of everything else. A lack of room for
    /// new jobs is no failure of the disk.
    pub(super) fn update(
        &mut self,
        new_jobs: DiskResult,
        rest: DiskResult,
        now: Instant,
    ) -> Option<TurnNotice> {
        let lacks_space = new_jobs.is_err_and(DiskError::is_no_space);
        let was_failing = self.is_failing();
        match if lacks_space { rest } else { new_jobs.and(rest) } {
            Ok(()) => {
                self.failure = None;
                was_failing.then_some(TurnNotice::DiskWorks)
            }
            Err(error) => {
                self.fail(error, now);
                (!was_failing).then_some(TurnNotice::DiskFailed(error))
            }
        }
    }

    /// Looks at the free space where that is due, after [`DiskHealth::update`].
    pub(super) fn update_space(
        &mut self,
        spool: &mut Spool,
        disk: &mut impl Disk,
        new_jobs: DiskResult,
        now: Instant,
    ) -> Option<TurnNotice> {
        let refused = new_jobs.err().filter(|error| error.is_no_space());
        let due = self.space_retry_at.is_some_and(|at| at.is_due(now));
        if self.is_failing() || (refused.is_none() && !due) {
            return None;
        }
        let (room, free, reserved) = spool.update_low_space(disk);
        let was_full = self.is_full();
        if refused.is_some() || !room {
            self.space_retry_at = Some(now + SPOOL_RETRY);
            return refused.filter(|_| !was_full).map(|error| TurnNotice::NoSpace { error, free, reserved });
        }
        self.space_retry_at = None;
        Some(TurnNotice::SpaceWorks)
    }
}
