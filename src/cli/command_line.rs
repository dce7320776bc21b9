//! What stands before and behind a command's name: options, then words. A
//! command declares in `COMMANDS` which options it knows and how many words.
//!
//! Nothing is printed here, and nothing asked of the kernel: whoever calls tells what is
//! wrong, if something is ([`UsageError`]).

use super::{COMMANDS, Command, CommandFn, OperandSpec};
use crate::limits::{OPTION_WORDS_MAX, OVERRIDES_MAX};
use crate::proto::service::Service;
use crate::sys::args::Args;
use crate::util::text::{Writer, parse_u64};
use core::ffi::c_char;
use heapless::Vec;

/// The options behind a command's name, as bits.
pub(super) mod option {
    /// A command without options.
    pub(in crate::cli) const NONE: u16 = 0;
    /// `--json`
    pub(in crate::cli) const JSON: u16 = 1;
    /// `--prometheus`
    pub(in crate::cli) const PROMETHEUS: u16 = 2;
    /// `--wait`
    pub(in crate::cli) const WAIT: u16 = 4;
    /// `--ready-fd N`
    pub(in crate::cli) const READY_FD: u16 = 8;
    /// `--health FILE`
    pub(in crate::cli) const HEALTH: u16 = 16;
    /// `--child FOLDER`
    pub(in crate::cli) const CHILD: u16 = 32;
    /// `--dump`
    pub(in crate::cli) const DUMP: u16 = 512;
    /// `-s SIZE`
    pub(in crate::cli) const SIZE: u16 = 64;
    /// `-n KEEP`
    pub(in crate::cli) const KEEP: u16 = 128;
    /// `-t TIME`
    pub(in crate::cli) const TIME: u16 = 256;
    /// Those with a value.
    pub(in crate::cli) const VALUED: u16 = READY_FD | HEALTH | CHILD | SIZE | KEEP | TIME;
}

/// Their names. The value of one with a single letter may be attached.
const OPTIONS: &[(&[u8], u16)] = &[
    (b"--json", option::JSON),
    (b"--prometheus", option::PROMETHEUS),
    (b"--wait", option::WAIT),
    (b"--ready-fd", option::READY_FD),
    (b"--health", option::HEALTH),
    (b"--child", option::CHILD),
    (b"--dump", option::DUMP),
    (b"-s", option::SIZE),
    (b"-n", option::KEEP),
    (b"-t", option::TIME),
];

/// The names of the options in `bits`, and whether a value follows.
pub(super) fn names_of(bits: u16) -> impl Iterator<Item = (&'static str, bool)> {
    let known = OPTIONS.iter().filter(move |(_, bit)| bit & bits != 0);
    known.map(|(name, bit)| (core::str::from_utf8(name).unwrap_or_default(), bit & option::VALUED != 0))
}

/// A whole command line.
pub struct CommandLine {
    /// What stands before the command.
    pub options: Options,
    /// The place of the command among the arguments.
    pub at: usize,
    /// The command.
    pub command: &'static Command,
    /// The service that it is about, if it is about one.
    pub service: Service,
    /// What stands behind it.
    pub operands: Operands,
}

impl CommandLine {
    /// Reads all arguments.
    ///
    /// # Errors
    /// [`UsageError`]
    #[inline(never)]
    pub fn parse(args: &Args) -> Result<Self, UsageError> {
        let (options, at) = parse_options(args)?;
        let name = match args.get(at).ok_or(UsageError::of("", Wrong::NoCommand))? {
            b"--help" | b"-h" => &b"help"[..],
            b"--version" | b"-V" => b"version",
            name => name,
        };
        let command = command_named(name).ok_or(UsageError::of("", Wrong::Command(name)))?;
        let operands = Operands::parse(command, args, at.saturating_add(1))?;
        let service = match (&command.run, operands.service) {
            (CommandFn::Plain(_), _) | (_, None) => Service::Jobs,
            (_, Some(word)) => {
                Service::from_name(word).ok_or(UsageError::of(command.name, Wrong::Service(word)))?
            }
        };
        Ok(Self { options, at, command, service, operands })
    }
}

/// The command with this name.
pub(super) fn command_named(name: &[u8]) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name.as_bytes() == name)
}

