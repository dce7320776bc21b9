//! The machine of the supervisor: its rules one by one, every event in every phase,
//! and random histories.

use super::*;

const fn at(ms: u64) -> Instant {
    Instant::from_ms(ms)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_ms(ms)
}

const RULES: Rules = Rules { failures: 3, stop_timeout: ms(10_000), stale_after: ms(15_000) };
const STALE: Look = Look::Held(7, Err(Trouble::Stale(ms(20_000))));
const WELL: Look = Look::Held(7, Ok(()));

/// One that runs as process 7 since `now`.
fn running(now: Instant) -> Ward {
    let mut ward = Ward::new(now);
    assert_eq!(ward.on_deadline(now), (Action::Start, None));
    ward.on_started(now, 7);
    assert_eq!(ward.on_ready(), (Action::None, Some(Report::Ready(7))));
    ward
}

#[test]
fn the_third_bad_look_in_a_row_ends_it_and_a_good_one_resets_the_count() {
    let mut ward = running(at(0));
    let unwell = (Action::None, Some(Report::Unwell(Trouble::Stale(ms(20_000)))));
    assert_eq!(ward.on_look(at(1), STALE, &RULES), unwell);
    assert_eq!(ward.on_look(at(2), STALE, &RULES), NOTHING);
    assert_eq!(ward.on_look(at(3), WELL, &RULES), (Action::None, Some(Report::Recovered)));
    assert_eq!(ward.on_look(at(4), WELL, &RULES), NOTHING);
    assert_eq!(ward.on_look(at(5), STALE, &RULES), unwell);
    assert_eq!(ward.on_look(at(6), STALE, &RULES), NOTHING);
    let given_up = (Action::Terminate(7), Some(Report::GivenUp(Trouble::Stale(ms(20_000)))));
    assert_eq!(ward.on_look(at(7), STALE, &RULES), given_up);
    assert_eq!(ward.on_look(at(8), STALE, &RULES), NOTHING, "it has time to end");
    assert_eq!(ward.on_deadline(at(10_006)), NOTHING);
    assert_eq!(ward.on_deadline(at(10_007)), (Action::Kill(7), Some(Report::Killing)));
    assert_eq!(ward.on_deadline(at(10_008)), NOTHING);
    let died = (Action::None, Some(Report::Replaced(Ended::Signal(9), ms(0))));
    assert_eq!(ward.on_gone(at(10_010), 7, Ended::Signal(9), Look::Died), died);
    assert_eq!(ward.on_deadline(at(10_010)), (Action::Start, None), "at once");
}

#[test]
fn each_trouble_counts_and_is_named() {
    for trouble in
        [Trouble::OtherBoot, Trouble::OtherPid, Trouble::Future, Trouble::Unreadable, Trouble::Missing]
    {
        let mut ward = running(at(0));
        let bad = Look::Held(7, Err(trouble));
        assert_eq!(ward.on_look(at(15_001), bad, &RULES).1, Some(Report::Unwell(trouble)));
        ward.on_look(at(15_002), bad, &RULES);
        assert_eq!(ward.on_look(at(15_003), bad, &RULES).0, Action::Terminate(7));
    }
}

