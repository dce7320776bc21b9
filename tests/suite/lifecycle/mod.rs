//! A service, from its start to its end.
//!
//! - `background.rs`: `start`, `stop`, `restart`, `status`, and the files that they leave
//! - `foreground.rs`: `run`
//! - `notify.rs`: `run` under a service manager
//! - `health.rs`: the heartbeat
//! - `process.rs`: what a service inherits, drops, and asks of the kernel

mod background;
mod foreground;
mod health;
mod notify;
mod process;
