//! The commands that talk to a running service: what they print, their exit
//! codes, and what becomes of their jobs.
//!
//! - `queue.rs`: one job, and waiting for it
//! - `stdin.rs`: jobs from stdin
//! - `steer.rs`: list, cancel, retry, forget, drain, watch
//! - `status.rs`: status
//! - `others.rs`: callers that are neither root nor the service's user
//! - `support.rs`: what they share
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the way in which a test fails")]
#![allow(clippy::indexing_slicing, reason = "the way in which a test fails")]
#![allow(unreachable_pub, reason = "modules of one test program")]

mod common;
#[path = "commands/others.rs"]
mod others;
#[path = "commands/queue.rs"]
mod queue;
#[path = "commands/status.rs"]
mod status;
#[path = "commands/stdin.rs"]
mod stdin;
#[path = "commands/steer.rs"]
mod steer;
#[path = "commands/support.rs"]
mod support;
