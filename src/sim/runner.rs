//! Runs many boards, and reports a run that fails: its line, what went wrong, and the last steps. The
//! line is made as short as it can be first.

use super::board::Board;
use super::scenario::{Kind, Part, Scenario};
use super::supervised::SupervisedBoard;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once};

thread_local! {
    /// This thread expects a panic, and reports it itself.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// The counts of all runs.
#[derive(Default, Debug)]
pub(super) struct Totals {
    pub(super) fired: BTreeMap<Kind, u64>,
    pub(super) secs: u64,
    pub(super) turns: u64,
    pub(super) jobs: u64,
    pub(super) ends: u64,
    pub(super) lives: u64,
    pub(super) shadows: u64,
    pub(super) acknowledged: u64,
    pub(super) supervisor_secs: u64,
    pub(super) supervisor_turns: u64,
    pub(super) supervisor_lives: u64,
}

/// The counts of one run, and what stands for its steps.
#[derive(Default)]
pub(super) struct Counts {
    totals: Totals,
    digest: u64,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        for (kind, count) in &other.fired {
            *self.fired.entry(*kind).or_default() += count;
        }
        self.secs += other.secs;
        self.turns += other.turns;
        self.jobs += other.jobs;
        self.ends += other.ends;
        self.lives += other.lives;
        self.shadows += other.shadows;
        self.acknowledged += other.acknowledged;
        self.supervisor_secs += other.supervisor_secs;
        self.supervisor_turns += other.supervisor_turns;
        self.supervisor_lives += other.supervisor_lives;
    }
}

/// A board that can be run.
trait Simulated {
    fn run(&mut self);
    fn keep_steps(&mut self, lines: usize);
    fn steps(&self) -> Vec<String>;
    fn counts(&self) -> Counts;
}

impl Simulated for Board {
    fn run(&mut self) {
        self.run();
    }

    fn keep_steps(&mut self, lines: usize) {
        self.line.trace_lines = lines;
    }

    fn steps(&self) -> Vec<String> {
        self.line.steps()
    }

    fn counts(&self) -> Counts {
        let mut fired = self.line.fired.clone();
        *fired.entry(Kind::NumberAgain).or_default() += self.processes.numbers_again;
        let totals = Totals {
            fired,
            secs: self.line.time / 1000,
            turns: self.turns,
            jobs: self.ledger.jobs.len() as u64,
            ends: self.ledger.ends,
            lives: self.lives,
            shadows: self.shadows,
            acknowledged: self.acknowledged,
            ..Totals::default()
        };
        Counts { totals, digest: self.line.digest }
    }
}

impl Simulated for SupervisedBoard {
    fn run(&mut self) {
        self.run();
    }

    fn keep_steps(&mut self, lines: usize) {
        self.line.trace_lines = lines;
    }

    fn steps(&self) -> Vec<String> {
        self.line.steps()
    }

    fn counts(&self) -> Counts {
        let mut fired = self.line.fired.clone();
        *fired.entry(Kind::NumberAgain).or_default() += self.kernel.numbers_again;
        let totals = Totals {
            fired,
            supervisor_secs: self.line.time / 1000,
            supervisor_turns: self.turns,
            supervisor_lives: self.lives,
            ..Totals::default()
        };
        Counts { totals, digest: self.line.digest }
    }
}

fn be_quiet() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
}

/// Runs a scenario.
///
/// # Errors
/// What went wrong, and the last steps.
pub(super) fn run(scenario: &Scenario, traced: bool) -> Result<Counts, (String, Vec<String>)> {
    be_quiet();
    let mut board: Box<dyn Simulated> = match scenario.part {
        Part::Jobs => Box::new(Board::new(scenario, traced)),
        Part::Supervisor => Box::new(SupervisedBoard::new(scenario, traced)),
    };
    if let Some(lines) = number("ZIGSVC_SIM_STEPS") {
        board.keep_steps(usize::try_from(lines).unwrap_or(usize::MAX));
    }
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| board.run()));
    QUIET.set(false);
    let Err(cause) = result else { return Ok(board.counts()) };
    let text = cause.downcast_ref::<String>().cloned();
    let text = text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Err((text.unwrap_or_default(), board.steps()))
}

