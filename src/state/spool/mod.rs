//! The spool: a journal on disk and the window of jobs in memory.
//!
//! The promise (what a caller may say `ok` to):
//! - a job is accepted when [`Spool::commit`] succeeded after its record was
//!   appended; from then on no crash loses it;
//! - the end of a job is appended as soon as it is known and synced with the
//!   next commit; a job whose end is in the journal does not run again;
//! - a second attempt's start is committed before it starts.
//!
//! Memory does not grow with the backlog: the window holds the oldest jobs, and `cursor` is
//! the offset in the journal from which the next are read. A job before the cursor that is
//! not in the window has ended or is dead. `Spool::tombstones` are the few live records that
//! ended out of order since the last compaction.
//!
//! - `mod.rs`: appending, committing, reading a text
//! - `attempts.rs`: starting and ending jobs
//! - `refill.rs`: from the journal into the window
//! - `scan.rs`: what is in the journal beyond the window
//! - `edit.rs`: cancel, retry, forget
//! - `recover.rs`: from the file to the state, after any crash
//! - `compact.rs`, `compaction.rs`: a new file without the jobs that have ended
//! - `location.rs`: where a live record is, and which ones are deleted
//! - `dead.rs`: the oldest dead job, which goes when there are too many
//! - `results.rs`: how the last jobs ended
//! - `schedule.rs`, `release.rs`: delayed jobs, and when they are due; a queue that is held
//! - `reset.rs`: an empty journal in the same file, where no new file can be made
//! - `ingest.rs`, `claims.rs`: from the queue file into the journal
//!
//! Changing this: a new record kind needs its meaning in `recover.rs`, and, if
//! it changes which record is a job's live record, in `refill.rs` and `compact.rs`. The
//! tests in `tests.rs` crash after every step of a random history.

mod attempts;
mod claims;
mod compact;
mod compaction;
mod dead;
mod edit;
mod ingest;
mod location;
mod recover;
mod refill;
mod release;
mod reset;
mod results;
mod scan;
mod schedule;

pub use claims::{Claims, QueueNotice};
pub use compaction::Purpose;
pub use edit::Cancelled;
pub use ingest::IngestNotice;
pub use location::RecordLocation;
pub use recover::{RecoverError, Recovery};
pub(crate) use results::CANCELLED_STATUS;
pub use results::{EndKind, JobEnd};
pub use scan::JournalScan;
pub(crate) use scan::SCAN_STEP_BYTES;

use super::disk::{DAMAGED, Disk, DiskResult, NAMES_LOST, NO_SPACE, SpoolFile};
use super::window::Window;
use crate::limits::{COMMIT_DELAY, COMPACT_MIN_BYTES, JOB_MAX_BYTES};
use crate::proto::attributes::{Attribute, Attributes, HandlerKind, replace};
use crate::proto::journal::{
    CLOCK_BODY_BYTES, ParseResult, RECORD_MAX_BYTES, Record, RecordKind, VERSION, parse_record,
};
use crate::util::time::{Duration, Instant};
use compaction::Compaction;
use core::ops::Range;
use heapless::Vec;
use location::{Tombstone, due_of};
use schedule::{Epoch, Schedule, ScheduledTotals};

