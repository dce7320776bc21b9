//! The socket of the supervisor, the commands that use it, and `status --all`.

use crate::support::control::{Client, NOBODY, connect_as, expect_error, field, require_users};
use crate::support::supervisor::{LOG, QUICK, Supervised, parent_of};
use crate::support::{Dir, alive, finish, kill, kill_hard, process_state, program, require_tool, wait_until};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

/// The socket.
const SOCKET: &str = "zigsvc-supervisor.sock";

fn connect(dir: &Dir) -> Client {
    Client::over(UnixStream::connect(dir.path(SOCKET)).unwrap())
}

/// Waits until the supervisor answers that a process is in this state, and returns its line.
#[track_caller]
fn wait_for_state(dir: &Dir, name: &str, state: &str) -> String {
    let mut line = String::new();
    wait_until(&format!("{name} is {state}"), || {
        line = connect(dir).ask(&format!("status {name}"));
        field(&line, "state") == state
    });
    line
}

/// Returns the rows of `status --all --json`.
#[track_caller]
fn rows(dir: &Dir, code: i32) -> Vec<serde_json::Value> {
    let ran = dir.zigsvc(&["status", "--all", "--json"]).expect(code);
    ran.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

/// Returns the row of a service or program.
#[track_caller]
fn row<'a>(rows: &'a [serde_json::Value], name: &str) -> &'a serde_json::Value {
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{name} in {rows:?}"))
}

// ----- the socket --------------------------------------------------------------

#[test]
fn the_socket_speaks_the_language_of_the_control_socket() {
    let Some(dir) = Supervised::of_services() else { return };
    let pid = dir.start_supervisor(QUICK);
    let jobs = dir.lock_holder("zigsvc.pid").unwrap();
    let mut client = connect(&dir);
    let status = client.ask("status");
    assert_eq!(field(&status, "pid"), pid.to_string());
    assert_eq!((field(&status, "state"), field(&status, "jobs")), ("running", &*format!("running:{jobs}")));
    let line = format!("name=jobs kind=service state=running pid={jobs} uptime=");
    assert!(client.ask("status jobs").starts_with(&format!("ok {line}")));
    let list = client.ask_list("list");
    assert!(list.len() == 1 && list[0].starts_with(&line), "{list:?}");
    assert!(client.ask_list("list jobs").is_empty());
    let help = client.ask_list("help");
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/supervision.md")).unwrap();
    for request in &help {
        let (call, text) = request.split_once(": ").unwrap();
        assert!(
            page.contains(&format!("| `{}` |", call.split(' ').next().unwrap()))
                || page.contains(&format!("| `{call}` |")),
            "{call}"
        );
        let is_owners = text.ends_with(" (owner only)");
        assert_eq!(
            is_owners,
            !["status", "list", "help"].contains(&call.split(' ').next().unwrap()),
            "{call}"
        );
    }
    for (request, code) in [
        ("", "bad-request"),
        ("STATUS", "bad-request"),
        ("status nobody", "no-program"),
        ("status supervisor", "no-program"),
        ("list nobody", "no-program"),
        ("start", "no-program"),
        ("stop nobody", "no-program"),
        ("stop jobs now", "bad-request"),
        ("reload jobs now", "bad-request"),
        ("signal jobs", "bad-request"),
        ("signal jobs SIGNOTHING", "bad-request"),
        ("signal jobs 0", "bad-request"),
        ("signal jobs 32", "bad-request"),
        ("help me", "bad-request"),
    ] {
        expect_error(&client.ask(request), code);
    }
    expect_error(&client.ask(&"x".repeat(1101)), "too-long");
    // Requests are sent ahead, with blanks and carriage returns, and the last one is cut off.
    client.send("status\r\n  status \t jobs \n\nstatus jobs");
    client.end_sending();
    let answers = client.rest();
    assert_eq!(answers.len(), 4, "{answers:?}");
    assert!(answers[0].starts_with("ok pid=") && answers[1].starts_with("ok name=jobs "), "{answers:?}");
    expect_error(&answers[2], "bad-request");
    expect_error(&answers[3], "bad-request");
    // Nothing of this has disturbed anything.
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(jobs));
    assert_eq!(dir.lock_holder("zigsvc-supervisor.pid"), Some(pid));
}

