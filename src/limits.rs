//! The limits that a user can meet, each with its reason. `zigsvc limits` prints [`rows`].
//! Other constants stand beside their use.
//!
//! The memory of the process does not grow at run time, because these numbers bound it.

use crate::util::string_table::{StringTable, string_table};
use crate::util::time::Duration;

/// Maximum number of bytes in the text of a job. With its record and the prefix of a log
/// line, the text stays below PIPE_BUF (4096 bytes). It also fits an environment variable and
/// one argument.
pub const JOB_MAX_BYTES: usize = 1000;
/// Maximum number of bytes in a path, without its terminator. A configuration holds six
/// paths, and two configurations are in memory during a reload.
pub const PATH_MAX_BYTES: usize = 255;
/// Maximum number of bytes in the name of a user or a group in the configuration.
pub const NAME_MAX_BYTES: usize = 32;
/// Maximum number of bytes in an abstract socket name, which is what `sockaddr_un` holds
/// after the leading null.
pub const METRICS_NAME_MAX_BYTES: usize = 107;
/// Maximum number of bytes in the configuration file, because the file is read whole into the
/// scratch memory.
pub const CONFIG_MAX_BYTES: usize = SCRATCH_BYTES;
/// Maximum number of options `-o`. They are kept, because a reload needs them.
pub const OVERRIDES_MAX: usize = 48;
/// Maximum number of bytes of a word of the options in the health file. A longer value is not
/// kept, and `restart` reads the command line of the service instead.
pub const OPTION_WORD_MAX_BYTES: usize = 1024;
/// Maximum number of words in the options before a command. A supervisor passes these words
/// to its services. An override can be two words, and `-c` and `-d` come in addition.
pub const OPTION_WORDS_MAX: usize = 2 * OVERRIDES_MAX + 8;
/// Maximum number of entries in `allow_uid` and in `allow_gid`.
pub const ALLOW_IDS_MAX: usize = 8;
/// Maximum number of entries in `allow` of the opener.
pub const ALLOW_PATHS_MAX: usize = 32;
/// Maximum number of entries in `trust`.
pub const TRUST_PATHS_MAX: usize = 8;
/// Maximum number of bytes in all entries of `allow` together. Those of `trust` have as many.
pub const ALLOW_PATHS_BYTES: usize = 2048;
/// Maximum number of words after the program in `handler`.
pub const HANDLER_WORDS_MAX: usize = 8;
/// Maximum number of bytes in these words together, each with its terminator.
pub const HANDLER_WORDS_BYTES: usize = 128;
/// Maximum number of symbolic links that are followed in one path. The kernel has the same
/// limit.
pub const LINKS_MAX: u32 = 40;
/// Maximum number of programs under one supervisor. Each takes two kilobytes while it runs.
pub const PROGRAMS_MAX: usize = 32;
/// Maximum number of services and programs under one supervisor, which are the programs and all
/// services except the supervisor itself.
pub const SUPERVISED_MAX: usize = PROGRAMS_MAX + 4;
/// Maximum number of bytes in the name of a program.
pub const PROGRAM_NAME_BYTES: usize = 32;
/// Maximum number of bytes in the names of all services and programs, each with its terminator.
pub const SUPERVISED_BYTES: usize = SUPERVISED_MAX * (PROGRAM_NAME_BYTES + 1);
/// Maximum number of words in the command of a program, and of variables in its environment.
pub const COMMAND_WORDS_MAX: usize = 32;
/// Maximum number of bytes in these words together, without their terminators.
pub const COMMAND_WORDS_BYTES: usize = 1000;
/// Maximum number of bytes of the words of a command with their terminators.
pub const COMMAND_BYTES: usize = COMMAND_WORDS_BYTES + COMMAND_WORDS_MAX;
/// Maximum number of supplementary groups that are kept when privileges are dropped.
pub const GROUPS_MAX: usize = 32;

