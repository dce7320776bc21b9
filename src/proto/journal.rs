//! The journal's bytes: one file of records, appended and never changed.
//!
//! ```text
//! file    "zigsvc-journal 2\n", then records
//! record  0    1     2    4      8     16      18    20
//!         kind flags len  crc32  id    attempt magic [attributes] body
//! ```
//!
//! Numbers are little-endian and unsigned. The CRC covers all bytes of the record but its own.
//! No job text can imitate a record, because a header contains NUL bytes and a job text does
//! not. `magic` is the constant by which the next record is found after damage.
//!
//! A *live record* is a record that holds the text of a job: [`RecordKind::Add`] while the job
//! waits or runs, [`RecordKind::Dead`] after its last attempt has failed. The last live record
//! of a job is the only valid one. Its [`attributes`](super::attributes) go with it into each
//! copy.
//!
//! # Changing this
//!
//! A new kind of record is one row of the table below, its meaning in `state/spool/recover.rs`,
//! and its row in `docs/design.md`. A record, flag or attribute that the journals of a version
//! do not have needs a higher [`VERSION`].

use super::crc::crc32;
use crate::limits::JOB_MAX_BYTES;
use crate::proto::attributes::ATTRIBUTES_MAX_BYTES;
use bitflags::bitflags;
use heapless::Vec;

/// The first bytes of the file. The version and a newline follow.
pub const FILE_MAGIC: &[u8] = b"zigsvc-journal ";
/// The version of a new journal. A journal of an older version is continued in that version
/// until it needs a record that the version does not have.
pub const VERSION: u8 = 2;
/// The oldest version that is read.
pub const OLDEST_VERSION: u8 = 1;
/// Bytes of the header of the file.
pub const FILE_HEADER_BYTES: usize = FILE_MAGIC.len() + 2;
/// Bytes of the header of a record.
pub const HEADER_BYTES: usize = 20;
/// Bytes before the text in the body of a [`RecordKind::Dead`] record.
pub const DEAD_PREFIX_BYTES: usize = 2;
/// Bytes before the text in the body of a [`RecordKind::Result`] record.
pub const RESULT_PREFIX_BYTES: usize = 12;
/// Bytes of the longest body with its attributes, and the byte that holds their length.
pub const BODY_MAX_BYTES: usize = 1 + ATTRIBUTES_MAX_BYTES + RESULT_PREFIX_BYTES + JOB_MAX_BYTES;
/// Bytes of the longest record.
pub const RECORD_MAX_BYTES: usize = HEADER_BYTES + BODY_MAX_BYTES;
/// Bytes of the body of a [`RecordKind::Claim`] record.
pub const CLAIM_BODY_BYTES: usize = 20;
/// Bytes of the body of a [`RecordKind::Clock`] record.
pub const CLOCK_BODY_BYTES: usize = 32;

/// The last two bytes of each header.
const RECORD_MAGIC: u16 = 0xA55A;

