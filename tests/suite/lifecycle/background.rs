//! From `start` to `stop`: the process that runs, the reports, and the files that are left.

use crate::support::{
    Dir, HANDLER_LOG, Running, alive, by_shell, finish, kill, lock_holder, not_running, program, run,
    wait_until,
};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Stdio;

/// Returns the output of `status --json`, and its exit code.
#[track_caller]
fn status(dir: &Dir, options: &[&str]) -> (i32, Value) {
    let ran = dir.zigsvc(&[options, &["status", "--json"]].concat());
    let value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    (ran.code, value)
}

/// Returns the inode, the time of change and the content of a file.
fn state_of(dir: &Dir, name: &str) -> (u64, i64, i64, String) {
    let meta = fs::metadata(dir.path(name)).unwrap();
    (meta.ino(), meta.mtime(), meta.mtime_nsec(), dir.read(name))
}

// ----- start -----------------------------------------------------------------

#[test]
fn start_returns_when_the_service_is_ready_and_says_its_pid() {
    let dir = Dir::new();
    let ran = dir.zigsvc(&["start"]).expect(0);
    dir.zigsvc(&["status"]).expect(0);
    let pid = dir.lock_holder("zigsvc.pid").unwrap();
    assert_eq!(ran.out, format!("zigsvc: jobs started (pid {pid})\n{HANDLER_LOG}"));
    assert_eq!(ran.err, "");
    assert_eq!(dir.read("zigsvc.pid"), format!("{pid}\n"));
    let mode = fs::metadata(dir.path("zigsvc.pid")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);
    assert!(dir.read("zigsvc.log").contains(&format!("[INFO] daemon started, pid={pid}\n")));
}

#[test]
fn a_missing_folder_is_created_for_its_owner_only() {
    let dir = Dir::new();
    let folder = dir.path("a/b");
    let below = folder.to_str().unwrap();
    run(&["-d", below, "start"]).expect(0);
    let mode = |name: &str| fs::metadata(dir.path(name)).unwrap().permissions().mode() & 0o7777;
    run(&["-d", below, "stop"]).expect(0);
    // The parent folder is for all users to enter, as far as the umask permits it.
    fs::create_dir(dir.path("like")).unwrap();
    assert_eq!((mode("a"), mode("a/b")), (mode("like") & 0o755, 0o700));
}

#[test]
fn commands_that_only_look_create_nothing() {
    let dir = Dir::new();
    let below = dir.path("new");
    let below = below.to_str().unwrap();
    run(&["-d", below, "status"]).expect(3);
    run(&["-d", below, "stop"]).expect(0);
    run(&["-d", below, "check"]).expect(0);
    run(&["-d", below, "reload"]).expect(7);
    assert!(!dir.path("new").exists());
}

#[test]
fn a_second_instance_is_refused_and_touches_nothing() {
    let dir = Dir::new();
    let pid = dir.start(&[]);
    let before = (state_of(&dir, "zigsvc.pid"), state_of(&dir, "zigsvc.log"));
    for command in ["start", "run"] {
        let ran = dir.zigsvc(&[command]).expect(1);
        assert_eq!(ran.err, format!("zigsvc: another instance is already running (pid {pid})\n"));
        assert_eq!(ran.out, "");
    }
    assert_eq!((state_of(&dir, "zigsvc.pid"), state_of(&dir, "zigsvc.log")), before);
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(pid));
}

#[test]
fn of_many_starts_at_once_exactly_one_wins() {
    let dir = Dir::new();
    // All from one thread, because QEMU's user mode hangs now and then where several
    // threads fork at once.
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let mut start = dir.command();
            start.arg("start").stdout(Stdio::piped()).stderr(Stdio::piped());
            start.spawn().unwrap()
        })
        .collect();
    let ran: Vec<_> = starts.into_iter().map(crate::support::outcome).collect();
    assert_eq!(ran.iter().filter(|ran| ran.code == 0).count(), 1, "{ran:?}");
    for ran in ran.iter().filter(|ran| ran.code != 0) {
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.starts_with("zigsvc: another instance is already running"), "{ran:?}");
    }
    assert_eq!(crate::support::log_lines_matching(&dir.read("zigsvc.log"), "daemon started"), 1);
}

