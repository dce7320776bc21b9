//! The board: its clocks, its disk, its processes, and everything that happens to it.

use super::clients::{Ask, Client};
use super::ledger::{End, Job, Ledger, Removed};
use super::processes::{Nature, Processes};
use super::random::Random;
use super::scenario::{Kind, Scenario};
use super::service::{RULES, Service};
use super::timeline::Timeline;
use crate::limits::{CLAIM_QUIET, CLIENTS_MAX, SCRATCH_BYTES};
use crate::proto::attributes::HandlerKind;
use crate::proto::journal::{OLDEST_VERSION, header_of_version};
use crate::state::degraded::DegradedSet;
use crate::state::disk::fake::{FakeDisk, READ_ONLY, Refusal, Work};
use crate::state::disk::{Disk, DiskError, NO_SPACE, OVER_QUOTA, SpoolFile};
use crate::state::jobs::scan_task::ListMemory;
use crate::state::jobs::{JobRules, JobsCore};
use crate::state::spool::{RecordLocation, SpoolRules};
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};

/// Seconds after the end of all faults in which everything has to end.
const SETTLE_SECS: u64 = 3 * 3600;
/// Milliseconds without progress that a state has to explain: `stale_after` and two heartbeats.
const STALE: u64 = 15_000 + 2 * 3000 + 1000;

/// All that a disk can refuse.
const ALL_WORK: &[Work] = &[Work::Write, Work::Create, Work::Change, Work::Sync, Work::SyncNames, Work::Read];

/// Something that happens later.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// An event of this kind.
    Kind(Kind),
    /// A process ends by itself.
    Exit(u32, u64, u16),
    /// The service is started.
    Start,
    /// A fault of this kind ends.
    Mend(Kind),
    /// A writer appends again: the file, and how often.
    Append(usize, u64),
    /// The queue is resumed.
    Resume,
    /// A client leaves.
    Leave(usize),
    /// A claim with a line without its end is closed soon, and the sync after that fails.
    FailSync,
}

/// See the module's documentation.
pub(super) struct Board {
    pub(super) line: Timeline<Event>,
    /// Seconds since 1970.
    pub(super) wall: i64,
    wall_at: u64,
    pub(super) random: Random,
    pub(super) disk: FakeDisk,
    pub(super) processes: Processes,
    pub(super) note: Vec<u8>,
    pub(super) service: Option<Service>,
    pub(super) memory: Option<&'static mut ListMemory>,
    pub(super) clients: Vec<Option<Client>>,
    pub(super) ledger: Ledger,
    pub(super) rules: JobRules,
    /// The workers before the last change.
    pub(super) workers_before: usize,
    /// Whether the queue is held, if no crash decides it.
    pub(super) held: Option<bool>,
    pub(super) handler_missing: bool,
    pub(super) log_fails: bool,
    pub(super) child_ended: bool,
    /// Half a record can be in the journal: the power was cut, or nothing could cut it off.
    pub(super) is_torn: bool,
    /// The next death at an operation is a power cut.
    dies_by_power: bool,
    /// The service is to be started again when it has ended.
    start_pending: bool,
    /// The faults that last.
    faults: BTreeSet<Kind>,
    /// Milliseconds that each sync takes.
    sync_ms: u64,
    /// The service cannot run before this time, because a call of it has not returned.
    blocked_until: u64,
    /// When the service last knew of each line that it has to take.
    pub(super) known_at: u64,
    /// When [`Board::check_progress`] looked last.
    checked_at: u64,
    /// When a job last started or ended.
    pub(super) progress_at: u64,
    /// The time that a request may wait before it is taken.
    pub(super) asked_ms: u64,
    pub(super) shadow_every: u64,
    /// The job that ended last, and if everything was well then.
    pub(super) last_end: Option<(usize, bool)>,
    pub(super) turns: u64,
    pub(super) lives: u64,
    pub(super) cuts: u64,
    pub(super) shadows: u64,
    pub(super) acknowledged: u64,
}

