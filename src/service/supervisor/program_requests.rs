//! The control socket of the supervisor: its clients, the one list of its requests, and the
//! function of each. `docs/control.md` is the manual.
//!
//! No answer is deferred: a request that starts or stops a process is answered with the state of
//! the process, and the client asks for the state until it is the wanted one.
//!
//! Changing this: a new request is one entry of `REQUESTS`, its function, and its line in
//! `docs/control.md`.

use super::Supervisor;
use super::launch::ManagedKind;
use super::managed_process::known_pid;
use super::program_state::signal_of;
use crate::limits::{CLIENT_OUTPUT_BYTES, CLIENTS_MAX, REQUEST_MAX_BYTES};
use crate::proto::control::{Code, Refusal, nothing, push_help, push_refusal, push_unknown, split};
use crate::proto::framing::{Framed, frame};
use crate::proto::log::Level;
use crate::proto::signal;
use crate::proto::status::push_field;
use crate::service::base;
use crate::service::base::PollSource;
use crate::service::connections::{
    self, BUSY, Connections, DENIED, OWNER_ONLY, Server, Taken, take_no_request,
};
use crate::service::down_mark::{self, DownMark};
use crate::state::access::Access;
use crate::state::clients::{Admission, Reading};
use crate::state::degraded::{DegradedSet, DegradedState};
use crate::state::supervisor::decision::{ExitReason, Report, Request};
use crate::state::supervisor::instance::{Instance, Phase};
use crate::sys::OwnedFd;
use crate::sys::process::{self, Signal};
use crate::sys::socket::Peer;
use crate::util::text::Writer;
use crate::util::time::Instant;
use ufmt::uwrite;

/// Maximum number of bytes of the lines that one answer to `list` holds.
const PAGE_BYTES: usize = CLIENT_OUTPUT_BYTES - 40;

/// A request.
struct SupervisorRequest {
    name: &'static str,
    /// The argument, for the help.
    args: &'static str,
    help: &'static str,
    /// Only root and the supervisor's own user may make it.
    is_owners: bool,
    action: SupervisorAction,
}

