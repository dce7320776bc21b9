//! procd's script under BusyBox's shell, as OpenWrt's rc.common runs it: the functions of
//! procd write down their arguments.

use super::site::{Site, Started};
use crate::support::{Ran, find, finish, kill, program, wait_for_log};
use std::process::Stdio;

/// The script that stands for rc.common: the action is `$1`, the script `$2`. A name that
/// the script does not define is not found.
const RC_COMMON: &str = "
told() { printf '<%s>' \"$@\"; echo; }
procd_open_instance() { told open \"$@\"; }
procd_set_param() { told \"$@\"; }
procd_close_instance() { told close; }
procd_add_reload_trigger() { told trigger \"$@\"; }
action=$1
. \"$2\"
case $action in
start) start_service ;;
stop) stop_service; told kill ;;
restart) trap '' TERM; stop_service; told kill; start_service ;;
reload) reload_service ;;
status) status_service ;;
running) service_running ;;
triggers) service_triggers ;;
settings) told $START $STOP $USE_PROCD ;;
esac
";

/// Returns the lines of an instance: its name, and the words that zigsvc gets.
fn instance(site: &Site, name: &str, words: &[&str]) -> String {
    let words: String = words.iter().map(|word| format!("<{word}>")).collect();
    format!(
        "<open><{name}>\n<command><{}>{words}\n<respawn><3600><5><0>\n<term_timeout><20>\n\
         <file></etc/zigsvc.conf>\n<reload_signal><HUP>\n<stderr><1>\n<close>\n",
        site.program().display()
    )
}

/// Returns a function that runs the actions of the script, if there is BusyBox.
fn actions<'a>(site: &'a Site, script: &str) -> Option<impl Fn(&str) -> Ran + use<'a>> {
    let busybox = find("busybox")?;
    let script = site.kit.path(script);
    Some(move |action: &str| {
        let mut command = program(&busybox);
        command.args(["ash", "-c", RC_COMMON, "rc.common", action]).arg(&script).stdin(Stdio::null());
        finish(command, None)
    })
}

#[test]
fn procd_is_told_what_it_has_to_know() {
    let site = Site::new();
    site.copy("zigsvc.procd", "script");
    let Some(run) = actions(&site, "script") else { return };
    assert_eq!(run("start").expect(0).out, instance(&site, "jobs", &["run", "jobs"]));
    assert_eq!(run("triggers").expect(0).out, "<trigger><zigsvc>\n");
    assert_eq!(run("settings").expect(0).out, "<90><10><1>\n");
    assert!(site.adapted("zigsvc.procd").starts_with("#!/bin/sh /etc/rc.common\n"));
    // With a wrong configuration procd gets nothing.
    site.break_config(true);
    let refused = run("start").expect(6);
    assert_eq!(refused.out, "");
    assert!(refused.err.contains("zigsvc.conf:1: "), "{refused:?}");
}

#[test]
fn procd_may_run_several_services_and_any_program() {
    let site = Site::new();
    let text = site.adapted("zigsvc.procd");
    let text = text.replace("SERVICES=\"jobs\"", "SERVICES=\"jobs supervisor\"");
    let text = text.replace("\t#instance ", "\tinstance ");
    site.kit.write("script", text);
    let Some(run) = actions(&site, "script") else { return };
    let sample = ["-d", "/var/run/beacon", "run", "supervisor", "--", "/usr/sbin/beacon", "--foreground"];
    let expected = instance(&site, "jobs", &["run", "jobs"])
        + &instance(&site, "supervisor", &["run", "supervisor"])
        + &instance(&site, "beacon", &sample);
    assert_eq!(run("start").expect(0).out, expected);
}

#[test]
fn what_procd_runs_is_reloaded_stopped_and_asked() {
    let site = Site::new();
    site.copy("zigsvc.procd", "script");
    let Some(run) = actions(&site, "script") else { return };
    run("status").expect(3);
    run("running").expect(3);
    run("reload").expect(7);
    // As procd would: the words of its command.
    let told = run("start").expect(0).out;
    let words = told.lines().find_map(|line| line.strip_prefix("<command><")?.strip_suffix('>')).unwrap();
    let mut words = words.split("><");
    let mut command = program(words.next().unwrap());
    command.args(words);
    let mut started = Started::new(&command, &site.dir.path("zigsvc.log"));
    let pid = site.successor(0);
    run("status").expect(0);
    assert_eq!(run("running").expect(0).out, "");
    run("reload").expect(0);
    wait_for_log(&site.dir, "SIGHUP received, reloading config");
    // Neither a reload nor a restart harms it when the configuration is wrong.
    site.break_config(true);
    run("reload").expect(6);
    assert_eq!(run("restart").expect(6).out, "");
    assert_eq!(site.pid(), Some(pid));
    // A stop ends it before procd is called, so a start may follow.
    assert_eq!(run("stop").expect(0).out, "<kill>\n");
    assert_eq!(site.pid(), None);
    assert_eq!(started.code(), Some(0));
    site.break_config(false);
    let restarted = run("restart").expect(0).out;
    assert_eq!(restarted, "<kill>\n".to_owned() + &instance(&site, "jobs", &["run", "jobs"]));
    // The signal that reload_signal names is the right one.
    let mut started = Started::new(&command, &site.dir.path("zigsvc.log"));
    let pid = site.successor(pid);
    kill(pid, "HUP");
    wait_for_log(&site.dir, "SIGHUP received, reloading config");
    kill(pid, "TERM");
    assert_eq!(started.code(), Some(0));
}
