//! The command line: the one list of commands, and dispatch.
//!
//! `commands!` below is the list: name, arguments, help, options, function of each
//! command. Help, parsing, dispatch, the manual page and the shell's completion are
//! derived from it.
//!
//! - `command_line.rs`: options, the command's name, its operands
//! - `invocation.rs`: a command with its service and its configuration
//! - `own_job.rs`: the job in which a command runs
//! - `output.rs`: stdout, error lines, exit codes
//! - `paths.rs`: the places of this user's files
//! - `client.rs`: a connection to a service's socket
//! - `lifecycle.rs`: start, run, stop, reload, rotate
//! - `services.rs`: the services; `serve_jobs.rs`, `serve_supervisor.rs`: what two of them do
//!   differently
//! - `restart.rs`: restart; `kept_options.rs`: the options with which a service runs
//! - `queue.rs`: queue; `queue_stdin.rs`: queue from stdin; `follow.rs`: wait
//! - `jobs.rs`: list, cancel, retry, forget, hold, resume, drain, watch
//! - `programs.rs`: commands about a program of the supervisor, and `signal`
//! - `overview.rs`: `status --all`, and `status` of a program
//! - `status.rs`, `chat.rs`, `metric.rs`, `open.rs`, `doctor.rs`, `log.rs`: one command each
//! - `info.rs`: check, limits, help, version
//!
//! Imports run one way: this file imports all others, and none imports this file.

#[cfg(feature = "hub")]
mod chat;
mod client;
pub mod command_line;
#[cfg(feature = "doctor")]
mod doctor;
#[cfg(feature = "jobs")]
mod follow;
mod info;
mod invocation;
#[cfg(feature = "jobs")]
mod jobs;
mod kept_options;
mod lifecycle;
#[cfg(feature = "log")]
mod log;
#[cfg(feature = "collector")]
mod metric;
#[cfg(feature = "opener")]
mod open;
mod output;
mod overview;
#[cfg(feature = "jobs")]
mod own_job;
mod paths;
mod programs;
#[cfg(feature = "jobs")]
mod queue;
#[cfg(feature = "jobs")]
mod queue_stdin;
mod restart;
#[cfg(feature = "jobs")]
mod serve_jobs;
#[cfg(feature = "supervisor")]
mod serve_supervisor;
mod services;
mod status;

use crate::proto::service::Service;
use crate::service::lifecycle::exit;
use crate::service::memory;
use crate::sys::args::Args;
use crate::sys::{fds, signal};
use crate::util::string_table::joined_table;
use crate::util::text::Writer;
use command_line::{CommandLine, CommandOption, CommandSpec, CommandTable, Operands, OptionSet, Options};
use invocation::Invocation;
use output::{CommandResult, usage};

/// The function of a command.
#[derive(Clone, Copy)]
enum CommandFn {
    /// Takes the words after the command's name only.
    Plain(fn(&Operands) -> CommandResult),
    /// Takes a service and the places of its files.
    Service(fn(Invocation) -> CommandResult),
    /// Takes a service too; a missing folder of `-d` is created.
    Start(fn(Invocation) -> CommandResult),
}

