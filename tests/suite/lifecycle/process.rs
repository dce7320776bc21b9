//! The process that a service is: what it inherits, what it drops, what it
//! asks of the kernel.

use crate::support::{
    Dir, Ran, by_shell, finish, heartbeat, is_root, proc_status, program, require_native, through,
    under_qemu, wait_until, zigsvc,
};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Stdio};

/// The user and group id of `nobody`.
const NOBODY: u32 = 65534;

/// Returns the fields of `/proc/PID/stat` after the name: state, ppid, pgrp, session,
/// tty_nr (proc(5)).
fn stat(pid: u32) -> Vec<i64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = text.rsplit_once(") ").unwrap().1.split(' ');
    fields.skip(1).map(|field| field.trim().parse().unwrap_or(-1)).collect()
}

/// Returns the targets of the descriptors of a process, by number.
fn descriptors(pid: u32) -> Vec<(u32, String)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let mut all: Vec<_> = entries
        .map(|entry| {
            let number = entry.file_name().to_str().unwrap().parse().unwrap();
            let target = fs::read_link(entry.path()).unwrap_or_default();
            (number, target.to_string_lossy().into_owned())
        })
        .collect();
    all.sort();
    all
}

/// A command that an unprivileged user runs: `nobody`, or the tests' own user if it is
/// unprivileged. `None` means that this is not possible here, and that the test was skipped
/// aloud.
struct Nobody {
    dir: Dir,
}

impl Nobody {
    #[track_caller]
    fn new() -> Option<Self> {
        if !crate::support::require(
            crate::support::runner().is_empty(),
            "a runner cannot be handed to another user",
        ) {
            return None;
        }
        let dir = Dir::new();
        if is_root() {
            if !crate::support::require_tool("setpriv") {
                return None;
            }
            fs::set_permissions(dir.path(""), fs::Permissions::from_mode(0o755)).unwrap();
            dir.copy_program(zigsvc().get_program(), "zigsvc");
            fs::create_dir(dir.path("own")).unwrap();
            let nobodys = program("chown").arg("65534:65534").arg(dir.path("own")).status();
            let works = nobodys.is_ok_and(|status| status.success());
            if !crate::support::require(works, "chown is not permitted here") {
                return None;
            }
        } else {
            fs::create_dir(dir.path("own")).unwrap();
        }
        Some(Self { dir })
    }

    /// Returns a folder of that user.
    fn own(&self) -> String {
        self.dir.path("own").display().to_string()
    }

    /// Returns `zigsvc ARGS...` as that user.
    fn command(&self, args: &[&str]) -> Command {
        if !is_root() {
            let mut command = zigsvc();
            command.args(args);
            return command;
        }
        let mut inner = program(self.dir.path("zigsvc"));
        inner.args(args);
        for (name, value) in zigsvc().get_envs() {
            value.map(|value| inner.env(name, value));
        }
        through(&["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"], &inner)
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args), None)
    }
}

// ----- what it inherits --------------------------------------------------------

#[test]
fn the_daemon_is_detached_from_everything_it_was_started_from() {
    let dir = Dir::new();
    let mut start = dir.command();
    start.arg("start");
    // Descriptors that a careless caller leaves open.
    finish(by_shell("umask 000; exec \"$@\" 3</dev/zero 5</dev/zero 9>/dev/full", &start), None).expect(0);
    let pid = dir.lock_holder("zigsvc.pid").unwrap();
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/"));
    if !crate::support::require_native("/proc shows QEMU's own process") {
        return;
    }
    let facts = stat(pid);
    let [ppid, _, session, tty] = facts[..4] else { panic!("{facts:?}") };
    assert_ne!(ppid, i64::from(std::process::id()));
    assert_ne!(session, i64::from(pid), "a session leader could get a terminal");
    assert_ne!(session, stat(std::process::id())[2]);
    assert_eq!(tty, 0);
    let all = descriptors(pid);
    for (number, target) in &all {
        assert_eq!(*number < 3, target == "/dev/null", "{all:?}");
        assert!(!matches!(target.as_str(), "/dev/zero" | "/dev/full"), "{all:?}");
    }
    assert_eq!(all.iter().filter(|(number, _)| *number < 3).count(), 3);
    assert_eq!(proc_status(pid, "Umask"), "0027");
}

