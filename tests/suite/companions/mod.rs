//! The companions of `jobs`.
//!
//! - `hub.rs`: the hub and `chat`
//! - `collector.rs`: the collector and `metric`
//! - `opener.rs`: what the opener hands out, and to whom
//! - `opener_worker.rs`: its two processes
//! - `mosquitto.rs`: a broker in front of `queue -`

#[cfg(feature = "collector")]
mod collector;
#[cfg(feature = "hub")]
mod hub;
#[cfg(all_features)]
mod mosquitto;
#[cfg(feature = "opener")]
mod opener;
#[cfg(feature = "opener")]
mod opener_worker;
