//! What happens to jobs, from the queue file and the spool to their handlers' ends.
//!
//! - `handlers.rs`: what a handler is given, its output, its end, and what follows from that
//! - `queue_file.rs`: every way in which lines come, and every way in which the file is none
//! - `spool.rs`: the folder and its journal in any state, and a disk that is full

mod handlers;
mod queue_file;
mod spool;
