//! The service `jobs` in the simulated kernel: performs what the decisions of `state` ask for, as
//! `service/jobs` does on a real one.

use super::board::Board;
use super::processes::Nature;
use super::random::Random;
use super::scenario::Kind;
use crate::limits::{GROUPS_NOTED_MAX, SCRATCH_BYTES, WORKERS_MAX};
use crate::proto::attributes::HandlerKind;
use crate::proto::journal::RECORD_MAX_BYTES;
use crate::proto::leftovers::{NoteHead, NotedGroup, emit, parse};
use crate::state::disk::{Disk, MOVED};
use crate::state::jobs::replies::Replies;
use crate::state::jobs::scan_task::{ListMemory, Scans};
use crate::state::jobs::{
    AttemptReport, ClientNeeds, GroupCheck, HandlerSignal, JobRules, JobsCore, SignalKind, TurnAction,
    TurnNotice,
};
use crate::state::leftovers::is_current;
use crate::state::spool::{RecoverError, SpoolRules};
use crate::state::window::{AttemptEnd, AttemptOutcome, Slot};
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant, earliest};

const fn ms(ms: u64) -> Duration {
    Duration::from_ms(ms)
}

/// The rules at the start of a run.
pub(super) const RULES: JobRules = JobRules {
    spool: SpoolRules {
        retries: 2,
        retry_delay: ms(1000),
        queue_max: 10_000,
        dead_max: 1000,
        handler: HandlerKind::Shell,
        sync: true,
    },
    workers: 2,
    job_timeout: Duration::ZERO,
    stop_timeout: ms(10_000),
    queue_interval: ms(3000),
    takes_all: false,
    logs_jobs: false,
    stale_after: ms(15_000),
};

/// Milliseconds from one heartbeat to the next.
pub(super) const INTERVAL: u64 = 3000;
/// Turns without a pause after which the service spins.
const SPIN_TURNS: u32 = 3000;

/// A handler that runs.
pub(super) struct Worker {
    pub(super) pid: u32,
    pub(super) id: u64,
    pub(super) job: usize,
    group: NotedGroup,
}

/// One process of the service.
pub(super) struct Service {
    pub(super) core: Box<JobsCore>,
    scratch: Vec<u8>,
    pub(super) replies: Replies,
    pub(super) scans: Scans,
    pub(super) workers: Vec<Worker>,
    pub(super) draining: bool,
    /// Milliseconds since boot of the last heartbeat.
    beat_at: u64,
    beats: u32,
    /// Signals that have come.
    pub(super) terms: u32,
    pub(super) reloads: bool,
    /// inotify has something.
    pub(super) queue_written: bool,
    /// Something woke the service.
    pub(super) woken: bool,
    /// Children have ended.
    pub(super) reaps: bool,
    /// When a decision is due, as the last turn found.
    planned: Option<Instant>,
    /// Only a heartbeat woke the service: no decision has asked for this turn.
    asleep: bool,
    token: [u8; 32],
    note_outdated: bool,
    /// The jobs whose lines are not in the log yet.
    log_buffer: Vec<usize>,
    /// Turns since the last pause.
    busy_turns: u32,
    /// Jobs that ended in this process, by the reports.
    pub(super) ended: u64,
}

impl Service {
    pub(super) fn into_memory(self) -> &'static mut ListMemory {
        self.scans.into_memory()
    }

    /// Returns when a decision is due.
    fn own_deadline(&self, now: Instant) -> Option<Instant> {
        let scans = self.scans.next_deadline(&self.replies, &self.core, now);
        earliest(scans, self.core.next_deadline(now, self.scans.is_paging()))
    }

    /// Returns when the service wakes by itself.
    pub(super) fn next_deadline(&self) -> Instant {
        let beat = Instant::from_ms(self.beat_at + INTERVAL);
        self.planned.map_or(beat, |due| due.or_earlier(beat))
    }
}

impl Board {
    fn note_head(&self) -> NoteHead {
        NoteHead { boot: [b'a' + u8::try_from(self.line.boot % 20).unwrap_or(0); 36], namespace: 1 }
    }

