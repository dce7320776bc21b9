//! Clients of the control socket that send noise, too much, too little or
//! nothing, do not read, or vanish; and more clients than there are places.
//! None of them may hold up the service. The contract is `docs/control.md`.

use crate::support::control::{
    Client, GATE, NOBODY, REQUEST_COUNT, SetOnDrop, ask, connect_as, expect_error, jobs, nobody,
    require_users, start, start_script, status, ticks,
};
use crate::support::random::Random;
use crate::support::{
    Dir, by_shell, heartbeat, patience, require_native, under_qemu, wait_for_jobs, wait_until,
};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::time::Instant;

/// Returns the number of the last heartbeat.
fn beat(dir: &Dir) -> u64 {
    heartbeat(dir, "zigsvc.health")
}

/// Insists that another client is served, and that the heartbeat continues.
#[track_caller]
fn goes_on(dir: &Dir) {
    goes_on_over(dir, &mut Client::new(dir));
}

/// Insists that this client is served, and that the heartbeat continues.
#[track_caller]
fn goes_on_over(dir: &Dir, client: &mut Client) {
    let first = beat(dir);
    wait_until("three heartbeats", || {
        assert_eq!(client.status_word("state"), "running");
        beat(dir) >= first + 3
    });
}

// ----- what is too long, and noise -------------------------------------------

#[test]
fn noise_gets_one_error_for_each_line_and_harms_nobody() {
    let dir = Dir::new();
    start(&dir, &[]);
    let mut random = Random::new(99);
    let mut other = Client::new(&dir);
    for round in 0..if under_qemu() { 10 } else { 60 } {
        // Lines of any bytes: mostly short, some too long, some empty.
        let mut bytes = Vec::new();
        for _ in 0..random.index(40) {
            let length = [0, 3, 40, 1099, 1100, 1101, 1200, 5000][random.index(8)];
            bytes.extend((0..length).map(|_| if random.index(9) == 0 { 0 } else { random.byte() }));
            bytes.push(b'\n');
        }
        bytes.extend((0..random.index(3)).map(|_| b'?'));
        let lines = bytes.split_inclusive(|byte| *byte == b'\n').count();
        let mut client = Client::new(&dir);
        let size = 1 + random.index(3000);
        for piece in bytes.chunks(size) {
            client.send(piece);
        }
        client.end_sending();
        let answers = client.rest();
        assert_eq!(answers.len(), lines, "round {round}");
        for answer in &answers {
            let known = answer.starts_with("err bad-request ") || answer.starts_with("err too-long ");
            assert!(known && !answer.bytes().any(|byte| byte < 32 || byte == 127), "{answer:?}");
        }
        assert_eq!(other.status("waiting"), 0);
    }
    goes_on(&dir);
}

#[test]
fn a_request_of_1100_bytes_is_taken_and_a_longer_one_is_dropped_to_its_newline() {
    let dir = Dir::new();
    start(&dir, &[]);
    let mut client = Client::new(&dir);
    let request = |length: usize, end: &str| {
        let head = "status";
        format!("{head}{}{end}", " ".repeat(length - head.len()))
    };
    for end in ["\n", "\r\n"] {
        client.send(request(1100, end));
        assert!(client.line().starts_with("ok pid="));
    }
    // The first CR is a blank like those before it, so the request has 1100 bytes up to the second.
    client.send(request(1099, "\r\r\n"));
    assert!(client.line().starts_with("ok pid="));
    for length in [1101, 1102, 1103, 1104, 1105, 1106, 2207, 2208, 2209, 5000] {
        for end in ["\n", "\r\n"] {
            client.send(request(length, end) + "queue x\n" + &request(length, end) + "nonsense\n");
            expect_error(&client.line(), "too-long");
            assert!(client.line().starts_with("ok id="), "{length}");
            expect_error(&client.line(), "too-long");
            expect_error(&client.line(), "bad-request");
        }
    }
    // The same byte for byte, so that each piece ends everywhere.
    for byte in (request(1101, "\n") + &request(1100, "\n") + &request(1101, "\r\n")).bytes() {
        client.send([byte]);
    }
    expect_error(&client.line(), "too-long");
    assert!(client.line().starts_with("ok pid="));
    expect_error(&client.line(), "too-long");
    // Without a newline it is not done.
    for (length, code) in [(1100, "bad-request"), (1101, "too-long"), (3000, "too-long")] {
        let mut client = Client::new(&dir);
        client.send(request(length, ""));
        client.end_sending();
        let answers = client.rest();
        assert_eq!(answers.len(), 1, "{length}: {answers:?}");
        expect_error(&answers[0], code);
    }
}

