//! The effect of the control socket on existing jobs, and on the service: cancel, retry,
//! forget, drain and stop, and the part of it that a kill leaves. The contract is
//! `docs/control.md`.

use crate::support::control::{
    Client, FAILING, GATE, ask, expect_error, field, jobs, list_ids, out, pid_in, start_script, status,
};
use crate::support::{Dir, alive, kill, kill_hard, wait_for_log, wait_until};
use core::time::Duration;
use std::fs;
use std::os::unix::net::UnixStream;
use std::time::Instant;

// ----- cancel ----------------------------------------------------------------

#[test]
fn a_cancelled_job_does_not_run_wherever_it_waits() {
    let dir = Dir::new();
    let pid = start_script(&dir, GATE, &[]);
    let mut client = Client::new(&dir);
    client.queue_all(&jobs(60));
    wait_until("the first runs", || client.status("running") == 1);
    let mut waiting = Client::new(&dir);
    waiting.send("wait 50\n");
    for id in [2, 31, 40, 50, 60] {
        assert_eq!(client.ask(&format!("cancel {id}")), format!("ok id={id} was=waiting"));
        expect_error(&client.ask(&format!("cancel {id}")), "no-job");
        assert_eq!(
            client.ask(&format!("wait {id}")),
            format!("ok id={id} state=dead exit=143 why=cancelled")
        );
    }
    assert_eq!(waiting.line(), "ok id=50 state=dead exit=143 why=cancelled");
    expect_error(&client.ask("cancel 61"), "no-job");
    assert_eq!((client.status("waiting"), client.status("dead")), (54, 0));
    assert_eq!(client.status("room"), 10_000 - 55);
    let left: Vec<u64> = (2..=60).filter(|id| ![2, 31, 40, 50, 60].contains(id)).collect();
    assert_eq!(list_ids(&mut client, "waiting"), left);
    // And not after a crash either.
    kill_hard(pid);
    dir.write("go", "");
    fs::remove_file(dir.path("out")).unwrap();
    start_script(&dir, GATE, &[]);
    wait_until("all are done", || status(&dir, "waiting") == 0 && status(&dir, "running") == 0);
    let mut expected = vec!["job 1 2".to_owned()];
    expected.extend(left.iter().map(|id| format!("job {id} 1")));
    assert_eq!(out(&dir, expected.len()), expected);
}

#[test]
fn more_jobs_can_be_cancelled_than_are_remembered_as_void() {
    for killed in [false, true] {
        let dir = Dir::new();
        let pid = start_script(&dir, GATE, &[]);
        let mut client = Client::new(&dir);
        client.queue_all(&jobs(250));
        wait_until("the first runs", || client.status("running") == 1);
        assert_eq!(out(&dir, 1), ["job 1 1"]);
        let gone: Vec<u64> = (2..=250).filter(|id| id % 5 != 0).collect();
        client.send(gone.iter().map(|id| format!("cancel {id}\n")).collect::<String>());
        for id in gone {
            assert_eq!(client.line(), format!("ok id={id} was=waiting"));
        }
        let mut expected = vec!["job 1 1".to_owned()];
        if killed {
            kill_hard(pid);
            expected.push("job 1 2".to_owned());
        }
        dir.write("go", "");
        if killed {
            start_script(&dir, GATE, &[]);
        }
        expected.extend((1..=50).map(|number| format!("job {} 1", number * 5)));
        wait_until("all are done", || status(&dir, "waiting") == 0 && status(&dir, "running") == 0);
        assert_eq!(out(&dir, expected.len()), expected);
    }
}

#[test]
fn without_a_new_journal_what_cannot_be_remembered_is_refused() {
    let dir = Dir::new();
    start_script(&dir, GATE, &[]);
    let mut client = Client::new(&dir);
    client.queue_all(&jobs(150));
    wait_until("the first runs", || client.status("running") == 1);
    // Something is in the way of the new journal.
    fs::create_dir_all(dir.path("spool/journal.new/x")).unwrap();
    let (mut gone, mut refused) = (Vec::new(), 0);
    for id in (40..=140).rev() {
        let answer = client.ask(&format!("cancel {id}"));
        if answer.starts_with("ok ") {
            assert_eq!(answer, format!("ok id={id} was=waiting"));
            gone.push(id);
        } else {
            expect_error(&answer, "io");
            refused += 1;
        }
    }
    assert!(refused > 10 && gone.len() > 50, "{refused} refused, {} gone", gone.len());
    let left: Vec<u64> = (1..=150).filter(|id| !gone.contains(id)).collect();
    assert_eq!(list_ids(&mut client, "all"), left);
    fs::remove_dir_all(dir.path("spool/journal.new")).unwrap();
    dir.write("go", "");
    wait_until("all are done", || client.status("waiting") + client.status("running") == 0);
    let expected: Vec<_> = left.iter().map(|id| format!("job {id} 1")).collect();
    assert_eq!(out(&dir, expected.len()), expected);
}

