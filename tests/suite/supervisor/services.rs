//! `supervisor` and its services: which are started, adopted, ended by TERM, killed and left alone.

use crate::support::supervisor::{BLIND, LOG, QUICK, Supervised, binary, parent_of, run_command, session_of};
use crate::support::{
    Running, alive, finish, kill, kill_hard, lock_holder, proc_status, process_state, processed, program,
    require_native, under_qemu, wait_for_jobs, wait_for_log, wait_until,
};
use rustix::fs::{CWD, FileType, Mode};
use std::fs;
use std::process::Stdio;

/// A job that does not end at TERM; `jobs` waits `stop_timeout` for it.
const STUBBORN: &str = "trap '' TERM; echo deaf; while :; do sleep 1; done\n";

/// Returns the options of both.
fn options<'a>(base: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [base, more].concat()
}

/// Stops a process, and waits until it stands still.
#[track_caller]
fn freeze(pid: u32) {
    kill(pid, "STOP");
    wait_until("it stands still", || process_state(pid) == Some('T'));
}

// ----- start, adopt ------------------------------------------------------------

#[test]
fn it_is_ready_when_its_services_are_and_takes_them_with_it() {
    let Some(dir) = Supervised::of_services() else { return };
    let pid = dir.start_supervisor(QUICK);
    // Nothing is waited for: jobs must be there already.
    assert_eq!(dir.zigsvc(&["queue", "hello"]).expect(0).out, "1\n");
    let jobs = dir.lock_holder("zigsvc.pid").unwrap();
    assert_eq!(parent_of(jobs), Some(pid));
    assert_eq!(session_of(jobs), Some(jobs), "a session of its own");
    assert!(dir.read("zigsvc.log").contains(&format!("daemon started, pid={jobs}\n")));
    wait_for_jobs(&dir, 1);
    assert!(!dir.read(LOG).contains("hello"), "it logs to its own file");
    dir.wait_for(&format!("] jobs: running (pid {jobs})"));
    let line = dir.status(pid);
    assert!(line.contains(&format!("status: pid={pid} state=running uptime=")), "{line}");
    assert!(
        line.ends_with(&format!(" restarts=0 reloads=0 reload_errors=0 jobs=running:{jobs} degraded=none")),
        "{line}"
    );
    dir.zigsvc(&["status", "supervisor"]).expect(0);
    dir.zigsvc(&["status"]).expect(0);
    if require_native("/proc shows QEMU's own process") {
        let fds = fs::read_dir(format!("/proc/{jobs}/fd")).unwrap().flatten();
        let targets: Vec<_> = fds.map(|fd| fs::read_link(fd.path()).unwrap_or_default()).collect();
        assert_eq!(targets.iter().filter(|target| target.as_os_str() == "/dev/null").count(), 3);
        assert!(targets.iter().all(|target| !target.to_string_lossy().contains("supervisor")), "{targets:?}");
    }
    assert_eq!(dir.zigsvc(&["stop", "supervisor"]).expect(0).out, "zigsvc: supervisor stopped\n");
    assert!(!alive(pid) && !alive(jobs));
    for file in ["zigsvc.pid", "zigsvc.health", "zigsvc-supervisor.pid", "zigsvc-supervisor.health"] {
        assert!(!dir.path(file).exists(), "{file}");
    }
    let log = dir.read(LOG);
    let place = |text: &str| log.find(text).unwrap_or_else(|| panic!("{text}"));
    assert!(place("SIGTERM received, stopping") < place("daemon stopped, after 0 restarts"));
    assert!(dir.read("zigsvc.log").contains("daemon stopped"), "jobs was told, not killed");
    assert_eq!(dir.count("SIGKILL"), 0);
}

#[test]
fn what_runs_already_is_adopted_and_its_death_seen_at_once() {
    let Some(dir) = Supervised::of_services() else { return };
    let first = dir.start(BLIND);
    let supervisor = dir.start_supervisor(BLIND);
    dir.wait_for(&format!("jobs: runs already (pid {first}), adopted"));
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(first));
    assert_eq!(dir.count("[ERROR]"), 0, "no second one was tried");
    // A second supervisor touches nothing.
    let before = (dir.read(LOG), dir.read("zigsvc-supervisor.pid"));
    for command in ["start", "run"] {
        let ran = dir.zigsvc(&[command, "supervisor"]).expect(1);
        assert_eq!(ran.err, format!("zigsvc: another instance is already running (pid {supervisor})\n"));
    }
    assert_eq!((dir.read(LOG), dir.read("zigsvc-supervisor.pid")), before);
    // It does not look for an hour, and sees it all the same.
    dir.zigsvc(&["queue", "kept"]).expect(0);
    kill_hard(first);
    let second = dir.jobs_after(first);
    dir.wait_for("[WARN] jobs: died; restart 1 now");
    assert_eq!(parent_of(second), Some(supervisor));
    wait_for_jobs(&dir, 1);
    // QUIT leaves it, and the next one adopts it.
    kill(supervisor, "QUIT");
    wait_until("it is gone", || !alive(supervisor));
    assert_eq!(dir.count("SIGQUIT received, stopping; what is supervised is left running"), 1);
    assert!(!dir.path("zigsvc-supervisor.pid").exists());
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(second));
    let next = dir.start_supervisor(BLIND);
    dir.wait_for(&format!("jobs: runs already (pid {second}), adopted"));
    // So does one after a kill.
    kill_hard(next);
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(second));
    dir.zigsvc(&["status", "supervisor"]).expect(1);
    let last = dir.start_supervisor(BLIND);
    dir.wait_for_count(&format!("jobs: runs already (pid {second}), adopted"), 2);
    kill_hard(second);
    let third = dir.jobs_after(second);
    assert_eq!(parent_of(third), Some(last));
    // TERM ends an adopted one too.
    kill_hard(last);
    let end = dir.start_supervisor(BLIND);
    dir.wait_for(&format!("jobs: runs already (pid {third}), adopted"));
    dir.zigsvc(&["stop", "supervisor"]).expect(0);
    assert!(!alive(end) && !alive(third));
}

