//! Starting a program, with its output in a pipe: a job's handler, a service of
//! this program, or any program that is supervised.
//!
//! The child shares its parent's memory until it execs (vfork(2)), so between clone and
//! exec it makes system calls and nothing else, on a stack of its own.
#![expect(unsafe_code, reason = "clone and execve")]

use super::identity::{self, Identity};
use super::{Errno, Failure, Op, OwnedFd, WithOp, arch, fds, process, runtime, signal};
use crate::util::text::Writer;
use core::ffi::{CStr, c_char};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicI32, Ordering};
use linux_raw_sys::general::{CLONE_VFORK, CLONE_VM, SIGCHLD};
use rustix::fd::{AsFd, AsRawFd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal};

/// Bytes of the stack of a child between clone and exec.
const SPAWN_STACK_BYTES: usize = 4096;

/// The child shares this memory, its parent waits for its execve(2), and its end is a
/// SIGCHLD (clone(2)).
const CLONE_FLAGS: usize = (CLONE_VM | CLONE_VFORK | SIGCHLD) as usize;

/// The descriptor through which a service that was started by [`spawn`] reports.
pub const REPORT_FD: i32 = 3;

/// The only PATH of a handler. Programs are searched there if the environment has no PATH.
pub const SAFE_PATH: &CStr = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// This program, even if its file was moved or deleted.
pub const OURSELVES: &CStr = c"/proc/self/exe";

/// The relation of a program to the process that starts it.
#[derive(Clone, Copy)]
pub enum Role<'a> {
    /// Leads a process group of its own and is killed when its parent dies, so that a handler
    /// never outlives the daemon.
    Handler,
    /// Leads a session of its own and outlives its parent. The program gets this descriptor as
    /// [`REPORT_FD`]. When its file is gone, the running program is executed instead.
    Service(&'a OwnedFd),
    /// Leads a session of its own, and gets a signal when its parent dies.
    Foreign(&'a Foreign<'a>),
}

/// The circumstances of a program that is supervised.
pub struct Foreign<'a> {
    /// The working directory.
    pub folder: &'a CStr,
    /// The program does not start without its working directory.
    pub needs_folder: bool,
    /// The user that it becomes.
    pub user: Option<&'a Identity>,
    /// The bits that its new files do not have.
    pub umask: u32,
    /// The maximum number of its open files; 0 for that of this process.
    pub open_files: u32,
    /// The signal that it gets when its parent dies.
    pub death_signal: Signal,
    /// The descriptor that it gets as [`REPORT_FD`].
    pub ready: Option<&'a OwnedFd>,
    /// The output of the child goes to /dev/null, which is descriptor 0 of this process.
    pub is_silent: bool,
}

/// A program to be started. Everything must stay valid during the call only.
pub struct Program<'a> {
    /// The relation of the program to this process.
    pub role: Role<'a>,
    /// The file to execute.
    pub path: &'a CStr,
    /// `argv`, ended by a null pointer.
    pub argv: &'a [*const c_char],
    /// `envp`, ended by a null pointer.
    pub envp: &'a [*const c_char],
}

/// A program that was started.
pub struct Child {
    /// Its PID, which is its process group's number too.
    pub pid: Pid,
    /// Its standard output and standard error; non-blocking.
    pub output: OwnedFd,
    /// The end of the pipe to which the program writes. While it is held, `output` has no end.
    pub input: OwnedFd,
}

/// The data that the child needs, in memory that it shares.
struct Setup<'a> {
    program: &'a Program<'a>,
    output: i32,
    parent: Pid,
    /// The errno of the call that failed, with the index of the call in [`STEPS`] above its 16
    /// bits.
    failed: AtomicI32,
}

/// The calls of the child that can fail.
const STEPS: [Op; 4] = [Op::Execve, Op::Chdir, Op::Setresuid, Op::Setrlimit];

/// Starts `program`. Under QEMU's user mode a failure to execute it cannot be reported: the child
/// writes one line about it into its output and exits with 127 (not found) or 126 (found, but not
/// executable), as a shell does.
///
/// # Errors
/// EMFILE, ENFILE, EAGAIN or ENOMEM of pipe2(2) and clone(2); as execve(2) says.
pub fn spawn(program: &Program<'_>) -> Result<Child, Failure> {
    debug_assert!(program.argv.last().is_some_and(|last| last.is_null()));
    debug_assert!(program.envp.last().is_some_and(|last| last.is_null()));
    let (output, write_end) = pipe_with(PipeFlags::CLOEXEC).op(Op::Pipe2)?;
    fds::set_nonblocking(&output)?;
    let failed = AtomicI32::new(0);
    let setup = Setup { program, output: write_end.as_raw_fd(), parent: process::pid(), failed };
    let mut stack = MaybeUninit::<Stack>::uninit();
    let result = signal::with_all_blocked(|| {
        // SAFETY: the stack is aligned by its type and outlives the call, in
        // which this process is suspended until the child execs or exits;
        // `setup` is what `child` expects.
        unsafe {
            let top = stack.as_mut_ptr().add(1).cast::<u8>();
            arch::clone_vfork(CLONE_FLAGS, top, child, (&raw const setup).cast())
        }
    });
    let raw = i32::try_from(result).unwrap_or(0);
    match (Pid::from_raw(raw.max(0)), setup.failed.load(Ordering::Relaxed)) {
        (Some(pid), 0) => Ok(Child { pid, output, input: write_end }),
        (Some(pid), failed) => {
            process::reap(pid);
            let step = usize::try_from(failed >> 16).unwrap_or(0);
            let op = STEPS.get(step).copied().unwrap_or(Op::Execve);
            Err(Failure { op, errno: Errno::from_raw_os_error(failed & 0xffff) })
        }
        (None, _) => Err(Failure { op: Op::Clone, errno: Errno::from_raw_os_error(raw.wrapping_neg()) }),
    }
}

