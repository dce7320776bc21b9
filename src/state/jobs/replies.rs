//! The states of the control socket's clients, and the answers that wait for the commit at
//! the end of a turn.

use super::JobResult;
use crate::limits::CLIENTS_MAX;
use crate::proto::control::{Code, Filter, Target, push_refusal};
use crate::state::clients::Reading;
use crate::state::disk::{DiskError, DiskResult, MOVED};
use crate::util::text::Writer;
use ufmt::uwrite;

/// Maximum number of jobs that one client may add in one turn, because the replies must fit.
const CLIENT_TURN_JOBS: usize = 40;

/// The event that a client waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientState {
    /// Nothing: its next request can be handled.
    Idle,
    /// The result of a scan, which takes several turns.
    ScanPending(ScanRequest),
    /// The end of a job.
    AwaitingJob(u64),
    /// The output of a job, and its end.
    Following(u64),
    /// Every event, until it leaves.
    Watching,
    /// The end of a drain.
    Draining,
}

/// A request that needs a scan of the journal, or a new journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ScanRequest {
    /// One page of `list`.
    List(Filter),
    /// `wait` for a job that is not in the window.
    Wait(u64),
    /// `follow` of a job that is not in the window.
    Follow(u64),
    /// `cancel` of a job that is not in the window.
    Cancel(u64),
    /// `retry` of one dead job, or of all.
    Retry(Target),
    /// `forget` of one dead job, or of all.
    Forget(Target),
    /// `others`. True if a reload would make the handler the log.
    Others(bool),
}

/// An answer that waits for the commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PendingReply {
    /// No answer waits.
    None,
    /// `ok id=N` for each new job: the first id, and the number of jobs.
    Ids(u64, usize),
    /// `ok id=N`.
    Job(u64),
    /// `ok id=N` for a new job whose output the client reads.
    Followed(u64),
    /// `ok id=N was=STATE` for a cancelled job. True if the job was running.
    Cancelled(u64, bool),
    /// `ok count=N`.
    Count(u32),
    /// `ok held` or `ok resumed`.
    Held(bool),
}

/// The outcome of handling a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The answer was written.
    Sent,
    /// The answer follows later.
    Deferred,
    /// The request was not handled, and is tried again in the next turn.
    Retry,
}

/// Bytes of `ok id=N`, or of the error that each new job gets instead.
const ID_REPLY_BYTES: usize = 28;
/// Bytes that are reserved for a short answer.
const REPLY_BYTES: usize = 160;

/// The state of the client at each slot, and its pending answer.
#[derive(Clone, Debug)]
pub struct Replies {
    states: [ClientState; CLIENTS_MAX],
    pending: [PendingReply; CLIENTS_MAX],
    /// Lines of output that the client was too slow for.
    lost: [u32; CLIENTS_MAX],
}

impl Replies {
    /// No client waits for anything.
    pub const EMPTY: Self = Self {
        states: [ClientState::Idle; CLIENTS_MAX],
        pending: [PendingReply::None; CLIENTS_MAX],
        lost: [0; CLIENTS_MAX],
    };

    /// Returns what the client waits for.
    #[must_use]
    pub fn state(&self, slot: usize) -> ClientState {
        self.states.get(slot).copied().unwrap_or(ClientState::Idle)
    }

    /// Has the client wait.
    pub fn set_state(&mut self, slot: usize, state: ClientState) -> Reply {
        self.states.get_mut(slot).into_iter().for_each(|entry| *entry = state);
        Reply::Deferred
    }

    /// Returns the client's answer that waits for the commit.
    #[must_use]
    pub fn pending(&self, slot: usize) -> PendingReply {
        self.pending.get(slot).copied().unwrap_or(PendingReply::None)
    }

    /// Returns true if an answer to the client waits for the commit.
    #[must_use]
    pub fn is_pending(&self, slot: usize) -> bool {
        self.pending(slot) != PendingReply::None
    }

    /// Has an answer wait for the commit. The client waits for nothing else.
    pub fn defer(&mut self, slot: usize, pending: PendingReply) -> Reply {
        self.set_state(slot, ClientState::Idle);
        self.pending.get_mut(slot).into_iter().for_each(|entry| *entry = pending);
        Reply::Deferred
    }

