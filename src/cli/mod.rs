//! The command line: the one list of commands, and dispatch.
//!
//! `COMMANDS` is the one list: name, arguments, options, what it does,
//! function. Help, parsing, dispatch, the manual page and the shell's completion
//! come from it.
//!
//! - `command_line.rs`: what stands before and behind a command's name
//! - `paths.rs`: where the files of this user are
//! - `lifecycle.rs`: start, run, stop, restart, reload, rotate
//! - `client.rs`: a connection to a service's socket
//! - `queue.rs`: queue; `queue_stdin.rs` and `backlog.rs`: queue from stdin
//! - `chat.rs`: chat
//! - `jobs.rs`: list, cancel, retry, forget, drain, watch
//! - `metric.rs`: metric
//! - `open.rs`: open
//! - `status.rs`: status
//! - `doctor.rs`: doctor
//! - `log.rs`: log
//! - `info.rs`: check, limits, help, version

mod backlog;
mod chat;
mod client;
pub mod command_line;
mod doctor;
mod info;
mod jobs;
mod lifecycle;
mod log;
mod metric;
mod open;
mod paths;
mod queue;
mod queue_stdin;
mod status;

use crate::proto::config::toml::apply_option;
use crate::proto::service::Service;
use crate::service::config_source::{InvalidConfig, ServiceFile, path_of};
use crate::service::lifecycle::exit;
use crate::service::lock_holder::LockHolder;
use crate::service::memory::{self, Memory};
use crate::sys::args::Args;
use crate::sys::poll::{Interest, PollSet};
use crate::sys::{Errno, Failure, fds, file, process};
use crate::util::path::Path;
use crate::util::text::Writer;
use command_line::{CommandLine, Operands, command_named, option};
use core::sync::atomic::{AtomicBool, Ordering};

/// A command of the program. What people read of it is public: the manual page
/// and the shell's completion are written from it (`tests/suite/packaging/manual`).
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// What may follow it, for people. Capitals stand for something, `[]` may
    /// be left out, `|` separates alternatives.
    pub args: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// More about it, for `help COMMAND`: exit codes and options. Two blanks
    /// separate an option, or a form of the command, from what it does.
    pub details: &'static str,
    /// The options that it knows, of [`option`].
    options: u16,
    /// What stands behind the options.
    operand_spec: OperandSpec,
    /// Its function.
    run: CommandFn,
}

impl Command {
    /// The names of the options that it knows, and whether a value follows.
    pub fn options(&self) -> impl Iterator<Item = (&'static str, bool)> {
        command_line::names_of(self.options)
    }
}

/// What a command wants behind its options.
#[derive(Clone, Copy)]
enum OperandSpec {
    /// The name of a service, or nothing.
    Service,
    /// The same; for the supervisor also `--` and a program with its arguments.
    Program,
    /// Words, at least and at most so many.
    Count(usize, usize),
}

/// How a command is run.
enum CommandFn {
    /// With the words behind its name only.
    Plain(fn(&Operands) -> u8),
    /// With a service and where its files are.
    Service(fn(Invocation) -> u8),
    /// As `Service`; a folder of `-d` that is missing is made.
    Start(fn(Invocation) -> u8),
}

