//! "`degraded none` is a promise", as a table: each fault is made under a running service, a
//! state has to name it within `stale_after`, the state has to go with its cause, and no job
//! that was acknowledged may be lost, also if the service is killed afterwards.
//!
//! The state is asked for over a connection from before the fault, because the fault may take
//! the socket away. Mounts are made in a mount namespace of the row's own.

use crate::support::control::{Client, NOBODY};
use crate::support::{
    Dir, Running, alive, find, finish, kill, kill_hard, program, read_aside, require, require_native,
    require_root, require_tool, through, wait_until,
};
use rustix::fs::{CWD, RenameFlags};
use std::any::Any;
use std::fs::{self, Permissions};
use std::io::{Read, Write, pipe};
use std::os::unix::fs::{PermissionsExt, chown, fchown, symlink};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use zigsvc::state::degraded::DegradedState;

/// The service's `stale_after`.
const STALE_AFTER: Duration = Duration::from_secs(5);
/// Time that a busy test machine adds.
const LEEWAY: Duration = Duration::from_secs(2);

/// How a fault is named.
enum Named {
    /// By a state, until it is mended.
    State(&'static str),
    /// By a line of the log, because the service mends it by itself within a heartbeat.
    Line(&'static str),
}
use Named::{Line, State};

/// How the service runs.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// In the background, as root.
    Root,
    /// In the background, started by a user who is not root.
    User,
    /// In the foreground, with a pipe as stderr.
    Foreground,
}

/// A row of the table.
struct Fault {
    name: &'static str,
    named: Named,
    mode: Mode,
    /// Shell commands in the mount namespace before the start. `$0` is the folder.
    setup: &'static str,
    options: &'static [&'static str],
    make: fn(&mut World),
    mend: fn(&mut World),
}

/// A service, and the jobs that it has acknowledged.
struct World {
    dir: Dir,
    /// Keeps the mount namespace.
    namespace: Child,
    mode: Mode,
    options: &'static [&'static str],
    pid: u32,
    client: Option<Client>,
    /// The service in the foreground.
    running: Option<Running>,
    /// Whatever a fault holds until it is mended.
    held: Vec<Box<dyn Any>>,
    /// Names of the jobs that must run.
    jobs: Vec<String>,
}

