//! The worker of the opener: talks to the clients, and can do nothing else. It is forked
//! from the main process and never executes anything; before it accepts its first client
//! it gives up its rights, its root and everything that is open. From then on it makes no
//! system call that names a file.
//!
//! One turn: poll, answers of the main process, clients, new clients, a sign of life.
//!
//! A client's place is known to the main process by its number and a serial, so that an
//! answer for one that left meanwhile reaches nobody. What a client gets is one answer and
//! the end of the connection.
//!
//! Changing this: what the worker is told by a client it may pass on, never act on.

use crate::limits::{ACCEPT_RETRY, ACCEPT_TURN, CLIENT_INPUT_BYTES, CLIENTS_MAX, POLL_MAX};
use crate::proto::opener::{ANSWER_BYTES, Answer, DENIED, FILE, Request, Whom, asked};
use crate::proto::path::Path;
use crate::proto::text::Writer;
use crate::service::clients::{self, Clients};
use crate::service::companion::Source;
use crate::service::listener::Rank;
use crate::sys::identity::{self, Identity};
use crate::sys::poll::PollSet;
use crate::sys::process::{self, Pid};
use crate::sys::{
    AsFd, Errno, Failure, OwnedFd, clock, confine, fds, memory, pass, push_errno_name, signal, socket,
};
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
struct Over;

/// See the module's documentation.
struct Worker {
    channel: OwnedFd,
    listener: OwnedFd,
    clients: &'static mut Clients,
    /// Which client has each place, of all that there were.
    serials: [u32; CLIENTS_MAX],
    /// Whose request is with the main process.
    waiting: [bool; CLIENTS_MAX],
    next_serial: u32,
    /// There were no descriptors: nothing is accepted before this.
    accept_after: Instant,
    interval: Duration,
    /// When to tell the main process that we live, at the latest.
    say_at: Instant,
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
        let _ = socket::send(&start.channel, &Request::Unfit(errno).emit());
        process::exit(1);
    }
    if !confine::die_with(start.parent) {
        process::exit(0);
    }
    let Start { channel, listener, interval, .. } = start;
    let clients = clients::take();
    let mut worker = Worker {
        channel,
        listener,
        clients,
        serials: [0; CLIENTS_MAX],
        waiting: [false; CLIENTS_MAX],
        next_serial: 0,
        accept_after: Instant::BOOT,
        interval,
        // (so that the first turn says at once that it is ready)
        say_at: Instant::BOOT,
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
            let too_long = Failure { op: "mkdirat", errno: Errno::NAMETOOLONG };
            let rooted = start.root.as_ref().ok_or(too_long);
            if let Err(failure) = rooted.and_then(|path| confine::empty_root(path.as_c_str())) {
                let errno = u32::try_from(failure.errno.raw_os_error()).unwrap_or(0);
                let _ = socket::send(&start.channel, &Request::NoRoot(errno).emit());
            }
            identity::drop_privileges(identity)?;
        }
    }
    confine::limit();
    Ok(())
}

impl Worker {
    #[inline(never)]
    fn wait(&self) -> Vec<Source, POLL_MAX> {
        let now = clock::now();
        let mut set = PollSet::new();
        set.read(&self.channel, Source::Other);
        let accept = Some(self.accept_after).filter(|at| !at.is_due(now));
        if accept.is_none() && self.has_room() {
            set.read(&self.listener, Source::Listener);
        }
        for (place, _) in self.clients.connected() {
            if let Some((fd, interest)) = self.clients.interest(place, !self.is_waiting(place)) {
                set.watch(fd.as_fd(), interest, Source::Client(place));
            }
        }
        let due = earliest(earliest(Some(self.say_at), accept), self.clients.next_deadline());
        set.wait(due.map(|at| now.until(at)));
        set.ready().collect()
    }

    #[inline(never)]
    fn turn(&mut self, ready: &[Source]) -> Result<(), Over> {
        let now = clock::now();
        for source in ready {
            match *source {
                Source::Other => self.take_answers()?,
                Source::Client(place) => self.on_client(place, now)?,
                _ => {}
            }
        }
        while let Some(place) = self.clients.expired(now) {
            self.close(place);
        }
        if ready.contains(&Source::Listener) {
            self.accept(now)?;
        }
        if self.say_at.is_due(now) {
            self.say_at = now + self.interval;
            match socket::send(&self.channel, &Request::Alive.emit()) {
                Ok(_) | Err(Failure { errno: Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM, .. }) => {}
                Err(_) => return Err(Over),
            }
        }
        Ok(())
    }

    fn is_waiting(&self, place: usize) -> bool {
        self.waiting.get(place).copied().unwrap_or(false)
    }

    // ----- requests ---------------------------------------------------------

