//! The command line: options, the command, its options, its operands. Options may also stand
//! after the operands where no operand can begin with `-`, and the options for every command
//! after the command.
//!
//! The table of commands is an argument, so that this file names no command. The options
//! are listed here: `options!` the options of commands, [`GLOBAL_OPTIONS`] the options
//! before the command.
//!
//! Nothing is printed here, and no system call made: the caller prints the description of a
//! [`UsageError`].

use super::output::push_word;
use crate::limits::{OPTION_WORDS_MAX, OVERRIDES_MAX};
use crate::proto::service::{BUILT_IN, Service, is_program_name};
use crate::sys::args::Args;
use crate::util::nearest::push_nearest;
use crate::util::string_table::StringTable;
use crate::util::string_table::string_table;
use crate::util::text::{Writer, parse_u64};
use core::ffi::c_char;
use heapless::Vec;

/// The options before the command: name, value, help.
pub static GLOBAL_OPTIONS: StringTable = string_table![
    "-c",
    "FILE",
    "the configuration file",
    "-d",
    "DIR",
    "put every file below DIR",
    "-o",
    "KEY=VALUE",
    "set one configuration key",
];

/// Declares the options of commands: their names, and the words for their values.
macro_rules! options {
    ($($option:ident = $name:literal $value:literal),* $(,)?) => {
        /// An option of a command.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub(super) enum CommandOption {
            $(#[doc = concat!("`", $name, " ", $value, "`")] $option),*
        }

        impl CommandOption {
            const ALL: &[Self] = &[$(Self::$option),*];
        }

        /// The name of each option, and the word for its value; empty if it has no value.
        static OPTIONS: StringTable = string_table![$($name, $value),*];
    };
}

// The options with a value come first: see `Operands::values`.
options! {
    ReadyFd = "--ready-fd" "N",
    Health = "--health" "FILE",
    Child = "--child" "FOLDER",
    Again = "--again" "FOLDER",
    After = "--after" "DURATION",
    Size = "-s" "SIZE",
    Keep = "-n" "KEEP",
    Time = "-t" "TIME",
    Json = "--json" "",
    Prometheus = "--prometheus" "",
    Wait = "--wait" "",
    Dump = "--dump" "",
    Now = "--now" "",
    All = "--all" "",
    Persist = "-p" "",
}

/// The number of options with a value.
const VALUED: usize = CommandOption::Json as usize;

impl CommandOption {
    fn name(self) -> &'static str {
        OPTIONS.get(self as usize * 2)
    }

    fn value(self) -> &'static str {
        OPTIONS.get(self as usize * 2 + 1)
    }
}

/// A set of options.
#[derive(Clone, Copy)]
pub(super) struct OptionSet(u16);

impl OptionSet {
    /// Returns the set of these options.
    pub(super) const fn of(options: &[CommandOption]) -> Self {
        let (mut bits, mut rest) = (0, options);
        while let [option, others @ ..] = rest {
            bits |= 1 << *option as u16;
            rest = others;
        }
        Self(bits)
    }

    fn has(self, option: CommandOption) -> bool {
        self.0 & 1 << option as u16 != 0
    }

    fn iter(self) -> impl Iterator<Item = CommandOption> {
        CommandOption::ALL.iter().copied().filter(move |option| self.has(*option))
    }
}

/// The operands that a command takes after its options.
#[derive(Clone, Copy)]
pub(super) enum OperandSpec {
    /// The name of a service, or nothing.
    Service,
    /// The name of a service, or nothing; for the supervisor also `--` and a program with
    /// its arguments.
    Program,
    /// At least and at most this many words.
    Count(u8, u8),
    /// At least this many words.
    AtLeast(u8),
}

/// The part of a command's entry that is not text.
#[derive(Clone, Copy)]
pub(super) struct CommandSpec {
    pub(super) options: OptionSet,
    pub(super) operands: OperandSpec,
}

/// A command of the program, without its function.
#[derive(Clone, Copy)]
pub struct Command {
    /// The index in the table.
    pub(super) index: usize,
    /// The name.
    pub name: &'static str,
    /// The arguments, for users. A word in capitals stands for a value, `[]` encloses what
    /// can be left out, `|` separates alternatives.
    pub args: &'static str,
    /// The purpose, in one line.
    pub summary: &'static str,
    /// The rest of the help: exit codes and options. Two blanks separate an option, or a
    /// form of the command, from its explanation.
    pub details: &'static str,
    spec: CommandSpec,
}

impl Command {
    /// Returns the name of each option of the command, and the word for its value; empty
    /// if the option has no value.
    pub fn options(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.spec.options.iter().map(|option| (option.name(), option.value()))
    }

    /// Returns true if users may give the option. The others are for the program itself.
    #[must_use]
    pub fn is_public(name: &str) -> bool {
        ![CommandOption::Child.name(), CommandOption::Again.name()].contains(&name)
    }