/// Every command, in the order of `help`.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "start",
        args: "[SERVICE]",
        summary: "start a service in the background; returns when it is ready",
        details: "Prints `zigsvc: SERVICE started (pid N)`.\n\
                  start supervisor -- CMD ARG...  keep any foreground program running; see `help run`\n\
                  --child FOLDER  what the supervisor starts its services with: no way into the background\n\
                  Exit: 0 ready; 1 failed, or already running; 2 usage; 4 no privilege; 6 bad config.\n",
        options: option::HEALTH | option::CHILD,
        operand_spec: OperandSpec::Program,
        run: CommandFn::Start(lifecycle::start),
    },
    Command {
        name: "run",
        args: "[--ready-fd N] [SERVICE]",
        summary: "the same in the foreground, for an init system or a terminal",
        details: "The log goes to stderr, and to log_file if the config names one.\n\
                  --ready-fd N  write a newline to descriptor N when ready, and close it (s6, dinit)\n\
                  run supervisor [--health FILE] -- CMD ARG...  keep any foreground program running: it is\n\
                  started again whenever it ends, and its output goes to zigsvc-supervisor.log\n\
                  --health FILE  restart CMD too when FILE was not written for stale_after\n\
                  NOTIFY_SOCKET, WATCHDOG_USEC and JOURNAL_STREAM are obeyed (systemd).\n\
                  Exit: as start, then 0 after a graceful stop.\n",
        options: option::READY_FD | option::HEALTH,
        operand_spec: OperandSpec::Program,
        run: CommandFn::Start(lifecycle::run),
    },
    Command {
        name: "stop",
        args: "[SERVICE]",
        summary: "stop a service; returns when it is gone",
        details: "Sends TERM, and KILL 5 s after stop_timeout.\n\
                  Exit: 0 stopped, or was not running; 1 could not.\n",
        options: option::NONE,
        operand_spec: OperandSpec::Service,
        run: CommandFn::Service(lifecycle::stop),
    },
    Command {
        name: "restart",
        args: "[SERVICE]",
        summary: "check the config, stop, start",
        details: "A bad config leaves the running service alone.\nExit: as start.\n",
        options: option::HEALTH,
        operand_spec: OperandSpec::Program,
        run: CommandFn::Start(lifecycle::restart),
    },
    Command {
        name: "reload",
        args: "[SERVICE]",
        summary: "check the config and have the service read it again (HUP)",
        details: "Exit: 0; 4 no privilege; 6 bad config, the service was not signalled; 7 not running.\n",
        options: option::NONE,
        operand_spec: OperandSpec::Service,
        run: CommandFn::Service(lifecycle::reload),
    },
    Command {
        name: "rotate",
        args: "[SERVICE]",
        summary: "rotate the log, or open it anew if it was moved away (USR1)",
        details: "Exit: 0; 4 no privilege; 7 not running.\n",
        options: option::NONE,
        operand_spec: OperandSpec::Service,
        run: CommandFn::Service(lifecycle::rotate),
    },
    Command {
        name: "status",
        args: "[--json|--prometheus] [SERVICE]",
        summary: "say whether a service runs and is well",
        details: "--json        one JSON object instead of text\n\
                  --prometheus  metrics for node_exporter's textfile collector\n\
                  Exit: 0 running; 1 dead, PID file left behind; 3 stopped; 4 unknown: jobs does not\n\
                  answer within 2 s, or the heartbeat is stale.\n",
        options: option::JSON | option::PROMETHEUS,
        operand_spec: OperandSpec::Service,
        run: CommandFn::Service(status::status),
    },
    Command {
        name: "queue",
        args: "[--wait] JOB...",
        summary: "add a job; `queue -` reads one a line from stdin",
        details: "The words are joined by one blank. Prints the job's id when it is on disk.\n\
                  --wait  wait for the end of its last attempt\n\
                  --      ends the options, so that a job may begin with -\n\
                  queue -  queues each line as it comes, waits while the queue is full or the disk has no\n\
                  room, and through a restart of the service for up to 30 s; lines whose answer was lost\n\
                  with the connection are sent again, so they may be queued twice.\n\
                  Exit: 0; 1 refused; 4 denied; 7 not running. With --wait the job's own status, 128+N for\n\
                  a signal, 125 for any failure of queue itself.\n",
        options: option::WAIT,
        operand_spec: OperandSpec::Count(1, usize::MAX),
        run: CommandFn::Service(queue::queue),
    },
    Command {
        name: "list",
        args: "[waiting|running|dead]",
        summary: "list the jobs, one a line: ID STATE ATTEMPT TEXT",
        details: "Control bytes in TEXT are shown as \\xNN.\nExit: 0; 4 denied; 7 not running.\n",
        options: option::NONE,
        operand_spec: OperandSpec::Count(0, 1),
        run: CommandFn::Service(jobs::list),
    },
    Command {
        name: "cancel",
        args: "ID",
        summary: "take a waiting job out of the queue, or end a running one",
        details: "A running job gets TERM, and KILL after stop_timeout; it is not tried again.\n\
                  Exit: 0; 1 no such job; 4 denied; 7 not running.\n",
        options: option::NONE,
        operand_spec: OperandSpec::Count(1, 1),
        run: CommandFn::Service(jobs::cancel),
    },
    Command {
        name: "retry",
        args: "ID|dead",
        summary: "have a dead job, or all of them, wait again",
        details: "Exit: 0; 1 no such dead job; 4 denied; 7 not running.\n",
        options: option::NONE,
        operand_spec: OperandSpec::Count(1, 1),
        run: CommandFn::Service(jobs::retry),
    },
    Command {
        name: "forget",
        args: "ID|dead",
        summary: "remove a dead job, or all of them, for good",
        details: "Exit: 0; 1 no such dead job; 4 denied; 7 not running.\n",
        options: option::NONE,
        operand_spec: OperandSpec::Count(1, 1),
        run: CommandFn::Service(jobs::forget),
    },
    Command {
        name: "drain",
        args: "[--wait]",
        summary: "finish the jobs that are there, take no new ones, then stop",
        details: "--wait  return when the service is gone\n\
                  Exit: 0; 1 it died before that; 4 denied; 7 not running.\n",
        options: option::WAIT,
        operand_spec: OperandSpec::Count(0, 0),
        run: CommandFn::Service(jobs::drain),
    },
    Command {
        name: "watch",
        args: "",
        summary: "print the events of jobs as they come",
        details: "Lines `event SEQ job=ID state=started|done|failed|dead exit=N ms=N`; a gap in SEQ: some\n\
                  were missed.\n\
                  Exit: 0 when the service stops; 1 nobody reads any more; 4 denied; 7 not running.\n",
        options: option::NONE,
        operand_spec: OperandSpec::Count(0, 0),
        run: CommandFn::Service(jobs::watch),
    },
    Command {
        name: "chat",
        args: "",
        summary: "talk through the hub: stdin to all others, theirs to stdout",
        details: "Each line goes to everybody else as `[pid N] line`. Ends at the end of stdin, or when the\n\
                  hub stops.\n\
                  Exit: 0; 1 the server is full; 7 not running.\n",
        options: option::NONE,
        operand_spec: OperandSpec::Count(0, 0),
        run: CommandFn::Service(chat::chat),
    },
    Command {
        name: "metric",
        args: "NAME VALUE | --dump",
        summary: "give the collector a value; print the average",
        details: "NAME has 1 to 64 bytes and is not dump; VALUE is a JSON number, kept to six decimals.\n\
                  --dump        print every metric instead: `NAME: avg=48.75 (n=2)`\n\
                  --prometheus  with --dump: as metrics for node_exporter's textfile collector\n\
                  --            ends the options, so that NAME may begin with -\n\
                  Exit: 0; 1 refused; 4 denied; 7 not running.\n",
        options: option::DUMP | option::PROMETHEUS,
        operand_spec: OperandSpec::Count(0, 2),
        run: CommandFn::Service(metric::metric),
    },
    Command {
        name: "log",
        args: "[-s SIZE] [-n KEEP] [-t TIME] FILE",
        summary: "copy stdin to FILE in whole lines, and rotate it",
        details: "anything 2>&1 | zigsvc log FILE\n\
                  -s SIZE  rotate before FILE passes SIZE bytes (10000); 64k, 1m; 0: never\n\
                  -n KEEP  keep so many old files, of which FILE.1 is the newest: 1 to 99 (1)\n\
                  -t TIME  the time in front of each line: iso, unix or none (none)\n\
                  Bytes pass as they are. A line goes into one file; one of more than 64 KiB is continued.\n\
                  A disk that is full is waited out, and whoever writes the input waits too. USR1 rotates, or\n\
                  opens FILE anew if it was moved away, HUP only the latter; TERM and INT end it when what is\n\
                  in the pipe is written. There is no lock: give each log a FILE of its own.\n\
                  Exit: 0 at the end of input; 1 FILE cannot be opened, or not be written at TERM; 2 usage;\n\
                  4 no right to open FILE.\n",
        options: option::SIZE | option::KEEP | option::TIME,
        operand_spec: OperandSpec::Count(1, 1),
        run: CommandFn::Plain(log::log),
    },
    Command {
        name: "open",
        args: "PATH [-- CMD ARG...]",
        summary: "print a file that the opener hands out, or run CMD with it as stdin",
        details: "PATH is sent as it is typed: it has to be an entry of allow, byte for byte.\n\
                  open PATH -- CMD ARG...  become CMD, with the file as its standard input\n\
                  Exit: 0; 1 denied, or it cannot be opened; 7 not running. With CMD its own status, or 127\n\
                  if there is no such program, 126 if it cannot be executed.\n",
        options: option::NONE,
        operand_spec: OperandSpec::Count(1, usize::MAX),
        run: CommandFn::Service(open::open),
    },
    Command {
        name: "check",
        args: "",
        summary: "validate the config and print the effective one as TOML",
        details: "Exit: 0; 6 with FILE:LINE, what is wrong and what is allowed.\n",
        options: option::NONE,
        operand_spec: OperandSpec::Count(0, 0),
        run: CommandFn::Service(info::check),
    },
    Command {
        name: "doctor",
        args: "",
        summary: "say what of this machine would degrade a service",
        details: "A line for each thing that it looked at: `ok` or `warn`, and what to do. Changes nothing.\n\
                  Exit: 0 no warnings; 1 warnings; 6 bad config.\n",
        options: option::NONE,
        operand_spec: OperandSpec::Count(0, 0),
        run: CommandFn::Service(doctor::doctor),
    },
    Command {
        name: "limits",
        args: "",
        summary: "print every compile-time limit",
        details: "One a line: name, value, meaning.\n",
        options: option::NONE,
        operand_spec: OperandSpec::Count(0, 0),
        run: CommandFn::Plain(info::limits),
    },
    Command {
        name: "help",
        args: "[COMMAND]",
        summary: "say how to use the program, or one command",
        details: "",
        options: option::NONE,
        operand_spec: OperandSpec::Count(0, 1),
        run: CommandFn::Plain(info::help),
    },
    Command {
        name: "version",
        args: "",
        summary: "print the version",
        details: "",
        options: option::NONE,
        operand_spec: OperandSpec::Count(0, 0),
        run: CommandFn::Plain(info::version),
    },
];

