//! The folder of the spool: its descriptor, its lock, and the way back to its path.
//!
//! Every file of the spool is opened, renamed and removed relative to the descriptor, so that
//! the spool stays one folder whatever happens to its path. `state/jobs/home.rs` decides when
//! the folder is made again, `state/spool_path.rs` whether that may be.

use super::identity::look;
use super::trust::{Judge, NewFolder, TrustRefusal};
use crate::state::disk::{Obstacle, PathState};
use crate::state::spool_path::{FolderFacts, PathContent, check_free};
use crate::state::trust::Subject;
use crate::sys::file::{self, Meta, OFlags};
use crate::sys::lock::{AcquireError, PidFile, lock_open_file};
use crate::sys::{Errno, Failure, Op, OwnedFd, at, dir};
use crate::util::path::Path;
use core::ffi::CStr;

/// Permission bits of the files in the spool.
const MODE: u32 = 0o600;

/// The name of the file that becomes the next journal. It is kept because a full disk may have no
/// inode for another one.
const SPARE: &CStr = c"journal.spare";

/// How a journal got its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Published {
    /// The journal replaced the one before.
    Replaced,
    /// The one before has the name `journal.new`.
    Exchanged,
    /// The journal is in another folder than the one before.
    Moved,
}

/// A folder that was made again, and has no journal yet.
struct NewHome {
    fd: OwnedFd,
    /// The lock there. `None` if the held one is there.
    lock: Option<PidFile>,
}

/// Why the folder cannot be made again.
pub enum HomeError {
    /// A system call failed.
    Failed(Failure),
    /// Something is in the way.
    Blocked(Obstacle),
}

impl From<Failure> for HomeError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Obstacle> for HomeError {
    fn from(obstacle: Obstacle) -> Self {
        Self::Blocked(obstacle)
    }
}

/// See the module's documentation.
pub struct SpoolFolder {
    /// The path of the folder.
    pub path: Path,
    journal_path: Path,
    lock_path: Path,
    fd: OwnedFd,
    /// Held until the end, because two instances would ruin the journal. The kernel releases it
    /// when any descriptor of its file is closed.
    lock: Option<PidFile>,
    /// Device and inode of the lock.
    lock_identity: (u64, u64),
    /// The path of the lock leads elsewhere, and the lock cannot be had there.
    lock_lost: bool,
    /// Device and inode of the open journal.
    journal: (u64, u64),
    /// The file [`SPARE`]. It is empty.
    spare: Option<OwnedFd>,
    new_home: Option<NewHome>,
    /// Bytes of the part of the path whose folders existed before the spool was made again.
    /// The names below it are not durable. `None` if all are.
    made_below: Option<usize>,
    /// Bytes of the shortest part of the path whose folder is made again: the folder of `-d` if
    /// the spool is below it, and the spool itself otherwise.
    made_from: usize,
}

/// Returns the path `folder/name`.
///
/// # Errors
/// ENAMETOOLONG.
pub fn entry(folder: &Path, name: &[u8]) -> Result<Path, Failure> {
    folder.join(name).ok_or(Failure { op: Op::Openat, errno: Errno::NAMETOOLONG })
}

/// Opens the folder at `path`, and creates it if it is missing. `trust` does not count here: the
/// folder waits for a restart where only `trust` makes its path usable.
fn open_new(path: &Path) -> Result<OwnedFd, HomeError> {
    let new = NewFolder { mode: 0o700, owner: None };
    match Judge::strict().open_folder(path, Subject::Spool, Some(&new)) {
        Ok(Some(found)) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            at::open(&found.folder, c".", flags, 0).map_err(HomeError::Failed)
        }
        Ok(None) | Err(TrustRefusal::Untrusted(..)) => Err(Obstacle::Untrusted.into()),
        Err(TrustRefusal::Failed(failure)) => Err(failure.into()),
    }
}

