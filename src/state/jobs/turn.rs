//! The order of one turn, as a machine that is pulled: [`JobsCore::begin_turn`], then
//! [`JobsCore::next_action`] until there is none. The service performs each action before
//! it asks for the next one.
//!
//! ```text
//! Settle ─FlushLog─▶ Record ─▶ Ingest ─▶ Serve ─ServeClients─▶ Commit ─Reply─▶ Committed
//!                                                                                 │
//!    Health ◀── Refused ◀─StartHandler*─ Start ◀── RecordStarts ◀── Run ◀───────────┴ Compact ...
//! ```
//!
//! Three rules follow from this order, and each is one that the model checks:
//! - a client reads `ok` only after the commit that makes its request durable, in a journal to
//!   which its path leads
//! - a handler starts only after its start is in the journal, and from the second attempt
//!   on only after a commit
//! - a line of the log is written before the record of the end that it reports, so that a
//!   job whose handler is the log is never recorded as done without its line
//!
//! Clients that wait for the ends of jobs are notified before the requests of other clients,
//! which can have these ends forgotten, and at the end of the turn.
//!
//! A stage that the disk refuses is tried again by a later turn. New jobs that find no room
//! do not stop known jobs, because only the ends of known jobs free space.

use super::actions::{ClientNeeds, Turn, TurnAction, TurnNotice, TurnStep};
use super::history::{JobEvent, JobResult};
use super::timers::HandlerSignal;
use super::{JobsCore, Shutdown};
use crate::proto::journal::RECORD_MAX_BYTES;
use crate::state::disk::{Disk, DiskError, DiskResult};
use crate::state::spool::IngestNotice;
use crate::state::window::{AttemptOutcome, Slot};
use crate::util::time::{Duration, Instant};

/// Maximum number of dead jobs that one turn drops.
const DROPPED_TURN: u32 = 16;

impl JobsCore {
    /// Begins a turn.
    pub fn begin_turn(&mut self, now: Instant) {
        let resting = self.disk_health.resting_error(now).is_some();
        self.turn = Turn { step: TurnStep::Settle, resting, ..Turn::NONE };
    }

    /// Takes the result of [`TurnAction::FlushLog`].
    pub fn log_flushed(&mut self, written: bool) {
        self.turn.log_written = written;
    }

    /// Takes what the clients need, after [`TurnAction::ServeClients`].
    pub fn clients_served(&mut self, needs: ClientNeeds) {
        self.turn.needs = needs;
    }

