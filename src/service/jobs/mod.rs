//! The service `jobs`: from the queue file to handlers and their ends.
//!
//! One turn of the loop, always in this order:
//!
//! 1. poll the signal pipe, inotify, the handlers' output and the control
//!    socket, until the nearest deadline
//! 2. signals, 3. deadlines of handlers, 4. output, 5. ended handlers
//! 6. ingest: the queue file and its claims into the journal
//! 7. requests of clients; their new jobs go behind those of the ingest
//! 8. commit, if something is to be made durable, and the answers that waited
//!    for it
//! 9. start handlers (a second attempt only after a commit)
//! 10. write the log, events to those who watch, the heartbeat
//! 11. accept new clients; the service manager, if there is one, is told that the
//!     turn was finished
//!
//! The log is written before the end of a job is, so that a job whose handler
//! is the log is never recorded as done without its line.
//!
//! - `turn.rs`: stages 6 to 9, and the rest that a failing disk gets
//! - `control.rs`, `requests.rs`, `scan.rs`, `history.rs`: stages 7 and 10
//! - `batch.rs`, `admission.rs`: the answers of stage 8, and stage 11
//! - `handlers.rs`, `job_worker.rs`, `orphans.rs`: stages 3 to 5 and 9
//! - `startup.rs`: before the first turn
//! - `config_reload.rs`, `status.rs`: a new configuration; the status and the log lines
//!
//! After start-up nothing here ends the service: what fails is logged once,
//! leaves a named degraded state, and is tried again.

mod admission;
mod batch;
mod config_reload;
mod control;
mod handlers;
mod history;
mod job_worker;
mod orphans;
mod requests;
mod scan;
mod startup;
mod status;
mod turn;

use crate::limits::{POLL_MAX, WORKERS_MAX};
use crate::proto::config::Config;
use crate::service::base::{self, PollSource, Pulse, ServiceBase};
use crate::service::connections::Connections;
use crate::service::disk::SpoolDisk;
use crate::service::lifecycle::StartReporter;
use crate::service::memory::Memory;
use crate::state::disk::DiskError;
use crate::state::spool::{Spool, SpoolRules};
use crate::sys::clock;
use crate::sys::lock::PidFile;
use crate::sys::once::once;
use crate::sys::oom::OomScore;
use crate::sys::process::Signal;
use crate::sys::signal::Arrived;
use crate::util::time::{Instant, earliest};
use control::ControlServer;
use heapless::Vec;
use history::History;
use job_worker::JobWorker;
use orphans::Orphans;
use scan::ListPage;
use status::describe_disk;
use ufmt::uwrite;

/// Counts since start.
#[derive(Clone, Copy, Default)]
struct JobCounts {
    /// Jobs that ended, well or dead.
    jobs: u64,
    /// Attempts that failed.
    failed: u64,
}

/// Whether the service is on its way out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shutdown {
    None,
    /// TERM was sent to the handlers.
    Graceful,
    /// KILL was sent to the handlers.
    Immediate,
}

/// See the module's documentation.
struct Jobs {
    base: &'static mut ServiceBase,
    disk: SpoolDisk,
    /// Held until the end: two instances would ruin the journal.
    spool_lock: Option<PidFile>,
    /// Makes handlers the OOM killer's first choice.
    oom_score: OomScore,
    /// The handlers that run, for the daemon after this one.
    orphans: Orphans,
    spool: &'static mut Spool,
    workers: &'static mut Vec<JobWorker, WORKERS_MAX>,
    counts: JobCounts,
    shutdown: Shutdown,
    /// The spool's disk failed, so: nothing is taken before this.
    spool_failure: Option<(Instant, DiskError)>,
    /// While the spool fails: whether jobs that are known cannot go on either.
    jobs_blocked: bool,
    /// There is no room for new jobs; it is asked again at this time.
    space_retry_at: Option<Instant>,
    /// A compaction failed so often; the next one not before this.
    compact_failures: u32,
    compact_after: Instant,
    compact_error: DiskError,
    /// The kernel refused to start a handler: none is started before this.
    start_retry_at: Instant,
    /// Without inotify: when to look at the queue file.
    next_queue_check: Instant,
    control: ControlServer,
}