impl SpoolFolder {
    /// Opens the folder at `path`, and the journal in it. Creates an empty journal if there is
    /// none. `lock` is the lock of the folder, and `base` the folder of `-d` or empty.
    ///
    /// # Errors
    /// The journal is not a regular file, or cannot be opened.
    pub fn open(path: &Path, base: &Path, lock: PidFile) -> Result<(Self, OwnedFd), Failure> {
        let fd = file::open_linked_dir(path.as_c_str())?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let journal = file::open_at(&fd, c"journal", flags, MODE)?;
        let meta = file::meta(&journal)?;
        if !meta.regular {
            return Err(Failure { op: Op::Openat, errno: Errno::INVAL });
        }
        // It keeps out a second service also after `lock` was removed.
        if let Err(failure) = lock_open_file(&journal) {
            lock.release(entry(path, b"lock")?.as_c_str());
            return Err(failure);
        }
        let below = path.as_bytes().strip_prefix(base.as_bytes());
        let is_below = !base.is_empty() && below.is_some_and(|rest| rest.first() == Some(&b'/'));
        let made_from = if is_below { base } else { path }.as_bytes().len();
        let folder = Self {
            path: path.clone(),
            made_from,
            journal_path: entry(path, b"journal")?,
            lock_path: entry(path, b"lock")?,
            fd,
            lock_identity: lock.identity(),
            lock: Some(lock),
            lock_lost: false,
            journal: meta.identity,
            spare: None,
            new_home: None,
            made_below: None,
        };
        Ok((folder, journal))
    }

    /// Returns the open folder.
    #[must_use]
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Opens the file `name`.
    ///
    /// # Errors
    /// As openat(2) says.
    pub fn open_file(&self, name: &CStr, flags: OFlags) -> Result<OwnedFd, Failure> {
        file::open_at(&self.fd, name, flags | OFlags::NOFOLLOW, MODE)
    }

    /// Renames the file `from` to `to`.
    ///
    /// # Errors
    /// As renameat(2) says.
    pub fn rename(&self, from: &CStr, to: &CStr) -> Result<(), Failure> {
        file::rename_in(&self.fd, from, to)
    }

    /// Returns the folder in which the next journal is written.
    fn next_folder(&self) -> &OwnedFd {
        self.new_home.as_ref().map_or(&self.fd, |home| &home.fd)
    }

    /// Creates `journal.new`, and replaces one that a crash left.
    ///
    /// # Errors
    /// As openat(2) says.
    pub fn create_next(&mut self) -> Result<OwnedFd, Failure> {
        let _ = file::unlink_in(self.next_folder(), c"journal.new");
        let next = match self.take_spare() {
            Some(spare) => spare,
            None => {
                let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
                file::open_at(self.next_folder(), c"journal.new", flags, MODE)?
            }
        };
        let _ = lock_open_file(&next);
        Ok(next)
    }

    /// Gives the spare file the name `journal.new`, if there is one.
    fn take_spare(&mut self) -> Option<OwnedFd> {
        let spare = if self.new_home.is_some() { None } else { self.spare.take() }?;
        let named = file::meta_in(&self.fd, SPARE).ok()?;
        let is_named = file::meta(&spare).ok()?.identity == named.identity;
        (is_named && file::rename_in(&self.fd, SPARE, c"journal.new").is_ok()).then_some(spare)
    }

    /// Keeps `journal.new`, open as `old`, as the spare file, or removes it. It must not be the
    /// journal after a power cut either.
    pub fn retire(&mut self, old: Option<OwnedFd>) {
        self.spare = old.filter(|old| {
            self.new_home.is_none()
                && file::truncate(old, 0).is_ok()
                && file::rename_in(&self.fd, c"journal.new", SPARE).is_ok()
        });
        if self.spare.is_none() {
            let _ = file::unlink_in(self.next_folder(), c"journal.new");
        }
    }

    /// Has a spare file if one can be made. The name of the journal must be durable.
    pub fn ensure_spare(&mut self) {
        if self.spare.is_none() {
            // A crash leaves the journal before the last one under this name.
            let _ = file::unlink_in(&self.fd, c"journal.new");
            self.spare = self.open_spare().ok();
        }
    }

    /// Opens the spare file, and creates it if it is missing.
    fn open_spare(&self) -> Result<OwnedFd, Failure> {
        let spare = self.open_file(SPARE, OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK)?;
        let meta = file::meta(&spare)?;
        if !meta.regular || meta.links > 1 {
            return Err(Failure { op: Op::Openat, errno: Errno::INVAL });
        }
        if meta.size > 0 {
            file::truncate(&spare, 0)?;
        }
        Ok(spare)
    }

