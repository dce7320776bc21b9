//! Logs the events of the supervisor, reports its status, and reloads its configuration.

use super::launch::{LaunchSpec, ManagedKind};
use super::managed_process::ManagedProcess;
use super::program_requests::state_word;
use super::records::push_holder;
use super::{Supervisor, rules};
use crate::limits::PROGRAM_NAME_BYTES;
use crate::proto::log::Level;
use crate::proto::service::Service;
use crate::proto::status::{STATE_BYTES, StatusField};
use crate::service::base::{self, ServiceBase, ServiceStatus};
use crate::service::child_output::OutputSink;
use crate::service::config_source::ServiceFile;
use crate::service::lifecycle::{StartReport, next_report};
use crate::service::program_files::check_all;
use crate::state::degraded::{DegradedSet, DegradedState};
use crate::state::supervisor::decision::{Event, ExitReason, Report};
use crate::state::supervisor::instance::Instance;
use crate::state::supervisor::probe::ProbeError;
use crate::sys::{Errno, Failure, clock, file, memory, process};
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};
use ufmt::uwrite;

/// Bytes that a line has left for one managed process and the degraded states.
const WORD_ROOM: usize = PROGRAM_NAME_BYTES + 160;

impl Supervisor {
    // ----- the managed processes --------------------------------------------------------

