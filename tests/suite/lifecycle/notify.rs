//! `run` under a service manager: its notifications (sd_notify(3)), its watchdog, and
//! priorities for its journal (sd-daemon(3)).

use crate::support::foreground::{run_command, seq, wait_for_beats};
use crate::support::{
    Dir, Running, by_shell, finish, kill, patience, process_state, require_native, wait_until,
};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{ErrorKind, PipeReader, PipeWriter, Read, pipe};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};

/// A heartbeat as often as it can be.
const QUICK: &str = "interval=100ms";

/// A service manager: its end of `NOTIFY_SOCKET`, and the datagrams that it got.
struct Manager {
    socket: UnixDatagram,
    told: Vec<String>,
}

impl Manager {
    /// Makes a manager at a path, which must be free.
    #[track_caller]
    fn at(path: &Path) -> Self {
        Self::over(UnixDatagram::bind(path).unwrap())
    }

    /// Makes a manager at an abstract name.
    #[track_caller]
    fn abstractly(name: &str) -> Self {
        Self::over(UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap())
    }

    fn over(socket: UnixDatagram) -> Self {
        socket.set_nonblocking(true).unwrap();
        Self { socket, told: Vec::new() }
    }

    /// Takes what has arrived.
    fn take(&mut self) {
        let mut bytes = [0; 4096];
        while let Ok(count) = self.socket.recv(&mut bytes) {
            self.told.push(String::from_utf8(bytes[..count].to_vec()).unwrap());
        }
    }

    /// Returns how many datagrams have this line.
    fn count(&mut self, line: &str) -> usize {
        self.take();
        self.told.iter().filter(|text| text.lines().any(|told| told == line)).count()
    }

    #[track_caller]
    fn wait_for(&mut self, line: &str, count: usize) {
        let limit = patience();
        let came = crate::support::holds_within(limit, || self.count(line) >= count);
        assert!(came, "waited {limit:?} in vain for {count} x {line:?}: {:#?}", self.told);
    }

    /// Returns the first line of each datagram.
    fn heads(&mut self) -> Vec<&str> {
        self.take();
        self.told.iter().map(|text| text.lines().next().unwrap_or_default()).collect()
    }

