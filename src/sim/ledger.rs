//! The promises of a run: what was acknowledged, what ran, what ended, and what may not happen to it
//! any more. It knows nothing of the spool but what a client, a writer or a handler sees.

use std::collections::BTreeMap;

/// How sure it is that a job has ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum End {
    /// The job has not ended.
    Open,
    /// The job has ended, or not: a crash or an unanswered request decides.
    Unsure,
    /// The service knows the end. A crash undoes it.
    Known,
    /// The end is in the journal. A power cut can undo it.
    Written,
    /// The end is on the disk.
    Durable,
}

/// Whether a client has removed a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Removed {
    No,
    /// A client asked for the removal, and was not answered.
    Unsure,
    Yes,
}

#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) text: String,
    pub(super) id: Option<u64>,
    /// The client has its id, or the writer has synced its line.
    pub(super) promised: bool,
    /// The boot and the time before which the job is not started.
    pub(super) due: Option<(u32, u64)>,
    /// When it could be started at the latest, if a worker is free.
    pub(super) ready_at: u64,
    pub(super) runs: u32,
    /// The ends of its attempts and its cancellations: the kind, and the exit status.
    pub(super) ended: Vec<(&'static str, u8)>,
    pub(super) end: End,
    /// The end is that of a dead job, which is kept.
    pub(super) dead: bool,
    pub(super) removed: Removed,
    /// The one request to remove it is under way, so that its refusal says that nothing changed.
    pub(super) removing: bool,
}

#[derive(Default)]
pub(super) struct Ledger {
    pub(super) jobs: Vec<Job>,
    ids: BTreeMap<u64, usize>,
    /// The jobs of which something can still be lost or run.
    pub(super) open: Vec<usize>,
    /// The jobs whose end is not on the disk.
    ending: Vec<usize>,
    /// A request for all dead jobs is under way.
    pub(super) rewriting: bool,
    pub(super) ends: u64,
}

impl Ledger {
    /// Adds a job, and returns its number. Its text begins with it.
    pub(super) fn add(&mut self, padding: usize, ready_at: u64) -> usize {
        let index = self.jobs.len();
        self.jobs.push(Job {
            text: format!("j{index} {}", "x".repeat(padding)).trim_end().to_owned(),
            id: None,
            promised: false,
            due: None,
            ready_at,
            runs: 0,
            ended: Vec::new(),
            end: End::Open,
            dead: false,
            removed: Removed::No,
            removing: false,
        });
        self.open.push(index);
        index
    }

    /// Returns the job of a text, which must be whole.
    pub(super) fn find(&self, text: &[u8]) -> usize {
        let found = core::str::from_utf8(text).ok().and_then(|text| {
            let number = text.strip_prefix('j')?.split(' ').next()?.parse::<usize>().ok()?;
            self.jobs.get(number).filter(|job| job.text == text).map(|_| number)
        });
        found.unwrap_or_else(|| panic!("half read: {:?} is no job", String::from_utf8_lossy(text)))
    }

    /// Takes that a job has an id, which no other one ever had.
    pub(super) fn has_id(&mut self, index: usize, id: u64) {
        let known = *self.ids.entry(id).or_insert(index);
        assert_eq!(
            known, index,
            "the id {id} was given twice: {} and {}",
            self.jobs[known].text, self.jobs[index].text
        );
        let before = *self.jobs[index].id.get_or_insert(id);
        assert_eq!(before, id, "{} has two ids, {before} and {id}", self.jobs[index].text);
    }

    pub(super) fn by_id(&self, id: u64) -> Option<usize> {
        self.ids.get(&id).copied()
    }

    /// Takes the start of an attempt.
    pub(super) fn starts(&mut self, index: usize, boot: u32, now: u64) {
        let job = &mut self.jobs[index];
        assert!(job.end < End::Known, "{} ran after its end was recorded ({:?})", job.text, job.end);
        assert!(job.removed != Removed::Yes, "{} ran after it was removed", job.text);
        if let Some((due_boot, due)) = job.due
            && due_boot == boot
        {
            assert!(due <= now, "{} ran {} ms before it was due", job.text, due - now);
        }
        job.runs += 1;
        (job.end, job.dead) = (End::Open, false);
    }

