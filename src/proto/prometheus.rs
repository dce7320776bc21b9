//! Writes the fields of a `status` answer that are metrics (`status.rs`), in the text
//! exposition format of Prometheus (version 0.0.4).

use super::status::{FieldMetric, METRICS, MetricType, degraded_names, field, number};
use crate::util::text::Writer;
use ufmt::uwrite;

/// The fields that one service or program shows.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// True if the process runs and is well.
    pub up: bool,
    /// The fields that it shows.
    pub answer: Option<&'a [u8]>,
}

/// Calls a function with the name of each degraded state that the service at an index can have.
pub type States<'a> = &'a dyn Fn(usize, &mut dyn FnMut(&[u8]));

/// Number of metrics.
pub const PARTS: usize = METRICS.len().saturating_add(2);

/// Writes one metric, counted from 0, of all services and programs that `row` returns: if they are
/// up, then the numbers of their answers, then their degraded states.
pub fn emit<'a>(
    part: usize,
    row: &dyn Fn(usize) -> Option<Shown<'a>>,
    states: States<'_>,
    out: &mut Writer<'_>,
) {
    let metric = part.checked_sub(1).and_then(|index| METRICS.get(index));
    let mut is_first = true;
    for index in 0.. {
        let Some(Shown { name, up, answer }) = row(index) else { return };
        let mut sample = |metric: &str, kind, help: &str, state: &[u8], value: u64, out: &mut Writer<'_>| {
            if core::mem::take(&mut is_first) {
                describe(metric, kind, help, out);
            }
            let _ = uwrite!(out, "zigsvc_{}{{service=\"", metric);
            out.push_json(name);
            if !state.is_empty() {
                out.push_str("\",state=\"");
                out.push_json(state);
            }
            out.push_str("\"} ");
            if kind == MetricType::Millis {
                out.push_u64(value / 1000);
                out.push_str(".");
                out.push_padded(value % 1000, 3);
            } else {
                out.push_u64(value);
            }
            out.push_str("\n");
        };
        match (part, metric, answer) {
            (0, ..) => {
                sample("up", MetricType::Gauge, "Whether the process runs and is well.", b"", up.into(), out);
            }
            (_, _, None) => {}
            (_, Some(FieldMetric { field, name, kind, help }), Some(answer)) => {
                if let Some(value) = number(answer, field) {
                    sample(name, *kind, help, b"", value, out);
                }
            }
            (_, None, Some(answer)) => {
                let Some(degraded) = field(answer, "degraded") else { continue };
                states(index, &mut |state| {
                    let is = degraded_names(degraded).any(|found| found == state);
                    sample("degraded", MetricType::Gauge, DEGRADED_HELP, state, is.into(), out);
                });
            }
        }
    }
}

/// The description of the metric of degraded states.
const DEGRADED_HELP: &str = "1 for each degraded state, in which a part of the service does not work.";

/// Writes the two comment lines that precede a metric.
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

    const STATES: [&str; 3] = ["spool", "log", "sync-never"];

    fn write_all<'a>(row: &dyn Fn(usize) -> Option<Shown<'a>>, out: &mut Writer<'_>) {
        for part in 0..PARTS {
            emit(part, row, &|_, visit| STATES.iter().for_each(|state| visit(state.as_bytes())), out);
        }
    }

    fn written(up: bool, answer: Option<&[u8]>) -> String {
        let mut buffer = vec![0; 8192];
        let mut out = Writer::new(&mut buffer);
        let row = |index| (index == 0).then_some(Shown { name: b"jobs", up, answer });
        write_all(&row, &mut out);
        assert!(!out.is_cut());
        String::from_utf8(out.as_bytes().to_vec()).unwrap()
    }

    /// Returns name, labels and value of each sample, after the checks that promtool makes.
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
        let mut answer = String::from_utf8(ANSWER.to_vec()).unwrap();
        for metric in METRICS.iter().filter(|metric| field(ANSWER, metric.field).is_none()) {
            answer.push_str(&format!(" {}=0", metric.field));
        }
        let text = written(true, Some(answer.as_bytes()));
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
    fn a_metric_of_many_services_is_described_once() {
        let mut buffer = vec![0; 8192];
        let mut out = Writer::new(&mut buffer);
        let rows = [
            Shown { name: b"supervisor", up: true, answer: None },
            Shown { name: b"jobs", up: true, answer: Some(ANSWER) },
            Shown { name: b"a.b-c_1", up: false, answer: Some(b"restarts=7 degraded=none") },
        ];
        write_all(&|index| rows.get(index).copied(), &mut out);
        let samples = check(core::str::from_utf8(out.as_bytes()).unwrap());
        let named = |name: &str| samples.iter().filter(|(found, ..)| found == name).count();
        assert_eq!((named("zigsvc_up"), named("zigsvc_restarts_total")), (3, 1));
        assert_eq!((named("zigsvc_uptime_seconds"), named("zigsvc_degraded")), (1, 2 * STATES.len()));
        assert!(samples.contains(&("zigsvc_restarts_total".into(), "service=\"a.b-c_1\"".into(), 7.0)));
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
}
