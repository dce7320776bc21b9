//! The requests of the control socket: the one list, and the function of each.
//! `docs/control.md` is the manual, and `proto/control.rs` has the parsers.
//!
//! Changing this: a new request is one entry of `REQUESTS`, its function here,
//! and its line in `docs/control.md`.

use super::Jobs;
use crate::proto::control::{
    Code, Filter, Refusal, Target, delayed, filter, id, nothing, push_help, push_refusal, push_unknown,
    split, target, text, waits,
};
use crate::service::base;
use crate::service::connections::OWNER_ONLY;
use crate::service::disk::SpoolDisk;
use crate::service::down_mark::DownMark;
use crate::state::access::Access;
use crate::state::disk::DiskResult;
use crate::state::jobs::asking::Asking;
use crate::state::jobs::replies::{ClientState, Reply, ScanRequest, refuse};
use crate::state::jobs::scan_task::ScanOutcome;
use crate::sys::clock;
use crate::util::text::Writer;
use crate::util::time::{Duration, Instant};
use ufmt::uwrite;

/// A request.
pub(super) struct RequestSpec {
    pub(super) name: &'static str,
    /// The argument, for the help.
    args: &'static str,
    help: &'static str,
    /// The lowest rights that a client needs.
    pub(super) min_access: Access,
    /// Bytes that the answer may need, if it is long.
    pub(super) reply_bytes: usize,
    action: RequestAction,
}

/// The type of the argument, and the function that carries out the request.
enum RequestAction {
    Plain(fn(&mut Jobs, &mut RequestContext<'_, '_>) -> Reply),
    Text(fn(&mut Jobs, &mut RequestContext<'_, '_>, &[u8]) -> Reply),
    /// The text of a job, whose output follows the answer.
    FollowedText(fn(&mut Jobs, &mut RequestContext<'_, '_>, &[u8]) -> Reply),
    /// A duration and the text of a job.
    After(fn(&mut Jobs, &mut RequestContext<'_, '_>, Duration, &[u8]) -> Reply),
    /// A duration and the text of a job, whose output follows the answer.
    FollowedAfter(fn(&mut Jobs, &mut RequestContext<'_, '_>, Duration, &[u8]) -> Reply),
    Id(fn(&mut Jobs, &mut RequestContext<'_, '_>, u64) -> Reply),
    Target(fn(&mut Jobs, &mut RequestContext<'_, '_>, Target) -> Reply),
    Filter(fn(&mut Jobs, &mut RequestContext<'_, '_>, Filter) -> Reply),
    /// The id of a job, or nothing.
    OptionalId(fn(&mut Jobs, &mut RequestContext<'_, '_>, Option<u64>) -> Reply),
    /// `wait`, or nothing.
    Wait(fn(&mut Jobs, &mut RequestContext<'_, '_>, bool) -> Reply),
}

/// The client that asks, the time, and the place for the answer.
pub(super) struct RequestContext<'a, 'b> {
    pub(super) slot: usize,
    pub(super) now: Instant,
    pub(super) out: &'a mut Writer<'b>,
}

