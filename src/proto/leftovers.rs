//! The note of the process groups that a service has started, for the service after it, and the
//! marks in the environment of their processes.
//!
//! ```text
//! BOOT NAMESPACE                      the boot id and the PID namespace
//! GROUP SESSION JOB FROM UPTO TOKEN   one line for each group: its leader started between these
//! end                                 times, with this token
//! ```
//!
//! The times are milliseconds since boot. The text after `end` is the rest of an older note.

use crate::proto::health::BOOT_ID_BYTES;
use crate::util::text::{Writer, parse_u64};
use crate::util::time::Instant;
use ufmt::uwrite;

/// Bytes of a token in hexadecimal digits.
pub const TOKEN_BYTES: usize = 32;
/// The variable that holds the token.
pub const TOKEN_VARIABLE: &[u8] = b"ZIGSVC_TOKEN=";
/// The beginning of each variable that a service gives to its handlers.
const OUR_VARIABLES: &[u8] = b"ZIGSVC_";
/// Maximum number of bytes of the first line and of the last.
pub const HEAD_BYTES: usize = BOOT_ID_BYTES + 28;
/// Maximum number of bytes of the line of a group.
pub const GROUP_BYTES: usize = 88 + TOKEN_BYTES;

/// A random word that only the processes of one run of a service have.
pub type Token = [u8; TOKEN_BYTES];

/// The first line of a note.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoteHead {
    /// The boot.
    pub boot: [u8; BOOT_ID_BYTES],
    /// The number of the PID namespace; zero if it is unknown.
    pub namespace: u64,
}

/// A process group that a service has started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(Hash))]
pub struct NotedGroup {
    /// The number of the group, which is the PID of its leader.
    pub number: u32,
    /// The session of the leader.
    pub session: u32,
    /// The job.
    pub job: u64,
    /// The time before the leader was started.
    pub from: Instant,
    /// The time after the leader was started.
    pub upto: Instant,
    /// The token of the service that has started the group.
    pub token: Token,
}

/// Returns `bytes` as hexadecimal digits.
#[must_use]
pub fn token(bytes: &[u8; TOKEN_BYTES / 2]) -> Token {
    let mut token = [b'0'; TOKEN_BYTES];
    for (digits, byte) in token.chunks_mut(2).zip(bytes) {
        for (digit, nibble) in digits.iter_mut().zip([byte >> 4, byte & 15]) {
            *digit = b"0123456789abcdef".get(usize::from(nibble)).copied().unwrap_or(b'0');
        }
    }
    token
}

/// Writes a note.
pub fn emit(head: &NoteHead, groups: &mut dyn Iterator<Item = &NotedGroup>, out: &mut Writer<'_>) {
    out.push(&head.boot);
    let _ = uwrite!(out, " {}", head.namespace);
    for group in groups {
        let NotedGroup { number, session, job, from, upto, token } = group;
        let _ = uwrite!(out, "\n{} {} {} {} {} ", *number, *session, *job, from.as_ms(), upto.as_ms());
        out.push(token);
    }
    out.push_str("\nend\n");
}

/// Returns the head of a note and its groups. Returns `None` if it has none.
#[must_use]
pub fn parse(note: &[u8]) -> Option<(NoteHead, impl Iterator<Item = NotedGroup>)> {
    let mut lines = note.split(|byte| *byte == b'\n');
    let mut words = lines.next()?.split(|byte| *byte == b' ');
    let boot = words.next()?.try_into().ok()?;
    let namespace = parse_u64(words.next()?)?;
    Some((NoteHead { boot, namespace }, lines.map_while(parse_group)))
}

fn parse_group(line: &[u8]) -> Option<NotedGroup> {
    let mut words = line.split(|byte| *byte == b' ');
    let mut next = || parse_u64(words.next()?);
    let number = u32::try_from(next()?).ok().filter(|number| *number > 1)?;
    let session = u32::try_from(next()?).ok()?;
    let (job, from, upto) = (next()?, next()?, next()?);
    let token = words.next()?.try_into().ok()?;
    let (from, upto) = (Instant::from_ms(from), Instant::from_ms(upto));
    Some(NotedGroup { number, session, job, from, upto, token })
}

/// The mark that the environment of a process has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// The token that was looked for.
    Token,
    /// Variables of another service, or of another run of this one.
    Other,
    /// No variable of a service, or an environment that cannot be read.
    Nothing,
}

/// Looks for a token in an environment that is read in parts.
pub struct MarkScanner<'t> {
    token: &'t Token,
    /// The beginning of the present entry.
    entry: [u8; TOKEN_VARIABLE.len() + TOKEN_BYTES],
    /// Bytes of the present entry, counted up to one more than `entry` holds.
    length: usize,
    mark: Mark,
}

impl<'t> MarkScanner<'t> {
    /// Returns a scanner that has read nothing.
    #[must_use]
    pub const fn new(token: &'t Token) -> Self {
        Self { token, entry: [0; TOKEN_VARIABLE.len() + TOKEN_BYTES], length: 0, mark: Mark::Nothing }
    }

    /// Reads the next part.
    pub fn read(&mut self, part: &[u8]) {
        for byte in part {
            if *byte == 0 {
                self.end_entry();
            } else {
                if let Some(to) = self.entry.get_mut(self.length) {
                    *to = *byte;
                }
                self.length = self.length.saturating_add(1).min(self.entry.len().saturating_add(1));
            }
        }
    }

