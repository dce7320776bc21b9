//! The control socket: its clients, what they wait for, and the scan under way. The
//! requests are in `requests.rs`, and the turn of the clients is in `serving.rs`.

use crate::service::connections::Connections;
use crate::service::denials::Denials;
use crate::state::clients::{ClientSlot, Reading};
use crate::state::jobs::replies::Replies;
use crate::state::jobs::scan_task::{ListMemory, Scans};
use crate::util::time::Instant;

/// See the module's documentation.
pub(super) struct ControlServer {
    pub(super) connections: &'static mut Connections,
    pub(super) replies: Replies,
    pub(super) scans: Scans,
    pub(super) denials: Denials,
    /// No new jobs are accepted.
    pub(super) draining: bool,
    /// The drain has ended.
    pub(super) drained: bool,
    /// The service starts again after its stop, because a job asked for that.
    pub(super) restarts: bool,
}

impl ControlServer {
    pub(super) fn new(connections: &'static mut Connections, list: &'static mut ListMemory) -> Self {
        let (replies, scans, denials) = (Replies::EMPTY, Scans::new(list), Denials::default());
        Self { connections, replies, scans, denials, draining: false, drained: false, restarts: false }
    }

    /// Returns the use of a client's input.
    pub(super) fn reading(&self, slot: usize) -> Reading {
        let stuck = self.connections.clients.get(slot).is_none_or(ClientSlot::is_stuck);
        if stuck { Reading::Nothing } else { self.replies.reading(slot) }
    }

    /// Returns true if the next request of a client can be handled.
    fn can_read(&self, slot: usize) -> bool {
        self.reading(slot) == Reading::Requests
    }

    /// Returns when something is due: `now` if a client has work for the service.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let clients = &self.connections.clients;
        let has_work = clients.connected().any(|(slot, client)| client.more && self.can_read(slot));
        if has_work { Some(now) } else { clients.next_deadline() }
    }

    /// Drops everything that a client waited for, and closes its connection.
    pub(super) fn close(&mut self, slot: usize) {
        self.replies.clear(slot);
        self.scans.drop_client(slot);
        self.connections.close(slot);
    }
}
