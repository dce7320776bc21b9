//! The control socket: its clients' requests, and answers that wait for the
//! disk.
//!
//! A turn takes at most one buffer of requests from each client, and none from
//! one that did not take its answers. New jobs of all clients are one batch: no
//! `ok id=` leaves before the commit at the end of the turn (`batch.rs`). What
//! changes or finds single jobs (`scan.rs`) never happens inside a batch.

use super::requests::{Reply, RequestContext, RequestSpec, refuse};
use super::scan::{ListPage, ScanTask};
use super::{Jobs, PollSource};
use crate::limits::{
    CLIENT_INPUT_BYTES, CLIENT_OUTPUT_BYTES, CLIENT_TURN_JOBS, CLIENTS_MAX, REQUEST_MAX_BYTES,
};
use crate::proto::control::{Code, Filter, Target, split};
use crate::proto::framing::{Framed, frame};
use crate::service::connections::{Connection, Connections};
use crate::service::denials::Denials;
use crate::service::listener::Access;
use crate::sys::socket::Peer;
use crate::util::text::Writer;
use crate::util::time::Instant;
use ufmt::uwrite;

/// What a client waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ClientState {
    Idle,
    /// Something that takes more than one turn.
    ScanPending(ScanRequest),
    /// The end of a job.
    AwaitingJob(u64),
    Watching,
    /// The end of a drain.
    Draining,
}

/// What needs a walk through the journal, or a new one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ScanRequest {
    List(Filter),
    Wait(u64),
    Cancel(u64),
    Retry(Target),
    Forget(Target),
}

/// An answer that waits for the commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PendingReply {
    None,
    /// New jobs: the first id, and how many.
    Ids(u64, usize),
    /// `ok id=N`.
    Job(u64),
    /// The same of a job that was cancelled, and whether it was running.
    Cancelled(u64, bool),
    /// `ok count=N`.
    Count(u32),
}

/// Bytes of `ok id=N`, or of the error that each new job gets in its place.
const ID_REPLY_BYTES: usize = 28;
/// Bytes that are kept for an answer that is not long.
const REPLY_BYTES: usize = 160;

/// See the module's documentation.
pub(super) struct ControlServer {
    pub(super) clients: &'static mut Connections,
    /// The lines of a `list` that is being sent.
    pub(super) page: &'static mut ListPage,
    /// What takes more than one turn, one at a time.
    pub(super) scan: Option<ScanTask>,
    /// Whose was the last one.
    pub(super) last_scan_slot: usize,
    client_states: [ClientState; CLIENTS_MAX],
    pending_replies: [PendingReply; CLIENTS_MAX],
    /// Who is served first in the next turn.
    first: usize,
    pub(super) denials: Denials,
    /// No new jobs.
    pub(super) draining: bool,
    /// Every job is finished.
    pub(super) drained: bool,
}

impl ControlServer {
    pub(super) fn new(clients: &'static mut Connections, page: &'static mut ListPage) -> Self {
        Self {
            clients,
            page,
            scan: None,
            last_scan_slot: 0,
            client_states: [ClientState::Idle; CLIENTS_MAX],
            pending_replies: [PendingReply::None; CLIENTS_MAX],
            first: 0,
            denials: Denials::default(),
            draining: false,
            drained: false,
        }
    }

    pub(super) fn client_state(&self, client_slot: usize) -> ClientState {
        self.client_states.get(client_slot).copied().unwrap_or(ClientState::Idle)
    }

    pub(super) fn set_client_state(&mut self, client_slot: usize, state: ClientState) -> Reply {
        if let Some(entry) = self.client_states.get_mut(client_slot) {
            *entry = state;
        }
        Reply::Deferred
    }

    pub(super) fn pending_reply(&self, client_slot: usize) -> PendingReply {
        self.pending_replies.get(client_slot).copied().unwrap_or(PendingReply::None)
    }

    /// The answer leaves after the commit.
    pub(super) fn defer_reply(&mut self, client_slot: usize, pending: PendingReply) -> Reply {
        if let Some(entry) = self.pending_replies.get_mut(client_slot) {
            *entry = pending;
        }
        Reply::Deferred
    }

    /// Whether a commit is waited for.
    pub(super) fn has_pending_reply(&self) -> bool {
        self.pending_replies.iter().any(|pending| *pending != PendingReply::None)
    }

    /// The `ok id=` of a new job leaves after the commit.
    pub(super) fn defer_id(&mut self, client_slot: usize, id: u64) -> Reply {
        let pending = match self.pending_reply(client_slot) {
            PendingReply::Ids(first, count) => PendingReply::Ids(first, count.saturating_add(1)),
            _ => PendingReply::Ids(id, 1),
        };
        self.defer_reply(client_slot, pending)
    }

