//! Datagrams to a Unix socket that somebody else owns (unix(7)): sent without
//! ever blocking, to whoever has the address at that moment.

use super::socket::{self, SOCKET_PATH_MAX_BYTES};
use super::{Errno, OwnedFd};
use crate::util::path::Path;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

/// An unconnected socket and where it sends to.
pub struct Sender {
    name: &'static [u8],
    /// Kept once it is made: without descriptors it could not be made again.
    socket: Option<OwnedFd>,
}

impl Sender {
    /// To an absolute path, or to an abstract name that is written with `@` in
    /// front. `None` if it is neither, or too long for the kernel.
    #[must_use]
    pub fn to(name: &'static [u8]) -> Option<Self> {
        let good = match name {
            [b'/', ..] => name.len() <= SOCKET_PATH_MAX_BYTES,
            [b'@', _, ..] => name.len() <= SOCKET_PATH_MAX_BYTES + 1,
            _ => false,
        };
        good.then(|| Self { name, socket: open() })
    }

    /// sendto(2). False: it was not taken; nobody is there, or their queue is
    /// full.
    #[inline(never)]
    pub fn send(&mut self, datagram: &[u8]) -> bool {
        if self.socket.is_none() {
            self.socket = open();
        }
        let address = Path::new(self.name).and_then(|name| socket::address(&name).ok());
        let (Some(socket), Some(address)) = (&self.socket, address) else { return false };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            match rustix::net::sendto(socket, datagram, flags, &address) {
                Err(Errno::INTR) => {}
                result => return result.is_ok(),
            }
        }
    }
}

/// Close-on-exec from birth.
fn open() -> Option<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()
}