#[test]
fn signals_that_the_caller_blocked_or_ignored_work() {
    let dir = Dir::new();
    let mask = ["env", "--ignore-signal", "--block-signal"];
    let works = program("env").args(&mask[1..]).arg("true").stderr(Stdio::null()).status();
    if !crate::support::require(works.is_ok_and(|status| status.success()), "this env cannot block signals") {
        return;
    }
    for words in [&mask[..2], &mask[..]] {
        let mut start = dir.command();
        start.args(["-o", "handler=shell", "-o", "log_max=0", "start"]);
        finish(through(words, &start), None).expect(0);
        let pid = dir.lock_holder("zigsvc.pid").unwrap();
        if require_native("/proc shows QEMU's own process") {
            // The service blocks them itself for the moment in which it starts a handler.
            wait_until("none is blocked", || proc_status(pid, "SigBlk") == "0000000000000000");
            assert_eq!(proc_status(pid, "SigIgn"), "0000000000000000");
        }
        dir.append("queue", "grep -E '^Sig(Blk|Ign)' /proc/self/status | tr '\\t' ' '\n");
        for name in ["SigBlk", "SigIgn"] {
            let line = format!(": {name}: 0000000000000000\n");
            wait_until("the handler has told", || {
                dir.read("zigsvc.log").contains(&line)
                    || (under_qemu() && dir.read("zigsvc.log").contains(name))
            });
        }
        crate::support::kill(pid, "TERM");
        wait_until("it is gone", || !crate::support::alive(pid));
        fs::remove_file(dir.path("zigsvc.log")).unwrap();
    }
}

#[test]
fn a_handler_sees_nothing_of_the_callers_environment() {
    let dir = Dir::new();
    let mut start = dir.command();
    start
        .args(["-o", "handler=shell", "start"])
        .env("SECRET", "1")
        .env("LD_PRELOAD", "/evil")
        .env("PATH", "/evil");
    start.env("IFS", "x").env("ENV", "/evil");
    finish(start, None).expect(0);
    dir.append("queue", "/usr/bin/env | sort; echo end\n");
    wait_until("the handler has told", || dir.read("zigsvc.log").contains("job 1: end\n"));
    let log = dir.read("zigsvc.log");
    for word in ["SECRET", "evil", "HOME="] {
        assert!(!log.contains(word), "{log}");
    }
    assert!(log.contains("job 1: PATH=/"), "{log}");
    assert!(log.contains("job 1: ZIGSVC_JOB_ID=1\n"), "{log}");
}

// ----- privileges ----------------------------------------------------------------

