//! SIGHUP: the configuration anew, whole or not at all.

use super::{Jobs, describe_unknown};
use crate::proto::config::keys::KEYS;
use crate::proto::text::Writer;
use crate::service::lifecycle::{Process, describe_at};
use crate::service::listener::Access;
use crate::service::settings::Unusable;
use crate::state::window::State;

/// Bytes of one value in a message about a change.
const VALUE_BYTES: usize = 300;

impl Jobs {
    /// Reads the configuration again. A bad one changes nothing.
    pub(super) fn reload(&mut self, now: u64) {
        self.log.info(&|out| out.push_str("SIGHUP received, reloading config"));
        let mut reason = [0; 400];
        let mut out = Writer::new(&mut reason);
        let Process { settings, candidate, .. } = &mut self.process;
        match settings.load(candidate, self.scratch, &mut out) {
            Ok(()) => match Access::resolve(candidate) {
                Ok(access) => {
                    self.counts.reloads = self.counts.reloads.saturating_add(1);
                    self.adopt(access, now);
                }
                Err(name) => {
                    describe_unknown(name, &mut out);
                    self.refuse_config(out.as_bytes());
                }
            },
            Err(Unusable) => self.refuse_config(out.as_bytes()),
        }
    }

    fn refuse_config(&mut self, why: &[u8]) {
        self.counts.reload_errors = self.counts.reload_errors.saturating_add(1);
        self.log.error(&|line| {
            line.push_str("config not reloaded, the old one stays: ");
            line.push(why);
        });
    }

    /// Takes over a good configuration and logs what changed.
    fn adopt(&mut self, access: Access, now: u64) {
        let Process { config: old, candidate: new, foreground, .. } = &mut self.process;
        for key in KEYS {
            let (mut before, mut after) = ([0; VALUE_BYTES], [0; VALUE_BYTES]);
            let (mut old_value, mut new_value) = (Writer::new(&mut before), Writer::new(&mut after));
            key.emit(old, &mut old_value);
            key.emit(new, &mut new_value);
            if old_value.as_bytes() == new_value.as_bytes() {
                continue;
            }
            self.log.info(&|out| {
                out.push_str("config: ");
                out.push_str(key.name);
                out.push_str(" changed from ");
                out.push(old_value.as_bytes());
                out.push_str(" to ");
                out.push(new_value.as_bytes());
                out.push_str(if key.reloadable { "" } else { ", which needs a restart to take effect" });
            });
        }
        new.pid_file.set(&old.pid_file);
        new.socket.set(&old.socket);
        new.spool.set(&old.spool);
        new.user.clone_from(&old.user);
        new.group.clone_from(&old.group);
        self.log.configure(new, &new.log_file, *foreground);
        self.heartbeat.move_to(&new.health_file);
        if new.queue_file != old.queue_file {
            self.spool.claims.leave_queue();
        }
        core::mem::swap(old, new);
        self.warn_about_handler();
        if let Err(failure) = self.set_access(access, now) {
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
        self.spool.window().count(|state| matches!(state, State::Running | State::Cancelled))
    }
}
