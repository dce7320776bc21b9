//! A connection to the control socket of a service: requests out, lines in,
//! each with a deadline (docs/control.md).

use super::invocation::Invocation;
use super::output::{NEEDS_ROOT, code_of, fail, fail_not_running};
use crate::limits::{ANSWER_WAIT, CONNECT_RETRY, REQUEST_MAX_BYTES};
use crate::proto::answer::Answer;
use crate::proto::config::Config;
use crate::proto::service::Service;
use crate::service::config_source::{ServiceFile, path_of};
use crate::service::lifecycle::{describe_at, exit};
use crate::service::lock_holder::{LockState, ServiceLocks};
use crate::sys::lock::{Holder, holder};
use crate::sys::poll::{Interest, PollSet};
use crate::sys::{AsFd, Errno, Failure, Op, OwnedFd, clock, fds, identity, poll, socket};
use crate::util::lines::find_newline;
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};
use core::ops::Range;

/// Time that a running service may take to create its socket.
const CONNECT_WAIT: Duration = Duration::from_ms(2000);

/// A deadline that never comes.
pub(super) const NEVER: Option<Instant> = None;

/// Returns the deadline of an answer to a request that is sent now.
pub(super) fn answer_deadline() -> Option<Instant> {
    Some(clock::now() + ANSWER_WAIT)
}

/// The reason why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientError {
    /// No process holds the service's lock.
    NotRunning,
    /// A system call failed, or the service runs and its socket takes no connection.
    Failed(Failure),
    /// The other end closed the connection.
    Closed,
    /// The deadline passed.
    TimedOut,
    /// The bytes that came are no answer.
    Garbage,
    /// The reason has been printed, or is not to be printed; the exit code.
    Reported(u8),
}

/// A client of one service.
pub(super) struct Client<'m> {
    pub(super) service: Service,
    config: &'m Config,
    /// The name of the command, which begins the errors.
    pub(super) command: &'static str,
    /// The PID file. The service runs while the file is locked.
    pid_path: Path,
    socket_path: Path,
    /// A socket that was tried before, for the message that no service runs; or empty.
    tried: Path,
    /// The connection, while there is one.
    pub(super) socket: Option<OwnedFd>,
    /// The bytes that came and were not read yet are `buffer[start..end]`.
    buffer: &'m mut [u8],
    start: usize,
    end: usize,
    /// Set if waiting for a line ends when the reader of stdout closes it.
    pub(super) minds_stdout: bool,
}

impl<'m> Client<'m> {
    /// Creates a client that is not connected; lines are read into `buffer`.
    ///
    /// # Errors
    /// A path is too long; the exit code, after printing the reason.
    pub(super) fn new(
        service: Service,
        command: &'static str,
        config: &'m Config,
        buffer: &'m mut [u8],
    ) -> Result<Self, u8> {
        let own = |file| path_of(service, file, config);
        let (Some(pid_path), Some(socket_path)) = (own(ServiceFile::Pid), own(ServiceFile::Socket)) else {
            return Err(fail(exit::CONFIG, &|out| out.push_str("socket: its folder's path is too long")));
        };
        Ok(Self {
            service,
            config,
            command,
            pid_path,
            socket_path,
            tried: Path::empty(),
            socket: None,
            buffer,
            start: 0,
            end: 0,
            minds_stdout: false,
        })
    }

    /// Connects. Tries again until `deadline` while the service runs and takes no
    /// connection, because it creates its socket.
    pub(super) fn connect(&mut self, deadline: Instant) -> Result<(), ClientError> {
        self.close();
        loop {
            let failure = match socket::connect(&self.socket_path) {
                Ok(socket) if self.is_trusted(&socket) => {
                    self.socket = Some(socket);
                    return Ok(());
                }
                Ok(_) => {
                    return Err(ClientError::Failed(Failure { op: Op::Connect, errno: Errno::ADDRINUSE }));
                }
                Err(failure) => failure,
            };
            if !takes_no_connection(failure) {
                return Err(ClientError::Failed(failure));
            }
            if let Ok(LockState::Died | LockState::Stopped) = self.locks().state() {
                return Err(ClientError::NotRunning);
            }
            let left = clock::now().until(deadline);
            if left.is_zero() {
                return Err(ClientError::Failed(failure));
            }
            poll::sleep(left.at_most(CONNECT_RETRY));
        }
    }