impl World {
    #[track_caller]
    fn new(fault: &Fault) -> Option<Self> {
        let dir = Dir::new();
        for name in ["", "var", "var/in", "log", "health", "sock", "out"] {
            let path = dir.path(name);
            fs::create_dir_all(&path).unwrap();
            let mode = if name == "out" { 0o1777 } else { 0o755 };
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            if fault.mode == Mode::User {
                chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        dir.write_executable("handler", "#!/bin/sh\neval \"$1\"\n");
        fs::set_permissions(dir.path("handler"), Permissions::from_mode(0o755)).unwrap();
        let script = format!("{{ {}; }} && echo ready && exec cat", fault.setup);
        let mut command = program("unshare");
        command.args(["-m", "--propagation", "private", "sh", "-ec", &script, dir.as_arg()]);
        let mut namespace = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut answer = [0; 6];
        let ready = namespace.stdout.as_mut().unwrap().read_exact(&mut answer).is_ok();
        if !require(ready, &format!("{}: {}", fault.name, fault.setup)) {
            namespace.wait().unwrap();
            return None;
        }
        let (mode, options) = (fault.mode, fault.options);
        let mut world = Self {
            dir,
            namespace,
            mode,
            options,
            pid: 0,
            client: None,
            running: None,
            held: Vec::new(),
            jobs: Vec::new(),
        };
        world.start();
        Some(world)
    }

    /// Returns a command that runs in the mount namespace.
    fn there(&self, inner: &Command) -> Command {
        through(&["nsenter", &format!("--mount=/proc/{}/ns/mnt", self.namespace.id())], inner)
    }

    /// Runs a shell command in the mount namespace. `$0` is the folder.
    #[track_caller]
    fn shell(&self, script: &str) {
        let mut inner = program("sh");
        inner.args(["-ec", script, self.dir.as_arg()]);
        finish(self.there(&inner), None).expect(0);
    }

    /// Returns the program with the options of the service.
    fn command(&self) -> Command {
        let mut inner = self.dir.command();
        let folder = self.dir.as_arg();
        for (key, name) in [
            ("socket", "sock/zigsvc.sock"),
            ("log_file", "log/zigsvc.log"),
            ("health_file", "health/zigsvc.health"),
            ("spool", "var/spool"),
            ("queue_file", "var/in/queue"),
        ] {
            inner.arg("-o").arg(format!("{key}={folder}/{name}"));
        }
        let stale_after = format!("stale_after={}s", STALE_AFTER.as_secs());
        let all =
            [&["log_max=0", "interval=300ms", "retries=9", "workers=3", &stale_after], self.options].concat();
        let mut handler = vec![format!("handler={folder}/handler")];
        handler.extend(all.iter().map(|option| option.replace("DIR", folder)));
        for option in &handler {
            inner.args(["-o", option]);
        }
        inner
    }

    /// Starts the service, and connects to it.
    #[track_caller]
    fn start(&mut self) {
        let mut inner = self.command();
        inner.arg(if self.mode == Mode::Foreground { "run" } else { "start" });
        if self.mode == Mode::User {
            let id = NOBODY.to_string();
            inner = through(&["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"], &inner);
        }
        let mut command = self.there(&inner);
        if self.mode == Mode::Foreground {
            let (reader, writer) = pipe().unwrap();
            command.stdout(Stdio::null()).stderr(writer);
            self.running = Some(Running::new(command));
            self.held.push(Box::new(reader));
            let dir = &self.dir;
            wait_until("it runs", || dir.lock_holder("zigsvc.pid").is_some());
        } else {
            finish(command, None).expect(0);
        }
        self.pid = self.dir.lock_holder("zigsvc.pid").unwrap();
        let socket = self.dir.path("sock/zigsvc.sock");
        wait_until("it listens", || UnixStream::connect(&socket).is_ok());
        self.client = Some(Client::over(UnixStream::connect(&socket).unwrap()));
    }

    fn ask(&mut self, request: &str) -> String {
        self.client.as_mut().unwrap().ask(request)
    }

    fn degraded(&mut self) -> String {
        self.client.as_mut().unwrap().status_word("degraded")
    }

    /// Returns the text of a job that writes its name, as soon as there is the file `gate`.
    fn text(&self, name: &str, gate: Option<&str>) -> String {
        let out = self.dir.path("out");
        let out = out.display();
        let gate =
            gate.map_or(String::new(), |gate| format!("until test -e {out}/{gate}; do sleep 0.1; done; "));
        format!("{gate}echo {name} >> {out}/ran")
    }

    /// Adds a job over the socket. Returns true if it was acknowledged.
    fn queue(&mut self, name: &str, gate: Option<&str>) -> bool {
        let request = format!("queue {}", self.text(name, gate));
        let taken = self.ask(&request).starts_with("ok id=");
        if taken {
            self.jobs.push(name.to_owned());
        }
        taken
    }

    /// Returns a path as the service sees it.
    fn inner(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.namespace.id(), self.dir.path(name).display()))
    }

    /// Appends a line to the queue file, which must become a job.
    #[track_caller]
    fn append(&mut self, name: &str) {
        let line = format!("{}\n", self.text(name, None));
        let path = self.inner("var/in/queue");
        let mut file = fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
        if self.mode == Mode::User {
            fchown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        self.jobs.push(name.to_owned());
    }

    fn ran(&self) -> Vec<String> {
        self.dir.read("out/ran").lines().map(str::to_owned).collect()
    }

    #[track_caller]
    fn wait_for(&self, name: &str) {
        wait_until(&format!("{name} runs"), || self.ran().iter().any(|ran| ran == name));
    }

    /// Exchanges two names in one step.
    fn exchange(&self, one: &str, other: &str) {
        let [one, other] =
            [one, other].map(|name| self.dir.path(name).into_os_string().into_string().unwrap());
        rustix::fs::renameat_with(CWD, one.as_str(), CWD, other.as_str(), RenameFlags::EXCHANGE).unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.inner("log/zigsvc.log")).unwrap_or_default()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        self.held.clear();
        if self.pid > 0 && alive(self.pid) {
            kill(self.pid, "KILL");
        }
        drop(self.namespace.stdin.take());
        let _ = self.namespace.wait();
    }
}

