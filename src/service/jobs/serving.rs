//! The turn of the control socket's clients, and the answers that follow later.
//!
//! A turn takes at most one buffer of requests from each client, and none from one that
//! did not take its answers. New jobs of all clients are one batch: no `ok id=` leaves
//! before the commit at the end of the turn. A scan never changes the journal inside a
//! batch, because it comes before the requests.

use super::history::{JobEvent, JobResult};
use super::{Jobs, rules};
use crate::limits::CLIENT_OUTPUT_BYTES;
use crate::limits::{CLIENTS_MAX, REQUEST_MAX_BYTES};
use crate::proto::control::Code;
use crate::proto::framing::{Framed, frame};
use crate::service::base::PollSource;
use crate::service::connections::{self, Connections, Server, Taken};
use crate::state::access::Access;
use crate::state::disk::DiskError;
use crate::state::jobs::replies::{ClientState, PendingReply, Reply, refuse};
use crate::sys::OwnedFd;
use crate::sys::socket::Peer;
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};

impl Server for Jobs {
    fn connections(&mut self) -> &mut Connections {
        self.control.connections
    }

    fn accept(&mut self, now: Instant) -> Option<(OwnedFd, Peer, Access)> {
        self.base.listener.accept(now)
    }

    fn eviction_candidate(&self, access: Access, now: Instant) -> Option<usize> {
        let is_busy = |slot| self.control.replies.state(slot) != ClientState::Idle;
        self.control.connections.clients.eviction_candidate(access, now, &is_busy)
    }

    fn refuse(&self, out: &mut Writer<'_>) {
        refuse(out, Code::Busy, "16 clients are connected; try again");
    }

    fn joined(&mut self, _: usize, _: Instant) {}

    fn can_read(&self, slot: usize) -> bool {
        self.control.can_read(slot)
    }

    fn before_requests(&mut self, now: Instant) {
        self.poll_scan(now);
    }

    /// Handles one request. One that cannot share a turn with the requests before it
    /// waits for the next turn.
    fn take(&mut self, slot: usize, input: &[u8], now: Instant, out: &mut Writer<'_>) -> Taken {
        let Some(client) = self.control.connections.clients.get_mut(slot) else { return Taken::Close };
        let framed = frame(input, REQUEST_MAX_BYTES, client.skipping, client.ended);
        if framed == Framed::Partial {
            return Taken::Part(0);
        }
        if client.access == Access::Denied {
            self.record_denied(slot, b"connect", now);
            refuse(out, Code::Denied, "allow_uid and allow_gid do not name you");
            return Taken::Close;
        }
        let has_pending = self.control.replies.is_pending(slot);
        let waits = has_pending && matches!(framed, Framed::TooLong(..) | Framed::Unterminated(_));
        if waits || !self.control.replies.fits(slot, out.room()) {
            return if input.is_empty() { Taken::Part(0) } else { Taken::Later };
        }
        match framed {
            Framed::Partial => Taken::Part(0),
            Framed::Discard(used, end) | Framed::TooLong(used, end) => {
                client.skipping = !end;
                if matches!(framed, Framed::TooLong(..)) {
                    refuse(out, Code::TooLong, "a request has at most 1100 bytes");
                }
                if end { Taken::Whole(used) } else { Taken::Part(used) }
            }
            Framed::Unterminated(used) => {
                refuse(out, Code::BadRequest, "the last request has no newline, and was not done");
                Taken::Part(used)
            }
            Framed::Request(line, used) => {
                let before = out.len();
                let reply = self.handle(slot, line, now, out);
                if reply == Reply::Retry || (has_pending && out.len() > before) {
                    // An error after new jobs waits for the answers of those.
                    out.truncate(before);
                    Taken::Later
                } else if self.control.replies.state(slot) == ClientState::Idle {
                    Taken::Whole(used)
                } else {
                    Taken::Last(used)
                }
            }
        }
    }

    fn close(&mut self, slot: usize) {
        self.control.close(slot);
    }
}

