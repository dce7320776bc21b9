//! Walks along a path component by component, and stops at the first one that is not trusted
//! (`state/trust.rs`). Each step is relative to the descriptor of the step before, and links are
//! read and resolved here, so that a folder which was judged is the folder that is used.
//!
//! `trust` excuses the component that it names, and no other one.

use super::accounts;
use crate::limits::{LINKS_MAX, PATH_MAX_BYTES};
use crate::proto::config::Config;
use crate::proto::config::keys::allowed_paths;
use crate::state::realpath::{NodeKind, realpath};
use crate::state::trust::{Component, ComponentKind, Position, Subject, TrustFault, TrustRule, TrustWalk};
use crate::sys::file::{self, Meta, OFlags};
use crate::sys::identity::{self, Identity};
use crate::sys::{Errno, Failure, Op, OwnedFd, at};
use crate::util::path::Path;
use crate::util::text::{Writer, parse_u64, trim};
use heapless::Vec;
use ufmt::uwrite;

/// The part of a path that is not walked yet: the target of one link, a slash, and the names
/// after that link.
type Rest = Vec<u8, { 2 * PATH_MAX_BYTES + 2 }>;

/// The uid of files whose owner has no number here, unless the kernel names another one.
const OVERFLOW_UID: u64 = 65534;

/// The users and the paths that a configuration trusts.
pub struct Judge<'a> {
    rule: TrustRule,
    /// The paths of `trust`.
    excused: &'a [u8],
}

/// The reason why a path cannot be used.
#[derive(Debug)]
pub enum Refusal {
    /// The component at this path is not trusted.
    Untrusted(Path, TrustFault, Component),
    /// A system call on the path failed.
    Failed(Path, Failure),
}

/// The end of a walk.
pub struct Found {
    /// The folder that holds the file, or the folder that is the end of the path. The
    /// descriptor can only be walked from (open(2), `O_PATH`).
    pub folder: OwnedFd,
    /// The name of the file in the folder. Empty for a folder.
    pub name: Path,
    /// The walk created the folder.
    pub created: bool,
    /// The path without its links.
    path: Path,
    /// The judgement up to here.
    walk: TrustWalk,
    /// The file is a link of /proc that leads to a file without a name.
    is_nameless: bool,
}

/// A folder that a walk creates if it is missing.
pub struct NewFolder<'a> {
    /// The permission bits. Missing folders above it get 0755.
    pub mode: u32,
    /// The user that gets the folder.
    pub owner: Option<&'a Identity>,
}

/// The end of a path.
#[derive(Clone, Copy)]
enum End<'a> {
    /// A folder. It may be created.
    Folder(Option<&'a NewFolder<'a>>),
    /// A file, which is not looked at.
    File,
    /// A file, which a link may lead to.
    LinkedFile,
}

impl<'a> Judge<'a> {
    /// Returns the judge of the paths that `config` names.
    #[must_use]
    pub fn new(config: &'a Config) -> Self {
        let user = Some(&config.user[..]).filter(|name| !name.is_empty()).and_then(accounts::find_uid);
        let (euid, egid) = (identity::effective_uid(), identity::effective_gid());
        Self { rule: TrustRule { euid, egid, user, overflow_uid: overflow_uid() }, excused: &config.trust }
    }

    /// Returns true if `trust` names the component.
    fn excuses(&self, path: &Path) -> bool {
        let is_it = |item: &[u8]| item == path.as_bytes() || item.strip_suffix(b"/") == Some(path.as_bytes());
        allowed_paths(self.excused).any(is_it)
    }

    /// Returns the rule for the log at `path`, which is opened again and again. Returns `None` if
    /// `trust` names it.
    #[must_use]
    pub fn log_rule(&self, path: &Path) -> Option<TrustRule> {
        Some(self.rule).filter(|_| !self.excuses(path))
    }

