//! Looks at the process groups that jobs left and sends them their signals, as
//! `state/jobs/groups.rs` decides.

use super::Jobs;
use super::orphans::leader_of;
use crate::proto::leftovers::NotedGroup;
use crate::state::jobs::{GroupCheck, LeftoverNotice, SignalKind};
use crate::sys::process::{self, Pid, Signal};
use crate::util::time::Instant;
use ufmt::uwrite;

impl Jobs {
    /// Looks at the groups that are due, and sends them their signals.
    #[inline(never)]
    pub(super) fn check_leftovers(&mut self, now: Instant) {
        while let Some(check) = self.core.leftovers.next_check(now) {
            self.check_leftover(&check, now);
        }
    }

    /// Looks for the groups whose last process has ended, because one was reaped that led none.
    pub(super) fn recheck_leftovers(&mut self, now: Instant) {
        let groups = self.core.leftovers.copy();
        for (group, inherited) in groups {
            self.check_leftover(&GroupCheck { group, inherited, signal: None }, now);
        }
    }

    fn check_leftover(&mut self, check: &GroupCheck, now: Instant) {
        let GroupCheck { group, inherited, signal } = check;
        let is_there = self.orphans.is_there(group, *inherited);
        let notice = self.core.leftovers.on_checked(group.number, is_there, now);
        if !is_there {
            self.orphans.mark_outdated();
        } else if let Some(signal) = signal {
            self.signal_leftover(group, *signal, *inherited);
        }
        match notice {
            Some(LeftoverNotice::Stuck) => self.log_stuck(group.job, group.number),
            Some(LeftoverNotice::Freed) => self.base.log.info(&|out| {
                let _ = uwrite!(out, "the rest of job {} has ended", group.job);
            }),
            None => {}
        }
    }

    /// Sends a signal to a group that is there.
    fn signal_leftover(&mut self, group: &NotedGroup, signal: SignalKind, inherited: bool) {
        let Some(leader) = leader_of(group) else { return };
        let kills = signal == SignalKind::Kill;
        let _ = process::signal_group(leader, if kills { Signal::KILL } else { Signal::TERM });
        if !kills {
            // A stopped process could not even take the TERM.
            let _ = process::signal_group(leader, Signal::CONT);
        }
        let (id, number) = (group.job, group.number);
        self.base.log.info(&|out| {
            let _ = match (inherited, kills) {
                (true, _) => uwrite!(out, "ended what was left of the handler of job {}", id),
                (false, true) => uwrite!(out, "SIGKILL to what job {} left in group {}", id, number),
                (false, false) => uwrite!(out, "SIGTERM to what job {} left in group {}", id, number),
            };
        });
    }

    /// Writes the note. The running groups are not in it if `leftovers` is `keep`.
    pub(super) fn note_groups(&mut self) {
        let noted = if self.base.process.config.ends_leftovers() { self.workers.as_slice() } else { &[] };
        self.orphans.write(noted, &self.core.leftovers);
    }

    /// Keeps what a job left in its group, if the leader was reaped just now.
    pub(super) fn keep_leftover(&mut self, group: NotedGroup, now: Instant) {
        if self.core.leftovers.is_full() {
            // The daemons of most groups have left them by now.
            self.recheck_leftovers(now);
        }
        if let Some(oldest) = self.core.group_left(group, now)
            && self.orphans.is_there(&oldest, false)
        {
            self.signal_leftover(&oldest, SignalKind::Kill, false);
        }
    }

    /// Logs that a process of a job cannot be ended.
    pub(super) fn log_stuck(&mut self, id: u64, number: u32) {
        let refused = Pid::from_raw(i32::try_from(number).unwrap_or(0))
            .and_then(|leader| process::kill_probe(leader).err());
        self.base.log.error(&|out| {
            let _ = uwrite!(out, "a process of job {} in group {} cannot be ended: ", id, number);
            match refused {
                Some(failure) => failure.describe(out),
                None => out.push_str("it is there after SIGKILL"),
            }
            out.push_str("; `cancel` gives it up");
        });
    }
}