/// Every request, in the order of `help`.
pub(super) const REQUESTS: &[RequestSpec] = &[
    RequestSpec {
        reply_bytes: 980,
        ..guest("status", "", "what the service does and did", RequestAction::Plain(status))
    },
    guest("queue", "TEXT", "add a job; answered when it is on disk", RequestAction::Text(queue)),
    guest("after", "DURATION TEXT", "add a job that is not started before that", RequestAction::After(after)),
    guest(
        "list",
        "[STATE [AFTER_ID]]",
        "up to 100 jobs: waiting, scheduled, running, dead or all; done: last 64 ends",
        RequestAction::Filter(list),
    ),
    guest(
        "queue!",
        "TEXT",
        "add a job; then its output and its end",
        RequestAction::FollowedText(queue_followed),
    ),
    guest(
        "after!",
        "DURATION TEXT",
        "as after; then its output and its end",
        RequestAction::FollowedAfter(after_followed),
    ),
    guest("follow", "ID", "the output of a job as it comes, then its end", RequestAction::Id(follow)),
    guest("wait", "ID", "answered when the job has ended", RequestAction::Id(wait)),
    guest("others", "", "the jobs that the handler log would not take", RequestAction::Plain(others)),
    guest("watch", "", "a line for each event, until you go", RequestAction::Plain(watch)),
    owner("cancel", "ID", "end a waiting or running job", RequestAction::Id(cancel)),
    owner("retry", "ID|dead", "have a dead job, or all, wait again", RequestAction::Target(retry)),
    owner("forget", "ID|dead", "remove a dead job, or all, for good", RequestAction::Target(forget)),
    owner("hold", "", "start no job until resume", RequestAction::Plain(hold)),
    owner("resume", "", "start jobs again", RequestAction::Plain(resume)),
    owner("drain", "[wait]", "no new jobs; finish the others, then stop", RequestAction::Wait(drain)),
    owner(
        "stop",
        "[JOB]",
        "stop, or after JOB; running jobs will run again",
        RequestAction::OptionalId(stop),
    ),
    owner("restart", "JOB", "stop after JOB, and start again", RequestAction::Id(restart)),
    RequestSpec { reply_bytes: 1180, ..guest("help", "", "this list", RequestAction::Plain(help)) },
];

/// Returns a request for every client that may connect.
const fn guest(
    name: &'static str,
    args: &'static str,
    help: &'static str,
    action: RequestAction,
) -> RequestSpec {
    RequestSpec { name, args, help, min_access: Access::Guest, reply_bytes: 0, action }
}

/// Returns a request for root and the service's own user.
const fn owner(
    name: &'static str,
    args: &'static str,
    help: &'static str,
    action: RequestAction,
) -> RequestSpec {
    RequestSpec { min_access: Access::Owner, ..guest(name, args, help, action) }
}

impl RequestSpec {
    /// Returns the request of this name.
    pub(super) fn named(verb: &[u8]) -> Option<&'static Self> {
        REQUESTS.iter().find(|request| request.name.as_bytes() == verb)
    }

    /// Returns true if the request adds a job. Only such requests share a batch.
    pub(super) fn adds(&self) -> bool {
        matches!(self.action, RequestAction::Text(_) | RequestAction::After(_))
    }

    /// Parses the argument and carries out the request.
    ///
    /// # Errors
    /// The argument is refused.
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
            RequestAction::Text(run) | RequestAction::FollowedText(run) => {
                run(jobs, context, text(argument)?)
            }
            RequestAction::After(run) | RequestAction::FollowedAfter(run) => {
                let (delay, text) = delayed(argument)?;
                run(jobs, context, delay, text)
            }
            RequestAction::Id(run) => run(jobs, context, id(argument)?),
            RequestAction::OptionalId(run) => {
                let id = if argument.is_empty() { None } else { Some(id(argument)?) };
                run(jobs, context, id)
            }
            RequestAction::Target(run) => run(jobs, context, target(argument)?),
            RequestAction::Filter(run) => run(jobs, context, filter(argument)?),
            RequestAction::Wait(run) => run(jobs, context, waits(argument)?),
        })
    }
}

impl Jobs {
    /// Handles one request.
    pub(super) fn handle(&mut self, slot: usize, line: &[u8], now: Instant, out: &mut Writer<'_>) -> Reply {
        let (verb, argument) = split(line);
        let Some(request) = RequestSpec::named(verb) else {
            push_unknown(verb, out);
            return Reply::Sent;
        };
        let has_pending = self.control.replies.is_pending(slot);
        let alone = out.is_empty() && !has_pending;
        if (has_pending && !request.adds()) || (out.room() < request.reply_bytes && !alone) {
            return Reply::Retry;
        }
        let access = self.control.connections.clients.get(slot).map(|client| client.access);
        if request.min_access == Access::Owner && access != Some(Access::Owner) {
            self.record_denied(slot, verb, now);
            push_refusal(OWNER_ONLY, out);
            return Reply::Sent;
        }
        let mut context = RequestContext { slot, now, out };
        match request.run(self, &mut context, argument) {
            Ok(reply) => reply,
            Err((code, text)) => refuse(out, code, text),
        }
    }
}

