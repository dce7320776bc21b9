//! How jobs end: `list done`, `wait` after a restart, the output of jobs as it comes, JSON, words
//! that stay words, and the handler that is named.

use crate::support::control::{Client, start_script, status};
use crate::support::{Dir, alive, kill, kill_hard, proc_status, setting, wait_for_log, wait_until};
use std::process::Stdio;
use zigsvc::limits::RESULTS_KEPT;

/// Starts the service with the shell as its handler.
fn start_shell(dir: &Dir, options: &[&str]) -> u32 {
    dir.start(&[&["handler=shell", "retries=0", "log_max=0"], options].concat())
}

#[test]
fn the_last_ends_are_listed_with_status_and_text_and_outlive_a_kill_and_a_compaction() {
    let dir = Dir::new();
    let pid = start_shell(&dir, &[]);
    dir.zigsvc(&["queue", "--wait", "exit 3"]).expect(3);
    dir.zigsvc(&["queue", "--wait", "true"]).expect(0);
    let sleeper = dir.zigsvc(&["queue", "sleep 1000"]).expect(0).out;
    wait_for_log(&dir, "job 3 started");
    dir.zigsvc(&["queue", "never"]).expect(0);
    dir.zigsvc(&["cancel", "4"]).expect(0);
    dir.zigsvc(&["cancel", sleeper.trim()]).expect(0);
    dir.zigsvc(&["wait", "3"]).expect(143);
    let listed = dir.zigsvc(&["list", "done"]).expect(0).out;
    let ends: Vec<Vec<&str>> = listed.lines().map(|line| line.splitn(6, ' ').collect()).collect();
    let shown: Vec<_> = ends.iter().map(|end| (end[0], end[1], end[2], end[3], end[5])).collect();
    assert_eq!(
        shown,
        [
            ("1", "dead", "1", "3", "exit 3"),
            ("2", "done", "1", "0", "true"),
            ("4", "cancelled", "0", "143", "never"),
            ("3", "cancelled", "1", "143", "sleep 1000"),
        ]
    );
    assert!(ends.iter().all(|end| end[4].parse::<u64>().is_ok()), "{listed}");
    // The protocol names both numbers.
    let mut client = Client::new(&dir);
    let lines = client.ask_list("list done");
    assert!(lines[1].starts_with("2 done 1 exit=0 ms=") && lines[1].ends_with(" true"), "{lines:?}");
    assert_eq!(client.ask_list("list done 3").len(), 1, "after an id");
    kill_hard(pid);
    wait_until("it is gone", || !alive(pid));
    start_shell(&dir, &[]);
    assert_eq!(dir.zigsvc(&["list", "done"]).expect(0).out, listed);
    for (id, code) in [("1", 3), ("2", 0), ("3", 143), ("4", 143), ("5", 125), ("999", 125)] {
        dir.zigsvc(&["wait", id]).expect(code);
    }
    // A dead job that is forgotten has no result any more, though it is in the list.
    dir.zigsvc(&["forget", "dead"]).expect(0);
    dir.zigsvc(&["wait", "1"]).expect(125);
    dir.zigsvc(&["wait", "2"]).expect(0);
    assert_eq!(dir.zigsvc(&["list", "done"]).expect(0).out, listed, "the journal was written again");
}

#[test]
fn only_the_last_ends_are_listed_oldest_first() {
    let dir = Dir::new();
    dir.start(&["log_max=0"]);
    let mut client = Client::new(&dir);
    let texts: Vec<String> = (1..=RESULTS_KEPT + 20).map(|number| format!("job {number}")).collect();
    client.queue_all(&texts);
    wait_until("all have ended", || client.status("jobs") == texts.len() as u64);
    let listed = client.ask_list("list done");
    let ids: Vec<u64> = listed.iter().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(ids, (21..=texts.len() as u64).collect::<Vec<_>>());
    assert!(listed[0].ends_with(" job 21"), "{listed:?}");
}

