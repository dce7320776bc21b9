//! The spool: a journal on disk and the window of jobs in memory.
//!
//! The promise (what a caller may say `ok` to):
//! - a job is accepted when [`Spool::commit`] succeeded after its record was
//!   appended; from then on no crash loses it;
//! - the end of a job is appended as soon as it is known and synced with the
//!   next commit; a job whose end is in the journal does not run again;
//! - a second attempt's start is committed before it starts.
//!
//! Memory does not grow with the backlog: the window holds the oldest jobs,
//! and `cursor` is the place in the journal from which the next are read.
//! What lies before the cursor and is not in the window has ended or is dead.
//! `Spool::voids` are the few homes that ended out of order since the last
//! compaction.
//!
//! - `mod.rs`: appending, committing, reading a text
//! - `attempts.rs`: starting and ending jobs
//! - `pull.rs`: from the journal into the window
//! - `search.rs`: what is in the journal beyond the window
//! - `steer.rs`: cancel, retry, forget
//! - `recover.rs`: from the file to the state, after any crash
//! - `compact.rs`: a new file without what is over
//! - `intake.rs`, `claims.rs`: from the queue file into the journal
//!
//! Changing this: a new record kind needs its meaning in `recover.rs`, and, if
//! it changes which record is a job's home, in `pull.rs` and `compact.rs`. The
//! tests in `tests.rs` crash after every step of a random history.

mod attempts;
mod claims;
mod compact;
mod intake;
mod pull;
mod recover;
mod search;
mod steer;

pub use claims::Claims;
pub use compact::Purpose;
pub use intake::Notice;
pub use recover::{RecoverError, Recovery};
pub use search::{Place, Search};
pub use steer::Cancelled;

use super::disk::{Disk, DiskError, File};
use super::window::Window;
use crate::limits::{
    COMMIT_DELAY, COMPACT_MIN_BYTES, COMPACT_SHORT_BYTES, COMPACT_SHORT_SHARE, DAMAGED_GROUPS_MAX,
    GROUP_BYTES, JOB_MAX_BYTES, JOURNAL_BUFFER_BYTES, KEEP_AHEAD_BYTES, RESERVE_BYTES, RESERVE_PER_JOB_BYTES,
    ROOM_MARGIN_BYTES, VOIDS_MAX,
};
use crate::proto::journal::{Kind, RECORD_MAX_BYTES, Record, Step, step};
use crate::util::time::{Duration, Instant};
use compact::Compaction;
use core::ops::Range;
use heapless::Vec;

/// What identifies a home record: its job's id and attempts, and whether it
/// is a dead one.
type Home = (u64, u16, bool);

/// The rules that the configuration sets.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Attempts after the first.
    pub retries: u32,
    /// Wait before the second attempt.
    pub retry_delay: Duration,
    /// Jobs that may be waiting, running or dead.
    pub queue_max: u32,
    /// Whether commits are synced.
    pub sync: bool,
}

/// The state before new jobs were added, to go back to if they cannot be made
/// durable.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    end: u64,
    waiting: u32,
    live_bytes: u64,
}

/// Counts of what the disk had to do since start.
#[derive(Clone, Copy, Default, Debug)]
#[cfg_attr(test, derive(Hash))]
pub struct Wear {
    /// fdatasync and fsync calls.
    pub syncs: u64,
    /// Bytes written to the spool.
    pub bytes: u64,
}

/// What turned out to be damaged while the service runs.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(Hash))]
pub struct Damage {
    /// Bytes that were set aside.
    pub bytes: u64,
    /// Jobs that are lost by it, waiting or dead.
    pub jobs: u32,
}

