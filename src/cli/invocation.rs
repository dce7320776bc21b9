//! A command that is about a service: its words, its service, its configuration.

use super::command_line::Operands;
use super::output::{code_of, fail, print};
use super::paths::{SYSTEM_CONFIG, is_folder};
use crate::proto::config::Program;
use crate::proto::config::toml::apply_option;
use crate::proto::service::Service;
use crate::service::config_source::{InvalidConfig, ServiceFile, path_of};
use crate::service::lifecycle::exit;
use crate::service::lock_holder::{LockHolder, LockState, LookupFailed, ServiceLocks};
use crate::service::memory::Memory;
use crate::service::own_paths::judge_paths;
use crate::service::program_files::check_all;
use crate::sys::args::Args;
use crate::util::path::Path;
use crate::util::text::Writer;
use ufmt::uwrite;

/// The end that a command asks for, after the job in which the command runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// The service stops.
    Stop,
    /// The service stops and starts again.
    Restart,
}

/// Returns the process that holds a lock of a service.
///
/// # Errors
/// The process cannot be found out; the exit code, after printing the reason.
pub(super) fn find_holder(locks: &ServiceLocks<'_>) -> Result<Option<LockHolder>, u8> {
    LockHolder::find(locks).map_err(|error| {
        let code = match &error {
            LookupFailed::SystemCall(failure) => code_of(*failure),
            _ => exit::FAILED,
        };
        fail(code, &|out| error.describe(locks.pid_path, out))
    })
}

/// A command that is about a service.
pub(super) struct Invocation {
    /// The name of the command.
    pub(super) command: &'static str,
    pub(super) service: Service,
    pub(super) operands: Operands,
    /// All arguments.
    pub(super) args: Args,
    /// The index of the command among the arguments.
    pub(super) command_at: usize,
    /// The places of the files, and the configuration after [`Invocation::load`].
    pub(super) memory: &'static mut Memory,
}

impl Invocation {
    /// Reads the effective configuration.
    ///
    /// # Errors
    /// The configuration cannot be used; the exit code, after printing the reason.
    pub(super) fn load(&mut self) -> Result<(), u8> {
        let mut line = [0; 512];
        let mut out = Writer::new(&mut line);
        self.load_to(&mut out)
            .map_err(|InvalidConfig| fail(exit::CONFIG, &|message| message.push(out.as_bytes())))
    }

    /// Reads the effective configuration. If it cannot be used, writes the reason to `out`, and
    /// keeps the values before the mistake and all options.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub(super) fn load_to(&mut self, out: &mut Writer<'_>) -> Result<(), InvalidConfig> {
        let Memory { config_source, config, scratch, .. } = &mut *self.memory;
        config_source.load(config, scratch.pages(), out).inspect_err(|InvalidConfig| {
            for option in &config_source.overrides {
                let _ = apply_option(option, config, &config_source.base);
            }
        })
    }

    /// Reads the effective configuration, and judges the paths that the service uses by it, and
    /// the links in `allow` too if `all` is true.
    ///
    /// # Errors
    /// The configuration cannot be used; the exit code, after printing the reason.
    pub(super) fn load_judged(&mut self, all: bool) -> Result<(), u8> {
        self.load()?;
        let Memory { config_source, config, .. } = &*self.memory;
        let mut line = [0; 512];
        let mut out = Writer::new(&mut line);
        judge_paths(self.service, config_source, config, all, &mut out)
            .map_err(|InvalidConfig| fail(exit::CONFIG, &|message| message.push(out.as_bytes())))?;
        if self.service.is(Service::Supervisor) { self.check_programs(&mut |_, _| {}) } else { Ok(()) }
    }

    /// Checks the files of all programs, and calls `visit` with each of them.
    ///
    /// # Errors
    /// A file cannot be used; the exit code, after printing the reason.
    pub(super) fn check_programs(&mut self, visit: &mut dyn FnMut(&[u8], &mut Program)) -> Result<(), u8> {
        if !Service::Supervisor.is_built_in() {
            return Ok(());
        }
        let Memory { config_source, config, program, scratch, .. } = &mut *self.memory;
        let mut line = [0; 512];
        let mut out = Writer::new(&mut line);
        check_all(config_source, config, program, scratch.pages(), &mut out, visit)
            .map_err(|InvalidConfig| fail(exit::CONFIG, &|message| message.push(out.as_bytes())))
    }

    /// Reads the configuration, and keeps the values before a mistake without printing it.
    pub(super) fn load_quietly(&mut self) {
        let _ = self.load_to(&mut Writer::new(&mut [0; 512]));
    }

    /// Reads the configuration. If it cannot be used, prints the reason and keeps the values
    /// before the mistake and all options, because a service can be stopped and looked at
    /// with a wrong configuration too.
    pub(super) fn load_or_defaults(&mut self) {
        let _ = self.load();
    }

    /// Turns to root's service if this user has none, and named no other place.
    pub(super) fn find_service(&mut self) {
        let source = &self.memory.config_source;
        let is_named = source.folder_named || source.file_named || !source.overrides.is_empty();
        let Some(pid_path) = path_of(self.service, ServiceFile::Pid, &self.memory.config) else { return };
        if is_named
            || source.folder.is_empty()
            || !matches!(self.locks(&pid_path).state_without_strangers(), Ok(LockState::Stopped))
        {
            return;
        }
        let socket = path_of(self.service, ServiceFile::Socket, &self.memory.config);
        self.memory.tried.set(&socket.unwrap_or_default());
        let source = &mut self.memory.config_source;
        source.folder = Path::empty();
        source.file.assign(&[SYSTEM_CONFIG]);
        source.var_run = !is_folder(c"/run");
        self.load_quietly();
    }

    /// Turns to root's service as [`Invocation::find_service`] does, if it runs. Returns true if it
    /// does. Otherwise notes its PID file as tried.
    pub(super) fn find_running_service(&mut self) -> bool {
        let source = &self.memory.config_source;
        let (folder, file) = (source.folder.clone(), source.file.clone());
        self.find_service();
        if self.memory.tried.is_empty() {
            return false;
        }
        let path = path_of(self.service, ServiceFile::Pid, &self.memory.config).unwrap_or_default();
        if matches!(self.locks(&path).state_without_strangers(), Ok(LockState::Running(_))) {
            return true;
        }
        self.memory.tried = path;
        let source = &mut self.memory.config_source;
        (source.folder, source.file, source.var_run) = (folder, file, false);
        self.load_quietly();
        false
    }

    /// Returns the locks of the service, whose PID file is at `pid_path`.
    pub(super) fn locks<'a>(&'a self, pid_path: &'a Path) -> ServiceLocks<'a> {
        ServiceLocks { service: self.service, config: &self.memory.config, pid_path }
    }

    /// Returns the path of the service's PID file.
    ///
    /// # Errors
    /// The path is too long; the exit code, after printing the reason.
    pub(super) fn pid_path(&self) -> Result<Path, u8> {
        path_of(self.service, ServiceFile::Pid, &self.memory.config)
            .ok_or_else(|| fail(exit::CONFIG, &|out| out.push_str("pid_file: its folder's path is too long")))
    }

    /// Prints `zigsvc: SERVICE TEXT` on stdout.
    pub(super) fn confirm(&self, text: &str) -> u8 {
        let mut line = [0; 80];
        let mut out = Writer::new(&mut line);
        let _ = uwrite!(out, "zigsvc: {} {}\n", self.service.name(), text);
        let _ = print(out.as_bytes());
        exit::OK
    }
}
