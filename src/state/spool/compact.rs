//! Writing the journal again, without the records of jobs that have ended.
//!
//! ```text
//! old  |  ended, dead, window   |cursor  backlog, dead  |start   appended since   |
//! new  | base, claims, window, dead |  backlog, dead    |  the same records       |
//! ```
//!
//! In small steps, because a backlog may be large and nothing in the loop may
//! block for long. The state at the start (the window, the claims, the tombstones)
//! is written first; records that are appended meanwhile are copied after it as they are,
//! so a recovery from the new file passes through the same states. Until it is
//! renamed the old file is the journal, and a crash after any step leaves it
//! or its equal. The window is not refilled meanwhile.
//!
//! Where no new file can be made, a journal without jobs is emptied instead: `reset.rs`.
//!
//! A request for all dead jobs is done on the way: a new file that leaves them out, or
//! has them wait after the backlog, takes effect as a whole when it is renamed.

use super::Spool;
use super::compaction::{Compaction, CompactionStage, LiveCounts, Moved, Purpose};
use super::location::{RecordLocation, attempts_of, due_of};
use super::schedule::{Rebase, ScheduledTotals, copied_attributes, without_due};
use crate::limits::RESULTS_KEPT;
use crate::proto::journal::{
    CLOCK_BODY_BYTES, ClaimProgress, FILE_HEADER_BYTES, ParseResult, RECORD_MAX_BYTES, Record, RecordFlags,
    RecordKind, VERSION, header_of_version, parse_record, skip_damage,
};
use crate::state::disk::{Disk, DiskResult, MOVED, NO_SPACE, SpoolFile};
use crate::state::spool::JOURNAL_BUFFER_BYTES;
use crate::state::window::{AttemptEnd, JobState, Slot};
use crate::util::time::Instant;

/// Maximum number of live bytes that one step copies while the disk is full. More would delay
/// everything else.
pub(crate) const COMPACT_AT_ONCE_BYTES: u64 = 1024 * 1024;
/// Bytes that a new journal takes beside the live records of jobs: its header, the numbers
/// and the claims.
const COMPACT_HEAD_BYTES: u64 = 4 * 1024;
/// Bytes that one step of a compaction copies.
const COMPACT_STEP_BYTES: u64 = 128 * 1024;

impl Spool {
    /// Returns true if a compaction is under way.
    #[must_use]
    pub fn is_compacting(&self) -> bool {
        self.compaction.is_active()
    }

    /// Begins one, or does its next step. Bounded work.
    ///
    /// # Errors
    /// It is given up; the journal is as it was.
    pub fn compact_step(&mut self, disk: &mut impl Disk, now: Instant) -> DiskResult {
        if !self.compaction.is_active() {
            return self.compact_for(Purpose::Shrink, disk, now);
        }
        let result = self.continue_compaction(disk);
        self.abandon_or_reset(disk, result, now)
    }

    /// Begins one for a purpose; [`Spool::compact_step`] continues it. No
    /// other one may be under way.
    ///
    /// # Errors
    /// It is given up; the journal is as it was.
    pub fn compact_for(&mut self, purpose: Purpose, disk: &mut impl Disk, now: Instant) -> DiskResult {
        self.compaction.purpose = purpose;
        self.compaction.affected_count = 0;
        // Nothing can be committed until a journal whose sync failed is replaced, and a
        // compaction that forgets the dead copies little.
        let soon = self.journal.sync_failed
            || purpose == Purpose::Forget
            || self.totals.live_bytes <= COMPACT_AT_ONCE_BYTES;
        let at_once = self.space.low_space && soon;
        let result = if at_once { self.compact_at_once(disk, now) } else { self.start_compaction(disk, now) };
        self.abandon_or_reset(disk, result, now)
    }

    /// Gives up a compaction that failed. Where it found no room, the journal is emptied in
    /// place, if it holds no job.
    fn abandon_or_reset(&mut self, disk: &mut impl Disk, result: DiskResult, now: Instant) -> DiskResult {
        match self.abandon_on_error(disk, result) {
            Err(error) if error.is_no_space() && self.reset_in_place(disk, now) == Ok(true) => Ok(()),
            result => result,
        }
    }

