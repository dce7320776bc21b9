//! The durability protocol and the order of a turn, checked exhaustively: every history up
//! to a bounded length over a small alphabet ([`OPS`]), from several beginnings ([`ROOTS`]),
//! with a crash between any two operations, at any step inside one, and inside the
//! recovery; after a kill and after every power cut that `FakeDisk` can produce.
//! `histories.rs` goes further at random.
//!
//! An operation is mostly one turn of `state/jobs/turn.rs`, whose actions are performed
//! here: a promise is made when a reply leaves. Each state is visited once for each number
//! of operations that may follow, so orders that lead to the same state cost nothing. After
//! a crash the service recovers, and everything that is left runs to its end: no promise
//! may be broken ([`Promise`]). Then the history continues.
//!
//! `ZIGSVC_MODEL_DEPTH` (2) is the number of operations after each beginning,
//! `ZIGSVC_MODEL_CRASHES` (2) that of crashes in a history. `--nocapture` prints how
//! many histories and states that were.
//!
//! # What each step is for
//!
//! Each of these changes was made by hand, and this test failed:
//!
//! - `jobs/turn.rs`: replies leave before the commit
//! - `jobs/turn.rs`: handlers start before their start is recorded
//! - `jobs/turn.rs`: a second attempt starts before its start is committed
//! - `jobs/turn.rs`: a claim is removed before the commit of its lines
//! - `ingest.rs`: the folder is not synced after a claim was renamed
//! - `ingest.rs`: claims of an earlier process are adopted without that sync
//! - `ingest.rs`: a removed claim is forgotten before its removal is durable
//! - `ingest.rs`: a claim is removed although a writer has it open
//! - `ingest.rs`: a claim is removed although its lease is being broken
//! - `ingest.rs`: jobs and their offset are two records, not one batch
//! - `mod.rs`: a commit does not sync the journal, or not its new name
//! - `compact.rs`: the new file is not synced before it is renamed
//! - `compact.rs`: its name is synced neither then nor by the next commit
//! - `compact.rs`: the new file does not know the claims, or not what was
//!   appended since the compaction began
//! - `jobs/turn.rs`: a commit is acknowledged, or its claims are removed, without a look at the
//!   path of the journal
//! - `jobs/home.rs`: the old journal is emptied before the new one is sure
//! - `mod.rs`: a sync of the folder that failed is tried again, and the name is not made again
//! - `recover.rs`: missing claims are forgotten before that is durable
//! - `recover.rs`: the name of a journal that was found is taken for durable
//! - `recover.rs`: a torn end is not cut
//! - `jobs/mod.rs`: a job starts while processes of its last attempt are left
//! - `attempts.rs`: an attempt whose handler cannot be executed counts
//! - `recover.rs`: a job that a second death has cut off is repeated at once
//! - `compact.rs`: the new file does not know that a job runs, or how often it was cut off
//! - `compact.rs`: the new file does not have the ends that `list done` shows
//! - `recover.rs`: a batch that is not whole is applied, or one whose predecessor
//!   is missing, or the jobs of one whose head is damaged
//!
//! The sync of the data of a journal that was found is implied by the sync of its name:
//! without it alone nothing fails.
//!
//! Changing this: an operation is a line in [`OPS`] and its meaning in
//! [`World::apply`], with what it promises before and after.

use super::*;
use crate::proto::leftovers::{NotedGroup, TOKEN_BYTES};
use core::sync::atomic::{AtomicUsize, Ordering};
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The rules of this model: a job has two attempts, and one dead job is kept.
const RULES: JobRules =
    JobRules { spool: SpoolRules { retries: 1, dead_max: 1, ..super::RULES }, ..JOB_RULES };

/// Operations after each beginning, if the environment does not say; fewer where
/// the tests probably run under QEMU.
const DEPTH: u32 = if cfg!(target_arch = "x86_64") { 2 } else { 1 };

/// Crashes of one history.
const CRASHES: u32 = 2;

/// Lines and jobs of one history.
const JOBS_MAX: usize = 5;

/// A step of a history.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
enum Operation {
    /// A writer appends a line and makes sure that it is on the disk.
    WriteDurably,
    /// A writer appends a line.
    Write,
    /// The writer of the last line, who has its file still open, appends another
    /// one to that and makes sure of it.
    WriteOn,
    /// The service looks at the queue file and reads its claims.
    Take,
    /// The service reads its claims and does not commit, as after an error in the middle. Only
    /// in [`ROOTS`].
    TakeOnly,
    /// The service is killed between the claim and the sync of its name. Only in [`ROOTS`].
    TakeKilled,
    /// A client waits for a commit: the journal is made durable, and claims that were read to
    /// their end are removed.
    Commit,
    /// A client adds a job.
    Queue,
    /// A client adds a job that is due in a while.
    QueueLater,
    /// A client has the queue held, or resumed.
    Hold,
    Resume,
    /// A job starts.
    Start,
    /// The job ends well.
    EndWell,
    /// The job fails: for good, or to be tried again.
    Fail,
    /// The handler of a job cannot be executed: the job waits, and loses no attempt.
    StartFailing,
    /// The job fails, and leaves processes in its group.
    FailLeaving,
    /// The service is killed while a job runs. The next one finds what the job left.
    KillLeaving,
    /// The processes that jobs left have ended.
    LeftEnd,
    /// The job is given back by an orderly stop; another process follows.
    GiveBack,
    /// A client cancels the first job that waits.
    Cancel,
    /// A client cancels the job that runs.
    CancelRunning,
    /// A client has the first dead job tried again.
    Retry,
    /// A client forgets the first dead job.
    Forget,
    /// One step of a compaction.
    Compact,
    /// All dead jobs are tried again, or forgotten, by a compaction.
    RetryAll,
    ForgetAll,
    /// Ten seconds pass and the writer has ended: claims were quiet, delays have ended.
    Wait,
    /// The folder of the spool is moved away or removed.
    MoveAway,
    /// Another spool takes the path. Only in [`ROOTS`].
    TakePath,
    /// The folder of the open journal comes back to its path.
    PutBack,
    /// The next sync of the spool's folder fails. Only in [`ROOTS`].
    FailFolderSync,
    /// Ten seconds pass, and the writer has its file still open.
    WaitOpen,
    /// The service looks at the queue file and reads its claims, and a writer opens one of them
    /// while the service has a lease on it.
    TakeBroken,
}

