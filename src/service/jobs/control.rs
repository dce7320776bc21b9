//! The control socket: its clients, and what they wait for. The requests are in
//! `requests.rs`, the turn of the clients is in `serving.rs`.

use super::history::History;
use super::scan::{ListPage, ScanTask};
use crate::service::connections::Connections;
use crate::service::denials::Denials;
use crate::state::disk::DiskError;
use crate::state::jobs::replies::Replies;
use crate::state::spool::Savepoint;
use crate::util::time::Instant;

/// See the module's documentation.
pub(super) struct ControlServer {
    pub(super) connections: &'static mut Connections,
    pub(super) replies: Replies,
    pub(super) history: &'static mut History,
    /// The lines of a `list` that is being sent.
    pub(super) page: &'static mut ListPage,
    /// What takes more than one turn, one at a time.
    pub(super) scan: Option<ScanTask>,
    /// Whose was the last one.
    pub(super) last_scan_slot: usize,
    /// New jobs of this turn.
    pub(super) batch: Option<Savepoint>,
    /// They cannot be made durable.
    pub(super) batch_error: Option<DiskError>,
    pub(super) denials: Denials,
    /// No new jobs are accepted.
    pub(super) draining: bool,
    /// The drain has ended.
    pub(super) drained: bool,
}

impl ControlServer {
    pub(super) fn new(
        connections: &'static mut Connections,
        history: &'static mut History,
        page: &'static mut ListPage,
    ) -> Self {
        Self {
            connections,
            replies: Replies::EMPTY,
            history,
            page,
            scan: None,
            last_scan_slot: 0,
            batch: None,
            batch_error: None,
            denials: Denials::default(),
            draining: false,
            drained: false,
        }
    }

    /// Returns true if there are new jobs that are not committed: no other record may be
    /// appended after them.
    pub(super) fn has_batch(&self) -> bool {
        self.batch.is_some()
    }

    /// Returns true if the next request of a client can be handled.
    pub(super) fn can_read(&self, slot: usize) -> bool {
        let client = self.connections.clients.get(slot);
        self.replies.is_idle(slot) && client.is_some_and(|client| !client.is_stuck())
    }

    /// Returns when something is due: `now` if a client has work for the service.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let clients = &self.connections.clients;
        let has_work = clients.connected().any(|(slot, client)| client.more && self.can_read(slot));
        if has_work { Some(now) } else { clients.next_deadline() }
    }

    /// Drops everything that a client waited for, and closes its connection. A scan that
    /// cannot be stopped is finished.
    pub(super) fn close(&mut self, slot: usize) {
        self.replies.clear(slot);
        if self.scan.as_ref().is_some_and(|scan| scan.client_slot == slot) {
            self.scan = self.scan.take().and_then(ScanTask::detach);
        }
        self.connections.close(slot);
    }
}
