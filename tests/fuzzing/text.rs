//! Fuzzes external text that is written to logs, terminals, JSON and metrics, and the parsers
//! of small values.

use super::{Choices, assert_plain, written};
use zigsvc::limits::SYSLOG_MAX_BYTES;
use zigsvc::proto::config::value::{emit_duration, emit_size, parse_duration, parse_size};
use zigsvc::proto::log::{Level, TimestampFormat, emit_syslog, push_for_journal};
use zigsvc::proto::{
    passwd,
    prometheus::{self, PARTS, Shown},
    service::Service,
    status,
};
use zigsvc::state::degraded::DegradedState;
use zigsvc::util::lines::{Line, classify, words as split_words};
use zigsvc::util::path::Path;
use zigsvc::util::text::{Writer, parse_u64, trim};

/// Checks that logged text stays one line of bounded length that does not command a terminal.
/// JSON must mean the same to another parser.
pub fn escape(data: &[u8]) {
    let mut choices = Choices(data);
    let size = 4 + choices.below(300);
    let text = choices.0;
    let whole = written(text.len() * 4 + 4, |out| out.push_escaped(text));
    assert_plain(&whole);
    let high = |pair: &[u8]| pair[0] == 0xC2 && (0x80..0xA0).contains(&pair[1]);
    assert!(!whole.windows(2).any(high), "a control character passes");
    let control = |byte: &u8| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f;
    if !text.iter().any(control) && !text.windows(2).any(high) {
        assert_eq!(whole, text, "plain bytes pass as they are");
    }
    let visible = written(text.len() * 4 + 4, |out| out.push_visible(text));
    let shown = core::str::from_utf8(&visible).expect("visible text is UTF-8");
    assert!(!shown.chars().any(|c| c.is_control() && c != '\t'), "{shown:?}");

    let json = written(text.len() * 6 + 8, |out| {
        out.push_str("\"");
        out.push_json(text);
        out.push_str("\"");
    });
    let read: String = serde_json::from_slice(&json).unwrap_or_else(|error| panic!("{error}: {json:?}"));
    assert_eq!(read, String::from_utf8_lossy(text));

    let mut buffer = vec![0; size];
    let mut out = Writer::new(&mut buffer);
    out.push_escaped(text);
    out.mark_cut();
    assert_eq!(out.is_cut(), whole.len() > size);
    if out.is_cut() {
        let kept = out.as_bytes().strip_suffix("…".as_bytes()).expect("a cut text says so");
        assert!(whole.starts_with(kept) && kept.len() + 7 > size && kept.len() <= size);
        assert!(core::str::from_utf8(&whole).is_err() || core::str::from_utf8(kept).is_ok(), "half a letter");
    } else {
        assert_eq!(out.as_bytes(), whole);
    }
    line_ends(text, &whole, size);
}

fn line_ends(text: &[u8], whole: &[u8], size: usize) {
    let line = written(size, |out| {
        out.push_escaped(text);
        out.end_line();
    });
    assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1), "one line: {line:?}");
    assert!(whole.len() >= size || line.len() == whole.len() + 1);

    let mut datagram = [0; SYSLOG_MAX_BYTES];
    let out = emit_syslog(&mut datagram, Level::Warn, 42, whole);
    assert!(out.as_bytes().starts_with(b"<28>zigsvc[42]: "));
    assert_plain(out.as_bytes());

    for (index, stamp) in
        [TimestampFormat::Iso, TimestampFormat::Unix, TimestampFormat::None].into_iter().enumerate()
    {
        let level = Level::ALL[index + 1];
        let line = written(whole.len() + 64, |out| {
            stamp.emit(text.len() as i64 * 1_000_003, out);
            out.push_str(level.tag());
            out.push(whole);
        });
        let journal = written(whole.len() + 64, |out| push_for_journal(&line, stamp, out));
        assert_eq!(journal, [&level.prefix(), whole].concat());
    }
    // Lines that the service did not write must do no harm, either.
    let any = written(text.len() + 8, |out| push_for_journal(text, TimestampFormat::Iso, out));
    assert!(any.len() <= text.len() + 3);
}

