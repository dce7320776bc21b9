//! What needs the spool's disk: ingest, commit, compaction, and the rest that
//! it gets after an error. Jobs that are known go on meanwhile if they can.

use super::status::{describe_damage, describe_disk, log_notice};
use super::{Jobs, Shutdown, rules};
use crate::limits::{CLIENTS_MAX, COMPACT_RETRY, COMPACT_RETRY_MAX, SPOOL_RETRY};
use crate::proto::config::Handler;
use crate::proto::journal::RECORD_MAX_BYTES;
use crate::service::base::PollSource;
use crate::state::backoff::delay;
use crate::state::disk::DiskError;
use crate::state::jobs::replies::{ClientState, ScanRequest};
use crate::state::spool::IngestNotice;
use crate::state::window::{AttemptOutcome, Slot};
use crate::sys::{Errno, describe_errno};
use crate::util::time::{Duration, Instant};
use ufmt::uwrite;

impl Jobs {
    /// Ingest, requests, commit, starts: everything that needs the spool's disk.
    #[inline(never)]
    pub(super) fn advance(&mut self, ready: &[PollSource], now: Instant) {
        // Its disk has a rest after an error, but jobs that are known go on if
        // they can.
        let resting = self.spool_failure.is_some_and(|(at, _)| !at.is_due(now));
        let was_failing = self.spool_failure.is_some();
        let starts = !resting && self.shutdown == Shutdown::None && !self.logs_jobs();
        if starts && self.spool.window().has_pending_records() {
            // (the end of one and the start of the next are one write)
            self.dequeue(now);
        }
        let written = self.write_transitions(now);
        // No room for new jobs or for a compaction must not keep the old jobs
        // from running: only their ends make room.
        let takes =
            written.is_ok() && !resting && self.space_retry_at.is_none() && self.shutdown == Shutdown::None;
        let taken = if takes { self.ingest(now, was_failing) } else { Ok(false) };
        self.serve(ready, now);
        let (batch, committed) = self.commit_turn(taken == Ok(true), resting, now);
        if self.shutdown != Shutdown::None {
            // (a client stopped the service in this turn: what was chosen in it has no
            // handler, and must lose no attempt)
            for slot in self.dequeued() {
                self.spool.requeue(slot.id);
            }
            return;
        }
        if written.is_ok() && !resting {
            self.maybe_compact(now);
            self.log_damage();
            self.switch_queue_file();
        }
        let run = written.and_then(|()| self.run_jobs(now));
        self.jobs_blocked = run.is_err();
        if !resting {
            self.update_disk_health(taken.map(drop).and(batch), written.and(committed).and(run), now);
        }
    }

    /// The disk worked, or failed, in this turn: for new jobs, and for the rest.
    #[inline(never)]
    fn update_disk_health(&mut self, new: Result<(), DiskError>, rest: Result<(), DiskError>, now: Instant) {
        let refused = new.err().filter(|error| error.is_no_space());
        let result = if refused.is_some() { rest } else { new.and(rest) };
        let was_failing = self.spool_failure.is_some();
        self.spool_failure = result.err().map(|error| (now + SPOOL_RETRY, error));
        match result {
            Ok(()) => {
                if was_failing {
                    self.base.log.info(&|out| out.push_str("spool: works again"));
                }
                self.update_free_space(refused, now);
            }
            Err(error) if !was_failing => {
                let (disk, config) = (&self.disk, &self.base.process.config);
                self.base.log.error(&|out| {
                    out.push_str("spool: ");
                    out.push_escaped(config.spool.as_bytes());
                    out.push_str(": ");
                    describe_disk(disk, error, out);
                    out.push_str("; jobs wait, none is lost");
                });
            }
            Err(_) => {}
        }
    }

    /// Whether there is room for new jobs.
    fn update_free_space(&mut self, refused: Option<DiskError>, now: Instant) {
        if refused.is_none() && !self.space_retry_at.is_some_and(|at| at.is_due(now)) {
            return;
        }
        let (room, free, kept) = self.spool.update_low_space(&mut self.disk);
        let lacks = refused.is_some() || !room;
        let lacked = self.space_retry_at.is_some();
        self.space_retry_at = lacks.then(|| now + SPOOL_RETRY);
        if let Some(error) = refused.filter(|_| !lacked) {
            let config = &self.base.process.config;
            self.base.log.error(&|out| {
                out.push_str("spool: no room for new jobs: ");
                out.push_escaped(config.spool.as_bytes());
                out.push_str(": ");
                describe_errno(Errno::from_raw_os_error(error.0), out);
                let (free, kept) = (free / 1024, kept / 1024);
                let _ = uwrite!(out, ", {} KiB free, {} kept for the queued jobs", free, kept);
            });
        } else if !lacks {
            self.base.log.info(&|out| out.push_str("spool: works again, new jobs are taken"));
            // (claims that could not be adopted for the same reason)
            let adopted = self.spool.adopt_claims(&mut self.disk, now);
            self.spool_failure = adopted.err().map(|error| (now + SPOOL_RETRY, error));
        }
    }

