//! Decimal numbers with six decimals. They are read as JSON writes them (RFC 8259, section 6),
//! and added, averaged and written without a binary fraction.
//!
//! ```text
//! -  42  .5  e3        sign, digits, fraction, exponent: all but the digits optional
//! ```
//!
//! A number is held in millionths. Further decimals are rounded, half away from zero, and so
//! is an average. The magnitude of a rounded number is below 2^64. A sum may be as large as
//! `i128` allows, which is 2^43 times the largest number.
//!
//! The division works bit by bit. It is a tenth of the size of the compiler's division for 128
//! bits, and an answer needs at most two divisions.

use crate::util::text::Writer;

/// The number of decimals that are kept.
const DECIMALS: i64 = 6;
/// The number one, in millionths.
const ONE: u64 = 1_000_000;
/// The bound of the magnitude of a number: 2^64, in millionths. The magnitude is smaller.
const LIMIT: u128 = (ONE as u128) << 64;
/// The bound of an exponent. All larger ones have the same result, because no text has that
/// many digits.
const EXPONENT_MAX: i64 = 1 << 40;

/// A number, held in millionths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Decimal(i128);

/// The number at the beginning of a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scanned {
    /// The bytes that belong to a number, or to the beginning of one.
    pub used: usize,
    /// True if these bytes are a whole number.
    pub complete: bool,
}

/// The part of a number that was read last.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ScanState {
    Start,
    Sign,
    Zero,
    Digits,
    Point,
    Fraction,
    Letter,
    ExponentSign,
    Exponent,
}

impl ScanState {
    /// Returns the state after `byte`, or `None` if no number continues with it.
    fn after(self, byte: u8) -> Option<Self> {
        use ScanState::{Digits, Exponent, ExponentSign, Fraction, Letter, Point, Sign, Start, Zero};
        Some(match (self, byte) {
            (Start, b'-') => Sign,
            (Start | Sign, b'0') => Zero,
            (Start | Sign, b'1'..=b'9') | (Digits, b'0'..=b'9') => Digits,
            (Zero | Digits, b'.') => Point,
            (Point | Fraction, b'0'..=b'9') => Fraction,
            (Zero | Digits | Fraction, b'e' | b'E') => Letter,
            (Letter, b'+' | b'-') => ExponentSign,
            (Letter | ExponentSign | Exponent, b'0'..=b'9') => Exponent,
            _ => return None,
        })
    }
}

/// Finds the number at the beginning of `text`. If all of `text` is used, the number may
/// continue in the bytes that follow.
#[must_use]
pub fn scan(text: &[u8]) -> Scanned {
    let mut state = ScanState::Start;
    let mut used = 0usize;
    for byte in text {
        let Some(next) = state.after(*byte) else { break };
        state = next;
        used = used.saturating_add(1);
    }
    let complete =
        matches!(state, ScanState::Zero | ScanState::Digits | ScanState::Fraction | ScanState::Exponent);
    Scanned { used, complete }
}

impl Decimal {
    /// Zero.
    pub const ZERO: Self = Self(0);

    /// Returns the value of `text`, all of which must be a number according to [`scan`].
    /// Returns `None` if its magnitude is 2^64 or more after rounding.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let letter = text.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(text.len());
        let (mantissa, exponent) = text.split_at_checked(letter)?;
        let (negative, mantissa) = match mantissa {
            [b'-', digits @ ..] => (true, digits),
            digits => (false, digits),
        };
        let point = mantissa.iter().position(|byte| *byte == b'.').unwrap_or(mantissa.len());
        // This many digits stand for millionths and more. The rest is rounded.
        let kept = i64::try_from(point).ok()?.saturating_add(exponent_in(exponent)).saturating_add(DECIMALS);
        let mut sum = 0;
        let mut index = 0i64;
        for byte in mantissa.iter().filter(|byte| **byte != b'.') {
            if index >= kept {
                sum = if index == kept && *byte >= b'5' { add(sum, 1)? } else { sum };
                break;
            }
            sum = add(times_ten(sum), byte.wrapping_sub(b'0'))?;
            index = index.saturating_add(1);
        }
        // At most 26 steps, because the sum is out of range then.
        while index < kept && sum > 0 {
            sum = add(times_ten(sum), 0)?;
            index = index.saturating_add(1);
        }
        let sum = i128::try_from(sum).ok()?;
        Some(Self(if negative { sum.wrapping_neg() } else { sum }))
    }

    /// Returns the sum of two numbers, or `None` if it exceeds `i128`.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// Divides the sum of `count` numbers by `count`. The average of no numbers is zero.
    #[must_use]
    pub fn average(self, count: u64) -> Self {
        let (quotient, rest) = divide(self.0.unsigned_abs(), count);
        let up = count > 0 && rest >= count.saturating_sub(rest);
        // The average fits, because it is not larger than the largest number of the sum.
        let magnitude = i128::try_from(quotient.saturating_add(u128::from(up))).unwrap_or(i128::MAX);
        Self(if self.0 < 0 { magnitude.wrapping_neg() } else { magnitude })
    }

    /// Appends the number, with as many decimals as it needs.
    pub fn emit(self, out: &mut Writer<'_>) {
        let (whole, fraction) = divide(self.0.unsigned_abs(), ONE);
        out.push_str(if self.0 < 0 { "-" } else { "" });
        out.push_u64(u64::try_from(whole).unwrap_or(u64::MAX));
        if fraction > 0 {
            out.push_str(".");
            let end = out.len();
            out.push_padded(fraction, 6);
            let zeros = out.as_bytes().iter().rev().take_while(|byte| **byte == b'0').count();
            out.truncate(out.len().saturating_sub(zeros).max(end));
        }
    }
}

