//! Evidence of a hang: a service whose heartbeat is lost is not ended for it, and one that
//! hangs is, whatever keeps its heartbeat from being seen.

use crate::support::small_disk::{SmallDisk, has_namespaces};
use crate::support::supervisor::{LOG, Supervised, run_command};
use crate::support::{
    Running, alive, finish, kill, kill_hard, lock_holder, proc_status, require, require_native, require_root,
    require_tool, through, wait_until,
};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

/// Ends a service as soon as there is evidence.
const HASTY: [&str; 5] =
    ["log_max=0", "interval=250ms", "check_interval=200ms", "stale_after=1s", "failures=2"];

/// Returns `unshare WORDS... zigsvc -d DIR -o OPTION... COMMAND...`.
fn unshared(dir: &Supervised, words: &[&str], options: &[&str], command: &[&str]) -> Command {
    let mut inner = dir.command();
    for option in options {
        inner.args(["-o", option]);
    }
    inner.args(command);
    let mut outer = through(&[&["unshare"], words].concat(), &inner);
    outer.stdout(Stdio::null()).stderr(Stdio::null());
    outer
}

/// Returns true if `unshare WORDS... true` works here.
#[track_caller]
fn can_unshare(words: &[&str]) -> bool {
    let works = || {
        let mut command = crate::support::program("unshare");
        command.args(words).arg("true").stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    require_native("QEMU has no namespaces")
        && require_root()
        && require_tool("unshare")
        && require(works(), "this namespace cannot be made here")
}

/// Waits until the supervisor has looked many times since the state began.
#[track_caller]
fn let_it_look(dir: &Supervised) {
    let before = dir.beats();
    wait_until("it has looked many times", || dir.beats() >= before + 12);
}

#[test]
fn services_without_any_heartbeat_are_asked_and_see_nothing_of_it() {
    let Some(dir) = Supervised::of_services() else { return };
    let services = ["zigsvc.pid", "zigsvc-hub.pid", "zigsvc-opener.pid", "zigsvc-collector.pid"];
    let nowhere = format!("health_file={}/no/health", dir.as_arg());
    let more = ["supervise=jobs,hub,opener,collector", nowhere.as_str()];
    // Four services that are asked again and again.
    let supervisor = dir.start_supervisor(&[&HASTY[..], &more, &["failures=1"]].concat());
    let pids = services.map(|file| dir.lock_holder(file).unwrap());
    let mut client = UnixStream::connect(dir.path("zigsvc-hub.sock")).unwrap();
    for name in ["jobs", "hub", "opener", "collector"] {
        dir.wait_for(&format!("[WARN] {name}: heartbeat missing: {}/no/", dir.as_arg()));
    }
    let begun = std::time::Instant::now();
    wait_until("many looks were taken", || begun.elapsed().as_secs() >= 4);
    assert_eq!(services.map(|file| dir.lock_holder(file).unwrap()), pids);
    let line = dir.status(supervisor);
    assert!(line.contains(" restarts=0 ") && line.ends_with(" degraded=health,heartbeats"), "{line}");
    client.set_nonblocking(true).unwrap();
    let mut heard = [0; 64];
    assert!(client.read(&mut heard).is_err(), "no one joined or left");
    assert_eq!(dir.read("zigsvc-hub.log").matches(" joined").count(), 1, "{}", dir.read("zigsvc-hub.log"));
    assert!(!dir.read("zigsvc-opener.log").contains("DENIED"), "{}", dir.read("zigsvc-opener.log"));
    // One of them hangs.
    kill(pids[1], "STOP");
    dir.wait_for(&format!(
        "hub: check 1 of 1 failed: no heartbeat, and no answer of its socket; restarting it: SIGTERM to pid {}",
        pids[1]
    ));
    wait_until("another one runs", || dir.lock_holder("zigsvc-hub.pid").is_some_and(|pid| pid != pids[1]));
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(pids[0]));
}

