//! The messages between the two processes of the opener, and the framing of a client's
//! request. Messages have a fixed length in each direction, which is checked first, and then
//! each byte is checked. The process that opens files does not trust the worker, because the
//! worker parses input from strangers.
//!
//! ```text
//! request  kind slot flags length  serial:4 pid:4 uid:4  path:256     worker → main
//! answer   kind slot 0 0           serial:4 value:4                   main → worker
//! ```
//!
//! Numbers are little-endian. A field that a message does not use is zero.
//!
//! Changing this: there are no versions, because both processes run the same binary and one
//! was forked from the other.

use crate::limits::{CLIENTS_MAX, PATH_MAX_BYTES};
use crate::util::lines::find_newline;
use crate::util::text::Writer;

/// Bytes of each message of the worker.
pub const TO_MAIN_BYTES: usize = 16 + PATH_MAX_BYTES + 1;
/// Bytes of each message to the worker.
pub const TO_WORKER_BYTES: usize = 12;

/// The bytes that a client reads together with the descriptor of its file.
pub const FILE: &[u8] = b"F";
/// The reply to a client whose path is not on the list.
pub const DENIED: &[u8] = b"DENIED";

/// The highest error number of Linux (errno(3)).
const ERRNO_MAX: u32 = 4095;

const OPEN: u8 = 1;
const ALIVE: u8 = 2;
const CHROOT_FAILED: u8 = 3;
const PRIV_DROP_FAILED: u8 = 4;

const OPENED: u8 = 1;
const REFUSED: u8 = 2;
const FAILED: u8 = 3;
const LISTENER: u8 = 4;

/// The error of bytes that are not a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// The client of the worker that a message is about. An answer for a client that has left
/// reaches no other client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestId {
    /// The slot of the client, below [`CLIENTS_MAX`].
    pub slot: u8,
    /// The number of the client among those that have had the slot.
    pub serial: u32,
}

/// The path that a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PathRequest<'a> {
    /// The path, or its first [`PATH_MAX_BYTES`] bytes.
    pub path: &'a [u8],
    /// True if the path is longer than that.
    pub too_long: bool,
}

/// A message of the worker to main.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ToMain<'a> {
    /// A client asks for a file.
    Open {
        /// The client that gets the answer.
        request_id: RequestId,
        /// The PID of the client, for the log.
        pid: u32,
        /// The uid of the client, for the log.
        uid: u32,
        /// The path that the client asks for.
        request: PathRequest<'a>,
    },
    /// The worker has finished a turn of its loop.
    Alive,
    /// The worker runs, but still sees the whole file system. Holds the errno.
    ChrootFailed(u32),
    /// The worker could not give up its privileges, and ends. Holds the errno.
    PrivDropFailed(u32),
}

impl<'a> ToMain<'a> {
    /// Returns the message as bytes.
    #[must_use]
    pub fn emit(&self) -> [u8; TO_MAIN_BYTES] {
        let plain = |kind, number| (kind, RequestId { slot: 0, serial: number }, 0, 0, PathRequest::NOTHING);
        let (kind, RequestId { slot, serial }, pid, uid, PathRequest { path, too_long }) = match *self {
            Self::Open { request_id, pid, uid, request } => (OPEN, request_id, pid, uid, request),
            Self::Alive => plain(ALIVE, 0),
            Self::ChrootFailed(errno) => plain(CHROOT_FAILED, errno),
            Self::PrivDropFailed(errno) => plain(PRIV_DROP_FAILED, errno),
        };
        let path = path.get(..PATH_MAX_BYTES).unwrap_or(path);
        let mut bytes = [0; TO_MAIN_BYTES];
        let mut out = Writer::new(&mut bytes);
        out.push(&[kind, slot, u8::from(too_long), u8::try_from(path.len()).unwrap_or(u8::MAX)]);
        [serial, pid, uid].iter().for_each(|number| out.push(&number.to_le_bytes()));
        out.push(path);
        bytes
    }

