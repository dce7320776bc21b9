//! rustix's interface for programs that replace libc.
//!
//! It holds `fork`, `sigaction` and `execve` without libc's promises about
//! other threads, which is right for a program that has neither. Its name
//! changes with every release so that it is not used by accident; that is why
//! Cargo.toml pins rustix, and why no other file names it.

pub(crate) use rustix::runtime_448b8ad740e2a26f::*;
