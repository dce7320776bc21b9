//! Folders, files and links of other users in the way of root.

use crate::support::control::{NOBODY, SetOnDrop, as_user, require_users};
use crate::support::opener::worker;
use crate::support::{
    Dir, Ran, kill, proc_status, program, require_native, require_root, require_tool, setting, wait_until,
    zigsvc,
};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const SERVICES: [&str; 5] = ["jobs", "hub", "opener", "collector", "supervisor"];

fn make(path: &Path, uid: u32, mode: u32) {
    fs::DirBuilder::new().create(path).unwrap();
    chown(path, Some(uid), Some(uid)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn plant(path: &Path, text: &str, uid: u32, mode: u32) {
    fs::write(path, text).unwrap();
    chown(path, Some(uid), Some(uid)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Runs the program with other options than `-d` of the test's folder.
fn run(args: &[&str]) -> Ran {
    let mut command = zigsvc();
    command.args(args);
    crate::support::finish(command, None)
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Checks that a command was refused because of `path`, and that the line says what mends it.
#[track_caller]
fn expect_refused(ran: &Ran, path: &Path, owner: u32) {
    let path = path.to_str().unwrap();
    assert_eq!(ran.code, 6, "{ran:?}");
    let owned = format!("{path}: not trusted, because uid {owner} owns it");
    let mended = ran.err.contains("do `ch") || ran.err.contains("do `cp") || ran.err.contains("do `zigsvc");
    let trust = format!("-o trust={path}");
    assert!(ran.err.contains(&owned) && mended && ran.err.contains(&trust), "{ran:?}");
}

#[test]
fn root_starts_no_service_below_a_folder_that_others_can_change() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    make(&dir.path("foreign"), NOBODY, 0o755);
    make(&dir.path("open"), 0, 0o777);
    make(&dir.path("group"), 0, 0o770);
    make(&dir.path("open/below"), 0, 0o755);
    make(&dir.path("good"), 0, 0o755);
    symlink(dir.path("good"), dir.path("link")).unwrap();
    std::os::unix::fs::lchown(dir.path("link"), Some(NOBODY), Some(NOBODY)).unwrap();
    let cases = [
        ("foreign", "foreign", NOBODY),
        ("open", "open", 0),
        ("group", "group", 0),
        ("open/below", "open", 0),
        ("open/new", "open", 0),
        ("link", "link", NOBODY),
    ];
    for (folder, refused, owner) in cases {
        for service in SERVICES {
            for command in ["start", "run", "restart"] {
                let ran = run(&["-d", dir.path(folder).to_str().unwrap(), command, service]);
                expect_refused(&ran, &dir.path(refused), owner);
            }
        }
        let trust = format!("trust={}", dir.path(refused).display());
        let folder = dir.path(folder);
        let words = ["-d", folder.to_str().unwrap(), "-o", &trust];
        run(&[&words[..], &["start"]].concat()).expect(0);
        run(&[&words[..], &["stop"]].concat()).expect(0);
    }
}

#[test]
fn root_runs_no_job_of_a_user_who_made_the_spool_first() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    make(&dir.path("var"), 0, 0o1777);
    make(&dir.path("var/zigsvc"), NOBODY, 0o777);
    make(&dir.path("good"), 0, 0o700);
    let line = format!("touch {}\n", dir.path("taken").display());
    plant(&dir.path("var/zigsvc/queue"), &line, NOBODY, 0o666);
    let spool = format!("spool={}", dir.path("var/zigsvc").display());
    let queue = format!("queue_file={}", dir.path("var/zigsvc/queue").display());
    let good = dir.path("good");
    let words = ["-d", good.to_str().unwrap(), "-o", "handler=shell", "-o", &spool, "-o", &queue];
    let ran = run(&[&words[..], &["start"]].concat());
    expect_refused(&ran, &dir.path("var/zigsvc"), NOBODY);
    // A link in the place of the spool, and a queue in a folder of all users.
    fs::rename(dir.path("var/zigsvc"), dir.path("var/moved")).unwrap();
    symlink(dir.path("good"), dir.path("var/zigsvc")).unwrap();
    std::os::unix::fs::lchown(dir.path("var/zigsvc"), Some(NOBODY), Some(NOBODY)).unwrap();
    expect_refused(&run(&[&words[..], &["start"]].concat()), &dir.path("var/zigsvc"), NOBODY);
    let queue = format!("queue_file={}", dir.path("var/queue").display());
    let words = ["-d", good.to_str().unwrap(), "-o", "handler=shell", "-o", &queue];
    expect_refused(&run(&[&words[..], &["start"]].concat()), &dir.path("var"), 0);
    let doctor = run(&[&words[..], &["doctor"]].concat()).expect(1);
    let expected = format!("warn  trust: queue_file: {}: not trusted", dir.path("var").display());
    assert!(doctor.out.contains(&expected), "{doctor:?}");
    assert!(!dir.path("taken").exists());
    assert_eq!(names(&dir.path("good")), Vec::<String>::new(), "a refused start makes nothing");
}

#[test]
fn a_configuration_that_others_can_change_is_not_read() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    let config = dir.path("zigsvc.conf");
    let refused = |uid: u32, mode: u32| {
        plant(&config, "handler = \"shell\"\n", uid, mode);
        for command in ["check", "start", "run", "restart", "reload", "doctor"] {
            expect_refused(&dir.zigsvc(&[command]), &config, uid);
        }
    };
    refused(NOBODY, 0o644);
    refused(0, 0o646);
    refused(0, 0o664);
    // With `user`, the configuration is still root's.
    expect_refused(&dir.zigsvc(&["-o", "user=65534", "check"]), &config, 0);
    // It belongs to `user` only where root names both.
    plant(&config, "workers = 2\n", NOBODY, 0o644);
    expect_refused(&dir.zigsvc(&["-o", "user=65534", "check"]), &config, NOBODY);
    let named = ["-c", config.to_str().unwrap()];
    let ran = dir.zigsvc(&[&named[..], &["-o", "user=65534", "check"]].concat()).expect(0);
    assert!(ran.out.contains("workers = 2"), "{ran:?}");
    expect_refused(&dir.zigsvc(&[&named[..], &["-o", "user=65533", "check"]].concat()), &config, NOBODY);
    plant(&config, "user = \"65534\"\n", NOBODY, 0o644);
    expect_refused(&dir.zigsvc(&[&named[..], &["check"]].concat()), &config, NOBODY);
    make(&dir.path("tmp"), 0, 0o1777);
    let planted = dir.path("tmp/x.conf");
    plant(&planted, "handler = \"shell\"\n", NOBODY, 0o644);
    expect_refused(&dir.zigsvc(&["-c", planted.to_str().unwrap(), "check"]), &planted, NOBODY);
    fs::remove_file(&planted).unwrap();
    symlink("/dev/null", &planted).unwrap();
    std::os::unix::fs::lchown(&planted, Some(NOBODY), Some(NOBODY)).unwrap();
    expect_refused(&dir.zigsvc(&["-c", planted.to_str().unwrap(), "check"]), &planted, NOBODY);
    plant(&config, "workers = 3\n", 0, 0o644);
    assert!(dir.zigsvc(&["check"]).expect(0).out.contains("workers = 3"));
    // `trust` names exactly one file.
    plant(&config, "workers = 4\n", NOBODY, 0o644);
    let trust = format!("trust={}", config.display());
    assert!(dir.zigsvc(&["-o", &trust, "check"]).expect(0).out.contains("workers = 4"));
    expect_refused(&dir.zigsvc(&["-o", &format!("trust={}", dir.as_arg()), "check"]), &config, NOBODY);
}

#[test]
fn a_reload_of_a_configuration_that_others_can_change_keeps_the_old_one() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    let config = dir.path("zigsvc.conf");
    for service in SERVICES {
        plant(&config, "retries = 3\n", 0, 0o644);
        let pid = dir.start_service(service, &["log_max=0"]);
        plant(&config, "retries = 5\n", NOBODY, 0o644);
        expect_refused(&dir.zigsvc(&["reload", service]), &config, NOBODY);
        kill(pid, "HUP");
        let log = if service == "jobs" { "zigsvc.log".into() } else { format!("zigsvc-{service}.log") };
        wait_until("it is refused", || {
            dir.read(&log).contains("the old one stays: /tmp/") && dir.read(&log).contains("not trusted")
        });
        assert!(!dir.read(&log).contains("retries changed"), "{}", dir.read(&log));
        plant(&config, "", 0, 0o644);
        dir.zigsvc(&["stop", service]).expect(0);
    }
}

#[test]
fn root_makes_nothing_through_a_link_of_the_user_it_becomes() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    make(&dir.path("roots"), 0, 0o755);
    make(&dir.path("theirs"), NOBODY, 0o755);
    symlink(dir.path("roots"), dir.path("theirs/link")).unwrap();
    std::os::unix::fs::lchown(dir.path("theirs/link"), Some(NOBODY), Some(NOBODY)).unwrap();
    let link = dir.path("theirs/link");
    for service in ["jobs", "hub", "collector"] {
        let ran = run(&["-d", link.to_str().unwrap(), "-o", "user=65534", "start", service]);
        assert!(ran.code != 0, "{ran:?}");
        assert_eq!(names(&dir.path("roots")), Vec::<String>::new(), "{service}");
    }
    // Each path of its own.
    let theirs = dir.path("theirs");
    for (key, starts) in [("log_file=zigsvc.log", true), ("spool=spool", false), ("queue_file=queue", true)] {
        let (key, name) = key.split_once('=').unwrap();
        let option = format!("{key}={}/{name}", link.display());
        let words = ["-d", theirs.to_str().unwrap(), "-o", "user=65534", "-o", &option];
        let ran = run(&[&words[..], &["start"]].concat());
        assert_eq!(ran.code == 0, starts, "{key}: {ran:?}");
        assert_eq!(names(&dir.path("roots")), Vec::<String>::new(), "{key}");
        run(&[&words[..], &["stop"]].concat()).expect(0);
    }
    // In a folder of its own it makes everything, and all of it belongs to the user.
    let words = ["-d", theirs.to_str().unwrap(), "-o", "user=65534"];
    run(&[&words[..], &["start"]].concat()).expect(0);
    for name in ["zigsvc.log", "spool", "spool/journal"] {
        assert_eq!(fs::metadata(theirs.join(name)).unwrap().uid(), NOBODY, "{name}");
    }
    run(&[&words[..], &["stop"]].concat()).expect(0);
}

