//! Decisions: what to do next, given what happened and what time it is. Pure:
//! time is an argument, the disk is a trait, effects are returned.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

pub mod backoff;
pub mod disk;
pub mod metrics;
pub mod notify;
pub mod opener;
pub mod pace;
pub mod quota;
pub mod resolve;
pub mod rotation;
pub mod spool;
pub mod stream;
pub mod supervisor;
pub mod window;
