//! One scenario with one fault, and what must hold:
//!
//! - the exit code of `start` is true: 0 only if the service runs and answers;
//!   else there is one line that says why, and nothing is left running or locked
//! - the service outlives every fault but a kill, works, and is whole: no descriptor
//!   more than without the fault, no line of the log torn
//! - `stop` works, without a KILL, and leaves nothing
//! - the next start, without a fault, works; then every job that was acknowledged
//!   or written to the queue file has run, none was half read or invented, and none
//!   ran more often than the fault explains

use super::calls::{Action, Injection};
use super::injector::{Fired, Injector, Traced};
use super::scenarios::{Scenario, Window};
use crate::support::{Dir, alive, finish, holds_within};
use core::time::Duration;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How long a fault may delay anything: twice its rest after an error of the disk,
/// on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// The names of the descriptors that a process has open, and how often each is open.
pub type Descriptors = BTreeMap<String, usize>;

/// The result of an attempt.
pub struct Attempt {
    /// Calls in the window.
    pub counts: BTreeMap<String, u64>,
    /// Whether there was the fault.
    pub fired: Fired,
    /// The claim that does not hold.
    pub problem: Option<String>,
    /// The descriptors that the service had open at the end.
    pub descriptors: Descriptors,
    /// How long it took.
    pub took: Duration,
}

/// The result of a step: what does not hold.
pub type Step = Result<(), String>;

/// A service that runs with a fault, and the jobs that it must do.
pub struct Run<'a> {
    /// Its folder.
    pub dir: &'a Dir,
    scenario: &'a Scenario,
    kills: bool,
    /// The content of the PID file at first.
    pid_before: String,
    /// Whether this is the start after the fault.
    is_second: bool,
    /// Its PID.
    pub pid: u32,
    /// The id of the last job that was acknowledged.
    pub last_id: String,
    /// Jobs that must run.
    pub wanted: Vec<String>,
    /// Jobs that may run, because the test does not know whether they were taken.
    pub unsure: Vec<String>,
}

/// Runs `scenario`, with a fault unless it is only to learn from.
pub fn attempt(
    injector: &Injector,
    scenario: &'static Scenario,
    template: Option<&Dir>,
    fault: Option<(&Injection, &Descriptors)>,
) -> Attempt {
    let dir = Dir::new();
    if let Some(template) = template {
        copy(template, &dir);
    }
    (scenario.prepare)(&dir);
    let began = std::time::Instant::now();
    let (injection, known) = fault.unzip();
    let kills = injection.is_some_and(|injection| injection.action == Action::Kill);
    let wanted = scenario.owed.iter().map(|text| (*text).to_owned()).collect();
    let mut run = Run {
        dir: &dir,
        scenario,
        kills,
        pid_before: String::new(),
        is_second: false,
        pid: 0,
        last_id: String::new(),
        wanted,
        unsure: Vec::new(),
    };
    run.pid_before = dir.read(&run.file("pid"));
    let mut descriptors = Descriptors::new();
    let mut command = run.command("start");
    command.arg(scenario.service);
    let traced = injector.start(&dir, &command, scenario.window == Window::All, injection);
    // A helper of the tests that fails is a finding like any other.
    let result = catch_unwind(AssertUnwindSafe(|| {
        run.with_fault(&traced, known, &mut descriptors)?;
        run.without_fault()
    }));
    let took = began.elapsed();
    let mut problem = match result {
        Ok(result) => result.err(),
        Err(panic) => Some(
            panic
                .downcast_ref::<String>()
                .cloned()
                .unwrap_or_else(|| "a helper of the test failed".to_owned()),
        ),
    };
    let (counts, fired) = (traced.counts(), traced.fired());
    drop(traced);
    if let Some(problem) = &mut problem
        && std::env::var_os("ZIGSVC_FAULTS_LOGS").is_some()
    {
        problem.push_str(&format!("\n{}{}", dir.read("start.err"), dir.logs()));
    }
    Attempt { counts, fired, problem, descriptors, took }
}

