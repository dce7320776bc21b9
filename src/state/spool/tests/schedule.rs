//! Delayed jobs and a queue that is held, in virtual time: with every kind of clock, through
//! kills, power cuts and reboots.

use super::*;

/// Seconds from 1970 to 2025 and to 2038, when a clock of 32 bits ends.
const Y2025: i64 = 1_735_689_600;
const Y2038: i64 = (1 << 31) - 5;

/// A machine: its boots and its clocks.
struct Machine {
    disk: FakeDisk,
    service: TestService,
    boot: [u8; 16],
    /// Seconds since 1970 at the boot, as the wall clock shows them.
    wall: i64,
}

impl Machine {
    fn new(boot: u8, wall: i64) -> Self {
        let mut disk = FakeDisk::new(1);
        let service = started(&mut disk, [boot; 16], at(5000));
        Self { disk, service, boot: [boot; 16], wall }
    }

    fn set_wall_clock(&mut self) {
        let seconds = self.service.now.since(Instant::BOOT).as_secs();
        self.service.core.spool.set_wall_clock(self.wall + i64::try_from(seconds).unwrap());
    }

    /// Queues a job that is due after this many seconds, and commits.
    fn after(&mut self, secs: u64, text: &str) -> u64 {
        self.set_wall_clock();
        let (delay, now) = (Duration::from_secs(secs), self.service.now);
        let id = self.service.core.add_delayed_job(&mut self.disk, text.as_bytes(), delay, now).unwrap();
        self.service.turn(&mut self.disk, 0, &mut |_, _, _| {});
        id.unwrap()
    }

    /// Lets time pass, in steps of a second, and returns the jobs that ran.
    fn pass(&mut self, secs: u64) -> Vec<String> {
        let mut ran = Vec::new();
        for _ in 0..secs {
            self.service.now += Duration::from_secs(1);
            ran.extend(self.look());
        }
        ran
    }

    /// Performs turns until no more jobs start.
    fn look(&mut self) -> Vec<String> {
        let mut ran = Vec::new();
        loop {
            self.set_wall_clock();
            let started = self.service.start_jobs(&mut self.disk, 4).unwrap();
            let now = self.service.now;
            let works = self.service.core.next_deadline(now, false).is_some_and(|due| due.is_due(now));
            if started.is_empty() && !works {
                return ran;
            }
            ran.extend(started);
            self.service.end_all(AttemptOutcome::Success, RULES);
        }
    }

    /// Restarts the service in the same boot, after a kill or a clean stop.
    fn restart(&mut self, clean: bool) {
        if clean {
            self.service.core.finish(&mut self.disk, self.service.now).unwrap();
        }
        self.disk.restart();
        self.service = started(&mut self.disk, self.boot, self.service.now);
        self.settle();
    }

    /// Boots the machine after some time without power. The wall clock shows `wall` then.
    fn reboot(&mut self, clean: bool, boot: u8, wall: i64) {
        if clean {
            self.service.core.finish(&mut self.disk, self.service.now).unwrap();
        }
        (self.boot, self.wall) = ([boot; 16], wall);
        self.disk.restart();
        self.service = started(&mut self.disk, self.boot, at(2000));
        self.settle();
    }

    /// Performs the first turns after a start, in which no job starts.
    fn settle(&mut self) {
        for _ in 0..4 {
            self.set_wall_clock();
            self.service.turn(&mut self.disk, 0, &mut |_, _, _| {});
        }
    }

    fn scheduled(&self) -> (u32, u32) {
        (self.service.core.spool.scheduled(), self.service.core.spool.waiting())
    }
}

fn started(disk: &mut FakeDisk, boot: [u8; 16], now: Instant) -> TestService {
    let mut scratch = vec![0; SCRATCH_BYTES];
    let mut core = Box::new(JobsCore::EMPTY);
    core.spool.set_boot(boot);
    core.recover(disk, &mut scratch, JOB_RULES, now).unwrap();
    core.spool.adopt_claims(disk, now);
    TestService { core, now, scratch }
}

