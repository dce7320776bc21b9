//! Starting and ending jobs: the pending record of a slot of the window, and the change of
//! its state when that is written.

use super::schedule::without_due;
use super::{EndKind, Spool, SpoolRules, parts_or_placeholder};
use crate::limits::{GIVEN_BACK_MAX, GIVEN_BACK_SOON, JOB_MAX_BYTES, RETRY_DELAY_MAX};
use crate::proto::attributes::{Attribute, Attributes, cut_off_of, given_back_of, replace};
use crate::proto::journal::{DEAD_PREFIX_BYTES, RECORD_MAX_BYTES, Record, RecordFlags, RecordKind, VERSION};
use crate::state::backoff::delay;
use crate::state::disk::{Disk, DiskResult};
use crate::state::window::{AttemptEnd, AttemptOutcome, JobState, Slot};
use crate::util::time::{Duration, Instant};
use core::ops::Range;
use heapless::Vec;

impl Spool {
    /// Dequeues the oldest job that can be started now and is not `held`. It is to be started
    /// after [`Spool::write_transitions`] has put its start into the journal, and, from
    /// its second attempt on, after a commit.
    pub fn dequeue(&mut self, now: Instant, held: &dyn Fn(&Slot) -> bool) -> Option<Slot> {
        let id = self.window.startable(now, held)?;
        let slot = self.window.get_mut(id)?;
        slot.attempt = slot.attempt.saturating_add(1);
        slot.state = JobState::Starting;
        Some(*slot)
    }

    /// Ends an attempt of job `id` and returns the consequence. The next
    /// [`Spool::write_transitions`] records it.
    pub fn ended(&mut self, id: u64, outcome: AttemptOutcome, rules: &SpoolRules) -> Option<AttemptEnd> {
        let slot = self.window.get_mut(id)?;
        if slot.state == JobState::Cancelled {
            self.window.remove(id);
            return Some(AttemptEnd::Cancelled);
        }
        let end = match outcome {
            AttemptOutcome::Success => AttemptEnd::Done(outcome),
            _ if u32::from(slot.attempt) > rules.retries => AttemptEnd::Dead(outcome),
            _ => AttemptEnd::Fail(delay(rules.retry_delay, u32::from(slot.attempt), RETRY_DELAY_MAX)),
        };
        // Any other end than a stop ends the row of stops, and any end that of deaths.
        (slot.state, slot.given_back, slot.cut_off) = (JobState::Ended(end), 0, 0);
        Some(end)
    }

    /// Has job `id` wait again, because it was stopped with the service `took` after its start.
    /// Returns `None` if the job has no attempt left for that, so that its attempt has to end.
    ///
    /// A stop costs no attempt. But a job that stops the service soon after each of its starts
    /// would do that for ever, so after [`GIVEN_BACK_MAX`] such stops in a row each one counts.
    pub fn give_back(&mut self, id: u64, took: Duration, rules: &SpoolRules) -> Option<AttemptEnd> {
        let slot = self.window.get_mut(id)?;
        let is_soon = !took.exceeds(GIVEN_BACK_SOON);
        slot.given_back = if is_soon { slot.given_back.saturating_add(1) } else { 0 };
        let counts = slot.given_back > GIVEN_BACK_MAX;
        if counts && u32::from(slot.attempt) > rules.retries {
            return None;
        }
        let end = if counts { AttemptEnd::RequeuedCounted } else { AttemptEnd::Requeued };
        (slot.state, slot.cut_off) = (JobState::Ended(end), 0);
        Some(end)
    }

    /// Has job `id` wait again, because it was stopped with the service. The attempt does
    /// not count.
    pub fn requeue(&mut self, id: u64) {
        match self.window.get_mut(id) {
            Some(Slot { state: JobState::Cancelled, .. }) => drop(self.window.remove(id)),
            Some(slot) => slot.state = JobState::Ended(AttemptEnd::Requeued),
            None => {}
        }
    }

    /// Appends the pending records of the slots. Those whose record was written change
    /// their state; the others are tried again by the next call.
    ///
    /// # Errors
    /// Some records are still pending.
    pub fn write_transitions(&mut self, disk: &mut impl Disk, now: Instant) -> DiskResult {
        if !self.window.has_pending_records() {
            return Ok(());
        }
        // A record in the buffer counts only once it is written, so slots change their
        // state, or leave, after each write.
        while self.window.has_pending_records() {
            self.buffer.clear();
            let counted = self.result_counts();
            let mut upto = 0usize;
            while let Some(slot) = self.window.slots().get(upto).copied() {
                match self.push_transition(disk, &slot) {
                    Ok(true) => upto = upto.saturating_add(1),
                    Ok(false) => break,
                    Err(error) => {
                        self.buffer.clear();
                        return Err(error);
                    }
                }
            }
            match self.write_with_results(disk, now, counted) {
                Ok(true) => self.apply_transitions(0..upto, now),
                Ok(false) => continue,
                Err(error) => return Err(error),
            }
            let mut index = 0usize;
            self.window.retain(|slot| {
                index = index.saturating_add(1);
                index > upto
                    || !matches!(slot.state, JobState::Ended(AttemptEnd::Done(_) | AttemptEnd::Dead(_)))
            });
        }
        Ok(())
    }

