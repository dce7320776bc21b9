//! The functions that the fuzzers run. They are those of the seeded tests.

#[path = "../../tests/fuzzing/mod.rs"]
pub mod fuzzing;
