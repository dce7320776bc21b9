//! PID files that are removed, replaced, hidden or refused, and the second lock of each service,
//! which stands in for a PID file that is lost.

use super::process::require_strace;
use crate::support::control::NOBODY;
use crate::support::small_disk::{SmallDisk, has_namespaces};
use crate::support::{
    Dir, Ran, Running, alive, finish, kill, kill_hard, lock_holder, log_lines_matching, program,
    require_root, require_self_exec, require_tool, wait_until,
};
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use zigsvc::proto::service::Service;
use zigsvc::state::identity::push_lock_address;
use zigsvc::util::text::Writer;

const SERVICES: [&str; 5] = ["jobs", "hub", "opener", "collector", "supervisor"];

/// Checks its paths a few times a second.
const QUICK: &[&str] = &["interval=250ms", "supervise=[\"hub\"]", "log_max=0"];

/// Does not check its paths while the test lasts.
const BLIND: &[&str] = &["interval=1h", "stale_after=10h", "supervise=[\"hub\"]", "log_max=0"];

/// Returns the name of a file of `service`.
fn file(service: &str, suffix: &str) -> String {
    if service == "jobs" { format!("zigsvc.{suffix}") } else { format!("zigsvc-{service}.{suffix}") }
}

/// Returns the services that can run here, each with its name.
fn services() -> impl Iterator<Item = &'static str> {
    SERVICES.into_iter().filter(|service| *service != "supervisor" || require_self_exec())
}

