use super::keys::{PROGRAM_KEYS, Scalar};
use super::toml::parse;
use super::*;
use crate::limits::{COMMAND_WORDS_BYTES, COMMAND_WORDS_MAX};
#[cfg(any(feature = "supervisor", not(feature = "sys")))]
use crate::proto::service::{BUILT_IN, Service};
use crate::util::text::Writer;

fn parsed(source: &str) -> Result<Box<Program>, (u32, String)> {
    let mut program = Box::new(Program::EMPTY);
    program.reset();
    match parse(source.as_bytes(), &mut *program, &Path::new(b"/base").unwrap()) {
        Ok(()) => Ok(program),
        Err(error) => {
            let mut buffer = [0; 512];
            let mut out = Writer::new(&mut buffer);
            error.describe(&mut out);
            assert!(!out.is_cut() && !out.is_empty());
            Err((error.line, String::from_utf8(out.as_bytes().to_vec()).unwrap()))
        }
    }
}

fn emitted(program: &mut Program) -> String {
    let mut text = String::new();
    for key in PROGRAM_KEYS {
        let mut buffer = [0; 8192];
        let mut out = Writer::new(&mut buffer);
        key.emit(program, &mut out);
        text.push_str(&format!("{} = {}\n", key.name, core::str::from_utf8(out.as_bytes()).unwrap()));
    }
    text
}

fn texts<'a>(words: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    words.map(|word| String::from_utf8(word.to_vec()).unwrap()).collect()
}

#[test]
fn every_key_of_a_program_is_read() {
    let source = "command = [\"/bin/x\", \"\", 'a b', \"-c\"]\nuser = \"www\"\ngroup = 7\n\
        folder = \"/srv\"\nenv = [\"A=b=c\", \"E=\"]\numask = \"077\"\nopen_files = 64\n\
        log_file = \"null\"\nlog_max = \"1m\"\nlog_keep = 9\nlog_time = \"none\"\n\
        after = [\"first\", \"x.y\"]\nready = \"fd\"\nstart_timeout = \"5s\"\nrestart = \"failure\"\n\
        stop_signal = \"INT\"\nstop_timeout = \"1s\"\nreload_signal = \"HUP\"\n\
        health_file = \"alive\"\nstale_after = \"9s\"\n";
    let mut program = parsed(source).unwrap();
    assert_eq!(texts(program.words()), ["/bin/x", "", "a b", "-c"]);
    assert_eq!((&program.user[..], &program.group[..]), (&b"www"[..], &b"7"[..]));
    assert_eq!(texts(program.variables()), ["A=b=c", "E="]);
    assert_eq!((program.umask, program.open_files, program.has_no_log()), (0o77, 64, true));
    assert_eq!((program.log_max, program.log_keep), (1 << 20, 9));
    assert_eq!(texts(program.after()), ["first", "x.y"]);
    assert_eq!(program.ready(), ReadyMode::Fd);
    assert_eq!(program.restart(), RestartMode::Failure);
    assert_eq!((program.stop_signal, program.reload_signal), (2, 1));
    assert_eq!(program.health_file.as_bytes(), b"/base/alive");
    assert_eq!((program.line_of("command"), program.line_of("after")), (1, 12));
    // The output of `check` has the same meaning, also for a parser of TOML.
    let text = emitted(&mut program);
    let table: ::toml::Table = text.parse().unwrap();
    assert_eq!(table.len(), PROGRAM_KEYS.len());
    assert_eq!(table["umask"].as_str(), Some("077"));
    assert_eq!(emitted(&mut parsed(&text).unwrap()), text);
}

#[test]
fn the_defaults_are_those_of_the_documents() {
    let mut program = parsed("").unwrap();
    assert_eq!(
        emitted(&mut program),
        "command = []\nuser = \"\"\ngroup = \"\"\nfolder = \"/\"\nenv = []\numask = \"022\"\nopen_files = 0\n\
         log_file = \"\"\nlog_max = \"10000\"\nlog_keep = 1\nlog_time = \"iso\"\nafter = []\n\
         ready = \"start\"\nstart_timeout = \"1m\"\nrestart = \"always\"\nstop_signal = \"TERM\"\n\
         stop_timeout = \"10s\"\nreload_signal = \"\"\nhealth_file = \"\"\nstale_after = \"15s\"\n"
    );
    // A second file leaves nothing of the first.
    let mut used =
        parsed("command = [\"/a\"]\nenv = [\"A=b\"]\nlog_file = \"/x\"\nafter = [\"first\"]").unwrap();
    used.reset();
    assert_eq!(emitted(&mut used), emitted(&mut program));
    assert_eq!(used.line_of("command"), 1);
}

