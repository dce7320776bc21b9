//! The configuration: its values, its keys, and how the file is read.
//!
//! [`keys::KEYS`] is the one list of keys. From it come parsing, range checks,
//! error texts, `zigsvc check`, what a reload says has changed, and which keys
//! a reload cannot change.
//!
//! Changing this: a new key is one field here, its zero in [`Config::EMPTY`], its
//! default in [`Config::reset`], and one line in `keys.rs` (`src/lib.rs` names the
//! rest).

pub mod keys;
pub mod toml;
pub mod value;

use super::service::Service;
use crate::limits::{
    ALLOW_IDS_MAX, ALLOW_PATHS_BYTES, HEARTBEAT_MIN, LOG_MAX_BYTES, METRICS_NAME_MAX_BYTES, NAME_MAX_BYTES,
    SUPERVISED_MAX,
};
use crate::util::path::Path;
use crate::util::time::Duration;
use heapless::Vec;

/// A user or group: a name or a number, empty for none.
pub type AccountName = Vec<u8, NAME_MAX_BYTES>;

/// Where everything is when the configuration does not say.
#[derive(Debug)]
pub struct DefaultPaths {
    /// `pid_file`.
    pub pid_file: Path,
    /// `socket`.
    pub socket: Path,
    /// `log_file`.
    pub log_file: Path,
    /// `health_file`.
    pub health_file: Path,
    /// `queue_file`.
    pub queue_file: Path,
    /// `spool`.
    pub spool: Path,
    /// `metrics_name`.
    pub metrics_name: Vec<u8, METRICS_NAME_MAX_BYTES>,
}

/// Every setting. Five kilobytes: it stays
/// where it is and is filled in place.
#[derive(Debug)]
pub struct Config {
    /// The PID file of `jobs`; its folder holds those of the other services.
    pub pid_file: Path,
    /// The control socket.
    pub socket: Path,
    /// The log file.
    pub log_file: Path,
    /// The heartbeat.
    pub health_file: Path,
    /// Where jobs are appended, a line each.
    pub queue_file: Path,
    /// The folder of the journal.
    pub spool: Path,
    /// Bytes at which the log is rotated; 0 is never.
    pub log_max: u64,
    /// Rotated logs that are kept.
    pub log_keep: u32,
    /// Lines below this level are not written; an index of `Level::NAMES`.
    pub log_level: u8,
    /// How lines are dated; an index of `TimestampFormat::NAMES`.
    pub log_time: u8,
    /// Whether lines go to /dev/log too.
    pub syslog: bool,
    /// Heartbeat, and look at the queue file where there is no inotify.
    pub interval: Duration,
    /// What happens to a job: `log`, `shell`, or a path.
    pub handler: Path,
    /// Handlers at once.
    pub workers: u32,
    /// A handler that runs longer is ended; 0 is never.
    pub job_timeout: Duration,
    /// Attempts after the first.
    pub retries: u32,
    /// Wait before the second attempt; doubles to five minutes.
    pub retry_delay: Duration,
    /// Jobs that may be waiting, running or dead at once.
    pub queue_max: u32,
    /// Whether the spool is synced; an index of [`SYNC_NAMES`].
    pub sync: u8,
    /// How long running jobs may take to end after TERM.
    pub stop_timeout: Duration,
    /// Whom to become.
    pub user: AccountName,
    /// The group to take; empty for the user's own.
    pub group: AccountName,
    /// Users that may use the sockets.
    pub allow_uid: Vec<AccountName, ALLOW_IDS_MAX>,
    /// Groups that may use the sockets.
    pub allow_gid: Vec<AccountName, ALLOW_IDS_MAX>,
    /// Services that the supervisor keeps running.
    pub supervise: Vec<Service, SUPERVISED_MAX>,
    /// How often the supervisor reads health files.
    pub check_interval: Duration,
    /// Age at which a heartbeat is stale.
    pub stale_after: Duration,
    /// Stale heartbeats in a row until the service is restarted.
    pub failures: u32,
    /// The hardware watchdog; empty for none.
    pub watchdog: Path,
    /// How long a service may be unwell until the watchdog is not fed.
    pub watchdog_patience: Duration,
    /// Paths that the opener opens, each ended by a null byte.
    pub allow: Vec<u8, ALLOW_PATHS_BYTES>,
    /// Abstract socket of the collector.
    pub metrics_name: Vec<u8, METRICS_NAME_MAX_BYTES>,
    /// Whether `log_file` was named, which matters to `run`.
    pub log_file_named: bool,
}

