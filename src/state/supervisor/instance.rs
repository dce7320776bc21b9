//! One supervised process: when it is started, terminated, killed, or left alone.
//!
//! An [`Instance`] performs nothing. Each event returns a [`Decision`]: an action to
//! perform, and an event to log. The state of the lock of the PID file decides whether a
//! process runs; the number in the PID file does not.
//!
//! | phase \ event | probe: P holds the lock | probe: foreign | probe: died | probe: stopped on purpose | process gone | deadline | stop | second stop |
//! | --- | --- | --- | --- | --- | --- | --- | --- | --- |
//! | `Backoff(at)` | `Running`, adopt P | `Foreign` | - | `Stopped` | - | check the lock, start: `Starting` | `Stopped` | - |
//! | `Starting` | confirm after `failures` probes, if late | the same | the same | the same | `Backoff`, `Stopped`, or `Running` if another process holds the lock | no answer | `Stopping` | `Killing` |
//! | `Running` | ask or confirm, see below; `Running`, adopt P if another | `Foreign` | `Backoff` | `Stopped` | `Backoff`, `Stopped`, or `Running` as above | no answer | `Stopping` | `Killing` |
//! | `Stopping(at)` | `Running`, adopt P if another | `Foreign` | `Backoff` | `Stopped` | `Backoff`, `Stopped` | `Killing` | - | `Killing` |
//! | `Killing(since)` | `Running`, adopt P if another | `Foreign` | `Backoff` | `Stopped` | `Backoff`, `Stopped` | `Unkillable` | - | - |
//! | `Unkillable` | `Running`, adopt P if another | `Foreign` | `Backoff` | `Stopped` | `Backoff`, `Stopped` | - | - | - |
//! | `Foreign` | `Running`, adopt P | - | `Backoff` | `Stopped` | - | - | `Stopped` | - |
//! | `Stopped` | `Running`, adopt P | `Foreign` | `Backoff` | - | - | - | - | - |
//!
//! The first phase of a program of which an earlier supervisor has left processes is `Stopping`: they
//! get TERM at once, and the program is started when the last of them has ended. They are no
//! children, so they are looked for until then.
//!
//! `Starting` becomes `Running` when the process reports ready. After a stop of the
//! supervisor, `Stopped` replaces `Backoff`, `Running` and `Foreign` as the next phase.
//!
//! A program that `supervise` names is started when those that it needs are ready: `Backoff` has no
//! deadline until then. A user stops, starts and restarts it by reports: a stop of `Backoff` is
//! `Stopped`, and one of a process that runs is `Stopping`, then `Stopped`. `Stopped` is also the
//! phase after an end after which its rules do not start it again.
//!
//! A process is stopped only if it certainly hangs:
//!
//! | what the probes show | the process answers | no answer in time | it cannot be asked | the supervisor's own health file cannot be written |
//! | --- | --- | --- | --- | --- |
//! | `failures` times the same heartbeat, or not ready: confirm | left alone, `heartbeats` | TERM | TERM | `heartbeats`, after `stale_after` and `failures` probes again |
//! | no heartbeat of this process: ask | count 0, `heartbeats` | bad probe, and TERM after `failures` | - | not tried |

mod requests;

use super::decision::{Action, Decision, Event, ExitReason, NOTHING, ProgramRules, Report, Request, Rules};
use super::probe::{Beat, FileVersion, LifeSign, Probe, ProbeError, SocketAnswer};
use crate::limits::{ANSWER_PATIENCE, RESTART_QUICK, START_PATIENCE};
use crate::proto::config::RestartMode;
use crate::state::backoff::RestartBackoff;
use crate::util::time::{Duration, Instant, earliest};

/// Time after `stop_timeout` until a service that was stopped on purpose is killed. This is less
/// than `STOP_GRACE`, after which `stop` would kill the supervisor.
pub(crate) const LEAVE_GRACE: Duration = Duration::from_ms(2000);
/// The shortest and the longest time between two looks for the processes that an earlier supervisor
/// has left.
const LOOK_MIN: Duration = Duration::from_ms(20);
const LOOK_MAX: Duration = Duration::from_ms(1000);
/// Time after KILL from which a service that still exists counts as impossible to kill.
const UNKILLABLE: Duration = Duration::from_ms(5000);

