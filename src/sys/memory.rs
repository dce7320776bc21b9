//! Giving back to the kernel the pages that only start-up needed (madvise(2)):
//! an idle service should hold what it uses.
#![expect(unsafe_code, reason = "tells the kernel to drop pages")]

use core::ffi::c_void;
use rustix::mm::{Advice, madvise};

/// How far down the stack is looked after; start-up never goes deeper.
const STACK_BYTES: usize = 96 * 1024;
/// Bytes that a caller may still need below the frame of [`release_stack`]: the red zone of
/// the x86-64 ABI, and a reserve.
const SLACK_BYTES: usize = 1024;

unsafe extern "C" {
    /// Where the program's file begins in memory, by the linker (ld(1), and lld's).
    #[link_name = "__executable_start"]
    static FIRST: u8;
    /// Where its code ends.
    #[link_name = "etext"]
    static CODE_END: u8;
}

/// Drops the pages that a busy turn or the start needed: the unused part of the stack, and the
/// code, which is in the file (madvise(2)).
#[inline(never)]
#[unsafe(link_section = ".text.idle")]
pub fn release_code_and_stack() {
    let (first, end) = (&raw const FIRST as usize, &raw const CODE_END as usize);
    // SAFETY: the range is mapped from the file and never written, so what is
    // needed of it comes back.
    let _ = unsafe { madvise(first as *mut c_void, end.saturating_sub(first), Advice::LinuxDontNeed) };
    release_stack();
}

/// Drops the pages of the stack below the caller's frame.
#[inline(never)]
#[unsafe(link_section = ".text.idle")]
fn release_stack() {
    let here = 0u8;
    let page = rustix::param::page_size();
    let top = (&raw const here as usize).saturating_sub(SLACK_BYTES) & !page.wrapping_sub(1);
    let bottom = top.saturating_sub(STACK_BYTES);
    // SAFETY: nothing below the stack pointer is in use, and what is not mapped
    // there is left alone.
    let _ = unsafe { madvise(bottom as *mut c_void, STACK_BYTES, Advice::LinuxDontNeed) };
}

/// Drops the whole pages inside `buffer`, which reads as zeros afterwards.
#[unsafe(link_section = ".text.idle")]
pub fn release(buffer: &mut [u8]) {
    let page = rustix::param::page_size();
    let start = (buffer.as_mut_ptr() as usize).saturating_add(page.wrapping_sub(1)) & !page.wrapping_sub(1);
    let end = (buffer.as_mut_ptr() as usize).saturating_add(buffer.len()) & !page.wrapping_sub(1);
    if end > start {
        // SAFETY: the range lies inside `buffer`, to which this is the only reference, and
        // zeros are good bytes. The buffer is a static, so its memory is anonymous.
        let _ = unsafe { madvise(start as *mut c_void, end.saturating_sub(start), Advice::LinuxDontNeed) };
    }
}
