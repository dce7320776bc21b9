//! Stops and restarts: the mark of a stop on purpose, two stops at once, options that are kept,
//! and commands from within a job.

use crate::support::control::Client;
use crate::support::random::Random;
use crate::support::supervisor::{LOG, QUICK, Supervised, binary, parent_of};
use crate::support::{
    Dir, HANDLER_LOG, Running, alive, finish, is_root, kill, kill_hard, lock_holder, process_state, program,
    require, require_native, require_root, require_tool, setting, through, wait_for_log, wait_until, zigsvc,
};
use std::fs;
use std::path::Path;
use std::process::Stdio;

/// A job that takes its time to end at TERM, and shows that it could.
const SLOW_END: &str =
    "trap 'sleep 0.7; echo ended in order; exit 0' TERM; echo runs; while :; do sleep 0.1; done\n";

/// The options with which jobs are commands.
const SHELL: &[&str] = &["handler=shell", "interval=100ms"];

/// Returns the text of the boot id.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned()
}

/// Returns the PID of the service `jobs`, waiting until another process than `before` is it.
fn jobs_after(dir: &Dir, before: u32) -> u32 {
    let mut pid = before;
    wait_until("another process is the service", || {
        pid = dir.lock_holder("zigsvc.pid").unwrap_or(before);
        pid != before
    });
    pid
}

// ----- on purpose ------------------------------------------------------------------

#[test]
fn a_stop_leaves_the_mark_of_this_boot_and_a_start_takes_it_away() {
    if !require_native("the boot id is in /proc") {
        return;
    }
    let dir = Dir::new();
    for service in ["jobs", "hub", "collector", "opener"] {
        let mark =
            if service == "jobs" { "zigsvc.down".to_owned() } else { format!("zigsvc-{service}.down") };
        dir.start_service(service, &[]);
        assert!(!dir.path(&mark).exists());
        dir.zigsvc(&["stop", service]).expect(0);
        assert_eq!(dir.read(&mark).trim_end(), boot_id());
        dir.start_service(service, &[]);
        assert!(!dir.path(&mark).exists(), "{service}");
        dir.zigsvc(&["restart", service]).expect(0);
        assert!(!dir.path(&mark).exists(), "{service}");
        // A process of another program is no stop on purpose.
        kill(dir.lock_holder(&mark.replace("down", "pid")).unwrap(), "TERM");
        wait_until("it has ended", || dir.lock_holder(&mark.replace("down", "pid")).is_none());
        assert!(!dir.path(&mark).exists(), "{service}");
    }
    dir.start(&[]);
    dir.zigsvc(&["drain"]).expect(0);
    wait_until("it has ended", || dir.lock_holder("zigsvc.pid").is_none());
    assert_eq!(dir.read("zigsvc.down").trim_end(), boot_id());
}

#[test]
fn a_strangers_signal_is_a_death_and_only_the_mark_is_a_stop() {
    let Some(dir) = Supervised::of_services() else { return };
    dir.start_supervisor(QUICK);
    let first = dir.lock_holder("zigsvc.pid").unwrap();
    kill(first, "TERM");
    let second = dir.jobs_after(first);
    // Not even an emptied PID file makes it one on purpose.
    fs::write(dir.path("zigsvc.pid"), "").unwrap();
    kill(second, "TERM");
    let third = dir.jobs_after(second);
    dir.wait_for(&format!("jobs: running (pid {third})"));
    dir.zigsvc(&["stop"]).expect(0);
    dir.wait_for("jobs: was stopped on purpose");
    // Nor does a mark of another boot.
    dir.write("zigsvc.down", "00000000-1111-2222-3333-444444444444\n");
    dir.jobs_after(third);
}