    /// Has the `ok id=N` of a new job wait for the commit. The jobs that one client adds in
    /// one turn have consecutive ids.
    pub fn defer_id(&mut self, slot: usize, id: u64) -> Reply {
        let pending = match self.pending(slot) {
            PendingReply::Ids(first, count) => PendingReply::Ids(first, count.saturating_add(1)),
            _ => PendingReply::Ids(id, 1),
        };
        self.defer(slot, pending)
    }

    /// Drops the client's pending answer and returns it.
    pub fn take_pending(&mut self, slot: usize) -> PendingReply {
        let pending = self.pending(slot);
        if pending != PendingReply::None {
            self.defer(slot, PendingReply::None);
        }
        pending
    }

    /// Drops everything that the client at `slot` waits for.
    pub fn clear(&mut self, slot: usize) {
        self.take_lost(slot);
        self.defer(slot, PendingReply::None);
    }

    /// Returns true if an answer to any client waits for the commit.
    #[must_use]
    pub fn any_pending(&self) -> bool {
        self.pending.iter().any(|pending| *pending != PendingReply::None)
    }

    /// Returns true if the client waits for nothing.
    #[must_use]
    pub fn is_idle(&self, slot: usize) -> bool {
        self.state(slot) == ClientState::Idle && !self.is_pending(slot)
    }

    /// Returns the use of the client's input.
    #[must_use]
    pub fn reading(&self, slot: usize) -> Reading {
        match self.state(slot) {
            ClientState::Idle if !self.is_pending(slot) => Reading::Requests,
            // Nothing follows the events.
            ClientState::Watching => Reading::Drop,
            _ => Reading::Keep,
        }
    }

    /// Returns true if any client reads the output of job `id`.
    #[must_use]
    pub fn is_followed(&self, id: u64) -> bool {
        self.states.contains(&ClientState::Following(id))
    }

    /// Counts lines of output that the client at `slot` was too slow for.
    pub fn add_lost(&mut self, slot: usize, lines: usize) {
        let lines = u32::try_from(lines).unwrap_or(u32::MAX);
        self.lost.get_mut(slot).into_iter().for_each(|lost| *lost = lost.saturating_add(lines));
    }

    /// Returns the number of lines that the client at `slot` was too slow for since the last call.
    pub fn take_lost(&mut self, slot: usize) -> u32 {
        match self.lost.get_mut(slot) {
            // Written only then, because a write takes a page of memory.
            Some(lost) if *lost > 0 => core::mem::take(lost),
            _ => 0,
        }
    }

    /// Returns true if any client watches.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        self.states.contains(&ClientState::Watching)
    }

    /// Returns true if one more answer fits into `room` bytes together with the client's
    /// pending answers.
    #[must_use]
    pub fn fits(&self, slot: usize, room: usize) -> bool {
        let pending = match self.pending(slot) {
            PendingReply::None => 0,
            PendingReply::Ids(_, count) if count < CLIENT_TURN_JOBS => count.saturating_mul(ID_REPLY_BYTES),
            _ => return false,
        };
        room >= pending.saturating_add(REPLY_BYTES)
    }

    /// Returns the next client after slot `last` that waits for a scan, and its request.
    /// `except` is a client that does not count.
    #[must_use]
    pub fn next_scan(&self, last: usize, except: Option<usize>) -> Option<(usize, ScanRequest)> {
        let slots = (1..=CLIENTS_MAX).map(|offset| last.wrapping_add(offset) % CLIENTS_MAX);
        slots.filter(|slot| Some(*slot) != except).find_map(|slot| match self.state(slot) {
            ClientState::ScanPending(request) => Some((slot, request)),
            _ => None,
        })
    }

    /// Returns the last answer to a client when the service ends. `drained` is true if a
    /// drain was the reason.
    #[must_use]
    pub fn farewell(&self, slot: usize, drained: bool) -> &'static [u8] {
        match self.state(slot) {
            ClientState::Idle | ClientState::Watching => b"",
            ClientState::Draining if drained => b"ok drained\n",
            ClientState::ScanPending(_)
            | ClientState::AwaitingJob(_)
            | ClientState::Following(_)
            | ClientState::Draining => b"err stopping the service stops\n",
        }
    }
}

