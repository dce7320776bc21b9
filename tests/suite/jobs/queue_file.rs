//! The queue file: every way in which lines come into it, and every way in
//! which it can be unusable.

use crate::support::control::{start, ticks};
use crate::support::random::Random;
use crate::support::{
    Dir, alive, is_root, kill, let_pass, log_lines_matching, logged_number, measuring, processed, program,
    require, require_native, require_tool, under_qemu, wait_for_jobs, wait_for_log, wait_for_turn,
    wait_until,
};
use core::time::Duration;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::thread;
use std::time::Instant;
use zigsvc::limits::{CLAIM_EVERY, CLAIM_QUIET};

/// Returns the names of the claimed queue files, and that of the queue file.
fn queue_files(dir: &Dir) -> Vec<String> {
    let entries = fs::read_dir(dir.path("")).unwrap().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("queue")).collect()
}

// ----- ways in ---------------------------------------------------------------

#[test]
fn many_writers_append_and_every_line_is_a_job_once_in_each_writers_order() {
    let dir = Dir::new();
    start(&dir, &["queue_max=100000"]);
    let (writers, lines) = (8, if under_qemu() { 50 } else { 250 });
    thread::scope(|scope| {
        for writer in 0..writers {
            let dir = &dir;
            scope.spawn(move || {
                for line in 0..lines {
                    dir.append("queue", &format!("writer {writer} line {line}\n"));
                }
            });
        }
    });
    wait_for_jobs(&dir, writers * lines);
    dir.zigsvc(&["stop"]).expect(0);
    let processed = processed(&dir);
    assert_eq!(processed.len(), writers * lines);
    for writer in 0..writers {
        let prefix = format!("writer {writer} ");
        let own: Vec<&String> = processed.iter().filter(|job| job.starts_with(&prefix)).collect();
        let wanted: Vec<String> = (0..lines).map(|line| format!("writer {writer} line {line}")).collect();
        assert!(own.iter().copied().eq(&wanted), "{own:?}");
    }
}

#[test]
fn a_queue_file_that_is_written_anew_is_read() {
    let dir = Dir::new();
    start(&dir, &[]);
    for number in 1..=3 {
        dir.write("queue", format!("truncating {number}\n"));
        wait_for_jobs(&dir, number);
    }
    assert_eq!(processed(&dir), ["truncating 1", "truncating 2", "truncating 3"]);
}

#[test]
fn a_queue_file_that_was_there_before_the_service_is_read() {
    let dir = Dir::new();
    dir.append("queue", "early 1\nearly 2\n");
    start(&dir, &[]);
    wait_for_jobs(&dir, 2);
    dir.zigsvc(&["stop"]).expect(0);
    dir.append("queue", "while stopped\n");
    start(&dir, &[]);
    wait_for_jobs(&dir, 3);
    assert_eq!(processed(&dir), ["early 1", "early 2", "while stopped"]);
}

#[test]
fn a_queue_file_that_is_moved_into_place_is_read() {
    let dir = Dir::new();
    start(&dir, &[]);
    dir.write("prepared", "moved 1\nmoved 2\n");
    fs::rename(dir.path("prepared"), dir.path("queue")).unwrap();
    wait_for_jobs(&dir, 2);
    dir.write("prepared", "linked\n");
    fs::hard_link(dir.path("prepared"), dir.path("queue")).unwrap();
    wait_for_jobs(&dir, 3);
}

#[test]
fn a_file_that_is_created_empty_and_written_later_is_read() {
    let dir = Dir::new();
    let pid = start(&dir, &["interval=1h"]);
    let mut file = fs::File::create(dir.path("queue")).unwrap();
    // The service sees the empty file.
    wait_for_turn(&dir, pid);
    assert_eq!(queue_files(&dir), ["queue"]);
    file.write_all(b"late\n").unwrap();
    wait_for_jobs(&dir, 1);
}

#[test]
fn blanks_are_trimmed_and_empty_lines_skipped() {
    let dir = Dir::new();
    start(&dir, &[]);
    dir.append("queue", "\n\n  one  \n\t\t\n\r\n two\t\r\n\rthree\n   \na  b\n");
    wait_for_jobs(&dir, 4);
    dir.zigsvc(&["stop"]).expect(0);
    assert_eq!(processed(&dir), ["one", "two", "three", "a  b"]);
    assert!(!dir.path("spool/rejected").exists());
}