    /// Returns the option of this command that a word is, and the value that is attached to it.
    fn option<'a>(&self, word: &'a [u8]) -> Option<(CommandOption, &'a [u8])> {
        self.spec.options.iter().find_map(|option| {
            let attached = word.strip_prefix(option.name().as_bytes())?;
            let attaches = option.name().len() == 2 && !option.value().is_empty();
            (attached.is_empty() || attaches).then_some((option, attached))
        })
    }
}

/// The commands, in the order of `help`.
pub struct CommandTable {
    /// For each command four strings: name, arguments, summary, details.
    pub(super) texts: StringTable,
    pub(super) specs: &'static [CommandSpec],
}

impl CommandTable {
    /// Returns all commands.
    pub fn iter(&self) -> impl Iterator<Item = Command> {
        self.specs.iter().enumerate().map(|(index, spec)| {
            let text = |column: usize| self.texts.get(index.saturating_mul(4).saturating_add(column));
            Command { index, name: text(0), args: text(1), summary: text(2), details: text(3), spec: *spec }
        })
    }

    /// Describes a word that is no command, with the nearest command if one is near.
    pub(super) fn unknown(&self, text: &str, word: &[u8], out: &mut Writer<'_>) -> UsageError {
        let error = UsageError::word("", text, word, out);
        push_nearest(word, &mut self.iter().map(|command| command.name), out);
        error
    }

    /// Returns the command with this name.
    pub(super) fn find(&self, name: &[u8]) -> Option<Command> {
        self.iter().find(|command| command.name.as_bytes() == name)
    }
}

/// A whole command line.
pub struct CommandLine {
    /// The index of the command among the arguments.
    pub at: usize,
    /// The command.
    pub command: Command,
    /// The service that the command is about; [`Service::DEFAULT`] if the command line names none.
    pub service: Service,
    /// The program that the command is about, instead of a service.
    pub program: Option<&'static [u8]>,
    /// The words after the command.
    pub operands: Operands,
}

impl CommandLine {
    /// Reads all arguments. The options before the command are put into `options`, which is a
    /// parameter because copies of it would fill a small stack.
    ///
    /// # Errors
    /// The command line has a mistake. It is described in `out`.
    #[inline(never)]
    pub fn parse(
        commands: &CommandTable,
        args: &Args,
        options: &mut Options,
        out: &mut Writer<'_>,
    ) -> Result<Self, UsageError> {
        let mut at = parse_options(args, options, out)?;
        let name = match args.get(at).ok_or_else(|| UsageError::of("", &[b"a command is missing"], out))? {
            b"--help" | b"-h" => &b"help"[..],
            b"--version" | b"-V" => b"version",
            name => name,
        };
        let Some(mut command) = commands.find(name) else {
            return Err(commands.unknown("unknown command", name, out));
        };
        let mut operands = Operands::parse(&command, args, &mut at, out)?;
        if operands.wants_help {
            // The name of the command is the one operand of `help`, which `--help` itself has not.
            let is_named = args.get(at) == Some(name);
            (operands.first, operands.given) = (at, OptionSet(0));
            (operands.args, operands.service) = (args.up_to(at.saturating_add(usize::from(is_named))), None);
            command = commands.find(b"help").unwrap_or(command);
        }
        // Those after the command have been moved before it.
        *options = Options::default();
        parse_options(args, options, out)?;
        let program =
            operands.service.filter(|word| Service::Supervisor.is_built_in() && is_program_name(word));
        let service = match operands.service {
            Some(_) if program.is_some() => Service::Supervisor,
            Some(word) => find_service(word).map_err(|text| {
                let error = UsageError::word(command.name, text, word, out);
                push_services("; known are", out);
                error
            })?,
            None => Service::DEFAULT,
        };
        Ok(Self { at, command, service, program, operands })
    }
}

/// Returns the service with this name.
///
/// # Errors
/// This build contains no such service; the reason.
fn find_service(name: &[u8]) -> Result<Service, &'static str> {
    match Service::from_name(name) {
        Some(service) if service.is_built_in() => Ok(service),
        Some(_) => Err("this build is without the feature"),
        None => Err("unknown service"),
    }
}

/// Writes `text` and the services that this build contains.
pub(super) fn push_services(text: &str, out: &mut Writer<'_>) {
    out.push_str(text);
    for service in BUILT_IN {
        out.push_str(" ");
        out.push_str(service.name());
    }
}

/// A mistake in the command line, which has been described.
#[derive(Clone, Copy, Debug)]
pub struct UsageError {
    /// The command whose help explains more; empty for the help of the program.
    pub command: &'static str,
}

