//! The disk that `state::spool` works on: the journal in the folder of the spool, and the
//! queue file and its claims, which are those of [`QueueFolder`].

use super::queue_folder::{QueueFolder, QueueSubject};
use super::spool_folder::{HomeError, Published, SpoolFolder};
use crate::limits::{PATH_MAX_BYTES, REJECTED_MAX_BYTES};
use crate::state::disk::{Disk, DiskError, DiskResult, Lease, Obstacle, PathState, QueueFile, SpoolFile};
use crate::sys::file::OFlags;
use crate::sys::lock::PidFile;
use crate::sys::{AsRawFd, Errno, Failure, Op, OwnedFd, describe_errno, file};
use crate::util::path::Path;
use crate::util::text::Writer;
use core::ffi::CStr;
use ufmt::uwrite;

/// Maximum number of files `journal.bad-N`. Further damage is appended to the last one.
const BAD_FILES_MAX: u32 = 99;

/// The open files of a spool and of its queue.
pub struct SpoolDisk {
    /// The folder of the spool.
    pub folder: SpoolFolder,
    journal: OwnedFd,
    next: Option<OwnedFd>,
    /// The journal in the folder that was moved away.
    previous: Option<OwnedFd>,
    /// The journal that was exchanged for the one that is open. It is kept until that one's name
    /// is durable.
    exchanged: Option<OwnedFd>,
    quarantine: Option<OwnedFd>,
    /// The queue file and its claims.
    pub queue: QueueFolder,
    /// The name of the system call that failed last, for messages.
    pub failed_op: &'static str,
}

impl SpoolDisk {
    /// Opens the journal in the folder `spool`, whose lock is `lock`. Creates an empty one if
    /// there is none. `base` is the folder of `-d`, or empty.
    ///
    /// # Errors
    /// The journal is not a regular file, or cannot be opened.
    pub fn open(spool: &Path, base: &Path, queue: &Path, lock: PidFile) -> Result<Self, Failure> {
        let (folder, journal) = SpoolFolder::open(spool, base, lock)?;
        if file::meta(&journal)?.size == 0 {
            file::write_in_place(&journal);
        }
        Ok(Self {
            folder,
            journal,
            next: None,
            previous: None,
            exchanged: None,
            quarantine: None,
            queue: QueueFolder::open(queue),
            failed_op: "",
        })
    }

    fn fd(&self, file: SpoolFile) -> Result<&OwnedFd, Failure> {
        let missing = Failure { op: Op::Open, errno: Errno::BADF };
        match file {
            SpoolFile::Journal => Ok(&self.journal),
            SpoolFile::Next => self.next.as_ref().ok_or(missing),
            SpoolFile::Claim(handle) => self.queue.claim(handle),
        }
    }

    /// Records the name of the system call that failed, and passes its errno on.
    fn record_failure<T>(&mut self, result: Result<T, Failure>) -> DiskResult<T> {
        result.map_err(|failure| self.failure(failure))
    }

    #[inline(never)]
    fn failure(&mut self, failure: Failure) -> DiskError {
        self.failed_op = failure.op.name();
        DiskError(failure.errno.raw_os_error())
    }

    /// Records the failure of an operation on the queue file, its folder or a claim, for
    /// messages, and passes its errno on.
    fn record_queue_failure<T>(
        &mut self,
        subject: QueueSubject,
        result: Result<T, Failure>,
    ) -> DiskResult<T> {
        result.map_err(|failure| self.queue_failure(subject, failure))
    }

    #[inline(never)]
    fn queue_failure(&mut self, subject: QueueSubject, failure: Failure) -> DiskError {
        let failed = (subject, failure);
        match subject {
            QueueSubject::Claim(_) => self.queue.claim_failure = failed,
            _ => self.queue.file_failure = failed,
        }
        DiskError(failure.errno.raw_os_error())
    }

    /// Records the failure of an operation on an open file.
    fn record_file_failure<T>(&mut self, file: SpoolFile, result: Result<T, Failure>) -> DiskResult<T> {
        match file {
            SpoolFile::Claim(handle) => {
                let subject = QueueSubject::Claim(self.queue.seq_at(handle));
                self.record_queue_failure(subject, result)
            }
            SpoolFile::Journal | SpoolFile::Next => self.record_failure(result),
        }
    }

    /// Calls `visit` with the number of each claim on the disk.
    fn each_claim(&mut self, visit: &mut dyn FnMut(u64)) -> DiskResult {
        let result = self.queue.each_claim(self.folder.fd(), visit);
        self.record_queue_failure(QueueSubject::Folder, result)
    }