/// Returns the states in `degraded` of `status --json`, which must exit with 0.
#[track_caller]
fn degraded(dir: &Dir, service: &str) -> Vec<String> {
    let ran = dir.zigsvc(&["status", "--json", service]).expect(0);
    let value: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let states = value["degraded"].as_array().cloned().unwrap_or_default();
    states.iter().map(|state| state.as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn stop(dir: &Dir, service: &str, pid: u32) {
    let ran = dir.zigsvc(&["stop", service]).expect(0);
    assert_eq!(ran.out, format!("zigsvc: {service} stopped\n"), "{ran:?}");
    wait_until("it is gone", || !alive(pid));
    if service == "supervisor" {
        dir.zigsvc(&["stop", "hub"]).expect(0);
    }
}

fn refused(ran: &Ran, pid: u32) {
    assert_eq!(ran.err, format!("zigsvc: another instance is already running (pid {pid})\n"));
}

#[test]
fn a_pid_file_that_is_removed_or_replaced_is_made_again() {
    for service in services() {
        let dir = Dir::new();
        let pid = dir.start_service(service, QUICK);
        let (name, log) = (file(service, "pid"), file(service, "log"));
        let lost = "[WARN] the PID file was lost, and is made again: ";
        for (number, replacement) in [None, Some("77\n"), Some("")].into_iter().enumerate() {
            match replacement {
                None => fs::remove_file(dir.path(&name)).unwrap(),
                Some(content) => {
                    dir.write("other", content);
                    fs::rename(dir.path("other"), dir.path(&name)).unwrap();
                }
            }
            wait_until("it is made again", || dir.lock_holder(&name) == Some(pid));
            assert_eq!(dir.read(&name), format!("{pid}\n"));
            assert_eq!(degraded(&dir, service), [""; 0]);
            wait_until("it is logged", || log_lines_matching(&dir.read(&log), lost) == number + 1);
        }
        let left: Vec<_> =
            fs::read_dir(dir.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!left.iter().any(|name| name.to_str().unwrap().contains(".new")), "{left:?}");
        refused(&dir.zigsvc(&["start", service]).expect(1), pid);
        stop(&dir, service, pid);
        assert!(!dir.path(&name).exists());
        dir.zigsvc(&["status", service]).expect(3);
    }
}

/// How a PID file is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Loss {
    Removed,
    Replaced,
    /// By a folder, in whose place the file cannot be made again.
    Blocked,
}

#[test]
fn while_its_pid_file_is_lost_a_service_is_found_by_its_second_lock() {
    for service in services() {
        for loss in [Loss::Removed, Loss::Replaced, Loss::Blocked] {
            let dir = Dir::new();
            let pid = dir.start_service(service, BLIND);
            let (name, log) = (file(service, "pid"), file(service, "log"));
            fs::remove_file(dir.path(&name)).unwrap();
            match loss {
                Loss::Removed => {}
                Loss::Replaced => dir.write(&name, "77\n"),
                Loss::Blocked => fs::create_dir(dir.path(&name)).unwrap(),
            }
            let ran = dir.zigsvc(&["status", service]).expect(0);
            assert!(ran.out.starts_with(&format!("{service}: running (pid {pid})")), "{ran:?}");
            assert!(ran.out.ends_with("  degraded   pid-file\n"), "{ran:?}");
            // The look at an abstract socket wakes the service, which then mends what it can.
            if loss == Loss::Blocked || service == "jobs" {
                assert_eq!(degraded(&dir, service), ["pid-file"]);
                let ran = dir.zigsvc(&["status", "--prometheus", service]).expect(0);
                let metric = format!("zigsvc_degraded{{service=\"{service}\",state=\"pid-file\"}} 1\n");
                assert!(ran.out.contains(&metric), "{ran:?}");
            }
            refused(&dir.zigsvc(&["start", service]).expect(1), pid);
            refused(&dir.zigsvc(&["run", service]).expect(1), pid);
            dir.zigsvc(&["reload", service]).expect(0);
            wait_until("it reloads", || dir.read(&log).contains("SIGHUP received"));
            dir.zigsvc(&["rotate", service]).expect(0);
            wait_until("it rotates", || dir.path(&format!("{log}.1")).exists());
            stop(&dir, service, pid);
            dir.zigsvc(&["status", service]).expect(3);
            assert_eq!(dir.read(&name), "");
        }
    }
}

#[test]
fn a_restart_finds_a_service_whose_pid_file_is_lost() {
    for service in ["jobs", "collector"] {
        let dir = Dir::new();
        let pid = dir.start_service(service, BLIND);
        fs::remove_file(dir.path(&file(service, "pid"))).unwrap();
        dir.zigsvc(&["restart", service]).expect(0);
        let next = dir.lock_holder(&file(service, "pid"));
        assert!(next.is_some_and(|next| next != pid) && !alive(pid), "{next:?}");
    }
}

#[test]
fn the_supervisor_of_a_program_checks_its_pid_file_when_it_wakes() {
    let dir = Dir::new();
    let start = |words: &[&str]| dir.zigsvc(&[&["-o", "log_max=0"], words, &["--", "sleep", "600"]].concat());
    start(&["start", "supervisor"]).expect(0);
    let name = "zigsvc-supervisor.pid";
    let pid = dir.lock_holder(name).unwrap();
    fs::remove_file(dir.path(name)).unwrap();
    refused(&start(&["start", "supervisor"]).expect(1), pid);
    refused(&start(&["run", "supervisor"]).expect(1), pid);
    wait_until("it is made again", || dir.lock_holder(name) == Some(pid));
    fs::remove_file(dir.path(name)).unwrap();
    // The look of `status` wakes the supervisor, which may be faster.
    let seen = degraded(&dir, "supervisor");
    assert!(seen.is_empty() || seen == ["pid-file"], "{seen:?}");
    wait_until("it is made again", || dir.lock_holder(name) == Some(pid));
    // A signal wakes it too.
    fs::remove_file(dir.path(name)).unwrap();
    kill(pid, "USR1");
    wait_until("it is made again", || dir.lock_holder(name) == Some(pid));
    fs::remove_file(dir.path(name)).unwrap();
    let ran = dir.zigsvc(&["stop", "supervisor"]).expect(0);
    assert_eq!(ran.out, "zigsvc: supervisor stopped\n");
    wait_until("it is gone", || !alive(pid));
}

#[test]
fn after_a_kill_without_its_pid_file_a_service_starts_again() {
    for service in services() {
        let dir = Dir::new();
        let pid = dir.start_service(service, BLIND);
        fs::remove_file(dir.path(&file(service, "pid"))).unwrap();
        kill_hard(pid);
        let next = dir.start_service(service, BLIND);
        assert_ne!(pid, next);
        stop(&dir, service, next);
    }
}

#[test]
fn what_is_no_free_pid_file_is_left_alone_and_is_a_degraded_state() {
    let (dir, other) = (Dir::new(), Dir::new());
    for service in ["jobs", "hub"] {
        let pid = dir.start_service(service, QUICK);
        let (name, log) = (file(service, "pid"), file(service, "log"));
        let owner = other.start_service(service, BLIND);
        let begin = "[ERROR] the PID file is gone, and cannot be made again: ";
        type Case<'a> = (&'a str, &'a dyn Fn(), &'a dyn Fn());
        let cases: [Case<'_>; 4] = [
            ("fcntl: EBUSY (in use)", &|| fs::rename(other.path(&name), dir.path(&name)).unwrap(), &|| {
                fs::rename(dir.path(&name), other.path(&name)).unwrap()
            }),
            (
                "renameat2: EEXIST (already exists)",
                &|| {
                    fs::remove_file(dir.path(&name)).unwrap();
                    fs::create_dir(dir.path(&name)).unwrap();
                },
                &|| fs::remove_dir(dir.path(&name)).unwrap(),
            ),
            (
                "openat: ELOOP (is a symbolic link)",
                &|| {
                    fs::remove_file(dir.path(&name)).unwrap();
                    std::os::unix::fs::symlink("/dev/null", dir.path(&name)).unwrap();
                },
                &|| fs::remove_file(dir.path(&name)).unwrap(),
            ),
            (
                "openat: ENOENT (no such file or directory)",
                &|| fs::rename(dir.path(""), format!("{}-moved", dir.as_arg())).unwrap(),
                &|| fs::rename(format!("{}-moved", dir.as_arg()), dir.path("")).unwrap(),
            ),
        ];
        for (number, (reason, take, give)) in cases.into_iter().enumerate() {
            let moved = reason.contains("ENOENT");
            let read = |name: &str| match moved {
                false => dir.read(name),
                true => fs::read_to_string(format!("{}-moved/{name}", dir.as_arg())).unwrap_or_default(),
            };
            take();
            if moved {
                // The service wakes for its heartbeat only, and finds that its folder is gone.
                kill(pid, "USR2");
            } else {
                wait_until(reason, || log_lines_matching(&read(&log), begin) == number + 1);
                let last = read(&log).lines().rfind(|line| line.contains(begin)).unwrap().to_owned();
                assert!(last.ends_with(&format!("/{name}: {reason}")), "{last}");
                kill(pid, "USR2");
                wait_until("the state has it", || read(&log).contains("pid-file"));
            }
            give();
            if !moved {
                wait_until("the state ends", || {
                    log_lines_matching(&read(&log), "[INFO] the PID file is there again") == number + 1
                });
            }
            wait_until("it is made again", || dir.lock_holder(&name) == Some(pid));
        }
        assert_eq!(other.lock_holder(&name), Some(owner), "the other one keeps its lock");
        // The log was in the folder that was moved.
        wait_until("all states end", || degraded(&dir, service).is_empty());
        stop(&dir, service, pid);
        stop(&other, service, owner);
    }
}

