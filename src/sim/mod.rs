//! A simulated board: the decisions that ship, a kernel that does not, and everything that happens to
//! such a board, from one seed. `docs/simulation.md` says what it holds and what it leaves out.
//!
//! - `scenario.rs`: the kinds of events, and the line that names a run
//! - `random.rs`: the numbers from which everything follows
//! - `board.rs`: the clocks, the disk, what happens, and what is checked
//! - `processes.rs`: the processes, their groups and their numbers
//! - `service.rs`, `clients.rs`: what `service/jobs` performs
//! - `ledger.rs`: what was promised, and to which jobs
//! - `supervised/`: the second board, with a supervisor
//! - `timeline.rs`: what happens when, and the steps for the report
//! - `runner.rs`: many runs, and the report of one that fails

mod board;
mod clients;
mod ledger;
mod processes;
mod random;
mod runner;
mod scenario;
mod service;
mod supervised;
mod timeline;
