//! Callers that are neither root nor the user of the service: guests, whom
//! `allow_uid` or `allow_gid` name, and strangers.

use super::support::{Beside, GATED, wait_for_begun};
use crate::support::control::start_script;
use crate::support::{
    Dir, Ran, finish, program, require, require_root, require_tool, through, wait_for_jobs, wait_until,
    zigsvc,
};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

/// A folder that every user may enter, with a service that root runs, and commands that
/// another user gives.
struct House(Dir);

impl House {
    /// Creates the folder and starts the service. Returns `None` where that is not possible,
    /// after a note that the test is skipped.
    #[track_caller]
    fn new() -> Option<Self> {
        let possible = require_root()
            && require_tool("setpriv")
            && require(crate::support::runner().is_empty(), "a runner cannot be handed to another user");
        if !possible {
            return None;
        }
        let dir = Dir::new();
        fs::set_permissions(dir.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        // The folder of the build may be closed to others.
        dir.copy_program(zigsvc().get_program(), "zigsvc");
        Some(Self(dir))
    }

    /// Returns the command `zigsvc -d DIR ARGS...` with uid 65534 and these groups.
    fn command(&self, groups: &str, args: &[&str]) -> Command {
        let mut inner = program(self.0.path("zigsvc"));
        inner.arg("-d").arg(self.0.path("")).args(args);
        for (name, value) in zigsvc().get_envs() {
            value.map(|value| inner.env(name, value));
        }
        through(&["setpriv", "--reuid", "65534", "--regid", "65534", groups], &inner)
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Ran {
        finish(self.command("--clear-groups", args), None)
    }
}

/// The commands that only an owner may give.
const STEERING: [&[&str]; 6] = [
    &["cancel", "1"],
    &["retry", "1"],
    &["retry", "dead"],
    &["forget", "dead"],
    &["drain"],
    &["drain", "--wait"],
];

#[test]
fn a_guest_may_queue_and_look_and_not_steer() {
    let Some(house) = House::new() else { return };
    let dir = &house.0;
    let pid = start_script(dir, GATED, &["allow_uid=65534"]);
    assert_eq!(house.run(&["queue", "first", "job"]).expect(0).out, "1\n");
    wait_for_begun(dir, "first job");
    let ran = finish(house.command("--clear-groups", &["queue", "-"]), Some(b"second\nthird\n")).expect(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("2\n3\n", ""));
    let listed = "1 running 1 first job\n2 waiting 0 second\n3 waiting 0 third\n";
    assert_eq!(house.run(&["list"]).expect(0).out, listed);
    let status = house.run(&["status"]).expect(0).out;
    assert!(status.starts_with(&format!("jobs: running (pid {pid}), up ")), "{status}");
    assert!(status.contains("2 waiting, 1 running,"), "{status}");
    for args in STEERING {
        let ran = house.run(args).expect(4);
        assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1), "{args:?}: {ran:?}");
        assert!(ran.err.starts_with(&format!("zigsvc: {}: ", args[0])), "{ran:?}");
        assert!(ran.err.ends_with(" (denied)\n"), "{ran:?}");
    }
    assert_eq!(dir.zigsvc(&["list"]).expect(0).out, listed);
    let watching = Beside::start(house.command("--clear-groups", &["watch"]));
    let waiting = Beside::start(house.command("--clear-groups", &["queue", "--wait", "exit 3"]));
    wait_until("it has its id", || !waiting.errors().is_empty());
    // The last place where a denial could show is the number of them.
    let status = dir.zigsvc(&["status", "--json"]).expect(0).out;
    assert!(status.contains(&format!("\"denied\":{},", STEERING.len())), "{status}");
    dir.write("go", "");
    dir.zigsvc(&["stop"]).expect(0);
    drop(waiting);
    watching.finish().expect(0);
}

#[test]
fn a_guest_waits_for_a_job_as_an_owner_does() {
    let Some(house) = House::new() else { return };
    start_script(&house.0, "exit 3", &["retries=0", "allow_uid=[1, 65534]"]);
    let ran = house.run(&["queue", "--wait", "job"]).expect(3);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("", "1\n"));
}

