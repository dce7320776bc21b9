//! The listening socket of a service, and the accounts that may use it. The socket is made
//! under the lock of the PID file, and made again after its file was deleted.

use super::accounts;
use super::config_source::{ServiceFile, path_or_empty};
use super::connections::access_of;
use super::identity::look;
use super::lifecycle::{Process, describe_at, exit, failure_code};
use super::trust::may_be_of_user;
use crate::limits::STOP_POLL;
use crate::proto::config::{AccountName, Config};
use crate::proto::service::Service;
use crate::state::access::{Access, AccessPolicy};
use crate::state::identity::PathState;
use crate::state::trust::Subject;
use crate::sys::socket::{self, Peer};
use crate::sys::{Errno, Failure, Op, OwnedFd, clock, file, identity, poll};
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};

/// Time until connections are accepted again after there were no descriptors.
const ACCEPT_RETRY: Duration = Duration::from_ms(1000);
/// Time for which the start tries again to bind a socket that another process listens on.
const SOCKET_IN_USE: Duration = Duration::from_ms(1000);

/// Returns the policy of a service's socket: for every user, or for the accounts that the
/// configuration names.
///
/// # Errors
/// Returns the name that is neither a number nor known.
pub fn find_policy(service: Service, config: &Config) -> Result<AccessPolicy, &AccountName> {
    let mut policy = AccessPolicy {
        everybody: matches!(service, Service::Hub | Service::Opener),
        ..AccessPolicy::default()
    };
    if !policy.everybody {
        for name in &config.allow_uid {
            let _ = policy.uids.push(accounts::find_uid(name).ok_or(name)?);
        }
        for name in &config.allow_gid {
            let _ = policy.gids.push(accounts::find_group(name).ok_or(name)?);
        }
    }
    Ok(policy)
}

/// Accepts connections from a listening socket.
pub struct Acceptor {
    /// `None` in a service that has no socket.
    fd: Option<OwnedFd>,
    /// After a lack of descriptors: when to try again.
    accept_after: Option<Instant>,
}

impl Acceptor {
    /// Takes over a listening socket.
    #[must_use]
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd: Some(fd), accept_after: None }
    }

    /// Returns the descriptor of the socket.
    #[must_use]
    pub fn fd(&self) -> Option<&OwnedFd> {
        self.fd.as_ref()
    }

    /// Returns the descriptor if it can be polled at `now`.
    #[must_use]
    pub fn ready_fd(&self, now: Instant) -> Option<&OwnedFd> {
        self.fd().filter(|_| self.next_deadline(now).is_none())
    }

    /// Returns when the socket can be polled again, if not at `now`.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.accept_after.filter(|at| !at.is_due(now))
    }

    /// Returns the next connection and its client, if there is one. The connection of a
    /// supervisor that finds out if the service lives is closed, which is the answer, and no
    /// part of the service sees it.
    pub fn accept(&mut self, now: Instant) -> Option<(OwnedFd, Peer)> {
        loop {
            let accepted = socket::accept(self.fd()?);
            self.accept_after = accepted.is_err().then(|| now + ACCEPT_RETRY);
            let (connection, is_probe) = accepted.ok()??;
            let peer = socket::peer(&connection).ok()?;
            if !is_probe || (peer.uid != 0 && peer.uid != identity::effective_uid()) {
                return Some((connection, peer));
            }
        }
    }

    /// Returns true if there were no descriptors for another connection.
    #[must_use]
    pub fn is_out_of_descriptors(&self) -> bool {
        self.accept_after.is_some()
    }
}

/// See the module's documentation.
pub struct Listener {
    path: Path,
    /// Accepts the connections.
    pub acceptor: Acceptor,
    /// The device and inode of the socket's file.
    identity: (u64, u64),
    /// The users and groups that can use the socket.
    pub policy: AccessPolicy,
    /// The reason why the file is missing and cannot be made again.
    failure: Option<Failure>,
}

