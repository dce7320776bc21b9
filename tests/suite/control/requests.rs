//! The effect of the control socket on jobs: adding, listing, waiting and watching, and the
//! state after a kill. The contract is `docs/control.md`.

use crate::support::control::{
    Client, FAILING, GATE, SetOnDrop, ask, expect_error, field, id_in, jobs, limit_files, list_ids, out,
    start, start_script, status,
};
use crate::support::random::Random;
use crate::support::small_disk::{SmallDisk, has_namespaces};
use crate::support::{
    Dir, alive, kill, kill_hard, log_lines_matching, processed, require_native, require_tool, under_qemu,
    wait_for_jobs, wait_for_log, wait_until,
};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::collections::HashSet;
use std::fs;
use std::sync::Mutex;

// ----- queue -----------------------------------------------------------------

#[test]
fn jobs_run_in_the_order_in_which_they_were_acknowledged() {
    let dir = Dir::new();
    start(&dir, &[]);
    let texts = jobs(300);
    let ids = Client::new(&dir).queue_all(&texts);
    assert_eq!(ids, (1..=300).collect::<Vec<u64>>());
    wait_for_jobs(&dir, 300);
    assert_eq!(processed(&dir), texts);
}

#[test]
fn the_queue_file_and_the_socket_each_keep_their_order() {
    let dir = Dir::new();
    start(&dir, &[]);
    let mut client = Client::new(&dir);
    for part in 0..10 {
        let lines: String = (0..20).map(|number| format!("file {part}.{number}\n")).collect();
        dir.append("queue", &lines);
        let texts: Vec<_> = (0..20).map(|number| format!("socket {part}.{number}")).collect();
        client.queue_all(&texts);
    }
    wait_for_jobs(&dir, 400);
    for source in ["file", "socket"] {
        let expected: Vec<String> =
            (0..200).map(|number| format!("{source} {}.{}", number / 20, number % 20)).collect();
        let mut ran = processed(&dir);
        ran.retain(|text| text.starts_with(source));
        assert_eq!(ran, expected);
    }
    assert_eq!(processed(&dir).len(), 400);
}

#[test]
fn a_full_queue_refuses_and_takes_again_when_there_is_room() {
    let dir = Dir::new();
    start_script(&dir, GATE, &["queue_max=5"]);
    let mut client = Client::new(&dir);
    client.send("queue a\nqueue b\nqueue c\nqueue d\nqueue e\nqueue f\nqueue g\nstatus\n");
    let answers = client.lines(8);
    assert_eq!(answers[..5], ["ok id=1", "ok id=2", "ok id=3", "ok id=4", "ok id=5"]);
    expect_error(&answers[5], "full");
    expect_error(&answers[6], "full");
    assert_eq!(field(&answers[7], "room"), "0");
    assert_eq!(ask(&dir, "cancel 3"), "ok id=3 was=waiting");
    assert_eq!(client.queue("h"), 6);
    expect_error(&client.ask("queue i"), "full");
    dir.write("go", "");
    wait_until("there is room", || client.status("room") == 5);
    assert_eq!(client.queue("j"), 7);
    assert_eq!(out(&dir, 6), ["a 1", "b 1", "d 1", "e 1", "h 1", "j 1"]);
}

