//! Values with units: durations and sizes.

use crate::util::text::{Writer, parse_u64};
use crate::util::time::Duration;

/// Milliseconds in each unit. The order matters: a unit stands before the units that it ends
/// with.
const DURATIONS: &[(&str, u64)] = &[("h", 3_600_000), ("m", 60_000), ("ms", 1), ("s", 1000)];

/// Bytes in each unit, largest first.
const SIZES: &[(&str, u64)] = &[("m", 1024 * 1024), ("k", 1024)];

/// Parses a duration: `250ms`, `3s`, `5m`, `1h`, or `0` without a unit. Returns `None` for
/// other text, and if the number of milliseconds exceeds 64 bits.
#[must_use]
pub fn parse_duration(text: &[u8]) -> Option<Duration> {
    if text == b"0" {
        return Some(Duration::ZERO);
    }
    // The text "5ms" also ends with "s", so "ms" is tried first. It does not end with "m".
    let (unit, factor) = DURATIONS.iter().find(|(unit, _)| text.ends_with(unit.as_bytes()))?;
    let ms = parse_u64(text.strip_suffix(unit.as_bytes())?)?.checked_mul(*factor)?;
    Some(Duration::from_ms(ms))
}

/// Writes a duration in the largest unit that divides it, as a whole number. Zero has no unit.
pub fn emit_duration(span: Duration, out: &mut Writer<'_>) {
    let ms = span.as_ms();
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let (unit, factor) = match units.iter().find(|(_, factor)| ms.is_multiple_of(*factor)) {
        Some((unit, factor)) => (*unit, *factor),
        None => ("ms", 1),
    };
    out.push_u64(ms.checked_div(factor).unwrap_or(0));
    if ms != 0 {
        out.push_str(unit);
    }
}

/// Parses a number of bytes: `10000`, `64k` or `1m`, where k is 1024 and m is 1048576. Returns
/// `None` for other text, and if the number exceeds 64 bits.
#[must_use]
pub fn parse_size(text: &[u8]) -> Option<u64> {
    for (unit, factor) in SIZES {
        if let Some(number) = text.strip_suffix(unit.as_bytes()) {
            return parse_u64(number)?.checked_mul(*factor);
        }
    }
    parse_u64(text)
}

/// Writes a number of bytes in the largest unit that divides it.
pub fn emit_size(bytes: u64, out: &mut Writer<'_>) {
    match SIZES.iter().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => {
            out.push_u64(bytes.checked_div(*factor).unwrap_or(0));
            out.push_str(unit);
        }
        None => out.push_u64(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emit_ms(ms: u64, out: &mut Writer<'_>) {
        emit_duration(Duration::from_ms(ms), out);
    }

    fn emitted(emit: fn(u64, &mut Writer<'_>), number: u64) -> String {
        let mut buffer = [0; 32];
        let mut out = Writer::new(&mut buffer);
        emit(number, &mut out);
        String::from_utf8(out.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn durations_take_four_units() {
        for (text, ms) in
            [("250ms", 250), ("3s", 3000), ("5m", 300_000), ("1h", 3_600_000), ("0", 0), ("0s", 0)]
        {
            assert_eq!(parse_duration(text.as_bytes()), Some(Duration::from_ms(ms)), "{text}");
        }
        for bad in ["", "3", "s", "3 s", "-3s", "1.5s", "3d", "3S", "99999999999999999999h", "ms"] {
            assert_eq!(parse_duration(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn sizes_take_bytes_k_and_m() {
        for (text, bytes) in [("0", 0), ("10000", 10_000), ("64k", 65_536), ("1m", 1_048_576)] {
            assert_eq!(parse_size(text.as_bytes()), Some(bytes), "{text}");
        }
        for bad in ["", "k", "1g", "1K", "1 k", "-1", "1kb", "18446744073709551615k"] {
            assert_eq!(parse_size(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        for number in
            [0, 1, 999, 1000, 1024, 1500, 10_000, 60_000, 65_536, 300_000, 3_600_000, 1 << 20, 1 << 40]
        {
            let span = Duration::from_ms(number);
            assert_eq!(parse_duration(emitted(emit_ms, number).as_bytes()), Some(span));
            assert_eq!(parse_size(emitted(emit_size, number).as_bytes()), Some(number));
        }
        assert_eq!(emitted(emit_ms, 300_000), "5m");
        assert_eq!(emitted(emit_size, 10_000), "10000");
    }
}
