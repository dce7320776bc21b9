//! `status`: the state of a service from its lock, its PID file, its heartbeat and its own
//! answer, as text, as JSON, or for Prometheus.

use super::client::{Client, ClientError, takes_no_connection};
use super::command_line::CommandOption;
use super::invocation::Invocation;
use super::kept_options::OptionWords;
use super::output::{
    CommandResult, GREEN, LOGS_ONLY, NEEDS_ROOT, RED, YELLOW, fail, print, push_coloured, shows_colours,
    usage_text,
};
use super::services::of;
use crate::limits::{ANSWER_MAX_BYTES, CONNECT_RETRY};
use crate::proto::answer::Answer;
use crate::proto::health::{BOOT_ID_BYTES, Verdict};
use crate::proto::prometheus::{self, Shown};
use crate::proto::service::Service;
use crate::proto::status::{SCREEN, STATE_BYTES, degraded_names, field, fields, number};
use crate::service::boot::boot_id;
use crate::service::config_source::{ServiceFile, path_or_empty};
use crate::service::heartbeat::{self, Health};
use crate::service::lock_holder::{LockState, LookupFailed, ServiceLocks};
use crate::service::second_lock;
use crate::state::degraded::{DegradedSet, DegradedState};
use crate::sys::process::Pid;
use crate::sys::socket::is_abstract;
use crate::sys::{Errno, clock, file, poll};
use crate::util::text::{Writer, parse_u64};
use crate::util::time::{Duration, Instant};
use core::num::NonZero;
use core::ops::Range;
use ufmt::uwrite;

/// Time for which `status` waits for all its replies together.
pub(super) const STATUS_WAIT: Duration = Duration::from_ms(2000);

/// Bytes of the options that are shown. Longer ones are left out.
const SHOWN_OPTIONS_BYTES: usize = 2048;

/// The exit codes of `status` (LSB 3.1, iniscrptact).
pub(super) mod lsb {
    pub(in crate::cli) const RUNNING: u8 = 0;
    pub(in crate::cli) const DEAD: u8 = 1;
    pub(in crate::cli) const STOPPED: u8 = 3;
    pub(in crate::cli) const UNKNOWN: u8 = 4;
}

/// The answer of the service itself.
enum Counters {
    /// The service was not asked.
    NotAsked,
    /// The service runs, and refuses to answer this user.
    Withheld,
    /// The service runs, and refuses to answer for another reason.
    Refused,
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

/// The facts about a service that its locks, its heartbeat and its own answer show.
pub(super) struct Seen {
    pub(super) state: &'static str,
    pub(super) code: u8,
    pub(super) pid: Option<u32>,
    pub(super) health: Health,
    /// The PID file is lost, and only the second lock is held.
    pid_file_lost: bool,
    counters: Counters,
}

impl Seen {
    /// Returns what is known of a service whose locks cannot be looked at.
    pub(super) fn unknown() -> Self {
        Self::without_process("unknown", lsb::UNKNOWN)
    }

    /// Returns what is known of a service of which no process is known.
    fn without_process(state: &'static str, code: u8) -> Self {
        Self {
            state,
            code,
            pid: None,
            health: Health::Missing,
            pid_file_lost: false,
            counters: Counters::NotAsked,
        }
    }

