use super::keys::{KEYS, Key, KeyKind};
use super::toml::{Problem, apply_option, parse};
use super::*;
use crate::limits::{LOG_MAX_BYTES, METRICS_NAME_MAX_BYTES, PATH_MAX_BYTES};
use crate::proto::log::Level;
use crate::util::text::Writer;

/// Returns the folder of the defaults.
fn folder() -> Path {
    Path::new(b"/d").unwrap()
}

fn defaults() -> Config {
    let mut config = Config::EMPTY;
    assert!(config.reset(&folder()));
    config
}

fn base() -> Path {
    Path::new(b"/base").unwrap()
}

fn parsed(source: &str) -> Result<Config, (u32, String)> {
    parsed_bytes(source.as_bytes())
}

fn parsed_bytes(source: &[u8]) -> Result<Config, (u32, String)> {
    let mut config = defaults();
    match parse(source, &mut config, &base()) {
        Ok(()) => Ok(config),
        Err(error) => {
            let mut buffer = [0; 300];
            let mut out = Writer::new(&mut buffer);
            error.describe(&mut out);
            assert!(!out.is_cut() && !out.is_empty());
            Err((error.line, String::from_utf8(out.as_bytes().to_vec()).unwrap()))
        }
    }
}

fn emitted(config: &mut Config) -> String {
    let mut text = String::new();
    for key in KEYS {
        let mut buffer = [0; 4096];
        let mut out = Writer::new(&mut buffer);
        key.emit(config, &mut out);
        text.push_str(&format!("{} = {}\n", key.name, core::str::from_utf8(out.as_bytes()).unwrap()));
    }
    text
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let config = parsed("").unwrap();
    assert_eq!((config.interval.as_ms(), config.workers, config.retries), (3000, 1, 2));
    assert_eq!((config.log_max, config.log_keep, config.queue_max), (LOG_MAX_BYTES, 1, 10_000));
    assert_eq!(config.pid_file.as_bytes(), b"/d/zigsvc.pid");
    assert_eq!(&config.metrics_name[..], b"zigsvc-metrics:/d");
    assert_eq!(config.handler(), Handler::Log);
    assert!(config.sync_always() && !config.syslog && !config.log_file_named);
}

#[test]
fn every_kind_of_value_is_read() {
    let config = parsed(
        "# a comment\n\
         interval = \"250ms\" # another\r\n\
         workers=8\n\
         \t syslog = true\n\
         log_max = \"64k\"\n\
         log_level = 'debug'\n\
         handler = \"bin/do\"\n\
         log_file = \"/var/log/x\\u00e9.log\"\n\
         allow_uid = [\n  \"www\", # web\n  1000,\n]\n\
         allow_gid = 'staff'\n\
         supervise = [\"hub\", \"jobs\"]\n\
         queue_max = 1_000_000\n\
         allow = [\"/etc/passwd\"]\n\
         watchdog = \"\"",
    )
    .unwrap();
    assert_eq!((config.interval.as_ms(), config.workers, config.syslog), (250, 8, true));
    assert_eq!((config.log_max, config.log_level, config.queue_max), (65_536, Level::Debug, 1_000_000));
    assert_eq!(config.handler.as_bytes(), b"/base/bin/do");
    assert_eq!(config.log_file.as_bytes(), "/var/log/xé.log".as_bytes());
    assert!(config.log_file_named);
    assert_eq!(config.allow_uid.iter().map(|name| &name[..]).collect::<Vec<_>>(), [&b"www"[..], b"1000"]);
    assert_eq!(config.allow_gid.len(), 1);
    assert_eq!(config.supervised().collect::<Vec<_>>(), [&b"hub"[..], b"jobs"]);
    assert_eq!(&config.allow[..], b"/etc/passwd\0");
}

