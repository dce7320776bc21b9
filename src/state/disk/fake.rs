//! A disk for tests: it fails, dies and forgets on demand.
//!
//! It knows what was synced. After a power cut each file holds what was
//! synced, with any of the sectors written since kept or not, and the names
//! are as after some prefix of the renames that were not synced.

use super::{
    Disk, DiskError, DiskResult, Lease, MISSING, NO_SPACE, Obstacle, PathState, QueueFile, SpoolFile,
};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Bytes that a disk writes whole.
const SECTOR: usize = 64;

/// The error of an operation that was made to fail.
pub(crate) const FAILED: DiskError = NO_SPACE;
/// The error of a file that would pass its limit.
pub(crate) const TOO_BIG: DiskError = DiskError(27);
/// The error of a filesystem that takes no change.
pub(crate) const READ_ONLY: DiskError = DiskError(30);
/// The error of every operation after the moment of death.
pub(crate) const DEAD: DiskError = DiskError(-1);

/// A group of operations, of which a disk can refuse some.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Work {
    /// A write to a file.
    Write,
    /// A new file.
    Create,
    /// A change of a name or of a size.
    Change,
    /// A sync of a file.
    Sync,
    /// A sync of a folder.
    SyncNames,
    /// A look at a file or at a folder.
    Read,
}

/// The operations that fail, with which error, and how many of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    pub(crate) works: &'static [Work],
    pub(crate) error: DiskError,
    pub(crate) left: u32,
}

#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct Inode {
    data: Vec<u8>,
    synced: Vec<u8>,
    /// Sectors that a failed sync has dropped: the kernel takes them for written, so that no later
    /// sync writes them.
    dropped: BTreeSet<usize>,
}

impl Inode {
    fn synced(data: Vec<u8>) -> Self {
        Self { synced: data.clone(), data, dropped: BTreeSet::new() }
    }
}

#[derive(Clone, Hash)]
enum Change {
    Link(String, usize),
    Unlink(String),
    Rename(String, String),
}

/// See the module's documentation.
#[derive(Clone, Default)]
pub(crate) struct FakeDisk {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes of names since the last sync of their folder.
    changes: Vec<Change>,
    handles: BTreeMap<u8, usize>,
    /// Changes of names in the queue's folder of which a sync failed. They become durable with
    /// later changes there, and not by a sync alone.
    lost: Vec<Change>,
    /// Files that a writer has open.
    pub(crate) writers: BTreeSet<usize>,
    /// A writer opens the next file on which the service has a lease.
    pub(crate) breaks_lease: bool,
    /// Files on which the service has a lease.
    leases: BTreeSet<usize>,
    /// There are leases.
    pub(crate) has_leases: bool,
    /// Syncs of the queue's folder fail.
    pub(crate) sync_fails: bool,
    /// The queue's folder cannot be listed.
    pub(crate) list_fails: bool,
    /// Claims cannot be opened, read or removed.
    pub(crate) claims_fail: Option<DiskError>,
    /// The queue file cannot be renamed.
    pub(crate) rename_fails: Option<DiskError>,
    journal: usize,
    next: usize,
    /// The next journal is created at the path, and replaces nothing there.
    homing: bool,
    /// The journal from which the last one was moved to the path.
    previous: Option<usize>,
    /// Changes that the kernel forgot in a sync that failed. They are on their way again after a
    /// kill, because the next process cannot know of them.
    forgotten: Vec<Change>,
    /// The next sync of the spool's folder fails.
    pub(crate) fail_folder_sync: bool,
    /// Each sync of the spool's folder fails.
    pub(crate) folder_syncs_fail: bool,
    /// Bytes in quarantine and rejected lines.
    pub(crate) quarantined: Vec<u8>,
    pub(crate) rejected: Vec<u8>,
    /// Operations that change something, so far.
    pub(crate) operations: u32,
    /// The operation that fails, writing half of what it should.
    pub(crate) fail_at: Option<u32>,
    /// The operation at which the service dies, half done.
    pub(crate) die_at: Option<u32>,
    /// Bytes that are said to be free.
    pub(crate) free: u64,
    /// How long a file may become for which room is kept, 0 if none can be; and what was
    /// asked for last.
    pub(crate) preallocate_limit: u64,
    pub(crate) last_preallocate: Option<(SpoolFile, u64, u64)>,
    /// Whether no file can be made.
    pub(crate) no_inodes: bool,
    /// Whether a write takes new blocks even where some are reserved.
    pub(crate) copies_on_write: bool,
    /// How long a file may become, if there is a limit (RLIMIT_FSIZE).
    pub(crate) file_limit: Option<u64>,
    /// Bytes that were read, so far.
    pub(crate) bytes_read: u64,
    /// Files that were freed, and are used again.
    spare: Vec<usize>,
    /// Operations that are refused for a while.
    pub(crate) refusal: Option<Refusal>,
    /// A file takes no block that is not reserved for it, for this reason.
    pub(crate) full: Option<DiskError>,
    /// Syncs, so far. Each takes its time.
    pub(crate) syncs: u64,
    /// Up to where room is kept for each inode.
    preallocated: BTreeMap<usize, u64>,
    dead: bool,
    seed: u64,
}

