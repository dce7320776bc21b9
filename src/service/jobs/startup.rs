//! Before the first turn: everything is opened, and what the last process left is
//! found. What fails here ends the process, with one line that says why.

use super::control::ControlServer;
use super::orphans::Orphans;
use super::status::describe_disk;
use super::{Jobs, JobsStorage, ReloadCounts, STORAGE, rules};
use crate::proto::service::Service;
use crate::service::connections;
use crate::service::degraded::Degraded;
use crate::service::disk::SpoolDisk;
use crate::service::heartbeat::Heartbeat;
use crate::service::lifecycle::{Process, StartReporter, ensure_folder, exit};
use crate::service::listener::open_and_drop;
use crate::service::log::Log;
use crate::service::memory::Memory;
use crate::state::disk::DiskError;
use crate::state::spool::RecoverError;
use crate::sys::oom::OomScore;
use crate::sys::{Errno, clock, file, identity, process};
use crate::util::path::Path;
use ufmt::uwrite;

impl Jobs {
    /// Opens everything that the service needs; failures end the process. (Not
    /// inlined: what it needs of the stack is free afterwards.)
    #[inline(never)]
    pub(super) fn open(parts: &'static mut Memory, reporter: StartReporter) -> &'static mut Self {
        let Memory { scratch, config_source, config, candidate, log } = parts;
        let scratch = scratch.pages();
        let process = Process::prepare(Service::Jobs, config_source, config, candidate, reporter);
        let now = clock::now();
        let _reporter = &process.reporter;
        let config = &*process.config;
        let JobsStorage { service, core, workers, page } = STORAGE.take();
        let mut log = Log::open(&process, &config.log_file, process.identity.as_ref(), log);
        open_folders(&process);
        let oom_score = OomScore::open(process.identity.is_some());
        let mut spool_lock = None;
        let listener = open_and_drop(Service::Jobs, &process, &mut || {
            spool_lock = Some(process.lock_also(&config.spool, b"lock"));
        });
        let mut disk = match SpoolDisk::open(&config.spool, &config.queue_file) {
            Ok(disk) => disk,
            Err(failure) => process.fail_at(&config.spool, failure),
        };
        let recovery = match core.recover(&mut disk, scratch, rules(config), now) {
            Ok(recovery) => recovery,
            Err(error) => fail_recovery(&process, &disk, error),
        };
        let unread = match core.spool.adopt_claims(&mut disk, now) {
            Ok(unread) => unread,
            Err(error) => fail_with_disk(&process, &config.queue_file, &disk, error),
        };
        if let Some(error) = unread {
            log.warn(&|out| {
                out.push_str("a claim of the queue file cannot be read: ");
                describe_disk(&disk, error, out);
            });
        }
        if let Some(error) = unread.filter(may_pass) {
            // A claim that could not be opened gets a second chance.
            core.disk_health.fail(error, now);
        }
        core.check_queue(disk.inotify.is_some(), now);
        let heartbeat = Heartbeat::new(config.health_file.clone());
        let orphans = Orphans::take_over(&config.spool, *heartbeat.boot(), &mut log);
        let jobs = Self {
            process,
            log,
            heartbeat,
            disk,
            spool_lock,
            oom_score,
            orphans,
            core,
            workers,
            scratch,
            started_at: now,
            reload_counts: ReloadCounts::default(),
            degraded: Degraded::default(),
            socket_failing: false,
            pages_dirty: false,
            control: ControlServer::new(listener, connections::take(), page),
        };
        let _ = service.push(jobs);
        let Some(jobs) = service.first_mut() else { process::abort() };
        jobs.log_recovery(&recovery);
        jobs.warn_about_handler();
        jobs
    }

    /// The service is ready: first heartbeat, first line, and the starter may
    /// go.
    #[inline(never)]
    pub(super) fn announce(&mut self) {
        self.heartbeat.begin(clock::now(), &self.process.reporter);
        // (that made a name, which is no reason to wake)
        self.on_inotify();
        self.log.info(&|out| {
            let _ = uwrite!(out, "daemon started, pid={}", process::pid().as_raw_pid());
        });
        self.log.flush();
        self.update_degraded();
        let reporter = core::mem::replace(&mut self.process.reporter, StartReporter::Foreground(None));
        reporter.ready();
        self.send_status();
        self.process.notify.ready();
    }
}

/// The spool's folder and the queue's, which belong to the service.
fn open_folders(process: &Process) {
    let config = &process.config;
    let queue_folder: Path = config.queue_file.parent();
    for (folder, mode) in [(&config.spool, 0o700), (&queue_folder, 0o755)] {
        let created = match ensure_folder(folder, mode) {
            Ok(created) => created,
            Err(failure) => process.fail_at(folder, failure),
        };
        if let (true, Some(owner)) = (created, &process.identity) {
            let given = file::open_dir(folder.as_c_str()).and_then(|fd| identity::chown(&fd, owner));
            if let Err(failure) = given {
                process.fail_at(folder, failure);
            }
        }
    }
}

/// The spool cannot be used: the process ends.
fn fail_recovery(process: &Process, disk: &SpoolDisk, error: RecoverError) -> ! {
    let journal = process.config.spool.join(b"journal").unwrap_or_default();
    match error {
        RecoverError::OtherVersion => process.fail(exit::FAILED, &|out| {
            out.push_escaped(journal.as_bytes());
            out.push_str(
                ": it was written by another version of zigsvc, and is left alone; use that version, or move the spool away",
            );
        }),
        RecoverError::Disk(error) => fail_with_disk(process, &journal, disk, error),
    }
}

/// Whether an open that failed so may work a second later.
fn may_pass(error: &DiskError) -> bool {
    matches!(Errno::from_raw_os_error(error.0), Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::IO)
}

/// The spool's disk fails before the service is ready. Does not return.
fn fail_with_disk(process: &Process, path: &Path, disk: &SpoolDisk, error: DiskError) -> ! {
    process.fail(exit::FAILED, &|out| {
        out.push_escaped(path.as_bytes());
        out.push_str(": ");
        describe_disk(disk, error, out);
    })
}