    /// Continues the turn up to the next action. Returns nothing at the end of the turn.
    /// `scratch` is memory to read into; `report` gets what the ingest meets.
    pub fn next_action(
        &mut self,
        disk: &mut impl Disk,
        scratch: &mut [u8],
        now: Instant,
        report: &mut dyn FnMut(IngestNotice<'_>),
    ) -> Option<TurnAction> {
        loop {
            if let Some(signal) = self.next_signal(now) {
                return Some(TurnAction::Signal(signal));
            }
            let (next, action) = match self.turn.step {
                TurnStep::Idle => return self.notify_waiters(),
                TurnStep::Settle => self.settle(now),
                TurnStep::Record => {
                    self.turn.written = self.spool.write_transitions(disk, now);
                    (TurnStep::Ingest, None)
                }
                TurnStep::Ingest => {
                    self.ingest(disk, scratch, now, report);
                    // A request can have the ends of jobs forgotten.
                    (TurnStep::Serve, self.notify_waiters())
                }
                TurnStep::Serve => (TurnStep::Commit, Some(TurnAction::ServeClients)),
                TurnStep::Commit => (TurnStep::Committed, self.commit(disk, now)),
                TurnStep::Committed => (self.committed(disk, now), None),
                TurnStep::Home => (TurnStep::Compact, self.advance_home(disk, now)),
                TurnStep::Compact => (TurnStep::Damage, self.compact_if_due(disk, now)),
                TurnStep::Damage => {
                    let damage = if self.turn.is_disk_good() { self.spool.take_damage() } else { None };
                    (
                        TurnStep::QueueNotice,
                        damage.map(|damage| TurnAction::Notice(TurnNotice::Damaged(damage))),
                    )
                }
                TurnStep::QueueNotice => match self.spool.claims.take_notice() {
                    Some(notice) => {
                        (TurnStep::QueueNotice, Some(TurnAction::Notice(TurnNotice::Queue(notice))))
                    }
                    None => (TurnStep::Oldest, None),
                },
                TurnStep::Oldest => self.find_oldest_dead(disk, scratch, now),
                TurnStep::Drop => (self.drop_oldest_dead(disk, now), None),
                TurnStep::QueueFile => {
                    let switches = self.turn.is_disk_good() && self.spool.claims.leaves_queue_now();
                    (TurnStep::Due, switches.then_some(TurnAction::SwitchQueueFile))
                }
                TurnStep::Due => (self.release_due(disk, scratch, now), None),
                TurnStep::Run => self.choose_jobs(disk, scratch, now),
                TurnStep::Log => self.log_next(),
                TurnStep::Logged => self.jobs_logged(disk, now),
                TurnStep::RecordStarts => (self.record_starts(disk, now), None),
                TurnStep::Start => match self.next_dequeued() {
                    Some(slot) => (TurnStep::Start, Some(TurnAction::StartHandler(slot))),
                    None => (TurnStep::Refused, self.flush_pending()),
                },
                TurnStep::Refused => {
                    self.turn.run = self.spool.write_transitions(disk, now);
                    (TurnStep::Health, None)
                }
                TurnStep::Health => self.update_health(now),
                TurnStep::Space => {
                    let new_jobs = self.turn.new_jobs;
                    let notice = self.disk_health.update_space(&mut self.spool, disk, new_jobs, now);
                    (TurnStep::Room, notice.map(TurnAction::Notice))
                }
                TurnStep::Room => (TurnStep::Idle, self.update_room(now).map(TurnAction::Notice)),
            };
            self.turn.step = next;
            if action.is_some() {
                return action;
            }
        }
    }

    /// Returns the next signal that a handler is to get now.
    pub fn next_signal(&mut self, now: Instant) -> Option<HandlerSignal> {
        self.timers.next_signal(now, self.rules.stop_timeout)
    }

    /// Asks for answers to the clients whose jobs have ended.
    fn notify_waiters(&mut self) -> Option<TurnAction> {
        self.history.take_new_results().then_some(TurnAction::NotifyWaiters)
    }

    /// Asks for the log to be written, which comes before the records of the ends in it, and before
    /// the clients learn of them. A cancelled job that has ended has no such record.
    fn flush_pending(&self) -> Option<TurnAction> {
        (self.spool.window().has_pending_records() || self.history.has_new_results())
            .then_some(TurnAction::FlushLog)
    }

    fn settle(&mut self, now: Instant) -> (TurnStep, Option<TurnAction>) {
        let starts = !self.turn.resting && !self.is_stopping() && !self.rules.logs_jobs;
        if starts && self.spool.window().has_pending_records() {
            // The end of one attempt and the start of the next are one write.
            self.dequeue(now);
        }
        (TurnStep::Record, self.flush_pending())
    }

    /// Reads lines of the queue file into the journal.
    fn ingest(
        &mut self,
        disk: &mut impl Disk,
        scratch: &mut [u8],
        now: Instant,
        report: &mut dyn FnMut(IngestNotice<'_>),
    ) {
        if !self.turn.is_disk_good() || self.disk_health.is_full() || self.is_stopping() {
            return;
        }
        if !self.home.is_here() {
            // The line would be in a claim and in a journal that may not survive.
            return;
        }
        let rules = self.rules.spool;
        let taken = self.spool.ingest(disk, scratch, &rules, now, report);
        self.turn.ingested = taken.is_ok_and(|jobs| jobs > 0);
        self.turn.new_jobs = taken.map(drop);
    }

    /// Makes durable what must be, and answers the clients that wait for it. If the new
    /// jobs of clients cannot be made durable, the rest may be without them.
    fn commit(&mut self, disk: &mut impl Disk, now: Instant) -> Option<TurnAction> {
        let mut batch = self.batch.check(&mut self.spool, disk);
        let due = self.spool.next_deadline().is_some_and(|at| at.is_due(now));
        let due = due || self.home.wants_commit();
        let wanted = !self.turn.resting && (self.turn.ingested || due || self.spool.claims.wants_commit());
        if !wanted && !self.turn.needs.commit && !self.batch.is_open() && batch.is_ok() {
            return None;
        }
        self.turn.commits = true;
        let mut durable = self.spool.commit(disk, &self.rules.spool, now);
        if let Err(error) = durable
            && self.batch.is_open()
        {
            batch = self.batch.fail(&mut self.spool, disk, error);
            durable = self.spool.commit(disk, &self.rules.spool, now);
        }
        self.turn.new_jobs = self.turn.new_jobs.and(batch);
        self.turn.committed = durable;
        let acknowledged = durable.and_then(|()| self.home.confirm(disk, now));
        if let Err(error) = acknowledged
            && self.batch.is_open()
        {
            // Its clients get the error, so the jobs must not run.
            let _ = self.batch.fail(&mut self.spool, disk, error);
        }
        Some(TurnAction::Reply { jobs: self.batch.close(acknowledged), edits: acknowledged })
    }

    /// Removes claims after the replies are sent, and ends the turn if the service stops.
    fn committed(&mut self, disk: &mut impl Disk, now: Instant) -> TurnStep {
        if self.turn.commits && self.turn.committed.is_ok() && self.home.is_here() {
            self.spool.remove_closed(disk, now);
        }
        self.spool.release_claims(disk);
        if self.shutdown == Shutdown::No && !self.timers.is_last() && !self.spool.is_held() {
            return TurnStep::Home;
        }
        // A client stopped the service or held the queue in this turn: the jobs that were dequeued in it have
        // no handler, and must lose no attempt.
        self.turn.next_slot = 0;
        while let Some(slot) = self.next_dequeued() {
            self.spool.requeue(slot.id);
        }
        if self.shutdown == Shutdown::No {
            return TurnStep::Home;
        }
        TurnStep::Idle
    }

    /// Performs the next step of a spool that was moved.
    fn advance_home(&mut self, disk: &mut impl Disk, now: Instant) -> Option<TurnAction> {
        let stays = self.turn.needs.paging || self.turn.resting;
        self.home.advance(&mut self.spool, disk, stays, now).map(TurnAction::Notice)
    }

    /// Continues a compaction, or begins one that is due.
    fn compact_if_due(&mut self, disk: &mut impl Disk, now: Instant) -> Option<TurnAction> {
        let due = self.spool.wants_compaction() && self.disk_health.may_compact(now);
        let compacts = (self.spool.is_compacting() || due) && !self.turn.needs.paging;
        // The pending records may find their room in a new journal.
        let written = self.turn.written.is_ok() || self.turn.written.is_err_and(DiskError::is_no_space);
        if !compacts || !written || self.turn.resting || !self.home.is_here() {
            return None;
        }
        self.compact(disk, now).map(TurnAction::Notice)
    }

    /// Begins a compaction or does its next step. Returns why it failed.
    pub(crate) fn compact(&mut self, disk: &mut impl Disk, now: Instant) -> Option<TurnNotice> {
        let result = self.spool.compact_step(disk, now);
        self.disk_health.on_compaction(result, now)
    }

    /// Looks for a dead job that is to be dropped, because there are too many. Its text is
    /// logged before it is dropped.
    fn find_oldest_dead(
        &mut self,
        disk: &mut impl Disk,
        scratch: &mut [u8],
        now: Instant,
    ) -> (TurnStep, Option<TurnAction>) {
        // A page holds offsets of a journal that an upgrade would replace.
        let may = self.turn.is_disk_good() && self.home.is_here() && !self.turn.needs.paging;
        let may = may && self.turn.dropped < DROPPED_TURN;
        if !may || !self.spool.has_too_many_dead(&self.rules.spool) {
            return (TurnStep::QueueFile, None);
        }
        match self.spool.oldest_dead(disk, scratch, now) {
            Ok(Some(location)) => {
                self.turn.oldest = location;
                (TurnStep::Drop, Some(TurnAction::LogDropped(location)))
            }
            Ok(None) => (TurnStep::QueueFile, None),
            Err(error) => {
                self.turn.committed = self.turn.committed.and(Err(error));
                (TurnStep::QueueFile, None)
            }
        }
    }

    fn drop_oldest_dead(&mut self, disk: &mut impl Disk, now: Instant) -> TurnStep {
        let location = self.turn.oldest;
        if let Err(error) = self.spool.drop_oldest_dead(disk, now, location) {
            self.turn.committed = self.turn.committed.and(Err(error));
            return TurnStep::QueueFile;
        }
        self.turn.dropped = self.turn.dropped.saturating_add(1);
        self.counts.dead_dropped = self.counts.dead_dropped.saturating_add(1);
        self.history.forget(location.id);
        TurnStep::Oldest
    }

    /// Releases the delayed jobs that are due. A lack of room for them does not stop the others.
    fn release_due(&mut self, disk: &mut impl Disk, scratch: &mut [u8], now: Instant) -> TurnStep {
        if self.turn.is_disk_good() && self.home.is_here() && !self.is_stopping() && self.spool.has_due(now) {
            let released = self.spool.release_due(disk, scratch, now);
            self.turn.new_jobs = self.turn.new_jobs.and(released);
        }
        TurnStep::Run
    }

    /// Fills the window and dequeues the jobs that run.
    fn choose_jobs(
        &mut self,
        disk: &mut impl Disk,
        scratch: &mut [u8],
        now: Instant,
    ) -> (TurnStep, Option<TurnAction>) {
        // The disk rests before the jobs are tried again, also in a turn that a client causes: after a sync
        // that failed, each attempt writes the journal again.
        if let Some(error) = self.disk_health.resting_error(now)
            && self.disk_health.jobs_blocked
        {
            self.turn.run = Err(error);
            return (TurnStep::Health, None);
        }
        let rules = self.rules.spool;
        self.turn.run = self.turn.written.and_then(|()| {
            self.spool.defer_blocker(disk, now)?;
            self.spool.refill(disk, scratch, &rules, now)
        });
        if self.turn.run.is_err() || !self.timers.start_retry_at.is_due(now) {
            return (TurnStep::Health, None);
        }
        self.dequeue(now);
        if self.rules.logs_jobs {
            (TurnStep::Log, None)
        } else if self.dequeued().next().is_none() {
            (TurnStep::Health, None)
        } else {
            (TurnStep::RecordStarts, self.flush_pending())
        }
    }

    /// Returns the next job in the window that was dequeued and has no handler.
    fn next_dequeued(&mut self) -> Option<Slot> {
        loop {
            let slot = *self.spool.window().slots().get(self.turn.next_slot)?;
            self.turn.next_slot = self.turn.next_slot.saturating_add(1);
            if self.is_dequeued(&slot) {
                return Some(slot);
            }
        }
    }

    // ----- the handler is the log -------------------------------------------

    fn log_next(&mut self) -> (TurnStep, Option<TurnAction>) {
        if let Some(slot) = self.next_dequeued() {
            return (TurnStep::Log, Some(TurnAction::LogJob(slot)));
        }
        if self.dequeued().next().is_none() {
            return (TurnStep::Health, None);
        }
        self.turn.next_slot = 0;
        (TurnStep::Logged, Some(TurnAction::FlushLog))
    }

    /// Records the jobs in the log as done. Jobs that the log could not take wait until it
    /// can, and lose no attempt.
    fn jobs_logged(&mut self, disk: &mut impl Disk, now: Instant) -> (TurnStep, Option<TurnAction>) {
        while let Some(Slot { id, .. }) = self.next_dequeued() {
            if self.turn.log_written {
                self.spool.ended(id, AttemptOutcome::Success, &self.rules.spool);
                self.counts.jobs = self.counts.jobs.saturating_add(1);
                self.record_event(id, JobEvent::Started, Duration::ZERO);
                self.record_event(id, JobEvent::Ended(JobResult::Done), Duration::ZERO);
            } else {
                self.spool.requeue(id);
                self.timers.retry_start(now);
            }
        }
        self.turn.run = self.spool.write_transitions(disk, now);
        (TurnStep::Health, None)
    }

    // ----- handlers ---------------------------------------------------------

    fn record_starts(&mut self, disk: &mut impl Disk, now: Instant) -> TurnStep {
        self.turn.run = self.spool.write_transitions(disk, now);
        if self.turn.run.is_ok() && self.dequeued().any(|slot| slot.attempt > 1) {
            // A claim that cannot be removed must not delay a retry.
            self.turn.run = self.spool.commit(disk, &self.rules.spool, now);
        }
        if self.turn.run.is_ok() { TurnStep::Start } else { TurnStep::Health }
    }

    /// Reads the text of a job that was dequeued.
    ///
    /// # Errors
    /// The journal cannot be read there, or the text is lost.
    pub fn job_text<'b>(
        &self,
        disk: &mut impl Disk,
        slot: &Slot,
        buffer: &'b mut [u8; RECORD_MAX_BYTES],
    ) -> DiskResult<&'b [u8]> {
        self.spool.runnable_text(disk, slot.location(), buffer)
    }

    // ----- the queue and the disk -------------------------------------------

    /// Looks at the room of the queue: lines that wait for it in a claim are refused, too.
    fn update_room(&mut self, now: Instant) -> Option<TurnNotice> {
        let room = self.room();
        if room == 0 && self.spool.claims.wants_reading() {
            self.queue_room.refused(now);
        }
        self.queue_room.update(room, self.counts.jobs, self.rules.stale_after, now)
    }

    fn update_health(&mut self, now: Instant) -> (TurnStep, Option<TurnAction>) {
        let Turn { resting, written, new_jobs, committed, run, .. } = self.turn;
        self.disk_health.jobs_blocked = run.is_err();
        if resting {
            return (TurnStep::Room, None);
        }
        let notice = self.disk_health.update(new_jobs, written.and(committed).and(run), now);
        (TurnStep::Space, notice.map(TurnAction::Notice))
    }
}
