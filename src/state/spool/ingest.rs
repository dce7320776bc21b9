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
//! - A writer may still have a claim open, so it is read on until it was quiet
//!   for [`CLAIM_QUIET`] and a read lease shows that no process has it open for
//!   writing; then a last line without newline is a job too, that is committed,
//!   and the file is removed. The lease is taken before the last read, checked
//!   after the commit, and never outlives the turn. Where there is none, the
//!   time decides.
//! - The journal must remember a removed claim until the removal is durable:
//!   a power cut may bring the file back. The next claim's sync settles that.
//! - After a failed sync of the folder a second one would succeed and mean
//!   nothing. So a claim whose name is not durable gets another name first, and
//!   nothing of it is read before a sync succeeded.
//! - An error of the queue file, of its folder or of a claim concerns nothing
//!   else: it is kept in [`Claims`](super::Claims), and tried again with a
//!   growing delay. Only an error of the spool itself is returned.

use super::claims::Claim;
use super::{Spool, SpoolRules};
use crate::limits::{CLAIM_GROWN_BYTES, CLAIM_QUIET};
use crate::proto::attributes::Attributes;
use crate::proto::journal::{CLAIM_BODY_BYTES, ClaimProgress, HEADER_BYTES, Record, RecordFlags, RecordKind};
use crate::state::disk::{Disk, DiskError, DiskResult, Lease, MISSING, QueueFile, SpoolFile};
use crate::util::lines::{Line, TOO_LONG, classify, find_newline};
use crate::util::time::Instant;
use heapless::Vec;

/// Maximum number of bytes read from claims in one turn, so that a flood of jobs delays
/// nothing else by more than one commit.
const INGEST_TURN_BYTES: usize = 64 * 1024;
/// The byte order mark that some editors put in front of a UTF-8 file. It is no part of the
/// first line.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Bytes that a read counts at least.
const READ_COST_BYTES: usize = 256;

/// Bytes read from a claim at once; a line that is longer is not a job.
const CHUNK_BYTES: usize = 4096;

/// A fact that the service logs for the user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IngestNotice<'a> {
    /// A line is not a job; its beginning and the reason.
    Rejected(&'a [u8], &'static str),
    /// A rejected line could not be kept.
    RejectedLost(DiskError),
}

impl Spool {
    /// Opens the claims of an earlier process, as many as there is room for. An operation that
    /// fails is tried again by [`Spool::ingest`].
    pub fn adopt_claims(&mut self, disk: &mut impl Disk, now: Instant) {
        let result = self.find_claims(disk);
        self.claims.adopting = result.is_err();
        match result {
            Ok(()) => self.open_claims(disk, now),
            Err(error) => self.claims.fail(error, now),
        }
    }

    /// Puts the claims that are on the disk into the table.
    fn find_claims(&mut self, disk: &mut impl Disk) -> DiskResult {
        let mut next = disk.next_claim(0)?;
        let mut unsynced = next.is_some();
        self.claims.more = false;
        while let Some(seq) = next {
            next = disk.next_claim(seq)?;
            self.claims.seen(seq);
            if self.claims.list.iter().any(|claim| claim.seq == seq) {
                continue;
            }
            // Its rename may not be durable yet: then it could turn back into
            // a queue file after its lines were journaled.
            if self.claims.list.push(Claim { synced: false, ..Claim::new(seq, 0) }).is_err() {
                self.claims.more = true;
                break;
            }
            unsynced = true;
        }
        self.claims.sort();
        // A claim of the journal may be gone, though not durably.
        if unsynced || self.claims.list.iter().any(|claim| claim.handle.is_none()) {
            self.sync_names(disk)?;
            self.claims.forget_missing(disk)?;
        }
        Ok(())
    }

