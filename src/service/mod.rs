//! The five services, and the parts that they share.
//!
//! Shared by all:
//!
//! - `base.rs`: one turn of a service, its status, a reload, its end
//! - `config_source.rs`: the source of the configuration
//! - `reload.rs`: the changes of a new configuration
//! - `accounts.rs`: users and groups by their names
//! - `trust.rs`: the walk along a path whose folders others must not change
//! - `own_paths.rs`: the paths of a service, judged
//! - `lifecycle.rs`: from a command to a service that is ready, and its end
//! - `log.rs`: lines to the file, to stderr or a journal there, to syslog
//! - `logfile.rs`: the file of a log, and its rotation
//! - `heartbeat.rs`: the health file
//! - `identity.rs`: looks if a path still leads to an open file
//! - `lock_holder.rs`: the process that holds a service's lock
//! - `boot.rs`: the id of this boot
//! - `down_mark.rs`: the mark of a stop on purpose
//! - `second_lock.rs`: the lock that holds while the PID file is lost
//! - `child_output.rs`: the output of programs that a service started
//! - `program.rs`: the file of a program, as a shell would find it; `program_files.rs`: the files that
//!   describe the programs of the supervisor; `program_log.rs`: the log of one of them
//! - `notify.rs`: messages to the service manager
//! - `memory.rs`: the memory of every service
//! - `listener.rs`, `connections.rs`, `denials.rs`: a socket, its access policy, its
//!   connections, the clients that are denied
//!
//! The services:
//!
//! - `hub.rs`: the service that passes lines between clients
//! - `collector.rs`: the service that averages metrics
//! - `opener/`: the service that opens files for clients that may not open them
//! - `jobs/`: the service that runs jobs; `disk.rs` is the real disk under its spool,
//!   `spool_folder.rs` its folder
//! - `supervisor/`: the service that keeps the others running

pub mod accounts;
pub mod base;
pub mod boot;
pub mod child_output;
#[cfg(feature = "collector")]
pub mod collector;
pub mod config_source;
pub mod connections;
pub mod denials;
#[cfg(feature = "jobs")]
pub mod disk;
pub mod down_mark;
pub mod heartbeat;
#[cfg(feature = "hub")]
pub mod hub;
pub mod identity;
#[cfg(feature = "jobs")]
pub mod jobs;
pub mod leftovers;
pub mod lifecycle;
pub mod listener;
pub mod lock_holder;
pub mod log;
pub mod logfile;
pub mod memory;
pub mod notify;
#[cfg(feature = "opener")]
pub mod opener;
pub mod own_paths;
pub mod program;
pub mod program_files;
pub mod program_log;
#[cfg(feature = "jobs")]
pub mod queue_folder;
pub mod reload;
pub mod second_lock;
#[cfg(feature = "jobs")]
pub mod spool_folder;
#[cfg(feature = "supervisor")]
pub mod supervisor;
pub mod syslog;
pub mod trust;
