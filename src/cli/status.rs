//! `status`: the state of a service from its lock, its PID file, its heartbeat and its own
//! answer, as text, as JSON, or for Prometheus.

use super::client::{Client, ClientError, takes_no_connection};
use super::command_line::CommandOption;
use super::invocation::Invocation;
use super::kept_options::{OptionWords, OptionsFound};
use super::output::{
    CommandResult, GREEN, LOGS_ONLY, NEEDS_ROOT, RED, YELLOW, fail, print, push_coloured, shows_colours,
    usage_text,
};
use crate::limits::{ANSWER_MAX_BYTES, CONNECT_RETRY};
use crate::proto::answer::Answer;
use crate::proto::health::Verdict;
use crate::proto::prometheus;
use crate::proto::service::Service;
use crate::proto::status::{SCREEN, degraded_names, field, fields, number};
use crate::service::boot::boot_id;
use crate::service::config_source::{ServiceFile, path_of};
use crate::service::heartbeat::{self, Health};
use crate::service::lock_holder::LockState;
use crate::service::second_lock;
use crate::service::supervisor::{STATE_BYTES, read_state};
use crate::state::degraded::DegradedState;
use crate::sys::process::Pid;
use crate::sys::{clock, poll};
use crate::util::text::{Writer, parse_u64};
use crate::util::time::{Duration, Instant};
use core::ops::Range;
use ufmt::uwrite;

/// Time for which `status` waits for all its replies together.
const STATUS_WAIT: Duration = Duration::from_ms(2000);

/// Bytes of the options that are shown. Longer ones are left out.
const SHOWN_OPTIONS_BYTES: usize = 2048;

/// The exit codes of `status` (LSB 3.1, iniscrptact).
mod lsb {
    pub(super) const RUNNING: u8 = 0;
    pub(super) const DEAD: u8 = 1;
    pub(super) const STOPPED: u8 = 3;
    pub(super) const UNKNOWN: u8 = 4;
}

/// The answer of the service itself.
enum Counters {
    /// The service was not asked.
    NotAsked,
    /// The service runs, and refuses to answer this user.
    Withheld,
    /// There is no answer in time.
    NoAnswer,
    /// The service has ended, or is ending.
    Ended,
    /// The answer is this line of the client.
    Answered(Range<usize>),
}

/// The facts that are printed.
struct StatusReport<'a> {
    name: &'a str,
    state: &'a str,
    pid: Option<u32>,
    health: Health,
    /// The options with which the service was started, each word ended by a NUL byte.
    options: Option<&'a [u8]>,
    /// The fields of the answer of the service.
    answer: Option<&'a [u8]>,
    /// Stdout shows colours.
    colours: bool,
}

