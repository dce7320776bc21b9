//! Decides which files and folders a service trusts. Each component of a path is judged in the
//! order of the walk, from `/` to the file, and the first untrusted one ends the walk.
//!
//! | component | trusted if | judged for |
//! | --- | --- | --- |
//! | folder | root or `user` owns it, and no other user may write to it | every path |
//! | folder, sticky | the same, or the next component belongs to root or `user` | folders on the way |
//! | folder, writable for its group | only on the way to sockets, PID files, health files, logs; and the folder of a shared queue | |
//! | link | root or `user` owns it | every path |
//! | configuration | root owns it, or `user` where root named both; and no other user may write to it | |
//! | log | root or `user` owns it, other users may not write to it, and it has one name where others can make a second one | |
//! | other file | root or `user` owns it | files in a sticky folder |
//!
//! These are the rules of a process of root. Any other user judges only the folder that holds
//! the file, and its own primary group counts as itself.
//!
//! Changing this: `service/trust.rs` walks, and opens by the descriptors of the walk.

/// The kind of a component of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ComponentKind {
    /// A directory.
    Folder,
    /// A symbolic link.
    Link,
    /// A regular file.
    Regular,
    /// A device, which other users can write without a change of what it is.
    Device,
    /// A FIFO or a socket.
    Other,
}

/// The attributes of a component of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Component {
    /// The kind.
    pub kind: ComponentKind,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The permission bits, as `0o7777` masks them.
    pub mode: u32,
    /// The number of names.
    pub links: u32,
}

/// The use of a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// The configuration file.
    Config,
    /// The folder of the spool, or that of `-d`.
    Spool,
    /// The folder of the queue file, which nothing else uses.
    Queue,
    /// A log.
    Log,
    /// A PID file, a health file or a socket.
    Runtime,
    /// An entry of `allow`, which a link leads to.
    Allowed,
}

/// The place of a component in its path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Position {
    /// Other folders follow.
    Way,
    /// The folder that holds the file, or the folder that is the end of the path.
    Folder,
    /// The file.
    File,
}

/// The reason why a component is not trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrustFault {
    /// Another user owns it.
    Owner,
    /// A group may write to it.
    Group,
    /// All users may write to it.
    Others,
    /// The file has a second name.
    SecondName,
    /// A link of `user` leads to a folder of another user.
    LeavesUser,
}

/// The users whose files are trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrustRule {
    /// The effective user of this process.
    pub euid: u32,
    /// The effective group of this process.
    pub egid: u32,
    /// The user that the service changes to.
    pub user: Option<u32>,
    /// A configuration may belong to `user`.
    pub user_configures: bool,
    /// The user as which unmapped users are shown, if `/` belongs to it. It counts as root.
    pub overflow_uid: Option<u32>,
}

/// The walk along one path.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TrustWalk {
    /// The last folder is sticky, and other users may write to it.
    in_sticky: bool,
    /// A folder or a link on the way belongs to `user`.
    pub is_of_user: bool,
    /// A link on the way belongs to `user`.
    follows_user: bool,
    /// Another user may write to the last folder, and give any file a second name there.
    is_shared: bool,
}

impl TrustRule {
    /// Returns true if root, or the user of this process, owns a file of `uid`.
    fn is_own(&self, uid: u32) -> bool {
        uid == 0 || uid == self.euid || Some(uid) == self.overflow_uid
    }

    fn is_trusted(&self, uid: u32) -> bool {
        self.is_own(uid) || Some(uid) == self.user
    }
}

impl TrustWalk {
    /// Judges the next component of a path to a `subject`.
    ///
    /// # Errors
    /// The reason why the component is not trusted.
    pub fn judge(
        &mut self,
        rule: &TrustRule,
        subject: Subject,
        position: Position,
        component: &Component,
    ) -> Result<(), TrustFault> {
        let in_sticky = core::mem::take(&mut self.in_sticky);
        let is_root = rule.euid == 0;
        if position == Position::Way && !is_root && !in_sticky && subject != Subject::Allowed {
            return Ok(());
        }
        if position == Position::File {
            return self.judge_file(rule, subject, in_sticky, component);
        }
        if component.kind != ComponentKind::Link {
            self.is_shared = component.mode & 0o022 != 0 || !rule.is_own(component.uid);
        }
        if !rule.is_trusted(component.uid) {
            return Err(TrustFault::Owner);
        }
        let leaves = self.follows_user && rule.user != Some(component.uid);
        if leaves && subject == Subject::Runtime && position == Position::Folder {
            return Err(TrustFault::LeavesUser);
        }
        self.is_of_user |= is_root && !rule.is_own(component.uid);
        if component.kind == ComponentKind::Link {
            self.follows_user |= is_root && !rule.is_own(component.uid);
            return Ok(());
        }
        self.judge_writers(rule, subject, position, component)
    }

    /// Judges the users who may write to a folder.
    fn judge_writers(
        &mut self,
        rule: &TrustRule,
        subject: Subject,
        position: Position,
        folder: &Component,
    ) -> Result<(), TrustFault> {
        let is_end = position == Position::Folder;
        let is_own_group = rule.euid != 0 && folder.gid == rule.egid;
        let group_counts = match subject {
            Subject::Config | Subject::Spool | Subject::Allowed => true,
            Subject::Queue => !is_end,
            Subject::Log | Subject::Runtime => false,
        };
        let others = folder.mode & 0o002 != 0;
        let group = folder.mode & 0o020 != 0 && group_counts && !is_own_group;
        let is_sticky = folder.mode & 0o1000 != 0;
        let holds_all = is_end && matches!(subject, Subject::Spool | Subject::Queue);
        match (others || group, is_sticky && !holds_all) {
            (false, _) => Ok(()),
            (true, true) => {
                self.in_sticky = true;
                Ok(())
            }
            (true, false) => Err(if others { TrustFault::Others } else { TrustFault::Group }),
        }
    }

    fn judge_file(
        &self,
        rule: &TrustRule,
        subject: Subject,
        in_sticky: bool,
        file: &Component,
    ) -> Result<(), TrustFault> {
        let is_root = rule.euid == 0;
        let (owned, counts) = match subject {
            Subject::Config if rule.user_configures => (rule.is_trusted(file.uid), true),
            Subject::Config => (rule.is_own(file.uid), true),
            Subject::Log => (rule.is_trusted(file.uid), is_root || in_sticky),
            _ => (rule.is_trusted(file.uid), in_sticky),
        };
        if counts && !owned {
            return Err(TrustFault::Owner);
        }
        if matches!(file.kind, ComponentKind::Device | ComponentKind::Link) {
            return Ok(());
        }
        let is_own_group = !is_root && file.gid == rule.egid;
        let group = file.mode & 0o020 != 0 && subject == Subject::Config && !is_own_group;
        let others = file.mode & 0o002 != 0 && (subject == Subject::Config || counts);
        let is_planted = match subject {
            // The owner of a folder on the way may have given a file of root a second name.
            Subject::Config => self.is_of_user,
            Subject::Log => is_root && self.is_shared,
            _ => false,
        };
        if others && matches!(subject, Subject::Config | Subject::Log) {
            Err(TrustFault::Others)
        } else if group {
            Err(TrustFault::Group)
        } else if is_planted && file.kind == ComponentKind::Regular && file.links > 1 {
            Err(TrustFault::SecondName)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
