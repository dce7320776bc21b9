//! The supervisor.
//!
//! - `services.rs`: which of its services are started, adopted, ended, killed, left alone
//! - `program.rs`: a supervised program that is no service of zigsvc
//! - `watchdog.rs`: the hardware watchdog
//! - `regressions.rs`: mistakes that were found once

mod program;
mod regressions;
mod services;
mod watchdog;
