//! The supervisor as a whole, in virtual time: readiness, stops, rounds of probes, the
//! order of decisions, and random histories of several instances.

use super::*;
use crate::proto::config::RestartMode;
use crate::state::supervisor::decision::Request;
use crate::state::supervisor::instance::LEAVE_GRACE;
use crate::state::supervisor::probe::{Beat, FileVersion, Probe, ProbeError, SocketAnswer};

use std::vec::Vec;

const fn at(ms: u64) -> Instant {
    Instant::from_ms(ms)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_ms(ms)
}

const RULES: Rules = Rules {
    failures: 3,
    stop_timeout: ms(10_000),
    stale_after: ms(15_000),
    check_interval: ms(5000),
    watchdog_patience: ms(300_000),
};

/// Returns the heartbeat `seq`.
const fn beat(seq: u64) -> Result<Beat, ProbeError> {
    Ok(Beat { seq, written: at(1_000_000_000) })
}

/// A method for each report.
impl Supervision {
    fn on_probe(&mut self, index: usize, now: Instant, probe: Option<Probe>) -> Decision {
        self.on_report(index, now, Report::Probe(probe))
    }

    fn on_program_file(
        &mut self,
        index: usize,
        now: Instant,
        found: Result<FileVersion, ProbeError>,
    ) -> Decision {
        self.on_report(index, now, Report::ProgramFile(found))
    }

    fn on_lock(&mut self, index: usize, now: Instant, probe: Option<Probe>) -> Decision {
        self.on_report(index, now, Report::Lock(probe))
    }

    fn on_started(&mut self, index: usize, now: Instant, pid: u32) {
        assert_eq!(self.on_report(index, now, Report::Started(pid)), NOTHING);
    }

    fn on_not_started(&mut self, index: usize, now: Instant) -> Decision {
        self.on_report(index, now, Report::NotStarted)
    }

    fn on_ready(&mut self, index: usize) -> Decision {
        self.on_report(index, at(0), Report::Ready)
    }

    fn on_gone(
        &mut self,
        index: usize,
        now: Instant,
        (pid, reason): (u32, ExitReason),
        probe: Option<Probe>,
    ) -> Decision {
        self.on_report(index, now, Report::Gone(pid, reason, probe))
    }
}

/// Returns a supervisor that starts at 0, with some instances and health files.
fn supervision(instances: usize) -> Supervision {
    let mut supervision = Supervision::new(at(0), RULES, true);
    (0..instances).for_each(|_| supervision.add(at(0)));
    supervision
}

/// Performs all that is due. A start gives instance N process 10 + N, which is ready at
/// once if `is_ready`. Each probe finds that the known process is healthy.
fn drain(supervision: &mut Supervision, now: Instant, is_ready: bool) -> Vec<String> {
    let mut performed = Vec::new();
    while let Some((index, mut decision)) = supervision.poll(now) {
        while decision != NOTHING {
            if let (action, Some(event)) = decision {
                performed.push(format!("{index}: {action:?} {event:?}"));
            } else {
                performed.push(format!("{index}: {:?}", decision.0));
            }
            decision = match decision.0 {
                Action::CheckLock => supervision.on_lock(index, now, Some(Probe::Died)),
                Action::Start => {
                    supervision.on_started(index, now, u32::try_from(10 + index).unwrap());
                    if is_ready { supervision.on_ready(index) } else { NOTHING }
                }
                Action::Probe => {
                    let probe = supervision.pid(index).map(|pid| Probe::Held(pid, beat(now.as_ms())));
                    supervision.on_probe(index, now, probe)
                }
                Action::Ask | Action::Confirm => {
                    supervision.on_report(index, now, Report::Answer(SocketAnswer::Unreachable))
                }
                Action::None
                | Action::Terminate(_)
                | Action::Dismiss(_)
                | Action::Kill(_)
                | Action::Look(_) => NOTHING,
            };
        }
    }
    performed
}

/// Returns a supervisor whose instances run since 0, and which has reported ready.
fn running(instances: usize) -> Supervision {
    let mut supervision = supervision(instances);
    drain(&mut supervision, at(0), true);
    assert!(supervision.is_ready(at(0)) && supervision.on_announced());
    supervision
}

fn gone(supervision: &mut Supervision, index: usize, now: Instant) -> Decision {
    let pid = supervision.pid(index).unwrap();
    supervision.on_gone(index, now, (pid, ExitReason::Signal(11)), Some(Probe::Died))
}

#[test]
fn each_instance_is_started_after_a_look_at_its_lock_and_then_all_are_probed() {
    let mut supervision = supervision(2);
    let starts = ["0: CheckLock", "0: Start", "0: None Ready(10)", "1: CheckLock", "1: Start"];
    let expected = [&starts[..], &["1: None Ready(11)", "0: Probe", "1: Probe"]].concat();
    assert_eq!(drain(&mut supervision, at(0), true), expected);
    assert!(drain(&mut supervision, at(4999), true).is_empty());
    assert_eq!(drain(&mut supervision, at(5000), true), ["0: Probe", "1: Probe"]);
}

