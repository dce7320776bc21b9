//! The disk that `state::spool` works on: the journal in the folder of the spool, and the
//! queue file and its claims in their folder.

use super::spool_folder::{HomeError, SpoolFolder};
use crate::limits::{CLAIMS_MAX, PATH_MAX_BYTES, REJECTED_MAX_BYTES};
use crate::state::disk::{Disk, DiskError, DiskResult, Obstacle, PathState, QueueFile, SpoolFile};
use crate::sys::file::OFlags;
use crate::sys::inotify::Inotify;
use crate::sys::lock::PidFile;
use crate::sys::{AsRawFd, Errno, Failure, Op, OwnedFd, describe_errno, dir, file};
use crate::util::path::Path;
use crate::util::text::{Writer, parse_u64};
use core::ffi::CStr;
use ufmt::uwrite;

/// Highest number of a claim. A file with a higher number is not treated as a claim, because
/// there must always be a next number.
const CLAIM_SEQ_MAX: u64 = u64::MAX / 2;
/// Maximum number of files `journal.bad-N`. Further damage is appended to the last one.
const BAD_FILES_MAX: u32 = 99;

/// The open files of a spool and of its queue.
pub struct SpoolDisk {
    /// The folder of the spool.
    pub folder: SpoolFolder,
    queue: Path,
    journal: OwnedFd,
    next: Option<OwnedFd>,
    /// The journal in the folder that was moved away.
    previous: Option<OwnedFd>,
    claims: [Option<OwnedFd>; CLAIMS_MAX],
    quarantine: Option<OwnedFd>,
    /// Reports writes to the queue file and to its claims. `None` if the kernel has no
    /// inotify.
    pub inotify: Option<Inotify>,
    /// The name of the system call that failed last, for messages.
    pub failed_op: &'static str,
}

impl SpoolDisk {
    /// Opens the journal in the folder `spool`, whose lock is `lock`. Creates an empty one if
    /// there is none. If there is no inotify, the caller has to check the queue file regularly.
    ///
    /// # Errors
    /// The journal is not a regular file, or cannot be opened.
    pub fn open(spool: &Path, queue: &Path, lock: PidFile) -> Result<Self, Failure> {
        let (folder, journal) = SpoolFolder::open(spool, lock)?;
        let mut disk = Self {
            folder,
            queue: queue.clone(),
            journal,
            next: None,
            previous: None,
            claims: [const { None }; CLAIMS_MAX],
            quarantine: None,
            inotify: None,
            failed_op: "",
        };
        disk.watch();
        Ok(disk)
    }

    /// Watches the folder of the queue for new names, and the queue file for writes.
    fn watch(&mut self) {
        self.inotify = Inotify::new().ok().filter(|inotify| {
            let _ = inotify.watch_writes(self.queue.as_c_str());
            inotify.watch_names(self.queue.parent().as_c_str()).is_ok()
        });
    }

    /// Changes to another queue file. No claim may be open.
    pub fn set_queue(&mut self, queue: &Path) {
        self.queue = queue.clone();
        self.watch();
    }

    fn fd(&self, file: SpoolFile) -> Result<&OwnedFd, Failure> {
        let missing = Failure { op: Op::Open, errno: Errno::BADF };
        match file {
            SpoolFile::Journal => Ok(&self.journal),
            SpoolFile::Next => self.next.as_ref().ok_or(missing),
            SpoolFile::Claim(handle) => {
                self.claims.get(usize::from(handle)).and_then(Option::as_ref).ok_or(missing)
            }
        }
    }

    /// Records the name of the system call that failed, and passes its errno on.
    fn record_failure<T>(&mut self, result: Result<T, Failure>) -> DiskResult<T> {
        result.map_err(|failure| {
            self.failed_op = failure.op.name();
            DiskError(failure.errno.raw_os_error())
        })
    }

    fn claim_path(&self, seq: u64) -> Result<Path, Failure> {
        let mut suffix = [0; 32];
        let mut out = Writer::new(&mut suffix);
        let _ = uwrite!(out, ".claim-{}", seq);
        self.queue.with_suffix(out.as_bytes()).ok_or(TOO_LONG)
    }

    /// Calls `visit` with the number of each claim on the disk.
    fn each_claim(&mut self, visit: &mut dyn FnMut(u64)) -> DiskResult {
        let result = self.list_claims(visit);
        self.record_failure(result)
    }

    fn list_claims(&self, visit: &mut dyn FnMut(u64)) -> Result<(), Failure> {
        let folder = file::open_linked_dir(self.queue.parent().as_c_str())?;
        let name = self.queue.name();
        dir::each(&folder, |entry| {
            let seq = entry.strip_prefix(name).and_then(|rest| rest.strip_prefix(b".claim-"));
            if let Some(seq) = seq.and_then(parse_u64).filter(|seq| *seq <= CLAIM_SEQ_MAX) {
                visit(seq);
            }
        })
    }

