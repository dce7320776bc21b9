//! `chat`: sends stdin to the hub, and prints the lines of the hub.

use super::invocation::Invocation;
use super::output::{CommandResult, fail, print};
use crate::limits::{ANSWER_MAX_BYTES, ANSWER_WAIT, CLIENT_OUTPUT_BYTES};
use crate::proto::hub::FULL;
use crate::proto::service::Service;
use crate::service::lifecycle::exit;
use crate::sys::poll::{Interest, PollSet};
use crate::sys::{AsFd, Errno, Failure, OwnedFd, clock, fds, file, signal, socket};
use crate::util::text::Writer;
use core::ops::Range;

/// A descriptor that poll(2) found ready.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ChatSource {
    Hub,
    Stdin,
}

/// A connection to the hub.
struct Chat<'a> {
    socket: OwnedFd,
    /// The bytes of stdin, of which the hub has not taken `unsent` yet.
    typed: &'a mut [u8],
    unsent: Range<usize>,
    /// Set until stdin ends.
    typing: bool,
    /// The last byte of stdin; a newline before the first byte.
    last: u8,
}

/// Runs `chat`.
pub(super) fn chat(mut invocation: Invocation) -> CommandResult {
    invocation.service = Service::Hub;
    signal::ignore_broken_pipes();
    let (mut client, buffer) = invocation.client(ANSWER_MAX_BYTES)?;
    client.connect_or_report()?;
    let socket = client.socket.take().ok_or(exit::FAILED)?;
    let (heard, typed) = buffer.split_at_mut(buffer.len() / 2);
    let mut chat = Chat { socket, typed, unsent: 0..0, typing: true, last: b'\n' };
    chat.run(heard)
}

impl Chat<'_> {
    /// Runs until the hub closes the connection, which it does after the end of stdin.
    fn run(&mut self, heard: &mut [u8]) -> CommandResult {
        let (mut held, mut first) = (0usize, true);
        loop {
            let (hub, stdin) = self.wait().ok_or_else(|| report("no answer within 30 s"))?;
            if hub {
                match socket::receive(&self.socket, heard.get_mut(held..).unwrap_or(&mut [])) {
                    Ok(0) | Err(Failure { errno: Errno::CONNRESET, .. }) => {
                        show(heard.get(..held).unwrap_or(&[]))?;
                        return Ok(exit::OK);
                    }
                    Ok(count) => {
                        held = held.saturating_add(count);
                        let text = heard.get(..held).unwrap_or(&[]);
                        if core::mem::take(&mut first) && text.starts_with(FULL) {
                            return Err(report("server full; try again later"));
                        }
                        let whole = text.iter().rposition(|byte| *byte == b'\n');
                        // A hub sends no line that fills the memory; another service can.
                        let full = if held == heard.len() { held } else { 0 };
                        let shown = whole.map_or(full, |last| last.saturating_add(1));
                        show(heard.get(..shown).unwrap_or(&[]))?;
                        heard.copy_within(shown..held, 0);
                        held = held.saturating_sub(shown);
                    }
                    Err(Failure { errno: Errno::AGAIN, .. }) => {}
                    Err(failure) => {
                        return Err(fail(exit::FAILED, &|out| {
                            out.push_str("chat: ");
                            failure.describe(out);
                        }));
                    }
                }
            }
            if stdin {
                self.read();
            }
            self.send();
        }
    }

    /// Waits; returns whether the hub and whether stdin are ready. Returns `None` if the hub
    /// has not taken the sent bytes, or not closed the connection, within [`ANSWER_WAIT`].
    fn wait(&self) -> Option<(bool, bool)> {
        let mut set = PollSet::new();
        let interest = if self.unsent.is_empty() { Interest::Input } else { Interest::Both };
        set.watch(self.socket.as_fd(), interest, ChatSource::Hub);
        if self.typing && self.unsent.is_empty() {
            set.watch(fds::borrow(0), Interest::Input, ChatSource::Stdin);
        }
        let owes = !self.typing || !self.unsent.is_empty();
        let deadline = clock::now() + ANSWER_WAIT;
        set.wait(owes.then_some(ANSWER_WAIT));
        let ready = |source| set.ready().any(|known| known == source);
        let (hub, stdin) = (ready(ChatSource::Hub), ready(ChatSource::Stdin));
        (hub || stdin || !owes || !deadline.is_due(clock::now())).then_some((hub, stdin))
    }

    /// Reads stdin. Adds a newline at its end if the last line has none.
    fn read(&mut self) {
        match file::read(fds::borrow(0), self.typed) {
            Err(Failure { errno: Errno::AGAIN, .. }) => {}
            Ok(count @ 1..) => {
                self.unsent = 0..count;
                self.last = self.typed.get(count.saturating_sub(1)).copied().unwrap_or(b'\n');
            }
            Ok(_) | Err(_) => {
                self.typing = false;
                if let (true, Some(byte)) = (self.last != b'\n', self.typed.first_mut()) {
                    *byte = b'\n';
                    self.unsent = 0..1;
                }
            }
        }
    }

    /// Sends as many bytes as the hub takes now. Drops them if the hub has closed the
    /// connection, because its last lines are still to be read.
    fn send(&mut self) {
        while let Some(rest) = self.typed.get(self.unsent.clone()).filter(|rest| !rest.is_empty()) {
            match socket::send(&self.socket, rest) {
                Ok(count) => self.unsent.start = self.unsent.start.saturating_add(count),
                Err(Failure { errno: Errno::AGAIN, .. }) => return,
                Err(_) => (self.unsent, self.typing) = (0..0, false),
            }
        }
        if !self.typing {
            socket::end_sending(&self.socket);
        }
    }
}

/// Prints an error; returns the exit code.
fn report(why: &str) -> u8 {
    fail(exit::FAILED, &|out| {
        out.push_str("chat: ");
        out.push_str(why);
    })
}

/// Prints lines. A hub sends no byte that a terminal obeys, but the peer can be another
/// program, so they are escaped again.
fn show(lines: &[u8]) -> Result<(), u8> {
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let mut text = [0; 4 * CLIENT_OUTPUT_BYTES];
        let mut out = Writer::new(&mut text);
        out.push_visible(line.strip_suffix(b"\n").unwrap_or(line));
        out.end_line();
        print(out.as_bytes())?;
    }
    Ok(())
}

// The longest answer of the hub fits the buffer.
const _: () = assert!(CLIENT_OUTPUT_BYTES < (crate::limits::SCRATCH_BYTES - ANSWER_MAX_BYTES) / 2);
