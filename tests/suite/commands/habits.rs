//! Command lines as people type them: options at another place, misspelt words, `--help`, terminals of other
//! widths.

use crate::support::{Dir, finish, program, require_tool, zigsvc};
use std::process::Command;

/// Returns `zigsvc WORDS...`; `{d}` stands for the folder of the test.
fn typed(dir: &Dir, words: &str) -> Command {
    let mut command = zigsvc();
    command.args(words.split_whitespace().map(|word| word.replace("{d}", dir.as_arg())));
    command.current_dir(dir.path(""));
    command
}

/// Command lines, the first line that comes (on stderr if the exit code is not 0), and the exit
/// code. `{d}` is the folder, and `...` at the end of a line its rest.
const TYPED: &[(&str, &str, i32)] = &[
    // Options for every command, at any place.
    ("-d {d} list", "1 waiting 0 ls", 0),
    ("list -d {d}", "1 waiting 0 ls", 0),
    ("list -d{d}", "1 waiting 0 ls", 0),
    ("list waiting -d {d}", "1 waiting 0 ls", 0),
    ("list --json waiting -d {d}", "{\"id\":1,...", 0),
    ("list waiting --json -d {d}", "{\"id\":1,...", 0),
    ("status jobs -d {d}", "jobs: running (pid ...", 0),
    ("status -d {d} jobs", "jobs: running (pid ...", 0),
    ("status -d {d} --json", "{\"service\":\"jobs\",...", 0),
    (
        "check -d {d} -o workers=2",
        "# effective configuration; these are the defaults, because there is no file {d}/zigsvc.conf",
        0,
    ),
    (
        "check -o workers=2 -d {d} -o workers=9",
        "zigsvc: -o workers=9: workers must be a number from 1 to 8...",
        6,
    ),
    ("cancel 99 -d {d}", "zigsvc: cancel: no such job waits or runs (no-job)", 1),
    ("cancel -d {d} 99", "zigsvc: cancel: no such job waits or runs (no-job)", 1),
    ("stop hub --now -d {d}", "zigsvc: hub was not running", 0),
    ("list -d", "zigsvc: usage: option -d needs a value; see `zigsvc help list`", 2),
    ("status -o", "zigsvc: usage: option -o needs a value; see `zigsvc help status`", 2),
    ("list -x -d {d}", "zigsvc: usage: unknown option \"-x\"; see `zigsvc help list`", 2),
    ("list dead dead -d {d}", "zigsvc: usage: unexpected argument \"dead\"; see `zigsvc help list`", 2),
    (
        "list -d {d} -- -d",
        "zigsvc: usage: unknown state \"-d\"; known are waiting, scheduled, running, dead, done; see `zigsvc help list`",
        2,
    ),
    // Help, wherever it is asked for.
    ("--help", "zigsvc [-c FILE] [-d DIR] [-o KEY=VALUE]... COMMAND [ARG]...", 0),
    ("-h", "zigsvc [-c FILE] [-d DIR] [-o KEY=VALUE]... COMMAND [ARG]...", 0),
    ("help", "zigsvc [-c FILE] [-d DIR] [-o KEY=VALUE]... COMMAND [ARG]...", 0),
    ("status --help", "zigsvc status [--all] [--json|--prometheus] [SERVICE|NAME]", 0),
    ("status -h", "zigsvc status [--all] [--json|--prometheus] [SERVICE|NAME]", 0),
    ("status hub --help", "zigsvc status [--all] [--json|--prometheus] [SERVICE|NAME]", 0),
    ("wait --help", "zigsvc wait ID", 0),
    ("wait 3 --help", "zigsvc wait ID", 0),
    ("queue --help", "zigsvc queue [--wait] [--after DURATION] JOB...", 0),
    ("queue --wait --help", "zigsvc queue [--wait] [--after DURATION] JOB...", 0),
    ("start supervisor --help", "zigsvc start [SERVICE|NAME]", 0),
    ("log -s 1 --help", "zigsvc log [-p] [-s SIZE] [-n KEEP] [-t TIME] FILE", 0),
    ("-d {d} hold --help", "zigsvc hold", 0),
    ("help --help", "zigsvc help [COMMAND]", 0),
    ("version --help", "zigsvc version", 0),
    ("help strat", "zigsvc: usage: no help for \"strat\"; the nearest is `start`; see `zigsvc help`", 2),
    // Misspelt commands.
    ("strat", "zigsvc: usage: unknown command \"strat\"; the nearest is `start`; see `zigsvc help`", 2),
    ("satrt", "zigsvc: usage: unknown command \"satrt\"; the nearest is `start`; see `zigsvc help`", 2),
    ("stpo", "zigsvc: usage: unknown command \"stpo\"; the nearest is `stop`; see `zigsvc help`", 2),
    ("Status", "zigsvc: usage: unknown command \"Status\"; the nearest is `status`; see `zigsvc help`", 2),
    ("STATUS", "zigsvc: usage: unknown command \"STATUS\"; the nearest is `status`; see `zigsvc help`", 2),
    ("stat", "zigsvc: usage: unknown command \"stat\"; the nearest is `status`; see `zigsvc help`", 2),
    ("queu", "zigsvc: usage: unknown command \"queu\"; the nearest is `queue`; see `zigsvc help`", 2),
    ("quue", "zigsvc: usage: unknown command \"quue\"; the nearest is `queue`; see `zigsvc help`", 2),
    ("lst", "zigsvc: usage: unknown command \"lst\"; the nearest is `list`; see `zigsvc help`", 2),
    ("ls", "zigsvc: usage: unknown command \"ls\"; the nearest is `list`; see `zigsvc help`", 2),
    ("relaod", "zigsvc: usage: unknown command \"relaod\"; the nearest is `reload`; see `zigsvc help`", 2),
    ("restrat", "zigsvc: usage: unknown command \"restrat\"; the nearest is `restart`; see `zigsvc help`", 2),
    ("hepl", "zigsvc: usage: unknown command \"hepl\"; the nearest is `help`; see `zigsvc help`", 2),
    ("docter", "zigsvc: usage: unknown command \"docter\"; the nearest is `doctor`; see `zigsvc help`", 2),
    ("verison", "zigsvc: usage: unknown command \"verison\"; the nearest is `version`; see `zigsvc help`", 2),
    ("frobnicate", "zigsvc: usage: unknown command \"frobnicate\"; see `zigsvc help`", 2),
    ("x", "zigsvc: usage: unknown command \"x\"; see `zigsvc help`", 2),
    ("-- status", "zigsvc: usage: unknown option \"--\"; ...", 2),
    ("--json status", "zigsvc: usage: unknown option \"--json\"; ...", 2),
    // Other words.
    ("start job", "zigsvc: usage: unknown service \"job\"; known are ...", 2),
    ("status --jsn", "zigsvc: usage: unknown option \"--jsn\"; see `zigsvc help status`", 2),
    ("wait", "zigsvc: usage: missing argument: wait ID; see `zigsvc help wait`", 2),
    (
        "queue",
        "zigsvc: usage: missing argument: queue [--wait] [--after DURATION] JOB...; see `zigsvc help queue`",
        2,
    ),
    (
        "cancel one -d {d}",
        "zigsvc: usage: a job's number is needed, not \"one\"; see `zigsvc help cancel`",
        2,
    ),
    ("list nothing -d {d}", "zigsvc: usage: unknown state \"nothing\"; known are ...", 2),
    // The way out of the commonest mistake.
    (
        "reload hub -d {d}",
        "zigsvc: hub: not running (tried {d}/zigsvc-hub.pid); `zigsvc start hub` starts it",
        7,
    ),
    ("chat -d {d}", "zigsvc: hub: not running (tried {d}/zigsvc-hub.sock); `zigsvc start hub` starts it", 7),
    (
        "-d {d}/other queue ls",
        "zigsvc: jobs: not running (tried {d}/other/zigsvc.sock); `zigsvc start` starts it",
        7,
    ),
    (
        "rotate -d {d}/other",
        "zigsvc: jobs: not running (tried {d}/other/zigsvc.pid); `zigsvc start` starts it",
        7,
    ),
    ("stop -d {d}/other", "zigsvc: jobs was not running", 0),
    // Keys.
    (
        "check -d {d} -o hanlder=shell",
        "zigsvc: -o hanlder=shell: unknown key \"hanlder\"; the nearest is `handler`; `zigsvc -c /dev/null check` shows all",
        6,
    ),
    (
        "start -d {d} -o Workers=2",
        "zigsvc: -o Workers=2: unknown key \"Workers\"; the nearest is `workers`; ...",
        6,
    ),
    (
        "check -d {d} -o log-file=/x",
        "zigsvc: -o log-file=/x: unknown key \"log-file\"; the nearest is `log_file`; ...",
        6,
    ),
    (
        "check -d {d} -o retrys=2",
        "zigsvc: -o retrys=2: unknown key \"retrys\"; the nearest is `retries`; ...",
        6,
    ),
    (
        "check -d {d} -o job_timout=2s",
        "zigsvc: -o job_timout=2s: unknown key \"job_timout\"; the nearest is `job_timeout`; ...",
        6,
    ),
    (
        "check -d {d} -o check_intervall=2s",
        "zigsvc: -o check_intervall=2s: unknown key \"check_intervall\"; the nearest is `check_interval`; ...",
        6,
    ),
    (
        "check -d {d} -o colour=red",
        "zigsvc: -o colour=red: unknown key \"colour\"; `zigsvc -c /dev/null check` shows all",
        6,
    ),
    ("check -d {d} -o handler", "zigsvc: -o handler: an option is KEY=VALUE", 6),
];

