//! The companions.

mod collector;
mod hub;
mod mosquitto;
mod opener;
mod opener_worker;
