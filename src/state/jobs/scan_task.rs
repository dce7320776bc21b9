//! Requests that take several turns: a scan of the journal for jobs beyond the window, one
//! page of `list`, or a new journal for all dead jobs. One runs at a time; the clients of
//! the others wait for their turn.

use super::list_index::{ListIndex, ListScan};
use super::replies::{ClientState, PendingReply, Replies, ScanRequest, push_result, refuse, refuse_disk};
use super::{JobResult, JobsCore};
use crate::limits::{CLIENT_IDLE, LIST_PAGE, RESULTS_KEPT};
use crate::proto::control::{Code, Filter, Target};
use crate::proto::journal::RECORD_MAX_BYTES;
use crate::state::disk::{Disk, DiskError, DiskResult};
use crate::state::spool::{Cancelled, JobEnd, JournalScan, Purpose, RecordLocation, SCAN_STEP_BYTES};
use crate::state::window::{JobState, Slot};
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};
use heapless::Vec;
use ufmt::uwrite;

/// Time in which a client must ask for the next page of `list` while another client waits for
/// a scan.
const PAGE_PATIENCE: Duration = Duration::from_ms(2000);

/// The reason why there is no result of a job.
const NO_SUCH_JOB: &str = "no such job, or it ended long ago";

/// A request that is under way.
#[derive(Clone, Copy, Debug)]
struct ScanTask {
    /// The client, or [`NO_CLIENT`].
    slot: usize,
    request: ScanRequest,
    stage: ScanStage,
}

#[derive(Clone, Copy, Debug)]
enum ScanStage {
    /// Scanning the journal for one job.
    Walk(JournalScan),
    /// Scanning the journal for a page of `list`.
    Collect(ListScan),
    /// Scanning the journal for the ends of jobs: all, or that of one, with the number of those
    /// after it.
    Ends(JournalScan, Option<JobResult>, usize),
    /// Scanning the journal for jobs of other handlers than the log, with their number.
    Others(JournalScan, u32),
    /// Writing a new journal, for all dead jobs.
    Rewrite(Purpose),
    /// Sending the page.
    Send {
        /// The first row that was not sent.
        next: usize,
        /// When the page was complete.
        since: Instant,
        /// The journal in which its rows are.
        generation: u32,
    },
}

/// The slot of a client that left while its task could not be stopped.
const NO_CLIENT: usize = usize::MAX;

/// One row of a page.
#[derive(Clone, Copy, Debug)]
pub struct ListRow {
    location: RecordLocation,
    running: bool,
    /// The record is that of an end.
    ended: bool,
}

/// The next action of the service for a scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanAction {
    /// Answer the client at this slot.
    Finish(usize, ScanOutcome),
    /// Send the head of a page of this many rows to the client at this slot, then the page.
    BeginPage(usize, usize),
    /// Continue to send the page to the client at this slot.
    SendPage(usize),
}

/// The result of a scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanOutcome {
    /// The disk failed.
    Refused(DiskError),
    /// The service stops.
    Stopping,
    /// There is no such job, for this reason.
    NoJob(&'static str),
    /// The job had ended.
    Ended(u64, JobResult),
    /// The job was cancelled. True if its handler runs.
    Cancelled(u64, bool),
    /// The dead job waits again.
    Retried(u64),
    /// The dead job is removed.
    Forgotten(u64),
    /// This many dead jobs wait again.
    AllRetried(u32),
    /// This many dead jobs are removed.
    AllForgotten(u32),
    /// This many jobs were queued for another handler than the log. True if a reload would make
    /// the handler the log.
    Others(u32, bool),
}

/// The next step in sending a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageStep {
    /// Send the rows from this one on.
    Rows(usize),
    /// Wait until the client takes what was sent.
    Wait,
    /// Close the connection, because the client takes nothing.
    Close,
    /// The page was sent.
    Done,
}

/// The rows of one page.
type ListPage = Vec<ListRow, LIST_PAGE>;

/// The memory of `list`.
pub struct ListMemory {
    page: ListPage,
    index: ListIndex,
}

impl ListMemory {
    /// No page, and no index; all zeros.
    pub const EMPTY: Self = Self { page: Vec::new(), index: ListIndex::EMPTY };
}

/// The scan under way, and the page that it fills.
pub struct Scans {
    task: Option<ScanTask>,
    /// The client whose scan was begun last.
    last: usize,
    list: &'static mut ListMemory,
}

