//! The job in which a command runs: `stop` and `restart` then wait for it, and nothing waits for
//! itself.

use super::client::{Client, answer_deadline};
use super::invocation::{After, Invocation};
use super::output::{CommandResult, fail, print};
use crate::limits::ANSWER_MAX_BYTES;
use crate::proto::answer::Answer;
use crate::proto::status::number;
use crate::service::down_mark::DownMark;
use crate::service::lifecycle::exit;
use crate::sys::args::Args;
use crate::sys::clock;
use crate::util::text::{Writer, parse_u64};
use crate::util::token;
use ufmt::uwrite;

/// A job that runs this command.
#[derive(Clone, Copy)]
pub(super) struct OwnJob {
    /// The id of the job.
    pub(super) id: u64,
    /// Another worker is free for other jobs, as far as the configuration allows it.
    pub(super) has_others: bool,
}

/// Returns the hash of the token and the job that the environment names.
fn named(args: &Args) -> Option<(u64, u64)> {
    let token = args.env(b"ZIGSVC_TOKEN").filter(|token| !token.is_empty())?;
    Some((token::hash(token), parse_u64(args.env(b"ZIGSVC_JOB_ID")?)?))
}

impl Client<'_> {
    /// Returns the job of this service in which this command runs. A job of another service, or
    /// of an earlier run of this one, has another token.
    pub(super) fn own_job(&mut self, args: &Args) -> Option<OwnJob> {
        let (hash, id) = named(args)?;
        self.send(&[b"status"]).ok()?;
        let line = self.line(answer_deadline()).ok()?;
        let Answer::Ok(status) = Answer::parse(self.at(line)) else { return None };
        let has_others = number(status, "workers").is_none_or(|workers| workers > 1);
        (number(status, "token") == Some(hash)).then_some(OwnJob { id, has_others })
    }
}

/// Asks the service to stop after the job in which this command runs. Returns `None` if the
/// command acts as from outside: it runs in no job of this service, or the job has ended. Fails if
/// the command line `changes` the options of the service, which restarts itself with its own.
pub(super) fn ask_after(invocation: &mut Invocation, after: After, changes: bool) -> Option<CommandResult> {
    named(&invocation.args)?;
    let Invocation { service, command, args, memory, .. } = invocation;
    let scratch = memory.scratch.pages().get_mut(..ANSWER_MAX_BYTES)?;
    let mut client = Client::new(*service, command, &memory.config, scratch).ok()?;
    client.connect(clock::now()).ok()?;
    let id = client.own_job(args)?.id;
    if changes {
        return Some(Err(fail(exit::FAILED, &|out| {
            let _ = uwrite!(out, "restart: job {} runs below the service, which keeps its options; ", id);
            out.push_str("give new ones from outside of a job");
        })));
    }
    let mut digits = [0; 20];
    let mut out = Writer::new(&mut digits);
    out.push_u64(id);
    let request: &[u8] = if after == After::Stop { b"stop " } else { b"restart " };
    client.send(&[request, out.as_bytes()]).ok()?;
    let line = client.line(answer_deadline()).ok()?;
    let Answer::Ok(_) = Answer::parse(client.at(line)) else { return None };
    if after == After::Stop {
        // The service makes the mark itself, unless it has no right to.
        let _ = DownMark::make(client.locks().pid_path);
    }
    let mut line = [0; 80];
    let mut out = Writer::new(&mut line);
    let _ = uwrite!(out, "zigsvc: {} stops after job {}\n", service.name(), id);
    Some(print(out.as_bytes()).map(|()| exit::OK))
}