/// The phase of an instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// No process runs; one is started at this time.
    Backoff(Instant),
    /// The child of this PID was started, and has not reported ready.
    Starting(u32),
    /// The process of this PID runs.
    Running(u32),
    /// TERM was sent; KILL follows at this time.
    Stopping(u32, Instant),
    /// KILL was sent at this time, and the process has not ended.
    Killing(u32, Instant),
    /// KILL was sent long ago, and the process has not ended.
    Unkillable(u32),
    /// A process of another PID namespace runs. It has no number here, and is never signalled.
    Foreign,
    /// A user stopped the process on purpose, its rules do not start it again, or the supervisor
    /// stops.
    Stopped,
}

/// A question to the socket of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Question {
    reason: ProbeError,
    /// The process seems to hang. Otherwise its heartbeat is lost.
    confirms: bool,
    /// When the wait for the answer ends.
    until: Instant,
}

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Instance {
    phase: Phase,
    /// When the process was started or adopted.
    started_at: Instant,
    /// The time since then in which the board was suspended.
    slept: Duration,
    /// When the process reported ready. Its health file counts from then on.
    ready_at: Instant,
    /// Bad probes in a row.
    failed_probes: u32,
    backoff: RestartBackoff,
    /// Since when the instance is unwell.
    unwell_since: Option<Instant>,
    /// Another process than the supervisor started the process.
    adopted: bool,
    /// The process was ready, adopted or dead at least once.
    settled: bool,
    /// The supervisor stops, so nothing is started.
    shutting_down: bool,
    /// An earlier supervisor has left the process, which is looked for at this time.
    look_at: Option<Instant>,
    /// When the process is started after what was left has ended, at the earliest.
    resume_at: Instant,
    /// The last process itself has left it, and not an earlier supervisor.
    left_own: bool,
    /// A stop has ended the last process, so that it also ends what that one has left.
    stop_ends_left: bool,
    heartbeat: LifeSign<u64>,
    program_file: LifeSign<FileVersion>,
    /// The question to which an answer is awaited.
    asked: Option<Question>,
    /// The heartbeat is lost or stale, and the process is well as far as its socket shows.
    unjudged: bool,
    /// The supervisor could not write its own health file, so that no probe is bad before this time.
    unproven_until: Instant,
    /// The rules of a program that `supervise` names; `None` for any other process.
    program: Option<ProgramRules>,
    /// The instances that are ready before the program is started, as bits of their indexes.
    pub(super) needs: u64,
    /// A program or service that `after` names is not ready.
    blocked: bool,
    /// When that was last found out.
    blocked_at: Instant,
    /// The program is started again when it has ended, because a user restarts it.
    again: bool,
    /// The program was not ready in time.
    late: bool,
    /// Restarts of processes that have ended.
    restarts: u32,
    /// How the last process ended, and when.
    last_end: Option<(ExitReason, Instant)>,
}

