//! The connections of a service: what they sent and was not a whole request
//! yet, and answers that they have not taken.
//!
//! A slot is an index that stays the same while a client is connected. The
//! buffers are touched only for what could not be handled at once, so sixteen
//! clients that behave cost no memory.

use super::listener::{Access, AccessPolicy};
use crate::limits::{
    ACCEPT_TURN, CLIENT_IDLE, CLIENT_INPUT_BYTES, CLIENT_OUTPUT_BYTES, CLIENTS_MAX, UNAUTHORIZED_MAX,
};
use crate::sys::once::once;
use crate::sys::poll::Interest;
use crate::sys::socket::{self, Peer};
use crate::sys::{Errno, Failure, OwnedFd};
use crate::util::time::{Instant, earliest, earliest_by};
use heapless::Vec;

/// One slot. All zeros when it is free.
pub struct Connection {
    /// The connection. (An `Option` of it would not be all zeros.)
    fd: Vec<OwnedFd, 1>,
    /// Who it is.
    pub peer: Peer,
    /// What it may.
    pub access: Access,
    input_length: usize,
    output_length: usize,
    /// Inside a request that is too long.
    pub skipping: bool,
    /// The peer will send nothing more.
    pub ended: bool,
    /// Whole requests are left in its input.
    pub more: bool,
    /// A denial was logged.
    pub denied: bool,
    /// It has sent something.
    asked: bool,
    /// Since when there is half a request.
    partial_since: Option<Instant>,
    /// Since when nothing was taken of its output.
    stuck_since: Option<Instant>,
    active_at: Instant,
}

/// See the module's documentation. What a quiet service touches comes first.
#[repr(C)]
pub struct Connections {
    slots: [Connection; CLIENTS_MAX],
    inputs: [[u8; CLIENT_INPUT_BYTES]; CLIENTS_MAX],
    outputs: [[u8; CLIENT_OUTPUT_BYTES]; CLIENTS_MAX],
}

/// The connection is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Disconnected;

once! {
    static CONNECTIONS: Connections = Connections::EMPTY;
}

/// The slots of this process's service; to be called once.
#[must_use]
pub fn take() -> &'static mut Connections {
    CONNECTIONS.take()
}

impl Connection {
    const FREE: Self = Self {
        fd: Vec::new(),
        peer: Peer { pid: 0, uid: 0, gid: 0 },
        access: Access::Denied,
        input_length: 0,
        output_length: 0,
        skipping: false,
        ended: false,
        more: false,
        denied: false,
        asked: false,
        partial_since: None,
        stuck_since: None,
        active_at: Instant::BOOT,
    };

    /// Whether it has answers that it has not taken.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.output_length > 0
    }

    /// Whether it has nothing left to ask, and took every answer.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.ended && !self.more && self.output_length == 0
    }
}

impl Connections {
    /// All zeros: no clients.
    pub const EMPTY: Self = Self {
        slots: [const { Connection::FREE }; CLIENTS_MAX],
        inputs: [[0; CLIENT_INPUT_BYTES]; CLIENTS_MAX],
        outputs: [[0; CLIENT_OUTPUT_BYTES]; CLIENTS_MAX],
    };

    /// The slots that are taken.
    pub fn connected(&self) -> impl Iterator<Item = (usize, &Connection)> {
        self.slots.iter().enumerate().filter(|(_, client)| !client.fd.is_empty())
    }

    /// How many are connected.
    #[must_use]
    pub fn count(&self) -> usize {
        self.connected().count()
    }

    /// The client at `slot`, if it is taken.
    #[must_use]
    pub fn get(&self, slot: usize) -> Option<&Connection> {
        self.slots.get(slot).filter(|client| !client.fd.is_empty())
    }

    /// As [`Connections::get`], to be changed.
    pub fn get_mut(&mut self, slot: usize) -> Option<&mut Connection> {
        self.slots.get_mut(slot).filter(|client| !client.fd.is_empty())
    }

    /// The client is inside a request that is too long, or behind it.
    pub fn set_skipping(&mut self, slot: usize, skipping: bool) {
        if let Some(client) = self.get_mut(slot) {
            client.skipping = skipping;
        }
    }

