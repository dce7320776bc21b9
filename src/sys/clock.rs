//! Clocks. Decisions rest on [`now`], which no clock step moves; wall time is
//! only for people (clock_gettime(2)).

use crate::util::time::Instant;
use rustix::time::{ClockId, DynamicClockId, clock_gettime, clock_gettime_dynamic};

/// Returns the time since boot in milliseconds, suspend included (clock_gettime(2),
/// `CLOCK_BOOTTIME`). Uses `CLOCK_MONOTONIC` on kernels before 2.6.39.
#[must_use]
#[allow(unsafe_code, reason = "names a section")]
#[unsafe(link_section = ".text.idle")]
pub fn now() -> Instant {
    let time =
        clock_gettime_dynamic(DynamicClockId::Boottime).unwrap_or_else(|_| clock_gettime(ClockId::Monotonic));
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let millis = u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000;
    Instant::from_ms(seconds.wrapping_mul(1000).wrapping_add(millis))
}

/// Returns the microseconds of `CLOCK_MONOTONIC`, in which service managers count
/// (clock_gettime(2)). No decision may rest on it, because it stands still while the system
/// is suspended.
#[must_use]
pub fn monotonic_us() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_nsec).unwrap_or(0) / 1000;
    seconds.wrapping_mul(1_000_000).wrapping_add(micros)
}

/// Returns the seconds since 1970 (clock_gettime(2), `CLOCK_REALTIME`). The clock may step,
/// and may show 1970.
#[must_use]
#[allow(unsafe_code, reason = "names a section")]
#[unsafe(link_section = ".text.idle")]
pub fn wall() -> i64 {
    clock_gettime(ClockId::Realtime).tv_sec
}
