//! The supervisor in the simulated kernel: performs what the decisions of `state` ask for, as
//! `service/supervisor` does on a real one.

use super::board::{Event, SupervisedBoard};
use super::kernel::boot_id;
use crate::proto::health::HealthRecord;
use crate::proto::leftovers::{NoteHead, NotedGroup, Token, emit, parse, token};
use crate::proto::service::Service;
use crate::sim::scenario::Kind;
use crate::state::leftovers::is_current;
use crate::state::supervisor::Supervision;
use crate::state::supervisor::decision::{
    Action, Decision, Event as Told, ExitReason, NOTHING, ProgramRules, Report, Request,
};
use crate::state::supervisor::instance::{Instance, Phase};
use crate::state::supervisor::probe::{Beat, FileVersion, Probe, ProbeError, SocketAnswer, beat_of};
use crate::state::watchdog::{KickDecision, StopDecision, Watchdog};
use crate::util::text::Writer;
use crate::util::time::{Instant, earliest};

/// Milliseconds from one heartbeat of a service to the next.
pub(super) const INTERVAL: u64 = 3000;
/// Seconds after which the device resets the board.
pub(super) const DEVICE_SECS: u32 = 60;
/// Turns without a pause after which the supervisor spins.
const SPIN_TURNS: u32 = 1000;

/// A signal that a process gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sent {
    /// TERM, or the stop signal of a program, and CONT.
    Stop,
    Kill,
}

/// One managed process, as the supervisor knows it.
pub(super) struct Managed {
    pub(super) unit: usize,
    is_child: bool,
    /// The process that a pidfd stands for.
    pidfd: Option<u64>,
    /// The number of the question that was sent to its socket.
    asking: Option<u64>,
    is_down: bool,
    pub(super) is_leaving: bool,
    leftover: Option<NotedGroup>,
    group: Option<NotedGroup>,
}

impl Managed {
    fn new(unit: usize) -> Self {
        let (is_child, is_down, is_leaving) = (false, false, false);
        let (pidfd, asking, leftover, group) = (None, None, None, None);
        Self { unit, is_child, pidfd, asking, is_down, is_leaving, leftover, group }
    }

    fn forget_process(&mut self) {
        (self.is_child, self.pidfd, self.asking) = (false, None, None);
        (self.leftover, self.group) = (None, None);
    }
}

/// One process of the supervisor.
pub(super) struct Supervisor {
    pub(super) supervision: Supervision,
    watchdog: Watchdog,
    is_device_open: bool,
    pub(super) managed: Vec<Managed>,
    life: u64,
    /// When it was started.
    pub(super) since: u64,
    beat_at: u64,
    seq: u64,
    /// Its last heartbeat was written.
    is_written: bool,
    /// Signals that have come.
    pub(super) terms: u32,
    pub(super) quits: bool,
    pub(super) reloads: bool,
    /// Answers of sockets: the unit, and the number of the question.
    pub(super) answers: Vec<(usize, u64)>,
    /// The requests of users.
    pub(super) requests: Vec<(usize, Request)>,
    questions: u64,
    /// Only its heartbeat woke it: no decision has asked for this turn.
    asleep: bool,
    busy_turns: u32,
}

impl Supervisor {
    /// Returns when a decision is due.
    fn own_deadline(&self) -> Option<Instant> {
        earliest(self.supervision.next_deadline(), self.watchdog.next_deadline())
    }

    /// Returns when the supervisor wakes by itself.
    pub(super) fn next_deadline(&self) -> Instant {
        let beat = Instant::from_ms(self.beat_at + INTERVAL);
        self.own_deadline().map_or(beat, |due| due.or_earlier(beat))
    }

    /// Returns true if a user has stopped the unit, and no mark could be made.
    pub(super) fn remembers_stop(&self, unit: usize) -> bool {
        self.managed.iter().any(|managed| managed.unit == unit && managed.is_down)
    }

    /// Returns the instance of a unit.
    pub(super) fn instance(&self, unit: usize) -> Option<&Instance> {
        let index = self.managed.iter().position(|managed| managed.unit == unit)?;
        self.supervision.instances().get(index)
    }
}

