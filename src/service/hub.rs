//! The service `hub`: each whole line of a client goes to all other clients, with the PID
//! of its sender in front (`proto/hub.rs`).
//!
//! The hub waits for no client. A reader that is too slow loses lines, and is sent their
//! number when it reads again. A client keeps its slot until it leaves; if all are taken, a
//! new one reads `server full`. A client leaves when it ends its input. The hub drops a
//! line that was not finished then.

use super::base::{self, PollSource, Pulse, ServiceBase, ServiceStatus};
use super::connections::{self, Connections, Disconnected, Server, Taken};
use super::lifecycle::StartReporter;
use super::memory::Memory;
use crate::limits::{CHAT_LINE_BYTES, CLIENT_OUTPUT_BYTES, CLIENTS_MAX};
use crate::proto::framing::{Framed, frame};
use crate::proto::hub::{FULL, TOO_LONG, push_line, push_lost};
use crate::proto::service::Service;
use crate::proto::status::StatusField;
use crate::state::access::Access;
use crate::state::clients::{Admission, ClientSlot, Reading};
use crate::state::joins::Joins;
use crate::state::rate_limit::RateLimit;
use crate::sys::socket::Peer;
use crate::sys::{OwnedFd, clock, identity, process::Signal};
use crate::util::text::Writer;
use crate::util::time::Instant;
use core::iter;
use ufmt::uwrite;

/// Maximum number of joins and leaves of the hub that are logged in one minute, which is one
/// of each for all its clients. All joins are counted.
const JOINS_LOGGED_MAX: u32 = 32;

/// See the module's documentation.
struct Hub {
    base: &'static mut ServiceBase,
    connections: &'static mut Connections,
    /// For the client at each slot: lines that it lost and was not sent the number of.
    lost: [u32; CLIENTS_MAX],
    /// Lines that were passed on.
    lines: u64,
    /// Clients that have joined. A probe counts only until it is recognised.
    joined: u64,
    joins: Joins,
    join_log_limit: RateLimit,
}

/// Runs the service until it is stopped; returns the exit code. Not inlined, because the
/// frame of its caller would hold what every service needs.
#[inline(never)]
pub fn serve(parts: &'static mut Memory, reporter: StartReporter) -> u8 {
    let base = ServiceBase::open(Service::Hub, parts, reporter);
    base.open_socket(&mut |_| {});
    let mut hub = Hub {
        base,
        connections: connections::take(),
        lost: [0; CLIENTS_MAX],
        lines: 0,
        joined: 0,
        joins: Joins::NONE,
        join_log_limit: RateLimit::default(),
    };
    base::announce(&mut hub);
    hub.run();
    hub.finish()
}

impl ServiceStatus for Hub {
    #[unsafe(link_section = ".text.idle")]
    fn base(&self) -> &ServiceBase {
        self.base
    }

    #[unsafe(link_section = ".text.idle")]
    fn base_mut(&mut self) -> &mut ServiceBase {
        self.base
    }

