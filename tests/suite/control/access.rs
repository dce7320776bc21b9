//! The rights to use the control socket, and the socket's name in the file system. The
//! contract is `docs/control.md`.

use crate::support::control::{
    Client, NOBODY, REQUEST_COUNT, ask, connect_as, expect_error, field, nobody, require_users, start,
    status, status_word,
};
use crate::support::{Dir, alive, kill, log_lines_matching, require_native, wait_for_log, wait_until};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

// ----- who may ---------------------------------------------------------------

/// Starts a service in a folder that the tests' users can reach. Returns `None` if the test
/// cannot be other users.
#[track_caller]
fn shared(options: &[&str]) -> Option<Dir> {
    let dir = Dir::new();
    if !require_users(&dir) {
        return None;
    }
    start(&dir, options);
    Some(dir)
}

#[test]
fn the_mode_of_the_socket_follows_from_who_may() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    let cases: [(&[&str], u32, u32); 7] = [
        (&[], 0o600, 0),
        (&["allow_gid=100"], 0o660, 100),
        (&["allow_gid=100,54321"], 0o666, 0),
        (&["allow_uid=54321"], 0o666, 0),
        (&["allow_uid=54321,54322"], 0o666, 0),
        (&["allow_uid=54321", "allow_gid=100"], 0o666, 0),
        (&["allow_uid=nobody"], 0o666, 0),
    ];
    for (options, mode, group) in cases {
        start(&dir, options);
        let meta = fs::symlink_metadata(dir.path("zigsvc.sock")).unwrap();
        assert!(meta.file_type().is_socket());
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (mode, 0, group), "{options:?}");
        dir.zigsvc(&["stop"]).expect(0);
    }
}