    /// Parses a message.
    ///
    /// # Errors
    /// The bytes are not a message.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (head, text) = bytes.split_first_chunk::<16>().ok_or(Malformed)?;
        let [kind, slot, flags, length, s0, s1, s2, s3, p0, p1, p2, p3, u0, u1, u2, u3] = *head;
        let (path, rest) = text.split_at_checked(usize::from(length)).ok_or(Malformed)?;
        if bytes.len() != TO_MAIN_BYTES || rest.iter().any(|byte| *byte != 0) {
            return Err(Malformed);
        }
        let serial = u32::from_le_bytes([s0, s1, s2, s3]);
        let (pid, uid) = (u32::from_le_bytes([p0, p1, p2, p3]), u32::from_le_bytes([u0, u1, u2, u3]));
        let unused = (slot, flags, length, pid, uid) == (0, 0, 0, 0, 0);
        let is_errno = unused && (1..=ERRNO_MAX).contains(&serial);
        match kind {
            OPEN if usize::from(slot) < CLIENTS_MAX && flags <= 1 && (flags == 0 || length == u8::MAX) => {
                let request = PathRequest { path, too_long: flags == 1 };
                Ok(Self::Open { request_id: RequestId { slot, serial }, pid, uid, request })
            }
            ALIVE if unused && serial == 0 => Ok(Self::Alive),
            CHROOT_FAILED if is_errno => Ok(Self::ChrootFailed(serial)),
            PRIV_DROP_FAILED if is_errno => Ok(Self::PrivDropFailed(serial)),
            _ => Err(Malformed),
        }
    }
}

impl PathRequest<'_> {
    const NOTHING: Self = Self { path: &[], too_long: false };
}

/// A message of main to the worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ToWorker {
    /// The file is open. Its descriptor comes with this message.
    Opened(RequestId),
    /// The path is not on the list.
    Denied(RequestId),
    /// The path is on the list, but the file cannot be opened. Holds the errno.
    Failed(RequestId, u32),
    /// Clients are to be accepted from the socket whose descriptor comes with this message.
    /// The worker has to send [`ToMain::Alive`] at least once in this many milliseconds.
    Listener(u32),
}

impl ToWorker {
    /// Returns the message as bytes.
    #[must_use]
    pub fn emit(&self) -> [u8; TO_WORKER_BYTES] {
        let (kind, request_id, value) = match *self {
            Self::Opened(request_id) => (OPENED, request_id, 0),
            Self::Denied(request_id) => (REFUSED, request_id, 0),
            Self::Failed(request_id, errno) => (FAILED, request_id, errno),
            Self::Listener(interval) => (LISTENER, RequestId { slot: 0, serial: 0 }, interval),
        };
        let [s0, s1, s2, s3] = request_id.serial.to_le_bytes();
        let [v0, v1, v2, v3] = value.to_le_bytes();
        [kind, request_id.slot, 0, 0, s0, s1, s2, s3, v0, v1, v2, v3]
    }

    /// Parses a message.
    ///
    /// # Errors
    /// The bytes are not a message.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let [kind, slot, 0, 0, s0, s1, s2, s3, v0, v1, v2, v3] = *bytes else { return Err(Malformed) };
        let (serial, value) = (u32::from_le_bytes([s0, s1, s2, s3]), u32::from_le_bytes([v0, v1, v2, v3]));
        let request_id = RequestId { slot, serial };
        match kind {
            _ if usize::from(slot) >= CLIENTS_MAX => Err(Malformed),
            OPENED if value == 0 => Ok(Self::Opened(request_id)),
            REFUSED if value == 0 => Ok(Self::Denied(request_id)),
            FAILED if (1..=ERRNO_MAX).contains(&value) => Ok(Self::Failed(request_id, value)),
            LISTENER if (slot, serial) == (0, 0) && value != 0 => Ok(Self::Listener(value)),
            _ => Err(Malformed),
        }
    }
}

