//! What the service says of itself in its log: at the start, when something
//! degrades or recovers, and when it is asked (SIGUSR2).

use super::{Jobs, Shutdown, rules};
use crate::limits::NOTIFY_STATUS_BYTES;
use crate::proto::config::Handler;
use crate::service::degraded::push_names;
use crate::service::disk::SpoolDisk;
use crate::service::lifecycle::describe_at;
use crate::service::log::Log;
use crate::state::disk::DiskError;
use crate::state::spool::{Damage, IngestNotice, Recovery};
use crate::state::window::{AttemptOutcome, JobState};
use crate::sys::{Errno, Failure, clock, describe_errno, file, process};
use crate::util::text::Writer;
use crate::util::time::Instant;
use ufmt::uwrite;

fn describe_quarantine(bytes: u64, out: &mut Writer<'_>) {
    let _ = uwrite!(out, "spool: {} damaged bytes of the journal were set aside as journal.bad-N", bytes);
}

/// What was damaged while the service runs.
pub(super) fn describe_damage(damage: Damage, out: &mut Writer<'_>) {
    describe_quarantine(damage.bytes, out);
    let _ = uwrite!(out, "; {} jobs are lost with them", damage.jobs);
}

impl Jobs {
    /// Tells what the last crash left.
    #[inline(never)]
    pub(super) fn log_recovery(&mut self, recovery: &Recovery) {
        let Recovery { torn_bytes, damaged_bytes, reread_batches, interrupted } = *recovery;
        if torn_bytes > 0 {
            self.log.warn(&|out| {
                let _ = uwrite!(out, "spool: cut off {} bytes of a write that was not finished", torn_bytes);
            });
        }
        if damaged_bytes > 0 {
            self.process.reporter.warn(&|out| {
                out.push_escaped(self.process.config.spool.as_bytes());
                out.push_str(": damaged records were set aside as journal.bad-N");
            });
            self.log.error(&|out| {
                describe_quarantine(damaged_bytes, out);
                out.push_str("; jobs in them are not run");
            });
        }
        if reread_batches > 0 {
            self.log.warn(&|out| out.push_str("spool: lines whose record was not finished are read again"));
        }
        if interrupted > 0 {
            self.log.warn(&|out| {
                let _ = uwrite!(out, "{} interrupted jobs run again", interrupted);
            });
        }
    }

    /// A handler that is not there fails each job; better said at once.
    #[inline(never)]
    pub(super) fn warn_about_handler(&mut self) {
        let config = &self.process.config;
        let Handler::Path(path) = config.handler() else { return };
        let problem = match file::meta_at(path.as_c_str(), true) {
            Err(failure) => Some(failure),
            Ok(_) if file::executable(path.as_c_str()) => None,
            Ok(_) => Some(Failure { op: "access", errno: Errno::ACCESS }),
        };
        let Some(failure) = problem else { return };
        self.log.warn(&|out| {
            out.push_str("handler: ");
            describe_at(path, failure, out);
        });
        // In the foreground the log says it on stderr, and never blocks there.
        if !self.process.foreground {
            self.process.reporter.warn(&|out| {
                out.push_str("handler: ");
                describe_at(path, failure, out);
            });
        }
    }

    /// Says once that the log, the health file or the socket fails, and once that
    /// it works again.
    #[inline(never)]
    pub(super) fn update_degraded(&mut self) {
        let config = &self.process.config;
        self.degraded.watch(&self.heartbeat, &mut self.log);
        let failure = self.control.listener.failure();
        if failure.is_some() != self.socket_failing {
            self.socket_failing = failure.is_some();
            match failure {
                Some(failure) => self.log.error(&|out| {
                    out.push_str("the control socket is gone, and cannot be made again: ");
                    describe_at(&config.socket, failure, out);
                }),
                None => self.log.info(&|out| out.push_str("the control socket is there again")),
            }
        }
    }

    pub(super) fn log_long_turn(&mut self, began: Instant) {
        let took = clock::now().since(began);
        if took.exceeds(self.process.config.stale_after) {
            self.log.warn(&|out| {
                let _ = uwrite!(out, "a turn of the loop took {} ms", took.as_ms());
            });
        }
    }