#[test]
fn a_delayed_job_is_not_started_before_its_time_and_holds_up_none_behind_it() {
    let mut machine = Machine::new(1, Y2025);
    for number in 0..100 {
        machine.after(60, &format!("later {number}"));
    }
    machine.after(30, "sooner");
    machine.service.core.add_job(&mut machine.disk, b"at once", machine.service.now).unwrap();
    assert_eq!(machine.look(), ["at once"]);
    assert_eq!(machine.scheduled(), (101, 101));
    assert_eq!(machine.pass(29), [""; 0]);
    assert_eq!(machine.pass(1), ["sooner"]);
    assert_eq!(machine.pass(29), [""; 0]);
    let expected: Vec<String> = (0..100).map(|number| format!("later {number}")).collect();
    assert_eq!(machine.pass(1), expected);
    assert_eq!(machine.scheduled(), (0, 0));
}

#[test]
fn delayed_jobs_are_found_however_many_there_are_and_in_the_order_of_their_times() {
    let mut machine = Machine::new(1, 0);
    let mut expected = Vec::new();
    for number in 0..1000u64 {
        let secs = 10 + number * 7919 % 500;
        machine.after(secs, &format!("{number}"));
        expected.push((secs, number));
    }
    expected.sort_unstable();
    let texts: Vec<String> = expected.iter().map(|(_, number)| number.to_string()).collect();
    let mut ran = machine.pass(200);
    // A compaction and a kill in between.
    machine.service.core.spool.compact_now(&mut machine.disk, machine.service.now).unwrap();
    ran.extend(machine.pass(100));
    machine.restart(false);
    let left = machine.scheduled();
    assert_eq!(left.0 as usize, 1000 - ran.len());
    ran.extend(machine.pass(210));
    assert_eq!(ran, texts);
}

#[test]
fn a_kill_at_any_operation_loses_no_delayed_job_and_runs_none_twice_or_early() {
    for die_in in 0..400 {
        let mut machine = Machine::new(1, Y2025);
        for number in 0..40 {
            machine.after(5 + number % 7, &format!("{number}"));
        }
        machine.service.core.spool.compact_now(&mut machine.disk, machine.service.now).unwrap();
        machine.disk.die_at = Some(machine.disk.operations + die_in);
        let mut runs: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..30 {
            machine.service.now += Duration::from_secs(1);
            machine.set_wall_clock();
            let mut texts = Vec::new();
            let now = machine.service.now;
            machine.service.turn(&mut machine.disk, 4, &mut |service, disk, action| match action {
                TurnAction::StartHandler(slot) => {
                    texts.extend(service.text(disk, &slot));
                    service.core.handler_started(slot.id, now);
                }
                TurnAction::ServeClients => {
                    service.core.clients_served(ClientNeeds { commit: true, paging: false });
                }
                _ => {}
            });
            for text in texts {
                let due = 5 + text.parse::<u64>().unwrap() % 7;
                assert!(now.since(at(5000)).as_secs() >= due, "{die_in}: {text} at {now:?}");
                *runs.entry(text).or_default() += 1;
            }
            if machine.disk.is_dead() {
                machine.disk.die_at = None;
                machine.restart(false);
                continue;
            }
            machine.service.end_all(AttemptOutcome::Success, RULES);
        }
        machine.pass(60).into_iter().for_each(|text| *runs.entry(text).or_default() += 1);
        assert_eq!((runs.len(), machine.scheduled()), (40, (0, 0)), "{die_in}: some are lost");
        let again: u32 = runs.values().map(|runs| runs - 1).sum();
        assert!(again <= 4, "{die_in}: only those that ran at the kill run again: {runs:?}");
    }
}

