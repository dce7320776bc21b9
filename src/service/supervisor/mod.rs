//! The service `supervisor`: keeps services, or one program, running.
//!
//! One turn of the loop, always in this order:
//!
//! 1. poll the signal pipe, and of each ward its pidfd, its reports and its
//!    output, until the nearest deadline
//! 2. signals, 3. reports and output, 4. ends
//! 5. deadlines: starts, KILLs, and the looks at health files
//! 6. the hardware watchdog
//! 7. write the log, the heartbeat
//!
//! What is decided is in `state/supervisor.rs`; here it is carried out.
//!
//! - `ward.rs`: one service or program: starting it, signalling it
//! - `look.rs`: whether it is there, and well
//! - `watchdog.rs`: the hardware watchdog
//! - `tell.rs`: what is said, and a new configuration
//!
//! A supervised program (`run supervisor -- CMD`) has no heartbeat, and the
//! supervisor none of its own, so nothing wakes either.

mod look;
mod tell;
mod ward;
mod watchdog;

use crate::limits::{POLL_MAX, SUPERVISED_MAX};
use crate::proto::config::Config;
use crate::proto::log::Level;
use crate::proto::names::Service;
use crate::proto::path::Path;
use crate::service::degraded::Degraded;
use crate::service::heartbeat::Heartbeat;
use crate::service::lifecycle::{Audience, Process, describe_at, exit};
use crate::service::log::Log;
use crate::service::memory::Memory;
use crate::service::settings::{File, path_of};
use crate::state::supervisor::{Action, Answer, Ended, Look, Phase, Report, Rules, Trouble};
use crate::sys::args::Args;
use crate::sys::once::Once;
use crate::sys::poll::PollSet;
use crate::sys::process::{self, Exit, Pid, Signal};
use crate::sys::{clock, memory, poll};
use crate::util::time::{Duration, Instant, earliest};
use core::ffi::c_char;
use heapless::Vec;
use ufmt::uwrite;
use ward::{Kind, Started, Supervised};
use watchdog::Watchdog;

/// How the supervisor was called: what it needs to start what it supervises.
pub struct Origin {
    /// All arguments.
    pub args: Args,
    /// The place of the command among them; before it are the options that its
    /// services get too.
    pub command_at: usize,
    /// A program and its arguments, ended by a null pointer; empty for services.
    pub program: &'static [*const c_char],
    /// The file that the program writes as a sign of life.
    pub health: Option<Path>,
}

/// What a poll result is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Signals,
    End(usize),
    Report(usize),
    Output(usize),
}

/// Whether the service is on its way out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    /// Its wards were told to end.
    Gracefully,
    /// Its wards stay as they are.
    Alone,
}

/// See the module's documentation.
struct Supervisor {
    process: Process,
    log: Log,
    heartbeat: Heartbeat,
    watchdog: Watchdog,
    origin: Origin,
    wards: &'static mut Vec<Supervised, SUPERVISED_MAX>,
    scratch: &'static mut [u8],
    started_at: Instant,
    /// When the wards are looked at next.
    look_at: Instant,
    /// Whoever started us is told that we are ready at this time at the latest;
    /// `None`: was told.
    announce_by: Option<Instant>,
    restarts: u64,
    reloads: u64,
    reload_errors: u64,
    stopping: Stopping,
    degraded: Degraded,
    /// Something happened in this turn, for which the stack grew.
    stretched: bool,
}

static WARDS: Once<Vec<Supervised, SUPERVISED_MAX>, 2> = Once::new(Vec::new());

/// Runs the service until it is stopped; returns the exit code. (Not inlined: its
/// caller's frame would hold what every service needs.)
#[inline(never)]
pub fn serve(parts: &'static mut Memory, audience: Audience, origin: Origin) -> u8 {
    let mut supervisor = Supervisor::open(parts, audience, origin);
    memory::release(supervisor.scratch);
    memory::release_startup();
    while !supervisor.is_over() {
        supervisor.turn();
    }
    supervisor.finish()
}

