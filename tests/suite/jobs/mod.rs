//! Jobs, from the queue file and the spool to the ends of their handlers.
//!
//! - `full_disks.rs`: filesystems and limits on which a full disk behaves in its own way
//! - `handlers.rs`: the environment of a handler, its output, its end, and the next state of its job
//! - `later.rs`: delayed jobs, and a queue that is held
//! - `leftovers.rs`: the processes that a job leaves, and those that a killed service left
//! - `queue_faults.rs`: a queue file, claims and a folder that fail, move, or belong to several users
//! - `queue_file.rs`: every way in which lines come, and every way in which the file is none
//! - `moved_spool.rs`: the folder taken away from its path while the service runs
//! - `spool.rs`: the folder and its journal in any state, and a disk that is full

mod full_disks;
mod handlers;
mod later;
mod leftovers;
mod moved_spool;
mod queue_faults;
mod queue_file;
mod spool;
