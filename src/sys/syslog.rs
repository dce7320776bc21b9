//! /dev/log: a datagram socket that may not be there at boot and goes away
//! when syslogd restarts (syslog(3), RFC 3164).

use super::{Errno, OwnedFd};
use crate::util::time::{Duration, Instant};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

/// Where syslogd listens.
const DEV_LOG: &core::ffi::CStr = c"/dev/log";

/// A connection that is made when first needed, and again after it broke.
#[derive(Default)]
pub struct Syslog {
    socket: Option<OwnedFd>,
    /// When the next attempt to connect is due, in [`super::clock::now`] time.
    retry_at: Instant,
}

/// How long a failed connection is left alone.
const RETRY: Duration = Duration::from_ms(1000);

impl Syslog {
    /// Sends one datagram without ever blocking. False: it was lost.
    pub fn send(&mut self, datagram: &[u8], now: Instant) -> bool {
        // A syslogd that restarted refuses the old connection: try a new one
        // at once, but only one.
        for _ in 0..2 {
            if self.socket.is_none() {
                if !self.retry_at.is_due(now) {
                    return false;
                }
                self.socket = connect();
                if self.socket.is_none() {
                    self.retry_at = now + RETRY;
                    return false;
                }
            }
            let Some(socket) = &self.socket else { return false };
            match rustix::net::send(socket, datagram, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(_) => return true,
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::INTR | Errno::MSGSIZE) => return false,
                Err(_) => self.socket = None,
            }
        }
        self.retry_at = now + RETRY;
        false
    }
}

/// A connected, non-blocking datagram socket, if syslogd is there.
fn connect() -> Option<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).ok()?;
    let address = SocketAddrUnix::new(DEV_LOG).ok()?;
    rustix::net::connect(&socket, &address).ok()?;
    Some(socket)
}