fn status(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>) -> Reply {
    context.out.push_str("ok ");
    base::push_status(jobs, context.out, context.now);
    context.out.push_str("\n");
    Reply::Sent
}

impl Jobs {
    /// Carries out a request about jobs.
    fn ask(
        &mut self,
        context: &mut RequestContext<'_, '_>,
        run: &mut dyn FnMut(&mut Asking<'_, '_, SpoolDisk>) -> DiskResult<Reply>,
    ) -> Reply {
        let Self { core, control, disk, .. } = self;
        let RequestContext { slot, now, out } = context;
        let (replies, draining) = (&mut control.replies, control.draining);
        let result = run(&mut Asking { core, replies, disk, draining, slot: *slot, now: *now, out });
        result.unwrap_or_else(|error| self.refuse_for(error, context.out))
    }
}

fn queue(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, text: &[u8]) -> Reply {
    jobs.ask(context, &mut |asking| asking.add(text, None, false))
}

fn queue_followed(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, text: &[u8]) -> Reply {
    jobs.ask(context, &mut |asking| asking.add(text, None, true))
}

fn after(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, delay: Duration, text: &[u8]) -> Reply {
    jobs.core.spool.set_wall_clock(clock::wall());
    jobs.ask(context, &mut |asking| asking.add(text, Some(delay), false))
}

fn after_followed(
    jobs: &mut Jobs,
    context: &mut RequestContext<'_, '_>,
    delay: Duration,
    text: &[u8],
) -> Reply {
    jobs.core.spool.set_wall_clock(clock::wall());
    jobs.ask(context, &mut |asking| asking.add(text, Some(delay), true))
}

fn hold(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>) -> Reply {
    set_held(jobs, context, true)
}

fn resume(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>) -> Reply {
    set_held(jobs, context, false)
}

fn set_held(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, held: bool) -> Reply {
    let before = jobs.core.spool.is_held();
    let reply = jobs.ask(context, &mut |asking| asking.set_held(held));
    if jobs.core.spool.is_held() != before {
        let peer = jobs.control.connections.peer(context.slot);
        jobs.base.log.info(&|out| {
            let done = if held { "holds the queue: no job is started" } else { "resumes the queue" };
            let _ = uwrite!(out, "uid {} (pid {}) {}", peer.uid, peer.pid, done);
        });
    }
    reply
}

/// Has the client wait for a scan.
fn scan(jobs: &mut Jobs, context: &RequestContext<'_, '_>, request: ScanRequest) -> Reply {
    jobs.control.replies.set_state(context.slot, ClientState::ScanPending(request))
}

fn list(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, filter: Filter) -> Reply {
    scan(jobs, context, ScanRequest::List(filter))
}

fn wait(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, id: u64) -> Reply {
    jobs.ask(context, &mut |asking| Ok(asking.wait(id)))
}

fn follow(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, id: u64) -> Reply {
    match wait(jobs, context, id) {
        Reply::Deferred if jobs.core.spool.window().get(id).is_some() => {
            jobs.control.replies.set_state(context.slot, ClientState::Following(id))
        }
        Reply::Deferred => scan(jobs, context, ScanRequest::Follow(id)),
        reply => reply,
    }
}

fn others(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>) -> Reply {
    let reload = jobs.base.reload_logs_own_jobs();
    if jobs.core.spool.waiting() == 0 {
        // No client that takes a page delays this answer, on which a restart waits.
        ScanOutcome::Others(0, reload).push(context.out);
        return Reply::Sent;
    }
    scan(jobs, context, ScanRequest::Others(reload))
}

