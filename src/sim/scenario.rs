//! The kinds of events in a run with their rates, and the line that names a run. The same line gives the same run.

use std::fmt::{self, Display, Formatter};

macro_rules! kinds {
    ($($variant:ident $name:literal $mean:literal $about:literal;)*) => {
        /// A kind of event. Each is counted when it has had an effect.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub(super) enum Kind {
            $(#[doc = $about] $variant),*
        }

        impl Kind {
            pub(super) const ALL: &[Self] = &[$(Self::$variant),*];

            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// Returns the mean time between two events in seconds. Zero: another event decides if
            /// this one follows.
            pub(super) fn mean_secs(self) -> u64 {
                match self { $(Self::$variant => $mean),* }
            }
        }
    };
}

// The place of a kind is the number of its stream. A new one is the last, so that each seed stays the run
// that it was.
kinds! {
    AddJobs "add-jobs" 25 "a client adds jobs, many at a time";
    AddDelayed "add-delayed" 90 "a client adds jobs that are due later";
    WriteLines "write-lines" 40 "a writer appends lines to the queue file and syncs them";
    KeepWriter "keep-writer" 240 "a writer keeps the queue file open, and appends to it again";
    Wait "wait" 60 "a client waits for the end of a job";
    List "list" 120 "a client reads a page of the queue";
    Cancel "cancel" 120 "a client cancels a job";
    Retry "retry" 300 "a client has a dead job run again";
    Forget "forget" 400 "a client removes a dead job";
    RetryAll "retry-all" 1800 "a client has all dead jobs run again";
    ForgetAll "forget-all" 3600 "a client removes all dead jobs";
    Hold "hold" 900 "a client holds the queue, and resumes it later";
    Drain "drain" 4000 "a client drains the service";
    StopRequest "stop-request" 4000 "a client stops the service";
    Watch "watch" 900 "a client watches the events";
    Vanish "vanish" 600 "a client leaves without its answers";
    Garbage "garbage" 600 "a client sends requests that are none";
    JobFails "job-fails" 0 "a handler exits with another status than 0";
    JobHangs "job-hangs" 0 "a handler runs until it is ended";
    JobIgnoresTerm "job-ignores-term" 0 "a handler ends by KILL only";
    JobUnkillable "job-unkillable" 0 "a handler does not end by KILL for a while";
    JobForks "job-forks" 0 "a handler leaves a process in its group";
    JobRejected "job-rejected" 0 "a job names nothing that can be executed";
    Stranger "stranger" 20 "another program starts a process for a while";
    NumberAgain "number-again" 0 "a process gets the number of one that has ended";
    HandlerMissing "handler-missing" 1200 "the handler cannot be started for a while";
    Terminate "terminate" 2400 "an operator stops the service and starts it again";
    TerminateTwice "terminate-twice" 4000 "an operator stops the service at once";
    Reload "reload" 1500 "the configuration changes";
    Kill "kill" 1500 "the service is killed between two turns";
    KillInTurn "kill-in-turn" 600 "the service is killed at an operation of the disk";
    PowerCut "power-cut" 2400 "the power is cut";
    PowerCutInTurn "power-cut-in-turn" 1800 "the power is cut at an operation of the disk";
    NoSpace "no-space" 1800 "the disk is full";
    OverQuota "over-quota" 3000 "the quota is used up";
    FileTooBig "file-too-big" 3600 "the journal reaches a limit of the size of files";
    NoInodes "no-inodes" 3600 "no file can be made";
    CopyOnWrite "copy-on-write" 3600 "a full disk takes no write at all";
    IoOnce "io-once" 900 "one operation of the disk fails";
    IoError "io-error" 2400 "each operation of the disk fails for a while";
    ReadOnly "read-only" 3000 "the filesystem is read-only for a while";
    SyncFails "sync-fails" 1500 "syncs fail, and the kernel forgets what it should have written";
    FolderSyncFails "folder-sync-fails" 1500 "a sync of the folder fails";
    QueueSyncFails "queue-sync-fails" 3000 "syncs of the folder of the queue file fail";
    SlowDisk "slow-disk" 2400 "each sync takes a second";
    FrozenDisk "frozen-disk" 5000 "a sync takes a minute";
    ClaimsFail "claims-fail" 2400 "claims cannot be read";
    RenameFails "rename-fails" 2400 "the queue file cannot be renamed";
    SpoolAway "spool-away" 2400 "the folder of the spool is moved away, and comes back";
    SpoolRemoved "spool-removed" 3600 "the folder of the spool is removed";
    SpoolReplaced "spool-replaced" 3600 "another spool is mounted over it for a while";
    LogFails "log-fails" 2400 "the log takes no lines for a while";
    WallStep "wall-step" 3000 "the wall clock is stepped";
    WallUnset "wall-unset" 0 "the board starts in 1970, and its clock is set later";
    Suspend "suspend" 3600 "the board is suspended";
    ProcessEnds "process-ends" 90 "a supervised process ends by itself";
    ProcessSignalled "process-signalled" 200 "a stranger sends TERM or KILL to a process";
    ProcessHangs "process-hangs" 300 "a process makes no more turns, perhaps for a while";
    ProcessFrozen "process-frozen" 500 "SIGSTOP stops a process, perhaps for a while";
    QueueFull "queue-full" 900 "the queue of connections of a process is full, or empty again";
    IgnoresTerm "ignores-term" 0 "a process ends by KILL only";
    Unkillable "unkillable" 0 "a process does not end by KILL for a while";
    NeverReady "never-ready" 0 "a process does not report that it is ready";
    SlowStart "slow-start" 0 "a process is ready after a minute";
    QuickEnd "quick-end" 0 "a process ends soon after its start";
    Daemonizes "daemonizes" 0 "a program runs in the background";
    SecondInstance "second-instance" 900 "a service is started twice, and its lock refuses one";
    OtherClock "other-clock" 0 "a service is in another time namespace";
    CommandMissing "command-missing" 700 "the command of a program cannot be executed for a while";
    UserStops "user-stops" 250 "a user stops a process";
    UserStarts "user-starts" 200 "a user starts a process";
    UserRestarts "user-restarts" 500 "a user restarts a process";
    StopOutside "stop-outside" 500 "a user stops a service without the supervisor's socket";
    StartOutside "start-outside" 300 "a user starts a service without the supervisor's socket";
    StartForeign "start-foreign" 900 "a user starts a service in another PID namespace";
    SupervisorKilled "supervisor-killed" 700 "the supervisor is killed";
    SupervisorStops "supervisor-stops" 1800 "an operator stops the supervisor and starts it again";
    SupervisorStopsTwice "supervisor-stops-twice" 4000 "an operator stops the supervisor at once";
    SupervisorLeaves "supervisor-leaves" 3000 "the supervisor leaves its services running";
    NewRules "new-rules" 1200 "the configuration of the supervisor changes";
    NewSet "new-set" 600 "a name is taken into or out of `supervise`";
    HealthRemoved "health-removed" 500 "a health file is removed";
    HealthGarbage "health-garbage" 800 "a health file is overwritten by another program";
    HealthDenied "health-denied" 1200 "a process may not write its health file for a while";
    NoNewFiles "no-new-files" 1800 "no file can be made in /run for a while";
    NoWrites "no-writes" 2400 "no file in /run can be written for a while";
    NoDescriptors "no-descriptors" 2400 "the supervisor has no more descriptors for a while";
    DeviceFails "device-fails" 3000 "the device of the watchdog fails for a while";
    LongTurn "long-turn" 1500 "one turn of the supervisor takes long";
    Sleep "sleep" 1800 "the board of a supervisor is suspended";
    PowerLost "power-lost" 3600 "the board of a supervisor loses its power";
    OtherProcess "other-process" 20 "another program starts a process beside those of a supervisor";
    WatchdogResets "watchdog-resets" 0 "the watchdog resets the board";
    WriteTail "write-tail" 300 "a writer appends a line without its end";
    Upgrade "upgrade" 0 "the journal is one of the version before";
}

