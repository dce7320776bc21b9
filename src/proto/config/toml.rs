//! The configuration file: a flat, strict subset of TOML 1.0. Each line holds one `key =
//! value`. A value is a string in double or single quotes, a decimal integer, `true`, `false`,
//! or an array of those, which may take several lines. `#` begins a comment. There are no
//! tables, dates, floats and multi-line strings. A file that is accepted here means the same
//! to every parser of TOML.

use super::Config;
use super::keys::{KEYS, Key, KeyKind, Keyed, PROGRAM_KEYS, Scalar};
use crate::limits::COMMAND_WORDS_BYTES;
use crate::util::nearest::push_nearest;
use crate::util::path::Path;
use crate::util::text::{Writer, text_with_number, trim};
use heapless::Vec;

/// An error in a configuration, and its line.
#[derive(Clone, Copy, Debug)]
pub struct ConfigError<'a> {
    /// The line in the file, from 1. 0 for an option of the command line.
    pub line: u32,
    /// The error.
    pub problem: Problem<'a>,
}

/// The kinds of errors in a configuration.
#[derive(Clone, Copy, Debug)]
pub enum Problem<'a> {
    /// The text does not have the syntax above. Holds the expected syntax.
    Syntax(&'static str),
    /// The key does not exist. Holds its name.
    UnknownKey(&'a [u8]),
    /// The key does not exist in the file of a program. Holds its name.
    UnknownProgramKey(&'a [u8]),
    /// The key is given twice.
    Duplicate(&'static Key),
    /// The key does not accept the value.
    BadValue(&'static Key),
}

impl ConfigError<'_> {
    /// Writes the error and what is allowed.
    pub fn describe(&self, out: &mut Writer<'_>) {
        match self.problem {
            Problem::Syntax(expected) => out.push_str(expected),
            Problem::UnknownKey(name) => {
                out.push_str("unknown key \"");
                out.push_escaped(name.get(..40).unwrap_or(name));
                out.push_str("\"");
                push_nearest(name, &mut KEYS.iter().map(|key| key.name), out);
                out.push_str("; `zigsvc -c /dev/null check` shows all");
            }
            Problem::UnknownProgramKey(name) => {
                out.push_str("unknown key \"");
                out.push_escaped(name.get(..40).unwrap_or(name));
                out.push_str("\"; a program has");
                for key in PROGRAM_KEYS {
                    out.push_str(" ");
                    out.push_str(key.name);
                }
            }
            Problem::Duplicate(key) => {
                out.push_str(key.name);
                out.push_str(" is given twice; once is allowed");
            }
            Problem::BadValue(key) => {
                out.push_str(key.name);
                out.push_str(" must be ");
                key.describe(out);
            }
        }
    }
}

/// A decoded string. No value is longer than a word of a command.
type DecodedString = Vec<u8, COMMAND_WORDS_BYTES>;

/// Reads a whole file into `config`. A relative path is taken below `base`.
///
/// # Errors
/// The first error. `config` may be changed in part then.
pub fn parse<'a>(source: &'a [u8], config: &mut dyn Keyed, base: &Path) -> Result<(), ConfigError<'a>> {
    let mut parser = Parser { rest: source, line: 1 };
    let mut seen = 0u64;
    // A byte order mark is not part of the text.
    parser.eat(b"\xef\xbb\xbf");
    if let Err(error) = core::str::from_utf8(source) {
        let before = source.get(..error.valid_up_to()).unwrap_or(&[]);
        parser.line = count_lines(before);
        return Err(parser.syntax("not a text file: TOML is UTF-8"));
    }
    loop {
        parser.skip_blank_lines()?;
        if parser.rest.is_empty() {
            return Ok(());
        }
        let key = parser.key(config)?;
        let bit = 1u64.checked_shl(key.id.into()).unwrap_or(0);
        if seen & bit != 0 {
            return Err(parser.problem(Problem::Duplicate(key)));
        }
        seen |= bit;
        config.set_line(key.id, parser.line);
        parser.value(key, config, base)?;
        parser.end_of_line()?;
    }
}

/// Applies one option `-o KEY=VALUE`. The value is bare, as in `workers=2`, `handler=shell`
/// and `allow_uid=0,1000`, or is written as in the file.
///
/// # Errors
/// The error. Its line is 0.
pub fn apply_option<'a>(option: &'a [u8], config: &mut Config, base: &Path) -> Result<(), ConfigError<'a>> {
    let mut parser = Parser { rest: option, line: 0 };
    let Some(equals) = option.iter().position(|byte| *byte == b'=') else {
        return Err(parser.syntax("an option is KEY=VALUE"));
    };
    let name = trim(option.get(..equals).unwrap_or(&[]));
    let value = trim(option.get(equals.saturating_add(1)..).unwrap_or(&[]));
    let Some((_, key)) = Key::named(name) else {
        return Err(parser.problem(Problem::UnknownKey(name)));
    };
    if matches!(value.first(), Some(b'"' | b'\'' | b'[')) {
        parser.rest = value;
        parser.value(key, config, base)?;
        return parser.end_of_line();
    }
    key.set_bare(config, base, value).ok_or(parser.problem(Problem::BadValue(key)))
}