impl Board {
    pub(super) fn new(scenario: &Scenario, traced: bool) -> Self {
        let seed = scenario.seed;
        let mut random = Random::new(seed, 1);
        let mut disk = FakeDisk::new(random.next() >> 2);
        disk.has_leases = !random.one_in(4);
        let mut rules = RULES;
        rules.workers = usize::try_from(random.between(1, 4)).unwrap_or(1);
        rules.logs_jobs = random.one_in(8);
        if rules.logs_jobs {
            rules.spool.handler = HandlerKind::Log;
        }
        let mut board = Self {
            line: Timeline::new(scenario, traced),
            wall: 0,
            wall_at: 0,
            random,
            disk,
            processes: Processes::default(),
            note: Vec::new(),
            service: None,
            memory: None,
            clients: (0..CLIENTS_MAX).map(|_| None).collect(),
            ledger: Ledger::default(),
            rules,
            workers_before: 0,
            held: Some(false),
            handler_missing: false,
            log_fails: false,
            child_ended: false,
            is_torn: false,
            dies_by_power: false,
            start_pending: false,
            faults: BTreeSet::new(),
            sync_ms: 0,
            blocked_until: 0,
            checked_at: 0,
            known_at: 0,
            progress_at: 0,
            asked_ms: 60_000,
            shadow_every: 100,
            last_end: None,
            turns: 0,
            lives: 0,
            cuts: 0,
            shadows: 0,
            acknowledged: 0,
        };
        if board.line.happens(Kind::Upgrade, 4) {
            board.disk.put_journal(header_of_version(OLDEST_VERSION));
        }
        board.boots();
        for kind in Kind::ALL.iter().filter(|kind| !kind.is_of_supervisor()) {
            board.schedule(*kind);
        }
        board
    }

    // ----- the run ----------------------------------------------------------

    /// Runs to the end, with everything well at last.
    pub(super) fn run(&mut self) {
        let end = self.line.scenario.secs * 1000;
        while self.step(end) {}
        self.settle();
    }

    /// Performs the next event or turn. Returns true if there is one before `end`.
    fn step(&mut self, end: u64) -> bool {
        let event = self.line.next_at();
        let wake = self.wake_time();
        if event.min(wake) >= end {
            self.line.time = self.line.time.max(end);
            return false;
        }
        self.line.time = self.line.time.max(event.min(wake));
        if event <= wake {
            if let Some(event) = self.line.pop() {
                self.happen(event);
            }
        } else {
            let syncs = self.disk.syncs;
            self.turn();
            let took = 1 + (self.disk.syncs - syncs) * self.sync_ms;
            self.blocked_until = self.line.time + took;
            if core::mem::take(&mut self.child_ended)
                && let Some(service) = &mut self.service
            {
                service.woken = true;
            }
            if self.turns.is_multiple_of(64) {
                self.disk.collect_garbage();
                self.ledger.sweep();
            }
        }
        true
    }

    /// Returns when the service has its next turn.
    fn wake_time(&self) -> u64 {
        let Some(service) = &self.service else { return u64::MAX };
        let due = if service.woken { Instant::BOOT } else { service.next_deadline() };
        self.line.time_of(due).max(self.line.time).max(self.blocked_until)
    }

    /// Returns the wall clock in seconds.
    pub(super) fn wall(&self) -> i64 {
        self.wall
    }

    fn move_wall(&mut self) {
        let passed = i64::try_from((self.line.time - self.wall_at) / 1000).unwrap_or(0);
        self.wall += passed;
        self.wall_at += u64::try_from(passed).unwrap_or(0) * 1000;
    }

    /// Makes everything well, and waits until all is done.
    fn settle(&mut self) {
        self.line.trace(|| "----- everything is made well".to_owned());
        self.line.settling = true;
        self.disk.die_at = None;
        for kind in core::mem::take(&mut self.faults) {
            self.mend(kind);
        }
        self.line.retain(|event| !matches!(event, Event::Kind(_)));
        self.workers_before = self.rules.workers;
        let spool = SpoolRules { handler: self.rules.spool.handler, ..RULES.spool };
        self.rules = JobRules { logs_jobs: self.rules.logs_jobs, workers: 4, spool, ..RULES };
        self.wake(|service| service.reloads = true);
        self.line.after(0, Event::Resume);
        self.schedule_start(1000);
        let end = self.line.time + SETTLE_SECS * 1000;
        let mut quiet = 0;
        while quiet < 3 {
            let until = self.line.time + 60_000;
            while self.step(until) {}
            quiet = if self.is_done() { quiet + 1 } else { 0 };
            if !self.is_done() {
                self.connect(&[Ask::Hold(false)]);
                self.cancel_far_jobs();
            }
            assert!(self.line.time < end, "it does not end: {}", self.what_waits());
        }
        self.check_end();
    }

    /// Cancels the jobs that a wrong clock has delayed for years.
    fn cancel_far_jobs(&mut self) {
        let Some(service) = &self.service else { return };
        if service.core.spool.scheduled() == 0
            || service.core.spool.waiting() > service.core.spool.scheduled()
        {
            return;
        }
        let late = |job: &&usize| {
            let job = &self.ledger.jobs[**job];
            job.due.is_some()
                && job.end == End::Open
                && job.removed == Removed::No
                && job.ready_at + 60_000 < self.line.time
        };
        let ids: Vec<Ask> = self
            .ledger
            .open
            .iter()
            .filter(late)
            .filter_map(|job| self.ledger.jobs[*job].id)
            .map(Ask::Cancel)
            .take(20)
            .collect();
        self.connect(&ids);
    }

