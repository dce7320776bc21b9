//! `queue -`: every line of stdin becomes a job, none is lost, and a line that cannot be one
//! is reported.

use super::support::{Beside, GATED, Peer, Played, full_device, unread, wait_for_begun};
use crate::support::control::start_script;
use crate::support::{
    Dir, alive, holds_within, kill, not_running, outcome, patience, processed, wait_for_jobs, wait_until,
};
use core::time::Duration;
use std::collections::BTreeSet;
use std::fs;
use std::io::Seek as _;
use std::process::Stdio;
use std::time::Instant;
use zigsvc::limits::RESTART_WAIT;

/// Returns `1\n2\n...`, up to `last`.
fn ids_to(last: usize) -> String {
    (1..=last).map(|id| format!("{id}\n")).collect()
}

/// Insists that every one of `jobs` was processed at least once.
#[track_caller]
fn assert_none_lost(dir: &Dir, jobs: &[String]) {
    wait_until("all jobs are processed", || {
        let log = processed(dir);
        let seen: BTreeSet<&String> = log.iter().collect();
        jobs.iter().all(|job| seen.contains(job))
    });
}

#[test]
fn each_line_becomes_a_job_and_its_id_is_printed() {
    let dir = Dir::new();
    dir.start(&["log_max=0"]);
    let input = "one\n\n  two  \r\n \t\r\n\n--wait\n-\nlast without newline";
    let ran = dir.zigsvc_with_input(&["queue", "-"], input.as_bytes()).expect(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), (ids_to(5).as_str(), ""));
    wait_for_jobs(&dir, 5);
    assert_eq!(processed(&dir), ["one", "two", "--wait", "-", "last without newline"]);
}

#[test]
fn no_lines_are_no_jobs_and_no_failure() {
    let dir = Dir::new();
    dir.start(&["log_max=0"]);
    for input in ["", "\n", " \n\t\n \r"] {
        let ran = dir.zigsvc_with_input(&["queue", "-"], input.as_bytes()).expect(0);
        assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""), "{input:?}");
    }
    assert_eq!(dir.zigsvc(&["queue", "first"]).expect(0).out, "1\n");
}

#[test]
fn lines_that_are_no_jobs_are_told_with_their_numbers_and_the_others_are_queued() {
    let dir = Dir::new();
    dir.start(&["log_max=0"]);
    let longest = "x".repeat(1000);
    // One byte too long; far too long for any buffer, twice; as long as a buffer.
    let input = format!(
        "one\n{longest}y\n\n{longest}\na\0b\n{}\ntwo\n  {longest}  \n{}\n{}\n\0\nthree\n{}",
        "z".repeat(70_000),
        "z".repeat(2560),
        "z".repeat(2559),
        "w".repeat(5000),
    );
    let ran = dir.zigsvc_with_input(&["queue", "-"], input.as_bytes()).expect(1);
    let told: Vec<&str> = ran.err.lines().collect();
    let (long, nul) = ("it is longer than 1000 bytes", "it holds a NUL byte");
    let expected = [(2, long), (5, nul), (6, long), (9, long), (10, long), (11, nul), (13, long)];
    let expected: Vec<String> =
        expected.iter().map(|(line, why)| format!("zigsvc: queue: line {line}: {why}")).collect();
    assert_eq!(told, expected);
    assert_eq!(ran.out, ids_to(5));
    wait_for_jobs(&dir, 5);
    assert_eq!(processed(&dir), ["one", longest.as_str(), "two", longest.as_str(), "three"]);
}

#[test]
fn five_thousand_lines_are_queued_once_each_and_in_order() {
    let dir = Dir::new();
    dir.start(&["log_max=0"]);
    let jobs: Vec<String> =
        (1..=5000).map(|number| format!("{number} {}", "x".repeat(number % 97))).collect();
    let ran = dir.zigsvc_with_input(&["queue", "-"], (jobs.join("\n") + "\n").as_bytes()).expect(0);
    assert_eq!((ran.out, ran.err.as_str()), (ids_to(5000), ""));
    wait_for_jobs(&dir, 5000);
    let trimmed: Vec<&str> = jobs.iter().map(|job| job.trim_end()).collect();
    assert_eq!(processed(&dir), trimmed);
}

