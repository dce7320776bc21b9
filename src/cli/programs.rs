//! The commands about a program of the supervisor: start, stop, restart, reload, signal. The
//! supervisor does what they ask, and they look at the state of the program until it is the wanted
//! one.

use super::client::{Client, ClientError, answer_deadline};
use super::command_line::{CommandOption, push_services};
use super::invocation::{Invocation, find_holder};
use super::output::{CommandResult, fail, fail_at, fail_not_running, print, push_word, usage};
use super::status::STATUS_WAIT;
use crate::limits::ANSWER_MAX_BYTES;
use crate::proto::answer::Answer;
use crate::proto::service::Service;
use crate::proto::signal;
use crate::proto::status::{degraded_names, field, number};
use crate::service::lifecycle::exit;
use crate::sys::process::Signal;
use crate::sys::{clock, poll};
use crate::util::text::{Writer, unescape};
use crate::util::time::{Duration, Instant};
use heapless::Vec;
use ufmt::uwrite;

/// Time that a supervisor may take to create its socket.
const CONNECT_WAIT: Duration = Duration::from_ms(2000);
/// Time between two looks at the state of a program.
const LOOK: Duration = Duration::from_ms(20);
/// Maximum number of bytes of the line of a program.
pub(super) const ROW_BYTES: usize = 640;

/// The line of a program.
type ProgramLine = Vec<u8, ROW_BYTES>;

/// Prints that no service or program has this name; returns the exit code.
fn unknown(command: &str, name: &[u8]) -> u8 {
    usage(command, &|out| {
        push_word("unknown service", name, out);
        push_services("; known are", out);
        out.push_str(", and the programs in supervise");
    })
}

/// Connects to the supervisor.
///
/// # Errors
/// No supervisor answers; the exit code, after printing the reason.
pub(super) fn connect<'a>(
    invocation: &'a mut Invocation,
    name: &[u8],
) -> Result<(Client<'a>, &'a mut [u8]), u8> {
    let is_known = invocation.memory.config.supervised().any(|known| known == name);
    let command = invocation.command;
    let (mut client, rest) = invocation.loaded_client(ANSWER_MAX_BYTES)?;
    match client.connect(clock::now() + CONNECT_WAIT) {
        Ok(()) => Ok((client, rest)),
        Err(ClientError::NotRunning) if !is_known => Err(unknown(command, name)),
        Err(error) => Err(client.report(error)),
    }
}

/// Sends `VERB NAME WORD`, and returns the line of the program in the answer.
fn ask(client: &mut Client<'_>, verb: &str, name: &[u8], word: &[u8]) -> Result<ProgramLine, u8> {
    ask_until(client, answer_deadline(), [verb.as_bytes(), b" ", name, b" ", word])
}

/// Sends a request about a program, and returns its line in the answer, which comes before
/// `deadline`.
fn ask_until(
    client: &mut Client<'_>,
    deadline: Option<Instant>,
    parts: [&[u8]; 5],
) -> Result<ProgramLine, u8> {
    let name = parts[2];
    match client.send(&parts).and_then(|()| client.line(deadline)) {
        Ok(line) => match Answer::parse(client.at(line)) {
            Answer::Ok(text) => Ok(ProgramLine::from_slice(text).unwrap_or_default()),
            Answer::Refused(b"no-program", _) => Err(unknown(client.command, name)),
            refused => Err(client.report_answer(refused)),
        },
        Err(error) => Err(client.report(error)),
    }
}

fn state(line: &ProgramLine) -> &[u8] {
    field(line, "state").unwrap_or(b"")
}

/// Returns true if a degraded state of the program is `name`.
fn has_state(line: &ProgramLine, name: &[u8]) -> bool {
    degraded_names(field(line, "degraded").unwrap_or(b"")).any(|found| found == name)
}

/// Runs a command about the program `name`.
#[inline(never)]
pub(super) fn about(mut invocation: Invocation, name: &'static [u8]) -> CommandResult {
    invocation.load_or_defaults();
    invocation.find_service();
    let command = invocation.command;
    let now = invocation.operands.has(CommandOption::Now);
    match command {
        "start" | "stop" | "restart" | "reload" if !invocation.operands.literal => {}
        _ => return Err(unknown(command, name)),
    }
    let (mut client, _) = connect(&mut invocation, name)?;
    match command {
        "start" => start(&mut client, name, false),
        "restart" => start(&mut client, name, true),
        "stop" => stop(&mut client, name, now),
        _ => ask(&mut client, command, name, b"").map(|_| exit::OK),
    }
}