#[test]
fn dead_jobs_do_not_fill_the_queue_and_the_oldest_of_too_many_goes_with_its_text() {
    let dir = Dir::new();
    start_script(&dir, FAILING, &["queue_max=2", "retries=0", "dead_max=3", "log_max=0"]);
    let mut client = Client::new(&dir);
    for id in 1..=5 {
        client.queue(&format!("text {id}"));
        assert_eq!(client.ask(&format!("wait {id}")), format!("ok id={id} state=dead exit=1"));
    }
    wait_until("two are dropped", || client.status("dead_dropped") == 2);
    assert_eq!((client.status("dead"), client.status("room")), (3, 2));
    let log = dir.read("zigsvc.log");
    for id in 1..=2 {
        let told = format!("[WARN] job {id} is dropped, because more than 3 are dead: text {id}\n");
        assert_eq!(log_lines_matching(&log, told.trim_end()), 1, "{log}");
    }
    assert_eq!(
        dir.zigsvc(&["list", "dead"]).expect(0).out,
        "3 dead 1 text 3\n4 dead 1 text 4\n5 dead 1 text 5\n"
    );
    // All at once may exceed queue_max.
    assert_eq!(client.ask("retry dead"), "ok count=3");
    wait_until("they failed again", || client.status("dead") == 3 && client.status("waiting") == 0);
    dir.zigsvc(&["stop"]).expect(0);
    start_script(&dir, FAILING, &["dead_max=1"]);
    wait_until("one is left", || Client::new(&dir).status("dead") == 1);
}

#[test]
fn a_queue_that_is_full_for_too_long_is_a_degraded_state_until_it_moves() {
    let dir = Dir::new();
    start_script(&dir, GATE, &["queue_max=2", "stale_after=1s", "interval=200ms", "log_max=0"]);
    let mut client = Client::new(&dir);
    client.send("queue a\nqueue b\nstatus\n");
    assert_eq!(field(&client.lines(3)[2], "degraded"), "none", "it is full, and has refused nothing");
    expect_error(&client.ask("queue c"), "full");
    let named = |name: &str| field(&ask(&dir, "status"), "degraded") == name;
    wait_until("it is named", || named("queue-full"));
    wait_for_log(&dir, "[WARN] queue: full, 2 jobs are waiting or running, and none has ended");
    dir.write("go", "");
    wait_until("it moves", || named("none"));
    assert_eq!(log_lines_matching(&dir.read("zigsvc.log"), "queue: it moves again"), 1);
    // A line of the queue file that finds no room is refused, too.
    std::fs::remove_file(dir.path("go")).unwrap();
    dir.append("queue", "d\ne\nf\n");
    wait_until("it is named again", || named("queue-full"));
    dir.write("go", "");
    wait_until("it moves again", || named("none"));
    wait_until("all ran", || client.status("jobs") == 5);
}

#[test]
fn many_clients_share_their_commits_and_every_id_is_given_once() {
    let dir = Dir::new();
    start(&dir, &["handler=shell", "queue_max=100000"]);
    let mut client = Client::new(&dir);
    client.queue("exec sleep 300");
    wait_until("it runs", || client.status("running") == 1);
    let each = if under_qemu() { 50 } else { 200 };
    let before = client.status("fsyncs");
    let ids = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for number in 0..15 {
            let (dir, ids) = (&dir, &ids);
            scope.spawn(move || {
                let texts: Vec<_> = (0..each).map(|job| format!("echo {number} {job}")).collect();
                let mine = Client::new(dir).queue_all(&texts);
                assert!(mine.is_sorted(), "{mine:?}");
                ids.lock().unwrap().extend(mine);
            });
        }
    });
    let mut ids = ids.into_inner().unwrap();
    ids.sort_unstable();
    assert_eq!(ids, (2..=15 * each + 1).collect::<Vec<u64>>());
    assert_eq!(client.status("waiting"), 15 * each);
    let fsyncs = client.status("fsyncs") - before;
    assert!(fsyncs < 15 * each / 8, "{fsyncs} for {} jobs", 15 * each);
    assert!(fsyncs >= each / 40, "{fsyncs}: one turn takes at most 40 of a client");
}

