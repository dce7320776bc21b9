//! `queue JOB...` and `queue --wait JOB...`.

use super::support::{Beside, GATED, Played, full_device, wait_for_begun};
use crate::support::control::start_script;
use crate::support::{
    Dir, alive, kill, let_pass, not_running, outcome, process_state, processed, wait_for_jobs, wait_until,
};
use std::fs;
use std::process::Stdio;
use zigsvc::limits::CONNECT_RETRY;

#[test]
fn the_words_of_a_job_are_joined_by_one_blank_and_its_bare_id_is_printed() {
    let dir = Dir::new();
    dir.start(&["log_max=0"]);
    for (number, words) in [&["backup", "/etc"][..], &["a  b", "", "\tc "], &["one"]].iter().enumerate() {
        let ran = dir.zigsvc(&[&["queue"], *words].concat()).expect(0);
        assert_eq!((ran.out, ran.err.as_str()), (format!("{}\n", number + 1), ""));
    }
    wait_for_jobs(&dir, 3);
    assert_eq!(processed(&dir), ["backup /etc", "a  b  \tc", "one"]);
}

#[test]
fn behind_two_dashes_a_job_may_begin_with_a_dash() {
    let dir = Dir::new();
    dir.start(&["log_max=0"]);
    for words in [&["--", "-x", "--wait"][..], &["--", "-"], &["-", "x"], &["a", "--wait"], &["--", "--"]] {
        dir.zigsvc(&[&["queue"], words].concat()).expect(0);
    }
    for words in [&["-x"][..], &["--"], &[], &["--wait"], &["--wait", "-"]] {
        let ran = dir.zigsvc(&[&["queue"], words].concat()).expect(2);
        assert!(ran.err.starts_with("zigsvc: usage: ") && ran.err.ends_with("; see `zigsvc help queue`\n"));
        assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1), "{words:?}");
    }
    wait_for_jobs(&dir, 5);
    assert_eq!(processed(&dir), ["-x --wait", "-", "- x", "a --wait", "--"]);
}

#[test]
fn what_is_no_job_is_refused_before_the_service_hears_of_it() {
    let dir = Dir::new();
    dir.start(&["log_max=0"]);
    let (longest, half) = ("x".repeat(1000), "y".repeat(500));
    let too_long = "zigsvc: queue: not a job: it is longer than 1000 bytes\n";
    let newline = "zigsvc: queue: not a job: it holds a newline\n";
    for (words, code, error) in [
        (&[format!("{longest}x").as_str()][..], 1, too_long),
        (&[half.as_str(), half.as_str()], 1, too_long),
        (&["z".repeat(9000).as_str()], 1, too_long),
        (&["two\nlines"], 1, newline),
        (&["an end\n"], 1, newline),
        (&["\n"], 1, newline),
        (&[""], 2, "zigsvc: usage: the job is empty; see `zigsvc help queue`\n"),
        (&[" ", "\t\r"], 2, "zigsvc: usage: the job is empty; see `zigsvc help queue`\n"),
    ] {
        let ran = dir.zigsvc(&[&["queue"], words].concat()).expect(code);
        assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", error), "{words:?}");
    }
    // The longest job, with blanks around it that do not count.
    let ran = dir.zigsvc(&["queue", &format!(" {longest}\t")]).expect(0);
    assert_eq!(ran.out, "1\n");
    wait_for_jobs(&dir, 1);
    assert_eq!(processed(&dir), [longest]);
}

#[test]
fn a_job_for_a_service_that_does_not_run_is_told_apart() {
    let dir = Dir::new();
    for _ in 0..2 {
        let ran = dir.zigsvc(&["queue", "job"]).expect(7);
        assert_eq!((ran.out.as_str(), ran.err), ("", not_running(&dir, "jobs", "zigsvc.sock")));
        let ran = dir.zigsvc(&["queue", "--wait", "job"]).expect(125);
        assert_eq!((ran.out.as_str(), ran.err), ("", not_running(&dir, "jobs", "zigsvc.sock")));
        // Nor does one that was killed, whose socket and PID file are there.
        let pid = dir.start(&[]);
        kill(pid, "KILL");
        wait_until("it is gone", || !alive(pid));
        assert!(dir.path("zigsvc.sock").exists());
    }
}

