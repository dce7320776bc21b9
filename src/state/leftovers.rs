//! Decides if a process is one that an earlier run of a service left.

use crate::proto::leftovers::{Mark, NoteHead, NotedGroup};
use crate::util::time::{Duration, Instant};

/// A process as proc(5) shows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessView {
    /// Its PID.
    pub pid: u32,
    /// Its process group.
    pub group: u32,
    /// Its session.
    pub session: u32,
    /// The beginning of the clock tick in which it started.
    pub started: Instant,
}

/// Returns true if the groups of a note can have processes: the note is of this boot and of this
/// PID namespace. A number that is not known matches none, because numbers repeat.
#[must_use]
pub fn is_current(note: &NoteHead, here: &NoteHead) -> bool {
    note.boot == here.boot && note.namespace == here.namespace && here.namespace != 0
}

/// Returns true if `process` belongs to `group`: it is the leader and started when the leader
/// did, or it is in the group and in the session of the leader and did not start before it. A
/// start is known to be within one `tick`. A process with the mark of another service is none.
#[must_use]
pub fn belongs(process: &ProcessView, mark: Mark, group: &NotedGroup, tick: Duration) -> bool {
    let not_before = group.from.is_before(process.started + tick);
    let not_after = !group.upto.is_before(process.started);
    let is_leader = process.pid == group.number && not_after;
    let is_member = process.group == group.number && process.session == group.session;
    // The leader of a group of this number is another process if it started later.
    let is_other_leader = process.pid == group.number && !not_after;
    not_before && (is_leader || is_member && !is_other_leader) && mark != Mark::Other
}

/// Returns true if `process` has the number of `group` and started later than its leader. A number
/// is given again only when no process has it for its group or session, so nothing is left.
fn has_taken_number(process: &ProcessView, group: &NotedGroup) -> bool {
    process.pid == group.number && group.upto.is_before(process.started)
}

/// Looks among all processes for one that belongs to a group.
pub struct MemberSearch<'g> {
    group: &'g NotedGroup,
    /// Only a process with the token of the group counts.
    needs_token: bool,
    tick: Duration,
    found: bool,
    /// Another process has the number of the group.
    taken: bool,
}

impl<'g> MemberSearch<'g> {
    /// Returns a search that has seen no process. A start is known to be within one `tick`.
    #[must_use]
    pub const fn new(group: &'g NotedGroup, needs_token: bool, tick: Duration) -> Self {
        Self { group, needs_token, tick, found: false, taken: false }
    }

    /// Looks at the next process. `mark` reads its environment, which only few processes need.
    pub fn look(&mut self, process: &ProcessView, mark: impl FnOnce() -> Mark) {
        self.taken |= has_taken_number(process, self.group);
        self.found |= !self.taken && belongs(process, Mark::Nothing, self.group, self.tick) && {
            let mark = mark();
            mark == Mark::Token || mark == Mark::Nothing && !self.needs_token
        };
    }

    /// Returns true if a process of the group was seen.
    #[must_use]
    pub const fn has_found(&self) -> bool {
        self.found && !self.taken
    }
}

/// Returns true if `process` is one that the leader of `group` has left, where its mark is the token:
/// another process that started after the leader.
#[must_use]
pub fn is_later_than(process: &ProcessView, group: &NotedGroup, tick: Duration) -> bool {
    process.pid != group.number && group.from.is_before(process.started + tick)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: NotedGroup = NotedGroup {
        number: 500,
        session: 40,
        job: 7,
        from: Instant::from_ms(10_005),
        upto: Instant::from_ms(10_012),
        token: [b'0'; 32],
    };

    fn process(pid: u32, group: u32, session: u32, started: u64) -> ProcessView {
        ProcessView { pid, group, session, started: Instant::from_ms(started) }
    }

    #[test]
    fn a_process_belongs_to_a_group_by_place_and_time_and_mark() {
        let tick = Duration::from_ms(10);
        for (seen, expected) in [
            // The leader, in the tick of its start or the next one.
            (process(500, 500, 40, 10_000), true),
            (process(500, 500, 40, 10_010), true),
            // The leader that went to another group or session.
            (process(500, 2, 2, 10_000), true),
            // Another process with its number, before it or after it.
            (process(500, 500, 40, 9_990), false),
            (process(500, 500, 40, 10_020), false),
            (process(500, 3, 3, 99_990), false),
            // A member, at any later time.
            (process(501, 500, 40, 10_000), true),
            (process(501, 500, 40, 999_990), true),
            // A process of an earlier group of this number, or of another session.
            (process(501, 500, 40, 9_990), false),
            (process(501, 500, 41, 10_010), false),
            (process(501, 501, 40, 10_010), false),
        ] {
            assert_eq!(belongs(&seen, Mark::Token, &GROUP, tick), expected, "{seen:?}");
            assert_eq!(belongs(&seen, Mark::Nothing, &GROUP, tick), expected, "{seen:?}");
            assert!(!belongs(&seen, Mark::Other, &GROUP, tick), "{seen:?}");
        }
    }

    #[test]
    fn a_later_process_with_the_number_of_a_group_shows_that_nothing_is_left() {
        assert!(has_taken_number(&process(500, 500, 500, 10_013), &GROUP));
        assert!(has_taken_number(&process(500, 1, 1, 10_013), &GROUP));
        assert!(!has_taken_number(&process(500, 500, 40, 10_010), &GROUP), "the leader");
        assert!(!has_taken_number(&process(501, 500, 40, 10_013), &GROUP));
    }

    #[test]
    fn a_note_of_another_boot_or_namespace_or_of_an_unknown_one_names_nothing() {
        let here = NoteHead { boot: [b'b'; 36], namespace: 5 };
        assert!(is_current(&here, &here));
        assert!(!is_current(&NoteHead { boot: [b'c'; 36], ..here }, &here));
        assert!(!is_current(&NoteHead { namespace: 6, ..here }, &here));
        let unknown = NoteHead { namespace: 0, ..here };
        assert!(!is_current(&unknown, &unknown));
    }
}
