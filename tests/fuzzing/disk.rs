//! The fake disk of the spool's own tests. It is not part of the library.

pub use zigsvc::state::disk::{
    Disk, DiskError, DiskResult, Lease, MISSING, NO_SPACE, Obstacle, PathState, QueueFile, SpoolFile,
};

#[path = "../../src/state/disk/fake.rs"]
pub mod fake;
