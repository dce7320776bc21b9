//! What the supervisor says: of its wards, of itself, to whoever started it; and
//! a new configuration.

use super::ward::{Kind, Supervised};
use super::{Origin, Stopping, Supervisor};
use crate::limits::NOTIFY_STATUS_BYTES;
use crate::proto::log::Level;
use crate::proto::names::Service;
use crate::proto::text::Writer;
use crate::service::degraded::push_names;
use crate::service::lifecycle::{Audience, Message, Process, next_message};
use crate::service::reload::{self, REASON_BYTES};
use crate::service::settings::{File, Unusable, path_of};
use crate::state::supervisor::{Ended, Phase, Report, Trouble};
use crate::sys::{Errno, Failure, clock, file, memory, process};
use crate::util::time::{Duration, Instant};
use ufmt::uwrite;

impl Supervisor {
    // ----- the wards --------------------------------------------------------

    /// One line about a ward. Until whoever started us is gone, warnings are for
    /// them too.
    pub(super) fn say(&mut self, index: usize, level: Level, text: &dyn Fn(&mut Writer<'_>)) {
        let Some(kind) = self.wards.get(index).map(|ward| ward.kind) else { return };
        let line = |out: &mut Writer<'_>| {
            self.origin.push_name(kind, out);
            out.push_str(": ");
            text(out);
        };
        self.log.line(level, &line);
        self.stretched = true;
        if level >= Level::Warn && self.announce_by.is_some() && !self.process.foreground {
            self.process.audience.warn(&line);
        }
    }

    /// Tells what happened to a ward.
    #[inline(never)]
    pub(super) fn tell(&mut self, index: usize, report: Report, now: Instant) {
        let rules = self.rules();
        let Some(ward) = self.wards.get_mut(index) else { return };
        let lived = now.since(ward.born_at);
        let pid = ward.state.pid().unwrap_or(0);
        if matches!(report, Report::Adopted(_) | Report::Stopped) {
            // (of a next life that ends between two looks nothing else is known)
            ward.born_at = now;
        }
        ward.settled |=
            matches!(report, Report::Adopted(_) | Report::Ready(_) | Report::Died(..) | Report::Replaced(..));
        let restarts = self.restarts.saturating_add(1);
        let level = match report {
            Report::Adopted(_) | Report::Ready(_) | Report::Recovered | Report::Stopped => Level::Info,
            Report::Unwell(_) | Report::Died(..) | Report::Replaced(..) => Level::Warn,
            Report::GivenUp(_) | Report::Killing | Report::Unkillable => Level::Error,
        };
        self.say(index, level, &|out| {
            let _ = match report {
                Report::Adopted(pid) => uwrite!(out, "runs already (pid {}), adopted", pid),
                Report::Ready(pid) => uwrite!(out, "running (pid {})", pid),
                Report::Unwell(trouble) => {
                    let _ = uwrite!(out, "check 1 of {} failed: ", rules.failures);
                    describe_trouble(trouble, out);
                    Ok(())
                }
                Report::GivenUp(trouble) => {
                    let _ = uwrite!(out, "check {} of {} failed: ", rules.failures, rules.failures);
                    describe_trouble(trouble, out);
                    uwrite!(out, "; restarting it: SIGTERM to pid {}", pid)
                }
                Report::Recovered => uwrite!(out, "well again (pid {}), heartbeat fresh", pid),
                Report::Killing => uwrite!(out, "has not ended: SIGKILL to pid {}", pid),
                Report::Unkillable => uwrite!(out, "pid {} does not end, not even by SIGKILL", pid),
                Report::Died(ended, delay) | Report::Replaced(ended, delay) => {
                    let is_ours = matches!(report, Report::Replaced(..));
                    describe_end(ended, is_ours, lived, out);
                    let _ = match ended {
                        Ended::NotStarted => uwrite!(out, "; next attempt "),
                        _ => uwrite!(out, "; restart {} ", restarts),
                    };
                    if delay.is_zero() {
                        uwrite!(out, "now")
                    } else {
                        uwrite!(out, "in {} s", delay.as_secs())
                    }
                }
                Report::Stopped => uwrite!(out, "was stopped on purpose, and stays so until it is started"),
            };
        });
    }

    /// Takes what a service that starts reports.
    #[inline(never)]
    pub(super) fn read_reports(&mut self, index: usize) {
        let Some(ward) = self.wards.get_mut(index) else { return };
        let Some(reports) = &ward.reports else { return };
        // Messages are whole: each is one write of less than PIPE_BUF, and there is
        // room for more than a service has to say.
        let scratch = core::mem::take(&mut self.scratch);
        match file::read(reports, scratch) {
            Ok(count @ 1..) => self.take_reports(index, scratch.get(..count).unwrap_or(&[])),
            // What poll(2) saw was that of the process before: this one is new.
            Err(Failure { errno: Errno::AGAIN, .. }) => {}
            Ok(_) | Err(_) => ward.reports = None,
        }
        // (a start is rare: the memory goes back until the next)
        memory::release(scratch);
        self.scratch = scratch;
    }

