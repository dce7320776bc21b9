//! zigsvc.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

pub mod limits;
pub mod proto;
pub mod state;
#[cfg(feature = "sys")]
pub mod service;
#[cfg(feature = "sys")]
pub mod sys;
#[cfg(feature = "sys")]
pub mod cli;
