//! The supervisor.
//!
//! - `services.rs`: which of its services are started, adopted, ended, killed, left alone
//! - `commands.rs`: the commands about programs
//! - `control.rs`: the socket, the commands that use it, `status --all`
//! - `evidence.rs`: a lost heartbeat is no hang: full disks, rights, namespaces
//! - `leftovers.rs`: what a killed supervisor of a program leaves, and what `status` shows
//! - `program.rs`: a supervised program that is no service of zigsvc
//! - `programs.rs`: the programs that `supervise` names
//! - `watchdog.rs`: the hardware watchdog
//! - `regressions.rs`: mistakes that were found once

#[cfg(all_features)]
mod commands;
#[cfg(all_features)]
mod control;
#[cfg(all_features)]
mod evidence;
#[cfg(all_features)]
mod leftovers;
mod program;
#[cfg(all_features)]
mod programs;
#[cfg(all_features)]
mod regressions;
#[cfg(all_features)]
mod services;
#[cfg(all_features)]
mod watchdog;
