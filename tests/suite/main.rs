//! The black-box tests: the real binary, as its users and its enemies meet it.
//!
//! One program, because 39 of them took seven minutes to compile. A subject is a module:
//! `cargo test --test suite supervisor::` runs one.
//!
//! # Index
//!
//! | module | what it is about |
//! | --- | --- |
//! | [`jobs`] | the handlers and the results of their ends, the queue file, the spool and its disk |
//! | [`control`] | the control socket: its language, its requests, who may use it, hostile clients |
//! | [`commands`] | the commands that talk to a service, the configuration, `doctor` |
//! | [`lifecycle`] | start to stop, `run`, service managers, the health file, the process and what it inherits |
//! | [`supervisor`] | its services, a program that is not zigsvc, the hardware watchdog |
//! | [`companions`] | `hub`, `collector`, `opener` and its worker; a broker in front of the queue |
//! | [`features`] | a build with some of Cargo's features |
//! | [`logs`] | the log of a service, and `zigsvc log` |
//! | [`init_systems`] | the init script and the files for other init systems, with the real tools |
//! | [`docs`] | README.md and `docs/`: links, and every session that they show |
//! | [`packaging`] | what is written from the lists: the manual page, bash's completion |
//! | [`attacks`] | the threat model, tried for real |
//! | [`proof`] | faults at every system call, kills, the fuzzers' targets, everything at once |
//! | [`support`] | what they share; no tests |
//!
//! A build with some of Cargo's features has the modules of these features (`.ci/features`).
//!
//! # The slow ones
//!
//! They wait for a constant of `src/limits.rs`, beside all others. Each other test takes less
//! than ten seconds.
//!
//! | seconds | test | waits for |
//! | --- | --- | --- |
//! | 30 | `control::hostile::half_a_request_and_answers_...` | `CLIENT_IDLE` |
//! | 30 | `companions::collector::half_an_object_and_answers_...` | `CLIENT_IDLE` |
//! | 30 | `companions::opener_worker::half_a_request_is_closed_...` | `CLIENT_IDLE` |
//! | 30 | `commands::stdin::a_service_that_does_not_come_back_...` | `RESTART_WAIT` |
//! | 30 | `attacks::peers::a_hub_that_hangs_...` | `ANSWER_WAIT` |
//! | 25 | `proof::crash` | nothing: 200 kills |
//! | 25 | `proof::faults::no_system_call_that_fails_...` | nothing: what once was a defect, and a sample for `ZIGSVC_SECONDS` |
//! | 20 | `proof::soak` | nothing: `ZIGSVC_SOAK_SECONDS` of use, then an idle service |
//! | 17 | `supervisor::watchdog::it_starves_when_...` | `RESTART_DELAY` and its doubles, `WATCHDOG_FEED` |
//! | 15 | `supervisor::services::one_that_cannot_start_...` | `RESTART_DELAY` and its doubles |
//! | 20 | `jobs::queue_faults::a_writer_that_keeps_the_file_open_...`, `a_queue_folder_that_is_moved_...` | `CLAIM_QUIET`, heartbeats |
//! | 15 | `jobs::queue_faults::a_claim_that_cannot_be_removed_...`, and three others there | `CLAIM_QUIET`, heartbeats |
//! | 13 | `jobs::queue_file::a_line_that_comes_in_pieces_...` | `CLAIM_QUIET` |
//! | 12 | `jobs::queue_file::a_full_queue_waits_quietly_...` | `CLAIM_QUIET` |
//! | 11 | `attacks::filesystem::a_claim_that_somebody_removes_...` | `CLAIM_QUIET` |
//! | 10 | `jobs::spool::the_spool_of_an_earlier_build_is_read` | `CLAIM_QUIET` |
//! | 10 | `jobs::spool::on_a_disk_that_others_have_filled_...` | `COMPACT_RETRY` |
//! | 10 | `supervisor::watchdog::one_that_cannot_be_opened_...`, `one_that_fails_...` | `WATCHDOG_FEED` |
//!
//! # One process
//!
//! All tests are threads of one process, so a test changes nothing that belongs to the
//! process: the environment, the folder, the umask, signals, limits. It opens each descriptor
//! with `CLOEXEC`, because another test may execute a program at that moment; it waits for its
//! own children only. A lock of fcntl(2) belongs to the process: the file is one of its own
//! folder. A test counts and measures only processes that it started, and measures
//! processor time, wake-ups and memory under one lock ([`support::measuring`]).
//!
//! Changing this: a new subject is a module here, a row above, and with that a process of its
//! own under QEMU (`qemu/patient`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "the way in which a test fails")]
#![allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "the way in which it fails")]
#![cfg_attr(not(all_features), allow(dead_code, unused_imports, reason = "fewer tests share the helpers"))]
#![allow(unreachable_pub, reason = "modules of one test program")]

#[cfg(all_features)]
mod attacks;
#[cfg(all_features)]
mod commands;
mod companions;
#[cfg(feature = "jobs")]
mod control;
#[cfg(all_features)]
mod docs;
mod features;
#[cfg(all_features)]
mod init_systems;
#[cfg(feature = "jobs")]
mod jobs;
#[cfg(all_features)]
mod lifecycle;
mod logs;
#[cfg(all_features)]
mod packaging;
#[cfg(all_features)]
mod proof;
#[cfg(feature = "supervisor")]
mod supervisor;
mod support;
