//! A hardware watchdog: it resets the board unless it is fed in time
//! (Documentation/watchdog/watchdog-api.rst of Linux).
#![expect(unsafe_code, reason = "ioctl")]

use super::{Failure, Op, OwnedFd, WithOp, file};
use crate::util::path::Path;
use linux_raw_sys::ioctl::{WDIOC_GETTIMEOUT, WDIOC_SETOPTIONS, WDIOC_SETTIMEOUT};
use rustix::ioctl::{Opcode, Updater};

/// Stops the countdown (`WDIOS_DISABLECARD` of linux/watchdog.h, which linux-raw-sys does not
/// have).
const DISABLE_CARD: i32 = 1;

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

/// Sets the seconds until the device resets the board (ioctl(2), `WDIOC_SETTIMEOUT`). The driver
/// may choose another number near it, which [`timeout`] returns.
///
/// # Errors
/// EINVAL if the number is out of the driver's range; ENOTTY or EOPNOTSUPP if it cannot be set.
pub fn set_timeout(device: &OwnedFd, seconds: u32) -> Result<(), Failure> {
    update::<WDIOC_SETTIMEOUT>(device, i32::try_from(seconds).unwrap_or(i32::MAX))
}

fn update<const CODE: Opcode>(device: &OwnedFd, mut number: i32) -> Result<(), Failure> {
    // SAFETY: the kernel reads one int, and writes one at most.
    unsafe { rustix::ioctl::ioctl(device, Updater::<CODE, i32>::new(&mut number)) }.op(Op::Ioctl)
}

/// Restarts the countdown (write(2)).
///
/// # Errors
/// As write(2) says.
pub fn kick(device: &OwnedFd) -> Result<(), Failure> {
    file::write_some(device, b"\0").map(drop)
}

/// Stops the countdown (ioctl(2), `WDIOC_SETOPTIONS`), and announces that the close is meant
/// (write(2), the "magic close") for drivers that know only that.
///
/// # Errors
/// EBUSY if the driver does not stop it (`nowayout`); EOPNOTSUPP or ENOTTY if it is unknown
/// whether the driver has stopped it.
pub fn disarm(device: OwnedFd) -> Result<(), Failure> {
    let stopped = update::<WDIOC_SETOPTIONS>(&device, DISABLE_CARD);
    let _ = file::write_some(&device, b"V");
    stopped
}
