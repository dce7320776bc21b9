//! Attempts: choosing jobs, starting their handlers, and what follows from
//! their ends. The state of a job is in `state/window.rs`; one running handler
//! is in `worker.rs`.

use super::history::{Fate, What};
use super::tell::{describe_outcome, push_processing};
use super::worker::{NotStarted, Worker};
use super::{Jobs, Stopping, rules};
use crate::limits::{START_RETRY, WINDOW_JOBS};
use crate::proto::journal::RECORD_MAX_BYTES;
use crate::proto::log::Level;
use crate::state::disk::DiskError;
use crate::state::window::{End, Outcome, Slot, State};
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
            worker.finish_output(&mut self.log, self.scratch);
            process::reap(worker.pid);
            let worker = self.workers.swap_remove(index);
            self.note.outdate();
            let outcome = match exit {
                _ if worker.timed_out => Outcome::TimedOut,
                Exit::Code(0) => Outcome::Success,
                Exit::Code(code) => Outcome::Code(code),
                Exit::Signal(signal) => Outcome::Signal(signal),
            };
            let cancelled =
                self.spool.window().get(worker.id).is_some_and(|slot| slot.state == State::Cancelled);
            if self.stopping != Stopping::No && !cancelled && outcome != Outcome::Success && !worker.timed_out
            {
                self.spool.returned(worker.id);
            } else {
                self.job_ended(worker.id, outcome, now.since(worker.started_at), now);
            }
        }
    }

    /// An attempt ended: decides what follows and says so.
    pub(super) fn job_ended(&mut self, id: u64, outcome: Outcome, took: Duration, now: Instant) {
        let rules = rules(self.process.config);
        let Some(slot) = self.spool.window().get(id).copied() else { return };
        let Some(end) = self.spool.ended(id, outcome, &rules) else { return };
        let (attempt, attempts) = (slot.attempt, rules.retries.saturating_add(1));
        let level = match end {
            End::Done(_) | End::Back => Level::Debug,
            End::Cancelled => Level::Info,
            End::Fail(_) => Level::Warn,
            End::Dead(_) => Level::Error,
        };
        let what = match end {
            End::Done(_) | End::Back => What::Ended(Fate::Done),
            End::Fail(_) => What::Failed(outcome),
            End::Dead(outcome) => What::Ended(Fate::Dead(outcome)),
            End::Cancelled => What::Ended(Fate::Cancelled),
        };
        self.note_event(id, what, took, now);
        if outcome != Outcome::Success && end != End::Cancelled {
            self.counts.failed = self.counts.failed.saturating_add(1);
        }
        if !matches!(end, End::Fail(_)) {
            self.counts.jobs = self.counts.jobs.saturating_add(1);
        }
        self.log.line(level, &|out| {
            let _ = uwrite!(out, "job {}: ", id);
            describe_outcome(outcome, out);
            let _ = uwrite!(out, " after {} ms", took.as_ms());
            match end {
                End::Fail(delay) => {
                    let _ =
                        uwrite!(out, " (attempt {} of {}), next in {} ms", attempt, attempts, delay.as_ms());
                }
                End::Dead(_) => {
                    let _ = uwrite!(out, " (attempt {} of {}), kept as dead", attempt, attempts);
                }
                End::Done(_) | End::Back => {}
                End::Cancelled => out.push_str(", as it was cancelled"),
            }
        });
    }

    /// The handler `log`: all jobs of the window at once. A job is done when
    /// its line was written.
    #[inline(never)]
    pub(super) fn log_jobs(&mut self, now: Instant) -> Result<(), DiskError> {
        let rules = rules(self.process.config);
        let mut logged: Vec<u64, WINDOW_JOBS> = Vec::new();
        if !self.start_after.is_due(now) {
            return Ok(());
        }
        while self.spool.choose(now).is_some() {}
        for slot in self.chosen() {
            let mut buffer = [0; RECORD_MAX_BYTES];
            if let Some(text) = self.text(&slot, &mut buffer, now) {
                self.log.job(&|out| push_processing(text, out));
                let _ = logged.push(slot.id);
            }
        }
        if logged.is_empty() {
            return Ok(());
        }
        let written = self.log.flush();
        for id in logged {
            if written {
                self.spool.ended(id, Outcome::Success, &rules);
                self.counts.jobs = self.counts.jobs.saturating_add(1);
                self.note_event(id, What::Started, Duration::ZERO, now);
                self.note_event(id, What::Ended(Fate::Done), Duration::ZERO, now);
            } else {
                // Not the job's fault: it waits until the log takes lines.
                self.spool.returned(id);
                self.start_after = now + START_RETRY;
            }
        }
        self.spool.settle(&mut self.disk, now)
    }

    /// Chooses jobs while there are free workers.
    pub(super) fn choose(&mut self, now: Instant) {
        if !self.start_after.is_due(now) {
            return;
        }
        let chosen = self.chosen().len();
        let mut free = self.worker_limit().saturating_sub(self.workers.len().saturating_add(chosen));
        while free > 0 && self.spool.choose(now).is_some() {
            free = free.saturating_sub(1);
        }
    }

    /// Starts handlers while there are free workers.
    #[inline(never)]
    pub(super) fn start_jobs(&mut self, now: Instant) -> Result<(), DiskError> {
        if !self.start_after.is_due(now) {
            return Ok(());
        }
        self.choose(now);
        let chosen = self.chosen();
        if chosen.is_empty() {
            return Ok(());
        }
        self.settle(now)?;
        if chosen.iter().any(|slot| slot.attempt > 1) {
            // (a claim that cannot be removed must not hold up a retry)
            let rules = rules(self.process.config);
            self.spool.commit(&mut self.disk, &rules, now)?;
        }
        for slot in &chosen {
            self.start_handler(slot, now);
        }
        self.settle(now)
    }

    /// The jobs that are chosen and have no handler yet; those among them that
    /// a failed settle or commit kept from starting, too.
    pub(super) fn chosen(&self) -> Vec<Slot, WINDOW_JOBS> {
        let has_handler = |id: u64| self.workers.iter().any(|worker| worker.id == id);
        let slots = self.spool.window().slots().iter();
        slots
            .filter(|slot| match slot.state {
                State::Starting => true,
                State::Running => !has_handler(slot.id),
                _ => false,
            })
            .copied()
            .collect()
    }

    #[inline(never)]
    pub(super) fn start_handler(&mut self, slot: &Slot, now: Instant) {
        let mut buffer = [0; RECORD_MAX_BYTES];
        let Some(text) = self.text(slot, &mut buffer, now) else { return };
        self.log.info(&|out| push_processing(text, out));
        let config = &self.process.config;
        let timeout = config.job_timeout;
        let oom = &mut self.oom_score;
        match Worker::start(config.handler(), oom, slot.id, slot.attempt, text, now, timeout) {
            Ok(worker) => {
                let _ = self.workers.push(worker);
                self.note.write(self.workers);
                self.note_event(slot.id, What::Started, Duration::ZERO, now);
            }
            Err(NotStarted::Refused(why)) => {
                self.log.error(&|out| {
                    let _ = uwrite!(out, "job {}: ", slot.id);
                    out.push_str(why);
                });
                self.job_ended(slot.id, Outcome::NotStarted, Duration::ZERO, now);
            }
            // Not the job's fault: it waits, and loses no attempt.
            Err(NotStarted::Failed(failure)) => {
                self.log.error(&|out| {
                    let _ = uwrite!(out, "job {}: not started, tried again in a second: ", slot.id);
                    failure.describe(out);
                });
                self.spool.returned(slot.id);
                self.start_after = now + START_RETRY;
            }
        }
    }
}
