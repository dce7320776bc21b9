//! Random histories: lives that end at any operation, by a kill or a power cut,
//! and what may not be lost, doubled or run again by any of them.

use super::*;

/// What a history promises.
#[derive(Default)]
struct Promises {
    /// Lines whose commit succeeded.
    accepted: BTreeSet<String>,
    /// Lines whose end was committed.
    over: BTreeSet<String>,
    /// Lines that somebody asked to cancel or forget: a crash decides.
    dropped: BTreeSet<String>,
    runs: BTreeMap<String, u32>,
}

/// One random history with crashes. `power` cuts lose what was not synced.
fn history(seed: u64, power: bool) {
    let mut disk = FakeDisk::new(seed);
    let mut promises = Promises::default();
    let mut written = Vec::new();
    let mut now = at(0);
    for life in 0..6 {
        let die_in = u32::try_from(disk.random(60)).unwrap();
        disk.die_at = Some(disk.operations + 1 + die_in);
        if let Err(error) = live(&mut disk, life, &mut now, &mut promises, &mut written) {
            assert!(error == RecoverError::Disk(DEAD), "seed {seed}: {error:?}");
        }
        if power && disk.random(2) == 0 {
            disk.power_cut();
        } else {
            disk.restart();
        }
    }
    disk.die_at = None;
    let (mut service, recovery) = TestService::start(&mut disk, now).unwrap();
    let dead = service.live_records(&mut disk, true).unwrap();
    assert_eq!(service.spool.dead() as usize, dead.len(), "seed {seed}");
    let ran = service.run_to_the_end(&mut disk);
    for (location, text) in &dead {
        assert!(!ran.contains(text), "seed {seed}: {text:?} is dead, and waited as well");
        assert!(!promises.over.contains(text), "seed {seed}: {text:?} ({}) was forgotten", location.id);
    }
    assert!(recovery.damaged_bytes == 0 || power, "seed {seed}: {recovery:?}");
    let mut last: BTreeMap<&String, u32> = BTreeMap::new();
    for text in &ran {
        *last.entry(text).or_default() += 1;
        assert!(!promises.over.contains(text), "seed {seed}: {text:?} ran after its end was recorded");
    }
    for (text, count) in &last {
        assert_eq!(*count, 1, "seed {seed}: {text:?} is in the queue twice");
    }
    for text in &promises.accepted {
        let runs = promises.runs.get(text).copied().unwrap_or(0) + last.get(text).copied().unwrap_or(0);
        let dropped = promises.dropped.contains(text);
        assert!(dropped || runs > 0, "seed {seed}: {text:?} was accepted and never ran");
    }
    for text in &written {
        let known = promises.runs.contains_key(text) || promises.dropped.contains(text);
        assert!(known || last.contains_key(text), "seed {seed}: {text:?} lost");
    }
}

/// One life of the service, up to its death.
fn live(
    disk: &mut FakeDisk,
    life: u32,
    now: &mut Instant,
    promises: &mut Promises,
    written: &mut Vec<String>,
) -> Result<(), RecoverError> {
    let (mut service, _) = TestService::start(disk, *now)?;
    let mut ended: Vec<String> = Vec::new();
    for turn in 0..200 {
        *now += [ms(1), ms(600), CLAIM_QUIET][usize::try_from(disk.random(3)).unwrap()];
        service.now = *now;
        if disk.random(3) == 0 {
            for _ in 0..=disk.random(40) {
                let text = format!("{life}.{turn}.{} {}y", written.len(), "x".repeat(written.len() % 70));
                disk.append_durably(&format!("{text}\n"));
                written.push(text);
            }
        }
        service.spool.claims.look_at_queue();
        service.spool.claims.look_at_claims();
        service.ingest(disk)?;
        if disk.random(4) == 0 {
            service.spool.compact_step(disk, *now)?;
        }
        service.commit(disk)?;
        promises.over.extend(ended.drain(..));
        edit(&mut service, disk, promises, &format!("{life}.{turn}"))?;
        service.spool.defer_blocker(disk, *now)?;
        for text in service.start_jobs(disk, 1 + turn % 4)? {
            assert!(!promises.over.contains(&text), "{text:?} runs after its end was recorded");
            *promises.runs.entry(text).or_default() += 1;
        }
        // Everything in the window was committed.
        for slot in service.spool.window().slots() {
            promises.accepted.insert(service.text(disk, slot)?);
        }
        for slot in std::mem::take(&mut service.running) {
            let text = service.text(disk, &slot)?;
            let luck = disk.random(8);
            if luck < 2 {
                let retries = if luck == 0 { 0 } else { 100 };
                service.spool.ended(slot.id, AttemptOutcome::Code(1), &SpoolRules { retries, ..RULES });
            } else {
                service.spool.ended(slot.id, AttemptOutcome::Success, &RULES);
                ended.push(text);
            }
        }
        service.spool.write_transitions(disk, *now)?;
    }
    Ok(())
}

/// What clients of the control socket ask for; a promise is made after the
/// commit.
fn edit(
    service: &mut TestService,
    disk: &mut FakeDisk,
    promises: &mut Promises,
    name: &str,
) -> Result<(), DiskError> {
    let now = service.now;
    if disk.random(3) == 0 {
        let count = 1 + disk.random(30);
        let texts: Vec<_> = (0..count).map(|n| format!("control {name}.{n} {}", "z".repeat(60))).collect();
        add_batch(service, disk, &texts)?;
        promises.accepted.extend(texts);
    }
    let dead = disk.random(2) == 0;
    match disk.random(12) {
        0 => {
            let slots = service.spool.window().slots();
            let Some(slot) = slots.iter().find(|slot| matches!(slot.state, JobState::Waiting)).copied()
            else {
                return Ok(());
            };
            let text = service.text(disk, &slot)?;
            promises.dropped.insert(text.clone());
            assert_eq!(service.spool.cancel(disk, now, slot.id)?, Some(Cancelled::Waiting));
            service.commit(disk)?;
            promises.over.insert(text);
        }
        1..4 if !service.spool.tombstones_full() => {
            let records = service.live_records(disk, dead)?;
            if let Some((location, text)) = records.last() {
                promises.dropped.insert(text.clone());
                service.spool.discard_record(disk, now, *location)?;
                service.commit(disk)?;
                promises.over.insert(text.clone());
            }
        }
        4..6 if !service.spool.tombstones_full() => {
            let records = service.live_records(disk, true)?;
            if let Some((location, text)) = records.first() {
                service.spool.retry(disk, now, *location)?;
                service.commit(disk)?;
                // It is to run again.
                promises.runs.insert(text.clone(), 0);
                promises.accepted.insert(text.clone());
            }
        }
        6 => {
            let records = service.live_records(disk, true)?;
            let purpose = if dead { Purpose::Retry } else { Purpose::Forget };
            if purpose == Purpose::Forget {
                promises.dropped.extend(records.iter().map(|(_, text)| text.clone()));
            }
            assert_eq!(service.all_dead(disk, purpose)? as usize, records.len());
            for (_, text) in records {
                if purpose == Purpose::Forget {
                    promises.over.insert(text);
                } else {
                    promises.runs.insert(text.clone(), 0);
                    promises.accepted.insert(text);
                }
            }
        }
        _ => {}
    }
    Ok(())
}

#[test]
fn no_kill_at_any_moment_loses_or_doubles_a_line() {
    for seed in 0..1500 {
        history(seed, false);
    }
}

#[test]
fn no_power_cut_loses_an_accepted_job_or_repeats_one_that_is_over() {
    for seed in 0..1500 {
        history(seed, true);
    }
}