/// The service and its large parts, in .bss. What a quiet service touches comes
/// first, at the start of a page.
#[repr(C, align(4096))]
struct JobsStorage {
    /// The service itself: on the stack it would keep more pages in use.
    service: Vec<Jobs, 1>,
    spool: Spool,
    workers: Vec<JobWorker, WORKERS_MAX>,
    history: History,
    page: ListPage,
}

once! {
    static STORAGE: JobsStorage = JobsStorage {
        service: Vec::new(),
        spool: Spool::EMPTY,
        workers: Vec::new(),
        history: History::EMPTY,
        page: Vec::new(),
    };
}

/// Runs the service until it is stopped; returns the exit code. (Not inlined: its
/// caller's frame would hold what every service needs.)
#[inline(never)]
pub fn serve(parts: &'static mut Memory, reporter: StartReporter) -> u8 {
    let jobs = Jobs::open(parts, reporter);
    base::announce(jobs);
    // (the health file made a name, which is no reason to wake)
    jobs.on_inotify();
    while !jobs.is_over() {
        jobs.turn();
    }
    jobs.finish()
}

/// The spool's rules in a configuration.
fn rules(config: &Config) -> SpoolRules {
    SpoolRules {
        retries: config.retries,
        retry_delay: config.retry_delay,
        queue_max: config.queue_max,
        sync: config.sync_always(),
    }
}

impl Jobs {
    fn is_over(&self) -> bool {
        self.shutdown != Shutdown::None && self.workers.is_empty()
    }

    // ----- one turn -------------------------------------------------------

    fn turn(&mut self) {
        let ready = self.wait();
        let now = clock::now();
        if let Some(arrived) = self.base.take_signals(&ready) {
            self.on_signals(arrived, now);
        }
        self.on_deadlines(now);
        for source in &ready {
            match source {
                PollSource::Output(index) => {
                    if let Some(worker) = self.workers.get_mut(usize::from(*index)) {
                        worker.read_output(&mut self.base.log, self.base.scratch);
                    }
                }
                PollSource::Other => self.on_inotify(),
                _ => {}
            }
        }
        // After the output: the indexes of the poll set are those before it.
        self.on_ended_handlers(now);
        self.advance(&ready, now);
        self.orphans.turn_finished(self.workers);
        if self.workers.is_empty() {
            self.oom_score.rest();
        }
        if self.is_drained() {
            self.control.drained = true;
            self.stop("drained", now);
        }
        self.base.log.flush();
        self.send_events(now);
        if ready.contains(&PollSource::Listener) {
            self.accept_clients(now);
        }
        base::end_turn(self, now, !ready.is_empty(), Pulse::Own);
    }

    /// Polls until something is ready or due.
    #[inline(never)]
    fn wait(&self) -> Vec<PollSource, POLL_MAX> {
        let now = clock::now();
        let reads = |client_slot| self.control.can_ask(client_slot);
        let clients: &Connections = self.control.clients;
        self.base.wait(now, Some((clients, &reads)), self.next_deadline(now), &mut |set| {
            if let Some(inotify) = &self.disk.inotify {
                set.read(inotify.fd(), PollSource::Other);
            }
            for (index, worker) in (0..).zip(self.workers.iter()) {
                if let Some(output) = &worker.output.pipe {
                    set.read(output, PollSource::Output(index));
                }
            }
        })
    }

