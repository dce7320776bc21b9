//! `open`: a client of the opener. The file is copied to stdout, or becomes the standard
//! input of a program.

use super::client::{Client, ClientError, answer_deadline};
use super::invocation::Invocation;
use super::output::{CommandResult, fail, print, usage_text};
use crate::limits::CONNECT_RETRY;
use crate::proto::opener::FILE;
use crate::proto::service::Service;
use crate::service::lifecycle::{describe_at, exit};
use crate::service::program;
use crate::sys::spawn::execute;
use crate::sys::{AsFd, Errno, Failure, Op, OwnedFd, fd_passing, fds, file, poll, signal};
use crate::util::path::Path;
use crate::util::text::Writer;

/// Maximum number of times that `open` asks again after it got no reply.
const OPEN_ATTEMPTS_MAX: u32 = 10;

/// The exit code if there is no such program, as that of a shell and of env(1).
const NO_PROGRAM: u8 = 127;
/// The exit code if the program cannot be executed, as that of a shell and of env(1).
const NOT_EXECUTABLE: u8 = 126;

/// The bytes of an answer in words.
const ANSWER_TEXT_BYTES: usize = 64;

/// Runs `open PATH [-- CMD ARG...]`.
pub(super) fn open(mut invocation: Invocation) -> CommandResult {
    let operands = &invocation.operands;
    let path = operands.get(0).unwrap_or(b"");
    match (operands.get(1), operands.get(2)) {
        (None, _) | (Some(b"--"), Some(_)) => {}
        (Some(b"--"), None) => return Err(usage_text("open", "missing argument: -- CMD")),
        _ => return Err(usage_text("open", "a program stands behind --: open PATH -- CMD ARG...")),
    }
    if path.contains(&b'\n') {
        return Err(usage_text("open", "no path that can be asked for holds a newline"));
    }
    let file = ask(&mut invocation, path)?;
    if invocation.operands.get(2).is_some() {
        Err(become_program(&invocation, file))
    } else {
        copy(&mut invocation, path, &file)
    }
}

/// Asks the opener for the file.
///
/// # Errors
/// The exit code, after printing the reason.
#[inline(never)]
fn ask(invocation: &mut Invocation, path: &[u8]) -> Result<OwnedFd, u8> {
    invocation.service = Service::Opener;
    let (mut client, _) = invocation.client(0)?;
    let mut answer_text = [0; ANSWER_TEXT_BYTES];
    let mut attempts = 1;
    let (length, file) = loop {
        client.connect_or_report()?;
        let answer = client.send(&[path]).and_then(|()| answer(&client, &mut answer_text));
        match answer.map_err(|error| client.report(error))? {
            // A worker that dies leaves its clients without an answer; the next worker
            // answers.
            (0, _) if attempts < OPEN_ATTEMPTS_MAX => attempts += 1,
            answer => break answer,
        }
        poll::sleep(CONNECT_RETRY);
    };
    match (answer_text.get(..length).unwrap_or(&[]), file) {
        (FILE, Some(file)) => Ok(file),
        (FILE, None) => Err(refused(path, b"no room for its descriptor: EMFILE")),
        (b"", _) => Err(client.report(ClientError::Closed)),
        (why, _) => Err(refused(path, why)),
    }
}

/// Prints `open: PATH: WHY`; returns the exit code.
fn refused(path: &[u8], why: &[u8]) -> u8 {
    fail(exit::FAILED, &|out| {
        out.push_str("open: ");
        out.push_escaped(path);
        out.push_str(": ");
        out.push_escaped(why);
    })
}

/// Receives the answer; returns its length and its descriptor.
fn answer(client: &Client<'_>, answer_text: &mut [u8]) -> Result<(usize, Option<OwnedFd>), ClientError> {
    let deadline = answer_deadline();
    let socket = client.socket.as_ref().ok_or(ClientError::Closed)?;
    let mut held = 0usize;
    loop {
        let free = answer_text.get_mut(held..).filter(|free| !free.is_empty()).ok_or(ClientError::Garbage)?;
        match fd_passing::receive(socket, free) {
            Err(Failure { errno: Errno::AGAIN, .. }) => client.wait(deadline)?,
            Ok(received) if received.length > 0 => {
                held = held.saturating_add(received.length);
                if answer_text.get(..held) == Some(FILE) {
                    return Ok((held, received.fd));
                }
            }
            // The connection ends in the same way when the service dies.
            Ok(_) | Err(Failure { errno: Errno::CONNRESET, .. }) => return Ok((held, None)),
            Err(failure) => return Err(ClientError::Failed(failure)),
        }
    }
}

/// Copies the file to stdout.
#[inline(never)]
fn copy(invocation: &mut Invocation, path: &[u8], file: &OwnedFd) -> CommandResult {
    signal::ignore_broken_pipes();
    let buffer = invocation.memory.scratch.pages();
    loop {
        match file::read(file, buffer) {
            Ok(0) => return Ok(exit::OK),
            Ok(count) => print(buffer.get(..count).unwrap_or(&[]))?,
            Err(failure) => {
                return Err(fail(exit::FAILED, &|out| {
                    out.push_str("open: ");
                    out.push_escaped(path);
                    out.push_str(": ");
                    failure.describe(out);
                }));
            }
        }
    }
}

/// Becomes the program, with the file as its standard input, and with no other descriptor
/// of this process. Returns the exit code if that fails.
#[inline(never)]
fn become_program(invocation: &Invocation, file: OwnedFd) -> u8 {
    let word = invocation.operands.get(2).unwrap_or(b"");
    let program = program::find(&invocation.args, word, &invocation.memory.config_source.base);
    if let Err(failure) = fds::replace(file.as_fd(), 0) {
        return fail(exit::FAILED, &|out| failure.describe(out));
    }
    drop(file);
    fds::close_inherited(&[]);
    signal::reset_all();
    // A name that is not on the PATH is not looked up in the working folder.
    let errno = match program.as_bytes().first() {
        Some(b'/') => {
            let argv = invocation.operands.program().get(2..).unwrap_or(&[]);
            execute(program.as_c_str(), argv, invocation.args.environment())
        }
        _ => Errno::NOENT,
    };
    let program = if program.is_empty() { Path::or_empty(&[word]) } else { program };
    let code = if matches!(errno, Errno::NOENT) { NO_PROGRAM } else { NOT_EXECUTABLE };
    let failure = Failure { op: Op::Execve, errno };
    fail(code, &|out: &mut Writer<'_>| {
        out.push_str("open: ");
        describe_at(&program, failure, out);
    })
}
