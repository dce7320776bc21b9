//! When a supervised service is started, told to end, killed, and left alone.
//!
//! One [`Ward`] per service. It is told what was seen, and answers with what is to
//! be done; it touches nothing.
//!
//! ```text
//!             look: held by P            3 bad looks            kill_at
//! Waiting ◀───────────────▶ Running ───────────────▶ Ending ─────────▶ Killed
//!   │ ▲  start                │ gone                   │ gone            │ gone
//!   ▼ └──────── died ◀────────┴────────────────────────┴─────────────────┘
//! Starting ── ready ─▶ Running          Killed ── too long ─▶ Unkillable ─ gone ─▶
//! Stopped: gone, and its PID file missing or empty: it was stopped on purpose
//! ```
//!
//! What nobody may do is taken from the lock of the PID file, never from what is
//! written in it; the caller asks it for each look.

use crate::limits::{
    LEAVE_GRACE_MS, RESTART_DELAY_MAX_MS, RESTART_DELAY_MS, RESTART_QUICK_MS, UNKILLABLE_MS,
};
use crate::state::backoff::delay_ms;

/// What is wrong with a service that runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// Its heartbeat is this many milliseconds old.
    Stale(u64),
    /// The heartbeat is of an earlier boot.
    OtherBoot,
    /// The heartbeat is of another process.
    OtherPid,
    /// The heartbeat is dated later than now.
    Future,
    /// The health file is not a heartbeat.
    Unreadable,
    /// There is no health file.
    Missing,
    /// It was started, and is not ready.
    NotReady,
}

/// What a look at a service found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Look {
    /// This process holds the lock; its heartbeat is fresh, or what is wrong.
    Held(u32, Result<(), Trouble>),
    /// Nobody holds the lock; the PID file is still filled.
    Died,
    /// Nobody holds the lock; the PID file is empty or missing.
    Free,
}

/// How a child of ours ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// With this status.
    Code(u8),
    /// By this signal.
    Signal(u8),
    /// Nobody knows: it was not our child.
    Unknown,
    /// It did not even begin.
    NotStarted,
}

/// The rules that the configuration sets.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Bad looks in a row until the service is told to end.
    pub failures: u32,
    /// From TERM to KILL.
    pub stop_timeout_ms: u64,
    /// How long a start may take until looks at it are bad.
    pub stale_after_ms: u64,
}

/// Where a service stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// It is to be started at this time.
    Waiting(u64),
    /// Our child of this PID was started at this time.
    Starting(u32, u64),
    /// This process runs; since when we know it.
    Running(u32, u64),
    /// It was told to end; KILL follows at this time.
    Ending(u32, u64),
    /// It was killed at this time, and is not gone.
    Killed(u32, u64),
    /// It was killed long ago, and is not gone.
    Unkillable(u32),
    /// Somebody stopped it on purpose.
    Stopped,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Nothing.
    None,
    /// Start it; answered by [`Ward::on_started`] or [`Ward::on_not_started`].
    Start,
    /// Send TERM to the holder of the lock, if it is this process.
    Terminate(u32),
    /// Send KILL to the holder of the lock, if it is this process.
    Kill(u32),
}

/// What is to be told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report {
    /// It runs already, as this process.
    Adopted(u32),
    /// It is ready, as this process.
    Ready(u32),
    /// The first bad look of a row.
    Unwell(Trouble),
    /// The last one that was allowed: it is told to end.
    GivenUp(Trouble),
    /// It is well again.
    Recovered,
    /// It did not end in time, and is killed.
    Killing,
    /// It does not end, though it was killed.
    Unkillable,
    /// It ended so, and is started again after this many milliseconds.
    Died(Ended, u64),
    /// Somebody stopped it.
    Stopped,
}

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Ward {
    phase: Phase,
    /// Bad looks in a row.
    bad_looks: u32,
    /// Lives in a row that were short.
    short_lives: u32,
    /// Since when it is not well.
    unwell_since: Option<u64>,
    /// It is not to be started again.
    leaving: bool,
}

/// An answer.
pub type Answer = (Action, Option<Report>);

/// Nothing to do, nothing to tell.
const NOTHING: Answer = (Action::None, None);

