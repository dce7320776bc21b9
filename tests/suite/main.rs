//! The black-box tests of the real binary, one program with a module for each subject.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the way in which a test fails")]
#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "the way in which it fails")]
#![allow(unreachable_pub, reason = "modules of one test program")]

mod attacks;
mod commands;
mod companions;
mod control;
mod init_systems;
mod jobs;
mod lifecycle;
mod logs;
mod packaging;
mod proof;
mod supervisor;
mod support;