    /// Writes the fields of the answer of the service, or for the supervisor those of its file, with
    /// `pid-file` if its PID file is lost. Returns false if there are none.
    pub(super) fn push_answer(
        &self,
        client: &Client<'_>,
        boot: &[u8; BOOT_ID_BYTES],
        out: &mut Writer<'_>,
    ) -> bool {
        let mut line = [0; STATE_BYTES];
        let pid = self.pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let answer = match (&self.counters, pid) {
            (Counters::Answered(line), _) => match Answer::parse(client.at(line.clone())) {
                Answer::Ok(text) => Some(text),
                _ => None,
            },
            (_, Some(pid)) if client.service.is(Service::Supervisor) => {
                (of(client.service).read_state)(client.locks().pid_path, pid, boot, &mut line)
            }
            (_, Some(pid)) if !client.service.is(Service::Jobs) => {
                let deadline = clock::now() + STATUS_WAIT;
                let status = second_lock::ask_status(
                    client.service,
                    client.locks().pid_path,
                    pid,
                    deadline,
                    &mut line,
                );
                status.filter(|status| !status.is_empty())
            }
            _ => None,
        };
        match answer {
            _ if self.pid_file_lost => push_with_lost_pid_file(answer, out),
            Some(answer) => out.push(answer),
            None => return false,
        }
        true
    }
}

/// Looks at a service. It is asked for its answer until `deadline`.
///
/// # Errors
/// The locks cannot be looked at.
#[inline(never)]
pub(super) fn look(
    client: &mut Client<'_>,
    deadline: Instant,
    boot: &[u8; BOOT_ID_BYTES],
) -> Result<Seen, LookupFailed> {
    let ServiceLocks { service, config, .. } = client.locks();
    let stale_after = config.stale_after;
    let health_path = path_or_empty(service, ServiceFile::Health, config);
    loop {
        let held = client.locks().state_without_strangers()?;
        let pid = match held {
            LockState::Died => return Ok(Seen::without_process("dead", lsb::DEAD)),
            LockState::Stopped => return Ok(Seen::without_process("stopped", lsb::STOPPED)),
            LockState::Running(pid) | LockState::PidFileLost(pid) => {
                pid.map(|pid| u32::try_from(pid.as_raw_pid()).unwrap_or(0))
            }
        };
        let counters =
            if service.is(Service::Jobs) { counters(client, deadline) } else { Counters::NotAsked };
        let health = heartbeat::probe(&health_path, pid.unwrap_or(0), boot, clock::now(), stale_after);
        let (state, code) = match (&health, &counters) {
            (_, Counters::Ended) => {
                poll::sleep(CONNECT_RETRY);
                continue;
            }
            (Health::Judged(Verdict::Stale(_), _), _) => ("stale", lsb::UNKNOWN),
            (_, Counters::NoAnswer) => ("unknown", lsb::UNKNOWN),
            _ => ("running", lsb::RUNNING),
        };
        let pid_file_lost = matches!(held, LockState::PidFileLost(_));
        return Ok(Seen { state, code, pid, health, pid_file_lost, counters });
    }
}

/// Returns true for `--json`, and for `--prometheus` the second value.
///
/// # Errors
/// Both were given; the exit code, after printing the reason.
pub(super) fn formats(invocation: &Invocation) -> Result<(bool, bool), u8> {
    let json = invocation.operands.has(CommandOption::Json);
    let prometheus = invocation.operands.has(CommandOption::Prometheus);
    match json && prometheus {
        true => Err(usage_text("status", "--json and --prometheus exclude each other")),
        false => Ok((json, prometheus)),
    }
}

/// Runs `status [--json|--prometheus] [SERVICE]`.
#[inline(never)]
pub(super) fn of_service(mut invocation: Invocation) -> CommandResult {
    let (json, prometheus) = formats(&invocation)?;
    invocation.load_or_defaults();
    invocation.find_service();
    let service = invocation.service;
    let colours = shows_colours(&invocation.args);
    let Ok(path) = invocation.pid_path() else { return Err(lsb::UNKNOWN) };
    let mut memory = [0; SHOWN_OPTIONS_BYTES];
    let mut words = OptionWords::new(&mut memory);
    let options = words.find_running(&mut invocation, service);
    let options = options.then(|| words.as_bytes());
    let (mut client, rest) = invocation.loaded_client(ANSWER_MAX_BYTES).map_err(|_| lsb::UNKNOWN)?;
    let boot = boot_id();
    let seen = look(&mut client, clock::now() + STATUS_WAIT, &boot)
        .map_err(|error| fail(lsb::UNKNOWN, &|out| error.describe(&path, out)))?;
    let (answered, rest) = rest.split_at_mut_checked(STATE_BYTES).unwrap_or_default();
    let mut completed = Writer::new(answered);
    let answer = seen.push_answer(&client, &boot, &mut completed).then(|| completed.as_bytes());
    let is_silent = matches!(seen.counters, Counters::NoAnswer);
    let is_withheld = match service {
        Service::Jobs => matches!(seen.counters, Counters::Withheld),
        Service::Supervisor => false,
        _ => answer.is_none() && seen.code == lsb::RUNNING,
    };
    let Seen { state, code, pid, health, .. } = seen;
    let report = StatusReport { name: service.name(), state, pid, health, options, answer, colours };
    let mut out = Writer::new(rest);
    let printed = if prometheus {
        let up = code == lsb::RUNNING;
        let row = |index| (index == 0).then_some(Shown { name: report.name.as_bytes(), up, answer });
        print_metrics(&row, &|_| Some(service), &mut out)
    } else {
        match json {
            true => report.write_json(&mut out),
            false => report.write_text(is_silent, is_withheld, &mut out),
        }
        print(out.as_bytes())
    };
    // A program that did not get the text does not know the status.
    Ok(if printed.is_err() && (json || prometheus) { lsb::UNKNOWN } else { code })
}

/// Prints all metrics of the services and programs that `row` returns. `service` returns the
/// service at an index, or `None` for a program.
pub(super) fn print_metrics<'a>(
    row: &dyn Fn(usize) -> Option<Shown<'a>>,
    service: &dyn Fn(usize) -> Option<Service>,
    out: &mut Writer<'_>,
) -> Result<(), u8> {
    let states = |index: usize, visit: &mut dyn FnMut(&[u8])| match service(index) {
        Some(service) => {
            let states = DegradedState::ALL.iter().filter(|state| state.applies_to(service));
            states.for_each(|state| visit(state.name().as_bytes()));
        }
        None => {
            let degraded = row(index).and_then(|shown| field(shown.answer?, "degraded"));
            degraded_names(degraded.unwrap_or(b"")).for_each(visit);
        }
    };
    for part in 0..prometheus::PARTS {
        prometheus::emit(part, row, &states, out);
        print(out.as_bytes())?;
        out.truncate(0);
    }
    Ok(())
}

