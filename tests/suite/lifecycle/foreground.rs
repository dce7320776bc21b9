//! `run`: the service in the foreground, for an init system or a terminal.

use crate::support::foreground::{run_command, seq};
use crate::support::{Dir, Running, by_shell, kill, read_aside, require_native, wait_until};
use std::fs;
use std::io::pipe;
use std::process::Stdio;

#[test]
fn the_log_goes_to_stderr_and_term_ends_it_with_0() {
    let dir = Dir::new();
    let (stderr, writer) = pipe().unwrap();
    let (stdout, out_writer) = pipe().unwrap();
    let mut command = run_command(&dir, &["log_time=none"]);
    command.stderr(writer).stdout(out_writer);
    let mut running = Running::new(command);
    let (stderr, stdout) = (read_aside(stderr), read_aside(stdout));
    wait_until("it runs", || dir.zigsvc(&["status"]).code == 0);
    let pid = dir.lock_holder("zigsvc.pid").unwrap();
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/"));
    dir.append("queue", "a job\n");
    wait_until("the queue was taken", || !dir.path("queue").exists());
    kill(pid, "TERM");
    assert_eq!(running.code(), 0);
    let log = stderr.recv().unwrap();
    assert!(log.starts_with(&format!("[INFO] daemon started, pid={pid}\n")), "{log}");
    assert!(log.contains("[INFO] SIGTERM received, stopping\n"), "{log}");
    assert!(log.ends_with(" total jobs\n"), "{log}");
    assert_eq!(stdout.recv().unwrap(), "");
    assert!(!dir.path("zigsvc.log").exists());
    assert!(!dir.path("zigsvc.pid").exists());
}

#[test]
fn a_log_file_that_is_named_gets_the_log_too() {
    let dir = Dir::new();
    let (stderr, writer) = pipe().unwrap();
    let file = format!("log_file={}", dir.path("own.log").display());
    let mut command = run_command(&dir, &[&file]);
    command.stderr(writer);
    let mut running = Running::new(command);
    let stderr = read_aside(stderr);
    wait_until("it runs", || dir.zigsvc(&["status"]).code == 0);
    dir.zigsvc(&["stop"]).expect(0);
    assert_eq!(running.code(), 0);
    let log = stderr.recv().unwrap();
    assert!(log.contains("daemon stopped"), "{log}");
    assert_eq!(dir.read("own.log"), log);
}

#[test]
fn ready_fd_gets_one_newline_when_it_is_ready_and_is_closed() {
    let dir = Dir::new();
    let (ready, writer) = pipe().unwrap();
    let mut command = run_command(&dir, &[]);
    command.args(["--ready-fd", "7"]);
    // The test's pipe arrives as standard output, and the script moves it to 7.
    let mut command = by_shell("exec \"$@\" 7>&1 >/dev/null", &command);
    command.stdout(writer).stderr(Stdio::null());
    let running = Running::new(command);
    let text = read_aside(ready).recv_timeout(std::time::Duration::from_secs(90)).unwrap();
    assert_eq!(text, "\n");
    dir.zigsvc(&["status"]).expect(0);
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(running.0.id()));
}

#[test]
fn ready_fd_of_a_start_that_fails_gets_nothing() {
    let dir = Dir::new();
    dir.write("file", "");
    let (ready, writer) = pipe().unwrap();
    let mut command = run_command(&dir, &[&format!("spool={}", dir.path("file").display())]);
    command.args(["--ready-fd", "7"]);
    let mut command = by_shell("exec \"$@\" 7>&1 >/dev/null", &command);
    command.stdout(writer).stderr(Stdio::null());
    let mut running = Running::new(command);
    assert_eq!(running.code(), 1);
    drop(running);
    assert_eq!(read_aside(ready).recv().unwrap(), "");
}

#[test]
fn a_bad_ready_fd_is_a_usage_error() {
    let dir = Dir::new();
    for words in [&["99"][..], &["2"], &["-1"], &["x"], &["99999999999"], &[]] {
        let ran = dir.zigsvc(&[&["run", "--ready-fd"], words].concat()).expect(2);
        assert!(ran.err.starts_with("zigsvc: usage: --ready-fd"), "{words:?}: {ran:?}");
        assert!(ran.err.ends_with("see `zigsvc help run`\n"), "{words:?}: {ran:?}");
    }
    assert!(!dir.path("zigsvc.pid").exists());
}