impl ScanOutcome {
    /// Returns the answer that waits for the commit, if there is one.
    #[must_use]
    pub fn pending(self) -> PendingReply {
        match self {
            Self::Refused(_) | Self::Stopping | Self::NoJob(_) | Self::Ended(..) | Self::Others(..) => {
                PendingReply::None
            }
            Self::Cancelled(id, running) => PendingReply::Cancelled(id, running),
            Self::Retried(id) | Self::Forgotten(id) => PendingReply::Job(id),
            Self::AllRetried(count) | Self::AllForgotten(count) => PendingReply::Count(count),
        }
    }

    /// Writes the answer, unless it waits for the commit.
    pub fn push(self, out: &mut Writer<'_>) {
        match self {
            Self::Refused(error) => drop(refuse_disk(out, error)),
            Self::Stopping => drop(refuse(out, Code::Stopping, "the service stops")),
            Self::NoJob(text) => drop(refuse(out, Code::NoJob, text)),
            Self::Ended(id, result) => push_result(id, result, out),
            Self::Others(count, reload) => {
                let _ = uwrite!(out, "ok count={} reload={}\n", count, u8::from(reload));
            }
            _ => {}
        }
    }

    /// Writes the log line of a change, without the client that asked for it.
    pub fn describe(self, out: &mut Writer<'_>) {
        let _ = match self {
            Self::Refused(_) | Self::Stopping | Self::NoJob(_) | Self::Ended(..) | Self::Others(..) => Ok(()),
            Self::Cancelled(id, _) => uwrite!(out, "job {}: cancelled", id),
            Self::Retried(id) => uwrite!(out, "job {}: retried", id),
            Self::Forgotten(id) => uwrite!(out, "job {}: forgotten", id),
            Self::AllRetried(count) => uwrite!(out, "{} dead jobs retried", count),
            Self::AllForgotten(count) => uwrite!(out, "{} dead jobs forgotten", count),
        };
    }
}

impl ScanRequest {
    /// Returns true if the request changes the journal.
    fn edits(self) -> bool {
        matches!(self, Self::Cancel(_) | Self::Retry(_) | Self::Forget(_))
    }

    /// Returns the purpose of the new journal that the request needs, if it needs one.
    fn rewrite(self) -> Option<Purpose> {
        match self {
            Self::Retry(Target::Dead) => Some(Purpose::Retry),
            Self::Forget(Target::Dead) => Some(Purpose::Forget),
            _ => None,
        }
    }

    /// Returns the job that the scan looks for.
    fn job(self) -> Option<u64> {
        match self {
            Self::Wait(id) | Self::Follow(id) | Self::Cancel(id) => Some(id),
            Self::Retry(Target::Job(id)) | Self::Forget(Target::Job(id)) => Some(id),
            Self::List(_) | Self::Retry(Target::Dead) | Self::Forget(Target::Dead) | Self::Others(_) => None,
        }
    }

    /// Returns the job whose end the client waits for.
    fn waits_for(self) -> Option<u64> {
        match self {
            Self::Wait(id) | Self::Follow(id) => Some(id),
            _ => None,
        }
    }

    /// Returns true if dead jobs count.
    fn includes_dead(self) -> bool {
        match self {
            Self::List(filter) => filter.dead,
            Self::Cancel(_) | Self::Others(_) => false,
            Self::Wait(_) | Self::Follow(_) | Self::Retry(_) | Self::Forget(_) => true,
        }
    }
}

impl ListRow {
    fn state(&self) -> &'static str {
        match self {
            Self { running: true, .. } => "running",
            Self { location: RecordLocation { dead: true, .. }, .. } => "dead",
            Self { location: RecordLocation { due: Some(_), .. }, .. } => "scheduled",
            Self { .. } => "waiting",
        }
    }

    fn matches(&self, filter: &Filter) -> bool {
        match self {
            Self { running: true, .. } => filter.running,
            Self { location: RecordLocation { dead: true, .. }, .. } => filter.dead,
            Self { location: RecordLocation { due: Some(_), .. }, .. } => filter.scheduled,
            Self { .. } => filter.waiting,
        }
    }
}

impl Scans {
    /// Returns the state without a scan. `list` is memory for the rows.
    #[must_use]
    pub fn new(list: &'static mut ListMemory) -> Self {
        Self { task: None, last: 0, list }
    }