#[test]
fn acknowledged_jobs_survive_kills_at_any_moment() {
    let dir = Dir::new();
    let rounds = if under_qemu() { 2 } else { 6 };
    let acknowledged = Mutex::new(Vec::new());
    let mut random = Random::new(12_345);
    for round in 0..rounds {
        let pid = start(&dir, &["queue_max=1000000"]);
        let enough = acknowledged.lock().unwrap().len() + random.index(400);
        let count = AtomicUsize::new(acknowledged.lock().unwrap().len());
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _ends = SetOnDrop(&over);
            for number in 0..16 {
                let (dir, acknowledged, count, over) = (&dir, &acknowledged, &count, &over);
                let mut client = Client::new(dir);
                scope.spawn(move || {
                    for job in 0.. {
                        // Some wait for each answer, some send a few ahead.
                        let texts: Vec<_> =
                            (0..=number % 4).map(|part| format!("{round}.{number}.{job}.{part}")).collect();
                        let requests: String = texts.iter().map(|text| format!("queue {text}\n")).collect();
                        if over.load(Ordering::Relaxed) || client.try_send(requests.as_bytes()).is_err() {
                            return;
                        }
                        for text in texts {
                            let Some(answer) = client.try_line() else { return };
                            id_in(&answer);
                            acknowledged.lock().unwrap().push(text);
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
            wait_until("enough are acknowledged", || count.load(Ordering::Relaxed) >= enough);
            kill(pid, "KILL");
        });
        wait_until("it is gone", || !alive(pid));
    }
    let acknowledged = acknowledged.into_inner().unwrap();
    assert!(acknowledged.len() > 10, "{}", acknowledged.len());
    start(&dir, &["queue_max=1000000"]);
    wait_until("all are done", || status(&dir, "waiting") == 0);
    let ran: HashSet<String> = processed(&dir).into_iter().collect();
    let lost: Vec<_> = acknowledged.iter().filter(|text| !ran.contains(*text)).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), acknowledged.len());
}

// ----- a full disk -----------------------------------------------------------

#[test]
fn a_full_disk_refuses_new_jobs_and_loses_none() {
    if !has_namespaces() {
        return;
    }
    let dir = Dir::new();
    let disk = SmallDisk::new(&dir, "256k");
    dir.write_executable("handler", &format!("#!/bin/sh\ncd {}\n{GATE}\n", dir.as_arg()));
    disk.start(&dir, &[&format!("handler={}", dir.path("handler").display())]);
    let mut client = Client::new(&dir);
    let mut expected: Vec<_> = (1..=20).map(|number| format!("old {number}")).collect();
    client.queue_all(&expected);
    wait_until("the first runs", || client.status("running") == 1);
    disk.fill(&dir);
    // A job that still fits into the journal's last page may be taken.
    let new: Vec<_> = (1..=60).map(|number| format!("{number} {}", "x".repeat(900))).collect();
    let (mut refused, mut other) = (0, Client::new(&dir));
    for text in &new {
        let answer = client.ask(&format!("queue {text}"));
        if answer.starts_with("ok ") {
            id_in(&answer);
            expected.push(text.clone());
        } else {
            expect_error(&answer, "no-space");
            refused += 1;
        }
    }
    assert!(refused >= 50, "{refused}");
    // A group gets one answer each.
    let group: String = new.iter().map(|text| format!("queue {text}\n")).collect();
    client.send(group);
    client.send("nonsense\n");
    for answer in client.lines(60) {
        expect_error(&answer, "no-space");
    }
    expect_error(&client.line(), "bad-request");
    assert!(other.status_word("degraded").contains("spool"));
    assert_eq!(other.status("waiting"), expected.len() as u64 - 1);
    assert_eq!(list_ids(&mut other, "all").len(), expected.len());
    fs::remove_file(disk.path(&dir, "filler")).unwrap();
    wait_until("it takes jobs again", || client.ask("queue new").starts_with("ok id="));
    expected.push("new".to_owned());
    wait_until("it is well again", || !other.status_word("degraded").contains("spool"));
    dir.write("go", "");
    let expected: Vec<_> = expected.iter().map(|text| format!("{text} 1")).collect();
    assert_eq!(out(&dir, expected.len()), expected);
    wait_until("all are done", || client.status("waiting") == 0);
    assert_eq!(client.status("dead"), 0);
}

#[test]
fn a_group_that_cannot_be_written_is_refused_and_not_in_the_queue() {
    // QEMU itself would get the signal of this limit.
    if !require_native("QEMU needs descriptors and files of its own") || !require_tool("prlimit") {
        return;
    }
    let dir = Dir::new();
    let pid = start_script(&dir, GATE, &[]);
    let mut client = Client::new(&dir);
    let first: Vec<_> = (0..50).map(|number| format!("{number} {}", "x".repeat(900))).collect();
    client.queue_all(&first);
    wait_until("the first runs", || client.status("running") == 1);
    // The disk says that there is room, and then refuses in the middle of a group.
    limit_files(pid, &format!("{}:unlimited", fs::metadata(dir.path("spool/journal")).unwrap().len() + 3000));
    let (mut accepted, mut refused) = ((1..=50).collect::<Vec<u64>>(), 0);
    let mut clients: Vec<_> = (0..4).map(|_| Client::new(&dir)).collect();
    for client in &mut clients {
        client.send("queue small\n".repeat(100) + "wait 999\n");
    }
    for client in &mut clients {
        for answer in client.lines(100) {
            if answer.starts_with("ok ") {
                accepted.push(id_in(&answer));
            } else {
                expect_error(&answer, "no-space");
                refused += 1;
            }
        }
        expect_error(&client.line(), "no-job");
    }
    assert!(refused > 0 && accepted.len() + refused == 450, "{refused} of {accepted:?}");
    accepted.sort_unstable();
    assert_eq!(list_ids(&mut client, "all"), accepted);
    assert_eq!(client.status("waiting") + 1, accepted.len() as u64);
    limit_files(pid, "unlimited:unlimited");
    wait_until("it takes jobs again", || client.ask("queue last").starts_with("ok id="));
    dir.write("go", "");
    assert_eq!(out(&dir, accepted.len() + 1).len(), accepted.len() + 1);
    wait_until("all are done", || client.status("waiting") + client.status("running") == 0);
}

#[test]
fn a_cancellation_stands_beside_a_group_that_is_refused() {
    if !require_native("QEMU needs descriptors and files of its own") || !require_tool("prlimit") {
        return;
    }
    let dir = Dir::new();
    let pid = start_script(&dir, GATE, &["interval=100ms"]);
    let (mut one, mut other) = (Client::new(&dir), Client::new(&dir));
    let first: Vec<_> = (0..60).map(|number| format!("{number} {}", "x".repeat(900))).collect();
    one.queue_all(&first);
    wait_until("the first runs", || one.status("running") == 1);
    // Its start is in the journal too, so that nothing else is written.
    let length = || fs::metadata(dir.path("spool/journal")).unwrap().len();
    let mut before = 0;
    wait_until("the journal is quiet", || core::mem::replace(&mut before, length()) == length());
    // The client that came first is mostly served first. That is by turns the client with the
    // group and the one with the other request.
    for (id, group_first) in [(5, true), (7, false), (9, true), (11, false)] {
        let (adds, client) = if group_first { (&mut one, &mut other) } else { (&mut other, &mut one) };
        // The space for starts and ends was reserved before there was a limit.
        limit_files(pid, &format!("{}:unlimited", length() + 300));
        // Both are there in one turn.
        kill(pid, "STOP");
        wait_until("it has stopped", || crate::support::process_state(pid) == Some('T'));
        adds.send("queue 0123456789abcdef\n".repeat(40));
        client.send(format!("cancel {id}\n"));
        kill(pid, "CONT");
        for answer in adds.lines(40) {
            expect_error(&answer, "no-space");
        }
        assert_eq!(client.line(), format!("ok id={id} was=waiting"));
        limit_files(pid, "unlimited:unlimited");
        wait_until("it is well again", || !client.status_word("degraded").contains("spool"));
    }
    kill_hard(pid);
    start_script(&dir, GATE, &[]);
    let left: Vec<u64> = (1..=60).filter(|id| ![5, 7, 9, 11].contains(id)).collect();
    assert_eq!(list_ids(&mut Client::new(&dir), "all"), left);
}

// ----- list ------------------------------------------------------------------

#[test]
fn list_shows_each_job_once_in_pages_of_a_hundred() {
    let dir = Dir::new();
    start_script(&dir, GATE, &[]);
    let mut client = Client::new(&dir);
    let texts = jobs(250);
    client.queue_all(&texts);
    wait_until("the first runs", || client.status("running") == 1);
    let first = client.ask_list("list");
    assert_eq!(
        (first.len(), first[0].as_str(), first[99].as_str()),
        (100, "1 running 1 job 1", "100 waiting 0 job 100")
    );
    assert_eq!(client.ask_list("list all"), first);
    let second = client.ask_list("list all 100");
    let expected: Vec<String> = (101..=200).map(|id| format!("{id} waiting 0 job {id}")).collect();
    assert_eq!(second, expected);
    assert_eq!(client.ask_list("list all 200").len(), 50);
    assert_eq!(client.ask_list("list all 249"), ["250 waiting 0 job 250"]);
    assert_eq!(client.ask("list all 250"), "ok 0");
    assert_eq!(client.ask("list all 18446744073709551615"), "ok 0");
    assert_eq!(client.ask_list("list running"), ["1 running 1 job 1"]);
    assert_eq!(client.ask("list running 1"), "ok 0");
    assert_eq!(client.ask("list dead"), "ok 0");
    assert_eq!(list_ids(&mut client, "waiting"), (2..=250).collect::<Vec<u64>>());
    assert_eq!(list_ids(&mut client, "all"), (1..=250).collect::<Vec<u64>>());
}

#[test]
fn list_tells_states_and_attempts() {
    let dir = Dir::new();
    let script =
        "case $1 in dead) exit 3;; later) [ -e never ];; gate) until [ -e go ]; do sleep 0.05; done;; esac";
    start_script(&dir, script, &["retries=1", "retry_delay=10ms"]);
    let mut client = Client::new(&dir);
    assert_eq!(client.queue("dead"), 1);
    assert_eq!(client.ask("wait 1"), "ok id=1 state=dead exit=3");
    dir.write("zigsvc.conf", "");
    dir.zigsvc(&["stop"]).expect(0);
    start_script(&dir, script, &["retries=1", "retry_delay=10m"]);
    let mut client = Client::new(&dir);
    for text in ["later", "gate", "plain"] {
        client.queue(text);
    }
    wait_until("the gate is reached", || client.ask_list("list running") == ["3 running 1 gate"]);
    let all = ["1 dead 2 dead", "2 waiting 1 later", "3 running 1 gate", "4 waiting 0 plain"];
    assert_eq!(client.ask_list("list"), all);
    assert_eq!(client.ask_list("list dead"), all[..1]);
    assert_eq!(client.ask_list("list waiting"), [all[1], all[3]]);
    assert_eq!(client.ask_list("list waiting 2"), all[3..]);
    assert_eq!(client.ask_list("list all 2"), all[2..]);
}

#[test]
fn list_shows_the_text_as_it_is() {
    let dir = Dir::new();
    start_script(&dir, GATE, &[]);
    let mut client = Client::new(&dir);
    let mut text: Vec<u8> = (1..=255).filter(|byte| *byte != b'\n').collect();
    text.push(b'.');
    text.insert(0, b'.');
    client.send([b"queue ", &text[..], b"\n"].concat());
    assert_eq!(client.line(), "ok id=1");
    client.send("list\n");
    assert_eq!(client.line(), "ok 1");
    let line = client.bytes().unwrap();
    let start = line.len() - text.len();
    assert_eq!(line[start..], text);
    assert!(matches!(&line[..start], b"1 running 1 " | b"1 waiting 0 "), "{:?}", &line[..start]);
}

#[test]
fn clients_that_list_at_the_same_time_each_get_whole_pages() {
    let dir = Dir::new();
    start_script(&dir, GATE, &[]);
    let texts: Vec<String> = (1..=150).map(|number| format!("{number} {}", "x".repeat(900))).collect();
    Client::new(&dir).queue_all(&texts);
    wait_until("the first runs", || status(&dir, "running") == 1);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::new(&dir);
                for _ in 0..5 {
                    let mut lines = client.ask_list("list");
                    lines.extend(client.ask_list("list all 100"));
                    let shown: Vec<_> =
                        lines.iter().map(|line| line.splitn(4, ' ').nth(3).unwrap()).collect();
                    assert_eq!(shown, texts);
                }
            });
        }
    });
}

