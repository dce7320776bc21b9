//! Every limit of the program, with its reason. `zigsvc limits` prints
//! [`TABLE`]; a limit that a user can meet belongs in it.
//!
//! Nothing grows at run time: these numbers are the memory of the process.

use crate::util::time::Duration;

/// Bytes of one job's text. With its record and a log prefix it stays below
/// PIPE_BUF (4096), and it fits an environment variable and one argument.
pub const JOB_MAX_BYTES: usize = 1000;
/// Bytes of a path, without terminator: six of them are held per
/// configuration, and two configurations during a reload.
pub const PATH_MAX_BYTES: usize = 255;
/// Bytes of a user, group or metric name in the configuration.
pub const NAME_MAX_BYTES: usize = 32;
/// Bytes of an abstract socket name: `sockaddr_un` less the leading null.
pub const METRICS_NAME_MAX_BYTES: usize = 107;
/// Bytes of the configuration file: it is read whole into the scratch memory.
pub const CONFIG_MAX_BYTES: usize = SCRATCH_BYTES;
/// Overrides given by `-o`; they are kept for reloads.
pub const OVERRIDES_MAX: usize = 48;
/// Words of the options in front of a command: a supervisor hands them on to its
/// services. Each override may be two, and `-c` and `-d` are there.
pub const OPTION_WORDS_MAX: usize = 2 * OVERRIDES_MAX + 8;
/// Entries of `allow_uid` and of `allow_gid`.
pub const ALLOW_IDS_MAX: usize = 8;
/// Entries of `allow` for the opener.
pub const ALLOW_PATHS_MAX: usize = 32;
/// Bytes of all entries of `allow` together.
pub const ALLOW_PATHS_BYTES: usize = 2048;
/// Symbolic links that are followed in one path, as many as the kernel does.
pub const LINKS_MAX: u32 = 40;
/// Services that one supervisor can hold: all but itself.
pub const SUPERVISED_MAX: usize = 4;
/// Supplementary groups kept when privileges are dropped.
pub const GROUPS_MAX: usize = 32;

