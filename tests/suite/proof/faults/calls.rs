//! The faults that can happen to each system call. `inject.c` leaves out those that cannot
//! happen to the descriptor at hand.

use std::collections::BTreeMap;

/// The fault that a call gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The call fails: the name and the number of the error.
    Fails(&'static str, i32),
    /// The call does half of what was asked for.
    Short,
    /// The descriptor that comes with a message is lost: there is no room for it.
    Cut,
    /// Its process is killed before it.
    Kill,
}

/// The `number`-th call of a kind gets the action.
#[derive(Clone, Debug)]
pub struct Injection {
    /// The name of the call.
    pub call: String,
    /// From 1.
    pub number: u64,
    /// The fault that the call gets.
    pub action: Action,
}

impl Injection {
    /// Returns the name for people, and for `ZIGSVC_FAULTS`.
    pub fn name(&self, scenario: &str) -> String {
        format!("{scenario}/{}/{}/{}", self.call, self.number, self.action())
    }

    /// Returns true if this is `SCENARIO/CALL/ACTION`, with any number.
    pub fn is_like(&self, scenario: &str, pattern: &str) -> bool {
        pattern.split('/').eq([scenario, &self.call, self.action()])
    }

    /// Returns the name of the fault.
    pub fn action(&self) -> &'static str {
        match self.action {
            Action::Fails(name, _) => name,
            Action::Short => "short",
            Action::Cut => "cut",
            Action::Kill => "kill",
        }
    }
}

const INTR: Action = Action::Fails("EINTR", 4);
const IO: Action = Action::Fails("EIO", 5);
const AGAIN: Action = Action::Fails("EAGAIN", 11);
const NOMEM: Action = Action::Fails("ENOMEM", 12);
const NFILE: Action = Action::Fails("ENFILE", 23);
const MFILE: Action = Action::Fails("EMFILE", 24);
const NOSPC: Action = Action::Fails("ENOSPC", 28);
const ROFS: Action = Action::Fails("EROFS", 30);
const PIPE: Action = Action::Fails("EPIPE", 32);
const NOLCK: Action = Action::Fails("ENOLCK", 37);
const NOSYS: Action = Action::Fails("ENOSYS", 38);
const OPNOTSUPP: Action = Action::Fails("EOPNOTSUPP", 95);
const CONNABORTED: Action = Action::Fails("ECONNABORTED", 103);
const CONNRESET: Action = Action::Fails("ECONNRESET", 104);
const TOOMANYREFS: Action = Action::Fails("ETOOMANYREFS", 109);
const DQUOT: Action = Action::Fails("EDQUOT", 122);
const SHORT: Action = Action::Short;
const CUT: Action = Action::Cut;