    fn is_done(&self) -> bool {
        let asked =
            self.clients.iter().flatten().any(|client| client.asked.iter().any(|ask| *ask != Ask::Watch));
        let Some(service) = &self.service else { return false };
        let core = &service.core;
        core.spool.waiting() == 0
            && service.workers.is_empty()
            && !asked
            && core.leftovers.is_empty()
            && core.degraded() == DegradedSet::NONE
            && self.disk.claims() == 0
            && !service.draining
    }

    fn what_waits(&self) -> String {
        let Some(service) = &self.service else { return "no service runs".to_owned() };
        let core = &service.core;
        let mut names = [0; 200];
        let mut out = Writer::new(&mut names);
        core.degraded().push_names(&mut out);
        let clients: Vec<_> = self.clients.iter().flatten().map(|client| client.asked.clone()).collect();
        format!(
            "{} jobs wait, {} are scheduled, {} run, {} claims are there, {} groups are left, degraded {}, the next deadline is {:?} at {:?}, clients wait for {clients:?}",
            core.spool.waiting(),
            core.spool.scheduled(),
            service.workers.len(),
            self.disk.claims(),
            core.leftovers.groups().count(),
            String::from_utf8_lossy(out.as_bytes()),
            service.next_deadline(),
            self.line.now(),
        )
    }

    // ----- time -------------------------------------------------------------

    fn schedule(&mut self, kind: Kind) {
        if let Some(wait) = self.line.wait_for(kind) {
            self.line.after(wait, Event::Kind(kind));
        }
    }

    /// Has the service started in a moment, unless that is on its way.
    pub(super) fn schedule_start(&mut self, ms: u64) {
        if !core::mem::replace(&mut self.start_pending, true) {
            self.line.after(ms, Event::Start);
        }
    }

    // ----- events -----------------------------------------------------------

    fn happen(&mut self, event: Event) {
        self.move_wall();
        match event {
            Event::Kind(kind) => {
                self.schedule(kind);
                let load = matches!(kind, Kind::AddJobs | Kind::WriteLines);
                if load || self.line.time >= self.line.scenario.calm * 1000 {
                    self.begin(kind);
                }
            }
            Event::Exit(pid, serial, status) => {
                if self.processes.exit(pid, serial, status) {
                    self.wake(|service| service.reaps = true);
                }
            }
            Event::Start => {
                self.start_pending = false;
                self.start_service();
            }
            Event::Mend(kind) => {
                if self.faults.remove(&kind) {
                    self.mend(kind);
                }
            }
            Event::Append(file, left) => self.append_again(file, left),
            Event::Resume => {
                self.connect(&[Ask::Hold(false)]);
            }
            Event::Leave(slot) => self.vanish(slot),
            Event::FailSync => self.fail_sync(),
        }
    }

    fn wake(&mut self, change: impl FnOnce(&mut Service)) {
        if let Some(service) = &mut self.service {
            change(service);
            service.woken = true;
        }
    }

    /// Begins a fault that lasts for a while, unless another fault of the disk lasts. Returns true if
    /// it begins.
    fn fault(&mut self, kind: Kind, mean: u64, stream: &mut Random) -> bool {
        let disk_fault = |kind: &Kind| (Kind::NoSpace..=Kind::SpoolReplaced).contains(kind);
        if disk_fault(&kind) && self.faults.iter().any(disk_fault) {
            return false;
        }
        self.faults.insert(kind);
        let lasts = stream.wait(mean);
        self.line.after(lasts, Event::Mend(kind));
        self.line.trace(|| format!("----- {} begins, for {lasts} ms", kind.name()));
        true
    }

    /// Has an event of this kind happen.
    fn begin(&mut self, kind: Kind) {
        let mut stream = self.line.stream(kind).clone();
        let happens = match kind {
            _ if kind <= Kind::Garbage || kind == Kind::WriteTail => self.begin_request(kind, &mut stream),
            _ if (Kind::NoSpace..=Kind::SpoolReplaced).contains(&kind) => {
                self.begin_disk_fault(kind, &mut stream)
            }
            _ => self.begin_other(kind, &mut stream),
        };
        *self.line.stream(kind) = stream;
        if happens {
            self.line.count(kind);
        }
    }

