//! The file of a log: appended to, rotated by renames, opened again when it was
//! moved away. The log of a service and `zigsvc log` write through it.
//!
//! It decides neither when a line is whole nor what follows when the disk fails:
//! [`LogFile::write`] returns how many bytes were taken, and [`LogFile::failure`] why not
//! more. Then `service/log.rs` counts lines as lost, and `cli/log.rs` makes the writer wait.

use crate::limits::ROTATE_RETRY;
use crate::state::rotation::{Rotation, RotationAction};
use crate::sys::identity::{self, Identity};
use crate::sys::{BorrowedFd, Errno, Failure, Op, OwnedFd, clock, file};
use crate::util::lines::whole_lines;
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::Instant;
use ufmt::uwrite;

/// The file and what is known of it.
pub struct LogFile {
    path: Path,
    fd: Option<OwnedFd>,
    identity: (u64, u64),
    size: u64,
    /// The file is a regular one. Only those are rotated.
    regular: bool,
    max: u64,
    keep: u32,
    /// After a failed rotation, no rotation is tried before this time.
    rotate_after: Option<Instant>,
    rotate_failure: Option<Failure>,
    /// The last error.
    failure: Option<Failure>,
}

impl LogFile {
    /// Returns the file at `path`, not opened yet. It is full at `max` bytes, or never if that is
    /// 0, and `keep` old files are kept.
    #[must_use]
    pub fn new(path: &Path, max: u64, keep: u32) -> Self {
        Self {
            path: path.clone(),
            fd: None,
            identity: (0, 0),
            size: 0,
            regular: false,
            max,
            keep,
            rotate_after: None,
            rotate_failure: None,
            failure: None,
        }
    }

    /// Sets new limits. Returns true if this is the file at `path`, and does nothing otherwise.
    pub fn configure(&mut self, path: &Path, max: u64, keep: u32) -> bool {
        let same = self.path == *path;
        if same {
            (self.max, self.keep) = (max, keep);
        }
        same
    }

    /// Returns the path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the reason why the file cannot be written at the moment, if it cannot.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Returns the reason why the file cannot be rotated at the moment, if it cannot.
    #[must_use]
    pub fn rotate_failure(&self) -> Option<Failure> {
        self.rotate_failure
    }