impl Instance {
    /// Creates an instance that is started or adopted at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            phase: Phase::Backoff(now),
            started_at: now,
            slept: Duration::ZERO,
            ready_at: now,
            failed_probes: 0,
            backoff: RestartBackoff::default(),
            unwell_since: Some(now),
            adopted: false,
            settled: false,
            shutting_down: false,
            look_at: None,
            resume_at: now,
            left_own: false,
            stop_ends_left: false,
            heartbeat: LifeSign::NONE,
            program_file: LifeSign::NONE,
            asked: None,
            unjudged: false,
            unproven_until: Instant::BOOT,
            program: None,
            needs: 0,
            blocked: false,
            blocked_at: now,
            again: false,
            late: false,
            restarts: 0,
            last_end: None,
        }
    }

    /// Creates an instance of a program that is started at `now`.
    #[must_use]
    pub fn of_program(now: Instant, rules: ProgramRules) -> Self {
        Self { program: Some(rules), ..Self::new(now) }
    }

    /// Puts the rules of the program's file into force.
    pub fn set_program(&mut self, rules: ProgramRules) {
        self.program = Some(rules);
    }

    /// Returns true if this is a program that `supervise` names.
    #[must_use]
    pub fn is_program(&self) -> bool {
        self.program.is_some()
    }

    /// Returns true if the process has a health file or a lock to probe.
    #[must_use]
    #[unsafe(link_section = ".text.idle")]
    pub fn is_probed(&self) -> bool {
        self.program.is_none_or(|program| program.has_health_file)
    }

    /// Returns true if the process is looked at from time to time: there is something to probe, or it is
    /// a program that is late, which has no deadline of its own.
    #[must_use]
    #[unsafe(link_section = ".text.idle")]
    pub fn is_timed(&self) -> bool {
        self.late || self.is_probed()
    }

    /// Returns true if a program that needs this one can be started: this one is ready, or is not
    /// to run.
    #[must_use]
    pub fn blocks_none(&self) -> bool {
        matches!(self.phase, Phase::Running(_) | Phase::Foreign | Phase::Stopped)
    }

    /// Returns true if the program waits until another one is ready.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.blocked && matches!(self.phase, Phase::Backoff(_))
    }

    /// Takes whether the program has to wait until another one is ready. The time in which it waits is
    /// no time in which it is unwell, because the other one is.
    #[inline(never)]
    #[unsafe(link_section = ".text.idle")]
    pub(super) fn set_blocked(&mut self, now: Instant, blocked: bool) {
        if self.is_blocked() {
            let span = now.since(self.blocked_at);
            self.unwell_since = self.unwell_since.map(|since| since + span);
        }
        (self.blocked, self.blocked_at) = (blocked, now);
    }

    /// Returns true if the program does not run as it should: it could not be started or has ended,
    /// or is not ready in time.
    #[must_use]
    pub fn fails_to_run(&self) -> bool {
        let waits = matches!(self.phase, Phase::Backoff(_)) && !self.blocked && !self.backoff.is_reset();
        self.program.is_some() && (waits || self.late)
    }

    /// Returns the time that a program has from its start until it is ready.
    #[must_use]
    pub fn start_timeout(&self) -> Option<Duration> {
        self.program.map(|program| program.start_timeout)
    }

    /// Returns the rules, of which the file of a program sets some.
    #[must_use]
    pub fn rules(&self, rules: &Rules) -> Rules {
        let own = self.program.map_or((rules.stop_timeout, rules.stale_after), |program| {
            (program.stop_timeout, program.stale_after)
        });
        Rules { stop_timeout: own.0, stale_after: own.1, ..*rules }
    }

    /// Returns the number of restarts of processes that have ended.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Returns how the last process ended, and when.
    #[must_use]
    pub fn last_end(&self) -> Option<(ExitReason, Instant)> {
        self.last_end
    }

    /// Returns true if the last probe of the process was bad.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.failed_probes > 0
    }

    /// Returns true if an end with success, after `seen_at`, is that of a program that may run in the
    /// background from then on, because it ended soon. A stop may have reached it while it went there.
    #[must_use]
    pub fn may_be_in_background(&self, seen_at: Instant) -> bool {
        !self.lived(seen_at).exceeds(RESTART_QUICK) && self.pid().is_some()
    }

    /// Returns the phase.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Returns when the process was started or adopted.
    #[must_use]
    pub fn started_at(&self) -> Instant {
        self.started_at
    }

    /// Returns the time since the process was started or adopted, without suspends of the board.
    #[must_use]
    pub fn lived(&self, now: Instant) -> Duration {
        now.since(self.started_at + self.slept)
    }

    /// Puts the instance into a phase that begins at `now`.
    #[inline(never)]
    fn enter(&mut self, now: Instant, phase: Phase) {
        (self.phase, self.started_at, self.slept) = (phase, now, Duration::ZERO);
    }

    /// Returns the PID of the known process; `None` if no process is known.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match self.phase {
            Phase::Starting(pid)
            | Phase::Running(pid)
            | Phase::Stopping(pid, _)
            | Phase::Killing(pid, _)
            | Phase::Unkillable(pid) => Some(pid),
            Phase::Backoff(_) | Phase::Foreign | Phase::Stopped => None,
        }
    }

    /// Returns true if the heartbeat of a process that runs cannot be judged.
    #[must_use]
    pub fn is_unjudged(&self) -> bool {
        self.unjudged || self.phase == Phase::Foreign
    }

    /// Returns true if the supervisor can stop without waiting for this instance.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.pid().is_none() || self.is_unkillable()
    }

    /// Returns true if the process does not end by KILL.
    #[must_use]
    pub fn is_unkillable(&self) -> bool {
        matches!(self.phase, Phase::Unkillable(_))
    }

    /// Returns true if the process was ready, adopted or dead once, or is stopped.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled || self.phase == Phase::Stopped || self.is_blocked()
    }

    /// Returns true if a reset of the board is the only help left: the instance was
    /// unwell for longer than `patience`, or its process cannot be killed.
    #[must_use]
    pub fn is_unrecoverable(&self, now: Instant, patience: Duration) -> bool {
        let is_unwell = self.phase != Phase::Stopped && !self.is_blocked() && !self.is_stable(now);
        let unwell = self.unwell_since.filter(|_| is_unwell);
        self.is_unkillable() || unwell.is_some_and(|since| now.since(since) > patience)
    }

    /// Leaves `span`, in which the board was suspended, out of the time that the process has lived, that
    /// the instance is unwell, that the process has for its start, its end or an answer, and of the age
    /// of its file. A start that waits is not delayed.
    #[cold]
    pub(super) fn sleep(&mut self, span: Duration) {
        self.slept = self.slept + span;
        self.ready_at += span;
        self.unwell_since = self.unwell_since.map(|since| since + span);
        self.program_file.sleep(span);
        self.asked = self.asked.map(|asked| Question { until: asked.until + span, ..asked });
        if let Phase::Stopping(_, at) | Phase::Killing(_, at) = &mut self.phase {
            *at += span;
        }
    }

    /// Returns true if the process is healthy, and has run for so long that its next exit
    /// is not a quick one.
    #[unsafe(link_section = ".text.idle")]
    fn is_stable(&self, now: Instant) -> bool {
        self.failed_probes == 0
            && matches!(self.phase, Phase::Running(_))
            && now.since(self.started_at) >= RESTART_QUICK
    }

    /// Returns true if the supervisor has sent TERM or KILL to the process.
    fn we_are_stopping_it(&self) -> bool {
        matches!(self.phase, Phase::Stopping(..) | Phase::Killing(..) | Phase::Unkillable(_))
    }

    /// Forgets earlier failures if the instance has recovered. A process that exits
    /// quickly each time does not recover by being ready in between.
    fn update_recovery(&mut self, now: Instant) {
        if self.is_stable(now) {
            self.backoff.reset();
        }
        if self.backoff.is_reset() && self.failed_probes == 0 {
            self.unwell_since = None;
        }
    }

    /// Returns when [`Instance::on_deadline`] is due; `None` if only an event can change
    /// the phase.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        earliest(self.phase_deadline(), self.look_at)
    }

    /// Returns when the phase changes by itself.
    fn phase_deadline(&self) -> Option<Instant> {
        match (self.phase, &self.program) {
            (Phase::Backoff(_), _) if self.blocked => None,
            (Phase::Starting(_), Some(program)) => {
                (!self.late).then_some(self.started_at + self.slept + program.start_timeout)
            }
            (phase, _) => self.deadline_of(phase),
        }
    }

    fn deadline_of(&self, phase: Phase) -> Option<Instant> {
        match phase {
            Phase::Backoff(at) | Phase::Stopping(_, at) => Some(at),
            Phase::Killing(_, at) => Some(at + UNKILLABLE),
            Phase::Starting(_) | Phase::Running(_) => self.asked.map(|asked| asked.until),
            Phase::Unkillable(_) | Phase::Foreign | Phase::Stopped => None,
        }
    }

    /// Decides what the passing of time changes.
    pub fn on_deadline(&mut self, now: Instant, rules: &Rules) -> Decision {
        if !self.phase_deadline().is_some_and(|at| at.is_due(now)) {
            let looks = self.look_at.is_some_and(|at| at.is_due(now));
            return if looks { self.look(now) } else { NOTHING };
        }
        match self.phase {
            Phase::Backoff(_) => (Action::CheckLock, None),
            Phase::Stopping(pid, _) => self.kill(now, pid),
            Phase::Killing(pid, _) => {
                self.phase = Phase::Unkillable(pid);
                (Action::None, Some(Event::Unkillable))
            }
            Phase::Starting(pid) if self.is_program() => {
                self.late = true;
                (Action::None, Some(Event::Late(pid)))
            }
            Phase::Starting(_) | Phase::Running(_) => self.on_answer(now, SocketAnswer::Silent, rules),
            Phase::Unkillable(_) | Phase::Foreign | Phase::Stopped => NOTHING,
        }
    }

    /// Looks for the processes that an earlier supervisor has left. Later looks are rarer.
    fn look(&mut self, now: Instant) -> Decision {
        self.look_at = Some(now + self.lived(now).at_least(LOOK_MIN).at_most(LOOK_MAX));
        self.pid().map_or(NOTHING, |pid| (Action::Look(pid), None))
    }

    /// Takes that an earlier supervisor or an earlier process has left processes, which end before the
    /// start.
    fn on_left(&mut self, now: Instant, pid: u32, rules: &Rules, own: bool) -> Action {
        self.left_own = own;
        self.resume_at = if let Phase::Backoff(at) = self.phase { at } else { now };
        self.enter(now, Phase::Stopping(pid, now + rules.stop_timeout));
        self.look_at = Some(now + LOOK_MIN);
        Action::Terminate(pid)
    }

    /// Takes an event, and decides what follows.
    pub fn on_report(&mut self, now: Instant, report: Report, rules: &Rules) -> Decision {
        match report {
            Report::Probe(probe) => probe.map_or(NOTHING, |probe| self.on_probe(now, probe, rules)),
            Report::ProgramFile(found) => self.on_program_file(now, found, rules),
            Report::Lock(probe) => self.on_lock(now, probe, rules),
            Report::Answer(answer) => self.on_answer(now, answer, rules),
            Report::Left(pid) => (self.on_left(now, pid, rules, false), Some(Event::LeftFound(pid))),
            // A process that is left by a program that its rules do not start again is no part of it.
            Report::Background(pid) if self.stop_ends_left || matches!(self.phase, Phase::Backoff(_)) => {
                (self.on_left(now, pid, rules, true), None)
            }
            Report::Background(_) => NOTHING,
            Report::Started(pid) => self.on_started(now, pid),
            Report::NotStarted => self.died(now, Duration::ZERO, ExitReason::NotStarted),
            Report::Ready => {
                self.ready_at = now.or_later(self.started_at);
                self.on_ready()
            }
            // Without a probe nothing is known but that this process held the lock.
            Report::Gone(pid, reason, probe) => {
                self.on_gone(now, pid, reason, probe.unwrap_or(Probe::Held(pid, Err(ProbeError::Missing))))
            }
            Report::Asked(request) => self.on_request(now, request, rules),
            Report::Stop => self.on_shutdown(now, rules),
            Report::SecondStop => self.on_second_stop(now),
        }
    }

    fn kill(&mut self, now: Instant, pid: u32) -> Decision {
        self.phase = Phase::Killing(pid, now);
        (Action::Kill(pid), Some(Event::Killing))
    }

    /// Starts the process, unless the probe of the lock shows that it runs or that a user
    /// stopped it. Without a probe the process is started.
    fn on_lock(&mut self, now: Instant, probe: Option<Probe>, rules: &Rules) -> Decision {
        let decision = probe.map_or(NOTHING, |probe| self.on_probe(now, probe, rules));
        if matches!(self.phase, Phase::Backoff(_)) { (Action::Start, None) } else { decision }
    }

    fn on_started(&mut self, now: Instant, pid: u32) -> Decision {
        self.enter(now, Phase::Starting(pid));
        self.ready_at = now;
        self.adopted = false;
        self.forget_checks();
        let Some(program) = self.program else { return NOTHING };
        self.settled = true;
        if program.reports_ready { NOTHING } else { self.on_ready() }
    }

    /// Forgets what the checks of the last process found.
    #[inline(never)]
    fn forget_checks(&mut self) {
        (self.failed_probes, self.asked, self.unjudged, self.late) = (0, None, false, false);
        (self.heartbeat, self.program_file) = (LifeSign::NONE, LifeSign::NONE);
    }

    fn on_ready(&mut self) -> Decision {
        let Phase::Starting(pid) = self.phase else { return NOTHING };
        (self.phase, self.settled) = (Phase::Running(pid), true);
        self.forget_checks();
        self.update_recovery(self.started_at);
        (Action::None, Some(Event::Ready(pid)))
    }

    /// Records that the supervisor stops, so that nothing is started any more.
    pub(super) fn forbid_start(&mut self) {
        self.shutting_down = true;
        if matches!(self.phase, Phase::Backoff(_)) {
            // Its stop may have to wait for the ends of those that need it.
            self.phase = Phase::Stopped;
        }
    }

    /// Returns the time that the process has to end after a stop on purpose. A service has a little
    /// longer than `stop_timeout`, because it may itself wait that long for its children.
    fn patience(&self, rules: &Rules) -> Duration {
        rules.stop_timeout + if self.is_program() { Duration::ZERO } else { LEAVE_GRACE }
    }

    /// Stops the process because the supervisor stops.
    fn on_shutdown(&mut self, now: Instant, rules: &Rules) -> Decision {
        self.forbid_start();
        self.update_recovery(now);
        match self.phase {
            Phase::Starting(pid) | Phase::Running(pid) => {
                self.phase = Phase::Stopping(pid, now + self.patience(rules));
                (Action::Terminate(pid), None)
            }
            Phase::Stopping(..) | Phase::Killing(..) | Phase::Unkillable(_) => NOTHING,
            Phase::Backoff(_) | Phase::Foreign | Phase::Stopped => {
                self.phase = Phase::Stopped;
                NOTHING
            }
        }
    }

    /// Kills the process because the supervisor was asked a second time to stop.
    fn on_second_stop(&mut self, now: Instant) -> Decision {
        match self.phase {
            Phase::Starting(pid) | Phase::Running(pid) | Phase::Stopping(pid, _) => self.kill(now, pid),
            Phase::Killing(..)
            | Phase::Unkillable(_)
            | Phase::Backoff(_)
            | Phase::Foreign
            | Phase::Stopped => NOTHING,
        }
    }

    fn on_gone(&mut self, now: Instant, pid: u32, reason: ExitReason, probe: Probe) -> Decision {
        if self.pid() != Some(pid) {
            return NOTHING;
        }
        let was_left = self.look_at.take().is_some();
        self.stop_ends_left = self.shutting_down || probe == Probe::Free;
        if !was_left {
            self.last_end = Some((reason, now));
        }
        if self.shutting_down {
            self.phase = Phase::Stopped;
            return NOTHING;
        }
        if was_left {
            let at = now.or_later(self.resume_at);
            self.phase = Phase::Backoff(at);
            let waits = self.blocked || !at.is_due(now);
            let event = (!self.left_own).then_some(Event::LeftEnded);
            return (if waits { Action::None } else { Action::CheckLock }, event);
        }
        match probe {
            Probe::Held(other, _) if other != pid => self.adopt(now, other),
            Probe::Foreign => self.on_foreign(now),
            Probe::Free => self.stopped(now),
            _ => {
                // A process that the supervisor stopped did not exit quickly.
                let is_own = !self.we_are_stopping_it();
                let lived = if is_own { self.lived(now) } else { now.since(Instant::BOOT) };
                self.died(now, lived, reason)
            }
        }
    }

    /// Records that a user stopped the process on purpose.
    fn stopped(&mut self, now: Instant) -> Decision {
        // Nothing else is known of the next process if it ends between two probes.
        self.enter(now, Phase::Stopped);
        self.unwell_since = None;
        self.forget_checks();
        self.settled = true;
        (Action::None, Some(Event::Stopped))
    }

    fn on_program_file(
        &mut self,
        now: Instant,
        found: Result<FileVersion, ProbeError>,
        rules: &Rules,
    ) -> Decision {
        let Phase::Running(pid) = self.phase else { return NOTHING };
        let health = match found {
            // An earlier process may have left this version, so that it counts from its first sight.
            Ok(version) => self.program_file.judge(now, version, now, rules.stale_after),
            // A new process has this long for its first write.
            Err(_) if now.since(self.ready_at) <= rules.stale_after => Ok(()),
            Err(error) => Err(error),
        };
        match health {
            Ok(()) => self.on_good_probe(now),
            Err(error) => self.on_bad_probe(now, pid, error, rules),
        }
    }

    fn on_probe(&mut self, now: Instant, probe: Probe, rules: &Rules) -> Decision {
        match (self.phase, probe) {
            (Phase::Backoff(_) | Phase::Foreign | Phase::Stopped, _) if self.shutting_down => NOTHING,
            (Phase::Backoff(_) | Phase::Foreign | Phase::Stopped, Probe::Held(pid, _)) => {
                self.adopt(now, pid)
            }
            (Phase::Foreign, Probe::Foreign) => NOTHING,
            (Phase::Backoff(_) | Phase::Stopped, Probe::Foreign) => self.on_foreign(now),
            (Phase::Foreign, Probe::Free) => self.stopped(now),
            (Phase::Foreign, Probe::Died) => self.died(now, self.lived(now), ExitReason::Unknown),
            // A user started the process, and it died between two probes.
            (Phase::Stopped, Probe::Died) => self.died(now, Duration::ZERO, ExitReason::Unknown),
            // A user stopped the process while it was dead.
            (Phase::Backoff(_), Probe::Free) => self.stopped(now),
            (Phase::Backoff(_), Probe::Died) | (Phase::Stopped, Probe::Free) => NOTHING,
            (Phase::Starting(pid), _) => {
                let late = self.lived(now) > rules.stale_after * START_PATIENCE;
                if late { self.on_bad_probe(now, pid, ProbeError::NotReady, rules) } else { NOTHING }
            }
            (Phase::Running(pid), Probe::Held(holder, beat)) if holder == pid => match beat {
                Ok(beat) => self.on_beat(now, pid, beat, rules),
                // A process that was just adopted may not have written a heartbeat yet.
                Err(ProbeError::Missing | ProbeError::OtherPid | ProbeError::OtherBoot)
                    if self.adopted && self.lived(now) <= rules.stale_after =>
                {
                    NOTHING
                }
                Err(error) => self.on_lost_heartbeat(now, error),
            },
            (
                Phase::Running(pid)
                | Phase::Stopping(pid, _)
                | Phase::Killing(pid, _)
                | Phase::Unkillable(pid),
                _,
            ) => match probe {
                Probe::Held(holder, _) if holder == pid => NOTHING,
                _ => self.on_gone(now, pid, ExitReason::Unknown, probe),
            },
        }
    }

    /// Judges a heartbeat of the process `pid`. It is a sign of life if its number has changed.
    fn on_beat(&mut self, now: Instant, pid: u32, beat: Beat, rules: &Rules) -> Decision {
        if !self.adopted && beat.written < self.started_at {
            // An earlier process had the same PID.
            return self.on_lost_heartbeat(now, ProbeError::OtherPid);
        }
        // An adopted process may be in another time namespace, so its first heartbeat counts from
        // now. A child is not, and may hang since its start.
        let first = if self.adopted { now } else { beat.written.or_earlier(now) };
        match self.heartbeat.judge(now, beat.seq, first, rules.stale_after) {
            Ok(()) => self.on_good_probe(now),
            Err(error) => self.on_bad_probe(now, pid, error, rules),
        }
    }

    fn on_good_probe(&mut self, now: Instant) -> Decision {
        let was_unwell = core::mem::take(&mut self.failed_probes) > 0 || self.unjudged;
        (self.unjudged, self.asked) = (false, None);
        self.update_recovery(now);
        (Action::None, was_unwell.then_some(Event::Recovered))
    }

    /// Asks the socket of a process whose heartbeat shows nothing.
    fn on_lost_heartbeat(&mut self, now: Instant, error: ProbeError) -> Decision {
        let is_new = !core::mem::replace(&mut self.unjudged, true);
        (self.ask(now, error, Action::Ask), is_new.then_some(Event::HeartbeatLost(error)))
    }

    /// Begins to ask, unless an answer is awaited.
    fn ask(&mut self, now: Instant, reason: ProbeError, action: Action) -> Action {
        if self.asked.is_some() {
            return Action::None;
        }
        let confirms = action == Action::Confirm;
        self.asked = Some(Question { reason, confirms, until: now + ANSWER_PATIENCE });
        action
    }

    /// Takes the answer of the socket.
    fn on_answer(&mut self, now: Instant, answer: SocketAnswer, rules: &Rules) -> Decision {
        let (Phase::Starting(pid) | Phase::Running(pid)) = self.phase else { return NOTHING };
        let Some(Question { reason, confirms, .. }) = self.asked.take() else { return NOTHING };
        match (answer, confirms) {
            (SocketAnswer::Answered, _) => {
                let was_unwell = core::mem::take(&mut self.failed_probes) > 0;
                let is_new = !core::mem::replace(&mut self.unjudged, true);
                self.update_recovery(now);
                let event = match confirms {
                    true if is_new => Some(Event::Answering(reason)),
                    false if was_unwell => Some(Event::Answered),
                    _ => None,
                };
                (Action::None, event)
            }
            (SocketAnswer::Silent | SocketAnswer::Unreachable, true) => self.give_up(now, pid, reason, rules),
            (SocketAnswer::Silent, false) => self.on_bad_probe(now, pid, ProbeError::Silent, rules),
            (SocketAnswer::Unknown, true) => {
                self.failed_probes = 0;
                self.on_unwritten(now, rules);
                self.on_unproven()
            }
            (SocketAnswer::Unreachable | SocketAnswer::Unknown, false) => NOTHING,
        }
    }

    fn on_bad_probe(&mut self, now: Instant, pid: u32, error: ProbeError, rules: &Rules) -> Decision {
        if self.asked.is_some() {
            return NOTHING;
        }
        if now.is_before(self.unproven_until) && error != ProbeError::Silent {
            return self.on_unproven();
        }
        // The process was healthy until its last heartbeat.
        if let ProbeError::Stale(age) = error {
            self.update_recovery(now.minus(age));
        }
        self.unwell_since.get_or_insert(now);
        self.failed_probes = self.failed_probes.saturating_add(1);
        if self.failed_probes < rules.failures {
            // A process that answers, though its heartbeat is stale, fails again and again.
            let is_first = self.failed_probes == 1 && (!self.unjudged || error == ProbeError::Silent);
            return (Action::None, is_first.then_some(Event::CheckFailed(error)));
        }
        match error {
            ProbeError::Silent => self.give_up(now, pid, error, rules),
            _ => (self.ask(now, error, Action::Confirm), None),
        }
    }

    /// Takes that the supervisor cannot write its own health file. When it can again, a process needs
    /// time for its next heartbeat.
    pub(super) fn on_unwritten(&mut self, now: Instant, rules: &Rules) {
        self.unproven_until = now + rules.stale_after;
    }

    /// Takes that a bad probe proves nothing. The process counts as well for the watchdog.
    fn on_unproven(&mut self) -> Decision {
        (self.unjudged, self.unwell_since) = (true, None);
        NOTHING
    }

    /// Stops a process that hangs.
    fn give_up(&mut self, now: Instant, pid: u32, error: ProbeError, rules: &Rules) -> Decision {
        self.phase = Phase::Stopping(pid, now + rules.stop_timeout);
        self.asked = None;
        (Action::Terminate(pid), Some(Event::Restarting(error)))
    }

    fn adopt(&mut self, now: Instant, pid: u32) -> Decision {
        self.enter(now, Phase::Running(pid));
        (self.adopted, self.settled) = (true, true);
        self.forget_checks();
        self.update_recovery(now);
        (Action::None, Some(Event::Adopted(pid)))
    }

    /// Records that a process of another PID namespace runs. It does not count for the
    /// watchdog, because only a check of its lock is possible.
    fn on_foreign(&mut self, now: Instant) -> Decision {
        self.enter(now, Phase::Foreign);
        (self.adopted, self.settled, self.unwell_since) = (true, true, None);
        self.forget_checks();
        (Action::None, Some(Event::Foreign))
    }

    /// Records that the process has ended after `lived`, and schedules its restart.
    fn died(&mut self, now: Instant, lived: Duration, reason: ExitReason) -> Decision {
        self.last_end = Some((reason, now));
        let is_ours = self.we_are_stopping_it();
        let again = core::mem::take(&mut self.again) || reason == ExitReason::NotStarted;
        if !again && self.program.is_some_and(|program| is_last(program.restart, reason, is_ours)) {
            self.stopped(now);
            return (Action::None, Some(Event::Ended(reason)));
        }
        self.restarts = self.restarts.saturating_add(u32::from(reason != ExitReason::NotStarted));
        self.update_recovery(now);
        self.unwell_since.get_or_insert(now);
        self.forget_checks();
        self.settled = true;
        let wait = self.backoff.on_exit(lived);
        self.phase = Phase::Backoff(now + wait);
        let event = if is_ours { Event::Replaced(reason, wait) } else { Event::Died(reason, wait) };
        (Action::None, Some(event))
    }
}

/// Returns true if a program is not started again after this end. One that the supervisor stopped
/// because it was not healthy has failed.
fn is_last(restart: RestartMode, reason: ExitReason, is_ours: bool) -> bool {
    match restart {
        RestartMode::Always => false,
        RestartMode::Failure => reason == ExitReason::Code(0) && !is_ours,
        RestartMode::Never => true,
    }
}

#[cfg(test)]
mod tests;
