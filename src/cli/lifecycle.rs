//! The commands that start, stop and signal a service. A signal is sent to the process that
//! holds the lock of the PID file, never to the number that is written in the file.

use super::client::Client;
use super::command_line::CommandOption;
use super::invocation::{After, Invocation, find_holder};
use super::output::{CommandResult, fail, fail_at, usage, usage_text};
use super::programs::send;
use super::services::of;
use crate::limits::{ANSWER_MAX_BYTES, STOP_GRACE};
use crate::proto::answer::Answer;
use crate::proto::service::Service;
use crate::proto::status::field;
use crate::service::config_source::{ServiceFile, path_of};
use crate::service::down_mark::DownMark;
use crate::service::lifecycle::{StartReporter, detach, exit};
use crate::service::lock_holder::{LockHolder, LockState, ServiceLocks};
use crate::service::notify::Init;
use crate::sys::lock::{self, Holder, PidFile, holder};
use crate::sys::process::Signal;
use crate::sys::spawn::REPORT_FD;
use crate::sys::{Errno, Failure, clock, fds, file};
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::Duration;
use ufmt::uwrite;

/// Time for which `stop` waits for the state of the service.
const STATE_WAIT: Duration = Duration::from_ms(2000);
/// Time between the signals of `stop --now`.
const HURRY_WAIT: Duration = Duration::from_ms(100);

/// Runs `start [--child FOLDER] [SERVICE]`.
pub(super) fn start(mut invocation: Invocation) -> CommandResult {
    invocation.load()?;
    let service = of(invocation.service);
    (service.check_operands)(&invocation)?;
    invocation.memory.config_source.supervised = invocation.operands.has(CommandOption::Child);
    let reporter = if invocation.operands.has(CommandOption::Again) {
        // No process waits for the report of a service that has executed itself.
        let null = file::open(c"/dev/null", file::OFlags::WRONLY, 0);
        StartReporter::Starter(null.map_err(|failure| fail(exit::FAILED, &|out| failure.describe(out)))?)
    } else if invocation.memory.config_source.supervised {
        // The supervisor started this process: it stays in the foreground, and reports the
        // start on a descriptor.
        let fd = fds::adopt(REPORT_FD).ok_or_else(|| usage_text("start", "--child is for the supervisor"))?;
        StartReporter::Starter(fd)
    } else {
        detach(invocation.service).inspect_err(|code| {
            if *code == exit::OK {
                (service.print_started)(&invocation);
            }
        })?
    };
    (service.serve)(invocation, reporter)
}

/// Runs `run [--ready-fd N] [--health FILE] [SERVICE] [-- CMD...]`.
pub(super) fn run(mut invocation: Invocation) -> CommandResult {
    let mut line = [0; 512];
    let mut why = Writer::new(&mut line);
    let loaded = invocation.load_to(&mut why);
    let reporter = if invocation.operands.env(b"JOURNAL_STREAM").is_some_and(is_stderr) {
        StartReporter::Journal
    } else if invocation.memory.config.syslog {
        StartReporter::Syslog
    } else {
        StartReporter::Foreground
    };
    if loaded.is_err() {
        reporter(None).fail(exit::CONFIG, &|out| out.push_visible(why.as_bytes()));
    }
    let service = of(invocation.service);
    (service.check_operands)(&invocation)?;
    let ready = match invocation.operands.ready_fd() {
        Some(number) => Some(fds::adopt(number).ok_or_else(|| {
            usage("run", &|out| {
                let _ = uwrite!(out, "--ready-fd {}: this descriptor is not open", number);
            })
        })?),
        None => None,
    };
    let env = |name: &[u8]| invocation.operands.env(name);
    invocation.memory.config_source.init = Init {
        notify_socket: env(b"NOTIFY_SOCKET"),
        watchdog_usec: env(b"WATCHDOG_USEC"),
        watchdog_pid: env(b"WATCHDOG_PID"),
    };
    (service.serve)(invocation, reporter(ready))
}

/// Returns true if stderr is the stream `DEV:INODE`.
fn is_stderr(stream: &[u8]) -> bool {
    let Ok(meta) = file::meta(fds::borrow(2)) else { return false };
    let mut text = [0; 48];
    let mut out = Writer::new(&mut text);
    let _ = uwrite!(out, "{}:{}", meta.identity.0, meta.identity.1);
    stream == out.as_bytes()
}

