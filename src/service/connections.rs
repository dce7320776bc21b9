//! The connections of a service: accepts, reads, answers and closes, in the same way for
//! every socket. The decisions are in `state/clients.rs`, and each service handles
//! requests as a [`Server`].
//!
//! The buffers are used only for input that could not be handled at once and for output
//! that was not taken at once, so sixteen clients that behave cost no memory.

use crate::limits::{CLIENT_INPUT_BYTES, CLIENT_OUTPUT_BYTES, CLIENTS_MAX};
use crate::proto::control::{Code, Refusal, push_refusal};
use crate::proto::framing::Framed;
use crate::state::access::{Access, AccessPolicy};
use crate::state::clients::{ACCEPT_TURN, Admission, ClientSlot, Clients, Reading};
use crate::sys::identity;
use crate::sys::once::once;
use crate::sys::poll::Interest;
use crate::sys::socket::{self, Peer};
use crate::sys::{Errno, Failure, OwnedFd};
use crate::util::text::Writer;
use crate::util::time::Instant;
use heapless::Vec;

/// The slots of all clients. The parts that a quiet service touches come first.
#[repr(C)]
pub struct Connections {
    /// The state of each client.
    pub clients: Clients,
    fds: [Vec<OwnedFd, 1>; CLIENTS_MAX],
    peers: [Peer; CLIENTS_MAX],
    inputs: [[u8; CLIENT_INPUT_BYTES]; CLIENTS_MAX],
    outputs: [[u8; CLIENT_OUTPUT_BYTES]; CLIENTS_MAX],
}

/// The client has closed its connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disconnected;

/// The result of handling the beginning of a client's input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// A request of this many bytes was handled. The next one follows.
    Whole(usize),
    /// A request of this many bytes was handled. No other one is handled in this turn.
    Last(usize),
    /// This many bytes are dropped. The rest is not a whole request.
    Part(usize),
    /// The next request has to wait for a later turn.
    Later,
    /// The client is to be closed.
    Close,
}

/// The part of a service that handles its clients.
pub trait Server {
    /// Returns the connections of the service.
    fn connections(&mut self) -> &mut Connections;

    /// Returns the next new connection, if there is one, with the rights of its client.
    fn accept(&mut self, now: Instant) -> Option<(OwnedFd, Peer, Access)>;

    /// Decides about a new client.
    fn admission(&self, access: Access, uid: u32, now: Instant) -> Admission;

