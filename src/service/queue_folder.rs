//! The folder of the queue file: the queue file, its claims, and their watches.
//!
//! A folder that other users may write to is *shared*. There, an empty successor takes the
//! place of a queue file in the step that claims it, so that writers of several users append
//! to a file that all of them may write. A claim goes to the folder of the spool, where no
//! other user can replace it. On another filesystem it stays in place, and a note in the
//! spool has its device and inode.
//!
//! All work is relative to the descriptor of the folder. If its path leads elsewhere, new
//! claims come from there, and those that are open are read to their ends.

use super::identity::look;
use crate::limits::CLAIMS_MAX;
use crate::proto::crc::crc32;
use crate::proto::filesystem::{Medium, medium};
use crate::state::disk::{Lease, QueueFile};
use crate::sys::file::{Meta, OFlags};
use crate::sys::inotify::Inotify;
use crate::sys::socket::{self, Peer};
use crate::sys::{Errno, Failure, Op, OwnedFd, dir, file, identity, lease};
use crate::util::path::Path;
use crate::util::text::{Writer, parse_u64};
use ufmt::uwrite;

/// Highest number of a claim. A file with a higher number is not treated as a claim, because
/// there must always be a next number.
const CLAIM_SEQ_MAX: u64 = u64::MAX / 2;

/// The error of a name that makes a path too long.
const TOO_LONG: Failure = Failure { op: Op::Openat, errno: Errno::NAMETOOLONG };

/// The file that an operation of the queue failed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueueSubject {
    /// The queue file.
    File,
    /// Its folder.
    Folder,
    /// The lock that keeps a second service from the queue file.
    Lock,
    /// The claim with this number.
    Claim(u64),
}

/// A failure, and the file that it concerns.
pub type QueueFailure = (QueueSubject, Failure);

/// The reason why the lock beside the queue file is not taken.
pub enum LockError {
    /// Another service reads the queue file.
    Held(Option<Peer>),
    /// A system call failed.
    Failed(Failure),
}

/// See the module's documentation.
pub struct QueueFolder {
    queue: Path,
    /// `None` while the path leads nowhere.
    folder: Option<OwnedFd>,
    identity: (u64, u64),
    /// The folder that the path led to before. Claims that are open are in it.
    old_folder: Option<OwnedFd>,
    /// The handles of these claims, as bits.
    old_claims: u32,
    claims: [Option<OwnedFd>; CLAIMS_MAX],
    /// The numbers of these claims, for messages.
    seqs: [u64; CLAIMS_MAX],
    lock: Option<OwnedFd>,
    /// No queue file can be made in the shared folder. Another attempt would only cause an event
    /// of inotify, and then the next attempt.
    cannot_make: bool,
    /// Reports writes to the queue file and to its claims. `None` if the kernel has no
    /// inotify.
    pub inotify: Option<Inotify>,
    /// The last failure of the queue file or its folder, for messages.
    pub file_failure: QueueFailure,
    /// The last failure of a claim, for messages.
    pub claim_failure: QueueFailure,
}

impl QueueFolder {
    /// Opens the folder of `queue`. If there is no inotify, the caller has to check the queue
    /// file regularly.
    #[must_use]
    pub fn open(queue: &Path) -> Self {
        let none = (QueueSubject::Folder, TOO_LONG);
        let mut this = Self {
            queue: queue.clone(),
            folder: None,
            identity: (0, 0),
            old_folder: None,
            old_claims: 0,
            claims: [const { None }; CLAIMS_MAX],
            seqs: [0; CLAIMS_MAX],
            lock: None,
            cannot_make: false,
            inotify: Inotify::new().ok(),
            file_failure: none,
            claim_failure: none,
        };
        let _ = this.reopen();
        this
    }

    /// Changes to another queue file. No claim may be open.
    pub fn set_queue(&mut self, queue: &Path) {
        *self = Self::open(queue);
    }

    /// Returns the path of the queue file, or of its folder.
    #[must_use]
    pub fn path_of(&self, subject: QueueSubject) -> Path {
        match subject {
            QueueSubject::Folder => self.queue.parent(),
            QueueSubject::File | QueueSubject::Lock => self.queue.clone(),
            QueueSubject::Claim(seq) => {
                let mut buffer = [0; 32];
                self.queue.with_suffix(claim_name(b".claim-", seq, &mut buffer)).unwrap_or_default()
            }
        }
    }