    /// Judges the link at `path`, whose folders are no links, and each of these folders.
    ///
    /// # Errors
    /// The component that is not trusted, or the call that failed.
    pub fn allow_link(&self, path: &Path) -> Result<(), Refusal> {
        let mut walk = TrustWalk::default();
        let bytes = path.as_bytes();
        let slashes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at.max(1));
        for length in slashes.chain([bytes.len()]) {
            let component = bytes.get(..length).and_then(Path::new).unwrap_or_default();
            let meta = file::meta_at(component.as_c_str(), false);
            let meta = meta.map_err(|failure| Refusal::Failed(component.clone(), failure))?;
            self.judge(&mut walk, Subject::Allowed, Position::Way, &component, meta)?;
        }
        Ok(())
    }

    fn judge(
        &self,
        walk: &mut TrustWalk,
        subject: Subject,
        position: Position,
        path: &Path,
        meta: Meta,
    ) -> Result<(), Refusal> {
        let component = component(meta);
        match walk.judge(&self.rule, subject, position, &component) {
            Err(fault) if !self.excuses(path) => Err(Refusal::Untrusted(path.clone(), fault, component)),
            _ => Ok(()),
        }
    }

    /// Opens the folder at `path`, which must be trusted. `new` creates it if it is missing.
    /// Returns `None` if it is missing and must not be created, or if root must not create it,
    /// because the way belongs to `user`.
    ///
    /// # Errors
    /// The component that is not trusted, or the call that failed.
    pub fn open_folder(
        &self,
        path: &Path,
        subject: Subject,
        new: Option<&NewFolder<'_>>,
    ) -> Result<Option<Found>, Refusal> {
        self.walk(path, subject, End::Folder(new))
    }

    /// Returns the folder of the file at `path`, and judges the file if it exists and is no
    /// link. Returns `None` if the folder is missing.
    ///
    /// # Errors
    /// The component that is not trusted, or the call that failed.
    pub fn find_file(&self, path: &Path, subject: Subject) -> Result<Option<Found>, Refusal> {
        let Some(mut found) = self.walk(path, subject, End::File)? else { return Ok(None) };
        if let Ok(meta) = at::meta(&found.folder, found.name.as_c_str())
            && !meta.link
        {
            self.judge_file(&mut found, subject, meta)?;
        }
        Ok(Some(found))
    }

    /// Opens the file at `path`, or the one that a link there leads to, for reading.
    ///
    /// # Errors
    /// The component that is not trusted, or the call that failed.
    pub fn open_linked_file(&self, path: &Path, subject: Subject) -> Result<OwnedFd, Refusal> {
        let failed = |failure| Refusal::Failed(path.clone(), failure);
        let missing = Failure { op: Op::Openat, errno: Errno::NOENT };
        let mut found = self.walk(path, subject, End::LinkedFile)?.ok_or_else(|| failed(missing))?;
        let open = if found.is_nameless { at::open_linked } else { at::open };
        let name = if found.name.is_empty() { c"." } else { found.name.as_c_str() };
        let fd = open(&found.folder, name, OFlags::RDONLY | OFlags::NONBLOCK, 0).map_err(failed)?;
        let meta = file::meta(&fd).map_err(failed)?;
        self.judge_file(&mut found, subject, meta)?;
        Ok(fd)
    }

    /// Judges the file at the end of a walk.
    fn judge_file(&self, found: &mut Found, subject: Subject, meta: Meta) -> Result<(), Refusal> {
        let path = found.path.join(found.name.as_bytes()).unwrap_or_default();
        self.judge(&mut found.walk, subject, Position::File, &path, meta)
    }

    fn walk(&self, path: &Path, subject: Subject, end: End<'_>) -> Result<Option<Found>, Refusal> {
        let mut steps = Steps { judge: self, subject, end, path };
        let mut rest = Rest::from_slice(path.as_bytes()).unwrap_or_default();
        let mut found = Found {
            folder: at::root().map_err(|failure| steps.failed(failure))?,
            name: Path::empty(),
            created: false,
            path: Path::empty(),
            walk: TrustWalk::default(),
            is_nameless: false,
        };
        steps.enter_root(&mut found, count_names(&rest))?;
        let mut links = 0u32;
        while let Some((name, after)) = next_name(&rest) {
            match steps.step(&mut found, name, count_names(after))? {
                Step::Entered => {
                    let length = after.len();
                    let start = rest.len().saturating_sub(length);
                    rest.rotate_left(start);
                    rest.truncate(length);
                }
                Step::File => return Ok(Some(found)),
                Step::Missing => return Ok(None),
                Step::Link(target) => {
                    links = links.saturating_add(1);
                    let mut next = Rest::from_slice(target.as_bytes()).unwrap_or_default();
                    let joined = next.push(b'/').is_ok() && next.extend_from_slice(after).is_ok();
                    if links > LINKS_MAX || !joined {
                        return Err(steps.failed(Failure { op: Op::Openat, errno: Errno::LOOP }));
                    }
                    rest = next;
                    if target.as_bytes().first() == Some(&b'/') {
                        found.folder = at::root().map_err(|failure| steps.failed(failure))?;
                        steps.enter_root(&mut found, count_names(&rest))?;
                    }
                }
            }
        }
        Ok(Some(found))
    }
}

/// One walk.
struct Steps<'a> {
    judge: &'a Judge<'a>,
    subject: Subject,
    end: End<'a>,
    path: &'a Path,
}

/// The result of one step.
enum Step {
    /// The component is the folder now.
    Entered,
    /// The component is the file at the end.
    File,
    /// The component is missing.
    Missing,
    /// The component is a link to this path.
    Link(Path),
}

