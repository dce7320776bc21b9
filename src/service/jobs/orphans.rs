//! The processes that the handlers of a killed daemon left running.
//!
//! A handler dies with the daemon (PDEATHSIG), but its children do not: after
//! kill -9 they would run beside the job's next attempt. So the groups that run
//! are noted in `spool/running`, and a new daemon ends the processes of these groups
//! before it starts anything. The note is never synced: after a reboot, which
//! the boot id shows, no process is left.
//!
//! Group numbers are used again, so a group is ended only if one of its members
//! has the job's id in its environment (proc(5)). Without /proc nothing is. So a
//! group that has ended may stay in the note until the end of the turn, by which time
//! the next one is mostly in its place: one write for both.

use super::job_worker::JobWorker;
use crate::limits::WORKERS_MAX;
use crate::proto::health::{BOOT_ID_BYTES, UNKNOWN_BOOT};
use crate::service::log::Log;
use crate::sys::process::{self, Pid, Signal};
use crate::sys::{OwnedFd, dir, file};
use crate::util::path::Path;
use crate::util::text::{Writer, parse_u64};
use ufmt::uwrite;

/// Bytes of one handler's line: two numbers, a blank, blanks, a newline.
const LINE_BYTES: usize = 32;
/// Bytes of the whole note.
const CONTENT_BYTES: usize = BOOT_ID_BYTES + 1 + WORKERS_MAX * LINE_BYTES;

/// The note. Without one (no room, no rights) nothing is noted.
pub(super) struct Orphans {
    fd: Option<OwnedFd>,
    boot: [u8; BOOT_ID_BYTES],
    /// A handler that is noted has ended.
    outdated: bool,
}

impl Orphans {
    /// Ends what the note of an earlier daemon names, and begins a new one. `fd` is the note.
    pub(super) fn take_over(fd: Option<OwnedFd>, boot: [u8; BOOT_ID_BYTES], log: &mut Log) -> Self {
        let mut running = Self { fd, boot, outdated: false };
        let mut content = [0; CONTENT_BYTES];
        let count = running.fd.as_ref().and_then(|fd| file::read_at(fd, &mut content, 0).ok()).unwrap_or(0);
        let mut lines = content.get(..count).unwrap_or(&[]).split(|byte| *byte == b'\n');
        if lines.next() == Some(&boot[..]) && boot != UNKNOWN_BOOT {
            for line in lines {
                let mut numbers = line.split(|byte| *byte == b' ').filter_map(parse_u64);
                if let (Some(group), Some(job)) = (numbers.next(), numbers.next()) {
                    kill_orphan(group, job, log);
                }
            }
        }
        running.write(&[]);
        running
    }

    /// Continues in another note, because the spool was made again.
    pub(super) fn reopen(&mut self, fd: Option<OwnedFd>, workers: &[JobWorker]) {
        self.fd = fd;
        self.write(workers);
    }

    /// Notes that a handler has ended.
    pub(super) fn mark_outdated(&mut self) {
        self.outdated = true;
    }

    /// Ends a turn: removes the handlers that have ended from the note, unless a start has
    /// written it since.
    pub(super) fn turn_finished(&mut self, workers: &[JobWorker]) {
        if self.outdated {
            self.write(workers);
        }
    }

    /// Notes the handlers that run.
    pub(super) fn write(&mut self, workers: &[JobWorker]) {
        self.outdated = false;
        let Some(fd) = &self.fd else { return };
        let mut content = [b' '; CONTENT_BYTES];
        let (head, lines) = content.split_at_mut(BOOT_ID_BYTES);
        head.copy_from_slice(&self.boot);
        for (line, worker) in lines.get_mut(1..).unwrap_or(&mut []).chunks_mut(LINE_BYTES).zip(workers) {
            let mut out = Writer::new(line);
            let _ = uwrite!(out, "{} {}", worker.pid.as_raw_pid(), worker.id);
        }
        for line in lines.chunks_mut(LINE_BYTES) {
            if let Some(newline) = line.first_mut() {
                *newline = b'\n';
            }
        }
        let _ = file::write_at(fd, &content, 0);
    }
}

/// Ends the group if it is still the handler of `job`.
fn kill_orphan(group: u64, job: u64, log: &mut Log) {
    let leader = i32::try_from(group).ok().filter(|group| *group > 1).and_then(Pid::from_raw);
    let Some(leader) = leader.filter(|_| has_member(group, job)) else { return };
    process::kill_group(leader, Signal::KILL);
    log.warn(&|out| {
        let _ = uwrite!(out, "job {}: ended what was left of its handler", job);
    });
}

/// Returns true if a process of `group` is a handler of `job`, by its environment.
fn has_member(group: u64, job: u64) -> bool {
    let Ok(processes) = file::open_dir(c"/proc") else { return false };
    let mut found = false;
    let _ = dir::each(&processes, |name| {
        found |= parse_u64(name).is_some() && group_of(name) == Some(group) && works_on(name, job);
    });
    found
}

/// Returns the process group of the process called `name` in /proc. getpgid(2) returns 0
/// for the kernel's own processes, which is no PID to rustix.
fn group_of(name: &[u8]) -> Option<u64> {
    let path = Path::concat(&[b"/proc/", name, b"/stat"])?;
    let mut stat = [0; 512];
    let count = file::read_path(path.as_c_str(), &mut stat).ok()?;
    let stat = stat.get(..count)?;
    // The program's name may hold blanks and brackets; what follows does not.
    let behind = stat.get(stat.iter().rposition(|byte| *byte == b')')?..)?;
    parse_u64(behind.split(|byte| *byte == b' ').nth(3)?)
}

/// Returns true if `ZIGSVC_JOB_ID` of the process called `name` in /proc is `job`.
fn works_on(name: &[u8], job: u64) -> bool {
    let Some(path) = Path::concat(&[b"/proc/", name, b"/environ"]) else { return false };
    let mut environment = [0; 2048];
    let count = file::read_path(path.as_c_str(), &mut environment).unwrap_or(0);
    let mut wanted = [0; 40];
    let mut out = Writer::new(&mut wanted);
    let _ = uwrite!(out, "ZIGSVC_JOB_ID={}", job);
    environment.get(..count).unwrap_or(&[]).split(|byte| *byte == 0).any(|entry| entry == out.as_bytes())
}
