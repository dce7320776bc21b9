//! The commands that talk to a running service: their output, their exit codes, and the fate
//! of their jobs.
//!
//! - `queue.rs`: one job, and waiting for it
//! - `stdin.rs`: jobs from stdin
//! - `steer.rs`: list, cancel, retry, forget, drain, watch
//! - `status.rs`: status
//! - `others.rs`: callers that are neither root nor the service's user
//! - `config.rs`: the configuration and the command line
//! - `doctor.rs`: doctor
//! - `support.rs`: what they share

mod config;
mod doctor;
mod others;
mod queue;
mod status;
mod stdin;
mod steer;
mod support;