#[test]
fn what_people_type_gets_one_clear_line_and_its_exit_code() {
    let dir = Dir::new();
    dir.start(&[]);
    dir.zigsvc(&["hold"]).expect(0);
    dir.zigsvc(&["queue", "ls"]).expect(0);
    for (words, line, code) in TYPED {
        let ran = finish(typed(&dir, words), None);
        let text = if *code == 0 { &ran.out } else { &ran.err };
        assert_eq!(ran.code, *code, "{words}: {ran:?}");
        assert!(*code == 0 || ran.err.lines().count() == 1, "{words}: {ran:?}");
        let (first, line) = (text.lines().next().unwrap_or(""), line.replace("{d}", dir.as_arg()));
        match line.strip_suffix("...") {
            // Three points also end the arguments of a command.
            Some(start) if first != line => assert!(first.starts_with(start), "{words}: {ran:?}"),
            _ => assert_eq!(first, line, "{words}"),
        }
    }
}

#[test]
fn options_after_the_command_hold_for_the_service_and_what_it_starts() {
    let dir = Dir::new();
    finish(typed(&dir, "start -d {d} -o handler=shell jobs"), None).expect(0);
    assert!(dir.zigsvc(&["status"]).expect(0).out.contains("\n  handler    shell\n"));
    finish(typed(&dir, "restart -d {d}"), None).expect(0);
    assert!(dir.zigsvc(&["status"]).expect(0).out.contains("\n  handler    shell\n"));
    // The words of a job are the job's.
    assert_eq!(finish(typed(&dir, "queue -d {d} --wait echo -d -c -o"), None).expect(0).out, "-d -c -o\n");
    // The supervisor passes them to the services that it starts.
    let dir = Dir::new();
    finish(typed(&dir, "start supervisor -d {d} -o handler=shell"), None).expect(0);
    assert!(dir.zigsvc(&["status"]).expect(0).out.contains("\n  handler    shell\n"));
    finish(typed(&dir, "stop supervisor -d {d}"), None).expect(0);
}

