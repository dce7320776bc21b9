//! How jobs ended lately, for clients that wait for an end, and what happens to jobs, for
//! clients that watch.

use crate::limits::{CLIENT_OUTPUT_BYTES, RESULTS_KEPT};
use crate::state::spool::{CANCELLED_STATUS, EndKind, JobEnd, RecordLocation};
use crate::state::window::AttemptOutcome;
use crate::util::text::Writer;
use crate::util::time::Duration;
use heapless::Vec;
use ufmt::uwrite;

/// Maximum number of events that one turn holds for clients that watch. Further events are
/// counted as missed.
pub(crate) const EVENTS_TURN: usize = 96;

/// No job has this id. It stands for an end that does not count any more.
const NO_JOB: u64 = 0;

/// How a job ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobResult {
    /// The job ended well.
    Done,
    /// Its last attempt failed.
    Dead(AttemptOutcome),
    /// The job was cancelled.
    Cancelled,
}

impl JobResult {
    /// Returns the state, the exit status and the reason that clients read.
    fn words(self) -> (&'static str, u8, &'static str) {
        match self {
            Self::Done => ("done", 0, ""),
            Self::Dead(outcome) => ("dead", outcome.exit_status(), ""),
            Self::Cancelled => ("dead", CANCELLED_STATUS, " why=cancelled"),
        }
    }

    /// Returns the result of a job whose end the journal holds. A dead job has a record of its own,
    /// and one that has none was forgotten.
    pub(super) fn of_end(end: JobEnd) -> Option<Self> {
        match end.kind {
            EndKind::Done => Some(Self::Done),
            EndKind::Cancelled => Some(Self::Cancelled),
            EndKind::Dead => None,
        }
    }

    /// Writes `id=N state=done|dead exit=N`.
    pub fn describe(self, id: u64, out: &mut Writer<'_>) {
        let (state, exit, why) = self.words();
        let _ = uwrite!(out, "id={} state={} exit={}{}", id, state, exit, why);
    }
}

/// An event of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JobEvent {
    /// An attempt was started.
    Started,
    /// An attempt failed, and another one follows.
    Failed(AttemptOutcome),
    /// The job ended.
    Ended(JobResult),
}

#[derive(Clone, Copy)]
struct WatchEvent {
    seq: u64,
    id: u64,
    took: Duration,
    event: JobEvent,
    /// Where the text of the job is, in which generation of the journal.
    text: Option<EventText>,
}

/// The live record of a job when an event happened, and the generation of the journal.
pub(super) type EventText = (RecordLocation, u32);

/// Bytes of the longest line of an event. It fits the kept output of a client.
pub(super) const EVENT_LINE_BYTES: usize = CLIENT_OUTPUT_BYTES;
/// Bytes of the text in the line of an event. A longer one is cut.
const EVENT_TEXT_BYTES: usize = 1100;

/// See the module's documentation. Events are written to it only while a client watches,
/// because a write touches memory that may never be needed.
#[cfg_attr(test, derive(Clone))]
pub struct History {
    /// Whether a client watches.
    pub watched: bool,
    /// Jobs have ended since the last call of [`History::take_new_results`].
    new_results: bool,
    seq: u64,
    /// The oldest one of the results, when there is no more room.
    oldest: usize,
    results: Vec<(u64, JobResult), RESULTS_KEPT>,
    events: Vec<WatchEvent, EVENTS_TURN>,
}

impl History {
    /// Nothing has happened.
    pub const EMPTY: Self = Self {
        watched: false,
        new_results: false,
        seq: 0,
        oldest: 0,
        results: Vec::new(),
        events: Vec::new(),
    };

    /// Returns how job `id` ended, if that is still known.
    #[must_use]
    pub fn result_of(&self, id: u64) -> Option<JobResult> {
        self.results.iter().find(|(ended, _)| *ended == id && id != NO_JOB).map(|(_, result)| *result)
    }

    /// Returns true if jobs have ended since the last call of [`History::take_new_results`].
    #[must_use]
    pub fn has_new_results(&self) -> bool {
        self.new_results
    }

    /// Returns true if jobs have ended since the last call.
    pub fn take_new_results(&mut self) -> bool {
        let new_results = self.new_results;
        if new_results {
            // Written only then, because a write takes a page of memory.
            self.new_results = false;
        }
        new_results
    }

    /// Forgets the end of job `id`, because it was retried or forgotten.
    pub fn forget(&mut self, id: u64) {
        if let Some(result) = self.results.iter_mut().find(|(ended, _)| *ended == id) {
            result.0 = NO_JOB;
        }
    }

    /// Forgets the ends of all dead jobs.
    pub fn forget_dead(&mut self) {
        for result in self.results.iter_mut().filter(|(_, result)| matches!(result, JobResult::Dead(_))) {
            result.0 = NO_JOB;
        }
    }

    /// Takes an event.
    pub(super) fn record(&mut self, id: u64, event: JobEvent, took: Duration, text: Option<EventText>) {
        if let JobEvent::Ended(result) = event {
            self.remember(id, result);
        }
        self.seq = self.seq.saturating_add(1);
        if self.watched {
            // One that does not fit is missed, and its number shows it.
            let _ = self.events.push(WatchEvent { seq: self.seq, id, took, event, text });
        }
    }

    fn remember(&mut self, id: u64, result: JobResult) {
        self.new_results = true;
        if self.results.push((id, result)).is_err() {
            if let Some(entry) = self.results.get_mut(self.oldest) {
                *entry = (id, result);
            }
            self.oldest = self.oldest.wrapping_add(1) % RESULTS_KEPT;
        }
    }

    /// Writes the events since the last call, a line each, and drops them. `read` writes the text of a
    /// job. Returns true if all did fit.
    pub(super) fn take_events(
        &mut self,
        out: &mut Writer<'_>,
        read: &mut dyn FnMut(EventText, &mut Writer<'_>),
    ) -> bool {
        let mut written = 0usize;
        for event in &self.events {
            if out.room() < EVENT_LINE_BYTES {
                self.events.drain(..written);
                return false;
            }
            written = written.saturating_add(1);
            let WatchEvent { seq, id, took, event, text } = *event;
            let (state, exit, why) = match event {
                JobEvent::Started => ("started", 0, ""),
                JobEvent::Failed(outcome) => ("failed", outcome.exit_status(), ""),
                JobEvent::Ended(result) => result.words(),
            };
            let ms = took.as_ms();
            let _ = uwrite!(out, "event {} job={} state={} exit={} ms={}{}", seq, id, state, exit, ms, why);
            if let Some((location, generation)) = text {
                let _ = uwrite!(out, " attempt={} text=", location.attempt);
                let mut buffer = [0; EVENT_TEXT_BYTES];
                let mut shown = Writer::new(&mut buffer);
                read((location, generation), &mut shown);
                shown.mark_cut();
                out.push(shown.as_bytes());
            }
            out.push_str("\n");
        }
        self.events.clear();
        true
    }

    /// Drops the events, because no client watches any more.
    pub fn stop_watching(&mut self) {
        // A write would touch memory that may never be needed.
        if self.watched {
            self.watched = false;
            self.events.clear();
        }
    }
}
