//! What one client asked for and takes more than one turn: a walk through the
//! journal for jobs beyond the window, a page of `list`, or a new journal for
//! all dead jobs. One at a time; the others wait.

use super::control::{Doing, Owed, Wanted};
use super::history::{Fate, What};
use super::requests::{Answered, Asking, code_of, refuse, why_not};
use super::{Jobs, Stopping};
use crate::limits::{CLIENT_IDLE, CLIENTS_MAX, LIST_PAGE, PAGE_PATIENCE, READ_BYTES};
use crate::proto::control::{Code, Filter, Target};
use crate::proto::journal::RECORD_MAX_BYTES;
use crate::proto::text::Writer;
use crate::state::disk::DiskError;
use crate::state::spool::{Cancelled, Place, Purpose, Search};
use crate::state::window::{Slot, State};
use crate::util::time::{Duration, Instant};
use heapless::Vec;
use ufmt::uwrite;

/// What is being done.
pub(super) struct Errand {
    /// For whom.
    pub(super) place: usize,
    wanted: Wanted,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    /// Walking through the journal.
    Walk(Search),
    /// The journal is written anew, for all dead jobs.
    Rewrite(Purpose),
    /// Sending the page: its next line, and since when.
    Send(usize, Instant),
}

/// The place of a client that left while its errand could not be stopped.
const NOBODY: usize = usize::MAX;

impl Errand {
    /// The client left: what is left to do of its errand.
    pub(super) fn orphan(self) -> Option<Self> {
        matches!(self.stage, Stage::Rewrite(_)).then_some(Self { place: NOBODY, ..self })
    }
}

/// One line of a page.
#[derive(Clone, Copy)]
pub(super) struct Line {
    place: Place,
    running: bool,
}

/// The jobs of one page, in the order of ids.
pub(super) type Page = Vec<Line, LIST_PAGE>;

impl Jobs {
    /// Whether the journal must stay as it is because a page is being sent.
    pub(super) fn is_paging(&self) -> bool {
        matches!(self.control.errand, Some(Errand { stage: Stage::Send(..), .. }))
    }

    /// When the errand goes on.
    pub(super) fn errand_deadline(&self, now: Instant) -> Option<Instant> {
        match &self.control.errand {
            Some(Errand { stage: Stage::Walk(_), .. }) => Some(now),
            Some(Errand { stage: Stage::Send(_, since), place, .. }) => {
                Some(*since + self.page_patience(*place))
            }
            // (while it is under way it has its own line in `next_deadline`)
            Some(Errand { stage: Stage::Rewrite(_), .. }) | None if self.spool.is_compacting() => None,
            Some(Errand { stage: Stage::Rewrite(_), .. }) => Some(now),
            None => self.next_errand(None).map(|_| now),
        }
    }

    /// A page must be taken; sooner if somebody else waits for his turn, or the
    /// journal is to be written anew.
    fn page_patience(&self, place: usize) -> Duration {
        let waited_for = self.next_errand(Some(place)).is_some() || self.spool.is_compacting();
        if waited_for || self.spool.wants_compaction() { PAGE_PATIENCE } else { CLIENT_IDLE }
    }

    /// The client whose errand is next, but for one.
    fn next_errand(&self, busy: Option<usize>) -> Option<(usize, Wanted)> {
        let places =
            (1..=CLIENTS_MAX).map(|offset| self.control.last_errand.wrapping_add(offset) % CLIENTS_MAX);
        places.filter(|place| Some(*place) != busy).find_map(|place| match self.control.doing(place) {
            Doing::Asked(wanted) => Some((place, wanted)),
            _ => None,
        })
    }

    /// Does one step.
    pub(super) fn go_on_errand(&mut self, now: Instant) {
        if self.control.errand.is_none() {
            let Some((place, wanted)) = self.next_errand(None) else { return };
            self.control.last_errand = place;
            self.begin_errand(place, wanted, now);
        }
        let Some(Errand { place, wanted, stage }) = self.control.errand.take() else { return };
        let stage = match stage {
            Stage::Walk(search) => self.walk(place, wanted, search, now),
            Stage::Rewrite(purpose) => self.check_rewrite(place, wanted, purpose, now),
            Stage::Send(next, since) => self.send_page(place, next, since, now),
        };
        self.control.errand = stage.map(|stage| Errand { place, wanted, stage });
    }

