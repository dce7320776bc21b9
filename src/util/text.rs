//! Builds text in a buffer of fixed size. Text that does not fit is cut, and the writer
//! remembers that.

use core::convert::Infallible;
use ufmt::uWrite;

/// Appends text to a borrowed buffer. Bytes that do not fit are dropped.
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    length: usize,
    cut: bool,
}

impl<'a> Writer<'a> {
    /// Returns an empty writer over `buffer`.
    pub fn new(buffer: &'a mut [u8]) -> Self {
        Self { buffer, length: 0, cut: false }
    }

    /// Returns the text that was written.
    #[must_use]
    #[inline(never)]
    #[unsafe(link_section = ".text.idle")]
    pub fn as_bytes(&self) -> &[u8] {
        self.buffer.get(..self.length).unwrap_or(&[])
    }

    /// Returns the text for as long as its buffer lives.
    #[must_use]
    pub fn into_bytes(self) -> &'a [u8] {
        let Self { buffer, length, .. } = self;
        buffer.get(..length).unwrap_or(&[])
    }

    /// Returns the number of bytes that were written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Returns true if no byte was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Returns the number of bytes that still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.buffer.len().saturating_sub(self.length)
    }

    /// Returns true if some bytes did not fit.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Appends `bytes`, or as many of them as fit.
    #[unsafe(link_section = ".text.idle")]
    pub fn push(&mut self, bytes: &[u8]) {
        let fits = bytes.len().min(self.room());
        self.cut |= fits < bytes.len();
        let end = self.length.saturating_add(fits);
        if let (Some(to), Some(from)) = (self.buffer.get_mut(self.length..end), bytes.get(..fits)) {
            to.copy_from_slice(from);
            self.length = end;
        }
    }

    /// Appends a string.
    pub fn push_str(&mut self, text: &str) {
        self.push(text.as_bytes());
    }

    /// Appends an unsigned number in decimal.
    pub fn push_u64(&mut self, number: u64) {
        let _ = ufmt::uwrite!(self, "{}", number);
    }

    /// Appends `number` in decimal with at least `width` digits.
    #[unsafe(link_section = ".text.idle")]
    pub fn push_padded(&mut self, number: u64, width: usize) {
        let mut digits = [0u8; 20];
        let mut out = Writer::new(&mut digits);
        out.push_u64(number);
        for _ in out.len()..width {
            self.push(b"0");
        }
        self.push(out.as_bytes());
    }

    /// Appends external bytes so that they can neither forge a line nor command a terminal
    /// that reads UTF-8. Control bytes except tab are written as `\xNN`. So are the characters
    /// U+0080 to U+009F, because terminals obey them, too. Other bytes from 0x80 on stay, so
    /// that text is readable.
    pub fn push_escaped(&mut self, bytes: &[u8]) {
        let (mut plain, mut at) = (0usize, 0usize);
        while let Some(byte) = bytes.get(at) {
            let length = match (*byte, bytes.get(at.saturating_add(1))) {
                // 0xC2 is always the first byte of a character.
                (0xC2, Some(0x80..=0x9F)) => 2,
                (byte, _) => usize::from(!is_plain(byte)),
            };
            let next = at.saturating_add(length.max(1));
            if length > 0 {
                self.push(bytes.get(plain..at).unwrap_or(&[]));
                bytes.get(at..next).unwrap_or(&[]).iter().for_each(|byte| self.push(&escape(*byte)));
                plain = next;
            }
            at = next;
        }
        self.push(bytes.get(plain..).unwrap_or(&[]));
    }

    /// Appends external bytes as [`Writer::push_escaped`] does, with `\\` as `\x5c`, so that
    /// [`unescape`] gives the same bytes back.
    pub fn push_reversible(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\\') {
            match part.split_last() {
                Some((b'\\', rest)) => {
                    self.push_escaped(rest);
                    self.push(&escape(b'\\'));
                }
                _ => self.push_escaped(part),
            }
        }
    }

    /// Appends external bytes so that they cannot command any terminal. Escapes what
    /// [`Writer::push_escaped`] escapes, and bytes that are not UTF-8.
    pub fn push_visible(&mut self, bytes: &[u8]) {
        for chunk in bytes.utf8_chunks() {
            self.push_escaped(chunk.valid().as_bytes());
            chunk.invalid().iter().for_each(|byte| self.push(&escape(*byte)));
        }
    }

    /// Appends external bytes for the inside of a JSON string (RFC 8259, section 7), without
    /// the quotes. Bytes that are not UTF-8 become U+FFFD.
    pub fn push_json(&mut self, bytes: &[u8]) {
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '"' => self.push(b"\\\""),
                    '\\' => self.push(b"\\\\"),
                    '\0'..' ' | '\u{7f}'..='\u{9f}' => {
                        let [_, _, high, low] = escape(u32::from(character).to_le_bytes()[0]);
                        self.push(&[b'\\', b'u', b'0', b'0', high, low]);
                    }
                    _ => self.push(character.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
            if !chunk.invalid().is_empty() {
                self.push("\u{fffd}".as_bytes());
            }
        }
    }

    /// Shortens the text to `length` bytes. A shorter text stays.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Makes a text that was cut end with `…` (U+2026), which replaces its last bytes. No
    /// character is left incomplete before it.
    pub fn mark_cut(&mut self) {
        if self.cut {
            self.mark_before(0);
        }
    }

    /// Ends the text with a newline, which always fits. A text that was cut, or that leaves no
    /// space for the newline, ends with `…` before it.
    pub fn end_line(&mut self) {
        if self.cut || self.room() == 0 {
            self.mark_before(1);
        }
        self.push(b"\n");
    }

    /// Writes `…` so that `reserve` bytes fit after it.
    fn mark_before(&mut self, reserve: usize) {
        let mark = "…".as_bytes();
        let mut end = self.buffer.len().saturating_sub(mark.len().saturating_add(reserve)).min(self.length);
        // A character of UTF-8 has at most three continuation bytes. After more of them, the
        // bytes are not text.
        for _ in 0..3 {
            if self.buffer.get(end).is_some_and(|byte| byte & 0xC0 == 0x80) {
                end = end.saturating_sub(1);
            }
        }
        self.length = end;
        self.push(mark);
    }
}

