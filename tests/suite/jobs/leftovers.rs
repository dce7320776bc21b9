//! The processes that a job leaves: daemons that survive, groups that are ended, and what a
//! killed service finds again.

use crate::support::control::{pid_in, start};
use crate::support::foreground::run_command;
use crate::support::{
    Dir, Running, alive, kill, let_pass, log_lines_matching, logged_number, process_state, program,
    require_native, require_root, require_tool, under_qemu, wait_for_lines, wait_for_log, wait_until,
};
use core::time::Duration;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;
use zigsvc::limits::{KILL_PATIENCE, LEFTOVER_WAIT};

/// Returns the value of `degraded`.
fn degraded(dir: &Dir) -> String {
    crate::support::control::status_word(dir, "degraded")
}

/// Returns the PIDs in the lines of a file.
fn pids(dir: &Dir, name: &str, count: usize) -> Vec<u32> {
    wait_for_lines(dir, name, count).iter().map(|line| line.trim().parse().unwrap()).collect()
}

#[test]
fn of_fifty_jobs_that_start_a_daemon_all_daemons_survive() {
    if !require_tool("setsid") {
        return;
    }
    // The daemon leaves the group while its job ends, or some time after it.
    let at_once = "setsid sh -c 'echo $$ >> pids; exec sleep 300' &";
    let later = "(sleep 0.5; exec setsid -f sh -c 'echo $$ >> pids; exec sleep 300') &";
    for (job, count) in [(at_once, 50), (later, 8)] {
        let dir = Dir::new();
        let pid = start(&dir, &["handler=shell", "workers=4", "retries=0"]);
        dir.append("queue", &format!("cd {}; {job}\n", dir.as_arg()).repeat(count));
        let daemons = pids(&dir, "pids", count);
        wait_until("all jobs are done", || logged_number(&dir, pid, "jobs") == count as u64);
        // By now each group would have got its signals, because a later one has.
        dir.append("queue", "sh -c 'trap \"\" TERM; while :; do sleep 1; done' &\n");
        wait_for_log(&dir, "SIGKILL to what job ");
        let living = daemons.iter().filter(|daemon| alive(**daemon)).count();
        daemons.iter().for_each(|daemon| kill(*daemon, "KILL"));
        assert_eq!(living, count, "{job}");
        // The service has adopted them, and reaps them.
        wait_until("they are reaped", || daemons.iter().all(|daemon| process_state(*daemon).is_none()));
    }
}

#[test]
fn what_stays_in_the_group_gets_term_after_two_seconds_and_kill_two_later() {
    let dir = Dir::new();
    start(&dir, &["handler=shell", "workers=2"]);
    let path = dir.as_arg();
    dir.append("queue", &format!("cd {path}; sleep 300 & echo $! > soft\n"));
    dir.append("queue", &format!("cd {path}; sh -c 'trap \"\" TERM; echo $$ > hard; while :; do sleep 1; done' & until [ -s hard ]; do :; done\n"));
    let since = Instant::now();
    let (soft, hard) = (pid_in(&dir, "soft"), pid_in(&dir, "hard"));
    wait_for_log(&dir, "job 1 done in ");
    wait_for_log(&dir, "job 2 done in ");
    wait_until("the first is gone", || !alive(soft));
    assert!(since.elapsed() >= Duration::from_millis(1900), "{:?}", since.elapsed());
    assert!(alive(hard));
    wait_until("the second is gone", || !alive(hard));
    assert!(since.elapsed() >= Duration::from_millis(3900), "{:?}", since.elapsed());
    let log = dir.read("zigsvc.log");
    assert_eq!(log_lines_matching(&log, "SIGTERM to what job "), 2, "{log}");
    assert_eq!(log_lines_matching(&log, "SIGKILL to what job 2 left"), 1, "{log}");
    assert_eq!(degraded(&dir), "none");
}

