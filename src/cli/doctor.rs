//! `doctor`: prints the conditions of this machine that would degrade a service, and the
//! remedy for each. It changes nothing: no file is created or locked, no signal sent.

use super::invocation::Invocation;
use super::kept_options::{OptionWords, merge, take_memory};
use super::output::{
    CommandResult, GREEN, LOGS_ONLY, YELLOW, print, push_coloured, shows_colours, usage_text,
};
use super::status::degraded_states;
use crate::limits::{CLAIMS_MAX, POLL_MAX};
use crate::proto::config::keys::allowed_paths;
use crate::proto::config::{Config, Handler, Program};
use crate::proto::filesystem::{Medium, medium, overlay_upper};
use crate::proto::journal::FILE_HEADER_BYTES;
use crate::proto::log::emit_iso;
use crate::proto::service::{BUILT_IN, Service};
use crate::service::accounts;
use crate::service::config_source::{ConfigSource, ServiceFile, path_or_empty};
use crate::service::lifecycle::{describe_at, exit};
use crate::service::listener::{describe_unknown, find_policy};
use crate::service::memory::Memory;
use crate::service::own_paths::{each_untrusted, each_untrusted_entry};
use crate::service::program_files::check_all;
use crate::service::trust::Judge;
use crate::state::degraded::DegradedState;
use crate::state::trust::Subject;
use crate::sys::file::Meta;
use crate::sys::inotify::Inotify;
use crate::sys::socket::SOCKET_PATH_MAX_BYTES;
use crate::sys::{Errno, Failure, Op, clock, fds, file, process};
use crate::util::path::Path;
use crate::util::text::Writer;
use ufmt::uwrite;

/// Maximum number of descriptors that a service needs: those that are polled, the claims, and
/// a dozen of its own.
const DESCRIPTORS_MAX: usize = POLL_MAX + CLAIMS_MAX + 16;
/// Free bytes below which `doctor` warns, because a spool and a log would soon be stuck.
const FREE_WARN_BYTES: u64 = 256 * 1024;
/// Seconds since 1970 of 2020-01-01. A clock that shows an earlier time was never set.
const CLOCK_SET_AFTER: i64 = 1_577_836_800;

/// Writes a finding and its remedy.
type Finding<'a> = &'a dyn Fn(&mut Writer<'_>);

/// The findings so far.
struct Doctor<'a> {
    config: &'a Config,
    /// The folder of `-d`, which a start creates if it is missing, as it does those of the spool.
    made: &'a Path,
    warnings: u32,
    /// Set if stdout cannot be written.
    unread: bool,
    /// Stdout shows colours.
    colours: bool,
}

/// Runs `doctor`.
pub(super) fn doctor(mut invocation: Invocation) -> CommandResult {
    invocation.load()?;
    let kept = take_options(&mut invocation)?;
    let colours = shows_colours(&invocation.args);
    let states = Service::ALL.map(|service| degraded_states(&mut invocation, service));
    let Memory { config_source: source, config, program, scratch, .. } = &mut *invocation.memory;
    let (source, config) = (&*source, &*config);
    let mut doctor = Doctor { config, made: &source.folder, warnings: 0, unread: false, colours };
    doctor.options(source, kept);
    doctor.kernel();
    doctor.files();
    doctor.trust(source);
    doctor.accounts();
    if Service::Jobs.is_built_in() {
        doctor.handler();
    }
    if Service::Supervisor.is_built_in() {
        doctor.watchdog();
        doctor.programs(source, program, scratch.pages());
    }
    doctor.kinds();
    for (service, states) in Service::ALL.iter().zip(states) {
        let Some(states) = states else { continue };
        if service.is(Service::Opener) {
            doctor.entries();
        }
        for state in DegradedState::ALL.iter().filter(|state| states.has(**state)) {
            doctor.print_state(*service, *state, &Path::empty());
        }
    }
    doctor.finish()
}

/// The options of a running service that this command line lacks.
#[derive(Clone, Copy)]
struct KeptOptions {
    service: Service,
    /// The service has a configuration file of its own.
    file: bool,
    /// The number of values of `-o`. They stand before those of this command line.
    count: usize,
}

