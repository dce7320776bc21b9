//! The handlers that run, their deadlines, and the times at which something is tried
//! again.

use crate::limits::{KILL_PATIENCE, WORKERS_MAX};
use crate::state::backoff::delay;
use crate::util::time::{Duration, Instant, earliest};
use heapless::Vec;

/// Time until the next attempt after a handler could not be started, for example because there
/// was no memory. The time doubles with each failure.
pub(crate) const START_RETRY: Duration = Duration::from_ms(1000);

/// Maximum time until the next attempt after a handler could not be started. Each attempt writes
/// two records to the journal.
pub(crate) const START_RETRY_MAX: Duration = Duration::from_ms(16_000);

/// The last request to a handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(Hash))]
enum JobPhase {
    /// Nothing.
    Running,
    /// To end, by TERM; KILL follows at this time.
    Terminating(Instant),
    /// To end, by KILL, which was due at this time.
    Killed(Instant),
    /// To end, by KILL, and did not.
    Stuck,
}

/// A job whose handler runs.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Hash))]
pub struct RunningJob {
    /// The job.
    pub id: u64,
    /// When its handler was started.
    pub started_at: Instant,
    /// Whether it exceeded `job_timeout`.
    pub timed_out: bool,
    /// When it exceeds `job_timeout`.
    deadline: Option<Instant>,
    phase: JobPhase,
    /// Whether the job was cancelled.
    cancelled: bool,
    /// Whether the signal of this phase is still to be sent.
    unsent: bool,
    /// Whether the service stops after this job, which asked for that. Its end is a success.
    stops_service: bool,
}

/// Why a handler gets a signal, and which.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignalKind {
    /// TERM, which asks the handler to end.
    Terminate,
    /// TERM, because the handler exceeded `job_timeout`.
    Timeout,
    /// KILL, which ends the handler.
    Kill,
    /// None, because the handler does not end by KILL.
    Stuck,
    /// None, because the job was cancelled and its handler does not end: it is left alone.
    Abandon,
}

/// A signal to be sent to the process group of a handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HandlerSignal {
    /// The job.
    pub id: u64,
    /// The signal.
    pub kind: SignalKind,
}

/// See the module's documentation.
#[cfg_attr(test, derive(Clone, Hash))]
pub struct JobTimers {
    running: Vec<RunningJob, WORKERS_MAX>,
    /// A handler could not be started: none is started before this.
    pub(super) start_retry_at: Instant,
    /// Failures to start a handler since the last one that was started.
    start_failures: u32,
    /// When the queue file is looked at, where inotify is missing.
    pub(super) next_queue_check: Option<Instant>,
    /// When the service stops at the latest, because a job asked for that.
    stop_at: Option<Instant>,
}

impl JobTimers {
    /// No handler runs.
    pub(super) const NONE: Self = Self {
        running: Vec::new(),
        start_retry_at: Instant::BOOT,
        start_failures: 0,
        next_queue_check: None,
        stop_at: None,
    };

    /// Returns the jobs whose handlers run.
    #[must_use]
    pub fn running(&self) -> &[RunningJob] {
        &self.running
    }

    /// Returns true if the handler of job `id` runs.
    #[must_use]
    pub fn is_running(&self, id: u64) -> bool {
        self.running.iter().any(|job| job.id == id)
    }

    pub(super) fn add(&mut self, id: u64, started_at: Instant, deadline: Option<Instant>) {
        let phase = JobPhase::Running;
        let _ = self.running.push(RunningJob {
            id,
            started_at,
            deadline,
            phase,
            timed_out: false,
            cancelled: false,
            unsent: false,
            stops_service: false,
        });
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<RunningJob> {
        let index = self.running.iter().position(|job| job.id == id)?;
        Some(self.running.swap_remove(index))
    }

    /// Asks the handler of job `id` to end, because the job was cancelled. If it does not end, it
    /// is given up. Returns true if there is one.
    pub(super) fn cancel(&mut self, id: u64, kill_at: Instant) -> bool {
        let Some(job) = self.running.iter_mut().find(|job| job.id == id) else { return false };
        job.cancelled = true;
        job.unsent |= job.is_stuck();
        job.terminate(kill_at);
        true
    }

    /// Asks all handlers to end.
    pub(super) fn terminate_all(&mut self, kill_at: Instant) {
        self.running.iter_mut().for_each(|job| job.terminate(kill_at));
    }

    /// Ends all handlers.
    pub(super) fn kill_all(&mut self, now: Instant) {
        self.running.iter_mut().for_each(|job| job.kill(now));
    }

    /// Returns true if the handler of job `id` was asked to end.
    pub(super) fn is_ending(&self, id: u64) -> bool {
        self.running.iter().any(|job| job.id == id && job.phase != JobPhase::Running)
    }

    /// Has the service stop after job `id`, or at `stop_at`. Returns true if the job runs.
    pub(super) fn stop_after(&mut self, id: u64, stop_at: Instant) -> bool {
        let Some(job) = self.running.iter_mut().find(|job| job.id == id) else { return false };
        job.stops_service = true;
        self.stop_at.get_or_insert(stop_at);
        true
    }

    /// Returns true if the service stops after a job, so that no other is started.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.stop_at.is_some()
    }