#[test]
fn relative_paths_mean_the_folder_of_the_caller() {
    let dir = Dir::new();
    fs::create_dir(dir.path("d")).unwrap();
    dir.write("own.conf", "log_file = \"own.log\"\nlog_time = \"none\"\n");
    let mut start = crate::support::zigsvc();
    start.args(["-d", "d", "-c", "own.conf", "start"]).current_dir(dir.path(""));
    finish(start, None).expect(0);
    let pid = lock_holder(&dir.path("d/zigsvc.pid")).unwrap();
    assert!(dir.read("own.log").contains("daemon started"));
    // The daemon has another working directory, and still knows its files.
    dir.write("own.conf", "log_file = \"own.log\"\nretries = 7\nlog_time = \"none\"\n");
    kill(pid, "HUP");
    wait_until("the config was read again", || dir.read("own.log").contains("config: retries changed"));
    let below = dir.path("d");
    run(&["-d", below.to_str().unwrap(), "stop"]).expect(0);
    assert!(dir.read("own.log").contains("daemon stopped"));
}

// ----- the PID file ----------------------------------------------------------

#[test]
fn whatever_is_in_the_pid_file_neither_blocks_a_start_nor_gets_a_signal() {
    let sleeper = Running::sleeper();
    let dir = Dir::new();
    let own = std::process::id().to_string();
    let other = sleeper.pid().to_string();
    for content in ["", "\n", "1\n", "0", "-1\n", "99999999999999999999\n", "garbage\n\0", &own, &other] {
        dir.write("zigsvc.pid", content);
        let ran = dir.zigsvc(&["stop"]).expect(0);
        assert_eq!(ran.out, "zigsvc: jobs was not running\n", "{content:?}");
        assert_eq!(dir.zigsvc(&["reload"]).code, 7, "{content:?}");
        dir.write("zigsvc.pid", content);
        let filled = !content.is_empty();
        assert_eq!(dir.zigsvc(&["status"]).code, if filled { 1 } else { 3 }, "{content:?}");
        let pid = dir.start(&[]);
        assert_eq!(dir.read("zigsvc.pid"), format!("{pid}\n"), "{content:?}");
        dir.zigsvc(&["stop"]).expect(0);
    }
    assert!(alive(sleeper.pid()));
}

#[test]
fn a_pid_file_that_others_overwrite_while_it_runs_misleads_nobody() {
    let sleeper = Running::sleeper();
    let dir = Dir::new();
    for content in [String::new(), format!("{}\n", sleeper.pid())] {
        let pid = dir.start(&[]);
        dir.write("zigsvc.pid", &content);
        let (code, value) = status(&dir, &[]);
        assert_eq!((code, value["pid"].as_u64()), (0, Some(u64::from(pid))));
        let ran = dir.zigsvc(&["start"]).expect(1);
        assert_eq!(ran.err, format!("zigsvc: another instance is already running (pid {pid})\n"));
        dir.zigsvc(&["stop"]).expect(0);
        assert!(!alive(pid));
        assert!(!dir.path("zigsvc.pid").exists());
        dir.zigsvc(&["status"]).expect(3);
    }
    assert!(alive(sleeper.pid()));
}

#[test]
fn without_its_pid_file_a_running_service_still_keeps_a_second_one_off_its_spool() {
    let dir = Dir::new();
    let pid = dir.start(&[]);
    fs::remove_file(dir.path("zigsvc.pid")).unwrap();
    let ran = dir.zigsvc(&["start"]).expect(1);
    assert_eq!(ran.err, format!("zigsvc: another instance is already running (pid {pid})\n"));
    dir.zigsvc(&["-o", "pid_file=/nonexistent-folder/pid", "start"]).expect(1);
    assert!(alive(pid));
    kill(pid, "TERM");
    wait_until("it is gone", || !alive(pid));
    dir.start(&[]);
}

