//! list, cancel, retry, forget, drain, watch.

use super::support::{Beside, GATED, Peer, Played, wait_for_begun};
use crate::support::control::{Client, start_script};
use crate::support::{
    Dir, Running, alive, by_shell, finish, kill, not_running, program, require_tool, wait_for_jobs,
    wait_until,
};
use std::io::Write as _;
use std::process::Stdio;

/// Starts a service with one dead job, one that runs, and two that wait.
#[track_caller]
fn start_with_all_states(dir: &Dir) -> u32 {
    let pid = start_script(dir, &format!("case $1 in bad*) exit 9;; esac\n{GATED}"), &["retries=0"]);
    for (number, job) in ["bad one", "runs", "waits  here", "last"].iter().enumerate() {
        assert_eq!(dir.zigsvc(&["queue", job]).expect(0).out, format!("{}\n", number + 1));
    }
    wait_for_begun(dir, "runs");
    pid
}

#[track_caller]
fn list(dir: &Dir, states: &[&str]) -> String {
    let ran = dir.zigsvc(&[&["list"], states].concat()).expect(0);
    assert_eq!(ran.err, "");
    ran.out
}

// ----- list --------------------------------------------------------------------

#[test]
fn an_empty_queue_is_an_empty_list() {
    let dir = Dir::new();
    dir.start(&[]);
    for states in [&[][..], &["waiting"], &["running"], &["dead"]] {
        assert_eq!(list(&dir, states), "");
    }
}

#[test]
fn jobs_are_listed_by_id_with_their_states_and_by_state() {
    let dir = Dir::new();
    start_with_all_states(&dir);
    let lines =
        ["1 dead 1 bad one\n", "2 running 1 runs\n", "3 waiting 0 waits  here\n", "4 waiting 0 last\n"];
    assert_eq!(list(&dir, &[]), lines.concat());
    assert_eq!(list(&dir, &["dead"]), lines[0]);
    assert_eq!(list(&dir, &["running"]), lines[1]);
    assert_eq!(list(&dir, &["waiting"]), lines[2..].concat());
    let ran = dir.zigsvc(&["list", "de\x1bad"]).expect(2);
    let known = "unknown state \"de\\x1bad\"; known are waiting, scheduled, running, dead, done; see `zigsvc help list`";
    assert_eq!((ran.out.as_str(), ran.err), ("", format!("zigsvc: usage: {known}\n")));
    dir.zigsvc(&["list", "dead", "1"]).expect(2);
}

#[test]
fn a_job_that_waits_for_its_next_attempt_is_listed_with_its_attempts() {
    let dir = Dir::new();
    start_script(&dir, "exit 1", &["retries=3", "retry_delay=1h"]);
    dir.zigsvc(&["queue", "again"]).expect(0);
    wait_until("its first attempt failed", || list(&dir, &["waiting"]) == "1 waiting 1 again\n");
}

#[test]
fn pages_of_many_jobs_are_one_list() {
    let dir = Dir::new();
    start_script(&dir, GATED, &[]);
    let jobs: Vec<String> = (1..=250).map(|number| format!("job {number} {}", "x".repeat(900))).collect();
    dir.zigsvc_with_input(&["queue", "-"], jobs.join("\n").as_bytes()).expect(0);
    wait_for_begun(&dir, &jobs[0]);
    let line = |number: usize| {
        let state = if number == 1 { "running 1" } else { "waiting 0" };
        format!("{number} {state} {}\n", jobs[number - 1])
    };
    assert_eq!(list(&dir, &[]), (1..=250).map(line).collect::<String>());
    assert_eq!(list(&dir, &["waiting"]), (2..=250).map(line).collect::<String>());
    // The last page is a full one.
    for id in 201..=250 {
        dir.zigsvc(&["cancel", &id.to_string()]).expect(0);
    }
    assert_eq!(list(&dir, &[]), (1..=200).map(line).collect::<String>());
}

