//! Delayed jobs (`queue --after`), and a queue that is held (`hold`, `resume`).

use crate::support::control::{
    Client, REQUEST_COUNT, ask, expect_error, out, start_script, status, status_word,
};
use crate::support::{Dir, Running, holds_within, kill, kill_hard, let_pass, wait_until};
use std::time::{Duration, Instant};
use zigsvc::util::time::Duration as Span;

/// A handler that notes each job that ran.
const NOTES: &str = "echo \"$1\" >> \"${0%/*}/out\"";

/// Queues a job with `--after`, and returns its id.
#[track_caller]
fn after(dir: &Dir, delay: &str, job: &str) -> u64 {
    dir.zigsvc(&["queue", "--after", delay, job]).expect(0).out.trim().parse().unwrap()
}

#[track_caller]
fn list(dir: &Dir, state: &str) -> Vec<String> {
    dir.zigsvc(&["list", state]).expect(0).out.lines().map(str::to_owned).collect()
}

fn degraded(dir: &Dir) -> String {
    status_word(dir, "degraded")
}

#[test]
fn a_delayed_job_runs_late_and_not_early_and_is_listed_until_then() {
    let dir = Dir::new();
    start_script(&dir, NOTES, &[]);
    let began = Instant::now();
    assert_eq!((after(&dir, "3s", "later"), after(&dir, "1h", "much later")), (1, 2));
    dir.zigsvc(&["queue", "--wait", "at once"]).expect(0);
    let lines = list(&dir, "scheduled");
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("1 scheduled 0 due=") && lines[0].ends_with(" later"), "{lines:?}");
    let due = lines[1].split("due=").nth(1).unwrap().split(' ').next().unwrap();
    let due: u64 = due.parse().unwrap();
    assert!((3590..=3600).contains(&due), "{due}");
    assert!(list(&dir, "waiting").is_empty());
    assert_eq!(dir.zigsvc(&["list"]).expect(0).out.lines().count(), 2);
    assert_eq!((status(&dir, "scheduled"), status(&dir, "waiting")), (2, 2));
    assert_eq!(out(&dir, 2), ["at once", "later"]);
    assert!(began.elapsed() >= Duration::from_secs(3));
    assert_eq!((status(&dir, "scheduled"), status(&dir, "waiting")), (1, 1));
    assert_eq!(dir.zigsvc(&["cancel", "2"]).expect(0).out, "zigsvc: job 2 cancelled\n");
    assert_eq!((status(&dir, "scheduled"), status(&dir, "waiting")), (0, 0));
    assert!(list(&dir, "scheduled").is_empty());
}

#[test]
fn durations_out_of_range_are_refused_with_the_range() {
    let dir = Dir::new();
    start_script(&dir, NOTES, &[]);
    for bad in ["0", "999ms", "8761h", "-1s", "1d", "soon", "", "99999999999999999999h"] {
        let ran = dir.zigsvc(&["queue", "--after", bad, "job"]).expect(2);
        assert!(ran.err.contains("1s to 8760h") && ran.err.lines().count() == 1, "{bad}: {}", ran.err);
        let answer = ask(&dir, &format!("after {bad} job"));
        expect_error(&answer, "bad-request");
    }
    expect_error(&ask(&dir, "after 1s"), "bad-request");
    expect_error(&ask(&dir, "after"), "bad-request");
    expect_error(&ask(&dir, &format!("after 1s {}", "x".repeat(1001))), "too-long");
    assert_eq!((status(&dir, "waiting"), status(&dir, "scheduled")), (0, 0));
    assert_eq!(after(&dir, "8760h", "in a year"), 1);
    assert!(list(&dir, "scheduled")[0].contains("due=315"));
}

#[test]
fn a_wait_for_a_delayed_job_gets_its_end() {
    let dir = Dir::new();
    start_script(&dir, "exit 7", &["retries=0"]);
    let ran = dir.zigsvc(&["queue", "--wait", "--after", "1s", "job"]).expect(7);
    assert!(!format!("{}{}", ran.out, ran.err).is_empty());
    let id = after(&dir, "1h", "never");
    let mut client = Client::new(&dir);
    client.send(format!("wait {id}\n"));
    expect_error(&ask(&dir, &format!("retry {id}")), "no-job");
    expect_error(&ask(&dir, &format!("forget {id}")), "no-job");
    assert_eq!(ask(&dir, &format!("cancel {id}")), format!("ok id={id} was=waiting"));
    assert!(client.line().starts_with(&format!("ok id={id} state=dead exit=143")));
}

