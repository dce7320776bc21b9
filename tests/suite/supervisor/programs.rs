//! The programs that `supervise` names: their files, their order, their lives and their logs.

use crate::support::supervisor::{LOG, Supervised, parent_of, session_of};
use crate::support::{
    alive, finish, is_root, kill, kill_hard, proc_status, require_native, require_root, require_tool, run,
    under_qemu, wait_until,
};
use std::fs;

/// Beats often, and keeps all of the log.
const QUICK: &[&str] = &["log_max=0", "interval=100ms", "check_interval=100ms"];

/// Returns a folder whose configuration names these programs. Each is a name and its file.
fn board(programs: &[(&str, &str)]) -> Supervised {
    let dir = Supervised::new();
    fs::create_dir(dir.path("programs")).unwrap();
    supervise(&dir, &programs.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for (name, text) in programs {
        dir.write(&format!("programs/{name}.conf"), text);
    }
    dir
}

/// Names the programs in the configuration.
fn supervise(dir: &Supervised, names: &[&str]) {
    dir.write("zigsvc.conf", format!("supervise = {names:?}\n"));
}

/// Returns the file of a program that is a shell with this script.
fn script(text: &str) -> String {
    format!("command = [\"/bin/sh\", \"-c\", {text:?}]\n")
}

/// Returns the PID that the log names last for a program, which is ready and other than `before`.
#[track_caller]
fn pid_after(dir: &Supervised, name: &str, before: u32) -> u32 {
    let mut found = None;
    wait_until(&format!("{name} runs"), || {
        let log = dir.read(LOG);
        let last = log.rsplit_once(&format!("] {name}: running (pid ")).map(|(_, rest)| rest.to_owned());
        found = last.and_then(|rest| rest.split_once(')')?.0.parse().ok()).filter(|pid| *pid != before);
        found.is_some()
    });
    found.unwrap()
}

/// Returns the lines of a program's log, without their times.
fn lines(dir: &Supervised, name: &str) -> Vec<String> {
    let text = dir.read(&format!("zigsvc-{name}.log"));
    text.lines().map(|line| line.split_once("] ").map_or(line, |(_, rest)| rest).to_owned()).collect()
}

/// Waits until the log of a program has this line.
#[track_caller]
fn wait_for_line(dir: &Supervised, name: &str, line: &str) {
    wait_until(&format!("{name} printed {line:?}"), || lines(dir, name).iter().any(|found| found == line));
}

/// Stops the supervisor, which ends all.
#[track_caller]
fn stop(dir: &Supervised) {
    dir.zigsvc(&["stop", "supervisor"]).expect(0);
}

// ----- the files ---------------------------------------------------------------------

#[test]
fn a_bad_file_is_refused_by_its_line_and_nothing_is_started() {
    let good = "command = [\"/bin/sleep\", \"600\"]\n";
    let after = |name: &str| format!("{good}# more\nafter = [\"{name}\"]\n");
    let cases: &[(&[(&str, &str)], &str)] = &[
        (&[("a", "")], "a.conf:1: command is missing"),
        (&[("a", "command = [\"sleep\"]")], "a.conf:1: command must be an absolute path"),
        (&[("a", &format!("{good}colour = 1"))], "a.conf:2: unknown key \"colour\""),
        (&[("a", &format!("{good}ready = \"soon\""))], "a.conf:2: ready must be one of"),
        (&[("a", &format!("{good}user = \"no-such\""))], "a.conf:2: user: no-such is neither"),
        (&[("a", &format!("{good}group = \"root\""))], "a.conf:2: group: needs user"),
        (&[("a", &after("b"))], "a.conf:3: after: \"b\" is not in supervise"),
        (&[("a", &after("a"))], "a.conf:3: after: a circle: a would be started after itself"),
        (&[("a", &after("b")), ("b", &after("c")), ("c", &after("a"))], "a.conf:3: after: a circle"),
        (
            &[("a", good), ("b", &format!("{good}log_file = \"D/zigsvc-a.log\""))],
            "b.conf:2: log_file: D/zigsvc-a.log is the log of another program or service",
        ),
        (
            &[("a", &format!("{good}log_file = \"D/zigsvc-supervisor.log\""))],
            "a.conf:2: log_file: D/zigsvc-supervisor.log is the log of another",
        ),
    ];
    for (programs, text) in cases {
        let dir = board(&[]);
        supervise(&dir, &programs.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        let here = |text: &str| text.replace("D/", &format!("{}/", dir.as_arg()));
        for (name, file) in *programs {
            dir.write(&format!("programs/{name}.conf"), here(file));
        }
        for command in [&["check"][..], &["start", "supervisor"], &["run", "supervisor"]] {
            let ran = dir.zigsvc(command).expect(6);
            assert!(ran.err.contains(&here(text)), "{text}: {ran:?}");
            assert_eq!((ran.err.lines().count(), ran.out.as_str()), (1, ""), "{ran:?}");
        }
        assert!(dir.lock_holder("zigsvc-supervisor.pid").is_none());
    }
    // A name without a file, which can be a service that is misspelt.
    let dir = board(&[]);
    supervise(&dir, &["job"]);
    let ran = dir.zigsvc(&["check"]).expect(6);
    assert!(ran.err.contains("\"job\" is no service and needs a file: "), "{ran:?}");
    assert!(ran.err.contains("/programs/job.conf: "), "{ran:?}");
}

#[test]
fn the_names_in_supervise_are_bounded_and_each_is_there_once() {
    let dir = board(&[]);
    let many = |count: usize| (0..count).map(|number| format!("p{number}")).collect::<Vec<_>>();
    for name in many(33) {
        dir.write(&format!("programs/{name}.conf"), "command = [\"/bin/true\"]\n");
    }
    let check = |names: &[String], code: i32| {
        dir.write("zigsvc.conf", format!("supervise = {names:?}\n"));
        dir.zigsvc(&["check"]).expect(code)
    };
    let shown = check(&many(32), 0).out;
    assert_eq!(shown.matches("\n# program; the file is ").count(), 32);
    let text = "zigsvc.conf:1: supervise must be an array of ";
    assert!(check(&many(33), 6).err.contains(text));
    for bad in ["Up", "-x", "a/b", "", "supervisor", "status", &"x".repeat(33)] {
        assert!(check(&[bad.to_owned()], 6).err.contains(text), "{bad}");
    }
    assert!(check(&["p1".into(), "p1".into()], 6).err.contains("each once"));
}

#[test]
fn check_prints_each_file_as_it_takes_effect() {
    let dir = board(&[("a", "command = [\"/bin/x\", \"y z\"]\nafter = [\"b\"]\n"), ("b", &script("true"))]);
    let shown = dir.zigsvc(&["check"]).expect(0).out;
    let tables: Vec<&str> = shown.split("\n# program; the file is ").collect();
    assert_eq!(tables.len(), 3);
    let (path, a) = tables[1].split_once('\n').unwrap();
    assert_eq!(path, format!("{}/programs/a.conf", dir.as_arg()));
    let table: toml::Table = a.parse().unwrap();
    assert_eq!(table["log_file"].as_str().unwrap(), format!("{}/zigsvc-a.log", dir.as_arg()));
    assert_eq!(table["command"].as_array().unwrap().len(), 2);
    // The output can be used as the file.
    dir.write("programs/a.conf", a);
    assert_eq!(dir.zigsvc(&["check"]).expect(0).out, shown);
}

#[test]
fn a_file_that_others_can_write_is_refused_by_root() {
    if !require_root() {
        return;
    }
    let dir = board(&[("a", &script("exec sleep 600"))]);
    std::os::unix::fs::chown(dir.path("programs/a.conf"), Some(12_345), None).unwrap();
    let ran = dir.zigsvc(&["start", "supervisor"]).expect(6);
    assert!(ran.err.contains("/programs/a.conf: ") && ran.err.contains("12345"), "{ran:?}");
    let trusted = format!("trust={}/programs/a.conf", dir.as_arg());
    dir.zigsvc(&["-o", &trusted, "start", "supervisor"]).expect(0);
    stop(&dir);
}

// ----- the start ---------------------------------------------------------------------

#[test]
fn a_program_has_its_place_its_limits_and_its_environment() {
    let user = if is_root() { "user = \"nobody\"\n" } else { "" };
    let dir = board(&[(
        "a",
        &format!(
            "{}{user}env = [\"X=1=2\", \"ZIGSVC_TOKEN=forged\"]\numask = \"077\"\nopen_files = 55\nfolder = \"/usr\"\n",
            script(
                "pwd; umask; ulimit -n; ulimit -Hn; id -un; env | sort; cat; echo done >&2; exec sleep 600"
            ),
        ),
    )]);
    let supervisor = dir.start_supervisor(QUICK);
    wait_for_line(&dir, "a", "done");
    let pid = pid_after(&dir, "a", 0);
    assert_eq!((parent_of(pid), session_of(pid)), (Some(supervisor), Some(pid)));
    let found = lines(&dir, "a");
    assert_eq!(found[..4], ["/usr", "0077", "55", "55"]);
    let names = |line: &String| line.split_once('=').map(|(name, _)| name.to_owned());
    let mut variables: Vec<String> = found[5..].iter().filter_map(names).collect();
    variables.retain(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(&name.as_str()));
    let expected: &[&str] = if is_root() {
        assert_eq!(found[4], "nobody");
        assert!(found.contains(&"USER=nobody".to_owned()) && found.contains(&"LOGNAME=nobody".to_owned()));
        &["HOME", "LOGNAME", "PATH", "USER", "X", "ZIGSVC_TOKEN"]
    } else {
        &["PATH", "X", "ZIGSVC_TOKEN"]
    };
    assert_eq!(variables, expected, "{found:?}");
    assert!(found.contains(&"X=1=2".to_owned()) && !found.contains(&"ZIGSVC_TOKEN=forged".to_owned()));
    stop(&dir);
    assert!(!alive(pid));
}

#[test]
fn programs_start_when_those_they_need_are_ready_and_end_before_them() {
    let note = |name: &str, more: &str| {
        script(&format!(
            "trap 'echo end {name} >>\"$D/notes\"; exit 0' TERM; echo start {name} >>\"$D/notes\"; {more}
             while :; do sleep 0.05; done"
        ))
    };
    let dir = Supervised::new();
    fs::create_dir(dir.path("programs")).unwrap();
    let env = format!("env = [\"D={}\"]\n", dir.as_arg());
    let write = |name: &str, text: String| dir.write(&format!("programs/{name}.conf"), text + &env);
    // Of three, the one named last is the base, and is ready when the test writes to it.
    supervise(&dir, &["top", "middle", "base"]);
    write("top", note("top", "") + "after = [\"middle\", \"base\"]\n");
    write("middle", note("middle", "echo >&3") + "after = [\"base\"]\nready = \"fd\"\n");
    let gate = "until [ -e \"$D/gate\" ]; do sleep 0.05; done; echo >&3; exec 3>&-;";
    write("base", note("base", gate) + "ready = \"fd\"\nstart_timeout = \"500ms\"\n");
    dir.start_supervisor(QUICK);
    dir.wait_for("base: not ready within its start_timeout (pid ");
    dir.stays_silent("running (pid ");
    assert_eq!(dir.read("notes"), "start base\n");
    wait_until("the state is named", || dir.zigsvc(&["status", "supervisor"]).out.contains("program"));
    dir.write("gate", "");
    let base = pid_after(&dir, "base", 0);
    let (middle, top) = (pid_after(&dir, "middle", 0), pid_after(&dir, "top", 0));
    wait_until("all are started", || dir.read("notes") == "start base\nstart middle\nstart top\n");
    assert!(dir.zigsvc(&["status", "supervisor"]).expect(0).out.contains("degraded   none"));
    // The later death of one restarts no other.
    kill(base, "KILL");
    pid_after(&dir, "base", base);
    assert!(alive(middle) && alive(top));
    dir.write("notes", "");
    stop(&dir);
    assert_eq!(dir.read("notes"), "end top\nend middle\nend base\n");
}

#[test]
fn a_program_can_say_that_it_is_ready_by_a_socket() {
    let Some(perl) = crate::support::find("perl") else { return };
    let send = r#"use Socket; $| = 1; my $a = $ENV{NOTIFY_SOCKET}; $a =~ s/^@/\0/; my $to = pack_sockaddr_un($a);
socket(S, AF_UNIX, SOCK_DGRAM, 0) or die; sub say_it { defined send(S, $_[0], 0, $to) or die $! }
say_it($_) for ('STATUS=soon', 'READY=0', 'XREADY=1', "A=1\nREADY=1 ", ''); print "sent\n";
until (-e "$ENV{GATE}") { select undef, undef, undef, 0.05 }
say_it("MAINPID=1\nREADY=1\nSTATUS=up"); sleep 600"#;
    let user = if is_root() { "user = \"nobody\"\n" } else { "" };
    let dir = board(&[]);
    supervise(&dir, &["a"]);
    // The folder of the test is not open to every user.
    let gate = format!("/tmp/zigsvc-gate-{}", std::process::id());
    dir.write(
        "programs/a.conf",
        format!(
            "command = [{perl:?}, \"-e\", {send:?}]\nready = \"notify\"\n{user}env = [\"GATE={gate}\"]\n"
        ),
    );
    let _ = fs::remove_file(&gate);
    dir.start_supervisor(QUICK);
    wait_for_line(&dir, "a", "sent");
    dir.stays_silent("running (pid ");
    fs::write(&gate, "").unwrap();
    pid_after(&dir, "a", 0);
    let _ = fs::remove_file(&gate);
    stop(&dir);
}

#[test]
fn a_command_that_cannot_be_executed_is_a_warning_and_is_tried_again() {
    let good = script("exec sleep 600");
    let dir = board(&[
        ("good", &good),
        ("missing", "command = [\"/no/such\"]\n"),
        ("folder", "command = [\"/bin/true\"]\nfolder = \"/no/such\"\n"),
        ("text", "command = [\"D/text\"]\n"),
        ("plain", "command = [\"D/plain\"]\n"),
        ("script", "command = [\"D/script\"]\n"),
    ]);
    if !require_native("QEMU reports an execve that fails in the child") {
        return;
    }
    for name in ["text", "plain", "script"] {
        let path = format!("programs/{name}.conf");
        dir.write(&path, dir.read(&path).replace("D/", &format!("{}/", dir.as_arg())));
    }
    dir.write_executable("text", "no program\n");
    dir.write("plain", "#!/bin/sh\n");
    dir.write_executable("script", "#!/no/interpreter\n");
    let mut command = dir.command();
    command.args(["-o", "log_max=0", "start", "supervisor"]);
    let ran = finish(command, None).expect(0);
    for text in [
        "missing: cannot be started: /no/such: execve: ENOENT",
        "folder: cannot be started: /no/such: chdir: ENOENT",
        "; it is no program for this machine, and no script that begins with #!",
        "plain: execve: EACCES",
        "; its interpreter is missing",
    ] {
        assert!(ran.err.contains(text), "{text}: {ran:?}");
    }
    assert!(ran.err.lines().all(|line| line.starts_with("zigsvc: ")), "{ran:?}");
    for name in ["missing", "folder", "text", "plain", "script"] {
        let warned = ran.err.lines().filter(|line| line.starts_with(&format!("zigsvc: {name}: "))).count();
        assert_eq!(warned, 1, "{name}: {ran:?}");
    }
    let pid = pid_after(&dir, "good", 0);
    assert!(dir.zigsvc(&["status", "supervisor"]).expect(0).out.contains("degraded   program"));
    // A file that appears later is found by a later attempt.
    dir.write("programs/missing.conf", &good);
    pid_after(&dir, "missing", 0);
    assert!(alive(pid));
    assert_eq!(dir.count("good: running (pid "), 1);
    stop(&dir);
}

// ----- the life ----------------------------------------------------------------------

#[test]
fn an_end_is_followed_by_what_restart_says() {
    let lives = "echo x >>\"$L\"; case $(wc -l <\"$L\") in 1) exit 3;; 2) kill -SEGV $$;; 3) exit 0;; *) exec sleep 600;; esac";
    let dir = board(&[]);
    supervise(&dir, &["always", "failure", "never"]);
    for name in ["always", "failure", "never"] {
        let text = format!(
            "{}restart = \"{name}\"\nenv = [\"L={}\"]\n",
            script(lives),
            dir.path(&format!("lives-{name}")).display()
        );
        dir.write(&format!("programs/{name}.conf"), text);
    }
    dir.start_supervisor(QUICK);
    dir.wait_for("never: ended with exit status 3 after ");
    dir.wait_for("failure: ended with exit status 0 after ");
    dir.wait_for("always: killed by signal 11 after ");
    let lived = |name: &str| dir.read(&format!("lives-{name}")).lines().count();
    wait_until("the one that is always started lives four times", || lived("always") == 4);
    assert_eq!((lived("failure"), lived("never")), (3, 1));
    assert_eq!(dir.count("`restart` in its file does not start it again"), 2);
    // Neither of the two is a state, and they stay so.
    wait_until("all is well", || dir.zigsvc(&["status", "supervisor"]).out.contains("degraded   none"));
    dir.stays_silent("not start it again");
    assert_eq!((lived("failure"), lived("never")), (3, 1));
    stop(&dir);
}

#[test]
fn a_program_gets_its_own_signal_and_its_own_time_to_end() {
    let dir = board(&[
        (
            "int",
            &(script("trap 'echo int; exit 0' INT; trap '' TERM; echo up; while :; do sleep 0.05; done")
                + "stop_signal = \"INT\"\n"),
        ),
        (
            "deaf",
            &(script("trap '' TERM; echo up; while :; do sleep 0.05; done") + "stop_timeout = \"300ms\"\n"),
        ),
    ]);
    dir.start_supervisor(QUICK);
    wait_for_line(&dir, "int", "up");
    wait_for_line(&dir, "deaf", "up");
    let deaf = pid_after(&dir, "deaf", 0);
    stop(&dir);
    assert!(lines(&dir, "int").contains(&"int".to_owned()));
    assert_eq!(dir.count("deaf: has not ended: SIGKILL to pid "), 1);
    assert_eq!(dir.count("int: has not ended"), 0);
    assert!(!alive(deaf));
}

#[test]
fn programs_end_with_their_supervisor_and_none_runs_twice() {
    let user = if is_root() { "user = \"nobody\"\n" } else { "" };
    // One ends by the signal of its parent's death, one does not hear it.
    let dir = board(&[
        ("polite", &(script("echo life; exec sleep 600") + user)),
        (
            "deaf",
            &(script("trap '' TERM; echo life; while :; do sleep 0.05; done") + "stop_timeout = \"300ms\"\n"),
        ),
    ]);
    let supervisor = dir.start_supervisor(QUICK);
    let (polite, deaf) = (pid_after(&dir, "polite", 0), pid_after(&dir, "deaf", 0));
    wait_for_line(&dir, "deaf", "life");
    kill_hard(supervisor);
    wait_until("the polite one has ended", || !alive(polite));
    assert!(alive(deaf));
    dir.start_supervisor(QUICK);
    if under_qemu() {
        kill_hard(deaf);
        stop(&dir);
        return;
    }
    dir.wait_for("deaf: an earlier supervisor has left processes: SIGTERM to group ");
    pid_after(&dir, "deaf", deaf);
    assert!(!alive(deaf));
    assert_eq!(dir.count("deaf: the processes of the earlier supervisor have ended"), 1);
    let killed = dir.count("deaf: has not ended: SIGKILL to pid ");
    assert_eq!(killed, 1);
    wait_until("each has lived twice", || {
        ["polite", "deaf"].iter().all(|name| lines(&dir, name) == ["life", "life"])
    });
    stop(&dir);
    assert!(!dir.path("zigsvc-supervisor.running").exists());
}

#[test]
fn a_program_that_goes_to_the_background_is_named_and_does_not_run_twice() {
    if !require_native("/proc shows QEMU's own process") || !require_tool("setsid") {
        return;
    }
    let dir = board(&[]);
    supervise(&dir, &["daemon", "other"]);
    let pids = format!("env = [\"P={}\"]\n", dir.path("pids").display());
    dir.write(
        "programs/daemon.conf",
        script("setsid sh -c 'echo $$ >>\"$P\"; exec sleep 600' & sleep 0.1") + &pids,
    );
    // The processes that another program leaves are not ended.
    let helper = "setsid sleep 600 & echo $! >>\"$P.other\"; exec sleep 600";
    dir.write("programs/other.conf", script(helper) + &pids);
    dir.start_supervisor(QUICK);
    dir.wait_for("daemon: runs in the background (pid ");
    dir.wait_for_count("daemon: runs in the background (pid ", 3);
    let found = |name: &str| dir.read(name).lines().map(|pid| pid.parse().unwrap()).collect::<Vec<u32>>();
    assert!(found("pids").into_iter().filter(|pid| alive(*pid)).count() <= 1, "{:?}", found("pids"));
    // It is not started at once each time.
    assert!(dir.count("daemon: ended with exit status 0 after ") >= 3 && dir.count("restart 3 in 2 s") == 1);
    assert!(found("pids.other").into_iter().all(alive));
    stop(&dir);
    for pid in found("pids").into_iter().chain(found("pids.other")).filter(|pid| alive(*pid)) {
        kill_hard(pid);
    }
}

#[test]
fn a_stop_ends_what_a_program_leaves_while_it_goes_to_the_background() {
    if !require_native("/proc shows QEMU's own process") || !require_tool("setsid") {
        return;
    }
    let dir = board(&[]);
    supervise(&dir, &["daemon"]);
    let leave =
        "setsid sh -c 'echo $$ >>\"$P\"; exec sleep 600' & until [ -s \"$P\" ]; do sleep 0.02; done; exit 0";
    let leave = format!("leave() {{ {leave}; }}; trap leave TERM; echo up; while :; do sleep 0.02; done");
    let pids = format!("env = [\"P={}\"]\n", dir.path("pids").display());
    dir.write("programs/daemon.conf", script(&leave) + &pids);
    dir.start_supervisor(QUICK);
    wait_for_line(&dir, "daemon", "up");
    stop(&dir);
    dir.wait_for("daemon: runs in the background (pid ");
    let left: u32 = dir.read("pids").trim().parse().unwrap();
    assert!(!alive(left), "the supervisor has stopped, and {left} runs");
}

#[test]
fn quit_leaves_services_and_ends_programs() {
    let Some(dir) = Supervised::of_services() else { return };
    fs::create_dir(dir.path("programs")).unwrap();
    supervise(&dir, &["jobs", "a"]);
    dir.write("programs/a.conf", script("exec sleep 600") + "after = [\"jobs\"]\n");
    let supervisor = dir.start_supervisor(QUICK);
    let (jobs, program) = (dir.jobs_after(0), pid_after(&dir, "a", 0));
    kill(supervisor, "QUIT");
    wait_until("the supervisor and the program have ended", || !alive(supervisor) && !alive(program));
    assert!(alive(jobs));
    dir.start_supervisor(QUICK);
    dir.wait_for(&format!("jobs: runs already (pid {jobs}), adopted"));
    pid_after(&dir, "a", program);
    stop(&dir);
    wait_until("all have ended", || !alive(jobs));
}

#[test]
fn a_reload_takes_programs_in_and_out_and_restarts_none() {
    let sleep = script("exec sleep 600");
    let dir = board(&[("a", &sleep), ("b", &sleep)]);
    dir.write("programs/c.conf", format!("{sleep}after = [\"b\"]\n"));
    dir.start_supervisor(QUICK);
    let (a, b) = (pid_after(&dir, "a", 0), pid_after(&dir, "b", 0));
    // A set with one bad file changes nothing.
    supervise(&dir, &["b", "c", "d"]);
    dir.write("programs/d.conf", "command = 1\n");
    let ran = dir.zigsvc(&["reload", "supervisor"]).expect(6);
    assert!(ran.err.contains("/programs/d.conf:1: command must be"), "{ran:?}");
    kill(dir.pid(), "HUP");
    dir.wait_for("config not reloaded, the old one stays: ");
    assert!(dir.read(LOG).contains("/programs/d.conf:1: command must be"));
    assert!(alive(a) && alive(b) && dir.count("c: ") == 0);
    supervise(&dir, &["b", "c"]);
    dir.zigsvc(&["reload", "supervisor"]).expect(0);
    dir.wait_for("a: no longer supervised, and ended");
    wait_until("it has ended", || !alive(a));
    let c = pid_after(&dir, "c", 0);
    // It is taken in again, and the others keep their processes.
    supervise(&dir, &["a", "b", "c"]);
    dir.zigsvc(&["reload", "supervisor"]).expect(0);
    pid_after(&dir, "a", a);
    assert!(alive(b) && alive(c));
    assert_eq!((dir.count("b: running (pid "), dir.count("c: running (pid ")), (1, 1));
    stop(&dir);
}

#[test]
fn a_program_that_does_not_touch_its_file_is_started_again() {
    let dir = board(&[]);
    let file = dir.path("alive");
    supervise(&dir, &["good", "hung"]);
    let touch = "while :; do touch \"$F\"; sleep 0.05; done";
    dir.write(
        "programs/good.conf",
        script(touch)
            + &format!("env = [\"F={0}\"]\nhealth_file = \"{0}\"\nstale_after = \"1s\"\n", file.display()),
    );
    let hung = dir.path("hung");
    dir.write(
        "programs/hung.conf",
        script("touch \"$F\"; exec sleep 600")
            + &format!("env = [\"F={0}\"]\nhealth_file = \"{0}\"\nstale_after = \"500ms\"\n", hung.display()),
    );
    dir.start_supervisor(&[
        "log_max=0",
        "interval=100ms",
        "check_interval=100ms",
        "failures=3",
        "stale_after=60s",
    ]);
    let (good, first) = (pid_after(&dir, "good", 0), pid_after(&dir, "hung", 0));
    dir.wait_for("hung: check 3 of 3 failed: ");
    pid_after(&dir, "hung", first);
    assert!(!alive(first) && alive(good));
    assert_eq!(dir.count("good: check 3 of 3"), 0);
    stop(&dir);
}

#[test]
fn a_file_that_breaks_while_its_program_runs_is_named_at_the_next_start() {
    let dir = board(&[("a", &script("exec sleep 600")), ("b", &script("exec sleep 600"))]);
    dir.start_supervisor(QUICK);
    let (a, b) = (pid_after(&dir, "a", 0), pid_after(&dir, "b", 0));
    dir.write("programs/a.conf", "umask = 22\n");
    dir.stays_silent("a: ");
    kill(a, "KILL");
    dir.wait_for("a: cannot be started: ");
    dir.wait_for("/programs/a.conf:1: umask must be");
    fs::remove_file(dir.path("programs/a.conf")).unwrap();
    dir.wait_for("/programs/a.conf: openat: ENOENT");
    dir.write("programs/a.conf", script("echo new; exec sleep 600"));
    pid_after(&dir, "a", a);
    wait_for_line(&dir, "a", "new");
    assert!(alive(b));
    stop(&dir);
}

// ----- the log -----------------------------------------------------------------------

#[test]
fn what_a_program_prints_is_in_its_log_whole_and_escaped() {
    let long = 3000;
    let dir = board(&[
        (
            "a",
            &script(&format!(
                "printf 'one\\r\\ntwo\\033[1m\\tx\\nhead -c {long}\\n'; head -c {long} /dev/zero | tr '\\0' y; echo; printf end; exec sleep 0.1"
            )),
        ),
        (
            "quiet",
            &(script("echo unseen; echo \"$(readlink /proc/$$/fd/1)\" >\"$F\"; exec sleep 600")
                + "log_file = \"null\"\nenv = [\"F=D/quiet\"]\n"),
        ),
        ("bare", &(script("echo bare; exec sleep 600") + "log_time = \"none\"\nlog_file = \"D/other\"\n")),
    ]);
    for name in ["quiet", "bare"] {
        let path = format!("programs/{name}.conf");
        dir.write(&path, dir.read(&path).replace("D/", &format!("{}/", dir.as_arg())));
    }
    dir.start_supervisor(QUICK);
    wait_for_line(&dir, "a", "end");
    let found = lines(&dir, "a");
    assert_eq!(found[..3], ["one", "two\\x1b[1m\tx", &format!("head -c {long}")]);
    let joined: String = found[3..]
        .iter()
        .take_while(|line| line.as_str() != "end")
        .map(|line| line.trim_start_matches("+ "))
        .collect();
    assert_eq!(joined.len(), long);
    assert!(found[4].starts_with("+ y") && !found[3].starts_with('+'));
    assert!(dir.read("zigsvc-a.log").lines().all(|line| line.starts_with("[2")));
    wait_until("both others run", || dir.read("other") == "bare\n" && !dir.read("quiet").is_empty());
    if !under_qemu() {
        assert_eq!(dir.read("quiet"), "/dev/null\n");
    }
    assert!(!dir.path("zigsvc-quiet.log").exists());
    stop(&dir);
}

#[test]
fn the_log_of_a_program_rotates_by_its_own_limits() {
    let dir = board(&[(
        "a",
        &(script("i=0; while [ $i -lt 1200 ]; do echo line $i; i=$((i+1)); done; echo over; exec sleep 600")
            + "log_max = 2000\nlog_keep = 3\nlog_time = \"none\"\n"),
    )]);
    let supervisor = dir.start_supervisor(QUICK);
    wait_until("all is written", || dir.read("zigsvc-a.log").ends_with("over\n"));
    let mut all = String::new();
    for name in ["zigsvc-a.log.3", "zigsvc-a.log.2", "zigsvc-a.log.1", "zigsvc-a.log"] {
        let text = dir.read(name);
        assert!(text.len() <= 2000 && text.ends_with('\n'), "{name}");
        all += &text;
    }
    assert!(!dir.path("zigsvc-a.log.4").exists());
    let numbers: Vec<u32> = all.lines().filter_map(|line| line.strip_prefix("line ")?.parse().ok()).collect();
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1) && numbers.last() == Some(&1199),
        "{numbers:?}"
    );
    // USR1 rotates it, and a log that was moved away comes back.
    kill(supervisor, "USR1");
    wait_until("it was rotated", || dir.read("zigsvc-a.log").is_empty());
    stop(&dir);
}

