//! `status --all`: a line for each service and each program of the supervisor. And `status` of one
//! program.
//!
//! Each of them is a row: a line of fields `name=value` as the supervisor writes it, from which the
//! table, JSON and the metrics are made. A service is looked at as `status SERVICE` does, and its
//! row gets what only the supervisor knows.

use super::client::Client;
use super::command_line::CommandOption;
use super::invocation::Invocation;
use super::output::{COLUMNS, CommandResult, columns, print, push_word, shows_colours, usage};
use super::programs;
use super::status::{
    STATUS_WAIT, Seen, describe, formats, look, lsb, of_service, print_metrics, push_member,
};
use crate::limits::{ANSWER_MAX_BYTES, SUPERVISED_MAX};
use crate::proto::config::Config;
use crate::proto::prometheus::Shown;
use crate::proto::service::{BUILT_IN, Service};
use crate::proto::signal::name_of;
use crate::proto::status::{STATE_BYTES, degraded_names, field, fields, number, push_field};
use crate::service::boot::boot_id;
use crate::service::lifecycle::exit;
use crate::service::lock_holder::LockState;
use crate::sys::{clock, fds};
use crate::util::text::{Writer, parse_u64};
use crate::util::time::Instant;
use heapless::Vec;
use ufmt::uwrite;

/// Maximum number of rows: the supervisor, and all that it can supervise.
const ROWS_MAX: usize = SUPERVISED_MAX + 1;
/// Bytes of the lines of all rows.
const ROWS_BYTES: usize = 20 * 1024;
/// Columns of the state, with the blanks after it.
const STATE_WIDTH: usize = 9;
/// Columns that the health gets at least. It has those that are left.
const HEALTH_WIDTH: usize = 7;

/// One service or program.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    /// Its fields.
    pub(super) line: &'a [u8],
}

