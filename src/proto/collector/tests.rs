use super::*;
use serde_json::Value;
use std::vec::Vec;

const GOOD: &str = r#"{"name":"cpu","value":42.5}"#;

/// Returns each object and each error of the input, which is read in one piece.
fn all(input: &[u8]) -> Vec<String> {
    pieces(input, usize::MAX)
}

/// Returns each object and each error of the input, which is read in pieces of `size` bytes.
fn pieces(input: &[u8], size: usize) -> Vec<String> {
    let (mut held, mut told, mut skipping) = (Vec::new(), Vec::new(), false);
    let mut chunks = input.chunks(size.min(input.len().max(1))).peekable();
    loop {
        held.extend_from_slice(chunks.next().unwrap_or(&[]));
        let ended = chunks.peek().is_none();
        let mut at = 0;
        loop {
            match next(&held[at..], skipping, ended) {
                Next::Partial(used) => {
                    assert!(!ended || at + used == held.len(), "{:?}", &held[at..]);
                    at += used;
                    break;
                }
                Next::Discard(0, end) => {
                    assert!(!end && at == held.len());
                    break;
                }
                Next::Discard(used, end) => (at, skipping) = (at + used, !end),
                Next::Metric(metric, used) => {
                    assert!(used > 0 && held[at + used - 1] == b'}');
                    let mut out = [0; METRIC_LINE];
                    let mut out = Writer::new(&mut out);
                    push_line(&metric.name, metric.value, None, &mut out);
                    assert!(!out.is_cut());
                    told.push(String::from_utf8(out.as_bytes().to_vec()).unwrap());
                    at += used;
                }
                Next::Wrong(why, used, end) => {
                    assert!(used > 0 || end);
                    told.push(why.to_owned());
                    (at, skipping) = (at + used, !end);
                }
            }
        }
        held.drain(..at);
        if ended {
            return told;
        }
    }
}

const METRIC_LINE: usize = crate::limits::METRIC_LINE_BYTES;

/// Returns name and value of the only object of the input.
fn one(input: &str) -> (String, String) {
    let told = all(input.as_bytes());
    assert_eq!(told.len(), 1, "{input}: {told:?}");
    let line =
        MetricLine::parse(told[0].trim_end().as_bytes()).unwrap_or_else(|| panic!("{input}: {told:?}"));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(line.name), text(line.average))
}

fn random(seed: &mut u64) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) as usize
}

// ----- objects -----------------------------------------------------------------

