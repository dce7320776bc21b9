//! Log lines: `[2026-11-22T06:11:35Z] [INFO] text`. The formats for syslog (RFC 3164) and for
//! a journal that reads priorities (`<N>`, sd-daemon(3)) are here, too.

use crate::limits::SYSLOG_MAX_BYTES;
use crate::util::string_table::named_enum;
use crate::util::text::Writer;
use ufmt::uwrite;

named_enum! {
    /// The level of a line, from the least important to the most important. The names are
    /// those in the configuration.
    #[derive(PartialOrd, Ord)]
    pub enum Level {
        /// Details for developers.
        Debug = "debug",
        /// An event of normal operation.
        Info = "info",
        /// A condition that the administrator should look at.
        Warn = "warn",
        /// A failure.
        Error = "error",
    }
}

impl Level {
    /// Returns the tag in a line, such as `[INFO] `, with its blank.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Debug => "[DEBUG] ",
            Self::Info => "[INFO] ",
            Self::Warn => "[WARN] ",
            Self::Error => "[ERROR] ",
        }
    }

    /// Returns the severity of RFC 3164, section 4.1.1.
    #[must_use]
    pub const fn severity(self) -> u8 {
        match self {
            Self::Debug => 7,
            Self::Info => 6,
            Self::Warn => 4,
            Self::Error => 3,
        }
    }

    /// Returns the prefix `<N>` of a line for a journal (sd-daemon(3)).
    #[must_use]
    pub const fn prefix(self) -> [u8; 3] {
        [b'<', b'0'.wrapping_add(self.severity()), b'>']
    }
}

named_enum! {
    /// The format of the timestamps of lines. The names are those in the configuration.
    pub enum TimestampFormat {
        /// A date and a time, such as `[2026-11-22T06:11:35Z] `.
        Iso = "iso",
        /// Seconds since 1970, such as `[1795327895] `.
        Unix = "unix",
        /// No timestamp.
        None = "none",
    }
}

impl TimestampFormat {
    /// Writes the timestamp for `wall` seconds since 1970.
    pub fn emit(self, wall: i64, out: &mut Writer<'_>) {
        match self {
            Self::Iso => {
                out.push_str("[");
                emit_iso(wall, out);
                out.push_str("] ");
            }
            Self::Unix => {
                let _ = uwrite!(out, "[{}] ", wall);
            }
            Self::None => {}
        }
    }
}

/// Writes `wall` seconds since 1970 as UTC, such as `2026-11-22T06:11:35Z` (RFC 3339). A time
/// before 1970 is shown as 1970.
pub fn emit_iso(wall: i64, out: &mut Writer<'_>) {
    let seconds = u64::try_from(wall).unwrap_or(0);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    for (number, width, after) in [
        (year, 4, "-"),
        (month, 2, "-"),
        (day, 2, "T"),
        (rest / 3600, 2, ":"),
        (rest / 60 % 60, 2, ":"),
        (rest % 60, 2, "Z"),
    ] {
        out.push_padded(number, width);
        out.push_str(after);
    }
}

/// Returns year, month and day of the day number `days` since 1970-01-01, in the proleptic
/// Gregorian calendar. Years are counted from March, so that the leap day is the last day of
/// its year, and are grouped in eras of 400 years with 146,097 days each.
#[expect(clippy::arithmetic_side_effects, reason = "every step is bounded by its divisor; days < 2^48")]
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year_of_era + carry, month, day)
}

/// Writes one syslog datagram (RFC 3164) of the facility daemon (3) into `buffer`. It has no
/// timestamp, because syslogd adds one, and because the local time is not known without a time
/// zone database. `text` must be escaped already. A text that is too long is cut and marked.
pub fn emit_syslog<'a>(
    buffer: &'a mut [u8; SYSLOG_MAX_BYTES],
    level: Level,
    pid: u32,
    text: &[u8],
) -> Writer<'a> {
    let mut out = Writer::new(buffer);
    let priority = (3u8 << 3) | level.severity();
    let _ = uwrite!(out, "<{}>zigsvc[{}]: ", priority, pid);
    out.push(text);
    out.mark_cut();
    out
}

