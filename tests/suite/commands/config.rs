//! The configuration and the command line: the accepted settings, the refused ones, and how
//! a refusal is reported.

use crate::support::random::Random;
use crate::support::{Dir, finish, program, run, zigsvc};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use zigsvc::cli::COMMANDS;
use zigsvc::proto::config::keys::KEYS;
use zigsvc::proto::service::Service;

/// Returns the output of `check`, without its comment.
#[track_caller]
fn effective(dir: &Dir, options: &[&str]) -> String {
    let out = dir.zigsvc(&[options, &["check"]].concat()).expect(0).out;
    let (comment, rest) = out.split_once('\n').unwrap();
    assert!(comment.starts_with("# "), "{comment}");
    rest.to_owned()
}

// ----- check ---------------------------------------------------------------------

#[test]
fn check_prints_every_key_as_toml_with_the_documented_defaults() {
    let dir = Dir::new();
    let text = effective(&dir, &[]);
    let table: toml::Table = text.parse().unwrap();
    let names: Vec<_> = text.lines().map(|line| line.split(" = ").next().unwrap()).collect();
    assert!(names.into_iter().eq(KEYS.iter().map(|key| key.name)), "{text}");
    let path = |name: &str| toml::Value::from(dir.path(name).to_str().unwrap());
    for (key, file) in [
        ("pid_file", "zigsvc.pid"),
        ("socket", "zigsvc.sock"),
        ("log_file", "zigsvc.log"),
        ("health_file", "zigsvc.health"),
        ("queue_file", "queue"),
        ("spool", "spool"),
    ] {
        assert_eq!(table[key], path(file), "{key}");
    }
    let defaults: toml::Table = r#"
        log_max = "10000"
        log_keep = 1
        log_level = "info"
        log_time = "iso"
        syslog = false
        interval = "3s"
        handler = "log"
        workers = 1
        job_timeout = "0"
        retries = 2
        retry_delay = "1s"
        queue_max = 10000
        dead_max = 1000
        sync = "always"
        stop_timeout = "10s"
        user = ""
        group = ""
        allow_uid = []
        allow_gid = []
        supervise = ["jobs"]
        check_interval = "5s"
        stale_after = "15s"
        failures = 3
        watchdog = ""
        watchdog_patience = "5m"
        allow = ["/etc/hostname", "/etc/os-release", "/proc/version"]
    "#
    .parse()
    .unwrap();
    for (key, value) in &defaults {
        assert_eq!(table[key], *value, "{key}");
    }
    assert_eq!(table["metrics_name"].as_str(), Some(format!("zigsvc-metrics:{}", dir.as_arg()).as_str()));
}

#[test]
fn what_check_prints_can_be_used_as_a_config_and_means_the_same() {
    let dir = Dir::new();
    dir.write(
        "zigsvc.conf",
        concat!(
            "\u{feff}# a comment with a \" and a \u{e9}\r\n",
            "pid_file = \"/tmp/a \\\"quoted\\\" \\\\ \\t path \\u00e9\"\r\n",
            "log_file = 'C:\\literal'   # behind a value\n",
            "\n",
            "   log_max = \"64k\"\n",
            "log_keep = 9_9\n",
            "log_level = \"debug\"\n",
            "syslog = true\n",
            "interval = \"1500ms\"\n",
            "handler = \"bin/handler\"\n",
            "queue_max = 10_000_000\n",
            "user = 0\n",
            "group = \"adm\"\n",
            "allow_uid = [0, \"daemon\", # one\n  1000,\n]\n",
            "allow_gid = \"www-data\"\n",
            "supervise = [\"jobs\", \"hub\", \"opener\", \"collector\"]\n",
            "allow = [ ]\n",
            "watchdog = \"/dev/watchdog\"\n",
            "metrics_name = \"\\U0001F600\"",
        ),
    );
    let first = effective(&dir, &[]);
    dir.write("again.conf", &first);
    assert_eq!(effective(&dir, &["-c", dir.path("again.conf").to_str().unwrap()]), first);
    let ours: toml::Table = first.parse().unwrap();
    // Any other parser reads the same from the same file.
    let theirs: toml::Table = dir.read("zigsvc.conf").trim_start_matches('\u{feff}').parse().unwrap();
    for key in [
        "pid_file",
        "log_max",
        "log_keep",
        "log_level",
        "syslog",
        "queue_max",
        "supervise",
        "watchdog",
        "metrics_name",
    ] {
        assert_eq!(ours[key], theirs[key], "{key}");
    }
    assert_eq!(ours["interval"].as_str(), Some("1500ms"));
    assert_eq!(ours["handler"].as_str(), finish_path("bin/handler").as_deref());
    assert_eq!(ours["allow_uid"].to_string(), "[\"0\", \"daemon\", \"1000\"]");
}