/// Jobs held in memory: enough to keep eight workers busy between two reads
/// of the journal, small enough to cost one kilobyte.
pub const WINDOW_JOBS: usize = 32;
/// Handlers that run at once.
pub const WORKERS_MAX: usize = 8;
/// Deleted jobs beyond the window that are remembered until a compaction.
pub const TOMBSTONES_MAX: usize = 64;
/// Claimed queue files that are read at once.
pub const CLAIMS_MAX: usize = 32;
/// The highest number of a claim: what looks like a claim with a higher one is none of
/// ours, because there must always be a next one.
pub const CLAIM_SEQ_MAX: u64 = u64::MAX / 2;
/// Damaged claim batches that a recovery keeps apart.
pub const DAMAGED_BATCHES_MAX: usize = 8;
/// Words of a job for a directory handler.
pub const WORDS_MAX: usize = 128;
/// A queue file is claimed at most this often: each claim costs a rename and
/// a directory sync, which wear out flash.
pub const CLAIM_EVERY: Duration = Duration::from_ms(500);
/// A claim is read on until its writer has been quiet for this long.
pub const CLAIM_QUIET: Duration = Duration::from_ms(10_000);
/// Bytes taken from claims in one turn, so that a flood delays nothing else
/// by more than one commit.
pub const INGEST_TURN_BYTES: usize = 64 * 1024;
/// Bytes of records gathered before they are written: one claim batch.
pub const JOURNAL_BUFFER_BYTES: usize = 8 * 1024;
/// Starts and ends of jobs are synced at most this much later.
pub const COMMIT_DELAY: Duration = Duration::from_ms(1000);
/// After an error of the spool's disk, the next attempt.
pub const SPOOL_RETRY: Duration = Duration::from_ms(1000);
/// After the kernel refused to start a handler (no descriptors, no memory, too
/// many processes), the next attempt.
pub const START_RETRY: Duration = Duration::from_ms(1000);
/// New jobs are taken while the spool's disk has this much: one batch of them,
/// and what that batch will need ...
pub const RESERVE_BYTES: u64 = 24 * 1024;
/// ... and this much for each job that waits: its start and its end.
pub const RESERVE_PER_JOB_BYTES: u64 = 44;
/// The journal has the disk keep so much more than it must, so that it need not ask with
/// each batch of new jobs.
pub const PREALLOCATE_BYTES: u64 = 32 * 1024;
/// So much must be free for new jobs beside what is kept: more than a batch of them takes.
pub const BATCH_BYTES: u64 = 8 * 1024;
/// Dead bytes in the journal that are worth rewriting it where there is no room.
pub const COMPACT_LOW_SPACE_BYTES: u64 = 8 * 1024;
/// ... if they are this part of the live ones, which each rewrite copies.
pub const COMPACT_LOW_SPACE_SHARE: u64 = 4;
/// Live records of jobs that are copied in one step where there is no room; more would hold up
/// everything else.
pub const COMPACT_AT_ONCE_BYTES: u64 = 1024 * 1024;
/// What a new journal has beside the live records of jobs: its header, the numbers, the claims.
pub const COMPACT_HEAD_BYTES: u64 = 4 * 1024;
/// Once there was no room for new jobs, they are taken again when there is this
/// much more: a block of most filesystems, some ninety ends of jobs.
pub const SPACE_MARGIN_BYTES: u64 = 4 * 1024;
/// Dead bytes in the journal below which it is not worth rewriting.
pub const COMPACT_MIN_BYTES: u64 = 64 * 1024;
/// Bytes of the journal that are read at once by a running service: four
/// records, and few pages of memory.
pub const READ_BYTES: usize = 4096;
/// Bytes of the journal that one turn walks through for one who asks.
pub const SCAN_STEP_BYTES: u64 = 64 * 1024;
/// Bytes copied by one step of a compaction.
pub const COMPACT_STEP_BYTES: u64 = 128 * 1024;
/// After a compaction that failed, the next attempt, doubling...
pub const COMPACT_RETRY: Duration = Duration::from_ms(10_000);
/// ... to this.
pub const COMPACT_RETRY_MAX: Duration = Duration::from_ms(600_000);
/// A queue file that cannot be used is looked at again after this long.
pub const QUEUE_RETRY: Duration = Duration::from_ms(3000);
/// `spool/rejected` starts anew at this size; one older file is kept.
pub const REJECTED_MAX_BYTES: u64 = 64 * 1024;
/// Files `journal.bad-N` that are kept; after that, damage is appended to the
/// last one.
pub const BAD_FILES_MAX: u32 = 99;
/// The longest wait between two attempts of a job.
pub const RETRY_DELAY_MAX: Duration = Duration::from_ms(300_000);

/// A log is full at this size, if nothing else is said.
pub const LOG_MAX_BYTES: u64 = 10_000;
/// Old files of a log that can be kept.
pub const LOG_KEEP_MAX: u32 = 99;
/// Bytes of one line of the daemon's log, its end included; a longer one is
/// cut and marked.
pub const LOG_LINE_BYTES: usize = 2048;
/// Log lines gathered in one turn before they are written.
pub const LOG_BUFFER_BYTES: usize = 4096;
/// Bytes of one syslog datagram: BusyBox's syslogd reads 256.
pub const SYSLOG_MAX_BYTES: usize = 250;
/// Bytes of one line of a handler's output that are held until its end.
pub const OUTPUT_LINE_BYTES: usize = 1024;
/// Bytes read from one handler in one turn.
pub const OUTPUT_TURN_BYTES: usize = 4096;
/// A rotation that failed is tried again after this long.
pub const ROTATE_RETRY: Duration = Duration::from_ms(5000);

