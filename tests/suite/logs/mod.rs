//! Logs.
//!
//! - `logging.rs`: the log of a service
//! - `log_command.rs`: `zigsvc log`

mod log_command;
mod logging;
