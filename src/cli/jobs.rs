//! Looking at the queue and steering it: list, cancel, retry, forget, drain,
//! watch.

use super::client::{Answer, Client, ClientError, NEVER, report_refused};
use super::command_line::option;
use super::lifecycle::confirm;
use super::{Invocation, print, usage};
use crate::limits::{ANSWER_MAX_BYTES, ANSWER_WAIT, JOB_MAX_BYTES, LIST_PAGE};
use crate::proto::control::{Target, split, target};
use crate::proto::status::{field, number};
use crate::service::lifecycle::exit;
use crate::sys::{clock, fds, signal};
use crate::util::text::{Writer, parse_u64};
use crate::util::time::Duration;
use ufmt::uwrite;

/// Bytes of one printed line of `list`, with every byte of its text escaped.
const LISTED_MAX_BYTES: usize = 4 * JOB_MAX_BYTES + 64;
/// `drain --wait` looks this often whether the service is gone, where it
/// cannot be told.
const DRAIN_LOOK: Duration = Duration::from_secs(60);

/// `list [waiting|running|dead]`
pub(super) fn list(mut invocation: Invocation) -> u8 {
    signal::ignore_broken_pipes();
    let state = match invocation.operands.get(0) {
        None => &b"all"[..],
        Some(state @ (b"waiting" | b"running" | b"dead")) => state,
        Some(other) => {
            return usage("list", &|out| {
                out.push_str("unknown state \"");
                out.push_escaped(other.get(..40).unwrap_or(other));
                out.push_str("\"; known are waiting, running, dead");
            });
        }
    };
    let (mut client, rest) = match invocation.client(ANSWER_MAX_BYTES) {
        Ok(both) => both,
        Err(code) => return code,
    };
    let mut printer =
        ListPrinter { out: Writer::new(rest), terminal: fds::is_terminal(1), printed: false, last: 0 };
    loop {
        let before = printer.last;
        match take_page(&mut client, state, &mut printer) {
            Ok(true) => {}
            Ok(false) => return printer.flush(),
            // Whoever reads us was too slow for the service: from there on.
            Err(ClientError::Closed) if printer.last > before => client.close(),
            Err(error) => {
                printer.flush();
                return client.report("list", error);
            }
        }
    }
}

/// What is printed of the list.
struct ListPrinter<'m> {
    out: Writer<'m>,
    terminal: bool,
    /// Whether the header was.
    printed: bool,
    /// The last id.
    last: u64,
}

impl ListPrinter<'_> {
    /// Adds one line `ID STATE ATTEMPT TEXT`; none if it is not one.
    fn add(&mut self, line: &[u8]) -> Option<()> {
        let (id, rest) = split(line);
        let (state, rest) = split(rest);
        let (attempt, text) = split(rest);
        self.last = parse_u64(id)?;
        if self.terminal && !self.printed {
            self.out.push_str("    ID  STATE    ATTEMPT  TEXT\n");
        }
        self.printed = true;
        self.column(id, 6, true);
        self.column(state, 7, false);
        self.column(attempt, 7, true);
        self.out.push_visible(text);
        self.out.push_str("\n");
        Some(())
    }

    /// One column and what separates it from the next.
    fn column(&mut self, text: &[u8], width: usize, right: bool) {
        let blanks = if self.terminal { width.saturating_sub(text.len()) } else { 0 };
        for _ in 0..if right { blanks } else { 0 } {
            self.out.push_str(" ");
        }
        self.out.push_visible(text.get(..20).unwrap_or(text));
        for _ in 0..if right { 0 } else { blanks } {
            self.out.push_str(" ");
        }
        self.out.push_str(if self.terminal { "  " } else { " " });
    }

    fn flush(&mut self) -> u8 {
        let code = print(self.out.as_bytes());
        self.out.truncate(0);
        code
    }
}

/// Asks for the page behind the last id; true if there may be another one.
fn take_page(
    client: &mut Client<'_>,
    state: &[u8],
    printer: &mut ListPrinter<'_>,
) -> Result<bool, ClientError> {
    if client.socket.is_none() {
        client.connect_or_report("list").map_err(ClientError::Reported)?;
    }
    let mut digits = [0; 20];
    let mut after = Writer::new(&mut digits);
    after.push_u64(printer.last);
    client.send(&[b"list ", state, b" ", after.as_bytes()])?;
    let line = client.line(Some(clock::now() + ANSWER_WAIT))?;
    let count = match Answer::parse(client.at(line)) {
        Answer::Ok(count) => parse_u64(count).ok_or(ClientError::Garbage)?,
        Answer::Refused(code, text) => return Err(ClientError::Reported(report_refused("list", code, text))),
        Answer::Garbage => return Err(ClientError::Garbage),
    };
    for _ in 0..count {
        if printer.out.room() < LISTED_MAX_BYTES && printer.flush() != exit::OK {
            return Err(ClientError::Reported(exit::FAILED));
        }
        let line = client.line(Some(clock::now() + ANSWER_WAIT))?;
        printer.add(client.at(line)).ok_or(ClientError::Garbage)?;
    }
    Ok(count >= LIST_PAGE as u64)
}

