//! What one client asked for and takes more than one turn: a walk through the
//! journal for jobs beyond the window, a page of `list`, or a new journal for
//! all dead jobs. One at a time; the others wait.

use super::Jobs;
use super::control::{ClientState, PendingReply, ScanRequest};
use super::requests::{Reply, RequestContext, error_code, error_text, refuse};
use crate::limits::{CLIENT_IDLE, CLIENTS_MAX, LIST_PAGE, PAGE_PATIENCE, READ_BYTES};
use crate::proto::control::{Code, Filter, Target};
use crate::proto::journal::RECORD_MAX_BYTES;
use crate::state::disk::DiskError;
use crate::state::jobs::JobResult;
use crate::state::spool::{Cancelled, JournalScan, Purpose, RecordLocation};
use crate::state::window::{JobState, Slot};
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};
use heapless::Vec;
use ufmt::uwrite;

/// What is being done.
pub(super) struct ScanTask {
    /// For whom.
    pub(super) client_slot: usize,
    request: ScanRequest,
    stage: ScanStage,
}

#[derive(Clone, Copy)]
enum ScanStage {
    /// Walking through the journal.
    Walk(JournalScan),
    /// The journal is written anew, for all dead jobs.
    Rewrite(Purpose),
    /// Sending the page: its next line, and since when.
    Send(usize, Instant),
}

/// The place of a client that left while its task could not be stopped.
const NO_CLIENT: usize = usize::MAX;

impl ScanTask {
    /// The client left: what is left to do of its task.
    pub(super) fn detach(self) -> Option<Self> {
        matches!(self.stage, ScanStage::Rewrite(_)).then_some(Self { client_slot: NO_CLIENT, ..self })
    }
}

/// One line of a page.
#[derive(Clone, Copy)]
pub(super) struct ListRow {
    location: RecordLocation,
    running: bool,
}

/// The jobs of one page, in the order of ids.
pub(super) type ListPage = Vec<ListRow, LIST_PAGE>;

impl Jobs {
    /// Whether the journal must stay as it is because a page is being sent.
    pub(super) fn is_paging(&self) -> bool {
        matches!(self.control.scan, Some(ScanTask { stage: ScanStage::Send(..), .. }))
    }

    /// When the task goes on.
    pub(super) fn errand_deadline(&self, now: Instant) -> Option<Instant> {
        match &self.control.scan {
            Some(ScanTask { stage: ScanStage::Walk(_), .. }) => Some(now),
            Some(ScanTask { stage: ScanStage::Send(_, since), client_slot, .. }) => {
                Some(*since + self.page_timeout(*client_slot))
            }
            // (while it is under way it has its own line in `next_deadline`)
            Some(ScanTask { stage: ScanStage::Rewrite(_), .. }) | None if self.core.spool.is_compacting() => {
                None
            }
            Some(ScanTask { stage: ScanStage::Rewrite(_), .. }) => Some(now),
            None => self.next_scan(None).map(|_| now),
        }
    }

    /// A page must be taken; sooner if somebody else waits for his turn, or the
    /// journal is to be written anew.
    fn page_timeout(&self, client_slot: usize) -> Duration {
        let waited_for = self.next_scan(Some(client_slot)).is_some() || self.core.spool.is_compacting();
        if waited_for || self.core.spool.wants_compaction() { PAGE_PATIENCE } else { CLIENT_IDLE }
    }

    /// The client whose task is next, but for one.
    fn next_scan(&self, busy: Option<usize>) -> Option<(usize, ScanRequest)> {
        let client_slots =
            (1..=CLIENTS_MAX).map(|offset| self.control.last_scan_slot.wrapping_add(offset) % CLIENTS_MAX);
        client_slots.filter(|client_slot| Some(*client_slot) != busy).find_map(|client_slot| {
            match self.control.client_state(client_slot) {
                ClientState::ScanPending(request) => Some((client_slot, request)),
                _ => None,
            }
        })
    }

    /// Does one step.
    pub(super) fn poll_scan(&mut self, now: Instant) {
        if self.control.scan.is_none() {
            let Some((client_slot, request)) = self.next_scan(None) else { return };
            self.control.last_scan_slot = client_slot;
            self.start_scan(client_slot, request, now);
        }
        let Some(ScanTask { client_slot, request, stage }) = self.control.scan.take() else { return };
        let stage = match stage {
            ScanStage::Walk(scan) => self.walk(client_slot, request, scan, now),
            ScanStage::Rewrite(purpose) => self.check_rewrite(client_slot, request, purpose, now),
            ScanStage::Send(next, since) => self.send_page(client_slot, next, since, now),
        };
        self.control.scan = stage.map(|stage| ScanTask { client_slot, request, stage });
    }