/// Maximum number of deleted jobs outside the window that are remembered until the next
/// compaction.
pub(crate) const TOMBSTONES_MAX: usize = 64;
/// Maximum number of damaged batches of claims that a recovery keeps apart.
const DAMAGED_BATCHES_MAX: usize = 8;
/// Free bytes on the spool's disk without which new jobs are refused: one batch of jobs, and
/// the records that this batch will need.
const RESERVE_BYTES: u64 = 24 * 1024;
/// Free bytes that each queued job needs in addition, for the records of its start and its
/// end.
const RESERVE_PER_JOB_BYTES: u64 = 44;
/// Extra bytes to preallocate for the journal, so that fallocate(2) is not called for every
/// batch.
const PREALLOCATE_BYTES: u64 = 32 * 1024;
/// Free bytes that new jobs need beside the reserved space. This is more than one batch
/// takes.
const BATCH_BYTES: u64 = 8 * 1024;
/// Dead bytes in the journal from which a compaction is worth it while the disk is full.
const COMPACT_LOW_SPACE_BYTES: u64 = 8 * 1024;
/// Divisor of the live bytes: while the disk is full, a compaction needs at least this share
/// of dead bytes, because each compaction copies all live bytes.
const COMPACT_LOW_SPACE_SHARE: u64 = 4;
/// Extra free bytes until new jobs are accepted again after the disk was full. This is a
/// block of most filesystems, and holds the ends of about ninety jobs, so that acceptance
/// does not toggle with every job that ends.
pub(crate) const SPACE_MARGIN_BYTES: u64 = 4 * 1024;
/// Maximum number of live bytes that are copied at once to change to the newest version of the
/// format. This happens once, and takes less than a second.
const UPGRADE_AT_ONCE_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes of records that are gathered before they are written, which is one batch of a claim.
pub(crate) const JOURNAL_BUFFER_BYTES: usize = 8 * 1024;

/// The rules that the configuration sets.
#[derive(Clone, Copy, Debug)]
pub struct SpoolRules {
    /// Attempts after the first.
    pub retries: u32,
    /// Wait before the second attempt.
    pub retry_delay: Duration,
    /// Jobs that may be waiting or running.
    pub queue_max: u32,
    /// Dead jobs that are kept.
    pub dead_max: u32,
    /// The handler that is configured. New jobs are queued for it.
    pub handler: HandlerKind,
    /// Whether commits are synced.
    pub sync: bool,
}

/// The state before new jobs were added, to go back to if they cannot be made
/// durable.
#[derive(Clone, Copy, Debug)]
pub struct Savepoint {
    end: u64,
    waiting: u32,
    live_bytes: u64,
    scheduled: ScheduledTotals,
    epoch: Epoch,
}

/// Counts of what the disk had to do since start.
#[derive(Clone, Copy, Default, Debug)]
#[cfg_attr(test, derive(Hash))]
pub struct IoStats {
    /// fdatasync and fsync calls.
    pub syncs: u64,
    /// Bytes written to the spool.
    pub bytes: u64,
}

/// Damage that was found while the service runs.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(Hash))]
pub struct Damage {
    /// Bytes that were set aside.
    pub bytes: u64,
    /// Jobs that are lost by it, waiting or dead.
    pub jobs: u32,
}

/// Where the journal stands.
#[derive(Clone, Copy)]
#[cfg_attr(test, derive(Hash))]
struct JournalState {
    /// Where the next record goes: the size of the file.
    end: u64,
    /// Where the records begin: after the header, or at 0 in a damaged file that has none.
    first: u64,
    /// Where the next live record for the window is looked for.
    cursor: u64,
    /// Where the oldest dead job is looked for: all dead jobs before it are deleted.
    dead_from: u64,
    /// Since when the file has bytes that are not synced.
    unsynced_since: Option<Instant>,
    /// Whether the name of the file is not durable yet.
    name_unsynced: bool,
    /// Whether a sync failed. Only a new file can be trusted after that.
    sync_failed: bool,
    /// How often the journal was written again. A location holds within one generation.
    generation: u32,
    /// The version of the file's format.
    version: u8,
    /// Whether the next new file has the newest version.
    upgrade: bool,
    /// Whether the journal says that the queue is held.
    held: bool,
    /// The handler that new jobs are queued for.
    handler: HandlerKind,
    /// The last record of a moment at which the service ran.
    clock: Option<[u8; CLOCK_BODY_BYTES]>,
}

impl JournalState {
    const NONE: Self = Self {
        end: 0,
        first: 0,
        cursor: 0,
        dead_from: 0,
        unsynced_since: None,
        name_unsynced: false,
        sync_failed: false,
        generation: 0,
        version: 0,
        upgrade: false,
        held: false,
        handler: HandlerKind::Unknown,
        clock: None,
    };
}

