//! Finds and reads the configuration: first the defaults, then the file, then the options of
//! the command line. A later source overrides an earlier one.

use crate::limits::{OPTION_WORD_MAX_BYTES, OVERRIDES_MAX};
use crate::proto::config::Config;
use crate::proto::config::keys::{Keyed, push_absolute_option};
use crate::proto::config::toml::{ConfigError, apply_option, parse};
use crate::proto::service::Service;
use crate::service::notify::Init;
use crate::service::trust::Judge;
use crate::state::trust::Subject;
use crate::sys::{Errno, OwnedFd, file};
use crate::util::path::Path;
use crate::util::text::Writer;
use heapless::Vec;
use ufmt::uwrite;

/// The error of a configuration that cannot be used. The reason was written before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidConfig;

/// The settings of the command line that concern the configuration. They are kept for reloads.
pub struct ConfigSource {
    /// The working directory at the start. Relative paths are below it.
    pub base: Path,
    /// The folder of the default paths. Empty for the paths of the system.
    pub folder: Path,
    /// The configuration file. Empty if there is none.
    pub file: Path,
    /// True if /var/run stands in for /run, which is no folder.
    pub var_run: bool,
    /// True if the folder was named, and is not the default one of this user.
    pub folder_named: bool,
    /// True if the file was named, so that it must exist.
    pub file_named: bool,
    /// True if the log file counts as named, so that the log is also written to it in the
    /// foreground.
    pub log_file_named: bool,
    /// True if a supervisor started this process, and not a user.
    pub supervised: bool,
    /// The values of `-o`, in their order.
    pub overrides: Vec<&'static [u8], OVERRIDES_MAX>,
    /// The variables that a service manager has set. They are used by `run` only.
    pub init: Init,
}

impl ConfigSource {
    /// Zeros, to be filled in place.
    pub const EMPTY: Self = Self {
        base: Path::empty(),
        folder: Path::empty(),
        file: Path::empty(),
        var_run: false,
        folder_named: false,
        file_named: false,
        log_file_named: false,
        supervised: false,
        overrides: Vec::new(),
        init: Init::NONE,
    };

    /// Reads the effective configuration into `config`. `scratch` is memory for the file, and
    /// must be larger than the file. On failure, the reason is written to `out`: one line
    /// without its newline, which names file and line, or the option.
    ///
    /// # Errors
    /// [`InvalidConfig`] if the configuration cannot be used. The exit code is 6 then.
    pub fn load(
        &self,
        config: &mut Config,
        scratch: &mut [u8],
        out: &mut Writer<'_>,
    ) -> Result<(), InvalidConfig> {
        let file = self.open_file(config, out)?;
        config.reset(&self.folder);
        if self.var_run {
            config.use_var_run();
        }
        config.log_file_named = self.log_file_named;
        if let Some(file) = file {
            self.read_file(&file, &self.file, scratch, config, out)?;
        }
        if config.takes_all() {
            out.push_str("take: it is only for the command line: -o take=all");
            return Err(InvalidConfig);
        }
        for option in &self.overrides {
            if let Err(error) = apply_option(option, config, &self.base) {
                out.push_str("-o ");
                out.push_escaped(option.get(..60).unwrap_or(option));
                out.push_str(": ");
                error.describe(out);
                return Err(InvalidConfig);
            }
        }
        if config.user.is_empty() && !config.group.is_empty() {
            out.push_str("group: needs user to be set too");
            return Err(InvalidConfig);
        }
        Ok(())
    }

