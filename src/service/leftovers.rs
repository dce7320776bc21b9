//! Looks in /proc for the processes that an earlier run of a service left.

use crate::proto::health::{BOOT_ID_BYTES, UNKNOWN_BOOT};
use crate::proto::leftovers::{Mark, MarkScanner, NoteHead, NotedGroup, Token};
use crate::state::leftovers::{MemberSearch, ProcessView, is_later_than};
use crate::sys::{dir, file, process};
use crate::util::path::Path;
use crate::util::text::parse_u64;
use crate::util::time::{Duration, Instant};

/// Returns the head of this process's note. Without /proc the namespace is unknown.
#[must_use]
pub fn note_head(boot: [u8; BOOT_ID_BYTES]) -> NoteHead {
    let found = file::meta_at(c"/proc/self/ns/pid", true).ok().filter(|_| boot != UNKNOWN_BOOT);
    NoteHead { boot, namespace: found.map_or(0, |meta| meta.identity.1) }
}

/// Returns true if a process lives that belongs to `group`, with its token in the environment or
/// with no variable of a service. With `needs_token` only the token counts.
#[must_use]
pub fn has_member(group: &NotedGroup, needs_token: bool) -> bool {
    let Ok(processes) = file::open_dir(c"/proc") else { return false };
    let tick = Duration::from_ms(process::clock_tick_ms());
    let mut search = MemberSearch::new(group, needs_token, tick);
    let _ = dir::each(&processes, &mut |name| {
        if let Some(view) = view(name, tick) {
            search.look(&view, || mark(name, &group.token));
        }
    });
    search.has_found()
}

/// Returns a process other than its leader that a group has left: one that started after the leader
/// and has the token of the group.
#[must_use]
pub fn find_left(group: &NotedGroup) -> Option<ProcessView> {
    let processes = file::open_dir(c"/proc").ok()?;
    let tick = Duration::from_ms(process::clock_tick_ms());
    let mut left = None;
    let _ = dir::each(&processes, &mut |name| {
        if left.is_none()
            && let Some(view) = view(name, tick).filter(|view| is_later_than(view, group, tick))
            && mark(name, &group.token) == Mark::Token
        {
            left = Some(view);
        }
    });
    left
}

/// Returns the process called `name` in /proc, unless it has ended.
fn view(name: &[u8], tick: Duration) -> Option<ProcessView> {
    let pid = parse_u64(name)?.try_into().ok()?;
    let path = Path::concat(&[b"/proc/", name, b"/stat"])?;
    let mut stat = [0; 512];
    let count = file::read_path(path.as_c_str(), &mut stat).ok()?;
    let stat = stat.get(..count)?;
    // The program's name may hold blanks and brackets; what follows does not.
    let after = stat.get(stat.iter().rposition(|byte| *byte == b')')?..)?;
    let word = |index: usize| after.split(|byte| *byte == b' ').nth(index);
    let number = |index: usize| parse_u64(word(index)?);
    if matches!(word(1)?, b"Z" | b"X") {
        return None;
    }
    Some(ProcessView {
        pid,
        group: number(3)?.try_into().ok()?,
        session: number(4)?.try_into().ok()?,
        started: Instant::BOOT + tick * number(20)?,
    })
}

/// Returns the mark in the environment of the process called `name` in /proc.
fn mark(name: &[u8], token: &Token) -> Mark {
    let mut scanner = MarkScanner::new(token);
    let path = Path::concat(&[b"/proc/", name, b"/environ"]);
    let Some(Ok(environ)) = path.map(|path| file::open(path.as_c_str(), file::OFlags::RDONLY, 0)) else {
        return Mark::Nothing;
    };
    let mut part = [0; 1024];
    while let Ok(count @ 1..) = file::read(&environ, &mut part) {
        scanner.read(part.get(..count).unwrap_or(&[]));
    }
    scanner.finish()
}