impl Listener {
    /// Makes the socket at `path`, and replaces one on which no process listens. Gives the
    /// socket to `owner`, if there is one. The folder must belong to root then, because the
    /// owner is changed by name.
    ///
    /// Waits up to `patience` for a process that listens there to end.
    ///
    /// # Errors
    /// EADDRINUSE: a process listens on the socket. EEXIST: the file is no socket.
    pub fn open(
        path: &Path,
        policy: AccessPolicy,
        owner: Option<u32>,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let deadline = clock::now() + patience;
        let (fd, identity) = loop {
            match make(path, &policy, owner) {
                // A child of a killed service has the socket open until it calls execve(2).
                Err(Failure { errno: Errno::ADDRINUSE, .. }) if !deadline.is_due(clock::now()) => {
                    poll::sleep(STOP_POLL);
                }
                made => break made?,
            }
        };
        Ok(Self { path: path.clone(), acceptor: Acceptor::new(fd), identity, policy, failure: None })
    }

    /// Returns the listener of a service whose socket could not be made at its start.
    /// [`Listener::check`] makes it.
    fn missing(path: Path, policy: AccessPolicy, failure: Failure) -> Self {
        Self { path, policy, failure: Some(failure), ..Self::none() }
    }

    /// Returns the listener of a service that has no socket. Nothing connects to it.
    #[must_use]
    pub fn none() -> Self {
        let policy = AccessPolicy { everybody: true, ..AccessPolicy::default() };
        let acceptor = Acceptor { fd: None, accept_after: None };
        Self { path: Path::empty(), acceptor, identity: (0, 0), policy, failure: None }
    }

    /// Returns the path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the device and inode of the file, which differ after the socket was made
    /// again.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Returns the reason why the file is missing and cannot be made again, if it is missing.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Makes the socket again if its file was deleted. An abstract name cannot be deleted.
    #[unsafe(link_section = ".text.idle")]
    pub fn check(&mut self) {
        if self.path.is_empty() || socket::is_abstract(&self.path) {
            return;
        }
        match look(&self.path, self.identity, false) {
            PathState::Named => self.failure = None,
            PathState::Missing | PathState::Replaced => self.make_again(),
            PathState::Unknown => {}
        }
    }

    /// Makes the socket again, and replaces one on which no process listens. Any other file is
    /// left alone.
    #[cold]
    fn make_again(&mut self) {
        self.failure = match make(&self.path, &self.policy, None) {
            Ok((fd, identity)) => {
                (self.acceptor, self.identity) = (Acceptor::new(fd), identity);
                None
            }
            Err(failure) => Some(failure),
        };
    }

    /// Applies a policy. Returns true if the socket has to be made again for its mode and
    /// group, with [`Listener::unlink`] and [`Listener::check`]. A change of the mode by name
    /// could be directed at another file.
    #[must_use]
    pub fn set_policy(&mut self, policy: AccessPolicy) -> bool {
        let same = (policy.mode(), policy.group()) == (self.policy.mode(), self.policy.group());
        self.policy = policy;
        !same && !socket::is_abstract(&self.path)
    }

    /// Deletes the file. Clients that have connected already can still be accepted.
    ///
    /// # Errors
    /// As unlink(2) says.
    pub fn unlink(&self) -> Result<(), Failure> {
        if self.path.is_empty() || socket::is_abstract(&self.path) {
            return Ok(());
        }
        let named = file::meta_at(self.path.as_c_str(), false).map(|meta| meta.identity);
        if named == Ok(self.identity) { file::unlink(self.path.as_c_str()) } else { Ok(()) }
    }

    /// Returns the next connection, if there is one, its client and the client's rights.
    pub fn accept(&mut self, now: Instant) -> Option<(OwnedFd, Peer, Access)> {
        let (fd, peer) = self.acceptor.accept(now)?;
        let access = access_of(&self.policy, &fd, peer);
        Some((fd, peer, access))
    }
}

