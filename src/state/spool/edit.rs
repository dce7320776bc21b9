//! Cancelling, retrying and forgetting single jobs. All dead jobs at once are edited by a
//! compaction: `compact.rs`.
//!
//! Each edit appends one record, and counts once that is committed. A job in the window
//! leaves it. The live record of another job is remembered as deleted until the next
//! compaction leaves it out.

use super::location::{RecordLocation, Tombstone};
use super::{CANCELLED_STATUS, EndKind, JobEnd, Spool};
use crate::proto::journal::{RECORD_MAX_BYTES, Record, RecordFlags, RecordKind};
use crate::state::disk::{Disk, DiskResult};
use crate::state::window::JobState;
use crate::util::time::{Duration, Instant};

/// The state of a job that [`Spool::cancel`] found in the window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cancelled {
    /// The job waited, and has left the window.
    Waiting,
    /// The handler of the job runs, and must be ended.
    Running,
    /// The job has ended; only its handler or its record is left.
    AlreadyEnded,
}

impl Spool {
    /// Cancels job `id` if it is in the window. Its pending record must
    /// be written first.
    ///
    /// # Errors
    /// The disk refused it; nothing changed.
    pub fn cancel(&mut self, disk: &mut impl Disk, now: Instant, id: u64) -> DiskResult<Option<Cancelled>> {
        let Some(slot) = self.window.get(id).copied() else { return Ok(None) };
        let found = match slot.state {
            JobState::Ended(_) | JobState::Cancelled => return Ok(Some(Cancelled::AlreadyEnded)),
            JobState::Running => Cancelled::Running,
            JobState::Waiting | JobState::Delayed(_) | JobState::Starting => Cancelled::Waiting,
        };
        let end = JobEnd { kind: EndKind::Cancelled, exit: CANCELLED_STATUS, took: slot.took };
        self.append_tombstone(disk, now, slot.location(), RecordFlags::empty(), Some(end))?;
        match self.window.get_mut(id) {
            Some(slot) if found == Cancelled::Running => slot.state = JobState::Cancelled,
            _ => drop(self.window.remove(id)),
        }
        self.sub_waiting(slot.size);
        Ok(Some(found))
    }

    /// Returns true if no more jobs beyond the window can be edited until a compaction.
    #[must_use]
    pub fn tombstones_full(&self) -> bool {
        self.tombstones.is_full()
    }

    /// Cancels a waiting job, or forgets a dead one, beyond the window. There
    /// must be room: [`Spool::tombstones_full`].
    ///
    /// # Errors
    /// The disk refused it; nothing changed.
    pub fn discard_record(
        &mut self,
        disk: &mut impl Disk,
        now: Instant,
        location: RecordLocation,
    ) -> DiskResult {
        let end = JobEnd { kind: EndKind::Cancelled, exit: CANCELLED_STATUS, took: Duration::ZERO };
        let end = Some(end).filter(|_| !location.dead);
        let until = self.append_tombstone(disk, now, location, RecordFlags::empty(), end)?;
        let _ = self.tombstones.push(Tombstone::new(location.id, location.dead, until));
        self.forget_expected(location);
        if location.due.is_some() {
            self.totals.scheduled.sub(usize::from(location.size));
            self.schedule.remove(location.id);
        }
        if location.dead {
            self.sub_dead(location.size);
        } else {
            self.sub_waiting(location.size);
        }
        Ok(())
    }

    /// Has a dead job wait again, after the others. There must be room:
    /// [`Spool::tombstones_full`].
    ///
    /// # Errors
    /// The disk refused it; nothing changed.
    pub fn retry(&mut self, disk: &mut impl Disk, now: Instant, location: RecordLocation) -> DiskResult {
        self.write_buffer(disk, now)?;
        let mut buffer = [0; RECORD_MAX_BYTES];
        let (attributes, text) = super::parts_or_placeholder(disk, location, &mut buffer)?;
        let until = self.journal.end;
        let record = Record {
            flags: RecordFlags::DEAD,
            attributes,
            body: text,
            ..Record::new(RecordKind::Add, location.id, location.attempt)
        };
        self.append_record(disk, now, &record)?;
        self.write_buffer(disk, now)?;
        let _ = self.tombstones.push(Tombstone::new(location.id, true, until));
        self.forget_expected(location);
        self.sub_dead(location.size);
        self.add_waiting(&record);
        Ok(())
    }

    /// Appends the record that deletes a live record, and the end of its job if it ends one. Returns
    /// the offset of the former.
    pub(super) fn append_tombstone(
        &mut self,
        disk: &mut impl Disk,
        now: Instant,
        location: RecordLocation,
        mut flags: RecordFlags,
        end: Option<JobEnd>,
    ) -> DiskResult<u64> {
        self.write_buffer(disk, now)?;
        let offset = self.journal.end;
        let body = location.size.to_le_bytes();
        flags.set(RecordFlags::DEAD, location.dead);
        flags.set(RecordFlags::DELAYED, location.due.is_some());
        let record = Record {
            flags,
            body: &body,
            ..Record::new(RecordKind::Tombstone, location.id, location.attempt)
        };
        loop {
            let counted = self.result_counts();
            self.append_record(disk, now, &record)?;
            if let Some(end) = end {
                self.push_result(disk, location, location.attempt, end);
            }
            if self.write_with_results(disk, now, counted)? {
                return Ok(offset);
            }
        }
    }

    /// Counts one waiting job less.
    pub(super) fn sub_waiting(&mut self, size: u16) {
        self.totals.waiting = self.totals.waiting.saturating_sub(1);
        self.totals.live_bytes = self.totals.live_bytes.saturating_sub(u64::from(size));
    }

    /// Counts one dead job less.
    pub(super) fn sub_dead(&mut self, size: u16) {
        self.totals.dead = self.totals.dead.saturating_sub(1);
        self.totals.live_bytes = self.totals.live_bytes.saturating_sub(u64::from(size));
    }
}
