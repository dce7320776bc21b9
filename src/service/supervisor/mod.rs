//! The service `supervisor`: keeps services, or one program, running.
//!
//! One turn of the loop, always in this order:
//!
//! 1. poll the signal pipe, and of each managed process its pidfd, its reports and its
//!    output, until the nearest deadline
//! 2. signals, 3. reports and output, 4. ends
//! 5. deadlines: starts, KILLs, and the looks at health files
//! 6. the hardware watchdog
//! 7. write the log, the heartbeat
//!
//! What is decided is in `state/supervisor.rs`; here it is carried out.
//!
//! - `managed_process.rs`: one service or program: starting it, signalling it
//! - `probe.rs`: whether it is there, and well
//! - `watchdog.rs`: the hardware watchdog
//! - `events.rs`: what is said, and a new configuration
//!
//! A supervised program (`run supervisor -- CMD`) has no heartbeat, and the
//! supervisor none of its own, so nothing wakes either.

mod events;
mod managed_process;
mod probe;
mod watchdog;

use crate::limits::{POLL_MAX, SUPERVISED_MAX};
use crate::proto::config::Config;
use crate::proto::log::Level;
use crate::proto::service::Service;
use crate::service::base::{self, PollSource, Pulse, ServiceBase};
use crate::service::lifecycle::{StartReporter, describe_at};
use crate::service::memory::Memory;
use crate::state::supervisor::{Action, Decision, Event, ExitReason, Phase, Probe, ProbeError, Rules};
use crate::sys::args::Args;
use crate::sys::once::Once;
use crate::sys::process::{self, Exit, Pid, Signal};
use crate::sys::signal::Arrived;
use crate::sys::{clock, poll};
use crate::util::path::Path;
use crate::util::time::{Duration, Instant, earliest};
use core::ffi::c_char;
use heapless::Vec;
use managed_process::{ManagedKind, ManagedProcess, Started};
use ufmt::uwrite;
use watchdog::Watchdog;

/// How the supervisor was called: what it needs to start what it supervises.
pub struct LaunchSpec {
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

/// Whether the service is on its way out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    /// Its managed processes were told to end.
    Gracefully,
    /// Its managed processes stay as they are.
    LeaveRunning,
}

/// See the module's documentation.
struct Supervisor {
    base: ServiceBase,
    watchdog: Watchdog,
    launch: LaunchSpec,
    managed: &'static mut Vec<ManagedProcess, SUPERVISED_MAX>,
    /// When the managed processes are looked at next.
    probe_at: Instant,
    /// Whoever started us is told that we are ready at this time at the latest;
    /// `None`: was told.
    ready_deadline: Option<Instant>,
    restarts: u64,
    stopping: Stopping,
    /// Something happened in this turn, for which the stack grew.
    stretched: bool,
}

static MANAGED: Once<Vec<ManagedProcess, SUPERVISED_MAX>, 2> = Once::new(Vec::new());

/// Runs the service until it is stopped; returns the exit code. (Not inlined: its
/// caller's frame would hold what every service needs.)
#[inline(never)]
pub fn serve(parts: &'static mut Memory, reporter: StartReporter, launch: LaunchSpec) -> u8 {
    let mut supervisor = Supervisor::open(parts, reporter, launch);
    supervisor.base.release_startup();
    while !supervisor.is_over() {
        supervisor.turn();
    }
    supervisor.finish()
}

impl Supervisor {
    /// Opens what the service needs; failures end the process.
    #[inline(never)]
    fn open(parts: &'static mut Memory, reporter: StartReporter, launch: LaunchSpec) -> Self {
        if launch.is_program() {
            // The output of a program goes to the file in any case.
            parts.config.log_file_named = true;
            parts.config_source.log_file_named = true;
        }
        let mut base = ServiceBase::open(Service::Supervisor, parts, reporter);
        let now = clock::now();
        let config = &*base.process.config;
        let watchdog = Watchdog::new(&config.watchdog);
        let patience = config.stale_after;
        let managed = MANAGED.take();
        if launch.is_program() {
            base.heartbeat.disable();
            let _ = managed.push(ManagedProcess::new(ManagedKind::Program, now));
        } else {
            for service in &config.supervise {
                let _ = managed.push(ManagedProcess::new(ManagedKind::Service(*service), now));
            }
        }
        base.log_started();
        Self {
            base,
            watchdog,
            launch,
            managed,
            probe_at: now,
            ready_deadline: Some(now + patience),
            restarts: 0,
            stopping: Stopping::No,
            stretched: false,
        }
    }

    fn is_over(&self) -> bool {
        match self.stopping {
            Stopping::No => false,
            Stopping::Gracefully => self.managed.iter().all(|managed| managed.state.is_over()),
            Stopping::LeaveRunning => true,
        }
    }

    // ----- one turn -------------------------------------------------------

