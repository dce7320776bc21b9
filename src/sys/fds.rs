//! Descriptors as a table: the three standard ones, and those inherited from the process
//! that started this one.
#![expect(unsafe_code, reason = "works on raw descriptor numbers")]

use super::{Failure, Op, OwnedFd, WithOp, arch, file};
use linux_raw_sys::ioctl::{TCGETS, TIOCGWINSZ};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd};
use rustix::fs::OFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// With neither close_range(2) nor /proc, descriptors up to here are closed
/// one by one; more would take seconds where the limit is a million.
const BLIND_CLOSE_MAX: u64 = 65_536;

/// Borrows descriptor `number` for one call.
///
/// The number must be open; on one that is not the call says EBADF.
#[must_use]
pub fn borrow(number: i32) -> BorrowedFd<'static> {
    // SAFETY: used for one system call at a time on numbers that the caller
    // knows to be open; -1 is never passed.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Returns true if descriptor `number` is a terminal (ioctl(2), `TCGETS`).
#[must_use]
pub fn is_terminal(number: i32) -> bool {
    // The kernel's struct termios has 36 bytes on x86, ARM and RISC-V.
    type TerminalQuery = rustix::ioctl::Getter<TCGETS, [u32; 16]>;
    // SAFETY: the kernel writes at most the 64 bytes that it is given.
    unsafe { rustix::ioctl::ioctl(borrow(number), TerminalQuery::new()) }.is_ok()
}

/// Returns the columns of the terminal that the descriptor is; a serial console has 0.
#[must_use]
pub fn terminal_columns(number: i32) -> Option<u16> {
    type SizeQuery = rustix::ioctl::Getter<TIOCGWINSZ, [u16; 4]>;
    // SAFETY: the kernel writes a struct winsize, which is these four numbers.
    let size = unsafe { rustix::ioctl::ioctl(borrow(number), SizeQuery::new()) };
    size.ok().map(|[_, columns, ..]| columns)
}

/// Opens /dev/null on each of 0, 1 and 2 that is closed, so that no file opened later
/// becomes a standard output. On 1 it is opened for reading, because a command whose output
/// goes nowhere must not report success.
///
/// # Errors
/// /dev/null cannot be opened.
pub fn sanitize_stdio() -> Result<(), Failure> {
    for number in 0..3 {
        if rustix::io::fcntl_getfd(borrow(number)).is_err() {
            // The lowest free number is the missing one.
            let fd = match number {
                1 => file::open(c"/dev/null", OFlags::RDONLY, 0)?,
                _ => open_null()?,
            };
            rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).op(Op::Fcntl)?;
            let _ = fd.into_raw_fd();
        }
    }
    Ok(())
}

/// Puts /dev/null on the standard descriptors from `first` to `last`.
///
/// # Errors
/// /dev/null cannot be opened.
pub fn nullify(first: i32, last: i32) -> Result<(), Failure> {
    let null = open_null()?;
    for number in first..=last {
        replace(null.as_fd(), number)?;
    }
    Ok(())
}

/// Makes `number` another name of `fd`, not close-on-exec (dup2(2)). A descriptor that has this
/// number already is closed.
///
/// # Errors
/// As the call says.
pub fn replace(fd: BorrowedFd<'_>, number: i32) -> Result<(), Failure> {
    if fd.as_raw_fd() == number {
        return rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).op(Op::Fcntl);
    }
    // SAFETY: `number` is a standard descriptor, which is always open, or one that a child between
    // clone and exec does not use. The temporary owner is given up again, so nothing is closed.
    let mut target = unsafe { OwnedFd::from_raw_fd(number) };
    let result = rustix::io::dup2(fd, &mut target).op(Op::Dup2);
    let _ = target.into_raw_fd();
    result
}

/// Creates a pipe and returns its read end and its write end, close-on-exec (pipe2(2)).
///
/// # Errors
/// EMFILE, ENFILE.
pub fn pipe() -> Result<(OwnedFd, OwnedFd), Failure> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).op(Op::Pipe2)
}