    /// Renames `journal.new`, open as `next`, to `journal`. In a folder that was made again this
    /// replaces nothing, and that folder is the spool from now on.
    ///
    /// # Errors
    /// Nothing changed.
    pub fn publish(&mut self, next: &OwnedFd) -> Result<Published, Failure> {
        let journal = file::meta(next)?.identity;
        let published = match &self.new_home {
            Some(home) => {
                file::rename_new_in(&home.fd, c"journal.new", c"journal")?;
                Published::Moved
            }
            None => match file::exchange_between(&self.fd, c"journal.new", &self.fd, c"journal") {
                Ok(()) => Published::Exchanged,
                // The kernel or the filesystem cannot, or the name `journal` is gone.
                Err(_) => {
                    file::rename_in(&self.fd, c"journal.new", c"journal")?;
                    Published::Replaced
                }
            },
        };
        (self.journal, self.lock_lost) = (journal, false);
        if let Some(home) = self.new_home.take() {
            self.fd = home.fd;
            self.spare = None;
            self.take_lock(home.lock);
        }
        Ok(published)
    }

    /// Makes the names in the folder durable, and those of folders that were made again.
    ///
    /// # Errors
    /// They are not.
    pub fn sync(&mut self) -> Result<(), Failure> {
        file::sync_dir(&self.fd)?;
        let Some(existing) = self.made_below else { return Ok(()) };
        let mut folder = self.path.parent();
        loop {
            match file::open_linked_dir(folder.as_c_str()) {
                Ok(fd) => file::sync_dir(&fd)?,
                // A folder that this user may search and not read cannot be synced.
                Err(Failure { errno: Errno::ACCESS, .. }) => {}
                Err(failure) => return Err(failure),
            }
            if folder.as_bytes().len() <= existing {
                break;
            }
            folder = folder.parent();
        }
        self.made_below = None;
        Ok(())
    }

    /// Looks where the path of the journal leads. The path counts as another one while the folder
    /// cannot be locked.
    pub fn look_with_lock(&mut self) -> PathState {
        if self.lock_lost && self.renew_lock().is_err() { PathState::Replaced } else { self.look() }
    }

    /// Looks where the path of the journal leads.
    #[unsafe(link_section = ".text.idle")]
    pub fn look(&self) -> PathState {
        look(&self.journal_path, self.journal, false)
    }

    /// Returns device and inode of the open journal.
    #[must_use]
    pub fn journal_identity(&self) -> (u64, u64) {
        self.journal
    }

    /// Returns true if the path of the lock certainly does not lead to the held lock.
    #[unsafe(link_section = ".text.idle")]
    pub fn is_lock_lost(&self) -> bool {
        look(&self.lock_path, self.lock_identity, false).is_lost()
    }

    /// Releases the lock, at the end of the service.
    pub fn release_lock(&mut self) {
        self.lock = None;
    }

    /// Holds `lock` from now on, if there is one, and releases the lock that was held.
    fn take_lock(&mut self, lock: Option<PidFile>) {
        if let Some(lock) = lock {
            self.lock_identity = lock.identity();
            self.lock = Some(lock);
        }
    }

    /// Locks the file `lock` again, in the folder to which the path leads. The held lock is
    /// released afterwards.
    ///
    /// # Errors
    /// The obstacle; the held lock stays.
    pub fn renew_lock(&mut self) -> Result<(), HomeError> {
        let lock = self.lock_in(&self.fd);
        self.lock_lost = lock.is_err();
        self.take_lock(lock?);
        Ok(())
    }

    /// Locks the file `lock` in `folder`, to which the path leads. Returns `None` if the held
    /// lock is there: to open its file would release it.
    fn lock_in(&self, folder: &OwnedFd) -> Result<Option<PidFile>, HomeError> {
        if file::meta_in(folder, c"lock").is_ok_and(|meta| meta.identity == self.lock_identity) {
            return Ok(None);
        }
        let lock = match PidFile::acquire(&self.lock_path, b"") {
            Ok(lock) => lock,
            Err(AcquireError::Running(_)) => return Err(Obstacle::Locked.into()),
            Err(AcquireError::Failed(failure)) => return Err(failure.into()),
        };
        // The path may lead elsewhere by now.
        let named = file::meta_in(folder, c"lock")?.identity;
        if lock.identity() == named { Ok(Some(lock)) } else { Err(Obstacle::Locked.into()) }
    }

