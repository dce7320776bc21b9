//! The kind of the filesystem that holds a file, from the numbers of statfs(2) and stat(2).
//! It decides what a write costs, and what is left after a power cut.

use crate::util::string_table::{StringTable, string_table};
use crate::util::text::parse_u64;
use linux_raw_sys::general as raw;

/// The medium of a filesystem.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Medium {
    /// Memory: the files are lost without power, and writes cause no wear.
    Memory,
    /// Flash memory: each write wears it.
    Flash,
    /// A network, or a program (FUSE): locks and syncs may not work as on a local disk.
    Network,
    /// Another filesystem below this one. The kernel does not report its medium.
    Stacked,
    /// Any other filesystem.
    Disk,
}

/// The type of UBIFS (magic.h of Linux). linux-raw-sys does not have it.
const UBIFS_SUPER_MAGIC: u32 = 0x2405_1905;
/// The type of YAFFS (yaffs_guts.h), which is not part of Linux.
const YAFFS_MAGIC: u32 = 0x5941_ff53;

/// Declares the known filesystems: type (`f_type` of statfs(2)), name and medium.
macro_rules! filesystems {
    ($($kind:expr, $name:literal, $medium:ident;)*) => {
        static KINDS: &[u32] = &[$($kind),*];
        static NAMES: StringTable = string_table![$($name),*];
        static MEDIA: &[Medium] = &[$(Medium::$medium),*];
    };
}

// The medium of any other filesystem follows from the number of its device.
filesystems! {
    raw::TMPFS_MAGIC, "tmpfs", Memory;
    raw::RAMFS_MAGIC, "ramfs", Memory;
    raw::JFFS2_SUPER_MAGIC, "JFFS2", Flash;
    UBIFS_SUPER_MAGIC, "UBIFS", Flash;
    YAFFS_MAGIC, "YAFFS", Flash;
    raw::F2FS_SUPER_MAGIC, "F2FS", Flash;
    raw::NFS_SUPER_MAGIC, "NFS", Network;
    raw::CIFS_SUPER_MAGIC, "CIFS", Network;
    raw::SMB2_SUPER_MAGIC, "SMB", Network;
    raw::V9FS_MAGIC, "9P", Network;
    raw::FUSE_SUPER_MAGIC, "FUSE", Network;
    raw::OVERLAYFS_SUPER_MAGIC, "overlay", Stacked;
}

/// Major numbers of block devices that are flash (devices.txt of Linux): 31 is MTD, 179 is MMC
/// and SD cards. The block devices of UBI have no fixed number.
const FLASH_MAJORS: [u64; 2] = [31, 179];

/// Returns the medium of a filesystem and its name for people. `kind` is its `f_type`
/// (statfs(2)), and `device` the number of the device that holds it (`st_dev`).
#[must_use]
pub fn medium(kind: u64, device: u64) -> (Medium, &'static str) {
    // The type is a signed word on some machines, so only its low 32 bits have a meaning.
    let known = KINDS.iter().position(|magic| u64::from(*magic) == kind & 0xffff_ffff);
    match known.and_then(|index| Some((*MEDIA.get(index)?, NAMES.get(index)))) {
        Some(known) => known,
        None if FLASH_MAJORS.contains(&major(device)) => (Medium::Flash, "a flash device"),
        None => (Medium::Disk, "a disk"),
    }
}

/// Returns the major number in a `dev_t` (makedev(3)).
fn major(device: u64) -> u64 {
    (device >> 8 & 0xfff) | (device >> 32 & !0xfff)
}

/// Returns the upper folder of the overlay with the device number `device`, if a line of
/// /proc/self/mountinfo describes it (proc_pid_mountinfo(5)). Without the option `upperdir`, the
/// source names it, as `overlayfs:/tmp/root` does on OpenWrt.
#[must_use]
pub fn overlay_upper(line: &[u8], device: u64) -> Option<&[u8]> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut numbers = fields.nth(2)?.split(|byte| *byte == b':').map(parse_u64);
    let is_it = numbers.next()? == Some(major(device)) && numbers.next()? == Some(minor(device));
    let mut last = fields.skip_while(|field| *field != b"-").skip(1);
    let is_overlay = last.next()?.starts_with(b"overlay");
    let source = last.next()?;
    let mut options = last.next()?.split(|byte| *byte == b',');
    let upper = options.find_map(|option| option.strip_prefix(b"upperdir="));
    let found = upper.or_else(|| source.strip_prefix(b"overlayfs:"))?;
    (is_it && is_overlay && found.first() == Some(&b'/')).then_some(found)
}

fn minor(device: u64) -> u64 {
    (device & 0xff) | (device >> 12 & 0xffff_ff00)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_folder_of_an_overlay_is_found_by_its_device() {
        let openwrt = b"21 1 0:15 / / rw,noatime - overlay overlayfs:/tmp/root \
            rw,lowerdir=/,upperdir=/tmp/root/upper,workdir=/tmp/root/work";
        assert_eq!(overlay_upper(openwrt, 0x0f), Some(&b"/tmp/root/upper"[..]));
        assert_eq!(overlay_upper(openwrt, 0x10), None, "another one");
        let old = b"21 1 0:300 / / rw shared:1 - overlay overlayfs:/tmp/root rw";
        assert_eq!(overlay_upper(old, 300 << 12 & !0xfffff | 300 & 0xff), Some(&b"/tmp/root"[..]));
        for line in
            [&b""[..], b"21 1 0:15 / / rw - ext4 /dev/sda1 rw", b"21 1 0:15 / / rw - overlay x rw", b"a b"]
        {
            assert_eq!(overlay_upper(line, 0x0f), None);
        }
    }

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