fn fails(scenario: &Scenario) -> bool {
    run(scenario, false).is_err()
}

/// Leaves out what the failure does not need.
fn shorten(scenario: &Scenario) -> Scenario {
    let mut shortest = scenario.clone();
    while shortest.secs > 60 {
        let shorter = Scenario { secs: shortest.secs * 3 / 4, ..shortest.clone() };
        if !fails(&shorter) {
            break;
        }
        shortest = shorter;
    }
    let is_of_supervisor = scenario.part == Part::Supervisor;
    for kind in Kind::ALL.iter().filter(|kind| kind.is_of_supervisor() == is_of_supervisor) {
        let mut without = shortest.clone();
        without.without.push(*kind);
        if fails(&without) {
            shortest = without;
        }
    }
    let mut step = shortest.secs / 2;
    while step > 10 {
        let later = Scenario { calm: shortest.calm + step, ..shortest.clone() };
        if later.calm < later.secs && fails(&later) {
            shortest = later;
        } else {
            step /= 2;
        }
    }
    shortest
}

/// Returns the report of a scenario that fails.
pub(super) fn report(scenario: &Scenario) -> String {
    let shortest = shorten(scenario);
    let Err((text, steps)) = run(&shortest, true) else { return format!("{scenario}: it fails once only") };
    format!("{text}\nthis run: {scenario}\nshortened: {shortest}\nits last steps:\n{}", steps.join("\n"))
}

/// Returns the parts that are simulated: both, or the one that `ZIGSVC_SIM_BOARD` names.
fn parts() -> Vec<Part> {
    let name = std::env::var("ZIGSVC_SIM_BOARD").ok();
    let is_meant = |part: &Part| name.as_ref().is_none_or(|name| part.name() == name);
    Part::ALL.into_iter().filter(is_meant).collect()
}