impl Ward {
    /// One that is started, or adopted, with the first look.
    #[must_use]
    pub const fn new(now: u64) -> Self {
        Self {
            phase: Phase::Waiting(now),
            bad_looks: 0,
            short_lives: 0,
            unwell_since: Some(now),
            leaving: false,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether a board that cannot heal this should be reset: it was hung or dead
    /// for longer than `patience_ms`, or cannot be killed.
    #[must_use]
    pub fn is_hopeless(&self, now: u64, patience_ms: u64) -> bool {
        let unkillable = matches!(self.phase, Phase::Unkillable(_));
        let unwell = !self.has_settled(now)
            && self.unwell_since.is_some_and(|since| now.saturating_sub(since) > patience_ms);
        unkillable || unwell
    }

    /// Whether it runs well, and has done so for long enough that its next end is
    /// not one of a row.
    fn has_settled(&self, now: u64) -> bool {
        self.bad_looks == 0
            && matches!(self.phase, Phase::Running(_, since) if now.saturating_sub(since) >= RESTART_QUICK_MS)
    }

    /// Forgets earlier troubles if they are over. One that keeps dying is not well
    /// as soon as it is ready.
    fn note_recovery(&mut self, now: u64) {
        if self.has_settled(now) {
            self.short_lives = 0;
        }
        if self.short_lives == 0 && self.bad_looks == 0 {
            self.unwell_since = None;
        }
    }

    /// Whether nothing of it is left that is known.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.pid().is_none()
    }

    /// Whether there is nothing to wait for any more before the supervisor goes.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_gone() || matches!(self.phase, Phase::Unkillable(_))
    }

