//! The decisions of the service `jobs`, from the queue file to the ends of jobs. The service
//! performs: it owns processes, sockets and files, and asks [`JobsCore`] what is next.
//!
//! - `turn.rs`: the order of one turn, as a machine that is pulled for actions
//! - `actions.rs`: these actions, and where a turn stands
//! - `batch.rs`: new jobs of clients, which are made durable together or not at all
//! - `disk_health.rs`: what a failing or full disk stops, and when it is tried again
//! - `home.rs`: what follows if the path of the journal leads elsewhere
//! - `timers.rs`: the handlers that run, their deadlines, and when a start is tried again
//! - `groups.rs`: the process groups that outlive their jobs
//! - `history.rs`: how jobs ended lately, and what happens to them
//! - `replies.rs`: what clients wait for, and the answers that wait for the commit
//! - `scan_task.rs`: requests that take several turns
//! - `list_index.rs`: where the pages of `list` are in the journal
//! - `queue_room.rs`: whether the queue refuses jobs for too long
//!
//! The exhaustive model and the random histories in `state/spool/tests` drive this very
//! machine with a disk that fails, dies and forgets.

mod actions;
pub mod asking;
mod batch;
mod disk_health;
mod groups;
mod history;
mod home;
mod list_index;
mod queue_room;
pub mod replies;
pub mod scan_task;
mod timers;
mod turn;

pub use actions::{ClientNeeds, TurnAction, TurnNotice};
pub use disk_health::DiskHealth;
pub use groups::{GroupCheck, LeftoverNotice, Leftovers};
pub use history::{History, JobEvent, JobResult};
pub use home::Home;
pub use queue_room::QueueRoom;
pub use timers::{HandlerSignal, JobTimers, RunningJob, SignalKind};

use super::degraded::{DegradedSet, DegradedState};
use super::disk::{Disk, DiskError, DiskResult, PathState};
use super::spool::{Cancelled, Purpose, RecordLocation, RecoverError, Recovery, Spool, SpoolRules};
use super::window::{AttemptEnd, AttemptOutcome, JobState, Slot};
use crate::proto::attributes::HandlerKind;
use crate::proto::journal::RECORD_MAX_BYTES;
use crate::proto::leftovers::NotedGroup;
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant, earliest};
use actions::Turn;
use batch::Batch;

/// Time that a job has for its own end after it asked for a stop of the service.
const LAST_JOB_WAIT: Duration = Duration::from_ms(5000);

/// The rules that the configuration sets.
#[derive(Clone, Copy, Debug)]
pub struct JobRules {
    /// The rules of the spool.
    pub spool: SpoolRules,
    /// Maximum number of handlers that run at a time.
    pub workers: usize,
    /// How long a handler may run; zero for no limit.
    pub job_timeout: Duration,
    /// Time from TERM to KILL.
    pub stop_timeout: Duration,
    /// Time between two looks at the queue file where inotify is missing.
    pub queue_interval: Duration,
    /// Whether a job is a line of the log, and needs no handler.
    pub logs_jobs: bool,
    /// Whether the log takes jobs that were queued for another handler.
    pub takes_all: bool,
    /// Time without progress after which a degraded state says why.
    pub stale_after: Duration,
}

impl JobRules {
    /// Returns true if the handler is the log, and the job was queued for another one.
    fn refuses(&self, slot: &Slot) -> bool {
        self.logs_jobs && !self.takes_all && slot.handler != HandlerKind::Log
    }
}

/// Whether the service is on its way out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shutdown {
    /// The service runs.
    No,
    /// TERM was sent to the handlers.
    Gracefully,
    /// KILL was sent to the handlers.
    AtOnce,
}

/// Counts since start.
#[derive(Clone, Copy, Default, Debug)]
pub struct JobCounts {
    /// Jobs that ended, well or dead.
    pub jobs: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Dead jobs that were dropped, because there were too many.
    pub dead_dropped: u64,
}

