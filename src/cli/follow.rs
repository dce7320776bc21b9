//! `wait`, and `queue --wait` once its job is queued: the output of a job as it comes, then the
//! status of the job.

use super::client::{Client, ClientError, NEVER};
use super::invocation::Invocation;
use super::output::{CommandResult, fail, print, usage};
use crate::limits::{ANSWER_MAX_BYTES, FULL_RETRY, RESTART_WAIT};
use crate::proto::answer::Answer;
use crate::proto::control::{id, split};
use crate::proto::status::number;
use crate::service::lifecycle::exit;
use crate::sys::{clock, fds, poll};
use crate::util::text::{Writer, parse_u64, unescape};
use ufmt::uwrite;

/// The exit code of `wait` and `queue --wait` if not the job but the command itself failed, as that
/// of nohup(1) and timeout(1).
pub(super) const WAIT_FAILED: u8 = 125;

/// Runs `wait ID`.
pub(super) fn wait(mut invocation: Invocation) -> CommandResult {
    let word = invocation.operands.get(0).unwrap_or(b"");
    if id(word).is_err() {
        return Err(usage("wait", &|out| {
            super::output::push_word("a job's number is needed, not", word, out);
        }));
    }
    let args = invocation.args;
    let mut waited = || {
        let (mut client, _) = invocation.client(ANSWER_MAX_BYTES)?;
        client.connect_or_report()?;
        if client.own_job(&args).is_some_and(|job| !job.has_others) {
            return Err(fail(WAIT_FAILED, &|out| out.push_str("wait: would wait for itself")));
        }
        follow(&mut client, word, false)
    };
    waited().map_err(|_| WAIT_FAILED)
}

/// Prints the output of job `id` and waits for its end, also while the service is restarted;
/// returns the exit status of the job. `asked` is true if the answer is on its way already.
pub(super) fn follow(client: &mut Client<'_>, id: &[u8], mut asked: bool) -> CommandResult {
    client.command = "wait";
    let (mut request, mut lost): (&[u8], _) = (b"follow ", 0u64);
    let result = loop {
        let sent = if asked { Ok(()) } else { client.send(&[request, id]) };
        asked = false;
        let error = match sent.and_then(|()| read_output(client, &mut lost)) {
            Ok(Followed::Ended(status)) => break Ok(status),
            // A service of version 0.1 shows no output.
            Ok(Followed::Unknown) if request == b"follow " => {
                request = b"wait ";
                continue;
            }
            Ok(Followed::Unknown) => ClientError::Garbage,
            Err(error) => error,
        };
        if !matches!(error, ClientError::Closed | ClientError::TimedOut) {
            break Err(client.report(error));
        }
        poll::sleep(FULL_RETRY);
        let deadline = clock::now() + RESTART_WAIT;
        if let Err(error) = client.connect_again(deadline) {
            break Err(client.report(error));
        }
    };
    if lost > 0 {
        fail(exit::OK, &|out| {
            let _ = uwrite!(out, "{} lines of output are missing, because stdout was too slow; ", lost);
            out.push_str("the log has those that it has not replaced");
        });
    }
    result
}

/// The answer to `follow`.
enum Followed {
    /// The job has ended with this exit status.
    Ended(u8),
    /// The service does not know the request.
    Unknown,
}

/// Prints the lines of output up to the result of the job, and counts those that are `lost`.
fn read_output(client: &mut Client<'_>, lost: &mut u64) -> Result<Followed, ClientError> {
    let is_terminal = fds::is_terminal(1);
    loop {
        let line = client.line(NEVER)?;
        let line = client.at(line);
        match split_word(line) {
            (b"out", text) => print_output(text, b"\n", is_terminal)?,
            (b"part", text) => print_output(text, b"", is_terminal)?,
            (b"lost", count) => *lost = lost.saturating_add(parse_u64(split(count).0).unwrap_or(0)),
            _ => match Answer::parse(line) {
                Answer::Ok(text) => {
                    let status = number(text, "exit").and_then(|status| u8::try_from(status).ok());
                    return status.map(Followed::Ended).ok_or(ClientError::Garbage);
                }
                Answer::Refused(b"stopping" | b"busy", _) => return Err(ClientError::Closed),
                Answer::Refused(b"bad-request", _) => return Ok(Followed::Unknown),
                refused => return Err(ClientError::Reported(client.report_answer(refused))),
            },
        }
    }
}

/// Splits a line at its first blank. The rest keeps its blanks.
fn split_word(line: &[u8]) -> (&[u8], &[u8]) {
    let at = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    (line.get(..at).unwrap_or(line), line.get(at.saturating_add(1)..).unwrap_or(&[]))
}

/// Prints one line of output: its bytes, or for a terminal what cannot command it.
fn print_output(text: &[u8], end: &[u8], is_terminal: bool) -> Result<(), ClientError> {
    let (mut line, mut shown) = ([0; ANSWER_MAX_BYTES], [0; 4 * ANSWER_MAX_BYTES]);
    let length = text.len().min(line.len().saturating_sub(1));
    let place = line.get_mut(..length).unwrap_or(&mut []);
    place.copy_from_slice(text.get(..length).unwrap_or(&[]));
    let length = unescape(place);
    let bytes = line.get(..length).unwrap_or(&[]);
    let mut out = Writer::new(&mut shown);
    if is_terminal {
        out.push_visible(bytes);
    } else {
        out.push(bytes);
    }
    out.push(end);
    print(out.as_bytes()).map_err(ClientError::Reported)
}
