//! The requests of the control socket: the one list, and what each does.
//! `docs/control.md` is the manual; `proto/control.rs` has the parsers.
//!
//! Changing this: a new request is one entry of `REQUESTS`, its function here,
//! and its line in `docs/control.md`.

use super::Jobs;
use super::control::{ClientState, PendingReply, ScanRequest};
use crate::proto::control::{Code, Filter, Refusal, Target, filter, id, nothing, target, text, waits};
use crate::service::base;
use crate::service::listener::Access;
use crate::state::disk::DiskError;
use crate::state::spool::Cancelled;
use crate::util::text::Writer;
use crate::util::time::Instant;
use ufmt::uwrite;

/// A request.
pub(super) struct RequestSpec {
    pub(super) name: &'static str,
    /// What follows it.
    args: &'static str,
    help: &'static str,
    /// The lowest rank that may.
    pub(super) min_access: Access,
    /// Bytes that its answer may need at once, where that is much.
    pub(super) reply_bytes: usize,
    action: RequestAction,
}

/// What is expected behind the verb, and what is done with it.
enum RequestAction {
    Plain(fn(&mut Jobs, &mut RequestContext<'_, '_>) -> Reply),
    Text(fn(&mut Jobs, &mut RequestContext<'_, '_>, &[u8]) -> Reply),
    Id(fn(&mut Jobs, &mut RequestContext<'_, '_>, u64) -> Reply),
    Target(fn(&mut Jobs, &mut RequestContext<'_, '_>, Target) -> Reply),
    Filter(fn(&mut Jobs, &mut RequestContext<'_, '_>, Filter) -> Reply),
    /// `wait`, or nothing.
    Wait(fn(&mut Jobs, &mut RequestContext<'_, '_>, bool) -> Reply),
}

/// Who asks, when, and where the answer goes.
pub(super) struct RequestContext<'a, 'b> {
    pub(super) client_slot: usize,
    pub(super) now: Instant,
    pub(super) out: &'a mut Writer<'b>,
}

/// Whether the answer was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reply {
    /// It was.
    Sent,
    /// It follows; what it depends on is noted.
    Deferred,
    /// Not in this turn: ask again.
    Retry,
}

/// Every request, in the order of `help`.
pub(super) const REQUESTS: &[RequestSpec] = &[
    RequestSpec {
        name: "status",
        args: "",
        help: "what the service does and did",
        min_access: Access::Guest,
        reply_bytes: 640,
        action: RequestAction::Plain(status),
    },
    RequestSpec {
        name: "queue",
        args: "TEXT",
        help: "add a job; answered when it is on disk",
        min_access: Access::Guest,
        reply_bytes: 0,
        action: RequestAction::Text(queue),
    },
    RequestSpec {
        name: "list",
        args: "[STATE [AFTER_ID]]",
        help: "up to 100 jobs: waiting, running, dead or all",
        min_access: Access::Guest,
        reply_bytes: 0,
        action: RequestAction::Filter(list),
    },
    RequestSpec {
        name: "wait",
        args: "ID",
        help: "answered when the job has ended",
        min_access: Access::Guest,
        reply_bytes: 0,
        action: RequestAction::Id(wait),
    },
    RequestSpec {
        name: "watch",
        args: "",
        help: "a line for each event, until you go",
        min_access: Access::Guest,
        reply_bytes: 0,
        action: RequestAction::Plain(watch),
    },
    RequestSpec {
        name: "cancel",
        args: "ID",
        help: "end a waiting or running job",
        min_access: Access::Owner,
        reply_bytes: 0,
        action: RequestAction::Id(cancel),
    },
    RequestSpec {
        name: "retry",
        args: "ID|dead",
        help: "have a dead job, or all, wait again",
        min_access: Access::Owner,
        reply_bytes: 0,
        action: RequestAction::Target(retry),
    },
    RequestSpec {
        name: "forget",
        args: "ID|dead",
        help: "remove a dead job, or all, for good",
        min_access: Access::Owner,
        reply_bytes: 0,
        action: RequestAction::Target(forget),
    },
    RequestSpec {
        name: "drain",
        args: "[wait]",
        help: "no new jobs; finish the others, then stop",
        min_access: Access::Owner,
        reply_bytes: 0,
        action: RequestAction::Wait(drain),
    },
    RequestSpec {
        name: "stop",
        args: "",
        help: "stop; running jobs will run again",
        min_access: Access::Owner,
        reply_bytes: 0,
        action: RequestAction::Plain(stop),
    },
    RequestSpec {
        name: "help",
        args: "",
        help: "this list",
        min_access: Access::Guest,
        reply_bytes: 900,
        action: RequestAction::Plain(help),
    },
];

impl RequestSpec {
    /// The request of this name.
    pub(super) fn named(verb: &[u8]) -> Option<&'static Self> {
        REQUESTS.iter().find(|request| request.name.as_bytes() == verb)
    }

    /// Whether it adds a job: only such may share a batch.
    pub(super) fn adds(&self) -> bool {
        matches!(self.action, RequestAction::Text(_))
    }

    /// Parses the argument and does it.
    ///
    /// # Errors
    /// The argument is not what it must be.
    pub(super) fn run(
        &self,
        jobs: &mut Jobs,
        context: &mut RequestContext<'_, '_>,
        argument: &[u8],
    ) -> Result<Reply, Refusal> {
        Ok(match self.action {
            RequestAction::Plain(run) => {
                nothing(argument)?;
                run(jobs, context)
            }
            RequestAction::Text(run) => run(jobs, context, text(argument)?),
            RequestAction::Id(run) => run(jobs, context, id(argument)?),
            RequestAction::Target(run) => run(jobs, context, target(argument)?),
            RequestAction::Filter(run) => run(jobs, context, filter(argument)?),
            RequestAction::Wait(run) => run(jobs, context, waits(argument)?),
        })
    }
}