fn nothing(_: &mut World) {}

/// No commands before the start.
const PLAIN: &str = "true";

/// The faults.
const FAULTS: &[Fault] = &[
    // ----- the spool
    Fault {
        name: "spool removed",
        named: Line("does not lead to the open journal"),
        mode: Mode::Root,
        setup: PLAIN,
        options: &[],
        make: |world| fs::remove_dir_all(world.dir.path("var/spool")).unwrap(),
        mend: nothing,
    },
    Fault {
        name: "spool moved away",
        named: Line("does not lead to the open journal"),
        mode: Mode::Root,
        setup: PLAIN,
        options: &[],
        make: |world| fs::rename(world.dir.path("var/spool"), world.dir.path("var/away")).unwrap(),
        mend: nothing,
    },
    Fault {
        name: "another spool in its place",
        named: State("spool-moved"),
        mode: Mode::Root,
        setup: PLAIN,
        options: &[],
        make: |world| {
            fs::create_dir(world.dir.path("other")).unwrap();
            world.dir.write("other/journal", "zigsvc-journal 1\n");
            world.exchange("other", "var/spool");
        },
        mend: |world| world.exchange("other", "var/spool"),
    },
    Fault {
        name: "spool mounted over",
        named: State("spool-moved"),
        mode: Mode::Root,
        setup: PLAIN,
        options: &[],
        make: |world| world.shell("mount -t tmpfs none $0/var/spool"),
        mend: |world| world.shell("umount $0/var/spool"),
    },
    Fault {
        name: "spool's disk read-only",
        named: State("spool"),
        mode: Mode::Root,
        setup: "truncate -s 8M $0/image && mkfs.ext4 -q -O ^has_journal $0/image \
                && mount -o loop,errors=remount-ro $0/image $0/var && mkdir $0/var/in",
        options: &[],
        make: |world| {
            world.shell("device=$(basename $(findmnt -no SOURCE $0/var)); echo 1 > /sys/fs/ext4/$device/trigger_fs_error");
            world.queue("refused", None);
        },
        // Such a filesystem is mended and mounted again without the service.
        mend: |world| {
            kill_hard(world.pid);
            world.shell(
                "umount $0/var && e2fsck -fy $0/image >/dev/null || test $? = 1; mount -o loop $0/image $0/var",
            );
            world.start();
        },
    },
    Fault {
        name: "journal immutable",
        named: State("spool"),
        mode: Mode::Root,
        setup: "touch $0/probe && chattr +i $0/probe && chattr -i $0/probe",
        options: &[],
        make: |world| {
            world.shell("chattr +i $0/var/spool/journal");
            world.queue("refused", None);
        },
        mend: |world| world.shell("chattr -i $0/var/spool/journal"),
    },
    Fault {
        name: "spool's disk full",
        named: State("spool-full"),
        mode: Mode::Root,
        setup: "mount -t tmpfs -o size=512k none $0/var && mkdir $0/var/in",
        options: &[],
        make: |world| {
            world.shell("dd if=/dev/zero of=$0/var/filler bs=4k 2>/dev/null || true");
            for number in 0..20 {
                if !world.queue(&format!("full{number}"), None) {
                    break;
                }
            }
        },
        mend: |world| world.shell("rm $0/var/filler"),
    },
    Fault {
        name: "spool's disk without inodes",
        named: State("spool-full"),
        mode: Mode::Root,
        setup: "mount -t tmpfs -o size=256k,nr_inodes=12 none $0/var && mkdir $0/var/in",
        options: &[],
        make: |world| {
            world.shell(
                "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do touch $0/var/filler$n || true; done 2>/dev/null",
            );
            world.shell("dd if=/dev/zero of=$0/var/filler1 bs=4k 2>/dev/null || true");
            for number in 0..20 {
                if !world.queue(&format!("full{number}"), None) {
                    break;
                }
            }
        },
        mend: |world| world.shell("rm $0/var/filler*"),
    },
    // ----- the PID file
    Fault {
        name: "PID file removed",
        named: Line("the PID file was lost, and is made again"),
        mode: Mode::Root,
        setup: PLAIN,
        options: &[],
        make: |world| fs::remove_file(world.dir.path("zigsvc.pid")).unwrap(),
        mend: nothing,
    },
    Fault {
        name: "a folder in place of the PID file",
        named: State("pid-file"),
        mode: Mode::Root,
        setup: PLAIN,
        options: &[],
        make: |world| {
            fs::create_dir(world.dir.path("other")).unwrap();
            world.exchange("other", "zigsvc.pid");
        },
        mend: |world| {
            world.exchange("other", "zigsvc.pid");
        },
    },
    // ----- the queue file
    Fault {
        name: "a folder as queue file",
        named: State("queue-file"),
        mode: Mode::Root,
        setup: PLAIN,
        options: &[],
        make: |world| fs::create_dir(world.dir.path("var/in/queue")).unwrap(),
        mend: |world| fs::remove_dir(world.dir.path("var/in/queue")).unwrap(),
    },
    Fault {
        name: "a link as queue file",
        named: State("queue-file"),
        mode: Mode::Root,
        setup: PLAIN,
        options: &[],
        make: |world| symlink("nowhere", world.dir.path("var/in/queue")).unwrap(),
        mend: |world| fs::remove_file(world.dir.path("var/in/queue")).unwrap(),
    },
    Fault {
        name: "queue file of mode 0",
        named: State("queue-file"),
        mode: Mode::User,
        setup: PLAIN,
        options: &[],
        make: |world| {
            let line = format!("{}\n", world.text("closed", None));
            world.dir.write("prepared", line);
            world.jobs.push("closed".to_owned());
            fs::set_permissions(world.dir.path("prepared"), Permissions::from_mode(0o0)).unwrap();
            chown(world.dir.path("prepared"), Some(NOBODY), Some(NOBODY)).unwrap();
            fs::rename(world.dir.path("prepared"), world.dir.path("var/in/queue")).unwrap();
        },
        mend: |world| {
            fs::set_permissions(world.dir.path("var/in/queue"), Permissions::from_mode(0o644)).unwrap();
        },
    },
    Fault {
        name: "queue file immutable",
        named: State("queue-file"),
        mode: Mode::Root,
        setup: "touch $0/probe && chattr +i $0/probe && chattr -i $0/probe",
        options: &[],
        make: |world| {
            let line = format!("{}\n", world.text("immutable", None));
            world.dir.write("prepared", line);
            world.jobs.push("immutable".to_owned());
            // It comes to its place as such, and never can be claimed before.
            world.shell("mkdir $0/var/new && mv $0/prepared $0/var/new/queue && chattr +i $0/var/new/queue");
            world.exchange("var/new", "var/in");
        },
        mend: |world| world.shell("chattr -i $0/var/in/queue"),
    },
    Fault {
        name: "queue file of somebody else",
        named: State("queue-file"),
        mode: Mode::User,
        setup: "chown 0:0 $0/var/in && chmod 1777 $0/var/in",
        options: &["trust=DIR/var/in"],
        make: |world| {
            let line = format!("{}\n", world.text("foreign", None));
            world.dir.write("prepared", line);
            let path = world.dir.path("prepared");
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            chown(&path, Some(1), Some(1)).unwrap();
            fs::rename(path, world.dir.path("var/in/queue")).unwrap();
        },
        mend: |world| fs::remove_file(world.dir.path("var/in/queue")).unwrap(),
    },
    Fault {
        name: "queue folder read-only",
        named: State("queue-file"),
        mode: Mode::Root,
        setup: "mount --bind $0/var/in $0/var/in",
        options: &[],
        make: |world| {
            world.shell("mount -o remount,bind,ro $0/var/in");
            let line = format!("{}\n", world.text("read-only", None));
            fs::write(world.dir.path("var/in/queue"), line).unwrap();
            world.jobs.push("read-only".to_owned());
        },
        mend: |world| world.shell("mount -o remount,bind,rw $0/var/in"),
    },
    Fault {
        name: "queue folder removed, and its watch with it",
        named: State("queue-file"),
        mode: Mode::Root,
        setup: PLAIN,
        options: &[],
        make: |world| fs::remove_dir_all(world.dir.path("var/in")).unwrap(),
        mend: |world| fs::create_dir(world.dir.path("var/in")).unwrap(),
    },
    Fault {
        name: "claim that cannot be removed",
        named: State("claims"),
        mode: Mode::Root,
        setup: "touch $0/probe && chattr +a $0/probe && chattr -a $0/probe",
        options: &[],
        make: |world| {
            world.append("claimed");
            world.wait_for("claimed");
            world.shell("chattr +a $0/var/in/queue.claim-1");
            // It is removed 10 s after its last line; the fault begins then.
            std::thread::sleep(Duration::from_secs(10));
        },
        mend: |world| world.shell("chattr -a $0/var/in/queue.claim-1"),
    },
    Fault {
        name: "queue full",
        named: State("queue-full"),
        mode: Mode::Root,
        setup: PLAIN,
        options: &["queue_max=2"],
        make: |world| {
            assert!(world.queue("second", Some("open")));
            assert!(!world.queue("third", None));
            world.append("line while full");
        },
        mend: |world| world.dir.write("out/open", ""),
    },
    // ----- the handler and its processes
    Fault {
        name: "handler missing",
        named: State("handler"),
        mode: Mode::Root,
        setup: PLAIN,
        options: &[],
        make: |world| {
            fs::rename(world.dir.path("handler"), world.dir.path("away")).unwrap();
            assert!(world.queue("waits", None));
        },
        mend: |world| fs::rename(world.dir.path("away"), world.dir.path("handler")).unwrap(),
    },
    Fault {
        name: "handler not executable",
        named: State("handler"),
        mode: Mode::Root,
        setup: PLAIN,
        options: &[],
        make: |world| {
            world.shell("chmod 644 $0/handler");
            assert!(world.queue("waits", None));
        },
        mend: |world| world.shell("chmod 755 $0/handler"),
    },
    Fault {
        name: "handler's interpreter missing",
        named: State("handler"),
        mode: Mode::Root,
        setup: PLAIN,
        options: &[],
        make: |world| {
            world.dir.write_executable("other", "#!/nonexistent/sh\neval \"$1\"\n");
            world.exchange("other", "handler");
            assert!(world.queue("waits", None));
        },
        mend: |world| world.exchange("other", "handler"),
    },
    Fault {
        name: "job that may not be signalled",
        named: State("stuck-job"),
        mode: Mode::User,
        setup: "! findmnt -no OPTIONS -T $0 | grep -q nosuid",
        options: &["stop_timeout=500ms", "job_timeout=1s"],
        make: |world| {
            let become_root = world.dir.copy_program(find("setpriv").unwrap(), "become");
            fs::set_permissions(&become_root, Permissions::from_mode(0o4755)).unwrap();
            let text = "queue cd DIR && test ! -e out/pid || exit 0; \
                        echo $$ > out/new && mv out/new out/pid && exec ./become --reuid=0 --clear-groups sleep 300";
            let request = text.replace("DIR", world.dir.as_arg());
            assert!(world.ask(&request).starts_with("ok id="));
            let dir = &world.dir;
            wait_until("it is root's", || {
                let pid = dir.read("out/pid").trim().parse().unwrap_or(0);
                crate::support::proc_status(pid, "Uid").starts_with("0 0")
            });
        },
        mend: |world| kill(world.dir.read("out/pid").trim().parse().unwrap(), "KILL"),
    },
    Fault {
        name: "queue held",
        named: State("held"),
        mode: Mode::Root,
        setup: PLAIN,
        options: &[],
        make: |world| {
            assert!(world.ask("hold").starts_with("ok"));
            assert!(world.queue("waits", None));
        },
        mend: |world| assert!(world.ask("resume").starts_with("ok")),
    },
    // ----- the log and the health file
    Fault {
        name: "log folder removed",
        named: State("log"),
        mode: Mode::Root,
        setup: PLAIN,
        options: &[],
        make: |world| {
            fs::remove_dir_all(world.dir.path("log")).unwrap();
            world.queue("unlogged", None);
        },
        mend: |world| {
            fs::create_dir(world.dir.path("log")).unwrap();
            world.queue("logged", None);
        },
    },
    Fault {
        name: "log's disk full",
        named: State("log"),
        mode: Mode::Root,
        setup: "mount -t tmpfs -o size=64k none $0/log",
        options: &[],
        make: |world| {
            world.shell("dd if=/dev/zero of=$0/log/filler bs=4k 2>/dev/null || true");
            for number in 0..60 {
                world.queue(&format!("unlogged{number}"), None);
            }
        },
        mend: |world| {
            world.shell("rm $0/log/filler");
            world.queue("logged", None);
        },
    },
    Fault {
        name: "stderr takes nothing",
        named: State("log"),
        mode: Mode::Foreground,
        setup: PLAIN,
        options: &[],
        make: |world| {
            assert!(world.ask("queue seq 40000").starts_with("ok"));
        },
        mend: |world| {
            let reader: Box<std::io::PipeReader> = world.held.pop().unwrap().downcast().unwrap();
            world.held.push(Box::new(read_aside(*reader)));
        },
    },
    Fault {
        name: "health folder removed",
        named: State("health"),
        mode: Mode::Root,
        setup: PLAIN,
        options: &[],
        make: |world| fs::remove_dir_all(world.dir.path("health")).unwrap(),
        mend: |world| fs::create_dir(world.dir.path("health")).unwrap(),
    },
    // ----- the socket
    Fault {
        name: "socket removed, its folder read-only",
        named: State("socket"),
        mode: Mode::Root,
        setup: "mount --bind $0/sock $0/sock",
        options: &[],
        make: |world| world.shell("rm $0/sock/zigsvc.sock && mount -o remount,bind,ro $0/sock"),
        mend: |world| world.shell("mount -o remount,bind,rw $0/sock"),
    },
    Fault {
        name: "descriptors exhausted",
        named: State("descriptors"),
        mode: Mode::Root,
        setup: PLAIN,
        options: &[],
        make: |world| {
            let open = fs::read_dir(format!("/proc/{}/fd", world.pid)).unwrap().count();
            world.shell(&format!("prlimit --pid {} --nofile={open}:1024", world.pid));
            world.held.push(Box::new(UnixStream::connect(world.dir.path("sock/zigsvc.sock")).unwrap()));
        },
        mend: |world| {
            world.shell(&format!("prlimit --pid {} --nofile=1024:1024", world.pid));
            world.held.clear();
        },
    },
];

