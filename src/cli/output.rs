//! The output of every command: text on stdout, one line on stderr for an error, and the
//! exit code of each kind of error.

use crate::proto::service::Service;
use crate::service::lifecycle::{describe_denial, exit};
use crate::sys::args::Args;
use crate::sys::poll::{Interest, PollSet};
use crate::sys::{Errno, Failure, fds, file, process};
use crate::util::path::Path;
use crate::util::text::{Writer, parse_u64};
use core::sync::atomic::{AtomicBool, Ordering};
use ufmt::uwrite;

/// The exit code of a command. It is an error if the reason has been printed and the
/// command cannot continue.
pub(super) type CommandResult = Result<u8, u8>;

/// The handler `log`, for users.
pub(super) const LOGS_ONLY: &str = "log: jobs are logged and nothing runs; set `handler` to run them";

/// The right that a user lacks to speak with a service.
pub(super) const NEEDS_ROOT: &str = "; needs root, or an entry for you in allow_uid or allow_gid";

/// The bytes of a word of the command line that an error shows.
const SHOWN_WORD_BYTES: usize = 40;

/// Prints `text` on stdout.
///
/// # Errors
/// Stdout cannot be written; the exit code. The reason is printed once, and not if stdout
/// is a pipe that its reader has closed.
pub(super) fn print(mut text: &[u8]) -> Result<(), u8> {
    let stdout = fds::borrow(1);
    while !text.is_empty() {
        match file::write_some(stdout, text) {
            Ok(count) => text = text.get(count..).unwrap_or(&[]),
            // Another process that shares stdout made it non-blocking.
            Err(Failure { errno: Errno::AGAIN, .. }) => {
                let mut set = PollSet::new();
                set.watch(stdout, Interest::Output, ());
                set.wait(None);
            }
            Err(failure) => {
                static REPORTED: AtomicBool = AtomicBool::new(false);
                if failure.errno != Errno::PIPE && !REPORTED.load(Ordering::Relaxed) {
                    REPORTED.store(true, Ordering::Relaxed);
                    fail(exit::FAILED, &|out| {
                        out.push_str("stdout: ");
                        failure.describe(out);
                    });
                }
                return Err(exit::FAILED);
            }
        }
    }
    Ok(())
}

/// Prints one error line; returns `code`. A terminal obeys no byte of the line.
pub(super) fn fail(code: u8, text: &dyn Fn(&mut Writer<'_>)) -> u8 {
    let (mut buffer, mut line) = ([0; 640], [0; 640]);
    let mut message = Writer::new(&mut buffer);
    text(&mut message);
    let mut out = Writer::new(&mut line);
    out.push_str("zigsvc: ");
    out.push_visible(message.as_bytes());
    out.end_line();
    process::write_stderr(out.as_bytes());
    code
}

/// Prints an error of the file at `path`, and the right that is missing; returns the exit code.
pub(super) fn fail_at(path: &Path, failure: Failure) -> u8 {
    fail(code_of(failure), &|out| describe_denial(path, failure, out))
}

/// Prints that a service does not run, the files that were tried, and the command that starts it;
/// returns the exit code. A path that is empty was not tried.
#[inline(never)]
pub(super) fn fail_not_running(service: Service, tried: [&Path; 2]) -> u8 {
    fail(exit::NOT_RUNNING, &|out| {
        let _ = uwrite!(out, "{}: not running", service.name());
        let mut before = " (tried ";
        for path in tried.iter().filter(|path| !path.is_empty()) {
            out.push_str(before);
            out.push_escaped(path.as_bytes());
            before = ", ";
        }
        out.push_str("); `zigsvc start");
        if !service.is(Service::Jobs) {
            let _ = uwrite!(out, " {}", service.name());
        }
        out.push_str("` starts it");
    })
}

/// Colours of text on a terminal (ECMA-48).
pub(super) const RED: &str = "\x1b[31m";
pub(super) const GREEN: &str = "\x1b[32m";
pub(super) const YELLOW: &str = "\x1b[33m";

/// Returns true if stdout is a terminal that shows colours, and the user wants them (no-color.org).
pub(super) fn shows_colours(args: &Args) -> bool {
    let is_set = |name: &[u8]| args.env(name).filter(|value| !value.is_empty());
    fds::is_terminal(1)
        && is_set(b"NO_COLOR").is_none()
        && is_set(b"TERM").is_some_and(|term| term != b"dumb")
}

/// Columns for text where there is no terminal, and the most that are used on one.
pub(super) const COLUMNS: usize = 80;

/// Returns the columns for text: those of the terminal, up to [`COLUMNS`]. `named` is the value
/// of the environment variable of that name, which counts more.
pub(super) fn columns(named: Option<&[u8]>) -> usize {
    let own = || fds::terminal_columns(1).map(u64::from);
    let columns = named.and_then(parse_u64).or_else(own).filter(|columns| *columns > 0);
    columns.and_then(|columns| usize::try_from(columns).ok()).unwrap_or(COLUMNS).clamp(24, COLUMNS)
}

/// Writes `text`, in `colour` if `shown` is set.
pub(super) fn push_coloured(shown: bool, colour: &str, text: &[u8], out: &mut Writer<'_>) {
    out.push_str(if shown { colour } else { "" });
    out.push_visible(text);
    out.push_str(if shown { "\x1b[0m" } else { "" });
}

/// Returns the exit code for a system call that failed.
pub(super) fn code_of(failure: Failure) -> u8 {
    if failure.is_denied() { exit::NO_PRIVILEGE } else { exit::FAILED }
}

/// Prints one error line about the command line; returns the exit code. `command` is the
/// command whose help is named; empty for the help of the program.
pub(super) fn usage(command: &str, text: &dyn Fn(&mut Writer<'_>)) -> u8 {
    fail(exit::USAGE, &|out| {
        out.push_str("usage: ");
        text(out);
        out.push_str("; see `zigsvc help");
        out.push_str(if command.is_empty() { "" } else { " " });
        out.push_str(command);
        out.push_str("`");
    })
}

/// Prints a text about the command line, as [`usage`] does.
pub(super) fn usage_text(command: &str, text: &str) -> u8 {
    usage(command, &|out| out.push_str(text))
}

/// Writes `what "WORD"`, with the start of a word of the command line.
pub(super) fn push_word(what: &str, word: &[u8], out: &mut Writer<'_>) {
    out.push_str(what);
    out.push_str(" \"");
    out.push_escaped(word.get(..SHOWN_WORD_BYTES).unwrap_or(word));
    out.push_str("\"");
}
