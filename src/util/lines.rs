//! Finds the ends of lines, and decides if a line of the queue file is a job.

use super::text::{text_with_number, trim};
use crate::limits::JOB_MAX_BYTES;

/// The reason why a line of more than [`JOB_MAX_BYTES`] is not a job.
pub const TOO_LONG: &str = text_with_number!("it is longer than ", JOB_MAX_BYTES, " bytes");

/// The kind of a line of the queue file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line<'a> {
    /// An empty line, or one of blanks only. It is skipped.
    Empty,
    /// A job: 1 to [`JOB_MAX_BYTES`] bytes without NUL and without blanks at both ends.
    Job(&'a [u8]),
    /// A line that is not a job. Holds the reason.
    Rejected(&'static str),
}

/// Judges a whole line, given without its newline.
#[must_use]
pub fn classify(line: &[u8]) -> Line<'_> {
    match trim(line) {
        b"" => Line::Empty,
        text if text.contains(&0) => Line::Rejected("it holds a NUL byte"),
        text if text.len() > JOB_MAX_BYTES => Line::Rejected(TOO_LONG),
        text => Line::Job(text),
    }
}

/// Returns the offset of the first newline. It looks at a word at a time, because this is most
/// of the work of `log` with timestamps.
#[must_use]
pub fn find_newline(bytes: &[u8]) -> Option<usize> {
    const WORD: usize = size_of::<usize>();
    const ONES: usize = usize::MAX / 255;
    const NEWLINES: usize = ONES * b'\n' as usize;
    let (words, tail) = bytes.as_chunks::<WORD>();
    let mut at = 0usize;
    for word in words {
        // A byte of `zeroed` is 0 where the word has a newline. `found` has the highest bit of
        // such a byte set, because the subtraction of 1 borrows there. The borrow can set bits
        // of `found` in other bytes, too, but only above the first newline.
        let zeroed = usize::from_le_bytes(*word) ^ NEWLINES;
        let found = zeroed.wrapping_sub(ONES) & !zeroed & (ONES << 7);
        if found != 0 {
            return Some(at.wrapping_add((found.trailing_zeros() >> 3) as usize));
        }
        at = at.wrapping_add(WORD);
    }
    tail.iter().position(|byte| *byte == b'\n').map(|last| at.wrapping_add(last))
}

/// Returns the length of the whole lines at the beginning of `bytes`.
#[must_use]
pub fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last.saturating_add(1))
}

/// Splits a job into words at blanks and tabs, for a handler that is a folder.
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
    fn the_first_newline_is_found_wherever_it_is_and_whatever_is_around_it() {
        let mut seed = 0x9e37_79b9_u32;
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 17;
            seed ^= seed << 5;
            seed
        };
        for _ in 0..100_000 {
            let length = next() as usize % 40;
            let bytes: Vec<u8> = (0..length)
                .map(|_| [0, 9, 10, 11, 0x0a ^ 0x80, 0x8a, 0xff, b'x'][next() as usize % 8])
                .collect();
            assert_eq!(find_newline(&bytes), bytes.iter().position(|byte| *byte == b'\n'), "{bytes:?}");
        }
        for length in 0..100 {
            let mut bytes = vec![0xff; length];
            assert_eq!(find_newline(&bytes), None);
            for at in (0..length).rev() {
                bytes[at] = b'\n';
                assert_eq!(find_newline(&bytes), Some(at));
            }
        }
    }

    #[test]
    fn words_are_split_at_runs_of_blanks() {
        assert_eq!(words(b" a\t\tb  c ").collect::<Vec<_>>(), [&b"a"[..], b"b", b"c"]);
        assert_eq!(words(b"  ").count(), 0);
    }
}