/// `err CODE text`
pub(super) fn refuse(out: &mut Writer<'_>, code: Code, why: &str) -> Reply {
    let _ = uwrite!(out, "err {} {}\n", code.name(), why);
    Reply::Sent
}

/// The code for an error of the disk.
pub(super) fn error_code(error: DiskError) -> Code {
    if error.is_no_space() { Code::NoSpace } else { Code::Io }
}

/// The text for an error of the disk; short, because each of many jobs gets it.
pub(super) fn error_text(error: DiskError) -> &'static str {
    if error_code(error) == Code::NoSpace { "disk full" } else { "disk error" }
}

fn status(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>) -> Reply {
    context.out.push_str("ok ");
    base::push_status(jobs, context.out, context.now);
    context.out.push_str("\n");
    Reply::Sent
}

fn queue(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, text: &[u8]) -> Reply {
    if jobs.core.is_stopping() {
        return refuse(context.out, Code::Stopping, "the service stops");
    }
    if jobs.control.draining {
        return refuse(context.out, Code::Draining, "the service takes no new jobs");
    }
    if jobs.core.room() == 0 {
        return refuse(context.out, Code::Full, "queue_max jobs are waiting or dead");
    }
    match jobs.core.add_job(&mut jobs.disk, text, context.now) {
        Ok(id) => jobs.control.defer_id(context.client_slot, id),
        Err(error) => refuse(context.out, error_code(error), error_text(error)),
    }
}

fn list(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, filter: Filter) -> Reply {
    jobs.control.set_client_state(context.client_slot, ClientState::ScanPending(ScanRequest::List(filter)))
}

fn wait(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, id: u64) -> Reply {
    if let Some(job_result) = jobs.core.history.result_of(id) {
        context.out.push_str("ok ");
        job_result.describe(id, context.out);
        context.out.push_str("\n");
        return Reply::Sent;
    }
    let known = jobs.core.spool.window().get(id).is_some();
    let state =
        if known { ClientState::AwaitingJob(id) } else { ClientState::ScanPending(ScanRequest::Wait(id)) };
    jobs.control.set_client_state(context.client_slot, state)
}

fn watch(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>) -> Reply {
    context.out.push_str("ok\n");
    jobs.core.history.watched = true;
    jobs.control.set_client_state(context.client_slot, ClientState::Watching)
}

fn cancel(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, id: u64) -> Reply {
    if jobs.core.has_batch() {
        return Reply::Retry;
    }
    let RequestContext { client_slot, now, .. } = *context;
    match jobs.core.cancel(&mut jobs.disk, id, now) {
        Ok(None) => {
            jobs.control.set_client_state(client_slot, ClientState::ScanPending(ScanRequest::Cancel(id)))
        }
        Ok(Some(Cancelled::AlreadyEnded)) => refuse(context.out, Code::NoJob, "it is over already"),
        Ok(Some(found)) => {
            jobs.log_cancelled(client_slot, id);
            let running = found == Cancelled::Running;
            jobs.control.defer_reply(client_slot, PendingReply::Cancelled(id, running))
        }
        Err(error) => refuse(context.out, error_code(error), error_text(error)),
    }
}

fn retry(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, target: Target) -> Reply {
    jobs.request_dead_jobs(context, target, ScanRequest::Retry(target))
}

fn forget(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, target: Target) -> Reply {
    jobs.request_dead_jobs(context, target, ScanRequest::Forget(target))
}

fn drain(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, wait: bool) -> Reply {
    if !jobs.control.draining {
        let (waiting, peer) = (jobs.core.spool.waiting(), jobs.control.peer(context.client_slot));
        jobs.base.log.info(&|out| {
            let _ = uwrite!(out, "uid {} (pid {}) drains the service: ", peer.uid, peer.pid);
            let _ = uwrite!(out, "no new jobs, a stop when {} are finished", waiting);
        });
    }
    jobs.control.draining = true;
    jobs.core.spool.claims.pause();
    if wait {
        return jobs.control.set_client_state(context.client_slot, ClientState::Draining);
    }
    context.out.push_str("ok draining\n");
    Reply::Sent
}

fn stop(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>) -> Reply {
    context.out.push_str("ok stopping\n");
    if !jobs.core.is_stopping() {
        let peer = jobs.control.peer(context.client_slot);
        jobs.base.log.info(&|out| {
            let _ = uwrite!(out, "uid {} (pid {}) asks for a stop", peer.uid, peer.pid);
        });
        jobs.stop("stop request", context.now);
    }
    Reply::Sent
}

fn help(_: &mut Jobs, context: &mut RequestContext<'_, '_>) -> Reply {
    let _ = uwrite!(context.out, "ok {}\n", REQUESTS.len());
    for RequestSpec { name, args, help, min_access, .. } in REQUESTS {
        let (gap, owner) = (if args.is_empty() { "" } else { " " }, *min_access == Access::Owner);
        let _ = uwrite!(context.out, "{}{}{}: {}", *name, gap, *args, *help);
        context.out.push_str(if owner { " (owner only)\n" } else { "\n" });
    }
    Reply::Sent
}
