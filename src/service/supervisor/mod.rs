//! The service `supervisor`: keeps services, or one program, running.
//!
//! One turn of the loop, always in this order:
//!
//! 1. poll the signal pipe, the socket and its clients, and of each managed process its pidfd, its
//!    reports and its output, until the nearest deadline
//! 2. handle signals, 3. read reports and output, 4. handle ended processes
//! 5. perform the decisions that are due: starts, KILLs, probes
//! 6. serve the clients of the socket
//! 7. kick the hardware watchdog
//! 8. write the log and the heartbeat
//!
//! `state/supervisor.rs` and `state/watchdog.rs` decide; the files here perform:
//!
//! - `launch.rs`: the command line
//! - `listed.rs`: the programs that `supervise` names
//! - `program_state.rs`: the values of the file of a program, and its log
//! - `managed_process.rs`: starts and signals one service or program
//! - `perform.rs`: performs decisions, and reaps children
//! - `probe.rs`: probes locks and health files
//! - `records.rs`: the files that tell a later supervisor and `status` what runs
//! - `watchdog.rs`: the device of the hardware watchdog
//! - `program_requests.rs`: the socket, and its requests
//! - `events.rs`: logs events, reports the status, reloads the configuration
//!
//! With a program (`run supervisor -- CMD`) the supervisor has no heartbeat, and the
//! program perhaps none, so that nothing wakes either process.

mod events;
mod launch;
mod listed;
mod managed_process;
mod perform;
mod probe;
mod program_requests;
mod program_state;
mod records;
mod watchdog;

pub use launch::LaunchSpec;
pub use records::read_state;

use crate::limits::{POLL_MAX, SUPERVISED_MAX};
use crate::proto::config::{Config, WatchdogOnStop};
use crate::proto::service::Service;
use crate::service::base::{self, PollSource, Pulse, ServiceBase, ServiceStatus};
use crate::service::connections::{self, Connections};
use crate::service::denials::Denials;
use crate::service::lifecycle::StartReporter;
use crate::service::memory::Memory;
use crate::state::clients::Reading;
use crate::state::supervisor::Supervision;
use crate::state::supervisor::decision::Rules;
use crate::state::supervisor::instance::Instance;
use crate::sys::clock;
use crate::sys::once::once;
use crate::sys::process::{self, Signal};
use crate::sys::signal::Arrived;
use crate::util::time::{Instant, earliest};
use heapless::Vec;
use launch::ManagedKind;
use managed_process::ManagedProcess;
use program_state::FAILED_START_BYTES;
use records::Records;
use ufmt::uwrite;
use watchdog::WatchdogDevice;

/// See the module's documentation.
struct Supervisor {
    base: &'static mut ServiceBase,
    watchdog: WatchdogDevice,
    launch: LaunchSpec,
    records: Records,
    supervision: Supervision,
    /// The processes of the instances, with the same indexes.
    managed: &'static mut Vec<ManagedProcess, SUPERVISED_MAX>,
    /// The clients of the socket.
    connections: &'static mut Connections,
    denials: Denials,
    /// The program whose start failed last, and the reason.
    failed_start: (Option<ManagedKind>, Vec<u8, FAILED_START_BYTES>),
    /// The stack grew in this turn, because something happened.
    stretched: bool,
}

once! {
    static MANAGED: Vec<ManagedProcess, SUPERVISED_MAX> = Vec::new();
}

/// Runs the service until it is stopped, and returns the exit code. It is not inlined,
/// because its caller's frame would hold the state of every service.
#[inline(never)]
pub fn serve(parts: &'static mut Memory, reporter: StartReporter, launch: LaunchSpec) -> u8 {
    let mut supervisor = Supervisor::open(parts, reporter, launch);
    supervisor.run();
    supervisor.finish()
}

impl Supervisor {
    /// Runs turns until the service stops.
    #[inline(never)]
    #[unsafe(link_section = ".text.idle")]
    fn run(&mut self) {
        self.base.release_startup();
        while !self.supervision.is_over() {
            self.turn();
        }
    }