impl uWrite for Writer<'_> {
    type Error = Infallible;

    fn write_str(&mut self, text: &str) -> Result<(), Infallible> {
        self.push_str(text);
        Ok(())
    }
}

/// Returns true if `byte` may stand in a log line unescaped.
fn is_plain(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

/// Turns each `\xNN` in `text` back into its byte. Returns the number of bytes that are left.
pub fn unescape(text: &mut [u8]) -> usize {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (mut from, mut to) = (0usize, 0usize);
    while let Some(rest) = text.get(from..).filter(|rest| !rest.is_empty()) {
        let decoded = match rest {
            [b'\\', b'x', high, low, ..] => digit(*high).zip(digit(*low)),
            _ => None,
        };
        let (byte, used) = match decoded {
            Some((high, low)) => (high << 4 | low, 4),
            None => (rest.first().copied().unwrap_or(0), 1),
        };
        text.get_mut(to).into_iter().for_each(|place| *place = byte);
        (from, to) = (from.saturating_add(used), to.saturating_add(1));
    }
    to
}

/// Returns the number of bytes that [`Writer::push_escaped`] writes for `byte`. The second byte of
/// a control character of two bytes counts as plain.
#[must_use]
pub fn escaped_bytes(byte: u8) -> usize {
    // 0xC2 may be the first byte of a control character, of which both bytes are escaped.
    if byte == 0xC2 {
        7
    } else if is_plain(byte) {
        1
    } else {
        4
    }
}

/// Returns the four characters `\xNN` for one byte.
#[must_use]
pub fn escape(byte: u8) -> [u8; 4] {
    let digit = |nibble: u8| match nibble {
        0..=9 => b'0'.wrapping_add(nibble),
        _ => b'a'.wrapping_sub(10).wrapping_add(nibble),
    };
    [b'\\', b'x', digit(byte >> 4), digit(byte & 15)]
}

/// Removes blanks, tabs and carriage returns from both ends.
#[must_use]
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b'\r', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t' | b'\r'] = bytes {
        bytes = rest;
    }
    bytes
}

