//! Random histories: lives that end at any operation, by a kill or a power cut,
//! and what may not be lost, doubled or run again by any of them.

use super::*;

/// The promises of a history.
#[derive(Default)]
struct Promises {
    /// Lines whose commit succeeded.
    accepted: BTreeSet<String>,
    /// Lines whose end was committed.
    over: BTreeSet<String>,
    /// Lines that a client asked to cancel or forget: a crash decides.
    dropped: BTreeSet<String>,
    runs: BTreeMap<String, u32>,
    /// When delayed jobs are due.
    due: BTreeMap<String, Instant>,
    /// Whether the queue is held, if no crash decides it.
    held: Option<bool>,
    /// Whether the spool is moved away, taken and put back.
    moves: bool,
}

/// Runs one random history with crashes. With `power`, cuts lose data that was not synced. With
/// `moves`, the spool is moved, and is put back before each start.
fn history(seed: u64, power: bool, moves: bool) {
    let mut disk = FakeDisk::new(seed);
    let mut promises = Promises { moves, ..Promises::default() };
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
            if !disk.is_journal_named() {
                disk.put_spool_back();
            }
            disk.restart();
        }
    }
    disk.die_at = None;
    let (mut service, recovery) = TestService::start(&mut disk, now).unwrap();
    let dead = service.live_records(&mut disk, true).unwrap();
    assert_eq!(service.core.spool.dead() as usize, dead.len(), "seed {seed}");
    if service.core.spool.is_held() {
        while service.core.set_held(&mut disk, false, service.now) == Ok(false) {}
    }
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

/// Runs one life of the service, up to its death.
fn live(
    disk: &mut FakeDisk,
    life: u32,
    now: &mut Instant,
    promises: &mut Promises,
    written: &mut Vec<String>,
) -> Result<(), RecoverError> {
    let (mut service, _) = TestService::start(disk, *now)?;
    let held = service.core.spool.is_held();
    assert!(promises.held.is_none_or(|known| known == held), "held: {held}");
    promises.held = Some(held);
    let mut ended: Vec<String> = Vec::new();
    let mut rewrite = None;
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
        if promises.moves && disk.random(8) == 0 {
            match disk.random(4) {
                0 | 1 if disk.is_journal_named() => disk.move_spool_away(),
                2 if disk.is_journal_named() => disk.put_another_spool(),
                _ if !disk.is_journal_named() => disk.put_spool_back(),
                _ => {}
            }
        }
        let away = !disk.is_journal_named() || !service.core.home.is_here();
        service.look();
        if !away && disk.random(4) == 0 && rewrite.is_none() && !service.core.spool.is_compacting() {
            service.core.compact(disk, *now);
        }
        let mut edits = Vec::new();
        service.turn(disk, 1 + turn % 4, &mut |service, disk, action| match action {
            TurnAction::ServeClients => {
                let name = format!("{life}.{turn}");
                edits = edit(service, disk, promises, &mut rewrite, &name).unwrap_or_default();
                let commit = !edits.is_empty() || disk.random(2) == 0;
                service.core.clients_served(ClientNeeds { commit, paging: disk.random(4) == 0 });
            }
            TurnAction::Reply { jobs: Ok(()), edits: Ok(()) } => {
                if !service.core.spool.window().has_pending_records() {
                    promises.over.extend(ended.drain(..));
                }
                edits.drain(..).for_each(|edit| promises.keep(edit));
                // Everything in the window was committed.
                for slot in service.core.spool.window().slots() {
                    promises.accepted.extend(service.text(disk, slot));
                }
            }
            TurnAction::StartHandler(slot) => {
                // Its start is in the journal, but the disk may have died since.
                let Ok(text) = service.text(disk, &slot) else { return };
                assert!(!promises.over.contains(&text), "{text:?} runs after its end was recorded");
                assert!(promises.held != Some(true), "{text:?} runs while the queue is held");
                let early = promises.due.get(&text).is_some_and(|due| !due.is_due(service.now));
                assert!(!early, "{text:?} runs too early");
                *promises.runs.entry(text).or_default() += 1;
                service.core.handler_started(slot.id, service.now);
            }
            _ => {}
        });
        if disk.is_dead() {
            return Err(RecoverError::Disk(DEAD));
        }
        let moved = away || !service.core.home.is_here();
        assert!(moved || service.core.disk_health.error().is_none(), "{:?}", service.core.disk_health);
        for slot in service.running() {
            let text = service.text(disk, &slot)?;
            let luck = disk.random(8);
            let outcome = if luck < 2 { AttemptOutcome::Code(1) } else { AttemptOutcome::Success };
            let spool = SpoolRules { retries: if luck == 0 { 0 } else { 100 }, ..RULES };
            service.core.set_rules(JobRules { spool, ..JOB_RULES });
            service.core.handler_ended(slot.id, outcome, *now);
            ended.extend((outcome == AttemptOutcome::Success).then_some(text));
        }
    }
    Ok(())
}

/// A request of a client, to be promised after the commit.
enum Edit {
    Added(String),
    Over(String),
    Held(bool),
    /// The job runs again; it had run this many times before.
    Retried(String, u32),
}

