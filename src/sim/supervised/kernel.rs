//! The processes and files of the simulated kernel that a supervisor sees. A number is given again
//! as soon as no process, group or session has it.

use crate::proto::health::{BOOT_ID_BYTES, HealthRecord};
use crate::proto::leftovers::{Mark, NotedGroup, Token};
use crate::state::leftovers::{MemberSearch, ProcessView, is_later_than};
use crate::util::time::{Duration, Instant};
use std::collections::BTreeMap;

/// The numbers are few, so that they come again soon.
const PID_MAX: u32 = 140;
/// The first number that a process can have.
const PID_MIN: u32 = 100;
/// The clock of /proc is as coarse as this.
const TICK: Duration = Duration::from_ms(10);

/// A process that runs, or was not reaped.
#[derive(Clone, Debug)]
pub(super) struct Process {
    /// A number that no other process ever has.
    pub(super) serial: u64,
    /// The service or program that it belongs to; none for a stranger.
    pub(super) unit: Option<usize>,
    pub(super) group: u32,
    pub(super) session: u32,
    /// When it was started, in milliseconds since boot.
    pub(super) started: u64,
    pub(super) token: Option<Token>,
    /// True for a child of the supervisor that runs.
    pub(super) is_child: bool,
    /// True in another PID namespace, where it has no number.
    pub(super) is_foreign: bool,
    /// A program has left it in the background.
    pub(super) is_left: bool,
    pub(super) has_lock: bool,
    pub(super) is_ready: bool,
    /// Its readiness was read.
    pub(super) is_reported: bool,
    /// Since when its loop makes no turn.
    pub(super) hung_since: Option<u64>,
    /// SIGSTOP has stopped it.
    pub(super) is_frozen: bool,
    pub(super) ignores_term: bool,
    /// KILL does not end it before this time.
    pub(super) unkillable_until: u64,
    /// The number of its last heartbeat.
    pub(super) seq: u64,
    /// Its clock is ahead, because it is in another time namespace.
    pub(super) clock_ahead: u64,
    /// The health file may not be written.
    pub(super) may_not_write: bool,
    /// The queue of connections is full.
    pub(super) is_crowded: bool,
    /// The questions that wait in its queue of connections.
    pub(super) asked: Vec<u64>,
    /// A signal is about to end it.
    pub(super) ends: bool,
    /// How it ended: the exit status, or the signal and 256.
    pub(super) ended: Option<u16>,
}

impl Process {
    /// Returns true if the process lives, and is the one that stands for its unit.
    pub(super) fn is_main_of(&self, unit: usize) -> bool {
        self.unit == Some(unit) && self.ended.is_none() && !self.is_left
    }

    /// Returns true if its loop makes turns.
    pub(super) fn is_alive(&self) -> bool {
        self.ended.is_none() && self.hung_since.is_none()
    }
}

#[derive(Default)]
pub(in crate::sim) struct Kernel {
    pub(super) all: BTreeMap<u32, Process>,
    last: u32,
    serial: u64,
    used: BTreeMap<u32, ()>,
    /// A number was given a second time.
    pub(in crate::sim) numbers_again: u64,
    /// The health file of each unit.
    pub(super) health: BTreeMap<usize, Vec<u8>>,
    /// The marks of stops on purpose, with the boot.
    pub(super) marks: BTreeMap<usize, u32>,
    /// The note of the groups that the supervisor has started.
    pub(super) note: Vec<u8>,
    /// No file can be made in the folder of all these files.
    pub(super) makes_none: bool,
    /// No file there can be written.
    pub(super) writes_none: bool,
}

/// Returns the id of a boot.
pub(super) fn boot_id(boot: u32) -> [u8; BOOT_ID_BYTES] {
    [b'a' + u8::try_from(boot % 20).unwrap_or(0); BOOT_ID_BYTES]
}

impl Kernel {
    /// Returns a number that no process, group or session has.
    fn free_number(&mut self) -> u32 {
        loop {
            self.last = if self.last < PID_MIN || self.last >= PID_MAX { PID_MIN } else { self.last + 1 };
            let last = self.last;
            let is_used = |process: &Process| process.group == last || process.session == last;
            if !self.all.contains_key(&last) && !self.all.values().any(is_used) {
                self.numbers_again += u64::from(self.used.insert(last, ()).is_some());
                return last;
            }
        }
    }