    fn end_entry(&mut self) {
        let entry = self.entry.get(..self.length).unwrap_or(&self.entry);
        let whole = self.length <= self.entry.len();
        if whole && entry.strip_prefix(TOKEN_VARIABLE) == Some(&self.token[..]) {
            self.mark = Mark::Token;
        } else if entry.starts_with(OUR_VARIABLES) && self.mark == Mark::Nothing {
            self.mark = Mark::Other;
        }
        self.length = 0;
    }

    /// Returns the mark, after the whole environment was read.
    #[must_use]
    pub fn finish(mut self) -> Mark {
        self.end_entry();
        self.mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(number: u32, job: u64) -> NotedGroup {
        let (from, upto) = (Instant::from_ms(1000), Instant::from_ms(1007));
        NotedGroup { number, session: 77, job, from, upto, token: a_token() }
    }

    fn a_token() -> Token {
        token(&[0, 1, 2, 3, 4, 5, 6, 7, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xff])
    }

    fn head() -> NoteHead {
        NoteHead { boot: [b'b'; BOOT_ID_BYTES], namespace: 4_026_531_836 }
    }

    #[test]
    fn a_note_is_read_as_it_was_written_even_over_an_older_one() {
        let mut buffer = [0; 2000];
        for count in (0..=12).rev() {
            let groups: Vec<NotedGroup> =
                (0..count).map(|at| group(2 + at, u64::MAX - u64::from(at))).collect();
            let mut out = Writer::new(&mut buffer);
            emit(&head(), &mut groups.iter(), &mut out);
            assert!(out.len() <= HEAD_BYTES + groups.len() * GROUP_BYTES);
            let (read, found) = parse(&buffer).unwrap();
            assert_eq!((read, found.collect::<Vec<_>>()), (head(), groups));
        }
    }

    #[test]
    fn the_longest_numbers_fit() {
        let max = Instant::from_ms(u64::MAX);
        let (number, session) = (u32::MAX, u32::MAX);
        let group = NotedGroup { number, session, job: u64::MAX, from: max, upto: max, token: a_token() };
        let head = NoteHead { namespace: u64::MAX, ..head() };
        let mut buffer = [0; HEAD_BYTES + GROUP_BYTES];
        let mut out = Writer::new(&mut buffer);
        emit(&head, &mut [group].iter(), &mut out);
        assert!(!out.is_cut());
        assert_eq!(parse(out.as_bytes()).unwrap().1.collect::<Vec<_>>(), [group]);
    }

    #[test]
    fn what_is_no_note_names_no_group() {
        for note in [&b""[..], b"\n\n", b"0b1c 2\n", &[b'x'; 36], &[0; 200]] {
            assert!(parse(note).is_none());
        }
        // The note of a service that knew no namespace.
        let old = [&[b'b'; BOOT_ID_BYTES][..], b"\n123 4\n"].concat();
        assert!(parse(&old).is_none());
        for line in ["1 2 3 4 5", "0 2 3 4 5", "9 2 3", "9 2 3 x 5", "4294967296 2 3 4 5"] {
            let line = format!("{line} {}", "0".repeat(TOKEN_BYTES));
            assert_eq!(parse_group(line.as_bytes()), None, "{line}");
        }
        for line in ["end", "9 2 3 4 5", "9 2 3 4 5 abc", ""] {
            assert_eq!(parse_group(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn a_mark_is_found_wherever_it_is_in_an_environment_of_any_size() {
        let token = a_token();
        let text = String::from_utf8(token.to_vec()).unwrap();
        let filler = format!("A={}", "x".repeat(5000));
        let cases = [
            (vec![], Mark::Nothing),
            (vec!["PATH=/bin".to_owned(), filler.clone()], Mark::Nothing),
            (vec![filler.clone(), "ZIGSVC_JOB_ID=1".to_owned()], Mark::Other),
            (vec![filler.clone(), format!("ZIGSVC_TOKEN={text}"), "ZIGSVC_JOB_ID=1".to_owned()], Mark::Token),
            (vec!["ZIGSVC_JOB_ID=1".to_owned(), filler.clone(), format!("ZIGSVC_TOKEN={text}")], Mark::Token),
            (vec![format!("ZIGSVC_TOKEN={text}0")], Mark::Other),
            (vec![format!("XZIGSVC_TOKEN={text}")], Mark::Nothing),
            (vec![format!("A=ZIGSVC_TOKEN={text}")], Mark::Nothing),
            (vec![format!("ZIGSVC_TOKEN={}", "0".repeat(32))], Mark::Other),
            (vec!["ZIGSVC".to_owned()], Mark::Nothing),
        ];
        for (entries, expected) in cases {
            for ended in [true, false] {
                let bytes = entries.join("\0").into_bytes();
                let bytes = if ended { [bytes, vec![0]].concat() } else { bytes };
                for size in [1, 7, 64, 100_000] {
                    let mut scanner = MarkScanner::new(&token);
                    bytes.chunks(size).for_each(|part| scanner.read(part));
                    assert_eq!(scanner.finish(), expected, "{entries:?} {size}");
                }
            }
        }
    }
}
