//! `metric`: a client of the collector (docs/collector.md).

use super::client::{Client, ClientError, answer_deadline};
use super::command_line::CommandOption;
use super::invocation::Invocation;
use super::output::{CommandResult, fail, print, usage_text};
use crate::limits::{ANSWER_MAX_BYTES, METRIC_LINE_BYTES, METRICS_MAX};
use crate::proto::collector::{self, DUMP, MetricLine, NONE, error, push_object};
use crate::proto::decimal::Decimal;
use crate::proto::service::Service;
use crate::service::lifecycle::exit;
use crate::sys::{signal, socket};
use crate::util::text::Writer;
use core::ops::Range;

/// The metric families of Prometheus: name, kind, help.
const FAMILIES: [(&str, &str, &str); 2] = [
    ("zigsvc_metric_avg", "gauge", "Average of the values of this metric."),
    ("zigsvc_metric_values_total", "counter", "Values of this metric."),
];

/// Runs `metric NAME VALUE` or `metric --dump [--prometheus]`.
pub(super) fn metric(mut invocation: Invocation) -> CommandResult {
    signal::ignore_broken_pipes();
    invocation.service = Service::Collector;
    let operands = &invocation.operands;
    let prometheus = operands.has(CommandOption::Prometheus);
    let wrong = |text: &str| Err(usage_text("metric", text));
    match (operands.get(0), operands.get(1)) {
        (None, _) if operands.has(CommandOption::Dump) => dump(&mut invocation, prometheus),
        _ if operands.has(CommandOption::Dump) => wrong("--dump takes neither NAME nor VALUE"),
        _ if prometheus => wrong("--prometheus needs --dump"),
        (Some(name), Some(value)) => add(&mut invocation, name, value),
        _ => wrong("missing argument: metric NAME VALUE"),
    }
}

/// Sends one value, and prints the answer.
#[inline(never)]
fn add(invocation: &mut Invocation, name: &[u8], value: &[u8]) -> CommandResult {
    // A value that the service would refuse is not sent.
    let checked = match collector::name(name) {
        None => Err(error::NAME),
        Some(name) if name == DUMP => Err("the name dump is not for a metric; see --dump"),
        Some(_) => collector::value(value),
    };
    let value = checked.map_err(|why| refused(why.as_bytes()))?;
    let mut client = ask(invocation, name, value)?.0;
    let line = client.line(answer_deadline()).map_err(|error| client.report(error))?;
    parse(&client, line.clone())?;
    let mut text = [0; 4 * METRIC_LINE_BYTES];
    let mut out = Writer::new(&mut text);
    out.push_visible(client.at(line));
    out.push_str("\n");
    print(out.as_bytes())?;
    Ok(exit::OK)
}

/// Prints the dump line by line. Prints it for Prometheus when all lines have come, because
/// the samples of a family are one block.
#[inline(never)]
fn dump(invocation: &mut Invocation, prometheus: bool) -> CommandResult {
    let (mut client, rest) = ask(invocation, DUMP, Decimal::ZERO)?;
    client.socket.iter().for_each(socket::end_sending);
    let mut kept = Writer::new(rest);
    let mut lines = 0usize;
    loop {
        let line = match client.line(answer_deadline()) {
            Ok(line) => line,
            Err(ClientError::Closed) if lines > 0 => break,
            Err(error) => return Err(client.report(error)),
        };
        lines = lines.saturating_add(1);
        if NONE.strip_suffix(b"\n") == Some(client.at(line.clone())) {
            continue;
        }
        parse(&client, line.clone())?;
        let text = client.at(line);
        if !prometheus {
            kept.truncate(0);
        }
        kept.push(text);
        kept.push_str("\n");
        if kept.is_cut() || lines > METRICS_MAX {
            return Err(client.report(ClientError::Garbage));
        }
        if !prometheus {
            print(kept.as_bytes())?;
        }
    }
    if prometheus {
        print_samples(kept.as_bytes())?;
    }
    Ok(exit::OK)
}

/// Prints the lines of a dump in the text format of Prometheus (version 0.0.4).
fn print_samples(lines: &[u8]) -> Result<(), u8> {
    for (metric, kind, help) in FAMILIES.into_iter().filter(|_| !lines.is_empty()) {
        let mut text = [0; 2 * METRIC_LINE_BYTES];
        let mut out = Writer::new(&mut text);
        for part in ["# HELP ", metric, " ", help, "\n# TYPE ", metric, " ", kind, "\n"] {
            out.push_str(part);
        }
        for line in lines.split(|byte| *byte == b'\n').filter_map(MetricLine::parse) {
            line.push_sample(metric, if kind == "gauge" { line.average } else { line.count }, &mut out);
            print(out.as_bytes())?;
            out.truncate(0);
        }
    }
    Ok(())
}

/// Connects and sends one object.
fn ask<'m>(
    invocation: &'m mut Invocation,
    name: &[u8],
    value: Decimal,
) -> Result<(Client<'m>, &'m mut [u8]), u8> {
    let (mut client, rest) = invocation.client(ANSWER_MAX_BYTES)?;
    client.connect_or_report()?;
    let mut object = [0; 4 * METRIC_LINE_BYTES];
    let mut out = Writer::new(&mut object);
    push_object(name, value, &mut out);
    client.send(&[out.as_bytes()]).map_err(|error| client.report(error))?;
    Ok((client, rest))
}

/// Returns an error, after printing it, if a line is not about a metric.
fn parse(client: &Client<'_>, line: Range<usize>) -> Result<(), u8> {
    let text = client.at(line);
    match (MetricLine::parse(text), text.strip_prefix(b"error: ")) {
        (Some(_), _) => Ok(()),
        (None, Some(why)) => Err(refused(why)),
        (None, None) => Err(client.report(ClientError::Garbage)),
    }
}

/// Prints that a request was refused; returns the exit code.
fn refused(why: &[u8]) -> u8 {
    fail(if why.starts_with(b"denied") { exit::NO_PRIVILEGE } else { exit::FAILED }, &|out| {
        out.push_str("metric: ");
        out.push_escaped(why);
    })
}