impl SupervisedBoard {
    fn head(&self) -> NoteHead {
        NoteHead { boot: boot_id(self.line.boot), namespace: 1 }
    }

    /// Returns the token that the processes of a program have.
    fn token_of(life: u64, unit: usize) -> Token {
        token(&((u128::from(life) << 64) | unit as u128).to_le_bytes())
    }

    /// Starts the supervisor.
    pub(super) fn start_supervisor(&mut self) {
        if self.supervisor.is_some() {
            return;
        }
        let now = self.line.now();
        self.lives += 1;
        self.calm();
        self.line.trace(|| "----- the supervisor starts".to_owned());
        let mut supervisor = Supervisor {
            supervision: Supervision::new(now, self.rules, true),
            watchdog: Watchdog::new(self.has_device),
            is_device_open: false,
            managed: Vec::new(),
            life: self.lives,
            since: self.line.time,
            beat_at: now.as_ms(),
            seq: 0,
            is_written: true,
            terms: 0,
            quits: false,
            reloads: false,
            answers: Vec::new(),
            requests: Vec::new(),
            questions: 0,
            asleep: false,
            busy_turns: 0,
        };
        for unit in &mut self.units {
            unit.is_finished = false;
            // The memory of the last supervisor is lost where no mark could be made.
            unit.is_down &= self.kernel.marks.get(&unit.index) == Some(&self.line.boot);
        }
        self.update_managed(&mut supervisor, now);
        self.end_leftovers(&mut supervisor, now);
        (self.supervisor, self.woken) = (Some(supervisor), true);
    }

    /// Performs one turn of the loop.
    pub(super) fn turn(&mut self) {
        let Some(mut supervisor) = self.supervisor.take() else { return };
        let sup = &mut supervisor;
        let now = self.line.now();
        self.turns += 1;
        let woken = core::mem::take(&mut self.woken);
        sup.asleep = !woken && !sup.own_deadline().is_some_and(|due| due.is_due(now));
        sup.busy_turns = if woken || sup.asleep { 0 } else { sup.busy_turns + 1 };
        assert!(sup.busy_turns < SPIN_TURNS, "the supervisor spins");
        if !sup.is_written {
            sup.supervision.on_unwritten(now);
        }
        if sup.terms > 0 || core::mem::take(&mut sup.quits) {
            let leaves = sup.terms == 0;
            sup.terms = sup.terms.saturating_sub(1);
            self.woken |= sup.terms > 0;
            self.line.trace(|| format!("the supervisor stops, and leaves its services: {leaves}"));
            sup.supervision.on_stop(leaves);
        }
        self.reap(sup, now);
        if core::mem::take(&mut sup.reloads) {
            sup.supervision.set_rules(now, self.rules);
            self.update_managed(sup, now);
        }
        self.read_reports(sup, now);
        self.read_pidfds(sup, now);
        for (unit, number) in core::mem::take(&mut sup.answers) {
            self.on_answer(sup, unit, number, now);
        }
        while let Some((index, decision)) = sup.supervision.poll(now) {
            assert!(!sup.asleep, "{decision:?} comes with a heartbeat, and no deadline asked for it");
            self.perform(sup, index, decision, now);
        }
        for (unit, request) in core::mem::take(&mut sup.requests) {
            self.ask_for(sup, unit, request, now);
        }
        self.remove_left(sup);
        self.kick_watchdog(sup, now);
        if sup.supervision.is_ready(now) {
            sup.supervision.on_announced();
        }
        if now.as_ms() >= sup.beat_at + 250 || sup.seq == 0 {
            self.beat(sup, now);
        }
        if sup.supervision.is_over() {
            return self.finish(&mut supervisor);
        }
        self.supervisor = Some(supervisor);
    }