#[test]
fn what_check_prints_means_the_same_to_us_and_to_a_toml_parser() {
    let mut config =
        parsed("handler = '/x \"y\"'\nallow_uid = ['a', 'b']\njob_timeout = '90s'\nlog_max = 1_000\n")
            .unwrap();
    let text = emitted(&mut config);
    let table: ::toml::Table = text.parse().unwrap();
    assert_eq!(table.len(), KEYS.len());
    assert_eq!(table["handler"].as_str(), Some("/x \"y\""));
    assert_eq!(table["job_timeout"].as_str(), Some("90s"));
    assert_eq!(table["supervise"].as_array().unwrap().len(), 1);
    assert_eq!(emitted(&mut parsed(&text).unwrap()), text);
}

#[test]
fn a_handler_can_be_an_array_of_a_program_and_words() {
    let mut config = parsed("handler = [\"/bin/do\", '--', \"a,b\"]\nworkers = 2").unwrap();
    assert_eq!(config.handler.as_bytes(), b"/bin/do");
    assert_eq!(&config.handler_words[..], b"--\0a,b\0");
    let text = emitted(&mut config);
    assert!(text.contains("handler = [\"/bin/do\", \"--\", \"a,b\"]"), "{text}");
    assert_eq!(emitted(&mut parsed(&text).unwrap()), text);
    let base = Path::new(b"/base").unwrap();
    apply_option(b"handler=[\"/bin/other\", \"--\"]", &mut config, &base).unwrap();
    assert_eq!((config.handler.as_bytes(), &config.handler_words[..]), (&b"/bin/other"[..], &b"--\0"[..]));
    // A value with a comma is a path, and replaces the words too.
    apply_option(b"handler=bin/a,b", &mut config, &base).unwrap();
    assert_eq!((config.handler.as_bytes(), config.handler_words.len()), (&b"/base/bin/a,b"[..], 0));
    let nine = ["\"w\""; 9].join(",");
    assert!(parsed(&format!("handler = [\"/bin/do\", {nine}]")).is_err());
    assert!(parsed(&format!("handler = [\"/bin/do\", \"{}\"]", "w".repeat(128))).is_err());
}

#[test]
fn errors_name_the_line_and_what_is_allowed() {
    for (source, line, text) in [
        ("\n\ncolour = 1", 3, "unknown key \"colour\""),
        ("workers = 9", 1, "workers must be a number from 1 to 8"),
        ("workers = 0", 1, "workers must be"),
        ("workers = \"2\"", 1, "workers must be"),
        ("workers = [2]", 1, "workers must be"),
        ("interval = \"99ms\"", 1, "interval must be a duration from 100ms to 24h"),
        ("interval = \"3\"", 1, "with a unit"),
        ("interval = 3", 1, "interval must be"),
        ("log_keep = 100", 1, "a number from 1 to 99"),
        ("log_level = \"loud\"", 1, "one of \"debug\" \"info\" \"warn\" \"error\""),
        ("syslog = \"yes\"", 1, "syslog must be true or false"),
        ("syslog = yes", 1, "text needs quotes"),
        ("handler = []", 1, "handler must be"),
        ("handler = [\"bin/do\", \"--\"]", 1, "handler must be"),
        ("handler = [\"shell\", \"-x\"]", 1, "handler must be"),
        ("handler = [\"/bin/do\", \"\"]", 1, "handler must be"),
        ("handler = [\"/bin/do\", 1]", 1, "handler must be"),
        ("handler = \"foo\"", 1, "handler must be log, shell, or the path"),
        ("spool = \"\"", 1, "spool must be a path"),
        ("supervise = [\"jobs\", \"jobs\"]", 1, "each once"),
        ("supervise = [\"supervisor\"]", 1, "supervise must be"),
        ("workers = 1\n\nworkers = 2", 3, "workers is given twice"),
        ("[table]", 1, "tables"),
        ("workers", 1, "expected ="),
        ("workers = ", 1, "expected a value"),
        ("workers = 1 2", 1, "only a comment may follow"),
        ("workers = 1.5", 1, "whole, decimal"),
        ("workers = 01", 1, "whole, decimal"),
        ("workers = -1", 1, "not negative"),
        ("workers = 1__0", 1, "whole, decimal"),
        ("handler = \"log", 1, "must end with its quote"),
        ("handler = \"log\nworkers = 1", 1, "must end with its quote"),
        ("handler = \"\"\"log\"\"\"", 1, "handler must be"),
        ("handler = \"\\q\"", 1, "unknown escape"),
        ("handler = \"\\ud800/\"", 1, "unknown escape"),
        ("spool = \"\\u0000\"", 1, "spool must be"),
        ("allow = [\"/a\" \"/b\"]", 1, "expected , or ]"),
        ("allow = [\"relative\"]", 1, "allow must be"),
        ("allow = [\"/a\\nb\"]", 1, "allow must be"),
        ("allow = [\"/a\",\n", 2, "expected a value"),
        ("user = \"a b\"", 1, "user must be"),
        ("# \x07", 1, "control characters"),
    ] {
        let (at, message) = parsed(source).expect_err(source);
        assert!(at == line && message.contains(text), "{source:?}: {at}: {message}");
    }
}

