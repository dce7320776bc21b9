//! The bytes of the collector. A client sends a stream of JSON objects (RFC 8259), and the
//! collector answers each with a line (docs/collector.md).
//!
//! ```text
//! {"name":"cpu","value":42.5}     the two members in any order, blanks as in any JSON
//! cpu: avg=48.75                  its answer
//! cpu: avg=48.75 (n=2)            a line of the dump
//! error: WHAT IS RIGHT INSTEAD
//! ```
//!
//! An object ends at its closing brace, and the next one begins after it. If a byte cannot
//! continue an object, that byte and everything up to the next newline are dropped, and the
//! answer is an error. No answer and no line of the dump can be taken for an error, whatever
//! the name of the metric is, because each ends in `: avg=` and a number or count.

use super::decimal::{Decimal, scan};
use crate::limits::{METRIC_NAME_BYTES, METRIC_OBJECT_BYTES};
use crate::util::lines::find_newline;
use crate::util::text::Writer;
use heapless::Vec;

/// The name of a metric: 1 to [`METRIC_NAME_BYTES`] bytes of UTF-8 without control characters.
pub type MetricName = Vec<u8, METRIC_NAME_BYTES>;

/// The name by which a client asks for all metrics.
pub const DUMP: &[u8] = b"dump";
/// The reply to [`DUMP`] while no metric is known.
pub const NONE: &[u8] = b"no metrics\n";

/// The texts of errors. Each says what would be right.
pub mod error {
    use crate::limits::{CLIENTS_MAX, METRIC_NAME_BYTES, METRIC_OBJECT_BYTES, METRICS_MAX};
    use crate::util::text::text_with_number;

    /// The first byte after blanks is not an opening brace.
    pub const OBJECT: &str = "expected an object, such as {\"name\":\"cpu\",\"value\":42.5}";
    /// A member is unknown, missing or given twice, or another byte stands in its place.
    pub const MEMBERS: &str = "an object has the members \"name\" and \"value\", each once, and nothing else";
    /// There is no colon between a member and its value.
    pub const COLON: &str = "a colon must stand between a member and its value";
    /// The value of `name` is not a string.
    pub const NAME_TYPE: &str = "the name must be a string, such as \"cpu\"";
    /// The decoded name is empty, too long, or has control characters.
    pub const NAME: &str =
        text_with_number!("a name has 1 to ", METRIC_NAME_BYTES, " bytes of UTF-8 and no control characters");
    /// A string holds bytes that are not UTF-8, or an unescaped control character.
    pub const STRING: &str = "a string is UTF-8, with control characters, \" and \\ escaped";
    /// The character after a backslash does not make an escape.
    pub const ESCAPE: &str = "after \\ must come one of \" \\ / b f n r t, or u and four hexadecimal digits";
    /// Half of a surrogate pair, `\uD800` to `\uDFFF`, stands alone.
    pub const SURROGATE: &str = "a surrogate must be one of a pair, such as \\ud83d\\ude00";
    /// The value of `value` is not a number of JSON.
    pub const NUMBER: &str = "the value must be a JSON number, such as 42.5, -1 or 1e3";
    /// The magnitude of the value is 2^64 or more.
    pub const RANGE: &str = "a value must be less than 2^64, and more than -2^64";
    /// No closing brace was found within [`METRIC_OBJECT_BYTES`].
    pub const LONG: &str = text_with_number!("an object has at most ", METRIC_OBJECT_BYTES, " bytes");
    /// The client closed its side inside an object.
    pub const CUT: &str = "the input ended inside an object, which was not counted";
    /// An object asks for [`DUMP`] with a value other than 0.
    pub const DUMP: &str = "the name dump asks for the dump, and its value must be 0";
    /// A new name was sent while [`METRICS_MAX`] names are known.
    pub const FULL: &str =
        text_with_number!("", METRICS_MAX, " names are known, and there is no room for another one");
    /// The sum of a metric, or the count of its values, would overflow.
    pub const SUM: &str = "the sum of this metric would get too large, and is left as it was";
    /// The client is not authorized.
    pub const DENIED: &str = "denied: allow_uid and allow_gid do not name you";
    /// All slots for clients are taken.
    pub const BUSY: &str = text_with_number!("busy: ", CLIENTS_MAX, " clients are connected; try again");
}

/// One decoded object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Metric {
    /// The name of the metric.
    pub name: MetricName,
    /// The value to add to the metric.
    pub value: Decimal,
}