    /// Writes the supervisor's own heartbeat. Returns true if that succeeds.
    fn beat(&mut self, sup: &mut Supervisor, now: Instant) -> bool {
        (sup.beat_at, sup.seq) = (now.as_ms(), sup.seq + 1);
        let boot = boot_id(self.line.boot);
        let record = HealthRecord { wall: 0, seq: sup.seq, pid: 2, boottime_ms: now.as_ms(), boot };
        sup.is_written = self.kernel.write_health(usize::MAX, &record, true);
        sup.is_written
    }

    fn finish(&mut self, sup: &mut Supervisor) {
        if sup.watchdog.on_stop(false) == StopDecision::Disarm {
            self.armed_until = None;
        }
        let unkillable = sup.supervision.instances().iter().any(Instance::is_unkillable);
        if !unkillable {
            self.kernel.note.clear();
        }
        self.line.trace(|| "----- the supervisor has stopped".to_owned());
        self.supervisor_ends(false);
    }

    // ----- decisions --------------------------------------------------------

    fn perform(&mut self, sup: &mut Supervisor, index: usize, mut decision: Decision, now: Instant) {
        loop {
            let (action, event) = decision;
            let Some(unit) = sup.managed.get(index).map(|managed| managed.unit) else { return };
            if let Some(event) = event {
                self.line.trace(|| format!("unit {unit}: {event:?}"));
                self.check_event(sup, unit, event);
                if matches!(event, Told::Adopted(_) | Told::Foreign)
                    && core::mem::take(&mut sup.managed[index].is_down)
                {
                    self.units[unit].is_down = false;
                }
                if let Told::Adopted(pid) = event {
                    self.adopt(sup, index, pid);
                }
            }
            decision = match action {
                Action::None => return,
                Action::Probe => self.probe(sup, index, now),
                Action::CheckLock => {
                    let probe = self.probe_lock(sup, index, now);
                    sup.supervision.on_report(index, now, Report::Lock(probe))
                }
                Action::Ask => self.ask(sup, index, now),
                Action::Confirm => self.confirm(sup, index, now),
                Action::Look(pid) => {
                    let leftover = sup.managed[index].leftover;
                    if leftover.is_none_or(|group| !self.kernel.has_member(&group)) {
                        self.on_gone(sup, index, pid, ExitReason::Unknown, now);
                    }
                    return;
                }
                Action::Start => self.start(sup, index, now),
                Action::Terminate(pid) => {
                    let is_service = self.units[unit].service.is_some();
                    if !is_service || !self.is_marked(unit) {
                        self.send(sup, index, pid, Sent::Stop);
                    }
                    return;
                }
                Action::Dismiss(pid) => return self.send(sup, index, pid, Sent::Stop),
                Action::Kill(pid) => return self.send(sup, index, pid, Sent::Kill),
            };
        }
    }

    pub(super) fn is_marked(&self, unit: usize) -> bool {
        self.kernel.marks.get(&unit) == Some(&self.line.boot)
    }

    fn is_down(&self, managed: &Managed) -> bool {
        managed.is_down || managed.is_leaving || self.is_marked(managed.unit)
    }

    fn start(&mut self, sup: &mut Supervisor, index: usize, now: Instant) -> Decision {
        let unit = sup.managed[index].unit;
        sup.managed[index].forget_process();
        self.units[unit].is_finished = false;
        if self.units[unit].is_missing || self.has_no_descriptors {
            self.count_missing(unit);
            return sup.supervision.on_report(index, now, Report::NotStarted);
        }
        self.check_start(sup, index);
        let pid = self.spawn(unit, true);
        sup.managed[index].is_child = true;
        self.line.trace(|| format!("unit {unit} is started: pid {pid}"));
        let Some(rules) = self.units[unit].program else {
            return sup.supervision.on_report(index, now, Report::Started(pid));
        };
        let token = Self::token_of(sup.life, unit);
        self.kernel.all.entry(pid).and_modify(|process| process.token = Some(token));
        let group =
            NotedGroup { number: pid, session: pid, job: unit as u64 + 1, from: now, upto: now, token };
        sup.managed[index].group = Some(group);
        sup.supervision.set_program(index, rules);
        self.write_note(sup);
        sup.supervision.on_report(index, now, Report::Started(pid))
    }

