//! Sends messages to the service manager that started a service with `run`, if it set
//! `NOTIFY_SOCKET` (sd_notify(3)). Without that variable, all functions here do nothing. No
//! function waits, fails or ends the service.
//!
//! A service calls [`Notify::ready`], [`Notify::reloading`], [`Notify::reloaded`] and
//! [`Notify::stopping`] at these changes. In each turn of its loop it calls [`Notify::status`]
//! and [`Notify::turn_finished`] with the heartbeat. [`Notify::next_deadline`] is one of the
//! deadlines of the loop.

use crate::limits::NOTIFY_STATUS_BYTES;
use crate::proto::notify::{NotifyState, watchdog_every};
use crate::state::notify::NotifyQueue;
use crate::sys::datagram::Sender;
use crate::sys::{clock, process};
use crate::util::text::Writer;
use crate::util::time::Instant;
use heapless::Vec;

/// The part of the status that reports an invalid configuration file, while the previous
/// configuration is in force.
const REFUSED: &str = "; the config was refused, the old one stays";
/// Bytes of one datagram: the state with its number, and the status.
const MESSAGE_BYTES: usize = 80 + NOTIFY_STATUS_BYTES + REFUSED.len();

/// The variables that a service manager sets in the environment. They are all unset except
/// under `run`.
#[derive(Clone, Copy)]
pub struct Init {
    /// The value of `NOTIFY_SOCKET`: the address for the messages.
    pub notify_socket: Option<&'static [u8]>,
    /// The value of `WATCHDOG_USEC`: the time within which the manager expects a message, in
    /// microseconds.
    pub watchdog_usec: Option<&'static [u8]>,
    /// The value of `WATCHDOG_PID`: the process from which the manager expects it.
    pub watchdog_pid: Option<&'static [u8]>,
}

impl Init {
    /// The variables if none is set.
    pub const NONE: Self = Self { notify_socket: None, watchdog_usec: None, watchdog_pid: None };
}

/// The connection to a service manager, if there is one.
pub struct Notify(Option<Manager>);

/// A service manager that expects messages.
struct Manager {
    sender: Sender,
    queue: NotifyQueue,
    pid: u32,
    status: Vec<u8, NOTIFY_STATUS_BYTES>,
    /// True if the last reload was refused.
    refused: bool,
}

impl Notify {
    /// Prepares the messages according to the environment. It must be called in the process
    /// that serves, because the PID is part of the messages.
    #[must_use]
    pub fn new(init: &Init) -> Self {
        let pid = u32::try_from(process::pid().as_raw_pid()).unwrap_or(0);
        Self(init.notify_socket.and_then(Sender::to).map(|sender| Manager {
            sender,
            queue: NotifyQueue::new(watchdog_every(init.watchdog_usec, init.watchdog_pid, pid), clock::now()),
            pid,
            status: Vec::new(),
            refused: false,
        }))
    }

    /// Returns true if a service manager expects messages. If not, no status needs to be
    /// written.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.0.is_some()
    }

    /// Reports that the service is ready.
    pub fn ready(&mut self) {
        self.announce(NotifyState::Ready);
    }

    /// Reports that a reload begins. [`Notify::reloaded`] must follow.
    pub fn reloading(&mut self) {
        if self.is_wanted() {
            self.announce(NotifyState::Reloading(clock::monotonic_us()));
        }
    }

    /// Reports that a reload has ended. `accepted` is true if the new configuration is in
    /// force.
    pub fn reloaded(&mut self, accepted: bool) {
        if let Some(manager) = &mut self.0
            && manager.refused == accepted
        {
            manager.refused = !accepted;
            manager.queue.on_status();
        }
        self.announce(NotifyState::Ready);
    }

    /// Reports that the service is about to stop.
    pub fn stopping(&mut self) {
        self.announce(NotifyState::Stopping);
    }

    /// Sets the description of the service's state, one line of up to [`NOTIFY_STATUS_BYTES`].
    /// A longer one is cut. A new description is sent with the next message.
    pub fn status(&mut self, line: &[u8]) {
        let Some(manager) = &mut self.0 else { return };
        let line = line.get(..NOTIFY_STATUS_BYTES).unwrap_or(line);
        if manager.status != line {
            manager.status.clear();
            let _ = manager.status.extend_from_slice(line);
            manager.queue.on_status();
        }
    }

    /// Returns the time at which the loop has to wake up, so that a finished turn kicks the
    /// watchdog.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.0.as_ref().and_then(|manager| manager.queue.next_deadline())
    }

    /// Records that a turn of the loop, which began at `now`, was finished. Sends the messages
    /// that are due.
    pub fn turn_finished(&mut self, now: Instant) {
        if let Some(manager) = &mut self.0
            && manager.queue.on_turn(now)
        {
            manager.send(now);
        }
    }

    fn announce(&mut self, state: NotifyState) {
        if let Some(manager) = &mut self.0 {
            manager.queue.on_state(state);
            manager.send(clock::now());
        }
    }
}

impl Manager {
    /// Sends all messages, until one is not accepted.
    #[inline(never)]
    fn send(&mut self, now: Instant) {
        while let Some(message) = self.queue.next_message() {
            let mut bytes = [0; MESSAGE_BYTES];
            let mut out = Writer::new(&mut bytes);
            message.emit(self.pid, (&self.status, if self.refused { REFUSED } else { "" }), &mut out);
            if self.sender.send(out.as_bytes()).is_err() {
                return self.queue.on_refused(now);
            }
            self.queue.on_sent();
        }
    }
}