#[test]
fn others_cannot_connect_by_default() {
    let Some(dir) = shared(&[]) else { return };
    let refused = connect_as(&dir.path("zigsvc.sock"), NOBODY, NOBODY, &[]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    assert_eq!(status(&dir, "denied"), 0);
}

#[test]
fn who_is_not_named_is_denied_and_closed_at_the_first_request() {
    let Some(dir) = shared(&["allow_uid=54321"]) else { return };
    for request in ["status\n", "queue x\nqueue y\nstatus\n", "nonsense\n", "\n", "watch\n", "status"] {
        let before = status(&dir, "denied");
        let mut client = nobody(&dir);
        client.send(request);
        client.end_sending();
        let answers = client.rest();
        assert_eq!(answers.len(), 1, "{request:?}: {answers:?}");
        expect_error(&answers[0], "denied");
        assert_eq!(status(&dir, "denied"), before + 1);
    }
    wait_for_log(&dir, "denied to uid 65534");
    assert_eq!(
        log_lines_matching(&dir.read("zigsvc.log"), "denied to uid 65534"),
        6,
        "one for each connection"
    );
    assert_eq!((status(&dir, "jobs"), status(&dir, "waiting"), status(&dir, "clients")), (0, 0, 1));
}

#[test]
fn a_guest_may_ask_and_add_but_not_steer() {
    let Some(dir) = shared(&["allow_uid=nobody", "handler=shell", "retries=0"]) else { return };
    let mut guest = nobody(&dir);
    assert_eq!(guest.queue("false"), 1);
    assert_eq!(guest.ask("wait 1"), "ok id=1 state=dead exit=1");
    assert_eq!(guest.ask_list("list dead"), ["1 dead 1 false"]);
    assert_eq!(guest.ask_list("help").len(), REQUEST_COUNT);
    for request in ["cancel 1", "retry 1", "retry dead", "forget 1", "forget dead", "drain", "stop", "stop x"]
    {
        expect_error(&guest.ask(request), "denied");
    }
    assert_eq!(guest.status("denied"), 8);
    assert_eq!(guest.status_word("state"), "running");
    assert_eq!(guest.status("dead"), 1);
    assert_eq!(log_lines_matching(&dir.read("zigsvc.log"), "denied to uid 65534"), 1, "once a connection");
    assert_eq!(guest.ask("watch"), "ok");
    assert_eq!(nobody(&dir).queue("true"), 2);
    assert!(guest.line().contains("job=2 state=started"));
    // Another user is no guest.
    let mut other = Client::over(connect_as(&dir.path("zigsvc.sock"), 12345, NOBODY, &[0]).unwrap());
    expect_error(&other.ask("status"), "denied");
    assert!(other.rest().is_empty());
    wait_until("it is logged with its uid", || dir.read("zigsvc.log").contains("denied to uid 12345"));
}

#[test]
fn a_member_of_an_allowed_group_is_a_guest() {
    let Some(dir) = shared(&["allow_gid=54321"]) else { return };
    let path = dir.path("zigsvc.sock");
    for (gid, groups) in [(54321, &[][..]), (NOBODY, &[54321]), (NOBODY, &[1, 2, 3, 54321, 5])] {
        let mut guest = Client::over(connect_as(&path, NOBODY, gid, groups).unwrap());
        assert!(guest.ask("status").starts_with("ok "), "{gid} {groups:?}");
        expect_error(&guest.ask("stop"), "denied");
    }
    let refused = connect_as(&path, NOBODY, NOBODY, &[1, 2]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
}

#[test]
fn with_two_groups_the_service_looks_at_all_groups_of_the_peer() {
    if !require_native("QEMU may not know SO_PEERGROUPS") {
        return;
    }
    let Some(dir) = shared(&["allow_gid=54321,54322"]) else { return };
    let path = dir.path("zigsvc.sock");
    for (gid, groups, may) in [
        (54322, &[][..], true),
        (NOBODY, &[54322], true),
        (NOBODY, &[1, 2, 54321], true),
        (NOBODY, &[1, 2], false),
        (NOBODY, &[], false),
    ] {
        let mut client = Client::over(connect_as(&path, NOBODY, gid, groups).unwrap());
        let answer = client.ask("status");
        assert_eq!(answer.starts_with("ok "), may, "{gid} {groups:?}: {answer}");
    }
}

#[test]
fn the_services_own_user_is_an_owner() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    std::os::unix::fs::chown(dir.path(""), Some(NOBODY), Some(NOBODY)).unwrap();
    start(&dir, &["user=65534", "group=65534", "interval=100ms"]);
    let meta = fs::symlink_metadata(dir.path("zigsvc.sock")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o600, NOBODY));
    let mut owner = nobody(&dir);
    expect_error(&owner.ask("cancel 7"), "no-job");
    assert_eq!(ask(&dir, "forget dead"), "ok count=0", "root may too");
    // It can make its own socket again.
    fs::remove_file(dir.path("zigsvc.sock")).unwrap();
    wait_until("the socket is there again", || is_socket(&dir.path("zigsvc.sock")));
    wait_until("it can be used", || connect_as(&dir.path("zigsvc.sock"), NOBODY, NOBODY, &[]).is_ok());
    assert_eq!(nobody(&dir).ask("drain"), "ok draining");
    wait_until("it has stopped", || dir.lock_holder("zigsvc.pid").is_none());
}

#[test]
fn a_reload_changes_who_may() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    let pid = start(&dir, &[]);
    let path = dir.path("zigsvc.sock");
    let mode = || fs::symlink_metadata(&path).unwrap().mode() & 0o7777;
    let reload = |config: &str| {
        let before = status(&dir, "reloads") + status(&dir, "reload_errors");
        dir.write("zigsvc.conf", config);
        kill(pid, "HUP");
        wait_until("it has read it", || status(&dir, "reloads") + status(&dir, "reload_errors") > before);
    };
    reload("allow_uid = [\"nobody\"]\n");
    assert_eq!(mode(), 0o666);
    assert!(nobody(&dir).ask("status").starts_with("ok "));
    reload("allow_uid = [12345]\n");
    assert_eq!(mode(), 0o666);
    expect_error(&nobody(&dir).ask("status"), "denied");
    reload("allow_gid = [54321]\n");
    assert_eq!((mode(), fs::symlink_metadata(&path).unwrap().gid()), (0o660, 54321));
    assert!(connect_as(&path, NOBODY, NOBODY, &[]).is_err());
    assert!(connect_as(&path, NOBODY, NOBODY, &[54321]).is_ok());
    reload("allow_gid = [54321]\nallow_uid = [\"no-such-user\"]\n");
    assert_eq!(status(&dir, "reload_errors"), 1);
    wait_for_log(&dir, "config not reloaded, the old one stays: allow_uid or allow_gid: \"no-such-user\"");
    assert_eq!(mode(), 0o660, "a bad configuration changes nothing");
    reload("");
    assert_eq!(mode(), 0o600);
    assert!(connect_as(&path, NOBODY, NOBODY, &[54321]).is_err());
}

