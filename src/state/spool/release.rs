//! Delayed jobs in the journal: added, found and released; the epochs of their due times; and a
//! queue that is held. `schedule.rs` has the rules.

use super::location::RecordLocation;
use super::scan::JournalScan;
use super::schedule::{CLOCK_SET_MS, Epoch, Rebase, Schedule, UPCOMING_MAX, Upcoming};
use super::{Spool, read_parts};
use crate::proto::attributes::{DUE_BYTES, Due};
use crate::proto::journal::{
    CLOCK_BODY_BYTES, ClockRecord, RECORD_MAX_BYTES, Record, RecordFlags, RecordKind, VERSION,
};
use crate::state::disk::{DAMAGED, Disk, DiskResult};
use crate::util::time::{Duration, Instant};
use heapless::Vec;

/// Maximum number of delayed jobs that are released in one turn.
const RELEASES_TURN: usize = 16;
/// Time until the next attempt after a release failed.
const RELEASE_RETRY: Duration = Duration::from_ms(1000);

impl Spool {
    /// Sets the id of this boot, before the recovery; zeros if it is not known.
    pub fn set_boot(&mut self, boot: [u8; 16]) {
        self.schedule.boot = boot;
    }

    /// Returns the number of delayed jobs that are not due.
    #[must_use]
    pub fn scheduled(&self) -> u32 {
        self.totals.scheduled.count
    }

    /// Returns true if the wall clock decides when some jobs are due, and was not set until now.
    #[must_use]
    pub fn awaits_wall_clock(&self) -> bool {
        self.totals.scheduled.count > 0 && !self.schedule.epoch.contains(Epoch::DECIDED)
    }

    /// Takes the wall clock, in seconds since 1970.
    pub fn set_wall_clock(&mut self, seconds: i64) {
        let ms = u64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
        self.schedule.wall = if ms < CLOCK_SET_MS { 0 } else { ms };
    }

    /// Releases no delayed job from now on.
    pub fn pause_schedule(&mut self) {
        self.schedule.paused = true;
    }

    /// Returns true if the journal belongs to another epoch.
    fn is_epoch_over(&self) -> bool {
        let Schedule { epoch, wall, .. } = self.schedule;
        !epoch.contains(Epoch::CURRENT) || (!epoch.contains(Epoch::DECIDED) && wall > 0)
    }

    /// Returns true if all due times in the journal have to be computed again.
    pub(super) fn wants_epoch(&self) -> bool {
        let known = self.totals.scheduled.count > 0 || self.schedule.released != (Instant::BOOT, 0);
        known && self.is_epoch_over()
    }

    /// Prepares the journal for a record that format 1 does not have, and for a delayed job if
    /// `delayed` is true. Returns false if that takes a compaction in steps. No batch may be open.
    pub fn is_prepared(&mut self, disk: &mut impl Disk, delayed: bool, now: Instant) -> DiskResult<bool> {
        self.upgrade(disk, now);
        let wants_epoch = delayed && self.wants_epoch();
        if wants_epoch && !self.compaction.is_active() && self.is_soon_copied() {
            self.compact_now(disk, now)?;
        }
        Ok(self.is_ready(delayed))
    }

    /// Returns true if the journal takes a record that format 1 does not have, and a delayed job if
    /// `delayed` is true.
    #[must_use]
    pub fn is_ready(&self, delayed: bool) -> bool {
        self.journal.version == VERSION && !(delayed && self.wants_epoch())
    }

    /// Returns the due time of a job that is queued now. Begins an epoch if there is none.
    pub(super) fn new_due(
        &mut self,
        disk: &mut impl Disk,
        now: Instant,
        delay: Duration,
    ) -> DiskResult<[u8; DUE_BYTES]> {
        if self.is_epoch_over() {
            let body = self.clock_body(now, self.schedule.wall);
            self.append_record(disk, now, &Record { body: &body, ..Record::new(RecordKind::Clock, 0, 0) })?;
            self.journal.clock = Some(body);
            self.schedule.epoch = Epoch::begun(self.schedule.wall);
        }
        let Schedule { boot, wall, .. } = self.schedule;
        let wall_clock = if wall > 0 { wall.saturating_add(delay.as_ms()) } else { 0 };
        Ok(Due { boot, boot_clock: (now + delay).as_ms(), wall_clock, left: delay.as_ms() }.emit())
    }