impl Promises {
    fn keep(&mut self, edit: Edit) {
        match edit {
            Edit::Added(text) => drop(self.accepted.insert(text)),
            Edit::Over(text) => drop(self.over.insert(text)),
            Edit::Held(held) => self.held = Some(held),
            Edit::Retried(text, before) => {
                *self.runs.entry(text.clone()).or_default() -= before;
                self.accepted.insert(text);
            }
        }
    }

    fn retried(&self, text: String) -> Edit {
        let before = self.runs.get(&text).copied().unwrap_or(0);
        Edit::Retried(text, before)
    }
}

/// All dead jobs that a client asked to have retried or forgotten.
type Rewrite = Option<(Purpose, Vec<Edit>)>;

/// Makes the requests of clients in a turn.
fn edit(
    service: &mut TestService,
    disk: &mut FakeDisk,
    promises: &mut Promises,
    rewrite: &mut Rewrite,
    name: &str,
) -> DiskResult<Vec<Edit>> {
    let now = service.now;
    if let Some((purpose, edits)) = rewrite.take_if(|_| !service.core.spool.is_compacting()) {
        if disk.is_dead() {
            return Ok(Vec::new());
        }
        assert_eq!(service.core.spool.purpose(), purpose);
        assert_eq!(service.core.spool.affected_count() as usize, edits.len());
        return Ok(edits);
    }
    if disk.random(3) == 0 {
        let count = 1 + disk.random(30);
        let texts: Vec<_> = (0..count).map(|n| format!("control {name}.{n} {}", "z".repeat(60))).collect();
        for text in &texts {
            service.core.add_job(disk, text.as_bytes(), now)?;
        }
        return Ok(texts.into_iter().map(Edit::Added).collect());
    }
    if disk.random(5) == 0 && !service.core.spool.is_compacting() && rewrite.is_none() {
        let text = format!("delayed {name}");
        let due = now + Duration::from_ms(1000 + disk.random(40_000));
        let delay = now.until(due);
        promises.due.insert(text.clone(), due);
        let added = service.core.add_delayed_job(disk, text.as_bytes(), delay, now)?;
        return Ok(added.map(|_| Edit::Added(text)).into_iter().collect());
    }
    if disk.random(8) == 0 {
        let held = !service.core.spool.is_held();
        promises.held = None;
        if service.core.set_held(disk, held, now)? {
            return Ok(vec![Edit::Held(held)]);
        }
        promises.held = Some(!held);
        return Ok(Vec::new());
    }
    let dead = disk.random(2) == 0;
    let choice = disk.random(12);
    if choice == 0 {
        let slots = service.core.spool.window().slots();
        let waiting = slots.iter().find(|slot| matches!(slot.state, JobState::Waiting)).copied();
        let Some(slot) = waiting else { return Ok(Vec::new()) };
        let text = service.text(disk, &slot)?;
        promises.dropped.insert(text.clone());
        assert_eq!(service.core.cancel(disk, slot.id, now)?, Some(Cancelled::Waiting));
        return Ok(vec![Edit::Over(text)]);
    }
    if rewrite.is_some() || service.core.spool.tombstones_full() {
        return Ok(Vec::new());
    }
    match choice {
        1..4 => {
            let records = service.live_records(disk, dead)?;
            let Some((location, text)) = records.last().cloned() else { return Ok(Vec::new()) };
            promises.dropped.insert(text.clone());
            if dead {
                service.core.edit_dead(disk, location, false, now)?;
            } else {
                service.core.cancel_record(disk, location, now)?;
            }
            Ok(vec![Edit::Over(text)])
        }
        4..6 => {
            let records = service.live_records(disk, true)?;
            let Some((location, text)) = records.first().cloned() else { return Ok(Vec::new()) };
            service.core.edit_dead(disk, location, true, now)?;
            Ok(vec![promises.retried(text)])
        }
        6 if !service.core.spool.is_compacting() && !promises.moves => {
            let texts = service.live_records(disk, true)?.into_iter().map(|(_, text)| text);
            let purpose = if dead { Purpose::Retry } else { Purpose::Forget };
            let edits = match purpose {
                Purpose::Retry => texts.map(|text| promises.retried(text)).collect(),
                _ => texts.inspect(|text| promises.dropped.extend([text.clone()])).map(Edit::Over).collect(),
            };
            service.core.start_rewrite(disk, purpose, now)?;
            *rewrite = Some((purpose, edits));
            Ok(Vec::new())
        }
        _ => Ok(Vec::new()),
    }
}

#[test]
fn no_kill_at_any_moment_loses_or_doubles_a_line() {
    for seed in 0..1500 {
        history(seed, false, false);
    }
}

#[test]
fn no_power_cut_loses_an_accepted_job_or_repeats_one_that_is_over() {
    for seed in 0..1500 {
        history(seed, true, false);
    }
}

#[test]
fn no_kill_while_the_spool_moves_loses_or_doubles_a_line() {
    for seed in 0..500 {
        history(seed, false, true);
    }
}