macro_rules! record_kinds {
    ($($(#[$doc:meta])* $variant:ident $number:literal since $version:literal: $id:literal, $attempt:literal, $body:literal;)*) => {
        /// The kind of a record. `id` is that of the job, unless noted.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum RecordKind {
            $($(#[$doc])* $variant = $number),*
        }

        impl RecordKind {
            const ALL: &[Self] = &[$(Self::$variant),*];

            /// Returns the first version of the format that has this kind.
            #[must_use]
            pub const fn since(self) -> u8 {
                match self { $(Self::$variant => $version),* }
            }
        }

        /// The rows of the table in `docs/design.md`.
        #[cfg(test)]
        const ROWS: &[(u8, &str, u8, &str, &str, &str)] =
            &[$(($number, stringify!($variant), $version, $id, $attempt, $body)),*];
    };
}

record_kinds! {
    /// The first record. `id` is that of the next job, and the body is the number of the next
    /// claim.
    Base 1 since 1: "id of the next job", "0", "number of the next claim, 8 bytes";
    /// The live record of a job that waits. The body is its text.
    Add 2 since 1: "job", "attempts started before this record; with CLAIMED the low 16 bits of the claim's number", "the text, 1 to 1000 bytes";
    /// Attempt number `attempt` was started.
    Start 3 since 1: "job", "the attempt that was started", "";
    /// Attempt number `attempt` failed, and there will be another one.
    Fail 4 since 1: "job", "the attempt that failed; there will be another", "";
    /// Attempt number `attempt + 1` was given back to the queue, because the service stopped
    /// or the handler could not be started. It does not count, unless too many stops in a row
    /// came soon after the start of the job: then `attempt` is its number. The body may hold the
    /// number of those stops.
    Requeued 5 since 1: "job", "attempts that count: those that were started, mostly without the last", "nothing; from format 2 on also the job's *given back*, 1 byte";
    /// The job succeeded. It has no live record any more.
    Done 6 since 1: "job", "the attempt that succeeded", "";
    /// The live record of a job that failed for good. The body is the outcome of its last
    /// attempt, then its text.
    Dead 7 since 1: "job", "the attempt that failed last", "outcome, 2 bytes; the text";
    /// The live record of `id` is deleted, because the job was cancelled or forgotten, or
    /// because it was the oldest of too many dead jobs. The body is the size of that record,
    /// in 2 bytes.
    Tombstone 8 since 1: "job", "attempts of the job; outside the window, the attempts that the live record counts", "size of that live record, 2 bytes";
    /// The claim number `id` was read from one offset to another, which the body holds. The
    /// records that the length in the body covers are the jobs that were read there.
    Claim 9 since 1: "number of the claim", "0", "from, 8 bytes; to, 8 bytes; group length, 4 bytes";
    /// How a job ended, for `list done`. The last ones are kept by each compaction.
    Result 10 since 2: "job", "attempts that were started", "end, 1 byte (0 done, 1 dead, 2 cancelled); exit status, 1 byte; 2 bytes of 0; milliseconds, 8 bytes; the text";
    /// The queue is held, or is held no longer: `attempt` is 1 or 0. The last one counts.
    Hold 11 since 2: "0", "1: the queue is held from here on; 0: it is not", "";
    /// A moment at which the service ran, from which the time that is left for delayed jobs is
    /// computed in another boot. The last one counts.
    Clock 12 since 2: "0", "0", "boot id, 16 bytes; boot clock, wall clock, each 8 bytes of milliseconds";
}

bitflags! {
    /// Additions to the kind of a record. Bits without a meaning are kept.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct RecordFlags: u8 {
        /// [`RecordKind::Add`]: the job has failed before, and waits for its delay again.
        /// [`RecordKind::Tombstone`]: the deleted record is that of a delayed job. Since format 2.
        const DELAYED = 1;
        /// [`RecordKind::Add`]: the job came from a claim and had no attempt. `attempt` holds
        /// the low 16 bits of the claim's number.
        const CLAIMED = 2;
        /// [`RecordKind::Add`]: the record replaces an earlier live record of the same job.
        const MOVED = 4;
        /// [`RecordKind::Tombstone`]: the deleted record is that of a dead job.
        /// [`RecordKind::Add`]: the record replaces the live record of a dead job with the
        /// same attempt, because that job is tried again.
        const DEAD = 8;
        /// [`RecordKind::Claim`]: the record stands for everything that was read of the claim
        /// before.
        const ABSOLUTE = 16;
        /// Attributes come before the body. Since format 2.
        const ATTRIBUTES = 32;
        /// [`RecordKind::Tombstone`] with DEAD: the deleted record was the oldest one of a
        /// dead job. Since format 2.
        const OLDEST = 64;
        /// [`RecordKind::Base`]: the journal ends before this record, and the rest of the file
        /// is about to be cut. Since format 2.
        const END = 128;
        const _ = !0;
    }
}

/// A record, without its checksum and magic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// The kind of the record.
    pub kind: RecordKind,
    /// Additions to the kind.
    pub flags: RecordFlags,
    /// The id of the job, or another number according to the kind.
    pub id: u64,
    /// The number of an attempt, or another number according to the kind.
    pub attempt: u16,
    /// The attributes, at most [`ATTRIBUTES_MAX_BYTES`] bytes.
    pub attributes: &'a [u8],
    /// The rest of the body. The kind decides its format.
    pub body: &'a [u8],
}

/// The error of a record that does not fit into the rest of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BufferFull;

/// The result of parsing a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParseResult<'a> {
    /// A valid record. Holds its size in bytes.
    Record(Record<'a>, usize),
    /// The beginning of a record. Holds the number of bytes that are needed at least.
    Truncated(usize),
    /// The bytes are not the beginning of a record.
    Bad,
}

impl<'a> Record<'a> {
    /// Returns a record without flags and body.
    #[must_use]
    pub const fn new(kind: RecordKind, id: u64, attempt: u16) -> Self {
        Self { kind, flags: RecordFlags::empty(), id, attempt, attributes: &[], body: &[] }
    }

    /// Returns the size of the record in the journal, in bytes.
    #[must_use]
    #[inline(never)]
    pub fn size(&self) -> usize {
        HEADER_BYTES.saturating_add(self.length())
    }

    /// Returns the bytes after the header.
    fn length(&self) -> usize {
        let block = if self.attributes.is_empty() { 0 } else { self.attributes.len().saturating_add(1) };
        block.saturating_add(self.body.len())
    }

    /// Returns the first version of the format that has everything in this record.
    #[must_use]
    pub fn since(&self) -> u8 {
        let requeued = self.kind == RecordKind::Requeued && !self.body.is_empty();
        let newer = self.flags.intersects(RecordFlags::OLDEST | RecordFlags::END);
        let newer =
            newer || (self.kind == RecordKind::Tombstone && self.flags.contains(RecordFlags::DELAYED));
        if requeued || newer || !self.attributes.is_empty() { 2 } else { self.kind.since() }
    }

    /// Appends the record to `out`.
    ///
    /// # Errors
    /// The record does not fit. `out` is unchanged.
    pub fn emit<const N: usize>(&self, out: &mut Vec<u8, N>) -> Result<(), BufferFull> {
        let length = u16::try_from(self.length()).map_err(|_| BufferFull)?;
        if N.saturating_sub(out.len()) < self.size() {
            return Err(BufferFull);
        }
        let block = [u8::try_from(self.attributes.len()).map_err(|_| BufferFull)?];
        let block = block.get(..usize::from(!self.attributes.is_empty())).unwrap_or(&[]);
        let header = self.header(length, block);
        for bytes in [&header, block, self.attributes, self.body] {
            out.extend_from_slice(bytes).map_err(|_| BufferFull)?;
        }
        Ok(())
    }

    fn header(&self, length: u16, block: &[u8]) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(to) = header.get_mut(at..at.saturating_add(bytes.len())) {
                to.copy_from_slice(bytes);
            }
        };
        let mut flags = self.flags;
        flags.set(RecordFlags::ATTRIBUTES, !self.attributes.is_empty());
        put(0, &[self.kind as u8, flags.bits()]);
        put(2, &length.to_le_bytes());
        put(8, &self.id.to_le_bytes());
        put(16, &self.attempt.to_le_bytes());
        put(18, &RECORD_MAGIC.to_le_bytes());
        let crc = checksum(&header, [block, self.attributes, self.body]);
        if let Some(to) = header.get_mut(4..8) {
            to.copy_from_slice(&crc.to_le_bytes());
        }
        header
    }

    /// Returns the text of a live record.
    #[must_use]
    pub fn text(&self) -> &'a [u8] {
        self.body.get(self.kind.prefix_bytes()..).unwrap_or(&[])
    }
}