    /// Starts the service, as `start` does. The disk may refuse it; then it is tried again later.
    pub(super) fn start_service(&mut self) {
        if self.service.is_some() {
            return;
        }
        let now = self.line.now();
        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut core = Box::new(JobsCore::EMPTY);
        let mut boot = [1; 16];
        boot[..4].copy_from_slice(&self.line.boot.to_le_bytes());
        core.spool.set_boot(boot);
        let recovery = match core.recover(&mut self.disk, &mut scratch, self.rules, now) {
            Ok(recovery) => recovery,
            Err(RecoverError::Disk(error)) => {
                self.line.trace(|| format!("the service does not start: {error:?}"));
                self.cut_if_dead();
                self.disk_restarts();
                return self.schedule_start(5000);
            }
            Err(RecoverError::OtherVersion) => panic!("the journal is of another version"),
        };
        core.spool.adopt_claims(&mut self.disk, now);
        core.check_queue(true, now);
        if let Some((head, groups)) = parse(&self.note)
            && is_current(&head, &self.note_head())
        {
            let there = groups.filter(|group| {
                let job = self.ledger.by_id(group.job);
                job.is_some() && self.processes.has_member(group.number, job)
            });
            there.for_each(|group| core.leftovers.inherit(group, now));
        }
        self.line.trace(|| {
            format!(
                "the service starts: {recovery:?}, {} waiting, {} dead",
                core.spool.waiting(),
                core.spool.dead()
            )
        });
        let damaged = recovery.damaged_bytes;
        self.is_torn &= damaged + recovery.torn_bytes > 0 || self.is_torn_now();
        let explained = self.cuts > 0
            || self.line.fired.contains_key(&Kind::IoError)
            || self.line.fired.contains_key(&Kind::IoOnce);
        assert!(damaged == 0 || explained, "{damaged} bytes are damaged, without an error of the disk");
        self.lives += 1;
        let token = crate::proto::leftovers::token(&u128::from(self.lives).to_le_bytes());
        let memory = self.memory.take().unwrap_or_else(|| Box::leak(Box::new(ListMemory::EMPTY)));
        let service = Service {
            core,
            scratch,
            replies: Replies::EMPTY,
            scans: Scans::new(memory),
            workers: Vec::new(),
            draining: false,
            beat_at: now.as_ms(),
            beats: 0,
            terms: 0,
            reloads: false,
            queue_written: true,
            woken: true,
            reaps: false,
            planned: None,
            asleep: false,
            token,
            note_outdated: true,
            log_buffer: Vec::new(),
            busy_turns: 0,
            ended: 0,
        };
        self.service = Some(service);
        // A line without its end waits for its writer again.
        (self.progress_at, self.known_at) = (self.line.time, self.line.time);
        self.die_if_dead();
    }

    /// Performs one turn of the loop.
    pub(super) fn turn(&mut self) {
        let Some(mut service) = self.service.take() else { return };
        let now = self.line.now();
        self.turns += 1;
        let woken = core::mem::take(&mut service.woken);
        service.busy_turns = if woken { 0 } else { service.busy_turns + 1 };
        service.asleep = !woken && !service.planned.is_some_and(|due| due.is_due(now));
        assert!(service.busy_turns < SPIN_TURNS, "the service spins");
        if service.terms > 0 {
            service.terms -= 1;
            service.woken = service.terms > 0;
            self.line.trace(|| "SIGTERM received".to_owned());
            service.core.stop(now);
        }
        if core::mem::take(&mut service.reloads) {
            service.core.set_rules(self.rules);
            service.core.handler_changed();
            service.core.spool.claims.retry_now();
        }
        while let Some(signal) = service.core.next_signal(now) {
            self.signal_handler(&mut service, signal, now);
        }
        while let Some(check) = service.core.leftovers.next_check(now) {
            self.check_leftover(&mut service, &check, now);
        }
        service.core.check_queue(true, now);
        if core::mem::take(&mut service.queue_written) {
            service.core.spool.claims.look_at_queue();
            service.core.spool.claims.look_at_claims();
        }
        self.reap(&mut service, now);
        if service.core.spool.awaits_wall_clock() {
            service.core.spool.set_wall_clock(self.wall());
        }
        service.core.begin_turn(now);
        let mut actions = 0;
        loop {
            let Service { core, scratch, .. } = &mut service;
            let Some(action) = core.next_action(&mut self.disk, scratch, now, &mut |_| {}) else { break };
            if self.disk.is_dead() {
                break;
            }
            self.perform(&mut service, action, now);
            actions += 1;
            assert!(actions < 10_000, "a turn does not end: {action:?}");
        }
        if service.note_outdated {
            self.write_note(&mut service);
        }
        if !self.disk.is_dead() {
            if service.draining && service.core.is_drained() {
                self.line.trace(|| "drained".to_owned());
                service.core.stop(now);
            }
            if service.core.is_stop_due(now) {
                service.core.stop(now);
            }
            self.end_turn(&mut service, now);
        }
        service.planned = service.own_deadline(now);
        self.service = Some(service);
        self.die_if_dead();
        self.finish_if_stopped();
    }