/// A command that is about a service.
struct Invocation {
    command: &'static str,
    service: Service,
    operands: Operands,
    /// All arguments, and the place of the command among them.
    args: Args,
    command_at: usize,
    /// Where the files are, and the configuration after [`Invocation::load`].
    memory: &'static mut Memory,
    /// Whether stderr wants `<N>` in front of each line (sd-daemon(3)).
    journal: bool,
}

impl Invocation {
    /// The effective configuration, or the exit code after telling why not.
    fn load(&mut self) -> Result<(), u8> {
        let journal = self.journal;
        let mut line = [0; 512];
        let mut out = Writer::new(&mut line);
        let Memory { config_source, config, scratch, .. } = &mut *self.memory;
        config_source
            .load(config, scratch.pages(), &mut out)
            .map_err(|InvalidConfig| fail_to(journal, exit::CONFIG, &|message| message.push(out.as_bytes())))
    }

    /// As [`Invocation::load`], but a bad configuration, which is told, must
    /// not keep a service from being stopped or seen: what stands before the
    /// mistake holds, and so do the options.
    fn load_or_defaults(&mut self) {
        if self.load().is_err() {
            let Memory { config_source, config, .. } = &mut *self.memory;
            for option in &config_source.overrides {
                let _ = apply_option(option, config, &config_source.base);
            }
        }
    }

