//! Looks up users and groups in /etc/passwd and /etc/group (passwd(5), group(5)).

use crate::proto::passwd::{self, parse_id};
use crate::sys::file::{self, for_each_line};
use crate::sys::identity::Identity;
use crate::sys::{at, dir};
use crate::util::lines::words;
use crate::util::path::Path;
use crate::util::text::{Writer, parse_u64};
use core::ffi::CStr;
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
    for_each_line(c"/etc/group", &mut |line| {
        if let Some(extra) = passwd::group_with_member(line, user).filter(|extra| *extra != gid) {
            let _ = groups.push(extra);
        }
    });
    Ok(Identity { uid, gid, groups })
}

/// Writes the variables HOME, USER and LOGNAME of `user`, which is a name or a number, each with a NUL
/// byte at its end. A user without an account has the home `/`.
pub fn push_variables(user: &[u8], out: &mut Writer<'_>) {
    let mut push = |name: &[u8], home: &[u8]| {
        for (variable, value) in [(b"HOME=".as_slice(), home), (b"USER=", name), (b"LOGNAME=", name)] {
            [variable, value, &[0]].into_iter().for_each(|part| out.push(part));
        }
    };
    let mut is_known = false;
    for_each_line(c"/etc/passwd", &mut |line| {
        if let Some((name, home)) = passwd::home_of(line, user).filter(|_| !is_known) {
            is_known = true;
            push(name, home);
        }
    });
    if !is_known {
        push(user, b"/");
    }
}

/// The numbers that no account has, for services whose user exists only while they run
/// (systemd, "Users, Groups, UIDs and GIDs").
const FREE_IDS: core::ops::RangeInclusive<u32> = 61_184..=65_519;
/// Bytes of a set of these numbers.
const FREE_ID_BYTES: usize = 542;

/// Returns an identity that no account and no process has, and that this user namespace knows.
/// The search begins at a number that `seed` decides.
#[must_use]
pub fn free_identity(seed: u32) -> Option<Identity> {
    let mut used = [0u8; FREE_ID_BYTES];
    let mut mark = |id: u32| {
        if let Some(offset) = id.checked_sub(*FREE_IDS.start()).map(|offset| offset as usize) {
            used.get_mut(offset / 8).into_iter().for_each(|byte| *byte |= 1 << (offset % 8));
        }
    };
    for accounts in [c"/etc/passwd", c"/etc/group"] {
        for_each_line(accounts, &mut |line| passwd::number_of(line).into_iter().for_each(&mut mark));
    }
    if let Ok(processes) = file::open_dir(c"/proc") {
        let _ = dir::each(&processes, &mut |name| {
            let process = Path::new(name).filter(|_| parse_u64(name).is_some());
            let meta = process.and_then(|name| at::meta(&processes, name.as_c_str()).ok());
            meta.into_iter().for_each(|meta| mark(meta.uid));
        });
    }
    let count = FREE_IDS.end().saturating_sub(*FREE_IDS.start());
    let ids = (0..count).map(|step| FREE_IDS.start().wrapping_add(seed.wrapping_add(step) % count));
    let is_free = |id: &u32| {
        let offset = id.saturating_sub(*FREE_IDS.start()) as usize;
        used.get(offset / 8).is_some_and(|byte| byte & (1 << (offset % 8)) == 0)
    };
    let id = ids.filter(is_free).find(|id| is_mapped(c"/proc/self/uid_map", *id))?;
    let groups = Vec::from_array([id]);
    Some(Identity { uid: id, gid: id, groups }).filter(|_| is_mapped(c"/proc/self/gid_map", id))
}

/// Returns true if a user namespace knows the number (user_namespaces(7)). Without /proc there
/// is no reason to doubt it.
fn is_mapped(map: &CStr, id: u32) -> bool {
    let (mut known, mut mapped) = (false, false);
    for_each_line(map, &mut |line| {
        let mut numbers = words(line).filter_map(parse_u64);
        if let (Some(first), Some(_), Some(count)) = (numbers.next(), numbers.next(), numbers.next()) {
            known = true;
            mapped |= u64::from(id).checked_sub(first).is_some_and(|offset| offset < count);
        }
    });
    mapped || !known
}

/// Returns the id of the group `name`, which is a name or a number.
#[must_use]
pub fn find_group(name: &[u8]) -> Option<u32> {
    let mut found = None;
    for_each_line(c"/etc/group", &mut |line| found = found.or_else(|| passwd::group_named(line, name)));
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
    for_each_line(c"/etc/passwd", &mut |line| found = found.or_else(|| passwd::user_named(line, name)));
    found
}