/// Checks jobs and their words, numbers with units, accounts, paths and names.
pub fn words(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (line, rest) = (&data[..end], data.get(end + 1..).unwrap_or(&[]));
    match classify(line) {
        Line::Job(job) => {
            assert!((1..=1000).contains(&job.len()) && !job.contains(&0));
            assert_eq!(classify(job), Line::Job(job));
            assert_eq!(trim(job), job);
        }
        Line::Empty => assert!(line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'))),
        Line::Rejected(_) => assert!(trim(line).contains(&0) || trim(line).len() > 1000),
    }
    let joined: Vec<&[u8]> = split_words(line).collect();
    assert!(joined.iter().all(|word| !word.is_empty() && !word.contains(&b' ')));
    assert_eq!(split_words(&joined.join(&b' ')).collect::<Vec<_>>(), joined);

    let number = core::str::from_utf8(line).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    assert_eq!(parse_u64(line), number.and_then(|text| text.parse().ok()));
    if let Some(ms) = parse_duration(line) {
        assert_eq!(parse_duration(&written(40, |out| emit_duration(ms, out))), Some(ms));
    }
    if let Some(bytes) = parse_size(line) {
        assert_eq!(parse_size(&written(40, |out| emit_size(bytes, out))), Some(bytes));
    }
    assert_eq!(
        Service::from_name(line).map(|service| service.name().as_bytes()),
        Service::from_name(line).map(|_| line)
    );
    account_lines(line, rest);
    paths(line, rest);
}

fn account_lines(line: &[u8], name: &[u8]) {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
    let id = |at: usize| {
        let id = fields.get(at).and_then(|field| parse_u64(field)).and_then(|id| u32::try_from(id).ok());
        id.filter(|id| *id != u32::MAX)
    };
    if let Some((uid, gid)) = passwd::user_named(line, name) {
        assert!(!name.is_empty() && (fields[0] == name || fields[2] == name));
        assert_eq!((Some(uid), Some(gid)), (id(2), id(3)));
    }
    if let Some(gid) = passwd::group_named(line, name) {
        assert!(fields[0] == name && Some(gid) == id(2));
    }
    if let Some(gid) = passwd::group_with_member(line, name) {
        assert!(fields[3].split(|byte| *byte == b',').any(|user| user == name) && Some(gid) == id(2));
    }
}

fn paths(first: &[u8], second: &[u8]) {
    let Some(path) = Path::new(first) else {
        assert!(first.contains(&0) || first.len() > 255);
        return;
    };
    assert_eq!((path.as_bytes(), path.as_c_str().to_bytes()), (first, first));
    assert!(!path.name().contains(&b'/') && !path.parent().is_empty());
    if let Some(joined) = path.join(second) {
        assert!(joined.as_bytes().ends_with(second) && joined.as_bytes().len() <= 255);
        assert!(second.starts_with(b"/") || joined.as_bytes().starts_with(first));
    }
}

/// Checks that any bytes as an answer to `status` result in valid metrics.
pub fn status(data: &[u8]) {
    for (name, value) in status::fields(data) {
        assert!(!name.contains(&b'=') && !name.contains(&b' ') && !value.contains(&b' '));
    }
    let row = |index| (index < 2).then_some(Shown { name: b"jobs", up: true, answer: Some(data) });
    let states = |_: usize, visit: &mut dyn FnMut(&[u8])| {
        DegradedState::ALL.iter().for_each(|state| visit(state.name().as_bytes()));
    };
    let text = written(32_768, |out| (0..PARTS).for_each(|part| prometheus::emit(part, &row, &states, out)));
    let text = String::from_utf8(text).expect("metrics are text");
    for line in text.lines() {
        let sample = || {
            let (name, value) = line.rsplit_once(' ')?;
            value.parse::<f64>().ok()?;
            name.starts_with("zigsvc_").then_some(())
        };
        assert!(line.starts_with("# ") || sample().is_some(), "{line:?}");
    }
    if let Some(value) = status::field(data, "degraded") {
        assert!(status::degraded_names(value).all(|state| !state.is_empty() && !state.contains(&b',')));
    }
}
