//! The table of claimed queue files: what was read of each, which are open,
//! and when the queue file may be claimed again. `ingest.rs` moves lines by it.

use crate::limits::{CLAIM_EVERY, CLAIM_QUIET, CLAIMS_MAX};
use crate::state::disk::{Disk, DiskResult};
use crate::util::time::Instant;
use heapless::Vec;

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
}

/// The claims, oldest first, and what is known of the queue file.
#[cfg_attr(test, derive(Clone, Hash))]
#[repr(C)]
pub struct Claims {
    pub(super) next_seq: u64,
    /// The queue file may have something.
    pub(super) wanted: bool,
    pub(super) last_claim_at: Option<Instant>,
    /// The errno of a queue file that cannot be used, which is logged once, and when to
    /// look again.
    pub(super) unusable: Option<(i32, Instant)>,
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
        unusable: None,
        left: None,
        paused: false,
    };

    /// Forgets all claims. The queue file is looked at first of all.
    pub(super) fn reset(&mut self) {
        self.list.clear();
        self.next_seq = 1;
        self.wanted = true;
        self.last_claim_at = None;
        self.unusable = None;
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
        self.next_seq = self.next_seq.max(seq.saturating_add(1));
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
            disk.claim_exists(claim.seq_low()).unwrap_or_else(|error| {
                result = Err(error);
                true
            })
        });
        result
    }

    /// Forgets the removed claims, because the removals are durable.
    pub(super) fn forget_removed(&mut self) {
        self.list.retain(|claim| !claim.removed);
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
    }

    /// Has the claims looked at, because they were written or it is time to look.
    pub fn look_at_claims(&mut self) {
        for claim in &mut self.list {
            claim.unread |= claim.handle.is_some();
        }
    }

    /// Prepares for another queue file. The lines that are in the old one now are taken,
    /// and claims are closed without waiting for their writers.
    pub fn leave_queue(&mut self) {
        self.left = Some(1);
        self.wanted = !self.paused;
        for claim in &mut self.list {
            claim.active_at = Instant::BOOT;
        }
    }

    /// Returns true if nothing is left to be claimed of the old queue file.
    fn has_left_queue(&self) -> bool {
        self.left == Some(0) || !self.wanted || self.unusable.is_some()
    }

    /// Returns true if nothing of an old queue file is open or left to be claimed. It does
    /// so once, and from then on the queue file is the new one.
    pub fn leaves_queue_now(&mut self) -> bool {
        let open = self.list.iter().any(|claim| claim.handle.is_some());
        if self.left.is_none() || open || !self.has_left_queue() {
            return false;
        }
        self.left = None;
        self.unusable = None;
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
        self.list.iter().any(|claim| claim.unread && claim.handle.is_some())
    }

    /// Returns when the ingest has something to do again, if nothing is written. A `full`
    /// queue closes no claim, and a full table makes none; the end of either wakes the
    /// service anyway.
    #[must_use]
    pub fn next_deadline(&self, now: Instant, full: bool) -> Option<Instant> {
        let closes = |claim: &&Claim| claim.handle.is_some() && !claim.unread && !claim.closing && !full;
        let quiet = self.list.iter().filter(closes).map(|claim| claim.active_at + CLAIM_QUIET);
        let free = !self.list.is_full() || self.list.iter().any(|claim| claim.removed);
        let claim = (self.wanted && free).then(|| self.claim_due().or_later(now));
        quiet.chain(claim).min()
    }

    /// Returns when the next claim is allowed.
    pub(super) fn claim_due(&self) -> Instant {
        let again = self.unusable.map_or(Instant::BOOT, |(_, again)| again);
        self.last_claim_at.map_or(Instant::BOOT, |last| last + CLAIM_EVERY).or_later(again)
    }

    /// Postpones a claim that cannot be read until it is written, or until it would have
    /// been quiet. Meanwhile the others are read.
    pub(super) fn retry_later(&mut self, index: usize, now: Instant) {
        if let Some(claim) = self.list.get_mut(index) {
            claim.unread = false;
            claim.active_at = now;
        }
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
        }
    }

    pub(super) fn seq_low(&self) -> u16 {
        let bytes = self.seq.to_le_bytes();
        u16::from_le_bytes([bytes[0], bytes[1]])
    }
}
