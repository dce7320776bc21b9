//! Decisions: what to do next, given what happened and what time it is. Pure:
//! time is an argument, the disk is a trait, effects are returned.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

pub mod access;
pub mod backoff;
pub mod clients;
pub mod collector;
pub mod degraded;
pub mod disk;
pub mod identity;
pub mod jobs;
pub mod joins;
pub mod leftovers;
pub mod log_stream;
pub mod notify;
pub mod opener;
pub mod queue_feed;
pub mod rate_limit;
pub mod read_pacing;
pub mod realpath;
pub mod rotation;
pub mod spool;
pub mod spool_path;
pub mod supervisor;
pub mod trust;
pub mod watchdog;
pub mod window;
