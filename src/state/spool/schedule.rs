//! Jobs that are not due yet. Their live records stay where they are in the journal, and the
//! window passes over them. When a job is due, a copy of its record is appended, which the
//! window takes like that of a new job.
//!
//! The due times in one journal all belong to one *epoch*: a boot, of which the due times count
//! on the boot clock. Jobs are released in the order of their due times, so one due time and one
//! id stand for all that were released, however many. A new epoch is a compaction, which
//! computes all due times again and leaves out the jobs that were released.
//!
//! Memory holds the jobs that are due next, and not the others. When those are released, a scan
//! of the journal finds the next ones.

use super::location::due_of;
use crate::proto::attributes::{Attribute, Attributes, Due, replace};
use crate::proto::journal::{ClockRecord, Record, RecordKind};
use crate::util::time::Instant;
use bitflags::bitflags;
use heapless::Vec;

/// Maximum number of delayed jobs that are known without a scan.
pub(super) const UPCOMING_MAX: usize = 64;
/// Milliseconds from 1970 to 2020. A clock that shows an earlier time was never set.
pub(super) const CLOCK_SET_MS: u64 = 1_577_836_800_000;

/// A delayed job that is due soon.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Upcoming {
    pub(super) due: Instant,
    pub(super) id: u64,
    pub(super) offset: u64,
    pub(super) size: u16,
}

/// The number of delayed jobs, and the bytes of their live records.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct ScheduledTotals {
    pub(super) count: u32,
    pub(super) bytes: u64,
}

bitflags! {
    /// Flags of the epoch of the journal.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    #[cfg_attr(test, derive(Hash))]
    pub(super) struct Epoch: u8 {
        /// The due times count on the clock of this boot.
        const CURRENT = 1;
        /// The wall clock was set when the epoch began.
        const DECIDED = 2;
    }
}

impl Epoch {
    /// No epoch of this boot.
    const NONE: Self = Self::empty();

    /// Returns an epoch of this boot, which began at this wall clock, 0 if that was not set.
    pub(super) fn begun(wall: u64) -> Self {
        if wall > 0 { Self::all() } else { Self::CURRENT }
    }
}

/// A due time and an id.
type DueKey = (Instant, u64);

/// See the module's documentation.
#[cfg_attr(test, derive(Clone, Hash))]
#[repr(C)]
pub(super) struct Schedule {
    /// The id of this boot; zeros if it is not known.
    pub(super) boot: [u8; 16],
    /// The wall clock in milliseconds; 0 if it was never set.
    pub(super) wall: u64,
    pub(super) epoch: Epoch,
    /// Whether no job is released, because the service ends when the others are finished.
    pub(super) paused: bool,
    /// The last job that was released. Those before it are released, too.
    pub(super) released: DueKey,
    /// When a release is tried again.
    pub(super) retry_at: Instant,
    /// Where the scan for these stands; 0 if none is under way.
    pub(super) scan_at: u64,
    /// The jobs that are due next. There are others if there are more than these.
    pub(super) upcoming: Vec<Upcoming, UPCOMING_MAX>,
}

/// The beginning of an epoch, and the clocks of the one before.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Hash))]
pub(super) struct Rebase {
    pub(super) boot: [u8; 16],
    pub(super) now: Instant,
    /// The wall clock in milliseconds; 0 if it was never set.
    pub(super) wall: u64,
    /// Whether the boot is the one in which the due times were written.
    pub(super) same_boot: bool,
    /// The boot clock when the service ran last in that boot.
    pub(super) seen: u64,
}

impl Rebase {
    /// No epoch; all zeros.
    pub(super) const NONE: Self =
        Self { boot: [0; 16], now: Instant::BOOT, wall: 0, same_boot: false, seen: 0 };