    fn write_note(&mut self, sup: &Supervisor) {
        let mut note = [0; 4096];
        let mut out = Writer::new(&mut note);
        let mut groups =
            sup.managed.iter().filter_map(|managed| managed.group.as_ref().or(managed.leftover.as_ref()));
        emit(&self.head(), &mut groups, &mut out);
        assert!(!out.is_cut());
        if !self.kernel.makes_none && !self.kernel.writes_none {
            self.kernel.note = out.as_bytes().to_vec();
        }
    }

    /// Returns the groups in the note.
    pub(super) fn noted(&self) -> Vec<NotedGroup> {
        let noted = parse(&self.kernel.note).filter(|(head, _)| is_current(head, &self.head()));
        noted.map(|(_, groups)| groups.collect()).unwrap_or_default()
    }

    fn adopt(&mut self, sup: &mut Supervisor, index: usize, pid: u32) {
        let managed = &mut sup.managed[index];
        managed.forget_process();
        let holder = self.kernel.holder_of(managed.unit).filter(|(holder, _)| *holder == pid);
        managed.pidfd = holder.filter(|_| self.has_pidfds).map(|(_, process)| process.serial);
    }

    fn send(&mut self, sup: &mut Supervisor, index: usize, pid: u32, sent: Sent) {
        let managed = &sup.managed[index];
        let unit = managed.unit;
        self.line.trace(|| format!("unit {unit}: {sent:?} to {pid}"));
        if let Some(group) = managed.leftover {
            if self.kernel.has_member(&group) {
                self.signal_group(unit, pid, sent);
            }
        } else if managed.is_child && self.units[unit].service.is_none() {
            self.signal_group(unit, pid, sent);
        } else if managed.is_child {
            self.signal(unit, pid, sent);
        } else if let Some(serial) = managed.pidfd {
            let target = self.kernel.all.iter().find(|(_, process)| process.serial == serial);
            if let Some(target) = target.map(|(pid, _)| *pid) {
                self.signal(unit, target, sent);
            }
        } else if self.kernel.holder_of(unit).is_some_and(|(holder, _)| holder == pid) {
            self.signal(unit, pid, sent);
        }
    }

    /// Sends a signal to a group, in which no stranger may be.
    fn signal_group(&mut self, unit: usize, group: u32, sent: Sent) {
        for pid in self.kernel.members(group) {
            self.signal(unit, pid, sent);
        }
    }

    fn signal(&mut self, unit: usize, pid: u32, sent: Sent) {
        let known = self.kernel.all.get(&pid).and_then(|process| process.unit);
        let is_there = self.kernel.all.contains_key(&pid);
        assert!(!is_there || known == Some(unit), "unit {unit}: {sent:?} to {pid}, which is of {known:?}");
        self.deliver(pid, sent);
    }

    // ----- leftovers --------------------------------------------------------

    fn end_leftovers(&mut self, sup: &mut Supervisor, now: Instant) {
        for group in self.noted() {
            if !self.kernel.has_member(&group) {
                continue;
            }
            let unit = usize::try_from(group.job - 1).unwrap_or(usize::MAX);
            let Some(index) = sup.managed.iter().position(|managed| managed.unit == unit) else {
                self.signal_group(unit, group.number, Sent::Stop);
                continue;
            };
            sup.managed[index].leftover = Some(group);
            let decision = sup.supervision.on_report(index, now, Report::Left(group.number));
            self.perform(sup, index, decision, now);
        }
    }

    // ----- ended processes --------------------------------------------------