    /// Returns true if the path leads to the open folder, as far as is known. If not, closes
    /// the folder, and the next look at the queue file opens the one that is there.
    #[allow(unsafe_code, reason = "names a section")]
    #[unsafe(link_section = ".text.idle")]
    pub fn check(&mut self) -> bool {
        let lost = self.folder.is_none() || look(&self.queue.parent(), self.identity, true).is_lost();
        if lost {
            self.leave();
        }
        !lost
    }

    /// Leaves the open folder. Its open claims are read to their ends. Claims of two folders are
    /// kept apart, not those of three.
    #[inline(never)]
    fn leave(&mut self) {
        let left = self.folder.take();
        self.lock = None;
        if self.old_claims == 0 && left.is_some() {
            self.old_folder = left;
            for (handle, claim) in self.claims.iter().enumerate() {
                self.old_claims |= u32::from(claim.is_some()) << handle;
            }
        }
    }

    /// Opens the folder that the path leads to, and watches it.
    fn reopen(&mut self) -> Result<(), Failure> {
        let folder = file::open_linked_dir(self.queue.parent().as_c_str())?;
        self.identity = file::meta(&folder)?.identity;
        self.folder = Some(folder);
        self.cannot_make = false;
        self.watch();
        Ok(())
    }

    /// Watches the folder of the queue for new names, and the queue file for writes. The
    /// watches of another folder remain, because its claims may be open.
    fn watch(&mut self) {
        let inotify = self.inotify.take().or_else(|| Inotify::new().ok());
        self.inotify = inotify.filter(|inotify| {
            let _ = inotify.watch_writes(self.queue.as_c_str());
            inotify.watch_names(self.queue.parent().as_c_str()).is_ok()
        });
    }

    fn folder(&self) -> Result<&OwnedFd, Failure> {
        self.folder.as_ref().ok_or(Failure { op: Op::Openat, errno: Errno::NOENT })
    }

    fn folder_of(&self, handle: u8) -> Result<&OwnedFd, Failure> {
        match &self.old_folder {
            Some(old) if self.old_claims >> handle & 1 == 1 => Ok(old),
            _ => self.folder(),
        }
    }

    /// Returns the open claim at `handle`.
    ///
    /// # Errors
    /// EBADF if there is none.
    pub fn claim(&self, handle: u8) -> Result<&OwnedFd, Failure> {
        let missing = Failure { op: Op::Open, errno: Errno::BADF };
        self.claims.get(usize::from(handle)).and_then(Option::as_ref).ok_or(missing)
    }

    /// Returns the number of the claim at `handle`.
    #[must_use]
    pub fn seq_at(&self, handle: u8) -> u64 {
        self.seqs.get(usize::from(handle)).copied().unwrap_or(0)
    }

    fn put_claim(&mut self, handle: u8, seq: u64, fd: OwnedFd) {
        self.old_claims &= !(1 << handle);
        if let Some(slot) = self.seqs.get_mut(usize::from(handle)) {
            *slot = seq;
        }
        if let Some(slot) = self.claims.get_mut(usize::from(handle)) {
            *slot = Some(fd);
        }
    }