#[test]
fn a_pid_file_that_is_no_plain_file_is_refused() {
    let dir = Dir::new();
    dir.write("target", "precious\n");
    fs::create_dir(dir.path("folder")).unwrap();
    symlink(dir.path("target"), dir.path("link")).unwrap();
    symlink(dir.path("nothing"), dir.path("dangling")).unwrap();
    for name in ["folder", "link", "dangling"] {
        let path = dir.path(name);
        let option = format!("pid_file={}", path.display());
        let ran = dir.zigsvc(&["-o", &option, "start"]).expect(1);
        assert!(ran.err.starts_with(&format!("zigsvc: {}: openat: ", path.display())), "{ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
    }
    assert_eq!(dir.read("target"), "precious\n");
    assert!(!dir.path("nothing").exists());
    if crate::support::require_tool("mkfifo") {
        let fifo = dir.path("fifo");
        assert!(program("mkfifo").arg(&fifo).status().unwrap().success());
        let ran = dir.zigsvc(&["-o", &format!("pid_file={}", fifo.display()), "start"]).expect(1);
        assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
    }
}

// ----- stop ------------------------------------------------------------------

#[test]
fn a_clean_stop_leaves_no_pid_file_and_no_health_file() {
    let dir = Dir::new();
    let pid = dir.start(&[]);
    assert!(dir.path("zigsvc.health").exists());
    let ran = dir.zigsvc(&["stop"]).expect(0);
    assert_eq!(ran.out, "zigsvc: jobs stopped\n");
    assert!(!alive(pid));
    assert!(!dir.path("zigsvc.pid").exists());
    assert!(!dir.path("zigsvc.health").exists());
    dir.zigsvc(&["status"]).expect(3);
    let ran = dir.zigsvc(&["stop"]).expect(0);
    assert_eq!(ran.out, "zigsvc: jobs was not running\n");
}

#[test]
fn a_killed_service_is_dead_until_it_is_started_or_stopped() {
    let dir = Dir::new();
    for command in ["start", "stop"] {
        let pid = dir.start(&[]);
        kill(pid, "KILL");
        wait_until("it is gone", || dir.lock_holder("zigsvc.pid").is_none());
        let (code, value) = status(&dir, &[]);
        assert_eq!(
            (code, value["state"].as_str(), value["running"].as_bool()),
            (1, Some("dead"), Some(false))
        );
        assert_eq!(dir.read("zigsvc.pid"), format!("{pid}\n"));
        dir.zigsvc(&[command]).expect(0);
        assert_eq!(dir.zigsvc(&["status"]).code, if command == "start" { 0 } else { 3 });
        dir.zigsvc(&["stop"]).expect(0);
    }
}

#[test]
fn a_suspended_service_can_be_stopped() {
    let dir = Dir::new();
    let pid = dir.start(&[]);
    kill(pid, "STOP");
    wait_until("it is suspended", || crate::support::process_state(pid) == Some('T'));
    let ran = dir.zigsvc(&["stop"]).expect(0);
    assert_eq!(ran.out, "zigsvc: jobs stopped\n");
    assert!(dir.read("zigsvc.log").contains("daemon stopped"));
}

#[test]
fn term_and_int_end_it_and_the_log_says_so() {
    let dir = Dir::new();
    for signal in ["TERM", "INT"] {
        let pid = dir.start(&["log_time=none", "log_max=0"]);
        dir.append("queue", "one\ntwo\n");
        wait_until("the jobs were logged", || {
            dir.read("zigsvc.log").contains("[INFO] processing job: two\n")
        });
        kill(pid, signal);
        wait_until("it is gone", || !alive(pid));
        let log = dir.read("zigsvc.log");
        let end =
            format!("[INFO] SIG{signal} received, stopping\n[INFO] daemon stopped, processed 2 total jobs\n");
        assert!(log.ends_with(&end), "{log}");
        fs::remove_file(dir.path("zigsvc.log")).unwrap();
    }
}

#[test]
fn pipe_is_ignored_and_usr2_writes_the_status_to_the_log() {
    let dir = Dir::new();
    let pid = dir.start(&[]);
    kill(pid, "PIPE");
    kill(pid, "USR2");
    wait_until("the status is in the log", || {
        dir.read("zigsvc.log").lines().any(|line| {
            line.contains("[INFO] status: pid=")
                && line.contains(" jobs=0 ")
                && line.ends_with("degraded=none")
        })
    });
    assert!(alive(pid));
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(pid));
}

// ----- status ----------------------------------------------------------------

#[test]
fn status_speaks_lsb_and_json() {
    let dir = Dir::new();
    let (code, value) = status(&dir, &[]);
    assert_eq!(code, 3);
    assert_eq!((value["service"].as_str(), value["state"].as_str()), (Some("jobs"), Some("stopped")));
    let pid = dir.start(&[]);
    let (code, value) = status(&dir, &[]);
    assert_eq!(code, 0);
    assert_eq!((value["running"].as_bool(), value["pid"].as_u64()), (Some(true), Some(u64::from(pid))));
    assert_eq!(value["heartbeat"].as_str(), Some("fresh"));
    let text = dir.zigsvc(&["status"]).expect(0).out;
    assert!(text.starts_with(&format!("jobs: running (pid {pid}), up ")), "{text}");
}

#[test]
fn status_of_a_hung_service_is_unknown() {
    let dir = Dir::new();
    let pid = dir.start(&["interval=100ms"]);
    let limit = ["-o", "stale_after=1s"];
    kill(pid, "STOP");
    wait_until("its heartbeat is stale", || dir.zigsvc(&[&limit[..], &["status"]].concat()).code == 4);
    let (code, value) = status(&dir, &limit);
    assert_eq!(
        (code, value["state"].as_str(), value["heartbeat"].as_str()),
        (4, Some("stale"), Some("stale"))
    );
    kill(pid, "CONT");
    wait_until("it is well again", || dir.zigsvc(&[&limit[..], &["status"]].concat()).code == 0);
}

