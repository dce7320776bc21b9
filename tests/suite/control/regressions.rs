//! Mistakes of the control socket that were found once. Each test says what used to happen,
//! and which commit mended it. The contract is `docs/control.md`.

use crate::support::control::{
    Client, FAILING, GATE, ask, expect_error, jobs, nobody, pid_in, require_users, start, start_script,
    status, ticks,
};
use crate::support::small_disk::{SmallDisk, has_namespaces};
use crate::support::{Dir, heartbeat, kill, program, require_native, wait_until};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Starts a service with one dead job.
#[track_caller]
fn with_one_dead(dir: &Dir, options: &[&str]) -> (u32, Client) {
    let pid = start_script(dir, FAILING, &[&["retries=0"], options].concat());
    let mut client = Client::new(dir);
    client.queue("a");
    assert_eq!(client.ask("wait 1"), "ok id=1 state=dead exit=1");
    (pid, client)
}

/// Guards against a defect: the answer came with the next heartbeat, `interval` later.
///
/// Reproduced in 56d0981, mended in 227ddcc.
#[test]
fn all_dead_jobs_are_forgotten_at_once() {
    let dir = Dir::new();
    let (_, mut client) = with_one_dead(&dir, &["interval=10m", "stale_after=1h"]);
    assert_eq!(client.ask("forget dead"), "ok count=1");
}

/// Guards against a defect: the answer was `ok id=0 state=dead exit=1`, because ends that no
/// longer count are kept as job 0.
///
/// Reproduced in 56d0981, mended in 227ddcc.
#[test]
fn there_is_no_job_0_after_a_retry() {
    let dir = Dir::new();
    let (_, mut client) = with_one_dead(&dir, &[]);
    expect_error(&client.ask("wait 0"), "no-job");
    assert_eq!(client.ask("forget 1"), "ok id=1");
    expect_error(&client.ask("wait 0"), "no-job");
}

/// Guards against a defect: a refusal that follows new jobs is put off, and was counted each
/// time.
///
/// Reproduced in 56d0981, mended in 227ddcc.
#[test]
fn a_denial_behind_new_jobs_is_counted_once() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    start(&dir, &["allow_uid=nobody"]);
    let mut guest = nobody(&dir);
    guest.send("queue a\nqueue b\ncancel 1\n");
    assert_eq!(guest.lines(2), ["ok id=1", "ok id=2"]);
    expect_error(&guest.line(), "denied");
    assert_eq!(guest.status("denied"), 1);
}

/// Guards against a defect: the second of two clients that came in one turn got the place of
/// the first, whose request was not read yet. The first saw the end of the connection, and no answer.
///
/// Reproduced in 56d0981, mended in 227ddcc.
#[test]
fn newcomers_do_not_take_each_others_places() {
    let dir = Dir::new();
    let pid = start(&dir, &[]);
    let mut clients: Vec<_> = (0..15).map(|_| Client::new(&dir)).collect();
    for client in &mut clients {
        assert!(client.ask("status").starts_with("ok "));
    }
    let _silent = Client::new(&dir);
    wait_until("it is accepted", || clients[0].status("clients") == 16);
    kill(pid, "STOP");
    let mut newcomers: Vec<_> = (0..3).map(|_| Client::new(&dir)).collect();
    for newcomer in &mut newcomers {
        newcomer.send("status\n");
        newcomer.end_sending();
    }
    kill(pid, "CONT");
    let answers: Vec<_> = newcomers.iter_mut().map(Client::rest).collect();
    for answer in &answers {
        assert_eq!(answer.len(), 1, "each gets an answer: {answers:?}");
    }
}

/// Guards against a defect: the client got `err too-long` for ever, and kept its place.
///
/// Reproduced in 56d0981, mended in 227ddcc.
#[test]
fn who_may_nothing_is_denied_whatever_it_sends() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    start(&dir, &["allow_uid=12345"]);
    let mut client = nobody(&dir);
    let _ = client.try_send(("x".repeat(2000) + "\n").as_bytes());
    expect_error(&client.line(), "denied");
    assert!(client.rest().is_empty());
    assert_eq!(status(&dir, "denied"), 1);
}