    /// Calls `visit` with the number of each claim, in the folder and in the spool.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub fn each_claim(&mut self, spool: &OwnedFd, visit: &mut dyn FnMut(u64)) -> Result<(), Failure> {
        if self.folder.is_none() {
            // Claims are found before the queue file is looked at, so nothing else opens it.
            self.reopen()?;
        }
        let name = self.queue.name();
        let mut take = |prefix: &[u8], entry: &[u8]| {
            let seq = entry.strip_prefix(prefix).and_then(parse_u64);
            seq.filter(|seq| *seq <= CLAIM_SEQ_MAX).into_iter().for_each(&mut *visit);
        };
        let folder = self.folder()?;
        dir::rewind(folder);
        dir::each(folder, &mut |entry| take(b".claim-", entry.strip_prefix(name).unwrap_or(b"")))?;
        dir::rewind(spool);
        dir::each(spool, &mut |entry| take(b"claim-", entry))
    }

    // ----- the queue file ---------------------------------------------------

    /// Looks at the queue file. A shared folder without one gets an empty one.
    ///
    /// # Errors
    /// It is not a regular file, cannot be opened, or its folder or its lock is not there.
    pub fn look(&mut self) -> Result<QueueFile, QueueFailure> {
        if self.folder.is_none() {
            self.reopen().map_err(|failure| (QueueSubject::Folder, failure))?;
        }
        if self.lock.is_none()
            && let Err(LockError::Held(_)) = self.take_lock()
        {
            return Err((QueueSubject::Lock, Failure { op: Op::Bind, errno: Errno::ADDRINUSE }));
        }
        let failed = |failure| (QueueSubject::File, failure);
        let mut size = match self.queue_size() {
            Err(Failure { errno: Errno::NOENT, .. }) => self.make_first().map(|()| 0),
            result => result,
        };
        if let (Ok(0), Some(inotify)) = (&size, &self.inotify) {
            // A writer has created the file and will write soon. The size is read again,
            // because a write between the first look and the watch would not be reported.
            size = inotify.watch_writes(self.queue.as_c_str()).and_then(|()| self.queue_size());
        }
        match size {
            Ok(1..) => Ok(QueueFile::Ready),
            Ok(0) | Err(Failure { errno: Errno::NOENT, .. }) => Ok(QueueFile::Nothing),
            Err(failure) => Err(failed(failure)),
        }
    }

    fn queue_size(&self) -> Result<u64, Failure> {
        let mut name = Name::new();
        let fd = open_regular(self.folder()?, name.queue(&self.queue)?)?;
        Ok(file::meta(&fd)?.size)
    }

    /// Makes an empty queue file in a shared folder.
    fn make_first(&mut self) -> Result<(), Failure> {
        let folder = self.folder()?;
        let meta = file::meta(folder)?;
        if is_shared(&meta) && !self.cannot_make {
            let (mut new, mut queue) = (Name::new(), Name::new());
            let (new, queue) = (new.assign(&[self.queue.name(), b".claim-new"])?, queue.queue(&self.queue)?);
            // A crash may have left it.
            let _ = file::unlink_in(folder, new);
            // A writer must not find the file before it is whole, because one that cannot be given
            // to the group is removed.
            let made = make_successor(folder, new, &meta).and_then(|()| {
                let renamed = file::rename_new_in(folder, new, queue);
                if renamed.is_err() {
                    let _ = file::unlink_in(folder, new);
                }
                renamed
            });
            // A folder that refuses it is no error before there are lines.
            self.cannot_make = made.is_err_and(|failure| failure.errno != Errno::EXIST);
        }
        Ok(())
    }

    /// Renames the queue file to claim `seq` and opens it at `handle`.
    ///
    /// # Errors
    /// It was not renamed, or another file was, which is set aside then.
    pub fn claim_queue(&mut self, spool: &OwnedFd, seq: u64, handle: u8) -> Result<(), Failure> {
        self.drain_lock();
        let (mut queue, mut claim) = (Name::new(), Name::new());
        let (queue, claim) = (queue.queue(&self.queue)?, claim.claim(&self.queue, seq)?);
        let folder = self.folder()?;
        // The file is opened before it is renamed, so that a lack of descriptors leaves the
        // queue file in its place. It is also watched before. The watch stays with the file,
        // so that no write is missed.
        let fd = open_regular(folder, queue)?;
        let meta = file::meta(&fd)?;
        if let Some(inotify) = &self.inotify {
            let _ = inotify.watch_writes(self.queue.as_c_str());
        }
        let around = file::meta(folder)?;
        if is_shared(&around) {
            let fd = self.claim_shared(spool, seq, (fd, meta), &around)?;
            self.put_claim(handle, seq, fd);
            return Ok(());
        }
        file::rename_in(folder, queue, claim)?;
        let named = file::meta_in(folder, claim);
        // Another file may have been put at the path between the two calls.
        let other = named.is_ok_and(|named| named.identity != meta.identity);
        let fd = if other { open_regular(folder, claim)? } else { fd };
        self.put_claim(handle, seq, fd);
        Ok(())
    }

    /// Claims the queue file of a shared folder, and leaves an empty one in its place.
    fn claim_shared(
        &self,
        spool: &OwnedFd,
        seq: u64,
        (fd, meta): (OwnedFd, Meta),
        around: &Meta,
    ) -> Result<OwnedFd, Failure> {
        check_links(&meta)?;
        let (mut queue, mut moved, mut claim) = (Name::new(), Name::new(), Name::new());
        let queue = queue.queue(&self.queue)?;
        let (moved, claim) = (moved.spool(b"claim-", seq)?, claim.claim(&self.queue, seq)?);
        let folder = self.folder()?;
        let (place, name) = match replace(folder, queue, spool, moved, around) {
            Ok(()) => (spool, moved),
            Err(Failure { errno: Errno::XDEV, .. }) => {
                write_note(spool, seq, meta.identity)?;
                replace(folder, queue, folder, claim, around)?;
                (folder, claim)
            }
            Err(failure) => return Err(failure),
        };
        let named = file::meta_in(place, name)?;
        if named.identity == meta.identity && named.links == 1 {
            return Ok(fd);
        }
        // Another file was put at the path between the two calls. It is not read.
        let mut aside = Name::new();
        file::rename_between(place, name, spool, aside.spool(b"refused-", seq)?)?;
        Err(Failure { op: Op::Renameat, errno: Errno::MLINK })
    }

    // ----- claims -----------------------------------------------------------

    /// Opens the claim `seq` at `handle`.
    ///
    /// # Errors
    /// It is not there, is not a regular file, or is not the one that was claimed.
    pub fn open_claim(&mut self, spool: &OwnedFd, seq: u64, handle: u8) -> Result<(), Failure> {
        let (mut moved, mut claim) = (Name::new(), Name::new());
        let fd = match open_regular(spool, moved.spool(b"claim-", seq)?) {
            Err(Failure { errno: Errno::NOENT, .. }) => {
                let folder = self.folder()?;
                let fd = open_regular(folder, claim.claim(&self.queue, seq)?)?;
                let meta = file::meta(&fd)?;
                if is_shared(&file::meta(folder)?) {
                    check_links(&meta)?;
                }
                if read_note(spool, seq).is_some_and(|noted| noted != meta.identity) {
                    return Err(Failure { op: Op::Openat, errno: Errno::STALE });
                }
                if let Some(inotify) = &self.inotify {
                    let _ = inotify.watch_writes(self.path_of(QueueSubject::Claim(seq)).as_c_str());
                }
                fd
            }
            result => result?,
        };
        self.put_claim(handle, seq, fd);
        Ok(())
    }

    /// Gives the claim `seq` the number `next`.
    ///
    /// # Errors
    /// It has its old name.
    pub fn rename_claim(&mut self, spool: &OwnedFd, seq: u64, next: u64, handle: u8) -> Result<(), Failure> {
        let (mut from, mut to) = (Name::new(), Name::new());
        match file::rename_in(spool, from.spool(b"claim-", seq)?, to.spool(b"claim-", next)?) {
            Err(Failure { errno: Errno::NOENT, .. }) => {}
            result => return result,
        }
        if let Some(noted) = read_note(spool, seq) {
            write_note(spool, next, noted)?;
            remove_note(spool, seq);
        }
        let folder = self.folder_of(handle)?;
        file::rename_in(folder, from.claim(&self.queue, seq)?, to.claim(&self.queue, next)?)
    }

    /// Makes the names in the folder durable, and those of claims in the spool.
    ///
    /// # Errors
    /// They are not.
    pub fn sync(&self, spool: &OwnedFd) -> Result<(), Failure> {
        let folder = self.folder()?;
        file::sync_dir(folder)?;
        if let Some(old) = self.old_folder.as_ref().filter(|_| self.old_claims > 0) {
            file::sync_dir(old)?;
        }
        if is_shared(&file::meta(folder)?) { file::sync_dir(spool) } else { Ok(()) }
    }

    /// Removes the claim `seq`, open at `handle`, and closes it.
    ///
    /// # Errors
    /// It is still there, and open.
    pub fn remove_claim(&mut self, spool: &OwnedFd, seq: u64, handle: u8) -> Result<(), Failure> {
        let mut name = Name::new();
        let removed = match file::unlink_in(spool, name.spool(b"claim-", seq)?) {
            Err(Failure { errno: Errno::NOENT, .. }) => {
                file::unlink_in(self.folder_of(handle)?, name.claim(&self.queue, seq)?)
            }
            result => result,
        };
        match removed {
            // Another process has removed it.
            Ok(()) | Err(Failure { errno: Errno::NOENT, .. }) => {}
            Err(failure) => return Err(failure),
        }
        remove_note(spool, seq);
        if let Some(slot) = self.claims.get_mut(usize::from(handle)) {
            *slot = None;
        }
        self.old_claims &= !(1 << handle);
        if self.old_claims == 0 {
            self.old_folder = None;
        }
        Ok(())
    }

    /// Asks for a read lease on the claim at `handle`. On a network filesystem there is none,
    /// because a writer may be on another machine.
    pub fn lease_claim(&self, handle: u8) -> Lease {
        let Ok(fd) = self.claim(handle) else { return Lease::Unknown };
        let kind = file::filesystem_kind(fd).unwrap_or(0);
        let device = file::meta(fd).map_or(0, |meta| meta.identity.0);
        if medium(kind, device).0 == Medium::Network {
            return Lease::Unknown;
        }
        match lease::take(fd) {
            Ok(()) => Lease::Held,
            // ENOMEM says nothing about a writer either; it is asked again.
            Err(Errno::AGAIN | Errno::NOMEM | Errno::INTR) => Lease::Writer,
            Err(_) => Lease::Unknown,
        }
    }

    /// Returns true if the lease on the claim at `handle` is held and not being broken.
    pub fn holds_lease(&self, handle: u8) -> bool {
        self.claim(handle).is_ok_and(lease::is_held)
    }

    /// Gives the lease on the claim at `handle` back.
    pub fn release_claim(&self, handle: u8) {
        if let Ok(fd) = self.claim(handle) {
            lease::release(fd);
        }
    }

    // ----- the lock ---------------------------------------------------------

    /// Takes the lock of the queue file, which keeps out a second service with another spool.
    /// It is an abstract socket, because a file would be litter in a folder of others, and
    /// cannot be made in one that is read-only. Its name is the folder's identity and the
    /// name of the queue file. The lock of a process that is neither root's nor the service's
    /// is ignored, and that process is returned.
    ///
    /// # Errors
    /// [`LockError`]. Where a call failed, the queue file is read without the lock.
    pub fn take_lock(&mut self) -> Result<Option<Peer>, LockError> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let owner = file::meta(folder).map_err(LockError::Failed)?.uid;
        let mut buffer = [0; 96];
        let mut out = Writer::new(&mut buffer);
        let (device, inode) = self.identity;
        let _ = uwrite!(out, "@zigsvc-queue-{}-{}-{}", device, inode, crc32(&[self.queue.name()]));
        let Some(address) = Path::new(out.as_bytes()) else { return Ok(None) };
        match socket::listen(&address, 0o600) {
            Ok(lock) => {
                self.lock = Some(lock);
                Ok(None)
            }
            Err(Failure { errno: Errno::ADDRINUSE, .. }) => {
                let holder = socket::connect(&address).and_then(|fd| socket::peer(&fd)).ok();
                let trusted = [0, owner, identity::effective_uid()];
                match holder {
                    Some(peer) if !trusted.contains(&peer.uid) => Ok(Some(peer)),
                    holder => Err(LockError::Held(holder)),
                }
            }
            Err(failure) => Err(LockError::Failed(failure)),
        }
    }

    /// Closes the connections of processes that asked for the holder of the lock.
    fn drain_lock(&self) {
        while let Some(Ok(Some(_))) = self.lock.as_ref().map(socket::accept) {}
    }
}