#[test]
fn a_job_of_1000_bytes_is_taken_and_a_longer_one_is_not() {
    let dir = Dir::new();
    start(&dir, &[]);
    let mut client = Client::new(&dir);
    let longest = "x".repeat(1000);
    assert_eq!(client.queue(&longest), 1);
    expect_error(&client.ask(&format!("queue {longest}y")), "too-long");
    assert_eq!(client.queue(&format!("{}{longest}  ", " ".repeat(90))), 2);
    expect_error(&client.ask(&format!("queue {}{longest}y", " ".repeat(90))), "too-long");
    wait_for_jobs(&dir, 2);
    assert_eq!(crate::support::processed(&dir), [longest.clone(), longest]);
}

#[test]
fn a_megabyte_without_a_newline_gets_one_error_and_the_connection_goes_on() {
    let dir = Dir::new();
    start(&dir, &[]);
    let mut client = Client::new(&dir);
    for _ in 0..3 {
        client.send("x".repeat(1 << 20));
        client.send("\nstatus\n");
        expect_error(&client.line(), "too-long");
        assert!(client.line().starts_with("ok pid="));
    }
    client.end_sending();
    assert!(client.rest().is_empty());
}

// ----- who does not read -----------------------------------------------------

#[test]
fn thousands_of_requests_sent_ahead_are_all_answered_while_others_are_served() {
    let dir = Dir::new();
    start(&dir, &["interval=100ms"]);
    let count = if under_qemu() { 500 } else { 5000 };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = Client::new(&dir);
                client.send("status\nhelp\nnonsense\n".repeat(count / 3));
                client.send("queue the end\n");
                for _ in 0..count / 3 {
                    assert!(client.line().starts_with("ok pid="));
                    assert_eq!(client.line(), format!("ok {REQUEST_COUNT}"));
                    assert!(client.lines(REQUEST_COUNT)[REQUEST_COUNT - 1].starts_with("help"));
                    expect_error(&client.line(), "bad-request");
                }
                assert!(client.line().starts_with("ok id="));
            });
        }
        goes_on(&dir);
    });
    wait_for_jobs(&dir, 3);
}

#[test]
fn who_never_reads_holds_up_nobody() {
    let dir = Dir::new();
    start(&dir, &["interval=100ms"]);
    let noise = "help\n".repeat(10_000);
    let mut stuck: Vec<_> = (0..10).map(|_| Client::new(&dir)).collect();
    for client in &mut stuck {
        // Until the service takes no more from it, because it takes no answers.
        let mut quiet = 0;
        wait_until("it is stuck", || {
            quiet = if client.send_some(noise.as_bytes()) > 0 { 0 } else { quiet + 1 };
            quiet > 20
        });
    }
    goes_on(&dir);
    let mut client = Client::new(&dir);
    let texts = jobs(200);
    assert_eq!(client.queue_all(&texts).len(), 200);
    wait_for_jobs(&dir, 200);
    assert_eq!(client.status("clients"), 11, "none was closed for it yet");
    // And the first of the stuck clients can continue.
    let mut first = stuck.remove(0);
    for _ in 0..1000 {
        assert_eq!(first.line(), format!("ok {REQUEST_COUNT}"));
        first.lines(REQUEST_COUNT);
    }
    drop((first, stuck));
    wait_until("all are gone", || client.status("clients") == 1);
}