    /// Takes that a job has ended.
    pub(super) fn ends(&mut self, index: usize, dead: bool) {
        self.ends += 1;
        let rewriting = self.rewriting;
        let job = &mut self.jobs[index];
        (job.end, job.dead) = (if dead && rewriting { End::Unsure } else { End::Known }, dead);
        if dead && rewriting && job.removed == Removed::No {
            job.removed = Removed::Unsure;
        }
        self.ending.push(index);
    }

    /// Takes that all ends are in the journal, and if `durable`, on the disk.
    pub(super) fn recorded(&mut self, durable: bool) {
        let jobs = &mut self.jobs;
        self.ending.retain(|index| {
            let job = &mut jobs[*index];
            if job.end >= End::Known {
                job.end = if durable { End::Durable } else { End::Written.max(job.end) };
            }
            matches!(job.end, End::Known | End::Written)
        });
    }

    /// Takes that the service has died, or the power was cut.
    pub(super) fn crash(&mut self, power: bool) {
        let jobs = &mut self.jobs;
        self.ending.retain(|index| {
            let job = &mut jobs[*index];
            match job.end {
                End::Known => job.end = End::Unsure,
                End::Written if power => job.end = End::Unsure,
                _ => {}
            }
            matches!(job.end, End::Written)
        });
        self.rewriting = false;
        self.open.iter().for_each(|index| jobs[*index].removing = false);
    }

    /// Takes that a client asks for one job to be removed.
    pub(super) fn removal_asked(&mut self, id: u64) {
        if let Some(job) = self.by_id(id).map(|index| &mut self.jobs[index])
            && job.removed != Removed::Yes
        {
            job.removing = job.removed == Removed::No;
            job.removed = Removed::Unsure;
        }
    }

    /// Takes the answer to that. `unchanged` is true if it says that there is no such job.
    pub(super) fn removal_answered(&mut self, id: u64, done: bool, unchanged: bool) {
        if let Some(job) = self.by_id(id).map(|index| &mut self.jobs[index]) {
            let removing = core::mem::take(&mut job.removing);
            job.removed = match job.removed {
                _ if done => Removed::Yes,
                Removed::Unsure if unchanged && removing => Removed::No,
                other => other,
            };
        }
    }

    /// Takes that a client asks for all dead jobs to be retried or removed.
    pub(super) fn rewrite_asked(&mut self, forgets: bool) {
        self.rewriting = true;
        for job in self.jobs.iter_mut().filter(|job| job.dead && job.removed != Removed::Yes) {
            job.end = End::Unsure;
            if forgets {
                job.removed = Removed::Unsure;
            }
        }
        self.reopen();
    }

    /// Forgets the jobs that have certainly ended.
    pub(super) fn sweep(&mut self) {
        let jobs = &self.jobs;
        self.open.retain(|index| {
            let job = &jobs[*index];
            job.removed != Removed::Yes && (job.end < End::Durable || job.dead)
        });
    }

    fn reopen(&mut self) {
        let jobs = &self.jobs;
        self.open = (0..jobs.len())
            .filter(|index| {
                jobs[*index].removed != Removed::Yes && (jobs[*index].end < End::Durable || jobs[*index].dead)
            })
            .collect();
    }

    /// Returns the jobs that must be there: waiting, or running, or dead.
    pub(super) fn must_be_there(&self) -> impl Iterator<Item = (usize, &Job)> {
        let jobs = self.open.iter().map(|index| (*index, &self.jobs[*index]));
        jobs.filter(|(_, job)| {
            job.promised
                && job.removed == Removed::No
                && (job.end == End::Open || job.dead && job.end == End::Durable)
        })
    }

    /// Returns a dead job, or one that waits.
    pub(super) fn any(&self, dead: bool, from: u64) -> Option<usize> {
        let fits = |job: &Job| {
            job.id.is_some()
                && job.dead == dead
                && (dead || job.end == End::Open)
                && job.removed == Removed::No
        };
        let fitting: Vec<usize> =
            self.open.iter().copied().filter(|index| fits(&self.jobs[*index])).collect();
        fitting.get(usize::try_from(from).unwrap_or(0) % fitting.len().max(1)).copied()
    }
}