/// Returns true if users other than the owner of the folder may put files into it, or if its
/// files are those of a group.
fn is_shared(folder: &Meta) -> bool {
    folder.mode & 0o2022 != 0
}

/// Fails if the file has another name: a user who can write to the folder may have given the
/// file of another user this name.
fn check_links(meta: &Meta) -> Result<(), Failure> {
    if meta.links > 1 { Err(Failure { op: Op::Openat, errno: Errno::MLINK }) } else { Ok(()) }
}

/// Opens a regular file in `folder`, never through a symbolic link and never blocking.
fn open_regular(folder: &OwnedFd, name: &core::ffi::CStr) -> Result<OwnedFd, Failure> {
    let fd = file::open_at(folder, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK, 0)?;
    file::check_regular(&fd)?;
    Ok(fd)
}

/// Makes an empty queue file, with the group of the folder, that everyone may write who may
/// write to the folder.
fn make_successor(place: &OwnedFd, name: &core::ffi::CStr, folder: &Meta) -> Result<(), Failure> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let fd = file::open_at(place, name, flags, 0o600)?;
    let mode = if folder.mode & 0o002 != 0 { 0o666 } else { 0o660 };
    let given = identity::chown_group(&fd, folder.gid).and_then(|()| file::set_mode(&fd, mode));
    if given.is_err() {
        let _ = file::unlink_in(place, name);
    }
    given
}

