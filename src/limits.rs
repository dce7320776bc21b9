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
/// Maximum number of words in the options before a command. A supervisor passes these words
/// to its services. An override can be two words, and `-c` and `-d` come in addition.
pub const OPTION_WORDS_MAX: usize = 2 * OVERRIDES_MAX + 8;
/// Maximum number of entries in `allow_uid` and in `allow_gid`.
pub const ALLOW_IDS_MAX: usize = 8;
/// Maximum number of entries in `allow` of the opener.
pub const ALLOW_PATHS_MAX: usize = 32;
/// Maximum number of bytes in all entries of `allow` together.
pub const ALLOW_PATHS_BYTES: usize = 2048;
/// Maximum number of symbolic links that are followed in one path. The kernel has the same
/// limit.
pub const LINKS_MAX: u32 = 40;
/// Maximum number of services under one supervisor, which are all services except the
/// supervisor itself.
pub const SUPERVISED_MAX: usize = 4;
/// Maximum number of supplementary groups that are kept when privileges are dropped.
pub const GROUPS_MAX: usize = 32;

/// Maximum number of jobs in memory. This keeps eight handlers busy between two reads of the
/// journal, and takes one kilobyte.
pub const WINDOW_JOBS: usize = 32;
/// Maximum number of handlers that run at the same time.
pub const WORKERS_MAX: usize = 8;
/// Maximum number of deleted jobs outside the window that are remembered until the next
/// compaction.
pub const TOMBSTONES_MAX: usize = 64;
/// Maximum number of claimed queue files that are read at the same time.
pub const CLAIMS_MAX: usize = 32;
/// Highest number of a claim. A file with a higher number is not treated as a claim, because
/// there must always be a next number.
pub const CLAIM_SEQ_MAX: u64 = u64::MAX / 2;
/// Maximum number of damaged batches of claims that a recovery keeps apart.
pub const DAMAGED_BATCHES_MAX: usize = 8;
/// Maximum number of words in a job for a directory handler.
pub const WORDS_MAX: usize = 128;
/// Minimum time between two claims of the queue file. A claim costs a rename and a sync of
/// the directory, which wear out flash.
pub const CLAIM_EVERY: Duration = Duration::from_ms(500);
/// Time without a write after which a claim is released. Until then its writer can still add
/// lines.
pub const CLAIM_QUIET: Duration = Duration::from_ms(10_000);
/// Maximum number of bytes read from claims in one turn, so that a flood of jobs delays
/// nothing else by more than one commit.
pub const INGEST_TURN_BYTES: usize = 64 * 1024;
/// Bytes of records that are gathered before they are written, which is one batch of a claim.
pub const JOURNAL_BUFFER_BYTES: usize = 8 * 1024;
/// Maximum time after which the start or the end of a job is synced.
pub const COMMIT_DELAY: Duration = Duration::from_ms(1000);
/// Time until the next attempt after an error of the spool's disk.
pub const SPOOL_RETRY: Duration = Duration::from_ms(1000);
/// Time until the next attempt after the kernel refused to start a handler, for example
/// because it had no memory.
pub const START_RETRY: Duration = Duration::from_ms(1000);
/// Free bytes on the spool's disk without which new jobs are refused: one batch of jobs, and
/// the records that this batch will need.
pub const RESERVE_BYTES: u64 = 24 * 1024;
/// Free bytes that each queued job needs in addition, for the records of its start and its
/// end.
pub const RESERVE_PER_JOB_BYTES: u64 = 44;
/// Extra bytes to preallocate for the journal, so that fallocate(2) is not called for every
/// batch.
pub const PREALLOCATE_BYTES: u64 = 32 * 1024;
/// Free bytes that new jobs need beside the reserved space. This is more than one batch
/// takes.
pub const BATCH_BYTES: u64 = 8 * 1024;
/// Dead bytes in the journal from which a compaction is worth it while the disk is full.
pub const COMPACT_LOW_SPACE_BYTES: u64 = 8 * 1024;
/// Divisor of the live bytes: while the disk is full, a compaction needs at least this share
/// of dead bytes, because each compaction copies all live bytes.
pub const COMPACT_LOW_SPACE_SHARE: u64 = 4;
/// Maximum number of live bytes that one step copies while the disk is full. More would delay
/// everything else.
pub const COMPACT_AT_ONCE_BYTES: u64 = 1024 * 1024;
/// Bytes that a new journal takes beside the live records of jobs: its header, the numbers
/// and the claims.
pub const COMPACT_HEAD_BYTES: u64 = 4 * 1024;
/// Extra free bytes until new jobs are accepted again after the disk was full. This is a
/// block of most filesystems, and holds the ends of about ninety jobs, so that acceptance
/// does not toggle with every job that ends.
pub const SPACE_MARGIN_BYTES: u64 = 4 * 1024;
/// Dead bytes in the journal from which a compaction is worth it.
pub const COMPACT_MIN_BYTES: u64 = 64 * 1024;
/// Bytes of the journal that a running service reads in one call. They hold four records and
/// take few pages of memory.
pub const READ_BYTES: usize = 4096;
/// Bytes of the journal that one turn reads for a request that scans it.
pub const SCAN_STEP_BYTES: u64 = 64 * 1024;
/// Bytes that one step of a compaction copies.
pub const COMPACT_STEP_BYTES: u64 = 128 * 1024;
/// Time until the next attempt after a compaction failed. The time doubles with each failure.
pub const COMPACT_RETRY: Duration = Duration::from_ms(10_000);
/// Maximum time until the next attempt after several compactions failed.
pub const COMPACT_RETRY_MAX: Duration = Duration::from_ms(600_000);
/// Time until the next look at a queue file that cannot be used.
pub const QUEUE_RETRY: Duration = Duration::from_ms(3000);
/// Size at which `spool/rejected` is renamed and started again. One old file is kept.
pub const REJECTED_MAX_BYTES: u64 = 64 * 1024;
/// Maximum number of files `journal.bad-N`. Further damage is appended to the last one.
pub const BAD_FILES_MAX: u32 = 99;
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
/// Bytes that one turn reads from one handler.
pub const OUTPUT_TURN_BYTES: usize = 4096;
/// Time until the next attempt after a rotation failed.
pub const ROTATE_RETRY: Duration = Duration::from_ms(5000);