/// Copies what a template holds, but what a running service had for itself.
fn copy(template: &Dir, dir: &Dir) {
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(template.path(&folder)).unwrap().flatten() {
            let name = format!("{folder}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                fs::create_dir(dir.path(&name)).unwrap();
                folders.push(format!("{name}/"));
            } else if name == "handler" {
                // The handler is never open for writing, so that it can be executed at any time.
                fs::hard_link(entry.path(), dir.path(&name)).unwrap();
            } else if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), dir.path(&name)).unwrap();
            }
        }
    }
}

/// Returns `Ok` if `condition` is true, or else the text, which names the condition.
pub fn need(condition: bool, what: impl Into<String>) -> Step {
    if condition { Ok(()) } else { Err(what.into()) }
}

impl Run<'_> {
    /// Returns the command `zigsvc -d DIR -o ... VERB`
    fn command(&self, verb: &str) -> std::process::Command {
        let mut command = self.dir.command();
        for option in self.scenario.options {
            command.args(["-o", option]);
        }
        if self.dir.path("handler").exists() {
            command.args(["-o", &format!("handler={}", self.dir.path("handler").display())]);
        }
        command.arg(verb);
        command
    }

    fn file(&self, suffix: &str) -> String {
        match self.scenario.service {
            "jobs" => format!("zigsvc.{suffix}"),
            service => format!("zigsvc-{service}.{suffix}"),
        }
    }

    fn holder(&self) -> Option<u32> {
        self.dir.lock_holder(&self.file("pid"))
    }

    /// Returns true if a kill has come, so that nothing more is to be expected.
    pub fn is_dead(&self) -> bool {
        self.kills && !alive(self.pid)
    }

    /// Waits for the condition, or for a kill that came.
    pub fn until(&self, what: &str, mut condition: impl FnMut() -> bool) -> Step {
        let mut dead = false;
        let holds = holds_within(PATIENCE, || {
            dead = self.is_dead();
            dead || condition()
        });
        need(holds, format!("waited in vain until {what}"))
    }

    // ----- with the fault ---------------------------------------------------

    fn with_fault(
        &mut self,
        traced: &Traced,
        known: Option<&Descriptors>,
        descriptors: &mut Descriptors,
    ) -> Step {
        let code = traced.exit_code().ok_or("start hangs")?;
        let fired = matches!(traced.fired(), Fired::Yes { .. });
        let killed = self.kills && fired;
        if code != 0 {
            if !killed {
                return self.failed_truly(traced, code);
            }
            // It may have been the starter: then the service goes on alone.
            holds_within(PATIENCE, || {
                traced.is_done() || self.holder().is_some_and(|pid| self.is_fresh(pid))
            });
        }
        let Some(pid) = self.holder() else {
            need(killed, format!("start: exit {code}, but it does not run"))?;
            return need(traced.ends(), "its lock is gone, but something is left running");
        };
        self.pid = pid;
        if code == 0 {
            let told = format!("zigsvc: {} started (pid {pid})\n", self.scenario.service);
            let out = self.dir.read("start.out");
            let stdout_failed = traced.fired()
                == Fired::Yes { role: "0".into(), about: self.dir.path("start.out").display().to_string() };
            // A second line names the handler of jobs.
            let rest = out.strip_prefix(&told);
            let whole = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("zigsvc: handler "));
            need(stdout_failed || whole, format!("start said {out:?}"))?;
        }
        if self.scenario.window == Window::Act {
            traced.open_window();
        }
        let acted = (self.scenario.act)(self);
        if self.scenario.window == Window::Act {
            traced.close_window();
        }
        let worked = acted.and_then(|()| self.works()).and_then(|()| self.has_no_more(known, descriptors));
        if worked.is_err() && !(self.kills && holds_within(Duration::from_secs(1), || self.is_dead())) {
            return worked;
        }
        if self.scenario.window == Window::Stop {
            traced.open_window();
        }
        self.stops(traced)
    }

    fn is_fresh(&self, pid: u32) -> bool {
        self.dir.read(&self.file("health")).contains(&format!("pid={pid} "))
    }

    /// Insists that a start that failed says why, in one line, and leaves nothing.
    fn failed_truly(&self, traced: &Traced, code: i32) -> Step {
        let said = self.dir.read("start.err");
        need([1, 4, 6].contains(&code), format!("start: exit {code}: {said}"))?;
        need(traced.ends(), format!("start failed ({}), but something is left running", said.trim_end()))?;
        let lines: Vec<&str> = said.lines().collect();
        let warnings = lines.iter().filter(|line| line.contains(" cannot be written: ")).count();
        let marked = lines.iter().all(|line| line.starts_with("zigsvc: "));
        need(marked && lines.len() == warnings + 1, format!("a failed start said {said:?}"))?;
        let status = finish(self.verb("status"), None);
        // A service that died before may still be known to have died.
        let untouched = self.dir.read(&self.file("pid")) == self.pid_before;
        let expected = if untouched && !self.pid_before.is_empty() { 1 } else { 3 };
        need(status.code == expected, format!("after a start that failed: {}{}", status.out, status.err))
    }

    fn verb(&self, verb: &str) -> std::process::Command {
        let mut command = self.command(verb);
        command.arg(self.scenario.service);
        command
    }

    /// Insists that the service lives, answers, is well, and does its work.
    fn works(&mut self) -> Step {
        need(self.holder() == Some(self.pid), "the service is gone")?;
        let (mut code, mut said) = (0, String::new());
        self.until("status says that it runs", || {
            let status = finish(self.verb("status"), None);
            (code, said) = (status.code, format!("{}{}", status.out, status.err));
            code == 0
        })
        .map_err(|why| format!("{why}: {code} {said}"))?;
        // With a window for the stop, jobs are left to be stopped.
        if self.scenario.service == "jobs" && (self.scenario.window != Window::Stop || self.is_second) {
            self.queue_surely("probe")?;
            self.all_processed()?;
            // A job that has done its work may not have ended, and would run again.
            self.until("no job runs", || {
                self.ask("status").is_some_and(|answer| answer.contains(" waiting=0 running=0 "))
            })?;
        }
        if ["opener", "collector"].contains(&self.scenario.service) {
            (self.scenario.check)(self)?;
        }
        self.has_whole_lines()
    }

    /// Stops the service, which may be gone already.
    fn stops(&self, traced: &Traced) -> Step {
        let stopped = finish(self.verb("stop"), None);
        need(stopped.code == 0, format!("stop: {} {}", stopped.code, stopped.err))?;
        need(!stopped.out.ends_with(" killed\n"), "it takes no TERM")?;
        need(traced.ends(), "something is left after a stop")?;
        need(self.holder().is_none(), "the lock is held after a stop")?;
        let killed = self.kills && matches!(traced.fired(), Fired::Yes { .. });
        let status = finish(self.verb("status"), None);
        need(killed || status.code == 3, format!("after a stop: {}{}", status.out, status.err))?;
        self.has_whole_lines()
    }

    /// Insists that nothing is open that was not open without the fault. The number of open claims
    /// does not count, because it is a matter of time.
    fn has_no_more(&self, known: Option<&Descriptors>, descriptors: &mut Descriptors) -> Step {
        let mut more = String::new();
        let held = self.until("no descriptor is left over", || {
            *descriptors = self.open_descriptors();
            let Some(known) = known else { return true };
            let surplus = descriptors.iter().filter(|(name, count)| {
                !name.ends_with("queue.claim-") && **count > known.get(*name).copied().unwrap_or(0)
            });
            more = surplus.map(|(name, count)| format!(" {name}*{count}")).collect();
            more.is_empty()
        });
        held.map_err(|why| format!("{why}:{more}"))
    }

    /// Returns the descriptors that the service has open, in all of its processes.
    fn open_descriptors(&self) -> Descriptors {
        let mut all = open_descriptors(self.pid, self.dir);
        // Of `jobs` only the service counts, because a job is a process of its own.
        if self.scenario.service == "opener" {
            for worker in crate::support::opener::children(self.pid) {
                let held = open_descriptors(worker, self.dir);
                all.extend(held.into_iter().map(|(name, count)| (format!("{name} of its worker"), count)));
            }
        }
        all
    }

    /// Insists that every line of every log of the service is whole.
    fn has_whole_lines(&self) -> Step {
        for name in self.logs() {
            let text = self.dir.read(&name);
            need(text.is_empty() || text.ends_with('\n'), format!("{name} ends within a line"))?;
            for line in text.lines() {
                need(is_whole(line), format!("{name}: not a line: {line:?}"))?;
            }
        }
        Ok(())
    }

    /// Returns the names of the service's logs, the oldest first.
    pub fn logs(&self) -> Vec<String> {
        let log = self.file("log");
        let mut logs: Vec<String> = (1..=9).rev().map(|number| format!("{log}.{number}")).collect();
        logs.retain(|name| self.dir.path(name).exists());
        logs.push(log);
        logs
    }

    // ----- without it -------------------------------------------------------

    /// Starts the service again, which must work, and all that is owed is done.
    fn without_fault(&mut self) -> Step {
        let kills = core::mem::take(&mut self.kills);
        self.is_second = true;
        let mut command = self.command("start");
        command.arg(self.scenario.service);
        let started = finish(command, None);
        need(started.code == 0, format!("the next start: {} {}", started.code, started.err))?;
        self.pid = self.holder().ok_or("the next start: it does not run")?;
        self.works()?;
        (self.scenario.check)(self)?;
        let stopped = finish(self.verb("stop"), None);
        need(stopped.code == 0, format!("the last stop: {} {}", stopped.code, stopped.err))?;
        need(!stopped.out.ends_with(" killed\n"), "in the end it takes no TERM")?;
        self.has_whole_lines()?;
        self.ran_as_promised(kills)?;
        self.left_no_files()
    }

    /// Insists that no job was lost, invented, or run more often than a kill explains.
    fn ran_as_promised(&self, kills: bool) -> Step {
        let ran = self.processed();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for text in &ran {
            let known = self.wanted.contains(text) || self.unsure.contains(text);
            need(known, format!("half read or invented: {text:?}"))?;
            *counts.entry(text).or_default() += 1;
        }
        for text in &self.wanted {
            need(counts.contains_key(text.as_str()), format!("lost: {text:?}"))?;
        }
        let most = if kills { 2 } else { 1 };
        for (text, count) in counts {
            need(count <= most, format!("{text:?} ran {count} times"))?;
        }
        Ok(())
    }

    fn left_no_files(&self) -> Step {
        for folder in ["", "spool"] {
            for entry in fs::read_dir(self.dir.path(folder)).into_iter().flatten().flatten() {
                let name = entry.file_name().into_string().unwrap();
                let ends = [".new", ".tmp", ".root", ".sock", ".pid", ".health"];
                // The spare journal stays, so that a journal can be written without a free inode.
                let is_spare = folder == "spool" && name == "journal.spare";
                let odd =
                    name.starts_with("journal.") && !is_spare || ends.iter().any(|end| name.ends_with(end));
                need(!odd, format!("left over: {folder}/{name}"))?;
            }
        }
        Ok(())
    }

    // ----- jobs -------------------------------------------------------------

    /// Returns the texts of the jobs that were done.
    pub fn processed(&self) -> Vec<String> {
        if self.scenario.service != "jobs" {
            return Vec::new();
        }
        if self.dir.path("handler").exists() {
            let out = self.dir.read("out");
            return out.lines().filter_map(|line| Some(line.strip_suffix(" ok")?.to_owned())).collect();
        }
        let logs: String = self.logs().iter().map(|name| self.dir.read(name)).collect();
        logs.lines()
            .filter_map(|line| Some(line.split_once("] [INFO] processing job: ")?.1.to_owned()))
            .collect()
    }

    /// Waits until all jobs that must run are done.
    pub fn all_processed(&self) -> Step {
        let mut missing = String::new();
        let done = self.until("all jobs are done", || {
            let ran = self.processed();
            missing = self
                .wanted
                .iter()
                .filter(|text| !ran.contains(text))
                .map(|text| format!(" {text:.40?}"))
                .collect();
            missing.is_empty()
        });
        done.map_err(|why| format!("{why}:{missing}"))
    }

    /// Sends one request over a connection of its own, and returns the answer; `None` if there is
    /// no whole one.
    pub fn ask(&self, request: &str) -> Option<String> {
        let mut stream = UnixStream::connect(self.dir.path(&self.file("sock"))).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("{request}\n").as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        line.strip_suffix('\n').map(str::to_owned)
    }

    /// Asks until the answer is `ok`; what it is, or nothing if the service was killed.
    pub fn ask_surely(&self, request: &str) -> Result<Option<String>, String> {
        let mut answer = None;
        self.until(&format!("{request:.20} is answered by ok"), || {
            answer = self.ask(request);
            answer.as_ref().is_some_and(|answer| answer.starts_with("ok"))
        })
        .map_err(|why| format!("{why}: {answer:?}"))?;
        Ok(answer.filter(|answer| answer.starts_with("ok")))
    }

    /// Adds a job by the socket, until one is acknowledged: each time another, since
    /// one without an answer may have been taken.
    pub fn queue_surely(&mut self, text: &str) -> Step {
        let mut unsure = Vec::new();
        let mut last = None;
        let base = self.wanted.len() + self.unsure.len();
        let added = self.until("a job is acknowledged", || {
            let job = format!("{text} {}", base + unsure.len());
            last = self.ask(&format!("queue {job}"));
            unsure.push(job);
            last.as_ref().is_some_and(|answer| answer.starts_with("ok id="))
        });
        if let Some(id) = last.as_ref().and_then(|answer| answer.strip_prefix("ok id=")) {
            self.last_id = id.to_owned();
            self.wanted.extend(unsure.pop());
        }
        self.unsure.append(&mut unsure);
        added.map_err(|why| format!("{why}: {last:?}"))
    }
}

/// Returns true if a line of a log has the form that `docs/log.md` shows.
fn is_whole(line: &str) -> bool {
    let Some((stamp, rest)) = line.strip_prefix('[').and_then(|line| line.split_once("] [")) else {
        return false;
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let shape =
        stamp.len() == 20 && digits(&stamp[..4]) && stamp.ends_with('Z') && stamp.as_bytes()[10] == b'T';
    let level = rest.split_once("] ").is_some_and(|(level, text)| {
        ["DEBUG", "INFO", "WARN", "ERROR"].contains(&level) && !text.contains("] [INFO] ")
    });
    shape && level
}

/// Returns the descriptors that a process has open, without the numbers that are chance.
fn open_descriptors(pid: u32, dir: &Dir) -> Descriptors {
    let mut all = Descriptors::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy().replace(dir.as_arg(), "DIR");
        let target = target.replace(&format!("/proc/{pid}/"), "/proc/self/");
        let name = match target.split_once(":[") {
            Some((kind, _)) => kind.to_owned(),
            None if target.contains(".claim-") && !target.contains("deleted") => {
                target.trim_end_matches(|letter: char| letter.is_ascii_digit()).to_owned()
            }
            None => target,
        };
        *all.entry(name).or_default() += 1;
    }
    all
}
