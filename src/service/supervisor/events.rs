//! What the supervisor says: of its managed processes, of itself, to whoever started it; and
//! a new configuration.

use super::managed_process::{ManagedKind, ManagedProcess};
use super::{LaunchSpec, Stopping, Supervisor};
use crate::proto::log::Level;
use crate::proto::status::StatusField;
use crate::service::base::{self, ServiceBase, ServiceStatus};
use crate::service::lifecycle::{StartReport, next_report};
use crate::state::degraded::{DegradedSet, DegradedState};
use crate::state::supervisor::{Event, ExitReason, Phase, ProbeError};
use crate::sys::{Errno, Failure, clock, file, memory};
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};
use ufmt::uwrite;

impl Supervisor {
    // ----- the managed processes --------------------------------------------------------

    /// One line about a managed process. Until whoever started us is gone, warnings are for
    /// them too.
    pub(super) fn log_about(&mut self, index: usize, level: Level, text: &dyn Fn(&mut Writer<'_>)) {
        let Some(kind) = self.managed.get(index).map(|managed| managed.kind) else { return };
        let line = |out: &mut Writer<'_>| {
            self.launch.push_name(kind, out);
            out.push_str(": ");
            text(out);
        };
        self.base.log.line(level, &line);
        self.stretched = true;
        if level >= Level::Warn && self.ready_deadline.is_some() && !self.base.process.foreground {
            self.base.process.reporter.warn(&line);
        }
    }

    /// Tells what happened to a managed process.
    #[inline(never)]
    pub(super) fn log_event(&mut self, index: usize, event: Event, now: Instant) {
        let rules = self.rules();
        let Some(managed) = self.managed.get_mut(index) else { return };
        let lived = now.since(managed.started_at);
        let pid = managed.state.pid().unwrap_or(0);
        if matches!(event, Event::Adopted(_) | Event::Stopped) {
            // (of a next life that ends between two looks nothing else is known)
            managed.started_at = now;
        }
        managed.settled |=
            matches!(event, Event::Adopted(_) | Event::Ready(_) | Event::Died(..) | Event::Replaced(..));
        let restarts = self.restarts.saturating_add(1);
        let level = match event {
            Event::Adopted(_) | Event::Ready(_) | Event::Recovered | Event::Stopped => Level::Info,
            Event::CheckFailed(_) | Event::Died(..) | Event::Replaced(..) => Level::Warn,
            Event::Restarting(_) | Event::Killing | Event::Unkillable => Level::Error,
        };
        self.log_about(index, level, &|out| {
            let _ = match event {
                Event::Adopted(pid) => uwrite!(out, "runs already (pid {}), adopted", pid),
                Event::Ready(pid) => uwrite!(out, "running (pid {})", pid),
                Event::CheckFailed(error) => {
                    let _ = uwrite!(out, "check 1 of {} failed: ", rules.failures);
                    describe_probe_error(error, out);
                    Ok(())
                }
                Event::Restarting(error) => {
                    let _ = uwrite!(out, "check {} of {} failed: ", rules.failures, rules.failures);
                    describe_probe_error(error, out);
                    uwrite!(out, "; restarting it: SIGTERM to pid {}", pid)
                }
                Event::Recovered => uwrite!(out, "well again (pid {}), heartbeat fresh", pid),
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
                Event::Stopped => uwrite!(out, "was stopped on purpose, and stays so until it is started"),
            };
        });
    }

