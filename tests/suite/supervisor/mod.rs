//! The supervisor.
//!
//! - `services.rs`: which of its services are started, adopted, ended, killed, left alone
//! - `program.rs`: a program of somebody else's
//! - `watchdog.rs`: the hardware watchdog
//! - `regressions.rs`: mistakes that were found once

mod program;
mod regressions;
mod services;
mod watchdog;
