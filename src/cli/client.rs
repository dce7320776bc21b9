//! A connection to the control socket of a service: requests out, lines in,
//! each with a deadline (docs/control.md).

use super::{Invocation, fail};
use crate::limits::{ANSWER_WAIT, CONNECT_RETRY, CONNECT_WAIT, REQUEST_MAX_BYTES};
use crate::proto::config::Config;
use crate::proto::control::split;
use crate::proto::service::Service;
use crate::service::config_source::{ServiceFile, path_of};
use crate::service::lifecycle::{describe_at, exit};
use crate::sys::lock::{Holder, holder};
use crate::sys::poll::{Interest, PollSet};
use crate::sys::{AsFd, Errno, Failure, Op, OwnedFd, clock, fds, identity, poll, socket};
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};
use core::ops::Range;
use ufmt::uwrite;

/// A deadline that never comes.
pub(super) const NEVER: Option<Instant> = None;

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientError {
    /// Nobody holds the service's lock.
    NotRunning,
    /// A system call failed; also: it runs, and its socket takes nobody.
    Failed(Failure),
    /// The other end closed the connection.
    Closed,
    /// The deadline passed.
    TimedOut,
    /// What came is not an answer.
    Garbage,
    /// It was told, or needs no words; the exit code.
    Reported(u8),
}

/// An answer, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer<'a> {
    /// What stands behind `ok`.
    Ok(&'a [u8]),
    /// Code and text behind `err`.
    Refused(&'a [u8], &'a [u8]),
    /// Neither.
    Garbage,
}

impl<'a> Answer<'a> {
    /// Takes a line apart.
    pub(super) fn parse(line: &'a [u8]) -> Self {
        let (word, rest) = split(line);
        match word {
            b"ok" => Self::Ok(rest),
            b"err" if !rest.is_empty() => {
                let (code, text) = split(rest);
                Self::Refused(code, text)
            }
            _ => Self::Garbage,
        }
    }
}

/// A client of one service.
pub(super) struct Client<'m> {
    service: Service,
    /// The PID file, whose lock says whether the service runs.
    pub(super) pid_path: Path,
    socket_path: Path,
    /// The connection, while there is one.
    pub(super) socket: Option<OwnedFd>,
    /// What came and was not looked at: `buffer[start..end]`.
    buffer: &'m mut [u8],
    start: usize,
    end: usize,
    /// While waiting for a line, look whether stdout is still read: when it is
    /// not, that is the end.
    pub(super) minds_stdout: bool,
}

impl<'m> Client<'m> {
    /// A client that is not connected yet; lines are read into `buffer`.
    pub(super) fn new(service: Service, config: &Config, buffer: &'m mut [u8]) -> Result<Self, u8> {
        let own = |file| path_of(service, file, config);
        let (Some(pid_path), Some(socket_path)) = (own(ServiceFile::Pid), own(ServiceFile::Socket)) else {
            return Err(fail(exit::CONFIG, &|out| out.push_str("socket: its folder's path is too long")));
        };
        Ok(Self {
            service,
            pid_path,
            socket_path,
            socket: None,
            buffer,
            start: 0,
            end: 0,
            minds_stdout: false,
        })
    }