#[test]
fn json_is_one_object_a_line_with_the_same_members() {
    let dir = Dir::new();
    start_shell(&dir, &[]);
    let events = dir.command().args(["watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut watched = crate::support::Running(events);
    wait_until("it watches", || crate::support::control::status(&dir, "clients") >= 2);
    let text = "echo \"a\\b\t\u{e9}\"; exit 2";
    dir.zigsvc(&["queue", "--wait", text]).expect(2);
    let parsed = |text: &str| -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let members = |value: &serde_json::Value| -> Vec<String> {
        let mut names: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        names.sort();
        names
    };
    let all = ["attempt", "due", "exit", "id", "ms", "state", "text"];
    for (words, state, exit) in [
        (&["list", "--json"][..], "dead", serde_json::Value::Null),
        (&["list", "--json", "dead"], "dead", serde_json::Value::Null),
        (&["list", "--json", "done"], "dead", 2.into()),
    ] {
        let rows = parsed(&dir.zigsvc(words).expect(0).out);
        assert_eq!(rows.len(), 1, "{words:?}");
        let row = &rows[0];
        assert_eq!(members(row), all);
        assert_eq!((&row["id"], &row["state"], &row["attempt"]), (&1.into(), &state.into(), &1.into()));
        assert_eq!(
            (&row["exit"], &row["text"], &row["due"]),
            (&exit, &text.into(), &serde_json::Value::Null)
        );
    }
    dir.zigsvc(&["stop"]).expect(0);
    let mut out = String::new();
    std::io::Read::read_to_string(watched.0.stdout.as_mut().unwrap(), &mut out).unwrap();
    assert_eq!(watched.code(), 0);
    let events = parsed(&out);
    let states: Vec<&str> = events.iter().map(|event| event["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["started", "dead"], "{out}");
    assert!(events.iter().all(|event| members(event) == all && event["text"] == text), "{out}");
}

#[test]
fn events_carry_the_text_in_one_line() {
    let dir = Dir::new();
    start_shell(&dir, &[]);
    let mut watcher = Client::new(&dir);
    assert_eq!(watcher.ask("watch"), "ok");
    let long = "x".repeat(1000);
    let mut client = Client::new(&dir);
    client.queue("true a\\b \u{1}");
    assert!(watcher.line().ends_with(" state=started exit=0 ms=0 attempt=1 text=true a\\x5cb \\x01"));
    assert!(watcher.line().ends_with(" attempt=1 text=true a\\x5cb \\x01"));
    client.queue(&format!(": {}", &long[2..]));
    assert!(watcher.line().ends_with(&long[2..]));
    assert!(watcher.line().ends_with(&long[2..]));
    client.queue(&format!(": {}", "\u{2}".repeat(900)));
    let cut = watcher.line();
    assert!(cut.ends_with("\\x0…") && cut.len() < 1280, "{cut}");
}

#[test]
fn the_output_of_all_attempts_comes_to_stdout_and_the_id_to_stderr() {
    let dir = Dir::new();
    dir.start(&["handler=shell", "retries=1", "retry_delay=0", "log_max=0"]);
    let ran = dir.zigsvc(&["queue", "--wait", "echo try $ZIGSVC_ATTEMPT; printf 'no end'; exit 4"]).expect(4);
    assert_eq!(ran.out, "try 1\nno endtry 2\nno end");
    assert_eq!(ran.err, "1\n");
    // Bytes arrive as they are, and a long line is one line.
    let script = "printf 'a\\\\x41\\t\\001\\377'; echo; head -c 70000 /dev/zero | tr '\\000' y; echo";
    let mut command = dir.command();
    command.args(["queue", "--wait", script]);
    let output = command.output().unwrap();
    let long = [b"a\\x41\t\x01\xff\n".as_slice(), &[b'y'; 70_000], b"\n"].concat();
    if !String::from_utf8_lossy(&output.stderr).contains("missing") {
        assert_eq!(output.stdout.len(), long.len());
        assert_eq!(output.stdout, long);
    }
}

#[test]
fn a_job_that_waits_runs_or_has_ended_can_be_followed() {
    let dir = Dir::new();
    start_shell(&dir, &[]);
    let gate = dir.path("gate");
    let script =
        format!("echo begun; while ! [ -e '{}' ]; do sleep 0.05; done; echo open; exit 5", gate.display());
    let mut first = Client::new(&dir);
    first.send(format!("queue! {script}\n"));
    assert_eq!((first.line(), first.line()), ("ok id=1".to_owned(), "out begun".to_owned()));
    let (mut second, mut third) = (Client::new(&dir), Client::new(&dir));
    second.send("follow 1\n");
    third.send("queue! echo after\n");
    assert_eq!(third.line(), "ok id=2");
    wait_until("all three wait", || crate::support::control::status(&dir, "clients") == 4);
    dir.write("gate", "");
    for client in [&mut first, &mut second] {
        assert_eq!(client.line(), "out open");
        assert_eq!(client.line(), "ok id=1 state=dead exit=5");
        assert!(client.ask("status").starts_with("ok pid="), "the connection goes on");
    }
    assert_eq!(
        (third.line(), third.line()),
        ("out after".to_owned(), "ok id=2 state=done exit=0".to_owned())
    );
    // Of a job that has ended only its result is left.
    assert_eq!(third.ask("follow 1"), "ok id=1 state=dead exit=5");
    assert!(third.ask("follow 99").starts_with("err no-job "));
    assert!(third.ask("follow x").starts_with("err bad-request "));
    assert!(third.ask("queue!").starts_with("err bad-request "));
    dir.zigsvc(&["wait", "1"]).expect(5);
    dir.zigsvc(&["wait", "x"]).expect(2);
    dir.zigsvc(&["wait"]).expect(2);
}

#[test]
fn a_follower_that_reads_nothing_or_dies_holds_up_neither_the_job_nor_others() {
    let dir = Dir::new();
    let pid = start_shell(&dir, &[]);
    let mut slow = Client::new(&dir);
    let size = 2_000_000;
    slow.send(format!("queue! head -c {size} /dev/zero | tr '\\000' '\\n'\n"));
    assert_eq!(slow.line(), "ok id=1");
    let mut dies = Client::new(&dir);
    dies.send("follow 1\n");
    drop(dies);
    let ran = dir.zigsvc(&["queue", "--wait", "echo next"]).expect(0);
    assert_eq!(ran.out, "next\n");
    dir.zigsvc(&["wait", "1"]).expect(0);
    // The number of lines that it has missed came to it, and its result.
    let (mut seen, mut lost) = (0u64, 0);
    let result = loop {
        let line = slow.line();
        match line.split_once(' ') {
            Some(("out", "")) => seen += 1,
            Some(("lost", count)) => lost += count.parse::<u64>().unwrap(),
            _ => break line,
        }
    };
    assert_eq!((result.as_str(), seen + lost), ("ok id=1 state=done exit=0", size), "{lost} lost");
    assert!(lost > 0 && alive(pid));
}

#[test]
fn output_keeps_its_bytes_and_needs_no_newline() {
    let dir = Dir::new();
    start_shell(&dir, &[]);
    for (script, bytes) in [
        ("printf 'a\\000b\\377c\\033'", &b"a\0b\xffc\x1b"[..]),
        ("printf '\\\\x41 \\\\'", b"\\x41 \\"),
        ("printf 'one\\r\\ntwo\\rthree'", b"one\ntwo\nthree"),
        ("printf '\\n\\n'", b"\n\n"),
        ("true", b""),
    ] {
        let mut command = dir.command();
        command.args(["queue", "--wait", script]);
        let output = command.output().unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), bytes), "{script}");
    }
    // A long line without an end comes in parts, and whole.
    let mut command = dir.command();
    let script = "for part in 1 2 3 4 5; do head -c 900 /dev/zero; sleep 0.2; done";
    command.args(["queue", "--wait", script]);
    let output = command.output().unwrap();
    assert!(output.stdout == vec![0; 4500], "{} bytes", output.stdout.len());
}

/// Checks that the service answers while a job writes without a newline, and that its memory does
/// not grow. `ZIGSVC_OUTPUT_MB` (20) is the length of the output.
#[test]
fn binary_output_without_a_newline_delays_nothing_and_takes_no_memory() {
    let dir = Dir::new();
    let pid = dir.start(&["handler=shell", "retries=0", "log_max=1m", "workers=2"]);
    let megabytes = setting("ZIGSVC_OUTPUT_MB", 20);
    let before = dir.zigsvc(&["queue", "--wait", "echo warm"]).expect(0);
    assert_eq!(before.out, "warm\n");
    let resident = || proc_status(pid, "VmRSS").trim_end_matches(" kB").trim().parse::<u64>().unwrap();
    let (first, mut waiter) = (resident(), Client::new(&dir));
    waiter.send(format!("queue! head -c {megabytes}000000 /dev/zero; exit 4\n"));
    assert_eq!(waiter.line(), "ok id=2");
    wait_for_log(&dir, "job 2 started");
    let ran = dir.zigsvc(&["queue", "--wait", "echo meanwhile"]).expect(0);
    assert_eq!(ran.out, "meanwhile\n");
    dir.zigsvc(&["wait", "2"]).expect(4);
    assert!(resident() < first + 400, "{first} KiB, then {} KiB", resident());
    assert!(status(&dir, "log_replaced") > 0, "what the log has thrown away is counted");
    let status = dir.zigsvc(&["status"]).expect(0).out;
    assert!(status.contains(" threw old lines away"), "{status}");
}

#[test]
fn a_waiter_finds_its_job_again_after_a_restart() {
    let dir = Dir::new();
    let pid = start_shell(&dir, &[]);
    let waiter =
        dir.command().args(["queue", "--wait", "sleep 1; echo ran; exit 6"]).stdout(Stdio::piped()).spawn();
    let waiter = waiter.unwrap();
    wait_for_log(&dir, "job 1 started");
    kill_hard(pid);
    wait_until("it is gone", || !alive(pid));
    start_shell(&dir, &[]);
    let output = waiter.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(6), b"ran\n".as_slice()));
}

