//! The board: its services and programs, and everything that happens to them.

use super::kernel::{Kernel, Process, boot_id};
use super::supervisor::{DEVICE_SECS, INTERVAL, Sent, Supervisor};
use crate::proto::config::RestartMode;
use crate::proto::health::HealthRecord;
use crate::proto::service::Service;
use crate::sim::random::Random;
use crate::sim::scenario::{Kind, Scenario};
use crate::sim::timeline::Timeline;
use crate::state::supervisor::decision::{ProgramRules, Request, Rules};
use crate::util::time::Duration;
use std::collections::BTreeSet;

/// Milliseconds from one check of everything to the next.
const CHECK: u64 = 1000;
/// Seconds after the end of all faults in which everything has to be up.
const SETTLE_SECS: u64 = 900;
/// A process that ends by TERM, by KILL.
pub(super) const BY_TERM: u16 = 256 + 15;
pub(super) const BY_KILL: u16 = 256 + 9;

/// Something that happens later. A process is named by its number and its serial.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) enum Event {
    /// An event of this kind.
    Kind(Kind),
    /// A process ends.
    Exit(u32, u64, u16),
    /// A program leaves a process in the background, and ends.
    Forks(u32, u64),
    /// A service takes its lock.
    Locks(u32, u64),
    /// A process is ready.
    Ready(u32, u64),
    /// A process writes its health file.
    Beat(u32, u64),
    /// A process that hangs makes turns again.
    Recovers(u32, u64),
    /// The process of this serial, of a unit, answers a question.
    Answer(usize, u64, u64),
    /// A `stop` that was called outside kills what it has waited for.
    StopKills(u32, u64),
    StartSupervisor,
    /// A fault of this kind ends, for this unit if it is about one.
    Mend(Kind, usize),
    /// The device of the watchdog looks at its time.
    Bite,
    /// Everything is checked.
    Check,
}

/// A service or a program.
pub(super) struct Unit {
    pub(super) index: usize,
    pub(super) service: Option<Service>,
    pub(super) program: Option<ProgramRules>,
    /// The units before it.
    pub(super) after: Vec<usize>,
    /// `supervise` names it.
    pub(super) is_listed: bool,
    /// A user has stopped it on purpose.
    pub(super) is_down: bool,
    /// Its rules do not start it again.
    pub(super) is_finished: bool,
    /// Its command cannot be executed.
    pub(super) is_missing: bool,
    /// Its user may not write the health file.
    pub(super) may_not_write: bool,
    /// Since when it is well without a break.
    pub(super) well_since: Option<u64>,
    /// When it was well for so long that its next end is no quick one.
    pub(super) stable_at: u64,
    /// When it was well for so long that the supervisor has to know it.
    pub(super) steady_at: u64,
    /// When it was last seen with a process, or could not have one.
    pub(super) up_at: u64,
    /// Since when it cannot be started, though it is to run, and no user has asked for a change.
    pub(super) fails_since: Option<u64>,
}

/// See the module's documentation.
pub(in crate::sim) struct SupervisedBoard {
    pub(in crate::sim) line: Timeline<Event>,
    pub(super) random: Random,
    pub(in crate::sim) kernel: Kernel,
    pub(super) units: Vec<Unit>,
    pub(super) rules: Rules,
    pub(super) supervisor: Option<Supervisor>,
    /// Something woke the supervisor.
    pub(super) woken: bool,
    /// The kernel has pidfds.
    pub(super) has_pidfds: bool,
    pub(super) has_device: bool,
    pub(super) device_fails: bool,
    /// When the device resets the board.
    pub(super) armed_until: Option<u64>,
    pub(super) has_no_descriptors: bool,
    /// Until when the supervisor had no descriptors.
    pub(super) blind_at: u64,
    /// The supervisor cannot run before this time.
    pub(super) blocked_until: u64,
    faults: BTreeSet<(Kind, usize)>,
    /// Since when nothing disturbs the supervisor.
    pub(super) calm_at: u64,
    /// When the supervisor was blocked, or suspended for too short a time to notice it, and how long.
    pub(super) naps: Vec<(u64, u64)>,
    pub(in crate::sim) turns: u64,
    pub(in crate::sim) lives: u64,
}