/// Returns the absolute path that the program makes of a relative path.
fn finish_path(path: &str) -> Option<String> {
    std::env::current_dir().unwrap().join(path).to_str().map(str::to_owned)
}

#[test]
fn an_option_is_stronger_than_the_file_and_the_last_one_is_the_strongest() {
    let dir = Dir::new();
    dir.write("zigsvc.conf", "workers = 2\nretries = 3\n");
    let text = effective(
        &dir,
        &["-o", "workers=4", "-o", "workers = 5", "-oallow_uid=0,1000", "-o", "handler=\"shell\""],
    );
    let table: toml::Table = text.parse().unwrap();
    assert_eq!((table["workers"].as_integer(), table["retries"].as_integer()), (Some(5), Some(3)));
    assert_eq!(table["allow_uid"].to_string(), "[\"0\", \"1000\"]");
    assert_eq!(table["handler"].as_str(), Some("shell"));
}

// ----- bad configurations -----------------------------------------------------------

#[test]
fn every_mistake_is_told_with_file_line_and_what_is_allowed() {
    let dir = Dir::new();
    let file = dir.path("zigsvc.conf").display().to_string();
    let long = format!("log_file = \"/{}\"", "x".repeat(255));
    for (text, line, message) in [
        ("frob = 1", 1, "unknown key \"frob\""),
        ("workers = 2\n\n# x\nWorkers = 2", 4, "unknown key \"Workers\""),
        ("workers = 1\nretries = 1\nworkers = 1\n", 3, "workers is given twice; once is allowed"),
        ("workers = 9", 1, "workers must be a number from 1 to 8"),
        ("workers = 0", 1, "workers must be a number from 1 to 8"),
        ("workers = \"2\"", 1, "workers must be a number from 1 to 8"),
        ("workers = -1", 1, "not negative"),
        ("workers = 1.5", 1, "whole"),
        ("workers = 0x2", 1, "decimal"),
        ("workers = 02", 1, "decimal"),
        ("workers = 99999999999999999999999", 1, ""),
        ("workers = [1]", 1, "workers must be"),
        ("workers = 1 2", 1, ""),
        ("workers 2", 1, ""),
        ("workers =", 1, "expected a value"),
        ("workers = 1\n= 2", 2, ""),
        ("log_keep = 0", 1, "log_keep must be a number from 1 to 99"),
        ("log_keep = 100", 1, "log_keep must be a number from 1 to 99"),
        ("retries = 101", 1, "retries must be a number from 0 to 100"),
        ("queue_max = 0", 1, "queue_max must be a number from 1 to 10000000"),
        ("queue_max = 10_000_001", 1, "queue_max must be a number from 1 to 10000000"),
        ("log_max = \"10q\"", 1, "log_max must be bytes, with k or m"),
        ("log_level = \"loud\"", 1, "log_level must be one of \"debug\" \"info\" \"warn\" \"error\""),
        ("log_time = \"\"", 1, "log_time must be one of \"iso\" \"unix\" \"none\""),
        ("syslog = \"true\"", 1, "syslog must be true or false"),
        ("syslog = yes", 1, "text needs quotes"),
        ("interval = \"99ms\"", 1, "interval must be a duration from 100ms to 24h"),
        ("interval = \"3\"", 1, "interval must be a duration"),
        ("interval = 3", 1, "interval must be a duration"),
        ("interval = \"0\"", 1, "interval must be a duration"),
        ("job_timeout = \"1 s\"", 1, "job_timeout must be a duration"),
        ("sync = \"maybe\"", 1, "sync must be one of \"always\" \"never\""),
        ("handler = log", 1, "text needs quotes"),
        ("handler = \"\"", 1, "handler must be log, shell, or the path of"),
        ("handler = \"program\"", 1, "handler must be log, shell, or the path of"),
        ("pid_file = \"\"", 1, "pid_file must be a path of 1 to 255 bytes"),
        (&long, 1, "255 bytes"),
        ("log_file = \"a\\u0000b\"", 1, "log_file must be a path"),
        ("log_file = \"a\\qb\"", 1, "unknown escape"),
        ("log_file = \"a\nb\"", 1, "must end with its quote on the same line"),
        ("log_file = \"a", 1, "must end with its quote"),
        ("# \u{1}\nworkers = 1", 1, "control characters"),
        ("user = \"a:b\"", 1, "user must be a name or number"),
        ("group = 0", 0, "group: needs user"),
        ("allow_uid = [1,2,3,4,5,6,7,8,9]", 1, "allow_uid must be"),
        ("allow_uid = [1 2]", 1, "expected , or ]"),
        ("allow_uid = [1,\n2,\n", 3, ""),
        ("supervise = [\"jobs\", \"jobs\"]", 1, "supervise must be"),
        ("supervise = [\"supervisor\"]", 1, "supervise must be"),
        ("allow = [\"relative\"]", 1, "allow must be"),
        ("allow = [\"/a\\nb\"]", 1, "allow must be"),
        ("metrics_name = \"\"", 1, "metrics_name must be"),
        ("[section]\nworkers = 1", 1, ""),
        ("workers = 1\r", 1, ""),
        ("a.b = 1", 1, ""),
    ] {
        dir.write("zigsvc.conf", text);
        let ran = dir.zigsvc(&["check"]).expect(6);
        let place = if line == 0 { String::new() } else { format!("{file}:{line}: ") };
        assert!(ran.err.starts_with(&format!("zigsvc: {place}")), "{text:?}: {}", ran.err);
        assert!(ran.err.contains(message) && ran.err.lines().count() == 1, "{text:?}: {}", ran.err);
        assert_eq!(ran.out, "", "{text:?}");
        assert!(ran.err.len() > format!("zigsvc: {place}").len() + 10, "{text:?}: {}", ran.err);
    }
}