/// Renames the queue file to `name` in `place`, and leaves an empty file in its place: in one
/// step where the kernel can.
fn replace(
    folder: &OwnedFd,
    queue: &core::ffi::CStr,
    place: &OwnedFd,
    name: &core::ffi::CStr,
    around: &Meta,
) -> Result<(), Failure> {
    let exchanged = match make_successor(place, name, around) {
        Ok(()) => {
            let exchanged = file::exchange_between(folder, queue, place, name);
            if exchanged.is_err() {
                let _ = file::unlink_in(place, name);
            }
            exchanged
        }
        // The service may not give a file to the group: there is no successor.
        Err(Failure { op: Op::Fchown, .. }) => {
            return file::rename_between(folder, queue, place, name);
        }
        Err(failure) => Err(failure),
    };
    match exchanged {
        Err(Failure { errno: Errno::NOSYS | Errno::INVAL, .. }) => {
            file::rename_between(folder, queue, place, name)?;
            // A writer may be faster.
            let _ = make_successor(folder, queue, around);
            Ok(())
        }
        result => result,
    }
}

// ----- notes ----------------------------------------------------------------

/// Notes in the spool which file the claim `seq` is that stays in the queue's folder.
fn write_note(spool: &OwnedFd, seq: u64, (device, inode): (u64, u64)) -> Result<(), Failure> {
    let mut name = Name::new();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
    let fd = file::open_at(spool, name.spool(b"note-", seq)?, flags, 0o600)?;
    let mut text = [0; 48];
    let mut out = Writer::new(&mut text);
    let _ = uwrite!(out, "{} {}\n", device, inode);
    file::write_all(&fd, out.as_bytes())?;
    file::sync_data(&fd)
}