#[test]
fn pages_are_right_while_the_journal_is_written_anew() {
    let dir = Dir::new();
    start_script(&dir, GATE, &[]);
    let mut client = Client::new(&dir);
    // A walk through it takes some turns, and so does a new journal.
    let texts: Vec<String> = (1..=400).map(|number| format!("{number} {}", "x".repeat(900))).collect();
    client.queue_all(&texts);
    wait_until("the first runs", || client.status("running") == 1);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = SetOnDrop(&over);
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = Client::new(&dir);
                while !over.load(Ordering::Relaxed) {
                    let mut last = 0;
                    for line in client.ask_list("list all 300") {
                        let words: Vec<&str> = line.splitn(5, ' ').collect();
                        let id: u64 = words[0].parse().unwrap();
                        assert!(id > last && (301..=400).contains(&id) && words[3] == words[0], "{line}");
                        last = id;
                    }
                    assert_eq!(last, 400);
                }
            });
        }
        for id in (40..=400).filter(|id| id % 2 == 1) {
            assert_eq!(client.ask(&format!("cancel {id}")), format!("ok id={id} was=waiting"));
        }
    });
    let left: Vec<u64> = (1..=400).filter(|id| *id < 40 || id % 2 == 0).collect();
    assert_eq!(list_ids(&mut client, "all"), left);
}