#[test]
fn a_refused_job_is_told_with_the_reason() {
    let dir = Dir::new();
    start_script(&dir, GATED, &["queue_max=2"]);
    dir.zigsvc(&["queue", "first"]).expect(0);
    dir.zigsvc(&["queue", "second"]).expect(0);
    wait_for_begun(&dir, "first");
    for (options, code) in [(&[][..], 1), (&["--wait"], 125)] {
        let ran = dir.zigsvc(&[&["queue"], options, &["third"]].concat()).expect(code);
        assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1), "{ran:?}");
        assert!(ran.err.starts_with("zigsvc: queue: ") && ran.err.ends_with(" (full)\n"), "{ran:?}");
    }
    dir.zigsvc(&["drain"]).expect(0);
    let ran = dir.zigsvc(&["queue", "third"]).expect(1);
    assert!(ran.err.starts_with("zigsvc: queue: ") && ran.err.ends_with(" (draining)\n"), "{ran:?}");
    dir.write("go", "");
    wait_until("the others are done", || dir.lock_holder("zigsvc.pid").is_none());
    assert_eq!(dir.read("done"), "first\nsecond\n");
}

#[test]
fn an_id_that_nobody_takes_fails_the_command_but_not_the_job() {
    let dir = Dir::new();
    dir.start(&["log_max=0"]);
    for (args, code) in [(&["queue", "job"][..], 1), (&["queue", "--wait", "job"], 0)] {
        let mut command = dir.command();
        command.args(args);
        let ran = outcome(command.stdout(full_device()).stderr(Stdio::piped()).spawn().unwrap());
        assert_eq!(ran.code, code, "{args:?}: {ran:?}");
    }
    wait_for_jobs(&dir, 2);
}

// ----- --wait ------------------------------------------------------------------

