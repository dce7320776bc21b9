use super::*;
use std::vec::Vec;

fn group(number: u32, job: u64) -> NotedGroup {
    let (from, upto) = (Instant::from_ms(5), Instant::from_ms(6));
    NotedGroup { number, session: 1, job, from, upto, token: [b'0'; 32] }
}

fn at(ms: u64) -> Instant {
    Instant::from_ms(ms)
}

/// Lets time pass to each deadline up to `end`. Returns what each group got, and when; a group
/// whose number `gone` returns true for is not there.
fn run(leftovers: &mut Leftovers, end: u64, gone: impl Fn(u32, u64) -> bool) -> Vec<String> {
    let mut seen = Vec::new();
    while let Some(due) = leftovers.next_deadline().filter(|due| due.as_ms() <= end) {
        let before = seen.len();
        let mut looked = false;
        while let Some(check) = leftovers.next_check(due) {
            looked = true;
            let number = check.group.number;
            let is_there = !gone(number, due.as_ms());
            if let Some(signal) = check.signal.filter(|_| is_there) {
                seen.push(format!("{} {number} {signal:?}", due.as_ms()));
            }
            if let Some(notice) = leftovers.on_checked(number, is_there, due) {
                seen.push(format!("{} {number} {notice:?}", due.as_ms()));
            }
        }
        assert!(looked, "a deadline without work, after {before}: {:?}", due);
    }
    seen
}

#[test]
fn a_group_gets_nothing_for_two_seconds_then_term_and_then_kill_and_is_stuck_if_that_fails() {
    let mut leftovers = Leftovers::NONE;
    assert_eq!(leftovers.keep(group(10, 1), false, at(100)), None);
    assert!(leftovers.hold(1) && !leftovers.hold(2) && !leftovers.is_done());
    let seen = run(&mut leftovers, 20_000, |_, _| false);
    assert_eq!(seen[..2], ["2100 10 Terminate", "4100 10 Kill"]);
    assert_eq!(seen.len(), 3);
    assert!(seen[2].ends_with(" 10 Stuck"), "{seen:?}");
    // A service that stops waits for it no longer, and the job still does.
    assert!(leftovers.is_done() && leftovers.is_stuck() && leftovers.hold(1));
    let seen = run(&mut leftovers, 30_000, |_, now| now > 25_000);
    assert!(seen.len() == 1 && seen[0].ends_with("Freed"), "{seen:?}");
    assert!(leftovers.is_empty() && !leftovers.hold(1) && leftovers.next_deadline().is_none());
}

#[test]
fn a_group_that_is_gone_gets_no_signal_whatever_is_due() {
    for gone_at in [0, 2000, 3999, 4000] {
        let mut leftovers = Leftovers::NONE;
        leftovers.keep(group(10, 1), false, at(0));
        let seen = run(&mut leftovers, 60_000, |_, now| now >= gone_at);
        let expected: &[&str] = match gone_at {
            0 | 2000 => &[],
            _ => &["2000 10 Terminate"],
        };
        assert_eq!(seen, expected, "{gone_at}");
        assert!(leftovers.is_empty());
    }
}

#[test]
fn a_stop_a_cancel_and_a_timeout_skip_the_first_wait_and_a_second_stop_the_next_one() {
    let mut leftovers = Leftovers::NONE;
    leftovers.keep(group(10, 1), true, at(0));
    assert_eq!(run(&mut leftovers, 2100, |_, now| now > 2050), ["0 10 Terminate", "2000 10 Kill"]);
    leftovers.keep(group(11, 1), false, at(3000));
    leftovers.keep(group(12, 2), false, at(3000));
    leftovers.on_cancel(2, at(3100));
    assert_eq!(run(&mut leftovers, 3200, |_, _| false), ["3100 12 Terminate"]);
    leftovers.on_stop(false, at(3300));
    assert_eq!(run(&mut leftovers, 3400, |_, _| false), ["3300 11 Terminate"]);
    leftovers.on_stop(true, at(3500));
    assert_eq!(run(&mut leftovers, 3519, |_, _| false), ["3500 11 Kill", "3500 12 Kill"]);
    // A third one repeats nothing.
    leftovers.on_stop(true, at(3520));
    assert_eq!(run(&mut leftovers, 3600, |_, _| false), [""; 0]);
}