    /// Returns the memory, so that a test needs it once.
    #[cfg(test)]
    pub(crate) fn into_memory(self) -> &'static mut ListMemory {
        *self.list = ListMemory::EMPTY;
        self.list
    }

    /// Returns true if the journal must stay as it is, because a page is being sent.
    #[must_use]
    pub fn is_paging(&self) -> bool {
        matches!(self.task, Some(ScanTask { stage: ScanStage::Send { .. }, .. }))
    }

    /// Returns when the scan continues.
    #[must_use]
    pub fn next_deadline(&self, replies: &Replies, core: &JobsCore, now: Instant) -> Option<Instant> {
        match self.task.map(|task| (task.slot, task.stage)) {
            Some((
                _,
                ScanStage::Walk(_) | ScanStage::Collect(_) | ScanStage::Ends(..) | ScanStage::Others(..),
            )) => Some(now),
            Some((slot, ScanStage::Send { since, .. })) => Some(since + self.patience(slot, replies, core)),
            // The compaction that is under way has a deadline of its own.
            Some((_, ScanStage::Rewrite(_))) | None if core.spool.is_compacting() => None,
            Some((_, ScanStage::Rewrite(_))) => Some(now),
            None => replies.next_scan(self.last, None).map(|_| now),
        }
    }

    /// Returns the time that the client at `slot` has to take its page: less if another
    /// client waits for a scan, or the journal has to be written again.
    fn patience(&self, slot: usize, replies: &Replies, core: &JobsCore) -> Duration {
        let is_waited_for = replies.next_scan(self.last, Some(slot)).is_some();
        if is_waited_for || core.spool.is_compacting() || core.spool.wants_compaction() {
            PAGE_PATIENCE
        } else {
            CLIENT_IDLE
        }
    }

    /// Ends the scan of a client that leaves. A new journal is written to its end.
    pub fn drop_client(&mut self, slot: usize) {
        if let Some(task) = self.task.as_mut().filter(|task| task.slot == slot) {
            match task.stage {
                ScanStage::Rewrite(_) => task.slot = NO_CLIENT,
                _ => self.task = None,
            }
        }
    }

    /// Continues the scan under way, or begins the next one. Comes before the requests of a
    /// turn, because an edit must not be appended after uncommitted jobs.
    pub fn poll(
        &mut self,
        replies: &mut Replies,
        core: &mut JobsCore,
        disk: &mut impl Disk,
        scratch: &mut [u8],
        now: Instant,
    ) -> Option<ScanAction> {
        if self.task.is_none() {
            let (slot, request) = replies.next_scan(self.last, None)?;
            self.last = slot;
            match begin(request, slot, core, &mut self.list.index, disk, now) {
                Ok(stage) => self.task = stage.map(|stage| ScanTask { slot, request, stage }),
                Err(outcome) => return Some(ScanAction::Finish(slot, outcome)),
            }
            self.list.page.clear();
        }
        let task = self.task.as_mut()?;
        let (slot, request) = (task.slot, task.request);
        let finish = |outcome| Some(ScanAction::Finish(slot, outcome));
        match &mut task.stage {
            ScanStage::Send { .. } => Some(ScanAction::SendPage(slot)),
            ScanStage::Rewrite(purpose) => {
                let purpose = *purpose;
                if core.spool.purpose() == purpose && core.spool.is_compacting() {
                    return None;
                }
                self.task = None;
                if core.spool.purpose() != purpose {
                    return finish(ScanOutcome::Refused(core.disk_health.compact_error()));
                }
                core.history.forget_dead();
                let count = core.spool.affected_count();
                let retries = purpose == Purpose::Retry;
                let done = if retries { ScanOutcome::AllRetried } else { ScanOutcome::AllForgotten };
                finish(done(count))
            }
            ScanStage::Collect(scan) => {
                let ScanRequest::List(filter) = request else { return None };
                if !core.spool.is_current(&scan.scan) {
                    // The page begins again in the next turn.
                    self.task = None;
                    return None;
                }
                match collect(scan, &filter, self.list, core, disk, scratch) {
                    Ok(false) => return None,
                    Ok(true) => {}
                    Err(error) => {
                        self.task = None;
                        return finish(ScanOutcome::Refused(error));
                    }
                }
                add_window(&mut self.list.page, &filter, core.spool.window().slots());
                task.stage = ScanStage::Send { next: 0, since: now, generation: core.spool.generation() };
                Some(ScanAction::BeginPage(slot, self.list.page.len()))
            }
            ScanStage::Ends(scan, last, later) => {
                if !core.spool.is_current(scan) {
                    self.task = None;
                    return None;
                }
                let page = &mut self.list.page;
                let mut visit = |location: RecordLocation, end: JobEnd| match request {
                    ScanRequest::List(filter) if location.id > filter.after => {
                        if page.len() >= RESULTS_KEPT {
                            page.remove(0);
                        }
                        let _ = page.push(ListRow { location, running: false, ended: true });
                    }
                    _ if request.job() == Some(location.id) => {
                        (*last, *later) = (JobResult::of_end(end), 0);
                    }
                    _ => *later = later.saturating_add(1),
                };
                match core.spool.ends_step(disk, scratch, scan, &mut visit) {
                    Ok(false) => return None,
                    Ok(true) => {}
                    Err(error) => {
                        self.task = None;
                        return finish(ScanOutcome::Refused(error));
                    }
                }
                if let Some(id) = request.job() {
                    // Older ends are left out by the next compaction.
                    let ended = last.filter(|_| *later < RESULTS_KEPT);
                    self.task = None;
                    // The job may have ended meanwhile.
                    return finish(match core.history.result_of(id).or(ended) {
                        Some(result) => ScanOutcome::Ended(id, result),
                        None => ScanOutcome::NoJob(NO_SUCH_JOB),
                    });
                }
                task.stage = ScanStage::Send { next: 0, since: now, generation: core.spool.generation() };
                Some(ScanAction::BeginPage(slot, self.list.page.len()))
            }
            ScanStage::Others(scan, count) => {
                let step = core.spool.others_step(disk, scratch, scan, count);
                let (count, is_current) = (*count, core.spool.is_current(scan));
                if is_current && step == Ok(false) {
                    return None;
                }
                self.task = None;
                match (step, request) {
                    // The scan begins again in the next turn.
                    _ if !is_current => None,
                    (Err(error), _) => finish(ScanOutcome::Refused(error)),
                    (Ok(_), ScanRequest::Others(reload)) => {
                        let count = count.saturating_add(core.spool.others_in_window());
                        finish(ScanOutcome::Others(count, reload))
                    }
                    _ => None,
                }
            }
            ScanStage::Walk(scan) => {
                if !core.spool.is_current(scan) {
                    // The scan begins again in the next turn.
                    self.task = None;
                    return None;
                }
                let mut found = None;
                let mut visit = |location: RecordLocation| {
                    found = (request.job() == Some(location.id)).then_some(location);
                    found.is_none()
                };
                let step = core.spool.scan_step(disk, scratch, scan, &mut visit);
                if step == Ok(false) {
                    return None;
                }
                if let Some(id) = request.waits_for()
                    && step.is_ok()
                    && found.is_none()
                    && !core.is_known(id)
                {
                    // Only the journal remembers the ends before the last start.
                    task.stage = ScanStage::Ends(core.spool.scan_ends(), None, 0);
                    return None;
                }
                self.task = None;
                if let Err(error) = step {
                    return finish(ScanOutcome::Refused(error));
                }
                let outcome = conclude(request, found, core, disk, now);
                match outcome.unwrap_or_else(|error| Some(ScanOutcome::Refused(error))) {
                    Some(outcome) => finish(outcome),
                    None => {
                        let state = match request {
                            ScanRequest::Follow(id) => Some(ClientState::Following(id)),
                            _ => request.job().map(ClientState::AwaitingJob),
                        };
                        if let Some(state) = state {
                            replies.set_state(slot, state);
                        }
                        None
                    }
                }
            }
        }
    }

    // ----- the page ---------------------------------------------------------

    /// Returns what comes next in sending the page. `is_stuck` is true if the client has not
    /// taken all that was sent.
    pub fn next_rows(
        &mut self,
        replies: &Replies,
        core: &JobsCore,
        is_stuck: bool,
        now: Instant,
    ) -> PageStep {
        let Some(ScanTask { slot, stage: ScanStage::Send { next, since, generation }, .. }) = self.task
        else {
            return PageStep::Done;
        };
        if next >= self.list.page.len() {
            self.task = None;
            PageStep::Done
        } else if (since + self.patience(slot, replies, core)).is_due(now)
            || generation != core.spool.generation()
        {
            // The client is too slow, or its rows are nowhere any more: after a failed sync,
            // the journal had to be written again.
            PageStep::Close
        } else if is_stuck {
            PageStep::Wait
        } else {
            PageStep::Rows(next)
        }
    }

    /// Writes the rows from `next` on, as many as fit.
    pub fn push_rows(
        &self,
        next: usize,
        core: &JobsCore,
        disk: &mut impl Disk,
        now: Instant,
        out: &mut Writer<'_>,
    ) {
        for row in self.list.page.get(next..).unwrap_or(&[]) {
            if out.room() < RECORD_MAX_BYTES.saturating_add(64) {
                return;
            }
            let mut buffer = [0; RECORD_MAX_BYTES];
            let RecordLocation { id, attempt, .. } = row.location;
            let text = if row.ended {
                core.spool.end_at(disk, row.location, &mut buffer).map(|(end, text)| {
                    let ms = end.took.as_ms();
                    let _ =
                        uwrite!(out, "{} {} {} exit={} ms={} ", id, end.kind.name(), attempt, end.exit, ms);
                    text
                })
            } else {
                let _ = uwrite!(out, "{} {} {} ", id, row.state(), attempt);
                if let Some(due) = row.location.due {
                    let _ = uwrite!(out, "due={} ", now.until(due).as_secs_up());
                }
                core.spool.text(disk, row.location, &mut buffer)
            };
            match text {
                Ok(text) => out.push(text),
                Err(_) => {
                    if row.ended {
                        let _ = uwrite!(out, "{} done {} exit=0 ms=0 ", id, attempt);
                    }
                    out.push_str("(its text cannot be read)");
                }
            }
            out.push_str("\n");
        }
    }

    /// Records that `lines`, which are whole rows, were sent or kept.
    pub fn rows_sent(&mut self, lines: &[u8]) {
        if let Some(ScanTask { stage: ScanStage::Send { next, .. }, .. }) = &mut self.task {
            *next = next.saturating_add(lines.iter().filter(|byte| **byte == b'\n').count());
        }
    }
}

