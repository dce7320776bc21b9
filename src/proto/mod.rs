//! Pure bytes.
pub mod accounts;
pub mod text;