    fn end_turn(&mut self, service: &mut Service, now: Instant) {
        let mut events = [0; 4096];
        if service.core.history.watched {
            while !service.core.take_events(&mut self.disk, &mut Writer::new(&mut events)) {}
            if !service.replies.is_watched() {
                service.core.history.stop_watching();
            }
        }
        let here = service.core.home.is_here() && !service.core.disk_health.is_failing();
        if here && !service.core.spool.window().has_pending_records() {
            self.ledger.recorded(service.core.spool.next_deadline().is_none());
        }
        // A disk that has just refused something is the one that a power cut must not meet.
        let every = if service.core.disk_health.is_failing() { 3 } else { self.shadow_every };
        if self.random.one_in(every) {
            self.check_shadow(service);
        }
        if now.as_ms() >= service.beat_at + 250 {
            service.beat_at = now.as_ms();
            service.beats += 1;
            service.core.spool.claims.on_heartbeat();
            if service.beats.is_multiple_of(3) {
                let path = self.disk.journal_path();
                service.core.journal_looked_at(path, now);
            }
            self.check_progress(service);
        }
    }

    fn perform(&mut self, service: &mut Service, action: TurnAction, now: Instant) {
        match action {
            TurnAction::FlushLog => {
                let written = !self.log_fails;
                for job in service.log_buffer.drain(..) {
                    if written {
                        self.ledger.jobs[job].ended.push(("done", 0));
                        self.ledger.ends(job, false);
                    } else {
                        self.line.count(Kind::LogFails);
                    }
                }
                service.core.log_flushed(written);
            }
            TurnAction::NotifyWaiters => self.notify_waiters(service, now),
            TurnAction::ServeClients => {
                self.serve(service, now);
                let commit = service.replies.any_pending();
                let paging = service.scans.is_paging();
                service.core.clients_served(ClientNeeds { commit, paging });
            }
            TurnAction::Reply { jobs, edits } => self.reply_after_commit(service, jobs, edits, now),
            TurnAction::LogDropped(location) => {
                if let Some(job) = self.ledger.by_id(location.id) {
                    // A client may have asked for its removal meanwhile, and hears of no such job.
                    let job = &mut self.ledger.jobs[job];
                    (job.removed, job.removing) = (super::ledger::Removed::Unsure, false);
                }
            }
            TurnAction::LogJob(slot) => {
                if let Some(job) = self.text_of(service, &slot, now) {
                    self.starts(service, job, &slot);
                    service.log_buffer.push(job);
                }
            }
            TurnAction::StartHandler(slot) => self.start_handler(service, &slot, now),
            TurnAction::Signal(signal) => self.signal_handler(service, signal, now),
            TurnAction::SwitchQueueFile => service.core.spool.claims.folder_changed(),
            TurnAction::Notice(notice) => {
                if let TurnNotice::Damaged(damage) = notice {
                    assert!(damage.jobs == 0, "{} jobs are damaged", damage.jobs);
                }
                self.line.trace(|| format!("notice {notice:?}"));
            }
        }
    }

    /// Returns the job of a slot, by its text.
    fn text_of(&mut self, service: &mut Service, slot: &Slot, now: Instant) -> Option<usize> {
        let mut buffer = [0; RECORD_MAX_BYTES];
        match service.core.job_text(&mut self.disk, slot, &mut buffer) {
            Ok(text) => {
                let job = self.ledger.find(text);
                self.ledger.has_id(job, slot.id);
                Some(job)
            }
            Err(error) => {
                self.line.trace(|| format!("the text of {} cannot be read: {error:?}", slot.id));
                let report = service.core.handler_refused(slot.id);
                let job = self.ledger.by_id(slot.id).or_else(|| self.truth_of(slot));
                if let Some(job) = job {
                    self.ledger.has_id(job, slot.id);
                    self.reported(service, job, report, now);
                }
                None
            }
        }
    }

    /// Returns the job whose text a slot has in the journal, though the disk does not give it away.
    fn truth_of(&mut self, slot: &Slot) -> Option<usize> {
        let from = usize::try_from(slot.offset).ok()?;
        let bytes = self.disk.journal_mut().get(from..from + slot.size as usize)?.to_vec();
        let is_in = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        self.ledger.jobs.iter().position(|job| is_in(&job.text))
    }