/// Returns the degraded states of `service`, as far as it shows them to this user. Returns `None`
/// if it does not run.
#[inline(never)]
pub(super) fn degraded_states(invocation: &mut Invocation, service: Service) -> Option<DegradedSet> {
    invocation.service = service;
    let mut states = DegradedSet::NONE;
    let (mut client, _) = invocation.loaded_client(ANSWER_MAX_BYTES).ok()?;
    let boot = boot_id();
    let seen = look(&mut client, clock::now() + STATUS_WAIT, &boot).ok()?;
    seen.pid?;
    let mut line = [0; STATE_BYTES];
    let mut answer = Writer::new(&mut line);
    seen.push_answer(&client, &boot, &mut answer);
    let names = field(answer.as_bytes(), "degraded").unwrap_or(b"");
    for state in DegradedState::ALL {
        let is_shown = degraded_names(names).any(|name| name == state.name().as_bytes());
        states = states.with(*state, is_shown);
    }
    let socket = path_or_empty(service, ServiceFile::Socket, &invocation.memory.config);
    let has_file = !service.is(Service::Supervisor) && !is_abstract(&socket);
    if has_file && file::meta_at(socket.as_c_str(), false).is_err_and(|failure| failure.errno == Errno::NOENT)
    {
        states = states.with(DegradedState::Socket, true);
    }
    Some(states)
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
            Answer::Refused(b"denied", _) => Counters::Withheld,
            _ => Counters::Refused,
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
pub(super) fn describe(health: &Health) -> (&'static str, Option<Duration>) {
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
    /// Writes the text for users. `silent` is set if the service does not answer, and `withheld` if it
    /// does not answer this user.
    fn write_text(&self, silent: bool, withheld: bool, out: &mut Writer<'_>) {
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
        if withheld {
            out.push_str("  counters   withheld");
            // The rights of clients concern the control socket only.
            out.push_str(if self.name == Service::Jobs.name() { NEEDS_ROOT } else { "; needs root" });
            out.push_str("\n");
        }
        match self.answer {
            Some(answer) if Service::Jobs.is_built_in() && self.name == Service::Jobs.name() => {
                self.fill_in(SCREEN, answer, out)
            }
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
                Some(jobs @ 1..) if name == "scheduled" => drop(uwrite!(out, ", {} of them scheduled", jobs)),
                _ if name == "scheduled" => {}
                None if name == "handler" && value == b"log" => out.push_str(LOGS_ONLY),
                None if name == "degraded" && value != b"none" => {
                    push_coloured(self.colours, YELLOW, value, out);
                }
                None if name == "wear" => push_wear(answer, out),
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
pub(super) fn push_member(name: &[u8], value: &[u8], out: &mut Writer<'_>) {
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

/// Writes the syncs and the bytes of the spool for each job that has ended, if there is one.
fn push_wear(answer: &[u8], out: &mut Writer<'_>) {
    let count = |name| number(answer, name).unwrap_or(0);
    let Some(jobs) = NonZero::new(count("jobs")) else { return };
    let tenths = count("fsyncs").saturating_mul(10) / jobs;
    let _ = uwrite!(out, " ({}.{} and ", tenths / 10, tenths % 10);
    push_size(count("spool_bytes") / jobs, out);
    out.push_str(" for each job that has ended)");
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
pub(super) fn push_duration(seconds: u64, out: &mut Writer<'_>) {
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
        scheduled=2 delayed=0 room=9996 reloads=0 reload_errors=0 rotations=2 log_replaced=1 log_lost=0 fsyncs=14 spool_bytes=3300 \
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

    // The other services have other counters.
    #[cfg(feature = "jobs")]
    #[test]
    fn a_person_sees_the_phase_and_every_counter() {
        let text = written(|out| report("running", Some(ANSWER)).write_text(false, false, out));
        assert!(
            text.starts_with("jobs: draining (pid 617), up 3 h 12 min\n  heartbeat  missing\n"),
            "{text}"
        );
        assert!(
            text.contains(
                "  queue      3 waiting, 2 of them scheduled, 1 running, 0 delayed, 0 dead, room for 9996\n"
            ),
            "{text}"
        );
        let spool = "  spool      14 fsyncs, 3.2 KiB written (1.1 and 275 B for each job that has ended)\n";
        assert!(text.contains(spool), "{text}");
        assert!(text.ends_with("  degraded   log,sync-never\n"), "{text}");
        assert!(!text.contains('$') && !text.contains('?'), "{text}");
    }

    #[test]
    fn without_an_end_there_is_no_wear_for_each_job() {
        assert_eq!(written(|out| push_wear(b"jobs=0 fsyncs=3 spool_bytes=100", out)), "");
        assert_eq!(
            written(|out| push_wear(b"jobs=3 fsyncs=1 spool_bytes=10000", out)),
            " (0.3 and 3.2 KiB for each job that has ended)"
        );
        for (answer, shown) in
            [("scheduled=0", "7 w, x"), ("scheduled=3", "7 w, 3 of them scheduled, x"), ("", "7 w, x")]
        {
            let answer = format!("waiting=7 {answer}");
            assert_eq!(
                written(|out| report("running", None).fill_in(
                    "$waiting w$scheduled, x",
                    answer.as_bytes(),
                    out
                )),
                shown
            );
        }
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
