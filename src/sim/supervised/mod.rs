//! The second simulated board: a supervisor with services and programs, and the hardware watchdog.
//!
//! - `kernel.rs`: processes, their numbers, and the files that a supervisor reads
//! - `supervisor.rs`: what `service/supervisor` performs
//! - `board.rs`: what happens to the processes, to the supervisor and to the board
//! - `checks.rs`: what must hold

mod board;
mod checks;
mod kernel;
mod supervisor;

pub(super) use board::SupervisedBoard;