    fn open_claim_file(&mut self, seq: u64, handle: u8) -> Result<(), Failure> {
        let path = self.claim_path(seq)?;
        let (fd, _) = file::open_regular(path.as_c_str())?;
        if let Some(slot) = self.claims.get_mut(usize::from(handle)) {
            *slot = Some(fd);
        }
        if let Some(inotify) = &self.inotify {
            let _ = inotify.watch_writes(path.as_c_str());
        }
        Ok(())
    }

    fn claim(&mut self, seq: u64, handle: u8) -> Result<(), Failure> {
        let path = self.claim_path(seq)?;
        // The file is opened before it is renamed, so that a lack of descriptors leaves the
        // queue file in its place. It is also watched before. The watch stays with the file,
        // so that no write is missed.
        let (fd, meta) = file::open_regular(self.queue.as_c_str())?;
        if let Some(inotify) = &self.inotify {
            let _ = inotify.watch_writes(self.queue.as_c_str());
        }
        file::rename(self.queue.as_c_str(), path.as_c_str())?;
        if file::meta_at(path.as_c_str(), false).is_ok_and(|named| named.identity != meta.identity) {
            // Another file was put at the path between the two calls.
            return self.open_claim_file(seq, handle);
        }
        if let Some(slot) = self.claims.get_mut(usize::from(handle)) {
            *slot = Some(fd);
        }
        Ok(())
    }

    fn queue_size(&self) -> Result<u64, Failure> {
        file::open_regular(self.queue.as_c_str()).map(|(_, meta)| meta.size)
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

/// The error of a name that makes a path too long.
const TOO_LONG: Failure = Failure { op: Op::Openat, errno: Errno::NAMETOOLONG };

/// Syncs the folder, so that the names in it are durable.
fn sync_folder(folder: &Path) -> Result<(), Failure> {
    file::open_linked_dir(folder.as_c_str()).and_then(|fd| file::sync_dir(&fd))
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
        let mut name = [0; 40];
        let mut link = Writer::new(&mut name);
        let _ = uwrite!(link, "/proc/self/fd/{}", self.journal.as_raw_fd());
        let mut path = [0; PATH_MAX_BYTES];
        let count =
            Path::new(link.as_bytes()).and_then(|link| file::read_link(link.as_c_str(), &mut path).ok());
        out.push_escaped(count.and_then(|count| path.get(..count)).unwrap_or(b"(unknown path)"));
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
        self.record_failure(result)
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
        self.record_failure(result)
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
        let result = self.folder.create_next();
        self.next = Some(self.record_failure(result)?);
        Ok(())
    }

    fn abandon_next(&mut self) {
        self.next = None;
        self.folder.remove_next();
    }

    fn publish_next(&mut self) -> DiskResult {
        let Some(next) = self.next.take() else { return Err(DiskError(Errno::BADF.raw_os_error())) };
        let result = self.folder.publish(&next);
        let moved = self.record_failure(result)?;
        let old = core::mem::replace(&mut self.journal, next);
        if moved {
            self.previous = Some(old);
            self.quarantine = None;
            if self.queue.parent() == self.folder.path {
                // The folder of the queue file was made again, too.
                self.watch();
            }
        }
        Ok(())
    }

    fn sync_spool(&mut self) -> DiskResult {
        let result = self.folder.sync();
        self.record_failure(result)
    }

    fn journal_path(&mut self) -> PathState {
        self.folder.look_with_lock()
    }

    fn make_home(&mut self) -> Result<(), Obstacle> {
        let result = self.folder.make_home(&self.queue);
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
        let size = self.queue_size().and_then(|size| match &self.inotify {
            // A writer has created the file and will write soon. The size is read again,
            // because a write between the first look and the watch would not be reported.
            Some(inotify) if size == 0 => {
                inotify.watch_writes(self.queue.as_c_str()).and_then(|()| self.queue_size())
            }
            _ => Ok(size),
        });
        match size {
            Ok(1..) => QueueFile::Ready,
            Ok(0) | Err(Failure { errno: Errno::NOENT, .. }) => QueueFile::Nothing,
            Err(failure) => {
                self.failed_op = failure.op.name();
                QueueFile::Unusable(DiskError(failure.errno.raw_os_error()))
            }
        }
    }

    fn claim_queue(&mut self, seq: u64, handle: u8) -> DiskResult {
        let result = self.claim(seq, handle);
        self.record_failure(result)
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
        let result = self.open_claim_file(seq, handle);
        self.record_failure(result)
    }

    fn sync_queue(&mut self) -> DiskResult {
        let result = sync_folder(&self.queue.parent());
        self.record_failure(result)
    }

    fn remove_claim(&mut self, seq: u64, handle: u8) -> DiskResult {
        let result = self.claim_path(seq).and_then(|path| match file::unlink(path.as_c_str()) {
            // Another process has removed it.
            Err(Failure { errno: Errno::NOENT, .. }) => Ok(()),
            result => result,
        });
        self.record_failure(result)?;
        if let Some(slot) = self.claims.get_mut(usize::from(handle)) {
            *slot = None;
        }
        Ok(())
    }
}