    /// Logs a line about a managed process. Until the supervisor has reported ready, warnings
    /// are also reported to the process that started it.
    pub(super) fn log_about(&mut self, index: usize, level: Level, text: &dyn Fn(&mut Writer<'_>)) {
        self.log_line(index, level, level >= Level::Warn, text);
    }

    /// Logs a line about a managed process, and reports it to the process that waits for the start of
    /// the supervisor, if `is_reported` is true.
    pub(super) fn log_line(
        &mut self,
        index: usize,
        level: Level,
        is_reported: bool,
        text: &dyn Fn(&mut Writer<'_>),
    ) {
        let Some(kind) = self.managed.get(index).map(|managed| managed.kind) else { return };
        let line = |out: &mut Writer<'_>| {
            self.launch.push_name(kind, out);
            out.push_str(": ");
            text(out);
        };
        self.base.log.line(level, &line);
        self.stretched = true;
        if is_reported && self.supervision.is_starting() && !self.base.process.foreground {
            self.base.process.reporter.warn(&line);
        }
    }

    /// Logs an event of a managed process.
    #[inline(never)]
    pub(super) fn log_event(&mut self, index: usize, event: Event, now: Instant) {
        let Some(instance) = self.supervision.instances().get(index) else { return };
        let path = self.path_of(index, ServiceFile::Health);
        let (lived, pid) = (instance.lived(now), instance.pid().unwrap_or(0));
        let (failures, restarts) = (self.base.process.config.failures, self.supervision.restarts());
        let level = match event {
            Event::Adopted(_)
            | Event::Ready(_)
            | Event::Recovered
            | Event::Answered
            | Event::LeftEnded
            | Event::Stopped => Level::Info,
            Event::CheckFailed(_)
            | Event::HeartbeatLost(_)
            | Event::Answering(_)
            | Event::Foreign
            | Event::LeftFound(_)
            | Event::Died(..)
            | Event::Late(_)
            | Event::Replaced(..) => Level::Warn,
            Event::Ended(ExitReason::Code(0)) => Level::Info,
            Event::Ended(_) => Level::Warn,
            Event::Restarting(_) | Event::Killing | Event::Unkillable => Level::Error,
        };
        // The reason was reported with the attempt.
        let is_reported = level >= Level::Warn && !matches!(event, Event::Died(ExitReason::NotStarted, _));
        self.log_line(index, level, is_reported, &|out| {
            let _ = match event {
                Event::Adopted(pid) => uwrite!(out, "runs already (pid {}), adopted", pid),
                Event::Ready(pid) => uwrite!(out, "running (pid {})", pid),
                Event::LeftFound(group) => {
                    uwrite!(out, "an earlier supervisor has left processes: SIGTERM to group {}", group)
                }
                Event::LeftEnded => uwrite!(out, "the processes of the earlier supervisor have ended"),
                Event::CheckFailed(error) => {
                    let _ = uwrite!(out, "check 1 of {} failed: ", failures);
                    describe_probe_error(error, out);
                    Ok(())
                }
                Event::Restarting(error) => {
                    let _ = uwrite!(out, "check {} of {} failed: ", failures, failures);
                    describe_probe_error(error, out);
                    uwrite!(out, "; restarting it: SIGTERM to pid {}", pid)
                }
                Event::Recovered => uwrite!(out, "well again (pid {}), heartbeat fresh", pid),
                Event::Answered => uwrite!(out, "well again (pid {}), its socket answers", pid),
                Event::HeartbeatLost(error) => {
                    describe_probe_error(error, out);
                    out.push_str(": ");
                    out.push_escaped(path.as_bytes());
                    uwrite!(out, "; only its socket is checked")
                }
                Event::Answering(error) => {
                    describe_probe_error(error, out);
                    uwrite!(out, ", but its socket answers; it is left alone")
                }
                Event::Foreign => {
                    uwrite!(out, "runs already, in another PID namespace; only its lock is checked")
                }
                Event::Killing => uwrite!(out, "has not ended: SIGKILL to pid {}", pid),
                Event::Unkillable => uwrite!(out, "pid {} does not end, not even by SIGKILL", pid),
                Event::Died(reason, delay) | Event::Replaced(reason, delay) => {
                    let is_ours = matches!(event, Event::Replaced(..));
                    describe_exit(reason, is_ours, lived, out);
                    let _ = match reason {
                        ExitReason::NotStarted => uwrite!(out, "; next attempt "),
                        _ => uwrite!(out, "; restart {} ", restarts),
                    };
                    if delay.is_zero() {
                        uwrite!(out, "now")
                    } else {
                        uwrite!(out, "in {} s", delay.as_secs())
                    }
                }
                Event::Ended(reason) => {
                    describe_exit(reason, false, lived, out);
                    uwrite!(out, "; `restart` in its file does not start it again")
                }
                Event::Late(pid) => {
                    uwrite!(out, "not ready within its start_timeout (pid {}); it continues", pid)
                }
                Event::Stopped => uwrite!(out, "was stopped on purpose, and stays so until it is started"),
            };
        });
    }

    /// Reads the reports of a service that starts.
    #[inline(never)]
    pub(super) fn read_reports(&mut self, index: usize) {
        let Some(managed) = self.managed.get_mut(index) else { return };
        if matches!(managed.kind, ManagedKind::Listed(_)) {
            return self.read_readiness(index);
        }
        let Some(reports) = &managed.reports else { return };
        // Messages are whole: each is one write of less than PIPE_BUF, and the buffer is
        // larger than all reports of a service.
        let scratch = core::mem::take(&mut self.base.scratch);
        match file::read(reports, scratch) {
            Ok(count @ 1..) => self.take_reports(index, scratch.get(..count).unwrap_or(&[])),
            // poll(2) saw the pipe of the process before.
            Err(Failure { errno: Errno::AGAIN, .. }) => {}
            Ok(_) | Err(_) => managed.reports = None,
        }
        // A start is rare, so the memory is released until the next one.
        memory::release(scratch);
        self.base.scratch = scratch;
    }

    fn take_reports(&mut self, index: usize, mut rest: &[u8]) {
        while let Some((message, after)) = next_report(rest) {
            rest = after;
            match message {
                StartReport::Ready(_) => {
                    let Some(managed) = self.managed.get_mut(index) else { return };
                    managed.reports = None;
                    let now = clock::now();
                    let decision = self.supervision.on_report(index, now, Report::Ready);
                    self.perform(index, decision, now);
                }
                StartReport::Warning(text) => self.relay(index, Level::Warn, text),
                StartReport::Failure(_, text) => self.relay(index, Level::Error, text),
            }
        }
    }

    /// Logs a message of a service that starts.
    fn relay(&mut self, index: usize, level: Level, text: &[u8]) {
        let text = text.strip_prefix(b"zigsvc: ").unwrap_or(text);
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        self.log_about(index, level, &|out| out.push_escaped(text));
    }

    /// Reads the output of a managed process, up to one turn's share.
    pub(super) fn read_output(&mut self, index: usize) {
        self.take_output(index, false);
    }

    /// Reads the rest of the output of a managed process.
    pub(super) fn finish_output(&mut self, index: usize) {
        self.take_output(index, true);
    }

    fn take_output(&mut self, index: usize, all: bool) {
        let Some(managed) = self.managed.get_mut(index) else { return };
        let (kind, launch, log) = (managed.kind, &self.launch, &mut self.base.log);
        if matches!(kind, ManagedKind::Listed(_)) {
            return self.read_program_output(index, all);
        }
        let sink: OutputSink<'_> = &mut |line, continued, _| {
            log.info(&|out| {
                push_mark(launch, kind, continued, out);
                out.push_escaped(line);
            });
        };
        if all {
            managed.output.finish(self.base.scratch, sink);
        } else {
            managed.output.read(self.base.scratch, sink);
        }
    }

