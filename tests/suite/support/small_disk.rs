//! A small disk that can be full, for a service's spool and queue file.
//!
//! It is mounted in a mount namespace of its own; from outside it is reached
//! through `/proc/PID/root`. For root only.

use super::{Dir, finish, program, require_root, require_tool};
use std::fs;
use std::io::{Read, Write};
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
        fs::create_dir(dir.path("disk")).unwrap();
        let script = "mount -t tmpfs -o size=$1,mode=0700 none \"$0\" && echo ready && exec cat";
        let mut command = program("unshare");
        command.args(["-m", "sh", "-c", script]).arg(dir.path("disk")).arg(size);
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut answer = [0; 6];
        holder.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"ready\n");
        Self { holder }
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
        let mut file = fs::File::create(self.path(dir, "filler")).unwrap();
        while file.write_all(&[b'f'; 4096]).is_ok() {}
        while file.write_all(b"f").is_ok() {}
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