/// An attempt that ended, for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttemptReport {
    /// The job.
    pub id: u64,
    /// How the attempt ended.
    pub outcome: AttemptOutcome,
    /// How long it took.
    pub took: Duration,
    /// The consequence.
    pub end: AttemptEnd,
    /// Number of the attempt, from 1.
    pub attempt: u16,
    /// Maximum number of attempts.
    pub attempts: u32,
}

/// See the module's documentation. The large parts come last: a quiet service touches only
/// the beginning of each.
#[cfg_attr(test, derive(Clone))]
#[repr(C)]
pub struct JobsCore {
    rules: JobRules,
    counts: JobCounts,
    shutdown: Shutdown,
    turn: Turn,
    batch: Batch,
    /// Whether the path of the journal leads to the open journal.
    pub home: Home,
    /// Whether the queue refuses jobs for too long.
    pub queue_room: QueueRoom,
    /// The health of the disk.
    pub disk_health: DiskHealth,
    /// The handlers that run.
    pub timers: JobTimers,
    /// The journal, its claims and the window.
    pub spool: Spool,
    /// How jobs ended lately.
    pub history: History,
    /// The process groups that outlive their jobs.
    pub leftovers: Leftovers,
}

impl JobsCore {
    /// All zeros, to be filled in place by [`JobsCore::recover`].
    pub const EMPTY: Self = Self {
        rules: JobRules {
            spool: SpoolRules {
                retries: 0,
                retry_delay: Duration::ZERO,
                queue_max: 0,
                dead_max: 0,
                handler: HandlerKind::Unknown,
                sync: false,
            },
            workers: 0,
            job_timeout: Duration::ZERO,
            stop_timeout: Duration::ZERO,
            queue_interval: Duration::ZERO,
            logs_jobs: false,
            takes_all: false,
            stale_after: Duration::ZERO,
        },
        counts: JobCounts { jobs: 0, failed: 0, dead_dropped: 0 },
        shutdown: Shutdown::No,
        turn: Turn::NONE,
        batch: Batch::NONE,
        home: Home::HERE,
        queue_room: QueueRoom::FREE,
        disk_health: DiskHealth::GOOD,
        timers: JobTimers::NONE,
        leftovers: Leftovers::NONE,
        spool: Spool::EMPTY,
        history: History::EMPTY,
    };

    /// Opens the journal, creating it if there is none.
    ///
    /// # Errors
    /// The journal cannot be used.
    pub fn recover(
        &mut self,
        disk: &mut impl Disk,
        scratch: &mut [u8],
        rules: JobRules,
        now: Instant,
    ) -> Result<Recovery, RecoverError> {
        self.rules = rules;
        let recovery = self.spool.recover(disk, scratch, &self.rules.spool, now)?;
        if self.spool.lacks_space() {
            // No new job is accepted until there is room.
            self.disk_health.space_retry_at = Some(now);
        }
        Ok(recovery)
    }

    /// Takes over the rules of a new configuration.
    pub fn set_rules(&mut self, rules: JobRules) {
        self.rules = rules;
        self.spool.set_handler(rules.spool.handler);
    }

    /// Returns true if job `id` is in the window, or its end is in memory.
    fn is_known(&self, id: u64) -> bool {
        self.spool.window().get(id).is_some() || self.history.result_of(id).is_some()
    }

    /// Returns the counts since start.
    #[must_use]
    pub fn counts(&self) -> JobCounts {
        self.counts
    }

