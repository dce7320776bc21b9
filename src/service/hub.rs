//! The service `hub`: each whole line of a client goes to all the others, with the
//! PID of its sender in front (`proto/hub.rs`).
//!
//! Nobody is waited for. A reader that is too slow loses lines, is told how many
//! when it reads again, and holds nobody up; one that is there for longest keeps its
//! slot, and the seventeenth reads `server full`. A client leaves when it ends its
//! input; half a line that it left is nobody's.

use super::base::{self, PollSource, Pulse, ServiceBase, ServiceStatus};
use super::connections::{self, Connection, Connections, Disconnected};
use super::lifecycle::StartReporter;
use super::listener::Access;
use super::memory::Memory;
use crate::limits::{
    ACCEPT_TURN, CHAT_LINE_BYTES, CLIENT_INPUT_BYTES, CLIENT_OUTPUT_BYTES, CLIENTS_MAX, JOINS_LOGGED_MAX,
};
use crate::proto::framing::{Framed, frame};
use crate::proto::hub::{FULL, TOO_LONG, push_line, push_lost};
use crate::proto::service::Service;
use crate::proto::status::StatusField;
use crate::state::rate_limit::RateLimit;
use crate::sys::socket::{self, Peer};
use crate::sys::{clock, process::Signal};
use crate::util::text::Writer;
use crate::util::time::Instant;
use heapless::Vec;
use ufmt::uwrite;

/// See the module's documentation.
struct Hub {
    base: ServiceBase,
    clients: &'static mut Connections,
    /// Lines that the client at each slot has not got, and was not told of.
    lost: [u32; CLIENTS_MAX],
    /// Lines that were passed on.
    lines: u64,
    /// Clients that there were.
    joined: u64,
    /// Joins and leaves that may still be logged.
    join_log_limit: RateLimit,
}

/// Runs the service until it is stopped; returns the exit code. (Not inlined: its
/// caller's frame would hold what every service needs.)
#[inline(never)]
pub fn serve(parts: &'static mut Memory, reporter: StartReporter) -> u8 {
    let mut base = ServiceBase::open(Service::Hub, parts, reporter);
    base.open_socket(&mut |_| {});
    let mut hub = Hub {
        base,
        clients: connections::take(),
        lost: [0; CLIENTS_MAX],
        lines: 0,
        joined: 0,
        join_log_limit: RateLimit::default(),
    };
    base::announce(&mut hub);
    hub.run();
    hub.finish()
}

impl ServiceStatus for Hub {
    #[unsafe(link_section = ".text.idle")]
    fn base(&self) -> &ServiceBase {
        &self.base
    }

    #[unsafe(link_section = ".text.idle")]
    fn base_mut(&mut self) -> &mut ServiceBase {
        &mut self.base
    }

    fn value(&self, field: StatusField, _: Instant) -> Option<u64> {
        Some(match field {
            StatusField::Joined => self.joined,
            StatusField::Clients => self.clients.count() as u64,
            StatusField::Lines => self.lines,
            _ => return None,
        })
    }
}

impl Hub {
    /// Runs turns until the service stops.
    #[inline(never)]
    #[unsafe(link_section = ".text.idle")]
    fn run(&mut self) {
        self.base.release_startup();
        while !self.base.stopping {
            self.turn();
        }
    }

    fn turn(&mut self) {
        let ready = self.base.wait(clock::now(), Some((self.clients, &|_| true)), None, &mut |_| {});
        let now = clock::now();
        if let Some(arrived) = self.base.take_signals(&ready) {
            if let Some((_, why)) = arrived.stop() {
                self.base.begin_stop(why, "");
            }
            if arrived.has(Signal::HUP) && self.base.reload() {
                self.base.finish_reload();
            }
            base::on_user_signals(self, arrived, now);
        }
        for source in &ready {
            if let PollSource::Client(slot) = *source {
                self.on_client(slot.into(), now);
            }
        }
        if ready.contains(&PollSource::Listener) {
            self.accept(now);
        }
        base::end_turn(self, now, !ready.is_empty(), Pulse::Own);
    }

    /// Something can be written to a client, or read from it.
    fn on_client(&mut self, slot: usize, now: Instant) {
        let stuck = self.clients.get(slot).is_some_and(Connection::is_stuck);
        let served = if stuck { self.catch_up(slot, now) } else { Ok(()) };
        if served.and_then(|()| self.take_lines(slot, now)) == Err(Disconnected) {
            self.leave(slot);
        }
    }

