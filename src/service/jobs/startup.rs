//! The start, before the first turn: opens the files, and recovers the journal and the claims
//! that the last process left. A failure ends the process, with one line that says why.

use super::control::ControlServer;
use super::moved::warn_about_left_jobs;
use super::orphans::Orphans;
use super::status::describe_others;
use super::{Jobs, JobsStorage, STORAGE, rules};
use crate::limits::STOP_POLL;
use crate::proto::health::boot_bytes;
use crate::proto::service::Service;
use crate::service::base::ServiceBase;
use crate::service::connections;
use crate::service::disk::{SpoolDisk, describe_disk};
use crate::service::lifecycle::{Process, StartReporter, describe_at, exit};
use crate::service::memory::Memory;
use crate::service::own_paths::queue_subject;
use crate::service::queue_folder::LockError;
use crate::service::trust::{Judge, NewFolder, TrustRefusal};
use crate::state::disk::DiskError;
use crate::state::jobs::JobsCore;
use crate::state::spool::RecoverError;
use crate::state::trust::Subject;
use crate::sys::oom::OomScore;
use crate::sys::socket::Peer;
use crate::sys::{Errno, Failure, clock, file, identity, poll, process};
use crate::util::path::Path;
use ufmt::uwrite;

/// Number of times that the start tries to take the lock of the queue file.
const QUEUE_LOCK_TRIES: u32 = 20;

impl Jobs {
    /// Opens the service. A failure ends the process. Not inlined, so that its stack is free
    /// afterwards.
    #[inline(never)]
    pub(super) fn open(parts: &'static mut Memory, reporter: StartReporter) -> &'static mut Self {
        let base = ServiceBase::open(Service::Jobs, parts, reporter);
        let now = clock::now();
        let JobsStorage { service, core, workers, list } = STORAGE.take();
        open_folders(&base.process);
        let oom_score = OomScore::open(base.process.identity.is_some());
        let mut spool_lock = None;
        base.open_socket(&mut |process| {
            open_folders(process);
            refuse_unreachable(process);
            spool_lock = Some(process.lock_also(&process.config.spool, b"lock"));
        });
        let Some(spool_lock) = spool_lock else { process::abort() };
        let ServiceBase { process, heartbeat, scratch, .. } = &mut *base;
        let config = &*process.config;
        let mut disk = match SpoolDisk::open(
            &config.spool,
            &process.config_source.folder,
            &config.queue_file,
            spool_lock,
        ) {
            Ok(disk) => disk,
            Err(failure) => process.fail_at(&config.spool, failure),
        };
        lock_queue(process, &mut disk);
        core.spool.set_boot(boot_bytes(heartbeat.boot()));
        let recovery = match core.recover(&mut disk, scratch, rules(config), now) {
            Ok(recovery) => recovery,
            Err(error) => fail_recovery(process, &disk, error),
        };
        refuse_others(process, core, &mut disk, scratch);
        core.spool.adopt_claims(&mut disk, now);
        core.check_queue(disk.queue.inotify.is_some(), now);
        let orphans = Orphans::take_over(disk.open_note(), *heartbeat.boot(), &mut core.leftovers, now);
        let jobs = Self {
            base,
            disk,
            oom_score,
            orphans,
            core,
            workers,
            control: ControlServer::new(connections::take(), list),
        };
        let _ = service.push(jobs);
        let Some(jobs) = service.first_mut() else { process::abort() };
        jobs.log_recovery(&recovery);
        jobs.warn_about_handler();
        warn_about_left_jobs(&jobs.base.process);
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
            Err(TrustRefusal::Failed(failure)) => {
                refuse_unreachable(process);
                process.fail_at(folder, failure)
            }
            Err(refusal) => process.fail(exit::CONFIG, &|out| judge.describe(refusal, folder, out)),
        }
    }
}

/// Ends the process if `user` cannot reach the spool by its path, because then nothing could
/// tell whether the path still leads there. Comes after the privileges are dropped.
fn refuse_unreachable(process: &Process) {
    let spool = &process.config.spool;
    let inside = spool.join(b".").unwrap_or_default();
    if process.identity.is_some()
        && let Err(failure @ Failure { errno: Errno::ACCESS, .. }) = file::meta_at(inside.as_c_str(), true)
    {
        process.fail(exit::CONFIG, &|out| {
            out.push_str("spool: ");
            describe_at(spool, failure, out);
            out.push_str(
                "; user cannot reach it: give that user the right to search each folder of this path",
            );
        });
    }
}

/// Ends the process if the handler is the log, and jobs wait that were queued for another one.
fn refuse_others(process: &Process, core: &JobsCore, disk: &mut SpoolDisk, scratch: &mut [u8]) {
    if !process.config.logs_own_jobs() || core.spool.waiting() == 0 {
        return;
    }
    // Where the journal cannot be read, such jobs are held one by one.
    let others = core.spool.count_others(disk, scratch, usize::MAX).unwrap_or(0);
    if others > 0 {
        process.fail(exit::CONFIG, &|out| describe_others(others, out));
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

/// Keeps a second service with another spool from reading the same queue file. It waits a
/// moment, because a child of a killed service has the lock until it calls execve(2).
fn lock_queue(process: &Process, disk: &mut SpoolDisk) {
    for _ in 0..QUEUE_LOCK_TRIES {
        match disk.queue.take_lock() {
            Err(LockError::Held(_)) => poll::sleep(STOP_POLL),
            Ok(Some(stranger)) => {
                return process.reporter.warn(&|out| {
                    out.push_escaped(process.config.queue_file.as_bytes());
                    let Peer { pid, uid, .. } = stranger;
                    let _ = uwrite!(out, ": pid {}, uid {} holds its lock, which is ignored", pid, uid);
                });
            }
            _ => return,
        }
    }
    let Err(LockError::Held(holder)) = disk.queue.take_lock() else { return };
    process.fail(exit::FAILED, &|out| {
        out.push_escaped(process.config.queue_file.as_bytes());
        out.push_str(": another instance reads this queue file already");
        if let Some(peer) = holder.filter(|peer| peer.pid > 0) {
            let _ = uwrite!(out, " (pid {})", peer.pid);
        }
    });
}

/// Ends the process because the spool's disk fails before the service is ready.
fn fail_with_disk(process: &Process, path: &Path, disk: &SpoolDisk, error: DiskError) -> ! {
    process.fail(exit::FAILED, &|out| {
        out.push_escaped(path.as_bytes());
        out.push_str(": ");
        describe_disk(disk, error, out);
    })
}