/// A command line that says nothing.
#[derive(Clone, Copy, Debug)]
pub struct UsageError {
    /// The command whose help says more; empty for that of the program.
    pub command: &'static str,
    wrong: Wrong,
}

/// What is wrong with it.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    NoCommand,
    Command(&'static [u8]),
    Service(&'static [u8]),
    /// Before the command.
    Option(&'static [u8]),
    OptionValue(u8),
    TooManyOverrides,
    TooManyOptions,
    /// Behind it.
    WordOption(&'static [u8]),
    WordOptionValue(&'static [u8]),
    Missing(&'static str),
    Extra(&'static [u8]),
    ReadyFd,
}

impl UsageError {
    fn of(command: &'static str, wrong: Wrong) -> Self {
        Self { command, wrong }
    }

    /// What is wrong, for people.
    pub fn describe(&self, out: &mut Writer<'_>) {
        let mut quote = |what: &str, word: &[u8]| {
            out.push_str(what);
            out.push_str(" \"");
            out.push_escaped(word.get(..40).unwrap_or(word));
            out.push_str("\"");
        };
        match self.wrong {
            Wrong::NoCommand => out.push_str("a command is missing"),
            Wrong::Command(name) => quote("unknown command", name),
            Wrong::Service(word) => {
                quote("unknown service", word);
                out.push_str("; known are");
                for service in Service::ALL {
                    out.push_str(" ");
                    out.push_str(service.name());
                }
            }
            Wrong::Option(word) => {
                quote("unknown option", word);
                out.push_str("; known before a command are -c FILE, -d DIR, -o KEY=VALUE");
            }
            Wrong::OptionValue(letter) => {
                out.push_str("option -");
                out.push(&[letter]);
                out.push_str(" needs a value");
            }
            Wrong::TooManyOverrides => out.push_str("too many options -o"),
            Wrong::TooManyOptions => out.push_str("too many options before the command"),
            Wrong::WordOption(word) => quote("unknown option", word),
            Wrong::WordOptionValue(word) => {
                out.push(word);
                out.push_str(" needs a value");
            }
            Wrong::Missing(args) => {
                out.push_str("missing argument: ");
                out.push_str(self.command);
                out.push_str(" ");
                out.push_str(args);
            }
            Wrong::Extra(word) => quote("unexpected argument", word),
            Wrong::ReadyFd => {
                out.push_str("--ready-fd needs the number of an open descriptor above 2");
            }
        }
    }
}

/// What stands before the command.
#[derive(Default)]
pub struct Options {
    /// The value of `-c`.
    pub config: Option<&'static [u8]>,
    /// The value of `-d`.
    pub folder: Option<&'static [u8]>,
    /// The values of `-o`, in order.
    pub overrides: Vec<&'static [u8], OVERRIDES_MAX>,
}

/// What stands behind the command's name.
pub struct Operands {
    args: Args,
    /// The place of the first word behind the options.
    first: usize,
    given: u16,
    /// `--` stood before the words: none of them means anything but itself.
    pub literal: bool,
    /// The name of a service.
    pub service: Option<&'static [u8]>,
    /// The value of `--ready-fd`.
    pub ready_fd: Option<i32>,
    /// The value of `--health`.
    pub health: Option<&'static [u8]>,
    /// The value of `--child`.
    pub child: Option<&'static [u8]>,
    /// The value of `-s`.
    pub size: Option<&'static [u8]>,
    /// The value of `-n`.
    pub keep: Option<&'static [u8]>,
    /// The value of `-t`.
    pub time: Option<&'static [u8]>,
}

impl Operands {
    /// Reads the arguments from place `first` on as `command` declares them.
    #[inline(never)]
    fn parse(command: &'static Command, args: &Args, first: usize) -> Result<Self, UsageError> {
        let mut operands = Self {
            args: *args,
            first,
            given: 0,
            literal: false,
            service: None,
            ready_fd: None,
            health: None,
            child: None,
            size: None,
            keep: None,
            time: None,
        };
        operands.take_options(command)?;
        let (least, most) = match command.operand_spec {
            OperandSpec::Count(least, most) => (least, most),
            OperandSpec::Program if operands.literal => (1, usize::MAX),
            OperandSpec::Service | OperandSpec::Program => {
                operands.service = operands.get(0);
                if operands.service.is_some() {
                    operands.first = operands.first.saturating_add(1);
                    operands.take_options(command)?;
                }
                let takes_program = matches!(command.operand_spec, OperandSpec::Program) && operands.literal;
                if takes_program { (1, usize::MAX) } else { (0, 0) }
            }
        };
        if least > 0 && operands.get(least.saturating_sub(1)).is_none() {
            return Err(UsageError::of(command.name, Wrong::Missing(command.args)));
        }
        match operands.get(most) {
            None => Ok(operands),
            Some(extra) => Err(UsageError::of(command.name, Wrong::Extra(extra))),
        }
    }

    /// Takes the options at the place where the words begin.
    fn take_options(&mut self, command: &'static Command) -> Result<(), UsageError> {
        while let Some(word @ [b'-', _, ..]) = self.get(0) {
            self.first = self.first.saturating_add(1);
            if word == b"--" {
                self.literal = true;
                break;
            }
            let found = OPTIONS.iter().find_map(|(name, bit)| {
                let attached = word.strip_prefix(*name).filter(|_| command.options & bit != 0)?;
                (attached.is_empty() || name.len() == 2).then_some((*bit, attached))
            });
            let Some((bit, attached)) = found else {
                return Err(UsageError::of(command.name, Wrong::WordOption(word)));
            };
            self.given |= bit;
            if bit & option::VALUED == 0 {
                continue;
            }
            let value = if attached.is_empty() {
                let value = self.get(0).ok_or(UsageError::of(command.name, Wrong::WordOptionValue(word)))?;
                self.first = self.first.saturating_add(1);
                value
            } else {
                attached
            };
            match bit {
                option::SIZE => self.size = Some(value),
                option::KEEP => self.keep = Some(value),
                option::TIME => self.time = Some(value),
                option::READY_FD => self.ready_fd = Some(parse_ready_fd(value)?),
                option::HEALTH => self.health = Some(value),
                _ => self.child = Some(value),
            }
        }
        Ok(())
    }

    /// The words as execve(2) takes them: a program and its arguments.
    pub(super) fn program(&self) -> &'static [*const c_char] {
        self.args.tail(self.first)
    }

    /// Word `index`, counted from 0.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'static [u8]> {
        self.args.get(self.first.saturating_add(index))
    }

    /// The value of environment variable `name`, if it is set.
    pub(super) fn env(&self, name: &[u8]) -> Option<&'static [u8]> {
        self.args.env(name)
    }

    /// The names of the options that were given, and whether they have a value.
    pub fn options(&self) -> impl Iterator<Item = (&'static str, bool)> {
        names_of(self.given)
    }

    /// Whether an option was given.
    #[must_use]
    pub fn has(&self, bit: u16) -> bool {
        self.given & bit != 0
    }
}

/// The options before the command, and the place of the command.
fn parse_options(args: &Args) -> Result<(Options, usize), UsageError> {
    let wrong = |wrong| UsageError::of("", wrong);
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
        let value = value.filter(|value| !value.is_empty()).ok_or(wrong(Wrong::OptionValue(*letter)))?;
        match letter {
            b'c' => options.config = Some(value),
            b'd' => options.folder = Some(value),
            _ => options.overrides.push(value).map_err(|_| wrong(Wrong::TooManyOverrides))?,
        }
    }
    if at > OPTION_WORDS_MAX.saturating_add(1) {
        return Err(wrong(Wrong::TooManyOptions));
    }
    match args.get(at) {
        Some(word @ [b'-', ..]) if !matches!(word, b"--help" | b"-h" | b"--version" | b"-V") => {
            Err(wrong(Wrong::Option(word)))
        }
        _ => Ok((options, at)),
    }
}

fn parse_ready_fd(word: &[u8]) -> Result<i32, UsageError> {
    let number = parse_u64(word).and_then(|number| i32::try_from(number).ok());
    number.filter(|number| *number > 2).ok_or(UsageError::of("run", Wrong::ReadyFd))
}
