//! One running handler: its process group, and its output line by line.

use crate::limits::{HANDLER_WORDS_BYTES, HANDLER_WORDS_MAX, JOB_MAX_BYTES, PATH_MAX_BYTES, WORDS_MAX};
use crate::proto::config::keys::allowed_paths;
use crate::proto::config::{Config, Handler};
use crate::proto::leftovers::{NotedGroup, TOKEN_VARIABLE, Token};
use crate::service::child_output::ChildOutput;
use crate::service::log::Log;
use crate::state::window::{AttemptOutcome, Slot};
use crate::sys::oom::OomScore;
use crate::sys::process::Pid;
use crate::sys::spawn::{Child, Program, Role, SAFE_PATH, spawn};
use crate::sys::{Errno, Failure, Op, OwnedFd, clock, file};
use crate::util::lines::words;
use crate::util::path::Path;
use crate::util::text::{Writer, text_with_number};
use core::ffi::CStr;
use heapless::Vec;
use ufmt::uwrite;

/// See the module's documentation.
pub(super) struct JobWorker {
    /// The job.
    pub(super) id: u64,
    /// The handler, and its process group.
    pub(super) pid: Pid,
    /// The group, for the note.
    pub(super) group: NotedGroup,
    /// Its output.
    pub(super) output: ChildOutput,
    /// The other end of the pipe, held so that closing it wakes no process. The end of the
    /// leader counts, and follows at once.
    _input: OwnedFd,
}

/// The mark of all handlers of this process, by which a later one recognises what they left.
#[derive(Clone, Copy)]
pub(super) struct HandlerMark {
    /// The value of `ZIGSVC_TOKEN`.
    pub(super) token: Token,
    /// The session.
    pub(super) session: u32,
}

/// Why a handler could not be started.
pub(super) enum NotStarted {
    /// A system call failed; it may work later.
    Failed(Failure),
    /// The job names no program that may run; the text says why.
    Refused(&'static str, AttemptOutcome),
    /// The job names a program that the kernel does not execute.
    Unfit(Failure),
}

/// Returns true if execve(2) fails with this error because of the file, and would fail again.
fn is_of_program(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NOENT
            | Errno::ACCESS
            | Errno::NOEXEC
            | Errno::LOOP
            | Errno::NOTDIR
            | Errno::ISDIR
            | Errno::INVAL
            | Errno::LIBBAD
    )
}

/// Returns the outcome of an attempt whose program fails with this error, as a shell has it.
pub(super) fn outcome_of(errno: Errno) -> AttemptOutcome {
    if errno == Errno::NOENT { AttemptOutcome::NotStarted } else { AttemptOutcome::Code(126) }
}

impl JobWorker {
    /// Starts the handler for one attempt of a job.
    ///
    /// # Errors
    /// [`NotStarted`]
    pub(super) fn start(
        config: &Config,
        oom_score: &mut OomScore,
        mark: &HandlerMark,
        slot: &Slot,
        text: &[u8],
    ) -> Result<Self, NotStarted> {
        let Slot { id, attempt, .. } = *slot;
        let from = clock::now();
        oom_score.raise();
        let child = start_handler(config, id, attempt, &mark.token, text);
        oom_score.restore();
        let child = child?;
        let number = child.pid.as_raw_pid().unsigned_abs();
        let HandlerMark { token, session } = *mark;
        let group = NotedGroup { number, session, job: id, from, upto: clock::now(), token };
        let output = ChildOutput::new(Some(child.output));
        Ok(Self { id, pid: child.pid, group, output, _input: child.input })
    }

    /// Takes the output of the handler, up to one turn's share.
    pub(super) fn read_output(
        &mut self,
        log: &mut Log,
        scratch: &mut [u8],
        copy: &mut dyn FnMut(&[u8], bool),
    ) {
        let id = self.id;
        self.output.read(scratch, &mut |line, continued, ends| {
            copy(line, ends);
            log_line(id, line, continued, log);
        });
    }

    /// Takes the rest of the output, after the handler ended.
    pub(super) fn finish_output(
        &mut self,
        log: &mut Log,
        scratch: &mut [u8],
        copy: &mut dyn FnMut(&[u8], bool),
    ) {
        let id = self.id;
        self.output.finish(scratch, &mut |line, continued, ends| {
            copy(line, ends);
            log_line(id, line, continued, log);
        });
    }
}

/// Logs a line of a handler after `job ID: `, or after `job ID+ ` if it continues the one before.
fn log_line(id: u64, line: &[u8], continued: bool, log: &mut Log) {
    log.info(&|out| {
        let _ = uwrite!(out, "job {}{}", id, if continued { "+ " } else { ": " });
        out.push_escaped(line);
    });
}

/// A string with its terminator, built from parts.
struct CStrBuf<const N: usize>(Vec<u8, N>);

