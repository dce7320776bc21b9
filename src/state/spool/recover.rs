//! From the journal to the state it stands for, whatever happened before.
//!
//! One pass over the file applies each record; a second reader, the cursor,
//! follows it and keeps the window full. A running service takes live records
//! into its window in the same order, so each job that it started, and whose
//! record the pass meets, is in the window here too: memory does not depend
//! on the backlog.
//!
//! A file may have these defects:
//!
//! | found | meaning | done |
//! | --- | --- | --- |
//! | a record that the end of the file cuts off | a write that a power cut or a full disk stopped | cut |
//! | zeros up to the end | size written before data | cut |
//! | anything else that is not a record | damage | quarantined and skipped |
//! | a claim's batch that is not whole, and its claim is on the disk | as the first | the batch is not applied; the claim is read again |
//! | the same, and the claim is gone | damage | what is good of it is applied |
//!
//! After damage the journal is written again at once.

use super::location::{Tombstone, due_of};
use super::{Corruption, IoStats, JournalState, ReservedSpace, Spool, SpoolRules, Totals};
use crate::limits::RETRY_DELAY_MAX;
use crate::proto::attributes::Due;
use crate::proto::journal::{
    ClaimProgress, DEAD_PREFIX_BYTES, FILE_HEADER_BYTES, FileHeader, HEADER_BYTES, ParseResult,
    RECORD_MAX_BYTES, Record, RecordFlags, RecordKind, VERSION, file_header, header_of_version, parse_record,
    resync, skip_damage,
};
use crate::state::backoff::delay;
use crate::state::disk::{Disk, DiskError, DiskResult, SpoolFile};
use crate::state::window::JobState;
use crate::util::time::Instant;

/// The findings of a recovery, which the service logs.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Recovery {
    /// Bytes of a torn end that were cut off.
    pub torn_bytes: u64,
    /// Bytes of damaged records that were set aside.
    pub damaged_bytes: u64,
    /// Claim batches that are read again from their claims.
    pub reread_batches: u32,
    /// Jobs that were running when the service ended without a stop.
    pub interrupted: u32,
    /// Deletions for which there was no room in memory, which no journal of zigsvc has. The jobs
    /// are there again.
    pub undone_deletions: u32,
}

/// Why a journal cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecoverError {
    /// Another version wrote the journal; nothing was touched.
    OtherVersion,
    /// The disk failed.
    Disk(DiskError),
}

impl From<DiskError> for RecoverError {
    fn from(error: DiskError) -> Self {
        Self::Disk(error)
    }
}

/// The pass over the file.
struct Pass {
    /// Where it stands.
    at: u64,
    /// End of the claim batch that was found good.
    batch_end: u64,
    /// The last record that dropped the oldest dead job: that job, and the record's offset.
    dropped: Option<(u64, u64)>,
    found: Recovery,
}

impl Spool {
    /// Opens the journal, creating it if there is none. `scratch` is memory to
    /// work in: at least two claim batches.
    ///
    /// # Errors
    /// [`RecoverError`]
    pub fn recover(
        &mut self,
        disk: &mut impl Disk,
        scratch: &mut [u8],
        rules: &SpoolRules,
        now: Instant,
    ) -> Result<Recovery, RecoverError> {
        self.totals.io = IoStats::default();
        self.journal.handler = rules.handler;
        let (found, anew) = self.recover_once(disk, scratch, rules, now)?;
        if anew {
            // The counts may include damaged records, such as that of a dead job that was
            // retried. The new file has the right ones. Its name is in doubt if the sync of it failed.
            let in_doubt = self.journal.sync_failed;
            self.recover_once(disk, scratch, rules, now)?;
            self.journal.sync_failed |= in_doubt;
        }
        Ok(found)
    }

