//! Decides whether the path of the spool is free, so that the spool can be made again there.
//! Nothing that another program wrote may be overwritten, and root makes nothing where another
//! user could change it. A device is compared with that of the open folder only, because
//! overlayfs gives folders and files different ones.

use super::disk::Obstacle;

/// A folder that exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FolderFacts {
    /// Its device.
    pub device: u64,
    /// No other user may change it.
    pub trusted: bool,
}

/// The thing to which the path of the spool leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PathContent {
    /// Nothing.
    Missing,
    /// Something that is no folder, or a link to nothing.
    NotFolder,
    /// A folder.
    Folder {
        /// The folder.
        folder: FolderFacts,
        /// True if the open journal is in this folder.
        is_open: bool,
        /// True if there is an entry `journal`.
        journal: bool,
        /// True if there are files beside the journal, the lock, the queue file and the claims.
        others: bool,
    },
}

/// Checks whether the path is free. `open_device` is the device of the open folder, `parent` the
/// nearest folder above the spool that exists.
///
/// # Errors
/// The obstacle.
pub fn check_free(open_device: u64, parent: FolderFacts, content: PathContent) -> Result<(), Obstacle> {
    let check = |folder: FolderFacts| match folder {
        _ if folder.device != open_device => Err(Obstacle::Filesystem),
        _ if !folder.trusted => Err(Obstacle::Untrusted),
        _ => Ok(()),
    };
    match content {
        PathContent::Missing => check(parent),
        PathContent::NotFolder => Err(Obstacle::NotFolder),
        PathContent::Folder { journal: true, .. } => Err(Obstacle::Journal),
        PathContent::Folder { is_open: true, .. } => Ok(()),
        PathContent::Folder { folder, .. } if folder.device != open_device => Err(Obstacle::Filesystem),
        PathContent::Folder { folder, others, .. } => {
            check(parent)?;
            check(folder)?;
            if others { Err(Obstacle::NotEmpty) } else { Ok(()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: FolderFacts = FolderFacts { device: 1, trusted: true };
    const MOUNTED: FolderFacts = FolderFacts { device: 2, trusted: true };
    const THEIRS: FolderFacts = FolderFacts { device: 1, trusted: false };

    fn folder(folder: FolderFacts, is_open: bool, journal: bool, others: bool) -> PathContent {
        PathContent::Folder { folder, is_open, journal, others }
    }

    #[test]
    fn a_path_is_free_if_nothing_is_there_or_an_empty_folder_on_the_same_device() {
        assert_eq!(check_free(1, OURS, PathContent::Missing), Ok(()));
        assert_eq!(check_free(1, OURS, folder(OURS, false, false, false)), Ok(()));
        for (parent, obstacle) in [(MOUNTED, Obstacle::Filesystem), (THEIRS, Obstacle::Untrusted)] {
            assert_eq!(check_free(1, parent, PathContent::Missing), Err(obstacle));
            assert_eq!(check_free(1, parent, folder(OURS, false, false, false)), Err(obstacle));
            assert_eq!(check_free(1, OURS, folder(parent, false, false, false)), Err(obstacle));
        }
    }

    #[test]
    fn the_open_folder_is_free_if_its_journal_is_missing() {
        assert_eq!(check_free(1, THEIRS, folder(OURS, true, false, true)), Ok(()));
        assert_eq!(check_free(1, OURS, folder(OURS, true, true, true)), Err(Obstacle::Journal));
    }

    #[test]
    fn what_is_there_is_never_overwritten() {
        assert_eq!(check_free(1, OURS, PathContent::NotFolder), Err(Obstacle::NotFolder));
        assert_eq!(check_free(1, OURS, folder(OURS, false, true, false)), Err(Obstacle::Journal));
        assert_eq!(check_free(1, OURS, folder(OURS, false, false, true)), Err(Obstacle::NotEmpty));
        assert_eq!(check_free(1, OURS, folder(MOUNTED, false, true, true)), Err(Obstacle::Journal));
    }
}
