//! The lines of the log and the answers if the path of the spool leads elsewhere, and the looks
//! at that path which a heartbeat causes. `state/jobs/home.rs` decides.

use super::Jobs;
use crate::limits::PATH_MAX_BYTES;
use crate::service::disk::describe_disk;
use crate::service::lifecycle::Process;
use crate::state::disk::{DiskError, MOVED, Obstacle, PathState};
use crate::state::identity::WatchedPath;
use crate::state::jobs::replies::{Reply, refuse_disk};
use crate::sys::file::{self, OFlags};
use crate::sys::{Errno, Failure, Op};
use crate::util::path::Path;
use crate::util::text::{Writer, parse_u64};
use crate::util::time::Instant;
use ufmt::uwrite;

impl Jobs {
    /// Looks at the path of the journal or of the lock, with a heartbeat. A lock that is missing
    /// is made again. A folder that was moved gets its lock when the spool is made again.
    #[unsafe(link_section = ".text.idle")]
    pub(super) fn check_spool(&mut self, path: WatchedPath, now: Instant) {
        match path {
            WatchedPath::Journal => self.core.journal_looked_at(self.disk.folder.look(), now),
            WatchedPath::SecondLock if self.disk.folder.is_lock_lost() => self.renew_lock(now),
            _ => {}
        }
    }

    #[inline(never)]
    fn renew_lock(&mut self, now: Instant) {
        let path = self.disk.folder.look();
        self.core.journal_looked_at(path, now);
        if path != PathState::Named || !self.core.home.is_here() {
            return;
        }
        let renewed = self.disk.renew_lock();
        let spool = &self.disk.folder.path;
        match renewed {
            Ok(()) => self.base.log.info(&|out| {
                out.push_str("spool: ");
                out.push_escaped(spool.as_bytes());
                out.push_str("/lock was missing, and was made again");
            }),
            Err(_) => self.core.journal_looked_at(PathState::Replaced, now),
        }
    }

    /// Refuses a request for which the disk failed.
    pub(super) fn refuse_for(&mut self, error: DiskError, out: &mut Writer<'_>) -> Reply {
        self.core.request_refused(error);
        if error != MOVED {
            return refuse_disk(out, error);
        }
        out.push_str("err io ");
        out.push_escaped(self.disk.folder.path.as_bytes());
        out.push_str("/journal does not lead to the open journal\n");
        Reply::Sent
    }

    /// Writes `spool: PATH/journal`.
    fn push_journal(&self, out: &mut Writer<'_>) {
        out.push_str("spool: ");
        out.push_escaped(self.disk.folder.path.as_bytes());
        out.push_str("/journal");
    }

    /// Writes the number of jobs, and where the journal is that holds them.
    fn push_jobs_there(&self, out: &mut Writer<'_>) {
        let (waiting, dead) = (self.core.spool.waiting(), self.core.spool.dead());
        let _ = uwrite!(out, "{} waiting and {} dead jobs are in ", waiting, dead);
        self.disk.describe_journal(out);
    }

    /// Logs that the path leads elsewhere.
    #[inline(never)]
    pub(super) fn log_moved(&mut self) {
        let mut line = [0; LINE_BYTES];
        let mut out = Writer::new(&mut line);
        self.push_journal(&mut out);
        out.push_str(" does not lead to the open journal (");
        match self.disk.folder.look() {
            PathState::Missing => Failure { op: Op::Fstatat, errno: Errno::NOENT }.describe(&mut out),
            PathState::Named => out.push_str("its lock is missing"),
            _ => out.push_str("fstatat: another file"),
        }
        out.push_str("); no new job is accepted; ");
        self.push_jobs_there(&mut out);
        self.base.log.error(&|log| log.push(out.as_bytes()));
        self.note_left_behind();
    }

    /// Notes where the open journal is, for a start that finds another spool at its path. The log
    /// has it too, so an error costs only the warning of that start.
    fn note_left_behind(&self) {
        let Some(path) = self.disk.journal_path_now() else { return };
        let (device, inode) = self.disk.folder.journal_identity();
        let mut line = [0; NOTE_BYTES];
        let mut out = Writer::new(&mut line);
        let _ = uwrite!(out, "{} {} ", device, inode);
        out.push(path.as_bytes());
        let Some(note) = note_path(&self.disk.folder.path) else { return };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
        if let Ok(fd) = file::open(note.as_c_str(), flags | OFlags::NONBLOCK, 0o600) {
            let _ = file::check_regular(&fd).and_then(|()| file::write_all(&fd, out.as_bytes()));
        }
    }

