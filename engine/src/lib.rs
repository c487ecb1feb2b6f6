//! One shard's storage: record batches, logs, indexes and recovery.

pub mod batch;
pub mod checkpoint;
pub mod epochs;
mod fields;
pub mod ids;
pub mod index;
pub mod murmur2;
pub mod producers;
pub mod varint;

pub use fields::Damage;