    /// Takes the start of an attempt, by a handler or the log.
    fn starts(&mut self, service: &Service, job: usize, slot: &Slot) {
        let (boot, now) = (self.line.boot, self.line.now().as_ms());
        self.line.trace(|| format!("job {} starts, attempt {}: j{job}", slot.id, slot.attempt));
        assert!(!service.core.spool.is_held(), "j{job} starts while the queue is held");
        let again = self.ledger.jobs[job].runs > 0 || self.ledger.jobs[job].due.is_some();
        assert!(!service.asleep || !again, "j{job} starts with a heartbeat, and no deadline asked for it");
        self.ledger.starts(job, boot, now);
        self.progress_at = self.line.time;
    }

    fn start_handler(&mut self, service: &mut Service, slot: &Slot, now: Instant) {
        let Some(job) = self.text_of(service, slot, now) else { return };
        if self.handler_missing {
            self.line.count(Kind::HandlerMissing);
            service.core.handler_failed(slot.id, now);
            return;
        }
        if self.line.happens(Kind::JobRejected, 60) {
            let report = service.core.job_rejected(slot.id, AttemptOutcome::Code(127));
            self.starts(service, job, slot);
            return self.reported(service, job, report, now);
        }
        self.starts(service, job, slot);
        assert_eq!(self.processes.count_of(job), 0, "j{job} starts, and an earlier attempt runs");
        assert!(service.workers.len() < self.rules.workers.max(self.workers_before), "too many handlers");
        let hangs = self.line.happens(Kind::JobHangs, 25);
        let nature = Nature {
            ignores_term: self.line.happens(Kind::JobIgnoresTerm, 20),
            unkillable_until: if self.line.happens(Kind::JobUnkillable, 150) {
                self.line.time + 20_000
            } else {
                0
            },
        };
        let status = if self.line.happens(Kind::JobFails, 6) { 1 } else { 0 };
        let mut random = Random::new(self.line.scenario.seed, (job as u64) << 16 | u64::from(slot.attempt));
        let took = if hangs { random.between(60_000, 400_000) } else { random.wait(1500) };
        let took = if nature.unkillable_until > 0 { took.max(20_000) } else { took };
        let (pid, serial) = self.processes.start(None, Some(job), nature);
        if self.line.happens(Kind::JobForks, 20) {
            let lives = random.wait(3000);
            let (child, child_serial) =
                self.processes.start(Some(pid), Some(job), Nature { unkillable_until: 0, ..nature });
            self.line.after(took + lives, super::board::Event::Exit(child, child_serial, 0));
        }
        self.line.after(took, super::board::Event::Exit(pid, serial, status));
        let group =
            NotedGroup { number: pid, session: 1, job: slot.id, from: now, upto: now, token: service.token };
        service.core.leftovers.remove(pid);
        service.workers.push(Worker { pid, id: slot.id, job, group });
        self.write_note(service);
        service.core.handler_started(slot.id, now);
    }

    fn write_note(&mut self, service: &mut Service) {
        service.note_outdated = false;
        let mut note = [0; 200 * (WORKERS_MAX + GROUPS_NOTED_MAX)];
        let mut out = Writer::new(&mut note);
        let workers = service.workers.iter().map(|worker| &worker.group);
        emit(&self.note_head(), &mut workers.chain(service.core.leftovers.groups()), &mut out);
        assert!(!out.is_cut());
        self.note = out.as_bytes().to_vec();
    }

    fn reap(&mut self, service: &mut Service, now: Instant) {
        let mut recheck = false;
        while let Some((pid, status)) = self.processes.reap() {
            let Some(index) = service.workers.iter().position(|worker| worker.pid == pid) else {
                recheck = true;
                continue;
            };
            let worker = service.workers.swap_remove(index);
            service.note_outdated = true;
            if self.processes.has_child_in(pid) {
                if service.core.leftovers.is_full() {
                    self.recheck_leftovers(service, now);
                }
                if let Some(oldest) = service.core.group_left(worker.group, now)
                    && self.processes.has_child_in(oldest.number)
                {
                    self.signal_group(oldest.number, oldest.job, true);
                }
            }
            let outcome = match status {
                0 => AttemptOutcome::Success,
                256.. => AttemptOutcome::Signal(u8::try_from(status - 256).unwrap_or(0)),
                code => AttemptOutcome::Code(u8::try_from(code).unwrap_or(1)),
            };
            let report = service.core.handler_ended(worker.id, outcome, now);
            self.reported(service, worker.job, report, now);
        }
        if recheck {
            self.recheck_leftovers(service, now);
        }
    }

