//! The base of all five services: lifecycle, log, heartbeat, socket, status, reload.
//!
//! One turn of each service, always in this order:
//!
//! 1. poll ([`ServiceBase::wait`]) until something is ready or due
//! 2. signals ([`ServiceBase::take_signals`]); SIGUSR1 and SIGUSR2 are the same for all
//!    ([`on_user_signals`])
//! 3. the work of the service
//! 4. accept new clients
//! 5. the log, the paths whose turn it is, the heartbeat, the service manager, memory
//!    ([`end_turn`])
//!
//! After the start no failure here ends the service: it is logged once, leaves a named degraded
//! state, and is tried again.

use super::config_source::{InvalidConfig, ServiceFile, path_or_empty};
use super::connections::Connections;
use super::heartbeat::Heartbeat;
use super::identity::look;
use super::lifecycle::{PID_LINE_BYTES, Process, StartReporter, describe_at, exit, pid_line};
use super::listener::{Listener, describe_unknown, find_policy, open_and_drop, open_socket};
use super::log::Log;
use super::memory::Memory;
use super::own_paths::judge_paths;
use super::reload::log_changes;
use super::second_lock;
use crate::limits::{NOTIFY_STATUS_BYTES, POLL_MAX};
use crate::proto::config::{Config, Program};
use crate::proto::service::Service;
use crate::proto::status::{StatusField, push_field};
use crate::state::access::AccessPolicy;
use crate::state::clients::Reading;
use crate::state::degraded::{DegradedSet, DegradedState};
use crate::state::identity::{PathRotation, PathState, WatchedPath, checks_per_beat};
use crate::sys::once::once;
use crate::sys::poll::PollSet;
use crate::sys::process::{self, Signal};
use crate::sys::signal::Arrived;
use crate::sys::{AsFd, Failure, OwnedFd, clock, file, identity, memory};
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant, earliest};
use core::cell::Cell;
use heapless::Vec;
use ufmt::uwrite;

/// Bytes of the reason why a configuration is refused.
const REASON_BYTES: usize = 400;
/// Bytes of the answer to `status`, and of the line of SIGUSR2.
const STATUS_BYTES: usize = 980;

/// The subject of a poll result. An index is one byte, because a set of them lies on the stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PollSource {
    /// A signal arrived.
    Signals,
    /// A client wants to connect.
    Listener,
    /// The client at this slot.
    Client(u8),
    /// The output of the child at this index.
    Output(u8),
    /// The end of the process at this index.
    End(u8),
    /// The start report of the process at this index.
    Report(u8),
    /// The answer of the socket of the process at this index.
    Answer(u8),
    /// A process looked for the holder of the second lock.
    SecondLock,
    /// A descriptor that only this service has: inotify, the worker's channel.
    Other,
}

impl PollSource {
    /// Returns the slot of the client that is ready.
    #[must_use]
    pub fn client_slot(&self) -> Option<usize> {
        match *self {
            Self::Client(slot) => Some(slot.into()),
            _ => None,
        }
    }

    /// Returns the client at `slot`.
    #[must_use]
    pub fn client(slot: usize) -> Self {
        Self::Client(u8::try_from(slot).unwrap_or(u8::MAX))
    }
}

/// The process that shows that a service is alive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pulse {
    /// The service itself: each turn is a sign of life.
    Own,
    /// A worker, and whether it runs, and whether it showed in this turn that it lives.
    Worker {
        /// The worker runs.
        runs: bool,
        /// The worker showed that it lives.
        shown: bool,
    },
}