#[test]
fn cancelling_a_running_job_ends_its_group_and_no_other() {
    let dir = Dir::new();
    let script = "if [ $1 = other ]; then until [ -e go ]; do sleep 0.05; done; exit 0; fi\n\
                  sleep 300 & echo $! > child; echo $$ > leader; wait";
    start_script(&dir, script, &["workers=2", "stop_timeout=10m"]);
    let (mut client, mut waiting) = (Client::new(&dir), Client::new(&dir));
    client.queue("other");
    client.queue("cancelled");
    waiting.send("wait 2\n");
    let (child, leader) = (pid_in(&dir, "child"), pid_in(&dir, "leader"));
    assert_eq!(client.ask("cancel 2"), "ok id=2 was=running");
    assert_eq!(waiting.line(), "ok id=2 state=dead exit=143 why=cancelled");
    wait_until("the group is gone", || !alive(child) && !alive(leader));
    assert_eq!(client.ask("wait 2"), "ok id=2 state=dead exit=143 why=cancelled");
    expect_error(&client.ask("cancel 2"), "no-job");
    assert_eq!((client.status("running"), client.status("dead")), (1, 0));
    dir.write("go", "");
    assert_eq!(client.ask("wait 1"), "ok id=1 state=done exit=0");
}

#[test]
fn cancelling_a_job_that_ignores_term_kills_it_after_stop_timeout() {
    let dir = Dir::new();
    let script = "[ $1 = next ] && exit 0\ntrap '' TERM; sleep 300 & echo $! > child; echo $$ > leader; while :; do wait; done";
    start_script(&dir, script, &["stop_timeout=1s"]);
    let (mut client, mut watching) = (Client::new(&dir), Client::new(&dir));
    assert_eq!(watching.ask("watch"), "ok");
    client.queue("stubborn");
    client.queue("next");
    let (child, leader) = (pid_in(&dir, "child"), pid_in(&dir, "leader"));
    let began = Instant::now();
    assert_eq!(client.ask("cancel 1"), "ok id=1 was=running");
    assert_eq!(client.ask("cancel 1"), "err no-job it has ended already");
    assert_eq!(client.ask("wait 1"), "ok id=1 state=dead exit=143 why=cancelled");
    assert!(began.elapsed() >= Duration::from_millis(950), "{:?}", began.elapsed());
    wait_until("the group is gone", || !alive(child) && !alive(leader));
    assert_eq!(client.ask("wait 2"), "ok id=2 state=done exit=0");
    assert!(watching.line().contains("job=1 state=started"));
    let end = watching.line();
    assert!(end.contains("job=1 state=dead exit=143") && end.contains(" why=cancelled attempt=1 "), "{end}");
}

#[test]
fn a_cancelled_job_is_never_done_or_tried_again_whatever_its_handler_says() {
    let dir = Dir::new();
    let script = "echo \"$1 $ZIGSVC_ATTEMPT\" >> out; [ $1 = next ] && exit 0\n\
                  trap 'exit $1' TERM; echo x > ready; while :; do sleep 0.05; done";
    let pid = start_script(&dir, script, &["retry_delay=10ms", "retries=5"]);
    let mut client = Client::new(&dir);
    for (id, text) in [(1, "0"), (2, "7")] {
        let _ = fs::remove_file(dir.path("ready"));
        client.queue(text);
        wait_until("its trap is set", || dir.path("ready").exists());
        assert_eq!(client.ask(&format!("cancel {id}")), format!("ok id={id} was=running"));
        assert_eq!(
            client.ask(&format!("wait {id}")),
            format!("ok id={id} state=dead exit=143 why=cancelled")
        );
    }
    // A kill of the service right after the answer does not undo it.
    let _ = fs::remove_file(dir.path("ready"));
    client.queue("9");
    wait_until("its trap is set", || dir.path("ready").exists());
    assert_eq!(client.ask("cancel 3"), "ok id=3 was=running");
    kill_hard(pid);
    start_script(&dir, script, &[]);
    let mut client = Client::new(&dir);
    client.queue("next");
    client.ask("wait 4");
    assert_eq!(dir.read("out"), "0 1\n7 1\n9 1\nnext 1\n");
    assert_eq!((client.status("dead"), client.status("waiting")), (0, 0));
}

