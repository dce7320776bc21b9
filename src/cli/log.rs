//! `log`: copies stdin to a file that rotates, in whole lines.
//!
//! ```text
//! stdin ─▶ input ─▶ whole lines ──────────────────────▶ FILE
//!                        └─▶ stamped in output (-t) ─▶──┘
//! ```
//!
//! Whole lines are written before more bytes are read. While FILE cannot be written,
//! stdin is not read, so the process that writes to it waits. `state/log_stream.rs`
//! decides which bytes are written to which file, `state/read_pacing.rs` for how long the
//! pipe is left to fill; `service/logfile.rs` rotates, as for the log of a service.
//!
//! Stdin is shared with other processes, so it stays blocking: poll(2) reports when a read
//! does not wait. There is no lock: two processes with one FILE would rotate each other's
//! files.

use super::command_line::{CommandOption, Operands};
use super::output::{CommandResult, code_of, fail, usage_text};
use super::paths::working_folder;
use crate::limits::{
    COPY_INPUT_BYTES, COPY_READ_BYTES, COPY_RETRY, COPY_WRITE_BYTES, LOG_KEEP_MAX, LOG_MAX_BYTES,
    PATH_MAX_BYTES,
};
use crate::proto::config::keys::absolute;
use crate::proto::config::value::parse_size;
use crate::proto::log::TimestampFormat;
use crate::service::lifecycle::exit;
use crate::service::logfile::LogFile;
use crate::state::log_stream::{STAMP_MAX_BYTES, Stamper, StreamAction, next_action, ready};
use crate::state::read_pacing::ReadPacing;
use crate::sys::once::once;
use crate::sys::poll::{self, Interest};
use crate::sys::process::Signal;
use crate::sys::signal::{Arrived, Signals};
use crate::sys::{Errno, Failure, Op, clock, fds, file};
use crate::util::text::{Writer, parse_u64, text_with_number};

/// Bytes that `log` still takes from its pipe when it is stopped. This is the largest pipe of
/// an ordinary user (pipe(7)). Without a limit, a busy writer would keep `log` from ending.
const COPY_LAST_BYTES: usize = 1024 * 1024;

/// The memory of this command. Only the pages that are used count.
struct Buffers {
    input: [u8; COPY_INPUT_BYTES],
    output: [u8; COPY_WRITE_BYTES + STAMP_MAX_BYTES + COPY_INPUT_BYTES],
}

once! {
    last static BUFFERS: Buffers = Buffers {
        input: [0; COPY_INPUT_BYTES],
        output: [0; COPY_WRITE_BYTES + STAMP_MAX_BYTES + COPY_INPUT_BYTES],
    };
}

/// Runs `log`.
pub(super) fn log(operands: &Operands) -> CommandResult {
    let mut copy = start(operands)?;
    copy.run()?;
    Ok(copy.code)
}

/// Opens the file and prepares the copy.
///
/// # Errors
/// The exit code, after printing the reason.
fn start(operands: &Operands) -> Result<LogCopy, u8> {
    let (mut file, stamp) = parse(operands)?;
    if let Err(failure) = file.open()
        && !failure.is_of_disk()
    {
        return Err(refuse(&file, failure));
    }
    let signals = Signals::install().map_err(|failure| refuse(&file, failure))?;
    let gap = file.ends_in_a_line();
    let sink = Sink {
        file,
        signals,
        gap,
        inside: false,
        waits: false,
        rotate_failure_reported: false,
        persists: operands.has(CommandOption::Persist),
        stopping: false,
    };
    let Buffers { input, output } = BUFFERS.take();
    let (stamper, pacing) = (Stamper::new(stamp), ReadPacing::default());
    Ok(LogCopy {
        sink,
        pacing,
        stamps: stamp != TimestampFormat::None,
        stamper,
        input,
        held: 0,
        output,
        code: exit::OK,
    })
}

/// Prints that the copy cannot start; returns the exit code.
fn refuse(file: &LogFile, failure: Failure) -> u8 {
    note(file, &|out| failure.describe(out));
    code_of(failure)
}