#[test]
fn a_file_that_is_no_text_is_refused_in_one_clean_line() {
    let dir = Dir::new();
    let mut random = Random::new(1);
    for round in 0..20 {
        let mut noise = random.bytes(1 << (round % 12));
        noise.insert(0, b'"');
        dir.write("zigsvc.conf", &noise);
        let ran = dir.zigsvc(&["check"]).expect(6);
        assert!(ran.err.starts_with(&format!("zigsvc: {}:", dir.path("zigsvc.conf").display())), "{ran:?}");
        assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
        assert!(ran.err.trim_end().bytes().all(|byte| byte >= b' '), "{ran:?}");
    }
}

#[test]
fn a_config_that_cannot_be_read_is_an_error_and_never_a_hang() {
    let dir = Dir::new();
    dir.write("large", "# a comment\n".repeat(100_000));
    fs::create_dir(dir.path("folder")).unwrap();
    dir.write("plain", "workers = 7\n");
    symlink(dir.path("plain"), dir.path("link")).unwrap();
    symlink(dir.path("link2"), dir.path("link2")).unwrap();
    for (name, why) in [
        ("large", "too large; a configuration has less than 16384 bytes"),
        ("folder", "read: EISDIR"),
        ("missing", "openat: ENOENT"),
        ("plain/x", "openat: ENOTDIR"),
        ("link2", "openat: ELOOP"),
        ("/dev/zero", "too large"),
    ] {
        let path = dir.path(name).display().to_string();
        for command in ["check", "start", "reload"] {
            let ran = dir.zigsvc(&["-c", &path, command]).expect(6);
            assert!(ran.err.starts_with(&format!("zigsvc: {path}: {why}")), "{ran:?}");
            assert_eq!(ran.err.lines().count(), 1, "{ran:?}");
        }
    }
    assert!(effective(&dir, &["-c", dir.path("link").to_str().unwrap()]).contains("\nworkers = 7\n"));
    if !crate::support::is_root() {
        fs::set_permissions(dir.path("plain"), fs::Permissions::from_mode(0o000)).unwrap();
        let ran = dir.zigsvc(&["-c", dir.path("plain").to_str().unwrap(), "check"]).expect(6);
        assert!(ran.err.contains("EACCES"), "{ran:?}");
    }
    if crate::support::require_tool("mkfifo") {
        let fifo = dir.path("fifo");
        assert!(program("mkfifo").arg(&fifo).status().unwrap().success());
        // The FIFO has no writer. `check` must return all the same; its verdict does not matter.
        let _ = dir.zigsvc(&["-c", fifo.to_str().unwrap(), "check"]);
    }
}

#[test]
fn a_bad_option_is_a_config_error_that_names_it() {
    let dir = Dir::new();
    for (option, why) in [
        ("workers", "an option is KEY=VALUE"),
        ("=1", "unknown key \"\""),
        ("frob=1", "unknown key \"frob\""),
        ("workers=9", "workers must be a number from 1 to 8"),
        ("workers=", "workers must be a number"),
        ("syslog=1", "syslog must be true or false"),
        ("handler=\"shell", "must end with its quote"),
        ("allow_uid=[1,2", ""),
        ("interval=3", "interval must be a duration"),
    ] {
        let ran = dir.zigsvc(&["-o", option, "check"]).expect(6);
        assert!(ran.err.starts_with(&format!("zigsvc: -o {option}: ")), "{ran:?}");
        assert!(ran.err.contains(why) && ran.err.lines().count() == 1, "{ran:?}");
    }
}

