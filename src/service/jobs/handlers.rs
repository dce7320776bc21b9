//! Attempts: choosing jobs, starting their handlers, and what follows from
//! their ends. The state of a job is in `state/window.rs`; one running handler
//! is in `job_worker.rs`.

use super::history::{JobEvent, JobResult};
use super::job_worker::{JobWorker, NotStarted};
use super::status::{describe_outcome, push_processing};
use super::{Jobs, Shutdown, rules};
use crate::limits::{START_RETRY, WINDOW_JOBS};
use crate::proto::journal::RECORD_MAX_BYTES;
use crate::proto::log::Level;
use crate::state::disk::DiskError;
use crate::state::window::{AttemptEnd, AttemptOutcome, JobState, Slot};
use crate::sys::process::{self, Exit, Signal};
use crate::util::time::{Duration, Instant};
use heapless::Vec;
use ufmt::uwrite;

impl Jobs {
    /// Takes the handlers that have ended: their group is killed before the
    /// leader is reaped, while its number cannot be anybody else's.
    #[inline(never)]
    pub(super) fn on_ended_handlers(&mut self, now: Instant) {
        let mut index = 0;
        while let Some(worker) = self.workers.get_mut(index) {
            let Some(exit) = process::ended(worker.pid) else {
                index = index.saturating_add(1);
                continue;
            };
            process::kill_group(worker.pid, Signal::KILL);
            worker.finish_output(&mut self.base.log, self.base.scratch);
            process::reap(worker.pid);
            let worker = self.workers.swap_remove(index);
            self.orphans.mark_outdated();
            let outcome = match exit {
                _ if worker.timed_out => AttemptOutcome::TimedOut,
                Exit::Code(0) => AttemptOutcome::Success,
                Exit::Code(code) => AttemptOutcome::Code(code),
                Exit::Signal(signal) => AttemptOutcome::Signal(signal),
            };
            let cancelled =
                self.spool.window().get(worker.id).is_some_and(|slot| slot.state == JobState::Cancelled);
            if self.shutdown != Shutdown::None
                && !cancelled
                && outcome != AttemptOutcome::Success
                && !worker.timed_out
            {
                self.spool.requeue(worker.id);
            } else {
                self.job_ended(worker.id, outcome, now.since(worker.started_at), now);
            }
        }
    }

    /// An attempt ended: decides what follows and says so.
    pub(super) fn job_ended(&mut self, id: u64, outcome: AttemptOutcome, took: Duration, now: Instant) {
        let rules = rules(self.base.process.config);
        let Some(slot) = self.spool.window().get(id).copied() else { return };
        let Some(end) = self.spool.ended(id, outcome, &rules) else { return };
        let (attempt, attempts) = (slot.attempt, rules.retries.saturating_add(1));
        let level = match end {
            AttemptEnd::Done(_) | AttemptEnd::Requeued => Level::Debug,
            AttemptEnd::Cancelled => Level::Info,
            AttemptEnd::Fail(_) => Level::Warn,
            AttemptEnd::Dead(_) => Level::Error,
        };
        let event = match end {
            AttemptEnd::Done(_) | AttemptEnd::Requeued => JobEvent::Ended(JobResult::Done),
            AttemptEnd::Fail(_) => JobEvent::Failed(outcome),
            AttemptEnd::Dead(outcome) => JobEvent::Ended(JobResult::Dead(outcome)),
            AttemptEnd::Cancelled => JobEvent::Ended(JobResult::Cancelled),
        };
        self.record_event(id, event, took, now);
        if outcome != AttemptOutcome::Success && end != AttemptEnd::Cancelled {
            self.counts.failed = self.counts.failed.saturating_add(1);
        }
        if !matches!(end, AttemptEnd::Fail(_)) {
            self.counts.jobs = self.counts.jobs.saturating_add(1);
        }
        self.base.log.line(level, &|out| {
            let _ = uwrite!(out, "job {}: ", id);
            describe_outcome(outcome, out);
            let _ = uwrite!(out, " after {} ms", took.as_ms());
            match end {
                AttemptEnd::Fail(delay) => {
                    let _ =
                        uwrite!(out, " (attempt {} of {}), next in {} ms", attempt, attempts, delay.as_ms());
                }
                AttemptEnd::Dead(_) => {
                    let _ = uwrite!(out, " (attempt {} of {}), kept as dead", attempt, attempts);
                }
                AttemptEnd::Done(_) | AttemptEnd::Requeued => {}
                AttemptEnd::Cancelled => out.push_str(", as it was cancelled"),
            }
        });
    }

