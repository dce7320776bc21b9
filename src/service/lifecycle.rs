//! From a command to a service that is ready, and to its end (daemon(7)).
//!
//! ```text
//! start ──fork──▶ child: setsid ──fork──▶ service
//!   │ waits on a pipe                        │ lock, log, spool, privileges
//!   ◀──────────── ready, or why not ─────────┘
//! ```
//!
//! Until the service is ready each failure is reported to the process that ran the command,
//! with an exit code. After that only a stop ends the service.

use crate::proto::config::Config;
use crate::proto::log::Level;
use crate::proto::service::Service;
use crate::sys::identity::{self, Identity};
use crate::sys::lock::{AcquireError, PidFile};
use crate::sys::process::{self, Pid, Side};
use crate::sys::signal::{self, Signals};
use crate::sys::syslog::Syslog;
use crate::sys::{AsFd, Errno, Failure, Op, OwnedFd, clock, fds, file, poll};
use crate::util::lines::find_newline;
use crate::util::path::Path;
use crate::util::text::Writer;
use ufmt::uwrite;

use super::accounts;
use super::boot::boot_id;
use super::config_source::{ConfigSource, ServiceFile, path_of};
use super::down_mark;
use super::lock_holder::{LockState, LookupFailed, ServiceLocks};
use super::notify::Notify;
use super::own_paths::judge_paths;
use super::second_lock::{self, SecondHolder};
use super::syslog::send_line;
use super::trust::{Judge, TrustRefusal};
use crate::state::trust::Subject;
use crate::util::time::Duration;

/// Time until a service that is ready tries again to report it, after the kernel had no
/// memory for the message.
const READY_RETRY: Duration = Duration::from_ms(20);
/// Time for which a start waits for a process that is ending to release its locks.
const LOCKED_WAIT: Duration = Duration::from_ms(1000);
/// Time between two looks at those locks. The kernel queues each look until the holder takes it.
const LOCKED_POLL: Duration = Duration::from_ms(100);
/// Time between two looks at a process that ends after its start failed.
const ENDING_POLL: Duration = Duration::from_ms(2);
/// Maximum number of those looks, which take a second together.
const ENDING_LOOKS: u32 = 500;
/// Maximum number of times that a service tries to report that it is ready.
const READY_TRIES: u32 = 100;

/// Exit codes of every command (LSB 3.1, iniscrptact, for all but `status`).
pub mod exit {
    /// Success.
    pub const OK: u8 = 0;
    /// Failure.
    pub const FAILED: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 2;
    /// A right is missing.
    pub const NO_PRIVILEGE: u8 = 4;
    /// The configuration is wrong.
    pub const CONFIG: u8 = 6;
    /// The service does not run.
    pub const NOT_RUNNING: u8 = 7;
}

/// Bytes of one message through the start pipe: less than PIPE_BUF, so each
/// is whole.
const REPORT_BYTES: usize = 600;

/// The process to which the start is reported.
pub enum StartReporter {
    /// `start`: the original process, at the other end of this pipe.
    Starter(OwnedFd),
    /// `run`: the reader of stderr. This descriptor gets a newline when the service is ready (s6,
    /// dinit).
    Foreground(Option<OwnedFd>),
    /// `run` with stderr connected to a journal that reads priorities.
    Journal(Option<OwnedFd>),
    /// `run` with `syslog = true`: syslog gets what the reader of stderr gets, because a service
    /// manager that reads the log there may drop stderr (procd).
    Syslog(Option<OwnedFd>),
}

