//! The service `jobs`: from the queue file to handlers and their ends.
//!
//! One turn of the loop, always in this order:
//!
//! 1. poll the signal pipe, inotify and the handlers' output, until the
//!    nearest deadline
//! 2. signals, 3. ended handlers, 4. deadlines of handlers, 5. output
//! 6. intake: the queue file and its claims into the journal
//! 7. commit, if something is to be made durable
//! 8. start handlers (a second attempt only after a commit)
//! 9. write the log, then the heartbeat
//!
//! The log is written before the end of a job is, so that a job whose handler
//! is the log is never recorded as done without its line.
//!
//! After start-up nothing here ends the service: what fails is logged once,
//! leaves a named degraded state, and is tried again.

mod leftover;
mod reload;
mod worker;

use crate::limits::{
    COMPACT_RETRY_MAX_MS, COMPACT_RETRY_MS, LOG_BUFFER_BYTES, SPOOL_RETRY_MS, START_RETRY_MS, WINDOW_JOBS,
    WORKERS_MAX,
};
use crate::proto::config::{Config, Handler};
use crate::proto::journal::RECORD_MAX_BYTES;
use crate::proto::log::Level;
use crate::proto::names::Service;
use crate::proto::path::Path;
use crate::proto::text::Writer;
use crate::service::disk::SpoolDisk;
use crate::service::heartbeat::Heartbeat;
use crate::service::lifecycle::{Audience, Process, describe_at, ensure_folder, exit};
use crate::service::log::Log;
use crate::service::memory::Memory;
use crate::state::backoff::delay_ms;
use crate::state::disk::DiskError;
use crate::state::spool::{Notice, RecoverError, Recovery, Rules, Spool};
use crate::state::window::{End, Outcome, Slot, State};
use crate::sys::lock::PidFile;
use crate::sys::once::Once;
use crate::sys::poll::PollSet;
use crate::sys::process::{self, Exit, Signal};
use crate::sys::{Errno, Failure, clock, describe_errno, file, identity};
use heapless::Vec;
use leftover::Running;
use ufmt::uwrite;
use worker::{NotStarted, Worker};

/// What a poll result is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Signals,
    Inotify,
    Output(usize),
}

/// Counts since start.
#[derive(Clone, Copy, Default)]
struct Counts {
    /// Jobs that ended, well or dead.
    jobs: u64,
    /// Attempts that failed.
    failed: u64,
    reloads: u64,
    reload_errors: u64,
}

/// Whether the service is on its way out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    /// TERM was sent to the handlers.
    Gracefully,
    /// KILL was sent to the handlers.
    AtOnce,
}

/// See the module's documentation.
struct Jobs {
    process: Process,
    log: Log,
    heartbeat: Heartbeat,
    disk: SpoolDisk,
    /// Held until the end: two instances would ruin the journal.
    spool_lock: Option<PidFile>,
    /// The handlers that run, for the daemon after this one.
    note: Running,
    spool: &'static mut Spool,
    workers: &'static mut Vec<Worker, WORKERS_MAX>,
    scratch: &'static mut [u8],
    started_at: u64,
    counts: Counts,
    stopping: Stopping,
    /// The spool's disk failed: nothing is taken or started before this.
    spool_retry_at: Option<u64>,
    /// While the spool fails: whether jobs that are known cannot go on either.
    jobs_blocked: bool,
    /// A compaction failed so often; the next one not before this.
    compact_failures: u32,
    compact_after: u64,
    /// The kernel refused to start a handler: none is started before this.
    start_after: u64,
    /// Without inotify: when to look at the queue file.
    look_at: u64,
    /// The log and the health file failed when last looked at.
    log_failing: bool,
    heartbeat_failing: bool,
}

/// The large parts of [`Jobs`], in .bss.
struct Large {
    spool: Spool,
    workers: Vec<Worker, WORKERS_MAX>,
}

static STATE: Once<Large> = Once::new(Large { spool: Spool::EMPTY, workers: Vec::new() });

