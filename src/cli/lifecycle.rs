//! Starting, stopping and signalling a service. Whom to signal is what the
//! lock of the PID file says, never what is written in it.

use super::{Invocation, fail, print, usage};
use crate::limits::{PATH_MAX_BYTES, STOP_GRACE};
use crate::proto::config::keys::absolute;
use crate::proto::service::Service;
use crate::service::lifecycle::{StartReporter, describe_at, detach, exit};
use crate::service::notify::Init;
use crate::service::supervisor::LaunchSpec;
use crate::service::{collector, hub, jobs, opener, supervisor};
use crate::sys::lock::{self, Holder, PidFile, holder};
use crate::sys::process::Signal;
use crate::sys::spawn::REPORT_FD;
use crate::sys::{Errno, Failure, fds, file};
use crate::util::path::Path;
use crate::util::text::{Writer, text_with_number};
use ufmt::uwrite;

/// `start [--child FOLDER] [SERVICE]`
pub(super) fn start(mut invocation: Invocation) -> u8 {
    match invocation.load() {
        Ok(()) => start_loaded(invocation),
        Err(code) => code,
    }
}

fn start_loaded(invocation: Invocation) -> u8 {
    let launch_spec = match launch_spec(&invocation) {
        Ok(launch_spec) => launch_spec,
        Err(code) => return code,
    };
    let reporter = if invocation.operands.child.is_some() {
        // We are what the supervisor started: no way into the background, and it
        // is told how the start goes.
        match fds::adopt(REPORT_FD) {
            Some(fd) => Ok(StartReporter::Starter(fd)),
            None => Err(usage("start", &|out| out.push_str("--child is for the supervisor"))),
        }
    } else {
        detach(invocation.service)
    };
    match reporter {
        Ok(reporter) => serve(invocation, reporter, launch_spec),
        Err(code) => code,
    }
}

