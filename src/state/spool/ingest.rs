//! From the queue file into the journal, without losing or doubling a line.
//!
//! ```text
//! queue ──rename──▶ queue.claim-SEQ ──read──▶ journal: {offset, jobs} ──quiet──▶ removed
//! ```
//!
//! - The folder is synced between rename and first read, so a claim cannot
//!   turn back into a queue file after its lines were journaled.
//! - Jobs and the offset after them are one batch in the journal. After a
//!   crash the claim is read on from the last offset that is there.
//! - A writer may still hold a claim open, so it is read on until it was quiet
//!   for [`CLAIM_QUIET`]; then a last line without newline is a job too,
//!   that is committed, and the file is removed.
//! - The journal must remember a removed claim until the removal is durable:
//!   a power cut may bring the file back. The next claim's sync settles that.

use super::claims::Claim;
use super::{Spool, SpoolRules};
use crate::limits::CLAIM_QUIET;
use crate::proto::journal::{CLAIM_BODY_BYTES, ClaimProgress, HEADER_BYTES, Record, RecordFlags, RecordKind};
use crate::state::disk::{Disk, DiskError, DiskResult, QueueFile, SpoolFile};
use crate::util::lines::{Line, TOO_LONG, classify, find_newline};
use crate::util::time::{Duration, Instant};
use heapless::Vec;

/// Maximum number of bytes read from claims in one turn, so that a flood of jobs delays
/// nothing else by more than one commit.
const INGEST_TURN_BYTES: usize = 64 * 1024;
/// Time until the next look at a queue file that cannot be used.
const QUEUE_RETRY: Duration = Duration::from_ms(3000);

/// Bytes read from a claim at once; a line that is longer is not a job.
const CHUNK_BYTES: usize = 4096;

/// A fact that the service logs for the user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IngestNotice<'a> {
    /// A line is not a job; its beginning and the reason.
    Rejected(&'a [u8], &'static str),
    /// A rejected line could not be kept.
    RejectedLost(DiskError),
    /// The queue file cannot be claimed.
    Unusable(DiskError),
}

impl Spool {
    /// Opens the claims that an earlier process left, as many as there is
    /// room for. Returns why one cannot be opened; it stays where it is, and the
    /// others are read.
    ///
    /// # Errors
    /// It cannot be learnt which there are: a new one could replace one of them.
    pub fn adopt_claims(&mut self, disk: &mut impl Disk, now: Instant) -> DiskResult<Option<DiskError>> {
        let mut closed = None;
        let mut next = disk.next_claim(0)?;
        if next.is_some() {
            // Its rename may not be durable yet: then it could turn back into
            // a queue file after its lines were journaled.
            self.sync_queue(disk)?;
        }
        while let Some(seq) = next {
            next = disk.next_claim(seq)?;
            self.claims.seen(seq);
            let known = self.claims.list.iter().position(|claim| claim.seq == seq);
            if known.is_none() && self.claims.list.push(Claim::new(seq, 0)).is_err() {
                break;
            }
            let Some(handle) = self.claims.free_handle() else { break };
            if let Some(claim) =
                self.claims.list.iter_mut().find(|claim| claim.seq == seq && claim.handle.is_none())
            {
                if let Err(error) = disk.open_claim(seq, handle) {
                    closed = Some(error);
                    continue;
                }
                claim.handle = Some(handle);
                claim.unread = true;
                claim.active_at = now;
            }
        }
        self.claims.sort();
        Ok(closed)
    }

