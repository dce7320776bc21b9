//! Cancelling, retrying and forgetting single jobs. (All dead ones at once:
//! `compact.rs`, [`super::Purpose`].)
//!
//! Each appends one record, and counts once that is committed. A job in the
//! window leaves it; the home of another is remembered as void until the next
//! compaction leaves it out.

use super::{Home, Spool};
use crate::proto::journal::{FLAG_DEAD, Kind, RECORD_MAX_BYTES, Record};
use crate::state::disk::{Disk, DiskError};
use crate::state::spool::search::Place;
use crate::state::window::State;
use crate::util::time::Instant;

/// What a job was that [`Spool::cancel`] found in the window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cancelled {
    /// It waited; it is gone.
    Waiting,
    /// Its handler runs, and must be ended.
    Running,
    /// It is over, but for its handler or its record.
    Over,
}

impl Spool {
    /// Cancels job `id` if it is in the window. What it owes the journal must
    /// be settled.
    ///
    /// # Errors
    /// The disk refused it; nothing changed.
    pub fn cancel(
        &mut self,
        disk: &mut impl Disk,
        now: Instant,
        id: u64,
    ) -> Result<Option<Cancelled>, DiskError> {
        let Some(slot) = self.window.get(id).copied() else { return Ok(None) };
        let found = match slot.state {
            State::Ended(_) | State::Cancelled => return Ok(Some(Cancelled::Over)),
            State::Running => Cancelled::Running,
            State::Waiting | State::Delayed(_) | State::Starting => Cancelled::Waiting,
        };
        self.append_void(disk, now, slot.place())?;
        match self.window.get_mut(id) {
            Some(slot) if found == Cancelled::Running => slot.state = State::Cancelled,
            _ => drop(self.window.remove(id)),
        }
        self.uncount_waiting(slot.size);
        Ok(Some(found))
    }

    /// Whether no more jobs beyond the window can be steered until the journal
    /// was written anew.
    #[must_use]
    pub fn is_steering_full(&self) -> bool {
        self.voids.is_full()
    }

    /// Cancels a waiting job, or forgets a dead one, beyond the window. There
    /// must be room: [`Spool::is_steering_full`].
    ///
    /// # Errors
    /// The disk refused it; nothing changed.
    pub fn drop_home(&mut self, disk: &mut impl Disk, now: Instant, place: Place) -> Result<(), DiskError> {
        self.append_void(disk, now, place)?;
        let _ = self.voids.push(home_at(place));
        self.need_not_meet(place);
        if place.dead {
            self.uncount_dead(place.size);
        } else {
            self.uncount_waiting(place.size);
        }
        Ok(())
    }

    /// A dead job waits again, behind the others. There must be room:
    /// [`Spool::is_steering_full`].
    ///
    /// # Errors
    /// The disk refused it; nothing changed.
    pub fn retry(&mut self, disk: &mut impl Disk, now: Instant, place: Place) -> Result<(), DiskError> {
        self.write_out(disk, now)?;
        let mut buffer = [0; RECORD_MAX_BYTES];
        let text = super::text_or_excuse(disk, place, &mut buffer)?;
        let record =
            Record { flags: FLAG_DEAD, body: text, ..Record::new(Kind::Add, place.id, place.attempt) };
        self.put(disk, now, &record)?;
        self.write_out(disk, now)?;
        let _ = self.voids.push(home_at(place));
        self.need_not_meet(place);
        self.uncount_dead(place.size);
        self.count_added(&record);
        Ok(())
    }

    fn append_void(&mut self, disk: &mut impl Disk, now: Instant, place: Place) -> Result<(), DiskError> {
        self.write_out(disk, now)?;
        let body = place.size.to_le_bytes();
        let flags = if place.dead { FLAG_DEAD } else { 0 };
        let record = Record { flags, body: &body, ..Record::new(Kind::Void, place.id, place.attempt) };
        self.put(disk, now, &record)?;
        self.write_out(disk, now)
    }

    /// One less waits.
    pub(super) fn uncount_waiting(&mut self, size: u16) {
        self.waiting = self.waiting.saturating_sub(1);
        self.live_bytes = self.live_bytes.saturating_sub(u64::from(size));
    }

    /// One less is dead.
    pub(super) fn uncount_dead(&mut self, size: u16) {
        self.dead = self.dead.saturating_sub(1);
        self.live_bytes = self.live_bytes.saturating_sub(u64::from(size));
    }
}

/// What identifies the home at `place`.
fn home_at(place: Place) -> Home {
    (place.id, place.attempt, place.dead)
}
