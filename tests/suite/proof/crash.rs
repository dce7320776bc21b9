//! kill -9 of the real daemon at random moments, again and again, while
//! writers append to the queue file. Afterwards every line has run, nothing
//! was half read, and no job ran more often than kills explain.
//!
//! `ZIGSVC_KILLS` (200) and `ZIGSVC_LINES` (20000) make it longer or shorter,
//! `ZIGSVC_SEED` repeats one choice of moments; what happened is printed with
//! `--nocapture`.
//!
//! A kill leaves the kernel's page cache as it is, so these tests say nothing
//! about syncs: that is the power-cut test of `qemu/`.

use crate::support::random::Random;
use crate::support::{Dir, kill_hard, logged_number, under_qemu, wait_until};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;
use std::{fs, thread};

/// Returns a number from the environment, or else `default`, a tenth of it under QEMU.
fn setting(name: &str, default: usize) -> usize {
    crate::support::setting(name, (if under_qemu() { default / 10 } else { default }) as u64) as usize
}

/// Returns a generator, and prints its seed.
fn random(test: &str, seed: usize) -> Random {
    let seed = setting("ZIGSVC_SEED", seed) as u64;
    eprintln!("{test}: ZIGSVC_SEED={seed}");
    Random::new(seed)
}

/// A daemon that is killed and started again.
struct Victim<'a> {
    dir: &'a Dir,
    options: Vec<String>,
    pid: u32,
    kills: usize,
}

impl<'a> Victim<'a> {
    fn start(dir: &'a Dir, options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let mut victim = Self { dir, options, pid: 0, kills: 0 };
        victim.start_again();
        victim
    }

    fn start_again(&mut self) {
        let options: Vec<&str> = self.options.iter().map(String::as_str).collect();
        self.pid = self.dir.start(&options);
    }

    /// Kills the daemon with KILL, and starts a new one when the old one is gone.
    fn replace(&mut self) {
        kill_hard(self.pid);
        self.kills += 1;
        self.start_again();
    }

    /// Returns the number that a new status line has for `key`.
    #[track_caller]
    fn status(&self, key: &str) -> u64 {
        logged_number(self.dir, self.pid, key)
    }

