//! The bytes of the control protocol: the words of a request and the names of errors.
//! `docs/control.md` is the manual of the protocol.

use crate::limits::{DELAY_MAX, DELAY_MIN, JOB_MAX_BYTES};
use crate::proto::config::value::parse_duration;
use crate::util::lines::{Line, classify};
use crate::util::string_table::named_enum;
use crate::util::text::{Writer, parse_u64, text_with_number, trim};
use crate::util::time::Duration;
use ufmt::uwrite;

named_enum! {
    /// The reason for which a request is refused. The text of the reply says more. The name is
    /// that of the protocol.
    pub enum Code {
        /// The request is empty or unknown, or its arguments are wrong.
        BadRequest = "bad-request",
        /// The request or the job is too long.
        TooLong = "too-long",
        /// There is no such job, or its state does not allow the request.
        NoJob = "no-job",
        /// The supervisor has no service or program of this name.
        NoProgram = "no-program",
        /// The process does not run.
        NotRunning = "not-running",
        /// The request failed, or cannot be made to this process.
        Refused = "refused",
        /// `queue_max` is reached.
        Full = "full",
        /// The disk has no space.
        NoSpace = "no-space",
        /// The disk failed.
        Io = "io",
        /// The service takes no new jobs, because it finishes the queued ones.
        Draining = "draining",
        /// The queue is held.
        Held = "held",
        /// The service stops.
        Stopping = "stopping",
        /// This client may not make the request.
        Denied = "denied",
        /// All slots for clients are taken.
        Busy = "busy",
    }
}

/// A refusal: its code, and a text that says what would be right.
pub type Refusal = (Code, &'static str);

/// Writes `err CODE TEXT`.
pub fn push_refusal((code, text): Refusal, out: &mut Writer<'_>) {
    let _ = uwrite!(out, "err {} {}\n", code.name(), text);
}

/// Writes the refusal of a request whose verb is not known.
pub fn push_unknown(verb: &[u8], out: &mut Writer<'_>) {
    let _ = uwrite!(out, "err {} ", Code::BadRequest.name());
    if verb.is_empty() {
        out.push_str("an empty request; see help\n");
    } else {
        out.push_str("unknown request \"");
        out.push_escaped(verb.get(..20).unwrap_or(verb));
        out.push_str("\"; see help\n");
    }
}

/// Writes the line of `help` for one request.
pub fn push_help(name: &str, args: &str, help: &str, is_owners: bool, out: &mut Writer<'_>) {
    let gap = if args.is_empty() { "" } else { " " };
    let _ = uwrite!(out, "{}{}{}: {}", name, gap, args, help);
    out.push_str(if is_owners { " (owner only)\n" } else { "\n" });
}

/// Splits a request into the verb and its argument, both without blanks at their ends. The
/// argument is empty if there is none.
#[must_use]
pub fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let line = trim(line);
    let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(line.len());
    (line.get(..end).unwrap_or(line), trim(line.get(end..).unwrap_or(&[])))
}

/// Checks that a request has no argument.
///
/// # Errors
/// [`Code::BadRequest`] if there is one.
pub fn nothing(argument: &[u8]) -> Result<(), Refusal> {
    if argument.is_empty() { Ok(()) } else { Err((Code::BadRequest, "this request takes no argument")) }
}

/// Returns true if the argument is `wait`, and false if there is none.
///
/// # Errors
/// [`Code::BadRequest`] for any other argument.
pub fn waits(argument: &[u8]) -> Result<bool, Refusal> {
    match argument {
        b"" => Ok(false),
        b"wait" => Ok(true),
        _ => Err((Code::BadRequest, "the only argument is wait")),
    }
}

/// Returns the text of a job: 1 to 1000 bytes without NUL.
///
/// # Errors
/// [`Code::BadRequest`] if it is empty or contains NUL, [`Code::TooLong`] if it is too long.
pub fn text(argument: &[u8]) -> Result<&[u8], Refusal> {
    match classify(argument) {
        Line::Job(text) => Ok(text),
        Line::Empty => Err((Code::BadRequest, "queue needs the text of a job")),
        Line::Rejected(_) if argument.contains(&0) => {
            Err((Code::BadRequest, "a job may not hold a NUL byte"))
        }
        Line::Rejected(_) => {
            Err((Code::TooLong, text_with_number!("a job has at most ", JOB_MAX_BYTES, " bytes")))
        }
    }
}

/// Parses the argument of `after`: `DURATION TEXT`.
///
/// # Errors
/// [`Code::BadRequest`] if the duration is none, or out of its range; otherwise as for [`text`].
pub fn delayed(argument: &[u8]) -> Result<(Duration, &[u8]), Refusal> {
    let (duration, job) = split(argument);
    Ok((delay(duration).ok_or((Code::BadRequest, DELAY_TEXT))?, text(job)?))
}

/// The text of a refusal of [`delay`].
pub const DELAY_TEXT: &str = "the duration must be from 1s to 8760h, for example 90s, 10m or 24h";