    /// Opens the claims that are not open yet, as far as that is due.
    fn open_claims(&mut self, disk: &mut impl Disk, now: Instant) {
        for index in 0..self.claims.list.len() {
            let Some(claim) = self.claims.list.get(index).copied() else { return };
            if claim.handle.is_some() || claim.removed || !claim.is_retry_due(now) {
                continue;
            }
            let Some(handle) = self.claims.free_handle() else { return };
            let opened = disk.open_claim(claim.seq, handle);
            let Some(entry) = self.claims.list.get_mut(index) else { return };
            match opened {
                Ok(()) => {
                    (entry.handle, entry.unread, entry.active_at) = (Some(handle), true, now);
                    entry.failure = None;
                }
                Err(MISSING) => (entry.removed, entry.failure) = (true, None),
                Err(error) => self.claims.fail_claim(index, error, now),
            }
        }
    }

    /// Claims the queue file if that is due, and takes jobs from the claims,
    /// oldest first, as far as the queue has room and one turn's share goes.
    /// Returns how many jobs were appended; they count after a commit.
    ///
    /// # Errors
    /// The spool's disk refused something; nothing is lost, and it is tried again.
    #[inline(never)]
    pub fn ingest(
        &mut self,
        disk: &mut impl Disk,
        scratch: &mut [u8],
        rules: &SpoolRules,
        now: Instant,
        report: &mut dyn FnMut(IngestNotice<'_>),
    ) -> DiskResult<u32> {
        if self.claims.names_due().is_some_and(|due| due.is_due(now)) {
            self.repair_names(disk, now);
        }
        self.open_claims(disk, now);
        if let Err(error) = self.claim_queue(disk, now) {
            self.claims.fail(error, now);
        }
        let mut added = 0u32;
        let mut budget = INGEST_TURN_BYTES;
        let mut index = 0;
        while let Some(claim) = self.claims.list.get(index).copied() {
            if !claim.is_readable_at(now) {
                index = index.saturating_add(1);
                continue;
            }
            if budget == 0 || self.room(rules) == 0 {
                break;
            }
            self.upgrade(disk, now);
            self.ensure_space(disk)?;
            let jobs = self.read_claim(disk, index, scratch, rules, now, report)?;
            added = added.saturating_add(jobs);
            let read =
                self.claims.list.get(index).map_or(0, |after| after.scanned.saturating_sub(claim.scanned));
            // A claim without news costs little, so that many of them hide none after them.
            budget = budget.saturating_sub(usize::try_from(read).unwrap_or(CHUNK_BYTES).max(READ_COST_BYTES));
        }
        if self.room(rules) > 0 {
            added = added.saturating_add(self.close_quiet(disk, scratch, rules, now, report)?);
        }
        Ok(added)
    }

    /// Lists or syncs the folder again after that failed.
    #[inline(never)]
    fn repair_names(&mut self, disk: &mut impl Disk, now: Instant) {
        if !self.claims.adopting
            && let Err(error) = self.sync_names(disk)
        {
            return self.claims.fail(error, now);
        }
        if self.claims.adopting {
            self.adopt_claims(disk, now);
        }
        if !self.claims.wanted && self.claims.names_due().is_none() {
            self.claims.failure = None;
        }
    }

    /// Makes the names in the queue's folder durable. After a sync that failed, each claim
    /// whose name is not durable gets another one first. Nothing of it was read, so the
    /// journal does not know its number.
    pub(super) fn sync_names(&mut self, disk: &mut impl Disk) -> DiskResult {
        for index in 0..self.claims.list.len() {
            let Some(claim) = self.claims.list.get(index).copied() else { break };
            let Some(handle) = claim.handle.filter(|_| self.claims.sync_failed && !claim.synced) else {
                continue;
            };
            let next = self.claims.next_seq;
            disk.rename_claim(claim.seq, next, handle)?;
            self.claims.seen(next);
            if let Some(entry) = self.claims.list.get_mut(index) {
                entry.seq = next;
            }
        }
        self.claims.sort();
        let synced = self.sync_queue(disk);
        self.claims.sync_failed = synced.is_err();
        if synced.is_ok() {
            self.claims.names_synced();
        }
        synced
    }

    /// Renames the queue file to a new claim, if there is one and it is time.
    ///
    /// # Errors
    /// It cannot be claimed, or the name of the claim is not durable.
    #[inline(never)]
    fn claim_queue(&mut self, disk: &mut impl Disk, now: Instant) -> DiskResult {
        if !self.claims.wanted || self.claims.adopting || !self.claims.claim_due().is_due(now) {
            return Ok(());
        }
        match disk.queue_file() {
            QueueFile::Nothing => {
                self.claims.wanted = false;
                self.claims.crowded = false;
                if self.claims.names_due().is_none() {
                    self.claims.failure = None;
                }
                return Ok(());
            }
            QueueFile::Unusable(error) => return Err(error),
            QueueFile::Ready => {}
        }
        if self.claims.left == Some(0) {
            self.claims.wanted = false;
            return Ok(());
        }
        if self.claims.list.is_full() {
            self.sync_names(disk)?;
        }
        let free = self.claims.free_handle().filter(|_| !self.claims.list.is_full());
        self.claims.crowded = free.is_none();
        let Some(handle) = free else { return Ok(()) };
        self.claims.last_claim_at = Some(now);
        let seq = self.claims.next_seq;
        self.claims.seen(seq);
        match disk.claim_queue(seq, handle) {
            // Another process was faster.
            Err(MISSING) => return Ok(()),
            claimed => claimed?,
        }
        // From here on the claim is ours, whatever fails.
        let active_at = if self.claims.left.is_some() { Instant::BOOT } else { now };
        self.claims.left = self.claims.left.map(|left| left.saturating_sub(1));
        let claim =
            Claim { handle: Some(handle), unread: true, synced: false, active_at, ..Claim::new(seq, 0) };
        let _ = self.claims.list.push(claim);
        // A line that was written between the look and the rename is in the claim;
        // a writer that comes now makes a new file, which wakes us again.
        let synced = self.sync_queue(disk);
        // A claim is a name that changed, so this sync says something about the others, too.
        self.claims.sync_failed = synced.is_err();
        if synced.is_ok() {
            self.claims.names_synced();
            self.claims.failure = None;
        }
        synced
    }

    /// Makes the names in the queue's folder durable.
    pub(super) fn sync_queue(&mut self, disk: &mut impl Disk) -> DiskResult {
        self.totals.io.syncs = self.totals.io.syncs.saturating_add(1);
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
                self.claims.fail_claim(index, error, now);
                return Ok(0);
            }
        };
        claim.failure = None;
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
            let line = without_mark(line, claim.scanned.saturating_add(used as u64));
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