use Operation::*;

const OPS: [Operation; 29] = [
    WriteDurably,
    Write,
    WriteOn,
    Take,
    Commit,
    Queue,
    QueueLater,
    Hold,
    Resume,
    Start,
    EndWell,
    Fail,
    StartFailing,
    FailLeaving,
    KillLeaving,
    LeftEnd,
    GiveBack,
    Cancel,
    CancelRunning,
    Retry,
    Forget,
    Compact,
    RetryAll,
    ForgetAll,
    Wait,
    MoveAway,
    PutBack,
    WaitOpen,
    TakeBroken,
];

/// Where histories begin.
const ROOTS: &[&[Operation]] = &[
    &[],
    // A claim with two lines, one of them running.
    &[Write, WriteDurably, Take, Commit, Start],
    // A claim that was read to its end and removed; another line is there.
    &[WriteDurably, Take, Commit, Wait, Take, Write],
    // A claim that was removed, not durably; the journal can be written again.
    &[WriteDurably, Take, Commit, Wait, Take, Commit, Start, EndWell, Commit],
    // A claim that is quiet, and whose writer has it open: it is kept.
    &[WriteDurably, Take, Commit, WaitOpen, Take],
    // A claim that a writer opens while it is closed: it is kept.
    &[WriteDurably, Take, Commit, Wait, TakeBroken],
    // A claim that was read to its end, of which nothing is committed.
    &[WriteDurably, TakeOnly, Wait, TakeOnly],
    // A claim that was made and not synced by the process that made it.
    &[WriteDurably, TakeKilled],
    // Two batches of one claim, none committed.
    &[WriteDurably, TakeOnly, WriteOn, TakeOnly],
    // Delayed jobs, of which one was released and runs; a compaction has begun.
    &[QueueLater, Wait, Start, QueueLater, Compact],
    // A delayed job that is due while the queue is held.
    &[Queue, QueueLater, Hold, Wait],
    // A job that failed and waits for its second attempt.
    &[Queue, Start, Fail, Wait],
    // A job that failed, and whose processes are left when its second attempt is due.
    &[Queue, Start, FailLeaving, Wait],
    // A job that two deaths of the service have cut off.
    &[Queue, Start, KillLeaving, LeftEnd, Start, KillLeaving, LeftEnd],
    // A dead job and one that waits.
    &[Queue, Start, Fail, Wait, Start, Fail, Commit, Queue],
    // A dead job that was retried, half way into a compaction.
    &[Queue, Start, Fail, Wait, Start, Fail, Retry, Compact],
    // A dead job was dropped for another one.
    &[Queue, Start, Fail, Wait, Start, Fail, Queue, Start, Fail, Wait, Start, Fail, Commit],
    // A compaction has begun; a job was added since.
    &[Queue, Start, Compact, Queue],
    // A compaction has begun; a line was taken since.
    &[Queue, Compact, WriteDurably, Take],
    // The spool was moved away, with a claim that is open and a job that runs.
    &[WriteDurably, Take, Commit, Queue, Start, MoveAway],
    // Another spool took the path, and the service knows it.
    &[WriteDurably, Take, Queue, TakePath, Commit, WriteDurably],
    // The spool is being made again.
    &[WriteDurably, Take, Queue, MoveAway, Commit],
    // The spool was made again, and its claim has been read to its end.
    &[WriteDurably, Take, MoveAway, Commit, Wait, Commit],
    // A sync of the folder failed in a compaction.
    &[Queue, FailFolderSync, Compact, Compact],
];

/// How sure something is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
enum Sure {
    /// The fact is not so.
    No,
    /// A client asked for the fact: a crash decides.
    Asked,
    /// The fact is in the journal: only a power cut undoes it.
    Written,
    /// The fact was committed: nothing undoes it.
    Committed,
}

/// The known facts about a job, which may not become untrue.
#[derive(Clone, Debug, Hash)]
struct Promise {
    text: String,
    id: Option<u64>,
    /// The job was accepted, or its line was on the disk.
    accepted: Sure,
    /// The job ended well, was cancelled or forgotten.
    over: Sure,
    dead: Sure,
    /// The ends that `list done` shows: that the job ended well, and that it died.
    results: [Sure; 2],
    /// Attempts of which the journal knows, and of which it knows for sure.
    attempts: (u16, u16),
    /// Attempts in a row that [`KillLeaving`] has cut off.
    cut_off: u32,
    /// The job may not start before.
    due: Instant,
}

