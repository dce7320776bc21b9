//! The bytes of the control protocol: where a request ends, what its words are,
//! and how errors are named. `docs/control.md` is its manual.

use super::lines::{Line, classify};
use super::text::{parse_u64, trim};
use crate::limits::REQUEST_MAX_BYTES;

/// Why a request was refused; the text says more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// Empty, unknown, or with wrong arguments.
    BadRequest,
    /// The request or the job is too long.
    TooLong,
    /// No such job, or not in a state for this.
    NoJob,
    /// `queue_max` is reached.
    Full,
    /// The disk has no room.
    NoSpace,
    /// The disk failed.
    Io,
    /// No new jobs: the service finishes those that are there.
    Draining,
    /// The service is stopping.
    Stopping,
    /// This peer may not.
    Denied,
    /// All places are taken.
    Busy,
}

impl Code {
    /// Its name in the protocol.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad-request",
            Self::TooLong => "too-long",
            Self::NoJob => "no-job",
            Self::Full => "full",
            Self::NoSpace => "no-space",
            Self::Io => "io",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Denied => "denied",
            Self::Busy => "busy",
        }
    }
}

/// A refusal: its code and what would be right.
pub type Refusal = (Code, &'static str);

/// What stands at the beginning of a client's input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framed<'a> {
    /// A whole request, without its end, and the bytes up to behind that.
    Request(&'a [u8], usize),
    /// A request that is too long; so many bytes are dropped. True: its newline
    /// was among them.
    TooLong(usize, bool),
    /// Nothing but the rest of such a request; as for that.
    Rest(usize, bool),
    /// The input ended inside a request, of so many bytes: what its sender meant
    /// is not known, so it is not one.
    Cut(usize),
    /// Not yet a whole request.
    Partial,
}

/// Splits off the first request of `input`. `skipping` is whether the rest of a
/// request that was too long is still to come; `ended` whether nothing will
/// come behind `input`.
#[must_use]
pub fn frame(input: &[u8], skipping: bool, ended: bool) -> Framed<'_> {
    let newline = input.iter().position(|byte| *byte == b'\n');
    let used = newline.map_or(input.len(), |at| at.saturating_add(1));
    if skipping {
        return Framed::Rest(used, newline.is_some());
    }
    let line = input.get(..newline.unwrap_or(input.len())).unwrap_or(input);
    if line.strip_suffix(b"\r").unwrap_or(line).len() > REQUEST_MAX_BYTES {
        return Framed::TooLong(used, newline.is_some());
    }
    match newline {
        Some(_) => Framed::Request(line, used),
        None if ended && !input.is_empty() => Framed::Cut(used),
        None => Framed::Partial,
    }
}

/// The verb and its argument, both trimmed.
#[must_use]
pub fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let line = trim(line);
    let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
    (line.get(..end).unwrap_or(line), trim(line.get(end..).unwrap_or(&[])))
}

/// No argument.
///
/// # Errors
/// There is one.
pub fn nothing(argument: &[u8]) -> Result<(), Refusal> {
    if argument.is_empty() { Ok(()) } else { Err((Code::BadRequest, "this request takes no argument")) }
}

/// `wait`, or nothing.
///
/// # Errors
/// It is something else.
pub fn waits(argument: &[u8]) -> Result<bool, Refusal> {
    match argument {
        b"" => Ok(false),
        b"wait" => Ok(true),
        _ => Err((Code::BadRequest, "the only argument is wait")),
    }
}

/// A job's text, 1 to 1000 bytes without NUL.
///
/// # Errors
/// It is none.
pub fn text(argument: &[u8]) -> Result<&[u8], Refusal> {
    match classify(argument) {
        Line::Job(text) => Ok(text),
        Line::Empty => Err((Code::BadRequest, "queue needs the text of a job")),
        Line::Rejected(_) if argument.contains(&0) => {
            Err((Code::BadRequest, "a job may not hold a NUL byte"))
        }
        Line::Rejected(_) => Err((Code::TooLong, "a job has at most 1000 bytes")),
    }
}

/// A job's id.
///
/// # Errors
/// It is none.
pub fn id(argument: &[u8]) -> Result<u64, Refusal> {
    parse_u64(argument).ok_or((Code::BadRequest, "the argument must be the id of a job, a number"))
}

/// What `retry` and `forget` are about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// One dead job.
    Job(u64),
    /// All of them.
    Dead,
}

/// `ID` or `dead`.
///
/// # Errors
/// It is neither.
pub fn target(argument: &[u8]) -> Result<Target, Refusal> {
    match argument {
        b"dead" => Ok(Target::Dead),
        _ => match parse_u64(argument) {
            Some(id) => Ok(Target::Job(id)),
            None => Err((Code::BadRequest, "the argument must be the id of a dead job, or `dead` for all")),
        },
    }
}