    fn append_rejected(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NONBLOCK;
        let mut fd = self.folder.open_file(c"rejected", flags)?;
        if file::meta(&fd)?.size >= REJECTED_MAX_BYTES {
            self.folder.rename(c"rejected", c"rejected.1")?;
            fd = self.folder.open_file(c"rejected", flags)?;
        }
        file::write_all(&fd, bytes)
    }

    fn append_quarantine(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if self.quarantine.is_none() {
            self.quarantine = Some(self.create_quarantine()?);
        }
        let Some(fd) = &self.quarantine else { return Ok(()) };
        file::write_all(fd, bytes)?;
        file::sync_data(fd)
    }

    /// Creates `journal.bad-N` with the lowest free number. From [`BAD_FILES_MAX`] on, it
    /// opens that file for appending.
    fn create_quarantine(&self) -> Result<OwnedFd, Failure> {
        let mut number = 1;
        loop {
            let mut name = [0; 32];
            let mut out = Writer::new(&mut name);
            let _ = uwrite!(out, "journal.bad-{}", number);
            out.push(&[0]);
            let name = CStr::from_bytes_with_nul(out.as_bytes()).unwrap_or(c"journal.bad-99");
            let kind = if number < BAD_FILES_MAX { OFlags::EXCL } else { OFlags::APPEND };
            match self.folder.open_file(name, OFlags::WRONLY | OFlags::CREATE | kind) {
                Err(Failure { errno: Errno::EXIST, .. }) => number = number.saturating_add(1),
                result => return result,
            }
        }
    }
}

impl SpoolDisk {
    /// Locks the spool again, because the name of its lock is gone.
    ///
    /// # Errors
    /// The obstacle; the held lock stays.
    pub fn renew_lock(&mut self) -> Result<(), Obstacle> {
        let result = self.folder.renew_lock();
        self.record_obstacle(result)
    }

    /// Records the name of the system call that failed, if one did.
    fn record_obstacle(&mut self, result: Result<(), HomeError>) -> Result<(), Obstacle> {
        result.map_err(|error| match error {
            HomeError::Blocked(obstacle) => obstacle,
            HomeError::Failed(failure) => {
                self.failed_op = failure.op.name();
                Obstacle::Failed(DiskError(failure.errno.raw_os_error()))
            }
        })
    }

    /// Opens the note of running handlers. Returns `None` if the spool has no room for it.
    pub fn open_note(&self) -> Option<OwnedFd> {
        self.folder.open_file(c"running", OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK).ok()
    }

    /// Writes the path by which the kernel knows the open journal, if there is a /proc.
    pub fn describe_journal(&self, out: &mut Writer<'_>) {
        let path = self.journal_path_now();
        out.push_escaped(path.as_ref().map_or(b"(unknown path)", Path::as_bytes));
    }

    /// Returns the path at which the open journal is, if /proc shows it.
    #[must_use]
    pub fn journal_path_now(&self) -> Option<Path> {
        let mut name = [0; 40];
        let mut link = Writer::new(&mut name);
        let _ = uwrite!(link, "/proc/self/fd/{}", self.journal.as_raw_fd());
        let mut path = [0; PATH_MAX_BYTES];
        let count = file::read_link(Path::new(link.as_bytes())?.as_c_str(), &mut path).ok()?;
        Path::new(path.get(..count)?)
    }
}

/// Writes the operation that failed last, and its error.
pub fn describe_disk(disk: &SpoolDisk, error: DiskError, out: &mut Writer<'_>) {
    out.push_str(disk.failed_op);
    out.push_str(": ");
    describe_errno(Errno::from_raw_os_error(error.0), out);
}

impl Disk for SpoolDisk {
    fn read(&mut self, file: SpoolFile, offset: u64, buffer: &mut [u8]) -> DiskResult<usize> {
        let result = self.fd(file).and_then(|fd| file::read_at(fd, buffer, offset));
        self.record_file_failure(file, result)
    }

    fn write(&mut self, file: SpoolFile, offset: u64, bytes: &[u8]) -> DiskResult {
        let result = self.fd(file).and_then(|fd| file::write_at(fd, bytes, offset));
        self.record_failure(result)
    }

    fn truncate(&mut self, file: SpoolFile, length: u64) -> DiskResult {
        let result = self.fd(file).and_then(|fd| file::truncate(fd, length));
        self.record_failure(result)
    }

    fn sync(&mut self, file: SpoolFile) -> DiskResult {
        let result = self.fd(file).and_then(file::sync_data);
        self.record_failure(result)
    }

    fn size(&mut self, file: SpoolFile) -> DiskResult<u64> {
        let result = self.fd(file).and_then(|fd| Ok(file::meta(fd)?.size));
        self.record_file_failure(file, result)
    }

    fn free(&mut self) -> u64 {
        self.failed_op = "reserve";
        file::free_bytes(&self.journal).unwrap_or(u64::MAX)
    }