/// The values of `sync`.
pub const SYNC_NAMES: &[&str] = &["always", "never"];

/// What a job is handed to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handler<'a> {
    /// The log.
    Log,
    /// `/bin/sh -c`.
    Shell,
    /// A program, or a directory of programs.
    Path(&'a Path),
}

impl DefaultPaths {
    /// All zeros, to be filled in place.
    pub const EMPTY: Self = Self {
        pid_file: Path::empty(),
        socket: Path::empty(),
        log_file: Path::empty(),
        health_file: Path::empty(),
        queue_file: Path::empty(),
        spool: Path::empty(),
        metrics_name: Vec::new(),
    };
}

impl Config {
    /// All zeros, to be filled in place by [`Config::reset`].
    pub const EMPTY: Self = Self {
        pid_file: Path::empty(),
        socket: Path::empty(),
        log_file: Path::empty(),
        health_file: Path::empty(),
        queue_file: Path::empty(),
        spool: Path::empty(),
        log_max: 0,
        log_keep: 0,
        log_level: 0,
        log_time: 0,
        syslog: false,
        interval: Duration::ZERO,
        handler: Path::empty(),
        workers: 0,
        job_timeout: Duration::ZERO,
        retries: 0,
        retry_delay: Duration::ZERO,
        queue_max: 0,
        sync: 0,
        stop_timeout: Duration::ZERO,
        user: AccountName::new(),
        group: AccountName::new(),
        allow_uid: Vec::new(),
        allow_gid: Vec::new(),
        supervise: Vec::new(),
        check_interval: Duration::ZERO,
        stale_after: Duration::ZERO,
        failures: 0,
        watchdog: Path::empty(),
        watchdog_patience: Duration::ZERO,
        allow: Vec::new(),
        metrics_name: Vec::new(),
        log_file_named: false,
    };

    /// Sets every value to its default.
    pub fn reset(&mut self, default_paths: &DefaultPaths) {
        self.pid_file.set(&default_paths.pid_file);
        self.socket.set(&default_paths.socket);
        self.log_file.set(&default_paths.log_file);
        self.health_file.set(&default_paths.health_file);
        self.queue_file.set(&default_paths.queue_file);
        self.spool.set(&default_paths.spool);
        self.metrics_name.clear();
        let _ = self.metrics_name.extend_from_slice(&default_paths.metrics_name);
        self.handler.assign(&[b"log"]);
        self.watchdog.assign(&[]);
        (self.log_max, self.log_keep, self.log_level, self.log_time) = (LOG_MAX_BYTES, 1, 1, 0);
        (self.syslog, self.log_file_named) = (false, false);
        (self.interval, self.job_timeout) = (Duration::from_secs(3), Duration::ZERO);
        self.stop_timeout = Duration::from_secs(10);
        (self.workers, self.retries, self.retry_delay) = (1, 2, Duration::from_secs(1));
        (self.queue_max, self.sync) = (10_000, 0);
        (self.check_interval, self.stale_after) = (Duration::from_secs(5), Duration::from_secs(15));
        (self.failures, self.watchdog_patience) = (3, Duration::from_secs(300));
        self.user.clear();
        self.group.clear();
        self.allow_uid.clear();
        self.allow_gid.clear();
        self.supervise.clear();
        let _ = self.supervise.push(Service::Jobs);
        self.allow.clear();
        let _ = self.allow.extend_from_slice(b"/etc/hostname\0/etc/os-release\0/proc/version\0");
    }

    /// What jobs are handed to.
    #[must_use]
    pub fn handler(&self) -> Handler<'_> {
        match self.handler.as_bytes() {
            b"log" => Handler::Log,
            b"shell" => Handler::Shell,
            _ => Handler::Path(&self.handler),
        }
    }

    /// How often the heart beats at least: so often that the longest pause does not look
    /// stale.
    #[must_use]
    pub fn beat_every(&self) -> Duration {
        self.interval.at_most(self.stale_after / 3).at_least(HEARTBEAT_MIN)
    }

    /// Whether the spool is made durable.
    #[must_use]
    pub fn sync_always(&self) -> bool {
        self.sync == 0
    }
}

#[cfg(test)]
mod tests;