/// `cancel ID`
pub(super) fn cancel(invocation: Invocation) -> u8 {
    change(invocation, b"cancel ", false, "cancelled")
}

/// `retry ID|dead`
pub(super) fn retry(invocation: Invocation) -> u8 {
    change(invocation, b"retry ", true, "retried")
}

/// `forget ID|dead`
pub(super) fn forget(invocation: Invocation) -> u8 {
    change(invocation, b"forget ", true, "forgotten")
}

/// Asks for a change of one job, or of all dead ones, and confirms it.
fn change(mut invocation: Invocation, request: &[u8], takes_dead: bool, done: &str) -> u8 {
    let verb = invocation.command;
    let word = invocation.operands.get(0).unwrap_or(b"");
    let which = match target(word) {
        Ok(Target::Dead) if takes_dead => None,
        Ok(Target::Job(id)) => Some(id),
        _ => {
            return usage(verb, &|out| {
                out.push_str(if takes_dead { "a job's number or dead" } else { "a job's number" });
                out.push_str(" is needed, not \"");
                out.push_escaped(word.get(..40).unwrap_or(word));
                out.push_str("\"");
            });
        }
    };
    let asked = invocation.client(ANSWER_MAX_BYTES).and_then(|(mut client, _)| {
        client.connect_or_report(verb)?;
        let answer = client.ask(verb, &[request, word])?;
        let mut line = [0; 80];
        let mut out = Writer::new(&mut line);
        let _ = match which {
            Some(id) => uwrite!(out, "zigsvc: job {} {}", id, done),
            None => match number(answer, "count").unwrap_or(0) {
                1 => uwrite!(out, "zigsvc: 1 dead job {}", done),
                count => uwrite!(out, "zigsvc: {} dead jobs {}", count, done),
            },
        };
        if field(answer, "was") == Some(b"running") {
            out.push_str("; it was running and is being ended");
        }
        out.push_str("\n");
        Ok(print(out.as_bytes()))
    });
    asked.unwrap_or_else(|code| code)
}

/// `drain [--wait]`
pub(super) fn drain(mut invocation: Invocation) -> u8 {
    drained(&mut invocation).unwrap_or_else(|code| code)
}

fn drained(invocation: &mut Invocation) -> Result<u8, u8> {
    let waits = invocation.operands.has(option::WAIT);
    let (mut client, _) = invocation.client(ANSWER_MAX_BYTES)?;
    let path = client.pid_path.clone();
    // Found before it is asked, so that a later one is not taken for it.
    let service = if waits { Invocation::lock_holder(&path)? } else { None };
    client.connect_or_report("drain")?;
    if !waits {
        client.ask("drain", &[b"drain"])?;
        return Ok(confirm(invocation, "draining"));
    }
    client.ask_until(NEVER, "drain", &[b"drain wait"])?;
    client.close();
    // Done with its jobs; it is gone in a moment.
    while service.as_ref().is_some_and(|service| !service.is_gone_within(&path, DRAIN_LOOK)) {}
    Ok(confirm(invocation, "drained"))
}

/// `watch`
pub(super) fn watch(mut invocation: Invocation) -> u8 {
    signal::ignore_broken_pipes();
    let watched = invocation.client(ANSWER_MAX_BYTES).and_then(|(mut client, rest)| {
        client.connect_or_report("watch")?;
        client.ask("watch", &[b"watch"])?;
        client.minds_stdout = true;
        loop {
            let line = match client.line(NEVER) {
                Ok(line) => line,
                Err(ClientError::Closed) => return Ok(exit::OK),
                Err(error) => return Err(client.report("watch", error)),
            };
            let mut out = Writer::new(rest);
            out.push_visible(client.at(line));
            out.push_str("\n");
            if print(out.as_bytes()) != exit::OK {
                return Err(exit::FAILED);
            }
        }
    });
    watched.unwrap_or_else(|code| code)
}
