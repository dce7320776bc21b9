//! What the two processes of the opener say to each other, and how a client's request
//! ends. Every message has one length, which is checked before anything in it is; and
//! every byte of it is checked, because the worker, which parses what strangers send, is
//! not trusted by the process that opens files.
//!
//! ```text
//! request  kind place flags length  serial:4 pid:4 uid:4  path:256     worker → main
//! answer   kind place 0 0           serial:4 value:4                   main → worker
//! ```
//!
//! Numbers are little-endian. What a message does not use is zero.
//!
//! Changing this: both sides are one binary, and one process forked from the other, so
//! there are no versions.

use crate::limits::{CLIENTS_MAX, PATH_MAX_BYTES};

/// Bytes of every message of the worker.
pub const REQUEST_BYTES: usize = 16 + PATH_MAX_BYTES + 1;
/// Bytes of every message to the worker.
pub const ANSWER_BYTES: usize = 12;

/// What a client reads before its descriptor.
pub const FILE: &[u8] = b"F";
/// What a client reads whose path is not on the list.
pub const DENIED: &[u8] = b"DENIED";

/// The highest errno (errno(3)).
const ERRNO_MAX: u32 = 4095;

const OPEN: u8 = 1;
const ALIVE: u8 = 2;
const NO_ROOT: u8 = 3;
const UNFIT: u8 = 4;

const OPENED: u8 = 1;
const REFUSED: u8 = 2;
const FAILED: u8 = 3;
const LISTENER: u8 = 4;

/// Bytes that are no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Malformed;

/// A client of the worker: an answer for one that left reaches nobody else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Whom {
    /// Its place, below [`CLIENTS_MAX`].
    pub place: u8,
    /// Which of those that had the place.
    pub serial: u32,
}

/// What a client asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked<'a> {
    /// The path, or its first [`PATH_MAX_BYTES`].
    pub path: &'a [u8],
    /// It is longer than that.
    pub too_long: bool,
}

/// A message of the worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request<'a> {
    /// A client, with this process and user, wants a file.
    Open {
        /// Who is to get the answer.
        whom: Whom,
        /// Its process, for the log.
        pid: u32,
        /// Its user, for the log.
        uid: u32,
        /// What it wants.
        asked: Asked<'a>,
    },
    /// The worker has finished a turn of its loop.
    Alive,
    /// It works, but still sees the whole file system: this errno.
    NoRoot(u32),
    /// It could not give up its rights, and ends: this errno.
    Unfit(u32),
}

impl<'a> Request<'a> {
    /// The message as bytes.
    #[must_use]
    pub fn emit(&self) -> [u8; REQUEST_BYTES] {
        let mut bytes = [0; REQUEST_BYTES];
        let (head, text) = bytes.split_at_mut(16);
        let plain = |kind, number| (kind, Whom { place: 0, serial: number }, 0, 0, Asked::NOTHING);
        let (kind, whom, pid, uid, asked) = match *self {
            Self::Open { whom, pid, uid, asked } => (OPEN, whom, pid, uid, asked),
            Self::Alive => plain(ALIVE, 0),
            Self::NoRoot(errno) => plain(NO_ROOT, errno),
            Self::Unfit(errno) => plain(UNFIT, errno),
        };
        let path = asked.path.get(..PATH_MAX_BYTES).unwrap_or(asked.path);
        let length = u8::try_from(path.len()).unwrap_or(u8::MAX);
        let [s0, s1, s2, s3] = whom.serial.to_le_bytes();
        let [p0, p1, p2, p3] = pid.to_le_bytes();
        let [u0, u1, u2, u3] = uid.to_le_bytes();
        head.copy_from_slice(&[
            kind,
            whom.place,
            u8::from(asked.too_long),
            length,
            s0,
            s1,
            s2,
            s3,
            p0,
            p1,
            p2,
            p3,
            u0,
            u1,
            u2,
            u3,
        ]);
        if let Some(to) = text.get_mut(..path.len()) {
            to.copy_from_slice(path);
        }
        bytes
    }

    /// Reads a message.
    ///
    /// # Errors
    /// These bytes are none.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (head, text) = bytes.split_first_chunk::<16>().ok_or(Malformed)?;
        let [kind, place, flags, length, s0, s1, s2, s3, p0, p1, p2, p3, u0, u1, u2, u3] = *head;
        let (path, rest) = text.split_at_checked(usize::from(length)).ok_or(Malformed)?;
        if bytes.len() != REQUEST_BYTES || rest.iter().any(|byte| *byte != 0) {
            return Err(Malformed);
        }
        let serial = u32::from_le_bytes([s0, s1, s2, s3]);
        let (pid, uid) = (u32::from_le_bytes([p0, p1, p2, p3]), u32::from_le_bytes([u0, u1, u2, u3]));
        let unused = (place, flags, length, pid, uid) == (0, 0, 0, 0, 0);
        let is_errno = unused && (1..=ERRNO_MAX).contains(&serial);
        match kind {
            OPEN if usize::from(place) < CLIENTS_MAX && flags <= 1 && (flags == 0 || length == u8::MAX) => {
                let asked = Asked { path, too_long: flags == 1 };
                Ok(Self::Open { whom: Whom { place, serial }, pid, uid, asked })
            }
            ALIVE if unused && serial == 0 => Ok(Self::Alive),
            NO_ROOT if is_errno => Ok(Self::NoRoot(serial)),
            UNFIT if is_errno => Ok(Self::Unfit(serial)),
            _ => Err(Malformed),
        }
    }
}

