//! The worker of the opener: talks to the clients, and can do nothing else. It is forked
//! from the main process and never executes anything; before it accepts its first client
//! it gives up its rights, its root and everything that is open. From then on it makes no
//! system call that names a file.
//!
//! One turn: poll, answers of the main process, clients, new clients, a sign of life.
//!
//! A client's slot is known to the main process by its number and a serial, so that an
//! answer for one that left meanwhile reaches nobody. What a client gets is one answer and
//! the end of the connection.
//!
//! Changing this: what the worker is told by a client it may pass on, never act on.

use crate::limits::{CLIENTS_MAX, POLL_MAX};
use crate::proto::opener::{DENIED, FILE, RequestId, TO_WORKER_BYTES, ToMain, ToWorker, path_request};
use crate::service::base::PollSource;
use crate::service::connections::{self, Connections, Server, Taken};
use crate::service::listener::Acceptor;
use crate::state::access::Access;
use crate::sys::identity::{self, Identity};
use crate::sys::poll::PollSet;
use crate::sys::process::{self, Pid, Signal};
use crate::sys::socket::Peer;
use crate::sys::{
    AsFd, Errno, Failure, Op, OwnedFd, clock, fd_passing, fds, memory, push_errno_name, sandbox, signal,
    socket,
};
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant, earliest};
use heapless::Vec;

/// What the main process leaves to its worker.
pub(super) struct Start<'a> {
    /// The way to the main process.
    pub(super) channel: OwnedFd,
    /// The listening socket.
    pub(super) listener: OwnedFd,
    /// The main process.
    pub(super) parent: Pid,
    /// Whom to become; only root can.
    pub(super) identity: Option<&'a Identity>,
    /// A name for a folder that becomes the root; only root can.
    pub(super) root: Option<Path>,
    /// How often to tell that it is alive.
    pub(super) interval: Duration,
}

/// The main process is gone, or says what it cannot say: that is the end.
struct ChannelClosed;

/// See the module's documentation.
struct OpenerWorker {
    channel: OwnedFd,
    /// The main process is gone.
    channel_closed: bool,
    acceptor: Acceptor,
    connections: &'static mut Connections,
    /// The request of the client at each slot is with the main process.
    waiting: [bool; CLIENTS_MAX],
    interval: Duration,
    /// When to tell the main process that we live, at the latest.
    next_alive_at: Instant,
}

/// Becomes the worker. To be called in the new process.
#[inline(never)]
pub(super) fn run(start: Start<'_>) -> ! {
    // A terminal's ^C is for the main process, which then tells us.
    let _ = process::setsid();
    signal::reset_all();
    signal::ignore_broken_pipes();
    // (what else is open belongs to values of the main process, which no longer exists
    // here: nothing of it is ever used or dropped)
    fds::close_inherited(&[&start.channel, &start.listener]);
    let confined = fds::nullify(0, 2).and_then(|()| confine(&start));
    if let Err(failure) = confined {
        let errno = u32::try_from(failure.errno.raw_os_error()).unwrap_or(0);
        let _ = socket::send(&start.channel, &ToMain::PrivDropFailed(errno).emit());
        process::exit(1);
    }
    if !process::die_with(start.parent, Signal::KILL) {
        process::exit(0);
    }
    let Start { channel, listener, interval, .. } = start;
    let mut worker = OpenerWorker {
        channel,
        channel_closed: false,
        acceptor: Acceptor::new(listener),
        connections: connections::take(),
        waiting: [false; CLIENTS_MAX],
        interval,
        // (so that the first turn says at once that it is ready)
        next_alive_at: Instant::BOOT,
    };
    memory::release_startup();
    let mut ready = Vec::new();
    while worker.turn(&ready).is_ok() {
        ready = worker.wait();
    }
    process::exit(0)
}

/// Gives up all rights. Without an empty root it goes on, and says so.
fn confine(start: &Start<'_>) -> Result<(), Failure> {
    match start.identity {
        None => process::no_new_privileges()?,
        Some(identity) => {
            let too_long = Failure { op: Op::Mkdirat, errno: Errno::NAMETOOLONG };
            let rooted = start.root.as_ref().ok_or(too_long);
            if let Err(failure) = rooted.and_then(|path| sandbox::empty_root(path.as_c_str())) {
                let errno = u32::try_from(failure.errno.raw_os_error()).unwrap_or(0);
                let _ = socket::send(&start.channel, &ToMain::ChrootFailed(errno).emit());
            }
            identity::drop_privileges(identity)?;
        }
    }
    sandbox::limit();
    Ok(())
}