#[test]
fn on_a_full_disk_a_service_that_was_killed_is_started_once() {
    if !require_native("QEMU writes to the disk itself") || !has_namespaces() {
        return;
    }
    let dir = Supervised::new();
    let disk = SmallDisk::new(&dir, "64k");
    let health = format!("health_file={}/disk/health", dir.as_arg());
    let options = [&HASTY[..], &[&health]].concat();
    let holder = disk.path(&dir, "").display().to_string().split('/').nth(2).unwrap().to_owned();
    let mut inner = dir.command();
    for option in &options {
        inner.args(["-o", option]);
    }
    inner.args(["start", "supervisor"]);
    let namespace = format!("--mount=/proc/{holder}/ns/mnt");
    finish(through(&["nsenter", &namespace], &inner), None).expect(0);
    let first = dir.jobs_after(0);
    disk.fill(&dir);
    kill_hard(first);
    let second = dir.jobs_after(first);
    dir.wait_for("jobs: heartbeat of other PID: ");
    let_it_look_at_status(&dir);
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(second));
    assert_eq!((dir.count("; restart 1 "), dir.count("; restart 2 ")), (1, 0), "{}", dir.read(LOG));
    dir.zigsvc(&["queue", "still here"]).expect(0);
    // A hang is one on a full disk, too.
    kill(second, "STOP");
    dir.wait_for("jobs: check 2 of 2 failed: no heartbeat, and no answer of its socket");
    let third = dir.jobs_after(second);
    // With room the state ends.
    fs::remove_file(disk.path(&dir, "filler")).unwrap();
    let supervisor = dir.pid();
    wait_until("it is judged again", || dir.status(supervisor).ends_with(" degraded=none"));
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(third));
    dir.zigsvc(&["stop", "supervisor"]).expect(0);
}

/// Waits for a while in which the supervisor looks many times, without its heartbeat.
#[track_caller]
fn let_it_look_at_status(dir: &Supervised) {
    let begun = std::time::Instant::now();
    let supervisor = dir.pid();
    wait_until("many looks were taken", || begun.elapsed().as_secs() >= 3);
    let line = dir.status(supervisor);
    assert!(line.contains("heartbeats"), "{line}");
}

#[test]
fn a_service_of_another_user_that_may_not_write_its_heartbeat_is_left_alone() {
    if !require_root() || !require_native("QEMU cannot execute itself as another user") {
        return;
    }
    let Some(dir) = Supervised::of_services() else { return };
    for folder in ["own", "run"] {
        fs::create_dir(dir.path(folder)).unwrap();
    }
    fs::set_permissions(dir.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(dir.path("own"), Some(65_534), Some(65_534)).unwrap();
    let d = dir.as_arg();
    let paths = [
        format!("health_file={d}/run/health"),
        format!("spool={d}/own/spool"),
        format!("queue_file={d}/own/queue"),
        format!("log_file={d}/own/log"),
        format!("socket={d}/own/sock"),
    ];
    let mut options = HASTY.to_vec();
    options.extend(paths.iter().map(String::as_str));
    options.push("user=65534");
    let supervisor = dir.start_supervisor(&options);
    let jobs = dir.lock_holder("zigsvc.pid").unwrap();
    let log = || dir.read("own/zigsvc-supervisor.log");
    wait_until("the heartbeat is lost", || log().contains("jobs: heartbeat missing: "));
    let begun = std::time::Instant::now();
    wait_until("many looks were taken", || begun.elapsed().as_secs() >= 3);
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(jobs), "{}", log());
    assert!(!log().contains("restart"), "{}", log());
    kill(jobs, "STOP");
    wait_until("it is ended", || log().contains("check 2 of 2 failed: no heartbeat"));
    dir.jobs_after(jobs);
    kill(supervisor, "TERM");
    wait_until("it has ended", || !alive(supervisor));
}

