//! A client of the opener: what it reads, and the descriptors that come along.

use super::{Dir, finish, patience, program, wait_until};
use core::mem::MaybeUninit;
use core::time::Duration;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::io::{Errno, IoSlice, IoSliceMut};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType,
};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

/// A connection.
pub struct Client(OwnedFd);

/// All that it sent until it closed the connection.
#[derive(Debug)]
pub struct Answer {
    /// In words.
    pub text: String,
    /// The descriptors.
    pub files: Vec<OwnedFd>,
}

impl Client {
    /// Connects to the service of the folder.
    #[track_caller]
    pub fn new(dir: &Dir) -> Self {
        Self::connect(dir).unwrap_or_else(|errno| panic!("{}: {errno}", dir.as_arg()))
    }

    /// Connects to the service of the folder; `None` if no process listens there.
    pub fn try_new(dir: &Dir) -> Option<Self> {
        Self::connect(dir).ok()
    }

    fn connect(dir: &Dir) -> Result<Self, Errno> {
        let path = dir.path("zigsvc-opener.sock");
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path.as_os_str().as_bytes())?)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(patience()))?;
        Ok(Self(socket))
    }

    /// Sends these bytes. Returns true if they were sent, and false if the other end reads no more.
    pub fn send(&self, bytes: impl AsRef<[u8]>) -> bool {
        self.send_with(bytes, &[])
    }

    /// Sends these bytes and descriptors. Returns true if they were sent.
    pub fn send_with(&self, bytes: impl AsRef<[u8]>, fds: &[BorrowedFd<'_>]) -> bool {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
        }
        let flags = SendFlags::NOSIGNAL;
        rustix::net::sendmsg(&self.0, &[IoSlice::new(bytes.as_ref())], &mut control, flags).is_ok()
    }

    /// Says that nothing more will come.
    pub fn end(&self) {
        let _ = rustix::net::shutdown(&self.0, Shutdown::Write);
    }

    /// Reads until the other end closes; `None` if it does so by a reset.
    #[track_caller]
    pub fn try_answer(&self) -> Option<Answer> {
        let (mut text, mut files) = (Vec::new(), Vec::new());
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut bytes = [0; 256];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let message = match rustix::net::recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                flags,
            ) {
                Err(Errno::CONNRESET) => return None,
                // With a timeout the kernel does not restart the call by itself.
                Err(Errno::INTR) => continue,
                result => result.unwrap(),
            };
            for part in control.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = part {
                    files.extend(fds);
                }
            }
            if message.bytes == 0 {
                return Some(Answer { text: String::from_utf8_lossy(&text).into_owned(), files });
            }
            text.extend_from_slice(&bytes[..message.bytes]);
        }
    }

    /// Reads until the other end closes. A reset, which would lose an answer, fails the test.
    #[track_caller]
    pub fn answer(&self) -> Answer {
        self.try_answer().unwrap_or_else(|| panic!("the connection was reset"))
    }

    /// Returns true if the connection is still open after `time`, and nothing came.
    pub fn is_silent_for(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        let result = loop {
            let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            set_socket_timeout(&self.0, Timeout::Recv, Some(left)).unwrap();
            match rustix::net::recv(&self.0, &mut [0; 1][..], RecvFlags::PEEK) {
                Err(Errno::INTR) => {}
                result => break result,
            }
        };
        set_socket_timeout(&self.0, Timeout::Recv, Some(patience())).unwrap();
        result == Err(Errno::AGAIN)
    }
}

impl Answer {
    /// Returns the content of the file that was handed out. The answer must be one file, with `F`.
    #[track_caller]
    pub fn content(&self) -> String {
        assert_eq!((&self.text[..], self.files.len()), ("F", 1), "{self:?}");
        let mut content = Vec::new();
        loop {
            let mut bytes = [0; 4096];
            match rustix::io::pread(&self.files[0], &mut bytes[..], content.len() as u64).unwrap() {
                0 => return String::from_utf8_lossy(&content).into_owned(),
                count => content.extend_from_slice(&bytes[..count]),
            }
        }
    }

    /// Returns the words of an answer without a file.
    #[track_caller]
    pub fn words(&self) -> &str {
        assert!(self.files.is_empty(), "{self:?}");
        &self.text
    }
}

/// Sends a request as it is and reads the answer.
#[track_caller]
pub fn ask_raw(dir: &Dir, request: impl AsRef<[u8]>) -> Answer {
    let client = Client::new(dir);
    client.send(request);
    client.answer()
}

/// Asks for a path.
#[track_caller]
pub fn ask(dir: &Dir, path: impl AsRef<Path>) -> Answer {
    ask_raw(dir, [path.as_ref().as_os_str().as_bytes(), b"\n"].concat())
}

/// Returns `allow=[...]` for these names in the folder, or absolute paths.
pub fn allow(dir: &Dir, names: &[&str]) -> String {
    let paths: Vec<String> = names.iter().map(|name| format!("'{}'", dir.path(name).display())).collect();
    format!("allow=[{}]", paths.join(", "))
}

/// Starts the opener with these entries of `allow` and further options; its PID.
#[track_caller]
pub fn start(dir: &Dir, names: &[&str], options: &[&str]) -> u32 {
    let allow = allow(dir, names);
    dir.start_service("opener", &[&["log_max=0", &allow[..]], options].concat())
}

/// Returns the worker of the service `main`, which must have one.
#[track_caller]
pub fn worker(main: u32) -> u32 {
    let mut found = None;
    wait_until("there is a worker", || {
        found = children(main).first().copied();
        found.is_some()
    });
    found.unwrap()
}

/// Returns the processes that `parent` started and that have not ended.
pub fn children(parent: u32) -> Vec<u32> {
    let numbers = fs::read_dir("/proc").unwrap().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
        fields.get(1) == Some(&&parent.to_string()[..]) && fields.first() != Some(&"Z")
    })
    .collect()
}

/// Returns how many descriptors a process has.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Lets the process have no descriptor above `most` (getrlimit(2), RLIMIT_NOFILE); the
/// hard limit stays.
#[track_caller]
pub fn limit_descriptors(pid: u32, most: &str) {
    let mut command = program("prlimit");
    command.args(["--pid", &pid.to_string(), &format!("--nofile={most}")]);
    finish(command, None).expect(0);
}
