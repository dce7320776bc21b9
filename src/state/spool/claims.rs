//! The table of claimed queue files: what was read of each, which are open,
//! and when the queue file may be claimed again. `ingest.rs` moves lines by it.

use crate::limits::{CLAIM_EVERY, CLAIM_GROWN_BYTES, CLAIM_QUIET, CLAIMS_MAX};
use crate::state::backoff::delay;
use crate::state::disk::{Disk, DiskError, DiskResult};
use crate::util::time::{Duration, Instant, earliest};
use heapless::Vec;

/// Claim numbers from here on are not followed, because no service reaches them, and the number
/// after them might be none of a claim. A damaged record or a planted file can have one.
const SEEN_SEQ_MAX: u64 = u64::MAX / 4;

/// Time until the first retry of the queue file, or of a claim, after an error. The time
/// doubles with each failure.
const QUEUE_RETRY: Duration = Duration::from_ms(1000);
/// Maximum time until the next retry of the queue file, or of a claim.
const QUEUE_RETRY_MAX: Duration = Duration::from_ms(8000);

/// An operation that failed and is tried again.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Retry {
    /// Why it failed.
    error: DiskError,
    /// How often it failed in a row.
    failures: u32,
    /// When it is tried again.
    at: Instant,
}

impl Retry {
    /// Returns the retry after one more failure.
    fn after(previous: Option<Self>, error: DiskError, now: Instant) -> Self {
        let failures = previous.map_or(1, |retry| retry.failures.saturating_add(1));
        Self { error, failures, at: now + delay(QUEUE_RETRY, failures, QUEUE_RETRY_MAX) }
    }
}

/// Time after the end of a claim's quiet from which it is likely that the board was suspended.
const SLEPT: Duration = Duration::from_ms(1000);

/// A change of the degraded states `queue-file` and `claims`, which the service logs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueNotice {
    /// The queue file or its folder cannot be used.
    FileFails,
    /// The queue file can be used again.
    FileWorks,
    /// A claim cannot be opened, read or removed.
    ClaimFails,
    /// A writer keeps the claim with this number open, and that holds up the service.
    ClaimHeld(u64),
    /// No claim fails any more.
    ClaimsWork,
}

/// One claimed queue file.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Claim {
    /// Its number.
    pub(super) seq: u64,
    /// Everything before this is in the journal.
    pub(super) offset: u64,
    /// Everything before this was looked at: beyond `offset` only inside a
    /// line that is too long.
    pub(super) scanned: u64,
    /// The furthest byte that was seen, an unfinished line included.
    pub(super) seen: u64,
    /// Where the disk has it open.
    pub(super) handle: Option<u8>,
    /// Inside a line that is too long.
    pub(super) skipping: bool,
    /// There may be something to read.
    pub(super) unread: bool,
    /// When it last had something to read.
    pub(super) active_at: Instant,
    /// Read to its end for good; to be removed after the next commit.
    pub(super) closing: bool,
    /// Its file was removed, though not yet durably.
    pub(super) removed: bool,
    /// Its name is durable. Before that its lines must not be journaled.
    pub(super) synced: bool,
    /// A writer had it open when the service last asked.
    pub(super) writer: bool,
    /// The service has a read lease on it, for the rest of this turn.
    pub(super) leased: bool,
    /// Why it cannot be opened, read or removed, and when that is tried again.
    pub(super) failure: Option<Retry>,
}

/// The claims, oldest first, and what is known of the queue file.
#[cfg_attr(test, derive(Clone, Hash))]
#[repr(C)]
pub struct Claims {
    pub(super) next_seq: u64,
    /// The queue file may have something.
    pub(super) wanted: bool,
    pub(super) last_claim_at: Option<Instant>,
    /// Why the queue file or its folder cannot be used, and when that is tried again.
    pub(super) failure: Option<Retry>,
    /// The claims of an earlier process are still to be opened. No claim is made before,
    /// because it could replace one of them.
    pub(super) adopting: bool,
    /// Claims of an earlier process found no room in the table.
    pub(super) more: bool,
    /// A sync of the folder failed, and no name in it has changed since.
    pub(super) sync_failed: bool,
    /// A heartbeat has passed: claims whose writers were there may be tried again.
    pub(super) beat: bool,
    /// The queue file has lines, and the table has no room for another claim.
    pub(super) crowded: bool,
    /// The error of the queue file that was logged.
    logged_file: Option<DiskError>,
    /// Whether a failing claim was logged.
    logged_claims: bool,
    /// How many claims of the old queue file are still made, if it is about to be
    /// replaced.
    pub(super) left: Option<u32>,
    /// The queue file is left alone: the service takes no new jobs.
    pub(super) paused: bool,
    pub(super) list: Vec<Claim, CLAIMS_MAX>,
}

