//! kill -9 of the service `jobs` under its supervisor, again and again, while
//! jobs come by the control socket and by the queue file. Afterwards each job
//! that was acknowledged has run, each kill led to exactly one restart, and each
//! restart was logged and counted.
//!
//! `ZIGSVC_KILLS` is the number of kills (6), up to 20 of them in each of several
//! folders at the same time; given explicitly, each service lives for more than
//! ten seconds before it is killed, so that none is restarted with delay. 1000 take
//! four minutes (`tests/bench/kills`). The results are printed with `--nocapture`.

use crate::support::control::{Client, SetOnDrop, id_in, status};
use crate::support::{Dir, kill, log_lines_matching, processed, require_self_exec, wait_until};
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::collections::{BTreeMap, HashSet};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Instant;

const LOG: &str = "zigsvc-supervisor.log";

/// The life after which a death is no quick one any more, and some.
const LIFE: Duration = Duration::from_millis(10_200);

/// A supervised `jobs`, which is killed.
struct Folder {
    dir: Dir,
    kills: usize,
    /// How long each service lives before it is killed.
    life: Duration,
    /// A kill is near: jobs come as fast as they can.
    hurry: AtomicBool,
    over: AtomicBool,
}

/// The result of one of the folders.
#[derive(Default)]
struct Outcome {
    acknowledged: usize,
    /// Jobs without an answer: no service was there, or a kill cut off the answer.
    unanswered: usize,
    lost: usize,
    doubled: usize,
    restarts: u64,
    told: usize,
    /// From each kill until another process holds the lock.
    latencies: Vec<Duration>,
}

impl Folder {
    fn run(&self) -> Outcome {
        self.dir.start_service("supervisor", &["log_max=0", "queue_max=1000000"]);
        let (jobs, latencies) = thread::scope(|scope| {
            let over = SetOnDrop(&self.over);
            let feeding = scope.spawn(|| self.feed());
            let latencies = self.kill_again_and_again();
            drop(over);
            (feeding.join().unwrap(), latencies)
        });
        let ran = || {
            let mut counts = BTreeMap::new();
            for text in processed(&self.dir) {
                *counts.entry(text).or_insert(0_usize) += 1;
            }
            counts
        };
        wait_until("nothing is left to do", || {
            let idle = status(&self.dir, "waiting") + status(&self.dir, "running") == 0;
            let counts = if idle { ran() } else { BTreeMap::new() };
            jobs.acknowledged.iter().all(|text| counts.contains_key(text))
        });
        let counts = ran();
        Outcome {
            acknowledged: jobs.acknowledged.len(),
            unanswered: jobs.unanswered,
            lost: jobs.acknowledged.iter().filter(|text| !counts.contains_key(*text)).count(),
            doubled: counts.values().map(|count| count.saturating_sub(1)).sum(),
            restarts: self.restarts(),
            told: (1..).take_while(|number| self.told(&format!("; restart {number} ")) == 1).count(),
            latencies,
        }
    }

    /// Returns the PID of `jobs`, once the supervisor says that it runs.
    fn running(&self, after: u32) -> u32 {
        let mut found = 0;
        wait_until("jobs runs", || {
            found = self.dir.lock_holder("zigsvc.pid").unwrap_or(after);
            found != after && self.told(&format!("jobs: running (pid {found})")) > 0
        });
        found
    }

    fn told(&self, text: &str) -> usize {
        log_lines_matching(&self.dir.read(LOG), text)
    }

    fn kill_again_and_again(&self) -> Vec<Duration> {
        let mut pid = self.running(0);
        let mut latencies = Vec::new();
        for number in 0..self.kills {
            // The kills do not come to all folders at the same moment.
            let more = Duration::from_millis((u64::from(pid) * 37 + number as u64 * 11) % 150);
            thread::sleep(self.life);
            self.hurry.store(true, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(50) + more);
            kill(pid, "KILL");
            let killed = Instant::now();
            wait_until("another one holds the lock", || {
                self.dir.lock_holder("zigsvc.pid").is_some_and(|holder| holder != pid)
            });
            latencies.push(killed.elapsed());
            self.hurry.store(false, Ordering::Relaxed);
            pid = self.running(pid);
        }
        latencies
    }