#[test]
fn pages_that_are_taken_late_are_whole() {
    let dir = Dir::new();
    start_script(&dir, GATE, &[]);
    let mut client = Client::new(&dir);
    let texts: Vec<String> = (1..=100).map(|number| format!("{number} {}", "x".repeat(980))).collect();
    client.queue_all(&texts);
    wait_until("the first runs", || client.status("running") == 1);
    let mut slow = Client::new(&dir);
    // More than what the kernel keeps for it.
    slow.send("list\n".repeat(20));
    wait_until("the service has begun", || client.status("clients") == 2);
    let beginning = fs::read(dir.path("zigsvc.health")).unwrap();
    wait_until("a heartbeat later", || fs::read(dir.path("zigsvc.health")).unwrap() != beginning);
    for _ in 0..20 {
        assert_eq!(slow.line(), "ok 100");
        for (line, text) in slow.lines(100).iter().zip(&texts) {
            assert_eq!(line.splitn(4, ' ').nth(3).unwrap(), text);
        }
    }
}

// ----- wait ------------------------------------------------------------------

#[test]
fn wait_tells_how_each_job_ended() {
    let dir = Dir::new();
    let options = ["handler=shell", "retries=0", "job_timeout=500ms", "stop_timeout=500ms"];
    start(&dir, &options);
    let mut client = Client::new(&dir);
    let cases = [
        ("true", "done exit=0"),
        ("exit 3", "dead exit=3"),
        ("exit 255", "dead exit=255"),
        ("kill -KILL $$", "dead exit=137"),
        ("kill -SEGV $$", "dead exit=139"),
        ("no-such-program-anywhere", "dead exit=127"),
        ("exec sleep 300", "dead exit=143"),
    ];
    for (number, (text, end)) in cases.into_iter().enumerate() {
        let id = client.queue(text);
        assert_eq!(id, number as u64 + 1);
        assert_eq!(client.ask(&format!("wait {id}")), format!("ok id={id} state={end}"), "{text}");
        assert_eq!(ask(&dir, &format!("wait {id}")), format!("ok id={id} state={end}"), "afterwards");
    }
    // The journal has their ends.
    dir.zigsvc(&["stop"]).expect(0);
    start(&dir, &options);
    for (id, (text, end)) in (1..).zip(cases) {
        assert_eq!(ask(&dir, &format!("wait {id}")), format!("ok id={id} state={end}"), "{text}");
    }
}

