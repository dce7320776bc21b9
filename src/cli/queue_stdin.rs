//! `queue -`: each line of stdin becomes a job, as soon as it has come.
//!
//! Requests are sent ahead of their answers, but no more than the queue has
//! room for (`room` of `status`). A line is held until its `ok`: what is
//! refused for now, or lost with the connection, is sent again.
//!
//! ```text
//! stdin ─▶ input ─▶ lines (backlog.rs) ─▶ output ─▶ socket
//!                      ▲ settled, kept ◀─ answers ◀─┘
//! ```
//!
//! One loop, one poll: stdin, socket in, socket out. When `lines` is full stdin
//! is not read: whoever writes to it has to wait.

use super::backlog::Backlog;
use super::client::{Answer, Client, ClientError, push_refusal, report_refused};
use super::{Invocation, fail, print};
use crate::limits::{
    ANSWER_MAX_BYTES, ANSWER_WAIT, FULL_RETRY, JOB_MAX_BYTES, PROGRESS_EVERY, QUEUE_STDIN_INPUT_BYTES,
    QUEUE_STDIN_OUTPUT_BYTES, REFUSED_RETRY, RESTART_WAIT,
};
use crate::proto::status::{field, number};
use crate::service::lifecycle::exit;
use crate::sys::poll::{Interest, PollSet};
use crate::sys::{AsFd, Errno, Failure, clock, fds, file, process, signal, socket};
use crate::util::lines::{Line, classify};
use crate::util::text::Writer;
use crate::util::time::{Instant, earliest};
use ufmt::uwrite;

/// What poll(2) may say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ready {
    Stdin,
    Answer,
    Output,
}

/// See the module's documentation.
struct StdinQueue<'m> {
    client: Client<'m>,
    lines: Backlog<'m>,
    /// What was read and is not yet a whole line: `input[..held]`.
    input: &'m mut [u8],
    held: usize,
    /// The rest of a line that is too long is being dropped.
    skipping: bool,
    /// Stdin has ended.
    ended: bool,
    /// Lines of stdin, empty ones included.
    number: u32,
    /// Requests, of which the first `taken` bytes are sent.
    output: Writer<'m>,
    taken: usize,
    /// Lines that may be sent until `status` is asked again.
    credits: u64,
    /// The next answer is that of `status`.
    status_pending: bool,
    /// Nothing is sent before this.
    not_before: Instant,
    /// When the service was last heard of, or was given something to answer.
    last_heard_at: Instant,
    /// Since when there is no service.
    lost_since: Option<Instant>,
    /// It was said that lines are held up, and why.
    stalled: bool,
    /// The service takes no more: leave it once it has answered everything.
    leaving: bool,
    /// Ids that were not printed yet.
    ids: Writer<'m>,
    /// Jobs that were queued.
    queued: u64,
    progress: ProgressDisplay,
    code: u8,
}

/// The number of queued jobs on a terminal.
struct ProgressDisplay {
    shows: bool,
    shown: u64,
    at: Instant,
}

/// `queue -`
#[inline(never)]
pub(super) fn queue_stdin(mut invocation: Invocation) -> u8 {
    signal::ignore_broken_pipes();
    let (client, rest) = match invocation.client(ANSWER_MAX_BYTES) {
        Ok(both) => both,
        Err(code) => return code,
    };
    let (input, rest) = rest.split_at_mut_checked(QUEUE_STDIN_INPUT_BYTES).unwrap_or_default();
    let (output, rest) = rest.split_at_mut_checked(QUEUE_STDIN_OUTPUT_BYTES).unwrap_or_default();
    let (ids, rest) = rest.split_at_mut_checked(512).unwrap_or_default();
    let mut queue = StdinQueue {
        client,
        lines: Backlog::new(rest),
        input,
        held: 0,
        skipping: false,
        ended: false,
        number: 0,
        output: Writer::new(output),
        taken: 0,
        credits: 0,
        status_pending: false,
        not_before: Instant::BOOT,
        last_heard_at: Instant::BOOT,
        lost_since: None,
        stalled: false,
        leaving: false,
        ids: Writer::new(ids),
        queued: 0,
        progress: ProgressDisplay {
            shows: fds::is_terminal(2) && !fds::is_terminal(1),
            shown: 0,
            at: Instant::BOOT,
        },
        code: exit::OK,
    };
    let code = queue.client.connect_or_report("queue").and_then(|()| queue.run());
    queue.show_progress(true);
    code.map_or_else(|code| code, |()| queue.code)
}