#[test]
fn a_full_queue_holds_the_writer_up_and_refuses_nothing() {
    let dir = Dir::new();
    start_script(&dir, r#"echo "$1" >> done"#, &["queue_max=10"]);
    let jobs: Vec<String> = (1..=300).map(|number| format!("job {number}")).collect();
    let ran = dir.zigsvc_with_input(&["queue", "-"], (jobs.join("\n") + "\n").as_bytes()).expect(0);
    assert_eq!((ran.out, ran.err.as_str()), (ids_to(300), ""));
    wait_until("all are done", || dir.read("done").lines().count() >= 300);
    assert_eq!(dir.read("done").lines().collect::<Vec<_>>(), jobs);
}

#[test]
fn while_the_queue_is_full_lines_are_held_and_not_lost() {
    let dir = Dir::new();
    start_script(&dir, GATED, &["queue_max=3"]);
    let mut feeding = Beside::zigsvc(&dir, &["queue", "-"]);
    feeding.write("a\nb\nc\nd\ne\nf\n");
    feeding.wait_for_lines(3);
    wait_for_begun(&dir, "a");
    // The command has looked at the full queue since, and keeps looking at it.
    assert!(dir.zigsvc(&["queue", "other"]).expect(1).err.ends_with(" (full)\n"));
    assert!(!feeding.has_ended());
    dir.write("go", "");
    let ran = feeding.finish().expect(0);
    assert_eq!((ran.out, ran.err.as_str()), (ids_to(6), ""));
    wait_until("all are done", || dir.read("done").lines().count() >= 6);
    assert_eq!(dir.read("done"), "a\nb\nc\nd\ne\nf\n");
}

#[test]
fn a_line_is_queued_as_soon_as_it_has_come() {
    let dir = Dir::new();
    dir.start(&["log_max=0"]);
    let mut feeding = Beside::zigsvc(&dir, &["queue", "-"]);
    for number in 1..=3 {
        // The end of one line, and half of the next.
        feeding.write(&format!("b {number}\njo"));
        feeding.wait_for_lines(number);
        wait_for_jobs(&dir, number);
        assert!(!feeding.has_ended());
    }
    assert_eq!(feeding.finish().expect(0).out, ids_to(4));
    wait_for_jobs(&dir, 4);
    assert_eq!(processed(&dir), ["b 1", "job 2", "job 3", "jo"]);
}

#[test]
fn a_restart_in_the_middle_loses_no_line() {
    let dir = Dir::new();
    dir.start(&["log_max=0"]);
    let jobs: Vec<String> = (1..=4000).map(|number| format!("job {number}")).collect();
    let mut feeding = Beside::zigsvc(&dir, &["queue", "-"]);
    feeding.write(&(jobs[..1000].join("\n") + "\n"));
    feeding.wait_for_lines(100);
    let rest = jobs[1000..].join("\n") + "\n";
    let mut stdin = feeding.stdin.take().unwrap();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, rest.as_bytes()));
    for _ in 0..3 {
        dir.zigsvc(&["-o", "log_max=0", "restart"]).expect(0);
    }
    writer.join().unwrap().unwrap();
    let ran = feeding.finish().expect(0);
    assert_eq!((ran.out.lines().count(), ran.err.as_str()), (4000, ""));
    assert_ids_grow(&ran.out);
    assert_none_lost(&dir, &jobs);
}

#[test]
fn a_killed_service_in_the_middle_loses_no_line() {
    let dir = Dir::new();
    let mut pid = dir.start(&["log_max=0"]);
    let jobs: Vec<String> = (1..=3000).map(|number| format!("job {number}")).collect();
    let mut feeding = Beside::zigsvc(&dir, &["queue", "-"]);
    for part in jobs.chunks(1000) {
        let before = feeding.lines().len();
        feeding.write(&(part.join("\n") + "\n"));
        feeding.wait_for_lines(before + 50);
        kill(pid, "KILL");
        wait_until("it is gone", || !alive(pid));
        pid = dir.start(&["log_max=0"]);
    }
    let ran = feeding.finish().expect(0);
    assert_eq!((ran.out.lines().count(), ran.err.as_str()), (3000, ""));
    assert_ids_grow(&ran.out);
    assert_none_lost(&dir, &jobs);
}

/// Insists that each id is printed once, and that the ids grow.
#[track_caller]
fn assert_ids_grow(out: &str) {
    let ids: Vec<u64> = out.lines().map(|line| line.parse().unwrap()).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
}

#[test]
fn lines_that_come_while_the_service_is_stopped_are_queued_when_it_is_back() {
    let dir = Dir::new();
    dir.start(&["log_max=0"]);
    let mut feeding = Beside::zigsvc(&dir, &["queue", "-"]);
    feeding.write("before\n");
    feeding.wait_for_lines(1);
    wait_for_jobs(&dir, 1);
    dir.zigsvc(&["stop"]).expect(0);
    feeding.write("meanwhile\n");
    dir.start(&["log_max=0"]);
    feeding.wait_for_lines(2);
    feeding.write("after");
    assert_eq!(feeding.finish().expect(0).out, ids_to(3));
    wait_for_jobs(&dir, 3);
    assert_eq!(processed(&dir), ["before", "meanwhile", "after"]);
}