#[test]
fn a_line_that_comes_in_pieces_is_one_job_and_the_last_one_needs_no_newline() {
    let _measuring = measuring();
    let dir = Dir::new();
    let pid = start(&dir, &[]);
    // The writer holds one file open over several claims.
    let mut file = fs::File::create(dir.path("queue")).unwrap();
    for piece in ["o", "ne\ntw", "o\nthr"] {
        file.write_all(piece.as_bytes()).unwrap();
        let_pass(CLAIM_EVERY);
    }
    dir.append("queue", "other\n");
    wait_for_jobs(&dir, 3);
    assert_eq!(processed(&dir), ["one", "two", "other"]);
    let_pass(CLAIM_EVERY);
    file.write_all(b"ee\nlast").unwrap();
    let written = Instant::now();
    wait_for_jobs(&dir, 4);
    assert_eq!(processed(&dir)[3], "three");
    drop(file);
    let before = ticks(pid);
    wait_for_jobs(&dir, 5);
    assert!(written.elapsed() >= Duration::from_millis(CLAIM_QUIET.as_ms() - 500), "{:?}", written.elapsed());
    assert_eq!(processed(&dir)[4], "last");
    wait_until("the claims are removed", || queue_files(&dir).is_empty());
    if require_native("the processor's time would be mostly QEMU's") {
        assert!(ticks(pid) - before < 30, "busy waiting for the claims to become quiet");
    }
}