/// Everything: the disk, the service, and what was promised.
#[derive(Clone)]
struct World {
    disk: FakeDisk,
    service: TestService,
    promises: Vec<Promise>,
    /// There was a power cut: there may be damage.
    cut: bool,
    /// The file that a writer has open.
    open: Option<usize>,
    /// The job whose handler ended in this turn.
    ended: Option<String>,
    /// Dead jobs that this turn drops.
    dropped: Vec<String>,
    /// The jobs for which a reply waits for the commit of this turn.
    pending: Vec<(String, ModelEdit)>,
    /// The spool was moved, or a sync of its folder failed: the disk may return errors.
    faulty: bool,
    /// The jobs that left processes.
    left: Vec<u64>,
    /// Whether the queue is held, as the last reply said, and whether a reply is missing.
    held: bool,
    held_asked: bool,
}

/// A request of a client for one job.
#[derive(Clone, Copy)]
enum ModelEdit {
    Add(u64),
    Remove,
    Retry,
}

/// How a life ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
enum Crash {
    Kill,
    PowerCut,
}

impl World {
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.disk.fingerprint().hash(&mut hasher);
        let mut spool = self.service.core.spool.clone();
        spool.totals.io = IoStats::default();
        spool.journal.generation = 0;
        spool.hash(&mut hasher);
        self.service.now.hash(&mut hasher);
        self.service.core.timers.hash(&mut hasher);
        self.service.core.disk_health.hash(&mut hasher);
        self.service.core.home.hash(&mut hasher);
        self.service.core.leftovers.hash(&mut hasher);
        (&self.left, self.held, self.held_asked).hash(&mut hasher);
        self.open.is_some().hash(&mut hasher);
        self.promises.hash(&mut hasher);
        hasher.finish()
    }

    /// Notes that the writer of the last line has this file open, and no other one.
    fn opened(&mut self, inode: usize) {
        self.open = Some(inode);
        self.disk.writers = BTreeSet::from([inode]);
    }

    fn promise(&mut self, text: &str) -> &mut Promise {
        let found = self.promises.iter_mut().find(|promise| promise.text == text);
        found.unwrap_or_else(|| panic!("half read, or of nobody: {text:?}"))
    }

    fn new_line(&mut self) -> String {
        // Longer than half a sector, so that most records are torn by some cut.
        let text = format!("{} {}", self.promises.len(), "abcdefghijklmnopqrstuvwxyz-0123456789");
        self.promises.push(Promise {
            text: text.clone(),
            id: None,
            accepted: Sure::No,
            over: Sure::No,
            dead: Sure::No,
            results: [Sure::No; 2],
            attempts: (0, 0),
            cut_off: 0,
            due: Instant::BOOT,
        });
        text
    }

    /// Performs one turn, in which `op` is asked for. Returns whether a job started.
    fn turn(&mut self, op: Operation) -> DiskResult<bool> {
        let (now, mut started) = (self.service.now, false);
        let workers = usize::from(matches!(op, Start | StartFailing));
        self.service.core.set_rules(JobRules { workers, ..RULES });
        self.service.core.begin_turn(now);
        loop {
            let TestService { core, scratch, .. } = &mut self.service;
            let Some(action) = core.next_action(&mut self.disk, scratch, now, &mut |_| {}) else { break };
            match action {
                TurnAction::FlushLog => core.log_flushed(true),
                TurnAction::ServeClients => {
                    self.note_written();
                    let commit = op == Commit || !self.pending.is_empty();
                    let commit = self.ask(op).unwrap_or(false) || commit;
                    let here = self.service.core.home.is_here();
                    let needs = ClientNeeds { commit, paging: op != Compact && here };
                    self.service.core.clients_served(needs);
                }
                TurnAction::Reply { jobs, edits } => {
                    assert!(jobs == edits || self.disk.is_dead());
                    if jobs.is_err() {
                        self.pending.retain(|(_, edit)| !matches!(edit, ModelEdit::Add(_)));
                    }
                    if edits.is_ok() {
                        let named = self.disk.is_journal_named() || self.disk.is_dead();
                        assert!(named, "acknowledged for a journal that its path does not lead to");
                        self.committed();
                    }
                }
                TurnAction::StartHandler(slot) => {
                    started = true;
                    assert!(!self.left.contains(&slot.id), "runs beside what is left of it");
                    match op {
                        StartFailing => self.service.core.handler_failed(slot.id, now),
                        _ => self.started(&slot),
                    }
                }
                TurnAction::Signal(_) | TurnAction::NotifyWaiters => {}
                TurnAction::LogDropped(location) => {
                    if let Some(text) = self.dropped_text(location) {
                        self.promise(&text).over = Sure::Asked;
                        self.dropped.push(text);
                    }
                }
                TurnAction::LogJob(_) | TurnAction::SwitchQueueFile | TurnAction::Notice(_) => {
                    assert!(self.disk.is_dead() || self.faulty, "{action:?}");
                }
            }
        }
        self.note_written();
        for text in std::mem::take(&mut self.dropped) {
            // Its record was written by this turn, unless the disk died.
            if !self.disk.is_dead() {
                self.promise(&text).over = Sure::Written;
            }
        }
        (self.ended, self.pending) = (None, Vec::new());
        self.service.core.set_rules(RULES);
        if self.disk.is_dead() {
            return Err(DEAD);
        }
        let error = self.service.core.disk_health.error().filter(|_| !self.faulty);
        error.map_or(Ok(started), Err)
    }

    /// Takes a commit: written facts are sure, and requests of clients are promised.
    fn committed(&mut self) {
        for promise in &mut self.promises {
            let [well, died] = &mut promise.results;
            for sure in [&mut promise.over, &mut promise.dead, &mut promise.accepted, well, died] {
                if *sure == Sure::Written {
                    *sure = Sure::Committed;
                }
            }
            promise.attempts.1 = promise.attempts.0;
        }
        self.know_held();
        for (text, edit) in std::mem::take(&mut self.pending) {
            let promise = self.promise(&text);
            match edit {
                ModelEdit::Add(id) => (promise.id, promise.accepted) = (Some(id), Sure::Committed),
                ModelEdit::Remove => promise.over = Sure::Committed,
                ModelEdit::Retry => promise.dead = Sure::No,
            }
        }
    }

    /// Takes that a reply, or the state after a crash, said whether the queue is held.
    fn know_held(&mut self) {
        (self.held, self.held_asked) = (self.service.core.spool.is_held(), false);
    }

    /// Starts the handler of a job.
    fn started(&mut self, slot: &Slot) {
        // Its start is in the journal, but the disk may have died since.
        let Ok(text) = self.service.text(&mut self.disk, slot) else { return };
        self.service.core.handler_started(slot.id, self.service.now);
        let (now, held) = (self.service.now, self.held && !self.held_asked);
        let promise = self.promise(&text);
        assert!(promise.due.is_due(now) && !held, "runs too early: {promise:?}");
        assert!(promise.over < Sure::Written && promise.dead < Sure::Written, "runs, though {promise:?}");
        promise.attempts.0 = slot.attempt;
        if slot.attempt > 1 {
            promise.attempts.1 = slot.attempt;
        }
    }

    /// Makes the request that `op` is. Returns whether its reply waits for a commit.
    fn ask(&mut self, op: Operation) -> Option<bool> {
        let now = self.service.now;
        match op {
            QueueLater => {
                let (text, delay) = (self.new_line(), Duration::from_ms(CLAIM_QUIET.as_ms() / 2));
                self.promise(&text).accepted = Sure::Asked;
                self.promise(&text).due = now + delay;
                let added = self.service.core.add_delayed_job(&mut self.disk, text.as_bytes(), delay, now);
                self.pending.push((text, ModelEdit::Add(added.ok()??)));
            }
            Hold | Resume => {
                self.held_asked = true;
                self.service.core.set_held(&mut self.disk, op == Hold, now).ok().filter(|done| *done)?;
            }
            Queue => {
                let text = self.new_line();
                self.promise(&text).accepted = Sure::Asked;
                let id = self.service.core.add_job(&mut self.disk, text.as_bytes(), now).ok()?;
                self.pending.push((text, ModelEdit::Add(id)));
            }
            Cancel | CancelRunning => {
                let slot = self.waiting_or_running(op)?;
                let text = self.service.text(&mut self.disk, &slot).ok()?;
                self.promise(&text).over = Sure::Asked;
                self.service.core.cancel(&mut self.disk, slot.id, now).ok()?;
                self.pending.push((text, ModelEdit::Remove));
            }
            Retry => {
                let (location, text) = self.first_dead()?;
                let dead = core::mem::replace(&mut self.promise(&text).dead, Sure::Asked);
                debug_assert!(dead != Sure::No);
                self.service.core.edit_dead(&mut self.disk, location, true, now).ok()?;
                self.pending.push((text, ModelEdit::Retry));
            }
            Forget => {
                let (location, text) = self.first_dead()?;
                self.promise(&text).over = Sure::Asked;
                self.service.core.edit_dead(&mut self.disk, location, false, now).ok()?;
                self.pending.push((text, ModelEdit::Remove));
            }
            _ => return None,
        }
        Some(true)
    }

    /// Returns the first job that waits, or the one that runs.
    fn waiting_or_running(&self, op: Operation) -> Option<Slot> {
        let wanted = |slot: &&Slot| match slot.state {
            JobState::Waiting | JobState::Delayed(_) => op == Cancel,
            state => state == JobState::Running && op == CancelRunning,
        };
        self.service.core.spool.window().slots().iter().find(wanted).copied()
    }

    /// Returns each job in the window.
    fn window(&mut self) -> DiskResult<Vec<(Slot, String)>> {
        let slots = self.service.core.spool.window().slots().to_vec();
        slots.iter().map(|slot| Ok((*slot, self.service.text(&mut self.disk, slot)?))).collect()
    }

    fn dropped_text(&mut self, location: RecordLocation) -> Option<String> {
        let mut buffer = [0; RECORD_MAX_BYTES];
        let text = self.service.core.spool.text(&mut self.disk, location, &mut buffer).ok()?;
        Some(String::from_utf8(text.to_vec()).unwrap())
    }

    fn first_dead(&mut self) -> Option<(RecordLocation, String)> {
        self.service.live_records(&mut self.disk, true).ok()?.into_iter().next()
    }

    /// Lets it happen; `None` if it cannot happen now.
    fn apply(&mut self, op: Operation) -> Option<DiskResult> {
        let now = self.service.now;
        let full = self.promises.len() >= JOBS_MAX;
        let running = self.service.running().first().copied();
        match op {
            WriteDurably | Write | WriteOn | Queue | QueueLater if full => None,
            WriteDurably => {
                let text = self.new_line();
                let inode = self.disk.append_to_queue("");
                self.opened(inode);
                self.disk.append_durably(&format!("{text}\n"));
                self.promise(&text).accepted = Sure::Committed;
                Some(Ok(()))
            }
            Write => {
                let text = self.new_line();
                let inode = self.disk.append_to_queue(&format!("{text}\n"));
                self.opened(inode);
                Some(Ok(()))
            }
            WriteOn => {
                let inode = self.open?;
                let text = self.new_line();
                self.disk.append_to(inode, &format!("{text}\n"));
                self.disk.make_durable(inode);
                self.promise(&text).accepted = Sure::Committed;
                Some(Ok(()))
            }
            TakeKilled => {
                self.disk.die_at = Some(self.disk.operations + 2);
                self.service.look();
                assert_eq!(self.turn(Take), Err(DEAD));
                self.disk.restart();
                self.service = start(&mut self.disk, now).unwrap().0;
                Some(Ok(()))
            }
            Take => {
                self.service.look();
                Some(self.turn(op).map(drop))
            }
            TakeOnly => {
                self.service.look();
                let result = self.service.ingest(&mut self.disk);
                self.note_written();
                Some(result.map(drop))
            }
            Start if running.is_some() => None,
            Start => match self.turn(op) {
                Ok(false) => None,
                result => Some(result.map(drop)),
            },
            StartFailing if running.is_some() => None,
            StartFailing => {
                let attempts = |world: &Self| -> Vec<(u64, u16)> {
                    let slots = world.service.core.spool.window().slots().iter();
                    slots.map(|slot| (slot.id, slot.attempt)).collect()
                };
                let before = attempts(self);
                match self.turn(op) {
                    Ok(false) => return None,
                    Err(error) => return Some(Err(error)),
                    Ok(true) => {}
                }
                let result = self.turn(Commit);
                let same = before.iter().all(|one| attempts(self).contains(one));
                assert!(same || result.is_err() || self.faulty, "it lost an attempt");
                Some(result.map(drop))
            }
            KillLeaving if self.faulty => None,
            KillLeaving => self.kill(running?),
            LeftEnd if self.left.is_empty() => None,
            LeftEnd => {
                for id in std::mem::take(&mut self.left) {
                    self.service.core.leftovers.on_checked(group_of(id).number, false, now);
                }
                Some(Ok(()))
            }
            EndWell | Fail | FailLeaving | GiveBack => Some(self.end(running?, op)),
            Cancel | CancelRunning => {
                self.waiting_or_running(op)?;
                Some(self.turn(op).map(drop))
            }
            Retry | Forget => {
                self.first_dead()?;
                Some(self.turn(op).map(drop))
            }
            Compact if !self.service.core.spool.is_compacting() && self.service.core.home.is_here() => {
                let failed = self.service.core.compact(&mut self.disk, now);
                debug_assert!(failed.is_none() || self.disk.is_dead() || self.faulty);
                Some(Ok(()))
            }
            Hold | Resume if self.service.core.spool.is_held() == (op == Hold) => None,
            Commit | Queue | QueueLater | Hold | Resume | Compact => Some(self.turn(op).map(drop)),
            RetryAll | ForgetAll if self.faulty => None,
            RetryAll | ForgetAll => {
                self.first_dead()?;
                Some(self.rewrite(op))
            }
            MoveAway if self.disk.is_journal_named() => {
                self.disk.move_spool_away();
                self.faulty = true;
                Some(Ok(()))
            }
            PutBack if !self.disk.is_journal_named() => {
                self.disk.put_spool_back();
                Some(Ok(()))
            }
            MoveAway | PutBack => None,
            TakePath => {
                self.disk.put_another_spool();
                self.faulty = true;
                Some(Ok(()))
            }
            FailFolderSync => {
                (self.disk.fail_folder_sync, self.faulty) = (true, true);
                Some(Ok(()))
            }
            TakeBroken => {
                self.service.look();
                self.service.core.spool.claims.on_heartbeat();
                self.disk.breaks_lease = true;
                let result = self.turn(op).map(drop);
                if !std::mem::take(&mut self.disk.breaks_lease) {
                    self.open = self.disk.writers.last().copied();
                }
                Some(result)
            }
            Wait => {
                self.service.now += CLAIM_QUIET;
                self.open = None;
                self.disk.writers.clear();
                Some(Ok(()))
            }
            WaitOpen => {
                self.open?;
                self.service.now += CLAIM_QUIET;
                self.service.core.spool.claims.on_heartbeat();
                Some(Ok(()))
            }
        }
    }

    /// Kills the service while a job runs. The next one finds what the job left.
    fn kill(&mut self, slot: Slot) -> Option<DiskResult> {
        if slot.state == JobState::Cancelled {
            return None;
        }
        let now = self.service.now;
        let text = match self.service.text(&mut self.disk, &slot) {
            Ok(text) => text,
            Err(error) => return Some(Err(error)),
        };
        // Not `restart`, which forgets that the disk is to die.
        self.service = match start(&mut self.disk, now) {
            Ok((service, _)) => service,
            Err(error) => return Some(Err(error)),
        };
        self.service.core.leftovers.inherit(group_of(slot.id), now);
        self.left = vec![slot.id];
        let again = self.service.core.spool.window().get(slot.id).map(|slot| slot.state);
        let promise = self.promise(&text);
        promise.cut_off += 1;
        let delayed = matches!(again, Some(JobState::Delayed(due)) if !due.is_due(now));
        assert!(promise.cut_off < 2 || delayed, "repeated at once: {again:?}");
        Some(Ok(()))
    }

    /// Resumes the queue.
    fn resume(&mut self) {
        if self.service.core.spool.is_held() {
            let now = self.service.now;
            while self.service.core.set_held(&mut self.disk, false, now) == Ok(false) {}
        }
    }

    /// Notes that the records of this turn are in the journal.
    fn note_written(&mut self) {
        if let Some(text) = &self.ended
            && !self.service.core.spool.window().has_pending_records()
        {
            let promise = self.promises.iter_mut().find(|promise| promise.text == *text).unwrap();
            let [well, died] = &mut promise.results;
            for sure in [&mut promise.over, &mut promise.dead, well, died] {
                if *sure == Sure::Asked {
                    *sure = Sure::Written;
                }
            }
            self.ended = None;
        }
        if self.promises.iter().all(|promise| promise.accepted >= Sure::Written) {
            return;
        }
        let (Ok(window), Ok(backlog)) = (self.window(), self.service.live_records(&mut self.disk, false))
        else {
            return;
        };
        let texts = window.into_iter().map(|(_, text)| text);
        for text in texts.chain(backlog.into_iter().map(|(_, text)| text)).collect::<Vec<_>>() {
            let promise = self.promise(&text);
            if promise.accepted < Sure::Written {
                promise.accepted = Sure::Written;
            }
        }
    }

    /// Ends the handler of a job, by itself or by an orderly stop.
    fn end(&mut self, slot: Slot, op: Operation) -> DiskResult {
        let now = self.service.now;
        let text = self.service.text(&mut self.disk, &slot)?;
        let cancelled = slot.state == JobState::Cancelled;
        let outcome = match op {
            EndWell => AttemptOutcome::Success,
            Fail | FailLeaving => AttemptOutcome::Code(1),
            _ => {
                self.service.core.stop(now);
                AttemptOutcome::Signal(15)
            }
        };
        if op == FailLeaving {
            assert_eq!(self.service.core.group_left(group_of(slot.id), now), None);
            self.left.push(slot.id);
        }
        self.service.core.handler_ended(slot.id, outcome, now);
        let promise = self.promise(&text);
        promise.cut_off = 0;
        match op {
            _ if cancelled => {}
            EndWell => (promise.over, promise.results[0]) = (Sure::Asked, Sure::Asked),
            Fail | FailLeaving if u32::from(slot.attempt) > RULES.spool.retries => {
                (promise.dead, promise.results[1]) = (Sure::Asked, Sure::Asked);
            }
            Fail | FailLeaving => {}
            _ => promise.attempts = (slot.attempt - 1, promise.attempts.1.min(slot.attempt - 1)),
        }
        self.ended = Some(text);
        self.turn(op)?;
        if op == GiveBack {
            match self.service.core.finish(&mut self.disk, now) {
                Ok(()) => self.committed(),
                Err(_) if self.faulty && !self.disk.is_dead() => self.lose_spool(),
                Err(error) => return Err(error),
            }
            self.disk.restart();
            self.service = start(&mut self.disk, now)?.0;
            self.left.clear();
        }
        Ok(())
    }

    /// Takes back what was promised by a journal that no process finds again. Lines that are in a
    /// claim or in the queue file are promised by those.
    fn lose_spool(&mut self) {
        self.held_asked = true;
        for promise in &mut self.promises {
            let by_line = match self.disk.find_line(&promise.text) {
                Some(true) => Sure::Committed,
                Some(false) => Sure::Written,
                None => Sure::Asked,
            };
            promise.accepted = promise.accepted.min(by_line);
            promise.over = promise.over.min(Sure::Asked);
            promise.dead = promise.dead.min(Sure::Asked);
            promise.results = promise.results.map(|sure| sure.min(Sure::Asked));
            (promise.attempts, promise.id) = ((0, 0), None);
        }
    }

    /// Forgets the ends in a spool that is lost. The journal that is there now holds none of
    /// them, so a claim whose removal a power cut undoes is read again.
    fn forget_lost(&mut self) {
        for promise in &mut self.promises {
            promise.over = Sure::No;
        }
    }

    /// Takes back what was promised for a power cut, because the name of the journal is new.
    fn doubt_spool(&mut self) {
        self.held_asked = true;
        for promise in &mut self.promises {
            let durable = self.disk.find_line(&promise.text) == Some(true);
            let most = if durable { Sure::Committed } else { Sure::Written };
            promise.accepted = promise.accepted.min(most);
            promise.over = promise.over.min(Sure::Written);
            promise.dead = promise.dead.min(Sure::Written);
            promise.results = promise.results.map(|sure| sure.min(Sure::Written));
            promise.attempts.1 = 0;
        }
    }

    /// Has all dead jobs tried again, or forgotten.
    fn rewrite(&mut self, op: Operation) -> DiskResult {
        while self.service.core.spool.is_compacting() {
            self.turn(Compact)?;
        }
        let dead = self.service.live_records(&mut self.disk, true)?;
        for (_, text) in &dead {
            let promise = self.promise(text);
            *if op == RetryAll { &mut promise.dead } else { &mut promise.over } = Sure::Asked;
        }
        let purpose = if op == RetryAll { Purpose::Retry } else { Purpose::Forget };
        self.service.core.start_rewrite(&mut self.disk, purpose, self.service.now)?;
        while self.service.core.spool.is_compacting() {
            self.turn(Compact)?;
        }
        if self.disk.is_dead() {
            return Err(DEAD);
        }
        assert_eq!(self.service.core.spool.purpose(), purpose);
        let edit = if op == RetryAll { ModelEdit::Retry } else { ModelEdit::Remove };
        self.pending = dead.into_iter().map(|(_, text)| (text, edit)).collect();
        self.turn(Commit).map(drop)
    }
}

