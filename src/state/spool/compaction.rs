//! Where a compaction stands.

use super::schedule::{Rebase, ScheduledTotals};
use crate::limits::WINDOW_JOBS;
use crate::proto::journal::CLOCK_BODY_BYTES;
use heapless::Vec;

/// The effect of a compaction on dead jobs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(Hash))]
pub enum Purpose {
    /// Dead jobs stay.
    Shrink,
    /// Dead jobs wait again.
    Retry,
    /// Dead jobs are left out.
    Forget,
}

/// A compaction, if one is under way. It stays where it is: it is large.
#[cfg_attr(test, derive(Clone, Hash))]
pub(super) struct Compaction {
    pub(super) stage: CompactionStage,
    pub(super) purpose: Purpose,
    /// Dead jobs that are dead no more.
    pub(super) affected_count: u32,
    /// Where the old file is read next.
    pub(super) from: u64,
    /// Where the new file is written next.
    pub(super) to: u64,
    /// Size of the old file when it began.
    pub(super) start: u64,
    /// Where the backlog begins in the new file.
    pub(super) cursor: u64,
    /// How many tombstones of the spool the new file leaves out.
    pub(super) tombstones: usize,
    /// Where the window's live records are in the new file.
    pub(super) moved: Vec<Moved, WINDOW_JOBS>,
    /// Bytes of live records in the new file.
    pub(super) live_bytes: u64,
    /// Bytes of live records in the old file when it began.
    pub(super) live_before: u64,
    /// Waiting jobs beyond the window, and dead ones, that should still be met. It wraps,
    /// because a damaged spool may have counted too few as well.
    pub(super) expected: LiveCounts,
    /// Whether the new file begins an epoch, and which one.
    pub(super) rebases: bool,
    pub(super) rebase: Rebase,
    /// The record of the present moment in the new file.
    pub(super) clock: Option<[u8; CLOCK_BODY_BYTES]>,
    /// Delayed jobs in the new file, and in the old file when it began.
    pub(super) scheduled: ScheduledTotals,
    pub(super) scheduled_before: ScheduledTotals,
    /// Version of the format of the new file.
    pub(super) version: u8,
    /// Ends of jobs that the new file leaves out, and how many of them were not met yet.
    pub(super) old_results: u32,
    pub(super) left_results: u32,
    /// Records that were appended since are damaged, too; the next compaction counts them.
    pub(super) torn_tail: bool,
}

/// A job of the window, and its live record in the new file. Where a text is damaged, the
/// live record in the old file has another size.
#[derive(Clone, Copy)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Moved {
    pub(super) id: u64,
    pub(super) offset: u64,
    pub(super) size: u16,
}

/// How many live records of each kind.
#[derive(Clone, Copy, Default)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct LiveCounts {
    pub(super) waiting: u32,
    pub(super) dead: u32,
}

/// The next stage of a compaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(super) enum CompactionStage {
    /// No compaction is under way.
    Idle,
    /// Dead jobs from before the cursor.
    Dead,
    /// Waiting and dead jobs from the cursor on.
    Backlog,
    /// All dead ones once more, to wait again.
    Retried,
    /// Records that were appended since.
    Tail,
}

impl LiveCounts {
    /// Counts one that was met.
    pub(super) fn sub_one(&mut self, dead: bool) {
        let count = if dead { &mut self.dead } else { &mut self.waiting };
        *count = count.wrapping_sub(1);
    }
}

impl Compaction {
    /// None; all zeros.
    pub(super) const NONE: Self = Self {
        stage: CompactionStage::Idle,
        purpose: Purpose::Shrink,
        affected_count: 0,
        from: 0,
        to: 0,
        start: 0,
        cursor: 0,
        tombstones: 0,
        moved: Vec::new(),
        live_bytes: 0,
        live_before: 0,
        expected: LiveCounts { waiting: 0, dead: 0 },
        rebases: false,
        rebase: Rebase::NONE,
        clock: None,
        scheduled: ScheduledTotals { count: 0, bytes: 0 },
        scheduled_before: ScheduledTotals { count: 0, bytes: 0 },
        version: 0,
        old_results: 0,
        left_results: 0,
        torn_tail: false,
    };

    /// Returns the epoch that the new file begins, if it begins one.
    pub(super) fn next_epoch(&self) -> Option<&Rebase> {
        self.rebases.then_some(&self.rebase)
    }

    pub(super) fn is_active(&self) -> bool {
        self.stage != CompactionStage::Idle
    }

    pub(super) fn stop(&mut self) {
        self.stage = CompactionStage::Idle;
    }
}