    /// Returns the judge of the configuration file and of the folder of `-d`. Only the options
    /// name the user and the paths that it trusts. `config` is overwritten.
    pub fn judge<'a>(&self, config: &'a mut Config) -> Judge<'a> {
        config.reset(&self.folder);
        for option in &self.overrides {
            let _ = apply_option(option, config, &self.base);
        }
        Judge::new(config)
    }

    /// Opens the configuration file, if there is one.
    #[inline(never)]
    fn open_file(&self, config: &mut Config, out: &mut Writer<'_>) -> Result<Option<OwnedFd>, InvalidConfig> {
        if self.file.is_empty() {
            return Ok(None);
        }
        let mut judge = self.judge(config);
        if self.file_named {
            judge.allow_config_of_user();
        }
        match judge.open_linked_file(&self.file, Subject::Config) {
            Ok(file) => Ok(Some(file)),
            // A file that is missing is not read, so the folders on the way to it do not matter.
            Err(_) if !self.file_named && is_missing(&self.file) => Ok(None),
            Err(refusal) => {
                judge.describe(refusal, &self.file, out);
                Err(InvalidConfig)
            }
        }
    }

    /// Calls `put` with each word of the options `-c -d -o` in force, with absolute paths.
    pub fn each_option_word(&self, put: &mut dyn FnMut(&[u8])) {
        let mut pair = |option: &[u8], value: &[u8]| {
            put(option);
            put(value);
        };
        if self.file_named {
            pair(b"-c", self.file.as_bytes());
        }
        if !self.folder.is_empty() {
            pair(b"-d", self.folder.as_bytes());
        }
        for option in &self.overrides {
            let mut bytes = [0; OPTION_WORD_MAX_BYTES];
            let mut out = Writer::new(&mut bytes);
            push_absolute_option(option, &self.base, &mut out);
            pair(b"-o", if out.is_cut() { option } else { out.as_bytes() });
        }
    }

    /// Reads the open file at `path` into `config`.
    ///
    /// # Errors
    /// The file cannot be read or used; the reason was written to `out`.
    pub fn read_file(
        &self,
        file: &OwnedFd,
        path: &Path,
        scratch: &mut [u8],
        config: &mut dyn Keyed,
        out: &mut Writer<'_>,
    ) -> Result<(), InvalidConfig> {
        let count = match file::read_whole(file, scratch) {
            Ok(count) => count,
            Err(failure) => {
                out.push_escaped(path.as_bytes());
                out.push_str(": ");
                failure.describe(out);
                return Err(InvalidConfig);
            }
        };
        if count == scratch.len() {
            out.push_escaped(path.as_bytes());
            let _ = uwrite!(out, ": too large; a configuration has less than {} bytes", scratch.len());
            return Err(InvalidConfig);
        }
        let source = scratch.get(..count).unwrap_or(&[]);
        parse(source, config, &self.base).map_err(|error: ConfigError<'_>| {
            out.push_escaped(path.as_bytes());
            let _ = uwrite!(out, ":{}: ", error.line);
            error.describe(out);
            InvalidConfig
        })
    }
}

fn is_missing(path: &Path) -> bool {
    let found = file::meta_at(path.as_c_str(), false);
    found.is_err_and(|failure| failure.errno == Errno::NOENT)
}

/// A file that each service has.
#[derive(Clone, Copy)]
pub enum ServiceFile {
    /// The PID file.
    Pid,
    /// The socket.
    Socket,
    /// The log.
    Log,
    /// The health file.
    Health,
}

/// Returns the path of a file of `service`. For `jobs` it is the path in the configuration.
/// The files of another service are in the same folder, and have its name. The socket of
/// `collector` is an abstract one, written as `@NAME` (`sys/socket.rs`). Returns `None` if the
/// path would be too long.
#[must_use]
pub fn path_of(service: Service, file: ServiceFile, config: &Config) -> Option<Path> {
    if let (Service::Collector, ServiceFile::Socket) = (service, file) {
        return Path::concat(&[b"@", &config.metrics_name]);
    }
    let (jobs, ending): (_, &[u8]) = match file {
        ServiceFile::Pid => (&config.pid_file, b".pid"),
        ServiceFile::Socket => (&config.socket, b".sock"),
        ServiceFile::Log => (&config.log_file, b".log"),
        ServiceFile::Health => (&config.health_file, b".health"),
    };
    if service.is(Service::Jobs) {
        return Some(jobs.clone());
    }
    let name = Path::concat(&[b"zigsvc-", service.name().as_bytes(), ending])?;
    jobs.parent().join(name.as_bytes())
}

/// Returns the path that [`path_of`] returns, and the empty path if it would be too long.
#[must_use]
#[inline(never)]
pub fn path_or_empty(service: Service, file: ServiceFile, config: &Config) -> Path {
    path_of(service, file, config).unwrap_or_default()
}
