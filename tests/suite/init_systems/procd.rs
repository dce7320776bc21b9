//! procd's script under BusyBox's shell, as OpenWrt's rc.common runs it: the functions of
//! procd write down their arguments.

use super::site::{Site, Started};
use crate::support::{Ran, find, finish, kill, program, wait_for_log};
use std::process::{Command, Stdio};

/// The script that stands for rc.common: the action is `$1`, the script `$2`, the instance `$3`. A
/// name that the script does not define is not found. `$RUNNING` are the instances that procd runs:
/// procd_kill sends them TERM and does not wait.
const RC_COMMON: &str = "
told() { printf '<%s>' \"$@\"; echo; }
procd_open_instance() { told open \"$@\"; }
procd_set_param() { told \"$@\"; }
procd_close_instance() { told close; }
procd_add_reload_trigger() { told trigger \"$@\"; }
procd_running() { case \" $RUNNING \" in *\" $2:\"*) ;; *) return 1 ;; esac; }
procd_kill() {
    told kill \"$@\"
    for pair in $RUNNING; do [ \"${pair%:*}\" != \"$2\" ] || kill \"${pair#*:}\"; done
}
action=$1 initscript=/etc/init.d/zigsvc basescript=
. \"$2\"
shift 2
case $action in
start) start_service \"$@\" ;;
stop) stop_service \"$@\" ;;
restart) trap '' TERM; stop_service \"$@\"; start_service \"$@\" ;;
reload) reload_service \"$@\" ;;
status) status_service \"$@\" ;;
running) service_running \"$@\" ;;
triggers) service_triggers ;;
settings) told $START $STOP $USE_PROCD ;;
esac
";

/// Returns the lines of an instance: its name, and the words that zigsvc gets.
fn instance(site: &Site, name: &str, words: &[&str]) -> String {
    let words: String = words.iter().map(|word| format!("<{word}>")).collect();
    format!(
        "<open><{name}>\n<command><{}><-o><syslog=true>{words}\n<respawn><3600><5><0>\n<term_timeout><20>\n\
         <file></etc/zigsvc.conf>\n<reload_signal><HUP>\n<stderr><0>\n<close>\n",
        site.program().display()
    )
}

/// Returns a function that runs the actions of the script, if there is BusyBox. An action is its
/// name, and maybe that of an instance.
fn actions<'a>(site: &'a Site, script: &str) -> Option<impl Fn(&str) -> Ran + use<'a>> {
    let run = actions_beside(site, script)?;
    Some(move |action: &str| run(action, ""))
}

/// Returns a function that runs the actions of the script while procd runs instances, each
/// `NAME:PID`.
fn actions_beside<'a>(site: &'a Site, script: &str) -> Option<impl Fn(&str, &str) -> Ran + use<'a>> {
    let busybox = find("busybox")?;
    let script = site.kit.path(script);
    Some(move |action: &str, running: &str| {
        let mut words = action.split(' ');
        let mut command = program(&busybox);
        command.args(["ash", "-c", RC_COMMON, "rc.common"]).arg(words.next().unwrap()).arg(&script);
        command.args(words).env("RUNNING", running).stdin(Stdio::null());
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
    let text = text.replace("\t#! is_chosen beacon", "\t! is_chosen beacon");
    site.kit.write("script", text);
    let Some(run) = actions(&site, "script") else { return };
    let sample = ["-d", "/var/run/beacon", "run", "supervisor", "--", "/usr/sbin/beacon", "--foreground"];
    let expected = instance(&site, "jobs", &["run", "jobs"])
        + &instance(&site, "supervisor", &["run", "supervisor"])
        + &instance(&site, "beacon", &sample);
    assert_eq!(run("start").expect(0).out, expected);
    // Each alone, as the argument says.
    assert_eq!(run("start jobs").expect(0).out, instance(&site, "jobs", &["run", "jobs"]));
    assert_eq!(run("start beacon").expect(0).out, instance(&site, "beacon", &sample));
    assert_eq!(run("start nonsense").expect(0).out, "");
    // They are stopped in the reverse order.
    assert_eq!(run("stop").expect(0).out, "<kill><zigsvc><supervisor>\n<kill><zigsvc><jobs>\n");
    assert_eq!(run("stop beacon").expect(0).out, "<kill><zigsvc><beacon>\n");
}

#[test]
fn what_procd_ends_gets_one_signal_and_is_waited_for() {
    let site = Site::new();
    let text = site.adapted("zigsvc.procd");
    site.kit.write("script", text.replace("SERVICES=\"jobs\"", "SERVICES=\"hub jobs\""));
    let Some(run) = actions_beside(&site, "script") else { return };
    // A job that ends a second after TERM: a second TERM to the service would kill it.
    site.dir.write("zigsvc.conf", "handler = \"shell\"\n");
    let log = site.dir.path("zigsvc.log");
    let mut started = Started::new(&words_of_start(&run("start jobs", "").expect(0).out), &log);
    let pid = site.successor(0);
    site.dir
        .zigsvc(&["queue", "trap 'sleep 1; echo ended well; exit' TERM; echo waits; sleep 60 & wait"])
        .expect(0);
    wait_for_log(&site.dir, "waits");
    let stopped = run("stop jobs", &format!("jobs:{pid}")).expect(0);
    assert_eq!((stopped.out.as_str(), site.pid()), ("<kill><zigsvc><jobs>\n", None));
    assert_eq!(started.code(), Some(0));
    wait_for_log(&site.dir, "ended well");
}

/// Returns the command that procd runs, as the output of `start` names it.
fn words_of_start(told: &str) -> Command {
    let words = told.lines().find_map(|line| line.strip_prefix("<command><")?.strip_suffix('>')).unwrap();
    let mut words = words.split("><");
    let mut command = program(words.next().unwrap());
    command.args(words);
    command
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
    let command = words_of_start(&run("start").expect(0).out);
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
    assert_eq!(run("stop").expect(0).out, "<kill><zigsvc><jobs>\n");
    assert_eq!(site.pid(), None);
    assert_eq!(started.code(), Some(0));
    site.break_config(false);
    let restarted = run("restart").expect(0).out;
    assert_eq!(restarted, "<kill><zigsvc><jobs>\n".to_owned() + &instance(&site, "jobs", &["run", "jobs"]));
    // The signal that reload_signal names is the right one.
    let mut started = Started::new(&command, &site.dir.path("zigsvc.log"));
    let pid = site.successor(pid);
    kill(pid, "HUP");
    wait_for_log(&site.dir, "SIGHUP received, reloading config");
    kill(pid, "TERM");
    assert_eq!(started.code(), Some(0));
}