#[test]
fn a_log_that_another_user_made_is_not_written_by_root() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    make(&dir.path("tmp"), 0, 0o1777);
    make(&dir.path("logs"), 0, 0o755);
    let cases = [("tmp", NOBODY, 0o666), ("tmp", NOBODY, 0o644), ("logs", 0, 0o666), ("logs", NOBODY, 0o640)];
    for (folder, uid, mode) in cases {
        for service in SERVICES {
            let name = if service == "jobs" { "zigsvc.log".into() } else { format!("zigsvc-{service}.log") };
            let log = dir.path(folder).join(name);
            plant(&log, "", uid, mode);
            let option = format!("log_file={}", dir.path(folder).join("zigsvc.log").display());
            expect_refused(&dir.zigsvc(&["-o", &option, "start", service]), &log, uid);
            let ran = dir.zigsvc_with_input(&["log", log.to_str().unwrap()], b"secret\n");
            expect_refused(&ran, &log, uid);
            assert_eq!(fs::read_to_string(&log).unwrap(), "");
            fs::remove_file(&log).unwrap();
        }
    }
    // While it runs, too: the file is judged whenever it is opened.
    let log = dir.path("tmp/zigsvc.log");
    let option = format!("log_file={}", log.display());
    let pid = dir.start(&[&option]);
    fs::rename(&log, dir.path("tmp/moved")).unwrap();
    plant(&log, "", NOBODY, 0o666);
    kill(pid, "USR2");
    wait_until("the log is degraded", || {
        crate::support::control::status_word(&dir, "degraded").contains("log")
    });
    assert_eq!(fs::read_to_string(&log).unwrap(), "");
    fs::remove_file(&log).unwrap();
    wait_until("it has a log of its own", || {
        kill(pid, "USR2");
        fs::metadata(&log).is_ok_and(|meta| meta.uid() == 0 && meta.len() > 0)
    });
    dir.zigsvc(&["-o", &option, "stop"]).expect(0);
}

