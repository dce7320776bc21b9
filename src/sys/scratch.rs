//! The program's one large piece of memory. It lies in .bss, so only the pages
//! that are used cost anything.
#![expect(unsafe_code, reason = "hands out a static once")]

use crate::limits::SCRATCH_BYTES;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

struct Memory(UnsafeCell<[u8; SCRATCH_BYTES]>);

// SAFETY: `take` gives it to one owner only, whoever asks first.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new([0; SCRATCH_BYTES]));
static TAKEN: AtomicBool = AtomicBool::new(false);

/// The memory, to whoever asks first; nothing to anybody else.
#[must_use]
pub fn take() -> &'static mut [u8] {
    if TAKEN.swap(true, Ordering::Relaxed) {
        return &mut [];
    }
    // SAFETY: the flag makes this the only reference there will ever be.
    unsafe { &mut *MEMORY.0.get() }
}
