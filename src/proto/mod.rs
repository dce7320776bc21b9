//! Bytes: parsing what comes from outside, and building what goes out. Pure:
//! no system call, no clock, no state between two calls.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

pub mod accounts;
pub mod chat;
pub mod config;
pub mod control;
pub mod crc;
pub mod decimal;
pub mod filesystem;
pub mod frame;
pub mod health;
pub mod journal;
pub mod lines;
pub mod log;
pub mod metric;
pub mod metrics;
pub mod names;
pub mod notify;
pub mod opener;
pub mod path;
pub mod text;
