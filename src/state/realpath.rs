//! Resolves each symbolic link in a path, like realpath(3), but with a bounded number of
//! steps. The only question about each name is if it is a link.
//!
//! A name that does not exist is kept as it is, after its resolved folder, and so are the
//! names after it, because the file may be created later.

use crate::limits::{LINKS_MAX, PATH_MAX_BYTES};
use crate::util::path::Path;
use heapless::Vec;

/// The kind of a name in the file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NodeKind {
    /// A symbolic link. Holds the number of bytes of its target that were written to the
    /// buffer.
    Link(usize),
    /// A name that exists and is not a symbolic link.
    Other,
    /// A name that does not exist, or that this process may not look at.
    Missing,
    /// A name that could not be looked at this time (EIO, ENOMEM).
    Unknown,
}

/// Returns the kind of the last name of a path, and writes the target of a link to the buffer.
pub type ReadLink<'a> = &'a mut dyn FnMut(&Path, &mut [u8]) -> NodeKind;

/// The part of the path that is to be resolved: the target of one link, a slash, and the names
/// after that link.
type Rest = Vec<u8, { 2 * PATH_MAX_BYTES + 2 }>;

/// Resolves the absolute path `path`. Returns `None` if a name could not be looked at this
/// time. A path with more than [`LINKS_MAX`] links, or that gets too long, is returned as it
/// is.
#[must_use]
pub fn realpath(path: &Path, read_link: ReadLink<'_>) -> Option<Path> {
    let mut known = true;
    let mut look = |name: &Path, target: &mut [u8]| {
        let found = read_link(name, target);
        known &= found != NodeKind::Unknown;
        found
    };
    let end = walk(path, &mut look).unwrap_or_else(|| path.clone());
    known.then_some(end)
}

