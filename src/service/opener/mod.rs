//! The service `opener`: hands out descriptors of the files that `allow` names to those who
//! may not open them.
//!
//! It is two processes (privilege separation, as OpenSSH has it):
//!
//! ```text
//! clients ◀──▶ worker ◀── fixed messages ──▶ main: policy, opens ──▶ files
//!              nobody, empty root            root (or whoever started it)
//! ```
//!
//! - **main**, this file, is the service: lock, log, health, configuration. It alone knows
//!   the list and opens files. It reads nothing but the worker's messages, each of a fixed
//!   length, and checks every byte of them (`proto/opener.rs`).
//! - **the worker** (`worker_process.rs`) reads what strangers send, and could, taken over by one,
//!   ask for what is on the list anyway, and lie about who asks, in the log.
//!
//! The heart beats when the worker shows that it lives, so the health file is about both.
//! A worker that dies, falls silent for `stale_after`, or sends what is no message is
//! killed, and another one started: at once, then more slowly. While there is none, new
//! connections wait, and the heart stands still.

mod worker_process;

use super::accounts;
use super::base::{self, PollSource, Pulse, ServiceBase, ServiceStatus};
use super::lifecycle::{StartReporter, exit};
use super::memory::Memory;
use crate::limits::{
    CLIENTS_MAX, DENIALS_LOGGED_MAX, RESTART_DELAY, RESTART_DELAY_MAX, RESTART_QUICK, WORKER_GRACE,
    WORKER_OVERSLEPT,
};
use crate::proto::log::Level;
use crate::proto::opener::{PathRequest, RequestId, TO_MAIN_BYTES, ToMain, ToWorker};
use crate::proto::service::Service;
use crate::proto::status::StatusField;
use crate::state::backoff::delay;
use crate::state::opener::{Resolved, complete, find, load};
use crate::state::rate_limit::RateLimit;
use crate::state::realpath::NodeKind;
use crate::sys::identity::{self, Identity};
use crate::sys::once::once;
use crate::sys::process::{self, Pid, Side, Signal};
use crate::sys::signal::Arrived;
use crate::sys::{
    Errno, Failure, Op, OwnedFd, clock, describe_errno, fd_passing, fds, file, memory, poll, push_errno_name,
    socket,
};
use crate::util::path::Path;
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};
use heapless::Vec;
use ufmt::uwrite;

/// Nobody, where /etc/passwd does not know it.
const NOBODY: u32 = 65534;

once! {
    static RESOLVED: Resolved = Vec::new();
}

/// The process that talks to clients.
struct WorkerHandle {
    pid: Pid,
    channel: OwnedFd,
    started_at: Instant,
    last_message_at: Instant,
}

/// What the worker has said.
enum WorkerMessage {
    /// Nothing yet.
    Nothing,
    /// That it lives.
    Alive,
    /// What it wants for a client, which it got.
    Served,
    /// That it could not give up its rights.
    PrivDropFailed(Errno),
    /// It is gone, or not to be trusted: why.
    Lost(&'static str),
}

/// See the module's documentation.
struct Opener {
    base: &'static mut ServiceBase,
    /// Where the entries of `allow` led.
    resolved: &'static mut Resolved,
    /// Whom the worker becomes.
    identity: Option<Identity>,
    worker: Option<WorkerHandle>,
    /// Workers that were lost in a row, each soon after its start.
    quick_exits: u32,
    /// When the next one is started, while there is none.
    start_at: Instant,
    denials: RateLimit,
    /// The hint about the root was given.
    hinted: bool,
    opened: u64,
    denied: u64,
    failed: u64,
}

/// Runs the service until it is stopped; returns the exit code. (Not inlined: its
/// caller's frame would hold what every service needs.)
#[inline(never)]
pub fn serve(parts: &'static mut Memory, reporter: StartReporter) -> u8 {
    let base = ServiceBase::open(Service::Opener, parts, reporter);
    let identity = base.process.identity.take();
    base.open_socket(&mut |_| {});
    let mut opener = Opener {
        base,
        resolved: RESOLVED.take(),
        identity: worker_identity(identity),
        worker: None,
        quick_exits: 0,
        start_at: Instant::BOOT,
        denials: RateLimit::default(),
        hinted: false,
        opened: 0,
        denied: 0,
        failed: 0,
    };
    opener.load();
    opener.first_worker();
    base::announce(&mut opener);
    while !opener.base.stopping {
        opener.turn();
    }
    opener.finish()
}

/// Whom the worker becomes, if we may say so: `user`, or else nobody.
fn worker_identity(configured: Option<Identity>) -> Option<Identity> {
    if identity::effective_uid() != 0 {
        return None;
    }
    configured.or_else(|| accounts::resolve(b"nobody", b"").ok()).or_else(|| {
        let groups = Vec::from_array([NOBODY]);
        Some(Identity { uid: NOBODY, gid: NOBODY, groups })
    })
}

/// What a name is (readlink(2)); why it could not be looked at, if so.
fn inspect_name(path: &Path, target: &mut [u8], errno: &mut Option<Errno>) -> NodeKind {
    match file::read_link(path.as_c_str(), target) {
        Ok(length) => NodeKind::Link(length),
        Err(Failure { errno: Errno::INVAL, .. }) => NodeKind::Other,
        Err(Failure {
            errno: Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP | Errno::NAMETOOLONG,
            ..
        }) => NodeKind::Missing,
        Err(failure) => {
            *errno = Some(failure.errno);
            NodeKind::Unknown
        }
    }
}

impl ServiceStatus for Opener {
    fn base(&self) -> &ServiceBase {
        self.base
    }