/// See the module's documentation. The large parts come last: a quiet service
/// touches only the beginning of each.
#[cfg_attr(test, derive(Clone, Hash))]
#[repr(C)]
pub struct Spool {
    /// Where the next record goes: the journal's size.
    end: u64,
    /// Where the records begin: behind the header, or at 0 in a damaged journal
    /// that has none.
    first: u64,
    /// Where the next home for the window is looked for.
    cursor: u64,
    /// Id of the next job.
    next_id: u64,
    /// Jobs that wait, are delayed or run.
    waiting: u32,
    /// Jobs that are dead and kept.
    dead: u32,
    /// Bytes of valid home records.
    live_bytes: u64,
    /// Since when the file has bytes that are not synced.
    unsynced_since: Option<Instant>,
    /// Whether the journal's own name is not yet durable.
    name_unsynced: bool,
    /// A sync failed: only a new file can be trusted (compaction).
    suspect: bool,
    /// Up to here the disk keeps room for the journal; nothing is known if 0.
    kept: u64,
    /// It cannot keep any.
    keeps_nothing: bool,
    /// There is no room for new jobs: less is enough for a compaction, and it may use what
    /// is kept.
    short: bool,
    /// Damage was met while the service runs; the next compaction deals with it.
    met_damage: bool,
    /// Damage up to here is set aside already.
    aside_until: u64,
    /// What compactions set aside and lost, not told yet.
    damage: Damage,
    /// How often the journal was written anew: places in it hold within one.
    generation: u32,
    wear: Wear,
    /// The claimed queue files.
    pub claims: Claims,
    window: Window,
    /// Records that are not yet in the file.
    buffer: Vec<u8, JOURNAL_BUFFER_BYTES>,
    voids: Vec<Home, VOIDS_MAX>,
    /// Ranges of a damaged journal that recovery passed over; a compaction
    /// follows at once and leaves them out.
    skipped: Vec<Range<u64>, DAMAGED_GROUPS_MAX>,
    compaction: Compaction,
}

impl Spool {
    /// All zeros, to be filled in place by [`Spool::recover`].
    pub const EMPTY: Self = Self {
        end: 0,
        first: 0,
        cursor: 0,
        next_id: 0,
        waiting: 0,
        dead: 0,
        live_bytes: 0,
        window: Window::new(),
        voids: Vec::new(),
        skipped: Vec::new(),
        claims: Claims::EMPTY,
        buffer: Vec::new(),
        unsynced_since: None,
        name_unsynced: false,
        suspect: false,
        kept: 0,
        keeps_nothing: false,
        short: false,
        met_damage: false,
        aside_until: 0,
        damage: Damage { bytes: 0, jobs: 0 },
        generation: 0,
        compaction: Compaction::NONE,
        wear: Wear { syncs: 0, bytes: 0 },
    };

    /// The jobs in memory.
    #[must_use]
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Jobs that wait, are delayed or run.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Jobs that are dead and kept.
    #[must_use]
    pub fn dead(&self) -> u32 {
        self.dead
    }

    /// What the disk had to do since start.
    #[must_use]
    pub fn wear(&self) -> Wear {
        self.wear
    }

    /// What was found damaged since the last call, once a compaction has dealt with it.
    pub fn take_damage(&mut self) -> Option<Damage> {
        if self.damage == Damage::default() || self.compaction.is_active() || self.met_damage {
            return None;
        }
        Some(core::mem::take(&mut self.damage))
    }

    /// How many more jobs are accepted.
    #[must_use]
    pub fn room(&self, rules: &Rules) -> u32 {
        rules.queue_max.saturating_sub(self.waiting.saturating_add(self.dead))
    }

    /// Bytes that must stay free on the disk for the starts and ends of the
    /// jobs that are there: without them nothing would ever get done.
    fn reserve(&self) -> u64 {
        u64::from(self.waiting).saturating_mul(RESERVE_PER_JOB_BYTES).saturating_add(RESERVE_BYTES)
    }

    /// Whether there is room for new jobs where there was none: more than they need is
    /// asked for, so that not each end of an old one opens the door and closes it again.
    /// What has become free meanwhile is kept. Also the bytes that are free, and how many
    /// are not for new jobs.
    pub fn room_on_disk(&mut self, disk: &mut impl Disk) -> (bool, u64, u64) {
        let refused = self.keep(disk, 0);
        let free = disk.free();
        self.short = refused || free < self.asked_of_disk().saturating_add(ROOM_MARGIN_BYTES);
        (!self.short, free, self.reserve())
    }

    /// Makes sure that the jobs that are there have room for their starts and ends behind
    /// a group of new ones.
    fn ensure_room(&mut self, disk: &mut impl Disk) -> Result<(), DiskError> {
        self.short = self.keep(disk, KEEP_AHEAD_BYTES) || disk.free() < self.asked_of_disk();
        if self.short { Err(NO_ROOM) } else { Ok(()) }
    }

    /// Bytes that must be free for new jobs: for a group of them where the others' room is
    /// kept, for that room itself where it is not.
    fn asked_of_disk(&self) -> u64 {
        let ahead = self.kept.saturating_sub(self.end);
        if ahead < self.reserve() { self.reserve() } else { GROUP_BYTES }
    }

