//! `status`, for a person, a program and Prometheus, and its exit codes.

use super::support::{Beside, GATED, Peer, Played, full_device, wait_for_begun};
use crate::support::control::start_script;
use crate::support::{Dir, alive, finish, kill, outcome, process_state, wait_for_jobs, wait_until};
use core::time::Duration;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::Instant;
use zigsvc::proto::service::Service;
use zigsvc::state::degraded::DegradedState;

#[track_caller]
fn json_of(dir: &Dir, code: i32) -> Value {
    let ran = dir.zigsvc(&["status", "--json"]).expect(code);
    assert_eq!((ran.err.as_str(), ran.out.lines().count()), ("", 1), "{ran:?}");
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// Returns the fields of `status` that docs/control.md names, without `restarts`, which the
/// supervisor alone has.
fn documented_fields() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/control.md");
    let manual = fs::read_to_string(path).unwrap();
    let (_, rows) = manual.split_once("\n| field | ").unwrap();
    let rows = rows.lines().skip(2).take_while(|row| row.starts_with("| `"));
    let names = rows.map(|row| row.split('`').nth(1).unwrap()).filter(|name| *name != "restarts");
    ["pid", "state", "degraded"].into_iter().chain(names).map(str::to_owned).collect()
}

/// Returns the name that a field of the socket's answer has in the JSON object.
fn in_json(field: &str) -> &str {
    match field {
        "state" => "phase",
        "running" => "jobs_running",
        field => field,
    }
}

/// Starts a service that has counted something: one job dead, one running, two waiting, one
/// done.
#[track_caller]
fn start_with_jobs(dir: &Dir, options: &[&str]) -> u32 {
    let handler = format!("case $1 in bad*) exit 9;; good*) exit 0;; esac\n{GATED}");
    let pid =
        start_script(dir, &handler, &[&["retries=1", "retry_delay=10ms", "queue_max=50"], options].concat());
    dir.zigsvc(&["queue", "--wait", "bad"]).expect(9);
    dir.zigsvc(&["queue", "--wait", "good"]).expect(0);
    dir.zigsvc_with_input(&["queue", "-"], b"runs\nwaits\nwaits, too\n").expect(0);
    wait_for_begun(dir, "runs");
    pid
}

// ----- for a person ----------------------------------------------------------------

#[test]
fn a_person_sees_one_screen_with_every_number() {
    let dir = Dir::new();
    let pid = start_with_jobs(&dir, &["interval=100ms"]);
    let ran = dir.zigsvc(&["status"]).expect(0);
    assert_eq!(ran.err, "");
    let mut lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].starts_with(&format!("jobs: running (pid {pid}), up ")), "{ran:?}");
    assert!(lines[0].ends_with(" s"), "{ran:?}");
    assert!(lines[1].starts_with("  heartbeat  fresh, ") && lines[1].ends_with(" s old"), "{ran:?}");
    assert!(lines[2].starts_with(&format!("  options    -d {} -o ", dir.as_arg())), "{ran:?}");
    assert_eq!(lines.remove(2).rsplit_once(" -o ").unwrap().1, "interval=100ms");
    assert_eq!(lines.remove(2), format!("  handler    {}", dir.path("handler").display()));
    assert_eq!(lines[2], "  jobs       2 ended, 2 failed attempts");
    assert_eq!(lines[3], "  queue      2 waiting, 1 running, 0 delayed, 1 dead, room for 47");
    assert!(lines[4].starts_with("  spool      ") && lines[4].contains(" fsyncs, "), "{ran:?}");
    assert_eq!(lines[5], "  log        0 rotations, 0 threw old lines away, 0 lines lost");
    assert_eq!(lines[6], "  config     0 reloads, 0 refused");
    assert_eq!(lines[7..], ["  degraded   none"]);
}