/// Maximum number of bytes that `log` writes as one line. A longer line is continued.
pub const COPY_LINE_BYTES: usize = 64 * 1024;
/// Bytes that `log` reads in one call, which is the size of a pipe (pipe(7)).
pub const COPY_READ_BYTES: usize = 64 * 1024;
/// Bytes of input that `log` holds: less than one line, and what is read after it.
pub const COPY_INPUT_BYTES: usize = COPY_LINE_BYTES + COPY_READ_BYTES;
/// Bytes of stamped lines that `log` gathers before it writes them. They fit the cache of the
/// processor.
pub const COPY_WRITE_BYTES: usize = 32 * 1024;
/// Bytes that `log` still takes from its pipe when it is stopped. This is the largest pipe of
/// an ordinary user (pipe(7)). Without a limit, a busy writer would keep `log` from ending.
pub const COPY_LAST_BYTES: usize = 1024 * 1024;
/// Time until `log` tries to write again after the disk refused.
pub const COPY_RETRY: Duration = Duration::from_ms(1000);
/// Microseconds between two reads below which input counts as coming without pause.
pub const READ_PACING_QUICK_US: u64 = 500;
/// Bytes in the pipe below which input that comes without pause is left there for a moment.
pub const READ_PACING_LITTLE_BYTES: usize = 16 * 1024;
/// Microseconds of the first pause before a read. Each further pause is longer.
pub const READ_PACING_MIN_US: u64 = 50;
/// Microseconds of the longest pause before a read.
pub const READ_PACING_MAX_US: u64 = 1000;
/// Bytes in the pipe from which there is no pause. This is more than half of a pipe, because
/// its writer must not be delayed.
pub const READ_PACING_MUCH_BYTES: usize = 40 * 1024;

/// Minimum time between two heartbeats.
pub const HEARTBEAT_MIN: Duration = Duration::from_ms(250);
/// Maximum number of times that a torn heartbeat is read again.
pub const TORN_READS_MAX: u32 = 20;
/// Maximum number of bytes in the status for a service manager.
pub const NOTIFY_STATUS_BYTES: usize = 120;
/// Time until a message that the service manager did not take is sent again.
pub const NOTIFY_RETRY: Duration = Duration::from_ms(1000);
/// Minimum time between two messages for the watchdog of a service manager, because less
/// would keep the loop running without pause.
pub const WATCHDOG_MIN: Duration = Duration::from_ms(10);
/// Time until a service that is ready tries again to report it, after the kernel had no
/// memory for the message.
pub const READY_RETRY: Duration = Duration::from_ms(20);
/// Maximum number of times that a service tries to report that it is ready.
pub const READY_TRIES: u32 = 100;
/// Time after `stop_timeout` until `stop` sends KILL.
pub const STOP_GRACE: Duration = Duration::from_ms(5000);
/// Time between two looks at the lock while `stop` waits on a kernel without pidfd.
pub const STOP_POLL: Duration = Duration::from_ms(20);

