//! zigsvc: a background service worth trusting, for BusyBox-class Linux.
//!
//! # The map
//!
//! ```text
//! main.rs ─▶ cli ──▶ service ──▶ state ──▶ proto      (bytes)
//!             │         │          (decisions)
//!             └────┬────┘
//!                  ▼
//!                 sys                                  (the kernel)
//! ```
//!
//! - [`util`]: what all of them use: paths, text, lines, points in time and spans
//! - [`limits`]: every capacity and timeout, with its reason
//! - [`proto`]: pure bytes: the configuration, the journal's records, log
//!   lines, the health record, requests. No state, no system call.
//! - [`state`]: pure decisions: the spool and its recovery, the window of jobs,
//!   rotation, backoff, supervision. Time is an argument, the disk is a trait.
//! - `sys`: the only layer that makes system calls, and, with `rt`, the only
//!   one with `unsafe`. Every function names its call and its promise.
//! - `service`: the services, their life, their log, their heartbeat
//! - `cli`: the one list of commands, and the commands
//! - `rt` (in the binary): entry point, memory functions, panic handler
//!
//! # Laws
//!
//! 1. No heap, no libc, no threads. Everything large lies in one static.
//! 2. One loop shape; see `service/jobs/mod.rs`. Nothing in it blocks but the
//!    disk.
//! 3. After start-up nothing ends a service but a stop: what fails is logged
//!    once, leaves a named degraded state, and is tried again.
//! 4. `proto` and `state` name no clock, no path and no system call. The
//!    compiler proves it: they are all that is left without the feature `sys`.
//! 5. Every descriptor is close-on-exec from birth; every external string is
//!    escaped before it is logged; every number from outside is bounded.
//! 6. Every limit is a constant in `limits.rs`.
//!
//! # One job, from line to end
//!
//! `turn` of `service/jobs/mod.rs` calls these, in the order that its head gives.
//!
//! 1. `service/jobs/mod.rs`, `on_inotify`: the queue file was written
//!    (`sys/inotify.rs`), so look at it
//! 2. `state/spool/ingest.rs`, `ingest`: it is renamed to a claim
//!    (`service/disk.rs`) and read; its lines go into the journal, and with them
//!    the offset behind them
//! 3. `service/jobs/turn.rs`, `commit_turn`, and `state/spool/mod.rs`,
//!    `commit`: the journal is synced
//! 4. `state/spool/refill.rs`, `refill`: the job is read into the window
//! 5. `service/jobs/handlers.rs`, `start_jobs`: it is chosen, and its start goes into
//!    the journal (where the handler is the log, `log_jobs` does steps 5 to 7)
//! 6. `service/jobs/job_worker.rs`, `JobWorker::start`: a handler runs; its output is logged
//! 7. `service/jobs/handlers.rs`, `on_ended_handlers`: it is reaped; `job_ended`
//!    says what follows
//! 8. `state/spool/attempts.rs`, `write_transitions`: the end is in the journal, and synced by the next
//!    commit, at most `COMMIT_DELAY` later
//!
//! # One request, from connection to answer
//!
//! 1. `service/connections.rs`, `accept`: the connection is accepted (`service/listener.rs`),
//!    its client gets rights (`state/access.rs`) and a slot (`state/clients.rs`)
//! 2. `service/connections.rs`, `serve` and `read`: the bytes are received
//! 3. `service/jobs/serving.rs`, `take`: the bytes are divided into requests
//!    (`proto/framing.rs`), if there is room for another answer (`state/jobs/replies.rs`)
//! 4. `service/jobs/requests.rs`, `handle`: verb and argument (`proto/control.rs`), the entry
//!    of `REQUESTS`, the rights. The function of the entry answers at once, or has the client
//!    wait for the rest
//! 5. the rest: `service/jobs/serving.rs`, `reply_after_commit`, after the commit;
//!    `service/jobs/scan.rs`, which performs `state/jobs/scan_task.rs`, after a scan of the
//!    journal; `notify_waiters` of `serving.rs`, when a job has ended
//!
//! # One death, from the kernel to the restart
//!
//! `sys/signal.rs` (SIGCHLD; for an adopted service its pidfd) →
//! `service/supervisor/perform.rs` (reaps it, probes the lock of its PID file) →
//! `state/supervisor.rs` and `state/supervisor/instance.rs` (died, or stopped on purpose;
//! when to start it) → `perform.rs` (performs the decision) →
//! `service/supervisor/managed_process.rs` (started) → `service/lifecycle.rs` of the new
//! process (reports) → `service/supervisor/events.rs` (ready).
//!
//! # One line of `zigsvc log`, from the pipe to the file
//!
//! `cli/log.rs` (read) → `state/log_stream.rs` (whole? stamped? does it fit?) →
//! `service/logfile.rs` (written, rotated) by the steps of `state/rotation.rs`.
//!
//! # One file, from the request to the descriptor
//!
//! `service/opener/worker_process.rs` (a client's path; as nobody, in an empty root) →
//! `proto/opener.rs` (a message of fixed length) → `service/opener/file_requests.rs` (main: counts,
//! logs, answers) → `state/opener/allow_list.rs` (on the list? its target?) → `sys/file.rs`
//! (opened, without links) → `sys/fd_passing.rs` (to the worker, to the client).
//!
//! # Recipes
//!
//! - **A command**: one row in `commands!` of `cli/mod.rs`, its function in the
//!   module that fits, and its row in README.md. An option is one row in `options!` of
//!   `cli/command_line.rs`. `tests/suite/packaging/manual` fails without
//!   the row in README.md, and until the manual page and the completion are written again
//!   (`ZIGSVC_WRITE=1 cargo test --test suite manual::`).
//! - **A request of the control socket**: one entry in `REQUESTS` of
//!   `service/jobs/requests.rs`, its function there, its line in
//!   `docs/control.md`. `tests/suite/control/language.rs` fails if `help` does not name it.
//! - **A counter of `status`**: one line in `push_status` of
//!   `service/jobs/status.rs`, one in `proto/prometheus.rs`, one in
//!   `docs/control.md`; `tests/suite/control/language.rs` and `tests/suite/commands/status.rs` fail
//!   if one is missing.
//! - **A configuration key**: one row in `config!` of `proto/config/table.rs`, which is its
//!   field too, and its lines in `init.d/zigsvc.conf`. The unit
//!   tests fail if it does not read back, or keeps its value when a reload does
//!   not name it any more; `tests/suite/init_systems/init_script` fails if the sample lacks it or
//!   shows another default, `tests/suite/packaging/manual` until the manual page and the
//!   completion are written again, as for a command.
//! - **A service**: its name in `proto/service.rs` (`Service::ALL`; the compiler then
//!   asks for `SUPERVISED_MAX` in `limits.rs`, and for its line in `serve` of
//!   `cli/lifecycle.rs`), and its `service/NAME.rs`, named in `service/mod.rs`, after
//!   `service/hub.rs`, which leaves to `service/base.rs` what every service
//!   does. What it keeps beyond its frame is declared by `once!` of
//!   `sys/once.rs`. Its socket is for those whom the configuration names,
//!   or for everybody: `find_policy` in `service/listener.rs`. A service without
//!   a socket has its own loop, as `supervisor` does. `tests/suite/packaging/manual` fails until
//!   the completion is written anew, README.md and `init.d/zigsvc.default` name it,
//!   the packages stop it when they are removed, `.ci/budget` and
//!   `tests/bench/sections/memory` measure it, and `link.ld` has its code lie apart.
//! - **A timer**: a moment in the service's state, its check in the stage of
//!   the turn where it belongs, and its line in `next_deadline` (a service on `ServiceBase` hands that
//!   to `ServiceBase::wait`; the hub has none, and hands it `None`). How long it
//!   takes is a constant of `limits.rs`. Without the line in `next_deadline` the loop
//!   sleeps past it, and the test that waits for it times out.
//! - **A record of the journal**: `proto/journal.rs`, then the module
//!   documentation of `state/spool/mod.rs`.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]
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
pub mod state;
#[cfg(feature = "sys")]
pub mod sys;
pub mod util;