#[test]
fn help_fits_the_terminal() {
    for width in [24, 40, 60, 80, 200] {
        let run = |words: &[&str]| {
            let mut command = zigsvc();
            command.args(words).env("COLUMNS", width.to_string());
            finish(command, None).expect(0).out
        };
        let mut texts = vec![run(&["help"])];
        for command in zigsvc::cli::COMMANDS.iter() {
            texts.push(run(&["help", command.name]));
            for internal in ["--child", "--again"] {
                assert!(
                    !texts.last().unwrap().contains(internal),
                    "{internal} is in the help of {}",
                    command.name
                );
            }
        }
        for line in texts.iter().flat_map(|text| text.lines()) {
            // A word is not cut.
            let longest = line.split(' ').map(str::len).max().unwrap_or(0);
            assert!(
                line.len() <= 80.min(width).max(longest + "zigsvc restart ".len()),
                "{width} columns: {line}"
            );
            assert!(width < 60 || line.len() <= 80, "{line}");
            assert_eq!(line.trim_end(), line, "{width} columns");
            // An option stays with its value, and there is one indentation beside that of the entries.
            assert_eq!(line.matches('[').count(), line.matches(']').count(), "{width} columns: {line}");
            let indentation = line.len() - line.trim_start().len();
            assert!([0, 2, 4].contains(&indentation), "{width} columns: {line}");
        }
    }
}

