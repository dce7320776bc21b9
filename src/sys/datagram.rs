//! Datagrams to a Unix socket that somebody else owns (unix(7)): sent without
//! ever blocking, to whoever has the address at that moment.

use super::{Errno, OwnedFd};
use crate::proto::path::Path;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

/// An unconnected socket and where it sends to.
pub struct Sender {
    address: SocketAddrUnix,
    /// Kept once it is made: without descriptors it could not be made again.
    socket: Option<OwnedFd>,
}

impl Sender {
    /// To an absolute path, or to an abstract name that is written with `@` in
    /// front. `None` if it is neither, or longer than the kernel's 108 bytes.
    #[must_use]
    pub fn to(name: &[u8]) -> Option<Self> {
        let address = match name {
            [b'/', ..] => SocketAddrUnix::new(Path::new(name)?.as_c_str()).ok()?,
            [b'@', name @ ..] if !name.is_empty() => SocketAddrUnix::new_abstract_name(name).ok()?,
            _ => return None,
        };
        Some(Self { address, socket: socket() })
    }

    /// sendto(2). False: it was not taken; nobody is there, or their queue is
    /// full.
    pub fn send(&mut self, datagram: &[u8]) -> bool {
        if self.socket.is_none() {
            self.socket = socket();
        }
        let Some(socket) = &self.socket else { return false };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            match rustix::net::sendto(socket, datagram, flags, &self.address) {
                Err(Errno::INTR) => {}
                result => return result.is_ok(),
            }
        }
    }
}

/// Close-on-exec from birth.
fn socket() -> Option<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()
}
