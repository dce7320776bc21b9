//! The id of this boot.

use crate::proto::health::{BOOT_ID_BYTES, UNKNOWN_BOOT};
use crate::sys::file;

/// The file with the id of this boot (random(4)).
const BOOT_ID: &core::ffi::CStr = c"/proc/sys/kernel/random/boot_id";

/// Returns the id of this boot, or [`UNKNOWN_BOOT`] without /proc.
#[must_use]
pub fn boot_id() -> [u8; BOOT_ID_BYTES] {
    let mut id = [0; BOOT_ID_BYTES];
    match file::read_path(BOOT_ID, &mut id) {
        Ok(BOOT_ID_BYTES) => id,
        _ => UNKNOWN_BOOT,
    }
}
