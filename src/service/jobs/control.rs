//! The control socket: its clients' requests, and answers that wait for the
//! disk.
//!
//! A turn takes at most one buffer of requests from each client, and none from
//! one that did not take its answers. New jobs of all clients are one group: no
//! `ok id=` leaves before the commit at the end of the turn (`group.rs`). What
//! changes or finds single jobs (`errands.rs`) never happens inside a group.

use super::errands::{Errand, Page};
use super::history::{Fate, History, What};
use super::requests::{Answered, Asking, Request, refuse};
use super::{Jobs, Source, Stopping, rules};
use crate::limits::{
    CLIENT_INPUT_BYTES, CLIENT_OUTPUT_BYTES, CLIENT_TURN_JOBS, CLIENTS_MAX, REQUEST_MAX_BYTES,
};
use crate::proto::control::{Code, Filter, Target, split};
use crate::proto::frame::{Framed, frame};
use crate::proto::text::Writer;
use crate::service::clients::{Client, Clients};
use crate::service::denials::Denials;
use crate::service::listener::{Listener, Rank};
use crate::state::disk::DiskError;
use crate::state::spool::Mark;
use crate::sys::socket::Peer;
use crate::util::time::{Duration, Instant, earliest};
use ufmt::uwrite;

/// What a client waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Doing {
    Nothing,
    /// Something that takes more than one turn.
    Asked(Wanted),
    /// The end of a job.
    Waiting(u64),
    Watching,
    /// The end of a drain.
    Draining,
}

/// What needs a walk through the journal, or a new one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    List(Filter),
    Wait(u64),
    Cancel(u64),
    Retry(Target),
    Forget(Target),
}

/// An answer that waits for the commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owed {
    Nothing,
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
const ID_ANSWER_BYTES: usize = 28;
/// Bytes that are kept for an answer that is not long.
const ANSWER_BYTES: usize = 160;

/// See the module's documentation.
pub(super) struct Control {
    pub(super) listener: Listener,
    pub(super) clients: &'static mut Clients,
    pub(super) history: &'static mut History,
    /// The lines of a `list` that is being sent.
    pub(super) page: &'static mut Page,
    /// What takes more than one turn, one at a time.
    pub(super) errand: Option<Errand>,
    /// Whose was the last one.
    pub(super) last_errand: usize,
    doing: [Doing; CLIENTS_MAX],
    owed: [Owed; CLIENTS_MAX],
    /// New jobs of this turn.
    pub(super) group: Option<Mark>,
    /// They cannot be made durable.
    pub(super) group_error: Option<DiskError>,
    /// Who is served first in the next turn.
    first: usize,
    pub(super) denials: Denials,
    /// No new jobs.
    pub(super) draining: bool,
    /// Every job is finished.
    pub(super) drained: bool,
}

impl Control {
    pub(super) fn new(
        listener: Listener,
        clients: &'static mut Clients,
        history: &'static mut History,
        page: &'static mut Page,
    ) -> Self {
        Self {
            listener,
            clients,
            history,
            page,
            errand: None,
            last_errand: 0,
            doing: [Doing::Nothing; CLIENTS_MAX],
            owed: [Owed::Nothing; CLIENTS_MAX],
            group: None,
            group_error: None,
            first: 0,
            denials: Denials::default(),
            draining: false,
            drained: false,
        }
    }

    pub(super) fn doing(&self, place: usize) -> Doing {
        self.doing.get(place).copied().unwrap_or(Doing::Nothing)
    }

    pub(super) fn set_doing(&mut self, place: usize, doing: Doing) -> Answered {
        if let Some(place) = self.doing.get_mut(place) {
            *place = doing;
        }
        Answered::Later
    }

    pub(super) fn owed(&self, place: usize) -> Owed {
        self.owed.get(place).copied().unwrap_or(Owed::Nothing)
    }

    /// The answer leaves after the commit.
    pub(super) fn owe(&mut self, place: usize, owed: Owed) -> Answered {
        if let Some(place) = self.owed.get_mut(place) {
            *place = owed;
        }
        Answered::Later
    }

    /// Whether a commit is waited for.
    pub(super) fn owes(&self) -> bool {
        self.owed.iter().any(|owed| *owed != Owed::Nothing)
    }

    /// Whether there are new jobs that are not committed: nothing else may be
    /// put behind them.
    pub(super) fn has_group(&self) -> bool {
        self.group.is_some()
    }

    /// Who the client is; nobody if it is gone.
    pub(super) fn peer(&self, place: usize) -> Peer {
        self.clients.get(place).map_or(Peer { pid: 0, uid: 0, gid: 0 }, |client| client.peer)
    }

