//! The oldest dead job, which is dropped when there are too many. Dead jobs are dropped in
//! the order of the journal, so one offset stands for all that were, however many.

use super::location::RecordLocation;
use super::scan::JournalScan;
use super::{Spool, SpoolRules};
use crate::proto::journal::{RecordFlags, VERSION};
use crate::state::disk::{Disk, DiskResult};
use crate::util::time::Instant;

impl Spool {
    /// Returns true if there are more dead jobs than the rules allow, and the oldest one can
    /// be dropped now. A compaction counts the dead jobs that it meets, so none is dropped
    /// meanwhile.
    #[must_use]
    pub fn has_too_many_dead(&self, rules: &SpoolRules) -> bool {
        self.totals.dead > rules.dead_max && !self.compaction.is_active() && !self.corruption.seen
    }

    /// Continues to look for the oldest dead job, as far as one turn's share. Returns nothing
    /// if it was not met yet.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn oldest_dead(
        &mut self,
        disk: &mut impl Disk,
        scratch: &mut [u8],
        now: Instant,
    ) -> DiskResult<Option<RecordLocation>> {
        self.upgrade(disk, now);
        if self.journal.version < VERSION || self.compaction.is_active() {
            return Ok(None);
        }
        let found = self.next_dead(disk, scratch)?;
        // All were met, and there are fewer than were counted: damage that nothing has met.
        self.corruption.seen |= found.is_none() && self.journal.dead_from >= self.journal.end;
        Ok(found)
    }

    /// Moves the offset of the oldest dead job to the next one, as far as one step goes.
    pub(super) fn next_dead(
        &mut self,
        disk: &mut impl Disk,
        scratch: &mut [u8],
    ) -> DiskResult<Option<RecordLocation>> {
        let mut scan = JournalScan::new(self.journal.dead_from, u64::MAX, self.journal.generation);
        let mut found = None;
        let mut visit = |location: RecordLocation| {
            found = location.dead.then_some(location);
            found.is_none()
        };
        self.scan_step(disk, scratch, &mut scan, &mut visit)?;
        self.journal.dead_from = scan.at();
        Ok(found)
    }

    /// Drops the dead job at `location`, which is the oldest one.
    ///
    /// # Errors
    /// The disk refused it; nothing changed.
    pub fn drop_oldest_dead(
        &mut self,
        disk: &mut impl Disk,
        now: Instant,
        location: RecordLocation,
    ) -> DiskResult {
        self.append_tombstone(disk, now, location, RecordFlags::OLDEST)?;
        self.journal.dead_from = location.offset.saturating_add(u64::from(location.size));
        self.sub_dead(location.size);
        Ok(())
    }

    /// Finds the last dead job that an earlier process dropped as the oldest one, whose record
    /// is before `limit`. All before it were dropped, too.
    pub(super) fn find_dropped(
        &mut self,
        disk: &mut impl Disk,
        scratch: &mut [u8],
        id: u64,
        limit: u64,
    ) -> DiskResult {
        while self.journal.dead_from < limit {
            if let Some(location) = self.next_dead(disk, scratch)? {
                self.journal.dead_from = location.offset.saturating_add(u64::from(location.size));
                if location.id == id {
                    return Ok(());
                }
            }
        }
        // Its record is damaged.
        self.journal.dead_from = self.journal.first;
        self.corruption.seen = true;
        Ok(())
    }
}