/// Returns the first stage of a scan, or `None` if the scan has to wait.
fn begin(
    request: ScanRequest,
    slot: usize,
    core: &mut JobsCore,
    index: &mut ListIndex,
    disk: &mut impl Disk,
    now: Instant,
) -> Result<Option<ScanStage>, ScanOutcome> {
    if request.edits() {
        if core.is_stopping() {
            return Err(ScanOutcome::Stopping);
        }
        if let Some(error) = core.disk_health.resting_error(now) {
            return Err(ScanOutcome::Refused(error));
        }
    }
    if let Some(purpose) = request.rewrite() {
        if core.spool.is_compacting() {
            return Ok(None);
        }
        let begun = core.start_rewrite(disk, purpose, now);
        return begun.map(|()| Some(ScanStage::Rewrite(purpose))).map_err(ScanOutcome::Refused);
    }
    if request.edits() && core.spool.tombstones_full() {
        // The next compaction makes room to remember one more.
        return match core.disk_health.may_compact(now) {
            true => Ok(None),
            false => Err(ScanOutcome::Refused(core.disk_health.compact_error())),
        };
    }
    let compacts = core.spool.is_compacting() && !core.is_stopping() && !core.disk_health.is_failing();
    if let ScanRequest::List(filter) = request {
        // Otherwise the page and the compaction would wait for each other.
        if filter.done {
            return Ok((!compacts).then(|| ScanStage::Ends(core.spool.scan_ends(), None, 0)));
        }
        return Ok((!compacts).then(|| ScanStage::Collect(index.begin(&core.spool, slot, filter.after))));
    }
    let scan = core.spool.scan(request.includes_dead());
    Ok(Some(match request {
        ScanRequest::Others(_) => ScanStage::Others(scan, 0),
        _ => ScanStage::Walk(scan),
    }))
}