#[test]
fn relative_paths_mean_the_folder_of_the_caller_after_a_restart_too() {
    let Some(dir) = Supervised::of_services() else { return };
    fs::create_dir(dir.path("d")).unwrap();
    dir.write("own.conf", "check_interval = \"1h\"\ninterval = \"100ms\"\n");
    let mut command = crate::support::zigsvc();
    command.args([
        "-d",
        "d",
        "-c",
        "own.conf",
        "-o",
        "log_file=own.log",
        "-oretries=7",
        "start",
        "supervisor",
    ]);
    command.current_dir(dir.path(""));
    finish(command, None).expect(0);
    let supervisor = lock_holder(&dir.path("d/zigsvc-supervisor.pid")).unwrap();
    let first = lock_holder(&dir.path("d/zigsvc.pid")).unwrap();
    assert!(dir.read("own.log").contains("daemon started"));
    kill_hard(first);
    wait_until("it runs again", || lock_holder(&dir.path("d/zigsvc.pid")).is_some_and(|pid| pid != first));
    wait_until("it says so", || {
        crate::support::log_lines_matching(&dir.read("own.log"), "daemon started") == 2
    });
    assert!(dir.read(LOG).contains("jobs: running (pid "), "named after log_file's folder");
    let below = dir.path("d");
    crate::support::run(&["-d", below.to_str().unwrap(), "stop", "supervisor"]).expect(0);
    assert!(!alive(supervisor));
}

#[test]
fn a_restart_executes_the_file_that_is_there_then_or_itself() {
    let Some(dir) = Supervised::of_services() else { return };
    let own = dir.copy_program(binary(), "zigsvc");
    let mut command = program(&own);
    command.arg("-d").arg(dir.path("")).env_clear().env("PATH", "/usr/bin:/bin");
    for option in BLIND {
        command.args(["-o", option]);
    }
    command.args(["start", "supervisor"]);
    finish(command, None).expect(0);
    let first = dir.lock_holder("zigsvc.pid").unwrap();
    // Replaced, as an update does it.
    dir.write_executable(
        "new",
        &format!("#!/bin/sh\necho a new version: \"$*\" >&2\nexec {} \"$@\"\n", binary().display()),
    );
    fs::rename(dir.path("new"), &own).unwrap();
    kill_hard(first);
    let second = dir.jobs_after(first);
    dir.wait_for(&format!("] jobs| a new version: -d {} -o log_max=0 ", dir.as_arg()));
    dir.wait_for(&format!("jobs: running (pid {second})"));
    if !crate::support::require_native("/proc/self/exe is QEMU, which it cannot execute as us") {
        return;
    }
    // Deleted.
    fs::remove_file(&own).unwrap();
    kill_hard(second);
    let third = dir.jobs_after(second);
    dir.wait_for(&format!("jobs: running (pid {third})"));
    dir.zigsvc(&["status"]).expect(0);
}

// ----- deaths --------------------------------------------------------------------

#[test]
fn one_that_is_killed_again_and_again_is_restarted_more_and_more_slowly() {
    let Some(dir) = Supervised::of_services() else { return };
    let supervisor = dir.start_supervisor(BLIND);
    let mut jobs = 0;
    for (index, when) in ["now", "in 1 s", "in 2 s"].iter().enumerate() {
        jobs = dir.jobs_after(jobs);
        dir.wait_for(&format!("jobs: running (pid {jobs})"));
        dir.zigsvc(&["queue", &format!("job-{index}")]).expect(0);
        kill(jobs, "KILL");
        dir.wait_for(&format!("; restart {} {when}", index + 1));
        let waiting = if index == 0 { "restarts=1 " } else { " jobs=waiting:0 " };
        let line = dir.status(supervisor);
        assert!(line.contains(waiting), "{line}");
    }
    let last = dir.jobs_after(jobs);
    assert_eq!(dir.count("] jobs: killed by signal 9 after "), 3);
    wait_until("no job was lost", || {
        let done = processed(&dir);
        (0..3).all(|index| done.contains(&format!("job-{index}")))
    });
    dir.wait_for(&format!("jobs: running (pid {last})"));
    let line = dir.status(supervisor);
    assert!(line.contains(" restarts=3 ") && line.contains(&format!(" jobs=running:{last} ")), "{line}");
    assert!(dir.read("zigsvc.log").contains("daemon started"));
}

