//! The memory that each service needs, in one static. It is all zeros at first, so that it
//! lies in .bss and takes no memory before it is used.

use super::config_source::ConfigSource;
use crate::limits::{LOG_BUFFER_BYTES, SCRATCH_BYTES};
use crate::proto::config::{Config, Program};
use crate::sys::once::once;
use crate::util::path::Path;
use heapless::Vec;

/// Bytes of a page of memory. Where pages are larger, less is given back.
const PAGE_BYTES: usize = 4096;

/// The memory of a service. The fields are in the order of their use, so that the fields that
/// a quiet service needs share pages.
#[repr(C)]
pub struct Memory {
    /// The settings of the command line.
    pub config_source: ConfigSource,
    /// The configuration in force.
    pub config: Config,
    /// Log lines that are not written yet.
    pub log: Vec<u8, LOG_BUFFER_BYTES>,
    /// Memory for uses that exclude each other: reading the configuration, recovering and
    /// reading the journal, reading claims and output.
    pub scratch: Scratch,
    /// The configuration that a reload reads.
    pub candidate: Config,
    /// The file of the program that is checked or started.
    pub program: Program,
    /// The socket at which the user of a command has no service, so that root's socket is tried;
    /// otherwise empty.
    pub tried: Path,
}

/// Memory whose content is not kept. It has one page more than is used, so that the part in
/// use can begin at a page.
pub struct Scratch([u8; SCRATCH_BYTES + PAGE_BYTES]);

impl Scratch {
    /// Returns the memory from the beginning of a page on, so that all of its pages can be
    /// given back to the kernel.
    pub fn pages(&mut self) -> &mut [u8] {
        let skip = self.0.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
        self.0.get_mut(skip..).and_then(|rest| rest.get_mut(..SCRATCH_BYTES)).unwrap_or(&mut [])
    }
}

once! {
    first static MEMORY: Memory = Memory {
        scratch: Scratch([0; SCRATCH_BYTES + PAGE_BYTES]),
        config_source: ConfigSource::EMPTY,
        config: Config::EMPTY,
        candidate: Config::EMPTY,
        program: Program::EMPTY,
        log: Vec::new(),
        tried: Path::empty(),
    };
}

/// Returns the memory. It can be called only once.
#[must_use]
pub fn take() -> &'static mut Memory {
    MEMORY.take()
}