#[test]
fn a_job_that_waits_for_its_next_attempt_can_be_cancelled() {
    let dir = Dir::new();
    start_script(&dir, FAILING, &["retry_delay=10m"]);
    let mut client = Client::new(&dir);
    client.queue("x");
    wait_until("it has failed once", || client.status("delayed") == 1);
    assert_eq!(client.ask("cancel 1"), "ok id=1 was=waiting");
    assert_eq!((client.status("delayed"), client.status("waiting"), client.status("dead")), (0, 0, 0));
    dir.zigsvc(&["stop"]).expect(0);
    start_script(&dir, FAILING, &[]);
    assert_eq!(ask(&dir, "list"), "ok 0");
}

#[test]
fn a_job_can_be_cancelled_in_the_same_breath_as_it_is_added() {
    let dir = Dir::new();
    start_script(&dir, GATE, &[]);
    let mut client = Client::new(&dir);
    client.send("queue a\nqueue b\ncancel 2\nqueue c\ncancel 3\nlist waiting\n");
    let answers = client.lines(6);
    assert_eq!(
        answers,
        ["ok id=1", "ok id=2", "ok id=2 was=waiting", "ok id=3", "ok id=3 was=waiting", "ok 0"]
    );
    assert_eq!(out(&dir, 1), ["a 1"]);
}

// ----- retry and forget ------------------------------------------------------

/// Starts a service with these dead jobs, each after one attempt.
#[track_caller]
fn with_dead(dir: &Dir, texts: &[&str]) -> (u32, Client) {
    let pid = start_script(dir, FAILING, &["retries=0"]);
    let mut client = Client::new(dir);
    for (id, text) in (1..).zip(texts) {
        assert_eq!(client.queue(text), id);
        assert_eq!(client.ask(&format!("wait {id}")), format!("ok id={id} state=dead exit=1"));
    }
    (pid, client)
}

#[test]
fn a_retried_job_runs_again_and_its_attempts_are_counted_on() {
    let dir = Dir::new();
    let (pid, mut client) = with_dead(&dir, &["a", "b", "c"]);
    assert_eq!(client.ask("retry 2"), "ok id=2");
    assert_eq!(client.ask("wait 2"), "ok id=2 state=dead exit=1");
    assert_eq!(client.ask_list("list"), ["1 dead 1 a", "2 dead 2 b", "3 dead 1 c"]);
    dir.write("go", "");
    assert_eq!(client.ask("retry 2"), "ok id=2");
    assert_eq!(client.ask("wait 2"), "ok id=2 state=done exit=0");
    expect_error(&client.ask("retry 2"), "no-job");
    assert_eq!(out(&dir, 5), ["a 1", "b 1", "c 1", "b 2", "b 3"]);
    assert_eq!((client.status("dead"), client.status("waiting"), client.status("jobs")), (2, 0, 5));
    kill_hard(pid);
    start_script(&dir, FAILING, &["retries=0"]);
    let mut client = Client::new(&dir);
    assert_eq!(client.ask_list("list"), ["1 dead 1 a", "3 dead 1 c"]);
    assert_eq!(client.ask("wait 2"), "ok id=2 state=done exit=0");
}

#[test]
fn a_retry_is_on_disk_when_it_is_acknowledged() {
    let dir = Dir::new();
    let (_, client) = with_dead(&dir, &["a", "b"]);
    drop(client);
    dir.zigsvc(&["stop"]).expect(0);
    let pid = start_script(&dir, GATE, &["retries=0"]);
    let mut client = Client::new(&dir);
    client.queue("first");
    // A handler that is killed before its first line leaves none.
    assert_eq!(out(&dir, 3)[2..], ["first 1"]);
    wait_until("it runs", || client.status("running") == 1);
    assert_eq!(client.ask("retry 2"), "ok id=2");
    expect_error(&client.ask("retry 2"), "no-job");
    expect_error(&client.ask("forget 2"), "no-job");
    assert_eq!(client.ask_list("list"), ["1 dead 1 a", "2 waiting 1 b", "3 running 1 first"]);
    kill_hard(pid);
    dir.write("go", "");
    start_script(&dir, GATE, &["retries=0"]);
    assert_eq!(ask(&dir, "wait 2"), "ok id=2 state=done exit=0");
    assert_eq!(out(&dir, 5)[3..], ["first 2", "b 2"], "behind the others");
    assert_eq!(Client::new(&dir).ask_list("list"), ["1 dead 1 a"]);
}

