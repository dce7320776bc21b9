//! The commands that start, stop and signal a service. A signal is sent to the process that
//! holds the lock of the PID file, never to the number that is written in the file.

use super::command_line::CommandOption;
use super::invocation::{Invocation, find_holder};
use super::output::{CommandResult, fail, fail_at, usage, usage_text};
use crate::limits::{PATH_MAX_BYTES, STOP_GRACE};
use crate::proto::config::keys::absolute;
use crate::proto::service::Service;
use crate::service::lifecycle::{StartReporter, describe_at, detach, exit};
use crate::service::lock_holder::LookupFailed;
use crate::service::notify::Init;
use crate::service::supervisor::LaunchSpec;
use crate::service::{collector, hub, jobs, opener, supervisor};
use crate::sys::lock::{self, Holder, PidFile, holder};
use crate::sys::process::Signal;
use crate::sys::spawn::REPORT_FD;
use crate::sys::{Errno, fds, file};
use crate::util::path::Path;
use crate::util::text::{Writer, text_with_number};
use ufmt::uwrite;

/// Runs `start [--child FOLDER] [SERVICE]`.
pub(super) fn start(mut invocation: Invocation) -> CommandResult {
    invocation.load()?;
    start_loaded(invocation)
}

/// Starts a service whose configuration has been read.
fn start_loaded(invocation: Invocation) -> CommandResult {
    let launch_spec = launch_spec(&invocation)?;
    let reporter = if invocation.operands.has(CommandOption::Child) {
        // The supervisor started this process: it stays in the foreground, and reports the
        // start on a descriptor.
        let fd = fds::adopt(REPORT_FD).ok_or_else(|| usage_text("start", "--child is for the supervisor"))?;
        StartReporter::Starter(fd)
    } else {
        detach(invocation.service)?
    };
    serve(invocation, reporter, launch_spec)
}

/// Runs `run [--ready-fd N] [--health FILE] [SERVICE] [-- CMD...]`.
pub(super) fn run(mut invocation: Invocation) -> CommandResult {
    invocation.journal = invocation.operands.env(b"JOURNAL_STREAM").is_some_and(is_stderr);
    invocation.load()?;
    let launch_spec = launch_spec(&invocation)?;
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
    let reporter = if invocation.journal { StartReporter::Journal } else { StartReporter::Foreground };
    serve(invocation, reporter(ready), launch_spec)
}

/// Becomes the service.
fn serve(invocation: Invocation, reporter: StartReporter, launch_spec: LaunchSpec) -> CommandResult {
    Ok(match invocation.service {
        Service::Supervisor => supervisor::serve(invocation.memory, reporter, launch_spec),
        Service::Hub => hub::serve(invocation.memory, reporter),
        Service::Collector => collector::serve(invocation.memory, reporter),
        Service::Opener => opener::serve(invocation.memory, reporter),
        Service::Jobs => jobs::serve(invocation.memory, reporter),
    })
}

/// Returns the part of the command line that the supervisor needs.
///
/// # Errors
/// The command line has a mistake; the exit code, after printing the reason.
fn launch_spec(invocation: &Invocation) -> Result<LaunchSpec, u8> {
    let Invocation { command, service, operands, args, command_at, memory, .. } = invocation;
    let refuse = |text: &str| Err(usage_text(command, text));
    let program = if operands.literal { operands.program() } else { &[] };
    if !program.is_empty() && *service != Service::Supervisor {
        return refuse("only `supervisor` runs a program: supervisor -- CMD ARG...");
    }
    if !program.is_empty() {
        let base = &memory.config_source.base;
        let word = operands.get(0).unwrap_or(b"");
        let file = if word.contains(&b'/') { base.join(word) } else { Path::new(word) };
        if file.is_none() {
            return refuse(text_with_number!(
                "CMD: a path, made absolute, has at most ",
                PATH_MAX_BYTES,
                " bytes"
            ));
        }
        if base.is_empty() {
            return refuse(text_with_number!(
                "CMD runs in the working directory, which is gone, or whose path is over ",
                PATH_MAX_BYTES,
                " bytes"
            ));
        }
    }
    let health = match operands.value(CommandOption::Health) {
        Some(_) if program.is_empty() => return refuse("--health is for supervisor -- CMD ARG..."),
        Some(path) => match absolute(&memory.config_source.base, path) {
            None => {
                return refuse(text_with_number!(
                    "--health: a path, made absolute, has 1 to ",
                    PATH_MAX_BYTES,
                    " bytes"
                ));
            }
            path => path,
        },
        None => None,
    };
    Ok(LaunchSpec { args: *args, command_at: *command_at, program, health })
}

