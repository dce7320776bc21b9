//! How jobs ended lately, for those who `wait`, and what happens to them, for
//! those who `watch`.

use crate::limits::{EVENTS_TURN, RESULTS_KEPT};
use crate::state::window::AttemptOutcome;
use crate::util::text::Writer;
use crate::util::time::Duration;
use heapless::Vec;
use ufmt::uwrite;

/// The exit status that stands for a job that was cancelled: 128 + SIGTERM.
const CANCELLED_STATUS: u8 = 143;

/// No job has this id: it stands for an end that does not count any more.
const NO_JOB: u64 = 0;

/// How a job is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum JobResult {
    /// It ended well.
    Done,
    /// It failed for good, so.
    Dead(AttemptOutcome),
    /// Somebody cancelled it.
    Cancelled,
}

impl JobResult {
    /// Writes the answer of `wait`.
    pub(super) fn push_answer(self, id: u64, out: &mut Writer<'_>) {
        out.push_str("ok ");
        self.describe(id, out);
        out.push_str("\n");
    }

    /// `id=N state=done|dead exit=N`
    pub(super) fn describe(self, id: u64, out: &mut Writer<'_>) {
        let (state, exit) = match self {
            Self::Done => ("done", 0),
            Self::Dead(outcome) => ("dead", outcome.exit_status()),
            Self::Cancelled => ("dead", CANCELLED_STATUS),
        };
        let _ = uwrite!(out, "id={} state={} exit={}", id, state, exit);
        if self == Self::Cancelled {
            out.push_str(" why=cancelled");
        }
    }
}

/// What happened to a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum JobEvent {
    /// An attempt was started.
    Started,
    /// One failed, and there will be another.
    Failed(AttemptOutcome),
    /// It is over.
    Ended(JobResult),
}

#[derive(Clone, Copy)]
struct WatchEvent {
    seq: u64,
    id: u64,
    took: Duration,
    event: JobEvent,
}

/// See the module's documentation. Nothing is written to it while nobody
/// waits, but for the ends.
pub(super) struct History {
    ends: Vec<(u64, JobResult), RESULTS_KEPT>,
    /// Which of the ends is the oldest, when there is no more room.
    oldest: usize,
    seq: u64,
    events: Vec<WatchEvent, EVENTS_TURN>,
}

impl History {
    /// Nothing has happened.
    pub(super) const EMPTY: Self = Self { ends: Vec::new(), oldest: 0, seq: 0, events: Vec::new() };

    /// How job `id` ended, if that is still known.
    pub(super) fn result_of(&self, id: u64) -> Option<JobResult> {
        self.ends.iter().find(|(ended, _)| *ended == id && id != NO_JOB).map(|(_, job_result)| *job_result)
    }

    /// Job `id` is not over after all: it was retried.
    pub(super) fn forget(&mut self, id: u64) {
        if let Some(end) = self.ends.iter_mut().find(|(ended, _)| *ended == id) {
            end.0 = NO_JOB;
        }
    }

    /// All dead jobs were retried.
    pub(super) fn forget_dead(&mut self) {
        for end in self.ends.iter_mut().filter(|(_, job_result)| matches!(job_result, JobResult::Dead(_))) {
            end.0 = NO_JOB;
        }
    }

    /// Something happened. Events are kept only while somebody watches.
    pub(super) fn record(&mut self, id: u64, event: JobEvent, took: Duration, watched: bool) {
        if let JobEvent::Ended(job_result) = event {
            self.remember(id, job_result);
        }
        self.seq = self.seq.saturating_add(1);
        if watched {
            // One that does not fit is missed: its number is.
            let _ = self.events.push(WatchEvent { seq: self.seq, id, took, event });
        }
    }

    fn remember(&mut self, id: u64, job_result: JobResult) {
        if self.ends.push((id, job_result)).is_err() {
            if let Some(end) = self.ends.get_mut(self.oldest) {
                *end = (id, job_result);
            }
            self.oldest = self.oldest.wrapping_add(1) % RESULTS_KEPT;
        }
    }

    /// Writes the events since the last call, a line each.
    pub(super) fn take_events(&mut self, out: &mut Writer<'_>) {
        for event in &self.events {
            let WatchEvent { seq, id, took, event } = *event;
            let (state, exit, why) = match event {
                JobEvent::Started => ("started", 0, ""),
                JobEvent::Failed(outcome) => ("failed", outcome.exit_status(), ""),
                JobEvent::Ended(JobResult::Done) => ("done", 0, ""),
                JobEvent::Ended(JobResult::Dead(outcome)) => ("dead", outcome.exit_status(), ""),
                JobEvent::Ended(JobResult::Cancelled) => ("dead", CANCELLED_STATUS, " why=cancelled"),
            };
            let _ = uwrite!(
                out,
                "event {} job={} state={} exit={} ms={}{}\n",
                seq,
                id,
                state,
                exit,
                took.as_ms(),
                why
            );
        }
        self.drop_events();
    }

    /// Nobody wants to know of them.
    pub(super) fn drop_events(&mut self) {
        // (a write would touch memory that may never be needed)
        if !self.events.is_empty() {
            self.events.clear();
        }
    }
}
