//! The processes that a killed `supervisor -- CMD` leaves, their end by the next one, and `status`.

use crate::support::supervisor::{LOG, Supervised, binary, parent_of, run_command};
use crate::support::{
    Running, alive, finish, kill, kill_hard, process_state, program, require, require_native, require_root,
    require_tool, wait_until,
};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Stdio;

/// Starts `supervisor -- sh -c SCRIPT` in the background with these options.
#[track_caller]
fn start_script(dir: &Supervised, options: &[&str], script: &str) {
    let mut command = dir.command();
    for option in ["log_max=0"].iter().chain(options) {
        command.args(["-o", option]);
    }
    command.args(["start", "supervisor", "--", "sh", "-c", script]);
    finish(command, None).expect(0);
}

/// Returns a program with two workers, one with an environment of its own, one with a long one, and a
/// third process that has left for a session of its own. It notes them in `pids`, and each life
/// in `lives`.
fn workers(dir: &Supervised, trap: &str) -> String {
    let d = dir.as_arg();
    format!(
        "echo life >>{d}/lives; {trap}
         env -i sleep 600 & echo $! >>{d}/pids
         LONG=$(head -c 5000 /dev/zero | tr '\\0' x) sh -c \"{trap} echo \\$\\$ >>{d}/pids; exec sleep 600\" &
         setsid sh -c 'echo $$ >{d}/away; exec sleep 600' &
         while :; do wait; done"
    )
}

/// Returns the PIDs of the workers of a life, waiting until they are noted.
fn pids(dir: &Supervised, life: usize) -> Vec<u32> {
    let mut pids: Vec<u32> = Vec::new();
    wait_until("the workers run", || {
        pids = dir.read("pids").lines().filter_map(|line| line.parse().ok()).collect();
        pids.len() == 2 * life && !dir.read("away").is_empty()
    });
    pids.split_off(2 * (life - 1))
}

/// Covers a report: the next start put a second tree beside the first, which still lived after
/// `stop`.
#[test]
fn the_next_one_ends_what_a_killed_one_left_before_it_starts_anything() {
    if !require_native("/proc shows QEMU's own process") {
        return;
    }
    // The program ends by TERM and leaves its workers, or nothing of it does.
    for (trap, options) in [("", &[][..]), ("trap '' TERM;", &["stop_timeout=300ms"][..])] {
        let dir = Supervised::new();
        let script = workers(&dir, trap);
        start_script(&dir, options, &script);
        let (mut life, mut ended) = (1, 0);
        let mut old = pids(&dir, life);
        while life < 3 {
            let leader = dir.program_after(0);
            let away: u32 = dir.read("away").trim().parse().unwrap();
            // The next life writes it again.
            fs::remove_file(dir.path("away")).unwrap();
            kill_hard(dir.pid());
            wait_until("its leader has ended, if it does", || !trap.is_empty() || !alive(leader));
            assert!(old.iter().all(|pid| alive(*pid)));
            start_script(&dir, options, &script);
            ended += 1;
            // `start` gives 0 when the program runs, so all of the old tree has ended.
            assert!(!old.iter().chain([&leader]).any(|pid| alive(*pid)), "{}", dir.read(LOG));
            let begin =
                format!("[WARN] sh: an earlier supervisor has left processes: SIGTERM to group {leader}");
            assert_eq!(dir.count(&begin), 1, "{}", dir.read(LOG));
            let killed = dir.count(&format!("[ERROR] sh: has not ended: SIGKILL to pid {leader}"));
            assert_eq!(killed, usize::from(!trap.is_empty()));
            assert_eq!(dir.count("[INFO] sh: the processes of the earlier supervisor have ended"), ended);
            // A process that has left the group is not its own any more.
            assert!(alive(away));
            kill(away, "KILL");
            life += 1;
            old = pids(&dir, life);
        }
        assert_eq!(dir.read("lives").lines().count(), 3);
        let (away, leader) = (dir.read("away"), dir.program_after(0));
        dir.zigsvc(&["stop", "supervisor"]).expect(0);
        wait_until("nothing of its group lives", || !old.iter().chain([&leader]).any(|pid| alive(*pid)));
        for file in ["running", "state", "running.new", "state.new"] {
            assert!(!dir.path(&format!("zigsvc-supervisor.{file}")).exists(), "{file}");
        }
        kill(away.trim().parse().unwrap(), "KILL");
    }
}

