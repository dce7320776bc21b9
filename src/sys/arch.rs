//! Instructions that differ by architecture: the system calls that rustix does
//! not offer, and the two stubs that need a known register state.
//!
//! # Safety
//! The raw system call is given plain numbers or an owned buffer. `clone_vfork` and
//! `restorer` follow the kernel's calling convention of each architecture
//! (syscall(2), clone(2), sigreturn(2)).
#![expect(unsafe_code, reason = "raw system calls and naked stubs")]

use super::runtime::{KernelSigaction, KernelSigactionFlags};
use core::arch::{asm, naked_asm};
#[cfg(not(target_arch = "x86"))]
use linux_raw_sys::general::__NR_getsockopt;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use linux_raw_sys::general::__NR_rt_sigreturn;
#[cfg(any(target_arch = "arm", target_arch = "x86"))]
use linux_raw_sys::general::__NR_sigreturn;
use linux_raw_sys::general::{
    __NR_clone, __NR_close_range, __NR_fcntl, __NR_getcwd, __NR_getpgid, __NR_getsid,
};
#[cfg(target_arch = "x86")]
use linux_raw_sys::{general::__NR_socketcall, net::SYS_GETSOCKOPT};

/// Makes a system call with five numbers; returns what the kernel left in the
/// result register (a negative errno on failure).
///
/// # Safety
/// What the call does with the numbers must be allowed: an address among them is that
/// of memory which the kernel may read or write as the call does.
unsafe fn raw_call(number: u32, [a, b, c, d, e]: [usize; 5]) -> isize {
    let result: isize;
    // SAFETY: the caller's contract; the call touches no other register, and no stack.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result,
             in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    // SAFETY: the caller's contract; the call touches no other register, and no stack.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc #0", in("x8") number, inlateout("x0") a as isize => result,
             in("x1") b, in("x2") c, in("x3") d, in("x4") e, options(nostack));
    }
    // SAFETY: the caller's contract. r7 can be the frame pointer, so the code saves it.
    #[cfg(target_arch = "arm")]
    unsafe {
        asm!("mov {saved}, r7", "mov r7, {number}", "svc #0", "mov r7, {saved}",
             saved = out(reg) _, number = in(reg) number,
             inlateout("r0") a as isize => result, in("r1") b, in("r2") c,
             in("r3") d, in("r4") e, options(nostack));
    }
    // SAFETY: the caller's contract; the call touches no other register, and no stack.
    #[cfg(target_arch = "riscv64")]
    unsafe {
        asm!("ecall", in("a7") number, inlateout("a0") a as isize => result,
             in("a1") b, in("a2") c, in("a3") d, in("a4") e, options(nostack));
    }
    // SAFETY: the caller's contract. The compiler reserves ebx and esi, so the code saves them.
    #[cfg(target_arch = "x86")]
    unsafe {
        let numbers = [a, b, c, d, e];
        asm!("push ebx", "push esi", "mov ebx, [ecx]", "mov edx, [ecx + 8]", "mov esi, [ecx + 12]",
             "mov edi, [ecx + 16]", "mov ecx, [ecx + 4]", "int 0x80", "pop esi", "pop ebx",
             inlateout("eax") number as isize => result, inlateout("ecx") numbers.as_ptr() => _,
             lateout("edx") _, lateout("edi") _);
    }
    result
}

/// Closes every descriptor from `first` to `last` (close_range(2)). Returns true if the
/// kernel did, and false where it has no such call (before Linux 5.9).
pub(crate) fn close_range(first: u32, last: u32) -> bool {
    // SAFETY: plain numbers.
    unsafe { raw_call(__NR_close_range, [first as usize, last as usize, 0, 0, 0]) == 0 }
}

/// Performs a command of fcntl(2) whose argument is a number. Returns its result.
///
/// # Errors
/// The errno.
pub(crate) fn fcntl(fd: i32, command: u32, number: u32) -> Result<usize, i32> {
    let fd = usize::try_from(fd).unwrap_or(usize::MAX);
    // SAFETY: plain numbers.
    let result = unsafe { raw_call(__NR_fcntl, [fd, command as usize, number as usize, 0, 0]) };
    usize::try_from(result).map_err(|_| i32::try_from(result.unsigned_abs()).unwrap_or(i32::MAX))
}

/// Returns the process group of the process `pid` (getpgid(2)). It is zero if the group is of
/// another PID namespace, which the call of rustix does not expect, and if the call fails.
pub(crate) fn getpgid(pid: u32) -> u32 {
    // SAFETY: plain numbers.
    let result = unsafe { raw_call(__NR_getpgid, [pid as usize, 0, 0, 0, 0]) };
    u32::try_from(result).unwrap_or(0)
}

