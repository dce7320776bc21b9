//! Starts and ends the handlers as `state/jobs` decides, and logs how attempts end. One
//! running handler is in `job_worker.rs`.

use super::Jobs;
use super::job_worker::{JobWorker, NotStarted, outcome_of};
use super::status::{describe_outcome, push_processing};
use crate::proto::config::Handler;
use crate::proto::journal::RECORD_MAX_BYTES;
use crate::proto::log::Level;
use crate::service::base::Detail;
use crate::service::lifecycle::describe_at;
use crate::state::jobs::{AttemptReport, HandlerSignal, SignalKind};
use crate::state::window::{AttemptEnd, AttemptOutcome, Slot};
use crate::sys::Failure;
use crate::sys::process::{self, Exit, Signal};
use crate::util::path::Path;
use crate::util::time::Instant;
use ufmt::uwrite;

impl Jobs {
    /// Reaps the children that have ended: handlers, and processes that handlers left.
    #[inline(never)]
    pub(super) fn reap(&mut self, now: Instant) {
        let mut recheck = false;
        while let Some((pid, exit)) = process::reap_any() {
            match self.workers.iter().position(|worker| worker.pid == pid) {
                Some(index) => self.on_ended_handler(index, exit, now),
                None => recheck = true,
            }
        }
        if recheck {
            self.recheck_leftovers(now);
        }
    }

    /// Takes the end of a handler, which was reaped.
    fn on_ended_handler(&mut self, index: usize, exit: Exit, now: Instant) {
        self.read_output(index, true, now);
        let worker = self.workers.swap_remove(index);
        self.orphans.mark_outdated();
        if self.base.process.config.ends_leftovers() && self.orphans.may_be_left(&worker.group) {
            self.keep_leftover(worker.group, now);
        }
        let outcome = match exit {
            Exit::Code(0) => AttemptOutcome::Success,
            Exit::Code(code) => AttemptOutcome::Code(code),
            Exit::Signal(signal) => AttemptOutcome::Signal(signal),
        };
        let report = self.core.handler_ended(worker.id, outcome, now);
        self.log_attempt(report);
    }

    /// Sends the signals that are due.
    #[inline(never)]
    pub(super) fn signal_handlers(&mut self, now: Instant) {
        while let Some(signal) = self.core.next_signal(now) {
            self.signal_handler(signal, now);
        }
        self.check_leftovers(now);
    }

    /// Sends a signal to the process group of a handler.
    pub(super) fn signal_handler(&mut self, signal: HandlerSignal, now: Instant) {
        let HandlerSignal { id, kind } = signal;
        let Some(index) = self.workers.iter().position(|worker| worker.id == id) else { return };
        let Some(worker) = self.workers.get(index) else { return };
        match kind {
            SignalKind::Kill => return process::kill_group(worker.pid, Signal::KILL),
            SignalKind::Stuck => {
                let number = worker.group.number;
                return self.log_stuck(id, number);
            }
            SignalKind::Abandon => {
                let number = worker.group.number;
                self.log_stuck(id, number);
                self.workers.swap_remove(index);
                self.orphans.mark_outdated();
                let report = self.core.handler_ended(id, AttemptOutcome::Signal(9), now);
                return self.log_attempt(report);
            }
            SignalKind::Terminate | SignalKind::Timeout => {}
        }
        process::kill_group(worker.pid, Signal::TERM);
        // A stopped handler could not even take the TERM.
        process::kill_group(worker.pid, Signal::CONT);
        if kind == SignalKind::Timeout {
            self.base.log.warn(&|out| {
                let _ = uwrite!(out, "job {} exceeded job_timeout, stopping it", id);
            });
        }
    }

