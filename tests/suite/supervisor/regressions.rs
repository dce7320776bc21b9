//! Earlier mistakes of the supervisor, each with the shortest way to it.

use crate::support::foreground::wait_for_beats;
use crate::support::small_disk::{SmallDisk, has_namespaces};
use crate::support::supervisor::{LOG, Supervised};
use crate::support::{
    alive, finish, kill, process_state, program, require_native, require_tool, run, runner, wait_until,
};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::Instant;

/// A quick eye on a service that beats quickly.
const QUICK: [&str; 3] = ["check_interval=300ms", "stale_after=1s", "interval=250ms"];

/// Puts the end of one start and the beginning of the next into one turn of the loop. The
/// end of the old pipe was once taken for the end of the new one, so the service was never
/// heard to be ready, and was ended though it was well.
///
/// Mended in ca7bfb1.
#[test]
fn a_start_right_after_one_that_died_is_heard_when_it_is_ready() {
    if !runner().is_empty() {
        return;
    }
    let dir = Supervised::new();
    let options = "check_interval = \"300ms\"\nstale_after = \"2s\"\ninterval = \"250ms\"\n";
    dir.write("zigsvc.conf", format!("supervise = []\n{options}"));
    symlink(env!("CARGO_BIN_EXE_zigsvc"), dir.path("program")).unwrap();
    let mut command = program(dir.path("program"));
    command.args(["-d", dir.as_arg(), "start", "supervisor"]);
    finish(command, None).expect(0);
    let supervisor = dir.lock_holder("zigsvc-supervisor.pid").unwrap();
    // The program that the supervisor starts from now on never gets ready, and writes its PID.
    let replace = |script: String| {
        dir.write_executable("next", &format!("#!/bin/sh\n{script}\n"));
        fs::rename(dir.path("next"), dir.path("program")).unwrap();
    };
    let child = dir.path("child").display().to_string();
    replace(format!("echo $$ > {child}; exec sleep 100"));
    dir.write("zigsvc.conf", format!("supervise = [\"jobs\"]\n{options}"));
    kill(supervisor, "HUP");
    wait_until("the child runs", || dir.read("child").ends_with('\n'));
    // Both its end and the end of its pipe are there when the supervisor continues; and the
    // next one gets ready, but not at once.
    kill(supervisor, "STOP");
    wait_until("the supervisor is stopped", || process_state(supervisor) == Some('T'));
    replace(format!("sleep 0.3; exec {} \"$@\"", env!("CARGO_BIN_EXE_zigsvc")));
    let pid = dir.read("child").trim().parse().unwrap();
    kill(pid, "KILL");
    wait_until("the child has ended", || process_state(pid) == Some('Z'));
    kill(supervisor, "CONT");
    wait_until("jobs is ready or given up", || {
        let log = dir.read(LOG);
        log.contains("jobs: running (pid") || log.contains("not ready")
    });
    assert!(!dir.read(LOG).contains("not ready"), "{}", dir.read(LOG));
}

/// Checks that an adopted service that hangs is ended though its PID file was removed. It
/// could once not be signalled, and was taken for one that cannot be killed: the board was
/// reset.
///
/// Mended in ca7bfb1.
#[test]
fn an_adopted_service_is_ended_though_its_pid_file_was_removed() {
    let dir = Supervised::new();
    let pid = dir.start(&["interval=250ms"]);
    dir.start_service("supervisor", &[&QUICK[..], &["stop_timeout=1s"]].concat());
    dir.wait_for(&format!("runs already (pid {pid}), adopted"));
    fs::remove_file(dir.path("zigsvc.pid")).unwrap();
    kill(pid, "STOP");
    wait_until("it has ended", || !alive(pid));
    wait_until("another one runs", || dir.lock_holder("zigsvc.pid").is_some());
    assert!(!dir.read(LOG).contains("not even by SIGKILL"));
}

/// Checks a mistake in the words of `restart`, which was once reported after the service
/// had been stopped.
///
/// Mended in b2cfa68.
#[test]
fn a_restart_with_a_mistake_in_its_words_leaves_the_service_alone() {
    let dir = Supervised::new();
    let pid = dir.start(&[]);
    for words in [&["restart", "--health", "/x", "jobs"][..], &["restart", "jobs", "--", "true"]] {
        dir.zigsvc(words).expect(2);
        assert_eq!(dir.lock_holder("zigsvc.pid"), Some(pid), "{words:?}");
    }
}

/// Checks more options than the supervisor can pass on, which once ended it with an internal error.
///
/// Mended in a2944bb.
#[test]
fn more_options_than_can_be_passed_on_are_refused() {
    let dir = Supervised::new();
    let mut words = ["-d", dir.as_arg()].repeat(60);
    words.extend(["run", "supervisor"]);
    let ran = run(&words).expect(2);
    assert!(ran.err.contains("too many options"), "{ran:?}");
}

