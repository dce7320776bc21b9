//! The command line: options, the one list of commands, and dispatch.
//!
//! `COMMANDS` is the one list: name, arguments, what it does, function. Help
//! and dispatch come from it.
//!
//! - `locate.rs`: where the files of this user are
//! - `control.rs`: start, run, stop, restart, reload, rotate
//! - `status.rs`: status
//! - `inform.rs`: check, limits, help, version

mod control;
mod inform;
mod locate;
mod status;

use crate::limits::OVERRIDES_MAX;
use crate::proto::config::toml::apply_option;
use crate::proto::names::Service;
use crate::proto::path::Path;
use crate::proto::text::Writer;
use crate::service::lifecycle::exit;
use crate::service::memory::{self, Memory};
use crate::service::settings::{Unusable, path_of};
use crate::sys::args::Args;
use crate::sys::{fds, process};
use heapless::Vec;

/// A command of the program.
struct Command {
    name: &'static str,
    /// What may follow it.
    args: &'static str,
    /// What it does, in one line.
    summary: &'static str,
    /// More about it, for `help COMMAND`: exit codes and options.
    details: &'static str,
    /// Whether it needs to know where the files are.
    run: Run,
}

/// How a command is run.
enum Run {
    /// With the words behind its name only.
    Plain(fn(&Words) -> u8),
    /// With a service and where its files are.
    Service(fn(Invocation) -> u8),
}

/// Every command, in the order of `help`.
const COMMANDS: &[Command] = &[
    Command {
        name: "start",
        args: "[SERVICE]",
        summary: "start a service in the background; returns when it is ready",
        details: "Prints `zigsvc: SERVICE started (pid N)`.\n\
                  Exit: 0 ready; 1 failed, or already running; 2 usage; 4 no privilege; 6 bad config.\n",
        run: Run::Service(control::start),
    },
    Command {
        name: "run",
        args: "[--ready-fd N] [SERVICE]",
        summary: "the same in the foreground, for an init system or a terminal",
        details: "The log goes to stderr, and to log_file if the config names one.\n\
                  --ready-fd N  write a newline to descriptor N when ready, and close it (s6, dinit)\n\
                  Exit: as start, then 0 after a graceful stop.\n",
        run: Run::Service(control::run),
    },
    Command {
        name: "stop",
        args: "[SERVICE]",
        summary: "stop a service; returns when it is gone",
        details: "Sends TERM, and KILL 5 s after stop_timeout.\n\
                  Exit: 0 stopped, or was not running; 1 could not.\n",
        run: Run::Service(control::stop),
    },
    Command {
        name: "restart",
        args: "[SERVICE]",
        summary: "check the config, stop, start",
        details: "A bad config leaves the running service alone.\nExit: as start.\n",
        run: Run::Service(control::restart),
    },
    Command {
        name: "reload",
        args: "[SERVICE]",
        summary: "check the config and have the service read it again (HUP)",
        details: "Exit: 0; 6 bad config, the service was not signalled; 7 not running.\n",
        run: Run::Service(control::reload),
    },
    Command {
        name: "rotate",
        args: "[SERVICE]",
        summary: "rotate the log, or open it anew if it was moved away (USR1)",
        details: "Exit: 0; 7 not running.\n",
        run: Run::Service(control::rotate),
    },
    Command {
        name: "status",
        args: "[--json] [SERVICE]",
        summary: "say whether a service runs and is well",
        details: "--json  one JSON object instead of text\n\
                  Exit: 0 running; 1 dead, PID file left behind; 3 stopped; 4 unknown, or the heartbeat is stale.\n",
        run: Run::Service(status::status),
    },
    Command {
        name: "check",
        args: "",
        summary: "validate the config and print the effective one as TOML",
        details: "Exit: 0; 6 with FILE:LINE, what is wrong and what is allowed.\n",
        run: Run::Service(inform::check),
    },
    Command {
        name: "limits",
        args: "",
        summary: "print every compile-time limit",
        details: "One a line: name, value, meaning.\n",
        run: Run::Plain(inform::limits),
    },
    Command {
        name: "help",
        args: "[COMMAND]",
        summary: "say how to use the program, or one command",
        details: "",
        run: Run::Plain(inform::help),
    },
    Command {
        name: "version",
        args: "",
        summary: "print the version",
        details: "",
        run: Run::Plain(inform::version),
    },
];

