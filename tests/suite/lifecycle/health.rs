//! The health file: a heartbeat that any process can read at any moment.

use crate::support::{Dir, kill, wait_until};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The two lines of a health file, read strictly.
#[derive(Debug, PartialEq)]
struct Beat {
    wall: u64,
    seq: u64,
    pid: u32,
    boottime: f64,
    boot: String,
}

impl Beat {
    /// Returns `None` for a torn read, which is to be done again.
    #[track_caller]
    fn parse(text: &str) -> Option<Self> {
        // The options in force follow the record.
        let (text, options) = text.split_at_checked(192).unwrap_or_else(|| panic!("{text:?}"));
        assert!(options.starts_with("-d\n/") && options.ends_with('\n'), "{options:?}");
        let (wall, rest) = text.split_once('\n').unwrap();
        let rest = rest.strip_suffix('\n').unwrap();
        assert!(!rest.contains('\n'), "{text:?}");
        let fields: Vec<_> = rest.trim_end_matches(' ').split(' ').collect();
        let value = |index: usize, name: &str| fields[index].strip_prefix(name).unwrap();
        assert_eq!(fields.len(), 5, "{text:?}");
        assert_eq!(value(2, "boottime=").split_once('.').unwrap().1.len(), 3, "{text:?}");
        let seq = value(0, "seq=").parse().unwrap();
        (value(4, "seq=").parse() == Ok(seq)).then(|| Self {
            wall: wall.parse().unwrap(),
            seq,
            pid: value(1, "pid=").parse().unwrap(),
            boottime: value(2, "boottime=").parse().unwrap(),
            boot: value(3, "boot=").to_owned(),
        })
    }

    #[track_caller]
    fn read(dir: &Dir) -> Self {
        let mut beat = None;
        wait_until("a whole record is read", || {
            beat = Self::parse(&dir.read("zigsvc.health"));
            beat.is_some()
        });
        beat.unwrap()
    }
}

#[test]
fn the_file_holds_the_time_and_who_wrote_it() {
    let dir = Dir::new();
    let pid = dir.start(&["interval=300ms"]);
    let beat = Beat::read(&dir);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(beat.wall.abs_diff(now) < 60, "{beat:?}");
    assert_eq!(beat.pid, pid);
    assert_eq!(beat.boot, fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim());
    let uptime: f64 = fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(beat.boottime <= uptime + 1.0 && beat.boottime > uptime - 60.0, "{beat:?} {uptime}");
    let mode = fs::metadata(dir.path("zigsvc.health")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);
    let mut last = beat;
    wait_until("three more heartbeats came", || {
        let next = Beat::read(&dir);
        assert!(next.seq >= last.seq && next.boottime >= last.boottime, "{last:?} {next:?}");
        next.seq >= last.seq + 3 || {
            if next.seq > last.seq + 100 {
                last = next;
            }
            false
        }
    });
}

#[test]
fn a_reader_never_sees_it_missing_or_empty() {
    let dir = Dir::new();
    dir.start(&["interval=100ms"]);
    let first = Beat::read(&dir).seq;
    let end = Instant::now() + Duration::from_secs(3);
    let mut last = first;
    let mut torn = 0;
    while Instant::now() < end {
        let text = fs::read_to_string(dir.path("zigsvc.health")).unwrap();
        match Beat::parse(&text) {
            Some(beat) => {
                assert!(beat.seq >= last, "{last} {beat:?}");
                last = beat.seq;
            }
            None => torn += 1,
        }
    }
    assert!(last > first, "no heartbeat in 3 s");
    assert!(torn < 1000, "{torn} torn reads");
}

#[test]
fn it_comes_back_when_it_is_removed_or_replaced() {
    let dir = Dir::new();
    dir.write("precious", "precious\n");
    let pid = dir.start(&["interval=100ms"]);
    fs::remove_file(dir.path("zigsvc.health")).unwrap();
    wait_until("it is there again", || dir.path("zigsvc.health").exists());
    assert_eq!(Beat::read(&dir).pid, pid);
    fs::remove_file(dir.path("zigsvc.health")).unwrap();
    symlink(dir.path("precious"), dir.path("zigsvc.health")).unwrap();
    wait_until("the link was replaced", || {
        fs::symlink_metadata(dir.path("zigsvc.health")).is_ok_and(|meta| meta.is_file())
    });
    assert_eq!(Beat::read(&dir).pid, pid);
    assert_eq!(dir.read("precious"), "precious\n");
}

#[test]
fn a_file_that_cannot_be_written_is_a_degraded_state_that_ends() {
    let dir = Dir::new();
    fs::create_dir(dir.path("folder")).unwrap();
    let file = dir.path("folder/health").display().to_string();
    let pid = dir.start(&["interval=100ms", &format!("health_file={file}"), "log_max=0"]);
    fs::remove_dir_all(dir.path("folder")).unwrap();
    let degraded = |name: &str| {
        kill(pid, "USR2");
        dir.read("zigsvc.log")
            .lines()
            .next_back()
            .is_some_and(|line| line.ends_with(&format!("degraded={name}")))
    };
    wait_until("the status tells", || degraded("health"));
    assert_eq!(
        crate::support::log_lines_matching(&dir.read("zigsvc.log"), "the health file cannot be written"),
        1
    );
    fs::create_dir(dir.path("folder")).unwrap();
    wait_until("it is well again", || degraded("none"));
    assert_eq!(
        crate::support::log_lines_matching(&dir.read("zigsvc.log"), "the health file is written again"),
        1
    );
    assert!(dir.path("folder/health").exists());
}

#[test]
fn a_reload_moves_it() {
    let dir = Dir::new();
    let pid = dir.start(&["interval=100ms"]);
    dir.write("zigsvc.conf", format!("health_file = \"{}\"\n", dir.path("other").display()));
    kill(pid, "HUP");
    wait_until("the new one is there", || dir.path("other").exists());
    assert!(!dir.path("zigsvc.health").exists());
    dir.zigsvc(&["status"]).expect(0);
    dir.zigsvc(&["stop"]).expect(0);
    assert!(!dir.path("other").exists());
}
