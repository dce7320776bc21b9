//! The programs that `supervise` names: their files, their starts, their logs, and their reports
//! that they are ready.

use super::Supervisor;
use super::launch::{ManagedKind, ProgramName, REASON_BYTES};
use super::managed_process::{ManagedProcess, raw_pid};
use super::program_state::{FAILED_START_BYTES, signal_of};
use super::records::Records;
use crate::limits::{COMMAND_WORDS_MAX, PROGRAM_NAME_BYTES, SUPERVISED_MAX};
use crate::proto::config::{Program, ReadyMode};
use crate::proto::leftovers::TOKEN_VARIABLE;
use crate::proto::log::Level;
use crate::proto::service::Service;
use crate::service::accounts;
use crate::service::base::ServiceBase;
use crate::service::child_output::ChildOutput;
use crate::service::lifecycle::describe_at;
use crate::service::program_files::{check_all, load, path_of_program};
use crate::service::program_log::ProgramLog;
use crate::state::identity::hash;
use crate::state::supervisor::decision::{Decision, ProgramRules, Report, Request};
use crate::state::supervisor::instance::Phase;
use crate::state::supervisor::probe::FileVersion;
use crate::sys::process::{self, Signal};
use crate::sys::spawn::{Child, Foreign, Program as Spawned, Role, SAFE_PATH, spawn};
use crate::sys::{Errno, Failure, Op, OwnedFd, clock, fds, file, identity, socket};
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};
use core::ffi::{CStr, c_char};
use heapless::Vec;
use ufmt::uwrite;

/// Maximum number of datagrams of one program that are read in one turn.
const DATAGRAMS_MAX: u32 = 16;
/// Bytes of the variables that the supervisor makes for a program.
const VARIABLES_BYTES: usize = 1024;

/// Returns the rules that the file of a program sets.
fn rules_of(program: &Program) -> ProgramRules {
    ProgramRules {
        restart: program.restart(),
        reports_ready: program.ready() != ReadyMode::Start,
        start_timeout: program.start_timeout,
        stop_timeout: program.stop_timeout,
        stale_after: program.stale_after,
        has_health_file: !program.health_file.is_empty(),
    }
}

impl Supervisor {
    /// Adds the programs that are new in `supervise`, and ends those that are not in it any more.
    #[inline(never)]
    pub(super) fn update_programs(&mut self, now: Instant) {
        for index in 0..self.managed.len() {
            let Some(managed) = self.managed.get_mut(index) else { return };
            let ManagedKind::Listed(name) = managed.kind else { continue };
            let is_listed = self.base.process.config.supervised().any(|listed| listed == name.as_bytes());
            let was_leaving = core::mem::replace(&mut managed.program.is_leaving, !is_listed);
            let request = match (was_leaving, is_listed) {
                (false, false) => Request::Stop,
                (true, true) => Request::Start,
                _ => continue,
            };
            let text = if is_listed { "supervised again" } else { "no longer supervised, and ended" };
            self.log_about(index, Level::Info, &|out| out.push_str(text));
            let decision = self.supervision.on_report(index, now, Report::Asked(request));
            self.perform(index, decision, now);
        }
        let first = self.managed.len();
        for at in 0..SUPERVISED_MAX {
            let Some(name) = self.base.process.config.supervised().nth(at) else { break };
            let is_known = self.managed.iter().any(|managed| managed.kind.is_named(name));
            if Service::from_name(name).is_some() || is_known || self.supervision.is_stopping() {
                continue;
            }
            let kind = ManagedKind::Listed(ProgramName::new(name));
            if self.managed.push(ManagedProcess::new(kind)).is_ok() {
                self.supervision.add_program(now, ProgramRules::UNKNOWN);
            }
        }
        self.read_programs(first);
    }

    /// Reads the files of all programs, for what each needs. Takes the rules of those from the index
    /// `first` on, which have not been started.
    fn read_programs(&mut self, first: usize) {
        let Self { base, managed, supervision, .. } = self;
        let Some(program) = base.program.take() else { return };
        let (source, config) = (base.process.config_source, &*base.process.config);
        let mut visit = |name: &[u8], program: &mut Program| {
            let position =
                |name: &[u8]| managed.iter().position(|managed: &ManagedProcess| managed.kind.is_named(name));
            let needs = program.after().filter_map(position).fold(0u64, |needs, at| needs | 1 << at);
            let Some(index) = position(name) else { return };
            supervision.set_needs(index, needs);
            if index >= first {
                supervision.set_program(index, rules_of(program));
                if let Some(managed) = managed.get_mut(index) {
                    managed.program.apply(program, config);
                }
            }
        };
        // An error was found before, or is found at the start of the program.
        let mut reason = [0; REASON_BYTES];
        let _ = check_all(source, config, program, base.scratch, &mut Writer::new(&mut reason), &mut visit);
        base.program = Some(program);
    }