    /// Keeps room for the starts and ends of the jobs that are there, if there is some,
    /// and so much more that it need not be asked for with each group, if new jobs have room
    /// beside that. True: the disk has no room for what is there, or the quota.
    fn keep(&mut self, disk: &mut impl Disk, ahead: u64) -> bool {
        let needed = self.end.saturating_add(self.reserve());
        if self.kept >= needed || self.keeps_nothing {
            return false;
        }
        let mut refused = false;
        for until in [needed.saturating_add(ahead), needed] {
            // (what somebody else's cut gave away meanwhile is not asked for again: that
            // would walk over all of it each time)
            let from = self.kept.max(self.end);
            let taken = until.saturating_sub(from);
            let new_jobs = GROUP_BYTES.saturating_add(ROOM_MARGIN_BYTES);
            if until > needed && disk.free() < taken.saturating_add(new_jobs) {
                continue;
            }
            match disk.keep_room(File::Journal, from, until) {
                Ok(true) => {
                    self.kept = until;
                    return false;
                }
                Ok(false) => {
                    self.keeps_nothing = true;
                    return false;
                }
                Err(error) => refused = [NO_ROOM, OVER_QUOTA].contains(&error),
            }
        }
        refused
    }

    /// Cuts the journal behind its last record, which gives back what is kept.
    fn cut(&mut self, disk: &mut impl Disk) -> Result<(), DiskError> {
        self.kept = 0;
        disk.truncate(File::Journal, self.end)
    }

    // ----- appending ------------------------------------------------------

    /// Puts a record into the buffer, writing out what is there if it is full.
    fn put(&mut self, disk: &mut impl Disk, now: Instant, record: &Record<'_>) -> Result<(), DiskError> {
        if record.emit(&mut self.buffer).is_err() {
            self.write_out(disk, now)?;
            // An empty buffer takes the longest record.
            let _ = record.emit(&mut self.buffer);
        }
        Ok(())
    }

