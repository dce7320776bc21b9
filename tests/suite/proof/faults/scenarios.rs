//! The actions of a service while one of its calls fails.
//!
//! To add one, add an entry. The files that its folder needs are in a `template`, which is made
//! once and copied, or, if they depend on where the folder is, in `prepare`.

use super::attempt::{Run, Step, need};
use crate::support::control::Client;
use crate::support::opener;
use crate::support::{Dir, holds_within, install, kill, log_lines_matching, wait_until};
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr, UnixStream};
use zigsvc::limits::COMPACT_MIN_BYTES;

/// When calls are counted and may fail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// From the start to the end.
    All,
    /// While the scenario acts.
    Act,
    /// While the service is stopped.
    Stop,
}

/// One entry.
pub struct Scenario {
    /// Its name, without a slash.
    pub name: &'static str,
    /// The service that is started.
    pub service: &'static str,
    /// With these `-o`.
    pub options: &'static [&'static str],
    /// A folder to begin with, made once.
    pub template: Option<fn() -> Dir>,
    /// Adds to the folder what only fits there.
    pub prepare: fn(&Dir),
    /// Jobs that are in the template, and must run.
    pub owed: &'static [&'static str],
    /// When calls may fail.
    pub window: Window,
    /// The events that meet the running service. The function ends early if a kill came.
    pub act: fn(&mut Run<'_>) -> Step,
    /// The claims that must hold after the next start, beyond those that always must; for a service
    /// that has clients, but no jobs, also after the fault.
    pub check: fn(&mut Run<'_>) -> Step,
}

/// All of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "start", window: Window::All, ..JOBS },
    Scenario {
        name: "recover",
        options: &["log_max=0", "interval=100ms", "retry_delay=10ms"],
        template: Some(interrupted),
        owed: &["once 1", "busy 2", "job 3", "line 1", "line 2", "line 3"],
        window: Window::All,
        act: |run| run.all_processed(),
        ..JOBS
    },
    Scenario { name: "queue-file", act: append_lines, ..JOBS },
    Scenario { name: "socket", act: ask_by_socket, ..JOBS },
    Scenario {
        name: "handler",
        options: &["log_max=0", "interval=100ms", "workers=2", "retry_delay=10ms"],
        template: Some(with_handler),
        act: run_handlers,
        ..JOBS
    },
    Scenario { name: "stop-busy", template: Some(with_handler), act: be_busy, window: Window::Stop, ..JOBS },
    Scenario {
        name: "rotate",
        options: &["log_max=600", "log_keep=9", "interval=100ms"],
        act: rotate,
        ..JOBS
    },
    Scenario { name: "reload", template: Some(with_config), act: reload, check: is_reloaded, ..JOBS },
    Scenario { name: "compaction", template: Some(nearly_full), act: compact, ..JOBS },
    Scenario { name: "steer", template: Some(with_dead), act: steer, check: is_steered, ..JOBS },
    Scenario {
        name: "supervisor",
        service: "supervisor",
        options: &["log_max=0", "interval=100ms", "check_interval=100ms"],
        window: Window::All,
        act: kill_supervised,
        check: supervises,
        ..JOBS
    },
    Scenario { name: "hub", service: "hub", window: Window::All, act: chat, check: chats, ..JOBS },
    Scenario {
        name: "opener",
        service: "opener",
        options: &["log_max=0", "interval=100ms", "stale_after=5s"],
        prepare: with_files,
        window: Window::All,
        act: open_files,
        check: opens_files,
        ..JOBS
    },
    Scenario {
        name: "collector",
        service: "collector",
        window: Window::All,
        act: collect,
        check: collects,
        ..JOBS
    },
];

/// The common part of most scenarios.
const JOBS: Scenario = Scenario {
    name: "",
    service: "jobs",
    options: &["log_max=0", "interval=100ms"],
    template: None,
    prepare: |_| {},
    owed: &[],
    window: Window::Act,
    act: |_| Ok(()),
    check: |_| Ok(()),
};

/// Returns `count` texts.
fn texts(name: &str, count: usize) -> impl Iterator<Item = String> {
    (1..=count).map(move |number| format!("{name} {number}"))
}

// ----- jobs -------------------------------------------------------------------