#[test]
fn one_that_cannot_start_says_why_and_comes_back_when_it_can() {
    let Some(dir) = Supervised::of_services() else { return };
    let supervisor = dir.start_supervisor(BLIND);
    let first = dir.lock_holder("zigsvc.pid").unwrap();
    dir.write("zigsvc.conf", "workers = 9\n");
    kill(first, "KILL");
    dir.wait_for_count("] jobs: ended with exit status 6 after ", 2);
    dir.wait_for("] jobs| zigsvc: ");
    dir.wait_for("zigsvc.conf:1: ");
    dir.wait_for("; restart 1 now");
    dir.wait_for("; restart 2 in 1 s");
    // The next attempt finds a configuration that was mended meanwhile, and is logged as ready.
    dir.write("zigsvc.conf", "workers = 2\n");
    let second = dir.jobs_after(first);
    dir.wait_for(&format!("jobs: running (pid {second})"));
    // A service whose start fails later reports it through the supervisor.
    fs::rename(dir.path("spool"), dir.path("away")).unwrap();
    dir.write("spool", "not a folder\n");
    kill(second, "KILL");
    dir.wait_for("[ERROR] jobs: ");
    fs::remove_file(dir.path("spool")).unwrap();
    let third = dir.jobs_after(second);
    dir.wait_for(&format!("jobs: running (pid {third})"));
    let line = dir.status(supervisor);
    assert!(line.contains(&format!(" jobs=running:{third} ")), "{line}");
}

#[test]
fn a_restart_in_the_moment_of_a_failed_start_is_seen_to_be_ready() {
    let Some(dir) = Supervised::of_services() else { return };
    let own = dir.copy_program(binary(), "zigsvc");
    dir.write("zigsvc.conf", "supervise = []\n");
    let mut command = program(&own);
    command
        .arg("-d")
        .arg(dir.path(""))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .args(["start", "supervisor"]);
    finish(command, None).expect(0);
    let supervisor = dir.lock_holder("zigsvc-supervisor.pid").unwrap();
    // The first start fails once `go` is there, the next one does not.
    let d = dir.as_arg();
    dir.write_executable(
        "new",
        &format!(
            "#!/bin/sh\n[ -e {d}/go ] && exec {} \"$@\"\necho $$ >{d}/waits\n\
             until [ -e {d}/go ]; do sleep 0.01; done\nexit 3\n",
            binary().display()
        ),
    );
    fs::rename(dir.path("new"), &own).unwrap();
    dir.write("zigsvc.conf", "supervise = [\"jobs\"]\n");
    kill(supervisor, "HUP");
    wait_until("it waits", || dir.read("waits").ends_with('\n'));
    let child = dir.read("waits").trim().parse().unwrap();
    // Its end and the end of its reports are seen in one turn.
    freeze(supervisor);
    dir.write("go", "");
    wait_until("it has ended", || !alive(child));
    kill(supervisor, "CONT");
    dir.wait_for("jobs: ended with exit status 3 after ");
    let jobs = dir.jobs_after(0);
    dir.wait_for(&format!("jobs: running (pid {jobs})"));
}

#[test]
fn the_first_start_tells_the_caller_what_went_wrong_and_is_not_given_up() {
    let Some(dir) = Supervised::of_services() else { return };
    dir.write("spool", "not a folder\n");
    let mut command = dir.command();
    for option in BLIND {
        command.args(["-o", option]);
    }
    command.args(["start", "supervisor"]);
    let ran = finish(command, None).expect(0);
    assert!(ran.err.contains("zigsvc: jobs: "), "{ran:?}");
    assert!(ran.err.contains("spool"), "{ran:?}");
    fs::remove_file(dir.path("spool")).unwrap();
    let jobs = dir.jobs_after(0);
    dir.wait_for(&format!("jobs: running (pid {jobs})"));
}

// ----- health --------------------------------------------------------------------

