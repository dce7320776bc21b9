//! The memory that every service needs, in one static: all zeros before it is
//! used, so it lies in .bss and only touched pages count.

use super::config_source::ConfigSource;
use crate::limits::{LOG_BUFFER_BYTES, PAGE_BYTES, SCRATCH_BYTES};
use crate::proto::config::Config;
use crate::sys::once::once;
use heapless::Vec;

/// See the module's documentation. In the order in which it is touched: what
/// a quiet service needs shares its pages.
#[repr(C)]
pub struct Memory {
    /// What the command line says.
    pub config_source: ConfigSource,
    /// The configuration in force.
    pub config: Config,
    /// Log lines that are not yet written.
    pub log: Vec<u8, LOG_BUFFER_BYTES>,
    /// For what never happens at the same time: reading the configuration,
    /// recovering and reading the journal, reading claims and output.
    pub scratch: Scratch,
    /// The configuration that a reload is reading.
    pub candidate: Config,
}

/// Memory of which nothing is kept, and a page more than that.
pub struct Scratch([u8; SCRATCH_BYTES + PAGE_BYTES]);

impl Scratch {
    /// The memory, from the start of a page on, so that it can be given back whole.
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

/// The memory; to be called once.
#[must_use]
pub fn take() -> &'static mut Memory {
    MEMORY.take()
}