#[test]
fn a_service_that_fails_at_each_start_is_stopped_by_the_mark() {
    let Some(dir) = Supervised::of_services() else { return };
    dir.start_supervisor(QUICK);
    let jobs = dir.lock_holder("zigsvc.pid").unwrap();
    dir.zigsvc(&["stop"]).expect(0);
    dir.wait_for("jobs: was stopped on purpose");
    // It starts no more, because its spool is no folder.
    fs::rename(dir.path("spool"), dir.path("spool.away")).unwrap();
    dir.write("spool", "in the way");
    fs::remove_file(dir.path("zigsvc.down")).unwrap();
    dir.wait_for("; restart 3 in ");
    assert_eq!(dir.zigsvc(&["stop"]).expect(0).out, "zigsvc: jobs was not running\n");
    dir.wait_for_count("jobs: was stopped on purpose", 2);
    fs::remove_file(dir.path("spool")).unwrap();
    fs::rename(dir.path("spool.away"), dir.path("spool")).unwrap();
    dir.zigsvc(&["start"]).expect(0);
    assert_ne!(dir.lock_holder("zigsvc.pid"), Some(jobs));
}

#[test]
fn a_stop_that_neither_a_mark_nor_the_supervisor_keeps_says_that_the_service_is_started_again() {
    let Some(dir) = Supervised::of_services() else { return };
    dir.start_supervisor(QUICK);
    let jobs = dir.lock_holder("zigsvc.pid").unwrap();
    fs::create_dir(dir.path("zigsvc.down")).unwrap();
    // With the socket of the supervisor the stop is kept: supervisor/control.rs.
    fs::remove_file(dir.path("zigsvc-supervisor.sock")).unwrap();
    fs::create_dir(dir.path("zigsvc-supervisor.sock")).unwrap();
    let ran = dir.zigsvc(&["stop"]).expect(1);
    assert!(ran.err.contains("its supervisor will start it again"), "{ran:?}");
    dir.jobs_after(jobs);
    fs::remove_dir(dir.path("zigsvc.down")).unwrap();
    fs::remove_dir(dir.path("zigsvc-supervisor.sock")).unwrap();
}

// ----- twice -----------------------------------------------------------------------

#[test]
fn two_stops_at_once_are_one_and_now_is_the_second() {
    let Some(dir) = Supervised::of_services() else { return };
    dir.start_supervisor(&[QUICK, SHELL].concat());
    dir.append("queue", SLOW_END);
    wait_for_log(&dir, ": runs\n");
    let stop = |service: &str| {
        let mut command = dir.command();
        command.args(["stop", service]);
        Running::new(command)
    };
    // A stop of the service beside stops of its supervisor.
    let mut stops: Vec<_> = ["jobs", "supervisor", "jobs", "supervisor"].map(stop).into_iter().collect();
    for stop in &mut stops {
        assert_eq!(stop.code(), 0);
    }
    assert!(dir.read("zigsvc.log").contains(": ended in order\n"), "{}", dir.logs());
    assert!(dir.lock_holder("zigsvc.pid").is_none() && dir.lock_holder("zigsvc-supervisor.pid").is_none());
    // A stop while it is stopping already, and then one that does not wait.
    let patient = Dir::new();
    patient.start(&[SHELL, &["stop_timeout=60s"]].concat());
    patient.append("queue", "trap '' TERM; echo runs; while :; do sleep 0.1; done\n");
    wait_for_log(&patient, ": runs\n");
    let mut command = patient.command();
    command.arg("stop");
    let mut first = Running::new(command);
    wait_for_log(&patient, ", stopping\n");
    let mut command = patient.command();
    command.arg("stop");
    let mut second = Running::new(command);
    assert!(first.runs() && second.runs());
    patient.zigsvc(&["stop", "--now"]).expect(0);
    assert_eq!((first.code(), second.code()), (0, 0));
    assert_eq!(patient.read("zigsvc.log").matches(", stopping\n").count(), 1);
}

#[test]
fn a_restart_below_a_supervisor_does_not_wait_for_what_another_command_stops() {
    let Some(dir) = Supervised::of_services() else { return };
    dir.start_supervisor(&[QUICK, SHELL].concat());
    dir.append("queue", SLOW_END);
    wait_for_log(&dir, ": runs\n");
    let mut command = dir.command();
    command.arg("restart");
    let restart = std::thread::spawn(|| finish(command, None));
    wait_for_log(&dir, ", stopping\n");
    dir.zigsvc(&["stop"]).expect(0);
    let ran = restart.join().unwrap();
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.err.contains("zigsvc: jobs: another command has stopped it meanwhile"), "{ran:?}");
}

