//! A fault at every system call of a service: each call that a scenario makes
//! fails once with each errno that is plausible for it, does less than it was
//! asked for, or is the last thing that its process tried. Then the promises of
//! `docs/jobs.md` must hold; `docs/faults.md` shows how to run it and what it found.
//!
//! - `inject.c`: runs the program and has one call fail (ptrace(2))
//! - `injector.rs`: builds that and talks to it
//! - `calls.rs`: what is plausible for which call
//! - `scenarios.rs`: what the service does meanwhile, as data
//! - `attempt.rs`: one scenario with one fault, and what must hold
//! - `commands.rs`: the same for commands that talk to a service
//!
//! By default those that once were defects are tried, then a sample for 15 seconds
//! (`ZIGSVC_SECONDS`), in the same order with the same `ZIGSVC_SEED`. `ZIGSVC_FAULTS=all` takes everything, and
//! `ZIGSVC_FAULTS=TEXT` what contains it in its name, like
//! `start/openat/3/EMFILE`.

mod attempt;
mod calls;
mod commands;
mod injector;
mod scenarios;

use crate::support::random::Random;
use crate::support::setting;
use attempt::{Descriptors, attempt};
use calls::Injection;
use commands::CASES;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use injector::{Fired, Injector};
use scenarios::{SCENARIOS, Scenario};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::Instant;

/// Attempts at once: they wait more than they compute.
const THREADS: usize = 6;

/// Kinds of faults that once were defects. They are always tried, at whichever call of their
/// kind.
const MENDED: &[&str] = &[
    // A service that ran was reported to have failed.
    "start/write/ENOMEM",
    // A signal was lost when its byte did not fit the pipe.
    "reload/write/ENOMEM",
    "opener/write/ENOMEM",
    "collector/write/ENOMEM",
    // Claims that could not be listed were taken for gone, and read again.
    "recover/getdents64/ENOMEM",
    "recover/openat/EMFILE",
    // An empty queue file that could not be looked at again was never looked at.
    "queue-file/fstat/EIO",
    // A log that could not be looked at was not rotated, and nothing was said.
    "rotate/newfstatat/EIO",
    // An older log that could not be looked at was replaced.
    "rotate/newfstatat/ENOMEM",
    // An entry of `allow` that is a link, and could not be looked at once, was refused until
    // the next reload, and nothing was said.
    "opener/readlinkat/EIO",
    "opener/readlinkat/ENOMEM",
    // Output that could not be printed made a command fail, and it did not say why.
    "command-queue/write/ENOSPC",
    "command-open/write/EIO",
];

/// Faults that a run of everything must have caused at some call.
const ALWAYS: &[&str] =
    &["EINTR", "EAGAIN", "ENOSPC", "EDQUOT", "EIO", "EROFS", "EMFILE", "ENFILE", "ENOMEM", "short", "kill"];

/// A scenario that was run once without a fault.
struct Known {
    scenario: &'static Scenario,
    template: Option<crate::support::Dir>,
    descriptors: Descriptors,
    injections: Vec<Injection>,
}

/// The results of a scenario's injections.
#[derive(Default, Clone)]
struct Tally {
    tried: usize,
    fired: usize,
    unfit: usize,
    unreached: usize,
    findings: usize,
    took: Duration,
    /// How often each action was really there.
    actions: BTreeMap<&'static str, usize>,
}

