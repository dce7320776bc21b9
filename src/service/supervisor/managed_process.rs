//! One managed process, a service or a program: starts it, signals it, and holds the
//! descriptors that connect the supervisor to it.

use super::launch::{LaunchSpec, ManagedKind};
use super::program_state::ProgramState;
use crate::limits::OPTION_WORDS_MAX;
use crate::proto::leftovers::NotedGroup;
use crate::proto::service::Service;
use crate::service::child_output::ChildOutput;
use crate::service::leftovers::has_member;
use crate::service::lock_holder::{LockHolder, LookupFailed};
use crate::service::program_log::ProgramLog;
use crate::sys::identity::Identity;
use crate::sys::process::{self, Pid, Signal};
use crate::sys::spawn::{Child, Foreign, Program, Role, spawn};
use crate::sys::{Errno, Failure, Op, OwnedFd, fds};
use crate::util::path::Path;
use core::ffi::{CStr, c_char};
use heapless::Vec;

/// See the module's documentation.
pub(super) struct ManagedProcess {
    pub(super) kind: ManagedKind,
    /// The process is a child of the supervisor.
    pub(super) is_child: bool,
    /// The pidfd of an adopted process: readable when it has ended.
    pub(super) pidfd: Option<OwnedFd>,
    /// The pipe on which a service reports its start.
    pub(super) reports: Option<OwnedFd>,
    pub(super) output: ChildOutput,
    /// The connection to the socket of a service that was asked if it lives.
    pub(super) asking: Option<OwnedFd>,
    /// A user has stopped the process. Counts where the mark of that cannot be made.
    pub(super) is_down: bool,
    /// The process group that an earlier supervisor has left, and that ends before the start.
    pub(super) leftover: Option<NotedGroup>,
    /// The state of a program that `supervise` names.
    pub(super) program: ProgramState,
}

/// Returns the PID as the pure state knows it.
pub(super) fn raw_pid(pid: Pid) -> u32 {
    u32::try_from(pid.as_raw_pid()).unwrap_or(0)
}