/// The words behind the command's name.
struct Words {
    args: Args,
    first: usize,
}

impl Words {
    fn get(&self, index: usize) -> Option<&'static [u8]> {
        self.args.get(self.first.saturating_add(index))
    }

    /// Ends with a usage error if there are more than `count`.
    fn at_most(&self, count: usize, command: &str) -> Result<(), u8> {
        match self.get(count) {
            None => Ok(()),
            Some(extra) => Err(usage(command, &|out| {
                out.push_str("unexpected argument \"");
                out.push_escaped(extra);
                out.push_str("\"");
            })),
        }
    }
}

/// A command that is about a service.
struct Invocation {
    command: &'static str,
    service: Service,
    /// The value of `--ready-fd`.
    ready_fd: Option<i32>,
    /// `--json`
    json: bool,
    /// Where the files are, and the configuration after [`Invocation::load`].
    memory: &'static mut Memory,
}

impl Invocation {
    /// The effective configuration, or the exit code after telling why not.
    fn load(&mut self) -> Result<(), u8> {
        let mut line = [0; 512];
        let mut out = Writer::new(&mut line);
        let Memory { settings, config, scratch, .. } = &mut *self.memory;
        settings
            .load(config, scratch, &mut out)
            .map_err(|Unusable| fail(exit::CONFIG, &|message| message.push(out.as_bytes())))
    }

    /// As [`Invocation::load`], but a bad configuration, which is told, must
    /// not keep a service from being stopped or seen: what stands before the
    /// mistake holds, and so do the options.
    fn load_or_defaults(&mut self) {
        if self.load().is_err() {
            let Memory { settings, config, .. } = &mut *self.memory;
            for option in &settings.overrides {
                let _ = apply_option(option, config, &settings.base);
            }
        }
    }

    /// The PID file of the service.
    fn pid_path(&self) -> Result<Path, u8> {
        path_of(self.service, &self.memory.config.pid_file)
            .ok_or_else(|| fail(exit::CONFIG, &|out| out.push_str("pid_file: its folder's path is too long")))
    }
}

/// What stands before the command.
#[derive(Default)]
struct Options {
    config: Option<&'static [u8]>,
    folder: Option<&'static [u8]>,
    overrides: Vec<&'static [u8], OVERRIDES_MAX>,
}

/// Runs the command that the arguments name; returns the exit code.
#[must_use]
pub fn main(args: &Args) -> u8 {
    if fds::ensure_standard().is_err() {
        // Without /dev/null nothing can be promised, and nobody be told.
        return exit::FAILED;
    }
    match dispatch(args) {
        Ok(code) | Err(code) => code,
    }
}

fn dispatch(args: &Args) -> Result<u8, u8> {
    let (options, at) = parse_options(args)?;
    let name = args.get(at).ok_or_else(|| usage("", &|out| out.push_str("a command is missing")))?;
    let words = Words { args: *args, first: at.saturating_add(1) };
    let name = match name {
        b"--help" | b"-h" => &b"help"[..],
        b"--version" | b"-V" => b"version",
        name => name,
    };
    let command = command_named(name).ok_or_else(|| {
        usage("", &|out| {
            out.push_str("unknown command \"");
            out.push_escaped(name.get(..40).unwrap_or(name));
            out.push_str("\"");
        })
    })?;
    match &command.run {
        Run::Plain(run) => Ok(run(&words)),
        Run::Service(run) => invocation(command, &options, &words).map(run),
    }
}

fn command_named(name: &[u8]) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name.as_bytes() == name)
}

