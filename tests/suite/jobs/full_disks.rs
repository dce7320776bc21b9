//! Filesystems on which a full disk behaves in its own way: Btrfs copies a block that is
//! written again, XFS needs room for that too, a quota or the limit of a file's size refuses
//! what the disk would take. Queued jobs run and end, new ones are refused with a state, no
//! job is lost by a kill or a start there, and the state goes when there is room.

use crate::support::control::{Client, expect_error, limit_files};
use crate::support::small_disk::{SmallDisk, has_namespaces};
use crate::support::{
    Dir, holds_within, kill_hard, log_lines_matching, patience, processed, require_tool, wait_for_log,
    wait_until,
};

/// Shell commands that mount a small disk at `$0`, and the program that they need.
const FORMATS: &[(&str, &str)] = &[
    ("mkfs.btrfs", "truncate -s 114M $0.image && mkfs.btrfs -q $0.image && mount -o loop $0.image $0"),
    ("mkfs.xfs", "truncate -s 300M $0.image && mkfs.xfs -q $0.image && mount -o loop $0.image $0"),
    ("mkfs.ext4", "truncate -s 8M $0.image && mkfs.ext4 -q -m 0 $0.image && mount -o loop $0.image $0"),
    ("mount", "mount -t tmpfs -o size=512k,nr_inodes=16 none $0"),
];

/// Returns the text of a job that waits for the file `go`.
fn gate(dir: &Dir) -> String {
    format!("until [ -e {}/go ]; do sleep 0.05; done", dir.as_arg())
}

#[test]
fn on_each_full_filesystem_the_queued_jobs_run_and_nothing_is_lost() {
    if !has_namespaces() {
        return;
    }
    for (tool, format) in FORMATS {
        if !require_tool(tool) {
            continue;
        }
        let dir = Dir::new();
        let Some(disk) = SmallDisk::formatted(&dir, format) else { continue };
        let options = ["handler=shell", "interval=200ms"];
        let pid = disk.start(&dir, &options);
        let mut client = Client::new(&dir);
        client.queue(&gate(&dir));
        let jobs: Vec<String> = (1..=90).map(|number| format!("echo {number} {}", "x".repeat(300))).collect();
        client.queue_all(&jobs);
        disk.fill(&dir);
        disk.take_inodes(&dir);
        let mut refused = 0;
        wait_until("a new job is refused", || {
            let answer = client.ask(&format!("queue : {}", "y".repeat(900)));
            refused += u32::from(answer.starts_with("err no-space"));
            refused > 0
        });
        assert_eq!(client.status_word("degraded"), "spool-full", "{format}");
        // A start on the full disk has all jobs.
        let before = client.status("waiting") + client.status("running");
        kill_hard(pid);
        let pid = disk.start(&dir, &options);
        let mut client = Client::new(&dir);
        assert_eq!(client.status("waiting") + client.status("running"), before, "{format}");
        dir.write("go", "");
        wait_until(&format!("the queued jobs run: {format}"), || {
            let ran = processed(&dir);
            jobs.iter().all(|job| ran.contains(job))
        });
        wait_until("their ends are recorded", || client.status("waiting") + client.status("running") == 0);
        assert_eq!(log_lines_matching(&dir.read("zigsvc.log"), "jobs wait, none is lost"), 0, "{format}");
        disk.make_room(&dir);
        wait_until("the state goes", || client.status_word("degraded") == "none");
        wait_until("new ones are taken", || client.ask("queue echo new").starts_with("ok "));
        wait_until("the new one ran", || processed(&dir).iter().any(|job| job == "echo new"));
        wait_until("its end is recorded", || client.status("waiting") + client.status("running") == 0);
        let count = processed(&dir).len();
        kill_hard(pid);
        disk.start(&dir, &options);
        wait_for_log(&dir, "daemon started");
        Client::new(&dir).queue("echo last");
        wait_until("the last one ran", || processed(&dir).last().is_some_and(|job| job == "echo last"));
        assert_eq!(processed(&dir).len(), count + 1, "a job ran twice: {format}");
    }
}

/// Returns a disk of btrfs with a quota of 4 MiB; `None` if none can be made here, after a note.
fn disk_with_quota(dir: &Dir) -> Option<SmallDisk> {
    if !has_namespaces() || !require_tool("mkfs.btrfs") || !require_tool("btrfs") {
        return None;
    }
    let format = "truncate -s 114M $0.image && mkfs.btrfs -q $0.image && mount -o loop $0.image $0 && \
                  btrfs quota enable $0 && btrfs qgroup limit 4M 0/5 $0";
    SmallDisk::formatted(dir, format)
}

