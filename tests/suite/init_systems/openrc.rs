//! OpenRC's script, by the real openrc-run, in a mount namespace whose /run is
//! its own: it takes that for a machine that OpenRC has booted. Nothing else is
//! booted, started or stopped.

use super::site::Site;
use crate::support::{
    Ran, find, finish, program, require_native, require_root, require_self_exec, wait_for_log,
};
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

/// The entries that OpenRC keeps in /run/openrc from one command to the next.
const STATE: [&str; 11] = [
    "starting",
    "started",
    "stopping",
    "inactive",
    "wasinactive",
    "failed",
    "hotplugged",
    "daemons",
    "options",
    "exclusive",
    "scheduled",
];

/// Hides the machine's /run and control groups, and runs the rest.
const PRIVATE: &str = "mount -t tmpfs none /run && mkdir /run/openrc && mount --bind \"$1\" /run/openrc &&
if [ -d /sys/fs/cgroup ]; then mount -t tmpfs none /sys/fs/cgroup; fi && shift && exec \"$@\"";

/// Returns a function that runs `rc-service NAME ACTION`, if OpenRC is available here.
fn service(site: &Site) -> Option<impl Fn(&str, &str) -> Ran + use<'_>> {
    let (openrc_run, unshare) = (find("openrc-run")?, find("unshare")?);
    if !require_root() || !require_native("QEMU itself needs its own mounts") {
        return None;
    }
    for folder in STATE {
        fs::create_dir_all(site.kit.path("state").join(folder)).unwrap();
    }
    site.kit.write("state/softlevel", "default\n");
    site.install_program("");
    fs::create_dir(site.kit.path("conf.d")).unwrap();
    site.kit
        .write("conf.d/zigsvc", format!("zigsvc_options=\"-o log_time=none  -d {}\"\n", site.dir.as_arg()));
    let script = site.copy("zigsvc.openrc", "init.d/zigsvc");
    symlink(&script, site.kit.path("init.d/zigsvc.supervisor")).unwrap();
    Some(move |name: &str, action: &str| {
        let mut command = program(&unshare);
        command.args(["-m", "sh", "-c", PRIVATE, "sh"]).arg(site.kit.path("state"));
        command.arg(&openrc_run).arg(site.kit.path("init.d").join(name)).arg(action);
        command.current_dir("/").stdin(Stdio::null());
        finish(command, None)
    })
}

/// Returns true if OpenRC believes that the service is started.
fn believed(site: &Site, name: &str) -> bool {
    fs::symlink_metadata(site.kit.path("state/started").join(name)).is_ok()
}

#[test]
fn every_action_of_openrc_tells_the_truth() {
    let site = Site::new();
    let Some(run) = service(&site) else { return };
    let run = |action: &str| run("zigsvc", action);
    run("status").expect(3);
    run("stop").expect(0);

    // A start that fails is a failure, and OpenRC knows.
    site.dir.write("file", "");
    site.dir.write("zigsvc.conf", format!("spool = \"{}\"\n", site.dir.path("file").display()));
    let failed = run("start");
    assert_eq!((failed.code, believed(&site, "zigsvc")), (1, false), "{failed:?}");
    site.break_config(true);
    let refused = run("start");
    assert!(refused.code != 0 && !believed(&site, "zigsvc"), "{refused:?}");
    assert!(refused.err.contains("zigsvc.conf:1: "), "{refused:?}");
    site.break_config(false);

    let started = run("start").expect(0);
    let first = site.pid().unwrap_or_else(|| panic!("{started:?}"));
    assert!(believed(&site, "zigsvc"));
    assert!(site.dir.read("zigsvc.log").starts_with("[INFO] daemon started"), "{}", site.dir.logs());
    run("status").expect(0);
    run("start").expect(0);
    assert_eq!(site.pid(), Some(first));
    run("reload").expect(0);
    wait_for_log(&site.dir, "SIGHUP received, reloading config");
    run("rotate").expect(0);
    crate::support::wait_until("the log was rotated", || site.dir.path("zigsvc.log.1").exists());

    // A restart checks first.
    site.break_config(true);
    assert_ne!(run("restart").code, 0);
    assert_ne!(run("reload").code, 0);
    assert_eq!(site.pid(), Some(first));
    site.break_config(false);
    run("restart").expect(0);
    let second = site.pid().unwrap();
    assert_ne!(second, first);

    // Crashed is crashed, whatever OpenRC believes.
    site.crash();
    assert_eq!(run("status").code, 32);
    run("restart").expect(0);
    let third = site.pid().unwrap();
    assert_ne!(third, second);

    run("stop").expect(0);
    assert_eq!((site.pid(), believed(&site, "zigsvc")), (None, false));
    run("status").expect(3);

    // A service that another program has started is taken over.
    let fourth = site.dir.start(&[]);
    run("start").expect(0);
    assert_eq!((site.pid(), believed(&site, "zigsvc")), (Some(fourth), true));
    run("stop").expect(0);
    assert_eq!(site.pid(), None);
}

#[test]
fn a_link_with_the_name_of_a_service_runs_it() {
    let site = Site::new();
    let Some(run) = service(&site) else { return };
    if !require_self_exec() {
        return;
    }
    let run = |action: &str| run("zigsvc.supervisor", action);
    run("status").expect(3);
    run("start").expect(0);
    let supervisor = site.dir.lock_holder("zigsvc-supervisor.pid");
    assert!(supervisor.is_some());
    run("status").expect(0);
    // It starts jobs, and stops it with itself.
    let jobs = site.successor(0);
    assert_ne!(supervisor, Some(jobs));
    run("stop").expect(0);
    assert_eq!((site.dir.lock_holder("zigsvc-supervisor.pid"), site.pid()), (None, None));
}
