//! The service directories, under the real s6-supervise and runsv.

use super::site::{Site, Started, tool};
use crate::support::{by_shell, find, finish, install, program, wait_for_log, wait_until};
use std::fs;
use std::io::{Read as _, pipe};

#[test]
fn s6_supervises_it_and_knows_when_it_is_ready() {
    let (Some(supervise), Some(svc), Some(wait), Some(stat), Some(ok)) =
        (find("s6-supervise"), find("s6-svc"), find("s6-svwait"), find("s6-svstat"), find("s6-svok"))
    else {
        return;
    };
    let site = Site::new();
    let folder = site.copy_folder("s6/zigsvc", "s6");
    let folder = folder.to_str().unwrap();
    let mut command = program(supervise);
    command.arg(folder);
    let mut supervisor = Started::new(&command, &site.dir.path("zigsvc.log"));
    let wait = |what: &str| tool(&wait, &[what, "-t", "60000", folder]).code;
    let control = |what: &str| {
        tool(&svc, &[what, folder]).expect(0);
    };
    wait_until("s6-supervise is there", || tool(&ok, &[folder]).code == 0);

    // Ready is ready: it answers at once.
    assert_eq!(wait("-U"), 0);
    site.dir.zigsvc(&["status"]).expect(0);
    let first = site.pid().unwrap();
    assert_eq!(tool(&stat, &["-o", "pid,ready", folder]).out, format!("{first} true\n"));
    control("-h");
    wait_for_log(&site.dir, "SIGHUP received, reloading config");
    assert_eq!(site.pid(), Some(first));

    // It comes back after a crash, and is down when `-d` orders it.
    site.crash();
    let second = site.successor(first);
    control("-d");
    assert_eq!(wait("-D"), 0);
    assert_eq!(site.pid(), None);
    assert!(site.dir.read("zigsvc.log").contains("SIGTERM received, stopping"));
    assert!(!site.dir.path("zigsvc.pid").exists());

    // A wrong configuration is not tried each second, but only when `-u` orders it.
    site.break_config(true);
    control("-u");
    wait_until("it is left down", || {
        tool(&stat, &["-o", "up,wantedup,exitcode", folder]).out == "false false 6\n"
    });
    assert_eq!(crate::support::log_lines_matching(&site.dir.read("zigsvc.log"), "zigsvc.conf:1: "), 1);
    site.break_config(false);
    control("-u");
    assert_eq!(wait("-U"), 0);
    assert_ne!(site.pid(), Some(second));

    // Down and out.
    control("-dx");
    assert_eq!(supervisor.code(), Some(0));
    assert_eq!(site.pid(), None);
}

#[test]
fn the_files_of_the_s6_directory_are_what_s6_reads() {
    let site = Site::new();
    let folder = site.copy_folder("s6/zigsvc", "s6");
    let mut names: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["finish", "notification-fd", "run", "timeout-kill", "type"]);
    assert_eq!(super::site::shipped("s6/zigsvc/type"), "longrun\n");
    for (code, end) in [("0", 0), ("1", 0), ("2", 125), ("4", 125), ("6", 125), ("7", 0), ("256", 0)] {
        assert_eq!(tool(folder.join("finish"), &[code, "0"]).code, end, "{code}");
    }
}

#[test]
fn runit_supervises_it_and_waits_until_it_answers() {
    let (Some(runsv), Some(sv)) = (find("runsv"), find("sv")) else { return };
    let site = Site::new();
    let folder = site.copy_folder("runit/zigsvc", "runit");
    let folder = folder.to_str().unwrap();
    let mut command = program(runsv);
    command.arg(folder);
    let mut supervisor = Started::new(&command, &site.dir.path("zigsvc.log"));
    let control = |what: &str| tool(&sv, &["-w", "60", what, folder]);
    wait_until("runsv is there", || control("status").code == 0);

    // `start` returns when `check` says that it answers.
    let check = || tool(format!("{folder}/check"), &[]).code;
    control("start").expect(0);
    site.dir.zigsvc(&["status"]).expect(0);
    assert_eq!(check(), 0);
    let first = site.pid().unwrap();
    assert!(control("status").out.contains(&format!("(pid {first}) ")));
    control("hup").expect(0);
    wait_for_log(&site.dir, "SIGHUP received, reloading config");
    site.crash();
    site.successor(first);
    control("stop").expect(0);
    assert_eq!((site.pid(), check()), (None, 3));
    // And it does not return when nothing answers.
    site.break_config(true);
    assert_ne!(tool(&sv, &["-w", "1", "start", folder]).code, 0);
    site.break_config(false);
    control("start").expect(0);
    control("shutdown").expect(0);
    assert_eq!(supervisor.code(), Some(0));
    assert_eq!(site.pid(), None);
}

/// Runs the directory of nitro, which is not in Debian, as nitro(8) runs it.
#[test]
fn the_directory_of_nitro_is_ready_when_it_answers_and_pauses_after_a_mistake() {
    let site = Site::new();
    let folder = site.copy_folder("nitro/zigsvc", "nitro");
    assert_eq!(super::site::shipped("nitro/zigsvc/notification-fd"), "3\n");
    let (mut ready, writer) = pipe().unwrap();
    let mut command = by_shell("exec \"$@\" 3>&1 >/dev/null", &program(folder.join("run")));
    command.stdout(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut text = String::new();
    ready.read_to_string(&mut text).unwrap();
    assert_eq!(text, "\n");
    assert_eq!(site.pid(), Some(child.id()));
    site.dir.zigsvc(&["stop"]).expect(0);
    assert!(child.wait().unwrap().success());
    // The arguments of finish are the exit code, or -1, and the signal, or 0. nitro ends it after 7 s.
    let slept = |code: &str, signal: &str| {
        let bin = site.kit.path("bin");
        fs::create_dir_all(&bin).unwrap();
        install(&bin.join("sleep"), "#!/bin/sh\necho \"$1\"\n");
        let mut command = program(folder.join("finish"));
        command.args([code, signal]).env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        finish(command, None).expect(0).out
    };
    for code in ["0", "1", "7", "-1"] {
        assert_eq!(slept(code, if code == "-1" { "9" } else { "0" }), "", "{code}");
    }
    for code in ["2", "4", "6"] {
        let seconds: u32 = slept(code, "0").trim_end().parse().unwrap();
        assert!((1..7).contains(&seconds), "{code}: {seconds}");
    }
}