/// A mount namespace, in which commands run until it is dropped.
struct Namespace(Running);

impl Namespace {
    fn new() -> Self {
        let mut command = program("unshare");
        command.args(["-m", "sh", "-c", "echo ready && exec cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = Running::new(command);
        let mut answer = [0; 6];
        holder.0.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
        Self(holder)
    }

    #[track_caller]
    fn run(&self, inner: &std::process::Command) -> Ran {
        let words = ["nsenter", &format!("--mount=/proc/{}/ns/mnt", self.0.pid())];
        finish(crate::support::through(&words, inner), None)
    }

    fn path(&self, path: &std::path::Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.0.pid(), path.display()))
    }
}

#[test]
fn a_pid_file_that_a_mount_hides_is_made_again_there_and_below() {
    if !has_namespaces() {
        return;
    }
    for service in ["jobs", "hub", "opener"] {
        let dir = Dir::new();
        let inside = Namespace::new();
        fs::create_dir(dir.path("run")).unwrap();
        let pid_option = format!("pid_file={}", dir.path("run/zigsvc.pid").display());
        let command = |words: &[&str]| {
            let mut command = dir.command();
            command.args(["-o", &pid_option, "-o", "interval=250ms"]).args(words).arg(service);
            command
        };
        inside.run(&command(&["start"])).expect(0);
        let name = dir.path("run").join(file(service, "pid"));
        let pid = lock_holder(&name).unwrap();
        let mut mount = program("mount");
        mount.args(["-t", "tmpfs", "none"]).arg(dir.path("run"));
        inside.run(&mount).expect(0);
        inside.run(&command(&["status"])).expect(0);
        refused(&inside.run(&command(&["start"])).expect(1), pid);
        wait_until("it is made again", || lock_holder(&inside.path(&name)) == Some(pid));
        inside.run(&command(&["status"])).expect(0);
        let mut unmount = program("umount");
        // The service has its PID file open there.
        unmount.arg("-l").arg(dir.path("run"));
        inside.run(&unmount).expect(0);
        inside.run(&command(&["status"])).expect(0);
        wait_until("it replaces its old file", || lock_holder(&name) == Some(pid));
        inside.run(&command(&["stop"])).expect(0);
        assert!(!alive(pid) && !name.exists());
    }
}