#[test]
fn sixteen_clients_are_served_and_silent_ones_make_room() {
    let Some(dir) = Supervised::of_services() else { return };
    dir.start_supervisor(QUICK);
    // One place is for root alone.
    let places = if rustix::process::geteuid().is_root() { 16 } else { 15 };
    let mut clients: Vec<_> = (0..places - 2).map(|_| connect(&dir)).collect();
    for client in &mut clients {
        assert!(client.ask("status jobs").starts_with("ok "));
    }
    // Two more ask for nothing, and have to go for clients that do.
    let silent = [connect(&dir), connect(&dir)];
    // A client that came in the same moment is not closed for the next one.
    let replacement = || {
        let mut client = None;
        wait_until("a silent client is closed", || {
            let mut next = connect(&dir);
            // A connection without a place may be closed before the request is sent.
            let _ = next.try_send(b"status\n");
            let answer = next.bytes().unwrap_or_default();
            let is_served = answer.starts_with(b"ok ");
            client = is_served.then_some(next);
            is_served
        });
        client.unwrap()
    };
    let (mut last, _more) = (replacement(), replacement());
    for mut client in silent {
        assert_eq!(client.bytes(), None, "it was closed");
    }
    expect_error(&connect(&dir).line(), "busy");
    // Half a request and a flood without a newline delay no other client.
    clients[1].try_send(b"stat").ok();
    clients[0].send_some(&vec![b'x'; 300_000]);
    for _ in 0..100 {
        assert!(last.ask("status jobs").starts_with("ok "));
    }
}

#[test]
fn guests_may_look_and_no_more_and_others_not_even_that() {
    let Some(dir) = Supervised::of_services() else { return };
    if !require_users(&dir) {
        return;
    }
    let other = NOBODY - 1;
    dir.start_supervisor(&[QUICK, &[&*format!("allow_uid={NOBODY}")]].concat());
    let jobs = dir.lock_holder("zigsvc.pid").unwrap();
    let as_user = |uid| Client::over(connect_as(&dir.path(SOCKET), uid, uid, &[]).unwrap());
    let mut guest = as_user(NOBODY);
    assert!(guest.ask("status").starts_with("ok ") && guest.ask("status jobs").starts_with("ok "));
    assert_eq!((guest.ask_list("list").len(), guest.ask_list("help").len()), (1, 8));
    for request in
        ["start jobs", "stop jobs", "restart jobs", "reload jobs", "signal jobs KILL", "stop nobody"]
    {
        expect_error(&guest.ask(request), "denied");
    }
    let mut stranger = as_user(other);
    expect_error(&stranger.ask("status"), "denied");
    assert_eq!(stranger.bytes(), None, "the connection is closed");
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(jobs));
    dir.wait_for(&format!("control: denied to uid {other} "));
    assert_eq!(dir.count(&format!("control: denied to uid {NOBODY} ")), 1, "once a connection");
    // Without the key no other user can connect.
    dir.zigsvc(&["stop", "supervisor"]).expect(0);
    dir.start_supervisor(QUICK);
    let refused = connect_as(&dir.path(SOCKET), NOBODY, NOBODY, &[]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
}

