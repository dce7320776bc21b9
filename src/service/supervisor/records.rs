//! The files beside the PID file in which the supervisor records what runs.
//!
//! - `.running`: the note of the groups of its programs. A supervisor that is killed leaves the
//!   processes of those groups, and the next one ends them. Only the supervisor's user reads it.
//! - `.state`: one line for `status`: the restarts, each process, the degraded states. A supervisor
//!   has no socket, and that of a program has no heartbeat either.
//!
//! Both are written when something happens, and never synced: they hold for one boot. Where they
//! cannot be written, `status` shows less, and leftovers are not found.

use crate::limits::PROGRAMS_MAX;
use crate::proto::health::BOOT_ID_BYTES;
use crate::proto::leftovers::{
    GROUP_BYTES, HEAD_BYTES, NoteHead, NotedGroup, TOKEN_BYTES, TOKEN_VARIABLE, Token, emit, parse, token,
};
use crate::proto::status::STATE_BYTES;
use crate::service::leftovers::{has_member, note_head};
use crate::state::degraded::DegradedSet;
use crate::state::leftovers::is_current;
use crate::sys::file::OFlags;
use crate::sys::process::{self, Pid};
use crate::sys::{Failure, file, identity};
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::Instant;
use core::ffi::CStr;
use heapless::Vec;
use ufmt::uwrite;

/// Maximum number of bytes of the note, which names one group for each program.
const NOTE_BYTES: usize = HEAD_BYTES + PROGRAMS_MAX * GROUP_BYTES;

/// Bytes of the variable that holds a token, with its terminator.
const TOKEN_VARIABLE_BYTES: usize = TOKEN_VARIABLE.len() + TOKEN_BYTES + 1;

/// A variable of the environment that holds a token.
pub(super) struct TokenVariable([u8; TOKEN_VARIABLE_BYTES]);

impl TokenVariable {
    /// Returns the variable.
    pub(super) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

/// See the module's documentation.
pub(super) struct Records {
    note: Path,
    state: Path,
    head: NoteHead,
    token: Token,
    /// The degraded states that the file shows.
    shown: DegradedSet,
}

/// Returns the path of a file beside the PID file: its ending is `ending` instead of `.pid`. The
/// path is empty if it is too long.
fn beside(pid_path: &Path, ending: &[u8]) -> Path {
    let path = pid_path.as_bytes();
    Path::or_empty(&[path.strip_suffix(b".pid").unwrap_or(path), ending])
}

/// Writes the beginning of the line for `status`, which vouches for the rest of it.
pub(super) fn push_holder(pid: Pid, boot: &[u8; BOOT_ID_BYTES], out: &mut Writer<'_>) {
    let _ = uwrite!(out, "pid={} boot=", pid.as_raw_pid());
    out.push(boot);
    out.push_str(" ");
}

/// Reads the line that the supervisor `pid` wrote for `status` in the boot `boot`, and returns it
/// without its beginning.
#[must_use]
pub fn read_state<'a>(
    pid_path: &Path,
    pid: Pid,
    boot: &[u8; BOOT_ID_BYTES],
    buffer: &'a mut [u8; STATE_BYTES],
) -> Option<&'a [u8]> {
    let mut holder = [0; 80];
    let mut out = Writer::new(&mut holder);
    push_holder(pid, boot, &mut out);
    let count = file::read_path(beside(pid_path, b".state").as_c_str(), buffer).ok()?;
    buffer.get(..count)?.strip_prefix(out.as_bytes())?.strip_suffix(b"\n")
}

impl Records {
    /// Returns the records of this process, whose PID file is at `pid_path`. Nothing is written.
    pub(super) fn new(pid_path: &Path, boot: [u8; BOOT_ID_BYTES]) -> Self {
        let token = token(&process::random());
        let (note, state) = (beside(pid_path, b".running"), beside(pid_path, b".state"));
        Self { note, state, head: note_head(boot), token, shown: DegradedSet::NONE }
    }