    fn reap(&mut self, sup: &mut Supervisor, now: Instant) {
        for index in 0..sup.managed.len() {
            let pid = sup.supervision.pid(index).filter(|_| sup.managed[index].is_child);
            let Some(pid) = pid else { continue };
            let process = self.kernel.all.get(&pid);
            let Some(status) = process.and_then(|process| process.ended) else { continue };
            let may = status == 0 && sup.supervision.may_be_in_background(index, now);
            let left = sup.managed[index].group.filter(|_| may);
            let left = left.and_then(|group| {
                let view = self.kernel.find_left(&group)?;
                let (number, session, from) = (view.pid, view.session, view.started);
                Some(NotedGroup { number, session, from, upto: from, ..group })
            });
            if self.units[sup.managed[index].unit].service.is_none() {
                self.signal_group(sup.managed[index].unit, pid, Sent::Kill);
            }
            self.read_report(sup, index, now);
            self.kernel.all.remove(&pid);
            let reason = match status {
                256.. => ExitReason::Signal(u8::try_from(status - 256).unwrap_or(0)),
                code => ExitReason::Code(u8::try_from(code).unwrap_or(1)),
            };
            self.on_gone(sup, index, pid, reason, now);
            let Some(left) = left else { continue };
            let decision = sup.supervision.on_report(index, now, Report::Background(left.number));
            if decision != NOTHING {
                self.line.trace(|| format!("it runs in the background: pid {}", left.number));
                sup.managed[index].leftover = Some(left);
                self.write_note(sup);
                self.perform(sup, index, decision, now);
            }
        }
    }

    fn read_reports(&mut self, sup: &mut Supervisor, now: Instant) {
        (0..sup.managed.len()).for_each(|index| self.read_report(sup, index, now));
    }

    /// Reads if a child has reported that it is ready.
    fn read_report(&mut self, sup: &mut Supervisor, index: usize, now: Instant) {
        if !sup.managed[index].is_child {
            return;
        }
        let process = sup.supervision.pid(index).and_then(|pid| self.kernel.all.get_mut(&pid));
        let Some(process) = process.filter(|process| process.is_ready && !process.is_reported) else {
            return;
        };
        process.is_reported = true;
        let unit = sup.managed[index].unit;
        if self.units[unit].program.is_none_or(|program| program.reports_ready) {
            let decision = sup.supervision.on_report(index, now, Report::Ready);
            self.perform(sup, index, decision, now);
        }
    }

    fn read_pidfds(&mut self, sup: &mut Supervisor, now: Instant) {
        for index in 0..sup.managed.len() {
            let Some(serial) = sup.managed[index].pidfd else { continue };
            let lives =
                self.kernel.all.values().any(|process| process.serial == serial && process.ended.is_none());
            if let Some(pid) = sup.supervision.pid(index).filter(|_| !lives) {
                self.on_gone(sup, index, pid, ExitReason::Unknown, now);
            }
        }
    }

    fn on_gone(&mut self, sup: &mut Supervisor, index: usize, pid: u32, reason: ExitReason, now: Instant) {
        let probe = self.probe_lock(sup, index, now);
        sup.managed[index].forget_process();
        let decision = sup.supervision.on_report(index, now, Report::Gone(pid, reason, probe));
        self.perform(sup, index, decision, now);
    }

    // ----- probes -----------------------------------------------------------

    fn probe(&mut self, sup: &mut Supervisor, index: usize, now: Instant) -> Decision {
        let managed = &sup.managed[index];
        if self.units[managed.unit].service.is_none() {
            let found = self.find_program_file(managed.unit);
            return sup.supervision.on_report(index, now, Report::ProgramFile(found));
        }
        let is_known_alive = managed.is_child || managed.pidfd.is_some();
        let probe = match sup.supervision.pid(index).filter(|_| is_known_alive) {
            Some(pid) => self.probe_heartbeat(managed.unit, pid, now).map(|beat| Probe::Held(pid, beat)),
            None => self.probe_lock(sup, index, now),
        };
        sup.supervision.on_report(index, now, Report::Probe(probe))
    }

    fn find_program_file(&self, unit: usize) -> Result<FileVersion, ProbeError> {
        let version = self.kernel.health.get(&unit).ok_or(ProbeError::Missing)?;
        let number = version.iter().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
        Ok(((1, 1), version.len() as u64, (1, number)))
    }

