//! The degraded states that every service can have: said once when they begin,
//! once when they end, and named in its status.

use super::heartbeat::Heartbeat;
use super::lifecycle::describe_at;
use super::log::Log;
use crate::util::text::Writer;

/// Which of them were said.
#[derive(Default)]
pub struct Degraded {
    /// The log cannot be written.
    pub log: bool,
    /// The health file cannot be written.
    pub health: bool,
}

impl Degraded {
    /// Says what has changed since the last look.
    #[inline(never)]
    pub fn watch(&mut self, heartbeat: &Heartbeat, log: &mut Log) {
        let failure = heartbeat.failure();
        if failure.is_some() != self.health {
            self.health = failure.is_some();
            match failure {
                Some(failure) => log.error(&|out| {
                    out.push_str("the health file cannot be written: ");
                    describe_at(heartbeat.path(), failure, out);
                }),
                None => log.info(&|out| out.push_str("the health file is written again")),
            }
        }
        let failing = log.failure().is_some();
        if failing != self.log {
            self.log = failing;
            if !failing {
                log.info(&|out| out.push_str("the log is written again"));
            }
        }
    }
}

/// The names of the states that are, with commas between them, or `none`.
pub fn push_names(states: &[(bool, &str)], out: &mut Writer<'_>) {
    let mut first = true;
    for (_, name) in states.iter().filter(|(failing, _)| *failing) {
        out.push_str(if first { "" } else { "," });
        out.push_str(name);
        first = false;
    }
    out.push_str(if first { "none" } else { "" });
}
