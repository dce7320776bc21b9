//! SIGHUP: the part of a new configuration that only `jobs` has.

use super::Jobs;
use crate::service::connections;
use crate::state::window::JobState;
use crate::util::time::Instant;

impl Jobs {
    /// Reads the configuration again. A bad one changes nothing.
    pub(super) fn reload(&mut self, now: Instant) {
        if !self.base.reload() {
            return;
        }
        let (old, new) = (&self.base.process.candidate, &self.base.process.config);
        if new.queue_file != old.queue_file {
            self.spool.claims.leave_queue();
        }
        self.warn_about_handler();
        // A client that has connected already is not turned away when the socket is made again.
        connections::accept_all(self, now);
        self.update_access();
        self.base.finish_reload();
    }

    /// Turns to a new queue file when nothing of the old one is open.
    pub(super) fn switch_queue_file(&mut self) {
        if *self.disk.queue() != self.base.process.config.queue_file
            && !self.disk.has_claims()
            && self.spool.claims.has_left_queue()
        {
            let queue = self.base.process.config.queue_file.clone();
            self.disk.set_queue(&queue);
            self.spool.claims.enter_queue();
        }
    }

    /// Returns the number of jobs whose handler runs.
    pub(super) fn running(&self) -> u32 {
        self.spool.window().count(|state| matches!(state, JobState::Running | JobState::Cancelled))
    }
}