#[test]
fn root_becomes_the_configured_user_for_good() {
    if !crate::support::require_root() || !crate::support::require_native("/proc shows QEMU's own process") {
        return;
    }
    let dir = Dir::new();
    fs::set_permissions(dir.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let options = ["user=65534", "group=65534", "interval=100ms"];
    let pid = dir.start(&options);
    assert_eq!(proc_status(pid, "Uid"), "65534 65534 65534 65534");
    assert_eq!(proc_status(pid, "Gid"), "65534 65534 65534 65534");
    assert_eq!(proc_status(pid, "Groups"), "65534");
    assert_eq!(proc_status(pid, "NoNewPrivs"), "1");
    assert_eq!(proc_status(pid, "CapEff"), "0000000000000000");
    let owner = |name: &str| fs::metadata(dir.path(name)).unwrap().uid();
    assert_eq!((owner("zigsvc.pid"), owner("zigsvc.log"), owner("spool")), (0, NOBODY, NOBODY));
    assert_eq!(owner("spool/journal"), NOBODY);
    // The folder is root's, so the PID file can only be emptied.
    dir.zigsvc(&["status"]).expect(0);
    dir.zigsvc(&["stop"]).expect(0);
    assert_eq!(dir.read("zigsvc.pid"), "");
    dir.zigsvc(&["status"]).expect(3);
    // Files that belong to the service already are as good.
    dir.start(&options);
}

#[test]
fn an_unknown_user_is_a_config_error() {
    let dir = Dir::new();
    for option in ["user=no-such-user", "user=no:such", "user=4294967295"] {
        let ran = dir.zigsvc(&["-o", option, "start"]).expect(6);
        assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
    }
    let ran = dir.zigsvc(&["-o", "user=0", "-o", "group=no-such-group", "start"]).expect(6);
    assert!(ran.err.contains("no-such-group"), "{ran:?}");
    dir.zigsvc(&["-o", "group=0", "start"]).expect(6);
    assert!(!dir.path("zigsvc.pid").exists());
}

#[test]
fn only_root_can_run_it_as_somebody_else() {
    let Some(nobody) = Nobody::new() else { return };
    let ran = nobody.run(&["-d", &nobody.own(), "-o", "user=0", "start"]).expect(4);
    assert_eq!(ran.err, "zigsvc: user: only root can become another user\n");
    nobody.run(&["-d", &nobody.own(), "status"]).expect(3);
}

#[test]
fn what_an_ordinary_user_may_not_do_is_told_with_exit_4() {
    let Some(nobody) = Nobody::new() else { return };
    let own = nobody.own();
    for (option, what) in [
        ("pid_file=/proc/pid", "/proc/pid"),
        ("spool=/zigsvc-test-no-such-folder", "/zigsvc-test-no-such-folder"),
    ] {
        let ran = nobody.run(&["-d", &own, "-o", option, "start"]);
        assert!(matches!(ran.code, 1 | 4), "{ran:?}");
        assert!(ran.err.starts_with(&format!("zigsvc: {what}")) && ran.err.lines().count() == 1, "{ran:?}");
    }
    let locked = nobody.dir.path("own/locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
    let ran = nobody.run(&["-d", locked.to_str().unwrap(), "start"]).expect(4);
    assert!(ran.err.contains("EACCES"), "{ran:?}");
    assert!(!nobody.dir.path("own/locked/zigsvc.pid").exists());
}

#[test]
fn root_and_others_can_look_at_each_others_services() {
    let Some(nobody) = Nobody::new() else { return };
    if !crate::support::require_root() {
        return;
    }
    let own = nobody.own();
    nobody.run(&["-d", &own, "start"]).expect(0);
    let ran = crate::support::run(&["-d", &own, "status"]).expect(0);
    assert!(ran.out.contains("heartbeat  fresh"), "{ran:?}");
    // Root does not run what another user configures.
    let ran = crate::support::run(&["-d", &own, "start"]).expect(6);
    assert!(ran.err.contains("not trusted, because uid 65534 owns it"), "{ran:?}");
    crate::support::run(&["-d", &own, "stop"]).expect(0);
    // Root's service: others may look, and not stop it.
    let dir = Dir::new();
    fs::set_permissions(dir.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let pid = dir.start(&[]);
    nobody.run(&["-d", dir.as_arg(), "status"]).expect(0);
    let ran = nobody.run(&["-d", dir.as_arg(), "stop"]).expect(4);
    assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(pid));
}

// ----- where its files are ---------------------------------------------------------

#[test]
fn an_ordinary_users_files_are_where_xdg_says() {
    let Some(nobody) = Nobody::new() else { return };
    let own = nobody.own();
    for (name, folder) in [("XDG_STATE_HOME", "zigsvc"), ("HOME", ".local/state/zigsvc")] {
        let run = |args: &[&str]| {
            let mut command = nobody.command(args);
            command.env_remove("HOME").env(name, &own);
            finish(command, None).expect(0)
        };
        let file = format!("pid_file = \"{own}/{folder}/zigsvc.pid\"\n");
        assert!(run(&["check"]).out.contains(&file));
        run(&["start"]);
        assert!(nobody.dir.path("own").join(folder).join("zigsvc.health").exists());
        run(&["stop"]);
    }
}

#[test]
fn with_no_home_a_private_folder_in_tmp_is_used_and_no_other_trusted() {
    let Some(nobody) = Nobody::new() else { return };
    let uid = if is_root() { NOBODY } else { fs::metadata(nobody.own()).unwrap().uid() };
    let folder = format!("/tmp/zigsvc-{uid}");
    if !crate::support::require(!fs::exists(&folder).unwrap(), &format!("{folder} is in use")) {
        return;
    }
    let run = |args: &[&str]| {
        let mut command = nobody.command(args);
        command.env_remove("HOME").env_remove("XDG_STATE_HOME");
        finish(command, None)
    };
    run(&["start"]).expect(0);
    let meta = fs::metadata(&folder).unwrap();
    run(&["stop"]).expect(0);
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (uid, 0o700));
    // Prepared by another user: a link, or a folder that others can enter.
    symlink(nobody.own(), &folder).unwrap();
    let linked = run(&["start"]);
    fs::remove_file(&folder).unwrap();
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let foreign = run(&["start"]);
    let looked = run(&["status"]);
    fs::remove_dir_all(&folder).unwrap();
    for ran in [linked, foreign, looked] {
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.starts_with(&format!("zigsvc: {folder}: must be a directory of yours")), "{ran:?}");
    }
    assert!(!nobody.dir.path("own/zigsvc.pid").exists());
}