    /// Compacts on a full disk. The new file takes the space that the old one reserves, and
    /// all is done in one step, because meanwhile a start or an end may find no room.
    fn compact_at_once(&mut self, disk: &mut impl Disk, now: Instant) -> DiskResult {
        self.write_pending(disk, now)?;
        let takes = self.totals.live_bytes.saturating_add(COMPACT_HEAD_BYTES);
        let ahead = self.space.reserved_until.saturating_sub(self.journal.end);
        let whole = ahead >= self.reserve_bytes() && self.compaction.purpose != Purpose::Forget;
        if whole && disk.free().saturating_add(ahead) < takes {
            // Space that is given back in vain may be taken by other programs.
            return Err(NO_SPACE);
        }
        disk.create_next()?;
        self.trim_reserved(disk)?;
        let preallocated = disk.preallocate(SpoolFile::Next, 0, takes);
        if self.compaction.purpose != Purpose::Forget {
            // Without the dead the new file is smaller, and its size is not known.
            preallocated?;
        }
        self.write_state(disk, now)?;
        while self.compaction.is_active() {
            self.continue_compaction(disk)?;
        }
        Ok(())
    }

    /// Gives up the compaction under way, if there is one. The journal is as it was.
    pub fn abandon_compaction(&mut self, disk: &mut impl Disk) {
        if self.compaction.is_active() {
            let _ = self.abandon_on_error(disk, Err(MOVED));
        }
    }

    fn abandon_on_error(&mut self, disk: &mut impl Disk, result: DiskResult) -> DiskResult {
        if result.is_err() {
            self.compaction.stop();
            self.compaction.purpose = Purpose::Shrink;
            self.buffer.clear();
            disk.abandon_next();
            let _ = self.reserve_space(disk, 0, 0);
        }
        result
    }

