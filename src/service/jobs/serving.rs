//! The turn of the control socket's clients, and the answers that follow later.
//!
//! A turn takes at most one buffer of requests from each client, and none from one that
//! did not take its answers. New jobs of all clients are one batch: no `ok id=` leaves
//! before the commit at the end of the turn. A scan never changes the journal inside a
//! batch, because it comes before the requests.

use super::Jobs;
use crate::limits::{CLIENT_OUTPUT_BYTES, CLIENTS_MAX, REQUEST_MAX_BYTES};
use crate::proto::control::push_refusal;
use crate::proto::framing::{Framed, frame};
use crate::service::base::PollSource;
use crate::service::connections::{self, BUSY, Connections, DENIED, Server, Taken, take_no_request};
use crate::state::access::Access;
use crate::state::clients::{Admission, Reading};
use crate::state::disk::DiskResult;
use crate::state::jobs::replies::{ClientState, PendingReply, Reply};
use crate::state::jobs::scan_task::ScanOutcome;
use crate::sys::OwnedFd;
use crate::sys::socket::Peer;
use crate::util::text::Writer;
use crate::util::time::Instant;

impl Server for Jobs {
    fn connections(&mut self) -> &mut Connections {
        self.control.connections
    }

    fn accept(&mut self, now: Instant) -> Option<(OwnedFd, Peer, Access)> {
        self.base.listener.accept(now)
    }

    fn admission(&self, access: Access, uid: u32, now: Instant) -> Admission {
        let is_busy = |slot| self.control.replies.state(slot) != ClientState::Idle;
        self.control.connections.clients.admission(access, uid, now, &is_busy)
    }

    fn refuse(&self, out: &mut Writer<'_>) {
        push_refusal(BUSY, out);
    }

    fn joined(&mut self, _: usize, _: Instant) {}

    fn reading(&self, slot: usize) -> Reading {
        self.control.reading(slot)
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
            push_refusal(DENIED, out);
            return Taken::Close;
        }
        let has_pending = self.control.replies.is_pending(slot);
        let waits = has_pending && matches!(framed, Framed::TooLong(..) | Framed::Unterminated(_));
        if waits || !self.control.replies.fits(slot, out.room()) {
            return if input.is_empty() { Taken::Part(0) } else { Taken::Later };
        }
        let Framed::Request(line, used) = framed else {
            return take_no_request(client, framed, out).unwrap_or(Taken::Close);
        };
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

    fn flushed(&mut self, slot: usize, now: Instant) {
        self.control.send_lost(slot, now);
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
        connections::serve(self, &mut ready.iter().filter_map(PollSource::client_slot), now);
    }

    /// Counts a denial, and logs it unless there are too many.
    pub(super) fn record_denied(&mut self, slot: usize, verb: &[u8], now: Instant) {
        let control = &mut self.control;
        control.denials.record(control.connections, slot, "control", verb, now, &mut self.base.log);
    }

    /// Sends the answers that waited for the commit. `jobs` is the result for new jobs,
    /// `edits` the result for everything else.
    #[inline(never)]
    pub(super) fn reply_after_commit(&mut self, jobs: DiskResult, edits: DiskResult, now: Instant) {
        for slot in 0..CLIENTS_MAX {
            let pending = self.control.replies.take_pending(slot);
            if pending != PendingReply::None {
                let mut answers = [0; CLIENT_OUTPUT_BYTES];
                let mut out = Writer::new(&mut answers);
                match (pending, jobs) {
                    // Of many in one turn each gets a short text.
                    (PendingReply::Ids(_, 1) | PendingReply::Followed(_), Err(error)) => {
                        self.refuse_for(error, &mut out);
                    }
                    _ => pending.push(jobs, edits, &mut out),
                }
                if let (PendingReply::Followed(id), Ok(())) = (pending, jobs) {
                    self.control.replies.set_state(slot, ClientState::Following(id));
                }
                connections::answer(self, slot, out.as_bytes(), now);
            }
        }
    }

    /// Answers the clients that wait for the end of a job that has ended.
    #[inline(never)]
    pub(super) fn notify_waiters(&mut self, now: Instant) {
        for slot in 0..CLIENTS_MAX {
            if let ClientState::AwaitingJob(id) | ClientState::Following(id) =
                self.control.replies.state(slot)
                && let Some(result) = self.core.history.result_of(id)
            {
                self.control.push_lost(slot, now);
                self.finish_scan(slot, ScanOutcome::Ended(id, result), now);
            }
        }
    }

    /// Sends the turn's events to the clients that watch. One that reads too slowly misses
    /// some.
    #[inline(never)]
    pub(super) fn send_events(&mut self, now: Instant) {
        if !self.control.replies.is_watched() {
            self.core.history.stop_watching();
            return;
        }
        loop {
            let mut out = Writer::new(self.base.scratch);
            let all = self.core.take_events(&mut self.disk, &mut out);
            for slot in 0..CLIENTS_MAX {
                if self.control.replies.state(slot) == ClientState::Watching
                    && !out.is_empty()
                    && self.control.connections.send(slot, out.as_bytes(), now).is_err()
                {
                    self.control.close(slot);
                }
            }
            if all {
                return;
            }
        }
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