    /// The process that holds the lock of the PID file at `path`; tells why if
    /// that cannot be known.
    fn lock_holder(path: &Path) -> Result<Option<LockHolder>, u8> {
        LockHolder::find(path).map_err(|error| {
            let code = if error.is_denied() { exit::NO_PRIVILEGE } else { exit::FAILED };
            fail(code, &|out| error.describe(path, out))
        })
    }

    /// The PID file of the service.
    fn pid_path(&self) -> Result<Path, u8> {
        path_of(self.service, ServiceFile::Pid, &self.memory.config)
            .ok_or_else(|| fail(exit::CONFIG, &|out| out.push_str("pid_file: its folder's path is too long")))
    }
}

/// Runs the command that the arguments name; returns the exit code.
#[must_use]
pub fn main(args: &Args) -> u8 {
    if fds::sanitize_stdio().is_err() {
        // Without /dev/null nothing can be promised, and nobody be told.
        return exit::FAILED;
    }
    match task(args) {
        Ok(Task::Plain(run, operands)) => run(&operands),
        Ok(Task::Service(run, invocation)) => run(invocation),
        Err(code) => code,
    }
}

/// What the arguments ask for.
enum Task {
    Plain(fn(&Operands) -> u8, Operands),
    Service(fn(Invocation) -> u8, Invocation),
}

