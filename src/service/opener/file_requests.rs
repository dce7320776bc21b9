//! Answers the requests for files: finds the path on the list, opens the file, and logs.

use super::{Opener, WorkerMessage};
use crate::limits::{DENIALS_LOGGED_MAX, PATH_MAX_BYTES};
use crate::proto::log::Level;
use crate::proto::opener::{PathRequest, RequestId, ToWorker};
use crate::service::trust::{Judge, TrustRefusal, inspect_name};
use crate::state::opener::allow_list::{Resolved, complete, find, load};
use crate::sys::{Errno, describe_errno, fd_passing, file, push_errno_name};
use crate::util::path::Path;
use crate::util::text::{Writer, text_with_number};
use crate::util::time::Instant;
use ufmt::uwrite;

/// Follows a path in the log that was cut.
const TOO_LONG: &str = text_with_number!("… (longer than ", PATH_MAX_BYTES, " bytes)");

impl Opener {
    /// Resolves the list of the configuration in force. An entry that cannot be resolved now
    /// is resolved when a client asks for it.
    pub(super) fn load(&mut self) {
        let config = &*self.base.process.config;
        let (mut judge, mut first) = (Judge::new(config), None);
        let mut report = |_: &Judge<'_>, refusal| {
            first.get_or_insert(refusal);
        };
        let mut look = |path: &Path, target: &mut [u8]| inspect_name(&mut judge, path, target, &mut report);
        load(&config.allow, &mut look, self.resolved);
        match first {
            Some(TrustRefusal::Failed(failure)) => self.base.log.warn(&|out| {
                out.push_str("allow: where its entries lead cannot all be seen yet: ");
                describe_errno(failure.errno, out);
            }),
            // A name became a link after the configuration was judged. It is not followed.
            Some(TrustRefusal::Untrusted(..)) => self.base.log.warn(&|out| {
                out.push_str("allow: an entry became a link that another user can change");
            }),
            None => {}
        }
    }

    /// Returns the target of the requested path; `None` if the path is not on the list.
    fn find(&mut self, request: PathRequest<'_>) -> Option<Result<Path, Errno>> {
        let config = &*self.base.process.config;
        let allow = &config.allow;
        let find = |resolved: &Resolved| find(allow, resolved, request.path).and_then(Path::new);
        let mut path = if request.too_long { None } else { find(self.resolved) }?;
        let mut errno = None;
        if path.is_empty() {
            let mut judge = Judge::new(config);
            let mut report = |_: &Judge<'_>, refusal| match refusal {
                TrustRefusal::Failed(failure) => errno = Some(failure.errno),
                TrustRefusal::Untrusted(..) => {}
            };
            let mut look =
                |path: &Path, target: &mut [u8]| inspect_name(&mut judge, path, target, &mut report);
            complete(allow, &mut look, self.resolved);
            path = find(self.resolved)?;
        }
        Some(if path.is_empty() { Err(errno.unwrap_or(Errno::IO)) } else { Ok(path) })
    }

    /// Opens the requested file if it is on the list, and answers the worker. The descriptor
    /// of this process is closed here in any case.
    pub(super) fn answer(
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
}
