//! What needs the spool's disk: intake, commit, compaction, and the rest that
//! it gets after an error. Jobs that are known go on meanwhile if they can.

use super::control::{Doing, Wanted};
use super::requests::code_of;
use super::tell::{describe_damage, describe_disk, tell_notice};
use super::{Jobs, Source, Stopping, rules};
use crate::limits::{CLIENTS_MAX, COMPACT_RETRY, COMPACT_RETRY_MAX, SPOOL_RETRY};
use crate::proto::config::Handler;
use crate::proto::control::Code;
use crate::proto::journal::RECORD_MAX_BYTES;
use crate::state::backoff::delay;
use crate::state::disk::DiskError;
use crate::state::spool::Notice;
use crate::state::window::{Outcome, Slot};
use crate::sys::{Errno, describe_errno};
use crate::util::time::{Duration, Instant};
use ufmt::uwrite;

impl Jobs {
    /// Intake, requests, commit, starts: everything that needs the spool's disk.
    #[inline(never)]
    pub(super) fn advance(&mut self, ready: &[Source], now: Instant) {
        // Its disk has a rest after an error, but jobs that are known go on if
        // they can.
        let resting = self.spool_failure.is_some_and(|(at, _)| !at.is_due(now));
        let was_failing = self.spool_failure.is_some();
        let starts = !resting && self.stopping == Stopping::No && !self.logs_jobs();
        if starts && self.spool.window().owes() {
            // (the end of one and the start of the next are one write)
            self.choose(now);
        }
        let settled = self.settle(now);
        // No room for new jobs or for a compaction must not keep the old jobs
        // from running: only their ends make room.
        let takes = settled.is_ok() && !resting && self.no_room.is_none() && self.stopping == Stopping::No;
        let taken = if takes { self.take_in(now, was_failing) } else { Ok(false) };
        self.serve(ready, now);
        let (group, committed) = self.commit_turn(taken == Ok(true), resting, now);
        if self.stopping != Stopping::No {
            // (a client stopped the service in this turn: what was chosen in it has no
            // handler, and must lose no attempt)
            for slot in self.chosen() {
                self.spool.returned(slot.id);
            }
            return;
        }
        if settled.is_ok() && !resting {
            self.keep_journal_small(now);
            self.tell_damage();
            self.switch_queue_file();
        }
        let run = settled.and_then(|()| self.run_jobs(now));
        self.jobs_blocked = run.is_err();
        if !resting {
            self.judge_spool(taken.map(drop).and(group), settled.and(committed).and(run), now);
        }
    }

