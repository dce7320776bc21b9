//! Starting and ending jobs: what a slot of the window owes the journal, and how it moves
//! on when that is written.

use super::{Rules, Spool, text_or_excuse};
use crate::limits::RETRY_DELAY_MAX;
use crate::proto::journal::{
    BODY_MAX_BYTES, DEAD_PREFIX_BYTES, FLAG_DELAYED, FLAG_MOVED, Kind, RECORD_MAX_BYTES, Record,
};
use crate::state::backoff::delay;
use crate::state::disk::{Disk, DiskError};
use crate::state::window::{End, Outcome, Slot, State};
use crate::util::time::Instant;
use core::ops::Range;
use heapless::Vec;

impl Spool {
    /// Chooses the oldest job that can be started now. It is to be started
    /// after [`Spool::settle`] has put its start into the journal, and, from
    /// its second attempt on, after a commit.
    pub fn choose(&mut self, now: Instant) -> Option<Slot> {
        let id = self.window.startable(now)?;
        let slot = self.window.get_mut(id)?;
        slot.attempt = slot.attempt.saturating_add(1);
        slot.state = State::Starting;
        Some(*slot)
    }

    /// An attempt of job `id` ended. Says what follows from it; the journal
    /// learns it with the next [`Spool::settle`].
    pub fn ended(&mut self, id: u64, outcome: Outcome, rules: &Rules) -> Option<End> {
        let slot = self.window.get_mut(id)?;
        if slot.state == State::Cancelled {
            self.window.remove(id);
            return Some(End::Cancelled);
        }
        let end = match outcome {
            Outcome::Success => End::Done(outcome),
            _ if u32::from(slot.attempt) > rules.retries => End::Dead(outcome),
            _ => End::Fail(delay(rules.retry_delay, u32::from(slot.attempt), RETRY_DELAY_MAX)),
        };
        slot.state = State::Ended(end);
        Some(end)
    }

    /// Job `id` was stopped with the service: it waits again, and the attempt
    /// does not count.
    pub fn returned(&mut self, id: u64) {
        match self.window.get_mut(id) {
            Some(Slot { state: State::Cancelled, .. }) => drop(self.window.remove(id)),
            Some(slot) => slot.state = State::Ended(End::Back),
            None => {}
        }
    }

    /// Appends what the slots owe. Those whose record was written move on;
    /// the others are tried again by the next call.
    ///
    /// # Errors
    /// Something is still owed.
    pub fn settle(&mut self, disk: &mut impl Disk, now: Instant) -> Result<(), DiskError> {
        if !self.window.owes() {
            return Ok(());
        }
        // What is in the buffer counts only once it is written, so slots move
        // on, or leave, after each write.
        while self.window.owes() {
            self.buffer.clear();
            let mut upto = 0usize;
            while let Some(slot) = self.window.slots().get(upto).copied() {
                match self.buffer_takes_mark(disk, &slot) {
                    Ok(true) => upto = upto.saturating_add(1),
                    Ok(false) => break,
                    Err(error) => {
                        self.buffer.clear();
                        return Err(error);
                    }
                }
            }
            self.write_out(disk, now)?;
            self.advance(0..upto, now);
            let mut index = 0usize;
            self.window.retain(|slot| {
                index = index.saturating_add(1);
                index > upto || !matches!(slot.state, State::Ended(End::Done(_) | End::Dead(_)))
            });
        }
        Ok(())
    }

    /// Puts the record that a slot owes into the buffer; false if it has no
    /// room for it.
    fn buffer_takes_mark(&mut self, disk: &mut impl Disk, slot: &Slot) -> Result<bool, DiskError> {
        let Slot { id, attempt, state, .. } = *slot;
        let record = match state {
            State::Waiting | State::Delayed(_) | State::Running | State::Cancelled => return Ok(true),
            State::Ended(End::Cancelled) => return Ok(true),
            State::Starting => Record::new(Kind::Start, id, attempt),
            State::Ended(End::Done(_)) => Record::new(Kind::Done, id, attempt),
            State::Ended(End::Fail(_)) => Record::new(Kind::Fail, id, attempt),
            State::Ended(End::Back) => Record::new(Kind::Back, id, attempt.saturating_sub(1)),
            State::Ended(End::Dead(outcome)) => return self.buffer_takes_dead(disk, slot, outcome),
        };
        Ok(record.emit(&mut self.buffer).is_ok())
    }

    fn buffer_takes_dead(
        &mut self,
        disk: &mut impl Disk,
        slot: &Slot,
        outcome: Outcome,
    ) -> Result<bool, DiskError> {
        let mut body: Vec<u8, BODY_MAX_BYTES> = Vec::new();
        let mut text = [0; RECORD_MAX_BYTES];
        let text = text_or_excuse(disk, slot.place(), &mut text)?;
        let _ = body.extend_from_slice(&outcome.to_bytes());
        let _ = body.extend_from_slice(text);
        let record = Record { body: &body, ..Record::new(Kind::Dead, slot.id, slot.attempt) };
        Ok(record.emit(&mut self.buffer).is_ok())
    }

    /// The records of these slots are in the journal.
    fn advance(&mut self, range: Range<usize>, now: Instant) {
        let Some(slots) = self.window.slots_mut().get_mut(range) else { return };
        for slot in slots {
            let size = u64::from(slot.size);
            match slot.state {
                State::Starting => slot.state = State::Running,
                State::Ended(End::Fail(delay)) => slot.state = State::Delayed(now + delay),
                State::Ended(End::Back) => {
                    slot.attempt = slot.attempt.saturating_sub(1);
                    slot.state = State::Waiting;
                }
                State::Ended(End::Done(_)) => {
                    self.waiting = self.waiting.saturating_sub(1);
                    self.live_bytes = self.live_bytes.saturating_sub(size);
                }
                State::Ended(End::Dead(_)) => {
                    self.waiting = self.waiting.saturating_sub(1);
                    self.dead = self.dead.saturating_add(1);
                    self.live_bytes = self.live_bytes.saturating_add(DEAD_PREFIX_BYTES as u64);
                }
                State::Waiting | State::Delayed(_) | State::Running | State::Cancelled => {}
                State::Ended(End::Cancelled) => {}
            }
        }
    }

    /// Moves a delayed job behind the backlog if the window is full of
    /// delayed jobs, so that failing jobs do not hold up the others.
    ///
    /// # Errors
    /// It stays where it is.
    pub fn make_way(&mut self, disk: &mut impl Disk, now: Instant) -> Result<(), DiskError> {
        if self.compaction.is_active() || self.cursor >= self.end {
            return Ok(());
        }
        let Some(id) = self.window.blocker(now) else { return Ok(()) };
        let Some(slot) = self.window.get(id).copied() else { return Ok(()) };
        let mut buffer = [0; RECORD_MAX_BYTES];
        let text = text_or_excuse(disk, slot.place(), &mut buffer)?;
        let flags = FLAG_DELAYED | FLAG_MOVED;
        let record = Record { flags, body: text, ..Record::new(Kind::Add, id, slot.attempt) };
        self.put(disk, now, &record)?;
        self.write_out(disk, now)?;
        self.window.remove(id);
        Ok(())
    }
}
