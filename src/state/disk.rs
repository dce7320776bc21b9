//! The operations of a disk that the spool needs, so that a test can provide a disk that
//! fails, tears and forgets.

pub use super::identity::PathState;
use linux_raw_sys::errno;

/// The errno of an operation that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(Hash))]
pub struct DiskError(pub i32);

impl DiskError {
    /// Returns true if the disk, the quota or the file has no room.
    #[must_use]
    pub fn is_no_space(self) -> bool {
        [NO_SPACE, OVER_QUOTA, DiskError(errno::EFBIG as i32)].contains(&self)
    }
}

/// The disk is full, or new jobs would take the space that queued jobs need.
pub const NO_SPACE: DiskError = DiskError(errno::ENOSPC as i32);

/// The user of the spool may not use more of the disk.
pub const OVER_QUOTA: DiskError = DiskError(errno::EDQUOT as i32);

/// A file does not exist.
pub const MISSING: DiskError = DiskError(errno::ENOENT as i32);

/// A record is not the one that was written at its offset.
pub const DAMAGED: DiskError = DiskError(errno::EILSEQ as i32);

/// The path of the journal does not lead to the open journal, so that nothing is acknowledged.
pub const MOVED: DiskError = DiskError(errno::ESTALE as i32);

/// A sync of a folder failed: the names in it have to be made again.
pub const NAMES_LOST: DiskError = DiskError(errno::EIO as i32);

/// The result of an operation of a disk.
pub type DiskResult<T = ()> = Result<T, DiskError>;

/// A file of the spool or of the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpoolFile {
    /// The journal.
    Journal,
    /// The journal that a compaction is writing.
    Next,
    /// A claimed queue file, by the place that [`Disk::claim_queue`] or
    /// [`Disk::open_claim`] was given.
    Claim(u8),
}

/// The state of the queue file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueFile {
    /// The queue file does not exist, or is empty.
    Nothing,
    /// The queue file has bytes to claim.
    Ready,
    /// The queue file is not a regular file, or cannot be opened.
    Unusable(DiskError),
}

/// Why the spool cannot be made again at its path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(Hash))]
pub enum Obstacle {
    /// A journal is there that this process did not write.
    Journal,
    /// A folder with other files is there.
    NotEmpty,
    /// Something is there that is no folder.
    NotFolder,
    /// The path leads to another filesystem.
    Filesystem,
    /// Another user could change what is there.
    Untrusted,
    /// Another process holds the lock there.
    Locked,
    /// A system call failed.
    Failed(DiskError),
}

/// The answer to a request for a read lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lease {
    /// The service has the lease: no process has the file open for writing.
    Held,
    /// A process has the file open for writing.
    Writer,
    /// The filesystem or the rights of the service do not allow a lease.
    Unknown,
}

/// The files of one spool and one queue. Reads and writes are whole or fail.
pub trait Disk {
    /// Reads at `offset` until `buffer` is full or the file ends.
    ///
    /// # Errors
    /// The file cannot be read.
    fn read(&mut self, file: SpoolFile, offset: u64, buffer: &mut [u8]) -> DiskResult<usize>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// Not everything was written; what was is undefined.
    fn write(&mut self, file: SpoolFile, offset: u64, bytes: &[u8]) -> DiskResult;

    /// Cuts the file to `length`.
    ///
    /// # Errors
    /// It was not cut.
    fn truncate(&mut self, file: SpoolFile, length: u64) -> DiskResult;

    /// Makes the file's data and size durable.
    ///
    /// # Errors
    /// Nothing that was written since the last sync can be relied on.
    fn sync(&mut self, file: SpoolFile) -> DiskResult;

    /// Returns the size of the file in bytes.
    ///
    /// # Errors
    /// It cannot be learnt.
    fn size(&mut self, file: SpoolFile) -> DiskResult<u64>;

    /// Returns the bytes that the disk still has for this service, or the largest number
    /// where that is unknown.
    fn free(&mut self) -> u64;

    /// Reserves space for the file from `from` up to `until`, also beyond its size, so that no
    /// other program can take it. Returns true if the filesystem can. Cutting the file gives
    /// the space back. A start at 0 would make the kernel walk over all that is reserved.
    ///
    /// # Errors
    /// The disk or the quota has not this much space.
    fn preallocate(&mut self, file: SpoolFile, from: u64, until: u64) -> DiskResult<bool>;