/// A simulated board.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// The service `jobs`, with its disk and its clients.
    Jobs,
    /// The supervisor, with its services and programs.
    Supervisor,
}

impl Part {
    pub(super) const ALL: [Self; 2] = [Self::Jobs, Self::Supervisor];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Jobs => "jobs",
            Self::Supervisor => "supervisor",
        }
    }
}

impl Kind {
    /// Returns true if the kind happens to the board of a supervisor.
    pub(super) fn is_of_supervisor(self) -> bool {
        (Self::ProcessEnds..=Self::WatchdogResets).contains(&self)
    }
}

/// See the module's documentation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Scenario {
    pub(super) part: Part,
    pub(super) seed: u64,
    /// Length of the run in seconds, before everything is made well.
    pub(super) secs: u64,
    /// Nothing happens but jobs before this second.
    pub(super) calm: u64,
    /// The kinds that are left out.
    pub(super) without: Vec<Kind>,
}

impl Scenario {
    pub(super) fn new(part: Part, seed: u64, secs: u64) -> Self {
        Self { part, seed, secs, calm: 0, without: Vec::new() }
    }

    pub(super) fn has(&self, kind: Kind) -> bool {
        !self.without.contains(&kind)
    }

    /// Parses the line that [`Display`] writes.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub(super) fn parse(line: &str) -> Result<Self, String> {
        let mut scenario = Self::new(Part::Jobs, 0, 3600);
        for word in line.split_whitespace() {
            let (key, value) = word.split_once('=').ok_or(format!("{word:?} is not KEY=VALUE"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("{word:?}: {value:?} is no number"));
            match key {
                "board" => {
                    let part = Part::ALL.into_iter().find(|part| part.name() == value);
                    scenario.part = part.ok_or(format!("{value:?} is no board"))?;
                }
                "seed" => scenario.seed = number()?,
                "secs" => scenario.secs = number()?,
                "calm" => scenario.calm = number()?,
                "without" => {
                    for name in value.split(',') {
                        let kind = Kind::ALL.iter().find(|kind| kind.name() == name);
                        scenario.without.push(*kind.ok_or(format!("{name:?} is no kind of event"))?);
                    }
                }
                _ => return Err(format!("{key:?} is not board, seed, secs, calm or without")),
            }
        }
        Ok(scenario)
    }
}

impl Display for Scenario {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        write!(out, "board={} seed={} secs={}", self.part.name(), self.seed, self.secs)?;
        if self.calm > 0 {
            write!(out, " calm={}", self.calm)?;
        }
        for (index, kind) in self.without.iter().enumerate() {
            write!(out, "{}{}", if index == 0 { " without=" } else { "," }, kind.name())?;
        }
        Ok(())
    }
}
