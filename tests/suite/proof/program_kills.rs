//! kill -9 of programs and of their supervisor at random. Each kill is counted once, each end
//! is followed by one start, and at no look are two processes of one program alive. And a
//! storm: all programs of a board end again and again.
//!
//! `ZIGSVC_PROGRAM_KILLS` is the number of kills (40). 1000 take about three minutes. The
//! results are printed with `--nocapture`.

use crate::support::control::SetOnDrop;
use crate::support::random::Random;
use crate::support::supervisor::{LOG, QUICK, Supervised};
use crate::support::{
    alive, kill, kill_hard, log_lines_matching, proc_status, require_native, setting, wait_until,
};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::collections::HashSet;
use std::fs;
use std::thread;
use std::time::Instant;

const PROGRAMS: usize = 16;

/// Creates a folder with sixteen programs, each a shell with the script that `script` returns for
/// its number, and these lines in its file.
fn board(script: &dyn Fn(usize) -> String, lines: &str) -> Supervised {
    let dir = Supervised::new();
    fs::create_dir(dir.path("programs")).unwrap();
    let names: Vec<String> = (0..PROGRAMS).map(|number| format!("p{number}")).collect();
    dir.write("zigsvc.conf", format!("supervise = {names:?}\n"));
    for (number, name) in names.iter().enumerate() {
        let text = format!("command = [\"/bin/sh\", \"-c\", {:?}]\n{lines}", script(number));
        dir.write(&format!("programs/{name}.conf"), text);
    }
    dir
}

/// Returns the PIDs of all lives of a program, in their order.
fn lives(dir: &Supervised, program: usize) -> Vec<u32> {
    dir.read(&format!("lives-{program}")).lines().filter_map(|line| line.parse().ok()).collect()
}

/// Returns those processes of a program that are alive. A number that the kernel has used again
/// for a process of another program does not count.
fn living(dir: &Supervised, program: usize) -> HashSet<u32> {
    let mark = format!("LIVES={}", dir.path(&format!("lives-{program}")).display());
    let is_own = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    lives(dir, program).into_iter().filter(|pid| alive(*pid) && is_own(pid)).collect()
}

/// Returns how often the log says that a program was killed.
fn counted(dir: &Supervised, program: usize) -> usize {
    dir.count(&format!("] p{program}: killed by signal 9 after "))
}

/// Waits until each program has had this many lives, and the last of each is ready.
#[track_caller]
fn wait_for_lives(dir: &Supervised, least: &[usize]) {
    wait_until("each program lives", || {
        let log = dir.read(LOG);
        least.iter().enumerate().all(|(program, least)| {
            let lives = lives(dir, program);
            let is_ready = |pid: &u32| log.contains(&format!("] p{program}: running (pid {pid})"));
            lives.len() >= *least && lives.last().is_some_and(|pid| alive(*pid) && is_ready(pid))
        })
    });
}

