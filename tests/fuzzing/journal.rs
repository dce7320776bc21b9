//! Fuzzes the journal: its records, and the recovery from a file with any damage.

use super::Choices;
use super::disk::fake::{DEAD, FakeDisk};
use super::disk::{Disk, DiskError, SpoolFile};
use std::collections::{BTreeMap, BTreeSet};
use zigsvc::limits::{CLAIM_QUIET, SCRATCH_BYTES};
use zigsvc::proto::attributes::HandlerKind;
use zigsvc::proto::journal::{
    BODY_MAX_BYTES, ClaimProgress, FILE_HEADER_BYTES, FileHeader, HEADER_BYTES, ParseResult,
    RECORD_MAX_BYTES, Record, RecordFlags, RecordKind, file_header, header_of_version, parse_record, resync,
    skip_damage,
};
use zigsvc::state::spool::{Purpose, RecordLocation, RecoverError, Recovery, Spool, SpoolRules};
use zigsvc::state::window::AttemptOutcome;
use zigsvc::util::time::{Duration, Instant};

pub const RULES: SpoolRules = SpoolRules {
    retries: 1,
    retry_delay: Duration::from_ms(10),
    queue_max: 10_000,
    dead_max: 10_000,
    handler: HandlerKind::Shell,
    sync: true,
};

/// Checks that a parsed record is written as it was, that skipped bytes contain no record, and
/// that nothing after the end is read.
pub fn record(data: &[u8]) {
    match parse_record(data) {
        ParseResult::Record(record, size) => {
            assert_eq!(size, record.size());
            let mut again: heapless::Vec<u8, RECORD_MAX_BYTES> = heapless::Vec::new();
            record.emit(&mut again).unwrap();
            assert_eq!(again, data[..size]);
            assert!(record.text().len() <= record.body.len());
        }
        ParseResult::Truncated(need) => assert!(need > data.len() && need <= RECORD_MAX_BYTES),
        ParseResult::Bad => assert!(data.len() >= HEADER_BYTES),
    }
    let is_record = |at: usize| matches!(parse_record(&data[at..]), ParseResult::Record(..));
    let first = (1..data.len()).find(|at| is_record(*at));
    assert_eq!(resync(data), first);
    for last in [false, true] {
        let skipped = skip_damage(data, last);
        assert!(skipped >= 1 && skipped <= first.unwrap_or(usize::MAX));
        assert!(skipped <= data.len().max(1));
        // At the offset that is reached, a record may begin whose end was not read yet.
        assert!(first.is_some() || last || skipped + RECORD_MAX_BYTES > data.len());
    }
    if let Some(progress) = ClaimProgress::parse(data) {
        assert_eq!(progress.emit(), data[..20]);
    }
    if let FileHeader::Known(version) = file_header(data) {
        assert!(data.starts_with(header_of_version(version)));
    }
    written_and_read(&mut Choices(data));
}

/// Checks that records that are written one after the other are read as they were.
fn written_and_read(choices: &mut Choices<'_>) {
    const KINDS: [RecordKind; 4] =
        [RecordKind::Add, RecordKind::Dead, RecordKind::Tombstone, RecordKind::Claim];
    let mut file: heapless::Vec<u8, 8192> = heapless::Vec::new();
    let mut records = Vec::new();
    while !choices.is_over() && records.len() < 12 {
        let (kind, flags) = (KINDS[usize::from(choices.byte() % 4)], choices.byte());
        let (id, attempt, length) = (choices.number(), choices.number() as u16, choices.below(64));
        let record = Record {
            kind,
            // The attributes decide about this flag.
            flags: RecordFlags::from_bits_retain(flags) - RecordFlags::ATTRIBUTES,
            id,
            attempt,
            attributes: choices.take(usize::from(flags) % 9),
            body: choices.take(length),
        };
        assert!(record.body.len() <= BODY_MAX_BYTES);
        if record.emit(&mut file).is_ok() {
            records.push(record);
        }
    }
    let mut at = 0;
    for record in records {
        assert_eq!(parse_record(&file[at..]), ParseResult::Record(record, record.size()));
        at += record.size();
    }
    assert_eq!(at, file.len());
}

/// The spool with a service around it that runs no processes.
pub struct Service {
    pub spool: Box<Spool>,
    pub now: Instant,
    scratch: Vec<u8>,
}

impl Service {
    pub fn start(disk: &mut FakeDisk, now: Instant) -> Result<(Self, Recovery), RecoverError> {
        let mut scratch = vec![0; SCRATCH_BYTES];
        let mut spool = Box::new(Spool::EMPTY);
        let recovery = spool.recover(disk, &mut scratch, &RULES, now)?;
        spool.adopt_claims(disk, now);
        if disk.is_dead() {
            return Err(RecoverError::Disk(DEAD));
        }
        Ok((Self { spool, now, scratch }, recovery))
    }

