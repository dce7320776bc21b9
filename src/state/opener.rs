//! What the opener may open: the texts of `allow`, and where each of them led when the
//! configuration was loaded. Nothing else is policy: a request is one of these texts, byte
//! for byte, or it is denied.

use super::resolve::{ReadLink, resolve};
use crate::limits::{ALLOW_PATHS_MAX, PATH_MAX_BYTES};
use crate::proto::config::keys::allowed_paths;
use crate::proto::path::Path;
use heapless::Vec;

/// Where the entries of `allow` led, in their order, each ended by a NUL.
pub type Resolved = Vec<u8, { ALLOW_PATHS_MAX * (PATH_MAX_BYTES + 1) }>;

/// Finds where each entry of `allow` leads now.
pub fn load(allow: &[u8], read_link: ReadLink<'_>, resolved: &mut Resolved) {
    resolved.clear();
    for entry in allowed_paths(allow) {
        // (an entry is no longer than a path, or it could not be opened)
        let path = Path::new(entry).map(|path| resolve(&path, read_link));
        let path = path.as_ref().map_or(&b"/"[..], Path::as_bytes);
        // (there is room for as many as there can be)
        let _ = resolved.extend_from_slice(path);
        let _ = resolved.push(0);
    }
}

/// Where the path `asked` leads, if it is on the list.
#[must_use]
pub fn find<'a>(allow: &[u8], resolved: &'a [u8], asked: &[u8]) -> Option<&'a [u8]> {
    let mut entries = allowed_paths(allow).zip(allowed_paths(resolved));
    entries.find(|(text, _)| *text == asked).map(|(_, path)| path)
}

#[cfg(test)]
mod tests {
    use super::super::resolve::Name;
    use super::*;

    const ALLOW: &[u8] = b"/etc/hostname\0/etc/os-release\0/x\0";

    fn loaded(allow: &[u8]) -> Resolved {
        let mut resolved = Resolved::new();
        let mut read_link = |path: &Path, target: &mut [u8]| match path.as_bytes() {
            b"/etc/os-release" => {
                target[..4].copy_from_slice(b"/usr");
                Name::Link(4)
            }
            _ => Name::Other,
        };
        load(allow, &mut read_link, &mut resolved);
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
                return Name::Other;
            }
            target[..PATH_MAX_BYTES].fill(b'x');
            target[0] = b'/';
            Name::Link(PATH_MAX_BYTES)
        };
        load(&allow, &mut read_link, &mut resolved);
        assert_eq!(find(&allow, &resolved, b"/31").map(<[u8]>::len), Some(PATH_MAX_BYTES));
        load(b"/1\0", &mut read_link, &mut resolved);
        assert_eq!(find(&allow, &resolved, b"/31"), None, "a second load begins anew");
    }
}
