//! The service `collector`: clients send JSON objects, and each is answered with the
//! average of its metric (`proto/collector.rs`, docs/collector.md).
//!
//! A turn takes at most one buffer of objects from each client, and none from a client
//! that did not take its answers or is being sent a dump. A dump is sent while it is read,
//! one buffer in each turn. A client that closes its connection without reading the
//! answers has sent its values: they count.

use super::base::{self, PollSource, Pulse, ServiceBase, ServiceStatus};
use super::connections::{self, Connections, Server, Taken};
use super::denials::Denials;
use super::lifecycle::StartReporter;
use super::memory::Memory;
use crate::limits::{CLIENT_OUTPUT_BYTES, CLIENTS_MAX, METRIC_LINE_BYTES};
use crate::proto::collector::{DUMP, Metric, NONE, Next, error, next, push_error, push_line};
use crate::proto::decimal::Decimal;
use crate::proto::service::Service;
use crate::proto::status::StatusField;
use crate::state::access::Access;
use crate::state::clients::{Admission, ClientSlot, Reading};
use crate::state::collector::{MetricRefused, Metrics};
use crate::sys::once::once;
use crate::sys::socket::Peer;
use crate::sys::{OwnedFd, clock, process::Signal};
use crate::util::text::Writer;
use crate::util::time::Instant;
use core::iter;
use ufmt::uwrite;

/// The state of the client at a slot.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Session {
    /// The next metric of the dump that is being sent.
    dump: Option<usize>,
    /// The client takes no more answers, but its values are taken.
    write_closed: bool,
}

/// See the module's documentation.
struct Collector {
    base: &'static mut ServiceBase,
    connections: &'static mut Connections,
    metrics: &'static mut Metrics,
    sessions: [Session; CLIENTS_MAX],
    denials: Denials,
    /// Values that were counted.
    values: u64,
}

once! {
    static METRICS: Metrics = Metrics::EMPTY;
}

/// Runs the service until it is stopped; returns the exit code. Not inlined, because the
/// frame of its caller would hold what every service needs.
#[inline(never)]
pub fn serve(parts: &'static mut Memory, reporter: StartReporter) -> u8 {
    let base = ServiceBase::open(Service::Collector, parts, reporter);
    base.open_socket(&mut |_| {});
    let mut collector = Collector {
        base,
        connections: connections::take(),
        metrics: METRICS.take(),
        sessions: [Session::default(); CLIENTS_MAX],
        denials: Denials::default(),
        values: 0,
    };
    base::announce(&mut collector);
    collector.run();
    collector.finish()
}

impl ServiceStatus for Collector {
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
            StatusField::Clients => self.connections.clients.count() as u64,
            StatusField::Metrics => self.metrics.len() as u64,
            StatusField::Values => self.values,
            StatusField::Denied => self.denials.count,
            _ => return None,
        })
    }
}

impl Collector {
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
        let due = self.next_deadline();
        let reads = |slot| self.reading(slot);
        let ready = self.base.wait(clock::now(), Some((self.connections, &reads)), due, &mut iter::empty());
        let now = clock::now();
        if let Some(arrived) = self.base.take_signals(&ready) {
            if let Some((_, why)) = arrived.stop() {
                self.base.begin_stop(why, "");
            }
            base::on_user_signals(self, arrived, now);
            if arrived.has(Signal::HUP) {
                self.reload(now);
            }
        }
        connections::close_expired(self, now);
        connections::serve(self, &mut ready.iter().filter_map(PollSource::client_slot), now);
        if ready.contains(&PollSource::Listener) {
            connections::accept(self, now);
        }
        base::end_turn(self, now, !ready.is_empty(), Pulse::Own);
    }

    /// Returns when something is due: at once if a client has work for the service.
    fn next_deadline(&self) -> Option<Instant> {
        let clients = &self.connections.clients;
        let has_work = |(slot, client): (usize, &ClientSlot)| {
            (client.has_work() || self.session(slot).dump.is_some()) && !client.is_stuck()
        };
        if clients.connected().any(has_work) { Some(Instant::BOOT) } else { clients.next_deadline() }
    }

    /// Applies a new configuration, and closes the clients that lose their rights.
    fn reload(&mut self, now: Instant) {
        if self.base.reload() {
            // Clients that have connected already must not be turned away by a new name.
            connections::accept_all(self, now);
            for slot in self.connections.update_access(&self.base.listener.policy) {
                self.close(slot);
            }
            self.base.finish_reload();
        }
    }

    fn session(&self, slot: usize) -> Session {
        self.sessions.get(slot).copied().unwrap_or_default()
    }

    fn set_session(&mut self, slot: usize, session: Session) {
        self.sessions.get_mut(slot).into_iter().for_each(|old| *old = session);
    }

    /// Counts one value, or begins a dump.
    fn count(&mut self, slot: usize, metric: &Metric, out: &mut Writer<'_>) {
        if metric.name == DUMP {
            match metric.value {
                Decimal::ZERO if self.session(slot).write_closed => {}
                Decimal::ZERO => self.set_session(slot, Session { dump: Some(0), write_closed: false }),
                _ => push_error(error::DUMP, out),
            }
            return;
        }
        match self.metrics.add(metric) {
            Ok(average) => {
                self.values = self.values.saturating_add(1);
                push_line(&metric.name, average, None, out);
            }
            Err(MetricRefused::Full) => push_error(error::FULL, out),
            Err(MetricRefused::TooLarge) => push_error(error::SUM, out),
        }
    }

    /// Sends the next lines of the dump, as many as can be kept for a client.
    #[inline(never)]
    fn send_dump(&mut self, slot: usize, index: usize, now: Instant) {
        let mut lines = [0; CLIENT_OUTPUT_BYTES];
        let mut out = Writer::new(&mut lines);
        let mut dump = Some(index);
        if self.metrics.is_empty() {
            out.push(NONE);
        }
        while let Some(index) = dump.filter(|_| out.room() >= METRIC_LINE_BYTES) {
            dump = self.metrics.get(index).map(|(name, average, count)| {
                push_line(name, average, Some(count), &mut out);
                index.saturating_add(1)
            });
        }
        self.set_session(slot, Session { dump, ..self.session(slot) });
        connections::answer(self, slot, out.as_bytes(), now);
    }

    #[inline(never)]
    fn finish(&mut self) -> u8 {
        (0..CLIENTS_MAX).for_each(|slot| self.close(slot));
        let values = self.values;
        self.base.finish(&|out| {
            let _ = uwrite!(out, "took {} values", values);
        })
    }
}

