//! The commands about programs: start, stop, restart, reload, signal, status.

use crate::support::control::{Client, field};
use crate::support::supervisor::{LOG, QUICK, Supervised};
use crate::support::{Dir, Ran, alive, kill_hard, process_state, require_native, wait_until};
use std::fs;
use std::os::unix::net::UnixStream;

/// A program that runs until it gets a signal.
const SLEEPS: &str = "command = [\"/bin/sleep\", \"600\"]\n";

/// Returns the folder with the files of programs, and no supervisor.
fn board(programs: &[(&str, &str)]) -> Option<Supervised> {
    let dir = Supervised::of_services()?;
    fs::create_dir(dir.path("programs")).unwrap();
    for (name, text) in programs {
        dir.write(&format!("programs/{name}.conf"), text);
    }
    let names: Vec<_> = programs.iter().map(|(name, _)| *name).collect();
    dir.write("zigsvc.conf", format!("supervise = {names:?}\n"));
    Some(dir)
}

/// Returns the line of a program.
#[track_caller]
fn line(dir: &Dir, name: &str) -> String {
    let stream = UnixStream::connect(dir.path("zigsvc-supervisor.sock")).unwrap();
    Client::over(stream).ask(&format!("status {name}"))
}

/// Returns the PID of a program that runs.
#[track_caller]
fn pid(dir: &Dir, name: &str) -> u32 {
    let mut pid = 0;
    wait_until(&format!("{name} runs"), || {
        let line = line(dir, name);
        let runs = field(&line, "state") == "running";
        pid = if runs { field(&line, "pid").parse().unwrap() } else { 0 };
        runs
    });
    pid
}

/// Insists that the command prints this error and nothing else.
#[track_caller]
fn fails(ran: Ran, code: i32, text: &str) {
    let ran = ran.expect(code);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", format!("zigsvc: {text}\n").as_str()));
}

#[test]
fn a_program_is_started_stopped_restarted_and_signalled_by_its_name() {
    let reloads = "command = [\"/bin/sh\", \"-c\", \"trap 'echo again' HUP; while :; do sleep 0.1; done\"]\n\
                   reload_signal = \"HUP\"\n";
    let Some(dir) = board(&[("poller", SLEEPS), ("reader.x_1-2", reloads)]) else { return };
    dir.start_supervisor(QUICK);
    let first = pid(&dir, "poller");
    fails(dir.zigsvc(&["start", "poller"]), 1, &format!("another instance is already running (pid {first})"));
    assert_eq!(dir.zigsvc(&["stop", "poller"]).expect(0).out, "zigsvc: poller stopped\n");
    assert!(!alive(first));
    assert_eq!(dir.zigsvc(&["stop", "poller"]).expect(0).out, "zigsvc: poller was not running\n");
    dir.zigsvc(&["status", "poller"]).expect(3);
    fails(dir.zigsvc(&["signal", "poller", "HUP"]), 7, "signal: it does not run (not-running)");
    let out = dir.zigsvc(&["start", "poller"]).expect(0).out;
    let second = pid(&dir, "poller");
    assert_eq!(out, format!("zigsvc: poller started (pid {second})\n"));
    let out = dir.zigsvc(&["restart", "poller"]).expect(0).out;
    let third = pid(&dir, "poller");
    assert!(third != second && !alive(second));
    assert_eq!(out, format!("zigsvc: poller started (pid {third})\n"));
    // A restart starts one that does not run, and forgets the stop.
    dir.zigsvc(&["stop", "poller"]).expect(0);
    assert!(dir.path("zigsvc-poller.down").exists());
    dir.zigsvc(&["restart", "poller"]).expect(0);
    assert!(!dir.path("zigsvc-poller.down").exists());
    let fourth = pid(&dir, "poller");
    dir.zigsvc(&["signal", "poller", "STOP"]).expect(0);
    wait_until("it stands still", || process_state(fourth) == Some('T'));
    // A program that stands still is stopped all the same.
    dir.zigsvc(&["stop", "poller"]).expect(0);
    fails(dir.zigsvc(&["reload", "poller"]), 1, "reload: its file has no reload_signal (refused)");
    let reader = pid(&dir, "reader.x_1-2");
    dir.zigsvc(&["reload", "reader.x_1-2"]).expect(0);
    wait_until("it has got its signal", || dir.read("zigsvc-reader.x_1-2.log").contains("] again\n"));
    assert_eq!(pid(&dir, "reader.x_1-2"), reader);
    assert!(dir.zigsvc(&["stop", "reader.x_1-2"]).expect(0).out.contains("reader.x_1-2 stopped"));
    fails(
        dir.zigsvc(&["start", "pollr"]),
        2,
        "usage: unknown service \"pollr\"; known are jobs hub opener collector supervisor, and the programs in \
         supervise; see `zigsvc help start`",
    );
    dir.zigsvc(&["start", "poller", "--", "x"]).expect(2);
    assert_eq!(dir.read(LOG).matches("SIGKILL").count(), 0);
}