    /// Sends a slow reader what was kept for it, and then how much was not.
    fn catch_up(&mut self, slot: usize, now: Instant) -> Result<(), Disconnected> {
        self.clients.flush(slot, now)?;
        let stuck = self.clients.get(slot).is_none_or(Connection::is_stuck);
        match self.lost.get_mut(slot) {
            Some(lost) if *lost > 0 && !stuck => {
                let mut line = [0; 48];
                let mut out = Writer::new(&mut line);
                push_lost(core::mem::take(lost), &mut out);
                self.clients.send(slot, out.as_bytes(), now).map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Passes on one buffer of a client's lines. [`Disconnected`]: it left.
    #[inline(never)]
    fn take_lines(&mut self, slot: usize, now: Instant) -> Result<(), Disconnected> {
        let mut input = [0; CLIENT_INPUT_BYTES];
        let length = self.clients.take_input(slot, &mut input, now)?;
        let mut at = 0usize;
        loop {
            let rest = input.get(at..length).unwrap_or(&[]);
            let client = self.clients.get(slot).ok_or(Disconnected)?;
            let used = match frame(rest, CHAT_LINE_BYTES, client.skipping, client.ended) {
                Framed::Request(line, used) => {
                    self.pass_on(slot, client.peer.pid, line, now);
                    used
                }
                Framed::TooLong(used, end) => {
                    let _ = self.clients.send(slot, TOO_LONG, now)?;
                    self.clients.set_skipping(slot, !end);
                    used
                }
                Framed::Discard(0, _) | Framed::Unterminated(_) | Framed::Partial if client.ended => {
                    return Err(Disconnected);
                }
                Framed::Discard(0, _) | Framed::Unterminated(_) | Framed::Partial => break,
                Framed::Discard(used, end) => {
                    self.clients.set_skipping(slot, !end);
                    used
                }
            };
            at = at.saturating_add(used);
        }
        self.clients.keep(slot, input.get(at..length).unwrap_or(&[]), false, at > 0, now);
        Ok(())
    }

    /// Sends a line to everybody but its sender.
    #[inline(never)]
    fn pass_on(&mut self, from: usize, pid: u32, text: &[u8], now: Instant) {
        let mut line = [0; CLIENT_OUTPUT_BYTES];
        let mut out = Writer::new(&mut line);
        push_line(pid, text, &mut out);
        self.lines = self.lines.saturating_add(1);
        for slot in (0..CLIENTS_MAX).filter(|slot| *slot != from) {
            if self.clients.get(slot).is_some()
                && self.deliver(slot, out.as_bytes(), now) == Err(Disconnected)
            {
                self.leave(slot);
            }
        }
    }

    /// Sends a line, keeps it, or counts it as lost; once one is lost, so are all until
    /// the reader was told.
    fn deliver(&mut self, slot: usize, line: &[u8], now: Instant) -> Result<(), Disconnected> {
        let Some(lost) = self.lost.get_mut(slot) else { return Ok(()) };
        if *lost > 0 || self.clients.send(slot, line, now)? == 0 {
            *lost = lost.saturating_add(1);
        }
        Ok(())
    }

    // ----- who comes and goes -----------------------------------------------

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPT_TURN {
            let Some((connection, peer)) = self.base.listener.accept(now) else { return };
            match self.clients.add(connection, peer, Access::Guest, now) {
                Ok(slot) => {
                    self.lost.get_mut(slot).into_iter().for_each(|lost| *lost = 0);
                    self.joined = self.joined.saturating_add(1);
                    self.note(peer, "joined");
                }
                Err(connection) => {
                    let _ = socket::send(&connection, FULL);
                    socket::close(connection, self.base.scratch);
                }
            }
        }
    }

    fn leave(&mut self, slot: usize) {
        let Some(peer) = self.clients.get(slot).map(|client| client.peer) else { return };
        self.clients.close(slot, self.base.scratch);
        self.note(peer, "left");
    }

    /// `pid N (uid N) joined, N clients`; but whoever comes and goes all the time does not
    /// fill the log.
    fn note(&mut self, peer: Peer, what: &str) {
        if !self.join_log_limit.take(clock::now(), JOINS_LOGGED_MAX) {
            return;
        }
        let count = self.clients.count();
        self.base.log.info(&|out| {
            let _ = uwrite!(out, "pid {} (uid {}) {}, {} clients", peer.pid, peer.uid, what, count);
        });
    }

    #[inline(never)]
    fn finish(&mut self) -> u8 {
        let slots: Vec<usize, CLIENTS_MAX> = self.clients.connected().map(|(slot, _)| slot).collect();
        slots.iter().for_each(|slot| self.leave(*slot));
        let lines = self.lines;
        self.base.finish(&|out| {
            let _ = uwrite!(out, "passed on {} lines", lines);
        })
    }
}
