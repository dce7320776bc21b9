//! Where the files are: below `-d DIR`, in the system's places for root, or in
//! the user's own folder.

use super::{Options, fail, usage};
use crate::limits::{METRICS_NAME_MAX_BYTES, PATH_MAX_BYTES};
use crate::proto::config::Layout;
use crate::proto::path::Path;
use crate::proto::text::Writer;
use crate::service::lifecycle::{describe_at, ensure_folder, exit};
use crate::service::settings::Settings;
use crate::sys::args::Args;
use crate::sys::{Errno, Failure, file, identity};
use heapless::Vec;

/// What was found.
pub(super) struct Located {
    pub(super) settings: Settings,
    /// Empty for the system's places.
    pub(super) folder: Path,
}

/// Finds the files. With `creates`, a missing folder is made, mode 0700.
///
/// # Errors
/// The exit code, after telling why.
pub(super) fn locate(args: &Args, options: &Options, creates: bool) -> Result<Located, u8> {
    let base = working_folder()?;
    let folder = match options.folder {
        Some(folder) => base.join(folder).ok_or_else(|| too_long("-d"))?,
        None if identity::effective_uid() == 0 => Path::empty(),
        None => own_folder(args)?,
    };
    if creates && !folder.is_empty() {
        ensure_folder(&folder, 0o700).map_err(|failure| tell(&folder, failure))?;
    }
    if options.folder.is_none() && !folder.is_empty() && folder.as_bytes().starts_with(b"/tmp/") {
        refuse_foreign(&folder)?;
    }
    let layout = if folder.is_empty() { system_layout() } else { folder_layout(&folder) };
    let layout = layout.ok_or_else(|| too_long("-d"))?;
    let (config, named) = match options.config {
        Some(config) => (base.join(config), true),
        None if folder.is_empty() => (Path::new(b"/etc/zigsvc.conf"), false),
        None => (folder.join(b"zigsvc.conf"), false),
    };
    let file = config.ok_or_else(|| too_long("-c"))?;
    let settings = Settings { base, layout, file, file_named: named, overrides: options.overrides.clone() };
    Ok(Located { settings, folder })
}

fn too_long(option: &str) -> u8 {
    usage("", |out| {
        out.push_str("option ");
        out.push_str(option);
        out.push_str(": a path has at most 255 bytes");
    })
}

fn tell(path: &Path, failure: Failure) -> u8 {
    let code = if failure.is_denied() { exit::DENIED } else { exit::FAILED };
    fail(code, |out| describe_at(path, failure, out))
}

/// The working directory; `/` where it cannot be reached.
fn working_folder() -> Result<Path, u8> {
    let mut buffer = [0; PATH_MAX_BYTES + 1];
    let folder = file::current_dir(&mut buffer).unwrap_or(b"/");
    Path::new(folder).ok_or_else(|| too_long("-d"))
}

/// `$XDG_STATE_HOME/zigsvc`, `~/.local/state/zigsvc`, or, with no home,
/// `/tmp/zigsvc-UID` (XDG Base Directory Specification).
fn own_folder(args: &Args) -> Result<Path, u8> {
    let absolute = |name: &[u8]| args.env(name).filter(|value| value.first() == Some(&b'/'));
    let path = if let Some(state) = absolute(b"XDG_STATE_HOME") {
        Path::concat(&[state, b"/zigsvc"])
    } else if let Some(home) = absolute(b"HOME").filter(|home| *home != b"/") {
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
        Ok(meta) if meta.directory && meta.uid == identity::effective_uid() && meta.mode & 0o077 == 0 => Ok(()),
        Err(Failure { errno: Errno::NOENT, .. }) => Ok(()),
        Ok(_) => Err(fail(exit::FAILED, |out| {
            out.push_escaped(folder.as_bytes());
            out.push_str(": must be a directory of yours with mode 0700, not a link or somebody else's");
        })),
        Err(failure) => Err(tell(folder, failure)),
    }
}

fn system_layout() -> Option<Layout> {
    Some(Layout {
        pid_file: Path::new(b"/run/zigsvc.pid")?,
        socket: Path::new(b"/run/zigsvc.sock")?,
        log_file: Path::new(b"/var/log/zigsvc.log")?,
        health_file: Path::new(b"/run/zigsvc.health")?,
        queue_file: Path::new(b"/var/spool/zigsvc/queue")?,
        spool: Path::new(b"/var/spool/zigsvc")?,
        metrics_name: Vec::from_slice(b"zigsvc-metrics").ok()?,
    })
}

fn folder_layout(folder: &Path) -> Option<Layout> {
    let mut metrics_name: Vec<u8, METRICS_NAME_MAX_BYTES> = Vec::from_slice(b"zigsvc-metrics:").ok()?;
    // The end of a long path tells two folders apart better than its start.
    let path = folder.as_bytes();
    let room = METRICS_NAME_MAX_BYTES.saturating_sub(metrics_name.len());
    metrics_name.extend_from_slice(path.get(path.len().saturating_sub(room)..)?).ok()?;
    Some(Layout {
        pid_file: folder.join(b"zigsvc.pid")?,
        socket: folder.join(b"zigsvc.sock")?,
        log_file: folder.join(b"zigsvc.log")?,
        health_file: folder.join(b"zigsvc.health")?,
        queue_file: folder.join(b"queue")?,
        spool: folder.join(b"spool")?,
        metrics_name,
    })
}