#[test]
fn each_state_has_its_words_and_its_code() {
    let dir = Dir::new();
    let ran = dir.zigsvc(&["status"]).expect(3);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("jobs: stopped\n", ""));
    assert_eq!(json_of(&dir, 3), json!({"service": "jobs", "state": "stopped", "running": false}));
    let pid = dir.start(&[]);
    dir.zigsvc(&["status"]).expect(0);
    kill(pid, "KILL");
    wait_until("it is gone", || !alive(pid));
    let ran = dir.zigsvc(&["status"]).expect(1);
    let dead = "jobs: dead; it ended without a stop and left its PID file\n";
    assert_eq!((ran.out.as_str(), ran.err.as_str()), (dead, ""));
    assert_eq!(json_of(&dir, 1), json!({"service": "jobs", "state": "dead", "running": false}));
    dir.start(&[]);
    dir.zigsvc(&["stop"]).expect(0);
    dir.zigsvc(&["status"]).expect(3);
}

#[test]
fn two_formats_at_once_are_a_mistake() {
    let dir = Dir::new();
    let ran = dir.zigsvc(&["status", "--json", "--prometheus"]).expect(2);
    assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1));
    dir.zigsvc(&["status", "--wait"]).expect(2);
    dir.zigsvc(&["status", "nothing"]).expect(2);
}

#[test]
fn a_program_that_did_not_get_its_answer_does_not_read_that_all_is_well() {
    let dir = Dir::new();
    dir.start(&[]);
    for (args, code) in [(&["status"][..], 0), (&["status", "--json"], 4), (&["status", "--prometheus"], 4)] {
        let mut command = dir.command();
        command.args(args).stdout(full_device()).stderr(Stdio::piped());
        let ran = outcome(command.spawn().unwrap());
        assert_eq!(ran.code, code, "{args:?}: {ran:?}");
        assert_eq!(ran.err, "zigsvc: stdout: write: ENOSPC (no space left on device)\n", "{args:?}");
    }
}

// ----- --json ------------------------------------------------------------------------

#[test]
fn json_has_every_field_of_the_manual() {
    let dir = Dir::new();
    let pid = start_with_jobs(&dir, &["sync=never"]);
    let value = json_of(&dir, 0);
    let object = value.as_object().unwrap();
    let fields = documented_fields();
    assert!(fields.len() > 15, "{fields:?}");
    for field in &fields {
        let member = object.get(in_json(field)).unwrap_or_else(|| panic!("{field} in {value}"));
        let fits = match field.as_str() {
            "state" => member.is_string(),
            "degraded" => member.is_array(),
            _ => member.is_u64(),
        };
        assert!(fits, "{field} in {value}");
    }
    for (name, expected) in [
        ("service", json!("jobs")),
        ("state", json!("running")),
        ("running", json!(true)),
        ("pid", json!(pid)),
        ("heartbeat", json!("fresh")),
        ("phase", json!("running")),
        ("jobs", json!(2)),
        ("failed", json!(2)),
        ("dead", json!(1)),
        ("waiting", json!(2)),
        ("jobs_running", json!(1)),
        ("delayed", json!(0)),
        ("room", json!(47)),
        ("clients", json!(1)),
        ("denied", json!(0)),
        ("degraded", json!(["sync-never"])),
    ] {
        assert_eq!(value[name], expected, "{name} in {value}");
    }
    assert!(object["heartbeat_age_ms"].is_u64() && object["heartbeat_seq"].is_u64(), "{value}");
    // By the heartbeat's clock it is now.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert!(object["heartbeat_time"].as_u64().unwrap().abs_diff(now) < 60, "{value}");
}

#[test]
fn a_service_that_is_well_has_an_empty_list_of_what_is_degraded() {
    let dir = Dir::new();
    let pid = start_script(&dir, GATED, &[]);
    assert_eq!(json_of(&dir, 0)["degraded"], json!([]));
    dir.zigsvc(&["queue", "a"]).expect(0);
    wait_for_begun(&dir, "a");
    dir.zigsvc(&["drain"]).expect(0);
    let value = json_of(&dir, 0);
    assert_eq!((&value["state"], &value["phase"]), (&json!("running"), &json!("draining")), "{value}");
    dir.write("go", "");
    wait_until("it has drained", || !alive(pid));
}

