//! Decides what follows if the path of the journal no longer leads to the open journal: no new
//! job is acknowledged, and the spool is made again at its path as soon as that is free.
//!
//! ```text
//!          another file or none              free: folder and lock are made
//!  Here ───────────────────────▶ Away ─────────────────────────────────────▶ Moving
//!   ▲  ▲                        │   ▲                                           │
//!   │  └────────────────────────┘   │ a step failed, or the path leads          │ all live jobs
//!   │   the open journal again      │ elsewhere once more                       │ are written
//!   │                               ├───────────────────────────────────────────┤
//!   └──────────────────────────────────────────────────────────── Emptying ◀────┘
//!        committed, and the path leads there: the old journal is emptied
//! ```
//!
//! Known jobs continue in every state, in the open journal. Clients and claims are
//! acknowledged in `Here` only. A crash before `Here` leaves each job in one journal or in
//! both, so that it runs at least once.

use super::actions::TurnNotice;
use crate::state::disk::{Disk, DiskResult, MOVED, Obstacle, PathState};
use crate::state::spool::{Spool, SpoolRules};
use crate::util::time::{Duration, Instant};

/// Time until the next look at a path that is not free.
pub(crate) const HOME_RETRY: Duration = Duration::from_ms(3000);

/// A stage of the way back to the path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(Hash))]
enum HomeStep {
    /// The path leads to the open journal, as far as it is known.
    Here,
    /// The path leads elsewhere. It is looked at again at this time.
    Away(Instant),
    /// The live jobs are being written to the path.
    Moving,
    /// The live jobs are at the path. The next commit makes that sure.
    Emptying,
}

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(Hash))]
pub struct Home {
    step: HomeStep,
    /// The log has the begin of the state, and not its end.
    logged: bool,
    /// The spool was made again since the begin of the state.
    made_again: bool,
    /// The log has an obstacle, and which. Not an `Option`, because the value is zero at first.
    obstacle: (bool, Obstacle),
}

impl Home {
    /// The path leads to the journal.
    pub(super) const HERE: Self =
        Self { step: HomeStep::Here, logged: false, made_again: false, obstacle: (false, Obstacle::Journal) };

    /// Returns true if the path leads to the open journal, as far as it is known.
    #[must_use]
    pub fn is_here(&self) -> bool {
        self.step == HomeStep::Here
    }

    /// Returns true if the next commit finishes the move.
    pub(super) fn wants_commit(&self) -> bool {
        self.step == HomeStep::Emptying
    }

    /// Checks whether a request may change the queue.
    ///
    /// # Errors
    /// Its reply could not be given.
    pub(super) fn accepts(&self) -> DiskResult {
        if self.is_here() { Ok(()) } else { Err(MOVED) }
    }

    /// Takes the result of a look at the path.
    pub(super) fn looked(&mut self, path: PathState, now: Instant) {
        match self.step {
            HomeStep::Here | HomeStep::Emptying if path.is_lost() => self.step = HomeStep::Away(now),
            HomeStep::Away(_) | HomeStep::Moving if path == PathState::Named => self.step = HomeStep::Here,
            _ => {}
        }
    }

    /// Looks at the path after a commit and before its replies. Finishes a move if the path
    /// leads to the new journal.
    ///
    /// # Errors
    /// Nothing of the commit may be acknowledged.
    pub(super) fn confirm(&mut self, disk: &mut impl Disk, now: Instant) -> DiskResult {
        if matches!(self.step, HomeStep::Away(_) | HomeStep::Moving) {
            return Err(MOVED);
        }
        self.looked(disk.journal_path(), now);
        if self.step == HomeStep::Emptying {
            // A journal that cannot be emptied leaves its jobs in two places, where they run
            // at least once.
            let _ = disk.empty_previous();
            (self.step, self.made_again) = (HomeStep::Here, true);
        }
        self.accepts()
    }

    /// Performs the next step of the way back, after the commit of a turn. `paging` is true while
    /// the journal must stay as it is.
    pub(super) fn advance(
        &mut self,
        spool: &mut Spool,
        disk: &mut impl Disk,
        paging: bool,
        now: Instant,
    ) -> Option<TurnNotice> {
        if !self.logged && !self.is_here() {
            self.logged = true;
            return Some(TurnNotice::SpoolMoved);
        }
        if !paging && let Err(obstacle) = self.step_back(spool, disk, now) {
            spool.abandon_compaction(disk);
            disk.leave_home();
            self.step = HomeStep::Away(now + HOME_RETRY);
            let known = core::mem::replace(&mut self.obstacle, (true, obstacle));
            let is_new = known != self.obstacle;
            return is_new.then_some(TurnNotice::SpoolTaken(obstacle));
        }
        if !self.logged || !self.is_here() {
            return None;
        }
        let made_again = self.made_again;
        if !made_again {
            // The path came back by itself, maybe in the middle of a move.
            spool.abandon_compaction(disk);
            disk.leave_home();
        }
        *self = Self::HERE;
        Some(TurnNotice::SpoolBack { made_again })
    }

    fn step_back(&mut self, spool: &mut Spool, disk: &mut impl Disk, now: Instant) -> Result<(), Obstacle> {
        match self.step {
            HomeStep::Away(at) if at.is_due(now) => {
                self.step = HomeStep::Away(now + HOME_RETRY);
                match disk.journal_path() {
                    PathState::Named => self.step = HomeStep::Here,
                    PathState::Unknown => {}
                    PathState::Missing | PathState::Replaced => {
                        // One that has begun writes to the folder that is gone.
                        spool.abandon_compaction(disk);
                        disk.make_home()?;
                        self.step = HomeStep::Moving;
                        spool.compact_step(disk, now).map_err(Obstacle::Failed)?;
                    }
                }
            }
            HomeStep::Moving if spool.is_compacting() => {
                spool.compact_step(disk, now).map_err(Obstacle::Failed)?;
            }
            HomeStep::Moving => self.step = HomeStep::Emptying,
            HomeStep::Here | HomeStep::Away(_) | HomeStep::Emptying => {}
        }
        Ok(())
    }

    /// Returns when the next step is due.
    pub(super) fn next_deadline(&self, paging: bool, now: Instant) -> Option<Instant> {
        match self.step {
            _ if !self.logged && !self.is_here() => Some(now),
            HomeStep::Away(at) => Some(at).filter(|_| !paging),
            HomeStep::Moving => Some(now).filter(|_| !paging),
            HomeStep::Emptying => Some(now),
            HomeStep::Here => self.logged.then_some(now),
        }
    }

    /// Makes a last attempt at the end of the service, after its last commit.
    ///
    /// # Errors
    /// [`MOVED`] if the jobs stay in the open journal, to which the path does not lead.
    pub(super) fn finish(
        &mut self,
        spool: &mut Spool,
        disk: &mut impl Disk,
        rules: &SpoolRules,
        now: Instant,
    ) -> DiskResult {
        self.looked(disk.journal_path(), now);
        if !self.is_here() {
            spool.abandon_compaction(disk);
            let made = disk.make_home().map_err(|_| MOVED);
            made.and_then(|()| spool.compact_now(disk, now))
                .and_then(|()| spool.commit(disk, rules, now))
                .map_err(|_| MOVED)?;
            self.step = HomeStep::Emptying;
        }
        self.confirm(disk, now)
    }
}
