//! What waits for the commit at the end of a turn: new jobs, which are one group
//! and are taken back whole if they cannot be made durable, and the answers.

use super::Jobs;
use super::control::Owed;
use super::requests::{code_of, refuse, why_not};
use crate::limits::{CLIENT_OUTPUT_BYTES, CLIENTS_MAX};
use crate::proto::text::Writer;
use crate::state::disk::DiskError;
use crate::state::spool::NO_ROOM;
use crate::util::time::Instant;
use ufmt::uwrite;

impl Jobs {
    /// Adds a job to the turn's group; its answer follows the commit.
    ///
    /// # Errors
    /// There is no room, or the disk failed a moment ago.
    pub(super) fn add_job(&mut self, place: usize, text: &[u8], now: Instant) -> Result<(), DiskError> {
        if let Some(error) = self.control.group_error {
            return Err(error);
        }
        if let Some((at, error)) = self.spool_failure
            && !at.is_due(now)
        {
            return Err(error);
        }
        if self.no_room.is_some() {
            return Err(NO_ROOM);
        }
        if self.control.group.is_none() {
            let begun = self.spool.begin_adding(&mut self.disk, now);
            self.control.group = Some(begun.inspect_err(|error| self.control.group_error = Some(*error))?);
        }
        let id = match self.spool.add(&mut self.disk, now, text) {
            Ok(id) => id,
            Err(error) => {
                // All of the group get it after the turn.
                self.control.group_error = Some(error);
                0
            }
        };
        let owed = match self.control.owed(place) {
            Owed::Ids(first, count) => Owed::Ids(first, count.saturating_add(1)),
            _ => Owed::Ids(id, 1),
        };
        self.control.owe(place, owed);
        Ok(())
    }

    /// Takes the group back if it could not be written whole, so that nothing
    /// of it is committed.
    pub(super) fn check_group(&mut self) -> Result<(), DiskError> {
        self.control.group_error.map_or(Ok(()), |error| self.refuse_group(error))
    }

    /// Takes the group back; its clients get `error`, which is returned.
    pub(super) fn refuse_group(&mut self, error: DiskError) -> Result<(), DiskError> {
        self.control.group_error = Some(error);
        if let Some(mark) = self.control.group.take() {
            self.spool.roll_back(&mut self.disk, mark);
        }
        Err(error)
    }

    /// The commit succeeded or failed: whoever waited for it is told.
    #[inline(never)]
    pub(super) fn answer_owed(&mut self, durable: Result<(), DiskError>, now: Instant) {
        self.control.group = None;
        let group = self.control.group_error.take().map_or(durable, Err);
        for place in 0..CLIENTS_MAX {
            let owed = self.control.owed(place);
            if owed == Owed::Nothing {
                continue;
            }
            self.control.owe(place, Owed::Nothing);
            let mut answers = [0; CLIENT_OUTPUT_BYTES];
            let mut out = Writer::new(&mut answers);
            push_owed(owed, if matches!(owed, Owed::Ids(..)) { group } else { durable }, &mut out);
            self.reply(place, out.as_bytes(), now);
        }
    }

    /// Sends an answer that was waited for.
    pub(super) fn reply(&mut self, place: usize, answer: &[u8], now: Instant) {
        match self.control.clients.send(place, answer, now) {
            Ok(_) => self.close_if_finished(place),
            Err(_) => self.drop_client(place),
        }
    }
}

/// The answer after the commit.
fn push_owed(owed: Owed, durable: Result<(), DiskError>, out: &mut Writer<'_>) {
    match (owed, durable) {
        (Owed::Nothing, _) => {}
        (Owed::Ids(first, count), Ok(())) => {
            for id in (first..).take(count) {
                let _ = uwrite!(out, "ok id={}\n", id);
            }
        }
        (Owed::Ids(_, count), Err(error)) => {
            for _ in 0..count {
                refuse(out, code_of(error), why_not(error));
            }
        }
        (Owed::Job(id), Ok(())) => {
            let _ = uwrite!(out, "ok id={}\n", id);
        }
        (Owed::Cancelled(id, running), Ok(())) => {
            let was = if running { "running" } else { "waiting" };
            let _ = uwrite!(out, "ok id={} was={}\n", id, was);
        }
        (Owed::Count(count), Ok(())) => {
            let _ = uwrite!(out, "ok count={}\n", count);
        }
        (Owed::Job(_) | Owed::Cancelled(..) | Owed::Count(_), Err(error)) => {
            refuse(out, code_of(error), "done, but not on disk yet: a power cut may undo it");
        }
    }
}