/// The result of reading the beginning of a client's input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// The input holds no whole object yet. Holds the number of blanks before it, which can be
    /// dropped.
    Partial(usize),
    /// A whole object, and the number of bytes from the beginning of the input to its end.
    Metric(Metric, usize),
    /// An error, and the number of bytes to drop. The last field is true if the error ends
    /// there, and false if bytes up to the next newline are still to be dropped.
    Wrong(&'static str, usize, bool),
    /// The rest of an earlier error: the number of bytes to drop. The last field is true if
    /// the error ends there.
    Discard(usize, bool),
}

/// Reads the beginning of `input`. `skipping` is true if the newline that ends an error has
/// not been found yet. `ended` is true if no bytes will follow `input`.
#[must_use]
pub fn next(input: &[u8], skipping: bool, ended: bool) -> Next {
    if skipping {
        let (used, end) = through_newline(input, 0);
        return Next::Discard(used, end);
    }
    let blanks = input.iter().take_while(|byte| is_blank(**byte)).count();
    let object = input.get(blanks..).unwrap_or(&[]);
    if object.is_empty() {
        return Next::Partial(blanks);
    }
    let window = object.get(..METRIC_OBJECT_BYTES).unwrap_or(object);
    let mut reader = Reader { input: window, at: 0 };
    let why = match reader.object() {
        Ok(metric) => return Next::Metric(metric, blanks.saturating_add(reader.at)),
        Err(Stop::Wrong(why)) => why,
        Err(Stop::Incomplete) if window.len() == METRIC_OBJECT_BYTES => {
            reader.at = window.len();
            error::LONG
        }
        Err(Stop::Incomplete) if ended => return Next::Wrong(error::CUT, input.len(), true),
        Err(Stop::Incomplete) => return Next::Partial(blanks),
    };
    let (used, end) = through_newline(input, blanks.saturating_add(reader.at));
    Next::Wrong(why, used, end)
}

/// Returns the number of bytes up to and including the first newline at or after the offset
/// `from`, and true. Returns the length of the input and false if there is no newline.
fn through_newline(input: &[u8], from: usize) -> (usize, bool) {
    match find_newline(input.get(from..).unwrap_or(&[])) {
        Some(at) => (from.saturating_add(at).saturating_add(1), true),
        None => (input.len(), false),
    }
}

/// Returns true if the byte is white space of JSON (RFC 8259, section 2).
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The reason why no object was read.
enum Stop {
    /// The input ends too early. More bytes could complete the object.
    Incomplete,
    /// The byte at the reader's offset cannot continue an object.
    Wrong(&'static str),
}

type Read<T> = Result<T, Stop>;

/// A member of an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Member {
    Name,
    Value,
}

