//! `zigsvc log FILE`: every byte of its input, once, in order, in whole lines,
//! in files that rotate; whatever happens to it, to FILE, and to its disk.

use crate::support::random::Random;
use crate::support::small_disk::{SmallDisk, has_namespaces};
use crate::support::{
    Dir, Ran, finish, kill, let_pass, program, require, require_native, require_tool, through, under_qemu,
    wait_until, zigsvc,
};
use rustix::fd::BorrowedFd;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::thread::JoinHandle;
use zigsvc::limits::COPY_RETRY;

/// `zigsvc log ARGS... DIR/log`, which reads what the test writes.
struct Logger {
    child: Child,
    input: Option<ChildStdin>,
}

impl Logger {
    #[track_caller]
    fn new(dir: &Dir, args: &[&str]) -> Self {
        Self::of(dir, args, &dir.path("log"))
    }

    /// Starts a logger of another file. Its messages on stderr go to DIR/err.
    #[track_caller]
    fn of(dir: &Dir, args: &[&str], path: &Path) -> Self {
        let mut command = zigsvc();
        let err = fs::OpenOptions::new().append(true).create(true).open(dir.path("err")).unwrap();
        command.arg("log").args(args).arg(path).stdin(Stdio::piped()).stderr(err);
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take();
        Self { child, input }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    #[track_caller]
    fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.input.as_mut().unwrap().write_all(bytes.as_ref()).unwrap();
    }

    /// Writes from a thread, which may have to wait; then that is all.
    fn write_aside(&mut self, bytes: Vec<u8>) -> JoinHandle<()> {
        let mut input = self.input.take().unwrap();
        std::thread::spawn(move || input.write_all(&bytes).unwrap())
    }

    /// Waits for its end. Returns its exit status, or 128 and the number of the signal.
    #[track_caller]
    fn code(&mut self) -> i32 {
        wait_until("the logger has ended", || self.child.try_wait().unwrap().is_some());
        let status = self.child.wait().unwrap();
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
    }