#[test]
fn one_that_hangs_is_told_to_end_at_the_third_look_and_one_that_recovers_is_not() {
    let Some(dir) = Supervised::of_services() else { return };
    let stale = if under_qemu() { "stale_after=4s" } else { "stale_after=1500ms" };
    let options = options(QUICK, &[stale, "check_interval=500ms"]);
    dir.start_supervisor(&options);
    let first = dir.lock_holder("zigsvc.pid").unwrap();
    freeze(first);
    dir.wait_for("[WARN] jobs: check 1 of 3 failed: heartbeat stale, ");
    kill(first, "CONT");
    dir.wait_for(&format!("[INFO] jobs: well again (pid {first}), heartbeat fresh"));
    // The count begins again, with a first failure.
    freeze(first);
    dir.wait_for_count("jobs: check 1 of 3 failed: ", 2);
    dir.wait_for("[ERROR] jobs: check 3 of 3 failed: heartbeat stale, ");
    dir.wait_for(&format!(" ms old; restarting it: SIGTERM to pid {first}"));
    let second = dir.jobs_after(first);
    // It went on to end as it should, since CONT follows TERM.
    dir.wait_for("jobs: ended with exit status 0 after ");
    dir.wait_for("; restart 1 now");
    dir.wait_for(&format!("jobs: running (pid {second})"));
    wait_for_log(&dir, "SIGTERM received, stopping");
    assert_eq!(dir.count("SIGKILL"), 0);
    dir.stays_silent("check ");
}

#[test]
fn an_end_that_was_ordered_is_not_told_as_a_death() {
    let Some(dir) = Supervised::of_services() else { return };
    let first = dir.start(QUICK);
    dir.start_supervisor(&options(QUICK, &["failures=1"]));
    dir.wait_for(&format!("jobs: runs already (pid {first}), adopted"));
    let ordered = ", ordered by this supervisor; restart ";
    // One that was adopted, of whose end nothing is known, and then a child.
    freeze(first);
    dir.write("zigsvc.health", "");
    let second = dir.jobs_after(first);
    dir.wait_for(&format!("jobs: running (pid {second})"));
    dir.wait_for("[WARN] jobs: ended, ordered by this supervisor; restart 1 now");
    assert_eq!(dir.count(ordered), 1, "{}", dir.read(LOG));
    freeze(second);
    dir.write("zigsvc.health", "");
    let third = dir.jobs_after(second);
    dir.wait_for(&format!("jobs: running (pid {third})"));
    dir.wait_for("[WARN] jobs: ended with exit status 0 after ");
    assert_eq!(dir.count(ordered), 2, "{}", dir.read(LOG));
    assert_eq!(dir.count("died"), 0, "{}", dir.read(LOG));
    // A service that ends by itself, or that another process ends, is none of these.
    kill_hard(third);
    let fourth = dir.jobs_after(third);
    dir.wait_for(&format!("jobs: running (pid {fourth})"));
    dir.wait_for("[WARN] jobs: killed by signal 9 after ");
    assert_eq!(dir.count(ordered), 2, "{}", dir.read(LOG));
}

#[test]
fn one_that_does_not_end_is_killed_after_stop_timeout() {
    let Some(dir) = Supervised::of_services() else { return };
    // jobs would wait for its job for a minute, the supervisor soon does not.
    dir.write("zigsvc.conf", "stop_timeout = \"60s\"\nhandler = \"shell\"\n");
    let supervisor = dir.start_supervisor(QUICK);
    let first = dir.lock_holder("zigsvc.pid").unwrap();
    dir.append("queue", STUBBORN);
    wait_for_log(&dir, ": deaf\n");
    dir.write("zigsvc.conf", "stop_timeout = \"300ms\"\nhandler = \"shell\"\n");
    kill(supervisor, "HUP");
    dir.wait_for("config: stop_timeout changed from \"1m\" to \"300ms\"");
    freeze(first);
    // A file that is no heartbeat is bad at once.
    dir.write("zigsvc.health", "");
    dir.wait_for(&format!("restarting it: SIGTERM to pid {first}"));
    dir.wait_for(&format!("[ERROR] jobs: has not ended: SIGKILL to pid {first}"));
    dir.wait_for("jobs: killed by signal 9 after ");
    let second = dir.jobs_after(first);
    // The job was not lost, and its first process is gone.
    wait_until("it runs again", || {
        crate::support::log_lines_matching(&dir.read("zigsvc.log"), " job 1: deaf") == 2
    });
    // A death between TERM and the end is a death as any other.
    dir.write("zigsvc.conf", "stop_timeout = \"60s\"\nhandler = \"shell\"\n");
    kill(supervisor, "HUP");
    dir.wait_for("config: stop_timeout changed from \"300ms\" to \"1m\"");
    kill(second, "HUP");
    wait_for_log(&dir, "config: stop_timeout changed");
    freeze(second);
    dir.write("zigsvc.health", "");
    dir.wait_for(&format!("restarting it: SIGTERM to pid {second}"));
    kill(second, "KILL");
    let third = dir.jobs_after(second);
    dir.wait_for(&format!("jobs: running (pid {third})"));
    // A second TERM has no patience.
    wait_until("it runs again", || {
        crate::support::log_lines_matching(&dir.read("zigsvc.log"), " job 1: deaf") == 3
    });
    kill(supervisor, "TERM");
    dir.wait_for("SIGTERM received, stopping");
    let before = dir.beats();
    wait_until("it waits", || dir.beats() >= before + 2);
    assert!(alive(third));
    let line = dir.status(supervisor);
    assert!(line.contains("state=stopping") && line.contains(&format!("jobs=ending:{third} ")), "{line}");
    kill(supervisor, "TERM");
    wait_until("all are gone", || !alive(supervisor) && !alive(third));
    dir.wait_for(&format!("jobs: has not ended: SIGKILL to pid {third}"));
    assert_eq!(dir.count("SIGTERM received, stopping"), 1);
}

