//! Who we are and whom we become: users and groups from /etc/passwd and
//! /etc/group (passwd(5), group(5)), and the drop of privileges (credentials(7)).

use super::{Failure, Op, OwnedFd, WithOp, file, process};
use crate::limits::GROUPS_MAX;
use crate::proto::passwd;
use crate::util::text::parse_u64;
use core::ffi::CStr;
use heapless::Vec;
use rustix::process::{Gid, Uid};

/// The accounts that a service runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups, the primary one included.
    pub groups: Vec<u32, GROUPS_MAX>,
}

/// Effective user id.
#[must_use]
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Finds the accounts for `user` and `group`, each a name or a number; an
/// empty `group` means the user's own. The error names the one not found.
///
/// # Errors
/// The name that neither is a number nor stands in its file.
pub fn resolve<'a>(user: &'a [u8], group: &'a [u8]) -> Result<Identity, &'a [u8]> {
    let entry = find_user(user);
    let uid = entry.map(|(uid, _)| uid).or_else(|| number(user)).ok_or(user)?;
    let gid = match group {
        b"" => entry.map(|(_, gid)| gid).unwrap_or(uid),
        _ => find_group(group).ok_or(group)?,
    };
    let mut groups = Vec::new();
    let _ = groups.push(gid);
    for_each_line(c"/etc/group", |line| {
        if let Some(extra) = passwd::group_with_member(line, user).filter(|extra| *extra != gid) {
            let _ = groups.push(extra);
        }
    });
    Ok(Identity { uid, gid, groups })
}

/// The group id of `name` (a name or a number).
#[must_use]
pub fn find_group(name: &[u8]) -> Option<u32> {
    let mut found = None;
    for_each_line(c"/etc/group", |line| found = found.or_else(|| passwd::group_named(line, name)));
    found.or_else(|| number(name))
}

/// The user id of `name` (a name or a number).
#[must_use]
pub fn find_uid(name: &[u8]) -> Option<u32> {
    find_user(name).map(|(uid, _)| uid).or_else(|| number(name))
}

/// uid and primary gid of the user with this name or, if it is a number, with
/// this uid.
fn find_user(name: &[u8]) -> Option<(u32, u32)> {
    let mut found = None;
    for_each_line(c"/etc/passwd", |line| found = found.or_else(|| passwd::user_named(line, name)));
    found
}

/// A numeric id; the highest value means "unchanged" to the kernel.
fn number(name: &[u8]) -> Option<u32> {
    parse_u64(name).and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX)
}

/// Becomes `identity` for good: groups, gid, uid, then no new privileges.
///
/// # Errors
/// EPERM without the right to change; then nothing is half done that matters,
/// because the caller gives up.
pub fn drop_privileges(identity: &Identity) -> Result<(), Failure> {
    let mut groups: Vec<Gid, GROUPS_MAX> = Vec::new();
    for gid in &identity.groups {
        // (push cannot fail: the same capacity)
        let _ = groups.push(gid_of(*gid));
    }
    rustix::thread::set_thread_groups(&groups).op(Op::Setgroups)?;
    let gid = gid_of(identity.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).op(Op::Setresgid)?;
    let uid = uid_raw(identity.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).op(Op::Setresuid)?;
    process::no_new_privileges()
}

/// Gives an open file to `identity` (fchown(2)).
///
/// # Errors
/// As the call says.
pub fn chown(fd: &OwnedFd, identity: &Identity) -> Result<(), Failure> {
    rustix::fs::fchown(fd, Some(uid_raw(identity.uid)), Some(gid_of(identity.gid))).op(Op::Fchown)
}

fn uid_raw(id: u32) -> Uid {
    Uid::from_raw_unchecked(id)
}

fn gid_of(id: u32) -> Gid {
    Gid::from_raw_unchecked(id)
}

/// Calls `visit` with each line of a text file; lines longer than the buffer
/// are skipped. A file that cannot be read has no lines.
fn for_each_line(path: &CStr, mut visit: impl FnMut(&[u8])) {
    let Ok(fd) = file::open(path, file::OFlags::RDONLY, 0) else { return };
    let mut buffer = [0u8; 1024];
    let mut held = 0;
    let mut skipping = false;
    while let Some(free) = buffer.get_mut(held..) {
        if free.is_empty() {
            skipping = true;
            held = 0;
            continue;
        }
        let Ok(count @ 1..) = file::read(&fd, free) else { break };
        let filled = held.saturating_add(count);
        let mut start = 0;
        while let Some(line) = buffer.get(start..filled).and_then(|rest| {
            let end = rest.iter().position(|byte| *byte == b'\n')?;
            rest.get(..end)
        }) {
            if !skipping {
                visit(line);
            }
            skipping = false;
            start = start.saturating_add(line.len()).saturating_add(1);
        }
        buffer.copy_within(start..filled, 0);
        held = filled.saturating_sub(start);
    }
    if !skipping {
        visit(buffer.get(..held).unwrap_or(&[]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_too_long_are_skipped_whole() {
        let path = std::env::temp_dir().join(format!("zigsvc-identity-{}", std::process::id()));
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // The end of a long line could look like an account.
        for long in [1024, 1025, 2047, 2048, 5000] {
            let text = format!("a:x:1\n{}root:x:0\nb:x:2\nc:x:3", "x".repeat(long));
            std::fs::write(&path, text).unwrap();
            let mut lines = Vec::<String, 8>::new();
            for_each_line(&name, |line| lines.push(String::from_utf8(line.to_vec()).unwrap()).unwrap());
            assert_eq!(lines, ["a:x:1", "b:x:2", "c:x:3"], "{long}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