    /// Ends its input, and insists that it ends well.
    #[track_caller]
    fn end(mut self) {
        drop(self.input.take());
        assert_eq!(self.code(), 0);
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `zigsvc log ARGS... DIR/log` with `input` to its end.
#[track_caller]
fn log(dir: &Dir, args: &[&str], input: &[u8]) -> Ran {
    let mut command = zigsvc();
    command.arg("log").args(args).arg(dir.path("log"));
    finish(command, Some(input))
}

/// Returns the contents of the files `log.99` ... `log.1`, `log`, oldest first.
fn files(dir: &Dir) -> Vec<Vec<u8>> {
    let names = (1..=99).rev().map(|number| format!("log.{number}")).chain(["log".to_owned()]);
    names.filter_map(|name| fs::read(dir.path(&name)).ok()).collect()
}

/// Returns all copied bytes, in order.
fn copied(dir: &Dir) -> Vec<u8> {
    files(dir).concat()
}

#[track_caller]
fn assert_same(found: &[u8], expected: &[u8]) {
    if found != expected {
        let at =
            found.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(found.len().min(expected.len()));
        let around = |bytes: &[u8]| {
            String::from_utf8_lossy(&bytes[at.saturating_sub(60)..bytes.len().min(at + 60)]).into_owned()
        };
        let (found_bytes, expected_bytes) = (found.len(), expected.len());
        panic!(
            "{found_bytes} bytes instead of {expected_bytes}; at {at}:\n{}\n{}",
            around(found),
            around(expected)
        );
    }
}

/// Returns `count` lines of 10 to 70 bytes, all different.
fn lines(count: usize) -> Vec<u8> {
    (0..count)
        .flat_map(|number| format!("{number:08} {}\n", "x".repeat(number * 7 % 61)).into_bytes())
        .collect()
}

/// Waits until the file holds exactly that.
#[track_caller]
fn wait_for(dir: &Dir, name: &str, text: &str) {
    wait_until(&format!("{name} is {text:?}"), || dir.read(name) == text);
}

// ----- bytes ---------------------------------------------------------------------

#[test]
fn bytes_pass_as_they_are_and_the_last_line_needs_no_newline() {
    let dir = Dir::new();
    let strange: Vec<u8> = (0..=255).chain(*b"\n\n\0\0\n\r\n\x1b[1m\xff\n\0").collect();
    log(&dir, &[], b"one\n").expect(0);
    log(&dir, &[], &strange).expect(0);
    assert_same(&copied(&dir), &[b"one\n", &strange[..]].concat());
    assert_eq!(fs::metadata(dir.path("log")).unwrap().permissions().mode() & 0o7777, 0o640);
}

#[test]
fn no_input_is_an_empty_file() {
    let dir = Dir::new();
    let mut command = zigsvc();
    command.arg("log").arg(dir.path("log"));
    let ran = finish(command, None).expect(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""));
    assert_eq!(fs::read(dir.path("log")).unwrap(), b"");
}

#[test]
fn each_line_has_the_time_that_was_asked_for() {
    let digits =
        |text: &str| text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>();
    for (time, stamp) in [("iso", "[0000-00-00T00:00:00Z] "), ("unix", "[0000000000] "), ("none", "")] {
        let dir = Dir::new();
        log(&dir, &["-t", time], b"first\n\n  third\nno newline").expect(0);
        let expected = format!("{stamp}first\n{stamp}\n{stamp}  third\n{stamp}no newline");
        assert_eq!(digits(&dir.read("log")), expected, "{time}");
    }
}

#[test]
fn a_line_is_there_as_soon_as_it_is_whole() {
    let dir = Dir::new();
    for time in ["none", "iso"] {
        let mut logger = Logger::new(&dir, &["-t", time]);
        for number in 0..3 {
            logger.write(format!("{time} {number}\nhal"));
            wait_until("it is there", || dir.read("log").ends_with(&format!("{time} {number}\n")));
            logger.write("f, ");
        }
        logger.write("\n");
        logger.end();
        assert!(dir.read("log").ends_with("half, \n"));
    }
}

#[test]
fn a_line_behind_half_a_line_of_an_earlier_run_is_a_line_of_its_own() {
    let dir = Dir::new();
    for (before, after) in [("half", "half\nnew\n"), ("whole\n", "whole\nnew\n"), ("", "new\n")] {
        dir.write("log", before);
        log(&dir, &[], b"new\n").expect(0);
        assert_eq!(dir.read("log"), after);
        // Nothing to write, nothing written.
        dir.write("log", before);
        log(&dir, &[], b"").expect(0);
        assert_eq!(dir.read("log"), before);
    }
    // Nor in the next file, whatever begins that. Under QEMU the moment when the handlers
    // are there is not to be seen.
    if require_native("/proc shows QEMU's own process") {
        dir.write("log", "half");
        let mut logger = Logger::new(&dir, &[]);
        // The handler of XFSZ, 25, is the last of its handlers.
        let handled = |pid| u64::from_str_radix(&crate::support::proc_status(pid, "SigCgt"), 16).unwrap_or(0);
        wait_until("it has its handlers", || handled(logger.pid()) & (1 << 24) != 0);
        kill(logger.pid(), "USR1");
        wait_for(&dir, "log", "");
        logger.write("new\n");
        logger.end();
        assert_eq!((dir.read("log.1").as_str(), dir.read("log").as_str()), ("half\n", "new\n"));
    }
    dir.write("log", "half");
    log(&dir, &["-s", "4"], b"new\n").expect(0);
    assert_eq!((dir.read("log.1").as_str(), dir.read("log").as_str()), ("half\n", "new\n"));
}

// ----- rotation --------------------------------------------------------------------

/// Insists that all of `input` is in the files, in order, in whole lines, and that
/// no file is larger than `size`.
#[track_caller]
fn assert_rotated(dir: &Dir, input: &[u8], size: usize) {
    let files = files(dir);
    for file in &files {
        assert!(file.len() <= size, "{}", file.len());
        assert!(file.ends_with(b"\n"));
    }
    assert_same(&files.concat(), input);
}

#[test]
fn a_million_lines_through_99_rotations_are_there_once_each_and_in_order() {
    let dir = Dir::new();
    let input = lines(if under_qemu() { 50_000 } else { 1_000_000 });
    // As many files as can be kept, with some room for what does not fill one.
    let size = input.len() / 98;
    log(&dir, &["-s", &size.to_string(), "-n", "99"], &input).expect(0);
    assert!(files(&dir).len() >= 98, "{}", files(&dir).len());
    assert_rotated(&dir, &input, size);
}

#[test]
fn the_same_with_times() {
    let dir = Dir::new();
    let input = lines(if under_qemu() { 20_000 } else { 200_000 });
    let count = input.iter().filter(|byte| **byte == b'\n').count();
    let size = (input.len() + 23 * count) / 95;
    log(&dir, &["-s", &size.to_string(), "-n99", "-tiso"], &input).expect(0);
    let files = files(&dir);
    assert!(files.len() >= 90 && files.iter().all(|file| file.len() <= size && file.ends_with(b"\n")));
    let all = files.concat();
    let mut plain = Vec::new();
    for line in all.split_inclusive(|byte| *byte == b'\n') {
        assert!(line.starts_with(b"[20") && line[21..].starts_with(b"] "), "{line:?}");
        plain.extend_from_slice(&line[23..]);
    }
    assert_same(&plain, &input);
}

#[test]
fn who_writes_a_line_at_a_time_loses_none_either() {
    let dir = Dir::new();
    let input = lines(if under_qemu() { 5000 } else { 100_000 });
    let size = input.len() / 50;
    let mut logger = Logger::new(&dir, &["-s", &size.to_string(), "-n", "99"]);
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        logger.write(line);
    }
    logger.end();
    assert_rotated(&dir, &input, size);
}