/// Walks one row and returns its line of the table, or the reason why the promise is broken.
fn walk(fault: &Fault) -> Result<String, String> {
    let skipped = || Ok(format!("| {} | skipped | | |\n", fault.name));
    // The service learns of a failed execve(2) from memory that it shares with the child.
    if matches!(fault.named, State("handler"))
        && !require_native("QEMU shares no memory with a child of vfork")
    {
        return skipped();
    }
    let Some(mut world) = World::new(fault) else {
        return skipped();
    };
    // It runs while the fault is made, and again after the kill.
    assert!(world.queue("before", Some("gate")));
    wait_until("there is no fault", || world.degraded() == "none");
    (fault.make)(&mut world);
    let began = Instant::now();
    let name = match fault.named {
        State(name) | Line(name) => name,
    };
    let mut seen = String::new();
    let is_named = crate::support::holds_within(STALE_AFTER + LEEWAY, || match fault.named {
        State(state) => {
            seen = world.degraded();
            seen.split(',').any(|one| one == state)
        }
        Line(line) => world.log().contains(line),
    });
    let took = began.elapsed();
    if !is_named {
        return Err(format!("{}: {name} was not named: {seen}", fault.name));
    }
    if let State(state) = fault.named
        && state != "descriptors"
    {
        // `doctor` names it too, with its cause and what ends it.
        let doctor = finish(world.there(world.command().arg("doctor")), None);
        let row = DegradedState::ALL.iter().find(|row| row.name() == state).unwrap();
        let (cause, remedy) = (row.cause(), row.remedy());
        let told = doctor.out.lines().any(|line| {
            line.starts_with(&format!("warn  jobs: {state}: "))
                && line.ends_with(&format!("{cause}; what ends it: {remedy}"))
        });
        if doctor.code != 1 || !told {
            return Err(format!("{}: doctor does not name {state}: {doctor:?}", fault.name));
        }
    }
    // A job in the middle of the fault is refused, or kept.
    world.queue("meanwhile", None);
    (fault.mend)(&mut world);
    if !crate::support::holds_within(STALE_AFTER * 3, || {
        seen = world.degraded();
        seen == "none"
    }) {
        return Err(format!("{}: the state stays after its cause: {seen}", fault.name));
    }
    // The queue may be full for a moment, with jobs that run now.
    wait_until(&format!("{}: a job is taken after the fault", fault.name), || world.queue("after", None));
    world.append("line");
    world.wait_for("after");
    world.wait_for("line");
    // A job that has not ended by then runs twice.
    wait_until("only the first job is left", || world.client.as_mut().unwrap().ask_list("list").len() == 1);
    kill_hard(world.pid);
    drop(world.running.take());
    world.start();
    world.dir.write("out/gate", "");
    let mut jobs = std::mem::take(&mut world.jobs);
    jobs.sort();
    crate::support::holds_within(crate::support::patience(), || {
        let ran = world.ran();
        jobs.iter().all(|job| ran.contains(job))
    });
    let mut ran = world.ran();
    ran.sort();
    let lost: Vec<_> = jobs.iter().filter(|job| !ran.contains(job)).collect();
    let twice = ran.len() - ran.iter().collect::<std::collections::HashSet<_>>().len();
    let row = format!("| {} | `{name}` | {} ms | {} |\n", fault.name, took.as_millis(), lost.len());
    if lost.is_empty() && twice == 0 {
        Ok(row)
    } else {
        Err(format!("{}: lost {lost:?}, {twice} twice", fault.name))
    }
}