#[test]
fn whatever_is_wrong_with_the_health_file_is_named_and_mended() {
    let Some(dir) = Supervised::of_services() else { return };
    let sleeper = Running::sleeper();
    let supervisor = dir.start_supervisor(&options(QUICK, &["failures=2"]));
    let mut jobs = dir.lock_holder("zigsvc.pid").unwrap();
    let file = dir.path("zigsvc.health");
    type Spoil = fn(&str, u32) -> Option<String>;
    let cases: [(&str, Spoil); 7] = [
        ("heartbeat missing", |_, _| None),
        ("heartbeat unreadable", |_, _| Some("\0garbage\n".to_owned())),
        ("heartbeat unreadable", |_, _| Some(String::new())),
        // Torn for ever.
        ("heartbeat unreadable", |text, _| Some(text.replacen("seq=", "seq=9", 1))),
        ("heartbeat from the future", |text, _| Some(text.replacen("boottime=", "boottime=9999999", 1))),
        ("heartbeat of other boot", |text, _| {
            let (before, rest) = text.split_once("boot=")?;
            Some(format!("{before}boot=01234567-89ab-cdef-0123-456789abcdef{}", rest.get(36..)?))
        }),
        ("heartbeat of other PID", |text, other| {
            let (before, rest) = text.split_once("pid=")?;
            Some(format!("{before}pid={other} {}", rest.split_once(' ')?.1))
        }),
    ];
    let only = format!(": {}; only its socket is checked", file.display());
    let spoil_it = |spoil: &Spoil| match spoil(&dir.read("zigsvc.health"), sleeper.pid()) {
        None => fs::remove_file(&file).unwrap(),
        Some(text) => {
            dir.write("spoilt", text);
            fs::rename(dir.path("spoilt"), &file).unwrap();
        }
    };
    // It is no evidence: a service that answers in time is left alone.
    for (what, spoil) in &cases {
        let lost = format!("[WARN] jobs: {what}{only}");
        let before = (dir.count(&lost), dir.count("jobs: well again (pid "));
        freeze(jobs);
        spoil_it(spoil);
        dir.wait_for_count(&lost, before.0 + 1);
        assert!(dir.status(supervisor).ends_with(" degraded=heartbeats"));
        kill(jobs, "CONT");
        dir.wait_for_count("jobs: well again (pid ", before.1 + 1);
        assert_eq!(dir.lock_holder("zigsvc.pid"), Some(jobs), "{what}");
    }
    assert!(dir.status(supervisor).contains(" restarts=0 "));
    // One whose socket does not answer either hangs.
    for (index, (_, spoil)) in [&cases[0], &cases[6]].into_iter().enumerate() {
        freeze(jobs);
        spoil_it(spoil);
        for number in [1, 2] {
            let text = format!("jobs: check {number} of 2 failed: no heartbeat, and no answer of its socket");
            dir.wait_for_count(&text, index + 1);
        }
        let next = dir.jobs_after(jobs);
        dir.wait_for(&format!("jobs: running (pid {next})"));
        dir.wait_for(&format!("; restart {} ", index + 1));
        assert!(!alive(jobs));
        jobs = next;
    }
    // Neither a folder nor a FIFO in its place can be replaced, or blocks the supervisor.
    for kind in ["folder", "FIFO"] {
        freeze(jobs);
        fs::remove_file(&file).unwrap();
        let before = dir.count("jobs: heartbeat unreadable");
        if kind == "FIFO" {
            rustix::fs::mknodat(CWD, file.to_str().unwrap(), FileType::Fifo, Mode::from_raw_mode(0o600), 0)
                .unwrap();
        } else {
            fs::create_dir(&file).unwrap();
        }
        dir.wait_for_count("jobs: heartbeat unreadable", before + 1);
        kill(jobs, "CONT");
        dir.stays_silent("check ");
        let _ = fs::remove_dir(&file);
        let _ = fs::remove_file(&file);
        wait_until("it is judged again", || dir.status(supervisor).ends_with(" degraded=none"));
        assert_eq!(dir.lock_holder("zigsvc.pid"), Some(jobs), "{kind}");
    }
    wait_until("a heartbeat comes", || {
        let holder = dir.lock_holder("zigsvc.pid");
        holder.is_some_and(|pid| dir.read("zigsvc.health").contains(&format!(" pid={pid} ")))
    });
    dir.stays_silent("check ");
    assert!(alive(sleeper.pid()));
    let line = dir.status(supervisor);
    assert!(line.contains(" jobs=running:"), "{line}");
}

