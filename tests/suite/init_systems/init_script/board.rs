//! A machine to install the init script on, as the tests need it: a shell, a
//! PATH, a defaults file, and a folder for the service.

use crate::support::{Dir, Ran, alive, find, finish, install, kill, program, require, wait_until, zigsvc};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The folder that the script is shipped in.
pub(crate) const INIT_D: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/init.d");

/// The shell that runs the script.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shell {
    Dash,
    Ash,
}

/// The tools in the PATH of the script.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Tools {
    /// BusyBox's start-stop-daemon and id.
    BusyBox,
    /// dpkg's start-stop-daemon, and id.
    Dpkg,
    /// No tools: the shell is alone.
    None,
}

pub(crate) struct Board {
    /// The service's folder.
    pub(crate) dir: Dir,
    /// All else: the folder `bin`, the file `default`.
    pub(crate) kit: Dir,
    pub(crate) shell: Vec<PathBuf>,
    /// The value of DAEMON: the binary, or a script that runs it by QEMU.
    pub(crate) daemon: PathBuf,
}

impl Board {
    /// Makes a board. Returns `None` if a tool is missing here.
    pub(crate) fn new(shell: Shell, tools: Tools) -> Option<Self> {
        let shell = match shell {
            Shell::Dash => vec![find("dash")?],
            Shell::Ash => vec![find("busybox")?, "ash".into()],
        };
        let kit = Dir::new();
        let bin = kit.path("bin");
        fs::create_dir(&bin).unwrap();
        match tools {
            Tools::BusyBox => {
                let busybox = find("busybox")?;
                symlink(&busybox, bin.join("start-stop-daemon")).unwrap();
                symlink(&busybox, bin.join("id")).unwrap();
            }
            Tools::Dpkg => {
                symlink(dpkg_start_stop_daemon()?, bin.join("start-stop-daemon")).unwrap();
                symlink(find("id")?, bin.join("id")).unwrap();
            }
            Tools::None => {}
        }
        let command = zigsvc();
        let mut daemon = find(command.get_program().to_str().unwrap())?;
        let arguments: String =
            command.get_args().map(|word| format!("'{}' ", word.to_str().unwrap())).collect();
        if !arguments.is_empty() {
            let text = format!("#!/bin/sh\nexec '{}' {arguments}\"$@\"\n", daemon.display());
            daemon = kit.path("zigsvc");
            install(&daemon, &text);
        }
        let board = Self { dir: Dir::new(), kit, shell, daemon };
        board.configure(&board.options());
        Some(board)
    }

    /// Returns the line of the defaults file that keeps the service in its folder.
    pub(crate) fn options(&self) -> String {
        format!("OPTIONS='-d {}'\n", self.dir.as_arg())
    }

    /// Writes the defaults file: where DAEMON is, and `text`.
    pub(crate) fn configure(&self, text: &str) {
        self.kit.write("default", format!("DAEMON='{}'\n{text}", self.daemon.display()));
    }

    /// Returns the script, to be run with `args`; the words in `before` run the shell.
    pub(crate) fn script(&self, before: &[OsString], args: &[&str]) -> Command {
        let mut words = before.to_vec();
        words.extend(self.shell.iter().map(OsString::from));
        words.push(format!("{INIT_D}/zigsvc").into());
        let mut command = program(&words[0]);
        command.args(&words[1..]).args(args).current_dir("/").stdin(Stdio::null()).env_clear();
        for (name, value) in zigsvc().get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.env("PATH", self.kit.path("bin")).env("ZIGSVC_DEFAULTS", self.kit.path("default"));
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        finish(self.script(&[], args), None)
    }

    /// Runs an action that has to end with `code`.
    #[track_caller]
    pub(crate) fn expect(&self, action: &str, code: i32) -> Ran {
        let ran = self.run(&[action]);
        assert_eq!(ran.code, code, "{:?}: {action}: {ran:?}", self.shell);
        ran
    }

    /// Returns the number in the PID file, which has to be that of a live process.
    #[track_caller]
    pub(crate) fn pid(&self) -> u32 {
        let text = self.dir.read("zigsvc.pid");
        let pid = text.strip_suffix('\n').and_then(|pid| pid.parse().ok());
        let pid = pid.unwrap_or_else(|| panic!("PID file: {text:?}"));
        assert!(alive(pid), "{pid} is not there");
        pid
    }

    /// Returns how many times a service of this board got ready.
    pub(crate) fn starts(&self) -> usize {
        self.dir.read("zigsvc.log").matches("daemon started, pid=").count()
    }

    /// Kills the service as a crash would.
    #[track_caller]
    pub(crate) fn crash(&self) -> u32 {
        let pid = self.pid();
        kill(pid, "KILL");
        gone(pid);
        pid
    }

    /// Runs start-stop-daemon by hand.
    pub(crate) fn by_hand(&self, args: &[&str]) -> Ran {
        let mut command = program(self.kit.path("bin").join("start-stop-daemon"));
        command.args(args).current_dir("/").stdin(Stdio::null());
        finish(command, None)
    }
}

/// Runs a test on every kind of board that this machine can play.
pub(crate) fn on_every_board(test: impl Fn(&Board, Tools)) {
    for shell in [Shell::Dash, Shell::Ash] {
        for tools in [Tools::BusyBox, Tools::Dpkg, Tools::None] {
            if let Some(board) = Board::new(shell, tools) {
                test(&board, tools);
            }
        }
    }
}

/// Runs a test under both shells, for what the PATH has no part in.
pub(crate) fn under_every_shell(test: impl Fn(&Board)) {
    for shell in [Shell::Dash, Shell::Ash] {
        if let Some(board) = Board::new(shell, Tools::None) {
            test(&board);
        }
    }
}

fn dpkg_start_stop_daemon() -> Option<PathBuf> {
    let tool = find("start-stop-daemon")?.canonicalize().unwrap();
    let found = tool.ends_with("start-stop-daemon");
    require(found, "start-stop-daemon is not dpkg's").then_some(tool)
}

/// Waits for the end of a process that has been stopped. Its lock is free already, but a
/// moment may pass until it has come to its very end.
#[track_caller]
pub(crate) fn gone(pid: u32) {
    wait_until("a stopped process is gone", || !alive(pid));
}

/// A process that does not belong to the service, ended with the test.
pub(crate) struct Bystander(Child);

impl Bystander {
    pub(crate) fn new() -> Self {
        Self(program("sleep").arg("1000").spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn unharmed(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