    /// Returns the locks of the service.
    pub(super) fn locks(&self) -> ServiceLocks<'_> {
        ServiceLocks { service: self.service, config: self.config, pid_path: &self.pid_path }
    }

    /// Returns true if the other end can be the service. Every user can take an abstract
    /// name while the service does not run; so the listening process must belong to root or
    /// to this user, or hold the lock.
    fn is_trusted(&self, socket: &OwnedFd) -> bool {
        if !socket::is_abstract(&self.socket_path) {
            return true;
        }
        let Ok(peer) = socket::peer(socket) else { return false };
        let holds_lock = || match holder(self.pid_path.as_c_str()) {
            Ok(Holder::Running(Some(pid))) => u32::try_from(pid.as_raw_pid()) == Ok(peer.pid),
            _ => false,
        };
        peer.uid == 0 || peer.uid == identity::effective_uid() || holds_lock()
    }

    /// Connects within [`CONNECT_WAIT`].
    ///
    /// # Errors
    /// The exit code, after printing the reason.
    pub(super) fn connect_or_report(&mut self) -> Result<(), u8> {
        let deadline = clock::now() + CONNECT_WAIT;
        self.connect(deadline).map_err(|error| self.report(error))
    }

    /// Connects as [`Client::connect`] does, also to a service that is being restarted.
    pub(super) fn connect_again(&mut self, deadline: Instant) -> Result<(), ClientError> {
        loop {
            match self.connect(deadline) {
                Err(ClientError::NotRunning) if !deadline.is_due(clock::now()) => poll::sleep(CONNECT_RETRY),
                result => return result,
            }
        }
    }

    /// Ends the connection, and drops the bytes that were not read yet.
    pub(super) fn close(&mut self) {
        self.socket = None;
        (self.start, self.end) = (0, 0);
    }

    /// Sends one request, made of `parts`. A connection that the other end has closed is
    /// not an error, because its last answer can still be read.
    #[inline(never)]
    pub(super) fn send(&mut self, parts: &[&[u8]]) -> Result<(), ClientError> {
        let mut line = [0; REQUEST_MAX_BYTES + 1];
        let mut out = Writer::new(&mut line);
        for part in parts {
            out.push(part);
        }
        out.push_str("\n");
        let mut rest = out.as_bytes();
        let deadline = clock::now() + ANSWER_WAIT;
        let socket = self.socket.as_ref().ok_or(ClientError::Closed)?;
        while !rest.is_empty() {
            match socket::send(socket, rest) {
                Ok(count) => rest = rest.get(count..).unwrap_or(&[]),
                Err(Failure { errno: Errno::AGAIN, .. }) => {
                    let left = clock::now().until(deadline);
                    if left.is_zero() {
                        return Err(ClientError::TimedOut);
                    }
                    let mut set = PollSet::new();
                    set.watch(socket.as_fd(), Interest::Output, ());
                    set.wait(Some(left));
                }
                Err(Failure { errno: Errno::PIPE | Errno::CONNRESET, .. }) => return Ok(()),
                Err(failure) => return Err(ClientError::Failed(failure)),
            }
        }
        Ok(())
    }

    /// Waits for the next line; [`Client::at`] returns its bytes.
    pub(super) fn line(&mut self, deadline: Option<Instant>) -> Result<Range<usize>, ClientError> {
        loop {
            if let Some(line) = self.next_line() {
                return Ok(line);
            }
            if !self.receive()? {
                self.wait(deadline)?;
            }
        }
    }

    /// Returns the next line of the bytes that have come.
    pub(super) fn next_line(&mut self) -> Option<Range<usize>> {
        let unseen = self.buffer.get(self.start..self.end)?;
        let length = find_newline(unseen)?;
        let line = self.start..self.start.saturating_add(length);
        self.start = line.end.saturating_add(1);
        Some(line)
    }

    /// Returns the bytes of a line. They are valid until the next call of
    /// [`Client::receive`].
    #[inline(never)]
    pub(super) fn at(&self, line: Range<usize>) -> &[u8] {
        self.buffer.get(line).unwrap_or(&[])
    }

    /// Receives bytes; returns false if none have come.
    pub(super) fn receive(&mut self) -> Result<bool, ClientError> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end = self.end.saturating_sub(self.start);
        self.start = 0;
        let socket = self.socket.as_ref().ok_or(ClientError::Closed)?;
        let free =
            self.buffer.get_mut(self.end..).filter(|free| !free.is_empty()).ok_or(ClientError::Garbage)?;
        match socket::receive(socket, free) {
            Ok(0) | Err(Failure { errno: Errno::CONNRESET, .. }) => Err(ClientError::Closed),
            Ok(count) => {
                self.end = self.end.saturating_add(count);
                Ok(true)
            }
            Err(Failure { errno: Errno::AGAIN, .. }) => Ok(false),
            Err(failure) => Err(ClientError::Failed(failure)),
        }
    }

    /// Waits for bytes, or for the end of stdout.
    pub(super) fn wait(&self, deadline: Option<Instant>) -> Result<(), ClientError> {
        let left = deadline.map(|deadline| clock::now().until(deadline));
        if left.is_some_and(Duration::is_zero) {
            return Err(ClientError::TimedOut);
        }
        let socket = self.socket.as_ref().ok_or(ClientError::Closed)?;
        let mut set = PollSet::new();
        set.watch(socket.as_fd(), Interest::Input, false);
        if self.minds_stdout {
            set.watch(fds::borrow(1), Interest::End, true);
        }
        set.wait(left);
        if set.ready().any(|is_stdout| is_stdout) { Err(ClientError::Reported(exit::FAILED)) } else { Ok(()) }
    }

    /// Sends a request, and returns the fields after `ok` of its answer.
    ///
    /// # Errors
    /// The exit code, after printing the reason.
    pub(super) fn ask(&mut self, deadline: Option<Instant>, parts: &[&[u8]]) -> Result<&[u8], u8> {
        match self.send(parts).and_then(|()| self.line(deadline)) {
            Ok(line) => match Answer::parse(self.at(line)) {
                Answer::Ok(text) => Ok(text),
                refused => Err(self.report_answer(refused)),
            },
            Err(error) => Err(self.report(error)),
        }
    }

    /// Prints an answer that is not `ok`; returns the exit code.
    pub(super) fn report_answer(&self, answer: Answer<'_>) -> u8 {
        let code = match answer {
            Answer::Refused(b"denied", _) => exit::NO_PRIVILEGE,
            Answer::Refused(b"not-running", _) => exit::NOT_RUNNING,
            _ => exit::FAILED,
        };
        fail(code, &|out| {
            out.push_str(self.command);
            out.push_str(": ");
            answer.describe(out);
        })
    }

    /// Prints the reason why there is no answer; returns the exit code.
    #[inline(never)]
    pub(super) fn report(&self, error: ClientError) -> u8 {
        let code = match error {
            ClientError::NotRunning => {
                return fail_not_running(self.service, [&self.tried, &self.socket_path]);
            }
            ClientError::Failed(Failure { errno: Errno::NAMETOOLONG, .. }) => exit::CONFIG,
            ClientError::Failed(failure) => code_of(failure),
            ClientError::Garbage => return self.report_answer(Answer::Garbage),
            ClientError::Reported(code) => return code,
            ClientError::TimedOut | ClientError::Closed => exit::FAILED,
        };
        fail(code, &|out| match error {
            ClientError::Failed(failure) => {
                describe_at(&self.socket_path, failure, out);
                out.push_str(match code {
                    exit::NO_PRIVILEGE => NEEDS_ROOT,
                    exit::CONFIG => {
                        "; the path of a socket has at most 107 bytes: see the keys socket and -d"
                    }
                    _ => "",
                });
            }
            _ => {
                out.push_str(self.command);
                out.push_str(match error {
                    ClientError::TimedOut => ": no answer within 30 s",
                    _ => ": the connection was closed before the answer came",
                });
            }
        })
    }
}

