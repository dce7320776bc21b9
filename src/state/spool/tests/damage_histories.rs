//! Seeded histories of a service that runs on while its journal is damaged and its disk
//! fails: no damage costs more than the jobs that it hit, and the numbers stay right.

use super::*;

/// The state of a job that was accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Is {
    Waiting,
    Running,
    Dead,
    Over,
}

/// A service that runs on while its journal is damaged and its disk fails now and then.
struct DamageRun {
    disk: FakeDisk,
    service: TestService,
    /// Dequeued jobs whose start is not recorded, and those that run.
    dequeued: Vec<Slot>,
    running: Vec<Slot>,
    seed: u64,
    jobs: BTreeMap<u64, (String, Is)>,
    /// Jobs whose live record was damaged.
    damaged: BTreeSet<u64>,
    written: Vec<String>,
    /// Jobs that were dead when a compaction for all of them began.
    raised: Vec<u64>,
    reported: Damage,
    /// Damaged ones among those that were forgotten: they were, or were lost.
    unsure: u32,
}

impl DamageRun {
    fn new(seed: u64) -> Self {
        let mut disk = FakeDisk::new(seed);
        let (service, _) = TestService::start(&mut disk, Instant::BOOT).unwrap();
        let (jobs, damaged) = (BTreeMap::new(), BTreeSet::new());
        let (written, raised, reported) = (Vec::new(), Vec::new(), Damage::default());
        let (dequeued, running) = (Vec::new(), Vec::new());
        Self { disk, service, dequeued, running, seed, jobs, damaged, written, raised, reported, unsure: 0 }
    }

    fn pick(&mut self, below: usize) -> usize {
        usize::try_from(self.disk.random(below as u64)).unwrap()
    }

    /// Returns the jobs in the window, beyond it, and dead.
    fn locations(&mut self) -> Vec<RecordLocation> {
        let spool = &self.service.core.spool;
        let mut scan = spool.scan(true);
        let mut locations: Vec<RecordLocation> = Vec::new();
        let mut visit = |location| {
            locations.push(location);
            true
        };
        while !spool.scan_step(&mut self.disk, &mut self.service.scratch, &mut scan, &mut visit).unwrap() {}
        let counts = |slot: &&Slot| slot.state != JobState::Cancelled;
        locations.extend(self.service.core.spool.window().slots().iter().filter(counts).map(Slot::location));
        locations
    }

    /// Changes some bytes of the journal, or removes them.
    fn damage(&mut self) {
        let locations = self.locations();
        let length = self.disk.journal_mut().len();
        if length == 0 {
            return;
        }
        let at = self.pick(length);
        let range = match self.disk.random(6) {
            0 => at..length.min(at + 1 + self.pick(4000)),
            // A length, which is the worst part of a header.
            1 if !locations.is_empty() => {
                let start = usize::try_from(locations[self.pick(locations.len())].offset).unwrap();
                start + 2..start + 4
            }
            _ => at..at + 1,
        };
        if self.disk.random(20) == 0 {
            self.disk.journal_mut().truncate(range.start);
        } else if range.len() == 1 {
            let bit = 1 << self.pick(8);
            self.disk.journal_mut()[at] ^= bit;
        } else {
            let with = [0, 1, 3, 0xff][self.pick(4)];
            let bytes = self.disk.journal_mut();
            let end = range.end.min(bytes.len());
            bytes[range.start.min(end)..end].fill(with);
        }
        let cut = self.disk.journal_mut().len() < length;
        for location in locations {
            let start = usize::try_from(location.offset).unwrap();
            let record = start..start + usize::from(location.size);
            if range.start < record.end && (cut || record.start < range.end) {
                self.damaged.insert(location.id);
            }
        }
    }