/// Continues to collect the jobs of a page beyond the window, as far as one turn's share.
/// Returns true at the end.
fn collect(
    scan: &mut ListScan,
    filter: &Filter,
    list: &mut ListMemory,
    core: &JobsCore,
    disk: &mut impl Disk,
    scratch: &mut [u8],
) -> DiskResult<bool> {
    let ListMemory { page, index } = list;
    let highest = |page: &ListPage| page.last().filter(|_| page.is_full()).map(|row| row.location.id);
    let mut left = SCAN_STEP_BYTES;
    loop {
        let in_window = !filter.waiting && !filter.dead && !filter.scheduled;
        if !in_window && !index.is_passed(scan, highest(page)) {
            let (mut journal, from) = (scan.scan, scan.scan.at());
            let mut visit = |location: RecordLocation| {
                if !index.visit(scan, &location) {
                    return true;
                }
                add_row(page, filter, ListRow { location, running: false, ended: false });
                !highest(page).is_some_and(|highest| index.is_behind(scan, location.id, highest))
            };
            let ended = core.spool.scan_step(disk, scratch, &mut journal, &mut visit)?;
            scan.scan = journal;
            index.scanned(scan);
            left = left.saturating_sub(journal.at().saturating_sub(from));
            if !ended {
                return Ok(false);
            }
        }
        if in_window || !index.next_run(&core.spool, scan) {
            return Ok(true);
        }
        if left == 0 {
            return Ok(false);
        }
    }
}