/// Guards against a defect: the new mode was given to any file that had the socket's name,
/// through links too.
///
/// Reproduced in 56d0981, mended in 227ddcc.
#[test]
fn a_reload_does_not_touch_what_is_not_the_services_socket() {
    for link in [false, true] {
        let dir = Dir::new();
        let pid = start(&dir, &["interval=100ms"]);
        let mut client = Client::new(&dir);
        let path = dir.path("zigsvc.sock");
        dir.write("other", "");
        let before = fs::metadata(dir.path("other")).unwrap().mode();
        wait_until("something else has its name", || {
            let _ = fs::remove_file(&path);
            let other = dir.path("other");
            if link { std::os::unix::fs::symlink(other, &path) } else { fs::hard_link(other, &path) }.is_ok()
        });
        dir.write("zigsvc.conf", "allow_uid = [54321]\n");
        kill(pid, "HUP");
        wait_until("it has reloaded", || client.status("reloads") == 1);
        let after = fs::metadata(dir.path("other")).unwrap().mode();
        assert_eq!(format!("{after:o}"), format!("{before:o}"));
    }
}

/// Guards against a defect: a client that was let in before could keep asking.
///
/// Reproduced in 56d0981, mended in 227ddcc.
#[test]
fn a_reload_that_takes_a_right_away_ends_the_connections_that_had_it() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    dir.write("zigsvc.conf", "allow_uid = [\"nobody\"]\n");
    let pid = start(&dir, &[]);
    let mut guest = nobody(&dir);
    assert!(guest.ask("status").starts_with("ok "));
    dir.write("zigsvc.conf", "");
    // The reload makes the socket again, and a new connection could meet the moment without one.
    let mut owner = Client::new(&dir);
    kill(pid, "HUP");
    wait_until("it has reloaded", || owner.status("reloads") == 1);
    let _ = guest.try_send(b"queue x\n");
    assert!(guest.try_line().is_none_or(|answer| answer.starts_with("err denied ")));
    assert_eq!(status(&dir, "jobs") + status(&dir, "waiting"), 0);
}

/// Guards against a defect: the loop spun at full speed. The request waited for a new journal,
/// and during a stop none is written.
///
/// Reproduced in 56d0981, mended in 227ddcc.
#[test]
fn what_cannot_be_done_during_a_stop_does_not_keep_the_processor_busy() {
    if !require_native("the processor's time would be mostly QEMU's") {
        return;
    }
    let _measuring = crate::support::measuring();
    let dir = Dir::new();
    let (_, client) = with_one_dead(&dir, &[]);
    drop(client);
    dir.zigsvc(&["stop"]).expect(0);
    let script = "trap '' TERM; echo $$ > leader; while :; do sleep 1; done";
    let pid = start_script(&dir, script, &["stop_timeout=10m", "interval=250ms"]);
    let mut client = Client::new(&dir);
    client.queue("stubborn");
    pid_in(&dir, "leader");
    assert_eq!(client.ask("stop"), "ok stopping");
    let mut first = Client::new(&dir);
    first.send("retry dead\n");
    let mut second = Client::new(&dir);
    second.send("forget dead\n");
    wait_until("both are there", || client.status("clients") == 3);
    drop(first);
    wait_until("the first is gone", || client.status("clients") == 2);
    drop(client);
    let beats = || heartbeat(&dir, "zigsvc.health");
    let (began, used) = (beats(), ticks(pid));
    wait_until("eight heartbeats", || beats() >= began + 8);
    let used = ticks(pid) - used;
    kill(pid, "TERM");
    assert!(used < 50, "{used} ticks in eight heartbeats");
}

