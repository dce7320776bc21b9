//! Who comes to the control socket, who is turned away, and who goes.

use super::Jobs;
use super::control::{ClientState, PendingReply};
use super::scan::ScanTask;
use crate::limits::{ACCEPT_TURN, CLIENTS_MAX};
use crate::service::connections::Connection;
use crate::service::listener::Access;
use crate::sys::socket;
use crate::util::text::text_with_number;
use crate::util::time::Instant;

/// The reply to a client that finds no free slot.
const BUSY: &[u8] =
    text_with_number!("err busy ", CLIENTS_MAX, " clients are connected; try again\n").as_bytes();

impl Jobs {
    /// Accepts new clients; last in the turn.
    #[inline(never)]
    pub(super) fn accept_clients(&mut self, now: Instant) {
        for _ in 0..ACCEPT_TURN {
            let Some((connection, peer)) = self.base.listener.accept(now) else { return };
            let access = self.base.listener.policy.access_of(&connection, peer);
            let busy = |client_slot| self.control.client_state(client_slot) != ClientState::Idle;
            if let Some(client_slot) = self.control.clients.eviction_candidate(access, now, &busy) {
                self.drop_client(client_slot);
            }
            if let Err(connection) = self.control.clients.add(connection, peer, access, now) {
                let _ = socket::send(&connection, BUSY);
                socket::close(connection, self.base.scratch);
            }
        }
    }

    /// Applies the access policy of a new configuration: clients that are denied now are closed.
    pub(super) fn update_access(&mut self) {
        for client_slot in 0..CLIENTS_MAX {
            let access = self.control.clients.update_access(client_slot, &self.base.listener.policy);
            if access == Some(Access::Denied) {
                self.drop_client(client_slot);
            }
        }
    }

    pub(super) fn close_if_finished(&mut self, client_slot: usize) {
        let finished = self.control.clients.get(client_slot).is_some_and(Connection::is_finished);
        if finished && self.control.can_ask(client_slot) {
            self.drop_client(client_slot);
        }
    }

    /// The client goes, with everything that it waited for. What it asked for
    /// and was begun is finished.
    pub(super) fn drop_client(&mut self, client_slot: usize) {
        self.control.set_client_state(client_slot, ClientState::Idle);
        self.control.defer_reply(client_slot, PendingReply::None);
        if self.control.scan.as_ref().is_some_and(|scan| scan.client_slot == client_slot) {
            self.control.scan = self.control.scan.take().and_then(ScanTask::detach);
        }
        self.control.clients.close(client_slot, self.base.scratch);
    }

    /// The end of the service: who still waits is told, and all are closed.
    pub(super) fn dismiss_clients(&mut self, now: Instant) {
        for client_slot in 0..CLIENTS_MAX {
            let answer: &[u8] = match self.control.client_state(client_slot) {
                ClientState::Idle | ClientState::Watching => b"",
                ClientState::Draining if self.control.drained => b"ok drained\n",
                ClientState::ScanPending(_) | ClientState::AwaitingJob(_) | ClientState::Draining => {
                    b"err stopping the service stops\n"
                }
            };
            if !answer.is_empty() {
                let _ = self.control.clients.send(client_slot, answer, now);
            }
            self.drop_client(client_slot);
        }
    }

    /// Counts a denial, and logs it unless there are too many.
    pub(super) fn record_denied(&mut self, client_slot: usize, verb: &[u8], now: Instant) {
        let client = self.control.clients.get_mut(client_slot);
        self.control.denials.record(client, "control", verb, now, &mut self.base.log);
    }
}