impl<const N: usize> CStrBuf<N> {
    fn new(parts: &[&[u8]]) -> Self {
        let mut bytes = Vec::new();
        for part in parts {
            let _ = bytes.extend_from_slice(part);
        }
        let _ = bytes.push(0);
        Self(bytes)
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

/// Returns `NAME=number` with its terminator.
fn number_variable(name: &[u8], number: u64) -> CStrBuf<48> {
    let mut digits = [0; 20];
    let mut out = Writer::new(&mut digits);
    out.push_u64(number);
    CStrBuf::new(&[name, out.as_bytes()])
}

fn start_handler(
    config: &Config,
    id: u64,
    attempt: u16,
    token: &Token,
    text: &[u8],
) -> Result<Child, NotStarted> {
    let id = number_variable(b"ZIGSVC_JOB_ID=", id);
    let attempt = number_variable(b"ZIGSVC_ATTEMPT=", u64::from(attempt));
    let job: CStrBuf<{ JOB_MAX_BYTES + 16 }> = CStrBuf::new(&[b"ZIGSVC_JOB=", text]);
    let token: CStrBuf<48> = CStrBuf::new(&[TOKEN_VARIABLE, token]);
    let variables = [SAFE_PATH, id.as_c_str(), attempt.as_c_str(), token.as_c_str(), job.as_c_str()];
    let mut envp = [core::ptr::null(); 6];
    for (place, variable) in envp.iter_mut().zip(variables) {
        *place = variable.as_ptr();
    }
    // The text is the end of its variable: one copy serves as both.
    let argument =
        CStr::from_bytes_with_nul(job.0.get(b"ZIGSVC_JOB=".len()..).unwrap_or(b"\0")).unwrap_or(c"");
    let run = |path: &CStr, argv: &[*const core::ffi::c_char]| {
        spawn(&Program { role: Role::Handler, path, argv, envp: &envp }).map_err(NotStarted::Failed)
    };
    let null = core::ptr::null();
    let handler_words = &config.handler_words;
    match config.handler() {
        // Jobs for the log never come here.
        Handler::Log | Handler::Shell => {
            run(c"/bin/sh", &[c"sh".as_ptr(), c"-c".as_ptr(), c"--".as_ptr(), argument.as_ptr(), null])
        }
        Handler::Path(path) if is_folder(path) => run_allowed(path, handler_words, text, run),
        Handler::Path(path) => {
            let mut argv: Vec<_, { HANDLER_WORDS_MAX + 3 }> = Vec::new();
            let _ = argv.push(path.as_c_str().as_ptr());
            // A word stands in the list with its terminator.
            for word in allowed_paths(handler_words) {
                let _ = argv.push(word.as_ptr().cast());
            }
            let _ = argv.push(argument.as_ptr());
            let _ = argv.push(null);
            run(path.as_c_str(), &argv)
        }
    }
}

fn is_folder(path: &Path) -> bool {
    file::meta_at(path.as_c_str(), true).is_ok_and(|meta| meta.directory)
}

/// Runs the program in `folder` that the first word names, with the other
/// words as its arguments, after those of the configuration. The folder is the list of what may
/// run.
#[inline(never)]
fn run_allowed(
    folder: &Path,
    handler_words: &[u8],
    text: &[u8],
    run: impl Fn(&CStr, &[*const core::ffi::c_char]) -> Result<Child, NotStarted>,
) -> Result<Child, NotStarted> {
    let mut words = words(text);
    let name = words.next().unwrap_or(&[]);
    if name.contains(&b'/') {
        return Err(refused("the first word must be the name of a program, without /"));
    }
    let program = folder.join(name).ok_or(refused(text_with_number!(
        "the program's path is longer than ",
        PATH_MAX_BYTES,
        " bytes"
    )))?;
    let missing = "there is no such program in the handler's folder";
    match file::meta_at(program.as_c_str(), true) {
        Ok(meta) if meta.regular => {}
        Ok(_) => return Err(NotStarted::Refused(missing, AttemptOutcome::Code(126))),
        Err(Failure { errno: Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG, .. }) => {
            return Err(refused(missing));
        }
        Err(failure) => return Err(NotStarted::Failed(failure)),
    }
    if !file::executable(program.as_c_str()) {
        if file::forbids_programs(folder.as_c_str()) {
            return Err(NotStarted::Failed(Failure { op: Op::Access, errno: Errno::ACCESS }));
        }
        let text = "the program in the handler's folder is not executable";
        return Err(NotStarted::Refused(text, AttemptOutcome::Code(126)));
    }
    // Each word with a terminator, one after the other.
    let mut bytes: Vec<u8, { JOB_MAX_BYTES + HANDLER_WORDS_BYTES + 2 }> = Vec::new();
    let mut starts: Vec<usize, WORDS_MAX> = Vec::new();
    for word in allowed_paths(handler_words).chain(words) {
        starts.push(bytes.len()).map_err(|_| refused("a job has at most 128 words here"))?;
        let _ = bytes.extend_from_slice(word);
        let _ = bytes.push(0);
    }
    let mut argv: Vec<*const core::ffi::c_char, { WORDS_MAX + 2 }> = Vec::new();
    let _ = argv.push(program.as_c_str().as_ptr());
    for start in &starts {
        let word = bytes.get(*start..).and_then(|rest| CStr::from_bytes_until_nul(rest).ok());
        let _ = argv.push(word.unwrap_or(c"").as_ptr());
    }
    let _ = argv.push(core::ptr::null());
    run(program.as_c_str(), &argv).map_err(|why| match why {
        NotStarted::Failed(failure @ Failure { op: Op::Execve, errno }) if is_of_program(errno) => {
            NotStarted::Unfit(failure)
        }
        why => why,
    })
}

/// Returns that the job names no program.
fn refused(text: &'static str) -> NotStarted {
    NotStarted::Refused(text, AttemptOutcome::NotStarted)
}

/// A path and a file name fit where `run_allowed` joins them.
const _: () = assert!(PATH_MAX_BYTES >= 255);