    /// Takes how an attempt ended.
    fn reported(&mut self, service: &mut Service, job: usize, report: Option<AttemptReport>, now: Instant) {
        self.line.trace(|| format!("j{job}: {:?}", report.map(|report| (report.outcome, report.end))));
        self.progress_at = self.line.time;
        let time = self.line.time;
        self.ledger.jobs[job].ready_at = time + 1000;
        let Some(report) = report else { return };
        let exit = match report.outcome {
            AttemptOutcome::Success => 0,
            AttemptOutcome::Code(code) => code,
            AttemptOutcome::Signal(signal) => signal.saturating_add(128),
            AttemptOutcome::TimedOut => 143,
            AttemptOutcome::NotStarted => 127,
        };
        let kind = if matches!(report.end, AttemptEnd::Dead(_)) { "dead" } else { "done" };
        self.ledger.jobs[job].ended.push((kind, exit));
        self.last_end = Some((job, self.line.settling));
        match report.end {
            AttemptEnd::Done(_) => self.ledger.ends(job, false),
            AttemptEnd::Dead(_) => self.ledger.ends(job, true),
            AttemptEnd::Fail(delay) => self.ledger.jobs[job].ready_at = time + delay.as_ms(),
            AttemptEnd::Requeued | AttemptEnd::RequeuedCounted | AttemptEnd::Cancelled => {}
        }
        if !matches!(report.end, AttemptEnd::Fail(_)) {
            service.ended += 1;
        }
        let _ = now;
    }

    fn signal_handler(&mut self, service: &mut Service, signal: HandlerSignal, now: Instant) {
        let HandlerSignal { id, kind } = signal;
        self.line.trace(|| format!("{kind:?} to job {id}"));
        let Some(index) = service.workers.iter().position(|worker| worker.id == id) else { return };
        let pid = service.workers[index].pid;
        match kind {
            SignalKind::Terminate | SignalKind::Timeout => self.signal_group(pid, id, false),
            SignalKind::Kill => self.signal_group(pid, id, true),
            SignalKind::Stuck => {}
            SignalKind::Abandon => {
                let worker = service.workers.swap_remove(index);
                service.note_outdated = true;
                let report = service.core.handler_ended(id, AttemptOutcome::Signal(9), now);
                self.reported(service, worker.job, report, now);
            }
        }
    }

    /// Sends a signal to a group, in which no stranger may be.
    fn signal_group(&mut self, group: u32, id: u64, kills: bool) {
        let job = self.ledger.by_id(id);
        let stranger = self.processes.members(group).find(|(_, process)| process.job != job);
        assert!(stranger.is_none(), "group {group} of job {id} gets a signal, and {stranger:?} is in it");
        if self.processes.signal_group(group, kills, self.line.time)
            && let Some(service) = &mut self.service
        {
            service.woken = true;
        }
        self.child_ended = true;
    }

    fn check_leftover(&mut self, service: &mut Service, check: &GroupCheck, now: Instant) {
        let GroupCheck { group, inherited, signal } = check;
        let job = self.ledger.by_id(group.job);
        let is_there = match inherited {
            true => self.processes.has_member(group.number, job),
            false => self.processes.has_child_in(group.number),
        };
        let _ = service.core.leftovers.on_checked(group.number, is_there, now);
        if !is_there {
            service.note_outdated = true;
        } else if let Some(signal) = signal {
            self.signal_group(group.number, group.job, *signal == SignalKind::Kill);
        }
    }

    fn recheck_leftovers(&mut self, service: &mut Service, now: Instant) {
        for (group, inherited) in service.core.leftovers.copy() {
            self.check_leftover(service, &GroupCheck { group, inherited, signal: None }, now);
        }
    }

    /// Ends the process if it has stopped: records everything, and answers the clients.
    fn finish_if_stopped(&mut self) {
        if !self.service.as_ref().is_some_and(|service| service.core.is_stopped()) {
            return;
        }
        let Some(mut service) = self.service.take() else { return };
        let now = self.line.now();
        let finished = service.core.finish(&mut self.disk, now);
        self.line.trace(|| format!("the service has stopped: {finished:?}"));
        if !self.disk.is_dead() && finished.is_ok() {
            self.ledger.recorded(true);
        }
        assert!(finished != Err(MOVED) || !self.disk.is_journal_named(), "the spool is there");
        self.dismiss_clients(&service);
        self.service = Some(service);
        self.service_ends(false);
    }
}
