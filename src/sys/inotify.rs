//! inotify(7): learning that the queue file was written without looking.

use super::{Errno, Failure, Op, OwnedFd, WithOp};
use core::ffi::CStr;
use core::mem::MaybeUninit;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

/// A set of watches.
pub struct Inotify {
    fd: OwnedFd,
}

/// The kinds of change that a burst of events reported.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Changes {
    /// A name appeared in a watched directory, or events were lost.
    pub names: bool,
    /// A watched file was written, or events were lost.
    pub writes: bool,
}

impl Inotify {
    /// Creates an empty set.
    ///
    /// # Errors
    /// ENOSYS where the kernel was built without it; EMFILE at the user's limit.
    pub fn new() -> Result<Self, Failure> {
        let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).op(Op::InotifyInit1)?;
        Ok(Self { fd })
    }

    /// Returns the descriptor, to be polled for input.
    #[must_use]
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Watches a directory for names that appear.
    ///
    /// # Errors
    /// As inotify_add_watch(2) says.
    pub fn watch_names(&self, dir: &CStr) -> Result<(), Failure> {
        self.watch(dir, WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::ONLYDIR)
    }

    /// Watches a file for writes. The watch follows the file when it is
    /// renamed and ends when it is deleted.
    ///
    /// # Errors
    /// As inotify_add_watch(2) says.
    pub fn watch_writes(&self, file: &CStr) -> Result<(), Failure> {
        self.watch(file, WatchFlags::MODIFY | WatchFlags::DONT_FOLLOW)
    }

    fn watch(&self, path: &CStr, flags: WatchFlags) -> Result<(), Failure> {
        inotify::add_watch(&self.fd, path, flags).op(Op::InotifyAddWatch).map(drop)
    }

    /// Takes the events of one full buffer (read(2)). Events that remain wake the next poll.
    #[must_use]
    pub fn take(&self) -> Changes {
        let mut changes = Changes::default();
        let mut buffer = [MaybeUninit::uninit(); 1024];
        let mut events = inotify::Reader::new(&self.fd, &mut buffer);
        loop {
            match events.next() {
                Ok(event) => {
                    let lost = event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                    changes.names |=
                        lost || event.events().intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
                    changes.writes |= lost || event.events().contains(ReadFlags::MODIFY);
                }
                Err(Errno::INTR) => continue,
                Err(_) => return changes,
            }
            if events.is_buffer_empty() {
                return changes;
            }
        }
    }
}