    /// The connection at `slot`, and what to watch it for; `reading` is whether
    /// another request can be handled.
    #[must_use]
    pub fn interest(&self, slot: usize, reading: bool) -> Option<(&OwnedFd, Interest)> {
        let client = self.get(slot)?;
        let reading = reading && !client.ended && !client.more;
        let interest = match client.is_stuck() {
            true if reading => Interest::Both,
            true => Interest::Output,
            false if reading => Interest::Input,
            false => Interest::End,
        };
        client.fd.first().map(|fd| (fd, interest))
    }

    /// The connection at `slot`.
    #[must_use]
    pub fn connection(&self, slot: usize) -> Option<&OwnedFd> {
        self.get(slot)?.fd.first()
    }

    /// A new client; gives the connection back if there is no slot.
    ///
    /// # Errors
    /// The connection.
    pub fn add(&mut self, fd: OwnedFd, peer: Peer, access: Access, now: Instant) -> Result<usize, OwnedFd> {
        match self.slots.iter_mut().enumerate().find(|(_, client)| client.fd.is_empty()) {
            None => Err(fd),
            Some((slot, client)) => {
                *client = Connection { peer, access, active_at: now, ..Connection::FREE };
                client.fd.push(fd).map(|()| slot)
            }
        }
    }

    /// Who has to go so that a newcomer can be added, if anybody.
    #[must_use]
    pub fn eviction_candidate(
        &self,
        newcomer: Access,
        now: Instant,
        busy: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let surplus = if newcomer == Access::Denied { self.surplus_unauthorized(now) } else { None };
        let full = || self.count() == CLIENTS_MAX;
        surplus.or_else(|| if full() { self.evictable(newcomer, now, busy) } else { None })
    }

    /// Whose slot a newcomer may have: that of the client that was idle for
    /// longest, if it has asked for nothing yet or is idle for long; an owner
    /// also gets that of any other. `busy` are those who wait for something.
    fn evictable(&self, newcomer: Access, now: Instant, busy: &dyn Fn(usize) -> bool) -> Option<usize> {
        let idle = |(slot, client): &(usize, &Connection)| {
            let long = (client.active_at + CLIENT_IDLE).is_due(now);
            let access = client.access <= newcomer;
            access && (!client.asked || long) && !client.is_stuck() && !client.more && !busy(*slot)
        };
        let lower =
            |(_, client): &(usize, &Connection)| newcomer == Access::Owner && client.access != Access::Owner;
        // (one that came in this turn had no chance to ask)
        let older = |(_, client): &&(usize, &Connection)| client.asked || client.active_at.is_before(now);
        let oldest = |wanted: &dyn Fn(&(usize, &Connection)) -> bool| {
            let wanted = self.connected().filter(|client| wanted(client));
            earliest_by(wanted, |(_, client)| client.active_at).map(|(slot, _)| slot)
        };
        oldest(&|client| older(&client) && idle(client))
            .or_else(|| oldest(&|client| older(&client) && lower(client)))
            // (a flood fills all slots within one millisecond)
            .or_else(|| oldest(&lower))
    }

    /// The oldest of those who may nothing, if there are as many as may be here
    /// just to be told so: they must not keep others out.
    fn surplus_unauthorized(&self, now: Instant) -> Option<usize> {
        let unauthorized = || self.connected().filter(|(_, client)| client.access == Access::Denied);
        let count = unauthorized().count();
        // (those that came in this turn get it to ask, unless they are a flood)
        let may_go = unauthorized().filter(|(_, client)| {
            client.active_at.is_before(now) || count >= UNAUTHORIZED_MAX.saturating_add(ACCEPT_TURN)
        });
        let (slot, _) = earliest_by(may_go, |(_, client)| client.active_at)?;
        (count >= UNAUTHORIZED_MAX).then_some(slot)
    }

    /// Finds anew what the client may.
    pub fn update_access(&mut self, slot: usize, policy: &AccessPolicy) -> Option<Access> {
        let client = self.get_mut(slot)?;
        client.access = policy.access_of(client.fd.first()?, client.peer);
        Some(client.access)
    }

    /// Closes the connection, after taking what is unread. (Not if its end was read:
    /// nothing comes behind that.)
    pub fn close(&mut self, slot: usize, scratch: &mut [u8]) {
        if let Some(client) = self.slots.get_mut(slot)
            && let Some(fd) = client.fd.pop()
        {
            if !client.ended {
                socket::close(fd, scratch);
            }
            *client = Connection::FREE;
        }
    }

