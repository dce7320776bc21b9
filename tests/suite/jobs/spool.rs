//! The spool's folder and its journal, in every state in which they may be
//! found, and a disk that is full.
//!
//! Mounts, which only root can set up, are made in a mount namespace of its own;
//! the tests look into it from outside through `/proc/PID/root`.

use crate::support::control::{Client, expect_error, start};
use crate::support::small_disk::{SmallDisk, has_namespaces};
use crate::support::{
    Dir, Ran, alive, finish, is_idle, kill, log_lines_matching, logged_word, processed, program,
    require_root, require_tool, under_qemu, wait_for_jobs, wait_for_log, wait_until,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Insists that a start fails with one line on stderr, and leaves nothing running.
#[track_caller]
fn start_fails(dir: &Dir) -> Ran {
    let ran = dir.zigsvc(&["start"]).expect(1);
    assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1), "{ran:?}");
    assert!(ran.err.starts_with("zigsvc: ") && ran.err.contains("spool"), "{ran:?}");
    assert!(dir.lock_holder("zigsvc.pid").is_none());
    ran
}

/// Makes a folder with a stopped service whose journal holds `count` jobs that wait: `exec
/// sleep 300`, which was running, and `job 2` to `job COUNT`.
fn with_waiting_jobs(count: usize) -> Dir {
    let dir = Dir::new();
    let pid = start(&dir, &["handler=shell"]);
    let mut lines = "exec sleep 300\n".to_owned();
    for number in 2..=count {
        lines.push_str(&format!("echo job {number}\n"));
    }
    dir.append("queue", &lines);
    wait_until("all are in the journal", || {
        let journal = fs::read(dir.path("spool/journal")).unwrap_or_default();
        let last = format!("echo job {count}");
        journal.windows(last.len()).any(|window| window == last.as_bytes())
    });
    wait_for_log(&dir, "processing job: exec sleep 300");
    kill(pid, "KILL");
    wait_until("it is gone", || !alive(pid));
    // The claim would only bring back what the journal loses.
    fs::remove_file(dir.path("queue.claim-1")).unwrap();
    fs::remove_file(dir.path("zigsvc.log")).unwrap();
    dir
}

fn expected(numbers: impl Iterator<Item = usize>) -> Vec<String> {
    numbers.map(|number| format!("echo job {number}")).collect()
}

// ----- the folder ------------------------------------------------------------

#[test]
fn a_missing_spool_is_created_for_its_owner_only() {
    let dir = Dir::new();
    let deep = format!("spool={}/a/b/spool", dir.as_arg());
    start(&dir, &[&deep]);
    let mode = |name: &str| fs::metadata(dir.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("a/b/spool"), 0o700);
    assert_eq!(mode("a/b/spool/journal"), 0o600);
    assert!(!dir.path("spool").exists());
    dir.append("queue", "works\n");
    wait_for_jobs(&dir, 1);
}

#[test]
fn a_spool_that_is_no_folder_fails_the_start() {
    let dir = Dir::new();
    dir.write("spool", "a file\n");
    start_fails(&dir);
    assert_eq!(dir.read("spool"), "a file\n");
}

#[test]
fn a_journal_that_is_no_regular_file_fails_the_start_and_is_left_alone() {
    let dir = Dir::new();
    fs::create_dir(dir.path("spool")).unwrap();
    let journal = dir.path("spool/journal");

    fs::create_dir(&journal).unwrap();
    start_fails(&dir);
    fs::remove_dir(&journal).unwrap();

    dir.write("target", "");
    std::os::unix::fs::symlink(dir.path("target"), &journal).unwrap();
    assert!(start_fails(&dir).err.contains("ELOOP"));
    assert_eq!(dir.read("target"), "");
    fs::remove_file(&journal).unwrap();

    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, journal.to_str().unwrap(), mode).unwrap();
    start_fails(&dir);
    fs::remove_file(&journal).unwrap();

    start(&dir, &[]);
}

