//! The OOM killer's choice (proc(5), `oom_score_adj`): a handler rather than the
//! daemon. A child inherits the score, so the daemon raises its own while it starts
//! one.

use super::{OwnedFd, file};
use crate::util::text::parse_u64;
use core::ffi::CStr;

/// The file that holds the score of this process.
const FILE: &CStr = c"/proc/self/oom_score_adj";
/// The score of a handler; 1000 is the most.
const HANDLER: u64 = 500;
/// Bytes of a score: a sign, four digits, a newline.
const SCORE_BYTES: usize = 6;

/// The score of this process. Without /proc, or if it is as high as a handler's, it stays
/// as it is.
pub struct OomScore {
    /// The score before a handler was started, as text.
    own: [u8; SCORE_BYTES],
    length: usize,
    /// The file, open while there are handlers, or always.
    file: Option<OwnedFd>,
    /// Whether the file is always open, because it could not be opened again.
    stays_open: bool,
}

impl OomScore {
    /// Opens the file now and keeps it if the process `drops_privileges` afterwards, because
    /// the files in its folder of /proc belong to root from then on (proc(5), "dumpable").
    /// /proc cannot be unmounted then.
    #[must_use]
    pub fn open(drops_privileges: bool) -> Self {
        let file = if drops_privileges { open() } else { None };
        Self { own: [0; SCORE_BYTES], length: 0, file, stays_open: drops_privileges }
    }

    /// Raises the score to that of a handler, so that the OOM killer prefers a child that is
    /// started before [`OomScore::restore`]. Reads the score each time, because another process
    /// may have changed it, and only root may go below a score that root has set.
    pub fn raise(&mut self) {
        if self.file.is_none() {
            self.file = open();
        }
        let Some(file) = &self.file else { return };
        let length = file::read_part_at(file, &mut self.own, 0).unwrap_or(0);
        let low = match self.own.get(..length).map(<[u8]>::trim_ascii) {
            Some([b'-', ..]) => true,
            Some(score) => parse_u64(score).is_some_and(|score| score < HANDLER),
            None => false,
        };
        self.length = if low { length } else { 0 };
        if low {
            let _ = file::write_at(file, b"500", 0);
        }
    }

    /// Restores the score that [`OomScore::raise`] read.
    pub fn restore(&mut self) {
        let own = self.own.get(..self.length).filter(|own| !own.is_empty());
        if let (Some(file), Some(own)) = (&self.file, own) {
            let _ = file::write_at(file, own, 0);
        }
    }

    /// Closes the file when there are no handlers, because /proc could not be unmounted while
    /// it is open. A process that drops its privileges keeps it.
    pub fn rest(&mut self) {
        if !self.stays_open {
            self.file = None;
        }
    }
}

fn open() -> Option<OwnedFd> {
    file::open(FILE, file::OFlags::RDWR, 0).ok()
}
