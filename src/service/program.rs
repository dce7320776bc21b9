//! Finds the file of a program that is given by name.

use crate::sys::args::Args;
use crate::sys::file;
use crate::sys::spawn::SAFE_PATH;
use crate::util::path::Path;

/// Returns the file of the program `word`, as a shell would find it: on the PATH, or below
/// `base` if it contains a slash. Returns the word itself if no folder of the PATH has it.
#[must_use]
pub fn find(args: &Args, word: &[u8], base: &Path) -> Path {
    if word.contains(&b'/') {
        return base.join(word).or_else(|| Path::new(word)).unwrap_or_default();
    }
    let folders = args.env(b"PATH").or(SAFE_PATH.to_bytes().strip_prefix(b"PATH=")).unwrap_or(b"");
    let mut candidates =
        folders.split(|byte| *byte == b':').filter_map(|folder| base.join(folder)?.join(word));
    let is_program = |path: &Path| {
        file::meta_at(path.as_c_str(), true).is_ok_and(|meta| meta.regular)
            && file::executable(path.as_c_str())
    };
    candidates.find(is_program).or_else(|| Path::new(word)).unwrap_or_default()
}
