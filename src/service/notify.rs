//! Messages to the service manager that started a service under `run` and set
//! `NOTIFY_SOCKET` (sd_notify(3)). Without it these functions do nothing. With it
//! none of them waits, fails or ends the service.
//!
//! The base of a service calls [`Notify::ready`], [`Notify::reloading`],
//! [`Notify::reloaded`] and [`Notify::stopping`] at these events, and
//! [`Notify::status`] and [`Notify::turn_finished`] in each turn of the loop.
//! The loop wakes at [`Notify::next_deadline`].

use crate::limits::NOTIFY_STATUS_BYTES;
use crate::proto::notify::{NotifyState, watchdog_every};
use crate::state::notify::NotifyQueue;
use crate::sys::datagram::Sender;
use crate::sys::{clock, process};
use crate::util::text::Writer;
use crate::util::time::Instant;
use heapless::Vec;

/// Added to the status while the file is not the configuration in force.
const REFUSED: &str = "; the config was refused, the old one stays";
/// Bytes of one datagram: the states with their numbers, and the status.
const MESSAGE_BYTES: usize = 80 + NOTIFY_STATUS_BYTES + REFUSED.len();

/// The environment of the service manager. All are unset except under `run`.
#[derive(Clone, Copy)]
pub struct Init {
    /// `NOTIFY_SOCKET`: the address for messages.
    pub notify_socket: Option<&'static [u8]>,
    /// `WATCHDOG_USEC`: the longest time between two signs of life.
    pub watchdog_usec: Option<&'static [u8]>,
    /// `WATCHDOG_PID`: the process that has to show that it lives.
    pub watchdog_pid: Option<&'static [u8]>,
}

impl Init {
    /// No service manager.
    pub const NONE: Self = Self { notify_socket: None, watchdog_usec: None, watchdog_pid: None };
}

/// See the module's documentation.
pub struct Notify(Option<Manager>);

/// A service manager that set `NOTIFY_SOCKET`.
struct Manager {
    sender: Sender,
    queue: NotifyQueue,
    pid: u32,
    status: Vec<u8, NOTIFY_STATUS_BYTES>,
    /// The last reload was refused.
    refused: bool,
}

impl Notify {
    /// Reads the environment. To be called in the process that will serve.
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

    /// Returns true if there is a service manager, so that a status has to be written.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.0.is_some()
    }

    /// Reports that the service is ready.
    pub fn ready(&mut self) {
        self.announce(NotifyState::Ready);
    }

    /// Reports that a reload begins. [`Notify::reloaded`] ends it.
    pub fn reloading(&mut self) {
        if self.is_wanted() {
            self.announce(NotifyState::Reloading(clock::monotonic_us()));
        }
    }

    /// Reports that the reload has ended. `accepted` is true if a new configuration is in force.
    pub fn reloaded(&mut self, accepted: bool) {
        if let Some(manager) = &mut self.0
            && manager.refused == accepted
        {
            manager.refused = !accepted;
            manager.queue.on_status();
        }
        self.announce(NotifyState::Ready);
    }

    /// Reports that the service is stopping.
    pub fn stopping(&mut self) {
        self.announce(NotifyState::Stopping);
    }

    /// Sets the status, which is one line. The next message reports it if it has changed.
    pub fn status(&mut self, line: &[u8]) {
        let Some(manager) = &mut self.0 else { return };
        let line = line.get(..NOTIFY_STATUS_BYTES).unwrap_or(line);
        if manager.status != line {
            manager.status.clear();
            let _ = manager.status.extend_from_slice(line);
            manager.queue.on_status();
        }
    }

    /// Returns the time at which the loop has to wake, so that a finished turn feeds the watchdog.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.0.as_ref().and_then(|manager| manager.queue.next_deadline())
    }

    /// Feeds the watchdog, if that is due, for a finished turn that began at `now`.
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
    /// Sends the messages of the queue, until one is not taken.
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