    /// Passes over the journal once. Returns the findings, and whether the journal was written
    /// again because of damage.
    #[inline(never)]
    fn recover_once(
        &mut self,
        disk: &mut impl Disk,
        scratch: &mut [u8],
        rules: &SpoolRules,
        now: Instant,
    ) -> Result<(Recovery, bool), RecoverError> {
        self.reset();
        let size = disk.size(SpoolFile::Journal)?;
        let (small, big) = scratch.split_at_mut(RECORD_MAX_BYTES.min(scratch.len()));
        let count = disk.read(SpoolFile::Journal, 0, big.get_mut(..HEADER_BYTES).unwrap_or(&mut []))?;
        let header = file_header(big.get(..count).unwrap_or(&[]));
        if header == FileHeader::OtherVersion {
            return Err(RecoverError::OtherVersion);
        }
        let mut pass = Pass { at: 0, batch_end: 0, dropped: None, found: Recovery::default() };
        // A file that lost its header may hold records of every version.
        self.journal.version = VERSION;
        if let FileHeader::Known(version) = header {
            pass.at = FILE_HEADER_BYTES as u64;
            self.journal.version = version;
        }
        let JournalState { first, cursor, dead_from, .. } = &mut self.journal;
        (*first, *cursor, *dead_from) = (pass.at, pass.at, pass.at);
        if size > 0 {
            self.pass(disk, big, small, size, &mut pass, rules, now)?;
        }
        for slot in self.window.slots_mut() {
            if slot.state == JobState::Running {
                pass.found.interrupted = pass.found.interrupted.saturating_add(1);
                // A job that kills the service each time must not starve the later ones.
                slot.state = match u32::from(slot.cut_off) {
                    0 => JobState::Waiting,
                    before => JobState::Delayed(now + delay(rules.retry_delay, before, RETRY_DELAY_MAX)),
                };
                slot.cut_off = slot.cut_off.saturating_add(1);
            }
        }
        if !self.claims.is_empty() {
            // A removal, or a rename, that is not durable yet could be undone. Where the
            // folder fails, the claims are remembered until it works.
            let forgotten = self.sync_queue(disk).and_then(|()| self.claims.forget_missing(disk));
            if let Err(error) = forgotten {
                self.claims.fail(error, now);
            }
        }
        self.journal.end = pass.at;
        self.schedule.recovered(self.last_clock().as_ref());
        if let Some((id, limit)) = pass.dropped {
            self.find_dropped(disk, big, id, limit)?;
        }
        if size > 0 {
            // Records of an earlier process may never have been synced.
            self.journal.unsynced_since = Some(now);
            self.journal.name_unsynced = true;
        }
        let damaged = header == FileHeader::Damaged || pass.found.damaged_bytes > 0;
        if size == 0 {
            self.write_header(disk)?;
        } else if damaged || pass.found.reread_batches > 0 {
            // If there is no room for a new file the damage is passed over
            // once more, and no new job is accepted until there is.
            let written = self.compact_now(disk, now);
            self.journal.sync_failed |= written.is_err();
            self.space.low_space = written.is_err_and(DiskError::is_no_space);
            return Ok((pass.found, written.is_ok()));
        } else if pass.at < size {
            match self.trim_reserved(disk) {
                // On a full disk a new file follows before anything is acknowledged.
                Err(error) if error.is_no_space() => self.journal.sync_failed = true,
                result => result?,
            }
            // Without this sync a power cut could put the torn record together again, from its
            // beginning and the end of a later one.
            if pass.found.torn_bytes > 0 && rules.sync && !self.journal.sync_failed {
                self.journal.sync_failed = disk.sync(SpoolFile::Journal).is_err();
            }
        }
        if self.totals.waiting > 0 {
            self.space.low_space |= self.reserve_space(disk, 0, 0) || disk.free() < self.required_space();
        }
        Ok((pass.found, false))
    }