    /// Has a client or a writer do something. Returns true if it did.
    fn begin_request(&mut self, kind: Kind, stream: &mut Random) -> bool {
        match kind {
            Kind::AddJobs => {
                let count = if stream.one_in(8) { stream.between(10, 120) } else { stream.between(1, 4) };
                let asks: Vec<Ask> = (0..count).map(|_| Ask::Queue(self.new_job(stream))).collect();
                self.connect(&asks).is_some()
            }
            Kind::AddDelayed => {
                let count = stream.between(1, 3);
                let mut ask = || {
                    let delay = stream.wait(200_000).max(1000);
                    Ask::After(self.new_job(stream), delay)
                };
                let asks: Vec<Ask> = (0..count).map(|_| ask()).collect();
                self.connect(&asks).is_some()
            }
            Kind::WriteLines => {
                let count = if stream.one_in(10) { stream.between(20, 200) } else { stream.between(1, 5) };
                self.write_lines(stream, count);
                true
            }
            Kind::KeepWriter => {
                let file = self.write_lines(stream, 1);
                self.disk.writers.insert(file);
                self.line.after(1000, Event::Append(file, stream.between(1, 6)));
                true
            }
            Kind::WriteTail => {
                self.write_lines(stream, 1);
                self.disk.cut_queue_tail();
                if stream.one_in(2) {
                    self.line.after(CLAIM_QUIET.as_ms() - 50, Event::FailSync);
                }
                true
            }
            Kind::Wait | Kind::Cancel | Kind::Retry | Kind::Forget => {
                let dead = matches!(kind, Kind::Retry | Kind::Forget);
                let job = self.ledger.any(dead, stream.next());
                let Some(id) = job.and_then(|job| self.ledger.jobs[job].id) else { return false };
                let ask = match kind {
                    Kind::Wait => Ask::Wait(id),
                    Kind::Cancel => Ask::Cancel(id),
                    Kind::Retry => Ask::Retry(id),
                    _ => Ask::Forget(id),
                };
                self.connect(&[ask]).is_some()
            }
            Kind::List => {
                let which = stream.pick(&["", "waiting", "dead", "done", "scheduled", "running"]);
                self.connect(&[Ask::List(which.copied().unwrap_or(""))]).is_some()
            }
            Kind::RetryAll | Kind::ForgetAll => {
                let ask = if kind == Kind::RetryAll { Ask::RetryAll } else { Ask::ForgetAll };
                let any = self.ledger.any(true, 0).is_some() && !self.ledger.rewriting;
                any && self.connect(&[ask]).is_some()
            }
            Kind::Hold => {
                self.line.after(stream.wait(60_000), Event::Resume);
                self.connect(&[Ask::Hold(true)]).is_some()
            }
            Kind::Drain => self.connect(&[Ask::Drain]).is_some(),
            Kind::StopRequest => self.connect(&[Ask::Stop]).is_some(),
            Kind::Watch => {
                let slot = self.connect(&[Ask::Watch]);
                slot.into_iter().for_each(|slot| self.line.after(stream.wait(30_000), Event::Leave(slot)));
                slot.is_some()
            }
            Kind::Vanish => {
                let connected = |slot: &usize| self.clients[*slot].is_some();
                let connected: Vec<usize> = (0..CLIENTS_MAX).filter(connected).collect();
                let Some(slot) = stream.pick(&connected).copied() else { return false };
                self.line.trace(|| format!("client {slot} leaves"));
                self.vanish(slot);
                true
            }
            _ => self.connect(&[Ask::Garbage, Ask::Garbage]).is_some(),
        }
    }

    /// Begins a fault of the disk, or of a path. Returns true if it begins.
    fn begin_disk_fault(&mut self, kind: Kind, stream: &mut Random) -> bool {
        let refuse = |works, error, left| Some(Refusal { works, error, left });
        let io_error = DiskError(5);
        let mean = match kind {
            Kind::SyncFails => 10_000,
            Kind::IoOnce | Kind::FolderSyncFails | Kind::SpoolAway => 20_000,
            Kind::NoSpace | Kind::OverQuota | Kind::FileTooBig | Kind::SlowDisk => 60_000,
            Kind::NoInodes | Kind::SpoolRemoved => 100_000,
            _ => 35_000,
        };
        if kind >= Kind::SpoolAway && !self.disk.is_journal_named() || !self.fault(kind, mean, stream) {
            return false;
        }
        self.is_torn |= matches!(kind, Kind::IoError | Kind::ReadOnly);
        match kind {
            Kind::NoSpace => (self.disk.full, self.disk.free) = (Some(NO_SPACE), 0),
            Kind::OverQuota => self.disk.full = Some(OVER_QUOTA),
            Kind::FileTooBig => {
                let size = self.disk.size(SpoolFile::Journal).unwrap_or(0);
                self.disk.file_limit = Some(size + stream.below(3000));
            }
            Kind::NoInodes => self.disk.no_inodes = true,
            Kind::CopyOnWrite => (self.disk.copies_on_write, self.disk.free) = (true, 0),
            Kind::IoOnce => {
                let work = stream.below(ALL_WORK.len() as u64);
                let works = usize::try_from(work).ok().and_then(|work| ALL_WORK.get(work..=work));
                self.disk.refusal = refuse(works.unwrap_or(ALL_WORK), io_error, 1);
            }
            Kind::IoError => self.disk.refusal = refuse(ALL_WORK, io_error, u32::MAX),
            Kind::ReadOnly => {
                self.disk.refusal = refuse(&[Work::Write, Work::Create, Work::Change], READ_ONLY, u32::MAX);
            }
            Kind::SyncFails => {
                let left = u32::try_from(stream.between(1, 3)).unwrap_or(1);
                self.disk.refusal = refuse(&[Work::Sync], io_error, left);
            }
            Kind::FolderSyncFails if stream.one_in(2) => self.disk.folder_syncs_fail = true,
            Kind::FolderSyncFails => self.disk.fail_folder_sync = true,
            Kind::QueueSyncFails => self.disk.sync_fails = true,
            Kind::ClaimsFail => self.disk.claims_fail = Some(io_error),
            Kind::RenameFails => self.disk.rename_fails = Some(DiskError(1)),
            Kind::SlowDisk => self.sync_ms = 1000,
            Kind::FrozenDisk => self.sync_ms = 60_000,
            Kind::SpoolAway | Kind::SpoolRemoved => self.disk.move_spool_away(),
            _ => self.disk.put_another_spool(),
        }
        true
    }

