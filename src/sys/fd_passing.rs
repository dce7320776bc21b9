//! Descriptors in messages between processes (unix(7), `SCM_RIGHTS`). Each received
//! descriptor is close-on-exec from birth.

use super::{Errno, Failure, Op, OwnedFd, WithOp};
use core::mem::MaybeUninit;
use rustix::fd::AsFd;
use rustix::io::{IoSlice, IoSliceMut};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// Bytes for the control message of one descriptor; the kernel may fit in a second one,
/// which is closed.
const CONTROL_BYTES: usize = rustix::cmsg_space!(ScmRights(1));

/// The result of one recvmsg(2).
pub struct Received {
    /// Number of bytes; 0 is the end of the peer's sending.
    pub length: usize,
    /// The first descriptor that came with the bytes. Further ones were closed.
    pub fd: Option<OwnedFd>,
    /// Whether descriptors were lost (`MSG_CTRUNC`): this process has too many, or more came
    /// than there was room for.
    pub cut: bool,
}

/// Creates two connected sockets that keep the borders of messages (socketpair(2),
/// `SOCK_SEQPACKET`). Both are non-blocking.
///
/// # Errors
/// EMFILE, ENFILE.
pub fn pair() -> Result<(OwnedFd, OwnedFd), Failure> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).op(Op::Socketpair)
}

/// Sends `bytes` and a copy of the descriptor, without SIGPIPE and without waiting
/// (sendmsg(2)); returns the bytes taken.
///
/// # Errors
/// EAGAIN if nothing is taken at the moment; EPIPE if the peer no longer reads; ETOOMANYREFS
/// if this user has too many descriptors on their way.
#[inline(never)]
pub fn send(socket: &OwnedFd, bytes: &[u8], fd: Option<&OwnedFd>) -> Result<usize, Failure> {
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(AsFd::as_fd);
    if fds.is_some() {
        // The push cannot fail, because there is room for one descriptor.
        let _ = control.push(SendAncillaryMessage::ScmRights(fds.as_slice()));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags) {
            Err(Errno::INTR) => {}
            result => return result.op(Op::Sendmsg),
        }
    }
}

/// Takes a message, or of a stream what is there, with the descriptor that came along
/// (recvmsg(2)).
///
/// # Errors
/// EAGAIN if there is nothing yet; ECONNRESET.
#[inline(never)]
pub fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Result<Received, Failure> {
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let message = loop {
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Err(Errno::INTR) => {}
            result => break result.op(Op::Recvmsg)?,
        }
    };
    let mut fd = None;
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = part {
            for received in fds {
                // A descriptor that is not kept is closed.
                fd = fd.or(Some(received));
            }
        }
    }
    Ok(Received { length: message.bytes, fd, cut: message.flags.contains(ReturnFlags::CTRUNC) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::{AsRawFd, BorrowedFd};

    fn null() -> OwnedFd {
        super::super::file::open(c"/dev/null", super::super::file::OFlags::RDONLY, 0).unwrap()
    }

    #[test]
    fn a_descriptor_goes_along_and_is_close_on_exec() {
        let (here, there) = pair().unwrap();
        let file = null();
        assert_eq!(send(&here, b"F", Some(&file)).unwrap(), 1);
        assert_eq!(send(&here, b"without", None).unwrap(), 7);
        let mut buffer = [0; 16];
        let first = receive(&there, &mut buffer).unwrap();
        assert_eq!((first.length, first.cut), (1, false));
        let received = first.fd.unwrap();
        assert_ne!(received.as_raw_fd(), file.as_raw_fd());
        assert!(rustix::io::fcntl_getfd(&received).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        let second = receive(&there, &mut buffer).unwrap();
        assert_eq!((second.length, second.fd.is_none(), second.cut), (7, true, false));
        assert_eq!(receive(&there, &mut buffer).err().map(|failure| failure.errno), Some(Errno::AGAIN));
        drop(here);
        assert_eq!(receive(&there, &mut buffer).unwrap().length, 0);
    }

    #[test]
    fn the_borders_of_messages_are_kept_and_a_long_one_is_cut() {
        let (here, there) = pair().unwrap();
        let file = null();
        for bytes in [&b"12345"[..], b"1", b"123"] {
            send(&here, bytes, Some(&file)).unwrap();
        }
        let mut buffer = [0; 4];
        let lengths: Vec<_> = (0..3).map(|_| receive(&there, &mut buffer).unwrap().length).collect();
        assert_eq!(lengths, [4, 1, 3], "a buffer of one byte more than a message shows one that is too long");
    }

    #[test]
    fn of_several_descriptors_one_is_kept_and_none_leaks() {
        let (here, there) = pair().unwrap();
        let files: Vec<OwnedFd> = (0..20).map(|_| null()).collect();
        let fds: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        let mut buffer = [0; 4];
        let mut numbers = Vec::new();
        for _ in 0..300 {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(20))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
            rustix::net::sendmsg(&here, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
            let received = receive(&there, &mut buffer).unwrap();
            assert!(received.cut && received.fd.is_some());
            numbers.push(received.fd.unwrap().as_raw_fd());
        }
        // Other tests of this process open files meanwhile, hundreds for a moment. A leak
        // would leave no low number.
        assert!(numbers[150..].iter().min().unwrap() - numbers[0] < 100, "{numbers:?}");
    }
}