impl SupervisedBoard {
    pub(in crate::sim) fn new(scenario: &Scenario, traced: bool) -> Self {
        let mut random = Random::new(scenario.seed, 2);
        let rules = Rules {
            failures: 3,
            stop_timeout: Duration::from_ms(10_000),
            stale_after: Duration::from_ms(15_000),
            check_interval: Duration::from_ms(5000),
            watchdog_patience: Duration::from_ms(120_000),
        };
        let (has_pidfds, has_device) = (!random.one_in(4), !random.one_in(5));
        let mut board = Self {
            line: Timeline::new(scenario, traced),
            kernel: Kernel::default(),
            units: Self::units(&mut random),
            random,
            rules,
            supervisor: None,
            woken: false,
            has_pidfds,
            has_device,
            device_fails: false,
            armed_until: None,
            has_no_descriptors: false,
            blind_at: 0,
            blocked_until: 0,
            faults: BTreeSet::new(),
            calm_at: 0,
            naps: Vec::new(),
            turns: 0,
            lives: 0,
        };
        for kind in Kind::ALL.iter().filter(|kind| kind.is_of_supervisor()) {
            board.schedule(*kind);
        }
        board.line.after(1000, Event::StartSupervisor);
        board.line.after(CHECK, Event::Check);
        board
    }

    fn units(random: &mut Random) -> Vec<Unit> {
        let services = [Service::Jobs, Service::Hub, Service::Collector, Service::Opener];
        let services = services.into_iter().filter(|_| !random.one_in(3)).map(Some).collect::<Vec<_>>();
        let programs = usize::try_from(random.between(1, 6)).unwrap_or(1);
        let kinds: Vec<Option<Service>> = services.into_iter().chain((0..programs).map(|_| None)).collect();
        let count = kinds.len() as u64;
        let mut units: Vec<Unit> = Vec::new();
        // The order of starts is another one than that of the files.
        let backwards = random.one_in(2);
        for (index, service) in kinds.into_iter().enumerate() {
            let program = service.is_none().then(|| ProgramRules {
                restart: random.pick(&RestartMode::ALL).copied().unwrap_or(RestartMode::Always),
                reports_ready: random.one_in(2),
                start_timeout: Duration::from_ms(random.between(5000, 60_000)),
                stop_timeout: Duration::from_ms(random.between(1000, 15_000)),
                stale_after: Duration::from_ms(random.between(5000, 30_000)),
                has_health_file: random.one_in(2),
            });
            let after = (0..count).filter(|other| {
                let other = usize::try_from(*other).unwrap_or(0);
                let is_before = if backwards { other > index } else { other < index };
                program.is_some() && is_before && random.one_in(3)
            });
            units.push(Unit {
                index,
                service,
                program,
                after: after.map(|other| usize::try_from(other).unwrap_or(0)).collect(),
                is_listed: true,
                is_down: false,
                is_finished: false,
                is_missing: false,
                may_not_write: false,
                well_since: None,
                stable_at: 0,
                steady_at: 0,
                up_at: 0,
                fails_since: None,
            });
        }
        units
    }

    // ----- the run ----------------------------------------------------------

    /// Runs to the end, with everything well at last.
    pub(in crate::sim) fn run(&mut self) {
        let end = self.line.scenario.secs * 1000;
        while self.step(end) {}
        self.settle();
    }

    /// Performs the next event or turn. Returns true if there is one before `end`.
    fn step(&mut self, end: u64) -> bool {
        let event = self.line.next_at();
        let wake = self.wake_time();
        if event.min(wake) >= end {
            self.line.time = self.line.time.max(end);
            return false;
        }
        self.line.time = self.line.time.max(event.min(wake));
        if event <= wake {
            if let Some(event) = self.line.pop() {
                self.happen(event);
            }
        } else {
            self.turn();
            self.blocked_until = self.blocked_until.max(self.line.time + 1);
        }
        true
    }

    /// Returns when the supervisor has its next turn.
    fn wake_time(&self) -> u64 {
        let Some(supervisor) = &self.supervisor else { return u64::MAX };
        let due = if self.woken { 0 } else { self.line.time_of(supervisor.next_deadline()) };
        due.max(self.line.time).max(self.blocked_until)
    }

