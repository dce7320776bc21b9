//! The queue file, its claims and its folder when they fail, move, are held open, or belong to
//! several users. The control socket works all the time, a state names the fault, and the
//! state goes with its cause.

use crate::support::control::{NOBODY, as_user, field, require_users, start, status_word};
use crate::support::small_disk::has_namespaces;
use crate::support::{
    Dir, finish, kill_hard, let_pass, log_lines_matching, processed, program, require, require_root,
    require_tool, through, wait_for_jobs, wait_for_log, wait_until,
};
use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use zigsvc::limits::CLAIM_QUIET;

/// Waits until `degraded` of the status is `states`.
#[track_caller]
fn wait_for_state(dir: &Dir, states: &str) {
    wait_until(&format!("degraded is {states}"), || status_word(dir, "degraded") == states);
}

/// Insists that a job of the socket is taken and runs.
#[track_caller]
fn socket_works(dir: &Dir, text: &str) {
    dir.zigsvc(&["queue", text]).expect(0);
    wait_until(&format!("{text} runs"), || processed(dir).iter().any(|job| job == text));
}

/// Runs a program of the system, which must succeed.
#[track_caller]
fn run(words: &[&str]) {
    let mut command = program(words[0]);
    command.args(&words[1..]);
    finish(command, None).expect(0);
}

