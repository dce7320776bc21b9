//! The supervisor.
//!
//! - `services.rs`: which of its services are started, adopted, ended, killed, left alone
//! - `commands.rs`: the commands about programs
//! - `control.rs`: the socket, the commands that use it, `status --all`
//! - `evidence.rs`: a lost heartbeat is no hang: full disks, rights, namespaces
//! - `leftovers.rs`: what a killed supervisor of a program leaves, and what `status` shows
//! - `program.rs`: a supervised program that is no service of zigsvc
//! - `watchdog.rs`: the hardware watchdog
//! - `regressions.rs`: mistakes that were found once

mod commands;
mod control;
mod evidence;
mod leftovers;
mod program;
mod regressions;
mod services;
mod watchdog;