/// Covers a read-only /run, and files of other users and kinds in the place of the health file.
#[test]
fn a_health_file_that_cannot_be_replaced_ends_nothing() {
    if !can_unshare(&["-m"]) {
        return;
    }
    let cases = [
        ("mount --bind $1 $1 && mount -o remount,bind,ro $1", "0"),
        ("chmod 1777 $1 && : >$1/health && chown 54321 $1/health && chmod 600 $1/health", "65534"),
        ("mkdir -p $1/health/inside", "0"),
    ];
    for (prepare, user) in cases {
        let dir = Supervised::new();
        fs::set_permissions(dir.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        for folder in ["own", "place"] {
            fs::create_dir(dir.path(folder)).unwrap();
        }
        let user_id = user.parse().unwrap();
        std::os::unix::fs::chown(dir.path("own"), Some(user_id), Some(user_id)).unwrap();
        let d = dir.as_arg();
        let mut inner = dir.command();
        for option in HASTY {
            inner.args(["-o", option]);
        }
        for (key, path) in [
            ("health_file", "place/health"),
            ("spool", "own/spool"),
            ("queue_file", "own/queue"),
            ("log_file", "own/log"),
            ("socket", "own/sock"),
        ] {
            inner.args(["-o", &format!("{key}={d}/{path}")]);
        }
        if user_id > 0 {
            // Without it root refuses a file that another user made there.
            let trust = format!("trust={d}/place/health");
            inner.args(["-o", &format!("user={user}"), "-o", &trust]);
        }
        inner.args(["run", "supervisor"]);
        let script = format!("{prepare} && shift && exec \"$@\"");
        let place = dir.path("place").display().to_string();
        let mut command = through(&["unshare", "-m", "sh", "-c", &script, "sh", &place], &inner);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let _supervisor = Running::new(command);
        let jobs = dir.jobs_after(0);
        let log = || dir.read("own/zigsvc-supervisor.log");
        wait_until("the heartbeat is lost", || log().contains("; only its socket is checked"));
        let begun = std::time::Instant::now();
        wait_until("many looks were taken", || begun.elapsed().as_secs() >= 3);
        assert_eq!(dir.lock_holder("zigsvc.pid"), Some(jobs), "{prepare}: {}", log());
        assert!(!log().contains("restart"), "{prepare}: {}", log());
    }
}

#[test]
fn a_service_in_a_pid_namespace_of_its_own_is_adopted_and_ended_only_if_it_hangs() {
    if !can_unshare(&["-pf"]) {
        return;
    }
    let Some(dir) = Supervised::of_services() else { return };
    let _jobs = Running::new(unshared(&dir, &["-pf", "--kill-child"], &HASTY, &["run"]));
    wait_until("it runs", || dir.lock_holder("zigsvc.pid").is_some());
    let first = dir.lock_holder("zigsvc.pid").unwrap();
    let supervisor = dir.start_supervisor(&HASTY);
    dir.wait_for(&format!("jobs: runs already (pid {first}), adopted"));
    dir.wait_for("jobs: heartbeat of other PID: ");
    let_it_look(&dir);
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(first));
    assert!(dir.status(supervisor).ends_with(" degraded=heartbeats"));
    kill(first, "STOP");
    dir.wait_for(&format!("restarting it: SIGTERM to pid {first}"));
    let second = dir.jobs_after(first);
    dir.wait_for(&format!("jobs: running (pid {second})"));
    wait_until("it is judged again", || dir.status(supervisor).ends_with(" degraded=none"));
}

#[test]
fn a_service_outside_the_supervisors_pid_namespace_is_never_signalled() {
    if !can_unshare(&["-pf"]) {
        return;
    }
    let Some(dir) = Supervised::of_services() else { return };
    dir.write("device", "");
    let device = format!("watchdog={}", dir.path("device").display());
    let first = dir.start(&HASTY);
    let options = [&HASTY[..], &[&device, "watchdog_patience=1s"]].concat();
    let mut running =
        Running::new(unshared(&dir, &["-pf", "--kill-child"], &options, &["run", "supervisor"]));
    let supervisor = dir.pid();
    let log = || dir.read(LOG);
    let begun = std::time::Instant::now();
    wait_until("it has looked many times", || begun.elapsed().as_secs() >= 1 && dir.beats() > 12);
    kill(first, "STOP");
    let_it_look(&dir);
    kill(first, "CONT");
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(first));
    assert_eq!(log(), "", "it logs to stderr");
    // It sees the end by the lock, and starts another one.
    kill_hard(first);
    let second = dir.jobs_after(first);
    assert_eq!(proc_status(second, "NSpid").split_whitespace().count(), 2, "inside");
    kill(supervisor, "TERM");
    running.code();
    assert!(!alive(second));
}