impl Asked<'_> {
    const NOTHING: Self = Self { path: &[], too_long: false };
}

/// A message to the worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The file is open; its descriptor is with this message.
    Opened(Whom),
    /// The path is not on the list.
    Denied(Whom),
    /// It is, and cannot be opened: this errno.
    Failed(Whom, u32),
    /// Accept from the socket whose descriptor is with this message, and tell that you
    /// are alive after so many milliseconds at the latest.
    Listener(u32),
}

impl Answer {
    /// The message as bytes.
    #[must_use]
    pub fn emit(&self) -> [u8; ANSWER_BYTES] {
        let (kind, whom, value) = match *self {
            Self::Opened(whom) => (OPENED, whom, 0),
            Self::Denied(whom) => (REFUSED, whom, 0),
            Self::Failed(whom, errno) => (FAILED, whom, errno),
            Self::Listener(interval) => (LISTENER, Whom { place: 0, serial: 0 }, interval),
        };
        let [s0, s1, s2, s3] = whom.serial.to_le_bytes();
        let [v0, v1, v2, v3] = value.to_le_bytes();
        [kind, whom.place, 0, 0, s0, s1, s2, s3, v0, v1, v2, v3]
    }

    /// Reads a message.
    ///
    /// # Errors
    /// These bytes are none.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let [kind, place, 0, 0, s0, s1, s2, s3, v0, v1, v2, v3] = *bytes else { return Err(Malformed) };
        let (serial, value) = (u32::from_le_bytes([s0, s1, s2, s3]), u32::from_le_bytes([v0, v1, v2, v3]));
        let whom = Whom { place, serial };
        match kind {
            _ if usize::from(place) >= CLIENTS_MAX => Err(Malformed),
            OPENED if value == 0 => Ok(Self::Opened(whom)),
            REFUSED if value == 0 => Ok(Self::Denied(whom)),
            FAILED if (1..=ERRNO_MAX).contains(&value) => Ok(Self::Failed(whom, value)),
            LISTENER if (place, serial) == (0, 0) && value != 0 => Ok(Self::Listener(value)),
            _ => Err(Malformed),
        }
    }
}