    /// Creates [`SpoolFile::Next`] empty, replacing what a crash may have left.
    ///
    /// # Errors
    /// It was not created.
    fn create_next(&mut self) -> DiskResult;

    /// Removes [`SpoolFile::Next`]; what cannot be removed is replaced later.
    fn abandon_next(&mut self);

    /// Renames [`SpoolFile::Next`] to the journal's name; from now on
    /// [`SpoolFile::Journal`] means it.
    ///
    /// # Errors
    /// Nothing changed.
    fn publish_next(&mut self) -> DiskResult;

    /// Makes the names in the spool durable.
    ///
    /// # Errors
    /// They are not.
    fn sync_spool(&mut self) -> DiskResult;

    /// Looks where the path of the journal leads.
    fn journal_path(&mut self) -> PathState;

    /// Makes the folder of the spool again at its path, with its lock, if the path is free.
    /// From then on [`Disk::create_next`] creates there, and [`Disk::publish_next`] replaces
    /// nothing. The journal and the lock stay open until then.
    ///
    /// # Errors
    /// The obstacle; nothing that was there is changed.
    fn make_home(&mut self) -> Result<(), Obstacle>;

    /// Returns to the folder of the open journal, after [`Disk::make_home`].
    fn leave_home(&mut self);

    /// Empties the journal from which the last [`Disk::publish_next`] moved to another folder.
    /// Does nothing after any other. Comes after [`Disk::sync_spool`].
    ///
    /// # Errors
    /// It may still hold its jobs; the call is not repeated.
    fn empty_previous(&mut self) -> DiskResult;

    /// Keeps damaged bytes of the journal in a file of their own.
    ///
    /// # Errors
    /// They are not kept.
    fn quarantine(&mut self, bytes: &[u8]) -> DiskResult;

    /// Appends a line that is not a job, or a part of one, to `rejected`.
    ///
    /// # Errors
    /// It is not kept.
    fn reject(&mut self, bytes: &[u8]) -> DiskResult;

    /// Looks at the queue file.
    fn queue_file(&mut self) -> QueueFile;

    /// Renames the queue file to claim `seq` and opens it at `handle`.
    ///
    /// # Errors
    /// It was not renamed.
    fn claim_queue(&mut self, seq: u64, handle: u8) -> DiskResult;

    /// Checks whether a claim `seq`, of which the low half is given, is on the disk.
    ///
    /// # Errors
    /// It cannot be learnt.
    fn claim_exists(&mut self, seq_low: u16) -> DiskResult<bool>;

    /// Returns the lowest claim on the disk above `after`, if any.
    ///
    /// # Errors
    /// It cannot be learnt.
    fn next_claim(&mut self, after: u64) -> DiskResult<Option<u64>>;

    /// Opens the claim `seq` at `handle`.
    ///
    /// # Errors
    /// [`MISSING`], it cannot be opened, or it is not the file that was claimed.
    fn open_claim(&mut self, seq: u64, handle: u8) -> DiskResult;

    /// Gives the claim `seq`, open at `handle`, the number `next`, which changes its name.
    ///
    /// # Errors
    /// Nothing changed.
    fn rename_claim(&mut self, seq: u64, next: u64, handle: u8) -> DiskResult;

    /// Asks for a read lease on the claim that is open at `handle`. While the lease is held, a
    /// process that opens the claim for writing waits.
    fn lease_claim(&mut self, handle: u8) -> Lease;

    /// Returns true if the lease on a claim is held, and no process waits for its end.
    fn holds_lease(&mut self, handle: u8) -> bool;

    /// Gives a lease back.
    fn release_claim(&mut self, handle: u8);

    /// Makes the names in the queue's folder durable.
    ///
    /// # Errors
    /// They are not.
    fn sync_queue(&mut self) -> DiskResult;

    /// Removes the claim `seq`, open at `handle`, and closes it.
    ///
    /// # Errors
    /// It is still there, and open.
    fn remove_claim(&mut self, seq: u64, handle: u8) -> DiskResult;
}

#[cfg(test)]
pub(crate) mod fake;