/// Runs the service until it is stopped; returns the exit code.
pub fn serve(memory: &'static mut Memory, audience: Audience) -> u8 {
    let Memory { scratch, settings, config, candidate, log } = memory;
    let process = Process::prepare(Service::Jobs, settings, config, candidate, audience);
    let mut jobs = Jobs::open(process, scratch, log);
    jobs.announce();
    while !jobs.is_over() {
        jobs.turn();
    }
    jobs.finish()
}

/// The spool's rules in a configuration.
fn rules(config: &Config) -> Rules {
    Rules {
        retries: config.retries,
        retry_delay_ms: u64::from(config.retry_delay),
        queue_max: config.queue_max,
        sync: config.sync_always(),
    }
}

impl Jobs {
    /// Opens everything that the service needs; failures end the process.
    #[inline(never)]
    fn open(
        process: Process,
        scratch: &'static mut [u8],
        log_buffer: &'static mut Vec<u8, LOG_BUFFER_BYTES>,
    ) -> Self {
        let now = clock::now();
        let audience = &process.audience;
        let config = &*process.config;
        let Large { spool, workers } = STATE.take();
        let mut log = Log::new(config, &config.log_file, audience.is_foreground(), log_buffer);
        if let Err(failure) = log.open(process.identity.as_ref()) {
            audience.warn(&|out| {
                out.push_str("the log cannot be written: ");
                describe_at(&config.log_file, failure, out);
            });
        }
        open_folders(&process);
        process.drop_privileges();
        let spool_lock = process.lock_also(&config.spool, b"lock");
        let mut disk = match SpoolDisk::open(&config.spool, &config.queue_file) {
            Ok(disk) => disk,
            Err(failure) => process.fail_at(&config.spool, failure),
        };
        let recovery = match spool.recover(&mut disk, scratch, &rules(config), now) {
            Ok(recovery) => recovery,
            Err(error) => fail_recovery(&process, &disk, error),
        };
        if let Err(error) = spool.adopt_claims(&mut disk, now) {
            log.warn(&|out| {
                out.push_str("a claim of the queue file cannot be read: ");
                describe_disk(&disk, error, out);
            });
        }
        let note = Running::take_over(&config.spool, &mut log);
        let heartbeat = Heartbeat::new(config.health_file.clone());
        let mut jobs = Self {
            process,
            log,
            heartbeat,
            disk,
            spool_lock: Some(spool_lock),
            note,
            spool,
            workers,
            scratch,
            started_at: now,
            counts: Counts::default(),
            stopping: Stopping::No,
            spool_retry_at: None,
            jobs_blocked: false,
            compact_failures: 0,
            compact_after: 0,
            start_after: 0,
            look_at: now,
            log_failing: false,
            heartbeat_failing: false,
        };
        jobs.report_recovery(&recovery);
        jobs.warn_about_handler();
        jobs
    }

    /// Tells what the last crash left.
    #[inline(never)]
    fn report_recovery(&mut self, recovery: &Recovery) {
        let Recovery { torn_bytes, damaged_bytes, groups_voided, interrupted } = *recovery;
        if torn_bytes > 0 {
            self.log.warn(&|out| {
                let _ = uwrite!(out, "spool: cut off {} bytes of a write that was not finished", torn_bytes);
            });
        }
        if damaged_bytes > 0 {
            self.process.audience.warn(&|out| {
                out.push_escaped(self.process.config.spool.as_bytes());
                out.push_str(": damaged records were set aside as journal.bad-N");
            });
            self.log.error(&|out| {
                let _ = uwrite!(
                    out,
                    "spool: {} damaged bytes of the journal were set aside as journal.bad-N; jobs in them are not run",
                    damaged_bytes
                );
            });
        }
        if groups_voided > 0 {
            self.log.warn(&|out| out.push_str("spool: lines whose record was not finished are read again"));
        }
        if interrupted > 0 {
            self.log.warn(&|out| {
                let _ = uwrite!(out, "{} interrupted jobs run again", interrupted);
            });
        }
    }