#[test]
fn wait_tells_127_for_what_could_not_be_started() {
    let dir = Dir::new();
    fs::create_dir(dir.path("programs")).unwrap();
    dir.write_executable("programs/true", "#!/bin/sh\n");
    let handler = format!("handler={}", dir.path("programs").display());
    start(&dir, &[&handler]);
    let mut client = Client::new(&dir);
    // A word that names no program can never work, so there is one attempt.
    client.queue("missing");
    assert_eq!(client.ask("wait 1"), "ok id=1 state=dead exit=127");
}

#[test]
fn wait_waits_for_the_last_attempt() {
    let dir = Dir::new();
    start_script(&dir, "echo x >> out; [ $ZIGSVC_ATTEMPT = 3 ]", &["retries=5", "retry_delay=50ms"]);
    let mut client = Client::new(&dir);
    client.queue("x");
    assert_eq!(client.ask("wait 1"), "ok id=1 state=done exit=0");
    assert_eq!(out(&dir, 3).len(), 3);
}

#[test]
fn wait_works_for_jobs_that_are_not_in_memory_and_for_many_clients() {
    let dir = Dir::new();
    start_script(&dir, GATE, &["retries=0"]);
    let mut client = Client::new(&dir);
    client.queue_all(&jobs(100));
    let mut clients: Vec<_> = [1, 2, 32, 33, 99, 100, 100].map(|id| (id, Client::new(&dir))).into();
    for (id, client) in &mut clients {
        client.send(format!("wait {id}\nstatus\n"));
    }
    wait_until("the service has read it all", || client.status("clients") == 8);
    dir.write("go", "");
    for (id, client) in &mut clients {
        assert_eq!(client.line(), format!("ok id={id} state=done exit=0"));
        assert!(client.line().starts_with("ok pid="), "what is behind a wait is answered after it");
    }
}

