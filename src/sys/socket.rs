//! Unix stream sockets (unix(7)): listening, connecting, and the identity of the peer.
//! Every descriptor is non-blocking and close-on-exec.
//!
//! An address is a [`Path`]: that of the socket, or, with `@` in front, an
//! abstract name, which is in no file system.

use super::{Errno, Failure, Op, OwnedFd, WithOp, arch, file, process};
use crate::util::path::Path;
use crate::util::text::Writer;
use linux_raw_sys::net::{SO_PEERCRED, SO_PEERGROUPS, SOL_SOCKET};
use rustix::fd::AsRawFd;
use rustix::fs::{AtFlags, CWD, Mode, Uid};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Gid;
use ufmt::uwrite;

/// Bytes of a socket's path: `sockaddr_un` less the terminator.
pub const SOCKET_PATH_MAX_BYTES: usize = 107;

/// The begin of the abstract address of a connection by which a supervisor finds out if a
/// service lives.
const PROBE_NAME: &[u8] = b"zigsvc-probe-";

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 64;

/// The process at the other end of a connection, as of its connect(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Process; 0 if this PID namespace has no name for it.
    pub pid: u32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// Returns true if `address` is an abstract name.
#[must_use]
pub fn is_abstract(address: &Path) -> bool {
    address.as_bytes().first() == Some(&b'@')
}

/// Returns a stream socket that is bound to `path` with the permission bits `mode`, and
/// listens (bind(2), listen(2)). The path must be free. An abstract name has no mode, so
/// every user can connect.
///
/// # Errors
/// ENAMETOOLONG for more than [`SOCKET_PATH_MAX_BYTES`], and as bind(2) says.
pub fn listen(path: &Path, mode: u32) -> Result<OwnedFd, Failure> {
    let socket = stream()?;
    let address = address(path)?;
    // bind(2) gives the name the mode of the socket, less the umask: so it never
    // has another mode, and none has to be set by a name.
    file::set_mode(&socket, mode)?;
    let before = rustix::process::umask(Mode::empty());
    let bound = rustix::net::bind(&socket, &address).op(Op::Bind);
    process::umask(before.as_raw_mode());
    bound?;
    rustix::net::listen(&socket, BACKLOG).op(Op::Listen)?;
    Ok(socket)
}

/// Returns a socket for datagrams that is bound to `name`, and whose datagrams say who sent them
/// (unix(7), `SO_PASSCRED`).
///
/// # Errors
/// EADDRINUSE if another socket has the name, and as the calls say.
pub fn datagrams(name: &Path) -> Result<OwnedFd, Failure> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).op(Op::Socket)?;
    rustix::net::sockopt::set_socket_passcred(&socket, true).op(Op::Getsockopt)?;
    rustix::net::bind(&socket, &address(name)?).op(Op::Bind)?;
    Ok(socket)
}

/// Receives one datagram, and returns its length and the uid of its sender (recvmsg(2)).
///
/// # Errors
/// EAGAIN if there is none.
pub fn receive_datagram(socket: &OwnedFd, buffer: &mut [u8]) -> Result<(usize, Option<u32>), Failure> {
    let mut space = [core::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let mut parts = [rustix::io::IoSliceMut::new(buffer)];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = rustix::net::recvmsg(socket, &mut parts, &mut control, flags).op(Op::Recvmsg)?;
    let mut sender = None;
    for part in control.drain() {
        if let rustix::net::RecvAncillaryMessage::ScmCredentials(credentials) = part {
            sender = Some(credentials.uid.as_raw());
        }
    }
    Ok((message.bytes, sender))
}

/// Returns the next connection, or `None` if there is none at the moment (accept(2)). The flag
/// is true if the address of the peer is that of [`probe`].
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM: the connection still waits.
pub fn accept(listener: &OwnedFd) -> Result<Option<(OwnedFd, bool)>, Failure> {
    loop {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        return match rustix::net::acceptfrom_with(listener, flags) {
            Ok((socket, peer)) => {
                let peer = peer.and_then(|address| SocketAddrUnix::try_from(address).ok());
                let name = peer.as_ref().and_then(SocketAddrUnix::abstract_name);
                Ok(Some((socket, name.is_some_and(|name| name.starts_with(PROBE_NAME)))))
            }
            Err(Errno::INTR | Errno::CONNABORTED) => continue,
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(Failure { op: Op::Accept4, errno }),
        };
    }
}

/// Connects to the socket at `path` (connect(2)).
///
/// # Errors
/// ENOENT or ECONNREFUSED if no process listens; EAGAIN if its backlog is full.
pub fn connect(path: &Path) -> Result<OwnedFd, Failure> {
    let socket = stream()?;
    let address = address(path)?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Err(Errno::INTR) => {}
            result => return result.op(Op::Connect).map(|()| socket),
        }
    }
}

