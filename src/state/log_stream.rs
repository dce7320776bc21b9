//! A stream of bytes on its way into files that rotate: what of it may be written
//! now, in which file, behind which stamp. No byte is added but stamps, none is
//! dropped, and their order stays.
//!
//! A *line* ends with its newline. It goes into one file whole, unless it is
//! longer than [`COPY_LINE_BYTES`]: then its first part is written as if it were
//! a line, and the rest as it comes (the stream is *inside* a line), cut where
//! the file is full. So a file is larger than its limit only if it holds nothing
//! but one line, or the first part of one.

use crate::limits::COPY_LINE_BYTES;
use crate::proto::log::TimestampFormat;
use crate::util::lines::find_newline;
use crate::util::text::Writer;

/// How many bytes at the start of `held` may be written now: whole lines, a line
/// that is too long to wait for its end, the rest of one that was, or, when the
/// stream has `ended`, all.
///
/// There is no newline in the first `known` bytes. `inside`: they continue a line
/// whose beginning is written.
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

/// What to do with a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamAction {
    /// Write so many bytes of it to the file (at least one).
    Write(usize),
    /// Begin a new file first.
    Rotate,
}

/// The next step with a `block` that is ready (at least one byte). `inside`: it
/// continues the line that the file ends with. The file has `size` bytes, and is
/// full with `max`; 0: never.
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

/// Length of the first line of `block`, its newline included; all of it if there
/// is none.
fn first_line(block: &[u8]) -> usize {
    find_newline(block).map_or(block.len(), |at| at.saturating_add(1))
}

/// Bytes of the longest stamp, and some.
pub const STAMP_MAX_BYTES: usize = 32;

/// Puts a stamp in front of each line.
pub struct Stamper {
    stamp: TimestampFormat,
    /// The stamp of second `wall`: `text[..length]`.
    text: [u8; STAMP_MAX_BYTES],
    length: usize,
    wall: Option<i64>,
    /// The stream is inside a line.
    inside: bool,
}

impl Stamper {
    /// In this form.
    #[must_use]
    pub const fn new(stamp: TimestampFormat) -> Self {
        Self { stamp, text: [0; STAMP_MAX_BYTES], length: 0, wall: None, inside: false }
    }

    /// The lines that come now are of second `wall` since 1970.
    pub fn set_time(&mut self, wall: i64) {
        if self.wall != Some(wall) {
            let mut out = Writer::new(&mut self.text);
            self.stamp.emit(wall, &mut out);
            self.length = out.len();
            self.wall = Some(wall);
        }
    }

    /// Copies lines from `block` to `out`, each behind its stamp, until there are
    /// `enough` bytes of them or no more; returns how many bytes were taken and how
    /// many are in `out`. That must have room for `enough`, a stamp and the block.
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
