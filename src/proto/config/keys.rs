//! Reads and writes the value of each configuration key.

pub use super::table::{KEYS, Key, KeyKind, Keyed, PROGRAM_KEYS};

use super::table::{
    AccountName, Config, ConfigField, LeftoverMode, Program, ReadyMode, RestartMode, SyncMode, TakeMode,
    WatchdogOnStop,
};
use super::value::{emit_duration, emit_size, parse_duration, parse_size};
use crate::limits::{
    ALLOW_IDS_MAX, ALLOW_PATHS_BYTES, COMMAND_WORDS_BYTES, COMMAND_WORDS_MAX, HANDLER_WORDS_MAX,
    METRICS_NAME_MAX_BYTES, NAME_MAX_BYTES, PATH_MAX_BYTES, PROGRAM_NAME_BYTES, PROGRAMS_MAX,
};
use crate::proto::log::{Level, TimestampFormat};
use crate::proto::service::{Service, is_program_name};
use crate::proto::signal;
use crate::util::path::Path;
use crate::util::text::{Writer, parse_u64, text_with_number, trim};
use crate::util::time::Duration;
use heapless::{Vec, VecView};
use ufmt::uwrite;

/// A value as the file or an option gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scalar<'a> {
    /// A text in quotes.
    Text(&'a [u8]),
    /// A number without quotes.
    Integer(u64),
    /// The bare word `true` or `false`.
    Boolean(bool),
    /// The bare text of an option. The key decides its type.
    Bare(&'a [u8]),
}

impl Config {
    /// Sets every value to its default. The files are below `folder`, or in the places of the
    /// system if `folder` is empty. Returns true if all paths fit.
    pub fn reset(&mut self, folder: &Path) -> bool {
        let fits = KEYS.iter().all(|key| key.reset(self, folder).is_some());
        self.log_file_named = false;
        fits
    }

    /// Returns the names of the services and programs that the supervisor keeps running.
    pub fn supervised(&self) -> impl Iterator<Item = &[u8]> {
        allowed_paths(&self.supervise)
    }

    /// Moves the files that are below /run to /var/run.
    pub fn use_var_run(&mut self) {
        for path in [&mut self.pid_file, &mut self.socket, &mut self.health_file] {
            if path.as_bytes().starts_with(b"/run/")
                && let Some(moved) = Path::concat(&[b"/var", path.as_bytes()])
            {
                path.set(&moved);
            }
        }
    }
}

impl Program {
    /// Sets every value to its default. The log is the one that has no name.
    pub fn reset(&mut self) {
        self.lines.fill(0);
        for key in PROGRAM_KEYS {
            let _ = key.reset(self, &Path::empty());
        }
    }

    /// Returns the words of the command.
    pub fn words(&self) -> impl Iterator<Item = &[u8]> {
        words(&self.command)
    }

    /// Returns the variables of the environment.
    pub fn variables(&self) -> impl Iterator<Item = &[u8]> {
        words(&self.env)
    }

    /// Returns the names of the services and programs that are ready before.
    pub fn after(&self) -> impl Iterator<Item = &[u8]> {
        words(&self.after)
    }

    /// Returns how the program shows that it is ready.
    #[must_use]
    pub fn ready(&self) -> ReadyMode {
        ReadyMode::ALL.get(usize::from(self.ready)).copied().unwrap_or(ReadyMode::Start)
    }

    /// Returns after which ends the program is started again.
    #[must_use]
    pub fn restart(&self) -> RestartMode {
        RestartMode::ALL.get(usize::from(self.restart)).copied().unwrap_or(RestartMode::Always)
    }

    /// Returns true if what the program prints is not logged.
    #[must_use]
    pub fn has_no_log(&self) -> bool {
        self.log_file.as_bytes() == NO_LOG
    }

    /// Returns the line of the key `name` in the file, or the first line.
    #[must_use]
    pub fn line_of(&self, name: &str) -> u32 {
        let at = PROGRAM_KEYS.iter().position(|key| key.name == name);
        at.and_then(|at| self.lines.get(at)).map_or(1, |line| (*line).max(1))
    }
}

/// The value of a program's `log_file` that stands for no log.
const NO_LOG: &[u8] = b"null";

impl Config {
    /// Appends a word of the handler after its program. Returns `None` if it does not fit.
    fn push_handler_word(&mut self, word: &[u8]) -> Option<()> {
        let is_program = self.handler.as_bytes().first() == Some(&b'/');
        let count = allowed_paths(&self.handler_words).count();
        if !is_program || word.is_empty() || word.contains(&0) || count >= HANDLER_WORDS_MAX {
            return None;
        }
        self.handler_words.extend_from_slice(word).ok()?;
        self.handler_words.push(0).ok()
    }
}

impl Key {
    /// Returns the key called `name`, and its index in [`KEYS`].
    #[must_use]
    pub fn named(name: &[u8]) -> Option<(usize, &'static Self)> {
        KEYS.iter().enumerate().find(|(_, key)| key.name.as_bytes() == name)
    }

    /// Returns true if the value is an array. Such a key also accepts a single value.
    #[must_use]
    pub fn is_list(&self) -> bool {
        matches!(
            self.kind,
            KeyKind::Accounts
                | KeyKind::Names
                | KeyKind::Paths(_)
                | KeyKind::Handler
                | KeyKind::Command
                | KeyKind::Variables
        )
    }

    /// Empties a list before its elements are set. Does nothing for other keys.
    pub fn clear(&self, config: &mut dyn Keyed) {
        if matches!(self.kind, KeyKind::Handler)
            && let Some(config) = config.config()
        {
            config.handler.set(&Path::empty());
            config.handler_words.clear();
        }
        match config.field(self.id) {
            ConfigField::Accounts(list) => list.clear(),
            ConfigField::Words(list) => list.clear(),
            _ => {}
        }
    }

    /// Sets the default value. Returns `None` if a default path would be too long.
    fn reset(&self, config: &mut dyn Keyed, folder: &Path) -> Option<()> {
        match (self.kind, config.field(self.id)) {
            (KeyKind::File(name), ConfigField::Path(path)) if !folder.is_empty() => {
                path.assign(&[folder.as_bytes(), b"/", name.as_bytes()]).then_some(())
            }
            (KeyKind::LogFile, ConfigField::Path(path)) => path.assign(&[]).then_some(()),
            (KeyKind::Abstract, ConfigField::Words(name)) if !folder.is_empty() => {
                // The end of the folder is kept if it is too long, because the paths of two
                // folders differ at their end rather than at their start.
                let folder = folder.as_bytes();
                name.clear();
                name.extend_from_slice(self.default.as_bytes()).ok()?;
                name.push(b':').ok()?;
                let room = METRICS_NAME_MAX_BYTES.saturating_sub(name.len());
                name.extend_from_slice(folder.get(folder.len().saturating_sub(room)..).unwrap_or(folder)).ok()
            }
            _ => self.set_bare(config, folder, self.default.as_bytes()),
        }
    }

    /// Stores the bare value of an option. Commas separate the items of a list. Returns `None`
    /// if a value is not one that [`Key::describe`] allows.
    #[must_use]
    pub(super) fn set_bare(&self, config: &mut dyn Keyed, base: &Path, value: &[u8]) -> Option<()> {
        self.clear(config);
        if !self.is_list() || matches!(self.kind, KeyKind::Handler) {
            return self.set(config, base, Scalar::Bare(value));
        }
        let mut items = value.split(|byte| *byte == b',').map(trim).filter(|item| !item.is_empty());
        items.try_for_each(|item| self.set(config, base, Scalar::Bare(item)))
    }

    /// Stores `value`, or appends it to a list. A relative path is taken below `base`. Returns
    /// `None` if the value is not one that [`Key::describe`] allows.
    #[must_use]
    pub fn set(&self, config: &mut dyn Keyed, base: &Path, value: Scalar<'_>) -> Option<()> {
        if let Some(config) = config.config() {
            config.log_file_named |= self.name == "log_file";
            if matches!(self.kind, KeyKind::Handler) && !config.handler.is_empty() {
                return config.push_handler_word(text(value)?);
            }
        }
        match (self.kind, config.field(self.id)) {
            (KeyKind::File(_), ConfigField::Path(field)) => *field = absolute(base, text(value)?)?,
            (KeyKind::Device, ConfigField::Path(field)) => {
                *field = match text(value)? {
                    b"" => Path::empty(),
                    path => absolute(base, path)?,
                }
            }
            (KeyKind::Handler, ConfigField::Path(field)) => {
                *field = match text(value)? {
                    name @ (b"log" | b"shell") => Path::new(name)?,
                    path if path.contains(&b'/') => absolute(base, path)?,
                    _ => return None,
                }
            }
            (KeyKind::Size, ConfigField::Bytes(field)) => *field = size(value)?,
            (KeyKind::Duration(low, high, zero), ConfigField::Span(field)) => {
                let span = duration(value)?;
                let allowed = (zero && span.is_zero()) || (bound(low)..=bound(high)).contains(&span);
                *field = Some(span).filter(|_| allowed)?;
            }
            (KeyKind::Count(low, high), ConfigField::Number(field)) => {
                *field = u32::try_from(count(value)?).ok().filter(|n| (low..=high).contains(n))?;
            }
            (_, ConfigField::Level(field)) => *field = Level::from_name(text(value)?)?,
            (_, ConfigField::Timestamp(field)) => *field = TimestampFormat::from_name(text(value)?)?,
            (_, ConfigField::Leftovers(field)) => *field = LeftoverMode::from_name(text(value)?)?,
            (_, ConfigField::Take(field)) => *field = TakeMode::from_name(text(value)?)?,
            (_, ConfigField::Sync(field)) => *field = SyncMode::from_name(text(value)?)?,
            (_, ConfigField::WatchdogOnStop(field)) => *field = WatchdogOnStop::from_name(text(value)?)?,
            (KeyKind::Flag, ConfigField::Flag(field)) => *field = flag(value)?,
            (KeyKind::Account, ConfigField::Account(field)) => *field = account(value)?,
            (KeyKind::Accounts, ConfigField::Accounts(list)) => {
                list.push(account(value).filter(|name| !name.is_empty())?).ok()?;
            }
            (KeyKind::Choice(names), ConfigField::Choice(field)) => {
                *field = names().find(text(value)?)?.try_into().ok()?;
            }
            (KeyKind::Signal(optional), ConfigField::Choice(field)) => {
                *field = match text(value)? {
                    b"" if optional => 0,
                    name => signal::parse(name)?,
                };
            }
            (KeyKind::Names, ConfigField::Words(list)) => {
                let name = text(value)?;
                let service = Service::from_name(name);
                let programs = words(list).filter(|name| Service::from_name(name).is_none()).count();
                let fits = match service {
                    Some(service) => service != Service::Supervisor && service.is_built_in(),
                    None => is_program_name(name) && programs < PROGRAMS_MAX,
                };
                if !fits || words(list).any(|known| known == name) {
                    return None;
                }
                push_word(list, name)?;
            }
            (KeyKind::Command, ConfigField::Words(list)) => {
                let word = text(value)?;
                // The path is not searched for, so that it is clear which file is meant.
                if list.is_empty() && (word.first() != Some(&b'/') || Path::new(word).is_none()) {
                    return None;
                }
                push_command_word(list, word)?;
            }
            (KeyKind::Variables, ConfigField::Words(list)) => {
                let word = text(value)?;
                word.iter().position(|byte| *byte == b'=').filter(|equals| *equals > 0)?;
                push_command_word(list, word)?;
            }
            (KeyKind::LogFile, ConfigField::Path(field)) => {
                *field = match text(value)? {
                    NO_LOG => Path::new(NO_LOG)?,
                    path => absolute(base, path)?,
                }
            }
            (KeyKind::Octal, ConfigField::Number(field)) => {
                let digits = text(value).filter(|digits| (3..=4).contains(&digits.len()))?;
                let digits = core::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'))?;
                *field = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o777)?;
            }
            (KeyKind::Paths(most), ConfigField::Words(list)) => {
                let path = text(value)?;
                // A path with a newline could never match, because a newline ends the path in
                // a request.
                let can_be_asked =
                    path.first() == Some(&b'/') && !path.contains(&0) && !path.contains(&b'\n');
                if !can_be_asked || allowed_paths(list).count() >= most {
                    return None;
                }
                Path::new(path)?;
                push_word(list, path)?;
            }
            (KeyKind::Abstract, ConfigField::Words(field)) => {
                let name = text(value).filter(|name| !name.is_empty() && !name.contains(&0))?;
                field.clear();
                field.extend_from_slice(name).ok()?;
            }
            _ => return None,
        }
        Some(())
    }

    /// Writes the allowed values, for error messages.
    pub fn describe(&self, out: &mut Writer<'_>) {
        let text = match self.kind {
            KeyKind::File(_) => text_with_number!("a path of 1 to ", PATH_MAX_BYTES, " bytes"),
            KeyKind::Handler => {
                "log, shell, or the path of a program or directory (with a /), or [\"/PATH\", \"WORD\"...]"
            }
            KeyKind::Device => "a path, or \"\" for none",
            KeyKind::Size => "bytes, with k or m for 1024 or 1048576, such as \"64k\"",
            KeyKind::Duration(low, high, zero) => {
                out.push_str("a duration from ");
                emit_duration(bound(low), out);
                out.push_str(" to ");
                emit_duration(bound(high), out);
                out.push_str(" with a unit of ms, s, m or h, such as \"3s\"");
                if zero { ", or \"0\"" } else { "" }
            }
            KeyKind::Count(low, high) => {
                let _ = uwrite!(out, "a number from {} to {}", low, high);
                ""
            }
            KeyKind::Choice(names) => {
                out.push_str("one of");
                for name in names().iter() {
                    let _ = uwrite!(out, " \"{}\"", name);
                }
                ""
            }
            KeyKind::Signal(_) => "the name of a signal, such as \"TERM\"",
            KeyKind::Flag => "true or false",
            KeyKind::Account => {
                text_with_number!("a name or number of at most ", NAME_MAX_BYTES, " bytes, in quotes")
            }
            KeyKind::Accounts => {
                text_with_number!("a name or number, or an array of at most ", ALLOW_IDS_MAX, " of them")
            }
            KeyKind::Names => {
                push_services("an array of ", true, out);
                let _ = uwrite!(
                    out,
                    " and up to {} programs, each once; a program has 1 to {} bytes of a-z 0-9 . _ - and the \
                     name of no command",
                    PROGRAMS_MAX,
                    PROGRAM_NAME_BYTES
                );
                push_services("; this build is without the feature ", false, out);
                ""
            }
            KeyKind::Command => {
                describe_words("an absolute path and its arguments, an array of at most ", " words", out);
                ""
            }
            KeyKind::Variables => {
                describe_words("an array of at most ", " variables \"KEY=VALUE\"", out);
                ""
            }
            KeyKind::LogFile => text_with_number!("\"null\", or a path of 1 to ", PATH_MAX_BYTES, " bytes"),
            KeyKind::Octal => "three octal digits in quotes, such as \"022\"",
            KeyKind::Paths(most) => {
                let _ = uwrite!(
                    out,
                    "an array of at most {} absolute paths without newlines, {} bytes in all",
                    most,
                    ALLOW_PATHS_BYTES
                );
                ""
            }
            KeyKind::Abstract => {
                let _ = uwrite!(out, "a name of 1 to {} bytes", METRICS_NAME_MAX_BYTES);
                ""
            }
        };
        out.push_str(text);
    }

    /// Writes the value in `config` as TOML.
    pub fn emit(&self, config: &mut dyn Keyed, out: &mut Writer<'_>) {
        if matches!(self.kind, KeyKind::Handler)
            && let Some(config) = config.config().filter(|config| !config.handler_words.is_empty())
        {
            let program = core::iter::once(config.handler.as_bytes());
            return array(&mut program.chain(allowed_paths(&config.handler_words)), out);
        }
        match config.field(self.id) {
            ConfigField::None => {}
            ConfigField::Choice(index) => {
                let name = match self.kind {
                    KeyKind::Choice(names) => names().get(usize::from(*index)),
                    _ => signal::name_of(*index),
                };
                quote(name.as_bytes(), out);
            }
            ConfigField::Number(mode) if matches!(self.kind, KeyKind::Octal) => {
                let digit = |shift: u32| b'0'.saturating_add((*mode >> shift & 7).try_into().unwrap_or(0));
                quote(&[6, 3, 0].map(digit), out);
            }
            ConfigField::Path(path) => quote(path.as_bytes(), out),
            ConfigField::Bytes(bytes) => quoted(out, |out| emit_size(*bytes, out)),
            ConfigField::Span(span) => quoted(out, |out| emit_duration(*span, out)),
            ConfigField::Number(number) => out.push_u64(u64::from(*number)),
            ConfigField::Level(level) => quote(level.name().as_bytes(), out),
            ConfigField::Timestamp(format) => quote(format.name().as_bytes(), out),
            ConfigField::Leftovers(mode) => quote(mode.name().as_bytes(), out),
            ConfigField::Take(mode) => quote(mode.name().as_bytes(), out),
            ConfigField::Sync(mode) => quote(mode.name().as_bytes(), out),
            ConfigField::WatchdogOnStop(what) => quote(what.name().as_bytes(), out),
            ConfigField::Flag(flag) => out.push_str(if *flag { "true" } else { "false" }),
            ConfigField::Account(name) => quote(name, out),
            ConfigField::Accounts(list) => array(&mut list.iter().map(Vec::as_slice), out),
            ConfigField::Words(name) if matches!(self.kind, KeyKind::Abstract) => quote(name, out),
            ConfigField::Words(list) => array(&mut words(list), out),
        }
    }
}

