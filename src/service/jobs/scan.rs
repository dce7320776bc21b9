//! Performs the scans that `state/jobs/scan_task.rs` decides: reads the journal, sends pages and
//! answers, and logs changes.

use super::Jobs;
use super::control::ControlServer;
use crate::limits::READ_BYTES;
use crate::service::connections;
use crate::state::clients::ClientSlot;
use crate::state::jobs::scan_task::{PageStep, ScanAction, ScanOutcome};
use crate::util::text::Writer;
use crate::util::time::Instant;
use ufmt::uwrite;

impl Jobs {
    /// Continues the scan under way, or begins the next one.
    pub(super) fn poll_scan(&mut self, now: Instant) {
        let ControlServer { replies, scans, .. } = &mut self.control;
        match scans.poll(replies, self.core, &mut self.disk, self.base.scratch, now) {
            None => {}
            Some(action) => self.perform_scan(action, now),
        }
    }

    /// Performs one action of a scan. It is not inlined, because an idle turn would then keep
    /// the buffers on its stack.
    #[inline(never)]
    fn perform_scan(&mut self, action: ScanAction, now: Instant) {
        match action {
            ScanAction::Finish(slot, outcome) => self.finish_scan(slot, outcome, now),
            ScanAction::BeginPage(slot, rows) => {
                let mut head = [0; 32];
                let mut out = Writer::new(&mut head);
                let _ = uwrite!(out, "ok {}\n", rows);
                connections::answer(self, slot, out.as_bytes(), now);
                self.send_page(slot, now);
            }
            ScanAction::SendPage(slot) => self.send_page(slot, now),
        }
    }

    /// Sends the rows of a page that the client takes.
    #[inline(never)]
    fn send_page(&mut self, slot: usize, now: Instant) {
        loop {
            let ControlServer { replies, scans, connections, .. } = &mut self.control;
            let is_stuck = connections.clients.get(slot).is_some_and(ClientSlot::is_stuck);
            match scans.next_rows(replies, self.core, is_stuck, now) {
                PageStep::Wait => return,
                PageStep::Close => return self.control.close(slot),
                PageStep::Done => {
                    replies.clear(slot);
                    return connections::close_if_finished(self, slot);
                }
                PageStep::Rows(next) => {
                    let mut out = Writer::new(self.base.scratch.get_mut(..READ_BYTES).unwrap_or(&mut []));
                    scans.push_rows(next, self.core, &mut self.disk, now, &mut out);
                    match connections.send(slot, out.as_bytes(), now) {
                        Ok(taken) => scans.rows_sent(out.as_bytes().get(..taken).unwrap_or(&[])),
                        Err(_) => return self.control.close(slot),
                    }
                }
            }
        }
    }

    /// Answers a client, now or after the commit, and logs a change.
    pub(super) fn finish_scan(&mut self, slot: usize, outcome: ScanOutcome, now: Instant) {
        if let ScanOutcome::Refused(error) = outcome {
            self.core.request_refused(error);
        }
        self.log_change(slot, outcome);
        self.control.replies.defer(slot, outcome.pending());
        let mut line = [0; 128];
        let mut out = Writer::new(&mut line);
        outcome.push(&mut out);
        if !out.is_empty() {
            connections::answer(self, slot, out.as_bytes(), now);
        }
    }

    /// Logs a change with the client that asked for it.
    pub(super) fn log_change(&mut self, slot: usize, outcome: ScanOutcome) {
        let mut text = [0; 64];
        let mut change = Writer::new(&mut text);
        outcome.describe(&mut change);
        let peer = self.control.connections.peer(slot);
        if !change.is_empty() {
            self.base.log.info(&|out| {
                out.push(change.as_bytes());
                let _ = uwrite!(out, " by uid {} (pid {})", peer.uid, peer.pid);
            });
        }
    }
}