#[test]
fn a_spool_that_cannot_be_written_fails_the_start() {
    if !(require_root() && require_tool("unshare") && require_tool("mount")) {
        return;
    }
    let dir = Dir::new();
    start(&dir, &[]);
    dir.zigsvc(&["stop"]).expect(0);
    let journal = fs::read(dir.path("spool/journal")).unwrap();
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
    let mut command = wrapped(&["unshare", "-m", "sh", "-c", script], &dir.path("spool"), dir.command());
    command.arg("start");
    let ran = finish(command, None);
    assert_eq!((ran.code, ran.err.lines().count()), (1, 1), "{ran:?}");
    assert!(ran.err.contains("spool") && ran.err.contains("EROFS"), "{ran:?}");
    assert_eq!(fs::read(dir.path("spool/journal")).unwrap(), journal);
}

// ----- the journal -----------------------------------------------------------

#[test]
fn a_journal_of_another_version_is_refused_and_left_alone() {
    let dir = with_waiting_jobs(5);
    let mut journal = fs::read(dir.path("spool/journal")).unwrap();
    assert!(journal.starts_with(b"zigsvc-journal 2\n"));
    for version in [b"3\n", b"10", b"0\n"] {
        journal[15..17].copy_from_slice(version);
        dir.write("spool/journal", &journal);
        dir.append("queue", "waits\n");
        assert!(start_fails(&dir).err.contains("another version"));
        assert_eq!(fs::read(dir.path("spool/journal")).unwrap(), journal);
        assert!(dir.path("queue").exists(), "the queue file was claimed");
    }
    // Back to the right one, nothing has happened.
    journal[15..17].copy_from_slice(b"2\n");
    dir.write("spool/journal", &journal);
    start(&dir, &["handler=log", "take=all"]);
    wait_for_jobs(&dir, 8);
    assert_eq!(processed(&dir)[1..5], expected(2..=5));
}

/// Reads `tests/spool/0.1.0-a280011`, which was left by a build of that commit (2026-11-24)
/// that was killed: 1 done, 2 dead, 3 running, 4 waiting, 5 cancelled, 6 to 8 from a claim
/// whose last line has no newline. A change of the format that cannot read it needs another
/// `FILE_HEADER`, and owes its users a way.
#[test]
fn the_spool_of_an_earlier_build_is_read() {
    let dir = Dir::new();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spool/0.1.0-a280011");
    fs::create_dir(dir.path("spool")).unwrap();
    for (name, to) in [("journal", "spool/journal"), ("queue.claim-1", "queue.claim-1")] {
        dir.write(to, fs::read(from.join(name)).unwrap());
    }
    let pid = start(&dir, &["handler=shell"]);
    wait_for_jobs(&dir, 6);
    let claimed = ["first line of a claim", "second line of a claim", "late line of the claim"];
    let mut expected = vec!["attempt 2 of the one that ran", "from the socket"];
    expected.extend(claimed);
    expected.push("without a newline");
    let log = dir.read("zigsvc.log");
    wait_until("all have spoken", || {
        let said = |text: &&&str| log_lines_matching(&dir.read("zigsvc.log"), &format!(": {text}")) == 1;
        expected.iter().filter(said).count() == expected.len()
    });
    assert!(log.contains("1 interrupted jobs run again") && !log.contains("ERROR"), "{log}");
    let order: Vec<String> = processed(&dir);
    assert!(order[0].contains("attempt $ZIGSVC_ATTEMPT") && order.len() == 6, "{order:?}");
    assert_eq!(order[1..], expected[1..].iter().map(|text| format!("echo {text}")).collect::<Vec<_>>());
    assert_eq!(dir.zigsvc(&["list"]).expect(0).out, "2 dead 1 exit 3\n");
    assert_eq!(dir.zigsvc(&["queue", "true"]).expect(0).out, "10\n");
    wait_until("no job is left", || is_idle(&dir, pid));
}

