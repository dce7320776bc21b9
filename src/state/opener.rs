//! The decisions of the opener's main process: which files it opens, and when its worker
//! is started and killed.

pub mod allow_list;
pub mod worker_monitor;
