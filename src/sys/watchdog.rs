//! A hardware watchdog: it resets the board unless it is fed in time
//! (Documentation/watchdog/watchdog-api.rst of Linux).
#![expect(unsafe_code, reason = "ioctl")]

use super::{Failure, OwnedFd, file};
use crate::util::path::Path;
use linux_raw_sys::ioctl::WDIOC_GETTIMEOUT;

/// Opens the device, which starts the countdown.
///
/// # Errors
/// ENOENT; EBUSY when another process has it; EACCES.
pub fn open(path: &Path) -> Result<OwnedFd, Failure> {
    file::open(path.as_c_str(), file::OFlags::WRONLY | file::OFlags::NONBLOCK, 0)
}

/// Returns the seconds until the device resets the board (ioctl(2), `WDIOC_GETTIMEOUT`), or
/// `None` if the device does not report them.
#[must_use]
pub fn timeout(device: &OwnedFd) -> Option<u32> {
    type TimeoutQuery = rustix::ioctl::Getter<WDIOC_GETTIMEOUT, i32>;
    // SAFETY: the kernel writes one int, for which there is room.
    let seconds = unsafe { rustix::ioctl::ioctl(device, TimeoutQuery::new()) }.ok()?;
    u32::try_from(seconds).ok().filter(|seconds| *seconds > 0)
}

/// Restarts the countdown (write(2)).
///
/// # Errors
/// As write(2) says.
pub fn kick(device: &OwnedFd) -> Result<(), Failure> {
    file::write_some(device, b"\0").map(drop)
}

/// Stops the countdown: the next close is meant (the "magic close"). A kernel
/// with `nowayout` does not obey.
///
/// # Errors
/// As write(2) says.
pub fn disarm(device: OwnedFd) -> Result<(), Failure> {
    file::write_some(&device, b"V").map(drop)
}
