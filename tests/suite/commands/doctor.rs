//! `doctor`: what it finds on machines that lack something. A clock that was never set and
//! real flash are tested on the emulated board.

use crate::support::{
    Dir, Ran, by_shell, finish, program, require, require_native, require_root, require_tool, through,
    wait_until,
};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

/// Returns the line about `subject`, which must be the only one.
#[track_caller]
fn line<'a>(ran: &'a Ran, subject: &str) -> &'a str {
    let about = |line: &&str| line.get(6..).is_some_and(|rest| rest.starts_with(&format!("{subject}: ")));
    let lines: Vec<&str> = ran.out.lines().filter(about).collect();
    assert_eq!(lines.len(), 1, "{subject}: {}{}", ran.out, ran.err);
    lines[0]
}

#[track_caller]
fn warns(ran: &Ran, subject: &str, text: &str) {
    let line = line(ran, subject);
    assert!(line.starts_with("warn  ") && line.contains(text), "{line}");
    assert_eq!(ran.code, 1);
}

#[test]
fn a_machine_that_lacks_nothing_gets_no_warning_and_nothing_is_made() {
    let dir = Dir::new();
    let missing = dir.path("not/yet");
    let ran = crate::support::run(&["-d", missing.to_str().unwrap(), "doctor"]);
    if require_native("it warns of what is QEMU's") {
        // On a machine whose /tmp is in memory, the spool is the only warning.
        let worries: Vec<&str> = ran.out.lines().filter(|line| line.starts_with("warn")).collect();
        assert!(worries.iter().all(|line| line.contains("do not survive a reboot")), "{worries:?}");
        assert_eq!(ran.code, i32::from(!worries.is_empty()));
    }
    for subject in [
        "clock",
        "proc",
        "inotify",
        "pidfd",
        "openat2",
        "descriptors",
        "syslog",
        "spool",
        "log",
        "health",
        "pid",
    ] {
        line(&ran, subject);
    }
    assert!(ran.out.ends_with(if ran.code == 0 { "nothing to worry about\n" } else { "warning\n" }));
    assert!(!missing.exists());
}

#[test]
fn a_spool_in_memory_is_a_warning_unless_that_is_meant() {
    if !require(Path::new("/dev/shm").is_dir(), "there is no /dev/shm")
        || !require_native("QEMU shows another /proc")
    {
        return;
    }
    let folder = format!("/dev/shm/zigsvc-doctor-{}", std::process::id());
    let ran = crate::support::run(&["-d", &folder, "doctor"]);
    warns(&ran, "spool", "on tmpfs");
    assert!(line(&ran, "health").starts_with("ok    "), "a heartbeat is well there");
    let ran = crate::support::run(&["-d", &folder, "-o", "sync=never", "doctor"]).expect(1);
    assert!(ran.out.contains("warn  spool: sync = \"never\": a power cut may lose any job\n"), "{}", ran.out);
    assert!(!ran.out.contains("survive"), "{}", ran.out);
}

#[test]
fn too_few_descriptors_are_a_warning() {
    let dir = Dir::new();
    let mut command = dir.command();
    command.arg("doctor");
    let ran = finish(by_shell("ulimit -n 40; exec \"$@\"", &command), None);
    warns(&ran, "descriptors", "40; a full service needs ");
}

#[test]
fn a_log_to_a_syslogd_that_is_not_there_is_a_warning() {
    if !require(!Path::new("/dev/log").exists(), "there is a /dev/log") {
        return;
    }
    let dir = Dir::new();
    let ran = dir.zigsvc(&["-o", "syslog=true", "doctor"]);
    warns(&ran, "syslog", "/dev/log is missing");
}

