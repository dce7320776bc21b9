//! Where the live record of a job is, and which live records are deleted.

use crate::proto::attributes::Due;
use crate::proto::journal::{Record, RecordFlags, RecordKind};
use crate::state::window::Slot;
use crate::util::time::Instant;

/// Where a job's live record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordLocation {
    /// The job.
    pub id: u64,
    /// Attempts that were started before this live record was written.
    pub attempt: u16,
    /// Where the record is in the journal.
    pub offset: u64,
    /// Size of the record.
    pub size: u16,
    /// Whether the job is dead; otherwise it waits.
    pub dead: bool,
    /// When the job is due, if it is a delayed job that was not released.
    pub due: Option<Instant>,
}

/// The live records of a job that a later record deletes. Attempts do not tell two live
/// records of a job apart, because they do not grow beyond 16 bits.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Tombstone {
    pub(super) id: u64,
    /// Whether the deleted records are those of a dead job.
    pub(super) dead: bool,
    /// Offset of the record that deletes. Records before it are deleted.
    pub(super) until: u64,
    /// Its offset in the new file of a compaction. 0 if the compaction has not met the record.
    pub(super) next_until: u64,
}

impl Tombstone {
    pub(super) fn new(id: u64, dead: bool, until: u64) -> Self {
        Self { id, dead, until, next_until: 0 }
    }

    /// Returns true if the live record at `offset` is deleted.
    pub(super) fn hides(&self, record: &Record<'_>, offset: u64) -> bool {
        let dead = record.kind == RecordKind::Dead;
        self.id == record.id && self.dead == dead && offset < self.until
    }
}

impl Slot {
    /// Returns where the live record of this job is.
    #[must_use]
    pub fn location(&self) -> RecordLocation {
        let Slot { id, attempt, offset, size, .. } = *self;
        RecordLocation { id, attempt, offset, size, dead: false, due: None }
    }
}

/// Returns the attempts that a live record counts.
pub(super) fn attempts_of(record: &Record<'_>) -> u16 {
    if !record.flags.contains(RecordFlags::CLAIMED) { record.attempt } else { 0 }
}

/// Returns when the job of a live record is due, if that is a delayed job.
pub(super) fn due_of(record: &Record<'_>) -> Option<Instant> {
    let first = !record.flags.intersects(RecordFlags::MOVED | RecordFlags::DEAD);
    let due = if record.kind == RecordKind::Add && first { Due::of(record.attributes) } else { None };
    due.map(|due| Instant::from_ms(due.boot_clock))
}