impl Claims {
    /// All zeros, to be filled in place by `Claims::reset`.
    pub const EMPTY: Self = Self {
        list: Vec::new(),
        next_seq: 0,
        wanted: false,
        last_claim_at: None,
        failure: None,
        adopting: false,
        more: false,
        sync_failed: false,
        beat: false,
        crowded: false,
        logged_file: None,
        logged_claims: false,
        left: None,
        paused: false,
    };

    /// Forgets all claims. The queue file is looked at first of all.
    pub(super) fn reset(&mut self) {
        self.list.clear();
        self.next_seq = 1;
        self.wanted = true;
        self.last_claim_at = None;
        self.failure = None;
        (self.adopting, self.more) = (true, false);
        (self.sync_failed, self.beat, self.crowded) = (false, false, false);
        self.left = None;
        self.paused = false;
    }

    // ----- for the journal ------------------------------------------------

    /// Returns the number of the next claim.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Notes that a claim with this number existed.
    pub(super) fn seen(&mut self, seq: u64) {
        if seq < SEEN_SEQ_MAX {
            self.next_seq = self.next_seq.max(seq.saturating_add(1));
        }
    }

    /// Notes that claim `seq` was read up to `offset`, according to the journal.
    pub(super) fn set_offset(&mut self, disk: &mut impl Disk, seq: u64, offset: u64) -> DiskResult {
        self.seen(seq);
        if let Some(claim) = self.list.iter_mut().find(|claim| claim.seq == seq) {
            *claim = Claim::new(seq, claim.offset.max(offset));
            return Ok(());
        }
        if self.list.is_full() {
            self.forget_missing(disk)?;
        }
        let _ = self.list.push(Claim::new(seq, offset));
        Ok(())
    }

    /// Returns up to where the journal has claim `seq`.
    pub(super) fn offset_of(&self, seq: u64) -> u64 {
        self.list.iter().find(|claim| claim.seq == seq).map_or(0, |claim| claim.offset)
    }

    /// Forgets the claims that are no longer on the disk; none of which that is
    /// not certain, because what was read of it would be read again.
    pub(super) fn forget_missing(&mut self, disk: &mut impl Disk) -> DiskResult {
        let mut result = Ok(());
        self.list.retain(|claim| {
            if claim.handle.is_some() {
                return true;
            }
            disk.claim_exists(claim.seq_low()).unwrap_or_else(|error| {
                result = Err(error);
                true
            })
        });
        result
    }

    /// Notes that the names in the queue's folder are durable: forgets the removed claims,
    /// and lets those be read whose names were not.
    pub(super) fn names_synced(&mut self) {
        self.list.retain(|claim| !claim.removed);
        self.list.iter_mut().for_each(|claim| claim.synced = true);
        // There may be room for claims that found none.
        self.adopting |= self.more && !self.list.is_full();
    }

    /// Returns how many claims the journal must remember.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns true if there is no claim.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns number and offset of the claim at `index`.
    pub(super) fn offset_at(&self, index: usize) -> Option<(u64, u64)> {
        self.list.get(index).map(|claim| (claim.seq, claim.offset))
    }

    // ----- for the service ------------------------------------------------

    /// Has the queue file looked at, because it was written or it is time to look.
    pub fn look_at_queue(&mut self) {
        self.wanted = !self.paused;
    }

    /// Leaves the queue file alone from now on. The claims are read.
    pub fn pause(&mut self) {
        self.paused = true;
        self.wanted = false;
        self.failure = None;
    }

    /// Has the claims looked at, because they were written or it is time to look.
    pub fn look_at_claims(&mut self) {
        for claim in &mut self.list {
            claim.unread |= claim.handle.is_some();
        }
    }

    /// Notes that a heartbeat has passed. Claims that their writers keep open are tried again
    /// in the next turn, which the next heartbeat begins at the latest.
    pub fn on_heartbeat(&mut self) {
        self.beat = true;
    }