/// Runs `stop [--now] [SERVICE]`.
pub(super) fn stop(mut invocation: Invocation) -> CommandResult {
    invocation.load_or_defaults();
    let now = invocation.operands.has(CommandOption::Now);
    if !is_supervised(&invocation) {
        invocation.find_running_service();
    }
    if let Some(result) = (of(invocation.service).ask_after)(&mut invocation, After::Stop, false) {
        return result;
    }
    let Stopping { mark, ended } = stop_running(&mut invocation, Way { now, marks: true })?;
    if let Err(failure) = mark
        && is_supervised(&invocation)
    {
        return Err(fail(exit::FAILED, &|out| {
            out.push_str(invocation.service.name());
            out.push_str(": stopped, but its supervisor will start it again: the mark of the stop: ");
            failure.describe(out);
        }));
    }
    Ok(match ended {
        Stopped::WasNotRunning => invocation.confirm("was not running"),
        Stopped::ByTerm => invocation.confirm("stopped"),
        Stopped::ByKill => invocation.confirm("killed"),
    })
}

/// Returns true if a supervisor runs that starts the service again.
pub(super) fn is_supervised(invocation: &Invocation) -> bool {
    let config = &invocation.memory.config;
    let is_held = |pid_path: Path| {
        let locks = ServiceLocks { service: Service::Supervisor, config, pid_path: &pid_path };
        matches!(locks.state(), Ok(LockState::Running(_) | LockState::PidFileLost(_)))
    };
    Service::Supervisor.is_built_in()
        && config.supervised().any(|name| name == invocation.service.name().as_bytes())
        && path_of(Service::Supervisor, ServiceFile::Pid, config).is_some_and(is_held)
}

/// Runs `reload [SERVICE]`.
pub(super) fn reload(mut invocation: Invocation) -> CommandResult {
    invocation.load_quietly();
    // The service of another user checks the configuration itself.
    if !invocation.find_running_service() {
        invocation.load_judged(false)?;
        (of(invocation.service).refuse)(&mut invocation, true)?;
    }
    send(&invocation, Signal::HUP)
}

/// Runs `rotate [SERVICE]`.
pub(super) fn rotate(mut invocation: Invocation) -> CommandResult {
    invocation.load_or_defaults();
    invocation.find_running_service();
    send(&invocation, Signal::USR1)
}

/// The way in which a service ended.
pub(super) enum Stopped {
    WasNotRunning,
    ByTerm,
    ByKill,
}

/// A stop that has succeeded.
pub(super) struct Stopping {
    /// The mark of a stop on purpose; `None` if another process has made it, which stops the
    /// service at the same time.
    pub(super) mark: Result<Option<DownMark>, Failure>,
    pub(super) ended: Stopped,
}

/// The way in which a service is to be stopped.
#[derive(Clone, Copy)]
pub(super) struct Way {
    /// Running jobs are ended at once, also if the service is stopping already.
    pub(super) now: bool,
    /// The stop is on purpose: a supervisor does not start the service again.
    pub(super) marks: bool,
}

/// Ends the process that holds the service's lock, and waits until it has ended. A service
/// that is being stopped is only waited for, unless `way` says otherwise.
///
/// # Errors
/// The service still runs; the exit code, after printing the reason.
pub(super) fn stop_running(invocation: &mut Invocation, way: Way) -> Result<Stopping, u8> {
    let path = &invocation.pid_path()?;
    // A supervisor that sees the end of the service must find the mark.
    let mut mark = if way.marks { DownMark::make(path) } else { Ok(None) };
    let (mut ended, mut before) = (Stopped::WasNotRunning, None);
    if mark.is_err() {
        before = find_holder(&invocation.locks(path))?;
        if supervisor_does(invocation, b"stop") {
            // It remembers the stop, which the mark would show otherwise.
            mark = Ok(None);
            ended = if before.is_some() { Stopped::ByTerm } else { ended };
        }
    }
    let Some(holder) = find_holder(&invocation.locks(path))? else {
        // Its lock is free a little earlier than it has ended.
        let _ = before.is_none_or(|holder| holder.is_gone_within(&invocation.locks(path), STOP_GRACE));
        clear_dead(path);
        return Ok(Stopping { mark, ended });
    };
    let is_marked = way.marks && matches!(mark, Ok(None));
    let is_stopping = !way.now && (is_marked || answers_stopping(invocation));
    match end(invocation, &holder, path, way, is_stopping) {
        Ok(ended) => Ok(Stopping { mark, ended }),
        Err(code) => {
            if let Ok(Some(mark)) = mark {
                mark.withdraw(path);
            }
            Err(code)
        }
    }
}

