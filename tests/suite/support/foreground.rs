//! A service under `run`.

use super::{Dir, heartbeat, wait_until};
use std::process::{Command, Stdio};

/// Returns the command `zigsvc -d DIR -o ... run`, with both outputs on /dev/null.
pub fn run_command(dir: &Dir, options: &[&str]) -> Command {
    let mut command = dir.command();
    for option in options {
        command.args(["-o", option]);
    }
    command.arg("run").stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Returns the sequence number of the heartbeat of `jobs`; 0 if there is none.
pub fn seq(dir: &Dir) -> u64 {
    heartbeat(dir, "zigsvc.health")
}

/// Waits until the heart has beaten `count` times more.
#[track_caller]
pub fn wait_for_beats(dir: &Dir, count: u64) {
    let before = seq(dir);
    wait_until("the heart beats on", || seq(dir) >= before + count);
}