#[test]
fn a_program_that_ignores_its_signal_is_killed_at_once_if_asked() {
    let stubborn =
        "command = [\"/bin/sh\", \"-c\", \"trap '' TERM; echo deaf; while :; do sleep 0.1; done\"]\n";
    let Some(dir) = board(&[("stubborn", &format!("{stubborn}stop_timeout = \"300ms\"\n"))]) else { return };
    dir.start_supervisor(QUICK);
    let deaf = |count| {
        wait_until("it is deaf", || dir.read("zigsvc-stubborn.log").matches("] deaf\n").count() == count);
    };
    deaf(1);
    assert_eq!(dir.zigsvc(&["stop", "stubborn"]).expect(0).out, "zigsvc: stubborn killed\n");
    dir.write("programs/stubborn.conf", format!("{stubborn}stop_timeout = \"1h\"\n"));
    dir.zigsvc(&["start", "stubborn"]).expect(0);
    deaf(2);
    assert_eq!(dir.zigsvc(&["stop", "--now", "stubborn"]).expect(0).out, "zigsvc: stubborn killed\n");
    assert_eq!(field(&line(&dir, "stubborn"), "signal"), "9");
}

#[test]
fn a_stop_on_purpose_outlives_the_supervisor() {
    let Some(dir) = board(&[("poller", SLEEPS), ("other", SLEEPS)]) else { return };
    let first = dir.start_supervisor(QUICK);
    pid(&dir, "other");
    dir.zigsvc(&["stop", "poller"]).expect(0);
    kill_hard(first);
    wait_until("it is gone", || !alive(first));
    dir.start_supervisor(QUICK);
    pid(&dir, "other");
    assert_eq!(field(&line(&dir, "poller"), "state"), "stopped");
    dir.zigsvc(&["restart", "supervisor"]).expect(0);
    pid(&dir, "other");
    assert_eq!(field(&line(&dir, "poller"), "state"), "stopped");
    dir.zigsvc(&["start", "poller"]).expect(0);
    dir.zigsvc(&["restart", "supervisor"]).expect(0);
    pid(&dir, "poller");
}

#[test]
fn what_cannot_be_executed_is_named_and_takes_no_board_down() {
    if !require_native("there execve(2) starts QEMU, which fails later") {
        return;
    }
    let Some(dir) = board(&[("poller", SLEEPS), ("absent", ""), ("plain", ""), ("wrong", "")]) else {
        return;
    };
    for name in ["absent", "plain", "wrong"] {
        let command = dir.path(name);
        dir.write(&format!("programs/{name}.conf"), format!("command = [\"{}\"]\n", command.display()));
    }
    dir.write("plain", "no program\n");
    dir.write_executable("wrong", "\x7fELF, and no more");
    let mut command = dir.command();
    for option in QUICK {
        command.args(["-o", option]);
    }
    command.args(["start", "supervisor"]);
    let ran = crate::support::finish(command, None).expect(0);
    for name in ["absent", "plain", "wrong"] {
        assert!(ran.err.contains(&format!("zigsvc: {name}: cannot be started: ")), "{name}: {}", ran.err);
    }
    let running = pid(&dir, "poller");
    let path = |name: &str| dir.path(name).display().to_string();
    for (name, why) in
        [("absent", "execve: ENOENT"), ("plain", "execve: EACCES"), ("wrong", "execve: ENOEXEC")]
    {
        dir.zigsvc(&["status", name]).expect(1);
        let ran = dir.zigsvc(&["start", name]).expect(1);
        let text = format!("zigsvc: {name}: cannot be started: {}: {why}", path(name));
        assert!(
            ran.out.is_empty() && ran.err.starts_with(&text) && ran.err.lines().count() == 1,
            "{}",
            ran.err
        );
        let ran = dir.zigsvc(&["restart", name]).expect(1);
        assert!(ran.err.starts_with(&text), "{}", ran.err);
    }
    let ran = dir.zigsvc(&["status", "--all", "--json"]).expect(1);
    assert_eq!(
        ran.out.matches("\"degraded\":[\"program\"]").count(),
        4,
        "three, and the supervisor: {}",
        ran.out
    );
    // When it is there, it is started without being asked for.
    dir.write_executable("absent", "#!/bin/sh\nexec sleep 600\n");
    pid(&dir, "absent");
    assert_eq!(pid(&dir, "poller"), running);
}

