//! The fuzzers' targets on stable Rust: first each file of their corpus, then
//! seeded random changes of those. The real fuzzers, which are led by what the
//! code does, are `fuzz/run`; what they find becomes a file of the corpus.
//!
//! `ZIGSVC_FUZZ_TIMES` multiplies the executions, `ZIGSVC_SEED` begins with
//! another seed. A failure prints the input.

#[path = "../../fuzzing/mod.rs"]
mod fuzzing;

use crate::support::random::Random;
use crate::support::setting;
use fuzzing::{TARGETS, Target};
use std::fs;
use std::path::PathBuf;

/// Words of the formats, which chance would not find.
const TOKENS: &[&[u8]] = &[
    b"\n",
    b"\r\n",
    b"=",
    b" = ",
    b"\"",
    b"'",
    b"[",
    b"]",
    b"#",
    b"\\u0041",
    b"\0",
    b"\xff",
    b"\xc2\x85",
    b"\x1b",
    b"seq=",
    b"dead",
    b"workers",
    b"handler",
    b"allow",
    b"log_max",
    b"99999999999999999999",
    b"-",
    b":",
    b",",
    b"\x5a\xa5",
    b"zigsvc-journal 1\n",
    b"\xfe",
    b"10s",
    b"true",
    b"1_0",
];

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzzing/corpus").join(name);
    let mut files: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
    files.sort_by_key(fs::DirEntry::file_name);
    files.iter().map(|file| fs::read(file.path()).unwrap()).collect()
}

/// Returns one of the inputs, changed a little.
fn changed(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = corpus[random.index(corpus.len())].clone();
    for _ in 0..=random.index(6) {
        let at = random.index(bytes.len() + 1);
        let end = bytes.len().min(at + 1 + random.index(16));
        let noise = |random: &mut Random| (0..random.index(24)).map(|_| random.byte()).collect();
        let new: Vec<u8> = match random.index(7) {
            0 => vec![random.byte()],
            1 => TOKENS[random.index(TOKENS.len())].to_vec(),
            2 => noise(random),
            3 => {
                let other = &corpus[random.index(corpus.len())];
                other[random.index(other.len())..].iter().take(64).copied().collect()
            }
            4 => bytes[at..end].repeat(2),
            5 => bytes[at..end].iter().map(|byte| byte ^ (1 << random.index(8))).collect(),
            _ => Vec::new(),
        };
        let instead = if random.index(2) == 0 { at..at } else { at..end };
        bytes.splice(instead, new);
    }
    bytes.truncate(4096);
    bytes
}

/// Prints the input of an execution that fails.
struct Input<'a>(&'a str, &'a [u8]);

impl Drop for Input<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}: b\"{}\"", self.0, self.1.escape_ascii());
        }
    }
}

fn test(name: &str) {
    let target: &Target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let corpus = corpus(name);
    assert!(!corpus.is_empty(), "no corpus for {name}");
    let execute = |bytes: &[u8]| {
        let _input = Input(name, bytes);
        (target.run)(bytes);
    };
    corpus.iter().for_each(|bytes| execute(bytes));
    execute(b"");
    let mut random = Random::new(setting("ZIGSVC_SEED", 7));
    for _ in 0..u64::from(target.runs) * setting("ZIGSVC_FUZZ_TIMES", 1) {
        execute(&changed(&corpus, &mut random));
    }
}

macro_rules! tests {
    ($($name:ident = $module:ident::$function:ident, $runs:expr;)*) => {
        $(
            #[test]
            fn $name() {
                test(stringify!($name));
            }
        )*
    };
}

crate::each_target!(tests);