#[test]
fn the_output_of_a_delayed_job_comes_to_its_waiter() {
    let dir = Dir::new();
    start_script(&dir, "echo \"attempt $ZIGSVC_ATTEMPT of $1\"; exit 7", &["retries=1", "retry_delay=10ms"]);
    let ran = dir.zigsvc(&["queue", "--wait", "--after", "1s", "job"]).expect(7);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("attempt 1 of job\nattempt 2 of job\n", "1\n"));
    // The same by the protocol, in the row of answers, and with the errors of `after`.
    let mut client = Client::new(&dir);
    client.send("after! 1s other\nstatus\n");
    assert_eq!(client.line(), "ok id=2");
    let lines = client.lines(3);
    assert_eq!(lines, ["out attempt 1 of other", "out attempt 2 of other", "ok id=2 state=dead exit=7"]);
    assert!(client.line().starts_with("ok pid="));
    for bad in ["after!", "after! 1s", "after! 999ms x", "after! soon x"] {
        expect_error(&client.ask(bad), "bad-request");
    }
    let (job, mut canceller) = (client.queue("plain"), Client::new(&dir));
    client.send("after! 1h never\n");
    assert_eq!(client.line(), format!("ok id={}", job + 1));
    assert_eq!(canceller.ask(&format!("cancel {}", job + 1)), format!("ok id={} was=waiting", job + 1));
    assert_eq!(client.line(), format!("ok id={} state=dead exit=143 why=cancelled", job + 1));
}

/// Checks that a wait has one clear answer, or none as long as the job can still end.
#[test]
fn a_wait_for_a_job_in_any_state_is_answered_or_continues() {
    let dir = Dir::new();
    let pid = start_script(&dir, "exit 3", &["retries=0"]);
    dir.zigsvc(&["queue", "--wait", "fails"]).expect(3);
    dir.zigsvc(&["hold"]).expect(0);
    let (held, delayed) = (dir.zigsvc(&["queue", "held"]).expect(0).out, after(&dir, "1h", "delayed"));
    assert_eq!((held.as_str(), delayed), ("2\n", 3));
    let mut waiters = ["wait 2", "follow 2", "wait 3", "follow 3"].map(|request| {
        let mut client = Client::new(&dir);
        client.send(format!("{request}\n"));
        client
    });
    for never in ["0", "4", "18446744073709551615"] {
        expect_error(&ask(&dir, &format!("wait {never}")), "no-job");
        expect_error(&ask(&dir, &format!("follow {never}")), "no-job");
        dir.zigsvc(&["wait", never]).expect(125);
    }
    dir.zigsvc(&["wait", "1"]).expect(3);
    dir.zigsvc(&["forget", "1"]).expect(0);
    dir.zigsvc(&["wait", "1"]).expect(125);
    // A restart keeps the hold, the delay and the waiters of the command line.
    let [mut waits_held, mut waits_delayed] = [held.trim(), "3"].map(|id| {
        let mut command = dir.command();
        command.args(["wait", id]);
        Running::new(command)
    });
    wait_until("both are connected", || status(&dir, "clients") == 7);
    kill_hard(pid);
    start_script(&dir, "exit 3", &["retries=0"]);
    for waiter in &mut waiters {
        assert!(waiter.try_line().is_none_or(|line| line.starts_with("err stopping")), "the service died");
    }
    dir.zigsvc(&["resume"]).expect(0);
    assert_eq!(waits_held.code(), 3);
    assert!(waits_delayed.runs());
    dir.zigsvc(&["cancel", "3"]).expect(0);
    assert_eq!(waits_delayed.code(), 143);
}

#[test]
fn ten_thousand_delayed_jobs_survive_kills_and_run_once_each() {
    let dir = Dir::new();
    let options = ["handler=log", "queue_max=20000", "log_max=8m"];
    let pid = dir.start(&options);
    let input: String = (0..10_000).map(|number| format!("job {number}\n")).collect();
    let ran = dir.zigsvc_with_input(&["queue", "--after", "1h", "-"], input.as_bytes()).expect(0);
    assert_eq!(ran.out.lines().count(), 10_000);
    let mut client = Client::new(&dir);
    assert_eq!((client.status("scheduled"), client.status("running")), (10_000, 0));
    // They hold up no other job.
    client.queue("now");
    wait_until("the other job ran", || status(&dir, "jobs") == 1);
    kill_hard(pid);
    let pid = dir.start(&options);
    assert_eq!((status(&dir, "scheduled"), status(&dir, "waiting")), (10_000, 10_000));
    // Those of one second run while the others wait, in the order of their ids.
    let ids: String = (0..1000).map(|number| format!("soon {number}\n")).collect();
    dir.zigsvc_with_input(&["queue", "--after", "1s", "-"], ids.as_bytes()).expect(0);
    kill_hard(pid);
    let pid = dir.start(&options);
    wait_until("the thousand ran", || {
        status(&dir, "scheduled") == 10_000 && status(&dir, "waiting") == 10_000
    });
    let soon: Vec<String> =
        crate::support::processed(&dir).into_iter().filter(|job| job.starts_with("soon")).collect();
    for number in 0..1000 {
        let runs = soon.iter().filter(|job| **job == format!("soon {number}")).count();
        assert!((1..=2).contains(&runs), "soon {number} ran {runs} times");
    }
    kill(pid, "TERM");
    wait_until("it stopped", || dir.lock_holder("zigsvc.pid").is_none());
    dir.start(&options);
    assert_eq!(status(&dir, "scheduled"), 10_000);
    let mut client = Client::new(&dir);
    assert!(client.ask("list scheduled").starts_with("ok 100"));
}