/// Guards against a defect: the end of the first attempt was reported although the job was
/// retried. A client that left while its request was carried out took the rest of it along.
///
/// Reproduced in 56d0981, mended in 227ddcc.
#[test]
fn who_leaves_after_retry_dead_leaves_no_old_ends() {
    let dir = Dir::new();
    start_script(
        &dir,
        "[ -e go ] || exit 1; until [ -e go2 ]; do sleep 0.05; done",
        &["retries=0", "workers=8"],
    );
    let mut client = Client::new(&dir);
    let texts: Vec<String> = jobs(300).iter().map(|text| text.to_owned() + &"x".repeat(980)).collect();
    client.queue_all(&texts);
    wait_until("all are dead", || client.status("dead") == 300);
    dir.write("go", "");
    let mut leaves = Client::new(&dir);
    leaves.send("retry dead\n");
    wait_until("it has begun", || dir.path("spool/journal.new").exists() || client.status("dead") == 0);
    drop(leaves);
    wait_until("all wait again", || client.status("dead") == 0);
    // One of those whose end is still known.
    let mut waiting = Client::new(&dir);
    waiting.send("wait 300\nstatus\n");
    dir.write("go2", "");
    assert_eq!(waiting.line(), "ok id=300 state=done exit=0");
    assert!(ask(&dir, "status").contains("dead=0"));
}

/// Guards against a defect: the client's job was counted and in no journal, and nothing could
/// be cancelled any more.
///
/// Mended in 5ec187f.
#[test]
fn who_goes_before_its_new_job_is_committed_leaves_no_ghost() {
    let dir = Dir::new();
    start(&dir, &[]);
    let mut client = Client::new(&dir);
    for _ in 0..30 {
        let mut hasty = Client::new(&dir);
        // The answer to status finds no client, before the commit.
        let _ = hasty.try_send(b"status\nqueue hasty\n");
    }
    wait_until("they are gone", || client.status("clients") == 1);
    wait_until("nothing is left", || client.status("waiting") == 0);
    assert_eq!(client.status("room"), 10_000);
    expect_error(&client.ask("cancel 999"), "no-job");
    assert_eq!(client.ask("drain wait"), "ok drained");
}

/// Guards against a defect: every later request got `err no-space`, until another record was
/// committed.
///
/// Mended in 5ec187f.
#[test]
fn one_refusal_for_want_of_room_is_not_remembered() {
    if !has_namespaces() {
        return;
    }
    let dir = Dir::new();
    let disk = SmallDisk::new(&dir, "256k");
    disk.start(&dir, &[]);
    let mut client = Client::new(&dir);
    disk.fill(&dir);
    wait_until("it is refused", || client.ask("queue x").starts_with("err no-space "));
    fs::remove_file(disk.path(&dir, "filler")).unwrap();
    wait_until("it is taken", || client.ask("queue y").starts_with("ok id="));
    wait_until("it is well", || client.status_word("degraded") == "none");
}

/// Guards against a defect: the lack lasted until the next client came, with 43,000 system
/// calls a second.
///
/// Mended in 5ec187f.
#[test]
fn a_socket_that_is_made_again_ends_the_lack_of_descriptors() {
    if !require_native("QEMU needs descriptors and files of its own")
        || !crate::support::require_tool("prlimit")
    {
        return;
    }
    let _measuring = crate::support::measuring();
    let dir = Dir::new();
    let pid = start(&dir, &["interval=250ms"]);
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let mut command = program("prlimit");
    command.args(["--pid", &pid.to_string(), &format!("--nofile={}", open + 2)]);
    crate::support::finish(command, None).expect(0);
    let mut clients: Vec<_> = (0..4).map(|_| Client::new(&dir)).collect();
    wait_until("it has no descriptors", || clients[0].status_word("degraded") == "descriptors");
    fs::remove_file(dir.path("zigsvc.sock")).unwrap();
    let mut first = clients.remove(0);
    drop(clients);
    wait_until("the socket is there again", || dir.path("zigsvc.sock").exists());
    wait_until("it is well", || first.status_word("degraded") == "none");
    let used = ticks(pid);
    let began = first.status("uptime");
    wait_until("two seconds have passed", || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        first.status("uptime") >= began + 2
    });
    assert!(ticks(pid) - used < 40, "{} ticks in two seconds", ticks(pid) - used);
}

