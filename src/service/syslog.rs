//! Sends lines to syslog: those of the log, and the reason why a service in the foreground does
//! not start.

use crate::limits::SYSLOG_MAX_BYTES;
use crate::proto::log::{Level, emit_syslog};
use crate::sys::syslog::Syslog;
use crate::sys::{clock, process};

/// Sends one line without its end. Lines that are lost on this way are not counted, because syslog
/// is an addition to the log.
pub(super) fn send_line(syslog: &mut Syslog, level: Level, text: &[u8]) {
    let mut buffer = [0; SYSLOG_MAX_BYTES];
    let pid = u32::try_from(process::pid().as_raw_pid()).unwrap_or(0);
    let datagram = emit_syslog(&mut buffer, level, pid, text);
    syslog.send(datagram.as_bytes(), clock::now());
}
