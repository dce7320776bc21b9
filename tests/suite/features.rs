//! A build with some of Cargo's features: its commands, its services, its keys. It runs in every
//! build, so that `.ci/features` shows the same of each.

use crate::support::{Dir, finish, run, zigsvc};
use zigsvc::cli::COMMANDS;
use zigsvc::proto::config::keys::KEYS;
use zigsvc::proto::service::Service;

/// Each feature that can be chosen, whether this build has it, its commands, and its keys.
const FEATURES: &[(&str, bool, &[&str], &[&str])] = &[
    (
        "jobs",
        cfg!(feature = "jobs"),
        &["queue", "wait", "list", "cancel", "retry", "forget", "hold", "resume", "drain", "watch"],
        &[
            "queue_file",
            "spool",
            "handler",
            "take",
            "workers",
            "job_timeout",
            "leftovers",
            "retries",
            "retry_delay",
            "queue_max",
            "dead_max",
            "sync",
        ],
    ),
    (
        "supervisor",
        cfg!(feature = "supervisor"),
        &[],
        &[
            "supervise",
            "check_interval",
            "failures",
            "watchdog",
            "watchdog_patience",
            "watchdog_timeout",
            "watchdog_on_stop",
        ],
    ),
    ("log", cfg!(feature = "log"), &["log"], &[]),
    ("hub", cfg!(feature = "hub"), &["chat"], &[]),
    ("collector", cfg!(feature = "collector"), &["metric"], &["metrics_name"]),
    ("opener", cfg!(feature = "opener"), &["open"], &["allow"]),
    ("doctor", cfg!(feature = "doctor"), &["doctor"], &[]),
];

/// Commands of every service.
const OF_SERVICES: &[&str] = &["start", "run", "stop", "restart", "reload", "rotate", "signal", "status"];

/// Returns true if this build has the feature.
fn has(feature: &str) -> bool {
    FEATURES.iter().any(|(name, is_on, ..)| *name == feature && *is_on)
}

/// Returns the services whose feature this build has, or has not.
fn services(built_in: bool) -> Vec<&'static str> {
    Service::ALL.map(Service::name).into_iter().filter(|name| has(name) == built_in).collect()
}

/// Returns true if the configuration can be read, by `check`.
fn has_config() -> bool {
    has("doctor") || !services(true).is_empty()
}