    /// Writes the answer for a client that gets no slot.
    fn refuse(&self, out: &mut Writer<'_>);

    /// Prepares for a new client at `slot`.
    fn joined(&mut self, slot: usize, now: Instant);

    /// Returns the use of the client's input.
    fn reading(&self, slot: usize) -> Reading;

    /// Returns true if a request of the client can be handled.
    fn can_read(&self, slot: usize) -> bool {
        self.reading(slot) == Reading::Requests
    }

    /// Handles the beginning of the client's input and writes the answer.
    fn take(&mut self, slot: usize, input: &[u8], now: Instant, out: &mut Writer<'_>) -> Taken;

    /// Prepares for the requests of this turn.
    #[unsafe(link_section = ".text.idle")]
    fn before_requests(&mut self, _now: Instant) {}

    /// Continues after the client took some of its kept output.
    fn flushed(&mut self, _slot: usize, _now: Instant) {}

    /// Handles an event of a client that is watched only for its end.
    fn hung_up(&mut self, slot: usize) {
        self.close(slot);
    }

    /// Handles a client that takes no more answers.
    fn unwritable(&mut self, slot: usize) {
        self.close(slot);
    }

    /// Closes the connection, and drops everything that the client waited for.
    fn close(&mut self, slot: usize);
}

once! {
    static CONNECTIONS: Connections = Connections::EMPTY;
}

/// Returns the slots of this process's service. Can be called once.
#[must_use]
pub fn take() -> &'static mut Connections {
    CONNECTIONS.take()
}

/// Takes what is no request from the beginning of a client's input, and writes its refusal. `None`
/// for a request.
pub fn take_no_request(client: &mut ClientSlot, framed: Framed<'_>, out: &mut Writer<'_>) -> Option<Taken> {
    match framed {
        Framed::Partial => Some(Taken::Part(0)),
        Framed::Discard(used, end) | Framed::TooLong(used, end) => {
            client.skipping = !end;
            if matches!(framed, Framed::TooLong(..)) {
                push_refusal((Code::TooLong, "a request has at most 1100 bytes"), out);
            }
            Some(if end { Taken::Whole(used) } else { Taken::Part(used) })
        }
        Framed::Unterminated(used) => {
            push_refusal((Code::BadRequest, "the last request has no newline, and was not done"), out);
            Some(Taken::Part(used))
        }
        Framed::Request(..) => None,
    }
}

/// The refusal of a client that gets no slot.
pub const BUSY: Refusal = (Code::Busy, "16 clients are connected, or 8 of your user; try again");
/// The refusal of a client without rights.
pub const DENIED: Refusal = (Code::Denied, "allow_uid and allow_gid do not name you");
/// The refusal of a guest's request.
pub const OWNER_ONLY: Refusal = (Code::Denied, "only root and the service's own user may");

// ----- the loop that is the same for all ----------------------------------

/// Accepts new clients, up to [`ACCEPT_TURN`].
#[inline(never)]
pub fn accept(server: &mut dyn Server, now: Instant) {
    for _ in 0..ACCEPT_TURN {
        let Some((fd, peer, access)) = server.accept(now) else { return };
        let added = match server.admission(access, peer.uid, now) {
            Admission::Full => Err(fd),
            Admission::Free => server.connections().add(fd, peer, access, now),
            Admission::Evict(slot) => {
                server.close(slot);
                server.connections().add(fd, peer, access, now)
            }
        };
        match added {
            Ok(slot) => server.joined(slot, now),
            Err(fd) => {
                let mut buffer = [0; 512];
                let mut out = Writer::new(&mut buffer);
                server.refuse(&mut out);
                let _ = socket::send(&fd, out.as_bytes());
                socket::close(fd, &mut buffer);
            }
        }
    }
}

/// Accepts every client that has connected before a change of the socket.
pub fn accept_all(server: &mut dyn Server, now: Instant) {
    for _ in 0..CLIENTS_MAX {
        accept(server, now);
    }
}

/// Closes the clients that are stuck for too long.
#[allow(unsafe_code, reason = "names a section")]
#[unsafe(link_section = ".text.idle")]
pub fn close_expired(server: &mut dyn Server, now: Instant) {
    while let Some(slot) = server.connections().clients.expired(now) {
        server.close(slot);
    }
}

/// Serves the clients in `ready`, which poll(2) has reported, and those that are waiting
/// for their turn: at most one buffer of requests from each.
#[inline(never)]
#[allow(unsafe_code, reason = "names a section")]
#[unsafe(link_section = ".text.idle")]
pub fn serve(server: &mut dyn Server, ready: &mut dyn Iterator<Item = usize>, now: Instant) {
    let mut asks = [false; CLIENTS_MAX];
    for slot in ready {
        let has_input = on_ready(server, slot, now);
        asks.get_mut(slot).into_iter().for_each(|asks| *asks = has_input);
    }
    server.before_requests(now);
    if server.connections().clients.count() == 0 {
        // The next round writes to memory that a quiet service does not use.
        return;
    }
    for slot in server.connections().clients.next_round() {
        let has_work = server.connections().clients.get(slot).is_some_and(ClientSlot::has_work);
        if (has_work || asks.get(slot) == Some(&true)) && server.can_read(slot) {
            read(server, slot, now);
        }
    }
}

/// Handles an event of the client's connection. Returns true if there can be input.
fn on_ready(server: &mut dyn Server, slot: usize, now: Instant) -> bool {
    if server.connections().clients.get(slot).is_some_and(ClientSlot::is_stuck) {
        match server.connections().flush(slot, now) {
            Ok(()) => server.flushed(slot, now),
            Err(Disconnected) => server.unwritable(slot),
        }
        return true;
    }
    let reading = server.reading(slot);
    if reading == Reading::Requests {
        return true;
    }
    if server.connections().absorb(slot, reading).is_err() {
        server.hung_up(slot);
    }
    false
}

/// Handles one buffer of the client's requests.
#[inline(never)]
pub fn read(server: &mut dyn Server, slot: usize, now: Instant) {
    let mut input = [0; CLIENT_INPUT_BYTES];
    let mut answers = [0; CLIENT_OUTPUT_BYTES];
    let mut out = Writer::new(&mut answers);
    let Ok(length) = server.connections().take_input(slot, &mut input, now) else {
        return server.close(slot);
    };
    let (mut at, mut progress) = (0usize, false);
    let (more, close) = loop {
        let taken = server.take(slot, input.get(at..length).unwrap_or(&[]), now, &mut out);
        if let Taken::Whole(used) | Taken::Last(used) | Taken::Part(used) = taken {
            at = at.saturating_add(used);
        }
        progress |= matches!(taken, Taken::Whole(_) | Taken::Last(_));
        match taken {
            Taken::Whole(_) => {}
            Taken::Last(_) => break (at < length, false),
            Taken::Part(_) => break (false, false),
            Taken::Later => break (true, false),
            Taken::Close => break (false, true),
        }
    };
    server.connections().keep(slot, input.get(at..length).unwrap_or(&[]), more, progress, now);
    answer(server, slot, out.as_bytes(), now);
    if close {
        server.close(slot);
    }
}

/// Sends an answer, and closes the connection if that was the last one.
pub fn answer(server: &mut dyn Server, slot: usize, lines: &[u8], now: Instant) {
    if !lines.is_empty() && server.connections().send(slot, lines, now) == Err(Disconnected) {
        server.unwritable(slot);
    }
    close_if_finished(server, slot);
}

/// Closes the connection if the client will ask for nothing more and has every answer.
pub fn close_if_finished(server: &mut dyn Server, slot: usize) {
    if server.connections().clients.get(slot).is_some_and(ClientSlot::is_finished) && server.can_read(slot) {
        server.close(slot);
    }
}

// ----- one connection -----------------------------------------------------

impl Connections {
    /// All zeros: no clients.
    pub const EMPTY: Self = Self {
        clients: Clients::EMPTY,
        fds: [const { Vec::new() }; CLIENTS_MAX],
        peers: [Peer { pid: 0, uid: 0, gid: 0 }; CLIENTS_MAX],
        inputs: [[0; CLIENT_INPUT_BYTES]; CLIENTS_MAX],
        outputs: [[0; CLIENT_OUTPUT_BYTES]; CLIENTS_MAX],
    };

