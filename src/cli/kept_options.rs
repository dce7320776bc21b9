//! The options `-c -d -o` with which a service was started, as its health file keeps them, or
//! its command line shows them.

use super::invocation::Invocation;
use crate::proto::config::keys::push_absolute_option;
use crate::proto::health::{HealthRecord, ParseError, RECORD_BYTES, UNKNOWN_BOOT, parse_option_word};
use crate::proto::service::Service;
use crate::service::boot::boot_id;
use crate::service::config_source::{ConfigSource, ServiceFile, path_or_empty};
use crate::service::heartbeat::TORN_READS_MAX;
use crate::service::lock_holder::LockState;
use crate::sys::file;
use crate::sys::once::once;
use crate::util::path::Path;
use crate::util::text::{Writer, trim};
use core::ffi::c_char;
use heapless::Vec;
use ufmt::uwrite;

/// Bytes of the words of all options, each with its terminator.
pub(super) const WORDS_BYTES: usize = 16 * 1024;

once! {
    last static MEMORY: [u8; WORDS_BYTES] = [0; WORDS_BYTES];
}

/// Returns memory for the options of a service, for the life of the process. For one call.
pub(super) fn take_memory() -> &'static mut [u8] {
    MEMORY.take()
}

/// Words, each ended by a NUL byte.
pub(super) struct OptionWords<'m>(Writer<'m>);

/// Whether the options of a service are known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OptionsFound {
    /// The words are the options of the service.
    Yes,
    /// No process of this boot left options.
    NoService,
    /// The service runs, and neither its health file nor its command line shows them.
    No,
}

impl<'m> OptionWords<'m> {
    /// Returns no words, which lie in `memory` as they come.
    pub(super) fn new(memory: &'m mut [u8]) -> Self {
        Self(Writer::new(memory))
    }

    /// Adds a word.
    pub(super) fn push(&mut self, word: &[u8]) {
        self.0.push(word);
        self.0.push(b"\0");
    }

    /// Returns true if a word had no room.
    pub(super) fn is_cut(&self) -> bool {
        self.0.is_cut()
    }

    /// Returns the words with their terminators.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Replaces the words by the options of `service`. `pid` is the process that holds its lock;
    /// without one, the options of a process that died in this boot count.
    pub(super) fn find(
        &mut self,
        invocation: &mut Invocation,
        service: Service,
        pid: Option<u32>,
    ) -> OptionsFound {
        let path = path_or_empty(service, ServiceFile::Health, &invocation.memory.config);
        let scratch = invocation.memory.scratch.pages();
        let found = read(&path, pid, scratch).and_then(|lines| self.take_lines(lines));
        match (found, pid) {
            (Some(()), _) => return OptionsFound::Yes,
            (None, None) => {
                self.0.truncate(0);
                return OptionsFound::NoService;
            }
            (None, Some(pid)) => self.take_command_line(pid, scratch),
        }
        .map_or(OptionsFound::No, |()| OptionsFound::Yes)
    }

    /// Replaces the words by the options of `service`, if it runs. Returns true if they are known.
    #[inline(never)]
    pub(super) fn find_running(&mut self, invocation: &mut Invocation, service: Service) -> bool {
        invocation.service = service;
        let path = path_or_empty(service, ServiceFile::Pid, &invocation.memory.config);
        match invocation.locks(&path).state_without_strangers() {
            Ok(LockState::Running(Some(pid)) | LockState::PidFileLost(Some(pid))) => {
                let pid = u32::try_from(pid.as_raw_pid()).unwrap_or(0);
                self.find(invocation, service, Some(pid)) == OptionsFound::Yes
            }
            _ => false,
        }
    }