    fn take_reports(&mut self, index: usize, mut rest: &[u8]) {
        while let Some((message, after)) = next_message(rest) {
            rest = after;
            match message {
                Message::Ready(_) => {
                    let Some(ward) = self.wards.get_mut(index) else { return };
                    ward.reports = None;
                    let answer = ward.state.on_ready();
                    self.carry_out(index, answer, clock::now());
                }
                Message::Warning(text) => self.repeat(index, Level::Warn, text),
                Message::Failure(_, text) => self.repeat(index, Level::Error, text),
            }
        }
    }

    /// Says what a service said.
    fn repeat(&mut self, index: usize, level: Level, text: &[u8]) {
        let text = text.strip_prefix(b"zigsvc: ").unwrap_or(text);
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        self.say(index, level, &|out| out.push_escaped(text));
    }

    /// Takes what a ward wrote, up to one turn's share.
    pub(super) fn read_output(&mut self, index: usize) {
        let Some(ward) = self.wards.get_mut(index) else { return };
        let (kind, origin) = (ward.kind, &self.origin);
        ward.output.read(&mut self.log, self.scratch, &|out| push_mark(origin, kind, out));
    }

    /// Takes the rest of what a ward wrote.
    pub(super) fn finish_output(&mut self, index: usize) {
        let Some(ward) = self.wards.get_mut(index) else { return };
        let (kind, origin) = (ward.kind, &self.origin);
        ward.output.finish(&mut self.log, self.scratch, &|out| push_mark(origin, kind, out));
    }

    // ----- itself -----------------------------------------------------------

    /// Ready is when each ward runs or has failed once, so that a command which
    /// follows finds what it expects; a start that hangs is not waited for longer
    /// than a sign of life may be late.
    pub(super) fn announce_when_settled(&mut self, now: Instant) {
        let is_settled = |ward: &Supervised| ward.settled || ward.state.phase() == Phase::Stopped;
        if self.announce_by.is_some_and(|by| by.is_due(now) || self.wards.iter().all(is_settled)) {
            self.announce();
        }
    }

    #[inline(never)]
    pub(super) fn announce(&mut self) {
        if self.announce_by.take().is_none() {
            return;
        }
        if !self.origin.is_program() {
            self.heartbeat.beat(clock::now());
        }
        self.log.flush();
        self.degraded.watch(&self.heartbeat, &mut self.log);
        let audience = core::mem::replace(&mut self.process.audience, Audience::Foreground(None));
        audience.ready();
        self.put_status();
        self.process.notify.ready();
    }

    /// SIGUSR2.
    #[inline(never)]
    pub(super) fn log_status(&mut self, now: Instant) {
        let mut text = [0; 400];
        let mut status = Writer::new(&mut text);
        let state = if self.stopping == Stopping::No { "running" } else { "stopping" };
        let _ = uwrite!(status, "pid={} state={}", process::pid().as_raw_pid(), state);
        let fields = [
            ("uptime", now.since(self.started_at).as_secs()),
            ("restarts", self.restarts),
            ("reloads", self.reloads),
            ("reload_errors", self.reload_errors),
        ];
        for (name, value) in fields {
            let _ = uwrite!(status, " {}={}", name, value);
        }
        self.push_states(&mut status);
        self.log.info(&|out| {
            out.push_str("status: ");
            out.push(status.as_bytes());
        });
    }

    /// ` NAME=STATE:PID` for each ward, and what is degraded.
    fn push_states(&self, out: &mut Writer<'_>) {
        for ward in self.wards.iter() {
            out.push_str(" ");
            self.origin.push_name(ward.kind, out);
            out.push_str("=");
            out.push_str(match ward.state.phase() {
                Phase::Waiting(_) => "waiting",
                Phase::Starting(..) => "starting",
                Phase::Running(..) => "running",
                Phase::Ending(..) => "ending",
                Phase::Killed(..) | Phase::Unkillable(_) => "killed",
                Phase::Stopped => "stopped",
            });
            let _ = uwrite!(out, ":{}", ward.state.pid().unwrap_or(0));
        }
        out.push_str(" degraded=");
        let states = [
            (self.degraded.log, "log"),
            (self.degraded.health, "health"),
            (self.watchdog.failure().is_some(), "watchdog"),
        ];
        push_names(&states, out);
    }

    /// How it is, for the service manager.
    #[inline(never)]
    pub(super) fn put_status(&mut self) {
        if !self.process.notify.is_wanted() {
            return;
        }
        let mut line = [0; NOTIFY_STATUS_BYTES];
        let mut out = Writer::new(&mut line);
        let _ = uwrite!(out, "{} restarts", self.restarts);
        self.push_states(&mut out);
        self.process.notify.status(out.as_bytes());
    }