/// Starts the program, or starts it again, and waits until it is ready.
fn start(client: &mut Client<'_>, name: &[u8], again: bool) -> CommandResult {
    let mut line = ask(client, "status", name, b"")?;
    let before = number(&line, "pid");
    if !again && matches!(state(&line), b"running" | b"starting") {
        return Err(fail(exit::FAILED, &|out| {
            let _ = uwrite!(out, "another instance is already running (pid {})", before.unwrap_or(0));
        }));
    }
    line = ask(client, if again { "restart" } else { "start" }, name, b"")?;
    let timeout = Duration::from_ms(number(&line, "start_timeout").unwrap_or(0));
    let mut deadline = clock::now() + timeout;
    loop {
        let pid = number(&line, "pid");
        match state(&line) {
            b"running" if pid != before => {
                confirm(name, &|out| {
                    let _ = uwrite!(out, "started (pid {})", pid.unwrap_or(0));
                });
                return Ok(exit::OK);
            }
            b"waiting" | b"failed" | b"stopped" => break,
            b"starting" | b"blocked" if deadline.is_due(clock::now()) => break,
            b"starting" | b"blocked" => {}
            // The time counts from the start that follows the end.
            _ => deadline = clock::now() + timeout,
        }
        poll::sleep(LOOK);
        line = ask(client, "status", name, b"")?;
    }
    Err(fail(exit::FAILED, &|out| {
        out.push_escaped(name);
        out.push_str(": ");
        match state(&line) {
            b"stopped" => out.push_str("another command has stopped it meanwhile"),
            b"starting" => out.push_str("not ready within its start_timeout; it continues"),
            b"blocked" => out.push_str("waits until those that `after` names are ready"),
            _ => push_failure(&line, out),
        }
    }))
}

/// Prints `zigsvc: NAME TEXT` on stdout.
fn confirm(name: &[u8], text: &dyn Fn(&mut Writer<'_>)) {
    let mut line = [0; 80];
    let mut out = Writer::new(&mut line);
    out.push_str("zigsvc: ");
    out.push_escaped(name);
    out.push_str(" ");
    text(&mut out);
    out.push_str("\n");
    let _ = print(out.as_bytes());
}

/// Writes why a program does not run.
fn push_failure(line: &ProgramLine, out: &mut Writer<'_>) {
    if let Some(why) = field(line, "why") {
        let mut text = ProgramLine::from_slice(why).unwrap_or_default();
        let length = unescape(&mut text);
        out.push_str("cannot be started: ");
        return out.push_escaped(text.get(..length).unwrap_or(&[]));
    }
    let (end, value) = match (number(line, "exit"), number(line, "signal")) {
        (Some(code), _) => ("ended with exit status ", code),
        (_, Some(signal)) => ("killed by signal ", signal),
        _ => return out.push_str("not started; see zigsvc-supervisor.log"),
    };
    let _ = uwrite!(out, "{}{}", end, value);
}

/// Stops the program, and waits until it has ended.
fn stop(client: &mut Client<'_>, name: &[u8], now: bool) -> CommandResult {
    let mut line = ask(client, "status", name, b"")?;
    let ran = number(&line, "pid").is_some();
    line = ask(client, "stop", name, b"")?;
    let mut is_killed = false;
    loop {
        match state(&line) {
            b"ending" if now && !is_killed => {
                is_killed = true;
                // One that has just ended takes no signal.
                let sent = client.send(&[b"signal ", name, b" KILL"]);
                let _ = sent.and_then(|()| client.line(answer_deadline()));
            }
            b"ending" | b"killed" if !has_state(&line, b"stuck-process") => {}
            b"ending" | b"killed" => {
                return Err(fail(exit::FAILED, &|out| {
                    let pid = number(&line, "pid").unwrap_or(0);
                    let _ = uwrite!(out, "stop: pid {} does not end, not even by KILL", pid);
                }));
            }
            b"running" | b"starting" => {
                return Err(fail(exit::FAILED, &|out| {
                    out.push_escaped(name);
                    out.push_str(": another command has started it meanwhile");
                }));
            }
            _ => break,
        }
        poll::sleep(LOOK);
        line = ask(client, "status", name, b"")?;
    }
    let killed = number(&line, "signal") == Some(9);
    confirm(name, &|out| {
        out.push_str(match (ran, killed) {
            (false, _) => "was not running",
            (true, false) => "stopped",
            (true, true) => "killed",
        });
    });
    Ok(exit::OK)
}

/// Runs `signal NAME SIGNAL`.
pub(super) fn signal(mut invocation: Invocation) -> CommandResult {
    let (name, word) = (invocation.operands.get(0).unwrap_or(b""), invocation.operands.get(1).unwrap_or(b""));
    let number = signal::parse(word).and_then(|number| Signal::from_named_raw(number.into()));
    let Some(number) = number else {
        return Err(usage("signal", &|out| {
            push_word("unknown signal", word, out);
            out.push_str("; a signal is a name such as HUP, or its number, 1 to 31");
        }));
    };
    invocation.load_or_defaults();
    let service = Service::from_name(name);
    invocation.service = service.unwrap_or(Service::Supervisor);
    if service.is_none() {
        invocation.find_service();
        let (mut client, _) = connect(&mut invocation, name)?;
        return ask(&mut client, "signal", name, word).map(|_| exit::OK);
    }
    invocation.find_running_service();
    send(&invocation, number)
}

/// Sends one signal to a running service.
pub(super) fn send(invocation: &Invocation, signal: Signal) -> CommandResult {
    let path = invocation.pid_path()?;
    let Some(holder) = find_holder(&invocation.locks(&path))? else {
        return Err(fail_not_running(invocation.service, [&path, &invocation.memory.tried]));
    };
    holder.send(signal).map_err(|failure| fail_at(&path, failure))?;
    Ok(exit::OK)
}

/// Asks for the line of the program, for `status`.
pub(super) fn look_at(client: &mut Client<'_>, name: &[u8], line: &mut ProgramLine) -> Result<(), u8> {
    let deadline = Some(clock::now() + STATUS_WAIT);
    *line = ask_until(client, deadline, [b"status", b" ", name, b"", b""])?;
    Ok(())
}