    /// Has everything that failed tried again at once, because a person asked for it.
    pub fn retry_now(&mut self) {
        self.look_at_queue();
        self.beat = true;
        let claims = self.list.iter_mut().map(|claim| &mut claim.failure);
        for retry in claims.chain([&mut self.failure]).flatten() {
            retry.at = Instant::BOOT;
        }
    }

    /// Turns to another folder at the same path. Claims that an earlier process left there are
    /// found first, and nothing is claimed before.
    pub fn folder_changed(&mut self) {
        self.adopting = true;
        self.retry_now();
    }

    /// Prepares for another queue file. The lines that are in the old one now are taken,
    /// and claims are closed without waiting for them to be quiet.
    pub fn leave_queue(&mut self) {
        self.left = Some(1);
        self.wanted = !self.paused;
        for claim in &mut self.list {
            claim.active_at = Instant::BOOT;
        }
    }

    /// Returns true if nothing is left to be claimed of the old queue file.
    fn has_left_queue(&self) -> bool {
        self.left == Some(0) || !self.wanted || self.failure.is_some()
    }

    /// Returns true if nothing of an old queue file is open or left to be claimed. It does
    /// so once, and from then on the queue file is the new one.
    pub fn leaves_queue_now(&mut self) -> bool {
        let open = self.list.iter().any(|claim| claim.handle.is_some());
        if self.left.is_none() || open || !self.has_left_queue() {
            return false;
        }
        self.left = None;
        self.failure = None;
        self.wanted = !self.paused;
        true
    }

    /// Returns true if a claim is ready to be removed after a commit.
    #[must_use]
    pub fn wants_commit(&self) -> bool {
        self.list.iter().any(|claim| claim.closing)
    }

    /// Returns true if there is something to read at once.
    #[must_use]
    pub fn wants_reading(&self) -> bool {
        self.list.iter().any(|claim| claim.is_readable() && claim.failure.is_none())
    }

    /// Returns when the ingest has something to do again, if nothing is written. A `full`
    /// queue closes no claim, and a full table makes none; the end of either wakes the
    /// service anyway. So does the end of a writer, with a heartbeat.
    #[must_use]
    pub fn next_deadline(&self, now: Instant, full: bool) -> Option<Instant> {
        let closes = |claim: &Claim| claim.is_open() && !claim.unread && !claim.writer && !full;
        let due_at = |claim: &Claim| match claim.failure {
            Some(retry) => (!claim.removed && (!full || claim.handle.is_none())).then_some(retry.at),
            None => closes(claim).then(|| claim.active_at + CLAIM_QUIET),
        };
        let free = !self.list.is_full() || self.list.iter().any(|claim| claim.removed);
        let claim = (self.wanted && free).then(|| self.claim_due());
        let due = earliest(claim, self.names_due()).map(|due| due.or_later(now));
        self.list.iter().fold(due, |due, claim| earliest(due, due_at(claim)))
    }

    /// Returns when the folder is to be listed or synced, if it is.
    pub(super) fn names_due(&self) -> Option<Instant> {
        let unsynced = self.list.iter().any(|claim| !claim.synced);
        let room = self.more && self.list.iter().any(|claim| claim.removed);
        (self.adopting || unsynced || room).then(|| self.failure.map_or(Instant::BOOT, |retry| retry.at))
    }

    // ----- what fails -------------------------------------------------------

    /// Returns true if the queue file or its folder cannot be used.
    #[must_use]
    pub fn file_fails(&self) -> bool {
        self.failure.is_some()
    }

    /// Returns true if a claim fails, or a writer holds one up.
    #[must_use]
    pub fn claims_fail(&self) -> bool {
        self.list.iter().any(|claim| claim.failure.is_some()) || self.held().is_some()
    }

    /// Returns the first claim that its writer keeps open although it has become large, or
    /// although another queue file or the whole table waits for its end.
    fn held(&self) -> Option<u64> {
        let stuck = |claim: &Claim| claim.writer || claim.failure.is_some();
        let waited_for = self.left.is_some() || (self.crowded && self.list.iter().all(stuck));
        let held = |claim: &&Claim| claim.writer && (waited_for || claim.seen > CLAIM_GROWN_BYTES);
        self.list.iter().find(held).map(|claim| claim.seq)
    }