fn walk(path: &Path, read_link: ReadLink<'_>) -> Option<Path> {
    let mut done = Path::new(b"/")?;
    let mut rest = Rest::from_slice(path.as_bytes()).ok()?;
    let mut links = 0u32;
    loop {
        let start = rest.iter().position(|byte| *byte != b'/').unwrap_or(rest.len());
        let unseen = rest.get(start..)?;
        let length = unseen.iter().position(|byte| *byte == b'/').unwrap_or(unseen.len());
        let (name, behind) = unseen.split_at_checked(length)?;
        match name {
            b"" => return Some(done),
            b"." => {}
            b".." => done = done.parent(),
            name => {
                let whole = done.join(name)?;
                let mut target = [0; PATH_MAX_BYTES + 1];
                match read_link(&whole, &mut target) {
                    NodeKind::Other => done = whole,
                    NodeKind::Missing | NodeKind::Unknown => return whole.with_suffix(behind),
                    NodeKind::Link(length) => {
                        links = links.checked_add(1).filter(|links| *links <= LINKS_MAX)?;
                        // A target that fills the buffer may be incomplete.
                        let target = target.get(..length).filter(|_| length <= PATH_MAX_BYTES)?;
                        if target.first() == Some(&b'/') {
                            done = Path::new(b"/")?;
                        }
                        let mut next = Rest::from_slice(target).ok()?;
                        next.extend_from_slice(behind).ok()?;
                        rest = next;
                        continue;
                    }
                }
            }
        }
        rest = Rest::from_slice(behind).ok()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn path(text: &str) -> Path {
        Path::new(text.as_bytes()).unwrap()
    }

    /// Resolves `text` in a file system of these links and these other names.
    fn resolved(text: &str, links: &[(&str, &str)], others: &[&str]) -> String {
        let links: BTreeMap<_, _> = links.iter().copied().collect();
        let mut read_link = |path: &Path, target: &mut [u8]| {
            let name = std::str::from_utf8(path.as_bytes()).unwrap();
            match links.get(name) {
                Some(text) => {
                    let length = text.len().min(target.len());
                    target[..length].copy_from_slice(&text.as_bytes()[..length]);
                    NodeKind::Link(length)
                }
                None if others.contains(&name) => NodeKind::Other,
                None => NodeKind::Missing,
            }
        };
        let end = realpath(&path(text), &mut read_link).unwrap();
        String::from_utf8(end.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_path_without_links_leads_to_itself() {
        assert_eq!(resolved("/etc/hostname", &[], &["/etc", "/etc/hostname"]), "/etc/hostname");
        assert_eq!(resolved("/", &[], &[]), "/");
        assert_eq!(resolved("//etc/./hostname/", &[], &["/etc", "/etc/hostname"]), "/etc/hostname");
        assert_eq!(resolved("/etc/../../etc", &[], &["/etc"]), "/etc");
    }

    #[test]
    fn links_at_the_end_and_in_the_middle_are_followed() {
        let links = [("/etc/os-release", "../usr/lib/os-release"), ("/usr", "/system"), ("/run", "var/run")];
        let others =
            ["/etc", "/system", "/system/lib", "/system/lib/os-release", "/var", "/var/run", "/var/run/x"];
        assert_eq!(resolved("/etc/os-release", &links, &others), "/system/lib/os-release");
        assert_eq!(resolved("/usr/lib/os-release", &links, &others), "/system/lib/os-release");
        assert_eq!(resolved("/run/x", &links, &others), "/var/run/x");
    }

    #[test]
    fn what_does_not_exist_is_taken_as_it_is_written() {
        assert_eq!(resolved("/no/such/../file", &[], &[]), "/no/such/../file");
        assert_eq!(
            resolved("/var/x/y", &[("/var", "/private/var")], &["/private", "/private/var"]),
            "/private/var/x/y"
        );
        assert_eq!(resolved("/a", &[("/a", "b")], &[]), "/b", "the link is there, what it names may come");
    }

    #[test]
    fn where_a_name_that_cannot_be_looked_at_leads_is_not_known() {
        for unknown in ["/a", "/a/b", "/a/b/c"] {
            let mut read_link = |path: &Path, _: &mut [u8]| {
                if path.as_bytes() == unknown.as_bytes() { NodeKind::Unknown } else { NodeKind::Other }
            };
            assert_eq!(realpath(&path("/a/b/c"), &mut read_link), None, "{unknown}");
            assert_eq!(realpath(&path("/other"), &mut read_link), Some(path("/other")));
        }
    }

    #[test]
    fn links_without_end_lead_nowhere() {
        assert_eq!(resolved("/a", &[("/a", "/b"), ("/b", "/a")], &[]), "/a");
        assert_eq!(resolved("/a/x", &[("/a", "a")], &[]), "/a/x");
        let names: std::vec::Vec<String> = (0..=41).map(|number| format!("/{number}")).collect();
        let chain: std::vec::Vec<_> = names.windows(2).map(|pair| (&pair[0][..], &pair[1][..])).collect();
        assert_eq!(resolved("/1", &chain, &["/41"]), "/41", "forty links");
        assert_eq!(resolved("/0", &chain, &["/41"]), "/0", "and one more");
    }

    #[test]
    fn what_gets_too_long_leads_nowhere() {
        let long = format!("/{}", "x".repeat(200));
        let links = [("/a", &long[..]), ("/b", "b/b/b/b")];
        assert_eq!(resolved("/a", &links, &[&long]), long);
        let tail = format!("/a/{}", "y".repeat(60));
        assert_eq!(resolved(&tail, &links, &[&long]), tail);
        assert_eq!(resolved("/b", &links, &[]), "/b", "grows with every link");
        let longest = format!("/{}", "z".repeat(254));
        let longer = format!("/{}", "z".repeat(255));
        assert_eq!(resolved("/l", &[("/l", &longest)], &[&longest]), longest);
        assert_eq!(resolved("/l", &[("/l", &longer)], &[&longer]), "/l");
    }

    #[test]
    fn it_ends_and_fits_whatever_the_links_say() {
        let mut seed = 7u64;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) as usize % below
        };
        for _ in 0..20_000 {
            let mut text = String::from("/");
            (0..random(40)).for_each(|_| text.push_str(["a", "/", "..", ".", "bb/"][random(5)]));
            let mut asked = 0;
            let mut read_link = |_: &Path, target: &mut [u8]| {
                asked += 1;
                assert!(asked < 20_000);
                match random(4) {
                    0 => NodeKind::Missing,
                    1 => NodeKind::Other,
                    _ => {
                        let length = random(target.len() + 1);
                        target[..length].fill_with(|| b"a/.\xff\0"[random(5)]);
                        NodeKind::Link(length)
                    }
                }
            };
            let resolved = realpath(&path(&text), &mut read_link).unwrap();
            assert!(
                resolved.as_bytes().first() == Some(&b'/') && resolved.as_bytes().len() <= PATH_MAX_BYTES
            );
        }
    }
}
