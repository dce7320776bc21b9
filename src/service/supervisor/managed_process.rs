//! One managed process: a service, or a program; the process that it is at the moment, and
//! what connects us to it.

use super::LaunchSpec;
use crate::limits::OPTION_WORDS_MAX;
use crate::proto::service::Service;
use crate::service::child_output::ChildOutput;
use crate::service::lock_holder::{LockHolder, LookupFailed};
use crate::service::program;
use crate::state::supervisor::Instance;
use crate::sys::process::{self, Pid, Signal};
use crate::sys::spawn::{Child, Program, Role, spawn};
use crate::sys::{Errno, Failure, Op, OwnedFd, fds};
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::Instant;
use core::ffi::{CStr, c_char};
use heapless::Vec;

/// What a managed process is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ManagedKind {
    /// One of this program's services.
    Service(Service),
    /// The program of `run supervisor -- CMD`.
    Program,
}

/// See the module's documentation.
pub(super) struct ManagedProcess {
    pub(super) kind: ManagedKind,
    /// Where it stands.
    pub(super) state: Instance,
    /// Whether its process is our child.
    pub(super) is_child: bool,
    /// When its process was started or adopted.
    pub(super) started_at: Instant,
    /// Of an adopted process: readable when it has ended.
    pub(super) pidfd: Option<OwnedFd>,
    /// What a service that starts reports.
    pub(super) reports: Option<OwnedFd>,
    pub(super) output: ChildOutput,
    /// Whether it was once ready, adopted or dead.
    pub(super) settled: bool,
    /// The health file of a program: what it looked like, since when.
    pub(super) seen: Option<(FileVersion, Instant)>,
}

/// What tells two versions of a file apart: inode, size, time of the last write.
pub(super) type FileVersion = ((u64, u64), u64, (i64, u64));

/// A process that was started.
pub(super) struct Started {
    pub(super) pid: u32,
    /// A program cannot say when it is ready, so it is at once.
    pub(super) is_ready: bool,
}

/// A PID as the pure state knows it.
pub(super) fn raw_pid(pid: Pid) -> u32 {
    u32::try_from(pid.as_raw_pid()).unwrap_or(0)
}

impl ManagedProcess {
    pub(super) fn new(kind: ManagedKind, now: Instant) -> Self {
        Self {
            kind,
            state: Instance::new(now),
            is_child: false,
            started_at: now,
            pidfd: None,
            reports: None,
            output: ChildOutput::new(None),
            settled: false,
            seen: None,
        }
    }