// ----- what it asks of the kernel -----------------------------------------------------

/// Returns true if strace(1) can trace here.
#[track_caller]
pub(super) fn require_strace() -> bool {
    let traces = || {
        let status = program("strace").args(["-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    crate::support::require_native("strace would show QEMU's system calls")
        && crate::support::require_tool("strace")
        && crate::support::require(traces(), "strace is not permitted here")
}

#[test]
fn an_idle_daemon_wakes_once_per_interval_for_at_most_four_calls() {
    if !require_strace() {
        return;
    }
    let dir = Dir::new();
    let _measuring = crate::support::measuring();
    // 100 ms are less than the least time between two heartbeats.
    for interval in ["100ms", "400ms"] {
        let pid = dir.start(&[&format!("interval={interval}")]);
        let seq = || heartbeat(&dir, "zigsvc.health");
        let trace = dir.path("trace");
        let mut strace = program("strace");
        strace.arg("-o").arg(&trace).args(["-p", &pid.to_string()]).stderr(Stdio::null());
        let mut strace = strace.spawn().unwrap();
        wait_until("strace is attached", || proc_status(pid, "TracerPid") != "0");
        let first = seq();
        wait_until("it has worked for ten intervals", || seq() >= first + 10);
        let beats = usize::try_from(seq() - first).unwrap();
        crate::support::kill(strace.id(), "INT");
        strace.wait().unwrap();
        let calls: Vec<_> = dir.read("trace").lines().map(str::to_owned).collect();
        let polls = calls.iter().filter(|call| call.contains("poll(")).count();
        assert!(polls <= beats + 3, "{polls} wake-ups in {beats} intervals: {calls:#?}");
        assert!(calls.len() <= 4 * (beats + 3), "{} calls in {beats} intervals: {calls:#?}", calls.len());
        dir.zigsvc(&["stop"]).expect(0);
    }
}

#[test]
fn no_service_ever_asks_for_memory() {
    if !require_strace() {
        return;
    }
    let dir = Dir::new();
    let mut run = dir.command();
    run.args(["-o", "handler=shell", "-o", "log_file=log", "run"]).current_dir(dir.path(""));
    let trace = dir.path("trace").display().to_string();
    // Not -f: the handlers have a libc.
    let mut child =
        through(&["strace", "-o", &trace], &run).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("it is ready", || dir.read("log").contains("daemon started"));
    let pid = dir.lock_holder("zigsvc.pid").unwrap();
    dir.append("queue", "echo hello\nexit 3\n");
    wait_until("the jobs ran", || dir.read("log").contains("job 2 failed with exit status 3"));
    crate::support::kill(pid, "HUP");
    crate::support::kill(pid, "USR1");
    wait_until("it has rotated", || dir.path("log.1").exists());
    dir.zigsvc(&["stop"]).expect(0);
    child.wait().unwrap();
    let text = dir.read("trace");
    assert!(text.contains("exit_group(0)"), "{text}");
    for call in ["brk(", "mmap(", "mmap2(", "mremap(", "clone3(", "futex("] {
        assert!(!text.lines().any(|line| line.starts_with(call)), "{call}\n{text}");
    }
}

#[test]
fn who_may_not_signal_a_service_is_told_so_with_4_and_changes_nothing() {
    if !crate::support::require(is_root(), "only root has a service that others may not signal") {
        return;
    }
    let Some(nobody) = Nobody::new() else { return };
    let pid = nobody.dir.start(&[]);
    let folder = nobody.dir.as_arg();
    for (command, code) in [("reload", 4), ("rotate", 4), ("restart", 4), ("stop", 4)] {
        let ran = nobody.run(&["-d", folder, command]).expect(code);
        assert!(ran.err.ends_with("EPERM (not permitted); needs root\n"), "{command}: {}", ran.err);
        assert_eq!(nobody.dir.lock_holder("zigsvc.pid"), Some(pid), "{command}");
    }
}
