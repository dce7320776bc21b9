//! Decisions about the clients of a socket. The slot of a client is an
//! index that stays the same while the client is connected.
//!
//! The connections and their buffers belong to `service/connections.rs`, which reports
//! here what it received, kept and sent, and asks which client is next, which one has
//! waited too long, and which one has to go for a new one.

use super::access::Access;
use crate::limits::{CLIENT_IDLE, CLIENT_INPUT_BYTES, CLIENT_OUTPUT_BYTES, CLIENTS_MAX};
use crate::util::lines::whole_lines;
use crate::util::time::{Instant, earliest, earliest_by};

/// Maximum number of unauthorized clients connected at the same time. Each waits only for its
/// error reply.
const UNAUTHORIZED_MAX: usize = 2;
/// Maximum number of connections that one turn accepts.
pub const ACCEPT_TURN: usize = 4;

/// One slot. All zeros if the slot is free.
#[derive(Clone, Copy, Debug)]
pub struct ClientSlot {
    connected: bool,
    /// The rights of the client.
    pub access: Access,
    /// The number of the client among all clients that ever connected.
    pub serial: u32,
    /// A denial of this client was logged.
    pub denial_logged: bool,
    /// The next bytes belong to a request that is too long.
    pub skipping: bool,
    /// The client will send nothing more.
    pub ended: bool,
    /// The kept input holds whole requests.
    pub more: bool,
    /// The client has sent something.
    asked: bool,
    /// Bytes of the kept input.
    input: usize,
    /// Bytes of the kept output.
    output: usize,
    /// When the first part of an incomplete request came.
    partial_since: Option<Instant>,
    /// When the client last took a part of its output, or when the first output was kept.
    stuck_since: Option<Instant>,
    /// When the client last sent or took something.
    active_at: Instant,
}

/// See the module's documentation.
pub struct Clients {
    slots: [ClientSlot; CLIENTS_MAX],
    /// The serial of the latest client.
    serial: u32,
    /// The slot that is served first in this turn.
    first: usize,
}

impl ClientSlot {
    const FREE: Self = Self {
        connected: false,
        access: Access::Denied,
        serial: 0,
        denial_logged: false,
        skipping: false,
        ended: false,
        more: false,
        asked: false,
        input: 0,
        output: 0,
        partial_since: None,
        stuck_since: None,
        active_at: Instant::BOOT,
    };

    /// Returns the bytes of input that are kept for the client.
    #[must_use]
    pub fn input(&self) -> usize {
        self.input
    }

    /// Returns the bytes of output that the client has not taken.
    #[must_use]
    pub fn output(&self) -> usize {
        self.output
    }

    /// Returns true if the client has not taken all of its output.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.output > 0
    }

    /// Returns true if the client will ask for nothing more and has taken all of its
    /// output.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.ended && !self.more && !self.is_stuck()
    }

    /// Returns true if there is something to do for the client without waiting for it.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.more || self.ended
    }

    /// Returns true if more input can be received: the kept requests come first.
    #[must_use]
    pub fn can_receive(&self) -> bool {
        !self.has_work() && self.input < CLIENT_INPUT_BYTES
    }

    /// Records that `count` bytes were received; 0 is the end of the client's input.
    pub fn received(&mut self, count: usize, now: Instant) {
        if count == 0 {
            self.ended = true;
        } else {
            (self.asked, self.active_at) = (true, now);
        }
    }

    /// Records that `length` bytes of input are kept. `more` is true if they hold whole
    /// requests, and `progress` if a request was finished before them.
    pub fn kept(&mut self, length: usize, more: bool, progress: bool, now: Instant) {
        (self.input, self.more) = (length.min(CLIENT_INPUT_BYTES), more);
        let partial = !more && (length > 0 || self.skipping);
        self.partial_since = match self.partial_since {
            _ if !partial => None,
            Some(since) if !progress => Some(since),
            _ => Some(now),
        };
    }

    /// Returns how much of `lines` is kept as output: whole lines, as many as fit.
    #[must_use]
    pub fn fitting(&self, lines: &[u8]) -> usize {
        let room = CLIENT_OUTPUT_BYTES.saturating_sub(self.output);
        whole_lines(lines.get(..room).unwrap_or(lines))
    }

    /// Records that the client was sent something while nothing was kept for it.
    pub fn sent(&mut self, now: Instant) {
        self.active_at = now;
    }

    /// Records that `count` bytes of output are kept in addition.
    pub fn queued(&mut self, count: usize, now: Instant) {
        if count > 0 {
            self.output = self.output.saturating_add(count);
            self.stuck_since.get_or_insert(now);
        }
    }

    /// Records that the client took `count` bytes of its kept output.
    pub fn flushed(&mut self, count: usize, now: Instant) {
        if count > 0 {
            self.output = self.output.saturating_sub(count);
            self.stuck_since = self.is_stuck().then_some(now);
            self.active_at = now;
        }
    }

    /// Drops the output that the client will never take.
    pub fn forget_output(&mut self) {
        (self.output, self.stuck_since) = (0, None);
    }

    /// Returns when the client is closed because of an incomplete request, or because it
    /// does not take its output.
    fn next_deadline(&self) -> Option<Instant> {
        earliest(self.partial_since, self.stuck_since).map(|since| since + CLIENT_IDLE)
    }
}

impl Clients {
    /// All zeros: no clients.
    pub const EMPTY: Self = Self { slots: [ClientSlot::FREE; CLIENTS_MAX], serial: 0, first: 0 };

    /// Returns the connected clients and their slots.
    pub fn connected(&self) -> impl Iterator<Item = (usize, &ClientSlot)> {
        self.slots.iter().enumerate().filter(|(_, client)| client.connected)
    }