// ----- --prometheus --------------------------------------------------------------------

/// Checks what promtool checks, and returns the samples: name with labels, and
/// value. (Prometheus, text format 0.0.4)
#[track_caller]
fn samples(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n') && !text.contains("\n\n") && !text.contains('\r'), "{text:?}");
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_'))
    };
    let (mut samples, mut helped, mut typed, mut finished) =
        (BTreeMap::new(), String::new(), (String::new(), String::new()), Vec::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(is_name(name) && !words.is_empty(), "{line}");
            assert!(!finished.contains(&name.to_owned()), "twice: {line}");
            finished.push(name.to_owned());
            helped = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, helped, "HELP before TYPE");
            assert_ne!(name, typed.0, "TYPE once");
            assert!(matches!(kind, "counter" | "gauge"), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            typed = (name.to_owned(), kind.to_owned());
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap();
            assert_eq!(name, typed.0, "TYPE before {line}");
            for label in labels.strip_suffix('}').unwrap().split(',') {
                let (label, value) = label.split_once('=').unwrap();
                assert!(is_name(label), "{line}");
                assert!(value.len() > 2 && value.starts_with('"') && value.ends_with('"'), "{line}");
            }
            let value: f64 = value.parse().unwrap();
            assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
        }
    }
    samples
}

#[test]
fn prometheus_reads_every_number_of_the_manual() {
    let dir = Dir::new();
    start_with_jobs(&dir, &["sync=never"]);
    let ran = dir.zigsvc(&["status", "--prometheus"]).expect(0);
    let found = samples(&ran.out);
    let of = |name: &str| found.get(&format!("zigsvc_{name}{{service=\"jobs\"}}")).copied();
    for (name, value) in [
        ("up", 1.0),
        ("jobs_ended_total", 2.0),
        ("attempts_failed_total", 2.0),
        ("jobs_dead", 1.0),
        ("jobs_waiting", 2.0),
        ("jobs_running", 1.0),
        ("queue_room", 47.0),
        ("clients", 1.0),
        ("requests_denied_total", 0.0),
    ] {
        assert_eq!(of(name), Some(value), "{name} in {}", ran.out);
    }
    assert!(of("heartbeat_age_seconds").is_some_and(|age| age < 60.0), "{}", ran.out);
    assert!(of("spool_written_bytes_total").is_some_and(|bytes| bytes > 0.0), "{}", ran.out);
    let mut degraded: Vec<&str> = Vec::new();
    for (series, value) in &found {
        let prefix = "zigsvc_degraded{service=\"jobs\",state=\"";
        if let Some(state) = series.strip_prefix(prefix) {
            let state = state.strip_suffix("\"}").unwrap();
            assert_eq!(*value, if state == "sync-never" { 1.0 } else { 0.0 }, "{series}");
            degraded.push(state);
        }
    }
    degraded.sort_unstable();
    let all = DegradedState::ALL.iter().filter(|state| state.applies_to(Service::Jobs));
    let mut all: Vec<_> = all.map(|state| state.name()).collect();
    all.sort_unstable();
    assert_eq!(degraded, all);
    // Numbers of the manual: all but pid, state and degraded; and `up`.
    assert_eq!(found.len() - all.len(), documented_fields().len() - 3 + 1, "{}", ran.out);
}