/// Maximum number of jobs in memory. This keeps eight handlers busy between two reads of the
/// journal, and takes one kilobyte.
pub const WINDOW_JOBS: usize = 32;
/// Maximum number of handlers that run at the same time.
pub const WORKERS_MAX: usize = 8;
/// Maximum number of process groups that are kept after the leaders of their jobs have ended.
/// With one more, the oldest is ended at once.
pub const GROUPS_KEPT_MAX: usize = 8;
/// Maximum number of process groups whose leaders have ended, together with those that an earlier
/// run of the service left. Each takes 48 bytes, and a line of the note.
pub const GROUPS_NOTED_MAX: usize = 2 * GROUPS_KEPT_MAX;
/// Time from the end of a job until the rest of its group gets TERM, and from then until KILL. A
/// daemon needs it to leave the group.
pub const LEFTOVER_WAIT: Duration = Duration::from_ms(2000);
/// Time after KILL from which a process that is still there is stuck.
pub const KILL_PATIENCE: Duration = Duration::from_ms(2000);
/// Maximum number of claimed queue files that are read at the same time.
pub const CLAIMS_MAX: usize = 32;
/// Maximum number of words in a job for a directory handler.
pub const WORDS_MAX: usize = 128;
/// Minimum time between two claims of the queue file. A claim costs a rename and a sync of
/// the directory, which wear out flash.
pub const CLAIM_EVERY: Duration = Duration::from_ms(500);
/// Time without a write after which a claim is released. Until then its writer can still add
/// lines.
pub const CLAIM_QUIET: Duration = Duration::from_ms(10_000);
/// Size above which a claim that its writer keeps open is a degraded state. Its file is not
/// removed before the writer ends, and its disk fills.
pub const CLAIM_GROWN_BYTES: u64 = 1024 * 1024;
/// Maximum time after which the start or the end of a job is synced.
pub const COMMIT_DELAY: Duration = Duration::from_ms(1000);
/// Minimum duration after which a delayed job is due.
pub const DELAY_MIN: Duration = Duration::from_secs(1);
/// Maximum duration after which a delayed job is due: a year.
pub const DELAY_MAX: Duration = Duration::from_secs(8760 * 3600);
/// Dead bytes in the journal from which a compaction is worth it.
pub const COMPACT_MIN_BYTES: u64 = 64 * 1024;
/// Bytes of the journal that a running service reads in one call. They hold four records and
/// take few pages of memory.
pub const READ_BYTES: usize = 4096;
/// Size at which `spool/rejected` is renamed and started again. One old file is kept.
pub const REJECTED_MAX_BYTES: u64 = 64 * 1024;
/// Maximum time between two attempts of a job.
pub const RETRY_DELAY_MAX: Duration = Duration::from_ms(300_000);

/// Size at which a log is rotated, unless the configuration says otherwise.
pub const LOG_MAX_BYTES: u64 = 10_000;
/// Maximum number of old files of a log.
pub const LOG_KEEP_MAX: u32 = 99;
/// Maximum number of bytes in one line of the service's log, with its newline. A longer line
/// is cut and marked.
pub const LOG_LINE_BYTES: usize = 2048;
/// Bytes of log lines that are gathered in one turn before they are written.
pub const LOG_BUFFER_BYTES: usize = 4096;
/// Maximum number of bytes in one syslog datagram, because the syslogd of BusyBox reads 256
/// bytes.
pub const SYSLOG_MAX_BYTES: usize = 250;
/// Bytes of one line of a handler's output that are held until the line ends.
pub const OUTPUT_LINE_BYTES: usize = 1024;

/// Maximum number of bytes that `log` writes as one line. A longer line is continued.
pub const COPY_LINE_BYTES: usize = 64 * 1024;
/// Bytes that `log` reads in one call, which is the size of a pipe (pipe(7)).
pub const COPY_READ_BYTES: usize = 64 * 1024;
/// Bytes of input that `log` holds: less than one line, and what is read after it.
pub const COPY_INPUT_BYTES: usize = COPY_LINE_BYTES + COPY_READ_BYTES;
/// Bytes of stamped lines that `log` gathers before it writes them. They fit the cache of the
/// processor.
pub const COPY_WRITE_BYTES: usize = 32 * 1024;
/// Time until `log` tries to write again after the disk refused.
pub const COPY_RETRY: Duration = Duration::from_ms(1000);

/// Minimum time between two heartbeats.
pub const HEARTBEAT_MIN: Duration = Duration::from_ms(250);
/// Maximum number of bytes in the status for a service manager.
pub const NOTIFY_STATUS_BYTES: usize = 120;
/// Minimum time between two messages for the watchdog of a service manager, because less
/// would keep the loop running without pause.
pub const WATCHDOG_MIN: Duration = Duration::from_ms(10);
/// Time after `stop_timeout` until `stop` sends KILL.
pub const STOP_GRACE: Duration = Duration::from_ms(5000);
/// Time between two looks at the lock while `stop` waits on a kernel without pidfd.
pub const STOP_POLL: Duration = Duration::from_ms(20);