// ----- options kept ----------------------------------------------------------------

#[test]
fn a_restart_keeps_the_options_and_puts_new_ones_on_top() {
    let dir = Dir::new();
    let conf = dir.path("other.conf").display().to_string();
    dir.write("other.conf", "retries = 7\n");
    let mut command = dir.command();
    command.args(["-c", &conf, "-o", "handler=shell", "-o", "log_file=a b.log", "start"]);
    command.current_dir(dir.path(""));
    finish(command, None).expect(0);
    let expected =
        format!("\"options\":[\"-c\",\"{conf}\",\"-d\",\"{0}\",\"-o\",\"handler=shell\"", dir.as_arg());
    let status = || dir.zigsvc(&["status", "--json"]).expect(0).out;
    assert!(status().contains(&expected), "{}", status());
    // For monitors the file begins as before: the time, then the record.
    let health = dir.read("zigsvc.health");
    assert!(health.lines().next().unwrap().parse::<u64>().is_ok());
    assert!(health.lines().nth(1).unwrap().starts_with("seq="));
    assert_eq!(health.find("\n-c\n"), Some(191));
    for _ in 0..2 {
        dir.zigsvc(&["restart"]).expect(0);
        assert!(status().contains(&format!("{expected},\"-o\",\"log_file={}/a b.log\"]", dir.as_arg())));
    }
    dir.zigsvc(&["-o", "handler=log", "-o", "workers=3", "restart"]).expect(0);
    let status = status();
    assert!(status.contains("\"-o\",\"handler=log\",\"-o\",\"workers=3\"]"), "{status}");
    assert!(!status.contains("handler=shell") && status.contains(&conf), "{status}");
    let screen = dir.zigsvc(&["status"]).expect(0).out;
    assert!(screen.contains(&format!("\n  options    -c {conf} -d ")), "{screen}");
    // One that died keeps them too, one that was stopped does not.
    kill_hard(dir.lock_holder("zigsvc.pid").unwrap());
    dir.zigsvc(&["restart"]).expect(0);
    assert!(dir.read("zigsvc.health").contains("\nworkers=3\n"));
    dir.zigsvc(&["stop"]).expect(0);
    dir.zigsvc(&["restart"]).expect(0);
    assert!(!dir.read("zigsvc.health").contains("\nworkers=3\n"));
}

#[test]
fn without_a_health_file_the_command_line_tells_the_options_or_they_must_be_given() {
    if !require_native("/proc shows QEMU's own arguments") {
        return;
    }
    let dir = Dir::new();
    dir.start(&["workers=3"]);
    fs::remove_file(dir.path("zigsvc.health")).unwrap();
    fs::create_dir(dir.path("zigsvc.health")).unwrap();
    dir.zigsvc(&["restart"]).expect(0);
    let cmdline = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    let pid = dir.lock_holder("zigsvc.pid").unwrap();
    assert!(cmdline(pid).contains("\0-o\0workers=3\0"));
    dir.zigsvc(&["stop"]).expect(0);
    // A relative path means nothing to another process.
    let mut command = dir.command();
    command.args(["-o", "log_file=own.log", "start"]).current_dir(dir.path(""));
    finish(command, None).expect(0);
    let pid = dir.lock_holder("zigsvc.pid").unwrap();
    let mut command = zigsvc();
    command.env("ZIGSVC_DIR", dir.path("")).env_remove("HOME").arg("restart");
    let ran = finish(command, None);
    // The folder was given, so it is not a restart without options.
    assert_eq!((ran.code, dir.lock_holder("zigsvc.pid") == Some(pid)), (0, false), "{ran:?}");
}

