//! The one list of configuration keys.

use super::value::{emit_duration, emit_size, parse_duration, parse_size};
use super::{AccountName, Config, SYNC_NAMES};
use crate::limits::{
    ALLOW_IDS_MAX, ALLOW_PATHS_BYTES, ALLOW_PATHS_MAX, LOG_KEEP_MAX, METRICS_NAME_MAX_BYTES, SUPERVISED_MAX,
};
use crate::proto::log::{Level, TimestampFormat};
use crate::proto::service::Service;
use crate::util::path::Path;
use crate::util::text::{Writer, parse_u64};
use crate::util::time::Duration;
use heapless::Vec;
use ufmt::uwrite;

/// A day, for bounds.
const DAY: Duration = Duration::from_secs(86_400);
/// A month, for bounds.
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// A configuration key.
pub struct Key {
    /// As it stands in the file.
    pub name: &'static str,
    /// What it holds and where.
    pub kind: KeyKind,
    /// Whether a running service can take a new value.
    pub reloadable: bool,
}

/// What a key holds: where it is kept and what it may be.
pub enum KeyKind {
    /// A path, made absolute.
    Path(fn(&mut Config) -> &mut Path),
    /// `log`, `shell` or a path.
    Handler,
    /// A path or nothing.
    Device(fn(&mut Config) -> &mut Path),
    /// Bytes.
    Size(fn(&mut Config) -> &mut u64),
    /// A span from the first to the second bound, or 0 if that is the third.
    Duration(fn(&mut Config) -> &mut Duration, Duration, Duration, bool),
    /// A number within bounds.
    Count(fn(&mut Config) -> &mut u32, u32, u32),
    /// One of the names, kept as its index.
    Choice(fn(&mut Config) -> &mut u8, &'static [&'static str]),
    /// True or false.
    Flag(fn(&mut Config) -> &mut bool),
    /// A user or group.
    Account(fn(&mut Config) -> &mut AccountName),
    /// Users or groups.
    Accounts(fn(&mut Config) -> &mut Vec<AccountName, ALLOW_IDS_MAX>),
    /// `supervise`.
    Services,
    /// `allow`.
    Paths,
    /// `metrics_name`.
    Abstract,
}