    /// Makes everything well, and waits until everything is up.
    fn settle(&mut self) {
        self.line.trace(|| "----- everything is made well".to_owned());
        self.line.settling = true;
        for (kind, unit) in core::mem::take(&mut self.faults) {
            self.mend(kind, unit);
        }
        self.line.retain(|event| !matches!(event, Event::Kind(_)));
        for pid in self.kernel.all.keys().copied().collect::<Vec<_>>() {
            // No check finds a program that hangs and has no health file.
            self.recover(pid);
            if let Some(process) = self.kernel.all.get_mut(&pid)
                && process.ended.is_none()
                && !process.is_ready
                && !process.is_left
            {
                let serial = process.serial;
                self.line.after(1000, Event::Ready(pid, serial));
            }
        }
        self.line.after(1000, Event::StartSupervisor);
        let end = self.line.time + SETTLE_SECS * 1000;
        while self.step(end) {}
        self.check_end();
    }

    pub(super) fn wake(&mut self) {
        self.woken = true;
    }

    /// Takes that something disturbs the supervisor, which needs time to find out what is well.
    pub(super) fn calm(&mut self) {
        self.calm_at = self.line.time;
    }

    fn schedule(&mut self, kind: Kind) {
        if let Some(wait) = self.line.wait_for(kind) {
            self.line.after(wait, Event::Kind(kind));
        }
    }

    // ----- processes --------------------------------------------------------

    /// Starts the process of a unit, as a child of the supervisor or from outside. Returns its number.
    pub(super) fn spawn(&mut self, unit: usize, is_child: bool) -> u32 {
        let now = self.line.now();
        let pid = self.kernel.start(Some(unit), now);
        self.units[unit].up_at = self.line.time;
        let program = self.units[unit].program;
        let reports = program.is_none_or(|program| program.reports_ready);
        let ignores_term = self.line.happens(Kind::IgnoresTerm, 10);
        let unkillable = self.line.happens(Kind::Unkillable, 90);
        let ready_in = match () {
            () if !reports => Some(0),
            () if self.line.happens(Kind::NeverReady, 50) => None,
            () if self.line.happens(Kind::SlowStart, 12) => Some(self.random.between(5000, 110_000)),
            () => Some(self.random.between(20, 2000)),
        };
        let (time, may_not_write) = (self.line.time, self.units[unit].may_not_write);
        let lasts = self.random.between(15_000, 60_000);
        let clock_ahead = if !is_child && self.line.happens(Kind::OtherClock, 3) { 1_000_000 } else { 0 };
        let Some(process) = self.kernel.all.get_mut(&pid) else { return pid };
        let serial = process.serial;
        process.is_child = is_child;
        process.ignores_term = ignores_term;
        process.unkillable_until = if unkillable { time + lasts } else { 0 };
        // The file of an earlier process of this number would be taken for one of this process.
        process.may_not_write = may_not_write && is_child && program.is_none();
        process.clock_ahead = clock_ahead;
        process.is_ready = ready_in == Some(0);
        if let Some(wait) = ready_in.filter(|wait| *wait > 0) {
            self.line.after(wait, Event::Ready(pid, serial));
        }
        if program.is_none() {
            let wait = self.random.between(1, 40);
            self.line.after(wait, Event::Locks(pid, serial));
        }
        let first = self.random.between(50, 900);
        self.line.after(first, Event::Beat(pid, serial));
        if program.is_some() && self.line.happens(Kind::Daemonizes, 30) {
            let wait = self.random.between(20, 3000);
            self.line.after(wait, Event::Forks(pid, serial));
        } else if self.line.happens(Kind::QuickEnd, 9) {
            let wait = self.random.between(5, 9000);
            let status = self.random.pick(&[0, 1, 1, BY_KILL]).copied().unwrap_or(1);
            self.line.after(wait, Event::Exit(pid, serial, status));
        }
        pid
    }

