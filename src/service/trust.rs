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
type UnwalkedPath = Vec<u8, { 2 * PATH_MAX_BYTES + 2 }>;

/// The uid of files whose owner has no number here, unless the kernel names another one.
const OVERFLOW_UID: u64 = 65534;

/// The users and the paths that a configuration trusts, and the state of a walk. It is large, so
/// that the functions of a walk need little stack.
pub struct Judge<'a> {
    rule: TrustRule,
    /// The paths of `trust`.
    excused: &'a [u8],
    /// The component that was judged last, without links on the way.
    path: Path,
    /// The name of the component in its folder.
    name: Path,
    rest: UnwalkedPath,
}

/// The reason why a path cannot be used. [`Judge::describe`] names the path.
#[derive(Clone, Copy, Debug)]
pub enum TrustRefusal {
    /// A component is not trusted.
    Untrusted(TrustFault, Component),
    /// A system call failed.
    Failed(Failure),
}

impl From<Failure> for TrustRefusal {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The end of a walk.
pub struct Found {
    /// The folder that holds the file, or the folder that is the end of the path. The
    /// descriptor can only be walked from (open(2), `O_PATH`).
    pub folder: OwnedFd,
    /// The walk created the folder.
    pub created: bool,
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
        let mut judge = Self::strict();
        judge.rule.user = user;
        judge.excused = &config.trust;
        judge
    }

    /// Returns the judge of the files of programs. The user of the services is not trusted, because
    /// the programs can run as root.
    #[must_use]
    pub fn of_programs(config: &'a Config) -> Self {
        Self { excused: &config.trust, ..Self::strict() }
    }

    /// Returns the judge of a path of which no configuration says more: only root, or the user of
    /// this process, is trusted.
    #[must_use]
    pub fn strict() -> Self {
        let (euid, egid) = (identity::effective_uid(), identity::effective_gid());
        Self {
            rule: TrustRule { euid, egid, user: None, user_configures: false, overflow_uid: overflow_uid() },
            excused: &[],
            path: Path::empty(),
            name: Path::empty(),
            rest: UnwalkedPath::new(),
        }
    }

    /// Opens the folder at `path`, which must be trusted. `new` creates it if it is missing.
    /// Returns `None` if it is missing and must not be created, or if root must not create it,
    /// because the way belongs to `user`.
    ///
    /// # Errors
    /// The component that is not trusted, or the call that failed.
    pub fn open_folder(
        &mut self,
        path: &Path,
        subject: Subject,
        new: Option<&NewFolder<'_>>,
    ) -> Result<Option<Found>, TrustRefusal> {
        self.walk(path, subject, End::Folder(new))
    }

    /// Returns the folder of the file at `path`, and judges the file if it exists and is no
    /// link. Returns `None` if the folder is missing.
    ///
    /// # Errors
    /// The component that is not trusted, or the call that failed.
    pub fn find_file(&mut self, path: &Path, subject: Subject) -> Result<Option<Found>, TrustRefusal> {
        let Some(mut found) = self.walk(path, subject, End::File)? else { return Ok(None) };
        if let Ok(meta) = at::meta(&found.folder, self.name.as_c_str())
            && !meta.link
        {
            self.judge(&mut found.walk, subject, Position::File, meta)?;
        }
        Ok(Some(found))
    }

    /// Opens the file at `path`, or the one that a link there leads to, for reading.
    ///
    /// # Errors
    /// The component that is not trusted, or the call that failed.
    pub fn open_linked_file(&mut self, path: &Path, subject: Subject) -> Result<OwnedFd, TrustRefusal> {
        let missing = Failure { op: Op::Openat, errno: Errno::NOENT };
        let mut found = self.walk(path, subject, End::LinkedFile)?.ok_or(missing)?;
        let open = if found.is_nameless { at::open_linked } else { at::open };
        let fd = open(&found.folder, self.name.as_c_str(), OFlags::RDONLY | OFlags::NONBLOCK, 0)?;
        self.judge(&mut found.walk, subject, Position::File, file::meta(&fd)?)?;
        Ok(fd)
    }

