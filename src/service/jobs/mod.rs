//! The service `jobs`: from the queue file to handlers and their ends.
//!
//! One turn of the loop, always in this order:
//!
//! 1. poll the signal pipe, inotify, the handlers' output and the control
//!    socket, until the nearest deadline
//! 2. signals, 3. deadlines of handlers, 4. output, 5. ended handlers
//! 6. ingest: the queue file and its claims into the journal
//! 7. requests of clients; their new jobs follow those of the ingest
//! 8. commit, if records have to be made durable, and the replies that waited
//!    for it
//! 9. start handlers; a second attempt starts only after a commit
//! 10. write the log, then the events for clients that watch
//! 11. accept new clients
//! 12. the end of every service's turn: the heartbeat, the service manager
//!
//! The log is written before the end of a job is, so that a job whose handler
//! is the log is never recorded as done without its line.
//!
//! - `turn.rs`: stages 6 to 9, and the rest that a failing disk gets
//! - `moved.rs`: what is logged and answered if the path of the spool leads elsewhere
//! - `control.rs`, `serving.rs`, `requests.rs`, `scan.rs`: stages 7, 10 and 11, and the
//!   answers of stage 8
//! - `followers.rs`: the clients that read the output of a job
//! - `handlers.rs`, `job_worker.rs`, `orphans.rs`, `group_signals.rs`: stages 3 to 5 and 9
//! - `startup.rs`: before the first turn
//! - `config_reload.rs`, `status.rs`: a new configuration; the status and the log lines
//!
//! After the start no failure here ends the service: it is logged once, leaves a named
//! degraded state, and is tried again.

mod config_reload;
mod control;
mod followers;
mod group_signals;
mod handlers;
mod job_worker;
mod moved;
mod orphans;
mod requests;
mod scan;
mod serving;
mod startup;
mod status;
mod turn;

use crate::limits::{POLL_MAX, WORKERS_MAX};
use crate::proto::attributes::HandlerKind;
use crate::proto::config::{Config, Handler};
use crate::service::base::{self, PollSource, Pulse, ServiceBase};
use crate::service::config_source::ConfigSource;
use crate::service::connections::{self, Connections};
use crate::service::disk::{SpoolDisk, describe_disk};
use crate::service::lifecycle::StartReporter;
use crate::service::memory::Memory;
use crate::state::disk::MOVED;
use crate::state::jobs::scan_task::ListMemory;
use crate::state::jobs::{JobRules, JobsCore};
use crate::state::spool::SpoolRules;
use crate::sys::once::once;
use crate::sys::oom::OomScore;
use crate::sys::process::Signal;
use crate::sys::signal::Arrived;
use crate::sys::{clock, file};
use crate::util::time::{Instant, earliest};
use control::ControlServer;
use heapless::Vec;
use job_worker::JobWorker;
use orphans::Orphans;
pub use status::{describe_others, push_handler};
use ufmt::uwrite;

/// See the module's documentation.
struct Jobs {
    base: &'static mut ServiceBase,
    disk: SpoolDisk,
    /// Makes handlers the OOM killer's first choice.
    oom_score: OomScore,
    /// The handlers that run, for the daemon after this one.
    orphans: Orphans,
    /// Everything that is decided.
    core: &'static mut JobsCore,
    workers: &'static mut Vec<JobWorker, WORKERS_MAX>,
    control: ControlServer,
}

/// The service and its large parts, in .bss. The parts that a quiet service touches are
/// first, at the start of a page.
#[repr(C, align(4096))]
struct JobsStorage {
    /// The service. On the stack it would keep more pages in use.
    service: Vec<Jobs, 1>,
    core: JobsCore,
    workers: Vec<JobWorker, WORKERS_MAX>,
    list: ListMemory,
}

once! {
    static STORAGE: JobsStorage = JobsStorage {
        service: Vec::new(),
        core: JobsCore::EMPTY,
        workers: Vec::new(),
        list: ListMemory::EMPTY,
    };
}

/// Runs the service until it is stopped, and returns the exit code. If the service is to be
/// started again in this process, returns the source of its configuration too. Not inlined,
/// because the frame of its caller would hold the stack of every service.
#[inline(never)]
pub fn serve(parts: &'static mut Memory, reporter: StartReporter) -> (u8, Option<&'static ConfigSource>) {
    let jobs = Jobs::open(parts, reporter);
    base::announce(jobs);
    // The new health file is seen by inotify, and is no reason to wake.
    jobs.on_inotify();
    jobs.run();
    let code = jobs.finish();
    // Of a service that a supervisor started, the supervisor starts another process.
    let source = jobs.base.process.config_source;
    (code, Some(source).filter(|source| jobs.control.restarts && !source.supervised))
}

/// Returns the rules that a configuration sets.
fn rules(config: &Config) -> JobRules {
    JobRules {
        spool: SpoolRules {
            retries: config.retries,
            retry_delay: config.retry_delay,
            queue_max: config.queue_max,
            dead_max: config.dead_max,
            handler: handler_kind(config),
            sync: config.sync_always(),
        },
        workers: WORKERS_MAX.min(config.workers as usize),
        job_timeout: config.job_timeout,
        stop_timeout: config.stop_timeout,
        queue_interval: config.interval,
        logs_jobs: config.handler() == Handler::Log,
        takes_all: config.takes_all(),
        stale_after: config.stale_after,
    }
}