#[test]
fn with_dropped_privileges_the_state_lasts_until_a_restart() {
    if !require_root() {
        return;
    }
    for service in ["jobs", "hub"] {
        let dir = Dir::new();
        std::os::unix::fs::chown(dir.path(""), Some(NOBODY), Some(NOBODY)).unwrap();
        fs::create_dir(dir.path("run")).unwrap();
        let options = [
            format!("pid_file={}", dir.path("run/zigsvc.pid").display()),
            format!("user={NOBODY}"),
            format!("group={NOBODY}"),
            "interval=250ms".to_owned(),
        ];
        let words = |words: &[&str]| {
            let options = options.iter().flat_map(|option| ["-o", option]);
            dir.zigsvc(&options.chain(words.iter().copied()).chain([service]).collect::<Vec<_>>())
        };
        words(&["start"]).expect(0);
        let name = dir.path("run").join(file(service, "pid"));
        let pid = lock_holder(&name).unwrap();
        fs::remove_file(&name).unwrap();
        let log = file(service, "log");
        let event = format!("cannot be made again: {}: openat: EACCES (permission denied)", name.display());
        wait_until("the state is logged", || dir.read(&log).contains(&event));
        let ran = words(&["status"]).expect(0);
        assert!(ran.out.contains("pid-file"), "{ran:?}");
        refused(&words(&["start"]).expect(1), pid);
        words(&["restart"]).expect(0);
        assert!(!alive(pid));
        let ran = words(&["status"]).expect(0);
        assert!(!ran.out.contains("pid-file"), "{ran:?}");
        let next = lock_holder(&name).unwrap();
        fs::remove_file(&name).unwrap();
        words(&["stop"]).expect(0);
        assert!(!alive(next));
        assert_eq!(log_lines_matching(&dir.read(&log), &event), 1);
    }
}

/// Returns the address of the second lock of `service`, for socat.
fn lock_address(dir: &Dir, service: Service, uid: u32) -> String {
    let mut buffer = [0; 107];
    let mut out = Writer::new(&mut buffer);
    let path = dir.path(&file(service.name(), "pid"));
    push_lock_address(service, uid, path.as_os_str().as_encoded_bytes(), &mut out);
    String::from_utf8(out.as_bytes()[1..].to_vec()).unwrap()
}

