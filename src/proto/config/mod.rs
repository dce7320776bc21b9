//! The configuration: its values, its keys, and the parser of the file.
//!
//! The table in `table.rs` is the only list of keys. From it follow the fields, their empty
//! values and defaults, the parser, the checks, the error texts, the output of `zigsvc check`,
//! the log lines of a reload, the keys that a reload cannot change, the manual page and the
//! completion.
//!
//! Changing this: a new key is one row there, with its documentation, and its lines in
//! `init.d/zigsvc.conf`. A new kind of value is one variant of [`keys::KeyKind`] and its arms
//! in `keys.rs`.

pub mod keys;
mod table;
pub mod toml;
pub mod value;

pub use table::{AccountName, Config, Program, ReadyMode, RestartMode, WatchdogOnStop};
use table::{LeftoverMode, SyncMode, TakeMode};

use crate::limits::HEARTBEAT_MIN;
use crate::util::path::Path;
use crate::util::time::Duration;

/// The handler of jobs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handler<'a> {
    /// The log: a job is one line in it.
    Log,
    /// The shell: a job is run with `/bin/sh -c`.
    Shell,
    /// A program, or a folder of programs.
    Path(&'a Path),
}

impl Config {
    /// Returns the handler of jobs.
    #[must_use]
    pub fn handler(&self) -> Handler<'_> {
        match self.handler.as_bytes() {
            b"log" => Handler::Log,
            b"shell" => Handler::Shell,
            _ => Handler::Path(&self.handler),
        }
    }

    /// Returns the longest time between two heartbeats: `interval`, or a third of
    /// `stale_after` if that is shorter, so that one late heartbeat is not stale. It is not
    /// shorter than [`HEARTBEAT_MIN`].
    #[must_use]
    pub fn beat_every(&self) -> Duration {
        self.interval.at_most(self.stale_after / 3).at_least(HEARTBEAT_MIN)
    }

    /// Returns true if the processes that a job leaves in its group are ended.
    #[must_use]
    pub fn ends_leftovers(&self) -> bool {
        self.leftovers == LeftoverMode::End
    }

    /// Returns true if the handler is the log, and takes only jobs that were queued for it.
    #[must_use]
    pub fn logs_own_jobs(&self) -> bool {
        self.handler() == Handler::Log && !self.takes_all()
    }

    /// Returns true if `take` is `all`.
    #[must_use]
    pub fn takes_all(&self) -> bool {
        self.take == TakeMode::All
    }

    /// Returns true if the spool is synced before new jobs are acknowledged.
    #[must_use]
    pub fn sync_always(&self) -> bool {
        self.sync == SyncMode::Always
    }
}

#[cfg(test)]
mod program_tests;
// They go through the keys of all features.
#[cfg(all(test, any(all_features, not(feature = "sys"))))]
mod tests;