/// Bytes of a line that `log` writes in one piece; a longer one is continued.
pub const COPY_LINE_BYTES: usize = 64 * 1024;
/// Bytes that `log` reads at once: all that a pipe holds (pipe(7)).
pub const COPY_READ_BYTES: usize = 64 * 1024;
/// Bytes of input that `log` holds: less than a line, and what is read then.
pub const COPY_INPUT_BYTES: usize = COPY_LINE_BYTES + COPY_READ_BYTES;
/// Bytes of stamped lines that `log` gathers before it writes them: few enough to
/// stay in the processor's cache.
pub const COPY_WRITE_BYTES: usize = 32 * 1024;
/// `log` that is told to stop takes this much from its pipe: what the largest pipe
/// of an ordinary user can hold (pipe(7)), and no more, or it would never end.
pub const COPY_LAST_BYTES: usize = 1024 * 1024;
/// `log` tries again to write what the disk did not take after this long.
pub const COPY_RETRY: Duration = Duration::from_ms(1000);
/// Input that comes this soon after the last one comes without pause ...
pub const READ_PACING_QUICK_US: u64 = 500;
/// ... and then, if it is less than this ...
pub const READ_PACING_LITTLE_BYTES: usize = 16 * 1024;
/// ... the pipe is left alone for a moment, from this ...
pub const READ_PACING_MIN_US: u64 = 50;
/// ... to this, longer each time ...
pub const READ_PACING_MAX_US: u64 = 1000;
/// ... until there is this much: more than half of a pipe, whose writer must not be
/// held up.
pub const READ_PACING_MUCH_BYTES: usize = 40 * 1024;

/// The heartbeat is written at most this often.
pub const HEARTBEAT_MIN: Duration = Duration::from_ms(250);
/// How often a heartbeat that is torn is read again.
pub const TORN_READS_MAX: u32 = 20;
/// Bytes of the status that a service manager is told.
pub const NOTIFY_STATUS_BYTES: usize = 120;
/// What a service manager did not take is tried again after this long.
pub const NOTIFY_RETRY: Duration = Duration::from_ms(1000);
/// A service manager's watchdog is fed at most this often, or the loop would
/// spin.
pub const WATCHDOG_MIN: Duration = Duration::from_ms(10);
/// A service that is ready, and has no memory to say so, tries again after this
/// long ...
pub const READY_RETRY: Duration = Duration::from_ms(20);
/// ... and so often.
pub const READY_TRIES: u32 = 100;
/// `stop` sends KILL this long after `stop_timeout`.
pub const STOP_GRACE: Duration = Duration::from_ms(5000);
/// Without pidfd, `stop` looks at the lock this often.
pub const STOP_POLL: Duration = Duration::from_ms(20);

/// Clients of one socket at once.
pub const CLIENTS_MAX: usize = 16;
/// Clients at once that may nothing, and wait to be told so.
pub const UNAUTHORIZED_MAX: usize = 2;
/// Bytes of one request, without its newline: a job and its verb.
pub const REQUEST_MAX_BYTES: usize = 1100;
/// Bytes of a client's input that are held: one request, its CR and newline.
pub const CLIENT_INPUT_BYTES: usize = REQUEST_MAX_BYTES + 4;
/// Bytes of answers that a client has not taken yet: one line of `list`.
pub const CLIENT_OUTPUT_BYTES: usize = 1280;
/// New jobs that one client may add in one turn: their answers must fit.
pub const CLIENT_TURN_JOBS: usize = 40;
/// Connections accepted in one turn.
pub const ACCEPT_TURN: usize = 4;
/// A half request, an answer that is not read, a page that is not taken: the
/// client is closed after this long. An idle client may be from then on.
pub const CLIENT_IDLE: Duration = Duration::from_ms(30_000);
/// After a lack of descriptors, the next attempt to accept.
pub const ACCEPT_RETRY: Duration = Duration::from_ms(1000);
/// Denials that are logged within [`QUOTA`]. All are counted.
pub const DENIALS_LOGGED_MAX: u32 = 10;
/// Joins and leaves of the hub that are logged within [`QUOTA`]: one of each for all its
/// clients. All who joined are counted.
pub const JOINS_LOGGED_MAX: u32 = 32;
/// The time for which so many lines that strangers cause are logged.
pub const QUOTA: Duration = Duration::from_ms(60_000);
/// A socket that somebody listens on is looked at again for this long, before
/// the start fails.
pub const SOCKET_IN_USE: Duration = Duration::from_ms(1000);
/// Ends of jobs that `wait` can still learn of.
pub const RESULTS_KEPT: usize = 64;
/// Lines of one page of `list`.
pub const LIST_PAGE: usize = 100;
/// ... and within this, if somebody else wants one.
pub const PAGE_PATIENCE: Duration = Duration::from_ms(2000);
/// Events of one turn for those who watch; more are missed.
pub const EVENTS_TURN: usize = 96;

