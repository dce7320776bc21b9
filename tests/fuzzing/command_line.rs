//! Fuzzes the command line: words with a NUL between them.

use super::{assert_plain, written};
use std::ffi::CString;
use zigsvc::cli::COMMANDS;
use zigsvc::cli::command_line::{CommandLine, Options};
use zigsvc::proto::service::is_program_name;
use zigsvc::sys::args::Args;

type Word = Vec<u8>;

/// The parts of a command line.
#[derive(PartialEq, Eq, Debug)]
struct Said {
    /// The options `-c`, `-d` and `-o` with their values. Of several `-c` or `-d`, the last
    /// one counts.
    before: Vec<(Word, Word)>,
    command: &'static str,
    options: Vec<(Word, Option<Word>)>,
    /// The word that names a service, and the name of the service in use.
    service: (Option<Word>, &'static str),
    literal: bool,
    words: Vec<Word>,
}

/// Parses a command line. Fails with the text of the error.
#[expect(unsafe_code, reason = "arguments are for the life of a process")]
fn read(words: &[Word]) -> Result<Said, String> {
    let strings: Vec<CString> = words.iter().map(|word| CString::new(&word[..]).unwrap()).collect();
    let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
    pointers.push(core::ptr::null());
    // SAFETY: the strings are terminated and a null pointer ends the list. They live until the
    // end of this function, and nothing that refers to them leaves it.
    let argv = unsafe { core::slice::from_raw_parts_mut(pointers.as_mut_ptr(), pointers.len()) };
    // SAFETY: as above.
    let args = unsafe { Args::from_words(argv) };
    let (mut line, mut global) = (None, Options::default());
    let text = written(500, |out| line = Some(CommandLine::parse(&COMMANDS, &args, &mut global, out)));
    let line = line.expect("it was parsed").map_err(|error| {
        assert!(error.command.is_empty() || COMMANDS.iter().any(|known| known.name == error.command));
        assert_plain(&text);
        assert!((10..500).contains(&text.len()));
        String::from_utf8_lossy(&text).into_owned()
    })?;
    let (config, folder) = (global.config.map(|word| (b"-c", word)), global.folder);
    let single = config.into_iter().chain(folder.map(|word| (b"-d", word)));
    let before = single.chain(global.overrides.iter().map(|word| (b"-o", *word)));
    let valued = |name: &str| line.command.options().any(|(known, value)| known == name && !value.is_empty());
    let options = line.operands.options().map(|(name, value)| {
        assert_eq!(value.is_some(), valued(name), "{name}");
        (name.as_bytes().to_vec(), value.map(<[u8]>::to_vec))
    });
    Ok(Said {
        before: before.map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
        command: line.command.name,
        options: options.collect(),
        service: (line.operands.service.map(<[u8]>::to_vec), line.service.name()),
        literal: line.operands.literal,
        words: (0..).map_while(|at| line.operands.get(at)).map(<[u8]>::to_vec).collect(),
    })
}

/// Returns a command line with these parts. Values follow their options as words of their own,
/// or are `attached`.
fn spell(said: &Said, attached: bool) -> Vec<Word> {
    let mut words = vec![b"zigsvc".to_vec()];
    let option = |words: &mut Vec<Word>, name: &[u8], value: Option<&[u8]>| match value {
        Some(value) if attached && name.len() == 2 && !value.is_empty() => words.push([name, value].concat()),
        value => words.extend([Some(name), value].into_iter().flatten().map(<[u8]>::to_vec)),
    };
    for (name, value) in &said.before {
        option(&mut words, name, Some(value));
    }
    words.push(said.command.into());
    for (name, value) in &said.options {
        option(&mut words, name, value.as_deref());
    }
    words.extend(said.service.0.clone());
    words.extend(said.literal.then(|| b"--".to_vec()));
    words.extend(said.words.iter().cloned());
    words
}

/// Checks that a command line is parsed, or that one plain line gives the reason. The parts,
/// spelled in another way, are parsed to the same parts. The operands are the last words of
/// the command line, unchanged.
pub fn command_line(data: &[u8]) {
    let given: Vec<Word> = data.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    let Ok(said) = read(&given) else { return };
    // Options may stand between operands and after them.
    let mut rest = given.iter();
    assert!(said.words.iter().all(|word| rest.any(|other| other == word)), "{said:?}");
    let command = COMMANDS.iter().find(|known| known.name == said.command).expect("a command");
    let knows = |name: &[u8]| command.options().any(|(known, _)| known.as_bytes() == name);
    assert!(said.options.iter().all(|(name, _)| knows(name)), "an option of another command: {said:?}");
    if let (Some(word), service) = &said.service {
        // A program is the supervisor's.
        let expected = if is_program_name(word) { &b"supervisor"[..] } else { &word[..] };
        assert_eq!(expected, service.as_bytes());
    }
    let is_program = said.literal && ["start", "run"].contains(&said.command);
    assert!(!command.args.ends_with("[SERVICE]") || said.words.is_empty() || is_program, "{said:?}");
    for attached in [false, true] {
        assert_eq!(read(&spell(&said, attached)).as_ref(), Ok(&said));
    }
    // With one more word, there is one more operand, the name of a program, an error, or another
    // command.
    let more = [&given[..], &[b"more".to_vec()]].concat();
    if let Ok(more) = read(&more) {
        let added = more.words.len() == said.words.len() + 1 && more.words.ends_with(&[b"more".to_vec()]);
        let is_named = more.service.0.as_deref() == Some(b"more") && said.service.0.is_none();
        // The words after `--help` do not matter.
        let helps = given.iter().any(|word| word == b"--help" || word == b"-h");
        assert!(added || is_named || helps || more.command != said.command, "{said:?} {more:?}");
    }
}
