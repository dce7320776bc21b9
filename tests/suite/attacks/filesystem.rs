//! Names that others plant under the service's paths.

use crate::support::control::NOBODY;
use crate::support::{
    Dir, finish, program, require_native, require_root, require_tool, through, wait_until, zigsvc,
};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

/// Makes a folder of another user, and in it a file of root's that no other user may read.
fn foreign(dir: &Dir) {
    fs::set_permissions(dir.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(dir.path("theirs")).unwrap();
    chown(dir.path("theirs"), Some(NOBODY), Some(NOBODY)).unwrap();
    dir.write("secret", "of root alone\n");
    fs::set_permissions(dir.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn a_pid_file_that_is_a_second_name_of_another_file_is_left_alone() {
    if !require_root() {
        return;
    }
    let dir = Dir::new();
    foreign(&dir);
    for (service, name) in
        [("jobs", "zigsvc.pid"), ("hub", "zigsvc-hub.pid"), ("supervisor", "zigsvc-supervisor.pid")]
    {
        let planted = dir.path("theirs").join(name);
        fs::hard_link(dir.path("secret"), &planted).unwrap();
        let option = format!("pid_file={}", dir.path("theirs/zigsvc.pid").display());
        let ran = dir.zigsvc(&["-o", &option, "start", service]).expect(6);
        assert!(ran.err.contains("theirs: not trusted, because uid 65534 owns it"), "{ran:?}");
        let trust = format!("trust={}", dir.path("theirs").display());
        let ran = dir.zigsvc(&["-o", &trust, "-o", &option, "start", service]).expect(1);
        assert!(ran.err.contains("EMLINK (has a second name, a hard link)"), "{ran:?}");
        assert_eq!(dir.read("secret"), "of root alone\n");
        assert_eq!(fs::metadata(dir.path("secret")).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn what_takes_the_place_of_a_new_folder_is_not_given_away() {
    if !require_native("traces the real process") || !require_root() || !require_tool("strace") {
        return;
    }
    let dir = Dir::new();
    foreign(&dir);
    fs::create_dir(dir.path("victim")).unwrap();
    let before = fs::metadata(dir.path("victim")).unwrap();
    // Slow enough for the owner of the folder to put a link there.
    let trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=mkdirat:delay_exit=500000"];
    let mut inner = zigsvc();
    for (key, name) in [("spool", "theirs/spool"), ("queue_file", "theirs/queue")] {
        inner.arg("-o").arg(format!("{key}={}", dir.path(name).display()));
    }
    // Root makes the folder, because the folder above does not belong to `user`.
    inner.arg("-o").arg(format!("trust={}", dir.path("theirs").display()));
    inner.arg("-d").arg(dir.path("")).args(["-o", "user=12345", "start"]);
    let spool = dir.path("theirs/spool");
    let starting = std::thread::spawn(move || finish(through(&trace, &inner), None));
    wait_until("there is a spool", || spool.exists());
    fs::rename(&spool, dir.path("theirs/moved")).unwrap();
    symlink(dir.path("victim"), &spool).unwrap();
    let ran = starting.join().unwrap().expect(1);
    assert!(ran.err.contains("theirs/spool: openat: ENOTDIR"), "{ran:?}");
    let after = fs::metadata(dir.path("victim")).unwrap();
    assert_eq!((before.uid(), before.mode()), (after.uid(), after.mode()));
}

/// A kind of entry that may be planted at a path.
#[derive(Clone, Copy, Debug)]
enum Plant {
    Folder,
    Link,
    Dangling,
    Fifo,
}

/// Every name that the service uses, and whether it starts though something is planted there.
const NAMES: [(&str, bool); 16] = [
    ("zigsvc.pid", false),
    ("zigsvc.sock", false),
    ("zigsvc.log", true),
    ("zigsvc.log.1", true),
    ("zigsvc.log.2", true),
    ("zigsvc.health", true),
    ("zigsvc.health.new", true),
    ("queue", true),
    ("queue.claim-1", true),
    ("queue.claim-18446744073709551615", true),
    ("spool/journal", false),
    ("spool/journal.new", true),
    ("spool/journal.bad-1", true),
    ("spool/lock", false),
    ("spool/running", true),
    ("spool/rejected", true),
];

#[test]
fn whatever_is_planted_at_a_name_is_neither_followed_nor_waited_for() {
    if !require_tool("mkfifo") {
        return;
    }
    for (name, starts) in NAMES {
        for plant in [Plant::Folder, Plant::Link, Plant::Dangling, Plant::Fifo] {
            let dir = Dir::new();
            fs::create_dir(dir.path("spool")).unwrap();
            dir.write("victim", "as it was\n");
            match plant {
                Plant::Folder => fs::create_dir(dir.path(name)).unwrap(),
                Plant::Link => symlink(dir.path("victim"), dir.path(name)).unwrap(),
                Plant::Dangling => symlink(dir.path("made"), dir.path(name)).unwrap(),
                Plant::Fifo => {
                    let mut mkfifo = program("mkfifo");
                    mkfifo.arg(dir.path(name));
                    finish(mkfifo, None).expect(0);
                }
            }
            let options = ["-o", "log_max=200", "-o", "log_keep=2", "-o", "handler=/bin/true", "start"];
            let ran = dir.zigsvc(&options);
            assert_eq!(ran.code, i32::from(!starts), "{name} {plant:?}: {ran:?}");
            if starts {
                use_everything(&dir, name);
            }
            assert_eq!(dir.read("victim"), "as it was\n", "{name} {plant:?}");
            assert!(!dir.path("made").exists(), "{name} {plant:?}: made where the link leads");
            if matches!(plant, Plant::Fifo) {
                // The clean-up would wait for a process that writes to the FIFO.
                let _ = fs::remove_file(dir.path(name));
            }
        }
    }
}

/// Has the service touch all its names: a queue file, a rejected line, a rotation, a stop.
#[track_caller]
fn use_everything(dir: &Dir, planted: &str) {
    let jobs = |dir: &Dir| crate::support::control::status(dir, "jobs");
    dir.zigsvc(&["queue", "one"]).expect(0);
    wait_until(&format!("{planted}: a job of the socket runs"), || jobs(dir) >= 1);
    if !planted.starts_with("queue") {
        dir.append("queue", &format!("{}\ntwo\n", "x".repeat(2000)));
        wait_until(&format!("{planted}: a job of the queue file runs"), || jobs(dir) >= 2);
    }
    dir.zigsvc(&["rotate"]).expect(0);
    dir.zigsvc(&["queue", "three"]).expect(0);
    dir.zigsvc(&["status"]).expect(0);
    let stopped = dir.zigsvc(&["stop"]).expect(0);
    assert!(stopped.out.contains("stopped"), "{planted}: {stopped:?}");
}

#[test]
fn a_claim_that_somebody_removes_holds_up_nothing() {
    let dir = Dir::new();
    dir.start(&["log_max=0"]);
    dir.append("queue", "first\n");
    crate::support::wait_for_jobs(&dir, 1);
    wait_until("it is claimed", || dir.path("queue.claim-1").exists());
    fs::remove_file(dir.path("queue.claim-1")).unwrap();
    // A claim is let go when it has been quiet for 10 s.
    dir.append("queue", "second\n");
    wait_until("the next one is let go, and so was the first", || {
        let names = fs::read_dir(dir.path("")).unwrap().flatten();
        crate::support::processed(&dir).len() == 2
            && !names.into_iter().any(|entry| entry.file_name().to_string_lossy().contains("claim"))
    });
    assert_eq!(crate::support::control::status_word(&dir, "degraded"), "none", "{}", dir.logs());
    dir.zigsvc(&["queue", "third"]).expect(0);
    crate::support::wait_for_jobs(&dir, 3);
}
