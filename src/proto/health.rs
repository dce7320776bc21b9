//! The health file: one heartbeat of fixed width, which is rewritten in place.
//!
//! ```text
//! 1795327895                                  UNIX time, for people and monitors
//! seq=42 pid=123 boottime=17.250 boot=0b1c… seq=42        (padded with blanks)
//! ```
//!
//! The lines after these two hold the options `-c -d -o` in force, one word a line. They are
//! written when the file is created, and not by the heartbeats. A service without options writes
//! an empty line there, and version 0.1.0 writes nothing.
//!
//! A reader that sees two different values of `seq` saw half of a write, and reads again.

use crate::util::text::{Writer, escape, parse_u64, trim};
use crate::util::time::{Duration, Instant};
use ufmt::uwrite;

/// Bytes of the heartbeat in the health file.
pub const RECORD_BYTES: usize = 192;
/// Bytes of a boot id, which is a UUID (random(4)).
pub const BOOT_ID_BYTES: usize = 36;
/// The boot id if it is unknown, because /proc is not mounted. It matches every boot.
pub const UNKNOWN_BOOT: [u8; BOOT_ID_BYTES] = *b"00000000-0000-0000-0000-000000000000";

/// Returns the 16 bytes that the digits of a boot id stand for. [`UNKNOWN_BOOT`] is all zeros.
#[must_use]
pub fn boot_bytes(id: &[u8; BOOT_ID_BYTES]) -> [u8; 16] {
    let digits = id.iter().filter_map(|digit| (*digit as char).to_digit(16));
    let number = digits.fold(0u128, |number, digit| number << 4 | u128::from(digit));
    number.to_be_bytes()
}

/// A heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HealthRecord {
    /// Seconds since 1970, by the wall clock.
    pub wall: i64,
    /// The number of the heartbeat, counted in one process.
    pub seq: u64,
    /// The PID of the process that wrote the heartbeat.
    pub pid: u32,
    /// The time of the heartbeat in milliseconds since boot (CLOCK_BOOTTIME).
    pub boottime_ms: u64,
    /// The id of the boot.
    pub boot: [u8; BOOT_ID_BYTES],
}

/// The reason why bytes are not a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParseError {
    /// The two sequence numbers differ. The reader saw half of a write, and has to read again.
    Torn,
    /// The bytes do not have the format of a heartbeat.
    Garbage,
}

/// The judgement of a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The heartbeat is not older than allowed. Holds its age.
    Fresh(Duration),
    /// The heartbeat is too old. Holds its age.
    Stale(Duration),
    /// The heartbeat was written in another boot.
    OtherBoot,
    /// The heartbeat was written by a process that does not hold the lock.
    OtherPid,
    /// The time of the heartbeat is later than now.
    Future,
}

impl HealthRecord {
    /// Returns the content of the health file.
    #[must_use]
    pub fn emit(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [b' '; RECORD_BYTES];
        let mut out = Writer::new(&mut bytes);
        let _ = uwrite!(
            out,
            "{}\nseq={} pid={} boottime={}.",
            self.wall,
            self.seq,
            self.pid,
            self.boottime_ms / 1000
        );
        out.push_padded(self.boottime_ms % 1000, 3);
        out.push_str(" boot=");
        out.push(&self.boot);
        let _ = uwrite!(out, " seq={}", self.seq);
        if let Some(last) = bytes.last_mut() {
            *last = b'\n';
        }
        bytes
    }