#[test]
fn a_member_of_an_allowed_group_is_a_guest_and_others_are_not() {
    let Some(house) = House::new() else { return };
    house.0.start(&["log_max=0", "allow_gid=4242"]);
    let queue = ["queue", "a job"];
    finish(house.command("--groups=77,4242", &queue), None).expect(0);
    let ran = finish(house.command("--groups=77", &queue), None).expect(4);
    assert!(ran.err.contains("zigsvc.sock"), "{ran:?}");
    wait_for_jobs(&house.0, 1);
    assert_eq!(house.0.zigsvc(&["queue", "another"]).expect(0).out, "2\n");
}

#[test]
fn a_stranger_is_told_what_would_be_right_and_may_nothing() {
    let Some(house) = House::new() else { return };
    let dir = &house.0;
    start_script(dir, GATED, &[]);
    dir.zigsvc(&["queue", "job"]).expect(0);
    wait_for_begun(dir, "job");
    let socket = dir.path("zigsvc.sock").display().to_string();
    let looking: [&[&str]; 5] =
        [&["queue", "x"], &["queue", "-"], &["queue", "--wait", "x"], &["list"], &["watch"]];
    for args in looking.into_iter().chain(STEERING) {
        let code = if args.contains(&"--wait") && args[0] == "queue" { 125 } else { 4 };
        let command = house.command("--clear-groups", args);
        let ran = finish(command, Some(b"from stdin\n")).expect(code);
        assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1), "{args:?}: {ran:?}");
        assert!(ran.err.starts_with(&format!("zigsvc: {socket}: connect: ")), "{args:?}: {ran:?}");
        let right = "; needs root, or an entry for you in allow_uid or allow_gid\n";
        assert!(ran.err.ends_with(right), "{args:?}: {ran:?}");
    }
    assert_eq!(dir.zigsvc(&["list"]).expect(0).out, "1 running 1 job\n");
}

#[test]
fn a_stranger_whom_the_service_turns_away_is_told_so() {
    let Some(house) = House::new() else { return };
    let dir = &house.0;
    // The socket is open to all; the service looks who comes.
    start_script(dir, GATED, &["allow_uid=1"]);
    for args in [&["queue", "x"][..], &["list"], &["watch"], &["cancel", "1"], &["drain"]] {
        let ran = house.run(args).expect(4);
        assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1), "{args:?}: {ran:?}");
        assert!(ran.err.ends_with(" (denied)\n"), "{args:?}: {ran:?}");
    }
    let ran = finish(house.command("--clear-groups", &["queue", "-"]), Some(b"x\n")).expect(4);
    assert!(ran.err.ends_with(" (denied)\n") && ran.err.lines().count() == 1, "{ran:?}");
    house.run(&["queue", "--wait", "x"]).expect(125);
    assert_eq!(dir.zigsvc(&["list"]).expect(0).out, "");
}

#[test]
fn a_stranger_sees_by_the_heartbeat_that_the_service_runs_and_no_counters() {
    let Some(house) = House::new() else { return };
    for option in ["log_max=0", "allow_uid=1"] {
        let pid = house.0.start(&[option]);
        let ran = house.run(&["status"]).expect(0);
        let lines: Vec<&str> = ran.out.lines().collect();
        assert_eq!((lines[0], lines.len()), (format!("jobs: running (pid {pid})").as_str(), 4), "{ran:?}");
        assert!(lines[1].starts_with("  heartbeat  fresh, "), "{ran:?}");
        // The health file is for all, as the command line of the process is.
        assert!(lines[2].starts_with("  options    -d ") && lines[2].ends_with(option), "{ran:?}");
        let withheld = "  counters   withheld; needs root, or an entry for you in allow_uid or allow_gid";
        assert_eq!(lines[3], withheld, "{ran:?}");
        assert_eq!(ran.err, "");
        let ran = house.run(&["status", "--json"]).expect(0);
        let value: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(value["heartbeat"], serde_json::json!("fresh"), "{value}");
        assert!(value.get("jobs").is_none() && value.get("degraded").is_none(), "{value}");
        house.0.zigsvc(&["stop"]).expect(0);
        house.run(&["status"]).expect(3);
        house.run(&["queue", "x"]).expect(7);
    }
}