#[test]
fn all_dead_jobs_are_retried_behind_the_others() {
    let dir = Dir::new();
    let (_, client) = with_dead(&dir, &["a", "b", "c", "d", "e"]);
    drop(client);
    dir.zigsvc(&["stop"]).expect(0);
    let pid = start_script(&dir, GATE, &["retries=0"]);
    let mut client = Client::new(&dir);
    client.queue_all(&["x", "y"]);
    assert_eq!(out(&dir, 6)[5..], ["x 1"]);
    wait_until("the first runs", || client.status("running") == 1);
    assert_eq!(client.ask("retry dead"), "ok count=5");
    assert_eq!(client.ask("retry dead"), "ok count=0");
    assert_eq!((client.status("dead"), client.status("waiting"), client.status("running")), (0, 6, 1));
    kill_hard(pid);
    dir.write("go", "");
    start_script(&dir, GATE, &["retries=0"]);
    let ran = out(&dir, 13);
    assert_eq!(ran[6..], ["x 2", "y 1", "a 2", "b 2", "c 2", "d 2", "e 2"]);
    wait_until("all are done", || status(&dir, "jobs") == 7);
    assert_eq!(ask(&dir, "list"), "ok 0");
}

#[test]
fn who_waits_for_a_retried_job_gets_its_new_end() {
    let dir = Dir::new();
    let (_, mut client) = with_dead(&dir, &["a", "b"]);
    dir.write("go", "");
    assert_eq!(client.ask("retry dead"), "ok count=2");
    for id in [1, 2] {
        assert_eq!(client.ask(&format!("wait {id}")), format!("ok id={id} state=done exit=0"));
    }
}

#[test]
fn a_forgotten_job_is_gone_for_good() {
    let dir = Dir::new();
    let (pid, mut client) = with_dead(&dir, &["a", "b", "c", "d"]);
    assert_eq!(client.ask("forget 2"), "ok id=2");
    for request in ["forget 2", "retry 2", "cancel 2", "wait 2"] {
        expect_error(&client.ask(request), "no-job");
    }
    assert_eq!(client.ask_list("list"), ["1 dead 1 a", "3 dead 1 c", "4 dead 1 d"]);
    assert_eq!((client.status("dead"), client.status("room")), (3, 10000));
    kill_hard(pid);
    start_script(&dir, FAILING, &["retries=0"]);
    let mut client = Client::new(&dir);
    assert_eq!(list_ids(&mut client, "dead"), [1, 3, 4]);
    assert_eq!(client.ask("forget dead"), "ok count=3");
    assert_eq!(
        (client.ask("list").as_str(), client.status("dead"), client.status("room")),
        ("ok 0", 0, 10_000)
    );
    expect_error(&client.ask("wait 1"), "no-job");
    kill_hard(u32::try_from(client.status("pid")).unwrap());
    start_script(&dir, FAILING, &["retries=0"]);
    assert_eq!(ask(&dir, "list"), "ok 0");
    assert_eq!(dir.read("out"), "a 1\nb 1\nc 1\nd 1\n", "none ran again");
}

#[test]
fn only_dead_jobs_are_retried_or_forgotten() {
    let dir = Dir::new();
    start_script(&dir, GATE, &[]);
    let mut client = Client::new(&dir);
    client.queue_all(&jobs(50));
    wait_until("the first runs", || client.status("running") == 1);
    for id in [1, 2, 50, 51] {
        expect_error(&client.ask(&format!("retry {id}")), "no-job");
        expect_error(&client.ask(&format!("forget {id}")), "no-job");
    }
    assert_eq!(client.ask("forget dead"), "ok count=0");
    assert_eq!(list_ids(&mut client, "all"), (1..=50).collect::<Vec<u64>>());
}

// ----- drain and stop --------------------------------------------------------