#[test]
fn a_stop_waits_for_what_is_left_and_a_second_one_does_not() {
    if !require_native("/proc shows QEMU's own process") {
        return;
    }
    let dir = Supervised::new();
    let script = workers(&dir, "trap '' TERM;");
    start_script(&dir, &[], &script);
    let old = pids(&dir, 1);
    let leader = dir.program_after(0);
    kill_hard(dir.pid());
    let options = ["log_max=0", "stop_timeout=1h"];
    let mut running = Running::new(run_command(&dir, &options, &["--", "sh", "-c", &script]));
    dir.wait_for("an earlier supervisor has left processes");
    let supervisor = dir.pid();
    let line = dir.status(supervisor);
    assert!(line.contains(&format!("sh=ending:{leader}")), "{line}");
    kill(supervisor, "TERM");
    dir.wait_for("SIGTERM received, stopping");
    assert!(alive(leader) && running.runs());
    kill(supervisor, "TERM");
    assert_eq!(running.code(), 0);
    assert!(!old.iter().chain([&leader]).any(|pid| alive(*pid)));
    assert_eq!(dir.read("lives").lines().count(), 1, "nothing was started");
    kill(dir.read("away").trim().parse().unwrap(), "KILL");
}

/// Changes the note of a killed supervisor.
type Change<'a> = &'a dyn Fn(&Supervised);

#[test]
fn only_a_note_of_its_own_and_of_this_boot_names_what_is_left() {
    if !require_native("/proc shows QEMU's own process") || !require_root() {
        return;
    }
    let note = "zigsvc-supervisor.running";
    let changes: [(&str, Change<'_>); 5] = [
        ("another user's", &|dir| chown(dir.path(note), Some(54321), None).unwrap()),
        ("written by others", &|dir| {
            fs::set_permissions(dir.path(note), fs::Permissions::from_mode(0o622)).unwrap();
        }),
        ("of another boot", &|dir| {
            let text = dir.read(note);
            dir.write(note, format!("00000000-1111-2222-3333-444444444444{}", &text[36..]));
        }),
        ("no note", &|dir| dir.write(note, "garbage\n")),
        ("a link", &|dir| {
            fs::rename(dir.path(note), dir.path("elsewhere")).unwrap();
            std::os::unix::fs::symlink(dir.path("elsewhere"), dir.path(note)).unwrap();
        }),
    ];
    for (what, change) in changes {
        let dir = Supervised::new();
        let script = workers(&dir, "");
        start_script(&dir, &[], &script);
        let old = pids(&dir, 1);
        let away = dir.read("away");
        let mode = fs::metadata(dir.path(note)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "it holds the token");
        kill_hard(dir.pid());
        change(&dir);
        start_script(&dir, &[], &script);
        pids(&dir, 2);
        assert!(old.iter().all(|pid| alive(*pid)), "{what}");
        assert_eq!(dir.count("an earlier supervisor"), 0, "{what}");
        let next = dir.read("away");
        dir.zigsvc(&["stop", "supervisor"]).expect(0);
        for pid in old.iter().copied().chain([away, next].iter().map(|pid| pid.trim().parse().unwrap())) {
            kill(pid, "KILL");
        }
    }
}

/// Runs in a PID namespace with few numbers: starts a service with a job, or a program, kills the
/// service, and has an innocent process get the number of the leader. It leads a session with a
/// child, so that only its start distinguishes it from the old group. Then the service is started
/// again.
const REUSE: &str = r#"
    echo 400 >/proc/sys/kernel/pid_max || exit 1
    Z="$0 -d $1"; d=$1; pid_file=$2; program="echo \$\$ >$d/leader; exec sleep 600"
    begin() {
        case $pid_file in
        zigsvc.pid) $Z -o handler=shell start;;
        *) $Z start supervisor -- sh -c "$program";;
        esac
    }
    # The lowest 300 numbers are not given again.
    while ( : ) & [ $! -lt 310 ]; do wait; done
    begin
    [ $pid_file != zigsvc.pid ] || $Z queue "$program"
    while ! [ -s $d/leader ]; do sleep 0.05; done
    leader=$(cat $d/leader); last=0; tries=0
    kill -9 $(cat $d/$pid_file)
    while [ $((tries += 1)) -lt 4000 ]; do
        if [ $last = $((leader - 1)) ]; then
            setsid sh -c "sleep 600 & echo \$! >$d/innocent; wait" &
            [ $! = $leader ] && break
            kill -9 -$! $! 2>/dev/null || :
        fi
        ( : ) & last=$!
        wait $last
    done
    [ $tries -lt 4000 ] || exit 2
    while ! [ -s $d/innocent ]; do sleep 0.05; done
    : >$d/leader
    begin
    while ! [ -s $d/leader ]; do sleep 0.05; done
    [ $(cat $d/leader) != $leader ] || exit 3
    kill -0 $leader && kill -0 $(cat $d/innocent) || exit 4
    sleep 0.3
    kill -0 $leader && kill -0 $(cat $d/innocent) || exit 5