    /// Gives the claims that were quiet long enough, and that no process writes to, their end:
    /// what is left is a line without newline. Returns how many jobs were appended.
    fn close_quiet(
        &mut self,
        disk: &mut impl Disk,
        scratch: &mut [u8],
        rules: &SpoolRules,
        now: Instant,
        report: &mut dyn FnMut(IngestNotice<'_>),
    ) -> DiskResult<u32> {
        let mut added = 0u32;
        let beat = core::mem::take(&mut self.claims.beat);
        for index in 0..self.claims.list.len() {
            let Some(claim) = self.claims.list.get(index).copied() else { continue };
            let quiet = (claim.active_at + CLAIM_QUIET).is_due(now) && (beat || !claim.writer);
            // Only a question: a claim that is large and not quiet has a writer.
            let asked = beat && claim.seen > CLAIM_GROWN_BYTES;
            let Some(handle) = claim.handle.filter(|_| claim.is_idle_at(now) && (quiet || asked)) else {
                continue;
            };
            let lease = disk.lease_claim(handle);
            let slept = lease == Lease::Unknown && claim.has_slept(now);
            if let Some(entry) = self.claims.list.get_mut(index) {
                (entry.leased, entry.writer) = (lease == Lease::Held, lease == Lease::Writer);
                entry.active_at = if slept { now } else { entry.active_at };
            }
            let closed = if lease != Lease::Writer && quiet && !slept {
                self.close_claim(disk, index, scratch, rules, now, report)
            } else {
                Ok(0)
            };
            self.release_claim(disk, index, true);
            added = added.saturating_add(closed?);
        }
        Ok(added)
    }

    /// Reads the rest of a claim. Returns how many jobs were appended.
    fn close_claim(
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
                self.claims.fail_claim(index, error, now);
                return Ok(0);
            }
        };
        let rest = chunk.get(..count).unwrap_or(&[]);
        let mut added = 0;
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
            } else if !batch.take_line(self, disk, without_mark(rest, claim.scanned), rules, report) {
                self.buffer.clear();
                return Ok(0);
            }
            claim.scanned = claim.scanned.saturating_add(count as u64);
            claim.offset = claim.scanned;
            claim.skipping = false;
            claim.closing = true;
            added = batch.finish(self, disk, &claim, now)?;
        }
        if let Some(entry) = self.claims.list.get_mut(index) {
            *entry = claim;
        }
        Ok(added)
    }

    /// Gives back the lease on a claim; if `unless_closing`, only that of one whose end is not
    /// decided. A claim that is not removed under its lease is closed again later.
    fn release_claim(&mut self, disk: &mut impl Disk, index: usize, unless_closing: bool) {
        if let Some(claim) = self.claims.list.get_mut(index)
            && claim.leased
            && !(unless_closing && claim.closing)
            && let Some(handle) = claim.handle
        {
            disk.release_claim(handle);
            (claim.leased, claim.closing) = (false, false);
        }
    }

    /// Gives back every lease, because none may be held while the service waits.
    pub fn release_claims(&mut self, disk: &mut impl Disk) {
        for index in 0..self.claims.list.len() {
            self.release_claim(disk, index, false);
        }
    }

    /// Removes the claims whose every line a commit made durable. Comes after that commit.
    /// One that cannot be removed is tried again.
    pub fn remove_closed(&mut self, disk: &mut impl Disk, now: Instant) {
        for index in 0..self.claims.list.len() {
            let Some(claim) = self.claims.list.get(index).copied() else { continue };
            let Some(handle) = claim.handle.filter(|_| claim.closing) else { continue };
            let written = if claim.leased && !disk.holds_lease(handle) {
                // A process opens it for writing.
                Ok(true)
            } else {
                disk.size(SpoolFile::Claim(handle)).map(|size| size > claim.scanned)
            };
            let removed = match written {
                Ok(false) => disk.remove_claim(claim.seq, handle),
                other => other.map(drop),
            };
            let Some(entry) = self.claims.list.get_mut(index) else { continue };
            entry.closing = false;
            match (written, removed) {
                (_, Err(error)) => self.claims.fail_claim(index, error, now),
                (Ok(true), _) => {
                    // Written while we were committing: read on.
                    (entry.unread, entry.active_at) = (true, now);
                }
                _ => {
                    (entry.handle, entry.leased, entry.failure) = (None, false, None);
                    entry.removed = true;
                }
            }
        }
        self.release_claims(disk);
    }
}

/// Returns the line without the byte order mark that may be at the start of a file.
fn without_mark(line: &[u8], offset: u64) -> &[u8] {
    if offset > 0 { line } else { line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line) }
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
    /// The attributes of the jobs.
    attributes: Attributes,
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
        let attributes = spool.new_attributes();
        Self { seq_low: claim.seq_low(), attributes, jobs: 0, bytes: 0, offset: claim.offset }
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
                    flags: RecordFlags::CLAIMED,
                    attributes: &self.attributes,
                    body: text,
                    ..Record::new(RecordKind::Add, id, self.seq_low)
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