/// Writes a part of a line.
pub type Detail<'a> = &'a dyn Fn(&mut Writer<'_>);

/// The base of a service, and the part of its status that only the service itself knows.
pub trait ServiceStatus {
    /// Returns the base.
    fn base(&self) -> &ServiceBase;

    /// Returns the base.
    fn base_mut(&mut self) -> &mut ServiceBase;

    /// Returns the value of a field, if the service has it and the base has not.
    fn value(&self, field: StatusField, now: Instant) -> Option<u64>;

    /// Returns the state of the service in one word.
    fn phase(&self) -> &'static str {
        if self.base().stopping { "stopping" } else { "running" }
    }

    /// Returns the degraded states, without those that the base knows.
    fn own_degraded(&self) -> DegradedSet {
        DegradedSet::NONE
    }

    /// Checks a path that only this service has, because its turn has come.
    fn check_path(&mut self, _: WatchedPath, _: Instant) {}

    /// Writes the fields that are no numbers.
    fn push_words(&self, _: &mut Writer<'_>) {}

    /// Writes the status for a service manager.
    fn push_summary(&self, out: &mut Writer<'_>) {
        out.push_str(self.phase());
        out.push_str("; degraded: ");
        self.base().degraded().union(self.own_degraded()).push_names(out);
    }
}

/// Judges a new configuration, with memory to work in. Returns true if it can be used, and otherwise
/// writes the reason.
pub type Judgement<'a> = &'a mut dyn FnMut(&Config, &mut [u8], &mut Writer<'_>) -> bool;

/// See the module's documentation.
pub struct ServiceBase {
    service: Service,
    /// The process, and its configuration.
    pub process: Process,
    /// The log.
    pub log: Log,
    /// The socket; without effect in a service that has none.
    pub listener: Listener,
    /// The heartbeat.
    pub heartbeat: Heartbeat,
    /// Memory for the file of a program; `None` while it is in use.
    pub program: Option<&'static mut Program>,
    /// Memory for one turn.
    pub scratch: &'static mut [u8],
    /// The stop of the service has begun.
    pub stopping: bool,
    started_at: Instant,
    reloads: u64,
    reload_errors: u64,
    /// The degraded states whose begin was logged, and whose end was not.
    logged: DegradedSet,
    /// The path that is checked next.
    rotation: PathRotation,
    /// The reason why the PID file is lost or empty, if it is.
    pid_failure: Option<Failure>,
    /// The whole service was alive at the end of the last turn.
    alive: bool,
    /// A turn used memory since memory was last given back.
    pages_dirty: bool,
    /// A process has connected to the second lock.
    was_asked: Cell<bool>,
}

once! {
    first
    /// The base of this process's service. On the stack it would keep more pages in use.
    static BASE: Vec<ServiceBase, 1> = Vec::new();
}

impl ServiceBase {
    /// Opens what every service needs, except its socket. A failure ends the process.
    #[inline(never)]
    #[must_use]
    pub fn open(service: Service, parts: &'static mut Memory, reporter: StartReporter) -> &'static mut Self {
        let Memory { scratch, config_source, config, candidate, program, log: log_buffer, .. } = parts;
        let process = Process::prepare(service, config_source, config, candidate, reporter);
        let config = &*process.config;
        let own = |file: ServiceFile| path_or_empty(service, file, config);
        // The supervisor stays root, and the identity of the opener is for its worker.
        let stays = matches!(service, Service::Supervisor | Service::Opener);
        let owner = process.identity.as_ref().filter(|_| !stays);
        let log = Log::open(&process, &own(ServiceFile::Log), owner, log_buffer);
        let heartbeat = Heartbeat::new(own(ServiceFile::Health), process.config_source);
        let pid_failure = process.pid_file.unwritten();
        let base = BASE.take();
        let _ = base.push(Self {
            service,
            process,
            log,
            listener: Listener::none(),
            heartbeat,
            program: Some(program),
            scratch: scratch.pages(),
            stopping: false,
            started_at: clock::now(),
            reloads: 0,
            reload_errors: 0,
            logged: DegradedSet::NONE,
            rotation: PathRotation::default(),
            pid_failure,
            alive: true,
            pages_dirty: false,
            was_asked: Cell::new(false),
        });
        let Some(base) = base.first_mut() else { process::abort() };
        base
    }

    /// Opens the socket and drops the privileges, and calls `then` as soon as they are dropped.
    /// A failure ends the process.
    pub fn open_socket(&mut self, then: &mut dyn FnMut(&Process)) {
        self.listener = open_and_drop(self.service, &self.process, then);
        self.log.open_deferred(&self.process);
    }

    /// Opens the socket of a service that keeps its privileges. A failure ends the process.
    pub fn open_own_socket(&mut self) {
        self.listener = open_socket(self.service, &self.process, false);
    }

    /// Logs that the service has started.
    pub fn log_started(&mut self) {
        self.log.info(&|out| {
            let _ = uwrite!(out, "daemon started, pid={}", process::pid().as_raw_pid());
        });
    }

    /// Gives back the memory that only the start needed. Called by the loop itself, whose code is
    /// in the section of idle code: what runs between this call and the loop would be mapped.
    #[unsafe(link_section = ".text.idle")]
    pub fn release_startup(&mut self) {
        memory::release(self.scratch);
        memory::release_code_and_stack();
        // The first turns finish what the start began: a journal that was read is synced then.
        self.pages_dirty = true;
    }

    // ----- one turn -------------------------------------------------------

    /// Polls until something is ready or due. Of `clients` those are watched for input whose input
    /// the function beside them uses. `due` is the next moment of the service itself, and `own` are
    /// its other descriptors, which are watched for input.
    #[inline(never)]
    #[unsafe(link_section = ".text.idle")]
    pub fn wait<'a>(
        &'a self,
        now: Instant,
        clients: Option<(&'a Connections, &dyn Fn(usize) -> Reading)>,
        due: Option<Instant>,
        own: &mut dyn Iterator<Item = (&'a OwnedFd, PollSource)>,
    ) -> Vec<PollSource, POLL_MAX> {
        let mut set = PollSet::new();
        set.read(self.process.signals.fd(), PollSource::Signals);
        own.for_each(|(fd, source)| set.read(fd, source));
        let manager = self.process.notify.next_deadline().filter(|_| self.alive);
        let mut due = earliest(due, manager);
        if !self.service.is(Service::Opener) || self.listener.acceptor.fd().is_none() {
            // The opener beats when its worker shows that it lives, which wakes the loop. Without a
            // socket it has no worker.
            due = earliest(due, self.heartbeat.next_deadline(self.beat_every()));
        }
        if let Some((clients, reads)) = clients {
            due = earliest(due, self.listener.acceptor.next_deadline(now));
            if let Some(listener) = self.listener.acceptor.ready_fd(now) {
                set.read(listener, PollSource::Listener);
            }
            for (slot, _) in clients.clients.connected() {
                if let Some((fd, interest)) = clients.interest(slot, reads(slot)) {
                    set.watch(fd.as_fd(), interest, PollSource::client(slot));
                }
            }
        }
        if let Some(lock) = &self.process.second_lock {
            set.read(lock, PollSource::SecondLock);
        }
        set.wait(due.map(|at| now.until(at)));
        let ready: Vec<PollSource, POLL_MAX> = set.ready().collect();
        if ready.contains(&PollSource::SecondLock) {
            self.was_asked.set(true);
        }
        ready
    }

    /// Returns the longest time between two heartbeats.
    #[must_use]
    pub fn beat_every(&self) -> Duration {
        self.process.config.beat_every()
    }

    /// Returns the signals that have arrived, if there are any.
    #[unsafe(link_section = ".text.idle")]
    pub fn take_signals(&self, ready: &[PollSource]) -> Option<Arrived> {
        let arrived = ready.contains(&PollSource::Signals) || self.process.signals.have_arrived();
        arrived.then(|| self.take_arrived())
    }

    /// Takes the signals that have arrived. A service that starts no process reaps here what it
    /// inherits: as PID 1 of a container each orphan becomes its child.
    #[inline(never)]
    fn take_arrived(&self) -> Arrived {
        let arrived = self.process.signals.take();
        if arrived.has(Signal::CHILD) && matches!(self.service, Service::Hub | Service::Collector) {
            while process::reap_any().is_some() {}
        }
        arrived
    }

    /// Begins the stop of the service, and logs `WHY, stopping` and `detail`. Returns true if the
    /// stop had not begun before.
    pub fn begin_stop(&mut self, why: &str, detail: &str) -> bool {
        if core::mem::replace(&mut self.stopping, true) {
            return false;
        }
        self.log.info(&|out| {
            let _ = uwrite!(out, "{}, stopping{}", why, detail);
        });
        self.process.notify.stopping();
        true
    }

    /// Looks if the path of the PID file still leads to the file that holds the lock.
    #[unsafe(link_section = ".text.idle")]
    fn check_pid_file(&mut self) {
        let Process { pid_file, pid_path, .. } = &self.process;
        match look(pid_path, pid_file.identity(), false) {
            PathState::Named if self.pid_failure.is_none() => {}
            PathState::Named => self.mend_pid_file(false),
            PathState::Missing | PathState::Replaced => self.mend_pid_file(true),
            PathState::Unknown => {}
        }
        if self.process.second_lock.is_none() && !self.service.is(Service::Jobs) {
            self.take_second_lock();
        }
    }

    /// Takes the second lock, which a process of another user held at the start.
    #[cold]
    #[inline(never)]
    fn take_second_lock(&mut self) {
        let Process { pid_path, identity, .. } = &self.process;
        // The name is that of the user that started the service. Only root becomes another one.
        let uid = if identity.is_some() { 0 } else { identity::effective_uid() };
        if let Ok(lock) = second_lock::bind(self.service, uid, pid_path) {
            self.process.second_lock = Some(lock);
            self.log.info(&|out| out.push_str("the second lock is free again, and is taken"));
        }
    }

    /// Makes the PID file again if it is lost, and writes its number otherwise.
    #[cold]
    #[inline(never)]
    fn mend_pid_file(&mut self, lost: bool) {
        let Process { pid_file, pid_path, .. } = &mut self.process;
        let mut line = [0; PID_LINE_BYTES];
        let line = pid_line(&mut line);
        let result = match (lost, pid_file.unwritten()) {
            (true, _) => pid_file.make_again(pid_path, line),
            (false, Some(_)) => pid_file.fill(line),
            (false, None) => Ok(()),
        };
        let was_failing = self.pid_failure.is_some();
        self.pid_failure = result.err().or(pid_file.unwritten());
        if self.pid_failure.is_none() && !was_failing {
            let path = &self.process.pid_path;
            self.log.warn(&|out| {
                out.push_str("the PID file was lost, and is made again: ");
                out.push_escaped(path.as_bytes());
            });
        }
    }

    /// Logs each degraded state of the base once when it begins and once when it ends.
    #[unsafe(link_section = ".text.idle")]
    fn watch_degraded(&mut self) {
        let failing = DegradedSet::NONE
            .with(DegradedState::PidFile, self.pid_failure.is_some())
            .with(DegradedState::Log, self.log.is_failing())
            .with(DegradedState::Health, self.heartbeat.failure().is_some())
            .with(DegradedState::Socket, self.listener.failure().is_some());
        if failing != self.logged {
            self.log_degraded();
        }
    }

    /// Logs the begin and the end of degraded states.
    #[cold]
    #[inline(never)]
    fn log_degraded(&mut self) {
        let Self { heartbeat, log, listener, process, .. } = self;
        let log_failing = log.is_failing();
        let (lost, found) = ("is gone, and cannot be made again", "is there again");
        let (unwritten, written) = ("cannot be written", "is written again");
        let pid_events =
            if process.pid_file.unwritten().is_some() { (unwritten, found) } else { (lost, found) };
        let socket = if self.service.is(Service::Jobs) { "control socket" } else { "socket" };
        let failures = [
            (DegradedState::PidFile, self.pid_failure, &process.pid_path, "PID file", pid_events),
            (
                DegradedState::Health,
                heartbeat.failure(),
                heartbeat.path(),
                "health file",
                (unwritten, written),
            ),
            (DegradedState::Socket, listener.failure(), listener.path(), socket, (lost, found)),
        ];
        for (state, failure, path, subject, (begin, end)) in failures {
            if failure.is_some() == self.logged.has(state) {
                continue;
            }
            self.logged = self.logged.with(state, failure.is_some());
            match failure {
                Some(failure) => log.error(&|out| {
                    let _ = uwrite!(out, "the {} {}: ", subject, begin);
                    describe_at(path, failure, out);
                }),
                None => log.info(&|out| {
                    let _ = uwrite!(out, "the {} {}", subject, end);
                }),
            }
        }
        if log_failing != self.logged.has(DegradedState::Log) {
            self.logged = self.logged.with(DegradedState::Log, log_failing);
            if !log_failing {
                log.info(&|out| out.push_str("the log is written again"));
            } else if log.is_only_stderr_full() {
                log.warn(&|out| out.push_str("stderr takes no lines, they are only in the file"));
            }
        }
    }

    // ----- the status -------------------------------------------------------

    /// Returns the degraded states that every service can have.
    #[must_use]
    pub fn degraded(&self) -> DegradedSet {
        self.logged
            .with(DegradedState::PidFile, self.pid_failure.is_some())
            .with(DegradedState::Socket, self.listener.failure().is_some())
            .with(DegradedState::Descriptors, self.listener.acceptor.is_out_of_descriptors())
    }

    /// Returns the value of a field that every service has.
    fn value(&self, field: StatusField, now: Instant) -> Option<u64> {
        let log = self.log.counts();
        Some(match field {
            StatusField::Uptime => now.since(self.started_at).as_secs(),
            StatusField::Reloads => self.reloads,
            StatusField::ReloadErrors => self.reload_errors,
            StatusField::Rotations if !self.service.is(Service::Supervisor) => log.rotations,
            StatusField::LogReplaced if !self.service.is(Service::Supervisor) => log.replaced,
            StatusField::LogLost if !self.service.is(Service::Supervisor) => log.lost,
            _ => return None,
        })
    }

    // ----- a new configuration ----------------------------------------------

    /// Reads the configuration again, as a whole or not at all (SIGHUP). Returns true if the new
    /// one is in force; the candidate is the old one then.
    ///
    /// If the socket has to be made again, its name is gone by then. The service accepts the
    /// clients that have connected, applies its own part, and calls
    /// [`ServiceBase::finish_reload`].
    #[inline(never)]
    pub fn reload(&mut self) -> bool {
        self.reload_if(&mut |_, _, _| true)
    }

    /// Reads the configuration again as [`ServiceBase::reload`] does, if `accepts` returns true. Returns
    /// true if the new configuration is in force.
    #[inline(never)]
    pub fn reload_if(&mut self, accepts: Judgement<'_>) -> bool {
        self.log.info(&|line| line.push_str("SIGHUP received, reloading config"));
        self.process.notify.reloading();
        let mut reason = [0; REASON_BYTES];
        let mut out = Writer::new(&mut reason);
        let loaded = self.load_candidate(&mut out);
        let loaded = loaded.ok().filter(|_| accepts(self.process.candidate, self.scratch, &mut out));
        let Some(policy) = loaded else {
            self.reload_errors = self.reload_errors.saturating_add(1);
            self.log.error(&|line| {
                line.push_str("config not reloaded, the old one stays: ");
                line.push(out.as_bytes());
            });
            self.process.notify.reloaded(false);
            return false;
        };
        self.reloads = self.reloads.saturating_add(1);
        self.adopt_candidate(policy);
        true
    }

    /// Reads the configuration into the candidate. If it cannot be used, the reason is in `out`.
    fn load_candidate(&mut self, out: &mut Writer<'_>) -> Result<AccessPolicy, InvalidConfig> {
        let Process { config_source, candidate, .. } = &mut self.process;
        config_source.load(candidate, self.scratch, out)?;
        judge_paths(self.service, config_source, candidate, false, out)?;
        find_policy(self.service, candidate).map_err(|name| {
            describe_unknown(name, out);
            InvalidConfig
        })
    }

    /// Returns true if the handler would be the log after a reload, and would take only its own jobs.
    pub fn reload_logs_own_jobs(&mut self) -> bool {
        let mut reason = [0; REASON_BYTES];
        self.load_candidate(&mut Writer::new(&mut reason)).is_ok() && self.process.candidate.logs_own_jobs()
    }

    /// Puts the candidate in force.
    fn adopt_candidate(&mut self, policy: AccessPolicy) {
        log_changes(&mut self.process, &mut self.log);
        core::mem::swap(&mut self.process.config, &mut self.process.candidate);
        let (log_file, health) = (self.own_path(ServiceFile::Log), self.own_path(ServiceFile::Health));
        self.log.configure(self.process.config, &log_file, self.process.foreground);
        self.heartbeat.move_to(&health);
        if self.listener.set_policy(policy)
            && let Err(failure) = self.listener.unlink()
        {
            let path = self.listener.path();
            self.log.warn(&|out| describe_at(path, failure, out));
        }
    }

    /// Reads the configuration again if it names another health file. Returns true if the new one
    /// is in force.
    #[inline(never)]
    pub fn follow_health_file(&mut self) -> bool {
        let mut reason = [0; REASON_BYTES];
        let Ok(policy) = self.load_candidate(&mut Writer::new(&mut reason)) else { return false };
        if self.process.candidate.health_file == self.process.config.health_file {
            return false;
        }
        self.log.info(&|out| out.push_str("the config names another health file, reloading it"));
        self.adopt_candidate(policy);
        true
    }

    fn own_path(&self, file: ServiceFile) -> Path {
        path_or_empty(self.service, file, self.process.config)
    }

    /// Ends a reload: makes the socket again if its rules or its name are others, and notifies the
    /// service manager.
    pub fn finish_reload(&mut self) {
        if !self.listener.path().is_empty() {
            self.renew_socket();
        }
        self.process.notify.reloaded(true);
    }

    /// Makes the socket again if its name is gone, or is another one. Only an abstract name can
    /// be another one, because a reload does not change `socket`.
    fn renew_socket(&mut self) {
        let path = self.own_path(ServiceFile::Socket);
        if path == *self.listener.path() {
            return self.listener.check();
        }
        // On failure the old socket stays, and the next reload tries again.
        match Listener::open(&path, self.listener.policy.clone(), None, Duration::ZERO) {
            Ok(listener) => self.listener = listener,
            Err(failure) => self.log.error(&|out| {
                out.push_str("the socket stays where it was: ");
                describe_at(&path, failure, out);
            }),
        }
    }

    // ----- the end ----------------------------------------------------------

    /// Ends the service: removes the socket and the health file, and logs `what` it did. Returns
    /// the exit code.
    #[inline(never)]
    pub fn finish(&mut self, what: Detail<'_>) -> u8 {
        let _ = self.listener.unlink();
        self.heartbeat.remove();
        self.log.info(&|out| {
            out.push_str("daemon stopped, ");
            what(out);
        });
        self.log.flush();
        // The PID file goes last, because others wait for it. While it is there, no process looks
        // at the second lock.
        self.process.second_lock = None;
        self.process.pid_file.release(self.process.pid_path.as_c_str());
        exit::OK
    }
}

/// Shows that the service is ready: first heartbeat, first line, report, memory.
#[inline(never)]
pub fn announce(service: &mut dyn ServiceStatus) {
    let base = service.base_mut();
    if let Err(failure) = file::open_dir(c"/") {
        // Without one more descriptor the service could not even accept a client.
        let _ = base.listener.unlink();
        base.process.fail(exit::FAILED, &|out| {
            out.push_str("no descriptor is left to work with: ");
            failure.describe(out);
            out.push_str("; raise the limit of open files (ulimit -n)");
        });
    }
    base.heartbeat.begin(clock::now(), &base.process.reporter);
    base.log_started();
    report_ready(service);
}

/// Reports to the process that started the service, and to the service manager, that it is ready.
#[inline(never)]
pub fn report_ready(service: &mut dyn ServiceStatus) {
    let base = service.base_mut();
    base.log.flush();
    base.watch_degraded();
    core::mem::replace(&mut base.process.reporter, StartReporter::Foreground(None)).ready();
    put_summary(service);
    service.base_mut().process.notify.ready();
}

/// Handles SIGUSR1 and SIGUSR2.
#[inline(never)]
pub fn on_user_signals(service: &mut dyn ServiceStatus, arrived: Arrived, now: Instant) {
    if arrived.has(Signal::USR1) {
        service.base_mut().log.rotate();
    }
    if arrived.has(Signal::USR2) {
        let mut text = [0; STATUS_BYTES];
        let mut status = Writer::new(&mut text);
        push_status(service, &mut status, now);
        service.base_mut().log.info(&|out| {
            out.push_str("status: ");
            out.push(status.as_bytes());
        });
    }
}

/// Gives the status to each process that has connected to the second lock.
#[cold]
#[inline(never)]
fn answer_lookups(service: &mut dyn ServiceStatus, now: Instant) {
    let mut text = [0; STATUS_BYTES];
    let mut status = Writer::new(&mut text);
    push_status(service, &mut status, now);
    status.end_line();
    if let Some(lock) = &service.base().process.second_lock {
        second_lock::answer_all(lock, status.as_bytes());
    }
}

/// Writes all fields of the status. docs/control.md describes them.
#[inline(never)]
pub fn push_status(service: &dyn ServiceStatus, out: &mut Writer<'_>, now: Instant) {
    let _ = uwrite!(out, "pid={} state={}", process::pid().as_raw_pid(), service.phase());
    for field in StatusField::ALL {
        let value = service.base().value(*field, now).or_else(|| service.value(*field, now));
        if let Some(value) = value {
            push_field(field.name(), value, out);
        }
    }
    service.push_words(out);
    out.push_str(" degraded=");
    service.base().degraded().union(service.own_degraded()).push_names(out);
}

/// Gives the status to the service manager, if there is one.
#[allow(unsafe_code, reason = "names a section")]
#[unsafe(link_section = ".text.idle")]
fn put_summary(service: &mut dyn ServiceStatus) {
    if service.base().process.notify.is_wanted() {
        let mut line = [0; NOTIFY_STATUS_BYTES];
        let mut out = Writer::new(&mut line);
        service.push_summary(&mut out);
        service.base_mut().process.notify.status(out.as_bytes());
    }
}

/// Checks the paths whose turn it is.
#[allow(unsafe_code, reason = "names a section")]
#[unsafe(link_section = ".text.idle")]
fn check_paths(service: &mut dyn ServiceStatus, now: Instant) {
    let base = service.base();
    let stale_after = base.process.config.stale_after;
    let every = (!base.heartbeat.is_disabled()).then(|| base.beat_every());
    for _ in 0..checks_per_beat(base.service, every, stale_after) {
        let base = service.base_mut();
        match base.rotation.advance(base.service) {
            WatchedPath::Health => base.heartbeat.check(),
            WatchedPath::Socket => base.listener.check(),
            WatchedPath::PidFile => base.check_pid_file(),
            path => service.check_path(path, now),
        }
    }
}

/// Ends a turn that began at `now`. `busy`: the turn used memory that a quiet service does not.
#[inline(never)]
#[allow(unsafe_code, reason = "names a section")]
#[unsafe(link_section = ".text.idle")]
pub fn end_turn(service: &mut dyn ServiceStatus, now: Instant, busy: bool, pulse: Pulse) {
    let (alive, beats) = match pulse {
        Pulse::Own => (true, true),
        Pulse::Worker { runs, shown } => (runs, shown),
    };
    let base = service.base_mut();
    base.log.end_turn();
    base.alive = alive;
    let recorded = beats && base.heartbeat.is_due(now);
    if recorded {
        check_paths(service, now);
        service.base_mut().heartbeat.beat(now);
    }
    service.base_mut().watch_degraded();
    put_summary(service);
    if service.base().was_asked.take() {
        answer_lookups(service, now);
    }
    let base = service.base_mut();
    if alive {
        base.process.notify.turn_finished(now);
    }
    let took = clock::now().since(now);
    if took.exceeds(base.process.config.stale_after) {
        base.log.warn(&|out| {
            let _ = uwrite!(out, "a turn of the loop took {} ms", took.as_ms());
        });
    }
    base.pages_dirty |= busy;
    if base.pages_dirty && (recorded || base.heartbeat.is_disabled()) {
        // Not in every turn, because the next turn needs the memory again.
        base.pages_dirty = false;
        memory::release(base.scratch);
        memory::release_code_and_stack();
    }
}
