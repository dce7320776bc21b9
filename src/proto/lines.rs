//! Lines of the queue file: where one ends, and whether it is a job.

use super::text::trim;
use crate::limits::JOB_MAX_BYTES;

/// What one line of the queue file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line<'a> {
    /// Only blanks: skipped.
    Empty,
    /// A job of 1 to [`JOB_MAX_BYTES`] bytes, trimmed.
    Job(&'a [u8]),
    /// Not a job, for the reason given.
    Rejected(&'static str),
}

/// Judges a line that is whole, without its newline.
#[must_use]
pub fn classify(line: &[u8]) -> Line<'_> {
    match trim(line) {
        b"" => Line::Empty,
        text if text.contains(&0) => Line::Rejected("it holds a NUL byte"),
        text if text.len() > JOB_MAX_BYTES => Line::Rejected("it is longer than 1000 bytes"),
        text => Line::Job(text),
    }
}

/// Splits a job into words at blanks and tabs, for a directory handler.
pub fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_trimmed_of_blanks_tabs_and_returns() {
        assert_eq!(classify(b"\t do it \r"), Line::Job(b"do it"));
        assert_eq!(classify(b" \t\r"), Line::Empty);
    }

    #[test]
    fn a_job_may_be_a_thousand_bytes_after_trimming_and_not_one_more() {
        let mut line = vec![b' '; 10];
        line.extend([b'x'; JOB_MAX_BYTES]);
        assert!(matches!(classify(&line), Line::Job(text) if text.len() == JOB_MAX_BYTES));
        line.push(b'x');
        assert!(matches!(classify(&line), Line::Rejected(_)));
    }

    #[test]
    fn a_null_byte_anywhere_rejects_the_line() {
        assert!(matches!(classify(b"a\0b"), Line::Rejected(_)));
        assert!(matches!(classify(b"\0"), Line::Rejected(_)));
    }

    #[test]
    fn words_are_split_at_runs_of_blanks() {
        assert_eq!(words(b" a\t\tb  c ").collect::<Vec<_>>(), [&b"a"[..], b"b", b"c"]);
        assert_eq!(words(b"  ").count(), 0);
    }
}