#[test]
fn a_supervised_service_is_restarted_by_its_supervisor_and_keeps_its_options() {
    let Some(dir) = Supervised::of_services() else { return };
    let supervisor = dir.start_supervisor(&[QUICK, &["retries=9"]].concat());
    let first = dir.lock_holder("zigsvc.pid").unwrap();
    let ran = dir.zigsvc(&["restart"]).expect(0);
    let second = dir.lock_holder("zigsvc.pid").unwrap();
    assert_eq!(ran.out, format!("zigsvc: jobs started (pid {second})\n{HANDLER_LOG}"));
    assert_ne!(first, second);
    assert_eq!(parent_of(second), Some(supervisor), "it stays the supervisor's child");
    assert!(dir.read("zigsvc.health").contains("\nretries=9\n"));
    // With options of its own it is started apart, and adopted.
    dir.zigsvc(&["-o", "retries=8", "restart"]).expect(0);
    assert!(dir.read("zigsvc.health").contains("\nretries=8\n"));
    let third = dir.lock_holder("zigsvc.pid").unwrap();
    dir.wait_for(&format!("jobs: runs already (pid {third}), adopted"));
    assert_eq!(dir.zigsvc(&["restart"]).expect(0).code, 0);
    assert!(dir.read("zigsvc.health").contains("\nretries=8\n"), "not those of the supervisor");
    let fourth = dir.lock_holder("zigsvc.pid").unwrap();
    dir.wait_for(&format!("jobs: runs already (pid {fourth}), adopted"));
    // The supervisor's own options go to its services again.
    dir.zigsvc(&["restart", "supervisor"]).expect(0);
    assert!(dir.read("zigsvc-supervisor.health").contains("\nretries=9\n"));
    assert!(dir.read("zigsvc.health").contains("\nretries=9\n"));
}

#[test]
fn a_restart_survives_the_end_of_its_terminal_and_its_group() {
    let dir = Dir::new();
    let first = dir.start(&[SHELL, &["stop_timeout=30s"]].concat());
    dir.append("queue", SLOW_END);
    wait_for_log(&dir, ": runs\n");
    let mut command = program("setsid");
    command.arg(binary()).args(["-d", dir.as_arg(), "restart"]);
    let mut restart = Running::new(command);
    wait_for_log(&dir, ", stopping\n");
    for signal in ["HUP", "INT", "TERM"] {
        let mut command = program("kill");
        command.args([&format!("-{signal}"), "--", &format!("-{}", restart.pid())]);
        finish(command, None);
    }
    wait_until("the command has ended", || !restart.runs());
    let second = jobs_after(&dir, first);
    wait_for_log(&dir, &format!("daemon started, pid={second}\n"));
    assert!(dir.read("zigsvc.log").contains(": ended in order\n"));
}

// ----- from within a job -----------------------------------------------------------

/// Returns a job that runs `zigsvc ARGS` of this service, and notes its output and status.
fn inside(dir: &Dir, args: &str) -> String {
    format!(
        "{} -d {1} {args} >>{1}/inside 2>&1; echo status $? >>{1}/inside",
        binary().display(),
        dir.as_arg()
    )
}

#[test]
fn a_stop_from_within_a_job_waits_for_the_job_which_is_done() {
    let dir = Dir::new();
    dir.start(SHELL);
    let mut client = Client::new(&dir);
    let id = client.queue(&format!("{}; sleep 0.3; exit 3", inside(&dir, "stop")));
    wait_until("it has ended", || dir.lock_holder("zigsvc.pid").is_none());
    assert_eq!(dir.read("inside"), format!("zigsvc: jobs stops after job {id}\nstatus 0\n"));
    dir.start(SHELL);
    let mut client = Client::new(&dir);
    assert_eq!(client.ask_list("list"), Vec::<String>::new(), "it is done, whatever its status");
    // One that does not end has five seconds, and is done too.
    let id = client.queue(&format!("{}; exec sleep 600", inside(&dir, "stop")));
    let waiting = client.queue("echo later");
    wait_until("it has ended", || dir.lock_holder("zigsvc.pid").is_none());
    dir.start(&["handler=log", "take=all"]);
    wait_for_log(&dir, "processing job: echo later\n");
    assert!(waiting > id && dir.read("inside").matches("status 0\n").count() == 2);
}