#[test]
fn the_usual_places_are_trusted_and_an_ordinary_user_may_use_its_own_folder() {
    let dir = Dir::new();
    if !require_users(&dir) || !require_tool("setpriv") {
        return;
    }
    // The layout of the packages: everything of the user in folders of its own.
    for name in ["run", "log", "lib"] {
        make(&dir.path(name), NOBODY, 0o755);
    }
    make(&dir.path("in"), 0, 0o2770);
    let path = |key: &str, name: &str| format!("{key}={}", dir.path(name).display());
    let options = [
        "user=65534".to_owned(),
        path("pid_file", "run/zigsvc.pid"),
        path("socket", "run/zigsvc.sock"),
        path("health_file", "run/zigsvc.health"),
        path("log_file", "log/zigsvc.log"),
        path("spool", "lib"),
        path("queue_file", "lib/queue"),
    ];
    let words: Vec<&str> = options.iter().flat_map(|option| ["-o", option]).collect();
    dir.zigsvc(&[&words[..], &["start"]].concat()).expect(0);
    dir.zigsvc(&[&words[..], &["stop"]].concat()).expect(0);
    // A queue that a group shares, in a folder of its own.
    let queue = path("queue_file", "in/queue");
    dir.start(&[&queue]);
    let doctor = dir.zigsvc(&["-o", &queue, "doctor"]);
    assert!(doctor.out.contains("its group may add jobs"), "{doctor:?}");
    dir.zigsvc(&["-o", &queue, "stop"]).expect(0);
    // An ordinary user, whose folder its own group may write to.
    make(&dir.path("home"), NOBODY, 0o775);
    make(&dir.path("others"), NOBODY, 0o777);
    let program_path = dir.copy_program(zigsvc().get_program(), "zigsvc");
    let as_nobody = |folder: &str, command: &str| {
        let mut inner = program(&program_path);
        inner.arg("-d").arg(dir.path(folder)).arg(command);
        let words = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
        crate::support::finish(crate::support::through(&words, &inner), None)
    };
    as_nobody("home/z", "start").expect(0);
    as_nobody("home/z", "stop").expect(0);
    expect_refused(&as_nobody("others", "start"), &dir.path("others"), NOBODY);
}