/// Sends `verb` and the name of the service to the supervisor. Returns true if the supervisor does
/// that.
#[cold]
#[inline(never)]
pub(super) fn supervisor_does(invocation: &mut Invocation, verb: &[u8]) -> bool {
    if !Service::Supervisor.is_built_in() {
        return false;
    }
    let Invocation { service, command, memory, .. } = invocation;
    let Some(lines) = memory.scratch.pages().get_mut(..ANSWER_MAX_BYTES) else { return false };
    let Ok(mut client) = Client::new(Service::Supervisor, command, &memory.config, lines) else {
        return false;
    };
    let answer = client
        .connect(clock::now())
        .and_then(|()| client.send(&[verb, b" ", service.name().as_bytes()]))
        .and_then(|()| client.line(Some(clock::now() + STATE_WAIT)));
    answer.is_ok_and(|line| matches!(Answer::parse(client.at(line)), Answer::Ok(_)))
}

/// Returns true if the service itself answers that it is stopping.
fn answers_stopping(invocation: &mut Invocation) -> bool {
    if !invocation.service.is(Service::Jobs) {
        return false;
    }
    let Ok((mut client, _)) = invocation.loaded_client(ANSWER_MAX_BYTES) else { return false };
    let deadline = clock::now() + STATE_WAIT;
    let answer = client
        .connect(clock::now())
        .and_then(|()| client.send(&[b"status"]))
        .and_then(|()| client.line(Some(deadline)));
    answer.is_ok_and(|line| field(client.at(line), "state") == Some(b"stopping"))
}

/// Ends a process by signals: TERM unless it is `stopping` already, then KILL.
fn end(
    invocation: &Invocation,
    holder: &LockHolder,
    path: &Path,
    way: Way,
    stopping: bool,
) -> Result<Stopped, u8> {
    let grace = invocation.memory.config.stop_timeout + STOP_GRACE;
    // Two signals that arrive at once count as one, so `--now` sends one more.
    let hurries: &[_] = if way.now { &[HURRY_WAIT, HURRY_WAIT] } else { &[] };
    let terms = hurries.iter().map(|wait| (Signal::TERM, *wait)).chain([(Signal::TERM, grace)]);
    for (signal, wait) in terms.chain([(Signal::KILL, STOP_GRACE)]) {
        if signal == Signal::KILL {
            // Without this, `status` would take this for a crash if this process ended now.
            let _ = lock::mark_stopped(path.as_c_str(), holder.pid);
        }
        // A process that was stopped by a signal takes TERM only after CONT.
        let sent = match signal == Signal::TERM && stopping {
            true => Ok(()),
            false => holder.send(signal).and_then(|()| holder.send(Signal::CONT)),
        };
        if let Err(failure) = sent
            && failure.errno != Errno::SRCH
        {
            return Err(fail_at(path, failure));
        }
        if holder.is_gone_within(&invocation.locks(path), wait) {
            if way.marks {
                clear_dead(path);
            }
            return Ok(if signal == Signal::TERM { Stopped::ByTerm } else { Stopped::ByKill });
        }
    }
    Err(fail(exit::FAILED, &|out| {
        let _ = uwrite!(out, "stop: pid {} does not end, not even by KILL", holder.pid.as_raw_pid());
    }))
}

/// Empties a PID file that is filled and not locked. Such a file means that the service
/// died, and after a stop it must mean that the service was stopped.
fn clear_dead(path: &Path) {
    if holder(path.as_c_str()) == Ok(Holder::Died)
        && let Ok(pid_file) = PidFile::acquire(path, b"")
    {
        pid_file.release(path.as_c_str());
    }
}