// ----- restart, reload, rotate ------------------------------------------------

#[test]
fn restart_means_a_new_process_and_works_on_a_stopped_service() {
    let dir = Dir::new();
    dir.zigsvc(&["restart"]).expect(0);
    let first = dir.lock_holder("zigsvc.pid").unwrap();
    let ran = dir.zigsvc(&["restart"]).expect(0);
    let second = dir.lock_holder("zigsvc.pid").unwrap();
    assert_ne!(first, second);
    assert!(!alive(first));
    assert_eq!(ran.out, format!("zigsvc: jobs started (pid {second})\n{HANDLER_LOG}"));
}

#[test]
fn a_restart_or_reload_with_a_bad_config_leaves_the_running_service_alone() {
    let dir = Dir::new();
    let pid = dir.start(&[]);
    let log = dir.read("zigsvc.log");
    dir.write("zigsvc.conf", "workers = 99\n");
    let expected =
        format!("zigsvc: {}:1: workers must be a number from 1 to 8\n", dir.path("zigsvc.conf").display());
    for command in ["restart", "reload", "start", "run"] {
        let ran = dir.zigsvc(&[command]).expect(6);
        assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", expected.as_str()), "{command}");
    }
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(pid));
    assert_eq!(dir.read("zigsvc.log"), log, "it was not signalled");
}

#[test]
fn a_bad_config_keeps_nobody_from_seeing_rotating_and_stopping_the_service() {
    let dir = Dir::new();
    let option = format!("pid_file={}", dir.path("zigsvc-own.pid").display());
    for (config, options) in [
        (String::new(), &["-o", option.as_str()][..]),
        (format!("pid_file = \"{}\"\n", dir.path("zigsvc-own.pid").display()), &[][..]),
    ] {
        dir.write("zigsvc.conf", &config);
        let with = |command| dir.zigsvc(&[options, &[command]].concat());
        with("start").expect(0);
        let pid = dir.lock_holder("zigsvc-own.pid").unwrap();
        dir.write("zigsvc.conf", format!("{config}workers = 99\n"));
        assert!(with("status").expect(0).out.contains(&format!("(pid {pid})")));
        with("rotate").expect(0);
        wait_until("it has rotated", || dir.path("zigsvc.log.1").exists());
        let ran = with("stop").expect(0);
        assert_eq!(ran.out, "zigsvc: jobs stopped\n");
        assert!(ran.err.contains("workers must be a number"), "{ran:?}");
        fs::remove_file(dir.path("zigsvc.log.1")).unwrap();
    }
}

#[test]
fn a_reload_takes_good_values_and_keeps_what_the_command_line_says() {
    let dir = Dir::new();
    dir.write("zigsvc.conf", "retries = 1\nworkers = 2\n");
    let pid = dir.start(&["workers=3", "log_time=none", "log_max=0"]);
    dir.write("zigsvc.conf", "retries = 5\nworkers = 4\nlog_time = \"unix\"\nhandler = \"shell\"\n");
    dir.zigsvc(&["reload"]).expect(0);
    wait_until("the log tells of it", || dir.read("zigsvc.log").contains("config: handler changed"));
    let log = dir.read("zigsvc.log");
    assert!(log.contains("[INFO] SIGHUP received, reloading config\n"), "{log}");
    assert!(log.contains("[INFO] config: retries changed from 1 to 5\n"), "{log}");
    assert!(log.contains("[INFO] config: handler changed from \"log\" to \"shell\"\n"), "{log}");
    assert!(!log.contains("workers changed"), "{log}");
    assert!(!log.contains("log_time changed"), "{log}");
    dir.append("queue", "echo by the shell\n");
    wait_until("the new handler ran", || dir.read("zigsvc.log").contains("job 1: by the shell\n"));
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(pid));
}

#[test]
fn a_hup_with_a_bad_config_leaves_the_old_one_in_force() {
    let dir = Dir::new();
    dir.write("zigsvc.conf", "log_time = \"none\"\nhandler = \"log\"\n");
    let pid = dir.start(&[]);
    dir.write("zigsvc.conf", "handler = \"shell\"\nlog_time = \"unix\"\nworkers = \"many\"\n");
    kill(pid, "HUP");
    let reason = format!(
        "[ERROR] config not reloaded, the old one stays: {}:3: workers must be a number from 1 to 8\n",
        dir.path("zigsvc.conf").display()
    );
    wait_until("the log tells why", || dir.read("zigsvc.log").contains(&reason));
    dir.append("queue", "echo text\n");
    wait_until("the old handler took a job", || {
        dir.read("zigsvc.log").contains("\n[INFO] processing job: echo text\n")
    });
    kill(pid, "USR2");
    wait_until("the failure is counted", || dir.read("zigsvc.log").contains(" reloads=0 reload_errors=1 "));
}