    fn take_lines(&mut self, lines: &[u8]) -> Option<()> {
        self.0.truncate(0);
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            parse_option_word(line, &mut self.0)?;
            self.0.push(b"\0");
        }
        // A value that the file could not keep is a lone `?` without its option.
        self.pairs()
            .all(|(option, value)| matches!(option, b"-c" | b"-d" | b"-o") && value != b"?")
            .then_some(())
    }

    /// Takes the options before the command of process `pid` (proc(5)). A relative path means
    /// nothing here, because the folder in which it was given is not known.
    fn take_command_line(&mut self, pid: u32, buffer: &mut [u8]) -> Option<()> {
        self.0.truncate(0);
        let mut name = [0; 32];
        let mut out = Writer::new(&mut name);
        let _ = uwrite!(out, "/proc/{}/cmdline", pid);
        let path = Path::new(out.as_bytes())?;
        let count = file::read_path(path.as_c_str(), buffer).ok().filter(|count| *count < buffer.len())?;
        let mut words = buffer.get(..count)?.split(|byte| *byte == 0).skip(1);
        while let Some(word) = words.next() {
            let (option, attached) = match word {
                [b'-', b'c' | b'd' | b'o', attached @ ..] => (word.get(..2)?, attached),
                // Options after the command may hold for the service too.
                _ => {
                    let mut others = words.take_while(|word| *word != b"--");
                    let is_option = |word: &[u8]| matches!(word, [b'-', b'c' | b'd' | b'o', ..]);
                    return Some(()).filter(|()| !self.is_cut() && !others.any(is_option));
                }
            };
            let value = if attached.is_empty() { words.next()? } else { attached };
            let is_absolute = match option {
                b"-o" => {
                    let mut bytes = [0; crate::limits::OPTION_WORD_MAX_BYTES];
                    let mut out = Writer::new(&mut bytes);
                    push_absolute_option(value, &Path::new(b"/")?, &mut out);
                    out.is_cut() || out.as_bytes() == value
                }
                _ => value.first() == Some(&b'/'),
            };
            if !is_absolute {
                return None;
            }
            self.push(option);
            self.push(value);
        }
        None
    }

    /// Adds the words to the arguments of a program. Returns true if all fit.
    pub(super) fn push_to<const N: usize>(&self, argv: &mut Vec<*const c_char, N>) -> bool {
        push_words(self.as_bytes(), argv)
    }

    /// Returns each option and its value.
    fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        pairs(self.as_bytes())
    }

    /// Returns the words for the life of the process.
    pub(super) fn into_bytes(self) -> &'m [u8] {
        self.0.into_bytes()
    }
}

/// Adds words that NUL bytes end to the arguments of a program. Returns true if all fit.
pub(super) fn push_words<const N: usize>(words: &[u8], argv: &mut Vec<*const c_char, N>) -> bool {
    words.split_inclusive(|byte| *byte == 0).all(|word| argv.push(word.as_ptr().cast()).is_ok())
}

/// Returns each option and its value of words that NUL bytes end.
fn pairs(words: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut words = words.strip_suffix(b"\0").map(|words| words.split(|byte| *byte == 0));
    core::iter::from_fn(move || {
        let words = words.as_mut()?;
        Some((words.next()?, words.next().unwrap_or(b"?")))
    })
}

/// Returns the lines after the heartbeat in the health file at `path`, if the process `pid` or,
/// without one, any process of this boot wrote it.
fn read<'b>(path: &Path, pid: Option<u32>, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let boot = boot_id();
    for _ in 0..TORN_READS_MAX {
        let count = file::read_path(path.as_c_str(), buffer).ok().filter(|count| *count < buffer.len())?;
        let (record, _) = buffer.get(..count)?.split_at_checked(RECORD_BYTES)?;
        match HealthRecord::parse(record) {
            Ok(record) => {
                let is_of_boot = record.boot == boot && boot != UNKNOWN_BOOT;
                // Without /proc this process does not know the boot.
                let may_be = record.boot == boot || boot == UNKNOWN_BOOT;
                let vouches = pid.map_or(is_of_boot, |pid| record.pid == pid && may_be);
                return buffer.get(RECORD_BYTES..count).filter(|lines| vouches && !lines.is_empty());
            }
            Err(ParseError::Torn) => {}
            Err(ParseError::Garbage) => return None,
        }
    }
    None
}

/// Adds the options in `words` to those of this command line, which count more. Returns true if
/// this command line changes an option of the service, or adds one.
///
/// # Errors
/// There are too many.
pub(super) fn merge(source: &mut ConfigSource, words: &'static [u8]) -> Result<bool, ()> {
    let given = core::mem::take(&mut source.overrides);
    let has = |option: &[u8], value: &[u8]| pairs(words).any(|pair| pair == (option, value));
    let changes = given.iter().any(|value| !has(b"-o", value))
        || (source.file_named && !has(b"-c", source.file.as_bytes()));
    let key = |option: &'static [u8]| trim(option.split(|byte| *byte == b'=').next().unwrap_or(option));
    for (option, value) in pairs(words) {
        match option {
            b"-c" if !source.file_named => {
                source.file.assign(&[value]);
                source.file_named = true;
            }
            b"-d" if !source.folder_named => {
                source.folder.assign(&[value]);
                if !source.file_named {
                    source.file.assign(&[value, b"/zigsvc.conf"]);
                }
            }
            b"-o" if !given.iter().any(|given| key(given) == key(value)) => {
                source.overrides.push(value).map_err(drop)?;
            }
            _ => {}
        }
    }
    source.overrides.extend_from_slice(&given).map(|()| changes).map_err(drop)
}