    /// Has others fill the queue until nothing more fits; returns how many
    /// datagrams are in it.
    #[track_caller]
    fn fill(path: &Path) -> usize {
        let mut filled = 0;
        loop {
            // One alone may be at its own limit before the queue is.
            let other = UnixDatagram::unbound().unwrap();
            other.set_nonblocking(true).unwrap();
            let before = filled;
            let error = loop {
                match other.send_to(b"filling", path) {
                    Ok(_) => filled += 1,
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            if filled == before {
                return filled;
            }
        }
    }
}

/// Returns `run` with a manager at `address`.
fn managed(dir: &Dir, options: &[&str], address: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = run_command(dir, options);
    command.env("NOTIFY_SOCKET", address);
    command
}

/// Returns CLOCK_MONOTONIC in microseconds.
fn monotonic_us() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap() * 1_000_000 + u64::try_from(time.tv_nsec).unwrap() / 1000
}

#[track_caller]
fn wait_until_it_runs(dir: &Dir) {
    wait_until("it runs", || dir.zigsvc(&["status"]).code == 0);
}

/// Follows a service from READY to STOPPING.
#[track_caller]
fn a_whole_life(dir: &Dir, mut manager: Manager, address: impl AsRef<std::ffi::OsStr>) {
    let mut running = Running::new(managed(dir, &[QUICK], address));
    manager.wait_for("READY=1", 1);
    dir.zigsvc(&["status"]).expect(0);
    let first = format!("READY=1\nMAINPID={}\nSTATUS=running; degraded: none\n", running.pid());
    assert_eq!(manager.told, [first]);

    let before = monotonic_us();
    dir.zigsvc(&["reload"]).expect(0);
    manager.wait_for("READY=1", 2);
    let usec = manager.told[1].strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
    let usec: u64 = usec.strip_suffix('\n').unwrap().parse().unwrap();
    assert!((before..=monotonic_us()).contains(&usec), "{before}, {usec}");
    assert_eq!(manager.told[2], format!("READY=1\nMAINPID={}\n", running.pid()));

    wait_for_beats(dir, 3);
    assert_eq!(manager.heads().len(), 3, "only what is new is told");
    fs::remove_file(dir.path("zigsvc.health")).unwrap();
    fs::create_dir(dir.path("zigsvc.health")).unwrap();
    manager.wait_for("STATUS=running; degraded: health", 1);
    fs::remove_dir(dir.path("zigsvc.health")).unwrap();
    manager.wait_for("STATUS=running; degraded: none", 2);

    kill(running.pid(), "TERM");
    assert_eq!(running.code(), 0);
    let expected = [
        "READY=1",
        "RELOADING=1",
        "READY=1",
        "STATUS=running; degraded: health",
        "STATUS=running; degraded: none",
        "STOPPING=1",
        "STATUS=stopping; degraded: none",
    ];
    assert_eq!(manager.heads(), expected);
}

#[test]
fn a_manager_at_a_path_is_told_the_whole_life() {
    let dir = Dir::new();
    let path = dir.path("notify");
    a_whole_life(&dir, Manager::at(&path), path);
}

#[test]
fn a_manager_at_an_abstract_name_is_told_the_whole_life() {
    let dir = Dir::new();
    let name = format!("{}/notify", dir.as_arg());
    a_whole_life(&dir, Manager::abstractly(&name), format!("@{name}"));
}

#[test]
fn the_longest_names_work() {
    let dir = Dir::new();
    let path = dir.path(&"n".repeat(106 - dir.as_arg().len()));
    assert_eq!(path.as_os_str().len(), 107);
    let name = format!("{:x<107}", dir.as_arg());
    let managers = [
        (Manager::at(&path), path.to_str().unwrap().to_owned()),
        (Manager::abstractly(&name), format!("@{name}")),
    ];
    for (mut manager, address) in managers {
        let mut running = Running::new(managed(&dir, &[], address));
        manager.wait_for("READY=1", 1);
        kill(running.pid(), "TERM");
        assert_eq!(running.code(), 0);
    }
}

#[test]
fn what_is_no_address_is_ignored() {
    let dir = Dir::new();
    let (long, long_name) = (format!("/{}", "x".repeat(108)), format!("@{}", "x".repeat(108)));
    let very_long = format!("/{}", "x".repeat(5000));
    for address in ["", "@", "notify", "./notify", "vsock:2:1234", "-1", &long, &long_name, &very_long] {
        let mut command = managed(&dir, &[], address);
        command.env("WATCHDOG_USEC", "100000");
        let mut running = Running::new(command);
        wait_until_it_runs(&dir);
        if require_native("/proc shows QEMU's own process") {
            let sockets = || {
                let fds = fs::read_dir(format!("/proc/{}/fd", running.pid())).unwrap();
                let links = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
                links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
            };
            // Those of the clients that asked whether it runs are closed.
            let reason = "the control socket and the lock of the queue file";
            wait_until(&format!("{address:?}: only {reason}"), || sockets() == 2);
        }
        kill(running.pid(), "TERM");
        assert_eq!(running.code(), 0);
    }
}

#[test]
fn a_config_that_was_refused_is_told_until_a_good_one_comes() {
    let dir = Dir::new();
    let path = dir.path("notify");
    let mut manager = Manager::at(&path);
    let running = Running::new(managed(&dir, &[], &path));
    manager.wait_for("READY=1", 1);
    let ready = format!("READY=1\nMAINPID={}\n", running.pid());
    let well = "STATUS=running; degraded: none";
    let refused = format!("{well}; the config was refused, the old one stays");
    let steps = [
        ("what = 1\n", format!("{ready}{refused}\n")),
        ("what = 2\n", ready.clone()),
        ("retries = 5\n", format!("{ready}{well}\n")),
        ("retries = 6\n", ready.clone()),
        ("allow_uid = \"no-such-user\"\n", format!("{ready}{refused}\n")),
    ];
    for (index, (config, expected)) in steps.iter().enumerate() {
        dir.write("zigsvc.conf", config);
        kill(running.pid(), "HUP");
        manager.wait_for("READY=1", index + 2);
        let [.., reloading, ready] = &manager.told[..] else { panic!("{:?}", manager.told) };
        assert!(reloading.starts_with("RELOADING=1\n"), "{config}: {reloading}");
        assert_eq!(ready, expected, "{config}");
    }
}

#[test]
fn a_drain_is_told() {
    let dir = Dir::new();
    let path = dir.path("notify");
    let mut manager = Manager::at(&path);
    dir.write_executable("wait", "#!/bin/sh\nwhile ! [ -e \"$1\" ]; do sleep 0.1; done\n");
    let handler = format!("handler={}", dir.path("wait").display());
    let mut running = Running::new(managed(&dir, &[&handler], &path));
    manager.wait_for("READY=1", 1);
    let end = dir.path("end");
    dir.zigsvc(&["queue", end.to_str().unwrap()]).expect(0);
    dir.zigsvc(&["drain"]).expect(0);
    manager.wait_for("STATUS=draining; degraded: none", 1);
    dir.write("end", "");
    manager.wait_for("STOPPING=1", 1);
    assert_eq!(running.code(), 0);
}

/// Returns `run` with a watchdog that wants to be fed every 100 ms.
fn watched(dir: &Dir, options: &[&str], path: &Path) -> Command {
    let mut command = managed(dir, options, path);
    command.env("WATCHDOG_USEC", "200000");
    command
}

#[test]
fn the_watchdog_is_fed_if_it_is_ours() {
    let dir = Dir::new();
    let path = dir.path("notify");
    let mut ours = by_shell("WATCHDOG_PID=$$ exec \"$@\"", &watched(&dir, &[], &path));
    ours.stderr(Stdio::null());
    for command in [watched(&dir, &[], &path), ours] {
        let mut manager = Manager::at(&path);
        let mut running = Running::new(command);
        // Without a due time of its own that would take the heart 100 s.
        manager.wait_for("WATCHDOG=1", 20);
        assert_eq!(manager.heads()[0], "READY=1");
        assert_eq!(manager.count("READY=1"), 1);
        kill(running.pid(), "TERM");
        assert_eq!(running.code(), 0);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_watchdog_of_others_or_without_a_time_is_not_fed() {
    let dir = Dir::new();
    let path = dir.path("notify");
    let mut manager = Manager::at(&path);
    for (name, value) in [
        ("WATCHDOG_PID", "1"),
        ("WATCHDOG_PID", ""),
        ("WATCHDOG_PID", "ours"),
        ("WATCHDOG_USEC", "0"),
        ("WATCHDOG_USEC", "-200000"),
        ("WATCHDOG_USEC", "200 ms"),
        ("WATCHDOG_USEC", "18446744073709551615"),
        ("WATCHDOG_USEC", "18446744073709551614"),
        ("WATCHDOG_USEC", "99999999999999999999"),
    ] {
        let mut command = watched(&dir, &[QUICK], &path);
        command.env(name, value);
        let mut running = Running::new(command);
        manager.wait_for("READY=1", 1);
        // A heart beats every 250 ms.
        wait_for_beats(&dir, 3);
        assert_eq!(manager.count("WATCHDOG=1"), 0, "{name}={value}");
        kill(running.pid(), "TERM");
        assert_eq!(running.code(), 0);
        manager.take();
        manager.told.clear();
    }
}

#[test]
fn a_daemon_that_hangs_feeds_no_watchdog() {
    let (dir, other_dir) = (Dir::new(), Dir::new());
    let (path, other_path) = (dir.path("notify"), other_dir.path("notify"));
    let (mut manager, mut other) = (Manager::at(&path), Manager::at(&other_path));
    let mut running = Running::new(watched(&dir, &[], &path));
    let _other_running = Running::new(watched(&other_dir, &[], &other_path));
    manager.wait_for("WATCHDOG=1", 1);
    other.wait_for("WATCHDOG=1", 1);
    kill(running.pid(), "STOP");
    wait_until("it is stopped", || process_state(running.pid()) == Some('T'));
    manager.take();
    manager.told.clear();
    // The other one is the clock.
    let fed = other.count("WATCHDOG=1");
    other.wait_for("WATCHDOG=1", fed + 5);
    assert_eq!(manager.count("WATCHDOG=1"), 0);
    kill(running.pid(), "CONT");
    manager.wait_for("WATCHDOG=1", 2);
    kill(running.pid(), "TERM");
    assert_eq!(running.code(), 0);
}

/// Reloads, works, and beats on.
#[track_caller]
fn goes_on(dir: &Dir, running: &Running) {
    kill(running.pid(), "HUP");
    dir.zigsvc(&["queue", "--wait", "a job"]).expect(0);
    wait_for_beats(dir, 3);
    dir.zigsvc(&["status"]).expect(0);
}

#[test]
fn a_manager_that_is_not_there_holds_nothing_up_and_is_told_when_it_comes() {
    let dir = Dir::new();
    let (missing, deaf) = (dir.path("missing"), dir.path("deaf"));
    // A name that no process has open any more.
    drop(UnixDatagram::bind(&deaf).unwrap());
    for path in [missing, deaf] {
        let mut running = Running::new(watched(&dir, &[QUICK], &path));
        wait_until_it_runs(&dir);
        goes_on(&dir, &running);
        let _ = fs::remove_file(&path);
        let mut manager = Manager::at(&path);
        manager.wait_for("READY=1", 1);
        manager.wait_for("WATCHDOG=1", 1);
        let heads = manager.heads();
        assert!(heads.starts_with(&["RELOADING=1", "READY=1"]), "{heads:?}");
        drop(manager);
        kill(running.pid(), "TERM");
        assert_eq!(running.code(), 0);
    }
}

#[test]
fn a_manager_that_goes_away_holds_nothing_up() {
    let dir = Dir::new();
    let path = dir.path("notify");
    let mut manager = Manager::at(&path);
    let mut running = Running::new(managed(&dir, &[QUICK], &path));
    manager.wait_for("READY=1", 1);
    drop(manager);
    goes_on(&dir, &running);
    fs::remove_file(&path).unwrap();
    goes_on(&dir, &running);
    kill(running.pid(), "TERM");
    assert_eq!(running.code(), 0);
}

#[test]
fn a_manager_that_does_not_read_holds_nothing_up_and_misses_nothing() {
    let dir = Dir::new();
    let path = dir.path("notify");
    let mut manager = Manager::at(&path);
    let filled = Manager::fill(&path);
    let mut running = Running::new(managed(&dir, &[QUICK], &path));
    wait_until_it_runs(&dir);
    goes_on(&dir, &running);
    // Now it does.
    manager.wait_for("READY=1", 1);
    assert_eq!(manager.count("filling"), filled);
    assert_eq!(manager.heads()[filled..filled + 2], ["RELOADING=1", "READY=1"]);
    assert_eq!(manager.count("STATUS=running; degraded: none"), 1);
    Manager::fill(&path);
    kill(running.pid(), "TERM");
    assert_eq!(running.code(), 0);
}

#[test]
fn start_tells_no_manager() {
    let dir = Dir::new();
    let path = dir.path("notify");
    let mut manager = Manager::at(&path);
    for word in ["start", "restart"] {
        let mut command = dir.command();
        command.args(["-o", QUICK, word]);
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000");
        finish(command, None).expect(0);
        wait_for_beats(&dir, 3);
        dir.zigsvc(&["reload"]).expect(0);
        wait_for_beats(&dir, 1);
    }
    dir.zigsvc(&["stop"]).expect(0);
    manager.take();
    assert_eq!(manager.told, [""; 0]);
}

#[test]
fn handlers_inherit_nothing_of_it() {
    let dir = Dir::new();
    let path = dir.path("notify");
    let mut manager = Manager::at(&path);
    dir.write_executable("look", "#!/bin/sh\n{ env; ls -l /proc/self/fd; } > \"$1\"\n");
    let handler = format!("handler={}", dir.path("look").display());
    let mut command = watched(&dir, &[&handler], &path);
    command.env("WATCHDOG_PID", "1").env("JOURNAL_STREAM", "1:2");
    let mut running = Running::new(command);
    manager.wait_for("READY=1", 1);
    let seen = dir.path("seen");
    dir.zigsvc(&["queue", "--wait", seen.to_str().unwrap()]).expect(0);
    let seen = dir.read("seen");
    assert!(seen.contains("ZIGSVC_JOB="), "{seen}");
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM", "socket:"] {
        assert!(!seen.contains(name), "{name}: {seen}");
    }
    kill(running.pid(), "TERM");
    assert_eq!(running.code(), 0);
}

// ----- the journal ------------------------------------------------------------

/// Returns the two ends of a pipe, and the value of `JOURNAL_STREAM` where the pipe is stderr.
fn journal() -> (PipeReader, PipeWriter, String) {
    let (reader, writer) = pipe().unwrap();
    let meta = File::from(std::os::fd::OwnedFd::from(writer.try_clone().unwrap())).metadata().unwrap();
    (reader, writer, format!("{}:{}", meta.dev(), meta.ino()))
}

/// Returns all bytes that come out of the pipe.
fn read_all(mut reader: PipeReader) -> String {
    let mut text = Vec::new();
    reader.read_to_end(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// Has a service write lines of three levels, and returns what is on stderr.
#[track_caller]
fn lines_of_a_service(dir: &Dir, options: &[&str], stderr: (PipeReader, PipeWriter), stream: &str) -> String {
    let mut command = run_command(dir, options);
    command.env("JOURNAL_STREAM", stream).stderr(stderr.1);
    let mut running = Running::new(command);
    wait_until_it_runs(dir);
    for (count, config) in [(1, "what = 1\n"), (2, "handler = \"/no/such/handler\"\n")] {
        dir.write("zigsvc.conf", config);
        kill(running.pid(), "HUP");
        wait_until("it was read", || {
            let status = dir.zigsvc(&["status", "--json"]).out;
            let status: serde_json::Value = serde_json::from_str(&status).unwrap();
            status["reloads"].as_u64().unwrap() + status["reload_errors"].as_u64().unwrap() == count
        });
    }
    fs::remove_file(dir.path("zigsvc.conf")).unwrap();
    kill(running.pid(), "TERM");
    assert_eq!(running.code(), 0);
    read_all(stderr.0)
}

#[test]
fn a_journal_on_stderr_gets_priorities_and_the_file_keeps_its_form() {
    let dir = Dir::new();
    let file = format!("log_file={}", dir.path("own.log").display());
    for stamp in ["iso", "unix", "none"] {
        let (reader, writer, stream) = journal();
        let options = [&file, &format!("log_time={stamp}")[..]];
        let text = lines_of_a_service(&dir, &options, (reader, writer), &stream);
        assert!(text.starts_with("<6>daemon started, pid="), "{text}");
        for line in [
            "<6>SIGHUP received, reloading config\n",
            "<3>config not reloaded, the old one stays: ",
            "<4>handler: /no/such/handler: ",
            "<6>daemon stopped, processed 0 total jobs\n",
        ] {
            assert!(text.contains(&format!("\n{line}")), "{line}: {text}");
        }
        let lines: Vec<_> = text.lines().map(|line| &line[3..]).collect();
        let own = dir.read("own.log");
        assert_eq!(own.lines().count(), lines.len(), "{own}");
        for (own, line) in own.lines().zip(lines) {
            let (head, text) = own.split_at(own.len() - line.len());
            assert_eq!(text, line);
            assert!(["[INFO] ", "[WARN] ", "[ERROR] "].iter().any(|tag| head.ends_with(tag)), "{own}");
            assert_eq!(head.matches('[').count(), if stamp == "none" { 1 } else { 2 }, "{own}");
        }
        fs::remove_file(dir.path("own.log")).unwrap();
    }
}

#[test]
fn another_stream_than_stderr_changes_nothing() {
    let dir = Dir::new();
    let (_reader, _writer, other) = journal();
    let own = |change: fn(&str) -> String| {
        let (reader, writer, stream) = journal();
        lines_of_a_service(&dir, &["log_time=none"], (reader, writer), &change(&stream))
    };
    let mut texts = HashSet::new();
    texts.insert(lines_of_a_service(&dir, &["log_time=none"], pipe().unwrap(), &other));
    for change in [
        |_: &str| String::new(),
        |stream: &str| format!("{stream}0"),
        |stream: &str| format!("1{stream}"),
        |stream: &str| format!("{stream}:"),
        |stream: &str| stream.replace(':', " "),
        |stream: &str| stream.split(':').rev().collect::<Vec<_>>().join(":"),
    ] {
        texts.insert(own(change));
    }
    for text in texts {
        assert!(text.starts_with("[INFO] daemon started, pid="), "{text}");
        assert!(text.contains("\n[ERROR] config not reloaded"), "{text}");
    }
}

#[test]
fn a_start_that_fails_says_so_with_the_priority_of_an_error() {
    let dir = Dir::new();
    dir.write("bad.conf", "what = 1\n");
    dir.write("file", "");
    let spool = format!("spool={}", dir.path("file").display());
    for options in [["-c", dir.path("bad.conf").to_str().unwrap()], ["-o", &spool]] {
        let (reader, writer, stream) = journal();
        let mut command = dir.command();
        command.args(options).arg("run").env("JOURNAL_STREAM", stream).stderr(writer);
        let mut running = Running::new(command);
        assert_ne!(running.code(), 0);
        drop(running);
        let text = read_all(reader);
        assert!(text.starts_with("<3>zigsvc: "), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[test]
fn a_service_that_starts_degraded_says_so_with_the_priority_of_a_warning() {
    let dir = Dir::new();
    fs::create_dir(dir.path("zigsvc.health")).unwrap();
    let (reader, writer, stream) = journal();
    let mut command = run_command(&dir, &[]);
    command.env("JOURNAL_STREAM", stream).stderr(writer);
    let mut running = Running::new(command);
    wait_until("it runs", || dir.path("zigsvc.sock").exists() && dir.zigsvc(&["list"]).code == 0);
    kill(running.pid(), "TERM");
    assert_eq!(running.code(), 0);
    let text = read_all(reader);
    assert!(text.starts_with("<4>zigsvc: the health file cannot be written: "), "{text}");
    assert!(text.contains("\n<3>the health file cannot be written: "), "{text}");
}

#[test]
fn a_journal_that_does_not_read_is_told_with_a_priority_what_it_misses() {
    let dir = Dir::new();
    let (reader, writer, stream) = journal();
    let mut command = run_command(&dir, &[QUICK]);
    command.env("JOURNAL_STREAM", stream).stderr(writer);
    let mut running = Running::new(command);
    wait_until_it_runs(&dir);
    // Five times what a pipe holds.
    dir.append("queue", &format!("{}\n", "x".repeat(1000)).repeat(400));
    wait_until("the queue was taken and lines are lost", || {
        let status = dir.zigsvc(&["status"]);
        !dir.path("queue").exists() && !status.out.contains(" 0 lines lost")
    });
    let before = seq(&dir);
    wait_until("the heart beats on", || seq(&dir) >= before + 3);
    let text = std::thread::spawn(move || read_all(reader));
    kill(running.pid(), "USR2");
    wait_for_beats(&dir, 3);
    kill(running.pid(), "TERM");
    assert_eq!(running.code(), 0);
    let text = text.join().unwrap();
    let is_prefixed = |line: &str| line.starts_with("<6>") || line.starts_with("<4>");
    assert!(text.lines().all(is_prefixed), "{text}");
    let lost = text.lines().filter_map(|line| line.strip_prefix("<4>")?.strip_suffix(" log lines lost"));
    assert!(lost.filter_map(|count| count.parse::<u64>().ok()).sum::<u64>() > 0, "{text}");
}