impl<'a> Row<'a> {
    fn word(&self, name: &str) -> &'a [u8] {
        field(self.line, name).unwrap_or(b"")
    }

    /// Returns the exit code of `status` for this row alone, degraded or not.
    fn code(&self) -> u8 {
        match self.word("state") {
            b"stopped" | b"blocked" => lsb::STOPPED,
            b"dead" | b"waiting" | b"failed" => lsb::DEAD,
            b"stale" | b"unknown" => lsb::UNKNOWN,
            _ => lsb::RUNNING,
        }
    }

    /// Returns true if a degraded state needs a hand.
    fn is_degraded(&self) -> bool {
        degraded_names(self.word("degraded")).any(|name| !matches!(name, b"held" | b"sync-never"))
    }

    /// Writes the row as one JSON object and a newline. A member that does not apply is null.
    fn push_json(&self, out: &mut Writer<'_>) {
        out.push_str("{\"name\":\"");
        out.push_json(self.word("name"));
        for name in ["kind", "state"] {
            let _ = uwrite!(out, "\",\"{}\":\"", name);
            out.push_json(self.word(name));
        }
        out.push_str("\"");
        for name in ["pid", "uptime", "restarts", "exit", "signal"] {
            let _ = uwrite!(out, ",\"{}\":", name);
            match number(self.line, name) {
                Some(number) => out.push_u64(number),
                None => out.push_str("null"),
            }
        }
        match self.word("health") {
            b"" | b"none" => out.push_str(",\"health\":null"),
            health => push_member(b"health", health, out),
        }
        push_member(b"degraded", self.word("degraded"), out);
        out.push_str(",\"changed\":");
        out.push_str(if self.word("changed") == b"1" { "true}\n" } else { "false}\n" });
    }

    /// Writes the row as a line of the table.
    fn push_text(&self, table: &Table, colour: bool, out: &mut Writer<'_>) {
        let mut bytes = [0; 512];
        let mut line = Writer::new(&mut bytes);
        line.push_visible(self.word("name"));
        if line.len() >= table.name {
            line.truncate(table.name.saturating_sub(3));
            line.push_str("..");
        }
        pad(table.name, &mut line);
        let begin = line.len();
        line.push_visible(self.word("state"));
        let end = line.len();
        let mut column = begin.saturating_add(STATE_WIDTH);
        pad(column, &mut line);
        for (index, width) in table.widths() {
            match (NUMBERS.get(index), NUMBERS.get(index).and_then(|name| number(self.line, name))) {
                (None, _) => self.push_end(&mut line),
                (_, None) => line.push_str("-"),
                (Some(&"uptime"), Some(seconds)) => push_age(seconds, &mut line),
                (_, Some(number)) => line.push_u64(number),
            }
            column = column.saturating_add(width);
            pad(column, &mut line);
        }
        let health = match self.word("health") {
            b"" => &b"none"[..],
            health => health,
        };
        let degraded = self.word("degraded");
        let words = [
            if health == b"none" { &b""[..] } else { health },
            if matches!(degraded, b"" | b"none") { b"" } else { degraded },
            if self.word("changed") == b"1" { b"changed" } else { b"" },
        ];
        let mut separator = "";
        for word in words.iter().filter(|word| !word.is_empty()) {
            line.push_str(separator);
            line.push_visible(word);
            separator = " ";
        }
        if separator.is_empty() {
            line.push_str("-");
        }
        let text = line.as_bytes();
        let is_cut = text.len() > table.columns;
        let text = if is_cut { text.get(..table.columns.saturating_sub(2)).unwrap_or(text) } else { text };
        let (before, rest) = text.split_at_checked(begin).unwrap_or((text, &[]));
        let (state, after) = rest.split_at_checked(end.saturating_sub(begin)).unwrap_or((rest, &[]));
        out.push(before);
        if colour {
            out.push_str(match self.code() {
                lsb::RUNNING if !self.is_degraded() => "\x1b[32m",
                lsb::RUNNING => "\x1b[33m",
                lsb::STOPPED => "\x1b[2m",
                _ => "\x1b[31m",
            });
        }
        out.push(state);
        out.push_str(if colour { "\x1b[0m" } else { "" });
        out.push(after);
        out.push_str(if is_cut { "..\n" } else { "\n" });
    }

    /// Writes how the last process ended, and how long ago.
    fn push_end(&self, out: &mut Writer<'_>) {
        match (number(self.line, "exit"), number(self.line, "signal"), self.word("end")) {
            (Some(code), ..) => {
                let _ = uwrite!(out, "exit {}", code);
            }
            (_, Some(signal), _) => match u8::try_from(signal).map(name_of) {
                Ok("") | Err(_) => {
                    let _ = uwrite!(out, "signal {}", signal);
                }
                Ok(name) => out.push_str(name),
            },
            (.., b"not-started") => out.push_str("no start"),
            (.., b"unknown") => out.push_str("died"),
            _ => return out.push_str("-"),
        }
        if let Some(seconds) = number(self.line, "ended") {
            out.push_str(" ");
            push_age(seconds, out);
        }
    }
}

/// Writes blanks up to `column`, at least one after a text that reaches it.
fn pad(column: usize, out: &mut Writer<'_>) {
    let reached = out.len() >= column;
    while out.len() < column || (reached && !out.as_bytes().ends_with(b" ")) {
        out.push_str(" ");
        if out.is_cut() {
            return;
        }
    }
}

/// Writes a span in one unit: `59s`, `59m`, `47h`, `365d`.
fn push_age(seconds: u64, out: &mut Writer<'_>) {
    let (number, unit) = match seconds {
        0..=99 => (seconds, "s"),
        100..=5999 => (seconds / 60, "m"),
        6000..=359_999 => (seconds / 3600, "h"),
        _ => (seconds / 86_400, "d"),
    };
    out.push_u64(number);
    out.push_str(unit);
}

/// The fields of the columns between the state and the last end.
const NUMBERS: [&str; 3] = ["pid", "uptime", "restarts"];
/// The heads of these columns, and of the last end.
const HEADS: [&str; 4] = ["PID", "UP", "RESTARTS", "LAST END"];
/// The widths of these four columns, from the widest table to the narrowest, after the bytes that
/// they need. The first widths leave more room for the health. A column of no width is left out.
const WIDTHS: [(usize, [u8; 4]); 6] = [
    (40, [8, 5, 9, 13]),
    (31, [8, 5, 5, 13]),
    (23, [0, 5, 5, 13]),
    (10, [0, 5, 5, 0]),
    (5, [0, 5, 0, 0]),
    (0, [0; 4]),
];