    /// Appends the buffer to the journal, whole or not at all.
    fn write_out(&mut self, disk: &mut impl Disk, now: Instant) -> Result<(), DiskError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let length = self.buffer.len() as u64;
        let result = disk.write(File::Journal, self.end, &self.buffer);
        self.buffer.clear();
        match result {
            Ok(()) => {
                self.end = self.end.saturating_add(length);
                self.wear.bytes = self.wear.bytes.saturating_add(length);
                self.unsynced_since.get_or_insert(now);
                Ok(())
            }
            Err(error) => {
                // Half a record must not stay in front of the next one. If
                // even this fails, the next write overwrites it, or a
                // recovery cuts it.
                let _ = self.cut(disk);
                let _ = self.keep(disk, 0);
                Err(error)
            }
        }
    }

    /// Makes everything that was appended durable. Only when this succeeds
    /// may a job be acknowledged.
    ///
    /// # Errors
    /// Nothing since the last commit may be relied on.
    pub fn commit(&mut self, disk: &mut impl Disk, rules: &Rules, now: Instant) -> Result<(), DiskError> {
        self.write_out(disk, now)?;
        if self.suspect {
            self.compact_now(disk, now)?;
        }
        if self.unsynced_since.is_none() && !self.name_unsynced {
            return Ok(());
        }
        if rules.sync {
            self.sync_journal(disk)?;
        }
        self.unsynced_since = None;
        self.name_unsynced = false;
        Ok(())
    }

    fn sync_journal(&mut self, disk: &mut impl Disk) -> Result<(), DiskError> {
        self.wear.syncs = self.wear.syncs.saturating_add(1);
        if let Err(error) = disk.sync(File::Journal) {
            // The kernel may have dropped the pages and marked them clean: a
            // second sync would succeed and mean nothing.
            self.suspect = true;
            return Err(error);
        }
        if self.name_unsynced {
            self.wear.syncs = self.wear.syncs.saturating_add(1);
            disk.sync_spool()?;
        }
        Ok(())
    }

    /// When [`Spool::commit`] is due for what was appended.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.unsynced_since.map(|since| since + COMMIT_DELAY)
    }

    /// Begins a group of new jobs. Until they are committed nothing but
    /// [`Spool::add`] may be asked for.
    ///
    /// # Errors
    /// There is no room for new jobs, or the disk fails.
    pub fn begin_adding(&mut self, disk: &mut impl Disk, now: Instant) -> Result<Mark, DiskError> {
        self.write_out(disk, now)?;
        if self.suspect {
            self.compact_now(disk, now)?;
        }
        self.ensure_room(disk)?;
        Ok(Mark { end: self.end, waiting: self.waiting, live_bytes: self.live_bytes })
    }

    /// Accepts a job, to be acknowledged after the next commit. Its text must
    /// be 1 to [`JOB_MAX_BYTES`] bytes.
    ///
    /// # Errors
    /// It is not accepted, and the group is to be rolled back. (Full queues are
    /// the caller's to ask for: [`Spool::room`].)
    pub fn add(&mut self, disk: &mut impl Disk, now: Instant, text: &[u8]) -> Result<u64, DiskError> {
        debug_assert!(!text.is_empty() && text.len() <= JOB_MAX_BYTES);
        let id = self.next_id;
        let record = Record { body: text, ..Record::new(Kind::Add, id, 0) };
        let end = self.end;
        self.put(disk, now, &record)?;
        if self.end > end {
            // A large group would take more than is spared for one buffer of new jobs.
            self.ensure_room(disk)?;
        }
        self.count_added(&record);
        Ok(id)
    }

    /// Takes a group of new jobs back: they could not be committed, and nobody
    /// was told of them. Their ids are not used again by this process.
    pub fn roll_back(&mut self, disk: &mut impl Disk, mark: Mark) {
        self.buffer.clear();
        (self.end, self.waiting, self.live_bytes) = (mark.end, mark.waiting, mark.live_bytes);
        // As after a failed write.
        let _ = self.cut(disk);
        let _ = self.keep(disk, 0);
    }

    /// A new home was appended.
    fn count_added(&mut self, record: &Record<'_>) {
        self.next_id = self.next_id.max(record.id.saturating_add(1));
        self.waiting = self.waiting.saturating_add(1);
        self.live_bytes = self.live_bytes.saturating_add(record.size() as u64);
    }

    // ----- texts ----------------------------------------------------------

    /// The text of the job at `place`, read from its home into `buffer`.
    ///
    /// # Errors
    /// The journal cannot be read there.
    pub fn text<'b>(
        &self,
        disk: &mut impl Disk,
        place: Place,
        buffer: &'b mut [u8; RECORD_MAX_BYTES],
    ) -> Result<&'b [u8], DiskError> {
        read_home(disk, place, buffer)
    }

    /// The same, if it is one to run: not what stands for a text that is damaged.
    ///
    /// # Errors
    /// The journal cannot be read there, or the text is lost.
    pub fn text_to_run<'b>(
        &self,
        disk: &mut impl Disk,
        place: Place,
        buffer: &'b mut [u8; RECORD_MAX_BYTES],
    ) -> Result<&'b [u8], DiskError> {
        read_home(disk, place, buffer).and_then(|text| if text == EXCUSE { Err(DAMAGED) } else { Ok(text) })
    }

    /// Whether enough of the journal is over to write it anew.
    #[must_use]
    pub fn wants_compaction(&self) -> bool {
        let over = self.end.saturating_sub(self.live_bytes);
        let live = self.live_bytes;
        let worth = if self.short {
            COMPACT_SHORT_BYTES.max(live / COMPACT_SHORT_SHARE)
        } else {
            COMPACT_MIN_BYTES.max(live)
        };
        self.suspect || self.met_damage || self.voids.is_full() || over > worth
    }
}

/// ENOSPC, for new jobs that would take the room that old ones need.
pub const NO_ROOM: DiskError = DiskError(28);

/// EDQUOT, for the same.
const OVER_QUOTA: DiskError = DiskError(122);

/// EILSEQ, for a record that is not what was written there.
const DAMAGED: DiskError = DiskError(84);

/// Stands for a text that was damaged while the service ran, so that its job
/// does not hold up the journal.
const EXCUSE: &[u8] = b"(the text of this job was damaged on the disk)";

/// As [`read_home`], with [`EXCUSE`] for a damaged text.
fn text_or_excuse<'b>(
    disk: &mut impl Disk,
    place: Place,
    buffer: &'b mut [u8; RECORD_MAX_BYTES],
) -> Result<&'b [u8], DiskError> {
    match read_home(disk, place, buffer) {
        Err(DAMAGED) => Ok(EXCUSE),
        result => result,
    }
}

/// Reads the text of a home record and checks that it is the job's.
fn read_home<'b>(
    disk: &mut impl Disk,
    place: Place,
    buffer: &'b mut [u8; RECORD_MAX_BYTES],
) -> Result<&'b [u8], DiskError> {
    let wanted = buffer.get_mut(..usize::from(place.size)).ok_or(DAMAGED)?;
    let count = disk.read(File::Journal, place.offset, wanted)?;
    match step(buffer.get(..count).unwrap_or(&[])) {
        Step::Record(record, _) if record.id == place.id => Ok(record.text()),
        _ => Err(DAMAGED),
    }
}

#[cfg(test)]
mod tests;