    /// Makes durable what this turn put into the journal, if it has to be, and
    /// answers those who waited for that. Says what became of the new jobs of
    /// clients, and of the rest.
    fn commit_turn(
        &mut self,
        taken: bool,
        resting: bool,
        now: Instant,
    ) -> (Result<(), DiskError>, Result<(), DiskError>) {
        let mut batch = self.check_batch();
        let due = self.spool.next_deadline().is_some_and(|at| at.is_due(now));
        let wanted = !resting && (taken || due || self.spool.claims.wants_commit());
        let mut rest = Ok(());
        if wanted || self.control.replies.any_pending() || self.control.has_batch() || batch.is_err() {
            let rules = rules(self.base.process.config);
            // (also where everybody who asked has gone)
            let mut durable = self.spool.commit(&mut self.disk, &rules, now);
            if let Err(error) = durable
                && self.control.has_batch()
            {
                // Without the new jobs there may be room for the rest.
                batch = self.fail_batch(error);
                durable = self.spool.commit(&mut self.disk, &rules, now);
            }
            self.send_pending_replies(durable, now);
            debug_assert!(!self.control.has_batch());
            rest = durable.and_then(|()| self.spool.remove_closed(&mut self.disk));
        }
        (batch, rest)
    }

    /// Begins or continues a compaction where that is due.
    fn maybe_compact(&mut self, now: Instant) {
        let due = self.spool.wants_compaction() && self.compact_after.is_due(now);
        if (self.spool.is_compacting() || due) && !self.is_paging() {
            self.compact(now);
        }
    }

    /// A step of a compaction. One that fails costs a write of everything that
    /// is live, so the next attempt waits longer each time.
    pub(super) fn compact(&mut self, now: Instant) {
        match self.spool.compact_step(&mut self.disk, now) {
            Ok(()) => self.compact_failures = 0,
            Err(error) => {
                self.compact_failures = self.compact_failures.saturating_add(1);
                let wait = delay(COMPACT_RETRY, self.compact_failures, COMPACT_RETRY_MAX);
                self.compact_after = now + wait;
                self.compact_error = error;
                let disk = &self.disk;
                self.base.log.warn(&|out| {
                    out.push_str("spool: the journal cannot be written anew, the old one goes on: ");
                    describe_disk(disk, error, out);
                });
            }
        }
    }

    /// New jobs from the queue file into the journal; true if there were some.
    pub(super) fn ingest(&mut self, now: Instant, was_failing: bool) -> Result<bool, DiskError> {
        let rules = rules(self.base.process.config);
        if was_failing {
            // (one that still cannot be opened was told at start)
            self.spool.adopt_claims(&mut self.disk, now)?;
        }
        let log = &mut self.base.log;
        let mut report = |notice: IngestNotice<'_>| log_notice(log, &notice);
        let taken = self.spool.ingest(&mut self.disk, self.base.scratch, &rules, now, &mut report);
        taken.map(|jobs| jobs > 0)
    }

    /// From the journal into the window, and from there to handlers.
    pub(super) fn run_jobs(&mut self, now: Instant) -> Result<(), DiskError> {
        let rules = rules(self.base.process.config);
        self.spool.defer_blocker(&mut self.disk, now)?;
        self.spool.refill(&mut self.disk, self.base.scratch, &rules, now)?;
        if self.logs_jobs() { self.log_jobs(now) } else { self.start_jobs(now) }
    }

    /// Whether a job is a line of the log.
    fn logs_jobs(&self) -> bool {
        matches!(self.base.process.config.handler(), Handler::Log)
    }

    pub(super) fn commit(&mut self, now: Instant) -> Result<(), DiskError> {
        let rules = rules(self.base.process.config);
        self.spool.commit(&mut self.disk, &rules, now)?;
        self.spool.remove_closed(&mut self.disk)
    }

    /// Puts starts and ends into the journal; the log comes first.
    pub(super) fn write_transitions(&mut self, now: Instant) -> Result<(), DiskError> {
        if !self.spool.window().has_pending_records() {
            return Ok(());
        }
        self.base.log.flush();
        self.spool.write_transitions(&mut self.disk, now)
    }

    /// Says what a compaction found damaged. Who waits for the end of a job that is
    /// lost is told that there is no such job.
    fn log_damage(&mut self) {
        let Some(damage) = self.spool.take_damage() else { return };
        self.base.log.error(&|out| describe_damage(damage, out));
        for client_slot in 0..CLIENTS_MAX {
            if let ClientState::AwaitingJob(id) = self.control.replies.state(client_slot)
                && self.spool.window().get(id).is_none()
            {
                self.control.replies.set_state(client_slot, ClientState::ScanPending(ScanRequest::Wait(id)));
            }
        }
    }

    /// The text of a job, for its handler. If it cannot be read, says so and
    /// ends this attempt.
    pub(super) fn load_job_text<'b>(
        &mut self,
        slot: &Slot,
        buffer: &'b mut [u8; RECORD_MAX_BYTES],
        now: Instant,
    ) -> Option<&'b [u8]> {
        let result = self.spool.runnable_text(&mut self.disk, slot.location(), buffer);
        if let Err(error) = result {
            let disk = &self.disk;
            self.base.log.error(&|out| {
                let _ = uwrite!(out, "job {}: its text cannot be read: ", slot.id);
                describe_disk(disk, error, out);
            });
            self.job_ended(slot.id, AttemptOutcome::NotStarted, Duration::ZERO, now);
        }
        result.ok()
    }
}