#[test]
fn a_list_that_nobody_reads_to_its_end_fails_and_harms_nobody() {
    let dir = Dir::new();
    start_script(&dir, GATED, &[]);
    let jobs: Vec<String> = (1..=250).map(|number| format!("job {number} {}", "x".repeat(900))).collect();
    dir.zigsvc_with_input(&["queue", "-"], jobs.join("\n").as_bytes()).expect(0);
    let mut command = dir.command();
    command.arg("list");
    let ran = finish(by_shell("{ \"$@\"; echo $? >&2; } | head -n 1", &command), None).expect(0);
    assert_eq!(ran.out.lines().count(), 1);
    assert_eq!(ran.err, "1\n", "{ran:?}");
    assert_eq!(list(&dir, &[]).lines().count(), 250);
}

#[test]
fn control_bytes_of_a_job_do_not_reach_the_terminal() {
    let dir = Dir::new();
    start_script(&dir, GATED, &[]);
    dir.zigsvc(&["queue", "a \x1b[31mred\x1b[0m \x07bell\x08\x7f \r\ttab \u{e9}"]).expect(0);
    let listed = list(&dir, &[]);
    assert!(
        listed.ends_with(" a \\x1b[31mred\\x1b[0m \\x07bell\\x08\\x7f \\x0d\ttab \u{e9}\n"),
        "{listed:?}"
    );
    // The longest job, every byte of which takes four.
    dir.zigsvc(&["queue", &"\x07".repeat(1000)]).expect(0);
    assert!(list(&dir, &[]).ends_with(&format!("\n2 waiting 0 {}\n", "\\x07".repeat(1000))));
}

#[test]
fn on_a_terminal_the_columns_have_names() {
    if !require_tool("script") {
        return;
    }
    let dir = Dir::new();
    start_with_all_states(&dir);
    let on_terminal = |words: &str| {
        let command = format!("{} -d {} {words}", binary_words(), dir.as_arg());
        let mut script = program("script");
        script.args(["-qec", &command, "/dev/null"]);
        // script(1) copies its own input to the terminal, which echoes it, and the end of it
        // too: so nothing comes, and no end.
        let (silence, _writer) = std::io::pipe().unwrap();
        script.stdin(silence);
        // A terminal ends its lines with CR LF.
        finish(script, None).expect(0).out.replace('\r', "")
    };
    assert_eq!(
        on_terminal("list"),
        "    ID  STATE      ATTEMPT  TEXT\n     1  dead             1  bad one\n     2  running          1  runs\n     \
         3  waiting          0  waits  here\n     4  waiting          0  last\n"
    );
    dir.zigsvc(&["forget", "1"]).expect(0);
    assert_eq!(on_terminal("list dead"), "");
}

/// Prints until there is `quiet-ID`.
const TALKATIVE: &str = "until [ -e quiet-$ZIGSVC_JOB_ID ]; do echo begun; sleep 0.05; done; echo silent
                         exec sleep 600";