/// Moves a folder of root, one of another user, a link of that user, and nothing to one name, again
/// and again, while root reads the configuration in it.
#[test]
fn a_folder_that_is_swapped_while_root_looks_at_it_is_never_taken() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    make(&dir.path("tmp"), 0, 0o1777);
    make(&dir.path("tmp/theirs"), NOBODY, 0o755);
    plant(&dir.path("tmp/theirs/zigsvc.conf"), "workers = 7\n", 0, 0o644);
    let rounds = setting("ZIGSVC_RACE", 200);
    let ended = AtomicBool::new(false);
    let (mut refused, mut missing) = (0, 0);
    std::thread::scope(|scope| {
        let swapping = scope.spawn(|| {
            let (name, own) = (dir.path("tmp/d"), dir.path("tmp/theirs"));
            as_user(NOBODY, NOBODY, &[], || {
                while !ended.load(Ordering::Relaxed) {
                    let _ = fs::rename(&own, &name);
                    let _ = fs::rename(&name, &own);
                    let _ = symlink(&own, &name);
                    let _ = fs::remove_file(&name);
                }
                Err(std::io::Error::other("no connection"))
            })
        });
        let ending = SetOnDrop(&ended);
        for _ in 0..rounds {
            let ran = run(&["-d", dir.path("tmp/d").to_str().unwrap(), "check"]);
            assert!(!ran.out.contains("workers = 7"), "{ran:?}");
            match ran.code {
                0 => missing += 1,
                6 => refused += 1,
                _ => panic!("{ran:?}"),
            }
        }
        drop(ending);
        let _ = swapping.join();
    });
    eprintln!("{rounds} rounds: {refused} refused, {missing} saw no configuration");
}

