//! /dev/log: a datagram socket that may not be there at boot and goes away when syslogd
//! restarts (syslog(3), RFC 3164).

use super::Errno;
use super::datagram::Sender;
use crate::util::time::{Duration, Instant};

/// The socket on which syslogd listens.
const DEV_LOG: &[u8] = b"/dev/log";
/// The pause after a datagram that reached no syslogd.
const RETRY: Duration = Duration::from_ms(1000);

/// A sender to syslogd that pauses while there is none.
pub struct Syslog {
    sender: Option<Sender>,
    /// Nothing is sent before this time.
    retry_at: Instant,
}

impl Default for Syslog {
    fn default() -> Self {
        Self { sender: Sender::to(DEV_LOG), retry_at: Instant::BOOT }
    }
}

impl Syslog {
    /// Sends one datagram without blocking. A datagram that syslogd does not take is lost.
    pub fn send(&mut self, datagram: &[u8], now: Instant) {
        if let Some(sender) = self.sender.as_mut().filter(|_| self.retry_at.is_due(now))
            && let Err(errno) = sender.send(datagram)
            && !matches!(errno, Errno::AGAIN | Errno::NOBUFS | Errno::MSGSIZE)
        {
            self.retry_at = now + RETRY;
        }
    }
}