/// Shows that the next prompt begins on a line of its own, after the `^C` that a terminal shows.
#[test]
fn an_interrupt_ends_the_line_on_a_terminal_and_adds_nothing_elsewhere() {
    if !require_tool("script") {
        return;
    }
    let dir = Dir::new();
    start_script(&dir, TALKATIVE, &["workers=3"]);
    dir.start_service("hub", &[]);
    dir.zigsvc(&["queue", "job"]).expect(0);
    dir.zigsvc(&["queue", "job"]).expect(0);
    let screen = dir.path("screen");
    let text = || std::fs::read_to_string(&screen).unwrap().replace('\r', "");
    let in_file = || std::fs::read_to_string(dir.path("file")).unwrap_or_default();
    // Nothing is printed after `silent`, so that the end of the screen is the interrupt's.
    let falls_silent = |id: &str, printed: &dyn Fn() -> String| {
        let begun = printed().contains("begun\n");
        if begun {
            dir.write(&format!("quiet-{id}"), "");
        }
        begun && printed().ends_with("silent\n")
    };
    let to_file = format!("wait 2 >{}/file", dir.as_arg());
    // One connection for all looks, because one that was closed may be counted for a moment.
    let looks = std::cell::RefCell::new(Client::new(&dir));
    let clients = || looks.borrow_mut().status("clients");
    let rows: [(&str, &mut dyn FnMut() -> bool, &str); 6] = [
        ("wait 1", &mut || falls_silent("1", &text), "\n"),
        (&to_file, &mut || falls_silent("2", &in_file), ""),
        ("queue --wait job", &mut || falls_silent("3", &text), "\n"),
        ("watch", &mut || clients() == 2, "\n"),
        ("chat", &mut || dir.read("zigsvc-hub.log").contains(" joined"), "\n"),
        ("drain --wait", &mut || dir.read("zigsvc.log").contains("drains the service"), "\n"),
    ];
    for (words, waits, end) in rows {
        wait_until("only this test is connected", || clients() == 1);
        // The tests may run in the background, where a shell has SIGINT ignored.
        let mut script = program("env");
        let line = format!("trap : INT; {} -d {} {words}; echo \"[$?]\"", binary_words(), dir.as_arg());
        script.args(["--default-signal=INT", "script", "-qefc", &line, "/dev/null"]).env("SHELL", "/bin/sh");
        script.stdout(std::fs::File::create(&screen).unwrap()).stdin(Stdio::piped());
        let mut script = Running::new(script);
        let mut keys = script.0.stdin.take().unwrap();
        wait_until(&format!("{words}: it waits"), &mut *waits);
        keys.write_all(b"\x03").unwrap();
        script.code();
        assert!(text().ends_with(&format!("^C{end}[130]\n")), "{words}: {:?}", text());
    }
    assert!(in_file().ends_with("begun\nsilent\n"));
}

