//! The datagrams that a service sends to the service manager that started it: lines
//! `NAME=VALUE` (sd_notify(3)). The manager's variables in the environment are read here, too.

use crate::limits::WATCHDOG_MIN;
use crate::util::text::{Writer, parse_u64};
use crate::util::time::Duration;

/// A change in the state of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotifyState {
    /// The service has begun to read its configuration again, at this CLOCK_MONOTONIC in
    /// microseconds. [`NotifyState::Ready`] follows.
    Reloading(u64),
    /// The service is ready, after its start or after a reload.
    Ready,
    /// The service is about to end.
    Stopping,
}

/// The content of one datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NotifyMessage {
    /// The change of state to report, if any.
    pub state: Option<NotifyState>,
    /// True to describe the state of the service in words.
    pub status: bool,
    /// True to report that the service is alive.
    pub watchdog: bool,
}

impl NotifyMessage {
    /// Appends the text of the datagram. `pid` is that of the service. `status` is one line in
    /// two parts, escaped already.
    pub fn emit(self, pid: u32, status: (&[u8], &str), out: &mut Writer<'_>) {
        let (text, number) = match self.state {
            Some(NotifyState::Reloading(usec)) => ("RELOADING=1\nMONOTONIC_USEC=", usec),
            Some(NotifyState::Ready) => ("READY=1\nMAINPID=", u64::from(pid)),
            Some(NotifyState::Stopping) => ("STOPPING=", 1),
            None => ("", 0),
        };
        if self.state.is_some() {
            out.push_str(text);
            out.push_u64(number);
            out.push_str("\n");
        }
        if self.status {
            out.push_str("STATUS=");
            out.push(status.0);
            out.push_str(status.1);
            out.push_str("\n");
        }
        if self.watchdog {
            out.push_str("WATCHDOG=1\n");
        }
    }
}

/// Returns the time between two messages `WATCHDOG=1` (sd_watchdog_enabled(3)): half of
/// `usec`, which is `WATCHDOG_USEC` in microseconds, but at least [`WATCHDOG_MIN`]. Returns
/// `None` if the messages are not wanted: `usec` is unset, 0, not a number, or the largest
/// number, which means infinity, or `for_pid`, which is `WATCHDOG_PID`, is set and not `pid`.
#[must_use]
pub fn watchdog_every(usec: Option<&[u8]>, for_pid: Option<&[u8]>, pid: u32) -> Option<Duration> {
    if for_pid.is_some_and(|digits| parse_u64(digits) != Some(u64::from(pid))) {
        return None;
    }
    let usec = parse_u64(usec?).filter(|usec| !matches!(*usec, 0 | u64::MAX))?;
    Some(Duration::from_ms(usec / 2000).at_least(WATCHDOG_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(message: NotifyMessage, status: &str) -> String {
        let mut buffer = [0; 128];
        let mut out = Writer::new(&mut buffer);
        message.emit(42, (status.as_bytes(), "!"), &mut out);
        String::from_utf8(out.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn each_message_has_the_lines_of_the_protocol() {
        let state = |state| NotifyMessage { state: Some(state), ..NotifyMessage::default() };
        assert_eq!(text(NotifyMessage::default(), "x"), "");
        assert_eq!(text(state(NotifyState::Ready), "x"), "READY=1\nMAINPID=42\n");
        assert_eq!(text(state(NotifyState::Reloading(7)), "x"), "RELOADING=1\nMONOTONIC_USEC=7\n");
        assert_eq!(text(state(NotifyState::Stopping), "x"), "STOPPING=1\n");
        let all = NotifyMessage { status: true, watchdog: true, ..state(NotifyState::Stopping) };
        assert_eq!(text(all, "well"), "STOPPING=1\nSTATUS=well!\nWATCHDOG=1\n");
    }

    #[test]
    fn the_watchdog_is_fed_at_half_of_its_time() {
        assert_eq!(watchdog_every(Some(b"30000000"), None, 42), Some(Duration::from_ms(15_000)));
        assert_eq!(watchdog_every(Some(b"30000000"), Some(b"42"), 42), Some(Duration::from_ms(15_000)));
        assert_eq!(watchdog_every(Some(b"3000000"), None, 42), Some(Duration::from_ms(1500)));
    }

    #[test]
    fn a_tiny_time_is_bounded_and_a_huge_one_overflows_nothing() {
        assert_eq!(watchdog_every(Some(b"1"), None, 42), Some(WATCHDOG_MIN));
        let most = (u64::MAX - 1).to_string();
        assert_eq!(watchdog_every(Some(most.as_bytes()), None, 42), Some(Duration::from_ms(u64::MAX / 2000)));
    }

    #[test]
    fn what_is_no_time_or_for_another_process_is_no_watchdog() {
        let most = u64::MAX.to_string();
        for usec in ["", "0", "000", "-1", "+5", " 5", "5 ", "1e6", "x", &most, "18446744073709551616"] {
            assert_eq!(watchdog_every(Some(usec.as_bytes()), None, 42), None, "{usec}");
        }
        assert_eq!(watchdog_every(None, None, 42), None);
        assert_eq!(watchdog_every(None, Some(b"42"), 42), None);
        for pid in ["", "41", "-42", "x", "4294967338", "42 "] {
            assert_eq!(watchdog_every(Some(b"30000000"), Some(pid.as_bytes()), 42), None, "{pid}");
        }
    }
}