#[test]
fn an_instance_whose_lock_is_held_is_adopted_and_one_whose_lock_is_unknown_is_started() {
    let mut supervision = supervision(2);
    assert_eq!(supervision.poll(at(0)), Some((0, (Action::CheckLock, None))));
    let held = Some(Probe::Held(7, beat(1)));
    assert_eq!(supervision.on_lock(0, at(0), held), (Action::None, Some(Event::Adopted(7))));
    assert_eq!(supervision.poll(at(0)), Some((1, (Action::CheckLock, None))));
    assert_eq!(supervision.on_lock(1, at(0), None), (Action::Start, None));
    // A probe that proves nothing changes nothing.
    supervision.on_started(1, at(0), 8);
    assert_eq!(supervision.on_probe(0, at(0), None), NOTHING);
    // An end after which the lock cannot be probed is one of this process.
    let event = supervision.on_gone(1, at(1), (8, ExitReason::Code(0)), None).1;
    assert_eq!(event, Some(Event::Died(ExitReason::Code(0), ms(0))));
}

#[test]
fn the_mark_stops_a_service_that_is_dead() {
    let mut supervision = running(1);
    gone(&mut supervision, 0, at(10));
    assert_eq!(supervision.poll(at(10)), Some((0, (Action::CheckLock, None))));
    let decision = supervision.on_lock(0, at(10), Some(Probe::Free));
    assert_eq!(decision, (Action::None, Some(Event::Stopped)));
    assert!(drain(&mut supervision, at(10), true).is_empty());
}

#[test]
fn the_supervisor_is_ready_when_each_process_runs_or_failed_once_and_after_a_while_anyway() {
    let mut supervision = supervision(2);
    drain(&mut supervision, at(0), false);
    assert!(supervision.is_starting() && !supervision.is_ready(at(14_999)));
    assert!(supervision.is_ready(at(15_000)), "a start that hangs");
    assert_eq!(supervision.next_deadline(), Some(at(5000)), "the next probe");
    supervision.on_ready(0);
    assert!(!supervision.is_ready(at(100)));
    supervision.on_gone(1, at(100), (11, ExitReason::Code(1)), Some(Probe::Died));
    assert!(supervision.is_ready(at(100)));
    assert_eq!((supervision.on_announced(), supervision.on_announced()), (true, false));
    assert!(!supervision.is_starting() && !supervision.is_ready(at(100_000)), "it is reported once");
    // A service that a user stopped is not waited for.
    let mut stopped = self::supervision(1);
    drain(&mut stopped, at(0), false);
    stopped.on_gone(0, at(1), (10, ExitReason::Code(0)), Some(Probe::Free));
    assert!(stopped.is_ready(at(1)));
    let mut not_started = self::supervision(1);
    not_started.on_not_started(0, at(1));
    assert!(not_started.is_ready(at(1)));
    assert!(self::supervision(0).is_ready(at(0)));
}

#[test]
fn the_supervisor_is_ready_before_a_start_that_failed_is_tried_again() {
    let mut supervision = supervision(2);
    for index in [0, 1] {
        assert!(!supervision.is_ready(at(0)));
        assert_eq!(supervision.poll(at(0)), Some((index, (Action::CheckLock, None))));
        assert_eq!(supervision.on_lock(index, at(0), Some(Probe::Died)), (Action::Start, None));
        let event = Event::Died(ExitReason::NotStarted, ms(0));
        assert_eq!(supervision.on_not_started(index, at(0)), (Action::None, Some(event)));
    }
    assert_eq!(supervision.poll(at(0)), Some((0, (Action::Probe, None))));
    assert_eq!(supervision.poll(at(0)), Some((1, (Action::Probe, None))));
    assert_eq!(supervision.poll(at(0)), None);
    assert!(supervision.is_ready(at(0)));
    assert_eq!(supervision.next_deadline(), Some(at(0)), "the next turn follows at once");
    assert_eq!(supervision.poll(at(0)), Some((0, (Action::CheckLock, None))));
}