/// The function that carries out a request.
enum SupervisorAction {
    /// A request about the supervisor, with an argument.
    Own(fn(&Supervisor, &[u8], Instant, &mut Writer<'_>) -> Result<(), Refusal>),
    /// A request about a managed process: its index, and the rest of the argument. The answer is
    /// the line of the process.
    About(fn(&mut Supervisor, usize, &[u8], Instant) -> Result<(), Refusal>),
}

/// Every request, in the order of `help`.
static REQUESTS: &[SupervisorRequest] = &[
    SupervisorRequest {
        name: "status",
        args: "[NAME]",
        help: "what the supervisor, or a service or program of it, does",
        is_owners: false,
        action: SupervisorAction::Own(status),
    },
    SupervisorRequest {
        name: "list",
        args: "[AFTER_NAME]",
        help: "a line for each, as many as one answer holds",
        is_owners: false,
        action: SupervisorAction::Own(list),
    },
    owner("start", "NAME", "start it now", |supervisor, index, rest, now| {
        supervisor.ask_for(index, Request::Start, rest, now)
    }),
    owner("stop", "NAME", "stop it until it is started", |supervisor, index, rest, now| {
        supervisor.ask_for(index, Request::Stop, rest, now)
    }),
    owner("restart", "NAME", "stop it, and start it again", |supervisor, index, rest, now| {
        supervisor.ask_for(index, Request::Restart, rest, now)
    }),
    owner("reload", "NAME", "send it its reload_signal", reload),
    owner("signal", "NAME SIGNAL", "send it a signal", send),
    SupervisorRequest {
        name: "help",
        args: "",
        help: "this list",
        is_owners: false,
        action: SupervisorAction::Own(help),
    },
];

/// Returns a request about a managed process, for root and the supervisor's own user.
const fn owner(
    name: &'static str,
    args: &'static str,
    help: &'static str,
    action: fn(&mut Supervisor, usize, &[u8], Instant) -> Result<(), Refusal>,
) -> SupervisorRequest {
    SupervisorRequest { name, args, help, is_owners: true, action: SupervisorAction::About(action) }
}

impl Server for Supervisor {
    #[unsafe(link_section = ".text.idle")]
    fn connections(&mut self) -> &mut Connections {
        self.connections
    }

    fn accept(&mut self, now: Instant) -> Option<(OwnedFd, Peer, Access)> {
        self.base.listener.accept(now)
    }

    fn admission(&self, access: Access, uid: u32, now: Instant) -> Admission {
        self.connections.clients.admission(access, uid, now, &|_| false)
    }

    fn refuse(&self, out: &mut Writer<'_>) {
        push_refusal(BUSY, out);
    }

    fn joined(&mut self, _: usize, _: Instant) {}

    fn reading(&self, _: usize) -> Reading {
        Reading::Requests
    }

    /// Handles one request, if there is room for its answer.
    fn take(&mut self, slot: usize, input: &[u8], now: Instant, out: &mut Writer<'_>) -> Taken {
        let Some(client) = self.connections.clients.get_mut(slot) else { return Taken::Close };
        let (access, is_stuck) = (client.access, client.is_stuck());
        let framed = frame(input, REQUEST_MAX_BYTES, client.skipping, client.ended);
        if framed == Framed::Partial {
            return Taken::Part(0);
        }
        if access == Access::Denied {
            self.record_denied(slot, b"connect", now);
            push_refusal(DENIED, out);
            return Taken::Close;
        }
        if is_stuck || !out.is_empty() && out.room() < PAGE_BYTES {
            return if input.is_empty() { Taken::Part(0) } else { Taken::Later };
        }
        let Framed::Request(line, used) = framed else {
            return take_no_request(client, framed, out).unwrap_or(Taken::Close);
        };
        if let Err(refusal) = self.handle(slot, access, line, now, out) {
            push_refusal(refusal, out);
        }
        Taken::Whole(used)
    }

    fn close(&mut self, slot: usize) {
        self.connections.close(slot);
    }
}

impl Supervisor {
    /// Serves the clients, and accepts new ones.
    #[unsafe(link_section = ".text.idle")]
    pub(super) fn serve_clients(&mut self, ready: &[PollSource], now: Instant) {
        if self.launch.is_program() {
            return;
        }
        connections::close_expired(self, now);
        connections::serve(self, &mut ready.iter().filter_map(PollSource::client_slot), now);
        if ready.contains(&PollSource::Listener) {
            connections::accept(self, now);
        }
    }

    /// Returns when a client is due: at once if one has work for the supervisor.
    #[unsafe(link_section = ".text.idle")]
    pub(super) fn client_deadline(&self) -> Option<Instant> {
        let clients = &self.connections.clients;
        let has_work = clients.connected().any(|(_, client)| client.has_work() && !client.is_stuck());
        if has_work { Some(Instant::BOOT) } else { clients.next_deadline() }
    }

    /// Applies the policy of a new configuration: closes the clients that lose their rights.
    /// Those that have connected before a change of the socket are accepted first.
    pub(super) fn update_access(&mut self, now: Instant) {
        if !self.launch.is_program() {
            connections::accept_all(self, now);
            for slot in self.connections.update_access(&self.base.listener.policy) {
                self.close(slot);
            }
        }
    }

    /// Closes all connections, at the end of the service.
    pub(super) fn close_clients(&mut self) {
        if !self.launch.is_program() {
            (0..CLIENTS_MAX).for_each(|slot| self.close(slot));
        }
    }

    fn record_denied(&mut self, slot: usize, verb: &[u8], now: Instant) {
        let log = &mut self.base.log;
        self.denials.record(self.connections, slot, "control", verb, now, log);
        self.stretched = true;
    }

    /// Handles one request.
    fn handle(
        &mut self,
        slot: usize,
        access: Access,
        line: &[u8],
        now: Instant,
        out: &mut Writer<'_>,
    ) -> Result<(), Refusal> {
        let (verb, argument) = split(line);
        let Some(request) = REQUESTS.iter().find(|request| request.name.as_bytes() == verb) else {
            push_unknown(verb, out);
            return Ok(());
        };
        if request.is_owners && access != Access::Owner {
            self.record_denied(slot, verb, now);
            return Err(OWNER_ONLY);
        }
        let about = match request.action {
            SupervisorAction::Own(run) => return run(self, argument, now, out),
            SupervisorAction::About(run) => run,
        };
        let (name, rest) = split(argument);
        let index = self.find(name)?;
        if self.supervision.is_stopping() {
            return Err((Code::Stopping, "the supervisor stops"));
        }
        let peer = self.connections.peer(slot);
        self.log_about(index, Level::Info, &|out| {
            let _ = uwrite!(out, "uid {} (pid {}) asks for {}", peer.uid, peer.pid, request.name);
            out.push_str(if rest.is_empty() { "" } else { " " });
            out.push_escaped(rest.get(..20).unwrap_or(rest));
        });
        about(self, index, rest, now)?;
        out.push_str("ok ");
        self.push_row(index, now, out);
        Ok(())
    }

    /// Returns the index of the managed process of this name.
    fn find(&self, name: &[u8]) -> Result<usize, Refusal> {
        let is_named = |kind: ManagedKind| {
            let mut buffer = [0; 80];
            let mut out = Writer::new(&mut buffer);
            self.launch.push_name(kind, &mut out);
            out.as_bytes() == name
        };
        let found = self.managed.iter().position(|managed| is_named(managed.kind));
        found.ok_or((Code::NoProgram, "no service or program of this name is supervised"))
    }

    /// Has a managed process start, stop or restart.
    fn ask_for(&mut self, index: usize, request: Request, rest: &[u8], now: Instant) -> Result<(), Refusal> {
        nothing(rest)?;
        let path = self.mark_path(index);
        let Some(managed) = self.managed.get_mut(index) else { return Ok(()) };
        // Where no mark can be made, the supervisor remembers the stop as long as it lives. Otherwise
        // the mark decides, which a start from outside removes.
        managed.is_down = request == Request::Stop && DownMark::make(&path).is_err();
        if request != Request::Stop {
            down_mark::clear(&path);
        }
        let decision = self.supervision.on_report(index, now, Report::Asked(request));
        self.perform(index, decision, now);
        self.stretched = true;
        Ok(())
    }

    /// Writes the line of a managed process, with its newline.
    fn push_row(&self, index: usize, now: Instant, out: &mut Writer<'_>) {
        let (Some(managed), Some(instance)) =
            (self.managed.get(index), self.supervision.instances().get(index))
        else {
            return;
        };
        out.push_str("name=");
        self.launch.push_name(managed.kind, out);
        let is_service = matches!(managed.kind, ManagedKind::Service(_));
        let kind = if is_service { "service" } else { "program" };
        let is_failed = self.has_failed(index, instance);
        let state = if is_failed { "failed" } else { state_word(instance) };
        let _ = uwrite!(out, " kind={} state={}", kind, state);
        if let Some(pid) = instance.pid() {
            push_field("pid", pid.into(), out);
            push_field("uptime", now.since(instance.started_at()).as_secs(), out);
        }
        push_field("restarts", instance.restarts().into(), out);
        if let Some((reason, at)) = instance.last_end() {
            match reason {
                ExitReason::Code(code) => push_field("exit", code.into(), out),
                ExitReason::Signal(signal) => push_field("signal", signal.into(), out),
                ExitReason::NotStarted => out.push_str(" end=not-started"),
                ExitReason::Unknown => out.push_str(" end=unknown"),
            }
            push_field("ended", now.since(at).as_secs(), out);
        }
        if let Some(timeout) = instance.start_timeout() {
            push_field("start_timeout", timeout.as_ms(), out);
        }
        if self.failed_start.0 == Some(managed.kind)
            && matches!(instance.last_end(), Some((ExitReason::NotStarted, _)))
        {
            let mut before = " why=";
            for word in self.failed_start.1.split(|byte| *byte == b' ') {
                out.push_str(before);
                out.push_reversible(word);
                before = "\\x20";
            }
        }
        if self.has_changed(index) {
            push_field("changed", 1, out);
        }
        let _ = uwrite!(out, " health={} degraded=", self.health_word(index, instance));
        let degraded = DegradedSet::NONE
            .with(DegradedState::Log, managed.has_failing_log())
            .with(DegradedState::Heartbeats, is_service && instance.is_unjudged())
            .with(DegradedState::StuckProcess, instance.is_unkillable())
            .with(DegradedState::Program, instance.fails_to_run() || is_failed);
        degraded.push_names(out);
        out.push_str("\n");
    }

    /// Returns true if a program has ended badly, and its rules do not start it again.
    fn has_failed(&self, index: usize, instance: &Instance) -> bool {
        let end = instance.last_end().map(|(reason, _)| reason);
        instance.is_program()
            && instance.phase() == Phase::Stopped
            && !matches!(end, None | Some(ExitReason::Code(0)))
            && !self.is_down(index)
    }

    /// Returns what the supervisor knows of the health of a process.
    fn health_word(&self, index: usize, instance: &Instance) -> &'static str {
        match instance.phase() {
            _ if !self.has_health(index) => "none",
            Phase::Foreign => "unknown",
            Phase::Running(_) if instance.is_failing() => "stale",
            Phase::Running(_) if instance.is_unjudged() => "unknown",
            Phase::Running(_) => "fresh",
            _ => "none",
        }
    }

    /// Returns true if a managed process shows its health.
    fn has_health(&self, index: usize) -> bool {
        self.supervision.instances().get(index).is_some_and(Instance::is_probed)
            && self.launch.has_health_files()
    }
}

/// Returns the state of a managed process in one word.
pub(super) fn state_word(instance: &Instance) -> &'static str {
    match instance.phase() {
        Phase::Backoff(_) if instance.is_blocked() => "blocked",
        Phase::Backoff(_) => "waiting",
        Phase::Starting(..) => "starting",
        Phase::Running(..) => "running",
        Phase::Stopping(..) => "ending",
        Phase::Killing(..) | Phase::Unkillable(_) => "killed",
        Phase::Foreign => "foreign",
        Phase::Stopped => "stopped",
    }
}

