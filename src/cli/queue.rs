//! `queue`: one job from the arguments; with `--wait`, until it has ended.

use super::client::{Client, ClientError, answer_deadline};
use super::command_line::CommandOption;
use super::follow::{WAIT_FAILED, follow};
use super::invocation::Invocation;
use super::output::{CommandResult, fail, print, push_word, usage, usage_text};
use super::queue_stdin::queue_stdin;
use crate::limits::{ANSWER_MAX_BYTES, JOB_MAX_BYTES};
use crate::proto::answer::Answer;
use crate::proto::control::{DELAY_TEXT, delay as parse_delay};
use crate::proto::status::{field, number};
use crate::service::lifecycle::exit;
use crate::sys::process::write_stderr;
use crate::util::lines::{Line, TOO_LONG, classify};
use crate::util::text::Writer;
use core::ops::Range;

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
            return Err(usage_text("queue", "--wait is for one job, not for those of stdin"));
        }
        return queue_stdin(invocation, delay);
    }
    let code = |code| if waits && code != exit::USAGE { WAIT_FAILED } else { code };
    one(&mut invocation, delay, waits).map_err(code)
}

/// Queues the job whose text is the operands, to be started after `delay` if that is not empty. With `waits`, returns the exit status of the
/// job.
#[inline(never)]
fn one(invocation: &mut Invocation, delay: &[u8], waits: bool) -> CommandResult {
    let args = invocation.args;
    let operands = invocation.operands;
    let (mut client, _) = invocation.client(ANSWER_MAX_BYTES)?;
    let mut quotes = false;
    if operands.get(1).is_some() {
        client.connect_or_report()?;
        quotes = has_shell(&mut client)?;
    }
    // The buffer has room for blanks around the job, and shows that a job is too long.
    let mut line = [0; JOB_MAX_BYTES + 80];
    let mut joined = Writer::new(&mut line);
    let mut index = 0;
    while let Some(word) = operands.get(index) {
        joined.push_str(if index == 0 { "" } else { " " });
        if quotes {
            push_quoted(word, &mut joined);
        } else {
            joined.push(word);
        }
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
    if client.socket.is_none() {
        client.connect_or_report()?;
    }
    if waits && client.own_job(&args).is_some_and(|job| !job.has_others) {
        return Err(fail(WAIT_FAILED, &|out| out.push_str("queue: would wait for itself")));
    }
    let plain: &[u8] = if delay.is_empty() { b"queue " } else { b"after " };
    let mut request = match (waits, delay) {
        (true, b"") => b"queue! ",
        (true, _) => b"after! ",
        _ => plain,
    };
    let gap: &[u8] = if delay.is_empty() { b"" } else { b" " };
    let mut line = ask(&mut client, &[request, delay, gap, text])?;
    if waits && matches!(Answer::parse(client.at(line.clone())), Answer::Refused(b"bad-request", _)) {
        // A service of version 0.1 shows no output.
        request = plain;
        line = ask(&mut client, &[request, delay, gap, text])?;
    }
    let id = match Answer::parse(client.at(line)) {
        Answer::Ok(answer) => number(answer, "id"),
        refused => return Err(client.report_answer(refused)),
    };
    let Some(id) = id else { return Err(client.report(ClientError::Garbage)) };
    let mut digits = [0; 24];
    let mut out = Writer::new(&mut digits);
    out.push_u64(id);
    out.push_str("\n");
    if waits {
        write_stderr(out.as_bytes());
        out.truncate(out.len().saturating_sub(1));
        return follow(&mut client, out.as_bytes(), request != plain);
    }
    // An id that cannot be printed fails the command, although the job is queued.
    print(out.as_bytes())?;
    Ok(exit::OK)
}

/// Sends a request, and returns its answer.
fn ask(client: &mut Client<'_>, parts: &[&[u8]]) -> Result<Range<usize>, u8> {
    let sent = client.send(parts);
    sent.and_then(|()| client.line(answer_deadline())).map_err(|error| client.report(error))
}

/// Words that the shell takes for its own where a command begins.
const RESERVED_WORDS: &[&[u8]] = &[
    b"if", b"then", b"else", b"elif", b"fi", b"do", b"done", b"case", b"esac", b"while", b"until", b"for",
    b"in",
];

/// Writes a word of the command line so that the shell sees the same word.
fn push_quoted(word: &[u8], out: &mut Writer<'_>) {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-+./:,@%".contains(byte);
    if !word.is_empty() && word.iter().all(is_plain) && !RESERVED_WORDS.contains(&word) {
        return out.push(word);
    }
    out.push_str("'");
    for part in word.split_inclusive(|byte| *byte == b'\'') {
        match part.split_last() {
            Some((b'\'', rest)) => {
                out.push(rest);
                out.push_str("'\\''");
            }
            _ => out.push(part),
        }
    }
    out.push_str("'");
}

/// Returns true if the handler of the service is the shell.
fn has_shell(client: &mut Client<'_>) -> Result<bool, u8> {
    let status = client.ask(answer_deadline(), &[b"status"])?;
    Ok(field(status, "handler") == Some(b"shell"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_sees_the_same_words() {
        let all: Vec<u8> = (1..=255).collect();
        for word in
            [&b""[..], b"plain", b"two words", b"it's", b"''", b"$HOME", b"a=b", b"~", b"if", b"#", &all]
        {
            let mut buffer = [0; 1200];
            let mut out = Writer::new(&mut buffer);
            push_quoted(word, &mut out);
            let mut script = b"printf %s ".to_vec();
            script.extend_from_slice(out.as_bytes());
            use std::os::unix::ffi::OsStrExt;
            let shell = std::process::Command::new("/bin/sh")
                .arg("-c")
                .arg(std::ffi::OsStr::from_bytes(&script))
                .output()
                .unwrap();
            assert_eq!(shell.stdout, word, "{:?}", String::from_utf8_lossy(&script));
        }
    }
}