#[test]
fn a_narrow_terminal_gets_the_columns_of_status_all_that_fit() {
    if !require_tool("script") || !crate::support::require(crate::support::runner().is_empty(), "a runner") {
        return;
    }
    let dir = Dir::new();
    std::fs::create_dir(dir.path("programs")).unwrap();
    let name = "a-program.with_a-name-of-32-byte";
    dir.write(&format!("programs/{name}.conf"), "command = [\"/bin/sleep\", \"600\"]\n");
    dir.start_service("supervisor", &["supervise=jobs"]);
    crate::support::wait_until("both run", || {
        dir.zigsvc(&["status", "--all"]).out.matches(" running  ").count() == 2
    });
    let wide = dir.zigsvc(&["status", "--all"]).out;
    assert!(
        wide.starts_with(
            "NAME       STATE    PID     UP   RESTARTS LAST END     HEALTH\nsupervisor running  "
        ),
        "{wide}"
    );
    let heads = [
        (24, "NAME    STATE    HEALTH"),
        (30, "NAME       STATE    HEALTH"),
        (34, "NAME       STATE    UP   HEALTH"),
        (40, "NAME       STATE    UP   RST  HEALTH"),
        (52, "NAME       STATE    UP   RST  LAST END     HEALTH"),
        (60, "NAME       STATE    PID     UP   RST  LAST END     HEALTH"),
        (80, "NAME       STATE    PID     UP   RESTARTS LAST END     HEALTH"),
    ];
    for (columns, head) in heads {
        let text =
            on_a_terminal(&dir, "status --all", &[("COLUMNS", &columns.to_string()), ("NO_COLOR", "1")]);
        assert_eq!(text.lines().next(), Some(head), "{columns} columns: {text}");
        assert!(
            text.lines().all(|line| line.len() <= columns && line.trim_end() == line),
            "{columns} columns: {text}"
        );
        assert_eq!(text.matches(" running  ").count(), 2, "{columns} columns: {text}");
    }
    // Without a terminal the lines are those of 80 columns.
    let mut command = typed(&dir, "status --all -d {d}");
    command.env("COLUMNS", "40");
    let plain = finish(command, None).out;
    assert_eq!(plain.lines().next(), wide.lines().next());
    // The width of the terminal itself, and a name that is longer than it.
    dir.zigsvc(&["stop", "supervisor"]).expect(0);
    dir.start_service("supervisor", &[&format!("supervise={name}")]);
    let binary = zigsvc().get_program().to_str().unwrap().to_owned();
    let line = format!("stty cols 40; {binary} -d {} status --all", dir.as_arg());
    let mut command = program("script");
    command.args(["-qec", &line, "/dev/null"]).env_clear().env("PATH", "/usr/bin:/bin");
    let text = finish(command, None).out.replace('\r', "");
    assert!(text.starts_with("NAME                    STATE    HEALTH\n"), "{text}");
    assert!(text.contains("\na-program.with_a-name.. running  "), "{text}");
}