#[test]
fn a_crash_loop_keeps_the_log_within_its_bounds() {
    let dir = Supervised::new();
    // A program that never shows that it lives is ended by the first look.
    let more = ["failures=1", "log_max=1500", "log_keep=2", "stale_after=100ms"];
    let words = ["--health", "/no/health", "--", "sleep", "600"];
    let _running = Running::new(run_command(&dir, &options(QUICK, &more), &words));
    let supervisor = dir.pid();
    let restarts = |line: &str| -> u32 {
        line.split_once(" restarts=").unwrap().1.split(' ').next().unwrap().parse().unwrap()
    };
    let last_status = || {
        let files = [LOG.to_owned(), format!("{LOG}.1")].map(|name| dir.read(&name));
        files.iter().find_map(|text| Some(restarts(text.lines().rfind(|line| line.contains(" restarts="))?)))
    };
    let mut largest = 0;
    wait_until("many restarts", || {
        let names = ["", ".1", ".2", ".3"].map(|suffix| dir.path(&format!("{LOG}{suffix}")));
        let sizes = names.map(|path| fs::metadata(path).map_or(0, |meta| meta.len()));
        largest = sizes.iter().sum::<u64>().max(largest);
        assert!(sizes.iter().all(|size| *size <= 1500) && sizes[3] == 0, "{sizes:?}");
        kill(supervisor, "USR2");
        last_status().is_some_and(|restarts| restarts >= 12)
    });
    assert!(largest > 3000, "{largest}");
}

// ----- whom it signals --------------------------------------------------------------

#[test]
fn a_pid_file_that_names_another_process_gets_it_no_signal() {
    if !crate::support::require_self_exec() {
        return;
    }
    let mut sleeper = Running::sleeper();
    let other = format!("{}\n", sleeper.pid());
    let dir = Supervised::new();
    dir.write("zigsvc.pid", &other);
    let supervisor = dir.start_supervisor(&options(QUICK, &["failures=1"]));
    let first = dir.lock_holder("zigsvc.pid").unwrap();
    assert_eq!(parent_of(first), Some(supervisor), "it is started, not adopted");
    // Our child, then one that was adopted: each gets TERM, and the other process does not.
    dir.write("zigsvc.pid", &other);
    freeze(first);
    dir.write("zigsvc.health", "");
    let second = dir.jobs_after(first);
    dir.wait_for(&format!("jobs: running (pid {second})"));
    kill_hard(supervisor);
    dir.write("zigsvc.pid", &other);
    let next = dir.start_supervisor(&options(QUICK, &["failures=1"]));
    dir.wait_for(&format!("jobs: runs already (pid {second}), adopted"));
    freeze(second);
    dir.write("zigsvc.health", "");
    dir.wait_for(&format!("restarting it: SIGTERM to pid {second}"));
    let third = dir.jobs_after(second);
    dir.wait_for(&format!("jobs: running (pid {third})"));
    assert!(!alive(second));
    // Without its PID file no other process knows it, but it is looked after.
    fs::remove_file(dir.path("zigsvc.pid")).unwrap();
    freeze(third);
    dir.write("zigsvc.health", "");
    let fourth = dir.jobs_after(third);
    dir.wait_for(&format!("jobs: running (pid {fourth})"));
    dir.write("zigsvc.pid", &other);
    kill(next, "TERM");
    wait_until("all are gone", || !alive(next) && !alive(fourth));
    assert!(sleeper.runs());
}

#[test]
fn what_is_stopped_on_purpose_stays_so_until_it_is_started() {
    let Some(dir) = Supervised::of_services() else { return };
    dir.write("zigsvc.conf", "stop_timeout = \"60s\"\nhandler = \"shell\"\n");
    let supervisor = dir.start_supervisor(QUICK);
    let stopped = "[INFO] jobs: was stopped on purpose, and stays so until it is started";
    for (number, command) in [&["stop"][..], &["drain", "--wait"]].iter().enumerate() {
        dir.zigsvc(command).expect(0);
        dir.wait_for_count(stopped, number + 1);
        dir.stays_silent("jobs: ");
        assert_eq!(dir.lock_holder("zigsvc.pid"), None);
        let line = dir.status(supervisor);
        assert!(
            line.ends_with(" restarts=0 reloads=0 reload_errors=0 jobs=stopped:0 degraded=none"),
            "{line}"
        );
        let jobs = dir.start(QUICK);
        dir.wait_for(&format!("jobs: runs already (pid {jobs}), adopted"));
    }
    // One that was started by hand and died before it was looked at, died.
    dir.zigsvc(&["stop"]).expect(0);
    dir.wait_for_count(stopped, 3);
    freeze(supervisor);
    let killed = dir.start(QUICK);
    kill_hard(killed);
    kill(supervisor, "CONT");
    // Under QEMU its lock outlives it for a moment.
    let jobs = dir.jobs_after(killed);
    dir.wait_for(&format!("jobs: running (pid {jobs})"));
    // A stop that has to kill is a stop.
    dir.append("queue", STUBBORN);
    wait_for_log(&dir, ": deaf\n");
    let ran = dir.zigsvc(&["-o", "stop_timeout=1ms", "stop"]).expect(0);
    assert_eq!(ran.out, "zigsvc: jobs killed\n");
    dir.wait_for_count(stopped, 4);
    dir.stays_silent("jobs: ");
    assert_eq!(dir.lock_holder("zigsvc.pid"), None);
}

