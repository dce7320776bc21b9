//! The real binary, a folder of its own for each test, and waiting for conditions instead of
//! sleeping.
//!
//! The binary runs as a user would run it, except when the tests are for another
//! architecture: then through the runner that Cargo used for the tests
//! themselves (`CARGO_TARGET_<TRIPLE>_RUNNER`), if there is one. With
//! `qemu/test` there is mostly none, because the kernel there knows QEMU.
//!
//! A test ends only processes that it started. [`Dir`] stops its services when
//! it goes out of scope, in a failing test too, and finds them by the locks of
//! their PID files, never by name.
//!
//! Changing this: a service with another PID file than `zigsvc*.pid` in the
//! folder of `-d` would outlive its test.

pub mod control;
pub mod foreground;
pub mod opener;
pub mod random;
pub mod small_disk;
pub mod supervisor;

use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{Flock, FlockType, Pid, Signal};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// The binary under test, built by Cargo for the same target and profile.
const BINARY: &str = env!("CARGO_BIN_EXE_zigsvc");

/// Exec format error, errno(3): a program that this kernel cannot execute.
const ENOEXEC: i32 = 8;

/// Returns a command of the real binary with a clean environment and nothing on its standard
/// input. Of the caller's variables it keeps `PATH`; there is no home.
pub fn zigsvc() -> Command {
    let runner = runner();
    let mut command = match runner.split_first() {
        Some((name, arguments)) => {
            let mut command = program(name);
            command.args(arguments).arg(BINARY);
            command
        }
        None => program(BINARY),
    };
    command.env_clear().env("HOME", "/nonexistent").stdin(Stdio::null());
    for (name, value) in std::env::vars_os() {
        // The last two are for the runner.
        let bytes = name.as_bytes();
        if bytes == b"PATH" || bytes.starts_with(b"QEMU_") || bytes.starts_with(b"CROSS_") {
            command.env(name, value);
        }
    }
    command
}

/// Returns a command with nothing on its standard input: the test's own may be a terminal, a
/// pipe or closed, and no verdict depends on it.
pub fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.stdin(Stdio::null());
    command
}

/// Returns the words of the target's runner; none where programs for the target are executed
/// as they are.
pub fn runner() -> Vec<String> {
    let target = env!("ZIGSVC_TARGET").to_uppercase().replace(['-', '.'], "_");
    let words = std::env::var(format!("CARGO_TARGET_{target}_RUNNER")).unwrap_or_default();
    words.split_whitespace().map(str::to_owned).collect()
}

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub struct Ran {
    /// Its exit status, or as in a shell 128 and the number of the signal.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Ran {
    /// Insists on exit status `code`, or else shows what was written.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "out: {}\nerr: {}", self.out, self.err);
        self
    }
}

/// Runs `zigsvc ARGS...` to its end.
#[track_caller]
pub fn run(args: &[&str]) -> Ran {
    let mut command = zigsvc();
    command.args(args);
    finish(command, None)
}

/// Runs any command to its end, with `input` on its standard input. A command that
/// has not ended after two minutes is killed, it alone, and the test fails. The test also fails
/// if the command ends and a process that it started still holds its output open, as a daemon
/// must not.
#[track_caller]
pub fn finish(mut command: Command, input: Option<&[u8]>) -> Ran {
    if input.is_some() {
        command.stdin(Stdio::piped());
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let deadline = Instant::now() + Duration::from_secs(if under_qemu() { 180 } else { 120 });
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input.map(<[u8]>::to_vec)) {
        // A program may end without reading all of it.
        std::thread::spawn(move || drop(stdin.write_all(&input)));
    }
    let out = read_aside(child.stdout.take().unwrap());
    let err = read_aside(child.stderr.take().unwrap());
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?}: has not ended; out: {:?}; err: {:?}", out.try_recv(), err.try_recv());
        }
        std::thread::sleep(poll_interval());
    };
    let rest = |receiver: Receiver<String>| {
        receiver
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            .unwrap_or_else(|_| panic!("{command:?}: has ended, but its output is still open"))
    };
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ran { code, out: rest(out), err: rest(err) }
}

/// Waits for a program that was started with pipes for its output, and returns how it ended.
/// The program must not write more than the pipes hold.
#[track_caller]
pub fn outcome(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
    Ran { code, out: text(&output.stdout), err: text(&output.stderr) }
}