impl Steps<'_> {
    fn failed(&self, failure: Failure) -> Refusal {
        Refusal::Failed(self.path.clone(), failure)
    }

    /// Returns the position of a folder after which `left` names follow.
    fn position(&self, left: usize) -> Position {
        let last = if matches!(self.end, End::Folder(_)) { 0 } else { 1 };
        if left == last { Position::Folder } else { Position::Way }
    }

    /// Judges `/`, which `found` has open.
    fn enter_root(&self, found: &mut Found, left: usize) -> Result<(), Refusal> {
        found.path = Path::new(b"/").unwrap_or_default();
        let meta = at::meta(&found.folder, c"").map_err(|failure| self.failed(failure))?;
        self.judge.judge(&mut found.walk, self.subject, self.position(left), &found.path, meta)
    }

    /// Goes on to the component `name`, after which `left` names follow.
    fn step(&mut self, found: &mut Found, name: &[u8], left: usize) -> Result<Step, Refusal> {
        let too_long = Failure { op: Op::Openat, errno: Errno::NAMETOOLONG };
        let entry = Path::new(name).ok_or_else(|| self.failed(too_long))?;
        if left == 0 && matches!(self.end, End::File) {
            found.name = entry;
            return Ok(Step::File);
        }
        let whole = match name {
            b".." => found.path.parent(),
            _ => found.path.join(name).ok_or_else(|| self.failed(too_long))?,
        };
        let mut node = match self.open(found, &entry, left) {
            Ok(Some(node)) => node,
            Ok(None) => return Ok(Step::Missing),
            Err(failure) => return Err(self.failed(failure)),
        };
        let mut meta = at::meta(&node, c"").map_err(|failure| self.failed(failure))?;
        if meta.link {
            self.judge.judge(&mut found.walk, self.subject, Position::Way, &whole, meta)?;
            let mut target = [0; PATH_MAX_BYTES + 1];
            let length = at::read_link(&node, &mut target).map_err(|failure| self.failed(failure))?;
            if !at::is_in_proc(&node) {
                let target = target.get(..length).and_then(Path::new);
                return target.map(Step::Link).ok_or_else(|| self.failed(too_long));
            }
            node = at::open_linked(&found.folder, entry.as_c_str(), OFlags::PATH, 0)
                .map_err(|failure| self.failed(failure))?;
            meta = at::meta(&node, c"").map_err(|failure| self.failed(failure))?;
            found.is_nameless = left == 0;
        }
        if left == 0 && matches!(self.end, End::LinkedFile) {
            found.name = entry;
            return Ok(Step::File);
        }
        if !meta.directory {
            return Err(self.failed(Failure { op: Op::Openat, errno: Errno::NOTDIR }));
        }
        self.judge.judge(&mut found.walk, self.subject, self.position(left), &whole, meta)?;
        (found.folder, found.path) = (node, whole);
        Ok(Step::Entered)
    }

    /// Opens a component, or creates it if it is a folder that may be created.
    fn open(&self, found: &mut Found, name: &Path, left: usize) -> Result<Option<OwnedFd>, Failure> {
        let open = |folder: &OwnedFd| at::open(folder, name.as_c_str(), OFlags::PATH, 0);
        let new = match (open(&found.folder), self.end) {
            (Err(Failure { errno: Errno::NOENT, .. }), End::Folder(Some(new))) => new,
            (Err(Failure { errno: Errno::NOENT, .. }), _) => return Ok(None),
            (node, _) => return node.map(Some),
        };
        if found.walk.is_of_user {
            return Ok(None);
        }
        let mode = if left == 0 { new.mode } else { 0o755 };
        match at::make_dir(&found.folder, name.as_c_str(), mode) {
            Err(Failure { errno: Errno::EXIST, .. }) => return open(&found.folder).map(Some),
            made => made?,
        }
        found.created = left == 0;
        if let Some(owner) = new.owner.filter(|_| left == 0) {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let folder = at::open(&found.folder, name.as_c_str(), flags, 0)?;
            identity::chown(&folder, owner)?;
        }
        open(&found.folder).map(Some)
    }
}

/// Returns the first name of the path that is not walked yet, and the names after it.
fn next_name(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut rest = rest;
    loop {
        let start = rest.iter().position(|byte| *byte != b'/')?;
        rest = rest.get(start..)?;
        let length = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        let (name, after) = rest.split_at_checked(length)?;
        if name != b"." {
            return Some((name, after));
        }
        rest = after;
    }
}

fn count_names(mut rest: &[u8]) -> usize {
    let mut count = 0usize;
    while let Some((_, after)) = next_name(rest) {
        (rest, count) = (after, count.saturating_add(1));
    }
    count
}