    /// A handler that is not there fails each job; better said at once.
    #[inline(never)]
    fn warn_about_handler(&mut self) {
        let config = &self.process.config;
        let Handler::Path(path) = config.handler() else { return };
        let problem = match file::meta_at(path.as_c_str(), true) {
            Err(failure) => Some(failure),
            Ok(_) if file::executable(path.as_c_str()) => None,
            Ok(_) => Some(Failure { op: "access", errno: Errno::ACCESS }),
        };
        let Some(failure) = problem else { return };
        self.log.warn(&|out| {
            out.push_str("handler: ");
            describe_at(path, failure, out);
        });
        // In the foreground the log says it on stderr, and never blocks there.
        if !self.process.foreground {
            self.process.audience.warn(&|out| {
                out.push_str("handler: ");
                describe_at(path, failure, out);
            });
        }
    }

    /// The service is ready: first heartbeat, first line, and the starter may
    /// go.
    #[inline(never)]
    fn announce(&mut self) {
        let now = clock::now();
        self.heartbeat.beat(now);
        if let Some(failure) = self.heartbeat.failure() {
            self.process.audience.warn(&|out| {
                out.push_str("the health file cannot be written: ");
                describe_at(&self.process.config.health_file, failure, out);
            });
        }
        self.log.info(&|out| {
            let _ = uwrite!(out, "daemon started, pid={}", process::pid().as_raw_pid());
        });
        self.log.flush();
        self.watch_degraded();
        let audience = core::mem::replace(&mut self.process.audience, Audience::Foreground(None));
        audience.ready();
    }

    fn is_over(&self) -> bool {
        self.stopping != Stopping::No && self.workers.is_empty()
    }

    // ----- one turn -------------------------------------------------------

    fn turn(&mut self) {
        let ready = self.wait();
        let now = clock::now();
        if ready.contains(&Source::Signals) {
            self.on_signals(now);
        }
        self.on_deadlines(now);
        for source in &ready {
            match source {
                Source::Output(index) => {
                    if let Some(worker) = self.workers.get_mut(*index) {
                        worker.read_output(&mut self.log, self.scratch);
                    }
                }
                Source::Inotify => self.on_inotify(),
                Source::Signals => {}
            }
        }
        // After the output: the indexes of the poll set are those before it.
        self.on_ended_handlers(now);
        if self.stopping == Stopping::No {
            self.advance(now);
        } else {
            let _ = self.settle(now);
        }
        self.log.flush();
        self.watch_degraded();
        self.heartbeat.turn_finished(now);
        self.note_long_turn(now);
    }

    /// Polls until something is ready or due.
    #[inline(never)]
    fn wait(&self) -> Vec<Source, { WORKERS_MAX + 2 }> {
        let now = clock::now();
        let mut set = PollSet::new();
        set.read(self.process.signals.fd(), Source::Signals);
        if let Some(inotify) = &self.disk.inotify {
            set.read(inotify.fd(), Source::Inotify);
        }
        for (index, worker) in self.workers.iter().enumerate() {
            if let Some(output) = &worker.output {
                set.read(output, Source::Output(index));
            }
        }
        set.wait(Some(self.next_due(now).saturating_sub(now)));
        set.ready().collect()
    }