impl FakeDisk {
    pub(crate) fn new(seed: u64) -> Self {
        let seed = seed.wrapping_mul(2).wrapping_add(1);
        let mut disk =
            Self { seed, free: u64::MAX, preallocate_limit: u64::MAX, has_leases: true, ..Self::default() };
        disk.open_journal();
        disk
    }

    pub(crate) fn random(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 33) % below
    }

    fn open_journal(&mut self) {
        self.journal = match self.names.get("journal") {
            Some(inode) => *inode,
            None => self.create("journal"),
        };
    }

    fn create(&mut self, name: &str) -> usize {
        let inode = self.spare.pop().unwrap_or(self.inodes.len());
        if inode == self.inodes.len() {
            self.inodes.push(Inode::default());
        }
        self.change(Change::Link(name.to_owned(), inode));
        inode
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }

    fn sync_names(&mut self, wanted: impl Fn(&str) -> bool) {
        // One folder's names become durable; the other's stay open.
        for change in std::mem::take(&mut self.changes) {
            if wanted(change.name()) {
                apply(&mut self.durable_names, &change);
            } else {
                self.changes.push(change);
            }
        }
    }

    /// Appends to the queue file as a writer does. Returns the file, to append to it again.
    pub(crate) fn append_to_queue(&mut self, text: &str) -> usize {
        let inode = match self.names.get("queue") {
            Some(inode) => *inode,
            None => self.create("queue"),
        };
        self.append_to(inode, text);
        inode
    }

    /// Appends to the queue file as a writer that syncs it does.
    pub(crate) fn append_durably(&mut self, text: &str) {
        let inode = self.append_to_queue(text);
        self.make_durable(inode);
    }

    /// Returns true if the last line of a file has no end; `None` is the queue file.
    pub(crate) fn queue_has_tail(&self, inode: Option<usize>) -> bool {
        let inode = inode.or(self.names.get("queue").copied());
        inode.and_then(|inode| self.inodes[inode].data.last()).is_some_and(|byte| *byte != b'\n')
    }

    /// Takes the end of the last line of the queue file away, as if it had never been written.
    pub(crate) fn cut_queue_tail(&mut self) {
        let Some(inode) = self.names.get("queue") else { return };
        let Inode { data, synced, .. } = &mut self.inodes[*inode];
        for bytes in [data, synced] {
            bytes.pop_if(|byte| *byte == b'\n');
        }
    }

    /// Syncs a file and its folder, as a writer does.
    pub(crate) fn make_durable(&mut self, inode: usize) {
        self.inodes[inode].synced = self.inodes[inode].data.clone();
        if !self.sync_fails {
            self.take_lost_names();
            self.sync_names(is_queue_name);
        }
    }

    /// Returns true if a power cut leaves a name of the file.
    pub(crate) fn has_durable_name(&self, inode: usize) -> bool {
        self.durable_names.values().any(|named| *named == inode)
    }

    /// Has the names that a failed sync of the queue's folder has lost become durable, because
    /// another name in it has changed.
    fn take_lost_names(&mut self) {
        if self.changes.iter().any(|change| is_queue_name(change.name())) {
            for change in std::mem::take(&mut self.lost) {
                apply(&mut self.durable_names, &change);
            }
        }
    }

    pub(crate) fn append_to(&mut self, inode: usize, text: &str) {
        self.append_bytes(inode, text.as_bytes());
    }

    pub(crate) fn append_bytes(&mut self, inode: usize, bytes: &[u8]) {
        self.inodes[inode].data.extend_from_slice(bytes);
    }

    pub(crate) fn journal_mut(&mut self) -> &mut Vec<u8> {
        let inode = self.names["journal"];
        &mut self.inodes[inode].data
    }

    /// Puts a journal with these bytes on an empty disk, durably.
    pub(crate) fn put_journal(&mut self, bytes: &[u8]) {
        self.inodes[self.journal] = Inode::synced(bytes.to_vec());
        self.sync_names(|_| true);
    }

    /// Puts another folder at the path of the spool, durably. `journal` is the journal in it.
    pub(crate) fn put_spool(&mut self, journal: Option<usize>) {
        self.changes.retain(|change| is_queue_name(change.name()));
        self.forgotten.clear();
        for names in [&mut self.names, &mut self.durable_names] {
            names.retain(|name, _| is_queue_name(name));
            names.extend(journal.map(|inode| ("journal".to_owned(), inode)));
        }
    }

    /// Takes the folder of the spool away from its path, as `mv` and `rm -r` do.
    pub(crate) fn move_spool_away(&mut self) {
        self.put_spool(None);
    }

    /// Puts another spool at the path, as a mount over it does.
    pub(crate) fn put_another_spool(&mut self) {
        self.inodes.push(Inode::default());
        self.put_spool(Some(self.inodes.len() - 1));
    }

    /// Puts the folder of the open journal back to its path.
    pub(crate) fn put_spool_back(&mut self) {
        self.put_spool(Some(self.journal));
    }

    /// Returns true if the path leads to the open journal.
    pub(crate) fn is_journal_named(&self) -> bool {
        self.names.get("journal") == Some(&self.journal)
    }

    /// Returns whether a line is in the queue file or in a claim, and whether it is durable.
    pub(crate) fn find_line(&self, text: &str) -> Option<bool> {
        let line = format!("{text}\n");
        let has = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(&line);
        let inodes = self.names.iter().filter(|(name, _)| is_queue_name(name)).map(|(_, inode)| *inode);
        let mut found = inodes.map(|inode| &self.inodes[inode]).filter(|inode| has(&inode.data));
        found.next().map(|inode| has(&inode.synced))
    }

    /// Returns the lines of the queue file and of all claims.
    pub(crate) fn queued_lines(&self) -> BTreeSet<&[u8]> {
        let inodes = self.names.iter().filter(|(name, _)| is_queue_name(name)).map(|(_, inode)| *inode);
        inodes.flat_map(|inode| self.inodes[inode].data.split(|byte| *byte == b'\n')).collect()
    }

    pub(crate) fn claims(&self) -> usize {
        self.names.keys().filter(|name| name.starts_with("claim-")).count()
    }

    /// Returns the file of a claim.
    pub(crate) fn claim_inode(&self, seq: u64) -> usize {
        self.names[&claim_name(seq)]
    }

    /// Leaves a claim, as an earlier process does.
    pub(crate) fn plant_claim(&mut self, seq: u64, text: &str) {
        let inode = self.create(&claim_name(seq));
        self.append_to(inode, text);
        self.make_durable(inode);
    }

    /// Returns true if the service died. It may not have noticed where it continues after an
    /// error.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Restarts the process; the machine keeps running.
    pub(crate) fn restart(&mut self) {
        self.dead = false;
        self.die_at = None;
        self.handles.clear();
        let since = std::mem::take(&mut self.changes);
        self.changes = std::mem::take(&mut self.forgotten);
        self.changes.extend(since);
        (self.homing, self.previous, self.fail_folder_sync) = (false, None, false);
        self.leases.clear();
        self.breaks_lease = false;
        // As for the names: the next process cannot know of a sync that failed.
        self.inodes.iter_mut().for_each(|inode| inode.dropped.clear());
        self.open_journal();
    }

    /// Cuts the power of the machine.
    pub(crate) fn power_cut(&mut self) {
        let kept = usize::try_from(self.random(self.changes.len() as u64 + 1)).unwrap();
        let mut names = self.durable_names.clone();
        for change in std::mem::take(&mut self.changes).iter().take(kept) {
            apply(&mut names, change);
        }
        self.names = names.clone();
        self.durable_names = names;
        self.forgotten.clear();
        for index in 0..self.inodes.len() {
            let Inode { data, synced, .. } = self.inodes[index].clone();
            let mut after = synced.clone();
            let length = if self.random(2) == 0 { data.len() } else { synced.len().min(data.len()) };
            after.resize(length.max(synced.len().min(length)), 0);
            for start in (0..after.len()).step_by(SECTOR) {
                let end = (start + SECTOR).min(after.len());
                if end <= data.len()
                    && (synced.get(start..end) != data.get(start..end))
                    && self.random(2) == 0
                {
                    after[start..end].copy_from_slice(&data[start..end]);
                }
            }
            self.inodes[index] = Inode::synced(after);
        }
        self.writers.clear();
        self.restart();
    }

    // ----- every power cut, not one at random -----------------------------

    /// Returns every state that a power cut may leave: for each folder any beginning of its
    /// changes that were not synced; for each file of the spool the old length, the new one
    /// or one between, and any of the sectors that were not synced. Of more than
    /// [`SUBSETS_OF`] sectors it is all, none, a beginning, an end, one, or all but one.
    pub(crate) fn power_cuts(&self) -> Vec<Self> {
        let (queue, spool): (Vec<Change>, Vec<Change>) =
            self.changes.iter().cloned().partition(|change| is_queue_name(change.name()));
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        for kept in 0..(queue.len() + 1) * (spool.len() + 1) {
            let mut names = self.durable_names.clone();
            let (queue_kept, spool_kept) = (kept / (spool.len() + 1), kept % (spool.len() + 1));
            for change in queue.iter().take(queue_kept).chain(spool.iter().take(spool_kept)) {
                apply(&mut names, change);
            }
            let mut disks = vec![Self {
                names: names.clone(),
                changes: Vec::new(),
                forgotten: Vec::new(),
                ..self.clone()
            }];
            for (name, inode) in &names {
                let inode = *inode;
                let Inode { data, synced, .. } = &self.inodes[inode];
                // The service promises nothing about a line that its writer did not sync.
                let after = match is_queue_name(name) {
                    true => BTreeSet::from([data.clone(), synced.clone()]),
                    false => self.inodes[inode].after_power_cut(),
                };
                let put = |disk: &Self, data: &Vec<u8>| {
                    let mut disk = disk.clone();
                    disk.inodes[inode] = Inode::synced(data.clone());
                    disk
                };
                disks = disks.iter().flat_map(|disk| after.iter().map(|data| put(disk, data))).collect();
            }
            for mut disk in disks {
                disk.durable_names = disk.names.clone();
                disk.writers.clear();
                disk.restart();
                if seen.insert(disk.fingerprint()) {
                    found.push(disk);
                }
            }
        }
        found
    }

    /// Stands for everything on the disk that can matter later.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let mut order: Vec<usize> = Vec::new();
        let mut used = self.names.values().chain(self.durable_names.values()).copied().collect::<Vec<_>>();
        used.extend(self.handles.values());
        used.extend([self.journal, self.next].iter().filter(|inode| **inode < self.inodes.len()));
        used.extend(self.changes.iter().filter_map(Change::inode));
        for inode in used {
            // A file is known by when it is met first, not by its number.
            let known = order.iter().position(|known| *known == inode);
            known.unwrap_or(order.len()).hash(&mut hasher);
            if known.is_none() {
                order.push(inode);
                self.inodes[inode].hash(&mut hasher);
            }
        }
        self.names.keys().for_each(|name| name.hash(&mut hasher));
        self.durable_names.keys().for_each(|name| name.hash(&mut hasher));
        self.handles.keys().for_each(|handle| handle.hash(&mut hasher));
        // A file is known by its first number in `order`.
        for inode in &self.writers {
            order.iter().position(|known| known == inode).hash(&mut hasher);
        }
        (self.homing, self.previous.is_some(), self.fail_folder_sync).hash(&mut hasher);
        for change in self.forgotten.iter().chain(&self.changes) {
            core::mem::discriminant(change).hash(&mut hasher);
            change.name().hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Counts an operation; says how it goes.
    fn operation(&mut self, work: Work) -> DiskResult {
        if self.dead {
            return Err(DEAD);
        }
        self.refuse(work)?;
        self.operations += 1;
        if self.die_at == Some(self.operations) {
            self.dead = true;
            return Err(DEAD);
        }
        if self.fail_at == Some(self.operations) {
            return Err(FAILED);
        }
        Ok(())
    }

    fn refuse(&mut self, work: Work) -> DiskResult {
        match &mut self.refusal {
            Some(Refusal { works, error, left }) if works.contains(&work) && *left > 0 => {
                *left -= 1;
                Err(*error)
            }
            _ => Ok(()),
        }
    }

    /// Returns the names with their files, sizes and synced sizes, and the changes of names that
    /// are not synced.
    pub(crate) fn describe(&self) -> String {
        let file = |(name, inode): (&String, &usize)| {
            let Inode { data, synced, dropped } = &self.inodes[*inode];
            let differs = data.iter().zip(synced).position(|(one, other)| one != other);
            format!("{name}={inode}:{}/{} {differs:?} {}", data.len(), synced.len(), dropped.len())
        };
        let names: Vec<_> = self.names.iter().map(file).collect();
        let durable: Vec<_> = self.durable_names.iter().map(file).collect();
        let changes: Vec<_> = self.changes.iter().map(Change::name).collect();
        format!("{names:?}, durable {durable:?}, changes {changes:?}")
    }

    /// Frees the files to which nothing leads any more.
    pub(crate) fn collect_garbage(&mut self) {
        let changes = self.changes.iter().chain(&self.lost).chain(&self.forgotten);
        let mut used: BTreeSet<usize> = changes.filter_map(Change::inode).collect();
        used.extend(self.names.values().chain(self.durable_names.values()).chain(self.handles.values()));
        used.extend(self.writers.iter().chain(&self.leases).chain(&self.previous));
        used.extend([self.journal, self.next]);
        for (index, inode) in self.inodes.iter_mut().enumerate() {
            if !used.contains(&index) {
                *inode = Inode::default();
            }
        }
        self.preallocated.retain(|inode, _| used.contains(inode));
        self.spare = (0..self.inodes.len()).filter(|index| !used.contains(index)).collect();
    }

    /// Checks whether a write finds room.
    fn check_room(&self, file: SpoolFile, offset: u64, length: u64) -> DiskResult {
        let until = offset + length;
        if let Some(error) = self.full {
            let there = self.inode(file).map_or(0, |inode| self.inodes[inode].data.len() as u64);
            if until > there.max(self.preallocated(file)) {
                return Err(error);
            }
        }
        if self.file_limit.is_some_and(|limit| until > limit) {
            return Err(TOO_BIG);
        }
        if self.copies_on_write && self.free < length {
            return Err(NO_SPACE);
        }
        Ok(())
    }

    fn inode(&self, file: SpoolFile) -> Option<usize> {
        match file {
            SpoolFile::Journal => Some(self.journal),
            SpoolFile::Next => Some(self.next),
            SpoolFile::Claim(handle) => self.handles.get(&handle).copied(),
        }
    }

    /// Returns up to where space is reserved for the file.
    pub(crate) fn preallocated(&self, file: SpoolFile) -> u64 {
        self.inode(file).and_then(|inode| self.preallocated.get(&inode)).copied().unwrap_or(0)
    }

    fn data(&mut self, file: SpoolFile) -> DiskResult<&mut Inode> {
        let inode = self.inode(file).ok_or(DiskError(9))?;
        Ok(&mut self.inodes[inode])
    }
}