impl Server for Collector {
    #[unsafe(link_section = ".text.idle")]
    fn connections(&mut self) -> &mut Connections {
        self.connections
    }

    fn accept(&mut self, now: Instant) -> Option<(OwnedFd, Peer, Access)> {
        self.base.listener.accept(now)
    }

    fn admission(&self, access: Access, uid: u32, now: Instant) -> Admission {
        let is_busy = |slot| self.session(slot).dump.is_some();
        self.connections.clients.admission(access, uid, now, &is_busy)
    }

    fn refuse(&self, out: &mut Writer<'_>) {
        push_error(error::BUSY, out);
    }

    fn joined(&mut self, slot: usize, _: Instant) {
        self.set_session(slot, Session::default());
    }

    fn reading(&self, slot: usize) -> Reading {
        let client = self.connections.clients.get(slot);
        let reads = self.session(slot).dump.is_none() && client.is_some_and(|client| !client.is_stuck());
        if reads { Reading::Requests } else { Reading::Nothing }
    }

    /// Takes one object, if there is room for its answer.
    fn take(&mut self, slot: usize, input: &[u8], now: Instant, out: &mut Writer<'_>) -> Taken {
        let Some(client) = self.connections.clients.get_mut(slot) else { return Taken::Close };
        let found = next(input, client.skipping, client.ended);
        if matches!(found, Next::Metric(..) | Next::Wrong(..)) {
            if client.access == Access::Denied {
                let log = &mut self.base.log;
                self.denials.record(self.connections, slot, "metrics", b"connect", now, log);
                push_error(error::DENIED, out);
                return Taken::Close;
            }
            if out.room() < METRIC_LINE_BYTES {
                return Taken::Later;
            }
        }
        if let Next::Wrong(why, ..) = found {
            push_error(why, out);
        }
        match found {
            Next::Partial(used) => Taken::Part(used),
            Next::Discard(used, end) | Next::Wrong(_, used, end) => {
                client.skipping = !end;
                if end { Taken::Whole(used) } else { Taken::Part(used) }
            }
            Next::Metric(metric, used) => {
                self.count(slot, &metric, out);
                if self.session(slot).dump.is_some() { Taken::Last(used) } else { Taken::Whole(used) }
            }
        }
    }

    /// Continues the dumps.
    #[unsafe(link_section = ".text.idle")]
    fn before_requests(&mut self, now: Instant) {
        for slot in 0..CLIENTS_MAX {
            let stuck = self.connections.clients.get(slot).is_none_or(ClientSlot::is_stuck);
            if let Some(index) = self.session(slot).dump.filter(|_| !stuck) {
                self.send_dump(slot, index, now);
            }
        }
    }

    /// Leaves the client to the dump, whose next lines show that the client is gone.
    fn hung_up(&mut self, _: usize) {}

    fn unwritable(&mut self, slot: usize) {
        self.connections.clients.get_mut(slot).into_iter().for_each(ClientSlot::forget_output);
        self.set_session(slot, Session { dump: None, write_closed: true });
    }

    fn close(&mut self, slot: usize) {
        self.connections.close(slot);
    }
}