// A quota of btrfs also refuses writes into reserved blocks, so that the queued jobs wait.
#[test]
fn a_quota_is_a_full_disk_with_a_state_and_a_start_there_loses_nothing() {
    let dir = Dir::new();
    let Some(disk) = disk_with_quota(&dir) else { return };
    let options = ["handler=shell", "interval=200ms"];
    let mut pid = disk.start(&dir, &options);
    let mut client = Client::new(&dir);
    client.queue(&gate(&dir));
    let jobs: Vec<String> = (1..=90).map(|number| format!("echo {number} {}", "x".repeat(300))).collect();
    client.queue_all(&jobs);
    disk.fill(&dir);
    wait_until("a new job is refused", || {
        client.ask(&format!("queue : {}", "y".repeat(900))).starts_with("err no-space")
    });
    wait_until("a state names it", || client.status_word("degraded").contains("spool-full"));
    assert!(dir.read("zigsvc.log").contains("EDQUOT (quota exceeded)"), "{}", dir.read("zigsvc.log"));
    let before = client.status("waiting") + client.status("running");
    for _ in 0..2 {
        kill_hard(pid);
        pid = disk.start(&dir, &options);
        let mut client = Client::new(&dir);
        assert_eq!(client.status("waiting") + client.status("running"), before);
        wait_until("a state names it", || client.status_word("degraded").contains("spool"));
    }
    dir.write("go", "");
    disk.make_room(&dir);
    let mut client = Client::new(&dir);
    wait_until("the state goes", || client.status_word("degraded") == "none");
    wait_until("the queued jobs run", || {
        let ran = processed(&dir);
        jobs.iter().all(|job| ran.contains(job))
    });
    wait_until("new ones are taken", || client.ask("queue echo new").starts_with("ok "));
}

#[test]
fn a_journal_with_dead_jobs_does_not_grow_where_no_file_can_be_made() {
    if !has_namespaces() {
        return;
    }
    let dir = Dir::new();
    let Some(disk) = SmallDisk::formatted(&dir, "mount -t tmpfs -o size=4m,nr_inodes=16 none $0") else {
        return;
    };
    let options = ["handler=shell", "interval=200ms", "retries=0", "log_level=warn"];
    let mut pid = disk.start(&dir, &options);
    let mut dead = 0;
    for round in 0..3 {
        let mut client = Client::new(&dir);
        client.queue("exit 7");
        dead += 1;
        wait_until("it is dead", || client.status("dead") == dead);
        disk.take_inodes(&dir);
        assert!(std::fs::File::create(disk.path(&dir, "one")).is_err(), "an inode is left");
        for part in 0..8 {
            let jobs: Vec<String> =
                (0..60).map(|number| format!(": {round} {part} {number} {}", "x".repeat(900))).collect();
            client.queue_all(&jobs);
            wait_until("they end", || client.status("waiting") == 0);
            let size = std::fs::metadata(disk.path(&dir, "spool/journal")).unwrap().len();
            assert!(size < 300_000, "the journal has {size} bytes");
            assert_eq!(client.status_word("degraded"), "none");
        }
        assert_eq!(client.status("dead"), dead);
        kill_hard(pid);
        if round == 1 {
            // The file that is kept for the next journal can be anything.
            std::fs::remove_file(disk.path(&dir, "spool/journal.spare")).unwrap();
            std::fs::create_dir(disk.path(&dir, "spool/journal.spare")).unwrap();
        }
        pid = disk.start(&dir, &options);
        assert_eq!(Client::new(&dir).status("dead"), dead);
        if round == 1 {
            // The file is made with the first commit after a start, which a job that the kill
            // interrupted may have caused by now.
            dir.zigsvc(&["stop"]).expect(0);
            disk.make_room(&dir);
            std::fs::remove_dir(disk.path(&dir, "spool/journal.spare")).unwrap();
            pid = disk.start(&dir, &options);
        }
    }
}

