//! The values of the status fields of `jobs`, and the texts of its log lines.

use super::Jobs;
use crate::proto::config::{Config, Handler};
use crate::proto::status::StatusField;
use crate::service::base::{ServiceBase, ServiceStatus};
use crate::service::disk::SpoolDisk;
use crate::service::lifecycle::describe_at;
use crate::service::log::Log;
use crate::service::queue_folder::{QueueFailure, QueueSubject};
use crate::state::degraded::{DegradedSet, DegradedState};
use crate::state::identity::WatchedPath;
use crate::state::spool::{Damage, IngestNotice, QueueNotice, Recovery};
use crate::state::window::{AttemptOutcome, JobState};
use crate::sys::{Errno, Failure, Op, describe_errno, file};
use crate::util::text::Writer;
use crate::util::time::Instant;
use crate::util::token;
use ufmt::uwrite;

/// Writes the number of bytes that were moved to journal.bad-N.
fn describe_quarantine(bytes: u64, out: &mut Writer<'_>) {
    let _ = uwrite!(out, "spool: {} damaged bytes of the journal were set aside as journal.bad-N", bytes);
}

/// Writes the damage that was found while the service runs.
pub(super) fn describe_damage(damage: Damage, out: &mut Writer<'_>) {
    describe_quarantine(damage.bytes, out);
    let _ = uwrite!(out, "; {} jobs are lost with them", damage.jobs);
}

impl Jobs {
    /// Logs the traces of the last crash.
    #[inline(never)]
    pub(super) fn log_recovery(&mut self, recovery: &Recovery) {
        let Recovery { torn_bytes, damaged_bytes, reread_batches, interrupted, undone_deletions } = *recovery;
        if torn_bytes > 0 {
            self.base.log.warn(&|out| {
                let _ = uwrite!(out, "spool: cut off {} bytes of a write that was not finished", torn_bytes);
            });
        }
        if damaged_bytes > 0 {
            self.base.process.reporter.warn(&|out| {
                out.push_escaped(self.base.process.config.spool.as_bytes());
                out.push_str(": damaged records were set aside as journal.bad-N");
            });
            self.base.log.error(&|out| {
                describe_quarantine(damaged_bytes, out);
                out.push_str("; jobs in them are not run");
            });
        }
        if undone_deletions > 0 {
            let spool = &self.base.process.config.spool;
            let text = |out: &mut Writer<'_>| {
                out.push_escaped(spool.as_bytes());
                let _ = uwrite!(out, "/journal: {} jobs that it deletes are there again, ", undone_deletions);
                out.push_str("because it holds more deletions than any version of zigsvc writes");
            };
            self.base.process.reporter.warn(&text);
            self.base.log.error(&text);
        }
        if reread_batches > 0 {
            self.base
                .log
                .warn(&|out| out.push_str("spool: lines whose record was not finished are read again"));
        }
        if self.core.disk_health.is_full() {
            let spool = &self.base.process.config.spool;
            self.base.log.error(&|out| {
                out.push_str("spool: no room for new jobs: ");
                out.push_escaped(spool.as_bytes());
                out.push_str(": the journal cannot be written");
            });
        }
        if interrupted > 0 {
            self.base.log.warn(&|out| {
                let _ = uwrite!(out, "{} interrupted jobs run again", interrupted);
            });
        }
    }

    /// Warns if the handler cannot be executed, because then every job fails.
    #[inline(never)]
    pub(super) fn warn_about_handler(&mut self) {
        let config = &self.base.process.config;
        let Handler::Path(path) = config.handler() else { return };
        let problem = match file::meta_at(path.as_c_str(), true) {
            Err(failure) => Some(failure),
            Ok(_) if file::executable(path.as_c_str()) => None,
            Ok(_) => Some(Failure { op: Op::Access, errno: Errno::ACCESS }),
        };
        let Some(failure) = problem else { return };
        self.base.log.warn(&|out| {
            out.push_str("handler: ");
            describe_at(path, failure, out);
        });
        // In the foreground the log has written it to stderr, without blocking.
        if !self.base.process.foreground {
            self.base.process.reporter.warn(&|out| {
                out.push_str("handler: ");
                describe_at(path, failure, out);
            });
        }
    }
}

impl ServiceStatus for Jobs {
    fn base(&self) -> &ServiceBase {
        self.base
    }

    fn base_mut(&mut self) -> &mut ServiceBase {
        self.base
    }

    fn value(&self, field: StatusField, now: Instant) -> Option<u64> {
        let window = self.core.spool.window();
        Some(match field {
            StatusField::Jobs => self.core.counts().jobs,
            StatusField::AttemptsFailed => self.core.counts().failed,
            StatusField::DeadDropped => self.core.counts().dead_dropped,
            StatusField::Dead => u64::from(self.core.spool.dead()),
            StatusField::Waiting => {
                let counted = window.count(|state| *state == JobState::Running);
                u64::from(self.core.spool.waiting().saturating_sub(counted))
            }
            StatusField::Scheduled => u64::from(self.core.spool.scheduled()),
            StatusField::Running => u64::from(self.running()),
            StatusField::Delayed => u64::from(window.count(|state| matches!(state, JobState::Delayed(_)))),
            StatusField::Room => u64::from(self.core.room()),
            StatusField::Fsyncs => self.core.spool.io_stats().syncs,
            StatusField::SpoolBytes => self.core.spool.io_stats().bytes,
            StatusField::Clients => self.control.connections.clients.count() as u64,
            StatusField::Denied => self.control.denials.count,
            StatusField::Token => token::hash(&self.orphans.mark.token),
            StatusField::Workers => self.core.workers() as u64,
            StatusField::HealthAge => self.base.heartbeat.age(now).as_ms(),
            _ => return None,
        })
    }