impl StdinQueue<'_> {
    /// Until stdin has ended and every line is queued, or there is no hope.
    fn run(&mut self) -> Result<(), u8> {
        loop {
            self.take_lines();
            if self.ended && self.lines.count() == 0 {
                return Ok(());
            }
            let now = clock::now();
            self.send_requests(now)?;
            let ready = self.wait(now);
            if ready(Ready::Stdin) {
                self.read();
            }
            if ready(Ready::Output) {
                self.send()?;
            }
            if ready(Ready::Answer) {
                self.read_replies(clock::now())?;
            }
            self.show_progress(false);
        }
    }

    /// Waits for something to do; says what there is.
    fn wait(&self, now: Instant) -> impl Fn(Ready) -> bool + use<> {
        let mut until = None;
        if self.lines.count() > 0 && !self.not_before.is_due(now) {
            until = Some(self.not_before);
        } else if self.is_reply_pending() && !self.stalled {
            until = Some(self.last_heard_at + ANSWER_WAIT);
        }
        if self.progress.shows && self.progress.shown != self.queued {
            until = earliest(until, Some(self.progress.at + PROGRESS_EVERY));
        }
        let mut set = PollSet::new();
        if !self.ended && self.lines.has_room(JOB_MAX_BYTES) {
            set.watch(fds::borrow(0), Interest::Input, Ready::Stdin);
        }
        if let Some(socket) = &self.client.socket {
            set.watch(socket.as_fd(), Interest::Input, Ready::Answer);
            if self.taken < self.output.len() {
                set.watch(socket.as_fd(), Interest::Output, Ready::Output);
            }
        }
        set.wait(until.map(|until| now.until(until)));
        let mut found = [None; 3];
        for (place, ready) in found.iter_mut().zip(set.ready()) {
            *place = Some(ready);
        }
        move |ready| found.contains(&Some(ready))
    }

    /// Whether an answer is to come.
    fn is_reply_pending(&self) -> bool {
        self.status_pending || self.lines.is_in_flight()
    }

    /// Reads stdin once. It is shared, so it stays as it is: poll(2) said that
    /// this does not block.
    fn read(&mut self) {
        let free = self.input.get_mut(self.held..).unwrap_or(&mut []);
        match file::read(fds::borrow(0), free) {
            Ok(0) => self.ended = true,
            Ok(count) => self.held = self.held.saturating_add(count),
            Err(Failure { errno: Errno::AGAIN | Errno::INTR, .. }) => {}
            Err(failure) => {
                self.ended = true;
                self.report_error(&|out| {
                    out.push_str("stdin: ");
                    failure.describe(out);
                });
            }
        }
    }

    /// Makes lines of what was read, while there is room for them.
    fn take_lines(&mut self) {
        let mut start = 0;
        while self.lines.has_room(JOB_MAX_BYTES) {
            let rest = self.input.get(start..self.held).unwrap_or(&[]);
            let newline = rest.iter().position(|byte| *byte == b'\n');
            let length = match newline {
                Some(length) => length,
                // One that fills the input can be no job; one at the end of
                // stdin is as good as those with a newline.
                None if rest.is_empty() || (rest.len() < self.input.len() && !self.ended) => break,
                None => rest.len(),
            };
            let verdict = classify(rest.get(..length).unwrap_or(rest));
            if self.skipping {
                self.skipping = newline.is_none();
            } else {
                self.number = self.number.saturating_add(1);
                match verdict {
                    _ if newline.is_none() && !self.ended => {
                        self.skipping = true;
                        self.reject("it is longer than 1000 bytes");
                    }
                    Line::Empty => {}
                    Line::Job(text) => self.lines.push(self.number, text),
                    Line::Rejected(why) => self.reject(why),
                }
            }
            start = start.saturating_add(length).saturating_add(usize::from(newline.is_some()));
        }
        self.input.copy_within(start..self.held, 0);
        self.held = self.held.saturating_sub(start);
    }

    fn reject(&mut self, why: &str) {
        let number = self.number;
        self.report_error(&|out| {
            let _ = uwrite!(out, "line {}: {}", number, why);
        });
    }

    /// Connects if need be, and writes requests.
    fn send_requests(&mut self, now: Instant) -> Result<(), u8> {
        if self.lines.count() == 0 || !self.not_before.is_due(now) {
            return Ok(());
        }
        if self.client.socket.is_none() {
            match self.client.connect(now) {
                Ok(()) => {}
                Err(error @ (ClientError::NotRunning | ClientError::Failed(_))) if !is_final(error) => {
                    return self.on_connection_lost(now);
                }
                Err(error) => return Err(self.client.report("queue", error)),
            }
        }
        if self.is_reply_pending() {
            if !self.stalled && (self.last_heard_at + ANSWER_WAIT).is_due(now) {
                self.stall(&|out| out.push_str("no answer for 30 s"));
            }
        } else {
            self.last_heard_at = now;
            if self.lines.has_kept() {
                self.lines.rewind();
                self.credits = 0;
            }
            if self.credits == 0 {
                self.status_pending = true;
                self.output.push_str("status\n");
            }
        }
        if !self.status_pending && !self.lines.has_kept() {
            while self.credits > 0
                && let Some(text) = self.lines.next()
                && self.output.room() > text.len().saturating_add(8)
            {
                self.output.push_str("queue ");
                self.output.push(text);
                self.output.push_str("\n");
                self.lines.sent();
                self.credits = self.credits.saturating_sub(1);
            }
        }
        self.send()
    }

    /// Sends what the socket takes.
    fn send(&mut self) -> Result<(), u8> {
        let Some(socket) = &self.client.socket else { return Ok(()) };
        let rest = self.output.as_bytes().get(self.taken..).unwrap_or(&[]);
        if rest.is_empty() {
            return Ok(());
        }
        match socket::send(socket, rest) {
            Ok(count) => self.taken = self.taken.saturating_add(count),
            Err(Failure { errno: Errno::AGAIN, .. }) => return Ok(()),
            // What was answered before is still to be read; its end tells.
            Err(Failure { errno: Errno::PIPE | Errno::CONNRESET, .. }) => self.taken = self.output.len(),
            Err(failure) => return Err(self.client.report("queue", ClientError::Failed(failure))),
        }
        if self.taken >= self.output.len() {
            self.output.truncate(0);
            self.taken = 0;
        }
        Ok(())
    }

    /// Reads answers.
    fn read_replies(&mut self, now: Instant) -> Result<(), u8> {
        let received = self.client.receive();
        while let Some(line) = self.client.next_line() {
            self.last_heard_at = now;
            if self.ids.room() < 24 {
                self.print_ids();
            }
            if self.status_pending {
                self.status_pending = false;
                self.on_status(line, now)?;
            } else if self.lines.is_in_flight() {
                self.on_answer(line, now);
            }
        }
        self.print_ids();
        match received {
            Ok(_) if self.leaving && !self.is_reply_pending() => self.on_connection_lost(now),
            Ok(_) => Ok(()),
            Err(ClientError::Closed) if self.lines.count() == 0 => {
                self.disconnect();
                Ok(())
            }
            Err(ClientError::Closed) => self.on_connection_lost(now),
            Err(error) => Err(self.client.report("queue", error)),
        }
    }

    /// How much room the queue has.
    fn on_status(&mut self, line: core::ops::Range<usize>, now: Instant) -> Result<(), u8> {
        match Answer::parse(self.client.at(line)) {
            Answer::Ok(text) => {
                let runs = field(text, "state").is_none_or(|state| state == b"running");
                let room = number(text, "room").unwrap_or(u64::MAX);
                self.leaving = !runs;
                if runs {
                    self.lost_since = None;
                }
                // While the disk refuses, one line is enough to see when it
                // does no more.
                self.credits = if self.stalled { room.min(1) } else { room };
                if room == 0 {
                    self.not_before = now + FULL_RETRY;
                }
                Ok(())
            }
            Answer::Refused(b"busy", _) => {
                self.not_before = now + REFUSED_RETRY;
                self.lost_since = None;
                self.disconnect();
                self.stall(&|out| out.push_str("all places for clients are taken (busy)"));
                Ok(())
            }
            Answer::Refused(code, text) => Err(report_refused("queue", code, text)),
            Answer::Garbage => Err(self.client.report("queue", ClientError::Garbage)),
        }
    }

    /// What became of the first line that flies.
    fn on_answer(&mut self, line: core::ops::Range<usize>, now: Instant) {
        let mut copy = [0; 160];
        let mut reason = Writer::new(&mut copy);
        match Answer::parse(self.client.at(line)) {
            Answer::Ok(text) if number(text, "id").is_some() => {
                self.ids.push_u64(number(text, "id").unwrap_or(0));
                self.ids.push_str("\n");
                self.lines.acknowledge();
                self.queued = self.queued.saturating_add(1);
                self.lost_since = None;
                if self.stalled {
                    self.stalled = false;
                    self.credits = 0;
                    self.print_note(&|out| out.push_str("goes on"));
                }
                return;
            }
            Answer::Refused(b"draining" | b"stopping", _) => {
                self.lines.keep();
                self.leaving = true;
                return;
            }
            Answer::Refused(code @ (b"full" | b"no-space" | b"io" | b"busy"), text) => {
                push_refusal(code, text, &mut reason);
                self.lines.keep();
                self.credits = 0;
                self.not_before = now + REFUSED_RETRY;
                self.stall(&|out| out.push(reason.as_bytes()));
                return;
            }
            Answer::Refused(code, text) => push_refusal(code, text, &mut reason),
            Answer::Ok(_) | Answer::Garbage => reason.push_str("the answer is not one of this protocol"),
        }
        let number = self.lines.acknowledge();
        self.report_error(&|out| {
            let _ = uwrite!(out, "line {}: ", number);
            out.push(reason.as_bytes());
        });
    }

    /// There is no service, or it takes no more: again in a moment, for up to
    /// [`RESTART_WAIT`].
    fn on_connection_lost(&mut self, now: Instant) -> Result<(), u8> {
        self.disconnect();
        let since = *self.lost_since.get_or_insert(now);
        if !(since + RESTART_WAIT).is_due(now) {
            self.not_before = now + FULL_RETRY;
            return Ok(());
        }
        let read = self.input.get(..self.held).unwrap_or(&[]);
        let more = read.split(|byte| *byte == b'\n').filter(|line| classify(line) != Line::Empty).count();
        let lines = usize::try_from(self.lines.count()).unwrap_or(0).saturating_add(more);
        self.print_note(&|out| {
            let _ = uwrite!(out, "the service does not come back; {} lines were read but not queued", lines);
        });
        Err(exit::NOT_RUNNING)
    }

    /// Ends the connection; what was not acknowledged is to be sent again.
    fn disconnect(&mut self) {
        self.client.close();
        self.output.truncate(0);
        (self.taken, self.credits, self.status_pending, self.leaving) = (0, 0, false, false);
        self.lines.rewind();
    }

    fn print_ids(&mut self) {
        if !self.ids.is_empty() && print(self.ids.as_bytes()) != exit::OK {
            // The jobs are worth more than their numbers.
            self.code = exit::FAILED;
        }
        self.ids.truncate(0);
    }

    /// Says once why lines are held up.
    fn stall(&mut self, why: &dyn Fn(&mut Writer<'_>)) {
        if !self.stalled {
            self.stalled = true;
            self.print_note(&|out| {
                out.push_str("waits: ");
                why(out);
            });
        }
    }

    /// One line about something that went wrong for good.
    fn report_error(&mut self, text: &dyn Fn(&mut Writer<'_>)) {
        self.code = exit::FAILED;
        self.print_note(text);
    }

    /// One line on stderr, not in the middle of the progress.
    fn print_note(&mut self, text: &dyn Fn(&mut Writer<'_>)) {
        if self.progress.shown > 0 {
            process::write_stderr(b"\n");
        }
        fail(exit::FAILED, &|out| {
            out.push_str("queue: ");
            text(out);
        });
    }

    /// Shows how many jobs were queued; at the end, for good.
    fn show_progress(&mut self, last: bool) {
        let now = clock::now();
        let progress = &mut self.progress;
        let due = progress.shown != self.queued && (last || (progress.at + PROGRESS_EVERY).is_due(now));
        if !progress.shows {
            return;
        }
        let mut line = [0; 40];
        let mut out = Writer::new(&mut line);
        if due {
            let _ = uwrite!(out, "\r{} queued", self.queued);
            (progress.shown, progress.at) = (self.queued, now);
        }
        if last && progress.shown > 0 {
            out.push_str("\n");
        }
        process::write_stderr(out.as_bytes());
    }
}

/// Whether trying again would not help.
fn is_final(error: ClientError) -> bool {
    match error {
        ClientError::Failed(failure) => failure.is_denied() || failure.errno == Errno::NAMETOOLONG,
        _ => false,
    }
}
