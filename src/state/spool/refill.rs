//! From the journal into the window: the next live records in the order of the file.

use super::location::{attempts_of, due_of};
use super::{Spool, SpoolRules};
use crate::limits::{READ_BYTES, RETRY_DELAY_MAX, WORKERS_MAX};
use crate::proto::attributes::{cut_off_of, given_back_of, handler_of};
use crate::proto::journal::{ParseResult, Record, RecordFlags, RecordKind, parse_record, skip_damage};
use crate::state::backoff::delay;
use crate::state::disk::{Disk, DiskResult, SpoolFile};
use crate::state::window::{JobState, Slot};
use crate::util::time::{Duration, Instant};

impl Spool {
    /// Fills the window from the journal. `scratch` is memory to read into,
    /// at least one of the longest records.
    ///
    /// # Errors
    /// The journal cannot be read; the jobs there stay there.
    pub fn refill(
        &mut self,
        disk: &mut impl Disk,
        scratch: &mut [u8],
        rules: &SpoolRules,
        now: Instant,
    ) -> DiskResult {
        // The live records before a compaction's copying point are in two files. The window
        // waits until there is one again.
        if !self.wants_refill() {
            return Ok(());
        }
        while self.journal.cursor < self.journal.end && !self.window.is_full() {
            let filled = self.read_ahead(disk, scratch, self.journal.end)?;
            let taken = self.take(filled, |spool, record, offset| spool.enter(record, offset, rules, now));
            if taken == 0 {
                // Half a record at the end: damage that appeared while the service runs.
                self.journal.cursor = self.journal.end;
                self.corruption.seen = true;
            }
        }
        Ok(())
    }

    /// Returns true if [`Spool::refill`] has something to do: the next jobs are in the journal
    /// only, and the window has too few to keep all workers busy. So one read serves many
    /// jobs.
    #[must_use]
    pub fn wants_refill(&self) -> bool {
        let waits = |state: &JobState| *state == JobState::Waiting;
        self.journal.cursor < self.journal.end
            && !self.window.is_full()
            && !self.compaction.is_active()
            && (self.window.count(waits) as usize) < WORKERS_MAX
    }

    /// Reads what stands at the cursor, up to `limit`.
    pub(super) fn read_ahead<'b>(
        &self,
        disk: &mut impl Disk,
        scratch: &'b mut [u8],
        limit: u64,
    ) -> DiskResult<&'b [u8]> {
        let left = usize::try_from(limit.saturating_sub(self.journal.cursor)).unwrap_or(usize::MAX);
        let wanted = scratch.len().min(left).min(READ_BYTES);
        let Some(buffer) = scratch.get_mut(..wanted) else { return Ok(&[]) };
        let count = disk.read(SpoolFile::Journal, self.journal.cursor, buffer)?;
        Ok(buffer.get(..count).unwrap_or(&[]))
    }

    /// Hands the live records in `bytes`, which stand at the cursor, to `enter` until
    /// the window is full, and moves the cursor. Returns the bytes passed.
    pub(super) fn take(&mut self, bytes: &[u8], mut enter: impl FnMut(&mut Self, &Record<'_>, u64)) -> usize {
        let mut at = 0usize;
        while !self.window.is_full() {
            if let Some(range) =
                self.corruption.skipped.iter().find(|range| range.contains(&self.journal.cursor))
            {
                let passed = range.end.saturating_sub(self.journal.cursor);
                self.journal.cursor = range.end;
                at = at.saturating_add(usize::try_from(passed).unwrap_or(usize::MAX));
                continue;
            }
            let rest = bytes.get(at..).unwrap_or(&[]);
            let last = self.journal.cursor.saturating_add(rest.len() as u64) >= self.journal.end;
            let size = match parse_record(rest) {
                ParseResult::Record(record, size) => {
                    let offset = self.journal.cursor;
                    if self.is_waiting(&record, offset) {
                        enter(self, &record, offset);
                    }
                    size
                }
                // Damage that appeared while the service runs, because recovery removes what it
                // finds. The next record follows; a compaction keeps the bytes.
                ParseResult::Truncated(_) if !last || rest.is_empty() => break,
                ParseResult::Bad | ParseResult::Truncated(_) => {
                    self.corruption.seen = true;
                    skip_damage(rest, last)
                }
            };
            at = at.saturating_add(size);
            self.journal.cursor = self.journal.cursor.saturating_add(size as u64);
        }
        at
    }

    /// Puts a live record into the window.
    pub(super) fn enter(&mut self, record: &Record<'_>, offset: u64, rules: &SpoolRules, now: Instant) {
        let mut slot = slot_of(record, offset);
        if record.flags.contains(RecordFlags::DELAYED) {
            let delay = delay(rules.retry_delay, u32::from(slot.attempt), RETRY_DELAY_MAX);
            slot.state = JobState::Delayed(now + delay);
        }
        self.window.push(slot);
    }

    /// Returns true if the record at `offset` is the live record of a job that can be started.
    pub(super) fn is_waiting(&self, record: &Record<'_>, offset: u64) -> bool {
        record.kind == RecordKind::Add && due_of(record).is_none() && !self.is_deleted(record, offset)
    }

    /// Returns true if the live record at `offset` no longer counts.
    pub(super) fn is_deleted(&self, record: &Record<'_>, offset: u64) -> bool {
        let dropped = record.kind == RecordKind::Dead && offset < self.journal.dead_from;
        let released = due_of(record).is_some_and(|due| self.schedule.is_released(due, record.id));
        dropped || released || self.tombstones.iter().any(|tombstone| tombstone.hides(record, offset))
    }
}

/// Returns the slot of a live record that waits.
fn slot_of(record: &Record<'_>, offset: u64) -> Slot {
    let size = u16::try_from(record.size()).unwrap_or(u16::MAX);
    Slot {
        id: record.id,
        offset,
        size,
        attempt: attempts_of(record),
        handler: handler_of(record.attributes),
        given_back: given_back_of(record.attributes),
        cut_off: cut_off_of(record.attributes),
        took: Duration::ZERO,
        state: JobState::Waiting,
    }
}
