//! Attacks, tried for real, grouped by who attacks (`docs/threats.md`, which also names the
//! tests of other files that show a defence).
//!
//! - `stranger.rs`: a local user without any rights
//! - `guest.rs`: a client that may only queue
//! - `environment.rs`: limits, arguments and variables at the start
//! - `handler.rs`: a handler that was taken over
//! - `worker.rs`: the opener's worker, taken over
//! - `peers.rs`: whatever listens in the place of a service
//! - `filesystem.rs`: names that others plant under the service's paths
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the way in which a test fails")]
#![allow(clippy::indexing_slicing, reason = "the way in which a test fails")]
#![allow(unreachable_pub, reason = "modules of one test program")]

mod common;
#[path = "attacks/environment.rs"]
mod environment;
#[path = "attacks/filesystem.rs"]
mod filesystem;
#[path = "attacks/guest.rs"]
mod guest;
#[path = "attacks/handler.rs"]
mod handler;
#[path = "attacks/peers.rs"]
mod peers;
#[path = "attacks/stranger.rs"]
mod stranger;
#[path = "attacks/worker.rs"]
mod worker;