impl RecordKind {
    /// Returns the bytes before the text in the body.
    const fn prefix_bytes(self) -> usize {
        match self {
            Self::Dead => DEAD_PREFIX_BYTES,
            Self::Result => RESULT_PREFIX_BYTES,
            _ => 0,
        }
    }
}

/// The body of a [`RecordKind::Claim`] record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClaimProgress {
    /// The offset in the claim from which it was read. Everything before was in the journal
    /// already.
    pub from: u64,
    /// The offset in the claim up to which it was read.
    pub to: u64,
    /// Bytes of the records after this one that hold the jobs from there.
    pub batch_bytes: u32,
}

impl ClaimProgress {
    /// Returns the body as bytes.
    #[must_use]
    pub fn emit(&self) -> [u8; CLAIM_BODY_BYTES] {
        let mut body = [0; CLAIM_BODY_BYTES];
        let (from, rest) = body.split_at_mut(8);
        let (to, batch) = rest.split_at_mut(8);
        from.copy_from_slice(&self.from.to_le_bytes());
        to.copy_from_slice(&self.to.to_le_bytes());
        batch.copy_from_slice(&self.batch_bytes.to_le_bytes());
        body
    }

    /// Parses the body of a record. Returns `None` if its length is wrong.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let (from, rest) = body.split_first_chunk::<8>()?;
        let (to, batch) = rest.split_first_chunk::<8>()?;
        Some(Self {
            from: u64::from_le_bytes(*from),
            to: u64::from_le_bytes(*to),
            batch_bytes: u32::from_le_bytes(batch.try_into().ok()?),
        })
    }
}