/// Maximum number of clients of one socket at the same time.
pub const CLIENTS_MAX: usize = 16;
/// Maximum number of connections that one user has who is neither root nor the user of the
/// service. It is half of all, so that no single user keeps the others out.
pub const GUEST_CLIENTS_MAX: usize = 8;
/// Maximum number of bytes in one request, without its newline. A job and its verb fit.
pub const REQUEST_MAX_BYTES: usize = 1100;
/// Bytes of a client's input that are held: one request, its carriage return and its newline.
pub const CLIENT_INPUT_BYTES: usize = REQUEST_MAX_BYTES + 4;
/// Bytes of replies that are held until the client reads them. One line of `list` fits.
pub const CLIENT_OUTPUT_BYTES: usize = 1280;
/// Time after which a client is closed that sent half a request, does not read its reply, or
/// does not ask for the next page. From this time on, an idle client can be closed for
/// another client.
pub const CLIENT_IDLE: Duration = Duration::from_ms(30_000);
/// Maximum number of denials that are logged in one minute. All denials are counted.
pub const DENIALS_LOGGED_MAX: u32 = 10;
/// Number of ended jobs whose results `wait` can still report.
pub const RESULTS_KEPT: usize = 64;
/// Number of lines in one page of `list`.
pub const LIST_PAGE: usize = 100;

/// Maximum number of bytes in a line that the hub passes on, without its newline. With its
/// mark, the line fits [`CLIENT_OUTPUT_BYTES`].
pub const CHAT_LINE_BYTES: usize = 1024;

/// Maximum number of names that the collector knows. With their sums they take seven
/// kilobytes.
pub const METRICS_MAX: usize = 64;
/// Maximum number of bytes in the name of a metric.
pub const METRIC_NAME_BYTES: usize = 64;
/// Maximum number of bytes in one object for the collector. Its names take up to 450 bytes
/// with every byte escaped, and the rest is for blanks and digits. The object fits
/// [`CLIENT_INPUT_BYTES`].
pub const METRIC_OBJECT_BYTES: usize = 1024;
/// Maximum number of bytes in one line of the collector: a name, an average and a count, or
/// an error.
pub const METRIC_LINE_BYTES: usize = 160;

/// Maximum number of bytes in one line of a reply that a client holds: a job of `list` with
/// its numbers, or all fields of `status` with space for later ones.
pub const ANSWER_MAX_BYTES: usize = 2048;
/// Time for which a client waits for a reply. This is longer than the sync of a slow disk.
pub const ANSWER_WAIT: Duration = Duration::from_ms(30_000);
/// Time between two attempts of a client to connect.
pub const CONNECT_RETRY: Duration = Duration::from_ms(50);
/// Time for which a client waits for a service that is restarted.
pub const RESTART_WAIT: Duration = Duration::from_ms(30_000);
/// Time until `queue -` asks again after the queue was full.
pub const FULL_RETRY: Duration = Duration::from_ms(200);
/// Bytes of input that `queue -` holds until its lines are whole. A longer line is no job.
pub const QUEUE_STDIN_INPUT_BYTES: usize = 2560;
/// Bytes of requests that `queue -` sends in one call.
pub const QUEUE_STDIN_OUTPUT_BYTES: usize = 2560;

/// Stops in a row, each soon after the start of a job, that cost the job no attempt.
pub const GIVEN_BACK_MAX: u8 = 3;
/// Time after the start of a job within which a stop is soon. A job that runs longer does not
/// cause the stops.
pub const GIVEN_BACK_SOON: Duration = Duration::from_ms(10_000);

/// Time after its start within which a service that ends is restarted more slowly each time.
pub const RESTART_QUICK: Duration = Duration::from_ms(10_000);
/// Time until the first slow restart. The time doubles with each quick end.
pub const RESTART_DELAY: Duration = Duration::from_ms(1000);
/// Maximum time until a restart. A service is never given up.
pub const RESTART_DELAY_MAX: Duration = Duration::from_ms(60_000);
/// Factor of `stale_after`: the time that a start may take. A large spool on slow flash is
/// read before the first heartbeat.
pub const START_PATIENCE: u64 = 8;
/// Time in which the socket of a service has to answer the supervisor, which asks it before it
/// restarts a service. A command waits as long for the answer to `status`.
pub const ANSWER_PATIENCE: Duration = Duration::from_ms(2000);
/// Time between two feeds of a hardware watchdog that does not report its timeout.
pub const WATCHDOG_FEED: Duration = Duration::from_ms(5000);

/// Maximum number of descriptors that one turn watches: signals, inotify, a listener, the
/// handlers or the supervised processes, and the clients. A program has an output and a way to
/// report, and a service can be asked too.
pub const POLL_MAX: usize = 16 + 2 * SUPERVISED_MAX + CLIENTS_MAX;
/// Bytes of memory that several tasks share because they never run at the same time: reading
/// the configuration, recovering and reading the journal, reading claims.
pub const SCRATCH_BYTES: usize = 16 * 1024;