/// Writes `text` and the services that `supervise` can name, or those that this build left out.
fn push_services(text: &str, built_in: bool, out: &mut Writer<'_>) {
    let mut before = text;
    for service in Service::ALL {
        if service != Service::Supervisor && service.is_built_in() == built_in {
            let _ = uwrite!(out, "{}\"{}\"", before, service.name());
            before = ", ";
        }
    }
    if built_in && before == text {
        out.push_str("an array of no services");
    }
}

/// Returns a bound of the table as a duration.
fn bound(ms: u32) -> Duration {
    Duration::from_ms(u64::from(ms))
}

/// Returns the entries of `allow` or `trust`, or the words of the handler. A NUL byte ends each.
pub fn allowed_paths(allow: &[u8]) -> impl Iterator<Item = &[u8]> {
    allow.split(|byte| *byte == 0).filter(|path| !path.is_empty())
}

/// Returns words of which a NUL byte ends each. They can be empty.
fn words(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split_inclusive(|byte| *byte == 0).map(|word| word.strip_suffix(&[0]).unwrap_or(word))
}

/// Appends a word. Returns `None` if it does not fit, or holds a NUL byte.
fn push_word(list: &mut VecView<u8>, word: &[u8]) -> Option<()> {
    if word.contains(&0) || list.capacity().saturating_sub(list.len()) <= word.len() {
        return None;
    }
    list.extend_from_slice(word).ok()?;
    list.push(0).ok()
}