    /// Waits, as long as there is progress, until nothing is left to do.
    #[track_caller]
    fn wait_until_idle(&self) {
        let mut last = (u64::MAX, Instant::now());
        loop {
            let left = self.status("waiting") + self.status("running");
            if left == 0 {
                return;
            }
            if left != last.0 {
                last = (left, Instant::now());
            }
            assert!(last.1.elapsed() < Duration::from_secs(60), "{left} jobs do not go on");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Appends lines from several threads; `done` counts them.
struct Writers {
    threads: usize,
    lines: usize,
    /// Pause between two lines of a thread, so that they last as long as the kills.
    pause: Duration,
}

/// Returns the line. Its last word shows that the line is whole.
fn line(writer: usize, number: usize) -> String {
    let padding = "-".repeat(number * 7 % 60);
    format!("w{writer} n{number} {padding} END")
}

impl Writers {
    fn run<R: Send>(&self, dir: &Dir, meanwhile: impl FnOnce(&AtomicBool) -> R) -> R {
        let finished = AtomicBool::new(false);
        let active = AtomicUsize::new(self.threads);
        thread::scope(|scope| {
            for writer in 0..self.threads {
                let (active, finished) = (&active, &finished);
                scope.spawn(move || {
                    for number in 0..self.lines / self.threads {
                        dir.append("queue", &format!("{}\n", line(writer, number)));
                        if !self.pause.is_zero() {
                            thread::sleep(self.pause);
                        }
                    }
                    if active.fetch_sub(1, Ordering::AcqRel) == 1 {
                        finished.store(true, Ordering::Release);
                    }
                });
            }
            meanwhile(&finished)
        })
    }

    fn wanted(&self) -> Vec<String> {
        let per_thread = self.lines / self.threads;
        (0..self.threads).flat_map(|writer| (0..per_thread).map(move |number| line(writer, number))).collect()
    }
}

/// Returns how often each line ran. A line that is not among the wanted ones is an error.
#[track_caller]
fn tally<'a>(wanted: &'a [String], ran: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts: BTreeMap<&str, usize> = wanted.iter().map(|line| (line.as_str(), 0)).collect();
    for text in ran {
        *counts.get_mut(text).unwrap_or_else(|| panic!("half read or invented: {text:?}")) += 1;
    }
    counts
}

/// Prints the row that these tests are about, and returns lost and doubled.
fn report(test: &str, kills: usize, counts: &BTreeMap<&str, usize>, took: Duration) -> (usize, usize) {
    let lost = counts.values().filter(|count| **count == 0).count();
    let doubled: usize = counts.values().map(|count| count.saturating_sub(1)).sum();
    eprintln!("{test}: kills={kills} lines={} lost={lost} doubled={doubled} in {took:?}", counts.len());
    (lost, doubled)
}

#[test]
fn no_line_is_lost_or_half_read_when_the_daemon_is_killed_while_handlers_run() {
    let began = Instant::now();
    let dir = Dir::new();
    let mut random = random("handlers", 1);
    let workers = 2;
    dir.write_executable("handler", &format!("#!/bin/sh\nprintf '%s\\n' \"$1\" >> {}/out\n", dir.as_arg()));
    let handler = format!("handler={}", dir.path("handler").display());
    let options = [&handler, &format!("workers={workers}"), "log_max=0", "retries=100", "retry_delay=1ms"];
    let mut victim = Victim::start(&dir, &options);
    let kills = setting("ZIGSVC_KILLS", 200);
    let writers = Writers { threads: 4, lines: kills * 20, pause: Duration::from_millis(4) };
    writers.run(&dir, |finished| {
        while victim.kills < kills || !finished.load(Ordering::Acquire) {
            thread::sleep(Duration::from_micros(random.below(60_000)));
            victim.replace();
        }
    });
    let wanted = writers.wanted();
    wait_until("the last lines are taken", || {
        victim.wait_until_idle();
        tally(&wanted, dir.read("out").lines()).values().all(|count| *count > 0)
    });
    victim.wait_until_idle();
    dir.zigsvc(&["stop"]).expect(0);
    let out = dir.read("out");
    let counts = tally(&wanted, out.lines());
    let (lost, doubled) = report("handlers", victim.kills, &counts, began.elapsed());
    assert_eq!(lost, 0);
    assert!(doubled <= victim.kills * workers, "{doubled} more than {} kills explain", victim.kills);
}

#[test]
fn no_line_is_lost_from_many_that_are_logged_while_the_daemon_is_killed() {
    let began = Instant::now();
    let dir = Dir::new();
    let mut random = random("many", 2);
    let lines = setting("ZIGSVC_LINES", 20_000);
    let writers = Writers { threads: 4, lines, pause: Duration::ZERO };
    let mut victim = Victim::start(&dir, &["log_max=0", "queue_max=10000000"]);
    let kills = (lines / 400).clamp(20, 400);
    writers.run(&dir, |finished| {
        while victim.kills < kills || !finished.load(Ordering::Acquire) {
            thread::sleep(Duration::from_micros(random.below(80_000)));
            victim.replace();
        }
    });
    let wanted = writers.wanted();
    // A line that a kill cut in half was not recorded as logged, and is logged again.
    let logged = |log: &str| -> Vec<String> {
        log.lines()
            .filter_map(|line| Some(line.split_once("] [INFO] processing job: ")?.1.to_owned()))
            .filter(|text| text.ends_with("END"))
            .collect()
    };
    wait_until("the last lines are taken", || {
        victim.wait_until_idle();
        let logged = logged(&dir.read("zigsvc.log"));
        tally(&wanted, logged.iter().map(String::as_str)).values().all(|count| *count > 0)
    });
    dir.zigsvc(&["stop"]).expect(0);
    let logged = logged(&dir.read("zigsvc.log"));
    let counts = tally(&wanted, logged.iter().map(String::as_str));
    let (lost, doubled) = report("many", victim.kills, &counts, began.elapsed());
    assert_eq!(lost, 0);
    // A window of jobs is logged at once, and recorded as done after that.
    assert!(doubled <= victim.kills * 32, "{doubled} more than {} kills explain", victim.kills);
}

#[test]
fn nothing_is_lost_when_the_daemon_is_killed_among_retries_deaths_and_compactions() {
    let began = Instant::now();
    let dir = Dir::new();
    let mut random = random("compactions", 3);
    // One write for each attempt, before it fails or not.
    let body = "read kind rest <<E\n$1\nE\nprintf '%s\\n' \"${1%% *} $ZIGSVC_JOB_ID\" >> out\n[ \"$kind\" != ${kind%bad} ] && exit 1\nexit 0";
    dir.write_executable("handler", &format!("#!/bin/sh\ncd {}\n{body}\n", dir.as_arg()));
    let handler = format!("handler={}", dir.path("handler").display());
    let options = [&handler, "workers=4", "log_max=0", "retries=2", "retry_delay=1ms", "queue_max=100000"];
    let mut victim = Victim::start(&dir, &options);
    let kills = setting("ZIGSVC_KILLS", 200).min(100);
    let jobs = kills * 12;
    // Long lines, so that the journal grows past what is rewritten; each fourth
    // one never works.
    let padding = "x".repeat(700);
    let name = |number: usize| format!("j{number}{}", if number.is_multiple_of(4) { "bad" } else { "" });
    let (mut written, mut journals) = (0, Vec::new());
    // A busy machine gets through fewer jobs between two kills, and needs more of both.
    while victim.kills < kills || written < jobs || (journals.len() < 3 && written < jobs * 4) {
        for _ in 0..jobs / kills {
            dir.append("queue", &format!("{} {padding}\n", name(written)));
            written += 1;
        }
        thread::sleep(Duration::from_micros(random.below(70_000)));
        victim.replace();
        let journal = fs::metadata(dir.path("spool/journal")).unwrap().ino();
        if journals.last() != Some(&journal) {
            journals.push(journal);
        }
    }
    let jobs = written;
    let runs =
        |name: &str| dir.read("out").lines().filter(|line| line.split(' ').next() == Some(name)).count();
    wait_until("the last lines are taken", || {
        victim.wait_until_idle();
        runs(&name(jobs - 1)) > 0
    });
    victim.wait_until_idle();
    let dead = usize::try_from(victim.status("dead")).unwrap();
    victim.replace();
    let dead_again = usize::try_from(victim.status("dead")).unwrap();
    dir.zigsvc(&["stop"]).expect(0);
    let out = dir.read("out");
    let wanted: Vec<String> = (0..jobs).map(name).collect();
    let counts = tally(&wanted, out.lines().map(|line| line.split(' ').next().unwrap()));
    let (lost, _) = report("compactions", victim.kills, &counts, began.elapsed());
    let size = fs::metadata(dir.path("spool/journal")).unwrap().len();
    eprintln!("compactions: journals={} dead={dead} final journal {size} bytes", journals.len());
    assert_eq!(lost, 0);
    let bad = wanted.iter().filter(|name| name.ends_with("bad")).count();
    // A good job that was killed in its last attempt is dead too.
    assert!(dead >= bad && dead <= bad + victim.kills * 4, "{dead} dead of {bad}");
    assert_eq!(dead, dead_again, "the dead after another kill");
    assert!(journals.len() > 2 || kills < 50, "the journal was never rewritten");
    assert!(!dir.path("spool/journal.bad-1").exists(), "a journal that only kills touched was damaged");
}
