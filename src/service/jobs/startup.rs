//! The start, before the first turn: opens the files, and recovers the journal and the claims
//! that the last process left. A failure ends the process, with one line that says why.

use super::control::ControlServer;
use super::orphans::Orphans;
use super::{Jobs, JobsStorage, STORAGE, rules};
use crate::proto::service::Service;
use crate::service::base::ServiceBase;
use crate::service::connections;
use crate::service::disk::{SpoolDisk, describe_disk};
use crate::service::lifecycle::{Process, StartReporter, exit};
use crate::service::memory::Memory;
use crate::service::own_paths::queue_subject;
use crate::service::trust::{Judge, NewFolder, Refusal};
use crate::state::disk::DiskError;
use crate::state::spool::RecoverError;
use crate::state::trust::Subject;
use crate::sys::oom::OomScore;
use crate::sys::{Errno, clock, identity, process};
use crate::util::path::Path;

impl Jobs {
    /// Opens the service. A failure ends the process. Not inlined, so that its stack is free
    /// afterwards.
    #[inline(never)]
    pub(super) fn open(parts: &'static mut Memory, reporter: StartReporter) -> &'static mut Self {
        let base = ServiceBase::open(Service::Jobs, parts, reporter);
        let now = clock::now();
        let JobsStorage { service, core, workers, page } = STORAGE.take();
        open_folders(&base.process);
        let oom_score = OomScore::open(base.process.identity.is_some());
        let mut spool_lock = None;
        base.open_socket(&mut |process| {
            open_folders(process);
            spool_lock = Some(process.lock_also(&process.config.spool, b"lock"));
        });
        let ServiceBase { process, log, heartbeat, scratch, .. } = &mut *base;
        let config = &*process.config;
        let mut disk = match SpoolDisk::open(&config.spool, &config.queue_file) {
            Ok(disk) => disk,
            Err(failure) => process.fail_at(&config.spool, failure),
        };
        let recovery = match core.recover(&mut disk, scratch, rules(config), now) {
            Ok(recovery) => recovery,
            Err(error) => fail_recovery(process, &disk, error),
        };
        let unread = match core.spool.adopt_claims(&mut disk, now) {
            Ok(unread) => unread,
            Err(error) => fail_with_disk(process, &config.queue_file, &disk, error),
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
        let orphans = Orphans::take_over(&config.spool, *heartbeat.boot(), log);
        let jobs = Self {
            base,
            disk,
            spool_lock,
            oom_score,
            orphans,
            core,
            workers,
            control: ControlServer::new(connections::take(), page),
        };
        let _ = service.push(jobs);
        let Some(jobs) = service.first_mut() else { process::abort() };
        jobs.log_recovery(&recovery);
        jobs.warn_about_handler();
        jobs
    }
}

/// Makes the folders of the spool and of the queue file, which belong to the service. Root makes
/// none in a folder of `user`: that user does, after privileges were dropped.
fn open_folders(process: &Process) {
    let config = &process.config;
    let mut judge = Judge::new(config);
    let queue_folder: Path = config.queue_file.parent();
    let queue = queue_subject(process.config_source, config);
    for (folder, subject, mode) in [(&config.spool, Subject::Spool, 0o700), (&queue_folder, queue, 0o755)] {
        let owner = process.identity.as_ref().filter(|_| identity::effective_uid() == 0);
        match judge.open_folder(folder, subject, Some(&NewFolder { mode, owner })) {
            Ok(_) => {}
            Err(Refusal::Failed(failure)) => process.fail_at(folder, failure),
            Err(refusal) => process.fail(exit::CONFIG, &|out| judge.describe(refusal, folder, out)),
        }
    }
}

/// Ends the process because the spool cannot be used.
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

/// Returns true if an open that failed with `error` may work a second later.
fn may_pass(error: &DiskError) -> bool {
    matches!(Errno::from_raw_os_error(error.0), Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::IO)
}

/// Ends the process because the spool's disk fails before the service is ready.
fn fail_with_disk(process: &Process, path: &Path, disk: &SpoolDisk, error: DiskError) -> ! {
    process.fail(exit::FAILED, &|out| {
        out.push_escaped(path.as_bytes());
        out.push_str(": ");
        describe_disk(disk, error, out);
    })
}