/// Appends a word of a command or a variable. Returns `None` if it does not fit.
fn push_command_word(list: &mut VecView<u8>, word: &[u8]) -> Option<()> {
    let count = words(list).count();
    let bytes = list.len().saturating_sub(count).saturating_add(word.len());
    if count >= COMMAND_WORDS_MAX || bytes > COMMAND_WORDS_BYTES {
        return None;
    }
    push_word(list, word)
}

/// Writes what is allowed for a list of words.
fn describe_words(begin: &str, end: &str, out: &mut Writer<'_>) {
    let _ = uwrite!(out, "{}{}{}, {} bytes in all", begin, COMMAND_WORDS_MAX, end, COMMAND_WORDS_BYTES);
}

fn array(items: &mut dyn Iterator<Item = &[u8]>, out: &mut Writer<'_>) {
    out.push_str("[");
    for (index, item) in items.enumerate() {
        out.push_str(if index == 0 { "" } else { ", " });
        quote(item, out);
    }
    out.push_str("]");
}

/// Writes a basic string of TOML, with the escapes of JSON, which TOML shares.
fn quote(text: &[u8], out: &mut Writer<'_>) {
    quoted(out, |out| out.push_json(text));
}

fn quoted(out: &mut Writer<'_>, write: impl FnOnce(&mut Writer<'_>)) {
    out.push_str("\"");
    write(out);
    out.push_str("\"");
}