/// Commands of an ordinary user without a service, in a mount namespace with root's default places.
#[test]
fn a_user_without_a_service_learns_of_roots_and_that_it_needs_root() {
    let Some(house) = House::new() else { return };
    if !["unshare", "mount"].into_iter().all(require_tool) {
        return;
    }
    let script = "for folder in /run /var/log /var/spool; do mount -t tmpfs -o mode=755 none $folder; done\n\
        ask() { for words in stop reload rotate 'signal jobs HUP' 'stop hub' 'reload supervisor'; do\n\
        setpriv --reuid 54321 --regid 54321 --clear-groups env HOME=/nonexistent $0 $words 2>&1 || code=$?\n\
        echo \"$words=${code:-0}\"; code=; done; }\n\
        ask; for service in jobs hub 'supervisor'; do $0 -o supervise=[] start $service >/dev/null; done; ask\n\
        for service in supervisor hub jobs; do $0 stop $service >/dev/null; done";
    let mut command = program("unshare");
    // The abstract names of the second locks belong to the network namespace.
    command.args(["-mn", "--propagation", "private", "sh", "-c", script]).arg(house.0.path("zigsvc"));
    let ran = finish(command, None).expect(0);
    let lines: Vec<&str> = ran.out.lines().collect();
    let tried = |service: &str, file: &str| {
        let end = crate::support::starts(service);
        format!("zigsvc: {service}: not running (tried /tmp/zigsvc-54321/{file}, /run/{file}); {end}")
    };
    let denied =
        |file: &str| format!("zigsvc: /run/{file}: pidfd_send_signal: EPERM (not permitted); needs root");
    let expected = [
        "zigsvc: jobs was not running".to_owned(),
        "stop=0".to_owned(),
        tried("jobs", "zigsvc.pid"),
        "reload=7".to_owned(),
        tried("jobs", "zigsvc.pid"),
        "rotate=7".to_owned(),
        tried("jobs", "zigsvc.pid"),
        "signal jobs HUP=7".to_owned(),
        "zigsvc: hub was not running".to_owned(),
        "stop hub=0".to_owned(),
        tried("supervisor", "zigsvc-supervisor.pid"),
        "reload supervisor=7".to_owned(),
        denied("zigsvc.pid"),
        "stop=4".to_owned(),
        denied("zigsvc.pid"),
        "reload=4".to_owned(),
        denied("zigsvc.pid"),
        "rotate=4".to_owned(),
        denied("zigsvc.pid"),
        "signal jobs HUP=4".to_owned(),
        denied("zigsvc-hub.pid"),
        "stop hub=4".to_owned(),
        denied("zigsvc-supervisor.pid"),
        "reload supervisor=4".to_owned(),
    ];
    assert_eq!(lines, expected, "{ran:?}");
}

#[test]
fn a_stranger_who_may_not_enter_the_folder_knows_nothing_of_the_service() {
    let Some(house) = House::new() else { return };
    let dir = &house.0;
    fs::create_dir(dir.path("closed")).unwrap();
    fs::set_permissions(dir.path("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    let closed = dir.path("closed").display().to_string();
    for (args, code, file) in [
        (&["status"][..], 4, "zigsvc.pid"),
        (&["queue", "x"], 4, "zigsvc.sock"),
        (&["list"], 4, "zigsvc.sock"),
    ] {
        let ran = house.run(&[&["-d", closed.as_str()], args].concat()).expect(code);
        assert!(
            ran.err.starts_with("zigsvc: ") && ran.err.contains(&format!("{closed}/{file}: ")),
            "{ran:?}"
        );
        assert_eq!(ran.out, "");
    }
}
