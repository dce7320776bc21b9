//! `restart`: stops a service, and starts it with the options that it had.
//!
//! ```text
//! restart ──fork──▶ a session of its own: stop ──fork──▶ execute `zigsvc OPTIONS start SERVICE`
//!   │ waits                │ waits, and stops again if another command has started it  │
//!   ◀──────────────────────◀───────────────────────────────────────────────────────────┘
//! ```
//!
//! The connection over which a user works may be one of the services that end here, so that
//! the stop and the start are not in the session of the command.

use super::invocation::{After, Invocation, find_holder};
use super::kept_options::{OptionWords, OptionsFound, WORDS_BYTES, merge, push_words, take_memory};
use super::lifecycle::{Way, is_supervised, stop_running, supervisor_does};
use super::output::{CommandResult, fail, print, usage_text};
use super::services::of;
use crate::limits::{RESTART_DELAY_MAX, STOP_GRACE};
use crate::proto::service::Service;
use crate::service::boot::boot_id;
use crate::service::config_source::{ServiceFile, path_of, path_or_empty};
use crate::service::down_mark;
use crate::service::heartbeat::{self, Health};
use crate::service::lifecycle::{describe_at, exit};
use crate::service::lock_holder::{LockHolder, LookupFailed, ServiceLocks};
use crate::service::program;
use crate::sys::once::once;
use crate::sys::process::{self, Exit, Pid, Side};
use crate::sys::spawn::replace_by;
use crate::sys::{Errno, Failure, Op, clock, poll, signal};
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::Duration;
use core::ffi::c_char;
use heapless::Vec;
use ufmt::uwrite;

/// Number of starts of one restart, if other commands start the service at the same time.
const START_TRIES: u32 = 5;
/// Maximum number of words of the command that is executed.
const ARGV_MAX: usize = 1024;
/// Time between two looks for the service that a supervisor starts.
const READY_POLL: Duration = Duration::from_ms(50);

once! {
    last static WORDS: [u8; WORDS_BYTES] = [0; WORDS_BYTES];
}

/// Runs `restart [SERVICE]`.
pub(super) fn restart(mut invocation: Invocation) -> CommandResult {
    let changes = keep_options(&mut invocation)?;
    // A mistake that prevents the start is found before the service is stopped.
    invocation.load_judged(false)?;
    let service = of(invocation.service);
    (service.check_operands)(&invocation)?;
    (service.refuse)(&mut invocation, false)?;
    if let Some(result) = (service.ask_after)(&mut invocation, After::Restart, changes) {
        return result;
    }
    let mut words = OptionWords::new(WORDS.take());
    invocation.memory.config_source.each_option_word(&mut |word| words.push(word));
    if words.is_cut() {
        return Err(usage_text("restart", "the options are too long"));
    }
    let words = words.into_bytes();
    let failed = |failure: Failure| fail(exit::FAILED, &|out| failure.describe(out));
    match process::fork().map_err(failed)? {
        Side::Parent(child) => {
            return Ok(match process::wait_for(child) {
                Exit::Code(code) => code,
                Exit::Signal(_) => exit::FAILED,
            });
        }
        Side::Child => {}
    }
    process::setsid().map_err(failed)?;
    signal::ignore_ends();
    if is_supervised(&invocation) && supervisor_has(&mut invocation, words) {
        return leave_to_supervisor(invocation);
    }
    let pid_path = invocation.pid_path()?;
    for _ in 1..START_TRIES {
        stop(&mut invocation, &pid_path)?;
        match process::fork().map_err(failed)? {
            Side::Child => return Err(start_again(&invocation, words)),
            Side::Parent(child) => match process::wait_for(child) {
                // Another command has started the service meanwhile, perhaps with other options.
                Exit::Code(exit::FAILED)
                    if matches!(find_holder(&invocation.locks(&pid_path)), Ok(Some(_))) => {}
                Exit::Code(code) => return Ok(code),
                Exit::Signal(_) => return Err(exit::FAILED),
            },
        }
    }
    stop(&mut invocation, &pid_path)?;
    Err(start_again(&invocation, words))
}

/// Stops the service, if it runs.
fn stop(invocation: &mut Invocation, pid_path: &Path) -> Result<(), u8> {
    // A process of another user keeps no service from starting. The start warns about it.
    if matches!(invocation.locks(pid_path).state(), Err(LookupFailed::Stranger(..))) {
        return Ok(());
    }
    let way = Way { now: false, marks: true };
    stop_running(invocation, way).map(drop)
}