/// Binds a socket and listens on it. Replaces the socket of a service that died.
fn make(path: &Path, policy: &AccessPolicy, owner: Option<u32>) -> Result<(OwnedFd, (u64, u64)), Failure> {
    if socket::is_abstract(path) {
        return Ok((socket::listen(path, policy.mode())?, (0, 0)));
    }
    match file::meta_at(path.as_c_str(), false) {
        Err(_) => {}
        Ok(meta) if meta.socket => match socket::connect(path) {
            Ok(_) | Err(Failure { errno: Errno::AGAIN, .. }) => {
                return Err(Failure { op: Op::Bind, errno: Errno::ADDRINUSE });
            }
            Err(Failure { errno: Errno::CONNREFUSED, .. }) => file::unlink(path.as_c_str())?,
            Err(failure) => return Err(failure),
        },
        Ok(_) => return Err(Failure { op: Op::Bind, errno: Errno::EXIST }),
    }
    let fd = socket::listen(path, policy.mode())?;
    let meta = file::meta_at(path.as_c_str(), false)?;
    if let Err(failure) = socket::chown(path, owner, policy.group()) {
        let _ = file::unlink(path.as_c_str());
        return Err(failure);
    }
    Ok((fd, meta.identity))
}

/// Creates the socket of a service and drops privileges. If no folder on its way belongs to the
/// service's user, the socket is created first, as root; otherwise privileges are dropped
/// first. Calls `then` after the drop, for a lock that detects a second instance. Ends the
/// process if the socket cannot be created.
pub fn open_and_drop(service: Service, process: &Process, then: &mut dyn FnMut(&Process)) -> Listener {
    let early = needs_rights(service, process).then(|| open_socket(service, process, true));
    process.drop_privileges();
    then(process);
    early.unwrap_or_else(|| open_socket(service, process, false))
}

/// Returns true if the socket can only be created before privileges are dropped.
fn needs_rights(service: Service, process: &Process) -> bool {
    let path = path_or_empty(service, ServiceFile::Socket, process.config);
    process.identity.is_some() && !may_be_of_user(process.config, &path, Subject::Runtime)
}

/// Returns the socket. Ends the process if it cannot be created.
pub(super) fn open_socket(service: Service, process: &Process, chown: bool) -> Listener {
    let config = &process.config;
    let policy = match find_policy(service, config) {
        Ok(policy) => policy,
        Err(name) => process.fail(exit::CONFIG, &|out| describe_unknown(name, out)),
    };
    let path = path_or_empty(service, ServiceFile::Socket, config);
    let owner = process.identity.as_ref().filter(|_| chown).map(|identity| identity.uid);
    match Listener::open(&path, policy.clone(), owner, SOCKET_IN_USE) {
        Ok(listener) => listener,
        Err(failure) if failure.is_of_full_disk() && !socket::is_abstract(&path) => {
            process.reporter.warn(&|out| {
                out.push_str("the socket cannot be made: ");
                describe_at(&path, failure, out);
            });
            Listener::missing(path, policy, failure)
        }
        Err(Failure { errno: Errno::NAMETOOLONG, .. }) => process.fail(exit::CONFIG, &|out| {
            out.push_str("socket: ");
            out.push_escaped(path.as_bytes());
            out.push_str(": a socket's path has at most 107 bytes; set `socket` to a shorter one");
        }),
        Err(failure) => process.fail(failure_code(failure), &|out| {
            describe_at(&path, failure, out);
            // FAT and exFAT have no sockets: mknod(2) fails there.
            if failure.op == Op::Bind && matches!(failure.errno, Errno::IO | Errno::PERM | Errno::OPNOTSUPP) {
                out.push_str("; if that filesystem has no sockets, set `socket` to a path on another one");
            }
        }),
    }
}

/// Writes the reason why a name in `allow_uid` or `allow_gid` is refused.
pub fn describe_unknown(name: &[u8], out: &mut Writer<'_>) {
    out.push_str("allow_uid or allow_gid: \"");
    out.push_escaped(name);
    out.push_str("\" is neither a number nor known to /etc/passwd or /etc/group");
}