#[test]
fn a_restart_from_within_a_job_keeps_the_process_and_its_options() {
    let dir = Dir::new();
    let pid = dir.start(&[SHELL, &["retries=5"]].concat());
    let mut client = Client::new(&dir);
    let id = client.queue(&inside(&dir, "restart"));
    client.queue(&format!("echo after >>{}/inside", dir.as_arg()));
    wait_until("the later job has run", || dir.read("inside").ends_with("after\n"));
    assert_eq!(dir.read("inside"), format!("zigsvc: jobs stops after job {id}\nstatus 0\nafter\n"));
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(pid), "the same process");
    assert_eq!(dir.read("zigsvc.log").matches(&format!("daemon started, pid={pid}\n")).count(), 2);
    assert!(dir.read("zigsvc.health").contains("\nretries=5\n"));
    // A job of an earlier run is outside.
    let mut client = Client::new(&dir);
    client.queue(&format!("setsid sh -c 'sleep 0.3; {}' >/dev/null 2>&1 &", inside(&dir, "restart")));
    let next = jobs_after(&dir, pid);
    wait_for_log(&dir, &format!("daemon started, pid={next}\n"));
    dir.zigsvc(&["status"]).expect(0);
}

#[test]
fn a_restart_from_within_a_job_with_other_options_is_refused_and_changes_nothing() {
    let dir = Dir::new();
    let pid = dir.start(&[SHELL, &["retries=5"]].concat());
    let mut client = Client::new(&dir);
    for options in ["-o retries=6", "-o workers=2 -o retries=5", "-c /nonexistent"] {
        client.queue(&inside(&dir, &format!("{options} restart")));
        wait_until("it has ended", || dir.read("inside").contains("status "));
        let said = dir.read("inside");
        let status = if options.starts_with("-c") { "status 6\n" } else { "status 1\n" };
        assert!(said.ends_with(status) && said.lines().count() == 2, "{options}: {said}");
        assert!(options.starts_with("-c") || said.contains("keeps its options"), "{options}: {said}");
        fs::remove_file(dir.path("inside")).unwrap();
    }
    assert_eq!(dir.read("zigsvc.log").matches("daemon started, pid=").count(), 1);
    // Options that the service has already change nothing.
    let id = client.queue(&inside(&dir, "-o retries=5 restart"));
    wait_until("it was started again", || dir.read("zigsvc.log").matches("daemon started, ").count() == 2);
    assert_eq!(dir.read("inside"), format!("zigsvc: jobs stops after job {id}\nstatus 0\n"));
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(pid));
}

/// Checks that each of them succeeds: a restart stops what another command has started meanwhile.
#[test]
fn restarts_that_race_starts_and_each_other_all_succeed() {
    let dir = Dir::new();
    for round in 0..12 {
        let commands = [["restart"], if round % 2 == 0 { ["start"] } else { ["restart"] }];
        let both = commands.map(|words| {
            let mut command = dir.command();
            command.args(words);
            (words, std::thread::spawn(|| finish(command, None)))
        });
        for (words, command) in both {
            let ran = command.join().unwrap();
            assert!(words == ["start"] || ran.code == 0, "round {round}: {words:?}: {ran:?}");
        }
        dir.zigsvc(&["status"]).expect(0);
    }
}

#[test]
fn a_restart_from_within_a_job_below_a_supervisor_leaves_the_start_to_it() {
    let Some(dir) = Supervised::of_services() else { return };
    let supervisor = dir.start_supervisor(&[QUICK, SHELL].concat());
    let first = dir.lock_holder("zigsvc.pid").unwrap();
    dir.append("queue", &format!("{}\n", inside(&dir, "restart")));
    let second = dir.jobs_after(first);
    assert_eq!(parent_of(second), Some(supervisor));
    dir.wait_for(&format!("jobs: running (pid {second})"));
    dir.append("queue", &format!("{}\n", inside(&dir, "stop")));
    dir.wait_for("jobs: was stopped on purpose");
    assert_eq!(dir.read("inside").matches("status 0\n").count(), 2);
}