/// Makes reads of `fd` fail with EAGAIN instead of waiting (fcntl(2), `O_NONBLOCK`).
///
/// # Errors
/// As the call says.
pub fn set_nonblocking(fd: &OwnedFd) -> Result<(), Failure> {
    rustix::fs::fcntl_setfl(fd, OFlags::NONBLOCK).op(Op::Fcntl)
}

/// Returns another descriptor of the same open file, close-on-exec (fcntl(2),
/// `F_DUPFD_CLOEXEC`).
///
/// # Errors
/// EMFILE.
pub fn duplicate(fd: &OwnedFd) -> Result<OwnedFd, Failure> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3).op(Op::Fcntl)
}

/// Takes ownership of an inherited descriptor that the user named, and makes
/// it close-on-exec. `None` if it is not open or is a standard one.
#[must_use]
pub fn adopt(number: i32) -> Option<OwnedFd> {
    if number < 3 || rustix::io::fcntl_getfd(borrow(number)).is_err() {
        return None;
    }
    // SAFETY: the descriptor is open, and nothing else in this program uses it.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    let _ = rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC);
    Some(fd)
}

/// Closes every inherited descriptor above 2 except `keep`. To be called
/// before anything else is opened.
pub fn close_inherited(keep: &[&OwnedFd]) {
    let kept = |number: i32| keep.iter().any(|fd| fd.as_raw_fd() == number);
    let highest = keep.iter().map(|fd| fd.as_raw_fd()).max().unwrap_or(2);
    let mut low = 3;
    while low <= highest {
        if !kept(low) {
            close(low);
        }
        low = low.saturating_add(1);
    }
    let above = u32::try_from(highest).unwrap_or(2).saturating_add(1);
    if !arch::close_range(above, u32::MAX) {
        close_above(highest);
    }
}

/// Closes what is open above `highest` on kernels without close_range(2):
/// the numbers that /proc lists, or else all up to the limit.
fn close_above(highest: i32) {
    // Each pass may skip entries because the directory changes below it.
    if let Ok(dir) = file::open_dir(c"/proc/self/fd") {
        let own = dir.as_raw_fd();
        loop {
            let mut closed = false;
            let _ = super::dir::each(&dir, &mut |name| {
                let number = crate::util::text::parse_u64(name).and_then(|n| i32::try_from(n).ok());
                if let Some(number) = number.filter(|n| *n > highest && *n != own) {
                    close(number);
                    closed = true;
                }
            });
            if !closed {
                return;
            }
            super::dir::rewind(&dir);
        }
    }
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(BLIND_CLOSE_MAX);
    let limit = i32::try_from(limit.min(BLIND_CLOSE_MAX)).unwrap_or(i32::MAX);
    for number in highest.saturating_add(1)..limit {
        close(number);
    }
}

/// Returns the maximum number of descriptors of this process (getrlimit(2)), or `None` if
/// there is no limit.
#[must_use]
pub fn limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Sets the maximum number of descriptors of this process (setrlimit(2)).
///
/// # Errors
/// EPERM for more than the hard limit, without the right to raise it.
pub fn set_limit(count: u32) -> Result<(), Failure> {
    let most = Some(u64::from(count));
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).op(Op::Setrlimit)
}

/// Closes a descriptor that this program does not own, if it is open (close(2)). Debug
/// builds of rustix require that it is.
fn close(number: i32) {
    if rustix::io::fcntl_getfd(borrow(number)).is_ok() {
        // SAFETY: nothing in this program owns an inherited descriptor.
        unsafe { rustix::io::close(number) }
    }
}

/// Opens /dev/null for reading and writing.
fn open_null() -> Result<OwnedFd, Failure> {
    file::open(c"/dev/null", OFlags::RDWR, 0)
}
