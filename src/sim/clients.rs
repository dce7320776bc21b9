//! The clients of the control socket, and the part of the service that carries out their requests.

use super::board::Board;
use super::ledger::{End, Removed};
use super::service::Service;
use crate::limits::{CLIENT_OUTPUT_BYTES, CLIENTS_MAX, READ_BYTES};
use crate::proto::control::{Code, Target, filter};
use crate::state::disk::DiskResult;
use crate::state::jobs::asking::Asking;
use crate::state::jobs::replies::{ClientState, PendingReply, Reply, ScanRequest, refuse, refuse_disk};
use crate::state::jobs::scan_task::{PageStep, ScanAction, ScanOutcome};
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};
use std::collections::VecDeque;

/// A request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ask {
    Queue(usize),
    After(usize, u64),
    Wait(u64),
    List(&'static str),
    Cancel(u64),
    Retry(u64),
    Forget(u64),
    RetryAll,
    ForgetAll,
    Hold(bool),
    Drain,
    Stop,
    Watch,
    Garbage,
}

/// A client that is connected.
#[derive(Debug)]
pub(super) struct Client {
    /// The requests that the service has not taken.
    pub(super) to_send: VecDeque<Ask>,
    /// The requests without an answer.
    pub(super) asked: VecDeque<Ask>,
    /// Rows that follow.
    rows: u64,
    /// The rows are those of `list done`.
    rows_are_ends: bool,
    /// The id of the last row.
    last_row: u64,
    /// The client has every answer, and leaves.
    leaves: bool,
    pub(super) since: u64,
}

impl Board {
    /// Connects a client, which sends its requests at once. Without a service, or a slot, nothing is
    /// asked.
    pub(super) fn connect(&mut self, requests: &[Ask]) -> Option<usize> {
        let service = self.service.as_mut()?;
        let slot = self.clients.iter().position(Option::is_none)?;
        service.woken = true;
        let to_send: VecDeque<Ask> = requests.iter().copied().collect();
        self.line.trace(|| format!("client {slot} asks {:?}", &requests[..requests.len().min(4)]));
        for ask in requests {
            self.asked(*ask);
        }
        let asked = to_send.clone();
        self.clients[slot] = Some(Client {
            to_send,
            asked,
            rows: 0,
            rows_are_ends: false,
            last_row: 0,
            leaves: false,
            since: self.line.time,
        });
        Some(slot)
    }