    /// The disk worked, or failed, in this turn: for new jobs, and for the rest.
    #[inline(never)]
    fn judge_spool(&mut self, new: Result<(), DiskError>, rest: Result<(), DiskError>, now: Instant) {
        let refused = new.err().filter(|error| code_of(*error) == Code::NoSpace);
        let result = if refused.is_some() { rest } else { new.and(rest) };
        let was_failing = self.spool_failure.is_some();
        self.spool_failure = result.err().map(|error| (now + SPOOL_RETRY, error));
        match result {
            Ok(()) => {
                if was_failing {
                    self.log.info(&|out| out.push_str("spool: works again"));
                }
                self.judge_room(refused, now);
            }
            Err(error) if !was_failing => {
                let (disk, config) = (&self.disk, &self.process.config);
                self.log.error(&|out| {
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
    fn judge_room(&mut self, refused: Option<DiskError>, now: Instant) {
        if refused.is_none() && !self.no_room.is_some_and(|at| at.is_due(now)) {
            return;
        }
        let (room, free, kept) = self.spool.room_on_disk(&mut self.disk);
        let lacks = refused.is_some() || !room;
        let lacked = self.no_room.is_some();
        self.no_room = lacks.then(|| now + SPOOL_RETRY);
        if let Some(error) = refused.filter(|_| !lacked) {
            let config = &self.process.config;
            self.log.error(&|out| {
                out.push_str("spool: no room for new jobs: ");
                out.push_escaped(config.spool.as_bytes());
                out.push_str(": ");
                describe_errno(Errno::from_raw_os_error(error.0), out);
                let (free, kept) = (free / 1024, kept / 1024);
                let _ = uwrite!(out, ", {} KiB free, {} kept for the queued jobs", free, kept);
            });
        } else if !lacks {
            self.log.info(&|out| out.push_str("spool: works again, new jobs are taken"));
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
        let mut group = self.check_group();
        let due = self.spool.next_deadline().is_some_and(|at| at.is_due(now));
        let wanted = !resting && (taken || due || self.spool.claims.wants_commit());
        let mut rest = Ok(());
        if wanted || self.control.owes() || self.control.has_group() || group.is_err() {
            let rules = rules(self.process.config);
            // (also where everybody who asked has gone)
            let mut durable = self.spool.commit(&mut self.disk, &rules, now);
            if let Err(error) = durable
                && self.control.has_group()
            {
                // Without the new jobs there may be room for the rest.
                group = self.refuse_group(error);
                durable = self.spool.commit(&mut self.disk, &rules, now);
            }
            self.answer_owed(durable, now);
            debug_assert!(!self.control.has_group());
            rest = durable.and_then(|()| self.spool.remove_closed(&mut self.disk));
        }
        (group, rest)
    }

    /// Begins or continues a compaction where that is due.
    fn keep_journal_small(&mut self, now: Instant) {
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
                self.log.warn(&|out| {
                    out.push_str("spool: the journal cannot be written anew, the old one goes on: ");
                    describe_disk(disk, error, out);
                });
            }
        }
    }

    /// New jobs from the queue file into the journal; true if there were some.
    pub(super) fn take_in(&mut self, now: Instant, was_failing: bool) -> Result<bool, DiskError> {
        let rules = rules(self.process.config);
        if was_failing {
            // (one that still cannot be opened was told at start)
            self.spool.adopt_claims(&mut self.disk, now)?;
        }
        let log = &mut self.log;
        let mut tell = |notice: Notice<'_>| tell_notice(log, &notice);
        let taken = self.spool.intake(&mut self.disk, self.scratch, &rules, now, &mut tell);
        taken.map(|jobs| jobs > 0)
    }

    /// From the journal into the window, and from there to handlers.
    pub(super) fn run_jobs(&mut self, now: Instant) -> Result<(), DiskError> {
        let rules = rules(self.process.config);
        self.spool.make_way(&mut self.disk, now)?;
        self.spool.refill(&mut self.disk, self.scratch, &rules, now)?;
        if self.logs_jobs() { self.log_jobs(now) } else { self.start_jobs(now) }
    }

    /// Whether a job is a line of the log.
    fn logs_jobs(&self) -> bool {
        matches!(self.process.config.handler(), Handler::Log)
    }

    pub(super) fn commit(&mut self, now: Instant) -> Result<(), DiskError> {
        let rules = rules(self.process.config);
        self.spool.commit(&mut self.disk, &rules, now)?;
        self.spool.remove_closed(&mut self.disk)
    }

    /// Puts starts and ends into the journal; the log comes first.
    pub(super) fn settle(&mut self, now: Instant) -> Result<(), DiskError> {
        if !self.spool.window().owes() {
            return Ok(());
        }
        self.log.flush();
        self.spool.settle(&mut self.disk, now)
    }

    /// Says what a compaction found damaged. Who waits for the end of a job that is
    /// lost is told that there is no such job.
    fn tell_damage(&mut self) {
        let Some(damage) = self.spool.take_damage() else { return };
        self.log.error(&|out| describe_damage(damage, out));
        for place in 0..CLIENTS_MAX {
            if let Doing::Waiting(id) = self.control.doing(place)
                && self.spool.window().get(id).is_none()
            {
                self.control.set_doing(place, Doing::Asked(Wanted::Wait(id)));
            }
        }
    }

    /// The text of a job, for its handler. If it cannot be read, says so and
    /// ends this attempt.
    pub(super) fn text<'b>(
        &mut self,
        slot: &Slot,
        buffer: &'b mut [u8; RECORD_MAX_BYTES],
        now: Instant,
    ) -> Option<&'b [u8]> {
        let result = self.spool.text_to_run(&mut self.disk, slot.place(), buffer);
        if let Err(error) = result {
            let disk = &self.disk;
            self.log.error(&|out| {
                let _ = uwrite!(out, "job {}: its text cannot be read: ", slot.id);
                describe_disk(disk, error, out);
            });
            self.job_ended(slot.id, Outcome::NotStarted, Duration::ZERO, now);
        }
        result.ok()
    }
}
