//! Where the live record of a job is, and what identifies it among all records that ever
//! were.

use crate::proto::journal::{Record, RecordFlags, RecordKind};
use crate::state::window::Slot;

/// The id and the attempts of the job of a live record, and whether the job is dead.
pub(super) type LiveRecordKey = (u64, u16, bool);

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
}

impl Slot {
    /// Returns where the live record of this job is.
    #[must_use]
    pub fn location(&self) -> RecordLocation {
        let Slot { id, attempt, offset, size, .. } = *self;
        RecordLocation { id, attempt, offset, size, dead: false }
    }
}

/// Returns the key of a live record.
pub(super) fn key_of(record: &Record<'_>) -> LiveRecordKey {
    (record.id, attempts_of(record), record.kind == RecordKind::Dead)
}

/// Returns the attempts that a live record counts.
pub(super) fn attempts_of(record: &Record<'_>) -> u16 {
    if !record.flags.contains(RecordFlags::CLAIMED) { record.attempt } else { 0 }
}

/// Returns the key of the live record at `location`.
pub(super) fn key_at(location: RecordLocation) -> LiveRecordKey {
    (location.id, location.attempt, location.dead)
}