/// Runs `status [--json|--prometheus] [SERVICE]`.
#[inline(never)]
pub(super) fn status(mut invocation: Invocation) -> CommandResult {
    let json = invocation.operands.has(CommandOption::Json);
    let prometheus = invocation.operands.has(CommandOption::Prometheus);
    if json && prometheus {
        return Err(usage_text("status", "--json and --prometheus exclude each other"));
    }
    invocation.load_or_defaults();
    invocation.find_service();
    let service = invocation.service;
    let colours = shows_colours(&invocation.args);
    let config = &invocation.memory.config;
    let stale_after = config.stale_after;
    let (Ok(path), Some(health_path)) =
        (invocation.pid_path(), path_of(service, ServiceFile::Health, config))
    else {
        return Err(lsb::UNKNOWN);
    };
    let mut memory = [0; SHOWN_OPTIONS_BYTES];
    let mut words = OptionWords::new(&mut memory);
    let state = invocation.locks(&path).state_without_strangers();
    let options = match state {
        Ok(LockState::Running(Some(pid)) | LockState::PidFileLost(Some(pid))) => {
            let pid = u32::try_from(pid.as_raw_pid()).unwrap_or(0);
            words.find(&mut invocation, service, Some(pid)) == OptionsFound::Yes
        }
        _ => false,
    };
    let options = options.then(|| words.as_bytes());
    let (mut client, rest) = invocation.loaded_client(ANSWER_MAX_BYTES).map_err(|_| lsb::UNKNOWN)?;
    let deadline = clock::now() + STATUS_WAIT;
    let boot = boot_id();
    let mut pid_file_lost = false;
    let (state, code, pid, health, counters) = loop {
        let held = match client.locks().state_without_strangers() {
            Ok(held) => held,
            Err(error) => return Err(fail(lsb::UNKNOWN, &|out| error.describe(&path, out))),
        };
        let pid = match held {
            LockState::Died => break ("dead", lsb::DEAD, None, Health::Missing, Counters::NotAsked),
            LockState::Stopped => break ("stopped", lsb::STOPPED, None, Health::Missing, Counters::NotAsked),
            LockState::Running(pid) | LockState::PidFileLost(pid) => {
                pid_file_lost = matches!(held, LockState::PidFileLost(_));
                pid.map(|pid| u32::try_from(pid.as_raw_pid()).unwrap_or(0))
            }
        };
        let counters = match service {
            Service::Jobs => counters(&mut client, deadline),
            _ => Counters::NotAsked,
        };
        let health = heartbeat::probe(&health_path, pid.unwrap_or(0), &boot, clock::now(), stale_after);
        break match (&health, &counters) {
            (_, Counters::Ended) => {
                poll::sleep(CONNECT_RETRY);
                continue;
            }
            (Health::Judged(Verdict::Stale(_), _), _) => ("stale", lsb::UNKNOWN, pid, health, counters),
            (_, Counters::NoAnswer) => ("unknown", lsb::UNKNOWN, pid, health, counters),
            _ => ("running", lsb::RUNNING, pid, health, counters),
        };
    };
    let answer = match &counters {
        Counters::Answered(line) => match Answer::parse(client.at(line.clone())) {
            Answer::Ok(text) => Some(text),
            _ => None,
        },
        _ => None,
    };
    let mut line = [0; STATE_BYTES];
    let mut counters = counters;
    let answer = match pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
        Some(pid) if service == Service::Supervisor => read_state(&path, pid, &boot, &mut line),
        Some(pid) if service != Service::Jobs => {
            let status = second_lock::ask_status(service, &path, pid, deadline, &mut line);
            if status.is_some_and(<[u8]>::is_empty) {
                counters = Counters::Withheld;
            }
            status.filter(|status| !status.is_empty())
        }
        _ => answer,
    };
    let (answered, rest) = rest.split_at_mut_checked(ANSWER_MAX_BYTES).unwrap_or_default();
    let mut completed = Writer::new(answered);
    let answer = if pid_file_lost {
        push_with_lost_pid_file(answer, &mut completed);
        Some(completed.as_bytes())
    } else {
        answer
    };
    let report = StatusReport { name: service.name(), state, pid, health, options, answer, colours };
    let mut out = Writer::new(rest);
    if json {
        report.write_json(&mut out);
    } else if prometheus {
        let states = DegradedState::ALL.iter().filter(|state| state.applies_to(service));
        let states = states.map(|state| state.name());
        prometheus::emit(report.name, code == lsb::RUNNING, answer, states, &mut out);
    } else {
        report.write_text(&counters, &mut out);
    }
    // A program that did not get the text does not know the status.
    Ok(if print(out.as_bytes()).is_err() && (json || prometheus) { lsb::UNKNOWN } else { code })
}

/// Asks the service for its counters until `deadline`.
fn counters(client: &mut Client<'_>, deadline: Instant) -> Counters {
    let asked = client
        .connect(deadline)
        .and_then(|()| client.send(&[b"status"]))
        .and_then(|()| client.line(Some(deadline)));
    match asked {
        Ok(line) => match Answer::parse(client.at(line.clone())) {
            Answer::Ok(_) => Counters::Answered(line),
            _ => Counters::Withheld,
        },
        Err(ClientError::NotRunning) => Counters::Ended,
        Err(ClientError::Closed) if !deadline.is_due(clock::now()) => Counters::Ended,
        Err(ClientError::Failed(failure)) if !takes_no_connection(failure) => Counters::Withheld,
        Err(_) => Counters::NoAnswer,
    }
}