    /// Takes what a service that starts reports.
    #[inline(never)]
    pub(super) fn read_reports(&mut self, index: usize) {
        let Some(managed) = self.managed.get_mut(index) else { return };
        let Some(reports) = &managed.reports else { return };
        // Messages are whole: each is one write of less than PIPE_BUF, and there is
        // room for more than a service has to say.
        let scratch = core::mem::take(&mut self.base.scratch);
        match file::read(reports, scratch) {
            Ok(count @ 1..) => self.take_reports(index, scratch.get(..count).unwrap_or(&[])),
            // What poll(2) saw was that of the process before: this one is new.
            Err(Failure { errno: Errno::AGAIN, .. }) => {}
            Ok(_) | Err(_) => managed.reports = None,
        }
        // (a start is rare: the memory goes back until the next)
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
                    let decision = managed.state.on_ready();
                    self.carry_out(index, decision, clock::now());
                }
                StartReport::Warning(text) => self.relay(index, Level::Warn, text),
                StartReport::Failure(_, text) => self.relay(index, Level::Error, text),
            }
        }
    }

    /// Says what a service said.
    fn relay(&mut self, index: usize, level: Level, text: &[u8]) {
        let text = text.strip_prefix(b"zigsvc: ").unwrap_or(text);
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        self.log_about(index, level, &|out| out.push_escaped(text));
    }

    /// Takes what a managed process wrote, up to one turn's share.
    pub(super) fn read_output(&mut self, index: usize) {
        let Some(managed) = self.managed.get_mut(index) else { return };
        let (kind, launch) = (managed.kind, &self.launch);
        managed.output.read(&mut self.base.log, self.base.scratch, &|out| push_mark(launch, kind, out));
    }

    /// Takes the rest of what a managed process wrote.
    pub(super) fn finish_output(&mut self, index: usize) {
        let Some(managed) = self.managed.get_mut(index) else { return };
        let (kind, launch) = (managed.kind, &self.launch);
        managed.output.finish(&mut self.base.log, self.base.scratch, &|out| push_mark(launch, kind, out));
    }

    // ----- itself -----------------------------------------------------------

    /// Ready is when each managed process runs or has failed once, so that a command which
    /// follows finds what it expects; a start that hangs is not waited for longer
    /// than a sign of life may be late.
    pub(super) fn announce_when_ready(&mut self, now: Instant) {
        let is_settled =
            |managed: &ManagedProcess| managed.settled || managed.state.phase() == Phase::Stopped;
        if self.ready_deadline.is_some_and(|by| by.is_due(now) || self.managed.iter().all(is_settled)) {
            self.announce();
        }
    }

    #[inline(never)]
    pub(super) fn announce(&mut self) {
        if self.ready_deadline.take().is_none() {
            return;
        }
        self.base.heartbeat.beat(clock::now());
        base::report_ready(self);
    }

    /// SIGHUP: the configuration anew, whole or not at all.
    pub(super) fn reload(&mut self, now: Instant) {
        if self.base.reload() {
            self.apply_config(now);
            self.base.finish_reload();
        }
    }

    /// A health file is missing: somebody may have moved them all, and told the
    /// services, but not us.
    pub(super) fn follow_health_file(&mut self, now: Instant) {
        if self.base.follow_health_file() {
            self.apply_config(now);
        }
    }

    /// Applies the part of a new configuration that only the supervisor has.
    fn apply_config(&mut self, now: Instant) {
        let config = &*self.base.process.config;
        self.watchdog.move_to(&config.watchdog, &mut self.base.log);
        // A shorter interval holds at once, not when the longer one is over.
        self.probe_at = self.probe_at.or_earlier(now + config.check_interval);
        self.update_managed(now);
    }

    /// Services that are new in `supervise` are started or adopted, those that are
    /// not in it any more are left as they are.
    fn update_managed(&mut self, now: Instant) {
        if self.launch.is_program() {
            return;
        }
        let mut index = 0;
        while let Some(managed) = self.managed.get(index) {
            let ManagedKind::Service(service) = managed.kind else { return };
            if self.base.process.config.supervise.contains(&service) {
                index = index.saturating_add(1);
            } else {
                self.log_about(index, Level::Info, &|out| {
                    out.push_str("no longer supervised, and left as it is")
                });
                self.managed.swap_remove(index);
            }
        }
        for service in &self.base.process.config.supervise {
            let kind = ManagedKind::Service(*service);
            if self.stopping == Stopping::No && !self.managed.iter().any(|managed| managed.kind == kind) {
                let _ = self.managed.push(ManagedProcess::new(kind, now));
            }
        }
    }
}

impl ServiceStatus for Supervisor {
    fn base(&self) -> &ServiceBase {
        &self.base
    }

    fn base_mut(&mut self) -> &mut ServiceBase {
        &mut self.base
    }

    fn value(&self, field: StatusField, _: Instant) -> Option<u64> {
        (field == StatusField::Restarts).then_some(self.restarts)
    }

    fn own_degraded(&self) -> DegradedSet {
        DegradedSet::NONE.with(DegradedState::Watchdog, self.watchdog.failure().is_some())
    }

    /// Writes ` NAME=STATE:PID` for each managed process.
    fn push_words(&self, out: &mut Writer<'_>) {
        for managed in self.managed.iter() {
            out.push_str(" ");
            self.launch.push_name(managed.kind, out);
            out.push_str("=");
            out.push_str(match managed.state.phase() {
                Phase::Backoff(_) => "waiting",
                Phase::Starting(..) => "starting",
                Phase::Running(..) => "running",
                Phase::Stopping(..) => "ending",
                Phase::Killing(..) | Phase::Unkillable(_) => "killed",
                Phase::Stopped => "stopped",
            });
            let _ = uwrite!(out, ":{}", managed.state.pid().unwrap_or(0));
        }
    }

    fn push_summary(&self, out: &mut Writer<'_>) {
        let _ = uwrite!(out, "{} restarts", self.restarts);
        self.push_words(out);
        out.push_str(" degraded=");
        self.base.degraded().union(self.own_degraded()).push_names(out);
    }
}

/// In front of each line that a managed process wrote: unlike `NAME: `, with which our own
/// lines about it begin.
fn push_mark(launch: &LaunchSpec, kind: ManagedKind, out: &mut Writer<'_>) {
    launch.push_name(kind, out);
    out.push_str("| ");
}

/// Names what is wrong with a heartbeat.
fn describe_probe_error(error: ProbeError, out: &mut Writer<'_>) {
    let _ = match error {
        ProbeError::Stale(age) => uwrite!(out, "heartbeat stale, {} ms old", age.as_ms()),
        ProbeError::OtherBoot => uwrite!(out, "heartbeat of other boot"),
        ProbeError::OtherPid => uwrite!(out, "heartbeat of other PID"),
        ProbeError::Future => uwrite!(out, "heartbeat from the future"),
        ProbeError::Unreadable => uwrite!(out, "heartbeat unreadable"),
        ProbeError::Missing => uwrite!(out, "heartbeat missing"),
        ProbeError::NotReady => uwrite!(out, "started, and not ready"),
    };
}

fn describe_exit(reason: ExitReason, is_ours: bool, lived: Duration, out: &mut Writer<'_>) {
    let _ = match reason {
        ExitReason::Code(code) => uwrite!(out, "ended with exit status {} after {} ms", code, lived.as_ms()),
        ExitReason::Signal(signal) => uwrite!(out, "killed by signal {} after {} ms", signal, lived.as_ms()),
        // (it was adopted, so how long it lived is not known either)
        ExitReason::Unknown if is_ours => uwrite!(out, "ended"),
        ExitReason::Unknown => uwrite!(out, "died"),
        ExitReason::NotStarted => uwrite!(out, "not started"),
    };
    out.push_str(if is_ours { ", ordered by this supervisor" } else { "" });
}