fn status(supervisor: &Supervisor, name: &[u8], now: Instant, out: &mut Writer<'_>) -> Result<(), Refusal> {
    if name.is_empty() {
        out.push_str("ok ");
        base::push_status(supervisor, out, now);
        out.push_str("\n");
        return Ok(());
    }
    let index = supervisor.find(name)?;
    out.push_str("ok ");
    supervisor.push_row(index, now, out);
    Ok(())
}

/// Writes the lines of the processes after the one that is named, as many as fit.
fn list(supervisor: &Supervisor, after: &[u8], now: Instant, out: &mut Writer<'_>) -> Result<(), Refusal> {
    let first = if after.is_empty() { 0 } else { supervisor.find(after)?.saturating_add(1) };
    let mut page = [0; PAGE_BYTES];
    let mut lines = Writer::new(&mut page);
    let mut count = 0u64;
    for index in first..supervisor.managed.len() {
        let before = lines.len();
        supervisor.push_row(index, now, &mut lines);
        if lines.is_cut() {
            lines.truncate(before);
            break;
        }
        count = count.saturating_add(1);
    }
    let _ = uwrite!(out, "ok {}\n", count);
    out.push(lines.as_bytes());
    Ok(())
}

/// Has a process read its configuration again.
fn reload(supervisor: &mut Supervisor, index: usize, rest: &[u8], _: Instant) -> Result<(), Refusal> {
    nothing(rest)?;
    match supervisor.reload_signal(index) {
        Some(signal) => supervisor.send_one(index, signal),
        None => Err((Code::Refused, "its file has no reload_signal")),
    }
}