    /// The process that is known.
    pub(super) fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.state.pid()?).ok()?)
    }

    /// Whether the process that is known certainly lives: it is our child and not
    /// reaped, or its pidfd has told nothing.
    pub(super) fn is_known_alive(&self) -> bool {
        self.state.pid().is_some() && (self.is_child || self.pidfd.is_some())
    }

    /// Its process is gone.
    pub(super) fn forget_process(&mut self) {
        (self.is_child, self.pidfd, self.reports, self.seen) = (false, None, None, None);
    }

    /// Its process is `pid`, which holds the lock of the PID file at `path`.
    pub(super) fn adopt(&mut self, pid: u32, path: &Path) {
        self.forget_process();
        let holder = LockHolder::find(path).ok().flatten();
        self.pidfd = holder.filter(|holder| raw_pid(holder.pid) == pid).and_then(|holder| holder.pidfd);
    }

    /// Sends `signal` to process `pid` if it is our child or pinned by its pidfd,
    /// or else if it holds the lock of the PID file at `path`; never to anybody
    /// else. A stopped process takes no TERM until it goes on.
    pub(super) fn signal(&self, pid: u32, signal: Signal, path: &Path) -> Result<(), LookupFailed> {
        let signals: &[Signal] = if signal == Signal::TERM { &[signal, Signal::CONT] } else { &[signal] };
        match (self.pid().filter(|known| raw_pid(*known) == pid), &self.pidfd) {
            (Some(child), _) if self.is_child && self.kind == ManagedKind::Program => {
                signals.iter().for_each(|signal| process::kill_group(child, *signal));
                Ok(())
            }
            (Some(child), _) if self.is_child => {
                signals.iter().try_for_each(|signal| process::kill(child, *signal))
            }
            // (somebody may have removed its PID file)
            (Some(_), Some(pidfd)) => {
                signals.iter().try_for_each(|signal| process::pidfd_signal(pidfd, *signal))
            }
            _ => match LockHolder::find(path)?.filter(|holder| raw_pid(holder.pid) == pid) {
                Some(holder) => signals.iter().try_for_each(|signal| holder.send(*signal)),
                None => Ok(()),
            },
        }
        .map_err(LookupFailed::SystemCall)
    }

    /// Starts its process as our child. Relative paths are below `base`.
    pub(super) fn start(&mut self, launch: &LaunchSpec, base: &Path) -> Result<Started, Failure> {
        self.forget_process();
        let (child, is_ready) = match self.kind {
            ManagedKind::Service(service) => (self.start_service(service, launch, base)?, false),
            ManagedKind::Program => (start_program(launch, base)?, true),
        };
        self.output = ChildOutput::new(Some(child.output));
        self.is_child = true;
        Ok(Started { pid: raw_pid(child.pid), is_ready })
    }

    /// `zigsvc OPTIONS start --child BASE SERVICE`, as our direct child.
    fn start_service(
        &mut self,
        service: Service,
        launch: &LaunchSpec,
        base: &Path,
    ) -> Result<Child, Failure> {
        let (reports, write_end) = fds::pipe()?;
        fds::set_nonblocking(&reports)?;
        let executable = launch.file_of(self.kind, base);
        let name = Path::new(service.name().as_bytes()).unwrap_or_default();
        // (the name, four words more, and the null pointer)
        let mut argv: Vec<*const c_char, { OPTION_WORDS_MAX + 6 }> = Vec::new();
        let _ = argv.push(executable.as_c_str().as_ptr());
        let options =
            launch.args.tail(1).iter().take(launch.command_at.saturating_sub(1).min(OPTION_WORDS_MAX));
        argv.extend(options.copied());
        let words = [c"start", c"--child", base.as_c_str(), name.as_c_str()];
        argv.extend(words.map(CStr::as_ptr));
        let _ = argv.push(core::ptr::null());
        let role = Role::Service(&write_end);
        let child = spawn_with(launch, role, executable.as_c_str(), &argv)?;
        self.reports = Some(reports);
        Ok(child)
    }
}

fn start_program(launch: &LaunchSpec, base: &Path) -> Result<Child, Failure> {
    let path = launch.file_of(ManagedKind::Program, base);
    if !path.as_bytes().starts_with(b"/") {
        // Not on the PATH: what has this name in its folder is another program.
        return Err(Failure { op: Op::Execve, errno: Errno::NOENT });
    }
    spawn_with(launch, Role::Foreign(base.as_c_str()), path.as_c_str(), launch.program)
}

/// Starts a program with our environment.
#[inline(never)]
fn spawn_with(
    launch: &LaunchSpec,
    role: Role<'_>,
    path: &CStr,
    argv: &[*const c_char],
) -> Result<Child, Failure> {
    spawn(&Program { role, path, argv, envp: launch.args.environment() })
}

impl LaunchSpec {
    /// Whether a program is supervised, and not services.
    pub(super) fn is_program(&self) -> bool {
        !self.program.is_empty()
    }

    /// The program as it was named.
    fn program_word(&self) -> &'static [u8] {
        self.args.get(self.args.len().saturating_sub(self.program.len().saturating_sub(1))).unwrap_or(b"")
    }

    /// The name of a managed process in messages: that of the service, or of the program's
    /// file.
    pub(super) fn push_name(&self, kind: ManagedKind, out: &mut Writer<'_>) {
        match kind {
            ManagedKind::Service(service) => out.push_str(service.name()),
            ManagedKind::Program => {
                let word = self.program_word();
                out.push_escaped(word.rsplit(|byte| *byte == b'/').next().unwrap_or(word));
            }
        }
    }

    /// The file to execute: this program's own for a service, and a program's as a
    /// shell would find it, or the word itself if it finds none.
    pub(super) fn file_of(&self, kind: ManagedKind, base: &Path) -> Path {
        let word = match kind {
            ManagedKind::Service(_) => self.args.executable(),
            ManagedKind::Program => self.program_word(),
        };
        program::find(&self.args, word, base)
    }
}
