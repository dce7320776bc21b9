//! How the last jobs ended, with their texts. They are in the journal only, and each compaction
//! keeps the last ones.
//!
//! The record of an end follows the record that ends the job. It is left out where it would take
//! the space that is kept for the starts and ends of queued jobs: no job depends on it.

use super::location::RecordLocation;
use super::scan::JournalScan;
use super::{PREALLOCATE_BYTES, Spool, parts_or_placeholder};
use crate::limits::{JOB_MAX_BYTES, RESULTS_KEPT};
use crate::proto::attributes::{HandlerKind, handler_of};
use crate::proto::journal::{
    HEADER_BYTES, ParseResult, RECORD_MAX_BYTES, RESULT_PREFIX_BYTES, Record, RecordKind, VERSION,
    parse_record,
};
use crate::state::disk::{DAMAGED, Disk, DiskResult, SpoolFile};
use crate::state::window::Slot;
use crate::util::time::{Duration, Instant};
use heapless::Vec;

/// Number of jobs of other handlers at which their count ends, so that a long backlog delays no
/// answer: one such job is enough for a refusal.
pub(super) const OTHERS_COUNTED_MAX: u32 = 100_000;

/// The exit status of a job that was cancelled: 128 + SIGTERM.
pub(crate) const CANCELLED_STATUS: u8 = 143;

/// The way in which a job ended, with its number in the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndKind {
    /// The job ended well.
    Done = 0,
    /// Its last attempt failed.
    Dead = 1,
    /// The job was cancelled.
    Cancelled = 2,
}

/// The end of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JobEnd {
    /// How it ended.
    pub kind: EndKind,
    /// Its exit status.
    pub exit: u8,
    /// How long its last attempt took.
    pub took: Duration,
}

impl EndKind {
    /// Returns the name that `list done` shows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }
}

impl JobEnd {
    /// Returns the bytes before the text of the job in its record.
    fn emit(self) -> [u8; RESULT_PREFIX_BYTES] {
        let mut bytes = [0; RESULT_PREFIX_BYTES];
        let (head, ms) = bytes.split_at_mut(4);
        head.copy_from_slice(&[self.kind as u8, self.exit, 0, 0]);
        ms.copy_from_slice(&self.took.as_ms().to_le_bytes());
        bytes
    }

    /// Parses the body of a record.
    fn parse(body: &[u8]) -> Option<Self> {
        let (&[kind, exit, _, _], rest) = body.split_first_chunk::<4>()?;
        let ms = u64::from_le_bytes(*rest.first_chunk::<8>()?);
        let kind = match kind {
            0 => EndKind::Done,
            2 => EndKind::Cancelled,
            _ => EndKind::Dead,
        };
        Some(Self { kind, exit, took: Duration::from_ms(ms) })
    }
}

impl Spool {
    /// Notes how long the last attempt of job `id` took.
    pub fn set_took(&mut self, id: u64, took: Duration) {
        self.window.get_mut(id).into_iter().for_each(|slot| slot.took = took);
    }

    /// Puts the record that ends a job, and that of its end, into the buffer. Returns false if there
    /// is no room for both.
    pub(super) fn push_end(
        &mut self,
        disk: &mut impl Disk,
        slot: &Slot,
        record: &Record<'_>,
        kind: EndKind,
        exit: u8,
    ) -> DiskResult<bool> {
        let longest = record.size().saturating_add(HEADER_BYTES).saturating_add(RESULT_PREFIX_BYTES);
        let free = self.buffer.capacity().saturating_sub(self.buffer.len());
        if free < longest.saturating_add(usize::from(slot.size)) && !self.buffer.is_empty() {
            return Ok(false);
        }
        let pushed = record.emit(&mut self.buffer).is_ok();
        if pushed {
            self.push_result(disk, slot.location(), slot.attempt, JobEnd { kind, exit, took: slot.took });
        }
        Ok(pushed)
    }

    /// Puts the record of an end into the buffer, if the journal can have it and the disk has space
    /// to spare.
    pub(super) fn push_result(
        &mut self,
        disk: &mut impl Disk,
        location: RecordLocation,
        attempt: u16,
        end: JobEnd,
    ) {
        if self.journal.version < VERSION || !self.has_spare(disk) {
            return;
        }
        let mut buffer = [0; RECORD_MAX_BYTES];
        let Ok((_, text)) = parts_or_placeholder(disk, location, &mut buffer) else { return };
        let mut body: Vec<u8, { RESULT_PREFIX_BYTES + JOB_MAX_BYTES }> = Vec::new();
        let _ = body.extend_from_slice(&end.emit());
        let _ = body.extend_from_slice(text);
        let record = Record { body: &body, ..Record::new(RecordKind::Result, location.id, attempt) };
        if record.emit(&mut self.buffer).is_ok() {
            self.count_result(&record);
        }
    }

    /// Returns how many records of ends the journal has, and their bytes.
    pub(super) fn result_counts(&self) -> (u32, u64) {
        (self.totals.results, self.totals.result_bytes)
    }

