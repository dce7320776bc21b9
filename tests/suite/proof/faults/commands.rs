//! Commands of the program with one fault: what they say of themselves must be true of the
//! service that they talk to, which is well.
//!
//! - an exit code of 0: it is done, and all of it was printed
//! - any other one: one line says why, but if it is that line which could not be written
//! - an id that was printed is that of a job that runs; a copy holds whole lines, in order

use super::attempt::{Step, need};
use super::calls::{Action, Injection, injections};
use super::injector::{Fired, Injector};
use crate::support::opener;
use crate::support::{Dir, Ran, finish, holds_within, log_lines_matching};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// How long anything may take that follows.
const PATIENCE: Duration = Duration::from_secs(20);

/// One entry.
pub struct Case {
    /// Its name, without a slash.
    pub name: &'static str,
    /// The service that it talks to; one for all attempts, if it `lives`.
    service: Option<&'static str>,
    lives: bool,
    /// The arguments of the command, with `TEXT` and `FILE` replaced.
    args: &'static [&'static str],
    /// Its standard input, as well.
    input: &'static str,
    /// The claims that must be true.
    check: fn(&Site<'_>, &Ran) -> Step,
}

/// All of them.
pub const CASES: &[Case] = &[
    Case { name: "command-queue", args: &["queue", "TEXT"], check: is_queued, ..JOBS },
    Case { name: "command-queue-wait", args: &["queue", "--wait", "TEXT"], check: is_waited, ..JOBS },
    Case { name: "command-queue-stdin", args: &["queue", "-"], input: LINES, check: is_queued, ..JOBS },
    Case { name: "command-status", args: &["status"], check: is_not_called_stopped, ..JOBS },
    Case { name: "command-list", args: &["list"], ..JOBS },
    Case { name: "command-reload", args: &["reload"], check: is_reloaded, ..JOBS },
    Case { name: "command-stop", args: &["stop"], lives: false, check: is_stopped, ..JOBS },
    Case {
        name: "command-log",
        service: None,
        args: &["log", "FILE"],
        input: LINES,
        check: is_copied,
        ..JOBS
    },
    Case {
        name: "command-open",
        service: Some("opener"),
        args: &["open", "PUBLIC"],
        check: is_the_file,
        ..JOBS
    },
];

const JOBS: Case =
    Case { name: "", service: Some("jobs"), lives: true, args: &[], input: "", check: |_, _| Ok(()) };

const LINES: &str = "TEXT one\nTEXT two\nTEXT three\n";

/// Where it happens.
pub struct Site<'a> {
    /// The folder of the service.
    dir: &'a Dir,
    /// The text of this attempt alone. Its folder is `own`.
    text: String,
    own: &'a Dir,
    input: String,
    reloads: usize,
}

/// A case that was run once without a fault.
pub struct Known {
    /// Which one.
    pub case: &'static Case,
    dir: Option<Dir>,
    /// The faults that can happen.
    pub injections: Vec<Injection>,
}