    /// Runs one turn: ingests lines, commits, and starts one job. Returns the id and the text
    /// of the job.
    pub fn turn(&mut self, disk: &mut FakeDisk) -> Result<Option<(u64, String)>, DiskError> {
        self.spool.claims.look_at_queue();
        self.spool.claims.look_at_claims();
        self.ingest(disk)?;
        self.commit(disk)?;
        self.spool.defer_blocker(disk, self.now)?;
        self.spool.refill(disk, &mut self.scratch, &RULES, self.now)?;
        let Some(slot) = self.spool.dequeue(self.now, &|_| false) else { return Ok(None) };
        self.spool.write_transitions(disk, self.now)?;
        self.spool.commit(disk, &RULES, self.now)?;
        Ok(Some((slot.id, self.text(disk, slot.location())?)))
    }

    pub fn ingest(&mut self, disk: &mut FakeDisk) -> Result<u32, DiskError> {
        let result = self.spool.ingest(disk, &mut self.scratch, &RULES, self.now, &mut |_| {});
        if disk.is_dead() { Err(DEAD) } else { result }
    }

    pub fn commit(&mut self, disk: &mut FakeDisk) -> Result<(), DiskError> {
        self.spool.commit(disk, &RULES, self.now)?;
        self.spool.remove_closed(disk, self.now);
        if disk.is_dead() { Err(DEAD) } else { Ok(()) }
    }

    pub fn text(&self, disk: &mut FakeDisk, location: RecordLocation) -> Result<String, DiskError> {
        let mut buffer = [0; RECORD_MAX_BYTES];
        Ok(String::from_utf8_lossy(self.spool.text(disk, location, &mut buffer)?).into_owned())
    }

    /// Runs all jobs to their end. Returns their texts in the order in which they ran.
    pub fn run_to_the_end(&mut self, disk: &mut FakeDisk) -> Vec<String> {
        let mut ran = Vec::new();
        for _ in 0..20_000 {
            self.now += CLAIM_QUIET;
            match self.turn(disk).unwrap() {
                Some((id, text)) => {
                    ran.push(text);
                    self.spool.ended(id, AttemptOutcome::Success, &RULES);
                    self.spool.write_transitions(disk, self.now).unwrap();
                }
                None if disk.claims() == 0 && self.spool.waiting() == 0 => return ran,
                None => {}
            }
        }
        panic!("it never ended: {} waiting, {} claims", self.spool.waiting(), disk.claims());
    }

    /// Returns the live records outside the window, of dead jobs or of jobs that wait.
    pub fn live_records(&mut self, disk: &mut FakeDisk, dead: bool) -> Vec<RecordLocation> {
        let mut scan = self.spool.scan(dead);
        let mut locations = Vec::new();
        let mut visit = |location: RecordLocation| {
            locations.extend((location.dead == dead).then_some(location));
            true
        };
        while !self.spool.scan_step(disk, &mut self.scratch, &mut scan, &mut visit).unwrap() {}
        locations
    }

    /// Returns the ids and texts of all jobs.
    fn jobs(&mut self, disk: &mut FakeDisk) -> BTreeMap<u64, String> {
        let mut locations: Vec<RecordLocation> =
            self.spool.window().slots().iter().map(|slot| slot.location()).collect();
        locations.extend(self.live_records(disk, true));
        locations.extend(self.live_records(disk, false));
        locations.iter().map(|location| (location.id, self.text(disk, *location).unwrap())).collect()
    }
}

/// Checks the recovery from a journal that was written by a service and then damaged. Each job
/// whose records are intact must survive, a second recovery must find no damage, and all
/// waiting jobs must end. The recovery from any other bytes must end, too.
pub fn recovery(data: &[u8]) {
    let mut choices = Choices(data);
    let mut disk = FakeDisk::new(1);
    if choices.byte().is_multiple_of(4) {
        if let version @ 1..=2 = choices.byte() % 4 {
            disk.journal_mut().extend_from_slice(header_of_version(version));
        }
        disk.journal_mut().extend_from_slice(choices.0);
        return recovers(&mut disk, None);
    }
    let known = history(&mut disk, &mut choices);
    let before = disk.journal_mut().clone();
    damage(disk.journal_mut(), &mut choices);
    // All records up to this offset are intact.
    let intact = before.iter().zip(disk.journal_mut().iter()).take_while(|(a, b)| a == b).count();
    let records = whole_records(&before, intact);
    recovers(&mut disk, Some((&known, records)));
}