/// Finds it. (Not inlined: a service lives in the caller's frame, and has no use
/// for the options any more.)
#[inline(never)]
fn task(args: &Args) -> Result<Task, u8> {
    let CommandLine { options, at, command, service, operands } =
        CommandLine::parse(args).map_err(|error| usage(error.command, &|out| error.describe(out)))?;
    let (run, creates) = match command.run {
        CommandFn::Plain(run) => return Ok(Task::Plain(run, operands)),
        CommandFn::Service(run) => (run, false),
        CommandFn::Start(run) => (run, true),
    };
    let memory = memory::take();
    paths::locate(args, &options, creates, operands.child, &mut memory.config_source)?;
    let (command, args) = (command.name, *args);
    let invocation = Invocation { command, service, operands, args, command_at: at, memory, journal: false };
    Ok(Task::Service(run, invocation))
}

/// One error line about how the program was called; the exit code.
fn usage(command: &str, text: &dyn Fn(&mut Writer<'_>)) -> u8 {
    fail(exit::USAGE, &|out| {
        out.push_str("usage: ");
        text(out);
        out.push_str("; see `zigsvc help");
        out.push_str(if command.is_empty() { "" } else { " " });
        out.push_str(command);
        out.push_str("`");
    })
}

/// One error line; returns the exit code.
fn fail(code: u8, text: &dyn Fn(&mut Writer<'_>)) -> u8 {
    fail_to(false, code, text)
}

/// As [`fail`]; a journal gets the priority of an error with it. Whatever is told, and
/// whoever said it first, a terminal obeys none of it.
fn fail_to(journal: bool, code: u8, text: &dyn Fn(&mut Writer<'_>)) -> u8 {
    let (mut told, mut line) = ([0; 640], [0; 640]);
    let mut message = Writer::new(&mut told);
    text(&mut message);
    let mut out = Writer::new(&mut line);
    out.push_str(if journal { "<3>" } else { "" });
    out.push_str("zigsvc: ");
    out.push_visible(message.as_bytes());
    out.end_line();
    process::write_stderr(out.as_bytes());
    code
}

/// Prints text on stdout; returns [`exit::OK`], or [`exit::FAILED`] when nobody
/// takes it. Why is told once, however many parts there are, and not of a pipe whose
/// reader has seen enough.
fn print(mut text: &[u8]) -> u8 {
    let stdout = fds::borrow(1);
    while !text.is_empty() {
        match file::write_some(stdout, text) {
            Ok(count) => text = text.get(count..).unwrap_or(&[]),
            // Somebody who shares it made it non-blocking.
            Err(Failure { errno: Errno::AGAIN, .. }) => {
                let mut set = PollSet::new();
                set.watch(stdout, Interest::Output, ());
                set.wait(None);
            }
            Err(failure) => {
                static TOLD: AtomicBool = AtomicBool::new(false);
                if failure.errno != Errno::PIPE && !TOLD.load(Ordering::Relaxed) {
                    TOLD.store(true, Ordering::Relaxed);
                    fail(exit::FAILED, &|out| {
                        out.push_str("stdout: ");
                        failure.describe(out);
                    });
                }
                return exit::FAILED;
            }
        }
    }
    exit::OK
}