    /// Returns the token of the program that `job` stands for. The programs have different ones, so that
    /// what one of them leaves is known.
    fn token_of(&self, job: u64) -> Token {
        let mut token = self.token;
        let shifts = (0..16u32).map(|digit| job >> (4 * digit) & 15);
        for (digit, nibble) in token.iter_mut().zip(shifts).filter(|_| job != 0) {
            let index = usize::try_from(nibble).unwrap_or(0);
            *digit = b"0123456789abcdef".get(index).copied().unwrap_or(b'0');
        }
        token
    }

    /// Returns the variable that marks the processes of the program that `job` stands for, with its
    /// terminator.
    pub(super) fn token_variable(&self, job: u64) -> TokenVariable {
        let mut variable = [0; TOKEN_VARIABLE_BYTES];
        let token = self.token_of(job);
        for (to, from) in variable.iter_mut().zip(TOKEN_VARIABLE.iter().chain(&token)) {
            *to = *from;
        }
        TokenVariable(variable)
    }

    /// Returns the groups of an earlier supervisor's programs that have processes.
    #[inline(never)]
    pub(super) fn take_over(&self) -> Vec<NotedGroup, PROGRAMS_MAX> {
        let mut left = Vec::new();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let Ok(note) = file::open(self.note.as_c_str(), flags, 0) else { return left };
        // A note of another user could name any group.
        let is_ours = |meta: file::Meta| {
            meta.regular && meta.uid == identity::effective_uid() && meta.mode & 0o022 == 0
        };
        let mut bytes = [0; NOTE_BYTES];
        if file::meta(&note).is_ok_and(is_ours)
            && let Ok(count) = file::read_whole(&note, &mut bytes)
            && let Some((noted, groups)) = parse(bytes.get(..count).unwrap_or(&[]))
            && is_current(&noted, &self.head)
        {
            left.extend(groups.filter(|group| has_member(group, false)).take(PROGRAMS_MAX));
        }
        left
    }

    /// Returns the group that a program leads, which was started between these times. `job` is
    /// another number for each program.
    pub(super) fn group(&self, pid: u32, job: u64, from: Instant, upto: Instant) -> NotedGroup {
        NotedGroup { number: pid, session: pid, job, from, upto, token: self.token_of(job) }
    }

    /// Notes the groups that the programs lead.
    #[inline(never)]
    pub(super) fn write_note(&self, groups: &mut dyn Iterator<Item = &NotedGroup>) {
        let mut note = [0; NOTE_BYTES];
        let mut out = Writer::new(&mut note);
        emit(&self.head, groups, &mut out);
        let _ = replace(&self.note, 0o600, &[out.as_bytes()]);
    }

    /// Returns true if the line for `status` is to be written again, because something happened
    /// or other states are `degraded`.
    pub(super) fn is_outdated(&self, happened: bool, degraded: DegradedSet) -> bool {
        happened || degraded != self.shown
    }

    /// Writes the line for `status`, which shows these `degraded` states.
    pub(super) fn write_state(&mut self, line: &[u8], degraded: DegradedSet) {
        self.shown = degraded;
        let _ = replace(&self.state, 0o644, &[line, b"\n"]);
    }

    /// Removes the files at a clean stop. The note stays if `keeps_note` is true.
    pub(super) fn remove(&self, keeps_note: bool) {
        let _ = file::unlink(self.state.as_c_str());
        if !keeps_note {
            let _ = file::unlink(self.note.as_c_str());
        }
    }
}

/// Replaces the file at `path`, so that no reader finds a part of it.
fn replace(path: &Path, mode: u32, parts: &[&[u8]]) -> Result<(), Failure> {
    let temporary = path.with_suffix(b".new").unwrap_or_default();
    let _ = file::unlink(temporary.as_c_str());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let fd = file::open(temporary.as_c_str(), flags, mode)?;
    file::set_mode(&fd, mode)?;
    let (mut offset, mut result) = (0, Ok(()));
    for part in parts {
        result = result.and_then(|()| file::write_at(&fd, part, offset));
        offset = part.len() as u64;
    }
    result = result.and_then(|()| file::rename(temporary.as_c_str(), path.as_c_str()));
    if result.is_err() {
        let _ = file::unlink(temporary.as_c_str());
    }
    result
}
