//! The commands that show and change jobs: list, cancel, retry, forget, hold, resume, drain,
//! watch.

use super::client::{Client, ClientError, NEVER, answer_deadline};
use super::command_line::CommandOption;
use super::invocation::{Invocation, find_holder};
use super::output::{CommandResult, print, push_word, usage};
use crate::limits::{ANSWER_MAX_BYTES, JOB_MAX_BYTES, LIST_PAGE};
use crate::proto::answer::Answer;
use crate::proto::control::{Target, split, target};
use crate::proto::status::{field, number};
use crate::service::down_mark::DownMark;
use crate::service::lifecycle::exit;
use crate::service::lock_holder::LockState;
use crate::sys::{fds, signal};
use crate::util::text::{Writer, parse_u64, unescape};
use crate::util::time::Duration;
use ufmt::uwrite;

/// The bytes of one printed line of `list`, if each byte of its text is escaped as in JSON.
const LISTED_MAX_BYTES: usize = 6 * JOB_MAX_BYTES + 160;
/// Columns of the longest state, `scheduled` or `cancelled`.
const STATE_WIDTH: usize = 9;
/// The interval at which `drain --wait` checks whether the service has ended, on a kernel
/// that does not report it.
const DRAIN_LOOK: Duration = Duration::from_secs(60);

/// Runs `list [--json] [waiting|scheduled|running|dead|done]`.
pub(super) fn list(mut invocation: Invocation) -> CommandResult {
    signal::ignore_broken_pipes();
    let state = match invocation.operands.get(0) {
        None => &b"all"[..],
        Some(state @ (b"waiting" | b"scheduled" | b"running" | b"dead" | b"done")) => state,
        Some(other) => {
            return Err(usage("list", &|out| {
                push_word("unknown state", other, out);
                out.push_str("; known are waiting, scheduled, running, dead, done");
            }));
        }
    };
    let json = invocation.operands.has(CommandOption::Json);
    let (mut client, rest) = invocation.client(ANSWER_MAX_BYTES)?;
    let terminal = !json && fds::is_terminal(1);
    let mut printer = ListPrinter {
        out: Writer::new(rest),
        json,
        done: state == b"done",
        terminal,
        printed: false,
        last: 0,
    };
    loop {
        let before = printer.last;
        match take_page(&mut client, state, &mut printer) {
            Ok(true) => {}
            Ok(false) => return printer.flush().map(|()| exit::OK),
            // The reader of stdout was too slow for the service: continue after the last id.
            Err(ClientError::Closed) if printer.last > before && !printer.done => client.close(),
            Err(error) => {
                let _ = printer.flush();
                return Err(client.report(error));
            }
        }
    }
}

/// One job, or one event of a job, as a line of JSON. A member that does not apply is null.
struct JobObject<'a> {
    id: u64,
    state: &'a [u8],
    attempt: Option<u64>,
    exit: Option<u64>,
    ms: Option<u64>,
    /// Seconds until a scheduled job is due.
    due: Option<u64>,
    text: &'a [u8],
}

impl JobObject<'_> {
    /// Writes the object and a newline.
    fn push(&self, out: &mut Writer<'_>) {
        let _ = uwrite!(out, "{{\"id\":{},\"state\":\"", self.id);
        out.push_json(self.state);
        out.push_str("\"");
        let members = [("attempt", self.attempt), ("exit", self.exit), ("ms", self.ms), ("due", self.due)];
        for (name, number) in members {
            let _ = uwrite!(out, ",\"{}\":", name);
            match number {
                Some(number) => out.push_u64(number),
                None => out.push_str("null"),
            }
        }
        out.push_str(",\"text\":\"");
        out.push_json(self.text);
        out.push_str("\"}\n");
    }
}

/// The lines of `list` that are not printed yet.
struct ListPrinter<'m> {
    out: Writer<'m>,
    json: bool,
    /// The lines are those of ends, with exit status and duration.
    done: bool,
    terminal: bool,
    /// Set after the header was written.
    printed: bool,
    /// The id of the last line.
    last: u64,
}