    /// Begins an task, if it can begin now.
    fn start_scan(&mut self, client_slot: usize, request: ScanRequest, now: Instant) {
        let purpose = match request {
            ScanRequest::Retry(Target::Dead) => Purpose::Retry,
            ScanRequest::Forget(Target::Dead) => Purpose::Forget,
            _ => Purpose::Shrink,
        };
        let edits =
            matches!(request, ScanRequest::Cancel(_) | ScanRequest::Retry(_) | ScanRequest::Forget(_));
        if edits && self.core.is_stopping() {
            return self.finish_request(client_slot, now, &|out| {
                refuse(out, Code::Stopping, "the service stops");
            });
        }
        if let Some(error) = self.core.disk_health.resting_error(now).filter(|_| edits) {
            return self.finish_refused(client_slot, error, now);
        }
        if purpose != Purpose::Shrink {
            if self.core.spool.is_compacting() {
                return;
            }
            match self.core.start_rewrite(&mut self.disk, purpose, now) {
                Ok(()) => {
                    self.control.scan =
                        Some(ScanTask { client_slot, request, stage: ScanStage::Rewrite(purpose) })
                }
                Err(error) => self.finish_refused(client_slot, error, now),
            }
            return;
        }
        if edits && self.core.spool.tombstones_full() {
            if !self.core.disk_health.may_compact(now) {
                // The journal could not be written anew, so there is no room to
                // remember one more.
                self.finish_refused(client_slot, self.core.disk_health.compact_error(), now);
            }
            return;
        }
        let dead = match request {
            ScanRequest::List(filter) => filter.dead,
            ScanRequest::Cancel(_) => false,
            ScanRequest::Wait(_) | ScanRequest::Retry(_) | ScanRequest::Forget(_) => true,
        };
        let compacts = self.core.spool.is_compacting() && !self.core.is_stopping();
        if matches!(request, ScanRequest::List(_)) && compacts && !self.core.disk_health.is_failing() {
            // Nothing would be started while the one holds up the other.
            return;
        }
        self.control.page.clear();
        self.control.scan =
            Some(ScanTask { client_slot, request, stage: ScanStage::Walk(self.core.spool.scan(dead)) });
    }

    /// One step of the walk, and what follows from its end.
    #[inline(never)]
    fn walk(
        &mut self,
        client_slot: usize,
        request: ScanRequest,
        mut scan: JournalScan,
        now: Instant,
    ) -> Option<ScanStage> {
        if !self.core.spool.is_current(&scan) {
            // (the task begins again with the next turn)
            return None;
        }
        let mut found = None;
        let page = &mut *self.control.page;
        let mut visit = |met: RecordLocation| match request {
            ScanRequest::List(filter) => add_row(page, &filter, ListRow { location: met, running: false }),
            ScanRequest::Wait(id)
            | ScanRequest::Cancel(id)
            | ScanRequest::Retry(Target::Job(id))
            | ScanRequest::Forget(Target::Job(id)) => {
                if met.id == id {
                    found = Some(met);
                }
            }
            ScanRequest::Retry(Target::Dead) | ScanRequest::Forget(Target::Dead) => {}
        };
        let skip = matches!(request, ScanRequest::List(Filter { waiting: false, dead: false, .. }));
        let step = if skip {
            Ok(true)
        } else {
            self.core.spool.scan_step(&mut self.disk, self.base.scratch, &mut scan, &mut visit)
        };
        match step {
            Err(error) => self.finish_refused(client_slot, error, now),
            Ok(false) if found.is_none() => return Some(ScanStage::Walk(scan)),
            Ok(_) => match request {
                ScanRequest::List(filter) => return self.begin_page(client_slot, &filter, now),
                ScanRequest::Wait(id) => self.finish_wait(client_slot, id, found, now),
                ScanRequest::Cancel(id) => self.finish_cancel(client_slot, id, found, now),
                ScanRequest::Retry(_) => self.finish_dead(client_slot, found, true, now),
                ScanRequest::Forget(_) => self.finish_dead(client_slot, found, false, now),
            },
        }
        None
    }

    // ----- list -----------------------------------------------------------