#[test]
fn a_build_with_fewer_features_names_those_that_it_has() {
    let version = run(&["--version"]).expect(0).out;
    let on: Vec<_> = FEATURES.iter().filter(|(_, is_on, ..)| *is_on).map(|(name, ..)| *name).collect();
    let features = format!("features: {}\n", on.join(" "));
    let more = if on.len() == FEATURES.len() { "" } else { &features };
    assert_eq!(version, format!("zigsvc {}\n{more}", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_command_is_known_if_its_feature_is_there() {
    let overview = run(&["help"]).expect(0).out;
    let rows =
        FEATURES.iter().flat_map(|(_, is_on, commands, _)| commands.iter().map(move |name| (name, *is_on)));
    let of_services = OF_SERVICES.iter().map(|name| (name, !services(true).is_empty()));
    let rest = [(&"check", has_config()), (&"help", true), (&"version", true), (&"limits", true)];
    let mut known = 0;
    for (name, is_on) in rows.chain(of_services).chain(rest) {
        known += usize::from(is_on);
        assert_eq!(overview.contains(&format!("\n  {name} ")), is_on, "{name}: {overview}");
        let error = run(&[name, "--no-such-option"]).expect(2).err;
        assert_eq!(error.contains("unknown command"), !is_on, "{name}: {error}");
    }
    assert_eq!(COMMANDS.iter().count(), known);
}

#[test]
fn a_service_is_known_if_its_feature_is_there() {
    let dir = Dir::new();
    let built_in = services(true);
    let overview = run(&["help"]).expect(0).out;
    let Some(first) = built_in.first() else {
        assert!(overview.contains("\nCommands; ") && !overview.contains("SERVICE is"), "{overview}");
        return;
    };
    let default = ["jobs", "supervisor", first].into_iter().find(|name| has(name)).unwrap();
    let line = format!("\nSERVICE is one of {}; {default} if none is named.\n", built_in.join(" "));
    assert!(overview.contains(&line), "{overview}");
    assert_eq!(dir.zigsvc(&["status"]).expect(3).out, format!("{default}: stopped\n"));
    for name in built_in {
        assert_eq!(dir.zigsvc(&["status", name]).expect(3).out, format!("{name}: stopped\n"));
    }
    for name in services(false) {
        let error = dir.zigsvc(&["start", name]).expect(2).err;
        assert!(error.contains(&format!("this build is without the feature \"{name}\"")), "{error}");
    }
}

#[test]
fn the_service_that_is_not_named_runs_and_stops() {
    let dir = Dir::new();
    if services(true).is_empty() {
        return;
    }
    let name = Service::DEFAULT.name();
    // A supervisor of nothing is a service like any other one.
    dir.write("zigsvc.conf", if has("supervisor") { "supervise = []\n" } else { "" });
    let started = dir.zigsvc(&["start"]).expect(0).out;
    assert!(started.starts_with(&format!("zigsvc: {name} started (pid ")), "{started}");
    for words in
        [&["status"][..], &["status", "--json"], &["status", "--prometheus"], &["reload"], &["rotate"]]
    {
        dir.zigsvc(words).expect(0);
    }
    assert!(dir.zigsvc(&["restart"]).expect(0).out.starts_with(&format!("zigsvc: {name} started (pid ")));
    assert_eq!(dir.zigsvc(&["stop"]).expect(0).out, format!("zigsvc: {name} stopped\n"));
    assert_eq!(dir.zigsvc(&["status"]).expect(3).out, format!("{name}: stopped\n"));
}

#[test]
fn a_key_is_known_if_its_feature_is_there() {
    let dir = Dir::new();
    for (feature, is_on, _, keys) in FEATURES {
        for key in *keys {
            assert_eq!(KEYS.iter().any(|known| known.name == *key), *is_on, "{key}");
            if has_config() && !is_on {
                let error = dir.zigsvc(&["-o", &format!("{key}=x"), "check"]).expect(6).err;
                assert!(error.contains("unknown key"), "{feature}: {error}");
            }
        }
    }
    if has_config() {
        // Each key of the build is shown by `check`, and is in the sample, which can be used as it is.
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/init.d/zigsvc.conf");
        let mut command = zigsvc();
        command.args(["-d", dir.as_arg(), "-c", sample, "check"]);
        let shown = finish(command, None).expect(0).out;
        let text = std::fs::read_to_string(sample).unwrap();
        for key in KEYS {
            let name = key.name;
            assert!(shown.contains(&format!("\n{name} = ")), "{name}: {shown}");
            assert!(text.contains(&format!("\n#{name} = ")), "{name}");
        }
    }
}

#[test]
fn a_supervised_service_that_was_left_out_is_an_error_that_names_its_feature() {
    if !has("supervisor") {
        return;
    }
    let dir = Dir::new();
    for name in services(false) {
        dir.write("zigsvc.conf", format!("# a comment\nsupervise = [\"{name}\"]\n"));
        for words in [&["check"][..], &["start", "supervisor"], &["run", "supervisor"]] {
            let error = dir.zigsvc(words).expect(6).err;
            let place = format!("{}:2: supervise must be ", dir.path("zigsvc.conf").display());
            assert!(error.contains(&place), "{error}");
            let names = error.split("this build is without the feature ").nth(1).unwrap();
            assert!(names.contains(&format!("\"{name}\"")), "{error}");
        }
    }
    for name in services(true).into_iter().filter(|name| *name != "supervisor") {
        dir.write("zigsvc.conf", format!("supervise = [\"{name}\"]\n"));
        dir.zigsvc(&["check"]).expect(0);
    }
}

#[test]
fn doctor_looks_at_what_the_features_need() {
    if !has("doctor") {
        return;
    }
    let dir = Dir::new();
    // It ends with 0 or 1, as the machine is.
    let ran = dir.zigsvc(&["doctor"]);
    assert!(ran.code <= 1 && ran.err.is_empty(), "{ran:?}");
    for (subject, feature) in
        [("inotify", "jobs"), ("spool", "jobs"), ("pidfd", "supervisor"), ("openat2", "opener")]
    {
        assert_eq!(ran.out.contains(&format!("  {subject}: ")), has(feature), "{}", ran.out);
    }
    assert!(ran.out.contains("  log: "), "{}", ran.out);
}
