//! Compares a new configuration with the one in force. Each change is logged, and the keys
//! that need a restart keep their values.

use super::lifecycle::Process;
use super::log::Log;
use crate::proto::config::keys::KEYS;
use crate::util::text::Writer;

/// Bytes of one value in the line about a change. A longer value is cut.
const VALUE_BYTES: usize = 300;
/// Logs each key that the candidate changes, and undoes the changes of keys that need a
/// restart.
pub fn log_changes(process: &mut Process, log: &mut Log) {
    let Process { config: old, candidate: new, .. } = process;
    for key in KEYS {
        let (mut before, mut after) = ([0; VALUE_BYTES], [0; VALUE_BYTES]);
        let (mut old_value, mut new_value) = (Writer::new(&mut before), Writer::new(&mut after));
        key.emit(&mut **old, &mut old_value);
        key.emit(&mut **new, &mut new_value);
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
    new.keep_fixed(old);
}