// ----- the command line ---------------------------------------------------------------

#[test]
fn usage_errors_exit_2_and_name_the_nearest_help() {
    let dir = Dir::new();
    let long = "x".repeat(100_000);
    for (args, what, help) in [
        (&[][..], "a command is missing", "zigsvc help"),
        (&["frob"], "unknown command \"frob\"", "zigsvc help"),
        (&[""], "unknown command \"\"", "zigsvc help"),
        (&["START"], "unknown command \"START\"", "zigsvc help"),
        (&["a\x1b[1m\n"], "unknown command \"a\\x1b[1m\\x0a\"", "zigsvc help"),
        (&[&long], "unknown command \"xxxx", "zigsvc help"),
        (&["start", "frob"], "unknown service \"frob\"", "zigsvc help start"),
        (&["stop", ""], "unknown service \"\"", "zigsvc help stop"),
        (&["start", "jobs", "extra"], "unexpected argument \"extra\"", "zigsvc help start"),
        (&["stop", "jobs", "--", "extra"], "unexpected argument \"extra\"", "zigsvc help stop"),
        (&["status", "--", "jobs", "x"], "unexpected argument \"x\"", "zigsvc help status"),
        (&["stop", "--", "--jobs"], "unknown service \"--jobs\"", "zigsvc help stop"),
        (&["status", "--frob"], "unknown option \"--frob\"", "zigsvc help status"),
        (&["check", "extra"], "unexpected argument \"extra\"", "zigsvc help check"),
        (&["limits", "extra"], "unexpected argument \"extra\"", "zigsvc help limits"),
        (&["version", "extra"], "unexpected argument \"extra\"", "zigsvc help version"),
        (&["help", "frob"], "no help for \"frob\"", "zigsvc help"),
        (&["-x", "check"], "unknown option \"-x\"", "zigsvc help"),
        (&["--frob"], "unknown option \"--frob\"", "zigsvc help"),
        (&["-o"], "option -o needs a value", "zigsvc help"),
        (&["-d", "", "check"], "option -d needs a value", "zigsvc help"),
        (&["-c"], "option -c needs a value", "zigsvc help"),
        (&["-d", &long, "check"], "option -d", "zigsvc help"),
        (&["-c", &long, "check"], "option -c", "zigsvc help"),
    ] {
        let mut command = zigsvc();
        command.args(args).current_dir(dir.path(""));
        let ran = finish(command, None).expect(2);
        let shown = &args.first().map_or("", |arg| arg.get(..20.min(arg.len())).unwrap_or(arg));
        assert!(ran.err.starts_with("zigsvc: usage: ") && ran.err.contains(what), "{shown}: {}", ran.err);
        assert!(ran.err.ends_with(&format!("; see `{help}`\n")), "{shown}: {}", ran.err);
        assert_eq!((ran.out.as_str(), ran.err.lines().count()), ("", 1), "{shown}");
        assert!(ran.err.len() < 400, "{shown}");
    }
    assert_eq!(fs::read_dir(dir.path("")).unwrap().count(), 0);
    dir.zigsvc(&["status", "--", "jobs"]).expect(3);
}

#[test]
fn there_is_help_for_every_command_and_limits_for_every_limit() {
    let overview = run(&["help"]).expect(0).out;
    for command in COMMANDS.iter().map(|command| command.name) {
        assert!(overview.contains(&format!("\n  {command} ")), "{command}: {overview}");
        let ran = run(&["help", command]).expect(0);
        assert!(ran.out.starts_with(&format!("zigsvc {command}")) && ran.err.is_empty(), "{ran:?}");
        let clean = |line: &str| line.len() <= 80 && line == line.trim_end();
        assert!(ran.out.ends_with('\n') && ran.out.lines().all(clean), "{ran:?}");
    }
    let services = Service::ALL.map(Service::name).join(" ");
    assert!(overview.contains(&format!("\nSERVICE is one of {services}; ")), "{overview}");
    for word in ["--help", "-h"] {
        assert_eq!(run(&[word]).expect(0).out, overview);
    }
    let version = run(&["version"]).expect(0).out;
    assert_eq!(version, format!("zigsvc {}\n", env!("CARGO_PKG_VERSION")));
    for word in ["--version", "-V"] {
        assert_eq!(run(&[word]).expect(0).out, version);
    }
    let limits = run(&["limits"]).expect(0).out;
    for line in limits.lines() {
        let mut words = line.split_whitespace();
        assert!(
            words.next().is_some() && words.next().unwrap().parse::<u64>().is_ok() && words.next().is_some(),
            "{line}"
        );
    }
    assert!(limits.starts_with("job "), "{limits}");
}