/// Which jobs `list` shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Filter {
    /// Those that wait, or wait for their next attempt.
    pub waiting: bool,
    /// Those whose handler runs.
    pub running: bool,
    /// Those that are dead.
    pub dead: bool,
    /// Only those with higher ids.
    pub after: u64,
}

/// `[STATE [AFTER_ID]]`
///
/// # Errors
/// It is something else.
pub fn filter(argument: &[u8]) -> Result<Filter, Refusal> {
    let (state, after) = split(argument);
    let (waiting, running, dead) = match state {
        b"" | b"all" => (true, true, true),
        b"waiting" => (true, false, false),
        b"running" => (false, true, false),
        b"dead" => (false, false, true),
        _ => return Err((Code::BadRequest, "the state must be waiting, running, dead or all")),
    };
    let after = if after.is_empty() { Some(0) } else { parse_u64(after) };
    let after = after.ok_or((Code::BadRequest, "the second argument must be the id after which to go on"))?;
    Ok(Filter { waiting, running, dead, after })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_split_at_newlines_and_half_a_request_is_none() {
        assert_eq!(frame(b"status\nqueue", false, false), Framed::Request(b"status", 7));
        assert_eq!(frame(b"\n", false, false), Framed::Request(b"", 1));
        assert_eq!(frame(b"status", false, false), Framed::Partial);
        assert_eq!(frame(b"status", false, true), Framed::Cut(6));
        assert_eq!(frame(b"", false, true), Framed::Partial);
    }

    #[test]
    fn a_request_that_is_too_long_is_dropped_up_to_its_newline() {
        let mut input = vec![b'x'; REQUEST_MAX_BYTES];
        assert_eq!(frame(&input, false, false), Framed::Partial);
        input.extend(b"\r\n");
        assert!(matches!(frame(&input, false, false), Framed::Request(_, 1102)), "its end does not count");
        input.truncate(REQUEST_MAX_BYTES);
        input.push(b'x');
        assert_eq!(frame(&input, false, false), Framed::TooLong(REQUEST_MAX_BYTES + 1, false));
        input.extend(b"x\n");
        assert_eq!(frame(&input, false, false), Framed::TooLong(REQUEST_MAX_BYTES + 3, true));
        assert_eq!(frame(b"xxx", true, false), Framed::Rest(3, false));
        assert_eq!(frame(b"xxx\nstatus\n", true, false), Framed::Rest(4, true));
    }

    #[test]
    fn a_verb_and_its_argument_are_trimmed() {
        assert_eq!(split(b" queue \t a  b \r"), (&b"queue"[..], &b"a  b"[..]));
        assert_eq!(split(b"status\r"), (&b"status"[..], &b""[..]));
        assert_eq!(split(b" \t"), (&b""[..], &b""[..]));
    }

    #[test]
    fn arguments_are_what_they_must_be_or_refused() {
        assert_eq!(id(b"18446744073709551615"), Ok(u64::MAX));
        for bad in [&b""[..], b"-1", b"1 2", b"x", b"18446744073709551616", b"dead"] {
            assert!(id(bad).is_err());
        }
        assert_eq!(target(b"dead"), Ok(Target::Dead));
        assert_eq!(target(b"7"), Ok(Target::Job(7)));
        assert!(target(b"all").is_err());
        let all = Filter { waiting: true, running: true, dead: true, after: 0 };
        assert_eq!(filter(b""), Ok(all));
        assert_eq!(filter(b"all 5"), Ok(Filter { after: 5, ..all }));
        assert_eq!(
            filter(b"dead").map(|filter| (filter.waiting, filter.running, filter.dead)),
            Ok((false, false, true))
        );
        for bad in [&b"5"[..], b"dead x", b"dead 1 2", b"alive"] {
            assert!(filter(bad).is_err());
        }
        assert_eq!(text(b"a"), Ok(&b"a"[..]));
        assert_eq!(text(b"").unwrap_err().0, Code::BadRequest);
        assert_eq!(text(b"a\0b").unwrap_err().0, Code::BadRequest);
        assert_eq!(text(&[b'x'; 1001]).unwrap_err().0, Code::TooLong);
        assert_eq!((waits(b""), waits(b"wait"), waits(b"x").is_ok()), (Ok(false), Ok(true), false));
        assert!(nothing(b"").is_ok() && nothing(b"x").is_err());
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
                match frame(&input[at..], skipping, true) {
                    Framed::Request(line, used) => {
                        assert!(line.len() < used + 1 && used > 0);
                        at += used;
                    }
                    Framed::TooLong(used, end) => (at, skipping) = (at + used, !end),
                    Framed::Cut(used) => at += used,
                    Framed::Rest(used, end) if used > 0 => (at, skipping) = (at + used, !end),
                    Framed::Rest(..) | Framed::Partial => break,
                }
            }
            assert_eq!(at, input.len());
        }
    }
}
