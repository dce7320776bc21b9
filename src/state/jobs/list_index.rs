//! Where the pages of `list` are in the journal, so that a list of all jobs reads the journal
//! twice, and not once for each page.
//!
//! A page holds the lowest ids above the last one that its client has read. The journal is not
//! in the order of ids, but nearly: it is a few runs, each of which is. The first page reads
//! all of it and notes the runs; a run is a range of the journal, and `slack` is how much lower
//! an id in it can be than one before it. Of each run a later page reads from the last id that
//! the client has, up to the id from which on no lower one can follow.
//!
//! Records that are appended are noted by the next page. A new journal begins a new index.

use crate::limits::CLIENTS_MAX;
use crate::state::spool::{JournalScan, RecordLocation, Spool};
use heapless::Vec;

/// Maximum number of runs. With more, the shortest neighbours count as one with more slack.
const RUNS_MAX: usize = 16;
/// Maximum slack of a run, in ids, as long as there are few runs. It is about what several
/// workers make of the order of dead jobs, and each page reads as many records more.
const SLACK_MAX: u64 = 128;

/// A range of the journal whose jobs are nearly in the order of ids.
#[derive(Clone, Copy, Debug)]
struct Run {
    start: u64,
    end: u64,
    min: u64,
    max: u64,
    slack: u64,
}

/// The progress of one client.
#[derive(Clone, Copy, Debug)]
struct ListCursor {
    /// The last id that the client had.
    after: u64,
    /// For each run the offset before which no id is greater than that; 0 for the whole run.
    offsets: [u64; RUNS_MAX],
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct ListIndex {
    generation: u32,
    /// End of the part of the journal that is noted; 0 if nothing is.
    end: u64,
    runs: Vec<Run, RUNS_MAX>,
    cursors: [ListCursor; CLIENTS_MAX],
}

/// The scan for one page.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListScan {
    slot: usize,
    after: u64,
    /// The run that is read. The records that are not noted yet come after the last one.
    run: usize,
    /// Whether an id above `after` was met in this run.
    beyond: bool,
    pub(super) scan: JournalScan,
}

impl ListIndex {
    /// Nothing is noted; all zeros.
    pub(super) const EMPTY: Self = Self {
        generation: 0,
        end: 0,
        runs: Vec::new(),
        cursors: [ListCursor { after: 0, offsets: [0; RUNS_MAX] }; CLIENTS_MAX],
    };

    /// Begins a page of the client at `slot`, with ids above `after`.
    pub(super) fn begin(&mut self, spool: &Spool, slot: usize, after: u64) -> ListScan {
        let whole = spool.scan(true);
        if self.end == 0 || self.generation != spool.generation() || self.end > spool.journal_end() {
            self.generation = spool.generation();
            self.end = whole.at();
            self.runs.clear();
            self.cursors.iter_mut().for_each(|cursor| cursor.offsets = [0; RUNS_MAX]);
        }
        if let Some(cursor) = self.cursors.get_mut(slot) {
            if cursor.after > after {
                cursor.offsets = [0; RUNS_MAX];
            }
            cursor.after = after;
        }
        ListScan { slot, after, run: 0, beyond: false, scan: self.range(spool, slot, 0) }
    }

    /// Returns the scan of a run, or of the records that are not noted yet.
    fn range(&self, spool: &Spool, slot: usize, run: usize) -> JournalScan {
        let offset = self.cursors.get(slot).and_then(|cursor| cursor.offsets.get(run)).copied();
        match self.runs.get(run) {
            Some(Run { start, end, .. }) => spool.scan_range((*start).max(offset.unwrap_or(0)), *end),
            None => spool.scan_range(self.end, u64::MAX),
        }
    }

    /// Turns to the next run. Returns true if there is one.
    pub(super) fn next_run(&self, spool: &Spool, page: &mut ListScan) -> bool {
        if page.run >= self.runs.len() {
            return false;
        }
        page.run = page.run.saturating_add(1);
        page.beyond = false;
        page.scan = self.range(spool, page.slot, page.run);
        true
    }

    /// Returns true if the run that is read can have no job for the page, whose highest id is
    /// `highest` if it is full.
    pub(super) fn is_passed(&self, page: &ListScan, highest: Option<u64>) -> bool {
        let passed = |run: &Run| run.max <= page.after || highest.is_some_and(|highest| run.min > highest);
        self.runs.get(page.run).is_some_and(passed)
    }

    /// Takes a job that the scan met. Returns true if it may belong to the page.
    pub(super) fn visit(&mut self, page: &mut ListScan, location: &RecordLocation) -> bool {
        let above = location.id > page.after;
        let end = location.offset.saturating_add(u64::from(location.size));
        if page.run >= self.runs.len() {
            self.note(location, end);
            page.run = self.runs.len();
        } else if !above && !page.beyond {
            let cursor = self.cursors.get_mut(page.slot).and_then(|cursor| cursor.offsets.get_mut(page.run));
            cursor.into_iter().for_each(|offset| *offset = end);
        }
        page.beyond |= above;
        above
    }

    /// Notes that the journal is known up to the offset of the scan, if that is after the last run.
    pub(super) fn scanned(&mut self, page: &ListScan) {
        if page.run >= self.runs.len() {
            self.end = page.scan.at();
        }
    }

    /// Returns true if no id up to `highest` can follow in this run after job `id`.
    pub(super) fn is_behind(&self, page: &ListScan, id: u64, highest: u64) -> bool {
        self.runs.get(page.run).is_some_and(|run| id.saturating_sub(run.slack) > highest)
    }

    /// Notes a job after all others.
    fn note(&mut self, location: &RecordLocation, end: u64) {
        let RecordLocation { id, offset, .. } = *location;
        let last = self.runs.last_mut().filter(|run| id.saturating_add(SLACK_MAX) >= run.max);
        if let Some(run) = last {
            run.slack = run.slack.max(run.max.saturating_sub(id));
            (run.end, run.min, run.max) = (end, run.min.min(id), run.max.max(id));
            return;
        }
        if self.runs.is_full() {
            self.join_shortest();
        }
        let _ = self.runs.push(Run { start: offset, end, min: id, max: id, slack: 0 });
    }

    /// Makes one run of the two neighbours that are the shortest together.
    fn join_shortest(&mut self) {
        let length = |pair: &[Run]| match pair {
            [first, second] => second.end.saturating_sub(first.start),
            _ => u64::MAX,
        };
        let shortest = self.runs.windows(2).enumerate().min_by_key(|(_, pair)| length(pair));
        let Some(at) = shortest.map(|(at, _)| at) else { return };
        let next = at.saturating_add(1);
        if next >= self.runs.len() {
            return;
        }
        let second = self.runs.remove(next);
        if let Some(first) = self.runs.get_mut(at) {
            first.slack = first.slack.max(second.slack).max(first.max.saturating_sub(second.min));
            (first.end, first.min, first.max) =
                (second.end, first.min.min(second.min), first.max.max(second.max));
        }
        for cursor in &mut self.cursors {
            if let Some(offsets) = cursor.offsets.get_mut(next..) {
                offsets.rotate_left(1);
            }
            cursor.offsets.last_mut().into_iter().for_each(|offset| *offset = 0);
        }
    }
}