/// `run [--ready-fd N] [--health FILE] [SERVICE] [-- CMD...]`
pub(super) fn run(mut invocation: Invocation) -> u8 {
    invocation.journal = invocation.operands.env(b"JOURNAL_STREAM").is_some_and(is_stderr);
    if let Err(code) = invocation.load() {
        return code;
    }
    let launch_spec = match launch_spec(&invocation) {
        Ok(launch_spec) => launch_spec,
        Err(code) => return code,
    };
    let ready = match invocation.operands.ready_fd.map(|number| (number, fds::adopt(number))) {
        Some((number, None)) => {
            return fail(exit::USAGE, &|out| {
                let _ = uwrite!(
                    out,
                    "usage: --ready-fd {}: this descriptor is not open; see `zigsvc help run`",
                    number
                );
            });
        }
        Some((_, fd)) => fd,
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
fn serve(invocation: Invocation, reporter: StartReporter, launch_spec: LaunchSpec) -> u8 {
    match invocation.service {
        Service::Supervisor => supervisor::serve(invocation.memory, reporter, launch_spec),
        Service::Hub => hub::serve(invocation.memory, reporter),
        Service::Collector => collector::serve(invocation.memory, reporter),
        Service::Opener => opener::serve(invocation.memory, reporter),
        Service::Jobs => jobs::serve(invocation.memory, reporter),
    }
}

/// What the supervisor has to know; tells what the command line must not say.
fn launch_spec(invocation: &Invocation) -> Result<LaunchSpec, u8> {
    let Invocation { command, service, operands, args, command_at, memory, .. } = invocation;
    let refuse = |text: &str| Err(usage(command, &|out| out.push_str(text)));
    let program = if operands.literal { operands.program() } else { &[] };
    if !program.is_empty() && *service != Service::Supervisor {
        return refuse("only `supervisor` runs a program: supervisor -- CMD ARG...");
    }
    let health = match operands.health {
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

/// Whether stderr is the stream `DEV:INODE`.
fn is_stderr(stream: &[u8]) -> bool {
    let Ok(meta) = file::meta(fds::borrow(2)) else { return false };
    let mut text = [0; 48];
    let mut out = Writer::new(&mut text);
    let _ = uwrite!(out, "{}:{}", meta.identity.0, meta.identity.1);
    stream == out.as_bytes()
}

/// `stop [SERVICE]`
pub(super) fn stop(mut invocation: Invocation) -> u8 {
    invocation.load_or_defaults();
    match invocation.pid_path() {
        Ok(path) => stop_at(&path, &invocation),
        Err(code) => code,
    }
}

/// `restart [SERVICE]`
pub(super) fn restart(mut invocation: Invocation) -> u8 {
    // Whatever keeps it from starting is told before it is stopped.
    let checked = invocation.load().and_then(|()| launch_spec(&invocation).map(drop));
    let path = match checked.and_then(|()| invocation.pid_path()) {
        Ok(path) => path,
        Err(code) => return code,
    };
    match stop_at(&path, &invocation) {
        exit::OK => start_loaded(invocation),
        code => code,
    }
}

/// `reload [SERVICE]`
pub(super) fn reload(mut invocation: Invocation) -> u8 {
    match invocation.load() {
        Ok(()) => signal_service(&invocation, Signal::HUP),
        Err(code) => code,
    }
}

/// `rotate [SERVICE]`
pub(super) fn rotate(mut invocation: Invocation) -> u8 {
    invocation.load_or_defaults();
    signal_service(&invocation, Signal::USR1)
}

/// Sends one signal to a running service.
fn signal_service(invocation: &Invocation, signal: Signal) -> u8 {
    let path = match invocation.pid_path() {
        Ok(path) => path,
        Err(code) => return code,
    };
    match Invocation::lock_holder(&path) {
        Ok(Some(holder)) => match holder.send(signal) {
            Ok(()) => exit::OK,
            Err(failure) => report(&path, failure, exit::NO_PRIVILEGE),
        },
        Ok(None) => fail(exit::NOT_RUNNING, &|out| {
            out.push_str(invocation.service.name());
            out.push_str(": not running");
        }),
        Err(code) => code,
    }
}

/// Ends the holder of the lock, if there is one, and waits until it is gone.
fn stop_at(path: &Path, invocation: &Invocation) -> u8 {
    let holder = match Invocation::lock_holder(path) {
        Ok(Some(holder)) => holder,
        Ok(None) => {
            forget_dead(path);
            if invocation.command == "stop" {
                return confirm(invocation, "was not running");
            }
            return exit::OK;
        }
        Err(code) => return code,
    };
    let denied = if invocation.command == "stop" { exit::FAILED } else { exit::NO_PRIVILEGE };
    let grace = invocation.memory.config.stop_timeout + STOP_GRACE;
    for (signal, wait) in [(Signal::TERM, grace), (Signal::KILL, STOP_GRACE)] {
        if signal == Signal::KILL {
            // Else a supervisor would take it for a death, and start it again.
            let _ = lock::mark_stopped(path.as_c_str(), holder.pid);
        }
        // A stopped process takes no TERM until it goes on.
        if let Err(failure) = holder.send(signal).and_then(|()| holder.send(Signal::CONT))
            && failure.errno != Errno::SRCH
        {
            return report(path, failure, denied);
        }
        if holder.is_gone_within(path, wait) {
            forget_dead(path);
            if invocation.command == "stop" {
                return confirm(invocation, if signal == Signal::TERM { "stopped" } else { "killed" });
            }
            return exit::OK;
        }
    }
    fail(exit::FAILED, &|out| {
        let _ = uwrite!(out, "stop: pid {} does not end, not even by KILL", holder.pid.as_raw_pid());
    })
}

/// A filled PID file that nobody locks says that the service died; after a
/// stop it is to say that it was stopped.
fn forget_dead(path: &Path) {
    if holder(path.as_c_str()) == Ok(Holder::Died)
        && let Ok(pid_file) = PidFile::acquire(path, b"")
    {
        pid_file.release(path.as_c_str());
    }
}

/// One line on stdout: what became of the service.
pub(super) fn confirm(invocation: &Invocation, what: &str) -> u8 {
    let mut line = [0; 80];
    let mut out = Writer::new(&mut line);
    let _ = uwrite!(out, "zigsvc: {} {}\n", invocation.service.name(), what);
    print(out.as_bytes());
    exit::OK
}

/// An error at a PID file; `denied` is the code where a right is missing.
fn report(path: &Path, failure: Failure, denied: u8) -> u8 {
    let code = if failure.is_denied() { denied } else { exit::FAILED };
    fail(code, &|out| describe_at(path, failure, out))
}
