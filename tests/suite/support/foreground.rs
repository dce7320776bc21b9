//! A service under `run`.

use super::{Dir, wait_until};
use std::process::{Child, Command, Stdio};

/// A foreground service that ends with the test.
pub struct Running(pub Child);

impl Running {
    #[track_caller]
    pub fn new(mut command: Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Its PID.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits for its end; the exit code.
    #[track_caller]
    pub fn code(&mut self) -> i32 {
        wait_until("it has ended", || self.0.try_wait().unwrap().is_some());
        self.0.wait().unwrap().code().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `zigsvc -d DIR -o ... run`, with both outputs on /dev/null.
pub fn run_command(dir: &Dir, options: &[&str]) -> Command {
    let mut command = dir.command();
    for option in options {
        command.args(["-o", option]);
    }
    command.arg("run").stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The sequence number of the heartbeat; 0 if there is none.
pub fn seq(dir: &Dir) -> u64 {
    let text = dir.read("zigsvc.health");
    text.split("seq=").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap_or(0)
}

/// Waits until the heart has beaten so many times more.
#[track_caller]
pub fn wait_for_beats(dir: &Dir, count: u64) {
    let before = seq(dir);
    wait_until("the heart beats on", || seq(dir) >= before + count);
}
