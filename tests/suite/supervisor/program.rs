//! `supervisor -- CMD ARG...`: one program that is not part of zigsvc, kept running.

use crate::support::supervisor::{LOG, Supervised, parent_of, run_command, session_of};
use crate::support::{
    Dir, Running, alive, by_shell, finish, heartbeat, kill, kill_hard, proc_status, require_native,
    under_qemu, wait_until,
};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// Keeps all of its log.
const ALL: &[&str] = &["log_max=0"];

/// Starts `run supervisor -- sh -c SCRIPT`.
#[track_caller]
fn run_script(dir: &Supervised, options: &[&str], script: &str) -> Running {
    Running::new(run_command(dir, options, &["--", "sh", "-c", script]))
}

/// Returns the command `zigsvc -d DIR -o log_max=0 COMMAND supervisor --`.
fn command_of(dir: &Dir, command: &str) -> Command {
    let mut zigsvc = dir.command();
    zigsvc.args(["-o", "log_max=0", command, "supervisor", "--"]);
    zigsvc
}

/// Returns the lines that the program wrote, without time, level and name.
fn output(dir: &Supervised, name: &str) -> Vec<String> {
    let log = dir.read(LOG);
    let start = format!("] [INFO] {name}| ");
    log.lines().filter_map(|line| Some(line.split_once(&start)?.1.to_owned())).collect()
}

// ----- ends ----------------------------------------------------------------------

#[test]
fn every_end_is_told_and_is_followed_by_a_start() {
    let dir = Supervised::new();
    let d = dir.as_arg();
    // One life ends with 0, one with 7, one by a signal; the next one stays.
    let script = format!(
        "echo x >>{d}/lives; case $(wc -l <{d}/lives) in 1) exit 0;; 2) exit 7;; 3) kill -SEGV $$;; esac; exec sleep 600"
    );
    let _running = run_script(&dir, ALL, &script);
    dir.wait_for("[WARN] sh: ended with exit status 0 after ");
    dir.wait_for(" ms; restart 1 now");
    dir.wait_for("[WARN] sh: ended with exit status 7 after ");
    dir.wait_for(" ms; restart 2 in 1 s");
    dir.wait_for("[WARN] sh: killed by signal 11 after ");
    dir.wait_for(" ms; restart 3 in 2 s");
    dir.wait_for_count("sh: running (pid ", 4);
    let pid = dir.program_after(0);
    let line = dir.status(dir.pid());
    assert!(
        line.ends_with(&format!(" restarts=3 reloads=0 reload_errors=0 sh=running:{pid} degraded=none")),
        "{line}"
    );
    dir.zigsvc(&["stop", "supervisor"]).expect(0);
    assert!(!alive(pid));
}

#[test]
fn in_the_background_it_is_the_same() {
    let dir = Supervised::new();
    let mut command = dir.command();
    command.args(["-o", "log_max=0", "start", "supervisor", "--", "sleep", "600"]);
    let ran = finish(command, None).expect(0);
    let supervisor = dir.lock_holder("zigsvc-supervisor.pid").unwrap();
    assert_eq!(ran.out, format!("zigsvc: supervisor started (pid {supervisor})\n"));
    dir.wait_for("sleep: running (pid ");
    let program = dir.program_after(0);
    assert_eq!((parent_of(program), session_of(program)), (Some(supervisor), Some(program)));
    kill(program, "KILL");
    let next = dir.program_after(program);
    // QUIT takes it along: its output goes through the supervisor.
    kill(supervisor, "QUIT");
    wait_until("both are gone", || !alive(supervisor) && !alive(next));
    assert_eq!((dir.count("SIGQUIT received, stopping"), dir.count("is left running")), (1, 0));
    assert_eq!(dir.count("daemon stopped, after 1 restarts"), 1);
    // A killed supervisor takes it along too.
    let mut command = dir.command();
    command.args(["start", "supervisor", "--", "sleep", "600"]);
    finish(command, None).expect(0);
    let last = dir.program_after(next);
    kill_hard(dir.lock_holder("zigsvc-supervisor.pid").unwrap());
    wait_until("the program is gone", || !alive(last));
    dir.zigsvc(&["status", "supervisor"]).expect(1);
}