#[test]
fn a_value_that_is_not_allowed_names_its_line_and_what_is() {
    for (source, text) in [
        ("command = \"bin/x\"", "command must be an absolute path and its arguments"),
        ("command = [\"sh\"]", "command must be"),
        ("command = [\"\"]", "command must be"),
        ("command = [\"/bin/x\", 1]", "command must be"),
        ("command = [\"/bin/x\", \"\\u0000\"]", "command must be"),
        ("folder = \"\"", "folder must be a path"),
        ("env = [\"A\"]", "env must be an array of at most 32 variables \"KEY=VALUE\""),
        ("env = [\"=b\"]", "env must be"),
        ("umask = 22", "umask must be three octal digits"),
        ("umask = \"22\"", "umask must be"),
        ("umask = \"+22\"", "umask must be"),
        ("umask = \"028\"", "umask must be"),
        ("umask = \"1777\"", "umask must be"),
        ("log_file = \"\"", "log_file must be \"null\", or a path"),
        ("after = [\"Jobs\"]", "after must be an array of"),
        ("after = [\"supervisor\"]", "after must be"),
        ("after = [\"a\", \"a\"]", "after must be"),
        ("after = [\"start\"]", "after must be"),
        ("ready = \"soon\"", "ready must be one of \"start\" \"fd\" \"notify\""),
        ("restart = true", "restart must be one of \"always\" \"failure\" \"never\""),
        ("stop_signal = \"term\"", "stop_signal must be the name of a signal"),
        ("stop_signal = \"\"", "stop_signal must be"),
        ("reload_signal = 1", "reload_signal must be"),
        ("start_timeout = \"0\"", "start_timeout must be a duration"),
        ("log_max = \"1g\"", "log_max must be bytes"),
        ("workers = 1", "unknown key \"workers\"; a program has command user group"),
        ("umask = \"022\"\numask = \"022\"", "umask is given twice"),
    ] {
        let (line, error) = parsed(source).expect_err(source);
        assert_eq!(line, source.matches('\n').count() as u32 + 1, "{source}");
        assert!(error.starts_with(text), "{source}: {error}");
    }
}

#[test]
fn a_command_has_as_many_words_and_bytes_as_the_limits_say() {
    let command = |words: &[String]| format!("command = {words:?}");
    let words = |count: usize| (0..count).map(|_| "/x".to_owned()).collect::<Vec<_>>();
    assert!(parsed(&command(&words(COMMAND_WORDS_MAX))).is_ok());
    assert!(parsed(&command(&words(COMMAND_WORDS_MAX + 1))).is_err());
    let long = |bytes: usize| command(&["/x".to_owned(), "y".repeat(bytes - 2)]);
    let program = parsed(&long(COMMAND_WORDS_BYTES)).unwrap();
    assert_eq!(program.words().map(<[u8]>::len).sum::<usize>(), COMMAND_WORDS_BYTES);
    assert!(parsed(&long(COMMAND_WORDS_BYTES + 1)).is_err());
    // As many words as there can be fill the memory to the last byte.
    let mut most = words(COMMAND_WORDS_MAX);
    most[1] = "y".repeat(COMMAND_WORDS_BYTES - 2 * (COMMAND_WORDS_MAX - 1));
    let program = parsed(&command(&most)).unwrap();
    assert!(program.command.is_full());
    assert_eq!(program.words().count(), COMMAND_WORDS_MAX);
    // The path has its own limit.
    assert!(parsed(&command(&[format!("/{}", "x".repeat(crate::limits::PATH_MAX_BYTES))])).is_err());
}

#[cfg(any(feature = "supervisor", not(feature = "sys")))]
#[test]
fn supervise_takes_each_service_and_as_many_programs_as_the_limit_says() {
    let mut config = Box::new(Config::EMPTY);
    config.reset(&Path::new(b"/d").unwrap());
    let key = super::keys::Key::named(b"supervise").unwrap().1;
    key.clear(&mut *config);
    let mut set = |name: &str| key.set(&mut *config, &Path::empty(), Scalar::Text(name.as_bytes())).is_some();
    for number in 0..crate::limits::PROGRAMS_MAX {
        assert!(set(&format!("{number:032}")));
    }
    assert!(!set("one-more"));
    let services = || BUILT_IN.iter().filter(|service| **service != Service::Supervisor);
    assert!(services().all(|service| set(service.name()) && !set(service.name())));
    assert_eq!(config.supervised().count(), crate::limits::PROGRAMS_MAX + services().count());
}