    /// Has an operator, the kernel or a clock do something. Returns true if it did.
    fn begin_other(&mut self, kind: Kind, stream: &mut Random) -> bool {
        match kind {
            Kind::Stranger => {
                let (pid, serial) = self.processes.start(None, None, Nature::GENTLE);
                self.line.after(stream.wait(20_000), Event::Exit(pid, serial, 0));
            }
            Kind::HandlerMissing => {
                self.handler_missing |= self.fault(kind, 40_000, stream);
                return false;
            }
            Kind::LogFails => {
                self.log_fails |= self.fault(kind, 40_000, stream);
                return false;
            }
            Kind::Terminate | Kind::TerminateTwice => {
                let terms = if kind == Kind::Terminate { 1 } else { 2 };
                self.wake(|service| service.terms += terms);
                return self.service.is_some();
            }
            Kind::Reload => {
                self.workers_before = self.rules.workers;
                // A worker more is free from now on, and not before.
                self.progress_at = self.line.time;
                self.rules.workers = usize::try_from(stream.between(1, 5)).unwrap_or(1);
                let timeout = if stream.one_in(2) { 0 } else { stream.between(20_000, 90_000) };
                self.rules.job_timeout = Duration::from_ms(timeout);
                let spool = &mut self.rules.spool;
                spool.retries = u32::try_from(stream.below(4)).unwrap_or(0);
                spool.dead_max = if stream.one_in(3) { 3 } else { 1000 };
                spool.queue_max = if stream.one_in(3) { 30 } else { 10_000 };
                self.wake(|service| service.reloads = true);
            }
            Kind::Kill if self.service.is_some() => self.dies(false),
            Kind::PowerCut => self.dies(true),
            Kind::KillInTurn | Kind::PowerCutInTurn => {
                // It is counted when it happens.
                let after = u32::try_from(stream.between(1, 60)).unwrap_or(1);
                if self.disk.die_at.is_none() {
                    self.disk.die_at = Some(self.disk.operations + after);
                    self.dies_by_power = kind == Kind::PowerCutInTurn;
                }
                return false;
            }
            Kind::WallStep => {
                let year = 365 * 86_400;
                let steps = [3600, -3600, 5 * year, -5 * year];
                self.wall += stream.pick(&steps).copied().unwrap_or(0);
            }
            Kind::Suspend => {
                let slept = stream.wait(600_000);
                self.line.trace(|| format!("the board sleeps for {slept} ms"));
                self.sleep(slept);
            }
            _ => return false,
        }
        true
    }

    /// Suspends the board: CLOCK_BOOTTIME continues, and nothing runs.
    fn sleep(&mut self, slept: u64) {
        self.line.sleep(slept);
        self.blocked_until = self.line.time;
        (self.progress_at, self.known_at) = (self.line.time, self.line.time);
        for client in self.clients.iter_mut().flatten() {
            client.since += slept;
        }
    }