/// Writes the answer of the service with `pid-file` among its degraded states, which are its last
/// field. The service itself finds the loss of its PID file within `stale_after`.
fn push_with_lost_pid_file(answer: Option<&[u8]>, out: &mut Writer<'_>) {
    let lost = DegradedState::PidFile.name();
    let answer = answer.unwrap_or(b"degraded=none");
    let states = field(answer, "degraded").unwrap_or(b"");
    if degraded_names(states).any(|state| state == lost.as_bytes()) {
        return out.push(answer);
    }
    let others = answer.strip_suffix(b"none");
    out.push(others.unwrap_or(answer));
    out.push_str(if others.is_some() { "" } else { "," });
    out.push_str(lost);
}

/// Returns the verdict in one word, and the age of a heartbeat that has one.
fn describe(health: &Health) -> (&'static str, Option<Duration>) {
    match health {
        Health::Missing => ("missing", None),
        Health::Unreadable | Health::Unknown => ("unreadable", None),
        Health::Judged(Verdict::Fresh(age), _) => ("fresh", Some(*age)),
        Health::Judged(Verdict::Stale(age), _) => ("stale", Some(*age)),
        Health::Judged(Verdict::OtherBoot, _) => ("other-boot", None),
        Health::Judged(Verdict::OtherPid, _) => ("other-pid", None),
        Health::Judged(Verdict::Future, _) => ("future", None),
    }
}

impl StatusReport<'_> {
    /// Writes the text for users.
    fn write_text(&self, counters: &Counters, out: &mut Writer<'_>) {
        let silent = matches!(counters, Counters::NoAnswer);
        let (name, state, pid) = (self.name, self.state, self.pid.unwrap_or(0));
        match state {
            "stopped" => {
                let _ = uwrite!(out, "{}: stopped\n", name);
                return;
            }
            "dead" => {
                let _ = uwrite!(out, "{}: ", name);
                push_coloured(self.colours, RED, b"dead", out);
                out.push_str("; it ended without a stop and left its PID file\n");
                return;
            }
            _ => {}
        }
        let answer = self.answer.unwrap_or(b"");
        let phase = field(answer, "state").unwrap_or(if silent { b"unknown" } else { b"running" });
        let _ = uwrite!(out, "{}: ", name);
        push_coloured(self.colours, if phase == b"running" { GREEN } else { YELLOW }, phase, out);
        let _ = uwrite!(out, " (pid {})", pid);
        if silent {
            out.push_str(", does not answer within 2 s");
        }
        if let Some(seconds) = number(answer, "uptime") {
            out.push_str(", up ");
            push_duration(seconds, out);
        }
        let (verdict, age) = describe(&self.health);
        let _ = uwrite!(out, "\n  heartbeat  {}", verdict);
        if let Some(age) = age {
            let _ = uwrite!(out, ", {}.{} s old", age.as_secs(), age.as_ms() % 1000 / 100);
        }
        out.push_str("\n");
        if let Some(words) = self.options.filter(|words| !words.is_empty()) {
            out.push_str("  options   ");
            for word in words.split_inclusive(|byte| *byte == 0) {
                out.push_str(" ");
                out.push_visible(word.strip_suffix(b"\0").unwrap_or(word));
            }
            out.push_str("\n");
        }
        if matches!(counters, Counters::Withheld) {
            out.push_str("  counters   withheld");
            out.push_str(NEEDS_ROOT);
            out.push_str("\n");
        }
        match self.answer {
            Some(answer) if self.name == Service::Jobs.name() => self.fill_in(SCREEN, answer, out),
            // A service without a control socket has few fields, or none.
            answer => push_fields(answer.unwrap_or(b""), out),
        }
    }

    /// Writes `template` with each `$name` replaced by that field of `answer`.
    fn fill_in(&self, template: &str, answer: &[u8], out: &mut Writer<'_>) {
        let mut parts = template.split('$');
        out.push_str(parts.next().unwrap_or(""));
        for part in parts {
            let end = part.bytes().position(|byte| !matches!(byte, b'a'..=b'z' | b'_')).unwrap_or(part.len());
            let (name, rest) = part.split_at(end);
            let value = field(answer, name).unwrap_or(b"?");
            match parse_u64(value) {
                Some(bytes) if name == "spool_bytes" => push_size(bytes, out),
                None if name == "handler" && value == b"log" => out.push_str(LOGS_ONLY),
                None if name == "degraded" && value != b"none" => {
                    push_coloured(self.colours, YELLOW, value, out)
                }
                _ => out.push_visible(value),
            }
            // `~` is the ending of a plural.
            match rest.split_once('~') {
                Some((noun, rest)) => {
                    out.push_str(noun);
                    out.push_str(if value == b"1" { "" } else { "s" });
                    out.push_str(rest);
                }
                None => out.push_str(rest),
            }
        }
    }

    /// Writes one JSON object.
    fn write_json(&self, out: &mut Writer<'_>) {
        let running = !matches!(self.state, "stopped" | "dead");
        let _ = uwrite!(
            out,
            "{{\"service\":\"{}\",\"state\":\"{}\",\"running\":{}",
            self.name,
            self.state,
            running
        );
        if let Some(pid) = self.pid {
            let _ = uwrite!(out, ",\"pid\":{}", pid);
        }
        if running {
            let (verdict, age) = describe(&self.health);
            let _ = uwrite!(out, ",\"heartbeat\":\"{}\"", verdict);
            if let Some(age) = age {
                let _ = uwrite!(out, ",\"heartbeat_age_ms\":{}", age.as_ms());
            }
            if let Health::Judged(_, record) = &self.health {
                let _ = uwrite!(out, ",\"heartbeat_seq\":{},\"heartbeat_time\":{}", record.seq, record.wall);
            }
        }
        if let Some(words) = self.options {
            let mut before = ",\"options\":[\"";
            for word in words.split_inclusive(|byte| *byte == 0) {
                out.push_str(before);
                out.push_json(word.strip_suffix(b"\0").unwrap_or(word));
                before = "\",\"";
            }
            out.push_str(if words.is_empty() { ",\"options\":[]" } else { "\"]" });
        }
        for (name, value) in fields(self.answer.unwrap_or(b"")) {
            push_member(name, value, out);
        }
        out.push_str("}\n");
    }
}

