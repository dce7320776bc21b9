//! The service `opener`: hands out descriptors of the files that `allow` names to clients
//! that may not open them.
//!
//! The service is two processes, for privilege separation:
//!
//! ```text
//! clients ◀──▶ worker ◀── fixed messages ──▶ main: policy, opens ──▶ files
//!              nobody, empty root            root, or the user that started it
//! ```
//!
//! - **main**, this file, is the service: lock, log, health, configuration. It alone knows
//!   the list and opens files. It reads only the messages of the worker, each of a fixed
//!   length, and checks every byte of them (`proto/opener.rs`).
//! - **the worker** (`worker_process.rs`) reads what clients send. A client that takes over
//!   the worker can ask for files on the list, and falsify the log of the requests, no more.
//!
//! The heart beats when the worker shows that it lives, so the health file is about both.
//! A worker that exits, is silent for `stale_after`, or sends a malformed message is
//! killed and replaced: at once, then more slowly (`state/opener/worker_monitor.rs`).
//! Without a worker, new connections wait, and the heart stands still.

mod worker_lifecycle;
mod worker_process;

use super::accounts;
use super::base::{self, PollSource, Pulse, ServiceBase, ServiceStatus};
use super::lifecycle::StartReporter;
use super::memory::Memory;
use crate::limits::{CLIENTS_MAX, DENIALS_LOGGED_MAX, PATH_MAX_BYTES};
use crate::proto::log::Level;
use crate::proto::opener::{PathRequest, RequestId, TO_MAIN_BYTES, ToMain, ToWorker};
use crate::proto::service::Service;
use crate::proto::status::StatusField;
use crate::state::opener::allow_list::{Resolved, complete, find, load};
use crate::state::opener::worker_monitor::WorkerMonitor;
use crate::state::rate_limit::RateLimit;
use crate::state::realpath::NodeKind;
use crate::sys::identity::{self, Identity};
use crate::sys::once::once;
use crate::sys::process::{self, Pid, Signal};
use crate::sys::signal::Arrived;
use crate::sys::{Errno, Failure, OwnedFd, clock, describe_errno, fd_passing, file, push_errno_name, socket};
use crate::util::path::Path;
use crate::util::text::{Writer, text_with_number};
use crate::util::time::Instant;
use heapless::Vec;
use ufmt::uwrite;

/// Follows a path in the log that was cut.
const TOO_LONG: &str = text_with_number!("… (longer than ", PATH_MAX_BYTES, " bytes)");

/// The user `nobody`, where /etc/passwd has no such entry.
const NOBODY: u32 = 65534;

once! {
    static RESOLVED: Resolved = Vec::new();
}

/// The worker, which talks to the clients.
struct WorkerHandle {
    pid: Pid,
    channel: OwnedFd,
}

/// The next message of the worker.
enum WorkerMessage {
    /// No message has come, or one that is no sign of life.
    Nothing,
    /// The worker is alive.
    Alive,
    /// A client wanted a file, and was answered.
    Served,
    /// The worker could not drop its privileges.
    PrivDropFailed(Errno),
    /// The worker has exited or is not trustworthy, for this reason.
    Lost(&'static str),
}

/// See the module's documentation.
struct Opener {
    base: &'static mut ServiceBase,
    /// The targets of the entries of `allow`.
    resolved: &'static mut Resolved,
    /// The user of the worker.
    identity: Option<Identity>,
    worker: Option<WorkerHandle>,
    monitor: WorkerMonitor,
    denials: RateLimit,
    /// The warning about the root of the worker was logged.
    hinted: bool,
    opened: u64,
    denied: u64,
    failed: u64,
}

/// Runs the service until it is stopped, and returns the exit code. It is not inlined,
/// because its caller's frame would hold the state of every service.
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
        monitor: WorkerMonitor::default(),
        denials: RateLimit::default(),
        hinted: false,
        opened: 0,
        denied: 0,
        failed: 0,
    };
    opener.load();
    opener.first_worker();
    base::announce(&mut opener);
    opener.run();
    opener.finish()
}

/// Returns the user of the worker: `user`, or else `nobody`. Without root it cannot be set.
fn worker_identity(configured: Option<Identity>) -> Option<Identity> {
    if identity::effective_uid() != 0 {
        return None;
    }
    configured.or_else(|| accounts::resolve(b"nobody", b"").ok()).or_else(|| {
        let groups = Vec::from_array([NOBODY]);
        Some(Identity { uid: NOBODY, gid: NOBODY, groups })
    })
}

/// Returns the kind of a file, and the target of a symbolic link. If readlink(2) fails for
/// another reason than a missing file, the reason is in `errno`.
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
    #[unsafe(link_section = ".text.idle")]
    fn base(&self) -> &ServiceBase {
        self.base
    }

    #[unsafe(link_section = ".text.idle")]
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
    /// Runs turns until the service stops.
    #[inline(never)]
    #[unsafe(link_section = ".text.idle")]
    fn run(&mut self) {
        self.base.release_startup();
        while !self.base.stopping {
            self.turn();
        }
    }

    fn turn(&mut self) {
        let due = self.monitor.next_deadline(self.base.process.config.stale_after);
        let mut channel = self.worker.iter().map(|worker| (&worker.channel, PollSource::Other));
        let ready = self.base.wait(clock::now(), None, due, &mut channel);
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
                    // The PID may belong to another process by now, so it is not killed.
                    self.on_worker_exit(now, "is gone");
                }
            }
        }
    }

    /// Resolves the list of the configuration in force. An entry that cannot be resolved now
    /// is resolved when a client asks for it.
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

    /// Returns the target of the requested path; `None` if the path is not on the list.
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

    /// Handles the messages of the worker. Returns true if it showed that it lives.
    #[inline(never)]
    #[unsafe(link_section = ".text.idle")]
    fn receive_all(&mut self, now: Instant) -> bool {
        let mut lives = false;
        for _ in 0..CLIENTS_MAX {
            match self.receive(now) {
                WorkerMessage::Nothing => break,
                WorkerMessage::Served => lives = true,
                WorkerMessage::Alive => {
                    // Another message is rare, and wakes the next turn.
                    lives = true;
                    break;
                }
                WorkerMessage::PrivDropFailed(_) => self.kill_worker(now, "cannot give up its rights"),
                WorkerMessage::Lost(why) => self.kill_worker(now, why),
            }
        }
        lives
    }

    /// Handles one message of the worker.
    #[inline(never)]
    #[unsafe(link_section = ".text.idle")]
    fn receive(&mut self, now: Instant) -> WorkerMessage {
        let Some(worker) = &self.worker else { return WorkerMessage::Nothing };
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
                self.monitor.on_message(now);
                return self.answer(request_id, (pid, uid), request, now);
            }
        }
        self.monitor.on_message(now);
        WorkerMessage::Alive
    }

    /// Opens the requested file if it is on the list, and answers the worker. The descriptor
    /// of this process is closed here in any case.
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

    /// Counts and logs a file that could not be handed out, and returns the answer.
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

    /// Logs `WHAT for uid N (pid N): PATH`, at level debug.
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
                out.push_str(if request.too_long { TOO_LONG } else { "" });
            });
        }
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
