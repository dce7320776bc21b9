//! The fields of a `status` answer, and those of them that are metrics, in the
//! text format of Prometheus (version 0.0.4).
//!
//! # Changing this
//!
//! A number that `status` gains needs one line in `METRICS`; without it the
//! number is in the text of `status` for programs only. A name that was
//! published once stays.

use crate::util::text::{Writer, parse_u64};
use ufmt::uwrite;

/// What a number is, and how it is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MetricType {
    /// It only grows, until the service starts anew.
    Counter,
    /// It goes up and down.
    Gauge,
    /// A gauge in milliseconds, shown in seconds.
    Millis,
}

/// Field of `status`, name less `zigsvc_`, kind, help.
const METRICS: &[(&str, &str, MetricType, &str)] = &[
    ("uptime", "uptime_seconds", MetricType::Gauge, "Time since the service started."),
    ("jobs", "jobs_ended_total", MetricType::Counter, "Jobs that ended, well or dead."),
    ("failed", "attempts_failed_total", MetricType::Counter, "Attempts of jobs that failed."),
    ("waiting", "jobs_waiting", MetricType::Gauge, "Jobs that wait, delayed ones included."),
    ("running", "jobs_running", MetricType::Gauge, "Jobs that run."),
    (
        "delayed",
        "jobs_delayed",
        MetricType::Gauge,
        "Jobs that wait for their next attempt, among the oldest.",
    ),
    ("dead", "jobs_dead", MetricType::Gauge, "Jobs that failed for good and are kept."),
    ("room", "queue_room", MetricType::Gauge, "Jobs that queue_max still allows."),
    ("clients", "clients", MetricType::Gauge, "Connections to the control socket."),
    ("denied", "requests_denied_total", MetricType::Counter, "Requests of those who may not."),
    ("fsyncs", "spool_fsyncs_total", MetricType::Counter, "Syncs of the spool."),
    ("spool_bytes", "spool_written_bytes_total", MetricType::Counter, "Bytes written to the spool."),
    ("rotations", "log_rotations_total", MetricType::Counter, "Rotations of the log."),
    ("log_lost", "log_lines_lost_total", MetricType::Counter, "Log lines that no file took."),
    ("reloads", "reloads_total", MetricType::Counter, "Configurations read anew."),
    ("reload_errors", "reload_errors_total", MetricType::Counter, "Configurations refused."),
    ("health_age_ms", "heartbeat_age_seconds", MetricType::Millis, "Time since the last heartbeat."),
];

/// The degraded states that are known.
const STATES: &[&str] =
    &["spool", "spool-full", "log", "health", "socket", "descriptors", "inotify", "sync-never"];

/// The fields `name=value` of an answer.
pub fn fields(answer: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    answer.split(|byte| *byte == b' ').filter_map(|word| {
        let (name, value) = word.split_at_checked(word.iter().position(|byte| *byte == b'=')?)?;
        Some((name, value.get(1..)?))
    })
}

/// The value of one field.
#[must_use]
pub fn field<'a>(answer: &'a [u8], name: &str) -> Option<&'a [u8]> {
    fields(answer).find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
}

/// The value of one field that is a number.
#[must_use]
pub fn number(answer: &[u8], name: &str) -> Option<u64> {
    parse_u64(field(answer, name)?)
}

/// The names in the value of `degraded`; none for `none`.
pub fn states(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').filter(|state| !matches!(*state, b"" | b"none"))
}

/// Writes what Prometheus can read: whether `service` is up, and the numbers
/// of its `answer`, if there is one.
pub fn emit(service: &str, up: bool, answer: Option<&[u8]>, out: &mut Writer<'_>) {
    describe("up", MetricType::Gauge, "Whether the service runs and is well.", out);
    let _ = uwrite!(out, "zigsvc_up{{service=\"{}\"}} {}\n", service, u8::from(up));
    let Some(answer) = answer else { return };
    for (name, metric, kind, help) in METRICS {
        let Some(value) = number(answer, name) else { continue };
        describe(metric, *kind, help, out);
        let _ = uwrite!(out, "zigsvc_{}{{service=\"{}\"}} ", *metric, service);
        if *kind == MetricType::Millis {
            out.push_u64(value / 1000);
            out.push_str(".");
            out.push_padded(value % 1000, 3);
        } else {
            out.push_u64(value);
        }
        out.push_str("\n");
    }
    let Some(degraded) = field(answer, "degraded") else { return };
    describe("degraded", MetricType::Gauge, "Whether the service goes on without this.", out);
    for state in STATES {
        let is = states(degraded).any(|found| found == state.as_bytes());
        let _ = uwrite!(
            out,
            "zigsvc_degraded{{service=\"{}\",state=\"{}\"}} {}\n",
            service,
            *state,
            u8::from(is)
        );
    }
}

