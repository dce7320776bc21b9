//! The vocabulary between the machine of the supervisor and the service that performs its
//! decisions: reports of events, actions to perform, events to log.

use super::probe::{FileVersion, Probe, ProbeError, SocketAnswer};
use crate::proto::config::RestartMode;
use crate::util::time::Duration;

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitReason {
    /// The process exited with this status.
    Code(u8),
    /// This signal killed the process.
    Signal(u8),
    /// The process was not a child of the supervisor, so its status is unknown.
    Unknown,
    /// The process could not be started.
    NotStarted,
}

/// The rules that the configuration sets.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Bad probes in a row after which a process is terminated.
    pub failures: u32,
    /// Time from TERM to KILL.
    pub stop_timeout: Duration,
    /// The oldest heartbeat that is fresh. A start may take `START_PATIENCE` times as
    /// long.
    pub stale_after: Duration,
    /// Time from one probe to the next.
    pub check_interval: Duration,
    /// How long an instance may be unwell before the watchdog is withheld.
    pub watchdog_patience: Duration,
}

/// The rules of a program, which its file sets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProgramRules {
    /// After which ends the program is started again.
    pub restart: RestartMode,
    /// The program reports that it is ready. Otherwise it is ready when it is started.
    pub reports_ready: bool,
    /// Time from the start after which a program that is not ready is late.
    pub start_timeout: Duration,
    /// Time from the stop signal to KILL.
    pub stop_timeout: Duration,
    /// The oldest version of the health file that is fresh.
    pub stale_after: Duration,
    /// The program has a health file.
    pub has_health_file: bool,
}

/// An event that the service reports to an instance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report {
    /// The result of [`Action::Probe`] of a service; `None` if it proves nothing.
    Probe(Option<Probe>),
    /// The result of [`Action::Probe`] of a program: the version of its health file, or
    /// the reason why there is none.
    ProgramFile(Result<FileVersion, ProbeError>),
    /// The result of [`Action::CheckLock`]; `None` if the lock cannot be probed.
    Lock(Option<Probe>),
    /// The result of [`Action::Ask`] or [`Action::Confirm`]. [`SocketAnswer::Silent`] is not reported,
    /// because the instance itself knows how long it waits.
    Answer(SocketAnswer),
    /// An earlier supervisor of the program has left processes in the group of this number.
    Left(u32),
    /// The program, which has ended, has left this process in the background. It ends before the next
    /// start, and with a stop.
    Background(u32),
    /// The child of this PID was started.
    Started(u32),
    /// The process could not be started.
    NotStarted,
    /// The child has reported ready.
    Ready,
    /// The process of this PID has ended. The probe is the state of its lock since then;
    /// `None` if the lock cannot be probed.
    Gone(u32, ExitReason, Option<Probe>),
    /// A user has asked for a change.
    Asked(Request),
    /// The supervisor stops.
    Stop,
    /// The supervisor was asked a second time to stop.
    SecondStop,
}

/// A change of one process that a user asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Start the process now, if it does not run.
    Start,
    /// Stop the process, and do not start it again until it is asked for.
    Stop,
    /// Stop the process, and start it again.
    Restart,
}

/// The action of a decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Do nothing.
    None,
    /// Probe the lock and the health, and report [`Report::Probe`] or [`Report::ProgramFile`].
    Probe,
    /// Probe the lock before a start, and report [`Report::Lock`].
    CheckLock,
    /// Connect to the socket of the process, and report [`Report::Answer`].
    Ask,
    /// Find out if the health file of the process could be written. If not, report
    /// [`SocketAnswer::Unknown`]. Otherwise do as for [`Action::Ask`] if the process has a control
    /// socket, and report [`SocketAnswer::Unreachable`] if it has none.
    Confirm,
    /// Look if the group of this number, which an earlier supervisor has left, has processes. If
    /// not, report [`Report::Gone`].
    Look(u32),
    /// Start the process, and report [`Report::Started`] or [`Report::NotStarted`].
    Start,
    /// Send TERM to this process, if it holds the lock. A program gets its own stop signal.
    Terminate(u32),
    /// Send TERM to this process, because a user has asked the supervisor for its end.
    Dismiss(u32),
    /// Send KILL to this process, if it holds the lock.
    Kill(u32),
}

/// The event of a decision, to be logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// An earlier supervisor has left processes in this group, which get TERM.
    LeftFound(u32),
    /// The processes that an earlier supervisor has left have ended.
    LeftEnded,
    /// This process runs already, and is supervised from now on.
    Adopted(u32),
    /// This process has reported ready.
    Ready(u32),
    /// The first bad probe in a row.
    CheckFailed(ProbeError),
    /// The last bad probe that the rules allow: TERM follows.
    Restarting(ProbeError),
    /// The first good probe after a bad one.
    Recovered,
    /// The first answer of the socket after it did not answer.
    Answered,
    /// The heartbeat of the process is lost, and its socket alone is checked.
    HeartbeatLost(ProbeError),
    /// The process seems to hang, but its socket answers.
    Answering(ProbeError),
    /// A process of another PID namespace runs. It is supervised, and never signalled.
    Foreign,
    /// The process did not end in time: KILL follows.
    Killing,
    /// The process did not end after KILL.
    Unkillable,
    /// The process ended, and is started again after this wait.
    Died(ExitReason, Duration),
    /// The process ended because the supervisor stopped it, and is started again after
    /// this wait.
    Replaced(ExitReason, Duration),
    /// A user stopped the process.
    Stopped,
    /// The program ended, and its rules say that it is not started again.
    Ended(ExitReason),
    /// The program is not ready after its `start_timeout`.
    Late(u32),
}

/// An action to perform, and an event to log first.
pub type Decision = (Action, Option<Event>);

/// The decision that changes nothing.
pub const NOTHING: Decision = (Action::None, None);
