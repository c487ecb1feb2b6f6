//! The deterministic simulator: the production broker, all of it, on simulated cores, disk, network and time. A seed is a
//! run; the same seed is the same run, to the last completion.
//!
//! [`plan`] is what a seed stands for, [`lives`] runs it, [`workload`] is what clients do meanwhile, and [`model`] holds
//! what they were promised. Nothing of the broker is replaced but the driver below `rt`, and what tells it to stop.
//! [`recorded`] takes the operations of a real driver instead, and cuts the power anywhere in them.

pub mod lives;
pub mod model;
pub mod plan;
pub mod random;
pub mod recorded;
pub mod value;
pub mod workload;

pub use lives::{Report, run};