    /// Adds jobs until the kills have ended, by turns through the socket and the file.
    fn feed(&self) -> Jobs {
        let mut jobs = Jobs::default();
        let mut client = None;
        let mut ids = HashSet::new();
        for number in 0.. {
            if self.over.load(Ordering::Relaxed) {
                break;
            }
            if !self.hurry.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(100));
            }
            let text = format!("file {number} END");
            self.dir.append("queue", &format!("{text}\n"));
            jobs.acknowledged.push(text);
            let text = format!("socket {number} END");
            match self.queue(&mut client, &text) {
                Some(answer) => {
                    assert!(ids.insert(id_in(&answer)), "twice: {answer}");
                    jobs.acknowledged.push(text);
                }
                None => jobs.unanswered += 1,
            }
        }
        jobs
    }

    /// Returns the answer to `queue TEXT`; none if the service was killed before it.
    fn queue(&self, client: &mut Option<Client>, text: &str) -> Option<String> {
        if client.is_none() {
            // A socket without a process that listens refuses. The next call connects again.
            *client = UnixStream::connect(self.dir.path("zigsvc.sock")).ok().map(Client::over);
            if client.is_none() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        let connected = client.as_mut()?;
        let sent = connected.try_send(format!("queue {text}\n").as_bytes());
        let answer = sent.ok().and_then(|()| connected.try_line());
        if answer.is_none() {
            *client = None;
        }
        answer
    }

    /// Returns the number of restarts that the supervisor counted.
    fn restarts(&self) -> u64 {
        let before = self.told("status: ");
        kill(self.dir.lock_holder("zigsvc-supervisor.pid").expect("a supervisor"), "USR2");
        wait_until("it tells its status", || self.told("status: ") > before);
        let log = self.dir.read(LOG);
        let line = log.lines().rfind(|line| line.contains("status: ")).unwrap();
        let value = line.split(' ').find_map(|word| word.strip_prefix("restarts="));
        value.unwrap_or_else(|| panic!("{line}")).parse().unwrap()
    }
}

/// The jobs of a folder.
#[derive(Default)]
struct Jobs {
    acknowledged: Vec<String>,
    unanswered: usize,
}

#[test]
fn no_job_is_lost_and_each_restart_is_counted_when_the_supervised_service_is_killed() {
    if !require_self_exec() {
        return;
    }
    let began = Instant::now();
    let given: Option<usize> = std::env::var("ZIGSVC_KILLS").ok().map(|text| text.parse().expect("a number"));
    let kills = given.unwrap_or(6);
    let folders = if given.is_some() { kills.div_ceil(20) } else { 2 };
    let life = if given.is_some() { LIFE } else { Duration::ZERO };
    let folders: Vec<Folder> = (0..folders)
        .map(|index| Folder {
            dir: Dir::new(),
            kills: (kills + index) / folders,
            life,
            hurry: AtomicBool::new(false),
            over: AtomicBool::new(false),
        })
        .collect();
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let running: Vec<_> = folders.iter().map(|folder| scope.spawn(|| folder.run())).collect();
        running.into_iter().map(|folder| folder.join().unwrap()).collect()
    });
    let sum = |field: fn(&Outcome) -> usize| outcomes.iter().map(field).sum::<usize>();
    let (lost, doubled, told) = (sum(|one| one.lost), sum(|one| one.doubled), sum(|one| one.told));
    let restarts: u64 = outcomes.iter().map(|one| one.restarts).sum();
    let mut latencies: Vec<Duration> = outcomes.iter().flat_map(|one| one.latencies.clone()).collect();
    latencies.sort();
    eprintln!(
        "folders={} kills={} restarts={restarts} told={told} acknowledged={} unanswered={} lost={lost} \
         doubled={doubled} restart median={:?} longest={:?} in {:?}",
        folders.len(),
        latencies.len(),
        sum(|one| one.acknowledged),
        sum(|one| one.unanswered),
        latencies.get(latencies.len() / 2).unwrap(),
        latencies.last().unwrap(),
        began.elapsed(),
    );
    assert_eq!((latencies.len(), lost), (kills, 0));
    assert_eq!((restarts, told), (kills as u64, kills), "each once");
    for (folder, outcome) in folders.iter().zip(&outcomes) {
        assert_eq!(outcome.restarts, folder.kills as u64, "{}", folder.dir.logs());
        let log = folder.dir.read(LOG);
        let delayed = log.lines().any(|line| line.contains("; restart ") && !line.ends_with(" now"));
        assert!(given.is_none() || !delayed, "{log}");
    }
    // A window of jobs is logged at once, and recorded as done after that.
    assert!(doubled <= kills * 32, "{doubled} more than {kills} kills explain");
}