#[test]
fn a_drained_service_takes_nothing_and_the_next_one_takes_the_rest() {
    let dir = Dir::new();
    let pid = start_script(&dir, GATED, &[]);
    let mut feeding = Beside::zigsvc(&dir, &["queue", "-"]);
    feeding.write("one\n");
    feeding.wait_for_lines(1);
    dir.zigsvc(&["drain"]).expect(0);
    feeding.write("two\nthree\n");
    dir.write("go", "");
    wait_until("it has drained", || !alive(pid));
    assert_eq!(dir.read("done"), "one\n");
    start_script(&dir, GATED, &[]);
    let ran = feeding.finish().expect(0);
    assert_eq!((ran.out, ran.err.as_str()), (ids_to(3), ""));
    wait_until("the rest is done", || dir.read("done") == "one\ntwo\nthree\n");
}

#[test]
fn with_no_service_at_the_start_nothing_is_waited_for() {
    let dir = Dir::new();
    let ran = dir.zigsvc_with_input(&["queue", "-"], b"one\n").expect(7);
    assert_eq!((ran.out.as_str(), ran.err), ("", not_running(&dir, "jobs", "zigsvc.sock")));
}

#[test]
fn a_service_that_does_not_come_back_is_given_up_and_what_was_not_queued_is_counted() {
    let dir = Dir::new();
    start_script(&dir, GATED, &["queue_max=1"]);
    // More than it can hold, with empty lines; the last one has no newline.
    let text = (1..=60).map(|number| format!("{number} {}\n\n", "x".repeat(500))).collect::<String>() + "end";
    dir.write("input", &text);
    let mut input = fs::File::open(dir.path("input")).unwrap();
    let mut command = dir.command();
    command.args(["queue", "-"]);
    let mut feeding = Beside::start_on(Stdio::from(input.try_clone().unwrap()), command);
    feeding.wait_for_lines(1);
    dir.zigsvc(&["stop"]).expect(0);
    let since = Instant::now();
    // `wait_until` has no more patience than the command.
    let given_up = Duration::from_millis(RESTART_WAIT.as_ms());
    assert!(holds_within(given_up + patience(), || feeding.has_ended()), "it waits for ever");
    assert!(since.elapsed() > given_up - Duration::from_secs(5), "it waited for {:?} only", since.elapsed());
    let ran = feeding.finish().expect(7);
    assert_eq!(ran.out, "1\n");
    // The file is shared, and so is the place up to which it was read.
    let read = usize::try_from(input.stream_position().unwrap()).unwrap();
    assert!((9000..20_000).contains(&read), "{read}");
    let lines = text[..read].lines().filter(|line| !line.is_empty()).count();
    let error = format!("the service does not come back; {} lines were read but not queued", lines - 1);
    assert_eq!(ran.err, format!("zigsvc: queue: {error}\n"));
}

#[test]
fn ids_that_nobody_takes_fail_the_command_but_not_the_jobs() {
    let dir = Dir::new();
    dir.start(&["log_max=0"]);
    let jobs: Vec<String> = (1..=200).map(|number| format!("job {number}")).collect();
    for broken in [unread(), full_device()] {
        let mut command = dir.command();
        command.args(["queue", "-"]).stdin(Stdio::piped()).stdout(broken).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, (jobs.join("\n") + "\n").as_bytes()).unwrap();
        drop(stdin);
        let ran = outcome(child);
        assert_eq!(ran.code, 1, "{ran:?}");
    }
    wait_for_jobs(&dir, 400);
    assert_eq!(processed(&dir), [&jobs[..], &jobs[..]].concat());
}

#[test]
fn with_all_places_taken_it_says_so_once_and_goes_on_when_there_is_one() {
    let dir = Dir::new();
    dir.start(&["log_max=0"]);
    let mut watching: Vec<Peer> = (0..16).map(|_| Peer::connect(&dir)).collect();
    for peer in &mut watching {
        assert_eq!(peer.ask("watch"), "ok");
    }
    for (args, code) in [(&["queue", "job"][..], 1), (&["queue", "--wait", "job"], 125), (&["list"], 1)] {
        let ran = dir.zigsvc(args).expect(code);
        assert!(ran.err.ends_with(" (busy)\n") && ran.err.lines().count() == 1, "{ran:?}");
    }
    let mut feeding = Beside::zigsvc(&dir, &["queue", "-"]);
    feeding.write("one\ntwo\n");
    let busy = "zigsvc: queue: waits: all places for clients are taken (busy)\n";
    wait_until("it says why it waits", || feeding.errors() == busy);
    watching.pop();
    feeding.wait_for_lines(2);
    let ran = feeding.finish().expect(0);
    assert_eq!((ran.out, ran.err), (ids_to(2), format!("{busy}zigsvc: queue: continues\n")));
}

// ----- answers of another kind ---------------------------------------------------

/// Answers the question for room, which comes first.
#[track_caller]
fn tell_room(peer: &mut Peer, room: u64) {
    assert_eq!(peer.line().as_deref(), Some("status"));
    peer.send(&format!("ok pid=1 state=running room={room}\n"));
}

