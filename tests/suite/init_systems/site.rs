//! A place to install the files of `init.d` in, with the service's folder.

use crate::support::{Dir, Ran, alive, by_shell, finish, install, kill, program, wait_until, zigsvc};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The folder that they are shipped in.
const INIT_D: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/init.d");

/// Where they expect the program.
const INSTALLED: &str = "/usr/sbin/zigsvc";

/// Returns a file as it is shipped.
#[track_caller]
pub(crate) fn shipped(name: &str) -> String {
    fs::read_to_string(format!("{INIT_D}/{name}")).unwrap_or_else(|error| panic!("{name}: {error}"))
}

pub(crate) struct Site {
    /// The service's folder.
    pub(crate) dir: Dir,
    /// All else.
    pub(crate) kit: Dir,
}

impl Site {
    /// Makes a site with the program `zigsvc` in the kit, which keeps to the folder.
    pub(crate) fn new() -> Self {
        let site = Self { dir: Dir::new(), kit: Dir::new() };
        site.install_program(&format!("-d {}", site.dir.as_arg()));
        site
    }

    /// Has the kit's `zigsvc` pass these options.
    pub(crate) fn install_program(&self, options: &str) {
        let command = zigsvc();
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: String = words.map(|word| format!("'{}' ", word.to_str().unwrap())).collect();
        install(&self.program(), &format!("#!/bin/sh\nexec {words}{options} \"$@\"\n"));
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.kit.path("zigsvc")
    }

    /// Returns a shipped file, with the kit's program instead of the installed one.
    #[track_caller]
    pub(crate) fn adapted(&self, name: &str) -> String {
        let text = shipped(name);
        text.replace(INSTALLED, self.program().to_str().unwrap())
    }

    /// Installs a shipped file, adapted, in the kit; its mode is kept.
    #[track_caller]
    pub(crate) fn copy(&self, name: &str, to: &str) -> PathBuf {
        let (text, to) = (self.adapted(name), self.kit.path(to));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let mode = fs::metadata(format!("{INIT_D}/{name}")).unwrap().permissions().mode();
        if mode & 0o111 != 0 {
            install(&to, &text);
        } else {
            fs::write(&to, text).unwrap();
        }
        to
    }

    /// Copies every file of a folder, each as [`Self::copy`] does.
    #[track_caller]
    pub(crate) fn copy_folder(&self, name: &str, to: &str) -> PathBuf {
        for entry in fs::read_dir(format!("{INIT_D}/{name}")).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            self.copy(&format!("{name}/{file}"), &format!("{to}/{file}"));
        }
        self.kit.path(to)
    }

    /// Returns the PID of the service that runs: the holder of the PID file's lock.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.dir.lock_holder("zigsvc.pid")
    }

    /// Waits until another process than `old` runs and answers; its PID.
    #[track_caller]
    pub(crate) fn successor(&self, old: u32) -> u32 {
        wait_until("another one runs", || self.pid().is_some_and(|pid| pid != old));
        wait_until("it answers", || self.dir.zigsvc(&["status"]).code == 0);
        self.pid().unwrap()
    }

    /// Kills the service as a crash would.
    #[track_caller]
    pub(crate) fn crash(&self) -> u32 {
        let pid = self.pid().expect("it runs");
        kill(pid, "KILL");
        wait_until("it is gone", || !alive(pid));
        pid
    }

    /// Makes the configuration wrong, or right again.
    pub(crate) fn break_config(&self, broken: bool) {
        self.dir.write("zigsvc.conf", if broken { "nonsense = 1\n" } else { "" });
    }
}

/// A process of the test's that gets TERM at its end, and KILL if it stays.
pub(crate) struct Started(Child);

impl Started {
    /// Starts the command, and appends its output to the file `log`.
    #[track_caller]
    pub(crate) fn new(command: &Command, log: &Path) -> Self {
        let mut command = by_shell(&format!("exec \"$@\" >>'{}' 2>&1", log.display()), command);
        command.stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits for its end; the exit code.
    #[track_caller]
    pub(crate) fn code(&mut self) -> Option<i32> {
        wait_until("it has ended", || self.0.try_wait().unwrap().is_some());
        self.0.wait().unwrap().code()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            kill(self.0.id(), "TERM");
            crate::support::holds_within(crate::support::patience(), || {
                !matches!(self.0.try_wait(), Ok(None))
            });
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a tool to its end.
#[track_caller]
pub(crate) fn tool(name: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Ran {
    let mut command = program(name);
    command.args(args).stdin(Stdio::null());
    finish(command, None)
}
