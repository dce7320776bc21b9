//! Static memory that is handed out once. It lies in .bss, so it takes no bytes of the
//! file, and only the pages that are used take memory.
#![expect(unsafe_code, reason = "hands out a static")]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, Ordering};

/// A value that one owner takes for the life of the process. `once!` declares
/// one.
pub struct Once<T>(UnsafeCell<T>);

// SAFETY: `take` hands the value to one owner only, the first that asks.
unsafe impl<T: Send> Sync for Once<T> {}

impl<T> Once<T> {
    /// Makes a value that has no owner yet. For .bss, all its bytes must be zero.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Returns the value to the first that asks. A second call is a defect of the program
    /// and ends it.
    ///
    /// # Safety
    /// No other value may have the same flag.
    #[must_use]
    #[expect(clippy::mut_from_ref, reason = "the flag makes it the only reference")]
    pub unsafe fn take(&'static self, taken: &'static AtomicBool) -> &'static mut T {
        if taken.swap(true, Ordering::Relaxed) {
            super::process::abort();
        }
        // SAFETY: the flag makes this the only reference that there will be.
        unsafe { &mut *self.0.get() }
    }
}

/// Declares a static that is taken once, by its `take()`. The linker puts such statics
/// after the small variables, so that those share a page (`link.ld`); `first` and `last`
/// put one before and after the others.
///
/// ```text
/// once! {
///     /// The numbers that have been drawn.
///     static DRAWN: [u32; 100] = [0; 100];
/// }
/// let drawn = DRAWN.take();
/// drawn[0] = 7;
/// ```
macro_rules! once {
    ($(#[$meta:meta])* static $name:ident: $type:ty = $value:expr;) => {
        $crate::sys::once::once!(".bss.once", $(#[$meta])* $name: $type = $value);
    };
    (first $(#[$meta:meta])* static $name:ident: $type:ty = $value:expr;) => {
        $crate::sys::once::once!(".bss.once.first", $(#[$meta])* $name: $type = $value);
    };
    (last $(#[$meta:meta])* static $name:ident: $type:ty = $value:expr;) => {
        $crate::sys::once::once!(".bss.once.last", $(#[$meta])* $name: $type = $value);
    };
    ($section:literal, $(#[$meta:meta])* $name:ident: $type:ty = $value:expr) => {
        $(#[$meta])*
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "stands for a static")]
        struct $name;

        #[expect(unsafe_code, reason = "the flag and the section belong to this value alone")]
        impl $name {
            /// Returns the value. A second call ends the program.
            #[must_use]
            fn take(self) -> &'static mut $type {
                use core::sync::atomic::AtomicBool;
                static TAKEN: AtomicBool = AtomicBool::new(false);
                // SAFETY: a section of this name holds zeros, as .bss does.
                #[unsafe(link_section = $section)]
                static VALUE: $crate::sys::once::Once<$type> = $crate::sys::once::Once::new($value);
                // SAFETY: no other value can name this flag.
                unsafe { VALUE.take(&TAKEN) }
            }
        }
    };
}

pub(crate) use once;
