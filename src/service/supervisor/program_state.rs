//! The state of one program of the supervisor beside its process: the values of its file, and its
//! log.

use crate::proto::config::{Config, Program, ReadyMode};
use crate::proto::leftovers::NotedGroup;
use crate::service::program_log::ProgramLog;
use crate::service::trust::Judge;
use crate::state::supervisor::probe::FileVersion;
use crate::sys::process::Signal;
use crate::util::path::Path;

/// Bytes of the reason that `start NAME` prints.
pub(super) const FAILED_START_BYTES: usize = 200;

/// The values of the file of a program, as long as the program runs.
pub(super) struct ProgramState {
    /// The number of the signal that ends the program.
    pub(super) stop_signal: u8,
    /// The number of the signal of `reload`; 0 for none.
    pub(super) reload_signal: u8,
    /// The file that the program writes as a sign of life; empty for none.
    pub(super) health_file: Path,
    /// The log; `None` for a program without one.
    pub(super) log: Option<ProgramLog>,
    /// The user of the program.
    pub(super) uid: u32,
    /// The program reports to a socket that it is ready, and not to a descriptor.
    pub(super) notifies: bool,
    /// The version of the file at the last start.
    pub(super) version: Option<FileVersion>,
    /// The program is not in `supervise` any more, and ends.
    pub(super) is_leaving: bool,
    /// The group that the program leads, for the note.
    pub(super) group: Option<NotedGroup>,
}

impl ProgramState {
    /// Returns the state before the file is read.
    pub(super) const fn new() -> Self {
        Self {
            stop_signal: 15,
            reload_signal: 0,
            health_file: Path::empty(),
            log: None,
            uid: 0,
            notifies: false,
            version: None,
            is_leaving: false,
            group: None,
        }
    }

    /// Takes the values of the file.
    pub(super) fn apply(&mut self, program: &Program, config: &Config) {
        (self.stop_signal, self.reload_signal) = (program.stop_signal, program.reload_signal);
        self.health_file.set(&program.health_file);
        self.notifies = program.ready() == ReadyMode::Notify;
        if program.has_no_log() {
            self.log = None;
            return;
        }
        let (path, max, keep, stamp) =
            (&program.log_file, program.log_max, program.log_keep, program.log_time);
        if !self.log.as_mut().is_some_and(|log| log.configure(path, max, keep, stamp)) {
            self.log = Some(ProgramLog::new(path, max, keep, stamp));
        }
        let rule = Judge::of_programs(config).log_rule(path);
        self.log.iter_mut().for_each(|log| log.set_rule(rule));
    }

    /// Returns the signals that end the program. One that SIGSTOP has stopped takes no other signal
    /// until it continues.
    pub(super) fn stop_signals(&self) -> [Signal; 2] {
        [signal_of(self.stop_signal).unwrap_or(Signal::TERM), Signal::CONT]
    }
}

/// Returns the signal of this number.
pub(super) fn signal_of(number: u8) -> Option<Signal> {
    Signal::from_named_raw(number.into())
}
