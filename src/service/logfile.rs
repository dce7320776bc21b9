//! The file of a log. Lines are appended, renames rotate it, and it is opened again after it
//! was moved away. The log of a service and `zigsvc log` write through it.
//!
//! This module decides neither if a line is whole nor how a failure of the disk is handled.
//! [`LogFile::write`] returns the number of bytes that were written, and [`LogFile::failure`]
//! the reason why it was not more. `service/log.rs` then counts the lost lines, and
//! `cli/log.rs` makes its writer wait.

use crate::service::trust::judge_log;
use crate::state::rotation::{Rotation, RotationAction};
use crate::state::trust::TrustRule;
use crate::sys::identity::{self, Identity};
use crate::sys::{BorrowedFd, Errno, Failure, Op, OwnedFd, clock, file};
use crate::util::lines::whole_lines;
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};
use ufmt::uwrite;

/// Time until the next attempt after a rotation failed.
pub const ROTATE_RETRY: Duration = Duration::from_ms(5000);

/// The file of a log, and its state.
pub struct LogFile {
    path: Path,
    fd: Option<OwnedFd>,
    identity: (u64, u64),
    size: u64,
    /// True for a regular file. Only those are rotated.
    regular: bool,
    /// The rule that the file must satisfy whenever it is opened.
    rule: Option<TrustRule>,
    max: u64,
    keep: u32,
    /// The time before which no rotation is tried again, because the last one failed.
    rotate_after: Option<Instant>,
    rotate_failure: Option<Failure>,
    /// Rotations that replaced the oldest file that is kept.
    replaced: u64,
    /// The error of the last operation, if it failed.
    failure: Option<Failure>,
}

impl LogFile {
    /// Returns the log at `path`, which is not opened yet. It is full at `max` bytes, or never
    /// with 0, and `keep` old files are kept.
    #[must_use]
    pub fn new(path: &Path, max: u64, keep: u32) -> Self {
        Self {
            path: path.clone(),
            fd: None,
            identity: (0, 0),
            size: 0,
            regular: false,
            rule: None,
            max,
            keep,
            rotate_after: None,
            rotate_failure: None,
            replaced: 0,
            failure: None,
        }
    }

    /// Sets the rule that the file must satisfy whenever it is opened.
    pub fn set_rule(&mut self, rule: Option<TrustRule>) {
        self.rule = rule;
    }

    /// Sets new limits. Returns true if this is the log at `path`. The log of another path is
    /// not changed.
    pub fn configure(&mut self, path: &Path, max: u64, keep: u32) -> bool {
        let same = self.path == *path;
        if same {
            (self.max, self.keep) = (max, keep);
        }
        same
    }

    /// Returns the path of the log.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the reason why the file cannot be written, if the last operation failed.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Returns the reason why the file cannot be rotated, if the last rotation failed.
    #[must_use]
    pub fn rotate_failure(&self) -> Option<Failure> {
        self.rotate_failure
    }

    /// Returns how many rotations have replaced the oldest file that is kept.
    #[must_use]
    pub fn replaced(&self) -> u64 {
        self.replaced
    }

