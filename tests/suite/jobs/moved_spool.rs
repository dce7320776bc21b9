//! The folder of the spool, taken away from its path while the service runs.
//!
//! Mounts are made in the mount namespace of the service, which only root can set up.

use crate::support::control::start;
use crate::support::{
    Dir, Ran, by_shell, finish, kill_hard, log_lines_matching, program, require_root, require_tool, through,
    wait_for_lines, wait_for_log, wait_until,
};
use rustix::fs::{CWD, RenameFlags};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Options under which a round of heartbeats takes less than a second.
const QUICK: [&str; 4] = ["interval=200ms", "handler=shell", "workers=3", "retries=9"];

/// Adds a job and returns its id.
#[track_caller]
fn queue(dir: &Dir, text: &str) -> u64 {
    dir.zigsvc(&["queue", text]).expect(0).out.trim().parse().unwrap()
}

/// Returns the line of the status with this name.
fn degraded(dir: &Dir) -> String {
    let status = dir.zigsvc(&["status"]).out;
    let line = status.lines().find_map(|line| line.trim_start().strip_prefix("degraded"));
    line.unwrap_or_default().trim().to_owned()
}

#[track_caller]
fn wait_for_state(dir: &Dir, state: &str) {
    wait_until(&format!("degraded is {state}"), || degraded(dir) == state);
}

