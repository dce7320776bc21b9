//! The service `collector`: clients send JSON objects, and each is answered by the
//! average of its metric (`proto/metric.rs`, docs/collector.md).
//!
//! A turn takes at most one buffer of objects from each client, and none from one that
//! did not take its answers, or to which a dump is being sent: a dump goes out as it
//! is read, one buffer a turn. One that closed its connection without reading the
//! answers has still sent its values: they count.

use super::clients::{self, Client, Clients, Gone};
use super::companion::{Companion, Source};
use super::denials::Denials;
use super::lifecycle::Audience;
use super::listener::Rank;
use super::memory::Memory;
use crate::limits::{ACCEPT_TURN, CLIENT_INPUT_BYTES, CLIENT_OUTPUT_BYTES, CLIENTS_MAX, METRIC_LINE_BYTES};
use crate::proto::decimal::Decimal;
use crate::proto::metric::{DUMP, Metric, NONE, Next, error, next, push_error, push_line};
use crate::proto::names::Service;
use crate::proto::text::Writer;
use crate::state::metrics::{Metrics, Refused};
use crate::sys::once::Once;
use crate::sys::{clock, process::Signal, socket};
use crate::util::time::Instant;
use ufmt::uwrite;

/// What there is to know of the client at a place, beside its connection.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Talk {
    /// The next metric of the dump that is being sent to it.
    dump: Option<usize>,
    /// It takes no answers any more, but its values are taken.
    deaf: bool,
}

/// See the module's documentation.
struct Collector {
    base: Companion,
    clients: &'static mut Clients,
    metrics: &'static mut Metrics,
    talks: [Talk; CLIENTS_MAX],
    denials: Denials,
    /// Values that were counted.
    values: u64,
}

static METRICS: Once<Metrics, 5> = Once::new(Metrics::EMPTY);

/// Runs the service until it is stopped; returns the exit code. (Not inlined: its
/// caller's frame would hold what every service needs.)
#[inline(never)]
pub fn serve(parts: &'static mut Memory, audience: Audience) -> u8 {
    let (base, _) = Companion::open(Service::Collector, parts, audience);
    let mut collector = Collector {
        base,
        clients: clients::take(),
        metrics: METRICS.take(),
        talks: [Talk::default(); CLIENTS_MAX],
        denials: Denials::default(),
        values: 0,
    };
    collector.base.announce();
    while !collector.base.stopping {
        collector.turn();
    }
    collector.finish()
}

impl Collector {
    fn turn(&mut self) {
        let due = self.next_deadline();
        let ready = self.base.wait(Some(self.clients), &|place| self.can_ask(place), None, due);
        let now = clock::now();
        if ready.contains(&Source::Signals) || self.base.process.signals.have_arrived() {
            self.on_signals(now);
        }
        while let Some(place) = self.clients.expired(now) {
            self.drop_client(place);
        }
        for place in 0..CLIENTS_MAX {
            self.serve_client(place, ready.contains(&Source::Client(place)), now);
        }
        self.base.turn_finished(now, true);
        if ready.contains(&Source::Listener) {
            self.accept(now);
        }
    }

    /// When something here is due; at once if something is left to do.
    fn next_deadline(&self) -> Option<Instant> {
        let left = |(place, client): (usize, &Client)| {
            let waits = client.more || client.ended || self.talk(place).dump.is_some();
            waits && !client.is_stuck()
        };
        if self.clients.connected().any(left) { Some(Instant::BOOT) } else { self.clients.next_deadline() }
    }

    fn on_signals(&mut self, now: Instant) {
        let (clients, metrics) = (self.clients.count(), self.metrics.len());
        let (values, denied) = (self.values, self.denials.count);
        let arrived = self.base.on_signals(now, &|out| {
            let _ =
                uwrite!(out, " clients={} metrics={} values={} denied={}", clients, metrics, values, denied);
        });
        if arrived.has(Signal::HUP) {
            self.reload(now);
        }
    }

    /// Others may use the socket from now on; who may nothing any more goes.
    fn reload(&mut self, now: Instant) {
        // Nobody who has connected already is to be turned away by a new name.
        for _ in 0..CLIENTS_MAX {
            self.accept(now);
        }
        if self.base.reload() {
            for place in 0..CLIENTS_MAX {
                if self.clients.rank_again(place, &self.base.listener.access) == Some(Rank::Nobody) {
                    self.drop_client(place);
                }
            }
        }
    }

    // ----- one client -------------------------------------------------------

    fn talk(&self, place: usize) -> Talk {
        self.talks.get(place).copied().unwrap_or_default()
    }

    fn set_talk(&mut self, place: usize, talk: Talk) {
        self.talks.get_mut(place).into_iter().for_each(|old| *old = talk);
    }

    /// Whether the next object of a client can be handled.
    fn can_ask(&self, place: usize) -> bool {
        self.talk(place).dump.is_none() && self.clients.get(place).is_some_and(|client| !client.is_stuck())
    }

    /// Does what can be done for a client; `ready`: something happened to its
    /// connection.
    fn serve_client(&mut self, place: usize, ready: bool, now: Instant) {
        let Some(client) = self.clients.get(place) else { return };
        let left = client.more || client.ended || self.talk(place).dump.is_some();
        let stuck = client.is_stuck();
        if !ready && (stuck || !left) {
            return;
        }
        if stuck && self.clients.flush(place, now) == Err(Gone) {
            self.stop_answering(place);
        }
        let served = match self.clients.get(place) {
            Some(client) if client.is_stuck() => Ok(()),
            _ if self.talk(place).dump.is_some() => {
                self.send_dump(place, now);
                Ok(())
            }
            _ => self.take_values(place, now),
        };
        let finished = self.clients.get(place).is_some_and(Client::is_finished);
        if served == Err(Gone) || (finished && self.talk(place).dump.is_none()) {
            self.drop_client(place);
        }
    }