    fn preallocate(&mut self, file: SpoolFile, from: u64, until: u64) -> DiskResult<bool> {
        let result = self.fd(file).and_then(|fd| file::allocate(fd, from, until.saturating_sub(from)));
        self.record_failure(result)
    }

    fn create_next(&mut self) -> DiskResult {
        // Its name is not durable after a failed sync, and the file is removed.
        self.exchanged = None;
        let result = self.folder.create_next().inspect(file::write_in_place);
        self.next = Some(self.record_failure(result)?);
        Ok(())
    }

    fn abandon_next(&mut self) {
        let next = self.next.take();
        self.folder.retire(next);
    }

    fn publish_next(&mut self) -> DiskResult {
        let Some(next) = self.next.take() else { return Err(DiskError(Errno::BADF.raw_os_error())) };
        let result = self.folder.publish(&next);
        let published = self.record_failure(result)?;
        let old = core::mem::replace(&mut self.journal, next);
        match published {
            Published::Replaced => {}
            Published::Exchanged => self.exchanged = Some(old),
            Published::Moved => {
                self.previous = Some(old);
                self.quarantine = None;
            }
        }
        Ok(())
    }

    fn sync_spool(&mut self) -> DiskResult {
        let result = self.folder.sync();
        self.record_failure(result)?;
        match self.exchanged.take() {
            Some(old) => self.folder.retire(Some(old)),
            None if self.next.is_none() => self.folder.ensure_spare(),
            None => {}
        }
        Ok(())
    }

    fn journal_path(&mut self) -> PathState {
        self.folder.look_with_lock()
    }

    fn make_home(&mut self) -> Result<(), Obstacle> {
        let result = self.folder.make_home(&self.queue.path_of(QueueSubject::File));
        self.record_obstacle(result)
    }

    fn leave_home(&mut self) {
        self.folder.leave_home();
    }

    fn empty_previous(&mut self) -> DiskResult {
        let Some(previous) = self.previous.take() else { return Ok(()) };
        let result = file::truncate(&previous, 0).and_then(|()| file::sync_data(&previous));
        self.record_failure(result)
    }

    fn quarantine(&mut self, bytes: &[u8]) -> DiskResult {
        let result = self.append_quarantine(bytes);
        self.record_failure(result)
    }

    fn reject(&mut self, bytes: &[u8]) -> DiskResult {
        let result = self.append_rejected(bytes);
        self.record_failure(result)
    }

    fn queue_file(&mut self) -> QueueFile {
        match self.queue.look() {
            Ok(state) => state,
            Err((subject, failure)) => {
                let failed: DiskResult = self.record_queue_failure(subject, Err(failure));
                QueueFile::Unusable(failed.err().unwrap_or(DiskError(0)))
            }
        }
    }

    fn claim_queue(&mut self, seq: u64, handle: u8) -> DiskResult {
        let result = self.queue.claim_queue(self.folder.fd(), seq, handle);
        self.record_queue_failure(QueueSubject::File, result)
    }

    fn claim_exists(&mut self, seq_low: u16) -> DiskResult<bool> {
        let mut found = false;
        self.each_claim(&mut |seq| found |= seq & 0xFFFF == u64::from(seq_low))?;
        Ok(found)
    }

    fn next_claim(&mut self, after: u64) -> DiskResult<Option<u64>> {
        let mut next = None;
        self.each_claim(&mut |seq| {
            if seq > after && next.is_none_or(|known| seq < known) {
                next = Some(seq);
            }
        })?;
        Ok(next)
    }

    fn open_claim(&mut self, seq: u64, handle: u8) -> DiskResult {
        let result = self.queue.open_claim(self.folder.fd(), seq, handle);
        self.record_queue_failure(QueueSubject::Claim(seq), result)
    }

    fn rename_claim(&mut self, seq: u64, next: u64, handle: u8) -> DiskResult {
        let result = self.queue.rename_claim(self.folder.fd(), seq, next, handle);
        self.record_queue_failure(QueueSubject::Folder, result)
    }

    fn lease_claim(&mut self, handle: u8) -> Lease {
        self.queue.lease_claim(handle)
    }

    fn holds_lease(&mut self, handle: u8) -> bool {
        self.queue.holds_lease(handle)
    }

    fn release_claim(&mut self, handle: u8) {
        self.queue.release_claim(handle);
    }

    fn sync_queue(&mut self) -> DiskResult {
        let result = self.queue.sync(self.folder.fd());
        self.record_queue_failure(QueueSubject::Folder, result)
    }

    fn remove_claim(&mut self, seq: u64, handle: u8) -> DiskResult {
        let result = self.queue.remove_claim(self.folder.fd(), seq, handle);
        self.record_queue_failure(QueueSubject::Claim(seq), result)
    }
}
