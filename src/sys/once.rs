//! Static memory that is handed out once. It lies in .bss, so it costs nothing
//! in the file, and in memory only the pages that are used.
#![expect(unsafe_code, reason = "hands out a static")]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};

/// Who was taken, as bits `1 << NUMBER`. Not beside each value, where it would be
/// the only byte in use of a page.
static TAKEN: AtomicU32 = AtomicU32::new(0);

/// A value that one owner takes for the life of the process. Of two with the same
/// number only one can be taken.
pub struct Once<T, const NUMBER: u32> {
    value: UnsafeCell<T>,
}

// SAFETY: `take` hands the value to one owner only, whoever asks first.
unsafe impl<T: Send, const NUMBER: u32> Sync for Once<T, NUMBER> {}

impl<T, const NUMBER: u32> Once<T, NUMBER> {
    /// A value that nobody has taken. For .bss it must be all zeros.
    pub const fn new(value: T) -> Self {
        Self { value: UnsafeCell::new(value) }
    }

    /// The value, to whoever asks first; a second call is a defect of the
    /// program and ends it.
    #[must_use]
    #[expect(clippy::mut_from_ref, reason = "the flag makes it the only reference")]
    pub fn take(&'static self) -> &'static mut T {
        let bit = const { 1 << NUMBER };
        if TAKEN.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            super::process::abort();
        }
        // SAFETY: the flag makes this the only reference there will ever be.
        unsafe { &mut *self.value.get() }
    }
}