    /// How it is, for a service manager that wants to be told.
    pub(super) fn send_status(&mut self) {
        if !self.process.notify.is_wanted() {
            return;
        }
        let mut line = [0; NOTIFY_STATUS_BYTES];
        let mut out = Writer::new(&mut line);
        out.push_str(self.phase());
        out.push_str("; degraded: ");
        self.push_degraded(&mut out);
        self.process.notify.status(out.as_bytes());
    }

    /// SIGUSR2: what `status` would say.
    #[inline(never)]
    pub(super) fn log_status(&mut self, now: Instant) {
        let mut text = [0; 640];
        let mut status = Writer::new(&mut text);
        self.push_status(&mut status, now);
        self.log.info(&|out| {
            out.push_str("status: ");
            out.push(status.as_bytes());
        });
    }

    /// The fields of `status`; `docs/control.md` tells what they mean.
    #[inline(never)]
    pub(super) fn push_status(&self, out: &mut Writer<'_>, now: Instant) {
        let window = self.spool.window();
        let counted = window.count(|state| *state == JobState::Running);
        let _ = uwrite!(out, "pid={} state={}", process::pid().as_raw_pid(), self.phase());
        let (log, io_stats) = (self.log.counts(), self.spool.io_stats());
        let fields = [
            ("uptime", now.since(self.started_at).as_secs()),
            ("jobs", self.counts.jobs),
            ("failed", self.counts.failed),
            ("dead", u64::from(self.spool.dead())),
            ("waiting", u64::from(self.spool.waiting().saturating_sub(counted))),
            ("running", u64::from(self.running())),
            ("delayed", u64::from(window.count(|state| matches!(state, JobState::Delayed(_))))),
            ("room", u64::from(self.spool.room(&rules(self.process.config)))),
            ("reloads", self.counts.reloads),
            ("reload_errors", self.counts.reload_errors),
            ("rotations", log.rotations),
            ("log_lost", log.lost),
            ("fsyncs", io_stats.syncs),
            ("spool_bytes", io_stats.bytes),
            ("clients", self.control.connections.clients.count() as u64),
            ("denied", self.control.denials.count),
            ("health_age_ms", self.heartbeat.age(now).as_ms()),
        ];
        for (name, value) in fields {
            let _ = uwrite!(out, " {}={}", name, value);
        }
        out.push_str(" degraded=");
        self.push_degraded(out);
    }

    /// What it does.
    fn phase(&self) -> &'static str {
        match self.shutdown {
            Shutdown::None if self.control.draining => "draining",
            Shutdown::None => "running",
            Shutdown::Graceful | Shutdown::Immediate => "stopping",
        }
    }

    /// The names of the degraded states, or `none`.
    fn push_degraded(&self, out: &mut Writer<'_>) {
        let states = [
            (self.spool_failure.is_some(), "spool"),
            (self.space_retry_at.is_some(), "spool-full"),
            (self.degraded.log, "log"),
            (self.degraded.health, "health"),
            (self.control.listener.failure().is_some(), "socket"),
            (self.control.listener.acceptor.is_out_of_descriptors(), "descriptors"),
            (self.disk.inotify.is_none(), "inotify"),
            (!self.process.config.sync_always(), "sync-never"),
        ];
        push_names(&states, out);
    }
}

/// `processing job: TEXT`.
pub(super) fn push_processing(text: &[u8], out: &mut Writer<'_>) {
    out.push_str("processing job: ");
    out.push_escaped(text);
}

pub(super) fn describe_outcome(outcome: AttemptOutcome, out: &mut Writer<'_>) {
    let _ = match outcome {
        AttemptOutcome::Success => uwrite!(out, "done"),
        AttemptOutcome::Code(code) => uwrite!(out, "failed with exit status {}", code),
        AttemptOutcome::Signal(signal) => uwrite!(out, "killed by signal {}", signal),
        AttemptOutcome::NotStarted => uwrite!(out, "not started"),
        AttemptOutcome::TimedOut => uwrite!(out, "timed out"),
    };
}

pub(super) fn describe_disk(disk: &SpoolDisk, error: DiskError, out: &mut Writer<'_>) {
    out.push_str(disk.failed_op);
    out.push_str(": ");
    describe_errno(Errno::from_raw_os_error(error.0), out);
}

/// What the ingest wants to be told.
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
        IngestNotice::Unusable(error) => {
            out.push_str("queue file: it must be a regular file that can be read, not a link or a folder: ");
            describe_errno(Errno::from_raw_os_error(error.0), out);
        }
    });
}
