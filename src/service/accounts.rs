//! Looks up users and groups in /etc/passwd and /etc/group (passwd(5), group(5)).

use crate::proto::passwd::{self, parse_id};
use crate::sys::file::for_each_line;
use crate::sys::identity::Identity;
use heapless::Vec;

/// Finds the identity of `user` and `group`, each a name or a number. An empty `group`
/// stands for the user's own.
///
/// # Errors
/// The name that is no number and is not in its file.
pub fn resolve<'a>(user: &'a [u8], group: &'a [u8]) -> Result<Identity, &'a [u8]> {
    let entry = find_user(user);
    let uid = entry.map(|(uid, _)| uid).or_else(|| parse_id(user)).ok_or(user)?;
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

/// Returns the id of the group `name`, which is a name or a number.
#[must_use]
pub fn find_group(name: &[u8]) -> Option<u32> {
    let mut found = None;
    for_each_line(c"/etc/group", |line| found = found.or_else(|| passwd::group_named(line, name)));
    found.or_else(|| parse_id(name))
}

/// Returns the id of the user `name`, which is a name or a number.
#[must_use]
pub fn find_uid(name: &[u8]) -> Option<u32> {
    find_user(name).map(|(uid, _)| uid).or_else(|| parse_id(name))
}

/// Returns the uid and the primary gid of the user `name`, which is a name or a number.
fn find_user(name: &[u8]) -> Option<(u32, u32)> {
    let mut found = None;
    for_each_line(c"/etc/passwd", |line| found = found.or_else(|| passwd::user_named(line, name)));
    found
}
