//! SIGHUP: the part of a new configuration that only `jobs` has.

use super::{Jobs, describe_others, rules};
use crate::service::connections;
use crate::state::window::JobState;
use crate::util::time::Instant;

/// Steps of the scan for jobs of another handler at a reload, so that a long backlog does not stop
/// the heartbeat. Jobs of another handler that the scan does not reach are held one by one.
const RELOAD_STEPS: usize = 64;

impl Jobs {
    /// Reads the configuration again. A bad one changes nothing.
    pub(super) fn reload(&mut self, now: Instant) {
        let Self { base, core, disk, .. } = self;
        let accepted = base.reload_if(&mut |config, scratch, out| {
            let takes = !config.logs_own_jobs() || core.spool.waiting() == 0;
            let others =
                if takes { 0 } else { core.spool.count_others(disk, scratch, RELOAD_STEPS).unwrap_or(0) };
            if others > 0 {
                describe_others(others, out);
            }
            others == 0
        });
        if !accepted {
            return;
        }
        let (old, new) = (&self.base.process.candidate, &self.base.process.config);
        if new.queue_file != old.queue_file {
            self.core.spool.claims.leave_queue();
        }
        self.core.set_rules(rules(new));
        self.core.handler_changed();
        self.check_queue_folder();
        self.core.spool.claims.retry_now();
        self.warn_about_handler();
        // A client that has connected already is not turned away when the socket is made again.
        connections::accept_all(self, now);
        self.update_access();
        self.base.finish_reload();
    }

    /// Turns to the folder that the path of the queue file leads to, if that is another one than
    /// the open folder.
    #[allow(unsafe_code, reason = "names a section")]
    #[unsafe(link_section = ".text.idle")]
    pub(super) fn check_queue_folder(&mut self) {
        if !self.disk.queue.check() {
            self.core.spool.claims.folder_changed();
        }
    }

    /// Returns the number of jobs whose handler runs.
    pub(super) fn running(&self) -> u32 {
        self.core.spool.window().count(|state| matches!(state, JobState::Running | JobState::Cancelled))
    }
}
