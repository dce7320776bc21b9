//! What the service `jobs` decides.
//!
//! - `replies.rs`: what clients wait for, and the answers that wait for the commit

pub mod replies;