    /// Connects. While the service runs but takes nobody (it starts, or makes
    /// its socket anew), tries again until `deadline`.
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
            let nobody =
                matches!(failure.errno, Errno::NOENT | Errno::NOTDIR | Errno::CONNREFUSED | Errno::AGAIN);
            if !nobody {
                return Err(ClientError::Failed(failure));
            }
            if let Ok(Holder::Died | Holder::Stopped) = holder(self.pid_path.as_c_str()) {
                return Err(ClientError::NotRunning);
            }
            let left = clock::now().until(deadline);
            if left.is_zero() {
                return Err(ClientError::Failed(failure));
            }
            poll::sleep(left.at_most(CONNECT_RETRY));
        }
    }

    /// Whether this may be the service. An abstract name can be taken by anybody while the
    /// service does not run; so it must be root's, our own, or the holder of the lock. (The
    /// credentials are those of whoever listens.)
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

    /// As [`Client::connect`] with the usual patience, and tells.
    pub(super) fn connect_or_report(&mut self, verb: &str) -> Result<(), u8> {
        let deadline = clock::now() + CONNECT_WAIT;
        self.connect(deadline).map_err(|error| self.report(verb, error))
    }

    /// As [`Client::connect`], through a restart of the service too.
    pub(super) fn connect_again(&mut self, deadline: Instant) -> Result<(), ClientError> {
        loop {
            match self.connect(deadline) {
                Err(ClientError::NotRunning) if !deadline.is_due(clock::now()) => poll::sleep(CONNECT_RETRY),
                result => return result,
            }
        }
    }

    /// Ends the connection; what came and was not looked at is forgotten.
    pub(super) fn close(&mut self) {
        self.socket = None;
        (self.start, self.end) = (0, 0);
    }

    /// Sends one request, made of `parts`. Where nobody takes it any more, the
    /// last word of the other end is still to be read, so that is no error.
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

    /// The next line, which [`Client::at`] shows.
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

    /// The next line of what has come.
    pub(super) fn next_line(&mut self) -> Option<Range<usize>> {
        let unseen = self.buffer.get(self.start..self.end)?;
        let length = unseen.iter().position(|byte| *byte == b'\n')?;
        let line = self.start..self.start.saturating_add(length);
        self.start = line.end.saturating_add(1);
        Some(line)
    }

    /// The bytes of a line, until the next one is asked for.
    pub(super) fn at(&self, line: Range<usize>) -> &[u8] {
        self.buffer.get(line).unwrap_or(&[])
    }

    /// Takes what has come; false if that is nothing.
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

    /// Sends a request and gives what stands behind `ok` in its answer, or
    /// the exit code after telling.
    pub(super) fn ask(&mut self, verb: &str, parts: &[&[u8]]) -> Result<&[u8], u8> {
        self.ask_until(Some(clock::now() + ANSWER_WAIT), verb, parts)
    }

    /// As [`Client::ask`], with another deadline for the answer.
    pub(super) fn ask_until(
        &mut self,
        deadline: Option<Instant>,
        verb: &str,
        parts: &[&[u8]],
    ) -> Result<&[u8], u8> {
        let line = match self.send(parts).and_then(|()| self.line(deadline)) {
            Ok(line) => line,
            Err(error) => return Err(self.report(verb, error)),
        };
        match Answer::parse(self.at(line)) {
            Answer::Ok(text) => Ok(text),
            Answer::Refused(code, text) => Err(report_refused(verb, code, text)),
            Answer::Garbage => Err(self.report(verb, ClientError::Garbage)),
        }
    }

    /// Tells why there is no answer; the exit code.
    #[inline(never)]
    pub(super) fn report(&self, verb: &str, error: ClientError) -> u8 {
        let code = match error {
            ClientError::NotRunning => exit::NOT_RUNNING,
            ClientError::Failed(failure) if failure.is_denied() => exit::NO_PRIVILEGE,
            ClientError::Failed(Failure { errno: Errno::NAMETOOLONG, .. }) => exit::CONFIG,
            ClientError::Reported(code) => return code,
            _ => exit::FAILED,
        };
        fail(code, &|out| match error {
            ClientError::NotRunning => {
                let _ = uwrite!(out, "{}: not running", self.service.name());
            }
            ClientError::Failed(failure) => {
                describe_at(&self.socket_path, failure, out);
                out.push_str(match code {
                    exit::NO_PRIVILEGE => "; needs root, or an entry for you in allow_uid or allow_gid",
                    exit::CONFIG => {
                        "; the path of a socket has at most 107 bytes: see the keys socket and -d"
                    }
                    _ => "",
                });
            }
            _ => {
                out.push_str(verb);
                out.push_str(match error {
                    ClientError::TimedOut => ": no answer within 30 s",
                    ClientError::Closed => ": the connection was closed before the answer came",
                    _ => ": the answer is not one of this protocol",
                });
            }
        })
    }
}

/// Tells that a request was refused; the exit code.
pub(super) fn report_refused(verb: &str, code: &[u8], text: &[u8]) -> u8 {
    fail(if code == b"denied" { exit::NO_PRIVILEGE } else { exit::FAILED }, &|out| {
        out.push_str(verb);
        out.push_str(": ");
        push_refusal(code, text, out);
    })
}

/// `text (code)`, escaped.
pub(super) fn push_refusal(code: &[u8], text: &[u8], out: &mut Writer<'_>) {
    out.push_escaped(text);
    out.push_str(" (");
    out.push_escaped(code);
    out.push_str(")");
}

impl Invocation {
    /// A client of the service, not connected yet, with the scratch memory
    /// for its lines; and the rest of that memory.
    pub(super) fn client(&mut self, line_bytes: usize) -> Result<(Client<'_>, &mut [u8]), u8> {
        self.load_or_defaults();
        // The scratch memory is free: the configuration is read.
        let (lines, rest) = self.memory.scratch.pages().split_at_mut_checked(line_bytes).unwrap_or_default();
        let config = &self.memory.config;
        Client::new(self.service, config, lines).map(|client| (client, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_ok_or_err_and_nothing_else() {
        assert_eq!(Answer::parse(b"ok"), Answer::Ok(b""));
        assert_eq!(Answer::parse(b"ok id=7"), Answer::Ok(b"id=7"));
        assert_eq!(Answer::parse(b"err full no room"), Answer::Refused(b"full", b"no room"));
        assert_eq!(Answer::parse(b"err full"), Answer::Refused(b"full", b""));
        for line in [&b""[..], b"okay", b"err", b"err ", b"event 1"] {
            assert_eq!(Answer::parse(line), Answer::Garbage, "{line:?}");
        }
    }
}
