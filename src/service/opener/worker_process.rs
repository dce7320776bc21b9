//! The worker of the opener: talks to the clients, and can do nothing else. It is forked
//! from the main process and never executes a file. Before it accepts its first client it
//! gives up its privileges, its root and all other descriptors. From then on it makes no
//! system call that names a file.
//!
//! One turn: poll, answers of the main process, clients, new clients, a sign of life.
//!
//! The main process knows a client by its slot and a serial, so that an answer for a client
//! that has left reaches no other client. A client gets one answer, and then the end of the
//! connection. `state/opener/worker_requests.rs` decides which client an answer is for.
//!
//! Changing this: the worker may pass on the words of a client, but never act on them.

use crate::limits::POLL_MAX;
use crate::proto::opener::{DENIED, FILE, RequestId, TO_WORKER_BYTES, ToMain, ToWorker, path_request};
use crate::service::base::PollSource;
use crate::service::connections::{self, Connections, Server, Taken};
use crate::service::listener::Acceptor;
use crate::state::access::Access;
use crate::state::clients::{Admission, Reading};
use crate::state::opener::worker_requests::WorkerRequests;
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

/// The parts of the main process that its worker gets.
pub(super) struct Start<'a> {
    /// The socket to the main process.
    pub(super) channel: OwnedFd,
    /// The listening socket.
    pub(super) listener: OwnedFd,
    /// The main process.
    pub(super) parent: Pid,
    /// The user that the worker becomes; `None` without root.
    pub(super) identity: Option<&'a Identity>,
    /// The name of a folder that becomes the root. Only root can set it.
    pub(super) root: Option<Path>,
    /// The longest time between two signs of life.
    pub(super) interval: Duration,
}

/// The main process has ended, or has sent a malformed message, so the worker exits.
struct ChannelClosed;

/// See the module's documentation.
struct OpenerWorker {
    channel: OwnedFd,
    /// The main process has ended.
    channel_closed: bool,
    acceptor: Acceptor,
    connections: &'static mut Connections,
    requests: WorkerRequests,
}

/// Runs the worker. It is called in the new process.
#[inline(never)]
pub(super) fn run(start: Start<'_>) -> ! {
    // The ^C of a terminal is for the main process, which then stops the worker.
    let _ = process::setsid();
    signal::reset_all();
    signal::ignore_broken_pipes();
    // The other descriptors belong to values of the main process. None of these values is used
    // or dropped here.
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
        requests: WorkerRequests::new(interval),
    };
    memory::release_code_and_stack();
    let mut ready = Vec::new();
    while worker.turn(&ready).is_ok() {
        ready = worker.wait();
    }
    process::exit(0)
}

/// Gives up all privileges. Without an empty root the worker continues, and reports that.
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
        if let Some(fd) = self.acceptor.ready_fd(now).filter(|_| self.requests.has_room()) {
            set.read(fd, PollSource::Listener);
        }
        for (slot, _) in self.connections.clients.connected() {
            if let Some((fd, interest)) = self.connections.interest(slot, self.reading(slot)) {
                set.watch(fd.as_fd(), interest, PollSource::client(slot));
            }
        }
        let due = earliest(self.acceptor.next_deadline(now), self.connections.clients.next_deadline());
        let due = earliest(due, self.requests.next_deadline());
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
        if self.requests.poll(now) {
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

    /// Takes the answers of the main process.
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
                ToWorker::Opened(id) => self.answer(id, received.fd.ok_or(Some(Errno::MFILE))),
                ToWorker::Denied(id) => self.answer(id, Err(None)),
                ToWorker::Failed(id, errno) => {
                    let errno = Errno::from_raw_os_error(i32::try_from(errno).unwrap_or(0));
                    self.answer(id, Err(Some(errno)));
                }
                ToWorker::Listener(interval) => {
                    // Without a free descriptor the worker is better started again.
                    self.acceptor = Acceptor::new(received.fd.ok_or(ChannelClosed)?);
                    self.requests.set_interval(Duration::from_ms(u64::from(interval)));
                }
            }
            if self.requests.is_idle() {
                // Another message is rare, and wakes the next turn.
                return Ok(());
            }
        }
    }

    /// Sends a client its answer and closes the connection: the file, or the error, where
    /// `None` stands for a denial. The worker's copy of the file is closed in any case.
    fn answer(&mut self, request_id: RequestId, file: Result<OwnedFd, Option<Errno>>) {
        let Some(slot) = self.requests.slot_of(request_id) else { return };
        let Some(connection) = self.connections.fd(slot) else { return };
        let send = |file: OwnedFd| {
            fd_passing::send(connection, FILE, Some(&file)).map_err(|failure| Some(failure.errno))
        };
        if let Err(error) = file.and_then(send) {
            let mut text = [0; 48];
            let mut out = Writer::new(&mut text);
            match error {
                Some(errno) => push_failure(errno, &mut out),
                None => out.push(DENIED),
            }
            // The client was sent nothing before, so the socket has room.
            let _ = socket::send(connection, out.as_bytes());
        }
        self.close(slot);
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
        if !self.requests.has_room() || self.channel_closed {
            return None;
        }
        self.acceptor.accept(now).map(|(fd, peer)| (fd, peer, Access::Guest))
    }

    fn admission(&self, _: Access, _: u32, _: Instant) -> Admission {
        let clients = &self.connections.clients;
        let oldest = clients.longest_connected(&|slot| self.requests.is_waiting(slot));
        oldest.map_or(clients.unranked_admission(), Admission::Evict)
    }

    fn refuse(&self, _: &mut Writer<'_>) {}

    /// Reads at once: a client that has asked already cannot be evicted.
    fn joined(&mut self, slot: usize, now: Instant) {
        connections::read(self, slot, now);
    }

    fn reading(&self, slot: usize) -> Reading {
        if self.requests.is_waiting(slot) { Reading::Nothing } else { Reading::Requests }
    }

    /// Sends the request to the main process.
    fn take(&mut self, slot: usize, input: &[u8], now: Instant, out: &mut Writer<'_>) -> Taken {
        let Some(client) = self.connections.clients.get(slot) else { return Taken::Close };
        if input.is_empty() && client.ended {
            // The client asked for nothing, so the main process does not have to log it.
            out.push(DENIED);
            return Taken::Close;
        }
        let Some(request) = path_request(input, client.ended) else { return Taken::Part(0) };
        let request_id = RequestId { slot: u8::try_from(slot).unwrap_or(u8::MAX), serial: client.serial };
        let Peer { pid, uid, .. } = self.connections.peer(slot);
        match self.send(&ToMain::Open { request_id, pid, uid, request }) {
            Ok(()) => {
                self.requests.on_sent(request_id, now);
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
        self.requests.on_closed(slot);
        self.connections.close(slot);
    }
}