    /// Notes a delayed job that was appended.
    pub(super) fn note_scheduled(&mut self, record: &Record<'_>, due: Instant, offset: u64) {
        let known = self.schedule.upcoming.len() as u64 == u64::from(self.totals.scheduled.count);
        self.totals.scheduled.add(record.size());
        let size = u16::try_from(record.size()).unwrap_or(u16::MAX);
        let new = Upcoming { due, id: record.id, offset, size };
        if self.schedule.scan_at == 0
            && (known || self.schedule.upcoming.last().is_some_and(|last| new < *last))
        {
            self.schedule.insert(new);
        }
    }

    /// Returns the body of a record of this moment.
    fn clock_body(&self, now: Instant, wall_clock: u64) -> [u8; CLOCK_BODY_BYTES] {
        ClockRecord { boot: self.schedule.boot, boot_clock: now.as_ms(), wall_clock }.emit()
    }

    /// Returns the last record of a moment at which the service ran.
    pub(super) fn last_clock(&self) -> Option<ClockRecord> {
        self.journal.clock.as_ref().map(ClockRecord::parse)
    }

    /// Returns the record of this moment, in which the epoch is as it was.
    pub(super) fn present_clock(&self, now: Instant) -> Option<[u8; CLOCK_BODY_BYTES]> {
        let epoch = self.schedule.epoch;
        if !epoch.contains(Epoch::CURRENT) {
            return self.journal.clock;
        }
        let wall = if epoch.contains(Epoch::DECIDED) { self.schedule.wall.max(CLOCK_SET_MS) } else { 0 };
        Some(self.clock_body(now, wall))
    }

    /// Appends a record of this moment, at the end of the service, so that the time that has
    /// passed counts after a reboot.
    pub fn append_clock(&mut self, disk: &mut impl Disk, now: Instant) -> DiskResult {
        if self.totals.scheduled.count == 0
            || !self.schedule.epoch.contains(Epoch::CURRENT)
            || self.compaction.is_active()
        {
            return Ok(());
        }
        let Some(body) = self.present_clock(now) else { return Ok(()) };
        self.append_record(disk, now, &Record { body: &body, ..Record::new(RecordKind::Clock, 0, 0) })?;
        self.journal.clock = Some(body);
        Ok(())
    }

    /// Returns the epoch that a compaction begins, if it begins one.
    pub(super) fn next_epoch(&self, now: Instant) -> Option<Rebase> {
        let Schedule { boot, wall, epoch, .. } = self.schedule;
        let current = epoch.contains(Epoch::CURRENT);
        let seen = self.last_clock().map_or(0, |clock| clock.boot_clock);
        self.wants_epoch().then_some(Rebase { boot, now, wall, same_boot: current, seen })
    }

    /// Returns the record of a moment with which a new file begins.
    pub(super) fn clock_after(
        &self,
        rebase: Option<&Rebase>,
        now: Instant,
    ) -> Option<[u8; CLOCK_BODY_BYTES]> {
        match rebase {
            Some(rebase) => Some(self.clock_body(now, rebase.wall)),
            None => self.present_clock(now),
        }
    }

    /// Takes that a compaction has succeeded, which left out the jobs that were released.
    pub(super) fn compacted(&mut self, rebase: Option<Rebase>) {
        if let Some(rebase) = rebase {
            self.schedule.epoch = Epoch::begun(rebase.wall);
        }
        self.schedule.released = (Instant::BOOT, 0);
        self.schedule.forget_upcoming();
    }

    /// Returns when the next delayed job is due, or `now` if that is not known.
    #[must_use]
    pub fn schedule_deadline(&self, now: Instant) -> Option<Instant> {
        let idle = self.totals.scheduled.count == 0 || self.schedule.paused || self.compaction.is_active();
        if idle || self.is_epoch_over() {
            return None;
        }
        let due = match self.schedule.upcoming.first() {
            Some(first) if self.schedule.scan_at == 0 => first.due,
            _ => now,
        };
        Some(due.or_later(self.schedule.retry_at))
    }

