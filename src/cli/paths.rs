//! Finds the files: below `-d DIR`, in the places of the system for root, or in the user's
//! own folder.

use super::command_line::Options;
use super::output::{fail, fail_at, usage};
use crate::limits::PATH_MAX_BYTES;
use crate::proto::config::keys::absolute;
use crate::service::lifecycle::exit;
use crate::service::memory::Memory;
use crate::service::trust::{NewFolder, TrustRefusal};
use crate::state::trust::Subject;
use crate::sys::args::Args;
use crate::sys::{Errno, Failure, Op, file, identity};
use crate::util::path::Path;
use crate::util::text::{Writer, text_with_number};
use core::ffi::CStr;

/// Finds the files. Relative paths are below `base`, or below the working folder.
///
/// # Errors
/// The exit code, after printing the reason.
pub(super) fn locate(
    args: &Args,
    options: &Options,
    base: Option<&[u8]>,
    memory: &mut Memory,
) -> Result<(), u8> {
    let base = base.map_or_else(working_folder, |base| Path::or_empty(&[base]));
    let named = options.folder.or_else(|| args.env(b"ZIGSVC_DIR").filter(|folder| !folder.is_empty()));
    let folder = match named {
        Some(folder) => absolute(&base, folder).ok_or_else(|| too_long("-d"))?,
        None if identity::effective_uid() == 0 => Path::empty(),
        None => own_folder(args)?,
    };
    if !memory.config.reset(&folder) {
        return Err(too_long("-d"));
    }
    if named.is_none() && !folder.is_empty() && folder.as_bytes().starts_with(b"/tmp/") {
        refuse_foreign(&folder)?;
    }
    let file = match options.config {
        Some(config) => absolute(&base, config),
        None if folder.is_empty() => Path::new(SYSTEM_CONFIG),
        None => folder.join(b"zigsvc.conf"),
    };
    let config_source = &mut memory.config_source;
    config_source.var_run = folder.is_empty() && !is_folder(c"/run");
    config_source.folder.set(&folder);
    config_source.file.set(&file.ok_or_else(|| too_long("-c"))?);
    config_source.folder_named = named.is_some();
    config_source.file_named = options.config.is_some();
    config_source.base.set(&base);
    let _ = config_source.overrides.extend_from_slice(&options.overrides);
    Ok(())
}

/// Creates the folder of `-d` if it is missing.
///
/// # Errors
/// The folder is not trusted, or cannot be created; the exit code, after printing the reason.
#[inline(never)]
pub(super) fn open_folder(memory: &mut Memory) -> Result<(), u8> {
    let folder = &memory.config_source.folder;
    if folder.is_empty() {
        return Ok(());
    }
    let mut judge = memory.config_source.judge(&mut memory.config);
    let denied = Failure { op: Op::Mkdirat, errno: Errno::ACCESS };
    match judge.open_folder(folder, Subject::Spool, Some(&NewFolder { mode: 0o700, owner: None })) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(fail_at(folder, denied)),
        Err(TrustRefusal::Failed(failure)) => Err(fail_at(folder, failure)),
        Err(refusal) => Err(fail(exit::CONFIG, &|out| judge.describe(refusal, folder, out))),
    }
}

/// The configuration of root's services.
pub(super) const SYSTEM_CONFIG: &[u8] = b"/etc/zigsvc.conf";

/// Returns true if the path leads to a folder.
pub(super) fn is_folder(path: &CStr) -> bool {
    file::meta_at(path, true).is_ok_and(|meta| meta.directory)
}

fn too_long(option: &str) -> u8 {
    usage("", &|out| {
        out.push_str("option ");
        out.push_str(option);
        out.push_str(text_with_number!(": a path, made absolute, has at most ", PATH_MAX_BYTES, " bytes"));
    })
}

/// Returns the working directory. Returns an empty path, with which relative paths are
/// refused, if the path is too long or the directory cannot be reached.
pub(super) fn working_folder() -> Path {
    let mut buffer = [0; PATH_MAX_BYTES + 1];
    file::current_dir(&mut buffer).and_then(Path::new).unwrap_or_default()
}

/// Returns `$XDG_STATE_HOME/zigsvc`, `~/.local/state/zigsvc`, or, with no home,
/// `/tmp/zigsvc-UID` (XDG Base Directory Specification).
fn own_folder(args: &Args) -> Result<Path, u8> {
    let folder = |name: &[u8]| args.env(name).filter(|value| value.first() == Some(&b'/'));
    // An account without a home often has the home /nonexistent.
    let is_there = |home: &&[u8]| is_folder(Path::or_empty(&[home]).as_c_str());
    let path = if let Some(state) = folder(b"XDG_STATE_HOME") {
        Path::concat(&[state, b"/zigsvc"])
    } else if let Some(home) = folder(b"HOME").filter(|home| *home != b"/").filter(is_there) {
        Path::concat(&[home, b"/.local/state/zigsvc"])
    } else {
        let mut digits = [0; 12];
        let mut out = Writer::new(&mut digits);
        out.push_u64(u64::from(identity::effective_uid()));
        Path::concat(&[b"/tmp/zigsvc-", out.as_bytes()])
    };
    path.ok_or_else(|| too_long("-d"))
}

/// Returns an error, after printing it, if another user can use the folder. Every user can
/// create a folder in /tmp: it must be this user's, private, and no link.
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