/// Adds the options of the first service that runs to those of this command line, and reads the
/// configuration again, because that service is to be judged as it runs.
///
/// # Errors
/// The configuration cannot be used; the exit code, after printing the reason.
fn take_options(invocation: &mut Invocation) -> Result<KeptOptions, u8> {
    let mut words = OptionWords::new(take_memory());
    let running = BUILT_IN.iter().find(|service| words.find_running(invocation, **service));
    let source = &mut invocation.memory.config_source;
    let (is_named, given) = (source.file_named, source.overrides.len());
    if running.is_some() {
        merge(source, words.into_bytes())
            .map_err(|()| usage_text("doctor", "too many options -o, with those of the service"))?;
    }
    let kept = KeptOptions {
        service: running.copied().unwrap_or(Service::DEFAULT),
        file: source.file_named && !is_named,
        count: source.overrides.len().saturating_sub(given),
    };
    invocation.load()?;
    Ok(kept)
}

impl Doctor<'_> {
    /// Names the options with which a service runs and a plain start would not.
    fn options(&mut self, source: &ConfigSource, kept: KeptOptions) {
        if !kept.file && kept.count == 0 {
            return;
        }
        self.print_finding(true, "options", &|out| {
            let _ = uwrite!(out, "{} runs with them, and a start without them differs:", kept.service.name());
            if kept.file {
                out.push_str(" -c ");
                out.push_visible(source.file.as_bytes());
            }
            for value in source.overrides.iter().take(kept.count) {
                out.push_str(" -o ");
                out.push_visible(value);
            }
        });
    }

    /// Prints one line: `ok` or `warn`, the subject, the finding.
    #[inline(never)]
    fn print_finding(&mut self, well: bool, subject: &str, text: Finding<'_>) {
        let mut line = [0; 480];
        let mut out = Writer::new(&mut line);
        let (word, colour) = if well { ("ok    ", GREEN) } else { ("warn  ", YELLOW) };
        push_coloured(self.colours, colour, word.as_bytes(), &mut out);
        out.push_str(subject);
        out.push_str(": ");
        text(&mut out);
        out.end_line();
        self.unread |= print(out.as_bytes()).is_err();
        self.warnings = self.warnings.saturating_add(u32::from(!well));
    }

    /// Prints one line with the text `good` or the text `bad`.
    fn print_check(&mut self, well: bool, subject: &str, good: &str, bad: &str) {
        self.print_finding(well, subject, &|out| out.push_str(if well { good } else { bad }));
    }

    /// Checks the files and the commands of the programs that the supervisor starts.
    fn programs(&mut self, source: &ConfigSource, program: &mut Program, scratch: &mut [u8]) {
        let config = self.config;
        let mut reason = [0; 400];
        let mut out = Writer::new(&mut reason);
        let result = check_all(source, config, program, scratch, &mut out, &mut |name, program| {
            let command = Path::or_empty(&[program.words().next().unwrap_or(b"")]);
            let is_file = file::meta_at(command.as_c_str(), true).is_ok_and(|meta| meta.regular);
            let is_well = is_file && file::executable(command.as_c_str());
            self.print_finding(is_well, "program", &|out| {
                out.push(name);
                out.push_str(": ");
                out.push_escaped(command.as_bytes());
                out.push_str(match (is_file, is_well) {
                    (_, true) => "",
                    (true, false) => ": not executable; the program is tried again and again",
                    (false, _) => ": there is no such file; the program is tried again and again",
                });
            });
        });
        if result.is_err() {
            self.print_finding(false, "program", &|line| line.push(out.as_bytes()));
        }
    }

    /// Checks the kernel and the clock.
    fn kernel(&mut self) {
        let wall = clock::wall();
        self.print_finding(wall >= CLOCK_SET_AFTER, "clock", &|out| {
            emit_iso(wall, out);
            if wall < CLOCK_SET_AFTER {
                out.push_str(": never set; the dates in the log are wrong, and nothing else depends on it");
            }
        });
        let proc = file::meta_at(c"/proc/self", true).is_ok();
        self.print_check(
            proc,
            "proc",
            "mounted",
            "not mounted: heartbeats of an earlier boot are not told apart, and what a killed service left runs on",
        );
        if Service::Jobs.is_built_in() {
            self.print_check(
                Inotify::new().is_ok(),
                "inotify",
                "there",
                "missing: the queue file is looked at once each `interval`",
            );
        }
        if Service::Supervisor.is_built_in() {
            self.print_check(
                process::pidfd_open(process::pid()).is_ok(),
                "pidfd",
                "there",
                "missing: the death of an adopted service is seen at the next check",
            );
        }
        if Service::Opener.is_built_in() {
            self.print_check(
                file::can_refuse_links(),
                "openat2",
                "there",
                "missing: the opener sees a symbolic link at the end of a path, and none in its middle",
            );
        }
        let least = DESCRIPTORS_MAX as u64;
        let limit = fds::limit();
        self.print_finding(limit.is_none_or(|limit| limit >= least), "descriptors", &|out| match limit {
            None => out.push_str("unlimited"),
            Some(limit) => {
                let _ = uwrite!(out, "{}", limit);
                if limit < least {
                    let _ = uwrite!(out, "; a full service needs {} (ulimit -n)", least);
                }
            }
        });
        let dev_log = file::meta_at(c"/dev/log", true).is_ok_and(|meta| meta.socket);
        let wanted = self.config.syslog;
        self.print_finding(dev_log || !wanted, "syslog", &|out| {
            out.push_str(match (dev_log, wanted) {
                (true, _) => "/dev/log is there",
                (false, false) => "/dev/log is missing, and not used (syslog = false)",
                (false, true) => "/dev/log is missing: lines go to the file only until a syslogd runs",
            });
        });
    }

    /// Checks the places of the files.
    fn files(&mut self) {
        let Config { log_file, health_file, pid_file, log_max, .. } = self.config;
        if Service::Jobs.is_built_in() {
            self.spool();
        }
        self.place("log", log_file, &|medium| match medium {
            Medium::Flash => Some("each line wears it; a tmpfs, or log_level = \"warn\", is kinder"),
            _ => None,
        });
        self.place("health", health_file, &|medium| match medium {
            Medium::Flash => Some("it is written each `interval` and wears it; put it on a tmpfs"),
            Medium::Network => Some("others may see it late; put it on a tmpfs"),
            _ => None,
        });
        self.place("pid", pid_file, &|medium| match medium {
            Medium::Network => Some("its lock may not hold there; put it on a tmpfs"),
            _ => None,
        });
        if *log_max == 0 {
            self.print_finding(false, "log", &|out| {
                out.push_str("log_max = \"0\": it grows without end, unless something else rotates it");
            });
        }
        for service in BUILT_IN {
            let path = path_or_empty(*service, ServiceFile::Socket, self.config);
            if path.as_bytes().len() > SOCKET_PATH_MAX_BYTES {
                self.print_finding(false, "socket", &|out| {
                    out.push_escaped(path.as_bytes());
                    out.push_str(": a socket's path has at most 107 bytes; set `socket` to a shorter one");
                });
            }
        }
    }

    /// Checks the place of the spool.
    fn spool(&mut self) {
        let synced = self.config.sync_always();
        self.place("spool", &self.config.spool, &|medium| match medium {
            Medium::Memory if synced => {
                Some("jobs there do not survive a reboot; if that is meant, set sync = \"never\"")
            }
            Medium::Network => Some("locks and syncs may not hold there; use a local disk"),
            _ => None,
        });
        if !synced {
            self.print_finding(false, "spool", &|out| {
                out.push_str("sync = \"never\": a power cut may lose any job")
            });
        }
    }

    /// Checks the filesystem of `path`; `objection` returns the disadvantage of a medium.
    #[inline(never)]
    fn place(&mut self, subject: &str, path: &Path, objection: &dyn Fn(Medium) -> Option<&'static str>) {
        let parent = path.parent();
        if let Err(failure) = file::meta_at(parent.as_c_str(), true)
            && subject != "spool"
            && parent != *self.made
        {
            return self.print_finding(false, subject, &|out| describe_at(&parent, failure, out));
        }
        let folder = existing(path);
        let name = folder.as_c_str();
        let found = file::meta_at(name, true).and_then(|meta| Ok((meta, file::filesystem(name)?)));
        let (meta, filesystem) = match found {
            Ok(found) => found,
            Err(failure) => {
                return self.print_finding(false, subject, &|out| describe_at(&folder, failure, out));
            }
        };
        let (mut medium, mut kind) = medium(filesystem.kind, meta.identity.0);
        if medium == Medium::Stacked
            && let Some(below) = below_overlay(meta.identity.0)
        {
            (medium, kind) = below;
        }
        let objection = objection(medium);
        let full = filesystem.free.is_some_and(|free| free < FREE_WARN_BYTES);
        // Of these paths only the spool is a directory.
        let usable = file::writable(name, folder != *path || subject == "spool");
        if let Some(failure) = usable.err().filter(|_| !filesystem.read_only) {
            return self.print_finding(false, subject, &|out| describe_at(&folder, failure, out));
        }
        let well = objection.is_none() && !full && !filesystem.read_only;
        self.print_finding(well, subject, &|out| {
            out.push_escaped(path.as_bytes());
            let _ = uwrite!(out, " on {}", kind);
            if let Some(free) = filesystem.free {
                let _ = uwrite!(out, ", {} KiB free", free / 1024);
            }
            if filesystem.read_only {
                out.push_str(": read-only; put it where it can be written");
                return;
            }
            if full {
                out.push_str(": nearly full");
                out.push_str(if subject == "spool" { "; new jobs would be refused" } else { "" });
            }
            if let Some(objection) = objection {
                let _ = uwrite!(out, "{} {}", if full { ";" } else { ":" }, objection);
            }
        });
    }

    /// Checks the users who can change the folders and the files.
    fn trust(&mut self, source: &ConfigSource) {
        let config = self.config;
        let before = self.warnings;
        let mut judge = Judge::new(config);
        if !source.folder.is_empty()
            && let Err(refusal) = judge.open_folder(&source.folder, Subject::Spool, None)
            && refusal.is_untrusted()
        {
            self.print_finding(false, "trust", &|out| judge.describe(refusal, &source.folder, out));
        }
        let mut print = |key: &'static str, reason: &dyn Fn(&mut Writer<'_>)| {
            self.print_finding(false, "trust", &|out| {
                let _ = uwrite!(out, "{}: ", key);
                reason(out);
            });
        };
        each_untrusted(Service::DEFAULT, source, config, &mut print);
        each_untrusted_entry(config, &mut print);
        if self.warnings == before {
            self.print_finding(true, "trust", &|out| {
                out.push_str("no other user can change the files of the services");
            });
        }
        let folder = config.queue_file.parent();
        let meta = file::meta_at(folder.as_c_str(), true);
        if Service::Jobs.is_built_in() && meta.is_ok_and(|meta| meta.mode & 0o020 != 0) {
            self.print_finding(true, "queue", &|out| {
                out.push_escaped(folder.as_bytes());
                out.push_str(": its group may add jobs");
            });
        }
    }

    /// Checks the users and groups of the configuration.
    fn accounts(&mut self) {
        let config = self.config;
        if let Err(name) = find_policy(Service::DEFAULT, config) {
            self.print_finding(false, "access", &|out| describe_unknown(name, out));
        }
        if config.user.is_empty() {
            return;
        }
        match accounts::resolve(&config.user, &config.group) {
            Err(name) => self.print_finding(false, "user", &|out| {
                out.push_escaped(name);
                out.push_str(": neither a number nor known to /etc/passwd or /etc/group; a start fails");
            }),
            Ok(identity) => {
                // The service creates and replaces files, so their folders must be its own.
                let folders = [config.log_file.parent(), config.health_file.parent()];
                let [log, health] = &folders;
                for folder in folders.get(..if log == health { 1 } else { 2 }).unwrap_or(&folders) {
                    let owner = file::meta_at(folder.as_c_str(), true).map(|meta| meta.uid);
                    self.print_finding(owner == Ok(identity.uid), "user", &|out| {
                        out.push_escaped(folder.as_bytes());
                        out.push_str(match owner {
                            Ok(owner) if owner == identity.uid => ": its own",
                            Ok(_) => ": belongs to somebody else than `user`, who cannot create files in it",
                            Err(_) => ": missing",
                        });
                    });
                }
            }
        }
    }

    /// Checks the handler of jobs.
    fn handler(&mut self) {
        let config = self.config;
        let shell = Path::or_empty(&[b"/bin/sh"]);
        let handler = match config.handler() {
            Handler::Log => None,
            Handler::Shell => Some(&shell),
            Handler::Path(path) => Some(path),
        };
        let journal = config.spool.join(b"journal").unwrap_or_default();
        let has_jobs =
            file::meta_at(journal.as_c_str(), true).is_ok_and(|meta| meta.size > FILE_HEADER_BYTES as u64);
        if config.handler() == Handler::Log && has_jobs {
            self.print_finding(false, "handler", &|out| {
                out.push_str(LOGS_ONLY);
                out.push_str("; jobs came already");
            });
        }
        if let Some(path) = handler {
            let executable = file::executable(path.as_c_str());
            self.print_finding(executable, "handler", &|out| {
                let missing = file::meta_at(path.as_c_str(), true).err();
                match missing.or((!executable).then_some(Failure { op: Op::Access, errno: Errno::ACCESS })) {
                    Some(failure) => describe_at(path, failure, out),
                    None => out.push_escaped(path.as_bytes()),
                }
            });
        }
    }

    /// Checks the device of the hardware watchdog.
    fn watchdog(&mut self) {
        let config = self.config;
        if !config.watchdog.is_empty() {
            let found = file::meta_at(config.watchdog.as_c_str(), true);
            self.print_finding(found.is_ok(), "watchdog", &|out| match found {
                Ok(_) => out.push_escaped(config.watchdog.as_bytes()),
                Err(failure) => describe_at(&config.watchdog, failure, out),
            });
        }
    }

    /// Checks the files that the opener hands out.
    fn entries(&mut self) {
        for entry in allowed_paths(&self.config.allow) {
            let path = Path::new(entry).unwrap_or_default();
            let found = file::meta_at(path.as_c_str(), true);
            if found.is_ok_and(|meta| meta.regular) {
                continue;
            }
            self.print_finding(false, "opener", &|out| {
                match found {
                    Ok(_) => out.push_escaped(path.as_bytes()),
                    Err(failure) => describe_at(&path, failure, out),
                }
                out.push_str("; `allow` names it, and no client gets it: only regular files are handed out");
            });
        }
    }

    /// Checks that no other thing has the name of a file of a service.
    fn kinds(&mut self) {
        let files = [
            (DegradedState::PidFile, ServiceFile::Pid),
            (DegradedState::Health, ServiceFile::Health),
            (DegradedState::Socket, ServiceFile::Socket),
        ];
        for service in Service::ALL.into_iter().filter(|service| service.is_built_in()) {
            for (state, file) in files {
                let path = path_or_empty(service, file, self.config);
                self.kind(service, state, &path);
            }
        }
        let config = self.config;
        self.kind(Service::Jobs, DegradedState::QueueFile, &config.queue_file);
    }

    /// Warns if there is a file at `path` that causes `state`.
    fn kind(&mut self, service: Service, state: DegradedState, path: &Path) {
        let is_good = |meta: Meta| if state == DegradedState::Socket { meta.socket } else { meta.regular };
        if file::meta_at(path.as_c_str(), false).is_ok_and(|meta| !is_good(meta)) {
            self.print_state(service, state, path);
        }
    }

    /// Prints a degraded state of a service with its cause and what ends it, and the path that
    /// causes it, if there is one.
    #[inline(never)]
    fn print_state(&mut self, service: Service, state: DegradedState, path: &Path) {
        self.print_finding(false, service.name(), &|out| {
            let _ = uwrite!(out, "{}: ", state.name());
            if !path.is_empty() {
                out.push_escaped(path.as_bytes());
                out.push_str(": not a file of this service; ");
            }
            let _ = uwrite!(out, "{}; what ends it: {}", state.cause(), state.remedy());
        });
    }

    /// Prints the number of warnings; returns the exit code.
    fn finish(&self) -> CommandResult {
        let mut line = [0; 64];
        let mut out = Writer::new(&mut line);
        let _ = match self.warnings {
            0 => uwrite!(out, "zigsvc: nothing to worry about\n"),
            1 => uwrite!(out, "zigsvc: 1 warning\n"),
            count => uwrite!(out, "zigsvc: {} warnings\n", count),
        };
        let unread = self.unread || print(out.as_bytes()).is_err();
        if self.warnings == 0 && !unread { Ok(exit::OK) } else { Err(exit::FAILED) }
    }
}

/// Returns the nearest folder at or above `path` that exists; missing folders are created
/// there.
fn existing(path: &Path) -> Path {
    let mut folder = path.clone();
    while file::meta_at(folder.as_c_str(), true).is_err() && folder.as_bytes() != b"/" {
        let parent = folder.parent();
        if parent == folder {
            break;
        }
        folder.set(&parent);
    }
    folder
}

/// Returns the medium of the upper folder of the overlay with this device number, if that folder
/// can be seen. A router mounts it at /overlay, or keeps it in memory (OpenWrt).
fn below_overlay(device: u64) -> Option<(Medium, &'static str)> {
    let mut upper = None;
    file::for_each_line(c"/proc/self/mountinfo", &mut |line| {
        upper = upper.take().or_else(|| overlay_upper(line, device).and_then(Path::new));
    });
    let folder = existing(&upper.or_else(|| Path::new(b"/overlay"))?);
    let meta = file::meta_at(folder.as_c_str(), true).ok()?;
    let below = file::filesystem(folder.as_c_str()).ok()?;
    let (medium, kind) = medium(below.kind, meta.identity.0);
    matches!(medium, Medium::Flash | Medium::Memory).then_some((medium, kind))
}