    /// Returns true if the jobs after which the service stops have ended, or had their time.
    #[must_use]
    pub(super) fn is_stop_due(&self, now: Instant) -> bool {
        self.stop_at.is_some_and(|at| at.is_due(now) || !self.running.iter().any(|job| job.stops_service))
    }

    /// Forgets that the service is to stop, because it does.
    pub(super) fn begin_stop(&mut self) {
        self.stop_at = None;
    }

    /// Returns the next signal that is due. TERM is followed by KILL after `grace`.
    pub(super) fn next_signal(&mut self, now: Instant, grace: Duration) -> Option<HandlerSignal> {
        self.running.iter_mut().find_map(|job| job.next_signal(now, grace))
    }

    /// Returns when the next signal is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.running.iter().map(RunningJob::next_deadline).fold(self.stop_at, earliest)
    }

    /// Starts nothing for a while.
    pub(super) fn retry_start(&mut self, now: Instant) {
        self.start_retry_at = now + START_RETRY;
    }

    /// Takes that a handler could not be started, and starts none for a while. Several failures
    /// of one turn count as one.
    pub(super) fn start_failed(&mut self, now: Instant) {
        if self.start_retry_at.is_due(now) {
            self.start_failures = self.start_failures.saturating_add(1);
            self.start_retry_at = now + delay(START_RETRY, self.start_failures, START_RETRY_MAX);
        }
    }

    /// Forgets the failures to start a handler, and lets the next one start at once.
    pub(super) fn forget_failures(&mut self) {
        (self.start_retry_at, self.start_failures) = (Instant::BOOT, 0);
    }

    /// Returns true if the last handler could not be started.
    pub(super) fn is_start_failing(&self) -> bool {
        self.start_failures > 0
    }

    /// Returns true if the queue file is to be looked at now, and sets the next time.
    pub(super) fn is_queue_check_due(&mut self, watched: bool, interval: Duration, now: Instant) -> bool {
        let due = !watched && self.next_queue_check.is_none_or(|at| at.is_due(now));
        if watched {
            self.next_queue_check = None;
        } else if due {
            self.next_queue_check = Some(now + interval);
        }
        due
    }
}

impl RunningJob {
    /// Returns true if the service stops after this job, which asked for that.
    #[must_use]
    pub fn stops_service(&self) -> bool {
        self.stops_service
    }

    fn terminate(&mut self, kill_at: Instant) {
        match self.phase {
            JobPhase::Running => (self.phase, self.unsent) = (JobPhase::Terminating(kill_at), true),
            JobPhase::Terminating(_) | JobPhase::Killed(_) | JobPhase::Stuck => {}
        }
    }

    fn kill(&mut self, now: Instant) {
        if matches!(self.phase, JobPhase::Running | JobPhase::Terminating(_)) {
            (self.phase, self.unsent) = (JobPhase::Killed(now), true);
        }
    }

    /// Returns true if the handler does not end by KILL.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.phase == JobPhase::Stuck
    }

    fn next_deadline(&self) -> Option<Instant> {
        match self.phase {
            _ if self.unsent => Some(Instant::BOOT),
            JobPhase::Running => self.deadline,
            JobPhase::Terminating(kill_at) => Some(kill_at),
            JobPhase::Killed(at) => Some(at + KILL_PATIENCE),
            JobPhase::Stuck => None,
        }
    }

    fn next_signal(&mut self, now: Instant, grace: Duration) -> Option<HandlerSignal> {
        let times_out =
            self.phase == JobPhase::Running && self.next_deadline().is_some_and(|at| at.is_due(now));
        match self.phase {
            JobPhase::Running if times_out => {
                self.timed_out = true;
                self.terminate(now + grace);
            }
            JobPhase::Terminating(kill_at) if kill_at.is_due(now) => self.kill(now),
            JobPhase::Killed(at) if !self.unsent && (at + KILL_PATIENCE).is_due(now) => {
                (self.phase, self.unsent) = (JobPhase::Stuck, true);
            }
            JobPhase::Running | JobPhase::Terminating(_) | JobPhase::Killed(_) | JobPhase::Stuck => {}
        }
        let kind = match self.phase {
            JobPhase::Stuck if self.cancelled => SignalKind::Abandon,
            JobPhase::Stuck => SignalKind::Stuck,
            JobPhase::Killed(_) => SignalKind::Kill,
            _ if times_out => SignalKind::Timeout,
            JobPhase::Running | JobPhase::Terminating(_) => SignalKind::Terminate,
        };
        core::mem::take(&mut self.unsent).then_some(HandlerSignal { id: self.id, kind })
    }
}
