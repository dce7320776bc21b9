//! Decides which rights a client has: the rules of `allow_uid` and `allow_gid`.

use crate::limits::ALLOW_IDS_MAX;
use heapless::Vec;

/// The rights of a client, from the lowest to the highest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Access {
    /// Every request is refused.
    Denied,
    /// Requests that affect no other client and no other client's jobs.
    Guest,
    /// Every request. Root and the service's own user have this.
    Owner,
}

/// The users and groups that may use a socket.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct AccessPolicy {
    /// Every user has [`Access::Guest`] at least.
    pub everybody: bool,
    /// The users that `allow_uid` names.
    pub uids: Vec<u32, ALLOW_IDS_MAX>,
    /// The groups that `allow_gid` names.
    pub gids: Vec<u32, ALLOW_IDS_MAX>,
}

impl AccessPolicy {
    /// Returns the mode of the socket's file.
    #[must_use]
    pub fn mode(&self) -> u32 {
        match (self.uids.len(), self.gids.len()) {
            _ if self.everybody => 0o666,
            (0, 0) => 0o600,
            (0, 1) => 0o660,
            _ => 0o666,
        }
    }

    /// Returns the group of the socket's file, if the mode gives that group more rights
    /// than other users.
    #[must_use]
    pub fn group(&self) -> Option<u32> {
        self.gids.first().copied().filter(|_| self.mode() == 0o660)
    }

    /// Returns the rights of a client with `uid` and `gid`. `own_uid` is the user of the
    /// service. `in_groups` returns true if the client is in one of the given
    /// supplementary groups, and `None` if the kernel cannot answer that.
    pub fn access_of(
        &self,
        uid: u32,
        gid: u32,
        own_uid: u32,
        in_groups: impl FnOnce(&[u32]) -> Option<bool>,
    ) -> Access {
        if uid == 0 || uid == own_uid {
            return Access::Owner;
        }
        let named = self.everybody || self.uids.contains(&uid) || self.gids.contains(&gid);
        // If the kernel cannot answer, the mode of the socket decides, because only members of
        // the group can connect to a socket of mode 0660.
        let is_member = || !self.gids.is_empty() && in_groups(&self.gids).unwrap_or(self.mode() == 0o660);
        if named || is_member() { Access::Guest } else { Access::Denied }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(uids: &[u32], gids: &[u32]) -> AccessPolicy {
        let list = |ids| Vec::from_slice(ids).unwrap();
        AccessPolicy { everybody: false, uids: list(uids), gids: list(gids) }
    }

    const OWN: u32 = 900;

    #[test]
    fn root_and_the_service_may_do_everything_and_others_what_the_lists_say() {
        let policy = policy(&[1000], &[50, 60]);
        let access = |uid, gid, groups: Option<u32>| {
            policy.access_of(uid, gid, OWN, |asked| groups.map(|group| asked.contains(&group)))
        };
        assert_eq!(access(0, 7, Some(7)), Access::Owner);
        assert_eq!(access(OWN, 7, Some(7)), Access::Owner);
        assert_eq!(access(1000, 7, Some(7)), Access::Guest);
        assert_eq!(access(1001, 60, Some(7)), Access::Guest, "its own group is listed");
        assert_eq!(access(1001, 7, Some(50)), Access::Guest, "a supplementary group is listed");
        assert_eq!(access(1001, 7, Some(7)), Access::Denied);
        assert_eq!(access(1001, 7, None), Access::Denied, "the mode lets everybody connect");
        assert!(Access::Denied < Access::Guest && Access::Guest < Access::Owner);
    }

    #[test]
    fn where_the_kernel_cannot_tell_groups_the_mode_of_the_socket_counts() {
        let one = policy(&[], &[50]);
        assert_eq!((one.mode(), one.group()), (0o660, Some(50)));
        assert_eq!(one.access_of(1001, 7, OWN, |_| None), Access::Guest);
        assert_eq!(one.access_of(1001, 7, OWN, |_| Some(false)), Access::Denied);
    }

    #[test]
    fn the_mode_lets_in_as_few_as_the_lists_allow() {
        assert_eq!((policy(&[], &[]).mode(), policy(&[], &[]).group()), (0o600, None));
        assert_eq!((policy(&[1], &[]).mode(), policy(&[1], &[]).group()), (0o666, None));
        assert_eq!((policy(&[1], &[2]).mode(), policy(&[1], &[2]).group()), (0o666, None));
        assert_eq!((policy(&[], &[2, 3]).mode(), policy(&[], &[2, 3]).group()), (0o666, None));
        let everybody = AccessPolicy { everybody: true, ..policy(&[], &[2]) };
        assert_eq!((everybody.mode(), everybody.group()), (0o666, None));
        assert_eq!(everybody.access_of(1001, 7, OWN, |_| Some(false)), Access::Guest);
        assert_eq!(policy(&[], &[]).access_of(1001, 7, OWN, |_| Some(true)), Access::Denied);
    }
}