    /// Returns the descriptor, if the file is open, to wait until it takes more.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(crate::sys::AsFd::as_fd)
    }

    /// Opens the path for appending, creating it with mode 0640 less the umask.
    ///
    /// # Errors
    /// As openat(2) says; ELOOP for a symbolic link; EMLINK for a file with a second name
    /// in a folder where another user may have given it that.
    pub fn open(&mut self) -> Result<(), Failure> {
        self.open_with(file::OFlags::empty()).map(drop)
    }

    /// Opens the file as root for a service that will be `owner`. Another user may have
    /// planted it, so only a file that is made here is given away, and a file with a second
    /// name is not written.
    ///
    /// # Errors
    /// Those of [`LogFile::open`], and EMLINK for a file with a second name.
    pub fn open_for(&mut self, owner: &Identity) -> Result<(), Failure> {
        match self.open_with(file::OFlags::EXCL) {
            Ok(_) => self.fd.as_ref().map_or(Ok(()), |fd| identity::chown(fd, owner)),
            Err(Failure { errno: Errno::EXIST, .. }) => {
                let links = self.open_with(file::OFlags::empty())?;
                if links > 1 {
                    self.fd = None;
                    let failure = Failure { op: Op::Openat, errno: Errno::MLINK };
                    self.failure = Some(failure);
                    return Err(failure);
                }
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Opens the file with more flags than [`LogFile::open`]. Returns the number of its names.
    fn open_with(&mut self, more: file::OFlags) -> Result<u32, Failure> {
        let flags = more
            | file::OFlags::WRONLY
            | file::OFlags::APPEND
            | file::OFlags::CREATE
            | file::OFlags::NOFOLLOW
            | file::OFlags::NONBLOCK;
        let result = file::open(self.path.as_c_str(), flags, 0o640).and_then(|fd| Ok((file::meta(&fd)?, fd)));
        let planted = |meta: file::Meta| meta.regular && meta.links > 1 && file::is_untrusted_dir(&self.path);
        match result {
            Ok((meta, _)) if planted(meta) => {
                let failure = Failure { op: Op::Openat, errno: Errno::MLINK };
                (self.fd, self.failure) = (None, Some(failure));
                Err(failure)
            }
            Ok((meta, fd)) => {
                self.identity = meta.identity;
                self.size = meta.size;
                self.regular = meta.regular;
                self.fd = Some(fd);
                self.failure = None;
                (self.rotate_after, self.rotate_failure) = (None, None);
                Ok(meta.links)
            }
            Err(failure) => {
                // Without descriptors the old file is better than none. In all other cases no
                // reader would look for it.
                if !matches!(failure.errno, Errno::MFILE | Errno::NFILE) {
                    self.fd = None;
                }
                self.failure = Some(failure);
                Err(failure)
            }
        }
    }

    /// Returns true if the path no longer names the open file. If that cannot be found out, the
    /// open file is the log.
    fn is_moved(&mut self) -> bool {
        match file::meta_at(self.path.as_c_str(), false) {
            Ok(meta) if meta.identity == self.identity && self.fd.is_some() => {
                // Another process may have emptied it.
                self.size = meta.size;
                false
            }
            Err(Failure { errno: Errno::IO | Errno::NOMEM, .. }) => self.fd.is_none(),
            _ => true,
        }
    }

    /// Opens the file that the path names if the open one was moved away. Returns true if it is
    /// another file then.
    pub fn follow(&mut self) -> bool {
        self.is_moved() && self.open().is_ok()
    }

    /// Returns true if the file ends in the middle of a line, as far as it can be read.
    #[must_use]
    pub fn ends_in_a_line(&self) -> bool {
        let Some(last) = self.size.checked_sub(1).filter(|_| self.regular) else { return false };
        let mut byte = *b"\n";
        if let Ok((fd, _)) = file::open_regular(self.path.as_c_str()) {
            let _ = file::read_at(&fd, &mut byte, last);
        }
        byte != *b"\n"
    }

    /// Returns the size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the size that the file should not pass. Returns 0 if it cannot be rotated now, or
    /// never is.
    #[must_use]
    pub fn limit(&self) -> u64 {
        let may_rotate = self.regular && self.rotate_after.is_none_or(|at| at.is_due(clock::now()));
        if may_rotate { self.max } else { 0 }
    }

    /// Writes until all bytes are taken or the disk fails. Returns the number of bytes taken. On
    /// failure the begin of the last line is removed again, unless that fails as well.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let Some(fd) = &self.fd else { return 0 };
        let mut done = 0;
        self.failure = None;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match file::write_some(fd, rest) {
                Ok(count) => done = done.saturating_add(count),
                Err(failure) => {
                    self.failure = Some(failure);
                    let half = done.saturating_sub(bytes.get(..done).map_or(0, whole_lines));
                    if half > 0 && self.regular && take_back(fd, half).is_ok() {
                        done = done.saturating_sub(half);
                    }
                    break;
                }
            }
        }
        self.size = self.size.saturating_add(done as u64);
        done
    }

    /// Opens the file again if it was moved away, and rotates it otherwise. Returns true if it was
    /// rotated. After a failure [`LogFile::limit`] returns 0 for [`ROTATE_RETRY`].
    pub fn rotate(&mut self) -> bool {
        // A device or a FIFO is not renamed.
        let moves = !self.is_moved() && self.regular;
        let result = if moves { self.move_away() } else { self.open() };
        if result.is_err() {
            self.rotate_after = Some(clock::now() + ROTATE_RETRY);
            self.rotate_failure = result.err().filter(|_| moves);
        }
        moves && result.is_ok()
    }

    /// Goes through all steps of a rotation.
    fn move_away(&mut self) -> Result<(), Failure> {
        let mut rotation = Rotation::new(self.keep);
        loop {
            match rotation.next_action() {
                RotationAction::Look(number) => {
                    let path = self.numbered(number)?;
                    match file::meta_at(path.as_c_str(), false) {
                        Ok(_) => rotation.found(true),
                        Err(Failure { errno: Errno::NOENT, .. }) => rotation.found(false),
                        // A file that exists would be replaced.
                        Err(failure) => return Err(failure),
                    }
                }
                RotationAction::Rename(number) => {
                    let (from, to) = (self.numbered(number)?, self.numbered(number.saturating_add(1))?);
                    file::rename(from.as_c_str(), to.as_c_str())?;
                    rotation.renamed();
                }
                RotationAction::Reopen => {
                    // A failure is kept in the file, and the next write tries again.
                    let _ = self.open();
                    return Ok(());
                }
            }
        }
    }

    /// Returns the path of `log.N`, or of the log for 0.
    fn numbered(&self, number: u32) -> Result<Path, Failure> {
        if number == 0 {
            return Ok(self.path.clone());
        }
        let mut suffix = [0; 12];
        let mut out = Writer::new(&mut suffix);
        let _ = uwrite!(out, ".{}", number);
        self.path.with_suffix(out.as_bytes()).ok_or(Failure { op: Op::Renameat, errno: Errno::NAMETOOLONG })
    }
}

/// Removes the last `count` bytes. They are counted from the present size, because a file that
/// was emptied meanwhile must not get a hole.
fn take_back(fd: &OwnedFd, count: usize) -> Result<(), Failure> {
    let size = file::meta(fd)?.size;
    file::truncate(fd, size.saturating_sub(count as u64))
}
