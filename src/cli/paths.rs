//! Where the files are: below `-d DIR`, in the system's places for root, or in
//! the user's own folder.

use super::command_line::Options;
use super::output::{fail, fail_at, usage};
use crate::limits::{METRICS_NAME_MAX_BYTES, PATH_MAX_BYTES};
use crate::proto::config::DefaultPaths;
use crate::proto::config::keys::absolute;
use crate::service::config_source::ConfigSource;
use crate::service::lifecycle::{ensure_folder, exit};
use crate::sys::args::Args;
use crate::sys::{Errno, Failure, file, identity};
use crate::util::path::Path;
use crate::util::text::Writer;

/// Finds the files. With `creates`, a missing folder is made, mode 0700. `base`
/// is the folder that relative paths are below, if not the working folder.
///
/// # Errors
/// The exit code, after telling why.
pub(super) fn locate(
    args: &Args,
    options: &Options,
    creates: bool,
    base: Option<&[u8]>,
    config_source: &mut ConfigSource,
) -> Result<(), u8> {
    let base = base.map_or_else(working_folder, |base| Path::new(base).unwrap_or_default());
    let folder = match options.folder {
        Some(folder) => absolute(&base, folder).ok_or_else(|| too_long("-d"))?,
        None if identity::effective_uid() == 0 => Path::empty(),
        None => own_folder(args)?,
    };
    if !fill_default_paths(&folder, &mut config_source.default_paths) {
        return Err(too_long("-d"));
    }
    if creates && !folder.is_empty() {
        ensure_folder(&folder, 0o700).map_err(|failure| fail_at(&folder, failure))?;
    }
    if options.folder.is_none() && !folder.is_empty() && folder.as_bytes().starts_with(b"/tmp/") {
        refuse_foreign(&folder)?;
    }
    let file = match options.config {
        Some(config) => absolute(&base, config),
        None if folder.is_empty() => Path::new(b"/etc/zigsvc.conf"),
        None => folder.join(b"zigsvc.conf"),
    };
    config_source.file.set(&file.ok_or_else(|| too_long("-c"))?);
    config_source.file_named = options.config.is_some();
    config_source.base.set(&base);
    let _ = config_source.overrides.extend_from_slice(&options.overrides);
    Ok(())
}

fn too_long(option: &str) -> u8 {
    usage("", &|out| {
        out.push_str("option ");
        out.push_str(option);
        out.push_str(": a path, made absolute, has at most 255 bytes");
    })
}

/// The working directory; empty where it is too deep or cannot be reached, and
/// then relative paths are refused.
pub(super) fn working_folder() -> Path {
    let mut buffer = [0; PATH_MAX_BYTES + 1];
    file::current_dir(&mut buffer).and_then(Path::new).unwrap_or_default()
}

/// `$XDG_STATE_HOME/zigsvc`, `~/.local/state/zigsvc`, or, with no home,
/// `/tmp/zigsvc-UID` (XDG Base Directory Specification).
fn own_folder(args: &Args) -> Result<Path, u8> {
    let folder = |name: &[u8]| args.env(name).filter(|value| value.first() == Some(&b'/'));
    let path = if let Some(state) = folder(b"XDG_STATE_HOME") {
        Path::concat(&[state, b"/zigsvc"])
    } else if let Some(home) = folder(b"HOME").filter(|home| *home != b"/") {
        Path::concat(&[home, b"/.local/state/zigsvc"])
    } else {
        let mut digits = [0; 12];
        let mut out = Writer::new(&mut digits);
        out.push_u64(u64::from(identity::effective_uid()));
        Path::concat(&[b"/tmp/zigsvc-", out.as_bytes()])
    };
    path.ok_or_else(|| too_long("-d"))
}

/// Anybody can make a folder in /tmp: it must be ours, private, and no link.
fn refuse_foreign(folder: &Path) -> Result<(), u8> {
    match file::meta_at(folder.as_c_str(), false) {
        Ok(meta) if meta.directory && meta.uid == identity::effective_uid() && meta.mode & 0o077 == 0 => {
            Ok(())
        }
        Err(Failure { errno: Errno::NOENT, .. }) => Ok(()),
        Ok(_) => Err(fail(exit::FAILED, &|out| {
            out.push_escaped(folder.as_bytes());
            out.push_str(": must be a directory of yours with mode 0700, not a link or somebody else's");
        })),
        Err(failure) => Err(fail_at(folder, failure)),
    }
}

/// Names of the files below a folder, and their places for root.
const PLACES: [(&str, &str); 6] = [
    ("zigsvc.pid", "/run/zigsvc.pid"),
    ("zigsvc.sock", "/run/zigsvc.sock"),
    ("zigsvc.log", "/var/log/zigsvc.log"),
    ("zigsvc.health", "/run/zigsvc.health"),
    ("queue", "/var/spool/zigsvc/queue"),
    ("spool", "/var/spool/zigsvc"),
];

/// Fills in where everything is; an empty folder means the system's places.
/// False: a path would be too long.
fn fill_default_paths(folder: &Path, default_paths: &mut DefaultPaths) -> bool {
    let DefaultPaths { pid_file, socket, log_file, health_file, queue_file, spool, metrics_name } =
        default_paths;
    let fields = [pid_file, socket, log_file, health_file, queue_file, spool];
    let system = folder.is_empty();
    let filled = fields.into_iter().zip(PLACES).all(|(field, (name, place))| {
        if system {
            field.assign(&[place.as_bytes()])
        } else {
            field.assign(&[folder.as_bytes(), b"/", name.as_bytes()])
        }
    });
    metrics_name.clear();
    let _ = metrics_name.extend_from_slice(b"zigsvc-metrics");
    if !system {
        let _ = metrics_name.push(b':');
        // The end of a long path tells two folders apart better than its start.
        let path = folder.as_bytes();
        let room = METRICS_NAME_MAX_BYTES.saturating_sub(metrics_name.len());
        let end = path.get(path.len().saturating_sub(room)..).unwrap_or(path);
        let _ = metrics_name.extend_from_slice(end);
    }
    filled
}