#[test]
fn an_object_is_read_however_it_is_written() {
    for (text, name, value) in [
        (GOOD, "cpu", "42.5"),
        ("{\"value\" : -1e2 ,\r\n\t\"name\" : \"a b\"}", "a b", "-100"),
        (" \n{ \"name\":\"x\",\"value\":0 }", "x", "0"),
        (r#"{"n\u0061me":"x","\u0076alu\u0065":1}"#, "x", "1"),
        (r#"{"name":"\"\\\/","value":1}"#, "\"\\/", "1"),
        (r#"{"name":"é\u00e9\u20AC\uD83D\uDE00😀","value":1}"#, "éé€😀😀", "1"),
        ("{\"name\":\"\u{a0}{}[],:\",\"value\":1}", "\u{a0}{}[],:", "1"),
        (r#"{"name":"error","value":1}"#, "error", "1"),
        (r#"{"name":": avg=7","value":1}"#, ": avg=7", "1"),
    ] {
        assert_eq!(one(text), (name.to_owned(), value.to_owned()), "{text}");
    }
}

#[test]
fn what_is_not_an_object_of_a_name_and_a_value_is_one_error() {
    use error::*;
    for (text, why) in [
        ("x", OBJECT),
        ("[]", OBJECT),
        ("null", OBJECT),
        ("42", OBJECT),
        ("\"name\"", OBJECT),
        ("\0", OBJECT),
        ("\u{feff}{}", OBJECT),
        (",{}", OBJECT),
        ("{}", MEMBERS),
        ("{,", MEMBERS),
        ("{name:1}", MEMBERS),
        ("{'name':1}", MEMBERS),
        (r#"{"":1}"#, MEMBERS),
        (r#"{"nam":1}"#, MEMBERS),
        (r#"{"names":1}"#, MEMBERS),
        (r#"{"valuexxxxx":1}"#, MEMBERS),
        (r#"{"Name":1}"#, MEMBERS),
        (r#"{"name":"x"}"#, MEMBERS),
        (r#"{"value":1}"#, MEMBERS),
        (r#"{"name":"x","name":"y"}"#, MEMBERS),
        (r#"{"value":1,"value":1}"#, MEMBERS),
        (r#"{"name":"x","value":1,}"#, MEMBERS),
        (r#"{"name":"x","value":1,"more":1}"#, MEMBERS),
        (r#"{"name":"x""value":1}"#, MEMBERS),
        (r#"{"name":"x";"value":1}"#, MEMBERS),
        (r#"{"name" "x"}"#, COLON),
        (r#"{"name"="x"}"#, COLON),
        (r#"{"name":1,"value":1}"#, NAME_TYPE),
        (r#"{"name":null,"value":1}"#, NAME_TYPE),
        (r#"{"name":{"name":"x"}}"#, NAME_TYPE),
        (r#"{"name":["x"]}"#, NAME_TYPE),
        (r#"{"name":"","value":1}"#, NAME),
        (r#"{"name":"a\nb","value":1}"#, NAME),
        (r#"{"name":"a\u0000b","value":1}"#, NAME),
        (r#"{"name":"a\u001bb","value":1}"#, NAME),
        (r#"{"name":"a\u009bb","value":1}"#, NAME),
        ("{\"name\":\"a\u{7f}b\"", NAME),
        ("{\"name\":\"a\u{9b}b\"", NAME),
        ("{\"name\":\"a\tb\"", STRING),
        ("{\"name\":\"a\0b\"", STRING),
        ("{\"name\":\"a\nb\"", STRING),
        (r#"{"name":"\x41"}"#, ESCAPE),
        (r#"{"name":"\u00g0"}"#, ESCAPE),
        (r#"{"name":"\U0041"}"#, ESCAPE),
        (r#"{"name":"\ud83d"}"#, SURROGATE),
        (r#"{"name":"\ud83dx"}"#, SURROGATE),
        (r#"{"name":"\ud83d\n"}"#, SURROGATE),
        (r#"{"name":"\ud83d\u0041"}"#, SURROGATE),
        (r#"{"name":"\ud83d\ud83d"}"#, SURROGATE),
        (r#"{"name":"\ude00"}"#, SURROGATE),
        (r#"{"name":"x","value":"1"}"#, NUMBER),
        (r#"{"name":"x","value":}"#, NUMBER),
        (r#"{"name":"x","value":null}"#, NUMBER),
        (r#"{"name":"x","value":true}"#, NUMBER),
        (r#"{"name":"x","value":[1]}"#, NUMBER),
        (r#"{"name":"x","value":{}}"#, NUMBER),
        (r#"{"name":"x","value":NaN}"#, NUMBER),
        (r#"{"name":"x","value":-Infinity}"#, NUMBER),
        (r#"{"name":"x","value":+1}"#, NUMBER),
        (r#"{"name":"x","value":01}"#, NUMBER),
        (r#"{"name":"x","value":1.}"#, NUMBER),
        (r#"{"name":"x","value":.5}"#, NUMBER),
        (r#"{"name":"x","value":1e}"#, NUMBER),
        (r#"{"name":"x","value":0x10}"#, NUMBER),
        (r#"{"name":"x","value":1_0}"#, NUMBER),
        (r#"{"name":"x","value":1;}"#, NUMBER),
        (r#"{"name":"x","value":1e400}"#, RANGE),
        (r#"{"name":"x","value":-18446744073709551616}"#, RANGE),
        (r#"{"name":"x","value":1"#, CUT),
        (r#"{"name":"x"#, CUT),
        (r#"{"name":"\"#, CUT),
        (r#"{"name":"\ud83d"#, CUT),
        ("{", CUT),
        (" {\n\n", CUT),
    ] {
        assert_eq!(all(text.as_bytes())[0], why, "{text}");
        let line = format!("{text}\n{GOOD}");
        assert!([CUT, STRING].contains(&why) || all(line.as_bytes()) == [why, "cpu: avg=42.5\n"], "{text}");
    }
    for bytes in [&b"\xff"[..], b"\x80", b"\xc0\xaf", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf5\x80", b"\xc3x"]
    {
        let input = [b"{\"name\":\"x", bytes, b"\",\"value\":1}\n", GOOD.as_bytes()].concat();
        assert_eq!(all(&input), [STRING, "cpu: avg=42.5\n"], "{bytes:x?}");
    }
}

#[test]
fn a_wrong_object_is_dropped_up_to_the_next_newline_and_with_what_is_behind_it() {
    let lines = |text: &str| all(text.as_bytes());
    assert_eq!(lines(&format!("x{GOOD}\n{GOOD}")), [error::OBJECT, "cpu: avg=42.5\n"]);
    assert_eq!(lines(&format!("x\n\n\n{GOOD}")), [error::OBJECT, "cpu: avg=42.5\n"]);
    assert_eq!(lines(&format!("{GOOD}x{GOOD}")), ["cpu: avg=42.5\n", error::OBJECT]);
    // A newline ends the error if it stands at or after the wrong byte, not inside the object.
    assert_eq!(lines(&format!("{{\n!\n{GOOD}")), [error::MEMBERS, "cpu: avg=42.5\n"]);
    assert_eq!(lines(&format!("{{\"name\":\"a\n{GOOD}")), [error::STRING, "cpu: avg=42.5\n"]);
}

#[test]
fn names_of_64_bytes_are_taken_and_longer_ones_are_not() {
    for (name, good) in [
        ("x".repeat(64), true),
        ("x".repeat(65), false),
        ("é".repeat(32), true),
        (format!("x{}", "é".repeat(32)), false),
        ("😀".repeat(16), true),
    ] {
        let escaped: String = name.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        for written in [&name, &escaped] {
            let text = format!("{{\"name\":\"{written}\",\"value\":1}}");
            let expected = if good { format!("{name}: avg=1\n") } else { error::NAME.to_owned() };
            assert_eq!(all(text.as_bytes()), [expected], "{text}");
        }
        assert_eq!(super::name(name.as_bytes()).is_some(), good);
    }
}

#[test]
fn an_object_of_1024_bytes_is_taken_and_a_longer_one_is_not() {
    for (length, good) in [(1023, true), (1024, true), (1025, false), (1026, false), (5000, false)] {
        let text = format!("{}{}", GOOD.trim_end_matches('}'), " ".repeat(length - GOOD.len()) + "}");
        assert_eq!(text.len(), length);
        let input = format!("  \n{text}{GOOD}\n{GOOD}");
        let expected: &[&str] = if good {
            &["cpu: avg=42.5\n", "cpu: avg=42.5\n", "cpu: avg=42.5\n"]
        } else {
            &[error::LONG, "cpu: avg=42.5\n"]
        };
        for size in [1, 7, 1000, 1024, 1027, 1028, usize::MAX] {
            assert_eq!(pieces(input.as_bytes(), size), expected, "{length} in pieces of {size}");
        }
        let more = format!("{} ", text.trim_end_matches('}'));
        let expected = if length < 1024 { error::CUT } else { error::LONG };
        assert_eq!(all(more.as_bytes()), [expected], "{length}");
    }
}

#[test]
fn objects_need_nothing_between_them() {
    let text = GOOD.repeat(3) + " \t\r\n" + GOOD + "\n";
    assert_eq!(all(text.as_bytes()), ["cpu: avg=42.5\n"; 4]);
}

// ----- any cut, any bytes ------------------------------------------------------

#[test]
fn every_truncation_of_an_object_is_the_beginning_of_one() {
    for text in [
        GOOD,
        "{ \"value\" : -1.5e+10 , \"name\" : \"\\\"\\u00e9\\uD83D\\uDE00é€😀\" }",
        "{\"n\\u0061me\":\"x\",\"value\":0}",
    ] {
        for length in 0..text.len() {
            let cut = &text.as_bytes()[..length];
            assert_eq!(next(cut, false, false), Next::Partial(0), "{:?}", String::from_utf8_lossy(cut));
            assert_eq!(all(cut), if length == 0 { vec![] } else { vec![error::CUT] });
        }
        assert!(matches!(next(text.as_bytes(), false, false), Next::Metric(_, used) if used == text.len()));
    }
}

#[test]
fn the_first_wrong_byte_is_an_error_and_not_the_ones_behind_it() {
    // If the parser waits for more bytes, some continuation must complete the object.
    let text = r#"{"name":"a\/\u0041","value":-0.5e1}"#;
    let whole = [
        text,
        r#"{"value":11,"name":"a"}"#,
        r#"{"n\u0061m\u0065":"\ud800\udc00","value":0}"#,
        r#"{"\u006eame":"\\","v\u0061lue":0}"#,
        r#"{"\u0076al\u0075e":0,"n\u0061\u006de":"a"}"#,
        r#"{"valu\u0065":0,"\u006e\u0061me":"a"}"#,
        r#"{"na\u006de":"a","value":1}"#,
        r#"{"name":"a","\u0076\u0061\u006c\u0075\u0065":1}"#,
        r#"{"\u0076\u0061\u006c\u0075\u0065":0,"\u006e\u0061\u006d\u0065":"a"}"#,
        r#"{"va\u006cue":0.1,"nam\u0065":"\u0ff1"}"#,
    ];
    let ends: Vec<&str> = whole.iter().flat_map(|text| (0..text.len()).map(|at| &text[at..])).collect();
    let tails: [&[u8]; 7] =
        [b"", b"\xa0", b"\x80", b"\x80\x80", b"\x80\x80\x80", b"\xa0\x80", b"\x90\x80\x80"];
    let mut waits = 0;
    for at in 0..text.len() {
        for byte in 0..=255u8 {
            let input = [&text.as_bytes()[..at], &[byte]].concat();
            if !matches!(next(&input, false, false), Next::Partial(_)) {
                continue;
            }
            let can = |tail: &[u8], end: &str| {
                let whole = [&input, tail, end.as_bytes()].concat();
                matches!(next(&whole, false, false), Next::Metric(..))
            };
            let found = tails.iter().any(|tail| ends.iter().any(|end| can(tail, end)));
            // An escape is judged when it is whole. Until then, the parser waits after a
            // backslash in a member's name, and in the escape of a control character in a
            // metric's name.
            let control = input.len() > 10 && input[input.len() - 5..].starts_with(b"\\u00");
            let escape = input.ends_with(b"name\\") || input.ends_with(b"value\\") || control;
            assert!(found || escape, "{:?} waits for nothing", String::from_utf8_lossy(&input));
            waits += 1;
        }
    }
    assert!(waits > 500, "{waits}");
}

#[test]
fn how_the_input_is_cut_into_pieces_changes_nothing() {
    let mut seed = 5;
    let words: [&[u8]; 22] = [
        b"{",
        b"}",
        b"\"name\"",
        b"\"value\"",
        b":",
        b",",
        b"\"x\"",
        b"1",
        b"-0.5e3",
        b"\n",
        b" ",
        b"\\",
        b"\"",
        b"\xc3\xa9",
        b"\xff",
        b"\\u0041",
        b"\\ud83d\\ude00",
        GOOD.as_bytes(),
        GOOD.as_bytes(),
        GOOD.as_bytes(),
        b"{\"name\":\"",
        b"{\"value\":",
    ];
    for _ in 0..20_000 {
        let mut input = Vec::new();
        for _ in 0..random(&mut seed) % 24 {
            input.extend_from_slice(words[random(&mut seed) % words.len()]);
        }
        let whole = all(&input);
        assert_eq!(pieces(&input, 1), whole, "{:?}", String::from_utf8_lossy(&input));
        assert_eq!(pieces(&input, 1 + random(&mut seed) % 9), whole);
    }
}

#[test]
fn any_bytes_are_read_without_loss_and_noise_is_one_error_a_line() {
    let mut seed = 1;
    for _ in 0..100_000 {
        let length = random(&mut seed) % 60;
        let few = random(&mut seed).is_multiple_of(2);
        let bytes: Vec<u8> =
            (0..length)
                .map(|_| {
                    if few { b"{}\":,\\nu0\n \x80e"[random(&mut seed) % 13] } else { random(&mut seed) as u8 }
                })
                .collect();
        let told = all(&bytes);
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        assert!(told.len() <= lines, "{:?}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn what_others_take_for_json_is_the_same_here() {
    let mut seed = 9;
    let (mut good, mut bad) = (0, 0);
    for _ in 0..100_000 {
        let text = [
            GOOD,
            "{\"value\":-1.5e+1,\"name\":\"\\u00e9\\ud83d\\ude00é\"}",
            "{ \"name\" : \"\\\\\" ,\"value\":0}",
        ][random(&mut seed) % 3];
        let mut bytes = text.as_bytes().to_vec();
        for _ in 0..random(&mut seed) % 3 {
            let at = random(&mut seed) % bytes.len();
            let byte = b"{}[]\":,.-+0159eEu\\nvaD \n\t\x7f\xc3\xa9\0x"[random(&mut seed) % 30];
            match random(&mut seed) % 3 {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        let theirs = serde_json::from_slice::<Value>(&bytes);
        let shown = String::from_utf8_lossy(&bytes).into_owned();
        let blanks = bytes.iter().rev().take_while(|byte| is_blank(**byte)).count();
        match next(&bytes, false, true) {
            Next::Metric(metric, used) if used + blanks == bytes.len() => {
                good += 1;
                let theirs = theirs.unwrap_or_else(|error| panic!("{shown}: {error}"));
                assert_eq!(theirs["name"].as_str().unwrap().as_bytes(), &*metric.name, "{shown}");
                let mut line = [0; METRIC_LINE];
                let mut out = Writer::new(&mut line);
                metric.value.emit(&mut out);
                let ours: f64 = std::str::from_utf8(out.as_bytes()).unwrap().parse().unwrap();
                assert!((ours - theirs["value"].as_f64().unwrap()).abs() <= 5e-7_f64.max(ours.abs() * 1e-15));
            }
            _ => {
                bad += 1;
                let Ok(Value::Object(object)) = theirs else { continue };
                let twice = shown.matches(':').count() > 2;
                let known =
                    object.keys().all(|key| ["name", "value"].contains(&key.as_str())) && object.len() == 2;
                let name = object.get("name").and_then(Value::as_str).unwrap_or("");
                let number = object.get("value").is_some_and(|value| value.is_number());
                let large =
                    object.get("value").and_then(Value::as_f64).is_some_and(|value| value.abs() > 1e19);
                let plain = super::name(name.as_bytes()).is_some();
                assert!(!known || !number || !plain || twice || large, "{shown} was refused");
            }
        }
    }
    assert!(good > 20_000 && bad > 20_000, "{good} {bad}");
}

// ----- lines and errors ----------------------------------------------------------

#[test]
fn what_a_client_sends_is_what_is_read() {
    for (text, number) in
        [("cpu", "42.5"), ("\"\\/é😀{}", "-0.000001"), ("error", "18446744073709551615.999999")]
    {
        let mut object = [0; 512];
        let mut out = Writer::new(&mut object);
        push_object(text.as_bytes(), value(number.as_bytes()).unwrap(), &mut out);
        assert_eq!(one(std::str::from_utf8(out.as_bytes()).unwrap()), (text.to_owned(), number.to_owned()));
    }
    for (bytes, why) in
        [(&b""[..], error::NUMBER), (b"1 ", error::NUMBER), (b"1}", error::NUMBER), (b"1e20", error::RANGE)]
    {
        assert_eq!(value(bytes), Err(why));
    }
}

#[test]
fn the_longest_line_fits_and_every_line_is_taken_apart_again() {
    let longest = "x".repeat(64);
    let least = value(b"-18446744073709551615.999999").unwrap();
    for (name, average, count) in [
        (longest.as_str(), least, Some(u64::MAX)),
        ("cpu", Decimal::ZERO, None),
        ("error: x", Decimal::ZERO, Some(1)),
        ("a: avg=1 (n=2)", Decimal::ZERO, None),
        ("a: avg=1", Decimal::ZERO, Some(7)),
        ("no metrics", Decimal::ZERO, None),
    ] {
        let mut line = [0; METRIC_LINE];
        let mut out = Writer::new(&mut line);
        push_line(name.as_bytes(), average, count, &mut out);
        assert!(!out.is_cut());
        let text = out.as_bytes().strip_suffix(b"\n").unwrap();
        let parsed = MetricLine::parse(text).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(parsed.name, name.as_bytes());
        assert_eq!(value(parsed.average), Ok(average));
        assert_eq!(parsed.count, count.map(|count| count.to_string()).unwrap_or_default().as_bytes());
    }
    for line in [
        "",
        "no metrics",
        "cpu",
        ": avg=1",
        "cpu: avg=",
        "cpu: avg=x",
        "a: avg=1 ",
        "a: avg=1 (n=)",
        "a: avg=1 (n=x)",
        "a\u{9b}: avg=1",
    ] {
        assert_eq!(MetricLine::parse(line.as_bytes()), None, "{line}");
    }
}

#[test]
fn no_error_looks_like_a_metric_and_each_is_one_line_that_fits() {
    use error::*;
    for why in [
        OBJECT, MEMBERS, COLON, NAME_TYPE, NAME, STRING, ESCAPE, SURROGATE, NUMBER, RANGE, LONG, CUT, DUMP,
        FULL, SUM, DENIED, BUSY,
    ] {
        let mut line = [0; METRIC_LINE];
        let mut out = Writer::new(&mut line);
        push_error(why, &mut out);
        assert!(!out.is_cut() && out.as_bytes().iter().filter(|byte| **byte < 32).count() == 1);
        assert_eq!(MetricLine::parse(out.as_bytes().strip_suffix(b"\n").unwrap()), None);
    }
}

#[test]
fn a_sample_is_escaped_as_prometheus_wants_it() {
    let line = MetricLine::parse("a\"b\\é: avg=1.5 (n=2)".as_bytes()).unwrap();
    let mut buffer = [0; 128];
    let mut out = Writer::new(&mut buffer);
    line.push_sample("m", line.count, &mut out);
    assert_eq!(out.as_bytes(), "m{name=\"a\\\"b\\\\é\"} 2\n".as_bytes());
}