#[test]
fn a_stop_terminates_each_process_and_a_second_one_kills_it() {
    let mut supervision = running(3);
    gone(&mut supervision, 2, at(10));
    assert!(supervision.on_stop(false) && supervision.is_stopping() && !supervision.is_over());
    // An end in the same turn starts nothing.
    assert_eq!(gone(&mut supervision, 1, at(10)), NOTHING);
    assert_eq!(drain(&mut supervision, at(10), true), ["0: Terminate(10)"]);
    assert_eq!(supervision.next_deadline(), Some(at(5000)), "the probes continue");
    drain(&mut supervision, at(5000), true);
    assert!(!supervision.on_stop(true), "it stops already");
    assert!(drain(&mut supervision, at(5001), true).is_empty());
    assert!(!supervision.on_stop(false));
    assert_eq!(drain(&mut supervision, at(5002), true), ["0: Kill(10) Killing"]);
    assert!(!supervision.on_stop(false));
    assert!(drain(&mut supervision, at(5003), true).is_empty());
    assert!(!supervision.is_over());
    gone(&mut supervision, 0, at(5004));
    assert!(supervision.is_over());
}

#[test]
fn a_process_that_ignores_the_stop_is_killed_and_one_that_cannot_be_killed_is_left() {
    let mut supervision = running(1);
    supervision.on_stop(false);
    drain(&mut supervision, at(0), true);
    let kill_at = at(0) + RULES.stop_timeout + LEAVE_GRACE;
    let killed = drain(&mut supervision, kill_at, true);
    assert!(killed.contains(&"0: Kill(10) Killing".to_owned()), "{killed:?}");
    assert!(!supervision.is_over());
    let left = drain(&mut supervision, kill_at + ms(5000), true);
    assert!(left.contains(&"0: None Unkillable".to_owned()), "{left:?}");
    assert!(supervision.is_over());
    assert_eq!(supervision.instances()[0].phase(), instance::Phase::Unkillable(10));
}

#[test]
fn the_processes_can_be_left_running() {
    let mut supervision = running(2);
    assert!(supervision.on_stop(true) && supervision.is_over());
    assert!(drain(&mut supervision, at(1), true).is_empty());
}

#[test]
fn after_a_suspend_each_process_has_time_for_a_new_heartbeat() {
    let mut supervision = running(1);
    assert_eq!(supervision.next_deadline(), Some(at(5000)));
    // Late by exactly `stale_after` is no suspend.
    assert_eq!(drain(&mut supervision, at(20_000), true), ["0: Probe"]);
    assert_eq!(supervision.next_deadline(), Some(at(25_000)));
    assert!(drain(&mut supervision, at(40_001), true).is_empty());
    assert_eq!(supervision.next_deadline(), Some(at(55_001)));
    assert_eq!(drain(&mut supervision, at(55_001), true), ["0: Probe"]);
}

/// Covers a report: after a suspend of the machine, or of all processes, every heartbeat was
/// old, and with `failures` 1 healthy services were stopped at once.
#[test]
fn a_process_that_slept_as_long_as_the_supervisor_is_not_hung() {
    let mut supervision = running(2);
    supervision.set_rules(at(0), Rules { failures: 1, ..RULES });
    // Both heartbeats are of the time before the suspend.
    let (before, woke) = (at(5000), at(3_600_000));
    for index in [0, 1] {
        supervision.poll(before);
        let pid = 10 + u32::try_from(index).unwrap();
        assert_eq!(supervision.on_probe(index, before, Some(Probe::Held(pid, beat(1)))), NOTHING);
    }
    assert_eq!(supervision.poll(before), None);
    assert!(drain(&mut supervision, woke, true).is_empty(), "no probe");
    let next = supervision.next_deadline().unwrap();
    assert_eq!(next, woke + RULES.stale_after);
    // One process continues and beats, the other one hangs.
    assert_eq!(supervision.poll(next), Some((0, (Action::Probe, None))));
    assert_eq!(supervision.on_probe(0, next, Some(Probe::Held(10, beat(2)))), NOTHING);
    assert_eq!(supervision.poll(next), Some((1, (Action::Probe, None))));
    let decision = supervision.on_probe(1, next, Some(Probe::Held(11, beat(1))));
    assert_eq!(decision, (Action::Confirm, None));
    let stale = ProbeError::Stale(next.since(before));
    let decision = supervision.on_report(1, next, Report::Answer(SocketAnswer::Unreachable));
    assert_eq!(decision, (Action::Terminate(11), Some(Event::Restarting(stale))));
}

/// Covers a defect that the simulator found: without anything to probe, the time of a suspend
/// counted as time in which a program that waits for its start is not well.
#[test]
fn a_suspend_is_not_time_in_which_a_program_without_health_file_is_unwell() {
    let mut supervision = programs(&[0], PROGRAM);
    assert_eq!(starts(&mut supervision, at(0)), [0]);
    supervision.on_announced();
    supervision.on_report(0, at(0), Report::Gone(10, ExitReason::Code(1), Some(Probe::Died)));
    let due = supervision.next_deadline().unwrap();
    let woke = due + RULES.watchdog_patience * 2;
    assert_eq!(supervision.poll(woke), Some((0, (Action::CheckLock, None))), "its start is not delayed");
    assert_eq!(supervision.unrecoverable(woke), None);
    assert_eq!(supervision.unrecoverable(woke + RULES.watchdog_patience + ms(1)), Some(0));
}