#[test]
fn a_damaged_record_is_set_aside_and_the_others_run() {
    let dir = with_waiting_jobs(20);
    let mut journal = fs::read(dir.path("spool/journal")).unwrap();
    let at = journal.windows(11).position(|window| window == b"echo job 10").unwrap();
    journal[at + 3] ^= 0x10;
    dir.write("spool/journal", &journal);
    let started = dir.zigsvc(&["-o", "log_max=0", "-o", "take=all", "start"]).expect(0);
    assert!(started.err.contains("damaged records were set aside"), "{started:?}");
    wait_for_jobs(&dir, 19);
    let mut wanted = vec!["exec sleep 300".to_owned()];
    wanted.extend(expected((2..=20).filter(|number| *number != 10)));
    assert_eq!(processed(&dir), wanted);
    let aside = fs::read(dir.path("spool/journal.bad-1")).unwrap();
    assert!(aside.windows(11).any(|window| window == &journal[at..at + 11]), "the damaged record is kept");
    assert_eq!(log_lines_matching(&dir.read("zigsvc.log"), "[ERROR] spool: "), 1);
    // Said once, not at each start.
    dir.zigsvc(&["stop"]).expect(0);
    let again = dir.zigsvc(&["-o", "log_max=0", "-o", "take=all", "start"]).expect(0);
    assert_eq!(again.err, "");
    assert!(!dir.path("spool/journal.bad-2").exists());
}

#[test]
fn damage_while_the_service_runs_costs_its_job_and_is_told_to_all_who_wait() {
    let dir = Dir::new();
    let go = dir.path("go").display().to_string();
    start(&dir, &["handler=shell", "workers=1"]);
    let mut client = Client::new(&dir);
    client.queue(&format!("until [ -e {go} ]; do sleep 0.02; done"));
    // Far more jobs than there is room for in memory.
    let ids = client.queue_all(&(2..=100).map(|number| format!("echo job {number}")).collect::<Vec<_>>());
    let mut waiting = Client::new(&dir);
    waiting.send(format!("wait {}\n", ids[78]));
    let journal = fs::read(dir.path("spool/journal")).unwrap();
    let at = journal.windows(11).position(|window| window == b"echo job 80").unwrap();
    let file = fs::File::options().write(true).open(dir.path("spool/journal")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[journal[at + 3] ^ 0x10], at as u64 + 3).unwrap();
    dir.write("go", "");
    dir.zigsvc(&["drain", "--wait"]).expect(0);
    expect_error(&waiting.line(), "no-job");
    let log = dir.read("zigsvc.log");
    let told = "set aside as journal.bad-N; 1 jobs are lost with them";
    assert_eq!(log_lines_matching(&log, told), 1, "{log}");
    assert_eq!(processed(&dir)[1..], expected((2..=100).filter(|number| *number != 80)));
    let aside = fs::read(dir.path("spool/journal.bad-1")).unwrap();
    assert!(aside.ends_with(b" job 80"), "{aside:?}");
}

#[test]
fn a_damaged_file_header_costs_no_job() {
    let dir = with_waiting_jobs(5);
    let mut journal = fs::read(dir.path("spool/journal")).unwrap();
    journal[3] = b'X';
    dir.write("spool/journal", &journal);
    dir.zigsvc(&["-o", "log_max=0", "-o", "take=all", "start"]).expect(0);
    wait_for_jobs(&dir, 5);
    assert_eq!(processed(&dir)[1..], expected(2..=5));
    assert!(fs::read(dir.path("spool/journal")).unwrap().starts_with(b"zigsvc-journal 2\n"));
}

#[test]
fn any_flipped_byte_costs_at_most_the_jobs_of_its_record() {
    // Not one of each claim's group may be run twice or come out changed.
    let original = with_waiting_jobs(12);
    let journal = fs::read(original.path("spool/journal")).unwrap();
    let mut known = vec!["exec sleep 300".to_owned()];
    known.extend(expected(2..=12));
    let step = if under_qemu() { 97 } else { 23 };
    for at in (17..journal.len()).step_by(step) {
        let dir = Dir::new();
        fs::create_dir(dir.path("spool")).unwrap();
        let mut journal = journal.clone();
        journal[at] ^= 0xFF;
        dir.write("spool/journal", &journal);
        dir.zigsvc(&["-o", "log_max=0", "-o", "take=all", "start"]).expect(0);
        dir.append("queue", "the end\n");
        wait_until("the end is reached", || processed(&dir).iter().any(|job| job == "the end"));
        let mut left = known.iter();
        let ran = processed(&dir);
        let lost = known.len() + 1 - ran.len();
        for job in ran.iter().filter(|job| *job != "the end") {
            assert!(left.any(|known| known == job), "byte {at}: {job} in {ran:?}");
        }
        assert!(lost <= 1, "byte {at}: {ran:?}");
    }
}