    /// Judges the link at `path`, whose folders are no links, and each of these folders.
    ///
    /// # Errors
    /// The component that is not trusted, or the call that failed.
    pub fn allow_link(&mut self, path: &Path) -> Result<(), TrustRefusal> {
        let mut walk = TrustWalk::default();
        let bytes = path.as_bytes();
        let slashes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at.max(1));
        for length in slashes.chain([bytes.len()]) {
            self.path.assign(&[bytes.get(..length).unwrap_or(bytes)]);
            let meta = file::meta_at(self.path.as_c_str(), false)?;
            self.judge(&mut walk, Subject::Allowed, Position::Way, meta)?;
        }
        Ok(())
    }

    /// Allows a configuration to belong to the user that the options name, because root named the
    /// file too. With a file that was only found, a service could plant its own configuration,
    /// and have root make folders and files for it at the next start.
    pub fn allow_config_of_user(&mut self) {
        self.rule.user_configures = true;
    }

    /// Returns the rule for the log at `path`, which is opened again and again. Returns `None` if
    /// `trust` names it.
    #[must_use]
    pub fn log_rule(&mut self, path: &Path) -> Option<TrustRule> {
        self.path.set(path);
        Some(self.rule).filter(|_| !self.is_excused())
    }

    /// Returns true if `trust` names the component.
    fn is_excused(&self) -> bool {
        let path = self.path.as_bytes();
        allowed_paths(self.excused).any(|item| item == path || item.strip_suffix(b"/") == Some(path))
    }

    /// Judges the component at `self.path`.
    fn judge(
        &self,
        walk: &mut TrustWalk,
        subject: Subject,
        position: Position,
        meta: Meta,
    ) -> Result<(), TrustRefusal> {
        let component = component(meta);
        match walk.judge(&self.rule, subject, position, &component) {
            Err(fault) if !self.is_excused() => Err(TrustRefusal::Untrusted(fault, component)),
            _ => Ok(()),
        }
    }

    // ----- the walk ---------------------------------------------------------

    fn walk(&mut self, path: &Path, subject: Subject, end: End<'_>) -> Result<Option<Found>, TrustRefusal> {
        let steps = Steps { subject, end };
        self.rest.clear();
        // The longest path has room.
        let _ = self.rest.extend_from_slice(path.as_bytes());
        let walk = TrustWalk::default();
        let mut found = Found { folder: at::root()?, created: false, walk, is_nameless: false };
        self.enter_root(&steps, &mut found)?;
        let mut links = 0u32;
        while self.take_name() {
            match self.step(&steps, &mut found)? {
                Step::Entered => {}
                Step::File => return Ok(Some(found)),
                Step::Missing => return Ok(None),
                Step::Link(is_absolute) => {
                    links = links.saturating_add(1);
                    if links > LINKS_MAX {
                        return Err(Failure { op: Op::Openat, errno: Errno::LOOP }.into());
                    }
                    if is_absolute {
                        found.folder = at::root()?;
                        self.enter_root(&steps, &mut found)?;
                    }
                }
            }
        }
        Ok(Some(found))
    }

    /// Judges `/`, which `found` has open.
    fn enter_root(&mut self, steps: &Steps<'_>, found: &mut Found) -> Result<(), TrustRefusal> {
        self.path.assign(&[b"/"]);
        let position = steps.position(count_names(&self.rest));
        self.judge(&mut found.walk, steps.subject, position, at::meta(&found.folder, c"")?)
    }

    /// Moves the next name of the rest to `self.name`. Returns true if there is one.
    fn take_name(&mut self) -> bool {
        let Some((name, after)) = next_name(&self.rest) else { return false };
        let (fits, length) = (self.name.assign(&[name]), after.len());
        let start = self.rest.len().saturating_sub(length);
        self.rest.rotate_left(start);
        self.rest.truncate(length);
        fits
    }

    /// Walks to the component `self.name`.
    #[inline(never)]
    fn step(&mut self, steps: &Steps<'_>, found: &mut Found) -> Result<Step, TrustRefusal> {
        let left = count_names(&self.rest);
        let above = self.path.as_bytes().len();
        match self.name.as_bytes() {
            b".." if left > 0 => self.leave(above),
            name => {
                let whole = self.path.join(name);
                self.path.set(&whole.ok_or(Failure { op: Op::Openat, errno: Errno::NAMETOOLONG })?);
            }
        }
        if left == 0 && matches!(steps.end, End::File) {
            return Ok(Step::File);
        }
        let Some(mut node) = self.open(steps, found, left)? else { return Ok(Step::Missing) };
        let mut meta = at::meta(&node, c"")?;
        if meta.link {
            self.judge(&mut found.walk, steps.subject, Position::Way, meta)?;
            if !at::is_in_proc(&node) {
                self.leave(above);
                return self.read_link(&node).map(Step::Link);
            }
            node = at::open_linked(&found.folder, self.name.as_c_str(), OFlags::PATH, 0)?;
            meta = at::meta(&node, c"")?;
            found.is_nameless = left == 0;
        }
        if left == 0 && matches!(steps.end, End::LinkedFile) {
            return Ok(Step::File);
        }
        if !meta.directory {
            return Err(Failure { op: Op::Openat, errno: Errno::NOTDIR }.into());
        }
        self.judge(&mut found.walk, steps.subject, steps.position(left), meta)?;
        found.folder = node;
        Ok(Step::Entered)
    }

    /// Sets the path back to the folder, whose path has `length` bytes, or to the folder above it
    /// after `..`.
    fn leave(&mut self, length: usize) {
        let folder = match self.path.as_bytes() {
            path if path.len() > length => path.get(..length).and_then(Path::new).unwrap_or_default(),
            _ => self.path.parent(),
        };
        self.path.set(&folder);
    }

    /// Puts the target of a link before the rest. Returns true if it is absolute.
    #[inline(never)]
    fn read_link(&mut self, link: &OwnedFd) -> Result<bool, TrustRefusal> {
        let mut target = [0; PATH_MAX_BYTES + 1];
        let length = at::read_link(link, &mut target)?;
        let target = target.get(..length).filter(|target| target.len() <= PATH_MAX_BYTES).unwrap_or(&[]);
        let before = self.rest.len();
        let joined = self.rest.extend_from_slice(target).is_ok() && self.rest.push(b'/').is_ok();
        if target.is_empty() || !joined {
            return Err(Failure { op: Op::Readlinkat, errno: Errno::NAMETOOLONG }.into());
        }
        self.rest.rotate_left(before);
        Ok(target.first() == Some(&b'/'))
    }

    /// Opens a component, or creates it if it is a folder that may be created.
    #[inline(never)]
    fn open(&self, steps: &Steps<'_>, found: &mut Found, left: usize) -> Result<Option<OwnedFd>, Failure> {
        let name = self.name.as_c_str();
        let new = match (at::open(&found.folder, name, OFlags::PATH, 0), steps.end) {
            (Err(Failure { errno: Errno::NOENT, .. }), End::Folder(Some(new))) => new,
            (Err(Failure { errno: Errno::NOENT, .. }), _) => return Ok(None),
            (node, _) => return node.map(Some),
        };
        if found.walk.is_of_user {
            return Ok(None);
        }
        let mode = if left == 0 { new.mode } else { 0o755 };
        match at::make_dir(&found.folder, name, mode) {
            Err(Failure { errno: Errno::EXIST, .. }) => {}
            made => {
                made?;
                found.created = left == 0;
                if let Some(owner) = new.owner.filter(|_| left == 0) {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
                    identity::chown(&at::open(&found.folder, name, flags, 0)?, owner)?;
                }
            }
        }
        at::open(&found.folder, name, OFlags::PATH, 0).map(Some)
    }

    /// Writes the path, the reason, the owner, and the command that mends it. `path` is the whole
    /// path, for a call that failed.
    pub fn describe(&self, refusal: TrustRefusal, path: &Path, out: &mut Writer<'_>) {
        let (fault, component) = match refusal {
            TrustRefusal::Failed(failure) => {
                out.push_escaped(path.as_bytes());
                out.push_str(": ");
                return failure.describe(out);
            }
            TrustRefusal::Untrusted(fault, component) => (fault, component),
        };
        let path = self.path.as_bytes();
        out.push_escaped(path);
        let _ = uwrite!(out, ": not trusted, because uid {} owns it", component.uid);
        out.push_str(match fault {
            TrustFault::Owner => "",
            TrustFault::Group => " and its group may write to it",
            TrustFault::Others => " and all users may write to it",
            TrustFault::SecondName => " and it has a second name",
            TrustFault::LeavesUser => " and a link of `user` leads there",
        });
        let commands: [&str; 2] = match (fault, component.kind) {
            (TrustFault::SecondName | TrustFault::LeavesUser, _) => ["", ""],
            (_, ComponentKind::Link) => ["chown -h root ", ""],
            _ => ["chown root ", " && chmod go-w "],
        };
        let mut before = "; do `";
        for command in commands.iter().filter(|command| !command.is_empty()) {
            out.push_str(core::mem::take(&mut before));
            out.push_str(command);
            out.push_escaped(path);
        }
        out.push_str(match fault {
            TrustFault::SecondName => "; move it away",
            TrustFault::LeavesUser => "; name it without that link",
            _ => "`",
        });
        out.push_str(", or add -o trust=");
        out.push_escaped(path);
    }
}