/// Returns the process group of a job.
fn group_of(job: u64) -> NotedGroup {
    let number = 1000 + u32::try_from(job).unwrap();
    NotedGroup { number, session: 1, job, from: at(0), upto: at(0), token: [b'0'; TOKEN_BYTES] }
}

/// Starts a service with the rules of this model.
fn start(disk: &mut FakeDisk, now: Instant) -> DiskResult<(TestService, Recovery)> {
    match TestService::start(disk, now) {
        Ok((mut service, recovery)) => {
            service.core.set_rules(RULES);
            Ok((service, recovery))
        }
        Err(RecoverError::Disk(error)) => Err(error),
        Err(RecoverError::OtherVersion) => panic!("another version"),
    }
}

/// The search, and what it counts.
#[derive(Default)]
struct Exploration {
    /// Histories that begin in a state, by it and what may follow.
    visited: HashMap<(u64, u32, u32), u64>,
    /// Disks after a crash that were judged, with what was promised.
    judged: HashSet<(u64, Crash, u32, u32)>,
    states: HashSet<u64>,
    crashes: u64,
    path: Vec<String>,
}

impl Exploration {
    /// Runs every history of at most `ops` more operations and `crashes` crashes, and returns
    /// how many there are.
    fn explore(&mut self, world: &World, ops: u32, crashes: u32) -> u64 {
        let fingerprint = world.fingerprint();
        if let Some(count) = self.visited.get(&(fingerprint, ops, crashes)) {
            return *count;
        }
        self.states.insert(fingerprint);
        let mut count = 1 + self.crash(world, ops, crashes);
        for op in if ops > 0 { &OPS[..] } else { &[] } {
            let mut next = world.clone();
            self.path.push(format!("{op:?}"));
            match next.apply(*op) {
                None => {}
                Some(Err(error)) => panic!("{error:?}"),
                Some(Ok(())) if next.fingerprint() == fingerprint => {}
                Some(Ok(())) => {
                    for step in 1..=next.disk.operations - world.disk.operations {
                        let mut dying = world.clone();
                        dying.disk.die_at = Some(world.disk.operations + step);
                        let _ = dying.apply(*op);
                        self.path.push(format!("dies at {step}"));
                        count = count.saturating_add(self.crash(&dying, ops - 1, crashes));
                        self.path.pop();
                    }
                    count = count.saturating_add(self.explore(&next, ops - 1, crashes));
                }
            }
            self.path.pop();
        }
        self.visited.insert((fingerprint, ops, crashes), count);
        count
    }