    /// Takes one buffer of a client's objects, as far as there is room for the answers.
    #[inline(never)]
    fn take_values(&mut self, place: usize, now: Instant) -> Result<(), Gone> {
        let mut input = [0; CLIENT_INPUT_BYTES];
        let mut answers = [0; CLIENT_OUTPUT_BYTES];
        let mut out = Writer::new(&mut answers);
        let length = self.clients.take_input(place, &mut input, now)?;
        let (mut at, mut progress) = (0usize, false);
        let more = loop {
            let rest = input.get(at..length).unwrap_or(&[]);
            let client = self.clients.get(place).ok_or(Gone)?;
            let found = next(rest, client.skipping, client.ended);
            let used = match found {
                Next::Partial(used)
                | Next::Rest(used, _)
                | Next::Wrong(_, used, _)
                | Next::Metric(_, used) => used,
            };
            let answered = matches!(found, Next::Metric(..) | Next::Wrong(..));
            if answered && client.rank == Rank::Nobody {
                return self.deny(place, now);
            }
            if answered && out.room() < METRIC_LINE_BYTES {
                break true;
            }
            at = at.saturating_add(used);
            match found {
                Next::Partial(_) => break false,
                Next::Rest(_, end) | Next::Wrong(_, _, end) => {
                    if let Next::Wrong(why, ..) = found {
                        push_error(why, &mut out);
                    }
                    self.clients.set_skipping(place, !end);
                    progress |= end;
                    if !end {
                        break false;
                    }
                }
                Next::Metric(metric, _) => {
                    progress = true;
                    self.count(place, &metric, &mut out);
                    if self.talk(place).dump.is_some() {
                        break at < length;
                    }
                }
            }
        };
        self.clients.keep(place, input.get(at..length).unwrap_or(&[]), more, progress, now);
        self.answer(place, out.as_bytes(), now);
        Ok(())
    }

    /// Sends answers, for which there is room. Who cannot be answered any more may still
    /// have sent something.
    fn answer(&mut self, place: usize, lines: &[u8], now: Instant) {
        let deaf = self.talk(place).deaf;
        if !lines.is_empty() && !deaf && self.clients.send(place, lines, now) == Err(Gone) {
            self.stop_answering(place);
        }
    }

    fn stop_answering(&mut self, place: usize) {
        self.clients.forget_output(place);
        self.set_talk(place, Talk { dump: None, deaf: true });
    }

    /// Counts one value, or begins a dump.
    fn count(&mut self, place: usize, metric: &Metric, out: &mut Writer<'_>) {
        if metric.name == DUMP {
            match metric.value {
                Decimal::ZERO if self.talk(place).deaf => {}
                Decimal::ZERO => self.set_talk(place, Talk { dump: Some(0), deaf: false }),
                _ => push_error(error::DUMP, out),
            }
            return;
        }
        match self.metrics.add(metric) {
            Ok(average) => {
                self.values = self.values.saturating_add(1);
                push_line(&metric.name, average, None, out);
            }
            Err(Refused::Full) => push_error(error::FULL, out),
            Err(Refused::TooLarge) => push_error(error::SUM, out),
        }
    }

    /// Sends the next lines of the dump, as many as are held for a client.
    #[inline(never)]
    fn send_dump(&mut self, place: usize, now: Instant) {
        let mut lines = [0; CLIENT_OUTPUT_BYTES];
        let mut out = Writer::new(&mut lines);
        let talk = self.talk(place);
        let mut dump = talk.dump;
        if self.metrics.is_empty() {
            out.push(NONE);
        }
        while let Some(index) = dump.filter(|_| out.room() >= METRIC_LINE_BYTES) {
            dump = self.metrics.get(index).map(|(name, average, count)| {
                push_line(name, average, Some(count), &mut out);
                index.saturating_add(1)
            });
        }
        self.set_talk(place, Talk { dump, ..talk });
        self.answer(place, out.as_bytes(), now);
    }

    /// Tells one who may not, who goes then.
    fn deny(&mut self, place: usize, now: Instant) -> Result<(), Gone> {
        self.denials.note(self.clients.get_mut(place), "metrics", b"connect", now, &mut self.base.log);
        let mut line = [0; METRIC_LINE_BYTES];
        let mut out = Writer::new(&mut line);
        push_error(error::DENIED, &mut out);
        let _ = self.clients.send(place, out.as_bytes(), now);
        Err(Gone)
    }

    // ----- who comes and goes -----------------------------------------------

    #[inline(never)]
    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPT_TURN {
            let Some((connection, peer)) = self.base.listener.accept(now) else { return };
            let rank = self.base.listener.access.rank(&connection, peer);
            let busy = |place| self.talk(place).dump.is_some();
            if let Some(place) = self.clients.crowded_out(rank, now, &busy) {
                self.drop_client(place);
            }
            match self.clients.add(connection, peer, rank, now) {
                Ok(place) => self.set_talk(place, Talk::default()),
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

    fn drop_client(&mut self, place: usize) {
        self.clients.close(place, self.base.scratch);
    }

    #[inline(never)]
    fn finish(&mut self) -> u8 {
        for place in 0..CLIENTS_MAX {
            self.drop_client(place);
        }
        let values = self.values;
        self.base.finish(&|out| {
            let _ = uwrite!(out, "took {} values", values);
        })
    }
}
