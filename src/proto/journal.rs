//! The journal's bytes: one file of records, appended and never changed.
//!
//! ```text
//! file    "zigsvc-journal 1\n", then records
//! record  0    1     2    4      8     16      18    20
//!         kind flags len  crc32  id    attempt magic body (len bytes)
//! ```
//!
//! Numbers are little-endian and unsigned. The CRC covers all bytes of the record but its own.
//! No job text can imitate a record, because a header contains NUL bytes and a job text does
//! not. `magic` is the constant by which the next record is found after damage.
//!
//! A *live record* is a record that holds the text of a job: [`RecordKind::Add`] while the job
//! waits or runs, [`RecordKind::Dead`] after its last attempt has failed. The last live record
//! of a job is the only valid one.
//!
//! Changing this: another meaning of these bytes needs another [`VERSION`].

use super::crc::crc32;
use crate::limits::JOB_MAX_BYTES;
use bitflags::bitflags;
use heapless::Vec;

/// The first bytes of the file. The version and a newline follow.
pub const FILE_MAGIC: &[u8] = b"zigsvc-journal ";
/// The version of the format that this program reads and writes.
pub const VERSION: &[u8] = b"1";
/// The whole header of the file.
pub const FILE_HEADER: &[u8] = b"zigsvc-journal 1\n";
/// Bytes of the header of a record.
pub const HEADER_BYTES: usize = 20;
/// Bytes before the text in the body of a [`RecordKind::Dead`] record.
pub const DEAD_PREFIX_BYTES: usize = 2;
/// Bytes of the longest body.
pub const BODY_MAX_BYTES: usize = JOB_MAX_BYTES + DEAD_PREFIX_BYTES;
/// Bytes of the longest record.
pub const RECORD_MAX_BYTES: usize = HEADER_BYTES + BODY_MAX_BYTES;
/// Bytes of the body of a [`RecordKind::Claim`] record.
pub const CLAIM_BODY_BYTES: usize = 20;

/// The last two bytes of each header.
const RECORD_MAGIC: u16 = 0xA55A;

/// The kind of a record. `id` is that of the job, unless noted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordKind {
    /// The first record. `id` is that of the next job, and the body is the number of the next
    /// claim.
    Base = 1,
    /// The live record of a job that waits. The body is its text.
    Add = 2,
    /// Attempt number `attempt` was started.
    Start = 3,
    /// Attempt number `attempt` failed, and there will be another one.
    Fail = 4,
    /// Attempt number `attempt + 1` was given back to the queue, because the service stopped
    /// or the handler could not be started. It does not count.
    Requeued = 5,
    /// The job succeeded. It has no live record any more.
    Done = 6,
    /// The live record of a job that failed for good. The body is the outcome of its last
    /// attempt, then its text.
    Dead = 7,
    /// The live record of `id` and `attempt` is deleted, because the job was cancelled or
    /// forgotten. The body is the size of that record, in 2 bytes.
    Tombstone = 8,
    /// The claim number `id` was read from one offset to another, which the body holds. The
    /// records that the length in the body covers are the jobs that were read there.
    Claim = 9,
}

impl RecordKind {
    const ALL: [Self; 9] = [
        Self::Base,
        Self::Add,
        Self::Start,
        Self::Fail,
        Self::Requeued,
        Self::Done,
        Self::Dead,
        Self::Tombstone,
        Self::Claim,
    ];
}