/// A handler that says what it does, and fails once for a job `once`, always for `never`.
const HANDLER: &str = "#!/bin/sh
cd \"${0%/*}\" || exit 1
echo \"working on $1\"
case $1$ZIGSVC_ATTEMPT in
    never*|once*1) echo \"$1 failed\" >>out; exit 1 ;;
    busy*) echo \"$1 begun\" >>out; [ -e go ] || exec sleep 600 ;;
esac
echo \"$1 ok\" >>out
";

fn with_handler() -> Dir {
    let dir = Dir::new();
    install(&dir.path("handler"), HANDLER);
    dir
}

/// Makes the folder of a service that was killed with one job running, one waiting, one that
/// failed once, and lines in a claim and in the queue file.
fn interrupted() -> Dir {
    let dir = with_handler();
    let handler = format!("handler={}", dir.path("handler").display());
    let pid = dir.start(&["log_max=0", "interval=100ms", &handler, "retry_delay=1h"]);
    let mut client = Client::new(&dir);
    client.queue("once 1");
    wait_until("a job failed", || dir.read("out").contains("once 1 failed"));
    wait_until("that is known", || client.status("failed") == 1);
    client.queue_all(&["busy 2", "job 3"]);
    dir.append("queue", "line 1\nline 2\n");
    wait_until("the lines are claimed", || client.status("waiting") == 4);
    wait_until("a job runs", || dir.read("out").contains("busy 2 begun"));
    kill(pid, "KILL");
    wait_until("it is gone", || dir.lock_holder("zigsvc.pid").is_none());
    dir.append("queue", "line 3\n");
    dir.write("go", "");
    dir
}

fn append_lines(run: &mut Run<'_>) -> Step {
    let path = run.dir.path("queue");
    let mut writer = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    run.wanted.extend(texts("line", 2));
    writer.write_all(format!("line 1\nline 2\n{}\n", "x".repeat(1200)).as_bytes()).unwrap();
    run.all_processed()?;
    // It is claimed, and goes on being written.
    run.wanted.push("line 3".to_owned());
    writer.write_all(b"line 3\n").unwrap();
    run.all_processed()
}

fn ask_by_socket(run: &mut Run<'_>) -> Step {
    for _ in 0..2 {
        run.queue_surely("asked")?;
    }
    run.ask_surely(&format!("wait {}", run.last_id))?;
    run.ask_surely("list all")?;
    run.ask_surely("help")?;
    run.ask_surely("status")?;
    run.all_processed()
}

fn run_handlers(run: &mut Run<'_>) -> Step {
    run.queue_surely("job")?;
    run.queue_surely("once")?;
    run.queue_surely("job")?;
    run.all_processed()
}

fn be_busy(run: &mut Run<'_>) -> Step {
    run.queue_surely("busy")?;
    run.queue_surely("job")?;
    let dir = run.dir;
    run.until("a job runs", || dir.read("out").contains("begun"))?;
    dir.write("go", "");
    Ok(())
}

fn rotate(run: &mut Run<'_>) -> Step {
    kill_if_alive(run, "USR1");
    let dir = run.dir;
    let rotated = || dir.path("zigsvc.log.1").exists();
    seen_or_said(run, "the log is rotated", rotated, is_degraded)?;
    for _ in 0..3 {
        run.queue_surely(&"long ".repeat(60))?;
    }
    run.all_processed()
}

fn is_degraded(run: &Run<'_>) -> bool {
    run.ask("status").is_some_and(|answer| !answer.contains("degraded=none"))
}

/// Waits until something is seen, or until the service says why it is not. The service is not
/// asked at once, because that would be calls without need.
fn seen_or_said(run: &Run<'_>, what: &str, seen: impl Fn() -> bool, said: fn(&Run<'_>) -> bool) -> Step {
    if holds_within(Duration::from_millis(500), || run.is_dead() || seen()) {
        return Ok(());
    }
    run.until(what, || seen() || said(run))
}

fn kill_if_alive(run: &Run<'_>, signal: &str) {
    if crate::support::alive(run.pid) {
        kill(run.pid, signal);
    }
}

fn with_config() -> Dir {
    let dir = Dir::new();
    dir.write("zigsvc.conf", "retries = 1\n");
    dir
}