/// Returns the session of this process (getsid(2)). It is zero if the session is of another PID
/// namespace, which the call of rustix does not expect.
pub(crate) fn getsid() -> u32 {
    // SAFETY: plain numbers.
    let result = unsafe { raw_call(__NR_getsid, [0; 5]) };
    u32::try_from(result).unwrap_or(0)
}

/// Writes the working directory's path into `buffer` (getcwd(2)). Returns its length in
/// bytes, without its terminator.
pub(crate) fn getcwd(buffer: &mut [u8]) -> Option<usize> {
    // SAFETY: the kernel writes at most as many bytes as the buffer has.
    let result = unsafe { raw_call(__NR_getcwd, [buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0]) };
    usize::try_from(result).ok()?.checked_sub(1)
}

/// Reads a socket option that is an array of 32-bit words (getsockopt(2)). Returns the
/// number of words that the kernel wrote.
///
/// # Errors
/// The errno.
pub(crate) fn getsockopt(fd: i32, level: u32, option: u32, words: &mut [u32]) -> Result<usize, i32> {
    let mut length = u32::try_from(size_of_val(words)).unwrap_or(u32::MAX);
    let fd = usize::try_from(fd).unwrap_or(usize::MAX);
    let (buffer, size) = (words.as_mut_ptr() as usize, &raw mut length as usize);
    let call = [fd, level as usize, option as usize, buffer, size];
    // Before Linux 4.3 this architecture has socket calls only as parts of socketcall(2).
    #[cfg(target_arch = "x86")]
    let (number, call) = (__NR_socketcall, [SYS_GETSOCKOPT as usize, (&raw const call) as usize, 0, 0, 0]);
    #[cfg(not(target_arch = "x86"))]
    let number = __NR_getsockopt;
    // SAFETY: the kernel writes at most `length` bytes, which the words have, and then
    // how many into `length`.
    let result = unsafe { raw_call(number, call) };
    if result < 0 {
        return Err(i32::try_from(result.unsigned_abs()).unwrap_or(i32::MAX));
    }
    Ok((length as usize / size_of::<u32>()).min(words.len()))
}

/// Starts a child that shares this process's memory until it execs or exits,
/// as vfork(2) does, but on a stack of its own, so that nothing of the
/// caller's frame is overwritten. The caller is suspended meanwhile.
///
/// Returns the child's PID, or a negative errno.
///
/// # Safety
/// `stack_top` must be the 16-byte aligned end of memory that is large enough
/// for `entry`, and stays valid for the call; `arg` is what `entry` expects.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn clone_vfork(
    flags: usize,
    stack_top: *mut u8,
    entry: unsafe extern "C" fn(*const u8) -> !,
    arg: *const u8,
) -> isize {
    naked_asm!(
        "mov r8, rdx",
        "mov r9, rcx",
        "xor edx, edx",
        "xor r10d, r10d",
        "mov eax, {clone}",
        "syscall",
        "test rax, rax",
        "jz 2f",
        "ret",
        "2:",
        "xor ebp, ebp",
        "mov rdi, r9",
        "call r8",
        "ud2",
        clone = const __NR_clone,
    )
}

/// Starts a child that shares this process's memory until it execs or exits,
/// as vfork(2) does, but on a stack of its own, so that nothing of the
/// caller's frame is overwritten. The caller is suspended meanwhile.
///
/// Returns the child's PID, or a negative errno.
///
/// # Safety
/// `stack_top` must be the 16-byte aligned end of memory that is large enough
/// for `entry`, and stays valid for the call; `arg` is what `entry` expects.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn clone_vfork(
    flags: usize,
    stack_top: *mut u8,
    entry: unsafe extern "C" fn(*const u8) -> !,
    arg: *const u8,
) -> isize {
    naked_asm!(
        "mov x5, x2",
        "mov x6, x3",
        "mov x2, xzr",
        "mov x3, xzr",
        "mov x4, xzr",
        "mov x8, #{clone}",
        "svc #0",
        "cbz x0, 2f",
        "ret",
        "2:",
        "mov x29, xzr",
        "mov x30, xzr",
        "mov x0, x6",
        "blr x5",
        "brk #1",
        clone = const __NR_clone,
    )
}

/// Starts a child that shares this process's memory until it execs or exits,
/// as vfork(2) does, but on a stack of its own, so that nothing of the
/// caller's frame is overwritten. The caller is suspended meanwhile.
///
/// Returns the child's PID, or a negative errno.
///
/// # Safety
/// `stack_top` must be the 16-byte aligned end of memory that is large enough
/// for `entry`, and stays valid for the call; `arg` is what `entry` expects.
#[cfg(target_arch = "arm")]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn clone_vfork(
    flags: usize,
    stack_top: *mut u8,
    entry: unsafe extern "C" fn(*const u8) -> !,
    arg: *const u8,
) -> isize {
    naked_asm!(
        "push {{r4, r5, r6, r7}}",
        "mov r5, r2",
        "mov r6, r3",
        "mov r2, #0",
        "mov r3, #0",
        "mov r4, #0",
        "mov r7, #{clone}",
        "svc #0",
        "cmp r0, #0",
        "beq 2f",
        "pop {{r4, r5, r6, r7}}",
        "bx lr",
        "2:",
        "mov fp, #0",
        "mov r0, r6",
        "blx r5",
        "udf #0",
        clone = const __NR_clone,
    )
}