#[test]
fn only_as_many_files_are_kept_as_asked_for() {
    for (args, keep) in [(&["-s", "30"][..], 1), (&["-s30", "-n3"], 3)] {
        let dir = Dir::new();
        log(&dir, args, b"123456789\n".repeat(100).as_slice()).expect(0);
        assert_eq!(files(&dir).len(), keep + 1);
        assert_eq!(copied(&dir).len(), 30 * keep + 10);
        assert!(
            dir.path(&format!("log.{keep}")).exists() && !dir.path(&format!("log.{}", keep + 1)).exists()
        );
    }
}

#[test]
fn without_a_size_it_is_ten_thousand_bytes_and_with_zero_it_is_never() {
    let dir = Dir::new();
    let input = lines(2000);
    log(&dir, &["-n", "99"], &input).expect(0);
    assert_rotated(&dir, &input, 10_000);
    assert!(files(&dir).len() > 5);
    let dir = Dir::new();
    log(&dir, &["-s", "0"], &input).expect(0);
    assert_same(&fs::read(dir.path("log")).unwrap(), &input);
}

#[test]
fn a_line_of_up_to_64_kib_is_never_split() {
    for length in [9_999, 10_000, 65_534, 65_535] {
        let dir = Dir::new();
        let long = format!("{}\n", "y".repeat(length));
        let input = format!("before\n{long}{long}after\n");
        log(&dir, &["-n", "99"], input.as_bytes()).expect(0);
        let files = files(&dir);
        assert_eq!(files.concat(), input.as_bytes());
        assert_eq!(files.iter().filter(|file| file == &long.as_bytes()).count(), 2, "{length}");
    }
}

#[test]
fn longer_lines_are_continued_and_every_byte_is_there() {
    let input: Vec<u8> =
        (1..=5u8).flat_map(|letter| [vec![b'a' + letter; 200_000], b"\nshort\n".to_vec()].concat()).collect();
    for args in [&["-s", "100k", "-n", "99"], &["-s", "300k", "-n", "99"]] {
        let dir = Dir::new();
        log(&dir, args, &input).expect(0);
        assert_same(&copied(&dir), &input);
        assert!(files(&dir).iter().all(|file| file.len() <= 300 * 1024));
    }
    let dir = Dir::new();
    log(&dir, &["-s", "0", "-t", "unix"], &input).expect(0);
    let text = dir.read("log");
    assert_eq!(text.matches('[').count(), 10, "a stamp inside a line");
    assert_eq!(text.len(), input.len() + 10 * "[1795327895] ".len());
}

#[test]
fn input_without_a_newline_does_not_fill_the_disk() {
    let dir = Dir::new();
    let input: Vec<u8> = (0..3_000_000u32).map(|at| b'a' + (at % 23) as u8).collect();
    log(&dir, &["-s", "50000", "-n", "99"], &input).expect(0);
    let files = files(&dir);
    assert!(files.len() > 50 && files.iter().all(|file| file.len() <= 128 * 1024), "{}", files.len());
    assert_same(&files.concat(), &input);
    let dir = Dir::new();
    log(&dir, &["-s", "50000"], &input).expect(0);
    assert!(copied(&dir).len() <= 256 * 1024);
}

#[test]
fn a_rotation_that_fails_costs_no_line_and_is_told_once() {
    let dir = Dir::new();
    // In the way of the rename.
    fs::create_dir_all(dir.path("log.1/x")).unwrap();
    let input = lines(5000);
    let mut logger = Logger::new(&dir, &[]);
    logger.write(&input);
    wait_until("all is there", || dir.read("log").len() == input.len());
    let told = dir.read("err");
    let start = format!("zigsvc: log: {}: not rotated: renameat: ", dir.path("log").display());
    assert!(told.starts_with(&start) && told.lines().count() == 1, "{told}");
    kill(logger.pid(), "USR1");
    logger.write("more\n");
    wait_until("more is there", || dir.read("log").ends_with("more\n"));
    fs::remove_dir_all(dir.path("log.1")).unwrap();
    kill(logger.pid(), "USR1");
    wait_for(&dir, "log", "");
    logger.write("new\n");
    logger.end();
    assert_same(&fs::read(dir.path("log.1")).unwrap(), &[&input[..], b"more\n"].concat());
    assert_eq!(dir.read("log"), "new\n");
    assert_eq!(dir.read("err"), told);
}