impl Supervisor {
    /// Opens what the service needs; failures end the process.
    #[inline(never)]
    fn open(parts: &'static mut Memory, audience: Audience, origin: Origin) -> Self {
        let Memory { scratch, settings, config, candidate, log: log_buffer } = parts;
        let process = Process::prepare(Service::Supervisor, settings, config, candidate, audience);
        let now = clock::now();
        // The output of a program goes to the file in any case.
        process.config.log_file_named |= origin.is_program();
        let config = &*process.config;
        let own = |file: File| path_of(Service::Supervisor, file, config).unwrap_or_default();
        let mut log = Log::open(&process, &own(File::Log), None, log_buffer);
        let heartbeat = Heartbeat::new(own(File::Health));
        let watchdog = Watchdog::new(&config.watchdog);
        let patience = config.stale_after;
        let wards = WARDS.take();
        if origin.is_program() {
            let _ = wards.push(Supervised::new(Kind::Program, now));
        } else {
            for service in &config.supervise {
                let _ = wards.push(Supervised::new(Kind::Service(*service), now));
            }
        }
        log.info(&|out| {
            let _ = uwrite!(out, "daemon started, pid={}", process::pid().as_raw_pid());
        });
        Self {
            process,
            log,
            heartbeat,
            watchdog,
            origin,
            wards,
            scratch: scratch.pages(),
            started_at: now,
            look_at: now,
            announce_by: Some(now + patience),
            restarts: 0,
            reloads: 0,
            reload_errors: 0,
            stopping: Stopping::No,
            degraded: Degraded::default(),
            stretched: false,
        }
    }

    fn is_over(&self) -> bool {
        match self.stopping {
            Stopping::No => false,
            Stopping::Gracefully => self.wards.iter().all(|ward| ward.state.is_over()),
            Stopping::Alone => true,
        }
    }

    // ----- one turn -------------------------------------------------------

    fn turn(&mut self) {
        let ready = self.wait();
        let now = clock::now();
        if ready.contains(&Source::Signals) || self.process.signals.have_arrived() {
            self.on_signals(now);
        }
        for source in &ready {
            match *source {
                Source::Signals => {}
                Source::Report(index) => self.read_reports(index),
                Source::Output(index) => self.read_output(index),
                Source::End(index) => self.on_pidfd(index, now),
            }
        }
        self.on_deadlines(now);
        self.feed_watchdog(now);
        self.announce_when_settled(now);
        self.log.flush();
        if !self.origin.is_program() {
            self.heartbeat.turn_finished(now);
        }
        self.degraded.watch(&self.heartbeat, &mut self.log);
        self.put_status();
        self.process.notify.turn_finished(now);
        if core::mem::take(&mut self.stretched) {
            // (a child had its stack there, and its environment)
            memory::release_stack();
        }
    }

    /// Polls until something is ready or due.
    #[inline(never)]
    fn wait(&self) -> Vec<Source, POLL_MAX> {
        let now = clock::now();
        let mut set = PollSet::new();
        set.read(self.process.signals.fd(), Source::Signals);
        for (index, ward) in self.wards.iter().enumerate() {
            if let Some(pidfd) = &ward.pidfd {
                set.read(pidfd, Source::End(index));
            }
            if let Some(reports) = &ward.reports {
                set.read(reports, Source::Report(index));
            }
            if let Some(output) = &ward.output.pipe {
                set.read(output, Source::Output(index));
            }
        }
        set.wait(self.next_deadline().map(|at| now.until(at)));
        set.ready().collect()
    }

    /// The nearest moment at which there is something to do; `None`: only when
    /// something happens.
    fn next_deadline(&self) -> Option<Instant> {
        let every = self.process.config.beat_every();
        let beat = if self.origin.is_program() { None } else { self.heartbeat.next_deadline(every) };
        let wards = self.wards.iter().map(|ward| ward.state.next_deadline());
        let looks = self.looks_at_health().then_some(self.look_at);
        let (watchdog, notify) = (self.watchdog.next_deadline(), self.process.notify.next_deadline());
        wards.chain([beat, looks, watchdog, self.announce_by, notify]).fold(None, earliest)
    }

    fn on_signals(&mut self, now: Instant) {
        let arrived = self.process.signals.take();
        match arrived.stop() {
            // (a program's output goes through us: it cannot stay alone)
            Some((signal, why)) if signal != Signal::QUIT || self.origin.is_program() => self.stop(why, now),
            Some((_, why)) if self.stopping == Stopping::No => self.leave_alone(why),
            Some(_) | None => {}
        }
        // (after the stops: what ended with us is not started again)
        if arrived.has(Signal::CHILD) {
            self.reap(now);
        }
        if arrived.has(Signal::HUP) {
            self.reload(now);
        }
        if arrived.has(Signal::USR1) {
            self.log.rotate();
        }
        if arrived.has(Signal::USR2) {
            self.log_status(now);
        }
    }