    /// Ends a process.
    pub(super) fn exit(&mut self, pid: u32, serial: u64, status: u16) {
        let Some(process) = self.kernel.get(pid, serial) else { return };
        process.ended = Some(status);
        let (unit, is_child, has_lock) = (process.unit, process.is_child, process.has_lock);
        self.line.trace(|| format!("pid {pid} of {unit:?} ends: {status}"));
        if !is_child {
            self.kernel.all.remove(&pid);
        }
        if let Some(unit) = unit {
            self.units[unit].well_since = None;
            if has_lock && status < 256 {
                self.kernel.health.remove(&unit);
            }
        }
        self.wake();
    }

    /// Gives a signal to a process.
    pub(super) fn deliver(&mut self, pid: u32, sent: Sent) {
        let now = self.line.time;
        let thaws = self.kernel.all.get(&pid).is_some_and(|process| process.is_frozen);
        if sent == Sent::Stop && thaws {
            self.recover(pid);
        }
        let Some(process) = self.kernel.all.get_mut(&pid).filter(|process| process.ended.is_none()) else {
            return;
        };
        let serial = process.serial;
        let is_stuck = process.hung_since.is_some() && process.has_lock;
        match sent {
            Sent::Kill if process.unkillable_until > now => {
                let wait = process.unkillable_until - now;
                self.line.count(Kind::Unkillable);
                self.line.after(wait, Event::Exit(pid, serial, BY_KILL));
            }
            Sent::Kill => self.exit(pid, serial, BY_KILL),
            Sent::Stop if process.ignores_term || is_stuck => {}
            Sent::Stop => {
                process.ends = true;
                let is_service = process.has_lock;
                let wait = self.random.between(1, 900);
                self.line.after(wait, Event::Exit(pid, serial, if is_service { 0 } else { BY_TERM }));
            }
        }
    }

    /// Has a process make no more turns.
    fn hang(&mut self, pid: u32, is_frozen: bool) {
        let time = self.line.time;
        let Some(process) = self.kernel.all.get_mut(&pid) else { return };
        process.hung_since.get_or_insert(time);
        process.is_frozen |= is_frozen;
        if let Some(unit) = process.unit {
            self.units[unit].well_since = None;
        }
        self.line.trace(|| format!("pid {pid} hangs"));
    }

    /// Has a process make turns again.
    fn recover(&mut self, pid: u32) {
        if let Some(process) = self.kernel.all.get_mut(&pid)
            && process.hung_since.take().is_some()
        {
            process.is_frozen = false;
            let (unit, serial) = (process.unit.unwrap_or(usize::MAX), process.serial);
            for question in core::mem::take(&mut process.asked) {
                self.line.after(1, Event::Answer(unit, serial, question));
            }
            self.line.trace(|| format!("pid {pid} makes turns again"));
            self.write_beat(pid);
        }
    }

    /// Has a process write its health file.
    fn write_beat(&mut self, pid: u32) {
        let boot = boot_id(self.line.boot);
        let now = self.line.now().as_ms();
        let Some(process) = self.kernel.all.get_mut(&pid).filter(|process| process.is_alive()) else {
            return;
        };
        let Some(unit) = process.unit.filter(|_| !process.is_left) else { return };
        process.seq += 1;
        let (seq, may_write) = (process.seq, !process.may_not_write);
        let boottime_ms = now + process.clock_ahead;
        // A service writes with its lock only, and a program has a file of its own.
        if process.has_lock || self.units[unit].program.is_some_and(|program| program.has_health_file) {
            let number = if process.is_foreign { 7 } else { pid };
            let record = HealthRecord { wall: 0, seq, pid: number, boottime_ms, boot };
            self.kernel.write_health(unit, &record, may_write);
        }
    }

    fn on_beat(&mut self, pid: u32, serial: u64) {
        let Some(unit) = self.kernel.get(pid, serial).map(|process| process.unit) else { return };
        self.write_beat(pid);
        let program = unit.and_then(|unit| self.units[unit].program);
        let every = program.map_or(INTERVAL, |program| program.stale_after.as_ms() / 4);
        self.line.after(every, Event::Beat(pid, serial));
    }