/// Declares the rows that `zigsvc limits` prints: name, value, and meaning with the unit.
macro_rules! table {
    ($($name:literal $value:expr, $meaning:literal;)*) => {
        static NAMES: StringTable = string_table![$($name),*];
        static MEANINGS: StringTable = string_table![$($meaning),*];
        static VALUES: &[u32] = &[$(value($value as u64)),*];
    };
}

/// Returns a value of the table, which has 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "checked before")]
const fn value(value: u64) -> u32 {
    assert!(value <= u32::MAX as u64, "the value of a limit has more than 32 bits");
    value as u32
}

table! {
    "job" JOB_MAX_BYTES, "bytes of one job";
    "path" PATH_MAX_BYTES, "bytes of a path";
    "config" CONFIG_MAX_BYTES, "bytes of the configuration file";
    "overrides" OVERRIDES_MAX, "options -o";
    "window" WINDOW_JOBS, "jobs in memory; the others wait on disk";
    "workers" WORKERS_MAX, "handlers at once";
    "groups_kept" GROUPS_KEPT_MAX, "process groups of ended jobs that are waited for";
    "leftover_wait" LEFTOVER_WAIT.as_ms(), "ms until what a job left gets TERM, and again until KILL";
    "words" WORDS_MAX, "words of a job for a directory handler";
    "claims" CLAIMS_MAX, "claimed queue files at once";
    "claim_every" CLAIM_EVERY.as_ms(), "ms between two claims of the queue file";
    "claim_quiet" CLAIM_QUIET.as_ms(), "ms without a write until a claim is released";
    "claim_grown" CLAIM_GROWN_BYTES, "bytes of a claim from which its open writer is reported";
    "commit_delay" COMMIT_DELAY.as_ms(), "ms until the end of a job is synced";
    "retry_delay_max" RETRY_DELAY_MAX.as_ms(), "ms between two attempts, at most";
    "delay_min" DELAY_MIN.as_secs(), "s after which a delayed job is due, at least";
    "delay_max" DELAY_MAX.as_secs(), "s after which a delayed job is due, at most";
    "clients" CLIENTS_MAX, "clients of a socket at once";
    "guest_clients" GUEST_CLIENTS_MAX, "clients of one user, except root and the service's own";
    "request" REQUEST_MAX_BYTES, "bytes of a request to the control socket";
    "client_idle" CLIENT_IDLE.as_ms(), "ms until a client that is stuck is closed";
    "chat_line" CHAT_LINE_BYTES, "bytes of a line that the hub passes on";
    "metrics" METRICS_MAX, "names that the collector knows";
    "metric_name" METRIC_NAME_BYTES, "bytes of a metric's name";
    "metric" METRIC_OBJECT_BYTES, "bytes of one JSON object for the collector";
    "results" RESULTS_KEPT, "ends of jobs that wait and list done still know";
    "list_page" LIST_PAGE, "jobs in one page of list";
    "log_line" LOG_LINE_BYTES, "bytes of one log line";
    "copied_line" COPY_LINE_BYTES, "bytes of a line that log never cuts";
    "syslog" SYSLOG_MAX_BYTES, "bytes of one syslog datagram";
    "output_line" OUTPUT_LINE_BYTES, "bytes of one line of a handler's output";
    "rejected" REJECTED_MAX_BYTES, "bytes of spool/rejected before it starts anew";
    "programs" PROGRAMS_MAX, "programs of the supervisor";
    "program_name" PROGRAM_NAME_BYTES, "bytes of a program's name";
    "command_words" COMMAND_WORDS_MAX, "words of a program's command, and variables of its env";
    "command" COMMAND_WORDS_BYTES, "bytes of a program's command, and of its env";
    "allow_ids" ALLOW_IDS_MAX, "entries of allow_uid and of allow_gid";
    "allow_paths" ALLOW_PATHS_MAX, "entries of allow";
    "trust_paths" TRUST_PATHS_MAX, "entries of trust";
    "allow_links" LINKS_MAX, "symbolic links in one entry of allow";
    "heartbeat" HEARTBEAT_MIN.as_ms(), "ms between two heartbeats, at least";
    "stop_grace" STOP_GRACE.as_ms(), "ms after stop_timeout until stop sends KILL";
}

/// Returns the rows that `zigsvc limits` prints: name, value, and meaning with the unit.
pub fn rows() -> impl Iterator<Item = (&'static str, u32, &'static str)> {
    NAMES.iter().zip(VALUES).zip(MEANINGS.iter()).map(|((name, value), meaning)| (name, *value, meaning))
}