impl Member {
    const ALL: [(Self, &'static [u8]); 2] = [(Self::Name, b"name"), (Self::Value, b"value")];
}

/// Reads one object. No member's value is an object or array, so the reader needs no stack.
struct Reader<'a> {
    input: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Read<u8> {
        self.input.get(self.at).copied().ok_or(Stop::Incomplete)
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    /// Takes the next byte, which must be `byte`. Fails with `why` if it is another one.
    #[inline(never)]
    fn expect(&mut self, byte: u8, why: &'static str) -> Read<()> {
        if self.peek()? != byte {
            return Err(Stop::Wrong(why));
        }
        self.step();
        Ok(())
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_ok_and(is_blank) {
            self.step();
        }
    }

    fn object(&mut self) -> Read<Metric> {
        self.expect(b'{', error::OBJECT)?;
        let (mut name, mut value) = (None, None);
        loop {
            self.skip_blanks();
            self.expect(b'"', error::MEMBERS)?;
            let member = self.member(name.is_some(), value.is_some())?;
            self.skip_blanks();
            self.expect(b':', error::COLON)?;
            self.skip_blanks();
            match member {
                Member::Name => name = Some(self.name()?),
                Member::Value => value = Some(self.number()?),
            }
            self.skip_blanks();
            match (name, value) {
                (Some(name), Some(value)) => {
                    self.expect(b'}', error::MEMBERS)?;
                    return Ok(Metric { name, value });
                }
                missing => (name, value) = missing,
            }
            self.expect(b',', error::MEMBERS)?;
        }
    }

    /// Reads the rest of a member's name and its closing quote. The member must be one that
    /// this object has not had yet.
    fn member(&mut self, has_name: bool, has_value: bool) -> Read<Member> {
        let mut read = Vec::<u8, 5>::new();
        loop {
            let start = self.at;
            let character = if self.peek()?.is_ascii() { self.character()? } else { Some('\0') };
            let mut bytes = [0; 4];
            let more = character.map_or(&[][..], |character| character.encode_utf8(&mut bytes).as_bytes());
            let fits = read.extend_from_slice(more).is_ok();
            let wanted = Member::ALL.into_iter().find(|(member, name)| {
                let is_there = if *member == Member::Name { has_name } else { has_value };
                !is_there && if character.is_none() { *name == &*read } else { name.starts_with(&read) }
            });
            match wanted {
                Some((member, _)) if character.is_none() => return Ok(member),
                Some(_) if fits => {}
                _ => {
                    self.at = start;
                    return Err(Stop::Wrong(error::MEMBERS));
                }
            }
        }
    }

    fn name(&mut self) -> Read<MetricName> {
        self.expect(b'"', error::NAME_TYPE)?;
        let mut name = MetricName::new();
        loop {
            let start = self.at;
            let character = self.character()?;
            let mut bytes = [0; 4];
            let fits = match character {
                Some(character) => {
                    let bytes = character.encode_utf8(&mut bytes).as_bytes();
                    !character.is_control() && name.extend_from_slice(bytes).is_ok()
                }
                None if !name.is_empty() => return Ok(name),
                None => false,
            };
            if !fits {
                self.at = start;
                return Err(Stop::Wrong(error::NAME));
            }
        }
    }

    /// Reads the next character of a string and decodes its escape. Returns `None` at the
    /// closing quote.
    fn character(&mut self) -> Read<Option<char>> {
        match self.peek()? {
            b'"' => {
                self.step();
                Ok(None)
            }
            b'\\' => {
                self.step();
                self.escape().map(Some)
            }
            0..0x20 => Err(Stop::Wrong(error::STRING)),
            byte @ 0x20..0x80 => {
                self.step();
                Ok(Some(char::from(byte)))
            }
            _ => self.long_character().map(Some),
        }
    }

    /// Reads a character of two to four bytes.
    fn long_character(&mut self) -> Read<char> {
        let rest = self.input.get(self.at..).unwrap_or(&[]);
        for length in 2..=4 {
            let bytes = rest.get(..length).unwrap_or(rest);
            match core::str::from_utf8(bytes) {
                Ok(text) => {
                    self.at = self.at.saturating_add(bytes.len());
                    return text.chars().next().ok_or(Stop::Incomplete);
                }
                Err(error) if error.error_len().is_some() => break,
                Err(_) if bytes.len() < length => return Err(Stop::Incomplete),
                Err(_) => {}
            }
        }
        Err(Stop::Wrong(error::STRING))
    }

    /// Reads the part of an escape after the backslash.
    fn escape(&mut self) -> Read<char> {
        let character = match self.peek()? {
            byte @ (b'"' | b'\\' | b'/') => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.step();
                return self.unicode();
            }
            _ => return Err(Stop::Wrong(error::ESCAPE)),
        };
        self.step();
        Ok(character)
    }

    /// Reads the part of an escape after `\u`, with the second half of a surrogate pair.
    fn unicode(&mut self) -> Read<char> {
        let mut code = self.unit(false)?;
        if (0xD800..0xDC00).contains(&code) {
            self.expect(b'\\', error::SURROGATE)?;
            self.expect(b'u', error::SURROGATE)?;
            let low = self.unit(true)? & 0x3FF;
            code = ((code & 0x3FF) << 10 | low).saturating_add(0x1_0000);
        }
        char::from_u32(code).ok_or(Stop::Wrong(error::SURROGATE))
    }

    /// Reads four hexadecimal digits. With `second` they must be the second half of a
    /// surrogate pair, otherwise they must not be one.
    fn unit(&mut self, second: bool) -> Read<u32> {
        let mut code = 0;
        for place in 0..4 {
            let digit = match self.peek()? {
                byte @ b'0'..=b'9' => byte.wrapping_sub(b'0'),
                byte @ (b'a'..=b'f' | b'A'..=b'F') => (byte & 7).wrapping_add(9),
                _ => return Err(Stop::Wrong(error::ESCAPE)),
            };
            code = code << 4 | u32::from(digit);
            // The second halves are DC00 to DFFF.
            let wrong = match place {
                0 => second && code != 0xD,
                1 => second != (0xDC..=0xDF).contains(&code),
                _ => false,
            };
            if wrong {
                return Err(Stop::Wrong(error::SURROGATE));
            }
            self.step();
        }
        Ok(code)
    }

    fn number(&mut self) -> Read<Decimal> {
        let rest = self.input.get(self.at..).unwrap_or(&[]);
        let scanned = scan(rest);
        let start = self.at;
        self.at = start.saturating_add(scanned.used);
        let next = self.peek()?;
        if !scanned.complete || !(is_blank(next) || matches!(next, b',' | b'}')) {
            return Err(Stop::Wrong(error::NUMBER));
        }
        let text = rest.get(..scanned.used).unwrap_or(&[]);
        Decimal::parse(text).ok_or(Stop::Wrong(error::RANGE))
    }
}

/// Returns `bytes` as a name, or `None` if they do not meet the rules of [`MetricName`].
#[must_use]
pub fn name(bytes: &[u8]) -> Option<MetricName> {
    let text = core::str::from_utf8(bytes).ok()?;
    let plain = !text.is_empty() && !text.chars().any(char::is_control);
    if plain { MetricName::from_slice(bytes).ok() } else { None }
}

/// Parses all of `bytes` as a number.
///
/// # Errors
/// [`error::NUMBER`] if they are not a number of JSON, [`error::RANGE`] if the magnitude is
/// too large.
pub fn value(bytes: &[u8]) -> Result<Decimal, &'static str> {
    let scanned = scan(bytes);
    if !scanned.complete || scanned.used < bytes.len() {
        return Err(error::NUMBER);
    }
    Decimal::parse(bytes).ok_or(error::RANGE)
}