/// Returns the number of the line that follows `text`, from 1.
fn count_lines(text: &[u8]) -> u32 {
    text.iter().fold(1, |line: u32, byte| line.saturating_add(u32::from(*byte == b'\n')))
}

/// The rest of the source, and the line in which it begins.
struct Parser<'a> {
    rest: &'a [u8],
    line: u32,
}

impl<'a> Parser<'a> {
    fn problem(&self, problem: Problem<'a>) -> ConfigError<'a> {
        ConfigError { line: self.line, problem }
    }

    fn syntax(&self, expected: &'static str) -> ConfigError<'a> {
        self.problem(Problem::Syntax(expected))
    }

    /// Takes `prefix`. Returns true if the rest began with it.
    fn eat(&mut self, prefix: &[u8]) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Takes bytes up to the first one for which `wanted` is false.
    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !wanted(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(end).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }

    fn skip_blanks(&mut self) {
        self.take_while(|byte| matches!(byte, b' ' | b'\t'));
    }

    /// Takes a comment if one begins here. Fails if it contains a control character other than
    /// tab.
    fn skip_comment(&mut self) -> Result<(), ConfigError<'a>> {
        if self.rest.first() == Some(&b'#') {
            let comment = self.take_while(|byte| byte != b'\n');
            // A carriage return may only stand before a newline.
            let ended = !self.rest.is_empty();
            let comment = comment.strip_suffix(b"\r").filter(|_| ended).unwrap_or(comment);
            if comment.iter().any(|byte| is_control(*byte)) {
                return Err(self.syntax("control characters are not allowed in a comment"));
            }
        }
        Ok(())
    }

    /// Takes the end of a line, LF or CR LF. Returns true if there was one.
    fn eat_newline(&mut self) -> bool {
        let taken = self.eat(b"\n") || self.eat(b"\r\n");
        self.line = self.line.saturating_add(u32::from(taken && self.line != 0));
        taken
    }

    /// Takes blanks, comments and empty lines.
    fn skip_blank_lines(&mut self) -> Result<(), ConfigError<'a>> {
        loop {
            self.skip_blanks();
            self.skip_comment()?;
            if !self.eat_newline() {
                return Ok(());
            }
        }
    }