/// The widths of the table.
struct Table {
    columns: usize,
    name: usize,
    widths: &'static [u8],
}

impl Table {
    /// Returns the widths for names of up to `name` bytes, in lines of at most `columns`.
    fn new(name: usize, columns: usize) -> Self {
        let most = columns.saturating_sub(STATE_WIDTH).saturating_sub(HEALTH_WIDTH);
        let name = name.max(4).saturating_add(1).min(most);
        let left = most.saturating_sub(name);
        let found = WIDTHS.iter().find(|(need, _)| *need <= left);
        Self { columns, name, widths: found.map_or(&[], |(_, widths)| widths) }
    }

    /// Returns the index and the width of each column that is shown.
    fn widths(&self) -> impl Iterator<Item = (usize, usize)> {
        self.widths.iter().map(|width| usize::from(*width)).enumerate().filter(|(_, width)| *width > 0)
    }

    /// Writes the first line.
    fn push_header(&self, out: &mut Writer<'_>) {
        out.push_str("NAME");
        pad(self.name, out);
        out.push_str("STATE    ");
        let mut column = self.name.saturating_add(STATE_WIDTH);
        for (index, width) in self.widths() {
            let head = HEADS.get(index).copied().unwrap_or("");
            out.push_str(if width < head.len() { "RST" } else { head });
            column = column.saturating_add(width);
            pad(column, out);
        }
        out.push_str("HEALTH\n");
    }
}

/// Returns the columns of stdout.
fn columns_of(invocation: &Invocation) -> usize {
    if fds::is_terminal(1) { columns(invocation.args.env(b"COLUMNS")) } else { COLUMNS }
}

/// Runs `status NAME` of a program.
pub(super) fn of_program(mut invocation: Invocation, name: &'static [u8]) -> CommandResult {
    invocation.load_or_defaults();
    invocation.find_service();
    let (json, prometheus) = formats(&invocation)?;
    if invocation.operands.has(CommandOption::All) {
        return Err(usage("status", &|out| push_word("unexpected argument", name, out)));
    }
    let mut line = Vec::new();
    let (colour, columns) = (shows_colours(&invocation.args), columns_of(&invocation));
    let (mut client, rest) = programs::connect(&mut invocation, name)?;
    programs::look_at(&mut client, name, &mut line).map_err(|code| match code {
        exit::FAILED => lsb::UNKNOWN,
        code => code,
    })?;
    let row = Row { line: &line };
    let mut out = Writer::new(rest);
    let shown = |index| {
        let shown = Shown { name, up: row.code() == lsb::RUNNING, answer: Some(row.line) };
        (index == 0).then_some(shown)
    };
    if prometheus {
        print_metrics(&shown, &|_| None, &mut out).map_err(|_| lsb::UNKNOWN)?;
    } else if json {
        row.push_json(&mut out);
        print(out.as_bytes()).map_err(|_| lsb::UNKNOWN)?;
    } else {
        let table = Table::new(name.len(), columns);
        table.push_header(&mut out);
        row.push_text(&table, colour, &mut out);
        let _ = print(out.as_bytes());
    }
    Ok(row.code())
}

/// The rows that were found.
struct Rows<'m> {
    text: Writer<'m>,
    /// The end of each row in the text.
    ends: Vec<usize, ROWS_MAX>,
}