#[test]
fn one_that_ignores_term_is_killed_at_stop_timeout_and_what_it_left_behind_too() {
    let dir = Supervised::new();
    let d = dir.as_arg();
    let script = format!(
        "trap '' TERM; (trap '' TERM; echo $$ >/dev/null; exec sleep 600) & echo $! >{d}/other; echo deaf; while :; do wait; done"
    );
    let mut running = run_script(&dir, &["log_max=0", "stop_timeout=100ms"], &script);
    dir.wait_for("sh| deaf");
    let program = dir.program_after(0);
    let other: u32 = dir.read("other").trim().parse().unwrap();
    kill(dir.pid(), "TERM");
    assert_eq!(running.code(), 0);
    dir.wait_for(&format!("[ERROR] sh: has not ended: SIGKILL to pid {program}"));
    assert!(!alive(program));
    wait_until("its child is gone", || !alive(other));
    // One that ends and leaves a child: a new life finds none of the old one.
    let dir = Supervised::new();
    let d = dir.as_arg();
    let script =
        format!("sleep 600 & echo $! >>{d}/others; [ $(wc -l <{d}/others) = 2 ] && exec sleep 601; exit 5");
    let _running = run_script(&dir, ALL, &script);
    dir.wait_for("sh: ended with exit status 5 after ");
    wait_until("the second life", || dir.read("others").lines().count() == 2);
    let first: u32 = dir.read("others").lines().next().unwrap().parse().unwrap();
    wait_until("what the first left is gone", || !alive(first));
}

#[test]
fn its_whole_process_group_is_told_to_end() {
    let dir = Supervised::new();
    let script = "(trap 'echo told; exit' TERM; echo ready; while :; do sleep 0.05; done) & \
                  trap 'wait; exit 0' TERM; wait";
    let mut running = run_script(&dir, ALL, script);
    dir.wait_for("sh| ready");
    kill(dir.pid(), "TERM");
    assert_eq!(running.code(), 0);
    assert_eq!((dir.count("sh| told"), dir.count("SIGKILL")), (1, 0));
}

#[test]
fn a_second_term_kills_at_once() {
    let dir = Supervised::new();
    let mut running = run_script(
        &dir,
        &["log_max=0", "stop_timeout=1h"],
        "trap '' TERM; echo deaf; while :; do sleep 1; done",
    );
    dir.wait_for("sh| deaf");
    let program = dir.program_after(0);
    let supervisor = dir.pid();
    kill(supervisor, "TERM");
    dir.wait_for("SIGTERM received, stopping");
    let line = dir.status(supervisor);
    assert!(line.contains("state=stopping") && line.contains(&format!("sh=ending:{program}")), "{line}");
    assert!(alive(program));
    kill(supervisor, "INT");
    assert_eq!(running.code(), 0);
    assert!(!alive(program));
}

// ----- output --------------------------------------------------------------------

#[test]
fn its_output_is_logged_line_by_line_and_can_forge_nothing() {
    let dir = Supervised::new();
    let script = r"printf 'one\ntw'; sleep 0.1; printf 'o\n\n'; echo error >&2
        printf 'a\033[2Jb\0c\r\n'; printf '[2026-01-01T00:00:00Z] [INFO] forged\n'
        head -c 5000 /dev/zero | tr '\0' x; echo; echo after; printf 'no end'; exec sleep 600 >/dev/null 2>&1";
    let _running = run_script(&dir, ALL, script);
    dir.wait_for("sh| after");
    // A line without an end is logged when the program ends.
    kill(dir.program_after(0), "KILL");
    dir.wait_for("sh| no end");
    assert!(dir.read(LOG).find("sh| no end") < dir.read(LOG).find("sh: killed by signal 9"));
    let lines = output(&dir, "sh");
    let long = "x".repeat(1024);
    let start = lines.iter().position(|line| line == "one").unwrap();
    assert_eq!(
        lines[start..start + 8],
        [
            "one",
            "two",
            "",
            "error",
            "a\\x1b[2Jb\\x00c",
            "[2026-01-01T00:00:00Z] [INFO] forged",
            &long,
            "after"
        ]
    );
    assert_eq!(dir.count("sh+ xxxx"), 4, "the rest of the long line");
}

#[test]
fn a_flood_of_output_stays_within_the_bounds_and_holds_up_nothing() {
    let dir = Supervised::new();
    let mut running =
        Running::new(run_command(&dir, &["log_max=20000", "log_keep=2"], &["--", "yes", "flood"]));
    wait_until("it has rotated twice", || dir.path(&format!("{LOG}.2")).exists());
    for suffix in ["", ".1", ".2"] {
        let size = fs::metadata(dir.path(&format!("{LOG}{suffix}"))).map_or(0, |meta| meta.len());
        assert!(size <= 20_000, "{size}");
    }
    assert!(!dir.path(&format!("{LOG}.3")).exists());
    let supervisor = dir.pid();
    kill(supervisor, "USR2");
    kill(supervisor, "TERM");
    assert_eq!(running.code(), 0);
    dir.wait_for("daemon stopped, after 0 restarts");
    assert!(fs::metadata(dir.path(LOG)).unwrap().len() <= 20_000);
}

