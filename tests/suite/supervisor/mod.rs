//! The supervisor.

mod program;
mod regressions;
mod services;
mod watchdog;
