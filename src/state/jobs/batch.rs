//! New jobs of clients in one turn: one batch, which is committed at the end of the turn
//! or taken back whole.

use crate::state::disk::{Disk, DiskError, DiskResult};
use crate::state::spool::{Savepoint, Spool};
use crate::util::time::{Duration, Instant};

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    /// Where the batch began.
    savepoint: Option<Savepoint>,
    /// Why the batch cannot be made durable.
    error: Option<DiskError>,
}

impl Batch {
    /// No job was added.
    pub(super) const NONE: Self = Self { savepoint: None, error: None };

    /// Returns true if jobs were added that are not committed.
    pub(super) fn is_open(&self) -> bool {
        self.savepoint.is_some()
    }

    /// Adds a job, which waits for `delay` first if there is one, and returns its id. If its record cannot be appended, the whole batch
    /// fails, and the id means nothing.
    ///
    /// # Errors
    /// The batch failed before, or cannot begin.
    pub(super) fn add(
        &mut self,
        spool: &mut Spool,
        disk: &mut impl Disk,
        text: &[u8],
        delay: Option<Duration>,
        now: Instant,
    ) -> DiskResult<u64> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.savepoint.is_none() {
            let begun = spool.begin_batch(disk, now);
            self.savepoint = Some(begun.inspect_err(|error| self.error = Some(*error))?);
        }
        let added = spool.add_after(disk, now, text, delay);
        self.error = added.err();
        Ok(added.unwrap_or(0))
    }

    /// Takes the batch back if it could not be written whole, so that nothing of it is
    /// committed.
    ///
    /// # Errors
    /// It was taken back, for this reason.
    pub(super) fn check(&mut self, spool: &mut Spool, disk: &mut impl Disk) -> DiskResult {
        self.error.map_or(Ok(()), |error| self.fail(spool, disk, error))
    }

    /// Takes the batch back.
    ///
    /// # Errors
    /// Always `error`, which its clients get.
    pub(super) fn fail(&mut self, spool: &mut Spool, disk: &mut impl Disk, error: DiskError) -> DiskResult {
        self.error = Some(error);
        if let Some(savepoint) = self.savepoint.take() {
            spool.roll_back(disk, savepoint);
        }
        Err(error)
    }

    /// Ends the batch after a commit. Returns the result for its clients.
    pub(super) fn close(&mut self, durable: DiskResult) -> DiskResult {
        let error = self.error;
        *self = Self::NONE;
        error.map_or(durable, Err)
    }
}
