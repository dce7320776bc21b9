//! The hardware watchdog, with devices that are none: a FIFO whose reader sees
//! each byte, a file, a terminal.

use crate::support::supervisor::{LOG, QUICK, Supervised, run_command};
use crate::support::{Running, kill, kill_hard, process_state, program, wait_until};
use rustix::fs::{CWD, FileType, Mode};
use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// O_NONBLOCK of Linux, on all machines that we know.
const NONBLOCK: i32 = 0o4000;

/// A FIFO that stands for a watchdog device.
struct Device {
    reader: fs::File,
    seen: Vec<u8>,
}

impl Device {
    fn new(path: &Path) -> Self {
        make_fifo(path);
        Self {
            reader: fs::File::options().read(true).custom_flags(NONBLOCK).open(path).unwrap(),
            seen: Vec::new(),
        }
    }

    /// Forgets what it saw.
    fn reset(&mut self) {
        self.fed();
        self.seen.clear();
    }

    /// Returns how many times the device was fed, and whether a `V` at the end showed that
    /// it is not needed any more.
    fn fed(&mut self) -> (usize, bool) {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = self.reader.read(&mut bytes) {
            self.seen.extend_from_slice(&bytes[..count]);
        }
        assert!(self.seen.iter().rev().skip(1).all(|byte| *byte == 0), "{:?}", self.seen);
        (self.seen.iter().filter(|byte| **byte == 0).count(), self.seen.last() == Some(&b'V'))
    }
}

