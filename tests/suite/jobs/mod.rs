//! Jobs and the spool.

mod handlers;
mod queue_file;
mod spool;