/// Starts a child that shares this process's memory until it execs or exits,
/// as vfork(2) does, but on a stack of its own, so that nothing of the
/// caller's frame is overwritten. The caller is suspended meanwhile.
///
/// Returns the child's PID, or a negative errno.
///
/// # Safety
/// `stack_top` must be the 16-byte aligned end of memory that is large enough
/// for `entry`, and stays valid for the call; `arg` is what `entry` expects.
#[cfg(target_arch = "riscv64")]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn clone_vfork(
    flags: usize,
    stack_top: *mut u8,
    entry: unsafe extern "C" fn(*const u8) -> !,
    arg: *const u8,
) -> isize {
    naked_asm!(
        "mv t0, a2",
        "mv t1, a3",
        "li a2, 0",
        "li a3, 0",
        "li a4, 0",
        "li a7, {clone}",
        "ecall",
        "beqz a0, 2f",
        "ret",
        "2:",
        "li s0, 0",
        "li ra, 0",
        "mv a0, t1",
        "jalr t0",
        "unimp",
        clone = const __NR_clone,
    )
}

/// Starts a child that shares this process's memory until it execs or exits,
/// as vfork(2) does, but on a stack of its own, so that nothing of the
/// caller's frame is overwritten. The caller is suspended meanwhile.
///
/// Returns the child's PID, or a negative errno.
///
/// # Safety
/// `stack_top` must be the 16-byte aligned end of memory that is large enough
/// for `entry`, and stays valid for the call; `arg` is what `entry` expects.
#[cfg(target_arch = "x86")]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn clone_vfork(
    flags: usize,
    stack_top: *mut u8,
    entry: unsafe extern "C" fn(*const u8) -> !,
    arg: *const u8,
) -> isize {
    naked_asm!(
        "push ebx",
        "push esi",
        "push edi",
        "mov ebx, [esp + 16]",
        "mov ecx, [esp + 20]",
        "sub ecx, 16",
        "mov eax, [esp + 28]",
        "mov [ecx], eax",
        "mov eax, [esp + 24]",
        "mov [ecx + 4], eax",
        "xor edx, edx",
        "xor esi, esi",
        "xor edi, edi",
        "mov eax, {clone}",
        "int 0x80",
        "test eax, eax",
        "jz 2f",
        "pop edi",
        "pop esi",
        "pop ebx",
        "ret",
        "2:",
        "xor ebp, ebp",
        "mov eax, [esp + 4]",
        "call eax",
        "ud2",
        clone = const __NR_clone,
    )
}

/// Names [`restorer`] as the code that a signal handler returns to.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "arm", target_arch = "x86"))]
pub(crate) fn set_restorer(action: &mut KernelSigaction) {
    action.sa_flags |= KernelSigactionFlags::RESTORER;
    action.sa_restorer = Some(restorer);
}

/// Leaves `action` as it is, because on this architecture the kernel returns from a signal
/// handler by code of its own.
#[cfg(target_arch = "riscv64")]
pub(crate) fn set_restorer(_action: &mut KernelSigaction) {}

/// Returns from a signal handler; the kernel jumps here (`SA_RESTORER`).
///
/// # Safety
/// Only the kernel may enter it, with a signal frame on the stack.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
unsafe extern "C" fn restorer() {
    naked_asm!("mov eax, {number}", "syscall", "ud2", number = const __NR_rt_sigreturn)
}

/// Returns from a signal handler that was installed without `SA_SIGINFO`.
///
/// # Safety
/// The contract is that of the variant for x86_64.
#[cfg(target_arch = "arm")]
#[unsafe(naked)]
unsafe extern "C" fn restorer() {
    naked_asm!("mov r7, #{number}", "svc #0", "udf #0", number = const __NR_sigreturn)
}

/// Returns from a signal handler.
///
/// # Safety
/// The contract is that of the variant for x86_64.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
unsafe extern "C" fn restorer() {
    naked_asm!("mov x8, #{number}", "svc #0", "brk #1", number = const __NR_rt_sigreturn)
}

/// Returns from a signal handler that was installed without `SA_SIGINFO`.
///
/// # Safety
/// The contract is that of the variant for x86_64.
#[cfg(target_arch = "x86")]
#[unsafe(naked)]
unsafe extern "C" fn restorer() {
    naked_asm!("pop eax", "mov eax, {number}", "int 0x80", "ud2", number = const __NR_sigreturn)
}
