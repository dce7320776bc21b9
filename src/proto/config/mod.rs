//! The configuration: its values, its keys, and the parser of the file.
//!
//! [`keys::KEYS`] is the only list of keys. The parser, the ranges, the error texts, `zigsvc
//! check`, the changes that a reload logs, and the keys that a reload cannot change follow
//! from it.
//!
//! Changing this: a new key is one field here, its zero in [`Config::EMPTY`], its default in
//! [`Config::reset`], and one line in `keys.rs`. `src/lib.rs` names the other files.

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

/// A user or group, by name or number: at most [`NAME_MAX_BYTES`] bytes, empty for none.
pub type AccountName = Vec<u8, NAME_MAX_BYTES>;

/// The default paths, which depend on the user and on `-d`.
#[derive(Debug)]
pub struct DefaultPaths {
    /// The default of `pid_file`.
    pub pid_file: Path,
    /// The default of `socket`.
    pub socket: Path,
    /// The default of `log_file`.
    pub log_file: Path,
    /// The default of `health_file`.
    pub health_file: Path,
    /// The default of `queue_file`.
    pub queue_file: Path,
    /// The default of `spool`.
    pub spool: Path,
    /// The default of `metrics_name`.
    pub metrics_name: Vec<u8, METRICS_NAME_MAX_BYTES>,
}

/// The value of every key. It takes five kilobytes and is therefore filled in place, never
/// moved.
#[derive(Debug)]
pub struct Config {
    /// The PID file of `jobs`. The PID files of the other services are in the same folder.
    pub pid_file: Path,
    /// The control socket.
    pub socket: Path,
    /// The log file.
    pub log_file: Path,
    /// The health file, which holds the last heartbeat.
    pub health_file: Path,
    /// The file to which programs append jobs, one a line.
    pub queue_file: Path,
    /// The folder of the journal.
    pub spool: Path,
    /// The size in bytes at which the log is rotated. 0: it is never rotated.
    pub log_max: u64,
    /// The number of rotated logs to keep, 1 to 99.
    pub log_keep: u32,
    /// The lowest level that is logged, as an index of `Level::NAMES`.
    pub log_level: u8,
    /// The timestamps of log lines, as an index of `TimestampFormat::NAMES`.
    pub log_time: u8,
    /// True if log lines are also sent to /dev/log.
    pub syslog: bool,
    /// The longest time between two heartbeats, 100 ms to a day. Without inotify, it is also
    /// the time between two checks of the queue file.
    pub interval: Duration,
    /// The handler of a job: `log`, `shell`, or a path.
    pub handler: Path,
    /// The number of handlers that run at a time, 1 to 8.
    pub workers: u32,
    /// The time after which a handler is ended, up to 30 days. Zero: it is never ended.
    pub job_timeout: Duration,
    /// The number of attempts after the first, up to 100.
    pub retries: u32,
    /// The delay before the second attempt, up to a day. It doubles with each attempt, up to
    /// five minutes.
    pub retry_delay: Duration,
    /// The maximum number of waiting, running and dead jobs together, 1 to 10 million.
    pub queue_max: u32,
    /// When the spool is synced, as an index of [`SYNC_NAMES`].
    pub sync: u8,
    /// The time that running jobs have to end after SIGTERM, up to a day. SIGKILL follows.
    pub stop_timeout: Duration,
    /// The user that the service changes to. Empty: it keeps its user.
    pub user: AccountName,
    /// The group that the service changes to. Empty: the user's own.
    pub group: AccountName,
    /// The users that may use the sockets.
    pub allow_uid: Vec<AccountName, ALLOW_IDS_MAX>,
    /// The groups that may use the sockets.
    pub allow_gid: Vec<AccountName, ALLOW_IDS_MAX>,
    /// The services that the supervisor keeps running.
    pub supervise: Vec<Service, SUPERVISED_MAX>,
    /// The time between two probes of the supervisor, 100 ms to a day.
    pub check_interval: Duration,
    /// The age from which a heartbeat is stale, 100 ms to a day.
    pub stale_after: Duration,
    /// The number of failed probes in a row after which a service is restarted, 1 to 100.
    pub failures: u32,
    /// The device of the hardware watchdog. Empty: there is none.
    pub watchdog: Path,
    /// The time that a service may be unhealthy before the hardware watchdog is withheld, 1
    /// second to a day.
    pub watchdog_patience: Duration,
    /// The paths that the opener opens. A NUL byte ends each.
    pub allow: Vec<u8, ALLOW_PATHS_BYTES>,
    /// The abstract socket of the collector, without its leading NUL byte.
    pub metrics_name: Vec<u8, METRICS_NAME_MAX_BYTES>,
    /// True if the configuration names `log_file`. `run` needs to know it.
    pub log_file_named: bool,
}

/// The values of `sync`. A new job is on disk before it is acknowledged with `always`; the
/// spool is never synced with `never`.
pub const SYNC_NAMES: &[&str] = &["always", "never"];

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

impl DefaultPaths {
    /// Zeros, to be filled in place.
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
    /// Zeros, to be filled in place by [`Config::reset`].
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

    /// Sets each value to its default.
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
    /// `stale_after` if that is shorter, so that a healthy service never looks stale. It is
    /// not shorter than [`HEARTBEAT_MIN`].
    #[must_use]
    pub fn beat_every(&self) -> Duration {
        self.interval.at_most(self.stale_after / 3).at_least(HEARTBEAT_MIN)
    }

    /// Returns true if the spool is synced before new jobs are acknowledged.
    #[must_use]
    pub fn sync_always(&self) -> bool {
        self.sync == 0
    }
}

#[cfg(test)]
mod tests;