#[test]
fn several_words_stay_words_for_the_shell_and_one_is_a_command_line() {
    let dir = Dir::new();
    start_shell(&dir, &[]);
    let show = dir.path("show");
    dir.write_executable("show", "#!/bin/sh\nfor word; do echo \"<$word>\"; done\n");
    let show = show.to_str().unwrap();
    let ran = dir.zigsvc(&["queue", "--wait", show, "two words", "", "$HOME", "it's", "a;b", "*"]).expect(0);
    assert_eq!(ran.out, "<two words>\n<>\n<$HOME>\n<it's>\n<a;b>\n<*>\n");
    let ran = dir.zigsvc(&["queue", "--wait", &format!("{show} two words; echo $((1 + 1))")]).expect(0);
    assert_eq!(ran.out, "<two>\n<words>\n2\n");
    // An assignment and a reserved word are names of programs when they are words of their own.
    dir.zigsvc(&["queue", "--wait", "if", "true"]).expect(127);
    // Any other handler gets the words as they are.
    let other = Dir::new();
    start_script(&other, "printf '%s\\n' \"$1\"\n", &["retries=0"]);
    let ran = other.zigsvc(&["queue", "--wait", "two words", "a;b"]).expect(0);
    assert_eq!(ran.out, "two words a;b\n");
}