    /// Takes the rest of a line after a value. Fails if there is more than a comment.
    fn end_of_line(&mut self) -> Result<(), ConfigError<'a>> {
        self.skip_blanks();
        self.skip_comment()?;
        if self.rest.is_empty() || self.eat_newline() {
            return Ok(());
        }
        Err(self.syntax("only a comment may follow a value; text needs quotes"))
    }

    /// Takes `key =` and returns the key of `config`.
    fn key(&mut self, config: &mut dyn Keyed) -> Result<&'static Key, ConfigError<'a>> {
        let name = self.take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if name.is_empty() {
            return Err(self.syntax("expected KEY = VALUE; tables and quoted keys are not used here"));
        }
        self.skip_blanks();
        let Some(found) = config.keys().iter().find(|key| key.name.as_bytes() == name) else {
            let is_program = config.config().is_none();
            let problem =
                if is_program { Problem::UnknownProgramKey(name) } else { Problem::UnknownKey(name) };
            return Err(self.problem(problem));
        };
        if !self.eat(b"=") {
            return Err(self.syntax("expected = after the key"));
        }
        self.skip_blanks();
        Ok(found)
    }

    /// Takes a value or an array, and stores it in `config`.
    fn value(
        &mut self,
        key: &'static Key,
        config: &mut dyn Keyed,
        base: &Path,
    ) -> Result<(), ConfigError<'a>> {
        key.clear(config);
        if !self.eat(b"[") {
            return self.scalar(key, config, base);
        }
        if !key.is_list() {
            return Err(self.problem(Problem::BadValue(key)));
        }
        // The program in an array must be absolute, because the options of a running service are
        // kept as they were given.
        let is_handler = matches!(key.kind, KeyKind::Handler);
        let base = if is_handler { &Path::empty() } else { base };
        loop {
            self.skip_blank_lines()?;
            if self.eat(b"]") {
                let missing = is_handler && config.config().is_some_and(|config| config.handler.is_empty());
                return if missing { Err(self.problem(Problem::BadValue(key))) } else { Ok(()) };
            }
            self.scalar(key, config, base)?;
            self.skip_blank_lines()?;
            if !self.eat(b",") && self.rest.first() != Some(&b']') {
                return Err(self.syntax("expected , or ] in the array"));
            }
        }
    }

    /// Takes one string, number or boolean, and stores it in `config`.
    fn scalar(
        &mut self,
        key: &'static Key,
        config: &mut dyn Keyed,
        base: &Path,
    ) -> Result<(), ConfigError<'a>> {
        let mut text = DecodedString::new();
        let value = match self.rest.first() {
            Some(b'"') => {
                self.basic_string(&mut text)?;
                Scalar::Text(&text)
            }
            Some(b'\'') => {
                self.literal_string(&mut text)?;
                Scalar::Text(&text)
            }
            _ => self.word()?,
        };
        key.set(config, base, value).ok_or_else(|| self.problem(Problem::BadValue(key)))
    }

    /// Takes `true`, `false`, or a decimal integer from 0 to 2^63 - 1, with single underscores
    /// between digits.
    fn word(&mut self) -> Result<Scalar<'static>, ConfigError<'a>> {
        let word =
            self.take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-' | b'.'));
        match word {
            b"true" => return Ok(Scalar::Boolean(true)),
            b"false" => return Ok(Scalar::Boolean(false)),
            b"" => return Err(self.syntax("expected a value: \"text\", a number, true, false or [...]")),
            _ => {}
        }
        let digits = word.strip_prefix(b"+").unwrap_or(word);
        let expected = self.syntax("text needs quotes; numbers are whole, decimal and not negative");
        let leading_zero = digits.len() > 1 && digits.first() == Some(&b'0');
        let edges = [digits.first(), digits.last()];
        if leading_zero || edges.contains(&Some(&b'_')) || digits.windows(2).any(|pair| pair == b"__") {
            return Err(expected);
        }
        let mut number = 0u64;
        for byte in digits.iter().filter(|byte| **byte != b'_') {
            let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10).ok_or(expected)?;
            let next = number.checked_mul(10).and_then(|n| n.checked_add(u64::from(digit)));
            number = next.filter(|n| i64::try_from(*n).is_ok()).ok_or(expected)?;
        }
        if digits.is_empty() { Err(expected) } else { Ok(Scalar::Integer(number)) }
    }

    /// Takes `'text'`, which has no escapes.
    fn literal_string(&mut self, text: &mut DecodedString) -> Result<(), ConfigError<'a>> {
        self.eat(b"'");
        let raw = self.take_while(|byte| byte != b'\'' && !is_control(byte));
        self.append(text, raw)?;
        if self.eat(b"'") { Ok(()) } else { Err(self.unterminated()) }
    }

    /// Takes `"text"`, which has escapes.
    fn basic_string(&mut self, text: &mut DecodedString) -> Result<(), ConfigError<'a>> {
        self.eat(b"\"");
        loop {
            let raw = self.take_while(|byte| !matches!(byte, b'"' | b'\\') && !is_control(byte));
            self.append(text, raw)?;
            if self.eat(b"\"") {
                return Ok(());
            }
            if !self.eat(b"\\") {
                return Err(self.unterminated());
            }
            self.escape(text)?;
        }
    }

    /// Takes the part of an escape after the backslash, and appends the character.
    fn escape(&mut self, text: &mut DecodedString) -> Result<(), ConfigError<'a>> {
        const SIMPLE: &[(&[u8], &[u8])] = &[
            (b"b", b"\x08"),
            (b"t", b"\t"),
            (b"n", b"\n"),
            (b"f", b"\x0c"),
            (b"r", b"\r"),
            (b"\"", b"\""),
            (b"\\", b"\\"),
        ];
        for (letter, meaning) in SIMPLE {
            if self.eat(letter) {
                return self.append(text, meaning);
            }
        }
        let unknown =
            self.syntax("unknown escape; known are \\b \\t \\n \\f \\r \\\" \\\\ \\uXXXX \\UXXXXXXXX");
        let length = if self.eat(b"u") {
            4
        } else if self.eat(b"U") {
            8
        } else {
            return Err(unknown);
        };
        let (digits, rest) = self.rest.split_at_checked(length).ok_or(unknown)?;
        let number = core::str::from_utf8(digits)
            .ok()
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let character = number.and_then(char::from_u32).ok_or(unknown)?;
        self.rest = rest;
        self.append(text, character.encode_utf8(&mut [0; 4]).as_bytes())
    }

    fn append(&self, text: &mut DecodedString, bytes: &[u8]) -> Result<(), ConfigError<'a>> {
        text.extend_from_slice(bytes).map_err(|_| {
            self.syntax(text_with_number!("text is longer than ", COMMAND_WORDS_BYTES, " bytes"))
        })
    }

    fn unterminated(&self) -> ConfigError<'a> {
        self.syntax("text must end with its quote on the same line")
    }
}

/// Returns true if TOML forbids the byte in strings and comments: all control characters but
/// tab.
fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7f
}