#[test]
fn what_is_counted_is_the_same_after_a_recovery() {
    let mut machine = Machine::new(1, Y2025);
    let ids: Vec<u64> = (0..50).map(|number| machine.after(10 + number, &format!("{number}"))).collect();
    machine.pass(25);
    let cancelled = machine.service.live_records(&mut machine.disk, false).unwrap();
    let (location, _) = cancelled.iter().find(|(location, _)| location.id == ids[40]).unwrap();
    assert!(location.due.is_some());
    machine.service.core.cancel_record(&mut machine.disk, *location, machine.service.now).unwrap();
    let counts = |machine: &Machine| {
        let totals = machine.service.core.spool.totals;
        (totals.waiting, totals.scheduled, totals.live_bytes)
    };
    let before = counts(&machine);
    machine.restart(false);
    assert_eq!(counts(&machine), before);
    machine.service.core.spool.compact_now(&mut machine.disk, machine.service.now).unwrap();
    assert_eq!((counts(&machine).0, counts(&machine).1), (before.0, before.1));
    let before = counts(&machine);
    machine.restart(true);
    assert_eq!(counts(&machine), before);
    let ran = machine.pass(60);
    assert!(!ran.contains(&"40".to_owned()));
    assert_eq!((ran.len(), machine.scheduled()), (33, (0, 0)));
}

#[test]
fn a_step_of_the_wall_clock_changes_nothing_in_this_boot() {
    for wall in [0, Y2025, Y2038, -5] {
        let mut machine = Machine::new(1, wall);
        machine.after(100, "job");
        machine.pass(10);
        for step in [0, Y2025, 86_400, Y2038, Y2025 + 1000] {
            machine.wall = step;
            assert_eq!(machine.pass(5), [""; 0], "{wall} to {step}");
            machine.restart(step % 2 == 0);
        }
        assert_eq!(machine.pass(64), [""; 0], "{wall}");
        assert_eq!(machine.pass(1), ["job"], "{wall}");
    }
}

#[test]
fn in_another_boot_the_wall_clock_decides_if_it_was_set_in_both() {
    for start in [Y2025, Y2038 - 50] {
        let mut machine = Machine::new(1, start);
        machine.after(1000, "job");
        machine.pass(100);
        // 200 seconds without power: 700 are left.
        machine.reboot(false, 2, start + 5 + 100 + 200 - 2);
        assert_eq!(machine.pass(699), [""; 0]);
        assert_eq!(machine.pass(1), ["job"]);
        machine.after(1000, "overdue");
        machine.reboot(false, 3, start + 1_000_000);
        assert_eq!(machine.look(), ["overdue"]);
    }
}

#[test]
fn in_another_boot_without_a_clock_the_duration_runs_that_is_not_known_to_have_passed() {
    for (queued, booted) in [(0, 0), (0, Y2025), (Y2025, 0)] {
        // A kill: all of it runs again. A clean stop: what has passed counts.
        for (clean, left) in [(false, 1000), (true, 900)] {
            let mut machine = Machine::new(1, queued);
            machine.after(1000, "job");
            machine.pass(100);
            machine.reboot(clean, 2, booted);
            assert_eq!(machine.pass(left - 1), [""; 0], "{queued} {booted} {clean}");
            assert_eq!(machine.pass(1), ["job"], "{queued} {booted} {clean}");
        }
    }
    // A compaction writes what has passed, too.
    let mut machine = Machine::new(1, 0);
    machine.after(1000, "job");
    machine.pass(300);
    machine.service.core.spool.compact_now(&mut machine.disk, machine.service.now).unwrap();
    machine.reboot(false, 2, 0);
    assert_eq!(machine.pass(699), [""; 0]);
    machine.reboot(true, 3, 0);
    assert_eq!(machine.pass(1), ["job"]);
}

#[test]
fn the_wall_clock_decides_when_it_is_first_set_after_a_boot() {
    let mut machine = Machine::new(1, Y2025);
    machine.after(1000, "job");
    machine.reboot(false, 2, 0);
    assert_eq!(machine.pass(100), [""; 0]);
    machine.after(50, "this boot");
    // The network is up, and 800 seconds have passed since the job was queued.
    machine.wall = Y2025 + 5 + 800 - 102;
    assert_eq!(machine.pass(49), [""; 0]);
    assert_eq!(machine.pass(1), ["this boot"]);
    // From then on only the boot clock counts.
    machine.after(200, "second");
    machine.wall = 0;
    machine.restart(false);
    machine.pass(10);
    machine.wall = Y2038;
    machine.restart(false);
    assert_eq!(machine.pass(139), [""; 0]);
    assert_eq!(machine.pass(1), ["job"]);
    assert_eq!(machine.pass(49), [""; 0]);
    assert_eq!(machine.pass(1), ["second"]);
}