    /// Starts the leader of a new session and group, and returns its number.
    pub(super) fn start(&mut self, unit: Option<usize>, now: Instant) -> u32 {
        let pid = self.free_number();
        self.serial += 1;
        let process = Process {
            serial: self.serial,
            unit,
            group: pid,
            session: pid,
            started: now.as_ms(),
            token: None,
            is_child: false,
            is_foreign: false,
            is_left: false,
            has_lock: false,
            is_ready: false,
            is_reported: false,
            hung_since: None,
            is_frozen: false,
            ignores_term: false,
            unkillable_until: 0,
            seq: 0,
            clock_ahead: 0,
            may_not_write: false,
            is_crowded: false,
            asked: Vec::new(),
            ends: false,
            ended: None,
        };
        self.all.insert(pid, process);
        pid
    }

    /// Starts a stranger in the group and session of `leader`, and returns its number.
    pub(super) fn start_member(&mut self, leader: u32, now: Instant) -> u32 {
        let pid = self.start(None, now);
        self.all.entry(pid).and_modify(|process| (process.group, process.session) = (leader, leader));
        pid
    }

    /// Returns a process that was not reaped, by its number and serial.
    pub(super) fn get(&mut self, pid: u32, serial: u64) -> Option<&mut Process> {
        self.all.get_mut(&pid).filter(|process| process.serial == serial && process.ended.is_none())
    }

    /// Returns the process that stands for a unit.
    pub(super) fn main_of(&self, unit: usize) -> Option<(u32, &Process)> {
        let any = self.all.iter().find(|(_, process)| process.is_main_of(unit));
        self.holder_of(unit).or(any.map(|(pid, process)| (*pid, process)))
    }

    /// Returns the process that holds the lock of a service.
    pub(super) fn holder_of(&self, unit: usize) -> Option<(u32, &Process)> {
        let holds = |process: &Process| process.is_main_of(unit) && process.has_lock;
        self.all.iter().find(|(_, process)| holds(process)).map(|(pid, process)| (*pid, process))
    }

    /// Returns all processes of a unit that live.
    pub(super) fn lives_of(&self, unit: usize) -> Vec<u32> {
        let lives = |process: &Process| process.unit == Some(unit) && process.ended.is_none();
        self.all.iter().filter(|(_, process)| lives(process)).map(|(pid, _)| *pid).collect()
    }

    /// Returns the live members of a group.
    pub(super) fn members(&self, group: u32) -> Vec<u32> {
        let lives = |process: &Process| process.group == group && process.ended.is_none();
        self.all.iter().filter(|(_, process)| lives(process)).map(|(pid, _)| *pid).collect()
    }

    /// Writes the health file of a unit. Returns true if that succeeds.
    pub(super) fn write_health(&mut self, unit: usize, record: &HealthRecord, may_write: bool) -> bool {
        let is_there = self.health.contains_key(&unit);
        let can = may_write && !self.writes_none && (is_there || !self.makes_none);
        if can {
            self.health.insert(unit, record.emit().to_vec());
        }
        can
    }

    fn views(&self) -> impl Iterator<Item = (ProcessView, Option<&Token>)> {
        let visible = self.all.iter().filter(|(_, process)| process.ended.is_none() && !process.is_foreign);
        visible.map(|(pid, process)| {
            let started = Instant::from_ms(process.started / TICK.as_ms() * TICK.as_ms());
            let (group, session) = (process.group, process.session);
            (ProcessView { pid: *pid, group, session, started }, process.token.as_ref())
        })
    }

    /// Returns true if a process lives that belongs to `group`, as /proc shows it.
    pub(super) fn has_member(&self, group: &NotedGroup) -> bool {
        let mut search = MemberSearch::new(group, false, TICK);
        self.views().for_each(|(view, token)| search.look(&view, || mark(token, group)));
        search.has_found()
    }

    /// Returns a process that a group has left.
    pub(super) fn find_left(&self, group: &NotedGroup) -> Option<ProcessView> {
        let is_left = |(view, token): &(ProcessView, Option<&Token>)| {
            is_later_than(view, group, TICK) && mark(*token, group) == Mark::Token
        };
        self.views().find(is_left).map(|(view, _)| view)
    }
}

fn mark(token: Option<&Token>, group: &NotedGroup) -> Mark {
    match token {
        Some(token) if *token == group.token => Mark::Token,
        Some(_) => Mark::Other,
        None => Mark::Nothing,
    }
}