#[test]
fn an_unknown_name_fails_the_start() {
    let dir = Dir::new();
    for option in ["allow_uid=no-such-user", "allow_gid=no-such-group", "allow_gid=0,no-such-group"] {
        let ran = dir.zigsvc(&["-o", option, "start"]).expect(6);
        assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1), "{ran:?}");
        assert!(ran.err.contains("\"no-such-"), "{ran:?}");
        assert!(!dir.path("zigsvc.sock").exists() && dir.lock_holder("zigsvc.pid").is_none());
    }
}

// ----- the name in the file system -------------------------------------------

/// Insists that `start` fails with one line about the socket.
#[track_caller]
fn start_fails(dir: &Dir, errno: &str) {
    let ran = dir.zigsvc(&["start"]).expect(1);
    assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1), "{ran:?}");
    assert!(ran.err.contains("zigsvc.sock") && ran.err.contains(errno), "{ran:?}");
    assert!(dir.lock_holder("zigsvc.pid").is_none());
}

#[test]
fn what_a_killed_service_left_is_replaced() {
    let dir = Dir::new();
    for _ in 0..3 {
        let pid = start(&dir, &[]);
        assert_eq!(field(&ask(&dir, "status"), "pid"), pid.to_string());
        kill(pid, "KILL");
        wait_until("it is gone", || !alive(pid));
        assert!(is_socket(&dir.path("zigsvc.sock")));
    }
}

#[test]
fn a_stop_removes_its_socket() {
    let dir = Dir::new();
    start(&dir, &[]);
    assert!(is_socket(&dir.path("zigsvc.sock")));
    dir.zigsvc(&["stop"]).expect(0);
    assert!(!dir.path("zigsvc.sock").exists());
}

#[test]
fn what_is_no_dead_socket_is_left_alone_and_fails_the_start() {
    let dir = Dir::new();
    let path = dir.path("zigsvc.sock");

    dir.write("zigsvc.sock", "a file\n");
    start_fails(&dir, "EEXIST");
    assert_eq!(dir.read("zigsvc.sock"), "a file\n");
    fs::remove_file(&path).unwrap();

    fs::create_dir(&path).unwrap();
    start_fails(&dir, "EEXIST");
    fs::remove_dir(&path).unwrap();

    std::os::unix::fs::symlink(dir.path("target"), &path).unwrap();
    start_fails(&dir, "EEXIST");
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink() && !dir.path("target").exists());
    fs::remove_file(&path).unwrap();

    let listener = UnixListener::bind(&path).unwrap();
    start_fails(&dir, "EADDRINUSE");
    drop(listener);
    fs::remove_file(&path).unwrap();

    let datagrams = UnixDatagram::bind(&path).unwrap();
    start_fails(&dir, "");
    let (sender, mut bytes) = (UnixDatagram::unbound().unwrap(), [0; 8]);
    sender.send_to(b"x", &path).unwrap();
    assert_eq!(datagrams.recv(&mut bytes).unwrap(), 1, "its name is still its own");
    fs::remove_file(&path).unwrap();

    start(&dir, &[]);
}