    fn on_lock(&mut self, pid: u32, serial: u64) {
        let Some(unit) = self.kernel.get(pid, serial).and_then(|process| process.unit) else { return };
        if self.kernel.holder_of(unit).is_some() {
            self.line.trace(|| format!("pid {pid}: another instance is already running"));
            self.line.count(Kind::SecondInstance);
            return self.exit(pid, serial, 1);
        }
        if let Some(process) = self.kernel.get(pid, serial) {
            process.has_lock = true;
        }
    }

    /// Has a program leave a process in the background.
    fn fork(&mut self, pid: u32, serial: u64) {
        let Some(process) = self.kernel.get(pid, serial).cloned() else { return };
        // Where its supervisor has died, nothing sees that the program went to the background.
        let left = self.kernel.start(process.unit.filter(|_| process.is_child), self.line.now());
        let Process { token, ignores_term, .. } = process;
        if let Some(process) = self.kernel.all.get_mut(&left) {
            (process.token, process.ignores_term) = (token, ignores_term);
            (process.is_left, process.is_ready) = (true, true);
        }
        self.line.trace(|| format!("pid {pid} leaves {left} in the background"));
        self.exit(pid, serial, 0);
    }

    // ----- the supervisor and the board --------------------------------------

    pub(super) fn make_mark(&mut self, unit: usize) -> bool {
        let can = !self.kernel.makes_none && !self.kernel.writes_none;
        if can {
            self.kernel.marks.insert(unit, self.line.boot);
        }
        can
    }

    /// Takes that the process of the supervisor has ended.
    pub(super) fn supervisor_ends(&mut self, killed: bool) {
        // The note can be an old one, which names an earlier group of the same number.
        let noted = self.noted().into_iter().filter(|group| self.kernel.has_member(group));
        let noted: Vec<u32> = noted.map(|group| group.number).collect();
        self.supervisor = None;
        let children: Vec<u32> =
            self.kernel.all.iter().filter(|(_, process)| process.is_child).map(|(pid, _)| *pid).collect();
        for pid in children {
            let Some(process) = self.kernel.all.get_mut(&pid) else { continue };
            process.is_child = false;
            if process.ended.is_some() {
                self.kernel.all.remove(&pid);
                continue;
            }
            let unit = process.unit;
            if unit.is_some_and(|unit| self.units[unit].program.is_some()) {
                // Its note could not be written, so the next supervisor does not know of it.
                let is_known = noted.contains(&pid);
                if !is_known && let Some(process) = self.kernel.all.get_mut(&pid) {
                    process.is_left = true;
                    process.unit = None;
                }
                self.deliver(pid, Sent::Stop);
            }
        }
        let wait = self.random.wait(if killed { 3000 } else { 8000 });
        self.line.after(wait, Event::StartSupervisor);
    }

    /// Restarts the board.
    fn reboot(&mut self) {
        self.line.trace(|| "----- the board restarts".to_owned());
        self.supervisor = None;
        self.kernel.all.clear();
        // A tmpfs is empty after a boot; a folder on a disk is not.
        if self.random.one_in(2) {
            self.kernel.health.clear();
            self.kernel.marks.clear();
            self.kernel.note.clear();
        }
        self.armed_until = None;
        self.blocked_until = self.line.time;
        self.line.retain(|event| matches!(event, Event::Kind(_) | Event::Mend(..) | Event::Check));
        self.line.boot += 1;
        self.line.booted_at = self.line.time;
        for unit in &mut self.units {
            (unit.is_down, unit.well_since) = (false, None);
        }
        self.line.after(1000, Event::StartSupervisor);
    }

    pub(super) fn kick(&mut self) {
        let until = self.line.time + u64::from(DEVICE_SECS) * 1000;
        if self.armed_until.replace(until).is_none() {
            self.line.after(u64::from(DEVICE_SECS) * 1000, Event::Bite);
        }
    }

    fn bite(&mut self) {
        let Some(until) = self.armed_until else { return };
        if until > self.line.time {
            return self.line.after(until - self.line.time, Event::Bite);
        }
        self.line.count(Kind::WatchdogResets);
        self.check_reset();
        self.reboot();
    }

    // ----- events -----------------------------------------------------------