/// The options before the command, and the place of the command.
#[inline(never)]
fn parse_options(args: &Args) -> Result<(Options, usize), u8> {
    let mut options = Options::default();
    let mut at = 1;
    while let Some([b'-', letter @ (b'c' | b'd' | b'o'), attached @ ..]) = args.get(at) {
        at = at.saturating_add(1);
        let value = if attached.is_empty() {
            let value = args.get(at);
            at = at.saturating_add(1);
            value
        } else {
            Some(attached)
        };
        let value = value.filter(|value| !value.is_empty()).ok_or_else(|| {
            usage("", &|out| {
                out.push_str("option -");
                out.push(&[*letter]);
                out.push_str(" needs a value");
            })
        })?;
        match letter {
            b'c' => options.config = Some(value),
            b'd' => options.folder = Some(value),
            _ => options
                .overrides
                .push(value)
                .map_err(|_| usage("", &|out| out.push_str("too many options -o")))?,
        }
    }
    if let Some([b'-', rest @ ..]) = args.get(at)
        && !matches!(rest, b"-help" | b"h" | b"-version" | b"V")
    {
        return Err(usage("", &|out| {
            out.push_str("unknown option \"-");
            out.push_escaped(rest.get(..40).unwrap_or(rest));
            out.push_str("\"; known before a command are -c FILE, -d DIR, -o KEY=VALUE");
        }));
    }
    Ok((options, at))
}

/// Reads what follows the command's name and finds the files.
#[inline(never)]
fn invocation(command: &'static Command, options: &Options, words: &Words) -> Result<Invocation, u8> {
    let name = command.name;
    let mut index = 0;
    let mut ready_fd = None;
    let mut json = false;
    while let Some([b'-', b'-', option @ ..]) = words.get(index) {
        index = index.saturating_add(1);
        match (name, option) {
            ("run", b"ready-fd") => {
                ready_fd = Some(parse_ready_fd(words.get(index))?);
                index = index.saturating_add(1);
            }
            ("status", b"json") => json = true,
            _ => {
                return Err(usage(name, &|out| {
                    out.push_str("unknown option \"--");
                    out.push_escaped(option.get(..40).unwrap_or(option));
                    out.push_str("\"");
                }));
            }
        }
    }
    let takes_service = command.args.contains("[SERVICE]");
    let service = match words.get(index) {
        Some(word) if takes_service => service_named(name, word)?,
        _ => Service::Jobs,
    };
    let rest = index.saturating_add(usize::from(takes_service));
    words.at_most(rest, name)?;
    let creates = matches!(name, "start" | "run" | "restart");
    let memory = memory::take();
    locate::locate(&words.args, options, creates, &mut memory.settings)?;
    Ok(Invocation { command: name, service, ready_fd, json, memory })
}

fn service_named(command: &str, word: &[u8]) -> Result<Service, u8> {
    let service = Service::named(word).filter(|service| Service::RUNNABLE.contains(service));
    service.ok_or_else(|| {
        usage(command, &|out| {
            out.push_str("unknown service \"");
            out.push_escaped(word.get(..40).unwrap_or(word));
            out.push_str("\"; known are");
            for service in Service::RUNNABLE {
                out.push_str(" ");
                out.push_str(service.name());
            }
        })
    })
}

fn parse_ready_fd(word: Option<&[u8]>) -> Result<i32, u8> {
    let number = word.and_then(crate::proto::text::parse_u64).and_then(|number| i32::try_from(number).ok());
    number.filter(|number| *number > 2).ok_or_else(|| {
        usage("run", &|out| out.push_str("--ready-fd needs the number of an open descriptor above 2"))
    })
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
    let mut line = [0; 640];
    let mut out = Writer::new(&mut line);
    out.push_str("zigsvc: ");
    text(&mut out);
    out.truncate(639);
    out.push_str("\n");
    process::write_stderr(out.as_bytes());
    code
}

/// Prints text on stdout; returns [`exit::OK`], or [`exit::FAILED`] when nobody
/// takes it.
fn print(text: &[u8]) -> u8 {
    if process::write_stdout(text) { exit::OK } else { exit::FAILED }
}
