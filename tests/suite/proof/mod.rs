//! Proof.

mod crash;
mod faults;
mod fuzz_targets;
mod soak;
mod supervisor_kills;
