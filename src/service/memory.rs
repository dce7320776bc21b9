//! The memory that every service needs, in one static. All its bytes are zero before it is used,
//! so it lies in .bss, and only touched pages take memory.

use super::config_source::ConfigSource;
use crate::limits::{LOG_BUFFER_BYTES, PAGE_BYTES, SCRATCH_BYTES};
use crate::proto::config::Config;
use crate::sys::once::once;
use heapless::Vec;

/// See the module's documentation. The fields are in the order in which they are touched, so that
/// the fields of a quiet service share pages.
#[repr(C)]
pub struct Memory {
    /// The part of the command line that is about the configuration.
    pub config_source: ConfigSource,
    /// The configuration in force.
    pub config: Config,
    /// Log lines that are not yet written.
    pub log: Vec<u8, LOG_BUFFER_BYTES>,
    /// Memory for uses that are never at the same time: reading the configuration, recovering and
    /// reading the journal, reading claims and output.
    pub scratch: Scratch,
    /// The configuration that a reload is reading.
    pub candidate: Config,
}

/// Memory that keeps nothing from one use to the next. It has one page more than is used.
pub struct Scratch([u8; SCRATCH_BYTES + PAGE_BYTES]);

impl Scratch {
    /// Returns the memory from the start of a page on, so that all of it can be given back.
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
        log: Vec::new(),
    };
}

/// Returns the memory. To be called once.
#[must_use]
pub fn take() -> &'static mut Memory {
    MEMORY.take()
}