    /// Returns the number of connected clients.
    #[must_use]
    pub fn count(&self) -> usize {
        self.connected().count()
    }

    /// Returns the client at `slot`, if one is connected.
    #[must_use]
    pub fn get(&self, slot: usize) -> Option<&ClientSlot> {
        self.slots.get(slot).filter(|client| client.connected)
    }

    /// Returns the client at `slot` for a change, if one is connected.
    pub fn get_mut(&mut self, slot: usize) -> Option<&mut ClientSlot> {
        self.slots.get_mut(slot).filter(|client| client.connected)
    }

    /// Adds a client and returns its slot; `None` if all slots are taken.
    pub fn add(&mut self, access: Access, now: Instant) -> Option<usize> {
        let (slot, client) = self.slots.iter_mut().enumerate().find(|(_, client)| !client.connected)?;
        self.serial = self.serial.wrapping_add(1);
        *client =
            ClientSlot { connected: true, access, serial: self.serial, active_at: now, ..ClientSlot::FREE };
        Some(slot)
    }

    /// Frees a slot.
    pub fn remove(&mut self, slot: usize) {
        self.slots.get_mut(slot).into_iter().for_each(|client| *client = ClientSlot::FREE);
    }

    /// Returns all slots, for one turn of serving them. The first one is another in each
    /// turn, so that no client is always the last.
    pub fn next_round(&mut self) -> impl Iterator<Item = usize> + use<> {
        if self.count() > 0 {
            // A write without clients would touch memory that a quiet service does not need.
            self.first = self.first.wrapping_add(1) % CLIENTS_MAX;
        }
        let first = self.first;
        (0..CLIENTS_MAX).map(move |offset| first.wrapping_add(offset) % CLIENTS_MAX)
    }

    /// Returns the client that is closed before a new one with `access` is added, if one
    /// has to be. `is_busy` returns true for a client that waits for an answer.
    #[must_use]
    pub fn eviction_candidate(
        &self,
        access: Access,
        now: Instant,
        is_busy: &dyn Fn(usize) -> bool,
    ) -> Option<usize> {
        let surplus = if access == Access::Denied { self.surplus_unauthorized(now) } else { None };
        let evictable = || self.evictable(access, now, is_busy).filter(|_| self.is_full());
        surplus.or_else(evictable)
    }

    /// Returns the client with the earliest connection among those that `is_busy` does not
    /// name, if all slots are taken.
    #[must_use]
    pub fn longest_connected(&self, is_busy: &dyn Fn(usize) -> bool) -> Option<usize> {
        let age = |(_, client): &(usize, &ClientSlot)| self.serial.wrapping_sub(client.serial);
        let oldest = self.connected().filter(|(slot, _)| !is_busy(*slot)).max_by_key(age);
        oldest.map(|(slot, _)| slot).filter(|_| self.is_full())
    }

    fn is_full(&self) -> bool {
        self.count() == CLIENTS_MAX
    }

    /// Returns the client that was idle for longest, if it has asked for nothing yet or
    /// was idle for [`CLIENT_IDLE`]. An owner can also take the slot of any other user.
    fn evictable(&self, access: Access, now: Instant, is_busy: &dyn Fn(usize) -> bool) -> Option<usize> {
        let is_idle = |(slot, client): &(usize, &ClientSlot)| {
            let long = (client.active_at + CLIENT_IDLE).is_due(now);
            let yields = client.access <= access && (!client.asked || long);
            yields && !client.is_stuck() && !client.more && !is_busy(*slot)
        };
        let is_lower = |(_, client): &(usize, &ClientSlot)| access == Access::Owner && client.access < access;
        // A client that came in this turn had no chance to ask for something.
        let is_older = |(_, client): &(usize, &ClientSlot)| client.asked || client.active_at.is_before(now);
        let oldest = |wanted: &dyn Fn(&(usize, &ClientSlot)) -> bool| {
            let wanted = self.connected().filter(|client| wanted(client));
            earliest_by(wanted, |(_, client)| client.active_at).map(|(slot, _)| slot)
        };
        oldest(&|client| is_older(client) && is_idle(client))
            .or_else(|| oldest(&|client| is_older(client) && is_lower(client)))
            // A flood fills all slots within one millisecond.
            .or_else(|| oldest(&is_lower))
    }

    /// Returns the oldest unauthorized client if there are [`UNAUTHORIZED_MAX`], so that
    /// they cannot keep other clients out.
    fn surplus_unauthorized(&self, now: Instant) -> Option<usize> {
        let unauthorized = || self.connected().filter(|(_, client)| client.access == Access::Denied);
        let count = unauthorized().count();
        let is_flood = count >= UNAUTHORIZED_MAX.saturating_add(ACCEPT_TURN);
        // A client that came in this turn can still ask, unless there is a flood.
        let can_go = unauthorized().filter(|(_, client)| client.active_at.is_before(now) || is_flood);
        let (slot, _) = earliest_by(can_go, |(_, client)| client.active_at)?;
        (count >= UNAUTHORIZED_MAX).then_some(slot)
    }

    /// Returns the earliest moment at which a client is closed because it is stuck.
    #[must_use]
    #[unsafe(link_section = ".text.idle")]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.connected().map(|(_, client)| client.next_deadline()).fold(None, earliest)
    }

    /// Returns a client that is stuck for too long, if there is one.
    #[must_use]
    #[unsafe(link_section = ".text.idle")]
    pub fn expired(&self, now: Instant) -> Option<usize> {
        let is_due = |client: &ClientSlot| client.next_deadline().is_some_and(|at| at.is_due(now));
        self.connected().find(|(_, client)| is_due(client)).map(|(slot, _)| slot)
    }
}

#[cfg(test)]
mod tests;
