//! Everything at once, for long: two supervised services with clients, writers
//! of the queue file, jobs that fail, rotations, reloads good and bad, and a
//! disk that is full now and then; one of the two is killed again and again.
//!
//! Afterwards every line and every acknowledged job has run, none was half
//! read, nothing that was refused has run, and in the service that was never
//! killed no job ran twice. Memory, descriptors and idle wake-ups are as they
//! were at the beginning.
//!
//! `ZIGSVC_SOAK_SECONDS` (6) is how long; an hour is a good one. `ZIGSVC_SEED`
//! repeats one choice of actions. The figures are printed with `--nocapture`.

use crate::support::control::{Client, SetOnDrop, field, status};
use crate::support::random::Random;
use crate::support::small_disk::{SmallDisk, has_namespaces};
use crate::support::{
    Dir, holds_within, kill, proc_status, require_native, require_self_exec, require_tool, wait_until,
};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Notes each attempt's job, and ends as the job's first word wants it.
const HANDLER: &str = "echo \"$1\" >> out
case $1 in
odd*) [ \"$ZIGSVC_ATTEMPT\" -gt 1 ] ;;
bad*) exit 1 ;;
esac";

/// The texts that `zigsvc.conf` holds in turn.
const GOOD: [&str; 3] = [
    "log_keep = 2\nretry_delay = \"100ms\"\n",
    "log_keep = 3\nretry_delay = \"200ms\"\nlog_max = \"30k\"\n",
    "log_keep = 1\nretry_delay = \"50ms\"\nlog_level = \"warn\"\n",
];

/// Jobs that may be on their way, so that the end does not take long.
const ON_THE_WAY: usize = 400;

/// From outside: those who add jobs, by their number.
const CLIENTS: usize = 3;
const WRITERS: usize = 2;

/// From here on a run says something about growth.
const LONG_SECONDS: u64 = 120;

/// Maximum memory that a service may have touched of its statics and its stack.
const MEMORY_MAX_KIB: u64 = 160;

fn seconds() -> u64 {
    crate::support::setting("ZIGSVC_SOAK_SECONDS", 6)
}

/// Returns the job of one source. Its last word shows that the job is whole.
fn text(source: usize, number: usize) -> String {
    let kind = match number % 23 {
        5 | 13 => "odd",
        17 => "bad",
        _ => "ok",
    };
    format!("{kind} {source} {number} {} END", "-".repeat(number * 7 % 90))
}

/// The resources that a process needs at a moment.
#[derive(Clone, Copy, Debug)]
struct Needs {
    anonymous_kib: u64,
    rss_kib: u64,
    descriptors: u64,
    wakeups: u64,
    /// When that was.
    ms: u64,
}

impl Needs {
    fn of(pid: u32) -> Option<Self> {
        let kib = |name| proc_status(pid, name).split(' ').next()?.parse().ok();
        Some(Self {
            anonymous_kib: kib("RssAnon")?,
            rss_kib: kib("VmRSS")?,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64,
            wakeups: proc_status(pid, "voluntary_ctxt_switches").parse().ok()?,
            ms: u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()?,
        })
    }
}

/// The jobs of a source, by their answers.
#[derive(Default)]
struct Sent {
    /// Acknowledged, or written to the queue file.
    promised: Vec<(usize, usize)>,
    /// Answered by an error.
    refused: Vec<(usize, usize)>,
    /// Not answered: a kill came first.
    unanswered: usize,
}

/// One supervised service and those who use it.
struct Place {
    dir: Dir,
    disk: SmallDisk,
    /// Whether the service is killed again and again.
    killed: bool,
    over: AtomicBool,
    sent: AtomicUsize,
    ran: AtomicUsize,
    /// Lets one source write at a time, because a full disk may take half a line, and the rest of
    /// the line must follow it.
    queue: Mutex<()>,
    actions: Mutex<BTreeMap<&'static str, u32>>,
    hidden: AtomicU64,
}

/// The samples of one place.
#[derive(Default)]
struct Samples {
    jobs: Vec<Needs>,
    supervisor: Vec<Needs>,
}

