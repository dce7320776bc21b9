//! The listening socket of a service: made under the lock of the PID file,
//! made again when somebody deletes it, and who may use it.

use super::accounts;
use super::config_source::{ServiceFile, path_of};
use super::lifecycle::{Process, exit};
use crate::limits::{ACCEPT_RETRY, ALLOW_IDS_MAX, SOCKET_IN_USE, STOP_POLL};
use crate::proto::config::{AccountName, Config};
use crate::proto::service::Service;
use crate::sys::identity;
use crate::sys::socket::{self, Peer};
use crate::sys::{Errno, Failure, Op, OwnedFd, clock, file, poll};
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};
use heapless::Vec;

/// What a peer may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Access {
    /// Nothing.
    Denied,
    /// What harms nobody else.
    Guest,
    /// Everything: root, and the uid of the service.
    Owner,
}

/// Who may use a socket: everybody, or those whom `allow_uid` and `allow_gid` name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccessPolicy {
    everybody: bool,
    uids: Vec<u32, ALLOW_IDS_MAX>,
    gids: Vec<u32, ALLOW_IDS_MAX>,
}

impl AccessPolicy {
    /// Who may use the socket of `service`: finds the accounts that the
    /// configuration names, where they matter.
    ///
    /// # Errors
    /// The name that is neither a number nor known.
    pub fn resolve(service: Service, config: &Config) -> Result<Self, &AccountName> {
        let everybody = matches!(service, Service::Hub | Service::Opener | Service::Supervisor);
        let mut policy = Self { everybody, uids: Vec::new(), gids: Vec::new() };
        if everybody {
            return Ok(policy);
        }
        for name in &config.allow_uid {
            let _ = policy.uids.push(accounts::find_uid(name).ok_or(name)?);
        }
        for name in &config.allow_gid {
            let _ = policy.gids.push(accounts::find_group(name).ok_or(name)?);
        }
        Ok(policy)
    }

    /// The mode of the socket.
    fn mode(&self) -> u32 {
        match (self.uids.len(), self.gids.len()) {
            _ if self.everybody => 0o666,
            (0, 0) => 0o600,
            (0, 1) => 0o660,
            _ => 0o666,
        }
    }

    /// The group of the socket, if it matters.
    fn group(&self) -> Option<u32> {
        self.gids.first().copied().filter(|_| self.mode() == 0o660)
    }

    /// What the peer of a connection may.
    #[must_use]
    pub fn access_of(&self, connection: &OwnedFd, peer: Peer) -> Access {
        if peer.uid == 0 || peer.uid == identity::effective_uid() {
            return Access::Owner;
        }
        let known = self.uids.contains(&peer.uid) || self.gids.contains(&peer.gid);
        // Where the kernel does not tell all groups, the mode of the socket has
        // let nobody else in.
        let in_group = || {
            let told = socket::peer_in_groups(connection, &self.gids);
            !self.gids.is_empty() && told.unwrap_or(self.mode() == 0o660)
        };
        if self.everybody || known || in_group() { Access::Guest } else { Access::Denied }
    }
}

/// See the module's documentation.
pub struct Listener {
    path: Path,
    /// `None` in a service that has no socket.
    fd: Option<OwnedFd>,
    /// The name in the file system that is ours.
    identity: (u64, u64),
    /// Who may.
    pub policy: AccessPolicy,
    /// There were no descriptors: nothing is accepted before this.
    accept_after: Option<Instant>,
    /// Why the name is not there and cannot be made, if so.
    failure: Option<Failure>,
}

impl Listener {
    /// Makes the socket at `path`, replacing one that nobody listens on. It is
    /// given to `owner`, if that is named: only in a folder that nobody else can
    /// change, because it is given by its name.
    ///
    /// Somebody who listens there may take `patience` to go.
    ///
    /// # Errors
    /// EADDRINUSE: somebody listens on it. EEXIST: it is no socket.
    pub fn open(
        path: &Path,
        policy: AccessPolicy,
        owner: Option<u32>,
        patience: Duration,
    ) -> Result<Self, Failure> {
        let deadline = clock::now() + patience;
        let (fd, identity) = loop {
            match make(path, &policy, owner) {
                // A child of a killed service has it open until it execs.
                Err(Failure { errno: Errno::ADDRINUSE, .. }) if !deadline.is_due(clock::now()) => {
                    poll::sleep(STOP_POLL);
                }
                made => break made?,
            }
        };
        Ok(Self { path: path.clone(), fd: Some(fd), identity, policy, accept_after: None, failure: None })
    }

    /// Returns the listener of a service that has no socket. Nothing connects to it.
    #[must_use]
    pub fn none() -> Self {
        let policy = AccessPolicy { everybody: true, uids: Vec::new(), gids: Vec::new() };
        let (path, identity) = (Path::empty(), (0, 0));
        Self { path, fd: None, identity, policy, accept_after: None, failure: None }
    }

