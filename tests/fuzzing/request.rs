//! Fuzzes the input of clients of the sockets.

use super::{Choices, assert_plain, written};
use zigsvc::limits::{CHAT_LINE_BYTES, CLIENT_INPUT_BYTES, CLIENT_OUTPUT_BYTES, REQUEST_MAX_BYTES};
use zigsvc::proto::control::{delay, delayed, filter, id, nothing, split, target, text, waits};
use zigsvc::proto::framing::{Framed, frame};

/// An item in a stream of requests.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Item {
    Request(Vec<u8>),
    TooLong,
    Cut,
}

/// Returns the items of a stream, found in the simplest way.
fn expected(bytes: &[u8], max: usize) -> Vec<Item> {
    let mut items = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let line = &rest[..end.unwrap_or(rest.len())];
        let bare = line.strip_suffix(b"\r").unwrap_or(line);
        items.push(match end {
            _ if bare.len() > max => Item::TooLong,
            None => Item::Cut,
            Some(_) => Item::Request(line.to_vec()),
        });
        rest = end.map_or(&[], |end| &rest[end + 1..]);
    }
    items
}

/// Returns the items of `bytes`, which pass in pieces through a buffer of the size of a
/// client's, as in the services.
fn framed(bytes: &[u8], max: usize, mut piece: impl FnMut() -> usize) -> Vec<Item> {
    let mut items = Vec::new();
    let (mut fed, mut skipping) = (0, false);
    let mut held: Vec<u8> = Vec::new();
    loop {
        let room = (max + 4).saturating_sub(held.len());
        assert!(room > 0, "the buffer is full, and nothing was taken from it");
        let more = piece().clamp(1, room).min(bytes.len() - fed);
        held.extend_from_slice(&bytes[fed..fed + more]);
        fed += more;
        let ended = fed == bytes.len();
        loop {
            let used = match frame(&held, max, skipping, ended) {
                Framed::Request(line, used) => {
                    items.push(Item::Request(line.to_vec()));
                    assert_eq!(held[line.len()..used], *b"\n");
                    used
                }
                Framed::TooLong(used, end) => {
                    items.push(Item::TooLong);
                    skipping = !end;
                    used
                }
                Framed::Discard(used, end) => {
                    skipping = !end;
                    used
                }
                Framed::Unterminated(used) => {
                    items.push(Item::Cut);
                    used
                }
                Framed::Partial => break,
            };
            assert!(used <= held.len());
            held.drain(..used);
            if used == 0 {
                break;
            }
        }
        if ended {
            assert!(held.is_empty(), "{} bytes were lost", held.len());
            return items;
        }
    }
}

/// Checks that each division of a stream into reads gives the same requests, and that no byte
/// is lost. The parsers of arguments must accept only the arguments that their documentation
/// names.
pub fn stream(data: &[u8]) {
    let mut choices = Choices(data);
    let max = if choices.byte().is_multiple_of(4) {
        REQUEST_MAX_BYTES
    } else {
        1 + usize::from(choices.byte()) % 40
    };
    const { assert!(CLIENT_INPUT_BYTES == REQUEST_MAX_BYTES + 4) };
    let seed = choices.byte();
    let bytes = choices.0;
    let mut turn = usize::from(seed);
    let pieces = framed(bytes, max, || {
        turn = turn.wrapping_mul(31).wrapping_add(7);
        turn % 61
    });
    // `TooLong` stands for the whole line, although its bytes may have been dropped in several
    // steps.
    assert_eq!(pieces, expected(bytes, max));
    assert_eq!(framed(bytes, max, || usize::MAX), pieces);
    for item in pieces {
        if let Item::Request(line) = item {
            arguments(&line);
        }
    }
}

fn arguments(line: &[u8]) {
    let (verb, argument) = split(line);
    assert!(!verb.iter().any(|byte| matches!(byte, b' ' | b'\t')));
    for part in [verb, argument] {
        assert!(!part.first().is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r')) || part == verb);
        assert!(!part.last().is_some_and(|byte| matches!(byte, b' ' | b'\t')));
    }
    // No byte but blanks is lost.
    let kept = |bytes: &[u8]| -> Vec<u8> {
        bytes.iter().copied().filter(|byte| !matches!(byte, b' ' | b'\t' | b'\r')).collect()
    };
    assert_eq!(kept(line), kept(&[verb, argument].concat()));
    assert_eq!(nothing(argument).is_ok(), argument.is_empty());
    assert_eq!(waits(argument).is_ok(), argument.is_empty() || argument == b"wait");
    let number = core::str::from_utf8(argument).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    assert_eq!(id(argument).ok(), number.and_then(|text| text.parse().ok()));
    assert_eq!(target(argument).is_ok(), argument == b"dead" || id(argument).is_ok());
    if let Ok(job) = text(argument) {
        assert!((1..=1000).contains(&job.len()) && !job.contains(&0) && !job.contains(&b'\n'));
        assert_eq!(text(job), Ok(job), "a job is a job");
    } else {
        assert!(argument.is_empty() || argument.contains(&0) || argument.len() > 1000);
    }
    if let Ok((after, job)) = delayed(argument) {
        let (word, rest) = split(argument);
        assert_eq!((delay(word), text(rest)), (Some(after), Ok(job)));
    }
    if let Ok(filter) = filter(argument) {
        let (state, after) = split(argument);
        assert!(matches!(state, b"" | b"all" | b"waiting" | b"scheduled" | b"running" | b"dead" | b"done"));
        let shown = [filter.waiting, filter.scheduled, filter.running, filter.dead, filter.done];
        let count = shown.iter().filter(|is| **is).count();
        assert_eq!(count, if matches!(state, b"" | b"all") { 4 } else { 1 });
        assert_eq!(filter.done, state == b"done");
        assert_eq!(filter.after, if after.is_empty() { 0 } else { id(after).unwrap() });
    }
}

/// Checks the lines of a client of the hub. For each line that is not too long, the other
/// clients must read one line, however it was divided into reads. It must bear the client's
/// mark, fit into their buffers, and not command a terminal.
pub fn chat(data: &[u8]) {
    let lines = framed(data, CHAT_LINE_BYTES, || usize::MAX);
    assert_eq!(lines, expected(data, CHAT_LINE_BYTES));
    let mut turn = data.len();
    let pieces = framed(data, CHAT_LINE_BYTES, || {
        turn = turn.wrapping_mul(31).wrapping_add(7);
        turn % 509
    });
    assert_eq!(pieces, lines);
    for line in lines {
        if let Item::Request(text) = line {
            chat_line(&text);
        }
    }
}

fn chat_line(text: &[u8]) {
    let line = written(CLIENT_OUTPUT_BYTES, |out| zigsvc::proto::hub::push_line(u32::MAX, text, out));
    let body = line.strip_prefix(b"[pid 4294967295] ").expect("the mark");
    let body = body.strip_suffix(b"\n").expect("the end");
    assert_plain(body);
    let shown = core::str::from_utf8(body).expect("what others read is UTF-8");
    assert!(!shown.chars().any(|c| c.is_control() && c != '\t'), "{shown:?}");
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if core::str::from_utf8(text).is_ok_and(|text| !text.chars().any(|c| c.is_control() && c != '\t')) {
        assert_eq!(body, text, "plain text passes as it is");
    }
}
