//! The command line of the supervisor, which starts the managed processes.

use crate::limits::PROGRAM_NAME_BYTES;
use crate::proto::service::Service;
use crate::service::base::ServiceBase;
use crate::service::lifecycle::exit;
use crate::service::program;
use crate::service::program_files::check_all;
use crate::sys::args::Args;
use crate::util::path::Path;
use crate::util::text::Writer;
use core::ffi::c_char;

/// Bytes of the reason why a file is refused or a program is not started.
pub(super) const REASON_BYTES: usize = 512;

/// The command line of the supervisor.
pub struct LaunchSpec {
    /// All arguments.
    pub args: Args,
    /// The index of the command among them. The options before it are passed to the
    /// services.
    pub command_at: usize,
    /// A program and its arguments, ended by a null pointer; empty for services.
    pub program: &'static [*const c_char],
    /// The file that the program writes as a sign of life.
    pub health: Option<Path>,
}

/// The kind of a managed process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ManagedKind {
    /// A service of this binary.
    Service(Service),
    /// The program of `run supervisor -- CMD`.
    Program,
    /// A program that `supervise` names.
    Listed(ProgramName),
}

/// The name of a program that `supervise` names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct ProgramName {
    bytes: [u8; PROGRAM_NAME_BYTES],
    length: u8,
}

impl ProgramName {
    /// Returns a name. A longer one than there can be is cut.
    pub(super) fn new(name: &[u8]) -> Self {
        let mut bytes = [0; PROGRAM_NAME_BYTES];
        bytes.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
        Self { bytes, length: name.len().min(PROGRAM_NAME_BYTES).try_into().unwrap_or(0) }
    }

    /// Returns the name.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length.into()).unwrap_or(&[])
    }
}

impl ManagedKind {
    /// Returns true if `name` in `supervise` is this process.
    pub(super) fn is_named(self, name: &[u8]) -> bool {
        match self {
            Self::Service(service) => service.name().as_bytes() == name,
            Self::Listed(own) => own.as_bytes() == name,
            Self::Program => false,
        }
    }
}

impl LaunchSpec {
    /// Returns true if a program is supervised, and not services.
    pub(super) fn is_program(&self) -> bool {
        !self.program.is_empty()
    }

    /// Returns true if the managed processes have health files.
    pub(super) fn has_health_files(&self) -> bool {
        !self.is_program() || self.health.is_some()
    }

    /// Returns the program as it was named.
    fn program_word(&self) -> &'static [u8] {
        self.args.get(self.args.len().saturating_sub(self.program.len().saturating_sub(1))).unwrap_or(b"")
    }

    /// Writes the name of a managed process for messages: the name of the service, or of
    /// the program's file.
    pub(super) fn push_name(&self, kind: ManagedKind, out: &mut Writer<'_>) {
        match kind {
            ManagedKind::Service(service) => out.push_str(service.name()),
            ManagedKind::Listed(name) => out.push(name.as_bytes()),
            ManagedKind::Program => {
                let word = self.program_word();
                out.push_escaped(word.rsplit(|byte| *byte == b'/').next().unwrap_or(word));
            }
        }
    }

    /// Returns the file to execute: this binary for a service, and for a program the file
    /// that a shell would find, or the word itself if there is none.
    pub(super) fn file_of(&self, kind: ManagedKind, base: &Path) -> Path {
        let word = match kind {
            ManagedKind::Service(_) => self.args.executable(),
            ManagedKind::Program | ManagedKind::Listed(_) => self.program_word(),
        };
        program::find(&self.args, word, base)
    }
}

/// Ends the process if the file of a program cannot be used.
#[inline(never)]
pub(super) fn refuse_bad_programs(base: &mut ServiceBase) {
    let mut reason = [0; REASON_BYTES];
    let mut text = Writer::new(&mut reason);
    let Some(program) = &mut base.program else { return };
    let (source, config) = (base.process.config_source, &*base.process.config);
    if check_all(source, config, program, base.scratch, &mut text, &mut |_, _| {}).is_err() {
        base.process.fail(exit::CONFIG, &|out| out.push(text.as_bytes()));
    }
}
