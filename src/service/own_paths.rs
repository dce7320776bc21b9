//! Judges the paths that a service uses (`service/trust.rs`), before the first of them is opened,
//! at a reload, and for `check` and `doctor`.

use super::config_source::{ConfigSource, InvalidConfig, ServiceFile, path_or_empty};
use super::trust::{Judge, each_untrusted_link};
use crate::proto::config::Config;
use crate::proto::service::Service;
use crate::state::trust::Subject;
use crate::sys::socket;
use crate::util::path::Path;
use crate::util::text::Writer;

/// Receives the key of a path that is not trusted, and a function that writes the reason.
pub type Visit<'a> = &'a mut dyn FnMut(&'static str, &dyn Fn(&mut Writer<'_>));

/// Calls `visit` with each path of `service` that is not trusted.
#[inline(never)]
pub fn each_untrusted(service: Service, source: &ConfigSource, config: &Config, visit: Visit<'_>) {
    let mut judge = Judge::new(config);
    let files = [
        ("pid_file", ServiceFile::Pid, Subject::Runtime),
        ("socket", ServiceFile::Socket, Subject::Runtime),
        ("health_file", ServiceFile::Health, Subject::Runtime),
        ("log_file", ServiceFile::Log, Subject::Log),
    ];
    for (key, file, subject) in files {
        let path = path_or_empty(service, file, config);
        if path.is_empty() || socket::is_abstract(&path) {
            continue;
        }
        if let Some(refusal) = judge.find_file(&path, subject).err().filter(|refusal| refusal.is_untrusted())
        {
            visit(key, &|out| judge.describe(refusal, &path, out));
        }
        // These write their log as root, so that no link of `user` may lead to its folder.
        if subject == Subject::Log && matches!(service, Service::Supervisor | Service::Opener) {
            let refusal = judge.open_folder(&path.parent(), Subject::Runtime, None).err();
            if let Some(refusal) = refusal.filter(|refusal| refusal.is_untrusted()) {
                visit(key, &|out| judge.describe(refusal, &path, out));
            }
        }
    }
    if service.is(Service::Jobs) {
        let queue_folder = config.queue_file.parent();
        let queue = queue_subject(source, config);
        let folders = [("spool", &config.spool, Subject::Spool), ("queue_file", &queue_folder, queue)];
        for (key, path, subject) in folders {
            let refusal = judge.open_folder(path, subject, None).err();
            if let Some(refusal) = refusal.filter(|refusal| refusal.is_untrusted()) {
                visit(key, &|out| judge.describe(refusal, path, out));
            }
        }
    }
    if service.is(Service::Opener) {
        each_untrusted_entry(config, visit);
    }
}

/// Calls `visit` with each link in `allow` that is not trusted.
#[inline(never)]
pub fn each_untrusted_entry(config: &Config, visit: Visit<'_>) {
    each_untrusted_link(config, &mut |judge, refusal| {
        visit("allow", &|out| judge.describe(refusal, &Path::empty(), out));
    });
}

/// Judges the paths of `service`, and for `jobs` the links in `allow` too if `all` is true. The
/// first reason is written to `out`.
///
/// # Errors
/// [`InvalidConfig`] if a path is not trusted. The exit code is 6 then.
pub fn judge_paths(
    service: Service,
    source: &ConfigSource,
    config: &Config,
    all: bool,
    out: &mut Writer<'_>,
) -> Result<(), InvalidConfig> {
    let mut is_first = true;
    let mut write = |key: &str, reason: &dyn Fn(&mut Writer<'_>)| {
        if core::mem::take(&mut is_first) {
            out.push_str(if key == "allow" { "allow: " } else { "" });
            reason(out);
        }
    };
    each_untrusted(service, source, config, &mut write);
    if all && !service.is(Service::Opener) {
        each_untrusted_entry(config, &mut write);
    }
    if is_first { Ok(()) } else { Err(InvalidConfig) }
}

/// Returns the rule for the folder of the queue file. Only a folder with nothing else in it can
/// be shared with a group.
#[must_use]
pub fn queue_subject(source: &ConfigSource, config: &Config) -> Subject {
    let folder: Path = config.queue_file.parent();
    let others = [&config.pid_file, &config.socket, &config.health_file, &config.log_file];
    let is_shared = folder == config.spool
        || folder == source.folder
        || others.iter().any(|path| path.parent() == folder);
    if is_shared { Subject::Spool } else { Subject::Queue }
}
