//! Limits.
/// Descriptors that one turn of a loop may watch.
pub const POLL_MAX: usize = 64;
/// Stack of a child between clone and exec.
pub const SPAWN_STACK_BYTES: usize = 4096;
/// Supplementary groups that are kept when privileges are dropped.
pub const GROUPS_MAX: usize = 32;