#[test]
fn a_torn_end_is_cut_and_the_rest_runs() {
    for cut in [1, 15, 30] {
        let dir = with_waiting_jobs(6);
        let journal = fs::read(dir.path("spool/journal")).unwrap();
        // A claim's group is whole or not: this one has an end of its own.
        start(&dir, &["handler=shell"]);
        wait_for_log(&dir, "processing job: exec sleep 300");
        dir.zigsvc(&["stop"]).expect(0);
        fs::remove_file(dir.path("zigsvc.log")).unwrap();
        let longer = fs::read(dir.path("spool/journal")).unwrap();
        assert!(longer.len() > journal.len() + 30);
        dir.write("spool/journal", &longer[..longer.len() - cut]);
        let started = dir.zigsvc(&["-o", "log_max=0", "-o", "take=all", "start"]).expect(0);
        assert_eq!(started.err, "", "a torn end is no damage");
        wait_for_jobs(&dir, 6);
        // The first job waits if the end of its second attempt is lost, too.
        let mut others = processed(&dir);
        others.retain(|text| text != "exec sleep 300");
        assert_eq!(others, expected(2..=6));
        assert!(!dir.path("spool/journal.bad-1").exists());
    }
}

#[test]
fn a_journal_that_ends_with_zeros_or_noise_keeps_its_jobs() {
    for (tail, aside) in
        [(vec![0; 1], false), (vec![0; 100_000], false), (vec![0xA5; 5000], true), (b"\n".to_vec(), true)]
    {
        let dir = with_waiting_jobs(6);
        let mut journal = fs::read(dir.path("spool/journal")).unwrap();
        journal.extend(&tail);
        dir.write("spool/journal", &journal);
        dir.zigsvc(&["-o", "log_max=0", "-o", "take=all", "start"]).expect(0);
        wait_for_jobs(&dir, 6);
        assert_eq!(processed(&dir)[1..], expected(2..=6));
        dir.append("queue", "new\n");
        wait_for_jobs(&dir, 7);
        if tail.len() > 100 {
            assert_eq!(dir.path("spool/journal.bad-1").exists(), aside);
        }
        // And all of it is still known after the next start.
        dir.zigsvc(&["stop"]).expect(0);
        let pid = start(&dir, &[]);
        assert_eq!(logged_word(&dir, pid, "waiting"), "0");
        assert_eq!(processed(&dir).len(), 7);
    }
}

#[test]
fn an_empty_journal_or_one_of_noise_alone_starts_anew() {
    for content in [&b""[..], b"z", b"zigsvc-jour", &[0; 64], &[0x5A; 70_000]] {
        let dir = Dir::new();
        fs::create_dir(dir.path("spool")).unwrap();
        dir.write("spool/journal", content);
        dir.zigsvc(&["-o", "log_max=0", "-o", "take=all", "start"]).expect(0);
        dir.append("queue", "works\n");
        wait_for_jobs(&dir, 1);
        dir.zigsvc(&["stop"]).expect(0);
        let pid = start(&dir, &[]);
        assert_eq!(logged_word(&dir, pid, "waiting"), "0");
    }
}

#[test]
fn what_an_interrupted_compaction_left_is_no_journal() {
    let dir = with_waiting_jobs(5);
    dir.write("spool/journal.new", "zigsvc-journal 1\nhalf of something");
    start(&dir, &["take=all"]);
    wait_for_jobs(&dir, 5);
    assert_eq!(processed(&dir)[1..], expected(2..=5));
}

// ----- a full disk -----------------------------------------------------------

/// Returns `PREFIX... FOLDER COMMAND...` with the environment of the tests' binary.
fn wrapped(prefix: &[&str], folder: &std::path::Path, inner: Command) -> Command {
    let mut command = program(prefix[0]);
    command.args(&prefix[1..]).arg(folder).arg(inner.get_program()).args(inner.get_args());
    command
}