    /// Removes the programs that are not in `supervise` any more and have ended.
    #[inline(never)]
    pub(super) fn remove_left(&mut self) {
        for index in (0..self.managed.len()).rev() {
            let is_leaving = self.managed.get(index).is_some_and(|managed| managed.program.is_leaving);
            let phase = self.supervision.instances().get(index).map(|instance| instance.phase());
            if is_leaving && phase == Some(Phase::Stopped) {
                self.managed.remove(index);
                self.supervision.remove(index);
                self.stretched = true;
            }
        }
    }

    /// Starts a program, and returns the decision that follows.
    #[inline(never)]
    pub(super) fn start_listed(&mut self, index: usize, name: ProgramName, now: Instant) -> Decision {
        let Self { base, managed, records, .. } = self;
        let (Some(managed), Some(program)) = (managed.get_mut(index), base.program.take()) else {
            return self.supervision.on_report(index, now, Report::NotStarted);
        };
        let mut reason = [0; REASON_BYTES];
        let mut out = Writer::new(&mut reason);
        let started = start_program(base, managed, &name, program, records, &mut out);
        let rules = rules_of(program);
        base.program = Some(program);
        match started {
            Some(pid) => {
                self.supervision.set_program(index, rules);
                self.write_note();
                self.supervision.on_report(index, now, Report::Started(pid))
            }
            None => {
                let text = out.as_bytes();
                let text = text.get(..text.len().min(FAILED_START_BYTES)).unwrap_or(text);
                self.failed_start =
                    (Some(ManagedKind::Listed(name)), Vec::from_slice(text).unwrap_or_default());
                // A second attempt can follow before the supervisor has reported ready.
                let instance = self.supervision.instances().get(index);
                let is_first = instance.is_some_and(|instance| !instance.fails_to_run());
                self.log_line(index, Level::Error, is_first, &|line| {
                    line.push_str("cannot be started: ");
                    line.push(out.as_bytes());
                });
                self.supervision.on_report(index, now, Report::NotStarted)
            }
        }
    }

    /// Notes the groups of the programs that run, and those that earlier ones have left.
    #[inline(never)]
    pub(super) fn write_note(&self) {
        let groups = self.managed.iter().map(|managed| (&managed.program.group, &managed.leftover));
        self.records.write_note(&mut groups.filter_map(|(own, left)| own.as_ref().or(left.as_ref())));
    }

    /// Reads if a program reports that it is ready.
    pub(super) fn read_readiness(&mut self, index: usize) {
        let Some(managed) = self.managed.get_mut(index) else { return };
        let Some(reports) = &managed.reports else { return };
        let is_ready = match managed.program.notifies {
            true => is_notified(reports, managed.program.uid),
            false => {
                let mut bytes = [0; 64];
                match file::read(reports, &mut bytes) {
                    Ok(count @ 1..) => bytes.get(..count).is_some_and(|bytes| bytes.contains(&b'\n')),
                    Err(Failure { errno: Errno::AGAIN, .. }) => false,
                    // The program has closed the descriptor without a newline.
                    Ok(_) | Err(_) => {
                        managed.reports = None;
                        false
                    }
                }
            }
        };
        if is_ready {
            managed.reports = None;
            let now = clock::now();
            let decision = self.supervision.on_report(index, now, Report::Ready);
            self.perform(index, decision, now);
        }
    }

    /// Reads the output of a program, up to one turn's share, or the rest of it if `all` is true.
    pub(super) fn read_program_output(&mut self, index: usize, all: bool) {
        let Some(managed) = self.managed.get_mut(index) else { return };
        let Some(log) = &mut managed.program.log else { return };
        let buffer = self.base.log.lend_buffer();
        let mut sink = |line: &[u8], continued, _| log.line(line, continued, buffer);
        if all {
            managed.output.finish(self.base.scratch, &mut sink);
        } else {
            managed.output.read(self.base.scratch, &mut sink);
        }
        log.flush(buffer);
    }