fn reloads(run: &Run<'_>) -> usize {
    log_lines_matching(&run.dir.read("zigsvc.log"), "SIGHUP received, reloading config")
}

fn reload(run: &mut Run<'_>) -> Step {
    let gid = rustix::process::getgid().as_raw();
    let other = run.dir.path("other");
    let good = format!("retries = 3\nqueue_file = \"{}\"\nallow_gid = {gid}\n", other.display());
    for (count, text) in [good.as_str(), "retries = wrong\n", good.as_str()].into_iter().enumerate() {
        // The file is never seen half written.
        run.dir.write("conf.next", text);
        fs::rename(run.dir.path("conf.next"), run.dir.path("zigsvc.conf")).unwrap();
        kill_if_alive(run, "HUP");
        seen_or_said(run, "a reload is told", || reloads(run) > count, has_lost_lines)?;
    }
    Ok(())
}

/// Returns true if lines of the log were lost, and the service reports it.
fn has_lost_lines(run: &Run<'_>) -> bool {
    run.ask("status").is_some_and(|answer| answer.contains(" log_lost=") && !answer.contains(" log_lost=0 "))
}

fn is_reloaded(run: &mut Run<'_>) -> Step {
    run.wanted.push("by the other file".to_owned());
    run.dir.append("other", "by the other file\n");
    run.all_processed()
}

/// Makes a journal that is nearly worth rewriting.
fn nearly_full() -> Dir {
    let dir = with_handler();
    let handler = format!("handler={}", dir.path("handler").display());
    dir.start(&["log_max=0", "interval=100ms", "workers=4", "retries=0", &handler]);
    let mut client = Client::new(&dir);
    client.queue_all(&["never 1", "never 2"]);
    let journal = || fs::metadata(dir.path("spool/journal")).unwrap().len();
    // The ends of the last jobs stay: they count for no compaction.
    let text = format!("old {}", "x".repeat(950));
    let mut ends = 0;
    while journal() - ends < COMPACT_MIN_BYTES - 2500 {
        let id = client.queue(&text);
        client.ask(&format!("wait {id}"));
        ends += text.len() as u64 + 32;
    }
    wait_until("they are done", || client.status("waiting") + client.status("running") == 0);
    dir.zigsvc(&["stop"]).expect(0);
    fs::remove_file(dir.path("out")).unwrap();
    // From now on the jobs are logged.
    fs::remove_file(dir.path("handler")).unwrap();
    fs::remove_file(dir.path("zigsvc.log")).unwrap();
    dir
}

fn compact(run: &mut Run<'_>) -> Step {
    let journal =
        |run: &Run<'_>| fs::metadata(run.dir.path("spool/journal")).map_or(u64::MAX, |meta| meta.len());
    let before = journal(run);
    for _ in 0..2 {
        run.queue_surely(&format!("new {}", "x".repeat(900)))?;
    }
    run.all_processed()?;
    let dir = run.dir;
    run.until("the journal is written again", || {
        // The ends of the last jobs stay in it.
        fs::metadata(dir.path("spool/journal")).is_ok_and(|meta| meta.len() < before / 4 * 3)
            || dir.read("zigsvc.log").contains("cannot be written again")
    })?;
    let dead = run.ask_surely("list dead")?;
    need(run.is_dead() || dead.as_deref() == Some("ok 2"), format!("dead jobs: {dead:?}"))
}

/// Makes three dead jobs, 1 to 3.
fn with_dead() -> Dir {
    let dir = with_handler();
    let handler = format!("handler={}", dir.path("handler").display());
    dir.start(&["log_max=0", "interval=100ms", "retries=0", &handler]);
    let mut client = Client::new(&dir);
    client.queue_all(&["never 1", "once 2", "never 3"]);
    wait_until("they are dead", || client.status("dead") == 3);
    dir.zigsvc(&["stop"]).expect(0);
    fs::remove_file(dir.path("out")).unwrap();
    dir
}