#[test]
fn a_service_that_is_not_well_is_not_up() {
    let dir = Dir::new();
    let down = "zigsvc_up{service=\"jobs\"} 0\n";
    let check = |options: &[&str], code| {
        let ran = dir.zigsvc(&[options, &["status", "--prometheus"]].concat()).expect(code);
        assert_eq!(samples(&ran.out).len(), 1, "{ran:?}");
        assert!(ran.out.ends_with(down), "{ran:?}");
    };
    check(&[], 3);
    let pid = dir.start(&["interval=100ms"]);
    kill(pid, "STOP");
    wait_until("it is suspended", || process_state(pid) == Some('T'));
    check(&[], 4);
    check(&["-o", "stale_after=1s"], 4);
    kill(pid, "KILL");
    wait_until("it is gone", || !alive(pid));
    check(&[], 1);
}

// ----- a service that does not answer ------------------------------------------------

#[test]
fn a_suspended_service_is_unknown_soon_and_without_counters() {
    let dir = Dir::new();
    let pid = dir.start(&["log_max=0"]);
    kill(pid, "STOP");
    wait_until("it is suspended", || process_state(pid) == Some('T'));
    let since = Instant::now();
    let ran = dir.zigsvc(&["status"]).expect(4);
    // It says 2 s; a busy machine may take longer, but not for ever.
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    let first = format!("jobs: unknown (pid {pid}), does not answer within 2 s\n");
    assert!(ran.out.starts_with(&first) && ran.out.lines().count() == 3, "{ran:?}");
    assert!(ran.out.ends_with(&format!("\n  options    -d {} -o log_max=0\n", dir.as_arg())), "{ran:?}");
    let value = json_of(&dir, 4);
    // The service is also stale if the load makes this take longer than stale_after.
    assert!(matches!(value["state"].as_str(), Some("unknown" | "stale")), "{value}");
    assert_eq!((&value["running"], &value["pid"]), (&json!(true), &json!(pid)));
    assert!(value.get("phase").is_none() && value.get("jobs").is_none(), "{value}");
    kill(pid, "CONT");
    wait_until("it is well again", || dir.zigsvc(&["status"]).code == 0);
    dir.zigsvc(&["queue", "a job"]).expect(0);
    wait_for_jobs(&dir, 1);
}

#[test]
fn a_stale_heartbeat_is_unknown_although_the_service_answers() {
    let dir = Dir::new();
    // The service goes on writing its own; status is shown an old copy.
    let pid = dir.start(&[]);
    let old = fs::read_to_string(dir.path("zigsvc.health")).unwrap();
    let copy = format!("health_file={}", dir.path("copy").display());
    let options = ["-o", copy.as_str(), "-o", "stale_after=1s", "status"];
    dir.write("copy", &old);
    wait_until("the copy is stale", || dir.zigsvc(&options).code == 4);
    let ran = dir.zigsvc(&[&options[..], &["--json"]].concat()).expect(4);
    let value: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((&value["state"], &value["heartbeat"]), (&json!("stale"), &json!("stale")), "{value}");
    assert_eq!((&value["phase"], &value["pid"]), (&json!("running"), &json!(pid)), "{value}");
    dir.zigsvc(&["status"]).expect(0);
}

#[test]
fn a_deleted_socket_is_made_again_and_status_is_right_once_it_is() {
    let dir = Dir::new();
    let pid = dir.start(&["interval=100ms"]);
    fs::remove_file(dir.path("zigsvc.sock")).unwrap();
    wait_until("the service answers again", || {
        let ran = dir.zigsvc(&["status", "--json"]);
        let value: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(value["pid"], json!(pid));
        assert!(matches!(ran.code, 0 | 4), "{ran:?}");
        ran.code == 0 && value["phase"] == json!("running")
    });
    assert!(dir.path("zigsvc.sock").exists());
    assert_eq!(json_of(&dir, 0)["degraded"], json!([]));
    dir.zigsvc(&["queue", "a job"]).expect(0);
}

