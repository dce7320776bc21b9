//! Tools that each layer may use. They use no layer themselves.

#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects))]

pub mod lines;
pub mod nearest;
pub mod path;
pub mod string_table;
pub mod text;
pub mod time;
pub mod token;