/// What the client asks for whose input is `input` so far: a path up to its newline, or
/// to the end of the input if that has `ended`. `None`: that is not known yet.
#[must_use]
pub fn asked(input: &[u8], ended: bool) -> Option<Asked<'_>> {
    let newline = input.iter().position(|byte| *byte == b'\n');
    let path = input.get(..newline.unwrap_or(input.len())).unwrap_or(input);
    match path.get(..PATH_MAX_BYTES) {
        Some(start) if path.len() > PATH_MAX_BYTES => Some(Asked { path: start, too_long: true }),
        _ => (ended || newline.is_some()).then_some(Asked { path, too_long: false }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: [u8; PATH_MAX_BYTES] = [b'x'; PATH_MAX_BYTES];

    fn requests() -> Vec<Request<'static>> {
        let whom = |place, serial| Whom { place, serial };
        let open = |whom, path, too_long| Request::Open {
            whom,
            pid: 4_194_304,
            uid: u32::MAX,
            asked: Asked { path, too_long },
        };
        vec![
            open(whom(0, 0), b"", false),
            open(whom(15, u32::MAX), b"/etc/hostname", false),
            open(whom(7, 256), b"/a\0b\n", false),
            open(whom(1, 1), &LONGEST, false),
            open(whom(1, 1), &LONGEST, true),
            Request::Alive,
            Request::NoRoot(1),
            Request::Unfit(4095),
        ]
    }

    fn answers() -> Vec<Answer> {
        let whom = Whom { place: 15, serial: 0x0102_0304 };
        vec![Answer::Opened(whom), Answer::Denied(whom), Answer::Failed(whom, 2), Answer::Listener(3000)]
    }

    /// Numbers that are the same in every run.
    fn random(seed: &mut u64) -> u8 {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 56) as u8
    }

    #[test]
    fn every_message_is_read_as_it_was_written() {
        for request in requests() {
            assert_eq!(Request::parse(&request.emit()), Ok(request));
        }
        for answer in answers() {
            assert_eq!(Answer::parse(&answer.emit()), Ok(answer));
        }
    }

    #[test]
    fn a_place_that_is_not_there_and_a_path_that_is_half_too_long_are_none() {
        let whom = Whom { place: 0, serial: 1 };
        let good =
            Request::Open { whom, pid: 1, uid: 0, asked: Asked { path: b"/a", too_long: false } }.emit();
        assert!(Request::parse(&good).is_ok());
        for (at, byte) in [(1, CLIENTS_MAX as u8), (1, u8::MAX), (2, 1), (2, 2)] {
            let mut bytes = good;
            bytes[at] = byte;
            assert_eq!(Request::parse(&bytes), Err(Malformed), "{at} {byte}");
        }
        // One without arguments has none.
        for at in 1..REQUEST_BYTES {
            let mut bytes = Request::Alive.emit();
            bytes[at] = 1;
            assert_eq!(Request::parse(&bytes), Err(Malformed), "{at}");
        }
    }

    #[test]
    fn a_message_of_any_other_length_is_none() {
        for request in requests() {
            let mut bytes = request.emit().to_vec();
            for length in 0..bytes.len() {
                assert_eq!(Request::parse(&bytes[..length]), Err(Malformed), "{length}");
            }
            bytes.push(0);
            assert_eq!(Request::parse(&bytes), Err(Malformed));
        }
        for answer in answers() {
            let mut bytes = answer.emit().to_vec();
            for length in 0..bytes.len() {
                assert_eq!(Answer::parse(&bytes[..length]), Err(Malformed), "{length}");
            }
            bytes.push(0);
            assert_eq!(Answer::parse(&bytes), Err(Malformed));
        }
    }

    #[test]
    fn a_field_out_of_its_range_makes_a_message_none() {
        let good = requests()[1].emit();
        let with = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            Request::parse(&bytes).is_err()
        };
        assert!(with(0, 0) && with(0, 5) && with(0, 255), "kind");
        assert!(with(0, ALIVE) && with(0, NO_ROOT), "another kind with these fields");
        assert!(with(1, 16) && with(1, 255), "place");
        assert!(with(2, 1) && with(2, 2) && with(2, 255), "flags: a path that is cut has its full length");
        assert!(with(3, 12), "bytes behind the path");
        assert!(with(271, 1), "the last byte");
        for errno in [0, 4096, u32::MAX] {
            assert_eq!(Request::parse(&Request::NoRoot(errno).emit()), Err(Malformed));
            assert_eq!(Request::parse(&Request::Unfit(errno).emit()), Err(Malformed));
            let whom = Whom { place: 0, serial: 0 };
            assert_eq!(Answer::parse(&Answer::Failed(whom, errno).emit()), Err(Malformed));
        }
        for (kind, place, value) in [
            (0, 0, 0),
            (5, 0, 0),
            (OPENED, 16, 0),
            (OPENED, 0, 1),
            (FAILED, 0, 0),
            (LISTENER, 1, 1),
            (LISTENER, 0, 0),
        ] {
            assert_eq!(Answer::parse(&[kind, place, 0, 0, 0, 0, 0, 0, value, 0, 0, 0]), Err(Malformed));
        }
        assert_eq!(Answer::parse(&[OPENED, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(Malformed));
    }

    #[test]
    fn whatever_bytes_are_read_they_are_what_would_be_written() {
        let mut seed = 1;
        let mut good = 0;
        for round in 0..100_000u32 {
            let mut bytes: Vec<u8> = (0..REQUEST_BYTES).map(|_| random(&mut seed)).collect();
            if round % 2 == 0 {
                // (else hardly any is one)
                let length = usize::from(bytes[3]);
                (bytes[0], bytes[1], bytes[2]) = (bytes[0] % 6, bytes[1] % 20, bytes[2] % 3);
                bytes[16 + length..].fill(0);
            }
            if let Ok(request) = Request::parse(&bytes) {
                assert_eq!(request.emit()[..], bytes);
                good += 1;
            }
            let mut bytes: Vec<u8> = (0..ANSWER_BYTES).map(|_| random(&mut seed) % 5).collect();
            (bytes[2], bytes[3]) = (0, 0);
            if let Ok(answer) = Answer::parse(&bytes) {
                assert_eq!(answer.emit()[..], bytes);
            }
        }
        assert!(good > 1000, "{good}");
    }

    #[test]
    fn a_path_ends_at_its_newline_or_with_the_input() {
        let path = |path| Some(Asked { path, too_long: false });
        assert_eq!(asked(b"", false), None);
        assert_eq!(asked(b"/etc/host", false), None);
        assert_eq!(asked(b"/etc/hostname", true), path(b"/etc/hostname"));
        assert_eq!(asked(b"/etc/hostname\n", false), path(b"/etc/hostname"));
        assert_eq!(asked(b"/a\n/b\n", false), path(b"/a"));
        assert_eq!(asked(b"/a\r\n", false), path(b"/a\r"), "as it was sent");
        assert_eq!(asked(b"\n", false), path(b""));
        assert_eq!(asked(b"", true), path(b""));
    }

    #[test]
    fn a_path_that_is_too_long_is_known_before_its_end() {
        let mut input = LONGEST.to_vec();
        assert_eq!(asked(&input, false), None);
        assert_eq!(asked(&input, true), Some(Asked { path: &LONGEST, too_long: false }));
        input.push(b'\n');
        assert_eq!(asked(&input, false), Some(Asked { path: &LONGEST, too_long: false }));
        input[255] = b'x';
        assert_eq!(asked(&input, false), Some(Asked { path: &LONGEST, too_long: true }));
        input.push(b'\n');
        assert_eq!(asked(&input, true), Some(Asked { path: &LONGEST, too_long: true }));
    }
}
