//! Fuzzes what a service reads about processes of an earlier one: the note of their groups, the
//! marks in their environments, and the options that its health file keeps.

use super::{Choices, written};
use zigsvc::proto::health::{parse_option_word, push_option_word};
use zigsvc::proto::leftovers::{
    Mark, MarkScanner, NotedGroup, TOKEN_BYTES, TOKEN_VARIABLE, Token, emit, parse, token,
};
use zigsvc::util::text::Writer;

/// Checks that a note which was parsed is parsed again after it was written, also over an older
/// one. Of a note that was cut, the groups are the first ones of the whole note.
pub fn note(data: &[u8]) {
    let Some((head, groups)) = parse(data) else { return };
    let groups: Vec<NotedGroup> = groups.collect();
    assert!(groups.iter().all(|group| group.number > 1), "{groups:?}");
    assert!(groups.len() <= data.len() / TOKEN_BYTES);
    let bytes = written(data.len() * 8 + 200, |out| emit(&head, &mut groups.iter(), out));
    for older in [&b""[..], b"the rest of an older note\n2 2 2 2 2 2\n", data] {
        let (read, again) =
            parse(&[&bytes, older].concat()).map(|(head, all)| (head, all.collect())).unwrap();
        assert_eq!((read, again), (head, groups.clone()));
    }
    let cut = Choices(data).below(bytes.len());
    if let Some((read, found)) = parse(&bytes[..cut]) {
        let found: Vec<NotedGroup> = found.collect();
        assert!(read.boot == head.boot && groups.starts_with(&found), "{found:?}");
        assert!(read.namespace == head.namespace || found.is_empty(), "{read:?}");
    }
}

/// Returns the mark of an environment, by a simpler rule: its whole entries are compared.
fn mark_of(environment: &[u8], token: &Token) -> Mark {
    let entries = || environment.split(|byte| *byte == 0);
    match () {
        () if entries().any(|entry| entry == [TOKEN_VARIABLE, token].concat()) => Mark::Token,
        () if entries().any(|entry| entry.starts_with(b"ZIGSVC_")) => Mark::Other,
        () => Mark::Nothing,
    }
}

/// Checks that an environment has the same mark however it is divided into reads.
pub fn environment(data: &[u8]) {
    let word = token(b"0123456789abcdef");
    // The word of the fuzzer's input stands for the token, which chance would not find.
    let data: Vec<u8> = match data.split_first() {
        Some((byte, rest)) if byte & 1 == 1 => {
            let at = usize::from(byte >> 1).min(rest.len());
            [&rest[..at], TOKEN_VARIABLE, &word, &rest[at..]].concat()
        }
        _ => data.to_vec(),
    };
    let expected = mark_of(&data, &word);
    for size in [1, 2, 7, 4096] {
        let mut scanner = MarkScanner::new(&word);
        data.chunks(size).for_each(|part| scanner.read(part));
        assert_eq!(scanner.finish(), expected, "in parts of {size}");
    }
}

/// Checks that any word of an option is read as it was written, on one line, and that a line which
/// was not written by a service gives a word or nothing.
pub fn option_word(data: &[u8]) {
    let line = written(data.len() * 4 + 1, |out| push_option_word(data, out));
    let (text, end) = line.split_at(line.len() - 1);
    assert!(end == b"\n" && !text.contains(&b'\n') && !text.contains(&0));
    assert_eq!(word_of(text).as_deref(), Some(data));
    let _ = word_of(data);
}

fn word_of(line: &[u8]) -> Option<Vec<u8>> {
    let mut buffer = vec![0; line.len() + 1];
    let mut out = Writer::new(&mut buffer);
    parse_option_word(line, &mut out)?;
    assert!(!out.is_cut());
    Some(out.as_bytes().to_vec())
}