#[test]
fn a_stranger_that_takes_the_second_lock_is_named_and_neither_obeyed_nor_signalled() {
    if !require_root() || !require_tool("socat") || !require_tool("setpriv") {
        return;
    }
    let dir = Dir::new();
    let address = lock_address(&dir, Service::Hub, 0);
    let mut squatter = program("setpriv");
    squatter.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "socat", "-u"]);
    squatter.args([&format!("ABSTRACT-LISTEN:{address},fork"), "OPEN:/dev/null"]);
    let mut squatter = Running::new(squatter);
    let held = format!(
        "zigsvc: {}: its second lock is held by pid {}, uid 65534\n",
        dir.path("zigsvc-hub.pid").display(),
        squatter.pid()
    );
    wait_until("it listens", || {
        fs::read_to_string("/proc/net/unix").unwrap().contains(&format!("@{address}"))
    });
    assert_eq!(dir.zigsvc(&["stop", "hub"]).expect(1).err, held);
    assert_eq!(dir.zigsvc(&["reload", "hub"]).expect(1).err, held);
    dir.zigsvc(&["status", "hub"]).expect(3);
    let ran = dir.zigsvc(&["start", "hub"]).expect(0);
    assert_eq!(ran.err, held, "it is only warned about");
    let pid = dir.lock_holder("zigsvc-hub.pid").unwrap();
    dir.zigsvc(&["status", "hub"]).expect(0);
    dir.zigsvc(&["restart", "hub"]).expect(0);
    assert!(!alive(pid));
    dir.zigsvc(&["stop", "hub"]).expect(0);
    assert!(squatter.runs());
}

#[test]
fn a_second_lock_that_a_stranger_held_at_the_start_is_taken_as_soon_as_it_is_free() {
    if !require_root() || !require_tool("socat") || !require_tool("setpriv") {
        return;
    }
    for service in services().filter(|service| *service != "jobs") {
        for user in [None, Some("user=65534")] {
            let dir = Dir::new();
            if user.is_some() && matches!(service, "opener" | "supervisor") {
                continue;
            }
            let kind = *Service::ALL.iter().find(|kind| kind.name() == service).unwrap();
            let address = lock_address(&dir, kind, 0);
            let mut squatter = program("setpriv");
            squatter.args(["--reuid", "65533", "--regid", "65533", "--clear-groups", "socat", "-u"]);
            squatter.args([&format!("ABSTRACT-LISTEN:{address},fork"), "OPEN:/dev/null"]);
            let squatter = Running::new(squatter);
            wait_until("it listens", || {
                fs::read_to_string("/proc/net/unix").unwrap().contains(&format!("@{address}"))
            });
            if user.is_some() {
                std::os::unix::fs::chown(dir.path(""), Some(65534), Some(65534)).unwrap();
            }
            let options: Vec<&str> = QUICK.iter().copied().chain(user).collect();
            let pid = dir.start_service(service, &options);
            drop(squatter);
            let log = file(service, "log");
            wait_until("it is taken", || dir.read(&log).contains("the second lock is free again"));
            // It is the lock of this service, by which a lost PID file is survived.
            fs::remove_file(dir.path(&file(service, "pid"))).unwrap();
            fs::create_dir(dir.path(&file(service, "pid"))).unwrap();
            let words: Vec<&str> = user.into_iter().flat_map(|user| ["-o", user]).collect();
            refused(&dir.zigsvc(&[&words[..], &["start", service]].concat()).expect(1), pid);
            dir.zigsvc(&[&words[..], &["stop", service]].concat()).expect(0);
            wait_until("it is gone", || !alive(pid));
            if service == "supervisor" {
                dir.zigsvc(&["stop", "hub"]).expect(0);
            }
        }
    }
}

