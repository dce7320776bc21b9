//! The machine of the supervisor: its rules one by one, every event in every phase,
//! and random histories.

use super::*;
use crate::limits::RESTART_QUICK;
use crate::proto::health::{HealthRecord, UNKNOWN_BOOT, Verdict};

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
/// Returns the result of a probe that finds the heartbeat `seq` of process `pid`.
const fn beat(pid: u32, seq: u64) -> Probe {
    Probe::Held(pid, Ok(Beat { seq, written: at(1_000_000_000) }))
}

/// Returns the result of a probe that finds no heartbeat of process 7.
const fn lost(error: ProbeError) -> Probe {
    Probe::Held(7, Err(error))
}

/// The heartbeat that was found last does not change any more.
const SAME: Probe = beat(7, 1);
const LOST: [ProbeError; 5] = [
    ProbeError::OtherBoot,
    ProbeError::OtherPid,
    ProbeError::Future,
    ProbeError::Unreadable,
    ProbeError::Missing,
];

/// Returns an instance that runs as process 7 since `now`, and whose first heartbeat was found.
fn running(now: Instant) -> Instance {
    let mut instance = Instance::new(now);
    assert_eq!(instance.on_deadline(now, &RULES), (Action::CheckLock, None));
    instance.on_started(now, 7);
    assert_eq!(instance.on_ready(), (Action::None, Some(Event::Ready(7))));
    assert_eq!(instance.on_probe(now, SAME, &RULES), NOTHING);
    instance
}

/// Returns the error of a heartbeat that is this old.
const fn stale(age: u64) -> ProbeError {
    ProbeError::Stale(ms(age))
}

#[test]
fn the_third_bad_look_in_a_row_ends_it_and_a_good_one_resets_the_count() {
    let mut instance = running(at(0));
    assert_eq!(instance.on_probe(at(15_000), SAME, &RULES), NOTHING, "not older than stale_after");
    let unwell = |age| (Action::None, Some(Event::CheckFailed(stale(age))));
    assert_eq!(instance.on_probe(at(15_001), SAME, &RULES), unwell(15_001));
    assert_eq!(instance.on_probe(at(15_002), SAME, &RULES), NOTHING);
    assert_eq!(instance.on_probe(at(15_003), beat(7, 2), &RULES), (Action::None, Some(Event::Recovered)));
    assert_eq!(instance.on_probe(at(15_004), beat(7, 2), &RULES), NOTHING);
    assert_eq!(instance.on_probe(at(30_004), beat(7, 2), &RULES), unwell(15_001));
    assert_eq!(instance.on_probe(at(30_005), beat(7, 2), &RULES), NOTHING);
    assert_eq!(instance.on_probe(at(30_006), beat(7, 2), &RULES), (Action::Confirm, None));
    let given_up = (Action::Terminate(7), Some(Event::Restarting(stale(15_003))));
    assert_eq!(instance.on_answer(at(30_007), SocketAnswer::Unreachable, &RULES), given_up);
    assert_eq!(instance.on_probe(at(30_008), beat(7, 2), &RULES), NOTHING, "it has time to end");
    assert_eq!(instance.on_deadline(at(40_006), &RULES), NOTHING);
    assert_eq!(instance.on_deadline(at(40_007), &RULES), (Action::Kill(7), Some(Event::Killing)));
    assert_eq!(instance.on_deadline(at(40_008), &RULES), NOTHING);
    let died = (Action::None, Some(Event::Replaced(ExitReason::Signal(9), ms(0))));
    assert_eq!(instance.on_gone(at(40_010), 7, ExitReason::Signal(9), Probe::Died), died);
    assert_eq!(instance.on_deadline(at(40_010), &RULES), (Action::CheckLock, None), "at once");
}

/// Returns an instance whose heartbeat was stale in as many probes as the rules allow, and
/// which is to be confirmed, at the time 15,003.
fn suspected() -> Instance {
    let mut instance = running(at(0));
    instance.on_probe(at(15_001), SAME, &RULES);
    instance.on_probe(at(15_002), SAME, &RULES);
    assert_eq!(instance.on_probe(at(15_003), SAME, &RULES), (Action::Confirm, None));
    instance
}

#[test]
fn a_hang_is_confirmed_by_a_socket_that_does_not_answer_in_time() {
    let mut instance = suspected();
    let until = at(15_003) + ANSWER_PATIENCE;
    assert_eq!(instance.next_deadline(), Some(until));
    assert_eq!(instance.on_probe(at(15_004), SAME, &RULES), NOTHING, "the answer is awaited");
    assert_eq!(instance.on_deadline(until.minus(ms(1)), &RULES), NOTHING);
    let given_up = (Action::Terminate(7), Some(Event::Restarting(stale(15_003))));
    assert_eq!(instance.on_deadline(until, &RULES), given_up);
    assert_eq!(instance.on_answer(until, SocketAnswer::Answered, &RULES), NOTHING, "too late");
    // A heartbeat that comes in the meantime is the answer, too.
    let mut instance = suspected();
    assert_eq!(instance.on_probe(at(15_004), beat(7, 2), &RULES).1, Some(Event::Recovered));
    assert_eq!(instance.next_deadline(), None);
    assert_eq!(instance.on_answer(until, SocketAnswer::Unreachable, &RULES), NOTHING);
}

#[test]
fn a_process_whose_socket_answers_is_left_alone_and_named() {
    let mut instance = suspected();
    let answering = (Action::None, Some(Event::Answering(stale(15_003))));
    assert_eq!(instance.on_answer(at(15_010), SocketAnswer::Answered, &RULES), answering);
    assert!(instance.is_unjudged() && !instance.is_unrecoverable(at(u64::MAX), ms(300_000)));
    for round in 0..20 {
        let now = at(20_000 + round * 10);
        assert_eq!(instance.on_probe(now, SAME, &RULES), NOTHING, "it is logged once");
        assert_eq!(instance.on_probe(now, SAME, &RULES), NOTHING);
        assert_eq!(instance.on_probe(now, SAME, &RULES), (Action::Confirm, None));
        assert_eq!(instance.on_answer(now, SocketAnswer::Answered, &RULES), NOTHING);
    }
    assert_eq!(instance.on_probe(at(90_000), beat(7, 2), &RULES), (Action::None, Some(Event::Recovered)));
    assert!(!instance.is_unjudged());
}