/// Covers a defect that the simulator found: a program that only waited for another one was a reason to
/// withhold the watchdog, also if a user had stopped it.
#[test]
fn a_program_that_waits_for_another_one_is_not_unwell_and_neither_is_a_stopped_one() {
    let mut supervision = programs(&[0, 0b1], PROGRAM);
    assert_eq!(starts(&mut supervision, at(0)), [0]);
    supervision.on_announced();
    let (late, patience) = (at(0) + PROGRAM.start_timeout, RULES.watchdog_patience);
    assert_eq!(supervision.poll(late), Some((0, (Action::None, Some(Event::Late(10))))));
    for step in 1..80 {
        assert_eq!(supervision.poll(late + ms(5000) * step), None);
    }
    let now = late + patience + ms(1);
    assert!(supervision.instances()[1].is_blocked());
    assert_eq!(supervision.unrecoverable(now), Some(0), "the other one is");
    supervision.on_stop(false);
    assert_eq!(supervision.instances()[1].phase(), instance::Phase::Stopped);
    assert!(!supervision.instances()[1].is_unrecoverable(now, patience));
}

/// Covers the neighbours of that defect: a process that was asked to end before the suspend was killed
/// at once after it, and one that was killed counted as one that cannot be killed.
#[test]
fn the_time_that_a_process_has_for_its_end_continues_after_a_suspend() {
    let mut supervision = running(1);
    supervision.on_stop(false);
    assert_eq!(drain(&mut supervision, at(100), true), ["0: Terminate(10)"]);
    let woke = at(7_200_000);
    assert!(drain(&mut supervision, woke, true).is_empty());
    let kill_at = woke + RULES.stop_timeout + LEAVE_GRACE;
    assert_eq!(supervision.next_deadline(), Some(kill_at));
    assert_eq!(drain(&mut supervision, kill_at, true), ["0: Kill(10) Killing"]);
    let woke = at(14_400_000);
    assert!(drain(&mut supervision, woke, true).is_empty());
    assert_eq!(supervision.unrecoverable(woke), None);
    drain(&mut supervision, woke + ms(5000), true);
    assert_eq!(supervision.unrecoverable(woke + ms(5000)), Some(0));
}

#[test]
fn a_shorter_interval_holds_at_once_and_a_longer_one_after_the_next_probe() {
    let mut supervision = running(1);
    supervision.set_rules(at(1000), Rules { check_interval: ms(60_000), ..RULES });
    assert_eq!(supervision.next_deadline(), Some(at(5000)));
    drain(&mut supervision, at(5000), true);
    assert_eq!(supervision.next_deadline(), Some(at(65_000)));
    supervision.set_rules(at(6000), Rules { check_interval: ms(2000), ..RULES });
    assert_eq!(supervision.next_deadline(), Some(at(8000)));
}

#[test]
fn a_program_without_a_health_file_needs_no_probe() {
    let mut supervision = Supervision::new(at(0), RULES, false);
    supervision.add(at(0));
    assert_eq!(drain(&mut supervision, at(0), true).len(), 3);
    supervision.on_announced();
    assert_eq!(supervision.next_deadline(), None);
    supervision.set_rules(at(0), RULES);
    assert_eq!(supervision.next_deadline(), None);
}

#[test]
fn the_health_file_of_a_program_is_its_sign_of_life() {
    let mut supervision = running(1);
    let version = ((1, 2), 3, (4, 5));
    let mut probe = |now, found| supervision.on_program_file(0, at(now), found);
    assert_eq!(probe(15_000, Err(ProbeError::Missing)), NOTHING, "it has time for its first write");
    assert_eq!(probe(15_001, Err(ProbeError::Missing)).1, Some(Event::CheckFailed(ProbeError::Missing)));
    assert_eq!(probe(15_002, Ok(version)).1, Some(Event::Recovered), "it was not there before");
    assert_eq!(probe(15_003, Ok(((1, 2), 3, (4, 6)))), NOTHING);
    assert_eq!(probe(30_003, Ok(((1, 2), 3, (4, 6)))), NOTHING);
    let stale = ProbeError::Stale(ms(15_001));
    assert_eq!(probe(30_004, Ok(((1, 2), 3, (4, 6)))).1, Some(Event::CheckFailed(stale)));
    // The next process has its time, too.
    supervision.on_gone(0, at(30_005), (10, ExitReason::Signal(11)), None);
    let missing = Err(ProbeError::Missing);
    assert_eq!(supervision.on_program_file(0, at(30_006), missing), NOTHING, "there is no process");
    drain(&mut supervision, at(30_006), true);
    assert_eq!(supervision.on_program_file(0, at(45_006), missing), NOTHING);
    assert_ne!(supervision.on_program_file(0, at(45_007), missing), NOTHING);
}