    /// The nearest moment at which there is something to do.
    fn next_due(&self, now: u64) -> u64 {
        // Often enough that the longest pause does not look stale.
        let Config { interval, stale_after, .. } = *self.process.config;
        let mut due = self.heartbeat.due(u64::from(interval.min(stale_after / 3)));
        let mut sooner = |at: Option<u64>| due = due.min(at.unwrap_or(u64::MAX));
        sooner(self.workers.iter().filter_map(Worker::due).min());
        if self.stopping != Stopping::No {
            return due;
        }
        let full = self.spool.room(&rules(self.process.config)) == 0;
        if let Some(retry_at) = self.spool_retry_at {
            sooner(Some(retry_at));
            if self.jobs_blocked {
                return due;
            }
        } else {
            sooner(self.spool.commit_due());
            sooner(self.spool.claims.next_due(now, full));
            let reading = self.spool.claims.wants_reading() && !full;
            sooner((self.spool.is_compacting() || reading).then_some(now));
        }
        if self.disk.inotify.is_none() {
            sooner(Some(self.look_at));
        }
        sooner(self.spool.wants_refill().then_some(now));
        if self.workers.len() < self.worker_limit() {
            let start_at = now.max(self.start_after);
            sooner(self.spool.window().startable(now).map(|_| start_at));
            sooner(self.spool.window().next_due().map(|due| due.max(start_at)));
        }
        due
    }

    fn worker_limit(&self) -> usize {
        WORKERS_MAX.min(self.process.config.workers as usize)
    }

    fn on_signals(&mut self, now: u64) {
        let arrived = self.process.signals.take();
        for (signal, name) in [(Signal::TERM, "SIGTERM"), (Signal::INT, "SIGINT"), (Signal::QUIT, "SIGQUIT")]
        {
            if arrived.has(signal) {
                self.stop(name, now);
            }
        }
        if arrived.has(Signal::HUP) {
            self.reload();
        }
        if arrived.has(Signal::USR1) {
            self.log.rotate();
        }
        if arrived.has(Signal::USR2) {
            self.log_status(now);
        }
    }

    /// The first time asks the handlers to end, the second time ends them.
    fn stop(&mut self, signal: &str, now: u64) {
        let running = self.workers.len();
        self.stopping = match self.stopping {
            Stopping::No => {
                self.log.info(&|out| {
                    let _ = uwrite!(out, "{} received, stopping", signal);
                });
                if running > 0 {
                    self.log.info(&|out| {
                        let _ = uwrite!(out, "{} running jobs are stopped and will run again", running);
                    });
                }
                let grace = u64::from(self.process.config.stop_timeout);
                self.workers.iter_mut().for_each(|worker| worker.terminate(now, grace));
                Stopping::Gracefully
            }
            Stopping::Gracefully | Stopping::AtOnce => {
                self.workers.iter_mut().for_each(Worker::kill);
                Stopping::AtOnce
            }
        };
    }

    fn on_deadlines(&mut self, now: u64) {
        let grace = u64::from(self.process.config.stop_timeout);
        for worker in self.workers.iter_mut() {
            if worker.check(now, grace) {
                let id = worker.id;
                self.log.warn(&|out| {
                    let _ = uwrite!(out, "job {}: exceeded job_timeout, stopping it", id);
                });
            }
        }
        if self.disk.inotify.is_none() && now >= self.look_at {
            self.look_at = now.saturating_add(u64::from(self.process.config.interval));
            self.spool.claims.look_at_queue();
            self.spool.claims.look_at_claims();
        }
    }

    fn on_inotify(&mut self) {
        let Some(inotify) = &self.disk.inotify else { return };
        let seen = inotify.take();
        if seen.names || seen.writes {
            self.spool.claims.look_at_queue();
        }
        if seen.writes {
            self.spool.claims.look_at_claims();
        }
    }

    // ----- handlers -------------------------------------------------------