/// Appends an object as one line without its newline.
pub fn push_object(name: &[u8], value: Decimal, out: &mut Writer<'_>) {
    out.push_str("{\"name\":\"");
    out.push_json(name);
    out.push_str("\",\"value\":");
    value.emit(out);
    out.push_str("}");
}

/// Appends a line about a metric. A line with a `count` is one of the dump.
pub fn push_line(name: &[u8], average: Decimal, count: Option<u64>, out: &mut Writer<'_>) {
    out.push(name);
    out.push_str(": avg=");
    average.emit(out);
    if let Some(count) = count {
        out.push_str(" (n=");
        out.push_u64(count);
        out.push_str(")");
    }
    out.push_str("\n");
}

/// Appends the line of an error. `why` is its text.
pub fn push_error(why: &str, out: &mut Writer<'_>) {
    out.push_str("error: ");
    out.push_str(why);
    out.push_str("\n");
}

/// The parts of a line about a metric: name, average, and the count in a line of the dump.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MetricLine<'a> {
    /// The name of the metric.
    pub name: &'a [u8],
    /// The average, a decimal number.
    pub average: &'a [u8],
    /// The number of values. Empty in an answer, which has no count.
    pub count: &'a [u8],
}

impl<'a> MetricLine<'a> {
    /// Splits a line without its newline. Returns `None` if it is not a line about a metric.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        const MARK: &[u8] = b": avg=";
        // The search starts at the end, because a name may contain these bytes.
        let at = line.windows(MARK.len()).rposition(|window| window == MARK)?;
        let (before, rest) = line.split_at_checked(at)?;
        let rest = rest.get(MARK.len()..)?;
        let (average, count) = match rest.iter().position(|byte| *byte == b' ') {
            None => (rest, &[][..]),
            Some(blank) => {
                let (average, count) = rest.split_at_checked(blank)?;
                (average, count.strip_prefix(b" (n=")?.strip_suffix(b")")?)
            }
        };
        let digits =
            count.iter().all(u8::is_ascii_digit) && (!count.is_empty() || average.len() == rest.len());
        let known = name(before).is_some() && value(average).is_ok() && digits;
        known.then_some(Self { name: before, average, count })
    }

    /// Appends the sample of `metric` for Prometheus (text exposition format 0.0.4).
    pub fn push_sample(&self, metric: &str, value: &[u8], out: &mut Writer<'_>) {
        out.push_str(metric);
        out.push_str("{name=\"");
        for byte in self.name {
            out.push_str(if matches!(byte, b'"' | b'\\') { "\\" } else { "" });
            out.push(&[*byte]);
        }
        out.push_str("\"} ");
        out.push(value);
        out.push_str("\n");
    }
}

#[cfg(test)]
mod tests;
