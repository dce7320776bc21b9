//! The log: whole lines, never lost without being counted, never too many.

use crate::support::foreground::wait_for_beats;
use crate::support::{Dir, finish, kill, log_lines_matching, program, through, wait_until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

/// Returns true if this test can have mounts of its own.
#[track_caller]
fn require_mounts() -> bool {
    let works = || {
        let status = program("unshare").args(["-m", "true"]).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    crate::support::require_root()
        && crate::support::require_tool("unshare")
        && crate::support::require_tool("mount")
        && crate::support::require(works(), "mount namespaces are not permitted here")
}

/// Starts the service in a mount namespace that `script` prepares; its PID.
#[track_caller]
fn start_in_namespace(dir: &Dir, script: &str, options: &[&str]) -> u32 {
    let mut start = dir.command();
    for option in options {
        start.args(["-o", option]);
    }
    start.arg("start");
    let script = format!("set -e; D={}; {script}; exec \"$@\"", dir.as_arg());
    finish(through(&["unshare", "-m", "sh", "-c", &script, "sh"], &start), None).expect(0);
    dir.lock_holder("zigsvc.pid").unwrap()
}

// ----- lines -------------------------------------------------------------------

#[test]
fn lines_are_dated_as_configured() {
    let digits =
        |text: &str| text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>();
    for (time, shape) in
        [("iso", "[0000-00-00T00:00:00Z] [INFO] "), ("unix", "[0000000000] [INFO] "), ("none", "[INFO] ")]
    {
        let dir = Dir::new();
        dir.start(&[&format!("log_time={time}")]);
        dir.zigsvc(&["stop"]).expect(0);
        let log = dir.read("zigsvc.log");
        assert!(log.lines().count() >= 3, "{log}");
        for line in log.lines() {
            assert!(digits(line).starts_with(shape), "{time}: {line}");
        }
        assert!(log.ends_with(" total jobs\n"), "{log}");
    }
}

#[test]
fn lines_below_the_level_are_not_written() {
    let dir = Dir::new();
    for (level, debug, info, warn) in [
        ("debug", true, true, true),
        ("info", false, true, true),
        ("warn", false, false, true),
        ("error", false, false, false),
    ] {
        dir.start(&[
            "log_time=none",
            "log_max=0",
            "handler=shell",
            "retries=1",
            "retry_delay=1ms",
            &format!("log_level={level}"),
        ]);
        dir.append("queue", "true\nfalse\n");
        wait_until("the last attempt failed", || dir.read("zigsvc.log").contains("[ERROR] job "));
        dir.zigsvc(&["stop"]).expect(0);
        let log = dir.read("zigsvc.log");
        assert_eq!(log.contains("[DEBUG] "), debug, "{level}: {log}");
        assert_eq!(log.contains("[INFO] "), info, "{level}: {log}");
        assert_eq!(log.contains("[WARN] "), warn, "{level}: {log}");
        fs::remove_file(dir.path("zigsvc.log")).unwrap();
        fs::remove_dir_all(dir.path("spool")).unwrap();
    }
}

#[test]
fn nothing_that_comes_from_outside_can_forge_a_line_or_command_a_terminal() {
    let dir = Dir::new();
    dir.start(&["log_time=none", "log_max=0"]);
    dir.append("queue", "a\r[ERROR] b\x1b[31m\x07\x7fc\td \u{e9}\u{2026}\n");
    let line = "[INFO] processing job: a\\x0d[ERROR] b\\x1b[31m\\x07\\x7fc\td \u{e9}\u{2026}\n";
    wait_until("it is logged", || dir.read("zigsvc.log").contains(line));
    dir.zigsvc(&["stop"]).expect(0);
    dir.start(&["log_time=none", "log_max=0", "handler=shell"]);
    dir.append("queue", "printf 'x\\r[INFO] y\\033[1m\\001z\\n'; printf 'no newline'\n");
    wait_until("the output is logged", || {
        dir.read("zigsvc.log").contains("no newline\n[INFO]")
            || dir.read("zigsvc.log").ends_with("no newline\n")
    });
    let log = dir.read("zigsvc.log");
    // A return ends a line, so the rest has the name of the job, too.
    let lines = "[INFO] job 2: x\n[INFO] job 2: [INFO] y\\x1b[1m\\x01z\n[INFO] job 2: no newline\n";
    assert!(log.contains(lines), "{log}");
    assert!(log.bytes().all(|byte| byte >= b' ' || byte == b'\n' || byte == b'\t'), "{log:?}");
}

#[test]
fn a_line_that_is_too_long_is_cut_and_marked() {
    let dir = Dir::new();
    dir.start(&["log_time=none", "log_max=0"]);
    dir.append("queue", &format!("{}\nnext\n", "\u{1}".repeat(1000)));
    wait_until("both are logged", || dir.read("zigsvc.log").contains("processing job: next\n"));
    let log = dir.read("zigsvc.log");
    let line = log.lines().find(|line| line.contains("\\x01")).unwrap();
    assert!(line.ends_with('\u{2026}') && line.len() <= 2047 && line.len() > 2000, "{}: {line}", line.len());
}

// ----- rotation ------------------------------------------------------------------

#[test]
fn no_line_is_lost_or_split_by_many_rotations_and_no_file_is_too_large() {
    let dir = Dir::new();
    dir.start(&["log_time=none", "log_max=2000", "log_keep=99"]);
    let job = |number: usize| format!("line {number:04} {}\n", "x".repeat(number % 90));
    let jobs: String = (0..1000).map(job).collect();
    for first in (0..1000).step_by(200) {
        let part: String = (first..first + 200).map(job).collect();
        dir.append("queue", &part);
        wait_until("the queue file was claimed", || !dir.path("queue").exists());
    }
    let logged = || -> String {
        let numbers = (1..=99).rev().map(|number| format!("zigsvc.log.{number}"));
        numbers.chain(["zigsvc.log".to_owned()]).map(|name| dir.read(&name)).collect()
    };
    wait_until("every job was logged", || logged().contains("line 0999 "));
    dir.zigsvc(&["stop"]).expect(0);
    let all = logged();
    let lines: String = all
        .lines()
        .filter_map(|line| line.strip_prefix("[INFO] processing job: "))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(
        lines.lines().map(str::trim_end).eq(jobs.lines().map(str::trim_end)),
        "a line is missing or split"
    );
    assert!(all.starts_with("[INFO] daemon started, pid="), "{all}");
    let files: Vec<_> = fs::read_dir(dir.path(""))
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("zigsvc.log"))
        .collect();
    assert!(files.len() > 20);
    for file in files {
        assert!(file.metadata().unwrap().len() <= 2000, "{file:?}");
        assert!(fs::read(file.path()).unwrap().ends_with(b"\n"), "{file:?}");
    }
}

#[test]
fn the_newest_old_log_is_number_one_and_only_as_many_are_kept_as_configured() {
    for keep in [1, 3] {
        let dir = Dir::new();
        dir.start(&["log_time=none", &format!("log_keep={keep}")]);
        for number in 1..=5 {
            dir.append("queue", &format!("number {number}\n"));
            let line = format!("job: number {number}\n");
            wait_until("it is logged", || dir.read("zigsvc.log").contains(&line));
            dir.zigsvc(&["rotate"]).expect(0);
            wait_until("it was rotated", || {
                dir.read("zigsvc.log.1").contains(&line) && dir.path("zigsvc.log").exists()
            });
        }
        for number in 1..=keep {
            let text = dir.read(&format!("zigsvc.log.{number}"));
            assert!(text.contains(&format!("number {}\n", 6 - number)), "{keep}: {number}: {text}");
        }
        assert!(!dir.path(&format!("zigsvc.log.{}", keep + 1)).exists());
        assert!(dir.path("zigsvc.log").exists());
    }
}

#[test]
fn a_log_that_was_moved_away_is_opened_anew_instead_of_rotated() {
    let dir = Dir::new();
    let pid = dir.start(&[]);
    fs::rename(dir.path("zigsvc.log"), dir.path("moved")).unwrap();
    kill(pid, "USR1");
    wait_until("there is a new log", || dir.path("zigsvc.log").exists());
    assert!(!dir.path("zigsvc.log.1").exists());
    assert_eq!(log_lines_matching(&dir.read("moved"), "daemon started"), 1);
    dir.append("queue", "after\n");
    wait_until("the new one is used", || dir.read("zigsvc.log").contains("processing job: after\n"));
    assert!(!dir.read("moved").contains("after"));
}

#[test]
fn a_log_that_was_deleted_or_moved_comes_back_without_being_asked_for() {
    let dir = Dir::new();
    dir.start(&[]);
    for text in ["one", "two"] {
        fs::rename(dir.path("zigsvc.log"), dir.path("moved")).unwrap();
        dir.append("queue", &format!("{text}\n"));
        wait_until("it is back", || dir.read("zigsvc.log").contains(&format!("processing job: {text}\n")));
    }
    fs::remove_file(dir.path("zigsvc.log")).unwrap();
    dir.zigsvc(&["stop"]).expect(0);
    assert!(dir.read("zigsvc.log").contains("daemon stopped"));
}

// ----- a disk that fails -----------------------------------------------------------

#[test]
fn a_log_whose_folder_is_missing_comes_alive_when_it_is_made() {
    let dir = Dir::new();
    let log = dir.path("later/log").display().to_string();
    let options = [format!("log_file={log}"), "interval=100ms".to_owned(), "log_time=none".to_owned()];
    let mut start = dir.command();
    for option in &options {
        start.args(["-o", option]);
    }
    start.arg("start");
    let ran = finish(start, None).expect(0);
    assert_eq!(
        ran.err,
        format!("zigsvc: the log cannot be written: {log}: openat: ENOENT (no such file or directory)\n")
    );
    let pid = dir.lock_holder("zigsvc.pid").unwrap();
    kill(pid, "USR2");
    wait_for_beats(&dir, 2);
    fs::create_dir(dir.path("later")).unwrap();
    kill(pid, "USR2");
    wait_until("it tells what was lost", || dir.read("later/log").contains("the log is written again\n"));
    let text = dir.read("later/log");
    let first = text.lines().next().unwrap();
    let lost: u32 = first
        .strip_prefix("[WARN] ")
        .and_then(|rest| rest.strip_suffix(" log lines lost"))
        .unwrap()
        .parse()
        .unwrap();
    assert!(lost >= 2, "{text}");
}

#[test]
fn a_full_disk_costs_only_lines_that_are_counted() {
    if !require_mounts() {
        return;
    }
    let dir = Dir::new();
    fs::create_dir(dir.path("small")).unwrap();
    let log = format!("log_file={}", dir.path("small/log").display());
    let options = [log.as_str(), "interval=100ms", "log_time=none", "log_max=0", "retries=0"];
    let pid = start_in_namespace(&dir, "mount -t tmpfs -o size=64k none \"$D/small\"", &options);
    let inside = |name: &str| {
        std::path::PathBuf::from(format!("/proc/{pid}/root{}", dir.path("small").display())).join(name)
    };
    let logged = || fs::read_to_string(inside("log")).unwrap_or_default();
    assert!(logged().contains("daemon started"));
    // Until not one more page fits.
    let filled = fs::write(inside("filler"), vec![b'x'; 256 * 1024]);
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let job = "y".repeat(900);
    dir.append("queue", &format!("{job}\n").repeat(20));
    wait_until("the jobs were taken", || !dir.path("queue").exists());
    wait_for_beats(&dir, 5);
    dir.zigsvc(&["status"]).expect(0);
    fs::remove_file(inside("filler")).unwrap();
    kill(pid, "USR2");
    wait_until("it tells what was lost", || logged().contains("the log is written again\n"));
    let text = logged();
    let count: Vec<u32> = text
        .lines()
        .filter_map(|line| line.strip_suffix(" log lines lost")?.strip_prefix("[WARN] ")?.parse().ok())
        .collect();
    let total: u32 = count.iter().sum();
    assert!(total >= 10, "{text}");
    assert!(text.contains(&format!(" log_lost={total} ")), "{text}");
    for line in text.lines() {
        assert!(
            line.starts_with('[') && (!line.contains("yy") || line.ends_with(&job)),
            "half a line: {line}"
        );
    }
    assert!(text.ends_with('\n'));
}

// ----- syslog ------------------------------------------------------------------------

/// Starts a service whose `/dev` is the folder `dev` of the test.
#[track_caller]
fn start_with_own_dev(dir: &Dir, options: &[&str]) -> u32 {
    fs::create_dir(dir.path("dev")).unwrap();
    dir.write("dev/null", "");
    let script = "mount --bind /dev/null \"$D/dev/null\"; mount --rbind \"$D/dev\" /dev";
    start_in_namespace(dir, script, options)
}

/// Returns the lines that syslogd would see until one contains `needle`.
#[track_caller]
fn receive_until(syslogd: &UnixDatagram, needle: &str) -> Vec<String> {
    syslogd.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut lines: Vec<String> = Vec::new();
    while !lines.iter().any(|line| line.contains(needle)) {
        let mut bytes = [0; 1024];
        let count = syslogd.recv(&mut bytes).unwrap_or_else(|error| panic!("{needle}: {error}: {lines:?}"));
        assert!(count <= 250, "{count} bytes");
        lines.push(String::from_utf8(bytes[..count].to_vec()).unwrap());
    }
    lines
}

#[test]
fn lines_go_to_syslog_as_rfc_3164_says() {
    if !crate::support::require_native("mounts need the host's programs") || !require_mounts() {
        return;
    }
    let dir = Dir::new();
    fs::create_dir(dir.path("first")).unwrap();
    let pid = start_with_own_dev(&dir, &["syslog=true", "log_time=none", "interval=100ms"]);
    // There was no syslogd at start.
    let syslogd = UnixDatagram::bind(dir.path("dev/log")).unwrap();
    wait_until("a line arrives", || {
        kill(pid, "USR2");
        syslogd.set_nonblocking(true).unwrap();
        syslogd.recv(&mut [0; 1024]).is_ok()
    });
    syslogd.set_nonblocking(false).unwrap();
    dir.append("queue", "short\n");
    let lines = receive_until(&syslogd, "short");
    assert_eq!(lines.last().unwrap(), &format!("<30>zigsvc[{pid}]: processing job: short"));
    dir.append("queue", &format!("long {}\n", "z".repeat(900)));
    let lines = receive_until(&syslogd, "long");
    assert!(lines.last().unwrap().len() == 250 && lines.last().unwrap().ends_with('\u{2026}'), "{lines:?}");
    // syslogd restarts.
    drop(syslogd);
    fs::remove_file(dir.path("dev/log")).unwrap();
    kill(pid, "USR2");
    wait_for_beats(&dir, 2);
    let syslogd = UnixDatagram::bind(dir.path("dev/log")).unwrap();
    dir.write("zigsvc.conf", "workers = \"bad\"\n");
    wait_until("lines arrive again", || {
        kill(pid, "HUP");
        syslogd.set_nonblocking(true).unwrap();
        syslogd.recv(&mut [0; 1024]).is_ok()
    });
    syslogd.set_nonblocking(false).unwrap();
    let lines = receive_until(&syslogd, "config not reloaded");
    assert!(lines.last().unwrap().starts_with(&format!("<27>zigsvc[{pid}]: config not")), "{lines:?}");
    fs::remove_file(dir.path("zigsvc.conf")).unwrap();
    dir.zigsvc(&["stop"]).expect(0);
    receive_until(&syslogd, "daemon stopped");
}

// procd drops what a service prints, and starts it again for ever.
#[test]
fn the_reason_of_a_start_that_fails_is_a_line_of_syslog() {
    if !crate::support::require_native("mounts need the host's programs") || !require_mounts() {
        return;
    }
    let dir = Dir::new();
    fs::create_dir(dir.path("dev")).unwrap();
    dir.write("dev/null", "");
    let syslogd = UnixDatagram::bind(dir.path("dev/log")).unwrap();
    let run = |code: i32| {
        let mut inner = dir.command();
        inner.args(["-o", "syslog=true", "run"]);
        let script = format!(
            "D={}; mount --bind /dev/null \"$D/dev/null\"; mount --rbind \"$D/dev\" /dev; exec \"$@\"",
            dir.as_arg()
        );
        finish(through(&["unshare", "-m", "sh", "-c", &script, "sh"], &inner), None).expect(code).err
    };
    // The option counts although the file is wrong.
    dir.write("zigsvc.conf", "nonsense = 1\n");
    let said = run(6);
    assert!(said.starts_with("zigsvc: ") && said.contains("zigsvc.conf:1: "), "{said}");
    let line = receive_until(&syslogd, "zigsvc.conf:1: ").pop().unwrap();
    assert!(line.starts_with("<27>zigsvc["), "{line}");
    assert_eq!(line.split_once(": ").unwrap().1, said.strip_prefix("zigsvc: ").unwrap().trim_end());
    // So does a later reason.
    fs::remove_file(dir.path("zigsvc.conf")).unwrap();
    dir.start(&[]);
    run(1);
    let line = receive_until(&syslogd, "already running").pop().unwrap();
    assert!(line.starts_with("<27>zigsvc["), "{line}");
    dir.zigsvc(&["stop"]).expect(0);
    // Without the option nothing arrives, and with a file that sets it, its lines do.
    dir.write("zigsvc.conf", "syslog = true\nnonsense = 1\n");
    run(6);
    receive_until(&syslogd, "zigsvc.conf:2: ");
}

#[test]
fn a_syslogd_that_reads_nothing_stalls_nothing() {
    if !crate::support::require_native("mounts need the host's programs") || !require_mounts() {
        return;
    }
    let dir = Dir::new();
    let pid = start_with_own_dev(&dir, &["syslog=true", "interval=100ms", "log_max=0"]);
    let syslogd = UnixDatagram::bind(dir.path("dev/log")).unwrap();
    // More than fits into the socket's queue (net.unix.max_dgram_qlen).
    dir.append("queue", &"a job\n".repeat(2000));
    wait_until("all are logged", || {
        log_lines_matching(&dir.read("zigsvc.log"), "processing job: a job") == 2000
    });
    wait_for_beats(&dir, 3);
    kill(pid, "TERM");
    wait_until("it is gone", || !crate::support::alive(pid));
    drop(syslogd);
}

// ----- files with a second name ---------------------------------------------------

/// Checks a folder of logs that belongs to `user`, because opener and supervisor still
/// write theirs there as root.
#[test]
fn what_another_user_can_have_planted_is_not_written_by_root() {
    if !crate::support::require_root() {
        return;
    }
    let dir = Dir::new();
    fs::create_dir(dir.path("log")).unwrap();
    dir.write("target", "of root\n");
    let planted = dir.path("log/zigsvc-opener.log");
    let plant = || fs::hard_link(dir.path("target"), &planted);
    let log_file = format!("log_file={}", dir.path("log/zigsvc.log").display());
    let intact = || dir.read("target") == "of root\n";

    plant().unwrap();
    let pid = dir.start_service("opener", &[&log_file]);
    wait_until("in root's own folder it is written", || !intact());
    dir.zigsvc(&["-o", &log_file, "stop", "opener"]).expect(0);
    assert!(!crate::support::alive(pid));

    dir.write("target", "of root\n");
    std::os::unix::fs::chown(dir.path("log"), Some(65534), Some(65534)).unwrap();
    let ran = dir.zigsvc(&["-o", &log_file, "start", "opener"]).expect(6);
    assert!(ran.err.contains("log: not trusted, because uid 65534 owns it"), "{}", ran.err);
    let trust = format!("trust={}", dir.path("log").display());
    let ran = dir.zigsvc(&["-o", &trust, "-o", &log_file, "start", "opener"]).expect(6);
    assert!(ran.err.contains("zigsvc-opener.log: not trusted") && ran.err.contains("second name"), "{ran:?}");
    fs::remove_file(&planted).unwrap();
    dir.zigsvc(&["-o", &trust, "-o", &log_file, "start", "opener"]).expect(0);
    let pid = dir.lock_holder("zigsvc-opener.pid").unwrap();
    let log = || fs::read_to_string(&planted).unwrap_or_default();
    wait_until("it has a log of its own", || {
        kill(pid, "USR2");
        log().contains("status: ")
    });
    // One of the signals before may come late, and make the file once more.
    wait_until("it is planted", || {
        let _ = fs::remove_file(&planted);
        plant().is_ok()
    });
    // Its last lines would go there too.
    kill(pid, "USR1");
    kill(pid, "USR2");
    let ran = dir.zigsvc_with_input(&["-o", &trust, "log", planted.to_str().unwrap()], b"line\n").expect(6);
    assert!(ran.err.contains("second name"), "{}", ran.err);
    dir.zigsvc(&["-o", &log_file, "stop", "opener"]).expect(0);
    assert!(intact(), "{}", dir.read("target"));
}

#[test]
fn a_log_with_a_second_name_is_not_written_by_root_for_another_user() {
    if !crate::support::require_root() {
        return;
    }
    let dir = Dir::new();
    fs::set_permissions(dir.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    dir.write("target", "of root\n");
    fs::hard_link(dir.path("target"), dir.path("zigsvc.log")).unwrap();
    let ran = dir.zigsvc(&["-o", "user=65534", "-o", "group=65534", "start"]).expect(0);
    assert!(ran.err.contains("the log cannot be written: ") && ran.err.contains("EMLINK"), "{}", ran.err);
    dir.zigsvc(&["stop"]).expect(0);
    assert_eq!(dir.read("target"), "of root\n");
}