#[test]
fn who_vanishes_in_the_middle_of_a_page_leaves_nothing_behind() {
    let dir = Dir::new();
    start_script(&dir, GATE, &["interval=100ms"]);
    let texts: Vec<_> = (0..150).map(|number| format!("{number} {}", "x".repeat(990))).collect();
    Client::new(&dir).queue_all(&texts);
    wait_until("the first runs", || status(&dir, "running") == 1);
    for round in 0..30 {
        let mut client = Client::new(&dir);
        client.send(["list\n", "list\nlist\nlist\n", "list all 50\nstatus\n"][round % 3]);
        if round % 2 == 0 {
            assert_eq!(client.line(), "ok 100");
        }
    }
    assert_eq!(Client::new(&dir).ask_list("list").len(), 100);
    wait_until("all are gone", || status(&dir, "clients") == 1);
    for request in ["wait 1", "watch", "queue x\nwait 99", "cancel 150", "list", "retry dead", "queue x"] {
        let mut client = Client::new(&dir);
        client.send(request.to_owned() + "\n");
    }
    wait_until("all are gone", || status(&dir, "clients") == 1);
    goes_on(&dir);
}

#[test]
fn a_page_that_is_not_taken_gives_way_when_somebody_else_wants_one() {
    let dir = Dir::new();
    start_script(&dir, GATE, &[]);
    // More than the buffers between the two hold.
    let texts: Vec<_> = (0..100).map(|number| format!("{number} {}", "x".repeat(990))).collect();
    Client::new(&dir).queue_all(&texts);
    let mut slow = Client::new(&dir);
    slow.send("list\n".repeat(20));
    wait_until("it is stuck", || slow.send_some(b"list\n") == 5 && status(&dir, "clients") == 2);
    let began = Instant::now();
    assert_eq!(Client::new(&dir).ask_list("list").len(), 100);
    assert!(began.elapsed() < patience());
}

#[test]
fn clients_that_wait_keep_the_processor_free() {
    if !require_native("the processor's time would be mostly QEMU's") {
        return;
    }
    let _measuring = crate::support::measuring();
    let dir = Dir::new();
    let pid = start_script(&dir, GATE, &["interval=250ms"]);
    let mut client = Client::new(&dir);
    let texts: Vec<_> = (0..100).map(|number| format!("{number} {}", "x".repeat(990))).collect();
    client.queue_all(&texts);
    let connect = |bytes: &[u8], ended: bool| {
        let mut client = Client::new(&dir);
        client.send(bytes);
        if ended {
            client.end_sending();
        }
        client
    };
    let noise = "help\n".repeat(10_000);
    let mut waiting = vec![
        connect(b"", false),
        connect(b"status\n", false),
        connect(b"stat", false),
        connect(&[b'x'; 2000], false),
        connect(b"wait 1\n", true),
        connect(b"wait 90\nstatus\nstat", true),
        connect(b"wait 1\nstatus\n", false),
        connect(b"watch\nstatus\n", false),
        connect(b"watch\n", true),
        connect("list\n".repeat(100).as_bytes(), true),
        connect(b"queue b\nwait 2\ncancel 5\n", true),
    ];
    let mut stuck = Client::new(&dir);
    wait_until("it is stuck", || stuck.send_some(noise.as_bytes()) == 0);
    waiting.push(stuck);
    wait_until("all are there", || client.status("clients") == 13);
    let (began, used) = (beat(&dir), ticks(pid));
    wait_until("eight heartbeats", || beat(&dir) >= began + 8);
    let used = ticks(pid) - used;
    assert!(used < 50, "{used} ticks in eight heartbeats");
    assert_eq!(client.status("clients"), 13);
}

#[test]
fn without_descriptors_newcomers_wait_and_the_service_says_so() {
    let dir = Dir::new();
    // Enough for the service and a few clients.
    let mut command = dir.command();
    command.args(["-o", "log_max=0", "-o", "interval=100ms", "start"]);
    crate::support::finish(by_shell("ulimit -n 22 && exec \"$@\"", &command), None).expect(0);
    let mut client = Client::new(&dir);
    let degraded = |client: &mut Client| client.status_word("degraded").contains("descriptors");
    assert!(!degraded(&mut client));
    let mut others: Vec<_> = (0..15).map(|_| Client::new(&dir)).collect();
    wait_until("it says so", || degraded(&mut client));
    assert!(client.status("clients") < 16);
    goes_on_over(&dir, &mut client);
    // The last ones are served when the first go.
    let mut last = others.split_off(12);
    drop(others);
    for client in &mut last {
        assert!(client.ask("status").starts_with("ok "));
    }
    wait_until("it is well again", || !degraded(&mut client));
}