    /// Returns the connection at `slot`, and the events to watch it for.
    #[must_use]
    pub fn interest(&self, slot: usize, reading: Reading) -> Option<(&OwnedFd, Interest)> {
        let client = self.clients.get(slot)?;
        let reading = match reading {
            Reading::Requests => !client.has_work(),
            _ => client.can_absorb(reading),
        };
        let interest = match client.is_stuck() {
            true if reading => Interest::Both,
            true => Interest::Output,
            false if reading => Interest::Input,
            false => Interest::End,
        };
        self.fd(slot).map(|fd| (fd, interest))
    }

    /// Returns the connection at `slot`.
    #[must_use]
    pub fn fd(&self, slot: usize) -> Option<&OwnedFd> {
        self.fds.get(slot)?.first()
    }

    /// Returns the process that connected; zeros if the client has left.
    #[must_use]
    pub fn peer(&self, slot: usize) -> Peer {
        self.peers.get(slot).copied().unwrap_or(Peer { pid: 0, uid: 0, gid: 0 })
    }

    /// Adds a client and returns its slot.
    ///
    /// # Errors
    /// All slots are taken: returns the connection.
    pub fn add(&mut self, fd: OwnedFd, peer: Peer, access: Access, now: Instant) -> Result<usize, OwnedFd> {
        let Some(slot) = self.clients.add(access, peer.uid, now) else { return Err(fd) };
        self.peers.get_mut(slot).into_iter().for_each(|place| *place = peer);
        self.fds.get_mut(slot).map_or(Ok(slot), |place| place.push(fd).map(|()| slot))
    }