#[test]
fn a_stop_over_the_socket_lasts_until_a_start() {
    let Some(dir) = Supervised::of_services() else { return };
    let supervisor = dir.start_supervisor(QUICK);
    let first = dir.lock_holder("zigsvc.pid").unwrap();
    let mut client = connect(&dir);
    assert_eq!(field(&client.ask("stop jobs"), "pid"), first.to_string());
    let line = wait_for_state(&dir, "jobs", "stopped");
    assert_eq!((field(&line, "exit"), field(&line, "restarts")), ("0", "0"));
    assert!(!alive(first) && dir.path("zigsvc.down").exists());
    assert!(dir.read("zigsvc.log").contains("daemon stopped"), "it was asked, not killed");
    // Neither a look of the supervisor nor another supervisor starts it.
    dir.stays_silent("jobs: running");
    dir.zigsvc(&["stop", "supervisor"]).expect(0);
    let supervisor = if alive(supervisor) { supervisor } else { dir.start_supervisor(QUICK) };
    wait_for_state(&dir, "jobs", "stopped");
    let mut client = connect(&dir);
    client.ask("start jobs");
    let line = wait_for_state(&dir, "jobs", "running");
    let second: u32 = field(&line, "pid").parse().unwrap();
    assert_eq!(parent_of(second), Some(supervisor));
    assert!(!dir.path("zigsvc.down").exists());
    // A start of a process that runs changes nothing, and a restart replaces it at once.
    assert_eq!(field(&client.ask("start jobs"), "pid"), second.to_string());
    client.ask("restart jobs");
    let third = dir.jobs_after(second);
    let line = wait_for_state(&dir, "jobs", "running");
    assert_eq!((field(&line, "pid"), field(&line, "restarts")), (&*third.to_string(), "1"));
    assert_eq!(dir.count("jobs: ended with exit status 0"), 1);
    assert_eq!(dir.count("asks for restart"), 1);
    // A stop that is taken back while the process ends.
    client.ask("stop jobs");
    client.ask("start jobs");
    let fourth = dir.jobs_after(third);
    wait_for_state(&dir, "jobs", "running");
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(fourth));
    // The signal of a user is no order of the supervisor: its end is a death.
    client.ask("signal jobs KILL");
    dir.jobs_after(fourth);
    wait_until("the death is logged", || dir.count("jobs: killed by signal 9") == 1);
}

#[test]
fn the_socket_comes_back_and_is_gone_after_the_end() {
    let Some(dir) = Supervised::of_services() else { return };
    dir.start_supervisor(QUICK);
    std::fs::remove_file(dir.path(SOCKET)).unwrap();
    wait_until("it is made again", || UnixStream::connect(dir.path(SOCKET)).is_ok());
    dir.zigsvc(&["reload", "supervisor"]).expect(0);
    wait_until("the reload is done", || dir.count("SIGHUP received") == 1);
    assert!(connect(&dir).ask("status").contains(" reloads=1 "));
    dir.zigsvc(&["stop", "supervisor"]).expect(0);
    assert!(!dir.path(SOCKET).exists());
    // A killed supervisor leaves the file, and the next one takes its place.
    let pid = dir.start_supervisor(QUICK);
    kill_hard(pid);
    wait_until("it is gone", || !alive(pid));
    assert!(dir.path(SOCKET).exists());
    dir.start_supervisor(QUICK);
    assert!(connect(&dir).ask("status").starts_with("ok "));
}

// ----- signal ------------------------------------------------------------------

#[test]
fn signal_sends_what_is_named_to_what_is_named() {
    let Some(dir) = Supervised::of_services() else { return };
    dir.start_supervisor(QUICK);
    let jobs = dir.lock_holder("zigsvc.pid").unwrap();
    for (name, count) in [("HUP", 1), ("SIGHUP", 2), ("1", 3)] {
        dir.zigsvc(&["signal", "jobs", name]).expect(0);
        wait_until("it has read its configuration", || {
            dir.read("zigsvc.log").matches("SIGHUP received").count() == count
        });
    }
    dir.zigsvc(&["signal", "jobs", "STOP"]).expect(0);
    wait_until("it stands still", || process_state(jobs) == Some('T'));
    dir.zigsvc(&["signal", "jobs", "CONT"]).expect(0);
    wait_until("it runs again", || process_state(jobs) != Some('T'));
    for (name, signal) in
        [("jobs", "hup"), ("jobs", "0"), ("jobs", "NOTHING"), ("nothing", "HUP"), ("nothing", "x")]
    {
        let ran = dir.zigsvc(&["signal", name, signal]).expect(2);
        assert!(ran.err.contains("zigsvc help signal") && ran.err.lines().count() == 1, "{}", ran.err);
    }
    for words in [&["signal"][..], &["signal", "jobs"], &["signal", "jobs", "HUP", "HUP"]] {
        dir.zigsvc(words).expect(2);
    }
    assert!(
        dir.zigsvc(&["signal", "hub", "HUP"]).expect(7).err.starts_with("zigsvc: hub: not running (tried ")
    );
    assert_eq!(dir.lock_holder("zigsvc.pid"), Some(jobs));
    dir.zigsvc(&["stop", "supervisor"]).expect(0);
    dir.zigsvc(&["signal", "jobs", "HUP"]).expect(7);
}