#[test]
fn a_drain_finishes_what_is_there_and_stops() {
    let dir = Dir::new();
    start_script(&dir, GATE, &["interval=100ms"]);
    let (mut client, mut waiting) = (Client::new(&dir), Client::new(&dir));
    client.queue_all(&["a", "b", "c"]);
    wait_until("the first runs", || client.status("running") == 1);
    waiting.send("wait 3\n");
    assert_eq!(client.ask("drain"), "ok draining");
    expect_error(&client.ask("queue d"), "draining");
    assert_eq!(client.ask("drain"), "ok draining", "again");
    dir.append("queue", "later\n");
    assert_eq!(client.status_word("state"), "draining");
    // A claim would be made within this many turns.
    let beats = |dir: &Dir| dir.read("zigsvc.health").lines().nth(1).unwrap_or("").to_owned();
    for _ in 0..4 {
        let before = beats(&dir);
        wait_until("a heartbeat", || beats(&dir) != before);
    }
    assert_eq!(dir.read("queue"), "later\n", "it stays for the next start");
    assert_eq!((client.status("waiting"), client.status("running")), (2, 1));
    dir.write("go", "");
    assert_eq!(waiting.line(), "ok id=3 state=done exit=0");
    wait_until("it has stopped", || dir.lock_holder("zigsvc.pid").is_none());
    assert!(
        client.rest().is_empty() && !dir.path("zigsvc.sock").exists() && !dir.path("zigsvc.pid").exists()
    );
    wait_for_log(&dir, "daemon stopped, processed 3 total jobs");
    assert_eq!(dir.read("queue"), "later\n");
    start_script(&dir, GATE, &[]);
    assert_eq!(out(&dir, 4), ["a 1", "b 1", "c 1", "later 1"]);
}

#[test]
fn a_drain_waits_for_the_next_attempt_of_a_failed_job() {
    let dir = Dir::new();
    start_script(&dir, FAILING, &["retry_delay=200ms", "retries=100"]);
    let mut client = Client::new(&dir);
    client.queue("x");
    assert_eq!(client.ask("drain"), "ok draining");
    out(&dir, 2);
    dir.write("go", "");
    assert_eq!(client.ask("wait 1"), "ok id=1 state=done exit=0");
    wait_until("it has stopped", || dir.lock_holder("zigsvc.pid").is_none());
    wait_for_log(&dir, "daemon stopped, processed 1 total jobs");
}

#[test]
fn a_drain_waits_for_the_handler_of_a_cancelled_job() {
    let dir = Dir::new();
    let script = "trap '' TERM; echo $$ > leader; until [ -e go ]; do sleep 0.05; done";
    start_script(&dir, script, &["stop_timeout=10m"]);
    let mut client = Client::new(&dir);
    client.queue("x");
    pid_in(&dir, "leader");
    assert_eq!(client.ask("cancel 1"), "ok id=1 was=running");
    assert_eq!(client.ask("drain"), "ok draining");
    let answer = client.ask("status");
    assert_eq!((field(&answer, "state"), field(&answer, "running")), ("draining", "1"));
    dir.write("go", "");
    wait_until("it has stopped", || dir.lock_holder("zigsvc.pid").is_none());
    assert!(!dir.read("zigsvc.log").contains("will run again"));
}

#[test]
fn a_drain_with_nothing_to_do_stops_at_once() {
    let dir = Dir::new();
    let (_, mut client) = with_dead(&dir, &["dead ones do not count"]);
    assert_eq!(client.ask("drain"), "ok draining");
    assert!(client.rest().is_empty());
    wait_until("it has stopped", || dir.lock_holder("zigsvc.pid").is_none());
}

#[test]
fn a_stop_request_is_answered_and_stops() {
    let dir = Dir::new();
    let script = "echo x >> out; trap '' TERM; echo $$ > leader; while :; do sleep 0.05; done";
    let pid = start_script(&dir, script, &["stop_timeout=10m"]);
    let mut client = Client::new(&dir);
    client.queue("a");
    let leader = pid_in(&dir, "leader");
    assert_eq!(client.ask("stop"), "ok stopping");
    expect_error(&client.ask("queue b"), "stopping");
    assert_eq!(client.status_word("state"), "stopping");
    assert!(alive(pid) && alive(leader), "it has its time");
    kill(pid, "TERM");
    wait_until("it has stopped", || dir.lock_holder("zigsvc.pid").is_none());
    assert!(client.rest().is_empty());
    wait_for_log(&dir, "asks for a stop");
    assert!(UnixStream::connect(dir.path("zigsvc.sock")).is_err());
    start_script(&dir, "echo \"$ZIGSVC_ATTEMPT\" >> again", &[]);
    wait_until("the job runs again", || dir.read("again") == "1\n");
}
