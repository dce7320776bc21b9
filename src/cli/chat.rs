//! `chat`: stdin to the hub, the hub to stdout.

use super::{Invocation, fail, print};
use crate::limits::{ANSWER_MAX_BYTES, CLIENT_OUTPUT_BYTES};
use crate::proto::chat::FULL;
use crate::proto::names::Service;
use crate::service::lifecycle::exit;
use crate::sys::poll::{Interest, PollSet};
use crate::sys::{AsFd, Errno, Failure, OwnedFd, fds, file, signal, socket};
use core::ops::Range;

/// What a poll result is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
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
        client.connect_or_tell("chat")?;
        let Some(socket) = client.socket.take() else { return Ok(exit::FAILED) };
        let (heard, typed) = buffer.split_at_mut(buffer.len() / 2);
        let mut chat = Chat { socket, typed, unsent: 0..0, typing: true, last: b'\n' };
        Ok(chat.talk(heard))
    });
    talked.unwrap_or_else(|code| code)
}

impl Chat<'_> {
    /// Until the hub closes the connection, which it does when we end our input.
    fn talk(&mut self, heard: &mut [u8]) -> u8 {
        let mut first = true;
        loop {
            let (hub, stdin) = self.wait();
            if hub {
                match socket::receive(&self.socket, heard) {
                    Ok(0) | Err(Failure { errno: Errno::CONNRESET, .. }) => return exit::OK,
                    Ok(count) => {
                        let text = heard.get(..count).unwrap_or(&[]);
                        if first && text.starts_with(FULL) {
                            return fail(exit::FAILED, &|out| {
                                out.push_str("chat: server full; try again later")
                            });
                        }
                        first = false;
                        if print(text) != exit::OK {
                            return exit::FAILED;
                        }
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

    /// Polls; whether the hub and whether stdin have something.
    fn wait(&self) -> (bool, bool) {
        let mut set = PollSet::new();
        let interest = if self.unsent.is_empty() { Interest::Input } else { Interest::Both };
        set.watch(self.socket.as_fd(), interest, Source::Hub);
        if self.typing && self.unsent.is_empty() {
            set.watch(fds::borrow(0), Interest::Input, Source::Stdin);
        }
        set.wait(None);
        let ready = |source| set.ready().any(|known| known == source);
        (ready(Source::Hub), ready(Source::Stdin))
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

/// What the hub may say at once fits.
const _: () = assert!(CLIENT_OUTPUT_BYTES < (crate::limits::SCRATCH_BYTES - ANSWER_MAX_BYTES) / 2);