    /// The process that is known.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match self.phase {
            Phase::Starting(pid, _)
            | Phase::Running(pid, _)
            | Phase::Ending(pid, _)
            | Phase::Killed(pid, _)
            | Phase::Unkillable(pid) => Some(pid),
            Phase::Waiting(_) | Phase::Stopped => None,
        }
    }

    /// When it needs attention before the next look.
    #[must_use]
    pub fn next_deadline(&self) -> Option<u64> {
        match self.phase {
            Phase::Waiting(at) | Phase::Ending(_, at) => Some(at),
            Phase::Killed(_, at) => Some(at.saturating_add(UNKILLABLE_MS)),
            Phase::Starting(..) | Phase::Running(..) | Phase::Unkillable(_) | Phase::Stopped => None,
        }
    }

    /// What is due at `now`.
    pub fn on_deadline(&mut self, now: u64) -> Answer {
        match self.phase {
            Phase::Waiting(at) if now >= at => (Action::Start, None),
            Phase::Ending(pid, at) if now >= at => {
                self.phase = Phase::Killed(pid, now);
                (Action::Kill(pid), Some(Report::Killing))
            }
            Phase::Killed(pid, at) if now >= at.saturating_add(UNKILLABLE_MS) => {
                self.phase = Phase::Unkillable(pid);
                (Action::None, Some(Report::Unkillable))
            }
            _ => NOTHING,
        }
    }

    /// It was started as our child.
    pub fn on_started(&mut self, now: u64, pid: u32) {
        self.phase = Phase::Starting(pid, now);
        self.bad_looks = 0;
    }

    /// It could not even be started.
    pub fn on_not_started(&mut self, now: u64) -> Answer {
        self.died(now, now, Ended::NotStarted)
    }

    /// Our child says that it is ready.
    pub fn on_ready(&mut self) -> Answer {
        let Phase::Starting(pid, since) = self.phase else { return NOTHING };
        self.phase = Phase::Running(pid, since);
        self.bad_looks = 0;
        self.note_recovery(since);
        (Action::None, Some(Report::Ready(pid)))
    }

    /// The supervisor stops, and it with it. It gets a little longer than
    /// `stop_timeout`, because it may itself have to wait that long.
    pub fn on_leave(&mut self, now: u64, rules: &Rules) -> Answer {
        self.leaving = true;
        match self.phase {
            Phase::Starting(pid, _) | Phase::Running(pid, _) => {
                let patience = rules.stop_timeout_ms.saturating_add(LEAVE_GRACE_MS);
                self.phase = Phase::Ending(pid, now.saturating_add(patience));
                (Action::Terminate(pid), None)
            }
            Phase::Ending(..) | Phase::Killed(..) | Phase::Unkillable(_) => NOTHING,
            Phase::Waiting(_) | Phase::Stopped => {
                self.phase = Phase::Stopped;
                NOTHING
            }
        }
    }

    /// The supervisor is told a second time to stop: no more patience.
    pub fn on_hurry(&mut self, now: u64) -> Answer {
        match self.phase {
            Phase::Starting(pid, _) | Phase::Running(pid, _) | Phase::Ending(pid, _) => {
                self.phase = Phase::Killed(pid, now);
                (Action::Kill(pid), Some(Report::Killing))
            }
            _ => NOTHING,
        }
    }

    /// Somebody asks that it is started again: one who was stopped is.
    pub fn on_wanted(&mut self, now: u64) {
        if self.phase == Phase::Stopped {
            self.phase = Phase::Waiting(now);
        }
    }

    /// The process `pid` is gone; `look` is what its PID file says since.
    pub fn on_gone(&mut self, now: u64, pid: u32, ended: Ended, look: Look) -> Answer {
        if self.pid() != Some(pid) {
            return NOTHING;
        }
        let since = match self.phase {
            Phase::Starting(_, since) | Phase::Running(_, since) => since,
            // It had its time: its end is ours.
            _ => 0,
        };
        if self.leaving {
            self.phase = Phase::Stopped;
            return NOTHING;
        }
        match look {
            Look::Held(other, _) if other != pid => self.adopt(now, other),
            Look::Free if !self.is_ours_to_end() && is_deliberate(self.phase, ended) => {
                (self.phase, self.unwell_since) = (Phase::Stopped, None);
                (Action::None, Some(Report::Stopped))
            }
            _ => self.died(now, since, ended),
        }
    }

    /// Whether its end is our own doing.
    fn is_ours_to_end(&self) -> bool {
        matches!(self.phase, Phase::Ending(..) | Phase::Killed(..) | Phase::Unkillable(_))
    }

    /// A look at it, each `check_interval`.
    pub fn on_look(&mut self, now: u64, look: Look, rules: &Rules) -> Answer {
        match (self.phase, look) {
            (Phase::Waiting(_) | Phase::Stopped, Look::Held(..)) if self.leaving => NOTHING,
            (Phase::Waiting(_) | Phase::Stopped, Look::Held(pid, _)) => self.adopt(now, pid),
            (Phase::Waiting(_) | Phase::Stopped, Look::Died | Look::Free) => NOTHING,
            (Phase::Starting(pid, since), _) => {
                let late = now.saturating_sub(since) > rules.stale_after_ms;
                if late { self.bad_look(now, pid, Trouble::NotReady, rules) } else { NOTHING }
            }
            (Phase::Running(pid, _), Look::Held(holder, health)) if holder == pid => match health {
                Ok(()) => self.good_look(now),
                Err(trouble) => self.bad_look(now, pid, trouble, rules),
            },
            // It is another process, or gone and we were not told.
            (
                Phase::Running(..) | Phase::Ending(..) | Phase::Killed(..) | Phase::Unkillable(_),
                Look::Held(holder, _),
            ) => {
                if self.pid() == Some(holder) {
                    NOTHING
                } else {
                    self.adopt(now, holder)
                }
            }
            (
                Phase::Running(pid, _)
                | Phase::Ending(pid, _)
                | Phase::Killed(pid, _)
                | Phase::Unkillable(pid),
                Look::Died | Look::Free,
            ) => self.on_gone(now, pid, Ended::Unknown, look),
        }
    }

    fn good_look(&mut self, now: u64) -> Answer {
        let was_unwell = core::mem::take(&mut self.bad_looks) > 0;
        self.note_recovery(now);
        (Action::None, was_unwell.then_some(Report::Recovered))
    }

    fn bad_look(&mut self, now: u64, pid: u32, trouble: Trouble, rules: &Rules) -> Answer {
        self.note_recovery(now);
        self.unwell_since.get_or_insert(now);
        self.bad_looks = self.bad_looks.saturating_add(1);
        if self.bad_looks < rules.failures {
            return (Action::None, (self.bad_looks == 1).then_some(Report::Unwell(trouble)));
        }
        self.phase = Phase::Ending(pid, now.saturating_add(rules.stop_timeout_ms));
        (Action::Terminate(pid), Some(Report::GivenUp(trouble)))
    }

    fn adopt(&mut self, now: u64, pid: u32) -> Answer {
        self.phase = Phase::Running(pid, now);
        self.bad_looks = 0;
        self.note_recovery(now);
        (Action::None, Some(Report::Adopted(pid)))
    }

    /// It lives no more: when it is started again.
    fn died(&mut self, now: u64, since: u64, ended: Ended) -> Answer {
        self.note_recovery(now);
        self.unwell_since.get_or_insert(now);
        self.bad_looks = 0;
        if now.saturating_sub(since) >= RESTART_QUICK_MS {
            self.short_lives = 0;
        }
        let delay = match self.short_lives {
            0 => 0,
            lives => delay_ms(RESTART_DELAY_MS, lives, RESTART_DELAY_MAX_MS),
        };
        self.short_lives = self.short_lives.saturating_add(1);
        self.phase = Phase::Waiting(now.saturating_add(delay));
        (Action::None, Some(Report::Died(ended, delay)))
    }
}

