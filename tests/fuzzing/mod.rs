//! The properties that each parser of external bytes must have for any bytes, in addition to
//! not panicking. The fuzzers of `fuzz/` and the seeded tests of
//! `tests/suite/proof/fuzz_targets.rs` both run these functions.
//!
//! `corpus/TARGET/` holds the first inputs, and the inputs with which a fuzzer has found an
//! error.
//!
//! Changing this: a new parser is a function here, a line in `each_target`, a
//! folder in `corpus`, and the three lines of `fuzz/fuzz_targets/TARGET.rs`.
#![allow(dead_code, unreachable_pub, missing_docs, private_interfaces, reason = "each program uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the way in which a target fails")]
#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "the way in which it fails")]

pub mod command_line;
pub mod companions;
pub mod config;
pub mod disk;
pub mod heartbeat;
pub mod ingest;
pub mod journal;
pub mod leftovers;
pub mod request;
pub mod text;

/// A target of the fuzzers.
pub struct Target {
    /// The name of its folder in `corpus` and of its program.
    pub name: &'static str,
    /// The function to run. It panics if a property does not hold.
    pub run: fn(&[u8]),
    /// The number of executions in the seeded test, which take about a second.
    pub runs: u32,
}

/// Calls a macro with all targets: name, function, executions.
#[macro_export]
macro_rules! each_target {
    ($macro:ident) => {
        $macro! {
            config = config::file, 5_000;
            option = config::option, 5_000;
            program = config::program, 5_000;
            request = request::stream, 10_000;
            chat = request::chat, 10_000;
            record = journal::record, 10_000;
            recovery = journal::recovery, 2_000;
            queue_file = ingest::queue_file, 2_000;
            health = heartbeat::health, 20_000;
            notify = heartbeat::notify, 20_000;
            note = leftovers::note, 10_000;
            environment = leftovers::environment, 10_000;
            option_word = leftovers::option_word, 20_000;
            escape = text::escape, 10_000;
            words = text::words, 20_000;
            status = text::status, 5_000;
            metric = companions::metric, 5_000;
            message = companions::message, 20_000;
            command_line = command_line::command_line, 10_000;
        }
    };
}

macro_rules! list {
    ($($name:ident = $module:ident::$function:ident, $runs:expr;)*) => {
        /// All targets.
        pub const TARGETS: &[Target] = &[
            $(Target { name: stringify!($name), run: $module::$function, runs: $runs },)*
        ];
    };
}

each_target!(list);

/// Runs the target called `name`, for a fuzzer.
pub fn run(name: &str, data: &[u8]) {
    (TARGETS.iter().find(|target| target.name == name).expect("a target").run)(data);
}

/// Makes decisions from the bytes of the fuzzer. After the last byte, each decision is 0.
pub struct Choices<'a>(pub &'a [u8]);

impl<'a> Choices<'a> {
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn below(&mut self, bound: usize) -> usize {
        let number = usize::from(self.byte()) | usize::from(self.byte()) << 8;
        number % bound.max(1)
    }

    pub fn number(&mut self) -> u64 {
        // The number is small most of the time, and at an edge of its range sometimes.
        match self.byte() {
            small @ 0..200 => u64::from(small),
            200..220 => u64::MAX - u64::from(self.byte()),
            220..240 => 1 << (self.byte() % 64),
            _ => (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte())),
        }
    }

    pub fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Returns the text that `write` writes into a buffer of `size` bytes.
pub fn written(size: usize, write: impl FnOnce(&mut zigsvc::util::text::Writer<'_>)) -> Vec<u8> {
    let mut buffer = vec![0; size];
    let mut out = zigsvc::util::text::Writer::new(&mut buffer);
    write(&mut out);
    assert!(out.len() <= size);
    out.as_bytes().to_vec()
}

/// Asserts that no byte of `bytes` ends a line or commands a terminal.
pub fn assert_plain(bytes: &[u8]) {
    let control = bytes.iter().find(|byte| (**byte < 0x20 && **byte != b'\t') || **byte == 0x7f);
    assert_eq!(control, None, "{:?}", bytes.escape_ascii().to_string());
}
