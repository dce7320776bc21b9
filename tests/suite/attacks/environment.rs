//! A hostile start: limits, arguments, variables and descriptors that a service gets from
//! the process that starts it. Either it works, or it reports why not and leaves nothing.

use crate::support::control::ask;
use crate::support::{
    Dir, by_shell, finish, log_lines_matching, program, require_native, require_tool, wait_until,
};
use std::fs;
use std::os::unix::net::UnixListener;

const SERVICES: [&str; 5] = ["jobs", "hub", "opener", "collector", "supervisor"];

/// Runs `start SERVICE` below the limit that the shell sets by `limit`.
fn start_limited(dir: &Dir, limit: &str, service: &str) -> crate::support::Ran {
    let mut command = dir.command();
    command.args(["start", service]);
    finish(by_shell(&format!("ulimit {limit} && exec \"$@\""), &command), None)
}

#[test]
fn below_any_limit_a_start_works_or_says_why_not_and_leaves_nothing() {
    if !require_native("the limits would be QEMU's") {
        return;
    }
    let mut limits: Vec<String> = (0..24).map(|count| format!("-n {count}")).collect();
    limits.extend(["-f 0", "-f 1", "-s 16", "-s 64", "-c 0"].map(str::to_owned));
    let (mut started, mut refused) = (0, 0);
    for service in SERVICES {
        for limit in &limits {
            let dir = Dir::new();
            let ran = start_limited(&dir, limit, service);
            // The smallest stack may be too small for the command itself, which the shell reports.
            let is_crash = limit == "-s 16" && ran.code == 139;
            if ran.code == 0 {
                started += 1;
                // A supervisor is up before its services are. One that hangs does not end so.
                wait_until(&format!("{limit} {service} runs"), || dir.zigsvc(&["status", service]).code == 0);
                dir.zigsvc(&["stop", service]).expect(0);
            } else {
                refused += 1;
                // 6: the configuration could not be read.
                assert!(is_crash || [1, 6].contains(&ran.code), "{limit} {service}: {ran:?}");
                let is_line = ran.err.starts_with("zigsvc: ") && ran.err.ends_with('\n');
                assert!(is_crash || is_line, "{limit} {service}: {ran:?}");
            }
            // Without a stack the service dies, anywhere.
            let died = is_crash || ran.err.contains("it ended before it was ready");
            if is_crash {
                dir.zigsvc(&["stop", service]);
            }
            let status = dir.zigsvc(&["status", service]);
            assert!(status.code == 3 || (died && status.code == 1), "{limit} {service}: {ran:?} {status:?}");
            let left = fs::read_dir(dir.path("")).unwrap().flatten().map(|entry| entry.file_name());
            let left: Vec<_> = left.map(|name| name.to_string_lossy().into_owned()).collect();
            let behind = |name: &String| name.ends_with(".health") || name.contains(".new");
            assert!(died || !left.iter().any(behind), "{limit} {service}: {left:?}");
            // A socket may be left on which no process listens. The next start replaces it.
            dir.start_service(service, &[]);
            dir.zigsvc(&["stop", service]).expect(0);
        }
    }
    assert!(started > 0 && refused > 0, "{started} {refused}");
}

#[test]
fn a_program_without_any_argument_or_with_very_many_ends_with_a_word() {
    if !require_tool("perl") {
        return;
    }
    let dir = Dir::new();
    let binary = dir.command().get_program().to_owned();
    // Since 5.18 Linux gives one argument, an empty one, to a program without arguments.
    for script in
        ["exec { $ARGV[0] } ()", "exec { $ARGV[0] } ('x') x 30000", "exec { $ARGV[0] } '', 'x' x 100000"]
    {
        let mut command = program("perl");
        command.args(["-e", script]).arg(&binary);
        let ran = finish(command, None);
        assert!(ran.code == 2 || ran.code == 0, "{script}: {ran:?}");
        assert!(!ran.err.is_empty() || !ran.out.is_empty(), "{script}");
    }
    let mut command = dir.command();
    for number in 0..2000 {
        command.env(format!("VARIABLE_{number}"), "x".repeat(500));
    }
    command.args(["start"]);
    finish(command, None).expect(0);
    assert!(ask(&dir, "status").starts_with("ok "));
}

#[test]
fn a_manager_that_is_anything_but_one_is_not_waited_for_and_not_written_to() {
    if !require_tool("mkfifo") {
        return;
    }
    let dir = Dir::new();
    dir.write("file", "as it was\n");
    fs::create_dir(dir.path("folder")).unwrap();
    let mut mkfifo = program("mkfifo");
    mkfifo.arg(dir.path("fifo"));
    finish(mkfifo, None).expect(0);
    let _stream = UnixListener::bind(dir.path("stream")).unwrap();
    std::os::unix::fs::symlink(dir.path("file"), dir.path("link")).unwrap();
    for name in ["file", "folder", "fifo", "stream", "link", "missing", "file/x"] {
        let mut command = dir.command();
        command.env("NOTIFY_SOCKET", dir.path(name)).env("WATCHDOG_USEC", "1").env("WATCHDOG_PID", "0");
        command.env("JOURNAL_STREAM", "0:0").args(["-o", "log_max=0", "run"]);
        let mut running = command.stderr(std::process::Stdio::null()).spawn().unwrap();
        wait_until(&format!("{name}: it runs"), || dir.zigsvc(&["status"]).code == 0);
        dir.zigsvc(&["queue", "x"]).expect(0);
        dir.zigsvc(&["stop"]).expect(0);
        assert!(running.wait().unwrap().success(), "{name}");
    }
    assert_eq!(dir.read("file"), "as it was\n");
}

#[test]
fn variables_that_loaders_and_shells_obey_reach_no_handler() {
    let dir = Dir::new();
    dir.write_executable("handler", &format!("#!/bin/sh\nenv | sort >> {}/out\n", dir.as_arg()));
    let mut command = dir.command();
    for name in [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "LD_AUDIT",
        "ENV",
        "BASH_ENV",
        "IFS",
        "SHELLOPTS",
        "BASH_FUNC_env%%",
    ] {
        command.env(name, "/nonexistent/evil");
    }
    command.env("PATH", dir.path("")).arg("-o").arg(format!("handler={}", dir.path("handler").display()));
    command.args(["-o", "log_max=0", "start"]);
    finish(command, None).expect(0);
    dir.zigsvc(&["queue", "x"]).expect(0);
    wait_until("the handler has told its variables", || dir.read("out").contains("ZIGSVC_JOB_ID"));
    let out = dir.read("out");
    assert_eq!(log_lines_matching(&out, "evil"), 0, "{out}");
    assert!(out.contains("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"), "{out}");
}