/// Returns the exponent in a text such as `e-12`, or 0 for an empty text. The magnitude is at
/// most [`EXPONENT_MAX`].
fn exponent_in(text: &[u8]) -> i64 {
    let (negative, digits) = match text {
        [_, b'-', digits @ ..] => (true, digits),
        [_, b'+', digits @ ..] | [_, digits @ ..] => (false, digits),
        [] => return 0,
    };
    let magnitude = digits.iter().fold(0i64, |sum, byte| {
        sum.saturating_mul(10).saturating_add(i64::from(byte.wrapping_sub(b'0'))).min(EXPONENT_MAX)
    });
    if negative { magnitude.wrapping_neg() } else { magnitude }
}

/// Multiplies a number below [`LIMIT`] by ten.
fn times_ten(number: u128) -> u128 {
    (number << 3).wrapping_add(number << 1)
}

/// Adds a digit. Returns `None` if the sum reaches [`LIMIT`].
fn add(number: u128, digit: u8) -> Option<u128> {
    Some(number.wrapping_add(u128::from(digit))).filter(|sum| *sum < LIMIT)
}

/// Returns quotient and remainder. Both are zero if the divisor is.
fn divide(mut number: u128, by: u64) -> (u128, u64) {
    if by == 0 {
        return (0, 0);
    }
    let mut rest = 0u64;
    for _ in 0..u128::BITS {
        // The bits of the number leave at the top, and those of the quotient enter at the
        // bottom.
        let carry = rest >> 63;
        rest = (rest << 1) | u64::from(number >> 127 != 0);
        number <<= 1;
        if carry != 0 || rest >= by {
            rest = rest.wrapping_sub(by);
            number |= 1;
        }
    }
    (number, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(number: Decimal) -> String {
        let mut buffer = [0; 64];
        let mut out = Writer::new(&mut buffer);
        number.emit(&mut out);
        assert!(!out.is_cut());
        String::from_utf8(out.as_bytes().to_vec()).unwrap()
    }

    /// Reads a number that takes up the whole text.
    fn read(text: &str) -> Option<Decimal> {
        assert_eq!(scan(text.as_bytes()), Scanned { used: text.len(), complete: true }, "{text}");
        Decimal::parse(text.as_bytes())
    }

    fn again(text: &str) -> String {
        written(read(text).unwrap_or_else(|| panic!("{text}: out of range")))
    }

    /// Returns the number as it is to be written. It works on the digits, as with pencil and
    /// paper, and shares no code with [`Decimal`].
    fn reference(text: &str) -> Option<String> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent: i64 = exponent.trim_start_matches('+').parse().unwrap();
        let negative = mantissa.starts_with('-');
        let mantissa = mantissa.trim_start_matches('-');
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits = format!("{whole}{fraction}");
        // Shift the point. Both ends get as many zeros as that takes.
        let zeros = "0".repeat(exponent.unsigned_abs() as usize + 8);
        let long = format!("{zeros}{digits}{zeros}");
        let point = (zeros.len() + whole.len()) as i64 + exponent;
        let (whole, fraction) = long.split_at(point as usize);
        let mut kept: Vec<u8> = whole.bytes().chain(fraction.bytes().take(6)).collect();
        if fraction.as_bytes()[6] >= b'5' {
            for digit in kept.iter_mut().rev() {
                *digit = if *digit == b'9' { b'0' } else { *digit + 1 };
                if *digit != b'0' {
                    break;
                }
            }
        }
        let kept = String::from_utf8(kept).unwrap();
        let (whole, fraction) = kept.split_at(kept.len() - 6);
        let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let limit = "18446744073709551616";
        if whole.len() > limit.len() || (whole.len() == limit.len() && whole >= limit) {
            return None;
        }
        let sign = if negative && !(whole.is_empty() && fraction.is_empty()) { "-" } else { "" };
        let whole = if whole.is_empty() { "0" } else { whole };
        let dot = if fraction.is_empty() { "" } else { "." };
        Some(format!("{sign}{whole}{dot}{fraction}"))
    }

    struct Random(u64);

    impl Random {
        fn next(&mut self, below: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % below
        }

        fn digits(&mut self, most: u64) -> String {
            let same = self.next(3) == 0;
            let digit = if self.next(2) == 0 { 9 } else { 0 };
            (0..=self.next(most)).map(|_| if same { digit } else { self.next(10) }.to_string()).collect()
        }

        fn number(&mut self) -> String {
            let sign = if self.next(3) == 0 { "-" } else { "" };
            let mut whole = self.digits(22).trim_start_matches('0').to_owned();
            if whole.is_empty() {
                whole.push('0');
            }
            let fraction = if self.next(2) == 0 { format!(".{}", self.digits(12)) } else { String::new() };
            let exponent = match self.next(4) {
                0 => format!("e{}", self.next(30)),
                1 => format!("E-{}", self.next(30)),
                2 => format!("e+0{}", self.next(9)),
                _ => String::new(),
            };
            format!("{sign}{whole}{fraction}{exponent}")
        }
    }

    #[test]
    fn numbers_are_read_and_written_without_a_digit_more_or_less() {
        for (text, number) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0000004", "0"),
            ("42", "42"),
            ("42.5", "42.5"),
            ("42.500000", "42.5"),
            ("100", "100"),
            ("0.000001", "0.000001"),
            ("0.100000", "0.1"),
            ("-1.050", "-1.05"),
            ("1e3", "1000"),
            ("1.5E+3", "1500"),
            ("1234.5678e-2", "12.345678"),
            ("18446744073709551615", "18446744073709551615"),
            ("-18446744073709551615.999999", "-18446744073709551615.999999"),
            ("1e-400", "0"),
            ("1e-99999999999999999999999999", "0"),
            ("0e99999999999999999999999999", "0"),
            ("0.0000000000000000000000000000000000001e37", "1"),
        ] {
            assert_eq!(again(text), number, "{text}");
        }
    }

    #[test]
    fn more_than_six_decimals_are_rounded_half_away_from_zero() {
        for (text, number) in [
            ("0.0000004999999", "0"),
            ("0.0000005", "0.000001"),
            ("-0.0000005", "-0.000001"),
            ("5e-7", "0.000001"),
            ("4e-7", "0"),
            ("9e-8", "0"),
            ("95e-8", "0.000001"),
            ("0.9999994", "0.999999"),
            ("0.9999995", "1"),
            ("9.9999996e-1", "1"),
        ] {
            assert_eq!(again(text), number, "{text}");
        }
    }

    #[test]
    fn numbers_from_two_to_the_64th_are_out_of_range() {
        for text in [
            "18446744073709551616",
            "-18446744073709551616",
            "18446744073709551615.9999995",
            "1e20",
            "1e400",
            "1e99999999999999999999999999",
            "-99999999999999999999999999999999999999999999999999",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_long_mantissa_and_a_long_exponent_cancel_out() {
        let zeros = "0".repeat(100_000);
        assert_eq!(again(&format!("25{zeros}e-100001")), "2.5");
        assert_eq!(again(&format!("0.{zeros}25e100001")), "2.5");
    }

    #[test]
    fn only_what_the_rfc_calls_a_number_is_one() {
        for (text, used) in [
            ("", 0),
            ("-", 1),
            ("+1", 0),
            (".5", 0),
            ("1.", 2),
            ("1.e5", 2),
            ("1e", 2),
            ("1e+", 3),
            ("1e-x", 3),
            ("-x", 1),
            ("NaN", 0),
            ("Infinity", 0),
            ("-Infinity", 1),
        ] {
            assert_eq!(scan(text.as_bytes()), Scanned { used, complete: false }, "{text}");
        }
        for (text, used) in [("01", 1), ("-01", 2), ("1 ", 1), ("1.5.2", 3), ("1e5e", 3), ("0x10", 1)] {
            assert_eq!(scan(text.as_bytes()), Scanned { used, complete: true }, "{text}");
        }
    }

    #[test]
    fn every_truncation_of_a_number_is_one_or_the_beginning_of_one() {
        let text = "-180.250e+12";
        for length in 0..=text.len() {
            let scanned = scan(&text.as_bytes()[..length]);
            assert_eq!(scanned.used, length);
            let complete = !["", "-", "-180.", "-180.250e", "-180.250e+"].contains(&&text[..length]);
            assert_eq!(scanned.complete, complete, "{}", &text[..length]);
        }
    }

    #[test]
    fn any_number_is_what_it_is_on_paper() {
        let mut random = Random(7);
        for _ in 0..100_000 {
            let text = random.number();
            assert_eq!(read(&text).map(written), reference(&text), "{text}");
        }
    }

    #[test]
    fn any_bytes_are_scanned_and_what_is_a_number_is_one_for_others_too() {
        let mut random = Random(11);
        for _ in 0..100_000 {
            let text: String =
                (0..random.next(9)).map(|_| char::from(b"0019.eE+-x"[random.next(10) as usize])).collect();
            let scanned = scan(text.as_bytes());
            let whole = scanned.complete && scanned.used == text.len();
            if whole {
                let _ = Decimal::parse(text.as_bytes());
            }
            // `serde_json` does not read a number to its end if the number is out of its
            // range.
            let theirs = serde_json::from_str::<f64>(&text).map_err(|error| error.to_string());
            if !theirs.as_ref().is_err_and(|error| error.starts_with("number out of")) {
                assert_eq!(whole, theirs.is_ok(), "{text}");
            }
        }
    }

    #[test]
    fn averages_are_rounded_half_away_from_zero() {
        for (sum, count, average) in [
            ("97.5", 2, "48.75"),
            ("84", 2, "42"),
            ("1", 3, "0.333333"),
            ("2", 3, "0.666667"),
            ("0.000001", 2, "0.000001"),
            ("-0.000001", 2, "-0.000001"),
            ("0.000001", 3, "0"),
            ("-0.000001", 3, "0"),
            ("18446744073709551615.999999", 1, "18446744073709551615.999999"),
            ("18446744073709551615.999999", u64::MAX, "1"),
        ] {
            assert_eq!(written(read(sum).unwrap().average(count)), average, "{sum} / {count}");
        }
        assert_eq!(Decimal(1).average(0), Decimal::ZERO, "never asked, and still no panic");
    }

    #[test]
    fn any_division_is_the_one_of_the_processor() {
        let mut random = Random(3);
        let mut word = move |bits: u64| {
            let word = (0..4).fold(0u128, |sum, _| (sum << 32) | u128::from(random.next(1 << 31)) << 1);
            word >> (128 - 1 - random.next(bits))
        };
        for _ in 0..100_000 {
            let (number, by) = (word(128), u64::try_from(word(63)).unwrap().max(1));
            let expected = (number / u128::from(by), (number % u128::from(by)) as u64);
            assert_eq!(divide(number, by), expected, "{number} / {by}");
            let signed = i128::try_from(number >> 3).unwrap();
            let half = (signed * 2 + i128::from(by)) / (2 * i128::from(by));
            assert_eq!(Decimal(signed).average(by), Decimal(half));
            assert_eq!(Decimal(-signed).average(by), Decimal(-half));
        }
        assert_eq!(divide(u128::MAX, u64::MAX), (u128::MAX / u128::from(u64::MAX), 0));
        assert_eq!(divide(u128::MAX, 1), (u128::MAX, 0));
    }

    #[test]
    fn a_sum_that_cannot_be_held_is_refused() {
        let largest = Decimal(i128::MAX);
        assert_eq!(largest.checked_add(Decimal(1)), None);
        assert_eq!(largest.checked_add(Decimal::ZERO), Some(largest));
        assert_eq!(Decimal(i128::MIN).checked_add(Decimal(-1)), None);
    }
}