// ----- signals to it ------------------------------------------------------------------

#[test]
fn hup_takes_a_new_configuration_whole_or_not_at_all() {
    let Some(dir) = Supervised::of_services() else { return };
    let config = |text: &str| dir.write("zigsvc.conf", format!("interval = \"100ms\"\nlog_max = 0\n{text}"));
    config("supervise = []\ncheck_interval = \"1h\"\n");
    let supervisor = dir.start_supervisor(&[]);
    assert_eq!(dir.lock_holder("zigsvc.pid"), None);
    let line = dir.status(supervisor);
    assert!(line.ends_with(" restarts=0 reloads=0 reload_errors=0 degraded=none"), "{line}");
    let reload = |text: &str, said: &str| {
        let before = dir.count(said);
        config(text);
        kill(supervisor, "HUP");
        dir.wait_for_count(said, before + 1);
    };
    reload(
        "supervise = [\"jobs\"]\ncheck_interval = \"1h\"\n",
        "config: supervise changed from [] to [\"jobs\"]",
    );
    let jobs = dir.jobs_after(0);
    dir.wait_for(&format!("jobs: running (pid {jobs})"));
    // A new interval holds at once, not when the old one has ended.
    freeze(jobs);
    dir.write("zigsvc.health", "");
    reload(
        "check_interval = \"100ms\"\nfailures = 100\nstale_after = \"1h\"\n",
        "config: failures changed from 3 to 100",
    );
    dir.wait_for("jobs: check 1 of 100 failed: ");
    // A bad one changes nothing.
    reload("failures = 0\n", "[ERROR] config not reloaded, the old one stays: ");
    dir.stays_silent("check ");
    let line = dir.status(supervisor);
    assert!(line.contains(" reloads=2 reload_errors=1 "), "{line}");
    reload(
        "check_interval = \"100ms\"\nfailures = 2\nstale_after = \"1h\"\n",
        "config: failures changed from 100 to 2",
    );
    dir.wait_for("jobs: check 2 of 2 failed: ");
    let next = dir.jobs_after(jobs);
    dir.wait_for(&format!("jobs: running (pid {next})"));
    // No longer its own: left as it is, dead or alive.
    reload(
        "supervise = []\ncheck_interval = \"100ms\"\n",
        "[INFO] jobs: no longer supervised, and left as it is",
    );
    assert!(alive(next));
    // And taken back.
    reload("check_interval = \"100ms\"\n", &format!("jobs: runs already (pid {next}), adopted"));
    kill_hard(next);
    let last = dir.jobs_after(next);
    dir.wait_for(&format!("jobs: running (pid {last})"));
    // USR1 rotates, a small log_max does by itself.
    kill(supervisor, "USR1");
    wait_until("it has rotated", || dir.path(&format!("{LOG}.1")).exists());
    dir.write("zigsvc.conf", "interval = \"100ms\"\nlog_max = 300\n");
    kill(supervisor, "HUP");
    dir.wait_for("config: log_max changed from \"0\" to \"300\"");
    wait_until("the log is short", || {
        kill(supervisor, "USR2");
        let size = fs::metadata(dir.path(LOG)).map_or(0, |meta| meta.len());
        size > 0 && size <= 300 && dir.read(&format!("{LOG}.1")).contains("status: ")
    });
}

#[test]
fn the_commands_for_services_are_for_it_too() {
    let Some(dir) = Supervised::of_services() else { return };
    let before = dir.start_supervisor(BLIND);
    let jobs = dir.lock_holder("zigsvc.pid").unwrap();
    dir.zigsvc(&["reload", "supervisor"]).expect(0);
    dir.wait_for("SIGHUP received, reloading config");
    dir.zigsvc(&["rotate", "supervisor"]).expect(0);
    wait_until("it has rotated", || dir.path(&format!("{LOG}.1")).exists());
    dir.zigsvc(&["restart", "supervisor"]).expect(0);
    assert!(!alive(before) && !alive(jobs));
    let after = dir.lock_holder("zigsvc-supervisor.pid").unwrap();
    assert_eq!(parent_of(dir.lock_holder("zigsvc.pid").unwrap()), Some(after));
    // A configuration that cannot be used leaves all as it is.
    dir.write("zigsvc.conf", "workers = 9\n");
    dir.zigsvc(&["restart", "supervisor"]).expect(6);
    assert_eq!(dir.lock_holder("zigsvc-supervisor.pid"), Some(after));
    dir.zigsvc(&["stop", "supervisor"]).expect(0);
}