#[test]
fn restarts_are_counted_but_not_starts_that_failed() {
    let mut supervision = running(2);
    gone(&mut supervision, 0, at(10));
    assert_eq!(supervision.restarts(), 1);
    supervision.on_not_started(0, at(10));
    supervision.on_not_started(0, at(20));
    assert_eq!(supervision.restarts(), 1);
    for now in [10, 15_020, 15_030, 15_040] {
        supervision.on_probe(1, at(now), Some(Probe::Held(11, beat(u64::MAX))));
    }
    supervision.on_report(1, at(15_040), Report::Answer(SocketAnswer::Silent));
    supervision.on_gone(1, at(15_050), (11, ExitReason::Code(0)), Some(Probe::Died));
    assert_eq!(supervision.restarts(), 2, "a process that the supervisor replaced counts");
    supervision.on_gone(1, at(50), (99, ExitReason::Code(0)), Some(Probe::Free));
    supervision.on_gone(9, at(50), (99, ExitReason::Code(0)), None);
    assert_eq!(supervision.restarts(), 2);
}

#[test]
fn the_first_unrecoverable_instance_is_found() {
    let mut supervision = running(3);
    for index in [2, 1] {
        for now in [1000, 16_001] {
            let probe = Probe::Held(supervision.pid(index).unwrap(), beat(u64::MAX));
            supervision.on_probe(index, at(now), Some(probe));
        }
    }
    assert_eq!(supervision.unrecoverable(at(316_001)), None);
    assert_eq!(supervision.unrecoverable(at(316_002)), Some(1));
    supervision.set_rules(at(316_002), Rules { watchdog_patience: ms(400_000), ..RULES });
    assert_eq!(supervision.unrecoverable(at(316_002)), None);
    supervision.remove(1);
    assert_eq!(supervision.unrecoverable(at(500_000)), Some(1), "the last one got its index");
}

#[test]
fn an_instance_that_is_removed_during_a_round_of_probes_ends_nothing() {
    let mut supervision = running(3);
    assert_eq!(supervision.poll(at(5000)), Some((0, (Action::Probe, None))));
    supervision.remove(0);
    supervision.remove(7);
    assert_eq!(supervision.instances().len(), 2);
    assert_eq!(supervision.poll(at(5000)), Some((1, (Action::Probe, None))));
    assert_eq!(supervision.poll(at(5000)), Some((2, (Action::Probe, None))));
    assert_eq!(supervision.on_probe(2, at(5000), Some(Probe::Free)), NOTHING);
    assert_eq!(supervision.poll(at(5000)), None);
    supervision.add(at(6000));
    assert_eq!(drain(&mut supervision, at(6000), true), ["2: CheckLock", "2: Start", "2: None Ready(12)"]);
}

/// Instances of a random history.
const MANY: usize = 4;

/// Checks that a loop that sleeps until the next deadline never spins, and that at most one
/// process of an instance lives at a time.
#[test]
fn any_history_drains_and_then_waits() {
    let mut seed = 1u64;
    let mut below = |limit: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % limit
    };
    for _ in 0..300 {
        let mut supervision = supervision(MANY);
        let mut now = at(0);
        let mut next_pid = 100;
        if below(2) == 0 {
            // An earlier supervisor has left processes.
            let decision = supervision.on_report(0, now, Report::Left(99));
            assert_eq!(decision.0, Action::Terminate(99));
        }
        for _ in 0..100 {
            // A start that failed is tried again in the second round.
            for _ in 0..2 {
                let mut decisions = 0;
                while let Some((index, mut decision)) = supervision.poll(now) {
                    decisions += 1;
                    assert!(decisions < 50, "the loop spins");
                    while decision != NOTHING {
                        let failed = below(4) == 0;
                        let held = supervision.pid(index).unwrap_or(99);
                        let probe = match below(6) {
                            0 => Some(Probe::Free),
                            1 => Some(Probe::Died),
                            2 => Some(Probe::Held(held, Err(ProbeError::Missing))),
                            3 => None,
                            _ => Some(Probe::Held(held, beat(below(3)))),
                        };
                        decision = match decision.0 {
                            Action::CheckLock => supervision.on_lock(index, now, probe.filter(|_| failed)),
                            Action::Start if failed => supervision.on_not_started(index, now),
                            Action::Start => {
                                assert_eq!(supervision.pid(index), None);
                                next_pid += 1;
                                supervision.on_started(index, now, next_pid);
                                if below(2) == 0 { supervision.on_ready(index) } else { NOTHING }
                            }
                            Action::Probe => supervision.on_probe(index, now, probe),
                            Action::Ask | Action::Confirm if failed => NOTHING,
                            Action::Ask | Action::Confirm => {
                                supervision.on_report(index, now, Report::Answer(SocketAnswer::Unreachable))
                            }
                            Action::Look(pid) if below(3) == 0 => {
                                supervision.on_gone(index, now, (pid, ExitReason::Unknown), None)
                            }
                            Action::Terminate(pid)
                            | Action::Dismiss(pid)
                            | Action::Kill(pid)
                            | Action::Look(pid) => {
                                assert_eq!(supervision.pid(index), Some(pid));
                                NOTHING
                            }
                            Action::None => NOTHING,
                        };
                    }
                }
            }
            if supervision.is_ready(now) {
                supervision.on_announced();
            }
            let next = supervision.next_deadline().expect("a probe");
            assert!(!next.is_due(now), "the loop spins at {now:?}");
            let index = usize::try_from(below(MANY as u64)).unwrap();
            match below(15) {
                12 => drop(supervision.on_report(index, now, Report::Asked(Request::Stop))),
                13 => drop(supervision.on_report(index, now, Report::Asked(Request::Start))),
                14 => drop(supervision.on_report(index, now, Report::Asked(Request::Restart))),
                0 if supervision.pid(index).is_some() => drop(gone(&mut supervision, index, now)),
                1 => drop(supervision.on_ready(index)),
                2 if below(20) == 0 => drop(supervision.on_stop(false)),
                3 => now += ms(below(3000)),
                4 => now = at(below(now.as_ms() + 1)),
                _ => now = next,
            }
        }
    }
}

