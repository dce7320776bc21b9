//! Parses the lines of /etc/passwd (passwd(5)) and /etc/group (group(5)).

use crate::util::text::parse_u64;

/// Returns uid and gid of a line of /etc/passwd, if its user is called `name` or has the uid
/// `name`.
#[must_use]
pub fn user_named(line: &[u8], name: &[u8]) -> Option<(u32, u32)> {
    let mut fields = line.split(|byte| *byte == b':');
    let (user, _password) = (fields.next()?, fields.next()?);
    let (uid, gid) = (fields.next()?, fields.next()?);
    let wanted = !name.is_empty() && (user == name || uid == name);
    if wanted { Some((parse_id(uid)?, parse_id(gid)?)) } else { None }
}

/// Returns the name and the home of a line of /etc/passwd, if its user is called `name` or has the
/// uid `name`.
#[must_use]
pub fn home_of<'a>(line: &'a [u8], name: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    user_named(line, name)?;
    let mut fields = line.split(|byte| *byte == b':');
    Some((fields.next()?, fields.nth(4)?))
}

/// Returns the gid of a line of /etc/group, if its group is called `name`.
#[must_use]
pub fn group_named(line: &[u8], name: &[u8]) -> Option<u32> {
    let mut fields = line.split(|byte| *byte == b':');
    let (group, _password, gid) = (fields.next()?, fields.next()?, fields.next()?);
    if !name.is_empty() && group == name { parse_id(gid) } else { None }
}

/// Returns the gid of a line of /etc/group, if the user `member` is on its list.
#[must_use]
pub fn group_with_member(line: &[u8], member: &[u8]) -> Option<u32> {
    let mut fields = line.split(|byte| *byte == b':');
    let (_group, _password, gid) = (fields.next()?, fields.next()?, fields.next()?);
    let listed = fields.next()?.split(|byte| *byte == b',').any(|user| user == member);
    if listed && !member.is_empty() { parse_id(gid) } else { None }
}

/// Returns the number in a line of /etc/passwd or /etc/group.
#[must_use]
pub fn number_of(line: &[u8]) -> Option<u32> {
    line.split(|byte| *byte == b':').nth(2).and_then(parse_id)
}

/// Parses a uid or gid. Returns `None` for the highest number of 32 bits, because it means
/// "unchanged" to the kernel (chown(2)).
#[must_use]
pub fn parse_id(field: &[u8]) -> Option<u32> {
    parse_u64(field).and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        let line = b"daemon:x:1:2:daemon:/usr/sbin:/usr/sbin/nologin";
        assert_eq!(user_named(line, b"daemon"), Some((1, 2)));
        assert_eq!(user_named(line, b"1"), Some((1, 2)));
        assert_eq!(user_named(line, b"daemo"), None);
        assert_eq!(user_named(line, b""), None);
        assert_eq!(home_of(line, b"1"), Some((&b"daemon"[..], &b"/usr/sbin"[..])));
        assert_eq!((home_of(line, b"2"), home_of(b"a:x:1:2", b"a")), (None, None));
        assert_eq!(
            (number_of(line), number_of(b"dialout:x:20:alice"), number_of(b"a:x")),
            (Some(1), Some(20), None)
        );
    }

    #[test]
    fn broken_lines_and_the_reserved_id_name_nobody() {
        for line in [&b""[..], b"a", b"a:x", b"a:x:1", b"a:x:-1:1", b"a:x:4294967295:1"] {
            assert_eq!(user_named(line, b"a"), None);
        }
        assert_eq!(group_named(b"a:x:", b"a"), None);
    }

    #[test]
    fn groups_are_found_by_name_and_by_member() {
        let line = b"dialout:x:20:alice,bob";
        assert_eq!(group_named(line, b"dialout"), Some(20));
        assert_eq!(group_named(line, b"dial"), None);
        assert_eq!(group_named(b":x:21:", b""), None);
        assert_eq!(group_with_member(line, b"bob"), Some(20));
        assert_eq!(group_with_member(line, b"bo"), None);
        assert_eq!(group_with_member(b"empty:x:21:", b""), None);
    }
}