/// Parses a decimal number of digits only, without sign and blanks. Returns `None` for other
/// text, and if the number exceeds 64 bits.
#[must_use]
pub fn parse_u64(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// Joins a text, a number in decimal and a text at compile time, so that a message prints
/// the constant that it speaks of.
macro_rules! text_with_number {
    ($before:literal, $number:expr, $after:literal) => {
        const {
            const PARTS: (&str, u64, &str) = ($before, $number as u64, $after);
            const LENGTH: usize = PARTS.0.len() + $crate::util::text::digits(PARTS.1) + PARTS.2.len();
            const BYTES: [u8; LENGTH] = $crate::util::text::join(PARTS);
            match core::str::from_utf8(&BYTES) {
                Ok(text) => text,
                Err(_) => panic!("the parts are texts"),
            }
        }
    };
}
pub(crate) use text_with_number;

/// Returns the number of decimal digits of `number`.
pub(crate) const fn digits(number: u64) -> usize {
    match number.checked_ilog10() {
        Some(exponent) => (exponent as usize).saturating_add(1),
        None => 1,
    }
}

/// Returns the bytes of a text, a number in decimal and a text. For [`text_with_number!`].
#[expect(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which refuses what is out of bounds"
)]
pub(crate) const fn join<const LENGTH: usize>(
    (before, mut number, after): (&str, u64, &str),
) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let mut at = 0;
    while at < LENGTH {
        // From the end: the text after the number, the number's digits, the text before it.
        let place = LENGTH - 1 - at;
        bytes[place] = if at < after.len() {
            after.as_bytes()[after.len() - 1 - at]
        } else if place >= before.len() {
            let digit = b'0' + (number % 10) as u8;
            number /= 10;
            digit
        } else {
            before.as_bytes()[place]
        };
        at += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(build: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
        let mut buffer = [0; 32];
        let mut out = Writer::new(&mut buffer);
        build(&mut out);
        out.as_bytes().to_vec()
    }

    #[test]
    fn bytes_that_look_like_the_inside_of_a_character_are_not_all_dropped_at_a_cut() {
        let mut buffer = [0; 16];
        let mut out = Writer::new(&mut buffer);
        out.push(&[0x80; 40]);
        out.mark_cut();
        assert_eq!(out.as_bytes(), [&[0x80; 10][..], "…".as_bytes()].concat());
    }

    #[test]
    fn what_does_not_fit_is_cut_and_marked() {
        let mut buffer = [0; 8];
        let mut out = Writer::new(&mut buffer);
        out.push_str("12345678");
        assert!(!out.is_cut());
        out.push_str("9");
        out.mark_cut();
        assert_eq!(out.as_bytes(), "12345…".as_bytes());
    }

    #[test]
    fn a_mark_never_leaves_half_a_character() {
        let mut buffer = [0; 8];
        let mut out = Writer::new(&mut buffer);
        out.push_str("1234éxy!");
        out.mark_cut();
        assert_eq!(out.as_bytes(), "1234…".as_bytes());
    }

    #[test]
    fn a_line_always_has_its_end() {
        for (text, line) in [("1234567", "1234567\n"), ("12345678", "1234…\n"), ("1234éxyz", "1234…\n")]
        {
            let mut buffer = [0; 8];
            let mut out = Writer::new(&mut buffer);
            out.push_str(text);
            out.end_line();
            assert_eq!(out.as_bytes(), line.as_bytes());
        }
    }

    #[test]
    fn control_bytes_are_escaped_and_others_pass() {
        let text = written(|out| out.push_escaped(b"a\tb\n\x1b[1m\x7f\xc3\xa9\0"));
        assert_eq!(text, b"a\tb\\x0a\\x1b[1m\\x7f\xc3\xa9\\x00");
        let text = written(|out| out.push_escaped("\u{80}é\u{9f}\u{a0}".as_bytes()));
        assert_eq!(text, "\\xc2\\x80é\\xc2\\x9f\u{a0}".as_bytes());
        assert_eq!(written(|out| out.push_escaped(b"\xc2\n\x9b\xc2")), b"\xc2\\x0a\x9b\xc2");
    }

    #[test]
    fn nothing_that_a_terminal_obeys_is_visible() {
        let text = written(|out| out.push_visible("é\u{9b}1m\u{a0}x".as_bytes()));
        assert_eq!(text, "é\\xc2\\x9b1m\u{a0}x".as_bytes());
        assert_eq!(written(|out| out.push_visible(b"\x1b\xff\x9b\t")), b"\\x1b\\xff\\x9b\t");
    }

    #[test]
    fn json_strings_are_escaped_as_the_rfc_says() {
        let text = written(|out| out.push_json(b"a\"b\\\n\xff\xc3\xa9"));
        assert_eq!(text, "a\\\"b\\\\\\u000a\u{fffd}é".as_bytes());
        assert_eq!(written(|out| out.push_json("\x7f\u{9b}m".as_bytes())), b"\\u007f\\u009bm");
    }

    #[test]
    fn numbers_are_padded_to_a_width() {
        assert_eq!(written(|out| out.push_padded(7, 3)), b"007");
        assert_eq!(written(|out| out.push_padded(1234, 3)), b"1234");
    }

    #[test]
    fn a_text_holds_the_number_of_its_constant() {
        const LIMIT: usize = 1234;
        assert_eq!(text_with_number!("at most ", LIMIT, " bytes"), "at most 1234 bytes");
        assert_eq!(text_with_number!("", 0, ""), "0");
        assert_eq!(text_with_number!("ä", u64::MAX, "ö"), "ä18446744073709551615ö");
        assert_eq!([0, 9, 10, 99, 100].map(digits), [1, 1, 2, 2, 3]);
    }

    #[test]
    fn only_plain_digits_are_a_number() {
        assert_eq!(parse_u64(b"0018446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"+1", b"-1", b" 1", b"1 ", b"1a", b"18446744073709551616"] {
            assert_eq!(parse_u64(bad), None);
        }
    }

    #[test]
    fn blanks_tabs_and_returns_are_trimmed_from_both_ends() {
        assert_eq!(trim(b" \t a b\r"), b"a b");
        assert_eq!(trim(b" \t\r"), b"");
    }

    #[test]
    fn a_reversible_text_gives_its_bytes_back() {
        let bytes: Vec<u8> = (0..=255).chain(*b"\\x41\\\\x").collect();
        let mut buffer = [0; 2048];
        let mut out = Writer::new(&mut buffer);
        out.push_reversible(&bytes);
        let mut text = out.as_bytes().to_vec();
        assert!(text.iter().all(|byte| *byte >= 0x20 || *byte == b'\t'));
        let length = unescape(&mut text);
        assert_eq!(text[..length], bytes);
        assert_eq!(written(|out| out.push_reversible(b"a\\b\n")), b"a\\x5cb\\x0a");
    }
}