/// Runs a command on a terminal, as script(1) makes one.
fn on_a_terminal(dir: &Dir, words: &str, environment: &[(&str, &str)]) -> String {
    let mut command = program("script");
    let binary = zigsvc().get_program().to_str().unwrap().to_owned();
    command.args(["-qec", &format!("{binary} -d {} {words}", dir.as_arg()), "/dev/null"]);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("TERM", "linux");
    command.envs(environment.iter().copied());
    finish(command, None).out.replace('\r', "")
}

#[test]
fn colours_are_for_terminals_that_show_them_and_users_that_want_them() {
    if !require_tool("script") || !crate::support::require(crate::support::runner().is_empty(), "a runner") {
        return;
    }
    let dir = Dir::new();
    dir.start(&["sync=never"]);
    let coloured = on_a_terminal(&dir, "status", &[]);
    assert!(coloured.contains("jobs: \x1b[32mrunning\x1b[0m (pid "), "{coloured:?}");
    assert!(coloured.contains("degraded   \x1b[33msync-never\x1b[0m\n"), "{coloured:?}");
    for environment in [[("NO_COLOR", "1")], [("TERM", "dumb")], [("TERM", "")]] {
        let plain = on_a_terminal(&dir, "status", &environment);
        assert!(plain.contains("jobs: running (pid ") && !plain.contains('\x1b'), "{plain:?}");
    }
    assert!(!dir.zigsvc(&["status"]).expect(0).out.contains('\x1b'));
    assert!(!dir.zigsvc(&["doctor"]).out.contains('\x1b'));
    assert!(on_a_terminal(&dir, "doctor", &[]).contains("\x1b[32mok    \x1b[0m"));
}

#[test]
fn one_of_a_thing_is_singular() {
    let dir = Dir::new();
    dir.start(&["handler=shell", "retries=0"]);
    dir.zigsvc(&["rotate"]).expect(0);
    dir.zigsvc(&["reload"]).expect(0);
    dir.zigsvc(&["queue", "--wait", "exit 1"]).expect(1);
    crate::support::wait_until("it has rotated and reloaded", || {
        let text = dir.zigsvc(&["status"]).expect(0).out;
        ["1 failed attempt\n", " 1 rotation, ", " 0 lines lost\n", " 1 reload, "]
            .iter()
            .all(|part| text.contains(part))
    });
    assert_eq!(dir.zigsvc(&["forget", "dead"]).expect(0).out, "zigsvc: 1 dead job forgotten\n");
    assert_eq!(dir.zigsvc(&["forget", "dead"]).expect(0).out, "zigsvc: 0 dead jobs forgotten\n");
}

#[test]
fn the_status_of_a_companion_has_its_own_counters() {
    let dir = Dir::new();
    for (service, fields) in [
        ("hub", &["joined", "clients", "lines", "degraded"][..]),
        ("collector", &["clients", "metrics", "values", "denied", "degraded"]),
        ("opener", &["opened", "denied", "degraded"]),
    ] {
        dir.start_service(service, &[]);
        let text = dir.zigsvc(&["status", service]).expect(0).out;
        assert!(text.starts_with(&format!("{service}: running (pid ")) && text.contains(", up "), "{text}");
        let json: serde_json::Value =
            serde_json::from_str(&dir.zigsvc(&["status", "--json", service]).expect(0).out).unwrap();
        for field in fields {
            assert!(
                text.lines().any(|line| line.trim_start().starts_with(&format!("{field} "))),
                "{field}: {text}"
            );
            assert!(json.get(field).is_some(), "{field}: {json}");
        }
    }
    dir.zigsvc(&["metric", "cpu", "1"]).expect(0);
    let text = dir.zigsvc(&["status", "collector"]).expect(0).out;
    assert!(text.contains("\n  metrics    1\n") && text.contains("\n  values     1\n"), "{text}");
}
