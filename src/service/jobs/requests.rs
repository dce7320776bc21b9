//! The requests of the control socket: the one list, and what each does.
//! `docs/control.md` is the manual; `proto/control.rs` has the parsers.
//!
//! Changing this: a new request is one entry of `REQUESTS`, its function here,
//! and its line in `docs/control.md`.

use super::control::{Doing, Owed, Wanted};
use super::{Jobs, Stopping, rules};
use crate::proto::control::{Code, Filter, Refusal, Target, filter, id, nothing, target, text, waits};
use crate::proto::text::Writer;
use crate::service::listener::Rank;
use crate::state::disk::DiskError;
use crate::state::spool::Cancelled;
use crate::sys::Errno;
use crate::util::time::Instant;
use ufmt::uwrite;

/// A request.
pub(super) struct Request {
    pub(super) name: &'static str,
    /// What follows it.
    args: &'static str,
    help: &'static str,
    /// The lowest rank that may.
    pub(super) who: Rank,
    /// Bytes that its answer may need at once, where that is much.
    pub(super) room: usize,
    action: Action,
}

/// What is expected behind the verb, and what is done with it.
enum Action {
    Plain(fn(&mut Jobs, &mut Asking<'_, '_>) -> Answered),
    Text(fn(&mut Jobs, &mut Asking<'_, '_>, &[u8]) -> Answered),
    Id(fn(&mut Jobs, &mut Asking<'_, '_>, u64) -> Answered),
    Target(fn(&mut Jobs, &mut Asking<'_, '_>, Target) -> Answered),
    Filter(fn(&mut Jobs, &mut Asking<'_, '_>, Filter) -> Answered),
    /// `wait`, or nothing.
    Wait(fn(&mut Jobs, &mut Asking<'_, '_>, bool) -> Answered),
}

/// Who asks, when, and where the answer goes.
pub(super) struct Asking<'a, 'b> {
    pub(super) place: usize,
    pub(super) now: Instant,
    pub(super) out: &'a mut Writer<'b>,
}

/// Whether the answer was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answered {
    /// It was.
    Now,
    /// It follows; what it depends on is noted.
    Later,
    /// Not in this turn: ask again.
    PutOff,
}

/// Every request, in the order of `help`.
pub(super) const REQUESTS: &[Request] = &[
    Request {
        name: "status",
        args: "",
        help: "what the service does and did",
        who: Rank::Guest,
        room: 640,
        action: Action::Plain(status),
    },
    Request {
        name: "queue",
        args: "TEXT",
        help: "add a job; answered when it is on disk",
        who: Rank::Guest,
        room: 0,
        action: Action::Text(queue),
    },
    Request {
        name: "list",
        args: "[STATE [AFTER_ID]]",
        help: "up to 100 jobs: waiting, running, dead or all",
        who: Rank::Guest,
        room: 0,
        action: Action::Filter(list),
    },
    Request {
        name: "wait",
        args: "ID",
        help: "answered when the job has ended",
        who: Rank::Guest,
        room: 0,
        action: Action::Id(wait),
    },
    Request {
        name: "watch",
        args: "",
        help: "a line for each event, until you go",
        who: Rank::Guest,
        room: 0,
        action: Action::Plain(watch),
    },
    Request {
        name: "cancel",
        args: "ID",
        help: "end a waiting or running job",
        who: Rank::Owner,
        room: 0,
        action: Action::Id(cancel),
    },
    Request {
        name: "retry",
        args: "ID|dead",
        help: "have a dead job, or all, wait again",
        who: Rank::Owner,
        room: 0,
        action: Action::Target(retry),
    },
    Request {
        name: "forget",
        args: "ID|dead",
        help: "remove a dead job, or all, for good",
        who: Rank::Owner,
        room: 0,
        action: Action::Target(forget),
    },
    Request {
        name: "drain",
        args: "[wait]",
        help: "no new jobs; finish the others, then stop",
        who: Rank::Owner,
        room: 0,
        action: Action::Wait(drain),
    },
    Request {
        name: "stop",
        args: "",
        help: "stop; running jobs will run again",
        who: Rank::Owner,
        room: 0,
        action: Action::Plain(stop),
    },
    Request {
        name: "help",
        args: "",
        help: "this list",
        who: Rank::Guest,
        room: 900,
        action: Action::Plain(help),
    },
];

impl Request {
    /// The request of this name.
    pub(super) fn named(verb: &[u8]) -> Option<&'static Self> {
        REQUESTS.iter().find(|request| request.name.as_bytes() == verb)
    }

    /// Whether it adds a job: only such may share a group.
    pub(super) fn adds(&self) -> bool {
        matches!(self.action, Action::Text(_))
    }

    /// Parses the argument and does it.
    ///
    /// # Errors
    /// The argument is not what it must be.
    pub(super) fn run(
        &self,
        jobs: &mut Jobs,
        asking: &mut Asking<'_, '_>,
        argument: &[u8],
    ) -> Result<Answered, Refusal> {
        Ok(match self.action {
            Action::Plain(run) => {
                nothing(argument)?;
                run(jobs, asking)
            }
            Action::Text(run) => run(jobs, asking, text(argument)?),
            Action::Id(run) => run(jobs, asking, id(argument)?),
            Action::Target(run) => run(jobs, asking, target(argument)?),
            Action::Filter(run) => run(jobs, asking, filter(argument)?),
            Action::Wait(run) => run(jobs, asking, waits(argument)?),
        })
    }
}