    /// What is left of the input and what has come since, into `buffer`;
    /// returns the number of bytes. [`Connections::keep`] takes the rest back.
    ///
    /// # Errors
    /// The peer is gone.
    pub fn take_input(
        &mut self,
        slot: usize,
        buffer: &mut [u8; CLIENT_INPUT_BYTES],
        now: Instant,
    ) -> Result<usize, Disconnected> {
        let client = self.slots.get_mut(slot).ok_or(Disconnected)?;
        let fd = client.fd.first().ok_or(Disconnected)?;
        let held = client.input_length;
        let kept = self.inputs.get(slot).and_then(|input| input.get(..held)).unwrap_or(&[]);
        let (old, new) = buffer.split_at_mut(kept.len());
        old.copy_from_slice(kept);
        client.input_length = 0;
        if client.ended || client.more || new.is_empty() {
            return Ok(held);
        }
        match socket::receive(fd, new) {
            Ok(0) => client.ended = true,
            Ok(count) => {
                (client.asked, client.active_at) = (true, now);
                return Ok(held.saturating_add(count));
            }
            Err(Failure { errno: Errno::AGAIN, .. }) => {}
            Err(_) => return Err(Disconnected),
        }
        Ok(held)
    }

    /// Keeps the input that was not handled. `more`: there are whole requests
    /// in it.
    pub fn keep(&mut self, slot: usize, rest: &[u8], more: bool, progress: bool, now: Instant) {
        let (Some(client), Some(input)) = (self.slots.get_mut(slot), self.inputs.get_mut(slot)) else {
            return;
        };
        if let Some(to) = input.get_mut(..rest.len()).filter(|to| !to.is_empty()) {
            to.copy_from_slice(rest);
        }
        client.input_length = rest.len();
        client.more = more;
        let half = !more && (!rest.is_empty() || client.skipping);
        client.partial_since = match client.partial_since {
            _ if !half => None,
            Some(since) if !progress => Some(since),
            _ => Some(now),
        };
    }

    /// Sends `bytes`, which end with a newline, as far as they are taken now,
    /// and keeps the rest: whole lines, as many as there is room for. Returns
    /// how many bytes were sent or kept.
    ///
    /// # Errors
    /// The peer is gone.
    pub fn send(&mut self, slot: usize, bytes: &[u8], now: Instant) -> Result<usize, Disconnected> {
        let client = self.slots.get_mut(slot).ok_or(Disconnected)?;
        let output = self.outputs.get_mut(slot).ok_or(Disconnected)?;
        let mut sent = 0;
        if client.output_length == 0 {
            sent = send_some(client.fd.first().ok_or(Disconnected)?, bytes)?;
            client.active_at = now;
        }
        let rest = bytes.get(sent..).unwrap_or(&[]);
        let room = output.get_mut(client.output_length..).unwrap_or(&mut []);
        let fits = whole_lines(rest, room.len());
        if let (Some(to), Some(from)) = (room.get_mut(..fits), rest.get(..fits))
            && fits > 0
        {
            to.copy_from_slice(from);
            client.output_length = client.output_length.saturating_add(fits);
            client.stuck_since.get_or_insert(now);
        }
        Ok(sent.saturating_add(fits))
    }

    /// Sends what is left of the answers, as far as it is taken now.
    ///
    /// # Errors
    /// The peer is gone.
    pub fn flush(&mut self, slot: usize, now: Instant) -> Result<(), Disconnected> {
        let client = self.slots.get_mut(slot).ok_or(Disconnected)?;
        let output = self.outputs.get_mut(slot).ok_or(Disconnected)?;
        let held = output.get_mut(..client.output_length).unwrap_or(&mut []);
        let sent = send_some(client.fd.first().ok_or(Disconnected)?, held)?;
        if sent > 0 {
            held.copy_within(sent.., 0);
            client.output_length = client.output_length.saturating_sub(sent);
            client.stuck_since = (client.output_length > 0).then_some(now);
            client.active_at = now;
        }
        Ok(())
    }

    /// Forgets the answers that are kept: nobody will take them.
    pub fn forget_output(&mut self, slot: usize) {
        if let Some(client) = self.slots.get_mut(slot) {
            (client.output_length, client.stuck_since) = (0, None);
        }
    }

