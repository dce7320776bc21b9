//! Those who may not: all are counted, each connection is logged once, and who may
//! nothing must not be able to fill the log.

use super::connections::Connection;
use super::log::Log;
use crate::limits::DENIALS_LOGGED_MAX;
use crate::state::rate_limit::RateLimit;
use crate::util::time::Instant;
use ufmt::uwrite;

/// See the module's documentation.
#[derive(Default)]
pub struct Denials {
    /// All of them.
    pub count: u64,
    rate_limit: RateLimit,
}

impl Denials {
    /// Counts one, and logs it unless there are too many:
    /// `SOCKET: denied to uid N (pid N): WHAT`.
    #[inline(never)]
    pub fn record(
        &mut self,
        client: Option<&mut Connection>,
        socket: &str,
        what: &[u8],
        now: Instant,
        log: &mut Log,
    ) {
        self.count = self.count.saturating_add(1);
        let Some(client) = client else { return };
        if core::mem::replace(&mut client.denied, true) {
            return;
        }
        if !self.rate_limit.take(now, DENIALS_LOGGED_MAX) {
            return;
        }
        let peer = client.peer;
        log.warn(&|out| {
            let _ = uwrite!(out, "{}: denied to uid {} (pid {}): ", socket, peer.uid, peer.pid);
            out.push_escaped(what);
        });
    }
}