    /// Begins an errand, if it can begin now.
    fn begin_errand(&mut self, place: usize, wanted: Wanted, now: Instant) {
        let purpose = match wanted {
            Wanted::Retry(Target::Dead) => Purpose::Retry,
            Wanted::Forget(Target::Dead) => Purpose::Forget,
            _ => Purpose::Shrink,
        };
        let steers = matches!(wanted, Wanted::Cancel(_) | Wanted::Retry(_) | Wanted::Forget(_));
        if steers && self.stopping != Stopping::No {
            return self.conclude(place, now, &|out| {
                refuse(out, Code::Stopping, "the service stops");
            });
        }
        if let Some((at, error)) = self.spool_failure
            && steers
            && !at.is_due(now)
        {
            return self.conclude_refused(place, error, now);
        }
        if purpose != Purpose::Shrink {
            if self.spool.is_compacting() {
                return;
            }
            let begun = self.settle(now).and_then(|()| self.spool.compact_for(purpose, &mut self.disk, now));
            match begun {
                Ok(()) => {
                    self.control.errand = Some(Errand { place, wanted, stage: Stage::Rewrite(purpose) })
                }
                Err(error) => self.conclude_refused(place, error, now),
            }
            return;
        }
        if steers && self.spool.is_steering_full() {
            if !self.compact_after.is_due(now) {
                // The journal could not be written anew, so there is no room to
                // remember one more.
                self.conclude_refused(place, self.compact_error, now);
            }
            return;
        }
        let dead = match wanted {
            Wanted::List(filter) => filter.dead,
            Wanted::Cancel(_) => false,
            Wanted::Wait(_) | Wanted::Retry(_) | Wanted::Forget(_) => true,
        };
        let compacts = self.spool.is_compacting() && self.stopping == Stopping::No;
        if matches!(wanted, Wanted::List(_)) && compacts && self.spool_failure.is_none() {
            // Nothing would be started while the one holds up the other.
            return;
        }
        self.control.page.clear();
        self.control.errand = Some(Errand { place, wanted, stage: Stage::Walk(self.spool.search(dead)) });
    }

    /// One step of the walk, and what follows from its end.
    #[inline(never)]
    fn walk(&mut self, place: usize, wanted: Wanted, mut search: Search, now: Instant) -> Option<Stage> {
        if !self.spool.is_current(&search) {
            // (the errand begins again with the next turn)
            return None;
        }
        let mut found = None;
        let page = &mut *self.control.page;
        let mut visit = |met: Place| match wanted {
            Wanted::List(filter) => offer(page, &filter, Line { place: met, running: false }),
            Wanted::Wait(id)
            | Wanted::Cancel(id)
            | Wanted::Retry(Target::Job(id))
            | Wanted::Forget(Target::Job(id)) => {
                if met.id == id {
                    found = Some(met);
                }
            }
            Wanted::Retry(Target::Dead) | Wanted::Forget(Target::Dead) => {}
        };
        let skip = matches!(wanted, Wanted::List(Filter { waiting: false, dead: false, .. }));
        let step = if skip {
            Ok(true)
        } else {
            self.spool.search_step(&mut self.disk, self.scratch, &mut search, &mut visit)
        };
        match step {
            Err(error) => self.conclude_refused(place, error, now),
            Ok(false) if found.is_none() => return Some(Stage::Walk(search)),
            Ok(_) => match wanted {
                Wanted::List(filter) => return self.begin_page(place, &filter, now),
                Wanted::Wait(id) => self.conclude_wait(place, id, found, now),
                Wanted::Cancel(id) => self.conclude_cancel(place, id, found, now),
                Wanted::Retry(_) => self.conclude_dead(place, found, true, now),
                Wanted::Forget(_) => self.conclude_dead(place, found, false, now),
            },
        }
        None
    }

    // ----- list -----------------------------------------------------------

    /// The walk is over: the window's jobs, and the head of the answer.
    fn begin_page(&mut self, place: usize, filter: &Filter, now: Instant) -> Option<Stage> {
        for slot in self.spool.window().slots() {
            let running =
                matches!(slot.state, State::Running | State::Starting | State::Ended(_) | State::Cancelled);
            offer(self.control.page, filter, Line { place: slot.place(), running });
        }
        let mut head = [0; 32];
        let mut out = Writer::new(&mut head);
        let _ = uwrite!(out, "ok {}\n", self.control.page.len());
        match self.control.clients.send(place, out.as_bytes(), now) {
            Ok(_) => self.send_page(place, 0, now, now),
            Err(_) => {
                self.drop_client(place);
                None
            }
        }
    }

