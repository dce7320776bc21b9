//! A supervisor, what it said, and programs for it to keep running.

use super::{Dir, alive, holds_within, kill, log_lines_matching, proc_status, wait_until};
use core::time::Duration;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Its log.
pub const LOG: &str = "zigsvc-supervisor.log";

/// Looks often, and so that a look is late only where a test makes it late.
pub const QUICK: &[&str] = &["log_max=0", "interval=100ms", "check_interval=100ms", "stale_after=60s"];

/// Looks never, so that what is seen is seen without looking.
pub const BLIND: &[&str] = &["log_max=0", "interval=100ms", "check_interval=1h", "stale_after=60s"];

/// The binary under test, to be copied; never run it by this, but by
/// [`super::zigsvc`].
pub fn binary() -> PathBuf {
    PathBuf::from(super::BINARY)
}

/// Starts the supervisor in the background; its PID.
#[track_caller]
pub fn start(dir: &Dir, options: &[&str]) -> u32 {
    dir.start_service("supervisor", options)
}

/// The PID of the service `jobs`; waits until there is one, other than `before`.
#[track_caller]
pub fn jobs_after(dir: &Dir, before: u32) -> u32 {
    let mut pid = None;
    wait_until("jobs runs", || {
        pid = dir.lock_holder("zigsvc.pid").filter(|pid| *pid != before);
        pid.is_some()
    });
    pid.unwrap()
}

/// How many lines of the supervisor's log contain `text`.
pub fn count(dir: &Dir, text: &str) -> usize {
    log_lines_matching(&dir.read(LOG), text)
}

/// Waits for a line in the supervisor's log that contains `text`.
#[track_caller]
pub fn wait_for(dir: &Dir, text: &str) {
    wait_for_count(dir, text, 1);
}

/// Waits for so many of them.
#[track_caller]
pub fn wait_for_count(dir: &Dir, text: &str, least: usize) {
    wait_until(&format!("the supervisor said {text:?} {least} times"), || count(dir, text) >= least);
}

/// Whether no such line comes while other things certainly would: during four
/// heartbeats of the supervisor, which looks more often than that.
#[track_caller]
pub fn stays_silent(dir: &Dir, text: &str) {
    let before = count(dir, text);
    let first = seq(dir, "zigsvc-supervisor.health");
    wait_until("four heartbeats came", || seq(dir, "zigsvc-supervisor.health") >= first + 4);
    assert_eq!(count(dir, text), before, "{text:?}");
}

/// The sequence number of a heartbeat; 0 if there is none.
pub fn seq(dir: &Dir, file: &str) -> u64 {
    let text = dir.read(file);
    text.split("seq=").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap_or(0)
}

/// The answer of supervisor `pid` to USR2.
#[track_caller]
pub fn status(dir: &Dir, pid: u32) -> String {
    let before = count(dir, "status: ");
    kill(pid, "USR2");
    wait_for_count(dir, "status: ", before + 1);
    dir.read(LOG).lines().rfind(|line| line.contains("status: ")).unwrap().to_owned()
}

/// The parent of a process.
pub fn parent_of(pid: u32) -> Option<u32> {
    proc_status(pid, "PPid").parse().ok()
}

/// The session of a process (proc(5)).
pub fn session_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(3)?.parse().ok()
}

/// The PID of the supervised program, other than `before`; waits for it. It is
/// what the log says last, if that is a child of the supervisor: a program can
/// print anything.
#[track_caller]
pub fn program_after(dir: &Dir, before: u32) -> u32 {
    let mut pid = None;
    wait_until("the program runs", || {
        let supervisor = dir.lock_holder("zigsvc-supervisor.pid");
        let log = dir.read(LOG);
        let last =
            log.rsplit_once(": running (pid ").and_then(|(_, rest)| rest.split_once(')')?.0.parse().ok());
        pid = last.filter(|pid| *pid != before && supervisor.is_some() && parent_of(*pid) == supervisor);
        pid.is_some()
    });
    pid.unwrap()
}

/// `zigsvc -d DIR -o OPTION... run supervisor WORDS...`, quiet.
pub fn run_command(dir: &Dir, options: &[&str], words: &[&str]) -> Command {
    let mut command = dir.command();
    for option in options {
        command.args(["-o", option]);
    }
    command.args(["run", "supervisor"]).args(words).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A process of the test, which ends with it.
pub struct Running(pub Child);

impl Running {
    /// Starts it.
    pub fn new(mut command: Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// One that none of ours may signal.
    pub fn sleeper() -> Self {
        let mut command = Command::new("sleep");
        command.arg("600");
        Self::new(command)
    }

    /// Its PID.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Waits for its end; the exit status.
    #[track_caller]
    pub fn code(&mut self) -> i32 {
        wait_until("it has ended", || self.0.try_wait().unwrap().is_some());
        self.0.wait().unwrap().code().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.runs() {
            // (a supervisor takes its program with it)
            kill(self.pid(), "TERM");
            kill(self.pid(), "CONT");
            holds_within(Duration::from_secs(5), || !self.runs());
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Kills a process that is not a child of the test, and waits until it is gone.
#[track_caller]
pub fn kill_hard(pid: u32) {
    kill(pid, "KILL");
    wait_until("it is gone", || !alive(pid));
}