impl OpenerWorker {
    #[inline(never)]
    fn wait(&self) -> Vec<PollSource, POLL_MAX> {
        let now = clock::now();
        let mut set = PollSet::new();
        set.read(&self.channel, PollSource::Other);
        if let Some(fd) = self.acceptor.ready_fd(now).filter(|_| self.has_room()) {
            set.read(fd, PollSource::Listener);
        }
        for (slot, _) in self.connections.clients.connected() {
            if let Some((fd, interest)) = self.connections.interest(slot, self.can_read(slot)) {
                set.watch(fd.as_fd(), interest, PollSource::client(slot));
            }
        }
        let due = earliest(self.acceptor.next_deadline(now), self.connections.clients.next_deadline());
        let due = earliest(due, Some(self.next_alive_at));
        set.wait(due.map(|at| now.until(at)));
        set.ready().collect()
    }

    #[inline(never)]
    fn turn(&mut self, ready: &[PollSource]) -> Result<(), ChannelClosed> {
        let now = clock::now();
        if ready.contains(&PollSource::Other) {
            self.take_answers()?;
        }
        connections::serve(self, &mut ready.iter().filter_map(PollSource::client_slot), now);
        connections::close_expired(self, now);
        if ready.contains(&PollSource::Listener) {
            connections::accept(self, now);
        }
        if self.next_alive_at.is_due(now) {
            self.next_alive_at = now + self.interval;
            let _ = self.send(&ToMain::Alive);
        }
        if self.channel_closed { Err(ChannelClosed) } else { Ok(()) }
    }

    /// Sends a message to the main process.
    ///
    /// # Errors
    /// The main process is too busy to take it, or gone.
    fn send(&mut self, message: &ToMain<'_>) -> Result<(), Errno> {
        let sent = socket::send(&self.channel, &message.emit()).map(drop).map_err(|failure| failure.errno);
        self.channel_closed |=
            sent.is_err_and(|errno| !matches!(errno, Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM));
        sent
    }

    fn is_waiting(&self, slot: usize) -> bool {
        self.waiting.get(slot).copied().unwrap_or(false)
    }

    // ----- requests ---------------------------------------------------------

    fn request_id(&self, slot: usize) -> Option<RequestId> {
        let serial = self.connections.clients.get(slot)?.serial;
        Some(RequestId { slot: u8::try_from(slot).ok()?, serial })
    }

    // ----- answers ----------------------------------------------------------

    /// What the main process has decided.
    fn take_answers(&mut self) -> Result<(), ChannelClosed> {
        loop {
            let mut bytes = [0; TO_WORKER_BYTES + 1];
            let received = match fd_passing::receive(&self.channel, &mut bytes) {
                Err(Failure { errno: Errno::AGAIN, .. }) => return Ok(()),
                Err(_) => return Err(ChannelClosed),
                Ok(received) => received,
            };
            let message = bytes.get(..received.length).unwrap_or(&[]);
            match ToWorker::parse(message).map_err(|_| ChannelClosed)? {
                ToWorker::Opened(request_id) => self.hand_over(request_id, received.fd),
                ToWorker::Denied(request_id) => self.reply(request_id, DENIED),
                ToWorker::Failed(request_id, errno) => {
                    let errno = Errno::from_raw_os_error(i32::try_from(errno).unwrap_or(0));
                    if let Some(slot) = self.slot_of(request_id) {
                        self.reply_failure(slot, errno);
                    }
                }
                ToWorker::Listener(interval) => {
                    // (without descriptors it is better begun anew)
                    self.acceptor = Acceptor::new(received.fd.ok_or(ChannelClosed)?);
                    self.interval = Duration::from_ms(u64::from(interval));
                    self.next_alive_at = Instant::BOOT;
                }
            }
            if !self.waiting.contains(&true) {
                // (another message would wake the next turn)
                return Ok(());
            }
        }
    }

