//! A service, from its start to its end.
//!
//! - `background.rs`: `start`, `stop`, `restart`, `status`, and the files that they leave
//! - `foreground.rs`: `run`
//! - `notify.rs`: `run` under a service manager
//! - `health.rs`: the heartbeat
//! - `identity.rs`: PID files that are lost, and the second locks that stand in for them
//! - `stops.rs`: stops on purpose, twice and from within a job; restarts and their options
//! - `process.rs`: what a service inherits, drops, and asks of the kernel

mod background;
mod foreground;
mod health;
mod identity;
mod notify;
mod process;
mod stops;
