//! What every layer uses, and what uses no layer.

pub mod time;