#[test]
fn start_and_status_name_the_handler_and_say_if_jobs_are_only_logged() {
    for (handler, named) in [("shell", "shell"), ("log", "log: jobs are logged and nothing runs")] {
        let dir = Dir::new();
        let ran = dir.zigsvc(&["-o", &format!("handler={handler}"), "start"]).expect(0);
        let lines: Vec<&str> = ran.out.lines().collect();
        assert!(lines[0].starts_with("zigsvc: jobs started (pid "), "{lines:?}");
        assert!(lines[1].starts_with(&format!("zigsvc: handler {named}")) && lines.len() == 2, "{lines:?}");
        let status = dir.zigsvc(&["status"]).expect(0).out;
        assert!(status.contains(&format!("  handler    {named}")), "{status}");
        assert_eq!(crate::support::control::status_word(&dir, "handler"), handler);
        dir.zigsvc(&["stop"]).expect(0);
    }
}

#[test]
fn a_job_that_waits_for_itself_is_refused() {
    let dir = Dir::new();
    start_shell(&dir, &[]);
    let me = format!("{} -d {} wait $ZIGSVC_JOB_ID", env!("CARGO_BIN_EXE_zigsvc"), dir.as_arg());
    if crate::support::require_self_exec() {
        let ran = dir.zigsvc(&["queue", "--wait", &me]).expect(125);
        assert_eq!(ran.out, "zigsvc: wait: would wait for itself\n");
    }
    let pid = dir.lock_holder("zigsvc.pid").unwrap();
    kill(pid, "TERM");
    wait_until("it is gone", || !alive(pid));
    dir.zigsvc(&["wait", "1"]).expect(125);
}

