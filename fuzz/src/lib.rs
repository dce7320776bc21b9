//! What the fuzzers run: the same functions as the seeded tests.

#[path = "../../tests/fuzzing/mod.rs"]
pub mod fuzzing;