/// Maximum number of clients of one socket at the same time.
pub const CLIENTS_MAX: usize = 16;
/// Maximum number of unauthorized clients connected at the same time. Each waits only for its
/// error reply.
pub const UNAUTHORIZED_MAX: usize = 2;
/// Maximum number of bytes in one request, without its newline. A job and its verb fit.
pub const REQUEST_MAX_BYTES: usize = 1100;
/// Bytes of a client's input that are held: one request, its carriage return and its newline.
pub const CLIENT_INPUT_BYTES: usize = REQUEST_MAX_BYTES + 4;
/// Bytes of replies that are held until the client reads them. One line of `list` fits.
pub const CLIENT_OUTPUT_BYTES: usize = 1280;
/// Maximum number of jobs that one client may add in one turn, because the replies must fit.
pub const CLIENT_TURN_JOBS: usize = 40;
/// Maximum number of connections that one turn accepts.
pub const ACCEPT_TURN: usize = 4;
/// Time after which a client is closed that sent half a request, does not read its reply, or
/// does not ask for the next page. From this time on, an idle client can be closed for
/// another client.
pub const CLIENT_IDLE: Duration = Duration::from_ms(30_000);
/// Time until connections are accepted again after there were no descriptors.
pub const ACCEPT_RETRY: Duration = Duration::from_ms(1000);
/// Maximum number of denials that are logged in [`QUOTA`]. All denials are counted.
pub const DENIALS_LOGGED_MAX: u32 = 10;
/// Maximum number of joins and leaves of the hub that are logged in [`QUOTA`], which is one
/// of each for all its clients. All joins are counted.
pub const JOINS_LOGGED_MAX: u32 = 32;
/// Time in which the number of log lines that clients can cause is limited.
pub const QUOTA: Duration = Duration::from_ms(60_000);
/// Time for which the start tries again to bind a socket that another process listens on.
pub const SOCKET_IN_USE: Duration = Duration::from_ms(1000);
/// Number of ended jobs whose results `wait` can still report.
pub const RESULTS_KEPT: usize = 64;
/// Number of lines in one page of `list`.
pub const LIST_PAGE: usize = 100;
/// Time in which a client must ask for the next page of `list` while another client waits for
/// a scan.
pub const PAGE_PATIENCE: Duration = Duration::from_ms(2000);
/// Maximum number of events that one turn holds for clients that watch. Further events are
/// counted as missed.
pub const EVENTS_TURN: usize = 96;

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
/// Time after which a worker of the opener that was asked to end is killed.
pub const WORKER_GRACE: Duration = Duration::from_ms(500);
/// Time beyond the worker's deadline from which the whole system must have been suspended.
/// The worker then gets its time again.
pub const WORKER_OVERSLEPT: Duration = Duration::from_ms(1000);
/// Number of heartbeats after which the opener looks at the name of its socket. The look adds
/// one system call to every second idle turn.
pub const OPENER_SOCKET_BEATS: u64 = 2;

/// Maximum number of bytes in one line of a reply that a client holds: a job of `list` with
/// its numbers, or all fields of `status` with space for later ones.
pub const ANSWER_MAX_BYTES: usize = 2048;
/// Time for which a client waits for a reply. This is longer than the sync of a slow disk.
pub const ANSWER_WAIT: Duration = Duration::from_ms(30_000);
/// Time for which `status` waits for all its replies together.
pub const STATUS_WAIT: Duration = Duration::from_ms(2000);
/// Time that a running service may take to create its socket.
pub const CONNECT_WAIT: Duration = Duration::from_ms(2000);
/// Time between two attempts of a client to connect.
pub const CONNECT_RETRY: Duration = Duration::from_ms(50);
/// Maximum number of times that `open` asks again after it got no reply.
pub const OPEN_ATTEMPTS_MAX: u32 = 10;
/// Time for which a client waits for a service that is restarted.
pub const RESTART_WAIT: Duration = Duration::from_ms(30_000);
/// Time until `queue -` asks again after the queue was full.
pub const FULL_RETRY: Duration = Duration::from_ms(200);
/// Time until `queue -` sends refused lines again.
pub const REFUSED_RETRY: Duration = Duration::from_ms(500);
/// Bytes of input that `queue -` holds until its lines are whole. A longer line is no job.
pub const QUEUE_STDIN_INPUT_BYTES: usize = 2560;
/// Bytes of requests that `queue -` sends in one call.
pub const QUEUE_STDIN_OUTPUT_BYTES: usize = 2560;
/// Time between two progress messages of `queue -`.
pub const PROGRESS_EVERY: Duration = Duration::from_ms(200);

