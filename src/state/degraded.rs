//! The degraded states of all services, as one table.
//!
//! A degraded state is a named condition in which a part of a service does not work and is
//! tried again. The field `degraded` of `status`, the line of SIGUSR2, the status for a service
//! manager, the metric `zigsvc_degraded` and the documents all name the rows of this table.
//! A new state is one row, and the line of the service that sets it.

use crate::proto::service::Service;
use crate::util::text::Writer;

/// The services that can have a degraded state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scope {
    /// Every service.
    Every,
    /// `jobs`.
    Jobs,
    /// `supervisor`.
    Supervisor,
}

macro_rules! degraded_states {
    ($($variant:ident $name:literal $scope:ident $cause:literal $remedy:literal;)*) => {
        /// A degraded state. Its number is its bit in [`DegradedSet`] and its row in the table.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum DegradedState {
            $(#[doc = $cause] $variant),*
        }

        impl DegradedState {
            /// All states, in the order in which they are named to the user.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Returns the name that `status` shows.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// Returns what does not work. The documents repeat this text.
            #[must_use]
            pub const fn cause(self) -> &'static str {
                match self { $(Self::$variant => $cause),* }
            }

            /// Returns what ends the state. The documents repeat this text.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy),* }
            }

            const fn scope(self) -> Scope {
                match self { $(Self::$variant => Scope::$scope),* }
            }
        }
    };
}

degraded_states! {
    Spool "spool" Jobs
        "the spool cannot be written or read, and jobs wait"
        "a disk that works again";
    SpoolFull "spool-full" Jobs
        "the spool's disk has no room for new jobs, and queued jobs continue"
        "free space on that disk";
    SpoolMoved "spool-moved" Jobs
        "the path of the spool leads to other files than the open ones, and no new job is accepted"
        "a free path: the folder as it was, or none on the same filesystem";
    QueueFull "queue-full" Jobs
        "the queue has had no room for new jobs for longer than `stale_after`"
        "jobs that end, `cancel`, or a higher `queue_max`";
    QueueFile "queue-file" Jobs
        "the queue file or its folder cannot be used, and its lines wait"
        "a regular file that the service may rename, in a folder that exists";
    Claims "claims" Jobs
        "a claimed queue file cannot be read or removed, or its writer keeps it open and it has grown above 1 MiB"
        "rights to read and remove it, or the end of the writer";
    Handler "handler" Jobs
        "the handler cannot be executed, and jobs wait without losing an attempt"
        "a handler that exists and can be executed";
    StuckJob "stuck-job" Jobs
        "a process of a job cannot be signalled or does not end by SIGKILL"
        "the end of that process, or `cancel`";
    Held "held" Jobs
        "the queue is held, and no job is started"
        "`zigsvc resume`";
    PidFile "pid-file" Every
        "the PID file cannot be written, or its path leads to another file or to none and it cannot be made again"
        "a folder that can be written, or a restart";
    Log "log" Every
        "the log cannot be written or rotated, or stderr takes nothing, and lines are lost"
        "a folder that exists and can be written, or a reader of stderr";
    Health "health" Every
        "the health file cannot be written"
        "a folder that exists and can be written";
    Socket "socket" Every
        "the socket was deleted and cannot be made again"
        "a folder that exists, and no other file with its name";
    Descriptors "descriptors" Every
        "no more clients can be accepted"
        "a higher limit of open files";
    Inotify "inotify" Jobs
        "there is no inotify, and the queue file is checked each `interval`"
        "a restart on a kernel that has it";
    SyncNever "sync-never" Jobs
        "`sync` is `never`, and a power cut can lose jobs"
        "`sync = \"always\"`";
    Heartbeats "heartbeats" Supervisor
        "the heartbeat of a supervised service cannot be judged, and only its socket or its lock is checked"
        "a health file that the service can write and the supervisor can read, in one PID namespace";
    StuckProcess "stuck-process" Supervisor
        "a supervised process, or one that an earlier supervisor left, does not end by SIGKILL"
        "the end of that process";
    Program "program" Supervisor
        "a program cannot be started, ends again and again, or is not ready in time"
        "a command that can be executed and stays in the foreground; its log says more";
    Watchdog "watchdog" Supervisor
        "the hardware watchdog cannot be opened or fed"
        "a device that no other process holds";
}

impl DegradedState {
    /// Returns true if `service` can have this state.
    #[must_use]
    pub fn applies_to(self, service: Service) -> bool {
        match self.scope() {
            Scope::Every => true,
            Scope::Jobs => service.is(Service::Jobs),
            Scope::Supervisor => service.is(Service::Supervisor),
        }
    }
}

/// A set of degraded states.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct DegradedSet(u32);

impl DegradedSet {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// Returns the set with `state` added if `present`, and without it otherwise.
    #[must_use]
    pub const fn with(self, state: DegradedState, present: bool) -> Self {
        let bit = 1 << state as u32;
        Self(if present { self.0 | bit } else { self.0 & !bit })
    }

    /// Returns true if `state` is in the set.
    #[must_use]
    pub const fn has(self, state: DegradedState) -> bool {
        self.0 & (1 << state as u32) != 0
    }

    /// Returns the states that are in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Writes the names of the states with commas between them, or `none`.
    pub fn push_names(self, out: &mut Writer<'_>) {
        let mut separator = "";
        for state in DegradedState::ALL.iter().filter(|state| self.has(**state)) {
            out.push_str(separator);
            out.push_str(state.name());
            separator = ",";
        }
        out.push_str(if self == Self::NONE { "none" } else { "" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(set: DegradedSet) -> String {
        let mut buffer = [0; 200];
        let mut out = Writer::new(&mut buffer);
        set.push_names(&mut out);
        String::from_utf8(out.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_set_names_its_states_in_the_order_of_the_table() {
        assert_eq!(names(DegradedSet::NONE), "none");
        let set = DegradedSet::NONE.with(DegradedState::SyncNever, true).with(DegradedState::Log, true);
        assert_eq!(names(set), "log,sync-never");
        assert_eq!(names(set.with(DegradedState::Log, false)), "sync-never");
        assert_eq!(
            names(set.union(DegradedSet::NONE.with(DegradedState::Spool, true))),
            "spool,log,sync-never"
        );
    }

    #[test]
    fn every_state_has_a_bit_and_a_name_of_its_own() {
        let mut all = DegradedSet::NONE;
        for state in DegradedState::ALL {
            assert!(!all.has(*state), "{}", state.name());
            all = all.with(*state, true);
            assert_eq!(DegradedState::ALL.iter().filter(|other| other.name() == state.name()).count(), 1);
        }
    }

    #[test]
    fn the_document_lists_every_state_with_its_cause_and_remedy() {
        let document = include_str!("../../docs/control.md");
        let rows = document.split("| degraded | ").nth(1).unwrap().lines().skip(2);
        let rows = rows.take_while(|row| row.starts_with('|'));
        let table = DegradedState::ALL.iter();
        assert!(rows.eq(table.map(|state| format!(
            "| `{}` | {} | {} |",
            state.name(),
            state.cause(),
            state.remedy()
        ))));
    }

    #[cfg(any(all(feature = "jobs", feature = "supervisor"), not(feature = "sys")))]
    #[test]
    fn a_service_has_only_the_states_of_what_it_has() {
        let count = |service| DegradedState::ALL.iter().filter(|state| state.applies_to(service)).count();
        assert_eq!((count(Service::Jobs), count(Service::Hub), count(Service::Supervisor)), (16, 5, 9));
    }
}
