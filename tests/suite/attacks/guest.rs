//! A client that may only queue.

use crate::support::control::{
    Client, GATE, NOBODY, ask, connect_as, expect_error, nobody, require_users, start_script, status, ticks,
};
use crate::support::opener::descriptors;
use crate::support::{Dir, alive, wait_until};
use rustix::fd::BorrowedFd;
use rustix::io::IoSlice;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// Starts a service that a guest may use.
#[track_caller]
fn guested(options: &[&str]) -> Option<(Dir, u32)> {
    let dir = Dir::new();
    if !require_users(&dir) {
        return None;
    }
    let allow = format!("allow_uid={NOBODY}");
    let pid = start_script(&dir, GATE, &[&[&allow[..]], options].concat());
    Some((dir, pid))
}

#[test]
fn who_fills_the_queue_keeps_nobody_from_looking_ending_jobs_and_stopping() {
    let Some((dir, pid)) = guested(&["queue_max=50", "retries=0"]) else { return };
    let mut guest = nobody(&dir);
    let longest = "x".repeat(1000);
    for _ in 0..50 {
        guest.queue(&longest);
    }
    for _ in 0..200 {
        expect_error(&guest.ask(&format!("queue {longest}")), "full");
    }
    expect_error(&ask(&dir, "queue of the owner"), "full");
    for steering in ["cancel 1", "retry dead", "forget dead", "drain", "stop"] {
        expect_error(&guest.ask(steering), "denied");
    }
    assert_eq!(status(&dir, "room"), 0);
    assert_eq!(Client::new(&dir).ask_list("list waiting").len(), 49);
    for id in 2..=50 {
        assert!(ask(&dir, &format!("cancel {id}")).starts_with("ok "));
    }
    assert!(ask(&dir, "queue of the owner").starts_with("ok "));
    // The bytes that the guest wrote are bounded by the jobs that it may queue, and given back.
    wait_until("the journal is small again", || {
        std::fs::metadata(dir.path("spool/journal")).unwrap().len() < 150_000
    });
    dir.zigsvc(&["stop"]).expect(0);
    assert!(!alive(pid));
}

#[test]
fn no_text_forges_a_line_of_an_answer_or_an_event() {
    let Some((dir, _)) = guested(&["retries=0", "workers=8"]) else { return };
    let mut watcher = Client::new(&dir);
    assert_eq!(watcher.ask("watch"), "ok");
    let texts = [
        "ok id=99",
        "event 1 job=1 state=done exit=0 ms=0",
        "x\rok 1",
        "7 dead 3 y",
        "err denied z",
        "x\x0bok\x0c\x1e\x1f",
    ];
    let mut guest = nobody(&dir);
    for text in texts {
        guest.queue(text);
    }
    let list = Client::new(&dir).ask_list("list");
    assert_eq!(list.len(), texts.len(), "{list:?}");
    for (number, (line, text)) in list.iter().zip(texts).enumerate() {
        assert!(line.starts_with(&format!("{} ", number + 1)) && line.ends_with(text), "{line:?}");
    }
    let printed = dir.zigsvc(&["list"]).expect(0);
    assert_eq!(printed.out.lines().count(), texts.len(), "{printed:?}");
    dir.write("go", "");
    for seq in 1..=2 * texts.len() {
        let event = watcher.line();
        assert!(event.starts_with(&format!("event {seq} job=")), "{event}");
        let state = event.split(' ').nth(3).unwrap();
        assert!(["state=started", "state=done"].contains(&state), "{event}");
    }
}

#[test]
fn guests_that_hold_all_places_and_wait_keep_no_owner_out() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    let uids = [NOBODY, NOBODY - 1];
    start_script(&dir, GATE, &[&format!("allow_uid={},{}", uids[0], uids[1])]);
    let id = nobody(&dir).queue("x");
    // All places that guests can hold.
    let uids = (0..14).map(|number| uids[number / 8]);
    let mut guests: Vec<_> = uids.map(|uid| Client::over(guest_of(&dir, uid))).collect();
    for (number, guest) in guests.iter_mut().enumerate() {
        guest.send(if number % 2 == 0 { "watch\n".to_owned() } else { format!("wait {id}\n") });
    }
    for _ in 0..20 {
        assert!(ask(&dir, "status").starts_with("ok "));
    }
    dir.write("go", "");
    wait_until("the job is done", || status(&dir, "jobs") == 1);
}

/// Connects as the user `uid`, who is a guest.
fn guest_of(dir: &Dir, uid: u32) -> UnixStream {
    connect_as(&dir.path("zigsvc.sock"), uid, uid, &[]).unwrap()
}