/// Whether an end that left no PID file, or an empty one, was a stop. A start that
/// fails leaves none either, but says so; and of the signals only KILL is one
/// that `zigsvc stop` sends to the end.
fn is_deliberate(phase: Phase, ended: Ended) -> bool {
    match ended {
        Ended::Code(code) => code == 0 || !matches!(phase, Phase::Starting(..)),
        Ended::Signal(signal) => signal == KILL && !matches!(phase, Phase::Starting(..)),
        Ended::Unknown | Ended::NotStarted => true,
    }
}

/// SIGKILL (signal(7)).
const KILL: u8 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { failures: 3, stop_timeout_ms: 10_000, stale_after_ms: 15_000 };
    const STALE: Look = Look::Held(7, Err(Trouble::Stale(20_000)));
    const WELL: Look = Look::Held(7, Ok(()));

    /// One that runs as process 7 since `now`.
    fn running(now: u64) -> Ward {
        let mut ward = Ward::new(now);
        assert_eq!(ward.on_deadline(now), (Action::Start, None));
        ward.on_started(now, 7);
        assert_eq!(ward.on_ready(), (Action::None, Some(Report::Ready(7))));
        ward
    }

    #[test]
    fn the_third_bad_look_in_a_row_ends_it_and_a_good_one_resets_the_count() {
        let mut ward = running(0);
        let unwell = (Action::None, Some(Report::Unwell(Trouble::Stale(20_000))));
        assert_eq!(ward.on_look(1, STALE, &RULES), unwell);
        assert_eq!(ward.on_look(2, STALE, &RULES), NOTHING);
        assert_eq!(ward.on_look(3, WELL, &RULES), (Action::None, Some(Report::Recovered)));
        assert_eq!(ward.on_look(4, WELL, &RULES), NOTHING);
        assert_eq!(ward.on_look(5, STALE, &RULES), unwell);
        assert_eq!(ward.on_look(6, STALE, &RULES), NOTHING);
        let given_up = (Action::Terminate(7), Some(Report::GivenUp(Trouble::Stale(20_000))));
        assert_eq!(ward.on_look(7, STALE, &RULES), given_up);
        assert_eq!(ward.on_look(8, STALE, &RULES), NOTHING, "it has time to end");
        assert_eq!(ward.on_deadline(10_006), NOTHING);
        assert_eq!(ward.on_deadline(10_007), (Action::Kill(7), Some(Report::Killing)));
        assert_eq!(ward.on_deadline(10_008), NOTHING);
        let died = (Action::None, Some(Report::Died(Ended::Signal(9), 0)));
        assert_eq!(ward.on_gone(10_010, 7, Ended::Signal(9), Look::Died), died);
        assert_eq!(ward.on_deadline(10_010), (Action::Start, None), "at once");
    }

    #[test]
    fn each_trouble_counts_and_is_named() {
        for trouble in
            [Trouble::OtherBoot, Trouble::OtherPid, Trouble::Future, Trouble::Unreadable, Trouble::Missing]
        {
            let mut ward = running(0);
            let bad = Look::Held(7, Err(trouble));
            assert_eq!(ward.on_look(1, bad, &RULES).1, Some(Report::Unwell(trouble)));
            ward.on_look(2, bad, &RULES);
            assert_eq!(ward.on_look(3, bad, &RULES).0, Action::Terminate(7));
        }
    }

    #[test]
    fn what_keeps_dying_is_restarted_more_and_more_slowly_and_never_given_up() {
        let mut ward = running(0);
        let mut delays = Vec::new();
        let mut now = 0;
        for _ in 0..10 {
            now += 100;
            let (_, report) = ward.on_gone(now, 7, Ended::Code(1), Look::Died);
            let Some(Report::Died(Ended::Code(1), delay)) = report else { panic!("{report:?}") };
            delays.push(delay / 1000);
            assert_eq!(ward.on_deadline(now + delay.saturating_sub(1)).0 == Action::Start, delay == 0);
            now += delay;
            assert_eq!(ward.on_deadline(now), (Action::Start, None));
            ward.on_started(now, 7);
            ward.on_ready();
        }
        assert_eq!(delays, [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        now += RESTART_QUICK_MS;
        assert_eq!(ward.on_gone(now, 7, Ended::Code(1), Look::Died).1, Some(Report::Died(Ended::Code(1), 0)));
    }

    #[test]
    fn a_deliberate_stop_is_respected_until_somebody_starts_it() {
        let mut ward = running(0);
        let stopped = (Action::None, Some(Report::Stopped));
        assert_eq!(ward.on_gone(5, 7, Ended::Code(0), Look::Free), stopped);
        assert_eq!((ward.on_deadline(1_000_000), ward.next_deadline()), (NOTHING, None));
        assert_eq!(ward.on_look(6, Look::Free, &RULES), NOTHING);
        assert!(!ward.is_hopeless(u64::MAX, 0), "it is as it should be");
        assert_eq!(ward.on_look(7, Look::Held(8, Ok(())), &RULES), (Action::None, Some(Report::Adopted(8))));
        // An adopted one is not our child: only the PID file tells.
        assert_eq!(ward.on_gone(9, 8, Ended::Unknown, Look::Free), stopped);
        ward.on_wanted(10);
        assert_eq!(ward.on_deadline(10), (Action::Start, None));
    }

    #[test]
    fn a_start_that_fails_is_no_stop_though_it_leaves_no_pid_file() {
        let mut ward = Ward::new(0);
        ward.on_deadline(0);
        ward.on_started(0, 7);
        let report = ward.on_gone(1, 7, Ended::Code(6), Look::Free).1;
        assert_eq!(report, Some(Report::Died(Ended::Code(6), 0)));
        assert_eq!(ward.on_deadline(1), (Action::Start, None));
        assert_eq!(ward.on_not_started(1).1, Some(Report::Died(Ended::NotStarted, 1000)));
    }

    #[test]
    fn one_that_is_never_ready_is_ended_too() {
        let mut ward = Ward::new(0);
        ward.on_deadline(0);
        ward.on_started(0, 7);
        assert_eq!(ward.on_look(15_000, Look::Free, &RULES), NOTHING);
        assert_eq!(ward.on_look(15_001, WELL, &RULES).1, Some(Report::Unwell(Trouble::NotReady)));
        ward.on_look(15_002, WELL, &RULES);
        assert_eq!(ward.on_look(15_003, WELL, &RULES).0, Action::Terminate(7));
    }

    #[test]
    fn a_running_one_is_adopted_and_another_holder_replaces_it() {
        let mut ward = Ward::new(0);
        assert_eq!(ward.on_look(0, WELL, &RULES), (Action::None, Some(Report::Adopted(7))));
        assert_eq!(ward.next_deadline(), None, "nothing is started");
        assert_eq!(ward.on_look(1, Look::Held(8, Ok(())), &RULES).1, Some(Report::Adopted(8)));
        assert_eq!(ward.on_gone(2, 7, Ended::Code(0), Look::Free), NOTHING, "an older one");
        assert_eq!(ward.on_look(3, Look::Died, &RULES).1, Some(Report::Died(Ended::Unknown, 0)));
        // Our start was too late: somebody else's is adopted.
        ward.on_deadline(3);
        ward.on_started(3, 9);
        assert_eq!(ward.on_gone(4, 9, Ended::Code(1), WELL).1, Some(Report::Adopted(7)));
    }

    #[test]
    fn the_watchdog_is_let_go_for_what_stays_unwell_or_cannot_be_killed() {
        let mut ward = running(0);
        assert!(!ward.is_hopeless(u64::MAX, 0));
        ward.on_look(1000, STALE, &RULES);
        assert!(!ward.is_hopeless(301_000, 300_000) && ward.is_hopeless(301_001, 300_000));
        ward.on_look(2000, STALE, &RULES);
        ward.on_look(3000, STALE, &RULES);
        ward.on_deadline(13_000);
        assert_eq!((ward.next_deadline(), ward.on_deadline(17_999)), (Some(18_000), NOTHING));
        assert!(!ward.is_hopeless(17_999, 300_000));
        assert_eq!(ward.on_deadline(18_000), (Action::None, Some(Report::Unkillable)));
        assert!(ward.is_hopeless(18_000, 300_000) && ward.is_over() && !ward.is_gone());
        assert_eq!((ward.next_deadline(), ward.on_deadline(99_999)), (None, NOTHING));
        ward.on_gone(18_002, 7, Ended::Signal(9), Look::Died);
        assert!(!ward.is_hopeless(18_003, 300_000), "it is gone, but was it ever well?");
        assert!(ward.is_hopeless(400_000, 300_000), "it was not");
    }

    #[test]
    fn one_that_keeps_dying_is_hopeless_though_it_is_ready_each_time() {
        let mut ward = running(0);
        let mut now = 0;
        while !ward.is_hopeless(now, 300_000) {
            now += 1000;
            let (_, report) = ward.on_gone(now, 7, Ended::Signal(11), Look::Died);
            let Some(Report::Died(_, delay)) = report else { panic!("{report:?}") };
            now += delay;
            ward.on_deadline(now);
            ward.on_started(now, 7);
            ward.on_ready();
            assert!(now < 400_000);
        }
        assert!(now > 300_000);
        let now = now + RESTART_QUICK_MS;
        assert!(!ward.is_hopeless(now, 300_000), "it lives");
        ward.on_look(now, STALE, &RULES);
        assert!(!ward.is_hopeless(now + 300_000, 300_000) && ward.is_hopeless(now + 300_001, 300_000));
    }

    #[test]
    fn when_the_supervisor_leaves_nothing_is_started_any_more() {
        let mut ward = running(0);
        assert_eq!(ward.on_leave(5, &RULES).0, Action::Terminate(7));
        assert_eq!(ward.on_leave(6, &RULES), NOTHING);
        assert_eq!(ward.on_deadline(12_004), NOTHING, "it waits for its own handlers");
        assert_eq!(ward.on_deadline(12_005), (Action::Kill(7), Some(Report::Killing)));
        assert_eq!(ward.on_gone(12_006, 7, Ended::Signal(9), Look::Died), NOTHING);
        assert!(ward.is_gone() && ward.is_over());
        assert_eq!(ward.on_look(12_007, Look::Held(8, Ok(())), &RULES), NOTHING);
        let mut waiting = Ward::new(0);
        assert_eq!(waiting.on_leave(0, &RULES), NOTHING);
        assert_eq!(waiting.on_deadline(99), NOTHING);
    }

    /// Every event in every phase keeps what must always hold.
    #[test]
    fn any_history_starts_only_what_is_not_there_and_signals_only_who_was_seen() {
        let mut seed = 1u64;
        let mut below = |limit: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % limit
        };
        for _ in 0..2000 {
            let mut ward = Ward::new(0);
            let mut now = 0;
            let mut known: Option<u32> = None;
            for _ in 0..60 {
                // (also backwards: a clock that jumps must not hurt)
                now = if below(20) == 0 { below(now + 1) } else { now + below(8000) };
                let pid = u32::try_from(7 + below(2)).unwrap();
                let look = match below(5) {
                    0 => Look::Died,
                    1 => Look::Free,
                    2 => Look::Held(pid, Err(Trouble::Stale(1))),
                    3 => Look::Held(pid, Err(Trouble::Missing)),
                    _ => Look::Held(pid, Ok(())),
                };
                let (action, report) = match below(6) {
                    0 => ward.on_deadline(now),
                    1 => ward.on_ready(),
                    2 => ward.on_gone(now, pid, Ended::Signal(9), look),
                    3 => {
                        ward.on_wanted(now);
                        NOTHING
                    }
                    _ => ward.on_look(now, look, &RULES),
                };
                match action {
                    Action::Start => {
                        assert!(ward.is_gone(), "{ward:?}");
                        known = Some(9);
                        ward.on_started(now, 9);
                    }
                    Action::Terminate(target) | Action::Kill(target) => {
                        assert_eq!(Some(target), known, "{ward:?}");
                    }
                    Action::None => {}
                }
                if let Some(Report::Adopted(pid) | Report::Ready(pid)) = report {
                    known = Some(pid);
                }
                assert!(ward.pid().is_none_or(|pid| Some(pid) == known), "{ward:?}");
            }
        }
    }
}
