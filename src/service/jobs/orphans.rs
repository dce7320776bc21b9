//! The process groups of jobs that outlive their leader, and those that a killed service left.
//!
//! A handler dies with the service (PDEATHSIG), but its children do not: after kill -9 they
//! would run beside the job's next attempt. So the groups that run are noted in
//! `spool/running`, and a new service ends the processes of these groups before it starts their
//! jobs. The note is never synced: after a reboot, which the boot id shows, no process is left.
//! `state/leftovers.rs` decides which processes are meant, and `state/jobs/groups.rs` when
//! they get a signal. Without /proc nothing is found.

use super::job_worker::{HandlerMark, JobWorker};
use crate::limits::{GROUPS_NOTED_MAX, WORKERS_MAX};
use crate::proto::health::BOOT_ID_BYTES;
use crate::proto::leftovers::{GROUP_BYTES, HEAD_BYTES, NoteHead, NotedGroup, emit, parse, token};
use crate::service::leftovers::{has_member, note_head};
use crate::state::jobs::Leftovers;
use crate::state::leftovers::is_current;
use crate::sys::process::{self, Pid};
use crate::sys::{OwnedFd, file};
use crate::util::text::Writer;
use crate::util::time::Instant;

/// Maximum number of bytes of the note.
const NOTE_BYTES: usize = HEAD_BYTES + (WORKERS_MAX + GROUPS_NOTED_MAX) * GROUP_BYTES;

/// The note. Without one (no room, no rights) nothing is noted.
pub(super) struct Orphans {
    fd: Option<OwnedFd>,
    head: NoteHead,
    /// The mark of the handlers of this process.
    pub(super) mark: HandlerMark,
    /// Processes below this one whose parent ends become its children.
    adopts: bool,
    /// The note names a group that has ended.
    outdated: bool,
}

/// Returns the PID of the leader of a group.
pub(super) fn leader_of(group: &NotedGroup) -> Option<Pid> {
    Pid::from_raw(i32::try_from(group.number).ok()?)
}

impl Orphans {
    /// Reads the note of an earlier service, and takes over its groups that are there. `fd` is the
    /// note.
    pub(super) fn take_over(
        fd: Option<OwnedFd>,
        boot: [u8; BOOT_ID_BYTES],
        leftovers: &mut Leftovers,
        now: Instant,
    ) -> Self {
        let head = note_head(boot);
        let mut note = [0; NOTE_BYTES];
        let count = fd.as_ref().and_then(|fd| file::read_at(fd, &mut note, 0).ok()).unwrap_or(0);
        if let Some((noted, groups)) = parse(note.get(..count).unwrap_or(&[]))
            && is_current(&noted, &head)
        {
            for group in groups.filter(|group| has_member(group, false)) {
                leftovers.inherit(group, now);
            }
        }
        let mark = HandlerMark { token: token(&process::random()), session: process::session() };
        let mut orphans = Self { fd, head, mark, adopts: process::adopt_orphans(), outdated: false };
        orphans.write(&[], leftovers);
        orphans
    }

    /// Continues in another note, because the spool was made again.
    pub(super) fn reopen(&mut self, fd: Option<OwnedFd>) {
        self.fd = fd;
        self.outdated = true;
    }

    /// Notes that a group has ended.
    pub(super) fn mark_outdated(&mut self) {
        self.outdated = true;
    }

    /// Returns true if the note names a group that has ended, and was not written since.
    pub(super) fn is_outdated(&self) -> bool {
        self.outdated
    }

    /// Notes the groups that are there.
    pub(super) fn write(&mut self, workers: &[JobWorker], leftovers: &Leftovers) {
        self.outdated = false;
        let Some(fd) = &self.fd else { return };
        let mut note = [0; NOTE_BYTES];
        let mut out = Writer::new(&mut note);
        emit(&self.head, &mut workers.iter().map(|worker| &worker.group).chain(leftovers.groups()), &mut out);
        let _ = file::write_at(fd, out.as_bytes(), 0);
    }

    /// Returns true if a process of the group is there, and surely is one of the job. The leader
    /// was reaped.
    pub(super) fn is_there(&self, group: &NotedGroup, inherited: bool) -> bool {
        match leader_of(group) {
            _ if inherited => has_member(group, false),
            Some(leader) if self.adopts => process::has_child_in_group(leader),
            _ => has_member(group, true),
        }
    }

    /// Returns true if processes of a group may be there whose leader was reaped just now.
    pub(super) fn may_be_left(&self, group: &NotedGroup) -> bool {
        leader_of(group).is_some_and(|leader| match self.adopts {
            true => process::has_child_in_group(leader),
            false => process::is_group(leader),
        })
    }
}