/// Runs a service for some turns. Returns the text of each job that was committed.
fn history(disk: &mut FakeDisk, choices: &mut Choices<'_>) -> BTreeMap<u64, String> {
    let (mut service, _) = Service::start(disk, Instant::BOOT).unwrap();
    let mut known = BTreeMap::new();
    let turns = 1 + choices.byte() % 40;
    for turn in 0..turns {
        service.now += Duration::from_ms(20);
        match choices.byte() % 8 {
            0..3 => {
                let text = format!("job {turn} {}", "x".repeat(choices.below(80)));
                service.spool.begin_batch(disk, service.now).unwrap();
                let id = service.spool.add(disk, service.now, text.as_bytes()).unwrap();
                service.commit(disk).unwrap();
                known.insert(id, text);
            }
            kind @ 3..6 => {
                if let Some((id, _)) = service.turn(disk).unwrap() {
                    let end = if kind == 5 { AttemptOutcome::Success } else { AttemptOutcome::Code(kind) };
                    service.spool.ended(id, end, &RULES);
                    service.spool.write_transitions(disk, service.now).unwrap();
                }
            }
            6 => {
                if let Some(location) = service.live_records(disk, true).first().copied() {
                    if choices.byte().is_multiple_of(2) {
                        service.spool.retry(disk, service.now, location).unwrap();
                    } else {
                        service.spool.discard_record(disk, service.now, location).unwrap();
                    }
                    service.commit(disk).unwrap();
                }
            }
            _ => {
                service.spool.compact_for(Purpose::Shrink, disk, service.now).unwrap();
                while service.spool.is_compacting() {
                    service.spool.compact_step(disk, service.now).unwrap();
                }
                service.commit(disk).unwrap();
            }
        }
    }
    known
}

fn damage(journal: &mut Vec<u8>, choices: &mut Choices<'_>) {
    for _ in 0..choices.byte() % 4 {
        let at = choices.below(journal.len() + 1);
        let length = choices.below(90);
        let end = journal.len().min(at + length);
        match choices.byte() % 5 {
            0 => journal.truncate(at),
            1 => journal[at..end].fill(0),
            // The noise must not contain a whole record, which would not be damage, even if
            // another damage inverts the same bits again. Therefore it has neither the second
            // byte of the record's magic nor that byte inverted.
            2 => {
                let noise = |byte: &u8| if matches!(byte ^ 0x41, 0xa5 | 0xe4) { 0 } else { byte ^ 0x41 };
                drop(journal.splice(at..at, choices.take(length).iter().map(noise)));
            }
            3 => drop(journal.drain(at..end)),
            _ => journal[at..end].iter_mut().for_each(|byte| *byte ^= 0x41),
        }
    }
}

/// Returns the ids of the jobs with a live record before `intact`, without those whose end is
/// anywhere in the journal.
fn whole_records(journal: &[u8], intact: usize) -> BTreeSet<u64> {
    let (mut records, mut over) = (BTreeSet::new(), BTreeSet::new());
    let mut at = FILE_HEADER_BYTES;
    while let ParseResult::Record(record, size) = parse_record(journal.get(at..).unwrap_or(&[])) {
        match record.kind {
            RecordKind::Add | RecordKind::Dead if at + size <= intact => drop(records.insert(record.id)),
            RecordKind::Done | RecordKind::Tombstone => drop(over.insert(record.id)),
            _ => {}
        }
        at += size;
    }
    records.difference(&over).copied().collect()
}

fn recovers(disk: &mut FakeDisk, known: Option<(&BTreeMap<u64, String>, BTreeSet<u64>)>) {
    let before = disk.journal_mut().clone();
    let (mut service, found) = match Service::start(disk, Instant::from_ms(1000)) {
        Ok(started) => started,
        Err(RecoverError::OtherVersion) => {
            assert_eq!(*disk.journal_mut(), before, "nothing was touched");
            return;
        }
        Err(error) => panic!("{error:?}"),
    };
    assert!(found.damaged_bytes + found.torn_bytes <= before.len() as u64);
    assert_eq!(disk.quarantined.len() as u64, found.damaged_bytes, "damage is kept");
    service.commit(disk).unwrap();
    let jobs = service.jobs(disk);
    if let Some((texts, whole)) = known {
        for id in whole {
            assert_eq!(jobs.get(&id), texts.get(&id), "job {id} is lost; {found:?}");
        }
        for (id, text) in &jobs {
            assert_eq!(texts.get(id), Some(text), "job {id} was never added");
        }
    }
    let (waiting, dead) = (service.spool.waiting(), service.spool.dead());
    disk.restart();
    let (mut again, found) = Service::start(disk, Instant::from_ms(2000)).unwrap();
    assert_eq!((found.damaged_bytes, found.reread_batches), (0, 0), "it was mended at once");
    if known_is_sane(&jobs, waiting, dead) {
        assert_eq!(again.jobs(disk), jobs, "the second recovery");
        assert_eq!((again.spool.waiting(), again.spool.dead()), (waiting, dead));
        let ran = again.run_to_the_end(disk);
        assert_eq!(ran.len(), waiting as usize);
    }
    assert!(disk.size(SpoolFile::Journal).unwrap() >= FILE_HEADER_BYTES as u64);
}

/// Returns true if each job has one live record, as in each journal that a service wrote.
fn known_is_sane(jobs: &BTreeMap<u64, String>, waiting: u32, dead: u32) -> bool {
    jobs.len() == (waiting + dead) as usize
}