/// A value as the file or an option gives it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scalar<'a> {
    /// Quoted text.
    Text(&'a [u8]),
    /// A number.
    Integer(u64),
    /// `true` or `false`.
    Boolean(bool),
    /// Bare text of an option: whatever the key needs.
    Bare(&'a [u8]),
}

const fn key(name: &'static str, kind: KeyKind) -> Key {
    Key { name, kind, reloadable: true }
}

const fn fixed(name: &'static str, kind: KeyKind) -> Key {
    Key { name, kind, reloadable: false }
}

/// Every key, in the order in which `check` prints them.
pub const KEYS: &[Key] = &[
    fixed("pid_file", KeyKind::Path(|c| &mut c.pid_file)),
    fixed("socket", KeyKind::Path(|c| &mut c.socket)),
    key("log_file", KeyKind::Path(|c| &mut c.log_file)),
    key("health_file", KeyKind::Path(|c| &mut c.health_file)),
    key("queue_file", KeyKind::Path(|c| &mut c.queue_file)),
    fixed("spool", KeyKind::Path(|c| &mut c.spool)),
    key("log_max", KeyKind::Size(|c| &mut c.log_max)),
    key("log_keep", KeyKind::Count(|c| &mut c.log_keep, 1, LOG_KEEP_MAX)),
    key("log_level", KeyKind::Choice(|c| &mut c.log_level, Level::NAMES)),
    key("log_time", KeyKind::Choice(|c| &mut c.log_time, TimestampFormat::NAMES)),
    key("syslog", KeyKind::Flag(|c| &mut c.syslog)),
    key("interval", KeyKind::Duration(|c| &mut c.interval, Duration::from_ms(100), DAY, false)),
    key("handler", KeyKind::Handler),
    key("workers", KeyKind::Count(|c| &mut c.workers, 1, 8)),
    key("job_timeout", KeyKind::Duration(|c| &mut c.job_timeout, Duration::from_ms(1), MONTH, true)),
    key("retries", KeyKind::Count(|c| &mut c.retries, 0, 100)),
    key("retry_delay", KeyKind::Duration(|c| &mut c.retry_delay, Duration::from_ms(1), DAY, true)),
    key("queue_max", KeyKind::Count(|c| &mut c.queue_max, 1, 10_000_000)),
    key("sync", KeyKind::Choice(|c| &mut c.sync, SYNC_NAMES)),
    key("stop_timeout", KeyKind::Duration(|c| &mut c.stop_timeout, Duration::from_ms(1), DAY, true)),
    fixed("user", KeyKind::Account(|c| &mut c.user)),
    fixed("group", KeyKind::Account(|c| &mut c.group)),
    key("allow_uid", KeyKind::Accounts(|c| &mut c.allow_uid)),
    key("allow_gid", KeyKind::Accounts(|c| &mut c.allow_gid)),
    key("supervise", KeyKind::Services),
    key("check_interval", KeyKind::Duration(|c| &mut c.check_interval, Duration::from_ms(100), DAY, false)),
    key("stale_after", KeyKind::Duration(|c| &mut c.stale_after, Duration::from_ms(100), DAY, false)),
    key("failures", KeyKind::Count(|c| &mut c.failures, 1, 100)),
    key("watchdog", KeyKind::Device(|c| &mut c.watchdog)),
    key(
        "watchdog_patience",
        KeyKind::Duration(|c| &mut c.watchdog_patience, Duration::from_ms(1000), DAY, false),
    ),
    key("allow", KeyKind::Paths),
    key("metrics_name", KeyKind::Abstract),
];

impl Key {
    /// The key called `name` and its index.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<(usize, &'static Self)> {
        KEYS.iter().enumerate().find(|(_, key)| key.name.as_bytes() == name)
    }

    /// Whether its value is an array. One that is may be given a single value.
    #[must_use]
    pub fn is_list(&self) -> bool {
        matches!(self.kind, KeyKind::Accounts(_) | KeyKind::Services | KeyKind::Paths)
    }

    /// Empties a list before its elements are set.
    pub fn clear(&self, config: &mut Config) {
        match &self.kind {
            KeyKind::Accounts(list) => list(config).clear(),
            KeyKind::Services => config.supervise.clear(),
            KeyKind::Paths => config.allow.clear(),
            _ => {}
        }
    }

    /// Stores `value`, or appends it to a list; relative paths are below
    /// `base`. `None`: it is not what [`Key::describe`] says.
    #[must_use]
    pub fn set(&self, config: &mut Config, base: &Path, value: Scalar<'_>) -> Option<()> {
        match &self.kind {
            KeyKind::Path(field) => *field(config) = absolute(base, text(value)?)?,
            KeyKind::Handler => config.handler = handler(base, text(value)?)?,
            KeyKind::Device(field) => {
                *field(config) = match text(value)? {
                    b"" => Path::empty(),
                    path => absolute(base, path)?,
                }
            }
            KeyKind::Size(field) => *field(config) = size(value)?,
            KeyKind::Duration(field, low, high, zero) => {
                let span = duration(value)?;
                let allowed = (*zero && span.is_zero()) || (*low..=*high).contains(&span);
                *field(config) = Some(span).filter(|_| allowed)?;
            }
            KeyKind::Count(field, low, high) => {
                *field(config) = u32::try_from(count(value)?).ok().filter(|n| (*low..=*high).contains(n))?;
            }
            KeyKind::Choice(field, names) => {
                let wanted = text(value)?;
                let index = names.iter().position(|name| name.as_bytes() == wanted)?;
                *field(config) = u8::try_from(index).ok()?;
            }
            KeyKind::Flag(field) => *field(config) = flag(value)?,
            KeyKind::Account(field) => *field(config) = account(value)?,
            KeyKind::Accounts(field) => {
                let name = account(value).filter(|name| !name.is_empty())?;
                field(config).push(name).ok()?;
            }
            KeyKind::Services => {
                let service =
                    Service::from_name(text(value)?).filter(|service| *service != Service::Supervisor)?;
                if config.supervise.contains(&service) {
                    return None;
                }
                config.supervise.push(service).ok()?;
            }
            KeyKind::Paths => allow(config, text(value)?)?,
            KeyKind::Abstract => {
                let name = text(value).filter(|name| !name.is_empty() && !name.contains(&0))?;
                config.metrics_name = Vec::from_slice(name).ok()?;
            }
        }
        if self.name == "log_file" {
            config.log_file_named = true;
        }
        Some(())
    }

    /// Writes what is allowed, for error messages.
    pub fn describe(&self, out: &mut Writer<'_>) {
        match &self.kind {
            KeyKind::Path(_) => out.push_str("a path of 1 to 255 bytes"),
            KeyKind::Handler => out.push_str("log, shell, or the path of a program or directory (with a /)"),
            KeyKind::Device(_) => out.push_str("a path, or \"\" for none"),
            KeyKind::Size(_) => out.push_str("bytes, with k or m for 1024 or 1048576, such as \"64k\""),
            KeyKind::Duration(_, low, high, zero) => {
                out.push_str("a duration from ");
                emit_duration(*low, out);
                out.push_str(" to ");
                emit_duration(*high, out);
                out.push_str(" with a unit of ms, s, m or h, such as \"3s\"");
                out.push_str(if *zero { ", or \"0\"" } else { "" });
            }
            KeyKind::Count(_, low, high) => {
                let _ = uwrite!(out, "a number from {} to {}", *low, *high);
            }
            KeyKind::Choice(_, names) => {
                out.push_str("one of");
                for name in *names {
                    let _ = uwrite!(out, " \"{}\"", *name);
                }
            }
            KeyKind::Flag(_) => out.push_str("true or false"),
            KeyKind::Account(_) => out.push_str("a name or number of at most 32 bytes, in quotes"),
            KeyKind::Accounts(_) => out.push_str("a name or number, or an array of at most 8 of them"),
            KeyKind::Services => {
                out.push_str("an array of \"jobs\", \"hub\", \"opener\", \"collector\", each once")
            }
            KeyKind::Paths => {
                let _ = uwrite!(
                    out,
                    "an array of at most {} absolute paths without newlines, {} bytes in all",
                    ALLOW_PATHS_MAX,
                    ALLOW_PATHS_BYTES
                );
            }
            KeyKind::Abstract => {
                let _ = uwrite!(out, "a name of 1 to {} bytes", METRICS_NAME_MAX_BYTES);
            }
        }
    }

    /// Writes the value as TOML.
    pub fn emit(&self, config: &mut Config, out: &mut Writer<'_>) {
        match &self.kind {
            KeyKind::Path(field) | KeyKind::Device(field) => quote(field(config).as_bytes(), out),
            KeyKind::Handler => quote(config.handler.as_bytes(), out),
            KeyKind::Size(field) => quoted(out, |out| emit_size(*field(config), out)),
            KeyKind::Duration(field, ..) => quoted(out, |out| emit_duration(*field(config), out)),
            KeyKind::Count(field, ..) => out.push_u64(u64::from(*field(config))),
            KeyKind::Choice(field, names) => {
                let name = names.get(usize::from(*field(config))).copied().unwrap_or_default();
                quote(name.as_bytes(), out);
            }
            KeyKind::Flag(field) => out.push_str(if *field(config) { "true" } else { "false" }),
            KeyKind::Account(field) => quote(field(config), out),
            KeyKind::Accounts(field) => array(field(config).iter().map(Vec::as_slice), out),
            KeyKind::Services => array(config.supervise.iter().map(|service| service.name().as_bytes()), out),
            KeyKind::Paths => array(allowed_paths(&config.allow), out),
            KeyKind::Abstract => quote(&config.metrics_name, out),
        }
    }
}