#[test]
fn a_job_does_not_wait_for_itself() {
    let dir = Dir::new();
    dir.start(SHELL);
    let mut client = Client::new(&dir);
    client.queue(&inside(&dir, "queue --wait true"));
    wait_until("it has ended", || dir.read("inside").contains("status "));
    assert_eq!(dir.read("inside"), "zigsvc: queue: would wait for itself\nstatus 125\n");
    dir.zigsvc(&["-o", "workers=2", "restart"]).expect(0);
    fs::remove_file(dir.path("inside")).unwrap();
    let mut client = Client::new(&dir);
    client.queue(&inside(&dir, "queue --wait 'exit 6'"));
    wait_until("it has ended", || dir.read("inside").ends_with("status 6\n"));
    fs::remove_file(dir.path("inside")).unwrap();
    client.queue(&inside(&dir, "drain --wait"));
    wait_until("it has ended", || dir.lock_holder("zigsvc.pid").is_none());
    assert_eq!(dir.read("inside"), "zigsvc: jobs draining\nstatus 0\n");
}

/// Covers a job that stops the service in a way that its token does not show. It was given back,
/// and stopped the service at each start.
#[test]
fn a_job_that_stops_its_service_as_a_stranger_does_so_only_as_often_as_it_has_attempts() {
    let dir = Dir::new();
    let options = [SHELL, &["retries=1"]].concat();
    let is_up = || dir.lock_holder("zigsvc.pid").is_some();
    let is_dead = || dir.zigsvc(&["list", "dead"]).out.contains("kill -TERM");
    dir.start(&options);
    dir.append("queue", "kill -TERM $PPID; exec sleep 600\n");
    for end in 1..=5 {
        wait_until("the service has ended", || !is_up());
        dir.start(&options);
        dir.append("queue", &format!("echo {end} >>{}/done\n", dir.as_arg()));
    }
    // Three stops cost nothing, and the two attempts are lost with the others.
    wait_until("the job is dead", || is_up() && is_dead());
    assert_eq!(dir.read("zigsvc.log").matches("each of its last stops came soon after its start").count(), 1);
    wait_until("the other jobs have run", || dir.read("done").lines().count() == 5);
}

// ----- whose service ---------------------------------------------------------------

#[test]
fn the_folder_can_come_from_the_environment_and_a_missing_home_is_none() {
    let dir = Dir::new();
    let mut command = zigsvc();
    command.env("ZIGSVC_DIR", dir.path("")).arg("start");
    finish(command, None).expect(0);
    dir.zigsvc(&["status"]).expect(0);
    let mut command = zigsvc();
    command.env("ZIGSVC_DIR", "/nonexistent").args(["-d", dir.as_arg(), "status"]);
    finish(command, None).expect(0);
    if !require_root() || !is_root() {
        return;
    }
    // An ordinary user without a home, a service, or one of root's that lets the user in.
    let mut command = program("setpriv");
    command.args(["--reuid", "54321", "--regid", "54321", "--clear-groups", "env", "HOME=/nonexistent"]);
    command.arg(binary()).args(["queue", "job"]);
    let ran = finish(command, None);
    assert!(ran.err.contains("(tried /tmp/zigsvc-54321/zigsvc.sock, /run/zigsvc.sock)"), "{ran:?}");
    assert!(!Path::new("/nonexistent").exists());
}

// ----- everything at once ----------------------------------------------------------

/// Has the service started if its supervisor waits for that. The delays of restarts grow with each
/// death, and are not tested here.
fn start_if_delayed(dir: &Dir) {
    if dir.read("zigsvc-supervisor.state").contains(" jobs=waiting:") {
        dir.zigsvc(&["start"]);
    }
}

