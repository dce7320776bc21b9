//! poll(2) over a set that is built again for each turn of a loop, because the watched
//! descriptors follow from live state.

use super::{AsFd, BorrowedFd, Errno, OwnedFd};
use crate::limits::POLL_MAX;
use crate::util::time::Duration;
use heapless::Vec;
use rustix::event::{PollFd, PollFlags, Timespec};

/// The condition for which a descriptor is watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    /// Something can be read.
    Input,
    /// Something can be written.
    Output,
    /// Either.
    Both,
    /// Only that the other end is gone.
    End,
}

impl Interest {
    fn flags(self) -> PollFlags {
        match self {
            Self::Input => PollFlags::IN,
            Self::Output => PollFlags::OUT,
            Self::Both => PollFlags::IN | PollFlags::OUT,
            Self::End => PollFlags::empty(),
        }
    }
}

/// The descriptors to watch in one turn, each with a tag of the caller's.
pub struct PollSet<'fd, T> {
    fds: Vec<PollFd<'fd>, POLL_MAX>,
    tags: Vec<T, POLL_MAX>,
}

impl<'fd, T: Copy> PollSet<'fd, T> {
    /// Creates an empty set.
    #[must_use]
    pub fn new() -> Self {
        Self { fds: Vec::new(), tags: Vec::new() }
    }

    /// Watches `fd` for input.
    #[unsafe(link_section = ".text.idle")]
    pub fn read(&mut self, fd: &'fd OwnedFd, tag: T) {
        self.watch(fd.as_fd(), Interest::Input, tag);
    }

    /// Watches `fd`. Hang-ups and errors are reported whatever the interest.
    /// `POLL_MAX` covers everything that a service can hold, so nothing is ever
    /// left out.
    #[unsafe(link_section = ".text.idle")]
    pub fn watch(&mut self, fd: BorrowedFd<'fd>, interest: Interest, tag: T) {
        if self.fds.push(PollFd::from_borrowed_fd(fd, interest.flags())).is_ok() {
            let _ = self.tags.push(tag);
        }
    }

    /// Waits until a descriptor is ready or `timeout` has passed (poll(2)); `None`
    /// waits for ever. After an interruption no descriptor is ready.
    #[unsafe(link_section = ".text.idle")]
    pub fn wait(&mut self, timeout: Option<Duration>) {
        wait(&mut self.fds, timeout);
    }

    /// Returns the tags of the descriptors that are ready, hang-ups and errors included, in
    /// the order in which they were added.
    pub fn ready(&self) -> impl Iterator<Item = T> {
        self.fds.iter().zip(&self.tags).filter(|(fd, _)| !fd.revents().is_empty()).map(|(_, tag)| *tag)
    }
}

impl<T: Copy> Default for PollSet<'_, T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Waits until one of `fds` is ready or `timeout` has passed (poll(2)).
#[inline(never)]
#[expect(unsafe_code, reason = "names a section")]
#[unsafe(link_section = ".text.idle")]
fn wait(fds: &mut [PollFd<'_>], timeout: Option<Duration>) {
    let timeout = timeout.map(|span| Timespec {
        tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(span.as_ms() % 1000).unwrap_or(0).wrapping_mul(1_000_000) as _,
    });
    if rustix::event::poll(fds, timeout.as_ref()).is_err() {
        fds.iter_mut().for_each(PollFd::clear_revents);
    }
}

/// Returns true if `fd` takes at least one page now without blocking (poll(2), pipe(7)). A pipe
/// whose reader is gone takes nothing.
#[must_use]
pub fn writable(fd: BorrowedFd<'_>) -> bool {
    let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
    loop {
        match rustix::event::poll(&mut fds, Some(&zero)) {
            Ok(1) => return fds[0].revents() & (PollFlags::OUT | PollFlags::ERR) == PollFlags::OUT,
            // A pending signal interrupts the call even if it has nothing to wait for.
            Err(Errno::INTR) => {}
            _ => return false,
        }
    }
}

/// Waits until `first` has input, or `second` is ready, or `timeout_us` microseconds have
/// passed (poll(2)); `None` waits for ever. Returns which of the two are ready. After an
/// interruption neither is.
pub fn either(
    first: &OwnedFd,
    second: Option<(BorrowedFd<'_>, Interest)>,
    timeout_us: Option<u64>,
) -> (bool, bool) {
    let timeout = timeout_us.map(|us| Timespec {
        tv_sec: i64::try_from(us / 1_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(us % 1_000_000).unwrap_or(0).wrapping_mul(1000) as _,
    });
    let (other, interest) = second.unwrap_or((first.as_fd(), Interest::Input));
    let mut fds = [
        PollFd::from_borrowed_fd(first.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(other, interest.flags()),
    ];
    let count = if second.is_some() { 2 } else { 1 };
    let watched = fds.get_mut(..count).unwrap_or_default();
    match rustix::event::poll(watched, timeout.as_ref()) {
        Ok(_) => (!fds[0].revents().is_empty(), !fds[1].revents().is_empty()),
        Err(_) => (false, false),
    }
}

/// Waits until `fd` is readable or `timeout` has passed (poll(2)). Returns true if it is
/// readable.
#[must_use]
pub fn readable_within(fd: &OwnedFd, timeout: Duration) -> bool {
    let mut set = PollSet::new();
    set.read(fd, ());
    set.wait(Some(timeout));
    set.ready().next().is_some()
}

/// Waits for `span`, or less if a signal comes (poll(2)).
pub fn sleep(span: Duration) {
    PollSet::<()>::new().wait(Some(span));
}