    /// Stops without those that are supervised.
    fn leave_alone(&mut self, why: &str) {
        self.log.info(&|out| {
            let _ = uwrite!(out, "{}, stopping; what is supervised is left running", why);
        });
        self.process.notify.stopping();
        self.stopping = Stopping::Alone;
    }

    /// The first time tells the wards to end, the second time kills them.
    fn stop(&mut self, why: &str, now: Instant) {
        let again = self.stopping != Stopping::No;
        if !again {
            self.log.info(&|out| {
                let _ = uwrite!(out, "{}, stopping", why);
            });
            self.process.notify.stopping();
        }
        self.stopping = Stopping::Gracefully;
        let rules = self.rules();
        for index in 0..self.wards.len() {
            let Some(ward) = self.wards.get_mut(index) else { continue };
            let answer = if again { ward.state.on_hurry(now) } else { ward.state.on_leave(now, &rules) };
            self.carry_out(index, answer, now);
        }
    }

    /// Starts, KILLs, and the looks.
    fn on_deadlines(&mut self, now: Instant) {
        for index in 0..self.wards.len() {
            let Some(ward) = self.wards.get_mut(index) else { continue };
            let answer = ward.state.on_deadline(now);
            self.carry_out(index, answer, now);
        }
        if !self.look_at.is_due(now) || !self.looks_at_health() {
            return;
        }
        let Config { check_interval, stale_after, .. } = *self.process.config;
        // After a suspend every heartbeat is old, and all have time for a new one.
        let slept = now.since(self.look_at).exceeds(stale_after);
        self.look_at = now + if slept { stale_after } else { check_interval };
        if slept {
            return;
        }
        let rules = self.rules();
        for index in 0..self.wards.len() {
            let Some(look) = self.look(index, now) else { continue };
            let Some(ward) = self.wards.get_mut(index) else { continue };
            let answer = ward.state.on_look(now, look, &rules);
            self.carry_out(index, answer, now);
        }
    }

    fn rules(&self) -> Rules {
        let config = &self.process.config;
        Rules {
            failures: config.failures,
            stop_timeout: config.stop_timeout,
            stale_after: config.stale_after,
        }
    }

    /// Does what was decided about a ward, and tells it.
    fn carry_out(&mut self, index: usize, (action, report): Answer, now: Instant) {
        if let Some(report) = report {
            self.tell(index, report, now);
            match report {
                Report::Adopted(pid) => self.adopt(index, pid),
                Report::Unwell(Trouble::Missing) => self.follow_health_file(now),
                Report::Died(Ended::NotStarted, _) => {}
                Report::Died(..) | Report::Replaced(..) => self.restarts = self.restarts.saturating_add(1),
                _ => {}
            }
        }
        match action {
            Action::None => {}
            Action::Start => self.start(index, now),
            Action::Terminate(pid) => self.signal(index, pid, Signal::TERM),
            Action::Kill(pid) => self.signal(index, pid, Signal::KILL),
        }
    }

    // ----- starts and ends --------------------------------------------------

    /// Starts a ward, unless somebody else did meanwhile, or stopped it.
    #[inline(never)]
    fn start(&mut self, index: usize, now: Instant) {
        let rules = self.rules();
        if let Some(look) = self.look_at_lock(index, now)
            && let Some(ward) = self.wards.get_mut(index)
        {
            let answer = ward.state.on_look(now, look, &rules);
            self.carry_out(index, answer, now);
        }
        let is_due = |ward: &&mut Supervised| matches!(ward.state.phase(), Phase::Waiting(_));
        let Some(ward) = self.wards.get_mut(index).filter(is_due) else { return };
        let answer = match ward.start(&self.origin, &self.process.settings.base) {
            Ok(Started { pid, is_ready }) => {
                ward.state.on_started(now, pid);
                ward.born_at = now;
                if is_ready { ward.state.on_ready() } else { (Action::None, None) }
            }
            Err(failure) => {
                let path = self.origin.file_of(ward.kind, &self.process.settings.base);
                self.say(index, Level::Error, &|out| {
                    out.push_str("cannot be started: ");
                    describe_at(&path, failure, out);
                });
                let Some(ward) = self.wards.get_mut(index) else { return };
                ward.state.on_not_started(now)
            }
        };
        self.carry_out(index, answer, now);
    }