    /// What the client may.
    fn rank(&self, place: usize) -> Rank {
        self.clients.get(place).map_or(Rank::Nobody, |client| client.rank)
    }

    /// Whether the next request of a client can be handled.
    pub(super) fn can_ask(&self, place: usize) -> bool {
        let free = self.doing(place) == Doing::Nothing && self.owed(place) == Owed::Nothing;
        free && self.clients.get(place).is_some_and(|client| !client.is_stuck())
    }

    /// Whether somebody watches.
    pub(super) fn is_watched(&self) -> bool {
        self.doing.contains(&Doing::Watching)
    }

    /// When something here is due; `now` if requests are left.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let due = earliest(self.clients.next_deadline(), self.listener.next_deadline(now));
        let left = self.clients.connected().any(|(place, client)| client.more && self.can_ask(place));
        if left { Some(now) } else { due }
    }
}

impl Jobs {
    // ----- one turn -------------------------------------------------------

    /// Answers what can be answered at once, and notes the rest.
    #[inline(never)]
    pub(super) fn serve(&mut self, ready: &[Source], now: Instant) {
        while let Some(place) = self.control.clients.expired(now) {
            self.drop_client(place);
        }
        let mut asks = [false; CLIENTS_MAX];
        for source in ready {
            let Source::Client(place) = *source else { continue };
            let stuck = self.control.clients.get(place).is_some_and(Client::is_stuck);
            if stuck {
                if self.control.clients.flush(place, now).is_err() {
                    self.drop_client(place);
                }
            } else if self.control.can_ask(place) {
                asks.get_mut(place).into_iter().for_each(|asks| *asks = true);
            } else {
                // It waits or watches, and nothing is read from it: it is gone.
                self.drop_client(place);
            }
        }
        self.go_on_errand(now);
        self.control.first = self.control.first.wrapping_add(1) % CLIENTS_MAX;
        for offset in 0..CLIENTS_MAX {
            let place = self.control.first.wrapping_add(offset) % CLIENTS_MAX;
            let Some(client) = self.control.clients.get(place) else { continue };
            let wants = client.more || client.ended || asks.get(place) == Some(&true);
            if wants && self.control.can_ask(place) {
                self.take_requests(place, now);
            }
        }
    }

    /// Takes one buffer of a client's requests.
    #[inline(never)]
    fn take_requests(&mut self, place: usize, now: Instant) {
        let mut input = [0; CLIENT_INPUT_BYTES];
        let mut answers = [0; CLIENT_OUTPUT_BYTES];
        let mut out = Writer::new(&mut answers);
        let Ok(length) = self.control.clients.take_input(place, &mut input, now) else {
            return self.drop_client(place);
        };
        let (mut at, mut progress, mut close) = (0usize, false, false);
        let more = loop {
            let rest = input.get(at..length).unwrap_or(&[]);
            let Some(client) = self.control.clients.get(place) else { return };
            let framed = frame(rest, REQUEST_MAX_BYTES, client.skipping, client.ended);
            if framed == Framed::Partial {
                break false;
            }
            if self.control.rank(place) == Rank::Nobody {
                self.note_denied(place, b"connect", now);
                refuse(&mut out, Code::Denied, "allow_uid and allow_gid do not name you");
                close = true;
                break false;
            }
            if !self.has_room(place, &out) {
                break !rest.is_empty();
            }
            let Some((used, whole)) = self.take_frame(place, framed, now, &mut out) else { break true };
            at = at.saturating_add(used);
            progress |= whole;
            if used == 0 {
                break false;
            }
            if self.control.doing(place) != Doing::Nothing {
                break at < length;
            }
        };
        self.control.clients.keep(place, input.get(at..length).unwrap_or(&[]), more, progress, now);
        let gone = !out.is_empty() && self.control.clients.send(place, out.as_bytes(), now).is_err();
        if gone || close {
            self.drop_client(place);
        } else {
            self.close_if_finished(place);
        }
    }

    /// Takes one request, or what is none. How long it is, and whether its end was there;
    /// `None`: it has to wait until what is owed is answered.
    fn take_frame(
        &mut self,
        place: usize,
        framed: Framed<'_>,
        now: Instant,
        out: &mut Writer<'_>,
    ) -> Option<(usize, bool)> {
        let owing = self.control.owed(place) != Owed::Nothing;
        match framed {
            Framed::Partial => Some((0, false)),
            Framed::TooLong(..) | Framed::Cut(_) if owing => None,
            Framed::Rest(used, end) | Framed::TooLong(used, end) => {
                if matches!(framed, Framed::TooLong(..)) {
                    refuse(out, Code::TooLong, "a request has at most 1100 bytes");
                }
                self.control.clients.set_skipping(place, !end);
                Some((used, end))
            }
            Framed::Cut(used) => {
                refuse(out, Code::BadRequest, "the last request has no newline, and was not done");
                Some((used, false))
            }
            Framed::Request(line, used) => {
                let before = out.len();
                let answered = self.handle(place, line, now, out);
                if answered == Answered::PutOff || (owing && out.len() > before) {
                    // (an error behind new jobs has to wait for their answers)
                    out.truncate(before);
                    return None;
                }
                Some((used, true))
            }
        }
    }