    /// Forgets everything.
    fn reset(&mut self) {
        if self.totals.next_id != 0 {
            // Not in one that was never used: writing zeros takes memory, too.
            self.window.clear();
            self.tombstones.clear();
            self.corruption = Corruption::NONE;
            self.buffer.clear();
            self.compaction.stop();
        }
        let JournalState { generation, handler, .. } = self.journal;
        self.journal = JournalState { generation, handler, ..JournalState::NONE };
        self.totals = Totals { next_id: 1, io: self.totals.io, ..Totals::NONE };
        self.schedule.reset();
        self.space = ReservedSpace::NONE;
        self.claims.reset();
    }

    /// Writes a new journal, which becomes durable with the first commit. On a full disk the
    /// file stays empty, and a new one is written before the first job is accepted.
    fn write_header(&mut self, disk: &mut impl Disk) -> DiskResult {
        match disk.write(SpoolFile::Journal, 0, header_of_version(VERSION)) {
            Err(error) if error.is_no_space() => {
                let _ = disk.truncate(SpoolFile::Journal, 0);
                (self.journal.sync_failed, self.space.low_space) = (true, true);
                return Ok(());
            }
            result => result?,
        }
        self.journal.end = FILE_HEADER_BYTES as u64;
        (self.journal.first, self.journal.cursor) = (self.journal.end, self.journal.end);
        self.journal.name_unsynced = true;
        Ok(())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the two buffers and the file's size are the pass's whole world"
    )]
    fn pass(
        &mut self,
        disk: &mut impl Disk,
        big: &mut [u8],
        small: &mut [u8],
        mut size: u64,
        pass: &mut Pass,
        rules: &SpoolRules,
        now: Instant,
    ) -> DiskResult {
        let mut filled = 0..0;
        let mut loaded_at = pass.at;
        loop {
            // Where the pass stands in the buffer, and what is there.
            let offset = usize::try_from(pass.at.saturating_sub(loaded_at)).unwrap_or(usize::MAX);
            let rest = big.get(offset..filled.end).unwrap_or(&[]);
            let whole_rest = pass.at.saturating_add(rest.len() as u64) >= size;
            if !whole_rest && !holds_unit(rest) {
                loaded_at = pass.at;
                let count = disk.read(SpoolFile::Journal, pass.at, big)?;
                filled = 0..count;
                if count < big.len() {
                    // The file may be shorter than it said; go by what is there.
                    size = pass.at.saturating_add(count as u64);
                }
                continue;
            }
            if rest.is_empty() {
                return Ok(());
            }
            match parse_record(rest) {
                ParseResult::Record(record, length) => {
                    let passed = self.record(disk, small, &record, length, rest, pass, rules, now)?;
                    if passed == 0 {
                        return Ok(());
                    }
                    pass.at = pass.at.saturating_add(passed as u64);
                }
                ParseResult::Truncated(_) if whole_rest && resync(rest).is_none() => {
                    pass.found.torn_bytes = rest.len() as u64;
                    return Ok(());
                }
                ParseResult::Truncated(_) | ParseResult::Bad => {
                    let rest_end = pass.at.saturating_add(rest.len() as u64);
                    if is_zero(rest) && is_zero_from(disk, small, rest_end, size)? {
                        pass.found.torn_bytes = size.saturating_sub(pass.at);
                        return Ok(());
                    }
                    let length = skip_damage(rest, whole_rest);
                    match disk.quarantine(rest.get(..length).unwrap_or(&[])) {
                        Ok(()) => self.skip(pass.at, length),
                        // The bytes stay in the journal until the disk has room for them.
                        Err(error) if error.is_no_space() => self.corruption.seen = true,
                        Err(error) => return Err(error),
                    }
                    pass.found.damaged_bytes = pass.found.damaged_bytes.saturating_add(length as u64);
                    pass.at = pass.at.saturating_add(length as u64);
                }
            }
        }
    }

    /// Applies one good record. Returns the bytes by which the pass advances, 0 at a torn
    /// end.
    #[expect(clippy::too_many_arguments, reason = "as for `pass`")]
    fn record(
        &mut self,
        disk: &mut impl Disk,
        small: &mut [u8],
        record: &Record<'_>,
        length: usize,
        rest: &[u8],
        pass: &mut Pass,
        rules: &SpoolRules,
        now: Instant,
    ) -> DiskResult<usize> {
        let claimed = record.kind == RecordKind::Add && record.flags.contains(RecordFlags::CLAIMED);
        if claimed && pass.at >= pass.batch_end && disk.claim_exists(record.attempt)? {
            // Its batch's head is damaged: the claim will be read again.
            self.skip(pass.at, length);
            return Ok(length);
        }
        if record.since() > self.journal.version {
            // Its header names an older version than its records need.
            (self.journal.version, self.journal.upgrade) = (record.since(), true);
        }
        match record.kind {
            RecordKind::Base if record.flags.contains(RecordFlags::END) => {
                pass.found.torn_bytes = length as u64;
                return Ok(0);
            }
            RecordKind::Base => {
                self.totals.next_id = self.totals.next_id.max(record.id);
                let next_claim = record.body.first_chunk::<8>().map_or(0, |body| u64::from_le_bytes(*body));
                self.claims.seen(next_claim.saturating_sub(1));
            }
            RecordKind::Add => {
                if Due::of(record.attributes).is_some() && !record.flags.contains(RecordFlags::DEAD) {
                    self.apply_scheduled(record, pass);
                    return Ok(length);
                }
                // A retried job is still in the window only if the dead record is lost.
                let instead = record.flags.intersects(RecordFlags::MOVED | RecordFlags::DEAD);
                if instead && self.find(disk, small, record.id, pass, rules, now)? {
                    self.forget(record.id);
                }
                if record.flags.contains(RecordFlags::DEAD) {
                    // Retried: the dead record, longer by its prefix, is deleted.
                    if self.push_tombstone(record.id, true, pass) {
                        self.sub_dead(size_of_record(record, DEAD_PREFIX_BYTES));
                    }
                }
                self.add_waiting(record);
            }
            RecordKind::Dead => {
                if self.find(disk, small, record.id, pass, rules, now)? {
                    self.forget(record.id);
                }
                self.totals.dead = self.totals.dead.saturating_add(1);
                self.totals.live_bytes = self.totals.live_bytes.saturating_add(record.size() as u64);
                self.totals.next_id = self.totals.next_id.max(record.id.saturating_add(1));
            }
            RecordKind::Tombstone => {
                let dead = record.flags.contains(RecordFlags::DEAD);
                let beyond = dead || record.flags.contains(RecordFlags::DELAYED);
                if !beyond && self.find(disk, small, record.id, pass, rules, now)? {
                    self.forget(record.id);
                } else {
                    self.apply_tombstone(record, dead, pass);
                }
            }
            RecordKind::Result => self.count_result(record),
            RecordKind::Hold => self.journal.held = record.attempt != 0,
            RecordKind::Clock => self.journal.clock = record.body.try_into().ok(),
            RecordKind::Claim => return self.claim(disk, record, length, rest, pass),
            RecordKind::Start | RecordKind::Fail | RecordKind::Requeued | RecordKind::Done => {
                if self.find(disk, small, record.id, pass, rules, now)? {
                    self.apply_transition(record, rules, now);
                }
            }
        }
        Ok(length)
    }

    /// Applies the live record of a delayed job, or the copy with which the job was released.
    /// After damage a later release does not stand for the earlier ones, whose copies may be lost.
    fn apply_scheduled(&mut self, record: &Record<'_>, pass: &mut Pass) {
        match due_of(record) {
            Some(_) => self.totals.scheduled.add(record.size()),
            None => {
                let damaged = pass.found.damaged_bytes > 0;
                if !damaged || self.push_tombstone(record.id, false, pass) {
                    self.totals.scheduled.sub(record.size());
                    self.sub_waiting(size_of_record(record, 0));
                }
                if damaged {
                    self.add_waiting(record);
                    return;
                }
                let due = Due::of(record.attributes).map_or(0, |due| due.boot_clock);
                let released = (Instant::from_ms(due), record.id);
                self.schedule.released = self.schedule.released.max(released);
            }
        }
        self.add_waiting(record);
    }

    /// Applies the start or the end of a job in the window.
    fn apply_transition(&mut self, record: &Record<'_>, rules: &SpoolRules, now: Instant) {
        if record.kind == RecordKind::Done {
            self.forget(record.id);
            return;
        }
        let Some(slot) = self.window.get_mut(record.id) else { return };
        slot.attempt = record.attempt;
        if record.kind != RecordKind::Start {
            slot.cut_off = 0;
            slot.given_back = record.body.first().copied().unwrap_or(0);
        }
        if record.kind == RecordKind::Start && slot.state == JobState::Running {
            slot.cut_off = slot.cut_off.saturating_add(1);
        }
        slot.state = match record.kind {
            RecordKind::Start => JobState::Running,
            RecordKind::Fail => {
                let delay = delay(rules.retry_delay, u32::from(record.attempt), RETRY_DELAY_MAX);
                JobState::Delayed(now + delay)
            }
            _ => JobState::Waiting,
        };
    }

    /// Removes a job that has ended from the window.
    fn forget(&mut self, id: u64) {
        if let Some(slot) = self.window.remove(id) {
            self.sub_waiting(slot.size);
        }
    }

    /// Remembers that the live records of a job are deleted. Returns true if there is room.
    fn push_tombstone(&mut self, id: u64, dead: bool, pass: &mut Pass) -> bool {
        let pushed = self.tombstones.push(Tombstone::new(id, dead, pass.at)).is_ok();
        pass.found.undone_deletions = pass.found.undone_deletions.saturating_add(u32::from(!pushed));
        pushed
    }

    /// Deletes a live record beyond the window.
    fn apply_tombstone(&mut self, record: &Record<'_>, dead: bool, pass: &mut Pass) {
        let size = record.body.first_chunk::<2>().map_or(0, |body| u16::from_le_bytes(*body));
        if dead && record.flags.contains(RecordFlags::OLDEST) {
            pass.dropped = Some((record.id, pass.at));
        } else if !self.push_tombstone(record.id, dead, pass) {
            return;
        }
        if dead {
            self.sub_dead(size);
        } else {
            self.sub_waiting(size);
        }
        if !dead && record.flags.contains(RecordFlags::DELAYED) {
            self.totals.scheduled.sub(usize::from(size));
        }
    }

    /// Applies the progress of a claim, whose batch counts if it is whole.
    fn claim(
        &mut self,
        disk: &mut impl Disk,
        record: &Record<'_>,
        length: usize,
        rest: &[u8],
        pass: &mut Pass,
    ) -> DiskResult<usize> {
        let Some(progress) = ClaimProgress::parse(record.body) else { return Ok(length) };
        let end = length.saturating_add(progress.batch_bytes as usize);
        let seq_low = record.id.to_le_bytes();
        let seq_low = u16::from_le_bytes([seq_low[0], seq_low[1]]);
        // A batch after one that is missing would hide the lines between.
        let follows =
            record.flags.contains(RecordFlags::ABSOLUTE) || self.claims.offset_of(record.id) == progress.from;
        let whole = rest.get(length..end).is_some_and(|bytes| is_whole_batch(bytes, seq_low));
        if whole && (follows || !disk.claim_exists(seq_low)?) {
            pass.batch_end = pass.at.saturating_add(end as u64);
            self.claims.set_offset(disk, record.id, progress.to)?;
        } else if disk.claim_exists(seq_low)? {
            if end > rest.len() {
                // The end of the file cuts it off: a write that was stopped.
                pass.found.torn_bytes = rest.len() as u64;
                return Ok(0);
            }
            let skipped = end;
            self.skip(pass.at, skipped);
            pass.found.reread_batches = pass.found.reread_batches.saturating_add(1);
            self.claims.seen(record.id);
            return Ok(skipped);
        } else {
            self.claims.seen(record.id);
        }
        Ok(length)
    }

    /// Has the cursor pass over the `length` bytes at `at`, too.
    fn skip(&mut self, at: u64, length: usize) {
        let end = at.saturating_add(length as u64);
        match self.corruption.skipped.last_mut() {
            Some(last) if last.end == at => last.end = end,
            // More damage than can be told apart: live records in it are applied,
            // and a line may run twice, but none is lost.
            _ => drop(self.corruption.skipped.push(at..end)),
        }
    }

    /// Returns true if job `id` is in the window, after filling that with all that comes
    /// before the offset of the pass. A job that the running service recorded was among the
    /// first in the file that had not ended, so it is here too.
    fn find(
        &mut self,
        disk: &mut impl Disk,
        small: &mut [u8],
        id: u64,
        pass: &Pass,
        rules: &SpoolRules,
        now: Instant,
    ) -> DiskResult<bool> {
        while self.journal.cursor < pass.at && !self.window.is_full() {
            self.follow(disk, small, pass, rules, now)?;
        }
        Ok(self.window.get(id).is_some())
    }

    /// Moves the cursor over one record or skipped range.
    fn follow(
        &mut self,
        disk: &mut impl Disk,
        small: &mut [u8],
        pass: &Pass,
        rules: &SpoolRules,
        now: Instant,
    ) -> DiskResult {
        if let Some(range) = self.corruption.skipped.iter().find(|range| range.contains(&self.journal.cursor))
        {
            self.journal.cursor = range.end;
            return Ok(());
        }
        let bytes = self.read_ahead(disk, small, pass.at)?;
        match parse_record(bytes) {
            ParseResult::Record(record, size) => {
                if self.is_waiting(&record, self.journal.cursor) {
                    self.enter(&record, self.journal.cursor, rules, now);
                }
                self.journal.cursor = self.journal.cursor.saturating_add(size as u64);
            }
            ParseResult::Bad | ParseResult::Truncated(_) => {
                let passed =
                    skip_damage(bytes, self.journal.cursor.saturating_add(bytes.len() as u64) >= pass.at);
                self.journal.cursor = self.journal.cursor.saturating_add(passed as u64);
            }
        }
        Ok(())
    }
}

