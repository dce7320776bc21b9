//! The companions of `jobs`.
//!
//! - `hub.rs`: the hub and `chat`
//! - `collector.rs`: the collector and `metric`
//! - `opener.rs`: what the opener hands out, and to whom
//! - `opener_worker.rs`: its two processes
//! - `mosquitto.rs`: a broker in front of `queue -`

mod collector;
mod hub;
mod mosquitto;
mod opener;
mod opener_worker;