    /// SIGHUP: the configuration anew, whole or not at all.
    #[inline(never)]
    pub(super) fn reload(&mut self, now: Instant) {
        let mut reason = [0; REASON_BYTES];
        let mut out = Writer::new(&mut reason);
        if reload::read(&mut self.process, self.scratch, &mut self.log, &mut out) == Err(Unusable) {
            self.reload_errors = self.reload_errors.saturating_add(1);
            return reload::refuse(&mut self.process, &mut self.log, out.as_bytes());
        }
        self.reloads = self.reloads.saturating_add(1);
        self.take_over(now);
        self.process.notify.reloaded(true);
    }

    /// A health file is missing: somebody may have moved them all, and told the
    /// services, but not us.
    #[inline(never)]
    pub(super) fn follow_health_file(&mut self, now: Instant) {
        let mut reason = [0; REASON_BYTES];
        let Process { settings, candidate, config, .. } = &mut self.process;
        let read = settings.load(candidate, self.scratch, &mut Writer::new(&mut reason));
        if read.is_ok() && candidate.health_file != config.health_file {
            self.log.info(&|out| out.push_str("the config names another health file, reloading it"));
            self.take_over(now);
        }
    }

    /// The candidate comes into force.
    fn take_over(&mut self, now: Instant) {
        reload::accept(&mut self.process, &mut self.log);
        self.process.candidate.log_file_named |= self.origin.is_program();
        core::mem::swap(&mut self.process.config, &mut self.process.candidate);
        let config = &*self.process.config;
        let log_file = path_of(Service::Supervisor, File::Log, config).unwrap_or_default();
        self.log.configure(config, &log_file, self.process.foreground);
        self.heartbeat.move_to(&path_of(Service::Supervisor, File::Health, config).unwrap_or_default());
        self.watchdog.move_to(&config.watchdog, &mut self.log);
        // A shorter interval holds at once, not when the longer one is over.
        self.look_at = self.look_at.or_earlier(now + config.check_interval);
        self.change_wards(now);
    }

    /// Services that are new in `supervise` are started or adopted, those that are
    /// not in it any more are left as they are.
    fn change_wards(&mut self, now: Instant) {
        if self.origin.is_program() {
            return;
        }
        let mut index = 0;
        while let Some(ward) = self.wards.get(index) {
            let Kind::Service(service) = ward.kind else { return };
            if self.process.config.supervise.contains(&service) {
                index = index.saturating_add(1);
            } else {
                self.say(index, Level::Info, &|out| out.push_str("no longer supervised, and left as it is"));
                self.wards.swap_remove(index);
            }
        }
        for service in &self.process.config.supervise {
            let kind = Kind::Service(*service);
            if self.stopping == Stopping::No && !self.wards.iter().any(|ward| ward.kind == kind) {
                let _ = self.wards.push(Supervised::new(kind, now));
            }
        }
    }
}

/// In front of each line that a ward wrote: unlike `NAME: `, with which our own
/// lines about it begin.
fn push_mark(origin: &Origin, kind: Kind, out: &mut Writer<'_>) {
    origin.push_name(kind, out);
    out.push_str("| ");
}

/// Names what is wrong with a heartbeat.
fn describe_trouble(trouble: Trouble, out: &mut Writer<'_>) {
    let _ = match trouble {
        Trouble::Stale(age) => uwrite!(out, "heartbeat stale, {} ms old", age.as_ms()),
        Trouble::OtherBoot => uwrite!(out, "heartbeat of other boot"),
        Trouble::OtherPid => uwrite!(out, "heartbeat of other PID"),
        Trouble::Future => uwrite!(out, "heartbeat from the future"),
        Trouble::Unreadable => uwrite!(out, "heartbeat unreadable"),
        Trouble::Missing => uwrite!(out, "heartbeat missing"),
        Trouble::NotReady => uwrite!(out, "started, and not ready"),
    };
}

fn describe_end(ended: Ended, is_ours: bool, lived: Duration, out: &mut Writer<'_>) {
    let _ = match ended {
        Ended::Code(code) => uwrite!(out, "ended with exit status {} after {} ms", code, lived.as_ms()),
        Ended::Signal(signal) => uwrite!(out, "killed by signal {} after {} ms", signal, lived.as_ms()),
        // (it was adopted, so how long it lived is not known either)
        Ended::Unknown if is_ours => uwrite!(out, "ended"),
        Ended::Unknown => uwrite!(out, "died"),
        Ended::NotStarted => uwrite!(out, "not started"),
    };
    out.push_str(if is_ours { ", ordered by this supervisor" } else { "" });
}