/// Sends a signal to the process itself, and not to its group.
fn send(supervisor: &mut Supervisor, index: usize, name: &[u8], _: Instant) -> Result<(), Refusal> {
    let number = signal::parse(name).and_then(|number| Signal::from_named_raw(number.into()));
    let signal = number.ok_or((Code::BadRequest, "SIGNAL must be a name such as HUP, or 1 to 31"))?;
    supervisor.send_one(index, signal)
}

fn help(_: &Supervisor, rest: &[u8], _: Instant, out: &mut Writer<'_>) -> Result<(), Refusal> {
    nothing(rest)?;
    let _ = uwrite!(out, "ok {}\n", REQUESTS.len());
    for SupervisorRequest { name, args, help, is_owners, .. } in REQUESTS {
        push_help(name, args, help, *is_owners, out);
    }
    Ok(())
}

impl Supervisor {
    /// Returns the signal at which a process reads its configuration again.
    fn reload_signal(&self, index: usize) -> Option<Signal> {
        match self.managed.get(index)?.kind {
            ManagedKind::Service(_) => Some(Signal::HUP),
            ManagedKind::Program => None,
            ManagedKind::Listed(_) => signal_of(self.managed.get(index)?.program.reload_signal),
        }
    }

    /// Sends one signal to a managed process.
    fn send_one(&self, index: usize, signal: Signal) -> Result<(), Refusal> {
        let managed = self.managed.get(index).zip(self.supervision.pid(index));
        let (managed, pid) = managed.ok_or((Code::NotRunning, "it does not run"))?;
        let sent = match known_pid(pid).filter(|_| managed.is_child) {
            Some(child) => process::kill(child, signal).is_ok(),
            None => managed.signal(pid, &[signal], &|| self.find_holder(index)).is_ok(),
        };
        if sent { Ok(()) } else { Err((Code::Refused, "it may not be signalled")) }
    }
}
