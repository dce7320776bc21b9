//! The clients that read the output of a job as it comes. A client that reads too slowly loses
//! lines, gets their number, and delays neither the job nor the others.

use super::Jobs;
use super::control::ControlServer;
use crate::limits::{CLIENT_OUTPUT_BYTES, CLIENTS_MAX};
use crate::state::clients::ClientSlot;
use crate::state::jobs::replies::ClientState;
use crate::util::text::{Writer, escaped_bytes};
use crate::util::time::Instant;
use ufmt::uwrite;

/// Bytes of a client's kept output that no line of output takes: the number of lost lines, and the
/// result.
const RESULT_BYTES: usize = 180;
/// Bytes of lines that are sent with one call. They fit the kept output of a client.
const BATCH_BYTES: usize = CLIENT_OUTPUT_BYTES - RESULT_BYTES;
/// Bytes of one part of a line, with its escapes.
const PART_BYTES: usize = BATCH_BYTES - 16;

/// Collects the lines of a job, and sends them to the clients that follow it.
struct OutputBatch<'a, 'b> {
    control: &'a mut ControlServer,
    id: u64,
    now: Instant,
    out: Writer<'b>,
}

impl OutputBatch<'_, '_> {
    /// Adds a line, or a part of one if it does not end there.
    fn add(&mut self, mut line: &[u8], ends: bool) {
        loop {
            let mut width = 0usize;
            let fits = line.iter().position(|byte| {
                width = width.saturating_add(if *byte == b'\\' { 4 } else { escaped_bytes(*byte) });
                width > PART_BYTES
            });
            let (part, rest) = line.split_at_checked(fits.unwrap_or(line.len())).unwrap_or((line, &[]));
            if self.out.room() < PART_BYTES.saturating_add(16) {
                self.send();
            }
            self.out.push_str(if rest.is_empty() && ends { "out " } else { "part " });
            self.out.push_reversible(part);
            self.out.push_str("\n");
            if rest.is_empty() {
                return;
            }
            line = rest;
        }
    }

    /// Sends the lines that were collected.
    fn send(&mut self) {
        for slot in 0..CLIENTS_MAX {
            if !self.out.is_empty() && self.control.replies.state(slot) == ClientState::Following(self.id) {
                self.control.send_output(slot, self.out.as_bytes(), self.now);
            }
        }
        self.out.truncate(0);
    }
}

impl ControlServer {
    /// Sends lines of output to a client, or counts them as lost if it has not taken earlier ones.
    fn send_output(&mut self, slot: usize, lines: &[u8], now: Instant) {
        self.send_lost(slot, now);
        if self.connections.clients.get(slot).is_some_and(ClientSlot::is_stuck) {
            return self.replies.add_lost(slot, lines.iter().filter(|byte| **byte == b'\n').count());
        }
        if self.connections.send(slot, lines, now).is_err() {
            self.close(slot);
        }
    }

    /// Sends the number of lines that a client has lost, unless it still takes nothing.
    pub(super) fn send_lost(&mut self, slot: usize, now: Instant) {
        if self.connections.clients.get(slot).is_none_or(ClientSlot::is_stuck) {
            return;
        }
        self.push_lost(slot, now);
    }

    /// Sends the number of lines that a client has lost. There is room for it before a result.
    pub(super) fn push_lost(&mut self, slot: usize, now: Instant) {
        let lost = self.replies.take_lost(slot);
        if lost > 0 {
            let mut line = [0; 32];
            let mut out = Writer::new(&mut line);
            let _ = uwrite!(out, "lost {}\n", lost);
            if self.connections.send(slot, out.as_bytes(), now).is_err() {
                self.close(slot);
            }
        }
    }
}

impl Jobs {
    /// Reads the output of a handler, up to one turn's share. If the handler has `ended`, reads all that
    /// is left.
    pub(super) fn read_output(&mut self, index: usize, ended: bool, now: Instant) {
        let Self { base, workers, control, .. } = self;
        let Some(worker) = workers.get_mut(index) else { return };
        if !control.replies.is_followed(worker.id) {
            return match ended {
                true => worker.finish_output(&mut base.log, base.scratch, &mut |_, _| {}),
                false => worker.read_output(&mut base.log, base.scratch, &mut |_, _| {}),
            };
        }
        let mut lines = [0; BATCH_BYTES];
        let mut batch = OutputBatch { control, id: worker.id, now, out: Writer::new(&mut lines) };
        let copy = &mut |line: &[u8], ends| batch.add(line, ends);
        match ended {
            true => worker.finish_output(&mut base.log, base.scratch, copy),
            false => worker.read_output(&mut base.log, base.scratch, copy),
        }
        batch.send();
    }
}