#[test]
fn below_the_limit_of_a_files_size_ended_jobs_make_room() {
    if !require_tool("prlimit") {
        return;
    }
    let dir = Dir::new();
    let pid = crate::support::control::start(&dir, &["handler=shell", "interval=200ms", "log_level=warn"]);
    let mut client = Client::new(&dir);
    // The limit counts for the log too, so the log is short. Each round of jobs writes half of it.
    limit_files(pid, "40000:unlimited");
    for round in 0..4 {
        let jobs: Vec<String> =
            (0..30).map(|number| format!(": {round} {number} {}", "x".repeat(700))).collect();
        for job in &jobs {
            wait_until("it is taken", || client.ask(&format!("queue {job}")).starts_with("ok "));
        }
        wait_until("they end", || client.status("jobs") == (round + 1) * 30);
    }
    // The ends of earlier jobs make room too, which takes a second attempt.
    wait_until("the state goes", || client.status_word("degraded") == "none");
    // More than fits at a time is refused, until some have ended.
    let gate = gate(&dir);
    wait_until("the gate is taken", || client.ask(&format!("queue {gate}")).starts_with("ok "));
    let mut taken = 0;
    let answer = loop {
        let answer = client.ask(&format!("queue : {}", "y".repeat(900)));
        if !answer.starts_with("ok ") || taken > 60 {
            break answer;
        }
        taken += 1;
    };
    expect_error(&answer, "no-space");
    assert_eq!(client.status_word("degraded"), "spool-full");
    dir.write("go", "");
    let mut answer = String::new();
    let is_taken = holds_within(patience(), || {
        answer = client.ask("queue : last");
        answer.starts_with("ok ")
    });
    let length = || std::fs::metadata(dir.path("spool/journal")).unwrap().len();
    assert!(is_taken, "{answer}; {} bytes; {}", length(), client.ask("status"));
    wait_until("the state goes", || client.status_word("degraded") == "none");
    wait_until("all end", || client.status("jobs") == 4 * 30 + 1 + taken + 1);
}

/// Shows that each request that is refused for want of space leaves a state, which goes with the
/// cause.
#[test]
fn whatever_is_refused_for_want_of_space_has_a_state() {
    if !require_tool("prlimit") {
        return;
    }
    let dir = Dir::new();
    let options = ["handler=shell", "interval=200ms", "retries=0", "log_max=0"];
    let mut pid = crate::support::control::start(&dir, &options);
    let mut client = Client::new(&dir);
    client.queue("exit 7");
    wait_until("it is dead", || client.status("dead") == 1);
    for number in 0..60 {
        assert_eq!(client.ask(&format!("after 1h : {number}")), format!("ok id={}", number + 2));
    }
    let mut held = "none";
    // The third is in the window, the last one is not.
    for request in
        ["hold", "resume", "cancel 3", "cancel 61", "retry 1", "forget 1", "queue : x", "after 1h : x"]
    {
        if request == "resume" {
            assert_eq!(client.ask("hold"), "ok held");
            held = "held";
            // After a start too.
            kill_hard(pid);
            pid = crate::support::control::start(&dir, &options);
            client = Client::new(&dir);
        }
        limit_files(pid, "64:unlimited");
        wait_until(&format!("{request} is refused, and a state says why"), || {
            let answer = client.ask(request);
            expect_error(&answer, "no-space");
            client.status_word("degraded").contains("spool-full")
        });
        limit_files(pid, "unlimited:unlimited");
        wait_until("the state goes", || client.status_word("degraded") == held);
    }
    assert_eq!(client.ask("resume"), "ok resumed");
    assert_eq!((client.status("dead"), client.status("scheduled")), (1, 60));
}

#[test]
fn a_held_queue_on_a_full_quota_has_a_state_from_its_start_on() {
    let dir = Dir::new();
    let Some(disk) = disk_with_quota(&dir) else { return };
    let options = ["handler=shell", "interval=200ms"];
    let pid = disk.start(&dir, &options);
    let mut client = Client::new(&dir);
    assert_eq!(client.ask("hold"), "ok held");
    client.queue_all(&(1..=90).map(|number| format!(": {number} {}", "x".repeat(300))).collect::<Vec<_>>());
    disk.fill(&dir);
    kill_hard(pid);
    disk.start(&dir, &options);
    let mut client = Client::new(&dir);
    wait_until("a state names it", || client.status_word("degraded") == "spool-full,held");
    disk.make_room(&dir);
    wait_until("the state goes", || client.status_word("degraded") == "held");
    wait_until("it is resumed", || client.ask("resume") == "ok resumed");
    wait_until("all jobs end", || client.status("jobs") == 90);
}
