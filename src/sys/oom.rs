//! The OOM killer's choice (proc(5), `oom_score_adj`): a handler rather than the
//! daemon. A child inherits the score, so the daemon raises its own while it starts
//! one: two writes to a file that stays open, where the child would have to find its
//! own file in /proc, and could not after a drop of privileges.

use super::{OwnedFd, file};
use crate::proto::text::parse_u64;

/// The score of a handler; 1000 is the most.
const HANDLER: u64 = 500;
/// Bytes of a score: a sign, four digits, a newline.
const SCORE_BYTES: usize = 6;

/// Our own score. Without /proc, or if it is as high as a handler's, it stays as it is.
pub struct OomScore {
    file: Option<OwnedFd>,
    own: [u8; SCORE_BYTES],
    length: usize,
}

impl OomScore {
    /// Reads it. To be called while there are the rights to write it.
    #[must_use]
    pub fn open() -> Self {
        let mut own = [0; SCORE_BYTES];
        let file = file::open(c"/proc/self/oom_score_adj", file::OFlags::RDWR, 0).ok();
        let length = file.as_ref().and_then(|file| file::read_at(file, &mut own, 0).ok()).unwrap_or(0);
        let low = match own.get(..length).map(<[u8]>::trim_ascii) {
            Some([b'-', ..]) => true,
            Some(score) => parse_u64(score).is_some_and(|score| score < HANDLER),
            None => false,
        };
        Self { file: file.filter(|_| low), own, length }
    }

    /// From now on a child is preferred.
    pub fn raise(&self) {
        self.set(b"500");
    }

    /// As it was before.
    pub fn restore(&self) {
        self.set(self.own.get(..self.length).unwrap_or(&[]));
    }

    fn set(&self, score: &[u8]) {
        if let Some(file) = &self.file {
            let _ = file::write_at(file, score, 0);
        }
    }
}