/// Returns the binary and the words of its runner, for a shell.
fn binary_words() -> String {
    let command = crate::support::zigsvc();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_list_goes_on_behind_its_last_line_when_the_service_closes_the_connection() {
    let dir = Dir::new();
    let played = Played::new(&dir);
    let listing = Beside::zigsvc(&dir, &["list"]);
    let mut peer = played.accept();
    assert_eq!(peer.line().as_deref(), Some("list all 0"));
    peer.send("ok 3\n5 dead 1 a\n7 waiting 0 b\n");
    drop(peer);
    let mut peer = played.accept();
    assert_eq!(peer.line().as_deref(), Some("list all 7"));
    peer.send("ok 1\n8 waiting 0 c\n");
    let ran = listing.finish().expect(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("5 dead 1 a\n7 waiting 0 b\n8 waiting 0 c\n", ""));
    // Without a line in between there is no progress, and that is the end.
    for (answer, out, why) in [
        ("", "", "the connection was closed before the answer came"),
        ("ok 2\n", "", "the connection was closed before the answer came"),
        ("ok\n", "", "the answer is not one of this protocol"),
        ("ok 2\n1 dead 1 a\nwhat is this\n", "1 dead 1 a\n", "the answer is not one of this protocol"),
        ("err bad-request no\n", "", "no (bad-request)"),
    ] {
        let listing = Beside::zigsvc(&dir, &["list", "dead"]);
        let mut peer = played.accept();
        assert_eq!(peer.line().as_deref(), Some("list dead 0"));
        peer.send(answer);
        drop(peer);
        let ran = listing.finish().expect(1);
        assert_eq!((ran.out.as_str(), ran.err), (out, format!("zigsvc: list: {why}\n")), "{answer:?}");
    }
}

// ----- cancel, retry, forget -----------------------------------------------------

#[test]
fn cancel_takes_a_waiting_job_out_and_ends_a_running_one() {
    let dir = Dir::new();
    start_with_all_states(&dir);
    assert_eq!(dir.zigsvc(&["cancel", "3"]).expect(0).out, "zigsvc: job 3 cancelled\n");
    assert_eq!(list(&dir, &["waiting"]), "4 waiting 0 last\n");
    let ran = dir.zigsvc(&["cancel", "2"]).expect(0);
    assert_eq!(ran.out, "zigsvc: job 2 cancelled; it was running and is being ended\n");
    wait_for_begun(&dir, "last");
    assert_eq!(list(&dir, &[]), "1 dead 1 bad one\n4 running 1 last\n");
    dir.write("go", "");
    wait_until("the last one is done", || list(&dir, &[]) == "1 dead 1 bad one\n");
    assert_eq!(dir.read("done"), "last\n");
}

#[test]
fn retry_and_forget_take_one_dead_job_or_all() {
    let dir = Dir::new();
    start_script(&dir, "[ -e go ] && echo \"$1\" >> done || exit 9", &["retries=0"]);
    let dead = |count: usize| wait_until("jobs are dead", || list(&dir, &["dead"]).lines().count() == count);
    dir.zigsvc_with_input(&["queue", "-"], b"a\nb\nc\nd\n").expect(0);
    dead(4);
    assert_eq!(dir.zigsvc(&["forget", "2"]).expect(0).out, "zigsvc: job 2 forgotten\n");
    assert_eq!(list(&dir, &[]), "1 dead 1 a\n3 dead 1 c\n4 dead 1 d\n");
    assert_eq!(dir.zigsvc(&["retry", "1"]).expect(0).out, "zigsvc: job 1 retried\n");
    wait_until("it failed again", || list(&dir, &[]).contains("1 dead 2 a\n"));
    dir.write("go", "");
    assert_eq!(dir.zigsvc(&["retry", "3"]).expect(0).out, "zigsvc: job 3 retried\n");
    wait_until("it is done", || dir.read("done") == "c\n");
    assert_eq!(dir.zigsvc(&["retry", "dead"]).expect(0).out, "zigsvc: 2 dead jobs retried\n");
    wait_until("they are done", || dir.read("done").lines().count() == 3);
    wait_until("nothing is left", || list(&dir, &[]).is_empty());
    assert_eq!(dir.zigsvc(&["retry", "dead"]).expect(0).out, "zigsvc: 0 dead jobs retried\n");
    std::fs::remove_file(dir.path("go")).unwrap();
    for (input, said) in
        [("e\n", "zigsvc: 1 dead job forgotten\n"), ("f\ng\n", "zigsvc: 2 dead jobs forgotten\n")]
    {
        dir.zigsvc_with_input(&["queue", "-"], input.as_bytes()).expect(0);
        dead(input.lines().count());
        assert_eq!(dir.zigsvc(&["forget", "dead"]).expect(0).out, said);
        assert_eq!(list(&dir, &[]), "");
    }
}

#[test]
fn a_job_that_is_not_there_or_in_another_state_is_told() {
    let dir = Dir::new();
    start_with_all_states(&dir);
    for (command, id) in [
        ("cancel", "99"),
        ("cancel", "0"),
        ("cancel", "1"),
        ("cancel", "18446744073709551615"),
        ("retry", "99"),
        ("retry", "2"),
        ("retry", "3"),
        ("forget", "99"),
        ("forget", "2"),
        ("forget", "3"),
    ] {
        let ran = dir.zigsvc(&[command, id]).expect(1);
        assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1), "{command} {id}: {ran:?}");
        assert!(ran.err.starts_with(&format!("zigsvc: {command}: ")), "{ran:?}");
        assert!(ran.err.ends_with(" (no-job)\n"), "{command} {id}: {ran:?}");
    }
    assert_eq!(list(&dir, &[]).lines().count(), 4);
}

