//! The actions that the machine of a turn asks the service for, and the state of the machine.

use super::timers::HandlerSignal;
use crate::state::disk::{DiskError, DiskResult, Obstacle};
use crate::state::spool::{Damage, QueueNotice, RecordLocation};
use crate::state::window::Slot;

/// The next thing that the service does in a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TurnAction {
    /// Write the log out, and call `JobsCore::log_flushed`.
    FlushLog,
    /// Answer the clients that wait for the end of a job that has ended.
    NotifyWaiters,
    /// Take the requests of clients, and call `JobsCore::clients_served`.
    ServeClients,
    /// Send the replies that waited for the commit.
    Reply {
        /// Whether the new jobs are durable.
        jobs: DiskResult,
        /// Whether everything else is.
        edits: DiskResult,
    },
    /// Log that this dead job is dropped, with its text, because there are too many.
    LogDropped(RecordLocation),
    /// Put the job into the log. Call `JobsCore::handler_refused` if its text cannot be
    /// read.
    LogJob(Slot),
    /// Start the handler of the job, and call `JobsCore::handler_started`,
    /// `JobsCore::handler_refused`, `JobsCore::job_rejected` or `JobsCore::handler_failed`.
    StartHandler(Slot),
    /// Send a signal to a handler.
    Signal(HandlerSignal),
    /// Nothing of the old queue file is open: turn to the new one.
    SwitchQueueFile,
    /// Log this.
    Notice(TurnNotice),
}

/// A fact that the service logs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TurnNotice {
    /// The disk failed.
    DiskFailed(DiskError),
    /// The disk works again.
    DiskWorks,
    /// The disk has no room for new jobs.
    NoSpace {
        /// Why a new job was refused.
        error: DiskError,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are kept for the jobs that are there.
        reserved: u64,
    },
    /// The disk has room for new jobs again.
    SpaceWorks,
    /// The journal could not be written again.
    CompactionFailed(DiskError),
    /// Damage was met, and a compaction has left it out.
    Damaged(Damage),
    /// The path of the journal does not lead to the open journal.
    SpoolMoved,
    /// The spool cannot be made again at its path.
    SpoolTaken(Obstacle),
    /// The path of the journal leads to the open journal again.
    SpoolBack {
        /// The service has made the spool again.
        made_again: bool,
    },
    /// The queue file or a claim fails, or works again.
    Queue(QueueNotice),
    /// The queue is full, and has refused new jobs for too long.
    QueueFull,
    /// A job of the full queue has ended, or new jobs are accepted again.
    QueueMoves,
}

/// The needs of the clients in the rest of the turn.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct ClientNeeds {
    /// A reply waits for a commit.
    pub commit: bool,
    /// A page of the journal is being sent: the journal must stay as it is.
    pub paging: bool,
}

/// The next stage of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TurnStep {
    /// The turn has ended.
    Idle,
    /// Choose the jobs whose starts are written together with the ends of others.
    Settle,
    /// Write the pending records of the window.
    Record,
    /// Read lines of the queue file.
    Ingest,
    /// Take the requests of clients.
    Serve,
    /// Make durable what must be.
    Commit,
    /// Remove the claims whose lines are durable.
    Committed,
    /// Do the next step of a spool that was moved.
    Home,
    /// Continue a compaction, or begin one.
    Compact,
    /// Report what a compaction found damaged.
    Damage,
    /// Report what fails of the queue file and its claims.
    QueueNotice,
    /// Look for a dead job that is to be dropped.
    Oldest,
    /// Drop that job.
    Drop,
    /// Turn to another queue file.
    QueueFile,
    /// Release the delayed jobs that are due.
    Due,
    /// Fill the window, and choose the jobs that run.
    Run,
    /// Log the jobs whose handler is the log.
    Log,
    /// Record the ends of the jobs that are in the log.
    Logged,
    /// Write the starts of the chosen jobs.
    RecordStarts,
    /// Start their handlers.
    Start,
    /// Write the ends of those that could not be started.
    Refused,
    /// Judge the disk by this turn.
    Health,
    /// Judge its free space.
    Space,
    /// Judge the room of the queue.
    Room,
}

/// The turn under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) step: TurnStep,
    /// The disk failed a moment ago, and is left alone.
    pub(super) resting: bool,
    /// Jobs were read from the queue file.
    pub(super) ingested: bool,
    pub(super) needs: ClientNeeds,
    /// This turn commits.
    pub(super) commits: bool,
    /// The last [`TurnAction::FlushLog`] succeeded.
    pub(super) log_written: bool,
    /// Dead jobs that were dropped.
    pub(super) dropped: u32,
    /// The dead job that is dropped next.
    pub(super) oldest: RecordLocation,
    /// The next slot of the window that is looked at for a start.
    pub(super) next_slot: usize,
    /// Result of the pending records at the begin of the turn.
    pub(super) written: DiskResult,
    /// Result of new jobs, of the queue file and of clients.
    pub(super) new_jobs: DiskResult,
    /// Result of the commit.
    pub(super) committed: DiskResult,
    /// Result of the starts.
    pub(super) run: DiskResult,
}

impl Turn {
    /// No turn is under way.
    pub(super) const NONE: Self = Self {
        step: TurnStep::Idle,
        resting: false,
        ingested: false,
        needs: ClientNeeds { commit: false, paging: false },
        commits: false,
        log_written: false,
        dropped: 0,
        oldest: RecordLocation { id: 0, attempt: 0, offset: 0, size: 0, dead: false, due: None },
        next_slot: 0,
        written: Ok(()),
        new_jobs: Ok(()),
        committed: Ok(()),
        run: Ok(()),
    };

    /// Returns true if the disk took the pending records, and is not left alone.
    pub(super) fn is_disk_good(&self) -> bool {
        self.written.is_ok() && !self.resting
    }
}
