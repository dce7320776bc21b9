//! A supervisor, what it said, and programs for it to keep running.

use super::{Dir, heartbeat, log_lines_matching, proc_status, require_self_exec, status_line, wait_until};
use core::ops::Deref;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Its log.
pub const LOG: &str = "zigsvc-supervisor.log";

/// Looks often, and so that a look is late only where a test makes it late.
pub const QUICK: &[&str] = &["log_max=0", "interval=100ms", "check_interval=100ms", "stale_after=60s"];

/// Looks never, so that what is seen is seen without looking.
pub const BLIND: &[&str] = &["log_max=0", "interval=100ms", "check_interval=1h", "stale_after=60s"];

/// Returns the path of the binary under test, to be copied. A test never runs it by this path,
/// but by [`super::zigsvc`].
pub fn binary() -> PathBuf {
    PathBuf::from(super::BINARY)
}

/// A folder for a supervisor and what it supervises, as every test of it needs one.
pub struct Supervised(Dir);

impl Deref for Supervised {
    type Target = Dir;

    fn deref(&self) -> &Dir {
        &self.0
    }
}

impl Supervised {
    /// Creates the folder.
    pub fn new() -> Self {
        Self(Dir::new())
    }

    /// Creates the folder for a supervisor of services, which executes its own file. `None`
    /// where that cannot be: the test should return, as with `require_tool`.
    #[track_caller]
    pub fn of_services() -> Option<Self> {
        require_self_exec().then(Self::new)
    }

    /// Starts the supervisor in the background; returns its PID.
    #[track_caller]
    pub fn start_supervisor(&self, options: &[&str]) -> u32 {
        self.0.start_service("supervisor", options)
    }

    /// Returns the PID of the supervisor; waits until it is there.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        self.holder_after("zigsvc-supervisor.pid", 0)
    }

    /// Returns the PID of the service `jobs`; waits until there is one, other than `before`.
    #[track_caller]
    pub fn jobs_after(&self, before: u32) -> u32 {
        self.holder_after("zigsvc.pid", before)
    }

    #[track_caller]
    fn holder_after(&self, file: &str, before: u32) -> u32 {
        let mut pid = None;
        wait_until(&format!("{file} has a holder"), || {
            pid = self.lock_holder(file).filter(|pid| *pid != before);
            pid.is_some()
        });
        pid.unwrap()
    }

    /// Returns the PID of the supervised program, other than `before`; waits for it. It is
    /// what the log says last, if that is a child of the supervisor: a program can print
    /// anything.
    #[track_caller]
    pub fn program_after(&self, before: u32) -> u32 {
        let mut pid = None;
        wait_until("the program runs", || {
            let supervisor = self.lock_holder("zigsvc-supervisor.pid");
            let log = self.read(LOG);
            let last =
                log.rsplit_once(": running (pid ").and_then(|(_, rest)| rest.split_once(')')?.0.parse().ok());
            pid = last.filter(|pid| *pid != before && supervisor.is_some() && parent_of(*pid) == supervisor);
            pid.is_some()
        });
        pid.unwrap()
    }

    /// Returns how many lines of the supervisor's log contain `text`.
    pub fn count(&self, text: &str) -> usize {
        log_lines_matching(&self.read(LOG), text)
    }

    /// Waits for a line in the supervisor's log that contains `text`.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        self.wait_for_count(text, 1);
    }

    /// Waits for this many of them.
    #[track_caller]
    pub fn wait_for_count(&self, text: &str, least: usize) {
        wait_until(&format!("the supervisor logged {text:?} {least} times"), || self.count(text) >= least);
    }

    /// Returns the number of the supervisor's last heartbeat; 0 if there is none.
    pub fn beats(&self) -> u64 {
        heartbeat(self, "zigsvc-supervisor.health")
    }

    /// Insists that no such line comes during four heartbeats of the supervisor, which looks
    /// more often than that.
    #[track_caller]
    pub fn stays_silent(&self, text: &str) {
        let before = self.count(text);
        let first = self.beats();
        wait_until("four heartbeats came", || self.beats() >= first + 4);
        assert_eq!(self.count(text), before, "{text:?}");
    }

    /// Returns the answer of supervisor `pid` to USR2.
    #[track_caller]
    pub fn status(&self, pid: u32) -> String {
        status_line(self, LOG, pid)
    }
}

/// Returns the parent of a process.
pub fn parent_of(pid: u32) -> Option<u32> {
    proc_status(pid, "PPid").parse().ok()
}

/// Returns the session of a process (proc(5)).
pub fn session_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(3)?.parse().ok()
}

/// Returns the command `zigsvc -d DIR -o OPTION... run supervisor WORDS...`, with both outputs on
/// /dev/null.
pub fn run_command(dir: &Dir, options: &[&str], words: &[&str]) -> Command {
    let mut command = dir.command();
    for option in options {
        command.args(["-o", option]);
    }
    command.args(["run", "supervisor"]).args(words).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