    /// Ends the life here: by a kill, and by every power cut.
    fn crash(&mut self, world: &World, ops: u32, crashes: u32) -> u64 {
        if crashes == 0 {
            return 0;
        }
        let mut killed = world.disk.clone();
        killed.restart();
        let mut count = self.recover(world, killed, Crash::Kill, ops, crashes);
        for disk in world.disk.power_cuts() {
            count = count.saturating_add(self.recover(world, disk, Crash::PowerCut, ops, crashes));
        }
        count
    }

    fn recover(&mut self, before: &World, disk: FakeDisk, crash: Crash, ops: u32, crashes: u32) -> u64 {
        let mut before = before.clone();
        let moves = !before.service.core.home.is_here();
        let lost = !before.disk.is_journal_named() || (moves && crash == Crash::PowerCut);
        if lost {
            before.lose_spool();
        } else if moves {
            before.doubt_spool();
        }
        let before = &before;
        let mut hasher = DefaultHasher::new();
        (disk.fingerprint(), &before.promises, before.service.now, before.held, before.held_asked)
            .hash(&mut hasher);
        if !self.judged.insert((hasher.finish(), crash, ops, crashes)) {
            return 1;
        }
        self.crashes += 1;
        self.path.push(format!("{crash:?}"));
        let now = before.service.now;
        let cut = before.cut || crash == Crash::PowerCut;
        let open = before.open.filter(|_| crash == Crash::Kill);
        let mut after = World { disk: disk.clone(), cut, open, left: Vec::new(), ..before.clone() };
        let (service, recovery) = start(&mut after.disk, now).unwrap();
        assert!(cut || recovery.damaged_bytes == 0, "{recovery:?}; {}", self.path.join(", "));
        after.service = service;
        self.judge(&mut after, crash);
        if lost {
            after.forget_lost();
        }
        let mut count = 1u64;
        if crashes > 1 {
            for step in 1..=after.disk.operations - disk.operations {
                let mut dying = World { disk: disk.clone(), ..after.clone() };
                dying.disk.die_at = Some(disk.operations + step);
                let started = start(&mut dying.disk, now);
                assert!(started.is_err() || dying.disk.is_dead());
                self.path.push(format!("recovery dies at {step}"));
                count = count.saturating_add(self.crash(&dying, ops, crashes - 1));
                self.path.pop();
            }
            count = count.saturating_add(self.explore(&after, ops, crashes - 1));
        }
        self.path.pop();
        count
    }