/// The jobs that are there, and the work that they made.
#[derive(Clone, Copy)]
#[cfg_attr(test, derive(Hash))]
struct Totals {
    /// Id of the next job.
    next_id: u64,
    /// Jobs that wait, are delayed or run.
    waiting: u32,
    /// Jobs that are dead and kept.
    dead: u32,
    /// Bytes of their live records.
    live_bytes: u64,
    /// Records of ends in the file.
    results: u32,
    /// Bytes of those that a compaction keeps.
    result_bytes: u64,
    /// Delayed jobs that are not due. They count among those that wait.
    scheduled: ScheduledTotals,
    /// The work of the disk since start.
    io: IoStats,
}

impl Totals {
    const NONE: Self = Self {
        next_id: 0,
        waiting: 0,
        dead: 0,
        live_bytes: 0,
        results: 0,
        result_bytes: 0,
        scheduled: ScheduledTotals { count: 0, bytes: 0 },
        io: IoStats { syncs: 0, bytes: 0 },
    };
}

/// The space that the disk keeps for the journal.
#[derive(Clone, Copy)]
#[cfg_attr(test, derive(Hash))]
struct ReservedSpace {
    /// End of the space that is preallocated; 0 if nothing is known.
    reserved_until: u64,
    /// Whether the filesystem cannot preallocate.
    no_fallocate: bool,
    /// Whether the disk has no room for new jobs. A compaction is then begun for less, and
    /// may use the reserved space.
    low_space: bool,
}

impl ReservedSpace {
    const NONE: Self = Self { reserved_until: 0, no_fallocate: false, low_space: false };
}

/// Damage of the journal.
#[cfg_attr(test, derive(Clone, Hash))]
struct Corruption {
    /// Whether damage was met while the service runs. The next compaction removes it.
    seen: bool,
    /// End of the damage that is in quarantine already.
    quarantined_until: u64,
    /// Damage that compactions removed and [`Spool::take_damage`] has not returned yet.
    found: Damage,
    /// Ranges that recovery skipped. A compaction follows at once and leaves them out.
    skipped: Vec<Range<u64>, DAMAGED_BATCHES_MAX>,
}

impl Corruption {
    const NONE: Self =
        Self { seen: false, quarantined_until: 0, found: Damage { bytes: 0, jobs: 0 }, skipped: Vec::new() };
}

/// See the module's documentation. The large parts come last: a quiet service touches only
/// the beginning of each.
#[cfg_attr(test, derive(Clone, Hash))]
#[repr(C)]
pub struct Spool {
    journal: JournalState,
    totals: Totals,
    space: ReservedSpace,
    corruption: Corruption,
    compaction: Compaction,
    schedule: Schedule,
    /// The claimed queue files.
    pub claims: Claims,
    window: Window,
    /// Records that are not in the file yet.
    buffer: Vec<u8, JOURNAL_BUFFER_BYTES>,
    /// Live records that ended out of order since the last compaction.
    tombstones: Vec<Tombstone, TOMBSTONES_MAX>,
}

impl Spool {
    /// All zeros, to be filled in place by [`Spool::recover`].
    pub const EMPTY: Self = Self {
        journal: JournalState::NONE,
        totals: Totals::NONE,
        space: ReservedSpace::NONE,
        claims: Claims::EMPTY,
        window: Window::new(),
        buffer: Vec::new(),
        tombstones: Vec::new(),
        corruption: Corruption::NONE,
        compaction: Compaction::NONE,
        schedule: Schedule::NONE,
    };