    /// To be polled for input.
    #[must_use]
    pub fn fd(&self) -> Option<&OwnedFd> {
        self.fd.as_ref()
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which socket it is: another one after it was made again.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Why nobody can connect at the moment, if so.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Makes the socket again if its name is gone. (An abstract name cannot go.)
    #[unsafe(link_section = ".text.idle")]
    pub fn check(&mut self) {
        if self.fd.is_none() || socket::is_abstract(&self.path) {
            return;
        }
        let named = file::meta_at(self.path.as_c_str(), false).map(|meta| meta.identity);
        self.failure = match named {
            Ok(named) if named == self.identity => None,
            // (a dead socket is replaced, anything else is left alone)
            _ => match make(&self.path, &self.policy, None) {
                Ok((fd, identity)) => {
                    (self.fd, self.identity, self.accept_after) = (Some(fd), identity, None);
                    None
                }
                Err(failure) => Some(failure),
            },
        };
    }

    /// Others may use it from now on. True if the socket must be made anew for
    /// that ([`Listener::unlink`], [`Listener::check`]), because changing the mode
    /// of the name could be turned on another file.
    #[must_use]
    pub fn set_policy(&mut self, policy: AccessPolicy) -> bool {
        let same = (policy.mode(), policy.group()) == (self.policy.mode(), self.policy.group());
        self.policy = policy;
        !same && !socket::is_abstract(&self.path)
    }

    /// Takes the name away. Those who are connected already can still be
    /// accepted.
    ///
    /// # Errors
    /// As unlink(2) says.
    pub fn unlink(&self) -> Result<(), Failure> {
        if self.fd.is_none() || socket::is_abstract(&self.path) {
            return Ok(());
        }
        let named = file::meta_at(self.path.as_c_str(), false).map(|meta| meta.identity);
        if named == Ok(self.identity) { file::unlink(self.path.as_c_str()) } else { Ok(()) }
    }

    /// Whether it may be polled at `now`.
    #[must_use]
    pub fn accepts(&self, now: Instant) -> bool {
        self.next_deadline(now).is_none()
    }

    /// When it may be polled again, if not at `now`.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.accept_after.filter(|at| !at.is_due(now))
    }

    /// The next connection and its peer, if there is one.
    pub fn accept(&mut self, now: Instant) -> Option<(OwnedFd, Peer)> {
        match socket::accept(self.fd.as_ref()?) {
            Ok(connection) => {
                self.accept_after = None;
                let connection = connection?;
                let peer = socket::peer(&connection).ok()?;
                Some((connection, peer))
            }
            Err(_) => {
                self.accept_after = Some(now + ACCEPT_RETRY);
                None
            }
        }
    }

    /// Whether there were no descriptors for another connection.
    #[must_use]
    pub fn is_out_of_descriptors(&self) -> bool {
        self.accept_after.is_some()
    }
}

/// Binds and listens; what a dead service left is replaced.
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

/// Opens the socket of a service at its start and drops the privileges: in this
/// order where the folder is not the service's own, because only root can make it
/// there; else the other way round, and `then` (a lock that knows a second instance
/// best) in between. Without the socket the process ends.
pub fn open_and_drop(service: Service, process: &Process, then: &mut dyn FnMut(&Process)) -> Listener {
    let early = needs_rights(service, process).then(|| open_socket(service, process, true));
    process.drop_privileges();
    then(process);
    early.unwrap_or_else(|| open_socket(service, process, false))
}

/// Whether the socket can only be made before the rights are dropped.
fn needs_rights(service: Service, process: &Process) -> bool {
    let path = path_of(service, ServiceFile::Socket, process.config).unwrap_or_default();
    let folder = file::meta_at(path.parent().as_c_str(), true);
    let owner = folder.map(|meta| meta.uid);
    process.identity.as_ref().is_some_and(|identity| owner != Ok(identity.uid))
}

/// The socket; without it the process ends.
fn open_socket(service: Service, process: &Process, chown: bool) -> Listener {
    let config = &process.config;
    let policy = match AccessPolicy::resolve(service, config) {
        Ok(policy) => policy,
        Err(name) => process.fail(exit::CONFIG, &|out| describe_unknown(name, out)),
    };
    let path = path_of(service, ServiceFile::Socket, config).unwrap_or_default();
    let owner = process.identity.as_ref().filter(|_| chown).map(|identity| identity.uid);
    match Listener::open(&path, policy, owner, SOCKET_IN_USE) {
        Ok(listener) => listener,
        Err(Failure { errno: Errno::NAMETOOLONG, .. }) => process.fail(exit::CONFIG, &|out| {
            out.push_str("socket: ");
            out.push_escaped(path.as_bytes());
            out.push_str(": a socket's path has at most 107 bytes; set `socket` to a shorter one");
        }),
        Err(failure) => process.fail_at(&path, failure),
    }
}

/// `allow_uid, allow_gid: "NAME" ...`
pub fn describe_unknown(name: &[u8], out: &mut Writer<'_>) {
    out.push_str("allow_uid or allow_gid: \"");
    out.push_escaped(name);
    out.push_str("\" is neither a number nor known to /etc/passwd or /etc/group");
}