    /// Rotates the logs of all programs.
    pub(super) fn rotate_program_logs(&mut self) {
        for managed in self.managed.iter_mut() {
            managed.program.log.iter_mut().for_each(ProgramLog::rotate);
        }
    }

    /// Returns true if the file of a program is another one than at its start.
    pub(super) fn has_changed(&self, index: usize) -> bool {
        let Some(managed) = self.managed.get(index) else { return false };
        let ManagedKind::Listed(name) = managed.kind else { return false };
        let path = path_of_program(&self.base.process.config_source.folder, name.as_bytes());
        managed.program.version.is_some_and(|version| version_of(&path) != Some(version))
    }
}

/// Returns the version of the file at `path`, to which a link may lead.
fn version_of(path: &Path) -> Option<FileVersion> {
    let meta = file::meta_at(path.as_c_str(), true).ok()?;
    Some((meta.identity, meta.size, meta.written))
}

/// Returns true if `READY=1` has arrived from `uid` or root at the socket of a program.
fn is_notified(socket: &OwnedFd, uid: u32) -> bool {
    let mut bytes = [0; 1024];
    for _ in 0..DATAGRAMS_MAX {
        let Ok((count, sender)) = socket::receive_datagram(socket, &mut bytes) else { return false };
        let message = bytes.get(..count).unwrap_or(&[]);
        let is_trusted = sender.is_some_and(|sender| sender == uid || sender == 0);
        if is_trusted && message.split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
            return true;
        }
    }
    false
}

/// Reads the file of a program, and starts it. Returns its PID, or writes the reason to `out`.
fn start_program(
    base: &mut ServiceBase,
    managed: &mut ManagedProcess,
    name: &ProgramName,
    program: &mut Program,
    records: &Records,
    out: &mut Writer<'_>,
) -> Option<u32> {
    managed.forget_process();
    let process = &base.process;
    let path = path_of_program(&process.config_source.folder, name.as_bytes());
    let version = version_of(&path);
    load(process.config_source, process.config, name.as_bytes(), program, base.scratch, out).ok()?;
    managed.program.apply(program, process.config);
    managed.program.version = version;
    let from = clock::now();
    match launch(managed, name, program, records) {
        Ok(child) => {
            let pid = raw_pid(child.pid);
            let group = records.group(pid, hash(name.as_bytes()), from, clock::now());
            managed.program.group = Some(group);
            managed.output = ChildOutput::new(Some(child.output).filter(|_| !program.has_no_log()));
            managed.is_child = true;
            Some(pid)
        }
        Err(failure) => {
            managed.reports = None;
            describe_unstarted(program, failure, out);
            None
        }
    }
}

/// Writes why a program cannot be started.
fn describe_unstarted(program: &Program, failure: Failure, out: &mut Writer<'_>) {
    let command = Path::or_empty(&[program.words().next().unwrap_or(b"")]);
    match failure.op {
        Op::Chdir => describe_at(&program.folder, failure, out),
        Op::Setrlimit | Op::Setresuid => {
            out.push_str(if failure.op == Op::Setrlimit { "open_files: " } else { "user: " });
            failure.describe(out);
        }
        _ => {
            describe_at(&command, failure, out);
            let is_there = file::meta_at(command.as_c_str(), true).is_ok();
            out.push_str(match failure.errno {
                Errno::NOENT if failure.op == Op::Execve && is_there => "; its interpreter is missing",
                Errno::NOEXEC => "; it is no program for this machine, and no script that begins with #!",
                _ => "",
            });
        }
    }
}