#[test]
fn what_is_no_number_of_a_job_is_a_mistake_of_the_caller() {
    let dir = Dir::new();
    dir.start(&[]);
    for (command, needed) in [
        ("cancel", "a job's number"),
        ("retry", "a job's number or dead"),
        ("forget", "a job's number or dead"),
    ] {
        for word in ["x", "", "-", "1x", "+1", "18446744073709551616", "Dead", "1 2"] {
            let ran = dir.zigsvc(&[command, word]).expect(2);
            let error = format!("{needed} is needed, not \"{word}\"; see `zigsvc help {command}`");
            assert_eq!((ran.out.as_str(), ran.err), ("", format!("zigsvc: usage: {error}\n")));
        }
        dir.zigsvc(&[command]).expect(2);
        dir.zigsvc(&[command, "1", "2"]).expect(2);
    }
    dir.zigsvc(&["cancel", "dead"]).expect(2);
}

#[test]
fn a_service_that_does_not_run_can_neither_be_looked_at_nor_steered() {
    let dir = Dir::new();
    for args in [
        &["list"][..],
        &["cancel", "1"],
        &["retry", "dead"],
        &["forget", "1"],
        &["drain"],
        &["drain", "--wait"],
        &["watch"],
    ] {
        let ran = dir.zigsvc(args).expect(7);
        assert_eq!((ran.out.as_str(), ran.err), ("", not_running(&dir, "jobs", "zigsvc.sock")), "{args:?}");
    }
}

// ----- drain -------------------------------------------------------------------

#[test]
fn drain_returns_at_once_and_drain_wait_when_the_service_is_gone() {
    let dir = Dir::new();
    let pid = start_script(&dir, GATED, &[]);
    dir.zigsvc_with_input(&["queue", "-"], b"a\nb\n").expect(0);
    wait_for_begun(&dir, "a");
    let mut draining = Beside::zigsvc(&dir, &["drain", "--wait"]);
    let now = format!("jobs: draining (pid {pid})");
    wait_until("it drains", || dir.zigsvc(&["status"]).out.starts_with(&now));
    assert_eq!(dir.zigsvc(&["drain"]).expect(0).out, "zigsvc: jobs draining\n");
    assert!(!draining.has_ended() && alive(pid));
    dir.write("go", "");
    let ran = draining.finish().expect(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("zigsvc: jobs drained\n", ""));
    assert_eq!((alive(pid), dir.read("done").as_str()), (false, "a\nb\n"));
    dir.zigsvc(&["status"]).expect(3);
}

/// Returns the number of connections to the service, including that of the request.
fn clients(dir: &Dir) -> u64 {
    let answer = Peer::connect(dir).ask("status");
    let value = answer.split(' ').find_map(|word| word.strip_prefix("clients="));
    value.expect("clients").parse().unwrap()
}

#[test]
fn a_service_that_dies_while_it_drains_has_not_drained() {
    let dir = Dir::new();
    let pid = start_script(&dir, GATED, &[]);
    dir.zigsvc(&["queue", "job"]).expect(0);
    wait_for_begun(&dir, "job");
    let draining = Beside::zigsvc(&dir, &["drain", "--wait"]);
    wait_until("it drains", || dir.zigsvc(&["status"]).out.starts_with("jobs: draining"));
    kill(pid, "KILL");
    let ran = draining.finish().expect(1);
    let error = "zigsvc: drain: the connection was closed before the answer came\n";
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", error));
}

#[test]
fn an_idle_service_is_drained_at_once() {
    let dir = Dir::new();
    let pid = dir.start(&[]);
    assert_eq!(dir.zigsvc(&["drain", "--wait"]).expect(0).out, "zigsvc: jobs drained\n");
    assert!(!alive(pid));
    assert!(!dir.path("zigsvc.pid").exists());
}

// ----- watch -------------------------------------------------------------------

/// Returns the fields of an event except `ms`, which varies.
fn without_ms(line: &str) -> &str {
    let (event, rest) = line.split_once(" ms=").unwrap_or_else(|| panic!("{line}"));
    let (ms, rest) = rest.split_once(' ').unwrap();
    assert!(rest.starts_with("attempt=") && rest.contains(" text="), "{line}");
    assert!(ms.parse::<u64>().is_ok(), "{line}");
    event
}

