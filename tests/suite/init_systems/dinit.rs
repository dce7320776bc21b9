//! Dinit's service file. Debian 12 has no Dinit: the keys are compared with
//! those of dinit-service(5), and its command is run as Dinit would run it.

use super::site::{Site, shipped};
use crate::support::by_shell;
use crate::support::program;
use std::io::{Read as _, pipe};
use std::process::Stdio;

/// The settings of dinit-service(5) that make sense for a process.
const KEYS: &[&str] = &[
    "type",
    "command",
    "working-dir",
    "run-as",
    "env-file",
    "restart",
    "smooth-recovery",
    "restart-delay",
    "restart-limit-interval",
    "restart-limit-count",
    "start-timeout",
    "stop-timeout",
    "depends-on",
    "depends-ms",
    "waits-for",
    "waits-for.d",
    "term-signal",
    "ready-notification",
    "logfile",
    "options",
];

/// Returns the settings of a text that has one `KEY = VALUE` on each line.
fn settings(text: &str) -> Vec<(&str, &str)> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_once(" = ").unwrap_or_else(|| panic!("{line:?}"))).collect()
}

#[test]
fn the_keys_are_those_of_the_manual() {
    let text = shipped("zigsvc.dinit");
    let settings = settings(&text);
    for (key, value) in &settings {
        assert!(KEYS.contains(key), "{key}");
        assert!(!value.is_empty() && value.trim() == *value, "{key}: {value:?}");
        assert_eq!(settings.iter().filter(|(other, _)| other == key).count(), 1, "{key}");
    }
    let value = |name: &str| settings.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    assert_eq!(value("type"), Some("process"));
    assert_eq!(value("term-signal"), Some("TERM"));
    assert_eq!(value("restart-limit-count"), Some("0"), "never given up");
}

#[test]
fn the_command_tells_the_descriptor_when_it_is_ready() {
    let site = Site::new();
    let text = site.adapted("zigsvc.dinit");
    let settings = settings(&text);
    let value = |name: &str| settings.iter().find(|(key, _)| *key == name).unwrap().1;
    let descriptor = value("ready-notification").strip_prefix("pipefd:").unwrap();
    let mut words = value("command").split(' ');
    let mut command = program(words.next().unwrap());
    command.args(words);
    let (mut ready, writer) = pipe().unwrap();
    let mut command = by_shell(&format!("exec \"$@\" {descriptor}>&1 >/dev/null"), &command);
    command.stdout(writer).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut text = String::new();
    ready.read_to_string(&mut text).unwrap();
    assert_eq!(text, "\n");
    assert_eq!(site.pid(), Some(child.id()));
    site.dir.zigsvc(&["stop"]).expect(0);
    assert!(child.wait().unwrap().success());
}