    /// Sends as many lines as are taken.
    #[inline(never)]
    fn send_page(&mut self, place: usize, mut next: usize, since: Instant, now: Instant) -> Option<Stage> {
        while next < self.control.page.len() {
            if (since + self.page_patience(place)).is_due(now) {
                self.drop_client(place);
                return None;
            }
            if self.control.clients.get(place)?.is_stuck() {
                return Some(Stage::Send(next, since));
            }
            let mut out = Writer::new(self.scratch.get_mut(..READ_BYTES).unwrap_or(&mut []));
            for line in self.control.page.get(next..).unwrap_or(&[]) {
                if out.room() < RECORD_MAX_BYTES.saturating_add(64) {
                    break;
                }
                let state = match line {
                    Line { running: true, .. } => "running",
                    Line { place: Place { dead: true, .. }, .. } => "dead",
                    Line { .. } => "waiting",
                };
                let mut buffer = [0; RECORD_MAX_BYTES];
                let text = self.spool.text(&mut self.disk, line.place, &mut buffer);
                let _ = uwrite!(out, "{} {} {} ", line.place.id, state, line.place.attempt);
                out.push(text.unwrap_or(b"(its text cannot be read)"));
                out.push_str("\n");
            }
            let Ok(taken) = self.control.clients.send(place, out.as_bytes(), now) else {
                self.drop_client(place);
                return None;
            };
            let lines = out.as_bytes().get(..taken).unwrap_or(&[]);
            next = next.saturating_add(lines.iter().filter(|byte| **byte == b'\n').count());
        }
        self.control.set_doing(place, Doing::Nothing);
        self.close_if_finished(place);
        None
    }

    // ----- single jobs ----------------------------------------------------

    fn conclude_refused(&mut self, place: usize, error: DiskError, now: Instant) {
        self.conclude(place, now, &|out| {
            refuse(out, code_of(error), why_not(error));
        });
    }

