//! Processes: fork, exit, signals to others, and waiting for children.
#![expect(unsafe_code, reason = "fork and inherited descriptors")]

use super::{Errno, Failure, Op, OwnedFd, WithOp};
use super::{arch, runtime};
use core::ffi::CStr;
use core::sync::atomic::{AtomicI32, Ordering};
use rustix::fd::BorrowedFd;
use rustix::fs::Mode;
pub use rustix::process::{Pid, Signal};
use rustix::process::{WaitId, WaitIdOptions, WaitOptions};

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The child exited with this status (0 to 255).
    Code(u8),
    /// The child was killed by this signal.
    Signal(u8),
}

impl Exit {
    /// Returns the end that waitid(2) or wait4(2) reports.
    fn new(signal: Option<i32>, status: Option<i32>) -> Self {
        let byte = |number: i32| number.to_le_bytes()[0];
        signal.map_or(Self::Code(status.map_or(0, byte)), |signal| Self::Signal(byte(signal)))
    }
}

/// Which side of [`fork`] this is.
pub enum Side {
    /// The new process.
    Child,
    /// The old one, with the PID of the new.
    Parent(Pid),
}

/// Creates a child that is a copy of this process (fork(2)).
///
/// # Errors
/// EAGAIN, ENOMEM.
pub fn fork() -> Result<Side, Failure> {
    // SAFETY: there are no threads and no libc state; the child continues with
    // a copy of everything.
    match unsafe { runtime::kernel_fork() }.op(Op::Fork)? {
        runtime::Fork::Child(_) => {
            PID.store(0, Ordering::Relaxed);
            Ok(Side::Child)
        }
        runtime::Fork::ParentOf(pid) => Ok(Side::Parent(pid)),
    }
}

/// Makes this process the leader of a new session and process group, without a terminal
/// (setsid(2)).
///
/// # Errors
/// EPERM for a process group leader.
pub fn setsid() -> Result<(), Failure> {
    rustix::process::setsid().op(Op::Setsid).map(drop)
}

/// Ends the process with `status` (exit_group(2)). Never returns.
pub fn exit(status: u8) -> ! {
    runtime::exit_group(i32::from(status))
}

/// Ends the process as abort(3) does: SIGABRT, or else exit status 134.
pub fn abort() -> ! {
    let _ = rustix::process::kill_process(pid(), Signal::ABORT);
    exit(134)
}

/// Returns the session of this process, or zero if its leader is in another PID namespace
/// (getsid(2)).
#[must_use]
pub fn session() -> u32 {
    arch::getsid()
}

/// The PID of this process, once it was asked for; 0 before, and in a new child.
static PID: AtomicI32 = AtomicI32::new(0);

/// Returns the PID of this process. Only the first call asks the kernel (getpid(2)).
#[must_use]
pub fn pid() -> Pid {
    Pid::from_raw(PID.load(Ordering::Relaxed)).unwrap_or_else(|| {
        let pid = rustix::process::getpid();
        PID.store(pid.as_raw_pid(), Ordering::Relaxed);
        pid
    })
}

/// Sets the mask of the permission bits that new files do not get (umask(2)).
pub fn umask(mask: u32) {
    rustix::process::umask(Mode::from_raw_mode(mask));
}

/// Changes the working directory to `path` (chdir(2)).
///
/// # Errors
/// As the call says.
pub fn chdir(path: &CStr) -> Result<(), Failure> {
    rustix::process::chdir(path).op(Op::Chdir)
}

/// Writes to descriptor 2 and ignores failures (write(2)): for last words and usage
/// errors, where nothing better can be done.
pub fn write_stderr(text: &[u8]) {
    write_std(2, text);
}

/// Writes all of `text` to descriptor 1 (write(2)). Returns true if all of it was taken.
pub fn write_stdout(text: &[u8]) -> bool {
    write_std(1, text)
}