fn text(value: Scalar<'_>) -> Option<&[u8]> {
    match value {
        Scalar::Text(text) | Scalar::Bare(text) => Some(text),
        Scalar::Integer(_) | Scalar::Boolean(_) => None,
    }
}

fn count(value: Scalar<'_>) -> Option<u64> {
    match value {
        Scalar::Integer(number) => Some(number),
        Scalar::Bare(text) => parse_u64(text),
        Scalar::Text(_) | Scalar::Boolean(_) => None,
    }
}

fn size(value: Scalar<'_>) -> Option<u64> {
    match value {
        Scalar::Integer(number) => Some(number),
        _ => parse_size(text(value)?),
    }
    // The bound is larger than any file, and sums with it cannot overflow.
    .filter(|bytes| *bytes <= u64::MAX >> 2)
}

fn duration(value: Scalar<'_>) -> Option<Duration> {
    match value {
        Scalar::Integer(0) => Some(Duration::ZERO),
        _ => parse_duration(text(value)?),
    }
}

fn flag(value: Scalar<'_>) -> Option<bool> {
    match value {
        Scalar::Boolean(flag) => Some(flag),
        Scalar::Bare(b"true") => Some(true),
        Scalar::Bare(b"false") => Some(false),
        _ => None,
    }
}

/// Returns a user or group from a name, or from a number with or without quotes.
fn account(value: Scalar<'_>) -> Option<AccountName> {
    let mut digits = [0; 20];
    let mut out = Writer::new(&mut digits);
    let name = match value {
        Scalar::Integer(number) => {
            out.push_u64(number);
            out.as_bytes()
        }
        _ => text(value)?,
    };
    let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b':' | b',');
    if name.iter().all(plain) { AccountName::from_slice(name).ok() } else { None }
}