    /// Logs how an attempt ended, and what follows.
    pub(super) fn log_attempt(&mut self, report: Option<AttemptReport>) {
        let Some(AttemptReport { id, outcome, took, end, attempt, attempts }) = report else { return };
        let level = match end {
            AttemptEnd::Done(_) | AttemptEnd::Requeued | AttemptEnd::Cancelled => Level::Info,
            AttemptEnd::Fail(_) | AttemptEnd::RequeuedCounted => Level::Warn,
            AttemptEnd::Dead(_) => Level::Error,
        };
        self.base.log.line(level, &|out| {
            let _ = uwrite!(out, "job {} ", id);
            describe_outcome(outcome, out);
            let preposition = if outcome == AttemptOutcome::Success { "in" } else { "after" };
            let _ = uwrite!(out, " {} {} ms", preposition, took.as_ms());
            match end {
                AttemptEnd::Fail(delay) => {
                    let ms = delay.as_ms();
                    let _ = uwrite!(out, " (attempt {} of {}), next in {} ms", attempt, attempts, ms);
                }
                AttemptEnd::Dead(_) => {
                    let _ = uwrite!(out, " (attempt {} of {}), kept as dead", attempt, attempts);
                }
                AttemptEnd::RequeuedCounted => {
                    let _ = uwrite!(out, " (attempt {} of {}), ", attempt, attempts);
                    out.push_str("which counts, as each of its last stops came soon after its start");
                }
                AttemptEnd::Done(_) | AttemptEnd::Requeued => {}
                AttemptEnd::Cancelled => out.push_str(", as it was cancelled"),
            }
        });
    }

    /// Starts the handler of a job.
    #[inline(never)]
    pub(super) fn start_handler(&mut self, slot: &Slot, now: Instant) {
        let mut buffer = [0; RECORD_MAX_BYTES];
        let Some(text) = self.load_job_text(slot, &mut buffer) else { return };
        let config = &*self.base.process.config;
        let failed_before = self.core.is_handler_failing();
        let started = JobWorker::start(config, &mut self.oom_score, &self.orphans.mark, slot, text);
        if let Err(NotStarted::Failed(failure)) = started {
            self.core.handler_failed(slot.id, now);
            if !failed_before {
                self.log_handler_failure(failure);
            }
            return;
        }
        if failed_before {
            self.base.log.info(&|out| out.push_str("handler: works again"));
        }
        self.base.log.info(&|out| push_processing(text, out));
        match started {
            Ok(worker) => {
                // A kept group that had this number is gone.
                let number = worker.group.number;
                self.core.leftovers.remove(number);
                let _ = self.workers.push(worker);
                self.note_groups();
                self.core.handler_started(slot.id, now);
                self.base.log.info(&|out| {
                    let _ = uwrite!(out, "job {} started", slot.id);
                });
                self.base.log.line(Level::Debug, &|out| {
                    let _ = uwrite!(out, "job {} is process {}", slot.id, number);
                });
            }
            Err(NotStarted::Refused(why, outcome)) => {
                self.reject_job(slot.id, outcome, &|out| out.push_str(why));
            }
            Err(NotStarted::Unfit(failure) | NotStarted::Failed(failure)) => {
                let outcome = outcome_of(failure.errno);
                self.reject_job(slot.id, outcome, &|out| failure.describe(out));
            }
        }
    }

    /// Ends a job that names nothing that can be executed.
    fn reject_job(&mut self, id: u64, outcome: AttemptOutcome, why: Detail<'_>) {
        self.base.log.error(&|out| {
            let _ = uwrite!(out, "job {} is not run: ", id);
            why(out);
        });
        let report = self.core.job_rejected(id, outcome);
        self.log_attempt(report);
    }

    /// Logs once that the handler cannot be started.
    fn log_handler_failure(&mut self, failure: Failure) {
        let shell = Path::or_empty(&[b"/bin/sh"]);
        let path = match self.base.process.config.handler() {
            Handler::Path(path) => path,
            Handler::Log | Handler::Shell => &shell,
        };
        self.base.log.error(&|out| {
            out.push_str("handler: ");
            describe_at(path, failure, out);
            out.push_str("; jobs wait and lose no attempt");
        });
    }
}