#[test]
fn leftovers_that_are_kept_get_no_signal_and_are_not_noted() {
    let dir = Dir::new();
    let daemon = start(&dir, &["handler=shell", "leftovers=keep"]);
    dir.append("queue", &format!("cd {}; sleep 300 & echo $! > pid\n", dir.as_arg()));
    let left = pid_in(&dir, "pid");
    wait_for_log(&dir, "job 1 done in ");
    let_pass(LEFTOVER_WAIT + KILL_PATIENCE);
    assert!(alive(left));
    dir.append("queue", "sleep 300\n");
    wait_for_log(&dir, "job 2 started");
    let note = fs::read_to_string(dir.path("spool/running")).unwrap();
    assert_eq!(note.lines().nth(1), Some("end"), "{note}");
    kill(daemon, "KILL");
    wait_until("the service is gone", || !alive(daemon));
    assert!(alive(left));
    kill(left, "KILL");
}

#[test]
fn the_next_attempt_of_a_job_waits_for_what_the_last_one_left_and_others_do_not() {
    let dir = Dir::new();
    start(&dir, &["handler=shell", "retry_delay=10ms", "retries=1"]);
    let path = dir.as_arg();
    dir.append(
        "queue",
        &format!(
            "cd {path}; [ -s pid ] && kill -0 $(cat pid) && echo both >> out; echo run >> out; sleep 300 & echo $! > pid; exit 1\n\
             echo other >> {path}/out\n"
        ),
    );
    assert_eq!(wait_for_lines(&dir, "out", 3), ["run", "other", "run"]);
}

#[test]
fn a_stop_and_a_cancel_end_what_a_job_left_at_once_and_the_service_ends_after_it() {
    let dir = Dir::new();
    let pid = start(&dir, &["handler=shell"]);
    let job = |name: &str| {
        format!(
            "cd {}; sh -c 'trap \"sleep 0.5; exit\" TERM; echo $$ > {name}; while :; do sleep 0.1; done' & until [ -s {name} ]; do :; done",
            dir.as_arg()
        )
    };
    dir.append("queue", &format!("{}; sleep 300\n{}\n", job("one"), job("two")));
    let one = pid_in(&dir, "one");
    let since = Instant::now();
    dir.zigsvc(&["cancel", "1"]).expect(0);
    wait_until("the first is gone", || !alive(one));
    assert!(under_qemu() || since.elapsed() < Duration::from_millis(1900), "{:?}", since.elapsed());
    let two = pid_in(&dir, "two");
    wait_for_log(&dir, "job 2 done in ");
    let since = Instant::now();
    dir.zigsvc(&["stop"]).expect(0);
    assert!(!alive(two) && !alive(pid), "the service ended before what its job left");
    assert!(under_qemu() || since.elapsed() < Duration::from_millis(1900), "{:?}", since.elapsed());
}

#[test]
fn of_nine_groups_the_oldest_is_ended_at_once() {
    let dir = Dir::new();
    start(&dir, &["handler=shell"]);
    let job = format!(
        "cd {}; sh -c 'trap \"\" TERM; echo $$ >> pids; while :; do sleep 1; done' & until [ $(cat pids | wc -l) -ge $ZIGSVC_JOB_ID ]; do :; done\n",
        dir.as_arg()
    );
    dir.write("pids", "");
    let since = Instant::now();
    dir.append("queue", &job.repeat(9));
    let left = pids(&dir, "pids", 9);
    wait_until("the oldest is gone", || !alive(left[0]));
    assert!(since.elapsed() < Duration::from_millis(3900), "{:?}", since.elapsed());
    wait_until("all are gone", || left.iter().all(|pid| !alive(*pid)));
}

