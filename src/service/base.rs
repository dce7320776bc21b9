//! What `hub`, `opener` and `collector` have in common: the lifecycle, the log,
//! the heartbeat, a socket, a reload. What is left to each is what it does with
//! its clients.
//!
//! One turn of each, always in this order:
//!
//! 1. poll ([`ServiceBase::wait`]) until something is ready or due
//! 2. signals ([`ServiceBase::on_signals`])
//! 3. clients
//! 4. the log, the heartbeat, the socket's name, the service manager
//!    ([`ServiceBase::turn_finished`])
//! 5. accept new clients, last
//!
//! After start-up nothing here ends the service: what fails is logged once,
//! leaves a named degraded state, and is tried again.

use super::config_source::{InvalidConfig, ServiceFile, path_of};
use super::connections::Connections;
use super::degraded::{Degraded, push_names};
use super::heartbeat::Heartbeat;
use super::lifecycle::{Process, StartReporter, describe_at, exit};
use super::listener::{Listener, describe_unknown, find_policy, open_and_drop};
use super::log::Log;
use super::memory::Memory;
use super::reload::{self, REASON_BYTES};
use crate::limits::{NOTIFY_STATUS_BYTES, POLL_MAX};
use crate::proto::service::Service;
use crate::state::access::AccessPolicy;
use crate::sys::identity::Identity;
use crate::sys::poll::PollSet;
use crate::sys::process::{self, Signal};
use crate::sys::signal::Arrived;
use crate::sys::{AsFd, OwnedFd, clock, memory};
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant, earliest};
use heapless::Vec;
use ufmt::uwrite;

/// What a poll result is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PollSource {
    /// A signal arrived.
    Signals,
    /// Somebody wants to connect.
    Listener,
    /// The client at this place.
    Client(usize),
    /// What the service watches beside its clients.
    Other,
}

impl PollSource {
    /// Returns the slot of the client that is ready.
    #[must_use]
    pub fn client(&self) -> Option<usize> {
        match self {
            Self::Client(slot) => Some(*slot),
            _ => None,
        }
    }
}