/// Returns `path`, joined to `base` if it is relative. Returns `None` if the path is empty or
/// too long, or if it is relative and there is no base.
pub fn absolute(base: &Path, path: &[u8]) -> Option<Path> {
    let relative = path.first() != Some(&b'/');
    if path.is_empty() || (relative && base.is_empty()) { None } else { base.join(path) }
}

/// Writes the option `KEY=VALUE` with a path in VALUE made absolute. An option that has no
/// path, or that is not valid, is written as it is.
pub fn push_absolute_option(option: &[u8], base: &Path, out: &mut Writer<'_>) {
    let absolute = || {
        let (name, value) = option.split_at_checked(option.iter().position(|byte| *byte == b'=')?)?;
        let value = trim(value.get(1..)?);
        let has_path = match Key::named(trim(name))?.1.kind {
            KeyKind::File(_) | KeyKind::Device => true,
            KeyKind::Handler => value.contains(&b'/'),
            _ => false,
        };
        let is_plain = !matches!(value.first(), Some(b'"' | b'\'' | b'['));
        Some((name, absolute(base, value).filter(|_| has_path && is_plain)?))
    };
    match absolute() {
        Some((name, path)) => [name, b"=", path.as_bytes()].iter().for_each(|part| out.push(part)),
        None => out.push(option),
    }
}