    /// Returns the due time of a job in the new epoch.
    ///
    /// In the same boot only the jobs of an earlier boot change, when the wall clock was set. A job
    /// that was queued since had no wall clock.
    fn apply(&self, due: &Due) -> Due {
        let by_wall = due.wall_clock > 0 && self.wall > 0;
        let left = match (by_wall, self.same_boot) {
            (true, _) => due.wall_clock.saturating_sub(self.wall),
            (false, true) => due.boot_clock.saturating_sub(self.now.as_ms()),
            (false, false) => due.left.min(due.boot_clock.saturating_sub(self.seen)),
        };
        let boot_clock = self.now.as_ms().saturating_add(left);
        Due { boot: self.boot, boot_clock, wall_clock: due.wall_clock, left }
    }
}

/// Returns the attributes without a due time.
pub(super) fn without_due(attributes: &[u8]) -> Attributes {
    replace(attributes, Attribute::Due, &[])
}

impl ScheduledTotals {
    pub(super) fn add(&mut self, size: usize) {
        self.count = self.count.saturating_add(1);
        self.bytes = self.bytes.saturating_add(size as u64);
    }

    pub(super) fn sub(&mut self, size: usize) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(size as u64);
    }
}

impl ScheduledTotals {
    /// Returns these totals with the change from one moment to another.
    pub(super) fn plus_change(self, before: Self, after: Self) -> Self {
        Self {
            count: after.count.wrapping_sub(before.count).wrapping_add(self.count),
            bytes: after.bytes.wrapping_sub(before.bytes).wrapping_add(self.bytes),
        }
    }
}

impl Schedule {
    /// No delayed job; all zeros.
    pub(super) const NONE: Self = Self {
        boot: [0; 16],
        wall: 0,
        epoch: Epoch::NONE,
        paused: false,
        released: (Instant::BOOT, 0),
        retry_at: Instant::BOOT,
        scan_at: 0,
        upcoming: Vec::new(),
    };

    /// Forgets the jobs, and what is known of the journal.
    pub(super) fn reset(&mut self) {
        self.epoch = Epoch::NONE;
        (self.released, self.retry_at) = ((Instant::BOOT, 0), Instant::BOOT);
        self.forget_upcoming();
    }

    /// Returns the epoch, which a batch can begin.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Forgets what a batch that is taken back has added.
    pub(super) fn roll_back(&mut self, epoch: Epoch) {
        self.epoch = epoch;
        self.forget_upcoming();
    }

    /// Forgets where the next jobs are.
    pub(super) fn forget_upcoming(&mut self) {
        self.scan_at = 0;
        self.upcoming.clear();
    }

    /// Returns true if the job was released.
    pub(super) fn is_released(&self, due: Instant, id: u64) -> bool {
        (due, id) <= self.released
    }

    /// Takes the record of a moment at which the service ran, at the end of a recovery.
    pub(super) fn recovered(&mut self, clock: Option<&ClockRecord>) {
        let same = clock.filter(|clock| clock.boot == self.boot && self.boot != [0; 16]);
        self.epoch = same.map_or(Epoch::NONE, |clock| Epoch::begun(clock.wall_clock));
    }

    /// Adds a job that is due before the last one that is known. A full list loses that one.
    pub(super) fn insert(&mut self, new: Upcoming) {
        let Err(at) = self.upcoming.binary_search(&new) else { return };
        if self.upcoming.is_full() {
            if at >= UPCOMING_MAX {
                return;
            }
            self.upcoming.pop();
        }
        let _ = self.upcoming.insert(at, new);
    }

    /// Forgets one job.
    pub(super) fn remove(&mut self, id: u64) {
        self.upcoming.retain(|job| job.id != id);
    }
}

/// Returns the attributes of a copy of a live record. Those of a job that was released have no due
/// time, and those of a delayed job the one of the epoch that begins.
pub(super) fn copied_attributes(record: &Record<'_>, rebase: Option<&Rebase>) -> Attributes {
    match (Due::of(record.attributes), rebase) {
        (Some(_), _) if record.kind == RecordKind::Add && due_of(record).is_none() => {
            without_due(record.attributes)
        }
        (Some(due), Some(rebase)) => replace(record.attributes, Attribute::Due, &rebase.apply(&due).emit()),
        _ => Attributes::from_slice(record.attributes).unwrap_or_default(),
    }
}