    fn turn(&mut self) {
        let ready = self.wait();
        let now = clock::now();
        if let Some(arrived) = self.base.take_signals(&ready) {
            self.on_signals(arrived, now);
        }
        for source in &ready {
            match *source {
                PollSource::Report(index) => self.read_reports(index),
                PollSource::Output(index) => self.read_output(index),
                PollSource::End(index) => self.on_pidfd(index, now),
                _ => {}
            }
        }
        self.on_deadlines(now);
        self.kick_watchdog(now);
        self.announce_when_ready(now);
        let busy = core::mem::take(&mut self.stretched);
        base::end_turn(self, now, busy, Pulse::Own);
    }

    /// Polls until something is ready or due.
    #[inline(never)]
    fn wait(&self) -> Vec<PollSource, POLL_MAX> {
        self.base.wait(clock::now(), None, self.next_deadline(), &mut |set| {
            for (index, managed) in self.managed.iter().enumerate() {
                if let Some(pidfd) = &managed.pidfd {
                    set.read(pidfd, PollSource::End(index));
                }
                if let Some(reports) = &managed.reports {
                    set.read(reports, PollSource::Report(index));
                }
                if let Some(output) = &managed.output.pipe {
                    set.read(output, PollSource::Output(index));
                }
            }
        })
    }

    /// The nearest moment at which there is something to do; `None`: only when
    /// something happens.
    fn next_deadline(&self) -> Option<Instant> {
        let managed = self.managed.iter().map(|managed| managed.state.next_deadline());
        let probes = self.probes_health().then_some(self.probe_at);
        managed.chain([probes, self.watchdog.next_deadline(), self.ready_deadline]).fold(None, earliest)
    }

    fn on_signals(&mut self, arrived: Arrived, now: Instant) {
        match arrived.stop() {
            // (a program's output goes through us: it cannot stay alone)
            Some((signal, why)) if signal != Signal::QUIT || self.launch.is_program() => self.stop(why, now),
            Some((_, why)) if self.stopping == Stopping::No => self.stop_alone(why),
            Some(_) | None => {}
        }
        // (after the stops: what ended with us is not started again)
        if arrived.has(Signal::CHILD) {
            self.reap(now);
        }
        if arrived.has(Signal::HUP) {
            self.reload(now);
        }
        base::on_user_signals(self, arrived, now);
    }

    /// Stops without those that are supervised.
    fn stop_alone(&mut self, why: &str) {
        self.base.begin_stop(why, "; what is supervised is left running");
        self.stopping = Stopping::LeaveRunning;
    }

    /// The first time tells the managed processes to end, the second time kills them.
    fn stop(&mut self, why: &str, now: Instant) {
        let again = !self.base.begin_stop(why, "");
        self.stopping = Stopping::Gracefully;
        let rules = self.rules();
        for index in 0..self.managed.len() {
            let Some(managed) = self.managed.get_mut(index) else { continue };
            let decision = if again {
                managed.state.on_second_stop(now)
            } else {
                managed.state.on_shutdown(now, &rules)
            };
            self.carry_out(index, decision, now);
        }
    }

    /// Starts, KILLs, and the looks.
    fn on_deadlines(&mut self, now: Instant) {
        for index in 0..self.managed.len() {
            let Some(managed) = self.managed.get_mut(index) else { continue };
            let decision = managed.state.on_deadline(now);
            self.carry_out(index, decision, now);
        }
        if !self.probe_at.is_due(now) || !self.probes_health() {
            return;
        }
        let Config { check_interval, stale_after, .. } = *self.base.process.config;
        // After a suspend every heartbeat is old, and all have time for a new one.
        let slept = now.since(self.probe_at).exceeds(stale_after);
        self.probe_at = now + if slept { stale_after } else { check_interval };
        if slept {
            return;
        }
        let rules = self.rules();
        for index in 0..self.managed.len() {
            let Some(probe) = self.probe(index, now) else { continue };
            let Some(managed) = self.managed.get_mut(index) else { continue };
            let decision = managed.state.on_probe(now, probe, &rules);
            self.carry_out(index, decision, now);
        }
    }

    fn rules(&self) -> Rules {
        let config = &self.base.process.config;
        Rules {
            failures: config.failures,
            stop_timeout: config.stop_timeout,
            stale_after: config.stale_after,
        }
    }