    fn happen(&mut self, event: Event) {
        match event {
            Event::Kind(kind) => {
                self.schedule(kind);
                if self.line.is_open(kind) && self.begin(kind) {
                    self.line.count(kind);
                }
            }
            Event::Exit(pid, serial, status) => self.exit(pid, serial, status),
            Event::Forks(pid, serial) => self.fork(pid, serial),
            Event::Locks(pid, serial) => self.on_lock(pid, serial),
            Event::Ready(pid, serial) => match self.kernel.get(pid, serial) {
                Some(process) if process.hung_since.is_some() => {
                    self.line.after(1000, Event::Ready(pid, serial));
                }
                Some(process) => {
                    process.is_ready = true;
                    self.wake();
                }
                None => {}
            },
            Event::Beat(pid, serial) => self.on_beat(pid, serial),
            Event::Recovers(pid, serial) => {
                if self.kernel.get(pid, serial).is_some() {
                    self.recover(pid);
                }
            }
            Event::Answer(unit, serial, number) => {
                let lives = |process: &Process| process.serial == serial && process.is_alive();
                if self.kernel.all.values().any(lives)
                    && let Some(supervisor) = &mut self.supervisor
                {
                    supervisor.answers.push((unit, number));
                    self.woken = true;
                }
            }
            Event::StopKills(pid, serial) => {
                if self.kernel.get(pid, serial).is_some() {
                    self.deliver(pid, Sent::Kill);
                }
            }
            Event::StartSupervisor => self.start_supervisor(),
            Event::Mend(kind, unit) => {
                if self.faults.remove(&(kind, unit)) {
                    self.mend(kind, unit);
                }
            }
            Event::Bite => self.bite(),
            Event::Check => {
                self.check_all();
                self.line.after(CHECK, Event::Check);
            }
        }
    }

    /// Begins a fault that lasts for a while. Returns true if it did not last already.
    fn fault(&mut self, kind: Kind, unit: usize, mean: u64) -> bool {
        let lasts = self.line.stream(kind).wait(mean);
        if !self.faults.insert((kind, unit)) {
            return false;
        }
        self.line.after(lasts, Event::Mend(kind, unit));
        self.line.trace(|| format!("----- {} begins, unit {unit}, for {lasts} ms", kind.name()));
        self.calm();
        true
    }

    fn mend(&mut self, kind: Kind, unit: usize) {
        self.line.trace(|| format!("----- {} ends", kind.name()));
        match kind {
            Kind::CommandMissing => self.units[unit].is_missing = false,
            Kind::HealthDenied => self.units[unit].may_not_write = false,
            Kind::NoNewFiles => self.kernel.makes_none = false,
            Kind::NoWrites => self.kernel.writes_none = false,
            Kind::NoDescriptors => self.has_no_descriptors = false,
            Kind::DeviceFails => self.device_fails = false,
            _ => {}
        }
        self.calm();
    }

    pub(super) fn count_missing(&mut self, unit: usize) {
        if self.units[unit].is_missing {
            self.line.count(Kind::CommandMissing);
        }
    }

    /// Returns a process of a unit that has a number here.
    fn any_process(&mut self, kind: Kind) -> Option<(u32, u64)> {
        let fits = |process: &Process| {
            process.unit.is_some() && process.ended.is_none() && !process.is_foreign && !process.is_left
        };
        let all: Vec<(u32, u64)> = self
            .kernel
            .all
            .iter()
            .filter(|(_, process)| fits(process))
            .map(|(pid, process)| (*pid, process.serial))
            .collect();
        self.line.stream(kind).pick(&all).copied()
    }

    fn any_unit(&mut self, kind: Kind) -> usize {
        let count = self.units.len() as u64;
        usize::try_from(self.line.stream(kind).below(count)).unwrap_or(0)
    }

    /// Takes that a user asks for a change. Returns true if there is a supervisor.
    fn ask_supervisor(&mut self, unit: usize, request: Request) -> bool {
        let Some(supervisor) = &mut self.supervisor else { return false };
        supervisor.requests.push((unit, request));
        self.woken = true;
        true
    }

