//! The service `supervisor`: keeps services, or one program, running.
//!
//! One turn of the loop, always in this order:
//!
//! 1. poll the signal pipe, and of each managed process its pidfd, its reports and its
//!    output, until the nearest deadline
//! 2. handle signals, 3. read reports and output, 4. handle ended processes
//! 5. perform what is due: starts, KILLs, probes
//! 6. kick the hardware watchdog
//! 7. write the log and the heartbeat
//!
//! `state/supervisor.rs` and `state/watchdog.rs` decide; the files here perform:
//!
//! - `launch.rs`: the command line
//! - `managed_process.rs`: starts and signals one service or program
//! - `perform.rs`: performs decisions, and reaps children
//! - `probe.rs`: probes locks and health files
//! - `watchdog.rs`: the device of the hardware watchdog
//! - `events.rs`: logs events, reports the status, reloads the configuration
//!
//! With a program (`run supervisor -- CMD`) the supervisor has no heartbeat, and the
//! program perhaps none, so that nothing wakes either process.

mod events;
mod launch;
mod managed_process;
mod perform;
mod probe;
mod watchdog;

pub use launch::LaunchSpec;

use crate::limits::{POLL_MAX, SUPERVISED_MAX};
use crate::proto::config::Config;
use crate::proto::service::Service;
use crate::service::config_source::{ServiceFile, path_of};
use crate::service::degraded::Degraded;
use crate::service::heartbeat::Heartbeat;
use crate::service::lifecycle::{Process, StartReporter, exit};
use crate::service::log::Log;
use crate::service::memory::Memory;
use crate::state::supervisor::Supervision;
use crate::state::supervisor::instance::Rules;
use crate::sys::once::Once;
use crate::sys::poll::PollSet;
use crate::sys::process::{self, Signal};
use crate::sys::{clock, memory};
use crate::util::time::{Instant, earliest};
use heapless::Vec;
use managed_process::ManagedProcess;
use ufmt::uwrite;
use watchdog::WatchdogDevice;

/// The source of a poll result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SupervisorSource {
    Signals,
    End(usize),
    Report(usize),
    Output(usize),
}

/// See the module's documentation.
struct Supervisor {
    process: Process,
    log: Log,
    heartbeat: Heartbeat,
    watchdog: WatchdogDevice,
    launch: LaunchSpec,
    supervision: Supervision,
    /// The processes of the instances, with the same indexes.
    managed: &'static mut Vec<ManagedProcess, SUPERVISED_MAX>,
    scratch: &'static mut [u8],
    started_at: Instant,
    reloads: u64,
    reload_errors: u64,
    degraded: Degraded,
    /// The stack grew in this turn, because something happened.
    stretched: bool,
}

static MANAGED: Once<Vec<ManagedProcess, SUPERVISED_MAX>, 2> = Once::new(Vec::new());

/// Runs the service until it is stopped, and returns the exit code. It is not inlined,
/// because its caller's frame would hold the state of every service.
#[inline(never)]
pub fn serve(parts: &'static mut Memory, reporter: StartReporter, launch: LaunchSpec) -> u8 {
    let mut supervisor = Supervisor::open(parts, reporter, launch);
    memory::release(supervisor.scratch);
    memory::release_startup();
    while !supervisor.supervision.is_over() {
        supervisor.turn();
    }
    supervisor.finish()
}

impl Supervisor {
    /// Opens the parts of the service. A failure ends the process.
    #[inline(never)]
    fn open(parts: &'static mut Memory, reporter: StartReporter, launch: LaunchSpec) -> Self {
        let Memory { scratch, config_source, config, candidate, log: log_buffer } = parts;
        let process = Process::prepare(Service::Supervisor, config_source, config, candidate, reporter);
        let now = clock::now();
        // The output of a program is written to the file in any case.
        process.config.log_file_named |= launch.is_program();
        let config = &*process.config;
        let own = |file: ServiceFile| path_of(Service::Supervisor, file, config).unwrap_or_default();
        let mut log = Log::open(&process, &own(ServiceFile::Log), None, log_buffer);
        let heartbeat = Heartbeat::new(own(ServiceFile::Health));
        let watchdog = WatchdogDevice::new(&config.watchdog);
        let supervision = Supervision::new(now, rules(config), launch.has_health_files());
        log.info(&|out| {
            let _ = uwrite!(out, "daemon started, pid={}", process::pid().as_raw_pid());
        });
        let mut supervisor = Self {
            process,
            log,
            heartbeat,
            watchdog,
            launch,
            supervision,
            managed: MANAGED.take(),
            scratch: scratch.pages(),
            started_at: now,
            reloads: 0,
            reload_errors: 0,
            degraded: Degraded::default(),
            stretched: false,
        };
        supervisor.update_managed(now);
        supervisor
    }