/// Executes the program in a child, with the environment that its file describes.
fn launch(
    managed: &mut ManagedProcess,
    name: &ProgramName,
    program: &Program,
    records: &Records,
) -> Result<Child, Failure> {
    let euid = identity::effective_uid();
    let identity = match &program.user[..] {
        b"" => None,
        user => accounts::resolve(user, &program.group).ok(),
    };
    managed.program.uid = identity.as_ref().map_or(euid, |identity| identity.uid);
    // A program of a user who is not root and runs as that user already does.
    let user = identity.filter(|identity| euid == 0 || identity.uid != euid);
    let mut bytes = [0; VARIABLES_BYTES];
    let mut made = Writer::new(&mut bytes);
    let mut ready = None;
    match program.ready() {
        ReadyMode::Start => {}
        ReadyMode::Fd => {
            let (read_end, write_end) = fds::pipe()?;
            fds::set_nonblocking(&read_end)?;
            (managed.reports, ready) = (Some(read_end), Some(write_end));
        }
        ReadyMode::Notify => {
            let address = notify_address(name)?;
            managed.reports = Some(socket::datagrams(&address)?);
            [b"NOTIFY_SOCKET=".as_slice(), address.as_bytes(), &[0]]
                .into_iter()
                .for_each(|part| made.push(part));
        }
    }
    if !program.user.is_empty() {
        accounts::push_variables(&program.user, &mut made);
    }
    if made.is_cut() {
        return Err(Failure { op: Op::Execve, errno: Errno::TOOBIG });
    }
    let token = records.token_variable(hash(name.as_bytes()));
    let envp = environment(program, token.as_c_str(), made.as_bytes());
    let mut argv: Vec<*const c_char, { COMMAND_WORDS_MAX + 1 }> = Vec::new();
    argv.extend(program.words().map(|word| word.as_ptr().cast()));
    let _ = argv.push(core::ptr::null());
    let foreign = Foreign {
        folder: program.folder.as_c_str(),
        needs_folder: true,
        user: user.as_ref(),
        umask: program.umask,
        open_files: program.open_files,
        death_signal: signal_of(program.stop_signal).unwrap_or(Signal::TERM),
        ready: ready.as_ref(),
        is_silent: program.has_no_log(),
    };
    let path = CStr::from_bytes_until_nul(&program.command).unwrap_or(c"");
    spawn(&Spawned { role: Role::Foreign(&foreign), path, argv: &argv, envp: &envp })
}

/// Returns an abstract address that no other program has, and that is hard to guess.
fn notify_address(name: &ProgramName) -> Result<Path, Failure> {
    let mut bytes = [0; 64 + PROGRAM_NAME_BYTES];
    let mut out = Writer::new(&mut bytes);
    out.push_str("@zigsvc-notify/");
    out.push(name.as_bytes());
    let [first, second, ..] = process::random();
    let _ = uwrite!(
        out,
        "/{}/{}",
        process::pid().as_raw_pid(),
        clock::now().as_ms().wrapping_mul(257).wrapping_add(u64::from(first) << 8 | u64::from(second))
    );
    Path::new(out.as_bytes()).ok_or(Failure { op: Op::Bind, errno: Errno::NAMETOOLONG })
}

/// Maximum number of variables of a program, with the null pointer.
const ENVIRONMENT_MAX: usize = COMMAND_WORDS_MAX + 8;

/// Returns the environment of a program, ended by a null pointer: the token, what the supervisor
/// made, the variables of the file, and the safe PATH. A variable of the file replaces one that the
/// supervisor made, except the token and NOTIFY_SOCKET.
fn environment(program: &Program, token: &CStr, made: &[u8]) -> Vec<*const c_char, ENVIRONMENT_MAX> {
    let key = |variable: &[u8]| variable.iter().position(|byte| *byte == b'=').unwrap_or(variable.len());
    let is_of = |variable: &[u8], other: &[u8]| {
        variable.get(..=key(variable)).is_some_and(|name| other.starts_with(name))
    };
    let is_ours = |variable: &[u8]| {
        variable.starts_with(TOKEN_VARIABLE)
            || made.starts_with(b"NOTIFY_SOCKET=") && is_of(b"NOTIFY_SOCKET=", variable)
    };
    let mut envp = Vec::new();
    let _ = envp.push(token.as_ptr());
    let made = made.split_inclusive(|byte| *byte == 0);
    for variable in made.chain([SAFE_PATH.to_bytes_with_nul()]) {
        let is_replaced = program.variables().any(|other| is_of(variable, other));
        if !is_replaced || variable.starts_with(b"NOTIFY_SOCKET=") {
            let _ = envp.push(variable.as_ptr().cast());
        }
    }
    for variable in program.variables().filter(|variable| !is_ours(variable)) {
        let _ = envp.push(variable.as_ptr().cast());
    }
    let _ = envp.push(core::ptr::null());
    envp
}

impl ProgramRules {
    /// The rules before the file is read.
    const UNKNOWN: Self = Self {
        restart: crate::proto::config::RestartMode::Always,
        reports_ready: false,
        start_timeout: Duration::ZERO,
        stop_timeout: Duration::ZERO,
        stale_after: Duration::ZERO,
        has_health_file: false,
    };
}
