//! The disk that `state::spool` works on: the journal in the folder of the spool, and the
//! queue file and its claims in their folder.

use crate::limits::{CLAIMS_MAX, REJECTED_MAX_BYTES};
use crate::state::disk::{Disk, DiskError, DiskResult, QueueFile, SpoolFile};
use crate::sys::file::OFlags;
use crate::sys::inotify::Inotify;
use crate::sys::{Errno, Failure, Op, OwnedFd, describe_errno, dir, file};
use crate::util::path::Path;
use crate::util::text::{Writer, parse_u64};
use ufmt::uwrite;

/// Highest number of a claim. A file with a higher number is not treated as a claim, because
/// there must always be a next number.
const CLAIM_SEQ_MAX: u64 = u64::MAX / 2;
/// Maximum number of files `journal.bad-N`. Further damage is appended to the last one.
const BAD_FILES_MAX: u32 = 99;

/// The open files of a spool and of its queue.
pub struct SpoolDisk {
    spool: Path,
    queue: Path,
    journal: OwnedFd,
    next: Option<OwnedFd>,
    claims: [Option<OwnedFd>; CLAIMS_MAX],
    quarantine: Option<OwnedFd>,
    /// Reports writes to the queue file and to its claims. `None` if the kernel has no
    /// inotify.
    pub inotify: Option<Inotify>,
    /// The name of the system call that failed last, for messages.
    pub failed_op: &'static str,
}

impl SpoolDisk {
    /// Opens the journal in the folder `spool`. Creates an empty one if there is none. If
    /// there is no inotify, the caller has to check the queue file regularly.
    ///
    /// # Errors
    /// The journal is not a regular file, or cannot be opened.
    pub fn open(spool: &Path, queue: &Path) -> Result<Self, Failure> {
        let path = entry(spool, b"journal")?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let journal = file::open(path.as_c_str(), flags, 0o600)?;
        if !file::meta(&journal)?.regular {
            return Err(Failure { op: Op::Openat, errno: Errno::INVAL });
        }
        let mut disk = Self {
            spool: spool.clone(),
            queue: queue.clone(),
            journal,
            next: None,
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
        let path = entry(&self.spool, b"rejected")?;
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mut fd = file::open(path.as_c_str(), flags, 0o600)?;
        if file::meta(&fd)?.size >= REJECTED_MAX_BYTES {
            file::rename(path.as_c_str(), entry(&self.spool, b"rejected.1")?.as_c_str())?;
            fd = file::open(path.as_c_str(), flags, 0o600)?;
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
            let path = entry(&self.spool, out.as_bytes())?;
            let kind = if number < BAD_FILES_MAX { OFlags::EXCL } else { OFlags::APPEND };
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | kind;
            match file::open(path.as_c_str(), flags, 0o600) {
                Err(Failure { errno: Errno::EXIST, .. }) => number = number.saturating_add(1),
                result => return result,
            }
        }
    }
}

/// The error of a name that makes a path too long.
const TOO_LONG: Failure = Failure { op: Op::Openat, errno: Errno::NAMETOOLONG };

/// Returns the path `folder/name`.
fn entry(folder: &Path, name: &[u8]) -> Result<Path, Failure> {
    folder.join(name).ok_or(TOO_LONG)
}

/// Syncs the folder, so that the names in it are durable.
fn sync_folder(folder: &Path) -> Result<(), Failure> {
    file::open_linked_dir(folder.as_c_str()).and_then(|fd| file::sync_dir(&fd))
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
        let result = entry(&self.spool, b"journal.new").and_then(|path| {
            let _ = file::unlink(path.as_c_str());
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            file::open(path.as_c_str(), flags, 0o600)
        });
        self.next = Some(self.record_failure(result)?);
        Ok(())
    }

    fn abandon_next(&mut self) {
        self.next = None;
        if let Ok(path) = entry(&self.spool, b"journal.new") {
            let _ = file::unlink(path.as_c_str());
        }
    }

    fn publish_next(&mut self) -> DiskResult {
        let result = entry(&self.spool, b"journal.new").and_then(|from| {
            let to = entry(&self.spool, b"journal")?;
            file::rename(from.as_c_str(), to.as_c_str())
        });
        self.record_failure(result)?;
        if let Some(next) = self.next.take() {
            self.journal = next;
        }
        Ok(())
    }

    fn sync_spool(&mut self) -> DiskResult {
        let result = sync_folder(&self.spool);
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