    fn base_mut(&mut self) -> &mut ServiceBase {
        self.base
    }

    fn value(&self, field: StatusField, _: Instant) -> Option<u64> {
        Some(match field {
            StatusField::Opened => self.opened,
            StatusField::Denied => self.denied,
            StatusField::OpensFailed => self.failed,
            StatusField::Worker => {
                self.worker.as_ref().map_or(0, |worker| worker.pid.as_raw_pid().unsigned_abs().into())
            }
            _ => return None,
        })
    }
}

impl Opener {
    #[inline(never)]
    fn turn(&mut self) {
        let due = self.next_deadline();
        let channel = self.worker.as_ref().map(|worker| &worker.channel);
        let ready = self.base.wait(clock::now(), None, due, &mut |set| {
            if let Some(channel) = channel {
                set.read(channel, PollSource::Other);
            }
        });
        let now = clock::now();
        if let Some(arrived) = self.base.take_signals(&ready) {
            self.on_signals(arrived, now);
        }
        let opened = self.opened;
        let shown = ready.contains(&PollSource::Other) && self.receive_all(now);
        if !self.base.stopping {
            self.watch_worker(now);
        }
        let socket = self.base.listener.identity();
        let pulse = Pulse::Worker { runs: self.worker.is_some(), shown };
        let busy = self.opened != opened;
        base::end_turn(self, now, busy, pulse);
        if self.base.listener.identity() != socket {
            self.send_listener(now);
        }
    }

    /// When the worker has been silent for too long, or the next one is started.
    fn next_deadline(&self) -> Option<Instant> {
        Some(match &self.worker {
            Some(worker) => worker.last_message_at + self.base.process.config.stale_after,
            None => self.start_at,
        })
    }

    fn on_signals(&mut self, arrived: Arrived, now: Instant) {
        if let Some((_, why)) = arrived.stop() {
            self.base.begin_stop(why, "");
        }
        base::on_user_signals(self, arrived, now);
        if arrived.has(Signal::HUP) && self.base.reload() {
            self.base.finish_reload();
            self.load();
            self.send_listener(now);
        }
        if arrived.has(Signal::CHILD) {
            while let Some((pid, _)) = process::reap_any() {
                if self.worker.as_ref().is_some_and(|worker| worker.pid == pid) {
                    // (its number may be another process's by now)
                    self.on_worker_exit(now, "is gone");
                }
            }
        }
    }

    /// The list of the configuration in force. What of it cannot be looked at now is looked
    /// at again when somebody asks for it.
    fn load(&mut self) {
        let mut errno = None;
        let allow = &self.base.process.config.allow;
        load(allow, &mut |path, target| inspect_name(path, target, &mut errno), self.resolved);
        if let Some(errno) = errno {
            self.base.log.warn(&|out| {
                out.push_str("allow: where its entries lead cannot all be seen yet: ");
                describe_errno(errno, out);
            });
        }
    }

