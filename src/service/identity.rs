//! Looks if a path still leads to an open file. `state/identity.rs` decides when each path is
//! looked at, and what the result means.

use crate::state::identity::PathState;
use crate::sys::file;
use crate::util::path::Path;

/// Returns the relation of `path` to the open file with the device and inode `open` (stat(2)).
/// A symbolic link at the end of the path is followed if `follow` is true.
#[must_use]
#[allow(unsafe_code, reason = "names a section")]
#[unsafe(link_section = ".text.idle")]
pub fn look(path: &Path, open: (u64, u64), follow: bool) -> PathState {
    let found = file::meta_at(path.as_c_str(), follow);
    PathState::judge(found.map(|meta| meta.identity).map_err(|failure| failure.errno.raw_os_error()), open)
}