#[test]
fn what_a_killed_service_left_is_found_by_its_whole_environment_and_a_stranger_is_not() {
    let dir = Dir::new();
    let daemon = start(&dir, &["handler=shell"]);
    let path = dir.as_arg();
    // The mark is at the end of an environment of 90,000 bytes, or gone.
    dir.append(
        "queue",
        &format!(
            "cd {path}; T=$ZIGSVC_TOKEN; unset ZIGSVC_TOKEN; export A=$(head -c 90000 /dev/zero | tr '\\0' x) ZIGSVC_TOKEN=$T; \
             sleep 300 & echo $! >> pids; env -i sleep 300 & echo $! >> pids; ZIGSVC_TOKEN=other sleep 300 & echo $! >> pids; mv pids pids.$ZIGSVC_ATTEMPT; wait\n"
        ),
    );
    wait_until("the handler has children", || dir.path("pids.1").exists());
    let left = pids(&dir, "pids.1", 3);
    kill(daemon, "KILL");
    wait_until("the service is gone", || !alive(daemon));
    assert!(left.iter().all(|pid| alive(*pid)));
    start(&dir, &["handler=shell"]);
    wait_until("the job runs again", || dir.path("pids.2").exists());
    assert!(!alive(left[0]) && !alive(left[1]));
    // It is in the same group, so it ended with it; alone it would be no member.
    kill(left[2], "KILL");
}

#[test]
fn the_note_of_another_pid_namespace_names_nothing() {
    if !(require_root() && require_tool("unshare") && require_tool("setsid")) {
        return;
    }
    let dir = Dir::new();
    let daemon = start(&dir, &["handler=shell"]);
    dir.append("queue", &format!("cd {}; sleep 300 & echo $! > pid; wait\n", dir.as_arg()));
    let left = pid_in(&dir, "pid");
    let note = fs::read_to_string(dir.path("spool/running")).unwrap();
    kill(daemon, "KILL");
    wait_until("the service is gone", || !alive(daemon));
    let (boot, rest) = note.split_once(' ').unwrap();
    let (namespace, groups) = rest.split_once('\n').unwrap();
    let other = namespace.parse::<u64>().unwrap() + 1;
    fs::write(dir.path("spool/running"), format!("{boot} {other}\n{groups}")).unwrap();
    dir.write("pid", "");
    start(&dir, &["handler=shell"]);
    wait_until("the job runs again", || !dir.read("pid").is_empty());
    assert!(alive(left), "a process of another namespace's note was killed");
    kill(left, "KILL");
}

