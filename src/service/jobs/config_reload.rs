//! SIGHUP: the configuration anew, whole or not at all.

use super::Jobs;
use crate::proto::service::Service;
use crate::service::config_source::InvalidConfig;
use crate::service::lifecycle::{Process, describe_at};
use crate::service::listener::{describe_unknown, find_policy};
use crate::service::reload::{self, REASON_BYTES};
use crate::state::access::AccessPolicy;
use crate::state::window::JobState;
use crate::util::text::Writer;
use crate::util::time::Instant;

impl Jobs {
    /// Reads the configuration again. A bad one changes nothing.
    pub(super) fn reload(&mut self, now: Instant) {
        let mut reason = [0; REASON_BYTES];
        let mut out = Writer::new(&mut reason);
        let policy = match reload::read(&mut self.process, self.scratch, &mut self.log, &mut out) {
            Ok(()) => {
                let policy = find_policy(Service::Jobs, self.process.candidate);
                policy.map_err(|name| describe_unknown(name, &mut out))
            }
            Err(InvalidConfig) => Err(()),
        };
        match policy {
            Ok(policy) => {
                self.counts.reloads = self.counts.reloads.saturating_add(1);
                self.adopt(policy, now);
                self.process.notify.reloaded(true);
            }
            Err(()) => {
                self.counts.reload_errors = self.counts.reload_errors.saturating_add(1);
                reload::refuse(&mut self.process, &mut self.log, out.as_bytes());
            }
        }
    }

    /// Takes over a good configuration and logs what changed.
    fn adopt(&mut self, policy: AccessPolicy, now: Instant) {
        reload::accept(&mut self.process, &mut self.log);
        let Process { config: old, candidate: new, foreground, .. } = &mut self.process;
        self.log.configure(new, &new.log_file, *foreground);
        self.heartbeat.move_to(&new.health_file);
        if new.queue_file != old.queue_file {
            self.spool.claims.leave_queue();
        }
        core::mem::swap(old, new);
        self.warn_about_handler();
        if let Err(failure) = self.set_policy(policy, now) {
            let config = &self.process.config;
            self.log.warn(&|out| describe_at(&config.socket, failure, out));
        }
    }

    /// Turns to a new queue file when nothing of the old one is open.
    pub(super) fn switch_queue_file(&mut self) {
        if *self.disk.queue() != self.process.config.queue_file
            && !self.disk.has_claims()
            && self.spool.claims.has_left_queue()
        {
            let queue = self.process.config.queue_file.clone();
            self.disk.set_queue(&queue);
            self.spool.claims.enter_queue();
        }
    }

    /// Jobs whose handler runs.
    pub(super) fn running(&self) -> u32 {
        self.spool.window().count(|state| matches!(state, JobState::Running | JobState::Cancelled))
    }
}