/// Guards against a defect: the service never stopped, and reported nothing.
///
/// Mended in 5ec187f.
#[test]
fn a_drain_does_not_wait_for_lines_for_which_there_is_no_room() {
    let dir = Dir::new();
    let go = dir.path("go").display().to_string();
    start_script(&dir, &format!("until [ -e {go} ]; do sleep 0.02; done"), &["queue_max=2"]);
    dir.append("queue", "a\nb\nc\n");
    let mut client = Client::new(&dir);
    wait_until("it is full", || client.status("room") == 0);
    client.send("drain wait\n");
    wait_until("it drains", || Client::new(&dir).ask("status").contains("state=draining"));
    dir.write("go", "");
    assert_eq!(client.line(), "ok drained");
    wait_until("it has stopped", || dir.lock_holder("zigsvc.pid").is_none());
    // The end of the first made room for the third.
    assert!(dir.read("zigsvc.log").contains("daemon stopped, processed 3 total jobs"));
}

/// Guards against a defect: a dead socket stayed at its name for ever.
///
/// Mended in 5ec187f.
#[test]
fn a_dead_socket_at_its_name_is_replaced() {
    let dir = Dir::new();
    start(&dir, &["interval=250ms"]);
    let path = dir.path("zigsvc.sock");
    wait_until("a dead socket has its name", || {
        let _ = fs::remove_file(&path);
        std::os::unix::net::UnixListener::bind(&path).is_ok()
    });
    wait_until("it answers again", || {
        let Ok(stream) = std::os::unix::net::UnixStream::connect(&path) else { return false };
        let mut client = Client::over(stream);
        client.try_send(b"status\n").is_ok() && client.try_line().is_some_and(|line| line.starts_with("ok "))
    });
}

/// Guards against a defect: the service answered `drained`, and exited with 0.
///
/// Mended in 5ec187f.
#[test]
fn a_stop_during_a_drain_is_no_drain() {
    let dir = Dir::new();
    let pid = start_script(&dir, GATE, &[]);
    let mut client = Client::new(&dir);
    client.queue("a");
    client.send("drain wait\n");
    wait_until("it drains", || status(&dir, "waiting") + status(&dir, "running") == 1);
    kill(pid, "TERM");
    expect_error(&client.line(), "stopping");
}

/// Guards against a defect: nothing was started while a client left a page unread. The page
/// held up the new journal, and the journal held up the window.
///
/// Mended in 5ec187f.
#[test]
fn unread_pages_do_not_hold_up_the_jobs() {
    let dir = Dir::new();
    start_script(&dir, "until [ -e go ]; do sleep 0.05; done", &["workers=8"]);
    let mut client = Client::new(&dir);
    let texts: Vec<String> = jobs(1000).iter().map(|text| text.to_owned() + &"x".repeat(900)).collect();
    for some in texts.chunks(100) {
        client.queue_all(some);
    }
    let mut hog = Client::new(&dir);
    wait_until("nothing more is taken", || hog.send_some(&b"list\n".repeat(100)) == 0);
    dir.write("go", "");
    wait_until("all jobs ran", || client.status("jobs") == 1000);
    let journal = || fs::metadata(dir.path("spool/journal")).unwrap().len();
    wait_until("the journal is written again", || journal() < 500_000);
}

/// Guards against a defect: `wait` was never answered for a job that died in the turn in which
/// all dead jobs were forgotten, because its end was forgotten before the answer was sent.
#[test]
fn an_end_is_not_forgotten_before_those_who_wait_have_it() {
    let dir = Dir::new();
    start_script(&dir, "exit 1", &["workers=8", "retries=0", "sync=never"]);
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..7)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::new(&dir);
                    for _ in 0..20 {
                        let id = client.queue("a");
                        let answer = client.ask(&format!("wait {id}"));
                        // The job can be forgotten before the client waits for it.
                        if answer != format!("ok id={id} state=dead exit=1") {
                            expect_error(&answer, "no-job");
                        }
                    }
                })
            })
            .collect();
        let forgetting = scope.spawn(|| {
            let mut client = Client::new(&dir);
            while !ended.load(Ordering::Relaxed) {
                assert!(client.ask("forget dead").starts_with("ok count="));
            }
        });
        let waited: Vec<_> = waiting.into_iter().map(thread::ScopedJoinHandle::join).collect();
        ended.store(true, Ordering::Relaxed);
        assert!(forgetting.join().is_ok() && waited.iter().all(Result::is_ok));
    });
}
