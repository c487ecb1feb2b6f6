//! The broker: where the parts meet.

pub mod banner;
pub mod cli;
pub mod config;