#[test]
fn what_keeps_dying_is_restarted_more_and_more_slowly_and_never_given_up() {
    let mut ward = running(at(0));
    let mut delays = Vec::new();
    let mut now = at(0);
    for _ in 0..10 {
        now += ms(100);
        let (_, report) = ward.on_gone(now, 7, Ended::Code(1), Look::Died);
        let Some(Report::Died(Ended::Code(1), delay)) = report else { panic!("{report:?}") };
        delays.push(delay.as_secs());
        assert_eq!(
            ward.on_deadline(now + ms(delay.as_ms().saturating_sub(1))).0 == Action::Start,
            delay.is_zero()
        );
        now += delay;
        assert_eq!(ward.on_deadline(now), (Action::Start, None));
        ward.on_started(now, 7);
        ward.on_ready();
    }
    assert_eq!(delays, [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
    now += RESTART_QUICK;
    assert_eq!(ward.on_gone(now, 7, Ended::Code(1), Look::Died).1, Some(Report::Died(Ended::Code(1), ms(0))));
}

#[test]
fn a_deliberate_stop_is_respected_until_somebody_starts_it() {
    let mut ward = running(at(0));
    let stopped = (Action::None, Some(Report::Stopped));
    assert_eq!(ward.on_gone(at(5), 7, Ended::Code(0), Look::Free), stopped);
    assert_eq!((ward.on_deadline(at(1_000_000)), ward.next_deadline()), (NOTHING, None));
    assert_eq!(ward.on_look(at(6), Look::Free, &RULES), NOTHING);
    assert!(!ward.is_hopeless(at(u64::MAX), ms(0)), "it is as it should be");
    assert_eq!(ward.on_look(at(7), Look::Held(8, Ok(())), &RULES), (Action::None, Some(Report::Adopted(8))));
    // An adopted one is not our child: only the PID file tells.
    assert_eq!(ward.on_gone(at(9), 8, Ended::Unknown, Look::Free), stopped);
}

#[test]
fn a_crash_is_no_stop_though_somebody_removed_the_pid_file() {
    let ended = Ended::Signal(11);
    let report = running(at(0)).on_gone(at(5), 7, ended, Look::Free).1;
    assert_eq!(report, Some(Report::Died(ended, ms(0))));
    // KILL is what a stop ends with, and a service that starts cannot be meant.
    assert_eq!(running(at(0)).on_gone(at(5), 7, Ended::Signal(9), Look::Free).1, Some(Report::Stopped));
    let mut starting = Ward::new(at(0));
    starting.on_deadline(at(0));
    starting.on_started(at(0), 7);
    let ended = Ended::Signal(9);
    assert_eq!(starting.on_gone(at(5), 7, ended, Look::Free).1, Some(Report::Died(ended, ms(0))));
}

#[test]
fn bad_looks_at_one_process_are_not_those_of_the_next() {
    let twice_bad = || {
        let mut ward = running(at(0));
        ward.on_look(at(1), STALE, &RULES);
        ward.on_look(at(2), STALE, &RULES);
        ward
    };
    let mut adopted = twice_bad();
    assert_eq!(adopted.on_look(at(3), Look::Held(8, Ok(())), &RULES).1, Some(Report::Adopted(8)));
    let bad = Look::Held(8, Err(Trouble::Unreadable));
    assert_eq!(adopted.on_look(at(4), bad, &RULES).1, Some(Report::Unwell(Trouble::Unreadable)));
    let mut stopped = twice_bad();
    assert_eq!(stopped.on_gone(at(3), 7, Ended::Code(0), Look::Free).1, Some(Report::Stopped));
    assert!(!stopped.is_hopeless(at(400_000), ms(300_000)), "it is as it should be");
    stopped.on_look(at(4), Look::Died, &RULES);
    stopped.on_deadline(at(4));
    stopped.on_started(at(4), 8);
    let late = at(4) + RULES.stale_after * 8 + ms(1);
    assert_eq!(stopped.on_look(late, bad, &RULES).1, Some(Report::Unwell(Trouble::NotReady)));
}

#[test]
fn what_we_end_ourselves_is_started_at_once_each_time() {
    let impatient = Rules { failures: 1, ..RULES };
    let now = at(0) + RESTART_QUICK;
    let mut ward = running(now);
    for _ in 0..3 {
        assert_eq!(ward.on_look(now, STALE, &impatient).0, Action::Terminate(7));
        let report = ward.on_gone(now, 7, Ended::Code(0), Look::Free).1;
        assert_eq!(report, Some(Report::Replaced(Ended::Code(0), ms(0))));
        ward.on_deadline(now);
        ward.on_started(now, 7);
        ward.on_ready();
    }
}

#[test]
fn one_that_was_started_by_hand_and_died_unseen_is_no_longer_stopped() {
    let mut ward = running(at(0));
    ward.on_gone(at(5), 7, Ended::Code(0), Look::Free);
    let died = Some(Report::Died(Ended::Unknown, ms(0)));
    assert_eq!(ward.on_look(at(6), Look::Died, &RULES), (Action::None, died));
    assert_eq!(ward.on_deadline(at(6)), (Action::Start, None));
    let mut leaving = running(at(0));
    leaving.on_leave(at(5), &RULES);
    leaving.on_gone(at(6), 7, Ended::Signal(9), Look::Died);
    assert_eq!(leaving.on_look(at(7), Look::Died, &RULES), NOTHING);
}

#[test]
fn one_that_is_dead_is_stopped_when_its_pid_file_is_emptied() {
    let mut ward = running(at(0));
    ward.on_gone(at(5), 7, Ended::Signal(11), Look::Died);
    assert_eq!(ward.on_look(at(6), Look::Died, &RULES), NOTHING);
    assert_eq!(ward.on_look(at(7), Look::Free, &RULES), (Action::None, Some(Report::Stopped)));
    assert_eq!((ward.on_deadline(at(1_000_000)), ward.next_deadline()), (NOTHING, None));
    assert!(!ward.is_hopeless(at(1_000_000), ms(300_000)));
    // A start that failed empties it too, and is no stop.
    ward.on_look(at(10), Look::Died, &RULES);
    ward.on_started(at(10), 7);
    ward.on_gone(at(11), 7, Ended::Code(1), Look::Free);
    assert_eq!(ward.on_look(at(12), Look::Free, &RULES), NOTHING);
    // Nor is it one if the lock could not be asked when it died.
    ward.on_started(at(20), 7);
    ward.on_gone(at(21), 7, Ended::Code(1), WELL);
    assert_eq!(ward.on_look(at(22), Look::Free, &RULES), NOTHING);
}

#[test]
fn a_start_that_fails_is_no_stop_though_it_leaves_no_pid_file() {
    let mut ward = Ward::new(at(0));
    ward.on_deadline(at(0));
    ward.on_started(at(0), 7);
    let report = ward.on_gone(at(1), 7, Ended::Code(6), Look::Free).1;
    assert_eq!(report, Some(Report::Died(Ended::Code(6), ms(0))));
    assert_eq!(ward.on_deadline(at(1)), (Action::Start, None));
    assert_eq!(ward.on_not_started(at(1)).1, Some(Report::Died(Ended::NotStarted, ms(1000))));
}

#[test]
fn one_that_is_never_ready_is_ended_too() {
    let mut ward = Ward::new(at(0));
    ward.on_deadline(at(0));
    ward.on_started(at(0), 7);
    assert_eq!(ward.on_look(at(120_000), Look::Free, &RULES), NOTHING, "a large spool takes its time");
    assert_eq!(ward.on_look(at(120_001), WELL, &RULES).1, Some(Report::Unwell(Trouble::NotReady)));
    ward.on_look(at(120_002), WELL, &RULES);
    assert_eq!(ward.on_look(at(120_003), WELL, &RULES).0, Action::Terminate(7));
}

#[test]
fn a_running_one_is_adopted_and_another_holder_replaces_it() {
    let mut ward = Ward::new(at(0));
    assert_eq!(ward.on_look(at(0), WELL, &RULES), (Action::None, Some(Report::Adopted(7))));
    assert_eq!(ward.next_deadline(), None, "nothing is started");
    assert_eq!(ward.on_look(at(1), Look::Held(8, Ok(())), &RULES).1, Some(Report::Adopted(8)));
    assert_eq!(ward.on_gone(at(2), 7, Ended::Code(0), Look::Free), NOTHING, "an older one");
    assert_eq!(ward.on_look(at(3), Look::Died, &RULES).1, Some(Report::Died(Ended::Unknown, ms(0))));
    // Our start was too late: somebody else's is adopted.
    ward.on_deadline(at(3));
    ward.on_started(at(3), 9);
    assert_eq!(ward.on_gone(at(4), 9, Ended::Code(1), WELL).1, Some(Report::Adopted(7)));
}

#[test]
fn one_that_was_just_adopted_has_time_for_its_first_heartbeat() {
    let rules = Rules { failures: 1, ..RULES };
    for trouble in [Trouble::Missing, Trouble::OtherPid, Trouble::OtherBoot] {
        let mut ward = Ward::new(at(0));
        let bad = Look::Held(7, Err(trouble));
        assert_eq!(ward.on_look(at(1000), bad, &rules).1, Some(Report::Adopted(7)));
        assert_eq!(ward.on_look(at(16_000), bad, &rules), NOTHING);
        assert_eq!(ward.on_look(at(16_001), bad, &rules).0, Action::Terminate(7));
    }
    let mut hung = Ward::new(at(0));
    hung.on_look(at(1000), STALE, &rules);
    assert_eq!(hung.on_look(at(1001), STALE, &rules).0, Action::Terminate(7), "it had one");
}

#[test]
fn the_watchdog_is_let_go_for_what_stays_unwell_or_cannot_be_killed() {
    let mut ward = running(at(0));
    assert!(!ward.is_hopeless(at(u64::MAX), ms(0)));
    ward.on_look(at(1000), STALE, &RULES);
    assert!(!ward.is_hopeless(at(301_000), ms(300_000)) && ward.is_hopeless(at(301_001), ms(300_000)));
    ward.on_look(at(2000), STALE, &RULES);
    ward.on_look(at(3000), STALE, &RULES);
    ward.on_deadline(at(13_000));
    assert_eq!((ward.next_deadline(), ward.on_deadline(at(17_999))), (Some(at(18_000)), NOTHING));
    assert!(!ward.is_hopeless(at(17_999), ms(300_000)));
    assert_eq!(ward.on_deadline(at(18_000)), (Action::None, Some(Report::Unkillable)));
    assert!(ward.is_hopeless(at(18_000), ms(300_000)) && ward.is_over() && !ward.is_gone());
    assert_eq!((ward.next_deadline(), ward.on_deadline(at(99_999))), (None, NOTHING));
    ward.on_gone(at(18_002), 7, Ended::Signal(9), Look::Died);
    assert!(!ward.is_hopeless(at(18_003), ms(300_000)), "it is gone, but was it ever well?");
    assert!(ward.is_hopeless(at(400_000), ms(300_000)), "it was not");
}

#[test]
fn one_that_keeps_dying_is_hopeless_though_it_is_ready_each_time() {
    let mut ward = running(at(0));
    let mut now = at(0);
    while !ward.is_hopeless(now, ms(300_000)) {
        now += ms(1000);
        let (_, report) = ward.on_gone(now, 7, Ended::Signal(11), Look::Died);
        let Some(Report::Died(_, delay)) = report else { panic!("{report:?}") };
        now += delay;
        ward.on_deadline(now);
        ward.on_started(now, 7);
        ward.on_ready();
        assert!(now < at(400_000));
    }
    assert!(now > at(300_000));
    let now = now + RESTART_QUICK + ms(20_000);
    assert!(!ward.is_hopeless(now, ms(300_000)), "it lives");
    ward.on_look(now, STALE, &RULES);
    assert!(
        !ward.is_hopeless(now + ms(300_000), ms(300_000)) && ward.is_hopeless(now + ms(300_001), ms(300_000))
    );
}

#[test]
fn one_that_is_never_well_is_hopeless_however_rare_the_looks_are() {
    for trouble in [Trouble::Missing, Trouble::Unreadable, Trouble::Stale(ms(60_000))] {
        let mut ward = running(at(0));
        let mut now = at(0);
        while !ward.is_hopeless(now, ms(300_000)) {
            now += ms(60_000);
            assert!(now <= at(480_000), "{trouble:?}");
            if ward.on_look(now, Look::Held(7, Err(trouble)), &RULES).0 == Action::Terminate(7) {
                ward.on_gone(now, 7, Ended::Code(0), Look::Free);
                ward.on_deadline(now);
                ward.on_started(now, 7);
                ward.on_ready();
            }
        }
    }
}

#[test]
fn when_the_supervisor_leaves_nothing_is_started_any_more() {
    let mut ward = running(at(0));
    assert_eq!(ward.on_leave(at(5), &RULES).0, Action::Terminate(7));
    assert_eq!(ward.on_leave(at(6), &RULES), NOTHING);
    assert_eq!(ward.on_deadline(at(12_004)), NOTHING, "it waits for its own handlers");
    assert_eq!(ward.on_deadline(at(12_005)), (Action::Kill(7), Some(Report::Killing)));
    assert_eq!(ward.on_gone(at(12_006), 7, Ended::Signal(9), Look::Died), NOTHING);
    assert!(ward.is_gone() && ward.is_over());
    assert_eq!(ward.on_look(at(12_007), Look::Held(8, Ok(())), &RULES), NOTHING);
    let mut waiting = Ward::new(at(0));
    assert_eq!(waiting.on_leave(at(0), &RULES), NOTHING);
    assert_eq!(waiting.on_deadline(at(99)), NOTHING);
}

/// One in each phase, each at the time 100,000 (milliseconds since boot), with
/// process 7 since 50,000 where there is one.
fn each_phase() -> [(&'static str, Ward); 7] {
    let phases = [
        ("waiting", Phase::Waiting(at(101_000))),
        ("starting", Phase::Starting(7, at(50_000))),
        ("running", Phase::Running(7, at(50_000))),
        ("ending", Phase::Ending(7, at(101_000))),
        ("killed", Phase::Killed(7, at(99_000))),
        ("unkillable", Phase::Unkillable(7)),
        ("stopped", Phase::Stopped),
    ];
    phases.map(|(name, phase)| {
        let ward = Ward {
            phase,
            bad_looks: 0,
            short_lives: 0,
            unwell_since: None,
            left_filled: false,
            adopted: false,
            leaving: false,
        };
        (name, ward)
    })
}

/// What an event does to each phase: the phase that follows, the action, the
/// report, shortly.
fn table(event: impl Fn(&mut Ward) -> Answer) -> String {
    let mut lines = String::new();
    for (name, mut ward) in each_phase() {
        let (action, report) = event(&mut ward);
        let report = report.map_or("-".to_owned(), |report| format!("{report:?}"));
        lines += &format!("{name}: {:?}, {action:?}, {report}\n", ward.phase);
    }
    lines
}

const NOW: Instant = at(100_000);

#[test]
fn each_look_in_each_phase() {
    // (with these a start is late after 48 s)
    let rules = Rules { stale_after: ms(6000), ..RULES };
    let look = |look: Look| table(|ward| ward.on_look(NOW, look, &rules));
    assert_eq!(
        look(WELL),
        "waiting: Running(7, 100000), None, Adopted(7)\n\
         starting: Starting(7, 50000), None, Unwell(NotReady)\n\
         running: Running(7, 50000), None, -\n\
         ending: Ending(7, 101000), None, -\n\
         killed: Killed(7, 99000), None, -\n\
         unkillable: Unkillable(7), None, -\n\
         stopped: Running(7, 100000), None, Adopted(7)\n"
    );
    assert_eq!(
        look(STALE),
        "waiting: Running(7, 100000), None, Adopted(7)\n\
         starting: Starting(7, 50000), None, Unwell(NotReady)\n\
         running: Running(7, 50000), None, Unwell(Stale(20000))\n\
         ending: Ending(7, 101000), None, -\n\
         killed: Killed(7, 99000), None, -\n\
         unkillable: Unkillable(7), None, -\n\
         stopped: Running(7, 100000), None, Adopted(7)\n"
    );
    assert_eq!(
        look(Look::Held(8, Ok(()))),
        "waiting: Running(8, 100000), None, Adopted(8)\n\
         starting: Starting(7, 50000), None, Unwell(NotReady)\n\
         running: Running(8, 100000), None, Adopted(8)\n\
         ending: Running(8, 100000), None, Adopted(8)\n\
         killed: Running(8, 100000), None, Adopted(8)\n\
         unkillable: Running(8, 100000), None, Adopted(8)\n\
         stopped: Running(8, 100000), None, Adopted(8)\n"
    );
    assert_eq!(
        look(Look::Died),
        "waiting: Waiting(101000), None, -\n\
         starting: Starting(7, 50000), None, Unwell(NotReady)\n\
         running: Waiting(100000), None, Died(Unknown, 0)\n\
         ending: Waiting(100000), None, Replaced(Unknown, 0)\n\
         killed: Waiting(100000), None, Replaced(Unknown, 0)\n\
         unkillable: Waiting(100000), None, Replaced(Unknown, 0)\n\
         stopped: Waiting(100000), None, Died(Unknown, 0)\n"
    );
    assert_eq!(
        look(Look::Free),
        "waiting: Waiting(101000), None, -\n\
         starting: Starting(7, 50000), None, Unwell(NotReady)\n\
         running: Stopped, None, Stopped\n\
         ending: Waiting(100000), None, Replaced(Unknown, 0)\n\
         killed: Waiting(100000), None, Replaced(Unknown, 0)\n\
         unkillable: Waiting(100000), None, Replaced(Unknown, 0)\n\
         stopped: Stopped, None, -\n"
    );
}

#[test]
fn each_end_in_each_phase() {
    let gone = |pid: u32, ended: Ended, look: Look| table(|ward| ward.on_gone(NOW, pid, ended, look));
    let nothing = table(|_| NOTHING);
    for look in [WELL, Look::Died, Look::Free] {
        assert_eq!(gone(9, Ended::Code(0), look), nothing, "a process that is not known");
    }
    let died = |ended: &str| {
        let mut lines = "waiting: Waiting(101000), None, -\n".to_owned();
        for phase in ["starting", "running"] {
            lines += &format!("{phase}: Waiting(100000), None, Died({ended}, 0)\n");
        }
        for phase in ["ending", "killed", "unkillable"] {
            lines += &format!("{phase}: Waiting(100000), None, Replaced({ended}, 0)\n");
        }
        lines + "stopped: Stopped, None, -\n"
    };
    assert_eq!(gone(7, Ended::Signal(9), Look::Died), died("Signal(9)"));
    assert_eq!(gone(7, Ended::Code(0), Look::Died), died("Code(0)"));
    // (it is the one that is gone: the lock was asked before that was so)
    assert_eq!(gone(7, Ended::Code(1), STALE), died("Code(1)"));
    assert_eq!(gone(7, Ended::Signal(11), Look::Free), died("Signal(11)"), "a crash is no stop");
    let stopped = |ended: &str, starting: &str| {
        format!(
            "waiting: Waiting(101000), None, -\n\
             starting: {starting}\n\
             running: Stopped, None, Stopped\n\
             ending: Waiting(100000), None, Replaced({ended}, 0)\n\
             killed: Waiting(100000), None, Replaced({ended}, 0)\n\
             unkillable: Waiting(100000), None, Replaced({ended}, 0)\n\
             stopped: Stopped, None, -\n"
        )
    };
    let at_once = "Stopped, None, Stopped";
    assert_eq!(gone(7, Ended::Code(0), Look::Free), stopped("Code(0)", at_once));
    assert_eq!(gone(7, Ended::Unknown, Look::Free), stopped("Unknown", at_once));
    let failed = "Waiting(100000), None, Died(Code(6), 0)";
    assert_eq!(gone(7, Ended::Code(6), Look::Free), stopped("Code(6)", failed));
    let failed = "Waiting(100000), None, Died(Signal(9), 0)";
    assert_eq!(gone(7, Ended::Signal(9), Look::Free), stopped("Signal(9)", failed));
    let mut adopted = "waiting: Waiting(101000), None, -\n".to_owned();
    for phase in ["starting", "running", "ending", "killed", "unkillable"] {
        adopted += &format!("{phase}: Running(8, 100000), None, Adopted(8)\n");
    }
    adopted += "stopped: Stopped, None, -\n";
    assert_eq!(gone(7, Ended::Code(1), Look::Held(8, Ok(()))), adopted);
}

#[test]
fn each_other_event_in_each_phase() {
    let nothing = table(|_| NOTHING);
    assert_eq!(table(|ward| ward.on_deadline(NOW)), nothing, "nothing is due");
    assert_eq!(
        table(|ward| ward.on_deadline(at(104_000))),
        "waiting: Waiting(101000), Start, -\n\
         starting: Starting(7, 50000), None, -\n\
         running: Running(7, 50000), None, -\n\
         ending: Killed(7, 104000), Kill(7), Killing\n\
         killed: Unkillable(7), None, Unkillable\n\
         unkillable: Unkillable(7), None, -\n\
         stopped: Stopped, None, -\n"
    );
    assert_eq!(
        table(Ward::on_ready),
        nothing
            .replace("starting: Starting(7, 50000), None, -", "starting: Running(7, 50000), None, Ready(7)")
    );
    assert_eq!(
        table(|ward| ward.on_leave(NOW, &RULES)),
        "waiting: Stopped, None, -\n\
         starting: Ending(7, 112000), Terminate(7), -\n\
         running: Ending(7, 112000), Terminate(7), -\n\
         ending: Ending(7, 101000), None, -\n\
         killed: Killed(7, 99000), None, -\n\
         unkillable: Unkillable(7), None, -\n\
         stopped: Stopped, None, -\n"
    );
    assert_eq!(
        table(|ward| ward.on_hurry(NOW)),
        "waiting: Waiting(101000), None, -\n\
         starting: Killed(7, 100000), Kill(7), Killing\n\
         running: Killed(7, 100000), Kill(7), Killing\n\
         ending: Killed(7, 100000), Kill(7), Killing\n\
         killed: Killed(7, 99000), None, -\n\
         unkillable: Unkillable(7), None, -\n\
         stopped: Stopped, None, -\n"
    );
}

#[test]
fn while_the_supervisor_leaves_nothing_is_started_or_adopted() {
    let leaving = |event: &dyn Fn(&mut Ward) -> Answer| {
        table(|ward| {
            ward.leaving = true;
            event(ward)
        })
    };
    for look in [WELL, STALE, Look::Held(8, Ok(())), Look::Died, Look::Free] {
        let gone = leaving(&|ward| ward.on_gone(NOW, 7, Ended::Code(0), look));
        assert!(!gone.contains("Waiting(100000)") && !gone.contains("Adopted"), "{look:?}: {gone}");
        let looked = leaving(&|ward| ward.on_look(NOW, look, &RULES));
        assert!(!looked.contains("Waiting(100000)") && !looked.contains("Adopted"), "{look:?}: {looked}");
    }
}

/// A clock of the whole board: what is awake, what slept, what time it says.
#[test]
fn no_jump_of_the_clock_restarts_what_is_well() {
    use crate::proto::health::{Record, UNKNOWN_BOOT, Verdict};
    // The wall clock says 1970, then today, then an hour earlier: no verdict
    // knows of it.
    for wall in [0, 1_795_327_895, 1_795_324_295] {
        let record = Record { wall, seq: 1, pid: 7, boottime_ms: 99_000, boot: UNKNOWN_BOOT };
        assert_eq!(record.judge(7, &UNKNOWN_BOOT, NOW, ms(15_000)), Verdict::Fresh(ms(1000)));
    }
    // The board sleeps for an hour between two looks (CLOCK_BOOTTIME counts
    // that): the heartbeat is an hour old for the one look before it beats.
    let mut ward = running(at(0));
    ward.on_look(at(5000), WELL, &RULES);
    let slept = Look::Held(7, Err(Trouble::Stale(ms(3_600_000))));
    assert_eq!(ward.on_look(at(3_605_000), slept, &RULES).0, Action::None);
    assert_eq!(ward.on_look(at(3_610_000), WELL, &RULES).1, Some(Report::Recovered));
    assert!(!ward.is_hopeless(at(3_610_000), ms(300_000)));
    // A kernel whose clock goes back an hour: nothing ends, nothing overflows.
    assert_eq!(ward.on_look(at(10_000), WELL, &RULES), NOTHING);
    assert!(!ward.is_hopeless(at(10_000), ms(300_000)));
    assert_eq!(
        ward.on_gone(at(10_000), 7, Ended::Signal(9), Look::Died).1,
        Some(Report::Died(Ended::Signal(9), ms(0)))
    );
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
        let mut ward = Ward::new(at(0));
        let mut now = at(0);
        let mut known: Option<u32> = None;
        for _ in 0..60 {
            // (also backwards: a clock that jumps must not hurt)
            now = if below(20) == 0 { at(below(now.as_ms() + 1)) } else { now + ms(below(8000)) };
            let pid = u32::try_from(7 + below(2)).unwrap();
            let look = match below(5) {
                0 => Look::Died,
                1 => Look::Free,
                2 => Look::Held(pid, Err(Trouble::Stale(ms(1)))),
                3 => Look::Held(pid, Err(Trouble::Missing)),
                _ => Look::Held(pid, Ok(())),
            };
            let (action, report) = match below(5) {
                0 => ward.on_deadline(now),
                1 => ward.on_ready(),
                2 => ward.on_gone(now, pid, Ended::Signal(9), look),
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