impl Rows<'_> {
    fn get(&self, index: usize) -> Option<Row<'_>> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        self.text.as_bytes().get(start..end).map(|line| Row { line })
    }

    fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.ends.len()).filter_map(|index| self.get(index))
    }

    /// Ends the row that was written to the text.
    fn end(&mut self) {
        let _ = self.ends.push(self.text.len());
    }

    /// Adds a program of which only the state is known.
    fn add_program(&mut self, name: &[u8], state: &[u8], pid: Option<u64>) {
        self.text.push_str("name=");
        self.text.push(name);
        self.text.push_str(" kind=program state=");
        self.text.push(state);
        if let Some(pid) = pid.filter(|pid| *pid > 0) {
            push_field("pid", pid, &mut self.text);
        }
        self.end();
    }

    /// Adds a service. `known` is the line that the supervisor has of it.
    fn add_service(&mut self, service: Service, seen: &Seen, known: &[u8], answer: &[u8]) {
        let out = &mut self.text;
        let supervised = field(known, "state").unwrap_or(b"");
        let state = match (seen.state, supervised) {
            ("dead" | "stopped", b"waiting" | b"failed")
            | ("running", b"starting" | b"ending" | b"killed") => supervised,
            (state, _) => state.as_bytes(),
        };
        let _ = uwrite!(out, "name={} kind=service state=", service.name());
        out.push(state);
        if let Some(pid) = seen.pid {
            push_field("pid", pid.into(), out);
        }
        let uptime = number(answer, "uptime").or_else(|| number(known, "uptime"));
        if let Some(uptime) = uptime.filter(|_| seen.pid.is_some()) {
            push_field("uptime", uptime, out);
        }
        for name in ["restarts", "exit", "signal", "ended"] {
            if let Some(value) = number(known, name) {
                push_field(name, value, out);
            }
        }
        if let Some(end) = field(known, "end") {
            out.push_str(" end=");
            out.push(end);
        }
        let (verdict, _) = describe(&seen.health);
        let _ = uwrite!(out, " health={} ", if seen.pid.is_some() { verdict } else { "none" });
        out.push(answer);
        self.end();
    }
}

/// Copies the lines of all that the supervisor runs to `out`. Returns true if the supervisor has
/// answered before `deadline`.
fn take_list(client: &mut Client<'_>, deadline: Instant, out: &mut Writer<'_>) -> bool {
    let mut last: Vec<u8, 64> = Vec::new();
    loop {
        if client.send(&[b"list ", &last]).is_err() {
            return false;
        }
        let Ok(first) = client.line(Some(deadline)) else { return false };
        let count = client.at(first).strip_prefix(b"ok ").and_then(parse_u64);
        // A name that is gone since the page before has no page after it.
        let Some(count) = count else { return !last.is_empty() };
        for _ in 0..count {
            let Ok(line) = client.line(Some(deadline)) else { return false };
            let line = client.at(line);
            out.push(line);
            out.push_str("\n");
            last = Vec::from_slice(field(line, "name").unwrap_or(b"")).unwrap_or_default();
        }
        if count == 0 {
            return true;
        }
    }
}

/// Runs `status [--all] [--json|--prometheus] [SERVICE]`.
pub(super) fn status(invocation: Invocation) -> CommandResult {
    match invocation.operands.has(CommandOption::All) {
        true => all(invocation),
        false => of_service(invocation),
    }
}

/// Runs `status --all`.
#[inline(never)]
fn all(mut invocation: Invocation) -> CommandResult {
    let (json, prometheus) = formats(&invocation)?;
    if let Some(word) = invocation.operands.service {
        return Err(usage("status", &|out| push_word("unexpected argument", word, out)));
    }
    invocation.load_or_defaults();
    find_services(&mut invocation);
    let (colour, columns) = (shows_colours(&invocation.args), columns_of(&invocation));
    let mut text = [0; ROWS_BYTES];
    let mut rows = Rows { text: Writer::new(&mut text), ends: Vec::new() };
    let config = &invocation.memory.config;
    gather(config, &mut rows)?;
    let mut out = Writer::new(invocation.memory.scratch.pages());
    let longest = rows.iter().map(|row| row.word("name").len()).max().unwrap_or(0);
    let table = Table::new(longest, columns);
    let printed = if prometheus {
        let shown = |index| {
            let row = rows.get(index)?;
            Some(Shown { name: row.word("name"), up: row.code() == lsb::RUNNING, answer: Some(row.line) })
        };
        let service = |index| Service::from_name(rows.get(index)?.word("name"));
        print_metrics(&shown, &service, &mut out)
    } else {
        if !json {
            table.push_header(&mut out);
        }
        for row in rows.iter() {
            if json {
                row.push_json(&mut out);
            } else {
                row.push_text(&table, colour, &mut out);
            }
        }
        print(out.as_bytes())
    };
    if printed.is_err() && (json || prometheus) {
        return Ok(lsb::UNKNOWN);
    }
    let has = |code| rows.iter().any(|row| row.code() == code);
    Ok(if has(lsb::UNKNOWN) {
        lsb::UNKNOWN
    } else if has(lsb::DEAD) || rows.iter().any(|row| row.is_degraded()) {
        lsb::DEAD
    } else if has(lsb::RUNNING) {
        lsb::RUNNING
    } else {
        lsb::STOPPED
    })
}