/// The subject and the end of one walk.
struct Steps<'a> {
    subject: Subject,
    end: End<'a>,
}

/// The result of one step.
enum Step {
    /// The component is the folder now.
    Entered,
    /// The component is the file at the end.
    File,
    /// The component is missing.
    Missing,
    /// The component is a link, and its target is before the rest. True if it is absolute.
    Link(bool),
}

impl Steps<'_> {
    /// Returns the position of a folder after which `left` names follow.
    fn position(&self, left: usize) -> Position {
        let last = if matches!(self.end, End::Folder(_)) { 0 } else { 1 };
        if left == last { Position::Folder } else { Position::Way }
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

/// Returns the kind of a file, and the target of a symbolic link, for
/// [`realpath`]. A link that another user could change is not
/// followed. Calls `report` with the reason, and with the reason why another link could not be
/// read.
pub fn inspect_name(
    judge: &mut Judge<'_>,
    path: &Path,
    target: &mut [u8],
    report: &mut dyn FnMut(&Judge<'_>, TrustRefusal),
) -> NodeKind {
    match file::read_link(path.as_c_str(), target) {
        Ok(length) => match judge.allow_link(path) {
            Ok(()) => NodeKind::Link(length),
            Err(refusal) => {
                let kind = if refusal.is_untrusted() { NodeKind::Other } else { NodeKind::Unknown };
                report(judge, refusal);
                kind
            }
        },
        Err(Failure { errno: Errno::INVAL, .. }) => NodeKind::Other,
        Err(Failure {
            errno: Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP | Errno::NAMETOOLONG,
            ..
        }) => NodeKind::Missing,
        Err(failure) => {
            report(judge, TrustRefusal::Failed(failure));
            NodeKind::Unknown
        }
    }
}

/// Judges the links in the entries of `allow`. Calls `visit` with each that is not trusted.
pub fn each_untrusted_link(config: &Config, visit: &mut dyn FnMut(&Judge<'_>, TrustRefusal)) {
    let mut judge = Judge::new(config);
    let mut report = |judge: &Judge<'_>, refusal: TrustRefusal| {
        if refusal.is_untrusted() {
            visit(judge, refusal);
        }
    };
    for entry in allowed_paths(&config.allow).filter_map(Path::new) {
        let _ = realpath(&entry, &mut |path, target| inspect_name(&mut judge, path, target, &mut report));
    }
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

/// Returns true if the way to the file at `path` does not certainly belong to root. A way that is
/// missing or not trusted now was there a moment ago, so that `user` is replacing it.
pub fn may_be_of_user(config: &Config, path: &Path, subject: Subject) -> bool {
    let found = Judge::new(config).find_file(path, subject);
    !found.is_ok_and(|found| found.is_some_and(|found| !found.is_of_user()))
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

impl TrustRefusal {
    /// Returns true if a component is not trusted.
    #[must_use]
    pub fn is_untrusted(&self) -> bool {
        matches!(self, Self::Untrusted(..))
    }
}
