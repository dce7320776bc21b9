//! What waits for the commit at the end of a turn: new jobs, which are one batch
//! and are taken back whole if they cannot be made durable, and the answers.

use super::Jobs;
use crate::state::disk::{DiskError, NO_SPACE};
use crate::util::time::Instant;

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
        self.control.replies.defer_id(client_slot, id);
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
}