    /// Takes the children that have ended: ours, and those that nobody else is
    /// left for.
    fn reap(&mut self, now: Instant) {
        for index in 0..self.wards.len() {
            let Some(ward) = self.wards.get(index).filter(|ward| ward.is_child) else { continue };
            let Some(pid) = ward.pid() else { continue };
            if let Some(exit) = process::ended(pid) {
                if ward.kind == Kind::Program {
                    // What is left of it, while its number cannot be anybody else's.
                    process::kill_group(pid, Signal::KILL);
                }
                process::reap(pid);
                self.on_child_ended(index, pid, exit, now);
            }
        }
        while let Some((pid, exit)) = process::reap_any() {
            let is_it = |ward: &Supervised| ward.is_child && ward.pid() == Some(pid);
            if let Some(index) = self.wards.iter().position(is_it) {
                if self.origin.is_program() {
                    process::kill_group(pid, Signal::KILL);
                }
                self.on_child_ended(index, pid, exit, now);
            }
        }
    }

    fn on_child_ended(&mut self, index: usize, pid: Pid, exit: Exit, now: Instant) {
        // What it said before comes first.
        self.read_reports(index);
        self.finish_output(index);
        let ended = match exit {
            Exit::Code(code) => Ended::Code(code),
            Exit::Signal(signal) => Ended::Signal(signal),
        };
        self.on_gone(index, pid, ended, now);
    }

    /// An adopted one has ended. It is asked again: a signal of the same turn may
    /// have put another one in its place.
    fn on_pidfd(&mut self, index: usize, now: Instant) {
        let has_ended = |ward: &&Supervised| {
            ward.pidfd.as_ref().is_some_and(|pidfd| poll::readable_within(pidfd, Duration::ZERO))
        };
        if let Some(pid) = self.wards.get(index).filter(has_ended).and_then(Supervised::pid) {
            self.on_gone(index, pid, Ended::Unknown, now);
        }
    }

    fn on_gone(&mut self, index: usize, pid: Pid, ended: Ended, now: Instant) {
        // (what cannot be asked says nothing but that it was this one's)
        let look = self.look_at_lock(index, now).unwrap_or(Look::Held(ward::number(pid), Ok(())));
        let Some(ward) = self.wards.get_mut(index) else { return };
        ward.forget_process();
        let answer = ward.state.on_gone(now, ward::number(pid), ended, look);
        self.carry_out(index, answer, now);
        // At once, if it is due at once.
        let Some(ward) = self.wards.get_mut(index) else { return };
        let answer = ward.state.on_deadline(now);
        self.carry_out(index, answer, now);
    }

    /// Takes over a process that somebody else started.
    fn adopt(&mut self, index: usize, pid: u32) {
        let path = self.pid_path(index);
        if let Some(ward) = self.wards.get_mut(index) {
            ward.adopt(pid, &path);
        }
    }

    fn signal(&mut self, index: usize, pid: u32, signal: Signal) {
        let path = self.pid_path(index);
        let Some(ward) = self.wards.get(index) else { return };
        let kind = ward.kind;
        if let Err(hidden) = ward.signal(pid, signal, &path) {
            self.log.error(&|out| {
                self.origin.push_name(kind, out);
                let _ = uwrite!(out, ": pid {} cannot be signalled: ", pid);
                hidden.describe(&path, out);
            });
        }
    }

    // ----- the end ----------------------------------------------------------

    /// The orderly end: nothing left behind.
    #[inline(never)]
    fn finish(&mut self) -> u8 {
        self.announce();
        self.watchdog.disarm(&mut self.log);
        self.heartbeat.remove();
        let left = self.wards.iter().filter(|ward| matches!(ward.state.phase(), Phase::Unkillable(_)));
        for ward in left {
            let kind = ward.kind;
            self.log.error(&|out| {
                self.origin.push_name(kind, out);
                out.push_str(": left behind, as it cannot be killed");
            });
        }
        let restarts = self.restarts;
        self.log.info(&|out| {
            let _ = uwrite!(out, "daemon stopped, after {} restarts", restarts);
        });
        self.log.flush();
        self.process.pid_file.release(self.process.pid_path.as_c_str());
        exit::OK
    }
}