    /// Has an event of this kind happen. Returns true if it did.
    fn begin(&mut self, kind: Kind) -> bool {
        let unit = self.any_unit(kind);
        match kind {
            Kind::ProcessEnds => {
                let Some((pid, serial)) = self.any_process(kind) else { return false };
                let status = self.line.stream(kind).pick(&[0, 1, 256 + 11]).copied().unwrap_or(1);
                self.exit(pid, serial, status);
                true
            }
            Kind::ProcessSignalled => {
                let Some((pid, _)) = self.any_process(kind) else { return false };
                let sent = if self.line.stream(kind).one_in(2) { Sent::Stop } else { Sent::Kill };
                self.deliver(pid, sent);
                true
            }
            Kind::ProcessHangs | Kind::ProcessFrozen => {
                let Some((pid, serial)) = self.any_process(kind) else { return false };
                self.hang(pid, kind == Kind::ProcessFrozen);
                if self.line.stream(kind).one_in(2) {
                    let wait = self.line.stream(kind).wait(25_000);
                    self.line.after(wait, Event::Recovers(pid, serial));
                }
                true
            }
            Kind::QueueFull => {
                let Some((pid, serial)) = self.any_process(kind) else { return false };
                if let Some(process) = self.kernel.get(pid, serial) {
                    process.is_crowded = !process.is_crowded;
                }
                self.calm();
                true
            }
            Kind::CommandMissing => {
                let mean = if self.line.stream(kind).one_in(4) { 600_000 } else { 90_000 };
                self.units[unit].is_missing |= self.fault(kind, unit, mean);
                false
            }
            Kind::UserStops => {
                let missing = self.units.iter().position(|unit| unit.is_missing);
                let missing = missing.filter(|_| self.line.stream(kind).one_in(3));
                self.ask_supervisor(missing.unwrap_or(unit), Request::Stop)
            }
            Kind::UserStarts => {
                let down = self.units.iter().position(|unit| unit.is_down).unwrap_or(unit);
                self.ask_supervisor(down, Request::Start)
            }
            Kind::UserRestarts => self.ask_supervisor(unit, Request::Restart),
            Kind::StopOutside => self.stop_outside(unit),
            Kind::SecondInstance => {
                if self.kernel.holder_of(unit).is_some() {
                    self.spawn(unit, false);
                }
                // It is counted when its lock refuses it.
                false
            }
            Kind::StartOutside | Kind::StartForeign => self.start_outside(unit, kind == Kind::StartForeign),
            Kind::SupervisorKilled if self.supervisor.is_some() => {
                self.line.trace(|| "----- the supervisor is killed".to_owned());
                self.supervisor_ends(true);
                true
            }
            Kind::SupervisorStops | Kind::SupervisorStopsTwice => {
                let Some(supervisor) = &mut self.supervisor else { return false };
                supervisor.terms += if kind == Kind::SupervisorStops { 1 } else { 2 };
                self.wake();
                true
            }
            Kind::SupervisorLeaves => {
                let Some(supervisor) = &mut self.supervisor else { return false };
                supervisor.quits = true;
                self.wake();
                true
            }
            Kind::NewRules => {
                let stream = self.line.stream(kind);
                let (failures, interval) = (stream.between(2, 5), stream.between(1000, 9000));
                self.rules.failures = u32::try_from(failures).unwrap_or(3);
                self.rules.check_interval = Duration::from_ms(interval);
                self.reload()
            }
            Kind::NewSet => {
                self.units[unit].is_listed ^= true;
                self.reload()
            }
            Kind::HealthRemoved => {
                self.calm();
                self.kernel.health.remove(&unit).is_some()
            }
            Kind::HealthGarbage => {
                let Some(file) = self.kernel.health.get_mut(&unit) else { return false };
                *file = b"nonsense".to_vec();
                self.calm();
                true
            }
            Kind::HealthDenied => {
                self.units[unit].may_not_write |= self.fault(kind, unit, 300_000);
                true
            }
            Kind::NoNewFiles => {
                self.kernel.makes_none |= self.fault(kind, 0, 60_000);
                if self.line.stream(kind).one_in(2) {
                    self.kernel.health.remove(&unit);
                }
                true
            }
            Kind::NoWrites => {
                self.kernel.writes_none |= self.fault(kind, 0, 200_000);
                true
            }
            Kind::NoDescriptors => {
                self.has_no_descriptors |= self.fault(kind, 0, 30_000);
                true
            }
            Kind::DeviceFails => {
                self.device_fails |= self.fault(kind, 0, 60_000);
                false
            }
            Kind::LongTurn => {
                let wait = self.line.stream(kind).between(2000, 45_000);
                self.blocked_until = self.line.time + wait;
                self.naps.push((self.line.time, wait));
                self.calm_at = self.line.time + wait;
                true
            }
            Kind::Sleep => {
                let slept = self.line.stream(kind).wait(300_000);
                self.line.trace(|| format!("the board sleeps for {slept} ms"));
                self.sleep(slept);
                true
            }
            Kind::PowerLost => {
                self.reboot();
                true
            }
            Kind::OtherProcess => {
                let pid = self.kernel.start(None, self.line.now());
                let serial = self.kernel.all[&pid].serial;
                let wait = self.line.stream(kind).wait(20_000);
                self.line.after(wait, Event::Exit(pid, serial, 0));
                if self.line.stream(kind).one_in(2) {
                    let member = self.kernel.start_member(pid, self.line.now());
                    let serial = self.kernel.all[&member].serial;
                    self.line.after(wait, Event::Exit(member, serial, 0));
                }
                true
            }
            _ => false,
        }
    }

