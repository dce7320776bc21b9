//! Dead jobs beyond `dead_max`: the oldest goes.

use super::*;

/// Returns the rules of these tests.
const fn keeping(dead_max: u32) -> SpoolRules {
    SpoolRules { retries: 0, dead_max, ..RULES }
}

/// Performs turns until no dead job is dropped. Returns the texts that were logged.
fn drop_dead(service: &mut TestService, disk: &mut FakeDisk, dead_max: u32) -> Vec<String> {
    let mut dropped = Vec::new();
    let mut turns = 0;
    while turns < 200 || service.core.spool.dead() > dead_max {
        turns += 1;
        service.core.set_rules(JobRules { spool: keeping(dead_max), ..JOB_RULES });
        service.core.begin_turn(service.now);
        while let Some(action) =
            service.core.next_action(disk, &mut service.scratch, service.now, &mut |_| {})
        {
            if let TurnAction::LogDropped(location) = action {
                let mut buffer = [0; RECORD_MAX_BYTES];
                let text = service.core.spool.text(disk, location, &mut buffer).unwrap();
                dropped.push(String::from_utf8(text.to_vec()).unwrap());
            }
        }
    }
    dropped
}

/// Returns a service with dead jobs whose texts are the numbers from 0 on.
fn dead(count: usize) -> (FakeDisk, TestService) {
    let (mut disk, mut service) = service();
    let texts: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    add_batch(&mut service, &mut disk, &texts).unwrap();
    for _ in 0..count.div_ceil(8) {
        // Not by turns, which would drop them.
        service.refill(&mut disk).unwrap();
        while service.running().len() < 8
            && let Some(slot) = service.core.spool.dequeue(service.now, &|_| false)
        {
            service.core.handler_started(slot.id, service.now);
        }
        service.core.spool.write_transitions(&mut disk, service.now).unwrap();
        service.end_all(AttemptOutcome::Code(3), keeping(10_000));
        service.core.spool.write_transitions(&mut disk, service.now).unwrap();
    }
    service.commit(&mut disk).unwrap();
    assert_eq!(service.core.spool.dead() as usize, count);
    (disk, service)
}

fn numbers(range: core::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn kept(service: &mut TestService, disk: &mut FakeDisk) -> Vec<String> {
    let records = service.live_records(disk, true).unwrap();
    assert_eq!(records.len(), service.core.spool.dead() as usize);
    records.into_iter().map(|(_, text)| text).collect()
}

#[test]
fn the_oldest_dead_jobs_go_with_their_texts_and_the_others_survive_everything() {
    let (mut disk, mut service) = dead(300);
    assert_eq!(drop_dead(&mut service, &mut disk, 40), numbers(0..260));
    assert_eq!(kept(&mut service, &mut disk), numbers(260..300));
    assert_eq!(service.core.counts().dead_dropped, 260);
    for compacts in [false, true] {
        if compacts {
            service.core.spool.compact_now(&mut disk, at(0)).unwrap();
            assert_eq!(kept(&mut service, &mut disk), numbers(260..300));
        }
        service.commit(&mut disk).unwrap();
        let mut copy = disk.clone();
        copy.power_cut();
        let (mut again, _) = TestService::start(&mut copy, at(0)).unwrap();
        assert_eq!(kept(&mut again, &mut copy), numbers(260..300), "{compacts}");
        assert!(again.run_to_the_end(&mut copy).is_empty());
    }
}

#[test]
fn jobs_that_were_forgotten_or_retried_before_do_not_confuse_what_was_dropped() {
    let (mut disk, mut service) = dead(12);
    let records = service.live_records(&mut disk, true).unwrap();
    service.core.spool.discard_record(&mut disk, at(0), records[1].0).unwrap();
    service.core.spool.retry(&mut disk, at(0), records[3].0).unwrap();
    service.commit(&mut disk).unwrap();
    assert_eq!(drop_dead(&mut service, &mut disk, 6), ["0", "2", "4", "5"]);
    // The retried job dies again, and is the youngest now.
    assert_eq!(service.start_jobs(&mut disk, 1).unwrap(), ["3"]);
    service.end_all(AttemptOutcome::Code(1), keeping(6));
    service.core.spool.write_transitions(&mut disk, at(0)).unwrap();
    assert_eq!(drop_dead(&mut service, &mut disk, 6), ["6"]);
    let expected = ["7", "8", "9", "10", "11", "3"];
    assert_eq!(kept(&mut service, &mut disk), expected);
    service.commit(&mut disk).unwrap();
    disk.power_cut();
    let (mut again, _) = TestService::start(&mut disk, at(0)).unwrap();
    assert_eq!(kept(&mut again, &mut disk), expected);
    assert_eq!(drop_dead(&mut again, &mut disk, 5), ["7"]);
    let records = again.live_records(&mut disk, true).unwrap();
    assert_eq!(records.len(), 5);
}

#[test]
fn dead_jobs_do_not_fill_the_queue() {
    let (mut disk, mut service) = dead(20);
    let rules = SpoolRules { queue_max: 5, ..RULES };
    assert_eq!(service.core.spool.room(&rules), 5);
    assert_eq!(service.all_dead(&mut disk, Purpose::Retry).unwrap(), 20);
    assert_eq!((service.core.spool.room(&rules), service.core.spool.waiting()), (0, 20));
}

#[test]
fn many_dead_jobs_are_dropped_in_linear_time() {
    let bytes = |count: usize| {
        let (mut disk, mut service) = dead(count);
        let before = disk.bytes_read;
        assert_eq!(drop_dead(&mut service, &mut disk, 1).len(), count - 1);
        disk.bytes_read - before
    };
    // Enough that both need compactions.
    let (few, many) = (bytes(1500), bytes(6000));
    assert!(many < 6 * few, "{few} bytes for 1500, {many} for 6000");
}
