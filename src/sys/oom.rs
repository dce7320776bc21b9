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
}

impl OomScore {
    /// Reads it.
    #[must_use]
    pub fn open() -> Self {
        let mut own = [0; SCORE_BYTES];
        let length = file::read_path(FILE, &mut own).unwrap_or(0);
        let low = match own.get(..length).map(<[u8]>::trim_ascii) {
            Some([b'-', ..]) => true,
            Some(score) => parse_u64(score).is_some_and(|score| score < HANDLER),
            None => false,
        };
        Self { own, length: if low { length } else { 0 } }
    }

    /// From now on a child is preferred, until [`OomScore::restore`] gets what this
    /// returns. (The file is not kept open: /proc could not be unmounted.)
    #[must_use]
    pub fn raise(&self) -> Option<OwnedFd> {
        let file = (self.length > 0).then(|| file::open(FILE, file::OFlags::WRONLY, 0).ok())??;
        file::write_at(&file, b"500", 0).ok().map(|()| file)
    }

    /// As it was before.
    pub fn restore(&self, raised: Option<OwnedFd>) {
        if let Some(file) = raised {
            let _ = file::write_at(&file, self.own.get(..self.length).unwrap_or(&[]), 0);
        }
    }
}
