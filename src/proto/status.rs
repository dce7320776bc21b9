//! The fields of a reply to `status`: the table of all fields, and the functions that read a
//! reply.
//!
//! A reply is one line of words `name=value`, in the order of the table.
//!
//! # Changing this
//!
//! A new field is one row here, and its computation: an arm of `value` in the service that has
//! it. A row that names a metric is also shown to Prometheus. A published name stays.

use crate::limits::{PROGRAM_NAME_BYTES, SUPERVISED_MAX};
use crate::util::text::{Writer, parse_u64};

/// The type of a metric, and the unit in which it is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MetricType {
    /// A counter: it only grows while the service runs.
    Counter,
    /// A gauge: it can grow and shrink.
    Gauge,
    /// A gauge in milliseconds, shown in seconds.
    Millis,
}

/// The metric of a field, for Prometheus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FieldMetric {
    /// The name of the field.
    pub field: &'static str,
    /// The name of the metric, without the prefix `zigsvc_`.
    pub name: &'static str,
    /// The type of the metric.
    pub kind: MetricType,
    /// The description of the metric.
    pub help: &'static str,
}

macro_rules! status_fields {
    ($($(#[$doc:meta])* $variant:ident $name:literal $($kind:ident $metric:literal $help:literal)?;)*) => {
        /// A field of `status` whose value is a number.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum StatusField {
            $($(#[$doc])* $(#[doc = $help])? $variant),*
        }

        impl StatusField {
            /// All fields, in the order of the line.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Returns the name in the line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }

        /// The fields that are metrics.
        pub const METRICS: &[FieldMetric] = &[$($(
            FieldMetric { field: $name, name: $metric, kind: MetricType::$kind, help: $help },
        )?)*];
    };
}

status_fields! {
    Uptime "uptime" Gauge "uptime_seconds" "Time since the service started.";
    Restarts "restarts" Counter "restarts_total" "Restarts of a process by its supervisor; of the supervisor, the sum.";
    Jobs "jobs" Counter "jobs_ended_total" "Jobs that ended, well or dead.";
    AttemptsFailed "failed" Counter "attempts_failed_total" "Attempts of jobs that failed.";
    Dead "dead" Gauge "jobs_dead" "Jobs that failed for good and are kept.";
    DeadDropped "dead_dropped" Counter "jobs_dead_dropped_total" "Dead jobs that were dropped, because dead_max were kept.";
    Waiting "waiting" Gauge "jobs_waiting" "Jobs that wait, delayed ones included.";
    Running "running" Gauge "jobs_running" "Jobs that run.";
    Delayed "delayed" Gauge "jobs_delayed" "Jobs that wait for their next attempt, among the oldest.";
    Room "room" Gauge "queue_room" "Jobs that queue_max still allows.";
    Reloads "reloads" Counter "reloads_total" "Configurations read again.";
    ReloadErrors "reload_errors" Counter "reload_errors_total" "Configurations refused.";
    Rotations "rotations" Counter "log_rotations_total" "Rotations of the log.";
    LogReplaced "log_replaced" Counter "log_files_replaced_total" "Rotations that threw the oldest file of the log away.";
    LogLost "log_lost" Counter "log_lines_lost_total" "Log lines that no file took.";
    Fsyncs "fsyncs" Counter "spool_fsyncs_total" "Syncs of the spool.";
    SpoolBytes "spool_bytes" Counter "spool_written_bytes_total" "Bytes written to the spool.";
    /// Clients that `hub` has accepted since its start.
    Joined "joined";
    Clients "clients" Gauge "clients" "Connections to the control socket.";
    /// Lines that `hub` has passed on.
    Lines "lines";
    /// Names of metrics that `collector` knows.
    Metrics "metrics";
    /// Values that `collector` has counted.
    Values "values";
    /// Files that `opener` has handed out.
    Opened "opened";
    Denied "denied" Counter "requests_denied_total" "Requests that were denied for lack of a right.";
    /// Files on the list that `opener` could not open.
    OpensFailed "failed";
    /// The PID of the worker of `opener`.
    Worker "worker";
    /// The number of jobs that may run at once.
    Workers "workers";
    /// The hash of the token that the handlers of `jobs` have in their environment.
    Token "token";
    Scheduled "scheduled" Gauge "jobs_scheduled" "Jobs that are not due yet, counted among the waiting ones.";
    HealthAge "health_age_ms" Millis "heartbeat_age_seconds" "Time since the last heartbeat.";
}

/// The lines of `status` for a person. `$name` stands for the value of a field. `$scheduled` and
/// `$wear` are phrases, and empty if there is nothing to say.
pub const SCREEN: &str = "  handler    $handler
  jobs       $jobs ended, $failed failed attempt~
  queue      $waiting waiting$scheduled, $running running, $delayed delayed, $dead dead, room for $room
  spool      $fsyncs fsync~, $spool_bytes written$wear
  log        $rotations rotation~, $log_replaced threw old lines away, $log_lost line~ lost
  config     $reloads reload~, $reload_errors refused
  degraded   $degraded
";

/// Maximum number of bytes of the line that the supervisor leaves for `status`.
pub const STATE_BYTES: usize = 640 + SUPERVISED_MAX * (PROGRAM_NAME_BYTES + 18);

/// Appends a blank and one field.
pub fn push_field(name: &str, value: u64, out: &mut Writer<'_>) {
    out.push_str(" ");
    out.push_str(name);
    out.push_str("=");
    out.push_u64(value);
}

/// Returns the fields `name=value` of an answer. Other words are skipped.
pub fn fields(answer: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    answer.split(|byte| *byte == b' ').filter_map(|word| {
        let (name, value) = word.split_at_checked(word.iter().position(|byte| *byte == b'=')?)?;
        Some((name, value.get(1..)?))
    })
}

/// Returns the value of the first field called `name`.
#[must_use]
pub fn field<'a>(answer: &'a [u8], name: &str) -> Option<&'a [u8]> {
    fields(answer).find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
}

/// Returns the value of the first field called `name`, if it is a number.
#[must_use]
pub fn number(answer: &[u8], name: &str) -> Option<u64> {
    parse_u64(field(answer, name)?)
}

/// Returns the names in the value of `degraded`. The value `none` has no names.
pub fn degraded_names(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').filter(|name| !matches!(*name, b"" | b"none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name_and_words_without_a_value_are_none() {
        assert_eq!(field(b"a=1 odd b=x=y c=", "b"), Some(&b"x=y"[..]));
        assert_eq!(field(b"a=1 odd b=x=y c=", "c"), Some(&b""[..]));
        assert_eq!(field(b"a=1 odd", "odd"), None);
        assert_eq!(number(b"a=1 b=x", "b"), None);
        assert_eq!(degraded_names(b"none").count(), 0);
        assert_eq!(degraded_names(b"log,spool").collect::<Vec<_>>(), [&b"log"[..], b"spool"]);
    }

    #[test]
    fn the_document_lists_every_metric_with_its_field() {
        let document = include_str!("../../docs/control.md");
        let rows = document.split("| field | ").nth(1).unwrap().lines().skip(2);
        let rows = rows.take_while(|row| row.starts_with('|'));
        assert!(rows.eq(METRICS.iter().map(|metric| {
            format!("| `{}` | {} | `zigsvc_{}` |", metric.field, metric.help, metric.name)
        })));
    }

    #[test]
    fn the_screen_names_fields_of_the_table() {
        for part in SCREEN.split('$').skip(1) {
            let name = part.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap();
            let known = StatusField::ALL.iter().any(|field| field.name() == name);
            assert!(known || ["degraded", "handler", "wear"].contains(&name), "{name}");
        }
    }
}
