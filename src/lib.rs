//! The broker: where the parts meet.
//!
//! [`broker`] starts and stops a process; [`shard`] is one core's part of it; [`connection`] reads and answers, and
//! [`handlers`] holds the one list of what is served; [`groups`] hosts the coordinators of consumer groups.
//! [`controller`] changes the metadata, [`metadata_log`] keeps it. What each core does is counted in [`metrics`] and told
//! over HTTP by [`admin`].

pub mod admin;
pub mod banner;
pub mod broker;
pub mod cli;
pub mod config;
pub mod connection;
pub mod controller;
pub mod fetch_session;
pub mod groups;
pub mod handlers;
pub mod metadata_log;
pub mod metrics;
pub mod settings;
pub mod shard;
pub mod shown;
