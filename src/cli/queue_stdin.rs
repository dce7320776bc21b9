//! `queue -`: each line of stdin becomes a job as soon as it has come. This file reads,
//! connects, sends and prints; `state/queue_feed.rs` decides.
//!
//! There is one loop with one poll: stdin, answers, room for requests. Stdin is not read
//! while no more lines can be held, so the process that writes to it waits.

use super::client::{Client, ClientError};
use super::invocation::Invocation;
use super::output::{CommandResult, fail, print};
use crate::limits::{ANSWER_MAX_BYTES, QUEUE_STDIN_INPUT_BYTES, QUEUE_STDIN_OUTPUT_BYTES};
use crate::service::lifecycle::exit;
use crate::state::queue_feed::{AnswerEffect, FeedProgress, FeedStep, QueueFeed};
use crate::sys::poll::{Interest, PollSet};
use crate::sys::{AsFd, Errno, Failure, clock, fds, file, process, signal, socket};
use crate::util::text::Writer;
use crate::util::time::{Instant, earliest};
use ufmt::uwrite;

/// The memory for ids that are not printed yet, in bytes.
const IDS_BYTES: usize = 512;
/// The bytes of one id with its newline.
const ID_BYTES: usize = 24;

/// A descriptor that poll(2) found ready.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ready {
    Stdin,
    Answer,
    Output,
}

/// The feed, and the things that it is performed with.
struct StdinQueue<'m> {
    feed: QueueFeed<'m>,
    client: Client<'m>,
    /// Requests, of which the first `sent` bytes are sent.
    output: Writer<'m>,
    sent: usize,
    ids: Writer<'m>,
    console: Console,
}

/// Stderr, where a line of progress can stand.
struct Console {
    /// `None` where no progress is shown, because stderr is no terminal, or stdout is one.
    progress: Option<FeedProgress>,
    /// The exit code.
    code: u8,
}

/// Runs `queue -`. The jobs are due after `delay`, or at once if it is empty.
#[inline(never)]
pub(super) fn queue_stdin(mut invocation: Invocation, delay: &'static [u8]) -> CommandResult {
    signal::ignore_broken_pipes();
    let (mut client, rest) = invocation.client(ANSWER_MAX_BYTES)?;
    client.connect_or_report()?;
    let (input, rest) = rest.split_at_mut_checked(QUEUE_STDIN_INPUT_BYTES).unwrap_or_default();
    let (output, rest) = rest.split_at_mut_checked(QUEUE_STDIN_OUTPUT_BYTES).unwrap_or_default();
    let (ids, lines) = rest.split_at_mut_checked(IDS_BYTES).unwrap_or_default();
    let shows_progress = fds::is_terminal(2) && !fds::is_terminal(1);
    let mut queue = StdinQueue {
        feed: QueueFeed::new(input, lines),
        client,
        output: Writer::new(output),
        sent: 0,
        ids: Writer::new(ids),
        console: Console { progress: shows_progress.then(FeedProgress::default), code: exit::OK },
    };
    queue.feed.delay = delay;
    let result = queue.run();
    queue.console.show_progress(queue.feed.queued(), true);
    result
}

