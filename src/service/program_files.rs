//! Reads the files of the programs that `supervise` names, one file a program, and checks them as a
//! whole.

use super::accounts;
use super::config_source::{ConfigSource, InvalidConfig, ServiceFile, path_of};
use super::trust::Judge;
use crate::limits::SUPERVISED_MAX;
use crate::proto::config::{Config, Program};
use crate::proto::service::Service;
use crate::state::identity::hash;
use crate::state::supervisor::order::find_circle;
use crate::state::trust::Subject;
use crate::util::path::Path;
use crate::util::text::Writer;
use heapless::Vec;
use ufmt::uwrite;

/// The folder of the files of root's programs.
const SYSTEM_FOLDER: &[u8] = b"/etc/zigsvc/";

/// Returns the file of the program `name`, below `folder` unless that is empty. Returns an empty path if it would be too long.
#[must_use]
pub fn path_of_program(folder: &Path, name: &[u8]) -> Path {
    let folder = folder.as_bytes();
    let parts: &[&[u8]] = match folder {
        b"" => &[SYSTEM_FOLDER, name, b".conf"],
        _ => &[folder, b"/programs/", name, b".conf"],
    };
    Path::or_empty(parts)
}

/// Reads the file of the program `name` into `program`. `scratch` is memory for the file. On
/// failure, the reason is written to `out`: one line without its newline, which names file and
/// line.
///
/// # Errors
/// [`InvalidConfig`] if the file cannot be used.
#[inline(never)]
pub fn load(
    source: &ConfigSource,
    config: &Config,
    name: &[u8],
    program: &mut Program,
    scratch: &mut [u8],
    out: &mut Writer<'_>,
) -> Result<(), InvalidConfig> {
    let path = path_of_program(&source.folder, name);
    let mut judge = Judge::of_programs(config);
    let file = judge.open_linked_file(&path, Subject::Config).map_err(|refusal| {
        if !refusal.is_untrusted() {
            out.push_str("supervise: \"");
            out.push_escaped(name);
            out.push_str("\" is no service and needs a file: ");
        }
        judge.describe(refusal, &path, out);
        InvalidConfig
    })?;
    program.reset();
    source.read_file(&file, &path, scratch, program, out)?;
    if program.log_file.is_empty() {
        let log = Path::or_empty(&[b"zigsvc-", name, b".log"]);
        let joined = config.log_file.parent().join(log.as_bytes());
        program.log_file.set(&joined.unwrap_or_default());
    }
    let mut refuse = |key: &str, text: &dyn Fn(&mut Writer<'_>)| {
        out.push_escaped(path.as_bytes());
        let _ = uwrite!(out, ":{}: {}", program.line_of(key), key);
        text(out);
        Err(InvalidConfig)
    };
    if program.command.is_empty() {
        return refuse("command", &|out| {
            out.push_str(" is missing; it is the path of the program and its arguments")
        });
    }
    if program.log_file.is_empty() {
        return refuse("log_file", &|out| out.push_str(": the path is too long"));
    }
    if program.user.is_empty() {
        return match program.group.is_empty() {
            true => Ok(()),
            false => refuse("group", &|out| out.push_str(": needs user to be set too")),
        };
    }
    match accounts::resolve(&program.user, &program.group) {
        Ok(_) => Ok(()),
        Err(unknown) => {
            let key = if unknown == &program.user[..] { "user" } else { "group" };
            refuse(key, &|out| {
                out.push_str(": ");
                out.push_escaped(unknown);
                out.push_str(" is neither a number nor known to /etc/passwd or /etc/group");
            })
        }
    }
}

/// Reads the file of each program that `config` names, and calls `visit` with its name and its
/// content. Checks what `after` names, and that no two programs have one log. The first error is
/// written to `out` as [`load`] does.
///
/// # Errors
/// [`InvalidConfig`] if a file, or the set of them, cannot be used.
#[inline(never)]
pub fn check_all(
    source: &ConfigSource,
    config: &Config,
    program: &mut Program,
    scratch: &mut [u8],
    out: &mut Writer<'_>,
    visit: &mut dyn FnMut(&[u8], &mut Program),
) -> Result<(), InvalidConfig> {
    // A path is compared by its hash, because there is no memory for all of them.
    let mut logs: Vec<u64, { SUPERVISED_MAX + 2 }> = Vec::new();
    for service in Service::ALL {
        let log = path_of(service, ServiceFile::Log, config);
        let _ = logs.push(log.map_or(0, |path| hash(path.as_bytes())));
    }
    let mut needs: Vec<u64, SUPERVISED_MAX> = Vec::new();
    for name in config.supervised() {
        if Service::from_name(name).is_some() {
            let _ = needs.push(0);
            continue;
        }
        load(source, config, name, program, scratch, out)?;
        let mut refuse = |key: &str, text: &dyn Fn(&mut Writer<'_>)| {
            out.push_escaped(path_of_program(&source.folder, name).as_bytes());
            let _ = uwrite!(out, ":{}: {}: ", program.line_of(key), key);
            text(out);
            Err(InvalidConfig)
        };
        let log = hash(program.log_file.as_bytes());
        if !program.has_no_log() {
            if logs.contains(&log) {
                return refuse("log_file", &|out| {
                    out.push_escaped(program.log_file.as_bytes());
                    out.push_str(" is the log of another program or service");
                });
            }
            let _ = logs.push(log);
        }
        let mut mask = 0u64;
        for other in program.after() {
            let Some(at) = config.supervised().position(|known| known == other) else {
                return refuse("after", &|out| {
                    out.push_str("\"");
                    out.push_escaped(other);
                    out.push_str("\" is not in supervise");
                });
            };
            mask |= 1 << at;
        }
        let _ = needs.push(mask);
        visit(name, program);
    }
    let Some(name) = find_circle(&needs).and_then(|at| config.supervised().nth(at)) else { return Ok(()) };
    load(source, config, name, program, scratch, out)?;
    out.push_escaped(path_of_program(&source.folder, name).as_bytes());
    let _ = uwrite!(out, ":{}: after: a circle: ", program.line_of("after"));
    out.push_escaped(name);
    out.push_str(" would be started after itself");
    Err(InvalidConfig)
}
