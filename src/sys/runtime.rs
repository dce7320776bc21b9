//! rustix's interface for programs that replace libc.
//!
//! The interface holds `fork`, `sigaction` and `execve` without libc's promises about
//! other threads, which is right for a program that has neither. Its name changes with
//! every release, so that no program uses it by accident. Cargo.toml therefore pins
//! rustix, and no other file uses that name.

pub(crate) use rustix::runtime_448b8ad740e2a26f::*;
