//! The table of configuration keys. [`Config`], [`KEYS`] and the defaults are derived from it.
//! `keys.rs` reads and writes the values.

use crate::limits::{
    ALLOW_IDS_MAX, ALLOW_PATHS_BYTES, ALLOW_PATHS_MAX, COMMAND_BYTES, HANDLER_WORDS_BYTES, LOG_KEEP_MAX,
    METRICS_NAME_MAX_BYTES, NAME_MAX_BYTES, SUPERVISED_BYTES, SUPERVISED_MAX, TRUST_PATHS_MAX,
};
use crate::proto::log::{Level, TimestampFormat};
use crate::proto::service::Service;
use crate::util::path::Path;
use crate::util::string_table::{StringTable, named_enum};
use crate::util::time::Duration;
use heapless::{Vec, VecView};

/// A user or group, by name or number: at most [`NAME_MAX_BYTES`] bytes, empty for none.
pub type AccountName = Vec<u8, NAME_MAX_BYTES>;

named_enum! {
    /// The values of `sync`.
    pub enum SyncMode {
        /// A new job is on disk before it is acknowledged.
        Always = "always",
        /// The spool is not synced.
        Never = "never",
    }
}

named_enum! {
    /// The values of `watchdog_on_stop`.
    pub enum WatchdogOnStop {
        /// The countdown is stopped.
        Disarm = "disarm",
        /// The countdown continues.
        Keep = "keep",
    }
}

named_enum! {
    /// The values of `leftovers`.
    pub enum LeftoverMode {
        /// The processes that a job leaves in its group are ended.
        End = "end",
        /// Those processes are left alone.
        Keep = "keep",
    }
}

named_enum! {
    /// The values of `take`.
    pub enum TakeMode {
        /// The handler `log` takes only jobs that were queued for it.
        Own = "",
        /// The handler `log` takes all jobs.
        All = "all",
    }
}

named_enum! {
    /// The values of `ready`: how a program shows that it is ready.
    pub enum ReadyMode {
        /// The program is ready when it is started.
        Start = "start",
        /// The program writes a newline to descriptor 3.
        Fd = "fd",
        /// The program sends `READY=1` to the socket that NOTIFY_SOCKET names.
        Notify = "notify",
    }
}

named_enum! {
    /// The values of `restart`: after which ends a program is started again.
    pub enum RestartMode {
        /// After each end.
        Always = "always",
        /// After an exit status other than 0, and after a signal that the supervisor did not send.
        Failure = "failure",
        /// After none.
        Never = "never",
    }
}

/// The upper bound of most durations: a day, in milliseconds.
const DAY: u32 = 86_400_000;
/// The upper bound of `job_timeout`: 30 days, in milliseconds.
const MONTH: u32 = 30 * DAY;

/// The type of a key's value, and its range.
#[derive(Clone, Copy, Debug)]
pub enum KeyKind {
    /// A path of 1 to [`PATH_MAX_BYTES`](crate::limits::PATH_MAX_BYTES) bytes. A relative one
    /// is made absolute. The text is the name of the default path in the folder of `-d`, or in
    /// that of a user other than root.
    File(&'static str),
    /// The word `log` or `shell`, or a path. An array holds the path of a program and words that
    /// stand before the text of the job.
    Handler,
    /// A path, or an empty text for no device.
    Device,
    /// A number of bytes, below 2^62.
    Size,
    /// A duration between two bounds in milliseconds, both included. Zero is allowed too if
    /// the third field is true.
    Duration(u32, u32, bool),
    /// A number between two bounds, both included.
    Count(u32, u32),
    /// A name of this list.
    Choice(fn() -> &'static StringTable),
    /// A value that is true or false.
    Flag,
    /// A user or group.
    Account,
    /// A list of users or groups.
    Accounts,
    /// A list of names of services other than `supervisor`, and of programs.
    Names,
    /// The path of a program, and its arguments.
    Command,
    /// A list of variables of the environment, each `KEY=VALUE`.
    Variables,
    /// A path, or the word `null` for no log.
    LogFile,
    /// The bits of a file's mode, in octal digits.
    Octal,
    /// The name of a signal. It can be empty if the field is true.
    Signal(bool),
    /// A list of absolute paths, and the maximum number of them.
    Paths(usize),
    /// The name of an abstract socket.
    Abstract,
}

/// A configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The name of the key in the file.
    pub name: &'static str,
    /// The default value, as `-o` accepts it.
    pub(super) default: &'static str,
    /// The type of the value, and its range.
    pub kind: KeyKind,
    /// True if a running service can change to a new value.
    pub reloadable: bool,
    /// The index in its table.
    pub(super) id: u8,
}

/// A table of keys, with the values of a file.
pub trait Keyed {
    /// Returns the keys.
    fn keys(&self) -> &'static [Key];

