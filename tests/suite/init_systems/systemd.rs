//! The unit and its drop-in, as systemd-analyze judges them, and their command
//! lines and their filter with the real binary.

use super::site::{Site, Started, shipped, tool};
use crate::support::{
    Dir, finish, is_root, kill, program, require_native, require_tool, through, wait_for_log, wait_until,
};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const UNIT: &str = "zigsvc.service";
const DROP_IN: &str = "zigsvc.service.d/hardening.conf";

/// Returns the value that a unit gives for `key`, the last one if there are several.
#[track_caller]
fn value(unit: &str, key: &str) -> String {
    let mut lines = unit.lines().rev();
    let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {key}")).to_owned()
}

/// Returns the overall exposure of a unit, 0 to 10, and whether it is at most `most`.
fn exposure(unit: &Path, most: u32) -> (f64, bool) {
    let most = format!("--threshold={}", most * 10);
    let ran =
        tool("systemd-analyze", &["security", "--no-pager", "--offline=yes", &most, unit.to_str().unwrap()]);
    let figure = ran.out.split_once("Overall exposure level for zigsvc.service: ");
    let figure = figure.and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    (figure.unwrap_or_else(|| panic!("{ran:?}")), ran.code == 0)
}

#[test]
fn systemd_takes_the_unit_and_its_drop_in_without_a_word() {
    if !require_tool("systemd-analyze") {
        return;
    }
    let site = Site::new();
    let unit = site.copy(UNIT, UNIT);
    let judge = || {
        let ran = tool("systemd-analyze", &["verify", "--man=no", unit.to_str().unwrap()]);
        // Messages about other units of this machine do not count.
        let about_us = ran.err.lines().filter(|line| line.contains("zigsvc")).collect::<Vec<_>>();
        assert_eq!((ran.code, about_us), (0, vec![]), "{ran:?}");
    };
    judge();
    let (open, _) = exposure(&unit, 10);
    site.copy(DROP_IN, DROP_IN);
    judge();
    let (hardened, safe) = exposure(&unit, 1);
    assert!(safe && hardened <= 1.0, "{hardened}");
    // That the drop-in was read at all.
    assert!(open > 9.0, "{open}");
}

#[test]
fn the_commands_of_the_unit_start_reload_and_stop_the_service() {
    let site = Site::new();
    let unit = site.adapted(UNIT);
    let words = |key: &str| {
        let value = value(&unit, key);
        let mut words = value.split(' ');
        let mut command = program(words.next().unwrap());
        command.args(words);
        command
    };
    let mut started = Started::new(&words("ExecStart"), &site.dir.path("zigsvc.log"));
    let pid = site.successor(0);
    assert_eq!(started.pid(), pid, "it is the main process");
    finish(words("ExecReload"), None).expect(0);
    wait_for_log(&site.dir, "SIGHUP received, reloading config");
    site.break_config(true);
    finish(words("ExecReload"), None).expect(6);
    kill(pid, "TERM");
    assert_eq!(started.code(), Some(0), "no failure, and so not restarted");
    // The failures that Restart= leaves alone.
    let prevented = value(&unit, "RestartPreventExitStatus");
    assert!(prevented.split(' ').any(|code| code == "6"));
    assert_eq!(finish(words("ExecStart"), None).code, 6);
}

#[test]
fn the_configuration_that_the_drop_in_asks_for_is_right_and_keeps_to_its_folders() {
    let drop_in = shipped(DROP_IN);
    let lines = drop_in.lines().filter_map(|line| line.strip_prefix("#   "));
    let config: String = lines.filter(|line| line.contains(" = ")).map(|line| format!("{line}\n")).collect();
    let dir = Dir::new();
    dir.write("zigsvc.conf", &config);
    dir.zigsvc(&["check"]).expect(0);
    let folder = |key| format!("/{}/", value(&drop_in, key));
    let folders =
        [format!("/run{}", folder("RuntimeDirectory")), format!("/var/lib{}", folder("StateDirectory"))];
    let config = config.parse::<toml::Table>().unwrap();
    assert_eq!(config.len(), 5);
    for (key, path) in &config {
        let path = format!("{}/", path.as_str().unwrap());
        assert!(folders.iter().any(|folder| path.starts_with(folder)), "{key}: {path}");
    }
}

