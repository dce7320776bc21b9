//! Names that others plant under the service's paths.

use crate::common::control::NOBODY;
use crate::common::{
    Dir, finish, require, require_root, require_tool, through, under_qemu, wait_until, zigsvc,
};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

/// A folder of another user, and a file of root's in it that nobody else may read.
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
        let ran = dir.zigsvc(&["-o", &option, "start", service]).expect(1);
        assert!(ran.err.contains("EMLINK (has a second name, a hard link)"), "{ran:?}");
        assert_eq!(dir.read("secret"), "of root alone\n");
        assert_eq!(fs::metadata(dir.path("secret")).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn what_takes_the_place_of_a_new_folder_is_not_given_away() {
    if !require(!under_qemu(), "traces the real process") || !require_root() || !require_tool("strace") {
        return;
    }
    let dir = Dir::new();
    foreign(&dir);
    fs::create_dir(dir.path("victim")).unwrap();
    let before = fs::metadata(dir.path("victim")).unwrap();
    // Slow enough for whoever owns the folder to put a link there.
    let trace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=mkdirat:delay_exit=500000"];
    let mut inner = zigsvc();
    for (key, name) in [("spool", "theirs/spool"), ("queue_file", "theirs/queue")] {
        inner.arg("-o").arg(format!("{key}={}", dir.path(name).display()));
    }
    inner.arg("-d").arg(dir.path("")).args(["-o", "user=65534", "start"]);
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