    /// Who the client is; nobody if it is gone.
    pub(super) fn peer(&self, client_slot: usize) -> Peer {
        self.clients.get(client_slot).map_or(Peer { pid: 0, uid: 0, gid: 0 }, |client| client.peer)
    }

    /// What the client may.
    fn access(&self, client_slot: usize) -> Access {
        self.clients.get(client_slot).map_or(Access::Denied, |client| client.access)
    }

    /// Whether the next request of a client can be handled.
    pub(super) fn can_ask(&self, client_slot: usize) -> bool {
        let free = self.client_state(client_slot) == ClientState::Idle
            && self.pending_reply(client_slot) == PendingReply::None;
        free && self.clients.get(client_slot).is_some_and(|client| !client.is_stuck())
    }

    /// Whether somebody watches.
    pub(super) fn is_watched(&self) -> bool {
        self.client_states.contains(&ClientState::Watching)
    }

    /// When something here is due; `now` if requests are left.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let due = self.clients.next_deadline();
        let left =
            self.clients.connected().any(|(client_slot, client)| client.more && self.can_ask(client_slot));
        if left { Some(now) } else { due }
    }
}

impl Jobs {
    // ----- one turn -------------------------------------------------------

    /// Answers what can be answered at once, and notes the rest.
    #[inline(never)]
    pub(super) fn serve(&mut self, ready: &[PollSource], now: Instant) {
        while let Some(client_slot) = self.control.clients.expired(now) {
            self.drop_client(client_slot);
        }
        let mut asks = [false; CLIENTS_MAX];
        for source in ready {
            let PollSource::Client(client_slot) = *source else { continue };
            let client_slot = usize::from(client_slot);
            let stuck = self.control.clients.get(client_slot).is_some_and(Connection::is_stuck);
            if stuck {
                if self.control.clients.flush(client_slot, now).is_err() {
                    self.drop_client(client_slot);
                }
            } else if self.control.can_ask(client_slot) {
                asks.get_mut(client_slot).into_iter().for_each(|asks| *asks = true);
            } else {
                // It waits or watches, and nothing is read from it: it is gone.
                self.drop_client(client_slot);
            }
        }
        self.poll_scan(now);
        self.control.first = self.control.first.wrapping_add(1) % CLIENTS_MAX;
        for offset in 0..CLIENTS_MAX {
            let client_slot = self.control.first.wrapping_add(offset) % CLIENTS_MAX;
            let Some(client) = self.control.clients.get(client_slot) else { continue };
            let wants = client.more || client.ended || asks.get(client_slot) == Some(&true);
            if wants && self.control.can_ask(client_slot) {
                self.take_requests(client_slot, now);
            }
        }
    }

    /// Takes one buffer of a client's requests.
    #[inline(never)]
    fn take_requests(&mut self, client_slot: usize, now: Instant) {
        let mut input = [0; CLIENT_INPUT_BYTES];
        let mut answers = [0; CLIENT_OUTPUT_BYTES];
        let mut out = Writer::new(&mut answers);
        let Ok(length) = self.control.clients.take_input(client_slot, &mut input, now) else {
            return self.drop_client(client_slot);
        };
        let (mut at, mut progress, mut close) = (0usize, false, false);
        let more = loop {
            let rest = input.get(at..length).unwrap_or(&[]);
            let Some(client) = self.control.clients.get(client_slot) else { return };
            let framed = frame(rest, REQUEST_MAX_BYTES, client.skipping, client.ended);
            if framed == Framed::Partial {
                break false;
            }
            if self.control.access(client_slot) == Access::Denied {
                self.record_denied(client_slot, b"connect", now);
                refuse(&mut out, Code::Denied, "allow_uid and allow_gid do not name you");
                close = true;
                break false;
            }
            if !self.has_room(client_slot, &out) {
                break !rest.is_empty();
            }
            let Some((used, whole)) = self.take_frame(client_slot, framed, now, &mut out) else { break true };
            at = at.saturating_add(used);
            progress |= whole;
            if used == 0 {
                break false;
            }
            if self.control.client_state(client_slot) != ClientState::Idle {
                break at < length;
            }
        };
        self.control.clients.keep(client_slot, input.get(at..length).unwrap_or(&[]), more, progress, now);
        let gone = !out.is_empty() && self.control.clients.send(client_slot, out.as_bytes(), now).is_err();
        if gone || close {
            self.drop_client(client_slot);
        } else {
            self.close_if_finished(client_slot);
        }
    }