    /// Takes the handlers that have ended: their group is killed before the
    /// leader is reaped, while its number cannot be anybody else's.
    #[inline(never)]
    fn on_ended_handlers(&mut self, now: u64) {
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
            self.note.write(self.workers);
            let outcome = match exit {
                _ if worker.timed_out => Outcome::TimedOut,
                Exit::Code(0) => Outcome::Success,
                Exit::Code(code) => Outcome::Code(code),
                Exit::Signal(signal) => Outcome::Signal(signal),
            };
            if self.stopping != Stopping::No && outcome != Outcome::Success && !worker.timed_out {
                self.spool.returned(worker.id);
            } else {
                self.job_ended(worker.id, outcome, now.saturating_sub(worker.started_at));
            }
        }
    }

    /// An attempt ended: decides what follows and says so.
    fn job_ended(&mut self, id: u64, outcome: Outcome, took_ms: u64) {
        let rules = rules(self.process.config);
        let Some(slot) = self.spool.window().get(id).copied() else { return };
        let Some(end) = self.spool.ended(id, outcome, &rules) else { return };
        let (attempt, attempts) = (slot.attempt, rules.retries.saturating_add(1));
        let level = match end {
            End::Done(_) | End::Back => Level::Debug,
            End::Fail(_) => Level::Warn,
            End::Dead(_) => Level::Error,
        };
        if outcome != Outcome::Success {
            self.counts.failed = self.counts.failed.saturating_add(1);
        }
        if !matches!(end, End::Fail(_)) {
            self.counts.jobs = self.counts.jobs.saturating_add(1);
        }
        self.log.line(level, &|out| {
            let _ = uwrite!(out, "job {}: ", id);
            describe_outcome(outcome, out);
            let _ = uwrite!(out, " after {} ms", took_ms);
            match end {
                End::Fail(delay) => {
                    let _ = uwrite!(out, " (attempt {} of {}), next in {} ms", attempt, attempts, delay);
                }
                End::Dead(_) => {
                    let _ = uwrite!(out, " (attempt {} of {}), kept as dead", attempt, attempts);
                }
                End::Done(_) | End::Back => {}
            }
        });
    }

    // ----- the spool ------------------------------------------------------

    /// Intake, commit, starts: everything that needs the spool's disk.
    fn advance(&mut self, now: u64) {
        if self.spool_retry_at.is_some_and(|at| now < at) {
            // Its disk has a rest, but jobs that are known go on if they can.
            self.jobs_blocked = self.settle(now).and_then(|()| self.run_jobs(now)).is_err();
            return;
        }
        let was_failing = self.spool_retry_at.is_some();
        match self.use_spool(now, was_failing) {
            Ok(()) => {
                self.spool_retry_at = None;
                if was_failing {
                    self.log.info(&|out| out.push_str("spool: works again"));
                }
            }
            Err(error) => {
                self.spool_retry_at = Some(now.saturating_add(SPOOL_RETRY_MS));
                if !was_failing {
                    let disk = &self.disk;
                    self.log.error(&|out| {
                        out.push_str("spool: ");
                        describe_disk(disk, error, out);
                        out.push_str("; jobs wait, none is lost");
                    });
                }
            }
        }
    }

    #[inline(never)]
    fn use_spool(&mut self, now: u64, was_failing: bool) -> Result<(), DiskError> {
        self.jobs_blocked = true;
        self.settle(now)?;
        // No room for new jobs or for a compaction must not keep the old jobs
        // from running: only their ends make room.
        let taken = self.take_in(now, was_failing);
        if self.spool.is_compacting() || (self.spool.wants_compaction() && now >= self.compact_after) {
            self.compact(now);
        }
        self.switch_queue_file();
        let run = self.run_jobs(now);
        self.jobs_blocked = run.is_err();
        taken.and(run)
    }

    /// A step of a compaction. One that fails costs a write of everything that
    /// is live, so the next attempt waits longer each time.
    fn compact(&mut self, now: u64) {
        match self.spool.compact_step(&mut self.disk, now) {
            Ok(()) => self.compact_failures = 0,
            Err(error) => {
                self.compact_failures = self.compact_failures.saturating_add(1);
                let wait = delay_ms(COMPACT_RETRY_MS, self.compact_failures, COMPACT_RETRY_MAX_MS);
                self.compact_after = now.saturating_add(wait);
                let disk = &self.disk;
                self.log.warn(&|out| {
                    out.push_str("spool: the journal cannot be written anew, the old one goes on: ");
                    describe_disk(disk, error, out);
                });
            }
        }
    }

    /// New jobs into the journal, and a commit if one is due.
    fn take_in(&mut self, now: u64, was_failing: bool) -> Result<(), DiskError> {
        let rules = rules(self.process.config);
        if was_failing {
            // (one that still cannot be opened was told at start)
            let _ = self.spool.adopt_claims(&mut self.disk, now);
        }
        let log = &mut self.log;
        let mut tell = |notice: Notice<'_>| tell_notice(log, &notice);
        let taken = self.spool.intake(&mut self.disk, self.scratch, &rules, now, &mut tell);
        // What went into the journal is made durable also where something
        // else failed.
        let due = self.spool.commit_due().is_some_and(|due| now >= due);
        let wanted = taken != Ok(0) || self.spool.claims.wants_commit() || due;
        let committed = if wanted { self.commit(now) } else { Ok(()) };
        taken.and(committed)
    }

    /// From the journal into the window, and from there to handlers.
    fn run_jobs(&mut self, now: u64) -> Result<(), DiskError> {
        let rules = rules(self.process.config);
        self.spool.make_way(&mut self.disk, now)?;
        self.spool.refill(&mut self.disk, self.scratch, &rules, now)?;
        match self.process.config.handler() {
            Handler::Log => self.log_jobs(now),
            Handler::Shell | Handler::Path(_) => self.start_jobs(now),
        }
    }

    fn commit(&mut self, now: u64) -> Result<(), DiskError> {
        let rules = rules(self.process.config);
        self.spool.commit(&mut self.disk, &rules, now)?;
        self.spool.remove_closed(&mut self.disk)
    }

    /// Puts starts and ends into the journal; the log comes first.
    fn settle(&mut self, now: u64) -> Result<(), DiskError> {
        if !self.spool.window().owes() {
            return Ok(());
        }
        self.log.flush();
        self.spool.settle(&mut self.disk, now)
    }

    /// The text of a job, for its handler. If it cannot be read, says so and
    /// ends this attempt.
    fn text<'b>(&mut self, slot: &Slot, buffer: &'b mut [u8; RECORD_MAX_BYTES]) -> Option<&'b [u8]> {
        let result = self.spool.text(&mut self.disk, slot, buffer);
        if let Err(error) = result {
            let disk = &self.disk;
            self.log.error(&|out| {
                let _ = uwrite!(out, "job {}: its text cannot be read: ", slot.id);
                describe_disk(disk, error, out);
            });
            self.job_ended(slot.id, Outcome::NotStarted, 0);
        }
        result.ok()
    }

    /// The handler `log`: all jobs of the window at once. A job is done when
    /// its line was written.
    #[inline(never)]
    fn log_jobs(&mut self, now: u64) -> Result<(), DiskError> {
        let rules = rules(self.process.config);
        let mut logged: Vec<u64, WINDOW_JOBS> = Vec::new();
        if now < self.start_after {
            return Ok(());
        }
        while self.spool.choose(now).is_some() {}
        for slot in self.chosen() {
            let mut buffer = [0; RECORD_MAX_BYTES];
            if let Some(text) = self.text(&slot, &mut buffer) {
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
            } else {
                // Not the job's fault: it waits until the log takes lines.
                self.spool.returned(id);
                self.start_after = now.saturating_add(START_RETRY_MS);
            }
        }
        self.spool.settle(&mut self.disk, now)
    }

    /// Starts handlers while there are free workers.
    #[inline(never)]
    fn start_jobs(&mut self, now: u64) -> Result<(), DiskError> {
        if now < self.start_after {
            return Ok(());
        }
        let chosen = self.chosen().len();
        let mut free = self.worker_limit().saturating_sub(self.workers.len().saturating_add(chosen));
        while free > 0 && self.spool.choose(now).is_some() {
            free = free.saturating_sub(1);
        }
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
    fn chosen(&self) -> Vec<Slot, WINDOW_JOBS> {
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
    fn start_handler(&mut self, slot: &Slot, now: u64) {
        let mut buffer = [0; RECORD_MAX_BYTES];
        let Some(text) = self.text(slot, &mut buffer) else { return };
        self.log.info(&|out| push_processing(text, out));
        let config = &self.process.config;
        let timeout = u64::from(config.job_timeout);
        match Worker::start(config.handler(), slot.id, slot.attempt, text, now, timeout) {
            Ok(worker) => {
                let _ = self.workers.push(worker);
                self.note.write(self.workers);
            }
            Err(NotStarted::Refused(why)) => {
                self.log.error(&|out| {
                    let _ = uwrite!(out, "job {}: ", slot.id);
                    out.push_str(why);
                });
                self.job_ended(slot.id, Outcome::NotStarted, 0);
            }
            // Not the job's fault: it waits, and loses no attempt.
            Err(NotStarted::Failed(failure)) => {
                self.log.error(&|out| {
                    let _ = uwrite!(out, "job {}: not started, tried again in a second: ", slot.id);
                    failure.describe(out);
                });
                self.spool.returned(slot.id);
                self.start_after = now.saturating_add(START_RETRY_MS);
            }
        }
    }

    // ----- telling --------------------------------------------------------

    /// Says once that the log or the health file fails, and once that it
    /// works again.
    #[inline(never)]
    fn watch_degraded(&mut self) {
        let config = &self.process.config;
        let failure = self.heartbeat.failure();
        if failure.is_some() != self.heartbeat_failing {
            self.heartbeat_failing = failure.is_some();
            match failure {
                Some(failure) => self.log.error(&|out| {
                    out.push_str("the health file cannot be written: ");
                    describe_at(&config.health_file, failure, out);
                }),
                None => self.log.info(&|out| out.push_str("the health file is written again")),
            }
        }
        let failing = self.log.failure().is_some();
        if failing != self.log_failing {
            self.log_failing = failing;
            if !failing {
                self.log.info(&|out| out.push_str("the log is written again"));
            }
        }
    }

    fn note_long_turn(&mut self, began: u64) {
        let took = clock::now().saturating_sub(began);
        if took > u64::from(self.process.config.stale_after) {
            self.log.warn(&|out| {
                let _ = uwrite!(out, "a turn of the loop took {} ms", took);
            });
        }
    }

    /// SIGUSR2: what `status` would say.
    #[inline(never)]
    fn log_status(&mut self, now: u64) {
        let Counts { jobs, failed, reloads, reload_errors } = self.counts;
        let (running, delayed) =
            (self.running(), self.spool.window().count(|state| matches!(state, State::Delayed(_))));
        let waiting = self.spool.waiting().saturating_sub(running);
        let dead = self.spool.dead();
        let wear = self.spool.wear();
        let log = self.log.counts();
        let uptime = now.saturating_sub(self.started_at) / 1000;
        let (log_failing, heartbeat_failing) = (self.log_failing, self.heartbeat_failing);
        let spool_failing = self.spool_retry_at.is_some();
        let blind = self.disk.inotify.is_none();
        let never = !self.process.config.sync_always();
        self.log.info(&|out| {
            let _ = uwrite!(
                out,
                "status: uptime={} jobs={} failed={} dead={} waiting={} running={} delayed={}",
                uptime,
                jobs,
                failed,
                dead,
                waiting,
                running,
                delayed
            );
            let _ = uwrite!(out, " reloads={} reload_errors={}", reloads, reload_errors);
            let _ = uwrite!(out, " rotations={} log_lost={}", log.rotations, log.lost);
            let _ = uwrite!(out, " syncs={} spool_bytes={} degraded=", wear.syncs, wear.bytes);
            let states = [
                (spool_failing, "spool"),
                (log_failing, "log"),
                (heartbeat_failing, "health"),
                (blind, "inotify"),
                (never, "sync-never"),
            ];
            let mut first = true;
            for (_, name) in states.iter().filter(|(failing, _)| *failing) {
                out.push_str(if first { "" } else { "," });
                out.push_str(name);
                first = false;
            }
            out.push_str(if first { "none" } else { "" });
        });
    }

    // ----- the end --------------------------------------------------------

    /// The orderly end: everything recorded, nothing left behind.
    #[inline(never)]
    fn finish(&mut self) -> u8 {
        let now = clock::now();
        let recorded = self.settle(now).and_then(|()| self.commit(now));
        if let Err(error) = recorded {
            let disk = &self.disk;
            self.log.error(&|out| {
                out.push_str("spool: ");
                describe_disk(disk, error, out);
                out.push_str("; the last ends are not recorded, those jobs run again");
            });
        }
        self.heartbeat.remove();
        let jobs = self.counts.jobs;
        self.log.info(&|out| {
            let _ = uwrite!(out, "daemon stopped, processed {} total jobs", jobs);
        });
        self.log.flush();
        // The PID file is what others wait for: it goes last.
        self.spool_lock = None;
        self.process.pid_file.release(self.process.pid_path.as_c_str());
        exit::OK
    }
}

/// `processing job: TEXT`.
fn push_processing(text: &[u8], out: &mut Writer<'_>) {
    out.push_str("processing job: ");
    out.push_escaped(text);
}

fn describe_outcome(outcome: Outcome, out: &mut Writer<'_>) {
    let _ = match outcome {
        Outcome::Success => uwrite!(out, "done"),
        Outcome::Code(code) => uwrite!(out, "failed with exit status {}", code),
        Outcome::Signal(signal) => uwrite!(out, "killed by signal {}", signal),
        Outcome::NotStarted => uwrite!(out, "not started"),
        Outcome::TimedOut => uwrite!(out, "timed out"),
    };
}

fn describe_disk(disk: &SpoolDisk, error: DiskError, out: &mut Writer<'_>) {
    out.push_str(disk.failed_op);
    out.push_str(": ");
    describe_errno(Errno::from_raw_os_error(error.0), out);
}

/// What the intake wants to be told.
fn tell_notice(log: &mut Log, notice: &Notice<'_>) {
    log.warn(&|out| match *notice {
        Notice::Rejected(line, why) => {
            let _ = uwrite!(out, "queue file: a line was put into spool/rejected, because {}: ", why);
            out.push_escaped(line.get(..60).unwrap_or(line));
        }
        Notice::RejectedLost(error) => {
            out.push_str("queue file: a rejected line could not be kept: ");
            describe_errno(Errno::from_raw_os_error(error.0), out);
        }
        Notice::Unusable(error) => {
            out.push_str("queue file: it must be a regular file that can be read, not a link or a folder: ");
            describe_errno(Errno::from_raw_os_error(error.0), out);
        }
    });
}

/// The spool's folder and the queue's, which belong to the service.
fn open_folders(process: &Process) {
    let config = &process.config;
    let queue_folder: Path = config.queue_file.parent();
    for (folder, mode) in [(&config.spool, 0o700), (&queue_folder, 0o755)] {
        let created = match ensure_folder(folder, mode) {
            Ok(created) => created,
            Err(failure) => process.fail_at(folder, failure),
        };
        if let (true, Some(owner)) = (created, &process.identity) {
            let given = file::open_dir(folder.as_c_str()).and_then(|fd| identity::give(&fd, owner));
            if let Err(failure) = given {
                process.fail_at(folder, failure);
            }
        }
    }
}

/// The spool cannot be used: the process ends.
fn fail_recovery(process: &Process, disk: &SpoolDisk, error: RecoverError) -> ! {
    process.fail(exit::FAILED, &|out| {
        out.push_escaped(process.config.spool.as_bytes());
        out.push_str("/journal: ");
        match error {
            RecoverError::OtherVersion => out.push_str(
                "it was written by another version of zigsvc, and is left alone; use that version, or move the spool away",
            ),
            RecoverError::Disk(error) => describe_disk(disk, error, out),
        }
    })
}