/// The entries of `allow`.
pub fn allowed_paths(allow: &[u8]) -> impl Iterator<Item = &[u8]> {
    allow.split(|byte| *byte == 0).filter(|path| !path.is_empty())
}

fn array<'a>(items: impl Iterator<Item = &'a [u8]>, out: &mut Writer<'_>) {
    out.push_str("[");
    for (index, item) in items.enumerate() {
        out.push_str(if index == 0 { "" } else { ", " });
        quote(item, out);
    }
    out.push_str("]");
}

/// A TOML basic string: its escapes are those of JSON.
fn quote(text: &[u8], out: &mut Writer<'_>) {
    quoted(out, |out| out.push_json(text));
}

fn quoted(out: &mut Writer<'_>, write: impl FnOnce(&mut Writer<'_>)) {
    out.push_str("\"");
    write(out);
    out.push_str("\"");
}

fn text(value: Scalar<'_>) -> Option<&[u8]> {
    match value {
        Scalar::Text(text) | Scalar::Bare(text) => Some(text),
        Scalar::Integer(_) | Scalar::Boolean(_) => None,
    }
}

fn count(value: Scalar<'_>) -> Option<u64> {
    match value {
        Scalar::Integer(number) => Some(number),
        Scalar::Bare(text) => parse_u64(text),
        Scalar::Text(_) | Scalar::Boolean(_) => None,
    }
}

