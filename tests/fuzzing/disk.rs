//! The fake disk of the spool's own tests. It is not part of the library.

pub use zigsvc::state::disk::{Disk, DiskError, DiskResult, Lease, MISSING, NO_SPACE, QueueFile, SpoolFile};

#[path = "../../src/state/disk/fake.rs"]
pub mod fake;