#[test]
fn a_state_names_each_fault_in_time_and_goes_with_it_and_no_job_is_lost() {
    let tools = ["unshare", "nsenter", "setpriv", "prlimit", "chattr", "mkfs.ext4", "findmnt", "mount"];
    if !require_root() || !tools.into_iter().all(require_tool) {
        return;
    }
    let only = std::env::var("ZIGSVC_PROMISE").unwrap_or_default();
    let faults: Vec<_> = FAULTS.iter().filter(|fault| fault.name.contains(&only)).collect();
    let next = AtomicUsize::new(0);
    // A row that fails in another way does not hide the others.
    let worker = || {
        let mut walked = Vec::new();
        while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
            let failed = || Err(format!("{}: see the message above", fault.name));
            walked.push((
                fault.name,
                catch_unwind(AssertUnwindSafe(|| walk(fault))).unwrap_or_else(|_| failed()),
            ));
        }
        walked
    };
    let mut walked = std::thread::scope(|scope| {
        let workers = [(); 4].map(|()| scope.spawn(worker));
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    walked.sort_by_key(|(name, _)| faults.iter().position(|fault| fault.name == *name));
    let mut table = String::from("| fault | named by | after | jobs lost |\n| --- | --- | --- | --- |\n");
    let mut broken = Vec::new();
    for (_, row) in walked {
        match row {
            Ok(row) => table.push_str(&row),
            Err(why) => broken.push(why),
        }
    }
    println!("{table}");
    assert!(broken.is_empty(), "{table}{broken:#?}");
}