/// Carries out the request for the job that the scan has `found`. Returns `None` if the
/// client waits for the end of the job.
fn conclude(
    request: ScanRequest,
    found: Option<RecordLocation>,
    core: &mut JobsCore,
    disk: &mut impl Disk,
    now: Instant,
) -> DiskResult<Option<ScanOutcome>> {
    let dead = found.filter(|location| location.dead);
    Ok(Some(match request {
        ScanRequest::List(_) | ScanRequest::Others(_) => return Ok(None),
        ScanRequest::Wait(id) | ScanRequest::Follow(id) => {
            let result = match (dead, found) {
                (Some(location), _) => {
                    let mut buffer = [0; RECORD_MAX_BYTES];
                    Some(JobResult::Dead(core.spool.outcome(disk, location, &mut buffer)?))
                }
                (None, Some(_)) => None,
                (None, None) => core.history.result_of(id),
            };
            match result {
                Some(result) => ScanOutcome::Ended(id, result),
                None if found.is_some() || core.spool.window().get(id).is_some() => return Ok(None),
                None => ScanOutcome::NoJob(NO_SUCH_JOB),
            }
        }
        ScanRequest::Cancel(id) => {
            let cancelled = match found {
                Some(location) => core.cancel_record(disk, location, now).map(|()| Some(Cancelled::Waiting)),
                // The job may have come into the window meanwhile.
                None => core.cancel(disk, id, now),
            };
            match cancelled? {
                Some(Cancelled::Waiting) => ScanOutcome::Cancelled(id, false),
                Some(Cancelled::Running) => ScanOutcome::Cancelled(id, true),
                Some(Cancelled::AlreadyEnded) | None => ScanOutcome::NoJob("no such job waits or runs"),
            }
        }
        ScanRequest::Retry(_) | ScanRequest::Forget(_) => {
            let retries = matches!(request, ScanRequest::Retry(_));
            let Some(location) = dead else { return Ok(Some(ScanOutcome::NoJob("no such dead job"))) };
            core.edit_dead(disk, location, retries, now)?;
            if retries { ScanOutcome::Retried(location.id) } else { ScanOutcome::Forgotten(location.id) }
        }
    }))
}

/// Adds the jobs of the window to a page.
fn add_window(page: &mut ListPage, filter: &Filter, slots: &[Slot]) {
    for slot in slots {
        let running = match slot.state {
            JobState::Running | JobState::Starting | JobState::Ended(_) | JobState::Cancelled => true,
            JobState::Waiting | JobState::Delayed(_) => false,
        };
        add_row(page, filter, ListRow { location: slot.location(), running, ended: false });
    }
}

/// Adds a row to a page, in the order of ids, if it belongs there.
fn add_row(page: &mut ListPage, filter: &Filter, row: ListRow) {
    if row.location.id <= filter.after || !row.matches(filter) {
        return;
    }
    match page.binary_search_by_key(&row.location.id, |row| row.location.id) {
        // The job has come into the window since the scan met it.
        Ok(at) => page.get_mut(at).into_iter().for_each(|known| *known = row),
        Err(at) if at < LIST_PAGE => {
            if page.is_full() {
                page.pop();
            }
            let _ = page.insert(at, row);
        }
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests;