    // ----- one turn -------------------------------------------------------

    fn turn(&mut self) {
        let ready = self.wait();
        let now = clock::now();
        if ready.contains(&SupervisorSource::Signals) || self.process.signals.have_arrived() {
            self.on_signals(now);
        }
        for source in &ready {
            match *source {
                SupervisorSource::Signals => {}
                SupervisorSource::Report(index) => self.read_reports(index),
                SupervisorSource::Output(index) => self.read_output(index),
                SupervisorSource::End(index) => self.on_pidfd(index, now),
            }
        }
        self.perform_due(now);
        self.kick_watchdog(now);
        if self.supervision.is_ready(now) {
            self.announce();
        }
        self.log.flush();
        if !self.launch.is_program() {
            self.heartbeat.turn_finished(now);
        }
        self.degraded.watch(&self.heartbeat, &mut self.log);
        self.put_status();
        self.process.notify.turn_finished(now);
        if core::mem::take(&mut self.stretched) {
            // The stack and the environment of a child were there.
            memory::release_stack();
        }
    }

    /// Polls until something is ready or due.
    #[inline(never)]
    fn wait(&self) -> Vec<SupervisorSource, POLL_MAX> {
        let now = clock::now();
        let mut set = PollSet::new();
        set.read(self.process.signals.fd(), SupervisorSource::Signals);
        for (index, managed) in self.managed.iter().enumerate() {
            if let Some(pidfd) = &managed.pidfd {
                set.read(pidfd, SupervisorSource::End(index));
            }
            if let Some(reports) = &managed.reports {
                set.read(reports, SupervisorSource::Report(index));
            }
            if let Some(output) = &managed.output.pipe {
                set.read(output, SupervisorSource::Output(index));
            }
        }
        set.wait(self.next_deadline().map(|at| now.until(at)));
        set.ready().collect()
    }

    /// Returns when the next turn is due; `None` if only an event needs one.
    fn next_deadline(&self) -> Option<Instant> {
        let every = self.process.config.beat_every();
        let beat = if self.launch.is_program() { None } else { self.heartbeat.next_deadline(every) };
        let (watchdog, notify) = (self.watchdog.next_deadline(), self.process.notify.next_deadline());
        [self.supervision.next_deadline(), beat, watchdog, notify].into_iter().fold(None, earliest)
    }

    fn on_signals(&mut self, now: Instant) {
        let arrived = self.process.signals.take();
        if let Some((signal, why)) = arrived.stop() {
            // The output of a program is piped through the supervisor, so it cannot continue.
            self.stop(why, signal == Signal::QUIT && !self.launch.is_program());
        }
        // After the stops, so that a process that ended with them is not started again.
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

    /// Stops the supervisor, and unless `leave_running`, its managed processes.
    fn stop(&mut self, why: &str, leave_running: bool) {
        if self.supervision.on_stop(leave_running) {
            self.log.info(&|out| {
                let _ = uwrite!(out, "{}, stopping", why);
                out.push_str(if leave_running { "; what is supervised is left running" } else { "" });
            });
            self.process.notify.stopping();
        }
    }

    /// Kicks the hardware watchdog if that is due, unless an instance is unrecoverable.
    fn kick_watchdog(&mut self, now: Instant) {
        let Self { supervision, managed, launch, watchdog, log, .. } = self;
        let unrecoverable = supervision.unrecoverable(now).and_then(|index| managed.get(index));
        match unrecoverable.map(|managed| managed.kind) {
            Some(kind) => watchdog.poll(now, Some(&|out| launch.push_name(kind, out)), log),
            None => watchdog.poll(now, None, log),
        }
    }

    // ----- the end ----------------------------------------------------------

    /// Ends the service, and removes its files.
    #[inline(never)]
    fn finish(&mut self) -> u8 {
        self.announce();
        self.watchdog.disarm(&mut self.log);
        self.heartbeat.remove();
        for index in self.supervision.unkillable() {
            let Some(managed) = self.managed.get(index) else { continue };
            self.log.error(&|out| {
                self.launch.push_name(managed.kind, out);
                out.push_str(": left behind, as it cannot be killed");
            });
        }
        let restarts = self.supervision.restarts();
        self.log.info(&|out| {
            let _ = uwrite!(out, "daemon stopped, after {} restarts", restarts);
        });
        self.log.flush();
        self.process.pid_file.release(self.process.pid_path.as_c_str());
        exit::OK
    }
}

/// Returns the rules that the configuration sets.
fn rules(config: &Config) -> Rules {
    Rules {
        failures: config.failures,
        stop_timeout: config.stop_timeout,
        stale_after: config.stale_after,
        check_interval: config.check_interval,
        watchdog_patience: config.watchdog_patience,
    }
}