    fn probe_lock(&self, sup: &Supervisor, index: usize, now: Instant) -> Option<Probe> {
        let managed = &sup.managed[index];
        if self.units[managed.unit].service.is_none() {
            return self.is_down(managed).then_some(Probe::Free);
        }
        if self.has_no_descriptors {
            return None;
        }
        Some(match self.kernel.holder_of(managed.unit) {
            None => Probe::unheld(self.is_down(managed)),
            Some((_, process)) if process.is_foreign => Probe::Foreign,
            Some((pid, _)) => {
                let beat = self.probe_heartbeat(managed.unit, pid, now);
                Probe::Held(pid, beat.unwrap_or(Err(ProbeError::Unreadable)))
            }
        })
    }

    fn probe_heartbeat(&self, unit: usize, pid: u32, now: Instant) -> Option<Result<Beat, ProbeError>> {
        if self.has_no_descriptors {
            return None;
        }
        let Some(file) = self.kernel.health.get(&unit) else { return Some(Err(ProbeError::Missing)) };
        let Ok(record) = HealthRecord::parse(file) else { return Some(Err(ProbeError::Unreadable)) };
        let verdict = record.judge(pid, &boot_id(self.line.boot), now, self.rules.stale_after);
        Some(beat_of(verdict, &record))
    }

    fn ask(&mut self, sup: &mut Supervisor, index: usize, now: Instant) -> Decision {
        let unit = sup.managed[index].unit;
        let holder = self.kernel.holder_of(unit).map(|(pid, _)| pid);
        let answer = match holder.and_then(|pid| self.kernel.all.get_mut(&pid)) {
            _ if self.has_no_descriptors => SocketAnswer::Unknown,
            Some(process) if process.is_ready && !process.is_crowded => {
                sup.questions += 1;
                sup.managed[index].asking = Some(sup.questions);
                if process.is_alive() {
                    let wait = self.random.between(1, 300);
                    self.line.after(wait, Event::Answer(unit, process.serial, sup.questions));
                } else {
                    process.asked.push(sup.questions);
                }
                return NOTHING;
            }
            _ => SocketAnswer::Unreachable,
        };
        sup.supervision.on_report(index, now, Report::Answer(answer))
    }

    fn confirm(&mut self, sup: &mut Supervisor, index: usize, now: Instant) -> Decision {
        let service = self.units[sup.managed[index].unit].service;
        let is_written = match service {
            Some(_) => self.beat(sup, now),
            None => !self.kernel.writes_none && !self.kernel.makes_none,
        };
        match SocketAnswer::without_asking(is_written, service == Some(Service::Jobs)) {
            Some(answer) => sup.supervision.on_report(index, now, Report::Answer(answer)),
            None => self.ask(sup, index, now),
        }
    }

    fn on_answer(&mut self, sup: &mut Supervisor, unit: usize, number: u64, now: Instant) {
        let Some(index) = sup.managed.iter().position(|managed| managed.unit == unit) else { return };
        if sup.managed[index].asking == Some(number) {
            sup.managed[index].asking = None;
            let answer = Report::Answer(SocketAnswer::Answered);
            let decision = sup.supervision.on_report(index, now, answer);
            self.perform(sup, index, decision, now);
        }
    }

    // ----- users and the configuration ---------------------------------------

    fn ask_for(&mut self, sup: &mut Supervisor, unit: usize, request: Request, now: Instant) {
        let index = sup.managed.iter().position(|managed| managed.unit == unit);
        let Some(index) = index.filter(|_| !sup.supervision.is_stopping()) else { return };
        self.line.trace(|| format!("a user asks: {request:?} of unit {unit}"));
        let stops = request == Request::Stop;
        (self.units[unit].fails_since, self.units[unit].stable_at) = (None, self.line.time);
        self.units[unit].is_finished &= stops;
        sup.managed[index].is_down = stops && !self.make_mark(unit);
        self.units[unit].is_down = stops;
        if !stops {
            self.kernel.marks.remove(&unit);
        }
        let decision = sup.supervision.on_report(index, now, Report::Asked(request));
        self.perform(sup, index, decision, now);
    }

