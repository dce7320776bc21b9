//! A client that may only queue.

use crate::support::control::{
    Client, GATE, NOBODY, ask, expect_error, nobody, require_users, start_script, status,
};
use crate::support::{Dir, alive, wait_until};

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
    let Some((dir, _)) = guested(&[]) else { return };
    let id = nobody(&dir).queue("x");
    let mut guests: Vec<_> = (0..16).map(|_| nobody(&dir)).collect();
    for (number, guest) in guests.iter_mut().enumerate() {
        guest.send(if number % 2 == 0 { "watch\n".to_owned() } else { format!("wait {id}\n") });
    }
    for _ in 0..20 {
        assert!(ask(&dir, "status").starts_with("ok "));
    }
    dir.write("go", "");
    wait_until("the job is done", || status(&dir, "jobs") == 1);
}
