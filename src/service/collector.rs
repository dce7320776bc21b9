//! The service `collector`: clients send JSON objects, and each is answered by the
//! average of its metric (`proto/collector.rs`, docs/collector.md).
//!
//! A turn takes at most one buffer of objects from each client, and none from one that
//! did not take its answers, or to which a dump is being sent: a dump goes out as it
//! is read, one buffer a turn. One that closed its connection without reading the
//! answers has still sent its values: they count.

use super::base::{self, PollSource, Pulse, ServiceBase, ServiceStatus};
use super::connections::{self, Connection, Connections, Disconnected};
use super::denials::Denials;
use super::lifecycle::StartReporter;
use super::listener::Access;
use super::memory::Memory;
use crate::limits::{ACCEPT_TURN, CLIENT_INPUT_BYTES, CLIENT_OUTPUT_BYTES, CLIENTS_MAX, METRIC_LINE_BYTES};
use crate::proto::collector::{DUMP, Metric, NONE, Next, error, next, push_error, push_line};
use crate::proto::decimal::Decimal;
use crate::proto::service::Service;
use crate::proto::status::StatusField;
use crate::state::collector::{MetricRefused, Metrics};
use crate::sys::once::once;
use crate::sys::{clock, process::Signal, socket};
use crate::util::text::Writer;
use crate::util::time::Instant;
use ufmt::uwrite;

/// What there is to know of the client at a slot, beside its connection.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Session {
    /// The next metric of the dump that is being sent to it.
    dump: Option<usize>,
    /// It takes no answers any more, but its values are taken.
    write_closed: bool,
}

/// See the module's documentation.
struct Collector {
    base: ServiceBase,
    clients: &'static mut Connections,
    metrics: &'static mut Metrics,
    sessions: [Session; CLIENTS_MAX],
    denials: Denials,
    /// Values that were counted.
    values: u64,
}

once! {
    static METRICS: Metrics = Metrics::EMPTY;
}

