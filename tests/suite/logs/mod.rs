//! Logs.
//!
//! - `logging.rs`: the log of a service
//! - `log_command.rs`: `zigsvc log`

#[cfg(feature = "log")]
mod log_command;
#[cfg(all_features)]
mod logging;