    /// Opens the parts of the service. A failure ends the process.
    #[inline(never)]
    fn open(parts: &'static mut Memory, reporter: StartReporter, launch: LaunchSpec) -> Self {
        if launch.is_program() {
            // The output of a program is written to the file in any case.
            parts.config.log_file_named = true;
            parts.config_source.log_file_named = true;
        }
        let base = ServiceBase::open(Service::Supervisor, parts, reporter);
        if !launch.is_program() {
            launch::refuse_bad_programs(base);
        }
        let now = clock::now();
        let config = &*base.process.config;
        let watchdog = WatchdogDevice::new(config);
        let supervision = Supervision::new(now, rules(config), launch.has_health_files());
        if launch.is_program() {
            base.heartbeat.disable();
        }
        base.log_started();
        let managed = MANAGED.take();
        // Processes whose parent ends become children of the supervisor, which reaps them.
        let _ = process::adopt_orphans();
        if !launch.is_program() {
            base.open_own_socket();
        }
        let records = Records::new(&base.process.pid_path, *base.heartbeat.boot());
        let mut supervisor = Self {
            base,
            watchdog,
            launch,
            records,
            supervision,
            managed,
            connections: connections::take(),
            denials: Denials::default(),
            failed_start: (None, Vec::new()),
            stretched: false,
        };
        supervisor.update_managed(now);
        supervisor.end_leftovers(now);
        supervisor
    }

    // ----- one turn -------------------------------------------------------

    fn turn(&mut self) {
        let ready = self.wait();
        let now = clock::now();
        if self.base.heartbeat.failure().is_some() {
            self.supervision.on_unwritten(now);
        }
        if let Some(arrived) = self.base.take_signals(&ready) {
            self.on_signals(arrived, now);
        }
        for source in &ready {
            match *source {
                PollSource::Report(index) => self.read_reports(index.into()),
                PollSource::Output(index) => self.read_output(index.into()),
                PollSource::End(index) => self.on_pidfd(index.into(), now),
                PollSource::Answer(index) => self.on_answer(index.into(), now),
                _ => {}
            }
        }
        self.perform_due(now);
        self.serve_clients(&ready, now);
        self.remove_left();
        self.kick_watchdog(now);
        if self.supervision.is_ready(now) {
            self.announce();
        }
        let busy = core::mem::take(&mut self.stretched);
        let degraded = self.base.degraded().union(self.own_degraded());
        if self.records.is_outdated(busy, degraded) {
            self.show(degraded);
        }
        base::end_turn(self, now, busy, Pulse::Own);
    }

    /// Polls until something is ready or due.
    #[inline(never)]
    #[unsafe(link_section = ".text.idle")]
    fn wait(&self) -> Vec<PollSource, POLL_MAX> {
        let mut due = earliest(self.supervision.next_deadline(), self.watchdog.next_deadline());
        let mut clients: Option<(&Connections, &dyn Fn(usize) -> Reading)> = None;
        if !self.launch.is_program() {
            due = earliest(due, self.client_deadline());
            clients = Some((self.connections, &|_| Reading::Requests));
        }
        let mut own = (0..).zip(self.managed.iter()).flat_map(|(index, managed)| {
            let pidfd = managed.pidfd.iter().map(move |fd| (fd, PollSource::End(index)));
            let reports = managed.reports.iter().map(move |fd| (fd, PollSource::Report(index)));
            let output = managed.output.pipe.iter().map(move |fd| (fd, PollSource::Output(index)));
            let asking = managed.asking.iter().map(move |fd| (fd, PollSource::Answer(index)));
            pidfd.chain(reports).chain(output).chain(asking)
        });
        self.base.wait(clock::now(), clients, due, &mut own)
    }

    fn on_signals(&mut self, arrived: Arrived, now: Instant) {
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
            self.rotate_program_logs();
        }
        base::on_user_signals(self, arrived, now);
    }

    /// Stops the supervisor, and unless `leave_running`, its managed processes.
    fn stop(&mut self, why: &str, leave_running: bool) {
        if self.supervision.on_stop(leave_running) {
            let detail = if leave_running { "; what is supervised is left running" } else { "" };
            self.base.begin_stop(why, detail);
        }
    }

    /// Kicks the hardware watchdog if that is due, unless an instance is unrecoverable.
    fn kick_watchdog(&mut self, now: Instant) {
        let Self { supervision, managed, launch, watchdog, base, .. } = self;
        let log = &mut base.log;
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
        self.close_clients();
        let keep = self.base.process.config.watchdog_on_stop == WatchdogOnStop::Keep;
        self.watchdog.stop(keep, &mut self.base.log);
        let instances = self.managed.iter().zip(self.supervision.instances());
        for (managed, _) in instances.filter(|(_, instance)| instance.is_unkillable()) {
            self.base.log.error(&|out| {
                self.launch.push_name(managed.kind, out);
                out.push_str(": left behind, as it cannot be killed");
            });
        }
        let unkillable = self.supervision.instances().iter().any(Instance::is_unkillable);
        self.records.remove(unkillable);
        let restarts = self.supervision.restarts();
        self.base.finish(&|out| {
            let _ = uwrite!(out, "after {} restarts", restarts);
        })
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