impl UsageError {
    /// Describes a mistake by a text in parts.
    fn of(command: &'static str, parts: &[&[u8]], out: &mut Writer<'_>) -> Self {
        parts.iter().for_each(|part| out.push(part));
        Self { command }
    }

    /// Describes a mistake by a text and the wrong word.
    fn word(command: &'static str, text: &str, word: &[u8], out: &mut Writer<'_>) -> Self {
        push_word(text, word, out);
        Self { command }
    }
}

/// Writes name and value of an option of [`GLOBAL_OPTIONS`].
pub(super) fn push_global_option(index: usize, out: &mut Writer<'_>) {
    out.push_str(GLOBAL_OPTIONS.get(index.saturating_mul(3)));
    out.push_str(" ");
    out.push_str(GLOBAL_OPTIONS.get(index.saturating_mul(3).saturating_add(1)));
}

/// The options before the command.
#[derive(Default)]
pub struct Options {
    /// The value of `-c`.
    pub config: Option<&'static [u8]>,
    /// The value of `-d`.
    pub folder: Option<&'static [u8]>,
    /// The values of `-o`, in order.
    pub overrides: Vec<&'static [u8], OVERRIDES_MAX>,
}

/// The words after the command's name.
#[derive(Clone, Copy)]
pub struct Operands {
    args: Args,
    /// The index of the first word after the options.
    first: usize,
    given: OptionSet,
    /// The values of the options that have one.
    values: [&'static [u8]; VALUED],
    /// Set if `--help` stands among the options.
    wants_help: bool,
    /// Set if `--` stood before the words: each of them is taken as it is.
    pub literal: bool,
    /// The name of a service.
    pub service: Option<&'static [u8]>,
}

impl Operands {
    /// Returns the options before the command.
    pub(super) fn global_options(&self) -> Options {
        let mut options = Options::default();
        // They were read without a mistake before.
        let _ = parse_options(&self.args, &mut options, &mut Writer::new(&mut []));
        options
    }

    /// Reads the arguments after the command, which is at index `at`, as the entry of `command`
    /// asks. Options for every command are moved before the command.
    #[inline(never)]
    fn parse(
        command: &Command,
        args: &Args,
        at: &mut usize,
        out: &mut Writer<'_>,
    ) -> Result<Self, UsageError> {
        let mut operands = Self {
            args: *args,
            first: at.saturating_add(1),
            given: OptionSet(0),
            values: [&[]; VALUED],
            wants_help: false,
            literal: false,
            service: None,
        };
        operands.take_options(command, at, out)?;
        let program = (1, usize::MAX);
        let (least, most) = match command.spec.operands {
            OperandSpec::Count(least, most) => (usize::from(least), usize::from(most)),
            OperandSpec::AtLeast(least) => (usize::from(least), usize::MAX),
            OperandSpec::Program if operands.literal => program,
            spec => {
                operands.service = operands.get(0);
                if operands.service.is_some() {
                    operands.first = operands.first.saturating_add(1);
                    operands.take_options(command, at, out)?;
                }
                if matches!(spec, OperandSpec::Program) && operands.literal { program } else { (0, 0) }
            }
        };
        if operands.wants_help {
            return Ok(operands);
        }
        if least > 0 && operands.get(least.saturating_sub(1)).is_none() {
            let missing = [b"missing argument: ", command.name.as_bytes(), b" ", command.args.as_bytes()];
            return Err(UsageError::of(command.name, &missing, out));
        }
        match operands.get(most) {
            None => Ok(operands),
            Some(extra) => Err(UsageError::word(command.name, "unexpected argument", extra, out)),
        }
    }

    /// Takes the options at the index where the words begin. The value of an option with a
    /// single letter may be attached to it.
    fn take_options(
        &mut self,
        command: &Command,
        at: &mut usize,
        out: &mut Writer<'_>,
    ) -> Result<(), UsageError> {
        loop {
            self.bring_option(command);
            let Some(word @ [b'-', _, ..]) = self.get(0) else { break };
            let position = self.first;
            self.first = self.first.saturating_add(1);
            if word == b"--" {
                self.literal = true;
                break;
            }
            if is_help(word) {
                self.wants_help = true;
                break;
            }
            if let Some(attached) = global_option(word) {
                let count = if attached.is_empty() { 2 } else { 1 };
                if attached.is_empty() && self.get(0).is_none_or(<[u8]>::is_empty) {
                    return Err(UsageError::of(command.name, &[b"option ", word, b" needs a value"], out));
                }
                self.args.move_before(position, count, *at);
                *at = at.saturating_add(count);
                self.first = position.saturating_add(count);
                continue;
            }
            let Some((option, attached)) = command.option(word) else {
                return Err(UsageError::word(command.name, "unknown option", word, out));
            };
            self.given.0 |= OptionSet::of(&[option]).0;
            let Some(value) = self.values.get_mut(option as usize) else { continue };
            *value = attached;
            if attached.is_empty() {
                let Some(next) = self.args.get(self.first) else {
                    return Err(UsageError::of(command.name, &[word, b" needs a value"], out));
                };
                *value = next;
                self.first = self.first.saturating_add(1);
            }
        }
        if self.has(CommandOption::ReadyFd) && self.ready_fd().is_none() {
            let text = b"--ready-fd needs the number of an open descriptor above 2";
            return Err(UsageError::of(command.name, &[text], out));
        }
        Ok(())
    }

