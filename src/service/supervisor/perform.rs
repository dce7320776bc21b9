//! Performs the decisions about the managed processes, and reaps children.

use super::Supervisor;
use super::launch::ManagedKind;
use super::managed_process::{ManagedProcess, known_pid, raw_pid};
use crate::proto::leftovers::NotedGroup;
use crate::proto::log::Level;
use crate::service::down_mark;
use crate::service::leftovers::find_left;
use crate::service::lifecycle::{describe_at, exit};
use crate::state::identity::hash;
use crate::state::supervisor::decision::{Action, Decision, Event, ExitReason, NOTHING, Report};
use crate::state::supervisor::probe::ProbeError;
use crate::sys::process::{self, Exit, Pid, Signal};
use crate::sys::{clock, poll};
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};
use ufmt::uwrite;

impl Supervisor {
    /// Performs the decisions that are due at `now`.
    pub(super) fn perform_due(&mut self, now: Instant) {
        while let Some((index, decision)) = self.supervision.poll(now) {
            self.perform(index, decision, now);
        }
    }

    /// Performs a decision, and the decisions that follow from its result.
    pub(super) fn perform(&mut self, index: usize, mut decision: Decision, now: Instant) {
        loop {
            let (action, event) = decision;
            if let Some(event) = event {
                self.log_event(index, event, now);
                match event {
                    Event::Adopted(pid) => self.adopt(index, pid),
                    Event::Foreign => {
                        self.managed.get_mut(index).into_iter().for_each(|managed| managed.is_down = false);
                    }
                    Event::HeartbeatLost(ProbeError::Missing) | Event::CheckFailed(ProbeError::Missing) => {
                        self.follow_health_file(now)
                    }
                    _ => {}
                }
            }
            decision = match action {
                Action::None => return,
                Action::Probe => self.probe(index, now),
                Action::CheckLock => {
                    let probe = self.probe_lock(index, now);
                    self.supervision.on_report(index, now, Report::Lock(probe))
                }
                Action::Ask => self.ask(index, now),
                Action::Confirm => self.confirm(index, now),
                Action::Look(pid) => return self.look_for_leftovers(index, pid, now),
                Action::Start => self.start(index, now),
                // A process that SIGSTOP has stopped takes no TERM until it continues.
                Action::Terminate(pid) => return self.signal(index, pid, &self.stop_signals(index)),
                Action::Dismiss(pid) => return self.send(index, pid, &self.stop_signals(index)),
                Action::Kill(pid) => return self.signal(index, pid, &[Signal::KILL]),
            };
        }
    }