#[test]
fn a_rotation_that_fails_inside_a_line_does_not_divide_it() {
    let dir = Dir::new();
    fs::create_dir_all(dir.path("log.1/x")).unwrap();
    let mut logger = Logger::new(&dir, &[]);
    let start = "x".repeat(300_000);
    logger.write(&start);
    wait_until("its beginning is there", || dir.path("log").exists() && dir.read("log").len() > 150_000);
    kill(logger.pid(), "USR1");
    logger.write("end\n");
    logger.end();
    assert_same(&fs::read(dir.path("log")).unwrap(), format!("{start}end\n").as_bytes());
    assert_eq!(dir.read("err").lines().count(), 1);
}

// ----- signals -----------------------------------------------------------------------

#[test]
fn usr1_rotates_while_nothing_comes() {
    let dir = Dir::new();
    let mut logger = Logger::new(&dir, &["-n", "5"]);
    for number in 1..=3 {
        logger.write(format!("{number}\n"));
        wait_for(&dir, "log", &format!("{number}\n"));
        kill(logger.pid(), "USR1");
        wait_for(&dir, "log", "");
        wait_for(&dir, "log.1", &format!("{number}\n"));
    }
    assert_eq!((dir.read("log.2"), dir.read("log.3")), ("2\n".into(), "1\n".into()));
    logger.end();
}

#[test]
fn usr1_and_hup_open_a_file_that_was_moved_away_anew() {
    for signal in ["USR1", "HUP"] {
        let dir = Dir::new();
        let mut logger = Logger::new(&dir, &[]);
        logger.write("before\n");
        wait_for(&dir, "log", "before\n");
        fs::rename(dir.path("log"), dir.path("moved")).unwrap();
        kill(logger.pid(), signal);
        wait_until("there is a new one", || dir.path("log").exists());
        logger.write("after\n");
        logger.end();
        assert_eq!((dir.read("moved").as_str(), dir.read("log").as_str()), ("before\n", "after\n"));
        assert!(!dir.path("log.1").exists());
    }
}

#[test]
fn hup_pipe_and_the_others_that_mean_nothing_lose_nothing() {
    let dir = Dir::new();
    let mut logger = Logger::new(&dir, &[]);
    for signal in ["HUP", "PIPE", "USR2"] {
        logger.write(format!("{signal}\nhalf "));
        wait_until("it is there", || dir.read("log").ends_with(&format!("{signal}\n")));
        kill(logger.pid(), signal);
    }
    logger.end();
    assert_eq!(dir.read("log"), "HUP\nhalf PIPE\nhalf USR2\nhalf ");
    assert!(!dir.path("log.1").exists());
}

#[test]
fn told_to_stop_it_takes_what_is_in_the_pipe() {
    for (signal, time) in [("TERM", "none"), ("INT", "none"), ("QUIT", "unix")] {
        let dir = Dir::new();
        let mut logger = Logger::new(&dir, &["-s", "0", "-t", time]);
        logger.write("first\nha");
        wait_until("it listens", || dir.read("log").ends_with("first\n"));
        kill(logger.pid(), "STOP");
        wait_until("it is stopped", || {
            under_qemu() || crate::support::process_state(logger.pid()) == Some('T')
        });
        let input = lines(1000);
        assert!(input.len() < 60_000);
        logger.write(&input);
        logger.write("the end");
        kill(logger.pid(), signal);
        kill(logger.pid(), "CONT");
        assert_eq!(logger.code(), 0);
        let text = dir.read("log");
        assert!(text.ends_with("the end"), "{signal}");
        assert_eq!(text.lines().count(), 1002, "{signal}");
        if time == "none" {
            assert_same(text.as_bytes(), &[b"first\nha", &input[..], b"the end"].concat());
        }
        assert_eq!(dir.read("err"), "");
    }
}

#[test]
fn told_to_stop_it_ends_although_its_writer_never_does() {
    let dir = Dir::new();
    let mut logger = Logger::new(&dir, &["-s", "100k"]);
    let mut input = logger.input.take().unwrap();
    let writer = std::thread::spawn(move || while input.write_all(&[b'x'; 99]).is_ok() {});
    wait_until("it rotates", || dir.path("log.1").exists());
    kill(logger.pid(), "TERM");
    assert_eq!(logger.code(), 0);
    writer.join().unwrap();
    // Here there is always more.
    let mut command = zigsvc();
    let zeros = File::open("/dev/zero").unwrap();
    command.arg("log").args(["-s", "100k"]).arg(dir.path("zeros")).stdin(zeros);
    let mut logger = Logger { child: command.spawn().unwrap(), input: None };
    wait_until("it rotates", || dir.path("zeros.1").exists());
    kill(logger.pid(), "TERM");
    assert_eq!(logger.code(), 0);
}