#[test]
fn the_last_64_ends_can_be_waited_for_and_no_older_ones() {
    let dir = Dir::new();
    start(&dir, &[]);
    let mut client = Client::new(&dir);
    client.queue_all(&jobs(70));
    wait_for_jobs(&dir, 70);
    wait_until("all have ended", || client.status("jobs") == 70);
    for id in 1..=70 {
        let answer = client.ask(&format!("wait {id}"));
        if id <= 6 {
            expect_error(&answer, "no-job");
        } else {
            assert_eq!(answer, format!("ok id={id} state=done exit=0"));
        }
    }
    expect_error(&client.ask("wait 71"), "no-job");
}

#[test]
fn who_waits_is_told_of_a_stop() {
    let dir = Dir::new();
    let pid = start_script(&dir, GATE, &[]);
    let (mut waiting, mut watching) = (Client::new(&dir), Client::new(&dir));
    waiting.queue("x");
    waiting.send("wait 1\n");
    assert_eq!(watching.ask("watch"), "ok");
    wait_until("it runs", || status(&dir, "running") == 1);
    kill(pid, "TERM");
    let answers = waiting.rest();
    assert_eq!(answers.len(), 1);
    expect_error(&answers[0], "stopping");
    assert!(watching.rest().iter().all(|line| !line.contains("state=done") && !line.contains("state=dead")));
}

// ----- watch -----------------------------------------------------------------

/// Returns the numbers and words of an event.
#[track_caller]
fn event(line: &str) -> (u64, u64, String, u64, u64) {
    let mut words = line.strip_prefix("event ").unwrap_or_else(|| panic!("{line}")).split(' ');
    let seq = words.next().unwrap().parse().unwrap();
    let mut field = |name: &str| {
        let word = words.next().unwrap_or_else(|| panic!("{name} in {line}"));
        word.strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('='))
            .unwrap_or_else(|| panic!("{line}"))
            .to_owned()
    };
    let (job, state) = (field("job").parse().unwrap(), field("state"));
    (seq, job, state, field("exit").parse().unwrap(), field("ms").parse().unwrap())
}

