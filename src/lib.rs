//! zigsvc: a background service worth trusting, for BusyBox-class Linux.
//!
//! # The map
//!
//! Each layer imports only layers below it; `.ci/structure` checks that.
//!
//! ```text
//! main.rs ─▶ cli ──▶ service ──▶ state ──▶ proto ──▶ util
//!             │         │      (decisions) (bytes)    ▲
//!             └────┬────┘                             │
//!                  ▼                                  │
//!                 sys (the kernel) ───────────────────┘
//! ```
//!
//! - [`util`]: paths, text, lines, tables of strings, points in time and spans of time
//! - [`limits`]: the capacities and timeouts that a user can meet, each with its reason
//! - [`proto`]: bytes: the configuration, the records of the journal, log lines, the health
//!   record, requests. It keeps no state and makes no system call.
//! - [`state`]: decisions: the spool and its recovery, the turn of `jobs`, clients, rotation,
//!   backoff, supervision. Time is an argument, and the disk is a trait.
//! - `sys`: system calls. With `rt` it is the only layer that has `unsafe` code. Every function
//!   names its call and its promise.
//! - `service`: performs what `state` decides: the services, their start and end, the log, the
//!   heartbeat, the sockets
//! - `cli`: the table of commands, and the commands
//! - `rt` (in the binary): entry point, memory functions, panic handler
//!
//! `docs/design.md` has the decisions with their reasons, the glossary, the state tables and
//! the format of the spool. `CONTRIBUTING.md` says what a first change needs.
//!
//! # Laws
//!
//! 1. No heap, no libc, no threads. Everything large lies in a static.
//! 2. Every service runs the same loop: poll with the nearest deadline, read the clock once,
//!    signals, children, deadlines, data, accept. Only the disk may block it.
//! 3. After the start only a stop ends a service. An error is logged once, is a named state in
//!    `degraded`, and the operation is tried again.
//! 4. `proto` and `state` name no clock, no path and no system call. The compiler proves it,
//!    because they are all that is left without the feature `sys`.
//! 5. Every descriptor is close-on-exec from its creation. Every string from outside is escaped
//!    before it is logged. Every number from outside is bounded before it is used.
//! 6. Every limit is a named constant: in `limits.rs` if a user can meet it, otherwise beside
//!    its use.
//!
//! # One job, from line to end
//!
//! 1. `service/jobs/mod.rs`, `on_inotify`: the queue file was written (`sys/inotify.rs`)
//! 2. `service/jobs/turn.rs`, `advance`: performs the actions that the turn
//!    (`state/jobs/turn.rs`) orders. The next steps are stages of that turn
//! 3. `state/spool/ingest.rs`, `ingest`: the file is renamed to a claim (`service/disk.rs`) and
//!    read. Its jobs go into the journal, together with the offset after them
//! 4. `state/spool/mod.rs`, `commit`: the journal is synced, and clients get their replies
//! 5. `state/spool/refill.rs`, `refill`: the job is read into the window
//! 6. `state/jobs/mod.rs`, `dequeue`: the job is dequeued, and `state/spool/attempts.rs`,
//!    `write_transitions`, appends its start to the journal
//! 7. `service/jobs/handlers.rs`, `start_handler`, and `service/jobs/job_worker.rs`: a handler
//!    runs, and its output is logged. The handler `log` only logs the text
//! 8. `service/jobs/handlers.rs`, `on_ended_handlers`: the handler is reaped, and
//!    `state/jobs/mod.rs`, `handler_ended`, decides if the job is done, retried or dead
//! 9. `state/spool/attempts.rs`, `write_transitions`: the end is in the journal, and synced by
//!    the next commit, at most `COMMIT_DELAY` later
//!
//! # One request, from connection to reply
//!
//! 1. `service/connections.rs`, `accept`: the connection is accepted (`service/listener.rs`),
//!    its client gets rights (`state/access.rs`) and a slot (`state/clients.rs`)
//! 2. `service/connections.rs`, `serve` and `read`: the bytes are received
//! 3. `service/jobs/serving.rs`, `take`: the bytes are divided into requests
//!    (`proto/framing.rs`), if there is room for another reply (`state/jobs/replies.rs`)
//! 4. `service/jobs/requests.rs`, `handle`: the verb and its argument are parsed
//!    (`proto/control.rs`), the row of `REQUESTS` is found and the rights are checked. The
//!    function of the row replies at once, or defers the reply
//! 5. A deferred reply follows the commit (`service/jobs/serving.rs`, `reply_after_commit`), a
//!    scan of the journal (`service/jobs/scan.rs`, which performs `state/jobs/scan_task.rs`),
//!    or the end of a job (`serving.rs`, `notify_waiters`)
//!
//! # One death, from the kernel to the restart
//!
//! `sys/signal.rs` (SIGCHLD; the pidfd of an adopted service) →
//! `service/supervisor/perform.rs` (reaps it, probes the lock of its PID file) →
//! `state/supervisor.rs` and `state/supervisor/instance.rs` (died or stopped on purpose, and
//! when to start it) → `perform.rs` (performs the decision) →
//! `service/supervisor/managed_process.rs` (starts it) → `service/lifecycle.rs` of the new
//! process (reports) → `service/supervisor/events.rs` (logs that it is ready).
//!
//! # One line of `zigsvc log`, from the pipe to the file
//!
//! `cli/log.rs` (reads) → `state/log_stream.rs` (whole lines, timestamps, the size of the file)
//! → `service/logfile.rs` (writes and rotates) by the steps of `state/rotation.rs`.
//!
//! # One file, from the request to the descriptor
//!
//! `service/opener/worker_process.rs` (receives the path of a client, without privileges and
//! in an empty root directory) → `proto/opener.rs` (a message of fixed length) →
//! `service/opener/file_requests.rs` (the main process counts, logs and replies) →
//! `state/opener/allow_list.rs` (finds the path on the list, and its target) → `sys/file.rs`
//! (opens it without following links) → `sys/fd_passing.rs` (to the worker, to the client).
//!
//! # Recipes
//!
//! - **A command**: one row in `commands!` of `cli/mod.rs`, its function in the module that
//!   fits, and its row in `docs/commands.md`. An option is one row in `options!` of
//!   `cli/command_line.rs`. `tests/suite/packaging/manual` fails without the row in `docs/commands.md`,
//!   and until the manual page and the completion are written again
//!   (`ZIGSVC_WRITE=1 cargo test --test suite manual::`).
//! - **A request of the control socket**: one row in `REQUESTS` of `service/jobs/requests.rs`,
//!   its function there, its line in `docs/control.md`. `tests/suite/control/language.rs` fails
//!   if `help` or that page does not name it.
//! - **A field of `status`**: one row in `status_fields!` of `proto/status.rs`, an arm of `value` in
//!   the service that has it, and its line in `docs/control.md`. A row with a metric is shown to
//!   Prometheus too. `tests/suite/control/language.rs` fails without the line.
//! - **A degraded state**: one row in the table of `state/degraded.rs`, and the code that
//!   computes it. A test fails until the documents list it.
//! - **A configuration key**: one row in `config!` of `proto/config/table.rs`, which declares
//!   its field too, and its lines in `init.d/zigsvc.conf`. The unit tests fail if the key does
//!   not read back, or if it keeps its value after a reload that no longer names it.
//!   `tests/suite/init_systems/init_script` fails if the sample lacks the key or shows another
//!   default, and `tests/suite/packaging/manual` fails as for a command.
//! - **A service**: its rows in `proto/service.rs`, its feature in `Cargo.toml`, its file
//!   `service/NAME.rs` after the example of `service/hub.rs`, and its row in `cli/services.rs`. `service/base.rs` does what all services share. Static memory is declared by
//!   `once!` of `sys/once.rs`. Code that the service runs while idle gets the section
//!   `.text.idle` (`link.ld`). `find_policy` in `service/listener.rs` says who may connect.
//!   `tests/suite/packaging/manual` fails until the completion is written again, `docs/commands.md`
//!   and `init.d/zigsvc.default` name the service, and the packages stop it at their removal.
//!   `.ci/budget` and `tests/bench/sections/memory` measure it.
//! - **A timer**: an `Option<Instant>` in the machine in `state` that decides about it, its
//!   check there, and its part in the machine's `next_deadline`. Without that part the loop
//!   sleeps past the deadline, and the unit test in virtual time fails. The span is a constant.
//! - **A record of the journal**: `proto/journal.rs`, then the head of `state/spool/mod.rs`, and
//!   the section on the format in `docs/design.md`.
//! - **A limit**: a constant and its row in `table!` of `limits.rs`, if a user can meet it: `zigsvc
//!   limits` prints the rows. Otherwise a constant beside its use. `text_with_number!` of
//!   `util/text.rs` makes a message of the constant. `tests/suite/docs` fails if `docs/limits.md`
//!   shows another value.
//! - **A message**: of a command, the argument of `fail` or `usage` of `cli/output.rs`, which print
//!   one line and return the exit code; in the log of a service, that of `info`, `warn` or `error` of
//!   `service/log.rs`. `push_escaped` writes a text from outside. `tests/suite/docs` fails if a
//!   session of `docs/` shows another message, and `tests/suite/commands/habits.rs` has those about a
//!   wrong command line.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]
#![cfg_attr(
    all(feature = "sys", not(all_features)),
    allow(dead_code, unused_imports, reason = "a build with fewer features needs a part of the shared code")
)]
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::std_instead_of_core
    )
)]

#[cfg(feature = "sys")]
pub mod cli;
pub mod limits;
pub mod proto;
#[cfg(feature = "sys")]
pub mod service;
#[cfg(test)]
mod sim;
pub mod state;
#[cfg(feature = "sys")]
pub mod sys;
pub mod util;
