//! The table of configuration keys. [`Config`], [`KEYS`] and the defaults are derived from
//! it; `keys.rs` reads and writes the values.

use crate::limits::{
    ALLOW_IDS_MAX, ALLOW_PATHS_BYTES, LOG_KEEP_MAX, METRICS_NAME_MAX_BYTES, NAME_MAX_BYTES, SUPERVISED_MAX,
};
use crate::proto::log::{Level, TimestampFormat};
use crate::proto::service::Service;
use crate::util::path::Path;
use crate::util::string_table::{StringTable, named_enum};
use crate::util::time::Duration;
use heapless::Vec;

/// A user or group: a name or a number, empty for none.
pub type AccountName = Vec<u8, NAME_MAX_BYTES>;

named_enum! {
    /// The values of `sync`.
    pub enum SyncMode {
        /// The spool is synced.
        Always = "always",
        /// The spool is never synced: a power cut can lose jobs.
        Never = "never",
    }
}

/// A day in milliseconds, for bounds.
const DAY: u32 = 86_400_000;
/// A month in milliseconds, for bounds.
const MONTH: u32 = 30 * DAY;

/// The values that a key takes.
#[derive(Clone, Copy, Debug)]
pub enum KeyKind {
    /// A path, made absolute. Below a folder of `-d` the default has this name.
    File(&'static str),
    /// `log`, `shell` or a path.
    Handler,
    /// A path or nothing.
    Device,
    /// A number of bytes.
    Size,
    /// A span between two bounds in milliseconds; also 0 if the third value is set.
    Duration(u32, u32, bool),
    /// A number between two bounds.
    Count(u32, u32),
    /// A name of this list.
    Choice(fn() -> &'static StringTable),
    /// True or false.
    Flag,
    /// A user or group.
    Account,
    /// Users or groups.
    Accounts,
    /// Services.
    Services,
    /// Absolute paths.
    Paths,
    /// The name of an abstract socket.
    Abstract,
}

/// A configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The name in the file.
    pub name: &'static str,
    /// The default, as `-o` takes it.
    pub(super) default: &'static str,
    /// The values that the key takes.
    pub kind: KeyKind,
    /// True if a running service can take a new value.
    pub reloadable: bool,
    pub(super) id: KeyId,
}

/// The field of a key.
pub(super) enum ConfigField<'c> {
    Path(&'c mut Path),
    Bytes(&'c mut u64),
    Number(&'c mut u32),
    Level(&'c mut Level),
    Timestamp(&'c mut TimestampFormat),
    Sync(&'c mut SyncMode),
    Flag(&'c mut bool),
    Span(&'c mut Duration),
    Account(&'c mut AccountName),
    Accounts(&'c mut Vec<AccountName, ALLOW_IDS_MAX>),
    Services(&'c mut Vec<Service, SUPERVISED_MAX>),
    Paths(&'c mut Vec<u8, ALLOW_PATHS_BYTES>),
    Name(&'c mut Vec<u8, METRICS_NAME_MAX_BYTES>),
}

/// A type of a field: its empty value, whose bytes are zero, and its variant of [`ConfigField`].
trait ConfigValue: Sized {
    const EMPTY: Self;
    fn field(&mut self) -> ConfigField<'_>;
}

macro_rules! config_values {
    ($($type:ty: $empty:expr, $variant:ident;)*) => {
        $(impl ConfigValue for $type {
            const EMPTY: Self = $empty;

            fn field(&mut self) -> ConfigField<'_> {
                ConfigField::$variant(self)
            }
        })*
    };
}

config_values! {
    Path: Self::empty(), Path;
    u64: 0, Bytes;
    u32: 0, Number;
    Level: Self::Debug, Level;
    TimestampFormat: Self::Iso, Timestamp;
    SyncMode: Self::Always, Sync;
    bool: false, Flag;
    Duration: Self::ZERO, Span;
    AccountName: Self::new(), Account;
    Vec<AccountName, ALLOW_IDS_MAX>: Self::new(), Accounts;
    Vec<Service, SUPERVISED_MAX>: Self::new(), Services;
    Vec<u8, ALLOW_PATHS_BYTES>: Self::new(), Paths;
    Vec<u8, METRICS_NAME_MAX_BYTES>: Self::new(), Name;
}

/// Declares the keys. A row is: the field and its type, the default, the kind of the values,
/// and whether a change is taken by `RELOAD` or needs a `RESTART`.
macro_rules! config {
    ($($(#[$doc:meta])* $key:ident: $type:ty = $default:literal, $kind:expr, $reload:ident;)*) => {
        /// Every setting. It has five kilobytes, so it is filled in place and never moved.
        #[derive(Debug)]
        pub struct Config {
            $($(#[$doc])* pub $key: $type,)*
            /// True if `log_file` was set, which matters to `run`.
            pub log_file_named: bool,
        }

        impl Config {
            /// The value before [`Config::reset`]. Its bytes are zero, so that it is not in the file.
            pub const EMPTY: Self =
                Self { $($key: <$type as ConfigValue>::EMPTY,)* log_file_named: false };

            /// Returns the field of a key.
            pub(super) fn field(&mut self, id: KeyId) -> ConfigField<'_> {
                match id {
                    $(KeyId::$key => self.$key.field(),)*
                }
            }

            /// Takes the values from `old` whose change needs a restart.
            pub fn keep_fixed(&mut self, old: &Self) {
                $(if !$reload {
                    self.$key.clone_from(&old.$key);
                })*
            }
        }

        /// A key, for [`Config::field`].
        #[allow(non_camel_case_types, reason = "the names are those of the fields")]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(super) enum KeyId {
            $($key),*
        }

        /// Every key, in the order in which `check` prints them.
        pub const KEYS: &[Key] = {
            use KeyKind::*;
            &[$(Key {
                name: stringify!($key),
                default: $default,
                kind: $kind,
                reloadable: $reload,
                id: KeyId::$key,
            }),*]
        };
    };
}

/// A change is taken by a reload.
const RELOAD: bool = true;
/// A change needs a restart.
const RESTART: bool = false;

config! {
    /// The PID file of `jobs`; its folder holds those of the other services.
    pid_file: Path = "/run/zigsvc.pid", File("zigsvc.pid"), RESTART;
    /// The control socket.
    socket: Path = "/run/zigsvc.sock", File("zigsvc.sock"), RESTART;
    /// The log file.
    log_file: Path = "/var/log/zigsvc.log", File("zigsvc.log"), RELOAD;
    /// The heartbeat.
    health_file: Path = "/run/zigsvc.health", File("zigsvc.health"), RELOAD;
    /// The file to which jobs are appended, a line each.
    queue_file: Path = "/var/spool/zigsvc/queue", File("queue"), RELOAD;
    /// The folder of the journal.
    spool: Path = "/var/spool/zigsvc", File("spool"), RESTART;
    /// The bytes at which the log is rotated; 0 is never.
    log_max: u64 = "10000", Size, RELOAD;
    /// The number of rotated logs that are kept.
    log_keep: u32 = "1", Count(1, LOG_KEEP_MAX), RELOAD;
    /// The lowest level of lines that are written.
    log_level: Level = "info", Choice(Level::names), RELOAD;
    /// The timestamp of lines.
    log_time: TimestampFormat = "iso", Choice(TimestampFormat::names), RELOAD;
    /// True if lines go to /dev/log too.
    syslog: bool = "false", Flag, RELOAD;
    /// The time between two heartbeats, and, without inotify, between two checks of the
    /// queue file.
    interval: Duration = "3s", Duration(100, DAY, false), RELOAD;
    /// The handler of jobs: `log`, `shell`, or a path.
    handler: Path = "log", Handler, RELOAD;
    /// The number of handlers that run at the same time.
    workers: u32 = "1", Count(1, 8), RELOAD;
    /// The time after which a handler is ended; 0 is never.
    job_timeout: Duration = "0", Duration(1, MONTH, true), RELOAD;
    /// The number of attempts after the first one.
    retries: u32 = "2", Count(0, 100), RELOAD;
    /// The time before the second attempt; it doubles to five minutes.
    retry_delay: Duration = "1s", Duration(1, DAY, true), RELOAD;
    /// The number of jobs that can be waiting, running or dead at the same time.
    queue_max: u32 = "10000", Count(1, 10_000_000), RELOAD;
    /// The syncing of the spool.
    sync: SyncMode = "always", Choice(SyncMode::names), RELOAD;
    /// The time in which running jobs must end after TERM.
    stop_timeout: Duration = "10s", Duration(1, DAY, true), RELOAD;
    /// The user to become.
    user: AccountName = "", Account, RESTART;
    /// The group to take; empty for the user's own.
    group: AccountName = "", Account, RESTART;
    /// The users that may use the sockets.
    allow_uid: Vec<AccountName, ALLOW_IDS_MAX> = "", Accounts, RELOAD;
    /// The groups that may use the sockets.
    allow_gid: Vec<AccountName, ALLOW_IDS_MAX> = "", Accounts, RELOAD;
    /// The services that the supervisor keeps running.
    supervise: Vec<Service, SUPERVISED_MAX> = "jobs", Services, RELOAD;
    /// The time between two checks of the health files by the supervisor.
    check_interval: Duration = "5s", Duration(100, DAY, false), RELOAD;
    /// The age at which a heartbeat is stale.
    stale_after: Duration = "15s", Duration(100, DAY, false), RELOAD;
    /// The number of stale heartbeats in a row after which a service is restarted.
    failures: u32 = "3", Count(1, 100), RELOAD;
    /// The hardware watchdog; empty for none.
    watchdog: Path = "", Device, RELOAD;
    /// The time for which a service can fail its checks before the watchdog is not fed.
    watchdog_patience: Duration = "5m", Duration(1000, DAY, false), RELOAD;
    /// The paths that the opener opens, each ended by a null byte.
    allow: Vec<u8, ALLOW_PATHS_BYTES> =
        "/etc/hostname,/etc/os-release,/proc/version", Paths, RELOAD;
    /// The abstract socket of the collector.
    metrics_name: Vec<u8, METRICS_NAME_MAX_BYTES> = "zigsvc-metrics", Abstract, RELOAD;
}

// Each service but the supervisor can be in the list once.
const _: () = assert!(SUPERVISED_MAX + 1 == Service::ALL.len());