#[test]
fn nothing_is_ended_while_the_supervisor_cannot_write_its_own_heartbeat() {
    let mut instance = suspected();
    for round in 1..100 {
        let now = at(16_000 * round);
        assert_eq!(instance.on_answer(now, SocketAnswer::Unknown, &RULES), NOTHING);
        assert!(instance.is_unjudged() && !instance.is_unrecoverable(at(u64::MAX), ms(300_000)));
        // The file can be written again, but not since long enough for a heartbeat.
        for probe in 0..10 {
            assert_eq!(instance.on_probe(now + ms(probe), SAME, &RULES), NOTHING);
        }
        let later = now + RULES.stale_after;
        assert_eq!(instance.on_probe(later, SAME, &RULES), NOTHING);
        assert_eq!(instance.on_probe(later, SAME, &RULES), NOTHING);
        assert_eq!(instance.on_probe(later, SAME, &RULES), (Action::Confirm, None));
    }
    let end = at(16_000 * 100);
    assert_eq!(instance.on_answer(end, SocketAnswer::Unreachable, &RULES).0, Action::Terminate(7));
}

#[test]
fn a_lost_heartbeat_is_named_and_only_the_socket_counts() {
    for error in LOST {
        let mut instance = running(at(0));
        let first = (Action::Ask, Some(Event::HeartbeatLost(error)));
        assert_eq!(instance.on_probe(at(15_001), lost(error), &RULES), first);
        assert!(instance.is_unjudged());
        assert_eq!(instance.on_probe(at(15_002), lost(error), &RULES), NOTHING, "the answer is awaited");
        for answer in [SocketAnswer::Answered, SocketAnswer::Unreachable, SocketAnswer::Unknown].repeat(50) {
            assert_eq!(instance.on_answer(at(15_003), answer, &RULES), NOTHING, "{answer:?}");
            assert_eq!(instance.on_probe(at(15_004), lost(error), &RULES), (Action::Ask, None));
        }
        assert!(!instance.is_unrecoverable(at(u64::MAX), ms(0)), "it counts for nothing");
        let well = (Action::None, Some(Event::Recovered));
        assert_eq!(instance.on_probe(at(15_005), beat(7, 9), &RULES), well);
        assert!(!instance.is_unjudged());
    }
}

#[test]
fn a_socket_that_is_silent_in_three_checks_in_a_row_ends_a_process_without_a_heartbeat() {
    let missing = lost(ProbeError::Missing);
    let mut instance = running(at(0));
    let mut now = at(20_000);
    let mut check = |instance: &mut Instance, answer: Option<SocketAnswer>| {
        assert_eq!(instance.on_probe(now, missing, &RULES).0, Action::Ask);
        now += ANSWER_PATIENCE;
        match answer {
            Some(answer) => instance.on_answer(now, answer, &RULES),
            None => instance.on_deadline(now, &RULES),
        }
    };
    let first = (Action::None, Some(Event::CheckFailed(ProbeError::Silent)));
    assert_eq!(check(&mut instance, None), first);
    assert_eq!(check(&mut instance, None), NOTHING);
    let answered = (Action::None, Some(Event::Answered));
    assert_eq!(check(&mut instance, Some(SocketAnswer::Answered)), answered);
    assert_eq!(check(&mut instance, None), first, "the count begins again");
    assert_eq!(check(&mut instance, Some(SocketAnswer::Unreachable)), NOTHING, "that proves nothing");
    assert_eq!(check(&mut instance, None), NOTHING);
    let given_up = (Action::Terminate(7), Some(Event::Restarting(ProbeError::Silent)));
    assert_eq!(check(&mut instance, None), given_up);
}

#[test]
fn a_heartbeat_by_another_clock_is_judged_by_its_number() {
    // The clock of the process stands an hour before, or a day after the one of the supervisor.
    for adopted in [true, false] {
        let mut instance = running(at(3_600_000));
        instance.adopted = adopted;
        for number in 2..100 {
            let probe = Probe::Held(7, Ok(Beat { seq: number, written: at(86_400_000) }));
            assert_eq!(instance.on_probe(at(3_600_000 + number * 20_000), probe, &RULES), NOTHING);
        }
    }
    // A record that is older than a child is of an earlier process with its PID.
    let old = Probe::Held(7, Ok(Beat { seq: 9, written: at(3_599_999) }));
    let mut child = running(at(3_600_000));
    let lost = (Action::Ask, Some(Event::HeartbeatLost(ProbeError::OtherPid)));
    assert_eq!(child.on_probe(at(3_600_010), old, &RULES), lost);
    let mut adopted = running(at(3_600_000));
    adopted.adopted = true;
    assert_eq!(adopted.on_probe(at(3_600_010), old, &RULES), NOTHING);
}

#[test]
fn a_process_of_another_pid_namespace_is_watched_by_its_lock_and_never_signalled() {
    let foreign = (Action::None, Some(Event::Foreign));
    let mut instance = Instance::new(at(0));
    assert_eq!(instance.on_probe(at(0), Probe::Foreign, &RULES), foreign);
    assert_eq!((instance.pid(), instance.next_deadline()), (None, None));
    assert!(instance.is_settled() && instance.is_unjudged());
    assert!(!instance.is_unrecoverable(at(u64::MAX), ms(0)));
    for now in [1, 1_000_000] {
        assert_eq!(instance.on_probe(at(now), Probe::Foreign, &RULES), NOTHING);
    }
    let mut stopped = instance;
    assert_eq!(stopped.on_probe(at(1_000_001), Probe::Free, &RULES).1, Some(Event::Stopped));
    assert!(!stopped.is_unjudged());
    let mut died = instance;
    let event = died.on_probe(at(1_000_001), Probe::Died, &RULES).1;
    assert_eq!(event, Some(Event::Died(ExitReason::Unknown, ms(0))));
    assert_eq!(died.on_deadline(at(1_000_001), &RULES), (Action::CheckLock, None));
    let mut adopted = instance;
    assert_eq!(adopted.on_probe(at(5), beat(8, 1), &RULES).1, Some(Event::Adopted(8)));
    let mut left = instance;
    assert_eq!(left.on_shutdown(at(5), &RULES), NOTHING);
    assert_eq!((left.on_second_stop(at(6)), left.is_over()), (NOTHING, true));
}