#[test]
fn a_line_of_1000_bytes_is_a_job_and_one_of_1001_is_rejected() {
    let dir = Dir::new();
    start(&dir, &[]);
    let (longest, longer) = ("x".repeat(1000), "y".repeat(1001));
    dir.append("queue", &format!("{longer}\n \t{longest} \r\n{longer}\nafter\n"));
    wait_for_jobs(&dir, 2);
    assert_eq!(processed(&dir), [longest.as_str(), "after"]);
    assert_eq!(dir.read("spool/rejected"), format!("{longer}\n{longer}\n"));
    let log = dir.read("zigsvc.log");
    assert_eq!(log_lines_matching(&log, "[WARN] queue file: a line was put into spool/rejected"), 2, "{log}");
    let mode = fs::metadata(dir.path("spool/rejected")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_line_with_a_null_byte_is_rejected() {
    let dir = Dir::new();
    start(&dir, &[]);
    dir.append("queue", "good\nb\0d\n\0\nfine\n");
    wait_for_jobs(&dir, 2);
    assert_eq!(processed(&dir), ["good", "fine"]);
    assert_eq!(dir.read("spool/rejected"), "b\0d\n\0\n");
    wait_for_log(&dir, "a NUL byte: b\\x00d");
}

#[test]
fn megabytes_without_a_newline_are_rejected_and_bounded() {
    let dir = Dir::new();
    let pid = start(&dir, &["interval=100ms"]);
    let mut flood = b"before\n".to_vec();
    flood.extend(vec![b'z'; 5_000_000]);
    flood.extend(b"\nafter\n");
    dir.write("flood", &flood);
    fs::rename(dir.path("flood"), dir.path("queue")).unwrap();
    wait_for_jobs(&dir, 2);
    assert_eq!(processed(&dir), ["before", "after"]);
    assert!(alive(pid));
    assert_eq!(log_lines_matching(&dir.read("zigsvc.log"), "spool/rejected"), 1);
    let kept: u64 = ["rejected", "rejected.1"]
        .iter()
        .filter_map(|name| fs::metadata(dir.path(&format!("spool/{name}"))).ok())
        .map(|meta| meta.len())
        .sum();
    assert!((1000..150_000).contains(&kept), "{kept} bytes were kept");
}

#[test]
fn binary_noise_neither_hurts_nor_hides_the_lines_around_it() {
    let dir = Dir::new();
    let pid = start(&dir, &[]);
    let mut bytes = b"first\n".to_vec();
    bytes.extend(Random::new(1).bytes(200_000));
    bytes.extend(b"\nlast\n");
    dir.write("noise", &bytes);
    fs::rename(dir.path("noise"), dir.path("queue")).unwrap();
    wait_until("the last line is processed", || processed(&dir).last().is_some_and(|job| job == "last"));
    assert_eq!(processed(&dir)[0], "first");
    let log = fs::read(dir.path("zigsvc.log")).unwrap();
    assert!(log.iter().all(|byte| !matches!(byte, 0..9 | 11..32 | 127)), "control bytes in the log");
    assert!(alive(pid));
}

#[test]
fn without_inotify_the_queue_file_and_its_claims_are_looked_at_each_interval() {
    if !require_tool("unshare") {
        return;
    }
    let dir = Dir::new();
    let mut inner = dir.command();
    inner.args(["-o", "interval=200ms", "start"]);
    let script = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"";
    let mut command = program("unshare");
    command.args(["-Ur", "sh", "-c", script, "sh"]).arg(inner.get_program()).args(inner.get_args());
    let ran = crate::support::finish(command, None);
    if !require(ran.code == 0, "no user namespace in which inotify can be forbidden") {
        return;
    }
    let pid = dir.lock_holder("zigsvc.pid").unwrap();
    kill(pid, "USR2");
    wait_for_log(&dir, " degraded=inotify");
    let mut file = fs::File::create(dir.path("queue")).unwrap();
    file.write_all(b"one\n").unwrap();
    wait_for_jobs(&dir, 1);
    file.write_all(b"two\n").unwrap();
    wait_for_jobs(&dir, 2);
    dir.append("queue", "three\n");
    wait_for_jobs(&dir, 3);
    assert_eq!(processed(&dir), ["one", "two", "three"]);
}

// ----- a queue that is full --------------------------------------------------

#[test]
fn what_a_full_queue_does_not_take_stays_in_the_claim_and_runs_later() {
    let dir = Dir::new();
    let body =
        format!("#!/bin/sh\ncd {}\necho $1 >> out\nuntil [ -e go ]; do sleep 0.02; done\n", dir.as_arg());
    dir.write_executable("handler", &body);
    let handler = format!("handler={}", dir.path("handler").display());
    let pid = start(&dir, &[&handler, "queue_max=3"]);
    let jobs: Vec<String> = (1..=20).map(|number| format!("j{number}")).collect();
    dir.append("queue", &(jobs.join("\n") + "\n"));
    wait_until("the first one runs", || dir.read("out") == "j1\n");
    assert_eq!(logged_number(&dir, pid, "waiting") + logged_number(&dir, pid, "running"), 3);
    assert_eq!(queue_files(&dir).len(), 1);
    let _measuring = measuring();
    let before = ticks(pid);
    let_pass(CLAIM_EVERY);
    assert!(ticks(pid) - before < 20, "busy waiting for room");
    kill(pid, "KILL");
    wait_until("it is gone", || !alive(pid));
    let pid = start(&dir, &[&handler, "queue_max=3"]);
    dir.write("go", "");
    wait_until("all are done", || logged_number(&dir, pid, "jobs") == 20);
    let out = dir.read("out");
    assert_eq!(out.lines().skip(1).collect::<Vec<_>>(), jobs, "(the first one was interrupted)");
}

#[test]
fn a_full_queue_waits_quietly_also_with_many_quiet_claims() {
    let dir = Dir::new();
    // This queue stays full.
    let pid = start(&dir, &["handler=shell", "retries=0", "queue_max=1"]);
    dir.append("queue", "exec sleep 300\nnever\n");
    wait_for_log(&dir, "processing job: exec sleep 300");
    dir.append("queue", "neither\n");
    wait_until("there are two claims", || {
        queue_files(&dir).iter().filter(|name| name.contains("claim")).count() == 2
    });
    let_pass(CLAIM_QUIET);
    let _measuring = measuring();
    let before = ticks(pid);
    let_pass(CLAIM_EVERY);
    assert!(ticks(pid) - before < 20, "busy waiting for room");
    assert_eq!(processed(&dir), ["exec sleep 300"]);
    dir.zigsvc(&["stop"]).expect(0);
    // With room they run, although the claims are from another life.
    start(&dir, &["handler=shell", "queue_max=10", "workers=3"]);
    wait_until("all have run", || processed(&dir).len() >= 4);
    assert_eq!(processed(&dir)[1..4], ["exec sleep 300", "never", "neither"]);
}

#[test]
fn as_many_claims_as_can_be_open_are_read_in_their_order_and_the_queue_file_waits() {
    let _measuring = measuring();
    let dir = Dir::new();
    for number in 1..=32 {
        dir.write(&format!("queue.claim-{number}"), format!("claim {number}\n"));
    }
    dir.append("queue", "the file\n");
    let pid = start(&dir, &[]);
    wait_for_jobs(&dir, 32);
    let before = ticks(pid);
    let_pass(CLAIM_EVERY);
    assert!(ticks(pid) - before < 20, "busy waiting for a free place");
    let wanted: Vec<String> = (1..=32).map(|number| format!("claim {number}")).collect();
    assert_eq!(processed(&dir), wanted);
    assert_eq!(dir.read("queue"), "the file\n");
}

#[test]
fn a_file_that_looks_like_the_last_claim_of_all_is_none_and_the_next_one_overwrites_nothing() {
    let dir = Dir::new();
    let (last, highest) = (format!("queue.claim-{}", u64::MAX), format!("queue.claim-{}", u64::MAX / 2));
    dir.write(&last, "not a claim\n");
    dir.write(&highest, "first\n");
    start(&dir, &[]);
    wait_for_jobs(&dir, 1);
    dir.append("queue", "second\n");
    wait_for_jobs(&dir, 2);
    dir.append("queue", "third\n");
    wait_for_jobs(&dir, 3);
    assert_eq!(processed(&dir), ["first", "second", "third"]);
    assert_eq!(dir.read(&last), "not a claim\n");
}

#[test]
fn a_claim_that_cannot_be_opened_does_not_hold_up_the_others() {
    let dir = Dir::new();
    fs::create_dir(dir.path("queue.claim-1")).unwrap();
    dir.write("queue.claim-2", "claim 2\n");
    dir.write("queue", "the file\n");
    start(&dir, &[]);
    wait_for_jobs(&dir, 2);
    assert_eq!(processed(&dir), ["claim 2", "the file"]);
    wait_for_log(&dir, "a claim of the queue file cannot be read");
}

// ----- a queue file that is none ---------------------------------------------

/// Puts something into the place of the queue file, expects a warning and a service that
/// continues, then removes it, and expects a good file to be read.
#[track_caller]
fn survives(place: impl FnOnce(&Dir), remove: impl FnOnce(&Dir), why: &str) {
    let dir = Dir::new();
    let pid = start(&dir, &[]);
    place(&dir);
    wait_for_log(&dir, "[WARN] queue file: it must be a regular file");
    assert!(dir.read("zigsvc.log").contains(why), "{}", dir.read("zigsvc.log"));
    let _measuring = measuring();
    let before = ticks(pid);
    let_pass(CLAIM_EVERY);
    assert!(ticks(pid) - before < 20, "busy waiting");
    let warnings = log_lines_matching(&dir.read("zigsvc.log"), "it must be a regular file");
    assert!(warnings <= 3, "{warnings} warnings at once");
    remove(&dir);
    dir.append("queue", "good\n");
    wait_for_jobs(&dir, 1);
    assert_eq!(processed(&dir), ["good"]);
    assert!(alive(pid));
}

#[test]
fn a_queue_that_is_a_link_is_refused_until_it_is_replaced() {
    survives(
        |dir| {
            dir.write("secret", "not a job\n");
            std::os::unix::fs::symlink(dir.path("secret"), dir.path("queue")).unwrap();
        },
        |dir| {
            assert_eq!(dir.read("secret"), "not a job\n");
            fs::remove_file(dir.path("queue")).unwrap();
        },
        "ELOOP",
    );
}

#[test]
fn a_queue_that_is_a_folder_is_refused_until_it_is_replaced() {
    survives(
        |dir| fs::create_dir(dir.path("queue")).unwrap(),
        |dir| fs::remove_dir(dir.path("queue")).unwrap(),
        "a folder",
    );
}

#[test]
fn a_queue_that_is_a_fifo_is_refused_until_it_is_replaced() {
    survives(
        |dir| {
            let (fifo, mode) = (dir.path("queue"), rustix::fs::Mode::from_raw_mode(0o600));
            rustix::fs::mkfifoat(rustix::fs::CWD, fifo.to_str().unwrap(), mode).unwrap();
        },
        |dir| fs::remove_file(dir.path("queue")).unwrap(),
        "a regular file",
    );
}

#[test]
fn a_queue_that_is_a_link_before_the_start_is_refused_and_the_service_is_up() {
    let dir = Dir::new();
    std::os::unix::fs::symlink("/etc/passwd", dir.path("queue")).unwrap();
    start(&dir, &[]);
    wait_for_log(&dir, "[WARN] queue file: it must be a regular file");
    fs::remove_file(dir.path("queue")).unwrap();
    dir.append("queue", "good\n");
    wait_for_jobs(&dir, 1);
}

#[test]
fn a_queue_that_cannot_be_read_is_refused_until_it_can() {
    let dir = Dir::new();
    let mut command = dir.command();
    if is_root() {
        // Root reads everything, so the service runs as the user `nobody`.
        std::os::unix::fs::chown(dir.path(""), Some(65534), Some(65534)).unwrap();
        let mut probe = dir.command();
        probe.arg("version").uid(65534).gid(65534);
        let works = probe.output().is_ok_and(|output| output.status.success());
        if !require(works, "nobody cannot execute the binary under test where it is") {
            return;
        }
        command.uid(65534).gid(65534);
    }
    command.args(["-o", "log_max=0", "-o", "interval=100ms", "start"]);
    crate::support::finish(command, None).expect(0);
    dir.write("prepared", "secret\n");
    if is_root() {
        std::os::unix::fs::chown(dir.path("prepared"), Some(65534), Some(65534)).unwrap();
    }
    fs::set_permissions(dir.path("prepared"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::rename(dir.path("prepared"), dir.path("queue")).unwrap();
    wait_for_log(&dir, "EACCES");
    // Replaced by another file it is read.
    dir.write("prepared", "good\n");
    fs::set_permissions(dir.path("prepared"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::rename(dir.path("prepared"), dir.path("queue")).unwrap();
    wait_for_jobs(&dir, 1);
    assert_eq!(processed(&dir), ["good"]);
}