/// Turns to root's services if this user has none.
fn find_services(invocation: &mut Invocation) {
    for service in BUILT_IN.iter().copied() {
        invocation.service = service;
        let is_there =
            |path| !matches!(invocation.locks(&path).state_without_strangers(), Ok(LockState::Stopped));
        if invocation.pid_path().is_ok_and(is_there) {
            return;
        }
    }
    invocation.service = Service::Supervisor;
    invocation.find_service();
}

/// Looks at all services, and asks the supervisor for its programs.
#[inline(never)]
fn gather(config: &Config, rows: &mut Rows<'_>) -> Result<(), u8> {
    let boot = boot_id();
    let mut lines = [0; ANSWER_MAX_BYTES];
    let mut known = [0; ROWS_BYTES];
    let mut known = Writer::new(&mut known);
    let mut has_list = false;
    let mut shown = [0; STATE_BYTES];
    let mut shown = Writer::new(&mut shown);
    let mut state: &str = "stopped";
    let order = [Service::Supervisor, Service::Jobs, Service::Hub, Service::Opener, Service::Collector];
    for service in order.into_iter().filter(|service| service.is_built_in()) {
        let mut client = Client::new(service, "status", config, &mut lines)?;
        let deadline = clock::now() + STATUS_WAIT;
        let seen = look(&mut client, deadline, &boot);
        let mut answer = [0; STATE_BYTES];
        let mut answer = Writer::new(&mut answer);
        let mut seen = match seen {
            Ok(seen) => seen,
            Err(_) => Seen::unknown(),
        };
        if service.is(Service::Supervisor) {
            if seen.pid.is_some() && client.connect(clock::now()).is_ok() {
                has_list = take_list(&mut client, deadline, &mut known);
                if !has_list {
                    (seen.state, seen.code) = ("unknown", lsb::UNKNOWN);
                }
                if has_list && let Ok(fields) = client.ask(Some(deadline), &[b"status"]) {
                    answer.push(fields);
                }
            }
            state = if seen.code == lsb::STOPPED || seen.code == lsb::DEAD { "stopped" } else { "unknown" };
        }
        if answer.is_empty() {
            seen.push_answer(&client, &boot, &mut answer);
        }
        if service.is(Service::Supervisor) {
            shown.push(answer.as_bytes());
        }
        let line = line_of(known.as_bytes(), service.name().as_bytes());
        let is_listed = config.supervised().any(|name| name == service.name().as_bytes());
        if is_listed || line.is_some() || seen.code != lsb::STOPPED {
            rows.add_service(service, &seen, line.unwrap_or(b""), answer.as_bytes());
        }
    }
    if has_list {
        let programs = known.as_bytes().split(|byte| *byte == b'\n');
        for line in programs.filter(|line| field(line, "kind") == Some(b"program")) {
            rows.text.push(line);
            rows.end();
        }
        return Ok(());
    }
    // The file of the supervisor shows the rest to users who may not ask it.
    let mut is_shown = false;
    for (name, value) in fields(shown.as_bytes()) {
        let Some(colon) = value.iter().position(|byte| *byte == b':') else { continue };
        is_shown = true;
        if Service::from_name(name).is_none() {
            let (state, pid) = value.split_at_checked(colon).unwrap_or_default();
            rows.add_program(name, state, pid.get(1..).and_then(parse_u64));
        }
    }
    for name in config.supervised().filter(|name| !is_shown && Service::from_name(name).is_none()) {
        rows.add_program(name, state.as_bytes(), None);
    }
    Ok(())
}

/// Returns the line of `name` among the lines of the supervisor.
fn line_of<'a>(lines: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    lines.split(|byte| *byte == b'\n').find(|line| field(line, "name") == Some(name))
}
