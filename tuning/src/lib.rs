//! What this machine is, where the shards should run on it, and what it lacks.
//!
//! - [`machine`] reads the topology, the affinity mask and the cgroup's limits from `/sys` and `/proc`.
//! - [`mod@plan`] decides, as a pure function, which CPU each shard is pinned to, or why none is.
//! - [`apply`] pins the calling thread.
//! - [`probe`] asks the kernel and the disk what they can do.
//! - [`doctor`] turns what was found into findings, each with the command that mends it.
//!
//! This crate knows nothing of the broker and contains no unsafe code. Everything that reads the host takes the root
//! of the file tree as an argument, so that tests describe a machine as a folder of text files.
#![forbid(unsafe_code)]

pub mod apply;
pub mod cpu_list;
pub mod doctor;
pub mod machine;
pub mod plan;
pub mod probe;

pub use machine::Machine;
pub use plan::{Plan, plan};