#[test]
fn a_stderr_that_nobody_reads_stalls_nothing() {
    let dir = Dir::new();
    let (reader, writer) = pipe().unwrap();
    let mut command = run_command(&dir, &["interval=100ms", "retries=0"]);
    command.stderr(writer);
    let mut running = Running::new(command);
    wait_until("it runs", || dir.zigsvc(&["status"]).code == 0);
    // Five times what a pipe holds.
    let line = format!("{}\n", "x".repeat(1000));
    dir.append("queue", &line.repeat(400));
    wait_until("the queue was taken", || !dir.path("queue").exists());
    let mut before = seq(&dir);
    wait_until("the pipe is full and the heart beats on", || seq(&dir) >= before + 5);
    // A reload that has to warn may not wait for a reader either.
    dir.write("zigsvc.conf", "handler = \"/no/such/handler\"\n");
    let pid = running.0.id();
    before = seq(&dir);
    for signal in ["HUP", "USR2", "HUP"] {
        kill(pid, signal);
        wait_until("the heart beats on", || seq(&dir) >= before + 3);
        before = seq(&dir);
    }
    if require_native("/proc shows QEMU's own process") {
        let flags = fs::read_to_string(format!("/proc/{pid}/fdinfo/2")).unwrap();
        let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim().to_owned();
        assert_eq!(u32::from_str_radix(&flags, 8).unwrap() & 0o4000, 0, "O_NONBLOCK was set on our stderr");
    }
    // It comes back when a process reads.
    let text = read_aside(reader);
    wait_until("it works on", || seq(&dir) >= before + 2);
    kill(pid, "TERM");
    assert_eq!(running.code(), 0);
    let text = text.recv().unwrap();
    assert!(text.len() > 30_000, "the pipe was not full: {}", text.len());
    assert!(text.contains("daemon stopped"));
}

#[test]
fn jobs_end_while_stderr_takes_nothing_and_the_lines_are_counted() {
    for handler in ["log", "shell"] {
        let dir = Dir::new();
        let (reader, writer) = pipe().unwrap();
        let mut command = run_command(&dir, &["interval=100ms", &format!("handler={handler}")]);
        command.stderr(writer);
        let mut running = Running::new(command);
        wait_until("it runs", || dir.zigsvc(&["status"]).code == 0);
        let count = if handler == "log" { 3000 } else { 100 };
        dir.append("queue", &format!(": {}\n", "x".repeat(900)).repeat(count));
        let value = |name: &str| crate::support::control::status(&dir, name);
        wait_until("all jobs have ended", || value("jobs") == count as u64);
        assert_eq!(crate::support::control::status_word(&dir, "degraded"), "log");
        let lost = value("log_lost");
        assert!(lost > 0);
        // The state goes when a process reads, although there is nothing to log.
        let text = read_aside(reader);
        wait_until("the state goes", || crate::support::control::status_word(&dir, "degraded") == "none");
        kill(running.0.id(), "TERM");
        assert_eq!(running.code(), 0);
        let text = text.recv().unwrap();
        assert!(text.contains(" log lines lost\n") && text.contains("the log is written again"), "{lost}");
        assert!(text.lines().all(|line| line.starts_with('[')), "a torn line");
    }
}

#[test]
fn a_stderr_whose_reader_is_gone_or_that_is_closed_ends_nothing() {
    let dir = Dir::new();
    let (reader, writer) = pipe().unwrap();
    let mut gone = run_command(&dir, &["interval=100ms", "syslog=false"]);
    gone.stderr(writer);
    let closed = by_shell("exec \"$@\" <&- >&- 2>&-", &run_command(&dir, &["interval=100ms"]));
    drop(reader);
    for command in [gone, closed] {
        let mut running = Running::new(command);
        wait_until("it runs", || dir.zigsvc(&["status"]).code == 0);
        kill(running.0.id(), "USR2");
        dir.append("queue", "a job\n");
        let before = seq(&dir);
        wait_until("the heart beats on", || seq(&dir) >= before + 3);
        kill(running.0.id(), "TERM");
        assert_eq!(running.code(), 0);
    }
}

#[test]
fn start_and_run_know_each_other() {
    let dir = Dir::new();
    let mut running = Running::new(run_command(&dir, &[]));
    wait_until("it runs", || dir.zigsvc(&["status"]).code == 0);
    let pid = running.0.id();
    let ran = dir.zigsvc(&["start"]).expect(1);
    assert_eq!(ran.err, format!("zigsvc: another instance is already running (pid {pid})\n"));
    dir.zigsvc(&["reload"]).expect(0);
    dir.zigsvc(&["stop"]).expect(0);
    assert_eq!(running.code(), 0);
}
