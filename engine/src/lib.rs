//! One shard's storage: record batches, logs, indexes and recovery.

pub mod batch;
pub mod cache;
pub mod checkpoint;
pub mod chunks;
pub mod compaction;
pub mod epochs;
mod fields;
pub mod folder;
#[doc(hidden)]
pub mod fuzz;
pub mod ids;
pub mod index;
pub mod journal;
pub mod log;
pub mod murmur2;
pub mod names;
pub mod producers;
pub mod raft_log;
pub mod repair;
pub mod retention;
pub mod segment;
pub mod space;
pub mod store;
pub mod varint;

pub use fields::Damage;
