//! Bytes: parses input from outside, and builds output. This layer is pure: it makes no system
//! call, reads no clock, and keeps no state between two calls.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

pub mod answer;
pub mod attributes;
pub mod collector;
pub mod config;
pub mod control;
pub mod crc;
pub mod decimal;
pub mod filesystem;
pub mod framing;
pub mod health;
pub mod hub;
pub mod journal;
pub mod leftovers;
pub mod log;
pub mod notify;
pub mod opener;
pub mod passwd;
pub mod prometheus;
pub mod service;
pub mod signal;
pub mod status;
