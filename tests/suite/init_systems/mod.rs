//! The files of `init.d` for other init systems, each with the real tool of
//! that system: systemd-analyze, openrc-run, s6-supervise, runsv. procd and
//! Dinit are not available in Debian 12: procd's functions are played by
//! stubs, under BusyBox's shell, and Dinit's keys are compared with its manual.
//!
//! Changing this: no real systemd or OpenRC is booted. One that shares /tmp
//! and /run with the machine would empty them.

mod dinit;
mod init_script;
mod openrc;
mod procd;
mod site;
mod supervise;
mod systemd;

use crate::support::{Dir, finish, zigsvc};
use site::shipped;

/// Returns the number after `mark` in a shipped file, in `unit`s of milliseconds.
#[track_caller]
fn number(name: &str, mark: &str, unit: u64) -> u64 {
    let text = shipped(name);
    let line = text.lines().find_map(|line| line.trim().strip_prefix(mark));
    let number = line.and_then(|rest| rest.trim().parse::<u64>().ok());
    number.unwrap_or_else(|| panic!("{name}: no {mark}")) * unit
}

/// Returns a duration of whole seconds in the effective configuration, as milliseconds.
fn default_of(key: &str) -> u64 {
    let dir = Dir::new();
    let mut command = zigsvc();
    command.arg("-d").arg(dir.path("")).arg("check");
    let config = finish(command, None).expect(0).out.parse::<toml::Table>().unwrap();
    let value = config[key].as_str().unwrap();
    value.strip_suffix('s').unwrap().parse::<u64>().unwrap() * 1000
}

#[test]
fn every_init_system_waits_longer_than_a_stop_may_take() {
    // The time that `zigsvc stop` waits itself: stop_timeout, and 5 s to KILL.
    let longest = default_of("stop_timeout") + 5000;
    for (name, mark, unit) in [
        ("zigsvc.service", "TimeoutStopSec=", 1000),
        ("zigsvc.procd", "procd_set_param term_timeout ", 1000),
        ("zigsvc.dinit", "stop-timeout =", 1000),
        ("s6/zigsvc/timeout-kill", "", 1),
    ] {
        let given = number(name, mark, unit);
        assert!(given > longest, "{name}: {given} ms, a stop takes up to {longest} ms");
    }
    // A sign of life comes each `interval`; the watchdog is fed at half its time.
    assert!(number("zigsvc.service", "WatchdogSec=", 1000) >= 4 * default_of("interval"));
}
