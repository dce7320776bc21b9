//! `queue`: one job from the arguments; with `--wait`, until it has ended.

use super::client::{Client, ClientError, NEVER, answer_deadline};
use super::command_line::CommandOption;
use super::invocation::Invocation;
use super::output::{CommandResult, fail, print, push_word, usage, usage_text};
use super::queue_stdin::queue_stdin;
use crate::limits::{ANSWER_MAX_BYTES, FULL_RETRY, JOB_MAX_BYTES, RESTART_WAIT};
use crate::proto::answer::Answer;
use crate::proto::control::{DELAY_TEXT, delay as parse_delay};
use crate::proto::status::number;
use crate::service::lifecycle::exit;
use crate::sys::{clock, poll};
use crate::util::lines::{Line, TOO_LONG, classify};
use crate::util::text::Writer;

/// The exit code of `--wait` if not the job but `queue` itself failed, as that of nohup(1)
/// and timeout(1).
const QUEUE_FAILED: u8 = 125;

/// Runs `queue [--wait] [--after DURATION] JOB...`.
pub(super) fn queue(mut invocation: Invocation) -> CommandResult {
    let waits = invocation.operands.has(CommandOption::Wait);
    let delay = invocation.operands.value(CommandOption::After).unwrap_or(b"");
    if invocation.operands.has(CommandOption::After) && parse_delay(delay).is_none() {
        return Err(usage("queue", &|out| {
            push_word("--after", delay, out);
            out.push_str(": ");
            out.push_str(DELAY_TEXT);
        }));
    }
    let operands = &invocation.operands;
    if operands.get(0) == Some(b"-") && operands.get(1).is_none() && !operands.literal {
        if waits {
            usage_text("queue", "--wait is for one job, not for those of stdin");
            return Err(QUEUE_FAILED);
        }
        return queue_stdin(invocation, delay);
    }
    one(&mut invocation, delay, waits).map_err(|code| if waits { QUEUE_FAILED } else { code })
}

/// Queues the job whose text is the operands, to be started after `delay` if that is not empty. With `waits`, returns the exit status of the
/// job.
#[inline(never)]
fn one(invocation: &mut Invocation, delay: &[u8], waits: bool) -> CommandResult {
    // The buffer has room for blanks around the job, and shows that a job is too long.
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
        _ if joined.is_cut() => return refuse(TOO_LONG),
        Line::Empty => return Err(usage_text("queue", "the job is empty")),
        Line::Rejected(why) => return refuse(why),
        Line::Job(text) if text.contains(&b'\n') => return refuse("it holds a newline"),
        Line::Job(text) => text,
    };
    let args = invocation.args;
    let (mut client, _) = invocation.client(ANSWER_MAX_BYTES)?;
    client.connect_or_report()?;
    if waits && client.own_job(&args).is_some_and(|job| !job.has_others) {
        return Err(fail(QUEUE_FAILED, &|out| out.push_str("queue: would wait for itself")));
    }
    let verb = if delay.is_empty() { &b"queue"[..] } else { b"after " };
    let answer = client.ask(answer_deadline(), &[verb, delay, b" ", text])?;
    let Some(id) = number(answer, "id") else { return Err(client.report(ClientError::Garbage)) };
    let mut digits = [0; 24];
    let mut out = Writer::new(&mut digits);
    out.push_u64(id);
    out.push_str("\n");
    // An id that cannot be printed fails the command, although the job is queued.
    print(out.as_bytes())?;
    out.truncate(out.len().saturating_sub(1));
    if waits { wait(&mut client, out.as_bytes()) } else { Ok(exit::OK) }
}

/// Waits for the end of job `id`, also while the service is restarted; returns the exit
/// status of the job.
fn wait(client: &mut Client<'_>, id: &[u8]) -> CommandResult {
    client.command = "wait";
    loop {
        let error = match client.send(&[b"wait ", id]).and_then(|()| client.line(NEVER)) {
            Ok(line) => match Answer::parse(client.at(line)) {
                Answer::Ok(text) => {
                    let status = number(text, "exit").and_then(|status| u8::try_from(status).ok());
                    return status.ok_or_else(|| client.report(ClientError::Garbage));
                }
                Answer::Refused(b"stopping" | b"busy", _) => ClientError::Closed,
                refused => return Err(client.report_answer(refused)),
            },
            Err(error) => error,
        };
        if !matches!(error, ClientError::Closed | ClientError::TimedOut) {
            return Err(client.report(error));
        }
        poll::sleep(FULL_RETRY);
        let deadline = clock::now() + RESTART_WAIT;
        client.connect_again(deadline).map_err(|error| client.report(error))?;
    }
}