impl ListPrinter<'_> {
    /// Adds one line `ID STATE ATTEMPT TEXT`; returns `None` if `line` is no such line.
    fn add(&mut self, line: &[u8]) -> Option<()> {
        let (id, rest) = split(line);
        let (state, rest) = split(rest);
        let (attempt, text) = split(rest);
        self.last = parse_u64(id)?;
        let (mut exit, mut ms, mut text) = (&b""[..], &b""[..], text);
        if self.done {
            let (word, rest) = split(text);
            exit = word.strip_prefix(b"exit=")?;
            let (word, rest) = split(rest);
            ms = word.strip_prefix(b"ms=")?;
            text = rest;
        }
        let (mut due, mut words) = (None, text);
        if state == b"scheduled" {
            let (word, rest) = split(text);
            (due, words) = (parse_u64(word.strip_prefix(b"due=")?), rest);
        }
        if self.json {
            let number = |digits| parse_u64(digits);
            let attempt = number(attempt);
            let job = JobObject {
                id: self.last,
                state,
                attempt,
                exit: number(exit),
                ms: number(ms),
                due,
                text: words,
            };
            job.push(&mut self.out);
            return Some(());
        }
        if self.terminal && !self.printed {
            self.out.push_str(if self.done {
                "    ID  STATE      ATTEMPT  EXIT        MS  TEXT\n"
            } else {
                "    ID  STATE      ATTEMPT  TEXT\n"
            });
        }
        self.printed = true;
        self.column(id, 6, true);
        self.column(state, STATE_WIDTH, false);
        self.column(attempt, 7, true);
        if self.done {
            self.column(exit, 4, true);
            self.column(ms, 8, true);
        }
        self.out.push_visible(text);
        self.out.push_str("\n");
        Some(())
    }

    /// Writes one column and the blanks before the next one.
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

    /// Prints the lines.
    fn flush(&mut self) -> Result<(), u8> {
        let printed = print(self.out.as_bytes());
        self.out.truncate(0);
        printed
    }
}

/// Asks for the page after the last id; returns true if there can be another page.
fn take_page(
    client: &mut Client<'_>,
    state: &[u8],
    printer: &mut ListPrinter<'_>,
) -> Result<bool, ClientError> {
    if client.socket.is_none() {
        client.connect_or_report().map_err(ClientError::Reported)?;
    }
    let mut digits = [0; 20];
    let mut after = Writer::new(&mut digits);
    after.push_u64(printer.last);
    client.send(&[b"list ", state, b" ", after.as_bytes()])?;
    let line = client.line(answer_deadline())?;
    let count = match Answer::parse(client.at(line)) {
        Answer::Ok(count) => parse_u64(count).ok_or(ClientError::Garbage)?,
        refused => return Err(ClientError::Reported(client.report_answer(refused))),
    };
    for _ in 0..count {
        if printer.out.room() < LISTED_MAX_BYTES {
            printer.flush().map_err(ClientError::Reported)?;
        }
        let line = client.line(answer_deadline())?;
        printer.add(client.at(line)).ok_or(ClientError::Garbage)?;
    }
    Ok(count >= LIST_PAGE as u64)
}

/// Runs `cancel ID`.
pub(super) fn cancel(invocation: Invocation) -> CommandResult {
    change(invocation, b"cancel ", false, "cancelled")
}

/// Runs `retry ID|dead`.
pub(super) fn retry(invocation: Invocation) -> CommandResult {
    change(invocation, b"retry ", true, "retried")
}

/// Runs `forget ID|dead`.
pub(super) fn forget(invocation: Invocation) -> CommandResult {
    change(invocation, b"forget ", true, "forgotten")
}

/// Asks for a change of one job, or of all dead jobs, and prints a confirmation.
fn change(mut invocation: Invocation, request: &[u8], takes_dead: bool, done: &str) -> CommandResult {
    let word = invocation.operands.get(0).unwrap_or(b"");
    let which = match target(word) {
        Ok(Target::Dead) if takes_dead => None,
        Ok(Target::Job(id)) => Some(id),
        _ => {
            return Err(usage(invocation.command, &|out| {
                out.push_str(if takes_dead { "a job's number or dead" } else { "a job's number" });
                push_word(" is needed, not", word, out);
            }));
        }
    };
    let (mut client, _) = invocation.client(ANSWER_MAX_BYTES)?;
    client.connect_or_report()?;
    let answer = client.ask(answer_deadline(), &[request, word])?;
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
    print(out.as_bytes())?;
    Ok(exit::OK)
}