    /// Returns the field that holds the value of the key with this index.
    #[doc(hidden)]
    fn field(&mut self, id: u8) -> ConfigField<'_>;

    /// Returns the configuration, if these are its keys.
    fn config(&mut self) -> Option<&mut Config> {
        None
    }

    /// Records the line of the file that holds the value of the key with this index.
    fn set_line(&mut self, _id: u8, _line: u32) {}
}

/// The field that holds the value of a key.
#[doc(hidden)]
pub enum ConfigField<'c> {
    /// There is no key with this index.
    None,
    Path(&'c mut Path),
    Bytes(&'c mut u64),
    Number(&'c mut u32),
    Level(&'c mut Level),
    Timestamp(&'c mut TimestampFormat),
    Sync(&'c mut SyncMode),
    WatchdogOnStop(&'c mut WatchdogOnStop),
    Leftovers(&'c mut LeftoverMode),
    Take(&'c mut TakeMode),
    Flag(&'c mut bool),
    Span(&'c mut Duration),
    Account(&'c mut AccountName),
    Accounts(&'c mut Vec<AccountName, ALLOW_IDS_MAX>),
    /// The index of a name in a list of names, or the number of a signal.
    Choice(&'c mut u8),
    /// Words, each ended by a NUL byte; or one name without it.
    Words(&'c mut VecView<u8>),
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
    WatchdogOnStop: Self::Disarm, WatchdogOnStop;
    LeftoverMode: Self::End, Leftovers;
    TakeMode: Self::Own, Take;
    bool: false, Flag;
    Duration: Self::ZERO, Span;
    AccountName: Self::new(), Account;
    Vec<AccountName, ALLOW_IDS_MAX>: Self::new(), Accounts;
    u8: 0, Choice;
    Vec<u8, ALLOW_PATHS_BYTES>: Self::new(), Words;
    Vec<u8, SUPERVISED_BYTES>: Self::new(), Words;
    Vec<u8, COMMAND_BYTES>: Self::new(), Words;
    Vec<u8, METRICS_NAME_MAX_BYTES>: Self::new(), Words;
}

/// Declares a table of keys. A row holds the field and its type, the default, the kind of value, and
/// `RELOAD` if a reload can change the value or `RESTART` if it cannot. A last word names the
/// feature without which the key is unknown. Its field is there in each build, and empty then.
/// Further fields follow.
macro_rules! config {
    ($(#[$meta:meta])* $name:ident, $(#[$keys_meta:meta])* $keys:ident, $ids:ident:
        $($(#[$doc:meta])* $key:ident: $type:ty = $default:expr, $kind:expr, $reload:ident
            $(, $feature:literal)?;)*
        { $($(#[$more_doc:meta])* $more:ident: $more_type:ty = $empty:expr,)* }
    ) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub struct $name {
            $($(#[$doc])* pub $key: $type,)*
            $($(#[$more_doc])* pub $more: $more_type,)*
        }

        impl $name {
            /// The value before the defaults are set. Its bytes are zero, so that it is not in the
            /// file.
            pub const EMPTY: Self = Self {
                $($key: <$type as ConfigValue>::EMPTY,)*
                $($more: $empty,)*
            };

            /// Returns the field of the key with this index.
            fn find_field(&mut self, id: u8) -> ConfigField<'_> {
                $($(#[cfg(any(feature = $feature, not(feature = "sys")))])?
                if id == $ids::$key as u8 {
                    return self.$key.field();
                })*
                ConfigField::None
            }

            /// Copies the values from `old` that only a restart can change.
            #[allow(dead_code, reason = "a program is not reloaded")]
            pub fn keep_fixed(&mut self, old: &Self) {
                $(if !$reload {
                    self.$key.clone_from(&old.$key);
                })*
            }
        }

        /// The indexes of the keys.
        #[allow(non_camel_case_types, reason = "the names are those of the fields")]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        enum $ids {
            $($(#[cfg(any(feature = $feature, not(feature = "sys")))])? $key),*
        }

        $(#[$keys_meta])*
        pub const $keys: &[Key] = {
            use KeyKind::*;
            &[$($(#[cfg(any(feature = $feature, not(feature = "sys")))])? Key {
                name: stringify!($key),
                default: $default,
                kind: $kind,
                reloadable: $reload,
                id: $ids::$key as u8,
            }),*]
        };
    };
}

/// The default of `supervise`: `jobs`, if this build contains it.
const SUPERVISE: &str = if Service::Jobs.is_built_in() { "jobs" } else { "" };

/// A reload can change the value.
const RELOAD: bool = true;
/// Only a restart can change the value.
const RESTART: bool = false;

config! {
    /// The value of every key. It takes seven kilobytes and is therefore filled in place, never
    /// moved.
    Config,
    /// All keys, in the order in which `check` prints them.
    KEYS, KeyId:
    /// The PID file of `jobs`. The PID files of the other services are in the same folder.
    pid_file: Path = "/run/zigsvc.pid", File("zigsvc.pid"), RESTART;
    /// The control socket.
    socket: Path = "/run/zigsvc.sock", File("zigsvc.sock"), RESTART;
    /// The log file.
    log_file: Path = "/var/log/zigsvc.log", File("zigsvc.log"), RELOAD;
    /// The health file, which holds the last heartbeat.
    health_file: Path = "/run/zigsvc.health", File("zigsvc.health"), RELOAD;
    /// The file to which programs append jobs, one a line.
    queue_file: Path = "/var/spool/zigsvc/queue", File("queue"), RELOAD, "jobs";
    /// The folder of the journal.
    spool: Path = "/var/spool/zigsvc", File("spool"), RESTART, "jobs";
    /// The size in bytes at which the log is rotated. 0: it is never rotated.
    log_max: u64 = "10000", Size, RELOAD;
    /// The number of rotated logs to keep.
    log_keep: u32 = "1", Count(1, LOG_KEEP_MAX), RELOAD;
    /// The lowest level that is logged.
    log_level: Level = "info", Choice(Level::names), RELOAD;
    /// The timestamp of lines.
    log_time: TimestampFormat = "iso", Choice(TimestampFormat::names), RELOAD;
    /// True if log lines are also sent to /dev/log.
    syslog: bool = "false", Flag, RELOAD;
    /// The longest time between two heartbeats. Without inotify, it is also the time between
    /// two checks of the queue file.
    interval: Duration = "3s", Duration(100, DAY, false), RELOAD;
    /// The handler of jobs: `log`, `shell`, or a path.
    handler: Path = "log", Handler, RELOAD, "jobs";
    /// Whether the handler `log` takes jobs that were queued for another handler: `all`, or empty.
    take: TakeMode = "", Choice(TakeMode::names), RELOAD, "jobs";
    /// The number of handlers that run at a time.
    workers: u32 = "1", Count(1, 8), RELOAD, "jobs";
    /// The time after which a handler is ended. Zero: it is never ended.
    job_timeout: Duration = "0", Duration(1, MONTH, true), RELOAD, "jobs";
    /// The processes that a job leaves in its group: `end` or `keep`.
    leftovers: LeftoverMode = "end", Choice(LeftoverMode::names), RELOAD, "jobs";
    /// The number of attempts after the first.
    retries: u32 = "2", Count(0, 100), RELOAD, "jobs";
    /// The delay before the second attempt. It doubles with each attempt, up to five minutes.
    retry_delay: Duration = "1s", Duration(1, DAY, true), RELOAD, "jobs";
    /// The maximum number of waiting and running jobs together.
    queue_max: u32 = "10000", Count(1, 10_000_000), RELOAD, "jobs";
    /// The number of dead jobs that are kept. With more, the oldest is logged and dropped.
    dead_max: u32 = "1000", Count(1, 10_000_000), RELOAD, "jobs";
    /// The syncing of the spool.
    sync: SyncMode = "always", Choice(SyncMode::names), RELOAD, "jobs";
    /// The time that running jobs have to end after SIGTERM. SIGKILL follows.
    stop_timeout: Duration = "10s", Duration(1, DAY, true), RELOAD;
    /// The user that the service changes to. Empty: it keeps its user.
    user: AccountName = "", Account, RESTART;
    /// The group that the service changes to. Empty: the user's own.
    group: AccountName = "", Account, RESTART;
    /// The users that may use the sockets.
    allow_uid: Vec<AccountName, ALLOW_IDS_MAX> = "", Accounts, RELOAD;
    /// The groups that may use the sockets.
    allow_gid: Vec<AccountName, ALLOW_IDS_MAX> = "", Accounts, RELOAD;
    /// The folders and files that are trusted though another user can change them. A NUL byte
    /// ends each.
    trust: Vec<u8, ALLOW_PATHS_BYTES> = "", Paths(TRUST_PATHS_MAX), RELOAD;
    /// The services and programs that the supervisor keeps running. A NUL byte ends each.
    supervise: Vec<u8, SUPERVISED_BYTES> = SUPERVISE, Names, RELOAD, "supervisor";
    /// The time between two probes of the supervisor.
    check_interval: Duration = "5s", Duration(100, DAY, false), RELOAD, "supervisor";
    /// The age from which a heartbeat is stale.
    stale_after: Duration = "15s", Duration(100, DAY, false), RELOAD;
    /// The number of failed probes in a row after which a service is restarted.
    failures: u32 = "3", Count(1, 100), RELOAD, "supervisor";
    /// The device of the hardware watchdog. Empty: there is none.
    watchdog: Path = "", Device, RELOAD, "supervisor";
    /// The time that a service may be unhealthy before the hardware watchdog is withheld.
    watchdog_patience: Duration = "5m", Duration(1000, DAY, false), RELOAD, "supervisor";
    /// The time until the hardware watchdog resets the board. Zero: what the device has.
    watchdog_timeout: Duration = "0", Duration(1000, DAY, true), RELOAD, "supervisor";
    /// The treatment of the hardware watchdog when the supervisor stops.
    watchdog_on_stop: WatchdogOnStop = "disarm", Choice(WatchdogOnStop::names), RELOAD, "supervisor";
    /// The paths that the opener opens. A NUL byte ends each.
    allow: Vec<u8, ALLOW_PATHS_BYTES> =
        "/etc/hostname,/etc/os-release,/proc/version", Paths(ALLOW_PATHS_MAX), RELOAD, "opener";
    /// The abstract socket of the collector, without its leading NUL byte.
    metrics_name: Vec<u8, METRICS_NAME_MAX_BYTES> = "zigsvc-metrics", Abstract, RELOAD, "collector";
    {
        /// True if the configuration names `log_file`. `run` needs to know it.
        log_file_named: bool = false,
        /// The words after the program in `handler`. A NUL byte ends each.
        handler_words: Vec<u8, HANDLER_WORDS_BYTES> = Vec::new(),
    }
}

impl Keyed for Config {
    fn keys(&self) -> &'static [Key] {
        KEYS
    }

    fn field(&mut self, id: u8) -> ConfigField<'_> {
        self.find_field(id)
    }

    fn config(&mut self) -> Option<&mut Config> {
        Some(self)
    }
}

config! {
    /// The file of a program. It takes four kilobytes and is therefore filled in place.
    Program,
    /// All keys of the file of a program, in the order in which `check` prints them.
    PROGRAM_KEYS, ProgramKeyId:
    /// The path of the program, and its arguments. A NUL byte ends each.
    command: Vec<u8, COMMAND_BYTES> = "", Command, RESTART;
    /// The user that the program becomes. Empty: that of the supervisor.
    user: AccountName = "", Account, RESTART;
    /// The group that the program gets. Empty: the user's own.
    group: AccountName = "", Account, RESTART;
    /// The working directory.
    folder: Path = "/", File(""), RESTART;
    /// The variables of the environment. A NUL byte ends each.
    env: Vec<u8, COMMAND_BYTES> = "", Variables, RESTART;
    /// The bits that new files of the program do not have.
    umask: u32 = "022", Octal, RESTART;
    /// The maximum number of open files. Zero: that of the supervisor.
    open_files: u32 = "0", Count(0, 1_048_576), RESTART;
    /// The log of what the program prints, or `null` for none.
    log_file: Path = "", LogFile, RESTART;
    /// The size in bytes at which the log is rotated. 0: it is never rotated.
    log_max: u64 = "10000", Size, RESTART;
    /// The number of rotated logs to keep.
    log_keep: u32 = "1", Count(1, LOG_KEEP_MAX), RESTART;
    /// The timestamp of lines.
    log_time: TimestampFormat = "iso", Choice(TimestampFormat::names), RESTART;
    /// The services and programs that are ready before the program is started, and stopped after
    /// it. A NUL byte ends each.
    after: Vec<u8, SUPERVISED_BYTES> = "", Names, RESTART;
    /// The index in [`ReadyMode::ALL`].
    ready: u8 = "start", Choice(ReadyMode::names), RESTART;
    /// The time after which a program that is not ready is named.
    start_timeout: Duration = "60s", Duration(100, DAY, false), RESTART;
    /// The index in [`RestartMode::ALL`].
    restart: u8 = "always", Choice(RestartMode::names), RESTART;
    /// The number of the signal that ends the program.
    stop_signal: u8 = "TERM", Signal(false), RESTART;
    /// The time that the program has to end after its signal. SIGKILL follows.
    stop_timeout: Duration = "10s", Duration(1, DAY, true), RESTART;
    /// The number of the signal of `reload`; 0 for none.
    reload_signal: u8 = "", Signal(true), RESTART;
    /// The file that the program writes as a sign of life. Empty: there is none.
    health_file: Path = "", Device, RESTART;
    /// The age from which the health file is stale.
    stale_after: Duration = "15s", Duration(100, DAY, false), RESTART;
    {
        /// The line of each key in the file; 0 for a key that is not in it.
        lines: [u32; PROGRAM_KEYS.len()] = [0; PROGRAM_KEYS.len()],
    }
}

impl Keyed for Program {
    fn keys(&self) -> &'static [Key] {
        PROGRAM_KEYS
    }

    fn field(&mut self, id: u8) -> ConfigField<'_> {
        self.find_field(id)
    }

    fn set_line(&mut self, id: u8, line: u32) {
        self.lines.get_mut(usize::from(id)).into_iter().for_each(|known| *known = line);
    }
}

// The list has space for each service but the supervisor, each once.
const _: () = assert!(SUPERVISED_MAX + 1 == Service::ALL.len() + crate::limits::PROGRAMS_MAX);
