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

use crate::limits::{ACCEPT_RETRY, ACCEPT_TURN, CLIENT_INPUT_BYTES, CLIENTS_MAX, POLL_MAX};
use crate::proto::opener::{DENIED, FILE, RequestId, TO_WORKER_BYTES, ToMain, ToWorker, path_request};
use crate::service::base::PollSource;
use crate::service::connections::{self, Connections};
use crate::service::listener::Access;
use crate::sys::identity::{self, Identity};
use crate::sys::poll::PollSet;
use crate::sys::process::{self, Pid};
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
    listener: OwnedFd,
    clients: &'static mut Connections,
    /// Which client has each slot, of all that there were.
    serials: [u32; CLIENTS_MAX],
    /// Whose request is with the main process.
    waiting: [bool; CLIENTS_MAX],
    next_serial: u32,
    /// There were no descriptors: nothing is accepted before this.
    accept_after: Instant,
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
    if !sandbox::die_with(start.parent) {
        process::exit(0);
    }
    let Start { channel, listener, interval, .. } = start;
    let clients = connections::take();
    let mut worker = OpenerWorker {
        channel,
        listener,
        clients,
        serials: [0; CLIENTS_MAX],
        waiting: [false; CLIENTS_MAX],
        next_serial: 0,
        accept_after: Instant::BOOT,
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
        let accept = Some(self.accept_after).filter(|at| !at.is_due(now));
        if accept.is_none() && self.has_room() {
            set.read(&self.listener, PollSource::Listener);
        }
        for (slot, _) in self.clients.connected() {
            if let Some((fd, interest)) = self.clients.interest(slot, !self.is_waiting(slot)) {
                set.watch(fd.as_fd(), interest, PollSource::client(slot));
            }
        }
        let due = earliest(earliest(Some(self.next_alive_at), accept), self.clients.next_deadline());
        set.wait(due.map(|at| now.until(at)));
        set.ready().collect()
    }

    #[inline(never)]
    fn turn(&mut self, ready: &[PollSource]) -> Result<(), ChannelClosed> {
        let now = clock::now();
        for source in ready {
            match *source {
                PollSource::Other => self.take_answers()?,
                PollSource::Client(slot) => self.on_client(slot.into(), now)?,
                _ => {}
            }
        }
        while let Some(slot) = self.clients.expired(now) {
            self.close(slot);
        }
        if ready.contains(&PollSource::Listener) {
            self.accept(now)?;
        }
        if self.next_alive_at.is_due(now) {
            self.next_alive_at = now + self.interval;
            match socket::send(&self.channel, &ToMain::Alive.emit()) {
                Ok(_) | Err(Failure { errno: Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM, .. }) => {}
                Err(_) => return Err(ChannelClosed),
            }
        }
        Ok(())
    }

    fn is_waiting(&self, slot: usize) -> bool {
        self.waiting.get(slot).copied().unwrap_or(false)
    }

    // ----- requests ---------------------------------------------------------

    /// Something came from a client, or it is gone.
    #[inline(never)]
    fn on_client(&mut self, slot: usize, now: Instant) -> Result<(), ChannelClosed> {
        let mut input = [0; CLIENT_INPUT_BYTES];
        // (whose request is with the main process is only watched for its end)
        let taken =
            if self.is_waiting(slot) { None } else { self.clients.take_input(slot, &mut input, now).ok() };
        let (Some(length), Some(client)) = (taken, self.clients.get(slot)) else {
            self.close(slot);
            return Ok(());
        };
        let input = input.get(..length).unwrap_or(&[]);
        if input.is_empty() && client.ended {
            // (it asked for nothing, so nobody has to hear of it)
            self.finish(slot, DENIED);
            return Ok(());
        }
        let (peer, Some(request)) = (client.peer, path_request(input, client.ended)) else {
            self.clients.keep(slot, input, false, false, now);
            return Ok(());
        };
        let Some(request_id) = self.request_id(slot) else { return Ok(()) };
        let request = ToMain::Open { request_id, pid: peer.pid, uid: peer.uid, request };
        match socket::send(&self.channel, &request.emit()) {
            Ok(_) => {
                self.next_alive_at = now + self.interval;
                self.waiting.get_mut(slot).into_iter().for_each(|waiting| *waiting = true);
            }
            Err(Failure { errno: errno @ (Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM), .. }) => {
                self.reply_failure(slot, errno);
            }
            Err(_) => return Err(ChannelClosed),
        }
        Ok(())
    }

    fn request_id(&self, slot: usize) -> Option<RequestId> {
        Some(RequestId { slot: u8::try_from(slot).ok()?, serial: *self.serials.get(slot)? })
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
                    self.listener = received.fd.ok_or(ChannelClosed)?;
                    let interval = Duration::from_ms(u64::from(interval));
                    (self.interval, self.next_alive_at, self.accept_after) =
                        (interval, Instant::BOOT, Instant::BOOT);
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
        let Some(connection) = self.clients.connection(slot) else { return };
        let sent = match &file {
            Some(file) => fd_passing::send(connection, FILE, Some(file)).map_err(|failure| failure.errno),
            None => Err(Errno::MFILE),
        };
        match sent {
            Err(errno) => self.reply_failure(slot, errno),
            Ok(_) => self.close(slot),
        }
    }

    /// `open failed: ERRNO`
    fn reply_failure(&mut self, slot: usize, errno: Errno) {
        let mut text = [0; 48];
        let mut out = Writer::new(&mut text);
        out.push_str("open failed: ");
        push_errno_name(errno, &mut out);
        self.finish(slot, out.as_bytes());
    }

    fn reply(&mut self, request_id: RequestId, text: &[u8]) {
        if let Some(slot) = self.slot_of(request_id) {
            self.finish(slot, text);
        }
    }

    /// The last that the client hears. (It heard nothing before, so there is room.)
    fn finish(&mut self, slot: usize, text: &[u8]) {
        if let Some(connection) = self.clients.connection(slot) {
            let _ = socket::send(connection, text);
        }
        self.close(slot);
    }

    // ----- who comes and goes -----------------------------------------------

    /// Whether a newcomer could be served: there is a slot, or somebody has one and has
    /// not said what for.
    fn has_room(&self) -> bool {
        self.clients.count() < CLIENTS_MAX || self.waiting.contains(&false)
    }

    #[inline(never)]
    fn accept(&mut self, now: Instant) -> Result<(), ChannelClosed> {
        for _ in 0..ACCEPT_TURN {
            if !self.has_room() {
                return Ok(());
            }
            let connection = match socket::accept(&self.listener) {
                Ok(None) => return Ok(()),
                Ok(Some(connection)) => connection,
                Err(_) => {
                    self.accept_after = now + ACCEPT_RETRY;
                    return Ok(());
                }
            };
            let Ok(peer) = socket::peer(&connection) else { continue };
            if self.clients.count() == CLIENTS_MAX
                && let Some(slot) = self.longest_silent()
            {
                self.close(slot);
            }
            let Ok(slot) = self.clients.add(connection, peer, Access::Guest, now) else { continue };
            self.next_serial = self.next_serial.wrapping_add(1);
            self.serials.get_mut(slot).into_iter().for_each(|serial| *serial = self.next_serial);
            // It may have asked already: then nobody can crowd it out.
            self.on_client(slot, now)?;
        }
        Ok(())
    }

    /// Who came first of those that have not asked yet.
    fn longest_silent(&self) -> Option<usize> {
        let age = |slot: usize| self.serials.get(slot).map(|serial| self.next_serial.wrapping_sub(*serial));
        (0..CLIENTS_MAX).filter(|slot| !self.is_waiting(*slot)).max_by_key(|slot| age(*slot))
    }

    #[inline(never)]
    fn close(&mut self, slot: usize) {
        let mut unread = [0; 512];
        self.waiting.get_mut(slot).into_iter().for_each(|waiting| *waiting = false);
        self.clients.close(slot, &mut unread);
    }
}
