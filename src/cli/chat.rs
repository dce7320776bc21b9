//! `chat`: stdin to the hub, the hub to stdout.

use super::{Invocation, fail, print};
use crate::limits::{ANSWER_MAX_BYTES, ANSWER_WAIT, CLIENT_OUTPUT_BYTES};
use crate::proto::hub::FULL;
use crate::proto::service::Service;
use crate::service::lifecycle::exit;
use crate::sys::poll::{Interest, PollSet};
use crate::sys::{AsFd, Errno, Failure, OwnedFd, clock, fds, file, signal, socket};
use crate::util::text::Writer;
use core::ops::Range;

/// What a poll result is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ChatSource {
    Hub,
    Stdin,
}

/// A conversation: what was typed and the hub has not taken yet.
struct Chat<'a> {
    socket: OwnedFd,
    typed: &'a mut [u8],
    unsent: Range<usize>,
    /// More may be typed.
    typing: bool,
    /// The last byte of what was typed; a newline if that is nothing.
    last: u8,
}

/// `chat`
pub(super) fn chat(mut invocation: Invocation) -> u8 {
    invocation.service = Service::Hub;
    signal::ignore_broken_pipes();
    let talked = invocation.client(ANSWER_MAX_BYTES).and_then(|(mut client, buffer)| {
        client.connect_or_report("chat")?;
        let Some(socket) = client.socket.take() else { return Ok(exit::FAILED) };
        let (heard, typed) = buffer.split_at_mut(buffer.len() / 2);
        let mut chat = Chat { socket, typed, unsent: 0..0, typing: true, last: b'\n' };
        Ok(chat.run(heard))
    });
    talked.unwrap_or_else(|code| code)
}

impl Chat<'_> {
    /// Until the hub closes the connection, which it does when we end our input.
    fn run(&mut self, heard: &mut [u8]) -> u8 {
        let (mut held, mut first) = (0usize, true);
        loop {
            let (hub, stdin) = match self.wait() {
                Some(ready) => ready,
                None => return fail(exit::FAILED, &|out| out.push_str("chat: no answer within 30 s")),
            };
            if hub {
                match socket::receive(&self.socket, heard.get_mut(held..).unwrap_or(&mut [])) {
                    Ok(0) | Err(Failure { errno: Errno::CONNRESET, .. }) => {
                        return show(heard.get(..held).unwrap_or(&[]));
                    }
                    Ok(count) => {
                        held = held.saturating_add(count);
                        let text = heard.get(..held).unwrap_or(&[]);
                        if core::mem::take(&mut first) && text.starts_with(FULL) {
                            return fail(exit::FAILED, &|out| {
                                out.push_str("chat: server full; try again later")
                            });
                        }
                        let whole = text.iter().rposition(|byte| *byte == b'\n');
                        // (a line that fills the memory is none of a hub's)
                        let full = if held == heard.len() { held } else { 0 };
                        let shown = whole.map_or(full, |last| last.saturating_add(1));
                        if show(heard.get(..shown).unwrap_or(&[])) != exit::OK {
                            return exit::FAILED;
                        }
                        heard.copy_within(shown..held, 0);
                        held = held.saturating_sub(shown);
                    }
                    Err(Failure { errno: Errno::AGAIN, .. }) => {}
                    Err(failure) => {
                        return fail(exit::FAILED, &|out| {
                            out.push_str("chat: ");
                            failure.describe(out);
                        });
                    }
                }
            }
            if stdin {
                self.read();
            }
            self.send();
        }
    }

    /// Polls; whether the hub and whether stdin have something. `None`: the hub has taken
    /// nothing for long, or has not ended the conversation that we ended.
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

    /// Takes what was typed. The last line may have no newline; it is a line all the
    /// same.
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

    /// Sends as much as is taken now. What nobody takes any more is dropped: the hub
    /// has gone, and its last words are still to be read.
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

/// Prints lines. A hub lets nothing through that a terminal obeys; but who knows whether
/// this is one.
fn show(lines: &[u8]) -> u8 {
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let mut text = [0; 4 * CLIENT_OUTPUT_BYTES];
        let mut out = Writer::new(&mut text);
        out.push_visible(line.strip_suffix(b"\n").unwrap_or(line));
        out.end_line();
        if print(out.as_bytes()) != exit::OK {
            return exit::FAILED;
        }
    }
    exit::OK
}

/// What the hub may say at once fits.
const _: () = assert!(CLIENT_OUTPUT_BYTES < (crate::limits::SCRATCH_BYTES - ANSWER_MAX_BYTES) / 2);
