//! The names of signals (signal(7)).

use crate::util::string_table::{StringTable, string_table};
use crate::util::text::parse_u64;

/// The names in the order of the numbers, from 1 on. They are the same on x86, arm and riscv.
static NAMES: StringTable = string_table![
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Returns the number of a signal: `HUP`, `SIGHUP`, or the number itself, 1 to 31.
#[must_use]
pub fn parse(text: &[u8]) -> Option<u8> {
    let name = text.strip_prefix(b"SIG").unwrap_or(text);
    let number = match NAMES.find(name) {
        Some(index) => index.saturating_add(1),
        None => usize::try_from(parse_u64(text)?).ok()?,
    };
    u8::try_from(number).ok().filter(|number| !name_of(*number).is_empty())
}

/// Returns the name of a signal without `SIG`; empty for a number that has none.
#[must_use]
pub fn name_of(number: u8) -> &'static str {
    usize::from(number).checked_sub(1).map_or("", |index| NAMES.get(index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_its_name_with_or_without_sig_and_its_number() {
        for (text, number) in [("HUP", 1), ("SIGHUP", 1), ("1", 1), ("KILL", 9), ("SIGTERM", 15), ("31", 31)]
        {
            assert_eq!(parse(text.as_bytes()), Some(number), "{text}");
        }
        for text in
            ["", "0", "32", "-1", "hup", "SIG", "SIG9", "TERMINATE", "256", "1 ", "99999999999999999999"]
        {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        for number in 1..=31 {
            assert_eq!(parse(name_of(number).as_bytes()), Some(number));
        }
        assert_eq!((name_of(0), name_of(32), name_of(255)), ("", "", ""));
    }
}