    /// Where the path leads that is asked for: `None` if it is not on the list.
    fn find(&mut self, request: PathRequest<'_>) -> Option<Result<Path, Errno>> {
        let allow = &self.base.process.config.allow;
        let find = |resolved: &Resolved| find(allow, resolved, request.path).and_then(Path::new);
        let mut path = if request.too_long { None } else { find(self.resolved) }?;
        let mut errno = None;
        if path.is_empty() {
            complete(allow, &mut |path, target| inspect_name(path, target, &mut errno), self.resolved);
            path = find(self.resolved)?;
        }
        Some(if path.is_empty() { Err(errno.unwrap_or(Errno::IO)) } else { Ok(path) })
    }

    // ----- requests ---------------------------------------------------------

    /// What the worker has said; true if it lives.
    #[inline(never)]
    fn receive_all(&mut self, now: Instant) -> bool {
        let mut lives = false;
        for _ in 0..CLIENTS_MAX {
            match self.receive(now) {
                WorkerMessage::Nothing => break,
                WorkerMessage::Served => lives = true,
                WorkerMessage::Alive => {
                    // (mostly nothing follows; what does wakes the next turn)
                    lives = true;
                    break;
                }
                WorkerMessage::PrivDropFailed(_) => self.kill_worker(now, "cannot give up its rights"),
                WorkerMessage::Lost(why) => self.kill_worker(now, why),
            }
        }
        lives
    }

    /// One message of the worker.
    #[inline(never)]
    fn receive(&mut self, now: Instant) -> WorkerMessage {
        let Some(worker) = &mut self.worker else { return WorkerMessage::Nothing };
        let mut bytes = [0; TO_MAIN_BYTES + 1];
        let request = match socket::receive(&worker.channel, &mut bytes) {
            Err(Failure { errno: Errno::AGAIN, .. }) => return WorkerMessage::Nothing,
            Ok(0) | Err(_) => return WorkerMessage::Lost("is gone"),
            Ok(length) => ToMain::parse(bytes.get(..length).unwrap_or(&[])),
        };
        let errno_of = |errno: u32| Errno::from_raw_os_error(i32::try_from(errno).unwrap_or(0));
        match request {
            Err(_) => return WorkerMessage::Lost("sent what is no message"),
            Ok(ToMain::PrivDropFailed(errno)) => return WorkerMessage::PrivDropFailed(errno_of(errno)),
            Ok(ToMain::Alive) => {}
            Ok(ToMain::ChrootFailed(errno)) => {
                if !core::mem::replace(&mut self.hinted, true) {
                    self.base.log.warn(&|out| {
                        out.push_str("the worker still sees the whole file system: ");
                        describe_errno(errno_of(errno), out);
                    });
                }
                return WorkerMessage::Nothing;
            }
            Ok(ToMain::Open { request_id, pid, uid, request }) => {
                worker.last_message_at = now;
                return self.answer(request_id, (pid, uid), request, now);
            }
        }
        worker.last_message_at = now;
        WorkerMessage::Alive
    }

    /// Opens what may be opened, and tells the worker. Our descriptor is closed here in
    /// any case.
    fn answer(
        &mut self,
        request_id: RequestId,
        peer: (u32, u32),
        request: PathRequest<'_>,
        now: Instant,
    ) -> WorkerMessage {
        let open = |path: Path| file::open_without_links(path.as_c_str()).map_err(|failure| failure.errno);
        let (answer, file) = match self.find(request).map(|path| path.and_then(open)) {
            None => {
                self.log_denied(peer, request, now);
                (ToWorker::Denied(request_id), None)
            }
            Some(Ok(file)) => (ToWorker::Opened(request_id), Some(file)),
            Some(Err(errno)) => (self.failed(request_id, peer, request, errno), None),
        };
        let Some(worker) = &self.worker else { return WorkerMessage::Nothing };
        let mut sent = fd_passing::send(&worker.channel, &answer.emit(), file.as_ref());
        if let (Some(_), Err(failure)) = (&file, sent)
            && matches!(failure.errno, Errno::TOOMANYREFS | Errno::NOMEM | Errno::NOBUFS)
        {
            let answer = self.failed(request_id, peer, request, failure.errno);
            let Some(worker) = &self.worker else { return WorkerMessage::Nothing };
            sent = fd_passing::send(&worker.channel, &answer.emit(), None);
        } else if file.is_some() && sent.is_ok() {
            self.opened = self.opened.saturating_add(1);
            self.log_debug(peer, request, &|out| out.push_str("opened"));
        }
        match sent {
            Ok(_) => WorkerMessage::Served,
            Err(_) => WorkerMessage::Lost("does not take its answers"),
        }
    }