/// Appends what only the service knows to a line.
pub type Detail<'a> = &'a dyn Fn(&mut Writer<'_>);

/// See the module's documentation.
pub struct ServiceBase {
    service: Service,
    /// The process, and its configuration.
    pub process: Process,
    /// The log.
    pub log: Log,
    /// The socket.
    pub listener: Listener,
    /// Memory for one turn.
    pub scratch: &'static mut [u8],
    /// Whether the service is on its way out.
    pub stopping: bool,
    heartbeat: Heartbeat,
    started_at: Instant,
    reloads: u64,
    reload_errors: u64,
    degraded: Degraded,
    /// The socket failed when it was last looked at.
    socket_failing: bool,
    /// The whole service was alive at the end of the last turn.
    alive: bool,
}

impl ServiceBase {
    /// Opens what every service needs, and its socket; failures end the process.
    /// The identity of `opener` is not for this process, so it is left alone and
    /// returned.
    #[inline(never)]
    pub fn open(
        service: Service,
        parts: &'static mut Memory,
        reporter: StartReporter,
    ) -> (Self, Option<Identity>) {
        let Memory { scratch, config_source, config, candidate, log: log_buffer } = parts;
        let mut process = Process::prepare(service, config_source, config, candidate, reporter);
        let other = if service == Service::Opener { process.identity.take() } else { None };
        let config = &*process.config;
        let own = |file: ServiceFile| path_of(service, file, config).unwrap_or_default();
        let log = Log::open(&process, &own(ServiceFile::Log), process.identity.as_ref(), log_buffer);
        let heartbeat = Heartbeat::new(own(ServiceFile::Health));
        let listener = open_and_drop(service, &process, &mut || {});
        let base = Self {
            service,
            process,
            log,
            listener,
            scratch: scratch.pages(),
            stopping: false,
            heartbeat,
            started_at: clock::now(),
            reloads: 0,
            reload_errors: 0,
            degraded: Degraded::default(),
            socket_failing: false,
            alive: true,
        };
        (base, other)
    }

    /// The service is ready: first heartbeat, first line, and the starter may go.
    #[inline(never)]
    pub fn announce(&mut self) {
        self.heartbeat.begin(clock::now(), &self.process.reporter);
        self.log.info(&|out| {
            let _ = uwrite!(out, "daemon started, pid={}", process::pid().as_raw_pid());
        });
        self.log.flush();
        self.degraded.watch(&self.heartbeat, &mut self.log);
        let reporter = core::mem::replace(&mut self.process.reporter, StartReporter::Foreground(None));
        reporter.ready();
        self.put_status();
        self.process.notify.ready();
        memory::release(self.scratch);
        memory::release_startup();
    }

    // ----- one turn -------------------------------------------------------

    /// Polls until something is ready or due. `clients` are watched for input where
    /// `reading` says so; `due` is the service's own next moment, `other` a
    /// descriptor of its own. Without clients the heart beats when that one speaks, and
    /// nothing wakes the loop for it.
    #[inline(never)]
    pub fn wait(
        &self,
        clients: Option<&Connections>,
        reading: &dyn Fn(usize) -> bool,
        other: Option<&OwnedFd>,
        due: Option<Instant>,
    ) -> Vec<PollSource, POLL_MAX> {
        let now = clock::now();
        let mut set = PollSet::new();
        set.read(self.process.signals.fd(), PollSource::Signals);
        if let Some(other) = other {
            set.read(other, PollSource::Other);
        }
        let fed = self.process.notify.next_deadline().filter(|_| self.alive);
        let beat = clients.and_then(|_| self.heartbeat.next_deadline(self.beat_every()));
        let accept = clients.and_then(|_| self.listener.acceptor.next_deadline(now));
        let due = [due, fed, beat, accept].into_iter().fold(None, earliest);
        if let Some(clients) = clients {
            if self.listener.acceptor.accepts(now) {
                set.read(self.listener.acceptor.fd(), PollSource::Listener);
            }
            for (slot, _) in clients.clients.connected() {
                if let Some((fd, interest)) = clients.interest(slot, reading(slot)) {
                    set.watch(fd.as_fd(), interest, PollSource::Client(slot));
                }
            }
        }
        set.wait(due.map(|at| now.until(at)));
        set.ready().collect()
    }

    /// How often the heart beats at least.
    #[must_use]
    pub fn beat_every(&self) -> Duration {
        self.process.config.beat_every()
    }

    /// Handles the signals that are the same for all; HUP and CHLD are left to the
    /// service. `detail` is what its status says beside what all say.
    #[inline(never)]
    pub fn on_signals(&mut self, now: Instant, detail: Detail<'_>) -> Arrived {
        let arrived = self.process.signals.take();
        if let Some((_, why)) = arrived.stop()
            && !core::mem::replace(&mut self.stopping, true)
        {
            self.log.info(&|out| {
                let _ = uwrite!(out, "{}, stopping", why);
            });
            self.process.notify.stopping();
        }
        if arrived.has(Signal::USR1) {
            self.log.rotate();
        }
        if arrived.has(Signal::USR2) {
            self.log_status(now, detail);
        }
        arrived
    }

    /// The end of a turn that began at `now`. `alive`: the whole service is, so that
    /// it may say so.
    pub fn turn_finished(&mut self, now: Instant, alive: bool) {
        self.end_turn(now, alive, alive, 1);
    }

    /// As [`ServiceBase::turn_finished`] for a service of more than one process, which is
    /// `alive`, and has shown it in this very turn if its heart `beats`. Each so many
    /// beats the socket is looked at.
    #[inline(never)]
    pub fn end_turn(&mut self, now: Instant, alive: bool, beats: bool, socket_every: u64) {
        self.log.flush();
        self.alive = alive;
        if beats && self.heartbeat.turn_finished(now) && self.heartbeat.beats().is_multiple_of(socket_every) {
            self.listener.check();
        }
        self.watch_degraded();
        self.put_status();
        if alive {
            self.process.notify.turn_finished(now);
        }
        let took = clock::now().since(now);
        if took.exceeds(self.process.config.stale_after) {
            self.log.warn(&|out| {
                let _ = uwrite!(out, "a turn of the loop took {} ms", took.as_ms());
            });
        }
    }

    /// Says once that something fails, and once that it works again.
    fn watch_degraded(&mut self) {
        self.degraded.watch(&self.heartbeat, &mut self.log);
        let failure = self.listener.failure();
        if failure.is_some() != self.socket_failing {
            self.socket_failing = failure.is_some();
            let path = self.listener.path();
            match failure {
                Some(failure) => self.log.error(&|out| {
                    out.push_str("the socket is gone, and cannot be made again: ");
                    describe_at(path, failure, out);
                }),
                None => self.log.info(&|out| out.push_str("the socket is there again")),
            }
        }
    }

    // ----- what is told ---------------------------------------------------

    /// SIGUSR2.
    fn log_status(&mut self, now: Instant, detail: Detail<'_>) {
        let mut text = [0; 400];
        let mut status = Writer::new(&mut text);
        let state = if self.stopping { "stopping" } else { "running" };
        let _ = uwrite!(status, "pid={} state={}", process::pid().as_raw_pid(), state);
        let log = self.log.counts();
        for (name, value) in [
            ("uptime", now.since(self.started_at).as_secs()),
            ("reloads", self.reloads),
            ("reload_errors", self.reload_errors),
            ("rotations", log.rotations),
            ("log_lost", log.lost),
        ] {
            let _ = uwrite!(status, " {}={}", name, value);
        }
        detail(&mut status);
        status.push_str(" degraded=");
        self.push_degraded(&mut status);
        self.log.info(&|out| {
            out.push_str("status: ");
            out.push(status.as_bytes());
        });
    }

    fn push_degraded(&self, out: &mut Writer<'_>) {
        let states = [
            (self.degraded.log, "log"),
            (self.degraded.health, "health"),
            (self.listener.failure().is_some(), "socket"),
            (self.listener.acceptor.is_out_of_descriptors(), "descriptors"),
        ];
        push_names(&states, out);
    }

    /// How it is, for a service manager that wants to be told.
    fn put_status(&mut self) {
        if !self.process.notify.is_wanted() {
            return;
        }
        let mut line = [0; NOTIFY_STATUS_BYTES];
        let mut out = Writer::new(&mut line);
        out.push_str(if self.stopping { "stopping; degraded: " } else { "running; degraded: " });
        self.push_degraded(&mut out);
        self.process.notify.status(out.as_bytes());
    }

    // ----- a new configuration ----------------------------------------------

    /// SIGHUP: the configuration anew, whole or not at all; true if it is in force.
    #[inline(never)]
    pub fn reload(&mut self) -> bool {
        let mut reason = [0; REASON_BYTES];
        let mut out = Writer::new(&mut reason);
        let policy = match reload::read(&mut self.process, self.scratch, &mut self.log, &mut out) {
            Ok(()) => {
                let policy = find_policy(self.service, self.process.candidate);
                policy.map_err(|name| describe_unknown(name, &mut out))
            }
            Err(InvalidConfig) => Err(()),
        };
        let Ok(policy) = policy else {
            self.reload_errors = self.reload_errors.saturating_add(1);
            reload::refuse(&mut self.process, &mut self.log, out.as_bytes());
            return false;
        };
        self.reloads = self.reloads.saturating_add(1);
        reload::accept(&mut self.process, &mut self.log);
        core::mem::swap(&mut self.process.config, &mut self.process.candidate);
        let config = &*self.process.config;
        let own = |file: ServiceFile| path_of(self.service, file, config).unwrap_or_default();
        let (log_file, health, socket) =
            (own(ServiceFile::Log), own(ServiceFile::Health), own(ServiceFile::Socket));
        self.log.configure(config, &log_file, self.process.foreground);
        self.heartbeat.move_to(&health);
        self.adopt_socket(policy, &socket);
        self.process.notify.reloaded(true);
        true
    }

    /// The socket gets its new rules, or its new name. (Only an abstract one can be
    /// moved: the others stand in what a reload does not change.)
    fn adopt_socket(&mut self, policy: AccessPolicy, path: &crate::util::path::Path) {
        if path == self.listener.path() {
            if self.listener.set_policy(policy) && self.listener.unlink().is_ok() {
                self.listener.check();
            }
            return;
        }
        // (its clients do not wait for it; the next reload tries again)
        match Listener::open(path, policy, None, Duration::ZERO) {
            Ok(listener) => self.listener = listener,
            Err(failure) => self.log.error(&|out| {
                out.push_str("the socket stays where it was: ");
                describe_at(path, failure, out);
            }),
        }
    }

    // ----- the end ----------------------------------------------------------

    /// The orderly end: nothing left behind. `what` is what it did.
    #[inline(never)]
    pub fn finish(&mut self, what: Detail<'_>) -> u8 {
        let _ = self.listener.unlink();
        self.heartbeat.remove();
        self.log.info(&|out| {
            out.push_str("daemon stopped, ");
            what(out);
        });
        self.log.flush();
        // The PID file is what others wait for: it goes last.
        self.process.pid_file.release(self.process.pid_path.as_c_str());
        exit::OK
    }
}