/// Writes one field of the answer as a member of the JSON object. Two fields are renamed,
/// because the object has other members with their names.
fn push_member(name: &[u8], value: &[u8], out: &mut Writer<'_>) {
    let name = match name {
        b"pid" => return,
        b"state" => &b"phase"[..],
        b"running" => b"jobs_running",
        name => name,
    };
    out.push_str(",\"");
    out.push_json(name);
    out.push_str("\":");
    if name == b"degraded" {
        let mut before = "[\"";
        for state in degraded_names(value) {
            out.push_str(before);
            out.push_json(state);
            before = "\",\"";
        }
        out.push_str(if before == "[\"" { "[]" } else { "\"]" });
    } else if let Some(number) = parse_u64(value) {
        out.push_u64(number);
    } else {
        out.push_str("\"");
        out.push_json(value);
        out.push_str("\"");
    }
}

/// Writes a line for each field.
fn push_fields(answer: &[u8], out: &mut Writer<'_>) {
    let shown_before = |name: &[u8]| matches!(name, b"pid" | b"state" | b"uptime");
    for (name, value) in fields(answer).filter(|(name, _)| !shown_before(name)) {
        out.push_str("  ");
        let before = out.len();
        out.push_visible(name);
        while out.len() < before.saturating_add(10) {
            out.push_str(" ");
        }
        out.push_str(" ");
        out.push_visible(value);
        out.push_str("\n");
    }
}

