//! The OOM killer's choice (proc(5), `oom_score_adj`): a handler rather than the
//! daemon. A child inherits the score, so the daemon raises its own while it starts
//! one.

use super::{OwnedFd, file};
use crate::util::text::parse_u64;
use core::ffi::CStr;

/// Where it stands.
const FILE: &CStr = c"/proc/self/oom_score_adj";
/// The score of a handler; 1000 is the most.
const HANDLER: u64 = 500;
/// Bytes of a score: a sign, four digits, a newline.
const SCORE_BYTES: usize = 6;

/// Our own score. Without /proc, or if it is as high as a handler's, it stays as it is.
pub struct OomScore {
    /// As it was before a handler was started.
    own: [u8; SCORE_BYTES],
    length: usize,
    /// The file, open while there are handlers, or always.
    file: Option<OwnedFd>,
    /// The file is not closed, because it could not be opened again.
    stays_open: bool,
}

impl OomScore {
    /// Opens the score. A process that drops its privileges afterwards opens the file now and
    /// keeps it, because its folder in /proc then belongs to root (proc(5), "dumpable"). While
    /// the file is open, /proc cannot be unmounted.
    #[must_use]
    pub fn open(drops_privileges: bool) -> Self {
        let file = if drops_privileges { open() } else { None };
        Self { own: [0; SCORE_BYTES], length: 0, file, stays_open: drops_privileges }
    }

    /// Makes the kernel prefer a child from now on, until [`OomScore::restore`]. The own score
    /// is read each time, because another process can have changed it, and only root may go
    /// below the score that root has set.
    pub fn raise(&mut self) {
        if self.file.is_none() {
            self.file = open();
        }
        let Some(file) = &self.file else { return };
        let length = file::read_at(file, &mut self.own, 0).unwrap_or(0);
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

    /// Sets the own score that was read before.
    pub fn restore(&mut self) {
        let own = self.own.get(..self.length).filter(|own| !own.is_empty());
        if let (Some(file), Some(own)) = (&self.file, own) {
            let _ = file::write_at(file, own, 0);
        }
    }

    /// Closes the file while there are no handlers, because with it open /proc could not be
    /// unmounted.
    pub fn rest(&mut self) {
        if !self.stays_open {
            self.file = None;
        }
    }
}

fn open() -> Option<OwnedFd> {
    file::open(FILE, file::OFlags::RDWR, 0).ok()
}
