//! A journal without jobs, in the file of the one before, for a folder in which no new file can
//! be made: the disk, the quota or the inodes are used up.
//!
//! ```text
//! header, state, end | records of jobs that have ended       written and synced
//! header, state                                              then cut and synced
//! ```
//!
//! State and end fit into one sector, which a disk writes whole. A recovery cuts the file at the
//! end, so it does not matter how much of the rest a crash has left.

use super::Spool;
use crate::proto::journal::{FILE_HEADER_BYTES, Record, RecordFlags, RecordKind, VERSION, header_of_version};
use crate::state::disk::{Disk, DiskResult, SpoolFile};
use crate::util::time::Instant;

/// Bytes that a disk writes whole.
const SECTOR_BYTES: usize = 512;

impl Spool {
    /// Returns true if the journal holds no job, and nothing else that must be copied.
    fn is_over(&self) -> bool {
        (self.totals.waiting, self.totals.dead) == (0, 0)
            && self.window.slots().is_empty()
            && self.journal.version == VERSION
            && !self.corruption.seen
            && self.corruption.skipped.is_empty()
    }

    /// Writes the state over the beginning of the journal, and cuts the rest. Returns false if
    /// the journal must be copied instead.
    ///
    /// # Errors
    /// The disk refused it. The journal stands for the same as before.
    pub(super) fn reset_in_place(&mut self, disk: &mut impl Disk, now: Instant) -> DiskResult<bool> {
        if !self.is_over() {
            return Ok(false);
        }
        if !self.claims.is_empty() {
            // Claims whose removal is durable need no record.
            let _ = self.sync_names(disk);
        }
        self.buffer.clear();
        let _ = self.buffer.extend_from_slice(header_of_version(self.journal.version));
        let whole = self.push_state(self.journal.clock);
        let length = self.buffer.len();
        let end = Record { flags: RecordFlags::END, ..Record::new(RecordKind::Base, self.totals.next_id, 0) };
        let whole = end.emit(&mut self.buffer).is_ok() && whole;
        if !whole || self.buffer.len() > SECTOR_BYTES || self.buffer.len() as u64 > self.journal.end {
            self.buffer.clear();
            return Ok(false);
        }
        // Until the file is cut nothing that is appended to it counts.
        self.journal.sync_failed = true;
        let written = disk.write(SpoolFile::Journal, 0, &self.buffer);
        self.buffer.clear();
        written?;
        self.journal.unsynced_since.get_or_insert(now);
        self.sync_journal(disk)?;
        disk.truncate(SpoolFile::Journal, length as u64)?;
        self.totals.io.bytes = self.totals.io.bytes.saturating_add(length as u64);
        self.journal.end = length as u64;
        self.journal.first = FILE_HEADER_BYTES as u64;
        (self.journal.cursor, self.journal.dead_from) = (self.journal.end, self.journal.first);
        self.journal.generation = self.journal.generation.wrapping_add(1);
        (self.totals.live_bytes, self.totals.results) = (0, 0);
        (self.space.reserved_until, self.space.low_space) = (0, false);
        self.tombstones.clear();
        self.schedule.released = (Instant::BOOT, 0);
        self.schedule.forget_upcoming();
        // Everything was written again and synced.
        self.journal.sync_failed = false;
        Ok(true)
    }
}