    /// Makes the folder again at its path, and its lock. `queue` is the queue file.
    ///
    /// # Errors
    /// The obstacle; nothing that was there is changed.
    pub fn make_home(&mut self, queue: &Path) -> Result<(), HomeError> {
        self.new_home = None;
        if self.lock_lost && self.look() == PathState::Named {
            // The folder is there, and only its lock cannot be had.
            self.renew_lock()?;
            return Err(Obstacle::Locked.into());
        }
        let open = file::meta(&self.fd)?;
        let trusted = self.is_trusted()?;
        let (existing, parent) = self.find_parent(trusted)?;
        let content = self.find_content(open, trusted, queue)?;
        check_free(open.identity.0, parent, content)?;
        let fd = open_new(&self.path)?;
        if file::meta(&fd)?.identity.0 != open.identity.0 {
            return Err(Obstacle::Filesystem.into());
        }
        let lock = self.lock_in(&fd)?;
        if file::meta_in(&fd, c"journal").is_ok() {
            return Err(Obstacle::Journal.into());
        }
        self.made_below = Some(self.made_below.map_or(existing, |before| before.min(existing)));
        self.new_home = Some(NewHome { fd, lock });
        Ok(())
    }

    /// Returns to the folder of the open journal.
    pub fn leave_home(&mut self) {
        self.new_home = None;
    }

    /// Returns true if each part of the path that exists is trusted.
    fn is_trusted(&self) -> Result<bool, HomeError> {
        match Judge::strict().open_folder(&self.path, Subject::Spool, None) {
            Ok(_) | Err(TrustRefusal::Failed(Failure { errno: Errno::NOTDIR, .. })) => Ok(true),
            Err(TrustRefusal::Untrusted(..)) => Ok(false),
            Err(TrustRefusal::Failed(failure)) => Err(failure.into()),
        }
    }

    /// Returns the nearest folder above the spool that exists, and the length of its path.
    ///
    /// # Errors
    /// A folder is missing that is not made again, or cannot be looked at.
    fn find_parent(&self, trusted: bool) -> Result<(usize, FolderFacts), HomeError> {
        let mut path = self.path.parent();
        loop {
            let length = path.as_bytes().len();
            match file::meta_at(path.as_c_str(), true) {
                Ok(meta) if meta.directory => {
                    return Ok((length, FolderFacts { device: meta.identity.0, trusted }));
                }
                Ok(_) => return Err(Obstacle::NotFolder.into()),
                Err(Failure { errno: Errno::NOENT | Errno::NOTDIR, .. }) if length >= self.made_from => {
                    path = path.parent();
                }
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    /// Returns what is at the path.
    fn find_content(&self, open: Meta, trusted: bool, queue: &Path) -> Result<PathContent, HomeError> {
        let fd = match file::open_linked_dir(self.path.as_c_str()) {
            Ok(fd) => fd,
            Err(Failure { errno: Errno::NOENT, .. }) => {
                let dangling = file::meta_at(self.path.as_c_str(), false).is_ok();
                return Ok(if dangling { PathContent::NotFolder } else { PathContent::Missing });
            }
            Err(Failure { errno: Errno::NOTDIR, .. }) => return Ok(PathContent::NotFolder),
            Err(failure) => return Err(failure.into()),
        };
        let meta = file::meta(&fd)?;
        let queue = if queue.parent() == self.path { queue.name() } else { b"" };
        let (mut journal, mut others) = (false, false);
        dir::each(&fd, &mut |name| match name {
            b"journal" => journal = true,
            b"lock" | b"journal.new" | b"journal.spare" => {}
            _ => {
                let rest = name.strip_prefix(queue).filter(|_| !queue.is_empty());
                others |= !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b".claim-"));
            }
        })?;
        let folder = FolderFacts { device: meta.identity.0, trusted };
        Ok(PathContent::Folder { folder, is_open: meta.identity == open.identity, journal, others })
    }
}