/// Connects to the socket at `path`, and ends the sending (connect(2), shutdown(2)). The
/// connection has an address that begins with `PROBE_NAME` and ends with `number`, by which
/// the process that accepts it knows that it is no client. A service that lives closes it.
///
/// # Errors
/// As [`connect`].
pub fn probe(path: &Path, number: u64) -> Result<OwnedFd, Failure> {
    let mut name = [0; 64];
    let mut out = Writer::new(&mut name);
    out.push(PROBE_NAME);
    let _ = uwrite!(out, "{}-{}", process::pid().as_raw_pid(), number);
    let socket = stream()?;
    // Another socket may have this name. The connection is useful without it, too.
    if let Ok(own) = SocketAddrUnix::new_abstract_name(out.as_bytes()) {
        let _ = rustix::net::bind(&socket, &own);
    }
    let address = address(path)?;
    rustix::net::connect(&socket, &address).op(Op::Connect)?;
    end_sending(&socket);
    Ok(socket)
}

fn stream() -> Result<OwnedFd, Failure> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).op(Op::Socket)
}

/// Returns the address of the socket at `path`, or of the abstract name.
#[inline(never)]
pub(super) fn address(path: &Path) -> Result<SocketAddrUnix, Failure> {
    let (name, abstract_) = match path.as_bytes() {
        [b'@', name @ ..] => (name, true),
        name => (name, false),
    };
    if name.len() > SOCKET_PATH_MAX_BYTES {
        return Err(Failure { op: Op::Bind, errno: Errno::NAMETOOLONG });
    }
    match abstract_ {
        true => SocketAddrUnix::new_abstract_name(name).op(Op::Bind),
        false => SocketAddrUnix::new(path.as_c_str()).op(Op::Bind),
    }
}

/// Receives bytes into `buffer` without blocking, and returns their number (recv(2)). 0 is
/// the end of the peer's sending.
///
/// # Errors
/// EAGAIN if there is nothing yet; ECONNRESET.
#[allow(unsafe_code, reason = "names a section")]
#[unsafe(link_section = ".text.idle")]
pub fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Failure> {
    loop {
        match rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Err(Errno::INTR) => {}
            result => return result.op(Op::Recvfrom).map(|(count, _)| count),
        }
    }
}

/// Sends `bytes`, without SIGPIPE and without blocking (send(2)). Returns the number of
/// bytes taken.
///
/// # Errors
/// EAGAIN if nothing is taken at the moment; EPIPE if the peer no longer reads.
pub fn send(socket: &OwnedFd, bytes: &[u8]) -> Result<usize, Failure> {
    loop {
        match rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            result => return result.op(Op::Sendto),
        }
    }
}

/// Announces to the peer that nothing more will be sent (shutdown(2)).
pub fn end_sending(socket: &OwnedFd) {
    let _ = rustix::net::shutdown(socket, Shutdown::Write);
}

/// Closes a connection so that its last answer is not lost (shutdown(2), recv(2)): unread
/// input at close(2) would reset the connection, and the answer would be lost.
pub fn close(socket: OwnedFd, scratch: &mut [u8]) {
    let _ = rustix::net::shutdown(&socket, Shutdown::Read);
    // No more input arrives, and the unread input is at most a socket buffer.
    while receive(&socket, scratch).is_ok_and(|count| count > 0) {}
}

/// Returns the process that connected (getsockopt(2), `SO_PEERCRED`).
///
/// # Errors
/// As getsockopt(2) says.
pub fn peer(socket: &OwnedFd) -> Result<Peer, Failure> {
    let mut words = [0u32; 3];
    arch::getsockopt(socket.as_raw_fd(), SOL_SOCKET, SO_PEERCRED, &mut words)
        .map_err(|errno| Failure { op: Op::Getsockopt, errno: Errno::from_raw_os_error(errno) })?;
    let [pid, uid, gid] = words;
    Ok(Peer { pid, uid, gid })
}

/// Returns true if one of `groups` was a supplementary group of the peer, apart from its
/// effective one (getsockopt(2), `SO_PEERGROUPS`). Returns `None` where the kernel does not
/// report the groups.
#[must_use]
pub fn peer_in_groups(socket: &OwnedFd, groups: &[u32]) -> Option<bool> {
    let mut found = [0u32; 256];
    let count = arch::getsockopt(socket.as_raw_fd(), SOL_SOCKET, SO_PEERGROUPS, &mut found).ok()?;
    let found = found.get(..count).unwrap_or(&[]);
    Some(found.iter().any(|group| groups.contains(group)))
}

/// Gives the socket at `path` to a user and a group, never through a symbolic link
/// (fchownat(2)). `None` leaves the user or the group as it is.
///
/// # Errors
/// As fchownat(2) says.
pub fn chown(path: &Path, uid: Option<u32>, gid: Option<u32>) -> Result<(), Failure> {
    if uid.is_none() && gid.is_none() {
        return Ok(());
    }
    let (uid, gid) = (uid.map(Uid::from_raw_unchecked), gid.map(Gid::from_raw_unchecked));
    rustix::fs::chownat(CWD, path.as_c_str(), uid, gid, AtFlags::SYMLINK_NOFOLLOW).op(Op::Fchownat)
}