/// Writes a size: `512 B`, `3.2 KiB`, `1.0 GiB`.
fn push_size(bytes: u64, out: &mut Writer<'_>) {
    let (mut tenths, mut units) = (bytes.saturating_mul(10), ["B", "KiB", "MiB", "GiB", "TiB"].into_iter());
    let mut unit = units.next().unwrap_or("");
    while tenths >= 10_240
        && let Some(larger) = units.next()
    {
        tenths /= 1024;
        unit = larger;
    }
    out.push_u64(tenths / 10);
    if unit != "B" {
        let _ = uwrite!(out, ".{}", tenths % 10);
    }
    out.push_str(" ");
    out.push_str(unit);
}

/// Writes a span: `7 s`, `3 min 7 s`, `3 h 12 min`, `2 d 3 h`.
fn push_duration(seconds: u64, out: &mut Writer<'_>) {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let _ = match (days, hours, minutes) {
        (0, 0, 0) => uwrite!(out, "{} s", seconds),
        (0, 0, _) => uwrite!(out, "{} min {} s", minutes, seconds % 60),
        (0, _, _) => uwrite!(out, "{} h {} min", hours, minutes % 60),
        _ => uwrite!(out, "{} d {} h", days, hours % 24),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(build: impl FnOnce(&mut Writer<'_>)) -> String {
        let mut buffer = [0; 2048];
        let mut out = Writer::new(&mut buffer);
        build(&mut out);
        String::from_utf8(out.as_bytes().to_vec()).unwrap()
    }

    fn report<'a>(state: &'a str, answer: Option<&'a [u8]>) -> StatusReport<'a> {
        StatusReport {
            name: "jobs",
            state,
            pid: Some(617),
            health: Health::Missing,
            options: None,
            answer,
            colours: false,
        }
    }

    const ANSWER: &[u8] = b"pid=617 state=draining uptime=11523 jobs=12 failed=1 dead=0 waiting=3 running=1 \
        delayed=0 room=9996 reloads=0 reload_errors=0 rotations=2 log_replaced=1 log_lost=0 fsyncs=14 spool_bytes=3300 \
        mood=\x1b[1m\" handler=log degraded=log,sync-never";

    #[test]
    fn durations_and_sizes_are_short() {
        for (seconds, text) in [(7, "7 s"), (187, "3 min 7 s"), (11_523, "3 h 12 min"), (183_600, "2 d 3 h")]
        {
            assert_eq!(written(|out| push_duration(seconds, out)), text);
        }
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3300, "3.2 KiB"), (1 << 30, "1.0 GiB")]
        {
            assert_eq!(written(|out| push_size(bytes, out)), text);
        }
        assert!(written(|out| push_size(u64::MAX, out)).ends_with(" TiB"));
    }

    #[test]
    fn a_person_sees_the_phase_and_every_counter() {
        let text = written(|out| report("running", Some(ANSWER)).write_text(&Counters::NotAsked, out));
        assert!(
            text.starts_with("jobs: draining (pid 617), up 3 h 12 min\n  heartbeat  missing\n"),
            "{text}"
        );
        assert!(
            text.contains("  queue      3 waiting, 1 running, 0 delayed, 0 dead, room for 9996\n"),
            "{text}"
        );
        assert!(text.contains("  spool      14 fsyncs, 3.2 KiB written\n"), "{text}");
        assert!(text.ends_with("  degraded   log,sync-never\n"), "{text}");
        assert!(!text.contains('$') && !text.contains('?'), "{text}");
    }

    #[test]
    fn json_keeps_the_states_apart_and_escapes_strings() {
        let text = written(|out| report("running", Some(ANSWER)).write_json(out));
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&json["state"], &json["phase"]), (&"running".into(), &"draining".into()));
        assert_eq!((&json["running"], &json["jobs_running"]), (&true.into(), &1.into()));
        assert_eq!(json["degraded"], serde_json::json!(["log", "sync-never"]));
        assert_eq!(json["mood"], "\x1b[1m\"");
        assert_eq!(text.matches("\"pid\"").count(), 1);
        let none = written(|out| push_member(b"degraded", b"none", out));
        assert_eq!(none, ",\"degraded\":[]");
        let stopped = written(|out| report("stopped", None).write_json(out));
        assert_eq!(stopped, "{\"service\":\"jobs\",\"state\":\"stopped\",\"running\":false,\"pid\":617}\n");
    }
}
