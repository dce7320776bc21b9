//! Decides how a stream of bytes is written into files that rotate: which bytes can be written
//! now, to which file, and after which timestamp. Only timestamps are added to the stream. No
//! byte is dropped, and the order stays.
//!
//! A *line* ends with its newline. It is written to one file as a whole, unless it is longer
//! than [`COPY_LINE_BYTES`]. The first part of such a line is written like a line. The stream
//! is *inside* a line then: the rest is written as it arrives, and is divided where a file is
//! full. Thus a file exceeds its limit only if it holds nothing but one line, or the first
//! part of one.

use crate::limits::COPY_LINE_BYTES;
use crate::proto::log::TimestampFormat;
use crate::util::lines::find_newline;
use crate::util::text::Writer;

/// Returns the number of bytes at the start of `held` that can be written now. These are whole
/// lines, a line that is too long to wait for its end, the rest of such a line, or all bytes
/// if the stream has `ended`.
///
/// There must be no newline in the first `known` bytes. `inside` is true if the bytes continue
/// a line whose beginning was written.
#[must_use]
pub fn ready(held: &[u8], known: usize, inside: bool, ended: bool) -> usize {
    let fresh = held.get(known..).unwrap_or(&[]);
    match fresh.iter().rposition(|byte| *byte == b'\n') {
        _ if ended => held.len(),
        Some(at) => known.saturating_add(at).saturating_add(1),
        None if inside || held.len() >= COPY_LINE_BYTES => held.len(),
        None => 0,
    }
}

/// The next action for a block of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamAction {
    /// Write this many bytes of the block to the file, at least one.
    Write(usize),
    /// Start a new file first.
    Rotate,
}

/// Returns the next action for a `block` of at least one byte that is ready. `inside` is true
/// if the block continues the line that the file ends with. The file has `size` bytes, and is
/// full at `max` bytes. With 0 it is never full.
#[must_use]
pub fn next_action(block: &[u8], inside: bool, size: u64, max: u64) -> StreamAction {
    let room = usize::try_from(max.saturating_sub(size)).unwrap_or(usize::MAX);
    if max == 0 || block.len() <= room {
        return StreamAction::Write(block.len());
    }
    let fits = block.get(..room).unwrap_or(block);
    match fits.iter().rposition(|byte| *byte == b'\n') {
        Some(last) => StreamAction::Write(last.saturating_add(1)),
        None if inside && room > 0 => StreamAction::Write(room),
        None if size > 0 => StreamAction::Rotate,
        None => StreamAction::Write(first_line(block)),
    }
}

/// Returns the length of the first line of `block` with its newline, or of all of it if there
/// is none.
fn first_line(block: &[u8]) -> usize {
    find_newline(block).map_or(block.len(), |at| at.saturating_add(1))
}

/// Bytes that hold the longest timestamp.
pub const STAMP_MAX_BYTES: usize = 32;

/// Puts a timestamp in front of each line.
pub struct Stamper {
    stamp: TimestampFormat,
    /// The timestamp of the second `wall`: `text[..length]`.
    text: [u8; STAMP_MAX_BYTES],
    length: usize,
    wall: Option<i64>,
    /// True if the stream is inside a line.
    inside: bool,
}

impl Stamper {
    /// Returns a stamper that writes timestamps of this format. No timestamp is written before
    /// the first call of [`Stamper::set_time`].
    #[must_use]
    pub const fn new(stamp: TimestampFormat) -> Self {
        Self { stamp, text: [0; STAMP_MAX_BYTES], length: 0, wall: None, inside: false }
    }

    /// Sets the timestamp of the next lines, in seconds since 1970.
    pub fn set_time(&mut self, wall: i64) {
        if self.wall != Some(wall) {
            let mut out = Writer::new(&mut self.text);
            self.stamp.emit(wall, &mut out);
            self.length = out.len();
            self.wall = Some(wall);
        }
    }

    /// Copies lines from `block` to `out`, each after its timestamp, until at least `enough`
    /// bytes were written or `block` ends. Returns the number of bytes taken from `block`, and
    /// of bytes written to `out`. `out` must have space for `enough`, a timestamp and the
    /// block together.
    pub fn copy(&mut self, block: &[u8], out: &mut [u8], enough: usize) -> (usize, usize) {
        let (mut taken, mut filled) = (0usize, 0usize);
        while filled < enough
            && let Some(rest) = block.get(taken..).filter(|rest| !rest.is_empty())
        {
            let length = first_line(rest);
            let stamp = if self.inside { 0 } else { self.length };
            let text = filled.saturating_add(stamp);
            let end = text.saturating_add(length);
            let (Some(stamp), Some(line)) = (self.text.get(..stamp), rest.get(..length)) else { break };
            let Some(to) = out.get_mut(filled..end) else { break };
            let Some((to_stamp, to_line)) = to.split_at_mut_checked(stamp.len()) else { break };
            to_stamp.copy_from_slice(stamp);
            to_line.copy_from_slice(line);
            self.inside = line.last() != Some(&b'\n');
            taken = taken.saturating_add(length);
            filled = end;
        }
        (taken, filled)
    }
}

#[cfg(test)]
mod tests;