bitflags! {
    /// Additions to the kind of a record. Bits without a meaning are kept.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct RecordFlags: u8 {
        /// [`RecordKind::Add`]: the job has failed before, and waits for its delay again.
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
    /// The body, at most [`BODY_MAX_BYTES`] bytes. The kind decides its format.
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
        Self { kind, flags: RecordFlags::empty(), id, attempt, body: &[] }
    }

    /// Returns the size of the record in the journal, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        HEADER_BYTES.saturating_add(self.body.len())
    }

    /// Appends the record to `out`.
    ///
    /// # Errors
    /// The record does not fit. `out` is unchanged.
    pub fn emit<const N: usize>(&self, out: &mut Vec<u8, N>) -> Result<(), BufferFull> {
        let length = u16::try_from(self.body.len()).map_err(|_| BufferFull)?;
        if N.saturating_sub(out.len()) < self.size() {
            return Err(BufferFull);
        }
        let header = self.header(length);
        out.extend_from_slice(&header).map_err(|_| BufferFull)?;
        out.extend_from_slice(self.body).map_err(|_| BufferFull)
    }

    fn header(&self, length: u16) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(to) = header.get_mut(at..at.saturating_add(bytes.len())) {
                to.copy_from_slice(bytes);
            }
        };
        put(0, &[self.kind as u8, self.flags.bits()]);
        put(2, &length.to_le_bytes());
        put(8, &self.id.to_le_bytes());
        put(16, &self.attempt.to_le_bytes());
        put(18, &RECORD_MAGIC.to_le_bytes());
        let crc = checksum(&header, self.body);
        if let Some(to) = header.get_mut(4..8) {
            to.copy_from_slice(&crc.to_le_bytes());
        }
        header
    }

    /// Returns the text of a live record.
    #[must_use]
    pub fn text(&self) -> &'a [u8] {
        match self.kind {
            RecordKind::Dead => self.body.get(DEAD_PREFIX_BYTES..).unwrap_or(&[]),
            _ => self.body,
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

/// Parses the record at the beginning of `bytes`.
#[must_use]
pub fn parse_record(bytes: &[u8]) -> ParseResult<'_> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return ParseResult::Truncated(HEADER_BYTES);
    };
    let [kind, flags, l0, l1, c0, c1, c2, c3, id @ .., a0, a1, m0, m1] = *header;
    let length = usize::from(u16::from_le_bytes([l0, l1]));
    let Some(kind) = RecordKind::ALL.into_iter().find(|known| *known as u8 == kind) else {
        return ParseResult::Bad;
    };
    if u16::from_le_bytes([m0, m1]) != RECORD_MAGIC || length > BODY_MAX_BYTES {
        return ParseResult::Bad;
    }
    let Some(body) = rest.get(..length) else {
        return ParseResult::Truncated(HEADER_BYTES.saturating_add(length));
    };
    if checksum(header, body) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return ParseResult::Bad;
    }
    let record = Record {
        kind,
        flags: RecordFlags::from_bits_retain(flags),
        id: u64::from_le_bytes(id),
        attempt: u16::from_le_bytes([a0, a1]),
        body,
    };
    ParseResult::Record(record, record.size())
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
    /// The file is a journal of this version.
    Known,
    /// The file is a journal of another version.
    OtherVersion,
    /// The file is damaged, too short, or not a journal.
    Damaged,
}

/// Judges the first bytes of a file.
#[must_use]
pub fn file_header(bytes: &[u8]) -> FileHeader {
    match bytes.strip_prefix(FILE_MAGIC) {
        Some(rest) if rest.starts_with(VERSION) && rest.get(1) == Some(&b'\n') => FileHeader::Known,
        Some(rest) if rest.first().is_some_and(|byte| *byte != 0) && bytes.len() >= FILE_HEADER.len() => {
            FileHeader::OtherVersion
        }
        _ => FileHeader::Damaged,
    }
}

fn checksum(header: &[u8; HEADER_BYTES], body: &[u8]) -> u32 {
    let (before, rest) = header.split_at(4);
    crc32(&[before, rest.get(4..).unwrap_or(&[]), body])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> std::vec::Vec<u8> {
        let mut out: Vec<u8, 4096> = Vec::new();
        for (index, kind) in RecordKind::ALL.into_iter().enumerate() {
            let body = &b"do the work"[..index];
            Record {
                kind,
                flags: RecordFlags::from_bits_retain(index as u8),
                id: 1 << (index * 7),
                attempt: index as u16 * 1000,
                body,
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
        for (index, kind) in RecordKind::ALL.into_iter().enumerate() {
            let ParseResult::Record(record, size) = parse_record(&bytes[at..]) else { panic!() };
            assert_eq!((record.kind, record.id, record.body.len()), (kind, 1 << (index * 7), index));
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
        assert_eq!(file_header(FILE_HEADER), FileHeader::Known);
        assert_eq!(file_header(b"zigsvc-journal 2\n"), FileHeader::OtherVersion);
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
}