    /// Applies a policy to all clients, and returns those that have no rights.
    pub fn update_access(&mut self, policy: &AccessPolicy) -> Vec<usize, CLIENTS_MAX> {
        let mut denied = Vec::new();
        for (slot, (fd, peer)) in self.fds.iter().zip(&self.peers).enumerate() {
            if let (Some(fd), Some(client)) = (fd.first(), self.clients.get_mut(slot)) {
                client.access = access_of(policy, fd, *peer);
                if client.access == Access::Denied {
                    let _ = denied.push(slot);
                }
            }
        }
        denied
    }

    /// Closes the connection after dropping its unread input, because a connection that
    /// is closed with unread input is reset, and its last answer lost.
    pub fn close(&mut self, slot: usize) {
        let ended = self.clients.get(slot).is_some_and(|client| client.ended);
        self.clients.remove(slot);
        self.peers.get_mut(slot).into_iter().for_each(|peer| *peer = Peer { pid: 0, uid: 0, gid: 0 });
        if let Some(fd) = self.fds.get_mut(slot).and_then(Vec::pop)
            && let Some(scratch) = self.inputs.get_mut(slot)
            && !ended
        {
            socket::close(fd, scratch);
        }
    }

    /// Receives input after a request whose answer is not there yet, so that descriptors in it are
    /// released. A connection whose own descriptor waits in its input would never end.
    ///
    /// # Errors
    /// The client has closed its connection.
    #[inline(never)]
    fn absorb(&mut self, slot: usize, reading: Reading) -> Result<(), Disconnected> {
        let (fd, client) = self.fds.get(slot).zip(self.clients.get_mut(slot)).ok_or(Disconnected)?;
        if !client.can_absorb(reading) {
            return Err(Disconnected);
        }
        let keeps = reading == Reading::Keep;
        let kept = if keeps { client.input() } else { 0 };
        // The input of a client that keeps none is free.
        let room = self.inputs.get_mut(slot).and_then(|input| input.get_mut(kept..)).ok_or(Disconnected)?;
        match socket::receive(fd.first().ok_or(Disconnected)?, room) {
            Ok(count) => client.absorbed(count, keeps),
            Err(Failure { errno: Errno::AGAIN, .. }) => {}
            Err(_) => return Err(Disconnected),
        }
        Ok(())
    }

    /// Copies the kept input and what has come since into `buffer`; returns the number of
    /// bytes.
    fn take_input(
        &mut self,
        slot: usize,
        buffer: &mut [u8; CLIENT_INPUT_BYTES],
        now: Instant,
    ) -> Result<usize, Disconnected> {
        let (fd, client) = self.fds.get(slot).zip(self.clients.get_mut(slot)).ok_or(Disconnected)?;
        let kept = self.inputs.get(slot).and_then(|input| input.get(..client.input())).unwrap_or(&[]);
        let (old, new) = buffer.split_at_mut(kept.len());
        old.copy_from_slice(kept);
        if !client.can_receive() {
            return Ok(kept.len());
        }
        match socket::receive(fd.first().ok_or(Disconnected)?, new) {
            Ok(count) => {
                client.received(count, now);
                Ok(kept.len().saturating_add(count))
            }
            Err(Failure { errno: Errno::AGAIN, .. }) => Ok(kept.len()),
            Err(_) => Err(Disconnected),
        }
    }

    /// Keeps the input that was not handled.
    fn keep(&mut self, slot: usize, rest: &[u8], more: bool, progress: bool, now: Instant) {
        let (Some(client), Some(input)) = (self.clients.get_mut(slot), self.inputs.get_mut(slot)) else {
            return;
        };
        if let Some(to) = input.get_mut(..rest.len()).filter(|to| !to.is_empty()) {
            to.copy_from_slice(rest);
        }
        client.kept(rest.len(), more, progress, now);
    }

