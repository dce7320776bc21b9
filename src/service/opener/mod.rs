//! The service `opener`: hands out descriptors of the files that `allow` names to clients
//! that may not open them.
//!
//! The service is two processes, for privilege separation:
//!
//! ```text
//! clients ◀──▶ worker ◀── fixed messages ──▶ main: policy, opens ──▶ files
//!              own user, empty root          root, or the user that started it
//! ```
//!
//! - **main**, this file, is the service: lock, log, health, configuration. It alone knows
//!   the list and opens files (`file_requests.rs`). It reads only the messages of the worker, each of a fixed
//!   length, and checks every byte of them (`proto/opener.rs`).
//! - **the worker** (`worker_process.rs`) reads what clients send. A client that takes over
//!   the worker can ask for files on the list, and falsify the log of the requests, no more.
//!
//! The heart beats when the worker shows that it lives, so the health file is about both.
//! A worker that exits, is silent for `stale_after`, or sends a malformed message is
//! killed and replaced: at once if it had shown that it lives, otherwise more slowly each time (`state/opener/worker_monitor.rs`).
//! Without a worker, new connections wait, and the heart stands still.

mod file_requests;
mod worker_lifecycle;
mod worker_process;

use super::accounts;
use super::base::{self, PollSource, Pulse, ServiceBase, ServiceStatus};
use super::lifecycle::StartReporter;
use super::memory::Memory;
use crate::limits::CLIENTS_MAX;
use crate::proto::crc::crc32;
use crate::proto::opener::{TO_MAIN_BYTES, ToMain};
use crate::proto::service::Service;
use crate::proto::status::StatusField;
use crate::state::opener::allow_list::Resolved;
use crate::state::opener::worker_monitor::WorkerMonitor;
use crate::state::rate_limit::RateLimit;
use crate::sys::identity::{self, Identity};
use crate::sys::once::once;
use crate::sys::process::{self, Pid, Signal};
use crate::sys::signal::Arrived;
use crate::sys::{Errno, Failure, OwnedFd, clock, describe_errno, socket};
use crate::util::path::Path;
use crate::util::time::Instant;
use heapless::Vec;
use ufmt::uwrite;

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
    let identity = worker_identity(base.process.identity.take(), &base.process.pid_path);
    base.open_socket(&mut |_| {});
    let mut opener = Opener {
        base,
        resolved: RESOLVED.take(),
        identity,
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

/// Returns the user of the worker: `user`, or else a number that no other process has, because
/// processes of one user can signal each other. It is `nobody` only where no number is free.
/// Without root it cannot be set.
fn worker_identity(configured: Option<Identity>, pid_path: &Path) -> Option<Identity> {
    if identity::effective_uid() != 0 {
        return None;
    }
    if configured.is_some() {
        return configured;
    }
    let own = accounts::free_identity(crc32(&[pid_path.as_bytes()]));
    if own.is_some() {
        return own;
    }
    let fallback = || Identity { uid: NOBODY, gid: NOBODY, groups: Vec::from_array([NOBODY]) };
    Some(accounts::resolve(b"nobody", b"").unwrap_or_else(|_| fallback()))
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
        let has_socket = self.base.listener.acceptor.fd().is_some();
        let due = self.monitor.next_deadline(self.base.process.config.stale_after).filter(|_| has_socket);
        let mut channel = self.worker.iter().map(|worker| (&worker.channel, PollSource::Other));
        let ready = self.base.wait(clock::now(), None, due, &mut channel);
        let now = clock::now();
        if let Some(arrived) = self.base.take_signals(&ready) {
            self.on_signals(arrived, now);
        }
        let opened = self.opened;
        let shown = ready.contains(&PollSource::Other) && self.receive_all(now);
        if !self.base.stopping && has_socket {
            self.watch_worker(now);
        }
        let socket = self.base.listener.identity();
        let pulse =
            if has_socket { Pulse::Worker { runs: self.worker.is_some(), shown } } else { Pulse::Own };
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
