//! Performs the turn that `state/jobs/turn.rs` orders: its actions, and the lines of the
//! log that its notices are worth.

use super::status::{describe_damage, log_notice, log_queue_notice, push_processing};
use super::{Jobs, PollSource};
use crate::limits::CLIENTS_MAX;
use crate::proto::journal::RECORD_MAX_BYTES;
use crate::service::disk::describe_disk;
use crate::state::jobs::replies::{ClientState, ScanRequest};
use crate::state::jobs::{ClientNeeds, TurnAction, TurnNotice};
use crate::state::spool::{IngestNotice, RecordLocation};
use crate::state::window::Slot;
use crate::sys::{Errno, clock, describe_errno};
use crate::util::time::Instant;
use ufmt::uwrite;

impl Jobs {
    /// Performs the part of a turn that needs the disk of the spool: ingest, requests, commit
    /// and starts.
    #[inline(never)]
    pub(super) fn advance(&mut self, ready: &[PollSource], now: Instant) {
        if self.core.spool.awaits_wall_clock() {
            self.core.spool.set_wall_clock(clock::wall());
        }
        self.core.begin_turn(now);
        while let Some(action) = self.next_action(now) {
            match action {
                TurnAction::FlushLog => {
                    let written = self.base.log.flush();
                    self.core.log_flushed(written);
                }
                TurnAction::NotifyWaiters => self.notify_waiters(now),
                TurnAction::ServeClients => {
                    self.serve(ready, now);
                    let commit = self.control.replies.any_pending();
                    let paging = self.control.scans.is_paging();
                    self.core.clients_served(ClientNeeds { commit, paging });
                }
                TurnAction::Reply { jobs, edits } => self.reply_after_commit(jobs, edits, now),
                TurnAction::LogDropped(location) => self.log_dropped(location),
                TurnAction::LogJob(slot) => self.log_job(&slot),
                TurnAction::StartHandler(slot) => self.start_handler(&slot, now),
                TurnAction::Signal(signal) => self.signal_handler(signal, now),
                TurnAction::SwitchQueueFile => {
                    let queue = self.base.process.config.queue_file.clone();
                    self.disk.queue.set_queue(&queue);
                    self.core.spool.claims.folder_changed();
                }
                TurnAction::Notice(notice) => self.log_turn_notice(notice),
            }
        }
    }

    /// Logs the text of a job whose handler is the log. It is not inlined, because an idle
    /// turn would then keep the buffer on its stack.
    #[inline(never)]
    fn log_job(&mut self, slot: &Slot) {
        let mut buffer = [0; RECORD_MAX_BYTES];
        if let Some(text) = self.load_job_text(slot, &mut buffer) {
            self.base.log.job(&|out| push_processing(text, out));
        }
    }

    /// Logs a dead job that is dropped, with its text.
    #[inline(never)]
    fn log_dropped(&mut self, location: RecordLocation) {
        let mut buffer = [0; RECORD_MAX_BYTES];
        let text = self.core.spool.text(&mut self.disk, location, &mut buffer);
        let most = self.base.process.config.dead_max;
        self.base.log.warn(&|out| {
            let _ = uwrite!(out, "job {} is dropped, because more than {} are dead: ", location.id, most);
            out.push_escaped(text.unwrap_or(b"(its text cannot be read)"));
        });
    }

    fn next_action(&mut self, now: Instant) -> Option<TurnAction> {
        let log = &mut self.base.log;
        let mut report = |notice: IngestNotice<'_>| log_notice(log, &notice);
        self.core.next_action(&mut self.disk, self.base.scratch, now, &mut report)
    }

    /// Logs what a turn found out about the disk.
    #[inline(never)]
    fn log_turn_notice(&mut self, notice: TurnNotice) {
        let (disk, config) = (&self.disk, &self.base.process.config);
        match notice {
            TurnNotice::DiskWorks => self.base.log.info(&|out| out.push_str("spool: works again")),
            TurnNotice::SpaceWorks => {
                self.base.log.info(&|out| out.push_str("spool: works again, new jobs are taken"))
            }
            TurnNotice::DiskFailed(error) => self.base.log.error(&|out| {
                out.push_str("spool: ");
                out.push_escaped(config.spool.as_bytes());
                out.push_str(": ");
                describe_disk(disk, error, out);
                out.push_str("; jobs wait, none is lost");
            }),
            TurnNotice::NoSpace { error, free, reserved } => self.base.log.error(&|out| {
                out.push_str("spool: no room for new jobs: ");
                out.push_escaped(config.spool.as_bytes());
                out.push_str(": ");
                describe_errno(Errno::from_raw_os_error(error.0), out);
                let (free, reserved) = (free / 1024, reserved / 1024);
                let _ = uwrite!(out, ", {} KiB free, {} kept for the queued jobs", free, reserved);
            }),
            TurnNotice::CompactionFailed(error) => self.base.log.warn(&|out| {
                out.push_str("spool: the journal cannot be written again, the old one stays in use: ");
                describe_disk(disk, error, out);
            }),
            TurnNotice::SpoolMoved => self.log_moved(),
            TurnNotice::SpoolTaken(obstacle) => self.log_obstacle(obstacle),
            TurnNotice::SpoolBack { made_again } => self.on_spool_back(made_again),
            TurnNotice::Queue(notice) => log_queue_notice(&mut self.base.log, disk, notice),
            TurnNotice::QueueFull => self.base.log.warn(&|out| {
                let most = config.queue_max;
                let _ = uwrite!(out, "queue: full, {} jobs are waiting or running, and none has ended", most);
                out.push_str("; new jobs are refused until one ends, is cancelled, or queue_max is higher");
            }),
            TurnNotice::QueueMoves => self.base.log.info(&|out| out.push_str("queue: it moves again")),
            TurnNotice::Damaged(damage) => {
                self.base.log.error(&|out| describe_damage(damage, out));
                self.recheck_waiters();
            }
        }
    }

    /// Has the journal scanned for the jobs that clients wait for, because damage may have
    /// cost them. A client of one that is lost gets the answer that there is no such job.
    fn recheck_waiters(&mut self) {
        for slot in 0..CLIENTS_MAX {
            if let ClientState::AwaitingJob(id) = self.control.replies.state(slot)
                && self.core.spool.window().get(id).is_none()
            {
                self.control.replies.set_state(slot, ClientState::ScanPending(ScanRequest::Wait(id)));
            }
        }
    }

    /// Returns the text of a job for its handler. If the text cannot be read, logs that and
    /// ends this attempt.
    pub(super) fn load_job_text<'b>(
        &mut self,
        slot: &Slot,
        buffer: &'b mut [u8; RECORD_MAX_BYTES],
    ) -> Option<&'b [u8]> {
        let result = self.core.job_text(&mut self.disk, slot, buffer);
        if let Err(error) = result {
            let disk = &self.disk;
            self.base.log.error(&|out| {
                let _ = uwrite!(out, "job {} has a text that cannot be read: ", slot.id);
                describe_disk(disk, error, out);
            });
            let report = self.core.handler_refused(slot.id);
            self.log_attempt(report);
        }
        result.ok()
    }
}