    #[allow(unsafe_code, reason = "names a section")]
    #[unsafe(link_section = ".text.idle")]
    fn check_path(&mut self, path: WatchedPath, now: Instant) {
        // Every heartbeat checks paths, and most of them one of this service.
        self.core.spool.claims.on_heartbeat();
        if path == WatchedPath::QueueFolder {
            self.check_queue_folder();
        } else {
            self.check_spool(path, now);
        }
    }

    /// Writes ` handler=NAME`.
    fn push_words(&self, out: &mut Writer<'_>) {
        out.push_str(" handler=");
        push_handler(self.base.process.config, out);
    }

    fn phase(&self) -> &'static str {
        match self.core.is_stopping() {
            true => "stopping",
            false if self.control.draining => "draining",
            false => "running",
        }
    }

    fn own_degraded(&self) -> DegradedSet {
        self.core
            .degraded()
            .with(DegradedState::Inotify, self.disk.queue.inotify.is_none())
            .with(DegradedState::SyncNever, !self.base.process.config.sync_always())
    }
}

/// Writes that the handler `log` does not take jobs that were queued for another one.
pub fn describe_others(count: u32, out: &mut Writer<'_>) {
    let _ =
        uwrite!(out, "handler: {} waiting jobs were queued for another handler, and log would only ", count);
    out.push_str("log them; set handler to what it was, or use -o take=all");
}

/// Bytes of the name of a handler.
const HANDLER_BYTES: usize = 320;

/// Writes the handler as one word: `log`, `shell` or its path, in which blanks are escaped too.
pub fn push_handler(config: &Config, out: &mut Writer<'_>) {
    let mut bytes = [0; HANDLER_BYTES];
    let mut name = Writer::new(&mut bytes);
    match config.handler() {
        Handler::Log => name.push_str("log"),
        Handler::Shell => name.push_str("shell"),
        Handler::Path(path) => {
            for part in path.as_bytes().split_inclusive(|byte| *byte == b' ') {
                name.push_escaped(part.strip_suffix(b" ").unwrap_or(part));
                name.push_str(if part.ends_with(b" ") { "\\x20" } else { "" });
            }
        }
    }
    out.push(name.as_bytes());
}

/// Writes `processing job: TEXT`.
pub(super) fn push_processing(text: &[u8], out: &mut Writer<'_>) {
    out.push_str("processing job: ");
    out.push_escaped(text);
}

/// Writes the outcome of an attempt.
pub(super) fn describe_outcome(outcome: AttemptOutcome, out: &mut Writer<'_>) {
    let _ = match outcome {
        AttemptOutcome::Success => uwrite!(out, "done"),
        AttemptOutcome::Code(code) => uwrite!(out, "failed with exit status {}", code),
        AttemptOutcome::Signal(signal) => uwrite!(out, "killed by signal {}", signal),
        AttemptOutcome::NotStarted => uwrite!(out, "not started"),
        AttemptOutcome::TimedOut => uwrite!(out, "timed out"),
    };
}

/// Logs a notice of the ingest.
pub(super) fn log_notice(log: &mut Log, notice: &IngestNotice<'_>) {
    log.warn(&|out| match *notice {
        IngestNotice::Rejected(line, why) => {
            let _ = uwrite!(out, "queue file: a line was put into spool/rejected, because {}: ", why);
            out.push_escaped(line.get(..60).unwrap_or(line));
        }
        IngestNotice::RejectedLost(error) => {
            out.push_str("queue file: a rejected line could not be kept: ");
            describe_errno(Errno::from_raw_os_error(error.0), out);
        }
    });
}

/// Logs that the queue file or a claim fails, or works again.
pub(super) fn log_queue_notice(log: &mut Log, disk: &SpoolDisk, notice: QueueNotice) {
    let queue = &disk.queue;
    let at = |(subject, failure): QueueFailure, out: &mut Writer<'_>| {
        describe_at(&queue.path_of(subject), failure, out);
    };
    match notice {
        QueueNotice::FileFails => log.warn(&|out| {
            out.push_str("queue file: ");
            match queue.file_failure {
                (QueueSubject::Lock, Failure { op: Op::Bind, errno: Errno::ADDRINUSE }) => {
                    out.push_str("another service reads it: ");
                }
                (QueueSubject::File, Failure { op: Op::Openat, .. }) => {
                    out.push_str("it must be a regular file that can be read, not a link or a folder: ")
                }
                _ => out.push_str("it cannot be claimed, and its lines wait: "),
            }
            at(queue.file_failure, out);
        }),
        QueueNotice::FileWorks => log.info(&|out| out.push_str("queue file: works again")),
        QueueNotice::ClaimFails => log.warn(&|out| {
            let removal = queue.claim_failure.1.op == Op::Unlinkat;
            let what = if removal { "removed, though it is read" } else { "read" };
            let _ = uwrite!(out, "a claim of the queue file cannot be {}: ", what);
            at(queue.claim_failure, out);
        }),
        QueueNotice::ClaimHeld(seq) => log.warn(&|out| {
            out.push_str(
                "a writer keeps a claim of the queue file open, and it waits for the end of the writer: ",
            );
            out.push_escaped(queue.path_of(QueueSubject::Claim(seq)).as_bytes());
        }),
        QueueNotice::ClaimsWork => log.info(&|out| out.push_str("the claims of the queue file work again")),
    }
}