/// The result of an attempt.
pub struct Attempt {
    /// Calls that were made.
    counts: BTreeMap<String, u64>,
    /// Whether there was the fault.
    pub fired: Fired,
    /// The claim that does not hold.
    pub problem: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// Starts the service, and runs the case without a fault, which must work.
pub fn learn(injector: &Injector, case: &'static Case) -> Known {
    let dir = case.service.filter(|_| case.lives).map(started);
    let mut known = Known { case, dir, injections: Vec::new() };
    let done = attempt(injector, &known, None);
    assert!(done.problem.is_none(), "{} without a fault: {:?}", case.name, done.problem);
    known.injections = injections(&done.counts);
    // EPIPE means that the service has closed the connection. But then the end of the connection
    // is read next, and there is no end while the connection is open.
    known.injections.retain(|injection| injection.action() != "EPIPE");
    known
}

fn started(service: &str) -> Dir {
    let dir = Dir::new();
    dir.write("public", "for all\n".repeat(3000));
    let allow = opener::allow(&dir, &["public"]);
    dir.start_service(service, &["log_max=0", "interval=100ms", &allow]);
    dir
}

/// Runs the case, with a fault unless it is only to learn from.
pub fn attempt(injector: &Injector, known: &Known, injection: Option<&Injection>) -> Attempt {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let (began, case) = (Instant::now(), known.case);
    let text = format!("text {}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let own = Dir::new();
    let service = case.service.filter(|_| !case.lives).map(started);
    let dir = known.dir.as_ref().or(service.as_ref()).unwrap_or(&own);
    let input = case.input.replace("TEXT", &text);
    own.write("start.in", &input);
    let site = Site { dir, text, own: &own, input, reloads: reloads(dir) };
    let mut command = dir.command();
    for word in case.args {
        let word = word.replace("TEXT", &site.text);
        let word = word.replace("FILE", own.path("copy").to_str().unwrap());
        command.arg(word.replace("PUBLIC", dir.path("public").to_str().unwrap()));
    }
    let traced = injector.start(&own, &command, true, injection);
    let code = traced.exit_code();
    let done = traced.ends();
    let (counts, fired) = (traced.counts(), traced.fired());
    drop(traced);
    let ran = Ran { code: code.unwrap_or(-1), out: own.read("start.out"), err: own.read("start.err") };
    let killed = injection.is_some_and(|injection| injection.action == Action::Kill);
    let result = if code.is_none() || !done {
        Err("it hangs".to_owned())
    } else {
        is_true(&site, &ran, killed, &fired).and_then(|()| (case.check)(&site, &ran))
    };
    let problem = result.err().map(|why| {
        let start = |text: &str| text.chars().take(200).collect::<String>();
        format!("{why} (exit {}, {:?}, {:?})", ran.code, start(&ran.out), start(&ran.err))
    });
    Attempt { counts, fired, problem, took: began.elapsed() }
}

/// Checks the claims that hold for each command.
fn is_true(site: &Site<'_>, ran: &Ran, killed: bool, fired: &Fired) -> Step {
    if killed && *fired != Fired::No {
        return need(ran.code == 128 + 9, "it was killed");
    }
    let at_stderr = Fired::Yes { role: "0".into(), about: site.own.path("start.err").display().to_string() };
    let lines = ran.err.lines().filter(|line| line.starts_with("zigsvc: ")).count();
    let one = lines == 1 && ran.err.lines().count() == 1 && ran.err.ends_with('\n');
    // status writes on stdout how the service is.
    let said = one || *fired == at_stderr || (ran.err.is_empty() && !ran.out.is_empty() && ran.code == 4);
    need(ran.code == 0 || said, "it does not say why it failed, in one line")?;
    need(ran.out.is_empty() || ran.out.ends_with('\n') || ran.code != 0, "half a line was printed")
}

fn eventually(what: &str, condition: impl FnMut() -> bool) -> Step {
    need(holds_within(PATIENCE, condition), what)
}

/// Insists that each id that was printed is that of a job that is done, and that all ids were
/// printed if the command reports success.
fn is_queued(site: &Site<'_>, ran: &Ran) -> Step {
    let jobs: Vec<String> = if site.input.is_empty() {
        vec![site.text.clone()]
    } else {
        site.input.lines().map(str::to_owned).collect()
    };
    let ids = ran.out.split_inclusive('\n').filter(|line| line.ends_with('\n')).count();
    need(ran.code != 0 || ids == jobs.len(), format!("{ids} ids of {} jobs", jobs.len()))?;
    eventually("a job whose id was printed is lost", || {
        let log = site.dir.read("zigsvc.log");
        let done = |job: &&String| log.contains(&format!("processing job: {job}\n"));
        jobs.iter().take(ids).all(|job| done(&job))
    })
}

/// Insists that the job is done if the command reports its status, and that its id is on stderr, if
/// anything can be written there.
fn is_waited(site: &Site<'_>, ran: &Ran) -> Step {
    let is_id = ran.err.lines().any(|line| line.parse::<u64>().is_ok());
    need(ran.code != 0 || ran.err.is_empty() || is_id, "its id is not on stderr")?;
    let text = format!("processing job: {}\n", site.text);
    eventually("a job whose status was reported is lost", || {
        ran.code != 0 || site.dir.read("zigsvc.log").contains(&text)
    })
}

fn is_not_called_stopped(_: &Site<'_>, ran: &Ran) -> Step {
    need([0, 4, 137].contains(&ran.code), "it runs")?;
    need(!ran.out.contains("stopped") && !ran.out.contains("died"), "it runs")
}

fn reloads(dir: &Dir) -> usize {
    log_lines_matching(&dir.read("zigsvc.log"), "SIGHUP received, reloading config")
}

fn is_reloaded(site: &Site<'_>, ran: &Ran) -> Step {
    need([0, 1, 4, 6, 137].contains(&ran.code), "it runs")?;
    if ran.code != 0 {
        return Ok(());
    }
    eventually("it was not reloaded", || reloads(site.dir) > site.reloads)
}

fn is_stopped(site: &Site<'_>, ran: &Ran) -> Step {
    let lives = || site.dir.lock_holder("zigsvc.pid").is_some();
    need(ran.code != 0 || !lives(), "it still runs")?;
    need(!ran.out.contains("was not running"), "it ran")?;
    let mut command = site.dir.command();
    command.arg("stop");
    let stopped = finish(command, None);
    need(stopped.code == 0 && !lives(), format!("a second stop: {}", stopped.err))
}

/// Insists on whole lines, in order, none twice, and on all of them if the command reports
/// success.
fn is_copied(site: &Site<'_>, ran: &Ran) -> Step {
    let copy = site.own.read("copy");
    need(site.input.starts_with(&copy), format!("copied {copy:?}"))?;
    need(ran.code != 0 || copy == site.input, format!("only {copy:?}"))
}

fn is_the_file(site: &Site<'_>, ran: &Ran) -> Step {
    let file = site.dir.read("public");
    need(file.starts_with(&ran.out), "not what is in the file")?;
    need(ran.code != 0 || file == ran.out, "not all of the file")
}