#[test]
fn what_keeps_dying_is_restarted_more_and_more_slowly_and_never_given_up() {
    let mut instance = running(at(0));
    let mut delays = Vec::new();
    let mut now = at(0);
    for _ in 0..10 {
        now += ms(100);
        let (_, event) = instance.on_gone(now, 7, ExitReason::Code(1), Probe::Died);
        let Some(Event::Died(ExitReason::Code(1), delay)) = event else { panic!("{event:?}") };
        delays.push(delay.as_secs());
        assert_eq!(
            instance.on_deadline(now + ms(delay.as_ms().saturating_sub(1)), &RULES).0 == Action::CheckLock,
            delay.is_zero()
        );
        now += delay;
        assert_eq!(instance.on_deadline(now, &RULES), (Action::CheckLock, None));
        instance.on_started(now, 7);
        instance.on_ready();
    }
    assert_eq!(delays, [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
    now += RESTART_QUICK;
    assert_eq!(
        instance.on_gone(now, 7, ExitReason::Code(1), Probe::Died).1,
        Some(Event::Died(ExitReason::Code(1), ms(0)))
    );
}

#[test]
fn a_deliberate_stop_is_respected_until_somebody_starts_it() {
    let mut instance = running(at(0));
    let stopped = (Action::None, Some(Event::Stopped));
    assert_eq!(instance.on_gone(at(5), 7, ExitReason::Code(0), Probe::Free), stopped);
    assert_eq!((instance.on_deadline(at(1_000_000), &RULES), instance.next_deadline()), (NOTHING, None));
    assert_eq!(instance.on_probe(at(6), Probe::Free, &RULES), NOTHING);
    assert!(!instance.is_unrecoverable(at(u64::MAX), ms(0)), "it is as it should be");
    assert_eq!(instance.on_probe(at(7), beat(8, 1), &RULES), (Action::None, Some(Event::Adopted(8))));
    // An adopted process is no child: only its PID file shows the stop.
    assert_eq!(instance.on_gone(at(9), 8, ExitReason::Unknown, Probe::Free), stopped);
}

#[test]
fn only_the_mark_of_a_stop_makes_an_end_one_on_purpose() {
    for reason in [ExitReason::Code(0), ExitReason::Code(6), ExitReason::Signal(9), ExitReason::Unknown] {
        let event = running(at(0)).on_gone(at(5), 7, reason, Probe::Died).1;
        assert_eq!(event, Some(Event::Died(reason, ms(0))), "a stranger's signal, or a crash");
        assert_eq!(running(at(0)).on_gone(at(5), 7, reason, Probe::Free).1, Some(Event::Stopped));
        let mut starting = Instance::new(at(0));
        starting.on_deadline(at(0), &RULES);
        starting.on_started(at(0), 7);
        assert_eq!(starting.on_gone(at(5), 7, reason, Probe::Free).1, Some(Event::Stopped));
    }
}

#[test]
fn bad_looks_at_one_process_are_not_those_of_the_next() {
    let twice_bad = || {
        let mut instance = running(at(0));
        instance.on_probe(at(15_001), SAME, &RULES);
        instance.on_probe(at(15_002), SAME, &RULES);
        instance
    };
    let mut adopted = twice_bad();
    assert_eq!(adopted.on_probe(at(15_003), beat(8, 1), &RULES).1, Some(Event::Adopted(8)));
    assert_eq!(adopted.on_probe(at(15_004), beat(8, 1), &RULES), NOTHING);
    assert_eq!(adopted.on_probe(at(30_005), beat(8, 1), &RULES).1, Some(Event::CheckFailed(stale(15_001))));
    let mut stopped = twice_bad();
    assert_eq!(stopped.on_gone(at(15_003), 7, ExitReason::Code(0), Probe::Free).1, Some(Event::Stopped));
    assert!(!stopped.is_unrecoverable(at(400_000), ms(300_000)), "it is as it should be");
    stopped.on_probe(at(15_004), Probe::Died, &RULES);
    stopped.on_deadline(at(15_004), &RULES);
    stopped.on_started(at(15_004), 8);
    let late = at(15_004) + RULES.stale_after * 8 + ms(1);
    let bad = Probe::Held(8, Err(ProbeError::Unreadable));
    assert_eq!(stopped.on_probe(late, bad, &RULES).1, Some(Event::CheckFailed(ProbeError::NotReady)));
}

#[test]
fn what_we_end_ourselves_is_started_at_once_each_time() {
    let impatient = Rules { failures: 1, ..RULES };
    let mut now = at(0) + RESTART_QUICK;
    let mut instance = running(now);
    for _ in 0..3 {
        instance.on_probe(now, SAME, &impatient);
        now += ms(15_001);
        assert_eq!(instance.on_probe(now, SAME, &impatient), (Action::Confirm, None));
        assert_eq!(instance.on_answer(now, SocketAnswer::Silent, &impatient).0, Action::Terminate(7));
        let event = instance.on_gone(now, 7, ExitReason::Code(0), Probe::Died).1;
        assert_eq!(event, Some(Event::Replaced(ExitReason::Code(0), ms(0))));
        instance.on_deadline(now, &RULES);
        instance.on_started(now, 7);
        instance.on_ready();
    }
}

#[test]
fn one_that_was_started_by_hand_and_died_unseen_is_no_longer_stopped() {
    let mut instance = running(at(0));
    instance.on_gone(at(5), 7, ExitReason::Code(0), Probe::Free);
    let died = Some(Event::Died(ExitReason::Unknown, ms(0)));
    assert_eq!(instance.on_probe(at(6), Probe::Died, &RULES), (Action::None, died));
    assert_eq!(instance.on_deadline(at(6), &RULES), (Action::CheckLock, None));
    let mut shutting_down = running(at(0));
    shutting_down.on_shutdown(at(5), &RULES);
    shutting_down.on_gone(at(6), 7, ExitReason::Signal(9), Probe::Died);
    assert_eq!(shutting_down.on_probe(at(7), Probe::Died, &RULES), NOTHING);
}

#[test]
fn one_that_is_dead_or_fails_at_each_start_is_stopped_by_the_mark() {
    let mut instance = running(at(0));
    instance.on_gone(at(5), 7, ExitReason::Signal(11), Probe::Died);
    assert_eq!(instance.on_probe(at(6), Probe::Died, &RULES), NOTHING);
    assert_eq!(instance.on_probe(at(7), Probe::Free, &RULES), (Action::None, Some(Event::Stopped)));
    assert_eq!((instance.on_deadline(at(1_000_000), &RULES), instance.next_deadline()), (NOTHING, None));
    assert!(!instance.is_unrecoverable(at(1_000_000), ms(300_000)));
    // Without the mark a start that fails is tried again.
    let mut failing = Instance::new(at(0));
    failing.on_deadline(at(0), &RULES);
    failing.on_started(at(0), 7);
    let event = failing.on_gone(at(1), 7, ExitReason::Code(6), Probe::Died).1;
    assert_eq!(event, Some(Event::Died(ExitReason::Code(6), ms(0))));
    assert_eq!(failing.on_deadline(at(1), &RULES), (Action::CheckLock, None));
    assert_eq!(
        failing.on_report(at(1), Report::NotStarted, &RULES).1,
        Some(Event::Died(ExitReason::NotStarted, ms(1000)))
    );
    failing.on_deadline(at(1001), &RULES);
    let stopped = failing.on_report(at(1001), Report::Lock(Some(Probe::Free)), &RULES);
    assert_eq!(stopped, (Action::None, Some(Event::Stopped)));
}

#[test]
fn one_that_is_never_ready_is_ended_too() {
    let mut instance = Instance::new(at(0));
    instance.on_deadline(at(0), &RULES);
    instance.on_started(at(0), 7);
    assert_eq!(instance.on_probe(at(120_000), Probe::Free, &RULES), NOTHING, "a large spool takes its time");
    assert_eq!(
        instance.on_probe(at(120_001), SAME, &RULES).1,
        Some(Event::CheckFailed(ProbeError::NotReady))
    );
    instance.on_probe(at(120_002), SAME, &RULES);
    assert_eq!(instance.on_probe(at(120_003), SAME, &RULES), (Action::Confirm, None));
    let mut answering = instance;
    let event = Some(Event::Answering(ProbeError::NotReady));
    assert_eq!(answering.on_answer(at(120_004), SocketAnswer::Answered, &RULES).1, event);
    assert_eq!(instance.on_answer(at(120_004), SocketAnswer::Unreachable, &RULES).0, Action::Terminate(7));
}

#[test]
fn a_running_one_is_adopted_and_another_holder_replaces_it() {
    let mut instance = Instance::new(at(0));
    assert_eq!(instance.on_probe(at(0), SAME, &RULES), (Action::None, Some(Event::Adopted(7))));
    assert_eq!(instance.next_deadline(), None, "nothing is started");
    assert_eq!(instance.on_probe(at(1), beat(8, 1), &RULES).1, Some(Event::Adopted(8)));
    assert_eq!(instance.on_gone(at(2), 7, ExitReason::Code(0), Probe::Free), NOTHING, "an older one");
    assert_eq!(
        instance.on_probe(at(3), Probe::Died, &RULES).1,
        Some(Event::Died(ExitReason::Unknown, ms(0)))
    );
    // Another process was started earlier, and is adopted.
    instance.on_deadline(at(3), &RULES);
    instance.on_started(at(3), 9);
    assert_eq!(instance.on_gone(at(4), 9, ExitReason::Code(1), SAME).1, Some(Event::Adopted(7)));
}

#[test]
fn one_that_was_just_adopted_has_time_for_its_first_heartbeat() {
    let rules = Rules { failures: 1, ..RULES };
    for error in [ProbeError::Missing, ProbeError::OtherPid, ProbeError::OtherBoot] {
        let mut instance = Instance::new(at(0));
        assert_eq!(instance.on_probe(at(1000), lost(error), &rules).1, Some(Event::Adopted(7)));
        assert_eq!(instance.on_probe(at(16_000), lost(error), &rules), NOTHING);
        assert_eq!(instance.on_probe(at(16_001), lost(error), &rules).0, Action::Ask);
    }
    // It counts whether or not the record was ever fresh.
    let mut hung = Instance::new(at(0));
    hung.on_probe(at(1000), SAME, &rules);
    assert_eq!(hung.on_probe(at(1001), SAME, &rules), NOTHING);
    assert_eq!(hung.on_probe(at(16_001), SAME, &rules), NOTHING);
    assert_eq!(hung.on_probe(at(16_002), SAME, &rules), (Action::Confirm, None));
}

#[test]
fn the_watchdog_is_let_go_for_what_stays_unwell_or_cannot_be_killed() {
    let mut instance = running(at(0));
    assert!(!instance.is_unrecoverable(at(u64::MAX), ms(0)));
    instance.on_probe(at(16_000), SAME, &RULES);
    assert!(
        !instance.is_unrecoverable(at(316_000), ms(300_000))
            && instance.is_unrecoverable(at(316_001), ms(300_000))
    );
    instance.on_probe(at(17_000), SAME, &RULES);
    instance.on_probe(at(18_000), SAME, &RULES);
    instance.on_answer(at(18_000), SocketAnswer::Silent, &RULES);
    instance.on_deadline(at(28_000), &RULES);
    assert_eq!(
        (instance.next_deadline(), instance.on_deadline(at(32_999), &RULES)),
        (Some(at(33_000)), NOTHING)
    );
    assert!(!instance.is_unrecoverable(at(32_999), ms(300_000)));
    assert_eq!(instance.on_deadline(at(33_000), &RULES), (Action::None, Some(Event::Unkillable)));
    assert!(
        instance.is_unrecoverable(at(33_000), ms(300_000)) && instance.is_over() && instance.pid().is_some()
    );
    assert_eq!((instance.next_deadline(), instance.on_deadline(at(99_999), &RULES)), (None, NOTHING));
    instance.on_gone(at(33_002), 7, ExitReason::Signal(9), Probe::Died);
    assert!(!instance.is_unrecoverable(at(33_003), ms(300_000)), "it is gone, but was it ever well?");
    assert!(instance.is_unrecoverable(at(400_000), ms(300_000)), "it was not");
}

#[test]
fn one_that_keeps_dying_is_hopeless_though_it_is_ready_each_time() {
    let mut instance = running(at(0));
    let mut now = at(0);
    while !instance.is_unrecoverable(now, ms(300_000)) {
        now += ms(1000);
        let (_, event) = instance.on_gone(now, 7, ExitReason::Signal(11), Probe::Died);
        let Some(Event::Died(_, delay)) = event else { panic!("{event:?}") };
        now += delay;
        instance.on_deadline(now, &RULES);
        instance.on_started(now, 7);
        instance.on_ready();
        assert!(now < at(400_000));
    }
    assert!(now > at(300_000));
    let now = now + RESTART_QUICK + ms(20_000);
    assert!(!instance.is_unrecoverable(now, ms(300_000)), "it lives");
    instance.on_probe(now, SAME, &RULES);
    let now = now + ms(15_001);
    instance.on_probe(now, SAME, &RULES);
    assert!(
        !instance.is_unrecoverable(now + ms(300_000), ms(300_000))
            && instance.is_unrecoverable(now + ms(300_001), ms(300_000))
    );
}

#[test]
fn one_that_hangs_each_time_is_hopeless_however_rare_the_looks_are() {
    let mut instance = running(at(0));
    let mut now = at(0);
    while !instance.is_unrecoverable(now, ms(300_000)) {
        now += ms(60_000);
        assert!(now <= at(480_000));
        let first = Probe::Held(7, Ok(Beat { seq: 1, written: instance.started_at }));
        if instance.on_probe(now, first, &RULES).0 == Action::Confirm {
            instance.on_answer(now, SocketAnswer::Silent, &RULES);
            instance.on_gone(now, 7, ExitReason::Code(0), Probe::Died);
            instance.on_deadline(now, &RULES);
            instance.on_started(now, 7);
            instance.on_ready();
        }
    }
}

#[test]
fn when_the_supervisor_leaves_nothing_is_started_any_more() {
    let mut instance = running(at(0));
    assert_eq!(instance.on_shutdown(at(5), &RULES).0, Action::Terminate(7));
    assert_eq!(instance.on_shutdown(at(6), &RULES), NOTHING);
    assert_eq!(instance.on_deadline(at(12_004), &RULES), NOTHING, "it waits for its own handlers");
    assert_eq!(instance.on_deadline(at(12_005), &RULES), (Action::Kill(7), Some(Event::Killing)));
    assert_eq!(instance.on_gone(at(12_006), 7, ExitReason::Signal(9), Probe::Died), NOTHING);
    assert!(instance.pid().is_none() && instance.is_over());
    assert_eq!(instance.on_probe(at(12_007), beat(8, 1), &RULES), NOTHING);
    let mut waiting = Instance::new(at(0));
    assert_eq!(waiting.on_shutdown(at(0), &RULES), NOTHING);
    assert_eq!(waiting.on_deadline(at(99), &RULES), NOTHING);
}

#[test]
fn what_an_earlier_supervisor_left_ends_before_the_start() {
    let left = || {
        let mut instance = Instance::new(at(0));
        let decision = instance.on_report(at(0), Report::Left(7), &RULES);
        assert_eq!(decision, (Action::Terminate(7), Some(Event::LeftFound(7))));
        instance
    };
    let gone = |instance: &mut Instance, now| {
        instance.on_report(now, Report::Gone(7, ExitReason::Unknown, None), &RULES)
    };
    // The looks become rarer, and do not delay KILL.
    let (mut instance, mut looks) = (left(), 0);
    let (mut now, decision) = loop {
        let now = instance.next_deadline().unwrap();
        match instance.on_deadline(now, &RULES) {
            (Action::Look(7), None) => looks += 1,
            decision => break (now, decision),
        }
    };
    assert_eq!((now, decision), (at(10_000), (Action::Kill(7), Some(Event::Killing))));
    assert!((12..20).contains(&looks), "{looks}");
    assert!(!instance.is_settled() && instance.on_ready() == NOTHING);
    while instance.on_deadline(now, &RULES) != (Action::None, Some(Event::Unkillable)) {
        assert!(!instance.is_unkillable() && now < at(16_000));
        now = instance.next_deadline().unwrap();
    }
    assert!(instance.is_unkillable() && instance.is_unrecoverable(now, RULES.watchdog_patience));
    // It is looked for as long as it is there, and then the program is started at once.
    now = instance.next_deadline().unwrap();
    assert_eq!(instance.on_deadline(now, &RULES), (Action::Look(7), None));
    assert_eq!(gone(&mut instance, now), (Action::CheckLock, Some(Event::LeftEnded)));
    instance.on_started(now, 8);
    assert_eq!((instance.phase(), instance.next_deadline()), (Phase::Starting(8), None));
    // The end of its own process is a death again.
    let died = instance.on_report(now, Report::Gone(8, ExitReason::Code(1), None), &RULES);
    assert_eq!(died, (Action::None, Some(Event::Died(ExitReason::Code(1), ms(0)))));
    // A supervisor that stops waits for it, and starts nothing.
    for second in [false, true] {
        let mut instance = left();
        assert_eq!(instance.on_report(at(1), Report::Stop, &RULES), NOTHING);
        assert!(!instance.is_over());
        if second {
            let decision = instance.on_report(at(2), Report::SecondStop, &RULES);
            assert_eq!(decision, (Action::Kill(7), Some(Event::Killing)));
        }
        assert_eq!(gone(&mut instance, at(3)), NOTHING);
        assert!(instance.is_over() && instance.phase() == Phase::Stopped);
    }
}

#[test]
fn a_stop_ends_what_a_program_leaves_while_it_goes_to_the_background() {
    let never = ProgramRules {
        restart: RestartMode::Never,
        reports_ready: false,
        start_timeout: ms(1000),
        stop_timeout: ms(1000),
        stale_after: ms(1000),
        has_health_file: false,
    };
    let started = || {
        let mut instance = Instance::of_program(at(0), never);
        instance.on_started(at(0), 7);
        instance
    };
    let ended = |instance: &mut Instance, probe| {
        assert!(instance.may_be_in_background(at(10_000)) && !instance.may_be_in_background(at(10_001)));
        let decision = instance.on_report(at(20), Report::Gone(7, ExitReason::Code(0), probe), &RULES);
        (decision.1, instance.on_report(at(20), Report::Background(8), &RULES))
    };
    // A user stops it, or the supervisor stops.
    for shuts_down in [false, true] {
        let mut instance = started();
        let report = if shuts_down { Report::Stop } else { Report::Asked(Request::Stop) };
        assert_ne!(instance.on_report(at(10), report, &RULES), NOTHING);
        let (event, decision) = ended(&mut instance, (!shuts_down).then_some(Probe::Free));
        assert_eq!(event, (!shuts_down).then_some(Event::Stopped));
        assert_eq!(decision, (Action::Terminate(8), None));
        assert!(!instance.is_over(), "the supervisor waits for it");
        let gone = Report::Gone(8, ExitReason::Unknown, Some(Probe::Free));
        let mut decision = instance.on_report(at(30), gone, &RULES);
        if decision.0 == Action::CheckLock {
            decision = instance.on_report(at(30), Report::Lock(Some(Probe::Free)), &RULES);
        }
        assert_eq!(decision.0, Action::None);
        assert_eq!(instance.phase(), Phase::Stopped);
    }
    // After its own end its rules do not start it again.
    assert_eq!(ended(&mut started(), None), (Some(Event::Ended(ExitReason::Code(0))), NOTHING));
}

/// Returns an instance in each phase at the time 100,000, in milliseconds since boot, with
/// process 7 since 50,000 if there is a process.
fn each_phase() -> [(&'static str, Instance); 8] {
    let phases = [
        ("waiting", Phase::Backoff(at(101_000))),
        ("starting", Phase::Starting(7)),
        ("running", Phase::Running(7)),
        ("ending", Phase::Stopping(7, at(101_000))),
        ("killed", Phase::Killing(7, at(99_000))),
        ("unkillable", Phase::Unkillable(7)),
        ("foreign", Phase::Foreign),
        ("stopped", Phase::Stopped),
    ];
    phases.map(|(name, phase)| {
        let mut instance = Instance { phase, unwell_since: None, ..Instance::new(at(50_000)) };
        // The heartbeat 1 was found when the process was ready.
        let _ = instance.heartbeat.judge(at(50_000), 1, at(50_000), RULES.stale_after);
        (name, instance)
    })
}

/// Returns the effect of an event on each phase, as text: the next phase, the action, the
/// event to log.
fn table(event: impl Fn(&mut Instance) -> Decision) -> String {
    let mut lines = String::new();
    for (name, mut instance) in each_phase() {
        let (action, event) = event(&mut instance);
        let event = event.map_or("-".to_owned(), |event| format!("{event:?}"));
        let phase = match instance.phase {
            Phase::Starting(pid) => format!("Starting({pid}, {:?})", instance.started_at),
            Phase::Running(pid) => format!("Running({pid}, {:?})", instance.started_at),
            phase => format!("{phase:?}"),
        };
        lines += &format!("{name}: {phase}, {action:?}, {event}\n");
    }
    lines
}

const NOW: Instant = at(100_000);

#[test]
fn each_look_in_each_phase() {
    // With these rules a start is late after 48 s.
    let rules = Rules { stale_after: ms(6000), ..RULES };
    let probe = |probe: Probe| table(|instance| instance.on_probe(NOW, probe, &rules));
    let held = |running: &str, foreign: &str| {
        format!(
            "waiting: Running(7, 100000), None, Adopted(7)\n\
             starting: Starting(7, 50000), None, CheckFailed(NotReady)\n\
             running: Running(7, 50000), {running}\n\
             ending: Stopping(7, 101000), None, -\n\
             killed: Killing(7, 99000), None, -\n\
             unkillable: Unkillable(7), None, -\n\
             foreign: {foreign}\n\
             stopped: Running(7, 100000), None, Adopted(7)\n"
        )
    };
    let adopted = "Running(7, 100000), None, Adopted(7)";
    assert_eq!(probe(beat(7, 2)), held("None, -", adopted));
    assert_eq!(probe(SAME), held("None, CheckFailed(Stale(50000))", adopted));
    for error in LOST {
        assert_eq!(probe(lost(error)), held(&format!("Ask, HeartbeatLost({error:?})"), adopted));
    }
    assert_eq!(
        probe(beat(8, 1)),
        "waiting: Running(8, 100000), None, Adopted(8)\n\
         starting: Starting(7, 50000), None, CheckFailed(NotReady)\n\
         running: Running(8, 100000), None, Adopted(8)\n\
         ending: Running(8, 100000), None, Adopted(8)\n\
         killed: Running(8, 100000), None, Adopted(8)\n\
         unkillable: Running(8, 100000), None, Adopted(8)\n\
         foreign: Running(8, 100000), None, Adopted(8)\n\
         stopped: Running(8, 100000), None, Adopted(8)\n"
    );
    assert_eq!(
        probe(Probe::Foreign),
        "waiting: Foreign, None, Foreign\n\
         starting: Starting(7, 50000), None, CheckFailed(NotReady)\n\
         running: Foreign, None, Foreign\n\
         ending: Foreign, None, Foreign\n\
         killed: Foreign, None, Foreign\n\
         unkillable: Foreign, None, Foreign\n\
         foreign: Foreign, None, -\n\
         stopped: Foreign, None, Foreign\n"
    );
    assert_eq!(
        probe(Probe::Died),
        "waiting: Backoff(101000), None, -\n\
         starting: Starting(7, 50000), None, CheckFailed(NotReady)\n\
         running: Backoff(100000), None, Died(Unknown, 0)\n\
         ending: Backoff(100000), None, Replaced(Unknown, 0)\n\
         killed: Backoff(100000), None, Replaced(Unknown, 0)\n\
         unkillable: Backoff(100000), None, Replaced(Unknown, 0)\n\
         foreign: Backoff(100000), None, Died(Unknown, 0)\n\
         stopped: Backoff(100000), None, Died(Unknown, 0)\n"
    );
    assert_eq!(
        probe(Probe::Free),
        "waiting: Stopped, None, Stopped\n\
         starting: Starting(7, 50000), None, CheckFailed(NotReady)\n\
         running: Stopped, None, Stopped\n\
         ending: Stopped, None, Stopped\n\
         killed: Stopped, None, Stopped\n\
         unkillable: Stopped, None, Stopped\n\
         foreign: Stopped, None, Stopped\n\
         stopped: Stopped, None, -\n"
    );
}

#[test]
fn each_answer_in_each_phase() {
    let nothing = table(|_| NOTHING);
    for answer in
        [SocketAnswer::Answered, SocketAnswer::Silent, SocketAnswer::Unreachable, SocketAnswer::Unknown]
    {
        let unasked = table(|instance| instance.on_answer(NOW, answer, &RULES));
        assert_eq!(unasked, nothing, "{answer:?} was not asked for");
        for (reason, confirms) in
            [(ProbeError::Missing, false), (ProbeError::Missing, true), (stale(1), true)]
        {
            let asked = table(|instance| {
                instance.asked = Some(Question { reason, confirms, until: at(101_000) });
                instance.on_answer(NOW, answer, &RULES)
            });
            let line = |phase: &str| match (answer, confirms) {
                (SocketAnswer::Answered, true) => format!("{phase}(7, 50000), None, Answering({reason:?})"),
                (SocketAnswer::Silent | SocketAnswer::Unreachable, true) => {
                    format!("Stopping(7, 110000), Terminate(7), Restarting({reason:?})")
                }
                (SocketAnswer::Silent, false) => format!("{phase}(7, 50000), None, CheckFailed(Silent)"),
                _ => format!("{phase}(7, 50000), None, -"),
            };
            let expected = nothing
                .replace("starting: Starting(7, 50000), None, -", &format!("starting: {}", line("Starting")))
                .replace("running: Running(7, 50000), None, -", &format!("running: {}", line("Running")));
            assert_eq!(asked, expected, "{answer:?} {reason:?}");
        }
    }
}

#[test]
fn each_end_in_each_phase() {
    let gone = |pid: u32, reason: ExitReason, probe: Probe| {
        table(|instance| instance.on_gone(NOW, pid, reason, probe))
    };
    let nothing = table(|_| NOTHING);
    for probe in [SAME, Probe::Foreign, Probe::Died, Probe::Free] {
        assert_eq!(gone(9, ExitReason::Code(0), probe), nothing, "a process that is not known");
    }
    let died = |reason: &str| {
        let mut lines = "waiting: Backoff(101000), None, -\n".to_owned();
        for phase in ["starting", "running"] {
            lines += &format!("{phase}: Backoff(100000), None, Died({reason}, 0)\n");
        }
        for phase in ["ending", "killed", "unkillable"] {
            lines += &format!("{phase}: Backoff(100000), None, Replaced({reason}, 0)\n");
        }
        lines + "foreign: Foreign, None, -\nstopped: Stopped, None, -\n"
    };
    assert_eq!(gone(7, ExitReason::Signal(9), Probe::Died), died("Signal(9)"));
    assert_eq!(gone(7, ExitReason::Code(0), Probe::Died), died("Code(0)"));
    // The lock was probed before the process ended.
    assert_eq!(gone(7, ExitReason::Code(1), SAME), died("Code(1)"));
    let mut stopped = "waiting: Backoff(101000), None, -\n".to_owned();
    for phase in ["starting", "running", "ending", "killed", "unkillable"] {
        stopped += &format!("{phase}: Stopped, None, Stopped\n");
    }
    stopped += "foreign: Foreign, None, -\nstopped: Stopped, None, -\n";
    for reason in [ExitReason::Code(0), ExitReason::Code(6), ExitReason::Signal(9), ExitReason::Unknown] {
        assert_eq!(gone(7, reason, Probe::Free), stopped, "{reason:?}");
    }
    let mut adopted = "waiting: Backoff(101000), None, -\n".to_owned();
    for phase in ["starting", "running", "ending", "killed", "unkillable"] {
        adopted += &format!("{phase}: Running(8, 100000), None, Adopted(8)\n");
    }
    adopted += "foreign: Foreign, None, -\nstopped: Stopped, None, -\n";
    assert_eq!(gone(7, ExitReason::Code(1), beat(8, 1)), adopted);
    let foreign = adopted.replace("Running(8, 100000)", "Foreign").replace("Adopted(8)", "Foreign");
    assert_eq!(gone(7, ExitReason::Code(1), Probe::Foreign), foreign);
}

#[test]
fn each_other_event_in_each_phase() {
    let nothing = table(|_| NOTHING);
    assert_eq!(table(|instance| instance.on_deadline(NOW, &RULES)), nothing, "nothing is due");
    assert_eq!(
        table(|instance| instance.on_deadline(at(104_000), &RULES)),
        "waiting: Backoff(101000), CheckLock, -\n\
         starting: Starting(7, 50000), None, -\n\
         running: Running(7, 50000), None, -\n\
         ending: Killing(7, 104000), Kill(7), Killing\n\
         killed: Unkillable(7), None, Unkillable\n\
         unkillable: Unkillable(7), None, -\n\
         foreign: Foreign, None, -\n\
         stopped: Stopped, None, -\n"
    );
    assert_eq!(
        table(Instance::on_ready),
        nothing
            .replace("starting: Starting(7, 50000), None, -", "starting: Running(7, 50000), None, Ready(7)")
    );
    assert_eq!(
        table(|instance| instance.on_shutdown(NOW, &RULES)),
        "waiting: Stopped, None, -\n\
         starting: Stopping(7, 112000), Terminate(7), -\n\
         running: Stopping(7, 112000), Terminate(7), -\n\
         ending: Stopping(7, 101000), None, -\n\
         killed: Killing(7, 99000), None, -\n\
         unkillable: Unkillable(7), None, -\n\
         foreign: Stopped, None, -\n\
         stopped: Stopped, None, -\n"
    );
    assert_eq!(
        table(|instance| instance.on_second_stop(NOW)),
        "waiting: Backoff(101000), None, -\n\
         starting: Killing(7, 100000), Kill(7), Killing\n\
         running: Killing(7, 100000), Kill(7), Killing\n\
         ending: Killing(7, 100000), Kill(7), Killing\n\
         killed: Killing(7, 99000), None, -\n\
         unkillable: Unkillable(7), None, -\n\
         foreign: Foreign, None, -\n\
         stopped: Stopped, None, -\n"
    );
}

#[test]
fn each_request_of_a_user_in_each_phase() {
    let asked = |request| table(|instance| instance.on_request(NOW, request, &RULES));
    let nothing = table(|_| NOTHING);
    let due = nothing
        .replace("waiting: Backoff(101000), None, -", "waiting: Backoff(100000), CheckLock, -")
        .replace("stopped: Stopped, None, -", "stopped: Backoff(100000), CheckLock, -");
    assert_eq!(asked(Request::Start), due);
    let stopping = |table: &str| {
        table
            .replace("starting: Starting(7, 50000), None, -", "starting: Stopping(7, 112000), Dismiss(7), -")
            .replace("running: Running(7, 50000), None, -", "running: Stopping(7, 112000), Dismiss(7), -")
    };
    assert_eq!(asked(Request::Restart), stopping(&due));
    let stopped = nothing.replace("waiting: Backoff(101000), None, -", "waiting: Stopped, None, Stopped");
    assert_eq!(asked(Request::Stop), stopping(&stopped));
    for request in [Request::Start, Request::Stop, Request::Restart] {
        let late = table(|instance| {
            instance.shutting_down = true;
            instance.on_request(NOW, request, &RULES)
        });
        assert_eq!(late, nothing, "{request:?} while the supervisor stops");
    }
}

#[test]
fn a_stop_on_request_lasts_and_a_restart_is_immediate() {
    let mut instance = running(at(0));
    assert_eq!(instance.on_request(at(20_000), Request::Stop, &RULES).0, Action::Dismiss(7));
    let gone = instance.on_gone(at(20_005), 7, ExitReason::Code(0), Probe::Free);
    assert_eq!(gone, (Action::None, Some(Event::Stopped)));
    assert_eq!((instance.phase(), instance.next_deadline()), (Phase::Stopped, None));
    assert_eq!(instance.last_end(), Some((ExitReason::Code(0), at(20_005))));
    assert_eq!(instance.on_request(at(30_000), Request::Start, &RULES).0, Action::CheckLock);
    assert_eq!(instance.on_lock(at(30_000), Some(Probe::Died), &RULES).0, Action::Start);
    instance.on_started(at(30_000), 8);
    instance.on_ready();
    // Again and again, each time at once.
    for round in 0..4 {
        let (now, pid) = (at(40_000 + round), instance.pid().unwrap());
        assert_eq!(instance.on_request(now, Request::Restart, &RULES).0, Action::Dismiss(pid));
        let replaced = (Action::None, Some(Event::Replaced(ExitReason::Signal(15), ms(0))));
        assert_eq!(instance.on_gone(now, pid, ExitReason::Signal(15), Probe::Died), replaced);
        assert_eq!(instance.on_deadline(now, &RULES).0, Action::CheckLock);
        instance.on_started(now, pid + 1);
        instance.on_ready();
    }
    // A start that the backoff has put off happens at once.
    for _ in 0..3 {
        let pid = instance.pid().unwrap_or(1);
        instance.on_gone(at(50_000), pid, ExitReason::Code(1), Probe::Died);
        instance.on_started(at(50_000), pid + 1);
    }
    let pid = instance.pid().unwrap();
    instance.on_gone(at(50_001), pid, ExitReason::Code(1), Probe::Died);
    assert!(instance.next_deadline() > Some(at(50_500)));
    assert_eq!(instance.on_request(at(50_002), Request::Start, &RULES).0, Action::CheckLock);
    assert_eq!(instance.next_deadline(), Some(at(50_002)));
}

#[test]
fn while_the_supervisor_leaves_nothing_is_started_or_adopted() {
    let shutting_down = |event: &dyn Fn(&mut Instance) -> Decision| {
        table(|instance| {
            instance.shutting_down = true;
            event(instance)
        })
    };
    for probe in [SAME, lost(ProbeError::Missing), beat(8, 1), Probe::Foreign, Probe::Died, Probe::Free] {
        let gone = shutting_down(&|instance| instance.on_gone(NOW, 7, ExitReason::Code(0), probe));
        assert!(!gone.contains("Backoff(100000)") && !gone.contains(", Foreign"), "{probe:?}: {gone}");
        assert!(!gone.contains("Adopted"), "{probe:?}: {gone}");
        let looked = shutting_down(&|instance| instance.on_probe(NOW, probe, &RULES));
        assert!(!looked.contains("Backoff(100000)") && !looked.contains("Adopted"), "{probe:?}: {looked}");
    }
}

/// Checks jumps of the wall clock, a suspend, and a boot clock that goes back.
#[test]
fn no_jump_of_the_clock_restarts_what_is_well() {
    // The wall clock says 1970, then today, then an hour earlier: no verdict
    // knows of it.
    for wall in [0, 1_795_327_895, 1_795_324_295] {
        let record = HealthRecord { wall, seq: 1, pid: 7, boottime_ms: 99_000, boot: UNKNOWN_BOOT };
        assert_eq!(record.judge(7, &UNKNOWN_BOOT, NOW, ms(15_000)), Verdict::Fresh(ms(1000)));
    }
    // The board sleeps for an hour between two looks (CLOCK_BOOTTIME counts that): the
    // heartbeat is an hour old for the one look before it beats.
    let mut instance = running(at(0));
    instance.on_probe(at(5000), beat(7, 2), &RULES);
    assert_eq!(instance.on_probe(at(3_605_000), beat(7, 2), &RULES).0, Action::None);
    assert_eq!(instance.on_probe(at(3_610_000), beat(7, 3), &RULES).1, Some(Event::Recovered));
    assert!(!instance.is_unrecoverable(at(3_610_000), ms(300_000)));
    // A kernel whose clock goes back an hour: nothing ends, nothing overflows.
    assert_eq!(instance.on_probe(at(10_000), beat(7, 4), &RULES), NOTHING);
    assert_eq!(instance.on_probe(at(9000), beat(7, 4), &RULES), NOTHING);
    assert!(!instance.is_unrecoverable(at(10_000), ms(300_000)));
    assert_eq!(
        instance.on_gone(at(10_000), 7, ExitReason::Signal(9), Probe::Died).1,
        Some(Event::Died(ExitReason::Signal(9), ms(0)))
    );
}

/// Checks that every event in every phase keeps the invariants: only what does not run is
/// started, only a process that was seen is signalled, and only with evidence.
#[test]
fn any_history_starts_only_what_is_not_there_and_signals_only_who_was_seen() {
    let mut seed = 1u64;
    let mut below = |limit: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % limit
    };
    let mut terminated = 0;
    for _ in 0..4000 {
        let mut instance = Instance::new(at(0));
        let mut now = at(0);
        let mut known: Option<u32> = None;
        // A user has asked for its end, and it was not killed since.
        let mut dismissed = false;
        // A process of this history never beats again, and each socket has one answer only.
        let (hangs, silent) = (below(2) == 0, below(2) == 0);
        let mut seq = 0;
        for _ in 0..60 {
            // The clock may jump back, too.
            now = if below(20) == 0 { at(below(now.as_ms() + 1)) } else { now + ms(below(8000)) };
            // PIDs come again.
            let pid = if below(8) == 0 { u32::try_from(7 + below(2)).unwrap() } else { known.unwrap_or(7) };
            seq += u64::from(!hangs);
            let probe = match below(24) {
                0 => Probe::Died,
                1 => Probe::Free,
                2 => Probe::Foreign,
                3 => Probe::Held(pid, Err(LOST[usize::try_from(below(5)).unwrap()])),
                _ => beat(pid, seq),
            };
            let requests = [Request::Start, Request::Stop, Request::Restart];
            let (action, event) = match below(13) {
                12 => {
                    let request = requests[usize::try_from(below(3)).unwrap()];
                    instance.on_request(now, request, &RULES)
                }
                0 | 3 => instance.on_deadline(now, &RULES),
                1 => instance.on_ready(),
                2 => instance.on_gone(now, pid, ExitReason::Signal(9), probe),
                _ => instance.on_probe(now, probe, &RULES),
            };
            let (action, event) = match action {
                Action::Ask | Action::Confirm if below(4) == 0 => {
                    let answer = if silent { SocketAnswer::Unknown } else { SocketAnswer::Answered };
                    instance.on_answer(now, answer, &RULES)
                }
                Action::Ask | Action::Confirm if silent && below(2) == 0 => {
                    instance.on_answer(now, SocketAnswer::Silent, &RULES)
                }
                Action::Ask | Action::Confirm if !silent => {
                    instance.on_answer(now, SocketAnswer::Answered, &RULES)
                }
                _ => (action, event),
            };
            match action {
                Action::CheckLock => {
                    assert!(instance.pid().is_none(), "{instance:?}");
                    known = Some(9);
                    instance.on_started(now, 9);
                }
                Action::Terminate(target) | Action::Kill(target) => {
                    assert_eq!(Some(target), known, "{instance:?}");
                    let is_asked = matches!(action, Action::Kill(_)) && core::mem::take(&mut dismissed);
                    assert!(silent || is_asked, "its socket answers: {instance:?}");
                    terminated += u32::from(!is_asked);
                }
                Action::None | Action::Ask | Action::Confirm => {}
                Action::Dismiss(target) => {
                    assert_eq!(Some(target), known, "{instance:?}");
                    dismissed = true;
                }
                Action::Start | Action::Probe | Action::Look(_) => panic!("{action:?} of {instance:?}"),
            }
            if let Some(Event::Adopted(pid) | Event::Ready(pid)) = event {
                known = Some(pid);
            }
            assert!(instance.pid().is_none_or(|pid| Some(pid) == known), "{instance:?}");
            assert!(instance.pid() != Some(0), "{instance:?}");
        }
    }
    assert!(terminated > 100, "{terminated}");
}
