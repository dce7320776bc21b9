//! The replies that wait for the commit of a turn.

use super::Jobs;
use super::control::PendingReply;
use super::requests::{error_code, error_text, refuse};
use crate::limits::{CLIENT_OUTPUT_BYTES, CLIENTS_MAX};
use crate::state::disk::DiskError;
use crate::util::text::Writer;
use crate::util::time::Instant;
use ufmt::uwrite;

impl Jobs {
    /// Sends the replies that waited for the commit.
    #[inline(never)]
    pub(super) fn send_pending_replies(
        &mut self,
        jobs: Result<(), DiskError>,
        edits: Result<(), DiskError>,
        now: Instant,
    ) {
        for client_slot in 0..CLIENTS_MAX {
            let pending = self.control.pending_reply(client_slot);
            if pending == PendingReply::None {
                continue;
            }
            self.control.defer_reply(client_slot, PendingReply::None);
            let mut answers = [0; CLIENT_OUTPUT_BYTES];
            let mut out = Writer::new(&mut answers);
            push_reply(
                pending,
                if matches!(pending, PendingReply::Ids(..)) { jobs } else { edits },
                &mut out,
            );
            self.send_reply(client_slot, out.as_bytes(), now);
        }
    }

    /// Sends an answer that was waited for.
    pub(super) fn send_reply(&mut self, client_slot: usize, answer: &[u8], now: Instant) {
        match self.control.clients.send(client_slot, answer, now) {
            Ok(_) => self.close_if_finished(client_slot),
            Err(_) => self.drop_client(client_slot),
        }
    }
}

/// The answer after the commit.
fn push_reply(pending: PendingReply, durable: Result<(), DiskError>, out: &mut Writer<'_>) {
    match (pending, durable) {
        (PendingReply::None, _) => {}
        (PendingReply::Ids(first, count), Ok(())) => {
            for id in (first..).take(count) {
                let _ = uwrite!(out, "ok id={}\n", id);
            }
        }
        (PendingReply::Ids(_, count), Err(error)) => {
            for _ in 0..count {
                refuse(out, error_code(error), error_text(error));
            }
        }
        (PendingReply::Job(id), Ok(())) => {
            let _ = uwrite!(out, "ok id={}\n", id);
        }
        (PendingReply::Cancelled(id, running), Ok(())) => {
            let was = if running { "running" } else { "waiting" };
            let _ = uwrite!(out, "ok id={} was={}\n", id, was);
        }
        (PendingReply::Count(count), Ok(())) => {
            let _ = uwrite!(out, "ok count={}\n", count);
        }
        (PendingReply::Job(_) | PendingReply::Cancelled(..) | PendingReply::Count(_), Err(error)) => {
            refuse(out, error_code(error), "done, but not on disk yet: a power cut may undo it");
        }
    }
}
