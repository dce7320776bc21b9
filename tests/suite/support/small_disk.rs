//! A small disk that can be full, for a service's spool and queue file.
//!
//! It is mounted in a mount namespace of its own; from outside it is reached
//! through `/proc/PID/root`. For root only.

use super::{Dir, finish, program, require, require_root, require_tool};
use rustix::fs::{CWD, Mode, OFlags};
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// A small tmpfs `disk` in the test's folder, in a mount namespace that lives
/// as long as this.
pub struct SmallDisk {
    holder: Child,
}

impl SmallDisk {
    /// Mounts a disk of this size, in the form of tmpfs(5).
    pub fn new(dir: &Dir, size: &str) -> Self {
        Self::formatted(dir, &format!("mount -t tmpfs -o size={size},mode=0700 none $0")).unwrap()
    }

    /// Mounts a disk by shell commands, in which `$0` is its folder. Returns `None` if they fail,
    /// which is noted as a skipped test.
    pub fn formatted(dir: &Dir, commands: &str) -> Option<Self> {
        fs::create_dir(dir.path("disk")).unwrap();
        let script = format!(
            "{{ {commands}; }} >$0.log 2>&1 || {{ cat $0.log >&2; exit 1; }}; chmod 0700 $0 && echo ready && exec cat"
        );
        let mut command = program("unshare");
        command.args(["-m", "sh", "-ec", &script]).arg(dir.path("disk"));
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut answer = [0; 6];
        let ready = holder.stdout.as_mut().unwrap().read_exact(&mut answer).is_ok();
        let disk = Self { holder };
        require(ready, commands).then_some(disk)
    }

    /// Returns the path of a file on the disk, as seen from the test's mount namespace.
    pub fn path(&self, dir: &Dir, name: &str) -> PathBuf {
        let inside = dir.path("disk").join(name);
        PathBuf::from(format!("/proc/{}/root{}", self.holder.id(), inside.display()))
    }

    /// Starts `jobs` there, with spool and queue on the disk.
    #[track_caller]
    pub fn start(&self, dir: &Dir, options: &[&str]) -> u32 {
        self.start_service(dir, "jobs", &[&["log_max=0"], options].concat())
    }

    /// Starts any service there, with spool and queue on the disk.
    #[track_caller]
    pub fn start_service(&self, dir: &Dir, service: &str, options: &[&str]) -> u32 {
        let mut inner = dir.command();
        let disk = dir.path("disk");
        for key in [format!("spool={}/spool", disk.display()), format!("queue_file={}/queue", disk.display())]
        {
            inner.arg("-o").arg(key);
        }
        for option in options {
            inner.args(["-o", option]);
        }
        inner.args(["start", service]);
        let mut command = program("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id()));
        command.arg(inner.get_program()).args(inner.get_args());
        let ran = finish(command, None).expect(0);
        ran.out.split(['(', ')']).nth(1).unwrap()["pid ".len()..].parse().unwrap()
    }

    /// Fills what is left.
    pub fn fill(&self, dir: &Dir) {
        let path = self.path(dir, "filler");
        let mut file = fs::File::create(&path).unwrap();
        let fd = rustix::fs::openat(CWD, path.to_str().unwrap(), OFlags::RDWR, Mode::empty()).unwrap();
        // Most of it in large steps, without writing it.
        let mut end = 0;
        for step in [1 << 24, 1 << 20, 1 << 16] {
            let flags = rustix::fs::FallocateFlags::empty();
            while rustix::fs::fallocate(&fd, flags, end, step).is_ok() {
                end += step;
            }
        }
        file.seek(SeekFrom::Start(end)).unwrap();
        while file.write_all(&[b'f'; 4096]).is_ok() {}
        while file.write_all(b"f").is_ok() {}
    }
}

impl SmallDisk {
    /// Takes the inodes that are left, up to 100.
    pub fn take_inodes(&self, dir: &Dir) {
        for number in 0..100 {
            if fs::File::create(self.path(dir, &format!("filler{number}"))).is_err() {
                break;
            }
        }
    }

    /// Removes what [`SmallDisk::fill`] and [`SmallDisk::take_inodes`] made.
    pub fn make_room(&self, dir: &Dir) {
        for entry in fs::read_dir(self.path(dir, "")).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("filler") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

/// Returns true if a small disk can be set up. If not, the test is skipped as for
/// [`require_tool`].
#[track_caller]
pub fn has_namespaces() -> bool {
    require_root() && require_tool("unshare") && require_tool("nsenter") && require_tool("mount")
}
