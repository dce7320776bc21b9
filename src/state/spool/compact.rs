//! Writing the journal anew, without what is over.
//!
//! ```text
//! old  |  ended, dead, window   |cursor  backlog, dead  |start   appended since   |
//! new  | base, claims, window, dead |  backlog, dead    |  the same records       |
//! ```
//!
//! In small steps, because a backlog may be large and nothing in the loop may
//! block for long. The state at the start (the window, the claims, the voids)
//! is written first; what is appended meanwhile is copied as it is behind it,
//! so a recovery from the new file passes through the same states. Until it is
//! renamed the old file is the journal, and a crash after any step leaves it
//! or its equal. The window is not refilled meanwhile.

use super::pull::{attempts_of, home_of};
use super::{Home, Spool};
use crate::limits::{COMPACT_STEP_BYTES, VOIDS_MAX, WINDOW_JOBS};
use crate::proto::journal::{
    FILE_HEADER, FLAG_DELAYED, Kind, RECORD_MAX_BYTES, Record, Step, claim_body, resync, step,
};
use crate::state::disk::{Disk, DiskError, File};
use crate::state::window::{End, Slot, State};
use heapless::Vec;

/// A compaction that is under way.
pub(super) struct Compaction {
    stage: Stage,
    /// Where the old file is read next.
    from: u64,
    /// Where the new file is written next.
    to: u64,
    /// Size of the old file when it began.
    start: u64,
    /// Where the backlog begins in the new file.
    cursor: u64,
    /// The voids that the new file leaves out.
    voids: Vec<Home, VOIDS_MAX>,
    /// Where the window's homes are in the new file.
    moved: Vec<(u64, u64), WINDOW_JOBS>,
    /// Bytes of homes in the new file.
    live_bytes: u64,
    /// Bytes of homes in the old file when it began.
    live_before: u64,
}

/// What is next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Dead jobs from before the cursor.
    Dead,
    /// Waiting and dead jobs from the cursor on.
    Backlog,
    /// What was appended since.
    Tail,
}

impl Spool {
    /// Whether one is under way.
    #[must_use]
    pub fn is_compacting(&self) -> bool {
        self.compaction.is_some()
    }

    /// Begins one, or does its next step. Bounded work.
    ///
    /// # Errors
    /// It is given up; the journal is as it was.
    pub fn compact_step(&mut self, disk: &mut impl Disk, now: u64) -> Result<(), DiskError> {
        let result = match self.compaction.take() {
            None => self.begin(disk, now),
            Some(compaction) => self.go_on(disk, compaction),
        };
        if result.is_err() {
            self.buffer.clear();
            disk.abandon_next();
        }
        result.map(|compaction| self.compaction = compaction)
    }

    /// A whole one.
    ///
    /// # Errors
    /// The journal is as it was.
    pub fn compact_now(&mut self, disk: &mut impl Disk, now: u64) -> Result<(), DiskError> {
        self.compaction = None;
        loop {
            self.compact_step(disk, now)?;
            if self.compaction.is_none() {
                return Ok(());
            }
        }
    }

    /// Writes the state: everything but the dead and the backlog.
    fn begin(&mut self, disk: &mut impl Disk, now: u64) -> Result<Option<Compaction>, DiskError> {
        // What the slots owe must be in the old file, or the new one would
        // hold a state that the records behind it contradict.
        self.settle(disk, now)?;
        disk.create_next()?;
        disk.write(File::Next, 0, FILE_HEADER)?;
        let mut compaction = Compaction {
            stage: Stage::Dead,
            from: FILE_HEADER.len() as u64,
            to: FILE_HEADER.len() as u64,
            start: self.end,
            cursor: 0,
            voids: self.voids.clone(),
            moved: Vec::new(),
            live_bytes: 0,
            live_before: self.live_bytes,
        };
        let next_claim = self.claims.next_seq().to_le_bytes();
        self.emit(disk, &mut compaction, &Record { body: &next_claim, ..Record::new(Kind::Base, self.next_id, 0) })?;
        for index in 0..self.claims.len() {
            if let Some((seq, offset)) = self.claims.mark_at(index) {
                let body = claim_body(offset, 0);
                self.emit(disk, &mut compaction, &Record { body: &body, ..Record::new(Kind::Claim, seq, 0) })?;
            }
        }
        for index in 0..self.window.slots().len() {
            if let Some(slot) = self.window.slots().get(index).copied() {
                self.emit_window(disk, &mut compaction, &slot)?;
            }
        }
        self.flush_next(disk, &mut compaction)?;
        Ok(Some(compaction))
    }

    /// Writes the home of a job in the window.
    fn emit_window(
        &mut self,
        disk: &mut impl Disk,
        compaction: &mut Compaction,
        slot: &Slot,
    ) -> Result<(), DiskError> {
        let mut buffer = [0; RECORD_MAX_BYTES];
        let text = super::read_home(disk, slot, &mut buffer)?;
        let flags = match slot.state {
            State::Delayed(_) | State::Ended(End::Fail(_)) => FLAG_DELAYED,
            _ => 0,
        };
        let _ = compaction.moved.push((slot.id, compaction.to.saturating_add(self.buffer.len() as u64)));
        let record = Record { flags, body: text, ..Record::new(Kind::Add, slot.id, slot.attempt) };
        compaction.live_bytes = compaction.live_bytes.saturating_add(record.size() as u64);
        self.emit(disk, compaction, &record)
    }