impl PendingReply {
    /// Writes the answer after the commit. `jobs` is the result for new jobs, `edits` the
    /// result for everything else.
    pub fn push(self, jobs: DiskResult, edits: DiskResult, out: &mut Writer<'_>) {
        match (self, edits) {
            (Self::None, _) => {}
            (Self::Followed(id), _) => Self::Ids(id, 1).push(jobs, edits, out),
            (Self::Ids(first, count), _) => {
                for id in (first..).take(count) {
                    match jobs {
                        Ok(()) => drop(uwrite!(out, "ok id={}\n", id)),
                        Err(error) => drop(refuse_disk(out, error)),
                    }
                }
            }
            (_, Err(error)) => {
                refuse(out, error_code(error), "done, but not on disk yet: a power cut may undo it");
            }
            (Self::Job(id), Ok(())) => drop(uwrite!(out, "ok id={}\n", id)),
            (Self::Cancelled(id, running), Ok(())) => {
                let was = if running { "running" } else { "waiting" };
                let _ = uwrite!(out, "ok id={} was={}\n", id, was);
            }
            (Self::Held(held), Ok(())) => out.push_str(if held { "ok held\n" } else { "ok resumed\n" }),
            (Self::Count(count), Ok(())) => drop(uwrite!(out, "ok count={}\n", count)),
        }
    }
}

/// Writes `err CODE TEXT`.
pub fn refuse(out: &mut Writer<'_>, code: Code, text: &'static str) -> Reply {
    push_refusal((code, text), out);
    Reply::Sent
}

/// Writes the answer of `wait`.
pub fn push_result(id: u64, result: JobResult, out: &mut Writer<'_>) {
    out.push_str("ok ");
    result.describe(id, out);
    out.push_str("\n");
}

/// Writes the refusal of a request for which the disk failed. It is short, because each of
/// many new jobs can get it.
pub fn refuse_disk(out: &mut Writer<'_>, error: DiskError) -> Reply {
    let code = error_code(error);
    let text = match code {
        Code::NoSpace => "disk full",
        _ if error == MOVED => "the spool was moved",
        _ => "disk error",
    };
    refuse(out, code, text)
}

