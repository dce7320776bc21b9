//! Tests that look for unknown defects (`docs/proof.md`).
//!
//! - `faults/`: each system call fails once
//! - `fuzz_targets.rs`: the fuzzers' targets on stable Rust
//! - `crash.rs`: kills of `jobs` at any moment
//! - `promise.rs`: each fault is named by a state in time, and costs no job
//! - `supervisor_kills.rs`: the same under a supervisor
//! - `program_kills.rs`: kills of programs and of their supervisor at any moment
//! - `soak.rs`: everything at once

mod crash;
mod faults;
mod fuzz_targets;
mod program_kills;
mod promise;
mod soak;
mod supervisor_kills;
