//! The second lock of a service, which holds while its PID file is lost: `spool/lock` of `jobs`,
//! and an abstract socket of every other service.
//!
//! Every user can bind an abstract name. So a process holds the lock of a service only if it
//! belongs to root or to the user of the service, and any other process is ignored.

use super::accounts;
use crate::proto::config::Config;
use crate::proto::service::Service;
use crate::state::identity::push_lock_address;
use crate::sys::lock::{self, Holder, holder};
use crate::sys::poll::{Interest, PollSet};
use crate::sys::process::Pid;
use crate::sys::socket::SOCKET_PATH_MAX_BYTES;
use crate::sys::{AsFd, Errno, Failure, OwnedFd, clock, file, identity, socket};
use crate::util::path::Path;
use crate::util::text::{Writer, parse_u64};
use crate::util::time::Instant;
use ufmt::uwrite;

/// Maximum number of connections that are accepted at once. It is more than the kernel queues.
const CONNECTIONS_MAX: usize = 128;

/// The holder of a second lock, as another process sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SecondHolder {
    /// The lock is free.
    Free,
    /// The service holds the lock. `None` stands for a process that cannot be named.
    Service(Option<Pid>),
    /// A process of another user holds the lock: its PID and its user.
    Stranger(u32, u32),
}

/// Returns the process that holds the second lock of `service`. `pid_path` is its PID file.
#[must_use]
#[inline(never)]
pub fn find_holder(service: Service, config: &Config, pid_path: &Path) -> SecondHolder {
    if service.is(Service::Jobs) {
        return find_spool_holder(config, pid_path);
    }
    let uid = identity::effective_uid();
    let owner = file::meta_at(pid_path.parent().as_c_str(), true).map_or(uid, |meta| meta.uid);
    match find_socket_holder(service, config, pid_path, uid) {
        // The owner of the folder perhaps started the service.
        SecondHolder::Free if owner != uid => find_socket_holder(service, config, pid_path, owner),
        found => found,
    }
}

/// Returns the holder of `spool/lock`. A service with another PID file is another service.
fn find_spool_holder(config: &Config, pid_path: &Path) -> SecondHolder {
    let Some(path) = config.spool.join(b"lock") else { return SecondHolder::Free };
    match holder(path.as_c_str()) {
        Ok(Holder::Running(pid)) if lock::is_filled_with(path.as_c_str(), pid_path.as_bytes()) => {
            SecondHolder::Service(pid)
        }
        _ => SecondHolder::Free,
    }
}

/// Returns the holder of the socket that a service of the user `uid` binds.
fn find_socket_holder(service: Service, config: &Config, pid_path: &Path, uid: u32) -> SecondHolder {
    let socket = match socket::connect(&address(service, uid, pid_path)) {
        Ok(socket) => socket,
        // A service accepts its connections, so that its queue has room unless it hangs.
        Err(Failure { errno: Errno::AGAIN, .. }) => return SecondHolder::Stranger(0, u32::MAX),
        Err(_) => return SecondHolder::Free,
    };
    let Ok(peer) = socket::peer(&socket) else { return SecondHolder::Free };
    let user = if config.user.is_empty() { None } else { accounts::find_uid(&config.user) };
    let trusted = [0, uid, user.unwrap_or(uid)];
    if !trusted.contains(&peer.uid) {
        return SecondHolder::Stranger(peer.pid, peer.uid);
    }
    match find_owner(peer.pid, &trusted) {
        Some(owner) if trusted.contains(&owner) => {
            SecondHolder::Service(i32::try_from(peer.pid).ok().and_then(Pid::from_raw))
        }
        Some(owner) => SecondHolder::Stranger(peer.pid, owner),
        // The process is in another PID namespace, or there is no /proc.
        None => SecondHolder::Service(None),
    }
}

/// Returns a user of process `pid` that is not in `trusted`, or else any of its users
/// (proc_pid_status(5)). A program with the set-user-ID bit has several.
fn find_owner(pid: u32, trusted: &[u32]) -> Option<u32> {
    let mut name = [0; 32];
    let mut out = Writer::new(&mut name);
    let _ = uwrite!(out, "/proc/{}/status", pid);
    let path = Path::new(out.as_bytes())?;
    let mut found = None;
    file::for_each_line(path.as_c_str(), &mut |line| {
        let users = line.strip_prefix(b"Uid:").unwrap_or(&[]);
        for user in users.split(u8::is_ascii_whitespace).filter_map(parse_u64) {
            let user = u32::try_from(user).unwrap_or(u32::MAX);
            if found.is_none_or(|found| trusted.contains(&found)) {
                found = Some(user);
            }
        }
    });
    found
}

/// Returns the address of the socket that a service of the user `uid` binds.
fn address(service: Service, uid: u32, pid_path: &Path) -> Path {
    let mut buffer = [0; SOCKET_PATH_MAX_BYTES];
    let mut out = Writer::new(&mut buffer);
    push_lock_address(service, uid, pid_path.as_bytes(), &mut out);
    Path::or_empty(&[out.as_bytes()])
}

/// Binds the socket for a service that the user `uid` started.
///
/// # Errors
/// EADDRINUSE: another process has bound it.
pub fn bind(service: Service, uid: u32, pid_path: &Path) -> Result<OwnedFd, Failure> {
    socket::listen(&address(service, uid, pid_path), 0o600)
}

/// Accepts and closes the connections of the processes that looked for the holder. Otherwise
/// their queue would fill, and the holder could not be found. Sends `status` to those of root and
/// of the service's own user.
#[cold]
#[inline(never)]
pub fn answer_all(lock: &OwnedFd, status: &[u8]) {
    let users = [0, identity::effective_uid()];
    for _ in 0..CONNECTIONS_MAX {
        let Ok(Some((socket, _))) = socket::accept(lock) else { break };
        if socket::peer(&socket).is_ok_and(|peer| users.contains(&peer.uid)) {
            // A process that only looks for the holder does not wait for it.
            let _ = socket::send(&socket, status);
        }
    }
}

/// Reads the status of the service that process `pid` is from its second lock, until `deadline`.
/// Returns an empty text if it is withheld from this user, and `None` if there is no answer.
#[inline(never)]
pub fn ask_status<'b>(
    service: Service,
    pid_path: &Path,
    pid: Pid,
    deadline: Instant,
    buffer: &'b mut [u8],
) -> Option<&'b [u8]> {
    let uid = identity::effective_uid();
    let owner = file::meta_at(pid_path.parent().as_c_str(), true).map_or(uid, |meta| meta.uid);
    let socket = [uid, owner, 0].iter().find_map(|uid| {
        let socket = socket::connect(&address(service, *uid, pid_path)).ok()?;
        let peer = socket::peer(&socket).ok()?;
        (u32::try_from(pid.as_raw_pid()) == Ok(peer.pid)).then_some(socket)
    })?;
    let mut length = 0;
    loop {
        match socket::receive(&socket, buffer.get_mut(length..).unwrap_or(&mut [])) {
            Ok(0) => return buffer.get(..length).map(|text| text.strip_suffix(b"\n").unwrap_or(text)),
            Ok(count) => length = length.saturating_add(count),
            Err(Failure { errno: Errno::AGAIN, .. }) if !deadline.is_due(clock::now()) => {
                let mut set = PollSet::new();
                set.watch(socket.as_fd(), Interest::Input, ());
                set.wait(Some(clock::now().until(deadline)));
            }
            Err(_) => return None,
        }
    }
}