/// Runs `count` seeds from `first` on, `secs` seconds each, on two threads. The first run that fails
/// ends that, unless `continues` is true. Returns the counts, and the runs that failed.
pub(super) fn run_seeds(first: u64, count: u64, secs: u64, continues: bool) -> (Totals, Vec<Scenario>) {
    let (next, totals, failed) =
        (AtomicU64::new(first), Mutex::new(Totals::default()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || !continues && !failed.lock().unwrap().is_empty() {
                        return;
                    }
                    for part in parts() {
                        let scenario = Scenario::new(part, seed, secs);
                        match run(&scenario, false) {
                            Ok(counts) => totals.lock().unwrap().add(&counts.totals),
                            Err(_) => failed.lock().unwrap().push(scenario),
                        }
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort_by_key(|scenario| scenario.seed);
    (totals.into_inner().unwrap(), failed)
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text:?} is no number")))
}

/// Seconds of one run.
const SECS: u64 = 3456;

/// Runs two days, or `ZIGSVC_SIM_DAYS`, from seed 1 on, or from `ZIGSVC_SIM_SEED` on. With the seed
/// alone, runs that seed.
#[test]
fn two_days_of_fifty_boards_break_no_promise() {
    let (seed, days) = (number("ZIGSVC_SIM_SEED"), number("ZIGSVC_SIM_DAYS"));
    let (first, count) = match (seed, days) {
        (Some(seed), None) => (seed, 1),
        (Some(seed), Some(days)) => (seed, days * 25),
        (None, Some(days)) => (1, days * 25),
        // The decisions do not depend on the processor, and emulation takes ten times as long.
        (None, None) => (1, if cfg!(target_pointer_width = "32") { 5 } else { 50 }),
    };
    let begin = std::time::Instant::now();
    let (totals, failed) = run_seeds(first, count, SECS, days.is_some());
    let took = begin.elapsed();
    let ms = u64::try_from(took.as_millis()).unwrap_or(1).max(1);
    eprintln!("{took:?}, {} times real time: {totals:?}", totals.secs * 1000 / ms);
    if let Some(scenario) = failed.first() {
        let lines: Vec<String> = failed.iter().map(Scenario::to_string).collect();
        panic!("{} runs failed:\n{}\n{}", failed.len(), lines.join("\n"), report(scenario));
    }
    let unfired: Vec<_> = Kind::ALL.iter().filter(|kind| !totals.fired.contains_key(kind)).collect();
    assert!(count < 50 || parts().len() == 1 || unfired.is_empty(), "never happened: {unfired:?}");
}

/// Returns the first of `count` seeds that fails, and what went wrong.
fn first_failure(count: u64) -> Option<(u64, String)> {
    let runs = (1..=count).flat_map(|seed| parts().into_iter().map(move |part| (seed, part)));
    let mut failures = runs.filter_map(|(seed, part)| {
        let (text, _) = run(&Scenario::new(part, seed, SECS), false).err()?;
        Some((seed, text))
    });
    failures.next()
}

/// Runs `ZIGSVC_SIM_UNTIL` seeds until one fails, and prints it. `.ci/teeth` asks for that in a copy
/// with a defect.
#[test]
fn the_first_seed_that_fails() {
    let Some(count) = number("ZIGSVC_SIM_UNTIL") else { return };
    match first_failure(count) {
        Some((seed, text)) => println!("seed {seed}: {}", text.lines().next().unwrap_or_default()),
        None => println!("seed none"),
    }
}

/// Seeds beyond the first fifty that found a defect, of the board or of the simulation.
const FOUND: [(Part, &[u64]); 2] = [
    (
        Part::Jobs,
        &[147, 213, 270, 301, 336, 387, 417, 467, 142, 437, 480, 676, 762, 853, 894, 1068, 6424, 8168, 8327],
    ),
    (
        Part::Supervisor,
        &[
            70, 77, 81, 87, 106, 122, 141, 144, 155, 163, 184, 186, 196, 197, 216, 250, 305, 358, 362, 392,
            399, 447, 463, 474, 475, 238, 260, 321, 489, 730, 978, 1021, 1039, 1090, 1179, 1203, 1428, 1520,
            1560, 1923, 2487, 2494, 2594, 2802, 3882, 4674, 4779, 5081, 6315, 7690, 7737, 7793, 8595, 8788,
        ],
    ),
];

#[test]
fn the_seeds_that_found_a_defect_find_none() {
    for (part, seeds) in FOUND {
        for seed in seeds {
            let scenario = Scenario::new(part, *seed, SECS);
            assert!(!fails(&scenario), "{}", report(&scenario));
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for part in Part::ALL {
        let digest = |seed| run(&Scenario::new(part, seed, 600), true).map(|counts| counts.digest).unwrap();
        assert_eq!(digest(7), digest(7));
        assert_ne!(digest(7), digest(8));
    }
}

/// Runs one line of a report again: `ZIGSVC_SIM_SCENARIO="seed=7 secs=600 without=kill"`.
#[test]
fn a_line_of_a_report_gives_that_run() {
    let Ok(line) = std::env::var("ZIGSVC_SIM_SCENARIO") else { return };
    let scenario = Scenario::parse(&line).unwrap_or_else(|error| panic!("ZIGSVC_SIM_SCENARIO: {error}"));
    if let Err((text, steps)) = run(&scenario, true) {
        panic!("{text}\n{}", steps.join("\n"));
    }
}

#[test]
fn a_scenario_is_one_line() {
    let line = "board=supervisor seed=7 secs=600 calm=60 without=sleep,power-lost";
    assert_eq!(Scenario::parse(line).map(|scenario| scenario.to_string()), Ok(line.to_owned()));
    for (line, why) in [
        ("board=kite", "\"kite\" is no board"),
        ("seed", "\"seed\" is not KEY=VALUE"),
        ("seed=x", "\"seed=x\": \"x\" is no number"),
        ("days=1", "\"days\" is not board, seed, secs, calm or without"),
        ("without=rain", "\"rain\" is no kind of event"),
    ] {
        assert_eq!(Scenario::parse(line), Err(why.to_owned()));
    }
}