/// Returns true if a service that runs can fail so, because it creates its socket.
pub(super) fn takes_no_connection(failure: Failure) -> bool {
    matches!(failure.errno, Errno::NOENT | Errno::NOTDIR | Errno::CONNREFUSED | Errno::AGAIN)
}

impl Invocation {
    /// Returns a client of the service, not connected, with the first `line_bytes` of the
    /// scratch memory for its lines; and the rest of that memory.
    ///
    /// # Errors
    /// A path is too long; the exit code, after printing the reason.
    pub(super) fn client(&mut self, line_bytes: usize) -> Result<(Client<'_>, &mut [u8]), u8> {
        self.load_or_defaults();
        self.find_service();
        self.loaded_client(line_bytes)
    }

    /// Returns a client as [`Invocation::client`] does, after the configuration was read.
    ///
    /// # Errors
    /// A path is too long; the exit code, after printing the reason.
    pub(super) fn loaded_client(&mut self, line_bytes: usize) -> Result<(Client<'_>, &mut [u8]), u8> {
        // The configuration has been read, so the scratch memory is free.
        let (lines, rest) = self.memory.scratch.pages().split_at_mut_checked(line_bytes).unwrap_or_default();
        let config = &self.memory.config;
        let mut client = Client::new(self.service, self.command, config, lines)?;
        client.tried.set(&self.memory.tried);
        Ok((client, rest))
    }
}