// ----- kill -9 --------------------------------------------------------------------------

#[test]
fn what_was_written_survives_kill_9_and_the_next_run_continues_cleanly() {
    let dir = Dir::new();
    let runs = if under_qemu() { 10 } else { 60 };
    let line =
        |run: usize, number: usize| format!("{run} {number} {}", "z".repeat((run * 31 + number * 7) % 90));
    let mut random = Random::new(u64::from(std::process::id()));
    for run in 0..runs {
        let before = copied(&dir).len() as u64;
        // Large enough for all files that are kept to hold all runs.
        let mut logger = Logger::new(&dir, &["-s", "30000", "-n", "99"]);
        let mut input = logger.input.take().unwrap();
        let (large, count) = (random.below(2) == 0, 500);
        let writer = std::thread::spawn(move || {
            let all = (0..count).map(|number| line(run, number) + "\n");
            if large {
                let _ = input.write_all(all.collect::<String>().as_bytes());
            } else {
                for line in all {
                    if input.write_all(line.as_bytes()).is_err() {
                        break;
                    }
                }
            }
            input
        });
        let enough = random.below(30_000);
        wait_until("some of it is there", || copied(&dir).len() as u64 >= before + enough.min(20_000));
        kill(logger.pid(), "KILL");
        assert_eq!(logger.code(), 137);
        drop(logger);
        drop(writer.join());
    }
    log(&dir, &["-s", "30000", "-n", "99"], b"last\n").expect(0);
    let all = String::from_utf8(copied(&dir)).unwrap();
    let mut found = all.lines().peekable();
    for run in 0..runs {
        let mut number = 0;
        // Each run: a prefix of its lines, of which the last one may be cut.
        while let Some(next) = found.next_if(|next| *next != "last" && line(run, number).starts_with(*next)) {
            let whole = next == line(run, number);
            number += 1;
            if !whole {
                break;
            }
        }
        assert!(number > 0, "run {run}: {:?}", found.peek());
    }
    assert_eq!((found.next(), found.next()), (Some("last"), None));
}

// ----- the file goes away ------------------------------------------------------------------

#[test]
fn a_file_that_is_deleted_or_moved_comes_back() {
    let dir = Dir::new();
    let mut logger = Logger::new(&dir, &["-s", "100"]);
    logger.write("one\n");
    wait_for(&dir, "log", "one\n");
    fs::remove_file(dir.path("log")).unwrap();
    logger.write("two\n");
    wait_for(&dir, "log", "two\n");
    fs::rename(dir.path("log"), dir.path("moved")).unwrap();
    logger.write("three\n");
    wait_for(&dir, "log", "three\n");
    // Another file is in its place, and ends in half a line.
    dir.write("other", "half");
    fs::rename(dir.path("other"), dir.path("log")).unwrap();
    logger.write("four\n");
    wait_for(&dir, "log", "half\nfour\n");
    // Another process empties the file: its actual size counts.
    fs::write(dir.path("log"), "").unwrap();
    for number in 0..10 {
        logger.write("123456789\n");
        wait_until("it is there", || dir.read("log").len() == 10 * (number + 1));
    }
    logger.end();
    assert_eq!(dir.read("moved"), "two\n");
    assert!(!dir.path("log.1").exists());
}

#[test]
fn a_folder_that_is_away_is_waited_for() {
    let dir = Dir::new();
    fs::create_dir(dir.path("folder")).unwrap();
    let path = dir.path("folder/log");
    let mut logger = Logger::of(&dir, &[], &path);
    logger.write("one\n");
    wait_for(&dir, "folder/log", "one\n");
    fs::rename(dir.path("folder"), dir.path("away")).unwrap();
    logger.write("two\nthree\n");
    let told =
        format!("zigsvc: log: {}: openat: ENOENT (no such file or directory); waits\n", path.display());
    wait_for(&dir, "err", &told);
    fs::create_dir(dir.path("folder")).unwrap();
    wait_for(&dir, "folder/log", "two\nthree\n");
    wait_for(&dir, "err", &format!("{told}zigsvc: log: {}: continues\n", path.display()));
    logger.end();
    assert_eq!(dir.read("away/log"), "one\n");
}

// ----- a disk that is full -----------------------------------------------------------------

