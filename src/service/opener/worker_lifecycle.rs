//! Performs what the monitor decides about the worker: starts it, kills it, ends it.

use super::{Opener, WorkerHandle, WorkerMessage, worker_process};
use crate::proto::opener::ToWorker;
use crate::service::lifecycle::exit;
use crate::state::opener::worker_monitor::WorkerAction;
use crate::sys::process::{self, Side, Signal};
use crate::sys::{Errno, Failure, Op, clock, describe_errno, fd_passing, fds, memory, poll};
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};
use ufmt::uwrite;

impl Opener {
    /// Forks a worker.
    #[inline(never)]
    pub(super) fn start_worker(&mut self, now: Instant) -> Result<(), Failure> {
        let no_socket = self.base.listener.failure().unwrap_or(Failure { op: Op::Fcntl, errno: Errno::BADF });
        let listener = fds::duplicate(self.base.listener.acceptor.fd().ok_or(no_socket)?)?;
        let (channel, theirs) = fd_passing::pair()?;
        let parent = process::pid();
        // The worker does not need this memory, so it does not inherit it.
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
                self.worker = Some(WorkerHandle { pid, channel });
                self.monitor.on_started(now);
            }
        }
        Ok(())
    }

    /// Starts the first worker. The service is not ready before this worker has dropped its
    /// privileges and shown that it lives. If the disk has no room for the socket, the first worker
    /// is started as soon as there is one.
    pub(super) fn first_worker(&mut self) {
        if self.base.listener.acceptor.fd().is_none() {
            self.monitor.on_exit(clock::now());
            return;
        }
        if let Err(failure) = self.start_worker(clock::now()) {
            self.fail_start(exit::FAILED, &|out| failure.describe(out));
        }
        let patience = self.base.process.config.stale_after;
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
                WorkerMessage::Nothing if self.monitor.poll(now, patience).is_some() => "does not answer",
                WorkerMessage::Nothing => {
                    if let (Some(worker), Some(due)) = (&self.worker, self.monitor.next_deadline(patience)) {
                        let _ = poll::readable_within(&worker.channel, now.until(due));
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

    /// Ends the process because the start has failed.
    fn fail_start(&mut self, code: u8, text: &dyn Fn(&mut Writer<'_>)) -> ! {
        let _ = self.base.listener.unlink();
        self.stop_worker();
        self.base.process.fail(code, text)
    }

    /// Starts a worker if one is due, and kills a silent one.
    pub(super) fn watch_worker(&mut self, now: Instant) {
        match self.monitor.poll(now, self.base.process.config.stale_after) {
            Some(WorkerAction::Kill) => self.kill_worker(now, "has been silent for stale_after"),
            Some(WorkerAction::Start) => {
                if let Err(failure) = self.start_worker(now) {
                    self.monitor.on_exit(now);
                    self.base.log.error(&|out| {
                        out.push_str("no worker could be started: ");
                        failure.describe(out);
                    });
                }
            }
            None => {}
        }
    }

    /// Kills the worker. It is reaped when it has ended.
    pub(super) fn kill_worker(&mut self, now: Instant, why: &str) {
        if let Some(worker) = &self.worker {
            let _ = process::kill(worker.pid, Signal::KILL);
        }
        self.on_worker_exit(now, why);
    }

    /// Records that the worker has ended or was killed.
    #[inline(never)]
    pub(super) fn on_worker_exit(&mut self, now: Instant, why: &str) {
        let Some(worker) = self.worker.take() else { return };
        let wait = self.monitor.on_exit(now);
        self.base.log.error(&|out| {
            let _ = uwrite!(out, "the worker (pid {}) {}; ", worker.pid.as_raw_pid(), why);
            let _ = uwrite!(out, "the next one is started in {} ms", wait.as_ms());
        });
    }

    /// Sends the worker the socket, which may be a new one, and the interval in which it
    /// shows that it lives.
    pub(super) fn send_listener(&mut self, now: Instant) {
        let Some(worker) = &self.worker else { return };
        let interval = u32::try_from(self.base.beat_every().as_ms()).unwrap_or(u32::MAX);
        let message = ToWorker::Listener(interval).emit();
        if fd_passing::send(&worker.channel, &message, self.base.listener.acceptor.fd()).is_err() {
            self.kill_worker(now, "does not take its socket");
        }
    }

    /// Ends the worker by closing its channel, and reaps it.
    pub(super) fn stop_worker(&mut self) {
        let Some(WorkerHandle { pid, channel }) = self.worker.take() else { return };
        drop(channel);
        self.monitor.on_stop(clock::now());
        while process::ended(pid).is_none() {
            let now = clock::now();
            let due = self.monitor.next_deadline(Duration::ZERO);
            if self.monitor.poll(now, Duration::ZERO).is_some() {
                let _ = process::kill(pid, Signal::KILL);
                break;
            }
            // The signal of its end wakes this process.
            let left = due.map_or(Duration::ZERO, |at| now.until(at));
            let _ = poll::readable_within(self.base.process.signals.fd(), left);
            let _ = self.base.process.signals.take();
        }
        process::reap(pid);
    }
}