fn steer(run: &mut Run<'_>) -> Step {
    let settled = |answer: Option<String>| {
        answer.is_some_and(|answer| answer.starts_with("ok") || answer.starts_with("err no-job"))
    };
    run.until("a job is forgotten", || settled(run.ask("forget 1")))?;
    let forgotten = !run.is_dead();
    run.until("a job is retried", || settled(run.ask("retry 2")))?;
    if !run.is_dead() {
        run.wanted.push("once 2".to_owned());
    } else {
        run.unsure.push("once 2".to_owned());
    }
    run.all_processed()?;
    // The check reads this file.
    if forgotten {
        run.dir.write("forgotten", "");
    }
    Ok(())
}

fn is_steered(run: &mut Run<'_>) -> Step {
    let mut client = Client::new(run.dir);
    let dead = client.ask_list("list dead");
    let has = |id: &str| dead.iter().any(|line| line.starts_with(id));
    need(has("3 "), format!("a dead job is lost: {dead:?}"))?;
    need(!run.dir.path("forgotten").exists() || !has("1 "), format!("a forgotten job is back: {dead:?}"))
}

// ----- the others -------------------------------------------------------------

fn jobs_pid(run: &Run<'_>) -> Option<u32> {
    run.dir.lock_holder("zigsvc.pid")
}

fn kill_supervised(run: &mut Run<'_>) -> Step {
    run.until("jobs runs", || jobs_pid(run).is_some())?;
    let Some(before) = jobs_pid(run) else { return Ok(()) };
    kill(before, "KILL");
    run.until("jobs runs again", || jobs_pid(run).is_some_and(|pid| pid != before))
}

fn supervises(run: &mut Run<'_>) -> Step {
    run.until("jobs runs", || jobs_pid(run).is_some())?;
    // The test does not kill it again, because a second death within ten seconds would delay the
    // next start.
    Ok(())
}

/// Sends a line from one client to another, until it passes.
fn chat(run: &mut Run<'_>) -> Step {
    let dir = run.dir;
    let socket = dir.path("zigsvc-hub.sock");
    run.until("a line passes", || {
        let passed = || -> Option<bool> {
            let reader = UnixStream::connect(&socket).ok()?;
            reader.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
            let mut reader = BufReader::new(reader);
            let mut writer = UnixStream::connect(&socket).ok()?;
            let joined = || log_lines_matching(&dir.read("zigsvc-hub.log"), " joined, ");
            holds_within(Duration::from_millis(200), || joined() >= 2);
            writer.write_all(b"hello\n").ok()?;
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            Some(line.ends_with("] hello\n"))
        };
        passed() == Some(true)
    })
}

fn chats(run: &mut Run<'_>) -> Step {
    chat(run)
}

/// Makes a public file, a link to it, and a secret one. The first two are on the list.
fn with_files(dir: &Dir) {
    dir.write("public", "for all\n");
    dir.write("secret", "for nobody\n");
    symlink("public", dir.path("link")).unwrap();
    allow_only(dir, &["public", "link"]);
}

/// Puts other files on the list of the next reload. The configuration is never seen half
/// written.
fn allow_only(dir: &Dir, names: &[&str]) {
    dir.write("conf.next", opener::allow(dir, names).replacen('=', " = ", 1));
    fs::rename(dir.path("conf.next"), dir.path("zigsvc.conf")).unwrap();
}

/// The answer that a client of the opener got.
#[derive(PartialEq, Eq, Debug)]
enum Told {
    /// Here is the file.
    File,
    /// The file is not on the list.
    Denied,
    /// The file could not be opened.
    Failed,
    /// There was no answer: no service was there, or it went.
    Nothing,
}

/// Asks for a file that may be handed out, or must not be. Whatever fails, it is never
/// another file, and a refusal is one.
fn told(run: &Run<'_>, name: &str, may_have: bool) -> Result<Told, String> {
    let dir = run.dir;
    let line = format!("{}\n", dir.path(name).display());
    let Some(client) = opener::Client::try_new(dir).filter(|client| client.send(line)) else {
        return Ok(Told::Nothing);
    };
    let Some(answer) = client.try_answer() else { return Ok(Told::Nothing) };
    let begins = |whole: &str| !answer.text.is_empty() && whole.starts_with(&answer.text);
    match (&answer.text[..], answer.files.len()) {
        ("", 0) => Ok(Told::Nothing),
        ("F", 1) if may_have && answer.content() == dir.read(name) => Ok(Told::File),
        ("DENIED", 0) => Ok(Told::Denied),
        (text, 0) if text.starts_with("open failed: E") => Ok(Told::Failed),
        // The client did not get the end of the refusal.
        (_, 0) if begins("DENIED") || begins("open failed: E") => Ok(Told::Failed),
        _ => Err(format!("asked for {name}: {answer:?}")),
    }
}