    /// Does what was decided about a managed process, and tells it.
    fn carry_out(&mut self, index: usize, (action, event): Decision, now: Instant) {
        if let Some(event) = event {
            self.log_event(index, event, now);
            match event {
                Event::Adopted(pid) => self.adopt(index, pid),
                Event::CheckFailed(ProbeError::Missing) => self.follow_health_file(now),
                Event::Died(ExitReason::NotStarted, _) => {}
                Event::Died(..) | Event::Replaced(..) => self.restarts = self.restarts.saturating_add(1),
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

    /// Starts a managed process, unless somebody else did meanwhile, or stopped it.
    #[inline(never)]
    fn start(&mut self, index: usize, now: Instant) {
        let rules = self.rules();
        if let Some(probe) = self.probe_lock(index, now)
            && let Some(managed) = self.managed.get_mut(index)
        {
            let decision = managed.state.on_probe(now, probe, &rules);
            self.carry_out(index, decision, now);
        }
        let is_due = |managed: &&mut ManagedProcess| matches!(managed.state.phase(), Phase::Backoff(_));
        let Some(managed) = self.managed.get_mut(index).filter(is_due) else { return };
        let decision = match managed.start(&self.launch, &self.base.process.config_source.base) {
            Ok(Started { pid, is_ready }) => {
                managed.state.on_started(now, pid);
                managed.started_at = now;
                if is_ready { managed.state.on_ready() } else { (Action::None, None) }
            }
            Err(failure) => {
                let path = self.launch.file_of(managed.kind, &self.base.process.config_source.base);
                self.log_about(index, Level::Error, &|out| {
                    out.push_str("cannot be started: ");
                    describe_at(&path, failure, out);
                });
                let Some(managed) = self.managed.get_mut(index) else { return };
                managed.state.on_not_started(now)
            }
        };
        self.carry_out(index, decision, now);
    }

    /// Takes the children that have ended: ours, and those that nobody else is
    /// left for.
    fn reap(&mut self, now: Instant) {
        for index in 0..self.managed.len() {
            let Some(managed) = self.managed.get(index).filter(|managed| managed.is_child) else { continue };
            let Some(pid) = managed.pid() else { continue };
            if let Some(exit) = process::ended(pid) {
                if managed.kind == ManagedKind::Program {
                    // What is left of it, while its number cannot be anybody else's.
                    process::kill_group(pid, Signal::KILL);
                }
                process::reap(pid);
                self.on_child_ended(index, pid, exit, now);
            }
        }
        while let Some((pid, exit)) = process::reap_any() {
            let is_it = |managed: &ManagedProcess| managed.is_child && managed.pid() == Some(pid);
            if let Some(index) = self.managed.iter().position(is_it) {
                if self.launch.is_program() {
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
        let reason = match exit {
            Exit::Code(code) => ExitReason::Code(code),
            Exit::Signal(signal) => ExitReason::Signal(signal),
        };
        self.on_gone(index, pid, reason, now);
    }

    /// An adopted one has ended. It is asked again: a signal of the same turn may
    /// have put another one in its place.
    fn on_pidfd(&mut self, index: usize, now: Instant) {
        let has_ended = |managed: &&ManagedProcess| {
            managed.pidfd.as_ref().is_some_and(|pidfd| poll::readable_within(pidfd, Duration::ZERO))
        };
        if let Some(pid) = self.managed.get(index).filter(has_ended).and_then(ManagedProcess::pid) {
            self.on_gone(index, pid, ExitReason::Unknown, now);
        }
    }

    fn on_gone(&mut self, index: usize, pid: Pid, reason: ExitReason, now: Instant) {
        // (what cannot be asked says nothing but that it was this one's)
        let probe = self.probe_lock(index, now).unwrap_or(Probe::Held(managed_process::raw_pid(pid), Ok(())));
        let Some(managed) = self.managed.get_mut(index) else { return };
        managed.forget_process();
        let decision = managed.state.on_gone(now, managed_process::raw_pid(pid), reason, probe);
        self.carry_out(index, decision, now);
        // At once, if it is due at once.
        let Some(managed) = self.managed.get_mut(index) else { return };
        let decision = managed.state.on_deadline(now);
        self.carry_out(index, decision, now);
    }

    /// Takes over a process that somebody else started.
    fn adopt(&mut self, index: usize, pid: u32) {
        let path = self.pid_path(index);
        if let Some(managed) = self.managed.get_mut(index) {
            managed.adopt(pid, &path);
        }
    }

    fn signal(&mut self, index: usize, pid: u32, signal: Signal) {
        let path = self.pid_path(index);
        let Some(managed) = self.managed.get(index) else { return };
        let kind = managed.kind;
        if let Err(error) = managed.signal(pid, signal, &path) {
            self.base.log.error(&|out| {
                self.launch.push_name(kind, out);
                let _ = uwrite!(out, ": pid {} cannot be signalled: ", pid);
                error.describe(&path, out);
            });
        }
    }

    // ----- the end ----------------------------------------------------------

    /// The orderly end: nothing left behind.
    #[inline(never)]
    fn finish(&mut self) -> u8 {
        self.announce();
        self.watchdog.disarm(&mut self.base.log);
        let left =
            self.managed.iter().filter(|managed| matches!(managed.state.phase(), Phase::Unkillable(_)));
        for managed in left {
            let kind = managed.kind;
            self.base.log.error(&|out| {
                self.launch.push_name(kind, out);
                out.push_str(": left behind, as it cannot be killed");
            });
        }
        let restarts = self.restarts;
        self.base.finish(&|out| {
            let _ = uwrite!(out, "after {} restarts", restarts);
        })
    }
}