    /// Adds what is new in `supervise`, and removes what is not in it any more.
    fn update_managed(&mut self, sup: &mut Supervisor, now: Instant) {
        for index in (0..sup.managed.len()).rev() {
            let unit = &self.units[sup.managed[index].unit];
            if unit.service.is_some() && !unit.is_listed {
                self.forget(sup, index);
            }
        }
        let order: Vec<usize> = (0..self.units.len()).collect();
        let is_service = |unit: &usize| self.units[*unit].service.is_some();
        let (services, programs): (Vec<usize>, Vec<usize>) = order.into_iter().partition(is_service);
        for unit in services {
            let is_known = sup.managed.iter().any(|managed| managed.unit == unit);
            if self.units[unit].is_listed && !is_known && !sup.supervision.is_stopping() {
                sup.managed.push(Managed::new(unit));
                sup.supervision.add(now);
            }
        }
        for index in 0..sup.managed.len() {
            let unit = sup.managed[index].unit;
            if self.units[unit].service.is_some() {
                continue;
            }
            let is_listed = self.units[unit].is_listed;
            let was_leaving = core::mem::replace(&mut sup.managed[index].is_leaving, !is_listed);
            let request = match (was_leaving, is_listed) {
                (false, false) => Request::Stop,
                (true, true) => Request::Start,
                _ => continue,
            };
            let decision = sup.supervision.on_report(index, now, Report::Asked(request));
            self.perform(sup, index, decision, now);
        }
        for unit in programs {
            let is_known = sup.managed.iter().any(|managed| managed.unit == unit);
            if self.units[unit].is_listed && !is_known && !sup.supervision.is_stopping() {
                sup.managed.push(Managed::new(unit));
                sup.supervision.add_program(now, self.units[unit].program.unwrap_or(NO_RULES));
            }
        }
        for index in 0..sup.managed.len() {
            let position = |unit: &usize| sup.managed.iter().position(|managed| managed.unit == *unit);
            let after = &self.units[sup.managed[index].unit].after;
            let needs = after.iter().filter_map(position).fold(0u64, |needs, at| needs | 1 << at);
            sup.supervision.set_needs(index, needs);
        }
    }

    fn remove_left(&mut self, sup: &mut Supervisor) {
        for index in (0..sup.managed.len()).rev() {
            let is_stopped = sup.supervision.instances()[index].phase() == Phase::Stopped;
            if sup.managed[index].is_leaving && is_stopped {
                self.forget(sup, index);
            }
        }
    }

    /// Removes a unit from those that are supervised. A stop of which there is no mark is forgotten with it.
    fn forget(&mut self, sup: &mut Supervisor, index: usize) {
        let unit = sup.managed.remove(index).unit;
        sup.supervision.remove(index);
        self.units[unit].is_down &= self.is_marked(unit);
    }

    // ----- the watchdog -----------------------------------------------------

    fn kick_watchdog(&mut self, sup: &mut Supervisor, now: Instant) {
        let unrecoverable = sup.supervision.unrecoverable(now).map(|index| sup.managed[index].unit);
        let decision = sup.watchdog.poll(now, unrecoverable.is_some());
        let Some(KickDecision { kick, has_changed }) = decision else { return };
        if has_changed {
            self.line.trace(|| format!("the watchdog is withheld because of {unrecoverable:?}"));
            if let Some(unit) = unrecoverable {
                self.check_withheld(sup, unit);
            }
        }
        if !kick {
            return;
        }
        let opens = !sup.is_device_open;
        if !self.device_fails && opens {
            sup.is_device_open = true;
            sup.watchdog.on_opened(Some(DEVICE_SECS));
        }
        if self.device_fails {
            self.line.count(Kind::DeviceFails);
            sup.is_device_open = false;
        } else {
            if !opens {
                self.check_kick(sup);
            }
            self.kick();
        }
        sup.watchdog.on_kick(now, self.device_fails);
    }
}

/// The rules of a unit that is no program.
const NO_RULES: ProgramRules = ProgramRules {
    restart: crate::proto::config::RestartMode::Always,
    reports_ready: false,
    start_timeout: crate::util::time::Duration::ZERO,
    stop_timeout: crate::util::time::Duration::ZERO,
    stale_after: crate::util::time::Duration::ZERO,
    has_health_file: false,
};