#[test]
fn the_second_lock_is_found_after_any_number_of_looks() {
    let dir = Dir::new();
    let pid = dir.start_service("hub", QUICK);
    // The name of the file leads to a folder, so that the service cannot make the file again.
    fs::remove_file(dir.path("zigsvc-hub.pid")).unwrap();
    fs::create_dir(dir.path("zigsvc-hub.pid")).unwrap();
    for _ in 0..150 {
        dir.zigsvc(&["status", "hub"]).expect(0);
    }
    dir.zigsvc(&["stop", "hub"]).expect(0);
    assert!(!alive(pid));
}

#[test]
fn a_second_service_with_the_same_spool_is_refused_and_is_another_service() {
    let dir = Dir::new();
    let pid = dir.start(BLIND);
    let option = format!("pid_file={}", dir.path("other.pid").display());
    refused(&dir.zigsvc(&["-o", &option, "start"]).expect(1), pid);
    dir.zigsvc(&["-o", &option, "status"]).expect(3);
    let ran = dir.zigsvc(&["-o", &option, "stop"]).expect(0);
    assert_eq!(ran.out, "zigsvc: jobs was not running\n");
    assert!(alive(pid) && !dir.path("other.pid").exists());
    dir.zigsvc(&["status"]).expect(0);
}

#[test]
fn a_socket_on_which_another_process_listens_is_never_taken() {
    let dir = Dir::new();
    let listener = std::os::unix::net::UnixListener::bind(dir.path("zigsvc-hub.sock")).unwrap();
    let ran = dir.zigsvc(&["start", "hub"]).expect(1);
    assert!(ran.err.contains("zigsvc-hub.sock: bind: EADDRINUSE"), "{ran:?}");
    assert!(!dir.path("zigsvc-hub.pid").exists());
    drop(listener);
    let pid = dir.start_service("hub", QUICK);
    fs::remove_file(dir.path("zigsvc-hub.sock")).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(dir.path("taken")).unwrap();
    fs::rename(dir.path("taken"), dir.path("zigsvc-hub.sock")).unwrap();
    wait_until("it is logged", || dir.read("zigsvc-hub.log").contains("bind: EADDRINUSE"));
    stop(&dir, "hub", pid);
    assert!(dir.path("zigsvc-hub.sock").exists());
}

#[test]
fn a_full_disk_refuses_the_number_and_the_socket_but_no_start() {
    if !has_namespaces() {
        return;
    }
    for service in ["jobs", "hub", "opener"] {
        let dir = Dir::new();
        let disk = SmallDisk::new(&dir, "64k,nr_inodes=64");
        disk.fill(&dir);
        let pid_path = format!("pid_file={}", dir.path("disk/zigsvc.pid").display());
        let spool = format!("spool={}", dir.path("spool").display());
        let queue = format!("queue_file={}", dir.path("queue").display());
        let socket = format!("socket={}", dir.path("zigsvc.sock").display());
        let options =
            [&pid_path[..], &socket, &spool, &queue, "interval=250ms", "stale_after=15s"].map(str::to_owned);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let pid = disk.start_service(&dir, service, &options);
        let (name, log) = (file(service, "pid"), file(service, "log"));
        let path = disk.path(&dir, &name);
        assert_eq!((lock_holder(&path), fs::read(&path).unwrap().len()), (Some(pid), 0));
        let begin =
            format!("[ERROR] the PID file cannot be written: {}/disk/{name}: pwrite: ENOSPC", dir.as_arg());
        wait_until("it is logged", || logs_of(&dir, &disk, &log).contains(&begin));
        fs::remove_file(disk.path(&dir, "filler")).unwrap();
        wait_until("it is written", || fs::read_to_string(&path).unwrap() == format!("{pid}\n"));
        wait_until("that is logged", || {
            logs_of(&dir, &disk, &log).contains("[INFO] the PID file is there again")
        });
        kill(pid, "TERM");
        wait_until("it is gone", || !alive(pid));
    }
}

/// Returns the log, which is beside the PID file or in the folder of the test.
fn logs_of(dir: &Dir, disk: &SmallDisk, log: &str) -> String {
    let beside = fs::read_to_string(disk.path(dir, log)).unwrap_or_default();
    beside + &dir.read(log)
}