    /// Parses the content of a health file.
    ///
    /// # Errors
    /// [`ParseError::Torn`] if half of a write was seen, otherwise [`ParseError::Garbage`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let record = (|| {
            let wall = parse_i64(trim(lines.next()?))?;
            let mut fields = lines.next()?.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
            let mut field = |name: &[u8]| fields.next()?.strip_prefix(name);
            let seq = parse_u64(field(b"seq=")?)?;
            let pid = u32::try_from(parse_u64(field(b"pid=")?)?).ok()?;
            let boottime_ms = parse_millis(field(b"boottime=")?)?;
            let boot = field(b"boot=")?.try_into().ok()?;
            let again = parse_u64(field(b"seq=")?)?;
            Some((Self { wall, seq, pid, boottime_ms, boot }, again))
        })();
        match record {
            Some((record, again)) if record.seq == again => Ok(record),
            Some(_) => Err(ParseError::Torn),
            None => Err(ParseError::Garbage),
        }
    }

    /// Judges the heartbeat for the process `pid`, which holds the lock. `boot` is the id of
    /// this boot, and `now` the time since it. A heartbeat older than `stale_after` is stale.
    #[must_use]
    pub fn judge(
        &self,
        pid: u32,
        boot: &[u8; BOOT_ID_BYTES],
        now: Instant,
        stale_after: Duration,
    ) -> Verdict {
        if self.boot != *boot && self.boot != UNKNOWN_BOOT && *boot != UNKNOWN_BOOT {
            return Verdict::OtherBoot;
        }
        if self.pid != pid {
            return Verdict::OtherPid;
        }
        let written = Instant::from_ms(self.boottime_ms);
        match now.since(written) {
            _ if now < written => Verdict::Future,
            age if age > stale_after => Verdict::Stale(age),
            age => Verdict::Fresh(age),
        }
    }
}

/// Writes one word of the options as a line. Control bytes and the backslash are escaped.
pub fn push_option_word(word: &[u8], out: &mut Writer<'_>) {
    for byte in word {
        match byte {
            b'\\' | 0..=0x1F | 0x7F => out.push(&escape(*byte)),
            byte => out.push(&[*byte]),
        }
    }
    out.push_str("\n");
}

/// Writes the word of a line that [`push_option_word`] wrote. Returns `None` if it did not.
#[must_use]
pub fn parse_option_word(mut line: &[u8], out: &mut Writer<'_>) -> Option<()> {
    while let Some((byte, rest)) = line.split_first() {
        line = rest;
        if *byte != b'\\' {
            out.push(&[*byte]);
            continue;
        }
        let (digits, rest) = rest.strip_prefix(b"x")?.split_first_chunk::<2>()?;
        let digits = core::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        let byte = u8::from_str_radix(digits, 16).ok()?;
        out.push(&[byte]);
        line = rest;
    }
    (!out.is_cut()).then_some(())
}

/// Parses a number that may be negative, because the wall clock may stand before 1970.
fn parse_i64(digits: &[u8]) -> Option<i64> {
    match digits.strip_prefix(b"-") {
        Some(rest) => 0i64.checked_sub_unsigned(parse_u64(rest)?),
        None => i64::try_from(parse_u64(digits)?).ok(),
    }
}