    /// Something came from a client, or it is gone.
    #[inline(never)]
    fn on_client(&mut self, place: usize, now: Instant) -> Result<(), Over> {
        let mut input = [0; CLIENT_INPUT_BYTES];
        // (whose request is with the main process is only watched for its end)
        let taken =
            if self.is_waiting(place) { None } else { self.clients.take_input(place, &mut input, now).ok() };
        let (Some(length), Some(client)) = (taken, self.clients.get(place)) else {
            self.close(place);
            return Ok(());
        };
        let input = input.get(..length).unwrap_or(&[]);
        if input.is_empty() && client.ended {
            // (it asked for nothing, so nobody has to hear of it)
            self.end(place, DENIED);
            return Ok(());
        }
        let (peer, Some(asked)) = (client.peer, asked(input, client.ended)) else {
            self.clients.keep(place, input, false, false, now);
            return Ok(());
        };
        let Some(whom) = self.whom(place) else { return Ok(()) };
        let request = Request::Open { whom, pid: peer.pid, uid: peer.uid, asked };
        match socket::send(&self.channel, &request.emit()) {
            Ok(_) => {
                self.say_at = now + self.interval;
                self.waiting.get_mut(place).into_iter().for_each(|waiting| *waiting = true);
            }
            Err(Failure { errno: errno @ (Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM), .. }) => {
                self.tell_failure(place, errno);
            }
            Err(_) => return Err(Over),
        }
        Ok(())
    }

    fn whom(&self, place: usize) -> Option<Whom> {
        Some(Whom { place: u8::try_from(place).ok()?, serial: *self.serials.get(place)? })
    }

    // ----- answers ----------------------------------------------------------

    /// What the main process has decided.
    fn take_answers(&mut self) -> Result<(), Over> {
        loop {
            let mut bytes = [0; ANSWER_BYTES + 1];
            let received = match pass::receive(&self.channel, &mut bytes) {
                Err(Failure { errno: Errno::AGAIN, .. }) => return Ok(()),
                Err(_) => return Err(Over),
                Ok(received) => received,
            };
            let message = bytes.get(..received.length).unwrap_or(&[]);
            match Answer::parse(message).map_err(|_| Over)? {
                Answer::Opened(whom) => self.hand_over(whom, received.fd),
                Answer::Denied(whom) => self.reply(whom, DENIED),
                Answer::Failed(whom, errno) => {
                    let errno = Errno::from_raw_os_error(i32::try_from(errno).unwrap_or(0));
                    if let Some(place) = self.place_of(whom) {
                        self.tell_failure(place, errno);
                    }
                }
                Answer::Listener(interval) => {
                    // (without descriptors it is better begun anew)
                    self.listener = received.fd.ok_or(Over)?;
                    let interval = Duration::from_ms(u64::from(interval));
                    (self.interval, self.say_at, self.accept_after) =
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
    fn place_of(&self, whom: Whom) -> Option<usize> {
        let place = usize::from(whom.place);
        (self.whom(place) == Some(whom) && self.is_waiting(place)).then_some(place)
    }

    /// The file, to whom it is for. Our copy is closed here in any case.
    fn hand_over(&mut self, whom: Whom, file: Option<OwnedFd>) {
        let Some(place) = self.place_of(whom) else { return };
        let Some(connection) = self.clients.connection(place) else { return };
        let sent = match &file {
            Some(file) => pass::send(connection, FILE, Some(file)).map_err(|failure| failure.errno),
            None => Err(Errno::MFILE),
        };
        match sent {
            Err(errno) => self.tell_failure(place, errno),
            Ok(_) => self.close(place),
        }
    }

    /// `open failed: ERRNO`
    fn tell_failure(&mut self, place: usize, errno: Errno) {
        let mut text = [0; 48];
        let mut out = Writer::new(&mut text);
        out.push_str("open failed: ");
        push_errno_name(errno, &mut out);
        self.end(place, out.as_bytes());
    }

    fn reply(&mut self, whom: Whom, text: &[u8]) {
        if let Some(place) = self.place_of(whom) {
            self.end(place, text);
        }
    }

    /// The last that the client hears. (It heard nothing before, so there is room.)
    fn end(&mut self, place: usize, text: &[u8]) {
        if let Some(connection) = self.clients.connection(place) {
            let _ = socket::send(connection, text);
        }
        self.close(place);
    }

    // ----- who comes and goes -----------------------------------------------

    /// Whether a newcomer could be served: there is a place, or somebody has one and has
    /// not said what for.
    fn has_room(&self) -> bool {
        self.clients.count() < CLIENTS_MAX || self.waiting.contains(&false)
    }

    #[inline(never)]
    fn accept(&mut self, now: Instant) -> Result<(), Over> {
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
                && let Some(place) = self.longest_silent()
            {
                self.close(place);
            }
            let Ok(place) = self.clients.add(connection, peer, Rank::Guest, now) else { continue };
            self.next_serial = self.next_serial.wrapping_add(1);
            self.serials.get_mut(place).into_iter().for_each(|serial| *serial = self.next_serial);
            // It may have asked already: then nobody can crowd it out.
            self.on_client(place, now)?;
        }
        Ok(())
    }

    /// Who came first of those that have not asked yet.
    fn longest_silent(&self) -> Option<usize> {
        let age = |place: usize| self.serials.get(place).map(|serial| self.next_serial.wrapping_sub(*serial));
        (0..CLIENTS_MAX).filter(|place| !self.is_waiting(*place)).max_by_key(|place| age(*place))
    }

    #[inline(never)]
    fn close(&mut self, place: usize) {
        let mut unread = [0; 512];
        self.waiting.get_mut(place).into_iter().for_each(|waiting| *waiting = false);
        self.clients.close(place, &mut unread);
    }
}