/// `err CODE text`
pub(super) fn refuse(out: &mut Writer<'_>, code: Code, why: &str) -> Answered {
    let _ = uwrite!(out, "err {} {}\n", code.name(), why);
    Answered::Now
}

/// The code for an error of the disk.
pub(super) fn code_of(error: DiskError) -> Code {
    match Errno::from_raw_os_error(error.0) {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Code::NoSpace,
        _ => Code::Io,
    }
}

/// The text for an error of the disk; short, because each of many jobs gets it.
pub(super) fn why_not(error: DiskError) -> &'static str {
    if code_of(error) == Code::NoSpace { "disk full" } else { "disk error" }
}

fn status(jobs: &mut Jobs, asking: &mut Asking<'_, '_>) -> Answered {
    asking.out.push_str("ok ");
    jobs.push_status(asking.out, asking.now);
    asking.out.push_str("\n");
    Answered::Now
}

fn queue(jobs: &mut Jobs, asking: &mut Asking<'_, '_>, text: &[u8]) -> Answered {
    if jobs.stopping != Stopping::No {
        return refuse(asking.out, Code::Stopping, "the service stops");
    }
    if jobs.control.draining {
        return refuse(asking.out, Code::Draining, "the service takes no new jobs");
    }
    if jobs.spool.room(&rules(jobs.process.config)) == 0 {
        return refuse(asking.out, Code::Full, "queue_max jobs are waiting or dead");
    }
    match jobs.add_job(asking.place, text, asking.now) {
        Ok(()) => Answered::Later,
        Err(error) => refuse(asking.out, code_of(error), why_not(error)),
    }
}

fn list(jobs: &mut Jobs, asking: &mut Asking<'_, '_>, filter: Filter) -> Answered {
    jobs.control.set_doing(asking.place, Doing::Asked(Wanted::List(filter)))
}

fn wait(jobs: &mut Jobs, asking: &mut Asking<'_, '_>, id: u64) -> Answered {
    if let Some(fate) = jobs.control.history.end_of(id) {
        asking.out.push_str("ok ");
        fate.describe(id, asking.out);
        asking.out.push_str("\n");
        return Answered::Now;
    }
    let known = jobs.spool.window().get(id).is_some();
    let doing = if known { Doing::Waiting(id) } else { Doing::Asked(Wanted::Wait(id)) };
    jobs.control.set_doing(asking.place, doing)
}

fn watch(jobs: &mut Jobs, asking: &mut Asking<'_, '_>) -> Answered {
    asking.out.push_str("ok\n");
    jobs.control.set_doing(asking.place, Doing::Watching)
}

fn cancel(jobs: &mut Jobs, asking: &mut Asking<'_, '_>, id: u64) -> Answered {
    if jobs.control.has_group() {
        return Answered::PutOff;
    }
    let Asking { place, now, .. } = *asking;
    let cancelled = jobs.settle(now).and_then(|()| jobs.spool.cancel(&mut jobs.disk, now, id));
    match cancelled {
        Ok(None) => jobs.control.set_doing(place, Doing::Asked(Wanted::Cancel(id))),
        Ok(Some(Cancelled::Over)) => refuse(asking.out, Code::NoJob, "it is over already"),
        Ok(Some(found)) => {
            let running = jobs.on_cancelled(place, id, found, now);
            jobs.control.owe(place, Owed::Cancelled(id, running))
        }
        Err(error) => refuse(asking.out, code_of(error), why_not(error)),
    }
}

fn retry(jobs: &mut Jobs, asking: &mut Asking<'_, '_>, target: Target) -> Answered {
    jobs.steer_dead(asking, target, Wanted::Retry(target))
}

fn forget(jobs: &mut Jobs, asking: &mut Asking<'_, '_>, target: Target) -> Answered {
    jobs.steer_dead(asking, target, Wanted::Forget(target))
}

fn drain(jobs: &mut Jobs, asking: &mut Asking<'_, '_>, wait: bool) -> Answered {
    if !jobs.control.draining {
        let (waiting, peer) = (jobs.spool.waiting(), jobs.control.peer(asking.place));
        jobs.log.info(&|out| {
            let _ = uwrite!(out, "uid {} (pid {}) drains the service: ", peer.uid, peer.pid);
            let _ = uwrite!(out, "no new jobs, a stop when {} are finished", waiting);
        });
    }
    jobs.control.draining = true;
    jobs.spool.claims.pause();
    if wait {
        return jobs.control.set_doing(asking.place, Doing::Draining);
    }
    asking.out.push_str("ok draining\n");
    Answered::Now
}

fn stop(jobs: &mut Jobs, asking: &mut Asking<'_, '_>) -> Answered {
    asking.out.push_str("ok stopping\n");
    if jobs.stopping == Stopping::No {
        let peer = jobs.control.peer(asking.place);
        jobs.log.info(&|out| {
            let _ = uwrite!(out, "uid {} (pid {}) asks for a stop", peer.uid, peer.pid);
        });
        jobs.stop("stop request", asking.now);
    }
    Answered::Now
}

fn help(_: &mut Jobs, asking: &mut Asking<'_, '_>) -> Answered {
    let _ = uwrite!(asking.out, "ok {}\n", REQUESTS.len());
    for Request { name, args, help, who, .. } in REQUESTS {
        let (gap, owner) = (if args.is_empty() { "" } else { " " }, *who == Rank::Owner);
        let _ = uwrite!(asking.out, "{}{}{}: {}", *name, gap, *args, *help);
        asking.out.push_str(if owner { " (owner only)\n" } else { "\n" });
    }
    Answered::Now
}