#[test]
fn in_the_foreground_it_logs_to_stderr_and_its_services_to_their_files() {
    let Some(dir) = Supervised::of_services() else { return };
    let mut command = run_command(&dir, &options(BLIND, &["log_time=none"]), &[]);
    command.stderr(fs::File::create(dir.path("stderr")).unwrap());
    let mut running = Running::new(command);
    wait_until("jobs runs", || dir.read("stderr").contains("jobs: running (pid "));
    let jobs = dir.lock_holder("zigsvc.pid").unwrap();
    wait_for_log(&dir, &format!("daemon started, pid={jobs}"));
    kill(dir.lock_holder("zigsvc-supervisor.pid").unwrap(), "INT");
    assert_eq!(running.code(), 0);
    assert!(!alive(jobs));
    let log = dir.read("stderr");
    assert!(log.starts_with("[INFO] daemon started, pid="), "{log}");
    assert!(log.ends_with("[INFO] daemon stopped, after 0 restarts\n"), "{log}");
    assert!(!dir.path(LOG).exists());
}

// ----- the command line, and what it costs -------------------------------------------------

#[test]
fn what_the_command_line_must_not_say() {
    let dir = Supervised::new();
    for (words, what) in [
        (&["run", "--", "x"][..], "only `supervisor` runs a program"),
        (&["run", "jobs", "--", "x"], "only `supervisor` runs a program"),
        (&["start", "--", "x"], "only `supervisor` runs a program"),
        (&["run", "supervisor", "--"], "missing argument"),
        (&["start", "supervisor", "--"], "missing argument"),
        (&["run", "supervisor", "x"], "unexpected argument"),
        (&["run", "--health", "f", "supervisor"], "--health is for supervisor -- CMD"),
        (&["run", "--health", "f"], "--health is for supervisor -- CMD"),
        (&["start", "supervisor", "--health"], "--health needs a value"),
        (&["run", "supervisor", "--health", "", "--", "x"], "--health: a path"),
        (&["start", "--child", "/"], "--child is for the supervisor"),
        (&["run", "--child", "/"], "unknown option"),
        (&["start", "nonsense"], "unknown service"),
    ] {
        let ran = dir.zigsvc(words).expect(2);
        assert!(ran.err.starts_with("zigsvc: usage: ") && ran.err.contains(what), "{words:?} {ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
    }
    assert!(!dir.path("zigsvc-supervisor.pid").exists());
    assert!(!dir.path("zigsvc.pid").exists());
}

#[test]
fn any_number_of_options_reaches_its_services() {
    let Some(dir) = Supervised::of_services() else { return };
    let mut command = crate::support::zigsvc();
    for _ in 0..70 {
        command.arg("-d").arg(dir.path(""));
    }
    for number in 0..40 {
        command.args(["-o", &format!("retries={number}")]);
    }
    command.args(["start", "supervisor"]);
    let ran = finish(command, None);
    // Either works, or is refused at once: but no supervisor without service.
    assert!(matches!(ran.code, 0 | 2), "{ran:?}");
    assert_eq!(dir.lock_holder("zigsvc.pid").is_some(), ran.code == 0, "{ran:?}");
}

#[test]
fn it_wakes_for_its_heartbeat_and_its_looks_only() {
    let traces = || {
        let status = program("strace").args(["-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if !crate::support::require_native("strace would show QEMU's system calls")
        || !crate::support::require_tool("strace")
        || !crate::support::require(traces(), "strace is not permitted here")
    {
        return;
    }
    let dir = Supervised::new();
    let _measuring = crate::support::measuring();
    let pid = dir.start_supervisor(&["interval=300ms", "check_interval=600ms"]);
    let mut strace = program("strace");
    strace.arg("-o").arg(dir.path("trace")).args(["-p", &pid.to_string()]).stderr(Stdio::null());
    let mut strace = Running::new(strace);
    wait_until("strace is attached", || proc_status(pid, "TracerPid") != "0");
    let first = dir.beats();
    wait_until("ten heartbeats", || dir.beats() >= first + 10);
    let beats = usize::try_from(dir.beats() - first).unwrap();
    kill(strace.pid(), "INT");
    wait_until("strace is gone", || !strace.runs());
    let calls: Vec<_> = dir.read("trace").lines().map(str::to_owned).collect();
    let polls = calls.iter().filter(|call| call.contains("poll(")).count();
    assert!(polls <= 2 * beats + 4, "{polls} wake-ups in {beats} intervals: {calls:#?}");
    // A heartbeat: its name, its record; a look: the health file.
    assert!(calls.len() <= 11 * (beats + 3), "{} calls in {beats} intervals: {calls:#?}", calls.len());
    for call in ["brk(", "mmap(", "fork(", "clone("] {
        assert!(!calls.iter().any(|line| line.starts_with(call)), "{call} {calls:#?}");
    }
}