    /// Checks the promises, and updates them to the state that the crash left.
    fn judge(&self, world: &mut World, crash: Crash) {
        let path = || self.path.join(", ");
        world.service.refill(&mut world.disk).unwrap();
        let known = world.window().unwrap();
        let dead = world.service.live_records(&mut world.disk, true).unwrap();
        assert_eq!(world.service.core.spool.dead() as usize, dead.len(), "{}", path());
        let ends = world.service.ends(&mut world.disk).unwrap();
        for (text, _) in &ends {
            assert!(world.promises.iter().any(|promise| promise.text == *text), "half: {text:?}; {}", path());
        }
        let held = world.service.core.spool.is_held();
        assert!(world.held_asked || held == world.held, "held {held}; {}", path());
        // After a kill a power cut can still undo what no commit made sure.
        world.held_asked &= crash == Crash::Kill;
        world.held = held;
        let mut end = world.clone();
        end.resume();
        let ran = end.service.run_to_the_end(&mut end.disk);
        let lowest = if crash == Crash::Kill { Sure::Written } else { Sure::Committed };
        for text in ran.iter().chain(dead.iter().map(|(_, text)| text)) {
            assert!(world.promises.iter().any(|promise| promise.text == *text), "half: {text:?}; {}", path());
        }
        for promise in &mut world.promises {
            let runs = ran.iter().filter(|text| **text == promise.text).count();
            let dies = dead.iter().filter(|(_, text)| *text == promise.text).count();
            let slot = known.iter().find(|(_, text)| *text == promise.text).map(|(slot, _)| slot);
            let text = || format!("{promise:?} waits {runs} times, is dead {dies} times; {}", path());
            assert!(runs + dies <= 1, "doubled: {}", text());
            assert!(promise.over < lowest || runs + dies == 0, "is over: {}", text());
            let wanted = promise.accepted >= lowest && promise.over == Sure::No;
            assert!(!wanted || runs + dies == 1, "lost: {}", text());
            assert!(promise.dead < lowest || promise.over != Sure::No || dies == 1, "not dead: {}", text());
            assert!(promise.dead != Sure::No || dies == 0, "dead: {}", text());
            if let Some(slot) = slot {
                let least = if crash == Crash::Kill { promise.attempts.0 } else { promise.attempts.1 };
                assert!(slot.attempt >= least || promise.dead != Sure::No, "attempts: {}", text());
                assert!(promise.id.is_none_or(|id| id == slot.id), "another id: {}", text());
            }
            let listed = [EndKind::Done, EndKind::Dead]
                .map(|kind| ends.iter().any(|(text, end)| *text == promise.text && *end == kind));
            for (sure, is_listed) in promise.results.iter().zip(listed) {
                assert!(*sure < lowest || is_listed, "no result: {}", text());
                assert!(*sure != Sure::No || !is_listed, "a result of no end: {}", text());
            }
            match crash {
                Crash::PowerCut => promise.resolve(runs > 0, slot, dies > 0),
                Crash::Kill => promise.decide(runs + dies > 0),
            }
            for (sure, is_listed) in promise.results.iter_mut().zip(listed) {
                *sure = match crash {
                    Crash::PowerCut if is_listed => Sure::Committed,
                    Crash::Kill if is_listed => (*sure).max(Sure::Written),
                    _ => Sure::No,
                };
            }
        }
    }
}