    /// Logs why the spool cannot be made again.
    #[inline(never)]
    pub(super) fn log_obstacle(&mut self, obstacle: Obstacle) {
        let (disk, log) = (&self.disk, &mut self.base.log);
        log.error(&|out| {
            out.push_str("spool: ");
            out.push_escaped(disk.folder.path.as_bytes());
            out.push_str(" cannot be made again: ");
            match obstacle {
                Obstacle::Journal => out.push_str("another journal is there"),
                Obstacle::NotEmpty => out.push_str("a folder with other files is there"),
                Obstacle::NotFolder => out.push_str("it or its parent is no folder"),
                Obstacle::Filesystem => out.push_str("it is on another filesystem"),
                Obstacle::Untrusted => out.push_str("another user may write there"),
                Obstacle::Locked => out.push_str("another process holds the lock there"),
                Obstacle::Failed(error) => describe_disk(disk, error, out),
            }
        });
    }

    /// Logs that the path leads to the journal again. A spool that was made again gets its other
    /// files.
    #[inline(never)]
    pub(super) fn on_spool_back(&mut self, made_again: bool) {
        if let Some(note) = note_path(&self.disk.folder.path) {
            let _ = file::unlink(note.as_c_str());
        }
        if made_again {
            self.orphans.reopen(self.disk.open_note());
            // The queue file may be in the folder that was made again.
            self.check_queue_folder();
        }
        let mut line = [0; LINE_BYTES];
        let mut out = Writer::new(&mut line);
        self.push_journal(&mut out);
        out.push_str(if made_again { " was made again; " } else { " leads to the open journal again; " });
        self.push_jobs_there(&mut out);
        self.base.log.info(&|log| log.push(out.as_bytes()));
    }

    /// Logs at the end of the service which jobs stay in a journal that the path does not lead
    /// to.
    #[inline(never)]
    pub(super) fn log_left_behind(&mut self) {
        let mut line = [0; LINE_BYTES];
        let mut out = Writer::new(&mut line);
        self.push_journal(&mut out);
        out.push_str(" does not lead to the open journal; ");
        self.push_jobs_there(&mut out);
        out.push_str("; to run them, put that file to the first path while the service is stopped");
        self.base.log.error(&|log| log.push(out.as_bytes()));
        self.note_left_behind();
    }
}

/// Returns the path of the note beside the spool which names the journal that was moved.
fn note_path(spool: &Path) -> Option<Path> {
    spool.with_suffix(b".moved")
}

/// Warns that an earlier run of the service has left jobs in a journal that was moved, as long as
/// that journal is there.
#[inline(never)]
pub(super) fn warn_about_left_jobs(process: &Process) {
    let spool = &process.config.spool;
    let Some(note) = note_path(spool) else { return };
    let mut buffer = [0; NOTE_BYTES];
    let Ok((fd, _)) = file::open_regular(note.as_c_str()) else { return };
    let count = file::read_at(&fd, &mut buffer, 0).unwrap_or(0);
    let mut words = buffer.get(..count).unwrap_or(&[]).splitn(3, |byte| *byte == b' ');
    let mut number = || words.next().and_then(parse_u64).unwrap_or(0);
    let noted = (number(), number());
    let left = words.next().and_then(Path::new).unwrap_or_default();
    let journal = spool.join(b"journal").unwrap_or_default();
    let is_left = |path: &Path| {
        file::meta_at(path.as_c_str(), false).is_ok_and(|meta| meta.identity == noted && meta.size > 0)
    };
    if !is_left(&left) || is_left(&journal) {
        let _ = file::unlink(note.as_c_str());
        return;
    }
    process.reporter.warn(&|out| {
        out.push_str("jobs were left in ");
        out.push_escaped(left.as_bytes());
        out.push_str(", when the spool was moved; to run them, stop the service, put that file to ");
        out.push_escaped(journal.as_bytes());
        out.push_str(", and start it; or remove that file");
    });
}

/// Maximum number of bytes of the note: two numbers and a path.
const NOTE_BYTES: usize = PATH_MAX_BYTES + 48;

/// Bytes of a line of the log that names two paths.
const LINE_BYTES: usize = 1000;
