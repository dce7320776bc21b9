//! The files that the opener hands out: the texts of `allow`, and the target of each of
//! them when the configuration was loaded. A request is one of these texts, byte for byte,
//! or it is denied.
//!
//! The target of an entry can be unknown for a while, because of EIO or ENOMEM. An empty
//! path stands for it until a later attempt finds the target, for that entry alone.

use crate::limits::{ALLOW_PATHS_MAX, PATH_MAX_BYTES};
use crate::proto::config::keys::allowed_paths;
use crate::state::realpath::{ReadLink, realpath};
use crate::util::path::Path;
use heapless::Vec;

/// The targets of the entries of `allow`, in their order, each ended by a NUL.
pub type Resolved = Vec<u8, { ALLOW_PATHS_MAX * (PATH_MAX_BYTES + 1) }>;

/// Finds the target of each entry of `allow`. Returns true if all are known.
pub fn load(allow: &[u8], read_link: ReadLink<'_>, resolved: &mut Resolved) -> bool {
    resolved.clear();
    for _ in allowed_paths(allow) {
        // The capacity is that of the longest list.
        let _ = resolved.push(0);
    }
    complete(allow, read_link, resolved)
}

/// Finds the targets that are not known yet. Returns true if all are known.
pub fn complete(allow: &[u8], read_link: ReadLink<'_>, resolved: &mut Resolved) -> bool {
    let mut whole = true;
    let mut at = 0usize;
    for entry in allowed_paths(allow) {
        if resolved.get(at) == Some(&0) {
            // The configuration takes no entry that is longer than a path.
            let found = match Path::new(entry) {
                Some(path) => realpath(&path, read_link),
                None => Path::new(b"/"),
            };
            let path = found.as_ref().map_or(&b""[..], Path::as_bytes);
            whole &= found.is_some();
            // The capacity is that of the longest paths.
            if resolved.extend_from_slice(path).is_ok() {
                resolved.get_mut(at..).unwrap_or(&mut []).rotate_right(path.len());
            }
        }
        let rest = resolved.get(at..).unwrap_or(&[]);
        let length = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        at = at.saturating_add(length).saturating_add(1);
    }
    whole
}

/// Returns the target of the path `requested`, empty if it is not known yet; `None` if the
/// path is not on the list.
#[must_use]
pub fn find<'a>(allow: &[u8], resolved: &'a [u8], requested: &[u8]) -> Option<&'a [u8]> {
    let mut entries = allowed_paths(allow).zip(resolved.split(|byte| *byte == 0));
    entries.find(|(text, _)| *text == requested).map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::realpath::NodeKind;

    const ALLOW: &[u8] = b"/etc/hostname\0/etc/os-release\0/x\0";

    fn loaded(allow: &[u8]) -> Resolved {
        let mut resolved = Resolved::new();
        let mut read_link = |path: &Path, target: &mut [u8]| match path.as_bytes() {
            b"/etc/os-release" => {
                target[..4].copy_from_slice(b"/usr");
                NodeKind::Link(4)
            }
            _ => NodeKind::Other,
        };
        assert!(load(allow, &mut read_link, &mut resolved));
        resolved
    }

    #[test]
    fn an_entry_leads_to_what_it_named_when_it_was_loaded() {
        let resolved = loaded(ALLOW);
        assert_eq!(find(ALLOW, &resolved, b"/etc/hostname"), Some(&b"/etc/hostname"[..]));
        assert_eq!(find(ALLOW, &resolved, b"/etc/os-release"), Some(&b"/usr"[..]));
        assert_eq!(find(ALLOW, &resolved, b"/x"), Some(&b"/x"[..]));
    }

    #[test]
    fn only_the_very_text_is_on_the_list() {
        let resolved = loaded(ALLOW);
        let others: [&[u8]; 13] = [
            b"",
            b"/",
            b"/etc",
            b"/etc/hostnam",
            b"/etc/hostname ",
            b"/etc/hostname/",
            b"/etc//hostname",
            b"/etc/../etc/hostname",
            b"/etc/hostname\0",
            b"/etc/hostname\r",
            b"etc/hostname",
            b"/usr",
            b"/etc/hostname\0/etc/os-release",
        ];
        for other in others {
            assert_eq!(find(ALLOW, &resolved, other), None, "{other:?}");
        }
        assert_eq!(find(b"", &loaded(b""), b""), None);
    }

    #[test]
    fn the_longest_list_has_room() {
        let mut allow = Vec::<u8, { ALLOW_PATHS_MAX * 64 }>::new();
        for number in 0..ALLOW_PATHS_MAX {
            allow.extend_from_slice(format!("/{number}\0").as_bytes()).unwrap();
        }
        let mut resolved = Resolved::new();
        let mut read_link = |path: &Path, target: &mut [u8]| {
            if path.as_bytes().len() > 3 {
                return NodeKind::Other;
            }
            target[..PATH_MAX_BYTES].fill(b'x');
            target[0] = b'/';
            NodeKind::Link(PATH_MAX_BYTES)
        };
        assert!(load(&allow, &mut read_link, &mut resolved));
        assert_eq!(find(&allow, &resolved, b"/31").map(<[u8]>::len), Some(PATH_MAX_BYTES));
        assert!(load(b"/1\0", &mut read_link, &mut resolved));
        assert_eq!(find(&allow, &resolved, b"/31"), None, "a second load forgets the first");
    }

    #[test]
    fn an_entry_that_cannot_be_looked_at_is_found_out_later_and_the_others_stay() {
        let names: [&[u8]; 3] = [b"/etc/hostname", b"/etc/os-release", b"/x"];
        for bad in 0..8usize {
            let is_bad = |path: &Path| {
                names.iter().position(|name| *name == path.as_bytes()).is_some_and(|at| bad >> at & 1 == 1)
            };
            let mut resolved = Resolved::new();
            let mut first =
                |path: &Path, _: &mut [u8]| if is_bad(path) { NodeKind::Unknown } else { NodeKind::Other };
            assert_eq!(load(ALLOW, &mut first, &mut resolved), bad == 0);
            let expect = |resolved: &Resolved, later: &[u8]| {
                for (at, name) in names.iter().enumerate() {
                    let known = if bad >> at & 1 == 1 { later } else { name };
                    assert_eq!(find(ALLOW, resolved, name), Some(known), "{bad} {name:?}");
                }
            };
            expect(&resolved, b"");
            assert_eq!(complete(ALLOW, &mut first, &mut resolved), bad == 0);
            expect(&resolved, b"");
            // All names are links to /z by now, but only the unknown targets are found again.
            let mut second = |path: &Path, target: &mut [u8]| {
                if !names.contains(&path.as_bytes()) {
                    return NodeKind::Other;
                }
                target[..2].copy_from_slice(b"/z");
                NodeKind::Link(2)
            };
            assert!(complete(ALLOW, &mut second, &mut resolved));
            expect(&resolved, b"/z");
            assert!(complete(ALLOW, &mut |_, _| panic!("nothing is to be looked at"), &mut resolved));
        }
    }
}