/// Exchanges two names in one step, so that the service never finds the path free.
fn exchange(dir: &Dir, one: &str, other: &str) {
    let (one, other) = (dir.path(one), dir.path(other));
    let (one, other) = (one.to_str().unwrap(), other.to_str().unwrap());
    rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

/// Returns the job that appends `text` to the file `ran` as soon as there is a file `gate`.
fn gated(dir: &Dir, text: &str) -> String {
    let dir = dir.as_arg();
    format!("until test -e {dir}/gate; do sleep 0.05; done; echo {text} >> {dir}/ran")
}

/// Starts a service with jobs that run, wait, are delayed, and a claim that is open; lets `lose`
/// take the spool away, and insists that nothing whose id was printed is lost, after the
/// service has made the spool again and was killed.
#[track_caller]
fn survives(spool: &str, lose: &dyn Fn(&Dir)) {
    survives_with_queue(spool, "queue", lose);
}

/// Performs the test of [`survives`] with the queue file at `lines`.
#[track_caller]
fn survives_with_queue(spool: &str, lines: &str, lose: &dyn Fn(&Dir)) {
    let dir = Dir::new();
    let path = format!("spool={}/{spool}", dir.as_arg());
    let queue_file = format!("queue_file={}/{lines}", dir.as_arg());
    let options = [&QUICK[..], &["retry_delay=5m", &path, &queue_file]].concat();
    let pid = start(&dir, &options);
    let failed = queue(&dir, "exit 7");
    wait_until("a job is delayed", || {
        dir.zigsvc(&["status"]).out.contains("1 delayed") || dir.read("zigsvc.log").contains("exit status 7")
    });
    let mut expected: Vec<String> = (0..5).map(|number| format!("job{number}")).collect();
    let ids: Vec<u64> = expected.iter().map(|text| queue(&dir, &gated(&dir, text))).collect();
    dir.append(lines, &format!("{}\n", gated(&dir, "line")));
    expected.push("line".to_owned());
    wait_until("the line is taken", || dir.zigsvc(&["list"]).out.contains("echo line"));
    assert_eq!(dir.zigsvc(&["list", "running"]).out.lines().count(), 3);

    lose(&dir);
    let first = dir.zigsvc(&["queue", &gated(&dir, "early")]);
    match first.code {
        // A heartbeat was faster, and the spool is there again.
        0 => expected.push("early".to_owned()),
        _ => assert!(first.err.contains("spool/journal does not lead to the open journal"), "{first:?}"),
    }
    wait_for_state(&dir, "none");
    assert!(dir.read("zigsvc.log").contains("does not lead to the open journal"));
    assert!(dir.read("zigsvc.log").contains("/journal was made again"));
    assert!(dir.path(&format!("{spool}/running")).exists());
    let last = queue(&dir, &gated(&dir, "late"));
    expected.push("late".to_owned());
    assert!(last > *ids.last().unwrap(), "{last} follows {ids:?}");
    dir.append(lines, &format!("{}\n", gated(&dir, "line2")));
    expected.push("line2".to_owned());
    wait_until("the second line is taken", || dir.zigsvc(&["list"]).out.contains("echo line2"));

    kill_hard(pid);
    start(&dir, &options);
    let list = dir.zigsvc(&["list"]).out;
    for id in ids.iter().chain([&failed, &last]) {
        assert!(list.lines().any(|line| line.starts_with(&format!("{id} "))), "{id} in {list}");
    }
    dir.write("gate", "");
    let mut ran = wait_for_lines(&dir, "ran", expected.len());
    ran.sort();
    expected.sort();
    assert_eq!(ran, expected, "each once");
    wait_until("only the delayed one is left", || dir.zigsvc(&["list"]).out.lines().count() == 1);
}

// ----- the path is free -------------------------------------------------------

#[test]
fn a_spool_that_is_removed_is_made_again_with_all_its_jobs() {
    survives("spool", &|dir| fs::remove_dir_all(dir.path("spool")).unwrap());
}

#[test]
fn a_queue_file_in_the_folder_of_the_spool_is_watched_in_the_new_folder() {
    survives_with_queue("spool", "spool/queue", &|dir| fs::remove_dir_all(dir.path("spool")).unwrap());
}

#[test]
fn a_spool_that_is_moved_away_is_made_again_and_its_old_journal_is_empty() {
    survives("spool", &|dir| {
        fs::rename(dir.path("spool"), dir.path("elsewhere")).unwrap();
        wait_until("the old journal is empty", || {
            fs::metadata(dir.path("elsewhere/journal")).unwrap().len() == 0
        });
    });
}

#[test]
fn an_empty_folder_in_place_of_the_spool_becomes_the_spool() {
    survives("spool", &|dir| {
        fs::create_dir(dir.path("empty")).unwrap();
        fs::set_permissions(dir.path("empty"), fs::Permissions::from_mode(0o700)).unwrap();
        exchange(dir, "empty", "spool");
    });
}

#[test]
fn a_spool_whose_files_are_cleaned_one_by_one_gets_them_again() {
    survives("spool", &|dir| {
        for entry in fs::read_dir(dir.path("spool")).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    });
}

#[test]
fn a_journal_that_is_removed_is_written_again_in_its_folder() {
    survives("spool", &|dir| fs::remove_file(dir.path("spool/journal")).unwrap());
}

#[test]
fn missing_parents_of_the_spool_are_made_again() {
    survives("a/b/spool", &|dir| fs::remove_dir_all(dir.path("a")).unwrap());
}

#[test]
fn a_spool_that_was_made_again_belongs_to_one_service() {
    let dir = Dir::new();
    let pid = start(&dir, &QUICK);
    let second = |dir: &Dir| {
        let mut command = dir.command();
        for key in ["pid_file", "socket", "log_file", "health_file", "queue_file"] {
            command.args(["-o", &format!("{key}={}/second.{key}", dir.as_arg())]);
        }
        command.arg("start");
        finish(command, None)
    };
    let refused = |ran: Ran| assert!(ran.code == 1 && ran.err.contains(&format!("(pid {pid})")), "{ran:?}");
    refused(second(&dir));
    fs::remove_dir_all(dir.path("spool")).unwrap();
    wait_for_log(&dir, "/journal was made again");
    refused(second(&dir));
    fs::remove_file(dir.path("spool/lock")).unwrap();
    wait_for_log(&dir, "/lock was missing, and was made again");
    refused(second(&dir));
    assert_eq!(degraded(&dir), "none");
}

#[test]
fn a_stop_right_after_the_removal_still_saves_the_jobs() {
    let dir = Dir::new();
    // No heartbeat comes in between.
    let options = ["interval=1h", "handler=shell"];
    start(&dir, &options);
    queue(&dir, "exec sleep 300");
    queue(&dir, &gated(&dir, "second"));
    fs::remove_dir_all(dir.path("spool")).unwrap();
    dir.zigsvc(&["stop"]).expect(0);
    start(&dir, &options);
    assert_eq!(dir.zigsvc(&["list"]).out.lines().count(), 2);
    assert_eq!(queue(&dir, "true"), 3);
}

// ----- the path is taken -------------------------------------------------------

/// Starts a service with a job that waits for the gate and one after it; lets `take` put
/// something in the place of the spool, which the log names as `named`.
#[track_caller]
fn waits(named: &str, take: &dyn Fn(&Dir), give_back: &dyn Fn(&Dir)) {
    let dir = Dir::new();
    let options = ["interval=200ms", "handler=shell"];
    start(&dir, &options);
    queue(&dir, &gated(&dir, "first"));
    queue(&dir, &gated(&dir, "second"));
    take(&dir);
    wait_for_state(&dir, "spool-moved");
    wait_for_log(&dir, &format!("spool cannot be made again: {named}"));
    let refused = dir.zigsvc(&["queue", "true"]).expect(1);
    assert!(refused.err.contains("spool/journal does not lead to the open journal"), "{refused:?}");
    assert!(dir.zigsvc(&["cancel", "2"]).code == 1);
    dir.append("queue", &format!("echo third >> {}/ran\n", dir.as_arg()));
    // Known jobs continue.
    dir.write("gate", "");
    wait_for_lines(&dir, "ran", 2);
    give_back(&dir);
    wait_for_state(&dir, "none");
    assert_eq!(wait_for_lines(&dir, "ran", 3), ["first", "second", "third"]);
    assert!(queue(&dir, "true") > 3);
    let log = dir.read("zigsvc.log");
    assert_eq!(log_lines_matching(&log, "does not lead to the open journal"), 1, "{log}");
    assert_eq!(log_lines_matching(&log, "cannot be made again"), 1, "{log}");
    assert_eq!(log_lines_matching(&log, "leads to the open journal again"), 1, "{log}");
}

#[test]
fn another_journal_at_the_path_is_left_alone() {
    let prepare = |dir: &Dir| {
        fs::create_dir(dir.path("other")).unwrap();
        dir.write("other/journal", "zigsvc-journal 1\n");
        exchange(dir, "other", "spool");
    };
    waits("another journal is there", &prepare, &|dir| {
        assert_eq!(dir.read("spool/journal"), "zigsvc-journal 1\n");
        exchange(dir, "other", "spool");
    });
}

#[test]
fn a_folder_with_files_a_file_and_a_link_at_the_path_are_left_alone() {
    let take = |dir: &Dir| {
        fs::create_dir(dir.path("other")).unwrap();
        dir.write("other/notes", "mine\n");
        exchange(dir, "other", "spool");
    };
    let back = |dir: &Dir| exchange(dir, "other", "spool");
    waits("a folder with other files is there", &take, &back);
    waits(
        "it or its parent is no folder",
        &|dir| {
            dir.write("other", "mine\n");
            back(dir);
        },
        &back,
    );
    waits(
        "it or its parent is no folder",
        &|dir| {
            std::os::unix::fs::symlink(dir.path("nowhere"), dir.path("other")).unwrap();
            back(dir);
        },
        &back,
    );
}

#[test]
fn folders_that_do_not_belong_to_the_service_are_not_made_again() {
    let (dir, other) = (Dir::new(), Dir::new());
    fs::create_dir(other.path("x")).unwrap();
    let spool = format!("spool={}/x/spool", other.as_arg());
    start(&dir, &[&QUICK[..], &[&spool]].concat());
    queue(&dir, &gated(&dir, "first"));
    fs::rename(other.path("x"), other.path("y")).unwrap();
    wait_for_state(&dir, "spool-moved");
    wait_for_log(&dir, "/x/spool cannot be made again: fstatat: ENOENT");
    assert!(!other.path("x").exists());
    fs::rename(other.path("y"), other.path("x")).unwrap();
    wait_for_state(&dir, "none");
    // The folder of the spool itself is.
    fs::remove_dir_all(other.path("x/spool")).unwrap();
    wait_for_log(&dir, "/journal was made again");
    dir.write("gate", "");
    assert_eq!(wait_for_lines(&dir, "ran", 1), ["first"]);
}

#[test]
fn root_makes_no_spool_again_below_a_folder_that_others_can_change() {
    if !require_root() {
        return;
    }
    for mode in [0o777, 0o770] {
        let dir = Dir::new();
        let spool = format!("spool={}/a/b/spool", dir.as_arg());
        start(&dir, &[&QUICK[..], &[&spool]].concat());
        queue(&dir, &gated(&dir, "first"));
        fs::set_permissions(dir.path("a"), fs::Permissions::from_mode(mode)).unwrap();
        fs::remove_dir_all(dir.path("a/b")).unwrap();
        wait_for_state(&dir, "spool-moved");
        wait_for_log(&dir, "spool cannot be made again: another user may write there");
        assert!(!dir.path("a/b").exists());
        fs::set_permissions(dir.path("a"), fs::Permissions::from_mode(0o755)).unwrap();
        wait_for_state(&dir, "none");
        dir.write("gate", "");
        assert_eq!(wait_for_lines(&dir, "ran", 1), ["first"]);
    }
}

#[test]
fn a_link_that_leads_to_the_folder_is_as_good_as_the_folder() {
    let dir = Dir::new();
    start(&dir, &QUICK);
    queue(&dir, "true");
    std::os::unix::fs::symlink(dir.path("other"), dir.path("other2")).unwrap();
    exchange(&dir, "other2", "spool");
    fs::rename(dir.path("other2"), dir.path("other")).unwrap();
    wait_until("it is accepted", || dir.zigsvc(&["queue", "true"]).code == 0);
    wait_for_state(&dir, "none");
    assert!(fs::metadata(dir.path("other/journal")).unwrap().len() > 0);
}

#[test]
fn a_stop_says_which_jobs_stay_behind_and_they_can_be_put_back() {
    let dir = Dir::new();
    let options = ["interval=200ms", "handler=shell"];
    start(&dir, &options);
    queue(&dir, &gated(&dir, "first"));
    queue(&dir, &gated(&dir, "second"));
    fs::create_dir(dir.path("other")).unwrap();
    dir.write("other/journal", "");
    exchange(&dir, "other", "spool");
    wait_for_state(&dir, "spool-moved");
    dir.zigsvc(&["stop"]).expect(0);
    let log = dir.read("zigsvc.log");
    let behind = format!("2 waiting and 0 dead jobs are in {}/other/journal; to run them", dir.as_arg());
    assert!(log.contains(&behind), "{log}");
    // A start with the other spool says how to take them back.
    let mut command = dir.command();
    command.args(["-o", "log_max=0", "start"]);
    let ran = finish(command, None).expect(0);
    let left = format!("jobs were left in {0}/other/journal, when the spool was moved", dir.as_arg());
    assert!(ran.err.contains(&left), "{ran:?}");
    assert!(ran.err.contains(&format!("put that file to {}/spool/journal", dir.as_arg())), "{ran:?}");
    dir.zigsvc(&["stop"]).expect(0);
    exchange(&dir, "other", "spool");
    dir.write("gate", "");
    start(&dir, &options);
    assert_eq!(wait_for_lines(&dir, "ran", 2), ["first", "second"]);
    assert!(!dir.path("spool.moved").exists(), "the note is removed with its cause");
}

// ----- mounts and users ---------------------------------------------------------

/// Runs a script in the mount namespace of process `pid`.
#[track_caller]
fn in_namespace(pid: u32, script: &str) {
    let mut command = program("nsenter");
    command.args(["-t", &pid.to_string(), "-m", "sh", "-ec", script]);
    finish(command, None).expect(0);
}

#[test]
fn a_filesystem_that_is_mounted_over_the_spool_is_not_written_to() {
    if !(require_root() && require_tool("unshare") && require_tool("nsenter") && require_tool("mount")) {
        return;
    }
    for (mount, named) in [
        ("mount -t tmpfs none", "it is on another filesystem"),
        ("mount --bind {}/other", "a folder with other files is there"),
    ] {
        let dir = Dir::new();
        fs::create_dir(dir.path("other")).unwrap();
        dir.write("other/notes", "mine\n");
        let mut inner = dir.command();
        for option in ["interval=200ms", "handler=shell"] {
            inner.args(["-o", option]);
        }
        inner.arg("start");
        let ran = finish(through(&["unshare", "-m", "--propagation", "private"], &inner), None).expect(0);
        let pid: u32 = ran.out.split(['(', ')']).nth(1).unwrap()["pid ".len()..].parse().unwrap();
        queue(&dir, &gated(&dir, "first"));
        queue(&dir, &gated(&dir, "second"));
        let spool = dir.path("spool");
        in_namespace(pid, &format!("{} {}", mount.replace("{}", dir.as_arg()), spool.display()));
        let refused = dir.zigsvc(&["queue", "true"]).expect(1);
        assert!(refused.err.contains("does not lead to the open journal"), "{refused:?}");
        wait_for_state(&dir, "spool-moved");
        wait_for_log(&dir, named);
        in_namespace(pid, &format!("test ! -e {}/journal", spool.display()));
        in_namespace(pid, &format!("umount {}", spool.display()));
        wait_for_state(&dir, "none");
        assert!(queue(&dir, &gated(&dir, "third")) > 2);
        dir.write("gate", "");
        assert_eq!(wait_for_lines(&dir, "ran", 3), ["first", "second", "third"]);
    }
}

#[test]
fn a_spool_that_user_cannot_reach_by_its_path_is_refused() {
    if !require_root() {
        return;
    }
    let dir = Dir::new();
    fs::set_permissions(dir.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(dir.path("closed/spool")).unwrap();
    let mut inner = dir.command();
    inner.args(["-o", "user=65534", "-o", &format!("spool={}/closed/spool", dir.as_arg()), "start"]);
    let script =
        format!("chown -R 65534:65534 {0}/closed/spool && chmod 700 {0}/closed && \"$@\"", dir.as_arg());
    let ran = finish(by_shell(&script, &inner), None).expect(6);
    assert!(ran.err.contains("closed/spool: fstatat: EACCES"), "{ran:?}");
    assert!(ran.err.contains("user cannot reach it"), "{ran:?}");
    assert!(dir.lock_holder("zigsvc.pid").is_none());
}

#[test]
fn the_journal_keeps_a_second_service_out_after_the_lock_was_removed() {
    let dir = Dir::new();
    // No heartbeat looks at the lock meanwhile.
    let pid = dir.start(&["log_max=0", "interval=1h"]);
    dir.zigsvc(&["queue", "first"]).expect(0);
    fs::remove_file(dir.path("spool/lock")).unwrap();
    let other = Dir::new();
    let spool = format!("spool={}", dir.path("spool").display());
    let ran = other.zigsvc(&["-o", &spool, "start"]).expect(1);
    assert!(ran.err.contains("/spool: fcntl: EAGAIN"), "{ran:?}");
    assert!(!dir.path("spool/lock").exists(), "the path is free for the first one");
    dir.zigsvc(&["queue", "second"]).expect(0);
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(pid));
}
