//! The jobs in the journal beyond the window: the backlog and the dead. Memory holds none of
//! them, so a client that asks waits for a scan of the file. The scan is done in steps,
//! because nothing in the loop may take long.

use super::Spool;
use super::location::{RecordLocation, attempts_of, due_of};
use crate::limits::READ_BYTES;
use crate::proto::journal::{ParseResult, RECORD_MAX_BYTES, Record, RecordKind, parse_record, skip_damage};
use crate::state::disk::{DAMAGED, Disk, DiskResult, SpoolFile};
use crate::state::window::AttemptOutcome;

/// Bytes of the journal that one turn reads for a request that scans it.
pub(crate) const SCAN_STEP_BYTES: u64 = 64 * 1024;

/// A scan of the journal, or of a part of it.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Hash))]
pub struct JournalScan {
    at: u64,
    until: u64,
    generation: u32,
}

impl JournalScan {
    pub(super) const fn new(at: u64, until: u64, generation: u32) -> Self {
        Self { at, until, generation }
    }

    /// Returns the offset of the record that is visited next.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }
}

impl Spool {
    /// Begins a scan of every job beyond the window. Without the dead it is shorter.
    #[must_use]
    pub fn scan(&self, dead: bool) -> JournalScan {
        let Self { journal, totals, .. } = self;
        let dead = if dead && totals.dead > 0 { journal.dead_from } else { u64::MAX };
        let scheduled = if totals.scheduled.count > 0 { journal.first } else { u64::MAX };
        let at = journal.cursor.min(dead).min(scheduled);
        JournalScan::new(at, u64::MAX, journal.generation)
    }

    /// Begins a scan of the jobs beyond the window whose records begin from `from` up to
    /// `until`. A record must begin at `from`.
    #[must_use]
    pub fn scan_range(&self, from: u64, until: u64) -> JournalScan {
        JournalScan::new(from, until, self.journal.generation)
    }

    /// Returns the offset after the last record.
    #[must_use]
    pub fn journal_end(&self) -> u64 {
        self.journal.end
    }

    /// Returns how often the journal was written again. Offsets mean nothing in another one.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.journal.generation
    }

    /// Returns true if the journal is still the one in which the scan began. Otherwise its
    /// findings mean nothing, and it must begin again.
    #[must_use]
    pub fn is_current(&self, scan: &JournalScan) -> bool {
        scan.generation == self.journal.generation
    }

    /// Continues a scan, as far as one turn's share: hands each job beyond
    /// the window to `visit`, which returns true to go on to the next one. True at the
    /// end, or when `visit` returned false: the scan then stands at that job. Jobs that
    /// enter the window meanwhile may be met or not.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn scan_step(
        &self,
        disk: &mut impl Disk,
        scratch: &mut [u8],
        scan: &mut JournalScan,
        visit: &mut dyn FnMut(RecordLocation) -> bool,
    ) -> DiskResult<bool> {
        let stop = scan.at.saturating_add(SCAN_STEP_BYTES);
        let end = self.journal.end.min(scan.until);
        while scan.at < end && scan.at < stop {
            let left = usize::try_from(self.journal.end.saturating_sub(scan.at)).unwrap_or(usize::MAX);
            let wanted = scratch.len().min(left).min(READ_BYTES);
            let count =
                disk.read(SpoolFile::Journal, scan.at, scratch.get_mut(..wanted).unwrap_or(&mut []))?;
            if count == 0 {
                scan.at = self.journal.end;
            }
            let mut at = 0usize;
            while let Some(rest) = scratch.get(at..count).filter(|rest| !rest.is_empty() && scan.at < end) {
                // Fewer bytes than wanted: another program made the file shorter.
                let last = count < wanted || scan.at.saturating_add(rest.len() as u64) >= self.journal.end;
                let size = match parse_record(rest) {
                    ParseResult::Record(record, size) => {
                        if let Some(location) = self.live_location(&record, scan.at)
                            && !visit(location)
                        {
                            return Ok(true);
                        }
                        size
                    }
                    ParseResult::Truncated(_) if !last && rest.len() < RECORD_MAX_BYTES => break,
                    ParseResult::Truncated(_) | ParseResult::Bad => skip_damage(rest, last),
                };
                at = at.saturating_add(size);
                scan.at = scan.at.saturating_add(size as u64);
            }
        }
        Ok(scan.at >= end)
    }

    /// Reads how the dead job at `location` ended.
    ///
    /// # Errors
    /// The journal cannot be read there.
    pub fn outcome(
        &self,
        disk: &mut impl Disk,
        location: RecordLocation,
        buffer: &mut [u8; RECORD_MAX_BYTES],
    ) -> DiskResult<AttemptOutcome> {
        let wanted = buffer.get_mut(..usize::from(location.size)).ok_or(DAMAGED)?;
        let count = disk.read(SpoolFile::Journal, location.offset, wanted)?;
        match parse_record(buffer.get(..count).unwrap_or(&[])) {
            ParseResult::Record(record, _) => {
                record.body.first_chunk::<2>().map(|how| AttemptOutcome::from_bytes(*how)).ok_or(DAMAGED)
            }
            _ => Err(DAMAGED),
        }
    }

    /// Returns the location of a record that is the live record of a job beyond the window.
    fn live_location(&self, record: &Record<'_>, offset: u64) -> Option<RecordLocation> {
        let dead = record.kind == RecordKind::Dead;
        let due = due_of(record);
        let waits = record.kind == RecordKind::Add && due.is_none() && offset >= self.journal.cursor;
        if !(dead || waits || due.is_some()) || self.is_deleted(record, offset) {
            return None;
        }
        if self.corruption.skipped.iter().any(|range| range.contains(&offset)) {
            return None;
        }
        let size = u16::try_from(record.size()).ok()?;
        Some(RecordLocation { id: record.id, attempt: attempts_of(record), offset, size, dead, due })
    }
}
