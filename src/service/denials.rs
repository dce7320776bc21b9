//! Counts and logs the requests of unauthorized clients. All are counted, and each connection
//! is logged at most once. The number of lines is limited, so that such clients cannot fill
//! the log.

use super::connections::Connections;
use super::log::Log;
use crate::limits::DENIALS_LOGGED_MAX;
use crate::state::rate_limit::RateLimit;
use crate::util::time::Instant;
use ufmt::uwrite;

/// The denials of a service.
#[derive(Default)]
pub struct Denials {
    /// The number of denied requests since the start.
    pub count: u64,
    rate_limit: RateLimit,
}

impl Denials {
    /// Counts a denied request. Logs `SOCKET: denied to uid N (pid N): WHAT` if it is the
    /// first one of its connection and the limit of lines is not reached.
    #[inline(never)]
    pub fn record(
        &mut self,
        connections: &mut Connections,
        slot: usize,
        socket: &str,
        request: &[u8],
        now: Instant,
        log: &mut Log,
    ) {
        self.count = self.count.saturating_add(1);
        let peer = connections.peer(slot);
        let Some(client) = connections.clients.get_mut(slot) else { return };
        let logged = core::mem::replace(&mut client.denial_logged, true);
        if logged || !self.rate_limit.take(now, DENIALS_LOGGED_MAX) {
            return;
        }
        log.warn(&|out| {
            let _ = uwrite!(out, "{}: denied to uid {} (pid {}): ", socket, peer.uid, peer.pid);
            out.push_escaped(request);
        });
    }
}
