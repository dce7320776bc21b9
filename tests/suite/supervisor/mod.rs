//! The supervisor.
//!
//! - `services.rs`: which of its services are started, adopted, ended, killed, left alone
//! - `evidence.rs`: a lost heartbeat is no hang: full disks, rights, namespaces
//! - `program.rs`: a supervised program that is no service of zigsvc
//! - `watchdog.rs`: the hardware watchdog
//! - `regressions.rs`: mistakes that were found once

mod evidence;
mod program;
mod regressions;
mod services;
mod watchdog;