/// Checks that the maximum number of options reaches the service.
///
/// Mended in a2944bb.
#[test]
fn the_most_options_that_there_can_be_are_passed_on() {
    let dir = Supervised::new();
    let mut options = ["log_keep=2"; 46].to_vec();
    options.extend(QUICK.iter().take(1));
    options.push("log_time=unix");
    dir.start_service("supervisor", &options);
    dir.jobs_after(0);
    wait_until("it has started", || dir.read("zigsvc.log").contains("daemon started"));
    assert!(!dir.read("zigsvc.log").contains('T'), "the last option holds for it too");
}

/// Checks that a supervised program gets the whole environment. It once got the first 256
/// variables only, and those of a service manager took part of that.
///
/// Mended in a2944bb.
#[test]
fn a_program_gets_the_whole_environment() {
    let dir = Supervised::new();
    let mut command = dir.command();
    for number in 0..400 {
        command.env(format!("VARIABLE_{number}"), number.to_string());
    }
    command.env("NOTIFY_SOCKET", "/nonexistent").env("WATCHDOG_USEC", "60000000");
    let script = "env | grep -c ^VARIABLE_; env | grep -c -e NOTIFY -e WATCHDOG; echo told; exec sleep 100";
    command.args(["start", "supervisor", "--", "/bin/sh", "-c", script]);
    finish(command, None).expect(0);
    wait_until("the program told it", || dir.read(LOG).contains("sh| told\n"));
    let log = dir.read(LOG);
    assert!(log.contains("sh| 400\n") && log.contains("sh| 0\n"), "{log}");
}

/// Checks the repetition of a message that a service writes at its start, which once had
/// `\x0a` at its end.
///
/// Mended in 7403511.
#[test]
fn what_a_service_says_at_its_start_is_repeated_as_a_line() {
    let dir = Supervised::new();
    fs::create_dir(dir.path("zigsvc.log")).unwrap();
    dir.start_service("supervisor", &[]);
    dir.wait_for("jobs: the log cannot be written: ");
    assert!(!dir.read(LOG).contains("\\x0a"));
}

/// Checks `stop` of a service that keeps dying. It once reported that the service was not
/// running, and the supervisor started it again a little later.
///
/// Mended in 28338cf.
#[test]
fn a_service_that_waits_for_its_restart_can_be_stopped() {
    let dir = Supervised::new();
    dir.start_service("supervisor", &["check_interval=1h"]);
    for end in 1..=3 {
        // Before that its PID file may not be filled.
        wait_until("it is ready", || dir.read(LOG).matches("jobs: running").count() == end);
        kill(dir.jobs_after(0), "KILL");
        dir.wait_for(&format!("; restart {end} "));
    }
    dir.zigsvc(&["stop"]).expect(0);
    dir.wait_for("jobs: was stopped on purpose");
    let pid = dir.start(&[]);
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(pid));
}

/// Checks that a `check_interval` that a reload shortens holds at once. It once held from
/// the next look on only, which was as far away as the long one.
///
/// Mended in 81c2fdf.
///
/// Mended in 81c2fdf.
#[test]
fn a_shorter_check_interval_holds_at_once() {
    let dir = Supervised::new();
    dir.write("zigsvc.conf", "check_interval = \"1h\"\nstale_after = \"1s\"\n");
    dir.start_service("supervisor", &[]);
    let pid = dir.jobs_after(0);
    dir.write("zigsvc.conf", "check_interval = \"300ms\"\nstale_after = \"1s\"\n");
    dir.zigsvc(&["reload", "supervisor"]).expect(0);
    dir.wait_for("config: check_interval changed");
    kill(pid, "STOP");
    dir.wait_for("check 1 of 3 failed");
}

/// Checks the end of the program and the stop of its supervisor in one turn, because at a
/// shutdown every process gets TERM at once. The program was once started again.
///
/// Mended in 035d7cc.
#[test]
fn what_ends_together_with_the_supervisor_is_not_started_again() {
    let dir = Supervised::new();
    let mut command = dir.command();
    command.args(["start", "supervisor", "--", "/bin/sh", "-c", "echo begun $$; exec sleep 100"]);
    finish(command, None).expect(0);
    dir.wait_for("sh| begun");
    let log = dir.read(LOG);
    let program = log.split("sh| begun ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok()).unwrap();
    let supervisor = dir.lock_holder("zigsvc-supervisor.pid").unwrap();
    kill(supervisor, "STOP");
    wait_until("the supervisor is stopped", || process_state(supervisor) == Some('T'));
    kill(program, "TERM");
    wait_until("the program has ended", || process_state(program) == Some('Z'));
    kill(supervisor, "TERM");
    kill(supervisor, "CONT");
    dir.wait_for("daemon stopped");
    let log = dir.read(LOG);
    assert!(!log.contains("restart") || log.contains("after 0 restarts"), "{log}");
}

/// Checks a supervisor that cannot open a health file for lack of descriptors. It once took
/// the file for unreadable, and ended the service.
///
/// Mended in eca6064.
#[test]
fn a_supervisor_without_descriptors_ends_nobody_for_it() {
    if !require_native("QEMU needs descriptors and files of its own") || !require_tool("prlimit") {
        return;
    }
    let dir = Supervised::new();
    dir.start_service("supervisor", &QUICK);
    let pid = dir.jobs_after(0);
    let supervisor = dir.lock_holder("zigsvc-supervisor.pid").unwrap().to_string();
    let limit = |soft: &str| {
        let mut command = program("prlimit");
        command.args(["--pid", &supervisor, &format!("--nofile={soft}:")]);
        finish(command, None).expect(0);
    };
    limit("3");
    wait_for_beats(&dir, 8);
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(pid));
    assert!(!dir.read(LOG).contains("failed"), "{}", dir.read(LOG));
    // With descriptors it sees again what is wrong.
    limit("64");
    kill(pid, "STOP");
    dir.wait_for("check 1 of 3 failed: heartbeat stale");
}