/// Returns the PID that the pure state knows.
pub(super) fn known_pid(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

impl ManagedProcess {
    /// Creates a managed process that does not run.
    pub(super) fn new(kind: ManagedKind) -> Self {
        Self {
            kind,
            is_child: false,
            pidfd: None,
            reports: None,
            output: ChildOutput::new(None),
            asking: None,
            is_down: false,
            leftover: None,
            program: ProgramState::new(),
        }
    }

    /// Returns true if the known process certainly lives: it is a child that was not
    /// reaped, or its pidfd has not become readable.
    pub(super) fn is_known_alive(&self) -> bool {
        self.is_child || self.pidfd.is_some()
    }

    /// Forgets the process, which has ended.
    pub(super) fn forget_process(&mut self) {
        (self.is_child, self.pidfd, self.reports, self.asking) = (false, None, None, None);
        (self.leftover, self.program.group) = (None, None);
    }

    /// Returns true if the log of a program cannot be written.
    pub(super) fn has_failing_log(&self) -> bool {
        self.program.log.as_ref().is_some_and(ProgramLog::is_failing)
    }

    /// Returns true if no process is left that an earlier supervisor has started.
    pub(super) fn is_leftover_gone(&self) -> bool {
        self.leftover.is_none_or(|group| !has_member(&group, false))
    }

    /// Adopts the process `pid` if it is the holder of the service's lock.
    pub(super) fn adopt(&mut self, pid: u32, holder: Option<LockHolder>) {
        self.forget_process();
        self.pidfd = holder.filter(|holder| raw_pid(holder.pid) == pid).and_then(|holder| holder.pidfd);
    }

    /// Sends `signals` to the known process `pid` if it is a child or has a pidfd, because
    /// its PID file may have been removed. Otherwise sends them to `pid` only if it is the
    /// holder of the service's lock, which `find` returns.
    pub(super) fn signal(
        &self,
        pid: u32,
        signals: &[Signal],
        find: &dyn Fn() -> Result<Option<LockHolder>, LookupFailed>,
    ) -> Result<(), LookupFailed> {
        if self.leftover.is_some() {
            // Another group may have the number by now.
            if let Some(leader) = known_pid(pid).filter(|_| !self.is_leftover_gone()) {
                signals.iter().for_each(|signal| process::kill_group(leader, *signal));
            }
            return Ok(());
        }
        match (known_pid(pid).filter(|_| self.is_child), &self.pidfd) {
            (Some(child), _) if !matches!(self.kind, ManagedKind::Service(_)) => {
                signals.iter().for_each(|signal| process::kill_group(child, *signal));
                Ok(())
            }
            (Some(child), _) => signals.iter().try_for_each(|signal| process::kill(child, *signal)),
            (None, Some(pidfd)) => {
                signals.iter().try_for_each(|signal| process::pidfd_signal(pidfd, *signal))
            }
            (None, None) => match find()?.filter(|holder| raw_pid(holder.pid) == pid) {
                Some(holder) => signals.iter().try_for_each(|signal| holder.send(*signal)),
                None => Ok(()),
            },
        }
        .map_err(LookupFailed::SystemCall)
    }

    /// Starts the process as a child, and returns its PID. Relative paths are below `base`. A
    /// program becomes `user`, and a service does that itself. `token` is a variable for the
    /// environment of a program.
    pub(super) fn start(
        &mut self,
        launch: &LaunchSpec,
        base: &Path,
        user: Option<&Identity>,
        token: &CStr,
    ) -> Result<u32, Failure> {
        self.forget_process();
        let child = match self.kind {
            ManagedKind::Service(service) => self.start_service(service, launch, base)?,
            ManagedKind::Program | ManagedKind::Listed(_) => start_program(launch, base, user, token)?,
        };
        self.output = ChildOutput::new(Some(child.output));
        self.is_child = true;
        Ok(raw_pid(child.pid))
    }

    /// Starts `zigsvc OPTIONS start --child BASE SERVICE` as a direct child.
    fn start_service(
        &mut self,
        service: Service,
        launch: &LaunchSpec,
        base: &Path,
    ) -> Result<Child, Failure> {
        let (reports, write_end) = fds::pipe()?;
        fds::set_nonblocking(&reports)?;
        let executable = launch.file_of(self.kind, base);
        let name = Path::or_empty(&[service.name().as_bytes()]);
        // Beside the options: the executable, four words, and the null pointer.
        let mut argv: Vec<*const c_char, { OPTION_WORDS_MAX + 6 }> = Vec::new();
        let _ = argv.push(executable.as_c_str().as_ptr());
        let options =
            launch.args.tail(1).iter().take(launch.command_at.saturating_sub(1).min(OPTION_WORDS_MAX));
        argv.extend(options.copied());
        let words = [c"start", c"--child", base.as_c_str(), name.as_c_str()];
        argv.extend(words.map(CStr::as_ptr));
        let _ = argv.push(core::ptr::null());
        let role = Role::Service(&write_end);
        let envp = launch.args.environment();
        let child = spawn(&Program { role, path: executable.as_c_str(), argv: &argv, envp })?;
        self.reports = Some(reports);
        Ok(child)
    }
}

fn start_program(
    launch: &LaunchSpec,
    base: &Path,
    user: Option<&Identity>,
    token: &CStr,
) -> Result<Child, Failure> {
    let path = launch.file_of(ManagedKind::Program, base);
    if !path.as_bytes().starts_with(b"/") {
        // The PATH does not have it. A file of this name in its folder is another program.
        return Err(Failure { op: Op::Execve, errno: Errno::NOENT });
    }
    let role = Role::Foreign(&Foreign {
        folder: base.as_c_str(),
        needs_folder: false,
        user,
        umask: 0o022,
        open_files: 0,
        death_signal: Signal::TERM,
        ready: None,
        is_silent: false,
    });
    let mut space = Vec::new();
    let envp = launch.args.environment_with(token, &mut space);
    spawn(&Program { role, path: path.as_c_str(), argv: launch.program, envp })
}
