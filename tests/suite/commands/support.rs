//! The common parts of the tests of the commands: a command that runs beside the test,
//! a handler that waits to be let go, and a service that is played by the test.

use crate::support::{Dir, Ran, wait_until};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A command that runs beside the test; it is killed, it alone, if the test
/// ends before it.
pub struct Beside {
    child: Child,
    /// Its standard input; dropped, it is closed.
    pub stdin: Option<ChildStdin>,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Beside {
    /// Starts it with a pipe on each of its standard descriptors.
    #[track_caller]
    pub fn start(command: Command) -> Self {
        Self::start_on(Stdio::piped(), command)
    }

    /// Starts the command with another standard input.
    #[track_caller]
    pub fn start_on(stdin: Stdio, mut command: Command) -> Self {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (out, err) = (Arc::default(), Arc::default());
        let readers = vec![
            gather(BufReader::new(child.stdout.take().unwrap()), Arc::clone(&out)),
            gather(BufReader::new(child.stderr.take().unwrap()), Arc::clone(&err)),
        ];
        Self { stdin: child.stdin.take(), child, out, err, readers }
    }

    /// Starts `zigsvc -d DIR ARGS...`
    #[track_caller]
    pub fn zigsvc(dir: &Dir, args: &[&str]) -> Self {
        let mut command = dir.command();
        command.args(args);
        Self::start(command)
    }

    /// Writes to its standard input.
    #[track_caller]
    pub fn write(&mut self, text: &str) {
        self.stdin.as_mut().expect("an open stdin").write_all(text.as_bytes()).unwrap();
    }

    /// Returns the whole lines that the command has written to its standard output.
    pub fn lines(&self) -> Vec<String> {
        self.out.lock().unwrap().lines().map(str::to_owned).collect()
    }

    /// Returns the whole lines that the command has written to its standard error.
    pub fn errors(&self) -> String {
        self.err.lock().unwrap().clone()
    }

    /// Waits until the command has written `count` lines.
    #[track_caller]
    pub fn wait_for_lines(&self, count: usize) -> Vec<String> {
        wait_until(&format!("there are {count} lines of output"), || self.lines().len() >= count);
        self.lines()
    }

    /// Returns the PID of the command, or that of its runner.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns true if the command has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Closes its standard input and waits for its end.
    #[track_caller]
    pub fn finish(mut self) -> Ran {
        drop(self.stdin.take());
        wait_until("the command has ended", || self.has_ended());
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        let status = self.child.wait().unwrap();
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        Ran { code, out: self.out.lock().unwrap().clone(), err: self.err.lock().unwrap().clone() }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Appends each whole line of a stream to `text`.
fn gather(mut stream: impl BufRead + Send + 'static, text: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            text.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

/// A handler that notes its job in `begun`, waits until there is a file `go`,
/// and notes the job in `done`. A job `exit N` ends with that status.
pub const GATED: &str = r#"echo "$1" >> begun
while [ ! -e go ]; do sleep 0.02; done
echo "$1" >> done
case $1 in exit\ *) $1;; esac"#;

/// Waits until a handler has begun this job.
#[track_caller]
pub fn wait_for_begun(dir: &Dir, job: &str) {
    wait_until(&format!("{job:?} runs"), || dir.read("begun").lines().any(|line| line == job));
}

/// A connection of the test to the control socket.
pub struct Peer(BufReader<UnixStream>);

impl Peer {
    /// Connects.
    #[track_caller]
    pub fn connect(dir: &Dir) -> Self {
        Self(BufReader::new(UnixStream::connect(dir.path("zigsvc.sock")).unwrap()))
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, text: &str) {
        // A write fails if the peer has closed the connection. Then it does not read the bytes.
        let _ = self.0.get_mut().write_all(text.as_bytes());
    }

    /// Returns the next line, without its end; `None` at the end of the connection.
    pub fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let count = self.0.read_line(&mut line).unwrap_or(0);
        (count > 0).then(|| line.trim_end().to_owned())
    }

    /// Sends a request, and returns the first line of its answer.
    #[track_caller]
    pub fn ask(&mut self, request: &str) -> String {
        self.send(&format!("{request}\n"));
        self.line().expect("an answer")
    }
}

/// A service that the test plays: it holds the lock of the PID file and listens
/// on the socket, so that a command can be given any answer.
///
/// The lock goes when this process closes any descriptor of the file (fcntl(2)):
/// a test that plays a service must not ask for the holder of its lock.
pub struct Played {
    listener: UnixListener,
    _lock: OwnedFd,
}

impl Played {
    /// Takes the places of `jobs` below `dir`.
    #[track_caller]
    pub fn new(dir: &Dir) -> Self {
        let path = dir.path("zigsvc.pid");
        std::fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let lock = rustix::fs::openat(CWD, path.as_os_str().as_bytes(), flags, Mode::empty()).unwrap();
        rustix::fs::fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        Self { listener: UnixListener::bind(dir.path("zigsvc.sock")).unwrap(), _lock: lock }
    }

    /// Closes the connection of one client, if there is one.
    pub fn turn_away(&self) {
        self.listener.set_nonblocking(true).unwrap();
        drop(self.listener.accept());
    }

    /// Waits for the next client, and returns it.
    #[track_caller]
    pub fn accept(&self) -> Peer {
        // A command that does not come must not hold the test up for ever.
        self.listener.set_nonblocking(true).unwrap();
        let mut accepted = None;
        wait_until("a client has come", || {
            accepted = self.listener.accept().ok();
            accepted.is_some()
        });
        let (stream, _) = accepted.unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(core::time::Duration::from_secs(60))).unwrap();
        Peer(BufReader::new(stream))
    }
}

/// Returns a standard output whose reader has gone. It is no pipe, because a program that
/// another test starts at that moment may hold a copy of the pipe's other end for an instant.
#[track_caller]
pub fn unread() -> Stdio {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ours.shutdown(std::net::Shutdown::Both).unwrap();
    Stdio::from(std::os::fd::OwnedFd::from(theirs))
}

/// Opens a descriptor on which every write fails, for a standard output.
#[track_caller]
pub fn full_device() -> Stdio {
    Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap())
}