#[test]
fn a_live_listener_goes_on_after_a_start_that_failed() {
    let dir = Dir::new();
    let listener = UnixListener::bind(dir.path("zigsvc.sock")).unwrap();
    listener.set_nonblocking(true).unwrap();
    start_fails(&dir, "EADDRINUSE");
    while listener.accept().is_ok() {}
    let _client = UnixStream::connect(dir.path("zigsvc.sock")).unwrap();
    assert!(listener.accept().is_ok(), "the name still leads to it");
}

#[test]
fn a_path_that_is_too_long_fails_the_start_and_the_longest_works() {
    let dir = Dir::new();
    let path = |length: usize| {
        let folder = dir.path("").display().to_string();
        format!("{folder}/{}", "s".repeat(length - folder.len() - 1))
    };
    let ran = dir.zigsvc(&["-o", &format!("socket={}", path(108)), "start"]).expect(6);
    assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1), "{ran:?}");
    assert!(ran.err.contains("socket") && ran.err.contains("107"), "{ran:?}");
    assert!(dir.lock_holder("zigsvc.pid").is_none());
    start(&dir, &[&format!("socket={}", path(107))]);
    let mut client = Client::over(UnixStream::connect(path(107)).unwrap());
    assert!(client.ask("status").starts_with("ok "));
}

#[test]
fn a_deleted_socket_comes_back_and_connections_live_on() {
    let dir = Dir::new();
    let pid = start(&dir, &["interval=100ms", "allow_uid=54321"]);
    let mut old = Client::new(&dir);
    assert_eq!(old.status("pid"), u64::from(pid));
    for _ in 0..3 {
        fs::remove_file(dir.path("zigsvc.sock")).unwrap();
        wait_until("the socket is there again", || is_socket(&dir.path("zigsvc.sock")));
        wait_until("it can be used", || UnixStream::connect(dir.path("zigsvc.sock")).is_ok());
        assert_eq!(status(&dir, "pid"), u64::from(pid));
        wait_until("it has its mode", || {
            fs::symlink_metadata(dir.path("zigsvc.sock")).unwrap().mode() & 0o7777 == 0o666
        });
        assert_eq!(old.status_word("degraded"), status_word(&dir, "degraded"));
    }
    assert_eq!(old.queue("over the old connection"), 1);
}

#[test]
fn a_socket_that_cannot_be_made_again_is_a_degraded_state() {
    for folder in [false, true] {
        let dir = Dir::new();
        let path = dir.path("zigsvc.sock");
        start(&dir, &["interval=100ms"]);
        let mut client = Client::new(&dir);
        let is_degraded =
            |client: &mut Client| client.status_word("degraded").split(',').any(|one| one == "socket");
        assert!(!is_degraded(&mut client));
        // It may be made again between the two steps.
        wait_until("something else has its name", || {
            let _ = fs::remove_file(&path);
            if folder {
                fs::create_dir(&path).is_ok()
            } else {
                fs::hard_link(dir.path("zigsvc.pid"), &path).is_ok()
            }
        });
        wait_until("it says so", || is_degraded(&mut client));
        assert_eq!(client.queue("goes on"), 1);
        wait_for_log(&dir, "[ERROR] the control socket is gone, and cannot be made again: ");
        if folder { fs::remove_dir(&path) } else { fs::remove_file(&path) }.unwrap();
        wait_until("it is well again", || !is_degraded(&mut client));
        assert_eq!(ask(&dir, "queue new"), "ok id=2");
        wait_for_log(&dir, "the control socket is there again");
        assert_eq!(log_lines_matching(&dir.read("zigsvc.log"), "control socket is gone"), 1, "said once");
    }
}

#[test]
fn a_stop_leaves_what_is_not_its_own_socket() {
    let dir = Dir::new();
    start(&dir, &[]);
    let path = dir.path("zigsvc.sock");
    wait_until("a file has its name", || {
        let _ = fs::remove_file(&path);
        dir.write("other", "mine\n");
        fs::hard_link(dir.path("other"), &path).is_ok()
    });
    dir.zigsvc(&["stop"]).expect(0);
    assert_eq!(dir.read("zigsvc.sock"), "mine\n");
}
