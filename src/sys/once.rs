//! Static memory that is handed out once. It lies in .bss, so it costs nothing
//! in the file, and in memory only the pages that are used.
#![expect(unsafe_code, reason = "hands out a static")]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// A value that one owner takes for the life of the process.
pub struct Once<T> {
    value: UnsafeCell<T>,
    taken: AtomicBool,
}

// SAFETY: `take` hands the value to one owner only, whoever asks first.
unsafe impl<T: Send> Sync for Once<T> {}

impl<T> Once<T> {
    /// A value that nobody has taken. For .bss it must be all zeros.
    pub const fn new(value: T) -> Self {
        Self { value: UnsafeCell::new(value), taken: AtomicBool::new(false) }
    }

    /// The value, to whoever asks first; a second call is a defect of the
    /// program and ends it.
    #[must_use]
    #[expect(clippy::mut_from_ref, reason = "the flag makes it the only reference")]
    pub fn take(&'static self) -> &'static mut T {
        if self.taken.swap(true, Ordering::Relaxed) {
            super::process::abort();
        }
        // SAFETY: the flag makes this the only reference there will ever be.
        unsafe { &mut *self.value.get() }
    }
}