    /// Takes that a request is on its way, so that a crash decides about it.
    fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Cancel(id) | Ask::Forget(id) => self.ledger.removal_asked(id),
            Ask::Retry(id) => {
                if let Some(job) = self.ledger.by_id(id) {
                    self.ledger.jobs[job].end = End::Unsure;
                }
            }
            Ask::RetryAll => self.ledger.rewrite_asked(false),
            Ask::ForgetAll => self.ledger.rewrite_asked(true),
            Ask::Hold(_) => self.held = None,
            _ => {}
        }
    }

    /// Closes a client's connection from its end.
    pub(super) fn vanish(&mut self, slot: usize) {
        let Some(client) = self.clients[slot].take() else { return };
        for ask in client.asked {
            if let Ask::Cancel(id) | Ask::Forget(id) = ask {
                self.ledger.removal_answered(id, false, false);
            }
        }
        if let Some(service) = &mut self.service {
            service.replies.clear(slot);
            service.scans.drop_client(slot);
        }
    }

    /// Takes the requests that can be taken in this turn.
    pub(super) fn serve(&mut self, service: &mut Service, now: Instant) {
        for slot in 0..CLIENTS_MAX {
            let leaves = self.clients[slot].as_ref().is_some_and(|client| client.leaves);
            if leaves && service.replies.is_idle(slot) {
                self.close(service, slot);
            }
        }
        self.poll_scan(service, now);
        for slot in 0..CLIENTS_MAX {
            let mut answers = [0; CLIENT_OUTPUT_BYTES];
            let mut out = Writer::new(&mut answers);
            while service.replies.state(slot) == ClientState::Idle {
                let Some(ask) =
                    self.clients[slot].as_ref().and_then(|client| client.to_send.front()).copied()
                else {
                    break;
                };
                if !service.replies.fits(slot, out.room()) {
                    break;
                }
                let has_pending = service.replies.is_pending(slot);
                let before = out.len();
                if has_pending && !matches!(ask, Ask::Queue(_) | Ask::After(..)) {
                    break;
                }
                let reply = self.handle(service, slot, ask, now, &mut out);
                if reply == Reply::Retry || (has_pending && out.len() > before) {
                    out.truncate(before);
                    break;
                }
                if let Some(client) = &mut self.clients[slot] {
                    client.to_send.pop_front();
                }
            }
            let more = self.clients[slot].as_ref().is_some_and(|client| !client.to_send.is_empty());
            service.woken |= more && service.replies.is_idle(slot);
            // The commit answers the pending requests, and the next turn takes the others.
            service.woken |= more && service.replies.is_pending(slot);
            self.answer(slot, out.as_bytes());
        }
    }

    /// Carries out a request as `service/jobs/requests.rs` does.
    fn handle(
        &mut self,
        service: &mut Service,
        slot: usize,
        ask: Ask,
        now: Instant,
        out: &mut Writer<'_>,
    ) -> Reply {
        let Service { core, replies, draining, .. } = service;
        let mut asking = Asking { core, replies, disk: &mut self.disk, draining: *draining, slot, now, out };
        let done = match ask {
            Ask::Queue(job) => asking.add(self.ledger.jobs[job].text.as_bytes(), None, false),
            Ask::After(job, delay) => {
                asking.core.spool.set_wall_clock(self.wall);
                asking.add(self.ledger.jobs[job].text.as_bytes(), Some(Duration::from_ms(delay)), false)
            }
            Ask::Wait(id) => Ok(asking.wait(id)),
            Ask::List(which) => Ok(match filter(which.as_bytes()) {
                Ok(filter) => {
                    asking.replies.set_state(slot, ClientState::ScanPending(ScanRequest::List(filter)))
                }
                Err((code, text)) => refuse(asking.out, code, text),
            }),
            Ask::Cancel(id) => asking.cancel(id).map(|(reply, _)| reply),
            Ask::Retry(id) => Ok(asking.edit_dead(Target::Job(id), ScanRequest::Retry(Target::Job(id)))),
            Ask::Forget(id) => Ok(asking.edit_dead(Target::Job(id), ScanRequest::Forget(Target::Job(id)))),
            Ask::RetryAll => Ok(asking.edit_dead(Target::Dead, ScanRequest::Retry(Target::Dead))),
            Ask::ForgetAll => Ok(asking.edit_dead(Target::Dead, ScanRequest::Forget(Target::Dead))),
            Ask::Hold(held) => asking.set_held(held),
            Ask::Drain => Ok(match asking.refuse_drain() {
                Some(refused) => refused,
                None => {
                    *draining = true;
                    asking.core.begin_drain();
                    asking.replies.set_state(slot, ClientState::Draining)
                }
            }),
            Ask::Stop => {
                asking.out.push_str("ok stopping\n");
                if !asking.core.is_stopping() {
                    asking.core.stop(now);
                }
                Ok(Reply::Sent)
            }
            Ask::Watch => Ok(asking.watch()),
            Ask::Garbage => Ok(refuse(asking.out, Code::BadRequest, "unknown request")),
        };
        done.unwrap_or_else(|error| refuse_disk(asking.out, error))
    }

    fn poll_scan(&mut self, service: &mut Service, now: Instant) {
        let Service { core, replies, scans, .. } = service;
        let mut scratch = [0; READ_BYTES * 4];
        match scans.poll(replies, core, &mut self.disk, &mut scratch, now) {
            None => {}
            Some(ScanAction::Finish(slot, outcome)) => self.finish_scan(service, slot, outcome),
            Some(ScanAction::BeginPage(slot, rows)) => {
                self.answer(slot, format!("ok {rows}\n").as_bytes());
                self.send_page(service, slot, now);
            }
            Some(ScanAction::SendPage(slot)) => self.send_page(service, slot, now),
        }
    }

    fn send_page(&mut self, service: &mut Service, slot: usize, now: Instant) {
        loop {
            let Service { core, replies, scans, .. } = service;
            match scans.next_rows(replies, core, false, now) {
                PageStep::Wait => return,
                PageStep::Close => return self.close(service, slot),
                PageStep::Done => return replies.clear(slot),
                PageStep::Rows(next) => {
                    let mut buffer = [0; READ_BYTES];
                    let mut out = Writer::new(&mut buffer);
                    scans.push_rows(next, core, &mut self.disk, now, &mut out);
                    scans.rows_sent(out.as_bytes());
                    self.answer(slot, out.as_bytes());
                }
            }
        }
    }

    /// Closes a connection from the end of the service.
    fn close(&mut self, service: &mut Service, slot: usize) {
        service.replies.clear(slot);
        service.scans.drop_client(slot);
        self.clients[slot] = None;
    }

    fn finish_scan(&mut self, service: &mut Service, slot: usize, outcome: ScanOutcome) {
        service.replies.defer(slot, outcome.pending());
        let mut line = [0; 128];
        let mut out = Writer::new(&mut line);
        outcome.push(&mut out);
        self.answer(slot, out.as_bytes());
    }

    pub(super) fn reply_after_commit(
        &mut self,
        service: &mut Service,
        jobs: DiskResult,
        edits: DiskResult,
        _: Instant,
    ) {
        for slot in 0..CLIENTS_MAX {
            let pending = service.replies.take_pending(slot);
            if pending != PendingReply::None {
                let mut answers = [0; CLIENT_OUTPUT_BYTES];
                let mut out = Writer::new(&mut answers);
                pending.push(jobs, edits, &mut out);
                self.answer(slot, out.as_bytes());
                service.woken |= self.clients[slot].as_ref().is_some_and(|client| !client.to_send.is_empty());
            }
        }
    }

    pub(super) fn notify_waiters(&mut self, service: &mut Service, _: Instant) {
        for slot in 0..CLIENTS_MAX {
            if let ClientState::AwaitingJob(id) | ClientState::Following(id) = service.replies.state(slot)
                && let Some(result) = service.core.history.result_of(id)
            {
                self.finish_scan(service, slot, ScanOutcome::Ended(id, result));
            }
        }
    }

    /// Answers the clients that wait, and closes all.
    pub(super) fn dismiss_clients(&mut self, service: &Service) {
        for slot in 0..CLIENTS_MAX {
            let answer = service.replies.farewell(slot, service.draining);
            self.answer(slot, answer);
            self.clients[slot] = None;
        }
    }

    /// Gives an answer to a client.
    fn answer(&mut self, slot: usize, answer: &[u8]) {
        for line in answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.on_line(slot, &String::from_utf8_lossy(line));
        }
        if let Some(client) = &mut self.clients[slot] {
            client.leaves = client.asked.is_empty() && client.rows == 0;
        }
    }

    /// Takes a line of an answer.
    fn on_line(&mut self, slot: usize, line: &str) {
        let Some(client) = &mut self.clients[slot] else { return };
        if client.rows > 0 {
            client.rows -= 1;
            return self.on_row(slot, line);
        }
        let ask = client.asked.pop_front().unwrap_or_else(|| panic!("an answer without a request: {line}"));
        let ok = line.starts_with("ok");
        assert!(ok || line.starts_with("err "), "{ask:?}: {line}");
        let field = |name: &str| {
            line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
        };
        self.line.trace(|| format!("client {slot}: {ask:?}: {line}"));
        match ask {
            Ask::Queue(index) | Ask::After(index, _) => match field("id") {
                Some(id) if ok => {
                    assert!(
                        self.disk.is_journal_named(),
                        "{id} is for a journal that its path does not lead to"
                    );
                    self.ledger.has_id(index, id);
                    let (boot, now) = (self.line.boot, self.line.now().as_ms());
                    let job = &mut self.ledger.jobs[index];
                    job.promised = true;
                    if let Ask::After(_, delay) = ask {
                        // It was asked for a moment before.
                        job.due = Some((boot, (now + delay).saturating_sub(self.asked_ms)));
                        job.ready_at = self.line.time + delay;
                    }
                    self.acknowledged += 1;
                }
                _ => self.ledger.jobs[index].removed = Removed::Unsure,
            },
            Ask::List(which) => {
                let rows = line.strip_prefix("ok ").and_then(|rows| rows.parse().ok());
                if let (Some(client), Some(rows)) = (&mut self.clients[slot], rows) {
                    (client.rows, client.last_row) = (rows, 0);
                    client.rows_are_ends = which == "done";
                }
            }
            Ask::Cancel(id) | Ask::Forget(id) => {
                self.ledger.removal_answered(id, ok, line.starts_with("err no-job"));
            }
            Ask::Retry(id) => {
                if let (Some(job), true) = (self.ledger.by_id(id), ok) {
                    (self.ledger.jobs[job].end, self.ledger.jobs[job].dead) = (End::Open, false);
                    self.ledger.jobs[job].ready_at = self.line.time;
                }
            }
            Ask::RetryAll | Ask::ForgetAll => self.ledger.rewriting = false,
            Ask::Hold(held) if ok => self.held = Some(held),
            Ask::Wait(id) if ok => {
                let job = self.ledger.by_id(id).map(|job| self.ledger.jobs[job].clone());
                assert!(
                    job.is_none_or(|job| job.end != End::Open || job.removed != Removed::No),
                    "{id} has not ended: {line}"
                );
            }
            _ => {}
        }
    }

    /// Takes a row of a page: each job once, in the order of ids, with its text.
    fn on_row(&mut self, slot: usize, line: &str) {
        let Some(client) = &mut self.clients[slot] else { return };
        let id: u64 = line
            .split(' ')
            .next()
            .and_then(|id| id.parse().ok())
            .unwrap_or_else(|| panic!("a row without an id: {line}"));
        client.last_row = id;
        if client.rows_are_ends {
            return self.on_end(id, line);
        }
        let text = line.split(' ').skip_while(|word| !word.starts_with('j')).collect::<Vec<_>>().join(" ");
        if text.is_empty() {
            assert!(line.contains("cannot be read"), "a row without a text: {line}");
        } else {
            self.ledger.find(text.as_bytes());
        }
    }

    /// Takes a row of `list done`: an end that was reported, or a cancellation that was asked for.
    fn on_end(&self, id: u64, line: &str) {
        let Some(job) = self.ledger.by_id(id).map(|job| &self.ledger.jobs[job]) else { return };
        let kind = line.split(' ').nth(1).unwrap_or_default();
        let exit = line.split(' ').find_map(|word| word.strip_prefix("exit=")?.parse().ok());
        let is_known = job.ended.iter().any(|end| end.0 == kind && Some(end.1) == exit);
        assert!(is_known || kind == "cancelled", "no job ended so: {line}, {job:?}");
    }
}
