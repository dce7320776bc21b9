//! Datagrams to a Unix socket of another process (unix(7)), sent without blocking to the
//! process that has the address at that moment.

use super::socket::{self, SOCKET_PATH_MAX_BYTES};
use super::{Errno, OwnedFd};
use crate::util::path::Path;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

/// An unconnected socket, and the address to which it sends.
pub struct Sender {
    name: &'static [u8],
    /// Kept once it is made, because without free descriptors it could not be made again.
    socket: Option<OwnedFd>,
}

impl Sender {
    /// Returns a sender to an absolute path, or to an abstract name that begins with `@`.
    /// Returns `None` if `name` is neither, or too long for the kernel.
    #[must_use]
    pub fn to(name: &'static [u8]) -> Option<Self> {
        let good = match name {
            [b'/', ..] => name.len() <= SOCKET_PATH_MAX_BYTES,
            [b'@', _, ..] => name.len() <= SOCKET_PATH_MAX_BYTES + 1,
            _ => false,
        };
        good.then(|| Self { name, socket: open() })
    }

    /// Sends one datagram (sendto(2)).
    ///
    /// # Errors
    /// No process has the address, or its queue is full.
    #[inline(never)]
    pub fn send(&mut self, datagram: &[u8]) -> Result<(), Errno> {
        if self.socket.is_none() {
            self.socket = open();
        }
        let address = Path::new(self.name).and_then(|name| socket::address(&name).ok());
        let (Some(socket), Some(address)) = (&self.socket, address) else { return Err(Errno::MFILE) };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            match rustix::net::sendto(socket, datagram, flags, &address) {
                Err(Errno::INTR) => {}
                result => return result.map(drop),
            }
        }
    }
}

/// Makes the socket.
fn open() -> Option<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()
}