    /// Puts a record into the buffer for the new file. The buffer is empty
    /// between two steps, so the two files never share it.
    fn emit(
        &mut self,
        disk: &mut impl Disk,
        compaction: &mut Compaction,
        record: &Record<'_>,
    ) -> Result<(), DiskError> {
        if record.emit(&mut self.buffer).is_err() {
            self.flush_next(disk, compaction)?;
            let _ = record.emit(&mut self.buffer);
        }
        Ok(())
    }

    fn flush_next(&mut self, disk: &mut impl Disk, compaction: &mut Compaction) -> Result<(), DiskError> {
        let length = self.buffer.len() as u64;
        let result = disk.write(File::Next, compaction.to, &self.buffer);
        self.buffer.clear();
        result?;
        compaction.to = compaction.to.saturating_add(length);
        self.wear.bytes = self.wear.bytes.saturating_add(length);
        Ok(())
    }

    /// The next step of one that has begun.
    fn go_on(
        &mut self,
        disk: &mut impl Disk,
        mut compaction: Compaction,
    ) -> Result<Option<Compaction>, DiskError> {
        debug_assert!(self.buffer.is_empty());
        let stop = compaction.from.saturating_add(COMPACT_STEP_BYTES);
        loop {
            let end = match compaction.stage {
                Stage::Dead => self.cursor,
                Stage::Backlog => compaction.start,
                Stage::Tail => self.end,
            };
            if compaction.from < end {
                if compaction.from >= stop {
                    self.flush_next(disk, &mut compaction)?;
                    return Ok(Some(compaction));
                }
                self.copy_one(disk, &mut compaction, end)?;
                continue;
            }
            match compaction.stage {
                Stage::Dead => {
                    compaction.stage = Stage::Backlog;
                    compaction.cursor = compaction.to.saturating_add(self.buffer.len() as u64);
                }
                Stage::Backlog => compaction.stage = Stage::Tail,
                Stage::Tail => {
                    self.flush_next(disk, &mut compaction)?;
                    self.publish(disk, &compaction)?;
                    return Ok(None);
                }
            }
        }
    }

    /// Copies what stands at the reading point, if it is to be copied.
    fn copy_one(
        &mut self,
        disk: &mut impl Disk,
        compaction: &mut Compaction,
        end: u64,
    ) -> Result<(), DiskError> {
        if let Some(range) = self.skipped.iter().find(|range| range.contains(&compaction.from)) {
            compaction.from = range.end;
            return Ok(());
        }
        let mut buffer = [0; RECORD_MAX_BYTES];
        let left = usize::try_from(end.saturating_sub(compaction.from)).unwrap_or(usize::MAX);
        let wanted = buffer.get_mut(..left.min(RECORD_MAX_BYTES)).unwrap_or(&mut []);
        let count = disk.read(File::Journal, compaction.from, wanted)?;
        let bytes = buffer.get(..count).unwrap_or(&[]);
        let Step::Record(record, size) = step(bytes) else {
            // Damage: recovery has set it aside, or it appeared since.
            let passed = resync(bytes).unwrap_or(bytes.len()).max(1);
            compaction.from = compaction.from.saturating_add(passed as u64);
            return Ok(());
        };
        compaction.from = compaction.from.saturating_add(size as u64);
        if compaction.stage == Stage::Tail {
            return self.emit(disk, compaction, &record);
        }
        let is_home = record.kind == Kind::Dead || (record.kind == Kind::Add && compaction.stage == Stage::Backlog);
        let attempt = attempts_of(&record);
        if !is_home || compaction.voids.contains(&home_of(&record)) {
            return Ok(());
        }
        // A home of its own now: of no claim's group, in nobody's stead.
        let flags = record.flags & FLAG_DELAYED;
        compaction.live_bytes = compaction.live_bytes.saturating_add(size as u64);
        self.emit(disk, compaction, &Record { flags, attempt, ..record })
    }

    /// Makes the new file the journal.
    fn publish(&mut self, disk: &mut impl Disk, compaction: &Compaction) -> Result<(), DiskError> {
        self.wear.syncs = self.wear.syncs.saturating_add(2);
        disk.sync(File::Next)?;
        disk.publish_next()?;
        for slot in self.window.slots_mut() {
            if let Some((_, offset)) = compaction.moved.iter().find(|(id, _)| *id == slot.id) {
                slot.offset = *offset;
            }
        }
        self.cursor = compaction.cursor;
        self.end = compaction.to;
        let since = self.live_bytes.wrapping_sub(compaction.live_before);
        self.live_bytes = compaction.live_bytes.wrapping_add(since);
        let gone = compaction.voids.len();
        let mut index = 0usize;
        self.voids.retain(|_| {
            index = index.saturating_add(1);
            index > gone
        });
        self.skipped.clear();
        self.unsynced_since = None;
        self.suspect = false;
        // Until this is done the old name may come back after a power cut:
        // the next commit makes sure.
        self.name_unsynced = disk.sync_spool().is_err();
        Ok(())
    }
}