/// A message through the pipe.
pub enum StartReport<'a> {
    /// Something degrades the service.
    Warning(&'a [u8]),
    /// The service cannot start: the exit code and the reason. The text is one line, with its
    /// end.
    Failure(u8, &'a [u8]),
    /// The service is ready. Holds its PID.
    Ready(u64),
}

/// Kinds of messages; an exit code and the text follow.
const WARNING: u8 = b'w';
const FAILURE: u8 = b'f';
const READY: u8 = b'r';

impl StartReporter {
    /// Returns true if this is `run`.
    #[must_use]
    pub fn is_foreground(&self) -> bool {
        !matches!(self, Self::Starter(_))
    }

    /// Returns true if each line on stderr begins with `<N>` (sd-daemon(3)).
    #[must_use]
    pub fn is_journal(&self) -> bool {
        matches!(self, Self::Journal(_))
    }

    /// Reports a problem that degrades the service, which starts nevertheless.
    pub fn warn(&self, text: &dyn Fn(&mut Writer<'_>)) {
        self.report(WARNING, exit::OK, text);
    }

    /// Reports that the service cannot start, and ends the process.
    pub fn fail(&self, code: u8, text: &dyn Fn(&mut Writer<'_>)) -> ! {
        self.report(FAILURE, code, text);
        process::exit(code)
    }

    /// Reports that a system call on `path` failed, and ends the process.
    pub fn fail_at(&self, path: &Path, failure: Failure) -> ! {
        self.fail(failure_code(failure), &|out| describe_denial(path, failure, out))
    }

    fn report(&self, kind: u8, code: u8, text: &dyn Fn(&mut Writer<'_>)) {
        let level = if kind == WARNING { Level::Warn } else { Level::Error };
        let mut bytes = [0; REPORT_BYTES];
        let mut out = Writer::new(&mut bytes);
        match self {
            Self::Starter(_) => out.push(&[kind, code]),
            Self::Foreground(_) | Self::Syslog(_) => {}
            Self::Journal(_) => out.push(&level.prefix()),
        }
        out.push_str("zigsvc: ");
        let start = out.len();
        text(&mut out);
        if let Self::Syslog(_) = self {
            send_line(&mut Syslog::default(), level, out.as_bytes().get(start..).unwrap_or(&[]));
        }
        out.end_line();
        match self {
            Self::Starter(pipe) => drop(file::write_all(pipe, out.as_bytes())),
            _ => process::write_stderr(out.as_bytes()),
        }
    }

    /// Reports that the service is ready.
    pub fn ready(self) {
        match self {
            Self::Starter(pipe) => {
                let mut bytes = [0; 16];
                let mut out = Writer::new(&mut bytes);
                out.push(&[READY, 0]);
                let _ = uwrite!(out, "{}\n", process::pid().as_raw_pid());
                write_ready_retrying(&pipe, out.as_bytes());
            }
            Self::Foreground(fd) | Self::Journal(fd) | Self::Syslog(fd) => {
                let _ = fd.map(|fd| file::write_all(&fd, b"\n"));
            }
        }
    }
}

/// Writes a whole message into the start pipe. A write needs a page of memory, which may be
/// missing, but a service that runs must not be reported as failed. So the write is repeated.
fn write_ready_retrying(pipe: &OwnedFd, message: &[u8]) {
    for _ in 0..READY_TRIES {
        match file::write_all(pipe, message) {
            Err(Failure { errno: Errno::NOMEM, .. }) => poll::sleep(READY_RETRY),
            // Also if the process that started the service has ended.
            _ => return,
        }
    }
}

/// Writes `PATH: openat: EACCES (permission denied)`.
pub fn describe_at(path: &Path, failure: Failure, out: &mut Writer<'_>) {
    out.push_escaped(path.as_bytes());
    out.push_str(": ");
    failure.describe(out);
}

/// Writes what [`describe_at`] writes, and the right that is missing, if that is the reason.
pub fn describe_denial(path: &Path, failure: Failure, out: &mut Writer<'_>) {
    describe_at(path, failure, out);
    out.push_str(match failure.errno {
        Errno::PERM => "; needs root",
        Errno::ACCESS => "; needs root, or a folder of yours: -d DIR",
        _ => "",
    });
}

/// Forks twice. The original process waits for the outcome, prints it, and returns the exit
/// code. The service returns its reporter.
///
/// # Errors
/// The exit code, in the original process.
pub fn detach(service: Service) -> Result<StartReporter, u8> {
    let failed = |failure: Failure| {
        print_failure(failure);
        exit::FAILED
    };
    let (report, pipe) = fds::pipe().map_err(failed)?;
    // So that it can wait for the end of the service, whose parent ends at once.
    let _ = process::adopt_orphans();
    match process::fork().map_err(failed)? {
        Side::Parent(_) => {
            drop(pipe);
            return Err(wait_until_ready(service, &report));
        }
        Side::Child => drop(report),
    }
    let reporter = StartReporter::Starter(pipe);
    let step = process::setsid().and_then(|()| process::fork());
    match step {
        Ok(Side::Parent(_)) => process::exit(exit::OK),
        Ok(Side::Child) => Ok(reporter),
        Err(failure) => reporter.fail(exit::FAILED, &|out| failure.describe(out)),
    }
}

/// Prints one line about a system call that failed.
fn print_failure(failure: Failure) {
    let mut bytes = [0; 128];
    let mut out = Writer::new(&mut bytes);
    out.push_str("zigsvc: ");
    failure.describe(&mut out);
    out.push_str("\n");
    process::write_stderr(out.as_bytes());
}

/// Reads the reports of the service until it is ready or has ended.
#[inline(never)]
fn wait_until_ready(service: Service, report: &OwnedFd) -> u8 {
    let mut bytes = [0; REPORT_BYTES * 2];
    let mut held = 0;
    let mut code = None;
    let mut pid = 0;
    // To the end of the pipe, so that the service holds no pipe when the command has returned.
    while let Ok(count @ 1..) = file::read(report, bytes.get_mut(held..).unwrap_or(&mut [])) {
        held = held.saturating_add(count);
        let mut used = 0;
        while let Some((message, rest)) = next_report(bytes.get(used..held).unwrap_or(&[])) {
            used = held.saturating_sub(rest.len());
            match message {
                StartReport::Ready(number) => (code, pid) = (Some(exit::OK), number),
                StartReport::Failure(given, text) => {
                    process::write_stderr(text);
                    code = Some(given);
                }
                StartReport::Warning(text) => process::write_stderr(text),
            }
        }
        bytes.copy_within(used..held, 0);
        held = held.saturating_sub(used);
    }
    let mut line = [0; 128];
    let mut out = Writer::new(&mut line);
    match code {
        Some(exit::OK) => {
            let _ = uwrite!(out, "zigsvc: {} started (pid {})\n", service.name(), pid);
            process::write_stdout(out.as_bytes());
            exit::OK
        }
        Some(code) => {
            wait_for_end();
            code
        }
        None => {
            wait_for_end();
            let _ = uwrite!(out, "zigsvc: {}: it ended before it was ready; see its log\n", service.name());
            process::write_stderr(out.as_bytes());
            exit::FAILED
        }
    }
}

/// Waits until the process whose start failed has ended. The kernel closes its descriptors one by
/// one, and the pipe before the locks, which the next command must not find taken.
fn wait_for_end() {
    for _ in 0..ENDING_LOOKS {
        while process::reap_any().is_some() {}
        if !process::has_child() {
            break;
        }
        poll::sleep(ENDING_POLL);
    }
}

/// Returns the first whole message, and the bytes after it.
#[must_use]
pub fn next_report(bytes: &[u8]) -> Option<(StartReport<'_>, &[u8])> {
    let newline = find_newline(bytes.get(2..)?)?;
    let (message, rest) = bytes.split_at_checked(newline.saturating_add(3))?;
    let text = message.get(2..)?;
    Some(match *message.first()? {
        READY => {
            let number = crate::util::text::parse_u64(text.strip_suffix(b"\n").unwrap_or(text));
            (StartReport::Ready(number.unwrap_or(0)), rest)
        }
        FAILURE => (StartReport::Failure(*message.get(1)?, text), rest),
        _ => (StartReport::Warning(text), rest),
    })
}

/// The process of a service after the steps that are the same for all.
pub struct Process {
    /// The source of the configuration.
    pub config_source: &'static ConfigSource,
    /// The configuration in force.
    pub config: &'static mut Config,
    /// Memory for the next configuration.
    pub candidate: &'static mut Config,
    /// The signals that have arrived.
    pub signals: Signals,
    /// The PID file, which is locked until the end.
    pub pid_file: PidFile,
    /// The path of the PID file.
    pub pid_path: Path,
    /// The socket that is the second lock. `jobs` has the lock of its spool instead.
    pub second_lock: Option<OwnedFd>,
    /// The user that the service becomes, if `user` is set.
    pub identity: Option<Identity>,
    /// The process to which the start is reported.
    pub reporter: StartReporter,
    /// The service runs in the foreground, by `run`.
    pub foreground: bool,
    /// The messages to the service manager.
    pub notify: Notify,
}

impl Process {
    /// Runs steps 1 to 11 of daemon(7): descriptors, signals, umask, folder, lock. A failure is
    /// reported and ends the process.
    #[must_use]
    #[inline(never)]
    pub fn prepare(
        service: Service,
        config_source: &'static ConfigSource,
        config: &'static mut Config,
        candidate: &'static mut Config,
        reporter: StartReporter,
    ) -> Self {
        let identity = resolve_identity(config, &reporter);
        fail_untrusted(service, config_source, config, &reporter);
        let foreground = reporter.is_foreground();
        match &reporter {
            StartReporter::Starter(pipe) => fds::close_inherited(&[pipe]),
            StartReporter::Foreground(ready)
            | StartReporter::Journal(ready)
            | StartReporter::Syslog(ready) => {
                fds::close_inherited(ready.as_ref().as_slice());
            }
        }
        signal::reset_all();
        process::umask(0o027);
        let last_standard = if foreground { 0 } else { 2 };
        let steps = process::chdir(c"/").and_then(|()| fds::nullify(0, last_standard));
        let signals = match steps.and_then(|()| Signals::install()) {
            Ok(signals) => signals,
            Err(failure) => reporter.fail(exit::FAILED, &|out| failure.describe(out)),
        };
        let Some(pid_path) = path_of(service, ServiceFile::Pid, config) else {
            reporter.fail(exit::CONFIG, &|out| out.push_str("pid_file: its folder's path is too long"));
        };
        refuse_second(service, config, &pid_path, &reporter);
        let pid_file = acquire(config, &pid_path, &reporter);
        let second_lock = match service {
            Service::Jobs => None,
            _ => take_second_lock(service, config, &pid_file, &pid_path, &reporter),
        };
        if !config_source.supervised {
            down_mark::clear(&pid_path);
        } else if down_mark::is_set(&pid_path, &boot_id()) {
            // A user stopped the service after the supervisor decided to start it.
            pid_file.release(pid_path.as_c_str());
            process::exit(exit::OK);
        }
        let notify = Notify::new(&config_source.init);
        Self {
            config_source,
            config,
            candidate,
            signals,
            pid_file,
            pid_path,
            second_lock,
            identity,
            reporter,
            foreground,
            notify,
        }
    }

    /// Reports that the service cannot start, and ends the process. Leaves no PID file, because it
    /// would mean that the service died.
    pub fn fail(&self, code: u8, text: &dyn Fn(&mut Writer<'_>)) -> ! {
        self.pid_file.release(self.pid_path.as_c_str());
        self.reporter.fail(code, text)
    }

    /// Reports that a system call on `path` failed, and ends the process. Leaves no PID file.
    pub fn fail_at(&self, path: &Path, failure: Failure) -> ! {
        self.pid_file.release(self.pid_path.as_c_str());
        self.reporter.fail_at(path, failure)
    }

    /// Locks the file `name` in `folder`, too. It keeps out a second instance that has another PID
    /// file, or started after the PID file was removed.
    #[must_use]
    pub fn lock_also(&self, folder: &Path, name: &[u8]) -> PidFile {
        let Some(path) = folder.join(name) else {
            self.fail_at(folder, Failure { op: Op::Openat, errno: Errno::NAMETOOLONG });
        };
        match PidFile::acquire(&path, self.pid_path.as_bytes()) {
            Ok(lock) => lock,
            Err(AcquireError::Running(pid)) => self.fail(exit::FAILED, &|out| describe_running(pid, out)),
            Err(AcquireError::Failed(failure)) => self.fail_at(&path, failure),
        }
    }

    /// Becomes the configured user for good. To be called when all files that only root can open
    /// are open.
    pub fn drop_privileges(&self) {
        if let Some(identity) = &self.identity
            && let Err(failure) = identity::drop_privileges(identity)
        {
            self.fail(exit::NO_PRIVILEGE, &|out| {
                out.push_str("user: ");
                failure.describe(out);
            });
        }
    }
}

/// Returns the exit code of a start for which a system call failed.
pub fn failure_code(failure: Failure) -> u8 {
    if failure.is_denied() { exit::NO_PRIVILEGE } else { exit::FAILED }
}

/// Bytes of the content of a PID file.
pub const PID_LINE_BYTES: usize = 16;

/// Returns the content of the PID file of this process.
pub fn pid_line(buffer: &mut [u8; PID_LINE_BYTES]) -> &[u8] {
    let mut out = Writer::new(buffer);
    let _ = uwrite!(out, "{}\n", process::pid().as_raw_pid());
    let length = out.len();
    buffer.get(..length).unwrap_or(&[])
}

/// Ends the process if the service runs already, but its PID file is lost.
fn refuse_second(service: Service, config: &Config, pid_path: &Path, reporter: &StartReporter) {
    let deadline = clock::now() + LOCKED_WAIT;
    let locks = ServiceLocks { service, config, pid_path };
    // A process that is ending holds its locks a little longer than its PID file.
    while let Ok(LockState::PidFileLost(pid)) = locks.state() {
        if deadline.is_due(clock::now()) {
            reporter.fail(exit::FAILED, &|out| describe_running(pid, out));
        }
        poll::sleep(LOCKED_POLL);
    }
}

/// Takes the second lock, or ends the process if another instance has it. Warns if a process of
/// another user has it, because every user can bind its name.
fn take_second_lock(
    service: Service,
    config: &Config,
    pid_file: &PidFile,
    pid_path: &Path,
    reporter: &StartReporter,
) -> Option<OwnedFd> {
    let deadline = clock::now() + LOCKED_WAIT;
    loop {
        let failure = match second_lock::bind(service, identity::effective_uid(), pid_path) {
            Ok(lock) => return Some(lock),
            Err(failure) => failure,
        };
        match second_lock::find_holder(service, config, pid_path) {
            SecondHolder::Service(pid) => {
                pid_file.release(pid_path.as_c_str());
                reporter.fail(exit::FAILED, &|out| describe_running(pid, out));
            }
            SecondHolder::Free if failure.errno == Errno::ADDRINUSE && !deadline.is_due(clock::now()) => {
                poll::sleep(LOCKED_POLL);
            }
            SecondHolder::Free => {
                reporter.warn(&|out| describe_at(pid_path, failure, out));
                return None;
            }
            SecondHolder::Stranger(pid, uid) => {
                reporter.warn(&|out| LookupFailed::Stranger(pid, uid).describe(pid_path, out));
                return None;
            }
        }
    }
}

/// Locks the PID file or ends the process. The file is opened in the folder that is judged here,
/// because `user` may replace a folder of its own by a link at any moment.
fn acquire(config: &Config, path: &Path, reporter: &StartReporter) -> PidFile {
    let mut line = [0; PID_LINE_BYTES];
    let line = pid_line(&mut line);
    let mut judge = Judge::new(config);
    let acquired = match judge.find_file(path, Subject::Runtime) {
        Ok(Some(found)) => {
            let name = Path::or_empty(&[path.name()]);
            PidFile::acquire_in(found.folder.as_fd(), &name, path, line)
        }
        Ok(None) => Err(Failure { op: Op::Openat, errno: Errno::NOENT }.into()),
        Err(TrustRefusal::Failed(failure)) => Err(failure.into()),
        Err(refusal) => reporter.fail(exit::CONFIG, &|out| judge.describe(refusal, path, out)),
    };
    match acquired {
        Ok(pid_file) => {
            if let Some(failure) = pid_file.unwritten() {
                reporter.warn(&|out| {
                    out.push_str("the PID file cannot be written: ");
                    describe_at(path, failure, out);
                });
            }
            pid_file
        }
        Err(AcquireError::Running(pid)) => reporter.fail(exit::FAILED, &|out| describe_running(pid, out)),
        Err(AcquireError::Failed(failure)) => reporter.fail_at(path, failure),
    }
}

/// Writes `another instance is already running (pid N)`.
fn describe_running(pid: Option<Pid>, out: &mut Writer<'_>) {
    match pid {
        Some(pid) => {
            let _ = uwrite!(out, "another instance is already running (pid {})", pid.as_raw_pid());
        }
        None => out.push_str("another instance is already running (in another PID namespace)"),
    }
}

/// Ends the process if another user can change a path of the service.
#[inline(never)]
fn fail_untrusted(service: Service, source: &ConfigSource, config: &Config, reporter: &StartReporter) {
    let mut reason = [0; REPORT_BYTES];
    let mut text = Writer::new(&mut reason);
    if judge_paths(service, source, config, false, &mut text).is_err() {
        reporter.fail(exit::CONFIG, &|out| out.push(text.as_bytes()));
    }
}

/// Finds the configured user, or ends the process.
fn resolve_identity(config: &Config, reporter: &StartReporter) -> Option<Identity> {
    if config.user.is_empty() {
        return None;
    }
    let identity = match accounts::resolve(&config.user, &config.group) {
        Ok(identity) => identity,
        Err(name) => reporter.fail(exit::CONFIG, &|out| {
            out.push_str("user or group \"");
            out.push_escaped(name);
            out.push_str("\" is neither a number nor known to /etc/passwd or /etc/group");
        }),
    };
    let uid = identity::effective_uid();
    if uid != 0 && uid != identity.uid {
        reporter.fail(exit::NO_PRIVILEGE, &|out| out.push_str("user: only root can become another user"));
    }
    // An unprivileged service that is to run as itself already does.
    (uid == 0).then_some(identity)
}