#[test]
fn a_full_disk_loses_nothing_and_works_again_when_there_is_room() {
    if !has_namespaces() {
        return;
    }
    let dir = Dir::new();
    let disk = SmallDisk::new(&dir, "512k");
    let pid = disk.start(&dir, &[]);
    fs::write(disk.path(&dir, "queue"), "before\n").unwrap();
    wait_for_jobs(&dir, 1);
    // 200 lines of 100 bytes arrive just before the disk is full.
    let jobs: Vec<String> = (1..=200).map(|number| format!("job {number} {}", "x".repeat(90))).collect();
    kill(pid, "STOP");
    fs::write(disk.path(&dir, "prepared"), jobs.join("\n") + "\n").unwrap();
    fs::rename(disk.path(&dir, "prepared"), disk.path(&dir, "queue")).unwrap();
    disk.fill(&dir);
    kill(pid, "CONT");
    wait_for_log(&dir, "[ERROR] spool: ");
    wait_until("it says so", || logged_word(&dir, pid, "degraded").contains("spool"));
    assert!(dir.read("zigsvc.log").contains("ENOSPC"), "{}", dir.read("zigsvc.log"));
    assert_eq!(log_lines_matching(&dir.read("zigsvc.log"), "[ERROR] spool: "), 1, "said once");
    fs::remove_file(disk.path(&dir, "filler")).unwrap();
    wait_for_log(&dir, "spool: works again");
    wait_for_jobs(&dir, 201);
    assert_eq!(logged_word(&dir, pid, "degraded"), "none");
    assert_eq!(processed(&dir)[1..], jobs);
    assert_eq!(logged_word(&dir, pid, "waiting"), "0");
}

#[test]
fn a_daemon_that_is_killed_on_a_full_disk_starts_there_and_loses_nothing() {
    if !has_namespaces() {
        return;
    }
    let dir = Dir::new();
    let disk = SmallDisk::new(&dir, "512k");
    let pid = disk.start(&dir, &["handler=shell"]);
    let jobs: Vec<String> = (1..=100).map(|number| format!("echo {number} {}", "x".repeat(90))).collect();
    fs::write(disk.path(&dir, "queue"), "exec sleep 300\n".to_owned() + &jobs.join("\n") + "\n").unwrap();
    wait_for_log(&dir, "processing job: exec sleep 300");
    disk.fill(&dir);
    kill(pid, "KILL");
    wait_until("it is gone", || !alive(pid));
    let pid = disk.start(&dir, &["take=all"]);
    fs::remove_file(disk.path(&dir, "filler")).unwrap();
    wait_for_jobs(&dir, 102);
    assert_eq!(processed(&dir)[2..], jobs);
    assert_eq!(logged_word(&dir, pid, "waiting"), "0");
}

#[test]
fn old_jobs_go_on_while_a_full_disk_refuses_new_ones() {
    if !has_namespaces() {
        return;
    }
    let dir = Dir::new();
    let disk = SmallDisk::new(&dir, "256k");
    dir.write_executable(
        "handler",
        &format!("#!/bin/sh\nuntil [ -e {}/go ]; do sleep 0.05; done\n", dir.as_arg()),
    );
    let pid = disk.start(&dir, &[&format!("handler={}", dir.path("handler").display())]);
    // The first jobs are taken, and the first of them runs.
    let jobs: Vec<String> = (1..=50).map(|number| format!("old {number}")).collect();
    fs::write(disk.path(&dir, "queue"), jobs.join("\n") + "\n").unwrap();
    wait_for_jobs(&dir, 1);
    wait_until("all are taken", || logged_word(&dir, pid, "waiting") == "49");
    // New ones: more than there is room for, all but what is left in the
    // journal's last page.
    kill(pid, "STOP");
    let new: Vec<String> = (1..=60).map(|number| format!("new {number} {}", "x".repeat(900))).collect();
    fs::write(disk.path(&dir, "prepared"), new.join("\n") + "\n").unwrap();
    fs::rename(disk.path(&dir, "prepared"), disk.path(&dir, "queue")).unwrap();
    disk.fill(&dir);
    kill(pid, "CONT");
    wait_until("it says so", || logged_word(&dir, pid, "degraded").contains("spool"));
    dir.write("go", "");
    wait_for_jobs(&dir, 15);
    fs::remove_file(disk.path(&dir, "filler")).unwrap();
    wait_for_jobs(&dir, 110);
    let wanted: Vec<String> = jobs.into_iter().chain(new).collect();
    assert_eq!(processed(&dir), wanted);
}