/// Returns the kind of the handler that is configured. One that is not there is a program.
fn handler_kind(config: &Config) -> HandlerKind {
    match config.handler() {
        Handler::Log => HandlerKind::Log,
        Handler::Shell => HandlerKind::Shell,
        Handler::Path(path) if file::meta_at(path.as_c_str(), true).is_ok_and(|meta| meta.directory) => {
            HandlerKind::Directory
        }
        Handler::Path(_) => HandlerKind::Program,
    }
}

impl Jobs {
    /// Runs turns until the service stops.
    #[inline(never)]
    #[unsafe(link_section = ".text.idle")]
    fn run(&mut self) {
        self.base.release_startup();
        while !self.core.is_stopped() {
            self.turn();
        }
    }

    // ----- one turn -------------------------------------------------------

    fn turn(&mut self) {
        let ready = self.wait();
        let now = clock::now();
        let arrived = self.base.take_signals(&ready);
        if let Some(arrived) = arrived {
            self.on_signals(arrived, now);
        }
        let reaps = arrived.is_some_and(|arrived| arrived.has(Signal::CHILD));
        self.signal_handlers(now);
        self.core.check_queue(self.disk.queue.inotify.is_some(), now);
        for source in &ready {
            match source {
                PollSource::Output(index) => {
                    self.read_output(usize::from(*index), false, now);
                }
                PollSource::Other => self.on_inotify(),
                _ => {}
            }
        }
        // After the output, because this changes the indexes that the poll set holds.
        if reaps || !self.workers.is_empty() || !self.core.leftovers.is_empty() {
            self.reap(now);
        }
        self.advance(&ready, now);
        if self.orphans.is_outdated() {
            self.note_groups();
        }
        if self.workers.is_empty() {
            self.oom_score.rest();
        }
        if self.control.draining && self.core.is_drained() {
            self.control.drained = true;
            self.stop("drained", now);
        }
        if self.core.is_stop_due(now) {
            self.stop("stop request of a job", now);
        }
        self.base.log.flush();
        self.send_events(now);
        if ready.contains(&PollSource::Listener) {
            connections::accept(self, now);
        }
        base::end_turn(self, now, !ready.is_empty(), Pulse::Own);
    }

    /// Polls until something is ready or due.
    #[inline(never)]
    fn wait(&self) -> Vec<PollSource, POLL_MAX> {
        let now = clock::now();
        let reads = |client_slot| self.control.reading(client_slot);
        let clients: &Connections = self.control.connections;
        let inotify = self.disk.queue.inotify.iter().map(|inotify| (inotify.fd(), PollSource::Other));
        let outputs = (0..).zip(self.workers.iter()).filter_map(|(index, worker)| {
            worker.output.pipe.as_ref().map(|output| (output, PollSource::Output(index)))
        });
        let due = self.next_deadline(now);
        self.base.wait(now, Some((clients, &reads)), due, &mut inotify.chain(outputs))
    }

    /// Returns the next time at which there is work.
    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let ControlServer { replies, scans, .. } = &self.control;
        let due = earliest(scans.next_deadline(replies, self.core, now), self.control.next_deadline(now));
        earliest(due, self.core.next_deadline(now, scans.is_paging()))
    }

    #[inline(never)]
    fn on_signals(&mut self, arrived: Arrived, now: Instant) {
        if let Some((_, why)) = arrived.stop() {
            self.control.restarts = false;
            self.stop(why, now);
        }
        if arrived.has(Signal::HUP) {
            self.reload(now);
        }
        base::on_user_signals(self, arrived, now);
    }

    /// Stops the service: the first call asks the handlers to end, the second ends them.
    fn stop(&mut self, why: &str, now: Instant) {
        let running = self.workers.len();
        if !self.core.stop(now) {
            return;
        }
        self.base.begin_stop(why, "");
        if running > 0 {
            self.base.log.info(&|out| {
                let _ = uwrite!(out, "{} running jobs are stopped and will run again", running);
            });
        }
    }

    #[inline(never)]
    fn on_inotify(&mut self) {
        let Some(inotify) = &self.disk.queue.inotify else { return };
        let seen = inotify.take();
        if seen.names || seen.writes {
            self.core.spool.claims.look_at_queue();
        }
        if seen.writes {
            self.core.spool.claims.look_at_claims();
        }
    }

    // ----- the end --------------------------------------------------------

    /// Ends the service in order: records every end, and removes its files.
    #[inline(never)]
    fn finish(&mut self) -> u8 {
        let now = clock::now();
        self.base.log.flush();
        let finished = self.core.finish(&mut self.disk, now);
        if finished == Err(MOVED) {
            self.log_left_behind();
        } else if let Err(error) = finished {
            let disk = &self.disk;
            self.base.log.error(&|out| {
                out.push_str("spool: ");
                describe_disk(disk, error, out);
                out.push_str("; the last ends are not recorded, those jobs run again");
            });
        }
        self.dismiss_clients(now);
        self.disk.folder.release_lock();
        let jobs = self.core.counts().jobs;
        self.base.finish(&|out| {
            let _ = uwrite!(out, "processed {} total jobs", jobs);
        })
    }
}