impl Jobs {
    /// Serves the clients: answers what can be answered at once.
    #[inline(never)]
    pub(super) fn serve(&mut self, ready: &[PollSource], now: Instant) {
        connections::close_expired(self, now);
        connections::serve(self, &mut ready.iter().filter_map(PollSource::client), now);
    }

    /// Counts a denial, and logs it unless there are too many.
    pub(super) fn record_denied(&mut self, slot: usize, verb: &[u8], now: Instant) {
        let control = &mut self.control;
        control.denials.record(control.connections, slot, "control", verb, now, &mut self.base.log);
    }

    /// Sends an answer that the client has waited for.
    pub(super) fn send_reply(&mut self, slot: usize, answer: &[u8], now: Instant) {
        connections::answer(self, slot, answer, now);
    }

    /// Sends the answers that waited for the commit.
    #[inline(never)]
    pub(super) fn send_pending_replies(&mut self, durable: Result<(), DiskError>, now: Instant) {
        self.control.batch = None;
        let jobs = self.control.batch_error.take().map_or(durable, Err);
        for slot in 0..CLIENTS_MAX {
            let pending = self.control.replies.take_pending(slot);
            if pending != PendingReply::None {
                let mut answers = [0; CLIENT_OUTPUT_BYTES];
                let mut out = Writer::new(&mut answers);
                pending.push(jobs, durable, &mut out);
                self.send_reply(slot, out.as_bytes(), now);
            }
        }
    }

    // ----- events ---------------------------------------------------------

    /// Records an event of a job, and answers the clients that wait for its end.
    pub(super) fn record_event(&mut self, id: u64, event: JobEvent, took: Duration, now: Instant) {
        let watched = self.control.replies.is_watched();
        self.control.history.record(id, event, took, watched);
        if let JobEvent::Ended(job_result) = event {
            self.notify_waiters(id, job_result, now);
        }
    }

    #[inline(never)]
    fn notify_waiters(&mut self, id: u64, job_result: JobResult, now: Instant) {
        for slot in 0..CLIENTS_MAX {
            if self.control.replies.state(slot) == ClientState::AwaitingJob(id) {
                self.finish_request(slot, now, &|out| job_result.push_answer(id, out));
            }
        }
    }

    /// Sends the turn's events to the clients that watch. One that reads too slowly misses
    /// some.
    #[inline(never)]
    pub(super) fn send_events(&mut self, now: Instant) {
        if !self.control.replies.is_watched() {
            self.control.history.drop_events();
            return;
        }
        let mut out = Writer::new(self.base.scratch);
        self.control.history.take_events(&mut out);
        for slot in 0..CLIENTS_MAX {
            if self.control.replies.state(slot) == ClientState::Watching
                && !out.is_empty()
                && self.control.connections.send(slot, out.as_bytes(), now).is_err()
            {
                self.control.close(slot);
            }
        }
    }

    /// Returns true if a drain has ended: no job is left to run, and no line can be read.
    /// Lines for which there is no room stay in their claims.
    pub(super) fn is_drained(&self) -> bool {
        let works = self.spool_failure.is_none() && self.space_retry_at.is_none();
        let room = works && self.spool.room(&rules(self.base.process.config)) > 0;
        self.control.draining
            && self.shutdown == super::Shutdown::None
            && self.spool.waiting() == 0
            && self.workers.is_empty()
            && !(room && self.spool.claims.wants_reading())
    }

    /// Applies the policy of a new configuration, and closes the clients that lose their
    /// rights.
    pub(super) fn update_access(&mut self) {
        for slot in self.control.connections.update_access(&self.base.listener.policy) {
            self.control.close(slot);
        }
    }

    /// Answers the clients that still wait, and closes all, at the end of the service.
    pub(super) fn dismiss_clients(&mut self, now: Instant) {
        for slot in 0..CLIENTS_MAX {
            let answer = self.control.replies.farewell(slot, self.control.drained);
            if !answer.is_empty() {
                let _ = self.control.connections.send(slot, answer, now);
            }
            self.control.close(slot);
        }
    }
}
