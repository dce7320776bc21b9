//! Who comes to the control socket, who is turned away, and who goes.

use super::Jobs;
use super::control::{ClientState, PendingReply};
use super::scan::ScanTask;
use crate::limits::{ACCEPT_TURN, CLIENTS_MAX};
use crate::service::connections::Connection;
use crate::service::listener::{Access, AccessPolicy};
use crate::sys::Failure;
use crate::sys::socket;
use crate::util::time::Instant;

impl Jobs {
    /// Accepts new clients; last in the turn.
    #[inline(never)]
    pub(super) fn accept_clients(&mut self, now: Instant) {
        for _ in 0..ACCEPT_TURN {
            let Some((connection, peer)) = self.control.listener.accept(now) else { return };
            let access = self.control.listener.policy.access_of(&connection, peer);
            let busy = |client_slot| self.control.client_state(client_slot) != ClientState::Idle;
            if let Some(client_slot) = self.control.clients.eviction_candidate(access, now, &busy) {
                self.drop_client(client_slot);
            }
            if let Err(connection) = self.control.clients.add(connection, peer, access, now) {
                let _ = socket::send(&connection, b"err busy 16 clients are connected; try again\n");
                socket::close(connection, self.scratch);
            }
        }
    }

    /// Others may use the socket from now on; who may nothing any more goes.
    ///
    /// # Errors
    /// The socket cannot be made anew with its new mode and group.
    pub(super) fn set_policy(&mut self, policy: AccessPolicy, now: Instant) -> Result<(), Failure> {
        let anew = self.control.listener.set_policy(policy);
        let unlinked = if anew { self.control.listener.unlink() } else { Ok(()) };
        if anew && unlinked.is_ok() {
            // Nobody who has connected already is to be turned away.
            for _ in 0..CLIENTS_MAX {
                self.accept_clients(now);
            }
            self.control.listener.check();
        }
        for client_slot in 0..CLIENTS_MAX {
            let access = self.control.clients.update_access(client_slot, &self.control.listener.policy);
            if access == Some(Access::Denied) {
                self.drop_client(client_slot);
            }
        }
        unlinked
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
        self.control.clients.close(client_slot, self.scratch);
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
        let _ = self.control.listener.unlink();
    }

    /// Counts a denial, and logs it unless there are too many.
    pub(super) fn record_denied(&mut self, client_slot: usize, verb: &[u8], now: Instant) {
        let client = self.control.clients.get_mut(client_slot);
        self.control.denials.record(client, "control", verb, now, &mut self.log);
    }
}