#[test]
fn binary_files_and_long_values_are_refused_with_their_line() {
    assert_eq!(parsed_bytes(b"workers = 1\n\xff\xfe").unwrap_err().0, 2);
    assert_eq!(parsed_bytes(b"workers = 1\n\0").unwrap_err().0, 2);
    let long = format!("spool = \"/{}\"", "x".repeat(300));
    assert!(parsed(&long).unwrap_err().1.contains("255"));
}

#[test]
fn options_take_bare_values_lists_and_toml() {
    let mut config = defaults();
    for option in [
        "workers=4",
        "handler=shell",
        "allow_uid=0, 1000",
        "allow_gid=['a','b']",
        "log_max=1k",
        "syslog=true",
    ] {
        apply_option(option.as_bytes(), &mut config, &base()).unwrap();
    }
    assert_eq!((config.workers, config.log_max, config.syslog), (4, 1024, true));
    assert_eq!(config.handler(), Handler::Shell);
    assert_eq!((config.allow_uid.len(), config.allow_gid.len()), (2, 2));
    for bad in
        ["workers", "workers=", "workers=99", "colour=1", "interval=3", "allow=x", "=1", "workers=\"4\""]
    {
        assert_eq!(apply_option(bad.as_bytes(), &mut config, &base()).expect_err(bad).line, 0);
    }
}

#[test]
fn a_later_list_replaces_an_earlier_one() {
    let mut config = parsed("allow_uid = ['a', 'b', 'c']").unwrap();
    apply_option(b"allow_uid=d", &mut config, &base()).unwrap();
    assert_eq!(config.allow_uid.len(), 1);
}

#[test]
fn every_key_accepts_its_own_default_and_describes_itself() {
    let mut config = defaults();
    let text = emitted(&mut config);
    for line in text.lines() {
        parsed(line).unwrap_or_else(|error| panic!("{line}: {error:?}"));
    }
    for (index, key) in KEYS.iter().enumerate() {
        let mut buffer = [0; 200];
        let mut out = Writer::new(&mut buffer);
        key.describe(&mut out);
        assert!(!out.is_empty() && !out.is_cut(), "{}", key.name);
        assert_eq!(Key::named(key.name.as_bytes()).unwrap().0, index);
    }
    assert!(KEYS.len() <= 64, "the set of seen keys is a u64");
}

/// Returns a valid value of `key`. Of the values for two choices, one differs from the
/// default.
fn another(key: &Key, choice: usize) -> String {
    match key.kind {
        KeyKind::File(_) | KeyKind::Handler | KeyKind::Device | KeyKind::Paths(_) => "/another".to_owned(),
        KeyKind::Size => "77".to_owned(),
        KeyKind::Duration(_, high, _) => format!("{high}ms"),
        KeyKind::Count(_, high) => high.to_string(),
        KeyKind::Choice(names) => names().get(choice % names().len()).to_owned(),
        KeyKind::Flag => "true".to_owned(),
        KeyKind::Account | KeyKind::Accounts | KeyKind::Abstract => "another".to_owned(),
        KeyKind::Names => "hub".to_owned(),
        KeyKind::Command | KeyKind::LogFile => "/another".to_owned(),
        KeyKind::Variables => "A=b".to_owned(),
        KeyKind::Octal => "077".to_owned(),
        KeyKind::Signal(_) => "HUP".to_owned(),
    }
}