fn watch(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>) -> Reply {
    jobs.ask(context, &mut |asking| Ok(asking.watch()))
}

fn cancel(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, id: u64) -> Reply {
    let mut change = None;
    let reply = jobs.ask(context, &mut |asking| {
        let (reply, outcome) = asking.cancel(id)?;
        change = outcome;
        Ok(reply)
    });
    change.into_iter().for_each(|outcome| jobs.log_change(context.slot, outcome));
    reply
}

fn retry(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, target: Target) -> Reply {
    jobs.ask(context, &mut |asking| Ok(asking.edit_dead(target, ScanRequest::Retry(target))))
}

fn forget(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, target: Target) -> Reply {
    jobs.ask(context, &mut |asking| Ok(asking.edit_dead(target, ScanRequest::Forget(target))))
}

fn drain(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, wait: bool) -> Reply {
    let mut refused = None;
    jobs.ask(context, &mut |asking| {
        refused = asking.refuse_drain();
        Ok(Reply::Sent)
    });
    if let Some(refused) = refused {
        return refused;
    }
    if !jobs.control.draining {
        let spool = &jobs.core.spool;
        let due = spool.waiting().saturating_sub(spool.scheduled());
        let (waiting, peer) = (due, jobs.control.connections.peer(context.slot));
        jobs.base.log.info(&|out| {
            let _ = uwrite!(out, "uid {} (pid {}) drains the service: ", peer.uid, peer.pid);
            let _ = uwrite!(out, "no new jobs, a stop when {} are finished", waiting);
        });
    }
    jobs.control.draining = true;
    jobs.mark_down();
    jobs.core.begin_drain();
    if wait {
        return jobs.control.replies.set_state(context.slot, ClientState::Draining);
    }
    context.out.push_str("ok draining\n");
    Reply::Sent
}

fn stop(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, after: Option<u64>) -> Reply {
    if let Some(id) = after {
        return stop_after(jobs, context, id, false);
    }
    context.out.push_str("ok stopping\n");
    if !jobs.core.is_stopping() {
        let peer = jobs.control.connections.peer(context.slot);
        jobs.base.log.info(&|out| {
            let _ = uwrite!(out, "uid {} (pid {}) asks for a stop", peer.uid, peer.pid);
        });
        jobs.control.restarts = false;
        jobs.stop("stop request", context.now);
    }
    jobs.mark_down();
    Reply::Sent
}

fn restart(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, id: u64) -> Reply {
    stop_after(jobs, context, id, true)
}

/// Has the service stop after the job that asks for it.
fn stop_after(jobs: &mut Jobs, context: &mut RequestContext<'_, '_>, id: u64, restarts: bool) -> Reply {
    if !jobs.core.stop_after(id, context.now) {
        return refuse(context.out, Code::NoJob, "it does not run");
    }
    jobs.control.restarts = restarts;
    if !restarts {
        jobs.mark_down();
    }
    jobs.base.log.info(&|out| {
        let _ = uwrite!(out, "job {} asks for a {} after it", id, if restarts { "restart" } else { "stop" });
    });
    let _ = uwrite!(context.out, "ok stopping after={}\n", id);
    Reply::Sent
}

impl Jobs {
    /// Makes the mark of a stop on purpose. A service without the right to do so leaves it to the
    /// command that asked.
    fn mark_down(&self) {
        let _ = DownMark::make(&self.base.process.pid_path);
    }
}

fn help(_: &mut Jobs, context: &mut RequestContext<'_, '_>) -> Reply {
    let _ = uwrite!(context.out, "ok {}\n", REQUESTS.len());
    for RequestSpec { name, args, help, min_access, .. } in REQUESTS {
        push_help(name, args, help, *min_access == Access::Owner, context.out);
    }
    Reply::Sent
}