impl Place {
    fn new(killed: bool) -> Self {
        let dir = Dir::new();
        let disk = SmallDisk::new(&dir, "1m");
        dir.write("zigsvc.conf", GOOD[0]);
        dir.write_executable("handler", &format!("#!/bin/sh\ncd {} || exit 1\n{HANDLER}\n", dir.as_arg()));
        dir.write("out", "");
        let handler = format!("handler={}", dir.path("handler").display());
        let options = ["interval=1s", "check_interval=1s", "stale_after=60s", "workers=2", "retries=1"];
        let place = Self {
            dir,
            disk,
            killed,
            over: AtomicBool::new(false),
            sent: AtomicUsize::new(0),
            ran: AtomicUsize::new(0),
            queue: Mutex::new(()),
            actions: Mutex::default(),
            hidden: AtomicU64::new(0),
        };
        let options = [&options[..], &[&handler, "queue_max=2000"]].concat();
        place.disk.start_service(&place.dir, "supervisor", &options);
        wait_until("jobs answers", || UnixStream::connect(place.dir.path("zigsvc.sock")).is_ok());
        place
    }

    fn jobs(&self) -> Option<u32> {
        self.dir.lock_holder("zigsvc.pid")
    }

    fn supervisor(&self) -> u32 {
        self.dir.lock_holder("zigsvc-supervisor.pid").expect("the supervisor lives")
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Waits for the next job's turn. Returns true if there is one, and false at the end of the run.
    fn next(&self, pause: Duration) -> bool {
        thread::sleep(pause);
        loop {
            if self.is_over() {
                return false;
            }
            let (sent, ran) = (self.sent.load(Ordering::Relaxed), self.ran.load(Ordering::Relaxed));
            if sent < ran.saturating_add(ON_THE_WAY) {
                self.sent.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            thread::sleep(pause);
        }
    }

    fn connect(&self) -> Option<Client> {
        UnixStream::connect(self.dir.path("zigsvc.sock")).ok().map(Client::over)
    }

    /// Adds jobs over the control socket.
    fn client(&self, source: usize) -> Sent {
        let mut sent = Sent::default();
        let mut client = None;
        for number in 0.. {
            if !self.next(Duration::from_millis(80)) {
                break;
            }
            if client.is_none() || number % 50 == 0 {
                client = self.connect();
            }
            let request = format!("queue {}\n", text(source, number));
            let answer = client.as_mut().and_then(|client: &mut Client| {
                client.try_send(request.as_bytes()).ok()?;
                client.try_line()
            });
            match answer {
                Some(answer) if answer.starts_with("ok id=") => sent.promised.push((source, number)),
                Some(answer) => {
                    assert!(answer.starts_with("err "), "{answer}");
                    sent.refused.push((source, number));
                    if answer.starts_with("err busy") {
                        client = None;
                    }
                    thread::sleep(Duration::from_millis(50));
                }
                None => {
                    sent.unanswered += 1;
                    client = None;
                }
            }
        }
        sent
    }

    /// Appends to the queue file.
    fn writer(&self, source: usize) -> Sent {
        let mut sent = Sent::default();
        for number in 0.. {
            if !self.next(Duration::from_millis(80)) {
                break;
            }
            let line = format!("{}\n", text(source, number));
            let _turn = self.queue.lock().unwrap();
            let path = self.disk.path(&self.dir, "queue");
            let Ok(mut file) = fs::OpenOptions::new().append(true).create(true).open(path) else { continue };
            let mut rest = line.as_bytes();
            while !rest.is_empty() {
                match file.write(rest) {
                    Ok(count) => rest = &rest[count..],
                    // The disk is full. A line that was begun must be completed.
                    Err(_) if rest.len() == line.len() => break,
                    Err(_) => thread::sleep(Duration::from_millis(10)),
                }
            }
            if rest.is_empty() {
                sent.promised.push((source, number));
            }
        }
        sent
    }

    /// Looks, watches, and asks for what makes no sense.
    fn onlooker(&self) {
        let mut turn = 0usize;
        while !self.is_over() {
            thread::sleep(Duration::from_millis(200));
            turn += 1;
            let Some(mut client) = self.connect() else { continue };
            let requests: &[u8] = match turn % 5 {
                0 => b"status\nlist all\n",
                1 => b"watch\n",
                2 => b"\xff\xfe\x00noise\nwait 1\n",
                3 => b"list dead 0\nhelp\nqueue",
                _ => b"cancel 18446744073709551616\n\n",
            };
            let _ = client.try_send(requests);
            if turn % 5 != 1 {
                let _ = client.try_line();
            }
        }
    }

    fn did(&self, action: &'static str) {
        *self.actions.lock().unwrap().entry(action).or_default() += 1;
    }

    fn count(&self, name: &str) -> Option<u64> {
        let mut client = self.connect()?;
        client.try_send(b"status\n").ok()?;
        let answer = client.try_line()?;
        answer.starts_with("ok ").then(|| field(&answer, name).parse().unwrap())
    }

    /// Writes this into the configuration file, sends HUP, and waits until the file was read.
    fn reload(&self, config: &str, counter: &str) {
        let Some((pid, before)) = self.jobs().zip(self.count(counter)) else { return };
        self.dir.write("zigsvc.conf", config);
        kill(pid, "HUP");
        wait_until("the configuration was read", || self.count(counter).is_some_and(|now| now > before));
    }

    /// Causes one of the things that happen to a service. Returns true if the service was killed.
    fn act(&self, random: &mut Random, may_kill: bool) -> bool {
        let Some(pid) = self.jobs() else { return false };
        let mut killed = false;
        match random.below(if may_kill { 8 } else { 7 }) {
            0 => {
                kill(pid, "USR1");
                self.did("rotations");
            }
            1 => {
                self.reload(GOOD[usize::try_from(random.below(3)).unwrap()], "reloads");
                self.did("reloads");
            }
            2 => {
                self.reload("workers = 99\n", "reload_errors");
                self.did("bad reloads");
                // A service that starts would not start with the bad file.
                self.dir.write("zigsvc.conf", GOOD[0]);
            }
            3 => {
                self.disk.fill(&self.dir);
                self.did("full disks");
                thread::sleep(Duration::from_millis(300 + random.below(1200)));
                if may_kill && random.below(3) == 0 {
                    kill(pid, "KILL");
                    killed = true;
                    self.did("kills on a full disk");
                    thread::sleep(Duration::from_millis(300));
                }
                fs::remove_file(self.disk.path(&self.dir, "filler")).unwrap();
            }
            4 | 5 => {
                let retry = random.below(3) == 0;
                if let Some(mut client) = self.connect() {
                    let _ = client.try_send(if retry { b"retry dead\n" } else { b"forget dead\n" });
                    let _ = client.try_line();
                }
                self.did(if retry { "retries of the dead" } else { "dead forgotten" });
            }
            6 => {
                let _ = fs::rename(self.dir.path("zigsvc.log"), self.dir.path("moved"));
                self.did("logs moved away");
            }
            _ => {
                kill(pid, "KILL");
                killed = true;
                self.did("kills");
            }
        }
        killed
    }

    /// Acts and samples until the time has passed.
    fn go_on(&self, seed: u64, length: Duration) -> Samples {
        let mut random = Random::new(seed);
        let mut samples = Samples::default();
        let started = Instant::now();
        let supervisor = self.supervisor();
        // A life of more than ten seconds is restarted without delay.
        let long = length >= Duration::from_secs(LONG_SECONDS);
        let (life, pause) = if long { (11_000, 1000) } else { (2000, 250) };
        let mut last_kill = Instant::now();
        while started.elapsed() < length {
            let may_kill = self.killed && last_kill.elapsed() > Duration::from_millis(life);
            if self.act(&mut random, may_kill) {
                last_kill = Instant::now();
            }
            thread::sleep(Duration::from_millis(pause / 2 + random.below(pause)));
            samples.jobs.extend(self.jobs().and_then(Needs::of));
            samples.supervisor.extend(Needs::of(supervisor));
        }
        assert_eq!(self.supervisor(), supervisor, "it lives on");
        samples
    }

    /// Counts what the handlers wrote, as it comes.
    fn count_runs(&self) {
        let mut file = File::open(self.dir.path("out")).unwrap();
        let mut bytes = vec![0; 65_536];
        let mut at = 0;
        while !self.is_over() {
            file.seek(SeekFrom::Start(at)).unwrap();
            let count = file.read(&mut bytes).unwrap();
            at += count as u64;
            let lines = bytes[..count].iter().filter(|byte| **byte == b'\n').count();
            self.ran.fetch_add(lines, Ordering::Relaxed);
            // A job that never runs must not hold up the sources for ever.
            if count == 0 && self.hidden.fetch_add(1, Ordering::Relaxed) > 200 {
                self.hidden.store(0, Ordering::Relaxed);
                self.ran.store(self.sent.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Wake-ups of the two processes in a time in which nothing happens.
    fn idle_wakeups(&self) -> (u64, u64) {
        let (jobs, supervisor) = (self.jobs().unwrap(), self.supervisor());
        let now = |pid| Needs::of(pid).unwrap().wakeups;
        let before = (now(jobs), now(supervisor));
        thread::sleep(Duration::from_secs(3));
        (now(jobs) - before.0, now(supervisor) - before.1)
    }

    fn soak(&self, seed: u64, length: Duration) {
        let name = if self.killed { "killed" } else { "never killed" };
        let idle_before = self.idle_wakeups();
        let needs_before = Needs::of(self.jobs().unwrap()).unwrap();
        let (samples, sent) = thread::scope(|scope| {
            let over = SetOnDrop(&self.over);
            scope.spawn(|| self.count_runs());
            scope.spawn(|| self.onlooker());
            let clients = (0..CLIENTS).map(|source| scope.spawn(move || self.client(source)));
            let writers = (CLIENTS..CLIENTS + WRITERS).map(|source| scope.spawn(move || self.writer(source)));
            let sources: Vec<_> = clients.chain(writers).collect();
            let samples = self.go_on(seed, length);
            drop(over);
            let sent: Vec<_> = sources.into_iter().map(|source| source.join().unwrap()).collect();
            (samples, sent)
        });
        let runs = self.wait_for_the_end(&sent);
        eprintln!("{name}: {:?}", self.actions.lock().unwrap());
        judge_runs(name, &sent, &runs, self.killed);
        // The spare journal is opened with the first compaction.
        wait_until("its claims are closed", || {
            Needs::of(self.jobs().unwrap())
                .is_some_and(|needs| needs.descriptors <= needs_before.descriptors + 1)
        });
        let idle_after = self.idle_wakeups();
        eprintln!("{name}: wake-ups in 3 idle seconds, jobs and supervisor: {idle_before:?}, {idle_after:?}");
        assert!(idle_after.0 <= idle_before.0 + 4 && idle_after.1 <= idle_before.1 + 4);
        judge_samples(&format!("{name}, supervisor"), &samples.supervisor, true);
        judge_samples(&format!("{name}, jobs"), &samples.jobs, !self.killed);
    }

    /// Returns how often each job ran, once all that were promised have run.
    fn wait_for_the_end(&self, sent: &[Sent]) -> BTreeMap<(usize, usize), u32> {
        let promised: HashSet<_> = sent.iter().flat_map(|sent| sent.promised.iter().copied()).collect();
        let mut runs = BTreeMap::new();
        let mut progress = (0, Instant::now());
        loop {
            let idle = self.count("waiting").is_some_and(|waiting| waiting == 0);
            runs.clear();
            let out = self.dir.read("out");
            for line in out.lines() {
                let mut words = line.split(' ').skip(1).map(|word| word.parse().ok());
                let (source, number) = (words.next().flatten(), words.next().flatten());
                let job = source.zip(number).unwrap_or_else(|| panic!("not a job: {line:?}"));
                assert_eq!(line, text(job.0, job.1), "half read");
                *runs.entry(job).or_insert(0) += 1;
            }
            let missing = promised.iter().filter(|job| !runs.contains_key(job)).count();
            if idle && missing == 0 {
                return runs;
            }
            if progress.0 != out.len() {
                progress = (out.len(), Instant::now());
            }
            let missing_jobs = || promised.iter().filter(|job| !runs.contains_key(job)).collect::<Vec<_>>();
            assert!(progress.1.elapsed() < Duration::from_secs(60), "lost: {:?}", missing_jobs());
            holds_within(Duration::from_millis(200), || false);
        }
    }
}

/// Insists that each promised job has run, and that no refused one has.
fn judge_runs(name: &str, sent: &[Sent], runs: &BTreeMap<(usize, usize), u32>, killed: bool) {
    let promised: usize = sent.iter().map(|sent| sent.promised.len()).sum();
    let refused: Vec<_> = sent.iter().flat_map(|sent| sent.refused.iter()).collect();
    let unanswered: usize = sent.iter().map(|sent| sent.unanswered).sum();
    let again = |(job, count): (&(usize, usize), &u32)| *count > 1 && text(job.0, job.1).starts_with("ok");
    let again = runs.iter().filter(|run| again(*run)).count();
    eprintln!(
        "{name}: {promised} promised, 0 lost, {} refused, {unanswered} unanswered; {} jobs ran, {again} of \
         those that do not fail more than once",
        refused.len(),
        runs.len()
    );
    for job in refused {
        assert!(!runs.contains_key(job), "{name}: {job:?} was refused, and ran");
    }
    if !killed {
        assert_eq!((unanswered, again), (0, 0), "{name}: nothing else repeats a job");
    }
}

/// Compares the first quarter, without its beginning, with the last one.
fn judge_samples(name: &str, samples: &[Needs], one_process: bool) {
    let quarter = samples.len() / 4;
    let median = |samples: &[Needs], value: &dyn Fn(&Needs) -> u64| {
        let mut values: Vec<u64> = samples.iter().map(value).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or(0)
    };
    let (first, last) = (&samples[quarter / 4..quarter], &samples[samples.len() - quarter..]);
    let pair = |value: &dyn Fn(&Needs) -> u64| (median(first, value), median(last, value));
    let (anonymous, rss) = (pair(&|needs| needs.anonymous_kib), pair(&|needs| needs.rss_kib));
    let descriptors = pair(&|needs| needs.descriptors);
    let rate = |samples: &[Needs]| match samples {
        [first, .., last] if one_process => {
            (last.wakeups - first.wakeups) * 60_000 / last.ms.saturating_sub(first.ms).max(1)
        }
        _ => 0,
    };
    let wakeups = (rate(first), rate(last));
    eprintln!(
        "{name}: medians of the first and last quarter of {} samples: anonymous {anonymous:?} KiB, RSS \
         {rss:?} KiB, descriptors {descriptors:?}, wake-ups a minute {wakeups:?}",
        samples.len()
    );
    // There is no heap: all that can come is pages that are touched late. In a
    // long run they all come in the beginning.
    assert!(anonymous.1 <= MEMORY_MAX_KIB, "{name}: {anonymous:?} KiB of anonymous memory");
    if seconds() < LONG_SECONDS {
        return;
    }
    assert!(anonymous.1 <= anonymous.0 + 8, "{name}: anonymous memory grows: {anonymous:?}");
    assert!(rss.1 <= rss.0 + 32, "{name}: memory grows: {rss:?}");
    // Each claimed queue file is open until it has been quiet for 10 s.
    assert!(descriptors.1 <= descriptors.0 + 16, "{name}: descriptors grow: {descriptors:?}");
    // A loaded service wakes as the machine lets its users work.
    assert!(wakeups.1 <= wakeups.0 * 2 + 60, "{name}: wake-ups grow: {wakeups:?}");
}

#[test]
fn a_service_that_is_used_and_maltreated_for_long_loses_nothing_and_does_not_grow() {
    if !has_namespaces() || !require_self_exec() || !require_tool("sh") {
        return;
    }
    if !require_native("QEMU needs /proc") {
        return;
    }
    let seed = crate::support::setting("ZIGSVC_SEED", 11);
    let length = Duration::from_secs(seconds());
    eprintln!("{length:?} with ZIGSVC_SEED={seed}");
    let places = [Place::new(false), Place::new(true)];
    thread::scope(|scope| {
        for (number, place) in places.iter().enumerate() {
            scope.spawn(move || place.soak(seed + number as u64, length));
        }
    });
    for place in &places {
        assert_eq!(status(&place.dir, "waiting"), 0);
        let path: PathBuf = place.disk.path(&place.dir, "spool");
        let bad = fs::read_dir(path).unwrap().flatten().filter(|entry| {
            let name = entry.file_name();
            name.to_string_lossy().contains("bad-") || name == "rejected"
        });
        assert_eq!(bad.count(), 0, "nothing was damaged, nothing rejected");
    }
}