#[test]
fn what_a_killed_service_left_gets_kill_at_once_and_a_cancel_gives_up_what_cannot_be_ended() {
    let mut leftovers = Leftovers::NONE;
    leftovers.inherit(group(10, 1), at(50));
    leftovers.inherit(group(11, 2), at(50));
    assert!(leftovers.are_settling(at(50)));
    let seen = run(&mut leftovers, 5000, |number, now| number == 10 && now > 60);
    assert_eq!(seen[..2], ["50 10 Kill", "50 11 Kill"]);
    assert!(seen.len() == 3 && seen[2].ends_with("11 Stuck"), "{seen:?}");
    assert!(leftovers.are_settling(at(550)) && !leftovers.are_settling(at(551)), "others start without it");
    leftovers.on_cancel(1, at(5000));
    assert!(leftovers.is_stuck());
    leftovers.on_cancel(2, at(5000));
    assert!(leftovers.is_empty());
}

#[test]
fn of_nine_groups_the_oldest_is_given_up_and_inherited_ones_are_not() {
    let mut leftovers = Leftovers::NONE;
    for number in 0..GROUPS_KEPT_MAX as u32 {
        leftovers.inherit(group(100 + number, 9), at(0));
        assert_eq!(leftovers.keep(group(10 + number, 1), false, at(0)), None);
    }
    assert_eq!(leftovers.keep(group(30, 2), false, at(1)), Some(group(10, 1)));
    assert_eq!(leftovers.keep(group(31, 2), false, at(1)), Some(group(11, 1)));
    assert_eq!(leftovers.groups().count(), GROUPS_NOTED_MAX);
    assert!(leftovers.hold(9));
}

#[test]
fn a_number_that_comes_again_drops_its_old_group() {
    let mut leftovers = Leftovers::NONE;
    leftovers.keep(group(10, 1), false, at(0));
    leftovers.keep(group(11, 1), false, at(0));
    assert!(!leftovers.remove(10) && !leftovers.remove(10));
    assert_eq!(run(&mut leftovers, 2000, |_, _| false), ["2000 11 Terminate"]);
    assert_eq!(leftovers.on_checked(10, true, at(2000)), None, "an unknown number");
}

/// Drives random histories in which numbers come again, and checks that a signal reaches only
/// the group that was kept, that no group is held for ever, and that deadlines have work.
#[test]
fn in_random_histories_a_signal_reaches_only_the_group_that_was_kept() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for _ in 0..300 {
        let (mut leftovers, mut now, mut serial) = (Leftovers::NONE, 0, 0);
        // The living groups: their numbers, and the jobs that they belong to.
        let mut alive: Vec<(u32, u64)> = Vec::new();
        for _ in 0..120 {
            match random(6) {
                0 | 1 => {
                    // A fork returns a number that no living group has.
                    let number = 2 + random(6) as u32;
                    if alive.iter().all(|group| group.0 != number) {
                        serial += 1;
                        leftovers.remove(number);
                        alive.push((number, serial));
                        if let Some(oldest) = leftovers.keep(group(number, serial), random(3) == 0, at(now)) {
                            alive.retain(|living| *living != (oldest.number, oldest.job));
                        }
                    }
                }
                2 if !alive.is_empty() => drop(alive.swap_remove(random(alive.len() as u64) as usize)),
                3 => leftovers.on_cancel(random(serial + 1), at(now)),
                4 if random(10) == 0 => leftovers.on_stop(random(2) == 0, at(now)),
                _ => now += random(1500),
            }
            while let Some(check) = leftovers.next_check(at(now)) {
                let key = (check.group.number, check.group.job);
                let is_there = alive.contains(&key);
                if is_there && check.signal == Some(SignalKind::Kill) {
                    alive.retain(|living| *living != key);
                }
                assert!(is_there || alive.iter().all(|living| living.0 != key.0), "{key:?}: {alive:?}");
                leftovers.on_checked(key.0, is_there, at(now));
            }
            assert!(leftovers.next_deadline().is_none_or(|due| !due.is_due(at(now))));
        }
        run(&mut leftovers, now + 10_000, |number, _| alive.iter().all(|living| living.0 != number));
        let held = leftovers.groups().filter(|group| !alive.contains(&(group.number, group.job)));
        assert_eq!(held.count(), 0);
    }
}
