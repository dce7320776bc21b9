//! Tests that look for unknown defects (`docs/proof.md`).
//!
//! - `faults/`: each system call fails once
//! - `fuzz_targets.rs`: the fuzzers' targets on stable Rust
//! - `crash.rs`: kills of `jobs` at any moment
//! - `supervisor_kills.rs`: the same under a supervisor
//! - `soak.rs`: everything at once

mod crash;
mod faults;
mod fuzz_targets;
mod soak;
mod supervisor_kills;