/// Returns the system calls of a set of systemd's, with those of the sets in it.
fn calls_of(set: &str) -> BTreeSet<String> {
    let ran = tool("systemd-analyze", &["syscall-filter", "--no-pager", set]).expect(0);
    let mut calls = BTreeSet::new();
    for word in ran.out.lines().map(str::trim).filter(|line| !line.starts_with('#') && *line != set) {
        if word.starts_with('@') {
            calls.append(&mut calls_of(word));
        } else {
            calls.insert(word.to_owned());
        }
    }
    calls
}

#[test]
fn the_drop_in_allows_every_system_call_that_the_service_makes() {
    if !require_tool("systemd-analyze")
        || !require_tool("strace")
        || !require_tool("setpriv")
        || !require_native("strace sees the calls of QEMU itself")
    {
        return;
    }
    let drop_in = shipped(DROP_IN);
    let mut allowed = BTreeSet::new();
    for line in drop_in.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        for set in line.trim_start_matches('~').split(' ') {
            let calls = calls_of(set);
            if line.starts_with('~') {
                allowed.retain(|call| !calls.contains(call));
            } else {
                allowed.extend(calls);
            }
        }
    }
    assert!(allowed.len() > 100, "{allowed:?}");

    // The service under another user, as the drop-in has it, from its start by
    // jobs, a reload and a request to its stop.
    let site = Site::new();
    let trace = site.dir.path("trace");
    let mut words = vec!["-f", "-o", trace.to_str().unwrap()];
    // That user may not enter the folder in which the binary was built.
    let binary = site.dir.copy_program(crate::support::zigsvc().get_program(), "zigsvc");
    let binary = binary.to_str().unwrap();
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"];
    if is_root() {
        std::os::unix::fs::chown(site.dir.path(""), Some(65534), Some(65534)).unwrap();
    }
    words.extend([binary, "-d", site.dir.as_arg(), "-o", "handler=shell", "-o", "workers=2", "run"]);
    let mut command = program(if is_root() { user[0] } else { "strace" });
    if is_root() {
        command.args(&user[1..]).arg("strace");
    }
    command.args(words);
    // It has a manager to notify, although one that does not listen.
    command.env("NOTIFY_SOCKET", site.dir.path("notify")).env("WATCHDOG_USEC", "200000");
    let mut started = Started::new(&command, &site.kit.path("strace"));
    let pid = site.successor(0);
    site.dir.append("queue", "exit 0\nexit 1\n");
    site.dir.zigsvc(&["queue", "--wait", "exit 0"]).expect(0);
    let mut reload = site.dir.command();
    reload.arg("reload");
    // Root refuses to check the configuration of another user.
    let reload = if is_root() { through(&user, &reload) } else { reload };
    finish(reload, None).expect(0);
    site.dir.zigsvc(&["rotate"]).expect(0);
    wait_until("the queue was taken", || !site.dir.path("queue").exists());
    kill(pid, "TERM");
    assert_eq!(started.code(), Some(0));
    let text = fs::read_to_string(&trace).unwrap();
    let made = text.lines().filter_map(|line| {
        let (call, _) = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').split_once('(')?;
        let name = !call.is_empty() && call.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
        name.then(|| call.to_owned())
    });
    let made = made.collect::<BTreeSet<_>>();
    assert!(made.contains("fdatasync") && made.contains("execve"), "{made:?}");
    let refused = made.difference(&allowed).collect::<Vec<_>>();
    assert!(refused.is_empty(), "{refused:?}");
}