    fn mend(&mut self, kind: Kind) {
        self.line.trace(|| format!("----- {} ends", kind.name()));
        match kind {
            Kind::HandlerMissing => self.handler_missing = false,
            Kind::LogFails => self.log_fails = false,
            Kind::NoSpace | Kind::OverQuota | Kind::CopyOnWrite => {
                (self.disk.full, self.disk.free, self.disk.copies_on_write) = (None, u64::MAX, false);
            }
            Kind::FileTooBig => self.disk.file_limit = None,
            Kind::NoInodes => self.disk.no_inodes = false,
            Kind::IoOnce | Kind::IoError | Kind::ReadOnly | Kind::SyncFails => self.disk.refusal = None,
            Kind::FolderSyncFails => {
                (self.disk.fail_folder_sync, self.disk.folder_syncs_fail) = (false, false);
            }
            Kind::QueueSyncFails => self.disk.sync_fails = false,
            Kind::ClaimsFail => self.disk.claims_fail = None,
            Kind::RenameFails => self.disk.rename_fails = None,
            Kind::SlowDisk | Kind::FrozenDisk => self.sync_ms = 0,
            Kind::SpoolAway | Kind::SpoolReplaced | Kind::SpoolRemoved => self.put_spool_back(),
            _ => {}
        }
        self.progress_at = self.line.time;
    }

    /// Returns true if the disk may not let half a record be cut off now.
    pub(super) fn is_torn_now(&self) -> bool {
        self.faults.contains(&Kind::IoError) || self.faults.contains(&Kind::ReadOnly)
    }

    fn put_spool_back(&mut self) {
        if !self.disk.is_journal_named() {
            self.disk.put_spool_back();
        }
    }

    // ----- the queue file ---------------------------------------------------

    fn new_job(&mut self, stream: &mut Random) -> usize {
        let long = stream.one_in(10);
        let padding = stream.below(if long { 900 } else { 60 });
        self.ledger.add(usize::try_from(padding).unwrap_or(0), self.line.time)
    }

    /// Appends lines as a writer that syncs them. Returns the file.
    fn write_lines(&mut self, stream: &mut Random, count: u64) -> usize {
        let mut text = String::new();
        for _ in 0..count {
            let job = self.new_job(stream);
            text.push_str(&self.ledger.jobs[job].text);
            text.push('\n');
        }
        self.line.trace(|| format!("a writer appends {count} lines to the queue file"));
        if self.disk.queue_has_tail(None) {
            text.insert(0, '\n');
        }
        let first = self.ledger.jobs.len() - usize::try_from(count).unwrap_or(0);
        let file = self.disk.append_to_queue(&text);
        self.disk.make_durable(file);
        self.written(first, file);
        self.wake(|service| service.queue_written = true);
        file
    }

    /// Has the syncs of the next second fail.
    fn fail_sync(&mut self) {
        let kind = Kind::SyncFails;
        let mut stream = self.line.stream(kind).clone();
        if self.line.is_open(kind) && self.fault(kind, 700, &mut stream) {
            self.disk.refusal = Some(Refusal { works: &[Work::Sync], error: DiskError(5), left: u32::MAX });
            self.line.count(kind);
        }
        *self.line.stream(kind) = stream;
    }

    /// Takes that a writer has synced the jobs from `first` on, which are in a file. That is no promise
    /// while the name of the file is not durable, because a sync of its folder has failed.
    fn written(&mut self, first: usize, file: usize) {
        let is_promised = self.disk.has_durable_name(file);
        self.ledger.jobs[first..].iter_mut().for_each(|job| job.promised = is_promised);
    }

    /// Appends to a file that a writer has kept open.
    fn append_again(&mut self, file: usize, left: u64) {
        if !self.disk.writers.contains(&file) {
            return;
        }
        if left == 0 {
            self.disk.writers.remove(&file);
            return;
        }
        let mut stream = self.line.stream(Kind::KeepWriter).clone();
        let job = self.new_job(&mut stream);
        let begin = if self.disk.queue_has_tail(Some(file)) { "\n" } else { "" };
        let text = format!("{begin}{}\n", self.ledger.jobs[job].text);
        self.line.trace(|| format!("a writer appends j{job} to the file that it has open"));
        self.disk.append_to(file, &text);
        self.disk.make_durable(file);
        self.written(job, file);
        self.wake(|service| service.queue_written = true);
        // Without leases a claim is removed when it was quiet for ten seconds.
        let wait = stream.between(500, if self.disk.has_leases { 40_000 } else { 8000 });
        *self.line.stream(Kind::KeepWriter) = stream;
        self.line.after(if left == 1 { 100 } else { wait }, Event::Append(file, left - 1));
    }

    // ----- death ------------------------------------------------------------

    fn boots(&mut self) {
        self.line.boot += 1;
        self.line.booted_at = self.line.time;
        self.wall_at = self.line.time;
        self.note.clear();
        let sets = !self.line.happens(Kind::WallUnset, 3);
        // Two minutes before the seconds since 1970 have 32 bits, in every run.
        self.wall = if sets { self.wall.max((1 << 31) - 120) } else { 0 };
        self.schedule_start(1000);
    }