/// Adds the options with which the service runs, or died, to those of this command line. Returns
/// true if this command line changes them.
///
/// # Errors
/// They are not known, and none were given; the exit code, after printing the reason.
fn keep_options(invocation: &mut Invocation) -> Result<bool, u8> {
    invocation.load_quietly();
    let pid_path = invocation.pid_path()?;
    let holder = find_unless_stranger(&invocation.locks(&pid_path))?;
    let pid = holder.as_ref().map(|holder| raw(holder.pid));
    let service = invocation.service;
    let mut had = OptionWords::new(take_memory());
    let known = had.find(invocation, service, pid);
    let source = &mut invocation.memory.config_source;
    let has_options = source.folder_named || source.file_named || !source.overrides.is_empty();
    match known {
        OptionsFound::Yes => merge(source, had.into_bytes())
            .map_err(|()| usage_text("restart", "too many options -o, with those that the service has")),
        OptionsFound::NoService => Ok(false),
        OptionsFound::No if has_options => Ok(source.file_named || !source.overrides.is_empty()),
        OptionsFound::No => Err(fail(exit::FAILED, &|out| {
            let _ = uwrite!(
                out,
                "restart: neither the health file nor /proc shows the options of pid {}; give them again",
                pid.unwrap_or(0)
            );
        })),
    }
}

/// Returns the process that holds a lock of the service; none if a process of another user holds
/// the second lock.
fn find_unless_stranger(locks: &ServiceLocks<'_>) -> Result<Option<LockHolder>, u8> {
    match locks.state() {
        Err(LookupFailed::Stranger(..)) => Ok(None),
        _ => find_holder(locks),
    }
}

/// Returns the number of a process.
fn raw(pid: Pid) -> u32 {
    u32::try_from(pid.as_raw_pid()).unwrap_or(0)
}

/// Returns true if the supervisor starts the service with the options in `words`.
fn supervisor_has(invocation: &mut Invocation, words: &[u8]) -> bool {
    let config = &invocation.memory.config;
    let Some(pid_path) = path_of(Service::Supervisor, ServiceFile::Pid, config) else { return false };
    let locks = ServiceLocks { service: Service::Supervisor, config, pid_path: &pid_path };
    let Ok(Some(holder)) = LockHolder::find(&locks) else { return false };
    let mut memory = [0; WORDS_BYTES];
    let mut known = OptionWords::new(&mut memory);
    known.find(invocation, Service::Supervisor, Some(raw(holder.pid))) == OptionsFound::Yes
        && known.as_bytes() == words
}

/// Ends the service, and waits until its supervisor has started it again. It stays the
/// supervisor's child.
#[inline(never)]
fn leave_to_supervisor(mut invocation: Invocation) -> CommandResult {
    let path = invocation.pid_path()?;
    // Without the mark its end is a death, which the supervisor mends.
    down_mark::clear(&path);
    let holder = LockHolder::find(&invocation.locks(&path));
    let mut before = holder.ok().flatten().map(|holder| holder.pid);
    if !supervisor_does(&mut invocation, b"restart") {
        stop_running(&mut invocation, Way { now: false, marks: false })?;
        before = None;
    }
    let config = &invocation.memory.config;
    let health = path_or_empty(invocation.service, ServiceFile::Health, config);
    let patience = config.stop_timeout + STOP_GRACE + RESTART_DELAY_MAX;
    let deadline = clock::now() + patience + config.check_interval + config.stale_after;
    let boot = boot_id();
    loop {
        if let Ok(Some(holder)) = LockHolder::find(&invocation.locks(&path))
            && before != Some(holder.pid)
        {
            let pid = raw(holder.pid);
            // The first heartbeat is written when the service is ready.
            if let Health::Judged(_, record) =
                heartbeat::probe(&health, pid, &boot, clock::now(), config.stale_after)
                && record.pid == pid
            {
                let mut line = [0; 80];
                let mut out = Writer::new(&mut line);
                let _ = uwrite!(out, "zigsvc: {} started (pid {})\n", invocation.service.name(), pid);
                print(out.as_bytes())?;
                (of(invocation.service).print_started)(&invocation);
                return Ok(exit::OK);
            }
        }
        if down_mark::is_set(&path, &boot) {
            // The supervisor starts it no more.
            return Err(fail(exit::FAILED, &|out| {
                out.push_str(invocation.service.name());
                out.push_str(": another command has stopped it meanwhile");
            }));
        }
        if deadline.is_due(clock::now()) {
            return Err(fail(exit::FAILED, &|out| {
                out.push_str(invocation.service.name());
                out.push_str(": its supervisor has not started it again; see zigsvc-supervisor.log");
            }));
        }
        poll::sleep(READY_POLL);
    }
}

/// Executes `zigsvc WORDS start ...` in this process, with the rest of the command line. Returns
/// the exit code if that fails.
#[inline(never)]
fn start_again(invocation: &Invocation, words: &'static [u8]) -> u8 {
    let file =
        program::find(&invocation.args, invocation.args.executable(), &invocation.memory.config_source.base);
    let tail = invocation.args.tail(invocation.command_at.saturating_add(1));
    let mut argv: Vec<*const c_char, ARGV_MAX> = Vec::new();
    let mut fits = argv.push(file.as_c_str().as_ptr()).is_ok();
    fits &= push_words(words, &mut argv);
    fits &= argv.push(c"start".as_ptr()).is_ok();
    fits &= argv.extend_from_slice(tail).is_ok();
    let errno =
        if fits { replace_by(file.as_c_str(), &argv, invocation.args.environment()) } else { Errno::TOOBIG };
    fail(exit::FAILED, &|out| {
        out.push_str("restart: stopped, but not started: ");
        describe_at(&file, Failure { op: Op::Execve, errno }, out);
    })
}