/// Mixes stops, restarts, kills and strangers' signals, from inside and outside. After each the
/// service is where it has to be: down on purpose, or up with its options; and no job is lost.
#[test]
fn random_mixes_of_stops_and_restarts_end_where_they_must() {
    let seed = setting("ZIGSVC_SEED", 18);
    let mixes = setting("ZIGSVC_MIXES", 4);
    for mix in 0..mixes {
        let Some(dir) = Supervised::of_services() else { return };
        let mut random = Random::new(seed.wrapping_mul(1000).wrapping_add(mix));
        // In a file, because a start after a stop has no options of an earlier process.
        let conf = "handler = \"shell\"\ninterval = \"100ms\"\nretries = 20\nretry_delay = \"100ms\"\nstop_timeout = \"1s\"\nworkers = 2\n";
        dir.write("zigsvc.conf", conf);
        dir.start_supervisor(QUICK);
        let mut queued = 0;
        for step in 0..4 {
            let number = random.below(7);
            let context = format!("seed {seed}, mix {mix}, step {step}, event {number}");
            if dir.lock_holder("zigsvc.pid").is_some() {
                queued += 1;
                dir.append("queue", &format!("echo {queued} >>{}/done\n", dir.as_arg()));
            }
            let pid = dir.lock_holder("zigsvc.pid").unwrap_or(0);
            let mut down = false;
            let wait_for = |condition: &dyn Fn() -> bool| {
                wait_until(&context, || {
                    start_if_delayed(&dir);
                    condition()
                });
            };
            match number {
                0 => {
                    dir.zigsvc(&["stop"]).expect(0);
                    down = true;
                }
                1 => drop(dir.zigsvc(&["restart"]).expect(0)),
                2 | 3 if pid > 0 => {
                    kill(pid, if number == 2 { "TERM" } else { "KILL" });
                    // The next event is one for the next process.
                    wait_for(&|| dir.lock_holder("zigsvc.pid") != Some(pid));
                }
                4 | 5 if pid > 0 => {
                    let asked = dir.read("inside").matches("status ").count();
                    let starts = || dir.read("zigsvc.log").matches("daemon started, pid=").count();
                    let before = starts();
                    let command = if number == 4 { "stop" } else { "restart" };
                    dir.append("queue", &format!("{}\n", inside(&dir, command)));
                    // A later event must not come before this one.
                    wait_for(&|| dir.read("inside").matches("status ").count() > asked);
                    // A service that is no child of the supervisor keeps its PID over a restart.
                    wait_for(&|| dir.lock_holder("zigsvc.pid") != Some(pid) || starts() > before);
                    down = number == 4;
                }
                _ => {
                    let mut both = [["stop", "jobs"], ["restart", "jobs"]].map(|words| {
                        let mut command = dir.command();
                        command.args(words);
                        Running::new(command)
                    });
                    wait_until(&context, || {
                        start_if_delayed(&dir);
                        !both.iter_mut().any(Running::runs)
                    });
                }
            }
            if down {
                wait_until(&context, || dir.lock_holder("zigsvc.pid").is_none());
                dir.zigsvc(&["start"]).expect(0);
            } else if dir.path("zigsvc.down").exists() {
                dir.zigsvc(&["start"]);
            }
            wait_for(&|| dir.zigsvc(&["status"]).code == 0);
            wait_for(&|| dir.read("zigsvc-supervisor.state").contains(" jobs=running:"));
        }
        wait_until(&format!("seed {seed}, mix {mix}: each job has run"), || {
            start_if_delayed(&dir);
            let done = dir.read("done");
            (1..=queued).all(|job| done.lines().any(|line| line == job.to_string()))
        });
        assert!(!dir.read(LOG).contains("SIGKILL"), "{}", dir.logs());
        let jobs = dir.lock_holder("zigsvc.pid").unwrap();
        assert!(alive(jobs) && lock_holder(&dir.path("zigsvc-supervisor.pid")).is_some());
    }
}

/// Returns the service as the first process of a container.
fn container(dir: &Dir) -> Running {
    let mut inner = dir.command();
    inner.arg("run");
    let mut outer = through(&["unshare", "-pf", "--kill-child", "--mount-proc"], &inner);
    outer.stdout(Stdio::null()).stderr(Stdio::null());
    Running::new(outer)
}