    /// Releases the jobs that are due, as far as one turn's share.
    ///
    /// # Errors
    /// The disk refused it; the jobs are released later.
    #[inline(never)]
    pub fn release_due(&mut self, disk: &mut impl Disk, scratch: &mut [u8], now: Instant) -> DiskResult {
        let result = self.find_upcoming(disk, scratch).and_then(|()| self.release_upcoming(disk, now));
        if result.is_err() {
            self.schedule.retry_at = now + RELEASE_RETRY;
        }
        result
    }

    /// Returns true if a delayed job is due, or has to be looked for.
    #[must_use]
    pub fn has_due(&self, now: Instant) -> bool {
        self.schedule_deadline(now).is_some_and(|due| due.is_due(now))
    }

    fn release_upcoming(&mut self, disk: &mut impl Disk, now: Instant) -> DiskResult {
        for _ in 0..RELEASES_TURN {
            let first = self.schedule.upcoming.first().copied().filter(|first| first.due.is_due(now));
            let Some(job) = first.filter(|_| self.schedule.scan_at == 0) else { return Ok(()) };
            let mut buffer = [0; RECORD_MAX_BYTES];
            let location = RecordLocation {
                id: job.id,
                attempt: 0,
                offset: job.offset,
                size: job.size,
                dead: false,
                due: Some(job.due),
            };
            self.write_buffer(disk, now)?;
            let (attributes, body) = match read_parts(disk, location, &mut buffer) {
                Err(DAMAGED) => {
                    // A compaction takes it out.
                    self.corruption.seen = true;
                    return Ok(());
                }
                result => result?,
            };
            let flags = RecordFlags::MOVED;
            let record = Record { flags, attributes, body, ..Record::new(RecordKind::Add, job.id, 0) };
            self.append_record(disk, now, &record)?;
            self.write_buffer(disk, now)?;
            self.schedule.released = (job.due, job.id);
            self.schedule.upcoming.remove(0);
            self.totals.scheduled.sub(usize::from(job.size));
        }
        Ok(())
    }

    /// Looks for the jobs that are due next, as far as one turn's share.
    fn find_upcoming(&mut self, disk: &mut impl Disk, scratch: &mut [u8]) -> DiskResult {
        if !self.schedule.upcoming.is_empty() && self.schedule.scan_at == 0 {
            return Ok(());
        }
        let mut scan = JournalScan::new(
            self.journal.first.max(self.schedule.scan_at),
            u64::MAX,
            self.journal.generation,
        );
        let mut found = core::mem::replace(&mut self.schedule.upcoming, Vec::new());
        let mut list = Schedule { upcoming: found, ..Schedule::NONE };
        let mut visit = |location: RecordLocation| {
            if let Some(due) = location.due {
                let RecordLocation { id, offset, size, .. } = location;
                list.insert(Upcoming { due, id, offset, size });
            }
            true
        };
        let ended = self.scan_step(disk, scratch, &mut scan, &mut visit);
        found = list.upcoming;
        let known = found.len();
        self.schedule.upcoming = found;
        self.schedule.scan_at = scan.at();
        if ended? {
            self.schedule.scan_at = 0;
            // Fewer than were counted: damage that nothing has met.
            let count = usize::try_from(self.totals.scheduled.count).unwrap_or(usize::MAX);
            self.corruption.seen |= known < count.min(UPCOMING_MAX);
        }
        Ok(())
    }

    // ----- hold -------------------------------------------------------------

    /// Records that the queue is held, or is held no longer.
    ///
    /// # Errors
    /// The disk refused it; nothing changed.
    pub fn set_held(&mut self, disk: &mut impl Disk, held: bool, now: Instant) -> DiskResult {
        self.write_buffer(disk, now)?;
        self.append_record(disk, now, &Record::new(RecordKind::Hold, 0, u16::from(held)))?;
        self.write_buffer(disk, now)?;
        self.journal.held = held;
        Ok(())
    }
}
