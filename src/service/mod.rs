//! The services, and what they share: settings, the way into the background,
//! the log, the heartbeat.
//!
//! - `config_source.rs`: where the configuration is, and reading it (again)
//! - `reload.rs`: the changes of a new configuration
//! - `accounts.rs`: users and groups by their names
//! - `lifecycle.rs`: from a command to a service that is ready, and its end
//! - `log.rs`: lines to the file, to stderr (or a journal there), to syslog
//! - `logfile.rs`: that file, and its rotation
//! - `heartbeat.rs`: the health file
//! - `lock_holder.rs`: the process that holds a service's lock
//! - `child_output.rs`: what the programs that they start write
//! - `program.rs`: a program's file, as a shell would find it
//! - `notify.rs`: the service manager that started it, if it wants to be told
//! - `memory.rs`: the memory they use
//! - `listener.rs`, `connections.rs`: a socket, who may use it, its connections
//! - `denials.rs`: those who may not use it
//! - `base.rs`: the base of all five services
//! - `hub.rs`: the service that passes lines between clients
//! - `collector.rs`: the service that averages metrics
//! - `opener/`: the service that opens files for those who may not
//! - `disk.rs`: the real disk under `state::spool`
//! - `jobs/`: the service that runs jobs
//! - `supervisor/`: the service that keeps the others running
//!
//! The loop of every service is the one of `jobs/mod.rs`.

pub mod accounts;
pub mod base;
pub mod child_output;
pub mod collector;
pub mod config_source;
pub mod connections;
pub mod denials;
pub mod disk;
pub mod heartbeat;
pub mod hub;
pub mod jobs;
pub mod lifecycle;
pub mod listener;
pub mod lock_holder;
pub mod log;
pub mod logfile;
pub mod memory;
pub mod notify;
pub mod opener;
pub mod program;
pub mod reload;
pub mod supervisor;