#[test]
fn on_a_disk_that_others_have_filled_the_queued_jobs_run_and_make_room_for_more() {
    if !has_namespaces() {
        return;
    }
    let dir = Dir::new();
    let disk = SmallDisk::new(&dir, "512k");
    let go = dir.path("go").display().to_string();
    let pid = disk.start(&dir, &["handler=shell", "workers=1", "interval=100ms"]);
    let mut client = Client::new(&dir);
    client.queue(&format!("until [ -e {go} ]; do sleep 0.02; done"));
    let jobs: Vec<String> = (1..=500).map(|number| format!("echo {number} {}", "x".repeat(300))).collect();
    client.queue_all(&jobs);
    // Not even the last block is left, and it stays so.
    disk.fill(&dir);
    expect_error(&client.ask("queue one too many"), "no-space");
    dir.write("go", "");
    wait_for_jobs(&dir, 501);
    assert_eq!(processed(&dir)[1..], jobs);
    wait_until("their ends are recorded", || is_idle(&dir, pid));
    assert_eq!(log_lines_matching(&dir.read("zigsvc.log"), "jobs wait, none is lost"), 0);
    // The journal was rewritten in the room that it had itself.
    wait_until("new ones are taken", || client.ask("queue echo new").starts_with("ok "));
    wait_for_jobs(&dir, 502);
    wait_until("its end is recorded, too", || is_idle(&dir, pid));
    kill(pid, "KILL");
    wait_until("it is gone", || !alive(pid));
    disk.start(&dir, &["handler=shell"]);
    wait_for_jobs(&dir, 502);
    assert_eq!(processed(&dir).len(), 502, "none ran twice");
}

#[test]
fn a_full_disk_is_told_once_and_stays_in_the_status_while_it_refuses() {
    if !has_namespaces() {
        return;
    }
    let dir = Dir::new();
    let disk = SmallDisk::new(&dir, "256k");
    let pid = disk.start(&dir, &["handler=log"]);
    assert_eq!(dir.zigsvc(&["queue", "before"]).expect(0).out, "1\n");
    disk.fill(&dir);
    let refused = || {
        let ran = dir.zigsvc(&["queue", "too much"]).expect(1);
        assert!(ran.err.contains("(no-space)"), "{ran:?}");
        assert_eq!(logged_word(&dir, pid, "degraded"), "spool-full");
    };
    // A client that asks is refused, and so is one that asks after the disk had its rest.
    refused();
    let uptime = || logged_word(&dir, pid, "uptime").parse::<u64>().unwrap();
    let began = uptime();
    wait_until("it was asked for a while", || {
        refused();
        uptime() >= began + 4
    });
    let told = |text: &str| log_lines_matching(&dir.read("zigsvc.log"), text);
    let full = format!("[ERROR] spool: no room for new jobs: {}/disk/spool: ENOSPC ", dir.as_arg());
    assert_eq!((told(&full), told("spool: works again")), (1, 0), "{}", dir.read("zigsvc.log"));
    assert_eq!(told("[ERROR]"), 1, "{}", dir.read("zigsvc.log"));
    assert_eq!(processed(&dir), ["before"]);
    // Dead jobs and running ones could be steered, and a list be asked for.
    dir.zigsvc(&["list"]).expect(0);
    dir.zigsvc(&["forget", "dead"]).expect(0);
    fs::remove_file(disk.path(&dir, "filler")).unwrap();
    wait_for_log(&dir, "spool: works again");
    assert_eq!(dir.zigsvc(&["queue", "after"]).expect(0).out, "2\n");
    assert_eq!(logged_word(&dir, pid, "degraded"), "none");
    assert_eq!((told("[ERROR]"), told("spool: works again")), (1, 1), "{}", dir.read("zigsvc.log"));
}
