//! The decisions of `queue -`: when to connect, which lines to send, which to send again,
//! when to give up. Time is an argument; `cli/queue_stdin.rs` reads, sends and prints.
//!
//! ```text
//! stdin ─▶ input ─▶ lines (backlog.rs) ─▶ write_requests ─▶ socket
//!                     ▲ acknowledged, kept ◀─ on_answer ◀─────┘
//! ```
//!
//! | state | leaves it by |
//! | --- | --- |
//! | not connected | `Connect` at `retry_at`; after [`RESTART_WAIT`] without a service `GiveUp` |
//! | connected, no credits | `status`, whose answer has the room of the queue |
//! | credits | each line that is sent takes one |
//! | a line was refused for now | all answers have come; then `status`, and the line again |
//! | stalled | one line is sent at a time; its `ok` ends it |
//! | leaving: the service drains or stops | all answers have come; then not connected |
//!
//! Invariants: a line is dropped only when its answer says that it is queued or can never
//! be; lines are sent in their order, and a line whose answer was lost is sent again
//! before later ones; no more lines are in flight than the queue had room for.

mod backlog;
mod input;
#[cfg(test)]
mod tests;

use crate::limits::{ANSWER_WAIT, FULL_RETRY, JOB_MAX_BYTES, RESTART_WAIT};
use crate::proto::answer::Answer;
use crate::proto::status::{field, number};
use crate::util::lines::Line;
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};
use backlog::Backlog;
use input::Input;

/// Time until `queue -` sends refused lines again.
const REFUSED_RETRY: Duration = Duration::from_ms(500);
/// Time between two progress messages of `queue -`.
const PROGRESS_EVERY: Duration = Duration::from_ms(200);

/// The bytes of a request beside its job: the verb, a blank, the newline.
const REQUEST_EXTRA_BYTES: usize = 8;

/// The next thing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FeedStep {
    /// End: stdin has ended, and each line has its answer.
    Finish,
    /// End: the service did not come back. This many lines were read and not queued.
    GiveUp(usize),
    /// Connect, then call [`QueueFeed::on_connected`] or [`QueueFeed::on_connection_lost`].
    Connect,
    /// Report once that the service does not answer.
    ReportSilence,
    /// Call [`QueueFeed::write_requests`].
    Send,
    /// Wait for stdin, for an answer, or for [`QueueFeed::next_deadline`].
    Wait,
}