    fn reload(&mut self) -> bool {
        self.calm();
        let Some(supervisor) = &mut self.supervisor else { return false };
        supervisor.reloads = true;
        self.woken = true;
        true
    }

    /// Suspends the board: CLOCK_BOOTTIME continues, and nothing runs.
    fn sleep(&mut self, slept: u64) {
        // The supervisor judges by its next deadline, which may be that of a start.
        if slept <= self.rules.stale_after.as_ms() + 60_000 {
            self.naps.push((self.line.time, slept));
        }
        self.line.sleep(slept);
        self.blocked_until = self.line.time;
        self.calm();
        self.armed_until = self.armed_until.map(|until| until + slept);
        self.supervisor.iter_mut().for_each(|supervisor| supervisor.since += slept);
        for unit in &mut self.units {
            unit.stable_at += slept;
            unit.steady_at += slept;
            unit.well_since = unit.well_since.map(|since| since + slept);
            unit.fails_since = unit.fails_since.map(|since| since + slept);
        }
        for process in self.kernel.all.values_mut() {
            process.hung_since = process.hung_since.map(|since| since + slept);
        }
    }

    /// Takes that a user stops a service by its process. Returns true if it runs.
    fn stop_outside(&mut self, unit: usize) -> bool {
        let Some((pid, process)) = self.kernel.holder_of(unit) else { return false };
        let (serial, is_foreign) = (process.serial, process.is_foreign);
        if is_foreign || self.units[unit].is_down {
            return false;
        }
        if self.make_mark(unit) {
            self.units[unit].is_down = true;
        } else {
            self.ask_supervisor(unit, Request::Stop);
        }
        self.line.trace(|| format!("a user stops unit {unit}"));
        self.deliver(pid, Sent::Stop);
        self.line.after(15_000, Event::StopKills(pid, serial));
        true
    }

    /// Takes that a user starts a service, perhaps in another PID namespace. Returns true if it did not run.
    fn start_outside(&mut self, unit: usize, is_foreign: bool) -> bool {
        if self.units[unit].service.is_none() || self.kernel.holder_of(unit).is_some() {
            return false;
        }
        // A supervisor that could make no mark remembers the stop until it sees the service.
        let remembers = self.supervisor.as_ref().is_some_and(|supervisor| supervisor.remembers_stop(unit));
        self.units[unit].is_down = remembers;
        self.kernel.marks.remove(&unit);
        let pid = self.spawn(unit, false);
        self.line.trace(|| format!("a user starts unit {unit}: pid {pid}, foreign {is_foreign}"));
        let lives = self.random.between(20_000, 400_000);
        let Some(process) = self.kernel.all.get_mut(&pid) else { return false };
        let serial = process.serial;
        process.is_foreign = is_foreign;
        if is_foreign {
            self.line.after(lives, Event::Exit(pid, serial, 0));
        }
        true
    }
}
