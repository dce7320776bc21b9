//! How jobs ended lately, for clients that wait for an end, and what happens to jobs, for
//! clients that watch.

use crate::limits::RESULTS_KEPT;
use crate::state::window::AttemptOutcome;
use crate::util::text::Writer;
use crate::util::time::Duration;
use heapless::Vec;
use ufmt::uwrite;

/// Maximum number of events that one turn holds for clients that watch. Further events are
/// counted as missed.
pub(crate) const EVENTS_TURN: usize = 96;

/// The exit status of a job that was cancelled: 128 + SIGTERM.
const CANCELLED_STATUS: u8 = 143;

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
}

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
    pub fn record(&mut self, id: u64, event: JobEvent, took: Duration) {
        if let JobEvent::Ended(result) = event {
            self.remember(id, result);
        }
        self.seq = self.seq.saturating_add(1);
        if self.watched {
            // One that does not fit is missed, and its number shows it.
            let _ = self.events.push(WatchEvent { seq: self.seq, id, took, event });
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

    /// Writes the events since the last call, a line each.
    pub fn take_events(&mut self, out: &mut Writer<'_>) {
        for event in &self.events {
            let WatchEvent { seq, id, took, event } = *event;
            let (state, exit, why) = match event {
                JobEvent::Started => ("started", 0, ""),
                JobEvent::Failed(outcome) => ("failed", outcome.exit_status(), ""),
                JobEvent::Ended(result) => result.words(),
            };
            let ms = took.as_ms();
            let _ = uwrite!(out, "event {} job={} state={} exit={} ms={}{}\n", seq, id, state, exit, ms, why);
        }
        self.events.clear();
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