    fn add(&mut self) -> DiskResult {
        let now = self.service.now;
        let savepoint = self.service.core.spool.begin_batch(&mut self.disk, now)?;
        let mut added = Vec::new();
        let size = [3, 60, 950][self.pick(3)];
        for _ in 0..=self.pick(12) {
            let text = format!("{} {}", self.jobs.len() + added.len(), "x".repeat(size));
            match self.service.core.spool.add(&mut self.disk, now, text.as_bytes()) {
                Ok(id) => added.push((id, text)),
                Err(error) => {
                    self.service.core.spool.roll_back(&mut self.disk, savepoint);
                    return Err(error);
                }
            }
        }
        if let Err(error) = self.service.core.spool.commit(&mut self.disk, &RULES, now) {
            self.service.core.spool.roll_back(&mut self.disk, savepoint);
            return Err(error);
        }
        self.jobs.extend(added.into_iter().map(|(id, text)| (id, (text, Is::Waiting))));
        Ok(())
    }

    fn ingest(&mut self) -> DiskResult {
        if self.disk.random(2) == 0 {
            let text = format!("line {} {}z", self.written.len(), "y".repeat(self.written.len() % 90));
            self.disk.append_durably(&format!("{text}\n"));
            self.written.push(text);
        }
        self.service.core.spool.claims.look_at_queue();
        self.service.core.spool.claims.look_at_claims();
        let result = self.service.ingest(&mut self.disk);
        let mut buffer = [0; RECORD_MAX_BYTES];
        for location in self.locations() {
            if self.jobs.contains_key(&location.id) {
                continue;
            }
            let text = self.service.core.spool.text(&mut self.disk, location, &mut buffer).unwrap();
            let text = String::from_utf8(text.to_vec()).unwrap();
            assert!(self.written.contains(&text), "seed {}: {text:?} is of nobody", self.seed);
            self.jobs.insert(location.id, (text, Is::Waiting));
        }
        result.map(drop)
    }

    fn start(&mut self) -> DiskResult {
        let now = self.service.now;
        self.service.core.spool.defer_blocker(&mut self.disk, now)?;
        self.service.refill(&mut self.disk)?;
        while self.running.len() + self.dequeued.len() < 4 {
            let Some(slot) = self.service.core.spool.dequeue(now, &|_| false) else { break };
            self.dequeued.push(slot);
        }
        self.service.core.spool.write_transitions(&mut self.disk, now)?;
        self.service.commit(&mut self.disk)?;
        for slot in std::mem::take(&mut self.dequeued) {
            let Some(slot) = self.service.core.spool.window().get(slot.id).copied() else { continue };
            let mut buffer = [0; RECORD_MAX_BYTES];
            let text = self.service.core.spool.runnable_text(&mut self.disk, slot.location(), &mut buffer);
            let (known, is) = self.jobs.get_mut(&slot.id).unwrap();
            assert_eq!(*is, Is::Waiting, "seed {}: {} runs", self.seed, slot.id);
            if let Ok(text) = text {
                assert_eq!(text, known.as_bytes(), "seed {}", self.seed);
            } else {
                assert!(self.damaged.contains(&slot.id), "seed {}: {} cannot be read", self.seed, slot.id);
            }
            *is = Is::Running;
            self.running.push(slot);
            if text.is_err() {
                self.end(slot.id, AttemptOutcome::NotStarted);
            }
        }
        Ok(())
    }

    fn end(&mut self, id: u64, outcome: AttemptOutcome) {
        self.running.retain(|slot| slot.id != id);
        let end = self.service.core.spool.ended(id, outcome, &RULES);
        let is = &mut self.jobs.get_mut(&id).unwrap().1;
        *is = match end.unwrap() {
            AttemptEnd::Done(_) | AttemptEnd::Cancelled => Is::Over,
            AttemptEnd::Dead(_) => Is::Dead,
            AttemptEnd::Fail(_) | AttemptEnd::Requeued | AttemptEnd::RequeuedCounted => Is::Waiting,
        };
    }