/// Writes all of `text` to one of the standard descriptors (write(2)). Returns true if all
/// of it was taken.
fn write_std(fd: i32, mut text: &[u8]) -> bool {
    // SAFETY: 0 to 2 are opened at entry and never closed.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    while !text.is_empty() {
        match rustix::io::write(fd, text) {
            Ok(count) => text = text.get(count..).unwrap_or(&[]),
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

/// Returns how the child `pid` ended, or `None` if it has not. Does not reap it: its PID
/// stays reserved, so its group can still be killed safely (waitid(2), `WNOWAIT`).
#[must_use]
pub fn ended(pid: Pid) -> Option<Exit> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let status = loop {
        match rustix::process::waitid(WaitId::Pid(pid), options) {
            Ok(status) => break status?,
            Err(Errno::INTR) => {}
            // The child was reaped elsewhere, so the reason of its end is unknown.
            Err(_) => return Some(Exit::Signal(0)),
        }
    };
    Some(Exit::new(status.terminating_signal(), status.exit_status()))
}

/// Reaps any child that has ended, and returns its PID and how it ended (wait4(2)).
#[must_use]
pub fn reap_any() -> Option<(Pid, Exit)> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(ended) => {
                let (pid, status) = ended?;
                return Some((pid, Exit::new(status.terminating_signal(), status.exit_status())));
            }
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Makes this process the parent of the processes below it whose parent ends (prctl(2),
/// `PR_SET_CHILD_SUBREAPER`). Returns true if the kernel does that.
#[must_use]
pub fn adopt_orphans() -> bool {
    rustix::process::set_child_subreaper(Some(pid())).is_ok()
}

/// Returns true if a child of this process is in the group `number`, one that has ended and was
/// not reaped included (waitid(2), `P_PGID`).
#[must_use]
pub fn has_child_in_group(number: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(rustix::process::waitid(WaitId::Pgid(Some(number)), options), Err(Errno::CHILD))
}

/// Returns true if this process has a child, one that has ended and was not reaped included
/// (waitid(2), `P_ALL`).
#[must_use]
pub fn has_child() -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(rustix::process::waitid(WaitId::All, options), Err(Errno::CHILD))
}

/// Returns true if a process is in the group `number` (kill(2), signal 0).
#[must_use]
pub fn is_group(number: Pid) -> bool {
    rustix::process::test_kill_process_group(number) != Err(Errno::SRCH)
}

/// Sends `signal` to each process of the group `number` that this process may signal (kill(2)).
///
/// # Errors
/// ESRCH without such a group; EPERM if none of its processes may be signalled.
pub fn signal_group(number: Pid, signal: Signal) -> Result<(), Failure> {
    rustix::process::kill_process_group(number, signal).op(Op::Kill)
}

/// Checks that this process may signal a process of the group `number` (kill(2), signal 0).
///
/// # Errors
/// ESRCH without such a group; EPERM if none of its processes may be signalled.
pub fn kill_probe(number: Pid) -> Result<(), Failure> {
    rustix::process::test_kill_process_group(number).op(Op::Kill)
}

/// Returns the 16 random bytes that the kernel gave to this process at its start (getauxval(3),
/// `AT_RANDOM`). All zeros if it gave none.
#[must_use]
pub fn random() -> [u8; 16] {
    let bytes = runtime::random();
    // SAFETY: the pointer is null or that of 16 bytes on the initial stack, which stays.
    if bytes.is_null() { [0; 16] } else { unsafe { *bytes } }
}

/// Returns the length of a clock tick, in which proc(5) counts the start of a process.
#[must_use]
pub fn clock_tick_ms() -> u64 {
    1000u64.checked_div(rustix::param::clock_ticks_per_second()).unwrap_or(10).max(1)
}

/// Makes the kernel send `signal` to this process when its parent ends (prctl(2),
/// `PR_SET_PDEATHSIG`). Returns true if the parent is still `parent`. A change of the user
/// undoes it.
#[must_use]
pub fn die_with(parent: Pid, signal: Signal) -> bool {
    let _ = rustix::process::set_parent_process_death_signal(Some(signal));
    rustix::process::getppid() == Some(parent)
}

/// Waits until the child `pid` has ended, reaps it, and returns how it ended (waitid(2)).
#[must_use]
pub fn wait_for(pid: Pid) -> Exit {
    loop {
        match rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED) {
            Ok(Some(status)) => return Exit::new(status.terminating_signal(), status.exit_status()),
            Ok(None) | Err(Errno::INTR) => {}
            Err(_) => return Exit::Signal(0),
        }
    }
}

/// Reaps the child `pid`, which has ended (waitid(2)).
pub fn reap(pid: Pid) {
    while let Err(Errno::INTR) = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED) {}
}

/// Sends `signal` to the process group that `leader` leads (kill(2)). Sends it to `leader`
/// itself too if `leader` is not in that group, because it has not joined the group yet, or
/// has moved to another and left processes in this one. KILL goes to both in any case.
pub fn kill_group(leader: Pid, signal: Signal) {
    let reached = rustix::process::kill_process_group(leader, signal).is_ok();
    let number = leader.as_raw_pid().unsigned_abs();
    let inside = || arch::getpgid(number) == number;
    if signal == Signal::KILL || !reached || !inside() {
        let _ = rustix::process::kill_process(leader, signal);
    }
}

/// Opens a descriptor that stands for process `pid` (pidfd_open(2)). It is readable when
/// the process has ended.
///
/// # Errors
/// ENOSYS before Linux 5.3; ESRCH when it is gone.
pub fn pidfd_open(pid: Pid) -> Result<OwnedFd, Failure> {
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).op(Op::PidfdOpen)
}

/// Sends `signal` through `pidfd` (pidfd_send_signal(2)), which cannot hit a
/// later process with the same PID.
///
/// # Errors
/// ESRCH when it is gone; EPERM.
pub fn pidfd_signal(pidfd: &OwnedFd, signal: Signal) -> Result<(), Failure> {
    rustix::process::pidfd_send_signal(pidfd, signal).op(Op::PidfdSendSignal)
}

/// Sends `signal` to process `pid` (kill(2)).
///
/// # Errors
/// ESRCH when it is gone; EPERM.
pub fn kill(pid: Pid, signal: Signal) -> Result<(), Failure> {
    if pid.as_raw_pid() <= 0 {
        return Err(Failure { op: Op::Kill, errno: Errno::SRCH });
    }
    rustix::process::kill_process(pid, signal).op(Op::Kill)
}

/// Asks the kernel to refuse every later gain of privileges, set-user-ID
/// programs included (prctl(2), `PR_SET_NO_NEW_PRIVS`).
///
/// # Errors
/// EINVAL before Linux 3.5.
pub fn no_new_privileges() -> Result<(), Failure> {
    rustix::thread::set_no_new_privs(true).op(Op::Prctl)
}