/// Returns the code for an error of the disk.
fn error_code(error: DiskError) -> Code {
    if error.is_no_space() { Code::NoSpace } else { Code::Io }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CLIENT_OUTPUT_BYTES;
    use crate::state::disk::NO_SPACE;

    const OTHER: DiskError = DiskError(5);

    fn pushed(pending: PendingReply, jobs: DiskResult, edits: DiskResult) -> String {
        let mut bytes = [0; CLIENT_OUTPUT_BYTES];
        let mut out = Writer::new(&mut bytes);
        pending.push(jobs, edits, &mut out);
        assert!(!out.is_cut());
        String::from_utf8(out.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn new_jobs_share_one_answer_and_its_ids_follow_each_other() {
        let mut replies = Replies::EMPTY;
        assert!(replies.is_idle(3) && !replies.any_pending());
        assert_eq!(replies.defer_id(3, 17), Reply::Deferred);
        replies.defer_id(3, 18);
        replies.defer_id(5, 19);
        assert_eq!(
            (replies.pending(3), replies.pending(5)),
            (PendingReply::Ids(17, 2), PendingReply::Ids(19, 1))
        );
        assert!(!replies.is_idle(3) && replies.any_pending() && replies.state(3) == ClientState::Idle);
        assert_eq!(replies.take_pending(3), PendingReply::Ids(17, 2));
        assert_eq!((replies.take_pending(3), replies.is_idle(3)), (PendingReply::None, true));
        replies.clear(5);
        assert!(!replies.any_pending());
        replies.set_state(CLIENTS_MAX, ClientState::Watching);
        assert!(!replies.is_watched(), "there is no such slot");
    }

    #[test]
    fn an_answer_after_the_commit_says_what_was_made_durable() {
        let (ok, full, failed) = (Ok(()), Err(NO_SPACE), Err(OTHER));
        assert_eq!(pushed(PendingReply::None, ok, ok), "");
        assert_eq!(pushed(PendingReply::Ids(7, 2), ok, failed), "ok id=7\nok id=8\n");
        assert_eq!(
            pushed(PendingReply::Ids(7, 2), full, ok),
            "err no-space disk full\nerr no-space disk full\n"
        );
        assert_eq!(pushed(PendingReply::Ids(7, 1), failed, ok), "err io disk error\n");
        assert_eq!(pushed(PendingReply::Job(7), failed, ok), "ok id=7\n");
        assert_eq!(pushed(PendingReply::Cancelled(7, true), ok, ok), "ok id=7 was=running\n");
        assert_eq!(pushed(PendingReply::Cancelled(7, false), ok, ok), "ok id=7 was=waiting\n");
        assert_eq!(pushed(PendingReply::Count(3), ok, ok), "ok count=3\n");
        assert_eq!(pushed(PendingReply::Held(true), failed, ok), "ok held\n");
        assert_eq!(pushed(PendingReply::Held(false), ok, ok), "ok resumed\n");
        let undone = "done, but not on disk yet: a power cut may undo it\n";
        for pending in [PendingReply::Job(1), PendingReply::Cancelled(1, true), PendingReply::Held(true)] {
            assert_eq!(pushed(pending, ok, failed), format!("err io {undone}"));
            assert_eq!(pushed(pending, ok, full), format!("err no-space {undone}"));
        }
    }

    #[test]
    fn as_many_jobs_are_taken_in_a_turn_as_answers_fit() {
        let mut replies = Replies::EMPTY;
        assert!(replies.fits(0, REPLY_BYTES) && !replies.fits(0, REPLY_BYTES - 1));
        let largest = u64::MAX - CLIENT_TURN_JOBS as u64;
        let mut jobs = 0;
        while replies.fits(0, CLIENT_OUTPUT_BYTES) {
            replies.defer_id(0, largest);
            jobs += 1;
        }
        assert_eq!(jobs, CLIENT_TURN_JOBS);
        for result in [Ok(()), Err(NO_SPACE), Err(OTHER)] {
            let answer = pushed(replies.pending(0), result, Ok(()));
            assert!(answer.len() <= CLIENT_OUTPUT_BYTES && answer.ends_with('\n'));
            assert!(answer.lines().all(|line| line.len() < ID_REPLY_BYTES));
        }
        replies.clear(0);
        replies.defer_id(0, 1);
        assert!(!replies.fits(0, REPLY_BYTES + ID_REPLY_BYTES - 1), "its answer needs room, too");
        replies.defer(0, PendingReply::Job(1));
        assert!(!replies.fits(0, CLIENT_OUTPUT_BYTES), "nothing shares an answer with an edit");
    }

    #[test]
    fn scans_take_turns() {
        let mut replies = Replies::EMPTY;
        assert_eq!(replies.next_scan(0, None), None);
        for slot in [2, 5, 9] {
            replies.set_state(slot, ClientState::ScanPending(ScanRequest::Wait(slot as u64)));
        }
        let next = |last, except| replies.next_scan(last, except).map(|(slot, _)| slot);
        assert_eq!(
            (next(0, None), next(2, None), next(9, None), next(15, None)),
            (Some(2), Some(5), Some(2), Some(2))
        );
        assert_eq!((next(1, Some(2)), next(2, Some(5))), (Some(5), Some(9)));
        replies.clear(9);
        replies.set_state(5, ClientState::AwaitingJob(5));
        assert_eq!(replies.next_scan(2, None), Some((2, ScanRequest::Wait(2))));
        assert_eq!(replies.next_scan(2, Some(2)), None);
    }

    #[test]
    fn at_the_end_every_client_that_waits_gets_an_answer() {
        let mut replies = Replies::EMPTY;
        let mut last = |state, drained| {
            replies.set_state(1, state);
            String::from_utf8(replies.farewell(1, drained).to_vec()).unwrap()
        };
        assert_eq!(last(ClientState::Idle, true), "");
        assert_eq!(last(ClientState::Watching, false), "");
        assert_eq!(last(ClientState::Draining, true), "ok drained\n");
        for state in [
            ClientState::Draining,
            ClientState::AwaitingJob(4),
            ClientState::ScanPending(ScanRequest::Cancel(4)),
        ] {
            assert_eq!(last(state, false), "err stopping the service stops\n");
        }
    }
}