impl StdinQueue<'_> {
    /// Runs until the feed has finished.
    fn run(&mut self) -> CommandResult {
        loop {
            let console = &mut self.console;
            self.feed.take_lines(&mut |number, why| console.report_line(number, &|out| out.push_str(why)));
            if !self.feed.is_connected() {
                self.client.close();
                self.output.truncate(0);
                self.sent = 0;
            }
            let now = clock::now();
            match self.feed.step(now) {
                FeedStep::Finish => return Ok(self.console.code),
                FeedStep::GiveUp(lines) => {
                    self.console.print_note(&|out| {
                        let _ = uwrite!(
                            out,
                            "the service does not come back; {} lines were read but not queued",
                            lines
                        );
                    });
                    return Err(exit::NOT_RUNNING);
                }
                FeedStep::Connect => {
                    self.connect(now)?;
                    continue;
                }
                FeedStep::ReportSilence => {
                    self.console.print_note(&|out| out.push_str("waits: no answer for 30 s"));
                    continue;
                }
                FeedStep::Send => self.feed.write_requests(&mut self.output),
                FeedStep::Wait => {}
            }
            self.send()?;
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
            self.console.show_progress(self.feed.queued(), false);
        }
    }

    /// Tries once to connect.
    fn connect(&mut self, now: Instant) -> Result<(), u8> {
        match self.client.connect(now) {
            Ok(()) => self.feed.on_connected(),
            Err(ClientError::NotRunning) => self.feed.on_connection_lost(now),
            Err(ClientError::Failed(failure)) if can_recover(failure) => self.feed.on_connection_lost(now),
            Err(error) => return Err(self.client.report(error)),
        }
        Ok(())
    }

    /// Waits until a descriptor is ready, or until the feed must act; returns a function
    /// that is true for the descriptors that are ready.
    fn wait(&self, now: Instant) -> impl Fn(Ready) -> bool + use<> {
        let progress = self.console.progress.as_ref();
        let shown = progress.and_then(|progress| progress.next_deadline(self.feed.queued()));
        let deadline = earliest(self.feed.next_deadline(), shown);
        let mut set = PollSet::new();
        if self.feed.wants_input() {
            set.watch(fds::borrow(0), Interest::Input, Ready::Stdin);
        }
        if let Some(socket) = &self.client.socket {
            set.watch(socket.as_fd(), Interest::Input, Ready::Answer);
            if self.sent < self.output.len() {
                set.watch(socket.as_fd(), Interest::Output, Ready::Output);
            }
        }
        set.wait(deadline.map(|deadline| now.until(deadline)));
        let mut found = [None; 3];
        for (place, ready) in found.iter_mut().zip(set.ready()) {
            *place = Some(ready);
        }
        move |ready| found.contains(&Some(ready))
    }

    /// Reads stdin once. Stdin is shared with other processes, so it stays blocking; poll(2)
    /// has reported that this read does not wait.
    fn read(&mut self) {
        match file::read(fds::borrow(0), self.feed.input_space()) {
            Ok(count) => self.feed.on_input(count),
            Err(Failure { errno: Errno::AGAIN | Errno::INTR, .. }) => {}
            Err(failure) => {
                self.feed.on_input(0);
                self.console.report_error(&|out| {
                    out.push_str("stdin: ");
                    failure.describe(out);
                });
            }
        }
    }

    /// Sends as many bytes as the socket takes.
    fn send(&mut self) -> Result<(), u8> {
        let Some(socket) = &self.client.socket else { return Ok(()) };
        let rest = self.output.as_bytes().get(self.sent..).unwrap_or(&[]);
        if rest.is_empty() {
            return Ok(());
        }
        match socket::send(socket, rest) {
            Ok(count) => self.sent = self.sent.saturating_add(count),
            Err(Failure { errno: Errno::AGAIN, .. }) => return Ok(()),
            // The answers that came before the end are still to be read; the feed learns of
            // the end when it is read.
            Err(Failure { errno: Errno::PIPE | Errno::CONNRESET, .. }) => self.sent = self.output.len(),
            Err(failure) => return Err(self.client.report(ClientError::Failed(failure))),
        }
        if self.sent >= self.output.len() {
            self.output.truncate(0);
            self.sent = 0;
        }
        Ok(())
    }

    /// Reads answers, and performs their effects.
    fn read_replies(&mut self, now: Instant) -> Result<(), u8> {
        let received = self.client.receive();
        while self.feed.is_connected()
            && let Some(line) = self.client.next_line()
        {
            if self.ids.room() < ID_BYTES {
                self.print_ids();
            }
            let console = &mut self.console;
            match self.feed.on_answer(self.client.at(line), now) {
                AnswerEffect::None | AnswerEffect::Busy(false) => {}
                AnswerEffect::Queued { id, resumed } => {
                    self.ids.push_u64(id);
                    self.ids.push_str("\n");
                    if resumed {
                        console.print_note(&|out| out.push_str("continues"));
                    }
                }
                AnswerEffect::LineRefused(number, answer) => {
                    console.report_line(number, &|out| answer.describe(out));
                }
                AnswerEffect::Stalled(answer) => console.print_note(&|out| {
                    out.push_str("waits: ");
                    answer.describe(out);
                }),
                AnswerEffect::Busy(true) => {
                    console.print_note(&|out| out.push_str("waits: all places for clients are taken (busy)"));
                }
                AnswerEffect::StatusRefused(answer) => return Err(self.client.report_answer(answer)),
            }
        }
        self.print_ids();
        match received {
            Ok(_) => self.feed.on_answers_taken(now),
            Err(ClientError::Closed) => self.feed.on_closed(now),
            Err(error) => return Err(self.client.report(error)),
        }
        Ok(())
    }

    /// Prints the ids of queued jobs. A job stays queued even if its id cannot be printed.
    fn print_ids(&mut self) {
        if !self.ids.is_empty()
            && let Err(code) = print(self.ids.as_bytes())
        {
            self.console.code = code;
        }
        self.ids.truncate(0);
    }
}

impl Console {
    /// Prints an error of a line that will not be queued.
    fn report_line(&mut self, number: u32, why: &dyn Fn(&mut Writer<'_>)) {
        self.report_error(&|out| {
            let _ = uwrite!(out, "line {}: ", number);
            why(out);
        });
    }

    /// Prints an error after which the command fails.
    fn report_error(&mut self, text: &dyn Fn(&mut Writer<'_>)) {
        self.code = exit::FAILED;
        self.print_note(text);
    }

    /// Prints one line on stderr, after the line of progress if there is one.
    fn print_note(&self, text: &dyn Fn(&mut Writer<'_>)) {
        if self.progress.as_ref().is_some_and(FeedProgress::has_shown) {
            process::write_stderr(b"\n");
        }
        fail(exit::FAILED, &|out| {
            out.push_str("queue: ");
            text(out);
        });
    }

    /// Shows the number of queued jobs, if it is due; `last` is set at the end.
    fn show_progress(&mut self, queued: u64, last: bool) {
        let Some(progress) = &mut self.progress else { return };
        let mut line = [0; 40];
        let mut out = Writer::new(&mut line);
        if progress.is_due(queued, clock::now(), last) {
            let _ = uwrite!(out, "\r{} queued", queued);
        }
        if last && progress.has_shown() {
            out.push_str("\n");
        }
        process::write_stderr(out.as_bytes());
    }
}

/// Returns true if a later attempt to connect can succeed.
fn can_recover(failure: Failure) -> bool {
    !failure.is_denied() && failure.errno != Errno::NAMETOOLONG
}