#[test]
fn without_a_boot_id_every_start_counts_as_another_boot() {
    let mut machine = Machine::new(0, 0);
    machine.after(100, "job");
    assert_eq!(machine.pass(60), [""; 0]);
    machine.restart(false);
    assert_eq!(machine.pass(99), [""; 0]);
    machine.restart(true);
    assert_eq!(machine.pass(1), ["job"]);
    let mut machine = Machine::new(0, Y2025);
    machine.after(100, "job");
    machine.pass(60);
    machine.restart(false);
    assert_eq!(machine.pass(39), [""; 0]);
    assert_eq!(machine.pass(1), ["job"]);
}

#[test]
fn a_retried_job_that_was_delayed_once_is_delayed_no_more() {
    let mut machine = Machine::new(1, Y2025);
    machine.after(10, "job");
    machine.service.now += Duration::from_secs(10);
    machine.set_wall_clock();
    while machine.service.start_jobs(&mut machine.disk, 1).unwrap().is_empty() {}
    machine.service.end_all(AttemptOutcome::Code(1), SpoolRules { retries: 0, ..RULES });
    assert!(machine.look().is_empty());
    let dead = machine.service.live_records(&mut machine.disk, true).unwrap();
    assert_eq!(dead.len(), 1);
    machine.service.core.edit_dead(&mut machine.disk, dead[0].0, true, machine.service.now).unwrap();
    machine.service.commit(&mut machine.disk).unwrap();
    machine.reboot(false, 2, 0);
    assert_eq!(machine.scheduled(), (0, 1));
    assert_eq!(machine.look(), ["job"]);
}

#[test]
fn a_queue_that_is_held_starts_nothing_and_stays_so() {
    let mut machine = Machine::new(1, Y2025);
    let now = machine.service.now;
    machine.service.core.add_job(&mut machine.disk, b"first", now).unwrap();
    machine.after(10, "later");
    assert_eq!(machine.service.start_jobs(&mut machine.disk, 1).unwrap(), ["first"]);
    assert_eq!(machine.service.core.set_held(&mut machine.disk, true, now), Ok(true));
    machine.service.end_all(AttemptOutcome::Code(1), RULES);
    machine.settle();
    machine.service.core.add_job(&mut machine.disk, b"second", now).unwrap();
    assert_eq!(machine.pass(30), [""; 0], "neither new jobs nor retries nor delayed ones");
    assert_eq!(machine.service.core.next_deadline(machine.service.now, false), None, "nor a wake");
    for clean in [false, true] {
        machine.restart(clean);
        assert!(machine.service.core.spool.is_held());
        assert_eq!(machine.pass(5), [""; 0]);
        machine.service.core.spool.compact_now(&mut machine.disk, machine.service.now).unwrap();
    }
    machine.reboot(false, 2, 0);
    assert_eq!(machine.pass(5), [""; 0]);
    assert_eq!(machine.service.core.set_held(&mut machine.disk, false, machine.service.now), Ok(true));
    assert_eq!(machine.pass(5), ["first", "second", "later"]);
    machine.restart(true);
    assert!(!machine.service.core.spool.is_held());
}

#[test]
fn a_drain_does_not_wait_for_jobs_that_are_not_due() {
    let mut machine = Machine::new(1, Y2025);
    machine.after(10, "later");
    machine.service.core.add_job(&mut machine.disk, b"now", machine.service.now).unwrap();
    assert!(!machine.service.core.is_drained());
    machine.service.core.begin_drain();
    assert_eq!(machine.pass(20), ["now"], "what becomes due meanwhile stays");
    assert!(machine.service.core.is_drained());
    machine.restart(true);
    assert_eq!(machine.look(), ["later"]);
}

#[test]
fn a_delayed_job_makes_an_old_journal_new_first() {
    let mut disk = super::format::written(1, &[]);
    let service = started(&mut disk, [1; 16], at(5000));
    let mut machine = Machine { disk, service, boot: [1; 16], wall: Y2025 };
    machine.look();
    machine.after(10, "later");
    machine.restart(false);
    assert_eq!((machine.pass(9), machine.pass(1)), (vec![], vec!["later".to_owned()]));
}