#[test]
fn keys_that_need_a_restart_are_named_by_a_reload() {
    let dir = Dir::new();
    let pid = dir.start(&["log_time=none"]);
    let other = dir.path("other").display().to_string();
    dir.write("zigsvc.conf", format!("spool = \"{other}\"\npid_file = \"{other}.pid\"\n"));
    kill(pid, "HUP");
    for key in ["spool", "pid_file"] {
        wait_until("the log names the key", || {
            dir.read("zigsvc.log").lines().any(|line| {
                line.starts_with(&format!("[INFO] config: {key} changed from "))
                    && line.ends_with(", which needs a restart to take effect")
            })
        });
    }
    dir.append("queue", "still here\n");
    wait_until("it works on", || dir.read("zigsvc.log").contains("processing job: still here\n"));
    assert!(!dir.path("other").exists());
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(pid));
    fs::remove_file(dir.path("zigsvc.conf")).unwrap();
    dir.zigsvc(&["stop"]).expect(0);
    assert!(!dir.path("zigsvc.pid").exists());
}

#[test]
fn reload_and_rotate_of_a_stopped_service_say_so() {
    let dir = Dir::new();
    for command in ["reload", "rotate"] {
        let ran = dir.zigsvc(&[command]).expect(7);
        assert_eq!(ran.err, not_running(&dir, "jobs", "zigsvc.pid"));
    }
}

// ----- what cannot start -------------------------------------------------------

#[test]
fn a_failed_start_says_why_in_one_line_and_leaves_no_dead_service() {
    let dir = Dir::new();
    dir.write("file", "");
    let file = dir.path("file").display().to_string();
    let spool = dir.path("own-spool");
    fs::create_dir(&spool).unwrap();
    fs::write(spool.join("journal"), b"ZIGSVC-NOT-A-JOURNAL-OF-THIS-VERSION\n").unwrap();
    fs::create_dir(dir.path("bad-spool")).unwrap();
    fs::create_dir(dir.path("bad-spool/journal")).unwrap();
    for option in [
        format!("spool={file}"),
        format!("spool={file}/spool"),
        format!("spool={}", dir.path("bad-spool").display()),
        format!("queue_file={file}/queue"),
        format!("pid_file={file}/pid"),
        format!("pid_file={}", dir.path("no/such/folder").display()),
    ] {
        for command in ["start", "run"] {
            let ran = dir.zigsvc(&["-o", &option, command]).expect(1);
            assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1), "{option}: {ran:?}");
            assert!(ran.err.starts_with("zigsvc: /"), "{option}: {ran:?}");
            assert_eq!(dir.zigsvc(&["status"]).code, 3, "{option}");
        }
    }
}

#[test]
fn without_its_log_or_health_file_it_starts_with_a_warning() {
    let dir = Dir::new();
    fs::create_dir(dir.path("folder")).unwrap();
    let folder = dir.path("folder").display().to_string();
    for (key, what) in [("log_file", "the log"), ("health_file", "the health file")] {
        let ran = dir.zigsvc(&["-o", &format!("{key}={folder}"), "start"]).expect(0);
        let expected = format!("zigsvc: {what} cannot be written: {folder}: ");
        assert!(ran.err.starts_with(&expected) && ran.err.lines().count() == 1, "{ran:?}");
        assert!(ran.out.starts_with("zigsvc: jobs started"), "{ran:?}");
        dir.zigsvc(&["status"]).expect(0);
        dir.zigsvc(&["stop"]).expect(0);
    }
}

#[test]
fn started_with_closed_descriptors_it_works_and_keeps_files_off_0_to_2() {
    let dir = Dir::new();
    let mut start = dir.command();
    start.arg("start");
    let ran = finish(by_shell("exec \"$@\" <&- >&- 2>&-", &start), None).expect(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""));
    let pid = dir.lock_holder("zigsvc.pid").unwrap();
    dir.append("queue", "a job\n");
    wait_until("it works", || dir.read("zigsvc.log").contains("processing job: a job\n"));
    for number in 0..3 {
        assert_eq!(fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap().to_str(), Some("/dev/null"));
    }
}
