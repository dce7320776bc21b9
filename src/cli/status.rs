//! `status`: what the lock, the PID file and the heartbeat say.

use super::{Invocation, fail, print};
use crate::proto::health::{ParseError, RECORD_BYTES, Record, Verdict};
use crate::proto::text::Writer;
use crate::service::heartbeat::boot_id;
use crate::service::lifecycle::{describe_at, exit};
use crate::service::settings::path_of;
use crate::sys::lock::{Holder, holder};
use crate::sys::{Errno, Failure, clock, file};
use ufmt::uwrite;

/// Exit codes of `status` (LSB 3.1, iniscrptact).
mod lsb {
    pub(super) const RUNNING: u8 = 0;
    pub(super) const DEAD: u8 = 1;
    pub(super) const STOPPED: u8 = 3;
    pub(super) const UNKNOWN: u8 = 4;
}

/// How often a torn heartbeat is read again.
const TORN_READS_MAX: u32 = 20;

/// What the health file says.
enum Health {
    /// There is none, or it cannot be read.
    Missing,
    Garbage,
    Judged(Verdict, Record),
}

/// `status [--json] [SERVICE]`
pub(super) fn status(mut invocation: Invocation) -> u8 {
    invocation.load_or_defaults();
    let path = match invocation.pid_path() {
        Ok(path) => path,
        Err(_) => return lsb::UNKNOWN,
    };
    let held = match holder(path.as_c_str()) {
        Ok(held) => held,
        Err(failure) => return fail(lsb::UNKNOWN, &|out| describe_at(&path, failure, out)),
    };
    let (state, code, pid, health) = match held {
        Holder::Died => ("dead", lsb::DEAD, None, Health::Missing),
        Holder::Stopped => ("stopped", lsb::STOPPED, None, Health::Missing),
        Holder::Running(pid) => {
            let pid = pid.map(|pid| u32::try_from(pid.as_raw_pid()).unwrap_or(0));
            let health = health(&invocation, pid.unwrap_or(0));
            match health {
                Health::Judged(Verdict::Stale(_), _) => ("stale", lsb::UNKNOWN, pid, health),
                _ => ("running", lsb::RUNNING, pid, health),
            }
        }
    };
    let mut text = [0; 512];
    let mut out = Writer::new(&mut text);
    let name = invocation.service.name();
    if invocation.json {
        write_json(name, state, pid, &health, &mut out);
    } else {
        write_text(name, state, pid, &health, &mut out);
    }
    // What a program asked for and did not get, it does not know.
    if print(out.as_bytes()) != exit::OK && invocation.json { lsb::UNKNOWN } else { code }
}

/// Reads and judges the health file of a running service.
fn health(invocation: &Invocation, pid: u32) -> Health {
    let config = &invocation.memory.config;
    let Some(path) = path_of(invocation.service, &config.health_file) else { return Health::Missing };
    for _ in 0..TORN_READS_MAX {
        let mut bytes = [0; RECORD_BYTES];
        match file::read_path(path.as_c_str(), &mut bytes) {
            Ok(count) => match Record::parse(bytes.get(..count).unwrap_or(&[])) {
                Ok(record) => {
                    let verdict = record.judge(pid, &boot_id(), clock::now(), u64::from(config.stale_after));
                    return Health::Judged(verdict, record);
                }
                Err(ParseError::Garbage) => return Health::Garbage,
                Err(ParseError::Torn) => {}
            },
            Err(Failure { errno: Errno::INTR, .. }) => {}
            Err(_) => return Health::Missing,
        }
    }
    Health::Garbage
}

/// The verdict in one word, and the heartbeat's age where that means something.
fn describe(health: &Health) -> (&'static str, Option<u64>) {
    match health {
        Health::Missing => ("missing", None),
        Health::Garbage => ("unreadable", None),
        Health::Judged(Verdict::Fresh(age), _) => ("fresh", Some(*age)),
        Health::Judged(Verdict::Stale(age), _) => ("stale", Some(*age)),
        Health::Judged(Verdict::OtherBoot, _) => ("other-boot", None),
        Health::Judged(Verdict::OtherPid, _) => ("other-pid", None),
        Health::Judged(Verdict::Future, _) => ("future", None),
    }
}

fn write_text(name: &str, state: &str, pid: Option<u32>, health: &Health, out: &mut Writer<'_>) {
    let _ = match state {
        "stopped" => uwrite!(out, "{}: stopped\n", name),
        "dead" => uwrite!(out, "{}: dead; it ended without a stop and left its PID file\n", name),
        _ => uwrite!(out, "{}: running (pid {})\n", name, pid.unwrap_or(0)),
    };
    if matches!(state, "stopped" | "dead") {
        return;
    }
    let (verdict, age) = describe(health);
    let _ = uwrite!(out, "  heartbeat  {}", verdict);
    if let Some(age) = age {
        let _ = uwrite!(out, ", {}.{} s old", age / 1000, age % 1000 / 100);
    }
    out.push_str("\n");
}

fn write_json(name: &str, state: &str, pid: Option<u32>, health: &Health, out: &mut Writer<'_>) {
    let running = matches!(state, "running" | "stale");
    let _ = uwrite!(out, "{{\"service\":\"{}\",\"state\":\"{}\",\"running\":{}", name, state, running);
    if let Some(pid) = pid {
        let _ = uwrite!(out, ",\"pid\":{}", pid);
    }
    if running {
        let (verdict, age) = describe(health);
        let _ = uwrite!(out, ",\"heartbeat\":\"{}\"", verdict);
        if let Some(age) = age {
            let _ = uwrite!(out, ",\"heartbeat_age_ms\":{}", age);
        }
        if let Health::Judged(_, record) = health {
            let _ = uwrite!(out, ",\"heartbeat_seq\":{},\"heartbeat_time\":{}", record.seq, record.wall);
        }
    }
    out.push_str("}\n");
}