/// Stops the supervisor on a small disk when the test ends, however it does.
struct OnDisk {
    holder: String,
    folder: String,
}

impl OnDisk {
    /// Returns `zigsvc -d DISK WORDS...` where the disk is mounted.
    fn zigsvc(&self, words: &[&str]) -> Command {
        let mut inner = crate::support::zigsvc();
        inner.args(["-d", &self.folder]).args(words);
        let mut command = program("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder));
        command.arg(inner.get_program()).args(inner.get_args());
        command
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        let _ = self.zigsvc(&["stop", "supervisor"]).status();
    }
}

/// Checks a disk that takes no heartbeat. The supervisor once ended one service after the
/// other, which were well, and which could not start again there.
///
/// Mended in eca6064.
#[test]
fn on_a_full_disk_nobody_is_ended_for_a_missing_heartbeat() {
    if !require_native("QEMU writes to the disk itself") || !has_namespaces() {
        return;
    }
    let dir = Supervised::new();
    let disk = SmallDisk::new(&dir, "256k");
    let holder = disk.path(&dir, "").display().to_string().split('/').nth(2).unwrap().to_owned();
    let service = OnDisk { holder, folder: dir.path("disk").display().to_string() };
    let options = QUICK.iter().flat_map(|option| ["-o", option]);
    let words: Vec<_> = options.chain(["start", "supervisor"]).collect();
    finish(service.zigsvc(&words), None).expect(0);
    let holder_of_lock = || crate::support::lock_holder(&disk.path(&dir, "zigsvc.pid"));
    wait_until("jobs runs", || holder_of_lock().is_some());
    let pid = holder_of_lock().unwrap();
    let health = ["zigsvc.health", "zigsvc-supervisor.health"].map(|name| disk.path(&dir, name));
    let logs = ["zigsvc.log", LOG].map(|name| disk.path(&dir, name));
    let says_so = |path| fs::read_to_string(path).unwrap().contains("the health file cannot be written");
    let is_empty = |path| fs::metadata(path).unwrap().len() == 0;
    let mut filler = fs::File::create(disk.path(&dir, "filler")).unwrap();
    wait_until("neither has a heartbeat, nor room for one", || {
        health.iter().for_each(|path| fs::write(path, "").unwrap());
        while filler.write_all(&[b'f'; 4096]).is_ok() || filler.write_all(b"f").is_ok() {}
        logs.iter().all(says_so) && health.iter().all(is_empty)
    });
    let begun = Instant::now();
    wait_until("many looks were taken", || begun.elapsed().as_secs() >= 4 || !alive(pid));
    assert_eq!(holder_of_lock(), Some(pid));
    filler.set_len(0).unwrap();
    wait_until("both hearts beat again", || !health.iter().any(is_empty));
    kill(pid, "STOP");
    wait_until("what is wrong is seen again", || !alive(pid));
}

/// Checks that TERM and INT in one turn of the loop are one stop. They were once a stop and
/// its repetition: the services were killed at once.
///
/// Mended in a84b215.
#[test]
fn two_signals_at_once_are_one_stop() {
    let dir = Supervised::new();
    dir.start_service("supervisor", &[]);
    dir.jobs_after(0);
    let supervisor = dir.lock_holder("zigsvc-supervisor.pid").unwrap();
    for signal in ["STOP", "TERM", "INT", "CONT"] {
        kill(supervisor, signal);
    }
    dir.wait_for("daemon stopped");
    assert!(!dir.read(LOG).contains("SIGKILL"), "{}", dir.read(LOG));
    assert!(dir.read("zigsvc.log").contains("daemon stopped"));
}

/// Checks a health file that was moved by a reload of `jobs` alone. It was once missing for
/// the supervisor, which ended the service again and again.
///
/// Mended in 887aba3.
#[test]
fn a_health_file_that_moved_is_followed() {
    let dir = Supervised::new();
    let options = "check_interval = \"300ms\"\nstale_after = \"1s\"\ninterval = \"250ms\"\n";
    dir.write("zigsvc.conf", options);
    dir.start_service("supervisor", &[]);
    let pid = dir.jobs_after(0);
    dir.write("zigsvc.conf", format!("{options}health_file = \"{}\"\n", dir.path("alive").display()));
    dir.zigsvc(&["reload"]).expect(0);
    dir.wait_for("heartbeat missing");
    dir.wait_for("well again");
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(pid));
    assert!(dir.path("zigsvc-supervisor.health").exists());
    kill(pid, "STOP");
    dir.wait_for("heartbeat stale");
}
