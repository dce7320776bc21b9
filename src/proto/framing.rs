//! Splits a client's stream into lines, and discards lines that are too long.

use crate::util::lines::find_newline;

/// The result of reading the beginning of a client's input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framed<'a> {
    /// A whole request without its newline, and the number of bytes including the newline. A
    /// carriage return before the newline is still part of the request.
    Request(&'a [u8], usize),
    /// A request that is too long, and the number of bytes to drop. The last field is true if
    /// its newline was among them.
    TooLong(usize, bool),
    /// The rest of a request that was too long: the number of bytes to drop. The last field is
    /// true if its newline was among them.
    Discard(usize, bool),
    /// The input ended inside a request of this many bytes. It is not used, because its sender
    /// may have meant to write more.
    Unterminated(usize),
    /// The input holds no whole request yet.
    Partial,
}

/// Splits the first request off `input`. A request has at most `max` bytes, not counting its
/// newline and a carriage return before it. `skipping` is true if the newline of a request
/// that was too long has not been found yet. `ended` is true if no bytes will follow `input`.
#[must_use]
pub fn frame(input: &[u8], max: usize, skipping: bool, ended: bool) -> Framed<'_> {
    let newline = find_newline(input);
    let used = newline.map_or(input.len(), |at| at.saturating_add(1));
    if skipping {
        return Framed::Discard(used, newline.is_some());
    }
    let line = input.get(..newline.unwrap_or(input.len())).unwrap_or(input);
    if line.strip_suffix(b"\r").unwrap_or(line).len() > max {
        return Framed::TooLong(used, newline.is_some());
    }
    match newline {
        Some(_) => Framed::Request(line, used),
        None if ended && !input.is_empty() => Framed::Unterminated(used),
        None => Framed::Partial,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1100;

    #[test]
    fn requests_are_split_at_newlines_and_half_a_request_is_none() {
        assert_eq!(frame(b"status\nqueue", MAX, false, false), Framed::Request(b"status", 7));
        assert_eq!(frame(b"\n", MAX, false, false), Framed::Request(b"", 1));
        assert_eq!(frame(b"status", MAX, false, false), Framed::Partial);
        assert_eq!(frame(b"status", MAX, false, true), Framed::Unterminated(6));
        assert_eq!(frame(b"", MAX, false, true), Framed::Partial);
    }

    #[test]
    fn a_request_that_is_too_long_is_dropped_up_to_its_newline() {
        let mut input = vec![b'x'; MAX];
        assert_eq!(frame(&input, MAX, false, false), Framed::Partial);
        input.extend(b"\r\n");
        assert!(
            matches!(frame(&input, MAX, false, false), Framed::Request(_, 1102)),
            "its end does not count"
        );
        input.truncate(MAX);
        input.push(b'x');
        assert_eq!(frame(&input, MAX, false, false), Framed::TooLong(MAX + 1, false));
        input.extend(b"x\n");
        assert_eq!(frame(&input, MAX, false, false), Framed::TooLong(MAX + 3, true));
        assert_eq!(frame(b"xxx", MAX, true, false), Framed::Discard(3, false));
        assert_eq!(frame(b"xxx\nstatus\n", MAX, true, false), Framed::Discard(4, true));
    }

    #[test]
    fn any_bytes_are_framed_without_loss() {
        let mut seed = 1u64;
        for _ in 0..20_000 {
            let mut input = Vec::new();
            for _ in 0..seed % 3000 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                input.push(if seed >> 60 == 0 { b'\n' } else { (seed >> 40) as u8 });
            }
            seed = seed.wrapping_add(1);
            let (mut at, mut skipping) = (0, false);
            loop {
                match frame(&input[at..], MAX, skipping, true) {
                    Framed::Request(line, used) => {
                        assert!(line.len() < used + 1 && used > 0);
                        at += used;
                    }
                    Framed::TooLong(used, end) => (at, skipping) = (at + used, !end),
                    Framed::Unterminated(used) => at += used,
                    Framed::Discard(used, end) if used > 0 => (at, skipping) = (at + used, !end),
                    Framed::Discard(..) | Framed::Partial => break,
                }
            }
            assert_eq!(at, input.len());
        }
    }
}