    // ----- itself -----------------------------------------------------------

    /// Reports ready to the process that started the supervisor, once.
    #[inline(never)]
    pub(super) fn announce(&mut self) {
        if self.supervision.on_announced() {
            self.base.heartbeat.beat(clock::now());
            base::report_ready(self);
        }
    }

    /// Reloads the configuration, for SIGHUP.
    pub(super) fn reload(&mut self, now: Instant) {
        if self.reload_config() {
            self.update_access(now);
            self.apply_config(now);
            self.base.finish_reload();
        }
    }

    /// Reads the configuration again. A supervisor of services refuses one with a program whose file
    /// cannot be used. Returns true if the new one is in force.
    fn reload_config(&mut self) -> bool {
        if self.launch.is_program() {
            return self.base.reload();
        }
        let Some(program) = self.base.program.take() else { return false };
        let source = self.base.process.config_source;
        let is_reloaded = self.base.reload_if(&mut |config, scratch, out| {
            check_all(source, config, program, scratch, out, &mut |_, _| {}).is_ok()
        });
        self.base.program = Some(program);
        is_reloaded
    }

    /// Reloads the configuration if it names another health file. A health file is missing,
    /// perhaps because all were moved and only the services were reloaded.
    pub(super) fn follow_health_file(&mut self, now: Instant) {
        if self.base.follow_health_file() {
            self.apply_config(now);
        }
    }

    /// Applies the part of a new configuration that only the supervisor has.
    fn apply_config(&mut self, now: Instant) {
        let config = &*self.base.process.config;
        self.watchdog.reload(config, &mut self.base.log);
        self.supervision.set_rules(now, rules(config));
        self.update_managed(now);
    }

    /// Adds the services and programs that are new in `supervise`. Removes the services that are not
    /// in it any more, without a change of their processes, and ends such programs.
    pub(super) fn update_managed(&mut self, now: Instant) {
        if self.launch.is_program() {
            return self.add(ManagedKind::Program, now);
        }
        let mut index = 0;
        while let Some(managed) = self.managed.get(index) {
            let is_listed = |name: &[u8]| managed.kind.is_named(name);
            let is_program = matches!(managed.kind, ManagedKind::Listed(_));
            if is_program || self.base.process.config.supervised().any(is_listed) {
                index = index.saturating_add(1);
            } else {
                self.log_about(index, Level::Info, &|out| {
                    out.push_str("no longer supervised, and left as it is")
                });
                self.managed.remove(index);
                self.supervision.remove(index);
            }
        }
        for service in Service::ALL {
            if self.base.process.config.supervised().any(|name| name == service.name().as_bytes()) {
                self.add(ManagedKind::Service(service), now);
            }
        }
        self.update_programs(now);
    }

    /// Shows the state in a file, for `status`.
    #[inline(never)]
    pub(super) fn show(&mut self, degraded: DegradedSet) {
        let mut line = [0; STATE_BYTES];
        let mut out = Writer::new(&mut line);
        push_holder(process::pid(), self.base.heartbeat.boot(), &mut out);
        let _ = uwrite!(out, "restarts={}", self.supervision.restarts());
        self.push_words(&mut out);
        out.push_str(" degraded=");
        degraded.push_names(&mut out);
        self.records.write_state(out.as_bytes(), degraded);
    }