/// Bytes of a line that the hub passes on, without its newline: with its mark it
/// fits what is held for a client that is slow ([`CLIENT_OUTPUT_BYTES`]).
pub const CHAT_LINE_BYTES: usize = 1024;

/// Names that the collector knows; with their sums they are seven kilobytes.
pub const METRICS_MAX: usize = 64;
/// Bytes of a metric's name.
pub const METRIC_NAME_BYTES: usize = 64;
/// Bytes of one object for the collector: its names take 450 at most, all their
/// bytes escaped, so the rest is for blanks and digits. Below [`CLIENT_INPUT_BYTES`].
pub const METRIC_OBJECT_BYTES: usize = 1024;
/// Bytes of one line of the collector: a name, an average, a count, or an error.
pub const METRIC_LINE_BYTES: usize = 160;
/// A worker of the opener that was told to go is killed after this long.
pub const WORKER_GRACE: Duration = Duration::from_ms(500);
/// Waking later than this beyond the end of a worker's patience means that nobody ran
/// meanwhile (a suspended system): the worker gets its time anew.
pub const WORKER_OVERSLEPT: Duration = Duration::from_ms(1000);
/// The opener looks at its socket's name each so many heartbeats: of its idle turns, one
/// in two is a system call longer.
pub const OPENER_SOCKET_BEATS: u64 = 2;

/// Bytes of one line of an answer that a client holds: a job of `list` with its
/// numbers, or all fields of `status` with room for later ones.
pub const ANSWER_MAX_BYTES: usize = 2048;
/// A client waits this long for an answer: longer than a slow disk's sync.
pub const ANSWER_WAIT: Duration = Duration::from_ms(30_000);
/// `status` waits this long for everything.
pub const STATUS_WAIT: Duration = Duration::from_ms(2000);
/// A service that runs may take this long to make its socket.
pub const CONNECT_WAIT: Duration = Duration::from_ms(2000);
/// How often a client tries to connect meanwhile.
pub const CONNECT_RETRY: Duration = Duration::from_ms(50);
/// How often `open` asks again that was left without an answer.
pub const OPEN_ATTEMPTS_MAX: u32 = 10;
/// A client waits this long for a service that is being restarted.
pub const RESTART_WAIT: Duration = Duration::from_ms(30_000);
/// `queue -` asks a full queue again after this long ...
pub const FULL_RETRY: Duration = Duration::from_ms(200);
/// ... and sends lines that were refused again after this long.
pub const REFUSED_RETRY: Duration = Duration::from_ms(500);
/// Bytes of input that `queue -` holds until its lines are whole; a longer
/// line is no job.
pub const QUEUE_STDIN_INPUT_BYTES: usize = 2560;
/// Bytes of requests that `queue -` sends at once.
pub const QUEUE_STDIN_OUTPUT_BYTES: usize = 2560;
/// `queue -` shows its progress this often.
pub const PROGRESS_EVERY: Duration = Duration::from_ms(200);

/// A service that dies again within this time is restarted more slowly ...
pub const RESTART_QUICK: Duration = Duration::from_ms(10_000);
/// ... after this, doubling ...
pub const RESTART_DELAY: Duration = Duration::from_ms(1000);
/// ... to this. It is never given up.
pub const RESTART_DELAY_MAX: Duration = Duration::from_ms(60_000);
/// A start may take this many times `stale_after`: a large spool on slow flash is
/// read before there is a heartbeat.
pub const START_PATIENCE: u64 = 8;
/// A supervisor that stops gives its services this much more than `stop_timeout`:
/// less than [`STOP_GRACE`], after which `stop` would kill the supervisor.
pub const LEAVE_GRACE: Duration = Duration::from_ms(2000);
/// A hardware watchdog is fed this often in the time that it allows ...
pub const WATCHDOG_KICKS: u64 = 3;
/// ... or, if it does not tell that time, this often.
pub const WATCHDOG_FEED: Duration = Duration::from_ms(5000);
/// A service that lives on this long after KILL cannot be killed.
pub const UNKILLABLE: Duration = Duration::from_ms(5000);