#[test]
fn a_full_disk_is_waited_out_and_every_line_is_there_once() {
    if !has_namespaces() {
        return;
    }
    for (args, stamp) in
        [(&["-s", "0"][..], 0), (&["-s", "0", "-t", "iso"], 23), (&["-s", "40k", "-n", "99"], 0)]
    {
        let dir = Dir::new();
        let disk = SmallDisk::new(&dir, "2m");
        let path = disk.path(&dir, "log");
        let mut logger = Logger::of(&dir, args, &path);
        let input = lines(if stamp > 0 { 15_000 } else { 30_000 });
        logger.write("first\n");
        wait_until("it is there", || fs::read(&path).is_ok_and(|text| text.ends_with(b"first\n")));
        disk.fill(&dir);
        let writer = logger.write_aside(input.clone());
        wait_until("it is told", || !dir.read("err").is_empty());
        let told =
            format!("zigsvc: log: {}: write: ENOSPC (no space left on device); waits\n", path.display());
        assert_eq!(dir.read("err"), told);
        // Some room, which is soon used up: more than one piece of a line.
        let filler = File::options().write(true).open(disk.path(&dir, "filler")).unwrap();
        let full = filler.metadata().unwrap().len();
        filler.set_len(full - 200_000).unwrap();
        wait_until("it continues", || dir.read("err").contains("continues\n"));
        wait_until("and waits again", || dir.read("err").ends_with("waits\n"));
        assert!(!writer.is_finished(), "it reads on, and where to?");
        drop(filler);
        fs::remove_file(disk.path(&dir, "filler")).unwrap();
        logger.end_of(writer);
        let names = (1..=99).rev().map(|number| format!("log.{number}")).chain(["log".to_owned()]);
        let all: Vec<u8> =
            names.flat_map(|name| fs::read(disk.path(&dir, &name)).unwrap_or_default()).collect();
        let plain: Vec<u8> =
            all.split_inclusive(|byte| *byte == b'\n').flat_map(|line| &line[stamp..]).copied().collect();
        assert_same(&plain, &[b"first\n", &input[..]].concat());
        assert!(dir.read("err").ends_with("continues\n"));
    }
}

impl Logger {
    /// Waits for the end of its input, and for its own.
    #[track_caller]
    fn end_of(mut self, writer: JoinHandle<()>) {
        wait_until("all is written", || writer.is_finished());
        writer.join().unwrap();
        assert_eq!(self.code(), 0);
    }
}

#[test]
fn a_file_that_may_not_grow_is_waited_for_without_being_busy() {
    if !require_native("looks into /proc of the real process") || !require_tool("prlimit") {
        return;
    }
    let dir = Dir::new();
    let mut logger = Logger::new(&dir, &["-s", "0"]);
    crate::support::control::limit_files(logger.pid(), "4096:");
    logger.write(lines(1000));
    // The kernel sends SIGXFSZ each time.
    wait_until("it waits", || dir.read("err").contains("EFBIG"));
    let measuring = crate::support::measuring();
    wait_until("it sleeps", || {
        let before = crate::support::control::ticks(logger.pid());
        let_pass(COPY_RETRY);
        crate::support::control::ticks(logger.pid()) == before
    });
    drop(measuring);
    crate::support::control::limit_files(logger.pid(), "unlimited:");
    logger.end();
    assert_same(&fs::read(dir.path("log")).unwrap(), &lines(1000));
}

#[test]
fn told_to_stop_while_the_disk_is_full_it_ends_and_says_so() {
    let full = Path::new("/dev/full");
    let there = fs::metadata(full).is_ok_and(|meta| meta.file_type().is_char_device());
    if !require(there, "there is no /dev/full") {
        return;
    }
    let dir = Dir::new();
    let mut logger = Logger::of(&dir, &[], full);
    logger.write("lost\n");
    let told = "zigsvc: log: /dev/full: write: ENOSPC (no space left on device); waits\n";
    wait_for(&dir, "err", told);
    kill(logger.pid(), "TERM");
    assert_eq!(logger.code(), 1);
    let last = "zigsvc: log: /dev/full: stopped with lines that could not be written\n";
    assert_eq!(dir.read("err"), format!("{told}{last}"));
}

// ----- what is no regular file -----------------------------------------------------------

#[test]
fn a_device_is_written_and_not_rotated() {
    let dir = Dir::new();
    let mut logger = Logger::of(&dir, &["-s", "10"], Path::new("/dev/null"));
    // More than a pipe holds, so the logger has read some, and has its handlers.
    logger.write(lines(5000));
    kill(logger.pid(), "USR1");
    logger.write(lines(5000));
    logger.end();
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    assert!(!Path::new("/dev/null.1").exists());
    assert_eq!(dir.read("err"), "");
}

