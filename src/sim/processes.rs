//! The processes of the simulated kernel: handlers, what they leave, and strangers. A number is
//! given again as soon as no process, group or child that was not reaped has it.

use std::collections::BTreeMap;

/// The numbers are few, so that they come again soon.
const PID_MAX: u32 = 60;
/// The first number that a handler can have.
const PID_MIN: u32 = 10;

/// The reaction of a process to signals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Nature {
    /// TERM does not end it.
    pub(super) ignores_term: bool,
    /// KILL does not end it before this time.
    pub(super) unkillable_until: u64,
}

impl Nature {
    /// Each signal ends it.
    pub(super) const GENTLE: Self = Self { ignores_term: false, unkillable_until: 0 };
}

/// A process that runs, or was not reaped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Process {
    pub(super) group: u32,
    /// The text of its job is the one of this number; none for a stranger.
    pub(super) job: Option<usize>,
    pub(super) nature: Nature,
    /// The process was started by the service, and is not reaped.
    pub(super) is_child: bool,
    /// How it ended: the exit status, or the signal and 256.
    pub(super) ended: Option<u16>,
    /// A number that no other process ever has.
    pub(super) serial: u64,
}

#[derive(Default)]
pub(super) struct Processes {
    all: BTreeMap<u32, Process>,
    last: u32,
    serial: u64,
    /// A number was given a second time.
    pub(super) numbers_again: u64,
    used: BTreeMap<u32, ()>,
}

impl Processes {
    /// Returns a number that no process and no group has.
    fn free_number(&mut self) -> u32 {
        loop {
            self.last = if self.last < PID_MIN || self.last >= PID_MAX { PID_MIN } else { self.last + 1 };
            let last = self.last;
            if !self.all.contains_key(&last) && !self.all.values().any(|process| process.group == last) {
                self.numbers_again += u64::from(self.used.insert(last, ()).is_some());
                return last;
            }
        }
    }

    /// Starts a process: the leader of a new group, or a member of `group`.
    pub(super) fn start(&mut self, group: Option<u32>, job: Option<usize>, nature: Nature) -> (u32, u64) {
        let pid = self.free_number();
        self.serial += 1;
        let process = Process {
            group: group.unwrap_or(pid),
            job,
            nature,
            is_child: job.is_some(),
            ended: None,
            serial: self.serial,
        };
        self.all.insert(pid, process);
        (pid, self.serial)
    }

    /// Ends a process by itself. Returns true if the service has to reap it.
    pub(super) fn exit(&mut self, pid: u32, serial: u64, status: u16) -> bool {
        let Some(process) = self.all.get_mut(&pid).filter(|process| process.serial == serial) else {
            return false;
        };
        if process.ended.is_some() {
            return false;
        }
        process.ended = Some(status);
        if !process.is_child {
            self.all.remove(&pid);
            return false;
        }
        true
    }

    /// Sends a signal to a group. Returns true if the service has something to reap.
    pub(super) fn signal_group(&mut self, group: u32, kills: bool, now: u64) -> bool {
        let members: Vec<(u32, u64)> =
            self.members(group).map(|(pid, process)| (pid, process.serial)).collect();
        let mut any = false;
        for (pid, serial) in members {
            let nature = self.all[&pid].nature;
            let ends = if kills {
                nature.unkillable_until <= now
            } else {
                !nature.ignores_term && nature.unkillable_until <= now
            };
            if ends {
                any |= self.exit(pid, serial, 256 + if kills { 9 } else { 15 });
            }
        }
        any
    }

    pub(super) fn members(&self, group: u32) -> impl Iterator<Item = (u32, &Process)> {
        self.all
            .iter()
            .filter(move |(_, process)| process.group == group)
            .map(|(pid, process)| (*pid, process))
    }

    /// Returns true if the service has a child in the group: waitid(2) does not say ECHILD.
    pub(super) fn has_child_in(&self, group: u32) -> bool {
        self.members(group).any(|(_, process)| process.is_child)
    }

    /// Returns true if a process of a job is in the group.
    pub(super) fn has_member(&self, group: u32, job: Option<usize>) -> bool {
        self.members(group).any(|(_, process)| process.ended.is_none() && process.job == job)
    }

    /// Reaps the next child that has ended, and returns its number and how it ended.
    pub(super) fn reap(&mut self) -> Option<(u32, u16)> {
        let (pid, status) = self.all.iter().find_map(|(pid, process)| {
            process.ended.filter(|_| process.is_child).map(|status| (*pid, status))
        })?;
        self.all.remove(&pid);
        Some((pid, status))
    }

    /// Ends the service: its handlers get KILL, and the processes that they left are no children any more.
    pub(super) fn service_ends(&mut self, leaders: &[u32], now: u64) {
        for pid in leaders {
            if let Some(process) = self.all.get_mut(pid)
                && process.nature.unkillable_until <= now
            {
                process.ended = Some(256 + 9);
            }
        }
        self.all.values_mut().for_each(|process| process.is_child = false);
        self.all.retain(|_, process| process.ended.is_none());
    }

    /// Ends everything, with the board.
    pub(super) fn clear(&mut self) {
        self.all.clear();
    }

    /// Returns the number of live processes of a job.
    pub(super) fn count_of(&self, job: usize) -> usize {
        self.all.values().filter(|process| process.job == Some(job) && process.ended.is_none()).count()
    }
}