#[test]
fn each_kill_of_a_program_or_its_supervisor_counts_once_and_none_is_twice_alive() {
    if !require_native("/proc shows QEMU's own process") {
        return;
    }
    let kills = setting("ZIGSVC_PROGRAM_KILLS", 40) as usize;
    let began = Instant::now();
    // Every fourth program does not hear the death of its supervisor.
    let script = |number: usize| {
        let trap = if number.is_multiple_of(4) { "trap '' TERM; " } else { "" };
        format!("{trap}echo $$ >>\"$LIVES\"; exec sleep 600")
    };
    let dir = board(&script, "stop_timeout = \"300ms\"\n");
    for program in 0..PROGRAMS {
        let path = format!("programs/p{program}.conf");
        let lives = dir.path(&format!("lives-{program}"));
        dir.append(&path, &format!("env = [\"LIVES={}\"]\n", lives.display()));
    }
    let over = AtomicBool::new(false);
    let looks = AtomicU64::new(0);
    let mut random = Random::new(22);
    let (mut killed, mut supervisors, mut unseen) = (0, 0, 0);
    thread::scope(|scope| {
        let ended = SetOnDrop(&over);
        let watching = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for program in 0..PROGRAMS {
                    let living = living(&dir, program);
                    assert!(living.len() <= 1, "p{program} is alive as {living:?}\n{}", dir.read(LOG));
                }
                looks.fetch_add(1, Ordering::Relaxed);
            }
        });
        while killed + supervisors < kills {
            let had: Vec<usize> = (0..PROGRAMS).map(|program| lives(&dir, program).len()).collect();
            let told: Vec<usize> = (0..PROGRAMS).map(|program| counted(&dir, program)).collect();
            let supervisor = dir.start_supervisor(QUICK);
            let first: Vec<usize> = had.iter().map(|had| had + 1).collect();
            wait_for_lives(&dir, &first);
            // A program is killed up to two times, so that no restart is delayed for more than a second.
            let mut hits = [0; PROGRAMS];
            // A process that was killed may live on until it gets a processor.
            let mut victims = HashSet::new();
            for _ in 0..16 {
                let program = random.index(PROGRAMS);
                let last = lives(&dir, program).last().copied().unwrap();
                if hits[program] < 2 && living(&dir, program).contains(&last) && victims.insert(last) {
                    kill(last, "KILL");
                    hits[program] += 1;
                }
                thread::sleep(Duration::from_millis(random.below(20)));
            }
            let is_calm = random.below(2) == 0;
            if is_calm {
                let all: Vec<usize> = first.iter().zip(&hits).map(|(first, hits)| first + hits).collect();
                wait_for_lives(&dir, &all);
                let line = dir.status(supervisor);
                let sum: usize = hits.iter().sum();
                assert!(line.contains(&format!(" restarts={sum} ")), "{hits:?}: {line}");
            }
            thread::sleep(Duration::from_millis(random.below(50)));
            kill_hard(supervisor);
            killed += hits.iter().sum::<usize>();
            supervisors += 1;
            for (program, hits) in hits.iter().enumerate() {
                let seen = counted(&dir, program) - told[program];
                let starts = lives(&dir, program).len() - had[program];
                assert!(
                    seen <= *hits && starts <= hits + 1,
                    "p{program}: {hits} kills, {seen} seen, {starts} starts"
                );
                assert!(
                    !is_calm || seen == *hits && starts == hits + 1,
                    "p{program}: {hits} kills, {seen}, {starts}"
                );
                unseen += hits - seen;
            }
        }
        let all: Vec<usize> = (0..PROGRAMS).map(|program| lives(&dir, program).len() + 1).collect();
        dir.start_supervisor(QUICK);
        wait_for_lives(&dir, &all);
        dir.zigsvc(&["stop", "supervisor"]).expect(0);
        drop(ended);
        watching.join().unwrap();
    });
    for program in 0..PROGRAMS {
        assert!(living(&dir, program).is_empty(), "p{program} has outlived `stop`");
    }
    eprintln!(
        "kills={killed} of programs, {supervisors} of the supervisor; {unseen} ends came after the \
         supervisor's own; looks={looks:?} in {:?}",
        began.elapsed()
    );
}

#[test]
fn a_storm_of_sixteen_programs_that_end_at_once_keeps_log_and_processor_within_bounds() {
    if !require_native("the processor time would be QEMU's") {
        return;
    }
    let _measuring = crate::support::measuring();
    let dir = board(&|_| "echo up; exit 3".to_owned(), "");
    let began = Instant::now();
    let supervisor = dir.start_supervisor(QUICK);
    let ends = |program: usize| dir.count(&format!("] p{program}: ended with exit status 3 after "));
    wait_until("each has ended four times", || (0..PROGRAMS).all(|program| ends(program) >= 4));
    let number = |name: &str| proc_status(supervisor, name).parse::<u64>().unwrap();
    let switches = number("voluntary_ctxt_switches");
    let stat = fs::read_to_string(format!("/proc/{supervisor}/stat")).unwrap();
    let ticks: u64 = stat
        .rsplit_once(") ")
        .unwrap()
        .1
        .split(' ')
        .skip(11)
        .take(2)
        .map(|word| word.parse::<u64>().unwrap())
        .sum();
    let beats = dir.beats();
    let log = dir.read(LOG);
    let lived = began.elapsed().as_secs();
    let mut all = 0;
    for program in 0..PROGRAMS {
        let ended = log_lines_matching(&log, &format!("] p{program}: ended with exit status 3 after "));
        let started = log_lines_matching(&log, &format!("] p{program}: running (pid "));
        // The restarts come at once, and after 1, 2, 4 s and so on.
        assert!(1 << (ended - 2) <= lived + 1, "p{program}: {ended} ends in {lived} s");
        assert!(started <= ended + 1, "p{program}: {started} starts, {ended} ends");
        let printed = log_lines_matching(&dir.read(&format!("zigsvc-p{program}.log")), "] up");
        assert!((ended..=ended + 2).contains(&printed), "p{program}: {printed} lines, {ended} ends");
        all += ended;
    }
    // Two lines for each life, and few others.
    let lines = log.lines().count();
    assert!(lines <= 2 * all + 2 * PROGRAMS + 10, "{lines} lines for {all} ends\n{log}");
    // An end wakes the supervisor up to five times: its start, its output, its end, its restart.
    let woken = (switches as usize).saturating_sub(beats as usize);
    assert!(woken <= 5 * all + 10 * PROGRAMS, "{woken} wake-ups for {all} ends");
    // A tick is 10 ms.
    assert!(ticks as usize <= all + 20, "{ticks} ticks for {all} ends");
    eprintln!("ends={all} lines={lines} wake-ups={woken} ticks={ticks} in {lived} s");
    dir.zigsvc(&["stop", "supervisor"]).expect(0);
}
