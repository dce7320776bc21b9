//! A client of the control socket (`docs/control.md`).
//!
//! A connection has the credentials that its thread had at connect(2), so one
//! program can be several users: [`connect_as`].

use super::{Dir, patience, program, require, require_root, wait_for_lines, wait_until};
use core::sync::atomic::{AtomicBool, Ordering};
use rustix::process::{Gid, Uid};
use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Number of requests, each of which has one line in the answer to `help`.
pub const REQUEST_COUNT: usize = 19;

/// A user and a group that own nothing.
pub const NOBODY: u32 = 65534;

/// A connection, and what was read from it but not asked for yet.
pub struct Client {
    stream: UnixStream,
    read: Vec<u8>,
}

impl Client {
    /// Connects to the service of the folder.
    #[track_caller]
    pub fn new(dir: &Dir) -> Self {
        let path = dir.path("zigsvc.sock");
        Self::over(UnixStream::connect(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// Talks over this connection.
    pub fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(patience())).unwrap();
        stream.set_write_timeout(Some(patience())).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// Sends these bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends these bytes to a service that may be gone.
    ///
    /// # Errors
    /// The service is gone.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends as much as the service takes at the moment, and what the kernel
    /// keeps for it; returns the number of bytes.
    pub fn send_some(&mut self, bytes: &[u8]) -> usize {
        self.stream.set_nonblocking(true).unwrap();
        let sent = self.stream.write(bytes).unwrap_or(0);
        self.stream.set_nonblocking(false).unwrap();
        sent
    }

    /// Says that no more requests will come.
    pub fn end_sending(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Reads the next line without its newline; `None` at the end.
    #[track_caller]
    pub fn bytes(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.read.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.read.drain(..=at).collect();
                line.pop();
                return Some(line);
            }
            let mut more = [0; 65_536];
            match self.stream.read(&mut more) {
                Ok(0) => {
                    assert!(self.read.is_empty(), "half a line: {:?}", String::from_utf8_lossy(&self.read));
                    return None;
                }
                Ok(count) => self.read.extend_from_slice(&more[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("no answer: {error}"),
            }
        }
    }

    /// Reads the next line; `None` if the service ended before it was whole.
    pub fn try_line(&mut self) -> Option<String> {
        loop {
            if self.read.contains(&b'\n') {
                return Some(self.line());
            }
            let mut more = [0; 4096];
            match self.stream.read(&mut more) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.read.extend_from_slice(&more[..count]),
            }
        }
    }

    /// Reads the next line, which must come.
    #[track_caller]
    pub fn line(&mut self) -> String {
        let line = self.bytes().expect("the connection was closed");
        String::from_utf8_lossy(&line).into_owned()
    }

    /// Reads `count` lines.
    #[track_caller]
    pub fn lines(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.line()).collect()
    }

    /// Reads all lines up to the end of the connection.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<String> {
        let lines = core::iter::from_fn(|| self.bytes());
        lines.map(|line| String::from_utf8_lossy(&line).into_owned()).collect()
    }

    /// Sends one request, and returns the first line of its answer.
    #[track_caller]
    pub fn ask(&mut self, request: &str) -> String {
        self.send(format!("{request}\n"));
        self.line()
    }

    /// Sends a request that is answered by `ok N` and N lines, and returns these lines.
    #[track_caller]
    pub fn ask_list(&mut self, request: &str) -> Vec<String> {
        let head = self.ask(request);
        let count = head.strip_prefix("ok ").and_then(|count| count.parse().ok());
        self.lines(count.unwrap_or_else(|| panic!("{request}: {head}")))
    }

    /// Adds a job, which must work; returns its id.
    #[track_caller]
    pub fn queue(&mut self, text: &str) -> u64 {
        id_in(&self.ask(&format!("queue {text}")))
    }

    /// Adds these jobs, all sent ahead; returns their ids.
    #[track_caller]
    pub fn queue_all(&mut self, texts: &[impl AsRef<str>]) -> Vec<u64> {
        let requests: String = texts.iter().map(|text| format!("queue {}\n", text.as_ref())).collect();
        self.send(requests);
        texts.iter().map(|_| id_in(&self.line())).collect()
    }

    /// Returns the word that `status` has for `name`.
    #[track_caller]
    pub fn status_word(&mut self, name: &str) -> String {
        let answer = self.ask("status");
        field(&answer, name).to_owned()
    }

    /// Returns the number that `status` has for `name`.
    #[track_caller]
    pub fn status(&mut self, name: &str) -> u64 {
        self.status_word(name).parse().unwrap()
    }

    /// Returns the result of `ask`, and ends the connection. A program that another test starts
    /// at this moment has a copy of the descriptor until it is executed, so a close alone could
    /// leave the connection open.
    #[track_caller]
    fn once<T>(mut self, ask: impl FnOnce(&mut Self) -> T) -> T {
        let answer = ask(&mut self);
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        answer
    }
}

/// Returns the value of a field in an answer that is `ok`.
#[track_caller]
pub fn field<'a>(answer: &'a str, name: &str) -> &'a str {
    let fields = answer.strip_prefix("ok ").unwrap_or_else(|| panic!("{name}: {answer}"));
    let value = fields.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("{name} in {answer}"))
}

/// Returns the id in `ok id=N`.
#[track_caller]
pub fn id_in(answer: &str) -> u64 {
    let id = answer.strip_prefix("ok id=").and_then(|id| id.parse().ok());
    id.unwrap_or_else(|| panic!("no id: {answer}"))
}