    fn edit(&mut self) -> DiskResult {
        let now = self.service.now;
        let slots = self.service.core.spool.window().slots();
        if self.disk.random(3) == 0 && !slots.is_empty() {
            let id = slots[usize::try_from(self.disk.random(slots.len() as u64)).unwrap()].id;
            self.service.core.spool.write_transitions(&mut self.disk, now)?;
            let found = self.service.core.spool.cancel(&mut self.disk, now, id)?;
            let handled = self.running.iter().any(|slot| slot.id == id);
            if found.is_some_and(|found| found != Cancelled::AlreadyEnded) && !handled {
                self.dequeued.retain(|slot| slot.id != id);
                self.service.core.spool.requeue(id);
                self.jobs.get_mut(&id).unwrap().1 = Is::Over;
            }
            return Ok(());
        }
        let spool = &self.service.core.spool;
        let alone = !spool.is_compacting() || spool.purpose() == Purpose::Shrink;
        let window: Vec<u64> = spool.window().slots().iter().map(|slot| slot.id).collect();
        if spool.tombstones_full() || !alone {
            return Ok(());
        }
        let mut locations = self.locations();
        locations.retain(|location| location.dead || !window.contains(&location.id));
        if locations.is_empty() {
            return Ok(());
        }
        let location = locations[self.pick(locations.len())];
        let is = if location.dead && self.disk.random(2) == 0 {
            self.service.core.spool.retry(&mut self.disk, now, location)?;
            Is::Waiting
        } else {
            self.service.core.spool.discard_record(&mut self.disk, now, location)?;
            Is::Over
        };
        self.jobs.get_mut(&location.id).unwrap().1 = is;
        Ok(())
    }

    fn compact(&mut self) -> DiskResult {
        let now = self.service.now;
        if self.service.core.spool.is_compacting() {
            self.service.core.spool.compact_step(&mut self.disk, now)?;
        } else {
            self.raised.clear();
            let purpose = [Purpose::Shrink, Purpose::Retry, Purpose::Forget][self.pick(3)];
            self.service.core.spool.write_transitions(&mut self.disk, now)?;
            if purpose != Purpose::Shrink {
                let dead = self.jobs.iter().filter(|(_, (_, is))| *is == Is::Dead);
                self.raised = dead.map(|(id, _)| *id).collect();
            }
            self.service.core.spool.compact_for(purpose, &mut self.disk, now)?;
        }
        self.compacted();
        Ok(())
    }

    /// Notes that all dead jobs are dead no more, if a compaction for them has ended.
    fn compacted(&mut self) {
        if self.service.core.spool.is_compacting() {
            return;
        }
        let is = if self.service.core.spool.purpose() == Purpose::Retry { Is::Waiting } else { Is::Over };
        let raised = std::mem::take(&mut self.raised);
        if self.service.core.spool.purpose() == Purpose::Forget {
            self.unsure += raised.iter().filter(|id| self.damaged.contains(id)).count() as u32;
        }
        if self.service.core.spool.purpose() != Purpose::Shrink {
            raised.iter().for_each(|id| self.jobs.get_mut(id).unwrap().1 = is);
        }
    }

    fn turn(&mut self) {
        let passed = [ms(1), ms(600), CLAIM_QUIET][self.pick(3)];
        self.service.now += passed;
        if self.disk.random(6) == 0 {
            self.disk.fail_at = Some(self.disk.operations + 1 + u32::try_from(self.pick(4)).unwrap());
        }
        let compacting = self.service.core.spool.journal.generation;
        // Each of these may fail; it is tried again by a later turn.
        let _ = match self.disk.random(12) {
            0 | 1 => self.add(),
            2 | 3 => self.ingest(),
            4 => self.start(),
            5 => self.edit(),
            6 | 7 => self.compact(),
            8 => self.service.commit(&mut self.disk),
            9 => {
                self.damage();
                Ok(())
            }
            _ => {
                let running: Vec<u64> = self.running.iter().map(|slot| slot.id).collect();
                for id in running {
                    let failed = self.disk.random(3) == 0;
                    self.end(id, if failed { AttemptOutcome::Code(1) } else { AttemptOutcome::Success });
                }
                let now = self.service.now;
                self.service.core.spool.write_transitions(&mut self.disk, now)
            }
        };
        if self.service.core.spool.journal.generation != compacting {
            // A commit may have finished it, or replaced it.
            self.compacted();
        } else if !self.service.core.spool.is_compacting() {
            self.raised.clear();
        }
        self.reported();
    }

    fn reported(&mut self) {
        if let Some(Damage { bytes, jobs }) = self.service.core.spool.take_damage() {
            self.reported = Damage { bytes: self.reported.bytes + bytes, jobs: self.reported.jobs + jobs };
        }
    }