/// A page of memory, bytes. Where pages are larger, less is given back.
pub const PAGE_BYTES: usize = 4096;

/// Descriptors that one turn of a loop watches: signals, inotify, a listener,
/// and the handlers and clients.
pub const POLL_MAX: usize = 8 + WORKERS_MAX + CLIENTS_MAX;
/// Descriptors that a service may need: what is polled, the claims, and a dozen of
/// its own.
pub const DESCRIPTORS_MAX: usize = POLL_MAX + CLAIMS_MAX + 16;
/// Below this much free space `doctor` warns: a spool and a log would soon be stuck.
pub const FREE_WARN_BYTES: u64 = 256 * 1024;
/// A clock before this was never set: 2020-01-01, in seconds since 1970.
pub const CLOCK_SET_AFTER: i64 = 1_577_836_800;
/// Memory shared by what never happens at the same time: reading the
/// configuration, recovering and reading the journal, reading claims.
pub const SCRATCH_BYTES: usize = 16 * 1024;
/// Stack of a child between clone and exec.
pub const SPAWN_STACK_BYTES: usize = 4096;

/// What `zigsvc limits` prints: name, value, unit and meaning.
pub const TABLE: &[(&str, u64, &str)] = &[
    ("job", JOB_MAX_BYTES as u64, "bytes of one job"),
    ("path", PATH_MAX_BYTES as u64, "bytes of a path"),
    ("config", CONFIG_MAX_BYTES as u64, "bytes of the configuration file"),
    ("overrides", OVERRIDES_MAX as u64, "options -o"),
    ("window", WINDOW_JOBS as u64, "jobs in memory; the others wait on disk"),
    ("workers", WORKERS_MAX as u64, "handlers at once"),
    ("words", WORDS_MAX as u64, "words of a job for a directory handler"),
    ("claims", CLAIMS_MAX as u64, "claimed queue files at once"),
    ("claim_every", CLAIM_EVERY.as_ms(), "ms between two claims of the queue file"),
    ("claim_quiet", CLAIM_QUIET.as_ms(), "ms without a write until a claim is released"),
    ("commit_delay", COMMIT_DELAY.as_ms(), "ms until the end of a job is synced"),
    ("retry_delay_max", RETRY_DELAY_MAX.as_ms(), "ms between two attempts, at most"),
    ("clients", CLIENTS_MAX as u64, "clients of a socket at once"),
    ("request", REQUEST_MAX_BYTES as u64, "bytes of a request to the control socket"),
    ("client_idle", CLIENT_IDLE.as_ms(), "ms until a client that is stuck is closed"),
    ("chat_line", CHAT_LINE_BYTES as u64, "bytes of a line that the hub passes on"),
    ("metrics", METRICS_MAX as u64, "names that the collector knows"),
    ("metric_name", METRIC_NAME_BYTES as u64, "bytes of a metric's name"),
    ("metric", METRIC_OBJECT_BYTES as u64, "bytes of one JSON object for the collector"),
    ("results", RESULTS_KEPT as u64, "ends of jobs that wait can still tell"),
    ("list_page", LIST_PAGE as u64, "jobs in one page of list"),
    ("log_line", LOG_LINE_BYTES as u64, "bytes of one log line"),
    ("copied_line", COPY_LINE_BYTES as u64, "bytes of a line that log never cuts"),
    ("syslog", SYSLOG_MAX_BYTES as u64, "bytes of one syslog datagram"),
    ("output_line", OUTPUT_LINE_BYTES as u64, "bytes of one line of a handler's output"),
    ("rejected", REJECTED_MAX_BYTES, "bytes of spool/rejected before it starts anew"),
    ("allow_ids", ALLOW_IDS_MAX as u64, "entries of allow_uid and of allow_gid"),
    ("allow_paths", ALLOW_PATHS_MAX as u64, "entries of allow"),
    ("allow_links", LINKS_MAX as u64, "symbolic links in one entry of allow"),
    ("heartbeat", HEARTBEAT_MIN.as_ms(), "ms between two heartbeats, at least"),
    ("stop_grace", STOP_GRACE.as_ms(), "ms after stop_timeout until stop sends KILL"),
];
