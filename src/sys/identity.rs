//! The user and the groups of this process, and the drop of privileges (credentials(7)).

use super::{Failure, Op, OwnedFd, WithOp, process};
use crate::limits::GROUPS_MAX;
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

/// Returns the effective user id (geteuid(2)).
#[must_use]
pub fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Returns the effective group id (getegid(2)).
#[must_use]
pub fn effective_gid() -> u32 {
    rustix::process::getegid().as_raw()
}

/// Becomes `identity` for good: groups, gid, uid, then no new privileges.
///
/// # Errors
/// EPERM without the right to change; then nothing is half done that matters,
/// because the caller gives up.
pub fn drop_privileges(identity: &Identity) -> Result<(), Failure> {
    let mut groups: Vec<Gid, GROUPS_MAX> = Vec::new();
    for gid in &identity.groups {
        // The push cannot fail, because both lists have the same capacity.
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

/// Gives an open file to a group (fchown(2)).
///
/// # Errors
/// EPERM if this process is not a member of the group.
pub fn chown_group(fd: &OwnedFd, gid: u32) -> Result<(), Failure> {
    rustix::fs::fchown(fd, None, Some(gid_of(gid))).op(Op::Fchown)
}

fn uid_raw(id: u32) -> Uid {
    Uid::from_raw_unchecked(id)
}

fn gid_of(id: u32) -> Gid {
    Gid::from_raw_unchecked(id)
}