#[test]
fn a_queue_that_is_held_starts_nothing_and_says_so_through_restarts() {
    let dir = Dir::new();
    let pid = start_script(&dir, NOTES, &[]);
    assert_eq!(dir.zigsvc(&["hold"]).expect(0).out, "zigsvc: jobs held\n");
    assert_eq!(dir.zigsvc(&["hold"]).expect(0).out, "zigsvc: jobs held\n");
    assert_eq!(degraded(&dir), "held");
    dir.zigsvc(&["queue", "first"]).expect(0);
    after(&dir, "1s", "second");
    dir.append("queue", "third\n");
    wait_until("the line was taken", || status(&dir, "waiting") == 3);
    wait_until("the delayed one is due", || status(&dir, "scheduled") == 0);
    expect_error(&ask(&dir, "drain"), "held");
    dir.zigsvc(&["drain"]).expect(1);
    kill_hard(pid);
    start_script(&dir, NOTES, &[]);
    assert_eq!((degraded(&dir).as_str(), status(&dir, "waiting")), ("held", 3));
    dir.zigsvc(&["restart"]).expect(0);
    assert_eq!(degraded(&dir), "held");
    let_pass(Span::from_ms(500));
    assert!(!dir.path("out").exists(), "none was started");
    assert_eq!(dir.zigsvc(&["resume"]).expect(0).out, "zigsvc: jobs resumed\n");
    assert_eq!(out(&dir, 3).len(), 3);
    assert_eq!(dir.zigsvc(&["resume"]).expect(0).out, "zigsvc: jobs resumed\n");
    assert_eq!(degraded(&dir), "none");
}

#[test]
fn a_running_job_ends_while_the_queue_is_held_and_its_retry_waits() {
    let dir = Dir::new();
    let text = format!("{NOTES}; while [ ! -e \"${{0%/*}}/go\" ]; do sleep 0.02; done; exit 1");
    start_script(&dir, &text, &["retries=5", "retry_delay=10ms"]);
    dir.zigsvc(&["queue", "job"]).expect(0);
    assert_eq!(out(&dir, 1), ["job"]);
    dir.zigsvc(&["hold"]).expect(0);
    dir.write("go", "");
    wait_until("its attempt has failed", || status(&dir, "failed") == 1);
    assert!(!holds_within(Duration::from_millis(400), || out_count(&dir) > 1), "a retry was started");
    dir.zigsvc(&["cancel", "1"]).expect(0);
    dir.zigsvc(&["resume"]).expect(0);
    assert_eq!(out_count(&dir), 1);
}

fn out_count(dir: &Dir) -> usize {
    dir.read("out").lines().count()
}

#[test]
fn a_drain_leaves_jobs_that_are_not_due_for_the_next_start() {
    let dir = Dir::new();
    start_script(&dir, NOTES, &[]);
    after(&dir, "1h", "later");
    dir.zigsvc(&["queue", "now"]).expect(0);
    dir.zigsvc(&["drain", "--wait"]).expect(0);
    assert_eq!(out(&dir, 1), ["now"]);
    start_script(&dir, NOTES, &[]);
    assert_eq!((status(&dir, "scheduled"), status(&dir, "waiting")), (1, 1));
}

#[test]
fn a_hold_in_the_middle_of_a_drain_is_refused() {
    let dir = Dir::new();
    start_script(&dir, &format!("{NOTES}; while [ ! -e \"${{0%/*}}/go\" ]; do sleep 0.02; done"), &[]);
    dir.zigsvc(&["queue", "job"]).expect(0);
    assert_eq!(out(&dir, 1), ["job"]);
    dir.zigsvc(&["drain"]).expect(0);
    expect_error(&ask(&dir, "hold"), "draining");
    expect_error(&ask(&dir, "after 1s x"), "draining");
    assert_eq!(ask(&dir, "resume"), "ok resumed");
    dir.zigsvc(&["hold"]).expect(1);
    dir.write("go", "");
    wait_until("it stopped", || dir.lock_holder("zigsvc.pid").is_none());
}

#[test]
fn many_delayed_jobs_of_one_client_share_a_commit() {
    let dir = Dir::new();
    start_script(&dir, NOTES, &[]);
    let before = status(&dir, "fsyncs");
    let mut client = Client::new(&dir);
    client.send("after 1h a\nqueue b\nafter 1h c\n");
    let answers = client.lines(3);
    assert_eq!(answers, ["ok id=1", "ok id=2", "ok id=3"]);
    assert!(status(&dir, "fsyncs") - before <= 8);
    assert_eq!(client.ask_list("help").len(), REQUEST_COUNT);
}
