//! The only layer that makes system calls. Every function names its call and
//! its promise; every descriptor is close-on-exec from birth; every failure
//! says which call failed and with which errno.
//!
//! `unsafe` lives here and in the binary's `rt`, nowhere else.

pub mod arch;
pub mod args;
pub mod clock;
pub mod datagram;
pub mod dir;
mod failure;
pub mod fd_passing;
pub mod fds;
pub mod file;
pub mod identity;
pub mod inotify;
pub mod lease;
pub mod lock;
pub mod memory;
pub mod once;
pub mod oom;
pub mod poll;
pub mod process;
mod runtime;
pub mod sandbox;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod syslog;
pub mod watchdog;

pub use failure::{Failure, Op, WithOp, describe_errno, push_errno_name};
pub use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
pub use rustix::io::Errno;
