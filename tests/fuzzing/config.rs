//! Fuzzes the configuration: the file, one option of the command line, and the file of a program.

use super::{assert_plain, written};
use zigsvc::proto::config::keys::{Keyed, Scalar};
use zigsvc::proto::config::toml::{ConfigError, apply_option, parse};
use zigsvc::proto::config::{Config, Program};
use zigsvc::util::path::Path;

fn base() -> Path {
    Path::new(b"/base").unwrap()
}

/// Returns the defaults of one of the two files.
type Defaults = fn() -> Box<dyn Keyed>;

fn config_defaults() -> Box<Config> {
    let mut config = Box::new(Config::EMPTY);
    config.reset(&base());
    config
}

fn defaults() -> Box<dyn Keyed> {
    config_defaults()
}

fn program_defaults() -> Box<dyn Keyed> {
    let mut program = Box::new(Program::EMPTY);
    program.reset();
    program
}

/// Returns each key and its value, as `zigsvc check` prints them.
fn effective(config: &mut dyn Keyed) -> Vec<(&'static str, Vec<u8>)> {
    config.keys().iter().map(|key| (key.name, written(16_384, |out| key.emit(config, out)))).collect()
}

/// Checks that the error is one plain line of bounded length, with a line number of the
/// source.
fn judge_error(error: &ConfigError<'_>, source: &[u8]) {
    let lines = source.iter().filter(|byte| **byte == b'\n').count() + 1;
    assert!(error.line as usize <= lines, "{error:?}");
    let text = written(1024, |out| error.describe(out));
    assert!(!text.is_empty() && text.len() < 400, "{error:?}");
    assert_plain(&text);
}

/// Returns the values that another parser of TOML reads, stored by the same rules.
fn through_toml(source: &str, defaults: Defaults) -> Box<dyn Keyed> {
    let table: toml::Table = source.parse().unwrap_or_else(|error| panic!("no TOML: {source:?}: {error}"));
    let mut config = defaults();
    for (name, value) in &table {
        let key = config.keys().iter().find(|key| key.name == name).expect("a key that was accepted");
        key.clear(&mut *config);
        let single = [value.clone()];
        let items = value.as_array().map_or(&single[..], Vec::as_slice);
        for item in items {
            let scalar = match item {
                toml::Value::String(text) => Scalar::Text(text.as_bytes()),
                toml::Value::Integer(number) => Scalar::Integer(u64::try_from(*number).unwrap()),
                toml::Value::Boolean(flag) => Scalar::Boolean(*flag),
                other => panic!("accepted, but {other:?}"),
            };
            key.set(&mut *config, &base(), scalar).unwrap_or_else(|| panic!("{name}: {item:?}"));
        }
    }
    config
}

/// Checks that an accepted file is TOML with the same values, and that the printed values are
/// read as they were.
pub fn file(data: &[u8]) {
    judge_file(data, defaults);
}

/// Checks the same of the file of a program.
pub fn program(data: &[u8]) {
    judge_file(data, program_defaults);
}

fn judge_file(data: &[u8], defaults: Defaults) {
    let mut config = defaults();
    if let Err(error) = parse(data, &mut *config, &base()) {
        assert!(error.line >= 1);
        return judge_error(&error, data);
    }
    let text = core::str::from_utf8(data).expect("accepted, but not UTF-8");
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let shown = effective(&mut *config);
    assert_eq!(effective(&mut *through_toml(text, defaults)), shown, "{text:?}");
    assert_eq!(effective(&mut *read_back(&shown, defaults)), shown, "{text:?}");
}

/// Parses the values that `check` prints. Empty ones are left out, because not each key
/// accepts an empty value.
fn read_back(shown: &[(&'static str, Vec<u8>)], defaults: Defaults) -> Box<dyn Keyed> {
    let mut printed = Vec::new();
    for (name, value) in shown.iter().filter(|(_, value)| value != b"\"\"") {
        printed.extend([name.as_bytes(), b" = ", value, b"\n"].concat());
    }
    let mut again = defaults();
    let result = parse(&printed, &mut *again, &base());
    assert!(result.is_ok(), "{result:?}: {}", printed.escape_ascii());
    again
}

/// Checks that `-o` accepts each value that the file accepts, with the same result.
pub fn option(data: &[u8]) {
    let mut config = config_defaults();
    let result = apply_option(data, &mut config, &base());
    if let Err(error) = &result {
        assert_eq!(error.line, 0);
        judge_error(error, data);
    }
    let mut from_file = defaults();
    let one_line = !data.iter().any(|byte| matches!(byte, b'\n' | b'\r' | b'#'));
    let is_file = one_line && parse(data, &mut *from_file, &base()).is_ok();
    if is_file && data.contains(&b'=') && !data.starts_with(b"\xef\xbb\xbf") {
        assert!(result.is_ok(), "{result:?}: {}", data.escape_ascii());
        assert_eq!(effective(&mut *config), effective(&mut *from_file), "{}", data.escape_ascii());
    }
    if result.is_ok() {
        let shown = effective(&mut *config);
        assert!(apply_option(data, &mut config, &base()).is_ok());
        assert_eq!(effective(&mut *config), shown, "twice is once: {}", data.escape_ascii());
        // A path may hold any bytes. TOML cannot express bytes that are not UTF-8, so they are
        // printed as U+FFFD.
        if core::str::from_utf8(data).is_ok() {
            assert_eq!(effective(&mut *read_back(&shown, defaults)), shown, "{}", data.escape_ascii());
        }
    }
}