/// Declares the commands. A row is: the feature that adds it, name, arguments, options,
/// operands, function; the purpose; the rest of the help. See [`command_line::Command`] and [`CommandFn`].
macro_rules! commands {
    ($($(#[$feature:meta])? $name:literal $args:literal [$($option:ident),*] $operands:expr => $function:expr,
        $summary:literal,
        $details:literal;
    )*) => {
        /// Every command, in the order of `help`.
        pub static COMMANDS: CommandTable = {
            use command_line::OperandSpec::{AtLeast, Count, Program, Service};
            CommandTable {
                texts: {
                    const ROWS: &[[&str; 4]] = &[$($(#[$feature])? [$name, $args, $summary, $details]),*];
                    joined_table!(ROWS.as_flattened())
                },
                specs: &[$($(#[$feature])? CommandSpec {
                    options: OptionSet::of(&[$(CommandOption::$option),*]),
                    operands: $operands,
                }),*],
            }
        };

        /// The functions, in the order of [`COMMANDS`].
        static FUNCTIONS: &[CommandFn] = {
            use CommandFn::{Plain, Service, Start};
            &[$($(#[$feature])? $function),*]
        };
    };
}

commands! {
    #[cfg(feature = "service")]
    "start" "[SERVICE|NAME]" [Health, Child, Again] Program => Start(lifecycle::start),
        "start a service in the background; returns when it is ready",
        "Prints `zigsvc: SERVICE started (pid N)`, and for jobs the handler.\n\
         start NAME  have the supervisor start a program of `supervise`\n\
         start supervisor -- CMD ARG...  keep any foreground program running; see `help run`\n\
         Exit: 0 ready; 1 failed, or already running; 2 usage; 4 no privilege; 6 bad config.\n";
    #[cfg(feature = "service")]
    "run" "[--ready-fd N] [SERVICE]" [ReadyFd, Health] Program => Start(lifecycle::run),
        "the same in the foreground, for an init system or a terminal",
        "The log goes to stderr, and to log_file if the config names one.\n\
         --ready-fd N  write a newline to descriptor N when ready, and close it (s6, dinit)\n\
         run supervisor [--health FILE] -- CMD ARG...  keep any foreground program running: it is \
         started again whenever it ends, and its output goes to zigsvc-supervisor.log\n\
         --health FILE  restart CMD too when FILE was not written for stale_after\n\
         NOTIFY_SOCKET, WATCHDOG_USEC and JOURNAL_STREAM are obeyed (systemd).\n\
         Exit: as start, then 0 after a graceful stop.\n";
    #[cfg(feature = "service")]
    "stop" "[--now] [SERVICE|NAME]" [Now] Service => Service(lifecycle::stop),
        "stop a service; returns when it is gone",
        "Sends TERM, and KILL 5 s after stop_timeout. A service that is stopping already is only \
         waited for. A supervisor does not start it again until `start` does.\n\
         --now  end running jobs at once\n\
         Exit: 0 stopped, or was not running; 1 could not; 4 no privilege.\n";
    #[cfg(feature = "service")]
    "restart" "[SERVICE|NAME]" [Health] Program => Start(restart::restart),
        "check the config, stop, start",
        "It gets the options -c -d -o of the running service; those given now go on top.\n\
         A bad config leaves the running service alone. Works also over a connection that the \
         restart ends.\n\
         Exit: as start.\n";
    #[cfg(feature = "service")]
    "reload" "[SERVICE|NAME]" [] Service => Service(lifecycle::reload),
        "check the config and have the service read it again (HUP)",
        "A program NAME gets its reload_signal; without one it is refused.\n\
         Exit: 0; 1 refused; 4 no privilege; 6 bad config, the service was not signalled; 7 not \
         running.\n";
    #[cfg(feature = "service")]
    "rotate" "[SERVICE]" [] Service => Service(lifecycle::rotate),
        "rotate the log, or open it again if it was moved away (USR1)",
        "Exit: 0; 4 no privilege; 7 not running.\n";
    #[cfg(feature = "service")]
    "signal" "SERVICE|NAME SIGNAL" [] Count(2, 2) => Service(programs::signal),
        "send a signal to a service or a program of the supervisor",
        "SIGNAL is a name such as HUP, or a number from 1 to 31. The process itself gets it, not \
         its group.\n\
         Exit: 0; 2 unknown NAME or SIGNAL; 4 no privilege; 7 not running.\n";
    #[cfg(feature = "service")]
    "status" "[--all] [--json|--prometheus] [SERVICE|NAME]" [All, Json, Prometheus] Service => Service(overview::status),
        "show whether a service runs and is healthy, and its counters",
        "--all  a line for each service and each program of the supervisor\n\
         --json  one JSON object instead of text; with --all one a line\n\
         --prometheus  metrics for node_exporter's textfile collector\n\
         Exit: 0 running; 1 dead, PID file still filled; 3 stopped; 4 unknown: jobs does not \
         answer within 2 s, or the heartbeat is stale. A program: 1 waits for its restart; 7 no \
         supervisor. With --all: 4 one is unknown, else 1 one died, waits for its restart or is \
         degraded, else 0 one runs, else 3.\n";
    #[cfg(feature = "jobs")]
    "queue" "[--wait] [--after DURATION] JOB..." [After, Wait] AtLeast(1) => Service(queue::queue),
        "add a job; `queue -` reads one a line from stdin",
        "One word is the job as it stands. Several are quoted for the handler shell, so that it \
         sees the same words, and joined by one blank for any other handler. Prints the job's id \
         when it is on disk.\n\
         --wait  print the job's output as it comes, up to the end of its last attempt; the id \
         goes to stderr\n\
         --after DURATION  start it when that much time has passed: 1s to 8760h\n\
         --  ends the options, so that a job may begin with -\n\
         queue -  queues each line as it comes, waits while the queue is full or the disk has no \
         room, and through a restart of the service for up to 30 s; lines whose answer was lost \
         with the connection are sent again, so they may be queued twice.\n\
         Exit: 0; 1 refused; 2 usage; 4 denied; 7 not running. With --wait the job's own status, \
         128+N for a signal, 125 for any failure of queue itself.\n";
    #[cfg(feature = "jobs")]
    "wait" "ID" [] Count(1, 1) => Service(follow::wait),
        "print a job's output as it comes, and wait for its end",
        "Of a job that has ended only the status is left. The last 64 are known.\n\
         Exit: the job's own status, 128+N for a signal, 143 cancelled or timed out; 2 usage; 125 \
         for anything else: no such job, forgotten, not running.\n";
    #[cfg(feature = "jobs")]
    "list" "[--json] [waiting|scheduled|running|dead|done]" [Json] Count(0, 1) => Service(jobs::list),
        "list the jobs, one a line: ID STATE ATTEMPT TEXT",
        "A scheduled job is not due yet; due=SECONDS stands before its TEXT. Without a state all \
         are shown. Control bytes in TEXT are shown as \\xNN.\n\
         done  the last 64 ends instead, oldest first: ID STATE ATTEMPT EXIT MS TEXT\n\
         --json  one object a line: id, state, attempt, exit, ms, due, text\n\
         Exit: 0; 4 denied; 7 not running.\n";
    #[cfg(feature = "jobs")]
    "cancel" "ID" [] Count(1, 1) => Service(jobs::cancel),
        "take a waiting job out of the queue, or end a running one",
        "A running job gets TERM, and KILL after stop_timeout; it is not tried again.\n\
         Exit: 0; 1 no such job; 4 denied; 7 not running.\n";
    #[cfg(feature = "jobs")]
    "retry" "ID|dead" [] Count(1, 1) => Service(jobs::retry),
        "queue a dead job, or all of them, again",
        "Exit: 0; 1 no such dead job; 4 denied; 7 not running.\n";
    #[cfg(feature = "jobs")]
    "forget" "ID|dead" [] Count(1, 1) => Service(jobs::forget),
        "remove a dead job, or all of them, for good",
        "Exit: 0; 1 no such dead job; 4 denied; 7 not running.\n";
    #[cfg(feature = "jobs")]
    "hold" "" [] Count(0, 0) => Service(jobs::hold),
        "start no job until resume; running jobs end",
        "New jobs are taken. It lasts through restarts and reboots.\n\
         Exit: 0, also if it was held; 1 refused; 4 denied; 7 not running.\n";
    #[cfg(feature = "jobs")]
    "resume" "" [] Count(0, 0) => Service(jobs::resume),
        "start jobs again after hold",
        "Exit: 0, also if it was not held; 1 refused; 4 denied; 7 not running.\n";
    #[cfg(feature = "jobs")]
    "drain" "[--wait]" [Wait] Count(0, 0) => Service(jobs::drain),
        "finish the jobs that are there, take no new ones, then stop",
        "Jobs that are not due yet stay for the next start. Refused while the queue is held.\n\
         --wait  return when the service is gone\n\
         Exit: 0; 1 it died before that; 4 denied; 7 not running.\n";
    #[cfg(feature = "jobs")]
    "watch" "[--json]" [Json] Count(0, 0) => Service(jobs::watch),
        "print the events of jobs as they come",
        "Lines `event SEQ job=ID state=started|done|failed|dead exit=N ms=N attempt=N text=TEXT`; \
         a gap in SEQ: some were missed.\n\
         --json  one object a line, as list has them\n\
         Exit: 0 when the service stops; 1 stdout was closed; 4 denied; 7 not running.\n";
    #[cfg(feature = "hub")]
    "chat" "" [] Count(0, 0) => Service(chat::chat),
        "talk through the hub: stdin to all others, theirs to stdout",
        "Each line goes to every other client as `[pid N] line`. Ends at the end of stdin, or \
         when the hub stops.\n\
         Exit: 0; 1 the server is full; 7 not running.\n";
    #[cfg(feature = "collector")]
    "metric" "NAME VALUE | --dump" [Dump, Prometheus] Count(0, 2) => Service(metric::metric),
        "give the collector a value; print the average",
        "NAME has 1 to 64 bytes and is not dump; VALUE is a JSON number, kept to six decimals.\n\
         --dump  print every metric instead: `NAME: avg=48.75 (n=2)`\n\
         --prometheus  with --dump: as metrics for node_exporter's textfile collector\n\
         --  ends the options, so that NAME may begin with -\n\
         Exit: 0; 1 refused; 4 denied; 7 not running.\n";
    #[cfg(feature = "log")]
    "log" "[-p] [-s SIZE] [-n KEEP] [-t TIME] FILE" [Persist, Size, Keep, Time] Count(1, 1) => Plain(log::log),
        "copy stdin to FILE in whole lines, and rotate it",
        "anything 2>&1 | zigsvc log FILE\n\
         -p  ignore TERM, so that the last lines of the writer are kept\n\
         -s SIZE  rotate before FILE passes SIZE bytes (10000); 64k, 1m; 0: never\n\
         -n KEEP  number of old files to keep: 1 to 99 (1). FILE.1 is the newest\n\
         -t TIME  the time in front of each line: iso, unix or none (none)\n\
         Bytes pass as they are. A line goes into one file; one of more than 64 KiB is continued.\n\
         While the disk is full, `log` waits, and the writer of its input waits too. USR1 \
         rotates, or opens FILE again if it was moved away, HUP only the latter; TERM and INT end \
         it when what is in the pipe is written. There is no lock: give each log a FILE of its \
         own.\n\
         Exit: 0 at the end of input; 1 FILE cannot be opened, or not be written at TERM; 2 \
         usage; 4 no right to open FILE; 6 another user could read or replace FILE (-o \
         trust=PATH).\n";
    #[cfg(feature = "opener")]
    "open" "PATH [-- CMD ARG...]" [] AtLeast(1) => Service(open::open),
        "print a file that the opener hands out, or run CMD with it as stdin",
        "PATH is sent as it is typed: it has to be an entry of allow, byte for byte.\n\
         open PATH -- CMD ARG...  become CMD, with the file as its standard input\n\
         Exit: 0; 1 denied, or it cannot be opened; 7 not running. With CMD its own status, or \
         127 if there is no such program, 126 if it cannot be executed.\n";
    #[cfg(feature = "config")]
    "check" "" [] Count(0, 0) => Service(info::check),
        "validate the config and print the effective one as TOML",
        "Exit: 0; 6 with FILE:LINE, what is wrong and what is allowed.\n";
    #[cfg(feature = "doctor")]
    "doctor" "" [] Count(0, 0) => Service(doctor::doctor),
        "list the conditions of this machine that would degrade a service",
        "A line for each thing that it looked at: `ok` or `warn`, and what to do. A running \
         service is judged with the options that it has. Changes nothing.\n\
         Exit: 0 no warnings; 1 warnings; 6 bad config.\n";
    "limits" "" [] Count(0, 0) => Plain(info::limits),
        "print every compile-time limit",
        "One a line: name, value, meaning.\n";
    "help" "[COMMAND]" [] Count(0, 1) => Plain(|operands| info::help(&COMMANDS, operands)),
        "show how to use the program, or one command",
        "";
    "version" "" [] Count(0, 0) => Plain(info::version),
        "print the version",
        "";
}

/// Runs the command that the arguments name; returns the exit code.
#[must_use]
pub fn main(args: &Args) -> u8 {
    if fds::sanitize_stdio().is_err() {
        // Without /dev/null no descriptor is safe, and no error can be printed.
        return exit::FAILED;
    }
    if fds::is_terminal(1) {
        signal::end_line_on_interrupt();
    }
    let result = task(args).and_then(|task| match task {
        Task::Plain(run, operands) => run(&operands),
        Task::Service(run, invocation) => run(invocation),
        // No command line of such a build names a program.
        Task::Program(..) if !Service::Supervisor.is_built_in() => Err(exit::USAGE),
        Task::Program(name, invocation) if invocation.command == "status" => {
            overview::of_program(invocation, name)
        }
        Task::Program(name, invocation) => programs::about(invocation, name),
        Task::Start(run, invocation) => {
            paths::open_folder(invocation.memory)?;
            run(invocation)
        }
    });
    result.unwrap_or_else(|code| code)
}

#[allow(clippy::large_enum_variant, reason = "it exists once, for a moment, and there is no heap")]
/// A command that is ready to run.
enum Task {
    Plain(fn(&Operands) -> CommandResult, Operands),
    Service(fn(Invocation) -> CommandResult, Invocation),
    Start(fn(Invocation) -> CommandResult, Invocation),
    /// About the program of this name.
    Program(&'static [u8], Invocation),
}

/// Returns the command that the arguments name. Not inlined, because a service runs in the
/// caller's frame, and needs no options there.
#[inline(never)]
fn task(args: &Args) -> Result<Task, u8> {
    let mut line = [0; 400];
    let mut out = Writer::new(&mut line);
    let mut options = Options::default();
    let CommandLine { at, command, service, program, operands } =
        CommandLine::parse(&COMMANDS, args, &mut options, &mut out)
            .map_err(|error| usage(error.command, &|message| message.push(out.as_bytes())))?;
    let (run, starts) = match FUNCTIONS.get(command.index) {
        Some(CommandFn::Plain(run)) => return Ok(Task::Plain(*run, operands)),
        // No command of such a build takes a service.
        _ if cfg!(not(feature = "config")) => return Err(exit::USAGE),
        Some(CommandFn::Service(run)) => (*run, false),
        Some(CommandFn::Start(run)) => (*run, true),
        None => return Err(exit::USAGE),
    };
    let memory = memory::take();
    let base = operands.value(CommandOption::Child).or(operands.value(CommandOption::Again));
    paths::locate(args, &options, base, memory)?;
    let (command, args) = (command.name, *args);
    let invocation = Invocation { command, service, operands, args, command_at: at, memory };
    if let Some(name) = program {
        return Ok(Task::Program(name, invocation));
    }
    Ok(if starts { Task::Start(run, invocation) } else { Task::Service(run, invocation) })
}