/// Mixes such events where the service is the first process of a container, which ends with it and
/// is started again, as its engine would. A restart from within a job keeps the container, orphans
/// are reaped, and no job is lost.
#[test]
fn random_mixes_as_the_first_process_of_a_container_end_where_they_must() {
    let mut probe = program("unshare");
    probe.args(["-pf", "--mount-proc", "true"]);
    let works = require_root() && require_tool("unshare") && require_native("/proc is QEMU's own");
    if !works || !require(finish(probe, None).code == 0, "namespaces of PIDs are not allowed here") {
        return;
    }
    let seed = setting("ZIGSVC_SEED", 18);
    for mix in 0..setting("ZIGSVC_MIXES", 4) {
        let dir = Dir::new();
        let mut random = Random::new(seed.wrapping_mul(2000).wrapping_add(mix));
        let path = dir.as_arg();
        let conf = "handler = \"shell\"\ninterval = \"100ms\"\nretries = 20\nretry_delay = \"100ms\"\nstop_timeout = \"1s\"\nworkers = 2\nlog_max = \"0\"\n";
        dir.write("zigsvc.conf", format!("{conf}log_file = \"{path}/zigsvc.log\"\n"));
        let mut running = container(&dir);
        let is_up = || dir.zigsvc(&["status"]).code == 0;
        wait_until("it runs", is_up);
        for step in 0..6 {
            let number = random.below(6);
            let context = format!("seed {seed}, mix {mix}, step {step}, event {number}");
            let pid = dir.lock_holder("zigsvc.pid").unwrap();
            // Each job leaves an orphan.
            dir.append("queue", &format!("sleep 0.1 & echo {step} >>{path}/done\n"));
            let starts = || dir.read("zigsvc.log").matches("daemon started, pid=").count();
            let before = starts();
            match number {
                0 => drop(dir.zigsvc(&["stop"]).expect(0)),
                1 | 2 => kill(pid, if number == 1 { "TERM" } else { "KILL" }),
                3 => dir.append("queue", &format!("{}\n", inside(&dir, "stop"))),
                // A stranger inside sends the signal, once.
                4 => dir.append(
                    "queue",
                    &format!(
                        "[ -e {path}/{step} ] || {{ touch {path}/{step}; kill -TERM $PPID; sleep 60; }}\n"
                    ),
                ),
                _ => {
                    dir.append("queue", &format!("{}\n", inside(&dir, "restart")));
                    wait_until(&context, || starts() > before);
                    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(pid), "{context}: the same container");
                    assert!(running.runs(), "{context}");
                }
            }
            if number < 5 {
                wait_until(&context, || !running.runs());
                running = container(&dir);
            }
            wait_until(&context, is_up);
        }
        wait_until(&format!("seed {seed}, mix {mix}: each job has run"), || {
            let done = dir.read("done");
            (0..6).all(|job| done.lines().any(|line| line == job.to_string()))
        });
        wait_until("no job is left", || crate::support::control::status(&dir, "waiting") == 0);
        let pid = dir.lock_holder("zigsvc.pid").unwrap();
        let is_zombie = |pid: u32| process_state(pid) == Some('Z');
        wait_until("no orphan is left", || {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            let children = children.unwrap_or_default();
            !children.split_whitespace().any(|child| is_zombie(child.parse().unwrap()))
        });
    }
}

#[test]
fn a_restart_keeps_the_options_where_proc_is_gone() {
    if !require_root() || !require_tool("unshare") || !require_tool("mount") {
        return;
    }
    let dir = Dir::new();
    // The health file names the boot, which a command without /proc does not know.
    let script = "z=$1; shift; \"$z\" \"$@\" -o handler=shell start && mount -t tmpfs none /proc &&
        \"$z\" \"$@\" restart && \"$z\" \"$@\" queue --wait 'echo by a shell' && \"$z\" \"$@\" stop";
    let ran = finish(through(&["unshare", "-m", "sh", "-c", script, "sh"], &dir.command()), None);
    let ran = ran.expect(0);
    assert!(ran.out.contains("by a shell"), "{ran:?}");
}

#[test]
fn a_service_without_options_restarts_where_proc_is_gone() {
    if !require_root() || !require_tool("unshare") || !require_tool("mount") {
        return;
    }
    if !require_native("QEMU itself needs /proc") {
        return;
    }
    // The default places are the test's own.
    let script = "for place in /run /var /etc; do mount -t tmpfs none $place || exit; done; mkdir /var/log
        \"$0\" \"$@\" start && mount -t tmpfs none /proc && \"$0\" \"$@\" restart &&
        \"$0\" \"$@\" queue --wait true && \"$0\" \"$@\" stop";
    let ran = finish(through(&["unshare", "-mn", "sh", "-c", script], &zigsvc()), None);
    let ran = ran.expect(0);
    assert_eq!(ran.out.matches("started (pid").count(), 2, "{ran:?}");
}