/// Parses the duration after which a job is due.
#[must_use]
pub fn delay(text: &[u8]) -> Option<Duration> {
    let span = parse_duration(text)?;
    (DELAY_MIN..=DELAY_MAX).contains(&span).then_some(span)
}

/// Parses the id of a job, a decimal number.
///
/// # Errors
/// [`Code::BadRequest`] if the argument is not a number.
pub fn id(argument: &[u8]) -> Result<u64, Refusal> {
    parse_u64(argument).ok_or((Code::BadRequest, "the argument must be the id of a job, a number"))
}

/// The jobs to which `retry` or `forget` applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// One dead job, by its id.
    Job(u64),
    /// All dead jobs.
    Dead,
}

/// Parses the argument of `retry` and `forget`: `ID` or `dead`.
///
/// # Errors
/// [`Code::BadRequest`] if it is neither.
pub fn target(argument: &[u8]) -> Result<Target, Refusal> {
    match argument {
        b"dead" => Ok(Target::Dead),
        _ => match parse_u64(argument) {
            Some(id) => Ok(Target::Job(id)),
            None => Err((Code::BadRequest, "the argument must be the id of a dead job, or `dead` for all")),
        },
    }
}

/// The jobs that `list` shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Filter {
    /// True to show jobs that wait, also for their next attempt.
    pub waiting: bool,
    /// True to show delayed jobs that are not due.
    pub scheduled: bool,
    /// True to show jobs whose handler runs.
    pub running: bool,
    /// True to show dead jobs.
    pub dead: bool,
    /// True to show the last ends of jobs instead, in their order.
    pub done: bool,
    /// Only jobs with a higher id than this are shown.
    pub after: u64,
}

/// Parses the argument of `list`: `[STATE [AFTER_ID]]`. Without one, all jobs are shown.
///
/// # Errors
/// [`Code::BadRequest`] if the state is unknown, or the id is not a number.
pub fn filter(argument: &[u8]) -> Result<Filter, Refusal> {
    let (state, after) = split(argument);
    let is = |name: &[u8]| state == name || matches!(state, b"" | b"all");
    let [waiting, scheduled, running, dead] = [is(b"waiting"), is(b"scheduled"), is(b"running"), is(b"dead")];
    let done = state == b"done";
    if ![waiting, scheduled, running, dead, done].contains(&true) {
        return Err((Code::BadRequest, "the state must be waiting, scheduled, running, dead, done or all"));
    }
    let after = if after.is_empty() { Some(0) } else { parse_u64(after) };
    let after = after.ok_or((Code::BadRequest, "the second argument must be the id after which to go on"))?;
    Ok(Filter { waiting, scheduled, running, dead, done, after })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_and_its_argument_are_trimmed() {
        assert_eq!(split(b" queue \t a  b \r"), (&b"queue"[..], &b"a  b"[..]));
        assert_eq!(split(b"status\r"), (&b"status"[..], &b""[..]));
        assert_eq!(split(b" \t"), (&b""[..], &b""[..]));
    }

    #[test]
    fn every_refusal_has_the_name_that_the_manual_gives_it() {
        let codes = [
            (Code::BadRequest, "bad-request"),
            (Code::TooLong, "too-long"),
            (Code::NoJob, "no-job"),
            (Code::NoProgram, "no-program"),
            (Code::NotRunning, "not-running"),
            (Code::Refused, "refused"),
            (Code::Full, "full"),
            (Code::NoSpace, "no-space"),
            (Code::Io, "io"),
            (Code::Draining, "draining"),
            (Code::Held, "held"),
            (Code::Stopping, "stopping"),
            (Code::Denied, "denied"),
            (Code::Busy, "busy"),
        ];
        let manual = include_str!("../../docs/control.md");
        for (code, name) in codes {
            assert_eq!(code.name(), name);
            assert!(manual.contains(&format!("`{name}`")), "{name}");
        }
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
        let all = Filter { waiting: true, scheduled: true, running: true, dead: true, done: false, after: 0 };
        assert_eq!(filter(b""), Ok(all));
        assert_eq!(filter(b"all 5"), Ok(Filter { after: 5, ..all }));
        assert_eq!(
            filter(b"scheduled 7").map(|filter| (filter.scheduled, filter.waiting, filter.after)),
            Ok((true, false, 7))
        );
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
        let span = Duration::from_secs(90);
        assert_eq!(delayed(b"90s  a  b"), Ok((span, &b"a  b"[..])));
        assert_eq!((delay(b"1s").is_some(), delay(b"8760h").is_some()), (true, true));
        for bad in [&b""[..], b"0", b"999ms", b"0s", b"8761h", b"31536001s", b"5", b"-1s", b"x", b"1d"] {
            assert_eq!(delay(bad), None);
            assert_eq!(delayed(&[bad, b" job"].concat()).unwrap_err().0, Code::BadRequest);
        }
        assert_eq!(delayed(b"99999999999999999999h x").unwrap_err().0, Code::BadRequest);
        assert_eq!(delayed(b"1s").unwrap_err().0, Code::BadRequest);
        assert!(nothing(b"").is_ok() && nothing(b"x").is_err());
    }
}
