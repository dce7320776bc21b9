//! The listening socket of a service: made under the lock of the PID file,
//! made again when somebody deletes it, and who may use it.

use crate::limits::{ACCEPT_RETRY_MS, ALLOW_IDS_MAX, SOCKET_IN_USE_MS, STOP_POLL_MS};
use crate::proto::config::{Config, Name};
use crate::proto::path::Path;
use crate::sys::identity;
use crate::sys::socket::{self, Peer};
use crate::sys::{Errno, Failure, OwnedFd, clock, file, poll};
use heapless::Vec;

/// What a peer may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rank {
    /// Nothing.
    Nobody,
    /// What harms nobody else.
    Guest,
    /// Everything: root, and the uid of the service.
    Owner,
}

/// Who may use a socket, from `allow_uid` and `allow_gid`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Access {
    uids: Vec<u32, ALLOW_IDS_MAX>,
    gids: Vec<u32, ALLOW_IDS_MAX>,
}

impl Access {
    /// Finds the accounts that the configuration names.
    ///
    /// # Errors
    /// The name that is neither a number nor known.
    pub fn resolve(config: &Config) -> Result<Self, &Name> {
        let mut access = Self { uids: Vec::new(), gids: Vec::new() };
        for name in &config.allow_uid {
            let _ = access.uids.push(identity::find_uid(name).ok_or(name)?);
        }
        for name in &config.allow_gid {
            let _ = access.gids.push(identity::find_group(name).ok_or(name)?);
        }
        Ok(access)
    }

    /// The mode of the socket.
    fn mode(&self) -> u32 {
        match (self.uids.len(), self.gids.len()) {
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
    pub fn rank(&self, connection: &OwnedFd, peer: Peer) -> Rank {
        if peer.uid == 0 || peer.uid == identity::effective_uid() {
            return Rank::Owner;
        }
        let known = self.uids.contains(&peer.uid) || self.gids.contains(&peer.gid);
        // Where the kernel does not tell all groups, the mode of the socket has
        // let nobody else in.
        let in_group = || {
            let told = socket::peer_in_groups(connection, &self.gids);
            !self.gids.is_empty() && told.unwrap_or(self.mode() == 0o660)
        };
        if known || in_group() { Rank::Guest } else { Rank::Nobody }
    }
}

/// See the module's documentation.
pub struct Listener {
    path: Path,
    fd: OwnedFd,
    /// The name in the file system that is ours.
    identity: (u64, u64),
    /// Who may.
    pub access: Access,
    /// There were no descriptors: nothing is accepted before this.
    pub accept_after: u64,
    /// Why the name is not there and cannot be made, if so.
    failure: Option<Failure>,
}

impl Listener {
    /// Makes the socket at `path`, replacing one that nobody listens on. It is
    /// given to `owner`, if that is named: only in a folder that nobody else can
    /// change, because it is given by its name.
    ///
    /// # Errors
    /// EADDRINUSE: somebody listens on it. EEXIST: it is no socket.
    pub fn open(path: &Path, access: Access, owner: Option<u32>) -> Result<Self, Failure> {
        let deadline = clock::now().saturating_add(SOCKET_IN_USE_MS);
        let (fd, identity) = loop {
            match make(path, &access, owner) {
                // A child of a killed service has it open until it execs.
                Err(Failure { errno: Errno::ADDRINUSE, .. }) if clock::now() < deadline => {
                    poll::sleep(STOP_POLL_MS);
                }
                made => break made?,
            }
        };
        Ok(Self { path: path.clone(), fd, identity, access, accept_after: 0, failure: None })
    }

    /// To be polled for input.
    #[must_use]
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Why nobody can connect at the moment, if so.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.failure
    }

    /// Makes the socket again if its name is gone.
    pub fn check(&mut self) {
        let named = file::meta_at(self.path.as_c_str(), false).map(|meta| meta.identity);
        self.failure = match named {
            Ok(named) if named == self.identity => None,
            // (a dead socket is replaced, anything else is left alone)
            _ => match make(&self.path, &self.access, None) {
                Ok((fd, identity)) => {
                    (self.fd, self.identity, self.accept_after) = (fd, identity, 0);
                    None
                }
                Err(failure) => Some(failure),
            },
        };
    }

    /// Others may use it from now on. True if the socket must be made anew for
    /// that ([`Listener::hide`], [`Listener::check`]), because changing the mode
    /// of the name could be turned on another file.
    #[must_use]
    pub fn set_access(&mut self, access: Access) -> bool {
        let same = (access.mode(), access.group()) == (self.access.mode(), self.access.group());
        self.access = access;
        !same
    }

    /// Takes the name away. Those who are connected already can still be
    /// accepted.
    ///
    /// # Errors
    /// As unlink(2) says.
    pub fn hide(&self) -> Result<(), Failure> {
        let named = file::meta_at(self.path.as_c_str(), false).map(|meta| meta.identity);
        if named == Ok(self.identity) { file::unlink(self.path.as_c_str()) } else { Ok(()) }
    }

    /// The next connection and its peer, if there is one.
    pub fn accept(&mut self, now: u64) -> Option<(OwnedFd, Peer)> {
        match socket::accept(&self.fd) {
            Ok(connection) => {
                self.accept_after = 0;
                let connection = connection?;
                let peer = socket::peer(&connection).ok()?;
                Some((connection, peer))
            }
            Err(_) => {
                self.accept_after = now.saturating_add(ACCEPT_RETRY_MS);
                None
            }
        }
    }

    /// Whether there were no descriptors for another connection.
    #[must_use]
    pub fn is_out_of_descriptors(&self) -> bool {
        self.accept_after > 0
    }
}

/// Binds and listens; what a dead service left is replaced.
fn make(path: &Path, access: &Access, owner: Option<u32>) -> Result<(OwnedFd, (u64, u64)), Failure> {
    match file::meta_at(path.as_c_str(), false) {
        Err(_) => {}
        Ok(meta) if meta.socket => match socket::connect(path) {
            Ok(_) | Err(Failure { errno: Errno::AGAIN, .. }) => {
                return Err(Failure { op: "bind", errno: Errno::ADDRINUSE });
            }
            Err(Failure { errno: Errno::CONNREFUSED, .. }) => file::unlink(path.as_c_str())?,
            Err(failure) => return Err(failure),
        },
        Ok(_) => return Err(Failure { op: "bind", errno: Errno::EXIST }),
    }
    let fd = socket::listen(path, access.mode())?;
    let meta = file::meta_at(path.as_c_str(), false)?;
    if let Err(failure) = socket::give(path, owner, access.group()) {
        let _ = file::unlink(path.as_c_str());
        return Err(failure);
    }
    Ok((fd, meta.identity))
}