/// Unsynced sectors of one file of which every subset is tried.
const SUBSETS_OF: usize = 4;

impl Inode {
    /// Returns every content that a power cut may leave.
    fn after_power_cut(&self) -> BTreeSet<Vec<u8>> {
        let (data, synced) = (&self.data, &self.synced);
        let sectors = 0..data.len().max(synced.len()).div_ceil(SECTOR);
        let range = |sector: usize| sector * SECTOR..((sector + 1) * SECTOR).min(data.len());
        let changed: Vec<usize> = sectors
            .clone()
            .filter(|sector| range(*sector).start < data.len())
            .filter(|sector| data.get(range(*sector)) != synced.get(range(*sector)))
            .collect();
        let mut lengths = vec![data.len(), synced.len()];
        let (low, high) = (data.len().min(synced.len()), data.len().max(synced.len()));
        lengths.extend(sectors.map(|sector| sector * SECTOR).filter(|length| (low..high).contains(length)));
        let mut found = BTreeSet::new();
        for kept in subsets(&changed) {
            for length in &lengths {
                let mut after = synced.clone();
                after.resize(high, 0);
                for sector in &kept {
                    after[range(*sector)].copy_from_slice(&data[range(*sector)]);
                }
                after.truncate(*length);
                found.insert(after);
            }
        }
        found
    }
}