    /// Answers, and the client may ask again.
    fn conclude(&mut self, place: usize, now: Instant, answer: &dyn Fn(&mut Writer<'_>)) {
        let mut line = [0; 128];
        let mut out = Writer::new(&mut line);
        answer(&mut out);
        self.control.set_doing(place, Doing::Nothing);
        self.reply(place, out.as_bytes(), now);
    }

    fn conclude_no_job(&mut self, place: usize, now: Instant, why: &'static str) {
        self.conclude(place, now, &|out| {
            refuse(out, Code::NoJob, why);
        });
    }

    fn conclude_wait(&mut self, place: usize, id: u64, found: Option<Place>, now: Instant) {
        let fate = match found {
            Some(home) if home.dead => {
                let mut buffer = [0; RECORD_MAX_BYTES];
                match self.spool.outcome(&mut self.disk, home, &mut buffer) {
                    Ok(outcome) => Some(Fate::Dead(outcome)),
                    Err(error) => return self.conclude_refused(place, error, now),
                }
            }
            Some(_) => None,
            None => self.control.history.end_of(id),
        };
        if let Some(fate) = fate {
            self.conclude(place, now, &|out| {
                out.push_str("ok ");
                fate.describe(id, out);
                out.push_str("\n");
            });
        } else if found.is_some_and(|home| !home.dead) || self.spool.window().get(id).is_some() {
            self.control.set_doing(place, Doing::Waiting(id));
        } else {
            self.conclude_no_job(place, now, "no such job, or it ended long ago");
        }
    }

    fn conclude_cancel(&mut self, place: usize, id: u64, found: Option<Place>, now: Instant) {
        let cancelled = match found {
            Some(home) => self.spool.drop_home(&mut self.disk, now, home).map(|()| Some(Cancelled::Waiting)),
            // It may have come into the window meanwhile.
            None => self.settle(now).and_then(|()| self.spool.cancel(&mut self.disk, now, id)),
        };
        match cancelled {
            Ok(Some(found @ (Cancelled::Waiting | Cancelled::Running))) => {
                let running = self.on_cancelled(place, id, found, now);
                self.owe_at_last(place, Owed::Cancelled(id, running));
            }
            Ok(_) => self.conclude_no_job(place, now, "no such job waits or runs"),
            Err(error) => self.conclude_refused(place, error, now),
        }
    }

    fn owe_at_last(&mut self, place: usize, owed: Owed) {
        self.control.set_doing(place, Doing::Nothing);
        self.control.owe(place, owed);
    }

    /// A job is cancelled in the journal: its handler is ended, and those who
    /// wait for it are told. Returns whether it was running.
    pub(super) fn on_cancelled(&mut self, place: usize, id: u64, found: Cancelled, now: Instant) -> bool {
        let peer = self.control.peer(place);
        self.log.info(&|out| {
            let _ = uwrite!(out, "job {}: cancelled by uid {} (pid {})", id, peer.uid, peer.pid);
        });
        if found == Cancelled::Running {
            let grace = self.process.config.stop_timeout;
            if let Some(worker) = self.workers.iter_mut().find(|worker| worker.id == id) {
                worker.terminate(now, grace);
                return true;
            }
            self.spool.returned(id);
        }
        self.note_event(id, What::Ended(Fate::Cancelled), Duration::ZERO, now);
        false
    }

    /// `retry` and `forget`: all dead jobs, or a walk for one.
    pub(super) fn steer_dead(
        &mut self,
        asking: &mut Asking<'_, '_>,
        target: Target,
        wanted: Wanted,
    ) -> Answered {
        match target {
            Target::Dead if self.spool.dead() == 0 => {
                asking.out.push_str("ok count=0\n");
                Answered::Now
            }
            Target::Job(id) if self.spool.window().slots().iter().any(|slot: &Slot| slot.id == id) => {
                refuse(asking.out, Code::NoJob, "it is not dead: it waits or runs")
            }
            _ => self.control.set_doing(asking.place, Doing::Asked(wanted)),
        }
    }

    fn conclude_dead(&mut self, place: usize, found: Option<Place>, retry: bool, now: Instant) {
        let Some(home) = found.filter(|home| home.dead) else {
            return self.conclude_no_job(place, now, "no such dead job");
        };
        let done = if retry {
            self.spool.retry(&mut self.disk, now, home)
        } else {
            self.spool.drop_home(&mut self.disk, now, home)
        };
        match done {
            Ok(()) => {
                self.control.history.forget(home.id);
                let peer = self.control.peer(place);
                self.log.info(&|out| {
                    let what = if retry { "retried" } else { "forgotten" };
                    let _ = uwrite!(out, "job {}: {} by uid {} (pid {})", home.id, what, peer.uid, peer.pid);
                });
                self.owe_at_last(place, Owed::Job(home.id));
            }
            Err(error) => self.conclude_refused(place, error, now),
        }
    }

    // ----- all dead jobs --------------------------------------------------

    /// Whether the new journal is in force.
    fn check_rewrite(
        &mut self,
        place: usize,
        wanted: Wanted,
        purpose: Purpose,
        now: Instant,
    ) -> Option<Stage> {
        if self.spool.is_compacting() && self.spool.purpose() == purpose {
            return Some(Stage::Rewrite(purpose));
        }
        if self.spool.purpose() != purpose {
            self.conclude_refused(place, self.compact_error, now);
            return None;
        }
        let (count, peer) = (self.spool.raised(), self.control.peer(place));
        self.control.history.forget_dead();
        self.log.info(&|out| {
            let what = if matches!(wanted, Wanted::Retry(_)) { "retried" } else { "forgotten" };
            let _ = uwrite!(out, "{} dead jobs {} by uid {} (pid {})", count, what, peer.uid, peer.pid);
        });
        self.control.set_doing(place, Doing::Nothing);
        self.control.owe(place, Owed::Count(count));
        None
    }
}

/// Puts a job into the page if it belongs there.
fn offer(page: &mut Page, filter: &Filter, line: Line) {
    let wanted = match line {
        Line { running: true, .. } => filter.running,
        Line { place: Place { dead: true, .. }, .. } => filter.dead,
        Line { .. } => filter.waiting,
    };
    if line.place.id <= filter.after {
        return;
    }
    let known = page.binary_search_by_key(&line.place.id, |line| line.place.id);
    match known {
        // It has moved on since the walk met it.
        Ok(at) if wanted => page.get_mut(at).into_iter().for_each(|kept| *kept = line),
        Ok(_) | Err(_) if !wanted => {}
        Err(at) if at < LIST_PAGE => {
            if page.is_full() {
                page.pop();
            }
            let _ = page.insert(at, line);
        }
        Ok(_) | Err(_) => {}
    }
}