// ----- programs -----------------------------------------------------------------

const PROGRAM: ProgramRules = ProgramRules {
    restart: RestartMode::Always,
    reports_ready: true,
    start_timeout: ms(60_000),
    stop_timeout: ms(2000),
    stale_after: ms(1000),
    has_health_file: false,
};

/// Returns a supervisor of programs that start at 0, each with the bits of those that it needs.
fn programs(needs: &[u64], rules: ProgramRules) -> Supervision {
    let mut supervision = Supervision::new(at(0), RULES, true);
    for (index, needs) in needs.iter().enumerate() {
        supervision.add_program(at(0), rules);
        supervision.set_needs(index, *needs);
    }
    supervision
}

/// Returns the indexes that a poll starts, each as process 10 + N.
fn starts(supervision: &mut Supervision, now: Instant) -> Vec<usize> {
    let mut started = Vec::new();
    while let Some((index, (action, _))) = supervision.poll(now) {
        assert_eq!(action, Action::CheckLock, "{index}");
        assert_eq!(supervision.on_lock(index, now, None), (Action::Start, None));
        supervision.on_report(index, now, Report::Started(10 + u32::try_from(index).unwrap()));
        started.push(index);
    }
    started
}

/// Returns the indexes that a poll terminates.
fn stops(supervision: &mut Supervision, now: Instant) -> Vec<usize> {
    let mut stopped = Vec::new();
    while let Some((index, (action, _))) = supervision.poll(now) {
        assert!(matches!(action, Action::Terminate(_)), "{action:?}");
        stopped.push(index);
    }
    stopped
}

#[test]
fn a_program_is_started_when_those_that_it_needs_are_ready_and_stopped_before_them() {
    // 0 needs 1 and 2, and 1 needs 2.
    let mut supervision = programs(&[0b110, 0b100, 0], PROGRAM);
    assert_eq!(starts(&mut supervision, at(0)), [2]);
    // A supervisor waits for the first start of each, and for none to be ready.
    assert!(supervision.is_ready(at(0)) && supervision.on_announced());
    assert_eq!(supervision.next_deadline(), Some(at(60_000)), "no probe, and no start");
    assert_eq!(supervision.on_ready(2), (Action::None, Some(Event::Ready(12))));
    assert_eq!(starts(&mut supervision, at(100)), [1]);
    supervision.on_ready(1);
    assert_eq!(starts(&mut supervision, at(200)), [0]);
    supervision.on_ready(0);
    assert_eq!(supervision.next_deadline(), None);
    // A death restarts none but the dead one, for which no other has to wait.
    gone(&mut supervision, 2, at(300));
    assert_eq!(starts(&mut supervision, at(300)), [2]);
    supervision.on_ready(2);
    assert!(supervision.on_stop(false));
    for (index, time) in [(0, 400), (1, 500), (2, 600)] {
        assert_eq!(stops(&mut supervision, at(time)), [index]);
        assert!(!supervision.is_over());
        assert_eq!(supervision.next_deadline(), Some(at(time + 2000)), "its own time to end");
        gone(&mut supervision, index, at(time + 50));
    }
    assert!(supervision.is_over());
}