#[test]
fn what_the_config_names_and_is_not_there_is_a_warning() {
    let dir = Dir::new();
    dir.write("no-program", "");
    let handler = format!("handler={}", dir.path("no-program").display());
    warns(&dir.zigsvc(&["-o", &handler, "doctor"]), "handler", "EACCES");
    warns(&dir.zigsvc(&["-o", "handler=/no/such/program", "doctor"]), "handler", "ENOENT");
    warns(&dir.zigsvc(&["-o", "watchdog=/no/such/device", "doctor"]), "watchdog", "ENOENT");
    warns(&dir.zigsvc(&["-o", "user=nosuchuser", "doctor"]), "user", "a start fails");
    warns(&dir.zigsvc(&["-o", "user=54321", "doctor"]), "user", "belongs to somebody else");
    warns(&dir.zigsvc(&["-o", "allow_uid=nosuchuser", "doctor"]), "access", "nosuchuser");
    let long = format!("socket=/tmp/{}", "x".repeat(120));
    let ran = dir.zigsvc(&["-o", &long, "doctor"]).expect(1);
    assert!(ran.out.contains("warn  socket: /tmp/xxx"), "{}", ran.out);
    assert!(dir.zigsvc(&["-o", "log_max=0", "doctor"]).expect(1).out.contains("grows without end"));
}

#[test]
fn a_place_that_cannot_be_written_is_a_warning() {
    let dir = Dir::new();
    dir.write("file", "");
    let below = |key: &str, name: &str| format!("{key}={}", dir.path(name).display());
    warns(&dir.zigsvc(&["-o", &below("log_file", "file/log"), "doctor"]), "log", "ENOTDIR");
    warns(&dir.zigsvc(&["-o", &below("spool", "file"), "doctor"]), "spool", "ENOTDIR");
    warns(&dir.zigsvc(&["-o", &below("health_file", "."), "doctor"]), "health", "EISDIR");
    // A start makes the folder of -d and those of the spool, and no other.
    warns(&dir.zigsvc(&["-o", &below("pid_file", "not/pid"), "doctor"]), "pid", "ENOENT");
    dir.zigsvc(&["-o", &below("pid_file", "not/pid"), "start"]).expect(1);
    assert!(line(&dir.zigsvc(&["-o", &below("spool", "not/spool"), "doctor"]), "spool").starts_with("ok"));
    // The check is left out as root, because root may write everywhere.
    if !crate::support::is_root() {
        warns(&dir.zigsvc(&["-o", "log_file=/etc/zigsvc.log", "doctor"]), "log", "EACCES");
    }
}

/// Runs `doctor` after this shell script, in a mount namespace of its own. In the script `$0`
/// is the folder.
fn within(dir: &Dir, script: &str) -> Option<Ran> {
    if !crate::support::small_disk::has_namespaces() || !require_native("QEMU needs /proc") {
        return None;
    }
    let mut command = dir.command();
    command.arg("doctor");
    let script = format!("{script} && exec \"$@\"");
    let words = ["unshare", "-m", "sh", "-c", &script, dir.as_arg()];
    Some(finish(through(&words, &command), None))
}

#[test]
fn a_missing_proc_and_a_read_only_disk_are_warnings() {
    let dir = Dir::new();
    let script = "mount -t tmpfs none /proc && mount -t tmpfs -o ro none \"$0\"";
    let Some(ran) = within(&dir, script) else { return };
    warns(&ran, "proc", "not mounted");
    warns(&ran, "spool", "read-only");
    warns(&ran, "log", "read-only");
}

#[test]
fn a_nearly_full_disk_is_a_warning() {
    let dir = Dir::new();
    let Some(ran) = within(&dir, "mount -t tmpfs -o size=64k none \"$0\"") else { return };
    warns(&ran, "log", "64 KiB free: nearly full");
    warns(&ran, "spool", "64 KiB free: nearly full; new jobs would be refused; jobs there do not survive");
    assert_eq!(ran.out.matches("jobs would be refused").count(), 1, "what jobs need is the spool: {ran:?}");
}