/// Returns the size of a record that is `longer` bytes longer.
fn size_of_record(record: &Record<'_>, longer: usize) -> u16 {
    u16::try_from(record.size().saturating_add(longer)).unwrap_or(u16::MAX)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// Checks that there is nothing but zeros in the journal from `at` to `size`.
fn is_zero_from(disk: &mut impl Disk, buffer: &mut [u8], mut at: u64, size: u64) -> DiskResult<bool> {
    while at < size {
        let count = disk.read(SpoolFile::Journal, at, buffer)?;
        if count == 0 || !is_zero(buffer.get(..count).unwrap_or(&[])) {
            return Ok(count == 0);
        }
        at = at.saturating_add(count as u64);
    }
    Ok(true)
}

/// Returns true if `rest` holds a whole record and, for a claim, its whole batch.
fn holds_unit(rest: &[u8]) -> bool {
    match parse_record(rest) {
        ParseResult::Record(Record { kind: RecordKind::Claim, body, .. }, size) => {
            let batch = ClaimProgress::parse(body).map_or(0, |progress| progress.batch_bytes as usize);
            rest.len() >= size.saturating_add(batch)
        }
        ParseResult::Record(..) => true,
        ParseResult::Bad => rest.len() >= 2 * RECORD_MAX_BYTES,
        ParseResult::Truncated(_) => false,
    }
}

/// Returns true if `bytes` are nothing but good records of this claim.
fn is_whole_batch(mut bytes: &[u8], seq_low: u16) -> bool {
    while !bytes.is_empty() {
        match parse_record(bytes) {
            ParseResult::Record(record, size)
                if record.kind == RecordKind::Add
                    && record.flags == RecordFlags::CLAIMED
                    && record.attempt == seq_low =>
            {
                bytes = bytes.get(size..).unwrap_or(&[]);
            }
            _ => return false,
        }
    }
    true
}
