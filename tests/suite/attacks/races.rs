//! Names on the way of root that another user replaces again and again while a service starts: all
//! services, `-d` and root's defaults, without `user` and with it.
//!
//! `ZIGSVC_RACE` sets the number of starts of each row. The supervisor and the opener stay root, so
//! with `user` that user decides in its own folders (`docs/threats.md`): they have no such row.

use crate::support::control::{NOBODY, SetOnDrop, as_user, require_users};
use crate::support::{
    Dir, alive, finish, kill, program, require_native, require_self_exec, require_tool, setting, through,
    wait_until, zigsvc,
};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

/// A mount namespace with folders of its own for root's default paths.
struct Places(Child);

impl Places {
    fn new(options: &str) -> Self {
        let script = format!(
            "mount -t tmpfs -o mode=755 none /run && mount -t tmpfs -o {options} none /var/log && \
             mount -t tmpfs -o {options} none /var/spool && echo ready && exec cat"
        );
        let mut command = program("unshare");
        // The abstract names of the second locks belong to the network namespace.
        command.args(["-mn", "--propagation", "private", "sh", "-ec", &script]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
        Self(child)
    }

    fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.0.id()))
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A name in a folder that is swapped between nothing, a file or folder of the attacker, and a link
/// of the attacker to something of root's.
struct Race {
    folder: PathBuf,
    name: &'static str,
    own: &'static str,
    target: PathBuf,
}

impl Race {
    fn swap(&self, ended: &AtomicBool) {
        // Opened as root: the attacker does not see the mount namespace.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder =
            rustix::fs::openat(CWD, self.folder.as_os_str().as_bytes(), flags, Mode::empty()).unwrap();
        let _ = as_user(NOBODY, NOBODY, &[], || {
            while !ended.load(Ordering::Relaxed) {
                let _ = rustix::fs::renameat(&folder, self.own, &folder, self.name);
                let _ = rustix::fs::renameat(&folder, self.name, &folder, self.own);
                let _ = rustix::fs::symlinkat(self.target.as_os_str().as_bytes(), &folder, self.name);
                let _ = rustix::fs::unlinkat(&folder, self.name, AtFlags::empty());
            }
            Err(std::io::Error::other("no connection"))
        });
    }
}

fn give(path: &Path, mode: u32) {
    chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Starts `service` again and again while its path is swapped. Returns how many starts succeeded.
fn race(service: &str, defaults: bool, user: bool) -> Option<(u64, u64)> {
    let dir = Dir::new();
    if !require_users(&dir) {
        return None;
    }
    let places =
        defaults.then(|| Places::new(if user { "mode=755,uid=65534,gid=65534" } else { "mode=1777" }));
    fs::create_dir(dir.path("roots")).unwrap();
    dir.write("roots/secret", "of root alone\n");
    fs::set_permissions(dir.path("roots/secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let taken = dir.path("taken");
    let race = match &places {
        None => {
            let folder = dir.path("shared");
            fs::create_dir(&folder).unwrap();
            if user {
                give(&folder, 0o755);
            } else {
                fs::set_permissions(&folder, fs::Permissions::from_mode(0o1777)).unwrap();
            }
            Race { folder, name: "d", own: "own", target: dir.path("roots") }
        }
        Some(places) if service == "jobs" => {
            Race { folder: places.path("/var/spool"), name: "zigsvc", own: "own", target: dir.path("roots") }
        }
        Some(places) => {
            let name = match service {
                "hub" => "zigsvc-hub.log",
                "opener" => "zigsvc-opener.log",
                "collector" => "zigsvc-collector.log",
                _ => "zigsvc-supervisor.log",
            };
            Race { folder: places.path("/var/log"), name, own: "own", target: dir.path("roots/secret") }
        }
    };
    let own = race.folder.join(race.own);
    let is_folder = race.target.is_dir();
    if is_folder {
        fs::create_dir(&own).unwrap();
        give(&own, 0o755);
        if !user {
            // Planted by the attacker, to be run by root.
            fs::write(own.join("zigsvc.conf"), "handler = \"shell\"\n").unwrap();
            fs::write(own.join("queue"), format!("touch {}\n", taken.display())).unwrap();
            give(&own.join("queue"), 0o666);
        }
    } else {
        fs::write(&own, "").unwrap();
        give(&own, 0o666);
    }
    let command = || {
        let mut inner = zigsvc();
        if !defaults {
            inner.arg("-d").arg(race.folder.join(race.name));
        }
        if user {
            inner.args(["-o", "user=65534"]);
        }
        inner.args(["-o", "supervise=[\"hub\"]", "start", service]);
        match &places {
            None => inner,
            Some(places) => {
                let namespace = |kind: &str, name| format!("--{kind}=/proc/{}/ns/{name}", places.0.id());
                through(&["nsenter", &namespace("mount", "mnt"), &namespace("net", "net")], &inner)
            }
        }
    };
    let rounds = setting("ZIGSVC_RACE", 4);
    let (mut started, mut refused) = (0, 0);
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| race.swap(&ended));
        let ending = SetOnDrop(&ended);
        for _ in 0..rounds {
            let ran = finish(command(), None);
            if ran.code == 0 {
                started += 1;
                let pid: u32 = ran.out.split(['(', ')']).nth(1).unwrap()["pid ".len()..].parse().unwrap();
                kill(pid, "TERM");
                wait_until("it is gone", || !alive(pid));
            } else {
                refused += 1;
                if refused <= 2 {
                    eprintln!("race: {service}: refused ({}): {}", ran.code, ran.err.trim_end());
                }
            }
            assert_eq!(names(&dir.path("roots")), ["secret"], "{ran:?}");
            assert_eq!(dir.read("roots/secret"), "of root alone\n", "{ran:?}");
            assert!(!taken.exists(), "{ran:?}");
            // A file that root made in the free moment is its own, and would end the race.
            let name = race.folder.join(race.name);
            if fs::symlink_metadata(&name).is_ok_and(|meta| meta.uid() == 0) {
                let _ = if is_folder { fs::remove_dir_all(&name) } else { fs::remove_file(&name) };
            }
        }
        drop(ending);
    });
    assert_eq!(fs::metadata(dir.path("roots")).unwrap().uid(), 0);
    if !user {
        let left = [race.folder.join(race.name), own].into_iter().find(|path| {
            fs::symlink_metadata(path).is_ok_and(|meta| meta.uid() == NOBODY && !meta.is_symlink())
        });
        let left = left.unwrap();
        if is_folder {
            assert_eq!(names(&left), ["queue", "zigsvc.conf"], "root wrote into a folder of the attacker");
            assert_eq!(fs::read_to_string(left.join("queue")).unwrap().lines().count(), 1);
        } else {
            assert_eq!(fs::read_to_string(left).unwrap(), "", "root wrote into a file of the attacker");
        }
    }
    Some((started, refused))
}

