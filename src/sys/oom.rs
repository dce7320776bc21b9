//! The OOM killer's choice (proc(5), `oom_score_adj`): a handler rather than the
//! daemon. A child inherits the score, so the daemon raises its own while it starts
//! one.

use super::{OwnedFd, file};
use crate::proto::text::parse_u64;
use core::ffi::CStr;

/// Where it stands.
const FILE: &CStr = c"/proc/self/oom_score_adj";
/// The score of a handler; 1000 is the most.
const HANDLER: u64 = 500;
/// Bytes of a score: a sign, four digits, a newline.
const SCORE_BYTES: usize = 6;

/// Our own score. Without /proc, or if it is as high as a handler's, it stays as it is.
pub struct OomScore {
    own: [u8; SCORE_BYTES],
    length: usize,
    /// The file, open while there are handlers, or always.
    file: Option<OwnedFd>,
    /// It could not be opened again.
    stays_open: bool,
}

impl OomScore {
    /// Reads it. A process that `drops_privileges` afterwards keeps the file open: then
    /// what is in its folder of /proc belongs to root (proc(5), "dumpable").
    #[must_use]
    pub fn open(drops_privileges: bool) -> Self {
        let mut own = [0; SCORE_BYTES];
        let length = file::read_path(FILE, &mut own).unwrap_or(0);
        let low = match own.get(..length).map(<[u8]>::trim_ascii) {
            Some([b'-', ..]) => true,
            Some(score) => parse_u64(score).is_some_and(|score| score < HANDLER),
            None => false,
        };
        let length = if low { length } else { 0 };
        let mut score = Self { own, length, file: None, stays_open: drops_privileges };
        if drops_privileges {
            score.open_file();
        }
        score
    }

    fn open_file(&mut self) {
        if self.file.is_none() && self.length > 0 {
            self.file = file::open(FILE, file::OFlags::WRONLY, 0).ok();
        }
    }

    /// From now on a child is preferred, until [`OomScore::restore`].
    pub fn raise(&mut self) {
        self.open_file();
        self.write(b"500");
    }

    /// As it was before.
    pub fn restore(&mut self) {
        let own = self.own;
        self.write(own.get(..self.length).unwrap_or(&[]));
    }

    /// There are no handlers: with the file open /proc could not be unmounted.
    pub fn rest(&mut self) {
        if !self.stays_open {
            self.file = None;
        }
    }

    fn write(&self, score: &[u8]) {
        if let Some(file) = &self.file {
            let _ = file::write_at(file, score, 0);
        }
    }
}