#[test]
fn a_state_of_a_running_service_is_named_with_its_cause_and_what_ends_it() {
    let dir = Dir::new();
    dir.start(&["sync=never"]);
    dir.zigsvc(&["hold"]).expect(0);
    dir.start_service("hub", &["interval=1h", "stale_after=10h"]);
    std::fs::remove_file(dir.path("zigsvc-hub.sock")).unwrap();
    let doctor = dir.zigsvc(&["doctor"]).expect(1);
    for line in [
        "warn  jobs: held: the queue is held, and no job is started; what ends it: `zigsvc resume`",
        "warn  jobs: sync-never: `sync` is `never`, and a power cut can lose jobs; what ends it: `sync = \"always\"`",
        "warn  hub: socket: the socket was deleted and cannot be made again; what ends it: \
         a folder that exists, and no other file with its name",
    ] {
        assert!(doctor.out.lines().any(|other| other == line), "{line}: {}", doctor.out);
    }
    // Each service is asked for its states.
    let dir = Dir::new();
    for service in ["hub", "opener", "collector", "supervisor"] {
        dir.start_service(
            service,
            &["interval=100ms", "supervise=[]", "allow=[\"/etc/hosts\", \"/etc\", \"/no/such\"]"],
        );
        let health = dir.path(&format!("zigsvc-{service}.health"));
        std::fs::remove_file(&health).unwrap();
        std::fs::create_dir(&health).unwrap();
    }
    wait_until("all states are named", || {
        let doctor =
            dir.zigsvc(&["-o", "allow=[\"/etc/hosts\", \"/etc\", \"/no/such\"]", "doctor"]).expect(1);
        let has = |line: &str| doctor.out.lines().any(|other| other == line);
        let state = "health: the health file cannot be written; what ends it: a folder that exists and can be written";
        let of_opener = "`allow` names it, and no client gets it: only regular files are handed out";
        ["hub", "opener", "collector", "supervisor"]
            .iter()
            .all(|service| has(&format!("warn  {service}: {state}")))
            && has(&format!("warn  opener: /etc; {of_opener}"))
            && has(&format!(
                "warn  opener: /no/such: fstatat: ENOENT (no such file or directory); {of_opener}"
            ))
            && !doctor.out.contains("warn  opener: /etc/hosts")
    });
    // A thing that has the name of a file of a service keeps it from its start.
    let dir = Dir::new();
    for (service, state, name) in [
        ("jobs", "queue-file", "queue"),
        ("jobs", "pid-file", "zigsvc.pid"),
        ("opener", "socket", "zigsvc-opener.sock"),
        ("supervisor", "health", "zigsvc-supervisor.health"),
    ] {
        std::fs::create_dir(dir.path(name)).unwrap();
        let doctor = dir.zigsvc(&["doctor"]).expect(1);
        let path = dir.path(name);
        let begin = format!("warn  {service}: {state}: {}: not a file of this service; ", path.display());
        let named =
            doctor.out.lines().any(|line| line.starts_with(&begin) && line.contains("; what ends it: "));
        assert!(named, "{begin}: {}", doctor.out);
        std::fs::remove_dir(&path).unwrap();
    }
}

#[test]
fn a_bad_config_is_told_first() {
    let dir = Dir::new();
    dir.write("zigsvc.conf", "workers = 99\n");
    assert!(dir.zigsvc(&["doctor"]).expect(6).err.contains("zigsvc.conf:1: workers must be"));
}

#[test]
fn jobs_that_are_only_logged_are_a_warning_once_some_came() {
    let dir = Dir::new();
    dir.start(&[]);
    let about = |ran: &Ran| {
        ran.out.lines().filter(|line| line.get(6..).is_some_and(|rest| rest.starts_with("handler: "))).count()
    };
    assert_eq!(about(&dir.zigsvc(&["doctor"])), 0);
    dir.zigsvc(&["queue", "a job"]).expect(0);
    warns(&dir.zigsvc(&["doctor"]), "handler", "log: jobs are logged and nothing runs");
    let ran = dir.zigsvc(&["-o", "handler=shell", "doctor"]);
    assert_eq!(line(&ran, "handler"), "ok    handler: /bin/sh");
}