    /// Claims the queue file if that is due, and takes jobs from the claims,
    /// oldest first, as far as the queue has room and one turn's share goes.
    /// Returns how many jobs were appended; they count after a commit.
    ///
    /// # Errors
    /// The disk refused something; nothing is lost, and it is tried again.
    #[inline(never)]
    pub fn ingest(
        &mut self,
        disk: &mut impl Disk,
        scratch: &mut [u8],
        rules: &SpoolRules,
        now: Instant,
        report: &mut dyn FnMut(IngestNotice<'_>),
    ) -> DiskResult<u32> {
        let claimed = self.claim_queue(disk, now, report);
        let mut added = 0u32;
        let mut budget = INGEST_TURN_BYTES;
        let mut index = 0;
        while let Some(claim) = self.claims.list.get(index).copied() {
            if !claim.unread || claim.handle.is_none() {
                index = index.saturating_add(1);
                continue;
            }
            if budget == 0 || self.room(rules) == 0 {
                break;
            }
            self.ensure_space(disk)?;
            let jobs = self.read_claim(disk, index, scratch, rules, now, report)?;
            added = added.saturating_add(jobs);
            budget = budget.saturating_sub(CHUNK_BYTES);
        }
        if self.room(rules) > 0 {
            added = added.saturating_add(self.close_quiet(disk, scratch, rules, now, report)?);
        }
        claimed.map(|()| added)
    }

    /// Renames the queue file to a new claim, if there is one and it is time.
    #[inline(never)]
    fn claim_queue(
        &mut self,
        disk: &mut impl Disk,
        now: Instant,
        report: &mut dyn FnMut(IngestNotice<'_>),
    ) -> DiskResult {
        if !self.claims.wanted || !self.claims.claim_due().is_due(now) {
            return Ok(());
        }
        match disk.queue_file() {
            QueueFile::Nothing => {
                self.claims.wanted = false;
                self.claims.unusable = None;
                return Ok(());
            }
            QueueFile::Unusable(error) => {
                if self.claims.unusable.is_none_or(|(told, _)| told != error.0) {
                    report(IngestNotice::Unusable(error));
                }
                self.claims.unusable = Some((error.0, now + QUEUE_RETRY));
                return Ok(());
            }
            QueueFile::Ready => self.claims.unusable = None,
        }
        if self.claims.left == Some(0) {
            self.claims.wanted = false;
            return Ok(());
        }
        if self.claims.list.is_full() {
            self.sync_queue(disk)?;
            self.claims.forget_removed();
        }
        let Some(handle) = self.claims.free_handle().filter(|_| !self.claims.list.is_full()) else {
            return Ok(());
        };
        self.claims.last_claim_at = Some(now);
        let seq = self.claims.next_seq;
        self.claims.seen(seq);
        disk.claim_queue(seq, handle)?;
        // From here on the claim is ours, whatever fails.
        let synced = self.sync_queue(disk);
        if synced.is_ok() {
            self.claims.forget_removed();
        }
        let active_at = if self.claims.left.is_some() { Instant::BOOT } else { now };
        self.claims.left = self.claims.left.map(|left| left.saturating_sub(1));
        let claim = Claim { handle: Some(handle), unread: true, active_at, ..Claim::new(seq, 0) };
        let _ = self.claims.list.push(claim);
        // A line that was written between the look and the rename is in the claim;
        // a writer that comes now makes a new file, which wakes us again.
        synced
    }

    /// Makes the names in the queue's folder durable.
    pub(super) fn sync_queue(&mut self, disk: &mut impl Disk) -> DiskResult {
        self.io_stats.syncs = self.io_stats.syncs.saturating_add(1);
        disk.sync_queue()
    }

    /// Takes one chunk of a claim; returns how many jobs it held.
    fn read_claim(
        &mut self,
        disk: &mut impl Disk,
        index: usize,
        scratch: &mut [u8],
        rules: &SpoolRules,
        now: Instant,
        report: &mut dyn FnMut(IngestNotice<'_>),
    ) -> DiskResult<u32> {
        let Some(mut claim) = self.claims.list.get(index).copied() else { return Ok(0) };
        let Some(handle) = claim.handle else { return Ok(0) };
        let chunk = scratch.get_mut(..CHUNK_BYTES).unwrap_or(&mut []);
        let count = match disk.read(SpoolFile::Claim(handle), claim.scanned, chunk) {
            Ok(count) => count,
            Err(error) => {
                self.claims.retry_later(index, now);
                report(IngestNotice::Unusable(error));
                return Ok(0);
            }
        };
        let bytes = chunk.get(..count).unwrap_or(&[]);
        let full = count == CHUNK_BYTES;
        claim.unread = full;
        let end = claim.scanned.saturating_add(count as u64);
        if end > claim.seen {
            claim.seen = end;
            claim.active_at = if self.claims.left.is_some() { Instant::BOOT } else { now };
        }
        let mut batch = ClaimBatch::begin(self, &claim);
        let mut used = 0usize;
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
            let Some(end) = find_newline(rest) else {
                if claim.skipping || (used == 0 && full) {
                    if !claim.skipping {
                        report(IngestNotice::Rejected(rest, TOO_LONG));
                    }
                    claim.skipping = true;
                    keep_rejected(disk, rest, report);
                    used = bytes.len();
                }
                break;
            };
            let (line, after) = (rest.get(..end).unwrap_or(&[]), end.saturating_add(1));
            if claim.skipping {
                keep_rejected(disk, rest.get(..after).unwrap_or(&[]), report);
                claim.skipping = false;
            } else if !batch.take_line(self, disk, line, rules, report) {
                claim.unread = true;
                break;
            }
            used = used.saturating_add(after);
        }
        claim.scanned = claim.scanned.saturating_add(used as u64);
        if !claim.skipping {
            claim.offset = claim.scanned;
        }
        let jobs = batch.finish(self, disk, &claim, now)?;
        if let Some(entry) = self.claims.list.get_mut(index) {
            *entry = claim;
        }
        Ok(jobs)
    }

    /// Gives the claims that were quiet long enough their end: what is left is
    /// a line without newline. Returns how many jobs were appended.
    fn close_quiet(
        &mut self,
        disk: &mut impl Disk,
        scratch: &mut [u8],
        rules: &SpoolRules,
        now: Instant,
        report: &mut dyn FnMut(IngestNotice<'_>),
    ) -> DiskResult<u32> {
        let mut added = 0u32;
        for index in 0..self.claims.list.len() {
            let Some(mut claim) = self.claims.list.get(index).copied() else { continue };
            let Some(handle) = claim.handle else { continue };
            if claim.unread || claim.closing || !(claim.active_at + CLAIM_QUIET).is_due(now) {
                continue;
            }
            let chunk = scratch.get_mut(..CHUNK_BYTES).unwrap_or(&mut []);
            let Ok(count) = disk.read(SpoolFile::Claim(handle), claim.scanned, chunk) else {
                self.claims.retry_later(index, now);
                continue;
            };
            let rest = chunk.get(..count).unwrap_or(&[]);
            if rest.contains(&b'\n') || count == CHUNK_BYTES {
                // Written at the last moment: not quiet after all.
                claim.unread = true;
                claim.active_at = now;
            } else {
                if !rest.is_empty() && !claim.skipping {
                    self.ensure_space(disk)?;
                }
                let mut batch = ClaimBatch::begin(self, &claim);
                if claim.skipping {
                    keep_rejected(disk, rest, report);
                    keep_rejected(disk, b"\n", report);
                } else if !batch.take_line(self, disk, rest, rules, report) {
                    self.buffer.clear();
                    continue;
                }
                claim.scanned = claim.scanned.saturating_add(count as u64);
                claim.offset = claim.scanned;
                claim.skipping = false;
                claim.closing = true;
                added = added.saturating_add(batch.finish(self, disk, &claim, now)?);
            }
            if let Some(entry) = self.claims.list.get_mut(index) {
                *entry = claim;
            }
        }
        Ok(added)
    }

    /// Removes the claims whose every line a commit made durable. Comes after that commit.
    ///
    /// # Errors
    /// One could not be removed; it is tried again.
    pub fn remove_closed(&mut self, disk: &mut impl Disk) -> DiskResult {
        for claim in &mut self.claims.list {
            let Some(handle) = claim.handle.filter(|_| claim.closing) else { continue };
            claim.closing = false;
            if disk.size(SpoolFile::Claim(handle))? > claim.scanned {
                // Written while we were committing: read on.
                claim.unread = true;
                continue;
            }
            if let Err(error) = disk.remove_claim(claim.seq, handle) {
                claim.closing = true;
                return Err(error);
            }
            claim.handle = None;
            claim.removed = true;
        }
        Ok(())
    }
}

/// Keeps a rejected line, or a part of one.
fn keep_rejected(disk: &mut impl Disk, bytes: &[u8], report: &mut dyn FnMut(IngestNotice<'_>)) {
    if let Err(error) = disk.reject(bytes) {
        report(IngestNotice::RejectedLost(error));
    }
}

/// Jobs of one claim that go into the journal together with its offset.
struct ClaimBatch {
    seq_low: u16,
    jobs: u32,
    bytes: u64,
    /// The offset in the journal when it began.
    offset: u64,
}

/// Size of the record at the head of a batch.
const HEAD_BYTES: usize = HEADER_BYTES + CLAIM_BODY_BYTES;

impl ClaimBatch {
    fn begin(spool: &mut Spool, claim: &Claim) -> Self {
        // Its place is kept; the record follows when all is known.
        spool.buffer.clear();
        let _ = spool.buffer.extend_from_slice(&[0; HEAD_BYTES]);
        Self { seq_low: claim.seq_low(), jobs: 0, bytes: 0, offset: claim.offset }
    }

    /// Takes a line. Returns true if the buffer and the queue had room.
    fn take_line(
        &mut self,
        spool: &mut Spool,
        disk: &mut impl Disk,
        line: &[u8],
        rules: &SpoolRules,
        report: &mut dyn FnMut(IngestNotice<'_>),
    ) -> bool {
        match classify(line) {
            Line::Empty => true,
            Line::Rejected(why) => {
                report(IngestNotice::Rejected(line, why));
                keep_rejected(disk, line, report);
                keep_rejected(disk, b"\n", report);
                true
            }
            Line::Job(text) => {
                let id = spool.totals.next_id.saturating_add(u64::from(self.jobs));
                let record = Record {
                    kind: RecordKind::Add,
                    flags: RecordFlags::CLAIMED,
                    id,
                    attempt: self.seq_low,
                    body: text,
                };
                if self.jobs >= spool.room(rules) || record.emit(&mut spool.buffer).is_err() {
                    return false;
                }
                self.jobs = self.jobs.saturating_add(1);
                self.bytes = self.bytes.saturating_add(record.size() as u64);
                true
            }
        }
    }

    /// Appends the batch to the journal, if the claim moved on.
    fn finish(self, spool: &mut Spool, disk: &mut impl Disk, claim: &Claim, now: Instant) -> DiskResult<u32> {
        if claim.offset == self.offset {
            spool.buffer.clear();
            return Ok(0);
        }
        let length = u32::try_from(spool.buffer.len().saturating_sub(HEAD_BYTES)).unwrap_or(0);
        let body = ClaimProgress { from: self.offset, to: claim.offset, batch_bytes: length }.emit();
        let mut head: Vec<u8, HEAD_BYTES> = Vec::new();
        let _ = Record { body: &body, ..Record::new(RecordKind::Claim, claim.seq, 0) }.emit(&mut head);
        if let Some(space) = spool.buffer.get_mut(..HEAD_BYTES) {
            space.copy_from_slice(&head);
        }
        spool.write_buffer(disk, now)?;
        spool.totals.next_id = spool.totals.next_id.saturating_add(u64::from(self.jobs));
        spool.totals.waiting = spool.totals.waiting.saturating_add(self.jobs);
        spool.totals.live_bytes = spool.totals.live_bytes.saturating_add(self.bytes);
        Ok(self.jobs)
    }
}