/// The body of a [`RecordKind::Clock`] record. All times are in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockRecord {
    /// The boot in which the service ran; zeros if it is not known.
    pub boot: [u8; 16],
    /// The boot clock of that moment.
    pub boot_clock: u64,
    /// The wall clock of that moment; 0 if the clock was not set in this boot.
    pub wall_clock: u64,
}

impl ClockRecord {
    /// Returns the body as bytes.
    #[must_use]
    pub fn emit(&self) -> [u8; CLOCK_BODY_BYTES] {
        let mut body = [0; CLOCK_BODY_BYTES];
        let (boot, rest) = body.split_at_mut(16);
        let (boot_clock, wall_clock) = rest.split_at_mut(8);
        boot.copy_from_slice(&self.boot);
        boot_clock.copy_from_slice(&self.boot_clock.to_le_bytes());
        wall_clock.copy_from_slice(&self.wall_clock.to_le_bytes());
        body
    }

    /// Parses the body of a record.
    #[must_use]
    pub fn parse(body: &[u8; CLOCK_BODY_BYTES]) -> Self {
        let [b0, b1, clocks @ ..] = *body;
        let number = |at: usize| clocks.get(at..).and_then(|bytes| bytes.first_chunk::<8>());
        let number = |at: usize| number(at).map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let mut boot = [b0; 16];
        boot[1] = b1;
        for (to, from) in boot.iter_mut().skip(2).zip(clocks) {
            *to = from;
        }
        Self { boot, boot_clock: number(14), wall_clock: number(22) }
    }
}

/// Parses the record at the beginning of `bytes`.
#[must_use]
pub fn parse_record(bytes: &[u8]) -> ParseResult<'_> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return ParseResult::Truncated(HEADER_BYTES);
    };
    let [kind, flags, l0, l1, c0, c1, c2, c3, id @ .., a0, a1, m0, m1] = *header;
    let length = usize::from(u16::from_le_bytes([l0, l1]));
    let Some(kind) = RecordKind::ALL.iter().find(|known| **known as u8 == kind).copied() else {
        return ParseResult::Bad;
    };
    if u16::from_le_bytes([m0, m1]) != RECORD_MAGIC || length > BODY_MAX_BYTES {
        return ParseResult::Bad;
    }
    let Some(bytes) = rest.get(..length) else {
        return ParseResult::Truncated(HEADER_BYTES.saturating_add(length));
    };
    if checksum(header, [bytes, &[], &[]]) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return ParseResult::Bad;
    }
    let mut flags = RecordFlags::from_bits_retain(flags);
    let Some((attributes, body)) = split_attributes(flags, bytes) else { return ParseResult::Bad };
    if body.len() > kind.prefix_bytes().saturating_add(JOB_MAX_BYTES) {
        return ParseResult::Bad;
    }
    // The attributes tell it.
    flags.remove(RecordFlags::ATTRIBUTES);
    let (id, attempt) = (u64::from_le_bytes(id), u16::from_le_bytes([a0, a1]));
    let record = Record { kind, flags, id, attempt, attributes, body };
    ParseResult::Record(record, record.size())
}