/// Takes more than 30 seconds, because the test waits for the limit itself.
#[test]
fn half_a_request_and_answers_that_nobody_reads_close_the_connection_after_30_seconds() {
    let dir = Dir::new();
    start_script(&dir, GATE, &["interval=100ms"]);
    let texts: Vec<_> = (0..100).map(|number| format!("{number} {}", "x".repeat(990))).collect();
    Client::new(&dir).queue_all(&texts);
    wait_until("it is gone", || status(&dir, "clients") == 1);
    let began = Instant::now();
    let mut half = Client::new(&dir);
    half.send("status\nstat");
    assert!(half.line().starts_with("ok "));
    let mut long = Client::new(&dir);
    long.send("x".repeat(5000));
    expect_error(&long.line(), "too-long");
    let mut deaf = Client::new(&dir);
    let mut sent = 0;
    wait_until("it is stuck", || {
        let now = deaf.send_some("help\n".repeat(10_000).as_bytes());
        sent += now;
        now == 0 && sent > 0
    });
    let mut slow = Client::new(&dir);
    slow.send("list\n".repeat(100));
    let trickle = Client::new(&dir);
    let mut idle = Client::new(&dir);
    assert!(idle.ask("status").starts_with("ok "));
    let mut waiting = Client::new(&dir);
    waiting.send("wait 1\nstat");
    let mut watching = Client::new(&dir);
    assert_eq!(watching.ask("watch"), "ok");
    let mut client = Client::new(&dir);
    assert_eq!(client.status("clients"), 9);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = SetOnDrop(&over);
        // One byte at a time is no progress either.
        scope.spawn(|| {
            let mut trickle = trickle;
            while !over.load(Ordering::Relaxed) && trickle.try_send(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        while client.status("clients") > 4 {
            let took = began.elapsed();
            assert!(took < Duration::from_secs(35) + patience(), "{} are left", client.status("clients"));
            if took < Duration::from_secs(29) {
                assert_eq!(client.status("clients"), 9, "after {took:?}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    assert!(half.rest().is_empty() && long.rest().is_empty());
    // A client that was idle for 30 seconds stays, until there is no other place.
    let mut others: Vec<_> = (0..12).map(|_| Client::new(&dir)).collect();
    for other in &mut others {
        assert!(other.ask("status").starts_with("ok "));
    }
    assert_eq!(client.status("clients"), 16);
    others.push(Client::new(&dir));
    assert!(others[12].ask("status").starts_with("ok "));
    assert!(idle.rest().is_empty());
    // A client that waits or watches stays all the same.
    expect_error(&Client::new(&dir).line(), "busy");
    dir.write("go", "");
    assert_eq!(waiting.line(), "ok id=1 state=done exit=0");
    assert!(watching.line().contains("job=1 state=done"));
}

// ----- more clients than places ----------------------------------------------

#[test]
fn a_seventeenth_client_is_told_to_come_again() {
    let dir = Dir::new();
    start(&dir, &[]);
    let mut clients: Vec<_> = (0..16).map(|_| Client::new(&dir)).collect();
    for client in &mut clients {
        assert!(client.ask("status").starts_with("ok "));
    }
    for request in ["", "status\n", "queue x\nstatus\n"] {
        let mut late = Client::new(&dir);
        let _ = late.try_send(request.as_bytes());
        let answers = late.rest();
        assert_eq!(answers.len(), 1, "{answers:?}");
        expect_error(&answers[0], "busy");
    }
    assert_eq!(clients[0].status("clients"), 16);
    for client in &mut clients {
        assert!(client.ask("status").starts_with("ok "), "none was closed");
    }
    drop(clients.pop());
    wait_until("there is a place", || clients[0].status("clients") == 15);
    assert!(ask(&dir, "status").starts_with("ok "));
}

#[test]
fn who_has_not_asked_yet_gives_way_the_oldest_first() {
    let dir = Dir::new();
    start(&dir, &[]);
    let mut first = Client::new(&dir);
    assert_eq!(first.status("clients"), 1);
    let mut silent: Vec<_> = Vec::new();
    for count in 2..=16 {
        silent.push(Client::new(&dir));
        wait_until("it is accepted", || first.status("clients") == count);
        // The next one comes in a later millisecond.
        let now = first.status("health_age_ms");
        wait_until("time passes", || first.status("health_age_ms") != now);
    }
    for _ in 0..3 {
        let mut late = Client::new(&dir);
        assert!(late.ask("status").starts_with("ok "));
        assert!(silent.remove(0).rest().is_empty(), "the oldest was closed");
        assert_eq!(first.status("clients"), 16);
        drop(late);
        wait_until("it is gone", || first.status("clients") == 15);
        silent.push(Client::new(&dir));
        wait_until("it is accepted", || first.status("clients") == 16);
    }
    for client in &mut silent {
        assert!(client.ask("status").starts_with("ok "), "the others were not");
    }
}

#[test]
fn who_waits_or_watches_does_not_give_way() {
    let dir = Dir::new();
    start_script(&dir, GATE, &[]);
    let mut clients: Vec<_> = (0..16).map(|_| Client::new(&dir)).collect();
    clients[0].queue("x");
    for (number, client) in clients.iter_mut().enumerate() {
        if number % 2 == 0 {
            client.send("wait 1\n");
        } else {
            assert_eq!(client.ask("watch"), "ok");
        }
    }
    let mut late = Client::new(&dir);
    expect_error(&late.line(), "busy");
    assert!(late.rest().is_empty());
    dir.write("go", "");
    for (number, client) in clients.iter_mut().enumerate() {
        let expected = if number % 2 == 0 { "ok id=1 state=done" } else { "event " };
        assert!(client.line().starts_with(expected));
    }
}

#[test]
fn an_owner_gets_the_place_of_a_guest_and_a_guest_does_not() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    let uids = [NOBODY, NOBODY - 1];
    start(&dir, &[&format!("allow_uid={},{}", uids[0], uids[1])]);
    // All places that guests can hold.
    let uids = (0..14).map(|number| uids[number / 8]);
    let connect = |uid| connect_as(&dir.path("zigsvc.sock"), uid, uid, &[]).unwrap();
    let mut guests: Vec<_> = uids.map(|uid| Client::over(connect(uid))).collect();
    for guest in &mut guests {
        assert_eq!(guest.ask("watch"), "ok");
    }
    let mut late = nobody(&dir);
    expect_error(&late.line(), "busy");
    assert!(late.rest().is_empty());
    let mut owner = Client::new(&dir);
    assert_eq!(owner.status("clients"), 15);
    let mut owners = Vec::new();
    for _ in 1..16 {
        let mut client = Client::new(&dir);
        assert_eq!(client.ask("watch"), "ok");
        owners.push(client);
    }
    assert_eq!(owner.status("clients"), 16, "all guests are gone");
    for mut guest in guests {
        assert!(guest.rest().is_empty());
    }
    expect_error(&Client::new(&dir).line(), "busy");
    expect_error(&nobody(&dir).line(), "busy");
}

#[test]
fn who_may_nothing_cannot_keep_others_out() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    start(&dir, &["allow_uid=12345"]);
    let path = dir.path("zigsvc.sock");
    let _strangers: Vec<_> = (0..40).map(|_| connect_as(&path, NOBODY, NOBODY, &[])).collect();
    let answer = ask(&dir, "status");
    assert!(answer.starts_with("ok "), "{answer}");
    let mut guest = Client::over(connect_as(&path, 12345, NOBODY, &[]).unwrap());
    assert!(guest.ask("status").starts_with("ok "));
}