#[test]
fn a_clock_of_another_time_namespace_proves_nothing() {
    for (offset, name) in [("100000", "ahead"), ("-1", "behind")] {
        let boottime = format!("--boottime={offset}");
        let words = ["-T", boottime.as_str(), "-f", "--kill-child"];
        if !can_unshare(&words) {
            return;
        }
        let Some(dir) = Supervised::of_services() else { return };
        // The offset -1 s makes each record stale.
        let options = [&HASTY[..], &["stale_after=900ms"]].concat();
        let _jobs = Running::new(unshared(&dir, &words, &options, &["run"]));
        wait_until("it runs", || dir.lock_holder("zigsvc.pid").is_some());
        let first = dir.lock_holder("zigsvc.pid").unwrap();
        let supervisor = dir.start_supervisor(&options);
        let_it_look(&dir);
        assert_eq!(dir.lock_holder("zigsvc.pid"), Some(first), "{name}");
        assert!(dir.status(supervisor).contains(" restarts=0 "), "{name}");
        kill(first, "STOP");
        dir.jobs_after(first);
    }
}

/// Checks that a health file of another service with the same folder is not the supervisor's
/// own: a disk that refuses the supervisor's own heartbeat ends no service.
#[test]
fn while_the_supervisor_cannot_write_its_heartbeat_a_stale_one_proves_nothing() {
    let Some(dir) = Supervised::of_services() else { return };
    let supervisor = dir.start_supervisor(&HASTY);
    let jobs = dir.jobs_after(0);
    // A folder in place of its own health file.
    wait_until("it cannot be written", || {
        let _ = fs::remove_file(dir.path("zigsvc-supervisor.health"));
        fs::create_dir(dir.path("zigsvc-supervisor.health")).is_ok()
    });
    wait_until("it knows", || dir.status(supervisor).ends_with(" degraded=health"));
    kill(jobs, "STOP");
    wait_until("it names what it cannot judge", || dir.status(supervisor).contains("heartbeats"));
    let begun = std::time::Instant::now();
    wait_until("many looks were taken", || begun.elapsed().as_secs() >= 4);
    assert_eq!((dir.count("SIGTERM to pid"), dir.count("jobs: check ")), (0, 0));
    assert!(dir.status(supervisor).contains("heartbeats"));
    fs::remove_dir(dir.path("zigsvc-supervisor.health")).unwrap();
    dir.wait_for("jobs: check 2 of 2 failed: heartbeat stale");
    dir.jobs_after(jobs);
}

/// Checks that `run_command` of a supervised program is not asked for a socket.
#[test]
fn a_program_on_a_full_disk_is_not_ended_for_its_health_file() {
    if !require_native("QEMU writes to the disk itself") || !has_namespaces() {
        return;
    }
    let dir = Supervised::new();
    let disk = SmallDisk::new(&dir, "64k");
    let holder = disk.path(&dir, "").display().to_string().split('/').nth(2).unwrap().to_owned();
    let alive_file = dir.path("disk/alive").display().to_string();
    let words = ["--health", &alive_file, "--", "sleep", "600"];
    let inner = run_command(&dir, &HASTY, &words);
    let namespace = format!("--mount=/proc/{holder}/ns/mnt");
    disk.fill(&dir);
    let mut outer = through(&["nsenter", &namespace], &inner);
    outer.stdout(Stdio::null()).stderr(Stdio::null());
    let _running = Running::new(outer);
    dir.wait_for("sleep: check 1 of 2 failed: heartbeat missing");
    let program = dir.program_after(0);
    let begun = std::time::Instant::now();
    wait_until("many looks were taken", || begun.elapsed().as_secs() >= 2);
    assert!(alive(program));
    fs::remove_file(disk.path(&dir, "filler")).unwrap();
    dir.wait_for("sleep: check 2 of 2 failed: heartbeat missing; restarting it");
    let _ = lock_holder;
}