    /// The nearest moment at which there is something to do.
    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let mut due = None;
        let mut sooner = |at: Option<Instant>| due = earliest(due, at);
        sooner(self.workers.iter().map(JobWorker::next_deadline).fold(None, earliest));
        sooner(self.control.next_deadline(now));
        sooner(self.errand_deadline(now));
        if self.shutdown != Shutdown::None {
            return due;
        }
        let full = self.spool.room(&rules(self.base.process.config)) == 0;
        if let Some((retry_at, _)) = self.spool_failure {
            sooner(Some(retry_at));
            if self.jobs_blocked {
                return due;
            }
        } else {
            sooner(self.spool.next_deadline());
            let reading = self.spool.claims.wants_reading() && !full && self.space_retry_at.is_none();
            sooner(self.space_retry_at.or_else(|| self.spool.claims.next_deadline(now, full)));
            let compacting = self.spool.is_compacting() && !self.is_paging();
            sooner((compacting || reading).then_some(now));
            let shrinks = self.spool.wants_compaction() && !self.is_paging();
            sooner(shrinks.then_some(self.compact_after.or_later(now)));
        }
        if self.disk.inotify.is_none() {
            sooner(Some(self.next_queue_check));
        }
        sooner(self.spool.wants_refill().then_some(now));
        if self.workers.len() < self.worker_limit() {
            let start_at = now.or_later(self.start_retry_at);
            sooner(self.spool.window().startable(now).map(|_| start_at));
            sooner(self.spool.window().next_deadline().map(|due| due.or_later(start_at)));
        }
        due
    }

    fn worker_limit(&self) -> usize {
        WORKERS_MAX.min(self.base.process.config.workers as usize)
    }

    #[inline(never)]
    fn on_signals(&mut self, arrived: Arrived, now: Instant) {
        if let Some((_, why)) = arrived.stop() {
            self.stop(why, now);
        }
        if arrived.has(Signal::HUP) {
            self.reload(now);
        }
        base::on_user_signals(self, arrived, now);
    }

    /// The first time asks the handlers to end, the second time ends them.
    fn stop(&mut self, why: &str, now: Instant) {
        let running = self.workers.len();
        self.shutdown = match self.shutdown {
            Shutdown::None => {
                self.base.begin_stop(why, "");
                if running > 0 {
                    self.base.log.info(&|out| {
                        let _ = uwrite!(out, "{} running jobs are stopped and will run again", running);
                    });
                }
                let grace = self.base.process.config.stop_timeout;
                self.workers.iter_mut().for_each(|worker| worker.terminate(now, grace));
                Shutdown::Graceful
            }
            Shutdown::Graceful | Shutdown::Immediate => {
                self.workers.iter_mut().for_each(JobWorker::kill);
                Shutdown::Immediate
            }
        };
    }

    #[inline(never)]
    fn on_deadlines(&mut self, now: Instant) {
        let grace = self.base.process.config.stop_timeout;
        for worker in self.workers.iter_mut() {
            if worker.check(now, grace) {
                let id = worker.id;
                self.base.log.warn(&|out| {
                    let _ = uwrite!(out, "job {}: exceeded job_timeout, stopping it", id);
                });
            }
        }
        if self.disk.inotify.is_none() && self.next_queue_check.is_due(now) {
            self.next_queue_check = now + self.base.process.config.interval;
            self.spool.claims.look_at_queue();
            self.spool.claims.look_at_claims();
        }
    }

    #[inline(never)]
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

    // ----- the end --------------------------------------------------------

    /// The orderly end: everything recorded, nothing left behind.
    #[inline(never)]
    fn finish(&mut self) -> u8 {
        let now = clock::now();
        let recorded = self.write_transitions(now).and_then(|()| self.commit(now));
        if let Err(error) = recorded {
            let disk = &self.disk;
            self.base.log.error(&|out| {
                out.push_str("spool: ");
                describe_disk(disk, error, out);
                out.push_str("; the last ends are not recorded, those jobs run again");
            });
        }
        self.dismiss_clients(now);
        self.spool_lock = None;
        let jobs = self.counts.jobs;
        self.base.finish(&|out| {
            let _ = uwrite!(out, "processed {} total jobs", jobs);
        })
    }
}
