//! A stream of lines from a client: where one ends, and what to do with one that is
//! too long.

/// What stands at the beginning of a client's input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framed<'a> {
    /// A whole request, without its end, and the bytes up to behind that.
    Request(&'a [u8], usize),
    /// A request that is too long; so many bytes are dropped. True: its newline
    /// was among them.
    TooLong(usize, bool),
    /// Nothing but the rest of such a request; as for that.
    Discard(usize, bool),
    /// The input ended inside a request, of so many bytes: what its sender meant
    /// is not known, so it is not one.
    Unterminated(usize),
    /// Not yet a whole request.
    Partial,
}

/// Splits off the first request of `input`, of at most `max` bytes without its end (a
/// newline, or CR and newline). `skipping` is whether the rest of a
/// request that was too long is still to come; `ended` whether nothing will
/// come behind `input`.
#[must_use]
pub fn frame(input: &[u8], max: usize, skipping: bool, ended: bool) -> Framed<'_> {
    let newline = input.iter().position(|byte| *byte == b'\n');
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