#[test]
fn no_system_call_that_fails_breaks_a_promise() {
    let Some(injector) = Injector::build() else { return };
    let wanted = std::env::var("ZIGSVC_FAULTS").unwrap_or_default();
    let began = Instant::now();
    let known: Vec<Known> = in_threads(SCENARIOS.len(), None, |index| {
        let scenario = &SCENARIOS[index];
        let chosen = ["", "all"].contains(&wanted.as_str()) || may_match(scenario.name, &wanted);
        chosen.then(|| learn(&injector, scenario))
    });
    let mut order: Vec<(usize, usize)> = Vec::new();
    for (at, known) in known.iter().enumerate() {
        let names = known.injections.iter().map(|injection| injection.name(known.scenario.name));
        let fits = |name: &String| ["", "all"].contains(&wanted.as_str()) || name.contains(&wanted);
        order.extend(names.enumerate().filter(|(_, name)| fits(name)).map(|(index, _)| (at, index)));
    }
    shuffle(&mut order);
    let is_mended = |at: usize, index: usize| {
        let injection: &Injection = &known[at].injections[index];
        MENDED.iter().any(|mended| injection.is_like(known[at].scenario.name, mended))
    };
    let (first, rest): (Vec<_>, Vec<_>) = order.iter().partition(|(at, index)| is_mended(*at, *index));
    let limit = wanted.is_empty().then(|| Duration::from_secs(setting("ZIGSVC_SECONDS", 15)));
    let tallies = Mutex::new(vec![Tally::default(); known.len()]);
    let findings = Mutex::new(Vec::new());
    for (order, limit) in [(first, None), (rest, limit)] {
        let _: Vec<()> = in_threads(order.len(), limit, |index| {
            let (at, injection) = order[index];
            let (known, injection) = (&known[at], &known[at].injections[injection]);
            let fault = Some((injection, &known.descriptors));
            let done = attempt(&injector, known.scenario, known.template.as_ref(), fault);
            let came = (&done.fired, done.problem.as_ref(), done.took);
            tell(known.scenario.name, injection, came, &mut tallies.lock().unwrap()[at], &findings);
            Some(())
        });
    }
    let tallies = tallies.into_inner().unwrap();
    let names = known.iter().map(|known| (known.scenario.name, known.injections.len()));
    report(names, &tallies, order.len(), began.elapsed());
    if wanted == "all" {
        let never: Vec<_> = ALWAYS.iter().filter(|action| count(&tallies, action) == 0).collect();
        assert!(never.is_empty(), "never there: {never:?}");
    }
    let findings = findings.into_inner().unwrap();
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn no_command_lies_when_a_system_call_of_it_fails() {
    let Some(injector) = Injector::build() else { return };
    let wanted = std::env::var("ZIGSVC_FAULTS").unwrap_or_default();
    let is_all = ["", "all"].contains(&wanted.as_str());
    let began = Instant::now();
    let known: Vec<commands::Known> = in_threads(CASES.len(), None, |index| {
        let case = &CASES[index];
        (is_all || may_match(case.name, &wanted)).then(|| commands::learn(&injector, case))
    });
    let mut order: Vec<(usize, usize)> = Vec::new();
    for (at, known) in known.iter().enumerate() {
        let fits = |injection: &Injection| is_all || injection.name(known.case.name).contains(&wanted);
        let fitting = known.injections.iter().enumerate().filter(|(_, injection)| fits(injection));
        order.extend(fitting.map(|(index, _)| (at, index)));
    }
    shuffle(&mut order);
    // Faults that once were defects come first: see MENDED.
    order.sort_by_key(|(at, index)| {
        let (case, injection) = (known[*at].case, &known[*at].injections[*index]);
        !MENDED.iter().any(|mended| injection.is_like(case.name, mended))
    });
    let limit = wanted.is_empty().then(|| Duration::from_secs(setting("ZIGSVC_SECONDS", 15)));
    let tallies = Mutex::new(vec![Tally::default(); known.len()]);
    let findings = Mutex::new(Vec::new());
    let _: Vec<()> = in_threads(order.len(), limit, |index| {
        let (at, injection) = order[index];
        let (known, injection) = (&known[at], &known[at].injections[injection]);
        let done = commands::attempt(&injector, known, Some(injection));
        let came = (&done.fired, done.problem.as_ref(), done.took);
        tell(known.case.name, injection, came, &mut tallies.lock().unwrap()[at], &findings);
        Some(())
    });
    let names = known.iter().map(|known| (known.case.name, known.injections.len()));
    report(names, &tallies.into_inner().unwrap(), order.len(), began.elapsed());
    let findings = findings.into_inner().unwrap();
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// Returns true if a name with this scenario can contain `wanted`.
fn may_match(scenario: &str, wanted: &str) -> bool {
    !wanted.contains('/')
        || wanted.starts_with('/')
        || wanted.split('/').next().is_some_and(|head| scenario.ends_with(head))
}

/// Runs a scenario without a fault, which must work, to learn its calls.
fn learn(injector: &Injector, scenario: &'static Scenario) -> Known {
    let template = scenario.template.map(|prepare| prepare());
    let done = attempt(injector, scenario, template.as_ref(), None);
    assert!(done.problem.is_none(), "{} without a fault: {:?}", scenario.name, done.problem);
    let unknown = calls::unknown(&done.counts);
    assert!(unknown.is_empty(), "{}: nothing is said of these calls: {unknown:?}", scenario.name);
    let injections = calls::injections(&done.counts);
    Known { scenario, template, descriptors: done.descriptors, injections }
}

/// Counts an attempt, and logs a finding at once.
fn tell(
    name: &str,
    injection: &Injection,
    (fired, problem, took): (&Fired, Option<&String>, Duration),
    tally: &mut Tally,
    findings: &Mutex<Vec<String>>,
) {
    tally.tried += 1;
    tally.took += took;
    match fired {
        Fired::No => tally.unreached += 1,
        Fired::Unfit => tally.unfit += 1,
        Fired::Yes { .. } => {
            tally.fired += 1;
            *tally.actions.entry(injection.action()).or_default() += 1;
        }
    }
    let Some(problem) = problem else { return };
    tally.findings += 1;
    let finding = format!("{} ({fired}): {problem}", injection.name(name));
    note(&format!("FINDING {finding}"));
    findings.lock().unwrap().push(finding);
}

fn report<'a>(
    names: impl Iterator<Item = (&'a str, usize)>,
    tallies: &[Tally],
    planned: usize,
    took: Duration,
) {
    note(&format!("{planned} chosen, {:.0} s; scenario: injections tried/possible", took.as_secs_f32()));
    for ((name, possible), tally) in names.zip(tallies) {
        note(&format!(
            "  {:<20} {:>5}/{:<5} fired {:>5}, unfit {:>4}, not reached {:>3}, findings {} ({} ms each)",
            name,
            tally.tried,
            possible,
            tally.fired,
            tally.unfit,
            tally.unreached,
            tally.findings,
            tally.took.as_millis() / tally.tried.max(1) as u128
        ));
    }
    let mut actions: Vec<&str> = tallies.iter().flat_map(|tally| tally.actions.keys().copied()).collect();
    actions.sort_unstable();
    actions.dedup();
    let counted = actions.iter().map(|action| format!(" {action} {}", count(tallies, action)));
    note(&format!("  fired:{}", counted.collect::<String>()));
}

/// Returns how often an action really happened.
fn count(tallies: &[Tally], action: &str) -> usize {
    tallies.iter().filter_map(|tally| tally.actions.get(action)).sum()
}

/// Writes a line past the capture of the test harness.
fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "faults: {line}");
}

/// Runs `work` for each number below `count`, some at a time, as long as `limit` allows.
fn in_threads<T: Send>(
    count: usize,
    limit: Option<Duration>,
    work: impl Fn(usize) -> Option<T> + Sync,
) -> Vec<T> {
    let (next, results, began) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while limit.is_none_or(|limit| began.elapsed() < limit) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    if let Some(result) = work(index) {
                        results.lock().unwrap().push((index, result));
                    }
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap();
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Shuffles the order, in the same way for the same seed.
fn shuffle(order: &mut [(usize, usize)]) {
    let mut random = Random::new(setting("ZIGSVC_SEED", 1));
    for last in (1..order.len()).rev() {
        order.swap(last, random.index(last + 1));
    }
}