fn race_all(service: &str) {
    if !require_native("starts many processes")
        || !["unshare", "nsenter", "mount"].into_iter().all(require_tool)
        || (service == "supervisor" && !require_self_exec())
    {
        return;
    }
    let only = std::env::var("ZIGSVC_RACE_ROW").unwrap_or_default();
    for defaults in [false, true] {
        for user in [false, true] {
            if user && matches!(service, "supervisor" | "opener") {
                continue;
            }
            let row = format!(
                "{service}, {}, {}",
                if defaults { "defaults" } else { "-d" },
                if user { "with user" } else { "without user" }
            );
            if !row.contains(&only) {
                continue;
            }
            let Some((started, refused)) = race(service, defaults, user) else { return };
            eprintln!("race: {row}: {started} started, {refused} refused");
        }
    }
}

#[test]
fn what_is_swapped_while_jobs_start_is_never_taken_or_written() {
    race_all("jobs");
}

#[test]
fn what_is_swapped_while_a_hub_starts_is_never_taken_or_written() {
    race_all("hub");
}

#[test]
fn what_is_swapped_while_an_opener_starts_is_never_taken_or_written() {
    race_all("opener");
}

#[test]
fn what_is_swapped_while_a_collector_starts_is_never_taken_or_written() {
    race_all("collector");
}

#[test]
fn what_is_swapped_while_a_supervisor_starts_is_never_taken_or_written() {
    race_all("supervisor");
}

/// Shows that root makes nothing by a whole path in a folder of `user`: between the judgement of a
/// path and its use that user could lead it elsewhere.
#[test]
fn before_root_becomes_user_it_makes_nothing_by_a_whole_path_in_a_folder_of_that_user() {
    let dir = Dir::new();
    if !require_users(&dir) || !require_tool("strace") || !require_native("strace would show QEMU's calls") {
        return;
    }
    for service in ["jobs", "hub", "collector"] {
        let theirs = dir.path(service);
        fs::create_dir(&theirs).unwrap();
        give(&theirs, 0o755);
        let trace = dir.path(&format!("trace-{service}"));
        let mut inner = zigsvc();
        inner.arg("-d").arg(&theirs).args(["-o", "user=65534", "run", service]);
        let words = ["strace", "-qq", "-s", "300", "-o", trace.to_str().unwrap()];
        let mut child = through(&words, &inner).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pid_file = if service == "jobs" { "zigsvc.pid".into() } else { format!("zigsvc-{service}.pid") };
        wait_until("it runs", || {
            fs::read_to_string(&trace).is_ok_and(|text| text.contains("daemon started"))
                && crate::support::lock_holder(&theirs.join(&pid_file)).is_some()
        });
        kill(crate::support::lock_holder(&theirs.join(&pid_file)).unwrap(), "TERM");
        child.wait().unwrap();
        let text = fs::read_to_string(&trace).unwrap();
        let (before, _) = text.split_once("setresuid").expect("it becomes the user");
        let path = format!("\"{}", theirs.display());
        let makes = |line: &&str| {
            let call = line.split('(').next().unwrap_or("");
            line.contains(&path)
                && (line.contains("O_CREAT")
                    || matches!(call, "mkdirat" | "bind" | "renameat" | "renameat2" | "linkat" | "symlinkat"))
        };
        let made: Vec<&str> = before.lines().filter(makes).collect();
        assert!(made.is_empty(), "{service}: {made:#?}");
        assert!(before.contains(&format!("\"{pid_file}\", O_RDWR|O_CREAT")), "{service}: {before}");
    }
}
