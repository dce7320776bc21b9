//! Paths of bounded length, stored with the terminator that the kernel needs.

use crate::limits::PATH_MAX_BYTES;
use core::ffi::CStr;
use heapless::Vec;

/// A path of 0 to [`PATH_MAX_BYTES`] bytes without NUL, stored with its terminator.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Path {
    /// No byte for the empty path, otherwise the path and a NUL byte.
    bytes: Vec<u8, { PATH_MAX_BYTES + 1 }>,
}

impl Path {
    /// Returns the empty path, which stands for "none".
    #[must_use]
    pub const fn empty() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Returns a path of these bytes. Returns `None` if they are too many or contain NUL.
    #[must_use]
    pub fn new(path: &[u8]) -> Option<Self> {
        Self::concat(&[path])
    }

    /// Returns a path of the parts, one after the other. Returns `None` if they are too long
    /// together or contain NUL.
    #[must_use]
    pub fn concat(parts: &[&[u8]]) -> Option<Self> {
        let mut path = Self::empty();
        path.assign(parts).then_some(path)
    }

    /// Returns a path of the parts, one after the other. Returns the empty path if they are too
    /// long together or contain NUL.
    #[must_use]
    #[inline(never)]
    pub fn or_empty(parts: &[&[u8]]) -> Self {
        let mut path = Self::empty();
        path.assign(parts);
        path
    }

    /// Replaces the path by the parts, one after the other. Returns true if that was done. The
    /// path stays if they are too long together or contain NUL.
    #[inline(never)]
    pub fn assign(&mut self, parts: &[&[u8]]) -> bool {
        let length = parts.iter().fold(0usize, |sum, part| sum.saturating_add(part.len()));
        if length > PATH_MAX_BYTES || parts.iter().any(|part| part.contains(&0)) {
            return false;
        }
        self.bytes.clear();
        for part in parts {
            let _ = self.bytes.extend_from_slice(part);
        }
        if length > 0 {
            let _ = self.bytes.push(0);
        }
        true
    }

    /// Replaces the path by `other`. Only its bytes are copied, not the whole buffer.
    pub fn set(&mut self, other: &Self) {
        self.bytes.clear();
        let _ = self.bytes.extend_from_slice(&other.bytes);
    }

    /// Returns `self/name`, or `name` alone if that is absolute or `self` is empty. Returns
    /// `None` if the result is too long, or `name` contains NUL.
    #[must_use]
    pub fn join(&self, name: &[u8]) -> Option<Self> {
        match (name.first(), self.as_bytes()) {
            (Some(b'/'), _) | (_, b"") => Self::new(name),
            (_, base) if base.ends_with(b"/") => Self::concat(&[base, name]),
            (_, base) => Self::concat(&[base, b"/", name]),
        }
    }

    /// Returns the path with `suffix` appended to its last name. Returns `None` if the result
    /// is too long, or `suffix` contains NUL.
    #[must_use]
    pub fn with_suffix(&self, suffix: &[u8]) -> Option<Self> {
        Self::concat(&[self.as_bytes(), suffix])
    }

    /// Returns the folder of the path: `.` for a single name, and `/` for `/`.
    #[must_use]
    pub fn parent(&self) -> Self {
        let path = self.as_bytes();
        let folder = match path.iter().rposition(|byte| *byte == b'/') {
            Some(0) => &b"/"[..],
            Some(slash) => path.get(..slash).unwrap_or(b"."),
            None => b".",
        };
        Self::or_empty(&[folder])
    }

    /// Returns the last name of the path. It is empty after a slash at the end.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or(&[])
    }

    /// Returns the path without its terminator.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.bytes.len().saturating_sub(1)).unwrap_or(&[])
    }

    /// Returns the path with its terminator.
    #[must_use]
    #[unsafe(link_section = ".text.idle")]
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_with_nul(&self.bytes).unwrap_or(c"")
    }

    /// Returns true if the path is empty, which stands for "none".
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        Path::new(text.as_bytes()).unwrap()
    }

    #[test]
    fn joining_puts_one_slash_and_respects_absolute_names() {
        assert_eq!(path("/a").join(b"b").unwrap(), path("/a/b"));
        assert_eq!(path("/").join(b"b").unwrap(), path("/b"));
        assert_eq!(path("/a").join(b"/b").unwrap(), path("/b"));
        assert_eq!(Path::empty().join(b"b").unwrap(), path("b"));
    }

    #[test]
    fn parents_and_names() {
        for (whole, parent, name) in [("/a/b", "/a", "b"), ("/a", "/", "a"), ("a", ".", "a")] {
            assert_eq!(path(whole).parent(), path(parent));
            assert_eq!(path(whole).name(), name.as_bytes());
        }
    }

    #[test]
    fn the_longest_path_fits_and_one_more_byte_does_not() {
        let longest = [b'x'; PATH_MAX_BYTES];
        let path = Path::new(&longest).unwrap();
        assert_eq!(path.as_c_str().to_bytes(), longest);
        assert!(path.with_suffix(b"y").is_none());
        assert!(Path::new(&[b'x'; PATH_MAX_BYTES + 1]).is_none());
    }

    #[test]
    fn a_null_byte_is_refused() {
        assert!(Path::new(b"/a\0b").is_none());
    }

    #[test]
    fn the_empty_path_is_an_empty_c_string() {
        assert_eq!(Path::empty().as_c_str().to_bytes(), b"");
        assert_eq!(path("").as_bytes(), b"");
        assert!(path("").is_empty() && !path("/").is_empty());
    }
}