#[test]
fn without_a_place_for_one_more_client_it_runs_and_tells_no_counters() {
    let dir = Dir::new();
    dir.start(&[]);
    let mut watching: Vec<Peer> = (0..16).map(|_| Peer::connect(&dir)).collect();
    for peer in &mut watching {
        assert_eq!(peer.ask("watch"), "ok");
    }
    let value = json_of(&dir, 0);
    assert_eq!((&value["state"], &value["heartbeat"]), (&json!("running"), &json!("fresh")), "{value}");
    assert!(value.get("jobs").is_none(), "{value}");
    let ran = dir.zigsvc(&["status"]).expect(0);
    assert_eq!(ran.out.lines().count(), 3, "{ran:?}");
    assert!(ran.out.ends_with(&format!("\n  options    -d {}\n", dir.as_arg())), "{ran:?}");
}

#[test]
fn what_the_service_says_is_taken_as_it_comes_and_waited_for_only_so_long() {
    let dir = Dir::new();
    let played = Played::new(&dir);
    // One that ends and is back in a moment is asked again.
    let asking = Beside::zigsvc(&dir, &["status", "--json"]);
    drop(played.accept());
    let mut peer = played.accept();
    assert_eq!(peer.line().as_deref(), Some("status"));
    peer.send("ok pid=9 state=stopping later=\x1b[1m\" jobs=3 degraded=log,new-one\n");
    let ran = asking.finish().expect(0);
    let value: Value = serde_json::from_str(&ran.out).unwrap();
    let own = std::process::id();
    assert_eq!((&value["pid"], &value["phase"]), (&json!(own), &json!("stopping")), "{value}");
    assert_eq!((&value["later"], &value["jobs"]), (&json!("\x1b[1m\""), &json!(3)), "{value}");
    assert_eq!(value["degraded"], json!(["log", "new-one"]));
    assert_eq!(value["heartbeat"], json!("missing"));
    // To a person nothing of it commands the terminal.
    let asking = Beside::zigsvc(&dir, &["status"]);
    let mut peer = played.accept();
    peer.send("ok state=\x1b[1m degraded=\x07 spool_bytes=2048\n");
    let ran = asking.finish().expect(0);
    assert!(ran.out.starts_with(&format!("jobs: \\x1b[1m (pid {own})\n")), "{ran:?}");
    assert!(ran.out.contains("\n  spool      ? fsyncs, 2.0 KiB written\n"), "{ran:?}");
    assert!(ran.out.ends_with("\n  degraded   \\x07\n"), "{ran:?}");
    // A refusal shows that the service lives, and that the user has no right to more.
    let asking = Beside::zigsvc(&dir, &["status"]);
    played.accept().send("err denied not you\n");
    let ran = asking.finish().expect(0);
    let withheld = "counters   withheld; needs root, or an entry for you in allow_uid or allow_gid";
    assert_eq!(ran.out, format!("jobs: running (pid {own})\n  heartbeat  missing\n  {withheld}\n"));
    // One that closes each connection is not asked for ever.
    let mut asking = Beside::zigsvc(&dir, &["status"]);
    wait_until("it gives up", || {
        played.turn_away();
        asking.has_ended()
    });
    asking.finish().expect(4);
    // Silence says nothing.
    let ran = dir.zigsvc(&["status"]).expect(4);
    assert!(ran.out.starts_with(&format!("jobs: unknown (pid {own}), does not answer")), "{ran:?}");
}

#[test]
fn status_of_a_service_that_is_restarted_is_never_anything_but_running_or_stopped() {
    let dir = Dir::new();
    dir.start(&[]);
    let codes = std::thread::scope(|scope| {
        let restarts = scope.spawn(|| (0..15).for_each(|_| drop(dir.zigsvc(&["restart"]).expect(0))));
        let mut codes = Vec::new();
        while !restarts.is_finished() {
            let mut command = dir.command();
            command.arg("status");
            codes.push(finish(command, None).code);
        }
        restarts.join().unwrap();
        codes
    });
    assert!(codes.contains(&0) && codes.iter().all(|code| matches!(code, 0 | 3)), "{codes:?}");
}
