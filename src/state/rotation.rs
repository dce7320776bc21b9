//! Log rotation as a list of renames. A crash may happen after each of them.
//!
//! ```text
//! log.3 ▶ deleted   log.2 ▶ log.3   log.1 ▶ log.2   log ▶ log.1   new log
//! ```
//!
//! Only the files below the first gap are moved. A rotation that a crash interrupted leaves a
//! gap, and the next one fills it instead of deleting the oldest file. Thus no file is deleted
//! before `keep` newer ones exist.

/// The next action of a rotation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RotationAction {
    /// Check if `log.N` exists, and call [`Rotation::found`].
    Look(u32),
    /// Rename `log.N` to `log.N+1`, where N = 0 is the log itself, and call
    /// [`Rotation::renamed`].
    Rename(u32),
    /// Open a new log. The rotation has ended.
    Reopen,
}

/// A rotation in progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rotation {
    keep: u32,
    state: RotationState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RotationState {
    /// Searching for the first gap. Holds the number to check next.
    Looking(u32),
    /// Renaming the files below the gap. Holds the number to rename next.
    Moving(u32),
    Done,
}

impl Rotation {
    /// Starts a rotation that keeps `keep` old files, at least one.
    #[must_use]
    pub fn new(keep: u32) -> Self {
        Self { keep: keep.max(1), state: RotationState::Looking(1) }
    }

    /// Returns the next action.
    #[must_use]
    pub fn next_action(&self) -> RotationAction {
        match self.state {
            RotationState::Looking(number) => RotationAction::Look(number),
            RotationState::Moving(number) => RotationAction::Rename(number),
            RotationState::Done => RotationAction::Reopen,
        }
    }

    /// Records the result of [`RotationAction::Look`].
    pub fn found(&mut self, exists: bool) {
        if let RotationState::Looking(number) = self.state {
            // The oldest file that is kept counts as a gap, because it is replaced.
            self.state = if exists && number < self.keep {
                RotationState::Looking(number.saturating_add(1))
            } else {
                RotationState::Moving(number.saturating_sub(1))
            };
        }
    }

    /// Records that [`RotationAction::Rename`] has succeeded.
    pub fn renamed(&mut self) {
        if let RotationState::Moving(number) = self.state {
            self.state = number.checked_sub(1).map_or(RotationState::Done, RotationState::Moving);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A folder: the content of each file by its number. The log has the number 0.
    type Folder = BTreeMap<u32, u32>;

    /// Rotates, and stops after `steps` renames as a crash would. Returns true if the rotation
    /// has ended.
    fn rotate(folder: &mut Folder, keep: u32, steps: u32) -> bool {
        let mut rotation = Rotation::new(keep);
        let mut done = 0;
        loop {
            match rotation.next_action() {
                RotationAction::Look(number) => rotation.found(folder.contains_key(&number)),
                RotationAction::Rename(number) => {
                    if done == steps {
                        return false;
                    }
                    if let Some(content) = folder.remove(&number) {
                        folder.insert(number + 1, content);
                    }
                    rotation.renamed();
                    done += 1;
                }
                RotationAction::Reopen => return true,
            }
        }
    }

    #[test]
    fn the_newest_files_are_kept_in_order() {
        let mut folder = Folder::new();
        for content in 0..10 {
            folder.insert(0, content);
            assert!(rotate(&mut folder, 3, u32::MAX));
        }
        assert_eq!(folder, Folder::from([(1, 9), (2, 8), (3, 7)]));
    }

    #[test]
    fn keeping_one_replaces_it() {
        let mut folder = Folder::from([(0, 5), (1, 4)]);
        assert!(rotate(&mut folder, 1, u32::MAX));
        assert_eq!(folder, Folder::from([(1, 5)]));
    }

    #[test]
    fn a_crash_after_any_step_loses_nothing_that_is_to_be_kept() {
        for keep in 1..6 {
            for steps in 0..=keep {
                let mut folder: Folder = (0..=keep).map(|number| (number, 100 - number)).collect();
                let finished = rotate(&mut folder, keep, steps);
                // The service starts again and logs. It starts a new log if the crash came
                // after the log was renamed.
                if finished || !folder.contains_key(&0) {
                    folder.insert(0, 101);
                }
                let before: Vec<u32> = folder.values().copied().collect();
                assert!(before.contains(&100), "keep {keep}, step {steps}: the newest line");
                rotate(&mut folder, keep, u32::MAX);
                let kept = folder.len();
                assert!(kept >= before.len() - 1, "keep {keep}, step {steps}: {before:?} {folder:?}");
                let contents: Vec<u32> = folder.values().copied().collect();
                assert!(contents.is_sorted_by(|a, b| a > b), "order: {folder:?}");
            }
        }
    }

    #[test]
    fn nothing_is_pushed_out_while_there_is_a_gap() {
        let mut folder = Folder::from([(0, 9), (2, 7), (3, 6)]);
        assert!(rotate(&mut folder, 3, u32::MAX));
        assert_eq!(folder, Folder::from([(1, 9), (2, 7), (3, 6)]));
    }

    #[test]
    fn answers_out_of_turn_change_nothing() {
        let mut rotation = Rotation::new(2);
        let before = rotation;
        rotation.renamed();
        assert_eq!(rotation, before);
        rotation.found(false);
        let moving = rotation;
        rotation.found(true);
        assert_eq!(rotation, moving);
    }
}