#[test]
fn an_unknown_name_is_a_mistake_and_a_known_one_needs_a_supervisor() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("programs")).unwrap();
    dir.write("programs/poller.conf", "command = [\"/bin/sleep\", \"600\"]\n");
    dir.write("zigsvc.conf", "supervise = [\"poller\"]\n");
    for command in ["start", "stop", "restart", "reload", "status"] {
        let ran = dir.zigsvc(&[command, "poler"]).expect(2);
        assert!(ran.err.contains("unknown service \"poler\""), "{}", ran.err);
        assert!(ran.err.contains(&format!("zigsvc help {command}")), "{}", ran.err);
        let ran = dir.zigsvc(&[command, "poller"]).expect(7);
        assert_eq!(ran.err, crate::support::not_running(&dir, "supervisor", SOCKET));
        assert_eq!(ran.out, "");
    }
    for command in ["run", "rotate"] {
        let ran = dir.zigsvc(&[command, "poller"]).expect(2);
        assert!(ran.err.contains("unknown service \"poller\""), "{}", ran.err);
    }
    dir.zigsvc(&["signal", "poller", "HUP"]).expect(7);
    assert!(!dir.path("zigsvc.pid").exists(), "nothing was started");
}

// ----- status --all ------------------------------------------------------------

#[test]
fn the_table_has_a_line_for_each_service_and_the_worst_of_their_codes() {
    let Some(dir) = Supervised::of_services() else { return };
    // Without a supervisor the services themselves are looked at.
    let ran = dir.zigsvc(&["status", "--all"]).expect(3);
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!((lines.len(), ran.err.as_str()), (2, ""));
    assert!(lines[0].starts_with("NAME ") && lines[1].starts_with("jobs stopped "), "{}", ran.out);
    let jobs = dir.start(&["interval=100ms", "stale_after=60s"]);
    let alone = rows(&dir, 0);
    assert_eq!(alone.len(), 1);
    assert_eq!((&alone[0]["pid"], &alone[0]["restarts"]), (&jobs.into(), &serde_json::Value::Null));
    // With one, the supervisor comes first, and what it alone knows is there.
    let supervisor = dir.start_supervisor(&[QUICK, &["supervise=[\"hub\", \"jobs\"]"]].concat());
    kill_hard(jobs);
    let jobs = dir.jobs_after(jobs);
    wait_for_state(&dir, "jobs", "running");
    let all = rows(&dir, 0);
    let names: Vec<_> = all.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["supervisor", "jobs", "hub"]);
    for row in &all {
        let members: Vec<_> = row.as_object().unwrap().keys().map(String::as_str).collect();
        let mut wanted = [
            "name", "kind", "state", "pid", "uptime", "restarts", "exit", "signal", "health", "degraded",
            "changed",
        ];
        wanted.sort_unstable();
        assert_eq!(members, wanted);
        assert_eq!(
            (&row["kind"], &row["state"], &row["health"]),
            (&"service".into(), &"running".into(), &"fresh".into())
        );
        assert_eq!((&row["degraded"], &row["changed"]), (&serde_json::json!([]), &false.into()));
    }
    assert_eq!(row(&all, "supervisor")["pid"], supervisor);
    let shown = row(&all, "jobs");
    assert_eq!((&shown["pid"], &shown["restarts"]), (&jobs.into(), &1.into()));
    assert!(shown["exit"].is_null(), "it was no child, so only its death is known: {shown}");
    kill_hard(jobs);
    let jobs = dir.jobs_after(jobs);
    wait_until("its signal is shown", || row(&rows(&dir, 0), "jobs")["signal"] == 9);
    let text = dir.zigsvc(&["status", "--all"]).expect(0).out;
    let line = text.lines().find(|line| line.starts_with("jobs ")).unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(words[..3], ["jobs", "running", &*jobs.to_string()], "{line}");
    assert_eq!((words[4], words[5]), ("2", "KILL"), "{line}");
    assert!(!text.contains('\x1b'), "no colours where there is no terminal");
    let header = text.lines().next().unwrap();
    for (heading, word) in
        [("STATE", "running"), ("PID", words[2]), ("LAST END", "KILL"), ("HEALTH", "fresh")]
    {
        assert_eq!(header.find(heading), line.find(word), "{heading}\n{text}");
    }
    // Held is a wish of the user; a service that stands still is unknown.
    dir.zigsvc(&["hold"]).expect(0);
    assert_eq!(row(&rows(&dir, 0), "jobs")["degraded"], serde_json::json!(["held"]));
    kill(jobs, "STOP");
    wait_until("it stands still", || process_state(jobs) == Some('T'));
    assert_eq!(row(&rows(&dir, 4), "jobs")["state"], "unknown");
    kill(jobs, "CONT");
    dir.zigsvc(&["stop", "hub"]).expect(0);
    assert_eq!(row(&rows(&dir, 0), "hub")["state"], "stopped");
    dir.zigsvc(&["stop", "supervisor"]).expect(0);
    assert!(rows(&dir, 3).iter().all(|row| row["state"] == "stopped" && row["pid"].is_null()));
    // A supervisor that stands still is unknown, and delays nothing for long.
    let supervisor = dir.start_supervisor(QUICK);
    kill(supervisor, "STOP");
    wait_until("it stands still", || process_state(supervisor) == Some('T'));
    let all = rows(&dir, 4);
    assert_eq!(
        (&row(&all, "supervisor")["state"], &row(&all, "jobs")["state"]),
        (&"unknown".into(), &"running".into())
    );
    kill(supervisor, "CONT");
    dir.zigsvc(&["stop", "supervisor"]).expect(0);
    // A death that nothing mends.
    let jobs = dir.start(&[]);
    kill_hard(jobs);
    wait_until("it is dead", || !alive(jobs));
    assert_eq!(row(&rows(&dir, 1), "jobs")["state"], "dead");
    for words in [&["--json", "--prometheus"][..], &["jobs"], &["nothing"]] {
        dir.zigsvc(&[&["status", "--all"], words].concat()).expect(2);
    }
}