    /// Checks, after the disk works again, that the counts are right and that every job that
    /// was not damaged exists once.
    fn judge(&mut self) {
        let seed = self.seed;
        self.disk.fail_at = None;
        let now = self.service.now;
        self.service.core.spool.write_transitions(&mut self.disk, now).unwrap();
        self.service.commit(&mut self.disk).unwrap();
        for _ in 0..3 {
            self.service.core.spool.compact_now(&mut self.disk, now).unwrap();
            self.reported();
        }
        self.raised.clear();
        assert!(!self.service.core.spool.wants_compaction(), "seed {seed}");
        let locations = self.locations();
        let dead = locations.iter().filter(|location| location.dead).count();
        let spool = &self.service.core.spool;
        let counts = (spool.waiting() as usize, spool.dead() as usize);
        assert_eq!(counts, (locations.len() - dead, dead), "seed {seed}");
        let bytes: u64 = locations.iter().map(|location| u64::from(location.size)).sum();
        assert_eq!(spool.totals.live_bytes, bytes, "seed {seed}");
        let there: BTreeMap<u64, bool> =
            locations.iter().map(|location| (location.id, location.dead)).collect();
        assert_eq!(there.len(), locations.len(), "seed {seed}: one is there twice");
        let mut lost = 0;
        let cancelled: Vec<u64> = spool.window().slots().iter().map(|slot| slot.id).collect();
        for (id, (text, is)) in &self.jobs {
            match there.get(id) {
                Some(dead) => assert_eq!(*dead, *is == Is::Dead, "seed {seed}: {id} {is:?}"),
                None if *is == Is::Over || cancelled.contains(id) => {}
                None => {
                    assert!(self.damaged.contains(id), "seed {seed}: {id} {text:?} {is:?} is lost");
                    lost += 1;
                }
            }
        }
        assert!((lost..=lost + self.unsure).contains(&self.reported.jobs), "seed {seed}: {lost}");
        assert_eq!(self.reported.bytes, self.disk.quarantined.len() as u64, "seed {seed}");
        let mut copy = self.disk.clone();
        copy.restart();
        let (again, found) = TestService::start(&mut copy, now).unwrap();
        assert_eq!((found.damaged_bytes, found.torn_bytes), (0, 0), "seed {seed}");
        assert_eq!(
            (again.core.spool.waiting() as usize, again.core.spool.dead() as usize),
            counts,
            "seed {seed}"
        );
    }

    /// Runs everything.
    fn finish(&mut self) {
        for _ in 0..10_000 {
            self.service.now += CLAIM_QUIET;
            self.ingest().unwrap();
            self.service.commit(&mut self.disk).unwrap();
            self.start().unwrap();
            let running: Vec<u64> = self.running.iter().map(|slot| slot.id).collect();
            if running.is_empty() && self.service.core.spool.waiting() == 0 && self.disk.claims() == 0 {
                break;
            }
            running.into_iter().for_each(|id| self.end(id, AttemptOutcome::Success));
            self.service.core.spool.write_transitions(&mut self.disk, self.service.now).unwrap();
        }
        let seed = self.seed;
        assert_eq!(self.service.core.spool.waiting(), 0, "seed {seed}");
        for (id, (text, is)) in &self.jobs {
            let ended = matches!(is, Is::Over | Is::Dead);
            assert!(ended || self.damaged.contains(id), "seed {seed}: {id} {text:?} never ran");
        }
        for line in &self.written {
            assert!(self.jobs.values().any(|(text, _)| text == line), "seed {seed}: {line:?} is lost");
        }
    }
}

/// Histories of one test, if the environment does not say (`ZIGSVC_DAMAGE_SEEDS`).
const SEEDS: u64 = 80;

#[test]
fn no_damage_at_any_moment_costs_more_than_the_jobs_that_it_hit() {
    let seeds = std::env::var("ZIGSVC_DAMAGE_SEEDS").map_or(SEEDS, |text| text.parse().unwrap());
    for seed in 0..seeds {
        let mut run = DamageRun::new(seed);
        for _ in 0..60 + seed % 100 {
            run.turn();
        }
        run.judge();
        run.finish();
    }
}