#[track_caller]
fn expect_jobs(peer: &mut Peer, jobs: &[&str]) {
    for job in jobs {
        assert_eq!(peer.line(), Some(format!("queue {job}")));
    }
}

#[test]
fn what_is_refused_for_now_is_sent_again_in_order_and_said_but_not_each_time() {
    let dir = Dir::new();
    let played = Played::new(&dir);
    let mut feeding = Beside::zigsvc(&dir, &["queue", "-"]);
    let mut peer = played.accept();
    feeding.write("a\nb\nc\n");
    tell_room(&mut peer, 100);
    expect_jobs(&mut peer, &["a", "b", "c"]);
    peer.send("err no-space no \x1b room\nok id=1\nerr io it failed\n");
    // The command sends one line, to see whether the refusals have ended; they have not.
    tell_room(&mut peer, 100);
    expect_jobs(&mut peer, &["a"]);
    peer.send("err full too many\n");
    tell_room(&mut peer, 100);
    expect_jobs(&mut peer, &["a"]);
    peer.send("ok id=2\n");
    tell_room(&mut peer, 100);
    expect_jobs(&mut peer, &["c"]);
    peer.send("ok id=3\n");
    let ran = feeding.finish().expect(0);
    assert_eq!(ran.out, ids_to(3));
    assert!(ran.err.starts_with("zigsvc: queue: waits: no \\x1b room (no-space)\n"), "{ran:?}");
    assert!(ran.err.ends_with("zigsvc: queue: continues\n") && !ran.err.contains("full"), "{ran:?}");
}

#[test]
fn what_is_refused_for_good_is_told_with_its_line_number_and_not_sent_again() {
    let dir = Dir::new();
    let played = Played::new(&dir);
    let mut feeding = Beside::zigsvc(&dir, &["queue", "-"]);
    let mut peer = played.accept();
    feeding.write("\na\n\nb\nc\nd\n");
    tell_room(&mut peer, 100);
    expect_jobs(&mut peer, &["a", "b", "c", "d"]);
    peer.send("ok id=1\nerr bad-request no \x07 thanks\nwhat?\nok id=2\n");
    let ran = feeding.finish().expect(1);
    assert_eq!(ran.out, ids_to(2));
    assert_eq!(
        ran.err,
        "zigsvc: queue: line 4: no \\x07 thanks (bad-request)\n\
         zigsvc: queue: line 5: the answer is not one of this protocol\n"
    );
}

#[test]
fn lines_whose_answer_was_lost_are_sent_again_before_those_that_came_later() {
    let dir = Dir::new();
    let played = Played::new(&dir);
    let mut feeding = Beside::zigsvc(&dir, &["queue", "-"]);
    let mut peer = played.accept();
    feeding.write("a\nb\nc\n");
    tell_room(&mut peer, 100);
    expect_jobs(&mut peer, &["a", "b", "c"]);
    peer.send("ok id=1\n");
    feeding.wait_for_lines(1);
    drop(peer);
    feeding.write("d\n");
    // Half an answer is none.
    let mut peer = played.accept();
    tell_room(&mut peer, 100);
    expect_jobs(&mut peer, &["b", "c", "d"]);
    peer.send("ok id=2\nhalf");
    feeding.wait_for_lines(2);
    drop(peer);
    let mut peer = played.accept();
    tell_room(&mut peer, 100);
    expect_jobs(&mut peer, &["c", "d"]);
    peer.send("ok id=3\nok id=4\n");
    let ran = feeding.finish().expect(0);
    assert_eq!((ran.out, ran.err.as_str()), (ids_to(4), ""));
}

#[test]
fn a_service_that_does_not_answer_holds_up_who_writes_and_costs_no_memory() {
    let dir = Dir::new();
    let played = Played::new(&dir);
    let mut feeding = Beside::zigsvc(&dir, &["queue", "-"]);
    let mut peer = played.accept();
    let jobs: Vec<String> = (1..=400).map(|number| format!("{number} {}", "x".repeat(900))).collect();
    let mut stdin = feeding.stdin.take().unwrap();
    let text = jobs.join("\n") + "\n";
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, text.as_bytes()));
    tell_room(&mut peer, 10_000);
    expect_jobs(&mut peer, &[&jobs[0], &jobs[1]]);
    // The command's buffers, the pipe and the socket hold less than that together.
    assert!(!writer.is_finished());
    for (number, job) in jobs.iter().enumerate() {
        if number >= 2 {
            expect_jobs(&mut peer, &[job]);
        }
        peer.send(&format!("ok id={}\n", number + 1));
    }
    writer.join().unwrap().unwrap();
    assert_eq!(feeding.finish().expect(0).out, ids_to(400));
}
