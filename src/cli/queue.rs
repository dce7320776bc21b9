//! `queue`: one job from the arguments; with `--wait`, until it has ended.

use super::client::{Answer, Client, ClientError, NEVER, report_refused};
use super::command_line::option;
use super::{Invocation, fail, print, queue_stdin, usage};
use crate::limits::{ANSWER_MAX_BYTES, FULL_RETRY, JOB_MAX_BYTES, RESTART_WAIT};
use crate::proto::status::number;
use crate::service::lifecycle::exit;
use crate::sys::{clock, poll};
use crate::util::lines::{Line, classify};
use crate::util::text::Writer;

/// What `--wait` says when not the job failed but `queue` itself (as nohup(1)
/// and timeout(1) do).
const QUEUE_FAILED: u8 = 125;

/// `queue [--wait] JOB...`
pub(super) fn queue(mut invocation: Invocation) -> u8 {
    let waits = invocation.operands.has(option::WAIT);
    let operands = &invocation.operands;
    if operands.get(0) == Some(b"-") && operands.get(1).is_none() && !operands.literal {
        if waits {
            usage("queue", &|out| out.push_str("--wait is for one job, not for those of stdin"));
            return QUEUE_FAILED;
        }
        return queue_stdin::queue_stdin(invocation);
    }
    match one(&mut invocation, waits) {
        Ok(code) => code,
        Err(_) if waits => QUEUE_FAILED,
        Err(code) => code,
    }
}

/// Queues the job that the words are. `Ok` is its own exit status.
#[inline(never)]
fn one(invocation: &mut Invocation, waits: bool) -> Result<u8, u8> {
    // (room for blanks around it, and to see that it is too long)
    let mut line = [0; JOB_MAX_BYTES + 80];
    let mut joined = Writer::new(&mut line);
    let mut index = 0;
    while let Some(word) = invocation.operands.get(index) {
        joined.push_str(if index == 0 { "" } else { " " });
        joined.push(word);
        index = index.saturating_add(1);
    }
    let refuse = |why: &str| {
        Err(fail(exit::FAILED, &|out| {
            out.push_str("queue: not a job: ");
            out.push_str(why);
        }))
    };
    let text = match classify(joined.as_bytes()) {
        _ if joined.is_cut() => return refuse("it is longer than 1000 bytes"),
        Line::Empty => return Err(usage("queue", &|out| out.push_str("the job is empty"))),
        Line::Rejected(why) => return refuse(why),
        Line::Job(text) if text.contains(&b'\n') => return refuse("it holds a newline"),
        Line::Job(text) => text,
    };
    let (mut client, _) = invocation.client(ANSWER_MAX_BYTES)?;
    client.connect_or_report("queue")?;
    let answer = client.ask("queue", &[b"queue ", text])?;
    let Some(id) = number(answer, "id") else { return Err(client.report("queue", ClientError::Garbage)) };
    let mut digits = [0; 24];
    let mut out = Writer::new(&mut digits);
    out.push_u64(id);
    out.push_str("\n");
    let printed = print(out.as_bytes());
    out.truncate(out.len().saturating_sub(1));
    match (printed, waits) {
        (exit::OK, true) => wait(&mut client, out.as_bytes()),
        (exit::OK, false) => Ok(exit::OK),
        // (it is queued, but nobody knows its id)
        _ => Err(exit::FAILED),
    }
}

/// Waits for the end of job `id`, through restarts of the service.
fn wait(client: &mut Client<'_>, id: &[u8]) -> Result<u8, u8> {
    loop {
        let error = match client.send(&[b"wait ", id]).and_then(|()| client.line(NEVER)) {
            Ok(line) => match Answer::parse(client.at(line)) {
                Answer::Ok(text) => {
                    let status = number(text, "exit").and_then(|status| u8::try_from(status).ok());
                    return status.ok_or_else(|| client.report("wait", ClientError::Garbage));
                }
                Answer::Refused(b"stopping" | b"busy", _) => ClientError::Closed,
                Answer::Refused(code, text) => return Err(report_refused("wait", code, text)),
                Answer::Garbage => ClientError::Garbage,
            },
            Err(error) => error,
        };
        if !matches!(error, ClientError::Closed | ClientError::TimedOut) {
            return Err(client.report("wait", error));
        }
        poll::sleep(FULL_RETRY);
        let deadline = clock::now() + RESTART_WAIT;
        client.connect_again(deadline).map_err(|error| client.report("wait", error))?;
    }
}