// OpenWrt has no /run, and /var is a link to a folder that everyone may write to.
#[test]
fn where_run_is_no_folder_every_command_uses_var_run() {
    if !require_root() || !require_tool("chroot") || !require_native("chroot hides QEMU") {
        return;
    }
    let dir = Dir::new();
    for folder in ["etc", "tmp", "tmp/run", "tmp/log", "dev"] {
        fs::create_dir(dir.path(folder)).unwrap();
    }
    fs::set_permissions(dir.path("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    symlink("tmp", dir.path("var")).unwrap();
    dir.write("dev/null", "");
    fs::copy(env!("CARGO_BIN_EXE_zigsvc"), dir.path("zigsvc")).unwrap();
    let run = |words: &[&str]| {
        let mut command = program("chroot");
        command.arg(dir.path("")).arg("/zigsvc").args(words);
        finish(command, None)
    };
    for service in ["jobs", "hub", "supervisor"] {
        run(&["-o", "supervise=[\"hub\"]", "start", service]).expect(0);
    }
    let held = fs::read_dir(dir.path("tmp/run")).unwrap();
    let held: Vec<String> = held.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    for name in ["zigsvc.pid", "zigsvc.sock", "zigsvc-hub.pid", "zigsvc-supervisor.pid"] {
        assert!(held.iter().any(|held| held == name), "{name}: {held:?}");
    }
    assert!(!dir.path("run").exists());
    run(&["status"]).expect(0);
    run(&["queue", "--wait", "a job"]).expect(0);
    for command in ["list", "hold", "resume", "reload", "rotate", "restart", "drain"] {
        run(&[command]).expect(0);
    }
    assert!(run(&["check"]).expect(0).out.contains("pid_file = \"/var/run/zigsvc.pid\""));
    assert!(run(&["doctor"]).out.contains("pid: /var/run/zigsvc.pid on "));
    for service in ["supervisor", "hub", "jobs"] {
        run(&["stop", service]).expect(0);
    }
    // A start does not make /var/run, so doctor warns.
    fs::remove_dir_all(dir.path("tmp/run")).unwrap();
    assert!(run(&["start"]).expect(1).err.contains("/var/run/zigsvc.pid: openat: ENOENT"));
    let ran = run(&["doctor"]).expect(1);
    assert!(ran.out.contains("warn  pid: /var/run: fstatat: ENOENT"), "{}", ran.out);
}

#[test]
fn a_running_service_is_judged_with_its_options_and_a_plain_start_that_differs_is_named() {
    let dir = Dir::new();
    let options = |ran: &Ran| ran.out.lines().filter(|line| line.contains(" options: ")).count();
    dir.start(&["handler=shell", "retries=0"]);
    dir.zigsvc(&["queue", "--wait", "true"]).expect(0);
    let ran = dir.zigsvc(&["doctor"]);
    assert_eq!(line(&ran, "handler"), "ok    handler: /bin/sh");
    assert_eq!(
        line(&ran, "options"),
        "ok    options: jobs runs with them, and a start without them differs: -o handler=shell -o retries=0"
    );
    // Options of this command line count more, and those that are the same are no difference.
    let ran = dir.zigsvc(&["-o", "retries=0", "-o", "handler=log", "doctor"]);
    warns(&ran, "handler", "jobs came already");
    assert_eq!(options(&ran), 0, "{}", ran.out);
    // Without the service, a plain start is judged.
    dir.zigsvc(&["stop"]).expect(0);
    let ran = dir.zigsvc(&["doctor"]);
    warns(&ran, "handler", "jobs came already");
    assert_eq!(options(&ran), 0, "{}", ran.out);
    // The configuration file of the service is read too, if it has one of its own.
    dir.write("other.conf", "handler = \"shell\"\n");
    let file = dir.path("other.conf");
    let mut command = dir.command();
    command.arg("-c").arg(&file).arg("start");
    finish(command, None).expect(0);
    let ran = dir.zigsvc(&["doctor"]);
    assert_eq!(line(&ran, "handler"), "ok    handler: /bin/sh");
    assert!(line(&ran, "options").ends_with(&format!(" differs: -c {}", file.display())), "{}", ran.out);
    // The services of a supervisor have its options, and are judged with them.
    if !crate::support::require_self_exec() {
        return;
    }
    let dir = Dir::new();
    dir.start_service("supervisor", &["supervise=jobs", "handler=shell"]);
    wait_until("it runs", || dir.zigsvc(&["status"]).code == 0);
    let ran = dir.zigsvc(&["doctor"]);
    assert_eq!(line(&ran, "handler"), "ok    handler: /bin/sh");
    assert!(line(&ran, "options").contains(": jobs runs with them, "), "{}", ran.out);
}