#[test]
fn a_command_whose_output_goes_nowhere_does_not_say_that_it_worked() {
    let dir = Dir::new();
    let commands =
        [&["version"][..], &["help"], &["help", "start"], &["limits"], &["check"], &["status", "--json"]];
    dir.start(&[]);
    for words in commands {
        let mut command = dir.command();
        command.args(words);
        let closed = finish(crate::support::by_shell("exec \"$@\" >&-", &command), None);
        assert_ne!(closed.code, 0, "{words:?}");
        let full = finish(crate::support::by_shell("exec \"$@\" >/dev/full", &command), None);
        assert_ne!(full.code, 0, "{words:?}");
        let told = "zigsvc: stdout: write: ENOSPC (no space left on device)\n";
        assert_eq!(full.err, told, "{words:?}: once, in however many parts it prints");
    }
}

#[test]
fn an_empty_program_name_is_as_good_as_any() {
    if !crate::support::require(crate::support::runner().is_empty(), "the runner sets the program's name") {
        return;
    }
    let dir = Dir::new();
    for name in ["", "zigsvc\n", "-"] {
        let mut command = zigsvc();
        command.arg0(name).arg("version");
        finish(command, None).expect(0);
        let mut command = zigsvc();
        command.arg0(name);
        finish(command, None).expect(2);
        let mut command = zigsvc();
        command.arg0(name).arg("-d").arg(dir.path("")).arg("start");
        finish(command, None).expect(0);
        dir.zigsvc(&["stop"]).expect(0);
    }
}

#[test]
fn too_many_options_are_refused() {
    let dir = Dir::new();
    let with = |count: usize| dir.zigsvc(&[["-o", "workers=2"].repeat(count), vec!["check"]].concat());
    with(48).expect(0);
    assert!(with(49).expect(2).err.contains("too many options -o"));
}

#[test]
fn a_folder_that_is_too_deep_is_refused_before_anything_is_made() {
    let dir = Dir::new();
    let deep = format!("{}/{}", dir.as_arg(), "x".repeat(250 - dir.as_arg().len() - 1));
    for command in ["start", "run", "check", "status"] {
        let ran = run(&["-d", &deep, command]).expect(2);
        assert!(ran.err.contains("option -d: a path, made absolute, has at most 255 bytes"), "{ran:?}");
    }
    assert_eq!(fs::read_dir(dir.path("")).unwrap().count(), 0);
}

#[test]
fn in_a_working_directory_without_a_usable_name_relative_paths_are_refused() {
    let dir = Dir::new();
    let deep = dir.path(&[&"x".repeat(60)[..]; 5].join("/"));
    let gone = dir.path("gone");
    fs::create_dir_all(&deep).unwrap();
    for (folder, script) in [(&deep, "exec \"$@\""), (&gone, "rmdir \"$PWD\"; exec \"$@\"")] {
        let _ = fs::create_dir(folder);
        let from_there = |args: &[&str]| {
            let _ = fs::create_dir(folder);
            let mut command = zigsvc();
            command.args(args).current_dir(folder);
            let mut command = crate::support::by_shell(script, &command);
            command.stderr(Stdio::null());
            finish(command, None)
        };
        from_there(&["-d", "rel", "check"]).expect(2);
        from_there(&["-d", dir.as_arg(), "-c", "rel", "check"]).expect(2);
        from_there(&["-d", dir.as_arg(), "-o", "log_file=rel", "check"]).expect(6);
        from_there(&["-d", dir.as_arg(), "check"]).expect(0);
        from_there(&["-d", dir.as_arg(), "start"]).expect(0);
        from_there(&["-d", dir.as_arg(), "stop"]).expect(0);
    }
}

#[test]
fn no_program_can_have_the_name_of_a_command() {
    for command in zigsvc::cli::COMMANDS.iter() {
        let name = command.name;
        assert!(zigsvc::proto::service::COMMAND_NAMES.find(name.as_bytes()).is_some(), "{name}");
        assert!(!zigsvc::proto::service::is_program_name(name.as_bytes()), "{name}");
    }
}