/// Returns true if stderr is the stream `DEV:INODE`.
fn is_stderr(stream: &[u8]) -> bool {
    let Ok(meta) = file::meta(fds::borrow(2)) else { return false };
    let mut text = [0; 48];
    let mut out = Writer::new(&mut text);
    let _ = uwrite!(out, "{}:{}", meta.identity.0, meta.identity.1);
    stream == out.as_bytes()
}

/// Runs `stop [SERVICE]`.
pub(super) fn stop(mut invocation: Invocation) -> CommandResult {
    invocation.load_or_defaults();
    Ok(match stop_running(&invocation, exit::FAILED)? {
        Stopped::WasNotRunning => invocation.confirm("was not running"),
        Stopped::ByTerm => invocation.confirm("stopped"),
        Stopped::ByKill => invocation.confirm("killed"),
    })
}

/// Runs `restart [SERVICE]`.
pub(super) fn restart(mut invocation: Invocation) -> CommandResult {
    // A mistake that prevents the start is found before the service is stopped.
    invocation.load()?;
    launch_spec(&invocation)?;
    let pid_path = invocation.pid_path()?;
    // A process of another user keeps no service from starting. The start warns about it.
    if !matches!(invocation.locks(&pid_path).state(), Err(LookupFailed::Stranger(..))) {
        stop_running(&invocation, exit::NO_PRIVILEGE)?;
    }
    start_loaded(invocation)
}

/// Runs `reload [SERVICE]`.
pub(super) fn reload(mut invocation: Invocation) -> CommandResult {
    invocation.load()?;
    signal_service(&invocation, Signal::HUP)
}

/// Runs `rotate [SERVICE]`.
pub(super) fn rotate(mut invocation: Invocation) -> CommandResult {
    invocation.load_or_defaults();
    signal_service(&invocation, Signal::USR1)
}

/// Sends one signal to a running service.
fn signal_service(invocation: &Invocation, signal: Signal) -> CommandResult {
    let path = invocation.pid_path()?;
    let Some(holder) = find_holder(&invocation.locks(&path))? else {
        return Err(fail(exit::NOT_RUNNING, &|out| {
            out.push_str(invocation.service.name());
            out.push_str(": not running");
        }));
    };
    holder.send(signal).map_err(|failure| fail_at(&path, failure))?;
    Ok(exit::OK)
}

/// The way in which a service ended.
enum Stopped {
    WasNotRunning,
    ByTerm,
    ByKill,
}

/// Ends the process that holds the service's lock, and waits until it has ended. `denied` is
/// the exit code if the process must not be signalled.
///
/// # Errors
/// The service still runs; the exit code, after printing the reason.
fn stop_running(invocation: &Invocation, denied: u8) -> Result<Stopped, u8> {
    let path = &invocation.pid_path()?;
    let locks = invocation.locks(path);
    let Some(holder) = find_holder(&locks)? else {
        clear_dead(path);
        return Ok(Stopped::WasNotRunning);
    };
    let grace = invocation.memory.config.stop_timeout + STOP_GRACE;
    for (signal, wait) in [(Signal::TERM, grace), (Signal::KILL, STOP_GRACE)] {
        if signal == Signal::KILL {
            // Without the mark a supervisor would take this for a crash, and restart it.
            let _ = lock::mark_stopped(path.as_c_str(), holder.pid);
        }
        // A process that was stopped by a signal takes TERM only after CONT.
        if let Err(failure) = holder.send(signal).and_then(|()| holder.send(Signal::CONT))
            && failure.errno != Errno::SRCH
        {
            let code = if failure.is_denied() { denied } else { exit::FAILED };
            return Err(fail(code, &|out| describe_at(path, failure, out)));
        }
        if holder.is_gone_within(&locks, wait) {
            clear_dead(path);
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