/// Prints one line about the file on stderr.
fn note(file: &LogFile, text: &dyn Fn(&mut Writer<'_>)) {
    fail(exit::FAILED, &|out| {
        out.push_str("log: ");
        out.push_escaped(file.path().as_bytes());
        out.push_str(": ");
        text(out);
    });
}

/// Returns the file and the timestamps that the command line asks for.
fn parse(operands: &Operands) -> Result<(LogFile, TimestampFormat), u8> {
    let wrong = |what: &str| usage_text("log", what);
    let max = match operands.value(CommandOption::Size) {
        Some(size) => {
            parse_size(size).ok_or_else(|| wrong("-s needs bytes, such as 10000, 64k or 1m; 0: never"))?
        }
        None => LOG_MAX_BYTES,
    };
    let keep = match operands.value(CommandOption::Keep) {
        Some(keep) => parse_u64(keep)
            .and_then(|keep| u32::try_from(keep).ok())
            .filter(|keep| (1..=LOG_KEEP_MAX).contains(keep))
            .ok_or_else(|| wrong("-n needs a number from 1 to 99"))?,
        None => 1,
    };
    let stamp = match operands.value(CommandOption::Time) {
        Some(time) => TimestampFormat::from_name(time).ok_or_else(|| wrong("-t needs iso, unix or none"))?,
        None => TimestampFormat::None,
    };
    let path = absolute(&working_folder(), operands.get(0).unwrap_or_default()).ok_or_else(|| {
        wrong(text_with_number!("FILE, made absolute, has 1 to ", PATH_MAX_BYTES, " bytes"))
    })?;
    Ok((LogFile::new(&path, max, keep), stamp))
}

/// The copy of stdin to the file.
struct LogCopy {
    sink: Sink,
    pacing: ReadPacing,
    stamps: bool,
    stamper: Stamper,
    /// The begin of a line that was read and is not written yet is `input[..held]`.
    input: &'static mut [u8; COPY_INPUT_BYTES],
    held: usize,
    /// Lines with their timestamps; empty between two calls.
    output: &'static mut [u8],
    code: u8,
}

impl LogCopy {
    /// Copies until stdin ends, or until a signal ends the copy.
    fn run(&mut self) -> Result<(), u8> {
        while !self.sink.stopping {
            let stdin = Some((fds::borrow(0), Interest::Input));
            let (signalled, input) = poll::either(self.sink.signals.fd(), stdin, None);
            if signalled {
                self.sink.on_signals();
            } else if input {
                let pause = self.pacing.on_ready(clock::monotonic_us());
                if pause > 0 {
                    poll::either(self.sink.signals.fd(), None, Some(pause));
                }
                match self.take()? {
                    Some(0) => return self.finish(),
                    taken => self.pacing.on_done(clock::monotonic_us(), taken.unwrap_or(0)),
                }
            }
        }
        self.take_the_last()?;
        self.finish()
    }

    /// Copies the bytes that are in the pipe now, after a signal to stop.
    fn take_the_last(&mut self) -> Result<(), u8> {
        let mut left = COPY_LAST_BYTES;
        let stdin = Some((fds::borrow(0), Interest::Input));
        while left > 0 && poll::either(self.sink.signals.fd(), stdin, Some(0)).1 {
            match self.take()? {
                None | Some(0) => break,
                Some(count) => left = left.saturating_sub(count),
            }
        }
        Ok(())
    }

    /// Reads once, and writes the lines that are ready. Returns the number of bytes that
    /// were read: 0 at the end, `None` if there were none after all.
    fn take(&mut self) -> Result<Option<usize>, u8> {
        let end = self.held.saturating_add(COPY_READ_BYTES);
        let free = self.input.get_mut(self.held..end).unwrap_or_default();
        match file::read(fds::borrow(0), free) {
            Ok(count) => self.pass_on(count, false).map(|()| Some(count)),
            // Another process that shares stdin made it non-blocking.
            Err(Failure { errno: Errno::AGAIN, .. }) => Ok(None),
            Err(failure) => {
                fail(exit::FAILED, &|out| {
                    out.push_str("log: stdin: ");
                    failure.describe(out);
                });
                self.code = exit::FAILED;
                Ok(Some(0))
            }
        }
    }

    /// Writes the last line as it is, after the end of the input.
    fn finish(&mut self) -> Result<(), u8> {
        self.pass_on(0, true)
    }

    /// Writes the lines that are ready after `count` more bytes.
    fn pass_on(&mut self, count: usize, ended: bool) -> Result<(), u8> {
        let known = self.held;
        self.held = self.held.saturating_add(count);
        let held = self.input.get(..self.held).unwrap_or_default();
        let length = ready(held, known, self.sink.inside, ended);
        let mut block = held.get(..length).unwrap_or_default();
        if !self.stamps {
            self.sink.put(block)?;
        } else if !block.is_empty() {
            self.stamper.set_time(clock::wall());
            while !block.is_empty() {
                let (taken, filled) = self.stamper.copy(block, self.output, COPY_WRITE_BYTES);
                self.sink.put(self.output.get(..filled).unwrap_or_default())?;
                block = block.get(taken..).unwrap_or_default();
            }
        }
        self.input.copy_within(length..self.held, 0);
        self.held = self.held.saturating_sub(length);
        Ok(())
    }
}

/// The file, and the state of its errors.
struct Sink {
    file: LogFile,
    signals: Signals,
    /// Set if FILE ends in the middle of a line, and the next bytes are another line.
    gap: bool,
    /// Set if the last byte that was written is not the end of a line.
    inside: bool,
    /// Set after it was reported that the file cannot be written.
    waits: bool,
    /// Set after it was reported that the file cannot be rotated.
    rotate_failure_reported: bool,
    /// Set if TERM does not end the copy, so that the writer's last lines are kept when both get it.
    persists: bool,
    /// Set after TERM, INT or QUIT.
    stopping: bool,
}

impl Sink {
    /// Writes all of `block`, however long that takes.
    ///
    /// # Errors
    /// The command is stopping, and the file takes no more bytes.
    fn put(&mut self, mut block: &[u8]) -> Result<(), u8> {
        if !block.is_empty() {
            self.follow();
        }
        while !block.is_empty() {
            let part = if self.gap {
                b"\n"
            } else {
                match next_action(block, self.inside, self.file.size(), self.file.limit()) {
                    StreamAction::Write(count) => block.get(..count).unwrap_or(block),
                    StreamAction::Rotate => {
                        self.rotate();
                        continue;
                    }
                }
            };
            let kept = self.file.write(part);
            if self.gap {
                self.gap = kept == 0;
            } else {
                let last = kept.checked_sub(1).and_then(|last| part.get(last));
                self.inside = last.map_or(self.inside, |last| *last != b'\n');
                block = block.get(kept..).unwrap_or_default();
            }
            if kept < part.len() {
                self.wait()?;
            } else if self.waits {
                self.waits = false;
                note(&self.file, &|out| out.push_str("continues"));
            }
        }
        Ok(())
    }

    /// Waits until the file can take more bytes.
    fn wait(&mut self) -> Result<(), u8> {
        let failure = self.file.failure().unwrap_or(Failure { op: Op::Write, errno: Errno::IO });
        // FILE is a device or a FIFO whose reader is slow.
        let slow = failure.errno == Errno::AGAIN;
        if !self.waits && !slow {
            self.waits = true;
            note(&self.file, &|out| {
                failure.describe(out);
                out.push_str("; waits");
            });
        }
        let output = self.file.fd().filter(|_| slow).map(|fd| (fd, Interest::Output));
        let (signalled, goes_on) = if self.stopping && !slow {
            (false, false)
        } else {
            poll::either(self.signals.fd(), output, Some(COPY_RETRY.as_ms().saturating_mul(1000)))
        };
        if self.stopping && !goes_on {
            note(&self.file, &|out| out.push_str("stopped with lines that could not be written"));
            return Err(exit::FAILED);
        }
        if signalled {
            self.on_signals();
        }
        self.follow();
        Ok(())
    }

    /// Obeys the signals that have come.
    fn on_signals(&mut self) {
        let arrived: Arrived = self.signals.take();
        self.stopping |= (arrived.has(Signal::TERM) && !self.persists)
            || arrived.has(Signal::INT)
            || arrived.has(Signal::QUIT);
        if arrived.has(Signal::USR1) {
            self.rotate();
        }
        if arrived.has(Signal::HUP) {
            self.follow();
        }
    }

    /// Opens the file that FILE names, if it is another one now.
    fn follow(&mut self) {
        if self.file.follow() {
            self.look_for_a_gap();
        }
    }

    /// Begins a new file, or opens the file that FILE names now. Keeps the old file if
    /// neither can be done.
    fn rotate(&mut self) {
        if self.gap {
            // Without a newline the next file would continue that line.
            let _ = self.file.write(b"\n");
        }
        self.file.rotate();
        self.look_for_a_gap();
        let failure = self.file.rotate_failure();
        if let Some(failure) = failure.filter(|_| !self.rotate_failure_reported) {
            note(&self.file, &|out| {
                out.push_str("not rotated: ");
                failure.describe(out);
            });
        }
        self.rotate_failure_reported = failure.is_some();
    }

    /// Checks the end of a file that was opened.
    fn look_for_a_gap(&mut self) {
        self.gap = !self.inside && self.file.ends_in_a_line();
    }
}