/// Runs `hold`.
pub(super) fn hold(invocation: Invocation) -> CommandResult {
    ask_plainly(invocation, b"hold", "held")
}

/// Runs `resume`.
pub(super) fn resume(invocation: Invocation) -> CommandResult {
    ask_plainly(invocation, b"resume", "resumed")
}

/// Makes a request without an argument, and prints a confirmation.
fn ask_plainly(mut invocation: Invocation, request: &[u8], done: &str) -> CommandResult {
    let (mut client, _) = invocation.client(ANSWER_MAX_BYTES)?;
    client.connect_or_report()?;
    client.ask(answer_deadline(), &[request])?;
    Ok(invocation.confirm(done))
}

/// Runs `drain [--wait]`.
pub(super) fn drain(mut invocation: Invocation) -> CommandResult {
    let (args, mut waits) = (invocation.args, invocation.operands.has(CommandOption::Wait));
    let (mut client, _) = invocation.client(ANSWER_MAX_BYTES)?;
    // The process is looked up before the request, so that it is not a later service.
    let service = if waits { find_holder(&client.locks())? } else { None };
    client.connect_or_report()?;
    // The drain ends after the job that asks for it.
    waits = waits && client.own_job(&args).is_none();
    client.ask(answer_deadline(), &[b"drain"])?;
    // The service makes the mark itself, unless it has no right to.
    let _ = DownMark::make(client.locks().pid_path);
    if !waits {
        return Ok(invocation.confirm("draining"));
    }
    let asked = client.send(&[b"drain wait"]).and_then(|()| client.line(NEVER));
    if let Ok(line) = &asked
        && let refused @ Answer::Refused(..) = Answer::parse(client.at(line.clone()))
    {
        return Err(client.report_answer(refused));
    }
    client.close();
    // The service has ended its jobs, and ends in a moment.
    while service.as_ref().is_some_and(|service| !service.is_gone_within(&client.locks(), DRAIN_LOOK)) {}
    match asked {
        // A service without jobs may have ended in order before the second request.
        Err(ClientError::Closed)
            if matches!(client.locks().state_without_strangers(), Ok(LockState::Stopped)) => {}
        Err(error) => return Err(client.report(error)),
        Ok(_) => {}
    }
    Ok(invocation.confirm("drained"))
}

/// Runs `watch [--json]`.
pub(super) fn watch(mut invocation: Invocation) -> CommandResult {
    signal::ignore_broken_pipes();
    let json = invocation.operands.has(CommandOption::Json);
    let (mut client, rest) = invocation.client(ANSWER_MAX_BYTES)?;
    client.connect_or_report()?;
    client.ask(answer_deadline(), &[b"watch"])?;
    client.minds_stdout = true;
    loop {
        let line = match client.line(NEVER) {
            Ok(line) => line,
            Err(ClientError::Closed) => return Ok(exit::OK),
            Err(error) => return Err(client.report(error)),
        };
        let mut out = Writer::new(rest);
        if json {
            push_event(client.at(line), &mut out);
        } else {
            out.push_visible(client.at(line));
            out.push_str("\n");
        }
        print(out.as_bytes())?;
    }
}

/// Writes an event of `watch` as a line of JSON.
fn push_event(line: &[u8], out: &mut Writer<'_>) {
    // The text is the last field, and may hold blanks.
    let mark = b" text=";
    let at = line.windows(mark.len()).position(|bytes| bytes == mark).unwrap_or(line.len());
    let (head, text) = line.split_at_checked(at).unwrap_or((line, &[]));
    let mut bytes = [0; ANSWER_MAX_BYTES];
    let place = bytes.get_mut(..text.len().saturating_sub(mark.len()));
    let place = place.unwrap_or(&mut []);
    if !place.is_empty() {
        place.copy_from_slice(text.get(mark.len()..).unwrap_or(&[]));
    }
    let length = unescape(place);
    let state = match field(head, "why") {
        Some(why) => why,
        None => field(head, "state").unwrap_or(b""),
    };
    JobObject {
        id: number(head, "job").unwrap_or(0),
        state,
        attempt: number(head, "attempt"),
        exit: number(head, "exit").filter(|_| state != b"started"),
        ms: number(head, "ms").filter(|_| state != b"started"),
        due: None,
        text: place.get(..length).unwrap_or(&[]),
    }
    .push(out);
}