/// Returns the path that a client asks for. `input` holds the bytes that it has sent, and
/// `ended` is true if no more will follow. The path ends before the first newline, or at the
/// end of the input. Returns `None` if that end has not come yet.
#[must_use]
pub fn path_request(input: &[u8], ended: bool) -> Option<PathRequest<'_>> {
    let newline = find_newline(input);
    let path = input.get(..newline.unwrap_or(input.len())).unwrap_or(input);
    match path.get(..PATH_MAX_BYTES) {
        Some(start) if path.len() > PATH_MAX_BYTES => Some(PathRequest { path: start, too_long: true }),
        _ => (ended || newline.is_some()).then_some(PathRequest { path, too_long: false }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: [u8; PATH_MAX_BYTES] = [b'x'; PATH_MAX_BYTES];

    fn requests() -> Vec<ToMain<'static>> {
        let request_id = |slot, serial| RequestId { slot, serial };
        let open = |request_id, path, too_long| ToMain::Open {
            request_id,
            pid: 4_194_304,
            uid: u32::MAX,
            request: PathRequest { path, too_long },
        };
        vec![
            open(request_id(0, 0), b"", false),
            open(request_id(15, u32::MAX), b"/etc/hostname", false),
            open(request_id(7, 256), b"/a\0b\n", false),
            open(request_id(1, 1), &LONGEST, false),
            open(request_id(1, 1), &LONGEST, true),
            ToMain::Alive,
            ToMain::ChrootFailed(1),
            ToMain::PrivDropFailed(4095),
        ]
    }

    fn answers() -> Vec<ToWorker> {
        let request_id = RequestId { slot: 15, serial: 0x0102_0304 };
        vec![
            ToWorker::Opened(request_id),
            ToWorker::Denied(request_id),
            ToWorker::Failed(request_id, 2),
            ToWorker::Listener(3000),
        ]
    }

    /// Returns pseudo-random numbers. They are equal in each run.
    fn random(seed: &mut u64) -> u8 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 56) as u8
    }

    #[test]
    fn every_message_is_read_as_it_was_written() {
        for request in requests() {
            assert_eq!(ToMain::parse(&request.emit()), Ok(request));
        }
        for answer in answers() {
            assert_eq!(ToWorker::parse(&answer.emit()), Ok(answer));
        }
    }

    #[test]
    fn a_place_that_is_not_there_and_a_path_that_is_half_too_long_are_none() {
        let request_id = RequestId { slot: 0, serial: 1 };
        let good = ToMain::Open {
            request_id,
            pid: 1,
            uid: 0,
            request: PathRequest { path: b"/a", too_long: false },
        }
        .emit();
        assert!(ToMain::parse(&good).is_ok());
        for (at, byte) in [(1, CLIENTS_MAX as u8), (1, u8::MAX), (2, 1), (2, 2)] {
            let mut bytes = good;
            bytes[at] = byte;
            assert_eq!(ToMain::parse(&bytes), Err(Malformed), "{at} {byte}");
        }
        // A message without arguments has zeros only.
        for at in 1..TO_MAIN_BYTES {
            let mut bytes = ToMain::Alive.emit();
            bytes[at] = 1;
            assert_eq!(ToMain::parse(&bytes), Err(Malformed), "{at}");
        }
    }

    #[test]
    fn a_message_of_any_other_length_is_none() {
        for request in requests() {
            let mut bytes = request.emit().to_vec();
            for length in 0..bytes.len() {
                assert_eq!(ToMain::parse(&bytes[..length]), Err(Malformed), "{length}");
            }
            bytes.push(0);
            assert_eq!(ToMain::parse(&bytes), Err(Malformed));
        }
        for answer in answers() {
            let mut bytes = answer.emit().to_vec();
            for length in 0..bytes.len() {
                assert_eq!(ToWorker::parse(&bytes[..length]), Err(Malformed), "{length}");
            }
            bytes.push(0);
            assert_eq!(ToWorker::parse(&bytes), Err(Malformed));
        }
    }

    #[test]
    fn a_field_out_of_its_range_makes_a_message_none() {
        let good = requests()[1].emit();
        let with = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            ToMain::parse(&bytes).is_err()
        };
        assert!(with(0, 0) && with(0, 5) && with(0, 255), "kind");
        assert!(with(0, ALIVE) && with(0, CHROOT_FAILED), "another kind with these fields");
        assert!(with(1, 16) && with(1, 255), "place");
        assert!(with(2, 1) && with(2, 2) && with(2, 255), "flags: a path that is cut has its full length");
        assert!(with(3, 12), "bytes behind the path");
        assert!(with(271, 1), "the last byte");
        for errno in [0, 4096, u32::MAX] {
            assert_eq!(ToMain::parse(&ToMain::ChrootFailed(errno).emit()), Err(Malformed));
            assert_eq!(ToMain::parse(&ToMain::PrivDropFailed(errno).emit()), Err(Malformed));
            let request_id = RequestId { slot: 0, serial: 0 };
            assert_eq!(ToWorker::parse(&ToWorker::Failed(request_id, errno).emit()), Err(Malformed));
        }
        for (kind, slot, value) in [
            (0, 0, 0),
            (5, 0, 0),
            (OPENED, 16, 0),
            (OPENED, 0, 1),
            (FAILED, 0, 0),
            (LISTENER, 1, 1),
            (LISTENER, 0, 0),
        ] {
            assert_eq!(ToWorker::parse(&[kind, slot, 0, 0, 0, 0, 0, 0, value, 0, 0, 0]), Err(Malformed));
        }
        assert_eq!(ToWorker::parse(&[OPENED, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(Malformed));
    }

    #[test]
    fn whatever_bytes_are_read_they_are_what_would_be_written() {
        let mut seed = 1;
        let mut good = 0;
        for round in 0..100_000u32 {
            let mut bytes: Vec<u8> = (0..TO_MAIN_BYTES).map(|_| random(&mut seed)).collect();
            if round % 2 == 0 {
                // Without this, hardly any of the messages would be valid.
                let length = usize::from(bytes[3]);
                (bytes[0], bytes[1], bytes[2]) = (bytes[0] % 6, bytes[1] % 20, bytes[2] % 3);
                bytes[16 + length..].fill(0);
            }
            if let Ok(request) = ToMain::parse(&bytes) {
                assert_eq!(request.emit()[..], bytes);
                good += 1;
            }
            let mut bytes: Vec<u8> = (0..TO_WORKER_BYTES).map(|_| random(&mut seed) % 5).collect();
            (bytes[2], bytes[3]) = (0, 0);
            if let Ok(answer) = ToWorker::parse(&bytes) {
                assert_eq!(answer.emit()[..], bytes);
            }
        }
        assert!(good > 1000, "{good}");
    }

    #[test]
    fn a_path_ends_at_its_newline_or_with_the_input() {
        let path = |path| Some(PathRequest { path, too_long: false });
        assert_eq!(path_request(b"", false), None);
        assert_eq!(path_request(b"/etc/host", false), None);
        assert_eq!(path_request(b"/etc/hostname", true), path(b"/etc/hostname"));
        assert_eq!(path_request(b"/etc/hostname\n", false), path(b"/etc/hostname"));
        assert_eq!(path_request(b"/a\n/b\n", false), path(b"/a"));
        assert_eq!(path_request(b"/a\r\n", false), path(b"/a\r"), "as it was sent");
        assert_eq!(path_request(b"\n", false), path(b""));
        assert_eq!(path_request(b"", true), path(b""));
    }

    #[test]
    fn a_path_that_is_too_long_is_known_before_its_end() {
        let mut input = LONGEST.to_vec();
        assert_eq!(path_request(&input, false), None);
        assert_eq!(path_request(&input, true), Some(PathRequest { path: &LONGEST, too_long: false }));
        input.push(b'\n');
        assert_eq!(path_request(&input, false), Some(PathRequest { path: &LONGEST, too_long: false }));
        input[255] = b'x';
        assert_eq!(path_request(&input, false), Some(PathRequest { path: &LONGEST, too_long: true }));
        input.push(b'\n');
        assert_eq!(path_request(&input, true), Some(PathRequest { path: &LONGEST, too_long: true }));
    }
}
