//! Judges the paths that a service uses (`service/trust.rs`), before the first of them is opened,
//! at a reload, and for `check` and `doctor`.

use super::config_source::{ConfigSource, ServiceFile, path_of};
use super::trust::{Found, Judge, Refusal, judge_allowed};
use crate::proto::config::Config;
use crate::proto::service::Service;
use crate::state::trust::Subject;
use crate::sys::socket;
use crate::util::path::Path;

/// Calls `visit` with each path of `service` that is not trusted. Its key in the configuration
/// comes first.
pub fn each_untrusted(
    service: Service,
    source: &ConfigSource,
    config: &Config,
    visit: &mut dyn FnMut(&'static str, Refusal),
) {
    let judge = Judge::new(config);
    let files = [
        ("pid_file", ServiceFile::Pid, Subject::Runtime),
        ("socket", ServiceFile::Socket, Subject::Runtime),
        ("health_file", ServiceFile::Health, Subject::Runtime),
        ("log_file", ServiceFile::Log, Subject::Log),
    ];
    let mut check = |key, result: Result<Option<Found>, Refusal>| {
        if let Err(refusal) = result
            && refusal.is_untrusted()
        {
            visit(key, refusal);
        }
    };
    for (key, file, subject) in files {
        let path = path_of(service, file, config).unwrap_or_default();
        if !path.is_empty() && !socket::is_abstract(&path) {
            check(key, judge.find_file(&path, subject));
        }
    }
    if service == Service::Opener {
        check("allow", judge_allowed(config).map(|()| None));
    }
    if service == Service::Jobs {
        check("spool", judge.open_folder(&config.spool, Subject::Spool, None));
        let folder = config.queue_file.parent();
        check("queue_file", judge.open_folder(&folder, queue_subject(source, config), None));
    }
}

/// Returns the first path of `service` that is not trusted.
///
/// # Errors
/// The reason.
pub fn judge_paths(service: Service, source: &ConfigSource, config: &Config) -> Result<(), Refusal> {
    let mut first = None;
    each_untrusted(service, source, config, &mut |_, refusal| {
        first.get_or_insert(refusal);
    });
    first.map_or(Ok(()), Err)
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