    /// Whether another answer fits behind those that are written or owed.
    fn has_room(&self, place: usize, out: &Writer<'_>) -> bool {
        let owed = match self.control.owed(place) {
            Owed::Nothing => 0,
            Owed::Ids(_, count) if count < CLIENT_TURN_JOBS => count.saturating_mul(ID_ANSWER_BYTES),
            _ => return false,
        };
        out.room() >= owed.saturating_add(ANSWER_BYTES)
    }

    fn handle(&mut self, place: usize, line: &[u8], now: Instant, out: &mut Writer<'_>) -> Answered {
        let (verb, argument) = split(line);
        let rank = self.control.rank(place);
        let Some(request) = Request::named(verb) else {
            let _ = uwrite!(out, "err {} ", Code::BadRequest.name());
            if verb.is_empty() {
                out.push_str("an empty request; see help\n");
            } else {
                out.push_str("unknown request \"");
                out.push_escaped(verb.get(..20).unwrap_or(verb));
                out.push_str("\"; see help\n");
            }
            return Answered::Now;
        };
        let alone = out.is_empty() && self.control.owed(place) == Owed::Nothing;
        let waits = self.control.owed(place) != Owed::Nothing && !request.adds();
        if waits || (out.room() < request.room && !alone) {
            return Answered::PutOff;
        }
        if request.who == Rank::Owner && rank != Rank::Owner {
            self.note_denied(place, verb, now);
            return refuse(out, Code::Denied, "only root and the service's own user may");
        }
        let mut asking = Asking { place, now, out };
        match request.run(self, &mut asking, argument) {
            Ok(answered) => answered,
            Err((code, why)) => refuse(out, code, why),
        }
    }

    // ----- events ---------------------------------------------------------

    /// Something happened to a job: who waits for its end is told.
    pub(super) fn note_event(&mut self, id: u64, what: What, took: Duration, now: Instant) {
        let watched = self.control.is_watched();
        self.control.history.note(id, what, took, watched);
        if let What::Ended(fate) = what
            && self.control.doing.contains(&Doing::Waiting(id))
        {
            self.tell_waiting(id, fate, now);
        }
    }

    #[inline(never)]
    fn tell_waiting(&mut self, id: u64, fate: Fate, now: Instant) {
        let mut line = [0; 96];
        let mut out = Writer::new(&mut line);
        out.push_str("ok ");
        fate.describe(id, &mut out);
        out.push_str("\n");
        for place in 0..CLIENTS_MAX {
            if self.control.doing(place) == Doing::Waiting(id) {
                self.control.set_doing(place, Doing::Nothing);
                self.reply(place, out.as_bytes(), now);
            }
        }
    }

    /// Sends the turn's events to those who watch. One who reads too slowly
    /// misses some.
    #[inline(never)]
    pub(super) fn send_events(&mut self, now: Instant) {
        if !self.control.is_watched() {
            // (of those who have just gone)
            self.control.history.drop_events();
            return;
        }
        let mut out = Writer::new(self.scratch);
        self.control.history.take_events(&mut out);
        if out.is_empty() {
            return;
        }
        let mut gone = [false; CLIENTS_MAX];
        for (place, gone) in gone.iter_mut().enumerate() {
            if self.control.doing(place) == Doing::Watching {
                *gone = self.control.clients.send(place, out.as_bytes(), now).is_err();
            }
        }
        for (place, _) in gone.iter().enumerate().filter(|(_, gone)| **gone) {
            self.drop_client(place);
        }
    }

    /// Whether a drain is over: nothing is left to run, or can be read. (Lines for
    /// which there is no room stay in their claims.)
    pub(super) fn is_drained(&self) -> bool {
        let works = self.spool_failure.is_none() && self.no_room.is_none();
        let room = works && self.spool.room(&rules(self.process.config)) > 0;
        self.control.draining
            && self.stopping == Stopping::No
            && self.spool.waiting() == 0
            && self.workers.is_empty()
            && !(room && self.spool.claims.wants_reading())
    }
}