#[test]
fn a_program_that_is_not_to_run_keeps_no_other_from_its_start() {
    let mut supervision = programs(&[0b10, 0], PROGRAM);
    supervision.on_report(1, at(0), Report::Asked(Request::Stop));
    assert_eq!(starts(&mut supervision, at(0)), [0]);
    // One that ends for good was ready, or never will be.
    let never = ProgramRules { restart: RestartMode::Never, ..PROGRAM };
    let mut supervision = programs(&[0b10, 0], never);
    assert_eq!(starts(&mut supervision, at(0)), [1]);
    let ended = supervision.on_gone(1, at(10), (11, ExitReason::Code(0)), None);
    assert_eq!(ended, (Action::None, Some(Event::Ended(ExitReason::Code(0)))));
    assert_eq!(starts(&mut supervision, at(10)), [0]);
    assert_eq!(supervision.restarts(), 0);
    assert_eq!(supervision.unrecoverable(at(9_000_000)), Some(0), "it is not ready, the other has ended");
}

#[test]
fn restart_says_after_which_ends_a_program_is_started_again() {
    let ends = [ExitReason::Code(0), ExitReason::Code(1), ExitReason::Signal(15), ExitReason::NotStarted];
    for (restart, again) in [
        (RestartMode::Always, [true; 4]),
        (RestartMode::Failure, [false, true, true, true]),
        // A program that never ran has not ended.
        (RestartMode::Never, [false, false, false, true]),
    ] {
        for (reason, again) in ends.into_iter().zip(again) {
            let mut supervision = programs(&[0], ProgramRules { restart, ..PROGRAM });
            let decision = match reason {
                ExitReason::NotStarted => {
                    assert_eq!(supervision.poll(at(0)), Some((0, (Action::CheckLock, None))));
                    supervision.on_not_started(0, at(0))
                }
                _ => {
                    assert_eq!(starts(&mut supervision, at(0)), [0]);
                    supervision.on_gone(0, at(0), (10, reason), None)
                }
            };
            let expected = if again { Event::Died(reason, ms(0)) } else { Event::Ended(reason) };
            assert_eq!(decision, (Action::None, Some(expected)), "{restart:?}");
            assert_eq!(supervision.next_deadline().is_some(), again || supervision.is_starting());
        }
    }
    // A program that a user starts is started with any rule, also while it ends.
    for restart in RestartMode::ALL {
        let mut supervision = programs(&[0], ProgramRules { restart, ..PROGRAM });
        assert_eq!(starts(&mut supervision, at(0)), [0]);
        let decision = supervision.on_report(0, at(1), Report::Asked(Request::Restart));
        assert_eq!(decision, (Action::Dismiss(10), None));
        supervision.on_gone(0, at(2), (10, ExitReason::Signal(15)), None);
        assert_eq!(starts(&mut supervision, at(2)), [0]);
        supervision.on_report(0, at(3), Report::Asked(Request::Stop));
        let stopped = supervision.on_gone(0, at(4), (10, ExitReason::Code(0)), Some(Probe::Free));
        assert_eq!(stopped, (Action::None, Some(Event::Stopped)));
        assert!(starts(&mut supervision, at(9_000_000)).is_empty());
        supervision.on_report(0, at(9_000_000), Report::Asked(Request::Start));
        assert_eq!(starts(&mut supervision, at(9_000_000)), [0]);
    }
}

#[test]
fn a_program_that_is_late_is_named_once_and_continues() {
    let mut supervision = programs(&[0, 0b1], PROGRAM);
    assert_eq!(starts(&mut supervision, at(0)), [0]);
    assert!(!supervision.instances()[0].fails_to_run());
    supervision.on_announced();
    assert_eq!(supervision.next_deadline(), Some(at(60_000)));
    assert_eq!(supervision.poll(at(60_000)), Some((0, (Action::None, Some(Event::Late(10))))));
    // Nothing is probed. The supervisor is awake all the same, so that a suspend shows.
    assert_eq!((supervision.poll(at(60_000)), supervision.next_deadline()), (None, Some(at(65_000))));
    assert!(supervision.instances()[0].fails_to_run() && supervision.instances()[1].is_blocked());
    supervision.on_ready(0);
    assert!(!supervision.instances()[0].fails_to_run());
    assert_eq!(starts(&mut supervision, at(70_000)), [1]);
}