// ----- the opener ---------------------------------------------------------------------

#[test]
fn a_listed_file_that_its_folders_owner_replaces_by_a_link_is_a_config_error() {
    let dir = Dir::new();
    if !require_users(&dir) {
        return;
    }
    make(&dir.path("theirs"), NOBODY, 0o755);
    plant(&dir.path("theirs/report"), "a report\n", NOBODY, 0o644);
    dir.write("secret", "of root alone\n");
    fs::set_permissions(dir.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let report = dir.path("theirs/report");
    let option = format!("allow={}", report.display());
    let pid = dir.start_service("opener", &[&option]);
    assert_eq!(crate::support::opener::ask(&dir, &report).content(), "a report\n");
    fs::remove_file(&report).unwrap();
    symlink(dir.path("secret"), &report).unwrap();
    std::os::unix::fs::lchown(&report, Some(NOBODY), Some(NOBODY)).unwrap();
    kill(pid, "HUP");
    crate::support::wait_for_log_of(&dir, "zigsvc-opener.log", "the old one stays");
    assert!(crate::support::opener::ask(&dir, &report).words().starts_with("open failed"));
    for command in [["reload", "opener"], ["restart", "opener"]] {
        expect_refused(&dir.zigsvc(&[&["-o", &option], &command[..]].concat()), &dir.path("theirs"), NOBODY);
    }
    let checked = dir.zigsvc(&["-o", &option, "check"]);
    expect_refused(&checked, &dir.path("theirs"), NOBODY);
    // A link of root's own, in a folder of root's, leads where it leads.
    symlink(dir.path("secret"), dir.path("own")).unwrap();
    dir.zigsvc(&["stop", "opener"]).expect(0);
    dir.start_service("opener", &[&format!("allow={}", dir.path("own").display())]);
    assert_eq!(crate::support::opener::ask(&dir, dir.path("own")).content(), "of root alone\n");
}

#[test]
fn no_process_of_nobody_can_kill_the_worker_and_a_killed_one_is_replaced_at_once() {
    let dir = Dir::new();
    if !require_users(&dir) || !require_native("signals the real worker") {
        return;
    }
    dir.write("public", "for all\n");
    let option = crate::support::opener::allow(&dir, &["public"]);
    let main = dir.start_service("opener", &[&option]);
    let uid: u32 = proc_status(worker(main), "Uid").split(' ').next().unwrap().parse().unwrap();
    assert!((61_184..=65_519).contains(&uid), "{uid}");
    let pid = worker(main);
    let killed = as_user(NOBODY, NOBODY, &[], || {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        let errno = rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap_err();
        Err(std::io::Error::from_raw_os_error(errno.raw_os_error()))
    });
    assert_eq!(killed.unwrap_err().raw_os_error(), Some(1), "EPERM");
    for _ in 0..20 {
        let before = worker(main);
        crate::support::kill_hard(before);
        wait_until("there is another worker", || {
            let now = crate::support::opener::children(main);
            now.len() == 1 && now[0] != before
        });
        assert_eq!(crate::support::opener::ask(&dir, dir.path("public")).content(), "for all\n");
    }
    let log = dir.read("zigsvc-opener.log");
    assert!(!log.contains("000 ms"), "each is replaced at once: {log}");
}

#[test]
fn the_root_of_a_test_is_trusted() {
    if !require_root() {
        return;
    }
    let dir = Dir::new();
    dir.start(&[]);
    dir.zigsvc(&["check"]).expect(0);
}