/// Appends a log line in the format of a journal that reads priorities: `<N>text`
/// (sd-daemon(3)). `line` has a timestamp of the format `stamp` and a tag. Both are left out,
/// because the journal records time and priority. The result is not longer than `line`.
pub fn push_for_journal(line: &[u8], stamp: TimestampFormat, out: &mut Writer<'_>) {
    let line = if stamp == TimestampFormat::None { line } else { behind_bracket(line) };
    let level = match line.get(1) {
        Some(b'D') => Level::Debug,
        Some(b'W') => Level::Warn,
        Some(b'E') => Level::Error,
        _ => Level::Info,
    };
    out.push(&level.prefix());
    out.push(behind_bracket(line));
}

/// Returns the text after the first `] `.
fn behind_bracket(line: &[u8]) -> &[u8] {
    let end = line.iter().position(|byte| *byte == b']').unwrap_or(0);
    line.get(end.saturating_add(2)..).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn iso(wall: i64) -> String {
        let mut buffer = [0; 64];
        let mut out = Writer::new(&mut buffer);
        emit_iso(wall, &mut out);
        String::from_utf8(out.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn dates_agree_with_the_calendar() {
        for (wall, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_795_327_895, "2026-11-22T06:11:35Z"),
            (2_147_483_648, "2038-01-19T03:14:08Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (4_294_967_296, "2106-02-07T06:28:16Z"),
            (-5, "1970-01-01T00:00:00Z"),
        ] {
            assert_eq!(iso(wall), text);
        }
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..146_097 {
            assert_eq!(civil(days), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            (day, month) = if day == last { (1, month + 1) } else { (day + 1, month) };
            (month, year) = if month == 13 { (1, year + 1) } else { (month, year) };
        }
    }

    #[test]
    fn stamps_are_written_as_configured() {
        let stamp = |stamp: TimestampFormat| {
            let mut buffer = [0; 64];
            let mut out = Writer::new(&mut buffer);
            stamp.emit(1_795_327_895, &mut out);
            String::from_utf8(out.as_bytes().to_vec()).unwrap()
        };
        assert_eq!(stamp(TimestampFormat::Iso), "[2026-11-22T06:11:35Z] ");
        assert_eq!(stamp(TimestampFormat::Unix), "[1795327895] ");
        assert_eq!(stamp(TimestampFormat::None), "");
    }

    #[test]
    fn a_syslog_datagram_has_priority_and_tag_and_a_limit() {
        let mut buffer = [0; SYSLOG_MAX_BYTES];
        assert_eq!(emit_syslog(&mut buffer, Level::Warn, 7, b"hot").as_bytes(), b"<28>zigsvc[7]: hot");
        let long = emit_syslog(&mut buffer, Level::Info, 7, &[b'x'; 300]);
        assert_eq!(long.len(), SYSLOG_MAX_BYTES);
        assert!(long.as_bytes().ends_with("…".as_bytes()));
    }

    #[test]
    fn a_line_for_the_journal_has_a_priority_instead_of_stamp_and_tag() {
        for stamp in [TimestampFormat::Iso, TimestampFormat::Unix, TimestampFormat::None] {
            for (index, priority) in ["<7>", "<6>", "<4>", "<3>"].iter().enumerate() {
                for text in ["hot\n", "[INFO] a] [WARN] b\n", "\n", "<0>x\n", "] \n"] {
                    let (mut bytes, mut buffer) = ([0; 64], [0; 64]);
                    let mut line = Writer::new(&mut bytes);
                    stamp.emit(1_795_327_895, &mut line);
                    line.push_str(Level::ALL[index].tag());
                    line.push_str(text);
                    let mut out = Writer::new(&mut buffer);
                    push_for_journal(line.as_bytes(), stamp, &mut out);
                    assert_eq!(out.as_bytes(), format!("{priority}{text}").as_bytes());
                    assert!(out.len() < line.len());
                }
            }
        }
    }

    #[test]
    fn the_tag_of_a_level_is_its_name_and_levels_are_in_order() {
        for level in Level::ALL {
            assert_eq!(level.tag(), format!("[{}] ", level.name().to_uppercase()));
        }
        assert!(Level::ALL.is_sorted());
        assert_eq!(TimestampFormat::ALL.map(TimestampFormat::name), ["iso", "unix", "none"]);
    }
}
