//! What kind of filesystem holds a file, by the numbers that statfs(2) and stat(2)
//! give: what a write to it costs, and what is left of it after a power cut.

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

/// Filesystems by `f_type` (statfs(2), magic.h of Linux); all others are disks.
const KINDS: &[(u32, &str, Medium)] = &[
    (0x0102_1994, "tmpfs", Medium::Memory),
    (0x8584_58f6, "ramfs", Medium::Memory),
    (0x0000_72b6, "JFFS2", Medium::Flash),
    (0x2405_1905, "UBIFS", Medium::Flash),
    (0x5941_ff53, "YAFFS", Medium::Flash),
    (0xf2f5_2010, "F2FS", Medium::Flash),
    (0x0000_6969, "NFS", Medium::Network),
    (0xff53_4d42, "CIFS", Medium::Network),
    (0xfe53_4d42, "SMB", Medium::Network),
    (0x0102_1997, "9P", Medium::Network),
    (0x6573_5546, "FUSE", Medium::Network),
    (0x794c_7630, "overlay", Medium::Stacked),
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