#[test]
fn a_process_of_another_user_holds_its_job_back_until_it_is_gone_or_the_job_is_cancelled() {
    if !(require_root() && require_tool("setpriv") && require_native("QEMU changes no user by set-user-id")) {
        return;
    }
    let nosuid = program("sh").args(["-c", "findmnt -no OPTIONS -T /tmp | grep -q nosuid"]).status();
    if !crate::support::require(!nosuid.is_ok_and(|status| status.success()), "set-user-id works in /tmp") {
        return;
    }
    for cancels in [false, true] {
        let dir = Dir::new();
        std::os::unix::fs::chown(dir.path(""), Some(65534), Some(65534)).unwrap();
        // A set-user-id program that becomes root as a whole, as su(1) does.
        let becomer = dir.copy_program(crate::support::find("setpriv").unwrap(), "become");
        fs::set_permissions(&becomer, fs::Permissions::from_mode(0o4755)).unwrap();
        let mut command = program("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(env!("CARGO_BIN_EXE_zigsvc"));
        command.args(["-d", dir.as_arg(), "-o", "handler=shell", "-o", "stop_timeout=300ms", "start"]);
        let begin = || drop(crate::support::finish(program_clone(&command), None).expect(0));
        begin();
        let daemon = dir.lock_holder("zigsvc.pid").unwrap();
        let path = dir.as_arg();
        dir.append("queue", &format!("cd {path}; echo run >> out; [ -e pid ] || {{ ./become --reuid=0 --clear-groups sleep 300 & echo $! > new; mv new pid; wait; }}\n"));
        let left = pid_in(&dir, "pid");
        wait_until("it is root's", || crate::support::proc_status(left, "Uid").starts_with("0 0"));
        kill(daemon, "KILL");
        wait_until("the service is gone", || !alive(daemon));
        assert!(alive(left));
        begin();
        wait_until("the state names it", || degraded(&dir).contains("stuck-job"));
        wait_for_log(&dir, "a process of job 1 in group ");
        wait_for_log(&dir, "kill: EPERM");
        assert_eq!(dir.read("out"), "run\n", "the job runs beside its first attempt");
        if cancels {
            dir.zigsvc(&["cancel", "1"]).expect(0);
            wait_until("the state goes", || !degraded(&dir).contains("stuck-job"));
            assert!(alive(left));
            kill(left, "KILL");
        } else {
            kill(left, "KILL");
            assert_eq!(wait_for_lines(&dir, "out", 2), ["run", "run"]);
            wait_until("the state goes", || !degraded(&dir).contains("stuck-job"));
        }
        dir.zigsvc(&["stop"]).expect(0);
    }
}

/// Returns the same command again.
fn program_clone(command: &std::process::Command) -> std::process::Command {
    let mut clone = std::process::Command::new(command.get_program());
    clone.args(command.get_args());
    clone
}

#[test]
fn as_pid_1_and_as_subreaper_no_orphan_stays_a_zombie() {
    if !(require_root() && require_tool("unshare") && require_native("unshare forks QEMU")) {
        return;
    }
    for wrapper in [&["unshare", "-pf", "--mount-proc", "--kill-child"][..], &["env"]] {
        let dir = Dir::new();
        let log = format!("log_file={}/zigsvc.log", dir.as_arg());
        let command =
            crate::support::through(wrapper, &run_command(&dir, &["handler=shell", "workers=8", &log]));
        let running = Running::new(command);
        wait_until("it runs", || dir.path("zigsvc.sock").exists());
        dir.append(
            "queue",
            &format!("sleep 0.1 & setsid sleep 0.2 & sleep 0.01; echo $$ >> {}/out\n", dir.as_arg())
                .repeat(50),
        );
        wait_for_lines(&dir, "out", 50);
        let service = wrapper[0] == "env";
        let zombies = || {
            let parent = if service { running.pid() } else { child_of(running.pid()) };
            children_of(parent).into_iter().filter(|pid| process_state(*pid) == Some('Z')).count()
        };
        wait_until("no zombie is left", || zombies() == 0);
        wait_for_log(&dir, "job 50 done in ");
        wait_until("still none", || zombies() == 0);
        kill(if service { running.pid() } else { child_of(running.pid()) }, "TERM");
    }
}

/// Returns the children of a process.
fn children_of(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Returns the only child of a process.
fn child_of(pid: u32) -> u32 {
    children_of(pid)[0]
}

#[cfg(all(feature = "hub", feature = "collector"))]
#[test]
fn a_hub_and_a_collector_reap_what_they_inherit_as_pid_1() {
    if !(require_root() && require_tool("unshare") && require_tool("nsenter") && require_native("unshare")) {
        return;
    }
    for service in ["hub", "collector"] {
        let dir = Dir::new();
        let mut command = dir.command();
        command
            .args(["run", service])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let wrapper = ["unshare", "-pf", "--mount-proc", "--kill-child"];
        let running = Running::new(crate::support::through(&wrapper, &command));
        wait_until("it runs", || !children_of(running.pid()).is_empty());
        let first = child_of(running.pid());
        wait_until("it beats", || dir.path(&format!("zigsvc-{service}.health")).exists());
        for _ in 0..5 {
            let pid = first.to_string();
            let ran =
                program("nsenter").args(["-p", "-t", &pid, "sh", "-c", "sleep 0.2 & sleep 0.1 &"]).status();
            assert!(ran.unwrap().success());
        }
        wait_until("orphans have come", || !children_of(first).is_empty());
        wait_until("they are reaped", || children_of(first).is_empty());
        kill(first, "TERM");
    }
}
