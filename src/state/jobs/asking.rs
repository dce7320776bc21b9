//! The rules of the requests about jobs: which are refused, which are answered at once, and what
//! the others wait for. `service/jobs/requests.rs` has the list of them.

use super::JobsCore;
use super::replies::{ClientState, PendingReply, Replies, Reply, ScanRequest, push_result, refuse};
use super::scan_task::ScanOutcome;
use crate::proto::control::{Code, Target};
use crate::state::disk::{Disk, DiskResult};
use crate::state::spool::Cancelled;
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};

/// One request of a client, and the parts of the service that it concerns.
pub struct Asking<'a, 'b, D> {
    /// The jobs.
    pub core: &'a mut JobsCore,
    /// The answers that the clients wait for.
    pub replies: &'a mut Replies,
    /// The disk.
    pub disk: &'a mut D,
    /// No new jobs are accepted.
    pub draining: bool,
    /// The client.
    pub slot: usize,
    /// The time.
    pub now: Instant,
    /// The place for the answer.
    pub out: &'a mut Writer<'b>,
}

impl<D: Disk> Asking<'_, '_, D> {
    fn refuse(&mut self, code: Code, text: &'static str) -> Reply {
        refuse(self.out, code, text)
    }

    /// Has the client wait for a scan.
    fn scan(&mut self, request: ScanRequest) -> Reply {
        self.replies.set_state(self.slot, ClientState::ScanPending(request))
    }

    /// Refuses a new job where none is taken.
    fn refuse_new(&mut self) -> Option<Reply> {
        Some(if self.core.is_stopping() {
            self.refuse(Code::Stopping, "the service stops")
        } else if self.draining {
            self.refuse(Code::Draining, "the service takes no new jobs")
        } else if self.core.room_or_refusal(self.now) == 0 {
            self.refuse(Code::Full, "queue_max jobs are waiting or running")
        } else {
            return None;
        })
    }

    /// Adds a job, whose id is answered after the commit. With `delay` it is not started before that
    /// time has passed. Its output follows the answer if `is_followed` is true.
    ///
    /// # Errors
    /// The disk refuses the job.
    pub fn add(&mut self, text: &[u8], delay: Option<Duration>, is_followed: bool) -> DiskResult<Reply> {
        if let Some(refused) = self.refuse_new() {
            return Ok(refused);
        }
        let added = match delay {
            None => Some(self.core.add_job(self.disk, text, self.now)?),
            Some(delay) => self.core.add_delayed_job(self.disk, text, delay, self.now)?,
        };
        Ok(match added {
            Some(id) if is_followed => self.replies.defer(self.slot, PendingReply::Followed(id)),
            Some(id) => self.replies.defer_id(self.slot, id),
            None => Reply::Retry,
        })
    }

    /// Answers when job `id` has ended.
    pub fn wait(&mut self, id: u64) -> Reply {
        if let Some(result) = self.core.history.result_of(id) {
            push_result(id, result, self.out);
            return Reply::Sent;
        }
        match self.core.spool.window().get(id) {
            Some(_) => self.replies.set_state(self.slot, ClientState::AwaitingJob(id)),
            None => self.scan(ScanRequest::Wait(id)),
        }
    }

    /// Cancels job `id`. Also returns the change, to be logged, if it was made at once.
    ///
    /// # Errors
    /// The disk refuses the record.
    pub fn cancel(&mut self, id: u64) -> DiskResult<(Reply, Option<ScanOutcome>)> {
        if self.core.has_batch() {
            return Ok((Reply::Retry, None));
        }
        Ok(match self.core.cancel(self.disk, id, self.now)? {
            None => (self.scan(ScanRequest::Cancel(id)), None),
            Some(Cancelled::AlreadyEnded) => (self.refuse(Code::NoJob, "it has ended already"), None),
            Some(found) => {
                let outcome = ScanOutcome::Cancelled(id, found == Cancelled::Running);
                (self.replies.defer(self.slot, outcome.pending()), Some(outcome))
            }
        })
    }

    /// Has the client wait for the scan that finds its dead jobs, if there can be any.
    pub fn edit_dead(&mut self, target: Target, request: ScanRequest) -> Reply {
        match target {
            Target::Dead if self.core.spool.dead() == 0 => {
                self.out.push_str("ok count=0\n");
                Reply::Sent
            }
            Target::Job(id) if self.core.spool.window().get(id).is_some() => {
                self.refuse(Code::NoJob, "it is not dead: it waits or runs")
            }
            _ => self.scan(request),
        }
    }

    /// Holds the queue, or resumes it. Answers after the commit, also if nothing changed, because the
    /// commit of the change may be pending.
    ///
    /// # Errors
    /// The disk refuses the record.
    pub fn set_held(&mut self, held: bool) -> DiskResult<Reply> {
        if held && self.draining {
            return Ok(self.refuse(Code::Draining, "the service finishes its jobs, then stops"));
        }
        if self.core.is_stopping() {
            return Ok(self.refuse(Code::Stopping, "the service stops"));
        }
        if self.core.spool.is_held() != held && !self.core.set_held(self.disk, held, self.now)? {
            return Ok(Reply::Retry);
        }
        Ok(self.replies.defer(self.slot, PendingReply::Held(held)))
    }

    /// Returns the refusal of a drain while the queue is held.
    pub fn refuse_drain(&mut self) -> Option<Reply> {
        let text = "the queue is held, and no job would end; resume it first";
        self.core.spool.is_held().then(|| self.refuse(Code::Held, text))
    }

    /// Has the client read every event from now on.
    pub fn watch(&mut self) -> Reply {
        self.out.push_str("ok\n");
        self.core.history.watched = true;
        self.replies.set_state(self.slot, ClientState::Watching)
    }
}