    /// Puts the pending record of a slot into the buffer; false if it has no
    /// room for it.
    fn push_transition(&mut self, disk: &mut impl Disk, slot: &Slot) -> DiskResult<bool> {
        let Slot { id, attempt, state, .. } = *slot;
        let given_back = [slot.given_back];
        let record = match state {
            JobState::Waiting | JobState::Delayed(_) | JobState::Running | JobState::Cancelled => {
                return Ok(true);
            }
            JobState::Ended(AttemptEnd::Cancelled) => return Ok(true),
            JobState::Starting => Record::new(RecordKind::Start, id, attempt),
            JobState::Ended(AttemptEnd::Done(_)) => {
                let record = Record::new(RecordKind::Done, id, attempt);
                return self.push_end(disk, slot, &record, EndKind::Done, 0);
            }
            JobState::Ended(AttemptEnd::Fail(_)) => Record::new(RecordKind::Fail, id, attempt),
            JobState::Ended(end @ (AttemptEnd::Requeued | AttemptEnd::RequeuedCounted)) => {
                let has_body = slot.given_back > 0 && self.journal.version >= VERSION;
                let body = given_back.get(..usize::from(has_body)).unwrap_or(&[]);
                let free = u16::from(end == AttemptEnd::Requeued);
                Record { body, ..Record::new(RecordKind::Requeued, id, attempt.saturating_sub(free)) }
            }
            JobState::Ended(AttemptEnd::Dead(outcome)) => {
                return self.push_dead_transition(disk, slot, outcome);
            }
        };
        Ok(record.emit(&mut self.buffer).is_ok())
    }

    /// Puts the record of a job that failed for good into the buffer. Not inlined, because a
    /// quiet turn would then keep its buffers on the stack.
    #[inline(never)]
    fn push_dead_transition(
        &mut self,
        disk: &mut impl Disk,
        slot: &Slot,
        outcome: AttemptOutcome,
    ) -> DiskResult<bool> {
        let mut body: Vec<u8, { DEAD_PREFIX_BYTES + JOB_MAX_BYTES }> = Vec::new();
        let mut buffer = [0; RECORD_MAX_BYTES];
        let (attributes, text) = parts_or_placeholder(disk, slot.location(), &mut buffer)?;
        let attributes = self.attributes_of(slot, attributes);
        let _ = body.extend_from_slice(&outcome.to_bytes());
        let _ = body.extend_from_slice(text);
        let record = Record {
            attributes: &attributes,
            body: &body,
            ..Record::new(RecordKind::Dead, slot.id, slot.attempt)
        };
        self.push_end(disk, slot, &record, EndKind::Dead, outcome.exit_status())
    }

    /// Returns the attributes of a new live record of a job, whose present one has `known`.
    pub(super) fn attributes_of(&self, slot: &Slot, known: &[u8]) -> Attributes {
        let mut attributes = Attributes::from_slice(known).unwrap_or_default();
        let counts = [
            (Attribute::GivenBack, given_back_of(known), slot.given_back),
            (Attribute::CutOff, cut_off_of(known), slot.cut_off),
        ];
        for (attribute, before, count) in counts {
            if before != count && self.journal.version >= VERSION {
                let value = [count];
                let value = value.get(..usize::from(count > 0)).unwrap_or(&[]);
                attributes = replace(&attributes, attribute, value);
            }
        }
        attributes
    }

    /// Changes the state of slots whose records were written.
    fn apply_transitions(&mut self, range: Range<usize>, now: Instant) {
        let Some(slots) = self.window.slots_mut().get_mut(range) else { return };
        for slot in slots {
            let size = u64::from(slot.size);
            match slot.state {
                JobState::Starting => slot.state = JobState::Running,
                JobState::Ended(AttemptEnd::Fail(delay)) => slot.state = JobState::Delayed(now + delay),
                JobState::Ended(end @ (AttemptEnd::Requeued | AttemptEnd::RequeuedCounted)) => {
                    slot.attempt = slot.attempt.saturating_sub(u16::from(end == AttemptEnd::Requeued));
                    slot.state = JobState::Waiting;
                }
                JobState::Ended(AttemptEnd::Done(_)) => {
                    self.totals.waiting = self.totals.waiting.saturating_sub(1);
                    self.totals.live_bytes = self.totals.live_bytes.saturating_sub(size);
                }
                JobState::Ended(AttemptEnd::Dead(_)) => {
                    self.totals.waiting = self.totals.waiting.saturating_sub(1);
                    self.totals.dead = self.totals.dead.saturating_add(1);
                    self.totals.live_bytes = self.totals.live_bytes.saturating_add(DEAD_PREFIX_BYTES as u64);
                }
                JobState::Waiting | JobState::Delayed(_) | JobState::Running | JobState::Cancelled => {}
                JobState::Ended(AttemptEnd::Cancelled) => {}
            }
        }
    }

    /// Moves a delayed job to the end of the backlog if the window is full of
    /// delayed jobs, so that failing jobs do not hold up the others.
    ///
    /// # Errors
    /// It stays where it is.
    pub fn defer_blocker(&mut self, disk: &mut impl Disk, now: Instant) -> DiskResult {
        if self.compaction.is_active() || self.journal.cursor >= self.journal.end {
            return Ok(());
        }
        let Some(id) = self.window.blocker(now) else { return Ok(()) };
        let Some(slot) = self.window.get(id).copied() else { return Ok(()) };
        let mut buffer = [0; RECORD_MAX_BYTES];
        let (attributes, text) = parts_or_placeholder(disk, slot.location(), &mut buffer)?;
        let attributes = &without_due(&self.attributes_of(&slot, attributes));
        let flags = RecordFlags::DELAYED | RecordFlags::MOVED;
        let record =
            Record { flags, attributes, body: text, ..Record::new(RecordKind::Add, id, slot.attempt) };
        self.append_record(disk, now, &record)?;
        self.write_buffer(disk, now)?;
        self.window.remove(id);
        self.totals.live_bytes =
            self.totals.live_bytes.saturating_sub(u64::from(slot.size)).saturating_add(record.size() as u64);
        Ok(())
    }
}