    /// Returns the jobs in memory.
    #[must_use]
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Returns the number of jobs that wait, are delayed or run.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.totals.waiting
    }

    /// Returns the number of dead jobs.
    #[must_use]
    pub fn dead(&self) -> u32 {
        self.totals.dead
    }

    /// Returns the work of the disk since start.
    #[must_use]
    pub fn io_stats(&self) -> IoStats {
        self.totals.io
    }

    /// Returns the damage that was found since the last call, after a compaction removed it.
    pub fn take_damage(&mut self) -> Option<Damage> {
        if self.corruption.found == Damage::default() || self.compaction.is_active() || self.corruption.seen {
            return None;
        }
        Some(core::mem::take(&mut self.corruption.found))
    }

    /// Returns how many more jobs are accepted. Dead jobs do not count. Ids are not used again,
    /// so none is accepted when there is no further one.
    #[must_use]
    pub fn room(&self, rules: &SpoolRules) -> u32 {
        let ids = u32::try_from(u64::MAX.saturating_sub(self.totals.next_id)).unwrap_or(u32::MAX);
        rules.queue_max.saturating_sub(self.totals.waiting).min(ids)
    }

    /// Returns true if the disk had no room when it was last asked for some.
    #[must_use]
    pub fn lacks_space(&self) -> bool {
        self.space.low_space
    }

    /// Sets the handler that new jobs are queued for.
    pub fn set_handler(&mut self, handler: HandlerKind) {
        self.journal.handler = handler;
    }

    /// Returns true if the journal says that the queue is held.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.journal.held
    }

    /// Returns the bytes that must stay free on the disk for the starts and ends of the jobs
    /// in the queue, and for the copies of delayed jobs. Without them no job could end.
    fn reserve_bytes(&self) -> u64 {
        let jobs = u64::from(self.totals.waiting).saturating_mul(RESERVE_PER_JOB_BYTES);
        jobs.saturating_add(self.totals.scheduled.bytes).saturating_add(RESERVE_BYTES)
    }

    /// Checks whether new jobs can be accepted again after the disk was full. Asks for more
    /// free space than one job needs, so that acceptance does not toggle with every job that
    /// ends. Reserves space that has become free. Returns the answer, the bytes that are
    /// free, and how many of them are not for new jobs.
    pub fn update_low_space(&mut self, disk: &mut impl Disk) -> (bool, u64, u64) {
        let refused = self.reserve_space(disk, 0, 0);
        let free = disk.free();
        self.space.low_space = refused || free < self.required_space().saturating_add(SPACE_MARGIN_BYTES);
        (!self.space.low_space, free, self.reserve_bytes())
    }

    /// Makes sure that the jobs in the queue have room for their starts and ends after a
    /// batch of new ones.
    fn ensure_space(&mut self, disk: &mut impl Disk) -> DiskResult {
        self.space.low_space =
            self.reserve_space(disk, 0, PREALLOCATE_BYTES) || disk.free() < self.required_space();
        if self.space.low_space { Err(NO_SPACE) } else { Ok(()) }
    }

    /// Returns the bytes that must be free for new jobs: those of a batch where the space for
    /// the others is reserved, or that space itself where it is not.
    fn required_space(&self) -> u64 {
        let ahead = self.space.reserved_until.saturating_sub(self.journal.end);
        if ahead < self.reserve_bytes() { self.reserve_bytes() } else { BATCH_BYTES }
    }

    /// Preallocates the space for the starts and ends of the jobs in the queue and for `more`
    /// bytes, and `ahead` bytes beyond if new jobs have room beside that, so that fallocate(2) is
    /// not called for every batch. Returns true if the disk or the quota has no room for the former.
    fn reserve_space(&mut self, disk: &mut impl Disk, more: u64, ahead: u64) -> bool {
        let needed = self.journal.end.saturating_add(self.reserve_bytes()).saturating_add(more);
        if self.space.reserved_until >= needed || self.space.no_fallocate {
            return false;
        }
        let mut refused = false;
        for until in [needed.saturating_add(ahead), needed] {
            // Space that another program's truncation gave away is not asked for again,
            // because the kernel would walk over all of it each time.
            let from = self.space.reserved_until.max(self.journal.end);
            let taken = until.saturating_sub(from);
            let new_jobs = BATCH_BYTES.saturating_add(SPACE_MARGIN_BYTES);
            if until > needed && disk.free() < taken.saturating_add(new_jobs) {
                continue;
            }
            match disk.preallocate(SpoolFile::Journal, from, until) {
                Ok(true) => {
                    self.space.reserved_until = until;
                    return false;
                }
                Ok(false) => {
                    self.space.no_fallocate = true;
                    return false;
                }
                Err(error) => refused = error.is_no_space(),
            }
        }
        refused
    }

    /// Cuts the journal after its last record, which gives back the reserved space.
    fn trim_reserved(&mut self, disk: &mut impl Disk) -> DiskResult {
        self.space.reserved_until = 0;
        disk.truncate(SpoolFile::Journal, self.journal.end)
    }

    // ----- appending ------------------------------------------------------

    /// Puts a record into the buffer, writing out what is there if it is full.
    fn append_record(&mut self, disk: &mut impl Disk, now: Instant, record: &Record<'_>) -> DiskResult {
        debug_assert!(record.since() <= self.journal.version, "{record:?}");
        if record.emit(&mut self.buffer).is_err() {
            self.write_buffer(disk, now)?;
            // An empty buffer takes the longest record.
            let _ = record.emit(&mut self.buffer);
        }
        Ok(())
    }

    /// Appends the buffer to the journal, whole or not at all.
    fn write_buffer(&mut self, disk: &mut impl Disk, now: Instant) -> DiskResult {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let length = self.buffer.len() as u64;
        let result = disk.write(SpoolFile::Journal, self.journal.end, &self.buffer);
        self.buffer.clear();
        match result {
            Ok(()) => {
                self.journal.end = self.journal.end.saturating_add(length);
                self.totals.io.bytes = self.totals.io.bytes.saturating_add(length);
                self.journal.unsynced_since.get_or_insert(now);
                Ok(())
            }
            Err(error) => {
                self.space.low_space |= error.is_no_space();
                // Half a record must not stay in front of the next one. If
                // even this fails, the next write overwrites it, or a
                // recovery cuts it.
                let _ = self.trim_reserved(disk);
                let _ = self.reserve_space(disk, 0, 0);
                Err(error)
            }
        }
    }

    /// Makes everything that was appended durable. Only when this succeeds
    /// may a job be acknowledged.
    ///
    /// # Errors
    /// Nothing since the last commit may be relied on.
    pub fn commit(&mut self, disk: &mut impl Disk, rules: &SpoolRules, now: Instant) -> DiskResult {
        self.write_buffer(disk, now)?;
        self.replace_doubtful(disk, now)?;
        if self.journal.unsynced_since.is_none() && !self.journal.name_unsynced {
            return Ok(());
        }
        if rules.sync {
            self.sync_journal(disk)?;
        }
        self.journal.unsynced_since = None;
        self.journal.name_unsynced = false;
        Ok(())
    }

    fn sync_journal(&mut self, disk: &mut impl Disk) -> DiskResult {
        self.totals.io.syncs = self.totals.io.syncs.saturating_add(1);
        if let Err(error) = disk.sync(SpoolFile::Journal) {
            // The kernel may have dropped the pages and marked them clean: a
            // second sync would succeed and mean nothing.
            self.journal.sync_failed = true;
            return Err(error);
        }
        if self.journal.name_unsynced { self.sync_name(disk) } else { Ok(()) }
    }

    /// Makes the name of the journal durable.
    fn sync_name(&mut self, disk: &mut impl Disk) -> DiskResult {
        self.totals.io.syncs = self.totals.io.syncs.saturating_add(1);
        let result = disk.sync_spool();
        self.journal.name_unsynced = result.is_err();
        // As for the data: a second sync of the same name would mean nothing.
        self.journal.sync_failed |= result.is_err();
        result
    }

    /// Writes the journal again if a sync of it or of its name failed.
    fn replace_doubtful(&mut self, disk: &mut impl Disk, now: Instant) -> DiskResult {
        if self.journal.sync_failed {
            self.compact_now(disk, now)?;
        }
        if self.journal.sync_failed { Err(NAMES_LOST) } else { Ok(()) }
    }

    /// Returns when [`Spool::commit`] is due for the records that were appended. After a sync that failed
    /// it is due at once, because nothing in the journal is certain until it is written again.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.journal.sync_failed {
            return Some(Instant::BOOT);
        }
        self.journal.unsynced_since.map(|since| since + COMMIT_DELAY)
    }

    /// Begins a batch of new jobs. Until they are committed nothing but
    /// [`Spool::add`] may be asked for.
    ///
    /// # Errors
    /// There is no room for new jobs, or the disk fails.
    pub fn begin_batch(&mut self, disk: &mut impl Disk, now: Instant) -> DiskResult<Savepoint> {
        self.write_buffer(disk, now)?;
        self.replace_doubtful(disk, now)?;
        self.upgrade(disk, now);
        self.ensure_space(disk)?;
        Ok(Savepoint {
            end: self.journal.end,
            waiting: self.totals.waiting,
            live_bytes: self.totals.live_bytes,
            scheduled: self.totals.scheduled,
            epoch: self.schedule.epoch(),
        })
    }

    /// Accepts a job, to be acknowledged after the next commit. Its text must
    /// be 1 to [`JOB_MAX_BYTES`] bytes.
    ///
    /// # Errors
    /// It is not accepted, and the batch is to be rolled back. The caller asks
    /// [`Spool::room`] whether the queue is full.
    pub fn add(&mut self, disk: &mut impl Disk, now: Instant, text: &[u8]) -> DiskResult<u64> {
        self.add_after(disk, now, text, None)
    }

    /// Accepts a job as [`Spool::add`] does, which is not due before `delay` has passed.
    /// [`Spool::is_prepared`] must be true for a delayed job.
    ///
    /// # Errors
    /// As for [`Spool::add`].
    pub fn add_after(
        &mut self,
        disk: &mut impl Disk,
        now: Instant,
        text: &[u8],
        delay: Option<Duration>,
    ) -> DiskResult<u64> {
        debug_assert!(!text.is_empty() && text.len() <= JOB_MAX_BYTES);
        let id = self.totals.next_id;
        let mut attributes = self.new_attributes();
        if let Some(delay) = delay {
            let due = self.new_due(disk, now, delay)?;
            attributes = replace(&attributes, Attribute::Due, &due);
        }
        let record = Record { attributes: &attributes, body: text, ..Record::new(RecordKind::Add, id, 0) };
        let end = self.journal.end;
        self.append_record(disk, now, &record)?;
        if self.journal.end > end {
            // A large batch would take more than is spared for one buffer of new jobs.
            self.ensure_space(disk)?;
        }
        self.add_waiting(&record);
        if let Some(due) = due_of(&record) {
            let behind = self.journal.end.saturating_add(self.buffer.len() as u64);
            self.note_scheduled(&record, due, behind.saturating_sub(record.size() as u64));
        }
        Ok(id)
    }

    /// Takes a batch of new jobs back, because they could not be committed. Their ids reached
    /// no client, and are not used again by this process.
    pub fn roll_back(&mut self, disk: &mut impl Disk, savepoint: Savepoint) {
        self.buffer.clear();
        self.totals.scheduled = savepoint.scheduled;
        self.schedule.roll_back(savepoint.epoch);
        (self.journal.end, self.totals.waiting, self.totals.live_bytes) =
            (savepoint.end, savepoint.waiting, savepoint.live_bytes);
        // As after a failed write.
        let _ = self.trim_reserved(disk);
        let _ = self.reserve_space(disk, 0, 0);
    }

    /// Counts a new live record.
    fn add_waiting(&mut self, record: &Record<'_>) {
        self.totals.next_id = self.totals.next_id.max(record.id.saturating_add(1));
        self.totals.waiting = self.totals.waiting.saturating_add(1);
        self.totals.live_bytes = self.totals.live_bytes.saturating_add(record.size() as u64);
    }

    /// Returns the attributes of a job that is queued now.
    fn new_attributes(&self) -> Attributes {
        if self.journal.version < VERSION { Attributes::new() } else { self.journal.handler.attributes() }
    }

    /// Returns true if the journal is copied in less than a second.
    fn is_soon_copied(&self) -> bool {
        self.totals.live_bytes <= UPGRADE_AT_ONCE_BYTES
    }

    /// Has the journal written again in the newest version of the format, because a record
    /// that its version does not have follows. Until that is done the journal goes without
    /// such records. A large journal is copied in steps, later.
    fn upgrade(&mut self, disk: &mut impl Disk, now: Instant) {
        if self.journal.version >= VERSION || self.journal.upgrade || self.compaction.is_active() {
            return;
        }
        self.journal.upgrade = true;
        if self.is_soon_copied() {
            // If it fails, it is tried again like any compaction.
            let _ = self.compact_now(disk, now);
        }
    }

    // ----- texts ----------------------------------------------------------

    /// Reads the text of the job at `location` from its live record into `buffer`.
    ///
    /// # Errors
    /// The journal cannot be read there.
    pub fn text<'b>(
        &self,
        disk: &mut impl Disk,
        location: RecordLocation,
        buffer: &'b mut [u8; RECORD_MAX_BYTES],
    ) -> DiskResult<&'b [u8]> {
        read_parts(disk, location, buffer).map(|(_, text)| text)
    }

    /// Reads the text of a job that is to run. The placeholder of a damaged text is refused.
    ///
    /// # Errors
    /// The journal cannot be read there, or the text is lost.
    pub fn runnable_text<'b>(
        &self,
        disk: &mut impl Disk,
        location: RecordLocation,
        buffer: &'b mut [u8; RECORD_MAX_BYTES],
    ) -> DiskResult<&'b [u8]> {
        read_parts(disk, location, buffer)
            .and_then(|(_, text)| if text == PLACEHOLDER_TEXT { Err(DAMAGED) } else { Ok(text) })
    }

    /// Returns true if enough of the journal is dead weight to write it again.
    #[must_use]
    pub fn wants_compaction(&self) -> bool {
        // While the disk is full a compaction keeps no ends.
        let ends = if self.space.low_space { 0 } else { self.totals.result_bytes };
        let over = self.journal.end.saturating_sub(self.totals.live_bytes).saturating_sub(ends);
        let live = self.totals.live_bytes;
        let worth = if self.space.low_space {
            COMPACT_LOW_SPACE_BYTES.max(live / COMPACT_LOW_SPACE_SHARE)
        } else {
            COMPACT_MIN_BYTES.max(live)
        };
        let must = self.journal.sync_failed || self.corruption.seen || self.journal.upgrade;
        let must = must || self.wants_epoch();
        must || self.tombstones.is_full() || over > worth
    }
}