#[test]
fn every_key_goes_back_to_its_default_when_it_is_not_named_any_more() {
    let fresh = emitted(&mut defaults());
    for key in KEYS {
        let mut config = defaults();
        for choice in 0..2 {
            if emitted(&mut config) == fresh {
                let option = format!("{}={}", key.name, another(key, choice));
                assert!(apply_option(option.as_bytes(), &mut config, &base()).is_ok(), "{option}");
            }
        }
        assert_ne!(emitted(&mut config), fresh, "{}: no other value", key.name);
        assert!(config.reset(&folder()));
        assert_eq!(emitted(&mut config), fresh, "{}", key.name);
        assert!(!config.log_file_named, "{}", key.name);
    }
}

#[test]
fn without_a_folder_the_defaults_are_the_places_of_the_system() {
    let mut config = Config::EMPTY;
    assert!(config.reset(&Path::empty()));
    let text = emitted(&mut config);
    for line in [
        "pid_file = \"/run/zigsvc.pid\"\n",
        "queue_file = \"/var/spool/zigsvc/queue\"\n",
        "metrics_name = \"zigsvc-metrics\"\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn a_folder_is_too_long_if_the_longest_name_does_not_fit() {
    let mut config = Config::EMPTY;
    let longest = PATH_MAX_BYTES - "/zigsvc.health".len();
    let path = |length: usize| Path::new(format!("/{}", "x".repeat(length - 1)).as_bytes()).unwrap();
    assert!(config.reset(&path(longest)));
    assert_eq!(config.metrics_name.len(), METRICS_NAME_MAX_BYTES);
    assert!(config.metrics_name.starts_with(b"zigsvc-metrics:xxx"));
    assert!(!config.reset(&path(longest + 1)));
}

#[test]
fn keys_that_need_a_restart_keep_their_values_and_no_others() {
    for key in KEYS {
        let (mut old, mut new) = (defaults(), defaults());
        for choice in 0..2 {
            let option = format!("{}={}", key.name, another(key, choice));
            if emitted(&mut new) == emitted(&mut old) {
                apply_option(option.as_bytes(), &mut new, &base()).unwrap();
            }
        }
        let changed = emitted(&mut new);
        new.keep_fixed(&old);
        let expected = if key.reloadable { changed } else { emitted(&mut old) };
        assert_eq!(emitted(&mut new), expected, "{}", key.name);
    }
}

#[test]
fn every_truncation_of_a_file_parses_or_fails_cleanly() {
    let source = emitted(&mut defaults());
    for end in 0..source.len() {
        let _ = parsed(&source[..end]);
    }
}

#[test]
fn random_files_never_panic() {
    let pieces = [
        "workers", " = ", "\"", "'", "\\u00", "[", "]", ",", "\n", "#", "1", "0_", "handler", "\r", "é",
        "true",
    ];
    let mut seed = 7u64;
    for _ in 0..100_000 {
        let mut source = String::new();
        for _ in 0..12 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            source.push_str(pieces[(seed >> 33) as usize % pieces.len()]);
        }
        if let (Ok(_), Err(error)) = (parsed(&source), source.parse::<::toml::Table>()) {
            panic!("accepted, but not TOML: {source:?}: {error}");
        }
    }
}

#[test]
fn unknown_keys_are_quoted_without_control_bytes() {
    let problem = Problem::UnknownKey(b"a\x1b[1m");
    let mut buffer = [0; 200];
    let mut out = Writer::new(&mut buffer);
    super::toml::ConfigError { line: 1, problem }.describe(&mut out);
    assert!(!out.as_bytes().contains(&0x1b));
}