#[test]
fn a_start_waits_for_readiness_and_no_longer_than_the_file_says() {
    let script = |go: &str| {
        format!(
            "command = [\"/bin/sh\", \"-c\", \"until [ -e {go} ]; do sleep 0.05; done; echo >&3; exec sleep 600\"]\nready = \"fd\"\n"
        )
    };
    let Some(dir) = board(&[("slow", ""), ("next", ""), ("never", "")]) else { return };
    let go = dir.path("go").display().to_string();
    dir.write("programs/slow.conf", script(&go) + "start_timeout = \"300ms\"\n");
    dir.write("programs/next.conf", format!("{SLEEPS}after = [\"slow\"]\nstart_timeout = \"200ms\"\n"));
    dir.write("programs/never.conf", "command = [\"/bin/false\"]\nrestart = \"never\"\n");
    dir.start_supervisor(QUICK);
    wait_until("never has ended", || field(&line(&dir, "never"), "state") == "failed");
    dir.zigsvc(&["status", "never"]).expect(1);
    assert_eq!(field(&line(&dir, "next"), "state"), "blocked");
    dir.zigsvc(&["status", "next"]).expect(3);
    fails(dir.zigsvc(&["restart", "slow"]), 1, "slow: not ready within its start_timeout; it continues");
    fails(dir.zigsvc(&["start", "next"]), 1, "next: waits until those that `after` names are ready");
    assert_eq!(field(&line(&dir, "slow"), "degraded"), "program");
    dir.write("go", "");
    pid(&dir, "next");
    assert_eq!(field(&line(&dir, "slow"), "degraded"), "none");
    dir.zigsvc(&["restart", "slow"]).expect(0);
    dir.zigsvc(&["start", "never"]).expect(0);
}

#[test]
fn a_whole_board_fits_eighty_columns_and_pages() {
    let names: Vec<_> = (0..32).map(|number| format!("{number:02}-{}", "n".repeat(29))).collect();
    let programs: Vec<_> = names.iter().map(|name| (name.as_str(), SLEEPS)).collect();
    let Some(dir) = board(&programs) else { return };
    dir.start_supervisor(&[QUICK, &["check_interval=1h"]].concat());
    for name in &names {
        pid(&dir, name);
    }
    let ran = dir.zigsvc(&["status", "--all"]).expect(0);
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines.len(), 34, "{}", ran.out);
    for (line, name) in lines[2..].iter().zip(&names) {
        assert!(line.starts_with(name.as_str()) && line.contains(" running "), "{line}");
    }
    assert!(lines.iter().all(|line| line.len() <= 80), "{}", ran.out);
    let rows = dir.zigsvc(&["status", "--all", "--json"]).expect(0).out;
    assert_eq!(
        rows.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).count(),
        33
    );
    let stream = UnixStream::connect(dir.path("zigsvc-supervisor.sock")).unwrap();
    let mut client = Client::over(stream);
    let (mut listed, mut last) = (Vec::new(), String::new());
    loop {
        let page = client.ask_list(&format!("list {last}"));
        let Some(line) = page.last() else { break };
        last = field(&format!("ok {line}"), "name").to_owned();
        listed.extend(page);
    }
    assert_eq!(listed.len(), 32);
    assert!(client.ask("status").starts_with("ok "));
    let metrics = dir.zigsvc(&["status", "--all", "--prometheus"]).expect(0).out;
    assert_eq!(metrics.matches("zigsvc_up{").count(), 33);
    assert_eq!(metrics.matches("# HELP zigsvc_up ").count(), 1);
    // The line of the supervisor itself names as many as it holds, and ends as always.
    let out = dir.zigsvc(&["status", "supervisor"]).expect(0).out;
    assert!(out.contains(&names[0]) && out.ends_with("  degraded   none\n"), "{out}");
}

#[test]
fn a_newer_file_is_shown_until_the_restart() {
    let Some(dir) = board(&[("poller", SLEEPS)]) else { return };
    dir.start_supervisor(QUICK);
    let first = pid(&dir, "poller");
    let changed = || dir.zigsvc(&["status", "--json", "poller"]).expect(0).out.contains("\"changed\":true");
    assert!(!changed());
    dir.write("programs/poller.conf", "command = [\"/bin/sleep\", \"601\"]\n");
    assert!(changed());
    dir.zigsvc(&["reload", "supervisor"]).expect(0);
    wait_until("the reload is done", || dir.count("SIGHUP received") == 1);
    assert_eq!(pid(&dir, "poller"), first, "a reload restarts nothing");
    assert!(changed());
    dir.zigsvc(&["restart", "poller"]).expect(0);
    assert!(!changed());
}