    /// Takes one request, or what is none. How long it is, and whether its end was there;
    /// `None`: it has to wait until the pending reply is sent.
    fn take_frame(
        &mut self,
        client_slot: usize,
        framed: Framed<'_>,
        now: Instant,
        out: &mut Writer<'_>,
    ) -> Option<(usize, bool)> {
        let has_pending = self.control.pending_reply(client_slot) != PendingReply::None;
        match framed {
            Framed::Partial => Some((0, false)),
            Framed::TooLong(..) | Framed::Unterminated(_) if has_pending => None,
            Framed::Discard(used, end) | Framed::TooLong(used, end) => {
                if matches!(framed, Framed::TooLong(..)) {
                    refuse(out, Code::TooLong, "a request has at most 1100 bytes");
                }
                self.control.clients.set_skipping(client_slot, !end);
                Some((used, end))
            }
            Framed::Unterminated(used) => {
                refuse(out, Code::BadRequest, "the last request has no newline, and was not done");
                Some((used, false))
            }
            Framed::Request(line, used) => {
                let before = out.len();
                let reply = self.handle(client_slot, line, now, out);
                if reply == Reply::Retry || (has_pending && out.len() > before) {
                    // (an error behind new jobs has to wait for their answers)
                    out.truncate(before);
                    return None;
                }
                Some((used, true))
            }
        }
    }

    /// Whether another answer fits behind those that are written or pending.
    fn has_room(&self, client_slot: usize, out: &Writer<'_>) -> bool {
        let pending = match self.control.pending_reply(client_slot) {
            PendingReply::None => 0,
            PendingReply::Ids(_, count) if count < CLIENT_TURN_JOBS => count.saturating_mul(ID_REPLY_BYTES),
            _ => return false,
        };
        out.room() >= pending.saturating_add(REPLY_BYTES)
    }

    fn handle(&mut self, client_slot: usize, line: &[u8], now: Instant, out: &mut Writer<'_>) -> Reply {
        let (verb, argument) = split(line);
        let access = self.control.access(client_slot);
        let Some(request) = RequestSpec::named(verb) else {
            let _ = uwrite!(out, "err {} ", Code::BadRequest.name());
            if verb.is_empty() {
                out.push_str("an empty request; see help\n");
            } else {
                out.push_str("unknown request \"");
                out.push_escaped(verb.get(..20).unwrap_or(verb));
                out.push_str("\"; see help\n");
            }
            return Reply::Sent;
        };
        let alone = out.is_empty() && self.control.pending_reply(client_slot) == PendingReply::None;
        let waits = self.control.pending_reply(client_slot) != PendingReply::None && !request.adds();
        if waits || (out.room() < request.reply_bytes && !alone) {
            return Reply::Retry;
        }
        if request.min_access == Access::Owner && access != Access::Owner {
            self.record_denied(client_slot, verb, now);
            return refuse(out, Code::Denied, "only root and the service's own user may");
        }
        let mut context = RequestContext { client_slot, now, out };
        match request.run(self, &mut context, argument) {
            Ok(reply) => reply,
            Err((code, why)) => refuse(out, code, why),
        }
    }

    // ----- events ---------------------------------------------------------

    /// Tells the clients that wait for the end of a job, where it has ended.
    #[inline(never)]
    pub(super) fn notify_waiters(&mut self, now: Instant) {
        for client_slot in 0..CLIENTS_MAX {
            if let ClientState::AwaitingJob(id) = self.control.client_state(client_slot)
                && let Some(result) = self.core.history.result_of(id)
            {
                let mut line = [0; 96];
                let mut out = Writer::new(&mut line);
                out.push_str("ok ");
                result.describe(id, &mut out);
                out.push_str("\n");
                self.control.set_client_state(client_slot, ClientState::Idle);
                self.send_reply(client_slot, out.as_bytes(), now);
            }
        }
    }

    /// Sends the turn's events to those who watch. One who reads too slowly
    /// misses some.
    #[inline(never)]
    pub(super) fn send_events(&mut self, now: Instant) {
        if !self.control.is_watched() {
            // (of those who have just gone)
            self.core.history.watched = false;
            self.core.history.drop_events();
            return;
        }
        let mut out = Writer::new(self.base.scratch);
        self.core.history.take_events(&mut out);
        if out.is_empty() {
            return;
        }
        let mut gone = [false; CLIENTS_MAX];
        for (client_slot, gone) in gone.iter_mut().enumerate() {
            if self.control.client_state(client_slot) == ClientState::Watching {
                *gone = self.control.clients.send(client_slot, out.as_bytes(), now).is_err();
            }
        }
        for (client_slot, _) in gone.iter().enumerate().filter(|(_, gone)| **gone) {
            self.drop_client(client_slot);
        }
    }
}
