//! Packaging.

mod manual;
