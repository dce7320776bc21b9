//! The decisions of the opener: which files it opens, when its worker is started and
//! killed, and which client gets an answer.

pub mod allow_list;
pub mod worker_monitor;
pub mod worker_requests;