    /// The walk is over: the window's jobs, and the head of the answer.
    fn begin_page(&mut self, client_slot: usize, filter: &Filter, now: Instant) -> Option<ScanStage> {
        for slot in self.core.spool.window().slots() {
            let running = matches!(
                slot.state,
                JobState::Running | JobState::Starting | JobState::Ended(_) | JobState::Cancelled
            );
            add_row(self.control.page, filter, ListRow { location: slot.location(), running });
        }
        let mut head = [0; 32];
        let mut out = Writer::new(&mut head);
        let _ = uwrite!(out, "ok {}\n", self.control.page.len());
        match self.control.clients.send(client_slot, out.as_bytes(), now) {
            Ok(_) => self.send_page(client_slot, 0, now, now),
            Err(_) => {
                self.drop_client(client_slot);
                None
            }
        }
    }

    /// Sends as many lines as are taken.
    #[inline(never)]
    fn send_page(
        &mut self,
        client_slot: usize,
        mut next: usize,
        since: Instant,
        now: Instant,
    ) -> Option<ScanStage> {
        while next < self.control.page.len() {
            if (since + self.page_timeout(client_slot)).is_due(now) {
                self.drop_client(client_slot);
                return None;
            }
            if self.control.clients.get(client_slot)?.is_stuck() {
                return Some(ScanStage::Send(next, since));
            }
            let mut out = Writer::new(self.base.scratch.get_mut(..READ_BYTES).unwrap_or(&mut []));
            for row in self.control.page.get(next..).unwrap_or(&[]) {
                if out.room() < RECORD_MAX_BYTES.saturating_add(64) {
                    break;
                }
                let state = match row {
                    ListRow { running: true, .. } => "running",
                    ListRow { location: RecordLocation { dead: true, .. }, .. } => "dead",
                    ListRow { .. } => "waiting",
                };
                let mut buffer = [0; RECORD_MAX_BYTES];
                let text = self.core.spool.text(&mut self.disk, row.location, &mut buffer);
                let _ = uwrite!(out, "{} {} {} ", row.location.id, state, row.location.attempt);
                out.push(text.unwrap_or(b"(its text cannot be read)"));
                out.push_str("\n");
            }
            let Ok(taken) = self.control.clients.send(client_slot, out.as_bytes(), now) else {
                self.drop_client(client_slot);
                return None;
            };
            let lines = out.as_bytes().get(..taken).unwrap_or(&[]);
            next = next.saturating_add(lines.iter().filter(|byte| **byte == b'\n').count());
        }
        self.control.set_client_state(client_slot, ClientState::Idle);
        self.close_if_finished(client_slot);
        None
    }

    // ----- single jobs ----------------------------------------------------

    fn finish_refused(&mut self, client_slot: usize, error: DiskError, now: Instant) {
        self.finish_request(client_slot, now, &|out| {
            refuse(out, error_code(error), error_text(error));
        });
    }