/// A process of the test, which ends with it.
pub struct Running(pub Child);

impl Running {
    /// Starts it.
    pub fn new(mut command: Command) -> Self {
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// Starts a process that no service may signal.
    pub fn sleeper() -> Self {
        let mut command = program("sleep");
        command.arg("600");
        Self::new(command)
    }

    /// Returns the PID.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Returns true if the process has not ended.
    pub fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// Waits for its end; the exit status.
    #[track_caller]
    pub fn code(&mut self) -> i32 {
        wait_until("it has ended", || self.0.try_wait().unwrap().is_some());
        self.0.wait().unwrap().code().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.runs() {
            // A supervisor takes its program with it.
            kill(self.pid(), "TERM");
            kill(self.pid(), "CONT");
            holds_within(Duration::from_secs(5), || !self.runs());
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads a stream to its end in a thread of its own.
pub fn read_aside(mut stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// A fresh folder for one test, for the `-d` of everything that it runs. Its
/// path is short, because that of a Unix socket has at most 107 bytes.
pub struct Dir {
    path: PathBuf,
}

impl Dir {
    /// Creates it, for its owner only.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = PathBuf::from(format!("/tmp/zigsvc-{}-{number}", std::process::id()));
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Self { path },
                // The folder is left from a killed test that had the same PID.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    /// Returns the path of `name` in the folder, or that of the folder itself for `""`.
    pub fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.path.clone() } else { self.path.join(name) }
    }

    /// Returns the folder, as an argument.
    pub fn as_arg(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Reads a file as text, whatever is in it; empty if it is missing.
    pub fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.path(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Creates or replaces a file.
    #[track_caller]
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// Appends to a file, in one write.
    #[track_caller]
    pub fn append(&self, name: &str, text: &str) {
        let mut options = fs::OpenOptions::new();
        let mut file = options.append(true).create(true).open(self.path(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// Creates an executable script, as [`install`].
    #[track_caller]
    pub fn write_executable(&self, name: &str, text: &str) {
        install(&self.path(name), text);
    }

    /// Creates a copy of a program, which the test or its service executes.
    #[track_caller]
    pub fn copy_program(&self, program: impl AsRef<Path>, name: &str) -> PathBuf {
        let file = self.path(name);
        install_from(&file, Stdio::from(fs::File::open(program).unwrap()));
        file
    }

    /// Returns the command `zigsvc -d DIR`, for more arguments.
    pub fn command(&self) -> Command {
        let mut command = zigsvc();
        command.arg("-d").arg(&self.path);
        command
    }

    /// Runs `zigsvc -d DIR ARGS...` to its end.
    #[track_caller]
    pub fn zigsvc(&self, args: &[&str]) -> Ran {
        self.zigsvc_with_input(args, b"")
    }

    /// Runs `zigsvc -d DIR ARGS...` to its end, with `input` on its standard input.
    #[track_caller]
    pub fn zigsvc_with_input(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command();
        command.args(args);
        finish(command, (!input.is_empty()).then_some(input))
    }

    /// Starts the service `jobs` with `-o` for each of `options`, insists that
    /// this works, and returns its PID.
    #[track_caller]
    pub fn start(&self, options: &[&str]) -> u32 {
        self.start_service("jobs", options)
    }

    /// Starts any service with `-o` for each of `options`, insists that this works, and returns
    /// its PID.
    #[track_caller]
    pub fn start_service(&self, service: &str, options: &[&str]) -> u32 {
        let mut command = self.command();
        for option in options {
            command.args(["-o", option]);
        }
        command.arg("start");
        if service != "jobs" {
            command.arg(service);
        }
        let ran = finish(command, None);
        let pid = ran
            .out
            .lines()
            .next()
            .unwrap_or("")
            .strip_prefix(&format!("zigsvc: {service} started (pid "))
            .and_then(|rest| rest.strip_suffix(')')?.parse().ok());
        match pid {
            Some(pid) if ran.code == 0 => pid,
            _ => panic!("start {service}: {ran:?}\n{}", self.logs()),
        }
    }

    /// Returns the PID of the process that holds the lock of the PID file `name`.
    pub fn lock_holder(&self, name: &str) -> Option<u32> {
        lock_holder(&self.path(name))
    }

    /// Returns the logs of all services, for the message of a failure.
    pub fn logs(&self) -> String {
        let logs = self.files("log").into_iter();
        logs.map(|name| format!("--- {name}\n{}", self.read(&name))).collect()
    }

    /// Returns the names of the `zigsvc*.SUFFIX` files. The supervisor's is the first, because the
    /// supervisor would start the services again that are stopped before it.
    fn files(&self, suffix: &str) -> Vec<String> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let suffix = format!(".{suffix}");
        let mut names: Vec<_> =
            names.filter(|name| name.starts_with("zigsvc") && name.ends_with(&suffix)).collect();
        names.sort_by_key(|name| (!name.contains("supervisor"), name.clone()));
        names
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for name in self.files("pid") {
            let service = name.trim_end_matches(".pid").strip_prefix("zigsvc-").unwrap_or("jobs");
            if self.lock_holder(&name).is_some() {
                // Not `finish`, which may panic.
                let mut command = self.command();
                command.args(["stop", service]).stdout(Stdio::null()).stderr(Stdio::null());
                if let Ok(mut child) = command.spawn()
                    && !holds_within(Duration::from_secs(30), || !matches!(child.try_wait(), Ok(None)))
                {
                    let _ = child.kill();
                    let _ = child.wait();
                }
            }
            if let Some(pid) = self.lock_holder(&name).and_then(to_pid) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                holds_within(Duration::from_secs(10), || self.lock_holder(&name).is_none());
            }
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Returns the PID of the process that holds a write lock of the file (fcntl(2), `F_GETLK`);
/// `None` if there is no such file.
pub fn lock_holder(path: &Path) -> Option<u32> {
    let fd =
        rustix::fs::openat(CWD, path.as_os_str().as_bytes(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let lock = rustix::process::fcntl_getlk(fd.ok()?, &Flock::from(FlockType::WriteLock)).ok()??;
    u32::try_from(lock.pid?.as_raw_nonzero().get()).ok()
}

/// Waits until the condition holds; `what` names it in the message if it does
/// not within 30 seconds (90 under QEMU).
#[track_caller]
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    let limit = patience();
    assert!(holds_within(limit, condition), "waited {limit:?} in vain until {what}");
}

/// Returns how long a test waits for anything before it fails.
pub fn patience() -> Duration {
    Duration::from_secs(if under_qemu() { 90 } else { 30 })
}

/// Returns true if the condition holds before `limit` has passed.
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(poll_interval());
    }
}

/// Waits for a constant of the program to pass, and a little longer. For a
/// test of what does *not* happen in that time, or that needs the program to look once more.
pub fn let_pass(constant: zigsvc::util::time::Duration) {
    let ms = constant.as_ms();
    std::thread::sleep(Duration::from_millis(ms + ms / 20 + 200));
}

/// Waits until `jobs` has ended a turn of its loop that began after this call.
#[track_caller]
pub fn wait_for_turn(dir: &Dir, pid: u32) {
    // The answer to one signal may come from the middle of a turn.
    for _ in 0..2 {
        status_line(dir, "zigsvc.log", pid);
    }
}

/// Returns how long to leave the processor to others between two looks.
fn poll_interval() -> Duration {
    Duration::from_millis(if under_qemu() { 20 } else { 5 })
}

/// Returns true if the process exists and has not ended. A zombie has ended (proc(5)), unless
/// it has threads that have not: until then its descriptors may be open. QEMU is such a process.
pub fn alive(pid: u32) -> bool {
    match process_state(pid) {
        Some('Z') => fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1),
        Some(state) => !matches!(state, 'X' | 'x'),
        None => false,
    }
}

/// Returns the state letter of a process, as ps(1) shows it.
pub fn process_state(pid: u32) -> Option<char> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name before it, in parentheses, can hold anything.
    String::from_utf8_lossy(&stat).rsplit_once(") ")?.1.chars().next()
}

/// Sends a signal, by its name without SIG, to a process that must exist.
#[track_caller]
pub fn kill(pid: u32, signal: &str) {
    let number = match signal {
        "HUP" => Signal::HUP,
        "INT" => Signal::INT,
        "QUIT" => Signal::QUIT,
        "ABRT" => Signal::ABORT,
        "KILL" => Signal::KILL,
        "SEGV" => Signal::SEGV,
        "USR1" => Signal::USR1,
        "USR2" => Signal::USR2,
        "PIPE" => Signal::PIPE,
        "ALRM" => Signal::ALARM,
        "TERM" => Signal::TERM,
        "STOP" => Signal::STOP,
        "CONT" => Signal::CONT,
        _ => panic!("no such signal here: {signal}"),
    };
    let result = rustix::process::kill_process(to_pid(pid).expect("a PID"), number);
    assert!(result.is_ok(), "kill -{signal} {pid}: {result:?}");
}

/// Converts the PID to the type of rustix.
fn to_pid(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Returns true if this program runs under QEMU's user mode. QEMU replaces `/proc/self`, but
/// not the link that is read here.
pub fn under_qemu() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let executable = fs::read_link("/proc/thread-self/exe").unwrap_or_default();
        executable.file_name().is_some_and(|name| name.to_string_lossy().contains("qemu"))
    })
}

/// Returns true if the tests run as root, if only that of a user namespace.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Returns true if `name` is on the PATH. If not, the test should return, because this
/// function has printed that it is skipped. With `ZIGSVC_REQUIRE_ALL=1` it fails.
#[track_caller]
pub fn require_tool(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/sbin:/usr/bin:/sbin:/bin"));
    let found = std::env::split_paths(&path).any(|dir| {
        fs::metadata(dir.join(name))
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    });
    require(found, &format!("there is no {name} on the PATH"))
}

/// Returns the absolute path of a program, or notes that the test is skipped.
#[track_caller]
pub fn find(name: &str) -> Option<PathBuf> {
    if name.starts_with('/') {
        return Some(name.into());
    }
    if !require_tool(name) {
        return None;
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into());
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Writes an executable script. A child does it: had this process the file
/// open, it could not be executed (ETXTBSY) as long as a process that another
/// thread forks meanwhile has not come to its own exec.
#[track_caller]
pub fn install(path: &Path, text: &str) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    // A script fits into the pipe, so this does not wait.
    assert!(text.len() < 65_536);
    writer.write_all(text.as_bytes()).unwrap();
    drop(writer);
    install_from(path, Stdio::from(reader));
}

/// Writes an executable file with the content of `source`.
#[track_caller]
fn install_from(path: &Path, source: Stdio) {
    let mut writer = program("/bin/sh");
    writer.args(["-c", "cat >\"$0\" && chmod 755 \"$0\""]).arg(path).stdin(source);
    assert!(writer.status().unwrap().success(), "{} cannot be written", path.display());
}

/// Returns true if the binary can execute itself, as the supervisor does. Under QEMU that
/// takes a kernel that knows QEMU. If not, the test is skipped as for [`require_tool`].
#[track_caller]
pub fn require_self_exec() -> bool {
    let result = program(BINARY).arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let refused = matches!(result, Err(error) if error.raw_os_error() == Some(ENOEXEC));
    require(!refused, "this kernel does not execute programs for the target by itself (binfmt_misc)")
}

/// Returns true if the tests run as root. If not, the test is skipped as for [`require_tool`].
#[track_caller]
pub fn require_root() -> bool {
    require(is_root(), "this test needs root")
}

/// Returns true if the programs run natively. Under QEMU's user mode, which cannot do something
/// for the reason `why`, a test or a part of it is skipped, as with `require_tool`.
#[track_caller]
pub fn require_native(why: &str) -> bool {
    require(!under_qemu(), why)
}

/// Returns true if `met` is true. If it is not, prints that a test is skipped, and why.
#[track_caller]
pub fn require(met: bool, why: &str) -> bool {
    if !met {
        assert!(std::env::var_os("ZIGSVC_REQUIRE_ALL").is_none_or(|all| all != "1"), "{why}");
        let caller = core::panic::Location::caller();
        // The line bypasses the capture of the test harness, which would hide it.
        let _ = writeln!(std::io::stderr(), "\nSKIP: {why} ({}:{})", caller.file(), caller.line());
    }
    met
}

/// Returns the lock under which tests measure processor time, wake-ups and memory, one
/// after the other, so that no two of them compete for the processor. A test takes it before it
/// sets up anything that does not last: it may wait for it for half a minute.
pub fn measuring() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    // A test that failed has measured nothing that the next one needs.
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns a number from the environment, or else `default`.
#[track_caller]
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: no number")))
}

/// Returns how many lines of `text` contain `needle`.
pub fn log_lines_matching(text: &str, needle: &str) -> usize {
    text.lines().filter(|line| line.contains(needle)).count()
}

/// Returns the command `words COMMAND...`: a command started by another one, such as
/// `setpriv`, with the same environment.
pub fn through(words: &[&str], inner: &Command) -> Command {
    let mut command = program(words[0]);
    command.args(&words[1..]).arg(inner.get_program()).args(inner.get_args()).env_clear();
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    if let Some(folder) = inner.get_current_dir() {
        command.current_dir(folder);
    }
    command.stdin(Stdio::null());
    command
}

/// Returns a command that a shell script starts. The script finds it in `"$@"`.
pub fn by_shell(script: &str, inner: &Command) -> Command {
    through(&["sh", "-c", script, "sh"], inner)
}

/// Returns the value of `name` in `/proc/PID/status` (proc(5)).
pub fn proc_status(pid: u32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the texts of the jobs that were processed according to the log.
pub fn processed(dir: &Dir) -> Vec<String> {
    let log = dir.read("zigsvc.log");
    log.lines().filter_map(|line| Some(line.split_once("processing job: ")?.1.to_owned())).collect()
}

/// Waits until `count` jobs are processed.
#[track_caller]
pub fn wait_for_jobs(dir: &Dir, count: usize) {
    wait_until(&format!("{count} jobs are processed"), || processed(dir).len() >= count);
}

/// Waits until the log of `jobs` contains `text`.
#[track_caller]
pub fn wait_for_log(dir: &Dir, text: &str) {
    wait_until(&format!("the log has {text:?}"), || dir.read("zigsvc.log").contains(text));
}

/// Waits until the log `name` contains `text`.
#[track_caller]
pub fn wait_for_log_of(dir: &Dir, name: &str, text: &str) {
    wait_until(&format!("{name} has {text:?}"), || dir.read(name).contains(text));
}

/// Waits until the file has `count` lines, and returns them.
#[track_caller]
pub fn wait_for_lines(dir: &Dir, name: &str, count: usize) -> Vec<String> {
    wait_until(&format!("{name} has {count} lines"), || dir.read(name).matches('\n').count() >= count);
    dir.read(name).lines().map(str::to_owned).collect()
}

/// Sends USR2 and returns the line of the log that answers it.
#[track_caller]
pub fn status_line(dir: &Dir, log: &str, pid: u32) -> String {
    let count = || log_lines_matching(&dir.read(log), "status: ");
    let before = count();
    kill(pid, "USR2");
    wait_until("it logs its status", || count() > before);
    dir.read(log).lines().rfind(|line| line.contains("status: ")).unwrap().to_owned()
}

/// Returns the word that the answer of `jobs` to USR2 has for `key`.
#[track_caller]
pub fn logged_word(dir: &Dir, pid: u32, key: &str) -> String {
    let line = status_line(dir, "zigsvc.log", pid);
    let value = line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("{key} in {line}")).to_owned()
}

/// Returns true if `jobs` logs that no job waits or runs. The end of each is recorded then.
#[track_caller]
pub fn is_idle(dir: &Dir, pid: u32) -> bool {
    ["waiting", "running"].iter().all(|key| logged_word(dir, pid, key) == "0")
}

/// Returns the number that the answer of `jobs` to USR2 has for `key`.
#[track_caller]
pub fn logged_number(dir: &Dir, pid: u32, key: &str) -> u64 {
    logged_word(dir, pid, key).parse().unwrap()
}

/// Returns the sequence number of a heartbeat; 0 if there is none.
pub fn heartbeat(dir: &Dir, file: &str) -> u64 {
    let text = dir.read(file);
    text.split("seq=").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap_or(0)
}

/// Kills a process that is not a child of the test, and waits until it is gone.
#[track_caller]
pub fn kill_hard(pid: u32) {
    kill(pid, "KILL");
    wait_until("it is gone", || !alive(pid));
}

/// The line of `start` about the default handler.
pub const HANDLER_LOG: &str =
    "zigsvc: handler log: jobs are logged and nothing runs; set `handler` to run them\n";

/// Returns the error of a command whose service does not run: it names the path that was tried, and the command
/// that starts the service.
pub fn not_running(dir: &Dir, service: &str, file: &str) -> String {
    format!("zigsvc: {service}: not running (tried {}); {}\n", dir.path(file).display(), starts(service))
}

/// Returns the end of that error: the command that starts the service.
pub fn starts(service: &str) -> String {
    let name = if service == "jobs" { String::new() } else { format!(" {service}") };
    format!("`zigsvc start{name}` starts it")
}