    /// Where the client is that waits for this answer, if it still is there.
    fn slot_of(&self, request_id: RequestId) -> Option<usize> {
        let slot = usize::from(request_id.slot);
        (self.request_id(slot) == Some(request_id) && self.is_waiting(slot)).then_some(slot)
    }

    /// The file, to whom it is for. Our copy is closed here in any case.
    fn hand_over(&mut self, request_id: RequestId, file: Option<OwnedFd>) {
        let Some(slot) = self.slot_of(request_id) else { return };
        let Some(connection) = self.connections.fd(slot) else { return };
        let sent = match &file {
            Some(file) => fd_passing::send(connection, FILE, Some(file)).map_err(|failure| failure.errno),
            None => Err(Errno::MFILE),
        };
        match sent {
            Err(errno) => self.reply_failure(slot, errno),
            Ok(_) => self.close(slot),
        }
    }

    fn reply_failure(&mut self, slot: usize, errno: Errno) {
        let mut text = [0; 48];
        let mut out = Writer::new(&mut text);
        push_failure(errno, &mut out);
        self.finish(slot, out.as_bytes());
    }

    fn reply(&mut self, request_id: RequestId, text: &[u8]) {
        if let Some(slot) = self.slot_of(request_id) {
            self.finish(slot, text);
        }
    }

    /// The last that the client hears. (It heard nothing before, so there is room.)
    fn finish(&mut self, slot: usize, text: &[u8]) {
        if let Some(connection) = self.connections.fd(slot) {
            let _ = socket::send(connection, text);
        }
        self.close(slot);
    }

    /// Returns true if a new client can be served: there is a slot, or a client that has
    /// one did not ask yet.
    fn has_room(&self) -> bool {
        self.connections.clients.count() < CLIENTS_MAX || self.waiting.contains(&false)
    }
}

/// Writes `open failed: ERRNO`.
fn push_failure(errno: Errno, out: &mut Writer<'_>) {
    out.push_str("open failed: ");
    push_errno_name(errno, out);
}

impl Server for OpenerWorker {
    fn connections(&mut self) -> &mut Connections {
        self.connections
    }

    fn accept(&mut self, now: Instant) -> Option<(OwnedFd, Peer, Access)> {
        if !self.has_room() || self.channel_closed {
            return None;
        }
        self.acceptor.accept(now).map(|(fd, peer)| (fd, peer, Access::Guest))
    }

    fn eviction_candidate(&self, _: Access, _: Instant) -> Option<usize> {
        self.connections.clients.longest_connected(&|slot| self.is_waiting(slot))
    }

    fn refuse(&self, _: &mut Writer<'_>) {}

    /// Reads at once: a client that has asked already cannot be evicted.
    fn joined(&mut self, slot: usize, now: Instant) {
        connections::read(self, slot, now);
    }

    fn can_read(&self, slot: usize) -> bool {
        !self.is_waiting(slot)
    }

    /// Sends the request to the main process.
    fn take(&mut self, slot: usize, input: &[u8], now: Instant, out: &mut Writer<'_>) -> Taken {
        let Some(client) = self.connections.clients.get(slot) else { return Taken::Close };
        if input.is_empty() && client.ended {
            // The client asked for nothing, so the main process need not log it.
            out.push(DENIED);
            return Taken::Close;
        }
        let Some(request) = path_request(input, client.ended) else { return Taken::Part(0) };
        let Some(request_id) = self.request_id(slot) else { return Taken::Close };
        let Peer { pid, uid, .. } = self.connections.peer(slot);
        match self.send(&ToMain::Open { request_id, pid, uid, request }) {
            Ok(()) => {
                self.next_alive_at = now + self.interval;
                self.waiting.get_mut(slot).into_iter().for_each(|waiting| *waiting = true);
                Taken::Last(input.len())
            }
            Err(errno) => {
                // Without an answer the client asks again.
                if !self.channel_closed {
                    push_failure(errno, out);
                }
                Taken::Close
            }
        }
    }

    fn close(&mut self, slot: usize) {
        self.waiting.get_mut(slot).into_iter().for_each(|waiting| *waiting = false);
        self.connections.close(slot);
    }
}