    /// Returns the descriptor, if the file is open. It can be polled for being writable.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(crate::sys::AsFd::as_fd)
    }

    /// Opens the file for appending. Creates it with mode 0640, less the umask, if it does not
    /// exist.
    ///
    /// # Errors
    /// The errors of openat(2): ELOOP for a symbolic link, and ENXIO for a FIFO without a
    /// reader. EMLINK for a file with a second name in a folder in which another user may have
    /// made that name.
    pub fn open(&mut self) -> Result<(), Failure> {
        self.open_with(file::OFlags::empty()).map(drop)
    }

    /// Opens the file as root, for a service that will run as `owner`. Another user may have
    /// created the file before. Therefore only a file that this call creates is given to
    /// `owner`, and a file with a second name is not written.
    ///
    /// # Errors
    /// The errors of [`LogFile::open`]. EMLINK for a file with a second name in any folder.
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

    /// Opens the file with additional flags. Returns the number of its names.
    fn open_with(&mut self, more: file::OFlags) -> Result<u32, Failure> {
        let flags = more
            | file::OFlags::WRONLY
            | file::OFlags::APPEND
            | file::OFlags::CREATE
            | file::OFlags::NOFOLLOW
            | file::OFlags::NONBLOCK;
        let judge = |meta| self.rule.as_ref().map_or(Ok(()), |rule| judge_log(rule, meta));
        let result = file::open(self.path.as_c_str(), flags, 0o640).and_then(|fd| {
            let meta = file::meta(&fd)?;
            judge(meta).map(|()| (meta, fd))
        });
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
                // If descriptors are lacking, the old file stays open, because lines in it are
                // better than none. After any other error it is closed, because it is not at
                // the path of the log any more.
                if !matches!(failure.errno, Errno::MFILE | Errno::NFILE) {
                    self.fd = None;
                }
                self.failure = Some(failure);
                Err(failure)
            }
        }
    }

    /// Returns true if the path does not name the open file any more. If the path cannot be
    /// examined (EIO, ENOMEM), the open file counts as the log.
    fn is_moved(&mut self) -> bool {
        match file::meta_at(self.path.as_c_str(), false) {
            Ok(meta) if meta.identity == self.identity && self.fd.is_some() => {
                // The file may have been truncated since.
                self.size = meta.size;
                false
            }
            Err(Failure { errno: Errno::IO | Errno::NOMEM, .. }) => self.fd.is_none(),
            _ => true,
        }
    }

    /// Opens the file that the path names, if that is not open already. Returns true if
    /// another file was opened.
    pub fn follow(&mut self) -> bool {
        self.is_moved() && self.open().is_ok()
    }

    /// Returns true if the file ends inside a line. Returns false if its last byte cannot be
    /// read.
    #[must_use]
    pub fn ends_in_a_line(&self) -> bool {
        let Some(last) = self.size.checked_sub(1).filter(|_| self.regular) else { return false };
        let mut byte = *b"\n";
        if let Ok((fd, _)) = file::open_regular(self.path.as_c_str()) {
            let _ = file::read_at(&fd, &mut byte, last);
        }
        byte != *b"\n"
    }

    /// Returns the size of the file in bytes, as far as it is known.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the size in bytes that the file should not exceed. Returns 0 if the file is
    /// never rotated, or cannot be rotated at the moment.
    #[must_use]
    pub fn limit(&self) -> u64 {
        let may_rotate = self.regular && self.rotate_after.is_none_or(|at| at.is_due(clock::now()));
        if may_rotate { self.max } else { 0 }
    }

    /// Writes until all bytes are written or an error occurs. Returns the number of bytes that
    /// were written. After an error, the written part of the last line is removed from the
    /// file again, if that is possible.
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

    /// Opens the file again if it was moved away, and rotates it otherwise. Returns true if it
    /// was rotated. After a failure, [`LogFile::limit`] is 0 for [`ROTATE_RETRY`], so that
    /// callers which respect the limit do not try again earlier.
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

    /// Performs all steps of a rotation.
    fn move_away(&mut self) -> Result<(), Failure> {
        let mut rotation = Rotation::new(self.keep);
        let mut replaces = false;
        loop {
            match rotation.next_action() {
                RotationAction::Look(number) => {
                    let path = self.numbered(number)?;
                    match file::meta_at(path.as_c_str(), false) {
                        Ok(_) => {
                            replaces = number >= self.keep;
                            rotation.found(true);
                        }
                        Err(Failure { errno: Errno::NOENT, .. }) => rotation.found(false),
                        // If it exists all the same, the rename would replace it.
                        Err(failure) => return Err(failure),
                    }
                }
                RotationAction::Rename(number) => {
                    let (from, to) = (self.numbered(number)?, self.numbered(number.saturating_add(1))?);
                    file::rename(from.as_c_str(), to.as_c_str())?;
                    rotation.renamed();
                    self.replaced = self.replaced.saturating_add(u64::from(core::mem::take(&mut replaces)));
                }
                RotationAction::Reopen => {
                    // The next write finds out if this failed.
                    let _ = self.open();
                    return Ok(());
                }
            }
        }
    }

    /// Returns the path `log.N`, or that of the log itself for 0.
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

/// Removes the last `count` bytes of the file. It uses the present size, because the file may
/// have been truncated since, and must not get a hole.
fn take_back(fd: &OwnedFd, count: usize) -> Result<(), Failure> {
    let size = file::meta(fd)?.size;
    file::truncate(fd, size.saturating_sub(count as u64))
}
