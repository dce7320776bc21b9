//! What is in the journal beyond the window: the backlog and the dead. The
//! memory holds none of it, so who asks waits for a walk through the file, in
//! steps, because nothing in the loop may take long.

use super::pull::{attempts_of, home_of};
use super::{DAMAGED, Spool};
use crate::limits::{READ_BYTES, SEARCH_STEP_BYTES};
use crate::proto::journal::{Kind, RECORD_MAX_BYTES, Record, Step, skip_damage, step};
use crate::state::disk::{Disk, DiskError, File};
use crate::state::window::{Outcome, Slot};

/// Where a job's home is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The job.
    pub id: u64,
    /// Attempts that were started before this home was written.
    pub attempt: u16,
    /// Where the record is in the journal.
    pub offset: u64,
    /// Size of the record.
    pub size: u16,
    /// Whether the job is dead; otherwise it waits.
    pub dead: bool,
}

impl Slot {
    /// Where this job's home is.
    #[must_use]
    pub fn place(&self) -> Place {
        let Slot { id, attempt, offset, size, .. } = *self;
        Place { id, attempt, offset, size, dead: false }
    }
}

/// A walk through the journal.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    at: u64,
    generation: u32,
}

impl Spool {
    /// A walk past every job beyond the window; without the dead it is
    /// shorter.
    #[must_use]
    pub fn search(&self, dead: bool) -> Search {
        let at = if dead { self.first } else { self.cursor };
        Search { at, generation: self.generation }
    }

    /// Whether the journal is still the one that the walk began in. If not,
    /// what it found means nothing, and it must begin again.
    #[must_use]
    pub fn is_current(&self, search: &Search) -> bool {
        search.generation == self.generation
    }

    /// Goes on with a walk, as far as one turn's share: hands each job beyond
    /// the window to `visit`. True at the end. Jobs that enter the window
    /// meanwhile may be met or not.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn search_step(
        &self,
        disk: &mut impl Disk,
        scratch: &mut [u8],
        search: &mut Search,
        visit: &mut dyn FnMut(Place),
    ) -> Result<bool, DiskError> {
        let stop = search.at.saturating_add(SEARCH_STEP_BYTES);
        while search.at < self.end && search.at < stop {
            let left = usize::try_from(self.end.saturating_sub(search.at)).unwrap_or(usize::MAX);
            let wanted = scratch.len().min(left).min(READ_BYTES);
            let count = disk.read(File::Journal, search.at, scratch.get_mut(..wanted).unwrap_or(&mut []))?;
            if count == 0 {
                search.at = self.end;
            }
            let mut at = 0usize;
            while let Some(rest) = scratch.get(at..count).filter(|rest| !rest.is_empty()) {
                // (fewer than wanted: somebody made the file shorter)
                let last = count < wanted || search.at.saturating_add(rest.len() as u64) >= self.end;
                let size = match step(rest) {
                    Step::Record(record, size) => {
                        if let Some(place) = self.live_home(&record, search.at) {
                            visit(place);
                        }
                        size
                    }
                    Step::Truncated(_) if !last && rest.len() < RECORD_MAX_BYTES => break,
                    Step::Truncated(_) | Step::Bad => skip_damage(rest, last),
                };
                at = at.saturating_add(size);
                search.at = search.at.saturating_add(size as u64);
            }
        }
        Ok(search.at >= self.end)
    }

    /// How the dead job at `place` ended.
    ///
    /// # Errors
    /// The journal cannot be read there.
    pub fn outcome(
        &self,
        disk: &mut impl Disk,
        place: Place,
        buffer: &mut [u8; RECORD_MAX_BYTES],
    ) -> Result<Outcome, DiskError> {
        let wanted = buffer.get_mut(..usize::from(place.size)).ok_or(DAMAGED)?;
        let count = disk.read(File::Journal, place.offset, wanted)?;
        match step(buffer.get(..count).unwrap_or(&[])) {
            Step::Record(record, _) => {
                record.body.first_chunk::<2>().map(|how| Outcome::from_bytes(*how)).ok_or(DAMAGED)
            }
            _ => Err(DAMAGED),
        }
    }

    /// Where the job is whose home this record is, if it is one beyond the
    /// window and counts.
    fn live_home(&self, record: &Record<'_>, offset: u64) -> Option<Place> {
        let dead = record.kind == Kind::Dead;
        let waits = record.kind == Kind::Add && offset >= self.cursor;
        if !(dead || waits) || self.voids.contains(&home_of(record)) {
            return None;
        }
        if self.skipped.iter().any(|range| range.contains(&offset)) {
            return None;
        }
        let size = u16::try_from(record.size()).ok()?;
        Some(Place { id: record.id, attempt: attempts_of(record), offset, size, dead })
    }
}