#[test]
fn a_socket_without_room_is_a_state_that_ends() {
    if !has_namespaces() {
        return;
    }
    for service in ["jobs", "hub", "opener"] {
        let dir = Dir::new();
        // One inode is that of the disk itself, and one is taken here.
        let disk = SmallDisk::new(&dir, "64k,nr_inodes=2");
        fs::write(disk.path(&dir, "filler"), "").unwrap();
        let socket = format!("socket={}", dir.path("disk/zigsvc.sock").display());
        let spool = format!("spool={}", dir.path("spool").display());
        let queue = format!("queue_file={}", dir.path("queue").display());
        let pid = disk.start_service(&dir, service, &[&socket, &spool, &queue, "interval=250ms"]);
        let (name, log) = (file(service, "sock"), file(service, "log"));
        let begin = "socket is gone, and cannot be made again: ";
        wait_until("it is logged", || dir.read(&log).contains(begin));
        assert!(dir.read(&log).contains("bind: ENOSPC"), "{}", dir.read(&log));
        // Its heart beats: a supervisor must not take it for a service that hangs.
        let health = file(service, "health");
        let before = dir.read(&health);
        wait_until("its heart beats", || dir.read(&health) != before);
        fs::remove_file(disk.path(&dir, "filler")).unwrap();
        wait_until("it is made", || disk.path(&dir, &name).exists());
        wait_until("that is logged", || dir.read(&log).contains("socket is there again"));
        assert!(!dir.read(&log).contains("no worker could be started"), "{}", dir.read(&log));
        if service == "opener" {
            wait_until("it has a worker", || crate::support::opener::children(pid).len() == 1);
            let before = dir.read(&health);
            wait_until("its heart beats", || dir.read(&health) != before);
        }
        stop(&dir, service, pid);
    }
}

#[test]
fn a_filesystem_that_refuses_a_socket_gets_a_hint() {
    if !require_strace() {
        return;
    }
    for (service, error) in [("jobs", "EIO"), ("hub", "EIO"), ("opener", "EPERM"), ("jobs", "EOPNOTSUPP")] {
        let dir = Dir::new();
        let mut inner = dir.command();
        inner.args(["start", service]);
        let inject = format!("inject=bind:error={error}");
        let words = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=bind", "-e", &inject];
        let ran = finish(crate::support::through(&words, &inner), None);
        let code = if error == "EPERM" { 4 } else { 1 };
        let hint = "; if that filesystem has no sockets, set `socket` to a path on another one\n";
        assert!(ran.code == code && ran.err.ends_with(hint), "{ran:?}");
        assert!(ran.err.contains(&format!(": bind: {error}")), "{ran:?}");
    }
}

#[test]
fn starts_and_stops_while_the_pid_file_vanishes_leave_one_service_at_most() {
    let dir = Dir::new();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let _ = fs::remove_file(dir.path("zigsvc-hub.pid"));
                std::thread::sleep(std::time::Duration::from_millis(3));
            }
        });
        for round in 0..12 {
            let starts: Vec<_> = (0..2)
                .map(|_| {
                    let mut command = dir.command();
                    command.args(["-o", "interval=250ms", "start", "hub"]);
                    scope.spawn(move || finish(command, None))
                })
                .collect();
            let codes: Vec<_> = starts.into_iter().map(|start| start.join().unwrap().code).collect();
            assert!(codes.contains(&0) && codes.iter().sum::<i32>() == 1, "round {round}: {codes:?}");
            dir.zigsvc(&["status", "hub"]).expect(0);
            let ran = dir.zigsvc(&["stop", "hub"]).expect(0);
            assert_eq!(ran.out, "zigsvc: hub stopped\n");
        }
        ended.store(true, Ordering::Relaxed);
    });
    let log = dir.read("zigsvc-hub.log");
    assert_eq!(log_lines_matching(&log, "daemon started"), 12);
    assert_eq!(log_lines_matching(&log, "daemon stopped"), 12);
    dir.zigsvc(&["status", "hub"]).expect(3);
}