    /// Moves the next option after an operand before the operands, where the command takes a
    /// limited number of them: none of these looks like an option of the command.
    fn bring_option(&self, command: &Command) {
        if !matches!(command.spec.operands, OperandSpec::Count(..)) {
            return;
        }
        for index in 0.. {
            let (mut count, found) = (
                1,
                match self.get(index) {
                    None | Some(b"--") => return,
                    Some(word) => word,
                },
            );
            let value = match (global_option(found), command.option(found)) {
                (Some(attached), _) => Some(attached),
                (_, Some((option, attached))) if !option.value().is_empty() => Some(attached),
                (_, Some(_)) => None,
                _ if is_help(found) => None,
                _ => continue,
            };
            if value.is_some_and(<[u8]>::is_empty) {
                count = 2;
                // Without its value it stays, and is one operand too many.
                if self.get(index.saturating_add(1)).is_none() {
                    return;
                }
            }
            return self.args.move_before(self.first.saturating_add(index), count, self.first);
        }
    }

    /// Returns the descriptor that `--ready-fd` names.
    pub(super) fn ready_fd(&self) -> Option<i32> {
        let number = self.value(CommandOption::ReadyFd).and_then(parse_u64)?;
        i32::try_from(number).ok().filter(|number| *number > 2)
    }

    /// Returns the words as execve(2) takes them: a program and its arguments.
    pub(super) fn program(&self) -> &'static [*const c_char] {
        self.args.tail(self.first)
    }

    /// Returns word `index`, counted from 0.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'static [u8]> {
        self.args.get(self.first.saturating_add(index))
    }

    /// Returns the value of environment variable `name`, if it is set.
    pub(super) fn env(&self, name: &[u8]) -> Option<&'static [u8]> {
        self.args.env(name)
    }

    /// Returns the name of each option that was given, and its value if it has one.
    pub fn options(&self) -> impl Iterator<Item = (&'static str, Option<&'static [u8]>)> {
        self.given.iter().map(|option| (option.name(), self.value(option)))
    }

    /// Returns true if the option was given.
    pub(super) fn has(&self, option: CommandOption) -> bool {
        self.given.has(option)
    }

    /// Returns the value of an option, if it was given and has a value.
    pub(super) fn value(&self, option: CommandOption) -> Option<&'static [u8]> {
        self.values.get(option as usize).copied().filter(|_| self.has(option))
    }
}

/// Returns the value that is attached to an option for every command; empty if there is none.
fn global_option(word: &[u8]) -> Option<&[u8]> {
    match word {
        [b'-', b'c' | b'd' | b'o', attached @ ..] => Some(attached),
        _ => None,
    }
}

fn is_help(word: &[u8]) -> bool {
    matches!(word, b"--help" | b"-h")
}

/// Reads the options before the command into `options`. Returns the index of the command.
fn parse_options(args: &Args, options: &mut Options, out: &mut Writer<'_>) -> Result<usize, UsageError> {
    let mut at = 1;
    while let Some([b'-', letter @ (b'c' | b'd' | b'o'), attached @ ..]) = args.get(at) {
        at = at.saturating_add(1);
        let mut value = Some(attached);
        if attached.is_empty() {
            value = args.get(at);
            at = at.saturating_add(1);
        }
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            return Err(UsageError::of("", &[b"option -", &[*letter], b" needs a value"], out));
        };
        match letter {
            b'c' => options.config = Some(value),
            b'd' => options.folder = Some(value),
            _ if options.overrides.push(value).is_ok() => {}
            _ => return Err(UsageError::of("", &[b"too many options -o"], out)),
        }
    }
    if at > OPTION_WORDS_MAX.saturating_add(1) {
        return Err(UsageError::of("", &[b"too many options before the command"], out));
    }
    match args.get(at) {
        Some(word @ [b'-', ..]) if !matches!(word, b"--help" | b"-h" | b"--version" | b"-V") => {
            let error = UsageError::word("", "unknown option", word, out);
            let mut before = "; known before a command are ";
            for index in 0..GLOBAL_OPTIONS.len() / 3 {
                out.push_str(before);
                push_global_option(index, out);
                before = ", ";
            }
            Err(error)
        }
        _ => Ok(at),
    }
}