    /// Counts and notes a file that could not be handed out; the answer.
    fn failed(
        &mut self,
        request_id: RequestId,
        peer: (u32, u32),
        request: PathRequest<'_>,
        errno: Errno,
    ) -> ToWorker {
        self.failed = self.failed.saturating_add(1);
        self.log_debug(peer, request, &|out| {
            out.push_str("open failed: ");
            push_errno_name(errno, out);
        });
        ToWorker::Failed(request_id, u32::try_from(errno.raw_os_error()).unwrap_or(1))
    }

    /// Logs at level debug: `WHAT for uid N (pid N): PATH`
    #[inline(never)]
    fn log_debug(
        &mut self,
        (pid, uid): (u32, u32),
        request: PathRequest<'_>,
        what: &dyn Fn(&mut Writer<'_>),
    ) {
        self.base.log.line(Level::Debug, &|out| {
            what(out);
            let _ = uwrite!(out, " for uid {} (pid {}): ", uid, pid);
            out.push_escaped(request.path);
        });
    }

    /// Counts a denial, and logs it unless there are too many.
    fn log_denied(&mut self, (pid, uid): (u32, u32), request: PathRequest<'_>, now: Instant) {
        self.denied = self.denied.saturating_add(1);
        if self.denials.take(now, DENIALS_LOGGED_MAX) {
            self.base.log.warn(&|out| {
                let _ = uwrite!(out, "denied to uid {} (pid {}): ", uid, pid);
                out.push_escaped(request.path);
                out.push_str(if request.too_long { "… (longer than 255 bytes)" } else { "" });
            });
        }
    }

    // ----- the worker -------------------------------------------------------

    /// Forks a worker.
    #[inline(never)]
    fn start_worker(&mut self, now: Instant) -> Result<(), Failure> {
        let (channel, theirs) = fd_passing::pair()?;
        let no_socket = Failure { op: Op::Fcntl, errno: Errno::BADF };
        let listener = fds::duplicate(self.base.listener.fd().ok_or(no_socket)?)?;
        let parent = process::pid();
        // What it does not need it need not hold either.
        memory::release(self.base.scratch);
        match process::fork()? {
            Side::Child => worker_process::run(worker_process::Start {
                channel: theirs,
                listener,
                parent,
                identity: self.identity.as_ref(),
                root: self.base.process.pid_path.parent().join(b"zigsvc-opener.root"),
                interval: self.base.beat_every(),
            }),
            Side::Parent(pid) => {
                self.worker = Some(WorkerHandle { pid, channel, started_at: now, last_message_at: now })
            }
        }
        Ok(())
    }

    /// The worker of the start: without it, and before it has shown that it lives and has
    /// given up its rights, the service is not ready.
    fn first_worker(&mut self) {
        let begun = clock::now();
        if let Err(failure) = self.start_worker(begun) {
            self.fail_start(exit::FAILED, &|out| failure.describe(out));
        }
        let deadline = begun + self.base.process.config.stale_after;
        loop {
            let now = clock::now();
            let why = match self.receive(now) {
                WorkerMessage::Alive | WorkerMessage::Served => return,
                WorkerMessage::PrivDropFailed(errno) => {
                    let code = if matches!(errno, Errno::PERM | Errno::ACCESS) {
                        exit::NO_PRIVILEGE
                    } else {
                        exit::FAILED
                    };
                    self.fail_start(code, &|out| {
                        out.push_str("opener: its worker cannot give up its rights: ");
                        describe_errno(errno, out);
                    });
                }
                WorkerMessage::Lost(why) => why,
                WorkerMessage::Nothing if deadline.is_due(now) => "does not answer",
                WorkerMessage::Nothing => {
                    if let Some(worker) = &self.worker {
                        let _ = poll::readable_within(&worker.channel, now.until(deadline));
                    }
                    continue;
                }
            };
            self.fail_start(exit::FAILED, &|out| {
                out.push_str("opener: its worker ");
                out.push_str(why);
            });
        }
    }

    /// The start has failed; does not return.
    fn fail_start(&mut self, code: u8, text: &dyn Fn(&mut Writer<'_>)) -> ! {
        let _ = self.base.listener.unlink();
        self.stop_worker();
        self.base.process.fail(code, text)
    }

    /// Starts a worker where there is none, and gives up one that has been silent.
    fn watch_worker(&mut self, now: Instant) {
        let patience = self.base.process.config.stale_after;
        match &mut self.worker {
            Some(worker) => {
                let due = worker.last_message_at + patience;
                if (due + WORKER_OVERSLEPT).is_due(now) {
                    worker.last_message_at = now;
                } else if due.is_due(now) {
                    self.kill_worker(now, "has been silent for stale_after");
                }
            }
            None if self.start_at.is_due(now) => {
                if let Err(failure) = self.start_worker(now) {
                    self.schedule_restart(now, true);
                    self.base.log.error(&|out| {
                        out.push_str("no worker could be started: ");
                        failure.describe(out);
                    });
                }
            }
            None => {}
        }
    }

    /// The worker has to go. It is reaped when it has ended.
    fn kill_worker(&mut self, now: Instant, why: &str) {
        if let Some(worker) = &self.worker {
            let _ = process::kill(worker.pid, Signal::KILL);
        }
        self.on_worker_exit(now, why);
    }

    /// The worker is gone, or will be.
    #[inline(never)]
    fn on_worker_exit(&mut self, now: Instant, why: &str) {
        let Some(worker) = self.worker.take() else { return };
        let wait = self.schedule_restart(now, !(worker.started_at + RESTART_QUICK).is_due(now));
        self.base.log.error(&|out| {
            let _ = uwrite!(out, "the worker (pid {}) {}; ", worker.pid.as_raw_pid(), why);
            let _ = uwrite!(out, "the next one is started in {} ms", wait.as_ms());
        });
    }

    /// When the next worker may be started: at once, unless the last one was lost `soon`.
    fn schedule_restart(&mut self, now: Instant, soon: bool) -> Duration {
        let wait = match self.quick_exits {
            quick_exits @ 1.. if soon => delay(RESTART_DELAY, quick_exits, RESTART_DELAY_MAX),
            _ => Duration::ZERO,
        };
        self.quick_exits = if soon { self.quick_exits.saturating_add(1) } else { 1 };
        self.start_at = now + wait;
        wait
    }

    /// Gives the worker the socket, which may be another one, and how often it is to show
    /// that it lives.
    fn send_listener(&mut self, now: Instant) {
        let Some(worker) = &self.worker else { return };
        let interval = u32::try_from(self.base.beat_every().as_ms()).unwrap_or(u32::MAX);
        let message = ToWorker::Listener(interval).emit();
        if fd_passing::send(&worker.channel, &message, self.base.listener.fd()).is_err() {
            self.kill_worker(now, "does not take its socket");
        }
    }

    /// Ends the worker and reaps it: it goes when its channel is closed.
    fn stop_worker(&mut self) {
        let Some(WorkerHandle { pid, channel, .. }) = self.worker.take() else { return };
        drop(channel);
        let deadline = clock::now() + WORKER_GRACE;
        while process::ended(pid).is_none() {
            let left = clock::now().until(deadline);
            if left.is_zero() {
                let _ = process::kill(pid, Signal::KILL);
                break;
            }
            // (the signal of its end wakes us)
            let _ = poll::readable_within(self.base.process.signals.fd(), left);
            let _ = self.base.process.signals.take();
        }
        process::reap(pid);
    }

    // ----- the end ----------------------------------------------------------

    #[inline(never)]
    fn finish(&mut self) -> u8 {
        let _ = self.base.listener.unlink();
        self.stop_worker();
        let opened = self.opened;
        self.base.finish(&|out| {
            let _ = uwrite!(out, "opened {} files", opened);
        })
    }
}