#[test]
fn the_log_takes_no_jobs_that_were_queued_for_another_handler() {
    let dir = Dir::new();
    let waiting = |dir: &Dir| dir.zigsvc(&["list", "waiting"]).expect(0).out;
    let what = "jobs were queued for another handler, and log would only log them; ";
    dir.write("zigsvc.conf", "handler = \"shell\"\nlog_max = \"0\"\nretries = 0\n");
    let pid = dir.start(&[]);
    dir.zigsvc(&["queue", "sleep 1000"]).expect(0);
    wait_for_log(&dir, "job 1 started");
    dir.zigsvc(&["queue", "echo later"]).expect(0);
    // A reload is refused by the command, and by the service where only HUP comes.
    dir.write("zigsvc.conf", "handler = \"log\"\nlog_max = \"0\"\nretries = 0\n");
    for command in ["reload", "restart"] {
        let ran = dir.zigsvc(&[command]).expect(6);
        assert!(ran.err.starts_with("zigsvc: handler: 2 waiting ") && ran.err.contains(what), "{ran:?}");
    }
    kill(pid, "HUP");
    wait_for_log(&dir, "config not reloaded, the old one stays: handler: 2 waiting ");
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(pid), "the running service stays as it is");
    assert_eq!(crate::support::control::status_word(&dir, "handler"), "shell");
    dir.zigsvc(&["stop"]).expect(0);
    // So is a start, until it is said that they may be logged.
    let ran = dir.zigsvc(&["start"]).expect(6);
    assert!(ran.err.contains(&format!("handler: 2 waiting {what}set handler to what it was")), "{ran:?}");
    dir.write("zigsvc.conf", "handler = \"log\"\ntake = \"all\"\n");
    let ran = dir.zigsvc(&["start"]).expect(6);
    assert!(ran.err.contains("take: it is only for the command line"), "{ran:?}");
    dir.write("zigsvc.conf", "handler = \"log\"\nlog_max = \"0\"\n");
    dir.start(&["take=all"]);
    wait_for_log(&dir, "processing job: echo later\n");
    wait_until("none waits", || waiting(&dir).is_empty());
    dir.zigsvc(&["stop"]).expect(0);
    dir.start(&[]);
}

#[test]
fn a_dead_job_of_another_handler_waits_for_it_and_the_state_says_so() {
    let dir = Dir::new();
    start_shell(&dir, &[]);
    dir.zigsvc(&["queue", "--wait", "exit 1"]).expect(1);
    dir.zigsvc(&["stop"]).expect(0);
    dir.start(&["log_max=0"]);
    dir.zigsvc(&["retry", "1"]).expect(0);
    let degraded = || crate::support::control::status_word(&dir, "degraded");
    wait_until("the state says why it waits", || degraded() == "handler");
    dir.zigsvc(&["queue", "--wait", "for the log"]).expect(0);
    assert_eq!(dir.zigsvc(&["list"]).expect(0).out, "1 waiting 1 exit 1\n");
    dir.zigsvc(&["cancel", "1"]).expect(0);
    wait_until("the state ends", || degraded() == "none");
    assert!(
        !dir.read("zigsvc.log").contains("processing job: exit 1\n[")
            || dir.read("zigsvc.log").matches("processing job: exit 1").count() == 1
    );
}