/// The child's stack.
#[repr(C, align(16))]
struct Stack([u8; SPAWN_STACK_BYTES]);

/// Runs in the child: makes system calls only, and executes the program.
unsafe extern "C" fn child(setup: *const u8) -> ! {
    // SAFETY: `spawn` passes its `Setup`, which lives until the child execs or exits.
    let setup = unsafe { &*setup.cast::<Setup<'_>>() };
    let role = setup.program.role;
    match role {
        Role::Handler => {
            let _ = rustix::process::setpgid(None, None);
            die_with(setup.parent, Signal::KILL);
        }
        Role::Service(_) | Role::Foreign(..) => drop(process::setsid()),
    }
    let mut output = setup.output;
    if let Role::Foreign(Foreign { is_silent: true, .. }) = role {
        output = 0;
    }
    for number in 1..=2 {
        if fds::replace(fds::borrow(output), number).is_err() {
            process::exit(126);
        }
    }
    let report = match role {
        Role::Service(report) => Some(report),
        Role::Foreign(foreign) => foreign.ready,
        Role::Handler => None,
    };
    if report.is_some_and(|report| fds::replace(report.as_fd(), REPORT_FD).is_err()) {
        process::exit(126);
    }
    let mut umask = 0o022;
    if let Role::Foreign(foreign) = role {
        umask = foreign.umask;
        if foreign.open_files > 0
            && let Err(failure) = fds::set_limit(foreign.open_files)
        {
            fail(setup, 3, failure.errno);
        }
        if let Err(failure) = process::chdir(foreign.folder)
            && foreign.needs_folder
        {
            fail(setup, 1, failure.errno);
        }
        if let Some(Err(failure)) = foreign.user.map(identity::drop_privileges) {
            fail(setup, 2, failure.errno);
        }
        // A change of the user clears it.
        die_with(setup.parent, foreign.death_signal);
    }
    process::umask(umask);
    signal::unblock_in_child();
    let mut errno = execute(setup.program.path, setup.program.argv, setup.program.envp);
    if let (Role::Service(_), Errno::NOENT) = (role, errno) {
        errno = execute(OURSELVES, setup.program.argv, setup.program.envp);
    }
    fail(setup, 0, errno)
}

/// Reports in the child why the program cannot be executed, and ends the child. `step` is the index
/// in [`STEPS`].
fn fail(setup: &Setup<'_>, step: i32, errno: Errno) -> ! {
    // The parent, which waits, shares this memory, except under QEMU's user mode.
    setup.failed.store(step << 16 | errno.raw_os_error(), Ordering::Relaxed);
    report(setup.program.path, errno);
    process::exit(if errno == Errno::NOENT { 127 } else { 126 })
}

/// Executes `path` in this process (execve(2)). Returns only if that failed, with the
/// reason. Both arrays are ended by a null pointer, otherwise the reason is EINVAL.
pub fn execute(path: &CStr, argv: &[*const c_char], envp: &[*const c_char]) -> Errno {
    let is_ended = |array: &[*const c_char]| array.last().is_some_and(|last| last.is_null());
    if !is_ended(argv) || !is_ended(envp) {
        return Errno::INVAL;
    }
    // SAFETY: both arrays end with a null pointer and hold terminated strings.
    unsafe { runtime::execve(path, argv.as_ptr().cast(), envp.as_ptr().cast()) }
}

/// Executes `file` in this process, or this binary if the file is gone. Returns the reason if
/// that fails (execve(2)).
#[must_use]
pub fn replace_by(file: &CStr, argv: &[*const c_char], envp: &[*const c_char]) -> Errno {
    match execute(file, argv, envp) {
        Errno::NOENT => execute(OURSELVES, argv, envp),
        errno => errno,
    }
}

/// Ends this child when `parent` ends, by `signal`, or now if it has ended.
fn die_with(parent: Pid, signal: Signal) {
    if !process::die_with(parent, signal) {
        process::exit(0);
    }
}

/// Writes to the job's output why the program could not be executed.
fn report(path: &CStr, errno: Errno) {
    let mut buffer = [0; 400];
    let mut out = Writer::new(&mut buffer);
    out.push_str("zigsvc: execve ");
    out.push(path.to_bytes());
    out.push_str(": ");
    super::describe_errno(errno, &mut out);
    out.push_str("\n");
    process::write_stderr(out.as_bytes());
}