    /// Writes the buffer, which holds the records of the ends that were counted after `before`.
    /// Returns false if there was no room because of them: nothing was written, and a second attempt
    /// of the caller leaves them out.
    ///
    /// # Errors
    /// The disk refused it; nothing was written.
    pub(super) fn write_with_results(
        &mut self,
        disk: &mut impl Disk,
        now: Instant,
        before: (u32, u64),
    ) -> DiskResult<bool> {
        let had_room = !self.space.low_space;
        let Err(error) = self.write_buffer(disk, now) else { return Ok(true) };
        let had_results = self.totals.results > before.0;
        (self.totals.results, self.totals.result_bytes) = before;
        if had_room && had_results && error.is_no_space() { Ok(false) } else { Err(error) }
    }

    /// Counts the record of an end.
    pub(super) fn count_result(&mut self, record: &Record<'_>) {
        self.totals.results = self.totals.results.saturating_add(1);
        // Older ones are left out by the next compaction.
        if self.totals.results as usize <= RESULTS_KEPT {
            self.totals.result_bytes = self.totals.result_bytes.saturating_add(record.size() as u64);
        }
    }

    /// Returns true if the disk has room for the record of an end beside what is kept for the starts
    /// and ends of queued jobs.
    fn has_spare(&mut self, disk: &mut impl Disk) -> bool {
        if self.space.low_space {
            return false;
        }
        let takes = self.buffer.len().saturating_add(RECORD_MAX_BYTES) as u64;
        let needed = self.reserve_bytes().saturating_add(takes);
        if self.space.no_fallocate {
            return disk.free() >= needed;
        }
        let until = self.journal.end.saturating_add(needed);
        if self.space.reserved_until < until {
            let _ = self.reserve_space(disk, takes, PREALLOCATE_BYTES);
        }
        self.space.reserved_until >= until
    }

    /// Begins a scan for the ends of jobs.
    #[must_use]
    pub fn scan_ends(&self) -> JournalScan {
        self.scan_range(self.journal.first, u64::MAX)
    }

    /// Continues a scan for the ends of jobs, oldest first, as [`Spool::scan_step`] does.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn ends_step(
        &self,
        disk: &mut impl Disk,
        scratch: &mut [u8],
        scan: &mut JournalScan,
        visit: &mut dyn FnMut(RecordLocation, JobEnd),
    ) -> DiskResult<bool> {
        self.record_step(disk, scratch, scan, &mut |record, offset| {
            let size = u16::try_from(record.size()).unwrap_or(u16::MAX);
            if record.kind == RecordKind::Result
                && let Some(end) = JobEnd::parse(record.body)
            {
                let dead = end.kind == EndKind::Dead;
                let (id, attempt) = (record.id, record.attempt);
                visit(RecordLocation { id, attempt, offset, size, dead, due: None }, end);
            }
            true
        })
    }

    /// Reads the end of a job and its text.
    ///
    /// # Errors
    /// The journal cannot be read there.
    pub fn end_at<'b>(
        &self,
        disk: &mut impl Disk,
        location: RecordLocation,
        buffer: &'b mut [u8; RECORD_MAX_BYTES],
    ) -> DiskResult<(JobEnd, &'b [u8])> {
        let wanted = buffer.get_mut(..usize::from(location.size)).ok_or(DAMAGED)?;
        let count = disk.read(SpoolFile::Journal, location.offset, wanted)?;
        match parse_record(buffer.get(..count).unwrap_or(&[])) {
            ParseResult::Record(record, _) if record.id == location.id => {
                JobEnd::parse(record.body).map(|end| (end, record.text())).ok_or(DAMAGED)
            }
            _ => Err(DAMAGED),
        }
    }
}

impl Spool {
    /// Returns the number of jobs in the window that were queued for another handler than the log.
    #[must_use]
    pub fn others_in_window(&self) -> u32 {
        self.window.count_slots(|slot| slot.handler != HandlerKind::Log)
    }

    /// Continues a scan for waiting jobs that were queued for another handler than the log, and
    /// adds their number to `count`. Returns true at the end of the scan, and when `count` has
    /// reached `OTHERS_COUNTED_MAX`.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn others_step(
        &self,
        disk: &mut impl Disk,
        scratch: &mut [u8],
        scan: &mut JournalScan,
        count: &mut u32,
    ) -> DiskResult<bool> {
        self.record_step(disk, scratch, scan, &mut |record, offset| {
            let waits = self.live_location(record, offset).is_some_and(|location| !location.dead);
            if waits && handler_of(record.attributes) != HandlerKind::Log {
                *count = count.saturating_add(1);
            }
            *count < OTHERS_COUNTED_MAX
        })
    }

    /// Counts the waiting jobs that were queued for another handler than the log, in `steps` steps
    /// of a scan at most.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn count_others(&self, disk: &mut impl Disk, scratch: &mut [u8], steps: usize) -> DiskResult<u32> {
        let (mut count, mut scan) = (self.others_in_window(), self.scan(false));
        for _ in 0..steps {
            if self.others_step(disk, scratch, &mut scan, &mut count)? {
                break;
            }
        }
        Ok(count)
    }
}