/// Splits the bytes after a header into attributes and body. Returns `None` if the attributes
/// cannot be.
fn split_attributes(flags: RecordFlags, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    if !flags.contains(RecordFlags::ATTRIBUTES) {
        return Some((&[], bytes));
    }
    let (length, rest) = bytes.split_first()?;
    let length = usize::from(*length);
    if length == 0 || length > ATTRIBUTES_MAX_BYTES { None } else { rest.split_at_checked(length) }
}

/// Returns the offset of the first valid record in `bytes`, from offset 1 on. Returns `None`
/// if no valid record is whole.
#[must_use]
pub fn resync(bytes: &[u8]) -> Option<usize> {
    (1..bytes.len())
        .find(|at| matches!(parse_record(bytes.get(*at..).unwrap_or(&[])), ParseResult::Record(..)))
}

/// Returns the number of bytes to skip, at least 1, from the beginning of `bytes`, where there
/// is no record. It leads to the next valid record, or else to the first offset at which one
/// may begin that is not whole yet. If `last` is true, no bytes follow, and all of `bytes` is
/// skipped in that case.
#[must_use]
pub fn skip_damage(bytes: &[u8], last: bool) -> usize {
    let unknown =
        if last { bytes.len() } else { bytes.len().saturating_sub(RECORD_MAX_BYTES).saturating_add(1) };
    resync(bytes).unwrap_or(unknown).max(1)
}

/// The judgement of the first bytes of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileHeader {
    /// The file is a journal of this version, which the program knows.
    Known(u8),
    /// The file is a journal of another version.
    OtherVersion,
    /// The file is damaged, too short, or not a journal.
    Damaged,
}

/// Returns the header of a file of this version.
#[must_use]
pub const fn header_of_version(version: u8) -> &'static [u8; FILE_HEADER_BYTES] {
    if version < 2 { b"zigsvc-journal 1\n" } else { b"zigsvc-journal 2\n" }
}

/// Judges the first bytes of a file.
#[must_use]
pub fn file_header(bytes: &[u8]) -> FileHeader {
    let known = |version: &u8| bytes.starts_with(header_of_version(*version));
    if let Some(version) = (OLDEST_VERSION..=VERSION).find(known) {
        return FileHeader::Known(version);
    }
    match bytes.strip_prefix(FILE_MAGIC) {
        Some(rest) if rest.first().is_some_and(|byte| *byte != 0) && bytes.len() >= FILE_HEADER_BYTES => {
            FileHeader::OtherVersion
        }
        _ => FileHeader::Damaged,
    }
}