/// Returns the claims in the folder of the queue file and in the spool.
fn claims(dir: &Dir, folder: &str) -> Vec<String> {
    let names = |name: &str| fs::read_dir(dir.path(name)).into_iter().flatten().flatten();
    let all = names(folder).chain(names("spool")).map(|entry| entry.file_name().into_string().unwrap());
    all.filter(|name| name.contains("claim-")).collect()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Makes a fault of the queue file of a running service, expects the state and the message,
/// mends it, and expects that every line has run once.
#[track_caller]
fn fault(dir: &Dir, states: &str, why: &str, make: impl FnOnce(), mend: impl FnOnce()) {
    make();
    wait_for_state(dir, states);
    let log = dir.read("zigsvc.log");
    assert!(log.lines().any(|line| line.contains("[WARN]") && line.contains(why)), "{why}: {log}");
    assert!(!log.contains("spool: /"), "no word of the spool: {log}");
    socket_works(dir, "by socket");
    mend();
    wait_for_state(dir, "none");
    wait_for_log(dir, "[INFO] queue file: works again");
}

// ----- the queue file ---------------------------------------------------------

#[test]
fn a_queue_file_that_may_not_be_renamed_leaves_the_socket_open() {
    if !require_root() || !require_tool("chattr") {
        return;
    }
    let dir = Dir::new();
    start(&dir, &[]);
    dir.write("queue", "");
    let queue = dir.path("queue");
    let mut chattr = program("chattr");
    chattr.arg("+a").arg(&queue);
    if !require(finish(chattr, None).code == 0, "the filesystem has no append-only files") {
        return;
    }
    let why = format!("{}: renameat: EPERM", queue.display());
    fault(
        &dir,
        "queue-file",
        &why,
        || dir.append("queue", "line\n"),
        || {
            run(&["chattr", "-a", queue.to_str().unwrap()]);
        },
    );
    wait_for_jobs(&dir, 2);
    assert_eq!(processed(&dir), ["by socket", "line"]);
}

#[test]
fn a_mounted_queue_file_leaves_the_socket_open() {
    if !has_namespaces() {
        return;
    }
    let dir = Dir::new();
    let pid = start_in_namespace(&dir, &[]);
    let (queue, other) = (dir.path("queue"), dir.path("other"));
    dir.write("queue", "");
    dir.write("other", "line\n");
    let why = format!("{}: renameat: EBUSY", queue.display());
    fault(
        &dir,
        "queue-file",
        &why,
        || {
            inside(pid, &["mount", "--bind", other.to_str().unwrap(), queue.to_str().unwrap()]);
            dir.zigsvc(&["reload"]).expect(0);
        },
        || {
            inside(pid, &["umount", queue.to_str().unwrap()]);
            dir.append("queue", "again\n");
        },
    );
    wait_for_jobs(&dir, 2);
    assert_eq!(processed(&dir), ["by socket", "again"]);
    assert_eq!(dir.read("other"), "line\n");
}

#[test]
fn a_read_only_queue_folder_leaves_the_socket_open() {
    if !has_namespaces() {
        return;
    }
    let dir = Dir::new();
    fs::create_dir(dir.path("in")).unwrap();
    let folder = dir.path("in");
    let folder = folder.to_str().unwrap();
    let bind = format!("mount --bind {folder} {folder}");
    let pid = start_in_namespace_with(&dir, &bind, &[&format!("queue_file={folder}/queue")]);
    let why = format!("{folder}/queue: renameat: EROFS");
    fault(
        &dir,
        "queue-file",
        &why,
        || {
            inside(pid, &["mount", "-o", "remount,bind,ro", folder]);
            dir.append("in/queue", "line\n");
            dir.zigsvc(&["reload"]).expect(0);
        },
        || inside(pid, &["mount", "-o", "remount,bind,rw", folder]),
    );
    wait_for_jobs(&dir, 2);
    assert_eq!(processed(&dir), ["by socket", "line"]);
}

#[test]
fn a_file_of_another_user_in_a_sticky_folder_leaves_the_socket_open() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    fs::create_dir(dir.path("in")).unwrap();
    set_mode(&dir.path("in"), 0o1777);
    let queue = dir.path("in/queue");
    // The service is not root, and does not own the folder.
    for name in ["spool", "run"] {
        fs::create_dir(dir.path(name)).unwrap();
        chown(dir.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    chown(dir.path(""), Some(NOBODY), Some(NOBODY)).unwrap();
    let mut inner = dir.command();
    inner.args(["-o", "log_max=0", "-o"]).arg(format!("queue_file={}", queue.display()));
    inner.arg("-o").arg(format!("trust={}", dir.path("in").display())).arg("start");
    finish(through(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"], &inner), None).expect(0);
    let why = format!("{}: renameat", queue.display());
    fault(
        &dir,
        "queue-file",
        &why,
        || {
            let _ = fs::remove_file(&queue);
            as_user(1, 1, &[], || {
                OpenOptions::new().create(true).append(true).mode(0o644).open(&queue).map(|mut file| {
                    file.write_all(b"line\n").unwrap();
                    drop(file);
                    std::os::unix::net::UnixStream::pair().unwrap().0
                })
            })
            .unwrap();
        },
        || fs::remove_file(&queue).unwrap(),
    );
}

#[test]
fn what_is_no_queue_file_is_a_state_until_it_is_gone() {
    let dir = Dir::new();
    start(&dir, &[]);
    let queue = dir.path("queue");
    fault(
        &dir,
        "queue-file",
        "ELOOP",
        || symlink("nowhere", &queue).unwrap(),
        || {
            fs::remove_file(&queue).unwrap();
        },
    );
    fault(
        &dir,
        "queue-file",
        "EISDIR",
        || fs::create_dir(&queue).unwrap(),
        || {
            fs::remove_dir(&queue).unwrap();
        },
    );
    dir.append("queue", "line\n");
    wait_until("the line runs", || processed(&dir).last().is_some_and(|job| job == "line"));
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_line() {
    let dir = Dir::new();
    start(&dir, &[]);
    dir.write("prepared", "\u{feff}first\n\u{feff}second\n");
    fs::rename(dir.path("prepared"), dir.path("queue")).unwrap();
    wait_for_jobs(&dir, 2);
    assert_eq!(processed(&dir), ["first", "\u{feff}second"]);
}

// ----- claims -------------------------------------------------------------------

#[test]
fn a_claim_that_cannot_be_read_at_the_start_is_read_when_it_can() {
    let dir = Dir::new();
    fs::create_dir(dir.path("queue.claim-1")).unwrap();
    dir.write("queue.claim-2", "two\n");
    start(&dir, &[]);
    wait_for_jobs(&dir, 1);
    wait_for_state(&dir, "claims");
    let why = format!(
        "a claim of the queue file cannot be read: {}: openat: EISDIR",
        dir.path("queue.claim-1").display()
    );
    wait_for_log(&dir, &why);
    socket_works(&dir, "by socket");
    fs::remove_dir(dir.path("queue.claim-1")).unwrap();
    dir.write("queue.claim-1", "one\n");
    wait_for_jobs(&dir, 3);
    wait_for_state(&dir, "none");
    assert_eq!(processed(&dir), ["two", "by socket", "one"]);
    assert_eq!(log_lines_matching(&dir.read("zigsvc.log"), "the claims of the queue file work again"), 1);
}

#[test]
fn a_claim_that_cannot_be_removed_is_a_state_and_runs_once_also_after_a_kill() {
    if !require_root() || !require_tool("chattr") {
        return;
    }
    let dir = Dir::new();
    let pid = start(&dir, &[]);
    dir.append("queue", "line\n");
    wait_for_jobs(&dir, 1);
    let claim = dir.path("queue.claim-1");
    let mut chattr = program("chattr");
    chattr.arg("+a").arg(&claim);
    if !require(finish(chattr, None).code == 0, "the filesystem has no append-only files") {
        return;
    }
    wait_for_state(&dir, "claims");
    wait_for_log(&dir, &format!("{}: unlinkat: EPERM", claim.display()));
    socket_works(&dir, "by socket");
    kill_hard(pid);
    start(&dir, &[]);
    socket_works(&dir, "after the kill");
    run(&["chattr", "-a", claim.to_str().unwrap()]);
    wait_until("the claim is removed", || !claim.exists());
    wait_for_state(&dir, "none");
    assert_eq!(processed(&dir), ["line", "by socket", "after the kill"]);
}

#[test]
fn a_writer_that_keeps_the_file_open_loses_no_line() {
    let dir = Dir::new();
    let pid = start(&dir, &[]);
    let mut writer = OpenOptions::new().create(true).append(true).open(dir.path("queue")).unwrap();
    writer.write_all(b"one\n").unwrap();
    wait_for_jobs(&dir, 1);
    let_pass(CLAIM_QUIET);
    let_pass(zigsvc::limits::CLAIM_EVERY);
    assert_eq!(claims(&dir, ""), ["queue.claim-1"], "it is kept, though it is quiet");
    writer.write_all(b"two\n").unwrap();
    wait_for_jobs(&dir, 2);
    kill_hard(pid);
    writer.write_all(b"three\n").unwrap();
    start(&dir, &[]);
    wait_for_jobs(&dir, 3);
    writer.write_all(&[b'\n'; 1024 * 1024 + 1]).unwrap();
    wait_for_state(&dir, "claims");
    wait_for_log(&dir, &format!("for the end of the writer: {}", dir.path("queue.claim-1").display()));
    writer.write_all(b"four").unwrap();
    drop(writer);
    wait_until("it is removed", || claims(&dir, "").is_empty());
    wait_for_state(&dir, "none");
    wait_for_jobs(&dir, 4);
    assert_eq!(processed(&dir), ["one", "two", "three", "four"]);
}

#[test]
fn a_process_that_opens_a_claim_while_it_is_closed_neither_waits_long_nor_ends_the_service() {
    let dir = Dir::new();
    let pid = start(&dir, &[]);
    dir.append("queue", "one\n");
    wait_for_jobs(&dir, 1);
    // Opens the claim all the time, also in the moment of the lease.
    let claim = dir.path("queue.claim-1");
    wait_until("it is removed", || {
        for _ in 0..200 {
            drop(OpenOptions::new().append(true).open(&claim));
        }
        !claim.exists()
    });
    assert!(crate::support::alive(pid), "{}", dir.logs());
    socket_works(&dir, "by socket");
}

// ----- shared folders -------------------------------------------------------------

/// Makes the folder `in` with this group and mode, and starts a service with its queue file there.
#[track_caller]
fn start_shared(dir: &Dir, gid: u32, mode: u32) -> PathBuf {
    fs::create_dir(dir.path("in")).unwrap();
    chown(dir.path("in"), Some(0), Some(gid)).unwrap();
    set_mode(&dir.path("in"), mode);
    let queue = dir.path("in/queue");
    start(dir, &[&format!("queue_file={}", queue.display())]);
    queue
}

/// Returns a shell command that runs as a user with a group.
fn as_shell(uid: u32, gid: u32, script: &str) -> Command {
    let mut command = program("setpriv");
    command.args([
        &format!("--reuid={uid}"),
        &format!("--regid={gid}"),
        "--clear-groups",
        "sh",
        "-c",
        script,
    ]);
    command
}

#[test]
fn two_users_append_in_turn_and_no_append_fails() {
    let dir = Dir::new();
    if !require_users(&dir) || !require_tool("setpriv") {
        return;
    }
    let queue = start_shared(&dir, 50, 0o2770);
    wait_until("there is a queue file", || queue.exists());
    for number in 0..100 {
        for uid in [1001, 1002] {
            let script = format!("umask 022; echo {uid}.{number} >> {}", queue.display());
            finish(as_shell(uid, 50, &script), None).expect(0);
        }
        if number % 10 == 0 {
            wait_for_jobs(&dir, 2 * number + 2);
        }
    }
    wait_for_jobs(&dir, 200);
    let meta = fs::metadata(&queue).unwrap();
    assert_eq!((meta.gid(), meta.mode() & 0o7777), (50, 0o660));
    let mut jobs = processed(&dir);
    jobs.sort();
    jobs.dedup();
    assert_eq!(jobs.len(), 200);
    assert!(fs::read_dir(dir.path("in")).unwrap().count() == 1, "the claims are in the spool");
    assert_eq!(status_word(&dir, "degraded"), "none");
}

#[test]
fn a_shared_folder_of_a_group_without_the_service_neither_wakes_it_all_the_time_nor_loses_a_line() {
    let dir = Dir::new();
    if !require_users(&dir) || !require_tool("setpriv") {
        return;
    }
    fs::create_dir(dir.path("in")).unwrap();
    set_mode(&dir.path("in"), 0o1777);
    chown(dir.path(""), Some(NOBODY), Some(NOBODY)).unwrap();
    let mut inner = dir.command();
    for option in ["log_max=0", "queue_file=DIR/in/queue", "trust=DIR/in"] {
        inner.arg("-o").arg(option.replace("DIR", dir.as_arg()));
    }
    inner.arg("start");
    let words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    finish(through(&words, &inner), None).expect(0);
    let pid = dir.lock_holder("zigsvc.pid").unwrap();
    let before = crate::support::control::ticks(pid);
    let_pass(zigsvc::util::time::Duration::from_ms(2000));
    let used = crate::support::control::ticks(pid) - before;
    // Under QEMU the time would be mostly that of QEMU, which compiles what it executes.
    assert!(used < 20 || crate::support::under_qemu(), "{used} ticks in two idle seconds");
    assert!(fs::read_dir(dir.path("in")).unwrap().next().is_none());
    for number in 0..20 {
        dir.append("in/queue", &format!("{number}\n"));
        chown(dir.path("in/queue"), Some(NOBODY), Some(NOBODY)).unwrap();
        wait_for_jobs(&dir, number + 1);
    }
}

#[test]
fn claims_in_the_spool_are_read_on_after_a_kill() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    let queue = start_shared(&dir, 50, 0o770);
    let mut writer = OpenOptions::new().create(true).append(true).open(&queue).unwrap();
    writer.write_all(b"one\n").unwrap();
    wait_for_jobs(&dir, 1);
    assert_eq!(claims(&dir, "in"), ["claim-1"]);
    kill_hard(dir.lock_holder("zigsvc.pid").unwrap());
    writer.write_all(b"two\n").unwrap();
    start(&dir, &[&format!("queue_file={}", queue.display())]);
    wait_for_jobs(&dir, 2);
    drop(writer);
    wait_until("it is removed", || claims(&dir, "in").is_empty());
    assert_eq!(processed(&dir), ["one", "two"]);
}

#[test]
fn a_second_name_of_another_file_is_not_read_in_a_shared_folder() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    let queue = start_shared(&dir, 50, 0o770);
    dir.write("secret", "of root alone\n");
    fault(
        &dir,
        "queue-file",
        "EMLINK (has a second name, a hard link)",
        || {
            let _ = fs::remove_file(&queue);
            fs::hard_link(dir.path("secret"), &queue).unwrap();
        },
        || fs::remove_file(&queue).unwrap(),
    );
    assert_eq!(dir.read("secret"), "of root alone\n");
    assert_eq!(processed(&dir), ["by socket"]);
}

#[test]
fn on_another_filesystem_a_claim_stays_in_place_and_is_compared() {
    if !has_namespaces() {
        return;
    }
    let dir = Dir::new();
    fs::create_dir(dir.path("in")).unwrap();
    let queue = dir.path("in/queue");
    let pid = start_in_namespace_with(
        &dir,
        &format!("mount -t tmpfs -o mode=0770 none {}/in", dir.as_arg()),
        &[&format!("queue_file={}", queue.display())],
    );
    let inner = PathBuf::from(format!("/proc/{pid}/root{}", queue.display()));
    let mut writer = OpenOptions::new().append(true).create(true).open(&inner).unwrap();
    writer.write_all(b"one\n").unwrap();
    wait_for_jobs(&dir, 1);
    assert_eq!(dir.read("spool/note-1").split(' ').count(), 2, "device and inode are noted");
    let claim = PathBuf::from(format!("{}.claim-1", inner.display()));
    assert_eq!(fs::read_to_string(&claim).unwrap(), "one\n");
    drop(writer);
    wait_until("the claim and its note are removed", || {
        !claim.exists() && !dir.path("spool/note-1").exists()
    });
    assert_eq!(status_word(&dir, "degraded"), "none");
}

// ----- the folder -----------------------------------------------------------------

/// Starts `jobs` in a mount namespace of its own.
#[track_caller]
fn start_in_namespace(dir: &Dir, options: &[&str]) -> u32 {
    start_in_namespace_with(dir, "true", options)
}

/// Starts `jobs` in a mount namespace of its own, after a shell command there.
#[track_caller]
fn start_in_namespace_with(dir: &Dir, before: &str, options: &[&str]) -> u32 {
    let mut inner = dir.command();
    inner.args(["-o", "log_max=0", "-o", "interval=1s"]);
    for option in options {
        inner.args(["-o", option]);
    }
    inner.arg("start");
    let script = format!("{before} && exec \"$@\"");
    finish(through(&["unshare", "-m", "sh", "-c", &script, "sh"], &inner), None).expect(0);
    dir.lock_holder("zigsvc.pid").unwrap()
}

/// Runs a program in the mount namespace of a service.
#[track_caller]
fn inside(pid: u32, words: &[&str]) {
    let namespace = format!("--mount=/proc/{pid}/ns/mnt");
    run(&[&["nsenter", namespace.as_str()], words].concat());
}

#[test]
fn a_queue_folder_that_is_moved_removed_and_made_again_is_watched_again() {
    let dir = Dir::new();
    fs::create_dir(dir.path("in")).unwrap();
    start(&dir, &["interval=1s", &format!("queue_file={}/in/queue", dir.as_arg())]);
    dir.append("in/queue", "one\n");
    wait_for_jobs(&dir, 1);
    // The claim moves with its folder, and its writer continues.
    let mut writer = OpenOptions::new().append(true).open(dir.path("in/queue.claim-1")).unwrap();
    fs::rename(dir.path("in"), dir.path("moved")).unwrap();
    wait_for_state(&dir, "queue-file");
    wait_for_log(&dir, &format!("{}/in: openat: ENOENT", dir.as_arg()));
    socket_works(&dir, "by socket");
    writer.write_all(b"two\n").unwrap();
    wait_for_jobs(&dir, 3);
    fs::create_dir(dir.path("in")).unwrap();
    wait_for_state(&dir, "none");
    dir.append("in/queue", "three\n");
    wait_for_jobs(&dir, 4);
    drop(writer);
    wait_until("both claims are removed", || {
        claims(&dir, "in").is_empty() && !dir.path("moved/queue.claim-1").exists()
    });
    fs::remove_dir_all(dir.path("in")).unwrap();
    fs::create_dir(dir.path("in")).unwrap();
    dir.append("in/queue", "four\n");
    wait_for_jobs(&dir, 5);
    assert_eq!(processed(&dir), ["one", "by socket", "two", "three", "four"]);
}

#[test]
fn a_filesystem_mounted_over_the_queue_folder_is_watched() {
    if !has_namespaces() {
        return;
    }
    let dir = Dir::new();
    fs::create_dir(dir.path("in")).unwrap();
    let (folder, queue) = (dir.path("in"), dir.path("in/queue"));
    let pid = start_in_namespace(&dir, &[&format!("queue_file={}", queue.display())]);
    inside(pid, &["mount", "-t", "tmpfs", "-o", "mode=0700", "none", folder.to_str().unwrap()]);
    let inner = PathBuf::from(format!("/proc/{pid}/root{}", queue.display()));
    fs::write(&inner, "one\n").unwrap();
    wait_for_jobs(&dir, 1);
    inside(pid, &["umount", "-l", folder.to_str().unwrap()]);
    dir.append("in/queue", "two\n");
    dir.zigsvc(&["reload"]).expect(0);
    wait_for_jobs(&dir, 2);
    assert_eq!(processed(&dir), ["one", "two"]);
    wait_for_state(&dir, "none");
}

// ----- the lock --------------------------------------------------------------------

#[test]
fn a_second_service_with_another_spool_is_refused() {
    let dir = Dir::new();
    let pid = start(&dir, &[]);
    let other = Dir::new();
    let option = format!("queue_file={}", dir.path("queue").display());
    let ran = other.zigsvc(&["-o", &option, "start"]).expect(1);
    let wanted = format!(
        "{}: another instance reads this queue file already (pid {pid})",
        dir.path("queue").display()
    );
    assert!(ran.err.contains(&wanted), "{ran:?}");
    // Another queue file in the same folder is no conflict.
    let second = format!("queue_file={}", dir.path("second").display());
    other.start(&["log_max=0", &second]);
    dir.append("queue", "one\n");
    wait_for_jobs(&dir, 1);
    kill_hard(pid);
    other.zigsvc(&["stop"]).expect(0);
    other.start(&["log_max=0", &option]);
    dir.append("queue", "two\n");
    // The other spool does not know that the claim of the first service was read.
    wait_for_jobs(&other, 2);
    assert_eq!(processed(&other), ["one", "two"]);
    let answer = crate::support::control::ask(&other, "status");
    assert_eq!(field(&answer, "degraded"), "none");
}
