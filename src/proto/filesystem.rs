//! What kind of filesystem holds a file, by the numbers that statfs(2) and stat(2)
//! give: what a write to it costs, and what is left of it after a power cut.

use linux_raw_sys::general as raw;

/// What a filesystem is kept in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Medium {
    /// Memory: gone with the power, and free of wear.
    Memory,
    /// Flash: each write wears it.
    Flash,
    /// Another machine: locks and syncs may mean little.
    Network,
    /// Memory or flash or a disk below others; the kernel does not tell which.
    Stacked,
    /// Anything else.
    Disk,
}

/// The type of UBIFS, which linux-raw-sys does not have (magic.h of Linux).
const UBIFS_SUPER_MAGIC: u32 = 0x2405_1905;
/// The type of YAFFS, which is not in Linux itself (yaffs_guts.h).
const YAFFS_MAGIC: u32 = 0x5941_ff53;

/// Filesystems by `f_type` (statfs(2)), with their names. All others are disks.
const KINDS: &[(u32, &str, Medium)] = &[
    (raw::TMPFS_MAGIC, "tmpfs", Medium::Memory),
    (raw::RAMFS_MAGIC, "ramfs", Medium::Memory),
    (raw::JFFS2_SUPER_MAGIC, "JFFS2", Medium::Flash),
    (UBIFS_SUPER_MAGIC, "UBIFS", Medium::Flash),
    (YAFFS_MAGIC, "YAFFS", Medium::Flash),
    (raw::F2FS_SUPER_MAGIC, "F2FS", Medium::Flash),
    (raw::NFS_SUPER_MAGIC, "NFS", Medium::Network),
    (raw::CIFS_SUPER_MAGIC, "CIFS", Medium::Network),
    (raw::SMB2_SUPER_MAGIC, "SMB", Medium::Network),
    (raw::V9FS_MAGIC, "9P", Medium::Network),
    (raw::FUSE_SUPER_MAGIC, "FUSE", Medium::Network),
    (raw::OVERLAYFS_SUPER_MAGIC, "overlay", Medium::Stacked),
];

/// Major numbers of block devices that are flash: MTD, UBI's block devices have no
/// fixed one, MMC and SD cards (devices.txt of Linux).
const FLASH_MAJORS: [u64; 2] = [31, 179];

/// The medium and its name for people, from a filesystem's `f_type` and the number of
/// the device that holds it.
#[must_use]
pub fn medium(kind: u64, device: u64) -> (Medium, &'static str) {
    // (the type is a signed word on some machines: only its low 32 bits mean anything)
    let known = KINDS.iter().find(|(magic, ..)| u64::from(*magic) == kind & 0xffff_ffff);
    match known {
        Some((_, name, medium)) => (*medium, name),
        None if FLASH_MAJORS.contains(&major(device)) => (Medium::Flash, "a flash device"),
        None => (Medium::Disk, "a disk"),
    }
}

/// The major number in a `dev_t` (makedev(3)).
fn major(device: u64) -> u64 {
    (device >> 8 & 0xfff) | (device >> 32 & !0xfff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filesystems_are_known_by_their_numbers() {
        assert_eq!(medium(0x0102_1994, 0x1a), (Medium::Memory, "tmpfs"));
        assert_eq!(medium(0xffff_ffff_8584_58f6, 1), (Medium::Memory, "ramfs"), "a negative number");
        assert_eq!(medium(0x72b6, 31 << 8), (Medium::Flash, "JFFS2"));
        assert_eq!(medium(0x794c_7630, 0x2c), (Medium::Stacked, "overlay"));
        assert_eq!(medium(0xef53, 8 << 8 | 1), (Medium::Disk, "a disk"), "ext4 on a disk");
        assert_eq!(medium(0xef53, 179 << 8 | 2), (Medium::Flash, "a flash device"), "ext4 on an SD card");
        assert_eq!(medium(0, 0).0, Medium::Disk);
    }

    #[test]
    fn a_device_has_twelve_bits_and_more_of_a_major_number() {
        assert_eq!(major(0x0000_0000_0000_b302), 179);
        assert_eq!(major(0x0000_1000_0000_0302), 0x1003);
    }
}