    /// Sends `lines`, of which the last one ends with a newline, as far as the client takes
    /// them, and keeps the rest as far as whole lines fit. Returns the number of bytes that
    /// were sent or kept.
    ///
    /// # Errors
    /// The client has closed its connection.
    pub fn send(&mut self, slot: usize, lines: &[u8], now: Instant) -> Result<usize, Disconnected> {
        let (fd, client) = self.fds.get(slot).zip(self.clients.get_mut(slot)).ok_or(Disconnected)?;
        let output = self.outputs.get_mut(slot).ok_or(Disconnected)?;
        let mut sent = 0;
        if !client.is_stuck() {
            sent = send_some(fd, lines)?;
            client.sent(now);
        }
        let rest = lines.get(sent..).unwrap_or(&[]);
        let fits = client.fitting(rest);
        let room = output.get_mut(client.output()..).and_then(|room| room.get_mut(..fits));
        if let (Some(to), Some(from)) = (room, rest.get(..fits))
            && fits > 0
        {
            to.copy_from_slice(from);
            client.queued(fits, now);
        }
        Ok(sent.saturating_add(fits))
    }

    /// Sends the kept output as far as the client takes it.
    ///
    /// # Errors
    /// The client has closed its connection.
    pub fn flush(&mut self, slot: usize, now: Instant) -> Result<(), Disconnected> {
        let (fd, client) = self.fds.get(slot).zip(self.clients.get_mut(slot)).ok_or(Disconnected)?;
        let output = self.outputs.get_mut(slot).ok_or(Disconnected)?;
        let kept = output.get_mut(..client.output()).unwrap_or(&mut []);
        let sent = send_some(fd, kept)?;
        if sent > 0 {
            kept.copy_within(sent.., 0);
            client.flushed(sent, now);
        }
        Ok(())
    }
}

/// Returns the rights of the client of a connection.
#[must_use]
pub fn access_of(policy: &AccessPolicy, fd: &OwnedFd, peer: Peer) -> Access {
    let in_groups = |groups: &[u32]| socket::peer_in_groups(fd, groups);
    policy.access_of(peer.uid, peer.gid, identity::effective_uid(), in_groups)
}

/// Calls send(2) once; returns 0 if the client takes nothing now.
fn send_some(fd: &Vec<OwnedFd, 1>, bytes: &[u8]) -> Result<usize, Disconnected> {
    match socket::send(fd.first().ok_or(Disconnected)?, bytes) {
        Ok(count) => Ok(count),
        Err(Failure { errno: Errno::AGAIN, .. }) => Ok(0),
        Err(_) => Err(Disconnected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CLIENT_IDLE;
    use crate::sys::fd_passing;

    #[test]
    fn a_client_that_takes_no_answers_keeps_whole_lines_and_gets_them_later() {
        let mut connections = Connections::EMPTY;
        let (ours, theirs) = fd_passing::pair().unwrap();
        let now = Instant::from_ms(7);
        let slot = connections.add(ours, Peer { pid: 1, uid: 2, gid: 3 }, Access::Guest, now).unwrap();
        let line = [[b'x'; 999].as_slice(), b"\n"].concat();
        let mut sent = 0;
        while connections.clients.get(slot).is_some_and(|client| !client.is_stuck()) {
            sent += connections.send(slot, &line, now).unwrap();
        }
        assert_eq!((sent % 1000, connections.send(slot, &line, now)), (0, Ok(0)));
        connections.flush(slot, now + CLIENT_IDLE).unwrap();
        assert_eq!(connections.clients.next_deadline(), Some(now + CLIENT_IDLE), "nothing was taken");
        let (mut bytes, mut received) = ([0; 1000], 0);
        while received < sent {
            received += socket::receive(&theirs, &mut bytes).unwrap();
            connections.flush(slot, now).unwrap();
        }
        assert!(!connections.clients.get(slot).unwrap().is_stuck(), "all was taken");
    }
}
