//! Signals, turned into something that a poll loop can wait for.
//!
//! The handler sets one bit per signal and writes one byte to a pipe. The pipe
//! wakes the loop; the bits say what arrived, so a full pipe loses nothing
//! (the self-pipe of signal(7), with an atomic beside it).
//!
//! SIGPIPE and SIGXFSZ get a handler that does nothing instead of being ignored:
//! writes fail with EPIPE or EFBIG either way, and exec puts handlers, but not
//! ignored signals, back to the default for the programs that we start.
//! SIGIO gets the same handler, because it would end a process that has a lease
//! on a file which another process opens.
#![expect(unsafe_code, reason = "installs signal handlers")]

use super::runtime::{
    How, KernelSigSet, KernelSigaction, KernelSigactionFlags, kernel_sig_ign, kernel_sigaction,
    kernel_sigprocmask,
};
use super::{Failure, Op, OwnedFd, WithOp, arch, file};
use core::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use rustix::fd::AsRawFd;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;

/// Signals that have arrived, as bits `1 << number`.
static PENDING: AtomicU32 = AtomicU32::new(0);
/// Write end of the self-pipe; -1 before [`Signals::install`].
static WAKE: AtomicI32 = AtomicI32::new(-1);

/// The signals that wake the loop.
const HANDLED: [Signal; 10] = [
    Signal::TERM,
    Signal::INT,
    Signal::QUIT,
    Signal::HUP,
    Signal::USR1,
    Signal::USR2,
    Signal::CHILD,
    Signal::PIPE,
    Signal::XFSZ,
    Signal::IO,
];

/// Signals taken from the kernel in one turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrived(u32);

impl Arrived {
    /// Returns true if `signal` is one of the signals that were taken.
    #[must_use]
    pub fn has(self, signal: Signal) -> bool {
        self.0 & bit(signal.as_raw()) != 0
    }

    /// Returns the signal that asks for a stop, and its text for the log. Two such signals in
    /// one turn are one stop, and do not hurry it.
    #[must_use]
    pub fn stop(self) -> Option<(Signal, &'static str)> {
        let stops = [
            (Signal::TERM, "SIGTERM received"),
            (Signal::INT, "SIGINT received"),
            (Signal::QUIT, "SIGQUIT received"),
        ];
        stops.into_iter().find(|(signal, _)| self.has(*signal))
    }
}

/// The self-pipe's read end.
pub struct Signals {
    pipe: OwnedFd,
    _wake: OwnedFd,
}

impl Signals {
    /// Creates the self-pipe and installs the handlers.
    ///
    /// # Errors
    /// EMFILE, ENFILE.
    pub fn install() -> Result<Self, Failure> {
        let (pipe, wake) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).op(Op::Pipe2)?;
        WAKE.store(wake.as_raw_fd(), Ordering::Relaxed);
        for signal in HANDLED {
            set_action(signal, Some(on_signal))?;
        }
        Ok(Self { pipe, _wake: wake })
    }

    /// Returns the read end of the pipe, to be polled for input.
    #[must_use]
    pub fn fd(&self) -> &OwnedFd {
        &self.pipe
    }

    /// Returns true if signals have arrived, even if the pipe has no byte: a write to it
    /// needs a page, and there may be none.
    #[must_use]
    pub fn have_arrived(&self) -> bool {
        PENDING.load(Ordering::Relaxed) != 0
    }

    /// Empties the pipe and takes the signals that have arrived.
    #[must_use]
    pub fn take(&self) -> Arrived {
        let mut bytes = [0u8; 64];
        while file::read(&self.pipe, &mut bytes).is_ok_and(|count| count == bytes.len()) {}
        Arrived(PENDING.swap(0, Ordering::Relaxed))
    }
}

/// Makes a write to a pipe or socket without a reader fail with EPIPE instead of ending the
/// process (sigaction(2), signal(7)).
pub fn ignore_broken_pipes() {
    let _ = set_action(Signal::PIPE, Some(on_signal));
}