#[test]
fn a_fifo_gets_every_byte_however_slowly_it_is_read() {
    let dir = Dir::new();
    let fifo = dir.path("log");
    assert!(program("mkfifo").arg(&fifo).status().unwrap().success());
    // No process reads.
    let ran = log(&dir, &[], b"x\n").expect(1);
    assert_eq!(
        ran.err,
        format!("zigsvc: log: {}: openat: ENXIO (no such device, or nobody reads)\n", fifo.display())
    );
    let mut reader = File::options();
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap();
    let mut reader = reader.read(true).write(true).custom_flags(nonblocking).open(&fifo).unwrap();
    let mut logger = Logger::new(&dir, &["-s", "1000"]);
    let input = lines(20_000);
    let writer = logger.write_aside(input.clone());
    let mut found = Vec::new();
    wait_until("all has come", || {
        // A part of the bytes that a pipe holds at a time.
        let mut piece = [0; 3000];
        if let Ok(count) = reader.read(&mut piece) {
            found.extend_from_slice(&piece[..count]);
        }
        found.len() >= input.len()
    });
    logger.end_of(writer);
    assert_same(&found, &input);
    assert_eq!(dir.read("err"), "");
    assert!(!dir.path("log.1").exists());
}

// ----- its standard input -----------------------------------------------------------------

/// Returns a descriptor as rustix wants it, because rustix knows nothing of std here.
fn rustix_fd(fd: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: it is open as long as what was borrowed.
    unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) }
}