#[test]
fn only_a_program_with_a_health_file_is_probed() {
    let start = ProgramRules { reports_ready: false, ..PROGRAM };
    let mut supervision = programs(&[0], start);
    supervision.add_program(at(0), ProgramRules { has_health_file: true, ..start });
    assert_eq!(supervision.poll(at(0)).unwrap().1.0, Action::CheckLock);
    let ready = supervision.on_report(0, at(0), Report::Started(10));
    assert_eq!(ready, (Action::None, Some(Event::Ready(10))), "it is ready by its start");
    assert_eq!(supervision.poll(at(0)).unwrap().0, 1);
    supervision.on_report(1, at(0), Report::Started(11));
    assert_eq!(supervision.poll(at(0)), Some((1, (Action::Probe, None))));
    assert_eq!(supervision.poll(at(0)), None);
    // Its own time counts: three bad probes, then its own time to end.
    let missing = Err(ProbeError::Missing);
    assert_eq!(supervision.on_program_file(1, at(900), missing), NOTHING);
    let first = supervision.on_program_file(1, at(1001), missing);
    assert_eq!(first, (Action::None, Some(Event::CheckFailed(ProbeError::Missing))));
    supervision.on_program_file(1, at(1002), missing);
    assert_eq!(supervision.on_program_file(1, at(1003), missing).0, Action::Confirm);
    supervision.on_report(1, at(1003), Report::Answer(SocketAnswer::Unreachable));
    supervision.on_announced();
    assert_eq!(supervision.next_deadline(), Some(at(3003)));
}

#[test]
fn what_an_instance_needs_follows_the_indexes() {
    let mut supervision = programs(&[0, 0, 0b11, 0b110], PROGRAM);
    supervision.remove(1);
    let needs = supervision.instances().iter().map(|instance| instance.needs).collect::<Vec<_>>();
    assert_eq!(needs, [0, 0b1, 0b10]);
}

/// Checks in random histories that no program is started before those that it needs, none is stopped
/// after them, and that the supervisor ends when all have ended.
#[test]
fn in_any_history_the_order_holds() {
    let mut seed = 7u64;
    let mut below = |limit: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % limit
    };
    for _ in 0..500 {
        let restart = RestartMode::ALL[usize::try_from(below(3)).unwrap()];
        let rules = ProgramRules { restart, reports_ready: below(2) == 0, ..PROGRAM };
        // Each needs some of those before it, so there is no circle.
        let needs: Vec<u64> = (0..MANY).map(|index| below(1 << index)).collect();
        let mut supervision = programs(&needs, rules);
        let (mut now, mut next_pid, mut stop) = (at(0), 100, None);
        for step in 0..200 {
            // A start that failed is tried again in the next round, and so are those that wait for it.
            for _ in 0..2 * MANY {
                let mut decisions = 0;
                while let Some((index, (mut action, _))) = supervision.poll(now) {
                    decisions += 1;
                    assert!(decisions < 50, "the loop spins");
                    if action == Action::CheckLock {
                        action = supervision.on_lock(index, now, None).0;
                    }
                    match action {
                        Action::Start if below(4) == 0 => drop(supervision.on_not_started(index, now)),
                        Action::Start => {
                            assert_eq!((supervision.pid(index), stop), (None, None));
                            for other in (0..MANY).filter(|other| needs[index] >> other & 1 != 0) {
                                assert!(
                                    supervision.instances()[other].blocks_none(),
                                    "{index} before {other}"
                                );
                            }
                            next_pid += 1;
                            supervision.on_report(index, now, Report::Started(next_pid));
                        }
                        Action::Terminate(pid) => {
                            assert_eq!((supervision.pid(index), stop.is_some()), (Some(pid), true));
                            for other in (0..MANY).filter(|other| needs[*other] >> index & 1 != 0) {
                                assert!(supervision.instances()[other].is_over(), "{index} before {other}");
                            }
                        }
                        _ => {}
                    }
                }
            }
            if supervision.is_ready(now) {
                supervision.on_announced();
            }
            assert!(!supervision.next_deadline().is_some_and(|next| next.is_due(now)), "the loop spins");
            let index = usize::try_from(below(MANY as u64)).unwrap();
            match below(8) {
                0 if step > 100 && stop.is_none() => {
                    stop = Some(now);
                    supervision.on_stop(below(2) == 0);
                }
                0 | 1 if supervision.pid(index).is_some() => {
                    let pid = supervision.pid(index).unwrap();
                    let reason = if below(2) == 0 { ExitReason::Code(0) } else { ExitReason::Signal(9) };
                    supervision.on_gone(index, now, (pid, reason), None);
                }
                2 | 3 => drop(supervision.on_ready(index)),
                4 => drop(supervision.on_report(index, now, Report::Asked(Request::Start))),
                5 => drop(supervision.on_report(index, now, Report::Asked(Request::Restart))),
                _ => now += ms(below(3000)),
            }
        }
        supervision.on_stop(false);
        for _ in 0..2 * MANY {
            while supervision.poll(now).is_some() {}
            (0..MANY).for_each(|index| {
                if let Some(pid) = supervision.pid(index) {
                    supervision.on_gone(index, now, (pid, ExitReason::Code(0)), None);
                }
            });
        }
        assert!(supervision.is_over());
    }
}