/// Parses seconds with exactly three decimals, `S.mmm`. Returns milliseconds.
fn parse_millis(text: &[u8]) -> Option<u64> {
    let dot = text.iter().position(|byte| *byte == b'.')?;
    let millis = text.get(dot.checked_add(1)?..).filter(|digits| digits.len() == 3)?;
    parse_u64(text.get(..dot)?)?.checked_mul(1000)?.checked_add(parse_u64(millis)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: [u8; BOOT_ID_BYTES] = *b"0b1c2d3e-0000-1111-2222-333344445555";

    #[test]
    fn a_boot_id_is_sixteen_bytes() {
        let bytes =
            [0x0b, 0x1c, 0x2d, 0x3e, 0, 0, 0x11, 0x11, 0x22, 0x22, 0x33, 0x33, 0x44, 0x44, 0x55, 0x55];
        assert_eq!((boot_bytes(&BOOT), boot_bytes(&UNKNOWN_BOOT)), (bytes, [0; 16]));
    }

    fn record() -> HealthRecord {
        HealthRecord { wall: 1_795_327_895, seq: 42, pid: 123, boottime_ms: 17_250, boot: BOOT }
    }

    #[test]
    fn the_file_reads_as_documented() {
        let bytes = record().emit();
        let text = core::str::from_utf8(&bytes).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "1795327895");
        assert_eq!(
            lines[1].trim_end(),
            "seq=42 pid=123 boottime=17.250 boot=0b1c2d3e-0000-1111-2222-333344445555 seq=42"
        );
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn the_largest_numbers_fit_and_every_record_reads_back() {
        let largest =
            HealthRecord { wall: i64::MIN, seq: u64::MAX, pid: u32::MAX, boottime_ms: u64::MAX, boot: BOOT };
        for record in [record(), largest, HealthRecord { wall: 0, ..record() }] {
            assert_eq!(HealthRecord::parse(&record.emit()), Ok(record));
        }
    }

    #[test]
    fn each_word_of_the_options_reads_back_from_one_line() {
        let all: Vec<u8> = (1..=255).collect();
        for word in [&b"-o"[..], b"", b"handler=/a b/\\x41\n", &all] {
            let (mut line, mut read) = ([0; 1200], [0; 1200]);
            let mut out = Writer::new(&mut line);
            push_option_word(word, &mut out);
            let line = out.as_bytes().strip_suffix(b"\n").unwrap();
            assert!(!line.contains(&b'\n') && line.iter().all(|byte| *byte >= b' '));
            let mut out = Writer::new(&mut read);
            assert_eq!(parse_option_word(line, &mut out), Some(()));
            assert_eq!(out.as_bytes(), word);
        }
        for wrong in [&b"\\"[..], b"\\x", b"\\x4", b"\\y41", b"\\xg0", b"\\x+1"] {
            let mut read = [0; 10];
            assert_eq!(parse_option_word(wrong, &mut Writer::new(&mut read)), None, "{wrong:?}");
        }
        assert_eq!(parse_option_word(b"long", &mut Writer::new(&mut [0; 3])), None);
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = record().emit();
        let end = bytes.iter().rposition(|byte| byte.is_ascii_digit()).unwrap();
        for length in 0..end {
            assert!(HealthRecord::parse(&bytes[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn two_sequence_numbers_are_a_torn_read() {
        let (old, new) = (record().emit(), HealthRecord { seq: 43, ..record() }.emit());
        for cut in 20..70 {
            let mut mixed = new;
            mixed[cut..].copy_from_slice(&old[cut..]);
            assert_eq!(HealthRecord::parse(&mixed), Err(ParseError::Torn), "{cut}");
        }
    }

    #[test]
    fn each_kind_of_lie_has_its_own_verdict() {
        let judge = |record: HealthRecord| {
            record.judge(123, &BOOT, Instant::from_ms(20_000), Duration::from_ms(15_000))
        };
        let (fresh, stale) =
            (|ms| Verdict::Fresh(Duration::from_ms(ms)), |ms| Verdict::Stale(Duration::from_ms(ms)));
        assert_eq!(judge(record()), fresh(2750));
        assert_eq!(judge(HealthRecord { boottime_ms: 4_999, ..record() }), stale(15_001));
        assert_eq!(judge(HealthRecord { boottime_ms: 5_000, ..record() }), fresh(15_000));
        assert_eq!(judge(HealthRecord { boottime_ms: 20_001, ..record() }), Verdict::Future);
        assert_eq!(judge(HealthRecord { pid: 124, ..record() }), Verdict::OtherPid);
        assert_eq!(judge(HealthRecord { boot: [b'x'; BOOT_ID_BYTES], ..record() }), Verdict::OtherBoot);
        assert_eq!(judge(HealthRecord { boot: UNKNOWN_BOOT, ..record() }), fresh(2750));
    }

    #[test]
    fn random_bytes_never_parse_and_never_panic() {
        let mut seed = 1u64;
        for _ in 0..100_000 {
            let bytes: Vec<u8> = (0..64)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    b"0123 seq=pid\nbot.-"[(seed >> 33) as usize % 18]
                })
                .collect();
            assert!(HealthRecord::parse(&bytes).is_err());
        }
    }
}