#[test]
fn waiting_for_a_job_ends_with_the_status_of_its_handler() {
    let dir = Dir::new();
    start_script(&dir, "exec sh -c \"$1\"", &["retries=0"]);
    for (number, (job, code)) in
        [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -15 $$", 143)]
            .into_iter()
            .enumerate()
    {
        let ran = dir.zigsvc(&["queue", "--wait", job]).expect(code);
        assert_eq!((ran.out.as_str(), ran.err), ("", format!("{}\n", number + 1)), "{job}");
    }
}

#[test]
fn a_handler_that_cannot_be_started_counts_as_127() {
    let dir = Dir::new();
    fs::create_dir(dir.path("allowed")).unwrap();
    let handler = format!("handler={}", dir.path("allowed").display());
    dir.start(&[handler.as_str(), "retries=0"]);
    dir.zigsvc(&["queue", "--wait", "nothing here"]).expect(127);
}

#[test]
fn a_waiting_command_prints_its_id_first_and_ends_with_the_job() {
    let dir = Dir::new();
    start_script(&dir, GATED, &["retries=0"]);
    let mut waiting = Beside::zigsvc(&dir, &["queue", "--wait", "exit", "5"]);
    wait_until("it has its id", || waiting.errors() == "1\n");
    wait_for_begun(&dir, "exit 5");
    assert!(!waiting.has_ended());
    dir.write("go", "");
    let ran = waiting.finish().expect(5);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", "1\n"));
}

#[test]
fn waiting_goes_on_through_the_retries_to_the_last_attempt() {
    let dir = Dir::new();
    start_script(&dir, "exit $((10 + ZIGSVC_ATTEMPT))", &["retries=2", "retry_delay=10ms"]);
    dir.zigsvc(&["queue", "--wait", "bad"]).expect(13);
    assert_eq!(dir.zigsvc(&["list"]).expect(0).out, "1 dead 3 bad\n");
}

#[test]
fn a_cancelled_job_ends_the_waiting_with_143() {
    let dir = Dir::new();
    start_script(&dir, GATED, &[]);
    let running = Beside::zigsvc(&dir, &["queue", "--wait", "runs"]);
    wait_for_begun(&dir, "runs");
    let waiting = Beside::zigsvc(&dir, &["queue", "--wait", "waits"]);
    wait_until("it has its id", || waiting.errors() == "2\n");
    dir.zigsvc(&["cancel", "2"]).expect(0);
    waiting.finish().expect(143);
    dir.zigsvc(&["cancel", "1"]).expect(0);
    running.finish().expect(143);
    assert_eq!(dir.read("done"), "");
}

#[test]
fn a_job_is_waited_for_through_a_restart_and_a_crash_of_the_service() {
    let dir = Dir::new();
    let pid = start_script(&dir, GATED, &["retries=0"]);
    let mut waiting = Beside::zigsvc(&dir, &["queue", "--wait", "exit 6"]);
    wait_for_begun(&dir, "exit 6");
    let handler = format!("handler={}", dir.path("handler").display());
    let options = ["-o", &handler, "-o", "log_max=0", "-o", "retries=3"];
    dir.zigsvc(&[&options[..], &["restart"]].concat()).expect(0);
    wait_until("it runs again", || dir.read("begun").lines().count() == 2);
    let second = dir.lock_holder("zigsvc.pid").unwrap();
    assert_ne!(second, pid);
    kill(second, "KILL");
    wait_until("it is gone", || !alive(second));
    // The command tries to connect, and finds that nothing listens.
    let_pass(CONNECT_RETRY);
    assert!(!waiting.has_ended());
    dir.zigsvc(&[&options[..4], &["-o", "retries=0", "start"]].concat()).expect(0);
    wait_until("it runs once more", || dir.read("begun").lines().count() == 3);
    assert!(!waiting.has_ended());
    dir.write("go", "");
    let ran = waiting.finish().expect(6);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", "1\n"));
}

// ----- answers of another kind ---------------------------------------------------

#[test]
fn an_answer_that_is_lost_or_makes_no_sense_is_told() {
    let dir = Dir::new();
    let played = Played::new(&dir);
    for (answer, error) in [
        (None, "the connection was closed before the answer came"),
        (Some("hello"), "the answer is not one of this protocol"),
        (Some("ok"), "the answer is not one of this protocol"),
        (Some("err no-space the disk is \x1b full"), "the disk is \\x1b full (no-space)"),
    ] {
        let queueing = Beside::zigsvc(&dir, &["queue", "a job"]);
        let mut peer = played.accept();
        assert_eq!(peer.line().as_deref(), Some("queue a job"));
        peer.send(&answer.map(|answer| format!("{answer}\n")).unwrap_or_default());
        drop(peer);
        let ran = queueing.finish().expect(1);
        assert_eq!((ran.out.as_str(), ran.err), ("", format!("zigsvc: queue: {error}\n")));
    }
}

#[test]
fn waiting_asks_again_after_a_lost_connection_and_tells_a_refusal() {
    let dir = Dir::new();
    let played = Played::new(&dir);
    for (last, code, error) in [
        ("ok id=7 state=dead exit=9", 9, ""),
        ("err no-job there is no such job", 125, "zigsvc: wait: there is no such job (no-job)\n"),
        ("ok id=7 state=done", 125, "zigsvc: wait: the answer is not one of this protocol\n"),
        ("ok id=7 state=done exit=256", 125, "zigsvc: wait: the answer is not one of this protocol\n"),
    ] {
        let waiting = Beside::zigsvc(&dir, &["queue", "--wait", "a job"]);
        let mut peer = played.accept();
        assert_eq!(peer.line().as_deref(), Some("queue! a job"));
        peer.send("ok id=7\n");
        for farewell in ["", "err stopping the service stops\n", "err busy all places are taken\n"] {
            peer.send(farewell);
            drop(peer);
            peer = played.accept();
            assert_eq!(peer.line().as_deref(), Some("follow 7"));
        }
        peer.send(&format!("{last}\n"));
        let ran = waiting.finish().expect(code);
        assert_eq!((ran.out.as_str(), ran.err), ("", format!("7\n{error}")));
    }
}

#[test]
fn what_the_service_said_before_it_closed_is_read_though_nothing_can_be_sent() {
    let dir = Dir::new();
    let played = Played::new(&dir);
    let waiting = Beside::zigsvc(&dir, &["queue", "--wait", "a job"]);
    let mut peer = played.accept();
    assert_eq!(peer.line().as_deref(), Some("queue! a job"));
    // It cannot ask for the end of the job before the connection is closed.
    kill(waiting.pid(), "STOP");
    wait_until("it is suspended", || process_state(waiting.pid()) == Some('T'));
    peer.send("ok id=7\nerr no-job there is none\n");
    drop(peer);
    kill(waiting.pid(), "CONT");
    let ran = waiting.finish().expect(125);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", "7\nzigsvc: wait: there is none (no-job)\n"));
}

#[test]
fn while_a_service_makes_its_socket_anew_a_command_waits_for_it() {
    let dir = Dir::new();
    dir.start(&["log_max=0", "interval=100ms"]);
    for number in 1..=3 {
        fs::remove_file(dir.path("zigsvc.sock")).unwrap();
        assert_eq!(dir.zigsvc(&["queue", "a job"]).expect(0).out, format!("{number}\n"));
    }
    fs::remove_file(dir.path("zigsvc.sock")).unwrap();
    dir.zigsvc_with_input(&["queue", "-"], b"another\n").expect(0);
    wait_for_jobs(&dir, 4);
}