/// The two comment lines before a metric.
fn describe(metric: &str, kind: MetricType, help: &str, out: &mut Writer<'_>) {
    let kind = if kind == MetricType::Counter { "counter" } else { "gauge" };
    let _ = uwrite!(out, "# HELP zigsvc_{} {}\n# TYPE zigsvc_{} {}\n", metric, help, metric, kind);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"pid=617 state=running uptime=93 jobs=4 failed=1 dead=0 waiting=0 running=0 \
        delayed=0 room=10000 reloads=0 reload_errors=0 rotations=2 log_lost=0 fsyncs=14 spool_bytes=3300 \
        denied=0 clients=1 health_age_ms=1045 later=7 degraded=log,sync-never";

    fn written(up: bool, answer: Option<&[u8]>) -> String {
        let mut buffer = vec![0; 8192];
        let mut out = Writer::new(&mut buffer);
        emit("jobs", up, answer, &mut out);
        assert!(!out.is_cut());
        String::from_utf8(out.as_bytes().to_vec()).unwrap()
    }

    /// Value and type of each sample, after checking what promtool checks.
    fn check(text: &str) -> Vec<(String, String, f64)> {
        let is_name = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        assert!(text.ends_with('\n'));
        let (mut samples, mut seen) = (Vec::new(), Vec::new());
        let (mut helped, mut typed) = ("", "");
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(is_name(name) && help.ends_with('.') && !help.contains('\\'), "{line}");
                assert!(!seen.contains(&name), "{name} comes twice");
                seen.push(name);
                helped = name;
                continue;
            }
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let kind;
                (typed, kind) = rest.split_once(' ').unwrap();
                assert_eq!(typed, helped);
                assert!(["counter", "gauge"].contains(&kind));
                assert_eq!(kind == "counter", typed.ends_with("_total"), "{typed}");
                continue;
            }
            let (name, rest) = line.split_once('{').unwrap();
            let (labels, value) = rest.split_once("} ").unwrap();
            assert_eq!(name, typed);
            for label in labels.split(',') {
                let (label, value) = label.split_once("=\"").unwrap();
                assert!(is_name(label) && value.ends_with('"') && !value.contains('\\'), "{line}");
            }
            samples.push((name.to_string(), labels.to_string(), value.parse().unwrap()));
        }
        samples
    }

    #[test]
    fn every_known_number_is_a_metric_and_others_are_skipped() {
        let text = written(true, Some(ANSWER));
        let samples = check(&text);
        assert_eq!(samples.len(), 1 + METRICS.len() + STATES.len());
        let value = |name: &str, labels: &str| {
            samples.iter().find(|(n, l, _)| n == name && l == labels).map(|(_, _, value)| *value)
        };
        assert_eq!(value("zigsvc_up", "service=\"jobs\""), Some(1.0));
        assert_eq!(value("zigsvc_jobs_ended_total", "service=\"jobs\""), Some(4.0));
        assert_eq!(value("zigsvc_heartbeat_age_seconds", "service=\"jobs\""), Some(1.045));
        assert_eq!(value("zigsvc_degraded", "service=\"jobs\",state=\"log\""), Some(1.0));
        assert_eq!(value("zigsvc_degraded", "service=\"jobs\",state=\"spool\""), Some(0.0));
        assert!(!text.contains("later") && !text.contains("617"));
    }

    #[test]
    fn a_service_without_an_answer_is_only_up_or_down() {
        for (up, value) in [(true, 1.0), (false, 0.0)] {
            assert_eq!(check(&written(up, None)), [("zigsvc_up".into(), "service=\"jobs\"".into(), value)]);
        }
    }

    #[test]
    fn an_answer_of_an_older_service_gives_fewer_metrics() {
        assert_eq!(check(&written(true, Some(b"pid=1 jobs=x failed=2 odd ="))).len(), 2);
    }

    #[test]
    fn fields_are_found_by_name_and_words_without_a_value_are_none() {
        assert_eq!(field(b"a=1 odd b=x=y c=", "b"), Some(&b"x=y"[..]));
        assert_eq!(field(b"a=1 odd b=x=y c=", "c"), Some(&b""[..]));
        assert_eq!(field(b"a=1 odd", "odd"), None);
        assert_eq!(number(b"a=1 b=x", "b"), None);
        assert_eq!(states(b"none").count(), 0);
        assert_eq!(states(b"log,spool").collect::<Vec<_>>(), [&b"log"[..], b"spool"]);
    }
}