fn checksum(header: &[u8; HEADER_BYTES], parts: [&[u8]; 3]) -> u32 {
    let (before, rest) = header.split_at(4);
    let [first, second, third] = parts;
    crc32(&[before, rest.get(4..).unwrap_or(&[]), first, second, third])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> std::vec::Vec<u8> {
        let mut out: Vec<u8, 4096> = Vec::new();
        for (index, kind) in RecordKind::ALL.iter().copied().enumerate() {
            Record {
                kind,
                flags: RecordFlags::from_bits_retain(index as u8),
                id: 1 << (index * 5),
                attempt: index as u16 * 1000,
                attributes: &b"\x01\x01\x02\xFF\x00"[..index % 3 * 5 / 2],
                body: &b"do all the work"[..index],
            }
            .emit(&mut out)
            .unwrap();
        }
        out.to_vec()
    }

    #[test]
    fn every_kind_reads_back() {
        let bytes = golden();
        let mut at = 0;
        for (index, kind) in RecordKind::ALL.iter().copied().enumerate() {
            let ParseResult::Record(record, size) = parse_record(&bytes[at..]) else { panic!() };
            assert_eq!((record.kind, record.id, record.body.len()), (kind, 1 << (index * 5), index));
            assert_eq!(record.attributes.len(), index % 3 * 5 / 2);
            assert_eq!((record.flags.bits(), record.attempt), (index as u8, index as u16 * 1000));
            at += size;
        }
        assert_eq!(at, bytes.len());
    }

    #[test]
    fn every_truncation_of_a_record_is_seen_as_one() {
        let mut out: Vec<u8, 128> = Vec::new();
        Record { body: b"text", ..Record::new(RecordKind::Add, 7, 0) }.emit(&mut out).unwrap();
        for length in 0..out.len() {
            assert!(
                matches!(parse_record(&out[..length]), ParseResult::Truncated(need) if need > length),
                "{length}"
            );
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed_and_the_next_record_is_found() {
        let mut out: Vec<u8, 128> = Vec::new();
        Record { body: b"first", ..Record::new(RecordKind::Add, 1, 0) }.emit(&mut out).unwrap();
        let first = out.len();
        Record { body: b"second", ..Record::new(RecordKind::Add, 2, 0) }.emit(&mut out).unwrap();
        for bit in 0..first * 8 {
            let mut bytes = out.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(parse_record(&bytes), ParseResult::Record(..)), "bit {bit}");
            assert_eq!(resync(&bytes), Some(first), "bit {bit}");
        }
    }

    #[test]
    fn zeros_and_noise_are_not_records() {
        assert_eq!(parse_record(&[0; 64]), ParseResult::Bad);
        let mut seed = 3u64;
        for _ in 0..100_000 {
            let bytes: std::vec::Vec<u8> = (0..40)
                .map(|_| {
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (seed >> 40) as u8
                })
                .collect();
            assert!(!matches!(parse_record(&bytes), ParseResult::Record(..)));
            assert_eq!(resync(&bytes), None);
        }
    }

    #[test]
    fn a_length_or_a_mark_that_cannot_be_is_damage_and_not_the_end_of_the_file() {
        let mut out: Vec<u8, 128> = Vec::new();
        Record { body: b"text", ..Record::new(RecordKind::Add, 7, 0) }.emit(&mut out).unwrap();
        let damaged = |at: usize, with: [u8; 2]| {
            let mut bytes = out.clone();
            bytes[at..at + 2].copy_from_slice(&with);
            bytes
        };
        let length = |length: usize| damaged(2, u16::try_from(length).unwrap().to_le_bytes());
        assert_eq!(parse_record(&length(BODY_MAX_BYTES)), ParseResult::Truncated(RECORD_MAX_BYTES));
        assert_eq!(parse_record(&length(BODY_MAX_BYTES + 1)), ParseResult::Bad);
        assert_eq!(parse_record(&damaged(HEADER_BYTES - 2, [0, 0])[..HEADER_BYTES]), ParseResult::Bad);
    }

    #[test]
    fn damage_is_skipped_to_the_next_record_or_as_far_as_none_can_begin() {
        let mut out: Vec<u8, 128> = Vec::new();
        out.extend_from_slice(&[0; 7]).unwrap();
        Record { body: b"text", ..Record::new(RecordKind::Add, 7, 0) }.emit(&mut out).unwrap();
        assert_eq!((skip_damage(&out, false), skip_damage(&out, true)), (7, 7));
        let noise = [0; RECORD_MAX_BYTES + 9];
        assert_eq!((skip_damage(&noise, false), skip_damage(&noise, true)), (10, noise.len()));
        assert_eq!((skip_damage(&noise[..9], false), skip_damage(&noise[..9], true)), (1, 9));
    }

    #[test]
    fn a_record_that_does_not_fit_changes_nothing() {
        let mut out: Vec<u8, 24> = Vec::new();
        assert!(Record { body: b"12345", ..Record::new(RecordKind::Add, 1, 0) }.emit(&mut out).is_err());
        assert!(out.is_empty());
    }

    #[test]
    fn file_headers_are_told_apart() {
        for version in OLDEST_VERSION..=VERSION {
            assert_eq!(file_header(header_of_version(version)), FileHeader::Known(version));
        }
        assert_eq!(file_header(b"zigsvc-journal 3\n"), FileHeader::OtherVersion);
        assert_eq!(file_header(b"zigsvc-journal 0\n"), FileHeader::OtherVersion);
        assert_eq!(file_header(b"zigsvc-journal 10\n"), FileHeader::OtherVersion);
        assert_eq!(file_header(b"zigsvc-jour"), FileHeader::Damaged);
        assert_eq!(file_header(&[0; 32]), FileHeader::Damaged);
    }

    #[test]
    fn claim_bodies_read_back() {
        let progress = ClaimProgress { from: 1 << 39, to: 1 << 40, batch_bytes: 77 };
        assert_eq!(ClaimProgress::parse(&progress.emit()), Some(progress));
        assert_eq!(ClaimProgress::parse(b"short"), None);
    }

    #[test]
    fn attributes_that_cannot_be_are_damage() {
        let mut out: Vec<u8, 128> = Vec::new();
        Record { attributes: b"\x01\x01\x02", body: b"text", ..Record::new(RecordKind::Add, 7, 0) }
            .emit(&mut out)
            .unwrap();
        assert!(matches!(parse_record(&out), ParseResult::Record(record, 28) if record.text() == b"text"));
        for length in [0, 8, 97, 255] {
            let mut bytes = out.clone();
            bytes[HEADER_BYTES] = length;
            let header = *bytes.first_chunk::<HEADER_BYTES>().unwrap();
            let crc = checksum(&header, [&bytes[HEADER_BYTES..], &[], &[]]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(parse_record(&bytes), ParseResult::Bad, "{length}");
        }
    }

    #[test]
    fn a_text_that_is_longer_than_a_job_is_damage() {
        for (kind, prefix) in [(RecordKind::Add, 0), (RecordKind::Dead, 2), (RecordKind::Result, 12)] {
            for (length, whole) in [(JOB_MAX_BYTES, true), (JOB_MAX_BYTES + 1, false)] {
                let mut out: Vec<u8, RECORD_MAX_BYTES> = Vec::new();
                let body = [b'x'; JOB_MAX_BYTES + 20];
                Record { body: &body[..prefix + length], ..Record::new(kind, 1, 0) }.emit(&mut out).unwrap();
                assert_eq!(matches!(parse_record(&out), ParseResult::Record(..)), whole, "{kind:?} {length}");
            }
        }
    }

    #[test]
    fn the_version_that_a_record_needs_is_that_of_its_newest_part() {
        let add = Record { body: b"x", ..Record::new(RecordKind::Add, 1, 0) };
        assert_eq!((add.since(), Record { attributes: b"\x01\x01\x01", ..add }.since()), (1, 2));
        let requeued = Record::new(RecordKind::Requeued, 1, 0);
        assert_eq!((requeued.since(), Record { body: b"\x01", ..requeued }.since()), (1, 2));
        let tombstone = Record { flags: RecordFlags::DEAD, ..Record::new(RecordKind::Tombstone, 1, 0) };
        assert_eq!(tombstone.since(), 1);
        assert_eq!(Record { flags: RecordFlags::DEAD | RecordFlags::OLDEST, ..tombstone }.since(), 2);
        assert_eq!(Record::new(RecordKind::Hold, 0, 1).since(), 2);
    }

    #[test]
    fn the_document_lists_every_kind() {
        let document = include_str!("../../docs/design.md");
        let rows = document.split("| kind | name |").nth(1).unwrap().lines().skip(2);
        let rows = rows.take_while(|row| row.starts_with('|'));
        let of = |text: &str| if text.is_empty() { " |".to_owned() } else { format!(" {text} |") };
        assert!(rows.eq(ROWS.iter().map(|(number, name, since, id, attempt, body)| {
            format!("| {number} | `{name}` | {since} | {id} | {attempt} |{}", of(body))
        })));
    }
}