/// Insists that the answer is `err CODE` and a text.
#[track_caller]
pub fn expect_error(answer: &str, code: &str) {
    let text = answer.strip_prefix("err ").and_then(|rest| rest.strip_prefix(code)?.strip_prefix(' '));
    assert!(text.is_some_and(|text| !text.is_empty()), "not err {code}: {answer}");
}

/// Asks over a connection of its own.
#[track_caller]
pub fn ask(dir: &Dir, request: &str) -> String {
    Client::new(dir).once(|client| client.ask(request))
}

/// Returns the number that `status` has for `name`, over a connection of its own.
#[track_caller]
pub fn status(dir: &Dir, name: &str) -> u64 {
    Client::new(dir).once(|client| client.status(name))
}

/// Returns the word that `status` has for `name`, over a connection of its own.
#[track_caller]
pub fn status_word(dir: &Dir, name: &str) -> String {
    Client::new(dir).once(|client| client.status_word(name))
}

/// Returns the ids of all jobs that `list STATE` shows, page after page.
#[track_caller]
pub fn list_ids(client: &mut Client, state: &str) -> Vec<u64> {
    let mut ids: Vec<u64> = Vec::new();
    loop {
        let after = ids.last().copied().unwrap_or(0);
        let page = client.ask_list(&format!("list {state} {after}"));
        ids.extend(page.iter().map(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap()));
        if page.len() < 100 {
            assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len(), "{ids:?}");
            return ids;
        }
    }
}

/// Connects as another user, with this group and these others. For root only.
///
/// # Errors
/// That of connect(2).
pub fn connect_as(path: &Path, uid: u32, gid: u32, groups: &[u32]) -> std::io::Result<UnixStream> {
    as_user(uid, gid, groups, || UnixStream::connect(path))
}

/// Connects as another user, in whatever way.
///
/// # Errors
/// That of connect(2).
pub fn as_user(
    uid: u32,
    gid: u32,
    groups: &[u32],
    connect: impl FnOnce() -> std::io::Result<UnixStream> + Send,
) -> std::io::Result<UnixStream> {
    std::thread::scope(|scope| {
        // The kernel's credentials are those of a thread, and this one ends.
        let connecting = scope.spawn(|| {
            become_user(uid, gid, groups)?;
            connect()
        });
        connecting.join().unwrap()
    })
}

fn become_user(uid: u32, gid: u32, groups: &[u32]) -> std::io::Result<()> {
    let groups: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let became = rustix::thread::set_thread_groups(&groups)
        .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
        .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid));
    became.map_err(|errno| std::io::Error::from_raw_os_error(errno.raw_os_error()))
}

/// Connects a client that is [`NOBODY`], without further groups.
#[track_caller]
pub fn nobody(dir: &Dir) -> Client {
    Client::over(connect_as(&dir.path("zigsvc.sock"), NOBODY, NOBODY, &[]).unwrap())
}

/// Returns true if a test can be other users, who can enter `dir` from now on. If not, it
/// reports that the test is skipped, as [`require`] does.
#[track_caller]
pub fn require_users(dir: &Dir) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir.path(""), std::fs::Permissions::from_mode(0o755)).unwrap();
    let works = || std::thread::spawn(|| become_user(NOBODY, NOBODY, &[1]).is_ok()).join().unwrap();
    require_root() && require(works(), "this test must become another user")
}

/// Starts `jobs` with a log that is never rotated.
#[track_caller]
pub fn start(dir: &Dir, options: &[&str]) -> u32 {
    dir.start(&[&["log_max=0"], options].concat())
}

/// Writes a script that runs in the test's folder, and returns `handler=` and its path.
#[track_caller]
pub fn script(dir: &Dir, text: &str) -> String {
    dir.write_executable("handler", &format!("#!/bin/sh\ncd {} || exit 1\n{text}\n", dir.as_arg()));
    format!("handler={}", dir.path("handler").display())
}

/// Starts `jobs` with this [`script`] as handler and further options.
#[track_caller]
pub fn start_script(dir: &Dir, text: &str, options: &[&str]) -> u32 {
    let handler = script(dir, text);
    start(dir, &[&[handler.as_str()], options].concat())
}

/// Notes each attempt in `out`, and waits for `go`.
pub const GATE: &str = "echo \"$1 $ZIGSVC_ATTEMPT\" >> out\nuntil [ -e go ]; do sleep 0.05; done";

/// Notes each attempt in `out`, and fails until there is `go`.
pub const FAILING: &str = "echo \"$1 $ZIGSVC_ATTEMPT\" >> out; [ -e go ]";

/// Returns the lines that the handlers wrote, once there are `count` of them.
#[track_caller]
pub fn out(dir: &Dir, count: usize) -> Vec<String> {
    wait_for_lines(dir, "out", count)
}

/// Returns the PID that a handler wrote into a file.
#[track_caller]
pub fn pid_in(dir: &Dir, name: &str) -> u32 {
    wait_until(&format!("{name} holds a PID"), || dir.read(name).ends_with('\n'));
    dir.read(name).trim().parse().unwrap()
}

/// Returns `job 1` to `job COUNT`.
pub fn jobs(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("job {number}")).collect()
}

/// Sets a flag when it goes out of scope, in a failing test too, so that the
/// threads of the test end.
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Returns the hundredths of a second of processor time that the process has used, as the
/// kernel counts them.
pub fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Lets no file of the process grow beyond this (getrlimit(2), RLIMIT_FSIZE).
#[track_caller]
pub fn limit_files(pid: u32, bytes: &str) {
    let mut command = program("prlimit");
    command.args(["--pid", &pid.to_string(), &format!("--fsize={bytes}")]);
    super::finish(command, None).expect(0);
}