/// Returns the subsets that are tried.
fn subsets(all: &[usize]) -> Vec<Vec<usize>> {
    if all.len() <= SUBSETS_OF {
        let chosen = |bits: usize| (0..all.len()).filter(move |at| bits >> at & 1 == 1).map(|at| all[at]);
        return (0..1 << all.len()).map(|bits| chosen(bits).collect()).collect();
    }
    let mut found = vec![Vec::new(), all.to_vec()];
    for at in 0..all.len() {
        found.extend([all[..at].to_vec(), all[at..].to_vec(), vec![all[at]]]);
        found.push(all.iter().copied().filter(|sector| *sector != all[at]).collect());
    }
    found
}

impl Change {
    fn name(&self) -> &str {
        match self {
            Self::Link(name, _) | Self::Unlink(name) | Self::Rename(name, _) => name,
        }
    }

    fn inode(&self) -> Option<usize> {
        if let Self::Link(_, inode) = self { Some(*inode) } else { None }
    }
}

fn apply(names: &mut BTreeMap<String, usize>, change: &Change) {
    match change {
        Change::Link(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        Change::Unlink(name) => {
            names.remove(name);
        }
        Change::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

fn is_queue_name(name: &str) -> bool {
    name == "queue" || name.starts_with("claim-")
}

fn claim_name(seq: u64) -> String {
    format!("claim-{seq:06}")
}

impl Disk for FakeDisk {
    fn read(&mut self, file: SpoolFile, offset: u64, buffer: &mut [u8]) -> DiskResult<usize> {
        if self.dead {
            return Err(DEAD);
        }
        self.refuse(Work::Read)?;
        if let (SpoolFile::Claim(_), Some(error)) = (file, self.claims_fail) {
            return Err(error);
        }
        let data = &self.data(file)?.data;
        let rest = data.get(usize::try_from(offset).unwrap()..).unwrap_or(&[]);
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.bytes_read += count as u64;
        Ok(count)
    }

    fn write(&mut self, file: SpoolFile, offset: u64, bytes: &[u8]) -> DiskResult {
        if self.dead {
            return Err(DEAD);
        }
        self.check_room(file, offset, bytes.len() as u64)?;
        let result = self.operation(Work::Write);
        let count = match result {
            Ok(()) => bytes.len(),
            Err(READ_ONLY) => 0,
            Err(_) => bytes.len() / 2,
        };
        let Inode { data, dropped, .. } = self.data(file)?;
        let start = usize::try_from(offset).unwrap();
        if !dropped.is_empty() {
            dropped.retain(|sector| !(start / SECTOR..=(start + count) / SECTOR).contains(sector));
        }
        data.resize(data.len().max(start + count), 0);
        data[start..start + count].copy_from_slice(&bytes[..count]);
        result
    }

    fn truncate(&mut self, file: SpoolFile, length: u64) -> DiskResult {
        self.operation(Work::Change)?;
        self.data(file)?.data.resize(usize::try_from(length).unwrap(), 0);
        self.preallocated.remove(&self.inode(file).unwrap());
        Ok(())
    }

    fn sync(&mut self, file: SpoolFile) -> DiskResult {
        self.syncs += 1;
        let result = self.operation(Work::Sync);
        let inode = self.data(file)?;
        let length = inode.data.len().max(inode.synced.len());
        let range = |sector: usize| sector * SECTOR..((sector + 1) * SECTOR).min(inode.data.len());
        if result.is_err() {
            let dirty = (0..length.div_ceil(SECTOR))
                .filter(|sector| inode.data.get(range(*sector)) != inode.synced.get(range(*sector)));
            inode.dropped.extend(dirty.collect::<Vec<_>>());
            return result;
        }
        let before = (!inode.dropped.is_empty()).then(|| inode.synced.clone());
        let Inode { data, synced, dropped } = inode;
        synced.clone_from(data);
        for at in dropped.iter().flat_map(|sector| sector * SECTOR..(sector + 1) * SECTOR) {
            if let Some(byte) = synced.get_mut(at) {
                *byte = before.as_ref().and_then(|before| before.get(at)).copied().unwrap_or(0);
            }
        }
        Ok(())
    }

    fn size(&mut self, file: SpoolFile) -> DiskResult<u64> {
        if self.dead {
            return Err(DEAD);
        }
        Ok(self.data(file)?.data.len() as u64)
    }

    fn free(&mut self) -> u64 {
        self.free
    }

    fn preallocate(&mut self, file: SpoolFile, from: u64, until: u64) -> DiskResult<bool> {
        // fallocate refuses an empty range, and a gap would not be reserved.
        let there = self.size(file)?.max(self.preallocated(file));
        assert!(from < until && from <= there, "{from} to {until}, where {there} is there");
        self.last_preallocate = Some((file, from, until));
        if self.file_limit.is_some_and(|limit| until > limit) {
            return Err(TOO_BIG);
        }
        self.refuse(Work::Write)?;
        if let Some(error) = self.full.filter(|_| self.preallocate_limit > 0) {
            return Err(error);
        }
        match self.preallocate_limit {
            0 => Ok(false),
            most if until > most => Err(NO_SPACE),
            _ => {
                let preallocated = self.inode(file).map(|inode| self.preallocated.entry(inode).or_default());
                preallocated.into_iter().for_each(|preallocated| *preallocated = until.max(*preallocated));
                Ok(true)
            }
        }
    }

    fn create_next(&mut self) -> DiskResult {
        self.operation(Work::Create)?;
        if !self.homing && !self.is_journal_named() {
            // The folder was taken away. This one was removed.
            return Err(DiskError(2));
        }
        if self.no_inodes {
            return Err(NO_SPACE);
        }
        self.next = self.create("next");
        Ok(())
    }

    fn abandon_next(&mut self) {
        if self.operation(Work::Change).is_ok() {
            self.change(Change::Unlink("next".to_owned()));
        }
    }

    fn publish_next(&mut self) -> DiskResult {
        self.operation(Work::Change)?;
        if self.names.get("next") != Some(&self.next) || (self.homing && self.names.contains_key("journal")) {
            // The folder was taken away, or something is in the way.
            return Err(DiskError(2));
        }
        self.change(Change::Rename("next".to_owned(), "journal".to_owned()));
        if std::mem::take(&mut self.homing) {
            self.previous = Some(self.journal);
        }
        self.journal = self.next;
        Ok(())
    }

    fn sync_spool(&mut self) -> DiskResult {
        let result = self.operation(Work::SyncNames);
        let is_spool_name = |name: &str| name == "next" || name == "journal";
        let fails = std::mem::take(&mut self.fail_folder_sync) || self.folder_syncs_fail;
        if result.is_ok() && fails {
            // The kernel forgets that these names are not on the disk.
            let (lost, rest) = std::mem::take(&mut self.changes)
                .into_iter()
                .partition(|change| is_spool_name(change.name()));
            (self.forgotten, self.changes) = (lost, rest);
            return Err(FAILED);
        }
        result?;
        if self.changes.iter().any(|change| matches!(change, Change::Rename(_, to) if to == "journal")) {
            self.forgotten.clear();
        }
        self.sync_names(is_spool_name);
        Ok(())
    }

    fn journal_path(&mut self) -> PathState {
        match self.is_journal_named() {
            _ if self.dead => PathState::Unknown,
            true => PathState::Named,
            false => PathState::Missing,
        }
    }

    fn make_home(&mut self) -> Result<(), Obstacle> {
        self.operation(Work::Create).map_err(Obstacle::Failed)?;
        if self.names.contains_key("journal") {
            return Err(Obstacle::Journal);
        }
        self.homing = true;
        Ok(())
    }

    fn leave_home(&mut self) {
        self.homing = false;
    }

    fn empty_previous(&mut self) -> DiskResult {
        let Some(previous) = self.previous.take() else { return Ok(()) };
        self.operation(Work::Change)?;
        self.inodes[previous].data.clear();
        Ok(())
    }

    fn quarantine(&mut self, bytes: &[u8]) -> DiskResult {
        self.operation(Work::Create)?;
        if self.no_inodes {
            return Err(NO_SPACE);
        }
        self.quarantined.extend_from_slice(bytes);
        Ok(())
    }

    fn reject(&mut self, bytes: &[u8]) -> DiskResult {
        self.operation(Work::Create)?;
        self.rejected.extend_from_slice(bytes);
        Ok(())
    }

    fn queue_file(&mut self) -> QueueFile {
        match self.names.get("queue") {
            Some(inode) if !self.inodes[*inode].data.is_empty() => QueueFile::Ready,
            _ => QueueFile::Nothing,
        }
    }

    fn claim_queue(&mut self, seq: u64, handle: u8) -> DiskResult {
        self.operation(Work::Change)?;
        self.rename_fails.map_or(Ok(()), Err)?;
        self.change(Change::Rename("queue".to_owned(), claim_name(seq)));
        self.handles.insert(handle, self.names[&claim_name(seq)]);
        Ok(())
    }

    fn claim_exists(&mut self, seq_low: u16) -> DiskResult<bool> {
        self.operation(Work::Read)?;
        Ok(self.names.contains_key(&claim_name(u64::from(seq_low))))
    }

    fn next_claim(&mut self, after: u64) -> DiskResult<Option<u64>> {
        self.operation(Work::Read)?;
        if self.list_fails {
            return Err(FAILED);
        }
        let seqs = self.names.keys().filter_map(|name| name.strip_prefix("claim-")?.parse().ok());
        Ok(seqs.filter(|seq| *seq > after).min())
    }

    fn open_claim(&mut self, seq: u64, handle: u8) -> DiskResult {
        self.claims_fail.map_or(Ok(()), Err)?;
        let inode = self.names.get(&claim_name(seq)).copied().ok_or(MISSING)?;
        self.handles.insert(handle, inode);
        Ok(())
    }

    fn rename_claim(&mut self, seq: u64, next: u64, _: u8) -> DiskResult {
        self.operation(Work::Change)?;
        self.change(Change::Rename(claim_name(seq), claim_name(next)));
        Ok(())
    }

    fn lease_claim(&mut self, handle: u8) -> Lease {
        let inode = self.handles[&handle];
        match (self.has_leases, self.writers.contains(&inode)) {
            (false, _) => Lease::Unknown,
            (true, true) => Lease::Writer,
            (true, false) => {
                assert!(self.leases.insert(inode), "a lease outlives its turn");
                Lease::Held
            }
        }
    }

    fn holds_lease(&mut self, handle: u8) -> bool {
        let inode = self.handles[&handle];
        assert!(self.leases.contains(&inode));
        if std::mem::take(&mut self.breaks_lease) {
            self.writers.insert(inode);
        }
        !self.writers.contains(&inode)
    }

    fn release_claim(&mut self, handle: u8) {
        assert!(self.leases.remove(&self.handles[&handle]));
    }

    fn sync_queue(&mut self) -> DiskResult {
        self.operation(Work::SyncNames)?;
        if self.sync_fails {
            // The names count as written, though they are not.
            let (lost, kept) = std::mem::take(&mut self.changes)
                .into_iter()
                .partition::<Vec<_>, _>(|change| is_queue_name(change.name()));
            self.lost.extend(lost);
            self.changes = kept;
            return Err(FAILED);
        }
        self.take_lost_names();
        self.sync_names(is_queue_name);
        Ok(())
    }

    fn remove_claim(&mut self, seq: u64, handle: u8) -> DiskResult {
        self.operation(Work::Change)?;
        assert!(self.is_journal_named(), "a claim is removed for a journal that its path does not lead to");
        self.claims_fail.map_or(Ok(()), Err)?;
        self.change(Change::Unlink(claim_name(seq)));
        if let Some(inode) = self.handles.remove(&handle) {
            self.leases.remove(&inode);
        }
        Ok(())
    }
}
