//! Cancelling, retrying and forgetting, and the walks that find the jobs.

use super::*;

#[test]
fn a_walk_through_the_journal_is_over_when_that_was_written_anew() {
    let (mut disk, mut service) = service();
    service.core.spool.add(&mut disk, at(0), b"job").unwrap();
    service.commit(&mut disk).unwrap();
    let scan = service.core.spool.scan(false);
    assert!(service.core.spool.is_current(&scan));
    service.core.spool.compact_now(&mut disk, at(0)).unwrap();
    assert!(
        !service.core.spool.is_current(&scan)
            && service.core.spool.is_current(&service.core.spool.scan(false))
    );
}

#[test]
fn a_cancelled_job_never_runs_wherever_it_was() {
    let (mut disk, mut service) = service();
    let texts: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    add_batch(&mut service, &mut disk, &texts).unwrap();
    assert_eq!(service.start_jobs(&mut disk, 1).unwrap(), ["0"]);
    assert_eq!(service.core.spool.cancel(&mut disk, at(0), 1), Ok(Some(Cancelled::Running)));
    assert_eq!(service.core.spool.cancel(&mut disk, at(0), 1), Ok(Some(Cancelled::AlreadyEnded)));
    assert_eq!(service.core.spool.cancel(&mut disk, at(0), 2), Ok(Some(Cancelled::Waiting)));
    assert_eq!(service.core.spool.cancel(&mut disk, at(0), 2), Ok(None));
    assert_eq!(service.core.spool.cancel(&mut disk, at(0), 90), Ok(None), "it is beyond the window");
    let mut records = service.live_records(&mut disk, false).unwrap();
    assert_eq!(records.len(), 100 - WINDOW_JOBS);
    let (mut scan, mut met) = (service.core.spool.scan(true), 0);
    let mut visit = |_| {
        met += 1;
        true
    };
    while !service.core.spool.scan_step(&mut disk, &mut service.scratch, &mut scan, &mut visit).unwrap() {}
    assert_eq!(met, records.len(), "those in the window are not met, from wherever the walk began");
    let (location, text) = records.pop().unwrap();
    assert_eq!((location.id, text.as_str()), (100, "99"));
    service.core.spool.discard_record(&mut disk, at(0), location).unwrap();
    service.commit(&mut disk).unwrap();
    assert_eq!(service.core.spool.waiting(), 97);
    assert_eq!(service.live_records(&mut disk, false).unwrap().pop().unwrap().0.id, 99);
    for compacted in [false, true] {
        if compacted {
            service.core.spool.compact_now(&mut disk, at(0)).unwrap();
        }
        let mut copy = disk.clone();
        copy.power_cut();
        let (mut again, recovery) = TestService::start(&mut copy, at(0)).unwrap();
        assert_eq!((recovery.interrupted, again.core.spool.waiting()), (0, 97));
        assert_eq!(again.run_to_the_end(&mut copy), texts[2..99]);
    }
    service.end_all(AttemptOutcome::Signal(15), RULES);
    assert_eq!(service.run_to_the_end(&mut disk), texts[2..99]);
}

#[test]
fn dead_jobs_are_retried_and_forgotten_one_by_one_or_all() {
    let (mut disk, mut service) = service();
    let texts: Vec<String> = (1..=90).map(|number| format!("job {number}")).collect();
    add_batch(&mut service, &mut disk, &texts).unwrap();
    let rules = SpoolRules { retries: 0, ..RULES };
    while !service.start_jobs(&mut disk, 8).unwrap().is_empty() {
        service.end_all(AttemptOutcome::Code(3), rules);
        service.core.spool.write_transitions(&mut disk, at(0)).unwrap();
    }
    service.commit(&mut disk).unwrap();
    let dead = service.live_records(&mut disk, true).unwrap();
    assert_eq!((dead.len(), service.core.spool.dead(), service.core.spool.waiting()), (90, 90, 0));
    service.core.spool.retry(&mut disk, at(0), dead[10].0).unwrap();
    service.core.spool.discard_record(&mut disk, at(0), dead[20].0).unwrap();
    service.commit(&mut disk).unwrap();
    assert_eq!((service.core.spool.dead(), service.core.spool.waiting()), (88, 1));
    for compacted in [false, true] {
        if compacted {
            service.core.spool.compact_now(&mut disk, at(0)).unwrap();
        }
        let mut copy = disk.clone();
        copy.power_cut();
        let (mut again, _) = TestService::start(&mut copy, at(0)).unwrap();
        assert_eq!((again.core.spool.dead(), again.core.spool.waiting()), (88, 1));
        assert_eq!(again.live_records(&mut copy, true).unwrap().len(), 88);
        assert_eq!(again.start_jobs(&mut copy, 1).unwrap(), ["job 11"]);
        assert_eq!(again.running()[0].attempt, 2, "its history goes on");
    }
    for (purpose, left) in [(Purpose::Retry, 88), (Purpose::Forget, 0)] {
        let mut copy = disk.clone();
        let (mut again, _) = TestService::start(&mut copy, at(0)).unwrap();
        assert_eq!(again.all_dead(&mut copy, purpose).unwrap(), 88);
        assert_eq!((again.core.spool.dead(), again.core.spool.waiting()), (0, left + 1));
        let mut other = copy.clone();
        other.power_cut();
        let (mut third, _) = TestService::start(&mut other, at(0)).unwrap();
        assert_eq!((third.core.spool.dead(), third.core.spool.waiting()), (0, left + 1));
        let ran = again.run_to_the_end(&mut copy);
        assert_eq!((ran.len() as u32, ran[0].as_str()), (left + 1, "job 11"));
        assert_eq!(third.run_to_the_end(&mut other), ran);
    }
}
