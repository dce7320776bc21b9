//! Runs many boards, and reports a run that fails: its line, what went wrong, and the last steps. The
//! line is made as short as it can be first.

use super::board::Board;
use super::scenario::{Kind, Scenario};
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
}

impl Totals {
    fn add(&mut self, board: &Board) {
        for (kind, count) in &board.fired {
            *self.fired.entry(*kind).or_default() += count;
        }
        *self.fired.entry(Kind::NumberAgain).or_default() += board.processes.numbers_again;
        self.secs += board.time / 1000;
        self.turns += board.turns;
        self.jobs += board.ledger.jobs.len() as u64;
        self.ends += board.ledger.ends;
        self.lives += board.lives;
        self.shadows += board.shadows;
        self.acknowledged += board.acknowledged;
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
pub(super) fn run(scenario: &Scenario, traced: bool) -> Result<Board, (String, Vec<String>)> {
    be_quiet();
    let mut board = Board::new(scenario, traced);
    if let Some(lines) = number("ZIGSVC_SIM_STEPS") {
        board.trace_lines = usize::try_from(lines).unwrap_or(usize::MAX);
    }
    QUIET.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| board.run()));
    QUIET.set(false);
    let Err(cause) = result else { return Ok(board) };
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
    for kind in Kind::ALL {
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

/// Runs `count` seeds from `first` on, `secs` seconds each, on two threads.
pub(super) fn run_seeds(first: u64, count: u64, secs: u64) -> Totals {
    let (next, totals, failed) =
        (AtomicU64::new(first), Mutex::new(Totals::default()), AtomicU64::new(u64::MAX));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || failed.load(Ordering::Relaxed) < u64::MAX {
                        return;
                    }
                    match run(&Scenario::new(seed, secs), false) {
                        Ok(board) => totals.lock().unwrap().add(&board),
                        Err(_) => drop(failed.fetch_min(seed, Ordering::Relaxed)),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert!(failed == u64::MAX, "{}", report(&Scenario::new(failed, secs)));
    totals.into_inner().unwrap()
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
    let totals = run_seeds(first, count, SECS);
    let took = begin.elapsed();
    let ms = u64::try_from(took.as_millis()).unwrap_or(1).max(1);
    eprintln!("{took:?}, {} times real time: {totals:?}", totals.secs * 1000 / ms);
    let unfired: Vec<_> = Kind::ALL.iter().filter(|kind| !totals.fired.contains_key(kind)).collect();
    assert!(count < 50 || unfired.is_empty(), "never happened: {unfired:?}");
}

/// Returns the first of `count` seeds that fails, and what went wrong.
fn first_failure(count: u64) -> Option<(u64, String)> {
    (1..=count).find_map(|seed| run(&Scenario::new(seed, SECS), false).err().map(|(text, _)| (seed, text)))
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

#[test]
fn the_same_seed_gives_the_same_run() {
    let digest =
        |seed| run(&Scenario::new(seed, 600), true).map(|board| (board.digest, board.turns)).unwrap();
    assert_eq!(digest(7), digest(7));
    assert_ne!(digest(7), digest(8));
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
    let line = "seed=7 secs=600 calm=60 without=kill,power-cut";
    assert_eq!(Scenario::parse(line).map(|scenario| scenario.to_string()), Ok(line.to_owned()));
    for (line, why) in [
        ("seed", "\"seed\" is not KEY=VALUE"),
        ("seed=x", "\"seed=x\": \"x\" is no number"),
        ("days=1", "\"days\" is not seed, secs, calm or without"),
        ("without=rain", "\"rain\" is no kind of event"),
    ] {
        assert_eq!(Scenario::parse(line), Err(why.to_owned()));
    }
}
