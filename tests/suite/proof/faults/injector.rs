//! The injector as the tests use it: built once, started for each attempt.

use super::calls::{Action, Injection};
use crate::support::{Dir, finish, holds_within, program, require, require_native, require_tool};
use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command};

/// How long anything may take that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program, in a folder of its own.
pub struct Injector {
    dir: Dir,
}

/// The fate of the fault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fired {
    /// The call did not come.
    No,
    /// The call came, but cannot fail so.
    Unfit,
    /// The fault was in a process of this role, and the call was about this object. The role is `0`
    /// for the process that was started, and has one letter more for each process that came from
    /// it: `f` fork, `c` clone, `x` exec.
    Yes {
        /// The role.
        role: String,
        /// A path, or the name of a descriptor.
        about: String,
    },
}

impl fmt::Display for Fired {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => out.write_str("not reached"),
            Self::Unfit => out.write_str("not injected"),
            Self::Yes { role, about } => write!(out, "in {role}, {about}"),
        }
    }
}

impl Injector {
    /// Compiles it; `None` where it cannot work, which was said aloud.
    pub fn build() -> Option<Self> {
        let fits = require_native("QEMU cannot trace")
            && require(cfg!(target_arch = "x86_64"), "the injector knows the registers of x86_64 only")
            && require_tool("cc");
        if !fits {
            return None;
        }
        let injector = Self { dir: Dir::new() };
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/suite/proof/faults/inject.c");
        let mut compiler = program("cc");
        compiler
            .args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(injector.dir.path("inject"))
            .arg(source);
        finish(compiler, None).expect(0);
        let mut command = injector.dir.command();
        command.arg("version");
        let ran = finish(injector.wrap(&injector.dir, &command, &[]), None);
        require(ran.code == 0, "ptrace is not permitted here").then_some(injector)
    }

    /// Returns the command `inject ... -- COMMAND`.
    fn wrap(&self, dir: &Dir, inner: &Command, options: &[&str]) -> Command {
        let mut words = vec!["-r", "report"];
        words.extend(options);
        words.push("--");
        let program = self.dir.path("inject");
        let mut command =
            crate::support::through(&[&[program.to_str().unwrap()], words.as_slice()].concat(), inner);
        command.current_dir(dir.path(""));
        command
    }

    /// Starts `inner` with the fault; its input is `start.in`, if there is one. Without `at_once` nothing is counted before
    /// [`Traced::open_window`].
    pub fn start(&self, dir: &Dir, inner: &Command, at_once: bool, injection: Option<&Injection>) -> Traced {
        let mut options = if at_once { Vec::new() } else { vec!["-w".to_owned()] };
        if let Some(injection) = injection {
            let action = match injection.action {
                Action::Fails(_, errno) => errno.to_string(),
                Action::Short | Action::Cut | Action::Kill => injection.action().to_owned(),
            };
            let Injection { call, number, .. } = injection;
            options.extend(["-s".into(), call.clone(), "-k".into(), number.to_string(), "-a".into(), action]);
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let mut command = self.wrap(dir, inner, &options);
        if let Ok(input) = File::open(dir.path("start.in")) {
            command.stdin(input);
        }
        command.stdout(File::create(dir.path("start.out")).unwrap());
        command.stderr(File::create(dir.path("start.err")).unwrap());
        Traced { child: command.spawn().unwrap(), report: dir.path("report") }
    }
}

/// A program that runs with the injector.
pub struct Traced {
    child: Child,
    report: PathBuf,
}

impl Traced {
    fn report(&self) -> String {
        fs::read_to_string(&self.report).unwrap_or_default()
    }

    /// Returns the exit code of the first process, when it has ended; a hanging one has none.
    pub fn exit_code(&self) -> Option<i32> {
        let code = || self.report().lines().find_map(|line| line.strip_prefix("exit ")?.parse().ok());
        holds_within(PATIENCE, || code().is_some());
        code()
    }

    /// Starts the counting of calls.
    pub fn open_window(&self) {
        crate::support::kill(self.child.id(), "USR2");
    }

    /// Ends the counting of calls.
    pub fn close_window(&self) {
        crate::support::kill(self.child.id(), "USR1");
    }

    /// Returns true if all processes have ended.
    pub fn is_done(&self) -> bool {
        self.report().lines().any(|line| line == "done")
    }

    /// Returns true if all processes end within the time that anything may take.
    pub fn ends(&self) -> bool {
        holds_within(PATIENCE, || self.is_done())
    }

    /// Returns how often each call was made in the window.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        let report = self.report();
        let counts = report.lines().filter_map(|line| line.strip_prefix("count ")?.split_once(' '));
        counts.map(|(call, count)| (call.to_owned(), count.parse().unwrap())).collect()
    }

    /// Returns whether there was the fault, and where.
    pub fn fired(&self) -> Fired {
        let report = self.report();
        for line in report.lines() {
            let mut words = line.split(' ');
            match words.next() {
                Some("unfit") => return Fired::Unfit,
                Some("fired") => {
                    let role = words.nth(1).and_then(|word| word.strip_prefix("role=")).unwrap_or_default();
                    return Fired::Yes { role: role.to_owned(), about: words.collect::<Vec<_>>().join(" ") };
                }
                _ => {}
            }
        }
        Fired::No
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // The processes that it traces end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
