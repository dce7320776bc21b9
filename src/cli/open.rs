//! `open`: a client of the opener. The file is copied to stdout, or is the standard input
//! of a program.

use super::client::{Client, ClientError};
use super::{Invocation, fail, print, usage};
use crate::limits::{ANSWER_WAIT, CONNECT_RETRY, OPEN_ATTEMPTS_MAX};
use crate::proto::opener::FILE;
use crate::proto::service::Service;
use crate::service::lifecycle::{describe_at, exit};
use crate::service::program;
use crate::sys::spawn::execute;
use crate::sys::{Errno, Failure, Op, OwnedFd, clock, fd_passing, fds, file, poll, signal};
use crate::util::path::Path;
use crate::util::text::Writer;

/// What a shell and env(1) say about a program that is not there, and about one that
/// cannot be executed.
const NO_PROGRAM: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Bytes of an answer in words.
const ANSWER_TEXT_BYTES: usize = 64;

/// `open PATH [-- CMD ARG...]`
pub(super) fn open(mut invocation: Invocation) -> u8 {
    let operands = &invocation.operands;
    let path = operands.get(0).unwrap_or(b"");
    match (operands.get(1), operands.get(2)) {
        (None, _) | (Some(b"--"), Some(_)) => {}
        (Some(b"--"), None) => return usage("open", &|out| out.push_str("missing argument: -- CMD")),
        _ => {
            return usage("open", &|out| out.push_str("a program stands behind --: open PATH -- CMD ARG..."));
        }
    }
    if path.contains(&b'\n') {
        return usage("open", &|out| out.push_str("no path that can be asked for holds a newline"));
    }
    let (file, runs) = match ask(&mut invocation, path) {
        Ok(file) => (file, invocation.operands.get(2).is_some()),
        Err(code) => return code,
    };
    if runs { become_program(&invocation, file) } else { copy(&mut invocation, path, &file) }
}

/// The file, or the exit code after telling why not.
#[inline(never)]
fn ask(invocation: &mut Invocation, path: &[u8]) -> Result<OwnedFd, u8> {
    invocation.service = Service::Opener;
    let (mut client, _) = invocation.client(0)?;
    let mut answer_text = [0; ANSWER_TEXT_BYTES];
    let mut attempts = 1;
    let (length, file) = loop {
        client.connect_or_report("open")?;
        let answer = client.send(&[path]).and_then(|()| answer(&client, &mut answer_text));
        match answer.map_err(|error| client.report("open", error))? {
            // (a worker that dies leaves its clients without an answer; the next one will
            // have it)
            (0, _) if attempts < OPEN_ATTEMPTS_MAX => attempts += 1,
            answer => break answer,
        }
        poll::sleep(CONNECT_RETRY);
    };
    match (answer_text.get(..length).unwrap_or(&[]), file) {
        (FILE, Some(file)) => Ok(file),
        (FILE, None) => Err(refused(path, b"no room for its descriptor: EMFILE")),
        (b"", _) => Err(client.report("open", ClientError::Closed)),
        (why, _) => Err(refused(path, why)),
    }
}

/// `open: PATH: WHY`
fn refused(path: &[u8], why: &[u8]) -> u8 {
    fail(exit::FAILED, &|out| {
        out.push_str("open: ");
        out.push_escaped(path);
        out.push_str(": ");
        out.push_escaped(why);
    })
}

/// The answer: its length and its descriptor.
fn answer(client: &Client<'_>, answer_text: &mut [u8]) -> Result<(usize, Option<OwnedFd>), ClientError> {
    let deadline = clock::now() + ANSWER_WAIT;
    let socket = client.socket.as_ref().ok_or(ClientError::Closed)?;
    let mut held = 0usize;
    loop {
        let free = answer_text.get_mut(held..).filter(|free| !free.is_empty()).ok_or(ClientError::Garbage)?;
        match fd_passing::receive(socket, free) {
            Err(Failure { errno: Errno::AGAIN, .. }) => client.wait(Some(deadline))?,
            Ok(received) if received.length > 0 => {
                held = held.saturating_add(received.length);
                if answer_text.get(..held) == Some(FILE) {
                    return Ok((held, received.fd));
                }
            }
            // (it also ends so when the service dies)
            Ok(_) | Err(Failure { errno: Errno::CONNRESET, .. }) => return Ok((held, None)),
            Err(failure) => return Err(ClientError::Failed(failure)),
        }
    }
}

/// Copies the file to stdout.
#[inline(never)]
fn copy(invocation: &mut Invocation, path: &[u8], file: &OwnedFd) -> u8 {
    signal::ignore_broken_pipes();
    let buffer = invocation.memory.scratch.pages();
    loop {
        match file::read(file, buffer) {
            Ok(0) => return exit::OK,
            Ok(count) => match print(buffer.get(..count).unwrap_or(&[])) {
                exit::OK => {}
                code => return code,
            },
            Err(failure) => {
                return fail(exit::FAILED, &|out| {
                    out.push_str("open: ");
                    out.push_escaped(path);
                    out.push_str(": ");
                    failure.describe(out);
                });
            }
        }
    }
}

/// Becomes the program, with the file as its standard input and nothing else of ours.
#[inline(never)]
fn become_program(invocation: &Invocation, file: OwnedFd) -> u8 {
    let word = invocation.operands.get(2).unwrap_or(b"");
    let program = program::find(&invocation.args, word, &invocation.memory.config_source.base);
    if let Err(failure) = fds::replace(&file, 0) {
        return fail(exit::FAILED, &|out| failure.describe(out));
    }
    drop(file);
    fds::close_inherited(&[]);
    signal::reset_all();
    // (not on the PATH: what has this name in the working folder is another program)
    let errno = match program.as_bytes().first() {
        Some(b'/') => {
            let argv = invocation.operands.program().get(2..).unwrap_or(&[]);
            execute(program.as_c_str(), argv, invocation.args.environment())
        }
        _ => Errno::NOENT,
    };
    let program = if program.is_empty() { Path::new(word).unwrap_or_default() } else { program };
    let code = if matches!(errno, Errno::NOENT) { NO_PROGRAM } else { NOT_EXECUTABLE };
    let failure = Failure { op: Op::Execve, errno };
    fail(code, &|out: &mut Writer<'_>| {
        out.push_str("open: ");
        describe_at(&program, failure, out);
    })
}