    /// Returns how many jobs may run at a time.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.rules.workers
    }

    /// Returns how many more jobs are accepted.
    #[must_use]
    pub fn room(&self) -> u32 {
        self.spool.room(&self.rules.spool)
    }

    /// Returns how many more jobs are accepted, for a new job that is refused if it is none.
    pub fn room_or_refusal(&mut self, now: Instant) -> u32 {
        let room = self.room();
        if room == 0 {
            self.queue_room.refused(now);
        }
        room
    }

    /// Returns true if the service is on its way out.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.shutdown != Shutdown::No
    }

    /// Returns true if the service is on its way out, and nothing of a job runs that could be
    /// ended.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.is_stopping()
            && self.timers.running().iter().all(RunningJob::is_stuck)
            && self.leftovers.is_done()
    }

    /// Returns true if a process of a job cannot be ended.
    #[must_use]
    pub fn has_stuck_job(&self) -> bool {
        self.timers.running().iter().any(RunningJob::is_stuck) || self.leftovers.is_stuck()
    }

    /// Returns true if a drain is complete: no job is left that is due, and no line can be read.
    /// Lines for which the queue or the disk has no room stay in their claims.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let accepts = self.disk_health.is_good() && self.home.is_here() && self.room() > 0;
        !self.is_stopping()
            && self.spool.waiting() == self.spool.scheduled()
            && self.timers.running().is_empty()
            && !(accepts && self.spool.claims.wants_reading())
    }

    /// Returns the nearest moment at which there is something to do; [`Instant::BOOT`] is
    /// at once. `paging` is true while the journal must stay as it is, because a page of it
    /// is being sent.
    #[must_use]
    pub fn next_deadline(&self, now: Instant, paging: bool) -> Option<Instant> {
        let mut due = earliest(self.timers.next_deadline(), self.leftovers.next_deadline());
        if self.is_stopping() {
            return due;
        }
        let mut sooner = |at: Option<Instant>| due = earliest(due, at);
        if let Some((retry_at, _)) = self.disk_health.failure {
            sooner(Some(retry_at));
            if self.disk_health.jobs_blocked {
                return due;
            }
        } else {
            let full = self.room() == 0;
            let space_retry_at = self.disk_health.space_retry_at;
            let here = self.home.is_here();
            let reading = self.spool.claims.wants_reading() && !full && here && space_retry_at.is_none();
            let compacting = self.spool.is_compacting() && !paging && here;
            let shrinks = self.spool.wants_compaction() && !paging && here;
            let claims = || self.spool.claims.next_deadline(now, full).filter(|_| here);
            sooner(self.spool.next_deadline());
            sooner(self.home.next_deadline(paging, now));
            sooner(space_retry_at.or_else(claims));
            sooner((compacting || reading).then_some(now));
            sooner(shrinks.then_some(self.disk_health.compact_after.or_later(now)));
            let drops = self.spool.has_too_many_dead(&self.rules.spool) && !paging && here;
            sooner(drops.then_some(now));
            sooner(self.spool.schedule_deadline(now).filter(|_| here));
        }
        sooner(self.queue_room.next_deadline(self.rules.stale_after));
        sooner(self.timers.next_queue_check);
        sooner(self.spool.wants_refill().then_some(now));
        let rests = self.timers.is_last() || self.leftovers.are_settling(now) || self.spool.is_held();
        if self.timers.running().len() < self.rules.workers && !rests {
            let start_at = now.or_later(self.timers.start_retry_at);
            let held = |slot: &Slot| self.leftovers.hold(slot.id) || self.rules.refuses(slot);
            sooner(self.spool.window().startable(now, &held).map(|_| start_at));
            sooner(self.spool.window().next_deadline(&held).map(|due| due.or_later(start_at)));
        }
        due
    }

    /// Takes the result of a look at the path of the journal.
    pub fn journal_looked_at(&mut self, path: PathState, now: Instant) {
        self.home.looked(path, now);
    }

    /// Looks at the queue file when that is due. `watched` is true if inotify does it.
    pub fn check_queue(&mut self, watched: bool, now: Instant) {
        if self.timers.is_queue_check_due(watched, self.rules.queue_interval, now) {
            self.spool.claims.look_at_queue();
            self.spool.claims.look_at_claims();
        }
    }

    // ----- the end of the service -------------------------------------------

    /// Stops the service, and returns true if this is the first call. The first call asks
    /// the handlers to end, later ones end them.
    pub fn stop(&mut self, now: Instant) -> bool {
        let first = !self.is_stopping();
        if first {
            self.timers.begin_stop();
            self.timers.terminate_all(now + self.rules.stop_timeout);
            self.leftovers.on_stop(false, now);
            self.shutdown = Shutdown::Gracefully;
        } else {
            self.timers.kill_all(now);
            self.leftovers.on_stop(true, now);
            self.shutdown = Shutdown::AtOnce;
        }
        first
    }

    /// Has the service stop after job `id`, which asked for that, or after a while. No other job is
    /// started. Returns true if the job runs.
    pub fn stop_after(&mut self, id: u64, now: Instant) -> bool {
        !self.is_stopping() && self.timers.stop_after(id, now + LAST_JOB_WAIT)
    }

    /// Returns true if the service is to stop now, because the job that asked for it has ended or
    /// had its time.
    #[must_use]
    pub fn is_stop_due(&self, now: Instant) -> bool {
        !self.is_stopping() && self.timers.is_stop_due(now)
    }

    /// Records everything that is pending, at the end of the service.
    ///
    /// # Errors
    /// The last ends are not recorded, and those jobs run again.
    /// [`MOVED`](super::disk::MOVED): everything is recorded in the open journal, to which its
    /// path does not lead.
    pub fn finish(&mut self, disk: &mut impl Disk, now: Instant) -> DiskResult {
        self.spool.write_transitions(disk, now)?;
        self.spool.append_clock(disk, now)?;
        self.spool.commit(disk, &self.rules.spool, now)?;
        self.home.finish(&mut self.spool, disk, &self.rules.spool, now)?;
        self.spool.remove_closed(disk, now);
        Ok(())
    }

    // ----- attempts ---------------------------------------------------------

    /// Takes the start of a handler, as [`TurnAction::StartHandler`] asked.
    pub fn handler_started(&mut self, id: u64, now: Instant) {
        let timeout = self.rules.job_timeout;
        self.timers.forget_failures();
        self.timers.add(id, now, (!timeout.is_zero()).then(|| now + timeout));
        self.record_event(id, JobEvent::Started, Duration::ZERO);
    }

    /// Takes that the text of job `id` cannot be read, which ends this attempt.
    pub fn handler_refused(&mut self, id: u64) -> Option<AttemptReport> {
        self.attempt_ended(id, AttemptOutcome::NotStarted, Duration::ZERO)
    }

    /// Takes that job `id` names nothing that can be executed. A further attempt would end in
    /// the same way, so there is none.
    pub fn job_rejected(&mut self, id: u64, outcome: AttemptOutcome) -> Option<AttemptReport> {
        self.timers.forget_failures();
        let retries = core::mem::take(&mut self.rules.spool.retries);
        let report = self.attempt_ended(id, outcome, Duration::ZERO);
        self.rules.spool.retries = retries;
        report.map(|report| AttemptReport { attempts: report.attempt.into(), ..report })
    }

    /// Takes that the handler of job `id` could not be started, which is not the job's
    /// fault: it waits, and loses no attempt.
    pub fn handler_failed(&mut self, id: u64, now: Instant) {
        self.spool.requeue(id);
        self.timers.start_failed(now);
    }

    /// Takes that the configuration may name another handler, which is tried at once.
    pub fn handler_changed(&mut self) {
        self.timers.forget_failures();
    }

    /// Returns true if jobs wait because the handler could not be started.
    #[must_use]
    pub fn is_handler_failing(&self) -> bool {
        self.timers.is_start_failing() && self.spool.waiting() > 0
    }

    /// Returns true if a job waits that was queued for another handler than the log.
    #[must_use]
    pub fn has_refused_job(&self) -> bool {
        self.spool.window().slots().iter().any(|slot| self.rules.refuses(slot))
    }

    /// Takes that processes of a job are there after its leader was reaped. To be called before
    /// [`JobsCore::handler_ended`]. Returns a group that gets KILL at once.
    pub fn group_left(&mut self, group: NotedGroup, now: Instant) -> Option<NotedGroup> {
        let at_once = self.is_stopping() || self.timers.is_ending(group.job);
        self.leftovers.keep(group, at_once, now)
    }

    /// Takes the end of the handler of job `id`. Returns nothing if the job runs again because the
    /// service stops, and loses no attempt.
    pub fn handler_ended(&mut self, id: u64, outcome: AttemptOutcome, now: Instant) -> Option<AttemptReport> {
        let job = self.timers.remove(id)?;
        let outcome = match job.timed_out {
            // The job did what it wanted, also if its own request has ended it.
            _ if job.stops_service() => AttemptOutcome::Success,
            true => AttemptOutcome::TimedOut,
            false => outcome,
        };
        let counts = matches!(outcome, AttemptOutcome::Success | AttemptOutcome::TimedOut)
            || self.spool.window().get(id).is_some_and(|slot| slot.state == JobState::Cancelled);
        let took = now.since(job.started_at);
        if self.is_stopping()
            && !counts
            && let Some(end) = self.spool.give_back(id, took, &self.rules.spool)
        {
            let attempt = self.spool.window().get(id)?.attempt;
            let attempts = self.rules.spool.retries.saturating_add(1);
            let report = AttemptReport { id, outcome, took, end, attempt, attempts };
            return (end == AttemptEnd::RequeuedCounted).then_some(report);
        }
        self.attempt_ended(id, outcome, took)
    }

    fn attempt_ended(&mut self, id: u64, outcome: AttemptOutcome, took: Duration) -> Option<AttemptReport> {
        let slot = *self.spool.window().get(id)?;
        let attempt = slot.attempt;
        self.spool.set_took(id, took);
        let end = self.spool.ended(id, outcome, &self.rules.spool)?;
        let event = match end {
            AttemptEnd::Done(_) | AttemptEnd::Requeued | AttemptEnd::RequeuedCounted => {
                JobEvent::Ended(JobResult::Done)
            }
            AttemptEnd::Fail(_) => JobEvent::Failed(outcome),
            AttemptEnd::Dead(outcome) => JobEvent::Ended(JobResult::Dead(outcome)),
            AttemptEnd::Cancelled => JobEvent::Ended(JobResult::Cancelled),
        };
        self.record_event_at(id, event, took, Some(slot.location()));
        if outcome != AttemptOutcome::Success && end != AttemptEnd::Cancelled {
            self.counts.failed = self.counts.failed.saturating_add(1);
        }
        if !matches!(end, AttemptEnd::Fail(_)) {
            self.counts.jobs = self.counts.jobs.saturating_add(1);
        }
        let attempts = self.rules.spool.retries.saturating_add(1);
        Some(AttemptReport { id, outcome, took, end, attempt, attempts })
    }

    fn record_event(&mut self, id: u64, event: JobEvent, took: Duration) {
        let location = self.spool.window().get(id).map(Slot::location);
        self.record_event_at(id, event, took, location);
    }

    fn record_event_at(&mut self, id: u64, event: JobEvent, took: Duration, at: Option<RecordLocation>) {
        let text = at.map(|location| (location, self.spool.generation()));
        self.history.record(id, event, took, text);
    }

    /// Writes the events since the last call, a line each, and drops them. Returns true if all did fit.
    pub fn take_events(&mut self, disk: &mut impl Disk, out: &mut Writer<'_>) -> bool {
        let Self { history, spool, .. } = self;
        history.take_events(out, &mut |(location, generation), out| {
            let mut buffer = [0; RECORD_MAX_BYTES];
            if generation == spool.generation()
                && let Ok(text) = spool.text(disk, location, &mut buffer)
            {
                out.push_reversible(text);
            }
        })
    }

    /// Dequeues jobs while workers are free.
    fn dequeue(&mut self, now: Instant) {
        if self.timers.is_last()
            || self.spool.is_held()
            || !self.timers.start_retry_at.is_due(now)
            || self.leftovers.are_settling(now)
        {
            return;
        }
        let busy = self.timers.running().len().saturating_add(self.dequeued().count());
        let free = if self.rules.logs_jobs { usize::MAX } else { self.rules.workers.saturating_sub(busy) };
        let mut left = free;
        let held = |slot: &Slot| self.leftovers.hold(slot.id) || self.rules.refuses(slot);
        while left > 0 && self.spool.dequeue(now, &held).is_some() {
            left = left.saturating_sub(1);
        }
    }

    /// Returns the jobs that are dequeued and have no handler yet, those included that a
    /// failed write or commit kept from starting.
    fn dequeued(&self) -> impl Iterator<Item = &Slot> {
        self.spool.window().slots().iter().filter(|slot| self.is_dequeued(slot))
    }

    fn is_dequeued(&self, slot: &Slot) -> bool {
        match slot.state {
            JobState::Starting => true,
            JobState::Running => !self.timers.is_running(slot.id),
            JobState::Waiting | JobState::Delayed(_) | JobState::Ended(_) | JobState::Cancelled => false,
        }
    }

    /// Returns the degraded states that follow from what is decided here.
    #[must_use]
    pub fn degraded(&self) -> DegradedSet {
        DegradedSet::NONE
            .with(DegradedState::Spool, self.disk_health.is_failing())
            .with(DegradedState::SpoolFull, self.disk_health.is_full())
            .with(DegradedState::Held, self.spool.is_held())
            .with(DegradedState::QueueFull, self.queue_room.is_stuck())
            .with(DegradedState::Handler, self.is_handler_failing() || self.has_refused_job())
            .with(DegradedState::SpoolMoved, !self.home.is_here())
            .with(DegradedState::StuckJob, self.has_stuck_job())
            .with(DegradedState::QueueFile, self.spool.claims.file_fails())
            .with(DegradedState::Claims, self.spool.claims.claims_fail())
    }

    // ----- requests of clients ----------------------------------------------

    /// Returns true if new jobs of this turn are not committed yet: nothing else may be
    /// appended after them.
    #[must_use]
    pub fn has_batch(&self) -> bool {
        self.batch.is_open()
    }

    /// Adds a job to the batch of this turn and returns its id. The id may be given to the
    /// client if [`TurnAction::Reply`] says that the batch is durable.
    ///
    /// # Errors
    /// The disk has no room, or failed a moment ago.
    pub fn add_job(&mut self, disk: &mut impl Disk, text: &[u8], now: Instant) -> DiskResult<u64> {
        self.home.accepts()?;
        self.disk_health.accepts_jobs(now)?;
        self.batch.add(&mut self.spool, disk, text, None, now)
    }

    /// Adds a job as [`JobsCore::add_job`] does, which is not due before `delay` has passed. Returns
    /// `None` if the request has to be tried again in the next turn.
    ///
    /// # Errors
    /// The disk has no room, or failed a moment ago.
    pub fn add_delayed_job(
        &mut self,
        disk: &mut impl Disk,
        text: &[u8],
        delay: Duration,
        now: Instant,
    ) -> DiskResult<Option<u64>> {
        self.home.accepts()?;
        self.disk_health.accepts_jobs(now)?;
        if !self.is_prepared(disk, true, now)? {
            return Ok(None);
        }
        self.batch.add(&mut self.spool, disk, text, Some(delay), now).map(Some)
    }

    /// Prepares the journal for records that format 1 does not have. Returns false if that takes a
    /// compaction in steps.
    fn is_prepared(&mut self, disk: &mut impl Disk, delayed: bool, now: Instant) -> DiskResult<bool> {
        if self.has_batch() {
            return Ok(self.spool.is_ready(delayed));
        }
        let ready = self.spool.is_prepared(disk, delayed, now)?;
        if ready || self.spool.is_compacting() || self.disk_health.may_compact(now) {
            return Ok(ready);
        }
        Err(self.disk_health.compact_error())
    }

    /// Takes that a request was refused. For want of space it counts as a new job that found no room,
    /// unless that is known already: clients that ask again must not delay the next look.
    pub fn request_refused(&mut self, error: DiskError) {
        if error.is_no_space() && !self.disk_health.is_full() {
            self.turn.new_jobs = self.turn.new_jobs.and(Err(error));
        }
    }

    /// Holds the queue, so that no job is started, or resumes it. Returns false if the request has
    /// to be tried again in the next turn.
    ///
    /// # Errors
    /// The disk refused it; nothing changed.
    pub fn set_held(&mut self, disk: &mut impl Disk, held: bool, now: Instant) -> DiskResult<bool> {
        self.home.accepts()?;
        if self.has_batch() || !self.is_prepared(disk, false, now)? {
            return Ok(false);
        }
        self.spool.write_transitions(disk, now)?;
        self.spool.set_held(disk, held, now)?;
        Ok(true)
    }

    /// Takes no more lines of the queue file, and releases no delayed job, because the service
    /// stops when the other jobs are finished.
    pub fn begin_drain(&mut self) {
        self.spool.claims.pause();
        self.spool.pause_schedule();
    }

    /// Cancels job `id` if it is in the window. Its handler, if it runs, is asked to end.
    ///
    /// # Errors
    /// The disk refused it; nothing changed.
    pub fn cancel(&mut self, disk: &mut impl Disk, id: u64, now: Instant) -> DiskResult<Option<Cancelled>> {
        self.home.accepts()?;
        self.spool.write_transitions(disk, now)?;
        if let Some(job) = self.timers.running().iter().find(|job| job.id == id) {
            self.spool.set_took(id, now.since(job.started_at));
        }
        let at = self.spool.window().get(id).map(Slot::location);
        let mut found = self.spool.cancel(disk, now, id)?;
        if found == Some(Cancelled::Running) && !self.timers.cancel(id, now + self.rules.stop_timeout) {
            // It was dequeued, and has no handler yet.
            self.spool.requeue(id);
            found = Some(Cancelled::Waiting);
        }
        self.leftovers.on_cancel(id, now);
        if found == Some(Cancelled::Waiting) {
            self.record_event_at(id, JobEvent::Ended(JobResult::Cancelled), Duration::ZERO, at);
        }
        Ok(found)
    }

    /// Cancels the waiting job at `location`, which is beyond the window.
    ///
    /// # Errors
    /// The disk refused it; nothing changed.
    pub fn cancel_record(
        &mut self,
        disk: &mut impl Disk,
        location: RecordLocation,
        now: Instant,
    ) -> DiskResult {
        self.home.accepts()?;
        self.spool.discard_record(disk, now, location)?;
        self.leftovers.on_cancel(location.id, now);
        self.record_event_at(
            location.id,
            JobEvent::Ended(JobResult::Cancelled),
            Duration::ZERO,
            Some(location),
        );
        Ok(())
    }

    /// Has the dead job at `location` wait again, or removes it.
    ///
    /// # Errors
    /// The disk refused it; nothing changed.
    pub fn edit_dead(
        &mut self,
        disk: &mut impl Disk,
        location: RecordLocation,
        retry: bool,
        now: Instant,
    ) -> DiskResult {
        self.home.accepts()?;
        if retry {
            self.spool.retry(disk, now, location)?;
        } else {
            self.spool.discard_record(disk, now, location)?;
        }
        self.history.forget(location.id);
        Ok(())
    }

    /// Begins to write the journal again for all dead jobs; the turns continue it.
    ///
    /// # Errors
    /// The disk refused it; the journal is as it was.
    pub fn start_rewrite(&mut self, disk: &mut impl Disk, purpose: Purpose, now: Instant) -> DiskResult {
        self.home.accepts()?;
        self.spool.write_transitions(disk, now)?;
        self.spool.compact_for(purpose, disk, now)
    }
}

#[cfg(test)]
mod tests;