#[test]
fn metrics_of_all_are_described_once_each() {
    let Some(dir) = Supervised::of_services() else { return };
    dir.start_supervisor(&[QUICK, &["supervise=[\"jobs\", \"hub\", \"opener\", \"collector\"]"]].concat());
    let out = dir.zigsvc(&["status", "--all", "--prometheus"]).expect(0).out;
    let mut described: Vec<_> = out.lines().filter(|line| line.starts_with("# HELP ")).collect();
    let count = described.len();
    described.sort_unstable();
    described.dedup();
    assert_eq!(described.len(), count, "{out}");
    for name in ["supervisor", "jobs", "hub", "opener", "collector"] {
        assert!(out.contains(&format!("zigsvc_up{{service=\"{name}\"}} 1\n")), "{out}");
    }
    assert!(out.contains("zigsvc_restarts_total{service=\"hub\"} 0\n"), "{out}");
    assert!(out.contains("zigsvc_degraded{service=\"jobs\",state=\"spool\"} 0\n"), "{out}");
    if !require_tool("promtool") {
        return;
    }
    let mut promtool = program("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    let ran = finish(promtool, Some(out.as_bytes())).expect(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", ""));
}

#[test]
fn a_stop_that_cannot_be_marked_is_remembered_by_the_supervisor() {
    let Some(dir) = Supervised::of_services() else { return };
    dir.start_supervisor(QUICK);
    let jobs = dir.lock_holder("zigsvc.pid").unwrap();
    // No file can have this name.
    std::fs::create_dir(dir.path("zigsvc.down")).unwrap();
    assert_eq!(dir.zigsvc(&["stop"]).expect(0).out, "zigsvc: jobs stopped\n");
    assert!(!alive(jobs));
    wait_for_state(&dir, "jobs", "stopped");
    dir.stays_silent("jobs: running");
    assert_eq!(dir.read(LOG).matches("SIGKILL").count(), 0);
    // A start by hand is adopted, and its death is a death again.
    let second = dir.start(&[]);
    dir.wait_for(&format!("jobs: runs already (pid {second}), adopted"));
    kill_hard(second);
    dir.jobs_after(second);
}