    /// When a client that is stuck is to be closed, the earliest.
    #[must_use]
    #[unsafe(link_section = ".text.idle")]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.connected().map(|(_, client)| client.next_deadline()).fold(None, earliest)
    }

    /// A client that is stuck for too long.
    #[must_use]
    #[unsafe(link_section = ".text.idle")]
    pub fn expired(&self, now: Instant) -> Option<usize> {
        self.connected()
            .find(|(_, client)| client.next_deadline().is_some_and(|at| at.is_due(now)))
            .map(|(slot, _)| slot)
    }
}

impl Connection {
    fn next_deadline(&self) -> Option<Instant> {
        let since = earliest(self.partial_since, self.stuck_since);
        since.map(|since| since + CLIENT_IDLE)
    }
}

/// One send(2); 0 if nothing is taken now.
fn send_some(fd: &OwnedFd, bytes: &[u8]) -> Result<usize, Disconnected> {
    match socket::send(fd, bytes) {
        Ok(count) => Ok(count),
        Err(Failure { errno: Errno::AGAIN, .. }) => Ok(0),
        Err(_) => Err(Disconnected),
    }
}

/// Length of the whole lines at the beginning of `bytes` that fit into `room`.
fn whole_lines(bytes: &[u8], room: usize) -> usize {
    let fitting = bytes.get(..room.min(bytes.len())).unwrap_or(&[]);
    fitting.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fd_passing;

    const NOBODY: Peer = Peer { pid: 1, uid: 2, gid: 3 };

    fn from_ms(ms: u64) -> Instant {
        Instant::from_ms(ms)
    }

    fn nobody_is_busy(_: usize) -> bool {
        false
    }

    /// A client that came at `now`, and its end of the connection.
    fn join(clients: &mut Connections, access: Access, now: Instant) -> (usize, OwnedFd) {
        let (ours, theirs) = fd_passing::pair().unwrap();
        (clients.add(ours, NOBODY, access, now).ok().unwrap(), theirs)
    }

    #[test]
    fn of_those_who_may_nothing_the_oldest_goes_and_in_a_flood_any() {
        let mut clients = Connections::EMPTY;
        let mut theirs = Vec::<_, CLIENTS_MAX>::new();
        let goes =
            |clients: &Connections, now| clients.eviction_candidate(Access::Denied, now, &nobody_is_busy);
        for count in 0..UNAUTHORIZED_MAX + ACCEPT_TURN {
            assert_eq!(goes(&clients, from_ms(10)), None, "those that came in this turn can ask");
            assert_eq!(goes(&clients, from_ms(11)), (count >= UNAUTHORIZED_MAX).then_some(0));
            theirs.push(join(&mut clients, Access::Denied, from_ms(10)).1).unwrap();
        }
        assert_eq!(goes(&clients, from_ms(10)), Some(0), "a flood of one millisecond");
        assert_eq!(
            clients.eviction_candidate(Access::Guest, from_ms(11), &nobody_is_busy),
            None,
            "there is room for others"
        );
    }

    #[test]
    fn who_takes_no_answers_is_due_until_it_does() {
        let mut clients = Connections::EMPTY;
        let (slot, theirs) = join(&mut clients, Access::Guest, from_ms(0));
        let idle = CLIENT_IDLE.as_ms();
        let line = [[b'x'; 999].as_slice(), b"\n"].concat();
        while clients.get(slot).is_some_and(|client| !client.is_stuck()) {
            clients.send(slot, &line, from_ms(0)).unwrap();
        }
        assert_eq!(clients.next_deadline(), Some(from_ms(0) + CLIENT_IDLE));
        assert_eq!((clients.expired(from_ms(idle - 1)), clients.expired(from_ms(idle))), (None, Some(0)));
        clients.flush(slot, from_ms(5)).unwrap();
        assert_eq!(clients.next_deadline(), Some(from_ms(0) + CLIENT_IDLE), "nothing was taken");
        let mut bytes = [0; 1000];
        while clients.get(slot).is_some_and(Connection::is_stuck) {
            assert!(socket::receive(&theirs, &mut bytes).unwrap() > 0);
            clients.flush(slot, from_ms(7)).unwrap();
        }
        assert_eq!(clients.next_deadline(), None, "all was taken");
    }
}