/// The table: man2, and what disks, quotas and old kernels add. A kind that is
/// not here is not failed, only killed at.
const PLAUSIBLE: &[(&[&str], &[Action])] = &[
    (&["openat"], &[INTR, IO, NOMEM, NFILE, MFILE, NOSPC, ROFS, DQUOT]),
    (&["openat2"], &[INTR, IO, AGAIN, NOMEM, NFILE, MFILE, NOSYS]),
    (&["readlinkat"], &[IO, NOMEM]),
    (&["read"], &[INTR, IO, AGAIN, SHORT]),
    (&["pread64"], &[INTR, IO, SHORT]),
    (&["write"], &[INTR, IO, AGAIN, NOMEM, NOSPC, DQUOT, SHORT]),
    (&["pwrite64"], &[INTR, IO, NOSPC, DQUOT, SHORT]),
    // rustix panics on such an error in debug builds; the release builds continue.
    (&["close"], if cfg!(debug_assertions) { &[] } else { &[INTR, IO] }),
    (&["ftruncate"], &[INTR, IO]),
    (&["fallocate"], &[INTR, IO, NOSPC, DQUOT, NOSYS, OPNOTSUPP]),
    (&["fdatasync", "fsync"], &[INTR, IO, NOSPC, DQUOT]),
    (&["rename", "renameat", "renameat2"], &[IO, NOSPC, ROFS, DQUOT, NOMEM]),
    (&["unlink", "unlinkat"], &[IO, ROFS, NOMEM]),
    (&["mkdir", "mkdirat"], &[IO, NOSPC, ROFS, DQUOT]),
    (&["fstat", "newfstatat", "stat", "lstat", "statx"], &[IO, NOMEM]),
    (&["fchmod", "fchmodat", "chmod", "fchown", "fchownat"], &[IO, ROFS]),
    (&["faccessat", "access"], &[IO, NOMEM]),
    (&["statfs", "fstatfs"], &[IO, NOSYS]),
    (&["getdents64"], &[IO, NOMEM]),
    (&["fcntl"], &[NOLCK, NOMEM, MFILE]),
    (&["dup2"], &[INTR, MFILE]),
    (&["chdir", "chroot"], &[IO, NOMEM]),
    (&["setgroups"], &[NOMEM]),
    (&["setresuid", "setresgid"], &[AGAIN, NOMEM]),
    (&["getcwd"], &[NOMEM]),
    (&["pipe2", "inotify_init1"], &[NFILE, MFILE, NOMEM]),
    (&["inotify_add_watch"], &[NOSPC, NOMEM]),
    (&["close_range"], &[NOSYS, NOMEM]),
    (&["socket", "socketpair"], &[NFILE, MFILE, NOMEM]),
    (&["bind"], &[IO, NOSPC, ROFS, NOMEM]),
    (&["connect"], &[INTR, AGAIN, NOMEM]),
    (&["accept4"], &[INTR, AGAIN, NFILE, MFILE, NOMEM, CONNABORTED]),
    (&["sendto"], &[INTR, AGAIN, NOMEM, PIPE, SHORT]),
    (&["sendmsg"], &[INTR, AGAIN, NOMEM, PIPE, TOOMANYREFS]),
    (&["recvfrom"], &[INTR, AGAIN, NOMEM, CONNRESET, SHORT]),
    (&["recvmsg"], &[INTR, AGAIN, NOMEM, CONNRESET, CUT]),
    (&["getsockopt", "shutdown"], &[NOMEM]),
    (&["poll", "ppoll"], &[INTR, NOMEM]),
    (&["fork", "vfork", "clone"], &[AGAIN, NOMEM]),
    (&["execve"], &[IO, AGAIN, NOMEM, NFILE]),
    (&["wait4", "waitid"], &[INTR]),
    (&["pidfd_open"], &[NFILE, MFILE, NOMEM, NOSYS]),
    (&["madvise"], &[AGAIN, NOMEM]),
    // Whether a descriptor is a terminal.
    (&["ioctl"], &[IO]),
    // These calls get no error. The process is killed at them.
    (&["kill", "pidfd_send_signal", "setsid", "setpgid", "getpgid", "prctl", "listen", "exit_group"], &[]),
];

/// Calls at which nothing is done. They cannot fail in a plausible way, and no other process
/// sees their effect, so a death before them is one before the next call.
const LEFT_OUT: &[&str] = &[
    "getegid",
    "geteuid",
    "getpid",
    "getppid",
    "getsid",
    "lseek",
    "prlimit64",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "umask",
];

/// Calls of which nothing is said here.
pub fn unknown(counts: &BTreeMap<String, u64>) -> Vec<&str> {
    let calls = || PLAUSIBLE.iter().flat_map(|(calls, _)| *calls).chain(LEFT_OUT);
    counts.keys().map(String::as_str).filter(|name| !calls().any(|call| call == name)).collect()
}

/// Returns every fault that can happen to these calls.
pub fn injections(counts: &BTreeMap<String, u64>) -> Vec<Injection> {
    let mut all = Vec::new();
    for (call, count) in counts {
        let Some((_, actions)) = PLAUSIBLE.iter().find(|(calls, _)| calls.contains(&call.as_str())) else {
            continue;
        };
        for number in 1..=*count {
            for action in actions.iter().copied().chain([Action::Kill]) {
                all.push(Injection { call: call.clone(), number, action });
            }
        }
    }
    all
}