    /// Returns the purpose of the compaction under way, or of the last one that succeeded.
    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.compaction.purpose
    }

    /// Returns how many dead jobs the last compaction retried or forgot.
    #[must_use]
    pub fn affected_count(&self) -> u32 {
        self.compaction.affected_count
    }

    /// Performs a whole compaction.
    ///
    /// # Errors
    /// The journal is as it was.
    pub fn compact_now(&mut self, disk: &mut impl Disk, now: Instant) -> DiskResult {
        self.compaction.stop();
        loop {
            self.compact_step(disk, now)?;
            if !self.compaction.is_active() {
                return Ok(());
            }
        }
    }

    /// Writes the state: everything but the dead and the backlog.
    fn start_compaction(&mut self, disk: &mut impl Disk, now: Instant) -> DiskResult {
        self.write_pending(disk, now)?;
        disk.create_next()?;
        self.write_state(disk, now)
    }

    /// Writes the pending records of the window. Where the old file has no room for them, they
    /// follow in the new one.
    fn write_pending(&mut self, disk: &mut impl Disk, now: Instant) -> DiskResult {
        match self.write_transitions(disk, now) {
            Err(error) if !error.is_no_space() => Err(error),
            _ => Ok(()),
        }
    }

    fn write_state(&mut self, disk: &mut impl Disk, now: Instant) -> DiskResult {
        let rebase = self.next_epoch(now);
        let clock = self.clock_after(rebase.as_ref(), now);
        let version = if self.journal.upgrade { VERSION } else { self.journal.version };
        disk.write(SpoolFile::Next, 0, header_of_version(version))?;
        let compaction = &mut self.compaction;
        compaction.version = version;
        // The space of ends is for jobs while the disk is full.
        let kept = if self.space.low_space { 0 } else { u32::try_from(RESULTS_KEPT).unwrap_or(u32::MAX) };
        compaction.old_results = self.totals.results.saturating_sub(kept);
        compaction.left_results = if kept == 0 { u32::MAX } else { compaction.old_results };
        compaction.result_bytes = 0;
        compaction.result_bytes_before = self.totals.result_bytes;
        compaction.stage = CompactionStage::Dead;
        compaction.from = self.journal.first;
        compaction.to = FILE_HEADER_BYTES as u64;
        compaction.start = self.journal.end;
        compaction.tombstones = self.tombstones.len();
        compaction.clock = clock;
        (compaction.rebases, compaction.rebase) = (rebase.is_some(), rebase.unwrap_or(Rebase::NONE));
        (compaction.scheduled, compaction.scheduled_before) =
            (ScheduledTotals::default(), self.totals.scheduled);
        compaction.moved.clear();
        compaction.live_bytes = 0;
        compaction.live_before = self.totals.live_bytes;
        let in_window = self.window.count(|state| *state != JobState::Cancelled);
        compaction.torn_tail = false;
        compaction.expected =
            LiveCounts { waiting: self.totals.waiting.wrapping_sub(in_window), dead: self.totals.dead };
        // It fits, because a claim takes less than a hundred bytes.
        self.push_state(clock);
        for index in 0..self.window.slots().len() {
            let slot = self.window.slots().get(index).copied();
            if let Some(slot) = slot.filter(|slot| slot.state != JobState::Cancelled) {
                self.emit_window(disk, &slot)?;
            }
        }
        self.flush_next(disk)
    }

    /// Puts what the journal holds beside jobs into the buffer, which has enough room. Returns
    /// true if it had.
    pub(super) fn push_state(&mut self, clock: Option<[u8; CLOCK_BODY_BYTES]>) -> bool {
        let next_claim = self.claims.next_seq().to_le_bytes();
        let base = Record { body: &next_claim, ..Record::new(RecordKind::Base, self.totals.next_id, 0) };
        let mut whole = base.emit(&mut self.buffer).is_ok();
        if self.journal.held {
            whole &= Record::new(RecordKind::Hold, 0, 1).emit(&mut self.buffer).is_ok();
        }
        if let Some(body) = &clock {
            whole &= Record { body, ..Record::new(RecordKind::Clock, 0, 0) }.emit(&mut self.buffer).is_ok();
        }
        for index in 0..self.claims.len() {
            if let Some((seq, offset)) = self.claims.offset_at(index) {
                let body = &ClaimProgress { from: 0, to: offset, batch_bytes: 0 }.emit();
                let flags = RecordFlags::ABSOLUTE;
                let claim = Record { flags, body, ..Record::new(RecordKind::Claim, seq, 0) };
                whole &= claim.emit(&mut self.buffer).is_ok();
            }
        }
        whole
    }

    /// Writes the live record of a job in the window.
    fn emit_window(&mut self, disk: &mut impl Disk, slot: &Slot) -> DiskResult {
        let mut buffer = [0; RECORD_MAX_BYTES];
        let (attributes, text) = super::parts_or_placeholder(disk, slot.location(), &mut buffer)?;
        let attributes = &without_due(&self.attributes_of(slot, attributes));
        // The attempt of a job whose start has no record yet does not count.
        let uncounted = u16::from(slot.state == JobState::Starting);
        let attempt = slot.attempt.saturating_sub(uncounted);
        let flags = match slot.state {
            JobState::Delayed(_) | JobState::Ended(AttemptEnd::Fail(_)) => RecordFlags::DELAYED,
            _ => RecordFlags::empty(),
        };
        let record =
            Record { flags, attributes, body: text, ..Record::new(RecordKind::Add, slot.id, attempt) };
        self.compaction.live_bytes = self.compaction.live_bytes.saturating_add(record.size() as u64);
        self.emit(disk, &record)?;
        let behind = self.compaction.to.saturating_add(self.buffer.len() as u64);
        let offset = behind.saturating_sub(record.size() as u64);
        let size = u16::try_from(record.size()).unwrap_or(u16::MAX);
        let _ = self.compaction.moved.push(Moved { id: slot.id, offset, size });
        if slot.state == JobState::Running {
            // Without its start, a death of the service would not count as one that cut it off.
            return self.emit(disk, &Record::new(RecordKind::Start, slot.id, attempt));
        }
        Ok(())
    }

    /// Puts a record into the buffer for the new file. The buffer is empty
    /// between two steps, so the two files never share it.
    fn emit(&mut self, disk: &mut impl Disk, record: &Record<'_>) -> DiskResult {
        if record.emit(&mut self.buffer).is_err() {
            self.flush_next(disk)?;
            let _ = record.emit(&mut self.buffer);
        }
        Ok(())
    }

    fn flush_next(&mut self, disk: &mut impl Disk) -> DiskResult {
        let length = self.buffer.len() as u64;
        let result = disk.write(SpoolFile::Next, self.compaction.to, &self.buffer);
        self.buffer.clear();
        result?;
        self.compaction.to = self.compaction.to.saturating_add(length);
        self.totals.io.bytes = self.totals.io.bytes.saturating_add(length);
        Ok(())
    }

    /// Performs the next step of a compaction that has begun.
    fn continue_compaction(&mut self, disk: &mut impl Disk) -> DiskResult {
        debug_assert!(self.buffer.is_empty());
        let stop = self.compaction.from.saturating_add(COMPACT_STEP_BYTES);
        loop {
            let end = match self.compaction.stage {
                CompactionStage::Idle => return Ok(()),
                CompactionStage::Dead => self.journal.cursor,
                CompactionStage::Backlog | CompactionStage::Retried => self.compaction.start,
                CompactionStage::Tail => self.journal.end,
            };
            if self.compaction.from < end {
                if self.compaction.from >= stop {
                    return self.flush_next(disk);
                }
                self.copy_one(disk, end)?;
                continue;
            }
            match self.compaction.stage {
                CompactionStage::Idle => return Ok(()),
                CompactionStage::Dead => {
                    self.compaction.stage = CompactionStage::Backlog;
                    self.compaction.cursor = self.compaction.to.saturating_add(self.buffer.len() as u64);
                }
                CompactionStage::Backlog if self.compaction.purpose == Purpose::Retry => {
                    self.compaction.stage = CompactionStage::Retried;
                    self.compaction.from = self.journal.first;
                    // The end of a step is counted from where the step began.
                    return self.flush_next(disk);
                }
                CompactionStage::Backlog | CompactionStage::Retried => {
                    self.compaction.stage = CompactionStage::Tail
                }
                CompactionStage::Tail => {
                    self.flush_next(disk)?;
                    return self.publish(disk);
                }
            }
        }
    }

    /// Copies what stands at the reading point, if it is to be copied.
    fn copy_one(&mut self, disk: &mut impl Disk, end: u64) -> DiskResult {
        let from = self.compaction.from;
        if let Some(range) = self.corruption.skipped.iter().find(|range| range.contains(&from)) {
            self.compaction.from = range.end;
            return Ok(());
        }
        let mut buffer = [0; RECORD_MAX_BYTES];
        let left = usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX);
        let wanted = buffer.get_mut(..left.min(RECORD_MAX_BYTES)).unwrap_or(&mut []);
        let count = disk.read(SpoolFile::Journal, from, wanted)?;
        let bytes = buffer.get(..count).unwrap_or(&[]);
        let ParseResult::Record(record, size) = parse_record(bytes) else {
            return self.pass_damage(disk, end);
        };
        self.compaction.from = from.saturating_add(size as u64);
        if self.compaction.stage == CompactionStage::Tail {
            return self.copy_tail(disk, &record, from);
        }
        if record.kind == RecordKind::Result && self.compaction.stage != CompactionStage::Retried {
            return self.copy_result(disk, &record);
        }
        let dead = record.kind == RecordKind::Dead;
        if dead && from < self.journal.dead_from {
            return Ok(());
        }
        let backlog = self.compaction.stage == CompactionStage::Backlog;
        let due = due_of(&record);
        let scheduled = due.is_some_and(|due| !self.schedule.is_released(due, record.id));
        let scheduled = scheduled && self.compaction.stage != CompactionStage::Retried;
        let waiting = record.kind == RecordKind::Add && due.is_none() && backlog;
        let tombstone = self.tombstones.iter().position(|tombstone| tombstone.hides(&record, from));
        if !(dead || waiting || scheduled)
            || tombstone.is_some_and(|index| index < self.compaction.tombstones)
        {
            return Ok(());
        }
        // The dead to be retried are copied when they are met for the second time.
        let again = dead && self.compaction.purpose == Purpose::Retry;
        if tombstone.is_none() && (self.compaction.stage == CompactionStage::Retried || !again) {
            self.compaction.expected.sub_one(dead);
        }
        // The copy is a live record of its own: it belongs to no batch of a claim, and
        // replaces no other record.
        let (flags, attempt) = (record.flags & RecordFlags::DELAYED, attempts_of(&record));
        let copied = copied_attributes(&record, self.compaction.next_epoch());
        let retried = without_due(record.attributes);
        let live_record = match self.compaction.purpose {
            Purpose::Retry if self.compaction.stage == CompactionStage::Retried => {
                let (attributes, body) = (&retried, record.text());
                Record { attributes, body, ..Record::new(RecordKind::Add, record.id, attempt) }
            }
            Purpose::Retry if dead => return Ok(()),
            Purpose::Forget if dead => {
                self.compaction.affected_count = self.compaction.affected_count.saturating_add(1);
                return Ok(());
            }
            _ => Record { flags, attempt, attributes: &copied, ..record },
        };
        if self.compaction.stage == CompactionStage::Retried {
            self.compaction.affected_count = self.compaction.affected_count.saturating_add(1);
        }
        self.compaction.live_bytes = self.compaction.live_bytes.saturating_add(live_record.size() as u64);
        if scheduled {
            self.compaction.scheduled.add(live_record.size());
        }
        self.emit(disk, &live_record)
    }

    /// Copies a record that was appended since the compaction began. Notes where a record that
    /// deletes others is in the new file.
    fn copy_tail(&mut self, disk: &mut impl Disk, record: &Record<'_>, from: u64) -> DiskResult {
        self.emit(disk, record)?;
        let end = self.compaction.to.saturating_add(self.buffer.len() as u64);
        for tombstone in self.tombstones.iter_mut().filter(|tombstone| tombstone.until == from) {
            tombstone.next_until = end.saturating_sub(record.size() as u64);
        }
        Ok(())
    }

    /// Copies the end of a job, unless it is older than those that are kept.
    fn copy_result(&mut self, disk: &mut impl Disk, record: &Record<'_>) -> DiskResult {
        if self.compaction.left_results > 0 {
            self.compaction.left_results = self.compaction.left_results.saturating_sub(1);
            return Ok(());
        }
        self.compaction.result_bytes = self.compaction.result_bytes.saturating_add(record.size() as u64);
        self.emit(disk, record)
    }

    /// Puts damage that appeared while the service runs into quarantine, once, and leaves it
    /// out. Damage that a recovery found is in `skipped`. The pieces are large, because each
    /// is a sync, so the buffer is lent.
    fn pass_damage(&mut self, disk: &mut impl Disk, end: u64) -> DiskResult {
        self.flush_next(disk)?;
        let from = self.compaction.from;
        let left = usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX);
        let wanted = left.min(JOURNAL_BUFFER_BYTES);
        let _ = self.buffer.resize(wanted, 0);
        let count = disk.read(SpoolFile::Journal, from, &mut self.buffer)?;
        let bytes = self.buffer.get(..count).unwrap_or(&[]);
        // Fewer bytes than wanted, or none: another program made the file shorter.
        let passed = skip_damage(bytes, count < wanted || count == left);
        let behind = if bytes.is_empty() { end } else { from.saturating_add(passed as u64) };
        let known =
            usize::try_from(self.corruption.quarantined_until.saturating_sub(from)).unwrap_or(usize::MAX);
        if let Some(bytes) = bytes.get(known..passed).filter(|bytes| !bytes.is_empty()) {
            disk.quarantine(bytes)?;
            self.corruption.found.bytes = self.corruption.found.bytes.saturating_add(bytes.len() as u64);
        }
        self.buffer.clear();
        self.corruption.quarantined_until = self.corruption.quarantined_until.max(behind);
        self.compaction.torn_tail |= self.compaction.stage == CompactionStage::Tail;
        self.compaction.from = behind;
        Ok(())
    }

    /// Records that the live record at `location` is deleted. A compaction that has not
    /// reached it no longer expects to find it.
    pub(super) fn forget_expected(&mut self, location: RecordLocation) {
        let Compaction { from, start, .. } = self.compaction;
        let met = self.compaction.stage == CompactionStage::Retried && !location.dead;
        if self.compaction.is_active() && !met && (from..start).contains(&location.offset) {
            self.compaction.expected.sub_one(location.dead);
        }
    }

    /// Counts the live records that were not met as lost.
    fn sub_missing(&mut self) {
        let LiveCounts { waiting, dead } = self.compaction.expected;
        let damaged = self.corruption.seen
            || self.corruption.quarantined_until > 0
            || !self.corruption.skipped.is_empty();
        debug_assert!(damaged || (waiting, dead) == (0, 0), "{waiting} and {dead} are missing");
        for (count, missing) in [(&mut self.totals.waiting, waiting), (&mut self.totals.dead, dead)] {
            *count = count.saturating_add_signed(missing.cast_signed().saturating_neg());
            let lost = u32::try_from(missing.cast_signed()).unwrap_or(0);
            self.corruption.found.jobs = self.corruption.found.jobs.saturating_add(lost);
        }
    }

    /// Makes the new file the journal.
    fn publish(&mut self, disk: &mut impl Disk) -> DiskResult {
        self.totals.io.syncs = self.totals.io.syncs.saturating_add(1);
        if self.compaction.purpose == Purpose::Forget {
            // The room that was kept for the dead, too, is free again.
            disk.truncate(SpoolFile::Next, self.compaction.to)?;
        }
        disk.sync(SpoolFile::Next)?;
        disk.publish_next()?;
        self.sub_missing();
        let compaction = &mut self.compaction;
        compaction.stop();
        for slot in self.window.slots_mut() {
            if let Some(moved) = compaction.moved.iter().find(|moved| moved.id == slot.id) {
                (slot.offset, slot.size) = (moved.offset, moved.size);
            }
        }
        self.journal.first = FILE_HEADER_BYTES as u64;
        (self.journal.version, self.journal.upgrade) = (compaction.version, false);
        self.journal.cursor = compaction.cursor;
        self.journal.dead_from = self.journal.first;
        self.journal.end = compaction.to;
        let since = self.totals.live_bytes.wrapping_sub(compaction.live_before);
        self.totals.live_bytes = compaction.live_bytes.wrapping_add(since);
        let since = self.totals.result_bytes.saturating_sub(compaction.result_bytes_before);
        self.totals.result_bytes = compaction.result_bytes.saturating_add(since);
        match compaction.purpose {
            Purpose::Shrink => {}
            Purpose::Retry => {
                self.totals.dead = self.totals.dead.saturating_sub(compaction.affected_count);
                self.totals.waiting = self.totals.waiting.saturating_add(compaction.affected_count);
            }
            Purpose::Forget => self.totals.dead = self.totals.dead.saturating_sub(compaction.affected_count),
        }
        (self.space.reserved_until, self.space.low_space) = (0, false);
        self.journal.generation = self.journal.generation.wrapping_add(1);
        self.totals.results = self.totals.results.saturating_sub(compaction.old_results);
        let (rebase, gone) = (compaction.next_epoch().copied(), compaction.tombstones);
        self.journal.clock = compaction.clock;
        self.totals.scheduled =
            compaction.scheduled.plus_change(compaction.scheduled_before, self.totals.scheduled);
        let mut index = 0usize;
        self.tombstones.retain(|_| {
            index = index.saturating_add(1);
            index > gone
        });
        for tombstone in &mut self.tombstones {
            // One whose record is lost by damage holds for all that is there.
            let lost = tombstone.next_until == 0;
            tombstone.until = if lost { self.journal.end } else { tombstone.next_until };
        }
        self.corruption.skipped.clear();
        (self.corruption.seen, self.corruption.quarantined_until) = (compaction.torn_tail, 0);
        self.compacted(rebase);
        self.journal.unsynced_since = None;
        self.journal.sync_failed = false;
        // Until this is done the old name may come back after a power cut. After a failure the
        // next commit writes the journal again.
        let _ = self.sync_name(disk);
        if self.totals.waiting > 0 {
            let _ = self.reserve_space(disk, 0, 0);
        }
        Ok(())
    }
}