// ----- what is executed -------------------------------------------------------------

/// Covers a report: `start` gave 0 for a program that cannot be executed, and it was tried again
/// for ever.
#[test]
fn a_program_that_cannot_be_executed_at_the_first_attempt_is_a_start_that_fails() {
    if !require_native("QEMU does not share memory with a child of vfork") {
        return;
    }
    let dir = Supervised::new();
    let path = dir.path("program").display().to_string();
    let fails = |words: &[&str], what: &str| {
        for command in ["start", "run"] {
            let mut command = command_of(&dir, command);
            command.args(words);
            let ran = finish(command, None).expect(1);
            assert_eq!(ran.err.lines().last(), Some(what), "{ran:?}");
            assert!(!dir.path("zigsvc-supervisor.pid").exists());
            dir.zigsvc(&["status", "supervisor"]).expect(3);
        }
    };
    let why = |errno: &str| format!("zigsvc: program: cannot be started: {path}: execve: {errno}");
    fails(&[&path], &why("ENOENT (no such file or directory)"));
    fs::create_dir(&path).unwrap();
    fails(&[&path], &why("EACCES (permission denied)"));
    fs::remove_dir(&path).unwrap();
    dir.write("program", "no program");
    fails(&[&path], &why("EACCES (permission denied)"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    fails(&[&path], &why("ENOEXEC (not an executable format)"));
    let absent = "zigsvc: no-such-program: cannot be started: no-such-program: execve: ENOENT (no such file or directory)";
    fails(&["no-such-program"], absent);
    assert_eq!(dir.count("[ERROR] program: cannot be started: "), 4, "{}", dir.read(LOG));
}

#[test]
fn a_program_that_vanishes_later_is_tried_again_until_it_is_back() {
    if !crate::support::require_native("QEMU does not share memory with a child of vfork") {
        return;
    }
    let dir = Supervised::new();
    let path = dir.path("program").display().to_string();
    dir.write_executable("program", "#!/bin/sh\nexec sleep 600\n");
    let _running = Running::new(run_command(&dir, ALL, &["--", &path]));
    let first = dir.program_after(0);
    fs::remove_file(&path).unwrap();
    kill(first, "KILL");
    dir.wait_for(&format!("[ERROR] program: cannot be started: {path}: execve: ENOENT"));
    dir.wait_for("[WARN] program: not started; next attempt in 1 s");
    dir.wait_for("[WARN] program: not started; next attempt in 2 s");
    dir.write_executable("program", "#!/bin/sh\nexec sleep 600\n");
    dir.program_after(first);
    let line = dir.status(dir.pid());
    assert!(line.contains(" restarts=1 "), "a start that never was is no restart: {line}");
}

#[test]
fn a_path_that_is_too_long_is_refused_before_anything_is_started() {
    let dir = Supervised::new();
    let long = "x".repeat(200);
    let folder = dir.path(&format!("{long}/{long}"));
    fs::create_dir_all(&folder).unwrap();
    let cases = [
        (format!("/{long}/{long}"), dir.path("")),
        (format!("./{long}/{long}"), dir.path("")),
        ("x".repeat(256), dir.path("")),
        ("/bin/sleep".to_owned(), folder),
    ];
    for (word, folder) in cases {
        for command in ["start", "run"] {
            let mut command = command_of(&dir, command);
            command.args([&word, "600"]).current_dir(&folder);
            let ran = finish(command, None).expect(2);
            assert!(ran.err.contains("255 bytes") && ran.err.contains(": CMD"), "{ran:?}");
        }
        assert!(!dir.path("zigsvc-supervisor.pid").exists());
    }
}

/// Covers a report: CMD ran as root in spite of `user`.
#[test]
fn it_runs_as_the_user_of_the_configuration() {
    if !crate::support::require_root() {
        return;
    }
    let dir = Supervised::new();
    let script = "echo $(id -u) $(id -g) $(id -G) in $(pwd); exec sleep 600";
    let options = ["log_max=0", "user=65534", "group=12345"];
    let mut command = run_command(&dir, &options, &["--", "sh", "-c", script]);
    command.current_dir("/etc");
    let mut running = Running::new(command);
    dir.wait_for("sh| 65534 12345 12345 in /etc");
    let program = dir.program_after(0);
    assert!(proc_status(dir.pid(), "Uid").starts_with('0'), "the supervisor stays root");
    kill(dir.pid(), "TERM");
    assert_eq!(running.code(), 0);
    assert!(!alive(program));
    // A change of the user clears what ends it with a killed supervisor.
    let command = run_command(&dir, &options, &["--", "sh", "-c", script]);
    let _running = Running::new(command);
    dir.wait_for_count("sh| 65534 ", 2);
    let program = dir.program_after(program);
    kill_hard(dir.pid());
    wait_until("it ends with its supervisor", || !alive(program));
}

#[test]
fn a_bare_name_is_looked_for_on_the_path_and_a_relative_one_below_the_caller() {
    let dir = Supervised::new();
    for folder in ["bin", "bin/tool-b", "bin2", "cwd", "cwd/sub"] {
        fs::create_dir(dir.path(folder)).unwrap();
    }
    dir.write_executable(
        "bin2/tool-a",
        "#!/bin/sh\necho \"$0 in $(pwd) with <$1> <$2> <$3> <$4>\"\nexec sleep 600\n",
    );
    // In front of it on the PATH, but not to be executed.
    dir.write("bin/tool-a", "#!/bin/sh\necho wrong\n");
    // A folder is no program, and what is in the caller's folder is not on the PATH.
    let mut command = run_command(&dir, ALL, &["--", "tool-b"]);
    command.env("PATH", format!("{}/bin", dir.as_arg())).current_dir(dir.path("cwd"));
    dir.write_executable("cwd/tool-b", "#!/bin/sh\necho wrong\nexec sleep 600\n");
    dir.write_executable("cwd/sub/tool-c", "#!/bin/sh\necho $0 in $(pwd)\nexec sleep 600\n");
    let path = format!("{}/bin:{}/bin2:/usr/bin:/bin", dir.as_arg(), dir.as_arg());
    let cwd = dir.path("cwd").display().to_string();
    for (words, expected) in [
        (
            &["tool-a", "1 2", "", "-x", "--"][..],
            format!("tool-a| {}/bin2/tool-a in {cwd} with <1 2> <> <-x> <-->", dir.as_arg()),
        ),
        (&["sub/tool-c"], format!("tool-c| {cwd}/sub/tool-c in {cwd}")),
        (&["./sub/tool-c"], format!("tool-c| {cwd}/./sub/tool-c in {cwd}")),
    ] {
        let mut command = run_command(&dir, ALL, &["--"]);
        command.args(words).env("PATH", &path).current_dir(&cwd);
        let mut running = Running::new(command);
        dir.wait_for(&expected);
        assert_eq!(dir.count("wrong"), 0);
        kill(dir.pid(), "TERM");
        assert_eq!(running.code(), 0);
    }
    assert_eq!(Running::new(command).code(), 1);
    assert_eq!(dir.count("wrong"), 0);
    dir.wait_for("daemon started");
}

#[test]
fn it_gets_the_callers_environment_and_nothing_else_of_his() {
    let dir = Supervised::new();
    let script = "env | sort; for n in 3 4 5 6 7 8 9; do [ ! -e /proc/$$/fd/$n ] || echo inherited $n; done; grep -E '^Sig(Blk|Ign|Cgt)' /proc/$$/status | tr '\\t' ' ' | tr '\\n' ,; echo; readlink /proc/$$/fd/0; umask; echo end; exec sleep 600";
    let mut command = run_command(&dir, ALL, &["--", "sh", "-c", script]);
    command
        .env("NOTIFY_SOCKET", "/run/nobody")
        .env("WATCHDOG_USEC", "1000000")
        .env("WATCHDOG_PID", "1")
        .env("WATCHDOG_PIDS", "kept")
        .env("GREETING", "hello world");
    let mask = "trap '' HUP USR1 QUIT; umask 000; exec \"$@\" 3</dev/zero 5</dev/zero 9>/dev/full";
    let _running = Running::new(by_shell(mask, &command));
    dir.wait_for("sh| end");
    let lines = output(&dir, "sh");
    for line in ["GREETING=hello world", "WATCHDOG_PIDS=kept", "HOME=/nonexistent", "/dev/null", "0022"] {
        assert!(lines.iter().any(|found| found == line), "{line}: {lines:#?}");
    }
    assert!(!lines.iter().any(|line| line.starts_with("NOTIFY_SOCKET") || line.starts_with("WATCHDOG_USEC")));
    assert!(!lines.iter().any(|line| line.starts_with("WATCHDOG_PID=")));
    if require_native("/proc shows QEMU's own process") {
        assert!(!lines.iter().any(|line| line.starts_with("inherited ")), "{lines:#?}");
        let zero = "0000000000000000";
        assert!(
            lines.iter().any(|line| line.starts_with(&format!("SigBlk: {zero},SigIgn: {zero},"))),
            "{lines:#?}"
        );
    }
}

// ----- health ----------------------------------------------------------------------

#[test]
fn a_health_file_that_is_no_longer_written_ends_the_program() {
    let dir = Supervised::new();
    let d = dir.as_arg();
    let stale = if under_qemu() { "stale_after=4s" } else { "stale_after=1500ms" };
    // After several looks the program writes its first sign of life, dated wherever, until
    // `quiet` is there.
    let script = format!(
        "sleep 0.4; while :; do [ -e {d}/quiet ] || {{ touch {d}/alive; touch -d 2001-01-01T00:00:0$((n % 10)) {d}/alive; }}; \
         n=$((n + 1)); sleep 0.05; done"
    );
    let options = ["log_max=0", "check_interval=100ms", stale];
    let words = ["--health", "alive", "--", "sh", "-c", &script];
    let mut command = run_command(&dir, &options, &words);
    command.current_dir(dir.path(""));
    let _running = Running::new(command);
    let first = dir.program_after(0);
    wait_until("it shows itself", || dir.path("alive").exists());
    let modified = || fs::metadata(dir.path("alive")).and_then(|meta| meta.modified()).ok();
    // Long past stale_after: each change counts, whatever the date is.
    let (mut changes, mut last) = (0, None);
    wait_until("it has shown itself many times", || {
        let now = modified();
        changes += u32::from(now != last);
        last = now;
        changes > 40
    });
    assert_eq!(dir.count("check "), 0, "{}", dir.read(LOG));
    dir.write("quiet", "");
    dir.wait_for("[WARN] sh: check 1 of 3 failed: heartbeat stale, ");
    dir.wait_for(&format!("; restarting it: SIGTERM to pid {first}"));
    dir.wait_for("sh: killed by signal 15 after ");
    fs::remove_file(dir.path("quiet")).unwrap();
    let second = dir.program_after(first);
    wait_until("it shows itself", || modified() != last);
    // A folder, then nothing.
    dir.write("quiet", "");
    wait_until("it is quiet", || {
        let _ = fs::remove_file(dir.path("alive"));
        fs::create_dir(dir.path("alive")).is_ok()
    });
    dir.wait_for("check 1 of 3 failed: heartbeat unreadable");
    fs::remove_dir(dir.path("alive")).unwrap();
    dir.wait_for("check 3 of 3 failed: heartbeat missing");
    fs::remove_file(dir.path("quiet")).unwrap();
    let third = dir.program_after(second);
    wait_until("it shows itself", || dir.path("alive").exists());
    wait_until("it is well", || dir.status(dir.pid()).contains(&format!("sh=running:{third} ")));
}

// ----- what it costs ------------------------------------------------------------------

#[cfg(feature = "jobs")]
#[test]
fn nothing_wakes_it_while_the_program_runs() {
    let dir = Supervised::new();
    let _running = Running::new(run_command(
        &dir,
        &["log_max=0", "interval=100ms", "check_interval=100ms"],
        &["--", "sleep", "600"],
    ));
    dir.wait_for("sleep: running (pid ");
    let pid = dir.pid();
    let _measuring = crate::support::measuring();
    let switches = || proc_status(pid, "voluntary_ctxt_switches");
    wait_until("it sleeps", || crate::support::process_state(pid) == Some('S'));
    dir.status(pid);
    wait_until("it sleeps", || crate::support::process_state(pid) == Some('S'));
    let before = switches();
    // Another one beats meanwhile, thrice as rarely as this one would.
    let other = Dir::new();
    other.start(&["interval=300ms"]);
    let seq = || heartbeat(&other, "zigsvc.health");
    let first = seq();
    wait_until("the other one has woken five times", || seq() >= first + 5);
    assert_eq!(switches(), before);
    assert!(!dir.path("zigsvc-supervisor.health").exists());
    dir.zigsvc(&["status", "supervisor"]).expect(0);
}

#[test]
fn its_own_log_needs_no_named_file_and_stderr_has_it_too() {
    let dir = Supervised::new();
    let mut command: Command = run_command(&dir, &[], &["--", "echo", "hello"]);
    command.stderr(fs::File::create(dir.path("stderr")).unwrap());
    let _running = Running::new(command);
    dir.wait_for("echo| hello");
    wait_until("stderr has it", || dir.read("stderr").contains("echo| hello"));
    // A reload does not take the file away.
    let pid = dir.pid();
    kill(pid, "HUP");
    dir.wait_for("SIGHUP received, reloading config");
    dir.status(pid);
}