/// Returns the kind of a file, and the target of a symbolic link, for [`realpath`]. A link
/// that another user could change is not followed. Calls `report` with the reason, and with the
/// reason why another link could not be read.
pub fn inspect_name(
    judge: &Judge<'_>,
    path: &Path,
    target: &mut [u8],
    report: &mut dyn FnMut(Refusal),
) -> NodeKind {
    match file::read_link(path.as_c_str(), target) {
        Ok(length) => match judge.allow_link(path) {
            Ok(()) => NodeKind::Link(length),
            Err(refusal) => {
                report(refusal);
                NodeKind::Other
            }
        },
        Err(Failure { errno: Errno::INVAL, .. }) => NodeKind::Other,
        Err(Failure {
            errno: Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP | Errno::NAMETOOLONG,
            ..
        }) => NodeKind::Missing,
        Err(failure) => {
            report(Refusal::Failed(path.clone(), failure));
            NodeKind::Unknown
        }
    }
}

/// Judges the links in the entries of `allow`.
///
/// # Errors
/// The component that is not trusted.
pub fn judge_allowed(config: &Config) -> Result<(), Refusal> {
    let judge = Judge::new(config);
    let mut first = None;
    for entry in allowed_paths(&config.allow).filter_map(Path::new) {
        let mut report = |refusal: Refusal| {
            if refusal.is_untrusted() {
                first.get_or_insert(refusal);
            }
        };
        let _ = realpath(&entry, &mut |path, target| inspect_name(&judge, path, target, &mut report));
    }
    first.map_or(Ok(()), Err)
}

/// Judges a log that was opened.
///
/// # Errors
/// EMLINK if it has a second name; EPERM if another user owns it or can write to it.
pub fn judge_log(rule: &TrustRule, meta: Meta) -> Result<(), Failure> {
    let judged = TrustWalk::default().judge(rule, Subject::Log, Position::File, &component(meta));
    judged.map_err(|fault| {
        let errno = if fault == TrustFault::SecondName { Errno::MLINK } else { Errno::PERM };
        Failure { op: Op::Openat, errno }
    })
}

fn component(meta: Meta) -> Component {
    let kind = match meta {
        Meta { directory: true, .. } => ComponentKind::Folder,
        Meta { link: true, .. } => ComponentKind::Link,
        Meta { regular: true, .. } => ComponentKind::Regular,
        Meta { device: true, .. } => ComponentKind::Device,
        _ => ComponentKind::Other,
    };
    Component { kind, uid: meta.uid, gid: meta.gid, mode: meta.mode, links: meta.links }
}

/// Returns the uid as which unmapped users are shown, if `/` belongs to it (user_namespaces(7)).
fn overflow_uid() -> Option<u32> {
    let root = file::meta_at(c"/", true).ok().filter(|meta| meta.uid != 0)?;
    let mut text = [0; 12];
    let length = file::read_path(c"/proc/sys/kernel/overflowuid", &mut text).unwrap_or(0);
    let uid = parse_u64(trim(text.get(..length).unwrap_or(&[]))).unwrap_or(OVERFLOW_UID);
    Some(root.uid).filter(|owner| u64::from(*owner) == uid)
}

impl Found {
    /// Returns true if a folder or a link on the way belongs to `user`, so that root must create
    /// nothing there.
    #[must_use]
    pub fn is_of_user(&self) -> bool {
        self.walk.is_of_user
    }
}

impl Refusal {
    /// Writes the path, the reason, the owner, and the command that mends it.
    pub fn describe(&self, out: &mut Writer<'_>) {
        let (path, fault, component) = match self {
            Self::Failed(path, failure) => {
                out.push_escaped(path.as_bytes());
                out.push_str(": ");
                return failure.describe(out);
            }
            Self::Untrusted(path, fault, component) => (path.as_bytes(), *fault, component),
        };
        out.push_escaped(path);
        let _ = uwrite!(out, ": not trusted, because uid {} owns it", component.uid);
        out.push_str(match fault {
            TrustFault::Owner => "",
            TrustFault::Group => " and its group may write to it",
            TrustFault::Others => " and all users may write to it",
            TrustFault::SecondName => " and it has a second name",
            TrustFault::LeavesUser => " and a link or a folder of `user` leads there",
        });
        let commands: [&str; 2] = match (fault, component.kind) {
            (TrustFault::SecondName, _) => ["cp -p ", " FILE && mv FILE "],
            (TrustFault::LeavesUser, _) => ["zigsvc -d ", ""],
            (_, ComponentKind::Link) => ["chown -h root ", ""],
            _ => ["chown root ", " && chmod go-w "],
        };
        out.push_str("; do `");
        for command in commands.iter().filter(|command| !command.is_empty()) {
            out.push_str(command);
            out.push_escaped(path);
        }
        out.push_str("`, or add -o trust=");
        out.push_escaped(path);
    }

    /// Returns true if a component is not trusted.
    #[must_use]
    pub fn is_untrusted(&self) -> bool {
        matches!(self, Self::Untrusted(..))
    }
}