/// Starts `watch`, and returns the command after it has printed the end of a job, because then
/// it is known to watch.
#[track_caller]
fn watch(dir: &Dir) -> Beside {
    let watching = Beside::zigsvc(dir, &["watch"]);
    wait_until("it watches", || {
        dir.zigsvc(&["queue", "exit 0"]).expect(0);
        !watching.lines().is_empty()
    });
    let id = dir.zigsvc(&["queue", "--wait", "exit 0"]).expect(0).err;
    let end = format!(" job={} state=done ", id.trim());
    wait_until("it has seen the last job", || watching.lines().iter().any(|line| line.contains(&end)));
    watching
}

#[test]
fn events_come_as_they_happen_and_end_with_the_service() {
    let dir = Dir::new();
    let handler = "case $1 in flaky) [ $ZIGSVC_ATTEMPT = 2 ];; *) exec sh -c \"$1\";; esac";
    start_script(&dir, handler, &["retries=1", "retry_delay=10ms"]);
    let mut watching = watch(&dir);
    let before = watching.lines().len();
    let first = dir.zigsvc(&["queue", "--wait", "flaky"]).expect(0).err;
    let second = dir.zigsvc(&["queue", "--wait", "exit 5"]).expect(5).err;
    let lines = watching.wait_for_lines(before + 8);
    let seq = |line: &str| line.split(' ').nth(1).unwrap().parse::<u64>().unwrap();
    let start = seq(&lines[before]);
    let (first, second) = (first.trim(), second.trim());
    let expected = [
        format!("event {} job={first} state=started exit=0", start),
        format!("event {} job={first} state=failed exit=1", start + 1),
        format!("event {} job={first} state=started exit=0", start + 2),
        format!("event {} job={first} state=done exit=0", start + 3),
        format!("event {} job={second} state=started exit=0", start + 4),
        format!("event {} job={second} state=failed exit=5", start + 5),
        format!("event {} job={second} state=started exit=0", start + 6),
        format!("event {} job={second} state=dead exit=5", start + 7),
    ];
    assert_eq!(lines[before..].iter().map(|line| without_ms(line)).collect::<Vec<_>>(), expected);
    assert!(!watching.has_ended());
    dir.zigsvc(&["stop"]).expect(0);
    assert_eq!(watching.finish().expect(0).err, "");
}

#[test]
fn watching_ends_when_nobody_reads_any_more_even_if_nothing_happens() {
    let dir = Dir::new();
    dir.start(&["log_max=0"]);
    let mut command = dir.command();
    command.arg("watch").stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    wait_until("it is connected", || clients(&dir) == 2);
    drop(child.stdout.take());
    let mut code = None;
    wait_until("it has ended", || {
        code = child.try_wait().unwrap();
        code.is_some()
    });
    assert_eq!(code.unwrap().code(), Some(1));
    wait_until("its place is free", || clients(&dir) == 1);
    dir.zigsvc(&["queue", "a job"]).expect(0);
    wait_for_jobs(&dir, 1);
}

#[test]
fn watching_a_service_that_is_killed_ends_too() {
    let dir = Dir::new();
    let pid = dir.start(&["log_max=0"]);
    let watching = watch(&dir);
    kill(pid, "KILL");
    watching.finish().expect(0);
}

#[test]
fn control_bytes_of_an_event_do_not_reach_the_terminal() {
    let dir = Dir::new();
    let played = Played::new(&dir);
    let watching = Beside::zigsvc(&dir, &["watch"]);
    let mut peer = played.accept();
    assert_eq!(peer.line().as_deref(), Some("watch"));
    peer.send("ok\nevent 1 job=\x1b[1m\nhalf");
    assert_eq!(watching.wait_for_lines(1), ["event 1 job=\\x1b[1m"]);
    drop(peer);
    assert_eq!(watching.finish().expect(0).out, "event 1 job=\\x1b[1m\n");
}
