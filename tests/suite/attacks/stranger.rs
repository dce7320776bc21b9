//! A local user without any rights, who may read files that all users may read, connect
//! where all users may connect, and take names that are free.

use crate::support::control::{Client, NOBODY, as_user, require_users};
use crate::support::{Dir, kill, kill_hard, log_lines_matching, wait_until};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, fcntl_lock};
use std::io::Read;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

/// Read-locks a PID file, which each user that may read it can do. The lock belongs to this
/// process, and goes when any thread of it closes the file.
#[track_caller]
fn read_lock(dir: &Dir, name: &str) -> OwnedFd {
    let path = dir.path(name);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o044, 0o044, "the attack needs a file that everybody may read");
    let fd =
        rustix::fs::openat(CWD, path.as_os_str().as_bytes(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .unwrap();
    // A killed process is a zombie before its last thread lets go of the lock, and QEMU has
    // more than one thread.
    wait_until("it is locked", || fcntl_lock(&fd, FlockOperation::NonBlockingLockShared).is_ok());
    fd
}

#[test]
fn a_read_lock_of_the_pid_file_neither_keeps_a_service_from_starting_nor_gets_a_signal() {
    let dir = Dir::new();
    let first = dir.start(&[]);
    kill_hard(first);
    let lock = read_lock(&dir, "zigsvc.pid");
    let status = dir.zigsvc(&["status"]).expect(1);
    assert!(status.out.starts_with("jobs: dead"), "{status:?}");
    let second = dir.start(&[]);
    assert_eq!(dir.read("zigsvc.pid"), format!("{second}\n"));
    let refused = dir.zigsvc(&["start"]).expect(1);
    assert!(refused.err.contains(&format!("already running (pid {second})")), "{refused:?}");
    dir.zigsvc(&["stop"]).expect(0);
    drop(lock);
    let left: Vec<_> =
        std::fs::read_dir(dir.path("")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("pid")), "{left:?}");
}

#[test]
fn a_stop_of_a_dead_service_signals_nobody_who_read_locks_its_pid_file() {
    let dir = Dir::new();
    kill_hard(dir.start(&[]));
    let _lock = read_lock(&dir, "zigsvc.pid");
    // The status comes before `stop`, because a process that `stop` signalled by mistake
    // would be this one.
    dir.zigsvc(&["status"]).expect(1);
    let stopped = dir.zigsvc(&["stop"]).expect(0);
    assert!(stopped.out.contains("was not running"), "{stopped:?}");
    dir.zigsvc(&["status"]).expect(3);
}

#[test]
fn of_many_starts_against_a_read_lock_exactly_one_wins() {
    let dir = Dir::new();
    kill_hard(dir.start_service("hub", &[]));
    let _lock = read_lock(&dir, "zigsvc-hub.pid");
    dir.zigsvc(&["status", "hub"]).expect(1);
    let starts: Vec<_> = (0..8)
        .map(|_| {
            let mut command = dir.command();
            command
                .args(["start", "hub"])
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let codes: Vec<_> = starts.into_iter().map(crate::support::outcome).collect();
    assert_eq!(codes.iter().filter(|ran| ran.code == 0).count(), 1, "{codes:?}");
    dir.zigsvc(&["stop", "hub"]).expect(0);
}

#[test]
fn a_supervisor_takes_nobody_for_its_service_who_read_locks_the_pid_file() {
    if !crate::support::require_self_exec() {
        return;
    }
    let dir = Dir::new();
    kill_hard(dir.start(&[]));
    let _lock = read_lock(&dir, "zigsvc.pid");
    dir.zigsvc(&["status"]).expect(1);
    dir.start_service("supervisor", &[]);
    let log = dir.read("zigsvc-supervisor.log");
    assert!(!log.contains(&format!("pid {}", std::process::id())), "{log}");
    wait_until("jobs runs", || dir.zigsvc(&["status"]).code == 0);
    dir.zigsvc(&["stop", "supervisor"]).expect(0);
}

#[test]
fn who_took_the_name_of_the_collector_gets_no_metrics() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    let name = format!("attack-{}-squatted", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    // `as_user` hands a stream out, so the listener goes another way.
    let (sender, receiver) = std::sync::mpsc::channel();
    let _ = as_user(NOBODY, NOBODY, &[], move || {
        sender.send(UnixListener::bind_addr(&address).unwrap()).unwrap();
        Err(std::io::ErrorKind::Other.into())
    });
    let squatter = receiver.recv().unwrap();
    let option = format!("metrics_name={name}");
    let ran = dir.zigsvc(&["-o", &option, "metric", "cpu", "1"]).expect(1);
    assert!(ran.err.contains("EADDRINUSE (somebody else listens there)"), "{ran:?}");
    let (mut stream, _) = squatter.accept().unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    assert!(got.is_empty(), "{:?}", String::from_utf8_lossy(&got));
}

#[test]
fn who_joins_the_hub_again_and_again_does_not_fill_its_log() {
    let dir = Dir::new();
    let pid = dir.start_service("hub", &["log_max=0"]);
    let path = dir.path("zigsvc-hub.sock");
    for _ in 0..500 {
        drop(UnixStream::connect(&path).unwrap());
    }
    // A client that is heard came after all those.
    let mut last = Client::over(UnixStream::connect(&path).unwrap());
    let mut other = Client::over(UnixStream::connect(&path).unwrap());
    other.send("hello\n");
    assert!(last.line().ends_with("hello"));
    let log = dir.read("zigsvc-hub.log");
    assert_eq!(log_lines_matching(&log, "joined") + log_lines_matching(&log, "left"), 32, "{log}");
    kill(pid, "USR2");
    wait_until("all are counted", || dir.read("zigsvc-hub.log").contains(" joined=502 "));
}

#[test]
fn who_asks_the_opener_for_nothing_is_not_worth_a_line() {
    let dir = Dir::new();
    let pid = dir.start_service("opener", &["log_max=0"]);
    let path = dir.path("zigsvc-opener.sock");
    for _ in 0..20 {
        drop(UnixStream::connect(&path).unwrap());
    }
    let mut asks = UnixStream::connect(&path).unwrap();
    asks.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    asks.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "DENIED");
    // The quota is left to those who ask for something.
    let denied = dir.zigsvc(&["open", "/etc/shadow"]).expect(1);
    assert!(denied.err.contains("DENIED"), "{denied:?}");
    kill(pid, "USR2");
    wait_until("its status is logged", || dir.read("zigsvc-opener.log").contains("status: "));
    let log = dir.read("zigsvc-opener.log");
    assert_eq!(log_lines_matching(&log, "denied to uid"), 1, "{log}");
    assert!(log.contains(" denied=1 "), "{log}");
}