/// The effect of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnswerEffect<'a> {
    /// No effect that a user can see.
    None,
    /// A job was queued. `resumed` is set if lines were stalled until now.
    Queued {
        /// The id of the job.
        id: u64,
        /// Lines are accepted again.
        resumed: bool,
    },
    /// The line with this number will never be a job.
    LineRefused(u32, Answer<'a>),
    /// Lines are stalled from now on, for this reason.
    Stalled(Answer<'a>),
    /// The service has no place for this client. Set if that must be reported.
    Busy(bool),
    /// `status` was refused: the command ends.
    StatusRefused(Answer<'a>),
}

/// The lines that were read, and the state of the service as its answers show it.
pub struct QueueFeed<'m> {
    input: Input<'m>,
    lines: Backlog<'m>,
    connected: bool,
    /// The number of lines that may be sent before `status` is asked again.
    credits: u64,
    /// Set if the next answer is that of `status`.
    status_pending: bool,
    /// No request is sent before this.
    retry_at: Instant,
    /// The last time when an answer came, or when no answer was pending.
    last_heard_at: Instant,
    /// The time from which on there is no service.
    lost_since: Option<Instant>,
    /// Set when the service did not come back within [`RESTART_WAIT`].
    given_up: bool,
    /// Set after it was reported that lines are not accepted.
    stalled: bool,
    /// Set if the service takes no more lines: it is left once it has answered.
    leaving: bool,
    queued: u64,
    /// The duration after which the jobs are due; empty for at once.
    pub delay: &'m [u8],
}

impl<'m> QueueFeed<'m> {
    /// Creates a feed that is connected. `input` is the memory for stdin, `lines` that for
    /// lines without answer.
    pub fn new(input: &'m mut [u8], lines: &'m mut [u8]) -> Self {
        Self {
            input: Input::new(input),
            lines: Backlog::new(lines),
            connected: true,
            credits: 0,
            status_pending: false,
            retry_at: Instant::BOOT,
            last_heard_at: Instant::BOOT,
            lost_since: None,
            given_up: false,
            stalled: false,
            leaving: false,
            queued: 0,
            delay: b"",
        }
    }

    /// Returns true if stdin must be read: it has not ended, and there is room for a line.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        !self.input.ended && self.lines.has_room(JOB_MAX_BYTES)
    }

    /// Returns the memory for the next read of stdin.
    pub fn input_space(&mut self) -> &mut [u8] {
        self.input.space()
    }

    /// Adds `count` bytes of stdin that were read into [`QueueFeed::input_space`]; 0 is the
    /// end of stdin.
    pub fn on_input(&mut self, count: usize) {
        self.input.add(count);
        self.input.ended |= count == 0;
    }

    /// Takes the lines that were read, while there is room for them. Calls `reject` with
    /// the number of each line that is not a job, and the reason.
    pub fn take_lines(&mut self, reject: &mut dyn FnMut(u32, &'static str)) {
        while self.lines.has_room(JOB_MAX_BYTES)
            && let Some((number, line)) = self.input.next()
        {
            match line {
                Line::Empty => {}
                Line::Job(text) => self.lines.push(number, text),
                Line::Rejected(why) => reject(number, why),
            }
        }
    }

    /// Returns the next thing to do. Must be called again after each thing that was done.
    pub fn step(&mut self, now: Instant) -> FeedStep {
        if self.given_up {
            let lines = usize::try_from(self.lines.count()).unwrap_or(0);
            return FeedStep::GiveUp(lines.saturating_add(self.input.lines_left()));
        }
        if self.lines.count() == 0 {
            return if self.input.ended { FeedStep::Finish } else { FeedStep::Wait };
        }
        if !self.retry_at.is_due(now) {
            return FeedStep::Wait;
        }
        if !self.connected {
            return FeedStep::Connect;
        }
        if self.is_reply_pending() {
            if !self.stalled && (self.last_heard_at + ANSWER_WAIT).is_due(now) {
                self.stalled = true;
                return FeedStep::ReportSilence;
            }
        } else {
            self.last_heard_at = now;
        }
        if self.can_send() { FeedStep::Send } else { FeedStep::Wait }
    }

    /// Returns the time at which [`QueueFeed::step`] must be called, if nothing happens
    /// before.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        match (self.is_reply_pending(), self.stalled) {
            (true, true) => None,
            (true, false) => Some(self.last_heard_at + ANSWER_WAIT),
            (false, _) => (self.lines.count() > 0).then_some(self.retry_at),
        }
    }

    /// Returns true if an answer is pending.
    fn is_reply_pending(&self) -> bool {
        self.status_pending || self.lines.is_in_flight()
    }

    /// Returns true if a request can be sent before another answer comes.
    fn can_send(&self) -> bool {
        if self.is_reply_pending() {
            self.credits > 0 && !self.status_pending && !self.lines.has_kept() && self.lines.next().is_some()
        } else {
            true
        }
    }

    /// Appends the requests that can be sent now to `output`: `status` if the room of the
    /// queue is not known, else as many lines as there are credits.
    pub fn write_requests(&mut self, output: &mut Writer<'_>) {
        if !self.is_reply_pending() {
            if self.lines.has_kept() {
                self.lines.rewind();
                self.credits = 0;
            }
            if self.credits == 0 {
                self.status_pending = true;
                output.push_str("status\n");
            }
        }
        while self.can_send()
            && let Some(text) = self.lines.next()
            && output.room() > text.len().saturating_add(self.delay.len()).saturating_add(REQUEST_EXTRA_BYTES)
        {
            output.push_str(if self.delay.is_empty() { "queue" } else { "after " });
            output.push(self.delay);
            output.push_str(" ");
            output.push(text);
            output.push_str("\n");
            self.lines.sent();
            self.credits = self.credits.saturating_sub(1);
        }
    }

    /// Takes one line of the service, and returns its effect.
    pub fn on_answer<'a>(&mut self, line: &'a [u8], now: Instant) -> AnswerEffect<'a> {
        self.last_heard_at = now;
        let answer = Answer::parse(line);
        if self.status_pending {
            self.status_pending = false;
            self.on_status(answer, now)
        } else if self.lines.is_in_flight() {
            self.on_line_answer(answer, now)
        } else {
            AnswerEffect::None
        }
    }

    /// Takes the answer of `status`: the room of the queue.
    fn on_status<'a>(&mut self, answer: Answer<'a>, now: Instant) -> AnswerEffect<'a> {
        match answer {
            Answer::Ok(text) => {
                let runs = field(text, "state").is_none_or(|state| state == b"running");
                let room = number(text, "room").unwrap_or(u64::MAX);
                self.leaving = !runs;
                if runs {
                    self.lost_since = None;
                }
                // One line is enough to see whether the disk refuses it again.
                self.credits = if self.stalled { room.min(1) } else { room };
                if room == 0 {
                    self.retry_at = now + FULL_RETRY;
                }
                AnswerEffect::None
            }
            Answer::Refused(b"busy", _) => {
                self.retry_at = now + REFUSED_RETRY;
                self.lost_since = None;
                self.disconnect();
                AnswerEffect::Busy(!core::mem::replace(&mut self.stalled, true))
            }
            refused => AnswerEffect::StatusRefused(refused),
        }
    }

    /// Takes the answer of the first in-flight line.
    fn on_line_answer<'a>(&mut self, answer: Answer<'a>, now: Instant) -> AnswerEffect<'a> {
        if let Answer::Ok(text) = answer
            && let Some(id) = number(text, "id")
        {
            self.lines.acknowledge();
            self.queued = self.queued.saturating_add(1);
            self.lost_since = None;
            let resumed = core::mem::take(&mut self.stalled);
            if resumed {
                self.credits = 0;
            }
            return AnswerEffect::Queued { id, resumed };
        }
        match answer {
            Answer::Refused(b"draining" | b"stopping", _) => {
                self.lines.keep();
                self.leaving = true;
                AnswerEffect::None
            }
            Answer::Refused(b"full" | b"no-space" | b"io" | b"busy", _) => {
                self.lines.keep();
                self.credits = 0;
                self.retry_at = now + REFUSED_RETRY;
                if core::mem::replace(&mut self.stalled, true) {
                    AnswerEffect::None
                } else {
                    AnswerEffect::Stalled(answer)
                }
            }
            Answer::Refused(..) => AnswerEffect::LineRefused(self.lines.acknowledge(), answer),
            Answer::Ok(_) | Answer::Garbage => {
                AnswerEffect::LineRefused(self.lines.acknowledge(), Answer::Garbage)
            }
        }
    }

    /// Records that no further answer has come yet. Leaves a service that takes no more
    /// lines, if it has answered all of them.
    pub fn on_answers_taken(&mut self, now: Instant) {
        if self.leaving && !self.is_reply_pending() {
            self.on_connection_lost(now);
        }
    }

    /// Records that the service closed the connection.
    pub fn on_closed(&mut self, now: Instant) {
        if self.lines.count() == 0 {
            self.disconnect();
        } else if self.connected {
            self.on_connection_lost(now);
        }
    }

    /// Records that there is a connection.
    pub fn on_connected(&mut self) {
        self.connected = true;
    }

    /// Records that there is no service, or that it takes no more lines. Tries again in a
    /// moment, for up to [`RESTART_WAIT`].
    pub fn on_connection_lost(&mut self, now: Instant) {
        self.disconnect();
        let since = *self.lost_since.get_or_insert(now);
        self.given_up = (since + RESTART_WAIT).is_due(now);
        self.retry_at = now + FULL_RETRY;
    }

    /// Forgets the connection. Lines without answer will be sent again.
    fn disconnect(&mut self) {
        (self.connected, self.credits, self.status_pending, self.leaving) = (false, 0, false, false);
        self.lines.rewind();
    }

    /// Returns true if there is a connection. Otherwise it must be closed, and requests that
    /// were not sent must be dropped.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Returns the number of jobs that were queued.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.queued
    }
}

/// Decides when the number of queued jobs is shown again.
#[derive(Default)]
pub struct FeedProgress {
    shown: u64,
    shown_at: Instant,
}

impl FeedProgress {
    /// Returns the time at which the number must be shown, if it has changed.
    #[must_use]
    pub fn next_deadline(&self, queued: u64) -> Option<Instant> {
        (self.shown != queued).then_some(self.shown_at + PROGRESS_EVERY)
    }

    /// Returns true if the number must be shown now. `last` is set at the end, when a
    /// number that has changed is always shown.
    pub fn is_due(&mut self, queued: u64, now: Instant, last: bool) -> bool {
        let due = self.next_deadline(queued).is_some_and(|deadline| last || deadline.is_due(now));
        if due {
            (self.shown, self.shown_at) = (queued, now);
        }
        due
    }

    /// Returns true if a number was shown.
    #[must_use]
    pub fn has_shown(&self) -> bool {
        self.shown > 0
    }
}