    /// Takes that the disk died under the service.
    pub(super) fn die_if_dead(&mut self) {
        if self.disk.is_dead() {
            let power = core::mem::take(&mut self.dies_by_power);
            self.is_torn = true;
            self.line.count(if power { Kind::PowerCutInTurn } else { Kind::KillInTurn });
            self.dies(power);
        }
    }

    /// Takes that the disk died while the service started.
    pub(super) fn cut_if_dead(&mut self) {
        self.die_if_dead();
    }

    pub(super) fn disk_restarts(&mut self) {
        self.put_spool_back();
        self.disk.restart();
    }

    /// Kills the service, or cuts the power of the board.
    fn dies(&mut self, power: bool) {
        self.line.trace(|| {
            (if power { "----- the power is cut" } else { "----- the service is killed" }).to_owned()
        });
        self.ledger.crash(power);
        self.held = None;
        self.is_torn |= power;
        self.clients.iter_mut().for_each(|client| *client = None);
        // A spool that is away is put back before the next start, by a person.
        self.put_spool_back();
        self.disk.die_at = None;
        if power {
            self.cuts += 1;
            self.disk.power_cut();
            self.processes.clear();
            self.line.retain(|event| !matches!(event, Event::Exit(..) | Event::Append(..) | Event::Start));
            self.start_pending = false;
        }
        self.service_ends(true);
        if power {
            self.boots();
        }
    }

    /// Takes that the process of the service has ended.
    pub(super) fn service_ends(&mut self, killed: bool) {
        if !killed {
            // Ends that could not be recorded are those of jobs that run again.
            self.ledger.crash(false);
        }
        if let Some(service) = self.service.take() {
            let leaders: Vec<u32> = service.workers.iter().map(|worker| worker.pid).collect();
            self.processes.service_ends(&leaders, self.line.time);
            self.memory = Some(service.into_memory());
        }
        self.ledger.rewriting = false;
        self.blocked_until = self.line.time;
        self.put_spool_back();
        self.disk.restart();
        let wait =
            Random::new(self.line.scenario.seed, self.line.time).wait(if killed { 2000 } else { 4000 });
        self.schedule_start(wait);
    }

    // ----- checks -----------------------------------------------------------

    /// Checks that a state is named if jobs could make progress and do not.
    pub(super) fn check_progress(&mut self, service: &Service) {
        // While a call of the disk blocked, the service could do nothing.
        let blocked = self.line.time - self.checked_at;
        if blocked > 2 * super::service::INTERVAL {
            (self.progress_at, self.known_at) = (self.progress_at + blocked, self.known_at + blocked);
        }
        self.checked_at = self.line.time;
        let core = &service.core;
        if core.is_stopping()
            || service.draining
            || core.degraded() != DegradedSet::NONE
            || self.sync_ms > 0
            || self.log_fails
        {
            (self.progress_at, self.known_at) = (self.line.time, self.line.time);
            return;
        }
        self.check_lines(service);
        let limit = self.line.time.saturating_sub(STALE);
        if self.progress_at > limit || service.workers.len() >= self.rules.workers {
            return;
        }
        let stuck = self.ledger.must_be_there().find(|(_, job)| {
            job.end == End::Open && job.ready_at < limit && job.due.is_none() && job.runs == 0
        });
        if let Some((index, job)) = stuck {
            panic!(
                "j{index} {:?} makes no progress, and no state says why: {}",
                job.id,
                self.what_waits_in(service)
            );
        }
    }

    /// Checks that a state is named if lines are there that the service does not take.
    fn check_lines(&mut self, service: &Service) {
        let core = &service.core;
        let limit = self.line.time.saturating_sub(1000);
        let waits = |job: &&Job| job.end == End::Open && job.ready_at < limit;
        let there = self.ledger.must_be_there().map(|(_, job)| job).filter(waits).count();
        let known = core.spool.waiting() as usize;
        if there <= known || core.room() == 0 {
            self.known_at = self.line.time;
        }
        let unknown = self.line.time.saturating_sub(self.known_at);
        assert!(
            unknown <= STALE,
            "{there} jobs wait, the service knows {known} of them for {unknown} ms, and no state says why: {}",
            self.disk.describe()
        );
    }

    fn what_waits_in(&self, service: &Service) -> String {
        format!("{:?}, {} waiting", service.core.spool.window().slots(), service.core.spool.waiting())
    }