    /// Returns the next change of what fails since the last call, for the log.
    pub fn take_notice(&mut self) -> Option<QueueNotice> {
        let error = self.failure.map(|retry| retry.error);
        if error != self.logged_file {
            self.logged_file = error;
            return Some(if error.is_some() { QueueNotice::FileFails } else { QueueNotice::FileWorks });
        }
        if self.claims_fail() == self.logged_claims {
            return None;
        }
        self.logged_claims = !self.logged_claims;
        Some(match (self.logged_claims, self.held()) {
            (false, _) => QueueNotice::ClaimsWork,
            (true, Some(seq)) if self.list.iter().all(|claim| claim.failure.is_none()) => {
                QueueNotice::ClaimHeld(seq)
            }
            (true, _) => QueueNotice::ClaimFails,
        })
    }

    /// Notes that the queue file or its folder cannot be used.
    pub(super) fn fail(&mut self, error: DiskError, now: Instant) {
        self.failure = Some(Retry::after(self.failure, error, now));
    }

    /// Notes that the claim at `index` cannot be opened, read or removed. Meanwhile the others
    /// are read.
    pub(super) fn fail_claim(&mut self, index: usize, error: DiskError, now: Instant) {
        if let Some(claim) = self.list.get_mut(index) {
            claim.failure = Some(Retry::after(claim.failure, error, now));
        }
    }

    /// Returns when the next claim is allowed.
    pub(super) fn claim_due(&self) -> Instant {
        let again = self.failure.map_or(Instant::BOOT, |retry| retry.at);
        self.last_claim_at.map_or(Instant::BOOT, |last| last + CLAIM_EVERY).or_later(again)
    }

    /// Sorts the claims, oldest first. They nearly always are already.
    pub(super) fn sort(&mut self) {
        for end in 1..self.list.len() {
            let mut at = end;
            while let Some([before, claim]) =
                at.checked_sub(1).and_then(|start| self.list.get_mut(start..=at))
                && before.seq > claim.seq
            {
                core::mem::swap(before, claim);
                at = at.saturating_sub(1);
            }
        }
    }

    /// Returns a handle that no open claim has.
    pub(super) fn free_handle(&self) -> Option<u8> {
        (0..CLAIMS_MAX)
            .filter_map(|handle| u8::try_from(handle).ok())
            .find(|handle| !self.list.iter().any(|claim| claim.handle == Some(*handle)))
    }
}

impl Claim {
    pub(super) fn new(seq: u64, offset: u64) -> Self {
        Self {
            seq,
            offset,
            scanned: offset,
            seen: offset,
            handle: None,
            skipping: false,
            unread: false,
            active_at: Instant::BOOT,
            closing: false,
            removed: false,
            synced: true,
            writer: false,
            leased: false,
            failure: None,
        }
    }

    /// Returns true if it is open, its name is durable, and its end is not decided.
    fn is_open(&self) -> bool {
        self.handle.is_some() && self.synced && !self.closing
    }

    /// Returns true if it may have something to read.
    fn is_readable(&self) -> bool {
        self.is_open() && self.unread
    }

    /// Returns true if it is read as far as is known, and nothing keeps it from being closed
    /// at `now`.
    pub(super) fn is_idle_at(&self, now: Instant) -> bool {
        self.is_open() && !self.unread && self.is_retry_due(now)
    }

    /// Returns true if its quiet time ended so long before `now` that the board was suspended in it, with
    /// the writers. A claim that is not to be waited for has no such time, and one that failed is late for
    /// that reason.
    pub(super) fn has_slept(&self, now: Instant) -> bool {
        let is_late = (self.active_at + CLAIM_QUIET + SLEPT).is_due(now);
        is_late && self.active_at > Instant::BOOT && self.failure.is_none()
    }

    /// Returns true if nothing keeps the service from trying it at `now`.
    pub(super) fn is_retry_due(&self, now: Instant) -> bool {
        self.failure.is_none_or(|retry| retry.at.is_due(now))
    }

    /// Returns true if it may have something to read at `now`.
    pub(super) fn is_readable_at(&self, now: Instant) -> bool {
        self.is_readable() && self.is_retry_due(now)
    }

    pub(super) fn seq_low(&self) -> u16 {
        let bytes = self.seq.to_le_bytes();
        u16::from_le_bytes([bytes[0], bytes[1]])
    }
}
