//! The control socket. The contract is `docs/control.md`.
//!
//! - `language.rs`: requests and answers, byte for byte
//! - `requests.rs`: what they do to jobs, and what survives a kill
//! - `steer.rs`: list, cancel, retry, forget, drain, watch
//! - `access.rs`: who may use it, and its name in the file system
//! - `hostile.rs`: clients that send noise, too much, too little, or do not read
//! - `minute.rs`: all of them at once
//! - `regressions.rs`: mistakes that were found once

mod access;
mod hostile;
mod language;
mod minute;
mod regressions;
mod requests;
mod steer;