    /// Kills the service on a copy of the disk, or cuts its power, and checks what a recovery finds there.
    pub(super) fn check_shadow(&mut self, service: &Service) {
        if self.disk.is_dead() || !service.core.home.is_here() || !self.disk.is_journal_named() {
            return;
        }
        self.shadows += 1;
        let mut disk = self.disk.clone();
        (disk.refusal, disk.full, disk.file_limit, disk.die_at, disk.no_inodes) =
            (None, None, None, None, false);
        (disk.claims_fail, disk.rename_fails, disk.sync_fails, disk.copies_on_write) =
            (None, None, false, false);
        disk.folder_syncs_fail = false;
        disk.free = u64::MAX;
        let kills = self.random.one_in(2);
        for _ in 0..self.random.below(4) {
            disk.random(7);
        }
        if kills {
            disk.restart();
        } else {
            disk.power_cut();
        }
        self.check_disk(&mut disk, kills);
    }

    /// Checks that a disk holds what was promised, and nothing else. After a kill, `kills`, each end in the
    /// journal is there, and no half record.
    fn check_disk(&mut self, disk: &mut FakeDisk, kills: bool) {
        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut core = Box::new(JobsCore::EMPTY);
        let rules = JobRules { takes_all: true, ..self.rules };
        let recovery =
            core.recover(disk, &mut scratch, rules, Instant::from_ms(1)).expect("a disk without faults");
        let torn = recovery.torn_bytes + recovery.damaged_bytes;
        assert!(
            torn == 0 || !kills || self.is_torn,
            "half a record is in the journal, {recovery:?}, {}",
            disk.describe()
        );
        let mut buffer = [0; crate::proto::journal::RECORD_MAX_BYTES];
        let mut live = BTreeMap::new();
        let mut locations: Vec<_> = core.spool.window().slots().iter().map(|slot| slot.location()).collect();
        let mut scan = core.spool.scan(true);
        let mut visit = |location| {
            locations.push(location);
            true
        };
        while !core.spool.scan_step(disk, &mut scratch, &mut scan, &mut visit).expect("it can be read") {}
        for location in locations {
            let text = core.spool.text(disk, location, &mut buffer).expect("it can be read");
            let job = self.ledger.find(text);
            let twice = live.insert(job, location.dead).is_some();
            assert!(!twice, "j{job} is in the journal twice");
        }
        for (job, dead) in &live {
            let known = &self.ledger.jobs[*job];
            assert!(known.removed != Removed::Yes, "after a power cut j{job} is there, and was removed");
            let sure = if kills { End::Written } else { End::Durable };
            let ended = known.end >= sure && !known.dead;
            assert!(!ended, "after a power cut j{job} is there, and its end was on the disk (dead {dead})");
        }
        let lines = disk.queued_lines();
        let missing = self.ledger.must_be_there().find(|(index, job)| {
            let dead_lost = job.end == End::Durable && live.get(index) != Some(&true);
            !live.contains_key(index) && !lines.contains(job.text.as_bytes())
                || (dead_lost && live.contains_key(index))
        });
        if let Some((index, job)) = missing {
            panic!(
                "after a power cut j{index} is lost: {job:?}, live {:?} of {}, {recovery:?}, {}",
                live.get(&index),
                live.len(),
                disk.describe()
            );
        }
    }

    /// Checks the end of a run, in which everything was made well.
    fn check_end(&mut self) {
        let Some(service) = self.service.take() else { return };
        self.ledger.recorded(true);
        self.ledger.sweep();
        for index in self.ledger.open.clone() {
            let job = &self.ledger.jobs[index];
            let lost = job.promised && job.end == End::Open && job.removed == Removed::No;
            assert!(!lost, "j{index} never ended: {job:?}");
        }
        let dead = service.core.spool.dead();
        let (sure, unsure) =
            self.ledger.jobs.iter().filter(|job| job.dead && job.removed != Removed::Yes).fold(
                (0, 0),
                |(sure, unsure), job| {
                    if job.end == End::Durable && job.removed == Removed::No {
                        (sure + 1, unsure)
                    } else {
                        (sure, unsure + 1)
                    }
                },
            );
        assert!(
            (sure..=sure + unsure).contains(&dead),
            "{dead} jobs are dead, and there should be {sure} to {}",
            sure + unsure
        );
        assert!(service.core.counts().jobs >= service.ended, "the count of jobs");
        self.check_results(&service);
        self.check_shadow(&service);
        self.service = Some(service);
    }
}

impl Board {
    /// Checks that the journal has the last end, if the disk was well.
    fn check_results(&mut self, service: &Service) {
        let Some((job, true)) = self.last_end else { return };
        let (mut disk, mut scratch) = (self.disk.clone(), vec![0; SCRATCH_BYTES]);
        let (mut scan, mut found) = (service.core.spool.scan_ends(), false);
        let id = self.ledger.jobs[job].id;
        let mut visit = |location: RecordLocation, _| found |= Some(location.id) == id;
        while !service.core.spool.ends_step(&mut disk, &mut scratch, &mut scan, &mut visit).expect("it works")
        {
        }
        assert!(found, "the end of j{job} ({id:?}) is not in the journal");
    }
}
