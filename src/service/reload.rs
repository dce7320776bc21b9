//! What a reload is for every service: read whole or not at all, said key by key.

use super::config_source::InvalidConfig;
use super::lifecycle::Process;
use super::log::Log;
use crate::proto::config::Config;
use crate::proto::config::keys::KEYS;
use crate::util::text::Writer;

/// Bytes of one value in a message about a change.
const VALUE_BYTES: usize = 300;
/// Bytes of the reason why a configuration is refused.
pub const REASON_BYTES: usize = 400;

/// Reads the configuration into the candidate; why it cannot be used is in `out`.
///
/// # Errors
/// It cannot be used.
pub fn read(
    process: &mut Process,
    scratch: &mut [u8],
    log: &mut Log,
    out: &mut Writer<'_>,
) -> Result<(), InvalidConfig> {
    log.info(&|line| line.push_str("SIGHUP received, reloading config"));
    process.notify.reloading();
    process.config_source.load(process.candidate, scratch, out)
}

/// Says that the candidate is refused, and why.
pub fn refuse(process: &mut Process, log: &mut Log, why: &[u8]) {
    log.error(&|line| {
        line.push_str("config not reloaded, the old one stays: ");
        line.push(why);
    });
    process.notify.reloaded(false);
}

/// Logs what the candidate changes, and takes back what cannot change while a
/// service runs.
pub fn accept(process: &mut Process, log: &mut Log) {
    let Process { config: old, candidate: new, .. } = process;
    for key in KEYS {
        let (mut before, mut after) = ([0; VALUE_BYTES], [0; VALUE_BYTES]);
        let (mut old_value, mut new_value) = (Writer::new(&mut before), Writer::new(&mut after));
        key.emit(old, &mut old_value);
        key.emit(new, &mut new_value);
        if old_value.as_bytes() == new_value.as_bytes() {
            continue;
        }
        log.info(&|out| {
            out.push_str("config: ");
            out.push_str(key.name);
            out.push_str(" changed from ");
            out.push(old_value.as_bytes());
            out.push_str(" to ");
            out.push(new_value.as_bytes());
            out.push_str(if key.reloadable { "" } else { ", which needs a restart to take effect" });
        });
    }
    keep_fixed(old, new);
}

/// What needs a restart stays as it is.
fn keep_fixed(old: &Config, new: &mut Config) {
    new.pid_file.set(&old.pid_file);
    new.socket.set(&old.socket);
    new.spool.set(&old.spool);
    new.user.clone_from(&old.user);
    new.group.clone_from(&old.group);
}