    /// The handler `log`: all jobs of the window at once. A job is done when
    /// its line was written.
    #[inline(never)]
    pub(super) fn log_jobs(&mut self, now: Instant) -> Result<(), DiskError> {
        let rules = rules(self.base.process.config);
        let mut logged: Vec<u64, WINDOW_JOBS> = Vec::new();
        if !self.start_retry_at.is_due(now) {
            return Ok(());
        }
        while self.spool.dequeue(now).is_some() {}
        for slot in self.dequeued() {
            let mut buffer = [0; RECORD_MAX_BYTES];
            if let Some(text) = self.load_job_text(&slot, &mut buffer, now) {
                self.base.log.job(&|out| push_processing(text, out));
                let _ = logged.push(slot.id);
            }
        }
        if logged.is_empty() {
            return Ok(());
        }
        let written = self.base.log.flush();
        for id in logged {
            if written {
                self.spool.ended(id, AttemptOutcome::Success, &rules);
                self.counts.jobs = self.counts.jobs.saturating_add(1);
                self.record_event(id, JobEvent::Started, Duration::ZERO, now);
                self.record_event(id, JobEvent::Ended(JobResult::Done), Duration::ZERO, now);
            } else {
                // Not the job's fault: it waits until the log takes lines.
                self.spool.requeue(id);
                self.start_retry_at = now + START_RETRY;
            }
        }
        self.spool.write_transitions(&mut self.disk, now)
    }

    /// Chooses jobs while there are free workers.
    pub(super) fn dequeue(&mut self, now: Instant) {
        if !self.start_retry_at.is_due(now) {
            return;
        }
        let dequeued = self.dequeued().len();
        let mut free = self.worker_limit().saturating_sub(self.workers.len().saturating_add(dequeued));
        while free > 0 && self.spool.dequeue(now).is_some() {
            free = free.saturating_sub(1);
        }
    }

    /// Starts handlers while there are free workers.
    #[inline(never)]
    pub(super) fn start_jobs(&mut self, now: Instant) -> Result<(), DiskError> {
        if !self.start_retry_at.is_due(now) {
            return Ok(());
        }
        self.dequeue(now);
        let dequeued = self.dequeued();
        if dequeued.is_empty() {
            return Ok(());
        }
        self.write_transitions(now)?;
        if dequeued.iter().any(|slot| slot.attempt > 1) {
            // (a claim that cannot be removed must not hold up a retry)
            let rules = rules(self.base.process.config);
            self.spool.commit(&mut self.disk, &rules, now)?;
        }
        for slot in &dequeued {
            self.start_handler(slot, now);
        }
        self.write_transitions(now)
    }

    /// The jobs that are chosen and have no handler yet; those among them that
    /// a failed settle or commit kept from starting, too.
    pub(super) fn dequeued(&self) -> Vec<Slot, WINDOW_JOBS> {
        let has_handler = |id: u64| self.workers.iter().any(|worker| worker.id == id);
        let slots = self.spool.window().slots().iter();
        slots
            .filter(|slot| match slot.state {
                JobState::Starting => true,
                JobState::Running => !has_handler(slot.id),
                _ => false,
            })
            .copied()
            .collect()
    }

    #[inline(never)]
    pub(super) fn start_handler(&mut self, slot: &Slot, now: Instant) {
        let mut buffer = [0; RECORD_MAX_BYTES];
        let Some(text) = self.load_job_text(slot, &mut buffer, now) else { return };
        self.base.log.info(&|out| push_processing(text, out));
        let config = &self.base.process.config;
        let timeout = config.job_timeout;
        let oom = &mut self.oom_score;
        match JobWorker::start(config.handler(), oom, slot.id, slot.attempt, text, now, timeout) {
            Ok(worker) => {
                let _ = self.workers.push(worker);
                self.orphans.write(self.workers);
                self.record_event(slot.id, JobEvent::Started, Duration::ZERO, now);
            }
            Err(NotStarted::Refused(why)) => {
                self.base.log.error(&|out| {
                    let _ = uwrite!(out, "job {}: ", slot.id);
                    out.push_str(why);
                });
                self.job_ended(slot.id, AttemptOutcome::NotStarted, Duration::ZERO, now);
            }
            // Not the job's fault: it waits, and loses no attempt.
            Err(NotStarted::Failed(failure)) => {
                self.base.log.error(&|out| {
                    let _ = uwrite!(out, "job {}: not started, tried again in a second: ", slot.id);
                    failure.describe(out);
                });
                self.spool.requeue(slot.id);
                self.start_retry_at = now + START_RETRY;
            }
        }
    }
}
