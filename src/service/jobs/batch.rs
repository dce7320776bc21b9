//! What waits for the commit at the end of a turn: new jobs, which are one batch
//! and are taken back whole if they cannot be made durable, and the answers.

use super::Jobs;
use super::control::PendingReply;
use super::requests::{error_code, error_text, refuse};
use crate::limits::{CLIENT_OUTPUT_BYTES, CLIENTS_MAX};
use crate::state::disk::{DiskError, NO_SPACE};
use crate::util::text::Writer;
use crate::util::time::Instant;
use ufmt::uwrite;

impl Jobs {
    /// Adds a job to the turn's batch; its answer follows the commit.
    ///
    /// # Errors
    /// There is no room, or the disk failed a moment ago.
    pub(super) fn add_job(&mut self, client_slot: usize, text: &[u8], now: Instant) -> Result<(), DiskError> {
        if let Some(error) = self.control.batch_error {
            return Err(error);
        }
        if let Some((at, error)) = self.spool_failure
            && !at.is_due(now)
        {
            return Err(error);
        }
        if self.space_retry_at.is_some() {
            return Err(NO_SPACE);
        }
        if self.control.batch.is_none() {
            let begun = self.spool.begin_batch(&mut self.disk, now);
            self.control.batch = Some(begun.inspect_err(|error| self.control.batch_error = Some(*error))?);
        }
        let id = match self.spool.add(&mut self.disk, now, text) {
            Ok(id) => id,
            Err(error) => {
                // All of the batch get it after the turn.
                self.control.batch_error = Some(error);
                0
            }
        };
        let pending = match self.control.pending_reply(client_slot) {
            PendingReply::Ids(first, count) => PendingReply::Ids(first, count.saturating_add(1)),
            _ => PendingReply::Ids(id, 1),
        };
        self.control.defer_reply(client_slot, pending);
        Ok(())
    }

    /// Takes the batch back if it could not be written whole, so that nothing
    /// of it is committed.
    pub(super) fn check_batch(&mut self) -> Result<(), DiskError> {
        self.control.batch_error.map_or(Ok(()), |error| self.fail_batch(error))
    }

    /// Takes the batch back; its clients get `error`, which is returned.
    pub(super) fn fail_batch(&mut self, error: DiskError) -> Result<(), DiskError> {
        self.control.batch_error = Some(error);
        if let Some(savepoint) = self.control.batch.take() {
            self.spool.roll_back(&mut self.disk, savepoint);
        }
        Err(error)
    }

    /// The commit succeeded or failed: whoever waited for it is told.
    #[inline(never)]
    pub(super) fn send_pending_replies(&mut self, durable: Result<(), DiskError>, now: Instant) {
        self.control.batch = None;
        let batch = self.control.batch_error.take().map_or(durable, Err);
        for client_slot in 0..CLIENTS_MAX {
            let pending = self.control.pending_reply(client_slot);
            if pending == PendingReply::None {
                continue;
            }
            self.control.defer_reply(client_slot, PendingReply::None);
            let mut answers = [0; CLIENT_OUTPUT_BYTES];
            let mut out = Writer::new(&mut answers);
            push_reply(
                pending,
                if matches!(pending, PendingReply::Ids(..)) { batch } else { durable },
                &mut out,
            );
            self.send_reply(client_slot, out.as_bytes(), now);
        }
    }

    /// Sends an answer that was waited for.
    pub(super) fn send_reply(&mut self, client_slot: usize, answer: &[u8], now: Instant) {
        match self.control.clients.send(client_slot, answer, now) {
            Ok(_) => self.close_if_finished(client_slot),
            Err(_) => self.drop_client(client_slot),
        }
    }
}

/// The answer after the commit.
fn push_reply(pending: PendingReply, durable: Result<(), DiskError>, out: &mut Writer<'_>) {
    match (pending, durable) {
        (PendingReply::None, _) => {}
        (PendingReply::Ids(first, count), Ok(())) => {
            for id in (first..).take(count) {
                let _ = uwrite!(out, "ok id={}\n", id);
            }
        }
        (PendingReply::Ids(_, count), Err(error)) => {
            for _ in 0..count {
                refuse(out, error_code(error), error_text(error));
            }
        }
        (PendingReply::Job(id), Ok(())) => {
            let _ = uwrite!(out, "ok id={}\n", id);
        }
        (PendingReply::Cancelled(id, running), Ok(())) => {
            let was = if running { "running" } else { "waiting" };
            let _ = uwrite!(out, "ok id={} was={}\n", id, was);
        }
        (PendingReply::Count(count), Ok(())) => {
            let _ = uwrite!(out, "ok count={}\n", count);
        }
        (PendingReply::Job(_) | PendingReply::Cancelled(..) | PendingReply::Count(_), Err(error)) => {
            refuse(out, error_code(error), "done, but not on disk yet: a power cut may undo it");
        }
    }
}