/// Returns the device and the inode of a claim that stays in the queue's folder.
fn read_note(spool: &OwnedFd, seq: u64) -> Option<(u64, u64)> {
    let mut name = Name::new();
    let fd = open_regular(spool, name.spool(b"note-", seq).ok()?).ok()?;
    let mut text = [0; 48];
    let count = file::read_at(&fd, &mut text, 0).ok()?;
    let line = text.get(..count)?.strip_suffix(b"\n")?;
    let mut numbers = line.split(|byte| *byte == b' ').filter_map(parse_u64);
    Some((numbers.next()?, numbers.next()?))
}

fn remove_note(spool: &OwnedFd, seq: u64) {
    let mut name = Name::new();
    if let Ok(name) = name.spool(b"note-", seq) {
        let _ = file::unlink_in(spool, name);
    }
}

/// Writes `PREFIX` and the number of a claim.
fn claim_name<'b>(prefix: &[u8], seq: u64, buffer: &'b mut [u8; 32]) -> &'b [u8] {
    let mut out = Writer::new(buffer);
    out.push(prefix);
    let _ = uwrite!(out, "{}", seq);
    let length = out.len();
    buffer.get(..length).unwrap_or(&[])
}

/// A name in the queue's folder or in the spool.
struct Name(Path);

impl Name {
    fn new() -> Self {
        Self(Path::empty())
    }

    /// Returns the name of the queue file.
    fn queue(&mut self, queue: &Path) -> Result<&core::ffi::CStr, Failure> {
        self.assign(&[queue.name()])
    }

    /// Returns the name of a claim beside the queue file.
    fn claim(&mut self, queue: &Path, seq: u64) -> Result<&core::ffi::CStr, Failure> {
        let mut buffer = [0; 32];
        self.assign(&[queue.name(), claim_name(b".claim-", seq, &mut buffer)])
    }

    /// Returns a name in the spool.
    fn spool(&mut self, prefix: &[u8], seq: u64) -> Result<&core::ffi::CStr, Failure> {
        let mut buffer = [0; 32];
        self.assign(&[claim_name(prefix, seq, &mut buffer)])
    }

    fn assign(&mut self, parts: &[&[u8]]) -> Result<&core::ffi::CStr, Failure> {
        if self.0.assign(parts) { Ok(self.0.as_c_str()) } else { Err(TOO_LONG) }
    }
}