#[test]
fn doctor_looks_at_commands_that_are_not_there() {
    let dir = board(&[
        ("good", "command = [\"/bin/sh\"]\n"),
        ("gone", "command = [\"/no/such\"]\n"),
        ("folder", "command = [\"/bin\"]\n"),
    ]);
    let shown = dir.zigsvc(&["doctor"]).out;
    for line in [
        "ok    program: good: /bin/sh\n",
        "warn  program: gone: /no/such: there is no such file; ",
        "warn  program: folder: /bin: there is no such file; ",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    dir.write("programs/gone.conf", "command = 1\n");
    assert!(dir.zigsvc(&["doctor"]).expect(1).out.contains("/programs/gone.conf:1: command must be"));
}

// ----- small and quiet ---------------------------------------------------------------

#[test]
fn sixteen_programs_with_logs_stay_within_the_budget() {
    if !require_native("the memory would be QEMU's") {
        return;
    }
    let _measuring = crate::support::measuring();
    let names: Vec<String> = (0..16).map(|number| format!("p{number}")).collect();
    let text = script("echo up; exec sleep 600");
    let dir = board(&names.iter().map(|name| (name.as_str(), text.as_str())).collect::<Vec<_>>());
    let pid = dir.start_supervisor(&["log_max=0", "interval=200ms"]);
    for name in &names {
        wait_for_line(&dir, name, "up");
    }
    // The memory of the start is given back with a heartbeat.
    let beats = dir.beats();
    wait_until("five heartbeats came", || dir.beats() >= beats + 5);
    let number = |name: &str| proc_status(pid, name).trim_end_matches(" kB").trim().parse::<u64>().unwrap();
    let (rss, anonymous) = (number("VmRSS"), number("RssAnon"));
    assert!(anonymous <= 96, "{anonymous} KiB anonymous, {rss} KiB in all");
    if !cfg!(debug_assertions) {
        assert!(rss <= 320, "{rss} KiB");
    }
    // No wake-up but the heartbeat.
    let switches = || number("voluntary_ctxt_switches");
    let (beats, before) = (dir.beats(), switches());
    wait_until("twenty heartbeats came", || dir.beats() >= beats + 20);
    let (beats, woken) = (dir.beats() - beats, switches() - before);
    assert!(woken <= beats + 3, "{woken} wake-ups in {beats} heartbeats");
    stop(&dir);
}

#[test]
fn the_limits_of_programs_are_printed() {
    let shown = run(&["limits"]).expect(0).out;
    for name in ["programs ", "program_name ", "command_words ", "command "] {
        assert!(shown.lines().any(|line| line.starts_with(name)), "{shown}");
    }
}
