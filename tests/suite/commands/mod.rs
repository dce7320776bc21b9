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
//! - `habits.rs`: what people type, and the width and colour of what comes
//! - `earlier.rs`: a configuration and a client of 0.1.0
//! - `support.rs`: what they share

mod config;
mod doctor;
mod earlier;
mod habits;
mod others;
mod queue;
mod status;
mod stdin;
mod steer;
mod support;
