//! The service `jobs` in the commands that all services have: what it prints, refuses and does
//! differently.

use super::invocation::Invocation;
use super::kept_options::OptionWords;
use super::output::{CommandResult, LOGS_ONLY, fail, print};
use crate::limits::{ANSWER_MAX_BYTES, OPTION_WORDS_MAX};
use crate::proto::config::Handler;
use crate::proto::status::number;
use crate::service::config_source::ConfigSource;
use crate::service::jobs;
use crate::service::lifecycle::{StartReporter, describe_at, exit};
use crate::service::program;
use crate::sys::args::Args;
use crate::sys::spawn::replace_by;
use crate::sys::{Errno, Failure, Op, clock};
use crate::util::text::Writer;
use crate::util::time::Duration;
use core::ffi::c_char;
use heapless::Vec;

/// Bytes of the options with which a service executes itself again.
const AGAIN_BYTES: usize = 8 * 1024;

/// Time for which `restart` and `reload` wait while the service looks through its backlog.
const OTHERS_WAIT: Duration = Duration::from_ms(5000);

/// Becomes the service.
pub(super) fn serve(invocation: Invocation, reporter: StartReporter) -> CommandResult {
    let is_foreground = reporter.is_foreground();
    Ok(match jobs::serve(invocation.memory, reporter) {
        (code, None) => code,
        (_, Some(source)) => execute_again(&invocation.args, source, is_foreground),
    })
}

/// Prints the handler with which the service `jobs` was started.
pub(super) fn print_handler(invocation: &Invocation) {
    let mut line = [0; 400];
    let mut out = Writer::new(&mut line);
    out.push_str("zigsvc: handler ");
    match invocation.memory.config.handler() {
        Handler::Log => out.push_str(LOGS_ONLY),
        _ => jobs::push_handler(&invocation.memory.config, &mut out),
    }
    out.push_str("\n");
    let _ = print(out.as_bytes());
}

/// Asks the running service, if the new handler is the log, for jobs that were queued for another
/// handler.
///
/// # Errors
/// Some wait; the exit code, after printing the reason.
pub(super) fn refuse_others(invocation: &mut Invocation, reload: bool) -> Result<(), u8> {
    // The options of the running service count for a reload, which only the service knows.
    let logs = reload || invocation.memory.config.logs_own_jobs();
    if !logs {
        return Ok(());
    }
    let (mut client, _) = invocation.loaded_client(ANSWER_MAX_BYTES)?;
    let deadline = clock::now() + OTHERS_WAIT;
    let answer = client
        .connect(clock::now())
        .and_then(|()| client.send(&[b"others"]))
        .and_then(|()| client.line(Some(deadline)));
    // A service that does not answer judges for itself.
    let Ok(line) = answer else { return Ok(()) };
    let answer = client.at(line);
    let asked = !reload || number(answer, "reload") == Some(1);
    match number(answer, "count").and_then(|count| u32::try_from(count).ok()) {
        Some(count @ 1..) if asked => Err(fail(exit::CONFIG, &|out| jobs::describe_others(count, out))),
        _ => Ok(()),
    }
}

/// Executes the service `jobs` again in this process, which keeps its PID. Returns the exit code if
/// that fails.
#[inline(never)]
fn execute_again(args: &Args, source: &ConfigSource, foreground: bool) -> u8 {
    let mut memory = [0; AGAIN_BYTES];
    let mut words = OptionWords::new(&mut memory);
    source.each_option_word(&mut |word| words.push(word));
    let mut argv: Vec<*const c_char, { OPTION_WORDS_MAX + 6 }> = Vec::new();
    let file = program::find(args, args.executable(), &source.base);
    let _ = argv.push(file.as_c_str().as_ptr());
    let fits = !words.is_cut() && words.push_to(&mut argv);
    let command = [c"start", c"--again", source.base.as_c_str()];
    let command = if foreground { &[c"run"][..] } else { &command };
    argv.extend(command.iter().map(|word| word.as_ptr()));
    let _ = argv.push(c"jobs".as_ptr());
    let _ = argv.push(core::ptr::null());
    let mut environment = Vec::new();
    let errno = if fits {
        replace_by(file.as_c_str(), &argv, args.whole_environment(&mut environment))
    } else {
        Errno::TOOBIG
    };
    fail(exit::FAILED, &|out| describe_at(&file, Failure { op: Op::Execve, errno }, out))
}
