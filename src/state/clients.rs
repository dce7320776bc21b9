//! Decisions about the clients of a socket. The slot of a client is an
//! index that stays the same while the client is connected.
//!
//! The connections and their buffers belong to `service/connections.rs`, which reports
//! here what it received, kept and sent, and asks which client is next, which one has
//! waited too long, and which one has to go for a new one.

use super::access::Access;
use crate::limits::{CLIENT_IDLE, CLIENT_INPUT_BYTES, CLIENT_OUTPUT_BYTES, CLIENTS_MAX, GUEST_CLIENTS_MAX};
use crate::util::lines::whole_lines;
use crate::util::time::{Instant, earliest, earliest_by};

/// Maximum number of unauthorized clients connected at the same time. Each waits only for its
/// error reply.
const UNAUTHORIZED_MAX: usize = 2;
/// Slots that only root and the service's own user can take, so that guests never keep them out.
const OWNER_SLOTS: usize = 2;
/// Slots that only root can take.
const ROOT_SLOTS: usize = 1;
/// Maximum number of connections that one turn accepts.
pub const ACCEPT_TURN: usize = 4;

/// The use of a client's input while the client waits for an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// The client waits for nothing, and its requests are handled.
    Requests,
    /// The input is kept until the answer, up to one buffer.
    Keep,
    /// The input is dropped, because nothing follows the answer.
    Drop,
    /// The input is not received.
    Nothing,
}

/// The decision about a new client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// There is a slot for it.
    Free,
    /// The client at this slot is closed for it.
    Evict(usize),
    /// There is no slot for it.
    Full,
}

/// The clients of which one has to go for a new one.
struct EvictionScope {
    /// The user of the new client has all slots that it may have.
    uid: Option<u32>,
    /// Guests have all slots that they may have.
    guests: bool,
    /// Users other than root have all slots that they may have.
    others: bool,
}

/// One slot. All zeros if the slot is free.
#[derive(Clone, Copy, Debug)]
pub struct ClientSlot {
    connected: bool,
    /// The rights of the client.
    pub access: Access,
    /// The user of the client.
    uid: u32,
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
        uid: 0,
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

    /// Records that `count` bytes were received after a request whose answer is not there yet,
    /// and that they are kept if `keeps`; 0 is the end of the client's input.
    pub fn absorbed(&mut self, count: usize, keeps: bool) {
        self.ended |= count == 0;
        if keeps && count > 0 {
            // They are handled after the answer.
            self.input = self.input.saturating_add(count).min(CLIENT_INPUT_BYTES);
            self.more = true;
        }
    }

    /// Returns true if no more input is received until the answer.
    fn is_input_full(&self) -> bool {
        self.input >= CLIENT_INPUT_BYTES
    }

    /// Returns true if input can be received before the answer.
    #[must_use]
    pub fn can_absorb(&self, reading: Reading) -> bool {
        let room = match reading {
            Reading::Keep => !self.is_input_full(),
            Reading::Drop => true,
            Reading::Requests | Reading::Nothing => false,
        };
        room && !self.ended && !self.is_stuck()
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

impl EvictionScope {
    fn contains(&self, client: &ClientSlot) -> bool {
        let is_guest = client.access < Access::Owner;
        self.uid.is_none_or(|uid| is_guest && client.uid == uid)
            && (is_guest || !self.guests)
            && (client.uid != 0 || !self.others)
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
    pub fn add(&mut self, access: Access, uid: u32, now: Instant) -> Option<usize> {
        let (slot, client) = self.slots.iter_mut().enumerate().find(|(_, client)| !client.connected)?;
        self.serial = self.serial.wrapping_add(1);
        *client = ClientSlot {
            connected: true,
            access,
            uid,
            serial: self.serial,
            active_at: now,
            ..ClientSlot::FREE
        };
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

    /// Decides about a new client of the user `uid`. `is_busy` returns true for a client that
    /// waits for an answer.
    #[must_use]
    pub fn admission(
        &self,
        access: Access,
        uid: u32,
        now: Instant,
        is_busy: &dyn Fn(usize) -> bool,
    ) -> Admission {
        let surplus = if access == Access::Denied { self.surplus_unauthorized(now) } else { None };
        if let Some(slot) = surplus {
            return Admission::Evict(slot);
        }
        let Some(scope) = self.eviction_scope(access, uid) else { return Admission::Free };
        self.evictable(access, now, is_busy, &scope).map_or(Admission::Full, Admission::Evict)
    }

    /// Decides about a new client where no user has more rights than another one.
    #[must_use]
    pub fn unranked_admission(&self) -> Admission {
        if self.is_full() { Admission::Full } else { Admission::Free }
    }

    /// Returns the clients of which one has to go for a new one, or `None` if there is a slot.
    fn eviction_scope(&self, access: Access, uid: u32) -> Option<EvictionScope> {
        let count = |wanted: &dyn Fn(&ClientSlot) -> bool| {
            self.connected().filter(|(_, client)| wanted(client)).count()
        };
        let is_guest = access < Access::Owner;
        let of_uid = |client: &ClientSlot| client.uid == uid && client.access < Access::Owner;
        let guests = count(&|client| client.access < Access::Owner);
        let scope = EvictionScope {
            uid: Some(uid).filter(|_| is_guest && count(&of_uid) >= GUEST_CLIENTS_MAX),
            guests: is_guest && guests >= CLIENTS_MAX.saturating_sub(OWNER_SLOTS),
            others: uid != 0 && count(&|client| client.uid != 0) >= CLIENTS_MAX.saturating_sub(ROOT_SLOTS),
        };
        let limited = scope.uid.is_some() || scope.guests || scope.others;
        (limited || self.is_full()).then_some(scope)
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

    /// Returns the client of `scope` that goes first: one that waits and has sent more than is
    /// kept for it, then the one that was idle for longest, if it has asked for nothing yet or
    /// was idle for [`CLIENT_IDLE`]. An owner can also take the slot of any other user.
    fn evictable(
        &self,
        access: Access,
        now: Instant,
        is_busy: &dyn Fn(usize) -> bool,
        scope: &EvictionScope,
    ) -> Option<usize> {
        let is_idle = |(slot, client): &(usize, &ClientSlot)| {
            let long = (client.active_at + CLIENT_IDLE).is_due(now);
            let yields = client.access <= access && (!client.asked || long);
            yields && !client.is_stuck() && !client.more && !is_busy(*slot)
        };
        let is_lower = |(_, client): &(usize, &ClientSlot)| access == Access::Owner && client.access < access;
        // A client that came in this turn had no chance to ask for something.
        let is_older = |(_, client): &(usize, &ClientSlot)| client.asked || client.active_at.is_before(now);
        let oldest = |wanted: &dyn Fn(&(usize, &ClientSlot)) -> bool| {
            let wanted = self.connected().filter(|client| scope.contains(client.1) && wanted(client));
            earliest_by(wanted, |(_, client)| client.active_at).map(|(slot, _)| slot)
        };
        let waits_full = |(slot, client): &(usize, &ClientSlot)| {
            client.access <= access && client.is_input_full() && is_busy(*slot)
        };
        oldest(&waits_full)
            .or_else(|| oldest(&|client| is_older(client) && is_idle(client)))
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