impl Promise {
    /// Resolves a promise after a power cut: the state on the disk is sure.
    fn resolve(&mut self, waits: bool, slot: Option<&Slot>, dead: bool) {
        let sure = |is: bool| if is { Sure::Committed } else { Sure::No };
        self.over = sure(!waits && !dead && self.over != Sure::No);
        self.dead = sure(dead);
        self.accepted = sure(waits || dead);
        let attempts = slot.map_or(0, |slot| slot.attempt);
        self.attempts = (attempts, attempts);
        self.cut_off = 0;
    }

    /// Resolves a promise after a kill: the result of a request is known, though not sure.
    fn decide(&mut self, there: bool) {
        let written = |is: bool| if is { Sure::Written } else { Sure::No };
        if self.over == Sure::Asked {
            self.over = written(!there);
        }
        if self.accepted == Sure::Asked {
            self.accepted = written(there);
        }
    }
}

/// Runs every history from one beginning, and returns how many there were.
fn explore_from(root: &[Operation], depth: u32, crashes: u32) -> String {
    let mut disk = FakeDisk::new(1);
    let (service, _) = start(&mut disk, at(0)).unwrap();
    let mut world = World {
        disk,
        service,
        promises: Vec::new(),
        cut: false,
        open: None,
        ended: None,
        dropped: Vec::new(),
        pending: Vec::new(),
        faulty: false,
        left: Vec::new(),
        held: false,
        held_asked: false,
    };
    for op in root {
        assert_eq!(world.apply(*op), Some(Ok(())), "{op:?} of {root:?}");
    }
    let mut exploration = Exploration { path: vec![format!("{root:?}")], ..Exploration::default() };
    let histories = exploration.explore(&world, depth, crashes);
    format!(
        "{histories:>9} histories, {:>6} states, {:>7} disks after a crash: {root:?}",
        exploration.states.len(),
        exploration.crashes
    )
}

#[test]
fn no_short_history_breaks_a_promise() {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let depth = number("ZIGSVC_MODEL_DEPTH", DEPTH);
    let crashes = number("ZIGSVC_MODEL_CRASHES", CRASHES);
    eprintln!("{depth} operations and {crashes} crashes after each beginning");
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                // The largest come last in the list.
                while let Some(root) = ROOTS.iter().rev().nth(next.fetch_add(1, Ordering::Relaxed)) {
                    eprintln!("{}", explore_from(root, depth, crashes));
                }
            });
        }
    });
}