/// Sends `request`, and then the connection's own descriptor through itself, so that the connection
/// outlives its process unless the service receives what follows the request.
fn send_itself(stream: &UnixStream, request: &[u8]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    (&mut &*stream).write_all(request).unwrap();
    // SAFETY: `stream` is open for all of this function.
    let fds = [unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let sent = rustix::net::sendmsg(fds[0], &[IoSlice::new(b"x")], &mut control, SendFlags::NOSIGNAL);
    assert_eq!(sent, Ok(1));
}

/// Waits until the service has only this many descriptors.
#[track_caller]
fn wait_for_descriptors(pid: u32, most: usize) {
    wait_until("the connections are closed", || descriptors(pid) <= most);
}

#[test]
fn a_connection_that_holds_itself_ends_with_its_process() {
    let Some((dir, pid)) = guested(&["retries=0"]) else { return };
    let mut owner = Client::new(&dir);
    let id = owner.queue("waits at the gate");
    wait_until("the job runs", || status(&dir, "running") == 1);
    // Connections that asked for the status must be gone before the descriptors are counted.
    wait_until("the owner is alone", || owner.status("clients") == 1);
    let before = descriptors(pid);
    // After `watch` all input is dropped, after `wait` it is kept. Both are received.
    for request in [&b"watch\n"[..], format!("wait {id}\n").as_bytes()] {
        for round in 0..3 {
            let clients: Vec<_> = (0..8).map(|_| guest_of(&dir, NOBODY)).collect();
            for client in &clients {
                (&mut &*client).write_all(request).unwrap();
            }
            // One read would take both, and release the descriptor.
            wait_until("the requests were read", || owner.status("clients") == 9);
            owner.status("clients");
            clients.iter().for_each(|client| send_itself(client, b""));
            drop(clients);
            wait_until(&format!("{round}: a guest is served"), || {
                let mut guest = nobody(&dir);
                let _ = guest.try_send(b"status\n");
                guest.try_line().is_some_and(|line| line.starts_with("ok "))
            });
            wait_for_descriptors(pid, before);
        }
    }
    // The input after a request that waits is not lost.
    let mut waiter = Client::over(guest_of(&dir, NOBODY));
    waiter.send(format!("wait {id}\nqueue behind\nlist waiting\n"));
    wait_until("it is received", || ask(&dir, "status").contains("running=1"));
    waiter.send("status\n");
    dir.write("go", "");
    assert!(waiter.line().starts_with(&format!("ok id={id} state=done")));
    assert!(waiter.line().starts_with("ok id="));
}

#[test]
fn input_after_watch_is_dropped_however_much_it_is_and_events_follow() {
    let Some((dir, pid)) = guested(&["retries=0"]) else { return };
    dir.write("go", "");
    let mut watcher = Client::over(guest_of(&dir, NOBODY));
    assert_eq!(watcher.ask("watch"), "ok");
    let noise = [b'x'; 4096];
    let mut sent = 0;
    wait_until("a megabyte is taken", || {
        sent += watcher.send_some(&noise);
        sent >= 1024 * 1024
    });
    watcher.end_sending();
    ask(&dir, "queue one");
    assert!(watcher.line().starts_with("event "), "a half-closed watcher gets its events");
    let before = ticks(pid);
    crate::support::let_pass(zigsvc::util::time::Duration::from_ms(500));
    assert!(ticks(pid) - before < 20, "it does not keep the loop running");
}

#[test]
fn one_user_holds_half_of_the_slots_and_guests_leave_two_to_the_owners() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    let other = NOBODY - 1;
    let pid = start_script(&dir, GATE, &[&format!("allow_uid={NOBODY},{other}")]);
    let watch = |uid: u32| {
        let mut client = Client::over(guest_of(&dir, uid));
        let _ = client.try_send(b"watch\n");
        let line = client.line();
        (client, line)
    };
    let mut clients = Vec::new();
    for _ in 0..8 {
        let (client, line) = watch(NOBODY);
        assert_eq!(line, "ok");
        clients.push(client);
    }
    expect_error(&watch(NOBODY).1, "busy");
    for _ in 0..6 {
        let (client, line) = watch(other);
        assert_eq!(line, "ok", "another user has its own slots");
        clients.push(client);
    }
    expect_error(&watch(other).1, "busy");
    // The two last ones are the owners'.
    let mut first = Client::new(&dir);
    let mut second = Client::new(&dir);
    assert!(first.ask("status").starts_with("ok ") && second.ask("status").starts_with("ok "));
    drop(clients);
    wait_for_descriptors(pid, descriptors(pid));
    wait_until("there is a slot again", || watch(NOBODY).1 == "ok");
}

#[test]
fn the_services_own_user_leaves_one_slot_to_root() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    std::os::unix::fs::chown(dir.path(""), Some(NOBODY), Some(NOBODY)).unwrap();
    dir.start(&["user=65534"]);
    let watch = |stream: UnixStream| {
        let mut client = Client::over(stream);
        let _ = client.try_send(b"watch\n");
        let line = client.line();
        (client, line)
    };
    let mut clients = Vec::new();
    for _ in 0..15 {
        let (client, line) = watch(guest_of(&dir, NOBODY));
        assert_eq!(line, "ok");
        clients.push(client);
    }
    expect_error(&watch(guest_of(&dir, NOBODY)).1, "busy");
    assert!(ask(&dir, "status").starts_with("ok "), "root's slot");
}

#[test]
fn a_waiter_that_has_sent_more_than_is_kept_goes_first() {
    let Some((dir, _)) = guested(&["retries=0"]) else { return };
    let mut owner = Client::new(&dir);
    let id = owner.queue("waits at the gate");
    wait_until("the job runs", || status(&dir, "running") == 1);
    let waiters: Vec<_> = (0..8).map(|_| guest_of(&dir, NOBODY)).collect();
    for waiter in &waiters {
        (&mut &*waiter).write_all(format!("wait {id}\n{}", "status\n".repeat(400)).as_bytes()).unwrap();
    }
    wait_until("the requests were read", || owner.status("clients") == 9);
    owner.status("clients");
    waiters.iter().for_each(|waiter| send_itself(waiter, b""));
    drop(waiters);
    // Their own descriptors lie after what is kept, so they stay.
    wait_until("all wait", || owner.status("clients") == 9);
    let mut guests = Vec::new();
    for _ in 0..8 {
        let mut guest = nobody(&dir);
        assert_eq!(guest.ask("watch"), "ok", "each guest gets the slot of one of them");
        guests.push(guest);
    }
    assert_eq!(owner.status("clients"), 9, "and the waiters are gone");
}
