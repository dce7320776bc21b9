//! Who comes to the control socket, who is turned away, and who goes.

use super::Jobs;
use super::control::{Doing, Owed};
use super::errands::Errand;
use crate::limits::{ACCEPT_TURN, CLIENTS_MAX};
use crate::service::clients::Client;
use crate::service::listener::{Access, Rank};
use crate::sys::Failure;
use crate::sys::socket;
use crate::util::time::Instant;

impl Jobs {
    /// Accepts new clients; last in the turn.
    #[inline(never)]
    pub(super) fn accept_clients(&mut self, now: Instant) {
        for _ in 0..ACCEPT_TURN {
            let Some((connection, peer)) = self.control.listener.accept(now) else { return };
            let rank = self.control.listener.access.rank(&connection, peer);
            let busy = |place| self.control.doing(place) != Doing::Nothing;
            if let Some(place) = self.control.clients.crowded_out(rank, now, &busy) {
                self.drop_client(place);
            }
            if let Err(connection) = self.control.clients.add(connection, peer, rank, now) {
                let _ = socket::send(&connection, b"err busy 16 clients are connected; try again\n");
                socket::close(connection, self.scratch);
            }
        }
    }

    /// Others may use the socket from now on; who may nothing any more goes.
    ///
    /// # Errors
    /// The socket cannot be made anew with its new mode and group.
    pub(super) fn set_access(&mut self, access: Access, now: Instant) -> Result<(), Failure> {
        let anew = self.control.listener.set_access(access);
        let hidden = if anew { self.control.listener.hide() } else { Ok(()) };
        if anew && hidden.is_ok() {
            // Nobody who has connected already is to be turned away.
            for _ in 0..CLIENTS_MAX {
                self.accept_clients(now);
            }
            self.control.listener.check();
        }
        for place in 0..CLIENTS_MAX {
            let rank = self.control.clients.rank_again(place, &self.control.listener.access);
            if rank == Some(Rank::Nobody) {
                self.drop_client(place);
            }
        }
        hidden
    }

    pub(super) fn close_if_finished(&mut self, place: usize) {
        let finished = self.control.clients.get(place).is_some_and(Client::is_finished);
        if finished && self.control.can_ask(place) {
            self.drop_client(place);
        }
    }

    /// The client goes, with everything that it waited for. What it asked for
    /// and was begun is finished.
    pub(super) fn drop_client(&mut self, place: usize) {
        self.control.set_doing(place, Doing::Nothing);
        self.control.owe(place, Owed::Nothing);
        if self.control.errand.as_ref().is_some_and(|errand| errand.place == place) {
            self.control.errand = self.control.errand.take().and_then(Errand::orphan);
        }
        self.control.clients.close(place, self.scratch);
    }

    /// The end of the service: who still waits is told, and all are closed.
    pub(super) fn dismiss_clients(&mut self, now: Instant) {
        for place in 0..CLIENTS_MAX {
            let answer: &[u8] = match self.control.doing(place) {
                Doing::Nothing | Doing::Watching => b"",
                Doing::Draining if self.control.drained => b"ok drained\n",
                Doing::Asked(_) | Doing::Waiting(_) | Doing::Draining => b"err stopping the service stops\n",
            };
            if !answer.is_empty() {
                let _ = self.control.clients.send(place, answer, now);
            }
            self.drop_client(place);
        }
        let _ = self.control.listener.hide();
    }

    /// Counts a denial, and logs it unless there are too many.
    pub(super) fn note_denied(&mut self, place: usize, verb: &[u8], now: Instant) {
        let client = self.control.clients.get_mut(place);
        self.control.denials.note(client, "control", verb, now, &mut self.log);
    }
}