    fn value(&self, field: StatusField, _: Instant) -> Option<u64> {
        Some(match field {
            StatusField::Joined => self.joined,
            StatusField::Clients => self.connections.clients.count() as u64,
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
        let ready = self.base.wait(
            clock::now(),
            Some((self.connections, &|_| Reading::Requests)),
            self.joins.next_deadline(),
            &mut iter::empty(),
        );
        let now = clock::now();
        if let Some(arrived) = self.base.take_signals(&ready) {
            if let Some((_, why)) = arrived.stop() {
                self.base.begin_stop(why, "");
            }
            base::on_user_signals(self, arrived, now);
            if arrived.has(Signal::HUP) && self.base.reload() {
                self.base.finish_reload();
            }
        }
        connections::serve(self, &mut ready.iter().filter_map(PollSource::client_slot), now);
        if ready.contains(&PollSource::Listener) {
            connections::accept(self, now);
        }
        while let Some(slot) = self.joins.next_due(now) {
            self.announce_join(slot);
        }
        base::end_turn(self, now, !ready.is_empty(), Pulse::Own);
    }

    /// Sends a line to all clients but its sender.
    #[inline(never)]
    fn pass_on(&mut self, from: usize, text: &[u8], now: Instant) {
        let mut line = [0; CLIENT_OUTPUT_BYTES];
        let mut out = Writer::new(&mut line);
        push_line(self.connections.peer(from).pid, text, &mut out);
        self.lines = self.lines.saturating_add(1);
        for slot in (0..CLIENTS_MAX).filter(|slot| *slot != from) {
            if self.connections.clients.get(slot).is_some()
                && self.deliver(slot, out.as_bytes(), now) == Err(Disconnected)
            {
                self.close(slot);
            }
        }
    }

    /// Sends a line, keeps it, or counts it as lost. After one lost line all lines are lost
    /// until the client was sent their number.
    fn deliver(&mut self, slot: usize, line: &[u8], now: Instant) -> Result<(), Disconnected> {
        let Some(lost) = self.lost.get_mut(slot) else { return Ok(()) };
        if *lost > 0 || self.connections.send(slot, line, now)? == 0 {
            *lost = lost.saturating_add(1);
        }
        Ok(())
    }

    /// Logs a new client.
    fn announce_join(&mut self, slot: usize) {
        self.log_event(self.connections.peer(slot), "joined");
    }

    /// Logs `pid N (uid N) joined, N clients`, up to a limit.
    fn log_event(&mut self, peer: Peer, event: &str) {
        if !self.join_log_limit.take(clock::now(), JOINS_LOGGED_MAX) {
            return;
        }
        let count = self.connections.clients.count();
        self.base.log.info(&|out| {
            let _ = uwrite!(out, "pid {} (uid {}) {}, {} clients", peer.pid, peer.uid, event, count);
        });
    }

    #[inline(never)]
    fn finish(&mut self) -> u8 {
        (0..CLIENTS_MAX).for_each(|slot| self.close(slot));
        let lines = self.lines;
        self.base.finish(&|out| {
            let _ = uwrite!(out, "passed on {} lines", lines);
        })
    }
}

impl Server for Hub {
    #[unsafe(link_section = ".text.idle")]
    fn connections(&mut self) -> &mut Connections {
        self.connections
    }

    fn accept(&mut self, now: Instant) -> Option<(OwnedFd, Peer, Access)> {
        self.base.listener.accept(now)
    }

    fn admission(&self, _: Access, _: u32, _: Instant) -> Admission {
        self.connections.clients.unranked_admission()
    }

    fn refuse(&self, out: &mut Writer<'_>) {
        out.push(FULL);
    }

    fn joined(&mut self, slot: usize, now: Instant) {
        self.lost.get_mut(slot).into_iter().for_each(|lost| *lost = 0);
        self.joined = self.joined.saturating_add(1);
        let uid = self.connections.peer(slot).uid;
        if self.joins.joined(slot, uid == 0 || uid == identity::effective_uid(), now) {
            self.announce_join(slot);
        }
    }

    fn reading(&self, _: usize) -> Reading {
        Reading::Requests
    }

    /// Passes on one line. The end of the input is the end of the client.
    fn take(&mut self, slot: usize, input: &[u8], now: Instant, out: &mut Writer<'_>) -> Taken {
        let ended = self.connections.clients.get(slot).is_some_and(|client| client.ended);
        if ended && input.is_empty() && self.connections.send(slot, &[], now).is_ok() {
            self.joins.sending_ended(slot);
        } else if (ended || !input.is_empty()) && self.joins.is_client(slot) {
            self.announce_join(slot);
        }
        let Some(client) = self.connections.clients.get_mut(slot) else { return Taken::Close };
        let framed = frame(input, CHAT_LINE_BYTES, client.skipping, client.ended);
        let (used, whole) = match framed {
            Framed::Request(_, used) => (used, true),
            Framed::TooLong(used, end) | Framed::Discard(used, end) => {
                client.skipping = !end;
                (used, end)
            }
            Framed::Unterminated(_) | Framed::Partial => (0, false),
        };
        match framed {
            Framed::Request(line, _) => self.pass_on(slot, line, now),
            Framed::TooLong(..) => out.push(TOO_LONG),
            _ => {}
        }
        match whole {
            true => Taken::Whole(used),
            false if ended => Taken::Close,
            false => Taken::Part(used),
        }
    }

    /// Sends a slow reader the number of lines that it has lost.
    fn flushed(&mut self, slot: usize, now: Instant) {
        let stuck = self.connections.clients.get(slot).is_none_or(ClientSlot::is_stuck);
        if let Some(lost) = self.lost.get_mut(slot).filter(|lost| **lost > 0 && !stuck) {
            let mut line = [0; 48];
            let mut out = Writer::new(&mut line);
            push_lost(core::mem::take(lost), &mut out);
            connections::answer(self, slot, out.as_bytes(), now);
        }
    }

    fn close(&mut self, slot: usize) {
        if self.connections.clients.get(slot).is_some() {
            if self.joins.is_client(slot) {
                self.announce_join(slot);
            }
            let peer = self.connections.peer(slot);
            self.connections.close(slot);
            if self.joins.is_probe(slot) {
                self.joined = self.joined.saturating_sub(1);
            } else {
                self.log_event(peer, "left");
            }
        }
    }
}