/// Stands for a text that was damaged while the service ran, so that its job
/// does not hold up the journal.
const PLACEHOLDER_TEXT: &[u8] = b"(the text of this job was damaged on the disk)";

/// Reads attributes and text of a live record, or returns [`PLACEHOLDER_TEXT`] for a damaged
/// one.
fn parts_or_placeholder<'b>(
    disk: &mut impl Disk,
    location: RecordLocation,
    buffer: &'b mut [u8; RECORD_MAX_BYTES],
) -> DiskResult<(&'b [u8], &'b [u8])> {
    match read_parts(disk, location, buffer) {
        Err(DAMAGED) => Ok((&[], PLACEHOLDER_TEXT)),
        result => result,
    }
}

/// Reads attributes and text of a live record and checks that they are the job's.
fn read_parts<'b>(
    disk: &mut impl Disk,
    location: RecordLocation,
    buffer: &'b mut [u8; RECORD_MAX_BYTES],
) -> DiskResult<(&'b [u8], &'b [u8])> {
    let wanted = buffer.get_mut(..usize::from(location.size)).ok_or(DAMAGED)?;
    let count = disk.read(SpoolFile::Journal, location.offset, wanted)?;
    match parse_record(buffer.get(..count).unwrap_or(&[])) {
        ParseResult::Record(record, _) if record.id == location.id => Ok((record.attributes, record.text())),
        _ => Err(DAMAGED),
    }
}

#[cfg(test)]
mod tests;