    /// Starts a managed process, and returns the decision that follows.
    #[inline(never)]
    fn start(&mut self, index: usize, now: Instant) -> Decision {
        let Some(managed) = self.managed.get_mut(index) else { return (Action::None, None) };
        if let ManagedKind::Listed(name) = managed.kind {
            return self.start_listed(index, name, now);
        }
        let process = &self.base.process;
        let (base, user) = (&process.config_source.base, process.identity.as_ref());
        let begin = clock::now();
        match managed.start(&self.launch, base, user, self.records.token_variable(0).as_c_str()) {
            Ok(pid) => {
                if self.launch.is_program() {
                    managed.program.group = Some(self.records.group(pid, 0, begin, clock::now()));
                    self.write_note();
                }
                let decision = self.supervision.on_report(index, now, Report::Started(pid));
                // A program cannot report that it is ready.
                let is_ready = self.launch.is_program();
                if is_ready { self.supervision.on_report(index, now, Report::Ready) } else { decision }
            }
            Err(failure) => {
                let path = self.launch.file_of(managed.kind, &self.base.process.config_source.base);
                let why = |out: &mut Writer<'_>| {
                    out.push_str("cannot be started: ");
                    describe_at(&path, failure, out);
                };
                if self.launch.is_program() && self.supervision.is_starting() {
                    self.fail_start(&why);
                }
                self.log_about(index, Level::Error, &why);
                self.supervision.on_report(index, now, Report::NotStarted)
            }
        }
    }

    /// Ends the supervisor of a program that cannot be executed at the first attempt.
    fn fail_start(&mut self, why: &dyn Fn(&mut Writer<'_>)) -> ! {
        let Self { base, launch, .. } = self;
        let line = |out: &mut Writer<'_>| {
            launch.push_name(ManagedKind::Program, out);
            out.push_str(": ");
            why(out);
        };
        if !base.process.foreground {
            base.log.error(&line);
        }
        base.log.flush();
        base.process.fail(exit::FAILED, &line)
    }

    /// Adopts a process that another process started.
    fn adopt(&mut self, index: usize, pid: u32) {
        let holder = self.find_holder(index).ok().flatten();
        if let Some(managed) = self.managed.get_mut(index) {
            managed.is_down = false;
            managed.adopt(pid, holder);
        }
    }

    /// Returns the signals that end a managed process. One that SIGSTOP has stopped takes no TERM
    /// until it continues.
    fn stop_signals(&self, index: usize) -> [Signal; 2] {
        let managed = self.managed.get(index);
        managed.map_or([Signal::TERM, Signal::CONT], |managed| managed.program.stop_signals())
    }

    fn signal(&mut self, index: usize, pid: u32, signals: &[Signal]) {
        let path = self.pid_path(index);
        if !path.is_empty()
            && signals.contains(&Signal::TERM)
            && down_mark::is_set(&path, self.base.heartbeat.boot())
        {
            // A user stops it at this moment. A second TERM would cut off its orderly end.
            return;
        }
        self.send(index, pid, signals);
    }

    /// Sends signals to a managed process.
    fn send(&mut self, index: usize, pid: u32, signals: &[Signal]) {
        let path = self.pid_path(index);
        let Some(managed) = self.managed.get(index) else { return };
        if let Err(error) = managed.signal(pid, signals, &|| self.find_holder(index)) {
            self.base.log.error(&|out| {
                self.launch.push_name(managed.kind, out);
                let _ = uwrite!(out, ": pid {} cannot be signalled: ", pid);
                error.describe(&path, out);
            });
        }
    }

    // ----- leftovers ----------------------------------------------------------

    /// Ends the processes of the programs that an earlier supervisor has left. Each program is
    /// started after their end. A service is adopted.
    #[inline(never)]
    pub(super) fn end_leftovers(&mut self, now: Instant) {
        for group in self.records.take_over() {
            let is_of = |managed: &ManagedProcess| match managed.kind {
                ManagedKind::Service(_) => false,
                ManagedKind::Program => group.job == 0,
                ManagedKind::Listed(name) => group.job == hash(name.as_bytes()),
            };
            let Some(index) = self.managed.iter().position(is_of) else {
                // Its program is not supervised any more, so nothing waits for its end.
                self.base.log.warn(&|out| {
                    let _ = uwrite!(out, "an earlier supervisor has left processes: SIGTERM to group ");
                    let _ = uwrite!(out, "{}, which is of no program any more", group.number);
                });
                if let Some(leader) = known_pid(group.number) {
                    process::kill_group(leader, Signal::TERM);
                }
                continue;
            };
            self.managed.get_mut(index).into_iter().for_each(|managed| managed.leftover = Some(group));
            let decision = self.supervision.on_report(index, now, Report::Left(group.number));
            self.perform(index, decision, now);
        }
    }

    /// Looks for the processes that an earlier supervisor has left.
    fn look_for_leftovers(&mut self, index: usize, pid: u32, now: Instant) {
        if self.managed.get(index).is_some_and(ManagedProcess::is_leftover_gone) {
            self.on_gone(index, pid, ExitReason::Unknown, now);
        }
    }

    // ----- ended processes ----------------------------------------------------

    /// Reaps the children that have ended, and the orphans that the kernel gave to the
    /// supervisor.
    pub(super) fn reap(&mut self, now: Instant) {
        for index in 0..self.managed.len() {
            let Some(pid) = self.child(index) else { continue };
            if let Some(exit) = process::ended(pid) {
                let left = self.find_background(index, exit, now);
                self.kill_rest(index, pid);
                process::reap(pid);
                self.on_child_ended(index, pid, exit, now);
                if let Some(left) = left {
                    self.end_background(index, left, now);
                }
            }
        }
        while let Some((pid, exit)) = process::reap_any() {
            if let Some(index) = (0..self.managed.len()).find(|index| self.child(*index) == Some(pid)) {
                self.kill_rest(index, pid);
                self.on_child_ended(index, pid, exit, now);
            }
        }
    }

    /// Returns a process that a program has left, if the program ended soon and with success, as one
    /// does that runs in the background.
    #[inline(never)]
    fn find_background(&self, index: usize, exit: Exit, now: Instant) -> Option<NotedGroup> {
        let managed = self.managed.get(index)?;
        let group = managed.program.group.filter(|_| matches!(managed.kind, ManagedKind::Listed(_)))?;
        if exit != Exit::Code(0) || !self.supervision.may_be_in_background(index, now) {
            return None;
        }
        let left = find_left(&group)?;
        let (number, session, from) = (left.pid, left.session, left.started);
        Some(NotedGroup { number, session, from, upto: from, ..group })
    }

    /// Logs that a program runs in the background, and ends what it left before it is started again, or
    /// because it was stopped.
    #[inline(never)]
    fn end_background(&mut self, index: usize, left: NotedGroup, now: Instant) {
        self.log_about(index, Level::Warn, &|out| {
            let _ = uwrite!(out, "runs in the background (pid {}), where it cannot be ", left.number);
            out.push_str("supervised: its command needs the option that keeps it in the foreground");
        });
        let decision = self.supervision.on_report(index, now, Report::Background(left.number));
        if decision != NOTHING {
            self.managed.get_mut(index).into_iter().for_each(|managed| managed.leftover = Some(left));
            self.write_note();
            self.perform(index, decision, now);
        }
    }

    /// Returns the PID of a managed process that is a child.
    fn child(&self, index: usize) -> Option<Pid> {
        let is_child = |managed: &&ManagedProcess| managed.is_child;
        self.managed.get(index).filter(is_child)?;
        known_pid(self.supervision.pid(index)?)
    }

    /// Kills the rest of a program's process group.
    fn kill_rest(&self, index: usize, pid: Pid) {
        let is_service = |managed: &ManagedProcess| matches!(managed.kind, ManagedKind::Service(_));
        if !self.managed.get(index).is_some_and(is_service) {
            process::kill_group(pid, Signal::KILL);
        }
    }

    fn on_child_ended(&mut self, index: usize, pid: Pid, exit: Exit, now: Instant) {
        // The reports and the output that the process wrote before come first.
        self.read_reports(index);
        self.finish_output(index);
        let reason = match exit {
            Exit::Code(code) => ExitReason::Code(code),
            Exit::Signal(signal) => ExitReason::Signal(signal),
        };
        self.on_gone(index, raw_pid(pid), reason, now);
    }

    /// Records that an adopted process has ended. Its pidfd is polled again, because a
    /// signal of the same turn may have replaced it.
    pub(super) fn on_pidfd(&mut self, index: usize, now: Instant) {
        let has_ended = |managed: &ManagedProcess| {
            managed.pidfd.as_ref().is_some_and(|pidfd| poll::readable_within(pidfd, Duration::ZERO))
        };
        if self.managed.get(index).is_some_and(has_ended)
            && let Some(pid) = self.supervision.pid(index)
        {
            self.on_gone(index, pid, ExitReason::Unknown, now);
        }
    }

    fn on_gone(&mut self, index: usize, pid: u32, reason: ExitReason, now: Instant) {
        let probe = self.probe_lock(index, now);
        let Some(managed) = self.managed.get_mut(index) else { return };
        managed.forget_process();
        let decision = self.supervision.on_report(index, now, Report::Gone(pid, reason, probe));
        self.perform(index, decision, now);
    }
}