/// Has SIGINT end the line on the terminal before it ends the process, because the terminal shows
/// `^C` there. A process that ignores SIGINT still ignores it.
pub fn end_line_on_interrupt() {
    // SAFETY: nothing is changed.
    let before = unsafe { kernel_sigaction(Signal::INT, None) };
    if before.is_ok_and(|action| action.sa_handler_kernel.is_none()) {
        let _ = set_action(Signal::INT, Some(on_interrupt));
    }
}

/// Ignores the signals that end a command: HUP, INT, TERM and PIPE (signal(7)). A program that
/// this process executes ignores them too.
pub fn ignore_ends() {
    for signal in [Signal::HUP, Signal::INT, Signal::TERM, Signal::PIPE] {
        let _ = set_action(signal, kernel_sig_ign());
    }
}

/// Puts every signal back to its default action and unblocks all (daemon(7), steps 2 and
/// 3), because the process that started this one may have changed any of them.
pub fn reset_all() {
    for number in 1..=64 {
        // SAFETY: 1 to 64 are the kernel's signals, and with no libc none is
        // reserved; those that cannot be changed fail, which is right.
        let signal = unsafe { Signal::from_raw_unchecked(number) };
        let _ = set_action(signal, None);
    }
    // SAFETY: there is no libc whose signals must stay blocked.
    let _ = unsafe { kernel_sigprocmask(How::SETMASK, Some(&KernelSigSet::empty())) };
}

/// Blocks every signal while `work` runs.
pub(crate) fn with_all_blocked<T>(work: impl FnOnce() -> T) -> T {
    let all = KernelSigSet::all();
    // SAFETY: as in `reset_all`.
    let before = unsafe { kernel_sigprocmask(How::SETMASK, Some(&all)) };
    let result = work();
    if let Ok(before) = before {
        // SAFETY: as in `reset_all`.
        let _ = unsafe { kernel_sigprocmask(How::SETMASK, Some(&before)) };
    }
    result
}

/// Puts the handlers back to the default in the child of a clone(2), then unblocks all
/// signals. The child's table of handlers is its own, but its memory is that of its parent,
/// and its stack is too small for a signal's frame.
pub(crate) fn unblock_in_child() {
    for signal in HANDLED {
        let _ = set_action(signal, None);
    }
    // SAFETY: as in `reset_all`.
    let _ = unsafe { kernel_sigprocmask(How::SETMASK, Some(&KernelSigSet::empty())) };
}

/// Installs `handler` for `signal`, or the default action.
fn set_action(signal: Signal, handler: Option<unsafe extern "C" fn(i32)>) -> Result<(), Failure> {
    let mut action = KernelSigaction {
        sa_handler_kernel: handler,
        sa_flags: KernelSigactionFlags::RESTART | KernelSigactionFlags::NOCLDSTOP,
        ..KernelSigaction::default()
    };
    arch::set_restorer(&mut action);
    // SAFETY: the handler only does what signal-safety(7) allows, and the
    // restorer is the one that the kernel's frame needs.
    unsafe { kernel_sigaction(signal, Some(action)) }.op(Op::RtSigaction).map(drop)
}

/// Returns the bit of a signal number, which is 1 to 31. A higher number has none.
fn bit(number: i32) -> u32 {
    u32::try_from(number).ok().and_then(|n| 1u32.checked_shl(n)).unwrap_or(0)
}

/// Handles a signal: sets its bit and writes one byte to the self-pipe.
unsafe extern "C" fn on_signal(number: i32) {
    if [Signal::PIPE, Signal::XFSZ, Signal::IO].iter().any(|signal| signal.as_raw() == number) {
        return;
    }
    PENDING.fetch_or(bit(number), Ordering::Relaxed);
    let wake = WAKE.load(Ordering::Relaxed);
    if wake >= 0 {
        let _ = rustix::io::write(super::fds::borrow(wake), &[0]);
    }
}

/// Handles SIGINT of a command on a terminal: ends the line, then the process by the same signal.
unsafe extern "C" fn on_interrupt(_: i32) {
    let _ = rustix::io::write(super::fds::borrow(1), b"\n");
    let _ = set_action(Signal::INT, None);
    // It is blocked until this function returns.
    let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::INT);
}