    /// Answers, and the client may ask again.
    fn finish_request(&mut self, client_slot: usize, now: Instant, answer: &dyn Fn(&mut Writer<'_>)) {
        let mut row = [0; 128];
        let mut out = Writer::new(&mut row);
        answer(&mut out);
        self.control.set_client_state(client_slot, ClientState::Idle);
        self.send_reply(client_slot, out.as_bytes(), now);
    }

    fn finish_no_job(&mut self, client_slot: usize, now: Instant, why: &'static str) {
        self.finish_request(client_slot, now, &|out| {
            refuse(out, Code::NoJob, why);
        });
    }

    fn finish_wait(&mut self, client_slot: usize, id: u64, found: Option<RecordLocation>, now: Instant) {
        let job_result = match found {
            Some(record) if record.dead => {
                let mut buffer = [0; RECORD_MAX_BYTES];
                match self.core.spool.outcome(&mut self.disk, record, &mut buffer) {
                    Ok(outcome) => Some(JobResult::Dead(outcome)),
                    Err(error) => return self.finish_refused(client_slot, error, now),
                }
            }
            Some(_) => None,
            None => self.core.history.result_of(id),
        };
        if let Some(job_result) = job_result {
            self.finish_request(client_slot, now, &|out| {
                out.push_str("ok ");
                job_result.describe(id, out);
                out.push_str("\n");
            });
        } else if found.is_some_and(|record| !record.dead) || self.core.spool.window().get(id).is_some() {
            self.control.set_client_state(client_slot, ClientState::AwaitingJob(id));
        } else {
            self.finish_no_job(client_slot, now, "no such job, or it ended long ago");
        }
    }

    fn finish_cancel(&mut self, client_slot: usize, id: u64, found: Option<RecordLocation>, now: Instant) {
        let cancelled = match found {
            Some(record) => {
                self.core.cancel_record(&mut self.disk, record, now).map(|()| Some(Cancelled::Waiting))
            }
            // It may have come into the window meanwhile.
            None => self.core.cancel(&mut self.disk, id, now),
        };
        match cancelled {
            Ok(Some(found @ (Cancelled::Waiting | Cancelled::Running))) => {
                self.log_cancelled(client_slot, id);
                let running = found == Cancelled::Running;
                self.reply_after_commit(client_slot, PendingReply::Cancelled(id, running));
            }
            Ok(_) => self.finish_no_job(client_slot, now, "no such job waits or runs"),
            Err(error) => self.finish_refused(client_slot, error, now),
        }
    }

    fn reply_after_commit(&mut self, client_slot: usize, pending: PendingReply) {
        self.control.set_client_state(client_slot, ClientState::Idle);
        self.control.defer_reply(client_slot, pending);
    }

    /// Logs that a client cancelled a job.
    pub(super) fn log_cancelled(&mut self, client_slot: usize, id: u64) {
        let peer = self.control.peer(client_slot);
        self.base.log.info(&|out| {
            let _ = uwrite!(out, "job {}: cancelled by uid {} (pid {})", id, peer.uid, peer.pid);
        });
    }

    /// `retry` and `forget`: all dead jobs, or a walk for one.
    pub(super) fn request_dead_jobs(
        &mut self,
        context: &mut RequestContext<'_, '_>,
        target: Target,
        request: ScanRequest,
    ) -> Reply {
        match target {
            Target::Dead if self.core.spool.dead() == 0 => {
                context.out.push_str("ok count=0\n");
                Reply::Sent
            }
            Target::Job(id) if self.core.spool.window().slots().iter().any(|slot: &Slot| slot.id == id) => {
                refuse(context.out, Code::NoJob, "it is not dead: it waits or runs")
            }
            _ => self.control.set_client_state(context.client_slot, ClientState::ScanPending(request)),
        }
    }

    fn finish_dead(&mut self, client_slot: usize, found: Option<RecordLocation>, retry: bool, now: Instant) {
        let Some(record) = found.filter(|record| record.dead) else {
            return self.finish_no_job(client_slot, now, "no such dead job");
        };
        match self.core.edit_dead(&mut self.disk, record, retry, now) {
            Ok(()) => {
                let peer = self.control.peer(client_slot);
                self.base.log.info(&|out| {
                    let what = if retry { "retried" } else { "forgotten" };
                    let _ =
                        uwrite!(out, "job {}: {} by uid {} (pid {})", record.id, what, peer.uid, peer.pid);
                });
                self.reply_after_commit(client_slot, PendingReply::Job(record.id));
            }
            Err(error) => self.finish_refused(client_slot, error, now),
        }
    }

    // ----- all dead jobs --------------------------------------------------

    /// Whether the new journal is in force.
    fn check_rewrite(
        &mut self,
        client_slot: usize,
        request: ScanRequest,
        purpose: Purpose,
        now: Instant,
    ) -> Option<ScanStage> {
        if self.core.spool.is_compacting() && self.core.spool.purpose() == purpose {
            return Some(ScanStage::Rewrite(purpose));
        }
        if self.core.spool.purpose() != purpose {
            self.finish_refused(client_slot, self.core.disk_health.compact_error(), now);
            return None;
        }
        let (count, peer) = (self.core.spool.affected_count(), self.control.peer(client_slot));
        self.core.history.forget_dead();
        self.base.log.info(&|out| {
            let what = if matches!(request, ScanRequest::Retry(_)) { "retried" } else { "forgotten" };
            let _ = uwrite!(out, "{} dead jobs {} by uid {} (pid {})", count, what, peer.uid, peer.pid);
        });
        self.control.set_client_state(client_slot, ClientState::Idle);
        self.control.defer_reply(client_slot, PendingReply::Count(count));
        None
    }
}

/// Puts a job into the page if it belongs there.
fn add_row(page: &mut ListPage, filter: &Filter, row: ListRow) {
    let matches_filter = match row {
        ListRow { running: true, .. } => filter.running,
        ListRow { location: RecordLocation { dead: true, .. }, .. } => filter.dead,
        ListRow { .. } => filter.waiting,
    };
    if row.location.id <= filter.after {
        return;
    }
    let known = page.binary_search_by_key(&row.location.id, |row| row.location.id);
    match known {
        // It has moved on since the walk met it.
        Ok(at) if matches_filter => page.get_mut(at).into_iter().for_each(|kept| *kept = row),
        Ok(_) | Err(_) if !matches_filter => {}
        Err(at) if at < LIST_PAGE => {
            if page.is_full() {
                page.pop();
            }
            let _ = page.insert(at, row);
        }
        Ok(_) | Err(_) => {}
    }
}
