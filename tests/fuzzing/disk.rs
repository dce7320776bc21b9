//! The fake disk of the spool's own tests, which is no part of the library.

pub use zigsvc::state::disk::{Disk, DiskError, QueueFile, SpoolFile};

#[path = "../../src/state/disk/fake.rs"]
pub mod fake;