#[test]
fn watch_tells_what_happens_in_order_to_all_who_watch() {
    let dir = Dir::new();
    start_script(&dir, "[ $1 = good ] && exec sleep 0.2; exit 9", &["retries=1", "retry_delay=300ms"]);
    let mut watchers: Vec<_> = (0..3).map(|_| Client::new(&dir)).collect();
    for watcher in &mut watchers {
        assert_eq!(watcher.ask("watch"), "ok");
        watcher.send("status\nnonsense\n");
    }
    let mut client = Client::new(&dir);
    client.queue("bad");
    assert_eq!(client.ask("wait 1"), "ok id=1 state=dead exit=9");
    client.queue("good");
    assert_eq!(client.ask("wait 2"), "ok id=2 state=done exit=0");
    let lines = watchers[0].lines(6);
    let events: Vec<_> = lines.iter().map(|line| event(line)).collect();
    let told: Vec<_> =
        events.iter().map(|(seq, job, state, exit, _)| (*seq, *job, state.as_str(), *exit)).collect();
    let expected = [
        (1, 1, "started", 0),
        (2, 1, "failed", 9),
        (3, 1, "started", 0),
        (4, 1, "dead", 9),
        (5, 2, "started", 0),
        (6, 2, "done", 0),
    ];
    assert_eq!(told, expected);
    assert!(events[5].4 >= 190 && events[1].4 < 30_000, "{events:?}");
    for watcher in &mut watchers[1..] {
        assert_eq!(watcher.lines(6), lines);
    }
}

#[test]
fn a_watcher_that_comes_later_gets_the_later_events() {
    let dir = Dir::new();
    start(&dir, &["handler=shell"]);
    let mut client = Client::new(&dir);
    client.queue("true");
    client.ask("wait 1");
    let mut watcher = Client::new(&dir);
    assert_eq!(watcher.ask("watch"), "ok");
    client.queue("true");
    assert_eq!(event(&watcher.line()).0, 3, "events are counted while nobody watches");
    assert_eq!(client.ask("wait 2"), "ok id=2 state=done exit=0");
    drop(watcher);
    wait_until("it is gone", || client.status("clients") == 1);
    client.queue("true");
    assert_eq!(client.ask("wait 3"), "ok id=3 state=done exit=0");
}

#[test]
fn a_watcher_that_reads_too_slowly_misses_events_and_sees_the_gap() {
    let dir = Dir::new();
    start(&dir, &["queue_max=100000"]);
    let (mut slow, mut client) = (Client::new(&dir), Client::new(&dir));
    assert_eq!(slow.ask("watch"), "ok");
    let count = if under_qemu() { 4000 } else { 8000 };
    for texts in jobs(count).chunks(500) {
        client.queue_all(texts);
    }
    wait_until("all have ended", || client.status("jobs") == count as u64);
    // It reads again, until an event of a job that came after that.
    let (mut last, mut gaps, mut seen) = (0, 0, 0);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = SetOnDrop(&done);
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let id = client.queue("one more");
                client.ask(&format!("wait {id}"));
            }
        });
        while !done.load(Ordering::Relaxed) {
            let (seq, job, state, ..) = event(&slow.line());
            assert!(seq > last, "{seq} after {last}");
            assert!(matches!(state.as_str(), "started" | "done"), "{state}");
            gaps += u64::from(seq > last + 1);
            (last, seen) = (seq, seen + 1);
            done.store(job > count as u64, Ordering::Relaxed);
        }
    });
    assert!(gaps >= 1 && seen > 100 && seen < count * 2, "{gaps} gaps, {seen} of {}", count * 2);
}
