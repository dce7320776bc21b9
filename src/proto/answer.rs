//! Reads the answers of a control socket on the side of the client (docs/control.md).

use super::control::split;
use crate::util::text::Writer;

/// An answer, split into its parts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer<'a> {
    /// The request succeeded. Holds the fields after `ok`, without blanks at both ends.
    Ok(&'a [u8]),
    /// The request was refused. Holds the code and the text after `err`. The text is empty if
    /// there is none.
    Refused(&'a [u8], &'a [u8]),
    /// The line is not an answer of this protocol.
    Garbage,
}

impl<'a> Answer<'a> {
    /// Splits a line, given without its newline.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Self {
        let (word, rest) = split(line);
        match word {
            b"ok" => Self::Ok(rest),
            b"err" if !rest.is_empty() => {
                let (code, text) = split(rest);
                Self::Refused(code, text)
            }
            _ => Self::Garbage,
        }
    }

    /// Writes the reason for an answer other than `ok`, escaped: `TEXT (CODE)`, or a sentence
    /// if the line is not an answer.
    pub fn describe(&self, out: &mut Writer<'_>) {
        let Self::Refused(code, text) = self else {
            return out.push_str("the answer is not one of this protocol");
        };
        out.push_escaped(text);
        out.push_str(" (");
        out.push_escaped(code);
        out.push_str(")");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_ok_or_err_and_nothing_else() {
        assert_eq!(Answer::parse(b"ok"), Answer::Ok(b""));
        assert_eq!(Answer::parse(b"ok id=7"), Answer::Ok(b"id=7"));
        assert_eq!(Answer::parse(b"err full no room"), Answer::Refused(b"full", b"no room"));
        assert_eq!(Answer::parse(b"err full"), Answer::Refused(b"full", b""));
        for line in [&b""[..], b"okay", b"err", b"err ", b"event 1"] {
            assert_eq!(Answer::parse(line), Answer::Garbage, "{line:?}");
        }
    }

    #[test]
    fn a_refusal_is_escaped() {
        let mut buffer = [0; 80];
        let mut out = Writer::new(&mut buffer);
        Answer::parse(b"err no-space no \x1b room").describe(&mut out);
        assert_eq!(out.as_bytes(), b"no \\x1b room (no-space)");
        out.truncate(0);
        Answer::Garbage.describe(&mut out);
        assert_eq!(out.as_bytes(), b"the answer is not one of this protocol");
    }
}