    /// Adds a managed process, unless there is one of this kind or the supervisor stops.
    fn add(&mut self, kind: ManagedKind, now: Instant) {
        if !self.supervision.is_stopping()
            && !self.managed.iter().any(|managed| managed.kind == kind)
            && self.managed.push(ManagedProcess::new(kind)).is_ok()
        {
            self.supervision.add(now);
        }
    }
}

impl ServiceStatus for Supervisor {
    #[unsafe(link_section = ".text.idle")]
    fn base(&self) -> &ServiceBase {
        self.base
    }

    #[unsafe(link_section = ".text.idle")]
    fn base_mut(&mut self) -> &mut ServiceBase {
        self.base
    }

    fn value(&self, field: StatusField, _: Instant) -> Option<u64> {
        (field == StatusField::Restarts).then_some(self.supervision.restarts())
    }

    fn own_degraded(&self) -> DegradedSet {
        DegradedSet::NONE
            .with(DegradedState::Heartbeats, self.supervision.has_unjudged())
            .with(
                DegradedState::StuckProcess,
                self.supervision.instances().iter().any(Instance::is_unkillable),
            )
            .with(DegradedState::Watchdog, self.watchdog.failure().is_some())
            .with(DegradedState::Program, self.supervision.instances().iter().any(Instance::fails_to_run))
            .with(DegradedState::Log, self.managed.iter().any(ManagedProcess::has_failing_log))
    }

    /// Writes ` NAME=STATE:PID` for each managed process, as many as leave room for the degraded
    /// states.
    fn push_words(&self, out: &mut Writer<'_>) {
        for (managed, instance) in self.managed.iter().zip(self.supervision.instances()) {
            if out.room() < WORD_ROOM {
                return;
            }
            out.push_str(" ");
            self.launch.push_name(managed.kind, out);
            out.push_str("=");
            out.push_str(state_word(instance));
            let _ = uwrite!(out, ":{}", instance.pid().unwrap_or(0));
        }
    }

    fn push_summary(&self, out: &mut Writer<'_>) {
        let _ = uwrite!(out, "{} restarts", self.supervision.restarts());
        self.push_words(out);
        out.push_str(" degraded=");
        self.base.degraded().union(self.own_degraded()).push_names(out);
    }
}

/// Writes the prefix of each line that a managed process wrote. It differs from `NAME: `,
/// the prefix of the supervisor's own lines about the process.
fn push_mark(launch: &LaunchSpec, kind: ManagedKind, continued: bool, out: &mut Writer<'_>) {
    launch.push_name(kind, out);
    out.push_str(if continued { "+ " } else { "| " });
}

/// Writes the reason why a probe is bad.
fn describe_probe_error(error: ProbeError, out: &mut Writer<'_>) {
    let _ = match error {
        ProbeError::Stale(age) => uwrite!(out, "heartbeat stale, {} ms old", age.as_ms()),
        ProbeError::OtherBoot => uwrite!(out, "heartbeat of other boot"),
        ProbeError::OtherPid => uwrite!(out, "heartbeat of other PID"),
        ProbeError::Future => uwrite!(out, "heartbeat from the future"),
        ProbeError::Unreadable => uwrite!(out, "heartbeat unreadable"),
        ProbeError::Missing => uwrite!(out, "heartbeat missing"),
        ProbeError::NotReady => uwrite!(out, "started, and not ready"),
        ProbeError::Silent => uwrite!(out, "no heartbeat, and no answer of its socket"),
    };
}

/// Writes how a process ended.
fn describe_exit(reason: ExitReason, is_ours: bool, lived: Duration, out: &mut Writer<'_>) {
    let _ = match reason {
        ExitReason::Code(code) => uwrite!(out, "ended with exit status {} after {} ms", code, lived.as_ms()),
        ExitReason::Signal(signal) => uwrite!(out, "killed by signal {} after {} ms", signal, lived.as_ms()),
        // The process was adopted, so the length of its life is unknown, too.
        ExitReason::Unknown if is_ours => uwrite!(out, "ended"),
        ExitReason::Unknown => uwrite!(out, "died"),
        ExitReason::NotStarted => uwrite!(out, "not started"),
    };
    out.push_str(if is_ours { ", ordered by this supervisor" } else { "" });
}