fn make_fifo(path: &Path) {
    rustix::fs::mknodat(CWD, path.to_str().unwrap(), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
}

/// Returns the options `watchdog=DIR/NAME`, and those that look often.
fn options(dir: &Supervised, name: &str) -> Vec<String> {
    let mut all: Vec<String> = QUICK.iter().map(|option| (*option).to_owned()).collect();
    all.push(format!("watchdog={}", dir.path(name).display()));
    all
}

/// Starts `run supervisor -- sleep` with that device.
#[track_caller]
fn run_sleep(dir: &Supervised, name: &str) -> Running {
    let options = options(dir, name);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    Running::new(run_command(dir, &options, &["--", "sleep", "600"]))
}

#[test]
fn it_is_fed_and_a_stop_disarms_it_but_a_kill_does_not() {
    let dir = Supervised::new();
    let mut device = Device::new(&dir.path("watchdog"));
    for (signal, disarmed) in [("KILL", false), ("QUIT", true), ("TERM", true)] {
        device.reset();
        let mut running = run_sleep(&dir, "watchdog");
        wait_until("it is fed", || device.fed().0 > 0);
        dir.wait_for("watchdog does not tell its timeout; it is fed each 5000 ms");
        kill(dir.pid(), signal);
        wait_until("it has ended", || !running.runs());
        assert_eq!(device.fed().1, disarmed, "{signal}");
    }
    // A FIFO takes the last byte, too, but cannot tell that it is disarmed. QEMU knows no such
    // request and answers ENOSYS, a kernel ENOTTY.
    let unknown = "[WARN] watchdog: still running (nowayout, or unknown): ioctl: E";
    assert_eq!((dir.count(unknown), dir.count("watchdog: disarmed")), (2, 0), "{}", dir.read(LOG));
}

#[test]
fn it_can_be_left_running_by_a_stop_so_that_a_shutdown_that_hangs_is_reset() {
    let dir = Supervised::new();
    let mut device = Device::new(&dir.path("watchdog"));
    for signal in ["QUIT", "TERM"] {
        device.reset();
        let mut options = options(&dir, "watchdog");
        options.extend(["watchdog_on_stop=keep", "watchdog_timeout=90s"].map(str::to_owned));
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let mut running = Running::new(run_command(&dir, &options, &["--", "sleep", "600"]));
        wait_until("it is fed", || device.fed().0 > 0);
        let before = device.fed().0;
        kill(dir.pid(), signal);
        wait_until("it has ended", || !running.runs());
        let (fed, disarmed) = device.fed();
        assert!(fed > before && !disarmed, "{signal}: fed for the last time");
    }
    assert_eq!(dir.count("[INFO] watchdog: left running, as watchdog_on_stop says"), 2);
    assert_eq!(dir.count("[WARN] watchdog: its timeout cannot be set to 90 s: ioctl: E"), 2);
}

#[test]
fn quit_of_a_supervisor_with_services_disarms_it_too() {
    let Some(dir) = Supervised::of_services() else { return };
    let mut device = Device::new(&dir.path("watchdog"));
    let options = options(&dir, "watchdog");
    let pid = dir.start_supervisor(&options.iter().map(String::as_str).collect::<Vec<_>>());
    wait_until("it is fed", || device.fed().0 > 0);
    kill(pid, "QUIT");
    wait_until("it is disarmed", || device.fed().1);
    assert!(dir.lock_holder("zigsvc.pid").is_some());
}

#[test]
fn it_starves_when_a_service_is_beyond_help_and_is_fed_again_when_it_is_well() {
    let Some(dir) = Supervised::of_services() else { return };
    let mut device = Device::new(&dir.path("watchdog"));
    let mut other = Device::new(&dir.path("other"));
    let config = |device: &str, more: &str| {
        dir.write("zigsvc.conf", format!("watchdog = \"{}\"\n{more}", dir.path(device).display()));
    };
    config("watchdog", "");
    // The service hangs, and no process ends it: it is only looked at.
    let started = Instant::now();
    let pid = dir.start_supervisor(&[QUICK, &["failures=100", "watchdog_patience=1s"]].concat());
    wait_until("it is fed", || device.fed().0 > 0);
    let jobs = dir.lock_holder("zigsvc.pid").unwrap();
    kill(jobs, "STOP");
    wait_until("it stands still", || process_state(jobs) == Some('T'));
    dir.write("zigsvc.health", "");
    let spoilt = started.elapsed();
    let line = "[ERROR] jobs: beyond help; the watchdog is not fed any more, so that the board resets";
    dir.wait_for(line);
    // Its second meal was due five seconds after the first.
    if spoilt < Duration::from_secs(3) {
        assert_eq!(device.fed().0, 1);
    }
    // Another device is opened, so that its countdown runs, and starves as well.
    config("other", "");
    kill(pid, "HUP");
    dir.wait_for_count(line, 2);
    wait_until("its countdown runs", || other.fed().0 == 1);
    kill(jobs, "CONT");
    dir.wait_for("[WARN] watchdog: all is well again, it is fed");
    wait_until("it is fed again", || other.fed().0 > 1);
    assert_eq!(dir.count(line), 2);
    // Its socket has answered, and its next heartbeat follows.
    let well = format!(" jobs=running:{jobs} degraded=none");
    wait_until("no state is left", || dir.status(pid).ends_with(&well));
    // One that dies again and again is beyond help as well.
    config("other", "workers = 9\n");
    kill_hard(jobs);
    dir.wait_for_count("jobs: beyond help", 3);
    let hungry = other.fed().0;
    config("other", "");
    dir.jobs_after(jobs);
    // It lives, but not yet for long enough to be trusted.
    assert_eq!(other.fed().0, hungry);
    assert_eq!(dir.count("all is well again"), 1);
    // A clean stop disarms it even so.
    dir.zigsvc(&["stop", "supervisor"]).expect(0);
    assert!(other.fed().1);
}

#[test]
fn one_that_cannot_be_opened_is_a_degraded_state_that_ends() {
    let dir = Supervised::new();
    let _running = run_sleep(&dir, "watchdog");
    let path = dir.path("watchdog").display().to_string();
    dir.wait_for(&format!("[ERROR] watchdog: {path}: openat: ENOENT"));
    dir.wait_for("; nothing resets the board if it hangs");
    let pid = dir.lock_holder("zigsvc-supervisor.pid").unwrap();
    assert!(dir.status(pid).ends_with(" degraded=watchdog"));
    // A FIFO without reader is busy, in its way; a new error is logged again.
    make_fifo(&dir.path("watchdog"));
    dir.wait_for(&format!("[ERROR] watchdog: {path}: openat: ENXIO"));
    fs::remove_file(&path).unwrap();
    let mut device = Device::new(&dir.path("watchdog"));
    dir.wait_for("[INFO] watchdog: it is fed again");
    assert!(dir.status(pid).ends_with(" degraded=none"));
    assert!(device.fed().0 > 0);
    assert_eq!(dir.count("ENOENT"), 1, "told once");
}

#[test]
fn one_that_fails_is_opened_anew_since_its_driver_may_come_back_as_another() {
    let dir = Supervised::new();
    let mut device = Device::new(&dir.path("watchdog"));
    let _running = run_sleep(&dir, "watchdog");
    wait_until("it is fed", || device.fed().0 > 0);
    drop(device);
    fs::remove_file(dir.path("watchdog")).unwrap();
    dir.wait_for(&format!("[ERROR] watchdog: {}: write: EPIPE", dir.path("watchdog").display()));
    let mut device = Device::new(&dir.path("watchdog"));
    dir.wait_for("[INFO] watchdog: it is fed again");
    assert!(device.fed().0 > 0);
}

#[test]
fn a_reload_moves_it() {
    let dir = Supervised::new();
    let mut device = Device::new(&dir.path("watchdog"));
    let config = |text: &str| dir.write("zigsvc.conf", format!("log_max = 0\n{text}"));
    config(&format!("watchdog = \"{}\"\n", dir.path("watchdog").display()));
    let _running = Running::new(run_command(&dir, &[], &["--", "sleep", "600"]));
    wait_until("it is fed", || device.fed().0 > 0);
    let pid = dir.lock_holder("zigsvc-supervisor.pid").unwrap();
    // A file keeps what is written to it.
    dir.write("other", "");
    config(&format!("watchdog = \"{}\"\n", dir.path("other").display()));
    kill(pid, "HUP");
    wait_until("the new one is fed", || dir.read("other") == "\0");
    assert!(device.fed().1, "the old one is disarmed");
    // Paths that cannot be a device, each named.
    fs::create_dir(dir.path("folder")).unwrap();
    let mut running_file = program(dir.copy_program("/bin/sleep", "sleep"));
    let _busy = Running::new({
        running_file.arg("600").stdout(Stdio::null());
        running_file
    });
    for (name, errno) in [("folder", "EISDIR"), ("sleep", "ETXTBSY"), ("other/x", "ENOTDIR")] {
        config(&format!("watchdog = \"{}\"\n", dir.path(name).display()));
        kill(pid, "HUP");
        dir.wait_for(&format!("{}: openat: {errno}", dir.path(name).display()));
        assert!(dir.status(pid).ends_with(" degraded=watchdog"), "{name}");
    }
    assert_eq!(dir.read("other"), "\0V", "disarmed");
    // None at all is not degraded.
    config("watchdog = \"\"\n");
    kill(pid, "HUP");
    dir.wait_for("config: watchdog changed from ");
    wait_until("no state is left", || dir.status(pid).ends_with(" degraded=none"));
}

#[test]
fn what_may_not_be_opened_is_named() {
    let file = "/sys/kernel/uevent_seqnum";
    if !crate::support::require(fs::exists(file).unwrap_or(false), "there is no sysfs here") {
        return;
    }
    let dir = Supervised::new();
    // sysfs refuses root too.
    let _running =
        Running::new(run_command(&dir, &["log_max=0", &format!("watchdog={file}")], &["--", "sleep", "600"]));
    dir.wait_for(&format!("[ERROR] watchdog: {file}: openat: E"));
    let log = dir.read("zigsvc-supervisor.log");
    assert!(log.contains(": EACCES") || log.contains(": EROFS"), "{log}");
}

#[test]
fn a_terminal_in_its_place_does_no_harm() {
    if !crate::support::require_tool("socat") {
        return;
    }
    let dir = Supervised::new();
    let mut socat = program("socat");
    socat.arg("-u").arg(format!("PTY,link={},raw,echo=0", dir.path("tty").display()));
    socat.arg(format!("OPEN:{},creat,append", dir.path("fed").display())).stderr(Stdio::null());
    let _socat = Running::new(socat);
    wait_until("the terminal is there", || dir.path("tty").exists());
    let mut running = run_sleep(&dir, "tty");
    wait_until("it is fed", || dir.read("fed") == "\0");
    dir.wait_for("tty does not tell its timeout; it is fed each 5000 ms");
    dir.zigsvc(&["stop", "supervisor"]).expect(0);
    assert_eq!(running.code(), 0);
    wait_until("it is disarmed", || dir.read("fed") == "\0V");
}