/// Runs the service until it is stopped; returns the exit code. (Not inlined: its
/// caller's frame would hold what every service needs.)
#[inline(never)]
pub fn serve(parts: &'static mut Memory, reporter: StartReporter) -> u8 {
    let mut base = ServiceBase::open(Service::Collector, parts, reporter);
    base.open_socket(&mut |_| {});
    let mut collector = Collector {
        base,
        clients: connections::take(),
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
        &self.base
    }

    #[unsafe(link_section = ".text.idle")]
    fn base_mut(&mut self) -> &mut ServiceBase {
        &mut self.base
    }

    fn value(&self, field: StatusField, _: Instant) -> Option<u64> {
        Some(match field {
            StatusField::Clients => self.clients.count() as u64,
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
        let clients: &Connections = self.clients;
        let reads = |slot| self.can_ask(slot);
        let ready = self.base.wait(clock::now(), Some((clients, &reads)), due, &mut |_| {});
        let now = clock::now();
        if let Some(arrived) = self.base.take_signals(&ready) {
            if let Some((_, why)) = arrived.stop() {
                self.base.begin_stop(why, "");
            }
            if arrived.has(Signal::HUP) {
                self.reload(now);
            }
            base::on_user_signals(self, arrived, now);
        }
        while let Some(slot) = self.clients.expired(now) {
            self.drop_client(slot);
        }
        for slot in 0..CLIENTS_MAX {
            self.serve_client(slot, ready.contains(&PollSource::client(slot)), now);
        }
        if ready.contains(&PollSource::Listener) {
            self.accept(now);
        }
        base::end_turn(self, now, !ready.is_empty(), Pulse::Own);
    }

    /// When something here is due; at once if something is left to do.
    fn next_deadline(&self) -> Option<Instant> {
        let left = |(slot, client): (usize, &Connection)| {
            let waits = client.more || client.ended || self.session(slot).dump.is_some();
            waits && !client.is_stuck()
        };
        if self.clients.connected().any(left) { Some(Instant::BOOT) } else { self.clients.next_deadline() }
    }

    /// Others may use the socket from now on; who may nothing any more goes.
    fn reload(&mut self, now: Instant) {
        if self.base.reload() {
            // Nobody who has connected already is to be turned away by a new name.
            for _ in 0..CLIENTS_MAX {
                self.accept(now);
            }
            for slot in 0..CLIENTS_MAX {
                if self.clients.update_access(slot, &self.base.listener.policy) == Some(Access::Denied) {
                    self.drop_client(slot);
                }
            }
            self.base.finish_reload();
        }
    }

    // ----- one client -------------------------------------------------------

    fn session(&self, slot: usize) -> Session {
        self.sessions.get(slot).copied().unwrap_or_default()
    }

    fn set_session(&mut self, slot: usize, session: Session) {
        self.sessions.get_mut(slot).into_iter().for_each(|old| *old = session);
    }

    /// Whether the next object of a client can be handled.
    fn can_ask(&self, slot: usize) -> bool {
        self.session(slot).dump.is_none() && self.clients.get(slot).is_some_and(|client| !client.is_stuck())
    }

    /// Does what can be done for a client; `ready`: something happened to its
    /// connection.
    fn serve_client(&mut self, slot: usize, ready: bool, now: Instant) {
        let Some(client) = self.clients.get(slot) else { return };
        let left = client.more || client.ended || self.session(slot).dump.is_some();
        let stuck = client.is_stuck();
        if !ready && (stuck || !left) {
            return;
        }
        if stuck && self.clients.flush(slot, now) == Err(Disconnected) {
            self.stop_answering(slot);
        }
        let served = match self.clients.get(slot) {
            Some(client) if client.is_stuck() => Ok(()),
            _ if self.session(slot).dump.is_some() => {
                self.send_dump(slot, now);
                Ok(())
            }
            _ => self.take_values(slot, now),
        };
        let finished = self.clients.get(slot).is_some_and(Connection::is_finished);
        if served == Err(Disconnected) || (finished && self.session(slot).dump.is_none()) {
            self.drop_client(slot);
        }
    }

    /// Takes one buffer of a client's objects, as far as there is room for the answers.
    #[inline(never)]
    fn take_values(&mut self, slot: usize, now: Instant) -> Result<(), Disconnected> {
        let mut input = [0; CLIENT_INPUT_BYTES];
        let mut answers = [0; CLIENT_OUTPUT_BYTES];
        let mut out = Writer::new(&mut answers);
        let length = self.clients.take_input(slot, &mut input, now)?;
        let (mut at, mut progress) = (0usize, false);
        let more = loop {
            let rest = input.get(at..length).unwrap_or(&[]);
            let client = self.clients.get(slot).ok_or(Disconnected)?;
            let found = next(rest, client.skipping, client.ended);
            let used = match found {
                Next::Partial(used)
                | Next::Discard(used, _)
                | Next::Wrong(_, used, _)
                | Next::Metric(_, used) => used,
            };
            let answered = matches!(found, Next::Metric(..) | Next::Wrong(..));
            if answered && client.access == Access::Denied {
                return self.deny(slot, now);
            }
            if answered && out.room() < METRIC_LINE_BYTES {
                break true;
            }
            at = at.saturating_add(used);
            match found {
                Next::Partial(_) => break false,
                Next::Discard(_, end) | Next::Wrong(_, _, end) => {
                    if let Next::Wrong(why, ..) = found {
                        push_error(why, &mut out);
                    }
                    self.clients.set_skipping(slot, !end);
                    progress |= end;
                    if !end {
                        break false;
                    }
                }
                Next::Metric(metric, _) => {
                    progress = true;
                    self.count(slot, &metric, &mut out);
                    if self.session(slot).dump.is_some() {
                        break at < length;
                    }
                }
            }
        };
        self.clients.keep(slot, input.get(at..length).unwrap_or(&[]), more, progress, now);
        self.answer(slot, out.as_bytes(), now);
        Ok(())
    }

    /// Sends answers, for which there is room. Who cannot be answered any more may still
    /// have sent something.
    fn answer(&mut self, slot: usize, lines: &[u8], now: Instant) {
        let write_closed = self.session(slot).write_closed;
        if !lines.is_empty() && !write_closed && self.clients.send(slot, lines, now) == Err(Disconnected) {
            self.stop_answering(slot);
        }
    }

    fn stop_answering(&mut self, slot: usize) {
        self.clients.forget_output(slot);
        self.set_session(slot, Session { dump: None, write_closed: true });
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

    /// Sends the next lines of the dump, as many as are held for a client.
    #[inline(never)]
    fn send_dump(&mut self, slot: usize, now: Instant) {
        let mut lines = [0; CLIENT_OUTPUT_BYTES];
        let mut out = Writer::new(&mut lines);
        let session = self.session(slot);
        let mut dump = session.dump;
        if self.metrics.is_empty() {
            out.push(NONE);
        }
        while let Some(index) = dump.filter(|_| out.room() >= METRIC_LINE_BYTES) {
            dump = self.metrics.get(index).map(|(name, average, count)| {
                push_line(name, average, Some(count), &mut out);
                index.saturating_add(1)
            });
        }
        self.set_session(slot, Session { dump, ..session });
        self.answer(slot, out.as_bytes(), now);
    }

    /// Tells one who may not, who goes then.
    fn deny(&mut self, slot: usize, now: Instant) -> Result<(), Disconnected> {
        self.denials.record(self.clients.get_mut(slot), "metrics", b"connect", now, &mut self.base.log);
        let mut line = [0; METRIC_LINE_BYTES];
        let mut out = Writer::new(&mut line);
        push_error(error::DENIED, &mut out);
        let _ = self.clients.send(slot, out.as_bytes(), now);
        Err(Disconnected)
    }

    // ----- who comes and goes -----------------------------------------------

    #[inline(never)]
    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPT_TURN {
            let Some((connection, peer)) = self.base.listener.accept(now) else { return };
            let access = self.base.listener.policy.access_of(&connection, peer);
            let busy = |slot| self.session(slot).dump.is_some();
            if let Some(slot) = self.clients.eviction_candidate(access, now, &busy) {
                self.drop_client(slot);
            }
            match self.clients.add(connection, peer, access, now) {
                Ok(slot) => self.set_session(slot, Session::default()),
                Err(connection) => {
                    let mut line = [0; METRIC_LINE_BYTES];
                    let mut out = Writer::new(&mut line);
                    push_error(error::BUSY, &mut out);
                    let _ = socket::send(&connection, out.as_bytes());
                    socket::close(connection, self.base.scratch);
                }
            }
        }
    }

    fn drop_client(&mut self, slot: usize) {
        self.clients.close(slot, self.base.scratch);
    }

    #[inline(never)]
    fn finish(&mut self) -> u8 {
        for slot in 0..CLIENTS_MAX {
            self.drop_client(slot);
        }
        let values = self.values;
        self.base.finish(&|out| {
            let _ = uwrite!(out, "took {} values", values);
        })
    }
}
