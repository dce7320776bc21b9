//! The memory functions that compiled code calls (C17 7.24): `memcpy`,
//! `memmove`, `memset`, `memcmp`, `bcmp`, `strlen`.
//!
//! A plain loop here would be recognised by the optimiser and replaced by a
//! call to the very function it implements. On x86_64 the string instructions
//! prevent that; elsewhere an empty `asm!` in each loop does.

use core::arch::asm;
#[cfg(not(target_arch = "x86_64"))]
use core::mem::size_of;

/// Hides a loop from the optimiser's idiom recognition; emits nothing.
#[inline(always)]
fn opaque() {
    // SAFETY: an empty template changes nothing.
    unsafe { asm!("", options(nomem, nostack, preserves_flags)) }
}

/// Copies `n` bytes upwards; correct for overlap when `dst < src`.
///
/// `rep movsb` takes some twenty nanoseconds to begin, so 16 to 528 bytes are copied
/// sixteen at a time. The last sixteen are read first and written last, so that neither
/// an odd length nor an overlap matters.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn copy_up(dst: *mut u8, src: *const u8, n: usize) {
    // SAFETY: the caller promises `n` readable and writable bytes; the ABI
    // keeps the direction flag clear.
    unsafe {
        if n.wrapping_sub(16) <= 512 {
            asm!(
                "movups {last}, [rsi + rcx - 16]",
                "lea {end}, [rdi + rcx - 16]",
                "2:",
                "movups {part}, [rsi]",
                "movups [rdi], {part}",
                "add rsi, 16",
                "add rdi, 16",
                "cmp rdi, {end}",
                "jb 2b",
                "movups [{end}], {last}",
                last = out(xmm_reg) _, part = out(xmm_reg) _, end = out(reg) _,
                in("rcx") n, inout("rdi") dst => _, inout("rsi") src => _, options(nostack),
            );
        } else {
            asm!("rep movsb", inout("rcx") n => _, inout("rdi") dst => _, inout("rsi") src => _,
                 options(nostack, preserves_flags));
        }
    }
}

/// Copies `n` bytes upwards; correct for overlap when `dst < src`.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
unsafe fn copy_up(dst: *mut u8, src: *const u8, n: usize) {
    const WORD: usize = size_of::<usize>();
    let mut at = 0;
    // SAFETY: `at` stays below `n`; words are only touched where both
    // addresses are aligned for them.
    unsafe {
        if (dst as usize ^ src as usize) % WORD == 0 {
            while at < n && (dst as usize + at) % WORD != 0 {
                opaque();
                *dst.add(at) = *src.add(at);
                at += 1;
            }
            while n - at >= WORD {
                opaque();
                *dst.add(at).cast::<usize>() = *src.add(at).cast::<usize>();
                at += WORD;
            }
        }
        while at < n {
            opaque();
            *dst.add(at) = *src.add(at);
            at += 1;
        }
    }
}

/// Copies `n` bytes from `src` to `dst`; returns `dst` (memcpy(3)).
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(dst: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    // SAFETY: the caller's contract is that of `copy_up`.
    unsafe { copy_up(dst, src, n) };
    dst
}

/// Copies `n` bytes from `src` to `dst`, which may overlap; returns `dst` (memmove(3)).
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(dst: *mut u8, src: *const u8, n: usize) -> *mut u8 {
    if (dst as usize).wrapping_sub(src as usize) >= n {
        // SAFETY: `dst` is below `src` or past its end: upwards is right.
        unsafe { copy_up(dst, src, n) };
    } else {
        let mut at = n;
        while at > 0 {
            opaque();
            at -= 1;
            // SAFETY: `at` is below `n`.
            unsafe { *dst.add(at) = *src.add(at) };
        }
    }
    dst
}

/// Fills `n` bytes at `dst` with the lowest byte of `value`; returns `dst` (memset(3)).
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(dst: *mut u8, value: i32, n: usize) -> *mut u8 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "C says: converted to unsigned char"
    )]
    let byte = value as u8;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller promises `n` writable bytes.
    unsafe {
        asm!("rep stosb", inout("rcx") n => _, inout("rdi") dst => _, in("al") byte,
             options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        const WORD: usize = size_of::<usize>();
        let word = usize::from_ne_bytes([byte; WORD]);
        let mut at = 0;
        while at < n {
            opaque();
            // SAFETY: `at` stays below `n`; a word is written only where it
            // is aligned and fits.
            unsafe {
                if n - at >= WORD && (dst as usize + at) % WORD == 0 {
                    *dst.add(at).cast::<usize>() = word;
                    at += WORD;
                } else {
                    *dst.add(at) = byte;
                    at += 1;
                }
            }
        }
    }
    dst
}

/// Compares `n` bytes (memcmp(3)). Returns 0 if all are equal, otherwise the difference of
/// the first two that differ.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    let mut at = 0;
    while at < n {
        opaque();
        // SAFETY: `at` is below `n`, and the caller promises `n` bytes in both.
        let (x, y) = unsafe { (*a.add(at), *b.add(at)) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
        at += 1;
    }
    0
}

/// Compares `n` bytes (bcmp(3)). Returns 0 if all are equal.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, n: usize) -> i32 {
    // SAFETY: the same contract.
    unsafe { memcmp(a, b, n) }
}

/// Returns the number of bytes before the terminating null (strlen(3)).
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(s: *const u8) -> usize {
    let mut at = 0;
    // SAFETY: the caller promises a terminating null.
    while unsafe { *s.add(at) } != 0 {
        opaque();
        at += 1;
    }
    at
}