"#;

#[test]
fn a_number_that_was_given_again_is_nothing_that_is_left() {
    let limited = || {
        let mut command = program("unshare");
        command.args(["-pf", "--mount-proc", "sh", "-c", "echo 400 >/proc/sys/kernel/pid_max"]);
        let before = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
        let works = command.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        let after = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
        if before != after {
            fs::write("/proc/sys/kernel/pid_max", &before).unwrap();
        }
        works && before == after
    };
    if !require_native("QEMU has no namespaces")
        || !require_root()
        || !require_tool("unshare")
        || !require(limited(), "pid_max is not one of the PID namespace here")
    {
        return;
    }
    for pid_file in ["zigsvc-supervisor.pid", "zigsvc.pid"] {
        let dir = Supervised::new();
        let mut command = program("unshare");
        command.args(["-pf", "--mount-proc", "--kill-child", "sh", "-c", REUSE]);
        command.arg(binary()).args([dir.as_arg(), pid_file]);
        let ran = finish(command, None);
        assert_eq!(ran.code, 0, "{pid_file}: {ran:?} {}", dir.logs());
        assert_eq!(dir.count("has left processes"), 0);
    }
}

#[test]
fn orphans_of_its_program_become_its_children_and_are_reaped() {
    if !require_native("QEMU's user mode has no child subreaper") {
        return;
    }
    let dir = Supervised::new();
    let d = dir.as_arg();
    let script = format!(
        "(setsid sh -c 'echo $$ >>{d}/orphans; while [ ! -e {d}/end ]; do sleep 0.05; done' &) ; exec sleep 600"
    );
    start_script(&dir, &[], &script);
    let mut orphan = 0;
    wait_until("the orphan runs", || {
        orphan = dir.read("orphans").trim().parse().unwrap_or(0);
        orphan > 0
    });
    let supervisor = dir.pid();
    wait_until("it is the supervisor's", || parent_of(orphan) == Some(supervisor));
    dir.write("end", "");
    wait_until("it is reaped", || process_state(orphan).is_none());
    dir.zigsvc(&["stop", "supervisor"]).expect(0);
}

/// Covers a report: `status` said `running` while CMD died in a loop.
#[test]
fn status_shows_the_restarts_and_that_it_waits_for_the_next_one() {
    let dir = Supervised::new();
    let d = dir.as_arg();
    start_script(&dir, &[], &format!("[ -e {d}/stay ] && exec sleep 600; exit 7"));
    let json = || -> serde_json::Value {
        serde_json::from_str(&dir.zigsvc(&["status", "--json", "supervisor"]).expect(0).out).unwrap()
    };
    dir.wait_for("; restart 3 in 2 s");
    let status = json();
    assert_eq!((&status["state"], &status["degraded"]), (&"running".into(), &serde_json::json!([])));
    assert!(status["restarts"].as_u64().unwrap() >= 3, "{status}");
    assert!(status["sh"] == "waiting:0", "{status}");
    let screen = dir.zigsvc(&["status", "supervisor"]).expect(0).out;
    assert!(screen.contains("\n  restarts   ") && screen.contains("\n  sh         waiting:0\n"), "{screen}");
    assert!(screen.ends_with("\n  degraded   none\n"), "{screen}");
    let metrics = dir.zigsvc(&["status", "--prometheus", "supervisor"]).expect(0).out;
    assert!(
        metrics.contains("zigsvc_degraded{service=\"supervisor\",state=\"stuck-process\"} 0"),
        "{metrics}"
    );
    dir.write("stay", "");
    let program = dir.program_after(0);
    wait_until("it shows the program", || json()["sh"] == format!("running:{program}"));
    // A line of another process or of another boot is not shown, and none is no error.
    let state = dir.read("zigsvc-supervisor.state");
    for text in [state.replace("pid=", "pid=1"), state.replace("boot=", "boot=0"), String::new()] {
        dir.write("zigsvc-supervisor.state", &text);
        let screen = dir.zigsvc(&["status", "supervisor"]).expect(0).out;
        assert!(!screen.contains("restarts"), "{screen}");
    }
    fs::remove_file(dir.path("zigsvc-supervisor.state")).unwrap();
    dir.zigsvc(&["status", "supervisor"]).expect(0);
    kill(program, "KILL");
    dir.program_after(program);
    wait_until("it is written again", || json()["restarts"].is_u64());
    dir.zigsvc(&["stop", "supervisor"]).expect(0);
    assert!(!dir.path("zigsvc-supervisor.state").exists());
}