#[test]
fn standard_input_keeps_its_flags_whatever_they_are() {
    for flags in [OFlags::empty(), OFlags::NONBLOCK] {
        let dir = Dir::new();
        let (reader, mut writer) = std::io::pipe().unwrap();
        fcntl_setfl(rustix_fd(&reader), flags).unwrap();
        let mut command = zigsvc();
        command.arg("log").arg(dir.path("log")).stdin(reader.try_clone().unwrap());
        let mut child = command.spawn().unwrap();
        // The command keeps another descriptor of the pipe.
        drop(command);
        for text in ["one\n", "two\n"] {
            writer.write_all(text.as_bytes()).unwrap();
            wait_until("it is there", || dir.read("log").ends_with(text));
            assert_eq!(fcntl_getfl(rustix_fd(&reader)).unwrap() & OFlags::NONBLOCK, flags);
        }
        drop(writer);
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_file_and_a_socket_will_do_and_a_directory_will_not() {
    let dir = Dir::new();
    let input = lines(10_000);
    dir.write("input", &input);
    let with = |stdin: Stdio| {
        let mut command = zigsvc();
        command.arg("log").args(["-s", "0"]).arg(dir.path("log")).stdin(stdin);
        finish(command, None)
    };
    with(File::open(dir.path("input")).unwrap().into()).expect(0);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    (&ours).write_all(b"by socket\n").unwrap();
    drop(ours);
    with(std::os::fd::OwnedFd::from(theirs).into()).expect(0);
    assert_same(&copied(&dir), &[&input[..], b"by socket\n"].concat());
    let ran = with(File::open(dir.path("")).unwrap().into()).expect(1);
    assert_eq!(ran.err, "zigsvc: log: stdin: read: EISDIR (is a directory)\n");
}

// ----- how it is called ---------------------------------------------------------------------

#[test]
fn a_file_that_cannot_be_opened_is_told_before_anything_is_read() {
    let dir = Dir::new();
    dir.write("input", "precious\n");
    dir.write("plain", "");
    symlink(dir.path("plain"), dir.path("link")).unwrap();
    for (name, why) in [
        ("missing/log", "ENOENT (no such file or directory)"),
        ("", "EISDIR (is a directory)"),
        ("plain/log", "ENOTDIR (not a directory)"),
        ("link", "ELOOP (is a symbolic link)"),
    ] {
        let mut input = File::open(dir.path("input")).unwrap();
        let mut command = zigsvc();
        command.arg("log").arg(dir.path(name)).stdin(input.try_clone().unwrap());
        let ran = finish(command, None).expect(1);
        assert_eq!(ran.err, format!("zigsvc: log: {}: openat: {why}\n", dir.path(name).display()));
        assert_eq!((ran.out.as_str(), input.stream_position().unwrap()), ("", 0));
    }
}

#[test]
fn a_missing_right_is_exit_code_4() {
    let possible = crate::support::require_root()
        && require_tool("setpriv")
        && require(crate::support::runner().is_empty(), "a runner cannot be handed to another user");
    if !possible {
        return;
    }
    let dir = Dir::new();
    fs::set_permissions(dir.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let mut inner = program(dir.copy_program(zigsvc().get_program(), "zigsvc"));
    inner.arg("log").arg(dir.path("log"));
    let ran = finish(
        through(&["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"], &inner),
        Some(b"x\n"),
    )
    .expect(4);
    let why = "openat: EACCES (permission denied)";
    assert_eq!(ran.err, format!("zigsvc: log: {}: {why}\n", dir.path("log").display()));
}

#[test]
fn wrong_usage_is_one_line_that_names_the_help() {
    let dir = Dir::new();
    let file = dir.path("log").display().to_string();
    let long = format!("/{}", "x".repeat(255));
    for (args, what) in [
        (&[][..], "missing argument: log [-p] [-s SIZE]"),
        (&["-s"], "-s needs a value"),
        (&["-s", "10", "-n"], "-n needs a value"),
        (&["-s", "", &file], "-s needs bytes"),
        (&["-s", "1g", &file], "-s needs bytes"),
        (&["-s-1", &file], "-s needs bytes"),
        (&["-n", "0", &file], "-n needs a number from 1 to 99"),
        (&["-n100", &file], "-n needs a number from 1 to 99"),
        (&["-t", "ISO", &file], "-t needs iso, unix or none"),
        (&["-x", &file], "unknown option \"-x\""),
        (&["--size", "10", &file], "unknown option \"--size\""),
        (&[&file, "-s"], "unexpected argument \"-s\""),
        (&[&file, &file], "unexpected argument \"/"),
        (&[""], "FILE, made absolute, has 1 to 255 bytes"),
        (&[&long], "FILE, made absolute, has 1 to 255 bytes"),
    ] {
        let mut command = zigsvc();
        command.arg("log").args(args);
        let ran = finish(command, None).expect(2);
        assert!(ran.err.starts_with(&format!("zigsvc: usage: {what}")), "{args:?}: {}", ran.err);
        assert!(
            ran.err.ends_with("; see `zigsvc help log`\n") && ran.err.lines().count() == 1,
            "{}",
            ran.err
        );
        assert!(!dir.path("log").exists());
    }
}

#[test]
fn options_may_be_attached_and_file_may_be_relative_or_begin_with_a_dash() {
    for args in [&["-s", "1k", "-n", "2"][..], &["-s1k", "-n2"], &["-n2", "-s", "5", "-s", "1024"]] {
        let dir = Dir::new();
        for name in ["log", "./log"] {
            let mut command = zigsvc();
            command.current_dir(dir.path("")).arg("log").args(args).args(["--", name]);
            finish(command, Some(b"123456789\n".repeat(200).as_slice())).expect(0);
        }
        let lengths: Vec<usize> = files(&dir).iter().map(Vec::len).collect();
        assert_eq!(lengths, [1020, 1020, 940], "{args:?}");
        let mut command = zigsvc();
        command.current_dir(dir.path("")).args(["log", "--", "-log"]);
        finish(command, Some(b"x\n")).expect(0);
        assert_eq!(dir.read("-log"), "x\n");
    }
}

// ----- what it costs --------------------------------------------------------------------------

#[test]
fn it_takes_no_memory_from_the_kernel_and_sleeps_while_nothing_comes() {
    if !require_native("looks into /proc of the real process") || !require_tool("strace") {
        return;
    }
    let dir = Dir::new();
    let mut inner = zigsvc();
    inner.args(["log", "-t", "iso", "-s", "100k"]).arg(dir.path("log"));
    let trace = dir.path("trace").display().to_string();
    let traced = through(&["strace", "-qq", "-o", &trace], &inner);
    finish(traced, Some(&lines(20_000))).expect(0);
    let text = dir.read("trace");
    assert!(text.contains("\nread(0,") && text.contains("\nrenameat("), "{text}");
    // With the parenthesis, because the path of the program may contain one of these words.
    for call in ["mmap(", "brk(", "mremap(", "clone(", "clone3(", "F_SETFL"] {
        assert!(!text.contains(call), "{call}");
    }
    // Idle: in one poll, and it stays there.
    let mut logger = Logger::new(&dir, &[]);
    logger.write("one\n");
    wait_until("it is there", || dir.read("log").ends_with("one\n"));
    let _measuring = crate::support::measuring();
    let switches = || crate::support::proc_status(logger.pid(), "voluntary_ctxt_switches");
    wait_until("it sleeps", || {
        let before = switches();
        let_pass(COPY_RETRY);
        switches() == before
    });
    let anonymous: u32 =
        crate::support::proc_status(logger.pid(), "RssAnon").split(' ').next().unwrap().parse().unwrap();
    assert!(anonymous <= 40, "{anonymous} KiB");
    logger.end();
}

#[test]
fn nobody_who_reads_its_stderr_is_needed() {
    let dir = Dir::new();
    fs::create_dir_all(dir.path("log.1/x")).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = zigsvc();
    command.args(["log", "-s", "10"]).arg(dir.path("log")).stdin(Stdio::piped()).stderr(writer);
    let mut child = command.spawn().unwrap();
    let written = child.stdin.take().unwrap().write_all(b"123456789\n123456789\n");
    assert!(!matches!(written, Err(error) if error.kind() != ErrorKind::BrokenPipe));
    assert!(child.wait().unwrap().success());
    assert_eq!(dir.read("log").lines().count(), 2);
}