/// Time after its start within which a service that ends is restarted more slowly each time.
pub const RESTART_QUICK: Duration = Duration::from_ms(10_000);
/// Time until the first slow restart. The time doubles with each quick end.
pub const RESTART_DELAY: Duration = Duration::from_ms(1000);
/// Maximum time until a restart. A service is never given up.
pub const RESTART_DELAY_MAX: Duration = Duration::from_ms(60_000);
/// Factor of `stale_after`: the time that a start may take. A large spool on slow flash is
/// read before the first heartbeat.
pub const START_PATIENCE: u64 = 8;
/// Time after `stop_timeout` until a supervisor that stops kills its services. This is less
/// than [`STOP_GRACE`], after which `stop` would kill the supervisor.
pub const LEAVE_GRACE: Duration = Duration::from_ms(2000);
/// Number of times that a hardware watchdog is fed within its timeout.
pub const WATCHDOG_KICKS: u64 = 3;
/// Time between two feeds of a hardware watchdog that does not report its timeout.
pub const WATCHDOG_FEED: Duration = Duration::from_ms(5000);
/// Time after KILL from which a service that still exists counts as impossible to kill.
pub const UNKILLABLE: Duration = Duration::from_ms(5000);

/// Bytes of a page of memory. Where pages are larger, less is given back.
pub const PAGE_BYTES: usize = 4096;

/// Maximum number of descriptors that one turn watches: signals, inotify, a listener, the
/// handlers and the clients.
pub const POLL_MAX: usize = 8 + WORKERS_MAX + CLIENTS_MAX;
/// Maximum number of descriptors that a service needs: those that are polled, the claims, and
/// a dozen of its own.
pub const DESCRIPTORS_MAX: usize = POLL_MAX + CLAIMS_MAX + 16;
/// Free bytes below which `doctor` warns, because a spool and a log would soon be stuck.
pub const FREE_WARN_BYTES: u64 = 256 * 1024;
/// Seconds since 1970 of 2020-01-01. A clock that shows an earlier time was never set.
pub const CLOCK_SET_AFTER: i64 = 1_577_836_800;
/// Bytes of memory that several tasks share because they never run at the same time: reading
/// the configuration, recovering and reading the journal, reading claims.
pub const SCRATCH_BYTES: usize = 16 * 1024;
/// Bytes of the stack of a child between clone and exec.
pub const SPAWN_STACK_BYTES: usize = 4096;

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
    "words" WORDS_MAX, "words of a job for a directory handler";
    "claims" CLAIMS_MAX, "claimed queue files at once";
    "claim_every" CLAIM_EVERY.as_ms(), "ms between two claims of the queue file";
    "claim_quiet" CLAIM_QUIET.as_ms(), "ms without a write until a claim is released";
    "commit_delay" COMMIT_DELAY.as_ms(), "ms until the end of a job is synced";
    "retry_delay_max" RETRY_DELAY_MAX.as_ms(), "ms between two attempts, at most";
    "clients" CLIENTS_MAX, "clients of a socket at once";
    "request" REQUEST_MAX_BYTES, "bytes of a request to the control socket";
    "client_idle" CLIENT_IDLE.as_ms(), "ms until a client that is stuck is closed";
    "chat_line" CHAT_LINE_BYTES, "bytes of a line that the hub passes on";
    "metrics" METRICS_MAX, "names that the collector knows";
    "metric_name" METRIC_NAME_BYTES, "bytes of a metric's name";
    "metric" METRIC_OBJECT_BYTES, "bytes of one JSON object for the collector";
    "results" RESULTS_KEPT, "ends of jobs that wait can still tell";
    "list_page" LIST_PAGE, "jobs in one page of list";
    "log_line" LOG_LINE_BYTES, "bytes of one log line";
    "copied_line" COPY_LINE_BYTES, "bytes of a line that log never cuts";
    "syslog" SYSLOG_MAX_BYTES, "bytes of one syslog datagram";
    "output_line" OUTPUT_LINE_BYTES, "bytes of one line of a handler's output";
    "rejected" REJECTED_MAX_BYTES, "bytes of spool/rejected before it starts anew";
    "allow_ids" ALLOW_IDS_MAX, "entries of allow_uid and of allow_gid";
    "allow_paths" ALLOW_PATHS_MAX, "entries of allow";
    "allow_links" LINKS_MAX, "symbolic links in one entry of allow";
    "heartbeat" HEARTBEAT_MIN.as_ms(), "ms between two heartbeats, at least";
    "stop_grace" STOP_GRACE.as_ms(), "ms after stop_timeout until stop sends KILL";
}

/// Returns the rows that `zigsvc limits` prints: name, value, and meaning with the unit.
pub fn rows() -> impl Iterator<Item = (&'static str, u32, &'static str)> {
    NAMES.iter().zip(VALUES).zip(MEANINGS.iter()).map(|((name, value), meaning)| (name, *value, meaning))
}