/// Asks until the answer is this one.
fn is_told(run: &Run<'_>, name: &str, what: &Told) -> Step {
    let (mut last, mut wrong) = (Told::Nothing, None);
    run.until(&format!("{name} is {what:?}"), || {
        match told(run, name, *what == Told::File) {
            Ok(now) => last = now,
            Err(why) => wrong = Some(why),
        }
        wrong.is_some() || last == *what
    })
    .map_err(|why| format!("{why}: {last:?}"))?;
    wrong.map_or(Ok(()), Err)
}

fn open_files(run: &mut Run<'_>) -> Step {
    is_told(run, "public", &Told::File)?;
    is_told(run, "link", &Told::File)?;
    is_told(run, "secret", &Told::Denied)?;
    allow_only(run.dir, &["secret"]);
    kill_if_alive(run, "HUP");
    let refusals = || log_lines_matching(&run.dir.read("zigsvc-opener.log"), "config not reloaded");
    let (mut refused, mut wrong) = (0, None);
    run.until("the new list is in force", || {
        if refusals() > refused {
            refused += 1;
            kill_if_alive(run, "HUP");
        }
        let answer = told(run, "secret", true);
        let done = answer == Ok(Told::File);
        wrong = answer.err();
        wrong.is_some() || done
    })?;
    wrong.map_or(Ok(()), Err)?;
    is_told(run, "public", &Told::Denied)
}

/// Insists that the list holds, and that there is one worker.
fn opens_files(run: &mut Run<'_>) -> Step {
    let (open, shut) = if run.dir.read("zigsvc.conf").contains("secret") {
        ("secret", "public")
    } else {
        ("link", "secret")
    };
    is_told(run, open, &Told::File)?;
    is_told(run, shut, &Told::Denied)?;
    run.until("there is one worker", || opener::children(run.pid).len() == 1)
}

/// Sends two values of one metric, until both are answered: then each counts once.
fn collect(run: &mut Run<'_>) -> Step {
    let address = format!("zigsvc-metrics:{}", run.dir.as_arg());
    let mut wrong = None;
    run.until("values are answered", || {
        // A value without an answer may have been counted, so each try has a new name.
        static NAMES: AtomicUsize = AtomicUsize::new(0);
        let name = format!("m{}", NAMES.fetch_add(1, Ordering::Relaxed));
        let passed = || -> Option<Vec<String>> {
            let stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(&address).ok()?).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
            let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
            let mut ask = |name: &str, value: u32| {
                writeln!(&stream, "{{\"name\":\"{name}\",\"value\":{value}}}").ok()?;
                lines.next()?.ok()
            };
            let answers = vec![ask(&name, 2)?, ask(&name, 5)?];
            (&stream).write_all(b"{\"name\":\"dump\",\"value\":0}").ok()?;
            stream.shutdown(std::net::Shutdown::Write).ok()?;
            Some(answers.into_iter().chain(lines.map_while(Result::ok)).collect())
        };
        let Some(lines) = passed() else { return false };
        let known = |line: &String| line.starts_with("error: ") || is_metric(line);
        if !lines.iter().all(known) {
            wrong = Some(format!("{name}: {lines:?}"));
        }
        let counted = lines.contains(&format!("{name}: avg=3.5 (n=2)"));
        wrong.is_some() || (counted && lines[..2] == [format!("{name}: avg=2"), format!("{name}: avg=3.5")])
    })?;
    wrong.map_or(Ok(()), Err)
}

/// Returns true if the collector may write this line about the values above.
fn is_metric(line: &str) -> bool {
    let known = [": avg=2", ": avg=3.5", ": avg=2 (n=1)", ": avg=3.5 (n=2)", ": avg=5 (n=1)"];
    line.starts_with('m') && known.iter().any(|end| line.ends_with(end))
}

fn collects(run: &mut Run<'_>) -> Step {
    collect(run)
}
