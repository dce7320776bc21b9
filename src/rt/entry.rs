//! The first instructions of the process, one naked function per architecture.
//!
//! The kernel enters with the stack pointer at `argc`, then `argv`, a null,
//! `envp`, a null, and the auxiliary vector (System V ABI, "Process
//! Initialization"). Each function hands that address to [`enter`] on an
//! aligned stack and never returns.
//!
//! Changing this: a new architecture needs a function here and its system
//! calls in `src/sys/arch`.

use core::arch::naked_asm;
use zigsvc::sys::args::Args;

/// Passes the initial stack to [`enter`]. The kernel enters the process here, because
/// `build.rs` names this function to the linker.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn zigsvc_start() -> ! {
    naked_asm!(
        "xor ebp, ebp",
        "mov rdi, rsp",
        "and rsp, -16",
        "call {enter}",
        "ud2",
        enter = sym enter,
    )
}

/// Passes the initial stack to [`enter`]. The kernel enters the process here, because
/// `build.rs` names this function to the linker.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn zigsvc_start() -> ! {
    naked_asm!(
        "mov x29, #0",
        "mov x30, #0",
        "mov x0, sp",
        "bl {enter}",
        "brk #1",
        enter = sym enter,
    )
}

/// Passes the initial stack to [`enter`]. The kernel enters the process here, because
/// `build.rs` names this function to the linker.
#[cfg(target_arch = "arm")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn zigsvc_start() -> ! {
    naked_asm!(
        "mov fp, #0",
        "mov lr, #0",
        "mov r0, sp",
        "bic r1, r0, #15",
        "mov sp, r1",
        "bl {enter}",
        "udf #0",
        enter = sym enter,
    )
}

/// Passes the initial stack to [`enter`]. The kernel enters the process here, because
/// `build.rs` names this function to the linker.
#[cfg(target_arch = "riscv64")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn zigsvc_start() -> ! {
    naked_asm!(
        ".option push",
        ".option norelax",
        "lla gp, __global_pointer$",
        ".option pop",
        "li s0, 0",
        "li ra, 0",
        "mv a0, sp",
        "andi sp, sp, -16",
        "call {enter}",
        "unimp",
        enter = sym enter,
    )
}

/// Passes the initial stack to [`enter`]. The kernel enters the process here, because
/// `build.rs` names this function to the linker.
#[cfg(target_arch = "x86")]
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn zigsvc_start() -> ! {
    naked_asm!(
        "xor ebp, ebp",
        "mov eax, esp",
        "and esp, -16",
        "sub esp, 12",
        "push eax",
        "call {enter}",
        "ud2",
        enter = sym enter,
    )
}

/// Hands the initial stack to rustix and to the program.
extern "C" fn enter(stack: *mut usize) -> ! {
    // SAFETY: `stack` is the kernel's initial stack, laid out as the module
    // documentation says, and nothing has run before this.
    let args = unsafe { Args::from_initial_stack(stack) };
    crate::main(args)
}

/// Stands for the personality routine, which unoptimised builds of the precompiled `core`
/// still name. Unwinding never happens (`panic = "abort"`).
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// Stands for a routine that the exception tables of ARM name in unoptimised builds of the
/// precompiled `core`. Unwinding never happens (`panic = "abort"`).
#[cfg(target_arch = "arm")]
#[unsafe(no_mangle)]
extern "C" fn __aeabi_unwind_cpp_pr0() {}

/// Stands for a routine that the exception tables of ARM name in unoptimised builds of the
/// precompiled `core`. Unwinding never happens (`panic = "abort"`).
#[cfg(target_arch = "arm")]
#[unsafe(no_mangle)]
extern "C" fn __aeabi_unwind_cpp_pr1() {}

/// Stands for a function of a libc, getauxval(3), that Rust's library for the compiler names in a
/// constructor, which would choose the instructions of atomics by the processor. No constructor
/// runs here, so the instructions that every processor has are used.
#[cfg(target_arch = "aarch64")]
#[unsafe(no_mangle)]
extern "C" fn getauxval(_: u64) -> u64 {
    0
}