fn size(value: Scalar<'_>) -> Option<u64> {
    match value {
        Scalar::Integer(number) => Some(number),
        _ => parse_size(text(value)?),
    }
    // Larger than any file, and safe to add to.
    .filter(|bytes| *bytes <= u64::MAX >> 2)
}

fn duration(value: Scalar<'_>) -> Option<Duration> {
    match value {
        Scalar::Integer(0) => Some(Duration::ZERO),
        _ => parse_duration(text(value)?),
    }
}

fn flag(value: Scalar<'_>) -> Option<bool> {
    match value {
        Scalar::Boolean(flag) => Some(flag),
        Scalar::Bare(b"true") => Some(true),
        Scalar::Bare(b"false") => Some(false),
        _ => None,
    }
}

/// A name, or a number written either way.
fn account(value: Scalar<'_>) -> Option<AccountName> {
    let mut digits = [0; 20];
    let mut out = Writer::new(&mut digits);
    let name = match value {
        Scalar::Integer(number) => {
            out.push_u64(number);
            out.as_bytes()
        }
        _ => text(value)?,
    };
    let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b':' | b',');
    if name.iter().all(plain) { AccountName::from_slice(name).ok() } else { None }
}

/// `path` below `base`; `None` if that is too long, or if there is no base.
pub fn absolute(base: &Path, path: &[u8]) -> Option<Path> {
    let relative = path.first() != Some(&b'/');
    if path.is_empty() || (relative && base.is_empty()) { None } else { base.join(path) }
}

fn handler(base: &Path, value: &[u8]) -> Option<Path> {
    match value {
        b"log" | b"shell" => Path::new(value),
        path if path.contains(&b'/') => absolute(base, path),
        _ => None,
    }
}

fn allow(config: &mut Config, path: &[u8]) -> Option<()> {
    let known = allowed_paths(&config.allow).count();
    // (nobody can ask for a path with a newline, which ends it)
    let askable = path.first() == Some(&b'/') && !path.contains(&0) && !path.contains(&b'\n');
    if !askable || known >= ALLOW_PATHS_MAX {
        return None;
    }
    Path::new(path)?;
    config.allow.extend_from_slice(path).ok()?;
    config.allow.push(0).ok()
}

/// The names of services fit the list: each may stand in it once.
const _: () = assert!(SUPERVISED_MAX + 1 == Service::ALL.len());
