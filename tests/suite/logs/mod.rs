//! Logs.

mod log_command;
mod logging;
